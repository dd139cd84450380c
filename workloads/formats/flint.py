"""flint (ANT, MICRO 2022): integer near the middle of the range, float at its ends.

A first-one code splits n bits between exponent and mantissa: the octaves around the middle get the
most mantissa bits, and each octave outwards one fewer. With a leading 0 the code is an integer.
With a leading 1, the zeros before the next 1 tell the octave, and what follows is the mantissa. So
the decoder is a leading-zero detector and a shifter; it hands the multiplier an even integer and an
exponent. A signed flint is a sign bit and an unsigned flint one bit narrower; minus zero is a code
that encoding never makes.

Left out: the per-tensor choice of type, which belongs to quantization. Source: ANT, section IV, and
its authors' quantizer, whose value sets these are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sparqsim.workloads.formats.base import TableFormat, Values, sign_name, whole, with_sign


@dataclass(frozen=True)
class Flint(TableFormat):
    """flint of 3 to 8 bits.

    Parameters
    ----------
    bits
        3 to 8, the sign included.
    signed
        Sign and magnitude if true.
    """

    bits: int
    signed: bool = False
    source = "published: ANT (MICRO 2022), section IV, and its authors' quantizer"

    def __post_init__(self) -> None:
        whole("flint: bits", self.bits, 3, 8)

    @property
    def name(self) -> str:
        """``flint4_unsigned``."""
        return f"flint{self.bits}_{sign_name(self.signed)}"

    @property
    def _width(self) -> int:
        return self.bits - self.signed

    @property
    def unused_codes(self) -> frozenset[int]:
        """Minus zero, if signed."""
        return frozenset({1 << self._width}) if self.signed else frozenset()

    def _table(self) -> Values:
        """Octave by octave, as the paper defines the first-one code."""
        n = self._width
        table = np.zeros(1 << n)
        for exponent in range(2 * n - 2):  # the octave from 2**exponent to its double
            mantissa_bits = min(exponent, 2 * n - 3 - exponent)
            if exponent < n - 1:
                prefix = 1  # leading zeros, then the first one: the integer itself
            else:
                prefix = (1 << (exponent - n + 2)) | 1  # 1, then exponent - n + 1 zeros, then 1
            for m in range(1 << mantissa_bits):
                code = (prefix << mantissa_bits) | m
                table[code] = 2.0**exponent * (1 + m / 2**mantissa_bits)
        table[1 << (n - 1)] = 2.0 ** (2 * n - 2)  # 1 and no other one: the last octave
        return with_sign(table) if self.signed else table

    def exponent_integer(self, code: int) -> tuple[int, int]:
        """Leading-zero detection over the bits after the first, then ``rest << 1``."""
        code = self._checked(code)
        n = self._width
        negative = self.signed and bool(code >> n)
        first, rest = (code >> (n - 1)) & 1, code & ((1 << (n - 1)) - 1)
        if not first:
            exponent, integer = 0, rest
        elif rest:
            zeros = (n - 1) - rest.bit_length()
            exponent, integer = 2 * zeros, rest << 1
        else:
            exponent, integer = 2 * n - 2, 1
        return exponent, -integer if negative else integer
