"""What the quantized array machines have in common: from a layer to a verified, priced program.

An :class:`ArrayMachine` runs a layer as a convolution (a fully connected layer is one of a single
pixel, products of two activations are groups of one). It says which formats it computes, how
operands enter its MAC core (:meth:`ArrayMachine.operand`), how they are multiplied
(:meth:`ArrayMachine.multiply`), its timing (:mod:`.tiled` has that of most) and its energies;
:mod:`.datapath` multiplies and checks. Left out: pooling and element-wise layers.
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
    integer_operand,
    integer_products,
)
from sparqsim.architectures.arrays.energies import Point, at_point, shipped_energies
from sparqsim.architectures.arrays.folds import Dataflow
from sparqsim.architectures.arrays.scales import GroupScales, Scalings
from sparqsim.architectures.arrays.search import Objective
from sparqsim.architectures.arrays.shapes import ConvShape, Datum, Mapping
from sparqsim.architectures.arrays.shifting import Multiplier
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
from sparqsim.simulator.netlist import Netlist
from sparqsim.simulator.report import EnergyPart, Macs
from sparqsim.simulator.timeline import Timeline
from sparqsim.workloads.encoded import Coded, EncodedLayer, Role
from sparqsim.workloads.layers import Layer

KIB = 1024 * 8  # bits
PUBLISHED = "published"
# Fields that describe no machine.
_CHOICES = ("energy_table", "dram_standard", "dram_channels", "objective", "authors_model")
# Parts of an array machine's energy that are paid by the cycle.
_CYCLES = {"array static": "core_static_per_cycle", "DRAM static": "dram_static_per_cycle"}
# Real fields and their bounds, which are assumed: no circuit is slower, faster, finer or coarser.
_REAL = {
    "clock_hz": (1e3, 1e12),
    "node_nm": (1.0, 1e4),
    "dram_gbytes_per_s": (1e-6, 1e6),
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
DRAM = "dram"  # the store


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
    input_buffer_kib
        Input buffer, both halves.
    weight_buffer_kib
        Weight buffer, both halves.
    output_buffer_kib
        Output buffer, both halves.
    node_nm
        Technology.
    energy_table
        What prices a run: ``published`` is the machine's own table, else a shipped one.
    """

    published: ClassVar[EnergyTable | None] = None  # with an entry for each of Rates
    dram_energy: ClassVar[str] = "dram.ddr3"  # its entry in shipped tables
    assumed: ClassVar[frozenset[str]] = frozenset()  # fields of which nothing is published

    input_buffer_kib: int
    weight_buffer_kib: int
    output_buffer_kib: int
    dram_gbytes_per_s: float
    clock_hz: float = 500e6
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
                f"{where}.dram_gbytes_per_s must move at least a bit in a cycle of "
                f"{where}.clock_hz, {self.clock_hz:g}, got {self.bandwidth() / 1e9:g}"
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
        return self._at_node("add.int32")

    @property
    def scaler(self) -> Entry:
        """A 32-bit multiplication behind the array; at the default node that of the table."""
        return self._at_node("multiply.int32")

    def _at_node(self, name: str) -> Entry:
        then = type(self)().node_nm  # type: ignore[call-arg]
        entry = get_table("horowitz").entry(name)
        return scaling.follow(entry, [scaling.node(self.node_nm, then)])

    @property
    def point(self) -> Point:
        """What its own energies follow; those of the defaults are published."""
        return Point(
            node_nm=self.node_nm,
            clock_hz=self.clock_hz,
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
        return self.dram_gbytes_per_s * 1e9

    def of_bandwidth(self, bytes_per_s: float) -> dict[str, float]:
        """Fields that give the DRAM another bandwidth."""
        return {"dram_gbytes_per_s": bytes_per_s / 1e9}

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
        groups: GroupScales | None = None,
    ) -> Timing:
        """The netlist of a layer under a mapping, by default the best.

        With its ``work`` the firings of the netlist can execute it. ``dynamic`` outputs leave as
        sums and come back when the last of them has told the scale. ``groups`` of weights have
        scales of their own.
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
        scalings = Scalings.of(layer)
        notes, work = scalings.notes, None
        if layer.dynamic:
            notes.append(
                f"dynamic ranges: outputs leave as {self.sum_bits}-bit sums and come back to be "
                "scaled when the last of them is known"
            )
        if not layer.is_outline:
            x, w = self.operand(layer, "activations"), self.operand(layer, "weights")
            work = Work(layer, x, w, self.multiply, self.sum_bits)
            if work.wrapped:
                notes.append(
                    f"{work.wrapped} sums left the {self.sum_bits}-bit accumulators and wrapped "
                    "around"
                )
        timing = self.timing(
            shape, widths, layer.name, work=work, dynamic=layer.dynamic, groups=scalings.groups
        )
        return self.program_of(
            timing, name=layer.name, macs=layer.layer.macs, work=work, inputs=layer.source,
            notes=notes, scalings=scalings,
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
        scalings: Scalings | None = None,
    ) -> Program:
        """A program of a timing, with the numbers of its work where there are any."""
        cost, table = timing.analytic, self.energies
        slots = cost.compute_cycles // timing.repeats * timing.products_per_step

        def counters(timeline: Timeline) -> dict[str, int]:
            found = {
                "tiles": cost.tiles,
                "compute_cycles": cost.compute_cycles,
                "analytic_cycles": cost.cycles,
            }
            return found | ({} if scalings is None else scalings.counters)

        def energy(timeline: Timeline) -> list[EnergyPart]:
            dynamic = table.entry("core_dynamic_per_compute_cycle")
            parts = [priced_part("array dynamic", [(dynamic, cost.compute_cycles)])]
            for part, rate in _CYCLES.items():
                parts.append(priced_part(part, [(table.entry(rate), timeline.cycles)]))
            if scalings is not None and scalings.activation_sums:
                shares = [(self.adder, scalings.activation_sums)]
                parts.append(priced_part("sums of activations", shares))
            if scalings is not None and scalings.multiplications:
                shares = [
                    (self.scaler, scalings.multiplications), (self.adder, scalings.additions)
                ]  # fmt: skip
                parts.append(priced_part("scaling of sums", shares))
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
                name=DRAM,
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
