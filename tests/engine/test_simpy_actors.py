"""Can a user extend the reference engine? Actors of one's own among declared ones, observers,
stepping, and arithmetic run firing by firing, in which a token lost, doubled or reordered shows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from netlists import OpenRow

from sparqsim.base import InputError
from sparqsim.simulator.critical_path import critical_path
from sparqsim.simulator.engines import actors as engine
from sparqsim.simulator.engines import simulate
from sparqsim.simulator.engines.actors import Lane, Simulation
from sparqsim.simulator.engines.links import Link
from sparqsim.simulator.netlist import Actor, Channel, Netlist, Pattern, Resource
from sparqsim.simulator.timeline import GRANT, INPUT, OUTPUT, PREVIOUS


def queue(source: str, target: str, capacity: int = 2, **more) -> Channel:
    return Channel(
        name=f"{source}-{target}", source=source, target=target, capacity=capacity, **more
    )


def run(*parts, **options):
    return simulate(Netlist(*parts), engine="simpy", **options)


# behaviours


def test_a_source_and_a_sink_of_ones_own() -> None:
    """A source with values, a declared stage, a sink: values pass, cycles are the rules'."""
    got = []

    def source(lane: Lane):
        for value in "xyz":
            yield from lane.fire(busy=3, produce={"source-sink": [value]})

    def sink(lane: Lane):
        while True:
            taken = yield from lane.fire(busy=1, consume={"source-sink": 1})
            got.append((lane.now, taken["source-sink"]))

    r = run(
        [Actor(name="source", behaviour=source), Actor(name="sink", behaviour=sink)],
        [queue("source", "sink")],
    )
    assert got == [(3, ["x"]), (6, ["y"]), (9, ["z"])]
    assert r.starts_of("source")[:, 0].tolist() == [0, 3, 6] and r.cycles == 10
    assert r.causes_of("sink")[:, 0].tolist() == [INPUT] * 3


@settings(max_examples=60, deadline=None)
@given(
    busy=st.lists(st.integers(0, 5), min_size=1, max_size=12),
    delay=st.lists(st.integers(1, 7), min_size=12, max_size=12),
    makes=st.lists(st.integers(0, 2), min_size=12, max_size=12),
    capacity=st.integers(2, 4),
    sink_busy=st.integers(0, 4),
)
def test_a_behaviour_is_worth_the_same_declared(busy, delay, makes, capacity, sink_busy) -> None:
    """The same firings written as a generator and as arrays: equal starts, causes, lane times,
    occupancy and critical path."""
    count = len(busy)
    tokens = sum(makes[:count])

    def written(lane: Lane):
        for k in range(count):
            yield from lane.fire(busy[k], delay[k], produce={"a-b": makes[k]})

    def taker(lane: Lane):
        for _ in range(tokens):
            yield from lane.fire(busy=sink_busy, consume={"a-b": 1})

    declared = simulate(
        Netlist(
            [
                Actor(name="a", busy=np.array(busy), latency=np.array(delay[:count])),
                Actor(name="b", firings=tokens, busy=sink_busy),
            ],
            [queue("a", "b", capacity, produce=np.array(makes[:count]))],
        )
    )
    own = run(
        [Actor(name="a", behaviour=written), Actor(name="b", behaviour=taker)],
        [queue("a", "b", capacity)],
    )
    assert own.cycles == declared.cycles
    for name in "ab":
        np.testing.assert_array_equal(own.starts_of(name), declared.starts_of(name))
        np.testing.assert_array_equal(own.causes_of(name), declared.causes_of(name))
        assert own.lane_times(name).totals() == declared.lane_times(name).totals()
    for mine, other in zip(own.occupancy("a-b"), declared.occupancy("a-b"), strict=True):
        np.testing.assert_array_equal(mine, other)
    np.testing.assert_array_equal(critical_path(own).cycles, critical_path(declared).cycles)
    assert critical_path(own).shares() == critical_path(declared).shares()


