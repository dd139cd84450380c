"""Sparse tensor cores: a GPU's GEMM with weights kept N of M, and the same GEMM dense.

The weights are the left operand (rows: output features), activations the right one (columns:
tokens, pixels); N of every M neighbours along the reduction are kept, 2:4 for fp16, bf16, int8 and
fp8, 1:2 for tf32, two of four pairs for int4. The sparse matrix multiply takes the same cycles as
a dense one of N/M of its depth, so the multipliers' gain is M/N whatever the values are. Format and
pattern are those of the encoded layer; zeros that follow no pattern run as any other number.

A library cuts the output into thread-block tiles, one an SM at a time, and walks the depth in
steps. For each step ``cp.async`` brings a slice of both operands into one of several stages of
shared memory - from DRAM, or from L2 if another SM of the same wave or an earlier wave brought it
there - while the warps multiply the stage before: each loads fragments from shared memory and feeds
its quarter's tensor core. Then the tile's epilogue writes the output, and the SM takes the next
tile (with ``store_waits`` only once the output is in DRAM). The last wave of tiles leaves SMs idle.

    launch -> issue -> dram_fetch -> l2_read -> sm_port => stages => mma -> epilogue -> store

DRAM and L2 are resources that all SMs share; shared memory bounds a step of ``mma`` as the tensor
cores do. That is Ampere's way; Hopper's kernels are told in :mod:`.kernels`. Tile and split of the
depth are those whose estimated time is least, as a library's heuristic or search picks them.

Left out: the instruction stream within a step (fragment loads are taken to hide behind the
multiply; a barrier is paid a step), two blocks sharing an SM, hardware dispatch of a late SM's
tiles to others, the order of split-K sums between SMs, bank conflicts, DRAM rows and refresh (an
efficiency), TLBs, clocks that change during a run, and kernels beside the product (finding
ranges, scaling integer sums). Tiles of a wave miss L2 in equal shares. A convolution is an implicit
GEMM (:mod:`.unfolding`): its image is in DRAM and L2, its unfolded copies in shared memory alone.

Sources: NVIDIA A100, GA102 and H100 architecture white papers; Mishra et al., Accelerating sparse
deep neural networks, 2021; CUTLASS (tiles, stages, swizzle); Luo et al., arXiv 2402.13499
(latencies); CUTLASS, Implicit GEMM Convolution.
"""

from sparqsim.architectures.sparse_tensor_core.config import KINDS, Shape, Sparsity, Tiling
from sparqsim.architectures.sparse_tensor_core.cores import TensorCores
from sparqsim.architectures.sparse_tensor_core.machine import SparseTensorCore
from sparqsim.architectures.sparse_tensor_core.plan import Plan, best_tiling, tilings

__all__ = [
    "KINDS",
    "Plan",
    "Shape",
    "SparseTensorCore",
    "Sparsity",
    "TensorCores",
    "Tiling",
    "best_tiling",
    "tilings",
]
