"""Eyeriss v1: the row-stationary dense accelerator (Chen et al., ISCA 2016 and JSSC 2017).

12 x 14 processing elements (PEs) share a global buffer (GLB) of 108 KB. A PE holds a *row* of a
filter in its scratchpad and slides it over a row of the input: a one-dimensional convolution. PEs
stacked R high (one a filter row) add their partial sums upwards to a row of the output; e such
columns make e output rows: the R x e *logical set*. Filter rows are shared along rows, input rows
along diagonals. ``r x t`` sets (r on other channels, t on other filters) are placed on the grid; a
set wider than the grid is folded. A PE interleaves p filters and q channels in its scratchpads.

A layer is a sequence of *passes*, each on n images, q r channels, p t filters and e output rows;
partial sums of n images, m filters and e rows wait in the GLB until all channels are done.

    filter_dma -> filter_noc -> ifmap_fill => pe_array ->  drain -> ofmap_dma    (=> every PE)
     ifmap_dma -------------^        | \\-> psum_noc -/   /
                                     \\--> ifmap_noc ----/

The one overhead, and it is structural: *a pass begins with empty scratchpads*. Filters, then the
first window of every input row, are loaded before the first product, and nothing is loaded for the
next pass meanwhile. Then computing, the streaming of inputs and the traffic of partial sums
overlap; the slowest of the three makes the pass.

Zeros save power, not time: a zero input gates the PE's filter read, multiplier and partial sum
update, and activations are run-length coded on their way to and from DRAM. Left out: pooling, the
configuration scan chain (once a layer), the shape of the networks' trees, DRAM latency.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from sparqsim.architectures.fixed_point import FixedPointLayer
from sparqsim.architectures.machine import Figure, Machine, Program
from sparqsim.architectures.tiling import ConvShape, check_positive, check_whole
from sparqsim.base import InputError
from sparqsim.simulator.energy.tables import Basis, get_table
from sparqsim.simulator.mac import dense, fixed16
from sparqsim.simulator.netlist import Actor, Channel, Netlist, Pattern, Resource
from sparqsim.simulator.report import EnergyPart, Macs, Memory, memory_use
from sparqsim.simulator.timeline import Timeline
from sparqsim.workloads.encodings.run_length import encoded_bits
from sparqsim.workloads.layers import Layer
from sparqsim.workloads.tensors import LayerTensors

KIB = 1024 * 8  # bits
WORD_BITS = 16  # published
SPAD_WORDS = {"filter": 224, "ifmap": 12, "psum": 24}  # published: 448, 24 and 48 bytes a PE
# published, ISCA 2016: energy of a word's move over that of a multiply-accumulate
RELATIVE = {"spad": 1.0, "noc": 2.0, "glb": 6.0, "dram": 200.0}
NODE_NM = 65.0  # published

Ints = NDArray[np.int64]


class RowStationary(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A mapping, by the paper's letters (JSSC 2017, Table III).

    Attributes
    ----------
    n, m, e
        Images, filters and output rows whose partial sums are in the GLB together.
    p, q
        Filters and channels a PE interleaves.
    r, t
        Sets in the array on different channels, and on different filters.
    """

    n: int
    m: int
    e: int
    p: int
    q: int
    r: int
    t: int

    def __post_init__(self) -> None:
        check_whole("mapping", **msgspec.structs.asdict(self))


class Pass(NamedTuple):
    """One pass: sizes of its share of every loop (the last of a loop may be smaller)."""

    images: int
    rows: int
    filters: int
    channels: int


class Steps(NamedTuple):
    """Cycles of the parts of a pass."""

    fill_filters: int
    fill_ifmaps: int
    compute: int
    stream_ifmaps: int
    psums: int
    drain: int

    @property
    def total(self) -> int:
        """Cycles of the pass."""
        fill = self.fill_filters + self.fill_ifmaps
        return fill + max(self.compute, self.stream_ifmaps, self.psums) + self.drain


