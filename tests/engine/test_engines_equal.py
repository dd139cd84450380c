"""Are two roads equal? The SimPy and the compiled engine give the same starts and causes."""

from __future__ import annotations

import numpy as np
import pytest
from draws import draws
from hypothesis import given, settings
from hypothesis import strategies as st
from netlists import netlists

from sparqsim.simulator.critical_path import critical_path
from sparqsim.simulator.deadlock import Deadlock
from sparqsim.simulator.engines import simulate
from sparqsim.simulator.memory.open_row import OpenRow
from sparqsim.simulator.netlist import Actor, Channel, Netlist, Pattern, Resource
from sparqsim.simulator.timeline import Timeline

relaxed = draws(160)


def outcome(netlist: Netlist, engine: str) -> tuple[Timeline, str]:
    try:
        return simulate(netlist, engine=engine), ""
    except Deadlock as stuck:
        return stuck.timeline, str(stuck)


def assert_same(one: Timeline, two: Timeline) -> None:
    assert one.cycles == two.cycles
    for i, actor in enumerate(one.netlist.actors):
        np.testing.assert_array_equal(one.fired[i], two.fired[i])
        np.testing.assert_array_equal(one.starts_of(actor.name), two.starts_of(actor.name))
        np.testing.assert_array_equal(one.causes_of(actor.name), two.causes_of(actor.name))
        for mine, other in ((one.grants[i], two.grants[i]),):
            assert (mine is None) == (other is None)
            if mine is not None and other is not None:
                np.testing.assert_array_equal(mine.ready, other.ready)
                np.testing.assert_array_equal(mine.causes, other.causes)
                if mine.held is not None:
                    np.testing.assert_array_equal(mine.held, other.held)
                    np.testing.assert_array_equal(mine.shown, other.shown)


@relaxed
@given(netlists())
def test_engines_agree_on_random_netlists(netlist: Netlist) -> None:
    """Every start, every cause, every deadlock message: the same on both engines."""
    reference, why = outcome(netlist, "simpy")
    fast, why_fast = outcome(netlist, "compiled")
    assert why == why_fast
    assert_same(reference, fast)


@relaxed
@given(netlists())
def test_summary_is_the_sum_of_the_full_record(netlist: Netlist) -> None:
    """record='summary' gives the lane times that follow from the full record."""
    try:
        full = simulate(netlist)
    except Deadlock:
        return
    summary = simulate(netlist, record="summary")
    assert summary.cycles == full.cycles and summary.starts is None
    for actor in netlist.actors:
        one, two = full.lane_times(actor.name), summary.lane_times(actor.name)
        for kind in ("busy", "starved", "blocked", "waiting", "finished"):
            np.testing.assert_array_equal(getattr(one, kind), getattr(two, kind))
            assert (getattr(one, kind) >= 0).all()
        total = one.busy + one.starved + one.blocked + one.waiting + one.finished
        np.testing.assert_array_equal(total, full.cycles)


@relaxed
@given(netlists())
def test_critical_path_sums_to_the_run(netlist: Netlist) -> None:
    """The steps of the critical path join end to end from cycle 0 to the end of the run."""
    try:
        run = simulate(netlist)
    except Deadlock:
        return
    path = critical_path(run)
    assert path.cycles.sum() == run.cycles
    assert (path.cycles >= 0).all()
    starts = [
        int(run.starts_of(netlist.actors[a].name)[k, lane])
        for a, lane, k in zip(path.actor, path.lane, path.firing, strict=True)
    ]
    if starts:
        assert starts[0] == 0
        np.testing.assert_array_equal(np.diff([*starts, run.cycles]), path.cycles)
    assert sum(share.cycles for share in path.shares(by_lane=True)) == run.cycles
    assert sum(share.cycles for share in path.shares()) == run.cycles


@settings(max_examples=25, deadline=None)
@given(
    lanes=st.integers(1, 33),
    firings=st.integers(1, 60),
    capacity=st.integers(1, 9),
    seed=st.integers(0, 2**32 - 1),
)
def test_engines_agree_on_wide_uniform_banks(
    lanes: int, firings: int, capacity: int, seed: int
) -> None:
    """A broadcast into a bank and a chain of banks behind it: whole rows at once."""
    rng = np.random.default_rng(seed)
    busy = rng.integers(0, 6, (firings, lanes))
    net = Netlist(
        [
            Actor(name="root", firings=firings),
            Actor(name="first", lanes=lanes, firings=firings, busy=busy, latency=1 + busy),
            Actor(name="second", lanes=lanes, firings=firings, busy=busy),
            Actor(name="join", firings=firings),
        ],
        [
            Channel(
                name="out",
                source="root",
                target="first",
                capacity=capacity,
                pattern=Pattern.BROADCAST,
            ),
            Channel(name="pass", source="first", target="second", capacity=capacity),
            Channel(
                name="in",
                source="second",
                target="join",
                capacity=capacity,
                pattern=Pattern.GATHER,
            ),
        ],
    )
    assert_same(outcome(net, "simpy")[0], outcome(net, "compiled")[0])


def test_stateful_resource_prefers_a_row_hit() -> None:
    """Of two waiting requests the one of lower rank goes first, though it is younger."""
    request = np.array([[[0, 0, 0]], [[0, 1, 0]], [[0, 0, 0]]])
    net = Netlist(
        [
            Actor(name=name, firings=1, resource="memory", request=request[i : i + 1])
            for i, name in enumerate("abc")
        ],
        [],
        [Resource(name="memory", model=OpenRow())],
    )
    for engine in ("simpy", "compiled"):
        run = simulate(net, engine=engine)
        starts = [int(run.starts_of(name)[0, 0]) for name in "abc"]
        assert starts == [0, 9, 7]  # a opens row 0 (7 cycles), c hits it (2), then b


def test_unknown_options_are_refused() -> None:
    """An engine, record or verify that does not exist is named with what there is."""
    net = Netlist([Actor(name="a", firings=1)])
    for options in ({"engine": "fast"}, {"record": "all"}, {"verify": "yes"}):
        with pytest.raises(ValueError, match=r"must be"):
            simulate(net, **options)
    with pytest.raises(ValueError, match="engine='simpy'"):
        simulate(net, verify="execute")
