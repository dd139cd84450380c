"""Calibration: from the values a tensor takes, the range a quantizer should cover.

Two errors pull against each other: a wide range rounds coarsely, a narrow one clips. Methods:

* `MinMax`: cover everything (nothing clipped).
* `Percentile`: cover a given share of the values.
* `LeastSquares`: the range whose quantization has the least squared error, among a scan.
* `Entropy`: the clipping threshold whose quantized histogram diverges least (Kullback-Leibler)
  from the true one (Migacz, "8-bit inference with TensorRT", GTC 2017), for any format's grid.
  Zeros are left out of the histogram where the grid holds a zero: they are exact under every
  threshold, and behind a ReLU they are so many that spreading them over the bins of their code
  would outweigh all else and clip nearly everything.

They work on `Samples`: rows of values, one row for each scale to be found. These come from a
tensor at hand (exact) or from an `Observer` that has seen batches stream by (a histogram). The
observer's bins are a power of two wide and symmetric about zero; when a value falls outside,
neighbouring bins are merged in pairs, which loses no count. So the histogram depends only on the
values seen, not on their order or their split into batches. `MovingAverage` is an observer too: it
follows the range of each batch with an exponential average and forgets.

Squared errors are exact, not sampled: a sorted row with prefix sums gives the error on a grid of
K values from K-1 places in the row, found anew for each scale by galloping from the last.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import msgspec
import numpy as np
from numba import prange
from numpy.typing import ArrayLike, NDArray

from sparqsim.base import InputError, kernel
from sparqsim.workloads.formats import Format, Int
from sparqsim.workloads.formats.pairs import OutlierVictim

SMALLEST_SCALE = float(np.finfo(np.float32).tiny)  # derived: the least normal float32
WIDE = 2.0**64  # assumed: between what 8-bit floats reach (2**16) and bfloat16 (2**128)
# Whole numbers are tried by arithmetic in slices shorter than so many times their count, where it
# is the faster way: derived, measured on rows of 384 to 10**7 values.
DIRECT_BELOW = 16
NARROW_FLOATS = ("bfloat16", "float8_e4m3fn", "float8_e5m2")
BINS = 4096  # assumed: a side; the largest value falls in bin 2048 or above, so 11 bits resolve it


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
        None for the whole tensor, else one slice an index (a channel).
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


def parameters(
    grid: Format, low: NDArray[np.float64], high: NDArray[np.float64], asymmetric: bool
) -> tuple[NDArray[np.float32], NDArray[np.int32] | None]:
    """Scale and zero point with which ``grid`` covers ``low`` .. ``high`` of each slice.

    Symmetric: ``S = max(|low|, |high|) / the smaller end of the grid`` (127 for int8), so that
    neither end is clipped; an unsigned grid: ``S = high / the largest value``.
    Asymmetric: ``S = (high - low) / (qmax - qmin)``, ``Z = qmin - round(low / S)``; the range is
    first widened to hold zero, so that a zero is exact. A slice of zeros gets the scale 1, and so
    does one so small that no normal float32 is its scale (a dead channel: it becomes zero), and
    every slice on a float so wide that it needs no scale (bfloat16).

    Raises
    ------
    InputError
        If a scale overflows float32, or an unsigned grid would have to hold negative values.
    """
    least, most = float(grid.values[0]), float(grid.values[-1])
    zero_point = None
    if most > WIDE and grid.values[grid.values > 0][0] < 1 / WIDE:
        scale = np.ones(len(low))
    elif asymmetric:
        low, high = np.minimum(low, 0.0), np.maximum(high, 0.0)
        scale = (high - low) / (most - least)
    elif least >= 0:
        if low.min() < 0:
            worst = int(low.argmin())
            raise InputError(
                f"{grid.name} holds no negative values, but slice {worst} goes down to "
                f"{low[worst]:g}; take a signed format or asymmetric=True"
            )
        scale = high / most
    elif most == 0:  # one bit in two's complement: 0 and -1
        scale = np.abs(np.minimum(low, 0.0)) / -least
    else:
        scale = np.maximum(np.abs(low), np.abs(high)) / min(-least, most)
    scale = np.where(scale < SMALLEST_SCALE, 1.0, scale)
    bad = ~(scale <= np.finfo(np.float32).max)
    if bad.any():
        worst = int(bad.argmax())
        raise InputError(
            f"the scale of slice {worst} would be {scale[worst]:g} (range {low[worst]:g} .. "
            f"{high[worst]:g} on {grid.name}), which no float32 holds; rescale the tensor"
        )
    scale32 = scale.astype(np.float32)
    if asymmetric:
        zero_point = np.clip(least - np.rint(low / scale), least, most).astype(np.int32)
    return scale32, zero_point


@kernel()
def _gallop(row, bound, start):
    """The first place in the ascending ``row`` with a value >= ``bound``, sought from ``start``."""
    n = len(row)
    step = 1
    low, high = start, start
    if start < n and row[start] < bound:
        while high < n and row[high] < bound:
            low = high + 1
            high += step
            step *= 2
        high = min(high, n)
    else:
        while low > 0 and row[low - 1] >= bound:
            high = low - 1
            low -= step
            step *= 2
        low = max(low, 0)
    while low < high:
        middle = (low + high) // 2
        if row[middle] < bound:
            low = middle + 1
        else:
            high = middle
    return low


@kernel(parallel=True)
def _affine_errors(rows, counts, low, high, offset, scale, factors, errors):
    """As `_squared_errors`, on the whole numbers ``low`` .. ``high``, each value by arithmetic."""
    n = rows.shape[1]
    for r in prange(rows.shape[0]):
        least, most = low - offset[r], high - offset[r]
        row = rows[r].astype(np.float64)
        for f in range(len(factors)):
            s = scale[r] * factors[f]
            inverse = 1.0 / s
            total = 0.0
            for i in range(n):
                y = row[i] * inverse
                e = y - min(max(np.rint(y), least), most)
                total += e * e * (counts[r, i] if counts.shape[0] else 1.0)
            errors[r, f] = total * s * s


@kernel(parallel=True)
def _squared_errors(rows, counts, values, offset, scale, factors, errors):
    """Squared error of each row on ``(values - offset) * scale * factor``, for each factor.

    rows (R, n) ascending; counts (R, n) or (0, 0); values (K,) ascending; offset, scale (R,);
    errors (R, F) is filled.
    """
    n = rows.shape[1]
    levels = len(values)
    for r in prange(rows.shape[0]):
        row = rows[r]
        weight = np.empty(n + 1)
        first = np.empty(n + 1)
        weight[0] = first[0] = 0.0
        power = 0.0
        for i in range(n):
            w = counts[r, i] if counts.shape[0] else 1.0
            x = np.float64(row[i])
            weight[i + 1] = weight[i] + w
            first[i + 1] = first[i] + w * x
            power += w * x * x
        place = np.zeros(levels, np.int64)
        for f in range(len(factors)):
            s = scale[r] * factors[f]
            total = power
            left = 0
            for k in range(levels):
                v = (values[k] - offset[r]) * s
                right = n
                if k + 1 < levels:
                    middle = (0.5 * (values[k] + values[k + 1]) - offset[r]) * s
                    right = _gallop(row, middle, place[k])
                    place[k] = right
                if right > left:
                    mass = weight[right] - weight[left]
                    total += v * (v * mass - 2.0 * (first[right] - first[left]))
                    left = right
                    if left == n:
                        break
            errors[r, f] = max(total, 0.0)


def squared_errors(
    samples: Samples,
    grid: Format,
    scale: NDArray[np.floating],
    zero_point: NDArray[np.int32] | None,
    factors: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Sum over each row of the squared error on ``grid``, at ``scale * factor`` for each factor.

    Parameters
    ----------
    scale, zero_point
        One a row.
    factors
        (F,), ascending or not; ascending is faster.

    Returns
    -------
    errors (slices, F).
    """
    scale64 = scale.astype(np.float64)
    errors = np.empty((len(samples.values), len(factors)))
    weights = np.empty((0, 0)) if samples.counts is None else samples.counts
    offset = np.zeros(len(errors)) if zero_point is None else zero_point.astype(np.float64)
    if isinstance(grid, Int) and samples.values.shape[1] < DIRECT_BELOW * len(grid.values):
        low, high = grid.values[0], grid.values[-1]
        _affine_errors(samples.values, weights, low, high, offset, scale64, factors, errors)
    else:
        _squared_errors(samples.ordered, weights, grid.values, offset, scale64, factors, errors)
    if isinstance(grid, OutlierVictim):
        _add_victims(samples, grid, scale64, factors, errors)
    return errors


