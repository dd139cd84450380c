"""The compiled inner loops of the encodings.

They are pure (arrays in and out), and apart from the records so that only who encodes pays for
importing numba. The plain Python twin of each stands in the tests.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparqsim.base import kernel

Ints = NDArray[np.int64]

# No array is made within, no number divided by what may be zero: numba need not provide for it.
_lean = kernel(error_model="numpy", _nrt=False)


@kernel()
def count_columns(dense: NDArray[Any], counts: Ints) -> None:
    """Add the number of non-zeros of each column of ``dense`` to ``counts``."""
    for i in range(dense.shape[0]):
        for j in range(dense.shape[1]):
            counts[j] += dense[i, j] != 0


@kernel()
def fill_columns(
    dense: NDArray[Any], cursor: Ints, indices: NDArray[np.int32], values: NDArray[Any]
) -> None:
    """Write rows and values of the non-zeros, each column from its ``cursor`` on."""
    for i in range(dense.shape[0]):
        for j in range(dense.shape[1]):
            if dense[i, j] != 0:
                indices[cursor[j]] = i
                values[cursor[j]] = dense[i, j]
                cursor[j] += 1


@_lean
def walk_entries(
    indptr: Ints,
    indices: NDArray[np.int32],
    stored_codes: NDArray[np.uint8],
    longest: int,
    following: Ints,
    cursor: Ints,
    ends: Ints,
    codes: NDArray[np.uint8],
    runs: NDArray[np.uint8],
) -> None:
    """Write the entries, PE ``p`` from ``cursor[p]`` on; each PE's columns follow each other.

    ``ends`` [cols, pes] is where they end. ``longest`` is the longest run; ``following`` [pes] is
    room for the local row after the last one. With empty ``codes`` entries are only counted.
    """
    pes = following.size
    written = codes.size > 0
    for j in range(len(indptr) - 1):
        for p in range(pes):
            following[p] = 0
        for k in range(indptr[j], indptr[j + 1]):
            row = np.uint32(indices[k])
            local = row // np.uint32(pes)
            pe = row - local * np.uint32(pes)
            gap = np.int64(local) - following[pe]
            at = cursor[pe]
            while gap > longest:
                if written:
                    codes[at] = 0
                    runs[at] = longest
                at += 1
                gap -= longest + 1
            if written:
                codes[at] = stored_codes[k]
                runs[at] = gap
            cursor[pe] = at + 1
            following[pe] = np.int64(local) + 1
        for p in range(pes):
            ends[j, p] = cursor[p]


@kernel()
def decode_entries(
    pointers: Ints,
    codes: NDArray[np.uint8],
    runs: NDArray[np.uint8],
    rows: int,
    indptr: Ints,
    indices: NDArray[np.int32],
    stored_codes: NDArray[np.uint8],
) -> None:
    """Write the CSC form: row and code of every stored value, rows ascending in a column."""
    pes, cols = pointers.shape[0], pointers.shape[1] - 1
    column = np.zeros(rows, np.uint8)
    k = 0
    for j in range(cols):
        for pe in range(pes):
            row = pe - pes
            for e in range(pointers[pe, j], pointers[pe, j + 1]):
                row += (np.int64(runs[e]) + 1) * pes
                column[row] = codes[e]
        for row in range(rows):
            if column[row] != 0:
                indices[k] = row
                stored_codes[k] = column[row]
                column[row] = 0
                k += 1
        indptr[j + 1] = k


@kernel()
def keep_n_of_m(
    scores: NDArray[Any], alive: NDArray[np.bool_], n: int, m: int, keep: NDArray[np.bool_]
) -> None:
    """Mark in ``keep`` the ``n`` best of each ``m`` neighbours of a row that are ``alive``.

    ``keep`` comes all False. The last group of a row may be short. Equal scores: the first wins.
    """
    rows, length = scores.shape
    for i in range(rows):
        for start in range(0, length, m):
            stop = min(start + m, length)
            for _ in range(n):
                best = -1
                for k in range(start, stop):
                    if (
                        alive[i, k]
                        and not keep[i, k]
                        and (best < 0 or scores[i, k] > scores[i, best])
                    ):
                        best = k
                if best < 0:
                    break
                keep[i, best] = True


@kernel()
def place_n_of_m(nonzero: NDArray[np.bool_], positions: NDArray[np.uint8]) -> int:
    """Write the ``n`` ascending ``positions`` [groups, n] kept of each group [groups, m].

    Places left over take the lowest free positions among the last ``n``. Returns the first group
    with more than ``n`` non-zeros, or -1.
    """
    groups, m = nonzero.shape
    n = positions.shape[1]
    for g in range(groups):
        spare = n
        for k in range(m):
            spare -= nonzero[g, k]
        if spare < 0:
            return g
        at = 0
        for k in range(m):
            if nonzero[g, k]:
                positions[g, at] = k
                at += 1
            elif k >= m - n and spare > 0:
                positions[g, at] = k
                at += 1
                spare -= 1
    return -1
