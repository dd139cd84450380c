"""What the quantized array machines have in common: from a layer to a verified, priced program.

An :class:`ArrayMachine` runs a layer as a convolution (a fully connected layer is one of a single
pixel): operands are quantized as the machine stores them, unfolded, multiplied by the machine's own
MAC core, summed in accumulators that start from the bias, and requantized. The tiling search
picks a mapping under the machine's rules, :func:`sparqsim.architectures.systolic.tile_netlist`
turns it into a netlist. Outputs are compared with a convolution that never unfolds, of the values
the number formats' tables give, requantized by the formula written out.

A machine says how operands are stored (:meth:`ArrayMachine.store`), how they are multiplied
(:meth:`ArrayMachine.multiply`), its rules and its energies. Left out: pooling and element-wise
layers; zero points (operands are symmetric, or unsigned where no value is negative).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from sparqsim.architectures.machine import Figure, Machine, Program, run
from sparqsim.architectures.systolic import Dataflow, streams_of, tile_netlist
from sparqsim.architectures.tiling import (
    ArrayRules,
    ConvShape,
    Cost,
    Datum,
    Drain,
    Layout,
    Loop,
    Mapping,
    Rates,
    Reuse,
    check_positive,
    check_whole,
    search,
)
from sparqsim.base import InputError
from sparqsim.simulator.energy.tables import (
    Basis,
    EnergyTable,
    Entry,
    Kind,
    Unit,
    get_table,
    table_names,
)
from sparqsim.simulator.mac import dense
from sparqsim.simulator.memory.dram import Dram
from sparqsim.simulator.netlist import Execute, Netlist
from sparqsim.simulator.report import EnergyPart, Macs, Memory, Report, Verification, memory_use
from sparqsim.simulator.timeline import Timeline
from sparqsim.simulator.traffic import Access, Traffic
from sparqsim.workloads.encodings.csc import CSC
from sparqsim.workloads.layers import Conv2d, Layer, Model
from sparqsim.workloads.quantize import quantize
from sparqsim.workloads.requantize import Multiplier, requantize
from sparqsim.workloads.tensors import LayerTensors

KIB = 1024 * 8  # bits
PUBLISHED, BUS = "published", "bus"
_CHOICES = ("energy_table", "dram_standard", "dram_channels")  # fields that describe no machine
ACCUMULATOR_LIMIT = 2**31 - 1
# The parts of an array machine's energy: its rate, and what it multiplies.
_CYCLES = {"array static": "core_static_per_cycle", "DRAM static": "dram_static_per_cycle"}
_MOVED = {
    "input buffer": ("input_buffer_read", "input_buffer_write"),
    "weight buffer": ("weight_buffer_read", "weight_buffer_write"),
    "output buffer": ("output_buffer_read", "output_buffer_write"),
    "DRAM": ("dram_read", "dram_write"),
}
# The DMAs of each operand, and whether they write the DRAM.
_DMAS = {
    Datum.INPUT: {"input_dma": False},
    Datum.WEIGHT: {"weight_dma": False},
    Datum.OUTPUT: {"psum_dma": False, "output_dma": True},
}


_ANT = "ANT authors' released simulator"
_SOLVED = f"{_ANT}: printed to 3 or 4 digits, the others solved from its per-layer energies"


def _solved(
    name: str, value: float, unit: Unit, kind: Kind, source: str = _SOLVED, node_nm: float = 28
) -> Entry:
    return Entry(
        name=name,
        value=value,
        unit=unit,
        node_nm=node_nm,
        kind=kind,
        basis=Basis.DERIVED,
        source=source,
    )


_REUSED = f"{_SOLVED}; the authors reuse processing-element power of 45 nm"
# The energies of a 28 nm array with decoders that its authors published: ANT's. OliVe and the
# plain arrays, whose authors published none, borrow them.
ANT_ENERGY = EnergyTable(
    name="ant",
    entries=(
        _solved("core_static_per_cycle", 131.715, Unit.PJ_PER_CYCLE, Kind.LOGIC, _REUSED, 45),
        _solved(
            "core_dynamic_per_compute_cycle", 573.358, Unit.PJ_PER_CYCLE, Kind.LOGIC, _REUSED, 45
        ),
        _solved("dram_static_per_cycle", 969.23, Unit.PJ_PER_CYCLE, Kind.OFF_CHIP),
        _solved("weight_buffer_read", 0.0329930, Unit.PJ_PER_BIT, Kind.MEMORY),
        _solved("weight_buffer_write", 0.0397309, Unit.PJ_PER_BIT, Kind.MEMORY),
        _solved("input_buffer_read", 0.0347047, Unit.PJ_PER_BIT, Kind.MEMORY),
        _solved("input_buffer_write", 0.04860664, Unit.PJ_PER_BIT, Kind.MEMORY),
        _solved("output_buffer_read", 0.00921705, Unit.PJ_PER_BIT, Kind.MEMORY),
        _solved("output_buffer_write", 0.01299764, Unit.PJ_PER_BIT, Kind.MEMORY),
        _solved("dram_read", 644.304 / 1024, Unit.PJ_PER_BIT, Kind.OFF_CHIP),
        _solved("dram_write", 784.104 / 1024, Unit.PJ_PER_BIT, Kind.OFF_CHIP),
    ),
)


def borrowed(table: EnergyTable, name: str, why: str) -> EnergyTable:
    """A table of another machine: every number of it becomes an assumption."""
    return EnergyTable(
        name=name,
        entries=tuple(
            msgspec.structs.replace(
                entry, basis=Basis.ASSUMED, source=f"{why}; there: {entry.source}"
            )
            for entry in table.entries
        ),
    )


@dataclass(frozen=True, eq=False, kw_only=True)
class Operand:
    """A tensor as a machine stores it.

    Attributes
    ----------
    codes : integers
        ``[batch, channels, height, width]`` or ``[out, channels of a group, kh, kw]``, as the MAC
        core takes them; 0 stands for 0.
    levels : float64, of the shape of ``codes``
        The whole numbers the codes stand for, by the format's table.
    scale : float64 [1] or [out]
        Real value of one.
    signed : bool
        Whether codes are signed integers.
    format : str
        What it is stored in, for the record.
    """

    codes: NDArray[Any]
    levels: NDArray[np.float64]
    scale: NDArray[np.float64]
    signed: bool
    format: str


@dataclass(frozen=True, eq=False, kw_only=True)
class Timing:
    """How long a layer takes on a machine: the netlist and its analytic twin.

    ``products_per_step`` is what the array multiplies in a step when it is full, ``rule`` how fill
    and drain are charged. ``capacities`` and ``used`` are bits of each buffer, by
    :class:`~sparqsim.architectures.tiling.Datum`. ``traffic`` says which firings moved the bits.
    """

    netlist: Netlist
    analytic: Cost
    products_per_step: int
    repeats: int
    capacities: tuple[int, int, int]
    used: tuple[int, int, int]
    rule: str
    traffic: Callable[[Timeline], Traffic]


class ArrayMachine(Machine, frozen=True, kw_only=True):
    """A machine around an array of multipliers; see the module.

    Attributes
    ----------
    input_buffer_kib, weight_buffer_kib, output_buffer_kib
        Both halves of each buffer.
    clock_mhz, node_nm
        Clock of the array, technology.
    energy_table
        What prices a run: ``published`` is the machine's own table, else a shipped one.
    """

    published: ClassVar[EnergyTable]  # with an entry for each of Rates
    dram_energy: ClassVar[str] = "dram.ddr3"  # its entry in shipped tables

    input_buffer_kib: int
    weight_buffer_kib: int
    output_buffer_kib: int
    clock_mhz: float = 500.0
    node_nm: float
    energy_table: str = PUBLISHED

    def __post_init__(self) -> None:
        where, choices = type(self).__name__, (PUBLISHED, *table_names())
        if self.energy_table not in choices:
            raise InputError(
                f"{where}.energy_table must be one of {', '.join(choices)}, "
                f"got {self.energy_table!r}"
            )
        for field, value in msgspec.structs.asdict(self).items():
            if field in ("clock_mhz", "node_nm"):
                check_positive(where, **{field: value})
            elif field == "dataflow":
                if not isinstance(value, Dataflow):
                    raise InputError(f"{where}.dataflow must be a Dataflow, got {value!r}")
            elif field not in ("energy_table", "dram_standard", "sparsity"):
                check_whole(where, **{field: value})

    # ------------------------------------------------------------------ what a machine says

    @property
    def multipliers_at_8_bits(self) -> int:
        """8-bit multiply-accumulates of a full array in a cycle."""
        raise NotImplementedError

    def widths(self, layer: Layer) -> tuple[int, int]:
        """Bits at which a layer's activations and weights are stored and multiplied."""
        raise NotImplementedError

    def layer_rules(self, shape: ConvShape, widths: tuple[int, int]) -> ArrayRules:
        """The rules of an event-driven run."""
        raise NotImplementedError

    def store(self, values: NDArray[Any], bits: int, *, weights: bool, groups: int) -> Operand:
        """Quantize a tensor (weights: a scale an output channel) and code it."""
        raise NotImplementedError

    def multiply(
        self, rows: NDArray[Any], columns: NDArray[Any], x: Operand, w: Operand,
        widths: tuple[int, int],
    ) -> NDArray[np.integer]:  # fmt: skip
        """Multiply codes ``[M, K]`` by ``[K, N]`` on the machine's MAC core."""
        raise NotImplementedError

    # ------------------------------------------------------------------ what follows

    @property
    def clock_hz(self) -> float:
        """Clock of the array."""
        return self.clock_mhz * 1e6

    @property
    def buffers_kib(self) -> tuple[int, int, int]:
        """Input, weight and output buffer, both halves."""
        return (self.input_buffer_kib, self.weight_buffer_kib, self.output_buffer_kib)

    @property
    def energies(self) -> EnergyTable:
        """The machine's own energies, or those of a shipped table."""
        if self.energy_table == PUBLISHED:
            return self.published
        return shipped_energies(
            self.energy_table,
            node_nm=self.node_nm,
            multipliers=self.multipliers_at_8_bits,
            buffers_kib=self.buffers_kib,
            dram=self.dram_energy,
        )

    @property
    def sum_bits(self) -> int:
        """Width of an accumulator, at most 32; sums wrap around it."""
        return dense.ACCUMULATOR_BITS

    @property
    def dram(self) -> Dram | None:
        """DRAM with rows and banks, or None for a bus."""
        return None

    @property
    def rates(self) -> Rates:
        """The energies as the tiling search takes them."""
        return Rates.of(self.energies)

    def shape_of(self, layer: Layer, batch: int) -> ConvShape:
        """The layer as tiling sees it."""
        return ConvShape.of(layer, batch=batch)

    def timing(
        self,
        shape: ConvShape,
        widths: tuple[int, int],
        name: str,
        mapping: Mapping | None = None,
        work: Work | None = None,
    ) -> Timing:
        """The netlist of a layer under a mapping, by default the best.

        With its ``work`` the firings of the netlist can execute it.
        """
        rules = self.layer_rules(shape, widths)
        chosen = mapping or search(shape, rules, self.rates)
        netlist, analytic = tile_netlist(
            shape,
            rules,
            chosen,
            clock_hz=self.clock_hz,
            name=name,
            dram=self.dram,
            actions=None if work is None else lambda cost: work.actions(shape, chosen, cost),
        )
        used = tuple(
            min(2 * room // kept.held_bits, kept.transfers) * kept.held_bits
            for room, kept in zip(rules.rooms, analytic.residences, strict=True)
        )
        return Timing(
            netlist=netlist,
            analytic=analytic,
            products_per_step=self.products_per_step(rules),
            repeats=rules.repeats,
            capacities=tuple(2 * room for room in rules.rooms),  # type: ignore[arg-type]
            used=used,  # type: ignore[arg-type]
            rule=f"{_told(rules)}; {_bandwidth(self.dram, rules, self.clock_hz)}",
            traffic=lambda timeline: tile_traffic(timeline.netlist, analytic, rules),
        )

    def products_per_step(self, rules: ArrayRules) -> int:
        """Multiplications that the full array does in a step."""
        return rules.pixels_per_step * rules.outputs_per_step * rules.reduction_per_step

    def plan(self, layer: Layer, *, batch: int = 1, mapping: Mapping | None = None) -> Program:
        """A program of which only the timing is known: shapes without tensors."""
        widths = self.widths(layer)
        shape = self.shape_of(layer, batch)
        timing = self.timing(shape, widths, layer.name, mapping)
        note = "timing only: no tensors; every multiply-accumulate of the shape counts as effectual"
        return self._program(
            name=layer.name,
            inputs="shapes alone",
            macs=shape.macs,
            effectual=shape.macs,
            timing=timing,
            work=None,
            notes=[note],
        )

    def lower(self, tensors: LayerTensors) -> Program:
        """Quantize, multiply, requantize and time a layer.

        Raises
        ------
        InputError
            If the layer has widths the machine does not multiply, or does not fit its buffers.
        """
        layer = tensors.layer
        widths = self.widths(layer)
        work = Work(self, tensors, widths)
        timing = self.timing(self.shape_of(layer, 1), widths, layer.name, work=work)
        notes = [f"activations as {work.x.format}, weights as {work.w.format}"]
        if work.wrapped:
            notes.append(
                f"{work.wrapped} sums left the {self.sum_bits}-bit accumulators and wrapped around"
            )
        return self._program(
            name=layer.name,
            inputs=tensors.source,
            macs=layer.macs,
            effectual=work.effectual,
            timing=timing,
            work=work,
            notes=notes,
            executed=None if work.carried is None else work.executed,
        )

    def _program(
        self,
        *,
        name: str,
        inputs: str,
        macs: int,
        effectual: int,
        timing: Timing,
        work: Work | None,
        notes: list[str],
        executed: Callable[[], bool] | None = None,
    ) -> Program:
        cost, table = timing.analytic, self.energies
        moved = msgspec.structs.asdict(cost.traffic)
        slots = cost.compute_cycles // timing.repeats * timing.products_per_step

        def counters(timeline: Timeline) -> dict[str, int]:
            return {
                "tiles": cost.tiles,
                "compute_cycles": cost.compute_cycles,
                "analytic_cycles": cost.cycles,
                **{f"{field}_bits": bits for field, bits in moved.items()},
            }

        def memory(timeline: Timeline) -> dict[str, Memory]:
            found = {}
            for datum in Datum:
                part = f"{datum.name.lower()}_buffer"
                found[part] = memory_use(
                    capacity_bits=timing.capacities[datum],
                    used_bits=timing.used[datum],
                    read_bits=moved[f"{part}_read"],
                    written_bits=moved[f"{part}_write"],
                    seconds=timeline.seconds,
                    source="size of the machine's configuration; traffic by the mapping",
                )
            found["dram"] = memory_use(
                capacity_bits=0,
                used_bits=0,
                read_bits=moved["dram_read"],
                written_bits=moved["dram_write"],
                seconds=timeline.seconds,
                source="no size published; traffic by the mapping",
            )
            return found

        def energy(timeline: Timeline) -> list[EnergyPart]:
            dynamic = table.entry("core_dynamic_per_compute_cycle")
            parts = [_part("array dynamic", [(dynamic, cost.compute_cycles)])]
            for part, rate in _CYCLES.items():
                parts.append(_part(part, [(table.entry(rate), timeline.cycles)]))
            for part, rates in _MOVED.items():
                parts.append(_part(part, [(table.entry(rate), moved[rate]) for rate in rates]))
            return parts

        return Program(
            netlist=timing.netlist,
            layer=name,
            inputs=inputs,
            macs=Macs(dense=macs, effectual=effectual, padding=max(0, slots - macs)),
            worker="array",
            multipliers=max(1, timing.products_per_step // timing.repeats),
            outputs=None if work is None else work.outputs,
            output_scale=1.0 if work is None else work.output_scale,
            verify=None if work is None else work.verify,
            counters=counters,
            memory=memory,
            energy=energy,
            traffic=timing.traffic,
            executed=executed,
            notes=[*notes, timing.rule],
        )

    assumed: ClassVar[frozenset[str]] = frozenset()  # fields of which nothing is published

    def datasheet(self) -> list[Figure]:
        """The configuration and the energies, each with its source."""
        figures = []
        for field, value in msgspec.structs.asdict(self).items():
            source, basis = self.title, Basis.PUBLISHED
            if field in _CHOICES:
                source, basis = "what the user chose", Basis.ASSUMED
            elif field in self.assumed:
                source, basis = "nothing published; see the module", Basis.ASSUMED
            figures.append(Figure(field, str(value), basis, source))
        return figures + [
            Figure(entry.name, f"{entry.value:.4g} {entry.unit}", entry.basis, entry.source)
            for entry in self.energies.entries
        ]


class BankedMachine(ArrayMachine, frozen=True, kw_only=True):
    """An array machine whose DRAM may have rows and banks.

    Attributes
    ----------
    dram_standard
        "bus", a server of so many bits a cycle, or the name of a DRAM standard.
    dram_channels
        Channels of that standard.
    """

    dram_standard: str = BUS
    dram_channels: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.dram_standard == BUS and self.dram_channels != 1:
            raise InputError(
                f"{type(self).__name__}.dram_channels are of a DRAM standard: name one "
                f"(dram_standard), for example 'DDR4-2400', got {self.dram_standard!r}"
            )
        _ = self.dram  # an unknown standard is told at birth

    @property
    def dram(self) -> Dram | None:
        """DRAM with rows and banks; neighbouring bursts take turns among its channels."""
        if self.dram_standard == BUS:
            return None
        mapping = "RoBaCoBg" if self.dram_channels == 1 else "RoBaCoBgCh"
        return Dram(standard=self.dram_standard, channels=self.dram_channels, mapping=mapping)


def tile_traffic(netlist: Netlist, analytic: Cost, rules: ArrayRules) -> dict[str, list[Access]]:
    """Which firings of a netlist of tiles moved the analytic model's bits.

    A DMA moves its transfers between DRAM and buffer, an equal share on each channel. What else a
    buffer reads and writes it does for the array, as much in every tile.
    """
    counted, streams = msgspec.structs.asdict(analytic.traffic), streams_of(analytic, rules)
    found: dict[str, list[Access]] = {"dram": []}
    for datum in Datum:
        buffer, bits = f"{datum.name.lower()}_buffer", streams[datum].bits
        moving = {"read": counted[f"{buffer}_read"], "write": counted[f"{buffer}_write"]}
        found[buffer] = []
        for label, stores in _DMAS[datum].items():
            actors = [actor.name for actor in netlist.actors if actor.name.startswith(label)]
            for actor in actors:
                share = bits / len(actors)
                read = Access(actor=actor, read_bits=share)
                written = Access(actor=actor, written_bits=share)
                found["dram"].append(written if stores else read)
                found[buffer].append(read if stores else written)
            if actors:
                moving["read" if stores else "write"] -= int(bits.sum())
        each = {way: total / analytic.tiles for way, total in moving.items()}
        found[buffer].append(
            Access(actor="array", read_bits=each["read"], written_bits=each["write"])
        )
    return found


def _bandwidth(dram: Dram | None, rules: ArrayRules, clock_hz: float) -> str:
    """The memory the run had, in words."""
    if dram is None:
        gigabytes = rules.dram_bits_per_cycle * clock_hz / 8e9
        return f"DRAM is a bus of {gigabytes:.4g} GB/s without latency"
    return (
        f"DRAM is {dram.channels} channel(s) of {dram.timing.name}, "
        f"{dram.peak_bytes_per_s / 1e9:.4g} GB/s at best"
    )


def _told(rules: ArrayRules) -> str:
    """How fill and drain are charged, in words."""
    told = {
        Drain.NONE: "fill and drain of the array are not in the analytic cycles",
        Drain.PER_LAYER: "fill and drain of the array are charged once a layer",
        Drain.SHORT_PASSES: "fill and drain of the array are charged once a layer; a pass takes "
        f"at least the {rules.exchange_cycles} cycles its operands or results are shifted",
        Drain.PER_PASS: "fill and drain of the array are charged every pass",
    }
    return told[rules.drain]


def _part(part: str, shares: list[tuple[Entry, int]]) -> EnergyPart:
    first = shares[0][0]
    sources = dict.fromkeys(
        f"{entry.value:.4g} {entry.unit}: {entry.source}" for entry, _ in shares
    )
    return EnergyPart(
        part=part,
        energy_pj=sum(entry.value * times for entry, times in shares),
        basis=max((entry.basis for entry, _ in shares), key=list(Basis).index),
        source=f"{'; '.join(sources)} ({first.node_nm:g} nm)",
    )


def shipped_energies(
    name: str, *, node_nm: float, multipliers: int, buffers_kib: tuple[float, float, float],
    dram: str,
) -> EnergyTable:  # fmt: skip
    """An array's rates from a shipped table, in place of its authors'.

    Parameters
    ----------
    multipliers
        8-bit multiply-accumulates of a full array in a cycle.
    buffers_kib
        Sizes of input, weight and output buffer; a write is priced as a read.
    dram
        Which DRAM of the table ``cacti-aladdin``.

    Raises
    ------
    InputError
        If there is no such table.
    """
    table = get_table(name)
    mac = table.entry("mac.int8", node_nm=node_nm)
    outside = get_table("cacti-aladdin").entry(dram)

    def renamed(entry: Entry, rate: str, unit: Unit, value: float, said: str = "") -> Entry:
        return Entry(
            name=rate,
            value=value,
            unit=unit,
            node_nm=node_nm,
            kind=entry.kind,
            basis=entry.basis,
            source=entry.source + said,
        )

    entries = [
        renamed(
            mac,
            "core_dynamic_per_compute_cycle",
            Unit.PJ_PER_CYCLE,
            mac.value * multipliers,
            f"; {multipliers} of them",
        )
    ]
    for rate in ("core_static_per_cycle", "dram_static_per_cycle"):
        entries.append(
            Entry(
                name=rate,
                value=0.0,
                unit=Unit.PJ_PER_CYCLE,
                node_nm=node_nm,
                kind=Kind.LOGIC,
                basis=Basis.ASSUMED,
                source=f"{name} has no static power of an array: left out",
            )
        )
    for part, size in zip(("input", "weight", "output"), buffers_kib, strict=True):
        sram = table.sram(capacity_kib=size, node_nm=node_nm)
        for way in ("read", "write"):
            rate = f"{part}_buffer_{way}"
            entries.append(renamed(sram, rate, Unit.PJ_PER_BIT, sram.value))
    for rate in ("dram_read", "dram_write"):
        entries.append(renamed(outside, rate, Unit.PJ_PER_BIT, outside.value))
    return EnergyTable(name=name, entries=tuple(entries))


def unfolded_rules(
    *,
    rows: int,
    columns: int,
    dataflow: Dataflow,
    bits: int,
    output_bits: int,
    buffers_kib: tuple[int, int, int],
    dram_bits_per_cycle: int,
    drain: Drain,
) -> ArrayRules:
    """A grid fed by im2col that keeps sums, weights or inputs and stores results once.

    Parameters
    ----------
    bits
        Of both operands.
    buffers_kib
        Input, weight and output buffer, both halves.
    """
    pixels, outputs, reduction, reuse = {
        Dataflow.OUTPUT_STATIONARY: (rows, columns, 1, Reuse.OUTPUT),
        Dataflow.WEIGHT_STATIONARY: (1, columns, rows, Reuse.WEIGHT),
        Dataflow.INPUT_STATIONARY: (columns, 1, rows, Reuse.INPUT),
    }[dataflow]
    rooms = [size * KIB // 2 for size in buffers_kib]
    return ArrayRules(
        pixels_per_step=pixels,
        outputs_per_step=outputs,
        reduction_per_step=reduction,
        layout=Layout.UNFOLDED_PADDED,
        reduction_granule=rows,
        outputs_padded=False,
        outputs_read_back=False,
        last_store_counted=drain is not Drain.NONE,  # ANT's model hides it
        output_granule=1,
        input_bits=bits,
        weight_bits=bits,
        output_bits=output_bits,
        input_room_bits=rooms[0],
        weight_room_bits=rooms[1],
        output_room_bits=rooms[2],
        dram_bits_per_cycle=dram_bits_per_cycle,
        reuse=reuse,
        drain=drain,
        drain_cycles=rows + columns - 1,
        exchange_cycles=rows,  # derived: a fold's sums, or its weights, move a row a cycle
        pass_is_fold=True,
    )


class Work:
    """A layer quantized, multiplied and requantized; and what it is checked against."""

    def __init__(
        self, machine: ArrayMachine, tensors: LayerTensors, widths: tuple[int, int]
    ) -> None:
        layer, self.sum_bits = tensors.layer, machine.sum_bits
        weight = tensors.weight.to_dense() if isinstance(tensors.weight, CSC) else tensors.weight
        activation, self.groups = np.asarray(tensors.activation), 1
        self.stride, self.padding, self.dilation = (1, 1), (0, 0, 0, 0), (1, 1)
        if isinstance(layer, Conv2d):
            self.groups, self.stride, self.dilation = layer.groups, layer.stride, layer.dilation
            self.padding = layer.padding  # type: ignore[assignment]
        else:  # a convolution of one pixel
            activation, weight = activation[:, :, None, None], weight[:, :, None, None]
        self.x = machine.store(activation, widths[0], weights=False, groups=self.groups)
        self.w = machine.store(weight, widths[1], weights=True, groups=self.groups)
        kernel = self.w.codes.shape[2:]
        geometry = (kernel, self.stride, self.padding, self.dilation, self.groups)
        rows = dense.unfold(self.x.codes, *geometry)
        columns = dense.unfold_weights(self.w.codes, self.groups)
        self.effectual = sum(
            dense.effectual(r, c) for r, c in zip(
                dense.unfold(self.x.levels != 0, *geometry),
                dense.unfold_weights(self.w.levels != 0, self.groups), strict=True,
            )
        )  # fmt: skip
        sums = np.stack(
            [
                machine.multiply(r, c, self.x, self.w, widths)
                for r, c in zip(rows, columns, strict=True)
            ]
        )
        out = layer.output if isinstance(layer, Conv2d) else (1, 1)
        batch = len(activation)
        scale = self.x.scale * self.w.scale  # real value of 1 in an accumulator, by channel
        self.bias = np.zeros(len(weight), np.int64)
        if tensors.bias is not None:
            units = np.rint(tensors.bias.astype(np.float64) / scale)
            limits = (-ACCUMULATOR_LIMIT, ACCUMULATOR_LIMIT)
            self.bias = np.clip(units, *limits).astype(np.int64)
        self.sums = self._biased(dense.fold_outputs(sums.astype(np.int64), batch, out))
        bits = max(widths[0], 2)
        self.low, self.high = -(2 ** (bits - 1) - 1), 2 ** (bits - 1) - 1
        if tensors.relu:
            self.low, self.high = 0, 2**bits - 1
        real = self.sums * scale[:, None, None]
        largest = float(real.max(initial=0) if tensors.relu else np.abs(real).max(initial=0))
        self.output_scale = largest / self.high if largest > 0 else 1.0
        self.multipliers = [
            Multiplier.of(float(one) / self.output_scale)
            for one in np.broadcast_to(scale, (len(weight),))
        ]
        last = np.moveaxis(self.sums, 1, -1)
        found = requantize(last, self.multipliers, 0, self.low, self.high)
        self.outputs = self._shaped(np.moveaxis(found, -1, 1), layer)
        self.layer = layer
        self._reference: NDArray[np.int64] | None = None
        self.carried: NDArray[np.int64] | None = None  # sums that tokens carried to the DRAM

    def _biased(self, sums: NDArray[np.int64]) -> NDArray[np.int64]:
        return dense.wrap(sums + self.bias[:, None, None], self.sum_bits)

    def _shaped(self, values: NDArray[Any], layer: Layer) -> NDArray[Any]:
        return values if isinstance(layer, Conv2d) else values[:, :, 0, 0]

    @property
    def exact(self) -> NDArray[np.int64]:
        """The sums of the reference, before they wrap; ``[batch, out, height, width]``."""
        if self._reference is None:
            products = dense.convolve_levels(
                self.x.levels, self.w.levels, self.stride, self.padding, self.dilation, self.groups
            )
            self._reference = products.astype(np.int64) + self.bias[:, None, None]
        return self._reference

    @property
    def wrapped(self) -> int:
        """Sums beyond the accumulators; needs no reference where none can be so large."""
        depth = int(np.prod(self.w.levels.shape[1:]))
        bound = np.abs(self.x.levels).max(initial=0) * np.abs(self.w.levels).max(initial=0) * depth
        if bound + np.abs(self.bias).max(initial=0) < 2 ** (self.sum_bits - 1):
            return 0
        return int(np.count_nonzero(self.exact != dense.wrap(self.exact, self.sum_bits)))

    def actions(self, shape: ConvShape, mapping: Mapping, cost: Cost) -> dict[str, Execute]:
        """What the actors of a netlist of tiles do with their tokens, for ``verify="execute"``.

        The array multiplies the blocks its tokens name, whatever they are; the sums of a block of
        outputs travel with its token to the output DMA, which adds them in the DRAM.
        """
        geometry = (self.w.levels.shape[2:], self.stride, self.padding, self.dilation, self.groups)
        image = (shape.batch, shape.out_height, shape.out_width)
        depth = (shape.taps, shape.in_channels)
        self.carried = np.zeros(0, np.int64)
        trips = mapping.trips(shape)
        counts = (shape.groups, *(trips[loop] for loop in mapping.order))
        each = [cost.tiles // kept.transfers for kept in cost.residences]
        held: dict[Datum, tuple[int, int]] = {}
        operands: list[NDArray[np.float64]] = []  # unfolded when a run begins
        block: list[tuple[Any, NDArray[np.int64]]] = []

        def spans(tile: int) -> dict[Loop | None, slice]:
            """Where a tile lies: a slice a loop, and of the groups under None."""
            place = np.unravel_index(tile, counts)
            found: dict[Loop | None, slice] = {None: slice(int(place[0]), int(place[0]) + 1)}
            for loop, at in zip(mapping.order, place[1:], strict=True):
                size = mapping.tile.sizes[loop]
                found[loop] = slice(int(at) * size, min((int(at) + 1) * size, shape.extents[loop]))
            return found

        def pixels(span: dict[Loop | None, slice]) -> tuple[slice, ...]:
            return tuple(span[loop] for loop in (None, Loop.BATCH, Loop.ROWS, Loop.COLUMNS))

        def array(lane: int, firing: int, got: dict[str, list[Any]]) -> dict[str, list[Any]]:
            if firing == 0:
                rows = dense.unfold(self.x.levels, *geometry)
                columns = dense.unfold_weights(self.w.levels, self.groups)
                operands[:] = [
                    rows.reshape(self.groups, *image, *depth),
                    columns.reshape(self.groups, *depth, shape.out_channels),
                ]
                self.carried = np.zeros((self.groups, *image, shape.out_channels), np.int64)
                block.clear()
            assert self.carried is not None
            for name, datum in (("inputs", Datum.INPUT), ("weights", Datum.WEIGHT)):
                for first in got.get(name, []):
                    held[datum] = (first, firing)
            x, w = (spans(first + firing - since) for first, since in
                    (held[Datum.INPUT], held[Datum.WEIGHT]))  # fmt: skip
            left = operands[0][(*pixels(x), slice(None), x[Loop.INPUTS])]
            right = operands[1][w[None], :, w[Loop.INPUTS], w[Loop.OUTPUTS]]
            own = spans(firing)
            where = (*pixels(own), own[Loop.OUTPUTS])
            sums = np.zeros(self.carried[where].shape, np.int64)
            if left.shape[:-2] == sums.shape[:-1] and left.shape[-2:] == right.shape[1:3]:
                # A block of another shape, from a token that lost its way, makes nothing.
                sums += np.tensordot(left, right[0], axes=([-2, -1], [0, 1])).astype(np.int64)
            block.append((where, sums))
            if (firing + 1) % each[Datum.OUTPUT]:
                return {}
            done = list(block)
            block.clear()
            return {"sums": [done]}

        def store(lane: int, firing: int, got: dict[str, list[Any]]) -> dict[str, list[Any]]:
            assert self.carried is not None
            for where, sums in got["outputs"][0]:
                self.carried[where] += sums
            return {}

        return {
            "array": array,
            "drain": lambda lane, firing, got: {"drained": got["sums"]},
            "post": lambda lane, firing, got: {"outputs": got["drained"]},
            "output_dma": store,
        }

    def executed(self) -> bool:
        """Whether the tokens of the last ``verify="execute"`` run carried the kernel's sums."""
        if self.carried is None or not self.carried.size:
            return False
        batch = len(self.sums)
        sums = self.carried.reshape(self.groups, -1, self.carried.shape[-1])
        return np.array_equal(
            self._biased(dense.fold_outputs(sums, batch, self.sums.shape[2:])), self.sums
        )

    def verify(self) -> Verification:
        """Compare with the reference, bit by bit."""
        expected = self._shaped(
            requantized(
                dense.wrap(self.exact, self.sum_bits), self.multipliers, self.low, self.high
            ),
            self.layer,
        )
        mismatches = int(np.count_nonzero(self.outputs != expected))
        return Verification(
            status="mismatch" if mismatches else "exact",
            outputs=self.outputs.size,
            mismatches=mismatches,
            against="tap-by-tap convolution of decoded values in floating point, requantized",
        )


def requantized(
    sums: NDArray[np.int64], multipliers: list[Multiplier], low: int, high: int
) -> NDArray[np.int64]:
    """Requantize ``[batch, channels, ...]`` by the definition, for checks.

    A doubling high product rounded to the nearest, then a rounded division, half away from zero.
    """
    shape = (-1, *(1,) * (sums.ndim - 2))
    factor = np.array([m.m0_q31 for m in multipliers], np.int64).reshape(shape)
    right = np.array([m.right_shift for m in multipliers], np.int64).reshape(shape)
    left = np.minimum(np.maximum(-right, 0), 31)
    held = np.clip(sums << left, -(2**31), 2**31 - 1)
    product = held * factor
    nudged = product + np.where(product >= 0, 2**30, 1 - 2**30)
    high_part = np.sign(nudged) * (np.abs(nudged) // 2**31)
    divisor = np.int64(1) << np.minimum(np.maximum(right, 0), 40)
    rounded = np.sign(high_part) * ((2 * np.abs(high_part) + divisor) // (2 * divisor))
    return np.clip(rounded, low, high)


@dataclass(frozen=True, eq=False)
class LayerRun:
    """One layer of a network; ``like`` names the identical layer that was simulated for it."""

    layer: Layer
    report: Report
    like: str | None = None


def run_network(
    machine: ArrayMachine, model: Model, *, batch: int = 1, engine: str = "compiled"
) -> list[LayerRun]:
    """Time every layer of a network from its shapes; identical layers are simulated once.

    Parameters
    ----------
    batch
        Multiplies the batch of every layer.

    Returns
    -------
    list of LayerRun
        A row a layer of the table; ``layer.repeat`` says how often it runs.
    """
    seen: dict[Any, LayerRun] = {}
    found = []
    for layer in model.layers:
        key = (machine.shape_of(layer, batch), machine.widths(layer))
        if key in seen:
            report = msgspec.structs.replace(seen[key].report, layer=layer.name)
            found.append(LayerRun(layer, report, seen[key].layer.name))
            continue
        program = machine.plan(layer, batch=batch)
        seen[key] = LayerRun(layer, run(machine, program, engine=engine, record="summary").report)
        found.append(seen[key])
    return found


def total_cycles(runs: list[LayerRun]) -> int:
    """Cycles of a network, layer after layer."""
    return sum(each.report.cycles * each.layer.repeat for each in runs)


def total_energy_pj(runs: list[LayerRun]) -> float:
    """Energy of a network."""
    return sum(each.report.energy.total_pj * each.layer.repeat for each in runs)


def stored_integers(values: NDArray[Any], bits: int, *, weights: bool) -> Operand:
    """Symmetric integers, unsigned where no activation is negative."""
    signed = weights or bool(values.min() < 0)
    name = f"int{bits}_{'signed' if signed else 'unsigned'}"
    stored = quantize(values, name, axis=0 if weights else None)
    levels = stored.integers()
    return Operand(
        codes=levels.astype(np.int32),
        levels=levels.astype(np.float64),
        scale=stored.scale.astype(np.float64),
        signed=signed,
        format=name,
    )


def four_or_eight(machine: str, layer: Layer, bits: int) -> tuple[int, int]:
    """Widths of arrays of 4-bit elements and gangs: 8 where either operand needs more than 4.

    ``bits`` is what an operand has of which the layer says nothing.

    Raises
    ------
    InputError
        If 8 bits are not enough.
    """
    widest = max(layer.activation_bits or bits, layer.weight_bits or bits)
    if widest > 8:
        raise InputError(f"layer {layer.name!r}: {machine} computes at 4 or 8 bits, got {widest}")
    return (4, 4) if widest <= 4 else (8, 8)
