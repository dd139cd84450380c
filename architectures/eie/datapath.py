"""A layer dealt to the PEs and multiplied: the pass that computes is the pass that counts.

Rows that exceed the registers for results, and vectors that exceed those for activations, are
worked off in stretches. A layer is as many passes as vectors, stretches of rows and stretches of
the vector.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparqsim.architectures.eie.config import (
    ACT_PORT_BITS,
    ACTIVATION_BITS,
    CODE_BITS,
    Configuration,
)
from sparqsim.architectures.eie.schedule import Pass
from sparqsim.architectures.eie.stored import Stored
from sparqsim.simulator.mac import eie as mac
from sparqsim.simulator.mac.dense import wrap
from sparqsim.simulator.netlist import Execute
from sparqsim.workloads.encodings.csc import CSC
from sparqsim.workloads.encodings.relative_index import RelativeIndexCSC


class Work:
    """A layer encoded and multiplied.

    Attributes
    ----------
    passes : list of Pass
    entries, spmat_reads : int32 [broadcasts, pes]
        Entries walked and SRAM rows read for each broadcast.
    macs, biases : int
        Products, and biases added.
    sums, accumulators : int64 [vectors, rows]
        Exact, and as the registers hold them.
    """

    def __init__(self, machine: Configuration, stored: Stored) -> None:
        self.machine, self.stored = machine, stored
        rows, inputs = stored.weights.shape
        at_once = machine.registers if machine.act_spill else rows
        self.chunks = _stretches(rows, at_once)
        self.stretches = _stretches(inputs, machine.registers if machine.act_spill else inputs)
        matrix = stored.matrix
        bias = np.zeros(rows, np.int64) if stored.bias is None else stored.bias
        self.encoded = [_encoded(matrix.rows(*chunk), machine) for chunk in self.chunks]
        self.bias = [_dealt(bias[low:high], machine.pes) for low, high in self.chunks]
        self.broadcasts = stored.broadcasts
        self.bias_column = -1 if stored.bias is None else inputs
        self.passes: list[Pass] = []
        self.spans: list[tuple[int, int, NDArray[np.int64]]] = []  # vector, chunk, columns
        self.macs = 0
        self.biases = len(self.broadcasts) * int(np.count_nonzero(bias))
        entries: list[NDArray[np.int32]] = []
        reads: list[NDArray[np.int32]] = []
        sums: list[NDArray[np.int64]] = []
        for number, which in np.ndindex(len(self.broadcasts), len(self.chunks)):
            sums.append(self._multiply(number, which, entries, reads))
        self.entries, self.spmat_reads = np.concatenate(entries), np.concatenate(reads)
        self.sums = np.concatenate(sums).reshape(len(self.broadcasts), rows)
        self.accumulators = wrap(self.sums, machine.accumulator_bits)
        self.carried = np.zeros(self.sums.shape, np.int64)

    def _multiply(
        self,
        number: int,
        which: int,
        entries: list[NDArray[np.int32]],
        reads: list[NDArray[np.int32]],
    ) -> NDArray[np.int64]:
        """Walk a vector over a stretch of rows; returns its sums ``[rows]``."""
        machine, matrix, vector = self.machine, self.encoded[which], self.broadcasts[number]
        sums = np.zeros(self.bias[which].shape, np.int64)
        for low, high in self.stretches:
            last = high == self.stretches[-1][1]
            # The bias is a constant: it takes a column, but no place in the registers.
            end = len(vector) if last else high
            columns = low + np.flatnonzero(vector[low:end])
            walked = np.zeros((len(columns), machine.pes), np.int32)
            read = np.zeros((len(columns), machine.pes), np.int32)
            rows = machine.sram_row_entries
            self.macs += self._walk(which, columns, vector, rows, sums, walked, read)
            entries.append(walked)
            reads.append(read)
            self.spans.append((number, which, columns))
            self.passes.append(
                Pass(
                    positions=columns - low,
                    length=end - low,
                    fresh=low == 0,
                    load=self._transfer(high - low),
                    store=self._transfer(matrix.shape[0]) if last else 0,
                )
            )
        return sums.T.reshape(-1)[: matrix.shape[0]]

    def _walk(
        self,
        which: int,
        columns: NDArray[np.int64],
        vector: NDArray[np.integer],
        row_entries: int,
        *out: NDArray[Any],
    ) -> int:
        """The MAC core over columns of a stretch of rows; sums, entries and reads go to ``out``."""
        matrix = self.encoded[which]
        return mac.spmv(
            matrix.pointers,
            matrix.codes,
            matrix.runs,
            self.stored.table,
            columns,
            vector[columns],
            self.bias_column,
            self.bias[which],
            row_entries,
            *out,
        )

    def reads_of_rows(self, row_entries: int) -> int:
        """Rows of the sparse-matrix SRAM that would be read if they held so many entries."""
        if row_entries == self.machine.sram_row_entries:
            return int(self.spmat_reads.sum())
        found = 0
        for number, which, columns in self.spans:
            sums = np.zeros(self.bias[which].shape, np.int64)
            walked = np.zeros((len(columns), self.machine.pes), np.int32)
            read = np.zeros_like(walked)
            self._walk(which, columns, self.broadcasts[number], row_entries, sums, walked, read)
            found += int(read.sum())
        return found

    def _transfer(self, activations: int) -> int:
        """Cycles in which the activation SRAM moves so many, if the layer needs it at all."""
        passes = len(self.broadcasts) * len(self.chunks) * len(self.stretches)
        if not self.machine.act_spill or passes == 1:
            return 0
        of_pe = -(-activations // self.machine.pes)
        return -(-of_pe // (ACT_PORT_BITS // ACTIVATION_BITS))

    @property
    def fullest_entries(self) -> int:
        """Entries of the PE that holds most."""
        of_pe = [m.pointers[:, -1] - m.pointers[:, 0] for m in self.encoded]
        return int(np.sum(of_pe, axis=0).max())

    @property
    def pointers(self) -> int:
        """Column pointers of a PE."""
        return sum(matrix.pointers.shape[1] for matrix in self.encoded)

    # ------------------------------------------------------------------ one firing at a time

    def actions(self) -> dict[str, Execute]:
        """What each block of the diagram does with a token, for ``verify="execute"``.

        A token names its vector, its stretch of rows and its column.
        """
        starts = np.cumsum([0] + [len(columns) for *_, columns in self.spans])
        pes, table = self.machine.pes, self.stored.table
        Got = dict[str, list[Any]]

        def broadcast(lane: int, firing: int, got: Got) -> Got:
            if firing == 0:
                self.carried[:] = 0
            span = int(np.searchsorted(starts, firing, side="right")) - 1
            vector, which, columns = self.spans[span]
            column = int(columns[firing - starts[span]])
            value = int(self.broadcasts[vector, column])
            return {"queue": [((vector, which, column), value)]}

        def read_pointers(lane: int, firing: int, got: Got) -> Got:
            (token, value) = got["queue"][0]
            low, high = self.encoded[token[1]].pointers[lane, token[2] : token[2] + 2]
            return {"pointers": [(token, value, slice(int(low), int(high)))]}

        def read_matrix(lane: int, firing: int, got: Got) -> Got:
            token, value, place = got["pointers"][0]
            matrix = self.encoded[token[1]]
            return {"spmat_register": [(token, value, matrix.codes[place], matrix.runs[place])]}

        def multiply(lane: int, firing: int, got: Got) -> Got:
            token, value, codes, runs = got["spmat_register"][0]
            rows = np.cumsum(runs.astype(np.int64) + 1) - 1
            rows, codes = rows[codes != 0], codes[codes != 0]
            of_bias = token[2] == self.bias_column
            products = self.bias[token[1]][lane, rows] if of_bias else table[codes] * value
            return {"pipeline": [(token, rows, products)]}

        def write(lane: int, firing: int, got: Got) -> Got:
            (vector, which, _), rows, products = got["pipeline"][0]
            self.carried[vector, self.chunks[which][0] + rows * pes + lane] += products
            return {}

        return {
            "ccu": broadcast,
            "column_walk": read_pointers,
            "spmat_read": read_matrix,
            "arithmetic": multiply,
            "act_write": write,
        }

    def executed(self) -> bool:
        """Whether the tokens of the last ``verify="execute"`` run gave the kernel's sums."""
        return bool(np.array_equal(self.carried, self.sums))


def _stretches(length: int, step: int) -> list[tuple[int, int]]:
    return [(low, min(low + step, length)) for low in range(0, length, step)]


def _dealt(values: NDArray[np.int64], pes: int) -> NDArray[np.int64]:
    """Values of rows as the PEs hold them: row ``i`` is element ``i // pes`` of PE ``i % pes``."""
    rows = -(-len(values) // pes)
    filled = np.zeros(rows * pes, np.int64)
    filled[: len(values)] = values
    return np.ascontiguousarray(filled.reshape(rows, pes).T)


def _encoded(chunk: CSC, machine: Configuration) -> RelativeIndexCSC:
    # The codebook of the encoding only says which codes are weights: all but 0.
    marks = np.arange(1 << CODE_BITS)
    return RelativeIndexCSC.encode(chunk, marks, machine.pes, machine.index_bits)