@kernel(parallel=True)
def _add_lost_victims(rows, scale, factors, magnitudes, middles, cut, larger, errors):
    """Add to errors (R, F), of each value for itself, what victims lose by becoming zero.

    rows (R, even); magnitudes (K,) ascending; middles (K-1,) between them; a magnitude of ``cut``
    or more is an outlier.
    """
    n = rows.shape[1]
    for r in prange(rows.shape[0]):
        # Few pairs hold an outlier at any of the scales: find them once.
        least = cut * scale[r] * factors.min() * (1 - 1e-9)
        found = 0
        for i in range(0, n, 2):
            if max(abs(rows[r, i]), abs(rows[r, i + 1])) >= least:
                found += 1
        pairs = np.empty((found, 2))
        found = 0
        for i in range(0, n, 2):
            if max(abs(rows[r, i]), abs(rows[r, i + 1])) >= least:
                pairs[found] = np.abs(rows[r, i : i + 2])
                found += 1
        for f in range(len(factors)):
            s = scale[r] * factors[f]
            lost = 0.0
            for i in range(found):
                left, right = pairs[i, 0] / s, pairs[i, 1] / s
                if max(left, right) >= cut:
                    victim = right
                    if left < cut or (larger and right > left and right >= cut):
                        victim = left
                    e = victim - magnitudes[np.searchsorted(middles, victim)]
                    lost += victim * victim - e * e
            errors[r, f] += lost * s * s