class Eyeriss(Machine, frozen=True, kw_only=True):
    """Configuration of Eyeriss; the defaults are the chip at 200 MHz.

    Attributes
    ----------
    rows
        PEs above each other.
    columns
        PEs beside each other.
    glb_kib
        Part of the global buffer for inputs and partial sums.
    filter_kib
        Part of the global buffer for the filters of the next pass.
    clock_hz
        Clock of the core.
    link_hz
        Clock of the link to DRAM.
    filter_bus_bits
        Width of the network that brings filters to the PEs.
    psum_bus_bits
        Width of each of the networks that bring partial sums in and out.
    ifmap_bus_bits
        Width of the network that brings inputs.
    link_bits
        Width of the link to DRAM.
    off_chip
        Whether DRAM traffic takes time; without it a run is the paper's "processing latency".
    """

    name: ClassVar[str] = "eyeriss"
    title: ClassVar[str] = "Eyeriss v1 (ISCA 2016, JSSC 2017): row-stationary dense CNN accelerator"

    rows: int = 12  # published
    columns: int = 14  # published
    glb_kib: int = 100  # published: 108 KB, of which
    filter_kib: int = 8  # assumed: recalled as the filters' part, unchecked
    clock_hz: float = 200e6  # published: of the measured tables
    link_hz: float = 60e6  # published: of the measured tables
    filter_bus_bits: int = 64  # assumed: recalled from JSSC 2017 section V, unchecked
    psum_bus_bits: int = 64  # assumed: likewise; one bus in, one out
    ifmap_bus_bits: int = 16  # assumed: likewise
    link_bits: int = 64  # assumed: a word of the run-length code
    off_chip: bool = True

    def __post_init__(self) -> None:
        fields = msgspec.structs.asdict(self)
        if not isinstance(fields.pop("off_chip"), bool):
            raise InputError(f"eyeriss.off_chip must be true or false, got {self.off_chip!r}")
        check_positive("eyeriss", clock_hz=fields.pop("clock_hz"), link_hz=fields.pop("link_hz"))
        check_whole("eyeriss", **fields)
        for name in ("filter_bus_bits", "psum_bus_bits", "ifmap_bus_bits"):
            if getattr(self, name) % WORD_BITS:
                raise InputError(
                    f"eyeriss.{name} must be a multiple of {WORD_BITS}, got {getattr(self, name)}"
                )

    @property
    def pes(self) -> int:
        """Processing elements."""
        return self.rows * self.columns

    # ------------------------------------------------------------------ mapping

    def most_sets(self, kernel_rows: int, strip: int) -> int:
        """How many logical sets fit the grid: side by side, or folded where they are too wide."""
        high = self.rows // kernel_rows
        if strip <= self.columns:
            return high * (self.columns // strip)
        return high // -(-strip // self.columns)

    def place(self, kernel_rows: int, strip: int, sets: int) -> Ints | None:
        """Grid cells of the logical sets, or None where they do not fit.

        Returns
        -------
        int64 [sets, kernel_rows, strip]
            Number of the PE, row by row. A set wider than the grid is folded into pieces below
            each other.
        """
        if sets > self.most_sets(kernel_rows, strip):
            return None
        number, tap, column = np.ogrid[:sets, :kernel_rows, :strip]
        if strip <= self.columns:
            down, beside = np.divmod(number, self.columns // strip)
            row, column = down * kernel_rows + tap, beside * strip + column
        else:
            piece, column = np.divmod(column, self.columns)
            row = (number * -(-strip // self.columns) + piece) * kernel_rows + tap
        cells: Ints = row * self.columns + column
        return cells

    def unfit(self, shape: ConvShape, mapping: RowStationary) -> str:
        """Why a mapping does not fit the machine; empty if it does."""
        taps, wide = shape.kernel_height, shape.kernel_width
        filters = mapping.p * mapping.q * wide
        if filters > SPAD_WORDS["filter"]:
            return f"p q S = {filters} filter words exceed {SPAD_WORDS['filter']} of a PE"
        if mapping.q * wide > SPAD_WORDS["ifmap"]:
            return f"q S = {mapping.q * wide} input words exceed {SPAD_WORDS['ifmap']} of a PE"
        if mapping.p > SPAD_WORDS["psum"]:
            return f"p = {mapping.p} partial sums exceed {SPAD_WORDS['psum']} of a PE"
        if mapping.e > shape.out_height or mapping.n > shape.batch:
            return f"e and n must be at most {shape.out_height} rows and {shape.batch} images"
        together = mapping.p * mapping.t
        if mapping.m % together and mapping.m < shape.out_channels:
            return f"m = {mapping.m} must be a multiple of p t = {together}"
        if mapping.r * mapping.t > self.most_sets(taps, mapping.e):
            sets = mapping.r * mapping.t
            return (
                f"{sets} sets of {taps} x {mapping.e} PEs do not fit {self.rows} x {self.columns}"
            )
        if together * mapping.q * mapping.r * taps * wide * WORD_BITS > self.filter_kib * KIB:
            return f"the filters of a pass exceed {self.filter_kib} KiB"
        inputs, psums = self.glb_bits(shape, mapping)
        if inputs + psums > self.glb_kib * KIB:
            return (
                f"inputs and partial sums take {(inputs + psums) / KIB:.1f} KiB of the GLB's "
                + (f"{self.glb_kib}")
            )
        return ""

    def glb_bits(self, shape: ConvShape, mapping: RowStationary) -> tuple[int, int]:
        """Bits of inputs and of partial sums a mapping keeps in the GLB."""
        high, wide = shape.patch(mapping.e, shape.out_width)
        channels = min(mapping.q * mapping.r, shape.in_channels)
        inputs = mapping.n * channels * high * wide * WORD_BITS
        filters = min(mapping.m, shape.out_channels)
        return inputs, mapping.n * filters * mapping.e * shape.out_width * WORD_BITS

    def active_pes(self, shape: ConvShape, mapping: RowStationary) -> int:
        """PEs a mapping uses: R r e t."""
        return shape.kernel_height * mapping.r * mapping.e * mapping.t

    def steps(self, shape: ConvShape, mapping: RowStationary, work: Pass) -> Steps:
        """How long the parts of a pass take."""
        taps, wide = shape.kernel_height, shape.kernel_width
        high, broad = shape.patch(work.rows, shape.out_width)
        filters, channels = min(mapping.p, work.filters), min(mapping.q, work.channels)
        words = taps * wide * work.channels * work.filters
        inputs = work.images * work.channels * high * broad
        window = work.channels * high * min(wide, broad)
        psums = work.images * work.filters * work.rows * shape.out_width
        ifmap_words = self.ifmap_bus_bits // WORD_BITS
        return Steps(
            fill_filters=-(-words * WORD_BITS // self.filter_bus_bits),
            fill_ifmaps=-(-window // ifmap_words),
            compute=wide * shape.out_width * filters * channels * work.images,
            stream_ifmaps=-(-(inputs - window) // ifmap_words),
            psums=-(-psums * WORD_BITS // self.psum_bus_bits),
            drain=filters + taps - 1,  # the last p sums climb the column
        )

    def processing_cycles(self, shape: ConvShape, mapping: RowStationary) -> int:
        """Cycles of all passes, one after another: the analytic twin of a run without DRAM."""
        total = 0
        for (n, a), (e, b), (m, c), (k, d) in itertools.product(
            _chunks(shape.batch, mapping.n),
            _chunks(shape.out_height, mapping.e),
            _filter_chunks(shape, mapping),
            _chunks(shape.in_channels, mapping.q * mapping.r),
        ):
            total += a * b * c * d * self.steps(shape, mapping, Pass(n, e, m, k)).total
        return total * shape.groups

    def search(self, shape: ConvShape) -> RowStationary:
        """The mapping with the fewest cycles, of equal ones that with the least in the GLB.

        With DRAM the link counts: inputs are waited for, filters come while a pass computes; where
        the link alone decides, the fewest cycles without it.

        Raises
        ------
        InputError
            If the kernel is larger than the grid or the scratchpads.
        """
        return _searched(self, shape)

    def link_cycles(self, shape: ConvShape, mapping: RowStationary) -> tuple[int, int]:
        """Cycles the link takes for all inputs and for all filters, nothing compressed."""
        strips = -(-shape.batch // mapping.n) * -(-shape.out_height // mapping.e)
        once = mapping.q * mapping.r >= shape.in_channels  # then the next round finds them there
        rounds = 1 if once else -(-shape.out_channels // mapping.m)
        high, wide = shape.patch(mapping.e, shape.out_width)
        inputs = strips * rounds * mapping.n * shape.in_channels * high * wide
        filters = strips * shape.taps * shape.in_channels * shape.out_channels
        rate = self.clock_hz / self.link_hz * WORD_BITS / self.link_bits * shape.groups
        return int(inputs * rate), int(filters * rate)

    def candidates(self, shape: ConvShape) -> Iterator[RowStationary]:
        """Mappings worth trying: even shares of every loop, the array as full as it goes."""
        taps, wide = shape.kernel_height, shape.kernel_width
        strips = _shares(shape.out_height, self.pes)
        many = _shares(shape.out_channels, SPAD_WORDS["psum"])
        few = _shares(shape.in_channels, SPAD_WORDS["ifmap"] // wide)
        images = _shares(shape.batch, shape.batch)
        for e, p, q, n in itertools.product(strips, many, few, images):
            if p * q * wide > SPAD_WORDS["filter"]:
                continue
            most = self.most_sets(taps, e)
            for r in _shares(-(-shape.in_channels // q), most) if most else []:
                for t in _shares(-(-shape.out_channels // p), most // r):
                    one = n * p * t * e * shape.out_width * WORD_BITS
                    high, broad = shape.patch(e, shape.out_width)
                    channels = min(q * r, shape.in_channels)
                    left = self.glb_kib * KIB - n * channels * high * broad * WORD_BITS
                    rounds = min(left // one, -(-shape.out_channels // (p * t)))
                    if rounds >= 1:
                        yield RowStationary(n=n, m=rounds * p * t, e=e, p=p, q=q, r=r, t=t)

    # ------------------------------------------------------------------ lowering

    def lower(self, tensors: LayerTensors, mapping: RowStationary | None = None) -> Program:
        """Quantize, convolve, compress and time a layer.

        Parameters
        ----------
        mapping
            By default the fastest the search finds.

        Raises
        ------
        InputError
            If the mapping does not fit, or there is none.
        """
        work = FixedPointLayer(tensors)
        return self._program(tensors.layer, tensors.source, mapping, work)

    def plan(self, layer: Layer, mapping: RowStationary | None = None) -> Program:
        """A program of which only the timing is known; nothing is compressed."""
        return self._program(layer, "shapes alone", mapping, None)

    def _program(
        self, layer: Layer, inputs: str, mapping: RowStationary | None, work: FixedPointLayer | None
    ) -> Program:
        shape = ConvShape.of(layer)
        if (shape.dilation_height, shape.dilation_width) != (1, 1):
            raise InputError(f"layer {layer.name!r}: eyeriss runs convolutions without dilation")
        if mapping is None:
            mapping = self.search(shape)
        reason = self.unfit(shape, mapping)
        if reason:
            raise InputError(f"layer {layer.name!r}: {mapping} does not fit: {reason}")
        sequence = _Sequence(self, shape, mapping, work)
        traffic, macs = sequence.traffic, shape.macs
        gated = 0 if work is None else work.zero_input
        busy_pes = int((sequence.lanes > 0).sum(axis=1).max())

        def counters(timeline: Timeline) -> dict[str, int]:
            return {
                "passes": len(sequence.passes),
                "active_pes": busy_pes,
                "analytic_processing_cycles": self.processing_cycles(shape, mapping),
                "macs": macs,
                "macs_gated": gated,
                **{f"{name}_bits": bits for name, bits in traffic.items()},
                "ifmap_raw_bits": sequence.raw["ifmap"],
                "ofmap_raw_bits": sequence.raw["ofmap"],
            }

        def memory(timeline: Timeline) -> dict[str, Memory]:
            used = sum(self.glb_bits(shape, mapping))
            words = SPAD_WORDS["filter"] + SPAD_WORDS["ifmap"] + SPAD_WORDS["psum"]
            held = mapping.p * mapping.q * shape.kernel_width + mapping.q * shape.kernel_width
            return {
                "glb": memory_use(
                    capacity_bits=self.glb_kib * KIB,
                    used_bits=used,
                    read_bits=traffic["glb_read"],
                    written_bits=traffic["glb_write"],
                    seconds=timeline.seconds,
                    source="published: 108 KB, 8 of them for filters (assumed)",
                ),
                "spads": memory_use(
                    capacity_bits=self.pes * words * WORD_BITS,
                    used_bits=busy_pes * (held + mapping.p) * WORD_BITS,
                    read_bits=(3 * (macs - gated) + gated) * WORD_BITS,
                    written_bits=(macs - gated) * WORD_BITS + traffic["noc"],
                    seconds=timeline.seconds,
                    source="published: 448, 24 and 48 bytes a PE",
                ),
                "dram": memory_use(
                    capacity_bits=0,
                    used_bits=0,
                    read_bits=traffic["dram_ifmap"] + traffic["dram_filter"],
                    written_bits=traffic["dram_ofmap"],
                    seconds=timeline.seconds,
                    source="no size published; filters raw, activations run-length coded",
                ),
            }

        def energy(timeline: Timeline) -> list[EnergyPart]:
            one, source = mac_energy_pj()
            dram = traffic["dram_ifmap"] + traffic["dram_filter"] + traffic["dram_ofmap"]
            moved = {
                "spad": (4 * (macs - gated) + gated) * WORD_BITS,
                "noc": traffic["noc"],
                "glb": traffic["glb_read"] + traffic["glb_write"] + traffic["glb_fill"],
                "dram": dram,
            }
            parts = [
                EnergyPart(
                    part="mac", energy_pj=one * (macs - gated), basis=Basis.ASSUMED, source=source
                )
            ]
            for part, bits in moved.items():
                parts.append(
                    EnergyPart(
                        part=part,
                        energy_pj=bits / WORD_BITS * one * RELATIVE[part],
                        basis=Basis.ASSUMED,
                        source=f"{RELATIVE[part]:g} x MAC a word (ISCA 2016); MAC: {source}",
                    )
                )
            return parts

        notes = [
            "the one overhead: every pass loads filters and first windows before it computes",
            f"mapping n={mapping.n} m={mapping.m} e={mapping.e} p={mapping.p} q={mapping.q} "
            f"r={mapping.r} t={mapping.t}",
        ]
        if work is None:
            notes.append("timing only: no tensors; no zeros are gated or compressed")
        else:
            notes.append(work.note)
        return Program(
            netlist=sequence.netlist(layer.name),
            layer=layer.name,
            inputs=inputs,
            macs=Macs(dense=macs, effectual=macs if work is None else work.effectual),
            worker="pe_array",
            multipliers=self.pes,
            outputs=None if work is None else work.outputs,
            output_scale=1.0 if work is None else work.output_scale,
            verify=None if work is None else work.verify,
            counters=counters,
            memory=memory,
            energy=energy,
            executed=None if work is None else sequence.executed,
            notes=notes,
        )

    def datasheet(self) -> list[Figure]:
        """The numbers of this configuration and where they come from."""
        published, derived, assumed = Basis.PUBLISHED, Basis.DERIVED, Basis.ASSUMED
        one, source = mac_energy_pj()
        return [
            Figure("PEs", f"{self.rows} x {self.columns}", published, "JSSC 2017"),
            Figure("core clock", f"{self.clock_hz / 1e6:g} MHz", published, "JSSC 2017 (100-250)"),
            Figure("peak", f"{self.pes * self.clock_hz / 1e9:g} GMAC/s", derived, "PEs x clock"),
            Figure("global buffer", f"{self.glb_kib} KiB", published, "108 KB less filters"),
            Figure("filter buffer", f"{self.filter_kib} KiB", assumed, "recalled, unchecked"),
            Figure("scratchpads", "448, 24, 48 B a PE", published, "filter, ifmap, psum"),
            Figure("filter bus", f"{self.filter_bus_bits} bits", assumed, "recalled, unchecked"),
            Figure("psum buses", f"{self.psum_bus_bits} bits", assumed, "recalled, unchecked"),
            Figure("ifmap bus", f"{self.ifmap_bus_bits} bits", assumed, "recalled, unchecked"),
            Figure("link clock", f"{self.link_hz / 1e6:g} MHz", published, "JSSC 2017 (to 90)"),
            Figure("link width", f"{self.link_bits} bits", assumed, "a run-length word"),
            Figure("16-bit MAC", f"{one:.3g} pJ", assumed, source),
        ]


@functools.cache
def _searched(machine: Eyeriss, shape: ConvShape) -> RowStationary:
    """See :meth:`Eyeriss.search`; remembered by shape."""
    best: tuple[tuple[int, int, int], RowStationary] | None = None
    for mapping in machine.candidates(shape):
        # a mapping that multiplies longer than the best one takes cannot be better
        least = shape.macs // machine.active_pes(shape, mapping)
        if (best is not None and least > best[0][0]) or machine.unfit(shape, mapping):
            continue
        total = passes = machine.processing_cycles(shape, mapping)
        if machine.off_chip:
            inputs, filters = machine.link_cycles(shape, mapping)
            total = max(passes, filters) + inputs
        key = (total, passes, sum(machine.glb_bits(shape, mapping)))
        if best is None or key < best[0]:
            best = (key, mapping)
    if best is None:
        raise InputError(
            f"no row-stationary mapping fits a {shape.kernel_height} x {shape.kernel_width} "
            f"kernel: it must be at most {machine.rows} high and {SPAD_WORDS['ifmap']} wide, and "
            f"its sums must fit {machine.glb_kib} KiB"
        )
    return best[1]


def mac_energy_pj() -> tuple[float, str]:
    """Energy of a 16-bit multiply and add at 65 nm, and how it was had."""
    table = get_table("horowitz")
    small, large = table.entry("multiply.int8"), table.entry("multiply.int32")
    add = table.entry("add.int32").at_node(NODE_NM)
    factor = add.value / table.entry("add.int32").value
    multiply = (small.value * large.value) ** 0.5 * factor  # 16 is the geometric mean of 8 and 32
    return multiply + add.value, "horowitz: 16-bit multiply between 8 and 32 bits, at 65 nm"


def _chunks(total: int, size: int) -> list[tuple[int, int]]:
    """Sizes into which a loop is cut, and how many there are of each."""
    whole, rest = divmod(total, size)
    return [pair for pair in ((size, whole), (rest, int(rest > 0))) if pair[0] and pair[1]]


def _filter_chunks(shape: ConvShape, mapping: RowStationary) -> list[tuple[int, int]]:
    return [
        (size, count * times)
        for held, times in _chunks(shape.out_channels, mapping.m)
        for size, count in _chunks(held, mapping.p * mapping.t)
    ]


def _spans(low: int, high: int, size: int) -> list[tuple[int, int]]:
    return [(start, min(start + size, high)) for start in range(low, high, size)]


def _shares(total: int, most: int) -> list[int]:
    """Sizes up to ``most`` that cut a loop into different numbers of parts."""
    limit = max(1, min(total, most))
    return sorted({-(-total // parts) for parts in range(-(-total // limit), total + 1)})


@dataclass(frozen=True)
class _Where:
    """Which part of the layer a pass works on: half-open spans."""

    group: int
    images: tuple[int, int]
    rows: tuple[int, int]
    filters: tuple[int, int]
    channels: tuple[int, int]


class _Sequence:
    """The passes of a layer: their cycles, traffic, netlist and arithmetic.

    Attributes
    ----------
    passes : list of _Where
    lanes : int32 [passes, PEs]
        Cycles each PE multiplies in a pass.
    traffic : dict
        Bits moved, by kind.
    raw : dict
        Bits of the activations moved if they were not compressed.
    """

    def __init__(
        self,
        machine: Eyeriss,
        shape: ConvShape,
        mapping: RowStationary,
        work: FixedPointLayer | None,
    ) -> None:
        self.machine, self.shape, self.mapping, self.work = machine, shape, mapping, work
        self.cells = machine.place(shape.kernel_height, mapping.e, mapping.r * mapping.t)
        assert self.cells is not None
        self._order()
        sizes = [
            Pass(
                w.images[1] - w.images[0],
                w.rows[1] - w.rows[0],
                w.filters[1] - w.filters[0],
                w.channels[1] - w.channels[0],
            )
            for w in self.passes
        ]
        kinds = {size: machine.steps(shape, mapping, size) for size in set(sizes)}
        rows = {size: self._lane_cycles(size) for size in set(sizes)}
        self.steps = np.array([kinds[size] for size in sizes], np.int64)
        self.lanes = np.array([rows[size] for size in sizes], np.int32)
        self._count(sizes)

    def _order(self) -> None:
        """The loops, outermost first; which passes load inputs, and which end a round."""
        shape, mapping = self.shape, self.mapping
        together = mapping.p * mapping.t
        self.passes: list[_Where] = []
        loads, ends, self.blocks, self.rounds = [], [], [], []
        last = None
        for group, images, rows, held in itertools.product(
            range(shape.groups),
            _spans(0, shape.batch, mapping.n),
            _spans(0, shape.out_height, mapping.e),
            _spans(0, shape.out_channels, mapping.m),
        ):
            for channels in _spans(0, shape.in_channels, mapping.q * mapping.r):
                block = _Where(group, images, rows, (0, 0), channels)
                for filters in _spans(*held, together):
                    loads.append(int(block != last))
                    ends.append(0)
                    if block != last:
                        self.blocks.append(block)
                    last = block
                    self.passes.append(_Where(group, images, rows, filters, channels))
            ends[-1] = 1
            self.rounds.append(_Where(group, images, rows, held, (0, 0)))
        self.loads, self.ends = np.array(loads), np.array(ends)

    def _lane_cycles(self, size: Pass) -> NDArray[np.int32]:
        """Cycles each PE multiplies in a pass of a size."""
        mapping, shape = self.mapping, self.shape
        busy = np.zeros(self.machine.pes, np.int32)
        assert self.cells is not None
        for number in range(mapping.r * mapping.t):
            channels, filters = self.share(number, size.channels, size.filters)
            each = len(range(*channels)) * len(range(*filters)) * size.images
            cells = self.cells[number, :, : size.rows]
            busy[cells] = shape.kernel_width * shape.out_width * each
        return busy

    def share(
        self, number: int, channels: int, filters: int
    ) -> tuple[tuple[int, int], tuple[int, int]]:
        """Which of a pass's channels and filters a set works on."""
        of_channels, of_filters = number % self.mapping.r, number // self.mapping.r
        first, one = of_channels * self.mapping.q, of_filters * self.mapping.p
        return (
            (min(first, channels), min(first + self.mapping.q, channels)),
            (min(one, filters), min(one + self.mapping.p, filters)),
        )

    def _count(self, sizes: list[Pass]) -> None:
        shape = self.shape
        taps, wide = shape.kernel_height, shape.kernel_width
        of = np.array(sizes, np.int64)  # images, rows, filters, channels
        high = (of[:, 1] - 1) * shape.stride_height + taps
        broad = shape.patch(1, shape.out_width)[1]
        inputs = of[:, 0] * of[:, 3] * high * broad
        filters = taps * wide * of[:, 3] * of[:, 2]
        psums = of[:, 0] * of[:, 2] * of[:, 1] * shape.out_width
        first = np.array([w.channels[0] == 0 for w in self.passes])
        outputs = shape.groups * shape.batch * shape.out_channels
        outputs *= shape.out_height * shape.out_width
        # words each PE takes: the rows of its channels, the filter rows it multiplies with them
        sets = np.array([self._deliveries(size) for size in sizes], np.int64)
        self.block_bits, raw_in = self._ifmap_bits()
        self.round_bits, raw_out = self._ofmap_bits()
        self.filter_bits = filters * WORD_BITS
        self.raw = {"ifmap": raw_in, "ofmap": raw_out}
        loaded = inputs[self.loads == 1].sum()
        words = {
            # the first pass of a round starts from zero; the finished sums are read once more
            "glb_read": inputs.sum() + psums[~first].sum() + outputs,
            "glb_write": psums.sum(),
            "glb_fill": loaded + 2 * filters.sum(),  # DRAM to GLB, and filters out again
            "noc": sets.sum() + (taps - 1) * psums.sum() + psums.sum() + psums[~first].sum(),
        }
        self.traffic = {name: int(count) * WORD_BITS for name, count in words.items()} | {
            "dram_ifmap": int(self.block_bits.sum()),
            "dram_filter": int(self.filter_bits.sum()),
            "dram_ofmap": int(self.round_bits.sum()),
        }

    def _deliveries(self, size: Pass) -> int:
        shape, total = self.shape, 0
        broad = shape.patch(1, shape.out_width)[1]
        for number in range(self.mapping.r * self.mapping.t):
            channels, filters = self.share(number, size.channels, size.filters)
            c, f = len(range(*channels)), len(range(*filters))
            if c * f:
                each = size.images * c * broad + c * f * shape.kernel_width
                total += shape.kernel_height * size.rows * each
        return total

    def _ifmap_bits(self) -> tuple[Ints, int]:
        """Bits of each block of inputs in DRAM, and of all of them raw.

        A strip's share of a plane is taken in proportion to its rows.
        """
        shape, work = self.shape, self.work
        top = 0 if work is None else work.padding[0]
        full_high, full_wide = shape.patch(shape.out_height, shape.out_width)
        high, wide = (full_high, full_wide) if work is None else work.x.shape[2:]
        planes = None
        if work is not None:
            flat = work.x.reshape(shape.batch * work.x.shape[1], -1)
            coded = encoded_bits(flat).reshape(shape.batch, -1)
            if coded.sum() < flat.size * WORD_BITS:  # dense data are stored as they are
                planes = coded
        bits, raw = [], 0
        for block in self.blocks:
            low = block.rows[0] * shape.stride_height - top
            end = (block.rows[1] - 1) * shape.stride_height + shape.kernel_height - top
            rows = max(0, min(end, high) - max(low, 0))
            count = len(range(*block.images)) * len(range(*block.channels))
            plain = count * rows * wide * WORD_BITS
            raw += plain
            if planes is None:
                bits.append(plain)
                continue
            first = block.group * shape.in_channels
            mine = planes[slice(*block.images)][
                :, first + block.channels[0] : first + block.channels[1]
            ]
            bits.append(-(-int(mine.sum()) * rows // high))
        return np.array(bits, np.int64), raw

    def _ofmap_bits(self) -> tuple[Ints, int]:
        """Bits of each round's outputs in DRAM, and of all of them raw."""
        shape, work = self.shape, self.work
        raw = np.array(
            [
                len(range(*w.images)) * len(range(*w.filters)) * len(range(*w.rows))
                * shape.out_width * WORD_BITS
                for w in self.rounds
            ],
            np.int64,
        )  # fmt: skip
        if work is None or work.linear:
            return raw, int(raw.sum())
        coded = []
        for w in self.rounds:
            first = w.group * shape.out_channels
            strip = work.outputs[
                slice(*w.images), first + w.filters[0] : first + w.filters[1], slice(*w.rows)
            ]
            flat = strip.reshape(strip.shape[0] * strip.shape[1], -1)
            coded.append(int(encoded_bits(flat).sum()))
        found = np.array(coded, np.int64)
        return (found if found.sum() < raw.sum() else raw), int(raw.sum())

    # ------------------------------------------------------------------ the block diagram

    def netlist(self, name: str) -> Netlist:
        """The passes as actors; one firing a pass."""
        machine, count = self.machine, len(self.passes)
        fill_filters, fill_ifmaps, _, stream, psums, drain = self.steps.T
        multiply, add, begin = self._actions() if self.work is not None else (None, None, None)
        begins_round = np.concatenate([[0], self.ends[:-1]])
        last_of_block = np.append(self.loads[1:], 1)
        filters = int(self.filter_bits.max())
        actors = [
            Actor(name="filter_noc", busy=fill_filters, part="Filter network"),
            Actor(name="ifmap_fill", busy=fill_ifmaps, execute=begin, part="First windows"),
            Actor(name="ifmap_noc", busy=stream, part="Ifmap network"),
            Actor(
                name="pe_array", lanes=machine.pes, busy=self.lanes, execute=multiply, part="PEs"
            ),
            Actor(name="psum_noc", busy=psums, part="Psum networks"),
            Actor(name="drain", busy=drain, execute=add, part="Array drain"),
        ]
        channels = [
            Channel(name="filters", source="filter_noc", target="ifmap_fill", capacity=1),
            Channel(name="rows", source="ifmap_fill", target="ifmap_noc", capacity=1),
            Channel(
                name="windows", source="ifmap_fill", target="pe_array", capacity=1,
                pattern=Pattern.BROADCAST,
            ),
            Channel(name="psums", source="ifmap_fill", target="psum_noc", capacity=1),
            Channel(name="streamed", source="ifmap_noc", target="drain", capacity=1),
            Channel(
                name="sums", source="pe_array", target="drain", capacity=1, pattern=Pattern.GATHER
            ),
            Channel(name="moved", source="psum_noc", target="drain", capacity=1),
            Channel(
                name="next_pass", source="drain", target="filter_noc", capacity=1,
                produce=np.append(np.ones(count - 1, np.int64), 0),
                consume=np.append(0, np.ones(count - 1, np.int64)),
            ),
        ]  # fmt: skip
        if not machine.off_chip:
            return Netlist(actors, channels, clock_hz=machine.clock_hz, name=f"Eyeriss {name}")
        later = np.ones(len(self.blocks), np.int64)
        later[0] = 0
        freed = last_of_block.copy()
        freed[-1] = 0
        written = np.ones(len(self.rounds), np.int64)
        written[-1] = 0
        for label, bits, part in (
            ("filter_dma", self.filter_bits, "Filter DMA"),
            ("ifmap_dma", self.block_bits, "Ifmap DMA"),
            ("ofmap_dma", self.round_bits, "Ofmap DMA"),
        ):
            actors.append(Actor(name=label, busy=self.link(bits), resource="link", part=part))
        channels += [
            Channel(
                name="filter_buffer", source="filter_dma", target="filter_noc",
                capacity=max(1, machine.filter_kib * KIB // filters),
            ),
            Channel(
                name="ifmap_buffer", source="ifmap_dma", target="filter_noc", capacity=1,
                consume=self.loads,
            ),
            Channel(
                name="ifmap_room", source="drain", target="ifmap_dma", capacity=1,
                produce=freed, consume=later,
            ),
            Channel(
                name="ofmaps", source="drain", target="ofmap_dma", capacity=1, produce=self.ends
            ),
            Channel(
                name="psum_room", source="ofmap_dma", target="filter_noc", capacity=1,
                produce=written, consume=begins_round,
            ),
        ]  # fmt: skip
        return Netlist(
            actors, channels, [Resource(name="link")], machine.clock_hz, f"Eyeriss {name}"
        )

    def link(self, bits: Ints) -> Ints:
        """Core cycles for which the link is held."""
        words = -(-bits // self.machine.link_bits)
        ratio = self.machine.clock_hz / self.machine.link_hz
        return np.maximum(np.ceil(words * ratio), 1).astype(np.int64)

    def _actions(self) -> Any:
        """What PEs and drain do with tokens: one-dimensional convolutions, added up the columns."""
        shape, work = self.shape, self.work
        assert work is not None and self.cells is not None
        top, left, bottom, right = work.padding
        image = np.pad(work.x, ((0, 0), (0, 0), (top, bottom), (left, right))).astype(np.int64)
        jobs: dict[int, tuple[int, int, int]] = {}
        for index, cell in np.ndenumerate(self.cells):
            jobs[int(cell)] = index
        self.carried = np.zeros(work.sums.shape, np.int64)
        wide, out = shape.kernel_width, shape.out_width

        def begin(lane: int, k: int, got: dict[str, list[Any]]) -> dict[str, list[Any]]:
            if k == 0:
                self.carried[:] = 0
            return {"windows": [k]}

        def multiply(lane: int, k: int, got: dict[str, list[Any]]) -> dict[str, list[Any]]:
            number = got["windows"][0]
            where = self.passes[number]
            if not self.lanes[number, lane]:
                return {"sums": [None]}
            which, tap, row = jobs[lane]
            channels, filters = self.share(
                which, len(range(*where.channels)), len(range(*where.filters))
            )
            y = where.rows[0] + row
            first = where.group * shape.in_channels + where.channels[0]
            top_filter = where.group * shape.out_channels + where.filters[0]
            rows = image[
                slice(*where.images), first + channels[0] : first + channels[1],
                y * shape.stride_height + tap,
            ]  # fmt: skip
            mine = slice(top_filter + filters[0], top_filter + filters[1])
            taps = work.w[mine, :, tap][
                :, where.channels[0] + channels[0] : where.channels[0] + channels[1]
            ]
            sums = np.zeros((len(rows), len(taps), out), np.int64)
            for z in range(wide):
                seen = rows[:, :, z :: shape.stride_width][:, :, :out]
                products = seen[:, None] * taps[None, :, :, z, None].astype(np.int64)
                sums += (products >> work.shift).sum(axis=2)
            return {"sums": [(where.images, mine, y, sums)]}

        def add(lane: int, k: int, got: dict[str, list[Any]]) -> dict[str, list[Any]]:
            for token in got["sums"]:
                if token is not None:
                    images, mine, y, sums = token
                    self.carried[slice(*images), mine, y] += sums
            return {}

        return multiply, add, begin

    def executed(self) -> bool:
        """Whether the tokens of the last ``verify="execute"`` run gave the kernel's sums."""
        assert self.work is not None
        return bool((dense.wrap(self.carried, fixed16.BITS) == self.work.sums).all())
