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

    lnzd -> ccu => queue => ptr_read -> spmat_read -> arithmetic -> act_write

The queue is a ring of S slots, of which S - 1 are usable. Vectors longer than the activation
registers (64 a PE) are worked off in batches that are loaded from, and stored to, the activation
SRAM. This timing gives the cycle counts of the authors' simulator exactly
(``act_spill=False`` there). Left out: the delay of wires and of the LNZD tree, input and output of
the chip, both under 0.3 % in the authors' account; DVFS and process variation.

Sources: Han et al., "EIE: Efficient Inference Engine on Compressed Deep Neural Network", ISCA 2016,
sections III to VI and Tables II to V; queue, fetch and pipeline rules derived from the behaviour of
the authors' simulator.
"""

from __future__ import annotations

import os
import zipfile
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from sparqsim.architectures.machine import Figure, Machine, Program
from sparqsim.base import InputError
from sparqsim.simulator.energy.tables import Basis
from sparqsim.simulator.mac import eie as mac
from sparqsim.simulator.netlist import Actor, Channel, Netlist, Pattern
from sparqsim.simulator.report import EnergyPart, Macs, Memory, Verification, memory_use
from sparqsim.simulator.timeline import Timeline
from sparqsim.simulator.traffic import Access
from sparqsim.workloads.encodings.csc import CSC
from sparqsim.workloads.encodings.relative_index import RelativeIndexCSC
from sparqsim.workloads.formats.codebook import fit_codebook
from sparqsim.workloads.layers import Linear
from sparqsim.workloads.tensors import LayerTensors

KIB = 1024 * 8  # bits
WEIGHT_BITS = ACTIVATION_BITS = 16  # published, section IV: 16-bit fixed point
CODE_BITS = 4  # published, section III: 16 shared weights, code 0 is zero
POINTER_BITS = 16  # published, section IV
SPMAT_KIB, PTR_KIB, ACT_KIB = 128, 32, 2  # published, section IV, each PE
ACT_PORT_BITS = 64  # assumed: as wide as the sparse-matrix SRAM; the paper does not say
ARITHMETIC_STAGES = 3  # derived from the authors' simulator: entry to write register is 6 cycles
PAPER_CLOCK_HZ = 800e6  # published, section VI: at which Table II was measured
LNZD_FANIN = 4  # published, section IV: a quadtree

# published, Table II: milliwatts of one PE at 800 MHz and 45 nm, by module
POWER_MW = {
    "queue": 0.112,
    "ptr_read": 1.807,
    "spmat_read": 4.955,
    "arithmetic": 1.162,
    "act_rw": 1.122,
}
LNZD_NODE_MW = 0.023  # assumed: recalled from the paper, unchecked
ACT_SRAM_PJ = 2.76  # derived: CACTI 7, 2 KB, 64-bit port, 45 nm, a read; a write is taken as equal
TABLE_II = "Table II (45 nm, 800 MHz), power over time"


@dataclass(frozen=True, eq=False)
class Pass:
    """One walk over (a stretch of) an activation vector for (a stretch of) the rows.

    ``positions`` are the places of the non-zeros in the stretch of ``length`` elements. ``load``
    and ``store`` are cycles of the activation SRAM before and after it; ``fresh`` says that the
    destination registers must be free before it begins.
    """

    positions: NDArray[np.int64]
    length: int
    fresh: bool
    load: int = 0
    store: int = 0


class EIE(Machine, frozen=True, kw_only=True):
    """Configuration of EIE; the defaults are the paper's 64-PE design.

    Attributes
    ----------
    pes
        Processing elements, 1 to 256.
    clock_hz
        Clock frequency.
    queue_slots
        Slots of each activation queue's ring, at least 2; one less is usable.
    sram_row_entries
        Entries in a row of the sparse-matrix SRAM (8 entries of 8 bits are 64 bits).
    index_bits
        Bits of an entry's relative row index, 1 to 8.
    act_registers
        Activations each PE's register files hold.
    act_spill
        Whether vectors longer than the registers go through the activation SRAM in batches. False
        as in the authors' simulator, which leaves it out.
    accumulator_bits
        Width of the accumulators, which wrap around.
    """

    name: ClassVar[str] = "eie"
    title: ClassVar[str] = "EIE (ISCA 2016): compressed sparse matrix x sparse vector"

    pes: int = 64  # published, section VI
    clock_hz: float = PAPER_CLOCK_HZ
    queue_slots: int = 8  # published, section VI: queue depth 8
    sram_row_entries: int = 8  # published, section VI: 64-bit SRAM interface
    index_bits: int = 4  # published, section III
    act_registers: int = 64  # published, section IV
    act_spill: bool = True
    accumulator_bits: int = 40  # assumed: 16 x 16 bit and room for 2^9 products; not published

    def __post_init__(self) -> None:
        bounds = {
            "pes": (1, 256, "PEs"),
            "queue_slots": (2, 1 << 20, "a ring of S slots holds S - 1 activations"),
            "sram_row_entries": (1, 1024, "entries of an SRAM row"),
            "index_bits": (1, 8, "bits of a relative index"),
            "act_registers": (1, 1 << 16, "activations a PE holds"),
            "accumulator_bits": (16, 63, "bits"),
        }
        for name, (low, high, what) in bounds.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
                raise InputError(f"eie.{name} must be {low} to {high} ({what}), got {value!r}")
        if not (isinstance(self.clock_hz, int | float) and 1e3 <= self.clock_hz <= 1e12):
            raise InputError(f"eie.clock_hz must be 1 kHz to 1 THz, got {self.clock_hz!r}")

    @property
    def lnzd_nodes(self) -> int:
        """Nodes of the quadtree: 16 + 4 + 1 for 64 PEs."""
        nodes, width = 0, self.pes
        while width > 1:
            width = -(-width // LNZD_FANIN)
            nodes += width
        return max(nodes, 1)

    @property
    def registers(self) -> int:
        """Activations the register files of all PEs hold: 4096 for 64 PEs."""
        return self.pes * self.act_registers

    # ------------------------------------------------------------------ lowering

    def lower(self, tensors: LayerTensors) -> Program:
        """Encode a fully connected layer, multiply it, and turn the work into a netlist.

        Weights are what is stored: zeros are pruned, the rest is quantized to a codebook of 15
        values and zero fitted by k-means. A bias is one more column with activation 1. Weights,
        activations and outputs are 16-bit fixed point, each with as many fraction bits as its
        largest value leaves.

        Raises
        ------
        InputError
            If the layer is not fully connected.
        """
        if not isinstance(tensors.layer, Linear):
            raise InputError(
                f"EIE runs fully connected layers; {tensors.layer.name!r} is a "
                f"{type(tensors.layer).__name__}"
            )
        weights = tensors.sparse_weight
        vectors, weight_codes, codebook, fraction = self._quantized(tensors, weights)
        outputs_at_once = self.registers if self.act_spill else weights.shape[0]
        chunks = [
            weight_codes.rows(low, min(low + outputs_at_once, weights.shape[0]))
            for low in range(0, weights.shape[0], outputs_at_once)
        ]
        work = _Work(self, chunks, codebook, vectors, tensors.bias is not None)
        largest = int(np.abs(work.accumulators).max(initial=0))
        shift = max(0, largest.bit_length() - (ACTIVATION_BITS - 1))
        outputs = mac.requantize(work.accumulators, shift, ACTIVATION_BITS, tensors.relu)

        def verify() -> Verification:
            exact = _reference(weight_codes, codebook, vectors, tensors.bias is not None)
            wrapped = mac.wrap(exact, self.accumulator_bits)
            expected = mac.requantize(wrapped, shift, ACTIVATION_BITS, tensors.relu)
            differ = int((expected != outputs).sum())
            return Verification(
                status="mismatch" if differ else "exact",
                outputs=outputs.size,
                mismatches=differ,
                against="integer product of the dense decoded matrix (float64 BLAS, exact to 2^53)",
            )

        notes = []
        wrapped_count = int((work.accumulators != work.unwrapped).sum())
        if wrapped_count:
            notes.append(
                f"{wrapped_count} of {outputs.size} accumulators overflowed their "
                f"{self.accumulator_bits} bits and wrapped around"
            )
        if tensors.layer.rows > 1:
            notes.append(f"a batch of {tensors.layer.rows} vectors, one after another")
        macs = Macs(
            dense=tensors.layer.macs,
            effectual=work.macs,
            padding=int(work.entries.sum()) - work.macs,
        )
        stored = sum(chunk.entries for chunk in work.encoded)
        return self._program(
            name=tensors.layer.name,
            inputs=tensors.source,
            work=work.entries,
            passes=work.passes,
            macs=macs,
            spmat_reads=work.spmat_reads,
            stored_entries=stored,
            stored_pointers=sum(chunk.pointers.size for chunk in work.encoded),
            outputs=outputs,
            output_scale=2.0 ** (shift - fraction),
            verify=verify,
            notes=notes,
            execute=work,
        )

    def _quantized(
        self, tensors: LayerTensors, weights: CSC
    ) -> tuple[NDArray[np.int64], CSC, NDArray[np.int64], int]:
        """Activations, weight codes (bias last), codebook, and the products' fraction bits."""
        if tensors.bias is not None:
            weights = weights.with_column(tensors.bias)
        values, weight_fraction = np.zeros(1 << CODE_BITS), 0
        codes = np.zeros(0, np.uint8)
        if weights.stored:
            fitted = np.asarray(_codebook(weights.values), np.float64)
            values[: len(fitted)] = fitted
            codes = _nearest(weights.values, values[: len(fitted)])
            weight_fraction = _fraction_bits(np.abs(values).max(), WEIGHT_BITS)
        codebook = np.rint(values * 2.0**weight_fraction).astype(np.int64)
        largest = float(np.abs(tensors.activation).max(initial=0))
        if tensors.bias is not None:
            largest = max(largest, 1.0)
        fraction = _fraction_bits(largest, ACTIVATION_BITS)
        vectors = np.rint(tensors.activation.astype(np.float64) * 2.0**fraction).astype(np.int64)
        if tensors.bias is not None:
            one = np.full((len(vectors), 1), 1 << fraction, np.int64)
            vectors = np.hstack([vectors, one])
        return vectors, weights.with_values(codes), codebook, weight_fraction + fraction

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
        counts, active = _checked_counts(counts, active_columns, self.pes)
        if bias:
            active = np.union1d(active, [counts.shape[1] - 1])
        entries = counts[:, active].T.copy()
        reads = mac.count_spmat_reads(counts, active, self.sram_row_entries)
        walk = Pass(positions=active, length=counts.shape[1], fresh=True)
        total = int(entries.sum())
        notes = ["timing only: the counts say how many entries there are, not which are padding"]
        if bias:
            notes.append(f"column {counts.shape[1] - 1} is the bias and always broadcast")
        return self._program(
            name=name,
            inputs="entries per PE and column, given",
            work=entries,
            passes=[walk],
            macs=Macs(dense=0, effectual=total, padding=0),
            spmat_reads=reads,
            stored_entries=int(counts.sum()),
            stored_pointers=counts.shape[0] * (counts.shape[1] + 1),
            outputs=None,
            output_scale=1.0,
            verify=None,
            notes=notes,
            execute=None,
        )

    def _program(
        self,
        *,
        name: str,
        inputs: str,
        work: NDArray[np.integer],
        passes: list[Pass],
        macs: Macs,
        spmat_reads: NDArray[np.integer],
        stored_entries: int,
        stored_pointers: int,
        outputs: NDArray[np.int64] | None,
        output_scale: float,
        verify: Any,
        notes: list[str],
        execute: _Work | None,
    ) -> Program:
        broadcasts = len(work)
        loads = sum(1 for walk in passes if walk.load)
        stores = sum(1 for walk in passes if walk.store)
        port_words = self.act_registers * ACTIVATION_BITS // ACT_PORT_BITS * self.pes

        def counters(timeline: Timeline) -> dict[str, int]:
            ccu = timeline.lane_times("ccu")
            return {
                "broadcasts": broadcasts,
                "queue_full_cycles": int(ccu.blocked.sum()),
                "lnzd_rows": sum(-(-walk.length // self.pes) for walk in passes),
                "ptr_reads": broadcasts * self.pes,
                "spmat_reads": int(spmat_reads.sum()),
                "entries": macs.effectual + macs.padding,
                "padding_entries": macs.padding,
                "macs": macs.effectual,
                "act_writes": macs.effectual,
                "act_sram_reads": loads * port_words,
                "act_sram_writes": stores * port_words,
            }

        def memory(timeline: Timeline) -> dict[str, Memory]:
            seconds = timeline.seconds
            entry_bits = CODE_BITS + self.index_bits
            return {
                "spmat_sram": memory_use(
                    capacity_bits=self.pes * SPMAT_KIB * KIB,
                    used_bits=stored_entries * entry_bits,
                    read_bits=int(spmat_reads.sum()) * self.sram_row_entries * entry_bits,
                    written_bits=0,
                    seconds=seconds,
                    source="published: 128 KB a PE, section IV",
                ),
                "ptr_sram": memory_use(
                    capacity_bits=self.pes * PTR_KIB * KIB,
                    used_bits=stored_pointers * POINTER_BITS,
                    read_bits=broadcasts * self.pes * 2 * POINTER_BITS,
                    written_bits=0,
                    seconds=seconds,
                    source="published: 32 KB a PE in two banks, section IV",
                ),
                "act_sram": memory_use(
                    capacity_bits=self.pes * ACT_KIB * KIB,
                    used_bits=_longest(passes) * ACTIVATION_BITS,
                    read_bits=loads * port_words * ACT_PORT_BITS,
                    written_bits=stores * port_words * ACT_PORT_BITS,
                    seconds=seconds,
                    source="published: 2 KB a PE, section IV; port width assumed",
                ),
            }

        def traffic(timeline: Timeline) -> dict[str, list[Access]]:
            row_bits = self.sram_row_entries * (CODE_BITS + self.index_bits)
            moves = {
                "spmat_sram": [Access(actor="spmat_read", read_bits=spmat_reads * row_bits)],
                "ptr_sram": [Access(actor="ptr_read", read_bits=2 * POINTER_BITS)],
            }
            if loads or stores:
                is_load = [load for walk in passes for load, cycles in
                           ((True, walk.load), (False, walk.store)) if cycles]  # fmt: skip
                whole = port_words * ACT_PORT_BITS
                bits = np.array(is_load) * whole
                moves["act_sram"] = [
                    Access(actor="act_sram", read_bits=bits, written_bits=whole - bits)
                ]
            return moves

        def energy(timeline: Timeline) -> list[EnergyPart]:
            # Power over time: the energy of a cycle stays what it was at 800 MHz.
            seconds_then = timeline.cycles / PAPER_CLOCK_HZ
            parts = [
                EnergyPart(
                    part=part,
                    energy_pj=milliwatt * 1e9 * seconds_then * self.pes,
                    basis=Basis.DERIVED,
                    source=TABLE_II,
                )
                for part, milliwatt in POWER_MW.items()
            ]
            parts.append(
                EnergyPart(
                    part="lnzd",
                    energy_pj=LNZD_NODE_MW * 1e9 * seconds_then * self.lnzd_nodes,
                    basis=Basis.ASSUMED,
                    source=f"{self.lnzd_nodes} LNZD nodes of 0.023 mW, recalled from the paper",
                )
            )
            if loads or stores:
                parts.append(
                    EnergyPart(
                        part="act_sram",
                        energy_pj=(loads + stores) * port_words * ACT_SRAM_PJ,
                        basis=Basis.DERIVED,
                        source="CACTI 7: 2 KB, 64-bit port, 45 nm, 2.76 pJ an access",
                    )
                )
            return parts

        return Program(
            netlist=self._netlist(name, work, passes, execute),
            layer=name,
            inputs=inputs,
            macs=macs,
            worker="arithmetic",
            multipliers=self.pes,
            outputs=outputs,
            output_scale=output_scale,
            verify=verify,
            counters=counters,
            memory=memory,
            energy=energy,
            traffic=traffic,
            executed=None if execute is None else execute.executed,
            notes=notes,
        )

    # ------------------------------------------------------------------ the block diagram

    def _netlist(
        self, name: str, work: NDArray[np.integer], passes: list[Pass], execute: _Work | None
    ) -> Netlist:
        """The netlist of a sequence of passes; ``work`` is entries [broadcasts, pes]."""
        broadcasts = len(work)
        fetch = _Fetch.of(passes, self.pes)
        walk = np.maximum(work, 1)  # a column without entries still takes a cycle
        streams = walk + 1  # the last entry's result, one register later
        run = execute.actions() if execute is not None else {}
        actors = [
            Actor(name="lnzd", firings=len(fetch.found), part="LNZD quadtree"),
            Actor(name="ccu", firings=broadcasts, execute=run.get("ccu"), part="CCU"),
        ]
        # A column streams through the PE one entry a cycle: each stage starts on it one register
        # after the stage before, long before that has finished.
        for stage, busy, latency, part in (
            ("ptr_read", walk, 1, "Pointer read"),
            ("spmat_read", work, 1, "Sparse matrix read"),
            ("arithmetic", work, ARITHMETIC_STAGES, "Arithmetic unit"),
            ("act_write", work, streams, "Act R/W"),
        ):
            actors.append(
                Actor(
                    name=stage,
                    lanes=self.pes,
                    firings=broadcasts,
                    busy=busy,
                    latency=latency,
                    execute=run.get(stage),
                    part=part,
                )
            )
        depth = int(max(fetch.found.max(initial=1), 1))
        channels = [
            Channel(
                name="nonzeros",
                source="lnzd",
                target="ccu",
                capacity=2 * max(self.pes, depth),
                produce=fetch.found,
            ),
            Channel(
                name="advance",
                source="ccu",
                target="lnzd",
                capacity=max(4 * self.pes, int(fetch.awaited.max(initial=1))),
                consume=fetch.awaited,
            ),
            Channel(
                name="queue",
                source="ccu",
                target="ptr_read",
                capacity=self.queue_slots - 1,
                pattern=Pattern.BROADCAST,
            ),
            *(
                Channel(name=register, source=source, target=target, capacity=latency + 1)
                for register, source, target, latency in (
                    ("pointers", "ptr_read", "spmat_read", 1),
                    ("spmat_register", "spmat_read", "arithmetic", 1),
                    ("pipeline", "arithmetic", "act_write", ARITHMETIC_STAGES),
                )
            ),
        ]
        if any(walk.load or walk.store for walk in passes):
            actor, more = _act_sram(passes, broadcasts, fetch)
            actors.append(actor)
            channels += more
        elif len(passes) > 1:
            ends = np.zeros(broadcasts, np.int64)
            begins = np.zeros(len(fetch.found), np.int64)
            for number, walk in enumerate(passes[:-1]):
                if len(walk.positions):
                    ends[fetch.last_broadcast[number]] = 1
                    begins[fetch.first_row[number + 1]] = 1
            channels.append(
                Channel(
                    name="written",
                    source="act_write",
                    target="lnzd",
                    capacity=1,
                    pattern=Pattern.GATHER,
                    produce=ends,
                    consume=begins,
                )
            )
        return Netlist(actors, channels, clock_hz=self.clock_hz, name=f"EIE {name}")

    def datasheet(self) -> list[Figure]:
        """The numbers of this configuration and where they come from."""
        published, derived, assumed = Basis.PUBLISHED, Basis.DERIVED, Basis.ASSUMED
        total = sum(POWER_MW.values()) * self.pes + LNZD_NODE_MW * self.lnzd_nodes
        return [
            Figure("PEs", f"{self.pes}", published, "section VI (64)"),
            Figure("clock", f"{self.clock_hz / 1e6:g} MHz", published, "section VI (800 MHz)"),
            Figure("peak", f"{self.pes * self.clock_hz / 1e9:g} GMAC/s", derived, "PEs x clock"),
            Figure("queue", f"{self.queue_slots - 1} usable", derived, "authors' simulator"),
            Figure("Spmat SRAM", f"{SPMAT_KIB} KiB a PE", published, "section IV"),
            Figure("Ptr SRAM", f"{PTR_KIB} KiB a PE, two banks", published, "section IV"),
            Figure("Act SRAM", f"{ACT_KIB} KiB a PE", published, "section IV"),
            Figure("Act SRAM port", f"{ACT_PORT_BITS} bits", assumed, "not published"),
            Figure("accumulator", f"{self.accumulator_bits} bits", assumed, "not published"),
            Figure("power", f"{total / 1e3:.3g} W at 800 MHz", derived, "Table II x PEs + LNZD"),
        ]


@dataclass(frozen=True, eq=False)
class _Fetch:
    """What the LNZD does in each row of N elements.

    A row's non-zeros are broadcast one a cycle; then one cycle goes to the next row - but a
    non-zero in the last place advances the row in the same cycle. So the fetch of a row waits for
    the broadcasts before it, less one if the last of them was in the last place.

    Attributes
    ----------
    found, awaited
        Non-zeros of each row; further broadcasts each row's fetch waits for.
    first_row, last_broadcast
        Of each pass.
    """

    found: NDArray[np.int64]
    awaited: NDArray[np.int64]
    first_row: list[int]
    last_broadcast: list[int]

    @classmethod
    def of(cls, passes: list[Pass], pes: int) -> _Fetch:
        found, needed, first_row, last_broadcast = [], [], [], []
        broadcasts = rows = 0
        for walk in passes:
            count = -(-walk.length // pes)
            in_row = np.bincount(walk.positions // pes, minlength=count)
            through = np.cumsum(in_row)
            in_last_place = np.zeros(count, np.int64)
            in_last_place[walk.positions[walk.positions % pes == pes - 1] // pes] = 1
            before = np.concatenate([[0], (through - in_last_place)[:-1]])
            found.append(in_row)
            needed.append(broadcasts + before)
            first_row.append(rows)
            rows += count
            broadcasts += len(walk.positions)
            last_broadcast.append(broadcasts - 1)
        awaited = np.diff(np.concatenate([[0], *needed]))
        return cls(np.concatenate(found), awaited, first_row, last_broadcast)


def _act_sram(passes: list[Pass], broadcasts: int, fetch: _Fetch) -> tuple[Actor, list[Channel]]:
    """The activation SRAM, loading the source registers before a pass and storing after one.

    All PEs move their share in lockstep, so it has one lane.
    """
    busy, after_broadcasts, after_writes, loaded = [], [], [], []
    broadcast_done = np.zeros(broadcasts, np.int64)
    written = np.zeros(broadcasts, np.int64)
    begins = np.zeros(len(fetch.found), np.int64)
    pending = 0  # passes of this stretch of rows that will have written something
    for number, walk in enumerate(passes):
        some = len(walk.positions) > 0
        if walk.load:
            waits = number > 0 and not walk.fresh and len(passes[number - 1].positions) > 0
            busy.append(walk.load)
            after_broadcasts.append(int(waits))
            after_writes.append(0)
            loaded.append(1)
            begins[fetch.first_row[number]] = 1
            if waits:
                broadcast_done[fetch.last_broadcast[number - 1]] = 1
        pending = int(some) or (0 if walk.fresh else pending)
        if walk.store:
            busy.append(walk.store)
            after_broadcasts.append(0)
            after_writes.append(pending)
            loaded.append(0)
            if pending:
                written[fetch.last_broadcast[number]] = 1
    actor = Actor(name="act_sram", firings=len(busy), busy=np.array(busy), part="Act SRAM")
    channels = [
        Channel(
            name="batch_done",
            source="ccu",
            target="act_sram",
            capacity=1,
            produce=broadcast_done,
            consume=np.array(after_broadcasts),
        ),
        Channel(
            name="written",
            source="act_write",
            target="act_sram",
            capacity=1,
            pattern=Pattern.GATHER,
            produce=written,
            consume=np.array(after_writes),
        ),
        Channel(
            name="loaded",
            source="act_sram",
            target="lnzd",
            capacity=1,
            produce=np.array(loaded),
            consume=begins,
        ),
    ]
    return actor, channels


class _Work:
    """The layer encoded and multiplied: the pass that computes is the pass that counts."""

    def __init__(
        self,
        machine: EIE,
        chunks: list[CSC],
        codebook: NDArray[np.int64],
        vectors: NDArray[np.int64],
        bias: bool,
    ) -> None:
        pes, spill = machine.pes, machine.act_spill
        self.encoded = [_encoded(chunk, machine) for chunk in chunks]
        self.codebook, self.machine = codebook, machine
        self.chunk_rows = [chunk.shape[0] for chunk in chunks]
        length = vectors.shape[1] - bias
        step = machine.registers if spill else length
        stretches = [(low, min(low + step, length)) for low in range(0, length, step)]
        charged = spill and len(stretches) * len(chunks) * len(vectors) > 1
        port = ACT_PORT_BITS // ACTIVATION_BITS
        self.passes: list[Pass] = []
        entries: list[NDArray[np.integer]] = []
        spmat_reads: list[NDArray[np.integer]] = []
        self.macs = 0
        self.tokens: list[tuple[int, int, int, int]] = []
        results = []
        self.spans: list[tuple[int, int, NDArray[np.int64], NDArray[np.int64]]] = []
        for number, vector in enumerate(vectors):
            for which, matrix in enumerate(self.encoded):
                rows = -(-self.chunk_rows[which] // pes)
                sums = np.zeros((pes, rows), np.int64)
                for low, high in stretches:
                    # The bias is a constant: it takes a column, but no place in the registers.
                    end = high + bias if high == length else high
                    columns = low + np.flatnonzero(vector[low:end])
                    taken = np.zeros((len(columns), pes), np.int32)
                    reads = np.zeros((len(columns), pes), np.int32)
                    self.macs += mac.spmv(
                        matrix.pointers,
                        matrix.codes,
                        matrix.runs,
                        codebook,
                        columns,
                        vector[columns],
                        machine.sram_row_entries,
                        sums,
                        taken,
                        reads,
                    )
                    entries.append(taken)
                    spmat_reads.append(reads)
                    self.spans.append((number, which, columns, vector[columns]))
                    loaded = -(-min(high - low, machine.registers) // pes)
                    self.passes.append(
                        Pass(
                            positions=columns - low,
                            length=end - low,
                            fresh=low == 0,
                            load=-(-loaded // port) if charged else 0,
                            store=-(-rows // port) if charged and high == length else 0,
                        )
                    )
                results.append(sums.T.reshape(-1)[: self.chunk_rows[which]])
        self.entries = np.concatenate(entries)
        self.spmat_reads = np.concatenate(spmat_reads)
        joined = np.concatenate(results).reshape(len(vectors), -1)
        self.unwrapped = joined
        self.accumulators = mac.wrap(joined, machine.accumulator_bits)
        self.sums = np.zeros(joined.shape, np.int64)

    def actions(self) -> dict[str, Any]:
        """What each block of the diagram does with a token, for ``verify="execute"``."""
        starts = np.cumsum([0] + [len(span[2]) for span in self.spans])
        pes, codebook = self.machine.pes, self.codebook

        def broadcast(lane: int, firing: int, got: dict[str, list[Any]]) -> dict[str, list[Any]]:
            if firing == 0:
                self.sums[:] = 0
            span = int(np.searchsorted(starts, firing, side="right")) - 1
            vector, which, columns, values = self.spans[span]
            place = firing - starts[span]
            token = (vector, which, int(columns[place]), int(values[place]))
            return {"queue": [token]}

        def read_pointers(lane: int, firing: int, got: dict[str, list[Any]]) -> dict[str, Any]:
            vector, which, column, value = got["queue"][0]
            low, high = self.encoded[which].pointers[lane, column : column + 2]
            return {"pointers": [(vector, which, int(low), int(high), value)]}

        def read_matrix(lane: int, firing: int, got: dict[str, list[Any]]) -> dict[str, Any]:
            vector, which, low, high, value = got["pointers"][0]
            matrix = self.encoded[which]
            return {
                "spmat_register": [
                    (vector, which, matrix.codes[low:high], matrix.runs[low:high], value)
                ]
            }

        def multiply(lane: int, firing: int, got: dict[str, list[Any]]) -> dict[str, Any]:
            vector, which, codes, runs, value = got["spmat_register"][0]
            rows = np.cumsum(runs.astype(np.int64) + 1) - 1
            kept = codes != 0
            return {"pipeline": [(vector, which, rows[kept], codebook[codes[kept]] * value)]}

        def write(lane: int, firing: int, got: dict[str, list[Any]]) -> dict[str, Any]:
            vector, which, rows, products = got["pipeline"][0]
            first = sum(self.chunk_rows[:which])
            self.sums[vector, first + rows * pes + lane] += products
            return {}

        return {
            "ccu": broadcast,
            "ptr_read": read_pointers,
            "spmat_read": read_matrix,
            "arithmetic": multiply,
            "act_write": write,
        }

    def executed(self) -> bool:
        """Whether the tokens of the last ``verify="execute"`` run gave the kernel's sums."""
        return bool((mac.wrap(self.sums, self.machine.accumulator_bits) == self.accumulators).all())


def load_counts(path: str | os.PathLike[str]) -> tuple[Any, Any, bool]:
    """Read ``counts``, ``active_columns`` and, if it is there, ``bias`` from an npz file.

    Raises
    ------
    InputError
        If it cannot be read, is no npz, or lacks a key.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in archive.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, AttributeError) as error:
        raise InputError(f"{path} must be an npz file of plain arrays: {error}") from None
    missing = [key for key in ("counts", "active_columns") if key not in arrays]
    if missing:
        raise InputError(
            f"{path} must hold the arrays 'counts' [PEs, columns] and 'active_columns'; it lacks "
            f"{' and '.join(missing)} and holds {', '.join(arrays) or 'nothing'}"
        )
    unknown = sorted(set(arrays) - {"counts", "active_columns", "bias"})
    if unknown:
        raise InputError(f"{path} holds unknown arrays: {', '.join(unknown)}; remove them")
    bias = arrays.get("bias", np.array(True))
    if bias.shape != () or bias.dtype.kind not in "biu":
        raise InputError(f"{path}: bias must be a single true or false")
    return arrays["counts"], arrays["active_columns"], bool(bias)


def _checked_counts(
    counts: NDArray[np.integer], active_columns: NDArray[np.integer], pes: int
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    for name, array, dimensions in (("counts", counts, 2), ("active_columns", active_columns, 1)):
        if array.dtype.kind not in "iu" or array.ndim != dimensions:
            raise InputError(
                f"{name} must be whole numbers in {dimensions} dimension(s), got {array.dtype} "
                f"of shape {array.shape}"
            )
    if counts.shape[0] != pes:
        raise InputError(
            f"counts has {counts.shape[0]} rows, one a PE, but the machine has {pes} PEs; "
            f"set pes to {counts.shape[0]}"
        )
    if not counts.shape[1]:
        raise InputError("counts must have at least one column, got none")
    if counts.size and (int(counts.min()) < 0 or int(counts.max()) > 2**30):
        raise InputError(f"counts must be 0 to 2^30, got {counts.min()} to {counts.max()}")
    active = np.sort(active_columns.astype(np.int64))
    if len(active) and (active[0] < 0 or active[-1] >= counts.shape[1]):
        raise InputError(
            f"active_columns must be 0 to {counts.shape[1] - 1}, got {active[0]} to {active[-1]}"
        )
    if (np.diff(active) == 0).any():
        twice = int(active[1:][np.diff(active) == 0][0])
        raise InputError(f"active_columns must name a column once, but {twice} stands there twice")
    return counts.astype(np.int32), active


def _encoded(chunk: CSC, machine: EIE) -> RelativeIndexCSC:
    # The codebook of the encoding only says which codes are weights: all but 0.
    marks = np.arange(1 << CODE_BITS)
    return RelativeIndexCSC.encode(chunk, marks, machine.pes, machine.index_bits)


def _codebook(values: NDArray[Any]) -> tuple[float, ...]:
    distinct = np.unique(values[:4096])
    if len(distinct) < 2 and len(np.unique(values)) < 2:
        return (0.0, float(distinct[0]))
    return fit_codebook(values, CODE_BITS, zero=True).entries


def _nearest(values: NDArray[Any], table: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Code of the nearest of ``table[1:]`` (ascending); code 0 is kept for zero."""
    middles = (table[1:-1] + table[2:]) / 2
    return (np.searchsorted(middles, values) + 1).astype(np.uint8)


def _fraction_bits(largest: float, bits: int) -> int:
    """Most fraction bits with which ``largest`` fits a signed number of ``bits``."""
    if largest == 0:
        return 0
    fraction = bits - 1 - int(np.ceil(np.log2(largest)))
    return fraction if np.rint(largest * 2.0**fraction) < 1 << (bits - 1) else fraction - 1


def _longest(passes: list[Pass]) -> int:
    return max(walk.length for walk in passes)


def _reference(
    codes: CSC, codebook: NDArray[np.int64], vectors: NDArray[np.int64], bias: bool
) -> NDArray[np.int64]:
    """Exact sums [vectors, rows] by dense products of blocks of columns, from the codes alone."""
    rows, cols = codes.shape
    sums = np.zeros((rows, len(vectors)))
    block = max(1, min(cols, (1 << 21) // max(rows, 1)))
    dense = np.zeros((block, rows))
    values = codebook[codes.values].astype(np.float64)
    for low in range(0, cols, block):
        high = min(low + block, cols)
        span = slice(int(codes.indptr[low]), int(codes.indptr[high]))
        dense[:] = 0
        places = np.repeat(np.arange(high - low), np.diff(codes.indptr[low : high + 1]))
        dense[places, codes.indices[span]] = values[span]
        sums += dense[: high - low].T @ vectors[:, low:high].T.astype(np.float64)
    return sums.T.astype(np.int64)
