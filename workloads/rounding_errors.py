"""How far values lie from what a grid makes of them, for many scales at once.

Squared errors are exact, not sampled: a sorted row with prefix sums gives the error on a grid of
K values from K-1 places in the row, found anew for each scale by galloping from the last. In a row
much shorter than the grid each value is sought in the grid instead.
"""

from __future__ import annotations

import numpy as np
from numba import prange
from numpy.typing import NDArray

from sparqsim.base import InputError, kernel
from sparqsim.workloads.formats import Format, Int
from sparqsim.workloads.formats.pairs import OutlierVictim
from sparqsim.workloads.slices import Samples

# Whole numbers are tried by arithmetic in slices shorter than so many times their count, where it
# is the faster way: derived, measured on rows of 384 to 10**7 values.
DIRECT_BELOW = 16
# A grid so many times as long as a slice is searched: derived, the steps of a search in 2**16.
SEARCHED_FROM = 16


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


@kernel(parallel=True)
def _searched_errors(rows, counts, values, offset, scale, factors, errors):
    """As `_squared_errors`, in any order, each value sought in the grid."""
    for r in prange(rows.shape[0]):
        for f in range(len(factors)):
            s = scale[r] * factors[f]
            total = 0.0
            for i in range(rows.shape[1]):
                y = rows[r, i] / s + offset[r]
                above = min(np.searchsorted(values, y), len(values) - 1)
                e = min(abs(values[above] - y), abs(y - values[max(above - 1, 0)]))
                total += e * e * (counts[r, i] if counts.shape[0] else 1.0)
            errors[r, f] = total * s * s


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
    elif SEARCHED_FROM * samples.values.shape[1] < len(grid.values):
        rows, values = samples.values, grid.values.astype(np.float64)
        _searched_errors(rows, weights, values, offset, scale64, factors, errors)
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
