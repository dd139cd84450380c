"""EIE's MAC core: relative-index decode, codebook lookup, fixed-point multiply and accumulate.

A processing element holds every N-th row of a column-compressed matrix. For a broadcast activation
``a_j`` it walks the entries of column ``j``: ``row += run + 1``; the 4-bit code names one of 16
shared 16-bit weights; weight times activation is added to the row's accumulator. A padding entry
(code 0) takes its cycle and writes nothing. Sparse-matrix SRAM rows hold several entries; a row is
read only when an entry's row address differs from the last one that element read.

A bias is one more column, which is broadcast with the activation 1: its entries are walked as any
other's, but add a value of their own, which no codebook rounds.

Accumulators wrap around, as two's complement adders do (the machine knows at which width). Wrapping
commutes with addition, so the result does not depend on the order of the additions and an
independent reference may add in any order.

:func:`spmv` is the kernel, :func:`spmv_plain` the same in the plainest Python.

Source: Han et al., EIE, ISCA 2016, section IV.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparqsim.base import kernel


@kernel(error_model="numpy", _nrt=False)
def spmv(
    pointers: Any,
    codes: Any,
    runs: Any,
    codebook: Any,
    columns: Any,
    activations: Any,
    bias_column: int,
    bias: Any,
    row_entries: int,
    accumulators: Any,
    entries: Any,
    spmat_reads: Any,
) -> int:
    """Multiply the active columns of a matrix into the accumulators; returns products made.

    Parameters
    ----------
    pointers : int64 [pes, columns of the matrix + 1]
        Where each element's columns begin in ``codes`` and ``runs``.
    codes, runs : uint8 [entries]
        Code and run length of each entry.
    codebook : int64 [16]
        Shared weights in fixed point; code 0 is padding.
    columns, activations : int64 [active]
        The broadcast columns, in order, and their activations in fixed point.
    bias_column
        The column whose entries add the bias of their row; -1 if there is none.
    bias : int64 [pes, rows of an element]
    row_entries
        Entries an SRAM row holds.
    accumulators : int64 [pes, rows of an element]
        Added to; not yet wrapped.
    entries : integers [active, pes]
        Set to the entries each element walks for each broadcast column, padding included.
    spmat_reads : integers [active, pes]
        Set to the SRAM rows each element reads for each broadcast column.
    """
    macs: Any = np.int64(0)  # typed, or numba would go over all types once more
    for pe in range(pointers.shape[0]):
        first = pointers[pe, 0]
        last_row = np.int64(-1)
        for k in range(columns.size):
            low, high = pointers[pe, columns[k]], pointers[pe, columns[k] + 1]
            entries[k, pe] = high - low
            spmat_reads[k, pe] = 0
            if low == high:
                continue
            top, bottom = (low - first) // row_entries, (high - 1 - first) // row_entries
            spmat_reads[k, pe] = bottom - top + (top != last_row)
            last_row = bottom
            activation = activations[k]
            is_bias = columns[k] == bias_column
            row = np.int64(-1)
            for entry in range(low, high):
                row += runs[entry] + np.int64(1)
                code = codes[entry]
                if code:
                    product = bias[pe, row] if is_bias else codebook[code] * activation
                    accumulators[pe, row] += product
                    macs += not is_bias
    return macs


def spmv_plain(
    pointers: NDArray[np.int64],
    codes: NDArray[np.uint8],
    runs: NDArray[np.uint8],
    codebook: NDArray[np.int64],
    columns: NDArray[np.int64],
    activations: NDArray[np.int64],
    bias_column: int,
    bias: NDArray[np.int64],
    row_entries: int,
    accumulators: NDArray[np.int64],
    entries: NDArray[Any],
    spmat_reads: NDArray[Any],
) -> int:
    """The specification of :func:`spmv`: one entry after another, one address after another."""
    macs = 0
    for pe in range(len(pointers)):
        held = None
        for k, (column, activation) in enumerate(zip(columns, activations, strict=True)):
            row = -1
            entries[k, pe] = spmat_reads[k, pe] = 0
            for entry in range(pointers[pe, column], pointers[pe, column + 1]):
                address = (entry - pointers[pe, 0]) // row_entries
                if address != held:
                    spmat_reads[k, pe] += 1
                    held = address
                entries[k, pe] += 1
                row += int(runs[entry]) + 1
                if codes[entry] != 0:
                    if column == bias_column:
                        accumulators[pe, row] += bias[pe, row]
                    else:
                        accumulators[pe, row] += codebook[codes[entry]] * activation
                        macs += 1
    return macs


def count_spmat_reads(
    counts: NDArray[np.integer], columns: NDArray[np.int64], row_entries: int
) -> NDArray[np.int32]:
    """SRAM rows ``[active, pes]`` each element reads for each column, from the entries alone.

    ``counts`` ``[pes, columns]`` covers every column of the matrix, in the order it is stored.
    """
    pointers = np.zeros((counts.shape[0], counts.shape[1] + 1), np.int64)
    np.cumsum(counts, axis=1, out=pointers[:, 1:])
    low, high = pointers[:, columns], pointers[:, columns + 1]
    reads = np.zeros((len(columns), len(counts)), np.int32)
    for pe in range(len(counts)):
        used = high[pe] > low[pe]
        top = low[pe][used] // row_entries
        bottom = (high[pe][used] - 1) // row_entries
        again = np.concatenate([[-1], bottom])[: len(top)] == top
        reads[used, pe] = bottom - top + 1 - again
    return reads
