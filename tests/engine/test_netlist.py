"""Does a netlist check itself? Every mistake gets an error that names the place, what was given and
what must hold; what is right is kept whole, as a graph and as numbers."""

from __future__ import annotations

import time

import networkx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparqsim.base import InputError
from sparqsim.simulator.engines import simulate
from sparqsim.simulator.engines.layout import flatten
from sparqsim.simulator.loops import Loops
from sparqsim.simulator.netlist import (
    Actor,
    Channel,
    FieldBound,
    Netlist,
    Pattern,
    Resource,
    cycles_from_ns,
)


def actor(**given) -> Actor:
    return Actor(**{"name": "a", "firings": 3, **given})


def channel(**given) -> Channel:
    return Channel(**{"name": "q", "source": "a", "target": "b", "capacity": 2, **given})


def pair(lanes: tuple[int, int] = (1, 1), **given) -> Netlist:
    """Actors a and b of so many lanes, three firings each, joined by one channel."""
    a, b = lanes
    return Netlist([actor(lanes=a), actor(name="b", lanes=b)], [channel(**given)])


# actors

NUMBERS = [
    (2.0, "whole numbers, got float64"),
    (np.array([1.0, np.nan, 2.0]), "whole numbers, got float64"),
    (np.inf, "whole numbers, got float64"),
    (True, "whole numbers, got bool"),
    (np.array([True, False, True]), "whole numbers, got bool"),
    (None, "whole numbers, got object"),
    ("3", "whole numbers, got <U1"),
    ([[1], [2, 3], [4]], "rectangular"),
    (np.array([1, 2]), r"3 firings and 2 lanes, got shape \(2,\)"),
    (np.ones((2, 3), int), r"3 firings and 2 lanes, got shape \(2, 3\)"),
    (np.ones((3, 2, 1), int), r"got shape \(3, 2, 1\)"),
    (np.ones((0, 2), int), r"got shape \(0, 2\)"),
    (-1, "got -1"),
    (np.array([1, -5, 1]), "got -5"),
    (2**31, "2147483647, got 2147483648"),
    (np.array([1, 1, 2**63 + 1], np.uint64), "got 9223372036854775809"),
]


@pytest.mark.parametrize(("value", "says"), NUMBERS)
@pytest.mark.parametrize("key", ["busy", "latency"])
def test_times_of_an_actor_are_checked(key: str, value, says: str) -> None:
    """Whole numbers from 0 or 1 to 2^31 - 1, in a shape that fits: else the message says which."""
    if key == "latency" and value is None:
        return  # None leaves the latency to busy
    with pytest.raises(InputError, match=f"actor 'a': {key} must .*{says}"):
        actor(lanes=2, **{key: value})


@pytest.mark.parametrize(("value", "says"), NUMBERS)
@pytest.mark.parametrize("key", ["produce", "consume"])
def test_rates_of_a_channel_are_checked(key: str, value, says: str) -> None:
    """As the times of an actor, with the channel's name."""
    with pytest.raises(InputError, match=f"channel 'q': {key} must .*{says}"):
        pair((2, 2), **{key: value})


def test_shapes_that_fit_are_kept() -> None:
    """A number, an array over firings, one over lanes, one over both; firings follow busy."""
    assert actor(busy=4).busy.shape == (1, 1)
    assert actor(busy=[1, 2, 3]).busy.shape == (3, 1)
    assert actor(lanes=2, busy=[[1, 2]]).busy.shape == (1, 2)
    assert actor(lanes=2, busy=np.ones((3, 2), np.uint8)).busy.shape == (3, 2)
    assert Actor(name="a", busy=np.ones(5, int)).count == 5
    assert Actor(name="a", lanes=2, busy=np.ones((0, 2), int)).count == 0
    assert Actor(name="a", firings=2).part == "a" and actor(part="ALU").part == "ALU"


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"name": ""}, "must have a name, got ''"),
        ({"name": " "}, "must have a name"),
        ({"name": 3}, "must have a name, got 3"),
        ({"lanes": 0}, "lanes must be at least 1 .*got 0"),
        ({"lanes": 1.5}, "lanes must be a whole number, got 1.5"),
        ({"lanes": True}, "lanes must be a whole number, got True"),
        ({"firings": -1}, "firings must be at least 0 .*got -1"),
        ({"firings": 2**41}, r"at most 2\^40"),
        ({"firings": float("nan")}, "firings must be a whole number, got nan"),
        ({"firings": None}, "give firings, or busy as an array"),
        ({"latency": 0}, "latency must be 1 to .*got 0"),
        ({"resource": "r", "busy": 0}, "busy must be 1 to .*got 0"),
        ({"request": [[0]] * 3}, "a request needs a resource"),
        ({"resource": "r", "request": [[0.0]] * 3}, "must hold integers, got float64"),
        ({"resource": "r", "request": [[0], [0, 1], [2]]}, "rectangular"),
        ({"resource": "r", "request": [[0]] * 2}, r"3 firings and 1 lanes, got \(2, 1, 1\)"),
        ({"resource": "r", "request": [0, 1, 2]}, r"got \(3,\)"),
        ({"resource": "r", "request": np.zeros((3, 2, 1), int)}, r"got \(3, 2, 1\)"),
        ({"behaviour": lambda lane: None}, "decides its own firings"),
    ],
)
def test_an_actor_checks_itself(wrong: dict, says: str) -> None:
    """Each mistake gets its message."""
    with pytest.raises(InputError, match=says):
        actor(**wrong)