def test_routing_that_depends_on_data() -> None:
    """A router sends even values left and odd ones right; no declared rate could say that."""
    seen: dict[str, list[int]] = {"left": [], "right": []}

    def source(lane: Lane):
        for value in (4, 7, 1, 8, 2, 5):
            yield from lane.fire(produce={"source-router": [value]})

    def router(lane: Lane):
        while True:
            taken = yield from lane.fire(consume={"source-router": 1})
            value = taken["source-router"][0]
            way = "right" if value % 2 else "left"
            yield from lane.fire(busy=0, produce={f"router-{way}": [value]})

    def sink(lane: Lane):
        name = lane.actor.name
        while True:
            taken = yield from lane.fire(busy=2, consume={f"router-{name}": 1})
            seen[name] += taken[f"router-{name}"]

    r = run(
        [
            Actor(name="source", behaviour=source),
            Actor(name="router", behaviour=router),
            Actor(name="left", behaviour=sink),
            Actor(name="right", behaviour=sink),
        ],
        [queue("source", "router"), queue("router", "left"), queue("router", "right")],
    )
    assert seen == {"left": [4, 8, 2], "right": [7, 1, 5]}
    assert [int(fired[0]) for fired in r.fired] == [6, 12, 3, 3]
    assert critical_path(r).cycles.sum() == r.cycles


def test_behaviours_and_declared_actors_share_banks_and_patterns() -> None:
    """A behaviour broadcasts into a declared bank; another gathers its lanes, in order."""
    sums = []

    def source(lane: Lane):
        for k in range(3):
            yield from lane.fire(produce={"source-pe": [k]})

    def gather(lane: Lane):
        while True:
            taken = yield from lane.fire(consume={"pe-gather": 1})
            sums.append(taken["pe-gather"])

    pe = Actor(
        name="pe",
        lanes=4,
        firings=3,
        busy=np.array([[1, 2, 3, 4]]),
        execute=lambda lane, k, got: {"pe-gather": [10 * lane + got["source-pe"][0]]},
    )
    parts = (
        [Actor(name="source", behaviour=source), pe, Actor(name="gather", behaviour=gather)],
        [
            queue("source", "pe", pattern=Pattern.BROADCAST),
            queue("pe", "gather", pattern=Pattern.GATHER),
        ],
    )
    r = run(*parts, verify="execute")
    assert sums == [[0, 10, 20, 30], [1, 11, 21, 31], [2, 12, 22, 32]]
    # The slowest lane sets the pace: 4 cycles a firing, from 1, visible 4 later.
    assert r.starts_of("gather")[:, 0].tolist() == [5, 9, 13]


def test_a_behaviour_holds_a_resource() -> None:
    """A lane of one's own queues for the bus as any other; its wait is counted."""

    def greedy(lane: Lane):
        for _ in range(2):
            yield from lane.fire(busy=4)

    r = run(
        [
            Actor(name="greedy", behaviour=greedy, resource="bus"),
            Actor(name="plain", firings=2, busy=3, resource="bus"),
        ],
        [],
        [Resource(name="bus")],
    )
    assert r.starts_of("greedy")[:, 0].tolist() == [0, 7]
    assert r.starts_of("plain")[:, 0].tolist() == [4, 11]
    assert r.causes_of("greedy")[1, 0] == GRANT
    assert r.lane_times("greedy").waiting.tolist() == [3]
    assert critical_path(r).cycles.sum() == r.cycles == 14


def test_a_behaviour_asks_a_banked_and_a_stateful_resource() -> None:
    """The request is given firing by firing; the memory computes hold and latency."""
    shown = []

    def reader(lane: Lane):
        for row in (5, 5, 6):
            yield from lane.fire(request=[0, row, 1], produce={"reader-sink": 1})

    def sink(lane: Lane):
        while True:
            yield from lane.fire(busy=0, consume={"reader-sink": 1})
            shown.append(lane.now)

    r = run(
        [
            Actor(name="reader", behaviour=reader, resource="memory"),
            Actor(name="sink", behaviour=sink),
        ],
        [queue("reader", "sink", 9)],
        [Resource(name="memory", model=OpenRow())],
    )
    assert r.starts_of("reader")[:, 0].tolist() == [0, 7, 9] and shown == [8, 10, 17]
    assert r.latency("reader")[:, 0].tolist() == [8, 3, 8]

    def banks(lane: Lane):
        yield from lane.fire(busy=5, request=[lane.index % 2])

    r = run(
        [Actor(name="a", lanes=4, behaviour=banks, resource="sram")],
        [],
        [Resource(name="sram", servers=2, banked=True)],
    )
    assert r.starts_of("a")[0].tolist() == [0, 0, 5, 5]