def _add_victims(
    samples: Samples,
    grid: OutlierVictim,
    scale: NDArray[np.float64],
    factors: NDArray[np.float64],
    errors: NDArray[np.float64],
) -> None:
    """Complete the errors of single values to those of pairs, where neighbours matter."""
    rows = samples.values
    if samples.counts is not None:
        raise InputError(
            f"{grid.name} codes neighbours, and a histogram does not know who was beside whom; "
            "calibrate on a tensor"
        )
    if rows.shape[1] % 2:
        raise InputError(
            f"{grid.name} needs an even number of values in each slice, got {rows.shape[1]}; "
            "append a zero"
        )
    magnitudes = grid.values[grid.values >= 0]
    middles = (magnitudes[1:] + magnitudes[:-1]) / 2
    cut = middles[np.count_nonzero(grid.normal.values >= 0) - 1]
    larger = grid.keep == "larger"
    _add_lost_victims(rows, scale, factors, magnitudes, middles, cut, larger, errors)


class MinMax(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="minmax"):
    """Cover every value."""

    def range(
        self, samples: Samples, grid: Format, asymmetric: bool
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The least and the largest value of each slice."""
        return samples.low, samples.high


class Percentile(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="percentile"
):
    """Cover ``percent`` of the values: of the magnitudes, or with half the rest cut at each end.

    Interpolates linearly between the values of a tensor, as ``numpy.quantile`` does; for a stream
    it is the far edge of the histogram bin.
    """

    percent: float = 99.9  # assumed: usual for 8 bits; a parameter

    def __post_init__(self) -> None:
        if not 0 < self.percent <= 100:
            raise InputError(f"percentile.percent must lie in (0, 100], got {self.percent}")

    def range(
        self, samples: Samples, grid: Format, asymmetric: bool
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The range of each slice."""
        share = self.percent / 100
        if asymmetric:
            low = self._quantile(samples, samples.values, (1 - share) / 2)
            return low, self._quantile(samples, samples.values, (1 + share) / 2)
        top = self._quantile(samples, np.abs(samples.values), share)
        return np.maximum(samples.low, -top), np.minimum(samples.high, top)

    @staticmethod
    def _quantile(
        samples: Samples, values: NDArray[np.floating], share: float
    ) -> NDArray[np.float64]:
        if samples.counts is None:
            return np.asarray(np.quantile(values, share, axis=1), np.float64)
        order = np.argsort(values, axis=1, kind="stable")
        values = np.take_along_axis(values, order, axis=1)
        filled = np.cumsum(np.take_along_axis(samples.counts, order, axis=1), axis=1)
        place = (filled < share * filled[:, -1:]).sum(axis=1)
        last = values.shape[1] - 1
        return np.asarray(values[np.arange(len(values)), np.minimum(place, last)], np.float64)


class LeastSquares(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="mse"
):
    """The range with the least squared error among ``start``, ``start + step`` ... ``stop``.

    Each is a multiple of the range that `MinMax` finds.
    """

    start: float = 0.01  # assumed: a tensor with outliers of 100 sigma is clipped this far
    stop: float = 1.0  # derived: nothing lies beyond
    step: float = 0.01

    def __post_init__(self) -> None:
        if not (0 < self.start <= self.stop < np.inf and self.step > 0):
            raise InputError(
                "mse needs 0 < start <= stop and step > 0, got "
                f"start {self.start}, stop {self.stop}, step {self.step}"
            )

    @property
    def factors(self) -> NDArray[np.float64]:
        """The multiples that are tried."""
        count = int((self.stop - self.start) / self.step + 1e-9) + 1
        return self.start + self.step * np.arange(count, dtype=np.float64)

    def best(
        self,
        samples: Samples,
        grid: Format,
        scale: NDArray[np.floating],
        zero_point: NDArray[np.int32] | None = None,
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The best factor on each slice's scale and its squared error; the smaller at a tie."""
        errors = squared_errors(samples, grid, scale, zero_point, self.factors)
        place = errors.argmin(axis=1)
        return self.factors[place], errors[np.arange(len(errors)), place]

    def range(
        self, samples: Samples, grid: Format, asymmetric: bool
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The range of each slice."""
        scale, zero_point = parameters(grid, samples.low, samples.high, asymmetric)
        factor, _ = self.best(samples, grid, scale, zero_point)
        return samples.low * factor, samples.high * factor


class Entropy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="entropy"):
    """The threshold on magnitudes whose quantized histogram is nearest in divergence.

    For each threshold T, P is the histogram up to T with the clipped counts in its last bin; Q
    spreads the counts of all bins with one code evenly over those of them where P is not zero.
    The T with the least KL(P || Q) is taken, the smaller at a tie. Zeros do not count where the
    grid holds one. Symmetric only.
    """

    bins: int = 2048  # published: Migacz 2017
    stride: int = 16  # assumed: thresholds .8 % of the range apart, as mse's; 1 tries every bin

    def __post_init__(self) -> None:
        if not (8 <= self.bins <= 2**16 and 1 <= self.stride <= self.bins):
            raise InputError(
                "entropy needs bins in 8 .. 65536 and stride in 1 .. bins, got "
                f"bins {self.bins}, stride {self.stride}"
            )

    def range(
        self, samples: Samples, grid: Format, asymmetric: bool
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The range of each slice."""
        if asymmetric:
            raise InputError("entropy calibration is symmetric; use mse or percentile instead")
        levels = np.unique(np.abs(grid.values))
        if len(levels) > self.bins:
            raise InputError(
                f"entropy.bins must be at least the {len(levels)} magnitudes of {grid.name}, got "
                f"{self.bins}"
            )
        if samples.bin_width is None:
            width = samples.absmax / self.bins
        else:  # whole bins of the histogram, or some would hold more of them than others
            width = samples.bin_width * 2 ** max(0, math.ceil(math.log2(BINS / self.bins)))
        best = np.empty(len(samples.values), np.int64)
        weights = np.empty((0, 0)) if samples.counts is None else samples.counts
        _least_divergence(samples.values, weights, samples.absmax, width, levels, self.stride, best)
        top = best * width
        return np.maximum(samples.low, -top), np.minimum(samples.high, top)


@kernel()
def divergence_at(keep, count, filled, entropy, middles):
    """KL(P || Q) if the first ``keep`` bins are kept, from running sums over the bins.

    ``count``, ``filled`` and ``entropy`` (bins + 1,) are the sums of c, [c > 0] and c log c over
    the bins below; ``middles`` the boundaries between codes as shares of the largest value.
    """
    total = count[-1]
    inside = count[keep]
    last = count[keep] - count[keep - 1]
    clipped = last + total - inside  # what P has in its last bin
    cross = 0.0
    left = 0
    for k in range(len(middles) + 1):
        right = keep
        if k < len(middles):  # bin i stands for the magnitude i + 1/2
            right = min(max(int(np.ceil(middles[k] * keep - 0.5)), left), keep)
        if right > left:
            mass_q = count[right] - count[left]
            mass_p = mass_q
            bins = filled[right] - filled[left]
            if right == keep:
                mass_p += total - inside
                if last == 0.0 and clipped > 0.0:
                    bins += 1.0
            if mass_p > 0.0:
                if mass_q == 0.0:
                    return np.inf
                cross += mass_p * np.log(mass_q / bins / inside)
            left = right
    own = entropy[keep - 1] + (clipped * np.log(clipped) if clipped > 0.0 else 0.0)
    return (own - cross) / total - np.log(total)


@kernel(parallel=True)
def _least_divergence(values, weights, absmax, width, levels, stride, best):
    """For each row, how many bins of ``width`` to keep for ``levels`` (ascending)."""
    middles = 0.5 * (levels[1:] + levels[:-1]) / levels[-1]
    for r in prange(values.shape[0]):
        best[r] = 0
        if absmax[r] == 0.0:
            continue
        bins = int(np.ceil(absmax[r] / width[r] * (1.0 - 1e-12)))
        best[r] = bins
        count = np.zeros(bins + 1)
        filled = np.zeros(bins + 1)
        entropy = np.zeros(bins + 1)
        for i in range(values.shape[1]):
            if values[r, i] == 0.0 and levels[0] == 0.0:
                continue
            place = min(int(np.abs(values[r, i]) / width[r]), bins - 1)
            count[place + 1] += weights[r, i] if weights.shape[0] else 1.0
        for i in range(1, bins + 1):
            c = count[i]
            filled[i] = filled[i - 1] + (1.0 if c > 0.0 else 0.0)
            entropy[i] = entropy[i - 1] + (c * np.log(c) if c > 0.0 else 0.0)
            count[i] += count[i - 1]
        least = np.inf
        for back in range(max(bins - len(levels), 0) // stride, -1, -1):
            keep = bins - back * stride
            divergence = divergence_at(keep, count, filled, entropy, middles)
            if divergence < least:
                least = divergence
                best[r] = keep


Method = MinMax | Percentile | LeastSquares | Entropy
METHODS: dict[str, Method] = {
    "minmax": MinMax(),
    "percentile": Percentile(),
    "mse": LeastSquares(),
    "entropy": Entropy(),
}


def method_named(method: str | Method) -> Method:
    """The method of a name, or the method itself."""
    if isinstance(method, str):
        if method not in METHODS:
            raise InputError(
                f"there is no calibration method {method!r}; there is {', '.join(METHODS)}"
            )
        return METHODS[method]
    return method


@kernel(parallel=True)
def _count(rows, counts, exponent, low, high, zeros):
    """Add ``rows`` (R, n) to histograms (R, 2 * bins) of bins ``2**exponent`` wide; widen them."""
    bins = counts.shape[1] // 2
    for r in prange(rows.shape[0]):
        for i in range(rows.shape[1]):
            x = np.float64(rows[r, i])
            low[r] = min(low[r], x)
            high[r] = max(high[r], x)
        top = max(-low[r], high[r])
        grow = 0
        while top >= bins * 2.0 ** (exponent[r] + grow):
            grow += 1
        if grow:
            merged = np.zeros(2 * bins)
            for i in range(2 * bins):
                merged[((i - bins) >> min(grow, 62)) + bins] += counts[r, i]
            counts[r] = merged
            exponent[r] += grow
        inverse = 2.0 ** -exponent[r]
        for i in range(rows.shape[1]):
            x = np.float64(rows[r, i])
            if x == 0.0:
                zeros[r] += 1
            else:
                counts[r, int(np.floor(x * inverse)) + bins] += 1


class Observer:
    """Sees batches stream by and keeps, for each slice, its extremes and a histogram.

    Parameters
    ----------
    axis
        None for one range of the whole tensor, else one an index of this axis (a channel).

    Examples
    --------
    >>> observer = Observer()
    >>> for batch in (np.array([1.0, -3.0]), np.array([0.5])):
    ...     observer.update(batch)
    >>> observer.samples().low, observer.samples().high
    (array([-3.]), array([1.]))
    """

    def __init__(self, axis: int | None = None) -> None:
        self.slices = Slices(axis)
        self._counts = np.zeros((0, 2 * BINS))

    def update(self, batch: ArrayLike) -> None:
        """Count a batch.

        Raises
        ------
        InputError
            If it is empty, not finite, or has another number of channels than those before.
        """
        rows = self.slices.split(checked(batch, "a calibration batch"))
        if not len(self._counts):
            self._counts = np.zeros((len(rows), 2 * BINS))
            self._exponent = np.full(len(rows), -300)  # derived: 4096 bins of it end at 2e-87
            self._low, self._high = np.full(len(rows), np.inf), np.full(len(rows), -np.inf)
            self._zeros = np.zeros(len(rows))
        if len(rows) != len(self._counts):
            raise InputError(
                f"every calibration batch must have {len(self._counts)} channels on axis "
                f"{self.slices.axis}, got {len(rows)}"
            )
        _count(rows, self._counts, self._exponent, self._low, self._high, self._zeros)

    def samples(self) -> Samples:
        """What was seen: bin centres with their counts, zeros exact, extremes exact.

        Raises
        ------
        InputError
            If nothing was seen.
        """
        if not len(self._counts):
            raise InputError("an observer must see a batch before it can tell a range")
        width = np.ldexp(1.0, self._exponent)
        centres = (np.arange(-BINS, BINS) + 0.5) * width[:, None]
        centres = np.clip(centres, self._low[:, None], self._high[:, None])
        values = np.insert(centres, BINS, 0.0, axis=1)
        counts = np.insert(self._counts, BINS, self._zeros, axis=1)
        # A bin at the end may be clipped past the zero: an empty one then, but out of order.
        values[:, :BINS] = np.minimum(values[:, :BINS], 0.0)
        values[:, BINS + 1 :] = np.maximum(values[:, BINS + 1 :], 0.0)
        return Samples(values, self._low, self._high, counts, width)


class MovingAverage:
    """Follows the range of each batch: ``range += constant * (batch's range - range)``.

    Parameters
    ----------
    axis
        As for `Observer`.
    constant
        In (0, 1]; the first batch sets the range.
    """

    def __init__(self, axis: int | None = None, constant: float = 0.01) -> None:
        if not 0 < constant <= 1:
            raise InputError(f"a moving average's constant must lie in (0, 1], got {constant}")
        self.slices = Slices(axis)
        self.constant = constant  # published: 0.01 is torch's default
        self._range: NDArray[np.float64] | None = None

    def update(self, batch: ArrayLike) -> None:
        """Move towards a batch's range; raises as `Observer.update` does."""
        rows = self.slices.split(checked(batch, "a calibration batch"))
        now = np.stack([rows.min(axis=1), rows.max(axis=1)]).astype(np.float64)
        if self._range is None:
            self._range = now
        elif now.shape != self._range.shape:
            raise InputError(
                f"every calibration batch must have {self._range.shape[1]} channels on axis "
                f"{self.slices.axis}, got {now.shape[1]}"
            )
        else:
            self._range = self._range + self.constant * (now - self._range)

    def samples(self) -> Samples:
        """The range, as two values a slice.

        Raises
        ------
        InputError
            If nothing was seen.
        """
        if self._range is None:
            raise InputError("an observer must see a batch before it can tell a range")
        return Samples(np.ascontiguousarray(self._range.T), *self._range)