# channels


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"name": ""}, "a channel must have a name"),
        ({"capacity": 0}, "channel 'q': capacity must be at least 1 .*got 0"),
        ({"capacity": 2.0}, "capacity must be a whole number, got 2.0"),
        ({"capacity": True}, "capacity must be a whole number, got True"),
        ({"pattern": "lane"}, "pattern must be a Pattern, got 'lane'"),
        ({"pattern": Pattern.SHIFT, "offset": 1.5}, "offset must be a whole number, got 1.5"),
    ],
)
def test_a_channel_checks_itself(wrong: dict, says: str) -> None:
    """Each mistake gets its message."""
    with pytest.raises(InputError, match=says):
        channel(**wrong)


@pytest.mark.parametrize("side", ["source", "target"])
def test_dangling_ends_are_named(side: str) -> None:
    """The message names the end and guesses what was meant; an actor is given by its name."""
    near = [actor(name="fetch"), actor(name="b")]
    ends = {"source": "fetch", "target": "b"}
    with pytest.raises(InputError, match=r"'q' ends at 'fecth'.*did you mean 'fetch'\?"):
        Netlist(near, [channel(**{**ends, side: "fecth"})])
    with pytest.raises(InputError, match=r"'q' ends at 'zzz', but there is no such actor$"):
        Netlist(near, [channel(**{**ends, side: "zzz"})])
    with pytest.raises(InputError, match="must be names of actors"):
        Netlist(near, [channel(**{**ends, side: near[0]})])


@pytest.mark.parametrize(
    ("pattern", "fitting", "unfitting"),
    [
        (Pattern.LANE, [(1, 1), (4, 4)], [(1, 4), (4, 1), (3, 4)]),
        (Pattern.BROADCAST, [(1, 1), (1, 4)], [(4, 1), (4, 4)]),
        (Pattern.GATHER, [(1, 1), (4, 1)], [(1, 4), (4, 4)]),
        (Pattern.SHIFT, [(1, 1), (4, 4), (3, 5), (5, 3)], []),
    ],
)
def test_patterns_fit_their_lanes(pattern: Pattern, fitting: list, unfitting: list) -> None:
    """Banks of equal width, one to all, all to one; a shift joins what has a partner."""
    for lanes in fitting:
        pair(lanes, pattern=pattern)
    for a, b in unfitting:
        with pytest.raises(InputError, match=f"{pattern.value} does not fit {a} lanes .* and {b} "):
            pair((a, b), pattern=pattern)


@pytest.mark.parametrize("key", ["produce", "consume"])
def test_a_rate_above_the_capacity_is_refused(key: str) -> None:
    """It could never start; equal to the capacity it can."""
    pair(capacity=2, **{key: np.array([0, 2, 1])})
    with pytest.raises(InputError, match=f"holds 2 tokens, but a firing of .* would {key} 3 at"):
        pair(capacity=2, **{key: np.array([0, 3, 1])})


@given(
    pattern=st.sampled_from(list(Pattern)),
    lanes=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    offset=st.integers(-7, 7),
)
def test_lanes_of_both_ends_agree(pattern: Pattern, lanes, offset: int) -> None:
    """Lane i feeds lane j if and only if j is fed by i."""
    sources, targets = lanes
    if pattern is Pattern.LANE:
        targets = sources
    if pattern is Pattern.BROADCAST:
        sources = 1
    if pattern is Pattern.GATHER:
        targets = 1
    c = channel(pattern=pattern, offset=offset)
    down = {(i, j) for i in range(sources) for j in c.target_lanes(i, targets)}
    up = {(i, j) for j in range(targets) for i in c.source_lanes(j, sources)}
    assert down == up
    if pattern in (Pattern.BROADCAST, Pattern.GATHER):
        assert len(down) == sources * targets


