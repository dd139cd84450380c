"""Sparse tensor cores: a GPU's GEMM with weights kept N of M, and the same GEMM dense.

The weights are the left operand (rows: output features), the activations the right one (columns:
tokens, pixels); N of every M neighbours along the reduction are kept, 2:4 for fp16, bf16 and int8,
1:2 for tf32, two of four pairs for int4. The sparse matrix multiply takes the same cycles as a
dense one of N/M of its depth, so the multipliers' gain is M/N whatever the values are.

A library cuts the output into thread-block tiles, one an SM at a time, and walks the depth in
steps. For each step ``cp.async`` brings a slice of both operands into one of several stages of
shared memory - from DRAM, or from L2 if another SM of the same wave or an earlier wave brought it
there - while the warps multiply the stage before: each loads fragments from shared memory and feeds
its quarter's tensor core. Then the tile's epilogue writes the output, and the SM takes the next
tile. The last wave of tiles leaves SMs idle.

    launch -> issue -> dram_fetch -> l2_read -> sm_port => stages => mma -> epilogue -> store

One firing is one step of one SM (``dram_fetch``: a few steps, ``epilogue``: a tile, ``store``: a
part of one).
DRAM and L2 are resources that all SMs share; shared memory bounds a step of ``mma`` as the tensor
cores do. Tile and split of the depth are those whose estimated time is least, as a library's
heuristic or search picks them.

Left out: the instruction stream within a step (fragment loads are taken to hide behind the
multiply; a barrier is paid a step), two blocks sharing an SM, hardware dispatch of a late SM's
tiles to others, the order of split-K sums between SMs, bank conflicts, DRAM rows and refresh (an
efficiency), TLBs, and clocks that change during a run. Tiles of a wave miss L2 in equal shares.

Sources: NVIDIA A100 and H100 architecture white papers; Mishra et al., Accelerating sparse deep
neural networks, 2021; CUTLASS (tiles, stages, swizzle); Luo et al., arXiv 2402.13499 (latencies).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from sparqsim.architectures.machine import Figure, Machine, Program
from sparqsim.base import InputError
from sparqsim.simulator.energy.tables import Basis, get_table
from sparqsim.simulator.mac import dense as unfolding
from sparqsim.simulator.mac import sparse_tensor_core as mac
from sparqsim.simulator.netlist import Actor, Channel, Netlist, Pattern, Resource
from sparqsim.simulator.report import EnergyPart, Macs, Memory, Verification, memory_use
from sparqsim.simulator.timeline import Timeline
from sparqsim.workloads import formats
from sparqsim.workloads.encodings.csc import CSC
from sparqsim.workloads.encodings.nm import NMSparse
from sparqsim.workloads.layers import Conv2d, Linear
from sparqsim.workloads.prune import NM, mask
from sparqsim.workloads.tensors import LayerTensors

Dtype = Literal["fp16", "bf16", "tf32", "int8", "int4"]


class Kind(NamedTuple):
    """What a number format is to the tensor core.

    ``rate`` is multiplications a cycle against fp16; ``block`` the products of a block against
    fp16's; ``least`` the least exponent; ``native`` the pattern (n, m, elements of a unit).
    """

    bits: int
    rate: float
    block: float
    least: int
    output_bytes: int
    native: tuple[int, int, int]


# published: A100 white paper (rates), PTX ISA (patterns), Fasi et al. (blocks)
KINDS: dict[str, Kind] = {
    "fp16": Kind(16, 1.0, 1.0, -14, 2, (2, 4, 1)),
    "bf16": Kind(16, 1.0, 1.0, -126, 2, (2, 4, 1)),
    "tf32": Kind(32, 0.5, 0.5, -126, 4, (1, 2, 1)),
    "int8": Kind(8, 2.0, 0.0, 0, 4, (2, 4, 1)),
    "int4": Kind(4, 4.0, 0.0, 0, 4, (2, 4, 2)),
}

# published: shapes of CUTLASS's sm80 tensor-op kernels, rows x columns
TILES = ((256, 128), (128, 256), (128, 128), (256, 64), (64, 256), (128, 64), (64, 128), (64, 64))
STEP_BITS = 1024  # published: CUTLASS steps of 64 fp16, 32 tf32, 128 int8, 256 int4
MOST_STAGES = 6  # published: the deepest of CUTLASS's sm80 kernels
SWIZZLE = 8  # published: rows of tiles CUTLASS's profiler kernels take together
MOST_SPLITS = 16  # assumed: what a library's heuristic tries
COLUMN_ALIGNMENT = 8  # published: PyTorch pads the dense operand of a 2:4 product to 8 columns
UNHIDDEN = 0.125  # assumed: of the shorter of computing and moving; only picks the tiling
LEAST_DRAM_HOLD = 4  # cycles; shorter requests are joined, so that whole cycles round off little
MOST_DRAM_HOLD = 16  # cycles; longer writes are cut, so that reads can go between them
ACCUMULATOR_BYTES = 4
MMA = (16, 8, 256)  # published: rows, columns, bits of kept depth of the PTX ISA's largest mma
REGISTERS_KIB = 64  # published: register file of a quarter of an SM, A100 white paper
L2_SLICE_KIB = 512  # published: A100 white paper
# Multiply and add of a product in the names of the energy table. bf16 and tf32 are taken as fp16,
# int4 as a quarter of int8's multiplier.
OPERATIONS: dict[str, tuple[str, float, str]] = {
    "fp16": ("multiply.fp16", 1.0, "add.fp32"),
    "bf16": ("multiply.fp16", 1.0, "add.fp32"),
    "tf32": ("multiply.fp16", 1.0, "add.fp32"),
    "int8": ("multiply.int8", 1.0, "add.int32"),
    "int4": ("multiply.int8", 0.25, "add.int32"),
}


class Shape(NamedTuple):
    """``batch`` products of ``rows x depth`` weights by ``depth x columns`` activations."""

    rows: int
    columns: int
    depth: int
    batch: int = 1

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the dense product."""
        return self.rows * self.columns * self.depth * self.batch


class Sparsity(NamedTuple):
    """``n`` of ``m`` units of ``unit`` neighbours each are kept; 1 of 1 is dense."""

    n: int
    m: int
    unit: int = 1

    @property
    def kept(self) -> int:
        """Elements kept of a group."""
        return self.n * self.unit

    @property
    def group(self) -> int:
        """Elements of a group."""
        return self.m * self.unit

    @property
    def index_bits(self) -> int:
        """Bits of a kept unit's position: ceil(log2 m)."""
        return (self.m - 1).bit_length()

    @property
    def is_dense(self) -> bool:
        """Whether nothing is left out."""
        return self.n == self.m

    def stored_bits(self, value_bits: int) -> float:
        """Bits stored for each element of the dense matrix, positions included."""
        return self.n / self.m * (value_bits + self.index_bits / self.unit)


class Tiling(NamedTuple):
    """How a product is cut: tile of the output, parts of the depth, steps, stages.

    ``step`` is the depth of a step in elements, ``steps`` of one part of the depth.
    """

    rows: int
    columns: int
    splits: int
    step: int
    steps: int
    stages: int


