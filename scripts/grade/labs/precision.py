"""Precision on Bit Fusion against number formats on ANT and OliVe."""

from __future__ import annotations

from typing import Any

import numpy as np

from sparqsim.architectures.arrays.bitfusion import BitFusion
from sparqsim.architectures.network import run_layer
from sparqsim.scripts.grade.sheet import Lab, Question
from sparqsim.simulator.report import Report
from sparqsim.workloads import formats
from sparqsim.workloads.work import load

RECIPES = ("int8", "w4a8", "int4")
TYPES = ("int4_signed", "flint4_signed", "pot4_signed")
CLEAR = 0.95  # least error over the second


def draw(rng: np.random.Generator) -> dict[str, Any]:
    """A product, eight values for a type of four bits, and eight with one outlier."""
    pairs = rng.integers(-6, 7, 8)
    pairs[pairs == 0] = 3
    pairs[int(rng.integers(8))] = int(rng.choice([-1, 1])) * int(rng.integers(18, 90))
    return {
        "m": 16 * int(rng.integers(1, 9)),
        "k": 256 * int(rng.integers(2, 9)),
        "n": 64 * int(rng.integers(2, 9)),
        "values": np.round(rng.uniform(0.3, 62, 8), 1).tolist(),
        "pairs": pairs.tolist(),
        "row": _clear_row(rng),
    }


def _errors(row: list[float]) -> dict[str, float]:
    """Squared error of each type."""
    z = np.array(row)
    return {name: float(np.square(z - formats.get(name).round(z)).sum()) for name in TYPES}


def _clear_row(rng: np.random.Generator) -> list[float]:
    """Twelve values for which one type is clearly the best."""
    while True:
        drawn = rng.choice([1.0, 3.0]) * rng.standard_t(2.5, 12)
        row: list[float] = np.round(drawn, 1).clip(-14, 14).tolist()
        best, second, _ = sorted(_errors(row).values())
        if best < CLEAR * second:
            return row


def work(given: dict[str, Any]) -> str:
    """The product as WORK."""
    return f"gemm:{given['m']}x{given['k']}x{given['n']}"


def sheet(given: dict[str, Any]) -> list[str]:
    """The task."""
    return [
        f"sparqsim run bitfusion {work(given)} --no-verify --recipe R, R of {', '.join(RECIPES)}",
        f"x = {given['values']} in flint4_unsigned (sparqsim formats flint4_unsigned); ties "
        "go to the larger value, here and below",
        f"y = {given['pairs']} in ovp_int4 (sparqsim formats ovp_int4)",
        f"z = {given['row']}, unscaled, in one of {', '.join(TYPES)}",
    ]


def simulated(given: dict[str, Any], recipe: str) -> Report:
    """The product on Bit Fusion."""
    return run_layer(BitFusion(), load(work(given)), recipe=recipe, verify=False).report


def solve(given: dict[str, Any]) -> dict[str, Any]:
    """The answers."""
    found = {recipe: simulated(given, recipe) for recipe in RECIPES}
    errors = _errors(given["row"])
    return {
        "cycles_int8": found["int8"].cycles,
        "speedup_w4a8": found["int8"].cycles / found["w4a8"].cycles,
        "speedup_int4": found["int8"].cycles / found["int4"].cycles,
        "bound_int4": found["int4"].bound_by,
        "flint": formats.get("flint4_unsigned").round(given["values"]).astype(int).tolist(),
        "pairs": formats.get("ovp_int4").round(np.array([given["pairs"]], float))[0]
        .astype(int).tolist(),
        "type": min(errors, key=errors.__getitem__),
    }  # fmt: skip


LAB = Lab(
    title="Precision on Bit Fusion, formats on ANT and OliVe",
    draw=draw,
    sheet=sheet,
    solve=solve,
    questions=(
        Question(key="cycles_int8", text="Cycles with int8", kind="whole"),
        Question(key="speedup_w4a8", text="Cycles of int8 over those of w4a8", within=2e-3),
        Question(key="speedup_int4", text="Cycles of int8 over those of int4", within=2e-3),
        Question(key="bound_int4", text="What bounds the run with int4 (bound_by)", kind="word"),
        Question(key="flint", text="The eight values that x becomes", kind="wholes", points=2),
        Question(key="pairs", text="The eight values that y becomes", kind="wholes", points=2),
        Question(key="type", text="The type of least squared error for z", kind="word"),
    ),
)
