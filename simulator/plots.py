"""Figures of a run. Each takes results and simulates nothing, and returns the axes it drew on.

Every function draws on the ``ax`` it is given or on a new :class:`matplotlib.figure.Figure`, so
figures can be joined into one. What is drawn of single lanes and over time needs the
:class:`~sparqsim.simulator.timeline.Timeline` of the run; the rest needs its
:class:`~sparqsim.simulator.report.Report` alone. :func:`save_figures` writes the whole set.

A colour means the same in all of them; see :mod:`sparqsim.simulator.palette`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sparqsim.base import InputError, output_folder, written_whole
from sparqsim.simulator.axes import bank, dress, legend_below, new_axes, thousands, write_figure
from sparqsim.simulator.diagram import draw_topology
from sparqsim.simulator.palette import (
    BLUE,
    GREY,
    INK,
    ORANGE,
    PURPLE,
    SMALL,
    VERMILION,
    lighter,
)
from sparqsim.simulator.plots_over_time import (
    bandwidth_panels,
    mean_fill,
    queue_panels,
    utilization_over_time,
)
from sparqsim.simulator.queues import is_countable
from sparqsim.simulator.report import Balance, PathStep, Report, Stalls
from sparqsim.simulator.timeline import Timeline
from sparqsim.simulator.traffic import Traffic

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Where the time of a lane goes: its colour and what it means.
STATES = {
    "busy": (BLUE, "busy"),
    "starved": (ORANGE, "starved (no input)"),
    "blocked": (VERMILION, "blocked (queue full)"),
    "waiting": (PURPLE, "waiting (resource)"),
    "finished": (GREY, "finished"),
}
PLACES = {"computing": BLUE, "full queue": VERMILION, "resource": PURPLE}
FEW_LANES = 64  # up to here each lane is a bar of its own


# ------------------------------------------------------------------ the work of lanes


def load_balance(balance: Balance, cycles: int, ax: Axes | None = None) -> Axes:
    """Busy cycles of each lane beside their mean and the length of the run.

    The gap from the mean to the busiest lane is what imbalance costs; from there to the run's
    length, what queues and the beginning and end cost.

    Parameters
    ----------
    balance
        Of the actor that does the work: ``report.load_balance``, or
        :func:`sparqsim.simulator.report.balance_of`.
    cycles
        Length of the run.
    """
    ax = new_axes(ax)
    work = np.asarray(balance.work_cycles)
    mean = balance.mean_field_cycles
    lanes = np.arange(len(work))
    if len(work) <= FEW_LANES:
        ax.bar(lanes, work, width=0.72, color=BLUE)
    else:
        ax.stairs(work, np.arange(len(work) + 1) - 0.5, fill=True, color=BLUE)
    top = max(cycles, int(work.max(initial=0)), 1)
    ax.axhline(mean, color=INK, linewidth=1.1, linestyle=(0, (4, 2)))
    ax.axhline(cycles, color=VERMILION, linewidth=1.3)
    ax.set(xlim=(-0.8, len(work) - 0.2), ylim=(0, top * 1.04))
    title = f"Load balance: the busiest lane {100 * (balance.busiest_over_mean - 1):.1f} %"
    title += f", the run {100 * (cycles / mean - 1):.1f} % above the mean" if mean else ""
    dress(ax, title, f"lane of {balance.actor}", "busy cycles")
    thousands(ax.yaxis)
    # The two lines may be near each other: their names stand apart, in the margin.
    apart = 0.075 * top
    middle, upper = mean, float(cycles)
    if upper - middle < apart:
        middle, upper = (mean + cycles - apart) / 2, (mean + cycles + apart) / 2
    for value, height, name, colour in (
        (cycles, upper, "run", VERMILION),
        (mean, middle, "mean", INK),
    ):
        ax.annotate(
            f" {name} {value:,.0f}",
            (1.0, height),
            xycoords=("axes fraction", "data"),
            va="center",
            fontsize=SMALL,
            color=colour,
            annotation_clip=False,
        )
    return ax


def lane_stalls(timeline: Timeline, actor: str, ax: Axes | None = None) -> Axes:
    """Where the cycles of each lane of an actor went, stacked; each column is the whole run."""
    ax = new_axes(ax, height=3.3)
    times = timeline.lane_times(actor)
    lanes = len(times.busy)
    base = np.zeros(lanes)
    for state, (colour, label) in STATES.items():
        part = getattr(times, state)
        if not part.any():
            continue
        if lanes <= FEW_LANES:
            ax.bar(np.arange(lanes), part, 0.8, bottom=base, color=colour, label=label)
        else:
            ax.stairs(
                *(base + part, np.arange(lanes + 1) - 0.5),
                baseline=base,
                fill=True,
                color=colour,
                label=label,
            )
        base = base + part
    ax.set(xlim=(-0.8, lanes - 0.2), ylim=(0, max(timeline.cycles, 1)))
    busy = 100 * timeline.utilization(actor)
    title = f"Where each lane of {actor} spent the run ({busy:.1f} % busy)"
    dress(ax, title, f"lane of {actor}", "cycles", grid="")
    thousands(ax.yaxis)
    legend_below(ax, 5)
    return ax


def stalls(parts: Mapping[str, Stalls], ax: Axes | None = None) -> Axes:
    """Share of the lane-cycles of each actor that went into each state.

    Parameters
    ----------
    parts
        ``report.stalls``, or :func:`sparqsim.simulator.report.stalls_of`.
    """
    ax = new_axes(ax, height=1.3 + 0.3 * len(parts))
    names = list(parts)
    totals = {
        name: max(sum(getattr(part, state) for state in STATES), 1) for name, part in parts.items()
    }
    rows = np.arange(len(names))
    base = np.zeros(len(names))
    for state, (colour, label) in STATES.items():
        share = np.array([100 * getattr(parts[name], state) / totals[name] for name in names])
        if not share.any():
            continue
        ax.barh(rows, share, 0.68, left=base, color=colour, label=label)
        for row in rows[share >= 7]:
            white = state not in ("finished", "starved")
            ax.text(
                *(base[row] + share[row] / 2, row, f"{share[row]:.0f}"),
                ha="center",
                va="center",
                fontsize=SMALL - 1,
                color="white" if white else INK,
            )
        base = base + share
    ax.set_yticks(rows, [bank(name, parts[name].lanes) for name in names])
    ax.set(xlim=(0, 100), ylim=(len(names) - 0.5, -0.5))
    dress(ax, "Where the time went, by actor", "share of lane-cycles (%)", "", grid="")
    ax.spines["left"].set_visible(False)
    ax.tick_params(axis="y", length=0)
    legend_below(ax, 5)
    return ax


def critical_path(steps: Sequence[PathStep], ax: Axes | None = None) -> Axes:
    """The chain of causes that set the run's length, as one bar cut by place.

    Pieces under 2 % are drawn together.

    Parameters
    ----------
    steps
        ``report.critical_path``, or :func:`sparqsim.simulator.report.path_of`; at least one.
    """
    if not steps:
        raise InputError(
            "there is no critical path to draw: the run is empty or was recorded as sums; "
            "run it with record='full'"
        )
    total = sum(step.cycles for step in steps)
    large = [step for step in steps if step.cycles >= 0.02 * total]
    rest = total - sum(step.cycles for step in large)
    ax = new_axes(ax, height=1.25 + 0.2 * ((len(large) + 2) // 2))
    seen = {kind: [step for step in large if step.kind == kind] for kind in PLACES}
    left = 0
    handles: list[tuple[int, int, Any, str]] = []
    for kind, colour in PLACES.items():
        for i, step in enumerate(seen[kind]):
            shade = lighter(colour, 0.6 * i / max(len(seen[kind]), 1))
            label = f"{kind}: {step.where}, {step.cycles:,} ({100 * step.cycles / total:.1f} %)"
            handles.append((left, step.cycles, shade, label))
            left += step.cycles
    if rest:
        label = f"elsewhere, {rest:,} ({100 * rest / total:.1f} %)"
        handles.append((left, rest, GREY, label))
    for start, length, shade, label in handles:
        ax.barh(
            *(0, length, 0.7),
            left=start,
            color=shade,
            edgecolor="white",
            linewidth=0.8,
            label=label,
        )
    ax.set(xlim=(0, total), ylim=(-0.5, 0.5), yticks=[])
    title = f"Critical path: what the {total:,} cycles were made of"
    dress(ax, title, "cycles of the critical path", "", grid="")
    ax.spines["left"].set_visible(False)
    thousands(ax.xaxis)
    legend_below(ax, 2)
    return ax


# ------------------------------------------------------------------ the whole set


def figures(
    report: Report, timeline: Timeline | None = None, traffic: Traffic | None = None
) -> dict[str, Callable[[], Figure]]:
    """What can be drawn of a run: a name to a function that draws it.

    Parameters
    ----------
    report
        Of the run.
    timeline
        Of the same run; without it, what is in the report alone. A run recorded as sums has no
        figures over time.
    traffic
        What moved the bits of each memory, ``result.traffic``.
    """
    drawn: dict[str, Callable[[], Any]] = {}
    if timeline is not None:
        drawn["topology"] = lambda: draw_topology(timeline.netlist)
    drawn["load_balance"] = lambda: load_balance(report.load_balance, report.cycles)
    drawn["stalls"] = lambda: stalls(report.stalls)
    if report.critical_path:
        drawn["critical_path"] = lambda: critical_path(report.critical_path)
    if timeline is not None:
        drawn["lane_stalls"] = lambda: lane_stalls(timeline, report.load_balance.actor)
        if timeline.starts is not None:
            netlist = timeline.netlist
            drawn["utilization"] = lambda: utilization_over_time(timeline)
            countable = (c.name for c in netlist.channels if is_countable(netlist, c))
            if any(mean_fill(timeline, name) > 0 for name in countable):
                drawn["queues"] = lambda: queue_panels(timeline)
            if traffic:
                drawn["bandwidth"] = lambda: bandwidth_panels(timeline, traffic)
    return {name: _figure_of(draw) for name, draw in drawn.items()}


def _figure_of(draw: Callable[[], Any]) -> Callable[[], Figure]:
    def figure() -> Figure:
        drawn = draw()
        return getattr(drawn, "figure", None) or drawn

    return figure


def save_figures(
    report: Report,
    timeline: Timeline | None,
    folder: str | os.PathLike[str],
    svg: bool = False,
    traffic: Traffic | None = None,
) -> list[Path]:
    """Write all of :func:`figures` into a folder, which is made if need be.

    Parameters
    ----------
    report, timeline, traffic
        As for :func:`figures`.
    folder
        Where ``load_balance.png`` and the rest are to stand.
    svg
        Also write each as SVG.

    Returns
    -------
    paths
        Of the files, in the order of drawing.

    Raises
    ------
    InputError
        If the folder cannot be made or written.
    """
    place = output_folder(folder)
    paths = []
    for name, draw in figures(report, timeline, traffic).items():
        figure = draw()
        for kind in ("png", "svg") if svg else ("png",):
            paths.append(place / f"{name}.{kind}")
            with written_whole(paths[-1]) as path:
                write_figure(figure, path, kind, f"{report.machine} {report.layer}: {name}")
    return paths
