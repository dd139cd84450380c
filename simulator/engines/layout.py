"""A netlist as flat arrays: what the compiled engine and the critical-path walk run on.

One row of ``actors`` an actor, one row of ``channels`` a channel, one row of ``resources`` a
resource; every array over firings lies in one pool of 32 bit numbers and is read as
``pool[offset + firing * firing_step + lane * lane_step]``, so that a number, an array over firings
and one over firings and lanes are the same thing. Arrays given to several actors are kept once.

An actor is *uniform* if all its lanes become ready for firing k at the same point of the
evaluation, so that a whole row of lanes can be evaluated at once. It is not when its lanes wait
for a resource, shift tokens to another lane or have rates of their own, nor when they exchange
tokens lane by lane with an actor that is not uniform.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sparqsim.base import InputError
from sparqsim.simulator.engines import stateful
from sparqsim.simulator.netlist import Actor, Channel, Netlist, Pattern

# Columns of an actor's row.
(LANES, FIRINGS, FIRST_LANE, UNIFORM, RESOURCE) = range(5)
(BUSY, BUSY_K, BUSY_L) = range(5, 8)
(LATENCY, LATENCY_K, LATENCY_L) = range(8, 11)  # LATENCY is -1 where it follows busy
(REQUEST, REQUEST_K, REQUEST_L, REQUEST_N) = range(11, 15)
(INPUTS, INPUTS_END, OUTPUTS, OUTPUTS_END) = range(15, 19)
(RECORD, GRANTS, ANSWERS) = range(19, 22)  # offsets of what is recorded; -1 where nothing is
(RANK, RANK_K, RANK_L) = range(22, 25)
ACTOR_COLUMNS = 25

# Columns of a channel's row.
(SOURCE, TARGET, KIND, OFFSET, CAPACITY, MASK) = range(6)
(PRODUCE, PRODUCE_K, PRODUCE_L) = range(6, 9)
(CONSUME, CONSUME_K, CONSUME_L) = range(9, 12)
(VISIBLE, VISIBLE_W, FREED, FREED_W) = range(12, 16)  # rings [mask + 1, width]
(MADE, MADE_STEP, TAKEN, TAKEN_STEP) = range(16, 20)  # token counts per lane
CHANNEL_COLUMNS = 20

# Columns of a resource's row.
(SERVERS, BANKED, MODEL, FREE_AT, WAITING, PARAMS, PARAMS_END, STATE, STATE_END) = range(9)
RESOURCE_COLUMNS = 9

KIND_OF = {Pattern.LANE: 0, Pattern.BROADCAST: 1, Pattern.GATHER: 2, Pattern.SHIFT: 3}


@dataclass(frozen=True, eq=False)
class Layout:
    """The flat arrays of a netlist; see the module's docstring."""

    actors: NDArray[np.int64]
    channels: NDArray[np.int64]
    resources: NDArray[np.int64]
    inputs: NDArray[np.int64]
    outputs: NDArray[np.int64]
    pool: NDArray[np.int32]
    requests: NDArray[np.int64]
    params: NDArray[np.int64]
    state: NDArray[np.int64]
    lanes: int
    ring_size: int
    count_size: int
    server_size: int
    waiting_size: int
    record_size: int
    grant_size: int
    answer_size: int


class _Pool:
    """Arrays laid end to end, each object once."""

    def __init__(self) -> None:
        self.parts: list[NDArray[np.int32]] = []
        self.size = 0
        self.seen: dict[int, tuple[int, int, int]] = {}

    def place(self, array: NDArray[np.integer]) -> tuple[int, int, int]:
        """Offset, step per firing and step per lane of an array ``[1 or K, 1 or L]``."""
        key = id(array)
        if key not in self.seen:
            rows, width = array.shape
            flat = np.ascontiguousarray(array, dtype=np.int32).reshape(-1)
            steps = (self.size, width if rows > 1 else 0, 1 if width > 1 else 0)
            self.seen[key] = steps
            self.parts.append(flat)
            self.size += flat.size
        return self.seen[key]

    def joined(self) -> NDArray[np.int32]:
        return np.concatenate(self.parts) if self.parts else np.zeros(1, np.int32)


def _array(given: object) -> NDArray[np.integer]:
    assert isinstance(given, np.ndarray)
    return given


def uniform_actors(netlist: Netlist) -> list[bool]:
    """For each actor whether whole rows of its lanes can be evaluated at once."""
    several = [actor.lanes > 1 for actor in netlist.actors]
    uneven = {i for i, a in enumerate(netlist.actors) if several[i] and a.resource}
    neighbours: list[list[int]] = [[] for _ in netlist.actors]
    for channel in netlist.channels:
        source, target = netlist.index(channel.source), netlist.index(channel.target)
        rates = (_array(channel.produce).shape[1] > 1, _array(channel.consume).shape[1] > 1)
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


