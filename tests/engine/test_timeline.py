"""Does a timeline say where the time went? Its sums, occupancies, utilisation and critical path
against plain loops over starts and causes."""

from __future__ import annotations

import pickle
import tracemalloc
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from draws import draws
from hypothesis import given
from hypothesis import strategies as st
from naive_timeline import at, busy_of, conditions, hold_of, latency_of, queues
from netlists import netlists

from sparqsim.base import InputError
from sparqsim.simulator import walk
from sparqsim.simulator.critical_path import critical_path
from sparqsim.simulator.deadlock import Deadlock
from sparqsim.simulator.engines import simulate
from sparqsim.simulator.netlist import Actor, Channel, Netlist, Pattern, Resource
from sparqsim.simulator.timeline import FREE, GRANT, INPUT, PREVIOUS, LoadBalance, Timeline

KINDS = ("busy", "starved", "blocked", "waiting", "finished")
random_netlists = draws(60)


def outcome(netlist: Netlist, **options) -> Timeline:
    try:
        return simulate(netlist, **options)
    except Deadlock as stuck:
        return stuck.timeline


def queue(source: str, target: str, capacity: int = 2, **more) -> Channel:
    return Channel(
        name=f"{source}-{target}", source=source, target=target, capacity=capacity, **more
    )


# where the time of a lane went


def test_the_five_kinds_of_time_by_hand() -> None:
    """A lane that computes, starves, is blocked, waits for the bus and is done, each so long."""
    net = Netlist(
        [
            Actor(name="feed", busy=np.array([3, 1])),
            Actor(name="work", busy=np.array([2, 2, 1]), resource="bus"),
            Actor(name="drain", busy=np.array([16, 1])),
            Actor(name="hog", busy=np.array([1, 8]), resource="bus"),
        ],
        [
            queue("feed", "work", consume=np.array([1, 0, 0])),
            queue("work", "drain", 1, consume=np.array([0, 1]), produce=np.array([1, 0, 1])),
        ],
        [Resource(name="bus")],
    )
    # hog holds 0-1 and 1-9; work is starved to 3, waits for the bus to 9, computes to 11 and to
    # 13; its token is popped at 16, so it is blocked to 17; computes to 18, visible at 18.
    run = simulate(net)
    assert run.starts_of("work")[:, 0].tolist() == [9, 11, 17] and run.cycles == 18
    assert run.lane_times("work").totals() == {
        "busy": 5,
        "starved": 3,
        "blocked": 4,
        "waiting": 6,
        "finished": 0,
    }
    assert run.lane_times("feed").totals()["finished"] == 14
    assert run.utilization("work") == 5 / 18


@random_netlists
@given(net=netlists())
def test_lane_times_against_plain_loops(net: Netlist) -> None:
    """Gap by gap, also after a deadlock and from sums alone; the five add up to the run."""
    run, summary = outcome(net), outcome(net, record="summary")
    assert summary.cycles == run.cycles
    for i, actor in enumerate(net.actors):
        expected = {kind: [0] * actor.lanes for kind in KINDS}
        for lane in range(actor.lanes):
            end = 0
            for k in range(int(run.fired[i][lane])):
                start = ready = int(run.starts_of(actor.name)[k, lane])
                cause = int(run.causes_of(actor.name)[k, lane])
                if run.grants[i] is not None:
                    ready = int(run.grants[i].ready[k, lane])
                    cause = int(run.grants[i].causes[k, lane])
                if cause >= INPUT:
                    expected["blocked" if (cause - INPUT) % 2 else "starved"][lane] += ready - end
                else:
                    assert ready == end
                expected["waiting"][lane] += start - ready
                busy = busy_of(run, actor, k, lane)
                expected["busy"][lane] += busy
                end = start + busy
            expected["finished"][lane] = run.cycles - end
        for told in (run.lane_times(actor.name), summary.lane_times(actor.name)):
            for kind in KINDS:
                assert getattr(told, kind).tolist() == expected[kind]
            assert sum(told.totals().values()) == run.cycles * actor.lanes


# load balance


def test_load_balance_is_the_closed_form() -> None:
    """Work 6, 2, 4, 0 over four lanes: mean 3, busiest twice the mean, half the time well used."""
    run = simulate(
        Netlist([Actor(name="pe", lanes=4, busy=np.array([[4, 1, 2, 0], [2, 1, 2, 0]]))])
    )
    balance = run.load_balance("pe")
    assert balance == LoadBalance(work_cycles=(6, 2, 4, 0), cycles=6)
    assert balance.mean_field_cycles == 3.0
    assert balance.busiest_over_mean == 2.0
    assert balance.efficiency == 0.5


