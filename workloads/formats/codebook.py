"""A shared codebook (Deep Compression, ICLR 2016): the code is an index into a table of any values.

The table is given or fitted to data by k-means: centres start evenly spaced between the least and
the greatest value (which keeps the rare large weights, as the paper found), then every value goes
to its nearest centre and every centre to the mean of its values, until nothing moves; a centre left
without values moves to the value that is farthest from its own. On sorted data with running sums
that is a handful of binary searches a step, and there is no chance in it.

A table whose first entry is 0 keeps code 0 for zero, as EIE does, whose padding it is: there zero
is what pruning left out. Whatever is not zero survived, and goes to the nearest entry that is not
zero, however near to zero it lies. A fit with ``zero`` leaves zeros out and puts its 15 centres on
the rest. Entries may be rounded to fixed point, which is what hardware multiplies by. A table has
no exponent-integer decode.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from sparqsim.base import InputError
from sparqsim.workloads.formats.base import Codes, TableFormat, Values, frozen, whole

_MOST_STEPS = 300  # assumed: k-means on a line settles far earlier; the bound only guards


@dataclass(frozen=True)
class Codebook(TableFormat):
    """Values by index.

    Parameters
    ----------
    entries
        One value for each code from 0 up: 2 to ``2**bits``, finite and distinct. If the first is 0,
        code 0 is for zero alone.
    bits
        1 to 16.
    """

    entries: tuple[float, ...]
    bits: int
    source = "published: Deep Compression (ICLR 2016), EIE (ISCA 2016)"

    def __post_init__(self) -> None:
        whole("codebook: bits", self.bits, 1, 16)
        object.__setattr__(self, "entries", tuple(float(v) for v in self.entries))
        if not 2 <= len(self.entries) <= 1 << self.bits:
            raise InputError(
                f"codebook: {self.bits} bits index from 2 to {1 << self.bits} entries, "
                f"got {len(self.entries)}"
            )
        # The bound keeps sums and midpoints of entries clear of overflow and underflow.
        wrong = [v for v in self.entries if v != 0 and not 1e-290 < abs(v) < 1e290]
        if wrong:
            raise InputError(
                f"codebook: entries must be 0 or from 1e-290 to 1e290 in size, got {wrong[0]}"
            )
        if len(set(self.entries)) < len(self.entries):
            twice = next(v for v in self.entries if self.entries.count(v) > 1)
            raise InputError(f"codebook: entries must be distinct, but {twice} stands there twice")

    @property
    def name(self) -> str:
        """``codebook4``; the entries are not in the name."""
        return f"codebook{self.bits}"

    @property
    def keeps_zero(self) -> bool:
        """Whether code 0 is for zero alone."""
        return self.entries[0] == 0

    def _table(self) -> Values:
        return np.array(self.entries) + 0.0  # no minus zero

    @cached_property
    def values(self) -> Values:
        """The entries: ascending, float64, read-only."""
        return frozen(np.unique(self.code_values))

    @cached_property
    def _ranked(self) -> tuple[Codes, Values, npt.NDArray[np.bool_]]:
        """As of any table; without the zero that only a zero is given."""
        codes, values, up = super()._ranked
        if not self.keeps_zero:
            return codes, values, up
        return codes[values != 0], values[values != 0], up[1:]

    def encode(self, x: npt.ArrayLike) -> Codes:
        """Codes of the nearest entries; where zero is kept, of the nearest but zero, or of zero."""
        codes = super().encode(x)
        if self.keeps_zero:
            codes[np.asarray(x) == 0] = 0
        return codes

    def exponent_integer(self, code: int) -> tuple[int, int]:
        """A table of any values has none.

        Raises
        ------
        InputError
            Always.
        """
        raise InputError(
            f"{self.name} holds values of no common form, so that no exponent and integer stand "
            "for its codes; use code_values"
        )


def fit_codebook(
    data: npt.ArrayLike, bits: int = 4, *, zero: bool = False, entry_bits: int | None = None
) -> Codebook:
    """The codebook of ``2**bits`` values fitted to data by k-means.

    Parameters
    ----------
    data
        Numbers of any shape; finite.
    bits
        1 to 16.
    zero
        Keep code 0 for zero, and fit the others to the values that are not zero (EIE).
    entry_bits
        Round the entries to signed fixed point of so many bits, 2 to 32, with as many fraction bits
        as the largest leaves; None keeps them in float64.

    Returns
    -------
    Codebook
        Entries ascending (after the zero). Fewer than ``2**bits`` where the data has fewer
        distinct values, or rounding joins some. Zeros alone get a table of 0 and 1.

    Raises
    ------
    InputError
        If data is empty, not real, not finite, or (unless zero is kept) has a single value.
    """
    whole("codebook: bits", bits, 1, 16)
    if entry_bits is not None:
        whole("codebook: entry_bits", entry_bits, 2, 32)
    array = np.asarray(data)
    if array.dtype.kind not in "fiu":
        raise InputError(f"codebook: data must be real numbers, got dtype {array.dtype}")
    flat = np.sort(array.reshape(-1)).astype(np.float64)
    if not np.isfinite(flat).all():
        count = int((~np.isfinite(flat)).sum())
        raise InputError(f"codebook: data must be finite, but {count} values are NaN or infinite")
    if zero and not flat.all():
        flat = flat[flat != 0] if flat.any() else np.ones(1)
    is_new = np.ones(len(flat), bool)
    np.not_equal(flat[1:], flat[:-1], out=is_new[1:])
    distinct = int(np.count_nonzero(is_new))
    if distinct + zero < 2:
        raise InputError(
            f"codebook: data must hold at least 2 different values, zero among them if it is kept, "
            f"got {distinct + zero} in {array.size} numbers"
        )
    count = (1 << bits) - zero
    centres = flat[is_new] if distinct <= count else _k_means(flat, count)
    if entry_bits is not None:
        centres = np.unique(fixed_point(centres, entry_bits))
    return Codebook((0.0, *centres[centres != 0]) if zero else tuple(centres), bits)


def fixed_point(values: Values, bits: int) -> Values:
    """Values rounded to signed fixed point, with as many fraction bits as the largest leaves."""
    exponent = int(np.frexp(np.abs(values).max(initial=0.0))[1])
    fraction = bits - 1 - exponent
    whole_numbers = np.rint(np.ldexp(values, fraction))
    if np.abs(whole_numbers).max(initial=0.0) == 1 << (bits - 1):  # the largest was rounded up
        fraction -= 1
        whole_numbers = np.rint(np.ldexp(values, fraction))
    return np.ldexp(whole_numbers, -fraction)


def _k_means(ascending: Values, count: int) -> Values:
    """Lloyd's steps from evenly spaced centres; an empty one moves to the worst error."""
    sums = np.zeros(len(ascending) + 1)
    np.cumsum(ascending, out=sums[1:])
    centres = np.linspace(ascending[0], ascending[-1], count)
    cuts = np.zeros(0, np.int64)
    for _ in range(_MOST_STEPS):
        middles = (centres[:-1] + centres[1:]) / 2
        moved = np.searchsorted(ascending, middles)
        if np.array_equal(moved, cuts):
            break
        cuts = moved
        edges = np.concatenate([[0], cuts, [len(ascending)]])
        members = np.diff(edges)
        means = np.diff(sums[edges]) / np.maximum(members, 1)
        centres = np.where(members > 0, means, centres)
        empty = np.flatnonzero(members == 0)
        if len(empty):
            errors = np.abs(ascending - np.repeat(centres, members))
            farthest = np.argsort(errors, kind="stable")[-len(empty) :]
            centres[empty] = ascending[farthest]
            centres.sort()
    return np.unique(centres)
