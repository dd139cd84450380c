"""EIE's queues: what depth buys, and what no depth mends.

Three pruned layers at the densities of EIE's Table III run with queues of 1 to 256 activations. A
queue evens out columns in which one PE has more entries than another; what is uneven over the whole
layer stays. Efficiency is the mean work of the PEs over the time the run took.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from sparqsim.architectures.eie import EIE
from sparqsim.architectures.network import run_layer
from sparqsim.scripts.output import PatientBar
from sparqsim.scripts.scenarios.frame import Scenario, by_factors, lines, panels
from sparqsim.simulator.palette import BLUE, GREEN, ORANGE
from sparqsim.workloads.shared import Kept, sharing
from sparqsim.workloads.work import load

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LAYERS = ("eie/alex-8", "eie/nt-we", "eie/nt-wd")
DEPTHS = (1, 2, 4, 8, 16, 32, 64, 256)
CHOSEN = 8  # published: the depth EIE has


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A layer: efficiency at each depth, and the busiest PE's work over the mean."""

    layer: str
    efficiency: list[float]
    busiest_over_mean: float
    cycles: list[int]


class Study(msgspec.Struct, frozen=True, kw_only=True):
    """All layers."""

    depths: list[int]
    rows: list[Row]


def measure(bar: PatientBar) -> Study:
    """Run each layer at each depth; what is counted is shared between depths."""
    rows = []
    for number, layer in enumerate(LAYERS):
        network, efficiency, cycles, busiest = load(layer), [], [], 1.0
        with sharing(Kept(2**30)):
            for depth in DEPTHS:
                bar(f"{layer}, {depth} deep", number, len(LAYERS))
                machine = EIE(queue_slots=depth + 1, act_spill=False)
                report = run_layer(machine, network, verify=False, record="summary").report
                efficiency.append(report.load_balance.efficiency)
                busiest = report.load_balance.busiest_over_mean
                cycles.append(report.cycles)
        rows.append(
            Row(layer=layer, efficiency=efficiency, busiest_over_mean=busiest, cycles=cycles)
        )
    return Study(depths=list(DEPTHS), rows=rows)


def finding(found: Study) -> str:
    """The paragraph."""
    at = found.depths.index(CHOSEN)
    parts = [
        f"{row.layer} {100 * row.efficiency[0]:.0f} %, {100 * row.efficiency[at]:.0f} % and "
        f"{100 * row.efficiency[-1]:.0f} %"
        for row in found.rows
    ]
    worst = max(found.rows, key=lambda row: row.busiest_over_mean)
    return (
        f"Mean work of a PE over the time of the run, with queues of 1, {CHOSEN} and "
        f"{found.depths[-1]} activations: {'; '.join(parts)}. Depth mends what is uneven from "
        f"column to column; what is uneven over the layer stays: in {worst.layer} the busiest PE "
        f"has {worst.busiest_over_mean:.2f} times the mean work, so that no queue brings it over "
        f"{100 / worst.busiest_over_mean:.0f} %."
    )


def draw(found: Study) -> Figure:
    """Efficiency over depth, and the bound that imbalance sets."""
    figure, (axes,) = panels(1, 6.8)
    rows = {row.layer: [100 * share for share in row.efficiency] for row in found.rows}
    colours = (BLUE, GREEN, ORANGE)
    lines(axes, found.depths, rows, colours)
    for row, colour in zip(found.rows, colours, strict=False):
        axes.axhline(100 / row.busiest_over_mean, color=colour, linewidth=0.9, linestyle=":")
    by_factors(axes, found.depths)
    axes.set(ylim=(0, 100), xlabel="activations a queue holds")
    axes.set_ylabel("mean work over the time of the run (%)")
    axes.set_title("EIE, 64 PEs; dotted: all the time of the busiest PE", loc="left")
    return figure


SCENARIO = Scenario(
    name="eie_queues", title="EIE's queues and load imbalance", measure=measure,
    finding=finding, draw=draw,
)  # fmt: skip
