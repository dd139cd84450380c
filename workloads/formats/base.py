"""What a number format is: a frozen value that turns numbers into codes and codes into numbers.

Two roads lead from a code to its value. ``code_values`` is the table, built from the definition in
the format's paper. ``exponent_integer`` is what the decoder circuit does with the bits
(leading-zero detector, shifts, a sign), and its answer is an integer and a power of two, the
operands of a shared multiplier. They are written separately; tests hold them equal for every code.

Encoding rounds to the nearest value. Numbers beyond the ends, infinities included, saturate; NaN is
refused. Each format states its tie rule in ``ties``. The scale is applied outside:
``encode(x / scale)``, ``decode(codes) * scale``.

Decoding does what the circuit does with any bit pattern, also with one that encoding never makes
(minus zero, the spare code of a narrow integer); ``values`` lists what encoding can make.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from sparqsim.base import InputError

if TYPE_CHECKING:
    from sparqsim.workloads.formats.lookup import Lookup

Codes = npt.NDArray[np.unsignedinteger[Any]]
Floats = npt.NDArray[np.floating[Any]]
Values = npt.NDArray[np.float64]

TIES_LARGER = "ties go to the larger value"  # published: the authors' quantization kernel
TIES_EVEN = "ties go to the even code"  # published: IEEE 754 roundTiesToEven


def whole(what: str, given: object, low: int, high: int) -> None:
    """Refuse ``given`` unless it is an integer of [low, high]."""
    if isinstance(given, bool) or not isinstance(given, int) or not low <= given <= high:
        raise InputError(f"{what} must be a whole number from {low} to {high}, got {given!r}")


def frozen(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The same array, made read-only."""
    array.setflags(write=False)
    return array


class Format(ABC):
    """A number format. Equal parameters make equal formats; all of them can be hashed.

    Attributes
    ----------
    name
        What :func:`sparqsim.workloads.formats.get` finds it by.
    bits
        Width of one code.
    source
        ``published``, ``derived`` or ``assumed``, and where from.
    ties
        Where an exact tie goes.
    """

    bits: int
    source: str = ""
    ties: str = TIES_LARGER

    @property
    @abstractmethod
    def name(self) -> str:
        """Canonical name."""

    @property
    @abstractmethod
    def values(self) -> Values:
        """Every number that encoding can produce: ascending, distinct, float64, read-only."""

    @property
    @abstractmethod
    def code_values(self) -> Values:
        """The value of each code, by the format's definition."""

    @abstractmethod
    def encode(self, x: npt.ArrayLike) -> Codes:
        """Codes of the nearest values, of :attr:`code_dtype`; the shape of ``x``.

        Raises
        ------
        InputError
            If ``x`` is not numeric or holds NaN.
        """

    @abstractmethod
    def decode(self, codes: npt.ArrayLike, dtype: npt.DTypeLike = np.float64) -> Floats:
        """Values of codes, in float64 (exact) or float32.

        Raises
        ------
        InputError
            If a code is not an integer of the format's range.
        """

    def round(self, x: npt.ArrayLike) -> Floats:
        """The nearest representable values: ``decode(encode(x))``.

        The result has the type of a float32 or float64 ``x`` (float64 where a value of the format
        is beyond float32), else float64.
        """
        x = np.asarray(x)
        largest = np.abs(self.values[[0, -1]]).max()
        small = x.dtype == np.float32 and largest <= np.finfo(np.float32).max
        return self.decode(self.encode(x), np.float32 if small else np.float64)

    @property
    def code_dtype(self) -> np.dtype[Any]:
        """The least unsigned type that holds a code: uint8, uint16 or uint32."""
        return np.min_scalar_type((1 << self.bits) - 1)

    @property
    def signed(self) -> bool:
        """Whether a value is below zero."""
        return bool(self.values[0] < 0)

    @cached_property
    def _decode_tables(self) -> dict[np.dtype[Any], Floats]:
        with np.errstate(over="ignore"):
            narrow = frozen(self.code_values.astype(np.float32))
        return {np.dtype(np.float64): self.code_values, np.dtype(np.float32): narrow}

    def _flat(self, x: npt.ArrayLike) -> tuple[Floats, tuple[int, ...]]:
        """``x`` as a flat float32 or float64 array without NaN, and its shape."""
        array = np.asarray(x)
        if array.dtype.kind not in "fiu" and array.dtype.name != "bfloat16":
            raise InputError(
                f"{self.name} encodes real numbers, but x has dtype {array.dtype}; convert it to "
                "float32 or float64"
            )
        if array.dtype.name in ("float16", "bfloat16"):
            array = array.astype(np.float32)
        elif array.dtype not in (np.float32, np.float64):
            array = array.astype(np.float64)
        flat = np.ascontiguousarray(array).reshape(-1)
        if flat.size and np.isnan(flat.min()):  # the least of numbers and NaN is NaN
            count = np.count_nonzero(np.isnan(flat))
            place = [int(i) for i in np.argwhere(np.isnan(array))[0]]
            raise InputError(
                f"x must hold no NaN to be encoded as {self.name}, but {count} of its {flat.size} "
                f"values are NaN, the first at index {place}; mask or replace them first"
            )
        return flat, array.shape

    def _integer_codes(self, codes: npt.ArrayLike) -> npt.NDArray[np.integer[Any]]:
        array = np.asarray(codes)
        if array.dtype.kind not in "iu" and array.size:
            raise InputError(
                f"codes of {self.name} must be integers, but they have dtype {array.dtype}"
            )
        return array if array.dtype.kind in "iu" else array.astype(np.uint8)

    def _float_type(self, dtype: npt.DTypeLike) -> np.dtype[Any]:
        wanted = np.dtype(dtype)
        if wanted not in (np.float32, np.float64):
            raise InputError(f"{self.name} decodes to float32 or float64, not to {wanted}")
        return wanted

    def _checked(self, code: int) -> int:
        if not 0 <= int(code) < len(self.code_values):
            raise InputError(
                f"a code of {self.name} must be from 0 to {len(self.code_values) - 1}, got {code}"
            )
        return int(code)


