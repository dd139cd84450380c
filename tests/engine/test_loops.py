"""Are loops what they stand for, and is a run that jumps over its periods the run that does not?

The compiled engine without jumps and the SimPy engine are the definition: cycles, and every sum of
every lane, are equal.
"""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks import fast_forward
from sparqsim.base import InputError
from sparqsim.simulator.deadlock import Deadlock
from sparqsim.simulator.engines import repeating, simulate
from sparqsim.simulator.loops import Loops, Paced, Uneven
from sparqsim.simulator.netlist import Actor, Channel, Netlist, Pattern, Resource
from sparqsim.simulator.timeline import Timeline


@pytest.fixture(autouse=True, scope="module")
def short_runs_jump() -> Iterator[None]:
    """The engine goes through runs as short as these firing by firing, were it not told to jump."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(repeating, "SHORT", 0)
        yield


quick = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def dealt(draw, total: int) -> list[int]:
    """Sizes of loops whose product is ``total``."""
    sizes, left = [], total
    for _ in range(draw(st.integers(0, 2))):
        sizes.append(draw(st.sampled_from([d for d in range(1, left + 1) if left % d == 0])))
        left //= sizes[-1]
    return [*sizes, left]


def loops(draw, total: int, low: int, high: int, rising: bool = False) -> Loops:
    """Loops of so many firings with numbers between two bounds."""
    runs = []
    for size in dealt(draw, total):
        cut = draw(st.integers(0, min(2, size - 1)))
        runs.append((size - cut, cut) if cut else (size,))
    shape = tuple(map(len, runs))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    steps = tuple(draw(st.integers(0, 2)) if rising else 0 for _ in runs)
    return Loops(tuple(runs), rng.integers(low, high + 1, shape), steps)


def given_loops(draw, total: int, low: int, high: int, rising: bool = False) -> Loops:
    """The same, or a loop whose iterations differ in firings."""
    if total < 3 or draw(st.integers(0, 2)):
        return loops(draw, total, low, high, rising)
    parts, left = [], total
    while left:
        block = left if len(parts) == 2 else draw(st.integers(1, left))
        times = draw(st.sampled_from([d for d in range(1, block + 1) if block % d == 0]))
        parts.append((times, given_loops(draw, block // times, low, high, rising)))
        left -= block
    return Uneven(parts, draw(st.integers(0, 2)) if rising else 0)


@settings(quick, max_examples=40)
@given(data=st.data(), total=st.integers(1, 60))
def test_loops_are_the_numbers_they_stand_for(data: st.DataObject, total: int) -> None:
    """Written out they are the sum of the value of the runs and the steps; the bounds, the sum, a
    window and a single number are those of what is written out."""
    some = loops(data.draw, total, 0, 9, rising=True)
    plain = []
    for k in range(total):
        place, index = k, []
        for size in reversed(some.sizes):
            place, at = divmod(place, size)
            index.insert(0, at)
        run = tuple(
            int(np.searchsorted(np.cumsum(r), i, "right"))
            for r, i in zip(some.runs, index, strict=True)
        )
        plain.append(int(some.values[run]) + int(np.dot(some.steps, index)))
    assert np.asarray(some)[:, 0].tolist() == plain == [some[k] for k in range(total)]
    assert some.total() == sum(plain)
    low, high = some.least_and_most()
    assert low == min(plain) and high == max(plain)
    first = data.draw(st.integers(0, total))
    assert some.window(first, total).tolist() == plain[first:]


@settings(quick, max_examples=40)
@given(data=st.data(), total=st.integers(3, 60))
def test_uneven_loops_are_their_iterations(data: st.DataObject, total: int) -> None:
    """One behind the other, each more by the step than the one before; and so the bounds, the sum,
    what comes before a firing, a window and what all are multiples of."""
    some = given_loops(data.draw, total, 0, 9, rising=True)
    plain = some.window(0, total).tolist()
    if isinstance(some, Uneven):
        inside = [one for times, one in some.parts for _ in range(times)]
        joined = [one.window(0, len(one)) + i * some.step for i, one in enumerate(inside)]
        assert plain == np.concatenate(joined).tolist()
    assert some.total() == sum(plain)
    low, high = some.least_and_most()
    assert low == min(plain) and high == max(plain)
    first, last = sorted(data.draw(st.tuples(st.integers(0, total), st.integers(0, total))))
    assert some.window(first, last).tolist() == plain[first:last]
    if not some.rises:
        assert some.before(first) == sum(plain[:first])
        assert not some.grain or not any(each % some.grain for each in plain)


@settings(quick, max_examples=60)
@given(
    data=st.data(),
    total=st.integers(1, 60),
    pace=st.tuples(st.integers(1, 12), st.integers(1, 5)),
    afresh=st.integers(0, 20),
    around=st.integers(0, 30),
)
def test_what_comes_at_a_pace_ends_with_all_that_came(
    data: st.DataObject, total: int, pace: tuple[int, int], afresh: int, around: int
) -> None:
    """Each firing lasts from the cycle in which all before it has come, since it last started over,
    to that in which it has, one at least; where the cycles are said to repeat they do."""
    amounts = given_loops(data.draw, total, 0, 30)
    came, plain = 0, []
    for k in range(total):
        place = k % around if around else k
        begin = 0 if place == 0 or (afresh and place % afresh == 0) else came
        came = begin + amounts[k]
        plain.append(max(1, -(-came * pace[1] // pace[0]) + (-begin * pace[1] // pace[0])))
    paced = Paced(amounts, pace, afresh, around)
    first, last = sorted(data.draw(st.tuples(st.integers(0, total), st.integers(0, total))))
    assert paced.window(first, last).tolist() == plain[first:last]
    assert paced.total() == sum(plain)
    low, high = paced.least_and_most()
    assert low <= min(plain) and high >= max(plain)
    if first < last < total:
        end, added = paced.steady(first, last)
        assert added == 0
        assert plain[last:end] == plain[first : end - last + first]


def test_a_pace_that_hardly_comes_out_even_starts_over_seldom() -> None:
    """Transfers of 3000 bits over a bus of 10007 in 10 cycles end with a cycle every 10007 of them:
    where that may be a hundred times, each of 9 iterations of 1200 transfers starts in a new cycle,
    and every 128 of them; where it may be 8 times, every two iterations; and iterations that differ
    do so each for itself. Over a bus of 1600 bits, of which 8 transfers fill 15, each iteration
    does, and none inside; over one of 1500 none does, for each transfer fills two."""
    amounts = Loops(((9,), (1200,)), np.full((1, 1), 3000))
    odd, seldom = (Paced.of(amounts, (10007, 10), often) for often in (100, 8))
    assert (odd.afresh, odd.around, seldom.afresh) == (128, 1200, 2400)
    assert odd.steady(0, 1200) == (9 * 1200, 0) and odd.steady(1, 129) == (1200, 0)
    parts = [(9, amounts), (20, Loops(((5,),), [3000]))]
    uneven = Paced.of(Uneven(parts), (10007, 10), 30 * 29)
    assert [(times, part.afresh) for times, part in uneven.parts] == [(9, 512), (20, 1)]
    even, whole = (Paced.of(amounts, (width, 1), 100) for width in (1600, 1500))
    assert (even.afresh, even.around, whole.afresh) == (1200, 1200, len(amounts))
    never = Paced(amounts, (10007, 10))
    assert never.steady(0, 1200) == (1200, 0)
    assert never.total() <= odd.total() < never.total() + 90


@quick
@given(data=st.data(), total=st.integers(2, 60))
def test_steady_loops_repeat(data: st.DataObject, total: int) -> None:
    """From a period on until the end that is told, a number is that of a period before, and more
    by what is told."""
    some = given_loops(data.draw, total, 0, 2, rising=True)
    first = data.draw(st.integers(0, total - 2))
    last = data.draw(st.integers(first + 1, total - 1))
    end, added = some.steady(first, last)
    plain = some.window(0, total)
    assert last <= end <= total
    assert (plain[last:end] == plain[first : end - last + first] + added).all()


def test_an_outer_product_finds_its_runs() -> None:
    """Neighbours that are equal are one run, however many; a plain row is its run-length code."""
    tiles = Loops.outer([1] * 1000, [7] * 999 + [3])
    assert tiles.runs == ((1000,), (999, 1)) and len(tiles) == 10**6
    assert tiles.map(lambda v: -(-v // 2)).values.tolist() == [[4, 2]]
    assert Loops.outer([5, 5, 2, 5]).runs == ((2, 1, 1),)


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: Loops(((2, 1),), np.ones(1, int)), "need a value for each"),
        (lambda: Loops(((2, 0),), np.ones(2, int)), "at least 1 iteration"),
        (lambda: Loops(((2,),), np.ones(1)), "whole numbers"),
        (lambda: Loops(((2,),), np.ones(1, int), (1, 2)), "as many steps"),
        (lambda: Loops.outer([1, 2]).map(np.add, Loops.outer([1, 1])), "the same runs"),
        (lambda: Actor(name="a", firings=3, busy=Loops.outer([1, 2])), "loops of 2 firings"),
        (lambda: Actor(name="a", busy=Loops.outer([1, -2])), "must be 0 to"),
    ],
)
def test_what_cannot_be_is_an_error_message(make: Any, why: str) -> None:
    """Shapes, signs and lengths are checked where they are given."""
    with pytest.raises(InputError, match=why):
        make()


# runs


@st.composite
def repeating_netlists(draw) -> Netlist:
    """Actors in loops, with queues, shared and banked resources, banks of lanes and deadlocks."""
    resources = [
        Resource(name="bus", servers=draw(st.integers(1, 2))),
        Resource(name="banks", servers=2, banked=True),
    ]
    actors = []
    for i in range(draw(st.integers(1, 4))):
        firings = draw(st.sampled_from([1, 6, 24, 60, 120, 240]))
        resource = draw(st.sampled_from([None, None, "bus", "bus", "banks"]))
        lanes = 1 if resource else draw(st.sampled_from([1, 1, 1, 3]))
        ranks: Any = 0
        if resource:
            ranks = given_loops(draw, firings, 0, 2, rising=True) if draw(st.booleans()) else 0
        actors.append(
            Actor(
                name=f"a{i}",
                lanes=lanes,
                firings=firings,
                busy=given_loops(draw, firings, 1 if resource else 0, 6),
                latency=given_loops(draw, firings, 1, 6) if draw(st.booleans()) else None,
                resource=resource,
                rank=ranks,
                request=np.full((firings, 1), i % 2) if resource == "banks" else None,
            )
        )
    channels = []
    for i in range(draw(st.integers(0, 5))):
        source, target = draw(st.sampled_from(actors)), draw(st.sampled_from(actors))
        pattern = Pattern.LANE
        if source.lanes != target.lanes:
            pattern = Pattern.BROADCAST if source.lanes == 1 else Pattern.GATHER
        capacity = draw(st.integers(1, 5))
        make, take = 1, 1
        if draw(st.booleans()):
            make = given_loops(draw, source.count, 0, min(capacity, 2))
            take = given_loops(draw, target.count, 0, min(capacity, 2))
        channels.append(
            Channel(
                name=f"c{i}",
                source=source.name,
                target=target.name,
                capacity=capacity,
                pattern=pattern,
                produce=make,
                consume=take,
            )
        )
    used = {actor.resource for actor in actors}
    return Netlist(actors, channels, [r for r in resources if r.name in used])


def written_out(netlist: Netlist) -> Netlist:
    """The same with arrays in place of loops."""

    def plain(given: Any) -> Any:
        return np.asarray(given) if isinstance(given, Loops) else given

    actors = [
        Actor(
            name=a.name,
            lanes=a.lanes,
            firings=a.count,
            busy=plain(a.busy),
            latency=plain(a.latency),
            rank=plain(a.rank),
            resource=a.resource,
            request=a.request,
        )
        for a in netlist.actors
    ]
    channels = [
        Channel(
            name=c.name,
            source=c.source,
            target=c.target,
            capacity=c.capacity,
            pattern=c.pattern,
            produce=plain(c.produce),
            consume=plain(c.consume),
        )
        for c in netlist.channels
    ]
    return Netlist(actors, channels, netlist.resources)


def outcome(netlist: Netlist, **options: Any) -> Timeline:
    try:
        return simulate(netlist, record="summary", **options)
    except Deadlock as stuck:
        return stuck.timeline.summary()


def equal(one: Timeline, two: Timeline) -> bool:
    names = ("busy", "starved", "blocked", "waiting", "finished")
    return one.cycles == two.cycles and all(
        np.array_equal(one.fired[i], two.fired[i])
        and all(
            np.array_equal(getattr(one.lane_times(a.name), n), getattr(two.lane_times(a.name), n))
            for n in names
        )
        for i, a in enumerate(one.netlist.actors)
    )


@settings(quick, max_examples=60)
@given(netlist=repeating_netlists())
def test_a_run_with_jumps_is_the_run_without(netlist: Netlist) -> None:
    """Every sum of every lane, firings done and cycles, in time or in a deadlock."""
    assert equal(outcome(netlist), outcome(written_out(netlist)))


@st.composite
def patient_netlists(draw) -> Netlist:
    """Streams keep a bus busy, and a load of what comes later waits until their ranks are its own,
    or until the bus is free for once: the weights of a tile loop."""
    outer, inner = draw(st.integers(2, 4)), draw(st.integers(12, 48))
    sizes, ahead = ((outer,), (inner,)), draw(st.integers(-6, 20))
    flat = np.zeros((1, 1), int)
    streams = [
        Actor(
            name=f"stream{i}",
            busy=loops(draw, outer * inner, 1, 3) if draw(st.booleans()) else 2,
            firings=outer * inner,
            resource="bus",
            rank=Loops(sizes, flat + 9, (inner, 1)),
        )
        for i in range(draw(st.integers(1, 2)))
    ]
    pieces = draw(st.integers(1, 3))
    late = Actor(
        name="late",
        busy=draw(st.integers(1, 5)),
        firings=outer * pieces,
        resource="bus",
        rank=Loops(((outer,), (pieces,)), flat + 9 + ahead, (inner, 0)),
    )
    first = Loops(((outer,), (1, inner - 1)), np.array([[pieces, 0]]))
    array = Actor(name="array", firings=outer * inner, busy=draw(st.integers(1, 6)))
    rooms = [draw(st.integers(1, 9)) for _ in streams]
    channels = [
        Channel(name=f"of {s.name}", source=s.name, target="array", capacity=room)
        for s, room in zip(streams, rooms, strict=True)
    ]
    ready = Channel(name="ready", source="late", target="array", capacity=pieces * 2, consume=first)
    bus = Resource(name="bus", servers=draw(st.sampled_from([1, 1, 1, 2])))
    return Netlist([*streams, late, array], [*channels, ready], [bus])


@settings(quick, max_examples=40)
@given(netlist=patient_netlists())
def test_what_waits_through_a_period_is_granted_when_it_would_be(netlist: Netlist) -> None:
    """A period with a request that waits throughout ends when that is granted after all."""
    assert equal(outcome(netlist), outcome(written_out(netlist)))


@settings(quick, max_examples=25)
@given(netlist=repeating_netlists())
def test_simpy_reads_loops_to_the_same_end(netlist: Netlist) -> None:
    """The definition, firing by firing."""
    assert equal(outcome(netlist), outcome(netlist, engine="simpy"))


def test_latencies_that_differ_are_seen_behind_a_jump() -> None:
    """The last of a thousand firings is the only one whose result takes longer than it."""
    late = Loops(((999, 1),), np.array([6, 9]))
    found = outcome(Netlist([Actor(name="a", busy=Loops(((1000,),), np.array([3])), latency=late)]))
    assert found.cycles == 999 * 3 + 9


def tiled(rows: int, columns: int, depth: int) -> Netlist:
    """A tile loop as array machines have it: weights, inputs and outputs share a bus, a ring buffer
    each; the array; outputs leave after the last step of depth. The last tiles are smaller."""

    def edge(size: int, inside: int, last: int) -> list[int]:
        return [inside] * (size - 1) + [last]

    sizes, steps = ((rows,), (columns,), (depth,)), (columns * depth, depth, 1)
    order = Loops(sizes, np.zeros((1, 1, 1), int), steps)
    weights = Loops.outer(edge(rows, 6, 3), [1] * columns, edge(depth, 2, 1))
    inputs = Loops.outer([1] * rows, edge(columns, 5, 2), edge(depth, 3, 1))
    work = Loops.outer(edge(rows, 8, 5), edge(columns, 2, 1), edge(depth, 2, 1))
    outputs = Loops.outer(edge(rows, 7, 3), edge(columns, 2, 1))
    leave = Loops.outer([1] * rows, [1] * columns, [0] * (depth - 1) + [1])
    return Netlist(
        [
            Actor(name="weights", busy=weights, resource="bus", rank=order),
            Actor(name="inputs", busy=inputs, resource="bus", rank=order),
            Actor(name="array", busy=work),
            Actor(name="outputs", busy=outputs, resource="bus"),
        ],
        [
            Channel(name="w", source="weights", target="array", capacity=2),
            Channel(name="x", source="inputs", target="array", capacity=3),
            Channel(name="y", source="array", target="outputs", capacity=2, produce=leave),
        ],
        [Resource(name="bus")],
    )


@pytest.mark.parametrize("sizes", [(2, 3, 2), (9, 5, 30), (40, 13, 6), (3, 40, 40)])
def test_a_tile_loop_is_the_loop_written_out(sizes: tuple[int, int, int]) -> None:
    """With a bus that three contend for, and edges in every loop."""
    netlist = tiled(*sizes)
    assert equal(outcome(netlist), outcome(written_out(netlist)))


def test_the_cost_of_a_tile_loop_does_not_grow_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """For eight and 64 times a million tiles the engine stops no more often and takes no more
    memory; the cycles of what repeats grow in proportion."""
    looks: list[int] = []
    original = repeating.Moment.of

    def counted(*state: Any) -> Any:
        looks.append(1)
        return original(*state)

    monkeypatch.setattr(repeating.Moment, "of", counted)
    taken, cycles, peaks = [], [], []
    for scale in (1, 8, 64):
        looks.clear()
        tracemalloc.start()
        cycles.append(outcome(tiled(64 * scale, 128, 128)).cycles)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        taken.append(len(looks))
    assert max(taken) < 2 * min(taken) < 1000
    assert max(peaks) < 10e6
    row = (cycles[1] - cycles[0]) / (7 * 64)
    assert cycles[2] - cycles[1] == row * 56 * 64


@pytest.mark.slow
def test_the_largest_tile_loops_end_as_gone_through() -> None:
    """DianNao's 765,440 tiles and the layers of LLaMA-7B on Bit Fusion, cycles and all sums; with
    jumps at most a quarter of the time."""
    for name, netlist in fast_forward.netlists():
        jumped, seconds = fast_forward.timed(netlist)
        with fast_forward.without_jumps():
            through, all_seconds = fast_forward.timed(netlist)
        assert equal(jumped, through), name
        assert seconds < all_seconds / 4 or netlist.lane_firings < 10**6, name