def test_lanes_may_fire_different_numbers_of_times() -> None:
    """What did not happen is -1 in the starts and nothing in the sums."""

    def uneven(lane: Lane):
        for _ in range(lane.index):
            yield from lane.fire(busy=2, produce={"uneven-sink": 1})

    r = run(
        [
            Actor(name="uneven", lanes=3, behaviour=uneven),
            Actor(name="sink", lanes=3, firings=2, busy=1),
        ],
        [queue("uneven", "sink", consume=np.array([[0, 1, 1], [0, 0, 1]]))],
    )
    assert r.starts_of("uneven").tolist() == [[-1, 0, 0], [-1, -1, 2]]
    assert r.fired[0].tolist() == [0, 1, 2]
    assert r.lane_times("uneven").busy.tolist() == [0, 2, 4]
    assert r.starts_of("sink").tolist() == [[0, 2, 2], [1, 3, 4]]
    assert r.lane_times("sink").starved.tolist() == [0, 2, 3]


def test_a_sink_that_waits_forever_is_no_deadlock_but_declared_firings_left_are() -> None:
    """A behaviour decides its own end; who was declared to fire and could not is told."""

    def one(lane: Lane):
        yield from lane.fire(produce={"one-two": 1})

    parts = [Actor(name="one", behaviour=one), Actor(name="two", firings=2)]
    with pytest.raises(RuntimeError, match=r"two\[0\] firing 1 waits for tokens in one-two"):
        run(parts, [queue("one", "two")])


def test_ties_between_channels_follow_declaration_not_the_order_of_asking() -> None:
    """As for a declared actor: of two tokens in one cycle the earlier declared channel is named."""

    def sink(lane: Lane):
        yield from lane.fire(consume={"b-sink": 1, "a-sink": 1})

    r = run(
        [
            Actor(name="a", firings=1),
            Actor(name="b", firings=1),
            Actor(name="sink", behaviour=sink),
        ],
        [queue("a", "sink"), queue("b", "sink")],
    )
    assert r.causes_of("sink")[0, 0] == INPUT


# mistakes


def test_the_compiled_engine_refuses_a_behaviour() -> None:
    """With an error message that names the actor and the engine that can."""

    def idle(lane: Lane):
        yield from lane.fire()

    with pytest.raises(InputError, match=r"'mine' is written in Python; .*engine='simpy'"):
        simulate(Netlist([Actor(name="mine", behaviour=idle)]))


@pytest.mark.parametrize(
    ("firing", "says"),
    [
        ({"busy": -1}, "busy must be at least 0"),
        ({"busy": 1.5}, "busy must be a whole number, got 1.5"),
        ({"latency": 0}, "latency must be at least 1"),
        ({"consume": {"nowhere": 1}}, "cannot consume tokens of 'nowhere'; .* are back-mine"),
        ({"consume": {"mine-back": 1}}, "cannot consume tokens of 'mine-back'"),
        ({"produce": {"back-mine": 1}}, "cannot produce tokens of 'back-mine'; .* are mine-back"),
        ({"consume": {"back-mine": -1}}, "tokens of 'back-mine' to consume must be at least 0"),
        ({"consume": {"back-mine": 3}}, "consume 3 tokens of 'back-mine' at once, but it holds 2"),
        ({"produce": {"mine-back": [1, 2, 3]}}, "produce 3 tokens of 'mine-back' at once"),
    ],
)
def test_an_impossible_firing_is_an_error_message(firing: dict, says: str) -> None:
    """Instead of a wait without end or a crash inside the engine."""

    def mine(lane: Lane):
        yield from lane.fire(**firing)

    with pytest.raises(InputError, match=rf"'mine'\[0\] firing 0.*{says}"):
        run(
            [Actor(name="mine", behaviour=mine), Actor(name="back", firings=1)],
            [queue("mine", "back"), queue("back", "mine")],
        )


@pytest.mark.parametrize("request_", [None, [0, 1], [2], [-1], [0.0]])
def test_a_request_a_resource_cannot_read_is_an_error_message(request_) -> None:
    """Fields and banks are checked when the firing asks."""

    def mine(lane: Lane):
        yield from lane.fire(request=request_)

    with pytest.raises(
        InputError, match=r"request must be 1 integers|request to 'sram' must be 0 to 1"
    ):
        run(
            [Actor(name="mine", behaviour=mine, resource="sram")],
            [],
            [Resource(name="sram", servers=2, banked=True)],
        )


def test_a_plain_function_is_no_behaviour() -> None:
    """A behaviour without a yield is told what it must be."""
    with pytest.raises(InputError, match="behaviour must be a generator function"):
        run([Actor(name="mine", behaviour=lambda lane: None)])


