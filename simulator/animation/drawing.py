"""The block diagram of a netlist as SVG, and a frame of a run drawn into it.

The layout is that of :mod:`sparqsim.simulator.topology`, with room in each box for one cell per
lane. What a frame changes has an id, so that a page can change it too: cells ``l<actor>-<lane>``,
levels ``f<channel>`` and their words ``t<channel>``, moving tokens ``d<channel>-<dot>``.
"""

from __future__ import annotations

import html
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from sparqsim.base import printable
from sparqsim.simulator.animation.film import DOTS, STATE_NAMES, Frame, Queue
from sparqsim.simulator.netlist import Channel, Netlist
from sparqsim.simulator.palette import BLUE, GREY, MUTED, ORANGE, PURPLE, VERMILION
from sparqsim.simulator.topology import (
    Box,
    Layout,
    Point,
    Wire,
    arrange,
    extent,
    text_width,
    topology_of,
)

SCALE = 96.0  # pixels an inch
CELL, COLUMNS = 0.105, 16  # inches; cells in a row
BAR = 0.07  # height of a level
PART = 26  # characters of an actor's part that are shown
COLOURS = (BLUE, ORANGE, VERMILION, PURPLE, GREY)  # of the states in their order
STYLE = """
.bg{fill:var(--paper,#fff)} .box{fill:var(--paper,#fff);stroke:var(--ink,#222);stroke-width:1}
.wire{fill:none;stroke:var(--muted,#6b6b6b);stroke-width:1.4}
text{font-family:system-ui,sans-serif;fill:var(--ink,#222);text-anchor:middle}
.name{font-weight:700;font-size:12px}.small{font-size:9.4px}.muted{fill:var(--muted,#595959)}
.left{text-anchor:start}.title{font-size:15px;font-weight:700}.words{font-size:12px}
.rim{fill:none;stroke:var(--muted,#6b6b6b);stroke-width:.8}.level{fill:#0072b2}.full{fill:#d55e00}
.dot{fill:#0072b2;stroke:var(--paper,#fff);stroke-width:1;transition:cx .25s,cy .25s}
.hid{visibility:hidden}
""" + "".join(f".s{i}{{fill:var(--s{i},{each})}}" for i, each in enumerate(COLOURS))  # fmt: skip


@dataclass(frozen=True)
class _Place:
    """Where a channel's line runs, where its level begins, and how wide that is."""

    line: list[Point]
    level: Point
    width: float