def test_load_balance_of_no_work() -> None:
    """Nothing to do is perfectly balanced."""
    balance = simulate(Netlist([Actor(name="pe", lanes=3, firings=0)])).load_balance("pe")
    assert balance.mean_field_cycles == 0 and balance.busiest_over_mean == 1
    assert balance.efficiency == 1 and balance.cycles == 0


def test_queues_of_one_slot_cost_what_deep_ones_save() -> None:
    """The cost of imbalance is a number: lock-step lanes run at the sum of each row's maximum,
    lanes behind queues that never fill at the busiest lane's sum; the mean field is below both."""
    rng = np.random.default_rng(1)
    busy = rng.integers(2, 20, (60, 8))
    spread = Pattern.BROADCAST

    def cycles(capacity: int) -> tuple[int, LoadBalance]:
        net = Netlist(
            [Actor(name="bus", firings=60), Actor(name="pe", lanes=8, busy=busy)],
            [queue("bus", "pe", capacity, pattern=spread)],
        )
        run = simulate(net)
        return run.cycles, run.load_balance("pe")

    deep, balance = cycles(60)
    assert deep == 1 + busy.sum(axis=0).max()
    assert balance.mean_field_cycles == busy.sum() / 8 < deep
    shallow, _ = cycles(1)
    assert deep < shallow <= 2 * 60 + busy.max(axis=1).sum()


# occupancy and utilisation over time


@random_netlists
@given(net=netlists())
def test_occupancy_is_a_replay_and_never_above_capacity(net: Netlist) -> None:
    """Cycle by cycle: the tokens visible by then and not yet taken, of every queue and of all."""
    run = outcome(net)
    for c in net.channels:
        all_queues = queues(run, c)
        for lane in [None, *range(net.actor(c.target).lanes)]:
            times, tokens = run.occupancy(c.name, lane)
            mine = [q for (_, j), q in all_queues.items() if lane is None or j == lane]
            assert times[0] == 0 and (np.diff(times) > 0).all()
            for cycle in range(run.cycles + 1):
                told = int(tokens[np.searchsorted(times, cycle, side="right") - 1])
                expected = sum(
                    sum(v <= cycle for v in q.visible) - sum(t <= cycle for t in q.taken)
                    for q in mine
                )
                assert told == expected
            assert (tokens >= 0).all() and (tokens <= c.capacity * len(mine)).all()


@random_netlists
@given(net=netlists())
def test_utilisation_over_time_integrates_to_busy(net: Netlist) -> None:
    """In bins of one cycle it is the share of lanes that fire then; in any bins the integral is
    the busy time."""
    run = outcome(net)
    for i, actor in enumerate(net.actors):
        busy = [0] * max(run.cycles, 1)
        for lane in range(actor.lanes):
            for k in range(int(run.fired[i][lane])):
                start = int(run.starts_of(actor.name)[k, lane])
                for cycle in range(start, start + busy_of(run, actor, k, lane)):
                    busy[cycle] += 1
        edges, share = run.utilization_over_time(actor.name, bins=len(busy))
        np.testing.assert_allclose(share * actor.lanes, busy, atol=1e-6)
        edges, share = run.utilization_over_time(actor.name, bins=7)
        assert len(edges) == 8 and (share >= -1e-9).all() and (share <= 1 + 1e-9).all()
        np.testing.assert_allclose((share * np.diff(edges)).sum() * actor.lanes, sum(busy))


# the critical path


def steps(run: Timeline) -> list[tuple[str, int, int, int, int]]:
    path = critical_path(run)
    names = [run.netlist.actors[a].name for a in path.actor]
    rows = (path.lane, path.firing, path.code, path.cycles)
    return list(zip(names, *(row.tolist() for row in rows), strict=True))


