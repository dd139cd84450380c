"""Rounding to the nearest of a list of values, at a few nanoseconds a number.

Between two neighbouring values lies a threshold: the smallest float that rounds to the upper one.
The rank of a number is how many thresholds are at or below it. The bits of a float, read as an
integer with the sign folded, are ordered as the floats are; so the top bits (sign, exponent and a
few of the mantissa) pick a bucket, the bucket says how many thresholds lie below it, and as there
is almost never more than one inside a bucket, one integer comparison finishes the job. The number
of mantissa bits is the least that separates all thresholds, so that a table of 16 values fits the
first-level cache.

Thresholds are exact: midpoints are formed without rounding error (two-sum) and then moved to the
next float of the input's own type wherever the midpoint itself is not a float of that type or
belongs to the lower value. :func:`nearest_rank` is the plain twin: exact rationals, nothing clever.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from sparqsim.base import kernel

Floats = npt.NDArray[np.floating[Any]]


class Layout(NamedTuple):
    """How a float type lies in memory: mantissa bits, the integer of its size, all but the sign."""

    mantissa: int
    integer: type[np.signedinteger[Any]]
    magnitude: int


_LAYOUT = {  # published: IEEE 754 binary32 and binary64
    np.dtype(np.float32): Layout(23, np.int32, (1 << 31) - 1),
    np.dtype(np.float64): Layout(52, np.int64, (1 << 63) - 1),
}
_MAX_BUCKETS = 1 << 18  # 1 MiB of int32: stays in a second-level cache


def nearest_rank(x: float, values: npt.NDArray[np.float64], up: npt.NDArray[np.bool_]) -> int:
    """The rank in ``values`` (ascending) of the one nearest to ``x``: the specification.

    Parameters
    ----------
    x
        A number, not NaN; infinities belong to the ends.
    values
        Ascending. A zero may stand there twice, as -0.0 and 0.0: then the sign of ``x`` decides.
    up
        Length ``len(values) - 1``: whether a tie between ``i`` and ``i + 1`` goes up.
    """
    above = bisect_right(values, x)
    below = above - 1
    if below >= 0 and values[below] == x:
        two_zeros = x == 0 and below > 0 and values[below - 1] == 0
        return below - 1 if two_zeros and np.signbit(x) else below
    if below < 0 or above == len(values):
        return max(below, 0)
    to_lower = Fraction(float(x)) - Fraction(float(values[below]))
    to_upper = Fraction(float(values[above])) - Fraction(float(x))
    return above if to_upper < to_lower or (to_upper == to_lower and up[below]) else below


def _ordered(x: Floats) -> npt.NDArray[np.int64]:
    """The bits of floats as integers in the order of the floats; -0.0 is -1 and 0.0 is 0."""
    layout = _LAYOUT[x.dtype]
    bits = x.view(layout.integer).astype(np.int64)
    magnitude = bits & layout.magnitude
    return np.where(bits < 0, -1 - magnitude, magnitude)


def thresholds(
    values: npt.NDArray[np.float64], up: npt.NDArray[np.bool_], dtype: np.dtype[Any]
) -> npt.NDArray[np.int64]:
    """The ordered integer of the smallest ``dtype`` float that rounds to each upper neighbour."""
    lower, upper = values[:-1], values[1:]
    total = lower + upper
    back = total - lower
    error = (lower - (total - back)) + (upper - back)  # two-sum: total + error is exact
    middle = total / 2
    above = (error > 0) | ((error == 0) & ~up)
    edge = np.where(above, np.nextafter(middle, np.inf), middle)
    with np.errstate(over="ignore", under="ignore"):
        cut = edge.astype(dtype)
        low = cut.astype(np.float64) < edge
        cut = np.where(low, np.nextafter(cut, np.array(np.inf, dtype)), cut).astype(dtype)
    ordered = _ordered(cut)
    ordered[cut == 0] = -1  # both zeros are at or above a threshold at zero ...
    ordered[lower == upper] = 0  # ... except between the two zeros themselves
    return ordered


@dataclass(frozen=True, eq=False)
class Lookup:
    """Buckets and thresholds of one list of values for one float type."""

    start: npt.NDArray[np.int32]
    thresholds: npt.NDArray[np.int64]
    shift: int
    low: int
    high: int
    steps: int

    @classmethod
    def build(
        cls, values: npt.NDArray[np.float64], up: npt.NDArray[np.bool_], dtype: np.dtype[Any]
    ) -> Lookup:
        """Buckets with the fewest mantissa bits that leave one threshold in each, if it can be."""
        cuts = thresholds(values, up, dtype)
        layout = _LAYOUT[np.dtype(dtype)]
        magnitudes = np.where(cuts < 0, -1 - cuts, cuts)
        magnitudes = magnitudes[magnitudes > 0]
        # NaN and infinities are ordered above every finite cut; the sentinel is above them.
        padded = np.append(cuts, np.iinfo(np.int64).max)
        best: Lookup | None = None
        for kept in range(17):
            shift = layout.mantissa - kept
            low = max(int(magnitudes.min(initial=layout.magnitude)) >> shift, 1) - 1
            high = max(int(magnitudes.max(initial=0)) >> shift, low)
            if best is not None and 2 * (high - low + 1) > _MAX_BUCKETS:
                break
            first = np.arange(low, high + 1, dtype=np.int64) << shift
            last = first + ((np.int64(1) << shift) - 1)
            first[0], last[-1] = 0, layout.magnitude
            begin = np.concatenate([first, -1 - last])
            end = np.concatenate([last, -1 - first])
            start = np.searchsorted(cuts, begin, side="right")
            steps = int((np.searchsorted(cuts, end, side="right") - start).max())
            if best is None or steps < best.steps:
                best = cls(start.astype(np.int32), padded, shift, low, high, steps)
            if steps <= 1:
                break
        assert best is not None
        return best

    def ranks_to(self, x: Floats, table: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """``table[rank]`` of every element of flat ``x`` (NaN gives any entry)."""
        out = np.empty(x.size, table.dtype)
        layout = _LAYOUT[x.dtype]
        parts = (self.start, self.thresholds, self.shift, self.low, self.high, self.steps)
        _look_up(x.view(layout.integer), layout.magnitude, *parts, table, out)
        return out


@kernel(error_model="numpy", _nrt=False)
def _look_up(
    bits: Any,
    top: int,
    start: Any,
    cuts: Any,
    shift: int,
    low: int,
    high: int,
    steps: int,
    table: Any,
    out: Any,
) -> None:
    negative = high - low + 1
    for i in range(bits.size):
        value = bits[i]
        magnitude = value & top
        bucket = min(max(magnitude >> shift, low), high) - low
        if value < 0:
            bucket += negative
            magnitude = -1 - magnitude
        rank = start[bucket]
        for _ in range(steps):
            rank += magnitude >= cuts[rank]
        out[i] = table[rank]


@kernel(error_model="numpy", _nrt=False)
def round_half_up(x: Any, low: Any, high: Any, mask: Any, out: Any) -> None:
    """Two's complement codes of flat ``x`` rounded to whole numbers of [low, high], ties up."""
    for i in range(x.size):
        clipped = min(max(x[i], low), high)
        whole = np.floor(clipped)
        # clipped - whole is exact or rounds away from the decision (Sterbenz).
        code = np.int32(whole) + np.int32(clipped - whole >= 0.5)
        out[i] = code & mask


@kernel(error_model="numpy", _nrt=False)
def take(table: Any, codes: Any, out: Any) -> int:
    """``out = table[codes]``; the index of a code outside the table, or -1 if there is none."""
    bad = -1
    for i in range(codes.size):
        code: Any = np.int64(codes[i])
        if code < 0 or code >= table.size:
            bad = i
            code = 0
        out[i] = table[code]
    return bad
