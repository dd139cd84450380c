"""Is it physics? Laws that hold of any netlist, whatever the engine: nothing starts early or late,
work is conserved, queues obey Little's law, more slots or servers never make a chain slower."""

from __future__ import annotations

import heapq
from collections import Counter

import numpy as np
import pytest
from draws import draws
from hypothesis import given, settings
from hypothesis import strategies as st
from naive_timeline import busy_of, conditions, hold_of, latency_of, queues
from netlists import netlists

from sparqsim.simulator.deadlock import Deadlock
from sparqsim.simulator.engines import simulate
from sparqsim.simulator.netlist import Actor, Channel, Netlist, Resource
from sparqsim.simulator.timeline import GRANT, Timeline

ENGINES = pytest.mark.parametrize("engine", ["compiled", "simpy"])
random_netlists = draws(60)


def outcome(netlist: Netlist, engine: str = "compiled") -> Timeline:
    """What happened, to the end or until a deadlock."""
    try:
        return simulate(netlist, engine=engine)
    except Deadlock as stuck:
        return stuck.timeline


def without_resources(netlist: Netlist) -> Netlist:
    """The same netlist with a server for every lane."""
    actors = [
        Actor(name=a.name, lanes=a.lanes, firings=a.firings, busy=a.busy, latency=a.latency)
        for a in netlist.actors
    ]
    return Netlist(actors, netlist.channels)


def with_capacities(netlist: Netlist, capacities: list[int]) -> Netlist:
    """The same netlist with other queues."""
    channels = [
        Channel(
            name=c.name,
            source=c.source,
            target=c.target,
            capacity=capacity,
            pattern=c.pattern,
            offset=c.offset,
            produce=c.produce,
            consume=c.consume,
        )
        for c, capacity in zip(netlist.channels, capacities, strict=True)
    ]
    return Netlist(netlist.actors, channels, netlist.resources)


@ENGINES
@random_netlists
@given(net=netlists())
def test_nothing_starts_a_cycle_early_or_late(engine: str, net: Netlist) -> None:
    """Every start (of a resource's user: every request) is the latest of its conditions, computed
    in plain loops from the starts of the others, and its cause is the first of the latest. A firing
    left over lacks a condition."""
    run = outcome(net, engine)
    all_queues = {c.name: queues(run, c) for c in net.channels}
    for i, actor in enumerate(net.actors):
        grants = run.grants[i]
        begun = run.starts_of(actor.name) if grants is None else grants.ready
        why = run.causes_of(actor.name) if grants is None else grants.causes
        for lane in range(actor.lanes):
            for k in range(min(int(run.fired[i][lane]) + 1, actor.count)):
                found = conditions(run, all_queues, actor, lane, k)
                cycles = [c.cycle for c in found]
                if k == run.fired[i][lane]:
                    assert None in cycles
                    continue
                assert begun[k, lane] == max(cycles)
                assert why[k, lane] == found[cycles.index(max(cycles))].cause


@ENGINES
@random_netlists
@given(net=netlists())
def test_servers_do_not_idle_while_requests_wait(engine: str, net: Netlist) -> None:
    """Work conservation: a request waits only while every server it could have is held, never are
    more held than there are, and a plain server goes by rank, then age, then order."""
    run = outcome(net, engine)
    for resource in net.resources:
        held: Counter[tuple[int, int]] = Counter()  # (bank, cycle) -> servers held
        waits = []
        order = 0
        for i, actor in enumerate(net.actors):
            grants = run.grants[i]
            if actor.resource == resource.name and grants is not None:
                for lane in range(actor.lanes):
                    for k in range(int(run.fired[i][lane])):
                        start = int(run.starts_of(actor.name)[k, lane])
                        bank = 0
                        if resource.banked:
                            bank = int(actor.request[k, lane % actor.request.shape[1], 0])
                        for cycle in range(start, start + hold_of(run, actor, k, lane)):
                            held[bank, cycle] += 1
                        ready = int(grants.ready[k, lane])
                        ranks = np.broadcast_to(actor.rank, (actor.count, actor.lanes))
                        first = (int(ranks[k, lane]), ready, order + lane)
                        waits.append((first, ready, start, bank))
                        assert (start > ready) == (run.causes_of(actor.name)[k, lane] == GRANT)
            order += actor.lanes
        most = 1 if resource.banked else resource.servers
        assert max(held.values(), default=0) <= most
        for _, ready, start, bank in waits:
            assert all(held[bank, cycle] == most for cycle in range(ready, start))
        if resource.model is None:
            for one in waits:
                for two in waits:
                    if one[3] == two[3] and one[0] < two[0] and two[2] >= one[1]:
                        assert one[2] <= two[2]


