"""Tensor cores in one format and pattern: cycles, bits and energy of a tile's step."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

from msgspec.structs import replace

from sparqsim.architectures.sparse_tensor_core.config import (
    ACCUMULATOR_BYTES,
    DENSE,
    L2_SLICE_KIB,
    MMA,
    OPERATIONS,
    REGISTERS_KIB,
    STEP_BITS,
    TILES,
    Configuration,
    Kind,
    Shape,
    Sparsity,
    Tiling,
)
from sparqsim.architectures.sparse_tensor_core.kernels import Kernels, kernels_of
from sparqsim.architectures.sparse_tensor_core.power import board_of, idle_w
from sparqsim.simulator.energy.tables import get_table

FP32_BITS = 24  # significant
PARTS = {"registers": "registers", "shared": "shared memory", "l2": "l2"}  # store -> of the energy


@dataclass(frozen=True)
class TensorCores:
    """The tensor cores of a GPU as they multiply one format by one pattern.

    Attributes
    ----------
    gpu
        The configuration.
    dtype
        Format of both operands, a name of :data:`~.config.KINDS`.
    sparsity
        Pattern of the weights.
    """

    gpu: Configuration
    dtype: str
    sparsity: Sparsity

    @cached_property
    def kind(self) -> Kind:
        """The format's row of :data:`~.config.KINDS`."""
        return self.gpu.kind(self.dtype)

    @cached_property
    def kernels(self) -> Kernels:
        """The library's kernels."""
        return kernels_of(self.gpu, self.sparsity.is_dense, self.kind.integers)

    @property
    def dense(self) -> TensorCores:
        """The same with dense weights."""
        return TensorCores(self.gpu, self.dtype, DENSE)

    @property
    def macs_per_sm(self) -> int:
        """Multiplications an SM does in a cycle, dense or sparse."""
        share = 1.0 if self.kind.integers else self.gpu.fp32_accumulate
        return max(1, int(self.gpu.fp16_macs_per_sm * self.kind.rate * share))

    @property
    def fraction_bits(self) -> int:
        """Bits the aligner keeps below the largest exponent; extra ones beside sums of 24 bits."""
        bits = self.kind.sum_bits
        return bits - 1 + (self.gpu.extra_bits if bits == FP32_BITS else 0)

    @property
    def block(self) -> int:
        """Products of a block (floats)."""
        return max(1, int(self.gpu.float_block * self.kind.block))

    @property
    def weight_bits(self) -> float:
        """Bits stored for each element of the dense matrix of weights, positions included."""
        return self.sparsity.stored_bits(self.kind.bits)

    # ------------------------------------------------------------------ a step

    def stage_bytes(self, rows: float, columns: float, step: int) -> float:
        """Bytes of both operands of a tile's step."""
        return step * (rows * self.weight_bits / 8 + columns * self.kind.bits / 8)

    def slots(self, tiling: Tiling) -> int:
        """Multiplications of a tile's step."""
        return tiling.rows * tiling.columns * tiling.step * self.sparsity.n // self.sparsity.m

    def warp(self, tiling: Tiling) -> tuple[int, int]:
        """Rows and columns of a warp's part of a tile: smaller where a tensor core would have none.

        As in CUTLASS's kernels: tiles of 128 x 128 and more are cut into warps of 64 x 64, 128 x 64
        into 64 x 32, and 64 x 64 into 32 x 32.
        """
        rows, columns = map(min, self.kernels.warp, tiling[:2])
        high, wide = -(-tiling.rows // rows), -(-tiling.columns // columns)
        while high * wide < self.kernels.warps:
            if wide <= high:
                columns, wide = -(-columns // 2), 2 * wide
            else:
                rows, high = -(-rows // 2), 2 * high
        return rows, columns

    def step_bits(self, tiling: Tiling) -> dict[str, tuple[float, float]]:
        """Bits that a step of a whole tile reads from and writes to each memory.

        L2 gives a stage, shared memory takes it and gives each warp its fragments, registers give
        operands and sums to each instruction and take the sums. Instructions of warp groups read
        shared memory themselves: a tensor core keeps its few rows of weights, and buffers of its
        own, priced as registers, give it the activations.
        """
        stage = self.stage_bytes(tiling.rows, tiling.columns, tiling.step)
        high, wide = tiling.cluster
        read = self.stage_bytes(tiling.rows / wide, tiling.columns / high, tiling.step)
        rows, columns = self.warp(tiling)
        warps = -(-tiling.rows // rows) * -(-tiling.columns // columns)
        fragments = warps * self.stage_bytes(rows, columns, tiling.step)
        rows, columns, bits = MMA
        depth = bits / self.kind.bits
        instructions = self.slots(tiling) / (rows * columns * depth)
        loaded = 0 if self.kernels.groups else rows
        operands = self.stage_bytes(loaded, columns, 1) * depth * self.sparsity.m / self.sparsity.n
        sums = rows * columns * ACCUMULATOR_BYTES
        return {
            "registers": (8 * instructions * (operands + sums), 8 * instructions * sums),
            "shared": (8 * fragments, 8 * stage),
            "l2": (8 * read, 0.0),
        }

    def step_cycles(self, tiling: Tiling) -> int:
        """Cycles of a tile's step: those of the tensor cores or of shared memory, and a barrier."""
        longer = max(self.tensor_cycles(tiling), self.shared_cycles(tiling))
        return longer + self.gpu.barrier_cycles

    def tensor_cycles(self, tiling: Tiling) -> int:
        """Cycles of a tile's step in which the tensor cores multiply."""
        return math.ceil(self.slots(tiling) / (self.macs_per_sm * self.kernels.issue))

    def shared_cycles(self, tiling: Tiling) -> int:
        """Cycles in which shared memory gives each warp its fragments and takes a stage in.

        Of warp groups the two go on at once.
        """
        bits = self.step_bits(tiling)["shared"]
        size = (max(bits) if self.kernels.groups else sum(bits)) / 8
        return math.ceil(size / self.gpu.shared_bytes_per_cycle)

    def epilogue_bytes(self, tiling: Tiling) -> int:
        """Bytes of a tile's accumulators, which go to shared memory and back, in rows."""
        return tiling.rows * tiling.columns * ACCUMULATOR_BYTES

    def epilogue_cycles(self, tiling: Tiling) -> int:
        """Cycles of accumulators to shared memory and back; and of split sums to L2 and back."""
        size = self.epilogue_bytes(tiling)
        cycles = 2 * size / self.gpu.shared_bytes_per_cycle
        if tiling.splits > 1:
            cycles += 2 * size / self.gpu.port_bytes_per_cycle
        return math.ceil(cycles)

    # ------------------------------------------------------------------ energy and power

    def step_energy_pj(self, tiling: Tiling) -> dict[str, float]:
        """Energy of a tile's step: multiplying, and operands out of each memory on their way.

        The parts are to each other as in the ``horowitz`` table, at its node; all are scaled alike
        so that the dense peak of the board (:func:`.power.board_of`) takes its power. A sparse step
        of as many multiplications takes more: the activations it picks from are M/N times as many.
        """
        peak = Tiling(*TILES[0], 1, STEP_BITS // self.kind.bits, 1, 1)
        board = board_of(self.gpu)
        dense = TensorCores(replace(board, legacy_integers=0.0), self.dtype, DENSE)
        rate = board.sms * dense.macs_per_sm * board.clock_hz
        peak_pj = (board.tdp_w * board.peak_over_tdp - board.idle_w) / rate * 1e12
        scale = peak_pj * dense.slots(peak) / sum(dense._table_pj(peak).values())
        return {part: scale * energy for part, energy in self._table_pj(tiling).items()}

    def _table_pj(self, tiling: Tiling) -> dict[str, float]:
        """Energy of a step as the table has it, wires and control left out."""
        energies = get_table("horowitz")
        multiply, share, add = OPERATIONS[self.dtype]
        each = share * energies.entry(multiply).value + energies.entry(add).value
        sizes = {"registers": REGISTERS_KIB, "shared": self.gpu.shared_kib, "l2": L2_SLICE_KIB}
        return {"multiplying": self.slots(tiling) * each} | {
            PARTS[store]: sum(bits) * energies.sram(capacity_kib=sizes[store]).value
            for store, bits in self.step_bits(tiling).items()
        }

    def main_loop_power_w(self, shape: Shape, tiling: Tiling) -> float:
        """Power in the main loop at the full clock: idle power, and the energy of its steps."""
        busy = min(count_tiles(shape, tiling), self.gpu.sms)
        steps_per_s = busy / self.step_cycles(tiling) * self.gpu.clock_hz
        return idle_w(self.gpu) + sum(self.step_energy_pj(tiling).values()) * 1e-12 * steps_per_s

    def sustained_clock_hz(self, shape: Shape, tiling: Tiling) -> float:
        """The clock at which the main loop stays within the power limit.

        The voltage is taken not to change with the clock.
        """
        gpu, full = self.gpu, self.main_loop_power_w(shape, tiling)
        if not gpu.power_limit_w or full <= gpu.power_limit_w:
            return gpu.clock_hz
        idle = idle_w(gpu)
        return gpu.clock_hz * (gpu.power_limit_w - idle) / (full - idle)

    def l2_bytes_per_cycle(self, clock_hz: float) -> float:
        """Bytes L2 gives in a cycle of a clock."""
        own = self.gpu.clock_hz / clock_hz if self.gpu.l2_own_clock else 1.0
        return self.gpu.l2_bytes_per_cycle * own

    def dram_bytes_per_cycle(self, clock_hz: float) -> float:
        """Bytes DRAM moves in a cycle of a clock."""
        return self.gpu.dram_gbytes_per_s * 1e9 * self.gpu.dram_efficiency / clock_hz


def count_tiles(shape: Shape, tiling: Tiling) -> int:
    """Tiles of a product, its parts of the depth counted each."""
    high, wide = -(-shape.rows // tiling.rows), -(-shape.columns // tiling.columns)
    return high * wide * tiling.splits * shape.batch