class TableFormat(Format):
    """A format whose every code stands for one value: nearest by table, decoded by table.

    A subclass gives ``bits``, ``name``, ``source``, ``exponent_integer`` and :meth:`_table`.
    """

    @abstractmethod
    def _table(self) -> Values:
        """The value of each code from the definition."""

    @property
    def unused_codes(self) -> frozenset[int]:
        """Codes that the decoder knows but encoding never makes."""
        return frozenset()

    @abstractmethod
    def exponent_integer(self, code: int) -> tuple[int, int]:
        """``(exponent, integer)`` as the decoder circuit forms them: value = integer * 2**exponent.

        Raises
        ------
        InputError
            If the code is out of range or has no such pair (infinity, NaN, a codebook).
        """

    @cached_property
    def exponent_integers(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """:meth:`exponent_integer` of every code: the exponents and the integers.

        Raises
        ------
        InputError
            If a code has no such pair.
        """
        pairs = [self.exponent_integer(code) for code in range(len(self.code_values))]
        table = np.array(pairs, np.int64)
        return frozen(table[:, 0].copy()), frozen(table[:, 1].copy())

    @cached_property
    def code_values(self) -> Values:
        """The value of each code, by the format's definition."""
        return frozen(np.asarray(self._table(), np.float64))

    @cached_property
    def values(self) -> Values:
        """Every number that encoding can produce: ascending, distinct, float64, read-only."""
        return frozen(np.unique(self._ranked[1]) + 0.0)

    @cached_property
    def _ranked(self) -> tuple[Codes, Values, npt.NDArray[np.bool_]]:
        """Codes and values in ascending order of value, and whether the tie above each goes up."""
        usable = np.array([c for c in range(len(self.code_values)) if c not in self.unused_codes])
        values, first = np.unique(self.code_values[usable], return_index=True)
        codes = usable[first].astype(self.code_dtype)
        return codes, values, np.ones(len(values) - 1, np.bool_)

    @cached_property
    def _lookups(self) -> dict[np.dtype[Any], Lookup]:
        return {}

    def encode(self, x: npt.ArrayLike) -> Codes:
        """Codes of the nearest values; see :meth:`Format.encode`."""
        flat, shape = self._flat(x)
        codes, values, up = self._ranked
        if flat.dtype not in self._lookups:
            from sparqsim.workloads.formats.lookup import Lookup

            self._lookups[flat.dtype] = Lookup.build(values, up, flat.dtype)
        return self._lookups[flat.dtype].ranks_to(flat, codes).reshape(shape)

    def decode(self, codes: npt.ArrayLike, dtype: npt.DTypeLike = np.float64) -> Floats:
        """Values of codes; see :meth:`Format.decode`."""
        from sparqsim.workloads.formats.lookup import take

        array = self._integer_codes(codes)
        table = self._decode_tables[self._float_type(dtype)]
        out = np.empty(array.size, table.dtype)
        bad = take(table, np.ascontiguousarray(array).reshape(-1), out)
        if bad >= 0:
            raise InputError(
                f"codes of {self.name} must be from 0 to {len(table) - 1}, but "
                f"{array.reshape(-1)[bad]} stands at flat index {bad}"
            )
        return out.reshape(array.shape)


def with_sign(magnitudes: Values) -> Values:
    """The table of a sign bit before a magnitude; minus zero is zero, as its integer is."""
    return np.concatenate([magnitudes, -magnitudes]) + 0.0


def sign_name(signed: bool) -> str:
    """The suffix of a name."""
    return "signed" if signed else "unsigned"
