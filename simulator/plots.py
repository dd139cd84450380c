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
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from sparqsim.base import InputError, output_folder, printable, written_whole
from sparqsim.simulator.diagram import draw_topology
from sparqsim.simulator.palette import (
    BLUE,
    DPI,
    FAINT,
    GREY,
    INK,
    MUTED,
    ORANGE,
    PURPLE,
    SMALL,
    TEXT,
    TITLE,
    VERMILION,
    WIDTH,
    lighter,
)
from sparqsim.simulator.queues import held, intervals, is_countable
from sparqsim.simulator.report import Balance, PathStep, Report, Stalls
from sparqsim.simulator.timeline import Timeline
from sparqsim.simulator.traffic import Access, Traffic, moved

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
OVER_TIME = 240  # intervals of a figure over time, at most: two dots of print each
MOST_CHARACTERS = 90  # of a title
PANELS = 12  # queues drawn in one figure, at most


def new_axes(ax: Axes | None, width: float = WIDTH, height: float = 3.0) -> Axes:
    """The axes that are given, or new ones of so many inches."""
    if ax is not None:
        return ax
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained").add_subplot()


def dress(ax: Axes, title: str, x: str, y: str, grid: Literal["", "x", "y"] = "y") -> Axes:
    """Title, labels and the common look."""
    ax.set_title(printable(title, MOST_CHARACTERS), loc="left", fontsize=TITLE, color=INK, pad=8)
    ax.set_xlabel(x, fontsize=TEXT, color=INK)
    ax.set_ylabel(y, fontsize=TEXT, color=INK)
    ax.tick_params(labelsize=SMALL, colors=INK, length=3, width=0.6)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        ax.spines[side].set(color=MUTED, linewidth=0.6)
    ax.set_axisbelow(True)
    if grid:
        ax.grid(axis=grid, color=FAINT, linewidth=0.6)
    return ax


def thousands(axis: Any) -> None:
    """Whole numbers along an axis, with commas."""
    axis.set_major_formatter(lambda value, _: f"{value:,.0f}" if value == int(value) else "")


def legend_below(ax: Axes, columns: int) -> None:
    """The legend under the label of the x axis, where it hides nothing."""
    from matplotlib.transforms import ScaledTranslation

    if not ax.get_legend_handles_labels()[0]:
        return
    under_labels = ScaledTranslation(0, -35 / 72, ax.figure.dpi_scale_trans)
    ax.legend(
        loc="upper left",
        bbox_to_anchor=(0, 0),
        bbox_transform=ax.transAxes + under_labels,
        borderpad=0,
        borderaxespad=0,
        ncols=columns,
        frameon=False,
        fontsize=SMALL,
        handlelength=1.2,
    )


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
    ax.set_yticks(rows, [_bank(name, parts[name].lanes) for name in names])
    ax.set(xlim=(0, 100), ylim=(len(names) - 0.5, -0.5))
    dress(ax, "Where the time went, by actor", "share of lane-cycles (%)", "", grid="")
    ax.spines["left"].set_visible(False)
    ax.tick_params(axis="y", length=0)
    legend_below(ax, 5)
    return ax


def _bank(name: str, lanes: int) -> str:
    return name if lanes == 1 else f"{name} × {lanes}"


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


# ------------------------------------------------------------------ over time


def utilization_over_time(
    timeline: Timeline, actors: Sequence[str] | None = None, ax: Axes | None = None
) -> Axes:
    """The busy share of each actor's lanes over the run, one strip an actor.

    Parameters
    ----------
    actors
        Their names, from the top; all by default.
    """
    names = [a.name for a in timeline.netlist.actors] if actors is None else list(actors)
    ax = new_axes(ax, height=1.1 + 0.42 * len(names))
    bins = len(intervals(timeline.cycles, OVER_TIME)) - 1
    for row, name in enumerate(names):
        edges, busy = timeline.utilization_over_time(name, bins)
        foot = len(names) - 1 - row
        ax.stairs(foot + 0.82 * busy, edges, baseline=foot, fill=True, color=BLUE)
        ax.axhline(foot, color=MUTED, linewidth=0.5)
        ax.plot(edges[[0, -1]], [foot + 0.82] * 2, color=FAINT, linewidth=0.6, zorder=0)
        ax.annotate(
            f" {100 * timeline.utilization(name):.1f} %",
            (1.0, foot + 0.41),
            xycoords=("axes fraction", "data"),
            va="center",
            fontsize=SMALL,
            color=INK,
            annotation_clip=False,
        )
    lanes = {a.name: a.lanes for a in timeline.netlist.actors}
    places = len(names) - 1 - np.arange(len(names)) + 0.41
    ax.set_yticks(places, [_bank(name, lanes[name]) for name in names])
    ax.set(xlim=(0, max(timeline.cycles, 1)), ylim=(-0.02, len(names)))
    title = "Utilisation over time (a full strip is 100 %; at the right the mean)"
    dress(ax, title, "cycle", "", grid="x")
    ax.spines["left"].set_visible(False)
    ax.tick_params(axis="y", length=0)
    thousands(ax.xaxis)
    return ax


