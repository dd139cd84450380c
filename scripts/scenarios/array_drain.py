"""What it costs when an array is drained between passes, and how much of that tiling can avoid.

The published performance models of Bit Fusion and ANT charge nothing for filling and emptying the
array, and their tilings were chosen by those models. This scenario takes the authors' own tilings
(``bitfusion_layers.csv``, ``ant_layers.csv``) and prices them again with every pass drained before
the next enters: a pass is a tile on Bit Fusion, whose units hold no operand, and a fold of it on
ANT's array, which keeps a fold's sums in its elements. Then the tiling search runs with that rule.

    python -m sparqsim.scripts.scenarios.array_drain [--data DIR] [--out docs/figures]
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click
from msgspec.structs import replace

from sparqsim.architectures.arrays.cost import cost
from sparqsim.architectures.arrays.rules import Drain
from sparqsim.architectures.arrays.search import Objective, candidates
from sparqsim.base import InputError, output_folder, written_whole
from sparqsim.scripts.validation._arrays import Case, ant_case, bitfusion_case, read_rows

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROOT = Path(__file__).resolve().parents[2]


class Slowdown(NamedTuple):
    """Cycles of a network over the published model's, which charges no drain."""

    machine: str
    network: str
    drained: float  # the authors' tilings, every pass drained
    short_only: float  # the authors' tilings, only what a short pass cannot hide
    searched: float  # every pass drained, and the search counts it


def slowdown(machine: str, network: str, cases: list[Case]) -> Slowdown:
    """Price a network's layers under the rules of the figure."""
    published = drained = short = searched = 0
    for case in cases:
        every = replace(case.rules, drain=Drain.PER_PASS)
        published += cost(case.shape, case.rules, case.mapping).cycles
        drained += cost(case.shape, every, case.mapping).cycles
        overlapped = replace(case.rules, drain=Drain.SHORT_PASSES)
        short += cost(case.shape, overlapped, case.mapping).cycles
        found = candidates(case.shape, every, case.rates, Objective.CYCLES)[0]
        searched += cost(case.shape, every, found).cycles
    return Slowdown(machine, network, drained / published, short / published, searched / published)


def slowdowns(data: Path) -> list[Slowdown]:
    """Read both tables and return a row a machine and network, in their order."""
    groups: dict[tuple[str, str], list[Case]] = {}
    for _, row in read_rows(data / "bitfusion_layers.csv"):
        groups.setdefault(("Bit Fusion", row["network"]), []).append(bitfusion_case(row))
    names = {"ANT-OS": "ANT", "BitFusion": "Bit Fusion's widths on ANT's array"}
    for _, row in read_rows(data / "ant_layers.csv"):
        key = (names.get(row["design"], row["design"]), row["network"])
        groups.setdefault(key, []).append(ant_case(row))
    return [slowdown(machine, network, cases) for (machine, network), cases in groups.items()]


def figure(rows: list[Slowdown]) -> Figure:
    """Draw a pair of bars a network."""
    from matplotlib.figure import Figure

    drawing = Figure(figsize=(8.0, 6.2), layout="constrained")
    axes = drawing.subplots()
    places: list[float] = []
    for index in range(len(rows)):
        gap = sum(rows[i].machine != rows[i - 1].machine for i in range(1, index + 1))
        places.append(index + 0.7 * gap)
    height = 0.38
    for offset, field, colour, label in (
        (-height / 2, "drained", "#c44e52", "the authors' tilings, every pass drained"),
        (height / 2, "searched", "#4c72b0", "every pass drained, and the search counts it"),
    ):
        bars = axes.barh(
            [place + offset for place in places],
            [getattr(row, field) for row in rows],
            height,
            color=colour,
            label=label,
        )
        axes.bar_label(bars, fmt="%.2f", padding=3, fontsize=8)
    axes.axvline(1.0, color="0.2", linewidth=0.8)
    axes.set_yticks(places, [f"{row.network}  ({row.machine})" for row in rows], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.12 * max(row.drained for row in rows))
    axes.set_xlabel("cycles, relative to the published model that charges no fill and drain")
    axes.set_title("Draining the array between passes", fontsize=11)
    axes.legend(loc="upper right", fontsize=8, frameon=False)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return drawing


@click.command()
@click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False),
    default=ROOT / "scripts" / "validation",
    help="Folder of bitfusion_layers.csv and ant_layers.csv.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=ROOT / "docs" / "figures",
    help="Folder to write array_drain.png to.",
)
def main(data: Path, out: Path) -> None:
    """Print and draw what non-overlapped drains cost, by network."""
    try:
        rows = slowdowns(data)
        with written_whole(output_folder(out) / "array_drain.png") as path:
            figure(rows).savefig(path, dpi=150)
    except InputError as error:
        raise click.ClickException(str(error)) from None
    click.echo(
        "cycles over the published model's (1 = array fill and drain are free)\n"
        f"{'machine':35} {'network':10} {'drained':>8} {'short only':>11} {'searched':>9}"
    )
    for row in rows:
        click.echo(
            f"{row.machine:35} {row.network:10} {row.drained:8.3f} {row.short_only:11.3f} "
            f"{row.searched:9.3f}"
        )


if __name__ == "__main__":
    main()
