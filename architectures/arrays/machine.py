"""What the quantized array machines have in common: from a layer to a verified, priced program.

An :class:`ArrayMachine` runs a layer as a convolution (a fully connected layer is one of a single
pixel, products of two activations are groups of one). It says which formats it computes, how
operands enter its MAC core (:meth:`ArrayMachine.operand`), how they are multiplied
(:meth:`ArrayMachine.multiply`) and its energies; :mod:`.datapath` multiplies and checks. A
:class:`TiledMachine` says its rules besides; the search picks a mapping under them
(:mod:`.search`), and :func:`.tiles.tile_netlist` turns it into a netlist. Left out: pooling and
element-wise layers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import msgspec
import numpy as np
from numpy.typing import NDArray

from sparqsim.architectures.account import Account, Port, Store, priced_part
from sparqsim.architectures.arrays.cost import Cost, Rates
from sparqsim.architectures.arrays.datapath import (
    Multiplied,
    Operand,
    Work,
    activation_sum_note,
    integer_operand,
    integer_products,
)
from sparqsim.architectures.arrays.energies import Point, at_point, shipped_energies, with_dram
from sparqsim.architectures.arrays.folds import Dataflow
from sparqsim.architectures.arrays.memory import with_banks
from sparqsim.architectures.arrays.rules import ArrayRules, bandwidth, told
from sparqsim.architectures.arrays.search import Objective, best_mapping
from sparqsim.architectures.arrays.shapes import ConvShape, Datum, Mapping
from sparqsim.architectures.arrays.shifting import Multiplier
from sparqsim.architectures.arrays.tiles import TiledNetlist, tile_netlist
from sparqsim.architectures.checks import (
    MOST_KIB,
    MOST_SIDE,
    MOST_WHOLE,
    check_positive,
    check_whole,
)
from sparqsim.architectures.machine import Figure, Machine, Peak, Program
from sparqsim.base import InputError
from sparqsim.simulator.energy import scaling
from sparqsim.simulator.energy.tables import Basis, EnergyTable, Entry, get_table, table_names
from sparqsim.simulator.mac import dense
from sparqsim.simulator.memory.dram import Dram
from sparqsim.simulator.netlist import Netlist
from sparqsim.simulator.report import EnergyPart, Macs
from sparqsim.simulator.timeline import Timeline
from sparqsim.workloads.encoded import Coded, EncodedLayer, Role
from sparqsim.workloads.layers import Layer

KIB = 1024 * 8  # bits
PUBLISHED, BUS = "published", "bus"
# Fields that describe no machine.
_CHOICES = ("energy_table", "dram_standard", "dram_channels", "objective", "authors_model")
# Parts of an array machine's energy that are paid by the cycle.
_CYCLES = {"array static": "core_static_per_cycle", "DRAM static": "dram_static_per_cycle"}
# Real fields and their bounds, which are assumed: no circuit is slower, faster, finer or coarser.
_REAL = {
    "clock_mhz": (1e-3, 1e6),
    "dram_clock_mhz": (1e-3, 1e6),
    "node_nm": (1.0, 1e4),
    "memory_gbytes_per_s": (1e-6, 1e6),
}
_SIDES = ("rows", "columns", "side_at_8_bits", "tn")
_KINDS: dict[str, type] = {
    "energy_table": str,
    "dram_standard": str,
    "sparsity": str,
    "dataflow": Dataflow,
    "multiplier": Multiplier,
    "objective": Objective,
    "authors_model": bool,
}
_DRAM = "dram"


def _most(field: str) -> int:
    """The most that a whole field may be."""
    if field.endswith("_kib"):
        return MOST_KIB
    return MOST_SIDE if field in _SIDES else MOST_WHOLE


@dataclass(frozen=True, eq=False, kw_only=True)
class Timing:
    """How long a layer takes on a machine: the netlist and its analytic twin.

    ``products_per_step`` is what the array multiplies in a step when it is full, ``multiplied`` the
    products it does in all, ``rule`` how fill and drain are charged. ``capacities`` and ``used``
    are bits of each buffer, by :class:`~.shapes.Datum`; ``ports`` say which firings move whose
    bits.
    """

    netlist: Netlist
    analytic: Cost
    products_per_step: int
    multiplied: int
    repeats: int
    capacities: tuple[int, int, int]
    used: tuple[int, int, int]
    rule: str
    ports: tuple[Port, ...]


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

    published: ClassVar[EnergyTable | None] = None  # with an entry for each of Rates
    dram_energy: ClassVar[str] = "dram.ddr3"  # its entry in shipped tables
    assumed: ClassVar[frozenset[str]] = frozenset()  # fields of which nothing is published

    input_buffer_kib: int
    weight_buffer_kib: int
    output_buffer_kib: int
    clock_mhz: float = 500.0
    node_nm: float
    energy_table: str = PUBLISHED

    def __post_init__(self) -> None:
        where = type(self).__name__
        choices = ([] if self.published is None else [PUBLISHED]) + table_names()
        if self.energy_table not in choices:
            raise InputError(
                f"{where}.energy_table must be one of {', '.join(choices)}"
                + (" (no energies of its own are published)" if self.published is None else "")
                + f", got {self.energy_table!r}"
            )
        for field, value in msgspec.structs.asdict(self).items():
            if field in _REAL:
                check_positive(where, *_REAL[field], **{field: value})
            elif field in _KINDS:
                if not isinstance(value, _KINDS[field]):
                    kind = _KINDS[field].__name__
                    raise InputError(f"{where}.{field} must be a {kind}, got {value!r}")
            else:
                check_whole(where, most=_most(field), **{field: value})
        if 8 * self.bandwidth() < self.clock_hz:
            raise InputError(
                f"{where}.{', '.join(self.of_bandwidth(1.0))}: the DRAM must move at least a bit "
                f"in a cycle of {where}.clock_mhz, {self.clock_mhz:g}, got {self.bandwidth():g} "
                "bytes a second"
            )

    # ------------------------------------------------------------------ what a machine says

    @property
    def multipliers_at_8_bits(self) -> float:
        """8-bit multiply-accumulates of a full array in a cycle."""
        raise NotImplementedError

    @property
    def port_bits(self) -> tuple[float, float, float]:
        """What the array moves in a cycle at the input, weight and output buffer."""
        raise NotImplementedError

    def operand(self, layer: EncodedLayer, role: Role) -> Operand:
        """An operand as it enters the MAC core."""
        return integer_operand(layer, role)

    def multiply(
        self, rows: NDArray[Any], columns: NDArray[Any], x: Operand, w: Operand
    ) -> NDArray[np.integer]:
        """Multiply codes ``[M, K]`` by ``[K, N]`` on the machine's MAC core."""
        return integer_products(rows, columns, x, w)

    def published_widths(self, layer: Layer) -> tuple[int, int]:
        """Bits of activations and weights where a table of layers names them, else its own."""
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
        """The machine's own energies as they follow its fields, or those of a shipped table."""
        if self.energy_table == PUBLISHED:
            assert self.published is not None
            return at_point(self.published, self.point, type(self)().point)  # type: ignore[call-arg]
        return shipped_energies(
            self.energy_table,
            node_nm=self.node_nm,
            multipliers=self.multipliers_at_8_bits,
            buffers_kib=self.buffers_kib,
            dram=self.dram_energy,
        )

    @property
    def adder(self) -> Entry:
        """A 32-bit addition at the array's border; at the default node that of the table."""
        then = type(self)().node_nm  # type: ignore[call-arg]
        entry = get_table("horowitz").entry("add.int32")
        return scaling.follow(entry, [scaling.node(self.node_nm, then)])

    @property
    def point(self) -> Point:
        """What its own energies follow; those of the defaults are published."""
        return Point(
            node_nm=self.node_nm,
            clock_mhz=self.clock_mhz,
            multipliers=self.multipliers_at_8_bits,
            buffers_kib=self.buffers_kib,
            port_bits=self.port_bits,
        )

    @property
    def sum_bits(self) -> int:
        """Width of an accumulator, at most 32; sums wrap around it."""
        return dense.ACCUMULATOR_BITS

    def bandwidth(self) -> float:
        """Bytes a second of the DRAM."""
        raise NotImplementedError

    def of_bandwidth(self, bytes_per_s: float) -> dict[str, float]:
        """Fields that give the DRAM another bandwidth."""
        raise NotImplementedError

    def peak(self) -> Peak:
        """Of the full array on 8-bit operands."""
        macs = self.multipliers_at_8_bits * self.clock_hz
        return Peak(macs_per_s=macs, operands="8 x 8 bits")

    def resized(self, *, macs_per_s: float | None = None, bandwidth: float | None = None) -> Self:
        """An array of about the same shape, or another bandwidth; buffers stay."""
        fields: dict[str, float] = {}
        if macs_per_s is not None:
            share = macs_per_s / self.peak().macs_per_s
            given = msgspec.structs.asdict(self)
            for side in ("side_at_8_bits", "rows"):
                if side in given:
                    fields[side] = max(1, round(given[side] * math.sqrt(share)))
            if "columns" in given:
                columns = given["columns"] * share * given["rows"] / fields["rows"]
                fields["columns"] = max(1, round(columns))
        if bandwidth is not None:
            fields |= self.of_bandwidth(bandwidth)
        return msgspec.structs.replace(self, **fields)

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
        work: Multiplied | None = None,
        dynamic: bool = False,
    ) -> Timing:
        """The netlist of a layer under a mapping, by default the best.

        With its ``work`` the firings of the netlist can execute it. ``dynamic`` outputs leave as
        sums and come back when the last of them has told the scale.
        """
        raise NotImplementedError

    def plan(self, layer: Layer, *, batch: int = 1, mapping: Mapping | None = None) -> Program:
        """The timing of a shape at the widths its table publishes, under a mapping if one is given.

        For the authors' tables, which have mappings and batches of their own.
        """
        widths = self.published_widths(layer)
        shape = self.shape_of(layer, batch)
        timing = self.timing(shape, widths, layer.name, mapping)
        note = "timing only: no tensors; every product that is multiplied counts as effectual"
        return self.program_of(timing, name=layer.name, macs=shape.macs, notes=[note])

    def lower(self, layer: EncodedLayer) -> Program:
        """Multiply, requantize and time a layer whose operands are in formats it computes.

        Raises
        ------
        InputError
            If it does not fit the buffers.
        """
        assert isinstance(layer.weight, Coded) and isinstance(layer.activation, Coded)
        shape, widths = self.shape_of(layer.layer, 1), self.stored_widths(layer)
        notes, work = [], None
        if layer.dynamic:
            notes.append(
                f"dynamic ranges: outputs leave as {self.sum_bits}-bit sums and come back to be "
                "scaled when the last of them is known"
            )
        if not layer.is_outline:
            x, w = self.operand(layer, "activations"), self.operand(layer, "weights")
            work = Work(layer, x, w, self.multiply, self.sum_bits)
            notes += activation_sum_note(work)
            if work.wrapped:
                notes.append(
                    f"{work.wrapped} sums left the {self.sum_bits}-bit accumulators and wrapped "
                    "around"
                )
        timing = self.timing(shape, widths, layer.name, work=work, dynamic=layer.dynamic)
        return self.program_of(
            timing, name=layer.name, macs=layer.layer.macs, work=work, inputs=layer.source,
            notes=notes,
        )  # fmt: skip

    def stored_widths(self, layer: EncodedLayer) -> tuple[int, int]:
        """Bits at which activations and weights are stored and multiplied."""
        assert isinstance(layer.weight, Coded) and isinstance(layer.activation, Coded)
        return layer.activation.bits, layer.weight.bits

    def program_of(
        self,
        timing: Timing,
        *,
        name: str,
        macs: int,
        work: Multiplied | None = None,
        inputs: str = "shapes alone",
        notes: list[str],
    ) -> Program:
        """A program of a timing, with the numbers of its work where there are any."""
        cost, table = timing.analytic, self.energies
        slots = cost.compute_cycles // timing.repeats * timing.products_per_step
        sums = 0 if work is None else work.activation_sums

        def counters(timeline: Timeline) -> dict[str, int]:
            found = {
                "tiles": cost.tiles,
                "compute_cycles": cost.compute_cycles,
                "analytic_cycles": cost.cycles,
            }
            return found | ({"activation_sum_additions": sums} if sums else {})

        def energy(timeline: Timeline) -> list[EnergyPart]:
            dynamic = table.entry("core_dynamic_per_compute_cycle")
            parts = [priced_part("array dynamic", [(dynamic, cost.compute_cycles)])]
            for part, rate in _CYCLES.items():
                parts.append(priced_part(part, [(table.entry(rate), timeline.cycles)]))
            if sums:
                parts.append(priced_part("sums of activations", [(self.adder, sums)]))
            return parts

        return Program(
            netlist=timing.netlist,
            layer=name,
            inputs=inputs,
            macs=Macs(
                dense=macs,
                effectual=timing.multiplied if work is None else work.effectual,
                padding=max(0, slots - timing.multiplied),
            ),
            worker="array",
            multipliers=max(1, timing.products_per_step // timing.repeats),
            account=Account(self._stores(timing), timing.ports),
            outputs=None if work is None else work.outputs,
            output_scale=1.0 if work is None else work.output_scale,
            output_zero=0 if work is None else work.output_zero,
            lost_steps=0.0 if work is None else work.lost_steps,
            verify=None if work is None else work.verify,
            counters=counters,
            energy=energy,
            executed=None if work is None or work.tokens is None else work.executed,
            notes=[*notes, timing.rule],
        )

    def _stores(self, timing: Timing) -> list[Store]:
        """The three buffers and the DRAM, with what a bit costs."""
        table = self.energies
        found = [
            Store(
                name=f"{datum.name.lower()}_buffer",
                part=f"{datum.name.lower()} buffer",
                capacity_bits=timing.capacities[datum],
                used_bits=timing.used[datum],
                source="size of the machine's configuration; traffic by the mapping",
                read=table.entry(f"{datum.name.lower()}_buffer_read"),
                write=table.entry(f"{datum.name.lower()}_buffer_write"),
            )
            for datum in Datum
        ]
        found.append(
            Store(
                name=_DRAM,
                part="DRAM",
                source="no size published; traffic by the mapping",
                read=table.entry("dram_read"),
                write=table.entry("dram_write"),
            )
        )
        return found

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


class TiledMachine(ArrayMachine, frozen=True, kw_only=True):
    """An array machine whose mapping is searched for.

    Attributes
    ----------
    objective
        What a mapping is chosen by: cycles, energy, or their product (edp).
    """

    objective: Objective = Objective.CYCLES

    @property
    def rates(self) -> Rates:
        """The energies as the tiling search takes them.

        Raises
        ------
        InputError
            If the objective needs energies that are not known.
        """
        missing = [entry for entry in self.energies.entries if not entry.is_known]
        if missing and self.objective is not Objective.CYCLES:
            raise InputError(
                f"{self.name}.objective {self.objective.value} needs every energy, but "
                f"{missing[0].name} is {missing[0].source}; choose cycles"
            )
        return super().rates

    def layer_rules(self, shape: ConvShape, widths: tuple[int, int]) -> ArrayRules:
        """The rules of a run, with activations and weights of those bits."""
        raise NotImplementedError

    @property
    def dram(self) -> Dram | None:
        """DRAM with rows and banks, or None for a bus."""
        return None

    @property
    def dram_bus(self) -> tuple[int, int]:
        """What the DRAM moves as a bus: bits, and in how many cycles of the array."""
        return bandwidth(self.bandwidth(), self.clock_hz)

    @property
    def rooms(self) -> tuple[int, int, int]:
        """Usable bits of each buffer for what is in work: half of it."""
        inputs, weights, outputs = (size * KIB // 2 for size in self.buffers_kib)
        return inputs, weights, outputs

    def timing(
        self,
        shape: ConvShape,
        widths: tuple[int, int],
        name: str,
        mapping: Mapping | None = None,
        work: Multiplied | None = None,
        dynamic: bool = False,
    ) -> Timing:
        """The netlist of a layer under a mapping, by default the best."""
        rules = self.layer_rules(shape, widths)
        if self.dram is not None:
            rules = with_banks(rules, self.dram, self.clock_hz)
        rescale = None
        if dynamic:
            rescale = (self.sum_bits, rules.output_bits)
            rules = msgspec.structs.replace(rules, output_bits=self.sum_bits)
        chosen = mapping or best_mapping(
            shape, rules, self.rates, self.objective, self.clock_hz, self.dram
        )
        tiled = tile_netlist(
            shape,
            rules,
            chosen,
            clock_hz=self.clock_hz,
            name=name,
            dram=self.dram,
            actions=None if work is None else work.actions,
            rescale=rescale,
        )
        inputs, weights, outputs = (kept.used_bits for kept in tiled.analytic.residences)
        return Timing(
            netlist=tiled.netlist,
            analytic=tiled.analytic,
            products_per_step=self.products_per_step(rules),
            multiplied=shape.macs * rules.weights_of_group // rules.weight_group,
            repeats=rules.repeats,
            capacities=tuple(2 * room for room in rules.rooms),  # type: ignore[arg-type]
            used=(inputs, weights, outputs),
            rule=f"{told(rules)}; {self._memory()}",
            ports=tile_ports(tiled),
        )

    def products_per_step(self, rules: ArrayRules) -> int:
        """Multiplications that the full array does in a step."""
        places = rules.pixels_per_step * rules.outputs_per_step * rules.reduction_per_step
        return places * rules.weights_of_group // rules.weight_group

    def _memory(self) -> str:
        """The memory the run had, in words."""
        if self.dram is None:
            return f"DRAM is a bus of {self.bandwidth() / 1e9:.4g} GB/s without latency"
        return (
            f"DRAM is {self.dram.channels} channel(s) of {self.dram.timing.name}, "
            f"{self.dram.peak_bytes_per_s / 1e9:.4g} GB/s at best"
        )


class BankedMachine(TiledMachine, frozen=True, kw_only=True):
    """An array machine whose DRAM may have rows and banks.

    Attributes
    ----------
    dram_bits_per_cycle, dram_clock_mhz
        Width of the DRAM's bus, and its clock, which is not the array's.
    dram_standard
        "bus", a server of that, or the name of a DRAM standard.
    dram_channels
        Channels of that standard.
    """

    dram_bits_per_cycle: int
    dram_clock_mhz: float = 500.0
    dram_standard: str = BUS
    dram_channels: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        where = type(self).__name__
        if self.dram_standard == BUS:
            if self.dram_channels != 1:
                raise InputError(
                    f"{where}.dram_channels are of a DRAM standard: name one (dram_standard), for "
                    f"example 'DDR4-2400', got {self.dram_standard!r}"
                )
            return
        for field in ("dram_bits_per_cycle", "dram_clock_mhz"):
            if getattr(self, field) != _default(type(self), field):
                raise InputError(
                    f"{where}.{field} is of a bus, but {self.dram_standard} has its own: leave "
                    "one of them out, or choose dram_channels"
                )

    @property
    def energies(self) -> EnergyTable:
        """As of any array; a DRAM standard has an energy of its own."""
        table = super().energies
        return table if self.dram_standard == BUS else with_dram(table, self.dram_standard)

    @property
    def dram(self) -> Dram | None:
        """DRAM with rows and banks; neighbouring bursts take turns among its channels."""
        if self.dram_standard == BUS:
            return None
        mapping = "RoBaCoBg" if self.dram_channels == 1 else "RoBaCoBgCh"
        return Dram(standard=self.dram_standard, channels=self.dram_channels, mapping=mapping)

    def bandwidth(self) -> float:
        """Bytes a second of the DRAM; of a standard, if its data buses never rested."""
        if self.dram is not None:
            return self.dram.peak_bytes_per_s
        return self.dram_bits_per_cycle * self.dram_clock_mhz * 1e6 / 8

    def of_bandwidth(self, bytes_per_s: float) -> dict[str, float]:
        """Another width of the bus."""
        if self.dram is not None:
            raise InputError(
                f"the bandwidth of {self.name} is that of its DRAM standard; choose "
                "dram_channels, or leave dram_standard out"
            )
        return {"dram_bits_per_cycle": max(1, round(8e-6 * bytes_per_s / self.dram_clock_mhz))}


def _default(kind: type[msgspec.Struct], field: str) -> object:
    return next(each.default for each in msgspec.structs.fields(kind) if each.name == field)


def tile_ports(tiled: TiledNetlist) -> tuple[Port, ...]:
    """Which firings of a netlist of tiles move the closed form's bits.

    A DMA moves its transfers between DRAM and buffer, an equal share on each channel. What else a
    buffer reads and writes it does for the array, as much in every tile.
    """
    counted = msgspec.structs.asdict(tiled.analytic.traffic)
    ports = []
    for datum in Datum:
        buffer = f"{datum.name.lower()}_buffer"
        left = {"read": counted[f"{buffer}_read"], "write": counted[f"{buffer}_write"]}
        for dma in tiled.dmas:
            if dma.datum is not datum:
                continue
            one, other = (buffer, _DRAM) if dma.stores else (_DRAM, buffer)
            many = len(dma.actors)
            share = dma.bits if many == 1 else np.asarray(dma.bits) / many
            for actor in dma.actors:
                ports.append(Port(store=one, actor=actor, read_bits=share))
                ports.append(Port(store=other, actor=actor, written_bits=share))
            left["read" if dma.stores else "write"] -= dma.bits.total()
        each = {way: total / tiled.analytic.tiles for way, total in left.items()}
        ports.append(
            Port(store=buffer, actor="array", read_bits=each["read"], written_bits=each["write"])
        )
    for way, actors, moved in tiled.rescales:
        for actor in actors:
            each_firing = moved / len(actors) / tiled.netlist.actor(actor).count
            ports.append(Port(store=_DRAM, actor=actor, **{f"{way}_bits": each_firing}))
    return tuple(ports)


INT8 = ("int8_unsigned", "int8_signed")


def wider_than(layer: EncodedLayer, bits: int) -> bool:
    """Whether either operand has wider codes."""
    return any(
        not isinstance(tensor, Coded) or tensor.bits > bits
        for tensor in (layer.weight, layer.activation)
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