class Odd(Exception):
    """An exception that cannot be rebuilt from its arguments."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} and {two}")


def test_errors_in_a_users_code_say_where_they_happened() -> None:
    """The exception itself comes out, with a note of the actor, lane, firing and cycle."""

    def mine(lane: Lane):
        yield from lane.fire(busy=5)
        yield from lane.fire(busy=5)
        raise Odd(1, 2)

    with pytest.raises(Odd, match="1 and 2") as caught:
        run([Actor(name="mine", lanes=2, behaviour=mine)])
    assert caught.value.__notes__ == ["in actor 'mine' lane 0, after 2 firings, at cycle 5"]

    def wrong(lane: int, k: int, got: dict):
        return {"mine-sink": [1 // (3 - k)]}

    with pytest.raises(ZeroDivisionError) as caught_in_execute:
        run(
            [Actor(name="mine", firings=9, execute=wrong), Actor(name="sink", firings=9)],
            [queue("mine", "sink")],
            verify="execute",
        )
    assert "in actor 'mine' lane 0, after 4 firings" in caught_in_execute.value.__notes__[0]


def test_a_resource_of_unknown_kind_without_functions_is_named() -> None:
    """A model gives serve and rank itself, or has a kind that is in the table."""

    class Nothing(OpenRow):
        kind = "nothing"

    class Own(Nothing):
        def serve(self, params, state, request, now):
            return 3, 3, 10 - now

        def rank(self, params, state, request, now):
            return -int(request[0])

    def net(model) -> tuple:
        request = np.array([[[0, 0, 0], [1, 0, 0]]])
        user = Actor(name="a", lanes=2, firings=1, resource="memory", request=request)
        return [user], [], [Resource(name="memory", model=model)]

    with pytest.raises(InputError, match="no stateful resource of kind 'nothing'; there is"):
        run(*net(Nothing()))
    r = run(*net(Own()))
    assert r.starts_of("a")[0].tolist() == [3, 0] and r.latency("a")[0].tolist() == [7, 10]


# observers and stepping


class Log:
    """An observer that keeps all it is told."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, str, int, int, int]] = []

    def fired(self, cycle: int, actor: str, lane: int, firing: int, cause: int) -> None:
        self.rows.append((cycle, actor, lane, firing, cause))


NET = Netlist(
    [
        Actor(name="make", firings=6, busy=2),
        Actor(name="work", lanes=3, firings=6, busy=np.array([[1, 4, 3]])),
        Actor(name="join", firings=6, busy=1, resource="bus"),
        Actor(name="other", firings=9, busy=2, resource="bus"),
    ],
    [
        queue("make", "work", pattern=Pattern.BROADCAST),
        queue("work", "join", pattern=Pattern.GATHER),
    ],
    [Resource(name="bus")],
)


def test_observers_are_told_every_firing_in_order_of_time() -> None:
    """Each of two observers hears of every start with its cause; the run is not changed."""
    one, two = Log(), Log()
    r = simulate(NET, engine="simpy", observers=(one, two))
    plain = simulate(NET)
    assert one.rows == two.rows and len(one.rows) == NET.lane_firings
    assert [row[0] for row in one.rows] == sorted(row[0] for row in one.rows)
    assert r.cycles == plain.cycles
    for cycle, actor, lane, firing, cause in one.rows:
        assert plain.starts_of(actor)[firing, lane] == cycle
        assert plain.causes_of(actor)[firing, lane] == cause
    assert {row[4] for row in one.rows} >= {PREVIOUS, GRANT, INPUT, OUTPUT}


@pytest.mark.parametrize("until", [1, 5, 12, 1000])
def test_a_run_can_be_stepped_through(until: int) -> None:
    """run(until=t) does the cycles before t; what has happened so far is a timeline; going on
    gives the whole run."""
    whole = simulate(NET, engine="simpy")
    simulation = Simulation(NET)
    simulation.env.run(until=until)
    so_far = simulation.timeline()
    for actor in NET.actors:
        starts = whole.starts_of(actor.name)
        np.testing.assert_array_equal(
            so_far.starts_of(actor.name), np.where(starts < until, starts, -1)
        )
    rest = simulation.run()
    assert rest.cycles == whole.cycles
    for actor in NET.actors:
        np.testing.assert_array_equal(rest.starts_of(actor.name), whole.starts_of(actor.name))


def test_single_events_can_be_stepped() -> None:
    """env.step() runs one event; time never goes back; the last step ends the run."""
    simulation = Simulation(NET)
    before = 0
    while simulation.env.peek() < float("inf"):
        simulation.env.step()
        assert simulation.env.now >= before
        before = simulation.env.now
    assert simulation.timeline().cycles == simulate(NET).cycles


# verify="execute"

VALUES = [3, 1, 4, 1, 5, 9, 2, 6]