def flatten(netlist: Netlist) -> Layout:
    """Lay a netlist out in flat arrays.

    Raises
    ------
    InputError
        If an actor is a Python behaviour or a resource has no compiled form.
    """
    pool = _Pool()
    uniform = uniform_actors(netlist)
    number = {resource.name: i for i, resource in enumerate(netlist.resources)}
    actors = np.zeros((len(netlist.actors), ACTOR_COLUMNS), np.int64)
    inputs, outputs = netlist.inputs, netlist.outputs
    requests: list[NDArray[np.int64]] = []
    request_size = lane = record = grants = answers = first_input = first_output = 0
    for i, actor in enumerate(netlist.actors):
        if actor.behaviour is not None:
            raise InputError(
                f"actor {actor.name!r} is written in Python; run it with engine='simpy'"
            )
        row = actors[i]
        size = actor.count * actor.lanes
        row[LANES], row[FIRINGS], row[FIRST_LANE] = actor.lanes, actor.count, lane
        row[UNIFORM] = uniform[i]
        row[BUSY : BUSY_L + 1] = pool.place(_array(actor.busy))
        row[RANK : RANK_L + 1] = pool.place(_array(actor.rank))
        row[LATENCY] = -1
        if actor.latency is not None:
            row[LATENCY : LATENCY_L + 1] = pool.place(_array(actor.latency))
        row[RESOURCE], row[RECORD], row[GRANTS], row[ANSWERS] = -1, record, -1, -1
        if actor.resource is not None:
            row[RESOURCE], row[GRANTS] = number[actor.resource], grants
            grants += size
            if netlist.resources[row[RESOURCE]].model is not None:
                row[ANSWERS] = answers
                answers += size
        if actor.request is not None:
            request = _array(actor.request)
            row[REQUEST], row[REQUEST_N] = request_size, request.shape[2]
            row[REQUEST_K] = request.shape[1] * request.shape[2]
            row[REQUEST_L] = request.shape[2] if request.shape[1] > 1 else 0
            requests.append(request.astype(np.int64).reshape(-1))
            request_size += request.size
        row[INPUTS], row[OUTPUTS] = first_input, first_output
        row[INPUTS_END] = first_input = first_input + len(inputs[i])
        row[OUTPUTS_END] = first_output = first_output + len(outputs[i])
        lane += actor.lanes
        record += size

    channels = np.zeros((len(netlist.channels), CHANNEL_COLUMNS), np.int64)
    ring_size = count_size = 0
    for i, channel in enumerate(netlist.channels):
        source, target = netlist.index(channel.source), netlist.index(channel.target)
        row = channels[i]
        row[SOURCE], row[TARGET], row[KIND] = source, target, KIND_OF[channel.pattern]
        row[OFFSET] = channel.offset if channel.pattern is Pattern.SHIFT else 0
        row[CAPACITY] = channel.capacity
        row[PRODUCE : PRODUCE_L + 1] = pool.place(_array(channel.produce))
        row[CONSUME : CONSUME_L + 1] = pool.place(_array(channel.consume))
        ring = _ring(channel, netlist.actors[source])
        row[MASK] = ring - 1
        row[VISIBLE], row[VISIBLE_W] = ring_size, netlist.actors[source].lanes
        ring_size += ring * int(row[VISIBLE_W])
        row[FREED], row[FREED_W] = ring_size, netlist.actors[target].lanes
        ring_size += ring * int(row[FREED_W])
        for count, step, end in ((MADE, MADE_STEP, source), (TAKEN, TAKEN_STEP, target)):
            row[count], row[step] = count_size, 0 if uniform[end] else 1
            count_size += 1 if uniform[end] else netlist.actors[end].lanes

    resources = np.zeros((len(netlist.resources), RESOURCE_COLUMNS), np.int64)
    params: list[NDArray[np.int64]] = []
    state: list[NDArray[np.int64]] = []
    servers = waiting = params_size = state_size = 0
    for i, resource in enumerate(netlist.resources):
        row = resources[i]
        row[SERVERS], row[BANKED], row[FREE_AT] = resource.servers, resource.banked, servers
        row[WAITING] = waiting
        servers += resource.servers
        waiting += sum(netlist.actors[user].lanes for user in netlist.holders[resource.name])
        row[PARAMS] = row[PARAMS_END] = params_size
        row[STATE] = row[STATE_END] = state_size
        if resource.model is not None:
            if resource.model.kind not in stateful.KINDS:
                raise InputError(
                    f"resource {resource.name!r}: the compiled engine knows no model "
                    f"{resource.model.kind!r}; run it with engine='simpy'"
                )
            row[MODEL] = stateful.KINDS[resource.model.kind]
            params.append(resource.model.parameters())
            state.append(resource.model.initial_state())
            row[PARAMS_END] = params_size = params_size + params[-1].size
            row[STATE_END] = state_size = state_size + state[-1].size

    return Layout(
        actors=actors,
        channels=channels,
        resources=resources,
        inputs=np.array([c for part in inputs for c in part], np.int64),
        outputs=np.array([c for part in outputs for c in part], np.int64),
        pool=pool.joined(),
        requests=_joined(requests),
        params=_joined(params),
        state=_joined(state),
        lanes=lane,
        ring_size=ring_size,
        count_size=count_size,
        server_size=servers,
        waiting_size=waiting,
        record_size=record,
        grant_size=grants,
        answer_size=answers,
    )


def _joined(parts: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)


def _ring(channel: Channel, source: Actor) -> int:
    """Slots of the rings: a power of two that holds the capacity, or every token there will be."""
    produce = _array(channel.produce)
    most = int(produce.sum(axis=0, dtype=np.int64).max()) if produce.size else 0
    if produce.shape[0] == 1:
        most *= source.count
    return 1 << max(0, min(channel.capacity, max(most, 1)) - 1).bit_length()
