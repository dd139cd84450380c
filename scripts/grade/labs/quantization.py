"""Affine quantization by hand: a matrix of the student's own, and one requantized sum."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparqsim.scripts.grade.sheet import Lab, Question
from sparqsim.workloads.quantize import quantize
from sparqsim.workloads.requantize import Multiplier, requantize

CLEAR = 0.01  # steps from a tie


def draw(rng: np.random.Generator) -> dict[str, Any]:
    """A 4 x 4 matrix, a width, and the scales of a product."""
    bits = int(rng.integers(2, 5))
    matrix = _clear_matrix(rng, bits)
    scale_w, scale_x, scale_y = (round(float(each), 4) for each in rng.uniform(0.005, 0.08, 3))
    return {
        "matrix": matrix.tolist(),
        "bits": bits,
        "scale_w": scale_w,
        "scale_x": scale_x,
        "scale_y": round(scale_y + 0.08, 4),
        "sum": int(rng.integers(-9000, 9000)),
    }


def _clear_matrix(rng: np.random.Generator, bits: int) -> NDArray[np.float64]:
    """A matrix of which no code depends on how a tie is rounded."""
    while True:
        matrix = np.round(rng.normal(0.3, 1.2, (4, 4)), 2) + 0.0
        low, high = min(matrix.min(), 0.0), max(matrix.max(), 0.0)
        steps = np.append(matrix, low) * (2**bits - 1) / (high - low)
        if (np.abs(steps % 1 - 0.5) > CLEAR).all():
            return matrix


def rows(given: dict[str, Any]) -> str:
    """The matrix as ``sparqsim formats --quantize`` takes it."""
    return "/".join(",".join(f"{each:g}" for each in row) for row in given["matrix"])


def sheet(given: dict[str, Any]) -> list[str]:
    """The task."""
    return [
        f"Quantize r to {given['bits']} bits, signed, with one scale and a zero point "
        "(q = clamp(round(r / S) + Z), range widened to hold 0):",
        *("  " + " ".join(f"{each:6.2f}" for each in row) for row in given["matrix"]),
        f"A sum of products {given['sum']} has S_W = {given['scale_w']}, S_X = {given['scale_x']}; "
        f"it leaves as int8 with S_Y = {given['scale_y']}, Z_Y = 0.",
        f"Compare: sparqsim formats int{given['bits']} --asymmetric --quantize {rows(given)}",
    ]


def solve(given: dict[str, Any]) -> dict[str, Any]:
    """The answers."""
    r = np.array(given["matrix"])
    q = quantize(r, f"int{given['bits']}_signed", asymmetric=True)
    assert q.zero_point is not None
    factor = Multiplier.of(given["scale_w"] * given["scale_x"] / given["scale_y"])
    return {
        "scale": float(q.scale[0]),
        "zero_point": int(q.zero_point[0]),
        "codes": q.integers().ravel().tolist(),
        "worst_error": float(np.abs(r - q.dequantize()).max()),
        "sqnr_db": q.sqnr_db(r),
        "right_shift": factor.right_shift,
        "output": int(requantize(np.array([given["sum"]]), factor)[0]),
    }


LAB = Lab(
    title="Affine quantization by hand",
    draw=draw,
    sheet=sheet,
    solve=solve,
    questions=(
        Question(key="scale", text="The scale S", within=2e-3),
        Question(key="zero_point", text="The zero point Z", kind="whole"),
        Question(key="codes", text="All 16 codes, row by row", kind="wholes", points=2),
        Question(key="worst_error", text="The largest |r - S (q - Z)|", within=5e-3),
        Question(key="sqnr_db", text="10 log10(sum r^2 / sum error^2), dB", within=5e-3),
        Question(
            key="right_shift", kind="whole",
            text="n of S_W S_X / S_Y = m 2^-n with m in [0.5, 1)",
        ),
        Question(key="output", text="The int8 that the sum becomes", kind="whole"),
    ),
)  # fmt: skip
