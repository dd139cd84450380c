"""When nothing can fire and firings are left over: who waits for what, and the ring of waiting.

A lane waits for a channel that lacks tokens, on the lanes that make them; or for free slots in a
channel, on the lanes that take its tokens. If the waits-for graph has a cycle, that ring is the
deadlock; if it has none, some lane waits for tokens of an actor that has finished.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sparqsim.simulator.timeline import Timeline

if TYPE_CHECKING:
    import networkx

SHOWN = 12  # waiting lanes named in the message; all are in Deadlock.waiting


@dataclass(frozen=True)
class Waiting:
    """One condition a lane's next firing lacks.

    ``needs`` and ``has`` count ``what``: "tokens" or "free slots"; ``on`` are the lanes of the
    other actor that could supply them.
    """

    actor: str
    lane: int
    firing: int
    what: str
    channel: str
    needs: int
    has: int
    on: tuple[tuple[str, int], ...]

    def __str__(self) -> str:
        return (
            f"{self.actor}[{self.lane}] firing {self.firing} waits for {self.what} in "
            f"{self.channel}: needs {self.needs}, has {self.has}"
        )


class Deadlock(RuntimeError):
    """Nothing can fire, but firings are left over.

    Attributes
    ----------
    cycle
        The cycle after which nothing happened.
    waiting
        Every condition that every unfinished lane lacks.
    ring
        Lanes ``(actor, lane)`` that wait for each other in a cycle; empty if there is none.
    timeline
        What had happened until then.
    """

    def __init__(self, timeline: Timeline, waiting: tuple[Waiting, ...]) -> None:
        self.timeline = timeline
        self.cycle = timeline.cycles
        self.waiting = waiting
        self.ring = _ring(waiting)
        lines = [f"deadlock in {timeline.netlist.name!r} after cycle {self.cycle}:"]
        lines += [f"  {item}" for item in waiting[:SHOWN]]
        if len(waiting) > SHOWN:
            lines.append(f"  ... and {len(waiting) - SHOWN} more")
        if self.ring:
            loop = " -> ".join(f"{actor}[{lane}]" for actor, lane in (*self.ring, self.ring[0]))
            lines.append(f"  waiting for each other: {loop}")
        else:
            lines.append("  no ring: the tokens are never made or never taken")
        super().__init__("\n".join(lines))

    def __reduce__(self) -> tuple[type, tuple[Timeline, tuple[Waiting, ...]]]:
        return Deadlock, (self.timeline, self.waiting)


def find(timeline: Timeline) -> Deadlock | None:
    """The deadlock a run ended in, or None if every firing was done."""
    netlist = timeline.netlist
    left = [
        (i, lane)
        for i, (actor, fired) in enumerate(zip(netlist.actors, timeline.fired, strict=True))
        if actor.behaviour is None
        for lane in np.flatnonzero(fired < actor.count).tolist()
    ]
    if not left:
        return None
    rates = [timeline.rates(c.name) for c in netlist.channels]
    made = [_moved(timeline, c.source, rates[i][0]) for i, c in enumerate(netlist.channels)]
    taken = [_moved(timeline, c.target, rates[i][1]) for i, c in enumerate(netlist.channels)]
    waiting: list[Waiting] = []
    for i, lane in left:
        actor = netlist.actors[i]
        firing = int(timeline.fired[i][lane])
        for x in netlist.inputs[i]:
            c, needs = netlist.channels[x], _rate(rates[x][1], firing, lane)
            lanes = c.source_lanes(lane, netlist.actor(c.source).lanes)
            has = {(c.source, j): int(made[x][j] - taken[x][lane]) for j in lanes}
            waiting += _lack(actor.name, lane, firing, "tokens", c.name, needs, has)
        for x in netlist.outputs[i]:
            c, needs = netlist.channels[x], _rate(rates[x][0], firing, lane)
            lanes = c.target_lanes(lane, netlist.actor(c.target).lanes)
            has = {(c.target, j): c.capacity - int(made[x][lane] - taken[x][j]) for j in lanes}
            waiting += _lack(actor.name, lane, firing, "free slots", c.name, needs, has)
    return Deadlock(timeline, tuple(waiting))


def _lack(
    actor: str,
    lane: int,
    firing: int,
    what: str,
    channel: str,
    needs: int,
    has: dict[tuple[str, int], int],
) -> list[Waiting]:
    """The condition as a list of one if some lane of the other end lacks it, else no item."""
    on = tuple(other for other, count in has.items() if count < needs)
    return [Waiting(actor, lane, firing, what, channel, needs, min(has.values()), on)] if on else []


def _rate(rates: NDArray[np.int64], firing: int, lane: int) -> int:
    return int(rates[firing % rates.shape[0], lane % rates.shape[1]])


def _moved(timeline: Timeline, end: str, rates: NDArray[np.int64]) -> NDArray[np.int64]:
    """Tokens made or taken so far by each lane of one end of a channel."""
    fired = timeline.fired[timeline.netlist.index(end)]
    if rates.shape[0] == 1:
        return fired * np.broadcast_to(rates[0], fired.shape)
    sums = np.vstack([np.zeros((1, rates.shape[1]), np.int64), np.cumsum(rates, axis=0)])
    columns = np.arange(fired.size) % rates.shape[1]
    return np.asarray(sums[fired, columns])


def _ring(waiting: tuple[Waiting, ...]) -> tuple[tuple[str, int], ...]:
    import networkx

    graph: networkx.DiGraph = networkx.DiGraph()
    for item in waiting:
        for other in item.on:
            graph.add_edge((item.actor, item.lane), other)
    try:
        return tuple(edge[0] for edge in networkx.find_cycle(graph))
    except networkx.NetworkXNoCycle:
        return ()
