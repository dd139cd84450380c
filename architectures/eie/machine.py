"""EIE: compressed sparse matrix times sparse vector (Han et al., ISCA 2016).

An array of processing elements (PEs) holds a pruned, codebook-quantized weight matrix in on-chip
SRAM; row ``i`` of the matrix and output ``i`` live in PE ``i mod N``. A quadtree of leading
non-zero detectors (LNZD) finds the non-zero activations, N of the vector at a time, lowest first;
its root is in the central control unit (CCU), which broadcasts one activation and its column number
a cycle to the activation queue of every PE - to all, or to none while any queue is full. A PE takes
a column from its queue, reads the column's two pointers, and walks the column's entries at one a
cycle: sparse-matrix SRAM, codebook and multiply-accumulate (three stages), write-back register. A
column without entries still takes a cycle; columns follow each other without a bubble. So zero
weights and zero activations cost nothing, but PEs fall out of step, and the queues hide what they
can of it.

    lnzd -> ccu => queue => column_walk -> spmat_read -> arithmetic -> act_write

The queue is a ring of S slots, of which S - 1 are usable. Vectors longer than the activation
registers (64 a PE) are worked off in batches that are loaded from, and stored to, the activation
SRAM; so are several vectors, such as the pixels of a 1 x 1 convolution. This timing gives the cycle
counts of the authors' simulator exactly (``act_spill=False`` there). Left out: the delay of wires
and of the LNZD tree, input and output of the chip, both under 0.3 % in the authors' account; DVFS
and process variation.

Sources: Han et al., "EIE: Efficient Inference Engine on Compressed Deep Neural Network", ISCA 2016,
sections III to VI and Tables II to V; queue, fetch and pipeline rules derived from the behaviour of
the authors' simulator.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial

import numpy as np
from numpy.typing import NDArray

from sparqsim.architectures.account import Account, Port, Store
from sparqsim.architectures.eie import config, reference
from sparqsim.architectures.eie.config import (
    ACT_KIB,
    ACT_PORT_BITS,
    ACT_SRAM,
    ACTIVATION_BITS,
    KIB,
    LNZD_NODE_MW,
    PAPER_CLOCK_HZ,
    PAPER_ROW_ENTRIES,
    POINTER_BITS,
    PTR_KIB,
    SPMAT_KIB,
)
from sparqsim.architectures.eie.counts import checked_counts, load_counts
from sparqsim.architectures.eie.datapath import Work
from sparqsim.architectures.eie.schedule import Pass, netlist_of, timed
from sparqsim.architectures.eie.stored import Stored, as_output
from sparqsim.architectures.machine import Program
from sparqsim.architectures.operands import Computes
from sparqsim.base import InputError
from sparqsim.simulator.energy.tables import Basis
from sparqsim.simulator.mac import eie as mac
from sparqsim.simulator.mac.fixed_point import narrow, shift_for
from sparqsim.simulator.report import EnergyPart, Macs
from sparqsim.simulator.timeline import Timeline
from sparqsim.workloads.encoded import EncodedLayer
from sparqsim.workloads.layers import Conv2d, Layer, MatMul
from sparqsim.workloads.shared import once


@dataclass(frozen=True, eq=False, kw_only=True)
class Walked:
    """What is walked, and what of it lies in the memories.

    Attributes
    ----------
    passes
    entries, spmat_reads : integers [broadcasts, pes]
        Entries walked and SRAM rows read.
    spmat_reads_then
        Rows read if they were as wide as published.
    fullest_entries, pointers
        Entries and column pointers of the PE that holds most.
    activations
        Inputs and outputs of a vector.
    macs, biases
        Entries that were multiplied, and those that added a bias; the rest is padding.
    """

    passes: list[Pass]
    entries: NDArray[np.integer]
    spmat_reads: NDArray[np.integer]
    spmat_reads_then: int
    fullest_entries: int
    pointers: int
    activations: int
    macs: int
    biases: int = 0

    @cached_property
    def walked(self) -> int:
        """All entries."""
        return int(self.entries.sum())

    @property
    def padding(self) -> int:
        """Entries that did nothing."""
        return self.walked - self.macs - self.biases

    @cached_property
    def rows_read(self) -> int:
        """Rows of the sparse-matrix SRAM that are read, of all PEs."""
        return int(self.spmat_reads.sum())

    @property
    def pointer_bits(self) -> int:
        """As published, or as many as count the entries."""
        return max(POINTER_BITS, self.fullest_entries.bit_length())


class EIE(config.Configuration, frozen=True, kw_only=True):
    def computes(self, layer: EncodedLayer) -> Computes:
        """A table of 16 values times 16-bit integers."""
        return Computes(weights=("codebook4",), activations=("int16_signed",))

    def refusal(self, layer: Layer) -> str:
        """It multiplies a stored matrix with vectors."""
        if isinstance(layer, MatMul):
            return "the matrix is compressed ahead of time; a product of two activations has none"
        if isinstance(layer, Conv2d) and layer.kernel != (1, 1):
            return (
                "it runs fully connected layers and 1x1 convolutions, pixel by pixel; this "
                f"convolution is {layer.kernel[0]}x{layer.kernel[1]}"
            )
        if isinstance(layer, Conv2d) and layer.groups > 1:
            return f"it multiplies one matrix; this convolution has {layer.groups} groups"
        return ""

    def lower(self, layer: EncodedLayer) -> Program:
        """Deal the codes to the PEs, multiply, and turn the work into a netlist.

        Outputs are 16-bit fixed point: the sums without their lowest bits, as many as the largest
        sum asks for.

        Raises
        ------
        InputError
            If there are no numbers, or the codebook is no 16-bit fixed point.
        """
        if layer.is_outline:
            raise InputError(f"layer {layer.name!r}: EIE's time depends on the numbers; give them")
        same = self.without_timing()
        lowered, walked = once("eie", same, (layer,), partial(EIE._lowered, same, layer))
        return replace(
            lowered, netlist=timed(lowered.netlist, self), energy=partial(self._energy, walked)
        )

    def _lowered(self, layer: EncodedLayer) -> tuple[Program, Walked]:
        """The program of a layer, and what it walks."""
        work = Work(self, Stored.of(layer, self))
        shift = shift_for(work.accumulators, ACTIVATION_BITS)
        rows = narrow(work.accumulators, shift, ACTIVATION_BITS, layer.relu)
        stored, outputs = work.stored, as_output(layer, rows)
        of_row = stored.unit * 2.0**shift
        walked = Walked(
            passes=work.passes,
            entries=work.entries,
            spmat_reads=work.spmat_reads,
            spmat_reads_then=work.reads_of_rows(PAPER_ROW_ENTRIES),
            fullest_entries=work.fullest_entries,
            pointers=work.pointers,
            activations=sum(stored.weights.shape),
            macs=work.macs,
            biases=work.biases,
        )
        account = self._account(walked)
        lowered = Program(
            netlist=netlist_of(self, layer.name, work.entries, work.passes, work.actions()),
            layer=layer.name,
            inputs=layer.source,
            macs=Macs(dense=layer.layer.macs, effectual=work.macs, padding=walked.padding),
            worker="arithmetic",
            multipliers=self.pes,
            account=account,
            outputs=outputs,
            output_scale=of_row.reshape(-1, *[1] * (outputs.ndim - 2)),
            verify=partial(
                reference.verify,
                layer,
                outputs,
                fraction=stored.fraction,
                accumulator_bits=self.accumulator_bits,
                shift=shift,
                output_bits=ACTIVATION_BITS,
            ),
            counters=self._counters(walked, account),
            executed=work.executed,
            notes=[*self._notes(layer, work, shift), *_wide_pointers(walked)],
        )
        return lowered, walked

    def _notes(self, layer: EncodedLayer, work: Work, shift: int) -> list[str]:
        """What a reader of the report must know of the numbers."""
        notes = [
            f"outputs are {ACTIVATION_BITS}-bit fixed point: sums without their {shift} lowest "
            "bits, a number that calibration on these sums would give"
        ]
        if layer.dynamic:
            notes.append(
                "the range of the inputs is found in the run; EIE has nothing that finds one, and "
                "no time is charged for it"
            )
        if work.stored.unit.size > 1:
            notes.append("each row has a scale of its own, which who reads the outputs applies")
        if work.stored.bias is not None:
            notes.append(
                "the bias is a column of its own, walked as any; its values are not of the table"
            )
        cut = int(
            (np.abs(layer.bias / work.stored.unit) >= 2.0 ** (self.accumulator_bits - 1)).sum()
        )
        if cut:
            notes.append(f"{cut} biases exceed {self.accumulator_bits} bits and are cut off there")
        wrapped = int((work.accumulators != work.sums).sum())
        if wrapped:
            notes.append(
                f"{wrapped} of {work.sums.size} accumulators overflowed their "
                f"{self.accumulator_bits} bits and wrapped around"
            )
        if len(work.broadcasts) > 1:
            notes.append(f"{len(work.broadcasts):,} vectors, one after another")
        return notes

    # ------------------------------------------------------------------ timing alone

    def program_from_counts_file(self, path: str | os.PathLike[str]) -> Program:
        """A program of which only the timing is known, from an npz file; see `load_counts`."""
        counts, active_columns, bias = load_counts(path)
        return self.program_from_counts(counts, active_columns, bias, name=os.path.basename(path))

    def program_from_counts(
        self,
        counts: NDArray[np.integer],
        active_columns: NDArray[np.integer],
        bias: bool = True,
        name: str = "counts",
    ) -> Program:
        """A program of which only the timing is known, from entries per PE and column.

        Parameters
        ----------
        counts : integers [pes, columns]
            Entries each PE stores for each column, padding included.
        active_columns : integers [active]
            The columns whose activation is not zero, in any order, each once.
        bias
            Whether the last column is the bias, which has activation 1 and is always broadcast.

        Raises
        ------
        InputError
            If the shapes do not fit this configuration, a count is negative or a column is
            unknown or named twice.
        """
        counts, active = checked_counts(counts, active_columns, self.pes)
        if bias:
            active = np.union1d(active, [counts.shape[1] - 1])
        entries = counts[:, active].T.copy()
        walked = Walked(
            passes=[Pass(positions=active, length=counts.shape[1], fresh=True)],
            entries=entries,
            spmat_reads=mac.count_spmat_reads(counts, active, self.sram_row_entries),
            spmat_reads_then=int(mac.count_spmat_reads(counts, active, PAPER_ROW_ENTRIES).sum()),
            fullest_entries=int(counts.sum(axis=1).max()),
            pointers=counts.shape[1] + 1,
            activations=counts.shape[1] - bias,
            macs=int(entries.sum()),
        )
        account = self._account(walked)
        notes = ["timing only: the counts say how many entries there are, not which are padding"]
        if bias:
            notes.append(f"column {counts.shape[1] - 1} is the bias and always broadcast")
        return Program(
            netlist=netlist_of(self, name, walked.entries, walked.passes, {}),
            layer=name,
            inputs="entries per PE and column, given",
            macs=Macs(dense=0, effectual=walked.macs),
            worker="arithmetic",
            multipliers=self.pes,
            account=account,
            counters=self._counters(walked, account),
            energy=partial(self._energy, walked),
            notes=[*notes, *_wide_pointers(walked)],
        )

    # ------------------------------------------------------------------ what moved, what it cost

    def _account(self, walked: Walked) -> Account:
        """The three memories of a PE. Each PE has its own; the fullest says what all must hold."""
        transfers = [
            (cycles, is_load)
            for walk in walked.passes
            for cycles, is_load in ((walk.load, True), (walk.store, False))
            if cycles
        ]
        words = np.array([cycles for cycles, _ in transfers], np.int64) * self.pes
        loaded = words * np.array([is_load for _, is_load in transfers], np.int64)
        ports = [
            Port(
                store="spmat_sram",
                actor="spmat_read",
                read_bits=walked.spmat_reads * (self.sram_row_entries * self.entry_bits),
            ),
            Port(store="ptr_sram", actor="column_walk", read_bits=2 * walked.pointer_bits),
        ]
        if transfers:
            ports.append(
                Port(
                    store="act_sram",
                    actor="act_sram",
                    read_bits=loaded * ACT_PORT_BITS,
                    written_bits=(words - loaded) * ACT_PORT_BITS,
                )
            )
        stores = [
            Store(
                name="spmat_sram",
                capacity_bits=self.pes * SPMAT_KIB * KIB,
                used_bits=self.pes * walked.fullest_entries * self.entry_bits,
                source="published: 128 KB per PE, section IV; used: as the fullest PE",
            ),
            Store(
                name="ptr_sram",
                capacity_bits=self.pes * PTR_KIB * KIB,
                used_bits=self.pes * walked.pointers * walked.pointer_bits,
                source="published: 32 KB per PE in two banks, section IV",
            ),
            Store(
                name="act_sram",
                capacity_bits=self.pes * ACT_KIB * KIB,
                used_bits=walked.activations * ACTIVATION_BITS if transfers else 0,
                source="published: 2 KB per PE, section IV; port width assumed",
                read=ACT_SRAM,
                write=ACT_SRAM,
            ),
        ]
        return Account(stores, ports)

    def _counters(self, walked: Walked, account: Account) -> Callable[[Timeline], dict[str, int]]:
        """What happened beside the bits; accesses are the account's bits over an access's width."""

        def counters(timeline: Timeline) -> dict[str, int]:
            def accesses(store: str, bits: int) -> tuple[int, int]:
                read, written = account.moved(timeline.netlist, store)
                return read // bits, written // bits

            loads, stores = accesses("act_sram", ACT_PORT_BITS)
            return {
                "broadcasts": len(walked.entries),
                "queue_full_cycles": int(timeline.lane_times("ccu").blocked.sum()),
                "lnzd_rows": sum(-(-walk.length // self.pes) for walk in walked.passes),
                "ptr_reads": accesses("ptr_sram", 2 * walked.pointer_bits)[0],
                "spmat_reads": accesses("spmat_sram", self.sram_row_entries * self.entry_bits)[0],
                "entries": walked.walked,
                "padding_entries": walked.padding,
                "bias_entries": walked.biases,
                "macs": walked.macs,
                "act_writes": walked.macs + walked.biases,
                "act_sram_reads": loads,
                "act_sram_writes": stores,
            }

        return counters

    def _energy(self, walked: Walked, timeline: Timeline) -> list[EnergyPart]:
        """Power over time, as the configuration's modules follow those of Table II: the energy of
        a cycle stays what it was at 800 MHz."""
        seconds_then = timeline.cycles / PAPER_CLOCK_HZ
        reads = walked.rows_read / max(walked.spmat_reads_then, 1)
        powers = self.powers_mw(reads, walked.pointer_bits)
        parts = [
            EnergyPart(
                part=part,
                energy_pj=power.value * 1e9 * seconds_then * self.pes,
                basis=power.basis,
                source=power.source,
            )
            for part, power in powers.items()
        ]
        parts.append(
            EnergyPart(
                part="lnzd",
                energy_pj=LNZD_NODE_MW * 1e9 * seconds_then * self.lnzd_nodes,
                basis=Basis.ASSUMED,
                source=f"{self.lnzd_nodes} LNZD nodes of 0.023 mW, recalled from the paper",
            )
        )
        return parts


def _wide_pointers(walked: Walked) -> list[str]:
    """Say where published pointers do not count the entries of a PE."""
    if walked.pointer_bits == POINTER_BITS:
        return []
    return [
        f"a PE holds {walked.fullest_entries:,} entries; pointers are taken {walked.pointer_bits} "
        f"bits wide for them, not {POINTER_BITS} as published"
    ]