def queue_occupancy(timeline: Timeline, channel: str, ax: Axes | None = None) -> Axes:
    """Tokens held by a channel's queues over the run: mean, least and most filled, capacity."""
    ax = new_axes(ax, height=2.4)
    _occupancy(timeline, channel, ax)
    ax.set_xlabel("cycle", fontsize=TEXT, color=INK)
    ax.set_ylabel("tokens in a queue", fontsize=TEXT, color=INK)
    legend_below(ax, 4)
    return ax


def _occupancy(timeline: Timeline, channel: str, ax: Axes) -> None:
    full = held(timeline, channel, OVER_TIME)
    edges, tokens = full.edges, full.tokens
    queues = tokens.shape[1]
    capacity = timeline.netlist.channel(channel).capacity
    if queues > 1:
        bands = ((0, 100, 0.8, "least to most filled queue"), (25, 75, 0.5, "middle half of them"))
        for least, most, share, label in bands:
            low, high = np.percentile(tokens, [least, most], axis=1)
            colour = lighter(BLUE, share)
            ax.stairs(high, edges, baseline=low, fill=True, color=colour, label=label)
    if queues:
        label = "mean" if queues > 1 else "tokens held"
        mean = tokens.mean(axis=1)
        ax.stairs(mean, edges, baseline=None, color=BLUE, linewidth=1.1, label=label)
    highest = float(tokens.max(initial=0))
    # A capacity far above what is used would press the curve to the floor: it is told, not drawn.
    near = capacity <= 4 * max(highest, 1)
    if near:
        ax.axhline(capacity, color=VERMILION, linewidth=1.1, label="capacity")
    ax.set(xlim=(0, edges[-1]), ylim=(0, 1.12 * (capacity if near else max(highest, 1))))
    what = f"{queues} queues, each holds" if queues > 1 else "holds"
    dress(ax, f"{channel} ({what} {capacity:,})", "", "")
    ax.locator_params(axis="y", integer=True, nbins=5)
    thousands(ax.xaxis)
    thousands(ax.yaxis)


