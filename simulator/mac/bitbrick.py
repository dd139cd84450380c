"""Bit Fusion's MAC core: products composed of 2-bit products, shifted and added.

A BitBrick multiplies two 2-bit digits, each with a flag that says whether the digit carries a sign;
its product lies in -6 to 9. An operand of 2n bits is n digits, least significant first, of which
only the last is signed, if the operand is. A Fusion Unit adds the bricks' products, each shifted by
the weight of its two digits, 2 (i + j) bits; with narrow operands several products of one output
share the unit. Operands of 16 bits take several passes of 8-bit halves, which is the same sum
again. One bit computes as two.

    x = sum_i 4^i d_i          x w = sum_ij 4^(i+j) d_i e_j

:func:`brick` is one BitBrick and :func:`gemm_plain` an array of them, product by product.
:func:`gemm` runs all bricks of one pair of digit positions (i, j) together, as one matrix product
of digits in float32: exact, since a sum of K brick products is at most 9 K; adds the pairs of one
weight i + j, shifts, adds again and wraps to the 32-bit accumulator. Source: Bit Fusion, ISCA 2018,
sections II and III.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sparqsim.base import InputError
from sparqsim.simulator.mac.dense import wrap, wrap_one

BRICK_BITS = 2
# Longest reduction: up to 8 pairs of digits of one weight are added in float32, exact to 2^24.
MOST_PRODUCTS = 2**24 // (9 * 8)


def brick(a: int, w: int, a_signed: bool, w_signed: bool) -> int:
    """The product of two 2-bit fields (0 to 3); a signed field is two's complement."""
    left = a - 4 if a_signed and a >= 2 else a
    right = w - 4 if w_signed and w >= 2 else w
    return left * right


def digits(values: NDArray[np.integer], bits: int, signed: bool) -> NDArray[np.int8]:
    """2-bit digits of whole numbers, least significant first: ``[digits, *shape]``.

    The last digit of a signed operand carries its sign.

    Raises
    ------
    InputError
        If the width is not even, or a value does not fit it.
    """
    if bits < BRICK_BITS or bits % BRICK_BITS:
        raise InputError(f"operands are whole 2-bit digits wide, got {bits} bits; round up")
    low, high = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)
    if values.size and (values.min() < low or values.max() > high):
        raise InputError(
            f"operands of {bits} bits ({'signed' if signed else 'unsigned'}) must be {low} to "
            f"{high}, got {values.min()} to {values.max()}"
        )
    field = values.astype(np.int32) & ((1 << bits) - 1)
    found = np.empty((bits // BRICK_BITS, *values.shape), np.int8)
    for place in range(len(found)):
        found[place] = (field >> (BRICK_BITS * place)) & 3
    if signed:
        found[-1] -= 4 * (found[-1] >= 2)
    return found


def gemm(
    a: NDArray[np.integer],
    w: NDArray[np.integer],
    bits: tuple[int, int],
    signed: tuple[bool, bool],
) -> NDArray[np.int64]:
    """Multiply ``a`` [M, K] by ``w`` [K, N] with BitBricks; sums wrapped to 32 bits.

    Parameters
    ----------
    bits, signed
        Width and signedness of ``a`` and of ``w``.

    Raises
    ------
    InputError
        If a value does not fit its width, or K is beyond 233 thousand.
    """
    if a.shape[1] > MOST_PRODUCTS:
        raise InputError(f"a reduction must be at most {MOST_PRODUCTS} long, got {a.shape[1]}")
    left = digits(a, bits[0], signed[0]).astype(np.float32)
    right = digits(w, bits[1], signed[1]).astype(np.float32)
    beside = np.concatenate(list(right), axis=1)  # one product serves all digits of w
    pairs = np.zeros((len(left) + len(right) - 1, a.shape[0], w.shape[1]), np.float32)
    for i, digit in enumerate(left):
        products = np.split(digit @ beside, len(right), axis=1)
        for j, product in enumerate(products):
            pairs[i + j] += product
    total = np.zeros(pairs.shape[1:], np.int64)
    for weight, each in enumerate(pairs):
        total += each.astype(np.int64) << np.int64(BRICK_BITS * weight)
    return wrap(total)


def gemm_plain(
    a: NDArray[np.integer],
    w: NDArray[np.integer],
    bits: tuple[int, int],
    signed: tuple[bool, bool],
) -> NDArray[np.int64]:
    """The specification of :func:`gemm`: brick by brick."""
    out = np.zeros((a.shape[0], w.shape[1]), np.int64)
    places = [width // BRICK_BITS for width in bits]
    for m, n in np.ndindex(*out.shape):
        total = 0
        for k in range(a.shape[1]):
            for i in range(places[0]):
                for j in range(places[1]):
                    product = brick(
                        int(a[m, k]) >> (BRICK_BITS * i) & 3,
                        int(w[k, n]) >> (BRICK_BITS * j) & 3,
                        signed[0] and i == places[0] - 1,
                        signed[1] and j == places[1] - 1,
                    )
                    total += product << (BRICK_BITS * (i + j))
        out[m, n] = wrap_one(total)
    return out
