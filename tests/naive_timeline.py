"""What follows from a timeline's starts, in plain loops: an oracle that knows no engine.

A queue is one lane of a source to one lane of a target. For each are listed, token by token, the
firing that made it, the cycle it was made, the cycle it became visible, and of those taken the
firing and the cycle.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from sparqsim.simulator.netlist import Actor, Channel, Netlist, Pattern
from sparqsim.simulator.timeline import FREE, INPUT, OUTPUT, PREVIOUS, Timeline


@dataclass
class Queue:
    """One queue, token by token."""

    maker: list[int] = field(default_factory=list)
    made: list[int] = field(default_factory=list)
    visible: list[int] = field(default_factory=list)
    taker: list[int] = field(default_factory=list)
    taken: list[int] = field(default_factory=list)


def at(array: object, firing: int, lane: int) -> int:
    """An entry of an array ``[1 or firings, 1 or lanes]``."""
    table = np.asarray(array)
    return int(table[firing if table.shape[0] > 1 else 0, lane if table.shape[1] > 1 else 0])


def busy_of(run: Timeline, actor: Actor, firing: int, lane: int) -> int:
    grants = run.grants[run.netlist.index(actor.name)]
    if grants is not None and grants.busy is not None:
        return int(grants.busy[firing, lane])
    return at(actor.busy, firing, lane)


def latency_of(run: Timeline, actor: Actor, firing: int, lane: int) -> int:
    grants = run.grants[run.netlist.index(actor.name)]
    if grants is not None and grants.shown is not None:
        return int(grants.shown[firing, lane])
    if actor.latency is None:
        return max(1, busy_of(run, actor, firing, lane))
    return at(actor.latency, firing, lane)


def hold_of(run: Timeline, actor: Actor, firing: int, lane: int) -> int:
    grants = run.grants[run.netlist.index(actor.name)]
    assert grants is not None
    if grants.held is not None:
        return int(grants.held[firing, lane])
    return at(actor.busy, firing, lane)


def pairs(netlist: Netlist, channel: Channel) -> list[tuple[int, int]]:
    """The (source lane, target lane) of each queue of a channel, from the patterns' definition."""
    sources = range(netlist.actor(channel.source).lanes)
    targets = range(netlist.actor(channel.target).lanes)
    joined = {
        Pattern.LANE: lambda i, j: i == j,
        Pattern.BROADCAST: lambda i, j: True,
        Pattern.GATHER: lambda i, j: True,
        Pattern.SHIFT: lambda i, j: j == i + channel.offset,
    }[channel.pattern]
    return [(i, j) for i in sources for j in targets if joined(i, j)]


def queues(run: Timeline, channel: Channel) -> dict[tuple[int, int], Queue]:
    """Every queue of a channel."""
    source, target = run.netlist.actor(channel.source), run.netlist.actor(channel.target)
    found = {}
    for i, j in pairs(run.netlist, channel):
        queue = Queue()
        newest = 0
        for k, start in enumerate(run.starts_of(source.name)[:, i].tolist()):
            tokens = at(channel.produce, k, i)
            if start < 0 or not tokens:
                continue
            newest = max(newest, start + latency_of(run, source, k, i))
            queue.maker += [k] * tokens
            queue.made += [start] * tokens
            queue.visible += [newest] * tokens
        for k, start in enumerate(run.starts_of(target.name)[:, j].tolist()):
            tokens = at(channel.consume, k, j)
            if start >= 0:
                queue.taker += [k] * tokens
                queue.taken += [start] * tokens
        found[i, j] = queue
    return found


@dataclass
class Condition:
    """One condition of a firing: the cycle from which it holds, None if it never does."""

    cycle: int | None
    cause: int
    what: str
    channel: str
    needs: int
    has: int
    on: tuple[str, int]


def conditions(
    run: Timeline,
    all_queues: dict[str, dict[tuple[int, int], Queue]],
    actor: Actor,
    lane: int,
    firing: int,
) -> list[Condition]:
    """Conditions (a) to (c) of a firing, in the order in which ties between them are named."""
    starts = run.starts_of(actor.name)
    own = 0
    if firing:
        own = int(starts[firing - 1, lane]) + busy_of(run, actor, firing - 1, lane)
    here = (actor.name, lane)
    found = [Condition(own, PREVIOUS if firing else FREE, "previous", "", 0, 0, here)]
    for number, channel in enumerate(run.netlist.channels):
        if channel.target == actor.name and (needs := at(channel.consume, firing, lane)):
            before = sum(at(channel.consume, k, lane) for k in range(firing))
            for (i, j), queue in all_queues[channel.name].items():
                if j == lane:
                    last = before + needs - 1
                    shown = queue.visible[last] if last < len(queue.visible) else None
                    has = len(queue.visible) - before
                    found.append(
                        Condition(
                            shown,
                            INPUT + 2 * number,
                            "tokens",
                            channel.name,
                            needs,
                            has,
                            (channel.source, i),
                        )
                    )
    for number, channel in enumerate(run.netlist.channels):
        if channel.source == actor.name and (needs := at(channel.produce, firing, lane)):
            before = sum(at(channel.produce, k, lane) for k in range(firing))
            for (i, j), queue in all_queues[channel.name].items():
                if i == lane:
                    last = before + needs - 1 - channel.capacity
                    freed: int | None = 0
                    if last >= 0:
                        freed = queue.taken[last] + 1 if last < len(queue.taken) else None
                    has = channel.capacity - (before - len(queue.taken))
                    found.append(
                        Condition(
                            freed,
                            OUTPUT + 2 * number,
                            "free slots",
                            channel.name,
                            needs,
                            has,
                            (channel.target, j),
                        )
                    )
    return found
