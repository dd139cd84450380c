"""ANT's MAC core: decoders at the borders, exponent-integer products inside.

A decoder on the array's border turns a code, whatever its type (int, power of two, float, flint),
into an exponent and a small signed integer: value = integer << exponent. A processing element
multiplies the integers, adds the exponents, shifts and accumulates:

    <ea, ia> x <ew, iw> = (ia * iw) << (ea + ew)

An 8-bit integer is two such terms, a signed high half with exponent 4 and an unsigned low half with
exponent 0; four 4-bit elements ganged add the four products. Types with negative exponents (floats
below 1) are decoded with all exponents raised by the same amount, which the scale takes back.
Accumulators have 32 bits and wrap around; a product shifted beyond them leaves nothing.

:func:`gemm` is the kernel, :func:`gemm_plain` the same in the plainest Python. Decoder tables come
from the number formats. Source: ANT, MICRO 2022, section V.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparqsim.base import kernel
from sparqsim.simulator.mac.dense import wrap_one

Terms = list[tuple[NDArray[np.int32], NDArray[np.int32]]]
HALF_BITS = 4  # a processing element's operand


def decode(
    codes: NDArray[np.unsignedinteger], exponents: NDArray[np.int64], integers: NDArray[np.int64]
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Border decoder: (exponents, integers) of codes, by the format's tables ``[codes]``."""
    return exponents.astype(np.int32)[codes], integers.astype(np.int32)[codes]


def gang(values: NDArray[np.integer]) -> Terms:
    """8-bit integers as two (exponent, integer) terms of 4-bit elements: high and low half."""
    whole = values.astype(np.int32)
    high, low = whole >> HALF_BITS, whole & ((1 << HALF_BITS) - 1)
    return [(np.full_like(whole, HALF_BITS), high), (np.zeros_like(whole), low)]


@kernel(error_model="numpy")
def gemm(ea: Any, ia: Any, ew: Any, iw: Any, out: Any) -> None:
    """Add the products of [M, K] by [K, N] exponent-integer pairs (int32) to int32 ``out``."""
    rows, depth = ia.shape
    columns = iw.shape[1]
    for m in range(rows):
        for k in range(depth):
            integer, exponent = ia[m, k], ea[m, k]
            if integer == 0:
                continue
            for n in range(columns):
                shift = exponent + ew[k, n]
                moved = (integer * iw[k, n]) << (shift & 31)
                out[m, n] = np.int32(out[m, n] + (moved if shift < 32 else 0))


def gemm_plain(
    ea: NDArray[Any], ia: NDArray[Any], ew: NDArray[Any], iw: NDArray[Any], out: NDArray[Any]
) -> None:
    """The specification of :func:`gemm`: one product after another, in Python's integers."""
    for m, n in np.ndindex(*out.shape):
        total = int(out[m, n])
        for k in range(ia.shape[1]):
            total += (int(ia[m, k]) * int(iw[k, n])) << (int(ea[m, k]) + int(ew[k, n]))
        out[m, n] = wrap_one(total)


_EXPONENT_BITS, _TERM_BITS = 8, 32  # of a packed term: an exponent, and 24 bits of integer


def pack(terms: Terms) -> NDArray[np.int64]:
    """One or two terms of each place as a word, so that they move through an array together."""
    words = np.zeros(terms[0][1].shape, np.int64)
    for place, (exponents, integers) in enumerate(terms):
        term = (integers.astype(np.int64) << _EXPONENT_BITS) | exponents
        words |= (term & ((1 << _TERM_BITS) - 1)) << (place * _TERM_BITS)
    return words


def unpack(words: NDArray[np.int64], count: int) -> Terms:
    """The ``count`` terms of :func:`pack`."""
    terms = []
    for place in range(count):
        term = (words >> (place * _TERM_BITS)).astype(np.int32)  # the low half, with its sign
        terms.append((term & ((1 << _EXPONENT_BITS) - 1), term >> _EXPONENT_BITS))
    return terms


def gemm_terms(left: Terms, right: Terms) -> NDArray[np.int32]:
    """Products of operands of one or two terms each: one element, or a gang of four."""
    out = np.zeros((left[0][1].shape[0], right[0][1].shape[1]), np.int32)
    columns = [(np.ascontiguousarray(ew), np.ascontiguousarray(iw)) for ew, iw in right]
    for ea, ia in left:
        for ew, iw in columns:
            gemm(np.ascontiguousarray(ea), np.ascontiguousarray(ia), ew, iw, out)
    return out