def dot(out: list[int]) -> Netlist:
    """A source of values, a multiply that weighs each by its position, an accumulator."""
    weights = [1, 10, 100, 1000, 10**4, 10**5, 10**6, 10**7]
    total = [0]

    def add(lane: int, k: int, got: dict) -> dict:
        total[0] += got["multiply-add"][0]
        if k == len(VALUES) - 1:
            out.append(total[0])
        return {}

    return Netlist(
        [
            Actor(
                name="load",
                firings=8,
                execute=lambda lane, k, got: {"load-multiply": [VALUES[k]]},
            ),
            Actor(
                name="multiply",
                firings=8,
                busy=2,
                execute=lambda lane, k, got: {
                    "multiply-add": [weights[k] * got["load-multiply"][0]]
                },
            ),
            Actor(name="add", firings=8, execute=add),
        ],
        [queue("load", "multiply"), queue("multiply", "add")],
    )


def test_each_firing_runs_its_share_of_the_arithmetic() -> None:
    """The output is that of the plain sum; without verify nothing is run; cycles are the same."""
    out: list[int] = []
    r = simulate(dot(out), engine="simpy", verify="execute")
    assert out == [sum(v * 10**i for i, v in enumerate(VALUES))]
    quiet: list[int] = []
    assert simulate(dot(quiet), engine="simpy").cycles == r.cycles and not quiet
    with pytest.raises(InputError, match="need engine='simpy'"):
        simulate(dot(quiet), verify="execute")


@pytest.mark.parametrize("fault", ["lost", "doubled", "reordered"])
def test_a_faulty_queue_shows_in_the_output(fault: str, monkeypatch) -> None:
    """A queue that loses, doubles or swaps one token has the same cycles or a deadlock, and
    another sum: what the times cannot see, the values do."""

    class Faulty(Link):
        made = 0

        def put_tokens(self, visible, values):
            super().put_tokens(visible, values)
            self.made += len(values)
            if self.made == 4 and len(self.tokens) > 1:
                (at_b, b), (at_a, a) = self.tokens.pop(), self.tokens.pop()
                # lost: the later value is there twice in its place
                pair = {"lost": (b, b), "doubled": (a, a), "reordered": (b, a)}[fault]
                self.tokens.extend([(at_a, pair[0]), (at_b, pair[1])])

    out: list[int] = []
    right = simulate(dot(out), engine="simpy", verify="execute")
    monkeypatch.setattr(engine, "Link", Faulty)
    wrong = simulate(dot(out), engine="simpy", verify="execute")
    assert wrong.cycles == right.cycles and len(out) == 2 and out[0] != out[1]


def test_tokens_keep_their_order_in_every_pattern() -> None:
    """Random busy times and rates: a sink sees the values of each lane in the order made."""
    seen: dict[tuple[int, int], list[int]] = {}

    def take(lane: int, k: int, got: dict) -> None:
        for i, value in enumerate(got["a-b"]):
            seen.setdefault((lane, i), []).append(value)

    busy = np.random.default_rng(0).integers(0, 5, (20, 3))
    source = Actor(
        name="a",
        lanes=3,
        firings=20,
        busy=busy,
        latency=1 + busy[::-1],
        execute=lambda lane, k, got: {"a-b": [(lane, k)]},
    )
    run(
        [source, Actor(name="b", firings=20, busy=2, execute=take)],
        [queue("a", "b", 3, pattern=Pattern.GATHER)],
        verify="execute",
    )
    assert seen == {(0, i): [(i, k) for k in range(20)] for i in range(3)}


@pytest.mark.parametrize(
    ("made", "says"),
    [
        ({"load-skin": [1]}, "has no channels load-skin .*outputs are load-sink"),
        ({"load-sink": [1, 2]}, "must make 1 tokens for 'load-sink', its execute made 2"),
        ({"load-sink": []}, "must make 1 tokens for 'load-sink', its execute made 0"),
    ],
)
def test_arithmetic_that_makes_other_tokens_than_declared_is_refused(made, says) -> None:
    """A misspelt channel or a wrong number would else pass for tokens without a value."""
    with pytest.raises(InputError, match=says):
        run(
            [
                Actor(name="load", firings=1, execute=lambda lane, k, got: made),
                Actor(name="sink", firings=1),
            ],
            [queue("load", "sink")],
            verify="execute",
        )


def test_a_behaviour_has_no_declared_arithmetic() -> None:
    """Both would say what a firing computes."""
    with pytest.raises(InputError, match="drop execute"):
        Actor(name="a", behaviour=lambda lane: iter(()), execute=lambda lane, k, got: {})