# resources

BANKED = Resource(name="sram", servers=2, banked=True)


@pytest.mark.parametrize(
    ("actors", "resources", "says"),
    [
        ([actor(resource="bus")], [], "holds 'bus', but there is no such resource; there is none"),
        ([actor(resource="bas")], [Resource(name="bus")], "no such resource; there is bus"),
        ([actor()], [Resource(name="bus")], "no actor holds the resource 'bus'; remove it"),
        ([actor(resource="sram")], [BANKED], "reads 1 fields of a request, got 0"),
        (
            [actor(resource="sram", request=[[0, 1]] * 3)],
            [BANKED],
            "reads 1 fields of a request, got 2",
        ),
        (
            [actor(resource="bus", request=[[0]] * 3)],
            [Resource(name="bus")],
            "reads 0 fields of a request, got 1",
        ),
        (
            [actor(resource="sram", request=[[0], [2], [1]])],
            [BANKED],
            "'bank' of a request to 'sram' must be 0 to 1, got 2",
        ),
        ([actor(resource="sram", request=[[-1]] * 3)], [BANKED], "must be 0 to 1, got -1"),
    ],
)
def test_resources_and_their_users_agree(actors, resources, says: str) -> None:
    """A resource that is missing, idle, or asked for what it does not read gets an error."""
    with pytest.raises(InputError, match=says):
        Netlist(actors, [], resources)


@pytest.mark.parametrize("servers", [0, -1, 1.0, True, "2"])
def test_servers_are_counted(servers) -> None:
    """A whole number of at least 1."""
    with pytest.raises(InputError, match="resource 'r': servers must be"):
        Resource(name="r", servers=servers)


class Slow:
    """A stateful model the compiled engine does not know."""

    kind = "slow"

    def bounds(self):
        return (FieldBound("wait", 0, 9),)

    def parameters(self):
        return np.zeros(1, np.int64)

    def initial_state(self):
        return np.zeros(1, np.int64)


def test_stateful_resources_keep_their_own_banks_and_latency() -> None:
    """What the model computes is not given twice; a kind nobody knows is named."""
    with pytest.raises(InputError, match="keeps its own banks"):
        Resource(name="dram", banked=True, model=Slow())
    user = {"resource": "dram", "request": [[0]] * 3}
    with pytest.raises(InputError, match="'dram' computes the latency itself; leave latency out"):
        Netlist([actor(**user, latency=3)], [], [Resource(name="dram", model=Slow())])
    net = Netlist([actor(**user)], [], [Resource(name="dram", model=Slow())])
    with pytest.raises(InputError, match=r"the compiled engine knows no model 'slow'.*simpy"):
        flatten(net)


# the whole


def test_names_differ() -> None:
    """Of actors, channels and resources together, so that a name means one thing."""
    with pytest.raises(InputError, match=r"used twice: a$"):
        Netlist([actor(), actor()])
    with pytest.raises(InputError, match=r"used twice: a$"):
        Netlist([actor()], [channel(name="a", target="a")])
    with pytest.raises(InputError, match="at least one actor"):
        Netlist([])


@pytest.mark.parametrize("clock", [0, -1e9, float("nan"), float("inf"), "1e9", None])
def test_the_clock_is_a_positive_number(clock) -> None:
    """Of hertz; anything else gets an error message."""
    with pytest.raises(InputError, match="clock_hz must be a positive number of hertz, got"):
        Netlist([actor()], clock_hz=clock)


def test_unknown_names_are_refused() -> None:
    """Asking for what is not there says so, and guesses what was meant."""
    net = pair()
    with pytest.raises(InputError, match="no actor in 'netlist' named 'x'"):
        net.actor("x")
    with pytest.raises(InputError, match="no channel in 'netlist' named 'qq'; did you mean 'q'"):
        net.channel("qq")


