"""A netlist as flat arrays: what the compiled engine runs on.

One record per actor, one per *port* (an end of a channel, seen from its actor), one per resource;
every array over firings lies in one pool of 32 bit numbers and is read as
``pool[offset + firing * firing_step + lane * lane_step]``, so that a number, an array over firings
and one over firings and lanes are the same thing. Arrays given to several actors are kept once.

A port takes tokens or gives them, and either way waits for the other end: for tokens to become
visible, or for slots to be freed. Each end of a channel therefore has a count of the tokens it has
moved and a ring of the times at which the last of them were visible or freed, and a port knows
those of its own end and of the other.

An actor is *uniform* if all its lanes become ready for firing k at the same point of the
evaluation, so that a whole row of lanes can be evaluated at once. It is not when its lanes wait
for a resource, shift tokens to another lane or have rates of their own, nor when they exchange
tokens lane by lane with an actor that is not uniform.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sparqsim.base import InputError
from sparqsim.simulator.engines import stateful
from sparqsim.simulator.loops import Loops
from sparqsim.simulator.netlist import Actor, Channel, Netlist, Pattern, Resource
from sparqsim.simulator.timeline import INPUT, OUTPUT

Ints = NDArray[np.int64]

NEVER = np.iinfo(np.int64).max
FOLLOWS_BUSY = -NEVER  # a latency as long as busy; what is written out in windows may lie below 0

SHARED = (Pattern.BROADCAST, Pattern.GATHER)  # a lane's partners are all lanes of the other end


class ActorRow(NamedTuple):
    """An actor; ``_k`` and ``_l`` are the steps of an array per firing and per lane."""

    lanes: int
    firings: int
    stop: int  # the firing before which its lanes stop in this call
    first_lane: int  # among the lanes of all actors
    width: int  # lanes evaluated together
    ports: int
    ports_end: int
    resource: int  # -1 for none
    record: int  # offsets of what is recorded of its firings; -1 where nothing is
    grants: int
    answers: int
    busy: int
    busy_k: int
    busy_l: int
    rank: int
    rank_k: int
    rank_l: int
    latency: int  # FOLLOWS_BUSY, with the steps of busy, or a place
    latency_k: int
    latency_l: int
    request: int
    request_k: int
    request_l: int
    request_n: int  # fields


class End(NamedTuple):
    """One end of a channel: ``counts[count + lane * step]`` tokens moved, a ring of their times."""

    count: int  # type: ignore[assignment]
    step: int
    ring: int  # rows of `width` times
    width: int


class PortRow(NamedTuple):
    """An end of a channel as its actor sees it."""

    code: int  # the cause of a start that waited for it
    gives: int  # whether it makes tokens
    peer: int  # the first lane of the actor at the other end
    peers: int  # and how many of its lanes are evaluated by themselves
    each: int  # 1: a lane has a partner of its own there; 0: all of it is every lane's partner
    shift: int  # from a lane to its partner, if it has one
    span: int  # partners of a lane
    lag: int  # tokens by which this end may be ahead of the other
    mask: int  # rows of a ring, a power of two, less 1
    rate: int
    rate_k: int
    rate_l: int
    own_count: int
    own_step: int
    own_ring: int
    own_width: int
    other_count: int
    other_step: int
    other_ring: int
    other_width: int


class ResourceRow(NamedTuple):
    """A resource; the last four belong to the run."""

    servers: int
    banked: int
    model: int  # the kind of a stateful resource; 0 for none
    params: int
    params_end: int
    state: int
    state_end: int
    free_at: int
    waiting: int
    queued: int = 0  # requests that wait
    grant_at: int = NEVER  # when the next of them can be granted
    next: int = -1  # and its place among them
    stale: int = 0  # whether these two must be found anew


class LaneRow(NamedTuple):
    """A lane during the run."""

    actor: int
    fired: int = 0
    state: int = 0
    request: int = 0  # the last three belong to the request that waits and its answer
    rank: int = 0
    busy: int = 0
    latency: int = 0


@cache
def row_type(kind: type[Any]) -> np.dtype[np.void]:
    """The record of a row of one kind."""
    return np.dtype([(name, np.int64) for name in kind._fields])


@dataclass(frozen=True, eq=False)
class Layout:
    """The flat arrays of a netlist; see the module's docstring."""

    actors: NDArray[np.void]
    ports: NDArray[np.void]
    resources: NDArray[np.void]
    pool: NDArray[np.int32]
    requests: Ints
    params: Ints
    state: Ints
    lanes: int
    ring_size: int
    count_size: int
    server_size: int
    waiting_size: int
    record_size: int
    grant_size: int
    answer_size: int

    def counters(self) -> Ints:
        """Of each lane the one that counts its firings: the first of a uniform bank."""
        lanes = self.actors["lanes"]
        uniform = np.repeat(self.actors["width"] > 1, lanes)
        first = np.repeat(self.actors["first_lane"], lanes)
        return np.where(uniform, first, np.arange(lanes.sum()))

    def ends_of(self, netlist: Netlist) -> list[tuple[slice, slice]]:
        """Of each channel where the tokens moved by its source and by its target are counted."""
        found = []
        for c, channel in enumerate(netlist.channels):
            i, j = netlist.index(channel.source), netlist.index(channel.target)
            at = self.actors["ports"][i] + len(netlist.inputs[i]) + netlist.outputs[i].index(c)
            port = self.ports[int(at)]
            ends = ((i, port["own_count"], port["own_step"]),
                    (j, port["other_count"], port["other_step"]))  # fmt: skip
            made, taken = (
                slice(int(count), int(count) + (netlist.actors[end].lanes if step else 1))
                for end, count, step in ends
            )
            found.append((made, taken))
        return found