def queue_panels(timeline: Timeline, channels: Sequence[str] | None = None) -> Figure:
    """Occupancy of several channels, one panel each, in two columns.

    Parameters
    ----------
    channels
        Their names; by default all that ever hold a token, or the twelve fullest of them.
    """
    from matplotlib.figure import Figure

    netlist = timeline.netlist
    filled = {
        c.name: fill
        for c in netlist.channels
        if is_countable(netlist, c) and (fill := _mean_fill(timeline, c.name)) > 0
    }
    names = list(filled)
    title = "Queue occupancy over time"
    if channels is not None:
        names = list(channels)
    elif len(names) > PANELS:
        title += f" (the {PANELS} fullest of {len(names)} channels)"
        fullest = sorted(names, key=lambda name: -filled[name])[:PANELS]
        names = [name for name in names if name in fullest]
    if not names:
        raise InputError("there is no queue to draw: no channel of this run ever holds a token")
    columns = min(len(names), 2)
    rows = -(-len(names) // columns)
    figure = Figure(figsize=(WIDTH, 0.8 + 1.55 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, sharex=True, squeeze=False).reshape(-1)
    shown: dict[str, Any] = {}
    for i, (panel, name) in enumerate(zip(panels, names, strict=False)):
        _occupancy(timeline, name, panel)
        panel.title.set_fontsize(TEXT)
        if i + columns >= len(names):
            panel.set_xlabel("cycle", fontsize=TEXT)
            panel.tick_params(labelbottom=True)
        if i % columns == 0:
            panel.set_ylabel("tokens", fontsize=TEXT)
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True):
            shown.setdefault("mean" if label == "tokens held" else label, handle)
    for panel in panels[len(names) :]:
        panel.remove()
    figure.suptitle(title, x=0.01, ha="left", fontsize=TITLE, color=INK)
    figure.legend(
        list(shown.values()),
        list(shown),
        loc="outside lower center",
        ncols=4,
        frameon=False,
        fontsize=SMALL,
    )
    return figure


def _mean_fill(timeline: Timeline, channel: str) -> float:
    full = held(timeline, channel, OVER_TIME)
    if not full.tokens.size:
        return 0.0
    mean = np.average(full.tokens.mean(axis=1), weights=np.diff(full.edges))
    return float(mean) / timeline.netlist.channel(channel).capacity


def bandwidth(
    timeline: Timeline, memory: str, accesses: Sequence[Access], ax: Axes | None = None
) -> Axes:
    """What a memory reads (filled) and writes (a line) per second, over the run.

    Parameters
    ----------
    memory
        Its name.
    accesses
        The firings that moved its bits, as ``result.traffic[memory]``.
    """
    ax = new_axes(ax, height=2.4)
    flow = moved(timeline, accesses, OVER_TIME)
    seconds = flow.seconds.sum()
    means, top = [], 0.0
    for what, rate, bits in (
        ("read", flow.read_gbytes_per_s, flow.read_bits),
        ("written", flow.written_gbytes_per_s, flow.written_bits),
    ):
        if not bits.any():
            continue
        filled = what == "read"
        colour = lighter(BLUE, 0.35) if filled else VERMILION
        ax.stairs(
            *(rate, flow.edges),
            baseline=0 if filled else None,
            fill=filled,
            color=colour,
            linewidth=0 if filled else 1.1,
            label=what,
        )
        means.append(f"{what} {bits.sum() / 8e9 / seconds:,.3g}")
        top = max(top, float(rate.max()))
    ax.set(xlim=(0, flow.edges[-1]), ylim=(0, 1.08 * top or 1))
    dress(ax, f"{memory}: {', '.join(means) or '0'} GB/s on average", "cycle", "GB/s")
    thousands(ax.xaxis)
    legend_below(ax, 2)
    return ax


def bandwidth_panels(timeline: Timeline, traffic: Traffic) -> Figure:
    """Bandwidth over time of every memory, one panel each.

    Parameters
    ----------
    traffic
        ``result.traffic``; of one memory at least.
    """
    from matplotlib.figure import Figure

    if not traffic:
        raise InputError("there is no bandwidth to draw: the machine names no memory's traffic")
    figure = Figure(figsize=(WIDTH, 0.8 + 1.5 * len(traffic)), layout="constrained")
    panels = figure.subplots(len(traffic), 1, sharex=True, squeeze=False)[:, 0]
    shown: dict[str, Any] = {}
    for panel, (memory, accesses) in zip(panels, traffic.items(), strict=True):
        bandwidth(timeline, memory, accesses, panel)
        panel.title.set_fontsize(TEXT)
        panel.set_xlabel("cycle" if panel is panels[-1] else "", fontsize=TEXT)
        if legend := panel.get_legend():
            legend.remove()
        handles, labels = panel.get_legend_handles_labels()
        shown |= dict(zip(labels, handles, strict=True))
    figure.align_ylabels(panels)
    figure.suptitle("Bandwidth over time", x=0.01, ha="left", fontsize=TITLE, color=INK)
    figure.legend(
        list(shown.values()),
        list(shown),
        loc="outside lower center",
        ncols=2,
        frameon=False,
        fontsize=SMALL,
    )
    return figure


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
            if any(_mean_fill(timeline, name) > 0 for name in countable):
                drawn["queues"] = lambda: queue_panels(timeline)
            if traffic:
                drawn["bandwidth"] = lambda: bandwidth_panels(timeline, traffic)
    return {name: _figure_of(draw) for name, draw in drawn.items()}


def _figure_of(draw: Callable[[], Any]) -> Callable[[], Figure]:
    def figure() -> Figure:
        drawn = draw()
        return getattr(drawn, "figure", None) or drawn

    return figure


def write_figure(figure: Figure, file: Any, kind: str, title: str) -> None:
    """Write a figure as ``"png"`` or ``"svg"``; the same figure gives the same bytes."""
    import matplotlib
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        text.set_parse_math(False)  # a dollar in a name is a dollar
    with matplotlib.rc_context({"svg.hashsalt": "sparqsim"}):
        about: dict[str, Any] = {"Title": title} | ({"Date": None} if kind == "svg" else {})
        figure.savefig(file, format=kind, dpi=DPI, metadata=about)


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
