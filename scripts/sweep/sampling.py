"""How a value varies, and which combinations are taken: whole grids, or samples of the space."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparqsim.scripts.sweep.file import Range, Sample, Scalar


@dataclass(frozen=True)
class Axis:
    """A value that varies.

    Attributes
    ----------
    name
        Dotted, as ``machine.rows``.
    values
        All that it takes; empty where it takes any between ``low`` and ``high``.
    low, high
        Whole numbers where both are, and then both are taken.
    log
        Whether equal ratios are as likely as each other, not equal differences.
    """

    name: str
    values: tuple[Scalar, ...] = ()
    low: float = 0.0
    high: float = 1.0
    log: bool = False

    @property
    def is_whole(self) -> bool:
        """Whether values are whole numbers."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    @property
    def is_ordered(self) -> bool:
        """Whether values are numbers, not names or truth values."""
        return not any(isinstance(value, bool | str) for value in self.values)

    def of(self, share: float) -> Scalar:
        """The value at a share in [0, 1) of the way."""
        if self.values:
            return self.values[int(share * len(self.values))]
        low, high = self.low, self.high + self.is_whole
        found = low * (high / low) ** share if self.log else low + share * (high - low)
        return min(math.floor(found), int(self.high)) if self.is_whole else found


def axis_of(name: str, value: Sequence[Scalar] | Range, sampled: bool) -> Axis:
    """The axis of a list or a range.

    Raises
    ------
    ValueError
        If a list is empty or has a value twice, or a range of a grid has neither step nor count.
    """
    if not isinstance(value, Range):
        if not value:
            raise ValueError("a list must have at least one value")
        if len(set(map(repr, value))) < len(value):
            raise ValueError(f"a value stands twice in the list {list(value)}")
        return Axis(name, tuple(value))
    assert value.from_ is not None and value.to is not None
    if value.step is not None or value.count is not None:
        return Axis(name, steps(value))
    if not sampled:
        raise ValueError("a range of a grid needs a step or a count")
    return Axis(name, low=value.from_, high=value.to, log=value.scale == "log")


def steps(value: Range) -> tuple[Scalar, ...]:
    """The values of a range with a step or a count; whole numbers between whole numbers.

    >>> steps(Range(from_=1, to=64, count=4, scale="log"))
    (1, 4, 16, 64)
    """
    low, high = value.from_, value.to
    assert low is not None and high is not None
    whole = isinstance(low, int) and isinstance(high, int)
    if value.step is not None:
        # A step that does not meet the end by rounding alone still takes it.
        count = math.floor((high - low) / value.step + 1e-9) + 1
        found = [low + number * value.step for number in range(count)]
        return tuple(found)
    assert value.count is not None
    shares = [number / (value.count - 1) for number in range(value.count)]
    if value.scale == "log":
        reals = [low * (high / low) ** share for share in shares]
    else:
        reals = [low + share * (high - low) for share in shares]
    reals[0], reals[-1] = low, high
    return tuple(dict.fromkeys(map(round, reals))) if whole else tuple(reals)


def drawn(sample: Sample, axes: int) -> NDArray[np.float64]:
    """Places ``[count, axes]`` in [0, 1), the same for the same seed.

    A Latin hypercube meets every ``1 / count`` of every axis once; a Sobol sequence, scrambled,
    fills the space evenly at every power of two.
    """
    if sample.kind == "random" or not axes:
        return np.random.default_rng(sample.seed).random((sample.count, axes))
    from scipy.stats import qmc

    rng = np.random.default_rng(sample.seed)
    if sample.kind == "sobol":
        places = qmc.Sobol(axes, rng=rng).random(sample.count)
    else:
        places = qmc.LatinHypercube(axes, rng=rng).random(sample.count)
    return np.minimum(places, np.nextafter(1.0, 0.0))


@dataclass(frozen=True, eq=False)
class Grid:
    """Every combination, the last axis fastest."""

    axes: tuple[Axis, ...]

    @property
    def size(self) -> int:
        """How many there are, however many those are."""
        return math.prod(len(axis.values) for axis in self.axes)

    def __getitem__(self, index: int) -> dict[str, Any]:
        found = {}
        for axis in reversed(self.axes):
            index, place = divmod(index, len(axis.values))
            found[axis.name] = axis.values[place]
        return found


@dataclass(frozen=True, eq=False)
class Drawn:
    """The combinations of a sample."""

    axes: tuple[Axis, ...]
    places: NDArray[np.float64]

    @property
    def size(self) -> int:
        """How many there are."""
        return len(self.places)

    def __getitem__(self, index: int) -> dict[str, Any]:
        row = self.places[index].tolist()
        return {axis.name: axis.of(share) for axis, share in zip(self.axes, row, strict=True)}
