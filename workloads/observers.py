"""Observers: what is kept of batches that stream by, for a range to be found from it later.

The bins of an :class:`Observer` are a power of two wide and symmetric about zero; when a value lies
outside, neighbouring bins are merged in pairs, which loses no count. So the histogram depends only
on the values seen, not on their order or their split into batches. A :class:`MovingAverage` follows
the range of each batch with an exponential average and forgets.
"""

from __future__ import annotations

import numpy as np
from numba import prange
from numpy.typing import ArrayLike, NDArray

from sparqsim.base import InputError, kernel
from sparqsim.workloads.slices import Samples, Slices, checked

BINS = 4096  # assumed: a side; the largest value falls in bin 2048 or above, so 11 bits resolve it


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
