"""What the name of a library's kernel tells of how it cuts a product.

Of cuBLAS (``nvjet_sm90_hsh_128x256_64x4_2x1_v_bz_coopA_TNN``) tile, step and stages, and cluster;
of cuSPARSELt (``..._tilesize128x256x64_cgasize2x1x1_...``) tile and step, and cluster; of CUTLASS
(``cutlass_80_..._128x256_128x3_...``) tile, step and stages. Rows come first, for the
libraries' output is stored by columns. Into how many parts a depth is split (``splitK``,
``segment_k_on``) no name tells.
"""

from __future__ import annotations

import math
import re
from typing import NamedTuple

from sparqsim.architectures.sparse_tensor_core import Shape, TensorCores, Tiling
from sparqsim.architectures.sparse_tensor_core.config import MOST_STAGES

TILE = r"(?P<rows>\d+)x(?P<columns>\d+)"
NAMES = tuple(
    re.compile(pattern)
    for pattern in (
        rf"nvjet_\w+?_{TILE}_(?P<step>\d+)x(?P<stages>\d+)_(?P<high>\d+)x(?P<wide>\d+)_",
        rf"tilesize{TILE}x(?P<step>\d+)_cgasize(?P<high>\d+)x(?P<wide>\d+)x",
        rf"cutlass_80_\w+?_{TILE}_(?P<step>\d+)x(?P<stages>\d+)",
    )
)
SPLIT = ("splitK", "segment_k_on")


class Cut(NamedTuple):
    """How a kernel cuts a product; 0 stages are not told."""

    rows: int
    columns: int
    step: int
    stages: int
    cluster: tuple[int, int]


def cut_of(kernel: str) -> Cut | None:
    """What a name tells; None where it tells too little, or the depth is split."""
    found = next(filter(None, (name.search(kernel) for name in NAMES)), None)
    if found is None or any(word in kernel for word in SPLIT):
        return None
    told = {name: int(value) for name, value in found.groupdict("0").items()}
    cluster = told.get("high", 1), told.get("wide", 1)
    return Cut(told["rows"], told["columns"], told["step"], told.get("stages", 0), cluster)


def tiling_of(cut: Cut, cores: TensorCores, shape: Shape) -> Tiling:
    """A product cut so: as many stages as fit where none are told.

    A cluster that would reach over the edge of the output is as many tiles less.
    """
    room = int(cores.gpu.shared_kib * 1024 // cores.stage_bytes(*cut[:3]))
    high = math.gcd(cut.cluster[0], -(-shape.rows // cut.rows))
    wide = math.gcd(cut.cluster[1], -(-shape.columns // cut.columns))
    steps = -(-shape.depth // cut.step)
    stages = cut.stages or min(room, MOST_STAGES)
    return Tiling(cut.rows, cut.columns, 1, cut.step, steps, stages, (high, wide))