class _Pool:
    """Arrays laid end to end, each object once; of loops so many firings as ``window`` says."""

    def __init__(self, window: int | None) -> None:
        self.window = window
        self.parts: list[NDArray[np.int32]] = []
        self.size = 0
        self.seen: dict[tuple[Any, int], tuple[int, int, int]] = {}

    def place(self, given: object, width: int = 1) -> tuple[int, int, int]:
        """Offset, step per firing and step per lane of an array ``[1 or K, 1 or L]``.

        ``width`` lanes read it at once, so that a row holds at least so many numbers.
        """
        key: tuple[Any, int] = id(given), width
        if isinstance(given, Loops) and given.constant is not None:
            key, given = (f"constant {given.constant}", width), np.full((1, 1), given.constant)
        elif isinstance(given, Loops) and self.window is not None:
            at, rows = self.size, min(self.window, len(given))
            self.parts.append(np.zeros(rows * width, np.int32))
            self.size += rows * width
            return at, width, 1 if width > 1 else 0
        if key not in self.seen:
            array = _array(given)
            if array.shape[1] < width:
                array = np.broadcast_to(array, (len(array), width))
            rows, width = array.shape
            flat = np.ascontiguousarray(array, dtype=np.int32).reshape(-1)
            self.seen[key] = (self.size, width if rows > 1 else 0, 1 if width > 1 else 0)
            self.parts.append(flat)
            self.size += flat.size
        return self.seen[key]


def _array(given: object) -> NDArray[np.integer]:
    if isinstance(given, Loops):
        return np.asarray(given)
    assert isinstance(given, np.ndarray)
    return given


def _width(given: object) -> int:
    """Lanes of an array, 1 where all are alike."""
    assert isinstance(given, np.ndarray | Loops)
    return given.shape[1]


def uniform_actors(netlist: Netlist) -> list[bool]:
    """For each actor whether whole rows of its lanes can be evaluated at once."""
    several = [actor.lanes > 1 for actor in netlist.actors]
    uneven = {i for i, a in enumerate(netlist.actors) if several[i] and a.resource}
    neighbours: list[list[int]] = [[] for _ in netlist.actors]
    for channel in netlist.channels:
        source, target = netlist.index(channel.source), netlist.index(channel.target)
        rates = (_width(channel.produce) > 1, _width(channel.consume) > 1)
        # A lane without a partner runs free of the others of its bank.
        partial = channel.pattern is Pattern.SHIFT and (
            channel.offset or netlist.actors[source].lanes != netlist.actors[target].lanes
        )
        if any(rates) or partial:
            uneven |= {end for end in (source, target) if several[end]}
        if several[source] and several[target]:
            neighbours[source].append(target)
            neighbours[target].append(source)
    spread = list(uneven)
    while spread:
        new = set(neighbours[spread.pop()]) - uneven
        uneven |= new
        spread += new
    return [several[i] and i not in uneven for i in range(len(netlist.actors))]


def flatten(netlist: Netlist, window: int | None = None) -> Layout:
    """Lay a netlist out in flat arrays.

    With a ``window`` only so many firings are laid out of what is given as loops.

    Raises
    ------
    InputError
        If an actor is a Python behaviour or a resource has no compiled form.
    """
    pool = _Pool(window)
    uniform = uniform_actors(netlist)
    actors, requests, sizes = _actors(netlist, uniform, pool)
    ports, ring_size, count_size = _ports(netlist, uniform, pool)
    resources, params, state = _resources(netlist)
    return Layout(
        actors=actors,
        ports=ports,
        resources=resources,
        pool=np.concatenate(pool.parts),
        requests=_joined(requests),
        params=_joined(params),
        state=_joined(state),
        ring_size=ring_size,
        count_size=count_size,
        server_size=sum(resource.servers for resource in netlist.resources),
        waiting_size=sum(actor.lanes for actor in netlist.actors if actor.resource is not None),
        **sizes,
    )


