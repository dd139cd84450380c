"""Which values of a tensor share a scale, and those values as rows: one row for each scale."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sparqsim.base import InputError

NARROW_FLOATS = ("bfloat16", "float8_e4m3fn", "float8_e5m2")


def checked(x: ArrayLike, what: str = "a tensor to quantize") -> NDArray[np.floating]:
    """``x`` as float32 or float64, if it is not empty and all of it is finite.

    Raises
    ------
    InputError
        Naming the first value that is NaN or infinite, and its place.
    """
    array = np.asarray(x)
    if array.dtype.name in NARROW_FLOATS:  # of ml_dtypes, which numpy has no kind for
        array = array.astype(np.float32)
    if array.dtype.kind not in "fiub":
        raise InputError(f"{what} must be of real numbers, got {array.dtype}")
    if array.size == 0:
        raise InputError(f"{what} must not be empty, got the shape {array.shape}")
    if array.dtype != np.float32:
        array = array.astype(np.float32 if array.dtype == np.float16 else np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        total = array.sum(dtype=np.float64)
    if not np.isfinite(total):  # cheap; only then look for the culprit
        bad = ~np.isfinite(array)
        if bad.any():
            place = np.unravel_index(int(bad.argmax()), array.shape)
            raise InputError(
                f"{what} must be finite, got {array[place]} at {tuple(map(int, place))} "
                f"({int(bad.sum())} such values); mend or mask them first"
            )
    return array


@dataclass(frozen=True)
class Slices:
    """Which values share a scale: the tensor, each index of ``axis``, groups of ``group``, tokens.

    Attributes
    ----------
    axis
        None for the whole tensor, else one slice per index (a channel).
    group
        If given, each slice is cut further into runs of so many consecutive values (with
        ``axis`` first in the order of the others). Must divide the slice, unless
    ragged
        says that the last group of a slice may be short.
    tokens
        Each line along the last axis is a slice; alone.
    """

    axis: int | None = None
    group: int | None = None
    ragged: bool = False
    tokens: bool = False

    def __post_init__(self) -> None:
        for name, value in (("axis", self.axis), ("group", self.group)):
            if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
                raise InputError(f"{name} must be a whole number or None, got {value!r}")

    def split(self, x: NDArray) -> NDArray:
        """``x`` as rows that share a scale: (slices, values); zeros fill up a short last group."""
        if self.tokens:
            return np.ascontiguousarray(x).reshape(-1, x.shape[-1])
        if self.axis is None:
            rows = x.reshape(1, -1)
        else:
            if not -x.ndim <= self.axis < x.ndim:
                raise InputError(
                    f"axis must be within the {x.ndim} axes of {x.shape}, got {self.axis}"
                )
            rows = np.moveaxis(x, self.axis, 0).reshape(x.shape[self.axis], -1)
        if self.group is not None:
            short = -rows.shape[1] % self.group if self.group >= 1 else 1
            if short and not (self.ragged and self.group >= 1):
                raise InputError(
                    f"group must divide the {rows.shape[1]} values that share axis {self.axis}, "
                    f"got {self.group}; let the last group be short (pad) or choose a divisor"
                )
            if self.group > rows.shape[1] > 0:  # the only group of each slice; not filled up
                return np.ascontiguousarray(rows)
            rows = np.pad(rows, ((0, 0), (0, short))).reshape(-1, self.group)
        return np.ascontiguousarray(rows)

    def join(self, rows: NDArray, shape: tuple[int, ...]) -> NDArray:
        """The tensor of ``shape`` of which ``rows`` is the split."""
        if self.tokens:
            return rows.reshape(shape)
        lines = 1 if self.axis is None else shape[self.axis]
        rows = rows.reshape(lines, -1)[:, : math.prod(shape) // max(lines, 1)]
        if self.axis is None:
            return rows.reshape(shape)
        axis = self.axis % len(shape)
        moved = (shape[axis], *shape[:axis], *shape[axis + 1 :])
        return np.ascontiguousarray(np.moveaxis(rows.reshape(moved), 0, axis))


@dataclass(frozen=True, eq=False)
class Samples:
    """Rows of values (slices, n), each counted ``counts`` times (once if None).

    ``bin_width`` (slices,) is given if the values are the centres of a histogram's bins.
    """

    values: NDArray[np.floating]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    counts: NDArray[np.float64] | None = None
    bin_width: NDArray[np.float64] | None = None

    @classmethod
    def of(cls, rows: NDArray[np.floating]) -> Samples:
        """Every value of ``rows``, once."""
        low, high = rows.min(axis=1).astype(np.float64), rows.max(axis=1).astype(np.float64)
        return cls(rows, low, high)

    @cached_property
    def ordered(self) -> NDArray[np.floating]:
        """The rows in ascending order, as counted samples are from the start."""
        return np.sort(self.values, axis=1) if self.counts is None else self.values

    @property
    def absmax(self) -> NDArray[np.float64]:
        """The largest magnitude of each row."""
        return np.maximum(np.abs(self.low), np.abs(self.high))
