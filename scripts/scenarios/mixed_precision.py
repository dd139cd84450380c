"""Bits where layers need them: budgets on the digits CNN, and what Bit Fusion makes of them.

Each layer takes 2, 4 or 8 bits so that the noise of its outputs is least within a budget of stored
bits (:mod:`sparqsim.workloads.mixed_precision`, an exact search); beside it, all layers alike.
Activations have 8 bits. Accuracy is over all test images, time and energy those of an image.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from sparqsim.architectures.arrays.bitfusion import BitFusion
from sparqsim.architectures.network import run_network
from sparqsim.scripts.output import PatientBar
from sparqsim.scripts.scenarios.decode import recipe_of
from sparqsim.scripts.scenarios.frame import Scenario, panels
from sparqsim.simulator.palette import BLUE, VERMILION
from sparqsim.workloads.mixed_precision import mixed_recipe
from sparqsim.workloads.models.real import subject
from sparqsim.workloads.recipes import Recipe
from sparqsim.workloads.work import load

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NETWORK = "digits-cnn"
CHOICES = ("int2", "int4", "int8")
BUDGETS = (2.5, 3.0, 3.5, 4.0, 5.0, 6.0)  # stored bits per weight, with scales
WORST = 0.01  # accuracy a user may give away


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A recipe: bits by layer, accuracy, cycles and energy of an image."""

    recipe: str
    mixed: bool
    bits: dict[str, int]
    mean_bits: float
    accuracy: float
    cycles: int
    energy_nj: float


class Study(msgspec.Struct, frozen=True, kw_only=True):
    """All recipes, and the accuracy in float32."""

    float32: float
    rows: list[Row]


def measure(bar: PatientBar) -> Study:
    """Search each budget, and run it and the uniform recipes."""
    trained, network = subject(NETWORK), load(NETWORK)
    asked: list[tuple[Recipe, bool]] = [(recipe_of(bits), False) for bits in (2, 4, 8)]
    for budget in BUDGETS:
        asked.append((mixed_recipe(trained, recipe_of(8), CHOICES, budget), True))
    rows, float32 = [], 0.0
    sizes = {layer.name: layer.weights for layer in network.layers}
    for number, (recipe, mixed) in enumerate(asked):
        bar(recipe.name, number, len(asked))
        report = run_network(BitFusion(), network, recipe=recipe)
        assert report.accuracy is not None
        float32 = report.accuracy.float32["accuracy"]
        bits = {run.name: run.report.operands["weights"].bits for run in report.runs}
        whole = sum(sizes[name] for name in bits)
        rows.append(
            Row(
                recipe=recipe.name,
                mixed=mixed,
                bits=bits,
                mean_bits=sum(bits[name] * sizes[name] for name in bits) / whole,
                accuracy=report.accuracy.compressed["accuracy"],
                cycles=report.totals.cycles,
                energy_nj=report.totals.energy.known_pj / 1e3,
            )
        )
    return Study(float32=float32, rows=rows)


def chosen(found: Study) -> Row:
    """The recipe of least energy that gives away at most one point of accuracy."""
    good = [row for row in found.rows if row.accuracy >= found.float32 - WORST]
    return min(good, key=lambda row: (row.energy_nj, row.mean_bits))


def finding(found: Study) -> str:
    """The paragraph."""
    best = chosen(found)
    least = min((row for row in found.rows if row.mixed), key=lambda row: row.accuracy)
    uniform = {row.recipe: row for row in found.rows if not row.mixed}
    eight, two = uniform["w8a8"], uniform["w2a8"]
    bits = ", ".join(f"{name} {count}" for name, count in best.bits.items())
    return (
        f"All layers at 8 bits keep {100 * eight.accuracy:.2f} % of images right, at 2 bits "
        f"{100 * two.accuracy:.2f} % (float32: {100 * found.float32:.2f} %). Of all recipes within "
        f"a point of float32, {best.recipe} takes the least energy: {best.mean_bits:.2f} bits a "
        f"weight ({bits}), {best.cycles / eight.cycles:.2f} times the cycles and "
        f"{best.energy_nj / eight.energy_nj:.2f} times the energy of 8 bits. Noise is a guide, not "
        f"the accuracy: {least.recipe} has {least.mean_bits:.2f} bits and "
        f"{100 * least.accuracy:.2f} %."
    )


def draw(found: Study) -> Figure:
    """Accuracy and energy over the bits of a weight, mixed and uniform."""
    figure, axes = panels(3, 11, 3.6)
    eight = next(row for row in found.rows if row.recipe == "w8a8")
    for mixed, colour, label in ((False, VERMILION, "all alike"), (True, BLUE, "mixed")):
        rows = sorted((r for r in found.rows if r.mixed == mixed), key=lambda row: row.mean_bits)
        bits = [row.mean_bits for row in rows]
        for place, values in (
            (axes[0], [100 * row.accuracy for row in rows]),
            (axes[1], [row.cycles / eight.cycles for row in rows]),
            (axes[2], [row.energy_nj / eight.energy_nj for row in rows]),
        ):
            place.plot(bits, values, "o-", color=colour, label=label, markersize=5)
            place.set_xlabel("bits of a weight, mean")
    axes[0].axhline(100 * found.float32, color="0.4", linestyle="--", linewidth=0.9)
    axes[0].legend(frameon=False, fontsize=8)
    titles = ("accuracy (%); dashed: float32", "cycles over 8 bits", "energy over 8 bits")
    for place, title in zip(axes, titles, strict=True):
        place.set_title(title, loc="left")
    for place in axes[1:]:
        place.set_ylim(0)
    return figure


SCENARIO = Scenario(
    name="mixed_precision", title="Mixed precision on Bit Fusion, by what layers tolerate",
    measure=measure, finding=finding, draw=draw,
)  # fmt: skip
