"""A netlist drawn as a block diagram, left to right in the direction of the data.

Actors are boxes, a bank of lanes a stack of them; channels are arrows with their name and what each
queue holds; resources are ellipses beneath the actors that hold them. A broadcast ends in a fan, a
gather begins in one, a shift is dashed, and a bundle of lanes is struck through, as in a circuit
diagram. What flows back is led over the top (the layout is :mod:`sparqsim.simulator.topology`'s).

It is drawn once, by :class:`_Pen`, on paper of two kinds: a figure of matplotlib, and markup in the
colours of a page.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from sparqsim.base import printable
from sparqsim.simulator.netlist import Netlist
from sparqsim.simulator.palette import BLUE, DPI, GREEN, GREY, INK, MUTED, PURPLE, TITLE, lighter
from sparqsim.simulator.topology import (
    DEPTH,
    FAN,
    MARGIN,
    NAME,
    SMALL,
    Box,
    Layout,
    Point,
    Store,
    Topology,
    Wire,
    arrange,
    extent,
    topology_of,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Of each kind of line its colour, width in points, dashes, and what it means.
STYLES: dict[str, tuple[str, float, Any, str]] = {
    "lane": (INK, 1.0, "-", "lane to lane (struck through: a bundle)"),
    "broadcast": (BLUE, 2.0, "-", "broadcast: one to all lanes"),
    "gather": (GREEN, 2.0, "-", "gather: all lanes to one"),
    "shift": (PURPLE, 1.0, (0, (4, 2)), "shift: from lane to lane beside it"),
    "holds": (MUTED, 1.0, (0, (1, 2)), "holds a resource"),
}
PIXELS = 112.0  # of a page to an inch of the layout: small words have 11


def draw_topology(netlist: Netlist, ax: Axes | None = None) -> Axes:
    """Draw the actors, channels and resources of a netlist; a new figure is as large as it needs.

    On a given ``ax`` the diagram is scaled to fit.
    """
    layout = arrange(topology_of(netlist))
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
    paper = _Figure(ax, scale)
    _Pen(paper).draw(layout)
    paper.legend(kinds_of(layout))
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


def topology_markup(topology: Topology) -> tuple[str, float, float, list[str]]:
    """A block diagram as the content of an SVG: markup, width and height in pixels, line kinds.

    Its classes are those of the style of all pages (``block`` is on the element around it).
    """
    layout = arrange(topology)
    left, right, low, high = extent(layout)
    paper = _Markup(left, high)
    _Pen(paper).draw(layout)
    size = (right - left) * PIXELS, (high - low) * PIXELS
    return "".join(paper.parts), *size, [kind for kind in STYLES if kind in kinds_of(layout)]


def kinds_of(layout: Layout) -> set[str]:
    """The kinds of lines in a diagram."""
    kinds = {wire.pattern for wire in (*layout.forward, *layout.back)}
    return kinds | {"holds"} if layout.stores else kinds


# ------------------------------------------------------------------ the pen


class _Paper(Protocol):
    """What a diagram is drawn on; lengths are inches, the y axis points up."""

    def text(self, x: float, y: float, text: str, kind: str = "", va: str = "center") -> None:
        """A line of text around ``x``; ``kind`` is "name", "muted" or nothing."""
        ...

    def box(self, x: float, y: float, width: float, height: float, bank: bool) -> None:
        """A box with rounded corners; ``x`` and ``y`` are its lower left."""
        ...

    def ellipse(self, x: float, y: float, width: float, height: float) -> None:
        """An ellipse around a centre."""
        ...

    def line(
        self, points: Sequence[Point], kind: str, arrow: bool = False, width: float | None = None
    ) -> None:
        """A line through points: straight along an axis, else in a smooth step."""
        ...


class _Pen:
    """Draws boxes and wires on paper; what is drawn later lies on what was drawn before."""

    def __init__(self, paper: _Paper) -> None:
        self.paper = paper

    def draw(self, layout: Layout) -> None:
        """Draw all: lines beneath boxes, words on top."""
        for store in layout.stores:
            for path in store.paths:
                self.paper.line(path, "holds")
        for wire in layout.forward:
            self.forward(wire)
        for wire in layout.back:
            self.ends(wire, wire.path)
            height, (begin, end) = wire.track
            self.label(wire, (begin + end) / 2, height)
        for store in layout.stores:
            self.store(store)
        for box in layout.boxes.values():
            self.box(box)

    def box(self, box: Box) -> None:
        bank = box.lanes > 1
        for behind in (DEPTH, DEPTH / 2, 0.0) if bank else (0.0,):
            self.paper.box(box.left + behind, box.bottom + behind, box.width, box.height, bank)
        first = box.y + 0.0675 * len(box.lines)
        self.paper.text(box.x, first, box.name, "name")
        for i, line in enumerate(box.lines):
            self.paper.text(box.x, first - 0.145 - 0.13 * i, line, "muted")

    def store(self, store: Store) -> None:
        self.paper.ellipse(store.x, store.y, store.width, 0.42)
        self.paper.text(store.x, store.y + 0.07, store.name, "name")
        self.paper.text(store.x, store.y - 0.07, store.detail, "muted")

    def label(self, wire: Wire, x: float, y: float) -> None:
        """Name above the line, what each queue holds under it."""
        self.paper.text(x, y + 0.035, wire.name, va="bottom")
        self.paper.text(x, y - 0.035, wire.detail, "muted", va="top")

    def forward(self, wire: Wire) -> None:
        source, target = wire.stops[0], wire.stops[-1]
        turn = source.label_x + wire.straight
        points = [(source.right, wire.leave), (turn, wire.leave)]
        for stop in wire.stops[1:-1]:
            points += [(stop.left, stop.y), (stop.right, stop.y)]
        self.ends(wire, [*points, (target.left, wire.enter)])
        self.label(wire, turn - wire.label_width / 2, wire.leave)

    def ends(self, wire: Wire, points: list[Point]) -> None:
        """A line with the ends its pattern asks for: a fan, an arrow, a stroke."""
        pattern, line = wire.pattern, self.paper.line
        if pattern == "gather":
            begin = points[0]
            points = [_toward(begin, points[1], FAN), *points[1:]]
            for across in (-0.1, 0.0, 0.1):
                line([_beside(begin, points[0], across), points[0]], pattern, width=1.0)
        if pattern == "broadcast":
            goal = points[-1]
            fork = _toward(goal, points[-2], FAN)
            line([*points[:-1], fork], pattern)
            for across in (-0.1, 0.0, 0.1):
                line([fork, _beside(goal, fork, across)], pattern, arrow=True, width=1.0)
            return
        line(points, pattern, arrow=True)
        if pattern == "lane" and wire.lanes > 1:
            x, y = _toward(points[-1], points[-2], 0.17)
            line([(x - 0.03, y - 0.06), (x + 0.03, y + 0.06)], pattern, width=0.9)


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


def _is_straight(a: Point, b: Point) -> bool:
    return a[0] == b[0] or a[1] == b[1] or b[0] - a[0] <= FAN


# ------------------------------------------------------------------ a figure


class _Figure:
    """Axes of matplotlib whose unit is an inch, at a scale."""

    def __init__(self, ax: Axes, scale: float) -> None:
        self.ax, self.scale = ax, scale

    def text(self, x: float, y: float, text: str, kind: str = "", va: str = "center") -> None:
        self.ax.text(
            *(x, y, text),
            fontsize=(NAME if kind == "name" else SMALL) * self.scale,
            weight="bold" if kind == "name" else "normal",
            color=MUTED if kind == "muted" else INK,
            ha="center",
            va=va,
            zorder=6,
        )

    def box(self, x: float, y: float, width: float, height: float, bank: bool) -> None:
        from matplotlib.patches import FancyBboxPatch

        self.ax.add_patch(
            FancyBboxPatch(
                *((x, y), width, height),
                boxstyle="round,pad=0,rounding_size=0.05",
                facecolor=lighter(BLUE, 0.88) if bank else "white",
                edgecolor=INK,
                linewidth=0.8 * self.scale,
                zorder=4,
            )
        )

    def ellipse(self, x: float, y: float, width: float, height: float) -> None:
        from matplotlib.patches import Ellipse

        self.ax.add_patch(
            Ellipse(
                *((x, y), width, height),
                facecolor=lighter(GREY, 0.5),
                edgecolor=MUTED,
                linewidth=0.8 * self.scale,
                zorder=4,
            )
        )

    def line(
        self, points: Sequence[Point], kind: str, arrow: bool = False, width: float | None = None
    ) -> None:
        from matplotlib.patches import FancyArrowPatch
        from matplotlib.path import Path

        colour, usual, dashes, _ = STYLES[kind]
        codes, places = [Path.MOVETO], [points[0]]
        for a, b in pairwise(points):
            if _is_straight(a, b):
                codes.append(Path.LINETO)
                places.append(b)
            else:
                middle = (a[0] + b[0]) / 2
                codes += [Path.CURVE4] * 3
                places += [(middle, a[1]), (middle, b[1]), b]
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
                zorder=1 if kind == "holds" else 3,
            )
        )

    def legend(self, kinds: Iterable[str]) -> None:
        from matplotlib.lines import Line2D

        shown = set(kinds)
        handles = [
            Line2D([], [], color=colour, linewidth=width, linestyle=dashes, label=label)
            for kind, (colour, width, dashes, label) in STYLES.items()
            if kind in shown
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


# ------------------------------------------------------------------ a page


class _Markup:
    """Markup in pixels from the upper left; colours and sizes are classes of the page's style."""

    def __init__(self, left: float, high: float) -> None:
        self.left, self.high = left, high
        self.parts: list[str] = []

    def place(self, x: float, y: float) -> Point:
        return round((x - self.left) * PIXELS), round((self.high - y) * PIXELS)

    def text(self, x: float, y: float, text: str, kind: str = "", va: str = "center") -> None:
        across, down = self.place(x, y)
        down += {"center": 4, "bottom": 0, "top": 8}[va]
        told = f' class="{kind}"' if kind else ""
        self.parts.append(
            f'<text x="{across}" y="{down}"{told}>{html.escape(printable(text))}</text>'
        )

    def box(self, x: float, y: float, width: float, height: float, bank: bool) -> None:
        (left, top), told = self.place(x, y + height), ' class="bank"' if bank else ""
        wide, high = round(width * PIXELS), round(height * PIXELS)
        self.parts.append(
            f'<rect x="{left}" y="{top}" width="{wide}" height="{high}" rx="5"{told}/>'
        )

    def ellipse(self, x: float, y: float, width: float, height: float) -> None:
        (cx, cy), rx, ry = self.place(x, y), round(width * PIXELS / 2), round(height * PIXELS / 2)
        self.parts.append(f'<ellipse cx="{cx}" cy="{cy}" rx="{rx}" ry="{ry}"/>')

    def line(
        self, points: Sequence[Point], kind: str, arrow: bool = False, width: float | None = None
    ) -> None:
        at = [self.place(*point) for point in points]
        path = "M{} {}".format(*at[0])
        for (a, b), ((x0, y0), (x1, y1)) in zip(pairwise(points), pairwise(at), strict=True):
            if _is_straight(a, b):
                path += f"L{x1} {y1}"
            else:
                middle = round((x0 + x1) / 2)
                path += f"C{middle} {y0} {middle} {y1} {x1} {y1}"
        thin = " thin" if width is not None else ""
        self.parts.append(f'<path class="{kind}{thin}" d="{path}"/>')
        if arrow:
            level = (at[-2][0], at[-1][1])  # a smooth step comes in along the x axis
            before = at[-2] if _is_straight(*points[-2:]) else level
            self.parts.append(f'<path class="{kind} tip" d="{_tip(before, at[-1])}"/>')


def _tip(before: Point, end: Point) -> str:
    """An arrowhead at the end of a line that comes from a point."""
    way = np.subtract(end, before)
    way = way / max(float(np.hypot(*way)), 1e-9)
    across, tip = np.array([-way[1], way[0]]), np.array(end)
    left, right = tip - 6 * way + 3 * across, tip - 6 * way - 3 * across
    return "M{:.0f} {:.0f}L{:.0f} {:.0f}L{:.0f} {:.0f}z".format(*tip, *left, *right)
