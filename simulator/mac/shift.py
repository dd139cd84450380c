"""Multiplication by shifting: weights that are powers of two, or sums of a few of them.

A weight is a sign and some left shifts; its product with an integer is the integer shifted by each
of them, added up, with the sign: one shifter and one adder, one term per cycle.

    a * w = sign * ((a << s1) + (a << s2) + ...)

A power of two (PoT) has one term, a sum of n of them (APoT) n, of which some may be missing; zero
has none. Values below 1 are shifted from the format's last place, which the scale takes back.
Accumulators have 32 bits and wrap around. A weight travels as a word: 6 bits a term (the shift and
one, 0 for no term) and the sign above.

:func:`gemm` is the kernel, :func:`gemm_plain` the same in the plainest Python. Source: uniform and
power-of-two quantization as in APoT (ICLR 2020); the element that takes a term a cycle is assumed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparqsim.base import InputError, kernel
from sparqsim.simulator.mac.dense import wrap_one

TERM_BITS, MOST_TERMS, SIGN = 6, 8, 60
MOST_SHIFT = (1 << TERM_BITS) - 2


def pack(shifts: Sequence[int], negative: bool) -> int:
    """A weight as a word.

    Raises
    ------
    InputError
        If there are more than 8 terms, or a shift does not fit.
    """
    if len(shifts) > MOST_TERMS or any(not 0 <= shift <= MOST_SHIFT for shift in shifts):
        raise InputError(
            f"a weight has at most {MOST_TERMS} terms of shifts 0 to {MOST_SHIFT}, got {[*shifts]}"
        )
    word = sum((shift + 1) << (TERM_BITS * place) for place, shift in enumerate(shifts))
    return word | int(negative) << SIGN


@kernel(error_model="numpy")
def gemm(a: Any, w: Any, out: Any) -> None:
    """Add the products of integers [M, K] by words [K, N] to int32 ``out`` [M, N], wrapping."""
    rows, depth = a.shape
    columns = w.shape[1]
    mask = (1 << TERM_BITS) - 1
    for m in range(rows):
        for k in range(depth):
            value = a[m, k]
            if value == 0:
                continue
            for n in range(columns):
                word = w[k, n]
                total = 0
                left = word & ((1 << SIGN) - 1)
                while left:
                    field = left & mask
                    if field:
                        total += value << (field - 1)
                    left >>= TERM_BITS
                if word >> SIGN:
                    total = -total
                out[m, n] = np.int32(out[m, n] + total)


def gemm_plain(a: NDArray[Any], w: NDArray[Any], out: NDArray[Any]) -> None:
    """The specification of :func:`gemm`: one term after another, in Python's integers."""
    for m, n in np.ndindex(*out.shape):
        total = int(out[m, n])
        for k in range(a.shape[1]):
            word = int(w[k, n])
            sign = -1 if word >> SIGN else 1
            for place in range(MOST_TERMS):
                field = word >> (TERM_BITS * place) & (1 << TERM_BITS) - 1
                if field:
                    total += sign * (int(a[m, k]) << (field - 1))
        out[m, n] = wrap_one(total)
