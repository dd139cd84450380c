"""Is each gate tight? A firing does not start one cycle before its last condition holds, and does
start in the very cycle it holds: rules (a) to (d) one at a time, by hand, on both engines."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from netlists import OpenRow

from sparqsim.simulator.engines import simulate
from sparqsim.simulator.netlist import Actor, Channel, Netlist, Pattern, Resource
from sparqsim.simulator.timeline import FREE, GRANT, INPUT, OUTPUT, PREVIOUS, Timeline


@pytest.fixture(params=["compiled", "simpy"])
def run(request):
    """Runs a netlist on one of the engines, each in turn."""
    return lambda *parts: simulate(Netlist(*parts), engine=request.param)


def starts(timeline: Timeline, actor: str) -> list[int]:
    """The starts of an actor with one lane."""
    return timeline.starts_of(actor)[:, 0].tolist()


def causes(timeline: Timeline, actor: str) -> list[int]:
    """The causes of an actor with one lane."""
    return timeline.causes_of(actor)[:, 0].tolist()


def queue(source: str, target: str, capacity: int = 9, **more) -> Channel:
    return Channel(
        name=f"{source}-{target}", source=source, target=target, capacity=capacity, **more
    )


def idle_until(name: str, cycle: int, firings: int = 1, **more) -> tuple[Actor, np.ndarray]:
    """An actor that computes alone for ``cycle`` cycles first, and the tokens it takes a firing."""
    actor = Actor(name=name, busy=np.array([cycle] + [1] * firings), **more)
    return actor, np.array([0] + [1] * firings)


# (a) the previous firing


def test_a_firing_starts_when_the_previous_one_ends(run) -> None:
    """Starts are the running sum of busy; a firing of no cycles lets the next start at once."""
    r = run([Actor(name="a", busy=np.array([3, 0, 2, 1]))])
    assert starts(r, "a") == [0, 3, 3, 5] and r.cycles == 6
    assert causes(r, "a") == [FREE, PREVIOUS, PREVIOUS, PREVIOUS]


def test_lanes_wait_for_their_own_previous_firing_only(run) -> None:
    """A slow lane does not hold back the others of its bank."""
    r = run([Actor(name="a", lanes=2, busy=np.array([[1, 5], [1, 5]]))])
    assert r.starts_of("a").tolist() == [[0, 0], [1, 5]]


def test_latency_does_not_hold_the_lane(run) -> None:
    """A pipelined actor starts again when it is no longer busy, though its result is to come."""
    r = run(
        [Actor(name="a", firings=3, busy=1, latency=10), Actor(name="b", firings=3)],
        [queue("a", "b")],
    )
    assert starts(r, "a") == [0, 1, 2] and starts(r, "b") == [10, 11, 12]


# (b) input tokens


@pytest.mark.parametrize("latency", [1, 2, 3, 7])
@pytest.mark.parametrize("busy", [0, 1, 4])
def test_a_token_is_visible_exactly_at_start_plus_latency(run, latency: int, busy: int) -> None:
    """Neither a cycle sooner nor later, whether the maker is still busy or long done."""
    r = run(
        [Actor(name="a", firings=1, busy=busy, latency=latency), Actor(name="b", firings=1)],
        [queue("a", "b")],
    )
    assert starts(r, "b") == [latency] and causes(r, "b") == [INPUT]


@pytest.mark.parametrize(("busy", "latency"), [(0, 1), (1, 1), (2, 2), (5, 5)])
def test_latency_is_by_default_busy_and_at_least_one(run, busy: int, latency: int) -> None:
    """Results are there when the firing ends; nothing crosses to another actor within a cycle."""
    r = run([Actor(name="a", firings=1, busy=busy), Actor(name="b", firings=1)], [queue("a", "b")])
    assert starts(r, "b") == [latency]


@pytest.mark.parametrize("own", [3, 4, 5, 6])
def test_the_last_condition_is_the_cause_and_a_tie_names_the_earlier(run, own: int) -> None:
    """Token at 5: free before, the token is the cause; free at 5 or later, the previous firing."""
    b, consume = idle_until("b", own)
    r = run([Actor(name="a", firings=1, busy=5), b], [queue("a", "b", consume=consume)])
    assert starts(r, "b") == [0, max(own, 5)]
    assert causes(r, "b") == [FREE, INPUT if own < 5 else PREVIOUS]


def test_tokens_never_overtake(run) -> None:
    """A quick result behind a slow one of the same queue becomes visible with it, not before."""
    r = run(
        [
            Actor(name="a", firings=4, busy=1, latency=np.array([9, 1, 1, 8])),
            Actor(name="b", firings=4, busy=0),
        ],
        [queue("a", "b")],
    )
    assert starts(r, "b") == [9, 9, 9, 11]


def test_a_firing_of_two_waits_for_the_slow_one_in_front(run) -> None:
    """The second token is made to show at 2, but stands behind one that shows at 9."""
    r = run(
        [
            Actor(name="a", firings=2, latency=np.array([9, 1])),
            Actor(name="b", firings=1),
        ],
        [queue("a", "b", consume=2)],
    )
    assert starts(r, "b") == [9]


def test_tokens_of_different_queues_may_overtake(run) -> None:
    """Order is kept within a queue; the lanes of one bank do not wait for each other."""
    r = run(
        [
            Actor(name="a", lanes=2, firings=1, latency=np.array([[9, 1]])),
            Actor(name="b", lanes=2, firings=1),
        ],
        [queue("a", "b")],
    )
    assert r.starts_of("b").tolist() == [[9, 1]]


@pytest.mark.parametrize(("need", "start"), [(1, 2), (2, 2), (3, 4), (4, 4), (5, 6)])
def test_a_firing_waits_for_all_the_tokens_it_takes(run, need: int, start: int) -> None:
    """Two tokens come every 2 cycles; a firing of ``need`` starts with the last of them."""
    r = run(
        [Actor(name="a", firings=3, busy=2), Actor(name="b", firings=1)],
        [queue("a", "b", produce=2, consume=need)],
    )
    assert starts(r, "b") == [start]


def test_all_inputs_are_waited_for(run) -> None:
    """The later of two queues decides; on a tie the earlier declared is named."""
    for slow, cause in ((2, INPUT), (3, INPUT), (4, INPUT + 2)):
        r = run(
            [
                Actor(name="a", firings=1, busy=3),
                Actor(name="b", firings=1, busy=slow),
                Actor(name="c", firings=1),
            ],
            [queue("a", "c"), queue("b", "c")],
        )
        assert starts(r, "c") == [max(3, slow)] and causes(r, "c") == [cause]


@pytest.mark.parametrize("slowest", [0, 1, 2])
def test_a_gather_waits_for_every_lane(run, slowest: int) -> None:
    """One consumer takes a token of each lane at once, in the cycle the last is visible."""
    busy = np.array([[2, 2, 2]])
    busy[0, slowest] = 6
    r = run(
        [Actor(name="a", lanes=3, busy=busy), Actor(name="b", firings=1)],
        [queue("a", "b", pattern=Pattern.GATHER)],
    )
    assert starts(r, "b") == [6] and causes(r, "b") == [INPUT]


def test_a_firing_that_takes_nothing_is_not_bound(run) -> None:
    """A rate of 0 asks nothing of an empty queue."""
    r = run(
        [Actor(name="a", firings=1, busy=8), Actor(name="b", firings=3)],
        [queue("a", "b", consume=np.array([0, 0, 1]))],
    )
    assert starts(r, "b") == [0, 1, 8] and causes(r, "b") == [FREE, PREVIOUS, INPUT]


# (c) free slots


@pytest.mark.parametrize("pop", [1, 2, 3, 6])
def test_a_popped_slot_is_room_one_cycle_later(run, pop: int) -> None:
    """The slot taken at ``pop`` lets the producer start at pop + 1, not at pop."""
    b, consume = idle_until("b", pop, firings=2)
    r = run([Actor(name="a", firings=2), b], [queue("a", "b", 1, consume=consume)])
    assert starts(r, "b")[1] == pop
    assert starts(r, "a") == [0, pop + 1] and causes(r, "a") == [FREE, OUTPUT]


@pytest.mark.parametrize(("capacity", "pace"), [(1, 2), (2, 1), (3, 1)])
def test_one_slot_halves_the_rate_and_two_do_not(run, capacity: int, pace: int) -> None:
    """Push, pop a cycle later, free a cycle after that: a slot serves one token in 2 cycles."""
    r = run([Actor(name="a", firings=9), Actor(name="b", firings=9)], [queue("a", "b", capacity)])
    assert starts(r, "a") == [pace * k for k in range(9)]


@pytest.mark.parametrize(("capacity", "popped"), [(2, 2), (3, 1), (4, 0)])
def test_slots_are_needed_for_all_the_tokens_made(run, capacity: int, popped: int) -> None:
    """Two at a time: the second firing starts a cycle after the last slot it lacks is popped."""
    b, consume = idle_until("b", 10, firings=4)
    r = run(
        [Actor(name="a", firings=2), b], [queue("a", "b", capacity, produce=2, consume=consume)]
    )
    assert starts(r, "a")[1] == (10 + popped if popped else 1)


def test_slots_are_taken_at_the_start_not_when_tokens_show(run) -> None:
    """A slot is taken while its token is still on the way."""
    r = run(
        [Actor(name="a", firings=2, latency=20), Actor(name="b", firings=2)], [queue("a", "b", 1)]
    )
    assert starts(r, "a") == [0, 21] and starts(r, "b") == [20, 41]


@pytest.mark.parametrize("slowest", [0, 1, 2])
def test_a_broadcast_is_all_or_nothing(run, slowest: int) -> None:
    """With one queue full no lane gets the token, though the others have long had free slots."""
    busy = np.ones((3, 3), int)
    busy[0, slowest] = 12
    r = run(
        [Actor(name="a", firings=2), Actor(name="b", lanes=3, busy=busy)],
        [queue("a", "b", 1, pattern=Pattern.BROADCAST, consume=np.array([0, 1, 1]))],
    )
    assert starts(r, "a") == [0, 13] and causes(r, "a") == [FREE, OUTPUT]
    expected = [1, 1, 1]
    expected[slowest] = 12
    assert r.starts_of("b")[1].tolist() == expected
    assert r.starts_of("b")[2].tolist() == [14, 14, 14]


def test_a_gather_frees_all_its_queues_at_once(run) -> None:
    """Every producing lane has a free slot a cycle after the one pop."""
    r = run(
        [
            Actor(name="a", lanes=3, busy=np.array([[1, 2, 5], [1, 1, 1]])),
            Actor(name="b", firings=2),
        ],
        [queue("a", "b", 1, pattern=Pattern.GATHER)],
    )
    assert starts(r, "b")[0] == 5
    assert r.starts_of("a")[1].tolist() == [6, 6, 6]


def test_a_firing_that_makes_nothing_is_not_bound(run) -> None:
    """A rate of 0 asks nothing of a full queue."""
    b, consume = idle_until("b", 20)
    r = run(
        [Actor(name="a", firings=4), b],
        [queue("a", "b", 1, produce=np.array([1, 0, 0, 0]), consume=consume)],
    )
    assert starts(r, "a") == [0, 1, 2, 3]


def test_input_is_named_before_room_on_a_tie(run) -> None:
    """Token and slot in the same cycle: the token is the cause; a cycle later the slot is."""
    for pop, cause in ((6, INPUT), (7, OUTPUT + 2)):
        c, consume = idle_until("c", pop, firings=2)
        r = run(
            [
                Actor(name="a", busy=np.array([1, 6])),
                Actor(name="b", firings=2),
                c,
            ],
            [queue("a", "b"), queue("b", "c", 1, consume=consume)],
        )
        assert starts(r, "b")[1] == max(7, pop + 1) and causes(r, "b")[1] == cause


# patterns


@pytest.mark.parametrize("offset", [-2, -1, 1, 2, 4])
def test_shift_edges_run_free(run, offset: int) -> None:
    """Lane i feeds lane i + offset; a lane without a feeder or a taker is not held back."""
    lanes = 4
    busy = np.arange(3, 3 + lanes)[None, :]
    r = run(
        [Actor(name="a", lanes=lanes, busy=busy), Actor(name="b", lanes=lanes, firings=1)],
        [queue("a", "b", 1, pattern=Pattern.SHIFT, offset=offset)],
    )
    fed = [lane - offset for lane in range(lanes)]
    assert r.starts_of("b")[0].tolist() == [3 + i if 0 <= i < lanes else 0 for i in fed]


def test_shift_producers_without_a_taker_are_never_full(run) -> None:
    """The last lane makes tokens for nobody and never blocks."""
    r = run(
        [Actor(name="a", lanes=3, firings=4), Actor(name="b", lanes=3, firings=4, busy=5)],
        [queue("a", "b", 1, pattern=Pattern.SHIFT)],
    )
    assert r.starts_of("a")[:, 2].tolist() == [0, 1, 2, 3]
    assert r.starts_of("a")[:, 0].tolist() == [0, 2, 7, 12]


def test_a_systolic_row_moves_one_lane_a_cycle(run) -> None:
    """A bank that shifts to itself: lane i does step k in cycle k + i."""
    lanes, steps = 5, 4
    r = run(
        [Actor(name="pe", lanes=lanes, firings=steps)],
        [queue("pe", "pe", 2, pattern=Pattern.SHIFT)],
    )
    assert r.starts_of("pe").tolist() == [[k + i for i in range(lanes)] for k in range(steps)]


def test_a_chain_of_no_busy_cycles_moves_one_actor_a_cycle(run) -> None:
    """Nothing that happens in a cycle is seen by another actor before the next."""
    names = [f"n{i}" for i in range(6)]
    r = run(
        [Actor(name=name, firings=3, busy=0) for name in names],
        [queue(x, y) for x, y in itertools.pairwise(names)],
    )
    assert [starts(r, name) for name in names] == [[i] * 3 for i in range(6)]


# (d) resources

BUS = Resource(name="bus")


def user(name: str, arrival: int = 0, hold: int = 4, **more) -> list:
    """An actor ``name`` that asks for the bus once, in cycle ``arrival``, and what delays it."""
    if not arrival:
        return [[Actor(name=name, firings=1, busy=hold, resource="bus", **more)], []]
    gate = Actor(name=f"gate-{name}", firings=1, busy=arrival)
    actor = Actor(name=name, firings=1, busy=hold, resource="bus", **more)
    return [[gate, actor], [queue(gate.name, name)]]


def joined(*users: list) -> tuple[list[Actor], list[Channel]]:
    return [a for u in users for a in u[0]], [c for u in users for c in u[1]]


@pytest.mark.parametrize("arrival", [0, 3, 4, 5])
def test_a_held_server_is_granted_in_the_cycle_it_becomes_free(run, arrival: int) -> None:
    """Held for cycles 0 to 3: granted at 4. Who comes at 4 or later did not wait for it."""
    r = run(*joined(user("a"), user("b", arrival)), [BUS])
    assert starts(r, "b") == [max(4, arrival)]
    own = INPUT if arrival else FREE
    assert causes(r, "b") == [GRANT if arrival < 4 else own]
    grants = r.grants[r.netlist.index("b")]
    assert grants.ready.tolist() == [[arrival]] and grants.causes.tolist() == [[own]]


@pytest.mark.parametrize("servers", [1, 2, 3, 4, 5])
def test_n_servers_serve_n_at_once(run, servers: int) -> None:
    """Ten requests of 3 cycles at cycle 0: n of them every 3 cycles, lower lanes first."""
    r = run(
        [Actor(name="a", lanes=10, firings=1, busy=3, resource="bus")],
        [],
        [Resource(name="bus", servers=servers)],
    )
    assert r.starts_of("a")[0].tolist() == [3 * (lane // servers) for lane in range(10)]


def test_the_oldest_request_goes_first(run) -> None:
    """Age decides before the order of declaration."""
    r = run(*joined(user("first", 3), user("second", 2), user("holder", hold=9)), [BUS])
    assert (starts(r, "second"), starts(r, "first")) == ([9], [13])


def test_the_least_rank_goes_before_the_oldest(run) -> None:
    """A firing's own rank decides before age: what is needed sooner has the lower one."""
    actors = [
        Actor(name="holder", firings=1, busy=4, resource="bus"),
        Actor(name="later", busy=np.array([1, 1]), rank=np.array([5, 6]), resource="bus"),
        Actor(name="sooner", busy=np.array([1, 1]), rank=np.array([3, 7]), resource="bus"),
    ]
    r = run(actors, [], [BUS])
    assert (starts(r, "sooner"), starts(r, "later")) == ([4, 7], [5, 6])


