"""Outlier-victim pairs (OliVe, ISCA 2023): an outlier takes the place of its neighbour.

Numbers are coded two by two. Two normal ones are two codes of the normal format. If one of them is
an outlier, it is coded as an abfloat, and the other, its victim, is dropped: in its place stands
the identifier, the one code that the normal format leaves spare (10..0), which tells the decoder
that the neighbour is an abfloat and the value here 0. So everything stays aligned: a pair is a byte
at 4 bits, with no list of outliers beside it. Of two outliers the larger stays.

    normal, normal    [code][code]
    outlier at left   [abfloat][10..0]
    outlier at right  [10..0][abfloat]

A number is an outlier if an outlier value is nearer than any normal one; a tie counts as outlier,
as the authors' quantizer has it. Left out: the choice of scale, which belongs to quantization.
Source: OliVe, sections III and IV, and its authors' quantizer (which, of two outliers, keeps the
left one: ``keep="left"``; and whose 8-bit outliers are E2M5 where the paper has E4M3).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from sparqsim.base import InputError
from sparqsim.workloads.formats.abfloat import AbFloat, clearing_bias
from sparqsim.workloads.formats.base import Codes, Floats, Format, Values, frozen
from sparqsim.workloads.formats.flint import Flint
from sparqsim.workloads.formats.integer import Int

if TYPE_CHECKING:
    from sparqsim.workloads.formats.lookup import Lookup

ABFLOAT_WIDTHS = {4: (2, 1), 8: (4, 3)}  # published: OliVe, E2M1 and E4M3


@dataclass(frozen=True)
class OutlierVictim(Format):
    """Pairs along the last axis, of a normal format and an abfloat of the same width.

    Parameters
    ----------
    normal
        A narrow integer or signed flint, whose code 10..0 is spare.
    outlier
        The abfloat; its smallest value must lie beyond the normal ones.
    keep
        Which of two outliers stays: the ``larger`` in size (the left one if they are equal), or
        always the ``left``.
    """

    normal: Int | Flint
    outlier: AbFloat
    keep: Literal["larger", "left"] = "larger"
    source = "published: OliVe (ISCA 2023) and its authors' quantizer"
    ties = "ties go to the larger value, between normal and outlier to the outlier"

    def __post_init__(self) -> None:
        if self.normal.unused_codes != {self.identifier}:
            raise InputError(
                "outlier-victim pairs: the normal format must leave the code 10..0 spare (a narrow "
                f"integer or a signed flint), got {self.normal.name}"
            )
        if self.outlier.bits != self.normal.bits:
            raise InputError(
                f"outlier-victim pairs: {self.normal.name} has {self.normal.bits} bits and "
                f"{self.outlier.name} {self.outlier.bits}; they must be as wide"
            )
        smallest = self.outlier.values[len(self.outlier.values) // 2]
        largest = self.normal.values[-1]
        if smallest <= largest:
            raise InputError(
                f"outlier-victim pairs: the smallest outlier {smallest} of {self.outlier.name} "
                f"must lie beyond the largest normal value {largest}; raise the bias"
            )
        if self.keep not in ("larger", "left"):
            raise InputError(
                f"outlier-victim pairs: keep must be 'larger' or 'left', got {self.keep!r}"
            )

    @property
    def bits(self) -> int:  # type: ignore[override]
        """Width of one code, half a pair."""
        return self.normal.bits

    @property
    def identifier(self) -> int:
        """The code that stands in the victim's place."""
        return 1 << (self.normal.bits - 1)

    @property
    def name(self) -> str:
        """``ovp_int4``, and what differs from the published choice: ``ovp_int8_e2m5_left``."""
        kind = "int" if isinstance(self.normal, Int) else "flint"
        parts = [f"ovp_{kind}{self.bits}"]
        widths = (self.outlier.exponent_bits, self.outlier.mantissa_bits)
        if widths != ABFLOAT_WIDTHS.get(self.bits):
            parts.append("e{}m{}".format(*widths))
        if self.outlier.bias != clearing_bias(float(self.normal.values[-1]), *widths):
            parts.append(f"bias{self.outlier.bias}")
        if self.keep == "left":
            parts.append("left")
        return "_".join(parts)

    @cached_property
    def values(self) -> Values:
        """Normal and outlier values together, ascending."""
        return frozen(np.union1d(self.normal.values, self.outlier.values))

    @cached_property
    def code_values(self) -> Values:
        """``[left code, right code]`` -> the two values; NaN where no such pair is ever made.

        Shape ``(2**bits, 2**bits, 2)``.
        """
        count, identifier = 1 << self.bits, self.identifier
        normal, outlier = self.normal.code_values, self.outlier.code_values.copy()
        outlier[sorted(self.outlier.unused_codes)] = np.nan
        table = np.empty((count, count, 2))
        table[..., 0], table[..., 1] = normal[:, None], normal[None, :]
        table[:, identifier, 0], table[:, identifier, 1] = outlier, 0.0
        table[identifier, :, 0], table[identifier, :, 1] = 0.0, outlier
        table[np.isnan(table).any(axis=2)] = np.nan
        return frozen(table)

    @cached_property
    def _flagged(self) -> npt.NDArray[np.uint16]:
        """The code of each of ``values``, with 256 added for outliers."""
        normal = np.isin(self.values, self.normal.values)
        codes = np.empty(len(self.values), np.uint16)
        codes[normal] = self.normal.encode(self.values[normal])
        codes[~normal] = self.outlier.encode(self.values[~normal]).astype(np.uint16) + 256
        return codes

    @cached_property
    def _lookups(self) -> dict[np.dtype[Any], Lookup]:
        return {}

    def _lookup(self, dtype: np.dtype[Any]) -> Lookup:
        from sparqsim.workloads.formats.lookup import Lookup

        if dtype not in self._lookups:
            outlier = self._flagged >= 256
            # A tie goes up, except from a negative outlier to the first normal value.
            up = ~(outlier[:-1] & ~outlier[1:])
            self._lookups[dtype] = Lookup.build(self.values, up, dtype)
        return self._lookups[dtype]

    def _check_pairs(self, shape: tuple[int, ...]) -> None:
        if not shape or shape[-1] % 2:
            raise InputError(
                f"{self.name} codes neighbours along the last axis, which must have an even "
                f"length, but the shape is {shape}; append a zero"
            )

    def encode(self, x: npt.ArrayLike) -> Codes:
        """Codes of the shape of ``x``, pairs along the last axis; see :meth:`Format.encode`.

        Raises
        ------
        InputError
            Also if the last axis has an odd length.
        """
        from sparqsim.workloads.formats.pair_kernels import settle_pairs

        flat, shape = self._flat(x)
        self._check_pairs(shape)
        flagged = self._lookup(flat.dtype).ranks_to(flat, self._flagged)
        out = np.empty(flat.size, self.code_dtype)
        settle_pairs(flat, flagged, self.identifier, self.keep == "larger", out)
        return out.reshape(shape)

    def decode(self, codes: npt.ArrayLike, dtype: npt.DTypeLike = np.float64) -> Floats:
        """Values of codes, pairs along the last axis; see :meth:`Format.decode`.

        Raises
        ------
        InputError
            Also if a pair is one that encoding never makes (two identifiers, or an outlier of zero
            magnitude) or the last axis has an odd length.
        """
        from sparqsim.workloads.formats.pair_kernels import decode_pairs

        array = self._integer_codes(codes)
        self._check_pairs(array.shape)
        wanted = self._float_type(dtype)
        out = np.empty(array.size, wanted)
        flat = np.ascontiguousarray(array).reshape(-1)
        with np.errstate(over="ignore"):
            normal = self.normal.code_values.astype(wanted)
            outlier = self.outlier.code_values.astype(wanted)
        bad = decode_pairs(flat, self.identifier, normal, outlier, out)
        if bad >= 0:
            left, right = flat[bad : bad + 2]
            raise InputError(
                f"codes of {self.name} must be from 0 to {2 * self.identifier - 1}, in pairs with "
                f"at most one identifier ({self.identifier}) beside an outlier that is not zero, "
                f"but ({left}, {right}) stands at flat index {bad}"
            )
        return out.reshape(array.shape)

    def exponent_integer_pair(
        self, left: int, right: int
    ) -> tuple[tuple[int, int], tuple[int, int]]:
        """``(exponent, integer)`` of both, as the pair decoder forms them.

        The identifier is looked for on both sides; it selects the abfloat decoder for the other
        code and zero for its own.

        Raises
        ------
        InputError
            If a code is out of range, or the pair is never made.
        """
        if right == self.identifier:
            chosen, order = left, 1
        elif left == self.identifier:
            chosen, order = right, -1
        else:
            return self.normal.exponent_integer(left), self.normal.exponent_integer(right)
        if chosen in self.outlier.unused_codes:
            raise InputError(f"{self.name}: ({left}, {right}) is a pair that encoding never makes")
        pair = (self.outlier.exponent_integer(chosen), (0, 0))
        return pair if order == 1 else (pair[1], pair[0])


def outlier_victim(
    kind: Literal["int", "flint"],
    bits: int,
    widths: tuple[int, int] | None = None,
    bias: int | None = None,
    keep: Literal["larger", "left"] = "larger",
) -> OutlierVictim:
    """Pairs with the published choices where nothing else is asked for.

    Parameters
    ----------
    kind, bits
        The normal format: narrow integer or signed flint, and its width.
    widths
        Exponent and mantissa bits of the outliers; published for 4 and 8 bits.
    bias
        By default the least that clears the normal values.
    keep
        See :class:`OutlierVictim`.

    Raises
    ------
    InputError
        If widths are neither given nor published, or the parts do not fit.
    """
    normal: Int | Flint = Int(bits, narrow=True) if kind == "int" else Flint(bits, signed=True)
    widths = widths or ABFLOAT_WIDTHS.get(bits)
    if widths is None:
        raise InputError(
            f"ovp_{kind}{bits}: outliers of {bits} bits have no published split; name one, for "
            f"example ovp_{kind}{bits}_e2m{bits - 3}"
        )
    if bias is None:
        bias = clearing_bias(float(normal.values[-1]), *widths)
    return OutlierVictim(normal, AbFloat(*widths, bias), keep)
