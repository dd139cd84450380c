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
tensor at hand (exact) or from an observer that has seen batches stream by
(:mod:`sparqsim.workloads.observers`).
"""

from __future__ import annotations

import math

import msgspec
import numpy as np
from numba import prange
from numpy.typing import NDArray

from sparqsim.base import InputError, kernel
from sparqsim.workloads.formats import Format
from sparqsim.workloads.observers import BINS
from sparqsim.workloads.rounding_errors import squared_errors
from sparqsim.workloads.slices import Samples

SMALLEST_SCALE = float(np.finfo(np.float32).tiny)  # derived: the least normal float32
WIDE = 2.0**64  # assumed: between what 8-bit floats reach (2**16) and bfloat16 (2**128)


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
