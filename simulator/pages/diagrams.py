"""What a layer's run looked like, under its row: block diagram, load of the lanes, queues.

A block diagram is drawn once a page and shown by reference wherever a layer has the same.
"""

from __future__ import annotations

import msgspec

from sparqsim.simulator.diagram import STYLES, topology_markup
from sparqsim.simulator.pages.charts import Axis, heat_map, spark_of_bytes
from sparqsim.simulator.pages.html import Html, Number, Table, h, join
from sparqsim.simulator.pages.parts import captioned
from sparqsim.simulator.report import Report
from sparqsim.simulator.sketch import Sketch
from sparqsim.simulator.topology import Topology

SMALLEST = 0.75  # of its size to which a drawing shrinks before it scrolls


def block_diagram(topology: Topology) -> Html:
    """The drawing of a topology with its legend."""
    content, width, height, kinds = topology_markup(topology)
    group = h("g", Html(content), class_="block")
    return join([_drawing(topology, group, (width, height)), _legend(kinds)])


def _drawing(topology: Topology, content: Html, size: tuple[float, float]) -> Html:
    width, height = size
    actors = ", ".join(actor.name for actor in topology.actors)
    svg = h(
        "svg", content, viewBox=f"0 0 {width:.0f} {height:.0f}", width=f"{width:.0f}",
        style=f"min-width:{SMALLEST * width:.0f}px", role="img",
        aria_label=f"Block diagram of {topology.name}: actors {actors}",
    )  # fmt: skip
    return h("div", svg, class_="drawing", tabindex="0", role="region", aria_label="Block diagram")


def _legend(kinds: list[str]) -> Html:
    """What the lines mean, each with a piece of it."""
    entries = [
        h("li", h("svg", h("g", h("path", d="M0 6H26", class_=kind), class_="block"),
                  viewBox="0 0 26 12", width="26", height="12", aria_hidden="true"),
          STYLES[kind][3])
        for kind in kinds
    ]  # fmt: skip
    return h("ul", *entries, class_="legend lines")


class Sketches:
    """The sketches of a page of many layers."""

    def __init__(self) -> None:
        self.drawn: dict[Topology, tuple[str, Html, tuple[float, float]]] = {}

    def of(self, report: Report) -> list[Html]:
        """Load, queues and block diagram of a layer; nothing where it was not sketched."""
        sketch = report.sketch
        if sketch is None:
            return []
        figures = h("div", _load(sketch, report.cycles), _queues(sketch), class_="small")
        return [figures, h("h4", "Block diagram"), self.diagram(sketch.topology, report.machine)]

    def diagram(self, topology: Topology, machine: str) -> Html:
        """A block diagram by reference."""
        topology = msgspec.structs.replace(topology, name=machine)
        if topology not in self.drawn:
            content, width, height, _ = topology_markup(topology)
            self.drawn[topology] = f"d{len(self.drawn)}", Html(content), (width, height)
        name, _, size = self.drawn[topology]
        return _drawing(topology, h("use", href=f"#{name}"), size)

    def html(self) -> Html:
        """The drawings that are referred to; they are seen only there."""
        groups = [
            h("g", content, id=name, class_="block") for name, content, _ in self.drawn.values()
        ]
        return h("svg", *groups, class_="drawn-once", aria_hidden="true") if groups else Html("")


def _load(sketch: Sketch, cycles: int) -> Html:
    """A small heat map of the actor that does the work."""
    if not sketch.rows:
        return h("p", "Single firings of so large a layer were not kept.", class_="note")
    shares = sketch.shares()
    many = sketch.lanes > 1
    alt = f"Busy share of {sketch.lanes} lanes of {sketch.actor} over {cycles:,} cycles"
    y = Axis(0, sketch.lanes, f"lane of {sketch.actor}" if many else "")
    drawn = heat_map(
        shares, Axis(0, cycles, "cycle"), y, alt, height=max(4 * sketch.rows, 16),
        ticks=2 if many else 0,
    )  # fmt: skip
    rows = "" if sketch.rows == sketch.lanes else f", {sketch.lanes} lanes in {sketch.rows} rows"
    return captioned(drawn, f"full blue is busy, clear idle{rows}", f"Load of {sketch.actor}")


def _queues(sketch: Sketch) -> Html:
    rows = [
        [
            each.channel, Number(f"{each.queues:,}", each.queues),
            Number(f"{each.capacity:,}", each.capacity),
            Number(f"{each.mean_tokens:.3g}", each.mean_tokens),
            Number(f"{each.most_tokens:.3g}", each.most_tokens),
            spark_of_bytes(each.over_time),
        ]
        for each in sketch.queues
    ]  # fmt: skip
    columns = ("channel", "queues", "capacity", "mean", "most", "over time")
    caption = "Queues: tokens held by each, the mean of a channel's"
    return Table(caption, columns, rows, plain=True, kind="inner").html()
