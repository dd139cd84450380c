"""Floating point of 2 to 16 bits: sign, exponent, mantissa, subnormals below the least exponent.

Formats of the same widths differ in what the codes at the end stand for (``specials``):

* ``finite``: nothing; every code is a number (float4_e2m1fn, float6_*, the types of ANT);
* ``ieee``: the highest exponent is for infinity and NaN (float8_e5m2, float8_e4m3, float16);
* ``nan``: only the highest code of each sign is NaN (float8_e4m3fn);
* ``fnuz``: minus zero is the one NaN (float8_e4m3fnuz, float8_e5m2fnuz).

The decoder shifts in the hidden bit (1, or 0 for a subnormal) and hands on exponent and integer.
Encoding rounds to nearest, ties to even, and keeps the sign of zero. Unlike a cast it saturates: a
number beyond the largest becomes the largest, never infinity or NaN, as a quantizer wants it.
Source: IEEE 754, the OCP 8-bit and microscaling formats; ml_dtypes is the oracle of the tests.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar, Literal, get_args

import numpy as np
import numpy.typing as npt

from sparqsim.base import InputError
from sparqsim.workloads.formats.base import TIES_EVEN, Codes, TableFormat, Values, sign_name, whole

Specials = Literal["finite", "ieee", "nan", "fnuz"]


@dataclass(frozen=True)
class Float(TableFormat):
    """A float of ``signed + exponent_bits + mantissa_bits`` bits.

    Parameters
    ----------
    exponent_bits, mantissa_bits
        1 to 8 and 0 to 10.
    bias
        What is taken from the exponent field; by default ``2**(exponent_bits - 1) - 1``, and one
        more for ``fnuz``.
    specials
        See the module.
    signed
        Whether there is a sign bit.
    alias
        The name to go by in place of the spelled one; not part of what makes formats equal.
    """

    exponent_bits: int
    mantissa_bits: int
    bias: int | None = None
    specials: Specials = "finite"
    signed: bool = True
    alias: str = field(default="", compare=False)
    source = "published: IEEE 754, OCP 8-bit and microscaling formats"
    ties = TIES_EVEN
    most_bits: ClassVar[int] = 16

    def __post_init__(self) -> None:
        whole("float: exponent bits", self.exponent_bits, 1, 8)
        whole("float: mantissa bits", self.mantissa_bits, 0, 10)
        whole("float: bits in all", self.bits, 2, self.most_bits)
        if self.specials not in get_args(Specials):
            raise InputError(
                f"float: specials must be one of {', '.join(get_args(Specials))}, "
                f"got {self.specials!r}"
            )
        if self.specials == "ieee" and (self.exponent_bits < 2 or self.mantissa_bits < 1):
            raise InputError(
                "float: ieee needs at least 2 exponent bits and 1 mantissa bit, got "
                f"{self.exponent_bits} and {self.mantissa_bits}"
            )
        if self.specials == "fnuz" and not self.signed:
            raise InputError("float: fnuz puts its NaN at minus zero, so it must be signed")
        if self.bias is None:
            object.__setattr__(self, "bias", self._usual_bias)
        whole("float: bias", self.bias, -256, 256)

    @property
    def bits(self) -> int:  # type: ignore[override]
        """Sign, exponent and mantissa."""
        return self.signed + self.exponent_bits + self.mantissa_bits

    @property
    def _usual_bias(self) -> int:
        return (1 << (self.exponent_bits - 1)) - (self.specials != "fnuz")

    @property
    def _bias(self) -> int:
        assert self.bias is not None  # set at birth
        return self.bias

    @property
    def name(self) -> str:
        """``float_e4m3``, ``float_e4m3_nan_bias8``, ``float_e3m1_unsigned`` or the alias."""
        if self.alias:
            return self.alias
        parts = [f"float_e{self.exponent_bits}m{self.mantissa_bits}"]
        if self.specials != "finite":
            parts.append(self.specials)
        if self.bias != self._usual_bias:
            parts.append(f"bias{self.bias}".replace("-", "n"))
        if not self.signed:
            parts.append(sign_name(False))
        return "_".join(parts)

    def _fields(self, code: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], ...]:
        width = self.exponent_bits + self.mantissa_bits
        mantissa = code & ((1 << self.mantissa_bits) - 1)
        exponent = (code >> self.mantissa_bits) & ((1 << self.exponent_bits) - 1)
        return code >> width, exponent, mantissa

    def _table(self) -> Values:
        code = np.arange(1 << self.bits, dtype=np.int64)
        sign, exponent, mantissa = self._fields(code)
        fraction = mantissa / 2.0**self.mantissa_bits + (exponent > 0)
        value = np.where(sign == 1, -1.0, 1.0) * fraction
        value *= 2.0 ** (np.maximum(exponent, 1) - self._bias)
        last = (1 << self.exponent_bits) - 1
        if self.specials == "ieee":
            infinite = np.where(mantissa == 0, np.where(sign == 1, -np.inf, np.inf), np.nan)
            value = np.where(exponent == last, infinite, value)
        elif self.specials == "nan":
            ones = (1 << self.mantissa_bits) - 1
            value[(exponent == last) & (mantissa == ones)] = np.nan
        elif self.specials == "fnuz":
            value[1 << (self.bits - 1)] = np.nan
        return value

    @cached_property
    def _ranked(self) -> tuple[Codes, Values, npt.NDArray[np.bool_]]:
        """As for any table, but both zeros stand in it and ties go to the even code."""
        finite = np.flatnonzero(np.isfinite(self.code_values))
        values = self.code_values[finite]
        order = np.lexsort((~np.signbit(values), values))
        codes = finite[order].astype(self.code_dtype)
        return codes, values[order], codes[1:] % 2 == 0

    def exponent_integer(self, code: int) -> tuple[int, int]:
        """The hidden bit before the mantissa; the exponent less the bias and the mantissa bits.

        Raises
        ------
        InputError
            If the code is out of range, an infinity or NaN.
        """
        code = self._checked(code)
        magnitude = code & ((1 << (self.exponent_bits + self.mantissa_bits)) - 1)
        negative = self.signed and bool(code >> (self.exponent_bits + self.mantissa_bits))
        field_, mantissa = divmod(magnitude, 1 << self.mantissa_bits)
        all_ones = magnitude + 1 == 1 << (self.exponent_bits + self.mantissa_bits)
        special = (
            (self.specials == "ieee" and field_ == (1 << self.exponent_bits) - 1)
            or (self.specials == "nan" and all_ones)
            or (self.specials == "fnuz" and negative and magnitude == 0)
        )
        if special:
            raise InputError(
                f"code {code} of {self.name} is {self.code_values[code]}, which no multiplier takes"
            )
        hidden = 1 if field_ else 0
        integer = (hidden << self.mantissa_bits) | mantissa
        exponent = (field_ or 1) - self._bias - self.mantissa_bits
        return exponent, -integer if negative else integer


@dataclass(frozen=True)
class TensorFloat32(Float):
    """TF32: float32 with 10 bits of mantissa, rounded as ``cvt.rna.tf32.f32`` does.

    Its 19 bits take 32 in memory, where the others are zeros.
    """

    exponent_bits: int = 8
    mantissa_bits: int = 10
    specials: Specials = "ieee"
    alias: str = field(default="tf32", compare=False)
    source = "published: NVIDIA A100 white paper; rounding: PTX ISA"
    ties = "ties go away from zero"
    most_bits: ClassVar[int] = 19

    @cached_property
    def _ranked(self) -> tuple[Codes, Values, npt.NDArray[np.bool_]]:
        """As of any float; a tie goes up where both neighbours are above zero."""
        codes, values, _ = super()._ranked
        return codes, values, values[1:] > 0
