"""TPU v1 (ISCA 2017): a 256 x 256 weight-stationary array of 8-bit multipliers for inference.

Weights come from DRAM through a FIFO of four 64 KiB tiles; a tile is shifted into the array, 256
cycles, while the one before it multiplies. Activations stay on the chip: they stream from the
24 MiB unified buffer through the array, a row of 256 a cycle, into 4096 rows of 256 accumulators,
half of which fill while the other half leaves through the activation unit, back to the unified
buffer. So a layer is

    weight_dma => weight FIFO => array -> drain -> activation => unified buffer

walked row part by row part (at most half the accumulators), output columns, reduction. With little
reuse of a weight (batch x pixels) the DRAM's 34 GB/s are all that counts.

Of 8-bit weights and 16-bit activations, or the other way round, the array does half as many
products, of 16 bits in both a quarter (published): a 16-bit weight comes as two tiles, a 16-bit
activation passes a tile twice, 8 bits at a time (assumed: how is not said). Sums stay 32 bits wide.

Left out: the host and its PCIe link, DRAM latency, pooling and element-wise work ("non-matrix
cycles"). Layers run alone, or as a network whose weights are fetched ahead. Weights are stored in
whole tiles (assumed). Energies are not published: a shipped table prices a run. Source: Jouppi et
al., ISCA 2017, sections 2 and 4.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, NamedTuple

import msgspec
import numpy as np

from sparqsim.architectures.account import Port
from sparqsim.architectures.arrays.cost import Cost, Residence, Traffic
from sparqsim.architectures.arrays.datapath import Multiplied
from sparqsim.architectures.arrays.machine import KIB, ArrayMachine, Timing
from sparqsim.architectures.arrays.rules import POST_STAGES, bandwidth
from sparqsim.architectures.arrays.scales import GroupScales, tokens_refused
from sparqsim.architectures.arrays.shapes import ConvShape, Mapping
from sparqsim.architectures.machine import Area, Program
from sparqsim.architectures.operands import Computes
from sparqsim.base import InputError
from sparqsim.simulator.energy.tables import Basis
from sparqsim.simulator.netlist import Actor, Channel, Netlist, Resource
from sparqsim.workloads.encoded import EncodedLayer
from sparqsim.workloads.layers import Layer

WEIGHT_BITS = ACTIVATION_BITS = 8  # published
WIDE_BITS = 16  # published: at half speed in one operand, at a quarter in both
ACCUMULATOR_BITS = 32  # published
SIDE = 256  # published
WHOLE_SUMS = (
    "but the accumulators add whole sums and nothing scales what enters them; choose the "
    "granularity channel or tensor, or a machine that does, such as plain or bitfusion"
)
TILE_KIB = SIDE * SIDE * WEIGHT_BITS // KIB  # 64


class TPU(ArrayMachine, frozen=True, kw_only=True):
    """The configuration of the paper; every number published.

    Attributes
    ----------
    rows
        Multipliers along the reduction.
    columns
        Multipliers along the output channels.
    input_buffer_kib
        The unified buffer of activations.
    weight_buffer_kib
        The weight FIFO.
    output_buffer_kib
        The accumulators, both halves.
    energy_table
        A shipped table: the TPU's own energies are not published.
    """

    name: ClassVar[str] = "tpu"
    title: ClassVar[str] = "TPU v1 (ISCA 2017): 256 x 256 weight-stationary array, 8 or 16 bits"

    rows: int = SIDE
    columns: int = SIDE
    input_buffer_kib: int = 24 * 1024
    weight_buffer_kib: int = 4 * TILE_KIB
    output_buffer_kib: int = 4 * 1024
    dram_gbytes_per_s: float = 34.0
    clock_hz: float = 700e6
    node_nm: float = 28.0
    energy_table: str = "cacti-aladdin"

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.fifo_tiles, self.part_rows) < 1:
            raise InputError(
                f"tpu.weight_buffer_kib must hold a tile of {self.rows} x {self.columns} weights "
                "and output_buffer_kib two rows of accumulators; enlarge them"
            )

    @property
    def multipliers_at_8_bits(self) -> int:
        """One an element."""
        return self.rows * self.columns

    def area(self) -> Area | None:
        """Of the die, of which an upper bound is recalled; of another size none is known."""
        if msgspec.structs.replace(self, dram_gbytes_per_s=TPU().dram_gbytes_per_s) != TPU():
            return None
        return Area(
            mm2=331.0, node_nm=28.0, basis=Basis.ASSUMED,
            source="ISCA 2017: less than half of Haswell's 662 mm2; recalled, unchecked",
        )  # fmt: skip

    @property
    def tile_bits(self) -> int:
        """A tile of weights, whole."""
        return self.rows * self.columns * WEIGHT_BITS

    @property
    def fifo_tiles(self) -> int:
        """Tiles the weight FIFO holds: 4."""
        return self.weight_buffer_kib * KIB // self.tile_bits

    @property
    def part_rows(self) -> int:
        """Rows of accumulators that fill while the others leave: 2048."""
        return self.output_buffer_kib * KIB // (ACCUMULATOR_BITS * self.columns) // 2

    def computes(self, layer: EncodedLayer) -> Computes:
        """Integers of 8 bits, and of 16 in several passes; narrower ones gain nothing."""
        held = ("int8_unsigned", "int8_signed", "int16_unsigned", "int16_signed")
        return Computes(
            weights=held,
            activations=held,
            zero_points=True,
            no_groups=WHOLE_SUMS,
            no_tokens=tokens_refused(layer),
        )

    def published_widths(self, layer: Layer) -> tuple[int, int]:
        """8 bits, or 16 where a layer needs more; a narrower one gains nothing."""
        activations, weights = layer.activation_bits or 0, layer.weight_bits or 0
        widest = max(activations, weights)
        if widest > WIDE_BITS:
            raise InputError(
                f"layer {layer.name!r} needs {widest} bits, the TPU multiplies 8 or 16"
            )
        return (
            WIDE_BITS if activations > ACTIVATION_BITS else ACTIVATION_BITS,
            WIDE_BITS if weights > WEIGHT_BITS else WEIGHT_BITS,
        )

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
        """The block diagram walked tile by tile; there is nothing to search.

        Raises
        ------
        InputError
            If a mapping is given.
        """
        if mapping is not None:
            raise InputError("the TPU walks its tiles in one way; leave the mapping out")
        return self._timing([self._walk(shape, widths)], name, dynamic)

    def lower_network(self, layers: Sequence[EncodedLayer]) -> Program:
        """A network as one program: weights of the next layer come while this one multiplies.

        A layer begins when the activations of the one before are in the unified buffer.
        """
        runs = [layer.layer for layer in layers for _ in range(layer.layer.repeat)]
        walks = [
            self._walk(self.shape_of(layer.layer, 1), self.stored_widths(layer))
            for layer in layers
            for _ in range(layer.layer.repeat)
        ]
        timing = self._timing(walks, "network")
        return self.program_of(
            timing,
            name="network",
            macs=sum(layer.macs for layer in runs),
            notes=[
                "activations stay in the unified buffer; layers overlap by the weights of the "
                "next alone"
            ],
        )

    def _walk(self, shape: ConvShape, widths: tuple[int, int]) -> _Walk:
        """How the tiles of a layer are walked: there is nothing to search.

        A weight of 16 bits is one of 8 in each of two tiles; an activation of 16 bits passes a tile
        twice, 8 of them at a time.
        """
        pixels = shape.batch * shape.out_height * shape.out_width
        parts = -(-pixels // self.part_rows)
        return _Walk(
            rows=-(-pixels // parts),
            halves=widths[0] // ACTIVATION_BITS,
            weight_halves=widths[1] // WEIGHT_BITS,
            down=-(-shape.taps * shape.in_channels // self.rows) * (widths[1] // WEIGHT_BITS),
            blocks=shape.groups * parts * -(-shape.out_channels // self.columns),
            inputs=shape.inputs,
            outputs=shape.outputs,
            macs=shape.macs,
        )

    def _timing(self, walks: list[_Walk], name: str, dynamic: bool = False) -> Timing:
        """Layers one after the other.

        Dynamic outputs go to the unified buffer as sums, and through the activation unit once more
        when the last of them has told the scale.
        """
        tiles = sum(walk.tiles for walk in walks)
        drain = self.rows + self.columns - 1
        row_bits = self.rows * ACTIVATION_BITS
        sum_bits = self.columns * ACCUMULATOR_BITS
        streamed = sum(walk.tiles * walk.steps for walk in walks)
        occupied = sum(walk.tiles * max(walk.steps, self.rows) for walk in walks)
        blocks = sum(walk.blocks for walk in walks)
        traffic = Traffic(
            input_buffer_read=streamed * row_bits,
            input_buffer_write=sum(walk.outputs * walk.stored_bits(dynamic) for walk in walks),
            weight_buffer_read=tiles * self.tile_bits,
            weight_buffer_write=tiles * self.tile_bits,
            output_buffer_read=sum(walk.blocks * walk.rows for walk in walks) * sum_bits,
            output_buffer_write=streamed * sum_bits,
            dram_read=tiles * self.tile_bits,
            dram_write=0,
        )
        load, all_loads = self._dram_cycles(1), self._dram_cycles(tiles)
        last = max(walks[-1].steps, self.rows)
        analytic = Cost(
            tiles=tiles,
            compute_cycles=streamed,
            bubble_cycles=occupied - streamed + self.rows + len(walks) * drain,
            stall_cycles=load + max(0, all_loads - load - (occupied - last)),
            residences=(
                _held(walks[0].inputs * walks[0].activation_bits, 1, 1),
                _held(self.tile_bits, tiles, self.fifo_tiles),
                _held(walks[0].rows * sum_bits, blocks, 2),
            ),
            traffic=traffic,
        )
        return Timing(
            netlist=self._netlist(name, walks, drain, dynamic),
            analytic=analytic,
            products_per_step=self.rows * self.columns,
            multiplied=sum(walk.macs for walk in walks),
            repeats=min(walk.passes for walk in walks),
            capacities=tuple(size * KIB for size in self.buffers_kib),  # type: ignore[arg-type]
            used=(
                max(
                    walk.inputs * walk.activation_bits + walk.outputs * walk.stored_bits(dynamic)
                    for walk in walks
                ),
                min(tiles, self.fifo_tiles) * self.tile_bits,
                max(min(walk.blocks, 2) * walk.rows for walk in walks) * sum_bits,
            ),
            rule="fill and drain of the array are charged once a layer; a tile takes at least the "
            f"{self.rows} cycles in which the next one is shifted in",
            ports=self._ports(walks, dynamic),
        )

    def _ports(self, walks: list[_Walk], dynamic: bool) -> tuple[Port, ...]:
        """Which firings move the bits of each memory."""
        tile, row_bits = self.tile_bits, self.rows * ACTIVATION_BITS
        sum_bits = self.columns * ACCUMULATOR_BITS
        blocks = [walk.blocks for walk in walks]
        steps = np.repeat([walk.steps for walk in walks], [walk.tiles for walk in walks])
        sums = np.repeat([walk.rows * sum_bits for walk in walks], blocks)
        leaving = [walk.outputs * walk.stored_bits(dynamic) / walk.blocks for walk in walks]
        stored = np.repeat(leaving, blocks)
        outputs = walks[-1].outputs
        again = Port(
            store="input_buffer",
            actor="rescale",
            read_bits=outputs * ACCUMULATOR_BITS,
            written_bits=outputs * walks[-1].activation_bits,
        )
        return (
            *((again,) if dynamic else ()),
            Port(store="dram", actor="weight_dma", read_bits=tile),
            Port(store="input_buffer", actor="array", read_bits=steps * row_bits),
            Port(store="input_buffer", actor="activation", written_bits=stored),
            Port(store="weight_buffer", actor="weight_dma", written_bits=tile),
            Port(store="weight_buffer", actor="array", read_bits=tile),
            Port(store="output_buffer", actor="array", written_bits=steps * sum_bits),
            Port(store="output_buffer", actor="activation", read_bits=sums),
        )

    def _dram_cycles(self, tiles: int) -> int:
        """Cycles of the clock for that many tiles of weights, rounded up."""
        bits, cycles = bandwidth(self.bandwidth(), self.clock_hz)
        return -(-tiles * self.tile_bits * cycles // bits)

    def _netlist(self, name: str, walks: list[_Walk], drain: int, dynamic: bool) -> Netlist:
        steps = np.repeat([walk.steps for walk in walks], [walk.tiles for walk in walks])
        down = np.repeat([walk.down for walk in walks], [walk.tiles for walk in walks])
        place = np.concatenate([np.arange(walk.tiles) for walk in walks])
        opens = (place % down == 0).astype(np.int64)
        closes = (place % down == down - 1).astype(np.int64)
        begins = (place == 0).astype(np.int64)
        begins[0] = 0  # the first layer's activations are there
        blocks = int(opens.sum())
        ends = np.zeros(blocks, np.int64)
        ends[np.cumsum([walk.blocks for walk in walks]) - 1] = 1
        waits = opens.copy()
        waits[np.flatnonzero(opens)[:2]] = 0  # two halves are free at the start
        tiles = len(place)
        loads = np.maximum(np.diff([self._dram_cycles(n) for n in range(tiles + 1)]), 1)
        shown = loads.copy()
        shown[0] += self.rows  # the first tile is shifted in behind nothing
        channels = [
            Channel(name="weights", source="weight_dma", target="array", capacity=self.fifo_tiles),
            Channel(name="sums", source="array", target="drain", capacity=2, produce=closes),
            Channel(name="drained", source="drain", target="activation", capacity=2),
            Channel(
                name="accumulators_free",
                source="activation",
                target="array",
                capacity=2,
                consume=waits,
            ),
        ]
        if len(walks) > 1:
            channels.append(
                Channel(
                    name="unified_buffer",
                    source="activation",
                    target="array",
                    capacity=1,
                    produce=ends,
                    consume=begins,
                )
            )
        again = []
        if dynamic:  # a row of sums a cycle
            rows = -(-walks[-1].outputs // self.columns)
            again.append(Actor(name="rescale", firings=1, busy=rows, part="Activation unit again"))
            channels.append(
                Channel(
                    name="all_sums", source="activation", target="rescale", capacity=1, produce=ends
                )
            )
        return Netlist(
            actors=[
                Actor(name="weight_dma", busy=loads, latency=shown, resource="dram"),
                Actor(
                    name="array",
                    busy=np.maximum(steps, self.rows),
                    part="Matrix multiply unit",
                ),
                Actor(name="drain", firings=blocks, busy=0, latency=drain, part="Drain"),
                Actor(  # rows leave as the last pass over them finishes: the last one counts
                    name="activation",
                    firings=blocks,
                    busy=POST_STAGES,
                    part="Activation unit",
                ),
                *again,
            ],
            channels=channels,
            resources=[Resource(name="dram")],
            clock_hz=self.clock_hz,
            name=name,
        )


def _held(bits: int, times: int, places: int) -> Residence:
    """Blocks of so many bits, each loaded in one piece, of which so many fit."""
    return Residence(
        piece_bits=bits,
        pieces=1,
        held_bits=bits,
        blocks=times,
        places=places,
        moved_bits=bits * times,
    )


class _Walk(NamedTuple):
    """The tiles of a layer: ``blocks`` of ``down`` passes over ``rows`` rows of activations.

    ``halves`` and ``weight_halves`` say of how many times 8 bits activations and weights are.
    """

    rows: int
    halves: int
    weight_halves: int
    down: int
    blocks: int
    inputs: int
    outputs: int
    macs: int

    @property
    def tiles(self) -> int:
        """Tiles of weights, each as often as it is loaded."""
        return self.blocks * self.down

    @property
    def steps(self) -> int:
        """Rows of 8-bit activations that pass a tile."""
        return self.rows * self.halves

    @property
    def passes(self) -> int:
        """Products of 8 bits that make one of the layer's."""
        return self.halves * self.weight_halves

    @property
    def activation_bits(self) -> int:
        """Of a stored activation."""
        return self.halves * ACTIVATION_BITS

    def stored_bits(self, dynamic: bool) -> int:
        """Of an output: an activation of the next layer, or a sum that has no scale yet."""
        return ACCUMULATOR_BITS if dynamic else self.activation_bits
