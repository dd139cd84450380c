"""2:4, N:M and unstructured sparsity: what is kept, what it takes, what it gains."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparqsim.architectures.network import run_layer
from sparqsim.architectures.sparse_tensor_core import SparseTensorCore
from sparqsim.scripts.grade.sheet import Lab, Question
from sparqsim.simulator.report import Report
from sparqsim.workloads.encodings import NMSparse
from sparqsim.workloads.prune import NM, Unstructured, magnitude, mask
from sparqsim.workloads.work import load


def draw(rng: np.random.Generator) -> dict[str, Any]:
    """Sixteen weights whose sizes all differ, a pattern, a width, and a product."""
    sizes = rng.choice(np.arange(5, 200), 16, replace=False) / 100
    pattern = [(1, 4), (2, 8), (4, 8), (1, 2)][int(rng.integers(4))]
    return {
        "weights": (sizes * rng.choice([-1, 1], 16)).round(2).tolist(),
        "n": pattern[0],
        "m": pattern[1],
        "value_bits": int(rng.choice([4, 8, 16])),
        "size": 256 * int(rng.integers(3, 13)),
    }


def sheet(given: dict[str, Any]) -> list[str]:
    """The task."""
    size = given["size"]
    return [
        f"w = {given['weights']}, pruned by magnitude",
        f"Stored as {given['n']}:{given['m']}: values of {given['value_bits']} bits, and the place "
        "of each in its group in as few whole bits as name all places",
        f"sparqsim run sparse-tensor-core gemm:{size}x{size}x{size} --no-verify --recipe R, "
        "R of fp16, 2:4",
    ]


def _kept(weights: NDArray[np.float64], kept: NDArray[np.bool_]) -> float:
    return float(np.square(weights[kept]).sum() / np.square(weights).sum())


def simulated(given: dict[str, Any], recipe: str) -> Report:
    """The product on the tensor core."""
    size = given["size"]
    network = load(f"gemm:{size}x{size}x{size}")
    return run_layer(SparseTensorCore(), network, recipe=recipe, verify=False).report


def solve(given: dict[str, Any]) -> dict[str, Any]:
    """The answers."""
    w = np.array([given["weights"]])
    pairs = mask(magnitude(w), NM(n=2, m=4))
    free = mask(magnitude(w), Unstructured(), 0.5)
    codes = np.zeros((1, given["m"]), np.uint16)  # one group says it all
    codes[:, : given["n"]] = 1
    stored = NMSparse.encode(codes, n=given["n"], m=given["m"], value_bits=given["value_bits"])
    dense, sparse = (simulated(given, recipe).cycles for recipe in ("fp16", "2:4"))
    return {
        "mask": pairs[0].astype(int).tolist(),
        "kept_2of4": _kept(w, pairs),
        "kept_unstructured": _kept(w, free),
        "bits_per_weight": stored.bits / codes.size,
        "speedup": dense / sparse,
    }


LAB = Lab(
    title="2:4 and N:M against unstructured sparsity",
    draw=draw,
    sheet=sheet,
    solve=solve,
    questions=(
        Question(key="mask", text="The 2:4 mask of w: 16 of 0 or 1", kind="wholes", points=2),
        Question(key="kept_2of4", text="Share of the sum of squares that 2:4 keeps", within=1e-3),
        Question(
            key="kept_unstructured", text="The same of the larger half of w, wherever it lies",
            within=1e-3,
        ),
        Question(key="bits_per_weight", text="Stored bits per weight of the dense matrix",
                 within=1e-6),
        Question(key="speedup", text="Cycles of fp16 over those of 2:4", within=2e-3),
    ),
)  # fmt: skip
