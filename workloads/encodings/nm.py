"""N:M sparsity: of every M neighbours along one axis at most N are kept, with their positions.

The hardware (NVIDIA's sparse tensor core: 2 of 4) holds the kept values densely and, beside each,
a ``ceil(log2 M)``-bit position; a multiplexer in front of each multiplier picks the activation the
position names, so the multipliers never see a pruned weight and the work is regular: exactly N of
M. A group with fewer than N non-zeros fills up with zeros, at the lowest free positions among the
last N: for 2:4 this is what the PyTorch conversion does, so the metadata agree bit for bit.

``pack_metadata`` gives the 2:4 positions in the order in which CUTLASS wants them in memory: four
(int16) or eight (int32) groups to a word, rows interleaved by 32 or 16 so that the threads of a
warp load their words at once, 2 x 2 blocks swizzled, columns in pairs. Values of 32 bits are kept
1 of 2, each counted as a pair of halves.

Left out: the order of *activations* in a thread's registers. Source: Mishra et al., Accelerating
Sparse Deep Neural Networks, 2021; the layout: CUTLASS ``host_reorder.h`` as told in PyTorch's
``torch/sparse/_semi_structured_conversions.py``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparqsim.base import InputError
from sparqsim.workloads.encodings.checks import (
    array_of,
    finite_numbers,
    tensor_shape,
    value_width,
    whole_number,
)


@dataclass(frozen=True, eq=False)
class NMSparse:
    """A tensor of which at most ``n`` of each ``m`` neighbours along an axis are non-zero.

    Parameters
    ----------
    shape : tuple of int
        Shape of the dense tensor.
    n, m : int
        Kept values per group, and group size (1 <= n <= m <= 256).
    axis : int
        The axis the groups lie along. If its length is no multiple of ``m`` the last group is
        filled up with zeros.
    values : array [lines, groups, n]
        Kept values; a line is one position of all other axes, in C order.
    positions : uint8 array [lines, groups, n]
        Place of each value in its group, ascending.
    value_bits : int, optional
        Bits of a value; those of the dtype by default.

    Raises
    ------
    InputError
        If the arrays do not fit together or positions are out of range or out of order.
    """

    shape: tuple[int, ...]
    n: int
    m: int
    axis: int
    values: NDArray[Any]
    positions: NDArray[np.uint8]
    value_bits: int | None = None

    def __post_init__(self) -> None:
        shape = tensor_shape("NMSparse.shape", self.shape)
        object.__setattr__(self, "shape", shape)
        _check_n_of_m(self.n, self.m)
        whole_number("NMSparse.axis", self.axis, 0, len(shape) - 1)
        length = shape[self.axis]
        expected = (_lines(shape, self.axis), -(-length // self.m), self.n)
        finite_numbers("NMSparse.values", self.values)
        array_of("NMSparse.positions", self.positions, np.uint8)
        object.__setattr__(self, "value_bits", value_width(self.value_bits, self.values.dtype))
        for name, array in (("values", self.values), ("positions", self.positions)):
            if array.shape != expected:
                raise InputError(
                    f"NMSparse.{name} must have shape {expected} (lines, groups, n), got "
                    f"{array.shape}; the data is truncated or mixed up"
                )
        if self.positions.max() >= self.m:
            raise InputError(
                f"NMSparse.positions must be below m = {self.m}, got {self.positions.max()}"
            )
        if (self.positions[..., 1:] <= self.positions[..., :-1]).any():
            raise InputError("NMSparse.positions must rise within a group")
        if length % self.m:
            beyond = self.positions[:, -1] >= length % self.m
            if self.values[:, -1][beyond].any():
                raise InputError(
                    f"NMSparse holds a non-zero beyond the {length} places of axis {self.axis}"
                )

    @classmethod
    def encode(
        cls,
        dense: NDArray[Any],
        n: int = 2,
        m: int = 4,
        axis: int = -1,
        value_bits: int | None = None,
    ) -> NMSparse:
        """Keep the non-zeros of a tensor that is already pruned to n of m.

        Raises
        ------
        InputError
            If a group has more than ``n`` non-zeros: prune first
            (:class:`sparqsim.workloads.prune.NM`).
        """
        from sparqsim.workloads.encodings import kernels

        _check_n_of_m(n, m)
        shape = tensor_shape("the shape of the tensor", finite_numbers("the tensor", dense).shape)
        axis = whole_number("axis", axis, -len(shape), len(shape) - 1) % len(shape)
        lines, groups = _lines(shape, axis), -(-shape[axis] // m)
        grouped = np.moveaxis(dense, axis, -1).reshape(lines, shape[axis])
        if shape[axis] % m:
            grouped = np.pad(grouped, ((0, 0), (0, groups * m - shape[axis])))
        grouped = grouped.reshape(lines * groups, m)
        positions = np.empty((lines * groups, n), np.uint8)
        overfull = kernels.place_n_of_m(grouped != 0, positions)
        if overfull >= 0:
            raise InputError(
                f"at most {n} of {m} neighbours along axis {axis} may be non-zero, but line "
                f"{overfull // groups}, group {overfull % groups} has "
                f"{np.count_nonzero(grouped[overfull])}; prune the tensor to {n}:{m} first"
            )
        values = np.take_along_axis(grouped, positions.astype(np.intp), axis=1)
        kept = (lines, groups, n)
        return cls(shape, n, m, axis, values.reshape(kept), positions.reshape(kept), value_bits)

    def decode(self) -> NDArray[Any]:
        """Return the dense tensor."""
        lines, groups, _ = self.values.shape
        dense = np.zeros((lines, groups, self.m), self.values.dtype)
        np.put_along_axis(dense, self.positions.astype(np.intp), self.values, axis=2)
        others = self.shape[: self.axis] + self.shape[self.axis + 1 :]
        length = self.shape[self.axis]
        dense = dense.reshape(lines, groups * self.m)[:, :length].reshape(*others, length)
        return np.ascontiguousarray(np.moveaxis(dense, -1, self.axis))

    @property
    def index_bits(self) -> int:
        """Bits of one position: ceil(log2 m)."""
        return (self.m - 1).bit_length()

    @property
    def bits(self) -> int:
        """Bits of values and positions (2:4 of 16-bit values: 56.25 % of dense)."""
        assert self.value_bits is not None
        return self.values.size * (self.value_bits + self.index_bits)

    def pack_metadata(self) -> NDArray[Any]:
        """Return the positions as CUTLASS keeps them, [rows, words]; int16 or int32 words.

        Raises
        ------
        InputError
            If this is not a matrix kept 2:4 along its rows with 8- or 16-bit values (or 1:2 with
            32-bit values), or rows and columns do not fill the hardware's tiles.
        """
        word_bits, rows, words = self._cutlass_words()
        quads = self._quads().astype(np.uint32).reshape(rows, words, word_bits // 4)
        shifts = np.arange(word_bits // 4, dtype=np.uint32) * 4
        plain = np.bitwise_or.reduce(quads << shifts, axis=2)
        packed = np.empty(rows * words, np.uint32)
        packed[_cutlass_places(rows, words, word_bits)] = plain.ravel()
        unsigned, signed = (np.uint16, np.int16) if word_bits == 16 else (np.uint32, np.int32)
        return packed.astype(unsigned).view(signed).reshape(rows, words)

    @classmethod
    def from_metadata(cls, values: NDArray[Any], metadata: NDArray[Any]) -> NMSparse:
        """Read a 2:4 (32-bit values: 1:2) matrix back from CUTLASS's layout.

        Parameters
        ----------
        values : array [rows, cols / 2]
            Kept values of 8, 16 or 32 bits.
        metadata : int16 or int32 array [rows, words]
            As :meth:`pack_metadata` gives it.

        Raises
        ------
        InputError
            If the shapes do not fit or the metadata name no valid pair of positions.
        """
        finite_numbers("values", values, 2)
        width = values.dtype.itemsize * 8
        if width not in (8, 16, 32):
            raise InputError(f"values must have 8, 16 or 32 bits, got {values.dtype}")
        word_bits = 32 if width == 8 else 16
        array_of("metadata", metadata, np.int32 if word_bits == 32 else np.int16, 2)
        n, m = (1, 2) if width == 32 else (2, 4)
        rows, cols = values.shape[0], 2 * values.shape[1]
        words, rest = divmod(cols, m * word_bits // 4)
        if rest or words % 2 or metadata.shape != (rows, words) or rows % (512 // word_bits):
            raise InputError(
                f"metadata of a {rows} x {cols} matrix of {values.dtype} must be [rows, cols / "
                f"{m * word_bits // 4}], the rows a multiple of {512 // word_bits} and the words "
                f"a row even, got {metadata.shape}"
            )
        unsigned = metadata.view(np.uint16 if word_bits == 16 else np.uint32).astype(np.uint32)
        plain = unsigned.ravel()[_cutlass_places(rows, words, word_bits)]
        shifts = np.arange(word_bits // 4, dtype=np.uint32) * 4
        quads = ((plain[:, None] >> shifts) & 15).astype(np.uint8).reshape(rows, -1)
        pairs = np.stack([quads & 3, quads >> 2], axis=2)
        if n == 1:
            if ((pairs[..., 0] % 2 != 0) | (pairs[..., 1] != pairs[..., 0] + 1)).any():
                raise InputError("metadata of 32-bit values must name the pair 0, 1 or 2, 3")
            pairs = pairs[..., :1] // 2
        shape = (rows, cols)
        return cls(shape, n, m, 1, values.reshape(rows, cols // m, n), pairs)

    def _quads(self) -> NDArray[np.uint8]:
        """Return the four bits of each group: first position low, second high [rows, groups]."""
        first, last = self.positions[..., 0], self.positions[..., -1]
        if self.n == 1:  # a 32-bit value is two halves, kept or dropped together
            first, last = 2 * first, 2 * first + 1
        return (first | (last << 2)).astype(np.uint8)

    def _cutlass_words(self) -> tuple[int, int, int]:
        """Return (bits of a word, rows, words per row), or refuse what has no such form."""
        kinds = {(2, 4, 8): 32, (2, 4, 16): 16, (1, 2, 32): 16}
        word_bits = kinds.get((self.n, self.m, self.value_bits or 0))
        if word_bits is None or len(self.shape) != 2 or self.axis != 1:
            raise InputError(
                "the hardware's metadata are for a matrix kept along its rows 2:4 with 8- or "
                f"16-bit values or 1:2 with 32-bit values, got {self.n}:{self.m} along axis "
                f"{self.axis} of a {len(self.shape)}-dimensional tensor of {self.value_bits}-bit "
                "values"
            )
        rows, cols = self.shape
        word_cols = self.m * word_bits // 4
        tile_rows, tile_cols = 512 // word_bits, 2 * word_cols
        if rows % tile_rows or cols % tile_cols:
            raise InputError(
                f"the matrix must fill tiles of {tile_rows} rows x {tile_cols} columns, got "
                f"{rows} x {cols}; pad it with zeros"
            )
        return word_bits, rows, cols // word_cols


def _cutlass_places(rows: int, words: int, word_bits: int) -> NDArray[np.intp]:
    """Return where each word, in plain order, lies in memory [rows * words]."""
    row, col = np.divmod(np.arange(rows * words), words)
    band = 512 // word_bits  # rows that are interleaved: 32 of 16-bit words, 16 of 32-bit words
    row = row // band * band + row % 8 * (band // 8) + row % band // 8
    # Swap the off-diagonal words of each 2 x 2 block.
    swap = (row + col) % 2
    row, col = row + swap * (1 - 2 * (row % 2)), col + swap * (1 - 2 * (col % 2))
    # Columns in pairs, pairs one after another.
    return col // 2 * (2 * rows) + 2 * row + col % 2


def _check_n_of_m(n: int, m: int) -> None:
    whole_number("m", m, 1, 256)
    whole_number("n", n, 1, m)


def _lines(shape: tuple[int, ...], axis: int) -> int:
    return math.prod(shape) // shape[axis]
