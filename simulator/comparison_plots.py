"""What papers print of a comparison: everything over the first machine's. They simulate nothing.

Normalised time and energy (of each network, or of each layer of a single one) with both means
named, the energy by part, utilisation, the roofline, and energy times time against accuracy.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sparqsim.base import InputError, output_folder, printable, written_whole
from sparqsim.simulator.axes import dress, legend_below, new_axes, write_figure
from sparqsim.simulator.comparison import Compared, ComparedNetwork, ComparisonReport
from sparqsim.simulator.network_plots import PARTS
from sparqsim.simulator.palette import (
    BLUE,
    GREEN,
    INK,
    ORANGE,
    PURPLE,
    SMALL,
    VERMILION,
    WIDTH,
)
from sparqsim.simulator.report import LayerRun, Report, Roof

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = (BLUE, VERMILION, ORANGE, PURPLE, GREEN, "#56B4E9", "#999933", INK)
MOST_GROUPS, MOST_NAMES = 60, 40  # along an axis; of many groups every so many is named
MOST_CHARACTERS = 30
WIDE = 12  # ratios that differ by so much are drawn by equal factors

Measure = Callable[[Report], float | None]


def normalized(report: ComparisonReport, what: str, ax: Axes | None = None) -> Axes:
    """Time or energy over the first machine's, in groups, and both means behind them.

    Parameters
    ----------
    what
        ``"time"`` or ``"energy"``.
    """
    if what not in ("time", "energy"):
        raise InputError(f"what is normalised must be time or energy, got {what!r}")
    names, ratios = _groups(report, "seconds" if what == "time" else "energy")
    labels = [each.label for each in report.contenders]
    kept = [place for place, row in enumerate(ratios) if any(r is not None for r in row)]
    names, ratios = [names[place] for place in kept], [ratios[place] for place in kept]
    if not names:
        raise InputError(f"there is nothing to draw: no {what} of these machines is known")
    left_out = max(len(names) - MOST_GROUPS, 0)
    means = [_mean(kind, ratios, len(labels)) for kind in ("geometric", "arithmetic")]
    ax = new_axes(ax, WIDTH, 3.4)
    groups = [*ratios[:MOST_GROUPS], *means]
    ticks = [*(printable(name, MOST_CHARACTERS) for name in names[:MOST_GROUPS]),
             "geometric mean", "arithmetic mean"]  # fmt: skip
    width = 0.84 / len(labels)
    # The means stand apart.
    at = np.arange(len(groups)) + np.where(np.arange(len(groups)) >= len(groups) - 2, 0.6, 0.0)
    known = [value for row in groups for value in row if value]
    foot = 1.0 if max(known) / min(known) > WIDE else 0.0  # by factors there is no zero
    for number, label in enumerate(labels):
        tops = np.array([row[number] for row in groups], np.float64)  # None: nan
        places = at + (number - (len(labels) - 1) / 2) * width
        ax.bar(places, tops - foot, width, foot, color=_colour(number), label=printable(label, 30))
    if foot:
        _by_factors(ax, "y")
    ax.axhline(1.0, color=INK, linewidth=0.7)
    step = -(-len(ticks) // MOST_NAMES)
    named = [*range(0, len(ticks) - 2, step), len(ticks) - 2, len(ticks) - 1]
    ax.set_xticks(at[named], [ticks[place] for place in named],
                  rotation=90 if len(named) > 6 else 0, fontsize=SMALL - 1)  # fmt: skip
    title = f"{what.capitalize()} over {labels[0]}'s"
    if left_out:
        title += f" (the first {MOST_GROUPS} layers; the means are of all {len(names)})"
    dress(ax, title, "", f"{what} over {labels[0]}'s")
    ax.tick_params(axis="x", labelsize=SMALL - 1)
    ax.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False, fontsize=SMALL)
    return ax


def _groups(report: ComparisonReport, measure: str) -> tuple[list[str], list[list[float | None]]]:
    """Names and ratios of the networks; of the layers where there is one network."""
    if len(report.networks) > 1:
        names = [network.network for network in report.networks]
        return names, [
            [getattr(each.ratios, measure) for each in network.machines]
            for network in report.networks
        ]
    (network,) = report.networks
    of: Measure = (lambda r: r.seconds) if measure == "seconds" else (lambda r: r.energy.total_pj)
    reports = [_by_name(each) for each in network.machines]
    found = []
    for name in network.shared_layers:
        values = [of(each[name]) for each in reports]
        first = values[0]
        found.append([v / first if v is not None and first else None for v in values])
    return list(network.shared_layers), found


def _by_name(each: Compared) -> dict[str, Report]:
    return {row.name: row.report for row in each.report.rows if isinstance(row, LayerRun)}


def _mean(kind: str, ratios: Sequence[Sequence[float | None]], machines: int) -> list[float | None]:
    means: list[float | None] = []
    for place in range(machines):
        known = [row[place] for row in ratios]
        values = [value for value in known if value]
        if len(values) < len(known):
            means.append(None)
        elif kind == "geometric":
            means.append(math.exp(sum(map(math.log, values)) / len(values)))
        else:
            means.append(sum(values) / len(values))
    return means


def energy_split(network: ComparedNetwork, ax: Axes | None = None) -> Axes:
    """Energy by part over the first machine's energy; the least parts are drawn together.

    Parts that are not known are not drawn.
    """
    ax = new_axes(ax, WIDTH, 1.4 + 0.36 * len(network.machines))
    parts: dict[str, list[float]] = {}
    for place, each in enumerate(network.machines):
        for part in each.shared.energy.parts:
            row = parts.setdefault(part.part, [0.0] * len(network.machines))
            row[place] += part.energy_pj or 0.0
    base = sum(row[0] for row in parts.values())
    scale, unit = (1 / base, f"energy over {network.machines[0].label}'s") if base else (
        1e-6, "energy (uJ)")  # fmt: skip
    ordered = sorted(parts, key=lambda name: -sum(parts[name]))
    shown = {name: parts[name] for name in ordered[: len(PARTS) - 1]}
    rest = [parts[name] for name in ordered[len(PARTS) - 1 :]]
    if rest:
        shown["other parts"] = [sum(column) for column in zip(*rest, strict=True)]
    rows = np.arange(len(network.machines))
    left = np.zeros(len(rows))
    for (name, row), colour in zip(shown.items(), PARTS, strict=False):
        lengths = np.array(row) * scale
        ax.barh(rows, lengths, 0.66, left=left, color=colour, label=name)
        left += lengths
    ax.set_yticks(rows, [printable(each.label, MOST_CHARACTERS) for each in network.machines])
    ax.invert_yaxis()
    dress(ax, f"{network.network}: energy by part", unit, "", grid="x")
    legend_below(ax, 4)
    return ax


def utilization(network: ComparedNetwork, ax: Axes | None = None) -> Axes:
    """Share of the multiplications that could have started and were effectual."""
    ax = new_axes(ax, WIDTH, 1.0 + 0.36 * len(network.machines))
    rows = range(len(network.machines))
    shares = [100 * each.shared.utilization for each in network.machines]
    ax.barh(rows, shares, 0.66, color=[_colour(place) for place in rows])
    for row, share in zip(rows, shares, strict=True):
        ax.text(share, row, f" {share:.1f}", va="center", fontsize=SMALL, color=INK)
    ax.set_yticks(rows, [printable(each.label, MOST_CHARACTERS) for each in network.machines])
    ax.invert_yaxis()
    ax.set_xlim(0, 108)
    return dress(ax, f"{network.network}: multipliers busy", "share of the time (%)", "", "x")


def roofline(network: ComparedNetwork, ax: Axes | None = None) -> Axes:
    """Every layer of every machine with a DRAM under the machines' roofs.

    Raises
    ------
    InputError
        If no machine has a DRAM, or the reports do not know their roofs.
    """
    ax = new_axes(ax, WIDTH, 3.8)
    drawn = 0
    for place, each in enumerate(network.machines):
        points: list[tuple[float, float]] = []
        roofs: dict[Roof, None] = {}
        for row in each.report.runs:
            found, dram = row.report, row.report.memory.get("dram")
            moved = (dram.read_bits + dram.written_bits) / 8 if dram else 0.0
            if moved and found.macs.effectual and found.seconds:
                points.append((found.macs.effectual / moved, found.macs.effectual / found.seconds))
                if found.roof is not None and found.roof.bytes_per_s:
                    roofs[found.roof] = None
        if not points:
            continue
        drawn += len(points)
        x, y = zip(*points, strict=True)
        colour = _colour(place)
        ax.plot(x, y, "o", ms=4, alpha=0.7, color=colour, label=printable(each.label, 30))
        for roof in roofs:
            assert roof.bytes_per_s is not None
            knee = roof.macs_per_s / roof.bytes_per_s
            across = [min(min(x), knee) / 2, knee, max(max(x), knee) * 2]
            up = [across[0] * roof.bytes_per_s, roof.macs_per_s, roof.macs_per_s]
            ax.plot(across, up, color=colour, lw=1.0)
    if not drawn:
        raise InputError(f"there is no roofline of {network.network}: no machine has a DRAM")
    _by_factors(ax, "xy")
    dress(ax, f"{network.network}: roofline", "effectual MACs a byte of DRAM", "MACs a second")
    ax.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False, fontsize=SMALL)
    return ax


def edp_over_accuracy(network: ComparedNetwork, ax: Axes | None = None) -> Axes:
    """Energy times time of a network against what it is judged by.

    Raises
    ------
    InputError
        If it was not judged, or no energy is known.
    """
    found = []
    for place, each in enumerate(network.machines):
        judged, edp = each.report.accuracy, each.report.totals.edp_js
        if judged is not None and judged.compressed and edp:
            measure, value = next(iter(judged.compressed.items()))
            found.append((place, each, measure, value, edp))
    if not found:
        raise InputError(f"{network.network} was not judged on these machines")
    ax = new_axes(ax, WIDTH, 3.2)
    for place, each, _, value, edp in found:
        ax.plot(edp, value, "o", ms=7, color=_colour(place))
        label = printable(each.label, MOST_CHARACTERS)
        ran = network.ran_on(each)
        told = each.report.recipe if ran == "all layers" else f"{each.report.recipe}, {ran}"
        ax.annotate(f"{label} ({told})", (edp, value), (6, 4),
                    textcoords="offset points", fontsize=SMALL, color=INK)  # fmt: skip
    _by_factors(ax, "x")
    ax.margins(x=0.25, y=0.2)
    title = f"{network.network}: up and left is better"
    return dress(ax, title, "energy x time (Js)", found[0][2])


def comparison_figures(report: ComparisonReport) -> dict[str, Figure]:
    """All figures of a comparison that its numbers allow, by name."""
    drawn: dict[str, Callable[[], Axes]] = {
        "time": lambda: normalized(report, "time"),
        "energy": lambda: normalized(report, "energy"),
    }
    for network in report.networks:
        stem = f"{network.network}_" if len(report.networks) > 1 else ""
        stem = "".join(c if c.isalnum() or c in "-_." else "_" for c in stem)
        for name, draw in (
            ("energy_split", energy_split),
            ("utilization", utilization),
            ("roofline", roofline),
            ("edp_over_accuracy", edp_over_accuracy),
        ):
            drawn[f"{stem}{name}"] = lambda draw=draw, network=network: draw(network)  # type: ignore[misc]
    found = {}
    for name, each in drawn.items():
        try:
            found[name] = each().figure
        except InputError:  # its numbers are not known
            continue
    return found  # type: ignore[return-value]


def save_comparison_figures(report: ComparisonReport, folder: str | os.PathLike[str]) -> list[Path]:
    """Write :func:`comparison_figures` into a folder as PNG; returns the paths.

    Raises
    ------
    InputError
        If the folder cannot be made or written.
    """
    place, paths = output_folder(folder), []
    for name, figure in comparison_figures(report).items():
        paths.append(place / f"{name}.png")
        with written_whole(paths[-1]) as path:
            write_figure(figure, path, "png", name)
    return paths


def _by_factors(ax: Axes, sides: str) -> None:
    """Equal factors at equal distances, with plain numbers at the ticks; all is drawn already."""
    from matplotlib.ticker import LogLocator, NullFormatter

    for side in sides:
        axis = ax.xaxis if side == "x" else ax.yaxis
        (ax.set_xscale if side == "x" else ax.set_yscale)("log")
        low, high = axis.get_view_interval()
        if high / low < 1000:  # powers of ten alone would be few
            axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axis.set_major_formatter(lambda value, _: _number(value))
        axis.set_minor_formatter(NullFormatter())


def _number(value: float) -> str:
    return f"{value:g}" if 1e-3 <= value < 1e4 else f"{value:.0e}".replace("e+", "e")


def _colour(place: int) -> str:
    return COLOURS[place % len(COLOURS)]
