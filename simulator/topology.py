"""A netlist drawn as a block diagram, left to right in the direction of the data.

Actors are boxes, a bank of lanes a stack of them; channels are arrows with their name and what each
queue holds; resources are ellipses under the actors that hold them. A broadcast ends in a fan, a
gather begins in one, a shift is dashed, and a bundle of lanes carries a stroke with their number,
as in a circuit diagram. What flows back is led over the top.

The layout is the layered one of Sugiyama: channels that close a cycle are set aside, an actor
stands right of all that feed it, channels across several columns keep a row of their own in each,
and rows are ordered by the mean place of their neighbours. Lengths are inches on paper.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from simulator.netlist import Netlist
from simulator.palette import BLUE, DPI, GREEN, GREY, INK, MUTED, PURPLE, TITLE, lighter

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NAME, SMALL = 8.0, 7.0  # points
ROW, LANE_OF_LONG = 0.42, 0.36  # least distance between boxes, and between long channels
PORT = 0.34  # between the channels at a side of a box
TRACK = 0.36  # between channels led back over the top
CURVE = 0.34  # where a channel changes its row
MARGIN = 0.12
STYLES: dict[str, tuple[str, float, Any, str]] = {
    "lane": (INK, 1.0, "-", "lane to lane"),
    "broadcast": (BLUE, 2.0, "-", "broadcast: one to all lanes"),
    "gather": (GREEN, 2.0, "-", "gather: all lanes to one"),
    "shift": (PURPLE, 1.0, (0, (4, 2)), "shift: lane i to i + offset"),
    "holds": (MUTED, 1.0, (0, (1, 2)), "holds a resource"),
}


@dataclass(eq=False)
class Box:
    """An actor, or the place of a long channel in a column it crosses (then ``name`` is empty)."""

    name: str
    lines: tuple[str, ...] = ()
    lanes: int = 1
    width: float = 0.0
    height: float = 0.0
    x: float = 0.0  # centre
    y: float = 0.0


@dataclass(eq=False)
class Wire:
    """A channel: its boxes from source to target, and its rows at each."""

    name: str
    detail: str
    pattern: str
    lanes: int
    stops: list[Box] = field(default_factory=list)
    leave: float = 0.0  # row at the source's right side
    enter: float = 0.0  # row at the target's left side

    @property
    def length(self) -> float:
        """Inches its label needs."""
        return max(text_width(self.name, SMALL), text_width(self.detail, SMALL)) + 0.16


@dataclass(eq=False)
class Layout:
    """Columns of boxes from left to right, with wires forward and back."""

    columns: list[list[Box]]
    forward: list[Wire]
    back: list[Wire]
    boxes: dict[str, Box]


def text_width(text: str, points: float) -> float:
    """Width of a line of text in inches."""
    from matplotlib.textpath import TextPath

    return float(TextPath((0, 0), text, size=points).get_extents().width) / 72 if text else 0.0


def draw_topology(netlist: Netlist, ax: Axes | None = None) -> Axes:
    """Draw the actors, channels and resources of a netlist; a new figure is as large as it needs.

    On a given ``ax`` the diagram is scaled to fit.
    """
    layout = arrange(netlist)
    used = _resource_places(netlist, layout)
    left, right, low, high = _extent(layout, used)
    width, height = right - left + 2 * MARGIN, high - low + 2 * MARGIN
    legend = 0.3
    if ax is None:
        from matplotlib.figure import Figure

        size = (max(width, 4.5), height + 0.4 + legend)
        figure = Figure(figsize=size, dpi=DPI)
        ax = figure.add_axes((0, legend / size[1], 1, height / size[1]))
        scale = 1.0
    else:
        place = ax.get_window_extent().transformed(ax.figure.dpi_scale_trans.inverted())
        scale = min(place.width / width, place.height / height)
    ax.set_axis_off()
    ax.set_aspect("equal", anchor="W")
    ax.set(xlim=(left - MARGIN, right + MARGIN), ylim=(low - MARGIN, high + MARGIN))
    pen = _Pen(ax, scale)
    for resource, (x, y, size_x) in used.items():
        pen.resource(resource, x, y, size_x, _servers(netlist, resource))
        for actor in netlist.actors:
            if actor.resource == resource:
                box = layout.boxes[actor.name]
                pen.line([(box.x, box.y - box.height / 2), (x, y + 0.2)], "holds", zorder=1)
    for wire in layout.forward:
        pen.forward(wire)
    tracks = _tracks(layout)
    for wire in layout.back:
        pen.backward(wire, *tracks[wire.name])
    for box in layout.boxes.values():
        pen.box(box)
    kinds = {wire.pattern for wire in (*layout.forward, *layout.back)} | (
        {"holds"} if used else set()
    )
    pen.legend(kinds)
    title = f"{netlist.name}: {len(netlist.actors)} actors, {len(netlist.channels)} channels"
    if netlist.resources:
        title += f", {len(netlist.resources)} resources"
    ax.set_title(f"{title} (each queue holds what its arrow says)", loc="left", fontsize=TITLE)
    ax.title.set_color(INK)
    return ax


# ------------------------------------------------------------------ layout


def arrange(netlist: Netlist) -> Layout:
    """Place the actors and lead the channels."""
    import networkx

    graph = netlist.graph
    closing = _closing_channels(netlist)
    boxes = {actor.name: _box(actor.name, actor.part, actor.lanes) for actor in netlist.actors}
    plan = networkx.DiGraph()
    plan.add_nodes_from(boxes)
    plan.add_edges_from((c.source, c.target) for c in netlist.channels if c.name not in closing)
    columns = [
        [boxes[n] for n in sorted(g, key=netlist.index)]
        for g in networkx.topological_generations(plan)
    ]
    column_of = {box.name: i for i, column in enumerate(columns) for box in column}
    forward, back = [], []
    for c in netlist.channels:
        edge = graph.edges[c.source, c.target, c.name]
        source, target = netlist.actor(c.source), netlist.actor(c.target)
        detail = f"{c.capacity:,}"
        if edge["pattern"] == "shift":
            detail += f", shift {c.offset:+d}"
        wire = Wire(c.name, detail, edge["pattern"], max(source.lanes, target.lanes))
        ends = boxes[c.source], boxes[c.target]
        if c.name in closing:
            wire.stops = list(ends)
            back.append(wire)
            continue
        crossed = [Box("", height=0.1) for _ in range(column_of[c.source] + 1, column_of[c.target])]
        for column, box in enumerate(crossed, column_of[c.source] + 1):
            columns[column].append(box)
        wire.stops = [ends[0], *crossed, ends[1]]
        forward.append(wire)
    layout = Layout(columns, forward, back, boxes)
    _order_rows(layout)
    _place_rows(layout)
    _place_columns(layout)
    _set_ports(layout)
    return layout


def _closing_channels(netlist: Netlist) -> set[str]:
    """Channels to set aside so that no cycle is left.

    Of those within a strongly connected part, the ones that lead to an actor declared no later.
    """
    import networkx

    part = {}
    for number, names in enumerate(networkx.strongly_connected_components(netlist.graph)):
        part.update(dict.fromkeys(names, number))
    return {
        c.name
        for c in netlist.channels
        if part[c.source] == part[c.target] and netlist.index(c.target) <= netlist.index(c.source)
    }


def _box(name: str, part: str, lanes: int) -> Box:
    lines = textwrap.wrap(part, 14) if part != name else []
    if lanes > 1:
        lines.append(f"× {lanes} lanes")
    wide = max([text_width(name, NAME + 0.6), *(text_width(line, SMALL) for line in lines)])
    return Box(name, tuple(lines), lanes, max(wide + 0.22, 0.7), 0.3 + 0.135 * len(lines))


def _neighbours(wires: Iterable[Wire]) -> tuple[dict[Box, list[Box]], dict[Box, list[Box]]]:
    before: dict[Box, list[Box]] = {}
    after: dict[Box, list[Box]] = {}
    for wire in wires:
        for a, b in pairwise(wire.stops):
            after.setdefault(a, []).append(b)
            before.setdefault(b, []).append(a)
    return before, after


def _order_rows(layout: Layout) -> None:
    """Order each column by the mean place of its neighbours, sweeping both ways."""
    before, after = _neighbours(layout.forward)
    for _ in range(4):
        for near, columns in ((before, layout.columns), (after, layout.columns[::-1])):
            place = {box: i for column in columns for i, box in enumerate(column)}
            for column in columns:
                means = {
                    box: np.mean([place[n] for n in near[box]]) if box in near else place[box]
                    for box in column
                }
                column.sort(key=lambda box: means[box])
                place.update({box: i for i, box in enumerate(column)})


def _place_rows(layout: Layout) -> None:
    """Give every box its height and its row, near the mean of its neighbours."""
    before, after = _neighbours(layout.forward)
    for box in layout.boxes.values():
        ports = max(len(before.get(box, ())), len(after.get(box, ())))
        box.height = max(box.height, PORT * ports)
    for column in layout.columns:
        _spread(column, [0.0] * len(column))
    for _ in range(6):
        for near, columns in ((before, layout.columns), (after, layout.columns[::-1])):
            for column in columns:
                wanted = [
                    float(np.mean([n.y for n in near[box]])) if box in near else box.y
                    for box in column
                ]
                _spread(column, wanted)


def _spread(column: list[Box], wanted: list[float]) -> None:
    """Put boxes, from the top, as near to their wanted rows as their heights allow."""
    y: list[float] = []
    for i, (box, want) in enumerate(zip(column, wanted, strict=True)):
        if i:
            apart = ROW if box.name and column[i - 1].name else LANE_OF_LONG
            want = min(want, y[-1] - (column[i - 1].height + box.height) / 2 - apart)
        y.append(want)
    shift = float(np.mean(np.subtract(wanted, y)))
    for box, row in zip(column, y, strict=True):
        box.y = row + shift


def _place_columns(layout: Layout) -> None:
    """Leave room between columns for the labels of the channels that begin there."""
    x = 0.0
    for i, column in enumerate(layout.columns):
        width = max([box.width for box in column])
        for box in column:
            box.x = x + width / 2
            box.width = box.width if box.name else width
        labels = [w.length for w in layout.forward if w.stops[0] in column]
        room = max(labels, default=0.4) + (0.1 if i == len(layout.columns) - 1 else 0.0)
        x += width + room + CURVE


def _set_ports(layout: Layout) -> None:
    """Spread the channels over the sides of their boxes, ordered by where they come from."""
    for box in layout.boxes.values():
        leaving = [w for w in layout.forward if w.stops[0] is box]
        entering = [w for w in layout.forward if w.stops[-1] is box]
        leaving.sort(key=lambda w: -w.stops[1].y)
        entering.sort(key=lambda w: -w.stops[-2].y)
        for i, wire in enumerate(leaving):
            wire.leave = box.y + PORT * ((len(leaving) - 1) / 2 - i)
        for i, wire in enumerate(entering):
            wire.enter = box.y + PORT * ((len(entering) - 1) / 2 - i)


def _tracks(layout: Layout) -> dict[str, tuple[float, float, float]]:
    """Height, and x at source and target, of each channel led back over the top."""
    top = max(b.y + b.height / 2 for column in layout.columns for b in column) + 0.3
    taken: list[list[tuple[float, float]]] = []
    found, used = {}, dict.fromkeys(layout.boxes.values(), 0)
    for wire in sorted(layout.back, key=lambda w: w.stops[0].x - w.stops[1].x):
        source, target = wire.stops
        # Channels out of a box begin at its right, those into it end at its left.
        start = source.x + source.width / 2 - 0.12 - 0.14 * used[source]
        end = target.x - target.width / 2 + 0.12 + 0.14 * used[target]
        used[source] += 1
        used[target] += target is not source
        middle, half = (start + end) / 2, max(abs(start - end), wire.length) / 2 + 0.08
        span = (middle - half, middle + half)
        level = next(
            (i for i, t in enumerate(taken) if all(span[1] < a or span[0] > b for a, b in t)),
            len(taken),
        )
        if level == len(taken):
            taken.append([])
        taken[level].append(span)
        found[wire.name] = (top + TRACK * level, start, end)
    return found


def _servers(netlist: Netlist, resource: str) -> str:
    r = next(r for r in netlist.resources if r.name == resource)
    if r.model is not None:
        return r.model.kind.replace("_", " ")
    return f"{r.servers} {'banks' if r.banked else 'servers'}" if r.servers > 1 else "1 server"


def _resource_places(netlist: Netlist, layout: Layout) -> dict[str, tuple[float, float, float]]:
    """x, y and width of each resource, in a row under all boxes near those that hold it."""
    y = min(b.y - b.height / 2 for column in layout.columns for b in column) - 0.75
    wanted = {
        r.name: float(
            np.mean([layout.boxes[a.name].x for a in netlist.actors if a.resource == r.name])
        )
        for r in netlist.resources
    }
    places: dict[str, tuple[float, float, float]] = {}
    edge = -np.inf
    for name in sorted(wanted, key=lambda name: wanted[name]):
        label = max(text_width(name, NAME + 0.6), text_width(_servers(netlist, name), SMALL))
        width = label * 1.25 + 0.3
        x = max(wanted[name], edge + width / 2 + 0.15)
        edge = x + width / 2
        places[name] = (x, y, width)
    return places


def _extent(
    layout: Layout, used: dict[str, tuple[float, float, float]]
) -> tuple[float, float, float, float]:
    boxes = [box for column in layout.columns for box in column]
    left = min(b.x - b.width / 2 for b in boxes)
    right = max(b.x + b.width / 2 for b in boxes) + 0.1
    low = min(b.y - b.height / 2 for b in boxes) - 0.05
    high = max(b.y + b.height / 2 for b in boxes) + 0.1
    ports = [y for w in layout.forward for y in (w.leave, w.enter)]
    low, high = min([low, *(y - 0.15 for y in ports)]), max([high, *(y + 0.15 for y in ports)])
    for wire in layout.back:
        y, start, end = _tracks(layout)[wire.name]
        high = max(high, y + 0.17)
        left = min(left, (start + end - wire.length) / 2)
        right = max(right, (start + end + wire.length) / 2)
    for x, y, width in used.values():
        low, left, right = min(low, y - 0.22), min(left, x - width / 2), max(right, x + width / 2)
    return left, right, low, high


# ------------------------------------------------------------------ drawing


class _Pen:
    """Draws boxes and wires on axes whose unit is an inch, at a scale."""

    def __init__(self, ax: Axes, scale: float) -> None:
        self.ax, self.scale = ax, scale

    def text(self, x: float, y: float, text: str, size: float = SMALL, **options: Any) -> None:
        options.setdefault("color", INK)
        options.setdefault("ha", "center")
        options.setdefault("va", "center")
        self.ax.text(x, y, text, fontsize=size * self.scale, zorder=6, **options)

    def box(self, box: Box) -> None:
        from matplotlib.patches import FancyBboxPatch

        fill = lighter(BLUE, 0.88) if box.lanes > 1 else "white"
        behind = (0.07, 0.035, 0.0) if box.lanes > 1 else (0.0,)
        for offset in behind:
            corner = (box.x - box.width / 2 + offset, box.y - box.height / 2 + offset)
            self.ax.add_patch(
                FancyBboxPatch(
                    *(corner, box.width, box.height),
                    boxstyle="round,pad=0,rounding_size=0.05",
                    facecolor=fill,
                    edgecolor=INK,
                    linewidth=0.8 * self.scale,
                    zorder=4,
                )
            )
        height = 0.135 * len(box.lines)
        self.text(box.x, box.y + height / 2, box.name, NAME, weight="bold")
        for i, line in enumerate(box.lines):
            self.text(box.x, box.y + height / 2 - 0.145 - 0.13 * i, line, color=MUTED)

    def resource(self, name: str, x: float, y: float, width: float, detail: str) -> None:
        from matplotlib.patches import Ellipse

        self.ax.add_patch(
            Ellipse(
                *((x, y), width, 0.42),
                facecolor=lighter(GREY, 0.5),
                edgecolor=MUTED,
                linewidth=0.8 * self.scale,
                zorder=4,
            )
        )
        self.text(x, y + 0.07, name, NAME, weight="bold")
        self.text(x, y - 0.07, detail, color=MUTED)

    def line(
        self,
        points: list[tuple[float, float]],
        pattern: str,
        arrow: bool = False,
        zorder: float = 3,
    ) -> None:
        """A line with rounded corners, or through the columns in smooth steps."""
        from matplotlib.patches import FancyArrowPatch
        from matplotlib.path import Path

        colour, width, dashes, _ = STYLES[pattern]
        codes, places = [Path.MOVETO], [points[0]]
        for (x0, y0), (x1, y1) in pairwise(points):
            if x0 == x1 or y0 == y1 or pattern == "holds":
                codes.append(Path.LINETO)
                places.append((x1, y1))
            else:
                middle = (x0 + x1) / 2
                codes += [Path.CURVE4] * 3
                places += [(middle, y0), (middle, y1), (x1, y1)]
        self.ax.add_patch(
            FancyArrowPatch(
                path=Path(places, codes),
                arrowstyle="-|>,head_length=3,head_width=1.6" if arrow else "-",
                mutation_scale=self.scale,
                linewidth=width * self.scale,
                linestyle=dashes,
                color=colour,
                joinstyle="round",
                capstyle="butt",
                shrinkA=0,
                shrinkB=0,
                zorder=zorder,
            )
        )

    def label(self, wire: Wire, x: float, y: float) -> None:
        """Name above the line, what each queue holds under it."""
        self.text(x, y + 0.035, wire.name, va="bottom")
        self.text(x, y - 0.035, wire.detail, va="top", color=MUTED)

    def forward(self, wire: Wire) -> None:
        source, target = wire.stops[0], wire.stops[-1]
        x, y = source.x + source.width / 2, wire.leave
        turn = x + wire.length
        # Banks stand wider by the boxes behind them.
        points = [(x, y), (turn, y)]
        for stop in wire.stops[1:-1]:
            points += [(stop.x - stop.width / 2, stop.y), (stop.x + stop.width / 2, stop.y)]
        goal = (target.x - target.width / 2, wire.enter)
        self._ends(wire.pattern, points, goal)
        shown = x + wire.length / 2 + (0.07 if source.lanes > 1 else 0)
        self.label(wire, shown, y)
        if wire.pattern == "lane" and wire.lanes > 1:
            self._stroke(goal[0] - 0.17, goal[1])

    def _ends(
        self, pattern: str, points: list[tuple[float, float]], goal: tuple[float, float]
    ) -> None:
        """Lead a line to its goal; a broadcast ends, and a gather begins, in a fan."""
        x, y = goal
        if pattern == "broadcast":
            fork = x - 0.2
            self.line([*points, (fork, y)], pattern)
            for dy in (-0.1, 0.0, 0.1):
                self._prong((fork, y), (x, y + dy), pattern, arrow=True)
            return
        if pattern == "gather":
            (x0, y0), joint = points[0], points[0][0] + 0.22
            for dy in (-0.1, 0.0, 0.1):
                self._prong((x0, y0 + dy), (joint, y0), pattern)
            points = [(joint, y0), *points[1:]]
        self.line([*points, goal], pattern, arrow=True)

    def _prong(
        self,
        begin: tuple[float, float],
        end: tuple[float, float],
        pattern: str,
        arrow: bool = False,
    ) -> None:
        from matplotlib.patches import FancyArrowPatch

        colour = STYLES[pattern][0]
        style = "-|>,head_length=3,head_width=1.6" if arrow else "-"
        self.ax.add_patch(
            FancyArrowPatch(
                *(begin, end),
                arrowstyle=style,
                mutation_scale=self.scale,
                linewidth=1.0 * self.scale,
                color=colour,
                shrinkA=0,
                shrinkB=0,
                zorder=3,
            )
        )

    def _stroke(self, x: float, y: float) -> None:
        """The stroke across a bundle of wires."""
        self.ax.plot(
            *((x - 0.03, x + 0.03), (y - 0.06, y + 0.06)),
            color=INK,
            linewidth=0.9 * self.scale,
            zorder=3,
        )

    def backward(self, wire: Wire, track: float, start: float, end: float) -> None:
        source, target = wire.stops
        top = source.y + source.height / 2, target.y + target.height / 2
        self.line(
            [(start, top[0]), (start, track), (end, track), (end, top[1])], wire.pattern, True
        )
        self.label(wire, (start + end) / 2, track)

    def legend(self, kinds: set[str]) -> None:
        from matplotlib.lines import Line2D

        handles = [
            Line2D([], [], color=colour, linewidth=width, linestyle=dashes, label=label)
            for kind, (colour, width, dashes, label) in STYLES.items()
            if kind in kinds
        ]
        self.ax.legend(
            handles=handles,
            loc="upper left",
            bbox_to_anchor=(0, 0),
            borderaxespad=0.2,
            ncols=len(handles) or 1,
            frameon=False,
            fontsize=SMALL * self.scale,
            handlelength=2.2,
        )