@st.composite
def machines(draw) -> Netlist:
    """Like a machine: a broadcast into a bank, lanes that read banks of a memory and share a bus,
    a gather; no deadlock, every kind of cause."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    lanes, firings = draw(st.integers(2, 5)), draw(st.integers(4, 16))
    deep = st.integers(1, 3)

    def busy(most: int) -> np.ndarray:
        return rng.integers(1, most + 1, (firings, lanes))

    return Netlist(
        [
            Actor(name="fetch", firings=firings),
            Actor(
                name="read",
                lanes=lanes,
                busy=busy(4),
                latency=busy(9),
                resource="sram",
                request=rng.integers(0, 2, (firings, lanes, 1)),
            ),
            Actor(name="work", lanes=lanes, busy=busy(6)),
            Actor(name="store", lanes=lanes, busy=busy(2), resource="bus"),
            Actor(name="join", firings=firings),
        ],
        [
            queue("fetch", "read", draw(deep), pattern=Pattern.BROADCAST),
            queue("read", "work", draw(deep)),
            queue("work", "store", draw(deep)),
            queue("store", "join", draw(deep), pattern=Pattern.GATHER),
        ],
        [
            Resource(name="sram", servers=2, banked=True),
            Resource(name="bus", servers=draw(st.integers(1, 2))),
        ],
    )


@given(net=netlists())
@draws(40)
def test_a_long_critical_path_is_walked_by_the_kernel_to_the_same_end(net: Netlist) -> None:
    """The kernel, which long paths need, and its plain twin, which walks short ones, agree."""
    run = outcome(net)
    plain = steps(run)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(walk, "PLAIN_LOOKS", 1)
        assert steps(run) == plain


@random_netlists
@given(net=st.one_of(netlists(), machines()))
def test_every_step_of_the_critical_path_is_the_cause_of_the_next(net: Netlist) -> None:
    """From the firing of cycle 0 to the one that ends last, each firing is what the next waited
    for: its end, its token, its pop or its server came in the cycle of the next start."""
    run = outcome(net)
    path = steps(run)
    assert sum(step[4] for step in path) == run.cycles
    if not path:
        assert run.cycles == 0
        return
    all_queues = {c.name: queues(run, c) for c in net.channels}
    name, lane, k, _, _ = path[0]
    assert run.starts_of(name)[k, lane] == 0 and run.causes_of(name)[k, lane] == FREE
    for (name, lane, k, code, cycles), (after, lane2, k2, _, _) in pairwise(path):
        actor = net.actor(name)
        begun, start = run.starts_of(name)[k, lane], run.starts_of(after)[k2, lane2]
        cause = int(run.causes_of(after)[k2, lane2])
        assert begun + cycles == start
        if cause == PREVIOUS:
            assert (name, lane, k, code) == (after, lane2, k2 - 1, -1)
            assert begun + busy_of(run, actor, k, lane) == start
        elif cause == GRANT:
            assert code == -2 and actor.resource == net.actor(after).resource
            assert begun + hold_of(run, actor, k, lane) == start
            if actor.request is not None and actor.request.shape[2] == 1:
                asked = [
                    at(p.request[..., 0], *where)
                    for p, *where in ((actor, k, lane), (net.actor(after), k2, lane2))
                ]
                assert asked[0] == asked[1]  # the same bank
        else:
            c = net.channels[(cause - INPUT) // 2]
            wanted = [
                each
                for each in conditions(run, all_queues, net.actor(after), lane2, k2)
                if each.cause == cause and each.on == (name, lane)
            ]
            assert [each.cycle for each in wanted] == [start]
            if (cause - INPUT) % 2 == 0:
                assert code == -1 and begun + latency_of(run, actor, k, lane) == start
                assert k in all_queues[c.name][lane, lane2].maker
            else:
                assert net.channels[code] is c and cycles == 1
                assert k in all_queues[c.name][lane2, lane].taker
    name, lane, k, code, cycles = path[-1]
    actor = net.actor(name)
    longest = max(busy_of(run, actor, k, lane), latency_of(run, actor, k, lane))
    assert code == -1 and cycles == longest
    assert run.starts_of(name)[k, lane] + longest == run.cycles


def test_critical_path_shares_by_hand() -> None:
    """A full queue behind a slow consumer: its time is the consumer's, and the source pays once."""
    net = Netlist(
        [Actor(name="a", firings=4), Actor(name="b", firings=4, busy=5)], [queue("a", "b", 1)]
    )
    run = simulate(net)
    assert run.cycles == 21
    shares = {(s.kind, s.where): s.cycles for s in critical_path(run).shares()}
    assert shares == {("computing", "a"): 1, ("computing", "b"): 20}
    slow = Netlist(
        [Actor(name="a", firings=3, latency=9), Actor(name="b", firings=3)], [queue("a", "b", 1)]
    )
    run = simulate(slow)  # a 0-9, pop at 9, free at 10, a to 19, free at 20, a to 29, b to 30
    shares = {(s.kind, s.where): s.cycles for s in critical_path(run).shares()}
    assert shares == {("computing", "a"): 27, ("full queue", "a-b"): 2, ("computing", "b"): 1}
    bus = Netlist(
        [Actor(name="a", lanes=3, firings=1, busy=4, resource="bus")], [], [Resource(name="bus")]
    )
    (held, own) = critical_path(simulate(bus)).shares()
    assert (held.kind, held.where, held.cycles) == ("resource", "bus", 8)
    assert (own.kind, own.where, own.cycles) == ("computing", "a", 4)
    by_lane = {
        (s.kind, s.lane): s.cycles for s in critical_path(simulate(bus)).shares(by_lane=True)
    }
    assert by_lane == {("resource", 0): 4, ("resource", 1): 4, ("computing", 2): 4}


