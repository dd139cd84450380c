"""Figures over time: how busy actors were, what queues held, what memories moved.

Each needs the timeline of a run whose single firings were recorded; see
:mod:`sparqsim.simulator.plots`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sparqsim.base import InputError
from sparqsim.simulator.axes import bank, dress, legend_below, new_axes, thousands
from sparqsim.simulator.palette import (
    BLUE,
    FAINT,
    INK,
    MUTED,
    SMALL,
    TEXT,
    TITLE,
    VERMILION,
    WIDTH,
    lighter,
)
from sparqsim.simulator.queues import held, intervals, is_countable
from sparqsim.simulator.timeline import Timeline
from sparqsim.simulator.traffic import Access, Traffic, moved

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

OVER_TIME = 240  # intervals of a figure over time, at most: two dots of print each
PANELS = 12  # queues drawn in one figure, at most


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
    ax.set_yticks(places, [bank(name, lanes[name]) for name in names])
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
        if is_countable(netlist, c) and (fill := mean_fill(timeline, c.name)) > 0
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
    _head_and_foot(figure, title, shown, 4)
    return figure


def _head_and_foot(figure: Figure, title: str, shown: Mapping[str, Any], columns: int) -> None:
    """The title of all panels above them, and one legend of what they show beneath."""
    figure.suptitle(title, x=0.01, ha="left", fontsize=TITLE, color=INK)
    figure.legend(
        list(shown.values()),
        list(shown),
        loc="outside lower center",
        ncols=columns,
        frameon=False,
        fontsize=SMALL,
    )


def mean_fill(timeline: Timeline, channel: str) -> float:
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
    _head_and_foot(figure, "Bandwidth over time", shown, 2)
    return figure
