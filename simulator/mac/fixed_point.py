"""What a fixed-point datapath does with its sums: outputs of fewer bits, by a shift.

Products of integers add up in a wide accumulator. An output is the accumulator without its lowest
bits, rounded to the nearest integer, a half away from zero, and saturated to the output's width.
The shift is a number set for a layer; :func:`shift_for` finds the least with which nothing
saturates but by rounding, as a calibration on these sums would.

:func:`narrow` does so from what registers hold; :func:`outputs_of` is the specification, from exact
sums: references compare with it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def shift_for(accumulators: NDArray[np.int64], bits: int) -> int:
    """Bits to drop so that the largest accumulator fits a signed number of ``bits``."""
    largest = int(np.abs(accumulators).max(initial=0))
    return max(0, largest.bit_length() - (bits - 1))


def narrow(accumulators: NDArray[np.int64], shift: int, bits: int, relu: bool) -> NDArray[np.int64]:
    """Drop ``shift`` bits, rounding half away from zero; saturate; clip at 0 by ReLU.

    A negative ``shift`` moves left.
    """
    if shift > 0:
        half = np.int64(1) << np.int64(shift - 1)
        moved = np.sign(accumulators) * ((np.abs(accumulators) + half) >> np.int64(shift))
    else:
        moved = accumulators << np.int64(-shift)
    low = 0 if relu else -(1 << (bits - 1))
    return np.clip(moved, low, (1 << (bits - 1)) - 1)


def outputs_of(
    sums: NDArray[np.int64], accumulator_bits: int, shift: int, bits: int, relu: bool
) -> NDArray[np.int64]:
    """Outputs of exact sums: held modulo ``2**accumulator_bits``, divided, limited.

    Written by division where :func:`narrow` shifts.
    """
    half = 1 << (accumulator_bits - 1)
    held = ((sums + half) & ((1 << accumulator_bits) - 1)) - half
    divisor = 1 << shift
    nearest = np.sign(held) * ((2 * np.abs(held) + divisor) // (2 * divisor))
    least = 0 if relu else -(1 << (bits - 1))
    return np.minimum(np.maximum(nearest, least), (1 << (bits - 1)) - 1)
