"""The numbers of a GPU with sparse tensor cores: published constants, and fields to vary."""

from __future__ import annotations

from typing import ClassVar, NamedTuple

from sparqsim.architectures.machine import Machine
from sparqsim.architectures.pairs import EIGHT, FOUR
from sparqsim.base import InputError


class Kind(NamedTuple):
    """What a number format is to the tensor core.

    ``formats`` are the names of what it multiplies, ``bits`` those of a value in memory; ``rate``
    is multiplications a cycle against fp16; ``block`` the products of a block against fp16's, 0 for
    integers; ``least`` the least exponent; ``native`` the pattern (n, m, elements of a unit);
    ``sum_bits`` the significant bits of a float sum.
    """

    formats: tuple[str, ...]
    bits: int
    rate: float
    block: float
    least: int
    output_bytes: int
    native: tuple[int, int, int]
    sum_bits: int = 24

    @property
    def integers(self) -> bool:
        """Whether sums are whole numbers."""
        return self.block == 0

    @property
    def pairs(self) -> bool:
        """Whether a decoder of outlier-victim pairs stands in front of each dot product."""
        return self.formats in (FOUR, EIGHT)


# published: A100 white paper (rates), PTX ISA (patterns, signs), Fasi et al. (blocks); the
# narrowest first. OliVe (ISCA 2023, published): a decoder in front of each dot product of 16, at
# the rate of integers of the same width and 0.25 % more area; patterns beside pairs: left out.
# fp8: rate and pattern published, H100 white paper; block and bits of sums measured on an H100
KINDS: dict[str, Kind] = {
    "int4": Kind(("int4_signed", "int4_unsigned"), 4, 4.0, 0.0, 0, 4, (2, 4, 2)),
    "olive4": Kind(FOUR, 4, 4.0, 0.0, 0, 4, (1, 1, 1)),
    "int8": Kind(("int8_signed", "int8_unsigned"), 8, 2.0, 0.0, 0, 4, (2, 4, 1)),
    "olive8": Kind(EIGHT, 8, 2.0, 0.0, 0, 4, (1, 1, 1)),
    "fp8": Kind(("float8_e4m3fn",), 8, 2.0, 2.0, -6, 2, (2, 4, 1), 14),
    "fp16": Kind(("float16",), 16, 1.0, 1.0, -14, 2, (2, 4, 1)),
    "bf16": Kind(("bfloat16",), 16, 1.0, 1.0, -126, 2, (2, 4, 1)),
    "tf32": Kind(("tf32",), 32, 0.5, 0.5, -126, 4, (1, 2, 1)),
}
# What float sums are stored as. fp8: torch._scaled_mm has fp16 and fp32 too.
STORED = {"fp16": "fp16", "bf16": "bf16", "fp8": "bf16", "tf32": "fp32"}

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
QUARTERS = 4  # published: tensor cores and register files of an SM
L2_SLICE_KIB = 512  # published: A100 white paper
# Multiply and add of a product in the names of the energy table. bf16 and tf32 are taken as fp16,
# fp8 as int8, int4 as a quarter of int8's multiplier; OliVe's pairs as integers of their width.
OPERATIONS: dict[str, tuple[str, float, str]] = {
    "fp16": ("multiply.fp16", 1.0, "add.fp32"),
    "bf16": ("multiply.fp16", 1.0, "add.fp32"),
    "tf32": ("multiply.fp16", 1.0, "add.fp32"),
    "int8": ("multiply.int8", 1.0, "add.int32"),
    "int4": ("multiply.int8", 0.25, "add.int32"),
    "fp8": ("multiply.int8", 1.0, "add.int32"),
    "olive8": ("multiply.int8", 1.0, "add.int32"),
    "olive4": ("multiply.int8", 0.25, "add.int32"),
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

    @property
    def name(self) -> str:
        """Elements kept of elements: ``2:4``; ``dense``."""
        return "dense" if self.is_dense else f"{self.kept}:{self.group}"

    def stored_bits(self, value_bits: int) -> float:
        """Bits stored for each element of the dense matrix, positions included."""
        return self.n / self.m * (value_bits + self.index_bits / self.unit)


DENSE = Sparsity(1, 1)


class Tiling(NamedTuple):
    """How a product is cut: tile of the output, parts of the depth, steps, stages.

    ``step`` is the depth of a step in elements, ``steps`` of one part of the depth. ``cluster``
    are the tiles, along rows and along columns, that run side by side and share what they read.
    """

    rows: int
    columns: int
    splits: int
    step: int
    steps: int
    stages: int
    cluster: tuple[int, int] = (1, 1)


ME = "sparse_tensor_core"
WHOLE = (
    "sms", "fp16_macs_per_sm", "float_block", "extra_bits", "shared_kib", "shared_bytes_per_cycle",
    "port_bytes_per_cycle", "warp_rows", "warp_columns", "tile_warps", "l2_partitions",
    "l2_bytes_per_cycle", "l2_latency_cycles", "dram_latency_cycles", "barrier_cycles",
    "block_start_cycles", "cluster_tiles", "sparse_tiles",
)  # fmt: skip
MOST = 1 << 24  # assumed: of any other
# derived: the sum of a block, of 23 + 20 bits, 2 before the point and 256 terms, fits a float64
# derived: a quarter of the least tile along each side is one instruction of 16 x 8, or two
MOST_OF = {"float_block": 256, "extra_bits": 20, "tile_warps": 16}
REAL = {
    "clock_hz": (1e6, 1e11),
    "fp32_accumulate": (0.01, 1.0),
    "dense_issue": (0.01, 1.0),
    "sparse_issue": (0.01, 1.0),
    "legacy_integers": (0.0, 1.0),
    "l2_mib": (2**-10, 2**20),
    "dram_gb": (1e-6, 1e6),
    "dram_gbytes_per_s": (1e-3, 1e6),
    "dram_efficiency": (0.01, 1.0),
    "launch_us": (0.0, 1e6),
    "sparse_call_us": (0.0, 1e6),
    "tdp_w": (1e-3, 1e6),
    "peak_over_tdp": (0.1, 10.0),
    "idle_w": (0.0, 1e6),
    "power_limit_w": (0.0, 1e6),
}


class Configuration(Machine, frozen=True, kw_only=True):
    """Configuration of a GPU with sparse tensor cores; the defaults are an A100 of 40 GB (SXM4).

    Where each number comes from stands in the presets; the defaults' in ``a100-40gb``.

    Attributes
    ----------
    sms
        Streaming multiprocessors.
    fp16_macs_per_sm
        Dense fp16 multiply-accumulates of an SM in a cycle, over its four tensor cores.
    fp32_accumulate
        Share of that rate which sums in fp32 leave; all float formats have them here.
    any_pattern
        Whether the metadata select takes any N:M, at a gain of M/N; else 2:4 alone (tf32 1:2, int4
        two of four pairs).
    int4
        Whether there is an int4 mode.
    fp8
        Whether there is an fp8 mode (E4M3).
    outlier_pairs
        Whether OliVe's decoders stand in front of the dot products: formats olive4 and olive8.
    float_block
        Products of fp16 that are added at once.
    extra_bits
        Bits the aligner keeps beyond the 23 of fp32; of fp8 it keeps 13 on every machine.
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
    tile_warps
        Parts into which a tile is cut at least, so that all of an SM's tensor cores have one.
    dense_issue
        Share of the peak that back-to-back dense instructions reach.
    sparse_issue
        Share of it that back-to-back sparse instructions reach.
    barrier_cycles
        Cycles of a step in which the tensor cores wait for the barrier and the first fragments.
    block_start_cycles
        Cycles until a new thread block asks for its first data.
    cluster_tiles
        Tiles of neighbouring SMs to which L2 gives a panel they share at once (TMA multicast).
    warp_groups
        Whether kernels multiply by warp groups (see :mod:`.kernels`): blocks stay and ask for the
        next tile's data early, there are more tiles, and shared memory takes stages in beside the
        fragments it gives.
    legacy_integers
        Share of the peak that the dense library's integer kernels reach where they are those of
        the generation before (by warps, without clusters); 0: they are not.
    l2_mib
        Capacity of L2.
    l2_partitions
        Parts of L2 that each hold a copy of what all SMs read.
    l2_bytes_per_cycle
        Read bandwidth of L2.
    l2_own_clock
        Whether L2 keeps its bandwidth where the power limit lowers the SMs' clock.
    l2_latency_cycles
        Latency of a read that hits L2.
    dram_gb
        Capacity of DRAM in 10^9 bytes.
    dram_efficiency
        Share of the peak that can be had.
    dram_latency_cycles
        Latency of a read that misses L2.
    store_waits
        Whether an SM takes its next tile when its output is in DRAM; else L2 takes outputs in.
    launch_us
        Time of a kernel launch.
    sparse_call_us
        Further time of a call of the sparse library.
    dense_split_k
        Whether the dense library may split the depth over SMs.
    sparse_split_k
        Whether the sparse library may.
    sparse_tiles
        Tiles of which the sparse library chooses: the first so many of all there are.
    tdp_w
        Thermal design power of the board: of the preset with this TDP, else as configured.
    peak_over_tdp
        Power of that board at its dense peak over its TDP.
    idle_w
        Power of that board when idle; it goes with the SMs.
    power_limit_w
        Power that lowers the clock where the main loop would exceed it; 0 is no limit.
    limit_of_mean
        Whether it limits the mean power over a product, its launch, waits and idle SMs included,
        and not that of the main loop.
    """

    name: ClassVar[str] = "sparse-tensor-core"
    title: ClassVar[str] = "Sparse tensor core (NVIDIA Ampere, N:M): GEMM on a GPU"
    recipe: ClassVar[str] = "fp16"

    sms: int = 108
    clock_hz: float = 1.41e9
    fp16_macs_per_sm: int = 1024
    fp32_accumulate: float = 1.0
    any_pattern: bool = False
    int4: bool = True
    fp8: bool = False
    outlier_pairs: bool = False
    float_block: int = 8
    extra_bits: int = 1
    shared_kib: int = 163
    shared_bytes_per_cycle: int = 128
    port_bytes_per_cycle: int = 64
    warp_rows: int = 64
    warp_columns: int = 64
    tile_warps: int = 4
    dense_issue: float = 1000 / 1024
    sparse_issue: float = 0.95
    barrier_cycles: int = 30
    block_start_cycles: int = 500
    cluster_tiles: int = 1
    warp_groups: bool = False
    legacy_integers: float = 0.0
    l2_mib: float = 40.0
    l2_partitions: int = 2
    l2_bytes_per_cycle: int = 5120
    l2_own_clock: bool = False
    l2_latency_cycles: int = 261
    dram_gb: float = 40.0
    dram_gbytes_per_s: float = 1555.0
    dram_efficiency: float = 0.93
    dram_latency_cycles: int = 466
    store_waits: bool = False
    launch_us: float = 3.0
    sparse_call_us: float = 0.0
    dense_split_k: bool = True
    sparse_split_k: bool = False
    sparse_tiles: int = len(TILES)
    tdp_w: float = 400.0
    peak_over_tdp: float = 1.0
    idle_w: float = 50.0
    power_limit_w: float = 0.0
    limit_of_mean: bool = False

    def __post_init__(self) -> None:
        for name in WHOLE:
            value, most = getattr(self, name), MOST_OF.get(name, MOST)
            if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
                raise InputError(
                    f"{ME}.{name} must be a whole number from 1 to {most:,}, got {value!r}"
                )
        for name, (low, high) in REAL.items():
            value = getattr(self, name)
            real = isinstance(value, int | float) and not isinstance(value, bool)
            if not (real and low <= value <= high):
                raise InputError(f"{ME}.{name} must be {low:g} to {high:g}, got {value!r}")
        if self.dram_latency_cycles < self.l2_latency_cycles:
            raise InputError(
                f"{ME}.dram_latency_cycles must be at least {ME}.l2_latency_cycles, "
                f"{self.l2_latency_cycles:,}, got {self.dram_latency_cycles:,}"
            )
        if self.tdp_w * self.peak_over_tdp <= self.idle_w:
            raise InputError(
                f"{ME}.tdp_w, times peak_over_tdp, must exceed idle_w, {self.idle_w}, got "
                f"{self.tdp_w} times {self.peak_over_tdp}"
            )
        if self.power_limit_w and self.power_limit_w <= self.idle_w:
            raise InputError(
                f"{ME}.power_limit_w must be 0 (no limit) or exceed idle_w, {self.idle_w}, "
                f"got {self.power_limit_w}"
            )
        if self.sparse_tiles > len(TILES):
            raise InputError(
                f"{ME}.sparse_tiles must be at most {len(TILES)}, all tiles there are, got "
                f"{self.sparse_tiles}"
            )
        least_kib = 2 * sum(TILES[-1]) * STEP_BITS // 8192
        if self.shared_kib < least_kib:
            raise InputError(
                f"{ME}.shared_kib must hold two stages of the smallest tile, {least_kib} KiB, got "
                f"{self.shared_kib}"
            )

    @property
    def kinds(self) -> tuple[str, ...]:
        """The formats it multiplies, the narrowest first: names of :data:`KINDS`."""
        modes = {"int4": self.int4, "fp8": self.fp8}
        return tuple(
            name
            for name, kind in KINDS.items()
            if modes.get(name, True) and (self.outlier_pairs or not kind.pairs)
        )

    def kind(self, dtype: str) -> Kind:
        """A row of :data:`KINDS`.

        Raises
        ------
        InputError
            If there is no such format, or this machine has no such mode.
        """
        if dtype not in self.kinds:
            raise InputError(
                f"{ME} multiplies {', '.join(self.kinds)} in this configuration, got {dtype!r}"
            )
        return KINDS[dtype]

    def sparsity(self, dtype: str, pattern: str) -> Sparsity:
        """A pattern as numbers: ``native``, ``dense`` or N:M.

        Raises
        ------
        InputError
            If it is none of them, or the machine does not do it.
        """
        native = Sparsity(*self.kind(dtype).native)
        if pattern == "native":
            return native
        if pattern == "dense":
            return DENSE
        n, colon, m = pattern.partition(":")
        if not (colon and n.isdecimal() and m.isdecimal() and 1 <= int(n) <= int(m) <= 256):
            raise InputError(
                f"a pattern must be native, dense or N:M with 1 <= N <= M <= 256, got {pattern!r}"
            )
        if (int(n), int(m)) == (native.kept, native.group):
            return native
        if int(n) == int(m):
            return DENSE
        if not self.any_pattern:
            raise InputError(
                f"{ME} does {native.name} for {dtype}, got {pattern}; set any_pattern for a "
                "metadata select that does more"
            )
        return Sparsity(int(n), int(m))
