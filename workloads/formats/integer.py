"""Whole numbers: unsigned, two's complement, narrow (symmetric) two's complement, and the sign.

The multiplier takes the code as it is: the exponent is always 0. ``narrow`` leaves out the most
negative number, so that the range is symmetric; the decoder still knows that code.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sparqsim.base import InputError
from sparqsim.workloads.formats.base import Codes, TableFormat, Values, sign_name, whole


@dataclass(frozen=True)
class Int(TableFormat):
    """Integers of 1 to 16 bits; signed ones are two's complement.

    Parameters
    ----------
    bits
        1 to 16.
    signed
        Two's complement if true.
    narrow
        Never encode the most negative number (needs ``signed`` and at least 2 bits).
    """

    bits: int
    signed: bool = True
    narrow: bool = False
    source = "published: two's complement and plain binary"

    def __post_init__(self) -> None:
        whole("int: bits", self.bits, 1, 16)
        if self.narrow and (not self.signed or self.bits < 2):
            raise InputError(
                f"int: narrow needs a signed format of at least 2 bits, got {self.bits} bits, "
                f"{sign_name(self.signed)}"
            )

    @property
    def name(self) -> str:
        """``int4_signed``, ``int4_unsigned`` or ``int4_narrow``."""
        return f"int{self.bits}_{'narrow' if self.narrow else sign_name(self.signed)}"

    @property
    def unused_codes(self) -> frozenset[int]:
        """The most negative number, if narrow."""
        return frozenset({1 << (self.bits - 1)}) if self.narrow else frozenset()

    def _table(self) -> Values:
        count = 1 << self.bits
        numbers = np.arange(count, dtype=np.float64)
        if self.signed:
            numbers[count // 2 :] -= count
        return numbers

    def encode(self, x: npt.ArrayLike) -> Codes:
        """Codes of the nearest whole numbers; see :meth:`Format.encode`.

        Rounds by arithmetic, which is faster than a table and as exact.
        """
        from sparqsim.workloads.formats.lookup import round_half_up

        flat, shape = self._flat(x)
        out = np.empty(flat.size, self.code_dtype)
        low, high = self.values[[0, -1]].astype(flat.dtype)  # of its type: no widening inside
        round_half_up(flat, low, high, np.int32((1 << self.bits) - 1), out)
        return out.reshape(shape)

    def exponent_integer(self, code: int) -> tuple[int, int]:
        """``(0, n)``: the sign bit weighs ``-2**(bits-1)``."""
        code = self._checked(code)
        sign = code >> (self.bits - 1) if self.signed else 0
        return 0, code - (sign << self.bits)


@dataclass(frozen=True)
class Sign(TableFormat):
    """One bit: 0 for -1, 1 for +1. There is no zero, which goes up to +1.

    The scale that serves it best is the mean size (XNOR-Net).
    """

    bits: int = 1
    source = "published: XNOR-Net (ECCV 2016)"

    @property
    def signed(self) -> bool:
        """It has a negative value."""
        return True

    @property
    def name(self) -> str:
        """``sign``."""
        return "sign"

    def _table(self) -> Values:
        return np.array([-1.0, 1.0])

    def exponent_integer(self, code: int) -> tuple[int, int]:
        """``(0, -1)`` or ``(0, 1)``."""
        return 0, 2 * self._checked(code) - 1