def test_a_netlist_is_a_graph() -> None:
    """Actors and resources are nodes, channels and holds edges, with what a drawing needs."""
    net = Netlist(
        [actor(lanes=2, part="PE", resource="bus"), actor(name="b"), actor(name="c", lanes=2)],
        [
            channel(pattern=Pattern.GATHER, capacity=7),
            channel(name="again", pattern=Pattern.GATHER),
            channel(name="back", source="b", target="c", pattern=Pattern.BROADCAST),
        ],
        [Resource(name="bus", servers=3)],
        name="small",
    )
    graph = net.graph
    assert isinstance(graph, networkx.MultiDiGraph) and graph.name == "small"
    assert dict(graph.nodes(data=True)) == {
        "a": {"kind": "actor", "lanes": 2, "part": "PE"},
        "b": {"kind": "actor", "lanes": 1, "part": "b"},
        "c": {"kind": "actor", "lanes": 2, "part": "c"},
        "bus": {"kind": "resource", "servers": 3},
    }
    assert set(graph["a"]["b"]) == {"q", "again"}
    assert graph.edges["a", "b", "q"] == {"kind": "channel", "pattern": "gather", "capacity": 7}
    assert graph.edges["a", "bus", "a holds"] == {"kind": "holds"}
    assert networkx.has_path(graph, "a", "c") and not networkx.has_path(graph, "c", "a")
    assert net.lane_firings == 3 * (2 + 1 + 2)
    assert net.inputs == ((), (0, 1), (2,)) and net.outputs == ((0, 1), (2,), ())
    assert net.holders == {"bus": (0,)}


@pytest.mark.parametrize(
    ("ns", "clock", "cycles"),
    [
        (2.5, 800e6, 2),  # exactly 2 cycles of 1.25 ns
        (2.6, 800e6, 3),
        (2.4, 800e6, 2),
        (0, 1e9, 0),
        (0.1, 1e9, 1),
        (13.75, 800e6, 11),  # DDR3-1600 tRCD: 11 cycles
        (0.3, 10e9, 3),  # 0.3 * 10 is 3, though 0.3 is not a binary fraction
        (0.7, 10e9, 7),
        (7.8e3, 1.2e9, 9360),
        (np.float64(1.1), 1e10, 11),
        (1e-30, 1e9, 1),
        (1e12, 3e9, 3 * 10**12),
    ],
)
def test_nanoseconds_round_up_once_and_exactly(ns: float, clock: float, cycles: int) -> None:
    """In arithmetic on the decimal numbers as written; no float error adds a cycle."""
    assert cycles_from_ns(ns, clock) == cycles
    assert Netlist([actor()], clock_hz=clock).cycles_from_ns(ns) == cycles


@given(tenths=st.integers(0, 10**6), mhz=st.integers(1, 5000))
def test_nanoseconds_against_whole_numbers(tenths: int, mhz: int) -> None:
    """tenths of a ns at a clock in MHz: the ceiling of tenths x MHz / 10^4."""
    assert cycles_from_ns(tenths / 10, mhz * 1e6) == -(-tenths * mhz // 10**4)


@pytest.mark.parametrize("ns", [-1, float("nan"), float("inf"), "2", None])
def test_a_time_is_a_number_of_at_least_zero(ns) -> None:
    """Anything else gets an error message."""
    with pytest.raises(InputError, match="number of ns of at least 0"):
        cycles_from_ns(ns, 1e9)


def test_large_netlists_are_built_and_laid_out_in_linear_time() -> None:
    """Four times the actors take about four times as long, not sixteen: a chain of banks declared
    backwards, every actor with a resource of its own beside it."""

    def seconds(size: int) -> float:
        actors = [actor(name=f"a{i}", lanes=2) for i in range(size)]
        users = [actor(name=f"u{i}", resource=f"r{i}") for i in range(size)]
        channels = [
            channel(name=f"q{i}", source=f"a{i}", target=f"a{i + 1}", produce=[[1, 1]])
            for i in reversed(range(size - 1))
        ]
        resources = [Resource(name=f"r{i}") for i in range(size)]
        best = float("inf")
        for _ in range(3):
            began = time.process_time()
            flatten(Netlist([*actors, *users], channels, resources))
            best = min(best, time.process_time() - began)
        return best

    assert seconds(4000) < 9 * seconds(1000)


def test_counts_of_any_whole_type() -> None:
    """What numpy computed is a count like any other; what is none is refused, however large."""
    two = np.int64(2)
    net = Netlist(
        actors=[
            Actor(name="a", lanes=two, firings=two, resource="r"),
            Actor(name="b", lanes=two, firings=two),
        ],
        channels=[Channel(name="c", source="a", target="b", capacity=two, offset=np.int64(1))],
        resources=[Resource(name="r", servers=two)],
    )
    assert [simulate(net, engine=engine).cycles for engine in ("compiled", "simpy")] == [3, 3]
    with pytest.raises(InputError, match="firings must be at least 0 and at most 2"):
        Actor(name="a", busy=Loops(((2**40,), (2**40,)), np.ones((1, 1), np.int64)))
    with pytest.raises(InputError, match="clock_hz must be a positive number"):
        Netlist(actors=[Actor(name="a", firings=1)], clock_hz=10**400)
