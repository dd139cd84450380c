"""Figures of a network's run: time and energy, layer by layer. They simulate nothing."""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sparqsim.base import InputError, output_folder, printable, written_whole
from sparqsim.simulator.axes import dress, new_axes, thousands, write_figure
from sparqsim.simulator.palette import (
    BLUE,
    GREEN,
    GREY,
    INK,
    ORANGE,
    PURPLE,
    SMALL,
    VERMILION,
    WIDTH,
)
from sparqsim.simulator.report import LayerRun, NetworkReport

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BOUNDS = {"compute": BLUE, "load imbalance": ORANGE, "dram": PURPLE, "latency": GREY}
OTHERS = (GREEN, VERMILION, INK)  # other parts that bound a layer
PARTS = (BLUE, PURPLE, GREEN, ORANGE, VERMILION, INK, GREY)  # of the energy, the largest first
MOST_NAMES = 48  # layers that are named along the axis, at most
HEIGHT = 3.4
MOST_CHARACTERS = 40  # of a layer's name


def cycles_by_layer(report: NetworkReport, ax: Axes | None = None) -> Axes:
    """Cycles of every layer that ran, coloured by what bounds it; repeats included."""
    runs = _runs(report)
    ax = new_axes(ax, WIDTH, HEIGHT)
    bounds = dict.fromkeys(row.report.bound_by for row in runs)
    others = [bound for bound in bounds if bound not in BOUNDS]
    colours = BOUNDS | dict(zip(others, cycle(OTHERS), strict=False))
    cycles = np.array([row.report.cycles * row.repeat for row in runs])
    for bound in bounds:
        chosen = [i for i, row in enumerate(runs) if row.report.bound_by == bound]
        ax.bar(chosen, cycles[chosen], 0.8, color=colours[bound], label=f"bound by {bound}")
    dress(ax, f"{report.network} on {report.machine}: cycles of each layer", "", "cycles")
    thousands(ax.yaxis)
    _name(ax, runs)
    return ax


def energy_by_layer(report: NetworkReport, ax: Axes | None = None) -> Axes:
    """Energy of every layer that ran, by part; the least parts are drawn together.

    Parts that are not known are not drawn.
    """
    runs = _runs(report)
    ax = new_axes(ax, WIDTH, HEIGHT)
    sums: dict[str, np.ndarray] = {}
    for i, row in enumerate(runs):
        for part in row.report.energy.parts:
            of_part = sums.setdefault(part.part, np.zeros(len(runs)))
            of_part[i] += (part.energy_pj or 0.0) * row.repeat * 1e-6
    spent = {name: float(each.sum()) for name, each in sums.items() if each.any()}
    ordered = sorted(spent, key=lambda name: -spent[name])
    shown = {name: sums[name] for name in ordered[: len(PARTS) - 1]}
    rest = [sums[name] for name in ordered[len(PARTS) - 1 :]]
    if rest:
        shown["other parts"] = np.sum(rest, axis=0)
    base = np.zeros(len(runs))
    for (name, each), colour in zip(shown.items(), PARTS, strict=False):
        ax.bar(np.arange(len(runs)), each, 0.8, bottom=base, color=colour, label=name)
        base += each
    dress(ax, f"{report.network} on {report.machine}: energy of each layer", "", "energy (uJ)")
    _name(ax, runs)
    return ax


def network_figures(report: NetworkReport) -> dict[str, Figure]:
    """All figures of a network's run, by name; none if no layer ran."""
    if not report.runs:
        return {}
    drawn = {"cycles_by_layer": cycles_by_layer, "energy_by_layer": energy_by_layer}
    return {name: draw(report).figure for name, draw in drawn.items()}  # type: ignore[misc]


def save_network_figures(
    report: NetworkReport, folder: str | os.PathLike[str], svg: bool = False
) -> list[Path]:
    """Write :func:`network_figures` into a folder; returns the paths.

    Raises
    ------
    InputError
        If the folder cannot be made or written.
    """
    place, paths = output_folder(folder), []
    for name, figure in network_figures(report).items():
        for kind in ("png", "svg") if svg else ("png",):
            paths.append(place / f"{name}.{kind}")
            with written_whole(paths[-1]) as path:
                write_figure(figure, path, kind, f"{report.machine} {report.network}: {name}")
    return paths


def _runs(report: NetworkReport) -> list[LayerRun]:
    if not report.runs:
        raise InputError(f"there is nothing to draw: no layer of {report.network} ran")
    return report.runs


def _name(ax: Axes, runs: Sequence[LayerRun]) -> None:
    """The names of the layers along the x axis, or of every so many; the legend on top."""
    step = -(-len(runs) // MOST_NAMES)
    places = range(0, len(runs), step)
    names = [
        printable(runs[i].name, MOST_CHARACTERS)
        + (f" x{runs[i].repeat}" if runs[i].repeat > 1 else "")
        for i in places
    ]
    ax.set_xticks(places, names, rotation=90, fontsize=SMALL - 1, color=INK)
    ax.set_xlim(-0.6, len(runs) - 0.4)
    columns, entries = 4, len(ax.get_legend_handles_labels()[0])
    ax.legend(
        loc="lower left", bbox_to_anchor=(0, 1), ncols=columns, frameon=False, fontsize=SMALL - 1,
        borderaxespad=0.2,
    )  # fmt: skip
    ax.set_title(ax.get_title(loc="left"), loc="left", pad=8 + 13 * -(-entries // columns))
