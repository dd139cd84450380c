"""A netlist drawn as a block diagram, left to right in the direction of the data.

Actors are boxes, a bank of lanes a stack of them; channels are arrows with their name and what each
queue holds; resources are ellipses beneath the actors that hold them. A broadcast ends in a fan, a
gather begins in one, a shift is dashed, and a bundle of lanes is struck through, as in a circuit
diagram. What flows back is led over the top.

The layout is the layered one of Sugiyama: channels that close a cycle are set aside, an actor
stands right of all that feed it, channels across several columns keep a row of their own in each,
and rows are ordered by the mean place of their neighbours. Lengths are inches on paper.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from sparqsim.simulator.netlist import Netlist
from sparqsim.simulator.palette import BLUE, DPI, GREEN, GREY, INK, MUTED, PURPLE, TITLE, lighter

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Point = tuple[float, float]

NAME, SMALL = 8.0, 7.0  # points
ROW, LONG_ROW = 0.42, 0.36  # least distance between boxes, and beside long channels
PORT = 0.34  # between the channels at a side of a box
TRACK = 0.36  # between channels led back over the top
STUB = 0.1  # between lines that leave a column for the top or the bottom
FAN = 0.2  # where a bundle spreads
CURVE = 0.34  # where a channel changes its row
DEPTH = 0.07  # by how much a bank's boxes behind the first stand out
MARGIN = 0.14
STYLES: dict[str, tuple[str, float, Any, str]] = {
    "lane": (INK, 1.0, "-", "lane to lane (struck through: a bundle)"),
    "broadcast": (BLUE, 2.0, "-", "broadcast: one to all lanes"),
    "gather": (GREEN, 2.0, "-", "gather: all lanes to one"),
    "shift": (PURPLE, 1.0, (0, (4, 2)), "shift: from lane to lane beside it"),
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
    label_x: float = 0.0  # where the labels of channels that begin here begin

    @property
    def left(self) -> float:
        """x of its left side."""
        return self.x - self.width / 2

    @property
    def right(self) -> float:
        """x of its right side."""
        return self.x + self.width / 2

    @property
    def top(self) -> float:
        """y of its upper side."""
        return self.y + self.height / 2

    @property
    def bottom(self) -> float:
        """y of its lower side."""
        return self.y - self.height / 2


@dataclass(eq=False)
class Wire:
    """A channel: its boxes from source to target, and its rows at both.

    A channel led back over the top has a ``path`` of points instead.
    """

    name: str
    detail: str
    pattern: str
    lanes: int
    stops: list[Box] = field(default_factory=list)
    leave: float = 0.0  # row at the source's right side
    enter: float = 0.0  # row at the target's left side
    path: list[Point] = field(default_factory=list)

    @property
    def label_width(self) -> float:
        """Inches its label needs."""
        return max(text_width(self.name, SMALL), text_width(self.detail, SMALL)) + 0.16

    @property
    def straight(self) -> float:
        """Inches it needs before it may change its row."""
        return self.label_width + (FAN if self.pattern == "gather" else 0.0)

    @property
    def track(self) -> tuple[float, Point]:
        """Of a channel led back: the height of its track, and from where to where."""
        height = max(y for _, y in self.path)
        xs = [x for x, y in self.path if y == height]
        return height, (min(xs), max(xs))


@dataclass(eq=False)
class Store:
    """A resource, and the lines that lead to it from the actors that hold it."""

    name: str
    detail: str
    width: float
    x: float = 0.0
    y: float = 0.0
    paths: list[list[Point]] = field(default_factory=list)


@dataclass(eq=False)
class Layout:
    """Columns of boxes from left to right, wires forward and back, resources beneath."""

    columns: list[list[Box]]
    boxes: dict[str, Box]
    forward: list[Wire] = field(default_factory=list)
    back: list[Wire] = field(default_factory=list)
    stores: list[Store] = field(default_factory=list)

    def is_top(self, box: Box) -> bool:
        """Whether no other box stands above it."""
        return all(b.y <= box.y for b in self._column(box))

    def is_bottom(self, box: Box) -> bool:
        """Whether no other box stands beneath it."""
        return all(b.y >= box.y for b in self._column(box))

    def _column(self, box: Box) -> list[Box]:
        return [b for column in self.columns if box in column for b in column if b.name]


def text_width(text: str, points: float) -> float:
    """Width of a line of text in inches."""
    from matplotlib.textpath import TextPath

    return float(TextPath((0, 0), text, size=points).get_extents().width) / 72 if text else 0.0


def draw_topology(netlist: Netlist, ax: Axes | None = None) -> Axes:
    """Draw the actors, channels and resources of a netlist; a new figure is as large as it needs.

    On a given ``ax`` the diagram is scaled to fit.
    """
    layout = arrange(netlist)
    left, right, low, high = extent(layout)
    width, height = right - left, high - low
    below, above = 0.32, 0.35  # legend and title
    if ax is None:
        from matplotlib.figure import Figure

        size = (max(width, 5.0), height + below + above)
        figure = Figure(figsize=size, dpi=DPI)
        ax = figure.add_axes((0, below / size[1], width / size[0], height / size[1]))
        scale = 1.0
    else:
        place = ax.get_window_extent().transformed(ax.figure.dpi_scale_trans.inverted())
        scale = min(place.width / width, place.height / height)
    ax.set_axis_off()
    ax.set_aspect("equal", anchor="W")
    ax.set(xlim=(left, right), ylim=(low, high))
    pen = _Pen(ax, scale)
    for store in layout.stores:
        pen.store(store)
    for wire in layout.forward:
        pen.forward(wire)
    for wire in layout.back:
        pen.backward(wire)
    for box in layout.boxes.values():
        pen.box(box)
    kinds = {wire.pattern for wire in (*layout.forward, *layout.back)}
    pen.legend(kinds | {"holds"} if layout.stores else kinds)
    told = [
        f"{len(parts)} {kind}{'s' * (len(parts) != 1)}"
        for kind, parts in (
            *(("actor", netlist.actors), ("channel", netlist.channels)),
            ("resource", netlist.resources),
        )
        if parts
    ]
    title = f"{netlist.name}: {', '.join(told)}"
    ax.set_title(title, loc="left", x=MARGIN / width, fontsize=TITLE * min(scale, 1), color=INK)
    return ax


# ------------------------------------------------------------------ layout


def arrange(netlist: Netlist, least: Mapping[str, Point] | None = None) -> Layout:
    """Place the actors and lead the channels.

    ``least`` gives boxes, by the names of their actors, a least width and height.
    """
    import networkx

    closing = _closing_channels(netlist)
    boxes = {actor.name: _box(actor.name, actor.part, actor.lanes) for actor in netlist.actors}
    for name, (width, height) in (least or {}).items():
        boxes[name].width = max(boxes[name].width, width)
        boxes[name].height = max(boxes[name].height, height)
    plan = networkx.DiGraph()
    plan.add_nodes_from(boxes)
    plan.add_edges_from((c.source, c.target) for c in netlist.channels if c.name not in closing)
    columns = [
        [boxes[name] for name in sorted(names, key=netlist.index)]
        for names in networkx.topological_generations(plan)
    ]
    column_of = {box.name: i for i, column in enumerate(columns) for box in column}
    layout = Layout(columns, boxes, stores=_stores(netlist))
    for c in netlist.channels:
        detail = f"holds {c.capacity:,}"
        if c.pattern.value == "shift":
            detail += f", {c.offset:+d}"
        lanes = max(netlist.actor(c.source).lanes, netlist.actor(c.target).lanes)
        wire = Wire(c.name, detail, c.pattern.value, lanes)
        ends = boxes[c.source], boxes[c.target]
        if c.name in closing:
            wire.stops = list(ends)
            layout.back.append(wire)
            continue
        crossed = [Box("", height=0.1) for _ in range(column_of[c.source] + 1, column_of[c.target])]
        for column, box in enumerate(crossed, column_of[c.source] + 1):
            columns[column].append(box)
        wire.stops = [ends[0], *crossed, ends[1]]
        layout.forward.append(wire)
    _order_rows(layout)
    _place_rows(layout)
    _place_columns(layout, netlist)
    _straighten(layout)
    _lead_back(layout)
    _lead_down(layout, netlist)
    return layout


def _closing_channels(netlist: Netlist) -> set[str]:
    """Channels to set aside so that no cycle is left, none of them needlessly.

    They are sought among those within a strongly connected part that lead to an actor declared no
    later; one that closes no cycle with what is kept, the shortest step back first, is kept too.
    """
    import networkx

    part: dict[str, int] = {}
    for number, members in enumerate(networkx.strongly_connected_components(netlist.graph)):
        part.update(dict.fromkeys(members, number))
    place = netlist.index
    suspects = [
        c
        for c in netlist.channels
        if part[c.source] == part[c.target] and place(c.target) <= place(c.source)
    ]
    names = {c.name for c in suspects}
    kept = networkx.DiGraph((c.source, c.target) for c in netlist.channels if c.name not in names)
    kept.add_nodes_from(actor.name for actor in netlist.actors)
    closing = set()
    for c in sorted(suspects, key=lambda c: place(c.source) - place(c.target)):
        if networkx.has_path(kept, c.target, c.source):
            closing.add(c.name)
        else:
            kept.add_edge(c.source, c.target)
    return closing


def _box(name: str, part: str, lanes: int) -> Box:
    lines = textwrap.wrap(part, 14) if part != name else []
    if lanes > 1:
        lines.append(f"× {lanes} lanes")
    wide = max([text_width(name, NAME + 0.6), *(text_width(line, SMALL) for line in lines)])
    return Box(name, tuple(lines), lanes, max(wide + 0.22, 0.7), 0.3 + 0.135 * len(lines))


def _stores(netlist: Netlist) -> list[Store]:
    stores = []
    for r in netlist.resources:
        detail = f"{r.servers} {'bank' if r.banked else 'server'}{'s' * (r.servers != 1)}"
        if r.model is not None:
            detail = r.model.kind.replace("_", " ")
        wide = max(text_width(r.name, NAME + 0.6), text_width(detail, SMALL))
        stores.append(Store(r.name, detail, 1.25 * wide + 0.3))
    return stores


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
                    box: float(np.mean([place[n] for n in near.get(box, [box])])) for box in column
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
                wanted = [float(np.mean([n.y for n in near.get(box, [box])])) for box in column]
                _spread(column, wanted)


def _spread(column: list[Box], wanted: list[float]) -> None:
    """Put boxes, from the top, as near to their wanted rows as their heights allow.

    Places of long channels give way to actors.
    """
    y: list[float] = []
    for i, (box, want) in enumerate(zip(column, wanted, strict=True)):
        if i:
            apart = ROW if box.name and column[i - 1].name else LONG_ROW
            want = min(want, y[-1] - (column[i - 1].height + box.height) / 2 - apart)
        y.append(want)
    off = np.subtract(wanted, y)
    named = [bool(box.name) for box in column]
    shift = float(np.mean(off[named] if any(named) else off))
    for box, row in zip(column, y, strict=True):
        box.y = row + shift


def _place_columns(layout: Layout, netlist: Netlist) -> None:
    """Leave room between columns for labels, and for lines that go around other boxes."""
    x = 0.0
    up_from = [w.stops[0] for w in layout.back if not layout.is_top(w.stops[0])]
    up_to = [w.stops[1] for w in layout.back if not layout.is_top(w.stops[1])]
    holders = [layout.boxes[a.name] for a in netlist.actors if a.resource]
    down_from = [box for box in holders if not layout.is_bottom(box)]
    for column in layout.columns:
        width = max(box.width for box in column)
        x += STUB * sum(box in column for box in up_to)
        around = STUB * sum(box in column for box in up_from + down_from)
        behind = DEPTH if any(box.lanes > 1 for box in column) else 0.0
        for box in column:
            box.x = x + width / 2
            box.width = box.width if box.name else width
            box.label_x = x + width + around + behind
        labels = [w.straight for w in layout.forward if w.stops[0] in column]
        x += width + around + behind + max(labels, default=0.4) + CURVE


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


def _straighten(layout: Layout) -> None:
    """Move boxes to the rows of the channels that reach them, from left to right."""
    _set_ports(layout)
    for _ in range(2):
        for column in layout.columns[1:]:
            wanted = []
            for box in column:
                rows = [
                    wire.leave if i == 0 else before.y
                    for wire in layout.forward
                    for i, (before, stop) in enumerate(pairwise(wire.stops))
                    if stop is box
                ]
                wanted.append(float(np.mean(rows)) if rows else box.y)
            _spread(column, wanted)
            _set_ports(layout)


class _Stubs:
    """Places side by side along a vertical line, given out one after the other."""

    def __init__(self) -> None:
        self.given: dict[tuple[str, float], int] = {}

    def next(self, side: str, x: float) -> float:
        """The distance of the next free place from the line at ``x``."""
        self.given[side, x] = self.given.get((side, x), 0) + 1
        return STUB * self.given[side, x]


class _Tracks:
    """Parallel tracks, each taken over some stretches."""

    def __init__(self) -> None:
        self.taken: list[list[Point]] = []

    def take(self, begin: float, end: float) -> int:
        """The first track that is free from ``begin`` to ``end``."""
        level = 0
        while level < len(self.taken) and any(
            begin < b + STUB and end > a - STUB for a, b in self.taken[level]
        ):
            level += 1
        self.taken[level:] = self.taken[level:] or [[]]
        self.taken[level].append((begin, end))
        return level


def _lead_back(layout: Layout) -> None:
    """Lead the channels that close a cycle over the top, or first around the boxes above them."""
    stubs, tracks = _Stubs(), _Tracks()
    ends: dict[Wire, tuple[list[Point], list[Point]]] = {}
    # The longest take the outermost places, so that they do not cross the shorter.
    for wire in sorted(layout.back, key=lambda w: w.stops[1].x - w.stops[0].x):
        source, target = wire.stops
        if layout.is_top(source):
            out = [(source.right - stubs.next("top right", source.right), source.top)]
        else:
            x = source.label_x - stubs.next("right", source.label_x) + STUB / 2
            out = [(source.right, source.top - 0.08), (x, source.top - 0.08)]
        if layout.is_top(target):
            back = [(target.left + stubs.next("top left", target.left), target.top)]
        else:
            left = min(b.left for column in layout.columns if target in column for b in column)
            x = left - stubs.next("left", left) - STUB
            back = [(x, target.top - 0.08), (target.left, target.top - 0.08)]
        ends[wire] = out, back
    base = max(box.top for column in layout.columns for box in column) + 0.3
    for wire, (out, back) in reversed(ends.items()):
        begin, end = out[-1][0], back[0][0]
        half = max(abs(begin - end), wire.label_width) / 2
        middle = (begin + end) / 2
        y = base + TRACK * tracks.take(middle - half, middle + half)
        wire.path = [*out, (begin, y), (end, y), *back]


def _lead_down(layout: Layout, netlist: Netlist) -> None:
    """Put the resources beneath all boxes, near the actors that hold them, and lead lines there."""
    stubs, tracks = _Stubs(), _Tracks()
    base = min(box.bottom for column in layout.columns for box in column) - 0.55
    for store in layout.stores:
        holders = [layout.boxes[a.name] for a in netlist.actors if a.resource == store.name]
        begins: list[list[Point]] = []
        for box in holders:
            if layout.is_bottom(box):
                begins.append([(box.x, box.bottom)])
            else:
                x = box.label_x - stubs.next("right", box.label_x) + STUB / 2
                begins.append([(box.right, box.bottom + 0.08), (x, box.bottom + 0.08)])
        reach = [begin[-1][0] for begin in begins]
        store.x = float(np.mean(reach))
        half = store.width / 2
        level = tracks.take(min(*reach, store.x - half), max(*reach, store.x + half))
        store.y = base - 0.55 * level
        store.paths = [[*b, (b[-1][0], store.y), (store.x, store.y)] for b in begins]


def extent(layout: Layout) -> tuple[float, float, float, float]:
    """Left, right, low and high, with a margin."""
    xs: list[float] = []
    ys: list[float] = []
    for box in (box for column in layout.columns for box in column):
        behind = DEPTH * (box.lanes > 1)
        xs += [box.left, box.right + behind]
        ys += [box.bottom, box.top + behind]
    for wire in layout.forward:
        ys += [wire.leave - 0.17, wire.leave + 0.17]
    for wire in layout.back:
        height, (begin, end) = wire.track
        middle, half = (begin + end) / 2, wire.label_width / 2
        xs += [middle - half, middle + half, *(x for x, _ in wire.path)]
        ys.append(height + 0.17)
    for store in layout.stores:
        xs += [store.x - store.width / 2, store.x + store.width / 2]
        ys.append(store.y - 0.22)
    return min(xs) - MARGIN, max(xs) + MARGIN, min(ys) - MARGIN, max(ys) + MARGIN


# ------------------------------------------------------------------ drawing


class _Pen:
    """Draws boxes and wires on axes whose unit is an inch, at a scale."""

    def __init__(self, ax: Axes, scale: float) -> None:
        self.ax, self.scale = ax, scale

    def text(self, x: float, y: float, text: str, size: float = SMALL, **options: Any) -> None:
        options = {"color": INK, "ha": "center", "va": "center"} | options
        self.ax.text(x, y, text, fontsize=size * self.scale, zorder=6, **options)

    def box(self, box: Box) -> None:
        from matplotlib.patches import FancyBboxPatch

        fill = lighter(BLUE, 0.88) if box.lanes > 1 else "white"
        for behind in (DEPTH, DEPTH / 2, 0.0) if box.lanes > 1 else (0.0,):
            self.ax.add_patch(
                FancyBboxPatch(
                    *((box.left + behind, box.bottom + behind), box.width, box.height),
                    boxstyle="round,pad=0,rounding_size=0.05",
                    facecolor=fill,
                    edgecolor=INK,
                    linewidth=0.8 * self.scale,
                    zorder=4,
                )
            )
        first = box.y + 0.0675 * len(box.lines)
        self.text(box.x, first, box.name, NAME, weight="bold")
        for i, line in enumerate(box.lines):
            self.text(box.x, first - 0.145 - 0.13 * i, line, color=MUTED)

    def store(self, store: Store) -> None:
        from matplotlib.patches import Ellipse

        for path in store.paths:
            self.line(path, "holds", zorder=1)
        self.ax.add_patch(
            Ellipse(
                *((store.x, store.y), store.width, 0.42),
                facecolor=lighter(GREY, 0.5),
                edgecolor=MUTED,
                linewidth=0.8 * self.scale,
                zorder=4,
            )
        )
        self.text(store.x, store.y + 0.07, store.name, NAME, weight="bold")
        self.text(store.x, store.y - 0.07, store.detail, color=MUTED)

    def line(
        self,
        points: list[Point],
        pattern: str,
        arrow: bool = False,
        width: float | None = None,
        zorder: float = 3,
    ) -> None:
        """A line through points: straight along an axis, else in a smooth step."""
        from matplotlib.patches import FancyArrowPatch
        from matplotlib.path import Path

        colour, usual, dashes, _ = STYLES[pattern]
        codes, places = [Path.MOVETO], [points[0]]
        for (x0, y0), (x1, y1) in pairwise(points):
            if x0 == x1 or y0 == y1 or x1 - x0 <= FAN:
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
                linewidth=(usual if width is None else width) * self.scale,
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
        turn = source.label_x + wire.straight
        points = [(source.right, wire.leave), (turn, wire.leave)]
        for stop in wire.stops[1:-1]:
            points += [(stop.left, stop.y), (stop.right, stop.y)]
        self.ends(wire, [*points, (target.left, wire.enter)])
        self.label(wire, turn - wire.label_width / 2, wire.leave)

    def backward(self, wire: Wire) -> None:
        self.ends(wire, wire.path)
        height, (begin, end) = wire.track
        self.label(wire, (begin + end) / 2, height)

    def ends(self, wire: Wire, points: list[Point]) -> None:
        """A line with the ends its pattern asks for: a fan, an arrow, a stroke."""
        pattern = wire.pattern
        if pattern == "gather":
            begin = points[0]
            points = [_toward(begin, points[1], FAN), *points[1:]]
            for across in (-0.1, 0.0, 0.1):
                tip = _beside(begin, points[0], across)
                self.line([tip, points[0]], pattern, width=1.0)
        if pattern == "broadcast":
            goal = points[-1]
            fork = _toward(goal, points[-2], FAN)
            self.line([*points[:-1], fork], pattern)
            for across in (-0.1, 0.0, 0.1):
                self.line([fork, _beside(goal, fork, across)], pattern, arrow=True, width=1.0)
            return
        self.line(points, pattern, arrow=True)
        if pattern == "lane" and wire.lanes > 1:
            x, y = _toward(points[-1], points[-2], 0.17)
            self.ax.plot(
                *((x - 0.03, x + 0.03), (y - 0.06, y + 0.06)),
                color=INK,
                linewidth=0.9 * self.scale,
                zorder=3,
            )

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
            bbox_to_anchor=(MARGIN / (self.ax.get_xlim()[1] - self.ax.get_xlim()[0]), 0),
            borderpad=0.0,
            borderaxespad=0.0,
            ncols=max(len(handles), 1),
            frameon=False,
            labelcolor=INK,
            fontsize=SMALL * self.scale,
            handlelength=2.2,
        )


def _toward(end: Point, neighbour: Point, by: float) -> Point:
    """The point ``by`` inches (or less, on a short line) inward of its end, along its axis."""
    if end[0] == neighbour[0]:
        return end[0], end[1] + float(np.clip(0.8 * (neighbour[1] - end[1]), -by, by))
    return end[0] + float(np.clip(0.8 * (neighbour[0] - end[0]), -by, by)), end[1]


def _beside(end: Point, neighbour: Point, across: float) -> Point:
    """The point ``across`` inches beside the end of a line."""
    if end[0] == neighbour[0]:
        return end[0] + across, end[1]
    return end[0], end[1] + across
