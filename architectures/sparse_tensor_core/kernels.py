"""How a library's kernels are made: what multiplies, what neighbours share, which tiles there are.

Up to Ampere each warp loads its fragments and multiplies them (``mma.sync``), a thread block has
one tile, and tiles are those of CUTLASS's sm80 kernels. Hopper's kernels multiply by groups of four
warps that read shared memory themselves (``wgmma``), fed by a tensor memory accelerator (TMA):
neighbouring SMs, a cluster, take at once what L2 gives them both, and a tile may be any multiple of
64 by any of 8. The libraries' names of their kernels, as public traces show them, tell the rest:

* cuBLAS: ``nvjet_hsh_128x256_64x4_2x1_v_bz_coopA``, tile, step and stages, cluster; in a grid of as
  many blocks as SMs, so that each goes from tile to tile and fetches early;
* cuSPARSELt: ``sm90_xmma_sparse_gemm_..._tilesize128x256x64_cgasize2x1x1_...``, a block a tile;
* ``torch._int_mm`` still gets kernels by warps of the generation before (``cutlass_80``), and no
  workspace to split the depth (pytorch/pytorch, issue 187094).
"""

from __future__ import annotations

from typing import NamedTuple

from sparqsim.architectures.sparse_tensor_core.config import TILES, Configuration

# published: of cuBLAS's names in public traces of H100s, and their transposes
BETWEEN = (
    *((320, 128), (128, 320), (256, 160), (160, 256), (192, 192), (256, 96), (96, 256)),
    *((128, 192), (192, 128), (128, 160), (160, 128)),
)
# derived: of cuSPARSELt's names in h100_gemm.csv, all there are
SPARSE = ((128, 256), (128, 192), (128, 128), (64, 256), (128, 64), (64, 128), (64, 64))
# derived: of CUTLASS's names in h100_gemm.csv, all there are
LEGACY = ((128, 256), (128, 128), (128, 64), (64, 64))
LEGACY_WARP = (64, 64)  # published: warp tiles of CUTLASS's sm80 kernels
LEGACY_WARPS = 4  # published: likewise


class Kernels(NamedTuple):
    """What the kernels of a library have in common.

    Attributes
    ----------
    tiles
        Rows and columns of the tiles there are.
    issue
        Share of the peak that back-to-back instructions reach.
    warp
        Rows and columns of the part of a tile whose operands are read from shared memory once.
    warps
        Parts of a tile at least.
    splits
        Whether the depth may be split over SMs.
    cluster
        Tiles that share a panel.
    groups
        Whether they multiply by warp groups, fed by TMA.
    stays
        Whether a block goes from tile to tile, and fetches early.
    legacy
        Whether they are those of the generation before.
    """

    tiles: tuple[tuple[int, int], ...]
    issue: float
    warp: tuple[int, int]
    warps: int
    splits: bool
    cluster: int = 1
    groups: bool = False
    stays: bool = False
    legacy: bool = False


def kernels_of(gpu: Configuration, dense: bool, integers: bool) -> Kernels:
    """The kernels of the dense or the sparse library for integers or floats."""
    if dense and integers and gpu.legacy_integers:
        share = gpu.legacy_integers
        return Kernels(LEGACY, share, LEGACY_WARP, LEGACY_WARPS, splits=False, legacy=True)
    groups, warp = gpu.warp_groups, (gpu.warp_rows, gpu.warp_columns)
    if dense:
        tiles, issue, splits = TILES + BETWEEN * groups, gpu.dense_issue, gpu.dense_split_k
    else:
        tiles, issue = (SPARSE if groups else TILES)[: gpu.sparse_tiles], gpu.sparse_issue
        splits = gpu.sparse_split_k
    stays = groups and dense
    return Kernels(tiles, issue, warp, gpu.tile_warps, splits, gpu.cluster_tiles, groups, stays)
