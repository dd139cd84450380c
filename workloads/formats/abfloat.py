"""abfloat (OliVe, ISCA 2023): the float of outliers, which starts where normal values end.

``sign * ((1 << mantissa_bits) | mantissa) << (exponent + bias)``: there are no subnormals and zero
is never an outlier, so the code of zero magnitude is spare in both signs; the negative one is the
identifier of an outlier-victim pair. The adaptive bias moves the whole range up beyond the normal
values. The decoder sets the hidden bit and adds the bias to the exponent.
Source: OliVe, section IV, and its authors' quantizer, whose value sets these are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sparqsim.workloads.formats.base import TableFormat, Values, whole, with_sign


@dataclass(frozen=True)
class AbFloat(TableFormat):
    """Signed adaptive-bias float.

    Parameters
    ----------
    exponent_bits, mantissa_bits
        1 to 5 and 1 to 5, at most 8 bits with the sign.
    bias
        -64 to 64, added to the exponent.
    """

    exponent_bits: int
    mantissa_bits: int
    bias: int
    source = "published: OliVe (ISCA 2023) and its authors' quantizer"

    def __post_init__(self) -> None:
        whole("abfloat: exponent bits", self.exponent_bits, 1, 5)
        whole("abfloat: mantissa bits", self.mantissa_bits, 1, 5)
        whole("abfloat: bits in all", self.bits, 3, 8)
        whole("abfloat: bias", self.bias, -64, 64)

    @property
    def bits(self) -> int:  # type: ignore[override]
        """Sign, exponent and mantissa."""
        return 1 + self.exponent_bits + self.mantissa_bits

    @property
    def name(self) -> str:
        """``abfloat4_E2M1_bias2_signed``."""
        widths = f"E{self.exponent_bits}M{self.mantissa_bits}"
        bias = f"{self.bias}".replace("-", "n")
        return f"abfloat{self.bits}_{widths}_bias{bias}_signed"

    @property
    def unused_codes(self) -> frozenset[int]:
        """Zero of either sign."""
        return frozenset({0, 1 << (self.bits - 1)})

    def _table(self) -> Values:
        exponents = np.arange(1 << self.exponent_bits)[:, None]
        fractions = 1 + np.arange(1 << self.mantissa_bits) / 2.0**self.mantissa_bits
        magnitudes = (fractions * 2.0 ** (exponents + self.bias + self.mantissa_bits)).reshape(-1)
        magnitudes[0] = 0.0
        return with_sign(magnitudes)

    def exponent_integer(self, code: int) -> tuple[int, int]:
        """The hidden bit before the mantissa; the exponent and the bias added."""
        code = self._checked(code)
        magnitude = code & ((1 << (self.bits - 1)) - 1)
        if magnitude == 0:
            return 0, 0
        exponent = magnitude >> self.mantissa_bits
        mantissa = magnitude & ((1 << self.mantissa_bits) - 1)
        integer = (1 << self.mantissa_bits) | mantissa
        return exponent + self.bias, -integer if code >> (self.bits - 1) else integer


def clearing_bias(normal_max: float, exponent_bits: int, mantissa_bits: int) -> int:
    """The least bias, from 0 up, whose smallest outlier lies beyond ``normal_max`` (published)."""
    smallest = (1 << mantissa_bits) + 1
    bias = 0
    while smallest * 2**bias <= normal_max:
        bias += 1
    return bias
