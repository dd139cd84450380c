"""The sparse tensor core's MAC core: metadata select, then a block multiply-add.

Of every M neighbours along the reduction N are kept, each with its position. The position steers a
multiplexer that picks one of M activations for the multiplier, so a group takes N multipliers and
no cycle is spent on what was pruned. Dense is the same with N = M = 1: nothing to select.

Integers: 32-bit accumulators that wrap around; the order does not matter.

Floats: products are exact. A *block* of them (8 of fp16 or bf16, 4 of tf32 on A100; twice that on
H100, and 32 of fp8) and the accumulator are aligned to the largest exponent among them - that of a
product is the sum of its operands' exponents, its significand lies in [1, 4) - but no further than
to :data:`LEAST_TOP`, and cut off (toward zero) ``fraction_bits`` below it (23 and one extra bit on
A100, two on H100; 13 of fp8). The integers are added exactly, the sum is cut to ``sum_bits``
significant bits (24; 14 of fp8), toward zero, and is the accumulator of the next block. Blocks
follow each other along the reduction, in the order of the *kept* values. So a sum is a function of
order and block, not of the tile it is computed in, and zeros that were pruned take no place in a
block. A sum that overflows is infinite from there on.

:func:`multiply_floats` and :func:`multiply_integers` are the kernels; their ``_plain`` twins say
the same in exact fractions and Python integers; :func:`add_block` is a third road, over arrays.
:func:`error_bound` is how far from the true sum a float result can be. Left out: operands that are
infinite or NaN, and the fp16 accumulator.

The blocks of the A100 are published. Those of the H100 are measured: its ``mma`` and ``wgmma``, and
``mma.sp`` and ``wgmma.sp``, which add the 16 values they keep of 32 (fp8: 32 of 64) as one block,
give these bits (``sparqsim validate tensor-core-bits``). That an A100's ``mma.sp`` adds the kept
values in their order, eight at a time, and that its tiny and overflowing sums are alike, is
assumed.

Sources: Fasi et al., Numerical behavior of NVIDIA tensor cores, PeerJ CS 7:e330, 2021; Khattak and
Mikaitis, Accurate models of NVIDIA tensor cores, arXiv 2512.07004, 2025; Mishra et al.,
Accelerating sparse deep neural networks, 2021 (metadata select).
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparqsim.base import kernel

LEAST_BIT = -149  # exponent of fp32's least subnormal
ZERO_EXPONENT = -(1 << 20)  # below every other, so that a zero never sets the alignment
TOGETHER = 16  # columns that a kernel keeps side by side
LEAST_TOP = -133  # least exponent that a block is aligned to; measured on an H100
MANTISSA = 2.0**52
OF_LEAST_BIT, LEAST, NORMAL = 2.0**-LEAST_BIT, 2.0**LEAST_BIT, 2.0**-126
BEYOND = 2.0**128  # a sum so large is infinite, and stays so


@kernel(error_model="numpy")
def multiply_integers(
    values: Any, positions: Any, kept: int, group: int, activations: Any, sums: Any
) -> None:
    """Add products of whole numbers to 32-bit sums that wrap around.

    Parameters
    ----------
    values : int32 [rows, length]
        Kept weights; ``kept`` of each ``group`` neighbours, groups one after another.
    positions : uint8 [rows, length]
        Place of each value in its group.
    kept, group
        N and M.
    activations : int32 [columns, reduction]
        The dense operand; ``length / kept * group`` neighbours of each column.
    sums : int32 [columns, rows]
        Added to.
    """
    columns, depth = activations.shape
    turned = np.empty((depth, TOGETHER), np.int32)
    total = np.empty(TOGETHER, np.int32)
    for first in range(0, columns, TOGETHER):
        count = min(TOGETHER, columns - first)
        turned[:] = 0
        for c in range(count):
            for k in range(depth):
                turned[k, c] = activations[first + c, k]
        for row in range(values.shape[0]):
            total[:] = 0
            for i in range(values.shape[1]):
                weight = values[row, i]
                if weight == 0:
                    continue
                place = i // kept * group + positions[row, i]
                for c in range(TOGETHER):
                    total[c] = np.int32(total[c] + weight * turned[place, c])
            for c in range(count):
                sums[first + c, row] = np.int32(sums[first + c, row] + total[c])


def multiply_integers_plain(
    values: NDArray[Any],
    positions: NDArray[Any],
    kept: int,
    group: int,
    activations: NDArray[Any],
    sums: NDArray[Any],
) -> None:
    """The specification of :func:`multiply_integers`, one product after another."""
    for column in range(activations.shape[0]):
        for row in range(values.shape[0]):
            total = int(sums[column, row])
            for i, (value, position) in enumerate(zip(values[row], positions[row], strict=True)):
                total += int(value) * int(activations[column, i // kept * group + int(position)])
            sums[column, row] = (total + 2**31) % 2**32 - 2**31


@kernel(error_model="numpy")
def multiply_floats(
    values: Any,
    positions: Any,
    kept: int,
    group: int,
    activations: Any,
    least: int,
    block: int,
    fraction_bits: int,
    sum_bits: int,
    sums: Any,
) -> None:
    """Add products of floats to fp32 sums, a block at a time.

    :data:`TOGETHER` columns go side by side. Aligned terms are whole numbers below 2^53, so that
    float64 adds them exactly; powers of two are made of their bits.

    Parameters
    ----------
    values : float32 [rows, length]
        Kept weights, exact in their format.
    positions, kept, group
        As for :func:`multiply_integers`.
    activations : float32 [columns, reduction]
        The dense operand.
    least
        Exponent of subnormals, as for :func:`exponents`.
    block
        Products of a block; a last, shorter block holds what is left.
    fraction_bits
        Bits kept below the largest exponent.
    sum_bits
        Significant bits of a sum, at most fp32's 24.
    sums : float32 [columns, rows]
        Added to.
    """
    columns, depth = activations.shape
    length = values.shape[1]
    turned = np.empty((depth, TOGETHER), np.float64)
    exponent = np.empty((depth, TOGETHER), np.float64)
    products = np.empty((block, TOGETHER), np.float64)
    total, aligned = np.empty(TOGETHER, np.float64), np.empty(TOGETHER, np.float64)
    top, scale = np.empty(TOGETHER, np.float64), np.empty(TOGETHER, np.float64)
    total_bits, scale_bits = total.view(np.int64), scale.view(np.int64)
    one = np.empty(1, np.float64)
    one_bits = one.view(np.int64)
    cut = ~((1 << 53 - sum_bits) - 1)  # the bits of a float64 that a sum has too
    for first in range(0, columns, TOGETHER):
        count = min(TOGETHER, columns - first)
        turned[:] = 0.0
        exponent[:] = ZERO_EXPONENT
        for c in range(count):
            for k in range(depth):
                one[0] = np.float64(activations[first + c, k])
                if one[0] != 0.0:
                    turned[k, c] = one[0]
                    exponent[k, c] = max((one_bits[0] >> 52 & 0x7FF) - 1023, least)
        for row in range(values.shape[0]):
            total[:] = 0.0
            for c in range(count):
                total[c] = np.float64(sums[first + c, row])
            for begin in range(0, length, block):
                terms = min(block, length - begin)
                for c in range(TOGETHER):
                    own: Any = np.float64((total_bits[c] >> 52 & 0x7FF) - 1023)
                    own = own if own > -126.0 else -126.0
                    top[c] = own if total[c] != 0.0 else LEAST_TOP
                for i in range(terms):
                    at = begin + i
                    one[0] = np.float64(values[row, at])
                    place = at // kept * group + positions[row, at]
                    weight = one[0]
                    weighs: Any = np.float64(max((one_bits[0] >> 52 & 0x7FF) - 1023, least))
                    weighs = weighs if weight != 0.0 else ZERO_EXPONENT
                    for c in range(TOGETHER):
                        products[i, c] = weight * turned[place, c]
                        term = weighs + exponent[place, c]
                        top[c] = term if term > top[c] else top[c]
                for c in range(TOGETHER):
                    # 2^52 + n holds n in its low bits: shifted up they are the exponent of 2^n.
                    scale[c] = MANTISSA + 1023.0 + (fraction_bits - top[c])
                    scale_bits[c] <<= 52
                    aligned[c] = np.trunc(total[c] * scale[c])
                for i in range(terms):
                    for c in range(TOGETHER):
                        aligned[c] += np.trunc(products[i, c] * scale[c])
                for c in range(TOGETHER):
                    scale[c] = MANTISSA + 1023.0 - (fraction_bits - top[c])
                    scale_bits[c] <<= 52
                    total[c] = aligned[c] * scale[c]
                    total_bits[c] &= cut
                    small = np.trunc(total[c] * OF_LEAST_BIT) * LEAST
                    total[c] = small if abs(total[c]) < NORMAL else total[c]
                    endless = math.copysign(math.inf, total[c])
                    total[c] = endless if abs(total[c]) >= BEYOND else total[c]
            for c in range(count):
                sums[first + c, row] = np.float32(total[c] + 0.0)  # a zero is positive


def multiply_floats_plain(
    values: NDArray[Any],
    positions: NDArray[Any],
    kept: int,
    group: int,
    activations: NDArray[Any],
    least: int,
    block: int,
    fraction_bits: int,
    sum_bits: int,
    sums: NDArray[Any],
) -> None:
    """The specification of :func:`multiply_floats`, in exact fractions."""
    for column in range(activations.shape[0]):
        for row in range(values.shape[0]):
            if math.isinf(sums[column, row]):
                continue
            total = Fraction(float(sums[column, row]))
            for first in range(0, values.shape[1], block):
                if abs(total) >= BEYOND:
                    break
                terms = [(total, max(_exponent_of(total), -126))]
                for at in range(first, min(first + block, values.shape[1])):
                    place = at // kept * group + int(positions[row, at])
                    left = Fraction(float(values[row, at]))
                    right = Fraction(float(activations[column, place]))
                    exponent = max(_exponent_of(left), least) + max(_exponent_of(right), least)
                    terms.append((left * right, exponent))
                top = max([LEAST_TOP, *(exponent for term, exponent in terms if term)])
                unit = Fraction(2) ** (top - fraction_bits)
                aligned = sum(math.trunc(term / unit) for term, _ in terms) * unit
                last = max(_exponent_of(aligned) - sum_bits + 1, LEAST_BIT)
                bit = Fraction(2) ** last
                total = math.trunc(aligned / bit) * bit
            endless = math.copysign(math.inf, total)
            sums[column, row] = endless if abs(total) >= BEYOND else float(total)


def _exponent_of(value: Fraction) -> int:
    """The exponent of the leading bit; that of a zero is below every other."""
    if not value:
        return ZERO_EXPONENT
    guess = abs(value.numerator).bit_length() - value.denominator.bit_length()
    return guess if abs(value) >= Fraction(2) ** guess else guess - 1


def add_block(
    total: NDArray[np.float64],
    left: NDArray[np.float64],
    right: NDArray[np.float64],
    least: int,
    fraction_bits: int,
    sum_bits: int,
) -> NDArray[np.float64]:
    """One block added to many sums at once: the arithmetic of the kernels, written for arrays.

    Parameters
    ----------
    total : float64 [sums]
    left, right : float64 [sums, products of the block]
    least
        Exponent of subnormals, as for :func:`exponents`.
    fraction_bits, sum_bits
        As for :func:`multiply_floats`.
    """
    products = left * right
    tops = np.where(products != 0, exponents(left, least) + exponents(right, least), LEAST_TOP).max(
        axis=1, initial=LEAST_TOP
    )
    own = np.where(total != 0, exponents(total, -126), LEAST_TOP)
    shift = fraction_bits - np.maximum(tops, own)
    aligned = np.trunc(np.ldexp(total, shift)) + np.trunc(np.ldexp(products, shift[:, None])).sum(
        axis=1
    )
    length = np.frexp(np.abs(aligned))[1]
    drop = np.maximum(length - sum_bits, LEAST_BIT + shift).clip(0)
    cut = np.ldexp(np.ldexp(np.trunc(np.ldexp(aligned, -drop)), drop), -shift)
    return np.where(np.abs(cut) >= BEYOND, np.copysign(np.inf, cut), cut)


def exponents(values: NDArray[Any], least: int) -> NDArray[np.int32]:
    """Exponents of floats as the aligner sees them: those of subnormals are the format's ``least``.

    Zeros have the exponent ``least`` too; no product with a zero sets an alignment.
    """
    return np.maximum(np.frexp(values)[1] - 1, least).astype(np.int32)


def error_bound(
    absolute: NDArray[np.float64], length: int, block: int, fraction_bits: int, sum_bits: int
) -> NDArray[np.float64]:
    """How far a float sum can lie from the true one, where none overflows.

    ``absolute`` is the sum of the products' magnitudes, A, in which a subnormal operand counts as
    the format's least normal number, as the aligner takes it to be. A block cuts off at most
    ``block + 1`` terms, each by less than 2^(top - fraction_bits), and its sum by less than
    2^(1 - sum_bits) of itself, or of fp32's least bit. 2^top is at most the largest term (a
    product's significand may reach 4, so its exponent is not above its own) or 2^-126, where a sum
    is subnormal or nothing is larger, and the largest term and the sum are at most A + E, E being
    the error so far. So a block adds at most e (A + E + d), e = ``(block + 1) 2^-fraction_bits +
    2^(1 - sum_bits)`` and d = ``2^-126 + 2^LEAST_BIT / e``, and B = ``ceil(length / block)`` blocks
    make ((1 + e)^B - 1) (A + d); a factor of 1.001 covers the float64 reference.
    """
    blocks = -(-length // block)
    each = (block + 1) * 2.0**-fraction_bits + 2.0 ** (1 - sum_bits)
    grown = math.expm1(min(blocks * math.log1p(each), 700.0))  # beyond: every fp32 lies within
    return 1.001 * grown * (absolute + NORMAL + 2.0**LEAST_BIT / each)
