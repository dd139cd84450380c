"""Does a deadlock say who waits for what? The same content from both engines, checked by hand and
against a plain recount of every queue."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from draws import draws
from hypothesis import assume, given
from naive_timeline import conditions, queues
from netlists import netlists

from sparqsim.simulator.deadlock import SHOWN, Deadlock, Waiting
from sparqsim.simulator.engines import simulate
from sparqsim.simulator.netlist import Actor, Channel, Netlist, Pattern, Resource


def deadlock(net: Netlist, engine: str = "compiled", **options) -> Deadlock:
    with pytest.raises(Deadlock) as caught:
        simulate(net, engine=engine, **options)
    return caught.value


def same(net: Netlist) -> Deadlock:
    """The deadlock, after a check that both engines and both records tell it alike."""
    told = deadlock(net)
    for engine in ("compiled", "simpy"):
        for record in ("full", "summary"):
            other = deadlock(net, engine, record=record)
            assert str(other) == str(told) and other.cycle == told.cycle
            assert other.waiting == told.waiting and other.ring == told.ring
    return told


def queue(source: str, target: str, capacity: int = 1, **more) -> Channel:
    return Channel(
        name=f"{source}-{target}", source=source, target=target, capacity=capacity, **more
    )


def test_two_that_wait_for_each_others_tokens() -> None:
    """The ring names both, and each waits for a token that is not there."""
    net = Netlist(
        [Actor(name="a", firings=2), Actor(name="b", firings=2)],
        [queue("a", "b"), queue("b", "a")],
        name="hen and egg",
    )
    told = same(net)
    assert told.cycle == 0
    assert told.waiting == (
        Waiting("a", 0, 0, "tokens", "b-a", 1, 0, (("b", 0),)),
        Waiting("b", 0, 0, "tokens", "a-b", 1, 0, (("a", 0),)),
    )
    assert sorted(told.ring) == [("a", 0), ("b", 0)]
    assert str(told).splitlines() == [
        "deadlock in 'hen and egg' after cycle 0:",
        "  a[0] firing 0 waits for tokens in b-a: needs 1, has 0",
        "  b[0] firing 0 waits for tokens in a-b: needs 1, has 0",
        "  waiting for each other: a[0] -> b[0] -> a[0]",
    ]


def test_a_fork_and_join_with_a_queue_too_small() -> None:
    """The classic: one branch wants three tokens before it makes any, the other branch holds one.
    The source waits for free slots, the join for tokens, the branch for the source."""
    net = Netlist(
        [
            Actor(name="fork", firings=3),
            Actor(name="sum", firings=1),
            Actor(name="join", firings=3),
        ],
        [
            queue("fork", "sum", 3, consume=3),
            queue("fork", "join", 1),
            queue("sum", "join", 3, produce=3),
        ],
    )
    told = same(net)
    assert told.waiting == (
        Waiting("fork", 0, 1, "free slots", "fork-join", 1, 0, (("join", 0),)),
        Waiting("sum", 0, 0, "tokens", "fork-sum", 3, 1, (("fork", 0),)),
        Waiting("join", 0, 0, "tokens", "sum-join", 1, 0, (("sum", 0),)),
    )
    assert told.cycle == 1  # the token of the fork's one firing shows at 1
    assert set(told.ring) == {("fork", 0), ("sum", 0), ("join", 0)}
    assert told.timeline.starts_of("fork")[:, 0].tolist() == [0, -1, -1]
    deeper = Netlist(net.actors, [net.channels[0], queue("fork", "join", 3), net.channels[2]])
    assert simulate(deeper).fired[2].tolist() == [3]


def test_tokens_that_nobody_makes_are_no_ring() -> None:
    """A consumer with more firings than its producer; the lanes in need are all named."""
    net = Netlist(
        [Actor(name="a", lanes=3, firings=2), Actor(name="b", lanes=3, firings=4)],
        [queue("a", "b", 2)],
    )
    told = same(net)
    assert told.ring == ()
    assert [(w.lane, w.firing, w.has) for w in told.waiting] == [(0, 2, 0), (1, 2, 0), (2, 2, 0)]
    assert [w.on for w in told.waiting] == [(("a", lane),) for lane in range(3)]
    assert "no ring: the tokens are never made or never taken" in str(told)


def test_only_the_lanes_that_lack_something_are_named() -> None:
    """A gather names the lanes without a token, a broadcast those without a slot, and each what is
    there in the worst of them; a lane that is done is not named."""
    gather = Netlist(
        [Actor(name="a", lanes=3, firings=2), Actor(name="b", firings=2)],
        [
            queue(
                "a",
                "b",
                2,
                pattern=Pattern.GATHER,
                produce=np.array([[1, 1, 1], [1, 0, 1]]),
            )
        ],
    )
    (waiting,) = same(gather).waiting
    assert (waiting.actor, waiting.firing, waiting.on) == ("b", 1, (("a", 1),))
    broadcast = Netlist(
        [Actor(name="a", firings=3), Actor(name="b", lanes=3, firings=1)],
        [
            queue(
                "a",
                "b",
                2,
                pattern=Pattern.BROADCAST,
                consume=np.array([[1, 0, 2]]),
            )
        ],
    )
    (waiting,) = same(broadcast).waiting
    assert waiting == Waiting("a", 0, 2, "free slots", "a-b", 1, 0, (("b", 1),))


def test_a_ring_through_one_lane_of_a_bank() -> None:
    """The ring goes through the lanes that wait, not through their whole banks; a lane that lacks
    two things is told twice."""
    net = Netlist(
        [
            Actor(name="a", lanes=2, firings=2),
            Actor(name="b", lanes=2, firings=2),
            Actor(name="c", lanes=2, firings=2),
        ],
        [
            queue("a", "b", produce=np.array([[1, 1], [1, 1]])),
            queue("b", "a", 2, consume=np.array([[0, 1], [0, 1]])),
            queue("c", "a", 2, consume=np.array([[0, 0], [2, 2]]), produce=0),
        ],
    )
    told = same(net)
    assert {(w.actor, w.lane, w.what, w.channel) for w in told.waiting} == {
        ("a", 0, "tokens", "c-a"),
        ("a", 1, "tokens", "b-a"),
        ("b", 0, "tokens", "a-b"),
        ("b", 1, "tokens", "a-b"),
    }
    assert set(told.ring) == {("a", 1), ("b", 1)}


def test_a_lane_that_waits_for_itself() -> None:
    """A channel from an actor to itself holds no token at the start."""
    told = same(Netlist([Actor(name="a", firings=1)], [queue("a", "a")]))
    assert told.ring == (("a", 0),) and str(told).endswith("a[0] -> a[0]")


def test_users_of_a_resource_are_told_of_what_they_lack() -> None:
    """A server is never waited for forever: what is missing is the token."""
    net = Netlist(
        [
            Actor(name="a", firings=1, busy=5, resource="bus"),
            Actor(name="b", firings=2, busy=5, resource="bus"),
        ],
        [queue("a", "b")],
        [Resource(name="bus")],
    )
    told = same(net)
    assert told.waiting == (Waiting("b", 0, 1, "tokens", "a-b", 1, 0, (("a", 0),)),)
    assert told.cycle == 10


def test_a_large_bank_is_cut_short_in_the_message_only() -> None:
    """The message names the first lanes and counts the rest; ``waiting`` has them all."""
    lanes = 500
    net = Netlist(
        [Actor(name="a", lanes=lanes, firings=1), Actor(name="b", lanes=lanes, firings=2)],
        [queue("a", "b")],
    )
    told = same(net)
    assert [w.lane for w in told.waiting] == list(range(lanes))
    assert f"... and {lanes - SHOWN} more" in str(told)
    assert len(str(told).splitlines()) == SHOWN + 3


@pytest.mark.parametrize("record", ["full", "summary"])
def test_tokens_of_a_behaviour_are_counted(record: str) -> None:
    """What a user's actor made, firing by firing, is what those left over lack and have."""

    def source(lane):
        yield from lane.fire(produce={"source-sink": 3})
        yield from lane.fire(produce={"source-sink": 2})

    net = Netlist(
        [Actor(name="source", behaviour=source), Actor(name="sink", firings=4)],
        [queue("source", "sink", 4, consume=2)],
    )
    told = deadlock(net, "simpy", record=record)
    assert told.waiting == (Waiting("sink", 0, 2, "tokens", "source-sink", 2, 1, (("source", 0),)),)