def test_ties_go_to_the_earlier_declared_then_to_the_lower_lane(run) -> None:
    """Equal ages: actors in the order of declaration, and within one its lanes in order."""
    actors = [
        Actor(name=name, lanes=2, firings=1, busy=1, resource="bus") for name in ("z", "a", "m")
    ]
    r = run(actors, [], [BUS])
    assert [r.starts_of(name)[0].tolist() for name in ("z", "a", "m")] == [[0, 1], [2, 3], [4, 5]]


def test_a_request_queues_only_when_all_else_holds(run) -> None:
    """An idle lane whose token comes at 5 queues from 5, behind one that asked at 4."""
    r = run(*joined(user("early", 5), user("late", 4), user("holder", hold=10)), [BUS])
    assert (starts(r, "late"), starts(r, "early")) == ([10], [14])


def test_a_request_queues_only_when_there_is_room(run) -> None:
    """Blocked by a full queue until 6, it queues from 6, behind one that asked at 5."""
    sink, consume = idle_until("sink", 5, firings=2)
    actors, channels = joined(user("rival", 5), user("holder", hold=1))
    blocked = Actor(name="blocked", busy=np.array([1, 4]), resource="bus")
    hog = Actor(name="hog", busy=np.array([8]), resource="bus")
    r = run(
        [hog, blocked, sink, *actors],
        [*channels, queue("blocked", "sink", 1, consume=consume)],
        [Resource(name="bus", servers=2)],
    )
    # Two servers: hog to 8; the other: blocked 0-1, holder 1-2, rival at 5-9; then hog's at 8.
    ready = r.grants[1].ready[:, 0].tolist()
    assert starts(r, "rival") == [5] and ready == [0, 6] and starts(r, "blocked") == [0, 8]


