"""Powers of two (PoT), and sums of a few of them (APoT): multiplication by shifting.

PoT spends all bits on the exponent: field 0 is zero and field k is 2**(k-1). Its steps near the
maximum are coarse however many bits there are. APoT (ICLR 2020) adds n powers of two, each chosen
by k bits from its own set: term i takes 2**-i, 2**-(i+n), 2**-(i+2n) and so on, or nothing. Where k
does not divide the width, one last term is shorter; the exponents are then dealt out in turn, and
the short term takes its turn first in the last rounds.

The decoder is a shifter for PoT, and a shifter a term and an adder for APoT.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from sparqsim.workloads.formats.base import TableFormat, Values, sign_name, whole, with_sign


@dataclass(frozen=True)
class PoT(TableFormat):
    """Powers of two of 2 to 8 bits.

    Parameters
    ----------
    bits
        2 to 8, the sign included.
    signed
        Sign and magnitude if true; minus zero is then a code that encoding never makes.
    """

    bits: int
    signed: bool = False
    source = "published: ANT's authors' quantizer (exponent field 0 is zero)"

    def __post_init__(self) -> None:
        whole("pot: bits", self.bits, 2, 8)

    @property
    def name(self) -> str:
        """``pot4_unsigned``."""
        return f"pot{self.bits}_{sign_name(self.signed)}"

    @property
    def unused_codes(self) -> frozenset[int]:
        """Minus zero, if signed."""
        return frozenset({1 << (self.bits - 1)}) if self.signed else frozenset()

    def _table(self) -> Values:
        powers = 2.0 ** np.arange((1 << (self.bits - self.signed)) - 1)
        magnitudes = np.concatenate([[0.0], powers])
        return with_sign(magnitudes) if self.signed else magnitudes

    terms = 1
    raised = 0

    @property
    def largest_shift(self) -> int:
        """Exponent of the largest value."""
        return (1 << (self.bits - self.signed)) - 2

    def left_shifts(self, code: int) -> tuple[int, ...]:
        """By how much an integer is shifted in the product with a code; zero has no term."""
        field = self._checked(code) & ((1 << (self.bits - self.signed)) - 1)
        return (field - 1,) if field else ()

    def exponent_integer(self, code: int) -> tuple[int, int]:
        """The field less one, and the sign; zero is the pair of zeros."""
        shifts = self.left_shifts(code)
        if not shifts:
            return 0, 0
        return shifts[0], -1 if self.signed and code >> (self.bits - 1) else 1


@dataclass(frozen=True)
class APoT(TableFormat):
    """Sums of powers of two of 2 to 8 bits; values lie below 1.

    Parameters
    ----------
    bits
        2 to 8, the sign included.
    signed
        Sign and magnitude if true; minus zero is then a code that encoding never makes.
    term_bits
        Bits of a full term, 1 to 4; 1 gives uniform steps.
    """

    bits: int
    signed: bool = False
    term_bits: int = 2
    # The published value sets are those of 2-bit terms. Where the terms lie in the code, and wider
    # terms beside a shorter one, are our choice.
    source = "published: APoT (ICLR 2020); place of the terms in the code: assumed"

    def __post_init__(self) -> None:
        whole("apot: bits", self.bits, 2, 8)
        whole("apot: bits of a term", self.term_bits, 1, 4)

    @property
    def name(self) -> str:
        """``apot_4_unsigned``, or ``apot_6_unsigned_k3`` where terms have other than 2 bits."""
        suffix = "" if self.term_bits == 2 else f"_k{self.term_bits}"
        return f"apot_{self.bits}_{sign_name(self.signed)}{suffix}"

    @property
    def unused_codes(self) -> frozenset[int]:
        """Minus zero, if signed."""
        return frozenset({1 << (self.bits - 1)}) if self.signed else frozenset()

    @cached_property
    def shifts(self) -> tuple[tuple[int, ...], ...]:
        """What fields 1, 2, ... of each term shift by; the first term is in the high bits."""
        full, short = divmod(self.bits - self.signed, self.term_bits)
        terms: list[list[int]] = [[] for _ in range(full + bool(short))]
        rounds = (1 << self.term_bits) - 1
        count = 0
        for turn in range(rounds):
            takers = list(range(full))
            if short and turn >= rounds - ((1 << short) - 1):
                takers.insert(0, full)
            for term in takers:
                count += 1
                terms[term].append(count)
        return tuple(tuple(term) for term in terms)

    def _table(self) -> Values:
        choices = [[0.0, *(2.0**-shift for shift in term)] for term in self.shifts]
        magnitudes = np.array([sum(chosen) for chosen in itertools.product(*choices)])
        return with_sign(magnitudes) if self.signed else magnitudes

    @property
    def terms(self) -> int:
        """Powers of two that a value adds at most."""
        return len(self.shifts)

    @property
    def raised(self) -> int:
        """The last place: its value is 2**-raised."""
        return max(max(term) for term in self.shifts)

    @property
    def largest_shift(self) -> int:
        """Places from the last to the first."""
        return self.raised - min(min(term) for term in self.shifts)

    def left_shifts(self, code: int) -> tuple[int, ...]:
        """By how much an integer is shifted from the last place, for each power that is there."""
        code = self._checked(code)
        low, found = self.bits - self.signed, []
        for term in self.shifts:
            term_bits = len(term).bit_length()
            low -= term_bits
            chosen = (code >> low) & ((1 << term_bits) - 1)
            if chosen:
                found.append(self.raised - term[chosen - 1])
        return tuple(found)

    def exponent_integer(self, code: int) -> tuple[int, int]:
        """Fixed point: the exponent is the last shift, the integer a sum of shifted ones."""
        integer = sum(1 << shift for shift in self.left_shifts(code))
        negative = self.signed and code >> (self.bits - 1)
        return -self.raised, -integer if negative else integer
