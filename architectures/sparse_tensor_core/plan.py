"""The tiles of a product in the order they are launched, and what each moves; which tiling is best.

A tiling is chosen as a library's heuristic or search picks it: the estimated time is least.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sparqsim.architectures.sparse_tensor_core.config import (
    COLUMN_ALIGNMENT,
    LEAST_DRAM_HOLD,
    ME,
    MOST_SPLITS,
    MOST_STAGES,
    STEP_BITS,
    SWIZZLE,
    UNHIDDEN,
    Shape,
    Tiling,
)
from sparqsim.architectures.sparse_tensor_core.cores import TensorCores, count_tiles
from sparqsim.architectures.sparse_tensor_core.power import idle_w
from sparqsim.architectures.sparse_tensor_core.unfolding import Image, Touched
from sparqsim.base import InputError


class Bank(NamedTuple):
    """SMs that run the same number of tiles: ``lanes`` from SM ``first`` on, ``tiles`` each."""

    suffix: str
    first: int
    lanes: int
    tiles: int


CLOCK_ROUNDS = 8  # each at least halves what the clock is off where half the time scales with it


@dataclass(frozen=True, eq=False)
class Plan:
    """The tiles of a product. Tile t runs on SM t mod SMs, in wave t div SMs.

    The right operand lies in memory as it is, or is unfolded from an image.
    """

    cores: TensorCores
    shape: Shape
    tiling: Tiling
    image: Image | None = None

    @cached_property
    def order(self) -> NDArray[np.int64]:
        """(product, part of the depth, tile row, tile column) of every tile [tiles, 4].

        Bands of :data:`~.config.SWIZZLE` tile rows, columns within a band, rows within a column;
        clusters of tiles take the place of tiles.
        """
        high = -(-self.shape.rows // self.tiling.rows)
        wide = -(-self.shape.columns // self.tiling.columns)
        deep, broad = self.tiling.cluster
        row = np.arange(high).reshape(-1, deep)  # [clusters, tiles]
        column = np.arange(wide).reshape(-1, broad)
        bands = []
        for band in range(0, len(row), SWIZZLE // deep):
            rows = row[band : band + SWIZZLE // deep]
            down, across = np.broadcast_arrays(rows[None, :, :, None], column[:, None, None, :])
            bands.append(np.stack([down, across], axis=-1).reshape(-1, 2))
        one = np.concatenate(bands)
        parts = self.shape.batch * self.tiling.splits
        which = np.repeat(np.arange(parts), len(one))
        product, part = np.divmod(which, self.tiling.splits)
        return np.column_stack([product, part, np.tile(one, (parts, 1))])

    @cached_property
    def tiles(self) -> int:
        """How many."""
        return len(self.order)

    @cached_property
    def lanes(self) -> int:
        """SMs that have a tile."""
        return min(self.tiles, self.cores.gpu.sms)

    @cached_property
    def waves(self) -> int:
        """Tiles of the busiest SM."""
        return -(-self.tiles // self.lanes)

    @cached_property
    def banks(self) -> list[Bank]:
        """SMs with a tile in the last wave, and those without."""
        full, rest = divmod(self.tiles, self.lanes)
        if not rest:
            return [Bank("", 0, self.lanes, full)]
        return [Bank("", 0, rest, full + 1), Bank("_short", rest, self.lanes - rest, full)]

    @cached_property
    def launches(self) -> int:
        """Kernels launched: the product, and for a sparse one the padding of ragged columns."""
        ragged = self.shape.columns % COLUMN_ALIGNMENT != 0
        return 1 + int(ragged and not self.cores.sparsity.is_dense)

    @cached_property
    def clock_hz(self) -> float:
        """Within the power limit: of the main loop, or of the mean over the product.

        The mean is taken over the time of :meth:`estimate`, computing and moving wholly hidden
        behind each other; the voltage is taken not to change with the clock.
        """
        gpu, clock = self.cores.gpu, self.cores.gpu.clock_hz
        if not gpu.power_limit_w or not gpu.limit_of_mean:
            return self.cores.sustained_clock_hz(self.shape, self.tiling)
        spare, energy = gpu.power_limit_w - idle_w(gpu), self.energy_pj * 1e-12
        for _ in range(CLOCK_ROUNDS):
            seconds = self.before_us * 1e-6 + self.estimate(clock, 0.0) / clock
            clock = min(gpu.clock_hz, clock * spare * seconds / energy)
        return float(clock)

    @property
    def before_us(self) -> float:
        """Time before a kernel: its launch, and a call of the sparse library."""
        gpu = self.cores.gpu
        call = 0.0 if self.cores.sparsity.is_dense else gpu.sparse_call_us
        return gpu.launch_us * self.launches + call

    @property
    def energy_pj(self) -> float:
        """Energy of all steps."""
        each = sum(self.cores.step_energy_pj(self.tiling).values())
        return self.tiles * self.tiling.steps * each

    @cached_property
    def slots(self) -> int:
        """Multiplications of all tiles, those of padding included."""
        return self.tiles * self.tiling.steps * self.cores.slots(self.tiling)

    @cached_property
    def heights(self) -> NDArray[np.int64]:
        """Rows of the output that each tile really has."""
        rows = self.order[:, 2] * self.tiling.rows
        return np.minimum(self.shape.rows - rows, self.tiling.rows)

    @cached_property
    def widths(self) -> NDArray[np.int64]:
        """Columns likewise."""
        columns = self.order[:, 3] * self.tiling.columns
        return np.minimum(self.shape.columns - columns, self.tiling.columns)

    @cached_property
    def _parts(self) -> NDArray[np.int64]:
        """First element of the reduction and the one behind the last of each part [splits, 2]."""
        size = self.tiling.steps * self.tiling.step
        first = np.arange(self.tiling.splits) * size
        return np.column_stack([first, np.minimum(first + size, self.shape.depth)])

    @cached_property
    def _depths(self) -> NDArray[np.int64]:
        """Elements of the reduction that each step really has [splits, steps]."""
        low, high = self._parts.T[:, :, None]
        step = np.arange(self.tiling.steps) * self.tiling.step
        return np.clip(high - low - step, 0, self.tiling.step)

    @cached_property
    def stage_bytes(self) -> NDArray[np.float64]:
        """Bytes shared memory takes in each step of each tile, unfolded [tiles, steps]."""
        cores = self.cores
        each = self.heights * cores.weight_bits / 8 + self.widths * cores.kind.bits / 8
        return each[:, None] * self._depths[self.order[:, 1]]

    @cached_property
    def step_bytes(self) -> NDArray[np.float64]:
        """Bytes each step of each tile brings to its SM: those in memory [tiles, steps]."""
        if self.image is None:
            return self.stage_bytes
        cores, t = self.cores, self.tiling
        loaded = self.image.loaded(t.columns, t.splits * t.steps, t.step)
        loaded = loaded.reshape(-1, t.splits, t.steps)[self.order[:, 3], self.order[:, 1]]
        weights = (self.heights * cores.weight_bits / 8)[:, None] * self._depths[self.order[:, 1]]
        return weights + loaded * cores.kind.bits / 8

    @cached_property
    def read_bytes(self) -> NDArray[np.float64]:
        """Bytes L2 reads for each step of each tile; what a cluster shares once [tiles, steps]."""
        high, wide = self.tiling.cluster
        weights = (self.heights * self.cores.weight_bits / 8)[:, None]
        weights = weights * self._depths[self.order[:, 1]]
        return weights / wide + (self.step_bytes - weights) / high

    @property
    def l2_bytes(self) -> float:
        """Bytes L2 reads for all SMs."""
        return float(self.read_bytes.sum())

    @property
    def shared_bits(self) -> int:
        """Bits of shared memory that an SM's stages take."""
        t = self.tiling
        return math.ceil(8 * t.stages * self.cores.stage_bytes(t.rows, t.columns, t.step))

    @property
    def weight_bits(self) -> int:
        """Bits of all weights as stored: whole groups of each row."""
        s, sparsity = self.shape, self.cores.sparsity
        groups = -(-s.depth // sparsity.group)
        each = groups * sparsity.n * (sparsity.unit * self.cores.kind.bits + sparsity.index_bits)
        return s.batch * s.rows * each

    @property
    def output_bytes(self) -> int:
        """Bytes of the output."""
        s = self.shape
        return s.batch * s.rows * s.columns * self.cores.kind.output_bytes

    @property
    def footprint_bytes(self) -> int:
        """Bytes of both operands and the output."""
        s, cores = self.shape, self.cores
        weights = s.batch * s.rows * s.depth * cores.weight_bits / 8
        places = self.image.elements if self.image else s.batch * s.columns * s.depth
        return math.ceil(weights + places * cores.kind.bits / 8) + self.output_bytes

    @cached_property
    def missed_bytes(self) -> NDArray[np.float64]:
        """Bytes each wave brings from DRAM into L2 [waves].

        Tiles of a wave walk the depth together, so a panel of rows or columns, or a row of an
        image, is fetched once for all of them. What an earlier wave fetched is still there if what
        was read since - what is distinct of each wave between - fits into the part of L2 that
        holds it.
        """
        gpu, t = self.cores.gpu, self.tiling
        product, part, high, wide = self.order.T
        depth = self._depths.sum(axis=1)[part]
        panel = (product * t.splits + part) * (int(high.max()) + 1) + high
        panels = int(panel.max()) + 1
        panel_bytes = np.zeros(panels)
        panel_bytes[panel] = self.heights * depth * self.cores.weight_bits / 8
        touched = self._touched
        each, keys = len(touched.elements), len(touched.first) - 1
        key = product * keys + part * (int(wide.max()) + 1) + wide
        sizes = np.concatenate(
            [panel_bytes, np.tile(touched.elements * self.cores.kind.bits / 8, self.shape.batch)]
        )
        capacity = gpu.l2_mib * 2**20 / gpu.l2_partitions
        before = np.zeros(self.waves + 1)  # distinct bytes read by all waves before each
        last = np.full(len(sizes), -1)
        missed = np.zeros(self.waves)
        for wave in range(self.waves):
            tiles = slice(wave * self.lanes, (wave + 1) * self.lanes)
            of, which = np.divmod(np.unique(key[tiles]), keys)
            begin, count = touched.first[which], np.diff(touched.first)[which]
            inner = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
            piece = touched.pieces[np.repeat(begin, count) + inner] + np.repeat(of, count) * each
            read = np.concatenate([np.unique(panel[tiles]), panels + np.unique(piece)])
            before[wave + 1] = before[wave] + sizes[read].sum()
            seen = last[read]
            held = (seen >= 0) & (before[wave] - before[np.maximum(seen, 0)] <= capacity)
            missed[wave] = sizes[read[~held]].sum()
            last[read] = wave
        return missed

    @property
    def _touched(self) -> Touched:
        """What tiles read of the right operand: their panels of it, or rows of the image."""
        if self.image is not None:
            return self.image.touched(self.tiling.columns, self._parts)
        columns, size = self.shape.columns, self.tiling.columns
        widths = np.minimum(size, columns - np.arange(0, columns, size))
        elements = (self._depths.sum(axis=1)[:, None] * widths).reshape(-1)
        number = np.arange(len(elements))
        return Touched(np.append(number, len(elements)), number, elements)

    @cached_property
    def fetch_steps(self) -> int:
        """Steps that share a request to DRAM, so that it holds the channel for a few cycles."""
        active = self.lanes * self.waves * self.tiling.steps
        mean = self.missed_bytes.sum() / active / self.cores.dram_bytes_per_cycle(self.clock_hz)
        return min(self.tiling.steps, max(1, math.ceil(LEAST_DRAM_HOLD / max(mean, 1e-9))))

    def estimate(self, clock_hz: float, unhidden: float = UNHIDDEN) -> float:
        """Closed form of a product's cycles: waves of steps, each at the rate of what is slowest.

        DRAM may lag behind a wave and catch up in another, so it also bounds the whole; of the
        lesser of the two bounds the share ``unhidden`` is not hidden.
        """
        cores, gpu, tiling = self.cores, self.cores.gpu, self.tiling
        rows = min(tiling.rows, self.shape.rows)
        columns = min(tiling.columns, self.shape.columns)
        moved = cores.stage_bytes(rows, columns, tiling.step)
        high, wide = tiling.cluster
        read = cores.stage_bytes(rows / wide, columns / high, tiling.step)
        dram = cores.dram_bytes_per_cycle(clock_hz)
        step = max(
            cores.step_cycles(tiling),
            moved / gpu.port_bytes_per_cycle,
            self.lanes * read / cores.l2_bytes_per_cycle(clock_hz),
            gpu.dram_latency_cycles / (tiling.stages - 1),
        )
        each: float = gpu.block_start_cycles + gpu.dram_latency_cycles
        each += cores.epilogue_cycles(tiling)
        if gpu.store_waits:
            output = rows * columns * cores.kind.output_bytes
            each += gpu.dram_latency_cycles + self.lanes * output / dram
        walked = np.maximum(tiling.steps * step, self.missed_bytes / dram) + each
        through = (self.missed_bytes.sum() + self.output_bytes) / dram + each
        longer, shorter = sorted((float(walked.sum()), through))[::-1]
        return longer + unhidden * shorter


def tilings(cores: TensorCores, shape: Shape) -> Iterator[Tiling]:
    """Every tiling the library has for a product.

    Raises
    ------
    InputError
        If two stages of none fit shared memory.
    """
    gpu, group = cores.gpu, cores.sparsity.group
    step = -(-(STEP_BITS // cores.kind.bits) // group) * group
    total = -(-shape.depth // step)
    found = False
    for rows, columns in cores.kernels.tiles:
        room = int(gpu.shared_kib * 1024 // cores.stage_bytes(rows, columns, step))
        if room < 2:
            continue
        found = True
        cluster = _cluster(cores, shape, rows, columns)
        whole = Tiling(rows, columns, 1, step, total, min(room, MOST_STAGES), cluster)
        yield whole
        if cores.kernels.splits and count_tiles(shape, whole) < gpu.sms:  # splits are for idle SMs
            for splits in range(2, MOST_SPLITS + 1):
                if total % splits == 0:
                    yield whole._replace(splits=splits, steps=total // splits)
    if not found:
        raise InputError(
            f"two stages of {step} {cores.dtype} elements must fit shared memory for "
            f"{cores.sparsity.name}; enlarge {ME}.shared_kib from {gpu.shared_kib}"
        )


def _cluster(cores: TensorCores, shape: Shape, rows: int, columns: int) -> tuple[int, int]:
    """Tiles that share what they read: the greater panel, where so many are side by side."""
    tiles = cores.kernels.cluster
    choices = [((tiles, 1), columns * cores.kind.bits), ((1, tiles), rows * cores.weight_bits)]
    for (high, wide), _ in sorted(choices, key=lambda choice: -choice[1]):
        fit = -(-shape.rows // rows) % high == 0 and -(-shape.columns // columns) % wide == 0
        if fit and SWIZZLE % high == 0 and cores.gpu.sms % tiles == 0:
            return high, wide
    return 1, 1


def best_tiling(cores: TensorCores, shape: Shape, image: Image | None = None) -> Tiling:
    """The tiling whose estimated time is least; of equals the first of :data:`~.config.TILES`."""

    def estimate(tiling: Tiling) -> float:
        return Plan(cores, shape, tiling, image).estimate(cores.gpu.clock_hz)

    return min(tilings(cores, shape), key=estimate)
