"""DianNao: its peak rate, and what AlexNet's layers reach of it.

The paper's 452 GOP/s (recalled, unchecked) counts multiplications and additions. An NFU of 256
multipliers and sixteen adder trees of 15 adders does 496 operations a cycle, 486 GOP/s at 0.98 GHz:
7.5 % more than published. Which operations the paper leaves out is not known to us, so this is
shown as a miss and nothing is adjusted. Layers run from their shapes, one image; a layer's rate
counts two operations a multiply-accumulate.
"""

from __future__ import annotations

import click
import msgspec

from sparqsim.architectures.arrays.diannao import DianNao
from sparqsim.scripts.output import console, json_option, table, write_json
from sparqsim.scripts.validation._arrays import timed
from sparqsim.scripts.validation._evidence import Evidence, Table

PUBLISHED_GOPS = 452.0  # assumed: recalled from ASPLOS 2014, unchecked
PUBLISHED_W = 0.485  # assumed: likewise

EVIDENCE = (
    Evidence(
        tables=(
            Table(
                title="DianNao's peak and power",
                name="{item}",
                published=("measured",),
                simulated="simulated",
                quantity="item",
            ),
        ),
    ),
)


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One layer: ``bound`` says what its time is bound by, compute or memory."""

    layer: str
    cycles: int
    multipliers_busy: float
    gops: float
    bound: str


def rows() -> list[Row]:
    """AlexNet, layer by layer."""
    found = []
    for each in timed(DianNao(), "alexnet").runs:
        report = each.report
        compute = report.counters["compute_cycles"]
        found.append(
            Row(
                layer=each.name,
                cycles=report.cycles,
                multipliers_busy=report.utilization["multipliers"],
                gops=2 * report.macs.dense / report.seconds / 1e9,
                bound="compute" if compute > 0.9 * report.cycles else "memory",
            )
        )
    return found


def chip_power_w() -> float:
    """Power of NFU and buffers on AlexNet's third convolution, by the shipped energies."""
    runs = timed(DianNao(), "alexnet").runs
    report = next(each.report for each in runs if each.name == "conv3")
    chip = sum(p.energy_pj or 0.0 for p in report.energy.parts if not p.part.startswith("DRAM"))
    return chip * 1e-12 / report.seconds


@click.command()
@json_option
def command(json_path: str | None) -> None:
    """DianNao's peak and AlexNet's layers."""
    found, peak, power = rows(), DianNao().peak_gops, chip_power_w()
    if json_path:
        comparison = [
            ("peak GOP/s", PUBLISHED_GOPS, peak),
            ("chip power on conv3, W", PUBLISHED_W, power),
        ]
        write_json(
            {
                "rows": [
                    {"item": item, "measured": said, "simulated": ours, "error": ours / said - 1}
                    for item, said, ours in comparison
                ],
                "layers": found,
            },
            json_path,
        )
    if json_path == "-":
        return
    made = table(
        "DianNao on AlexNet, one image",
        ("layer",),
        ("cycles", "multipliers busy", "GOP/s", "bound by"),
        "two operations a multiply-accumulate",
    )
    for row in found:
        made.add_row(
            row.layer, f"{row.cycles:,}", f"{100 * row.multipliers_busy:.1f} %",
            f"{row.gops:.0f}", row.bound,
        )  # fmt: skip
    console().print(made)
    console().print(
        f"peak {peak:.0f} GOP/s, published {PUBLISHED_GOPS:.0f} "
        f"({100 * (peak / PUBLISHED_GOPS - 1):+.1f} %, unexplained); chip power on conv3 "
        f"{power:.2f} W by the shipped energies, published {PUBLISHED_W} W"
    )