@random_netlists
@given(net=netlists())
def test_no_token_is_lost_or_made_from_nothing(net: Netlist) -> None:
    """Tokens leave in the order they came, none before it is visible, and never more than the
    capacity lie between the start that makes one and the start that takes it."""
    run = outcome(net)
    for c in net.channels:
        for queue in queues(run, c).values():
            assert len(queue.taken) <= len(queue.made)
            assert all(
                a >= b for a, b in zip(queue.taken, queue.visible[: len(queue.taken)], strict=True)
            )
            for cycle in {*queue.made}:
                inside = sum(m <= cycle for m in queue.made) - sum(t < cycle for t in queue.taken)
                assert inside <= c.capacity


@random_netlists
@given(net=netlists())
def test_a_run_is_at_least_as_long_as_its_work(net: Netlist) -> None:
    """Cycles >= the busiest lane's work, and >= the holds of a resource over its servers."""
    run = outcome(net)
    holds: Counter[str] = Counter()
    for i, actor in enumerate(net.actors):
        times = run.lane_times(actor.name)
        assert (times.busy <= run.cycles).all()
        for lane in range(actor.lanes):
            work = [busy_of(run, actor, k, lane) for k in range(int(run.fired[i][lane]))]
            assert times.busy[lane] == sum(work) <= run.cycles
            begun = run.starts_of(actor.name)[: len(work), lane].tolist()
            ends = [start + busy for start, busy in zip(begun, work, strict=True)]
            assert all(start >= end for start, end in zip(begun[1:], ends, strict=False))
            if actor.resource:
                holds[actor.resource] += sum(
                    hold_of(run, actor, k, lane) for k in range(len(work) - 1)
                )  # without the last: a server may be held beyond the end of a run
    for resource in net.resources:
        assert holds[resource.name] <= run.cycles * resource.servers


@random_netlists
@given(net=netlists())
def test_the_run_ends_when_the_last_result_is_visible(net: Netlist) -> None:
    """Not a cycle more: the maximum over firings of start plus busy or latency."""
    run = outcome(net)
    ends = [0]
    for i, actor in enumerate(net.actors):
        for lane in range(actor.lanes):
            for k in range(int(run.fired[i][lane])):
                longest = max(busy_of(run, actor, k, lane), latency_of(run, actor, k, lane))
                ends.append(int(run.starts_of(actor.name)[k, lane]) + longest)
    assert run.cycles == max(ends)


@random_netlists
@given(net=netlists())
def test_littles_law(net: Netlist) -> None:
    """Mean occupancy = throughput x mean time in the queue, exactly: the occupancy summed over the
    run is the sum of every token's own wait (of those left over, until the end)."""
    run = outcome(net)
    for c in net.channels:
        times, tokens = run.occupancy(c.name)
        area = int((np.diff([*times.tolist(), max(run.cycles, times[-1])]) * tokens).sum())
        waits = 0
        for queue in queues(run, c).values():
            left = [run.cycles] * (len(queue.visible) - len(queue.taken))
            waits += sum([*queue.taken, *left]) - sum(queue.visible)
        # All of the run, and no token shows after its end.
        assert times[-1] <= run.cycles and area == waits


@random_netlists
@given(net=netlists(), extra=st.lists(st.integers(0, 3), min_size=7, max_size=7))
def test_deeper_queues_never_delay_a_firing(net: Netlist, extra: list[int]) -> None:
    """Without resources starts are maxima of sums, and more slots remove terms: no start is later,
    and no firing that happened is lost. (With resources this is not a law: Graham's anomalies.)"""
    net = without_resources(net)
    shallow = [c.capacity for c in net.channels]
    deep = [c + more for c, more in zip(shallow, extra, strict=False)]
    one, two = outcome(net), outcome(with_capacities(net, deep))
    for i, actor in enumerate(net.actors):
        assert (one.fired[i] <= two.fired[i]).all()
        happened = one.starts_of(actor.name) >= 0
        earlier = two.starts_of(actor.name)[happened] <= one.starts_of(actor.name)[happened]
        assert earlier.all()


