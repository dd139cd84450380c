"""A network timed from its table of layers alone: what the authors' tables are compared with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from sparqsim.architectures.arrays.machine import ArrayMachine
from sparqsim.architectures.machine import run
from sparqsim.simulator.report import Report
from sparqsim.workloads.layers import Layer, Model


@dataclass(frozen=True, eq=False)
class LayerRun:
    """One layer of a network; ``like`` names the identical layer that was simulated for it."""

    layer: Layer
    report: Report
    like: str | None = None


def run_network(
    machine: ArrayMachine, model: Model, *, batch: int = 1, engine: str = "compiled"
) -> list[LayerRun]:
    """Time every layer of a network from its shapes; identical layers are simulated once.

    Parameters
    ----------
    batch
        Multiplies the batch of every layer.

    Returns
    -------
    list of LayerRun
        A row a layer of the table; ``layer.repeat`` says how often it runs.
    """
    seen: dict[Any, LayerRun] = {}
    found = []
    for layer in model.layers:
        key = (machine.shape_of(layer, batch), machine.published_widths(layer))
        if key in seen:
            report = msgspec.structs.replace(seen[key].report, layer=layer.name)
            found.append(LayerRun(layer, report, seen[key].layer.name))
            continue
        program = machine.plan(layer, batch=batch)
        seen[key] = LayerRun(layer, run(machine, program, engine=engine, record="summary").report)
        found.append(seen[key])
    return found


def total_cycles(runs: list[LayerRun]) -> int:
    """Cycles of a network, layer after layer."""
    return sum(each.report.cycles * each.layer.repeat for each in runs)


def total_energy_pj(runs: list[LayerRun]) -> float:
    """Energy of a network."""
    return sum(each.report.energy.known_pj * each.layer.repeat for each in runs)
