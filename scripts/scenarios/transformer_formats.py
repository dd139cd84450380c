"""Formats on a real transformer: what outliers leave of 4-bit weights, and what each format costs.

MiniLM's weights (22.7 million, some of them 175 standard deviations out) in each format, one scale
a tensor, nothing else rounded; judged by the likeness of its sentence embeddings to float32. Beside
it the machine built for the format runs one of its layers with 8-bit (ANT, OliVe: their own)
activations. Needs the trained weights of the extra ``models``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from sparqsim.architectures.arrays.ant import Ant
from sparqsim.architectures.arrays.olive import Olive
from sparqsim.architectures.arrays.plain import PlainArray
from sparqsim.architectures.arrays.shifting import Multiplier
from sparqsim.architectures.machine import Machine, run
from sparqsim.scripts.output import PatientBar
from sparqsim.scripts.scenarios.frame import Scenario, panels
from sparqsim.simulator.palette import BLUE, GREEN, GREY, ORANGE, PURPLE
from sparqsim.workloads.compress import compress
from sparqsim.workloads.models.real import subject
from sparqsim.workloads.recipes import Recipe, TensorRecipe
from sparqsim.workloads.tensors import from_trained

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NETWORK, LAYER, ROWS = "minilm", "layer0.down", 64
INTEGER, SHIFT = PlainArray(), PlainArray(multiplier=Multiplier.SHIFT)
FORMATS: dict[str, tuple[str, Machine]] = {
    "int8": ("int8", INTEGER),
    "int4": ("int4", INTEGER),
    "ant4": ("ant4", Ant()),
    "olive4": ("olive4", Olive()),
    "apot_4": ("int8", SHIFT),
    "apot_6": ("int8", SHIFT),
}  # weights -> activations on the machine, and the machine
COLOURS = {"int8": GREY, "int4": GREY, "ant4": BLUE, "olive4": GREEN, "apot_4": ORANGE,
           "apot_6": PURPLE}  # fmt: skip


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A format: likeness of the embeddings, and time of the layer."""

    weights: str
    machine: str
    cosine: float
    cycles: int


class Study(msgspec.Struct, frozen=True, kw_only=True):
    """All formats."""

    layer: str
    rows: list[Row]


def weights_recipe(name: str) -> TensorRecipe:
    """Weights in a format, one scale per tensor, its range searched where it has no search."""
    search = "minmax" if name.startswith(("ant", "olive")) else "mse"
    return TensorRecipe(format=name, calibration=search)


def measure(bar: PatientBar) -> Study:
    """Compress and judge the network in each format, and run the layer."""
    trained, tensors = subject(NETWORK), from_trained(NETWORK, LAYER, ROWS)
    rows = []
    for number, (name, (activations, machine)) in enumerate(FORMATS.items()):
        bar(name, number, len(FORMATS))
        weights = weights_recipe(name)
        _, report, _ = compress(trained, Recipe(name=name, weights=weights))
        assert report.compressed is not None
        recipe = Recipe(name=name, weights=weights, activations=TensorRecipe(format=activations))
        ran = run(machine, tensors, recipe=recipe, requantize=True, record="summary").report
        assert ran.verification.status == "exact"
        rows.append(
            Row(
                weights=name,
                machine=machine.name,
                cosine=report.compressed["cosine to float32"],
                cycles=ran.cycles,
            )
        )
    return Study(layer=f"{NETWORK}/{LAYER}", rows=rows)


def finding(found: Study) -> str:
    """The paragraph."""
    by = {row.weights: row for row in found.rows}
    base = by["int8"]
    four = [by[name] for name in ("int4", "ant4", "olive4", "apot_4")]
    best = max(four, key=lambda row: row.cosine)
    likeness = ", ".join(f"{row.weights} {row.cosine:.3f}" for row in four)
    times = ", ".join(f"{row.weights} {row.cycles / base.cycles:.2f}" for row in found.rows[1:])
    return (
        f"Embeddings of MiniLM with weights of 4 bits, one scale per tensor, are this like "
        f"float32's (cosine): {likeness}; int8 {base.cosine:.3f}, "
        f"apot_6 {by['apot_6'].cosine:.3f}. Of the "
        f"4-bit formats {best.weights} keeps most. On the machines built for them {found.layer} "
        f"takes, over int8 on an integer array: {times}. Machines differ in more than their "
        f"format, and a sum of powers of two pays a cycle a term."
    )


def draw(found: Study) -> Figure:
    """Likeness, noise of the layer, and its cycles, by format."""
    figure, axes = panels(2, 8.8, 3.6)
    names = [row.weights for row in found.rows]
    base = found.rows[0].cycles
    for panel, title, values in (
        (axes[0], "cosine to float32 (weights rounded)", [row.cosine for row in found.rows]),
        (axes[1], f"{found.layer}: cycles over int8", [row.cycles / base for row in found.rows]),
    ):
        bars = panel.bar(names, values, color=[COLOURS[name] for name in names])
        panel.bar_label(bars, [f"{value:.2f}" for value in values], fontsize=8)
        panel.set_title(title, loc="left", fontsize=9)
        panel.tick_params(axis="x", rotation=30)
    axes[1].set_xticks(range(len(names)), [f"{row.weights}\n{row.machine}" for row in found.rows],
                       fontsize=7, rotation=0)  # fmt: skip
    return figure


SCENARIO = Scenario(
    name="transformer_formats", title="Number formats on a real transformer", measure=measure,
    finding=finding, draw=draw,
)  # fmt: skip
