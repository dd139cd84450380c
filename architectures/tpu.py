"""TPU v1 (ISCA 2017): a 256 x 256 weight-stationary array of 8-bit multipliers for inference.

Weights come from DRAM through a FIFO of four 64 KiB tiles; a tile is shifted into the array, 256
cycles, while the one before it multiplies. Activations stay on the chip: they stream from the
24 MiB unified buffer through the array, a row of 256 a cycle, into 4096 rows of 256 accumulators,
half of which fill while the other half leaves through the activation unit, back to the unified
buffer. So a layer is

    weight_dma => weight FIFO => array -> drain -> activation => unified buffer

walked row part by row part (at most half the accumulators), output columns, reduction. With little
reuse of a weight (batch x pixels) the DRAM's 34 GB/s are all that counts.

Left out: the host and its PCIe link, DRAM latency, the scheduling that overlaps layers, pooling and
element-wise work ("non-matrix cycles"). Weights are stored in whole tiles (assumed). Energies are
not published: a shipped table prices a run. Source: Jouppi et al., ISCA 2017, sections 2 and 4.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from architectures.array_machine import (
    KIB,
    ArrayMachine,
    Operand,
    Timing,
    Work,
    borrowed,
    shipped_energies,
    stored_integers,
)
from architectures.systolic import POST_STAGES
from architectures.tiling import ConvShape, Cost, Mapping, Residence, Traffic
from simulator.energy.tables import EnergyTable
from simulator.mac import dense
from simulator.netlist import Actor, Channel, Netlist, Resource
from sparqsim_base import InputError
from workloads.layers import Layer

WEIGHT_BITS = ACTIVATION_BITS = 8  # published
ACCUMULATOR_BITS = 32  # published
SIDE = 256  # published
TILE_KIB = SIDE * SIDE * WEIGHT_BITS // KIB  # 64
CACTI = shipped_energies(
    "cacti-aladdin",
    node_nm=28.0,
    multipliers=SIDE * SIDE,
    buffers_kib=(24 * 1024, 4 * TILE_KIB, 4 * 1024),
    dram="dram.ddr3",
)


class TPU(ArrayMachine, frozen=True, kw_only=True):
    """The configuration of the paper; every number published.

    ``input_buffer_kib`` is the unified buffer, ``weight_buffer_kib`` the weight FIFO and
    ``output_buffer_kib`` the accumulators.
    """

    title: ClassVar[str] = "TPU v1 (ISCA 2017): 256 x 256 weight-stationary array, 8 bits"
    published: ClassVar[EnergyTable] = borrowed(CACTI, "tpu", "assumed: the TPU's are unpublished")

    rows: int = SIDE
    columns: int = SIDE
    input_buffer_kib: int = 24 * 1024
    weight_buffer_kib: int = 4 * TILE_KIB
    output_buffer_kib: int = 4 * 1024
    dram_bytes_per_s: int = 34_000_000_000
    clock_mhz: float = 700.0
    node_nm: float = 28.0

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

    def widths(self, layer: Layer) -> tuple[int, int]:
        """8 bits; a narrower layer gains nothing."""
        widest = max(layer.activation_bits or 0, layer.weight_bits or 0)
        if widest > WEIGHT_BITS:
            raise InputError(f"layer {layer.name!r} needs {widest} bits, the TPU multiplies 8")
        return (ACTIVATION_BITS, WEIGHT_BITS)

    def store(self, values: NDArray[Any], bits: int, *, weights: bool, groups: int) -> Operand:
        """Symmetric integers, unsigned where no activation is negative."""
        return stored_integers(values, bits, weights=weights)

    def multiply(
        self, rows: NDArray[Any], columns: NDArray[Any], x: Operand, w: Operand,
        widths: tuple[int, int],
    ) -> NDArray[np.integer]:  # fmt: skip
        """Integer products."""
        out = np.zeros((len(rows), columns.shape[1]), np.int32)
        dense.gemm(rows, columns, out)
        return out

    def timing(
        self,
        shape: ConvShape,
        widths: tuple[int, int],
        name: str,
        mapping: Mapping | None = None,
        work: Work | None = None,
    ) -> Timing:
        """The block diagram walked tile by tile; there is nothing to search.

        Raises
        ------
        InputError
            If a mapping is given.
        """
        if mapping is not None:
            raise InputError("the TPU walks its tiles in one way; leave the mapping out")
        pixels = shape.batch * shape.out_height * shape.out_width
        parts = -(-pixels // self.part_rows)
        steps = -(-pixels // parts)
        across = -(-shape.out_channels // self.columns)
        down = -(-shape.taps * shape.in_channels // self.rows)
        blocks = shape.groups * parts * across
        tiles = blocks * down
        busy = max(steps, self.rows)  # the next tile is shifted in meanwhile
        drain = self.rows + self.columns - 1
        netlist = self._netlist(name, tiles, down, busy, steps, drain)
        traffic = Traffic(
            input_buffer_read=tiles * steps * self.rows * ACTIVATION_BITS,
            input_buffer_write=shape.groups * pixels * shape.out_channels * ACTIVATION_BITS,
            weight_buffer_read=tiles * self.tile_bits,
            weight_buffer_write=tiles * self.tile_bits,
            output_buffer_read=blocks * steps * self.columns * ACCUMULATOR_BITS,
            output_buffer_write=tiles * steps * self.columns * ACCUMULATOR_BITS,
            dram_read=tiles * self.tile_bits,
            dram_write=0,
        )
        load, all_loads = (self._dram_cycles(n) for n in (1, tiles))
        computing = tiles * busy
        analytic = Cost(
            tiles=tiles,
            compute_cycles=tiles * steps,
            bubble_cycles=tiles * (busy - steps) + self.rows + drain,
            latency_cycles=load,
            stall_cycles=load + max(0, all_loads - load - (computing - busy)),
            residences=tuple(
                Residence(absorbed=0, held_bits=bits, transfers=times)
                for bits, times in (
                    (pixels * shape.taps * shape.in_channels * ACTIVATION_BITS, 1),
                    (self.tile_bits, tiles),
                    (steps * self.columns * ACCUMULATOR_BITS, blocks),
                )
            ),  # type: ignore[arg-type]
            traffic=traffic,
        )
        height, width = shape.patch(shape.out_height, shape.out_width)
        held = shape.groups * shape.batch * height * width * shape.in_channels
        return Timing(
            netlist=netlist,
            analytic=analytic,
            products_per_step=self.rows * self.columns,
            repeats=1,
            capacities=tuple(size * KIB for size in self.buffers_kib),  # type: ignore[arg-type]
            used=(
                (held + shape.groups * pixels * shape.out_channels) * ACTIVATION_BITS,
                min(tiles, self.fifo_tiles) * self.tile_bits,
                min(blocks, 2) * steps * self.columns * ACCUMULATOR_BITS,
            ),
            rule="fill and drain of the array are charged once a layer; a tile takes at least the "
            f"{self.rows} cycles in which the next one is shifted in",
        )

    def _dram_cycles(self, tiles: int) -> int:
        """Cycles of the clock for that many tiles of weights, rounded up."""
        clock = round(self.clock_hz)
        return -(-tiles * self.tile_bits * clock // (8 * self.dram_bytes_per_s))

    def _netlist(
        self, name: str, tiles: int, down: int, busy: int, steps: int, drain: int
    ) -> Netlist:
        number = np.arange(tiles)
        opens = (number % down == 0).astype(np.int64)
        closes = (number % down == down - 1).astype(np.int64)
        blocks = tiles // down
        waits = opens.copy()
        waits[np.flatnonzero(opens)[:2]] = 0  # two halves are free at the start
        loads = np.maximum(np.diff([self._dram_cycles(n) for n in range(tiles + 1)]), 1)
        shown = loads.copy()
        shown[0] += self.rows  # the first tile is shifted in behind nothing
        return Netlist(
            actors=[
                Actor(name="weight_dma", busy=loads, latency=shown, resource="dram"),
                Actor(name="array", firings=tiles, busy=busy, part="Matrix multiply unit"),
                Actor(name="drain", firings=blocks, busy=0, latency=drain, part="Drain"),
                Actor(  # rows leave as the last pass over them finishes
                    name="activation",
                    firings=blocks,
                    busy=steps,
                    latency=POST_STAGES,
                    part="Activation unit",
                ),
            ],
            channels=[
                Channel(
                    name="weights", source="weight_dma", target="array", capacity=self.fifo_tiles
                ),
                Channel(name="sums", source="array", target="drain", capacity=2, produce=closes),
                Channel(name="drained", source="drain", target="activation", capacity=2),
                Channel(
                    name="accumulators_free",
                    source="activation",
                    target="array",
                    capacity=2,
                    consume=waits,
                ),
            ],
            resources=[Resource(name="dram")],
            clock_hz=self.clock_hz,
            name=name,
        )
