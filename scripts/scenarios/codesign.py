"""Recipe and array chosen together: what is worth its energy and time.

The digits CNN on Bit Fusion, every recipe (weights of 2, 4 and 8 bits, one scale per tensor or
channel) on every array (8 to 32 a side) at two DRAM bandwidths. A point is worth having if none
other is as accurate for less energy times time. The sweep ``codesign_digits`` searches a larger
space.
"""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

import msgspec

from sparqsim.architectures.arrays.bitfusion import BitFusion
from sparqsim.architectures.network import run_network
from sparqsim.scripts.output import PatientBar
from sparqsim.scripts.scenarios.frame import Scenario, panels
from sparqsim.simulator.palette import BLUE, GREEN, INK, ORANGE
from sparqsim.workloads.recipes import Recipe, TensorRecipe
from sparqsim.workloads.work import load

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NETWORK = "digits-cnn"
BITS, GRAINS = (2, 4, 8), ("tensor", "channel")
SIDES, BANDWIDTHS = (8, 16, 32), (4.0, 32.0)
COLOURS = {2: ORANGE, 4: GREEN, 8: BLUE}


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """A recipe on an array: accuracy, time, energy."""

    weight_bits: int
    granularity: str
    side: int
    dram_gbytes_per_s: float
    accuracy: float
    seconds: float
    energy_pj: float

    @property
    def edp(self) -> float:
        """Energy times time, in joule seconds."""
        return self.energy_pj * 1e-12 * self.seconds

    @property
    def told(self) -> str:
        """In words."""
        return (
            f"{self.weight_bits}-bit weights, one scale per {self.granularity}, {self.side} x "
            f"{self.side}, {self.dram_gbytes_per_s:g} GB/s"
        )


class Study(msgspec.Struct, frozen=True, kw_only=True):
    """All points."""

    points: list[Point]


def measure(bar: PatientBar) -> Study:
    """Judge each recipe once, and time it on each array."""
    network, points = load(NETWORK), []
    shapes = load(NETWORK, numbers=False)
    for number, (bits, grain) in enumerate(product(BITS, GRAINS)):
        recipe = Recipe(
            name=f"w{bits}a8",
            weights=TensorRecipe(format=f"int{bits}", granularity=grain, calibration="mse"),
            activations=TensorRecipe(format="int8"),
        )
        judged = run_network(BitFusion(), network, recipe=recipe).accuracy
        assert judged is not None
        for side, rate in product(SIDES, BANDWIDTHS):
            bar(f"{bits} bits a {grain}, {side} a side", number, len(BITS) * len(GRAINS))
            machine = BitFusion(rows=side, columns=side, dram_gbytes_per_s=rate)
            totals = run_network(machine, shapes, recipe=recipe, verify=False).totals
            points.append(
                Point(
                    weight_bits=bits,
                    granularity=grain,
                    side=side,
                    dram_gbytes_per_s=rate,
                    accuracy=judged.compressed["accuracy"],
                    seconds=totals.seconds,
                    energy_pj=totals.energy.known_pj,
                )
            )
    return Study(points=points)


def front(points: list[Point]) -> list[Point]:
    """The points worth having, the cheapest first."""
    kept: list[Point] = []
    for point in sorted(points, key=lambda each: (each.edp, -each.accuracy)):
        if not kept or point.accuracy > kept[-1].accuracy:
            kept.append(point)
    return kept


def finding(found: Study) -> str:
    """The paragraph."""
    kept = front(found.points)
    best, cheap = kept[-1], kept[0]
    worst = max(
        (each for each in found.points if each.accuracy == best.accuracy), key=lambda p: p.edp
    )
    return (
        f"Of {len(found.points)} points {len(kept)} are worth having. The most accurate "
        f"({100 * best.accuracy:.2f} %) is {best.told}; the same accuracy on the worst array of "
        f"the grid costs {worst.edp / best.edp:.1f} times the energy times time. The cheapest "
        f"({100 * cheap.accuracy:.2f} %) is {cheap.told}, at {best.edp / cheap.edp:.2f} times less "
        f"than the most accurate."
    )


def draw(found: Study) -> Figure:
    """Every point, and the front."""
    figure, (axes,) = panels(1, 7.2)
    for bits, colour in COLOURS.items():
        for grain, mark in zip(GRAINS, ("s", "o"), strict=True):
            points = [p for p in found.points if (p.weight_bits, p.granularity) == (bits, grain)]
            axes.plot([p.edp for p in points], [100 * p.accuracy for p in points], mark,
                      color=colour, alpha=0.6, markersize=5,
                      label=f"{bits} bits, one scale per {grain}")  # fmt: skip
    kept = front(found.points)
    axes.step([p.edp for p in kept], [100 * p.accuracy for p in kept], color=INK, linewidth=1,
              where="post", label="worth having")  # fmt: skip
    axes.set(xscale="log", xlabel="energy times time (J s)", ylabel="digits accuracy (%)")
    axes.minorticks_off()
    axes.legend(frameon=False, fontsize=8, loc="lower right")
    axes.set_title("Digits CNN on Bit Fusion: every recipe on every array", loc="left")
    return figure


SCENARIO = Scenario(
    name="codesign", title="Recipe and array chosen together", measure=measure, finding=finding,
    draw=draw,
)  # fmt: skip