# what is kept


def test_a_summary_does_not_grow_with_the_firings() -> None:
    """A hundred times the firings: the same size, but for the marks of its trail, which are bounded
    apart; and the refusal of what needs single firings."""

    def summary(firings: int) -> Timeline:
        net = Netlist(
            [
                Actor(name="a", firings=firings),
                Actor(name="b", lanes=16, firings=firings, busy=2),
                Actor(name="c", firings=firings, busy=1, resource="bus"),
            ],
            [queue("a", "b", pattern=Pattern.BROADCAST), queue("b", "c", pattern=Pattern.GATHER)],
            [Resource(name="bus")],
        )
        return simulate(net, record="summary")

    def peak(firings: int) -> int:
        tracemalloc.start()
        summary(firings)
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    few, many = summary(100), summary(10_000)
    assert peak(10_000) < peak(100) + 10_000  # bytes; a cycle of one lane a firing is 80,000
    sizes = [len(pickle.dumps(replace(each, trail=None))) for each in (few, many)]
    assert sizes[1] < sizes[0] + 100
    assert many.lane_times("b").busy.tolist() == [20_000] * 16
    assert many.utilization("b") > 0.99 and many.load_balance("b").efficiency > 0.99
    for ask in (
        lambda: many.starts_of("b"),
        lambda: many.causes_of("b"),
        lambda: many.occupancy("a-b"),
        lambda: many.utilization_over_time("b"),
        lambda: critical_path(many),
    ):
        with pytest.raises(InputError, match=r"kept only the sums of lanes.*record='full'"):
            ask()


def test_unknown_names_are_refused() -> None:
    """Asking a timeline for an actor, channel or lane that is not there says so."""
    run = simulate(
        Netlist(
            [Actor(name="make", firings=1), Actor(name="take", firings=1)], [queue("make", "take")]
        )
    )
    for ask in (
        run.starts_of,
        run.causes_of,
        run.busy,
        run.latency,
        run.lane_times,
        run.utilization,
        run.load_balance,
        run.utilization_over_time,
    ):
        with pytest.raises(InputError, match="no actor in 'netlist' named 'mkae'; did you mean"):
            ask("mkae")
    with pytest.raises(InputError, match="no channel in 'netlist' named 'queue'"):
        run.occupancy("queue")
    for lane in (-1, 1):
        with pytest.raises(InputError, match=f"lanes of 'take' are 0 to 0, got {lane}"):
            run.occupancy("make-take", lane)
    with pytest.raises(InputError, match="bins must be"):
        run.utilization_over_time("make", bins=0)


def test_causes_have_names() -> None:
    """In words, with the channel's name."""
    run = simulate(
        Netlist(
            [Actor(name="a", firings=1), Actor(name="b", firings=1)],
            [queue("a", "b"), queue("b", "a", consume=0, produce=0)],
        )
    )
    told = [run.cause_name(code) for code in range(7)]
    assert told == [
        "nothing",
        "previous firing",
        "resource",
        "tokens of a-b",
        "free slots in a-b",
        "tokens of b-a",
        "free slots in b-a",
    ]


def test_seconds_follow_the_clock() -> None:
    """Cycles over hertz."""
    assert simulate(Netlist([Actor(name="a", firings=8)], clock_hz=2e9)).seconds == 4e-9