class Diagram:
    """The block diagram of a netlist, into which frames are drawn."""

    def __init__(self, netlist: Netlist) -> None:
        self.netlist = netlist
        least = {}
        for actor in netlist.actors:
            rows = -(-actor.lanes // COLUMNS)
            part = text_width(printable(actor.part, PART), 8) + 0.2
            width = max(min(actor.lanes, COLUMNS) * CELL + 0.16, part)
            least[actor.name] = (width, 0.42 + 0.14 * (actor.part != actor.name) + rows * CELL)
        self.layout: Layout = arrange(topology_of(netlist), least)
        left, right, low, high = extent(self.layout)
        self.origin = (left, high)
        self.width, self.height = (right - left) * SCALE, (high - low + 0.1) * SCALE
        wires = {wire.name: wire for wire in (*self.layout.forward, *self.layout.back)}
        self.places = [self._placed(wires[channel.name]) for channel in netlist.channels]

    def point(self, x: float, y: float) -> Point:
        """Inches of the layout as pixels of the drawing."""
        return (x - self.origin[0]) * SCALE, (self.origin[1] - y) * SCALE

    def _placed(self, wire: Wire) -> _Place:
        width = max(wire.label_width - 0.2, 0.5)
        if wire.path:
            line = wire.path
            height, (begin, end) = wire.track
            left, y = (begin + end) / 2 - width / 2, height
        else:
            source, target = wire.stops[0], wire.stops[-1]
            turn = source.label_x + wire.straight
            line = [(source.right, wire.leave), (turn, wire.leave)]
            for stop in wire.stops[1:-1]:
                line += [(stop.left, stop.y), (stop.right, stop.y)]
            line.append((target.left, wire.enter))
            left, y = source.label_x + 0.06, wire.leave
        points = [self.point(*each) for each in _rounded(line)]
        return _Place(points, self.point(left, y - 0.04), width * SCALE)

    def dots(self, channel: int, queue: Queue) -> dict[int, Point]:
        """Where the moving tokens of a channel are."""
        line = np.array(self.places[channel].line)
        steps = np.concatenate([[0], np.cumsum(np.hypot(*np.diff(line, axis=0).T))])
        found = {}
        for dot, share in queue.moving:
            at = share * steps[-1]
            x, y = (float(np.interp(at, steps, line[:, axis])) for axis in (0, 1))
            found[dot] = (round(x, 1), round(y, 1))
        return found

    def svg(self, frame: Frame, title: str, words: bool) -> str:
        """A frame as an SVG; ``words`` adds a title and what every actor does, for a slide."""
        names = [shown(actor.name) for actor in self.netlist.actors]
        lines = [f"{name}: {shown(text)}" for name, text in zip(names, frame.words, strict=True)]
        above = 34.0 if words else 0.0
        below = 26.0 + (18 * len(lines) + 8 if words else 0)
        width = max(self.width, 7.0 * max(map(len, lines)) + 20 if words else 0, 560)
        height = self.height + above + below
        label = f"{shown(title)}, cycle {frame.cycle}"
        parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" id="diagram" role="img" aria-label="{label}" '
            f'viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" height="{height:.0f}">',
            f"<style>{STYLE}</style>",
            f'<rect class="bg" width="{width:.0f}" height="{height:.0f}"/>' if words else "",
        ]
        if words:
            parts.append(f'<text class="title left" x="12" y="22">{label}</text>')
        parts.append(f'<g transform="translate(0 {above:.0f})">')
        parts += [self._resource(i) for i in range(len(self.layout.stores))]
        parts += [self._channel(i, frame.queues[i]) for i in range(len(self.netlist.channels))]
        parts += [self._actor(i, states) for i, states in enumerate(frame.states)]
        parts.append(self._legend())
        parts.append("</g>")
        if words:
            first = self.height + above + 44
            parts += [
                f'<text class="words left" x="12" y="{first + 18 * i:.0f}">{line}</text>'
                for i, line in enumerate(lines)
            ]
        return "\n".join([*filter(None, parts), "</svg>"])

    def _actor(self, i: int, states: tuple[int, ...]) -> str:
        actor = self.netlist.actors[i]
        box: Box = self.layout.boxes[actor.name]
        x, y = self.point(box.left, box.top)
        middle, wide, high = self.point(box.x, 0)[0], box.width * SCALE, box.height * SCALE
        parts = [
            f'<rect class="box" x="{x:.1f}" y="{y:.1f}" width="{wide:.1f}" height="{high:.1f}" '
            'rx="5"/>',
            f'<text class="name" x="{middle:.1f}" y="{y + 16:.1f}">{shown(actor.name)}</text>',
        ]
        top = y + 24
        if actor.part != actor.name:
            part = shown(printable(actor.part, PART))
            parts.append(
                f'<text class="small muted" x="{middle:.1f}" y="{y + 29:.1f}">{part}</text>'
            )
            top += 13
        columns = min(actor.lanes, COLUMNS)
        cell = CELL * SCALE if actor.lanes > 1 else wide - 16
        tall = CELL * SCALE
        left = middle - columns * cell / 2
        for lane, state in enumerate(states):
            row, column = divmod(lane, COLUMNS)
            parts.append(
                f'<rect id="l{i}-{lane}" class="s{state}" x="{left + column * cell:.1f}" '
                f'y="{top + row * tall:.1f}" width="{cell - 1.2:.1f}" height="{tall - 1.2:.1f}"/>'
            )
        return "".join(parts)

    def _channel(self, i: int, queue: Queue) -> str:
        channel, place = self.netlist.channels[i], self.places[i]
        path = "M" + " L".join(f"{x:.1f} {y:.1f}" for x, y in place.line)
        x, y = place.level
        fill, name = level(channel, queue), "full" if is_full(channel, queue) else "level"
        parts = [
            f'<path class="wire" d="{path}"/>',
            _arrow(place.line),
            f'<text class="small left" x="{x:.1f}" y="{y - 9:.1f}">{shown(channel.name)} '
            f'<tspan id="t{i}" class="muted">{level_words(channel, queue)}</tspan></text>',
            f'<rect class="bg" x="{x:.1f}" y="{y:.1f}" width="{place.width:.1f}" '
            f'height="{BAR * SCALE:.1f}"/>',
            f'<rect id="f{i}" class="{name}" x="{x:.1f}" y="{y:.1f}" '
            f'width="{fill * place.width:.1f}" height="{BAR * SCALE:.1f}"/>',
            f'<rect class="rim" x="{x:.1f}" y="{y:.1f}" width="{place.width:.1f}" '
            f'height="{BAR * SCALE:.1f}"/>',
        ]
        dots = self.dots(i, queue)
        start = place.line[0]
        for dot in range(DOTS):
            cx, cy = dots.get(dot, start)
            hidden = "" if dot in dots else " hid"
            parts.append(
                f'<circle id="d{i}-{dot}" class="dot{hidden}" cx="{cx:.1f}" cy="{cy:.1f}" r="5"/>'
            )
        return "".join(parts)

    def _resource(self, i: int) -> str:
        store = self.layout.stores[i]
        x, y = self.point(store.x, store.y)
        lines = [
            '<path class="wire" stroke-dasharray="2 3" d="M'
            + " L".join("{:.1f} {:.1f}".format(*self.point(*each)) for each in path)
            + '"/>'
            for path in store.paths
        ]
        return "".join(lines) + (
            f'<ellipse class="box" cx="{x:.1f}" cy="{y:.1f}" rx="{store.width * SCALE / 2:.1f}" '
            f'ry="20"/><text class="name" x="{x:.1f}" y="{y:.1f}">{shown(store.name)}</text>'
            f'<text class="small muted" x="{x:.1f}" y="{y + 13:.1f}">{shown(store.detail)}</text>'
        )

    def _legend(self) -> str:
        parts, x = [], 12.0
        for state, name in enumerate(STATE_NAMES):
            parts.append(
                f'<rect class="s{state}" x="{x:.0f}" y="{self.height + 6:.0f}" width="11" '
                f'height="11"/><text class="small left" x="{x + 16:.0f}" '
                f'y="{self.height + 15:.0f}">{name}</text>'
            )
            x += 28 + 6.2 * len(name)
        return "".join(parts)


