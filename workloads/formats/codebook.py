"""A shared codebook (Deep Compression, ICLR 2016): the code is an index into a table of any values.

The table is given or fitted to data by k-means: centres start evenly spaced between the least and
the greatest value (which keeps the rare large weights, as the paper found), then every value goes
to its nearest centre and every centre to the mean of its values, until nothing moves; a centre left
without values moves to the value that is farthest from its own. On sorted data with running sums
that is a handful of binary searches a step, and there is no chance in it.

EIE keeps code 0 for zero, which is also its padding: 15 shared weights and the zero. Such a fit
leaves zeros out and puts its centres on the rest. A table has no exponent-integer decode.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sparqsim.base import InputError
from sparqsim.workloads.formats.base import TableFormat, Values, whole

_MOST_STEPS = 300  # assumed: k-means on a line settles far earlier; the bound only guards


@dataclass(frozen=True)
class Codebook(TableFormat):
    """Values by index.

    Parameters
    ----------
    entries
        One value for each code from 0 up: 2 to ``2**bits``, finite and distinct.
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

    def _table(self) -> Values:
        return np.array(self.entries) + 0.0  # no minus zero

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


def fit_codebook(data: npt.ArrayLike, bits: int = 4, *, zero: bool = False) -> Codebook:
    """The codebook of ``2**bits`` values fitted to data by k-means.

    Parameters
    ----------
    data
        Numbers of any shape; finite.
    bits
        1 to 16.
    zero
        Keep code 0 for zero, and fit the others to the values that are not zero (EIE).

    Returns
    -------
    Codebook
        Entries ascending (after the zero). Fewer than ``2**bits`` where the data has fewer
        distinct values.

    Raises
    ------
    InputError
        If data is empty, not real, not finite, or has a single value (or no non-zero one).
    """
    whole("codebook: bits", bits, 1, 16)
    array = np.asarray(data)
    if array.dtype.kind not in "fiu":
        raise InputError(f"codebook: data must be real numbers, got dtype {array.dtype}")
    flat = np.sort(array.reshape(-1)).astype(np.float64)
    if not np.isfinite(flat).all():
        count = int((~np.isfinite(flat)).sum())
        raise InputError(f"codebook: data must be finite, but {count} values are NaN or infinite")
    if zero:
        flat = flat[flat != 0]
    distinct = flat[np.concatenate([np.ones(min(1, len(flat)), bool), flat[1:] != flat[:-1]])]
    if len(distinct) + zero < 2:
        raise InputError(
            f"codebook: data must hold at least 2 different values, zero among them if it is kept, "
            f"got {len(distinct) + zero} in {array.size} numbers"
        )
    count = (1 << bits) - zero
    centres = distinct if len(distinct) <= count else _k_means(flat, count)
    return Codebook((0.0, *centres[centres != 0]) if zero else tuple(centres), bits)


def _k_means(ascending: Values, count: int) -> Values:
    """Lloyd's steps from evenly spaced centres; an empty one moves to the worst error."""
    sums = np.concatenate([[0.0], np.cumsum(ascending)])
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