class SparseTensorCore(Machine, frozen=True, kw_only=True):
    """Configuration of a GPU with sparse tensor cores; the defaults are an A100 of 40 GB (SXM4).

    Attributes
    ----------
    dtype
        Format of both operands: fp16, bf16, tf32, int8 or int4.
    pattern
        ``native`` (2:4, tf32 1:2, int4 4:8 by pairs), ``dense``, or N:M. The A100 and its kin do
        the native one alone; others need ``any_pattern``.
    sms
        Streaming multiprocessors.
    clock_hz
        Clock frequency.
    fp16_macs_per_sm
        Dense fp16 multiply-accumulates of an SM in a cycle, over its four tensor cores.
    any_pattern
        Whether the metadata select takes any N:M, at a gain of M/N.
    int4
        Whether there is an int4 mode.
    float_block
        Products of fp16 that are added at once.
    extra_bits
        Bits the aligner keeps beyond the 23 of fp32.
    shared_kib
        Shared memory that one thread block can have.
    shared_bytes_per_cycle
        Bandwidth of an SM's shared memory.
    port_bytes_per_cycle
        Bandwidth from L2 into an SM.
    warp_rows
        Rows of the part of a tile whose operands are read from shared memory once.
    warp_columns
        Columns of that part.
    dense_issue
        Share of the peak that back-to-back dense instructions reach.
    sparse_issue
        Share of it that back-to-back sparse instructions reach.
    barrier_cycles
        Cycles of a step in which the tensor cores wait for the barrier and the first fragments.
    block_start_cycles
        Cycles until a new thread block asks for its first data.
    l2_mib
        Capacity of L2.
    l2_partitions
        Parts of L2 that each hold a copy of what all SMs read.
    l2_bytes_per_cycle
        Read bandwidth of L2.
    l2_latency_cycles
        Latency of a read that hits L2.
    dram_gb
        Capacity of DRAM in 10^9 bytes.
    dram_gbytes_per_s
        Peak bandwidth of DRAM.
    dram_efficiency
        Share of the peak that can be had.
    dram_latency_cycles
        Latency of a read that misses L2.
    launch_us
        Time of a kernel launch.
    sparse_call_us
        Further time of a call of the sparse library.
    dense_split_k
        Whether the dense library may split the depth over SMs.
    sparse_split_k
        Whether the sparse library may.
    tdp_w
        Power of the board at its dense peak.
    idle_w
        Power of the idle board.
    power_limit_w
        Power that lowers the clock where the main loop would exceed it; 0 is no limit.
    """

    name: ClassVar[str] = "sparse-tensor-core"
    title: ClassVar[str] = "Sparse tensor core (NVIDIA Ampere, N:M): GEMM on a GPU"

    dtype: Dtype = "fp16"
    pattern: str = "native"
    sms: int = 108
    clock_hz: float = 1.41e9
    fp16_macs_per_sm: int = 1024
    any_pattern: bool = False
    int4: bool = True
    float_block: int = 8
    extra_bits: int = 1
    shared_kib: int = 163
    shared_bytes_per_cycle: int = 128
    port_bytes_per_cycle: int = 64
    warp_rows: int = 64
    warp_columns: int = 64
    dense_issue: float = 1000 / 1024
    sparse_issue: float = 0.95
    barrier_cycles: int = 30
    block_start_cycles: int = 500
    l2_mib: float = 40.0
    l2_partitions: int = 2
    l2_bytes_per_cycle: int = 5120
    l2_latency_cycles: int = 261
    dram_gb: float = 40.0
    dram_gbytes_per_s: float = 1555.0
    dram_efficiency: float = 0.93
    dram_latency_cycles: int = 466
    launch_us: float = 3.0
    sparse_call_us: float = 0.0
    dense_split_k: bool = True
    sparse_split_k: bool = False
    tdp_w: float = 400.0
    idle_w: float = 50.0
    power_limit_w: float = 0.0

    def __post_init__(self) -> None:
        for name in _WHOLE:
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 1 << 24:
                raise InputError(f"{_ME}.{name} must be a whole number from 1, got {value!r}")
        for name, (low, high) in _REAL.items():
            value = getattr(self, name)
            real = isinstance(value, int | float) and not isinstance(value, bool)
            if not (real and low <= value <= high):
                raise InputError(f"{_ME}.{name} must be {low:g} to {high:g}, got {value!r}")
        if self.dtype not in KINDS:
            raise InputError(f"{_ME}.dtype must be one of {', '.join(KINDS)}, got {self.dtype!r}")
        if self.dtype == "int4" and not self.int4:
            raise InputError(f"{_ME}.dtype: this machine has no int4 mode")
        if self.dram_latency_cycles < self.l2_latency_cycles:
            raise InputError(f"{_ME}.dram_latency_cycles must be at least that of L2")
        if self.tdp_w <= self.idle_w:
            raise InputError(f"{_ME}.tdp_w must exceed idle_w, {self.idle_w}, got {self.tdp_w}")
        if self.power_limit_w and self.power_limit_w <= self.idle_w:
            raise InputError(
                f"{_ME}.power_limit_w must be 0 (no limit) or exceed idle_w, {self.idle_w}, "
                f"got {self.power_limit_w}"
            )
        if not any(True for _ in self._tilings(Shape(64, 64, self.sparsity.group))):
            raise InputError(
                f"{_ME}.shared_kib is too small for two stages of the smallest tile, got "
                f"{self.shared_kib}"
            )

    @property
    def kind(self) -> Kind:
        """The number format's row of :data:`KINDS`."""
        return KINDS[self.dtype]

    @property
    def sparsity(self) -> Sparsity:
        """The pattern as numbers; raises InputError if the machine does not do it."""
        native = Sparsity(*self.kind.native)
        if self.pattern == "native":
            return native
        if self.pattern == "dense":
            return Sparsity(1, 1)
        n, colon, m = self.pattern.partition(":")
        if not (colon and n.isdecimal() and m.isdecimal() and 1 <= int(n) <= int(m) <= 256):
            raise InputError(
                f"{_ME}.pattern must be native, dense or N:M with 1 <= N <= M <= 256, "
                f"got {self.pattern!r}"
            )
        if (int(n), int(m)) == (native.kept, native.group):
            return native
        if int(n) == int(m):
            return Sparsity(1, 1)
        if not self.any_pattern:
            raise InputError(
                f"{_ME}.pattern: this machine does {native.kept}:{native.group} for {self.dtype}, "
                f"got {self.pattern}; set any_pattern for a metadata select that does more"
            )
        return Sparsity(int(n), int(m))

    @property
    def dense(self) -> SparseTensorCore:
        """The same machine with dense weights."""
        return msgspec.structs.replace(self, pattern="dense")

    @property
    def macs_per_sm(self) -> int:
        """Multiplications an SM does in a cycle in this format, dense or sparse."""
        return max(1, int(self.fp16_macs_per_sm * self.kind.rate))

    @property
    def fraction_bits(self) -> int:
        """Bits the aligner keeps below the largest exponent."""
        return 23 + self.extra_bits

    @property
    def block(self) -> int:
        """Products of a block in this format (floats)."""
        return max(1, int(self.float_block * self.kind.block))

    # ------------------------------------------------------------------ energy

    def step_energy_pj(self, tiling: Tiling) -> dict[str, float]:
        """Energy of a tile's step: multiplying, and operands out of each memory on their way.

        The parts are to each other as in the ``horowitz`` table, at its node; all are scaled alike
        so that the dense peak takes ``tdp_w``. A sparse step of as many multiplications takes
        more: the activations it picks from are M/N times as many.
        """
        peak = Tiling(*TILES[0], 1, STEP_BITS // self.kind.bits, 1, 1)
        dense = self.dense
        peak_pj = (self.tdp_w - self.idle_w) / (self.sms * self.macs_per_sm * self.clock_hz) * 1e12
        scale = peak_pj * dense._slots(peak) / sum(dense._table_pj(peak).values())
        return {part: scale * energy for part, energy in self._table_pj(tiling).items()}

    def _table_pj(self, tiling: Tiling) -> dict[str, float]:
        """Energy of a step as the table has it, wires and control left out."""
        energies = get_table("horowitz")
        multiply, share, add = OPERATIONS[self.dtype]
        each = share * energies.entry(multiply).value + energies.entry(add).value

        def per_byte(capacity_kib: float) -> float:
            return 8 * energies.sram(capacity_kib=capacity_kib).value

        rows, columns, bits = MMA
        depth = bits / self.kind.bits
        stage = self._stage_bytes(tiling.rows, tiling.columns, tiling.step)
        operands = self._stage_bytes(rows, columns, 1) * depth * self.sparsity.m / self.sparsity.n
        sums = 2 * rows * columns * ACCUMULATOR_BYTES
        slots = self._slots(tiling)
        return {
            "multiplying": slots * each,
            "registers": slots / (rows * columns * depth) * (operands + sums)
            * per_byte(REGISTERS_KIB),
            "shared memory": self._shared_bytes(tiling) * per_byte(self.shared_kib),
            "l2": stage * per_byte(L2_SLICE_KIB),
        }  # fmt: skip

    # ------------------------------------------------------------------ tiling

    def _stage_bytes(self, rows: int, columns: int, step: int) -> float:
        return step * (
            rows * self.sparsity.stored_bits(self.kind.bits) / 8 + columns * self.kind.bits / 8
        )

    def _tilings(self, shape: Shape) -> Iterator[Tiling]:
        """Every tiling the library has for a product."""
        group = self.sparsity.group
        step = -(-(STEP_BITS // self.kind.bits) // group) * group
        total = -(-shape.depth // step)
        split = self.dense_split_k if self.sparsity.is_dense else self.sparse_split_k
        for rows, columns in TILES:
            room = int(self.shared_kib * 1024 // self._stage_bytes(rows, columns, step))
            if room < 2:
                continue
            whole = Tiling(rows, columns, 1, step, total, min(room, MOST_STAGES))
            yield whole
            if split and _count_tiles(shape, whole) < self.sms:  # splits are for idle SMs
                for splits in range(2, MOST_SPLITS + 1):
                    if total % splits == 0:
                        yield whole._replace(splits=splits, steps=total // splits)

    def step_cycles(self, tiling: Tiling) -> int:
        """Cycles of a tile's step: those of the tensor cores or of shared memory, and a barrier."""
        return max(self._tensor_cycles(tiling), self._shared_cycles(tiling)) + self.barrier_cycles

    def _slots(self, tiling: Tiling) -> int:
        """Multiplications of a tile's step."""
        return tiling.rows * tiling.columns * tiling.step * self.sparsity.n // self.sparsity.m

    def _tensor_cycles(self, tiling: Tiling) -> int:
        issue = self.dense_issue if self.sparsity.is_dense else self.sparse_issue
        return math.ceil(self._slots(tiling) / (self.macs_per_sm * issue))

    def _shared_cycles(self, tiling: Tiling) -> int:
        """Cycles in which shared memory takes a stage in and gives each warp its fragments."""
        return math.ceil(self._shared_bytes(tiling) / self.shared_bytes_per_cycle)

    def _shared_bytes(self, tiling: Tiling) -> float:
        written = self._stage_bytes(tiling.rows, tiling.columns, tiling.step)
        rows = min(self.warp_rows, tiling.rows)
        columns = min(self.warp_columns, tiling.columns)
        warps = -(-tiling.rows // rows) * -(-tiling.columns // columns)
        read = warps * self._stage_bytes(rows, columns, tiling.step)
        return written + read

    def _epilogue_cycles(self, tiling: Tiling) -> int:
        """Cycles in which accumulators go to shared memory and back, in rows; and split sums."""
        size = tiling.rows * tiling.columns * ACCUMULATOR_BYTES
        cycles = 2 * size / self.shared_bytes_per_cycle
        if tiling.splits > 1:
            cycles += 2 * size / self.port_bytes_per_cycle
        return math.ceil(cycles)

    def dram_bytes_per_cycle(self, clock_hz: float) -> float:
        """Bytes DRAM moves in a cycle of a clock."""
        return self.dram_gbytes_per_s * 1e9 * self.dram_efficiency / clock_hz

    def main_loop_power_w(self, shape: Shape, tiling: Tiling | None = None) -> float:
        """Power in the main loop at the full clock: ``idle_w``, and the energy of its steps."""
        tiling = tiling or self.tiling(shape)
        busy = min(_count_tiles(shape, tiling), self.sms)
        steps_per_s = busy / self.step_cycles(tiling) * self.clock_hz
        return self.idle_w + sum(self.step_energy_pj(tiling).values()) * 1e-12 * steps_per_s

    def sustained_clock_hz(self, shape: Shape, tiling: Tiling) -> float:
        """The clock at which the main loop stays within the power limit.

        The voltage is taken not to change with the clock.
        """
        full = self.main_loop_power_w(shape, tiling)
        if not self.power_limit_w or full <= self.power_limit_w:
            return self.clock_hz
        return self.clock_hz * (self.power_limit_w - self.idle_w) / (full - self.idle_w)

    def tiling(self, shape: Shape) -> Tiling:
        """The tiling whose estimated time is least; of equals the first of :data:`TILES`."""
        return min(self._tilings(shape), key=lambda tiling: self._estimate(shape, tiling))

    def _estimate(self, shape: Shape, tiling: Tiling) -> float:
        """Closed form of a product's cycles: waves of steps, each at the rate of what is slowest.

        DRAM may lag behind a wave and catch up in another, so it also bounds the whole; of the
        lesser of the two bounds a share is not hidden.
        """
        plan = _Plan(self, shape, tiling)
        rows, columns = min(tiling.rows, shape.rows), min(tiling.columns, shape.columns)
        moved = self._stage_bytes(rows, columns, tiling.step)
        dram = self.dram_bytes_per_cycle(self.clock_hz)
        step = max(
            self.step_cycles(tiling),
            moved / self.port_bytes_per_cycle,
            plan.lanes * moved / self.l2_bytes_per_cycle,
            self.dram_latency_cycles / (tiling.stages - 1),
        )
        each = self.block_start_cycles + self.dram_latency_cycles + self._epilogue_cycles(tiling)
        walked = np.maximum(tiling.steps * step, plan.missed_bytes / dram) + each
        through = (plan.missed_bytes.sum() + plan.output_bytes) / dram + each
        longer, shorter = sorted((float(walked.sum()), through))[::-1]
        return longer + UNHIDDEN * shorter

    # ------------------------------------------------------------------ lowering

    def gemm(
        self,
        rows: int,
        columns: int,
        depth: int,
        batch: int = 1,
        name: str = "gemm",
        tiling: Tiling | None = None,
    ) -> Program:
        """The timing of a product of that shape; it does not depend on the values.

        Parameters
        ----------
        rows, columns, depth, batch
            Rows of the weights (M), columns of the activations (N), the reduction (K), products.
        name
            Of the layer in the report.
        tiling
            Cut it so and not as the library would.

        Raises
        ------
        InputError
            If a size is not a whole number from 1.
        """
        shape = Shape(rows, columns, depth, batch)
        for field, value in shape._asdict().items():
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise InputError(f"gemm: {field} must be a whole number from 1, got {value!r}")
        kept = -(-depth // self.sparsity.group) * self.sparsity.kept
        macs = Macs(dense=shape.macs, effectual=rows * columns * min(kept, depth) * batch)
        return self._program(
            _Plan(self, shape, tiling or self.tiling(shape)),
            name,
            "shape alone",
            macs,
            notes=["timing only: kept weights and activations count as effectual, zero or not"],
        )

    def lower(self, tensors: LayerTensors) -> Program:
        """Prune, quantize and encode a layer, multiply it, and lay its tiles out over the SMs.

        Weights that do not fit the pattern are pruned to it by magnitude. Floats are rounded to
        the format; integers are symmetric, one scale for each operand. Outputs are accumulators
        with the bias added, before ReLU.

        Raises
        ------
        InputError
            If the layer is neither fully connected nor a convolution.
        """
        weights, columns = _operands(tensors)
        shape = Shape(weights.shape[1], columns.shape[1], weights.shape[2], len(weights))
        work = _Work(self, weights, columns, tensors.bias, self.tiling(shape))
        notes = []
        if work.pruned:
            notes.append(
                f"pruned to {self.sparsity.kept}:{self.sparsity.group} by magnitude: "
                f"{work.pruned} of {work.nonzeros} non-zero weights were set to zero"
            )
        notes.append("outputs are accumulators with bias, before ReLU and conversion")
        return self._program(
            _Plan(self, shape, work.tiling),
            tensors.layer.name,
            tensors.source,
            Macs(dense=tensors.layer.macs, effectual=work.effectual),
            notes,
            work,
        )

    def _program(
        self, plan: _Plan, name: str, inputs: str, macs: Macs, notes: list[str],
        work: _Work | None = None,
    ) -> Program:  # fmt: skip
        shape, tiling = plan.shape, plan.tiling
        slots = plan.slots
        notes = [
            f"{plan.tiles} tiles of {tiling.rows} x {tiling.columns}"
            + (f", depth split in {tiling.splits}" if tiling.splits > 1 else "")
            + f", {tiling.steps} step{'s' * (tiling.steps > 1)} of {tiling.step}, "
            f"{tiling.stages} stages, "
            f"{plan.waves} wave{'s' * (plan.waves > 1)} on {self.sms} SMs",
            *notes,
        ]
        if plan.clock_hz < self.clock_hz:
            notes.append(
                f"the power limit holds the clock at {plan.clock_hz / 1e6:.0f} MHz "
                f"of {self.clock_hz / 1e6:.0f}"
            )
        weight_bits = shape.batch * shape.rows * shape.depth
        weight_bits = math.ceil(weight_bits * self.sparsity.stored_bits(self.kind.bits))
        written = 8 * plan.output_bytes

        def counters(timeline: Timeline) -> dict[str, int]:
            return {
                "tiles": plan.tiles,
                "waves": plan.waves,
                "steps": plan.tiles * tiling.steps,
                "stages": tiling.stages,
                "multiplier_slots": slots,
                "launches": plan.launches,
                "weight_bits": weight_bits if work is None else work.stored_bits,
            }

        def memory(timeline: Timeline) -> dict[str, Memory]:
            seconds = timeline.seconds
            l2_bits = 8 * int(plan.l2_bytes)
            return {
                "shared": memory_use(
                    capacity_bits=self.sms * self.shared_kib * 8192,
                    used_bits=self.sms * plan.shared_bits,
                    read_bits=plan.tiles * tiling.steps * self._fragment_bits(tiling),
                    written_bits=l2_bits,
                    seconds=seconds,
                    source="capacity published; fragments derived from the warp tile",
                ),
                "l2": memory_use(
                    capacity_bits=int(self.l2_mib * 2**23),
                    used_bits=min(8 * plan.footprint_bytes, int(self.l2_mib * 2**23)),
                    read_bits=l2_bits,
                    written_bits=written,
                    seconds=seconds,
                    source="capacity published; hits derived from tile order",
                ),
                "dram": memory_use(
                    capacity_bits=int(self.dram_gb * 8e9),
                    used_bits=8 * plan.footprint_bytes,
                    read_bits=8 * int(plan.missed_bytes.sum()),
                    written_bits=written,
                    seconds=seconds,
                    source="capacity published; misses derived from tile order",
                ),
            }

        def energy(timeline: Timeline) -> list[EnergyPart]:
            steps = plan.tiles * tiling.steps
            return [
                EnergyPart(
                    part="idle board",
                    energy_pj=self.idle_w * timeline.seconds * 1e12,
                    basis=Basis.ASSUMED,
                    source=f"{self.idle_w:g} W over the run",
                ),
                *(
                    EnergyPart(
                        part=part,
                        energy_pj=steps * each,
                        basis=Basis.ASSUMED,
                        source="a share of TDP less idle power at the dense peak; shares by the "
                        "horowitz table",
                    )
                    for part, each in self.step_energy_pj(tiling).items()
                ),
            ]

        return Program(
            netlist=plan.netlist(name, work),
            layer=name,
            inputs=inputs,
            macs=macs,
            worker="mma",
            multipliers=self.sms * self.macs_per_sm,
            outputs=None if work is None else work.outputs,
            verify=None if work is None else work.verify,
            counters=counters,
            memory=memory,
            energy=energy,
            executed=None if work is None else work.executed,
            notes=notes,
        )

    def _fragment_bits(self, tiling: Tiling) -> int:
        written = self._stage_bytes(tiling.rows, tiling.columns, tiling.step)
        return 8 * math.ceil(self._shared_bytes(tiling) - written)

    def datasheet(self) -> list[Figure]:
        """The numbers of this configuration; sources are those of the A100 unless a preset's."""
        sources = SOURCES[_preset_of(self)]
        peak = 2 * self.sms * self.macs_per_sm * self.clock_hz / 1e12
        gain = self.sparsity.m / self.sparsity.n
        figures = [
            Figure("peak, dense", f"{peak:.4g} TOP/s", Basis.DERIVED, "SMs x MACs x clock x 2"),
            Figure("peak, sparse", f"{gain * peak:.4g} TOP/s", Basis.DERIVED, "times M/N"),
            Figure(
                "weights stored",
                f"{100 * self.sparsity.stored_bits(self.kind.bits) / self.kind.bits:.4g} % of "
                f"dense bits at {self.sparsity.kept}:{self.sparsity.group}",
                Basis.DERIVED,
                "kept values and ceil(log2 M) bits of position each",
            ),
        ]
        for name, (basis, source) in sources.items():
            figures.append(Figure(name, f"{getattr(self, name):g}", basis, source))
        return figures


_ME = "sparse_tensor_core"
_WHOLE = (
    "sms", "fp16_macs_per_sm", "float_block", "extra_bits", "shared_kib", "shared_bytes_per_cycle",
    "port_bytes_per_cycle", "warp_rows", "warp_columns", "l2_partitions", "l2_bytes_per_cycle",
    "l2_latency_cycles", "dram_latency_cycles", "barrier_cycles", "block_start_cycles",
)  # fmt: skip
_REAL = {
    "clock_hz": (1e6, 1e11),
    "dense_issue": (0.01, 1.0),
    "sparse_issue": (0.01, 1.0),
    "l2_mib": (2**-10, 2**20),
    "dram_gb": (1e-6, 1e6),
    "dram_gbytes_per_s": (1e-3, 1e6),
    "dram_efficiency": (0.01, 1.0),
    "launch_us": (0.0, 1e6),
    "sparse_call_us": (0.0, 1e6),
    "tdp_w": (1e-3, 1e6),
    "idle_w": (0.0, 1e6),
    "power_limit_w": (0.0, 1e6),
}


# ---------------------------------------------------------------------- presets

_P, _D, _A = Basis.PUBLISHED, Basis.DERIVED, Basis.ASSUMED
_A100_PAPER = "A100 white paper"
_LUO = "Luo et al., arXiv 2402.13499; recalled, unchecked"
_COMMON: dict[str, tuple[Basis, str]] = {
    "shared_bytes_per_cycle": (_P, "32 banks of 4 bytes"),
    "port_bytes_per_cycle": (_P, "64 bytes a cycle an SM from L2, as of Volta"),
    "dense_issue": (_A, "1000 of 1024 with 8 warps: Sun et al., arXiv 2206.02874; recalled"),
    "sparse_issue": (_A, "95 % or more at m16n8k32: Sun et al., arXiv 2206.02874; recalled"),
    "barrier_cycles": (_A, "a barrier and one shared-memory latency (29 cycles by Luo et al.)"),
    "block_start_cycles": (_A, "dispatch of a block and its address arithmetic"),
    "dram_efficiency": (_D, "1 - tRFC/tREFI = 1 - 260/3900 of HBM2"),
    "launch_us": (_A, "2 to 5 us are commonly measured"),
    "sparse_call_us": (_A, "0: a bare kernel; a library adds its own"),
    "idle_w": (_A, "commonly reported"),
}
SOURCES: dict[str, dict[str, tuple[Basis, str]]] = {
    "a100-40": {
        "sms": (_P, _A100_PAPER),
        "clock_hz": (_P, _A100_PAPER),
        "fp16_macs_per_sm": (_P, _A100_PAPER),
        "float_block": (_P, "Fasi et al., PeerJ CS 7:e330"),
        "extra_bits": (_P, "Khattak and Mikaitis, arXiv 2512.07004"),
        "shared_kib": (_P, "CUDA programming guide, compute capability 8.0"),
        **_COMMON,
        "l2_mib": (_P, _A100_PAPER),
        "l2_partitions": (_P, _A100_PAPER),
        "l2_bytes_per_cycle": (_P, _A100_PAPER),
        "l2_latency_cycles": (_A, _LUO),
        "dram_gb": (_P, "A100 datasheet, 40 GB"),
        "dram_gbytes_per_s": (_P, "A100 datasheet, 40 GB"),
        "dram_latency_cycles": (_A, _LUO),
        "tdp_w": (_P, "A100 datasheet, SXM4"),
    },
}
SOURCES["a100-80"] = SOURCES["a100-40"] | {
    "dram_gb": (_P, "A100 datasheet, 80 GB"),
    "dram_gbytes_per_s": (_A, "A100 datasheet, 80 GB SXM; recalled, unchecked"),
}
SOURCES["h100"] = SOURCES["a100-40"] | {
    "sms": (_P, "H100 white paper, SXM5"),
    "clock_hz": (_D, "989.4 TFLOPS / (132 SMs x 2048 MACs x 2)"),
    "fp16_macs_per_sm": (_P, "H100 white paper: twice the A100's"),
    "float_block": (_P, "Khattak and Mikaitis, arXiv 2512.07004"),
    "shared_kib": (_P, "CUDA programming guide, compute capability 9.0"),
    "l2_mib": (_P, "H100 white paper"),
    "l2_partitions": (_A, "as the A100"),
    "l2_bytes_per_cycle": (_A, "as the A100; not published"),
    "dram_gb": (_P, "H100 datasheet, SXM5"),
    "dram_gbytes_per_s": (_P, "H100 datasheet, SXM5"),
    "dram_efficiency": (_A, "as HBM2"),
    "tdp_w": (_P, "H100 datasheet, SXM5"),
    "idle_w": (_A, "commonly reported"),
}
SOURCES["orin"] = SOURCES["a100-40"] | {
    "sms": (_P, "Jetson AGX Orin 64 GB: 2048 CUDA cores of 128 an SM"),
    "clock_hz": (_P, "Jetson AGX Orin 64 GB"),
    "fp16_macs_per_sm": (_D, "85 dense int8 TOPS / (16 SMs x 1.3 GHz x 2 x 2)"),
    "l2_mib": (_P, "Jetson AGX Orin series brief"),
    "l2_partitions": (_A, "one"),
    "l2_bytes_per_cycle": (_A, "64 bytes a cycle an SM"),
    "dram_gb": (_P, "Jetson AGX Orin 64 GB"),
    "dram_gbytes_per_s": (_P, "Jetson AGX Orin 64 GB: LPDDR5, 256 bits"),
    "dram_latency_cycles": (_A, "as the A100 in cycles"),
    "dram_efficiency": (_A, "as HBM2"),
    "tdp_w": (_P, "Jetson AGX Orin 64 GB: 60 W, the module's"),
    "idle_w": (_A, "not published"),
}
SOURCES["generic"] = {name: (_A, "a core to study N:M on") for name in SOURCES["a100-40"]}

PRESETS: dict[str, dict[str, Any]] = {
    "a100-40": {},
    "a100-80": {"dram_gb": 80.0, "dram_gbytes_per_s": 2039.0},
    "h100": {
        "sms": 132,
        "clock_hz": 1.83e9,
        "fp16_macs_per_sm": 2048,
        "int4": False,
        "float_block": 16,
        "extra_bits": 2,
        "shared_kib": 227,
        # wgmma reads operands from shared memory once for four warps
        "warp_columns": 256,
        "l2_mib": 50.0,
        "l2_latency_cycles": 263,
        "dram_latency_cycles": 479,
        "dram_gb": 80.0,
        "dram_gbytes_per_s": 3352.0,
        "tdp_w": 700.0,
        "idle_w": 70.0,
    },
    "orin": {
        "sms": 16,
        "clock_hz": 1.3e9,
        "l2_mib": 4.0,
        "l2_partitions": 1,
        "l2_bytes_per_cycle": 1024,
        "dram_gb": 64.0,
        "dram_gbytes_per_s": 204.8,
        "tdp_w": 60.0,
        "idle_w": 10.0,
    },
    "generic": {
        "sms": 1,
        "clock_hz": 1e9,
        "any_pattern": True,
        "dense_issue": 1.0,
        "sparse_issue": 1.0,
        "l2_mib": 1.0,
        "l2_partitions": 1,
        "l2_bytes_per_cycle": 128,
        "l2_latency_cycles": 50,
        "dram_gb": 1.0,
        "dram_gbytes_per_s": 100.0,
        "dram_latency_cycles": 150,
        "launch_us": 0.0,
        "tdp_w": 5.0,
        "idle_w": 0.5,
    },
}


def preset(name: str, **fields: Any) -> SparseTensorCore:
    """A named configuration, with fields replaced.

    Raises
    ------
    InputError
        If there is no such preset or field.
    """
    if name not in PRESETS:
        raise InputError(f"there is no preset {name!r}; there is {', '.join(PRESETS)}")
    known = SparseTensorCore.__struct_fields__
    unknown = [field for field in fields if field not in known]
    if unknown:
        raise InputError(f"{_ME} has no field {unknown[0]!r}; there is {', '.join(known)}")
    return SparseTensorCore(**(PRESETS[name] | fields))


def _preset_of(machine: SparseTensorCore) -> str:
    """The preset that differs least from a configuration: its sources are the ones to print."""
    numbers = SOURCES["a100-40"]

    def differing(name: str) -> int:
        other = preset(name)
        return sum(getattr(machine, field) != getattr(other, field) for field in numbers)

    return min(PRESETS, key=differing)


# ---------------------------------------------------------------------- tiles on SMs


def _count_tiles(shape: Shape, tiling: Tiling) -> int:
    high, wide = -(-shape.rows // tiling.rows), -(-shape.columns // tiling.columns)
    return high * wide * tiling.splits * shape.batch


class Bank(NamedTuple):
    """SMs that run the same number of tiles: ``lanes`` from SM ``first`` on, ``tiles`` each."""

    suffix: str
    first: int
    lanes: int
    tiles: int


@dataclass(frozen=True, eq=False)
class _Plan:
    """The tiles of a product in the order they are launched, and what each moves.

    Tile t runs on SM t mod SMs, in wave t div SMs.
    """

    machine: SparseTensorCore
    shape: Shape
    tiling: Tiling

    @cached_property
    def order(self) -> NDArray[np.int64]:
        """(product, part of the depth, tile row, tile column) of every tile [tiles, 4].

        Bands of :data:`SWIZZLE` tile rows, columns within a band, rows within a column.
        """
        high = -(-self.shape.rows // self.tiling.rows)
        wide = -(-self.shape.columns // self.tiling.columns)
        row = np.arange(high)
        one = np.empty((high * wide, 2), np.int64)
        at = 0
        for band in range(0, high, SWIZZLE):
            rows = row[band : band + SWIZZLE]
            count = len(rows) * wide
            one[at : at + count, 0] = np.tile(rows, wide)
            one[at : at + count, 1] = np.repeat(np.arange(wide), len(rows))
            at += count
        parts = self.shape.batch * self.tiling.splits
        which = np.repeat(np.arange(parts), len(one))
        product, part = np.divmod(which, self.tiling.splits)
        return np.column_stack([product, part, np.tile(one, (parts, 1))])

    @cached_property
    def tiles(self) -> int:
        return len(self.order)

    @cached_property
    def lanes(self) -> int:
        return min(self.tiles, self.machine.sms)

    @cached_property
    def waves(self) -> int:
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
        return 1 + int(ragged and not self.machine.sparsity.is_dense)

    @cached_property
    def clock_hz(self) -> float:
        return self.machine.sustained_clock_hz(self.shape, self.tiling)

    @cached_property
    def slots(self) -> int:
        """Multiplications of all tiles, those of padding included."""
        return self.tiles * self.tiling.steps * self.machine._slots(self.tiling)

    @cached_property
    def _heights(self) -> NDArray[np.int64]:
        rows = self.order[:, 2] * self.tiling.rows
        return np.minimum(self.shape.rows - rows, self.tiling.rows)

    @cached_property
    def _widths(self) -> NDArray[np.int64]:
        columns = self.order[:, 3] * self.tiling.columns
        return np.minimum(self.shape.columns - columns, self.tiling.columns)

    @cached_property
    def _depths(self) -> NDArray[np.int64]:
        """Elements of the reduction that each part of the depth really has [splits]."""
        size = self.tiling.steps * self.tiling.step
        first = np.arange(self.tiling.splits) * size
        return np.minimum(self.shape.depth - first, size)

    @cached_property
    def step_bytes(self) -> NDArray[np.float64]:
        """Bytes each step of each tile brings to its SM [tiles, steps]."""
        m = self.machine
        low = np.arange(self.tiling.steps) * self.tiling.step
        depth = np.clip(self._depths[:, None] - low, 0, self.tiling.step)  # [splits, steps]
        each = (
            self._heights * m.sparsity.stored_bits(m.kind.bits) / 8 + self._widths * m.kind.bits / 8
        )
        return each[:, None] * depth[self.order[:, 1]]

    @property
    def l2_bytes(self) -> float:
        """Bytes all SMs read from L2."""
        return float(self.step_bytes.sum())

    @property
    def shared_bits(self) -> int:
        t = self.tiling
        return math.ceil(8 * t.stages * self.machine._stage_bytes(t.rows, t.columns, t.step))

    @property
    def output_bytes(self) -> int:
        s = self.shape
        return s.batch * s.rows * s.columns * self.machine.kind.output_bytes

    @property
    def footprint_bytes(self) -> int:
        """Bytes of both operands and the output."""
        s, m = self.shape, self.machine
        weights = s.batch * s.rows * s.depth * m.sparsity.stored_bits(m.kind.bits) / 8
        columns = s.batch * s.columns * s.depth * m.kind.bits / 8
        return math.ceil(weights + columns) + self.output_bytes

    @cached_property
    def missed_bytes(self) -> NDArray[np.float64]:
        """Bytes each wave brings from DRAM into L2 [waves].

        Tiles of a wave walk the depth together, so a panel of rows or columns is fetched once
        for all of them. A panel of an earlier wave is still there if what was read since - a wave's
        distinct panels for each wave between - fits into the part of L2 that holds it.
        """
        m = self.machine
        depth = self._depths[self.order[:, 1]]
        row_bytes = self._heights * depth * m.sparsity.stored_bits(m.kind.bits) / 8
        column_bytes = self._widths * depth * m.kind.bits / 8
        part = self.order[:, 0] * self.tiling.splits + self.order[:, 1]
        high = int(self.order[:, 2].max()) + 1
        wide = int(self.order[:, 3].max()) + 1
        panels = np.concatenate([part * high + self.order[:, 2], part * wide + self.order[:, 3]])
        panels[self.tiles :] += (int(part.max()) + 1) * high
        sizes = np.concatenate([row_bytes, column_bytes])
        capacity = m.l2_mib * 2**20 / m.l2_partitions
        before = np.zeros(self.waves + 1)  # distinct bytes read by all waves before each
        last = np.full(int(panels.max()) + 1, -1)
        missed = np.zeros(self.waves)
        for wave in range(self.waves):
            tiles = np.arange(wave * self.lanes, min((wave + 1) * self.lanes, self.tiles))
            at = np.concatenate([tiles, tiles + self.tiles])
            panel, first = np.unique(panels[at], return_index=True)
            size = sizes[at[first]]
            before[wave + 1] = before[wave] + size.sum()
            seen = last[panel]
            held = (seen >= 0) & (before[wave] - before[np.maximum(seen, 0)] <= capacity)
            missed[wave] = size[~held].sum()
            last[panel] = wave
        return missed

    @cached_property
    def fetch_steps(self) -> int:
        """Steps that share a request to DRAM, so that it holds the channel for a few cycles."""
        active = self.lanes * self.waves * self.tiling.steps
        mean = self.missed_bytes.sum() / active / self.machine.dram_bytes_per_cycle(self.clock_hz)
        return min(self.tiling.steps, max(1, math.ceil(LEAST_DRAM_HOLD / max(mean, 1e-9))))

    def netlist(self, name: str, work: _Work | None) -> Netlist:
        """The block diagram of the module's docstring for this product."""
        m, t = self.machine, self.tiling
        steps, waves = t.steps, self.waves
        run = work.actions(self) if work is not None else {}
        call_us = m.launch_us * self.launches
        call_us += 0.0 if m.sparsity.is_dense else m.sparse_call_us
        launch = max(1, math.ceil(call_us * 1e-6 * self.clock_hz))
        starts = np.zeros(steps, np.int64)
        starts[:: self.fetch_steps] = 1
        active = np.minimum(self.tiles - np.arange(waves) * self.lanes, self.lanes)
        share = self.missed_bytes / (active * steps)
        end = np.zeros(steps, np.int64)
        end[-1] = 1
        worked = np.ones((waves, self.lanes), np.int64)
        if len(self.banks) > 1:
            worked[-1, self.banks[1].first :] = 0  # fires its steps there in no time
        actors = [Actor(name="launch", firings=1, busy=launch, part="Kernel launch")]
        channels = []
        for bank in self.banks:
            more, between = self._bank(bank, starts, share, run)
            actors += more
            channels += between
        drained = m._epilogue_cycles(t) * worked
        actors += [
            Actor(
                name="mma",
                lanes=self.lanes,
                firings=waves * steps,
                busy=m.step_cycles(t) * np.repeat(worked, steps, axis=0),
                execute=run.get("mma"),
                part="Tensor cores",
            ),
            Actor(
                name="epilogue",
                lanes=self.lanes,
                firings=waves,
                busy=drained,
                execute=run.get("epilogue"),
                part="Epilogue",
            ),
        ]
        sums = Channel(
            name="sums", source="mma", target="epilogue", capacity=1, produce=np.tile(end, waves)
        )
        return Netlist(
            actors,
            [*channels, sums],
            [Resource(name="dram"), Resource(name="l2")],
            clock_hz=self.clock_hz,
            name=f"tensor cores {name}",
        )

    def _bank(
        self,
        bank: Bank,
        starts: NDArray[np.int64],
        share: NDArray[np.float64],
        run: dict[str, Any],
    ) -> tuple[list[Actor], list[Channel]]:
        """What brings a bank's operands and takes its outputs away, and the ways to ``mma``.

        ``starts`` marks the steps of a tile that ask DRAM, ``share`` is what a step of each wave
        misses, in bytes.
        """
        m, t, x = self.machine, self.tiling, bank.suffix
        steps, lanes, count = t.steps, bank.lanes, bank.tiles * t.steps
        dram = m.dram_bytes_per_cycle(self.clock_hz)
        tile = np.arange(bank.tiles)[:, None] * self.lanes + bank.first + np.arange(lanes)
        moved = self.step_bytes[tile].transpose(0, 2, 1).reshape(count, lanes)
        per_fetch = np.diff(np.append(np.flatnonzero(starts), steps))
        missed = (share[: bank.tiles, None] * per_fetch).reshape(-1, 1)
        written = self._heights[tile] * self._widths[tile] * m.kind.output_bytes
        written = np.where(self.order[tile, 1] == t.splits - 1, written, 0)
        # L2 takes a tile's output in and writes it back a part at a time.
        parts = max(1, min(t.steps, math.ceil(written.max() / dram / MOST_DRAM_HOLD)))
        written = np.repeat(written / parts, parts, axis=0)
        fetch = _whole_cycles(np.broadcast_to(missed / dram, (len(missed), lanes)))
        read = _whole_cycles(moved / m.l2_bytes_per_cycle)
        store = _whole_cycles(written / dram)
        beyond = m.dram_latency_cycles - m.l2_latency_cycles
        first = np.zeros(count, np.int64)
        first[::steps] = 1
        again = first.copy()
        again[0] = 0
        drained = (np.arange(bank.tiles * parts) % parts == 0).astype(np.int64)
        asks = np.tile(starts, bank.tiles)
        port = np.maximum(1, np.ceil(moved / m.port_bytes_per_cycle)).astype(np.int64)
        # An SM without a tile in the last wave takes and gives nothing there.
        there = (np.arange(self.waves * steps) < count).astype(np.int64)
        stored = (np.arange(self.waves) < bank.tiles).astype(np.int64)
        followed = (np.arange(self.waves) < bank.tiles - 1).astype(np.int64)

        def actor(name: str, busy: NDArray[np.int64], part: str, **more: Any) -> Actor:
            name += x
            return Actor(
                name=name, lanes=lanes, busy=busy, part=part, execute=run.get(name), **more
            )

        def channel(name: str, source: str, target: str, capacity: int, **more: Any) -> Channel:
            return Channel(name=name + x, source=source, target=target, capacity=capacity, **more)

        def into(name: str, source: str, capacity: int) -> Channel:
            shift = {"pattern": Pattern.SHIFT, "offset": bank.first, "consume": there}
            return channel(name, source + x, "mma", capacity, **shift)

        def back(name: str, target: str, **more: Any) -> Channel:
            shift = {"pattern": Pattern.SHIFT, "offset": -bank.first}
            return channel(name, "epilogue", target + x, 1, **shift, **more)

        issue, grid = np.where(first, m.block_start_cycles, 1), {"pattern": Pattern.BROADCAST}
        actors = [
            actor("issue", issue, "cp.async"),
            actor("dram_fetch", fetch, "DRAM", latency=fetch + beyond, resource="dram"),
            actor("l2_read", read, "L2", latency=read + m.l2_latency_cycles, resource="l2"),
            actor("sm_port", port, "SM port"),
            actor("store", store, "DRAM", latency=store + m.dram_latency_cycles, resource="dram"),
        ]
        channels = [
            channel("grid", "launch", f"issue{x}", 1, consume=first - again, **grid),
            channel("misses", f"issue{x}", f"dram_fetch{x}", t.stages, produce=asks),
            channel("asked", f"issue{x}", f"l2_read{x}", t.stages),
            channel("filled", f"dram_fetch{x}", f"l2_read{x}", t.stages, consume=asks),
            channel("sectors", f"l2_read{x}", f"sm_port{x}", t.stages),
            # A stage is taken when its copy is issued; the one being multiplied is not yet free.
            into("stages", "issue", t.stages - 1),
            into("arrived", "sm_port", t.stages),
            back("free", "issue", produce=followed, consume=again),
            back("output", "store", produce=stored, consume=drained),
        ]
        return actors, channels


def _whole_cycles(cycles: NDArray[np.float64]) -> NDArray[np.int64]:
    """Whole cycles [firings, lanes], at least 1, whose running sums stay within one of the given.

    Lanes begin at different fractions, so that they do not all round up at once.
    """
    lanes = cycles.shape[1]
    before = np.cumsum(cycles, axis=0) + np.arange(lanes) / lanes
    whole = np.floor(before).astype(np.int64)
    return np.maximum(np.diff(whole, axis=0, prepend=0), 1)


# ---------------------------------------------------------------------- numbers


def _operands(tensors: LayerTensors) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weights [products, rows, depth] and activations [products, columns, depth]."""
    layer = tensors.layer
    weight = tensors.weight.to_dense() if isinstance(tensors.weight, CSC) else tensors.weight
    if isinstance(layer, Linear):
        return weight[None].astype(np.float64), tensors.activation[None].astype(np.float64)
    if isinstance(layer, Conv2d):
        columns = unfolding.unfold(
            tensors.activation, layer.kernel, layer.stride, layer.padding, layer.dilation,
            layer.groups,
        )  # fmt: skip
        rows = unfolding.unfold_weights(weight, layer.groups).transpose(0, 2, 1)
        return np.ascontiguousarray(rows, np.float64), columns.astype(np.float64)
    raise InputError(
        f"the tensor core runs fully connected layers and convolutions; {layer.name!r} is a "
        f"{type(layer).__name__}"
    )


def prune_to(weights: NDArray[Any], sparsity: Sparsity) -> NDArray[Any]:
    """Weights [..., depth] with all but the largest ``n`` of ``m`` units of a group set to zero."""
    if sparsity.is_dense:
        return weights
    depth = weights.shape[-1]
    units = -(-depth // sparsity.unit)
    room = np.zeros((*weights.shape[:-1], units * sparsity.unit))
    room[..., :depth] = np.abs(weights)
    scores = room.reshape(*weights.shape[:-1], units, sparsity.unit).sum(axis=-1)
    keep = mask(scores, NM(n=sparsity.n, m=sparsity.m, axis=-1, ragged="short"))
    keep = np.repeat(keep, sparsity.unit, axis=-1)[..., :depth]
    return np.where(keep, weights, 0)


def encode(
    weights: NDArray[Any], sparsity: Sparsity, value_bits: int
) -> tuple[NDArray[Any], NDArray[np.uint8], int]:
    """A pruned matrix [rows, depth] as the tensor core reads it.

    Returns
    -------
    values, positions, bits
        Kept elements [rows, groups * kept], the place of each in its group, and the storage. Dense
        matrices come back as they are, with positions 0.

    Raises
    ------
    InputError
        If a group holds more than the pattern keeps.
    """
    rows = len(weights)
    if sparsity.is_dense:
        return weights, np.zeros(weights.shape, np.uint8), weights.size * value_bits
    if sparsity.unit == 1:
        encoded = NMSparse.encode(weights, sparsity.n, sparsity.m, 1, value_bits)
        return encoded.values.reshape(rows, -1), encoded.positions.reshape(rows, -1), encoded.bits
    # Two neighbours are stored, kept and selected as one value of twice the bits.
    depth = -(-weights.shape[1] // 2) * 2
    room = np.zeros((rows, depth), np.int64)
    room[:, : weights.shape[1]] = weights
    pairs = room[:, 0::2] + (room[:, 1::2] << value_bits)
    encoded = NMSparse.encode(pairs, sparsity.n, sparsity.m, 1, 2 * value_bits)
    joined = encoded.values.reshape(rows, -1)
    half = 1 << (value_bits - 1)
    low = ((joined + half) & (2 * half - 1)) - half
    high = (joined - low) >> value_bits
    values = np.stack([low, high], axis=-1).reshape(rows, -1)
    positions = encoded.positions.reshape(rows, -1)
    places = np.stack([2 * positions, 2 * positions + 1], axis=-1).reshape(rows, -1)
    return values.astype(weights.dtype), places.astype(np.uint8), encoded.bits


class _Work:
    """A layer in the machine's format, encoded and multiplied."""

    def __init__(
        self,
        machine: SparseTensorCore,
        weights: NDArray[np.float64],
        columns: NDArray[np.float64],
        bias: NDArray[Any] | None,
        tiling: Tiling,
    ) -> None:
        self.machine, self.tiling = machine, tiling
        self.integers = machine.dtype.startswith("int")
        sparsity = machine.sparsity
        depth = tiling.steps * tiling.splits * tiling.step  # whole steps
        pruned = prune_to(weights, sparsity)
        self.nonzeros = int(np.count_nonzero(weights))
        self.pruned = self.nonzeros - int(np.count_nonzero(pruned))
        self.weights, weight_scale = self._in_format(pruned)
        self.columns, column_scale = self._in_format(columns)
        padding = ((0, 0), (0, 0), (0, depth - columns.shape[2]))
        self.padded = np.pad(self.columns, padding)
        whole = np.pad(self.weights, padding)
        self.values, self.positions = [], []
        self.stored_bits = self.effectual = 0
        for product, one in enumerate(whole):
            values, positions, _ = encode(one, sparsity, machine.kind.bits)
            self.values.append(values)
            self.positions.append(positions)
            # What is stored has no padding to whole steps.
            self.stored_bits += encode(self.weights[product], sparsity, machine.kind.bits)[2]
            self.effectual += unfolding.effectual(self.columns[product], self.weights[product].T)
        if not self.integers:
            least = machine.kind.least
            self.value_exponents = [mac.exponents(v, least) for v in self.values]
            self.column_exponents = mac.exponents(self.padded, least)
        self.bias = None
        if bias is not None:
            each = bias.reshape(len(weights), 1, -1).astype(np.float64)
            self.bias = (
                np.rint(each / (weight_scale * column_scale)).astype(np.int64)
                if self.integers
                else each.astype(np.float32)
            )
        self.sums = self._multiplied()
        self.outputs = self._with_bias(self.sums)
        self.run_parts: NDArray[Any] = np.zeros((tiling.splits, *self.sums.shape), self.sums.dtype)

    def _in_format(self, values: NDArray[np.float64]) -> tuple[NDArray[Any], float]:
        dtype = self.machine.dtype
        if self.integers:
            most = (1 << (self.machine.kind.bits - 1)) - 1
            largest = float(np.abs(values).max(initial=0))
            scale = largest / most if largest else 1.0
            return np.rint(values / scale).astype(np.int32), scale
        if dtype == "tf32":
            return mac.round_tf32(values), 1.0
        return formats.get(dtype).round(values).astype(np.float64), 1.0

    def _empty(self, columns: int, rows: int) -> NDArray[Any]:
        return np.zeros((columns, rows), np.int32 if self.integers else np.float32)

    def step(
        self, product: int, rows: slice, columns: slice, step: int, sums: NDArray[Any]
    ) -> None:
        """Add one step of the depth to the sums [columns, rows] of a part of the output."""
        m, size = self.machine, self.tiling.step
        kept, group = m.sparsity.kept, m.sparsity.group
        stored = slice(step * size // group * kept, (step + 1) * size // group * kept)
        deep = slice(step * size, (step + 1) * size)

        def left(array: NDArray[Any]) -> NDArray[Any]:
            return np.ascontiguousarray(array[rows, stored])

        def right(array: NDArray[Any]) -> NDArray[Any]:
            return np.ascontiguousarray(array[product, columns, deep])

        values, positions = left(self.values[product]), left(self.positions[product])
        if self.integers:
            mac.multiply_integers(values, positions, kept, group, right(self.padded), sums)
            return
        mac.multiply_floats(
            values, left(self.value_exponents[product]), positions, kept, group,
            right(self.padded), right(self.column_exponents), m.block, m.fraction_bits, sums,
        )  # fmt: skip

    def joined(self, total: NDArray[Any], part: NDArray[Any]) -> NDArray[Any]:
        """The sum of two parts of the depth: wrapping, or rounded to fp32."""
        if self.integers:
            return unfolding.wrap(total.astype(np.int64) + part).astype(np.int32)
        return (total + part).astype(np.float32)

    def _multiplied(self) -> NDArray[Any]:
        rows, columns = self.weights.shape[1], self.columns.shape[1]
        sums = []
        for product in range(len(self.weights)):
            total = self._empty(columns, rows)
            for split in range(self.tiling.splits):
                part = self._empty(columns, rows)
                for step in range(self.tiling.steps):
                    at = split * self.tiling.steps + step
                    self.step(product, slice(0, rows), slice(0, columns), at, part)
                total = part if split == 0 else self.joined(total, part)
            sums.append(total)
        return np.stack(sums)

    def _with_bias(self, sums: NDArray[Any]) -> NDArray[Any]:
        if self.bias is None:
            return sums
        if self.integers:
            return unfolding.wrap(sums + self.bias).astype(np.int32)
        return (sums + self.bias).astype(np.float32)

    def verify(self) -> Verification:
        """Compare with dense products of the decoded operands, and floats bit by bit with more."""
        exact = self.columns.astype(np.float64) @ self.weights.astype(np.float64).transpose(0, 2, 1)
        if self.integers:
            expected = exact.astype(np.int64) + (0 if self.bias is None else self.bias)
            wrong = unfolding.wrap(expected) != self.outputs
            against = "integer product of the dense decoded matrix (float64 BLAS, exact to 2^53)"
        else:
            wrong = np.abs(self.sums - exact) > self.tolerance()
            wrong[self._sampled_mismatches()] = True
            against = (
                "float64 product of the dense decoded matrix, within the error bound; "
                f"{min(SAMPLED, wrong.size)} outputs also bit by bit with the block multiply-add "
                "over decoded rows"
            )
        return Verification(
            status="mismatch" if wrong.any() else "exact",
            outputs=wrong.size,
            mismatches=int(np.count_nonzero(wrong)),
            against=against,
        )

    def tolerance(self) -> NDArray[np.float64]:
        """The error bound of each float sum [products, columns, rows]."""
        m, floor = self.machine, 2.0**self.machine.kind.least
        left = np.where(self.weights != 0, np.maximum(np.abs(self.weights), floor), 0)
        right = np.where(self.columns != 0, np.maximum(np.abs(self.columns), floor), 0)
        absolute = right @ left.transpose(0, 2, 1)
        kept = self.tiling.step // m.sparsity.group * m.sparsity.kept
        steps = self.tiling.steps * self.tiling.splits
        blocks = steps * -(-kept // m.block) + self.tiling.splits
        return mac.error_bound(absolute, blocks * m.block, m.block, m.fraction_bits)

    def _sampled_mismatches(self) -> tuple[NDArray[np.intp], ...]:
        """Which of a sample of outputs differ from the same arithmetic on dense decoded rows.

        The decoded row is walked group by group; its positions come from the non-zeros themselves,
        not from the metadata, and all outputs of the sample go through each block at once.
        """
        m = self.machine
        rng = np.random.default_rng(0)
        picked = rng.choice(self.sums.size, min(SAMPLED, self.sums.size), replace=False)
        product, column, row = np.unravel_index(picked, self.sums.shape)
        size, group, kept = self.tiling.step, m.sparsity.group, m.sparsity.kept
        depth = self.padded.shape[2]
        weights = np.zeros((len(picked), depth))
        weights[:, : self.weights.shape[2]] = self.weights[product, row]
        columns = self.padded[product, column]
        unit = m.sparsity.unit
        filled = np.abs(weights).reshape(len(picked), -1, m.sparsity.m, unit).sum(axis=-1) != 0
        # Kept first, in their order; short groups are filled with zeros, which change nothing
        # but the block a later value falls into - so there are always ``kept`` a group.
        fill = ~filled & (np.cumsum(~filled[..., ::-1], axis=-1)[..., ::-1] > 0)
        order = _kept_places(filled, fill, m.sparsity.n)
        at = (np.arange(depth // group)[:, None] * m.sparsity.m + order) * unit
        at = (at[..., None] + np.arange(unit)).reshape(len(picked), -1)
        weights = np.take_along_axis(weights, at, axis=1)
        columns = np.take_along_axis(columns, at, axis=1)
        stored = size // group * kept
        total = np.zeros(len(picked), np.float32)
        for split in range(self.tiling.splits):
            part = np.zeros(len(picked))
            for step in range(self.tiling.steps):
                low = (split * self.tiling.steps + step) * stored
                for first in range(low, low + stored, m.block):
                    span = slice(first, min(first + m.block, low + stored))
                    part = mac.add_block(
                        part, weights[:, span], columns[:, span], m.kind.least, m.fraction_bits
                    )
            total = part.astype(np.float32) if split == 0 else total + part.astype(np.float32)
        differ = picked[total != self.sums[product, column, row]]
        return np.unravel_index(differ, self.sums.shape)

    def actions(self, plan: _Plan) -> dict[str, Any]:
        """What each actor does with a token, for ``verify="execute"``; a token is (tile, step)."""
        steps = self.tiling.steps
        parts: dict[int, NDArray[Any]] = {}
        made: dict[str, Any] = {}

        def issue(bank: Bank) -> Any:
            def act(lane: int, firing: int, got: dict[str, list[Any]]) -> dict[str, list[Any]]:
                if firing == 0 and bank.first == 0 and lane == 0:
                    self.run_parts[:] = 0
                wave, step = divmod(firing, steps)
                token = (wave * plan.lanes + bank.first + lane, step)
                starts = step % plan.fetch_steps == 0
                return {
                    f"asked{bank.suffix}": [token],
                    f"stages{bank.suffix}": [token],
                    f"misses{bank.suffix}": [token] * starts,
                }

            return act

        def passed(source: str, target: str) -> Any:
            def act(lane: int, firing: int, got: dict[str, list[Any]]) -> dict[str, list[Any]]:
                return {target: got[source]}

            return act

        def multiply(lane: int, firing: int, got: dict[str, list[Any]]) -> dict[str, list[Any]]:
            arrived = [token for name, values in got.items() if "arrived" in name
                       for token in values]  # fmt: skip
            if not arrived:
                return {"sums": [None] * (firing % steps == steps - 1)}
            tile, step = arrived[0]
            product, split, rows, columns = self._place(plan, tile)
            if step == 0:
                width = columns.stop - columns.start
                parts[lane] = self._empty(width, rows.stop - rows.start)
            self.step(product, rows, columns, split * steps + step, parts[lane])
            return {"sums": [(tile, parts[lane])] * (firing % steps == steps - 1)}

        def epilogue(lane: int, firing: int, got: dict[str, list[Any]]) -> dict[str, list[Any]]:
            bank = plan.banks[-1] if lane >= plan.banks[-1].first else plan.banks[0]
            return {f"output{bank.suffix}": got["sums"] * (firing < bank.tiles)}

        def store(suffix: str) -> Any:
            def act(lane: int, firing: int, got: dict[str, list[Any]]) -> dict[str, list[Any]]:
                if not got[f"output{suffix}"]:
                    return {}
                tile, part = got[f"output{suffix}"][0]
                product, split, rows, columns = self._place(plan, tile)
                self.run_parts[split, product, columns, rows] = part
                return {}

            return act

        for bank in plan.banks:
            x = bank.suffix
            made[f"issue{x}"] = issue(bank)
            made[f"l2_read{x}"] = passed(f"asked{x}", f"sectors{x}")
            made[f"sm_port{x}"] = passed(f"sectors{x}", f"arrived{x}")
            made[f"store{x}"] = store(x)
        return made | {"mma": multiply, "epilogue": epilogue}

    def _place(self, plan: _Plan, tile: int) -> tuple[int, int, slice, slice]:
        product, split, row, column = (int(v) for v in plan.order[tile])
        rows, columns = self.tiling.rows, self.tiling.columns
        return (
            product,
            split,
            slice(row * rows, min((row + 1) * rows, plan.shape.rows)),
            slice(column * columns, min((column + 1) * columns, plan.shape.columns)),
        )

    def executed(self) -> bool:
        """Whether the tokens of the last ``verify="execute"`` run gave the kernel's sums.

        Parts of the depth are added in their order, as the library's semaphores see to.
        """
        total = self.run_parts[0]
        for part in self.run_parts[1:]:
            total = self.joined(total, part)
        return bool((total == self.sums).all())


SAMPLED = 4096  # float outputs that are checked bit by bit


def _kept_places(
    filled: NDArray[np.bool_], spare: NDArray[np.bool_], count: int
) -> NDArray[np.int64]:
    """The ``count`` places of each group [..., m] that are stored, ascending.

    All non-zeros; then, of the last ``count`` places, the lowest free ones; then any free one.
    """
    m = filled.shape[-1]
    place = np.arange(m)
    rank = np.where(filled, 0, np.where(place >= m - count, 1, 2)) * m + place
    return np.sort(np.argsort(rank, axis=-1)[..., :count], axis=-1)