@random_netlists
@given(net=netlists(), factor=st.integers(2, 5))
def test_time_has_no_scale(net: Netlist, factor: int) -> None:
    """All times times c: all starts times c - where no start depends on a cycle of the handshake:
    queues that never fill, and busy and latency of at least 1."""
    if any(r.model is not None for r in net.resources):
        net = without_resources(net)
    net = with_capacities(net, [10**6] * len(net.channels))

    def scaled(by: int) -> Timeline:
        actors = [
            Actor(
                name=a.name,
                lanes=a.lanes,
                firings=a.firings,
                busy=by * np.maximum(a.busy, 1),
                latency=None if a.latency is None else by * np.asarray(a.latency),
                resource=a.resource,
                request=a.request,
            )
            for a in net.actors
        ]
        return outcome(Netlist(actors, net.channels, net.resources))

    one, many = scaled(1), scaled(factor)
    assert many.cycles == factor * one.cycles
    for actor in net.actors:
        starts = one.starts_of(actor.name)
        expected = np.where(starts >= 0, factor * starts, -1)
        np.testing.assert_array_equal(many.starts_of(actor.name), expected)


@ENGINES
@random_netlists
@given(net=netlists())
def test_same_netlist_same_trace(engine: str, net: Netlist) -> None:
    """A run leaves no mark on its netlist: the second is equal to the first, start by start."""
    one, two = outcome(net, engine), outcome(net, engine)
    assert one.cycles == two.cycles
    for actor in net.actors:
        np.testing.assert_array_equal(one.starts_of(actor.name), two.starts_of(actor.name))
        np.testing.assert_array_equal(one.causes_of(actor.name), two.causes_of(actor.name))


arrivals_and_holds = st.lists(
    st.tuples(st.integers(1, 30), st.integers(1, 12)), min_size=1, max_size=12
)


def station(jobs: list[tuple[int, int]], servers: int) -> Netlist:
    """Each job a lane that arrives at its cycle and holds one of the servers once."""
    arrival, hold = (np.array([part]) for part in zip(*jobs, strict=True))
    lanes = len(jobs)
    return Netlist(
        [
            Actor(name="arrive", lanes=lanes, busy=arrival),
            Actor(name="serve", lanes=lanes, busy=hold, resource="desk"),
        ],
        [Channel(name="hall", source="arrive", target="serve", capacity=1)],
        [Resource(name="desk", servers=servers)],
    )


@ENGINES
@random_netlists
@given(jobs=arrivals_and_holds, servers=st.integers(1, 4))
def test_a_station_is_the_textbook_queue(engine: str, jobs, servers: int) -> None:
    """First come first served on n servers: the heap of n free times gives every start."""
    run = simulate(station(jobs, servers), engine=engine)
    free = [0] * servers
    expected = [0] * len(jobs)
    for arrival, lane, hold in sorted((a, lane, h) for lane, (a, h) in enumerate(jobs)):
        expected[lane] = max(arrival, heapq.heappop(free))
        heapq.heappush(free, expected[lane] + hold)
    assert run.starts_of("serve")[0].tolist() == expected


@random_netlists
@given(jobs=arrivals_and_holds, servers=st.integers(1, 4))
def test_more_servers_never_delay_a_job(jobs, servers: int) -> None:
    """Of a station served in order of arrival (Kiefer and Wolfowitz)."""
    one, two = (simulate(station(jobs, n)).starts_of("serve") for n in (servers, servers + 1))
    assert (two <= one).all()


@settings(max_examples=40, deadline=None)
@given(
    stages=st.lists(st.integers(1, 6), min_size=1, max_size=5),
    tokens=st.integers(1, 30),
    capacity=st.integers(2, 4),
)
def test_a_pipeline_runs_at_the_pace_of_its_slowest_stage(stages, tokens, capacity) -> None:
    """Fill time plus the bottleneck for every further token, with two slots or more between."""
    names = [f"s{i}" for i in range(len(stages))]
    net = Netlist(
        [Actor(name=n, firings=tokens, busy=b) for n, b in zip(names, stages, strict=True)],
        [
            Channel(name=f"q{i}", source=names[i], target=names[i + 1], capacity=capacity)
            for i in range(len(stages) - 1)
        ],
    )
    assert simulate(net).cycles == sum(stages) + (tokens - 1) * max(stages)
