"""OliVe's MAC core: outlier-victim pairs decoded at the borders, exponent-integer products inside.

Two neighbours along the reduction are a pair of codes. A border decoder looks at both: if one is
the identifier (10..0), that place is the victim, zero, and the other code is an abfloat, decoded to
<exponent + bias, integer>; otherwise both are normal values, decoded to <0, integer> (int) or as
flint. The processing elements see only exponents and integers, and are ANT's:

    <a, b> x <c, d> = (b * d) << (a + c), summed in a 32-bit accumulator that wraps around

An 8-bit normal value is two 4-bit terms, as in ANT; an 8-bit abfloat (4 bits of integer) is one.

:func:`decode_pairs` is the kernel, :func:`decode_pairs_plain` the same in the plainest Python.
Source: OliVe, ISCA 2023, sections III and IV.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparqsim.base import InputError, kernel
from sparqsim.simulator.mac.flint import HALF_BITS, Terms


@kernel(error_model="numpy")
def decode_pairs(
    codes: Any, identifier: int, normal: Any, outlier: Any, exponents: Any, integers: Any
) -> int:
    """Decode pairs of codes; returns how many outliers there were.

    Parameters
    ----------
    codes : unsigned integers [places]
        Neighbours 2i and 2i + 1 are a pair.
    identifier
        The code that marks a victim.
    normal, outlier : int32 [codes, 2]
        (exponent, integer) of each code as a normal value and as an outlier.
    exponents, integers : int32 [places]
        Written.
    """
    outliers = 0
    for pair in range(codes.size // 2):
        left, right = codes[2 * pair], codes[2 * pair + 1]
        at_left, at_right = right == identifier, left == identifier
        outliers += at_left or at_right
        for place, code, mine, other in (
            (2 * pair, left, at_left, at_right),
            (2 * pair + 1, right, at_right, at_left),
        ):
            if other:
                exponents[place], integers[place] = 0, 0
            elif mine:
                exponents[place], integers[place] = outlier[code, 0], outlier[code, 1]
            else:
                exponents[place], integers[place] = normal[code, 0], normal[code, 1]
    return outliers


def decode_pairs_plain(
    codes: NDArray[Any],
    identifier: int,
    normal: NDArray[Any],
    outlier: NDArray[Any],
    exponents: NDArray[Any],
    integers: NDArray[Any],
) -> int:
    """The specification of :func:`decode_pairs`: a pair after another."""
    outliers = 0
    for at in range(0, len(codes), 2):
        pair = [int(code) for code in codes[at : at + 2]]
        for place, code in enumerate(pair):
            neighbour = pair[1 - place]
            table = outlier if neighbour == identifier else normal
            exponent, integer = table[code]
            if code == identifier:
                exponent, integer = 0, 0
                outliers += 1
            exponents[at + place], integers[at + place] = exponent, integer
    return outliers


def operand(
    codes: NDArray[np.unsignedinteger],
    bits: int,
    identifier: int,
    normal: NDArray[np.int32],
    outlier: NDArray[np.int32],
) -> tuple[Terms, int]:
    """Terms of a tensor of pairs along its last axis, and how many outliers it has.

    Raises
    ------
    InputError
        If the last axis is odd.
    """
    if codes.shape[-1] % 2:
        raise InputError(f"pairs need an even last axis, got shape {codes.shape}; append a zero")
    flat = np.ascontiguousarray(codes).reshape(-1)
    decoded = np.empty((2, *codes.shape), np.int32)
    exponents, integers = decoded
    outliers = decode_pairs(
        flat, identifier, normal, outlier, exponents.reshape(-1), integers.reshape(-1)
    )
    if bits <= HALF_BITS:
        return [(exponents, integers)], outliers
    # Four elements: a normal value in two halves; an outlier's integer goes through the low one.
    normal_value = exponents == 0
    high = np.where(normal_value, integers >> HALF_BITS, 0).astype(np.int32)
    low = np.where(normal_value, integers & ((1 << HALF_BITS) - 1), integers).astype(np.int32)
    return [(np.full_like(high, HALF_BITS), high), (exponents, low)], outliers
