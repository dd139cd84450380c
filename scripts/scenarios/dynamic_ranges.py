"""Static or dynamic ranges of activations: accuracy, and what a machine pays for asking late.

A static range is calibrated beforehand and clips what is larger; a dynamic one is that of each
input, so that a layer's outputs leave as wide sums and come back to be scaled when the last of them
is known. The digits CNN on Bit Fusion with activations of 8 and 4 bits, weights of 8.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from sparqsim.architectures.arrays.bitfusion import BitFusion
from sparqsim.architectures.network import run_network
from sparqsim.scripts.output import PatientBar
from sparqsim.scripts.scenarios.frame import Scenario, panels
from sparqsim.simulator.palette import BLUE, GREEN, ORANGE
from sparqsim.workloads.recipes import Recipe, TensorRecipe
from sparqsim.workloads.work import load

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NETWORK, LARGE = "digits-cnn", "resnet18"
BITS = (8, 4, 3)
RANGES: dict[str, dict[str, object]] = {
    "static, least to most": {"calibration": "minmax"},
    "static, least error": {"calibration": "mse"},
    "dynamic": {"dynamic": True},
}
COLOURS = (BLUE, GREEN, ORANGE)


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """Ranges at some bits: accuracy on the small network, time and DRAM bits of the large one."""

    ranges: str
    bits: int
    accuracy: float
    cycles: int
    dram_bits: int
    energy_nj: float


class Study(msgspec.Struct, frozen=True, kw_only=True):
    """All ranges, and the accuracy in float32."""

    float32: float
    rows: list[Row]


def measure(bar: PatientBar) -> Study:
    """Classify, and time, with each kind of ranges."""
    network, large = load(NETWORK), load(LARGE, numbers=False)
    rows, float32 = [], 0.0
    for number, bits in enumerate(BITS):
        for name, options in RANGES.items():
            bar(f"{name}, {bits} bits", number, len(BITS))
            recipe = Recipe(
                name=name,
                weights=TensorRecipe(format="int8", granularity="channel"),
                activations=msgspec.convert({"format": f"int{bits}"} | options, TensorRecipe),
            )
            judged = run_network(BitFusion(), network, recipe=recipe).accuracy
            assert judged is not None
            float32 = judged.float32["accuracy"]
            totals = run_network(BitFusion(), large, recipe=recipe, verify=False).totals
            assert totals.dram_read_bits is not None and totals.dram_written_bits is not None
            rows.append(
                Row(
                    ranges=name,
                    bits=bits,
                    accuracy=judged.compressed["accuracy"],
                    cycles=totals.cycles,
                    dram_bits=totals.dram_read_bits + totals.dram_written_bits,
                    energy_nj=totals.energy.known_pj / 1e3,
                )
            )
    return Study(float32=float32, rows=rows)


def finding(found: Study) -> str:
    """The paragraph."""
    by = {(row.ranges, row.bits): row for row in found.rows}
    static, searched, dynamic = RANGES
    parts = [
        f"at {bits} bits {100 * by[static, bits].accuracy:.2f} %, "
        f"{100 * by[searched, bits].accuracy:.2f} % and {100 * by[dynamic, bits].accuracy:.2f} %"
        for bits in BITS
    ]
    few = BITS[1]
    slower = by[dynamic, few].cycles / by[static, few].cycles
    more = by[dynamic, few].dram_bits / by[static, few].dram_bits
    energy = by[dynamic, few].energy_nj / by[static, few].energy_nj
    return (
        f"Right answers with ranges from least to most, of least error, and dynamic: "
        f"{'; '.join(parts)} (float32: {100 * found.float32:.2f} %). Dynamic ranges need no data "
        f"beforehand, but sums leave wide and come back: on {LARGE} at {few} bits {more:.2f} times "
        f"the DRAM traffic, {slower:.2f} times the cycles and {energy:.2f} times the energy."
    )


def draw(found: Study) -> Figure:
    """Accuracy, DRAM traffic and cycles by bits and ranges."""
    figure, axes = panels(3, 11, 3.6)
    base = {row.bits: row for row in found.rows if row.ranges == next(iter(RANGES))}
    width = 0.8 / len(RANGES)
    for i, (name, colour) in enumerate(zip(RANGES, COLOURS, strict=True)):
        rows = [row for row in found.rows if row.ranges == name]
        place = [j + (i - 1) * width for j in range(len(rows))]
        for panel, values in (
            (axes[0], [100 * row.accuracy for row in rows]),
            (axes[1], [row.dram_bits / base[row.bits].dram_bits for row in rows]),
            (axes[2], [row.cycles / base[row.bits].cycles for row in rows]),
        ):
            panel.bar(place, values, width, color=colour, label=name)
    axes[0].axhline(100 * found.float32, color="0.4", linestyle="--", linewidth=0.9)
    axes[0].set_ylim(min(100 * row.accuracy for row in found.rows) - 3, 100)
    figure.legend(*axes[0].get_legend_handles_labels(), frameon=False, fontsize=8,
                  loc="outside lower center", ncols=3)  # fmt: skip
    titles = (f"{NETWORK}: right (%); dashed: float32", f"{LARGE}: DRAM traffic over static",
              f"{LARGE}: cycles over static")  # fmt: skip
    for panel, title in zip(axes, titles, strict=True):
        panel.set_title(title, loc="left")
        panel.set_xticks(range(len(BITS)), [f"{bits} bits" for bits in BITS])
    return figure


SCENARIO = Scenario(
    name="dynamic_ranges", title="Static against dynamic ranges of activations", measure=measure,
    finding=finding, draw=draw,
)  # fmt: skip
