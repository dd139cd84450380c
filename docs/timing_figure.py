"""Draw docs/figures/timing.svg: the phases of a cycle, and who gets a shared server.

    python docs/timing_figure.py

The lower panel is a run of the SimPy engine; the rule that decides each grant is worked out from
the requests that wait at that moment.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sparqsim import Actor, Channel, Netlist, Resource, simulate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

FIGURE = Path(__file__).resolve().parent / "figures" / "timing.svg"
HOLD = 2  # cycles of each grant
ARRIVES = 3  # the cycle in which the urgent request's token is visible
INK, MUTED, BUSY, WAIT = "#1b2a3a", "#5b6b7a", "#0072b2", "#cfd8e0"

PHASES = (
    (
        "1  What is visible in cycle t",
        "firings that end at t leave their lane;",
        "tokens of firings with start + latency = t are visible;",
        "slots popped in cycle t - 1 are free",
    ),
    (
        "2  Who may start",
        "(a) its previous firing has ended, (b) every input shows its tokens,",
        "(c) every output has free slots; without a resource it starts now,",
        "else its request queues from this cycle",
    ),
    (
        "3  Who is granted, when all else has happened",
        "(d) a free server takes the request of least rank, then the oldest,",
        "then of the actor declared earlier, then of the lower lane;",
        "it is held for at least 1 cycle",
    ),
    (
        "4  What a start does",
        "inputs are popped: their slots are free from t + 1;",
        "output slots are taken; results are visible at t + latency",
        "(at least 1; when the firing ends, by default)",
    ),
)


class Grant(NamedTuple):
    """A grant of the bus: whose, in which cycle, requested when, and the rule that decided."""

    actor: str
    lane: int
    requested: int
    start: int
    rule: str


def netlist() -> Netlist:
    """Three lanes that ask for one bus at once, and an urgent request that comes later."""
    return Netlist(
        actors=[
            Actor(name="a", lanes=2, firings=2, busy=HOLD, resource="bus", rank=1),
            Actor(name="b", firings=2, busy=HOLD, resource="bus", rank=1),
            Actor(name="source", firings=1, busy=ARRIVES),
            Actor(name="urgent", firings=1, busy=HOLD, resource="bus"),
        ],
        channels=[Channel(name="tokens", source="source", target="urgent", capacity=1)],
        resources=[Resource(name="bus")],
    )


def grants() -> list[Grant]:
    """The grants of the run, in their order, each with the rule that decided it."""
    run = simulate(netlist(), engine="simpy")
    order, ranks = ("a", "b", "urgent"), {"a": 1, "b": 1, "urgent": 0}
    requests = []  # (rank, requested, declared, lane, start)
    for declared, actor in enumerate(order):
        for lane, starts in enumerate(np.asarray(run.starts_of(actor)).T):
            ready = ARRIVES if actor == "urgent" else 0
            for start in starts:
                requests.append((ranks[actor], ready, declared, lane, int(start)))
                ready = int(start) + HOLD
    found = []
    for request in sorted(requests, key=lambda each: each[-1]):
        _, requested, declared, lane, start = request
        waiting = [each for each in requests if each[1] <= start <= each[4] and each != request]
        found.append(Grant(order[declared], lane, requested, start, _rule(request, waiting)))
        assert all(request[:4] < each[:4] for each in waiting), "not the rule"
    return found


def _rule(request: tuple[int, ...], waiting: list[tuple[int, ...]]) -> str:
    """The last of the rules that was needed to prefer a request to each of those that wait."""
    names = ("least rank", "oldest", "declared earlier", "lower lane")
    needed = [next(n for n in range(4) if request[n] != other[n]) for other in waiting]
    return names[max(needed)] if needed else "alone"


def _phases(axes: Axes) -> None:
    axes.set_axis_off()
    axes.set_xlim(0, 1)
    axes.set_ylim(0, len(PHASES))
    for number, (title, *lines) in enumerate(PHASES):
        top = len(PHASES) - number
        axes.add_patch(_box(top))
        axes.text(0.03, top - 0.14, title, color=INK, fontsize=10.5, weight="bold", va="top")
        text = "\n".join(lines)
        axes.text(0.03, top - 0.37, text, color=MUTED, fontsize=9, va="top", linespacing=1.35)
    axes.set_title("The phases of cycle t", loc="left", color=INK, fontsize=12, weight="bold")


def _box(top: int) -> Patch:
    from matplotlib.patches import FancyBboxPatch

    return FancyBboxPatch(
        (0.01, top - 0.93), 0.98, 0.86, boxstyle="round,pad=0,rounding_size=0.03",
        facecolor="#f4f6f8", edgecolor=WAIT, mutation_aspect=4,
    )  # fmt: skip


def _bus(axes: Axes, found: list[Grant]) -> None:
    rows = {("a", 0): 3, ("a", 1): 2, ("b", 0): 1, ("urgent", 0): 0}
    for grant in found:
        row = rows[grant.actor, grant.lane]
        axes.barh(row, grant.start - grant.requested, 0.36, grant.requested, color=WAIT)
        axes.barh(row, HOLD, 0.36, grant.start, color=BUSY)
        axes.text(grant.start, row + 0.23, grant.rule, fontsize=8.5, color=INK, va="bottom")
    labels = [f"{actor}[{lane}]" + (", rank 0" if actor == "urgent" else ", rank 1")
              for actor, lane in rows]  # fmt: skip
    axes.set_yticks(list(rows.values()), labels, color=INK)
    axes.set_xticks(range(0, 15, 2))
    axes.set_xlim(-0.1, 15)
    axes.set_ylim(-0.6, 3.75)
    axes.set_xlabel("cycle", color=INK)
    axes.axvline(ARRIVES, color=MUTED, linewidth=0.8, linestyle=":")
    axes.text(ARRIVES + 0.15, -0.5, "urgent's token is visible", fontsize=8.5, color=MUTED)
    axes.set_title(
        "One bus, 2 cycles a grant: who goes first (light: waits)",
        loc="left", color=INK, fontsize=12, weight="bold",
    )  # fmt: skip
    axes.spines[["top", "right"]].set_visible(False)


def draw() -> Figure:
    """Both panels."""
    import matplotlib
    from matplotlib.figure import Figure

    matplotlib.rcParams["svg.hashsalt"] = "sparqsim"
    figure = Figure(figsize=(7.5, 9.6), layout="constrained")
    above, below = figure.subplots(2, 1, height_ratios=[1.2, 1])
    _phases(above)
    _bus(below, grants())
    return figure


if __name__ == "__main__":
    draw().savefig(FIGURE, metadata={"Date": None})