@pytest.mark.parametrize(("arrival", "hit", "miss"), [(6, 7, 9), (7, 7, 9), (8, 14, 7)])
def test_a_newcomer_in_the_cycle_of_the_grant_is_heard(run, arrival, hit, miss) -> None:
    """Servers decide once all else in the cycle has happened: a row hit that arrives in the very
    cycle the memory becomes free goes before an older miss; one cycle later it does not."""
    gate = Actor(name="gate", firings=1, busy=arrival)
    users = [
        Actor(name=name, firings=1, resource="memory", request=np.array([[[0, row, 0]]]))
        for name, row in (("opener", 0), ("miss", 1), ("hit", 0))
    ]
    r = run([gate, *users], [queue("gate", "hit")], [Resource(name="memory", model=OpenRow())])
    assert (starts(r, "hit"), starts(r, "miss")) == ([hit], [miss])


def test_banks_are_waited_for_one_by_one(run) -> None:
    """A request waits for its own bank only, though others are free, and blocks no one else."""
    request = np.array([[[0], [0], [1], [1], [2]]])
    r = run(
        [Actor(name="a", lanes=5, firings=1, busy=4, resource="sram", request=request)],
        [],
        [Resource(name="sram", servers=3, banked=True)],
    )
    assert r.starts_of("a")[0].tolist() == [0, 4, 0, 4, 0]
    assert r.causes_of("a")[0].tolist() == [FREE, GRANT, FREE, GRANT, FREE]


