"""Block diagrams on a page, each drawn once however many layers show it."""

from __future__ import annotations

from sparqsim.simulator.diagram import STYLES, topology_markup
from sparqsim.simulator.pages.html import Html, h, join
from sparqsim.simulator.topology import Topology


def block_diagram(topology: Topology, name: str | None = None) -> Html:
    """The drawing of a topology with its legend; by ``name`` another place can show it again."""
    content, width, height, kinds = topology_markup(topology)
    group = h("g", Html(content), id=name, class_="block")
    return join([_drawing(topology, group, width, height), _legend(kinds)])


def _drawing(topology: Topology, content: Html, width: float, height: float) -> Html:
    actors = ", ".join(actor.name for actor in topology.actors)
    svg = h(
        "svg", content, viewBox=f"0 0 {width:.0f} {height:.0f}", width=f"{width:.0f}",
        height=f"{height:.0f}", role="img",
        aria_label=f"Block diagram of {topology.name}: actors {actors}",
    )  # fmt: skip
    return h("div", svg, class_="drawing", tabindex="0")


def _legend(kinds: list[str]) -> Html:
    """What the lines mean, each with a piece of it."""
    entries = [
        h("li", h("svg", h("g", h("path", d="M0 6H26", class_=kind), class_="block"),
                  viewBox="0 0 26 12", width="26", height="12", aria_hidden="true"),
          STYLES[kind][3])
        for kind in kinds
    ]  # fmt: skip
    return h("ul", *entries, class_="legend lines")
