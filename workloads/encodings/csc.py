"""Compressed sparse column: the plain, lossless form every sparse encoding here starts from.

A matrix of ``rows x cols`` is kept column by column: ``indptr[j]:indptr[j + 1]`` is the stretch of
``indices`` (row numbers, ascending) and ``values`` that belongs to column ``j``. It is the natural
order for a machine that walks one input activation at a time and multiplies it with its column of
weights (EIE). A stored value may be zero (a quantizer can round to it); ``from_dense`` stores none.

Source: the textbook format; ``scipy.sparse.csc_array`` is the oracle of its tests.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparqsim.base import InputError
from sparqsim.workloads.encodings.checks import array_of, dimensions, finite_numbers, value_width

MOST_ROWS = 2**31 - 1  # derived: row numbers are int32


@dataclass(frozen=True, eq=False)
class CSC:
    """A sparse matrix in compressed sparse column form.

    Parameters
    ----------
    shape : (rows, cols)
    indptr : int64 array [cols + 1]
        Where each column starts; from 0, never falling, ending at the number of stored values.
    indices : int32 array [stored]
        Row of each stored value, strictly ascending within a column.
    values : array [stored]
        Real numbers or codes of any numeric dtype.
    value_bits : int, optional
        Bits of a value; those of the dtype by default.

    Raises
    ------
    InputError
        If the arrays do not fit together, a row is out of range or out of order, or a value is
        not finite.

    Examples
    --------
    >>> matrix = CSC.from_dense(np.array([[0, 5], [7, 0]]))
    >>> matrix.indices.tolist(), matrix.values.tolist()
    ([1, 0], [7, 5])
    """

    shape: tuple[int, int]
    indptr: NDArray[np.int64]
    indices: NDArray[np.int32]
    values: NDArray[Any]
    value_bits: int | None = None

    def __post_init__(self) -> None:
        rows, cols = dimensions("CSC.shape", self.shape, 2)
        if rows > MOST_ROWS:
            raise InputError(f"CSC.shape must have at most {MOST_ROWS} rows, got {rows}")
        object.__setattr__(self, "shape", (rows, cols))
        indptr = array_of("CSC.indptr", self.indptr, np.int64, 1, cols + 1)
        stored = len(array_of("CSC.indices", self.indices, np.int32, 1))
        finite_numbers("CSC.values", self.values, 1)
        array_of("CSC.values", self.values, length=stored)
        object.__setattr__(self, "value_bits", value_width(self.value_bits, self.values.dtype))
        if indptr[0] != 0 or indptr[-1] != stored:
            raise InputError(
                f"CSC.indptr must run from 0 to the {stored} stored values, "
                f"got {indptr[0]} to {indptr[-1]}"
            )
        if (falls := indptr[1:] < indptr[:-1]).any():
            raise InputError(f"CSC.indptr must not fall, but does after column {falls.argmax()}")
        if not stored:
            return
        if self.indices.min() < 0 or self.indices.max() >= rows:
            wrong = int(((self.indices < 0) | (self.indices >= rows)).argmax())
            raise InputError(
                f"CSC.indices must be within 0..{rows - 1}, got {self.indices[wrong]} "
                f"in column {self._column_of(wrong)}"
            )
        rises = self.indices[1:] > self.indices[:-1]
        starts = indptr[1:-1]
        rises[starts[(starts > 0) & (starts < stored)] - 1] = True
        if not rises.all():
            wrong = int((~rises).argmax()) + 1
            raise InputError(
                f"CSC.indices must rise within a column, but row {self.indices[wrong]} follows "
                f"{self.indices[wrong - 1]} in column {self._column_of(wrong)}; sort the column"
            )

    def _column_of(self, position: int) -> int:
        return int(np.searchsorted(self.indptr, position, side="right")) - 1

    @classmethod
    def from_dense(cls, dense: NDArray[Any]) -> CSC:
        """Store the non-zeros of a two-dimensional array.

        Raises
        ------
        InputError
            If it is not two-dimensional, is empty, or holds NaN or infinity.
        """
        from sparqsim.workloads.encodings import kernels

        finite_numbers("the dense matrix", dense, 2)
        rows, cols = dimensions("the shape of the dense matrix", dense.shape, 2)
        # numba knows no float16: its non-zeros are found on a mask and fetched afterwards.
        half = dense.dtype == np.float16
        scanned = np.ascontiguousarray(dense != 0 if half else dense)
        indptr = np.zeros(cols + 1, np.int64)
        kernels.count_columns(scanned, indptr[1:])
        np.cumsum(indptr, out=indptr)
        indices = np.empty(indptr[-1], np.int32)
        values = np.empty(indptr[-1], scanned.dtype)
        kernels.fill_columns(scanned, indptr[:-1].copy(), indices, values)
        if half:
            values = dense[indices, np.repeat(np.arange(cols), np.diff(indptr))]
        return cls((rows, cols), indptr, indices, values)

    def to_dense(self) -> NDArray[Any]:
        """Return the matrix as an array [rows, cols] with zeros filled in."""
        dense = np.zeros(self.shape, self.values.dtype)
        dense[self.indices, self.columns()] = self.values
        return dense

    def columns(self) -> NDArray[np.int64]:
        """Return the column of each stored value [stored]."""
        return np.repeat(np.arange(self.shape[1]), np.diff(self.indptr))

    def with_values(self, values: NDArray[Any]) -> CSC:
        """Return the same pattern with other values, such as codes in place of weights."""
        return replace(self, values=values, value_bits=None)

    def without_zeros(self) -> CSC:
        """Return the matrix without stored values that are zero."""
        kept = self.values != 0
        if kept.all():
            return self
        before = np.concatenate([[0], np.cumsum(kept)])
        return replace(
            self,
            indptr=before[self.indptr],
            indices=self.indices[kept],
            values=self.values[kept],
        )

    def with_column(self, column: NDArray[Any]) -> CSC:
        """Return the matrix with one more column, whose zeros are not stored: a bias, say."""
        rows = np.flatnonzero(column)
        return replace(
            self,
            shape=(self.shape[0], self.shape[1] + 1),
            indptr=np.append(self.indptr, self.indptr[-1] + len(rows)),
            indices=np.concatenate([self.indices, rows.astype(np.int32)]),
            values=np.concatenate([self.values, column[rows].astype(self.values.dtype)]),
        )

    def rows(self, low: int, high: int) -> CSC:
        """Return the rows from ``low`` up to ``high``."""
        if (low, high) == (0, self.shape[0]):
            return self
        inside = (self.indices >= low) & (self.indices < high)
        before = np.concatenate([[0], np.cumsum(inside)])
        return replace(
            self,
            shape=(high - low, self.shape[1]),
            indptr=before[self.indptr],
            indices=(self.indices[inside] - low).astype(np.int32),
            values=self.values[inside],
        )

    @property
    def stored(self) -> int:
        """How many values are stored."""
        return len(self.indices)

    @property
    def density(self) -> float:
        """Stored values over all places of the matrix."""
        return self.stored / (self.shape[0] * self.shape[1])

    @property
    def bits(self) -> int:
        """Bits of values, row indices and column pointers, each as narrow as it can be."""
        assert self.value_bits is not None
        row_bits = (self.shape[0] - 1).bit_length()
        return self.stored * (self.value_bits + row_bits) + (
            len(self.indptr) * self.stored.bit_length()
        )
