"""Figures of the array machines: tiles in time, event by event, and the cost of drained passes.

``array_tiles.png``: two layers on Bit Fusion, tile by tile, as the netlist ran them: one that the
array bounds, one that the DRAM does. ``array_event_driven.png``: every layer of the authors' tables
(``bitfusion_layers.csv``, ``ant_layers.csv``) with the authors' tilings, event-driven cycles over
analytic ones with the same rule for fill and drain, both by the authors' model.
``array_drain.png``: what it costs when an array is drained between passes. The published models
charge nothing for filling and emptying the array, and their tilings were chosen by those models.
They are priced again with every pass drained before the next enters: a pass is a tile on Bit
Fusion, whose units hold no operand, and a fold of it on ANT's array, which keeps a fold's sums in
its elements. Then the tiling search runs with that rule.

    python -m sparqsim.scripts.scenarios.array_figures [--data DIR] [--out docs/figures]
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click
import numpy as np
from msgspec.structs import replace

from sparqsim.architectures.arrays.bitfusion import BitFusion
from sparqsim.architectures.arrays.cost import cost
from sparqsim.architectures.arrays.rules import Drain
from sparqsim.architectures.arrays.search import Objective, candidates
from sparqsim.architectures.arrays.tiles import tile_netlist
from sparqsim.architectures.machine import run
from sparqsim.base import InputError, output_folder, written_whole
from sparqsim.scripts.scenarios.frame import open_frame
from sparqsim.scripts.validation._arrays import Case, ant_case, bitfusion_case, read_rows
from sparqsim.simulator.engines import simulate
from sparqsim.simulator.timeline import Timeline
from sparqsim.workloads.layers import Conv2d, Layer, Linear

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROOT = Path(__file__).resolve().parents[2]
SHOWN = ("input_dma", "weight_dma", "psum_dma", "array", "drain", "output_dma")
COLOURS = {
    "input_dma": "#0072b2",
    "weight_dma": "#56b4e9",
    "psum_dma": "#999999",
    "array": "#d55e00",
    "drain": "#e69f00",
    "output_dma": "#009e73",
}
LAYERS: dict[str, Layer] = {
    "bound by the array: 3 x 3 convolution, 256 channels, 8 x 8 bits": Conv2d(
        name="conv",
        in_channels=256,
        out_channels=256,
        input=(14, 14),
        kernel=(3, 3),
        padding=(1, 1),
    ),
    "bound by the DRAM: fully connected, 16 rows, 4 x 4 bits": Linear(
        name="fc",
        in_features=1024,
        out_features=512,
        rows=16,
        activation_bits=4,
        weight_bits=4,
    ),
}


class Point(NamedTuple):
    """One layer of a published table."""

    machine: str
    analytic: int
    simulated: int


def points(data: Path) -> list[Point]:
    """Run every layer of both tables event by event."""
    found = []
    for machine, table, rebuild, drain in (
        ("Bit Fusion", "bitfusion_layers.csv", bitfusion_case, Drain.PER_LAYER),
        ("ANT", "ant_layers.csv", ant_case, Drain.SHORT_PASSES),
    ):
        for _, row in read_rows(data / table):
            case: Case = rebuild(row)
            assert case.rules.authors is not None
            theirs = replace(case.rules.authors, last_store_counted=True)
            rules = replace(case.rules, drain=drain, authors=theirs)
            tiled = tile_netlist(case.shape, rules, case.mapping, clock_hz=5e8)
            cycles = simulate(tiled.netlist, record="summary").cycles
            found.append(Point(machine, tiled.analytic.cycles, cycles))
    return found


def tiles_figure() -> Figure:
    """Draw when each actor was busy, one row per actor."""
    from matplotlib.figure import Figure

    drawing = Figure(figsize=(9.0, 5.4), layout="constrained")
    panels = drawing.subplots(len(LAYERS), 1)
    machine = BitFusion()
    for axes, (title, layer) in zip(panels, LAYERS.items(), strict=True):
        timeline = run(machine, machine.plan(layer)).timeline
        until = _some_tiles(timeline)
        names = {actor.name for actor in timeline.netlist.actors}
        for place, name in enumerate(SHOWN):
            if name not in names:  # no sums come back
                continue
            starts = timeline.starts_of(name)[:, 0]
            spans = timeline.latency(name) if name == "drain" else timeline.busy(name)
            keep = starts < until
            bars = list(zip(starts[keep], spans[keep, 0], strict=True))
            axes.broken_barh(bars, (place - 0.4, 0.8), color=COLOURS[name], edgecolor="white")
        axes.set_yticks(range(len(SHOWN)), SHOWN)
        axes.set(xlim=(0, until), ylim=(len(SHOWN) - 0.4, -0.6))
        axes.set_title(title, fontsize=10, loc="left")
        open_frame(axes)
    panels[-1].set_xlabel("cycles from the start of the layer")
    return drawing


def _some_tiles(timeline: Timeline, tiles: int = 20) -> int:
    """When the first few tiles, or the whole run, are over."""
    starts = timeline.starts_of("array")[:, 0]
    return int(starts[tiles]) if len(starts) > tiles else timeline.cycles


def agreement_figure(rows: list[Point]) -> Figure:
    """Draw the relative difference of every layer over its cycles."""
    from matplotlib.figure import Figure

    drawing = Figure(figsize=(8.0, 4.0), layout="constrained")
    axes = drawing.subplots()
    axes.axhspan(-1, 1, color="0.93", zorder=0)
    axes.axvline(100_000, color="0.6", linewidth=0.8, linestyle="--")
    for machine, colour, mark in (("Bit Fusion", "#0072b2", "o"), ("ANT", "#d55e00", "^")):
        mine = [row for row in rows if row.machine == machine]
        differences = [100 * (row.simulated / row.analytic - 1) for row in mine]
        axes.scatter(
            [row.analytic for row in mine],
            differences,
            s=22,
            color=colour,
            marker=mark,
            alpha=0.7,
            linewidth=0,
            label=f"{machine}, {len(mine)} layers",
        )
    axes.set_xscale("log")
    axes.set_xlabel("analytic cycles, fill and drain included")
    axes.set_ylabel("event-driven over analytic, %")
    axes.set_title("The authors' tilings, event by event (grey: within 1 %)", fontsize=11)
    axes.legend(frameon=False)
    open_frame(axes)
    return drawing


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
    """Read both tables and return one row per machine and network, in their order."""
    groups: dict[tuple[str, str], list[Case]] = {}
    for _, row in read_rows(data / "bitfusion_layers.csv"):
        groups.setdefault(("Bit Fusion", row["network"]), []).append(bitfusion_case(row))
    names = {"ANT-OS": "ANT", "BitFusion": "Bit Fusion's widths on ANT's array"}
    for _, row in read_rows(data / "ant_layers.csv"):
        key = (names.get(row["design"], row["design"]), row["network"])
        groups.setdefault(key, []).append(ant_case(row))
    return [slowdown(machine, network, cases) for (machine, network), cases in groups.items()]


def drain_figure(rows: list[Slowdown]) -> Figure:
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
    open_frame(axes)
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
    help="Folder to write the figures to.",
)
def main(data: Path, out: Path) -> None:
    """Draw tiles in time, how near the analytic model they are, and what drained passes cost."""
    try:
        folder = output_folder(out)
        rows, drained = points(data), slowdowns(data)
        for name, figure in (
            ("array_tiles.png", tiles_figure()),
            ("array_event_driven.png", agreement_figure(rows)),
            ("array_drain.png", drain_figure(drained)),
        ):
            with written_whole(folder / name) as path:
                figure.savefig(path, dpi=150)
    except InputError as error:
        raise click.ClickException(str(error)) from None
    large = [row for row in rows if row.analytic > 100_000]
    worst = max(abs(row.simulated / row.analytic - 1) for row in large)
    differences = np.array([abs(row.simulated / row.analytic - 1) for row in large])
    click.echo(
        f"{len(rows)} layers, {len(large)} over 100,000 cycles: differences up to "
        f"{100 * worst:.2f} %, median {100 * np.median(differences):.3f} %"
    )
    click.echo(
        "cycles over the published model's (1 = array fill and drain are free)\n"
        f"{'machine':35} {'network':10} {'drained':>8} {'short only':>11} {'searched':>9}"
    )
    for row in drained:
        click.echo(
            f"{row.machine:35} {row.network:10} {row.drained:8.3f} {row.short_only:11.3f} "
            f"{row.searched:9.3f}"
        )


if __name__ == "__main__":
    main()
