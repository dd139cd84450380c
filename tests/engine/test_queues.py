"""Is the number right? Tokens held by queues, against a count cycle by cycle."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from netlists import netlists

from sparqsim.base import InputError
from sparqsim.simulator.deadlock import Deadlock
from sparqsim.simulator.engines import simulate
from sparqsim.simulator.netlist import Actor, Channel, Netlist
from sparqsim.simulator.queues import held, intervals
from sparqsim.simulator.timeline import Timeline


def counted(timeline: Timeline, channel: str) -> np.ndarray:
    """Tokens held ``[cycles, queues]``, one queue and one cycle after the other."""
    net = timeline.netlist
    c = net.channel(channel)
    source, target = net.actor(c.source), net.actor(c.target)
    pairs = [(i, j) for j in range(target.lanes) for i in c.source_lanes(j, source.lanes)]
    made = np.broadcast_to(c.produce, (source.count, source.lanes))
    taken = np.broadcast_to(c.consume, (target.count, target.lanes))
    cycles = max(timeline.cycles, 1)
    tokens = np.zeros((cycles, len(pairs)))
    for queue, (i, j) in enumerate(pairs):
        for k, start in enumerate(timeline.starts_of(c.source)[:, i]):
            if start >= 0:
                tokens[start:, queue] += made[k, i]
        for k, start in enumerate(timeline.starts_of(c.target)[:, j]):
            if start >= 0:
                tokens[start:, queue] -= taken[k, j]
    return tokens


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(netlists())
def test_tokens_are_those_counted_cycle_by_cycle(netlist: Netlist) -> None:
    """Held tokens equal a naive count on any netlist, and never leave 0 to capacity."""
    try:
        timeline = simulate(netlist)
    except Deadlock as stuck:
        timeline = stuck.timeline
    for channel in netlist.channels:
        full = held(timeline, channel.name, most_intervals=10**6)
        expected = counted(timeline, channel.name)
        assert full.edges.tolist() == list(range(len(expected) + 1))
        np.testing.assert_array_equal(full.tokens, expected)
        assert (full.tokens >= 0).all() and (full.tokens <= channel.capacity).all()
        few = held(timeline, channel.name, most_intervals=3)
        bounds = zip(few.edges, few.edges[1:], strict=False)
        means = [expected[low:high].mean(axis=0) for low, high in bounds]
        np.testing.assert_allclose(few.tokens, means, atol=1e-12)


def test_intervals_cover_the_run() -> None:
    """Edges are whole cycles, rise, and end with the run; an empty run has one interval."""
    assert intervals(0, 9).tolist() == [0, 1]
    assert intervals(5, 9).tolist() == [0, 1, 2, 3, 4, 5]
    edges = intervals(1000, 7)
    assert len(edges) == 8 and edges[0] == 0 and edges[-1] == 1000 and (np.diff(edges) > 0).all()


def test_error_messages() -> None:
    """Unknown channels, sums, and behaviours are refused with what to do."""
    net = Netlist(
        [Actor(name="make", firings=3), Actor(name="take", firings=3)],
        [Channel(name="queue", source="make", target="take", capacity=1)],
    )
    with pytest.raises(InputError, match="no channel 'que' in this run; there is queue"):
        held(simulate(net), "que")
    with pytest.raises(InputError, match="record='full'"):
        held(simulate(net, record="summary"), "queue")

    def take(lane):
        for _ in range(3):
            yield from lane.fire(consume={"queue": 1}, busy=1)

    own = Netlist([net.actors[0], Actor(name="take", behaviour=take)], net.channels)
    with pytest.raises(InputError, match="written as a behaviour"):
        held(simulate(own, engine="simpy"), "queue")
