"""What a netlist is made of, and where its parts stand in a block diagram.

A :class:`Topology` is a netlist without its work: small enough to stand in a report. The layout is
the layered one of Sugiyama: channels that close a cycle are set aside, an actor
stands right of all that feed it, channels across several columns keep a row of their own in each,
and rows are ordered by the mean place of their neighbours. Lengths are inches on paper.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise

import msgspec
import numpy as np

from sparqsim.simulator.netlist import Netlist

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


class DrawnActor(msgspec.Struct, frozen=True):
    """An actor: its name, the part of the machine it stands for, and the resource it holds."""

    name: str
    part: str
    lanes: int
    resource: str | None


class DrawnChannel(msgspec.Struct, frozen=True):
    """A channel: its pattern, and the tokens that each of its queues can hold."""

    name: str
    source: str
    target: str
    pattern: str
    capacity: int
    offset: int


class DrawnResource(msgspec.Struct, frozen=True):
    """A resource, and what it is in words: ``2 servers``."""

    name: str
    detail: str


class Topology(msgspec.Struct, frozen=True):
    """The parts of a netlist and how they are joined, without their work."""

    name: str
    actors: tuple[DrawnActor, ...]
    channels: tuple[DrawnChannel, ...]
    resources: tuple[DrawnResource, ...]

    def index(self, actor: str) -> int:
        """The place of an actor in the order of declaration."""
        return next(place for place, each in enumerate(self.actors) if each.name == actor)

    def lanes(self, actor: str) -> int:
        """How many lanes an actor has."""
        return self.actors[self.index(actor)].lanes


def topology_of(netlist: Netlist) -> Topology:
    """The topology of a netlist."""
    resources = []
    for r in netlist.resources:
        detail = f"{r.servers} {'bank' if r.banked else 'server'}{'s' * (r.servers != 1)}"
        if r.model is not None:
            detail = r.model.kind.replace("_", " ")
        resources.append(DrawnResource(r.name, detail))
    actors = (DrawnActor(a.name, a.part, int(a.lanes), a.resource) for a in netlist.actors)
    channels = (
        DrawnChannel(c.name, c.source, c.target, c.pattern.value, int(c.capacity), c.offset)
        for c in netlist.channels
    )
    return Topology(netlist.name, tuple(actors), tuple(channels), tuple(resources))


# ------------------------------------------------------------------ the layout


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


@cache
def text_width(text: str, points: float) -> float:
    """Width of a line of text in inches."""
    from matplotlib.textpath import TextPath

    return float(TextPath((0, 0), text, size=points).get_extents().width) / 72 if text else 0.0


def arrange(topology: Topology, least: Mapping[str, Point] | None = None) -> Layout:
    """Place the actors and lead the channels.

    ``least`` gives boxes, by the names of their actors, a least width and height.
    """
    import networkx

    closing = _closing_channels(topology)
    boxes = {actor.name: _box(actor.name, actor.part, actor.lanes) for actor in topology.actors}
    for name, (width, height) in (least or {}).items():
        boxes[name].width = max(boxes[name].width, width)
        boxes[name].height = max(boxes[name].height, height)
    plan = networkx.DiGraph()
    plan.add_nodes_from(boxes)
    plan.add_edges_from((c.source, c.target) for c in topology.channels if c.name not in closing)
    columns = [
        [boxes[name] for name in sorted(names, key=topology.index)]
        for names in networkx.topological_generations(plan)
    ]
    column_of = {box.name: i for i, column in enumerate(columns) for box in column}
    layout = Layout(columns, boxes, stores=_stores(topology))
    for c in topology.channels:
        detail = f"holds {c.capacity:,}"
        if c.pattern == "shift":
            detail += f", {c.offset:+d}"
        lanes = max(topology.lanes(c.source), topology.lanes(c.target))
        wire = Wire(c.name, detail, c.pattern, lanes)
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
    _place_columns(layout, topology)
    _straighten(layout)
    _lead_back(layout)
    _lead_down(layout, topology)
    return layout


def _closing_channels(topology: Topology) -> set[str]:
    """Channels to set aside so that no cycle is left, none of them needlessly.

    They are sought among those within a strongly connected part that lead to an actor declared no
    later; one that closes no cycle with what is kept, the shortest step back first, is kept too.
    """
    import networkx

    part: dict[str, int] = {}
    graph = networkx.DiGraph((c.source, c.target) for c in topology.channels)
    graph.add_nodes_from(actor.name for actor in topology.actors)
    for number, members in enumerate(networkx.strongly_connected_components(graph)):
        part.update(dict.fromkeys(members, number))
    place = topology.index
    suspects = [
        c
        for c in topology.channels
        if part[c.source] == part[c.target] and place(c.target) <= place(c.source)
    ]
    names = {c.name for c in suspects}
    kept = networkx.DiGraph((c.source, c.target) for c in topology.channels if c.name not in names)
    kept.add_nodes_from(actor.name for actor in topology.actors)
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


def _stores(topology: Topology) -> list[Store]:
    stores = []
    for r in topology.resources:
        wide = max(text_width(r.name, NAME + 0.6), text_width(r.detail, SMALL))
        stores.append(Store(r.name, r.detail, 1.25 * wide + 0.3))
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


def _place_columns(layout: Layout, topology: Topology) -> None:
    """Leave room between columns for labels, and for lines that go around other boxes."""
    x = 0.0
    up_from = [w.stops[0] for w in layout.back if not layout.is_top(w.stops[0])]
    up_to = [w.stops[1] for w in layout.back if not layout.is_top(w.stops[1])]
    holders = [layout.boxes[a.name] for a in topology.actors if a.resource]
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


def _lead_down(layout: Layout, topology: Topology) -> None:
    """Put the resources beneath all boxes, near the actors that hold them, and lead lines there."""
    stubs, tracks = _Stubs(), _Tracks()
    base = min(box.bottom for column in layout.columns for box in column) - 0.55
    for store in layout.stores:
        holders = [layout.boxes[a.name] for a in topology.actors if a.resource == store.name]
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
