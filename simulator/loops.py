"""Numbers over the firings of nested loops, said by the loops and not one by one.

A tile loop repeats: what a firing takes, makes and costs depends on where it stands in each loop,
and there on little more than whether it is the first, a middle or the last iteration. So each loop
is a row of *runs* of iterations that are alike, and there is one number for every combination of
runs, however many iterations they hold. Anything that is an outer product over the loops is of this
kind, and so is a single loop of runs, that is, a run-length code.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sparqsim.base import InputError

STRETCH = 1 << 16  # firings written out at once


@dataclass(frozen=True, eq=False)
class Loops:
    """A number for each firing of nested loops.

    Parameters
    ----------
    runs
        For each loop, the outermost first, the lengths of its runs of like iterations.
    values
        ``[runs of the first loop, ..., runs of the last]``: the number of a firing by its runs.
    steps
        What is added for each iteration of each loop, by default 0 (a tile's number, as a rank).

    Examples
    --------
    >>> rows, columns = [4, 4, 2], [8, 8, 8, 1]
    >>> Loops.outer(rows, columns).window(0, 12).tolist()
    [32, 32, 32, 4, 32, 32, 32, 4, 16, 16, 16, 2]
    >>> Loops.outer(rows, columns).runs
    ((2, 1), (3, 1))
    """

    runs: tuple[tuple[int, ...], ...]
    values: NDArray[np.int64]
    steps: tuple[int, ...] = ()
    sizes: tuple[int, ...] = field(init=False)

    def __post_init__(self) -> None:
        values = np.asarray(self.values)
        if values.dtype.kind not in "iu":
            raise InputError(f"loops must hold whole numbers, got {values.dtype}")
        if not self.runs or values.shape != tuple(map(len, self.runs)):
            raise InputError(
                f"loops of {tuple(map(len, self.runs))} runs need a value for each of their "
                f"combinations, got {values.shape}"
            )
        if any(run < 1 for row in self.runs for run in row) or not values.size:
            raise InputError(f"a run of a loop must hold at least 1 iteration, got {self.runs}")
        steps = tuple(self.steps) or (0,) * len(self.runs)
        if len(steps) != len(self.runs):
            raise InputError(f"{len(self.runs)} loops need as many steps, got {len(steps)}")
        object.__setattr__(self, "values", values.astype(np.int64))
        object.__setattr__(self, "steps", steps)
        object.__setattr__(self, "sizes", tuple(sum(row) for row in self.runs))

    @classmethod
    def outer(cls, *factors: ArrayLike) -> Loops:
        """The product of a factor a loop, each an array over its iterations, outermost first."""
        runs, values = [], np.ones((), np.int64)
        for factor in factors:
            array = np.atleast_1d(np.asarray(factor))
            first = np.flatnonzero(np.r_[True, array[1:] != array[:-1]])
            runs.append(tuple(np.diff(np.r_[first, array.size]).tolist()))
            values = values[..., None] * array[first]
        return cls(tuple(runs), values)

    def map(self, function: Callable[..., Any], *others: Loops) -> Loops:
        """``function`` of the numbers of these loops and of others over the same runs."""
        if any(other.runs != self.runs for other in others) or any(self.steps):
            raise InputError("loops can be joined firing by firing only over the same runs")
        return Loops(self.runs, function(self.values, *(other.values for other in others)))

    def __len__(self) -> int:
        return prod(self.sizes)

    def window(self, first: int, last: int) -> NDArray[np.int64]:
        """The numbers of the firings ``first`` to ``last - 1``."""
        k = np.arange(first, last)
        places: list[Any] = []
        stepped = np.zeros(k.size, np.int64)
        for ends, size, step in zip(
            self._ends[::-1], self.sizes[::-1], self.steps[::-1], strict=True
        ):
            k, index = np.divmod(k, size)
            places.append(np.searchsorted(ends, index, side="right") if len(ends) > 1 else 0)
            if step:
                stepped += step * index
        return self.values[tuple(places[::-1])] + stepped

    @cached_property
    def _ends(self) -> list[NDArray[np.int64]]:
        """Of each loop, where its runs end."""
        return [np.cumsum(row) for row in self.runs]

    def __getitem__(self, firing: int) -> int:
        return int(self.window(firing, firing + 1)[0])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return self.window(0, len(self))[:, None].astype(dtype or np.int64)

    def steady(self, first: int, last: int) -> tuple[int, int]:
        """Until which firing the numbers of ``first`` to ``last - 1`` repeat, and what that adds.

        That is: ``self[k + last - first] == self[k] + added`` from ``first`` on, as long as the
        left side is a firing below the end. Where they do not repeat, the end is ``last``.
        """
        period, inner = last - first, len(self)
        for ends, size, step in zip(self._ends, self.sizes, self.steps, strict=True):
            outer, inner = inner, inner // size
            if period % inner:
                continue
            run = np.searchsorted(ends, first % outer // inner, side="right")
            end = first // outer * outer + int(ends[run]) * inner
            if last <= end:
                return end, step * (period // inner)
        return last, 0

    # As the arrays ``[firings, 1]`` that it stands for.

    @property
    def shape(self) -> tuple[int, int]:
        """Firings and 1, since all lanes are alike."""
        return len(self), 1

    def least_and_most(self) -> tuple[int, int]:
        """The least and the greatest number there is."""
        low = high = self.values
        for axis, (step, row) in enumerate(zip(self.steps, self.runs, strict=True)):
            shape = [-1 if a == axis else 1 for a in range(len(self.runs))]
            last = step * (np.cumsum(row) - 1)
            first = last - step * (np.array(row) - 1)
            low = low + np.minimum(first, last).reshape(shape)
            high = high + np.maximum(first, last).reshape(shape)
        return int(low.min()), int(high.max())

    def total(self) -> int:
        """The sum over all firings; Python integers, which do not overflow."""
        counts: Any = np.ones((), object)
        for row in self.runs:
            counts = counts[..., None] * np.array(row, object)
        stepped = sum(
            step * (size * (size - 1) // 2) * (len(self) // size)
            for step, size in zip(self.steps, self.sizes, strict=True)
        )
        return int((counts * self.values.astype(object)).sum()) + stepped


@dataclass(frozen=True, eq=False)
class Paced(Loops):
    """Cycles for what comes through at a pace, a firing each, one behind the other.

    After each firing all that has come so far has taken its time, rounded up to whole cycles; a
    firing takes a cycle at least.

    Parameters
    ----------
    runs, values
        What comes in each firing.
    pace
        So much comes through, and in so many cycles.

    Examples
    --------
    >>> Paced(((6,),), [4], pace=(3, 1)).window(0, 6).tolist()
    [2, 1, 1, 2, 1, 1]
    """

    pace: tuple[int, int] = (1, 1)

    @classmethod
    def of(cls, amounts: Loops, pace: tuple[int, int]) -> Paced:
        """What comes in each firing as loops that do not rise."""
        if any(amounts.steps):
            raise InputError("what comes at a pace must not rise from firing to firing")
        return cls(amounts.runs, amounts.values, pace=pace)

    def window(self, first: int, last: int) -> NDArray[np.int64]:
        """The cycles of the firings ``first`` to ``last - 1``."""
        each, cycles = self.pace
        comes = super().window(first, last)
        ends = self._before(first) * cycles % each + np.r_[0, np.cumsum(comes)] * cycles
        return np.maximum(np.diff(-(-ends // each)), 1)

    def steady(self, first: int, last: int) -> tuple[int, int]:
        """As of the loops, if what comes in the period takes whole cycles."""
        each, cycles = self.pace
        if (self._before(last) - self._before(first)) * cycles % each:
            return last, 0
        return super().steady(first, last)

    def least_and_most(self) -> tuple[int, int]:
        """Bounds of the cycles of a firing: what comes, rounded down and up."""
        each, cycles = self.pace
        low, high = super().least_and_most()
        return max(1, low * cycles // each), max(1, -(-high * cycles // each))

    def total(self) -> int:
        """The sum over all firings."""
        ends = range(0, len(self), STRETCH)
        return sum(int(self.window(at, min(at + STRETCH, len(self))).sum()) for at in ends)

    @cached_property
    def _inside(self) -> list[NDArray[np.int64]]:
        """For each loop what comes in one of its iterations, ``[runs down to it]``."""
        found = [self.values]
        for row in self.runs[:0:-1]:
            found.append((found[-1] * np.array(row)).sum(axis=-1))
        return found[::-1]

    def _before(self, firing: int) -> int:
        """All that comes before a firing."""
        found, inner = 0, len(self)
        place: tuple[int, ...] = ()
        for row, ends, size, inside in zip(
            self.runs, self._ends, self.sizes, self._inside, strict=True
        ):
            inner //= size
            index, firing = divmod(firing, inner)
            found += int((np.clip(index - ends + row, 0, row) * inside[place]).sum())
            if index == size:
                break
            place = (*place, int(np.searchsorted(ends, index, side="right")))
        return found
