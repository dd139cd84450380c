"""Queues and load imbalance on EIE, on a sparse layer of the student's own."""

from __future__ import annotations

from typing import Any

import numpy as np

from sparqsim.architectures.eie import EIE
from sparqsim.architectures.network import run_layer
from sparqsim.scripts.grade.sheet import Lab, Question
from sparqsim.simulator.report import Report
from sparqsim.workloads.work import load

DEPTHS = (2, 3, 5, 9, 17, 33, 65, 129, 257)  # slots of a ring, one more than it holds
ENOUGH = 1.05  # cycles over those with the deepest queue


def draw(rng: np.random.Generator) -> dict[str, Any]:
    """A layer, its densities, PEs and the slots of their queues."""
    return {
        "inputs": 64 * int(rng.integers(4, 9)),
        "outputs": 64 * int(rng.integers(4, 9)),
        "weight_density": round(float(rng.uniform(0.08, 0.2)), 2),
        "activation_density": round(float(rng.uniform(0.25, 0.5)), 2),
        "seed": int(rng.integers(1000)),
        "pes": int(rng.choice([16, 32, 64])),
        "queue_slots": int(rng.choice([2, 3, 5])),
    }


def command(given: dict[str, Any]) -> str:
    """What the student runs."""
    return (
        f"sparqsim run eie gemm:1x{given['inputs']}x{given['outputs']} "
        f"--weight-density {given['weight_density']} "
        f"--activation-density {given['activation_density']} --seed {given['seed']} "
        f"--pes {given['pes']} --queue-slots {given['queue_slots']}"
    )


def sheet(given: dict[str, Any]) -> list[str]:
    """The task."""
    return [
        f"{command(given)} --json -",
        f"A ring of S slots holds S - 1 activations; consider S of {', '.join(map(str, DEPTHS))}.",
    ]


def simulated(given: dict[str, Any], queue_slots: int) -> Report:
    """The report of the student's layer with queues of so many slots."""
    return run_layer(
        EIE(pes=given["pes"], queue_slots=queue_slots),
        load(f"gemm:1x{given['inputs']}x{given['outputs']}"),
        verify=False,
        seed=given["seed"],
        weight_density=given["weight_density"],
        activation_density=given["activation_density"],
    ).report


def solve(given: dict[str, Any]) -> dict[str, Any]:
    """The answers."""
    report = simulated(given, given["queue_slots"])
    cycles = {depth: simulated(given, depth).cycles for depth in DEPTHS}
    entries = report.counters["entries"]
    return {
        "cycles": report.cycles,
        "padding_share": report.counters["padding_entries"] / entries,
        "balanced_cycles": report.load_balance.mean_field_cycles,
        "load_balance": report.load_balance.efficiency,
        "enough_slots": min(d for d in DEPTHS if cycles[d] <= ENOUGH * cycles[DEPTHS[-1]]),
    }


LAB = Lab(
    title="Queue depth and load imbalance on EIE",
    draw=draw,
    sheet=sheet,
    solve=solve,
    questions=(
        Question(key="cycles", text="Cycles of the run", kind="whole"),
        Question(key="padding_share", text="Padding entries over all entries read", within=1e-3),
        Question(
            key="balanced_cycles", text="Cycles if all PEs had the same work (mean field)",
            within=1e-3,
        ),
        Question(key="load_balance", text="These over the run's cycles", within=1e-3),
        Question(
            key="enough_slots", kind="whole", points=2,
            text="The least S within 5 % of the cycles that S = 257 takes",
        ),
    ),
)  # fmt: skip