def _actors(
    netlist: Netlist, uniform: list[bool], pool: _Pool
) -> tuple[NDArray[np.void], list[Ints], dict[str, int]]:
    """One row per actor, the requests, and the sizes of what their lanes and firings need."""
    number = {resource.name: i for i, resource in enumerate(netlist.resources)}
    rows, requests = [], []
    lane = port = asked = record = grants = answers = 0
    for i, actor in enumerate(netlist.actors):
        if actor.behaviour is not None:
            raise InputError(
                f"actor {actor.name!r} is written in Python; run it with engine='simpy'"
            )
        held = -1 if actor.resource is None else number[actor.resource]
        is_stateful = held >= 0 and netlist.resources[held].model is not None
        request = (asked, 0, 0, 0)
        if actor.request is not None:
            asks = _array(actor.request)
            _, width, fields = asks.shape
            request = (asked, width * fields, fields if width > 1 else 0, fields)
            requests.append(asks.astype(np.int64).reshape(-1))
            asked += asks.size
        ports = len(netlist.inputs[i]) + len(netlist.outputs[i])
        width = actor.lanes if uniform[i] else 1
        busy = pool.place(actor.busy, width)
        own_latency = actor.latency is not None
        rows.append(
            ActorRow(
                *(actor.lanes, actor.count, actor.count, lane, width),
                *(port, port + ports, held, record),
                *(grants if held >= 0 else -1, answers if is_stateful else -1),
                *busy,
                *pool.place(actor.rank),
                *(pool.place(actor.latency, width) if own_latency else (FOLLOWS_BUSY, *busy[1:])),
                *request,
            )
        )
        size = actor.count * actor.lanes
        lane, port, record = lane + actor.lanes, port + ports, record + size
        grants += size if held >= 0 else 0
        answers += size if is_stateful else 0
    sizes = {"lanes": lane, "record_size": record, "grant_size": grants, "answer_size": answers}
    return np.array(rows, row_type(ActorRow)), requests, sizes


def _ports(netlist: Netlist, uniform: list[bool], pool: _Pool) -> tuple[NDArray[np.void], int, int]:
    """One row per port, actor by actor, inputs first; the sizes of all rings and of all counts."""
    made, taken = [], []  # the ports of each channel
    first = [0, *np.cumsum([actor.lanes for actor in netlist.actors]).tolist()]
    apart = [1 if u else a.lanes for u, a in zip(uniform, netlist.actors, strict=True)]
    ring_size = count_size = 0
    for c, channel in enumerate(netlist.channels):
        actors = (netlist.index(channel.source), netlist.index(channel.target))
        slots = ring_slots(channel, netlist.actors[actors[0]])
        ends = []
        for i in actors:
            lanes = netlist.actors[i].lanes
            ends.append(End(count_size, 0 if uniform[i] else 1, ring_size, lanes))
            count_size += 1 if uniform[i] else lanes
            ring_size += slots * lanes
        shift = channel.offset if channel.pattern is Pattern.SHIFT else 0
        each = channel.pattern not in SHARED
        peers = [(first[i], apart[i], each) for i in actors]
        span = [1 if each else apart[i] for i in actors]
        give = (OUTPUT + 2 * c, 1, *peers[1], shift, span[1], channel.capacity, slots - 1)
        take = (INPUT + 2 * c, 0, *peers[0], -shift, span[0], 0, slots - 1)
        made.append(PortRow(*give, *pool.place(channel.produce), *ends[0], *ends[1]))
        taken.append(PortRow(*take, *pool.place(channel.consume), *ends[1], *ends[0]))
    rows = []
    for inputs, outputs in zip(netlist.inputs, netlist.outputs, strict=True):
        rows += [taken[c] for c in inputs] + [made[c] for c in outputs]
    return np.array(rows, row_type(PortRow)), ring_size, count_size


def ring_slots(channel: Channel, source: Actor) -> int:
    """Rows of a channel's rings: a power of two that holds its capacity, or every token made."""
    produce = channel.produce
    if isinstance(produce, Loops):
        most = produce.total()
    else:
        produce = _array(produce)
        if produce.size == 1:
            most = int(produce.item())
        else:
            most = int(produce.sum(axis=0, dtype=np.int64).max()) if produce.size else 0
        if produce.shape[0] == 1:
            most *= source.count
    return 1 << max(0, min(channel.capacity, max(most, 1)) - 1).bit_length()


def _resources(netlist: Netlist) -> tuple[NDArray[np.void], list[Ints], list[Ints]]:
    """One row per resource, and the constants and states of their models."""
    rows, params, state = [], [], []
    servers = waiting = first_param = first_word = 0
    for resource in netlist.resources:
        kind, constants, words = 0, np.zeros(0, np.int64), np.zeros(0, np.int64)
        if resource.model is not None:
            kind = _kind(resource)
            constants, words = resource.model.parameters(), resource.model.initial_state()
        params.append(constants)
        state.append(words)
        rows.append(
            ResourceRow(
                *(resource.servers, resource.banked, kind),
                *(first_param, first_param + constants.size, first_word, first_word + words.size),
                *(servers, waiting),
            )
        )
        first_param, first_word = first_param + constants.size, first_word + words.size
        servers += resource.servers
        waiting += sum(netlist.actors[user].lanes for user in netlist.holders[resource.name])
    return np.array(rows, row_type(ResourceRow)), params, state


def _kind(resource: Resource) -> int:
    assert resource.model is not None
    if resource.model.kind not in stateful.KINDS:
        raise InputError(
            f"resource {resource.name!r}: the compiled engine knows no model "
            f"{resource.model.kind!r}; run it with engine='simpy'"
        )
    return stateful.KINDS[resource.model.kind]


def _joined(parts: list[Ints]) -> Ints:
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)