def level(channel: Channel, queue: Queue) -> float:
    """How full the fullest queue of a channel is, 0 to 1."""
    return min(queue.fullest / channel.capacity, 1.0)


def is_full(channel: Channel, queue: Queue) -> bool:
    """Whether a queue of the channel is full."""
    return queue.fullest >= channel.capacity


def level_words(channel: Channel, queue: Queue) -> str:
    """Tokens over capacity; of several queues those of the fullest, then those of all."""
    text = f"{queue.fullest}/{channel.capacity}"
    return f"{text} ({queue.tokens})" if queue.tokens > queue.fullest else text


def _arrow(line: list[Point]) -> str:
    (x0, y0), (x1, y1) = line[-2:]
    way = np.array([x1 - x0, y1 - y0])
    way = way / max(float(np.hypot(*way)), 1e-9)
    across = np.array([-way[1], way[0]])
    tip = np.array([x1, y1])
    points = (tip, tip - 8 * way + 4 * across, tip - 8 * way - 4 * across)
    text = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polygon points="{text}" fill="{MUTED}"/>'


def _rounded(line: list[Point]) -> list[Point]:
    """Points of a line whose slanted stretches are smooth steps."""
    found = [line[0]]
    for (x0, y0), (x1, y1) in pairwise(line):
        if x0 != x1 and y0 != y1:
            for share in np.linspace(0, 1, 9)[1:-1].tolist():
                smooth = share * share * (3 - 2 * share)
                found.append((x0 + share * (x1 - x0), y0 + smooth * (y1 - y0)))
        found.append((x1, y1))
    return found


def shown(text: str) -> str:
    """Text as it stands in markup, whatever is in it."""
    return html.escape(printable(text))