def test_a_deadlock_crosses_processes() -> None:
    """A sweep's workers hand it back pickled: same message, same content."""
    told = deadlock(Netlist([Actor(name="a", firings=1)], [queue("a", "a")]))
    back = pickle.loads(pickle.dumps(told))
    assert isinstance(back, Deadlock)
    assert (str(back), back.waiting, back.ring) == (str(told), told.waiting, told.ring)


@draws(75)
@given(net=netlists())
def test_every_lack_is_told_and_no_other(net: Netlist) -> None:
    """Against a plain recount: for every lane left over, the conditions of its next firing that
    never hold, what they need and have and on whom; and every step of the ring is a wait."""
    try:
        simulate(net)
        assume(False)
    except Deadlock as caught:
        told = caught
    run = told.timeline
    all_queues = {c.name: queues(run, c) for c in net.channels}
    expected = set()
    for i, actor in enumerate(net.actors):
        for lane in range(actor.lanes):
            firing = int(run.fired[i][lane])
            if firing < actor.count:
                lacks: dict[tuple[str, str], list] = {}
                for c in conditions(run, all_queues, actor, lane, firing):
                    if c.cycle is None:
                        lacks.setdefault((c.what, c.channel), []).append(c)
                assert lacks
                for (what, channel), parts in lacks.items():
                    on = tuple(c.on for c in parts)
                    needs, has = parts[0].needs, min(c.has for c in parts)
                    expected.add((actor.name, lane, firing, what, channel, needs, has, on))
    got = [
        (w.actor, w.lane, w.firing, w.what, w.channel, w.needs, w.has, w.on) for w in told.waiting
    ]
    assert len(got) == len(set(got)) and set(got) == expected
    waits_on = {((w.actor, w.lane), other) for w in told.waiting for other in w.on}
    for here, there in zip(told.ring, (*told.ring[1:], *told.ring[:1]), strict=True):
        assert (here, there) in waits_on