def test_the_next_firing_of_a_lane_asks_again(run) -> None:
    """A lane does not keep the server between firings: the lane that has waited goes before it."""
    r = run([Actor(name="a", lanes=2, firings=3, busy=2, resource="bus")], [], [BUS])
    assert r.starts_of("a").tolist() == [[0, 2], [4, 6], [8, 10]]


def test_tokens_of_a_granted_firing_count_from_the_grant(run) -> None:
    """Start, not request, plus latency."""
    actors, channels = joined(user("a", hold=6), user("b", hold=2, latency=5))
    r = run([*actors, Actor(name="c", firings=1)], [*channels, queue("b", "c")], [BUS])
    assert starts(r, "b") == [6] and starts(r, "c") == [11]


def test_a_granted_firing_pops_at_the_grant(run) -> None:
    """The slot it empties is free from the cycle after the grant, not after the request."""
    actors = [
        Actor(name="make", firings=2),
        Actor(name="hog", firings=1, busy=9, resource="bus"),
        Actor(name="take", firings=2, busy=1, resource="bus"),
    ]
    r = run(actors, [queue("make", "take", 1)], [BUS])
    assert starts(r, "take")[0] == 9 and starts(r, "make") == [0, 10]


def test_a_stateful_resource_sets_hold_busy_and_latency(run) -> None:
    """A miss holds 7 cycles, a hit 2; the answer of a request is visible with its extra cycles."""
    request = np.array([[0, 5, 3], [0, 5, 3], [0, 6, 0]])
    r = run(
        [
            Actor(name="a", firings=3, resource="memory", request=request),
            Actor(name="b", firings=3, busy=0),
        ],
        [queue("a", "b")],
        [Resource(name="memory", model=OpenRow())],
    )
    assert starts(r, "a") == [0, 7, 9] and starts(r, "b") == [10, 12, 16]
    assert r.grants[0].held[:, 0].tolist() == [7, 2, 7]
