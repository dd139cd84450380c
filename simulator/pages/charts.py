"""Charts as markup: bars of boxes, plots of SVG that stretch while their words keep their size.

Colours are classes of the page's style, so that a chart is light or dark as its page is. The marks
of a plot lie in a square of 1000 x 1000 that stretches to the space there is; lines and dots keep
their width, ticks and titles stand around it as text. Every chart has its words for who cannot see
it; numbers that matter stand in a table beside it.
"""

from __future__ import annotations

import base64
import math
import struct
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparqsim.simulator.pages.html import Html, h

SIDE = 1000  # of the square that marks are drawn in
HUES = 8  # classes c0 to c7
PREFIXES = (
    *(("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3), ("", 1.0)),
    *(("m", 1e-3), ("µ", 1e-6), ("n", 1e-9), ("p", 1e-12), ("f", 1e-15), ("a", 1e-18)),
)


def with_unit(value: float, unit: str) -> str:
    """A number with an SI prefix and three digits, for example ``8.17 µs``."""
    if value == 0:
        return f"0 {unit}".strip()
    prefix, size = next((p for p in PREFIXES if abs(value) >= p[1] * 0.9995), PREFIXES[-1])
    return f"{value / size:.3g} {prefix}{unit}".strip()


def percent(share: float) -> str:
    """A share with a digit behind the point."""
    return f"{100 * share:.1f} %"


# ------------------------------------------------------------------ bars


def bar(shares: Iterable[tuple[str, float]], alt: str | None = None, tall: bool = False) -> Html:
    """A bar cut into (class, share); words for it unless the numbers stand beside it."""
    pieces = [
        h("span", _in_bar(share) if tall and share >= 0.06 else "", class_=kind,
          style=f"width:{100 * share:.2f}%")
        for kind, share in shares
        if share > 0
    ]  # fmt: skip
    told = {"role": "img", "aria_label": alt} if alt else {"aria_hidden": "true"}
    return h("div", *pieces, class_="bar tall" if tall else "bar", **told)


def _in_bar(share: float) -> str:
    """A share in few characters, of which almost all is not all."""
    return percent(share) if 0.995 <= share < 1 else f"{100 * share:.0f} %"


def legend(entries: Iterable[tuple[str, str]]) -> Html:
    """A list of (class, words)."""
    return h("ul", *(h("li", key(kind), words) for kind, words in entries), class_="legend")


def key(kind: str) -> Html:
    """A small square in the colour of a class."""
    return h("span", class_=f"key {kind}", aria_hidden="true")


@dataclass(frozen=True)
class RatioScale:
    """Where ratios stand along a bar; equal factors are equal lengths where they spread widely."""

    low: float
    high: float
    log: bool

    @classmethod
    def of(cls, ratios: Iterable[float]) -> RatioScale:
        """A scale that holds 1 and all ratios."""
        known = [ratio for ratio in ratios if ratio > 0] or [1.0]
        least, most = min(*known, 1.0), max(*known, 1.0)
        log = most / least > 8
        return cls(least if log else 0.0, most, log)

    def place(self, ratio: float) -> float:
        """In percent of the length."""
        if self.log:
            return 100 * math.log(ratio / self.low) / math.log(self.high / self.low)
        return 100 * ratio / self.high

    def bars(self, ratios: Sequence[float | None]) -> Html:
        """A thin bar a ratio, one colour each; a line stands at 1."""
        one = self.place(1.0)
        pieces = []
        for number, ratio in enumerate(ratios):
            if ratio is None or ratio <= 0:
                pieces.append(h("i"))
                continue
            end = self.place(ratio)
            left, right = (min(one, end), max(one, end)) if self.log else (0.0, end)
            style = f"margin-left:{left:.1f}%;width:{right - left:.1f}%"
            pieces.append(h("i", class_=f"c{number % HUES}", style=style))
        return h("div", *pieces, class_="ratios", style=f"--one:{one:.1f}%", aria_hidden="true")


# ------------------------------------------------------------------ plots


@dataclass(frozen=True)
class Axis:
    """A range of values along a side, with its title; values may stand by equal ratios."""

    low: float
    high: float
    title: str = ""
    log: bool = False
    unit: str = ""

    def share(self, value: float) -> float:
        """Where a value stands, 0 to 1."""
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def shares(self, values: Any) -> NDArray[np.float64]:
        """Likewise of an array."""
        given = np.asarray(values, np.float64)
        if self.log:
            return np.log(given / self.low) / np.log(self.high / self.low)
        return (given - self.low) / (self.high - self.low)

    def ticks(self, most: int) -> list[float]:
        """Round values within the range, at most so many (about)."""
        if self.log:
            first, last = math.ceil(math.log10(self.low) - 1e-9), math.log10(self.high) + 1e-9
            powers = list(range(first, math.floor(last) + 1))
            step = max(1, -(-len(powers) // most))
            if len(powers) >= 2:
                return [10.0**power for power in powers[::step]]
            within = [
                factor * 10.0**power
                for power in range(first - 1, first + 2)
                for factor in (1, 2, 5)
                if self.low <= factor * 10.0**power <= self.high
            ]
            return within if len(within) >= 2 else [self.low, self.high]
        raw = (self.high - self.low) / most
        power = 10.0 ** math.floor(math.log10(raw))
        step_size = next(power * f for f in (1, 2, 5, 10) if power * f >= raw * 0.999)
        first = math.ceil(self.low / step_size - 1e-9)
        last_tick = math.floor(self.high / step_size + 1e-9)
        return [step_size * number for number in range(first, last_tick + 1)]

    @classmethod
    def around(cls, values: Iterable[float], title: str, unit: str = "") -> Axis:
        """An axis by equal ratios with room around positive values."""
        known = [value for value in values if value > 0 and math.isfinite(value)] or [1.0]
        return cls(min(known) / 1.6, max(known) * 1.6, title, True, unit)


@dataclass(frozen=True)
class Plot:
    """Marks within two axes.

    Attributes
    ----------
    x, y
        The axes.
    alt
        What is to be seen, in words.
    marks
        Made by :meth:`line`, :meth:`area`, :meth:`steps` and :meth:`dot`.
    height
        In pixels.
    ticks
        Of the y axis, about; 0: none.
    """

    x: Axis
    y: Axis
    alt: str
    marks: list[Html] = field(default_factory=list)
    height: int = 200
    ticks: int = 5

    def places(self, xs: Any, ys: Any) -> str:
        """Points as SVG has them: "x,y x,y"; a little outside at most."""
        across = SIDE * np.clip(self.x.shares(xs), -0.1, 1.1)
        down = SIDE * (1 - np.clip(self.y.shares(ys), -0.1, 1.1))
        return " ".join(f"{a:.4g},{b:.4g}" for a, b in zip(across, down, strict=True))

    def line(self, xs: Any, ys: Any, kind: str) -> None:
        """A line through points."""
        self.marks.append(h("polyline", points=Html(self.places(xs, ys)), class_=kind))

    def area(self, edges: Any, low: Any, high: Any, kind: str) -> None:
        """What lies between two staircases over the intervals between edges."""
        xs, top = _stairs(edges, high)
        _, foot = _stairs(edges, np.broadcast_to(low, np.shape(high)))
        points = self.places(np.concatenate([xs, xs[::-1]]), np.concatenate([top, foot[::-1]]))
        self.marks.append(h("polygon", points=Html(points), class_=kind))

    def steps(self, edges: Any, values: Any, kind: str) -> None:
        """A staircase over the intervals between edges."""
        self.line(*_stairs(edges, values), kind)

    def column(self, place: int, foot: float, top: float, kind: str, words: str = "") -> None:
        """A column at a whole number of the x axis; higher than nothing even where it is small."""
        left, right = (SIDE * self.x.share(place + side) for side in (0.08, 0.92))
        low, high = (SIDE * (1 - self.y.share(value)) for value in (foot, top))
        path = f"M{left:.4g} {low:.4g}V{high:.4g}H{right:.4g}V{low:.4g}Z"
        title = h("title", words) if words else None
        self.marks.append(h("path", title, d=Html(path), class_=kind))

    def dot(self, x: float, y: float, kind: str, words: str = "") -> None:
        """A dot, with words for who points at it."""
        place = self.places([x], [y]).replace(",", " ")
        title = h("title", words) if words else None
        self.marks.append(h("path", title, d=Html(f"M{place}h.01"), class_=kind))

    def dots(self, xs: Any, ys: Any, kind: str) -> None:
        """Many dots without words: one mark."""
        places = self.places(xs, ys).replace(",", " ").split(" ")
        pairs = dict.fromkeys(zip(places[::2], places[1::2], strict=True))  # each place once
        path = "".join(f"M{a} {b}h.01" for a, b in pairs)
        self.marks.append(h("path", d=Html(path), class_=kind))

    def html(self, behind: Html | None = None) -> Html:
        """The plot, before a picture that fills it."""
        svg = h(
            "svg", *(self._grid() if behind is None else ()), *self.marks,
            viewBox=f"0 0 {SIDE} {SIDE}", preserveAspectRatio="none", role="img",
            aria_label=self.alt,
        )  # fmt: skip
        shown = svg if behind is None else behind
        kinds = ["plot"]
        if self.x.title:
            kinds.append("titled")
        if self.y.title:
            kinds.append("named")
        return h(
            "div", shown, *self._words(), class_=" ".join(kinds), style=f"height:{self.height}px"
        )

    def _grid(self) -> list[Html]:
        lines = []
        for tick in self.y.ticks(self.ticks) if self.ticks else ():
            at = f"{SIDE * (1 - self.y.share(tick)):.4g}"
            lines.append(h("path", d=Html(f"M0 {at}H{SIDE}"), class_="grid"))
        lines.append(h("path", d=Html(f"M0 0V{SIDE}H{SIDE}"), class_="frame"))
        return lines

    def _words(self) -> list[Html]:
        words: list[Html] = []
        for tick in self.x.ticks(4):
            share = self.x.share(tick)
            kind = "x first" if share < 0.03 else "x last" if share > 0.97 else "x"
            place = f"left:{100 * share:.2f}%"
            words.append(h("span", _tick(tick, self.x.unit), class_=kind, style=place))
        for tick in self.y.ticks(self.ticks) if self.ticks else ():
            place = f"bottom:{100 * self.y.share(tick):.2f}%"
            words.append(h("span", _tick(tick, self.y.unit), class_="y", style=place))
        if self.x.title:
            words.append(h("span", self.x.title, class_="xt"))
        if self.y.title:
            words.append(h("span", self.y.title, class_="yt"))
        return [h("div", *words, aria_hidden="true")]


def _tick(value: float, unit: str) -> str:
    return f"{value:.3g}" if not unit and abs(value) < 1000 else with_unit(value, unit)


def _stairs(edges: Any, values: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    edges = np.asarray(edges, np.float64)
    return np.repeat(edges, 2)[1:-1], np.repeat(np.asarray(values, np.float64), 2)


def spark(edges: Any, shares: Any, alt: str) -> Html:
    """A small staircase of shares, 0 to 1, for a cell of a table."""
    plot = Plot(Axis(edges[0], edges[-1]), Axis(0, 1), "")
    plot.area(edges, 0, shares, "area busy")
    return h(
        "svg", *plot.marks, viewBox=f"0 0 {SIDE} {SIDE}", preserveAspectRatio="none",
        class_="spark", role="img", aria_label=alt,
    )  # fmt: skip


def spark_of_bytes(values: bytes) -> Html:
    """A staircase for a cell whose numbers stand beside it, 255 being its height."""
    steps, before = [], 0
    for value, alike in groupby(values):
        steps.append(f"v{before - value}h{len(list(alike))}")
        before = value
    path = h("path", d=Html(f"M0 255{''.join(steps)}V255z"), class_="area busy")
    return h(
        "svg", path, viewBox=f"0 0 {len(values)} 255", preserveAspectRatio="none", class_="spark",
        aria_hidden="true",
    )  # fmt: skip


def figure(*body: Any, caption: str) -> Html:
    """A figure with its caption."""
    return h("figure", *body, h("figcaption", caption))


def heat_map(
    shares: NDArray[np.float64], x: Axis, rows: Axis, alt: str, height: int, ticks: int = 5
) -> Html:
    """A picture of shares ``[rows, columns]``, 0 to 1, the first row at the foot: 1 is full blue.

    Its ground is clear, so that it is light or dark as the page is. ``ticks`` are those of the
    rows, about.
    """
    source = f"data:image/png;base64,{base64.b64encode(_png(shares[::-1])).decode()}"
    picture = h("img", src=Html(source), alt=alt)
    return Plot(x, rows, alt, height=height, ticks=ticks).html(picture)


def _png(shares: NDArray[np.float64]) -> bytes:
    """An image of one colour, of which the shares are the opacity."""
    opacity = np.clip(np.rint(255 * np.nan_to_num(shares)), 0, 255).astype(np.uint8)
    height, width = opacity.shape
    lines = np.concatenate([np.zeros((height, 1), np.uint8), opacity], axis=1)

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)

    head = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)  # a palette of 256
    most = int(opacity.max(initial=0)) + 1
    colours, clear = bytes((0x1F, 0x7F, 0xBF)) * most, bytes(range(most))
    packed = zlib.compress(lines.tobytes(), 9)
    parts = (
        chunk(b"IHDR", head), chunk(b"PLTE", colours), chunk(b"tRNS", clear),
        chunk(b"IDAT", packed), chunk(b"IEND", b""),
    )  # fmt: skip
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


# ------------------------------------------------------------------ the roofline


@dataclass(frozen=True)
class RoofPoint:
    """A layer under its roof: multiply-accumulates a byte of DRAM, and a second."""

    name: str
    macs_per_byte: float
    macs_per_s: float
    kind: str = "c0"


def roofline(points: Sequence[RoofPoint], roofs: Sequence[tuple[float, float | None, str]]) -> Html:
    """Points under roofs of (MACs a second, bytes a second, class).

    A roof rises with what its DRAM gives and ends where all multipliers work in every cycle.
    """
    knees = [peak / rate for peak, rate, _ in roofs if rate]
    x = Axis.around([*(p.macs_per_byte for p in points), *knees], "MACs a byte of DRAM")
    y = Axis.around(
        [*(p.macs_per_s for p in points), *(peak for peak, _, _ in roofs)], "MACs a second"
    )
    names = ", ".join(dict.fromkeys(p.name for p in points[:12]))
    plot = Plot(x, y, f"Roofline of {len(points)} points: {names}", height=340)
    for peak, rate, kind in roofs:
        if rate:
            knee = peak / rate
            low = max(x.low, y.low / rate)
            plot.line([low, knee, x.high], [low * rate, peak, peak], kind)
        else:
            plot.line([x.low, x.high], [peak, peak], kind)
    for p in points:
        words = f"{p.name}: {with_unit(p.macs_per_s, 'MAC/s')}, {p.macs_per_byte:.3g} MACs a byte"
        plot.dot(p.macs_per_byte, p.macs_per_s, f"dot {p.kind}", words)
    return plot.html()


def share_list(shares: Iterable[tuple[str, str]]) -> Html:
    """Words in a list of several columns, each with the square of its class."""
    return h("ul", *(h("li", key(kind), words) for kind, words in shares), class_="words")
