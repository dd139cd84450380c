"""The compiled engine: evaluate everything that is determined, grant the earliest request, repeat.

A firing's start is a maximum over times already known: the end of the lane's previous firing, the
cycles its input tokens become visible, the cycles its output slots are freed. So no event queue is
needed for it. Per channel two rings hold the last ``capacity`` times at which tokens became visible
and slots were freed; a worklist holds the lanes for which something new is known, and each is
evaluated as far as its inputs and free slots are known. Only resource requests need the order of
time: when the worklist is empty, the earliest grant possible over all resources is made. That is
safe, because whatever it causes happens at least one cycle later.

Lanes of a uniform bank (see :mod:`sparqsim.simulator.engines.layout`) are evaluated a row at a time
in loops over contiguous memory, which LLVM turns into vector instructions; the others lane by lane.

numba's time to compile grows with every statement, so each thing is said once: one loop serves
inputs and outputs, one firing per lane and row. What only stateful resources need is compiled when
a netlist has one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sparqsim.base import kernel
from sparqsim.simulator.engines import stateful
from sparqsim.simulator.engines.layout import (
    FOLLOWS_BUSY,
    NEVER,
    LaneRow,
    Layout,
    flatten,
    row_type,
)
from sparqsim.simulator.netlist import Netlist
from sparqsim.simulator.timeline import (
    FREE,
    GRANT,
    INPUT,
    PREVIOUS,
    Grants,
    LaneTimes,
    Timeline,
    lane_matrix,
)

# Without reference counts, which these functions do not need: they own no array.
_compiled = kernel(error_model="numpy", _nrt=False)
# Put into the function that calls it before types are known, so that it is compiled once.
_part = kernel(error_model="numpy", _nrt=False, inline="always")

# Rows of the times of each lane: when its next firing starts and why, when its last firing ended,
# when what that made is visible, when all so far is over; and the sums of a summary. The kernels
# take the rows end to end.
START, CAUSE, END, SHOWN, OVER, IDLED, BLOCKED, WAITED, ROWS = range(9)

IDLE, WAITING, GRANTED = range(3)  # states of a lane


class Memory(NamedTuple):
    """What stateful resources need: their constants and states, and what they answered."""

    params: NDArray[np.int64]
    state: NDArray[np.int64]
    held: NDArray[np.int64]
    busy: NDArray[np.int64]
    shown: NDArray[np.int64]


@_part
def _find_next(resource: Any, waiting: Any, lanes: Any, asked: Any, server: Any, free: Any) -> None:
    """When a resource can grant next, and which request: least rank, then oldest, then first."""
    unit = resource.free_at
    if not resource.banked:
        for x in range(resource.free_at, resource.free_at + resource.servers):
            if free[x] < free[unit]:
                unit = x
    first, place, best = NEVER, resource.waiting, np.int64(0)
    for x in range(resource.waiting, resource.waiting + resource.queued):
        me = waiting[x]
        if not resource.banked:
            server[me] = unit
        time, grant = asked[me], free[server[me]]
        if time > grant:
            grant = time
        if grant > first:
            continue
        if grant == first:  # then there is a best one
            later = lanes[me].rank - lanes[best].rank
            if later == 0:
                later = time - asked[best]
            if later > 0 or (later == 0 and me > best):
                continue
        first, place, best = grant, x, me
    resource.grant_at, resource.next, resource.stale = first, place, 0


@_part
def _find_by_rank(
    resource: Any,
    now: int,
    actors: Any,
    waiting: Any,
    lanes: Any,
    asked: Any,
    requests: Any,
    memory: Any,
) -> None:
    """Which request a stateful resource grants now: as others, its own rank before the age."""
    least, own_least = lanes[waiting[resource.next]].rank, NEVER
    chosen, age = -1, NEVER
    for x in range(resource.waiting, resource.waiting + resource.queued):
        me = waiting[x]
        own, time = lanes[me], asked[me]
        if time > now or own.rank > least:
            continue
        rank = stateful.rank(
            resource.model,
            memory.params[resource.params : resource.params_end],
            memory.state[resource.state : resource.state_end],
            requests[own.request : own.request + actors[own.actor].request_n],
            now,
        )
        if rank < own_least or (
            rank == own_least and (time < age or (time == age and me < chosen))
        ):
            resource.next, own_least, age, chosen = x, rank, time, me


@_compiled
def run(
    actors: Any,
    ports: Any,
    resources: Any,
    lanes: Any,
    pool: Any,
    requests: Any,
    counts: Any,
    rings: Any,
    times: Any,
    asked: Any,
    server: Any,
    free: Any,
    waiting: Any,
    work: Any,
    listed: Any,
    end: int,
    record: bool,
    starts: Any,
    causes: Any,
    ready: Any,
    ready_causes: Any,
    memory: Any,
) -> bool:
    """Run a netlist laid out by :func:`sparqsim.simulator.engines.layout.flatten` until nothing can
    fire, or until all that is left waits for lanes that came to the stop of their actor: then True.

    ``memory`` is None where no resource is stateful. ``work`` holds ``end`` lanes to begin with.
    ``record`` false keeps no time of a single firing, only the sums a lane.

    It is one function because numba compiles what it calls twice, alone and within. Indices of the
    inner loops are unsigned so that numba adds no test for negative ones, which would keep LLVM
    from using vector instructions. First values in loops have a type of their own, or numba would
    go over all types once more.
    """
    none: Any = np.int64(-1)
    size, head, stopped = np.uint64(lanes.size), np.int64(0), np.int64(0)
    while True:
        while head < end:  # evaluate a lane, or a row, as far as all is known
            me = work[head & (work.size - 1)]
            head += 1
            listed[me] = False
            own = lanes[me]
            actor = actors[own.actor]
            lane, width, before = me - actor.first_lane, np.uint64(actor.width), own.fired
            start = np.uint64(me)
            cause = start + size
            ended = cause + size
            seen = ended + size
            over = seen + size
            while own.fired < actor.stop and own.state != WAITING:
                k = own.fired
                if own.state == IDLE:  # when (a) to (c) hold, and the last of them to hold
                    first_cause = np.int64(FREE)
                    if k:
                        first_cause = np.int64(PREVIOUS)
                    for j in range(width):
                        times[start + j] = times[ended + j]
                        times[cause + j] = first_cause
                    lacking = np.int64(0)
                    for p in range(actor.ports, actor.ports_end):
                        port = ports[p]
                        rate = pool[port.rate + k * port.rate_k + lane * port.rate_l]
                        token = counts[port.own_count + lane * port.own_step] + rate - 1 - port.lag
                        if rate == 0 or token < 0:
                            continue
                        partner = port.each * (lane + port.shift)
                        low, high = max(0, partner), min(port.peers, partner + port.span)
                        for other in range(low, high):
                            lacking += counts[port.other_count + other * port.other_step] <= token
                        if lacking or low >= high:
                            continue
                        slot = np.uint64(
                            port.other_ring + (token & port.mask) * port.other_width + low
                        )
                        code = port.code
                        if port.each:
                            for j in range(width):
                                # Said with masks: a branch would become a slow masked store.
                                begun, why = times[start + j], times[cause + j]
                                gap = rings[slot + j] - begun
                                late = -np.int64(gap > 0)
                                times[start + j] = begun + (gap & late)
                                times[cause + j] = why ^ ((why ^ code) & late)
                        else:
                            latest = rings[slot]
                            for j in range(np.uint64(port.other_width)):
                                latest = max(latest, rings[slot + j])
                            for j in range(width):
                                begun, why = times[start + j], times[cause + j]
                                late = -np.int64(latest > begun)
                                times[start + j] = begun + ((latest - begun) & late)
                                times[cause + j] = why ^ ((why ^ code) & late)
                    if lacking:
                        break
                    if not record:  # the gap is none where an input or an output is not its cause
                        idled = over + size
                        blocked = idled + size
                        for j in range(width):
                            gap = times[start + j] - times[ended + j]
                            times[idled + j] += gap
                            times[blocked + j] += gap & -((times[cause + j] - INPUT) & 1)
                    if actor.resource >= 0:
                        resource = resources[actor.resource]
                        own.state = WAITING
                        own.request = actor.request + k * actor.request_k + lane * actor.request_l
                        own.rank = pool[actor.rank + k * actor.rank_k + lane * actor.rank_l]
                        if resource.banked:
                            server[me] = resource.free_at + requests[own.request]
                        asked[me] = times[start]
                        waiting[resource.waiting + resource.queued] = me
                        resource.queued += 1
                        resource.stale = 1
                        break

                own.state, own.fired = IDLE, k + 1  # fire
                if record:
                    row = np.uint64(actor.record + k * actor.lanes + lane)
                    for j in range(width):
                        starts[row + j] = times[start + j]
                        causes[row + j] = times[cause + j]
                busy_at = np.uint64(actor.busy + k * actor.busy_k + lane * actor.busy_l)
                delay = actor.busy if actor.latency == FOLLOWS_BUSY else actor.latency
                delay_at = np.uint64(delay + k * actor.latency_k + lane * actor.latency_l)
                for j in range(width):
                    times[ended + j] = times[start + j] + pool[busy_at + j]
                    times[seen + j] = times[start + j] + max(1, pool[delay_at + j])
                if memory is not None and actor.resource >= 0 and resources[actor.resource].model:
                    times[ended] = times[start] + own.busy
                    times[seen] = times[start] + own.latency
                for j in range(width):
                    done = times[over + j]
                    times[over + j] = done + max(0, max(times[ended + j], times[seen + j]) - done)
                for p in range(actor.ports, actor.ports_end):
                    port = ports[p]
                    moves = pool[port.rate + k * port.rate_k + lane * port.rate_l]
                    mine = port.own_count + lane * port.own_step
                    count = counts[mine]
                    counts[mine] = count + moves
                    ring, when, later = port.own_ring + lane, start, np.int64(1)
                    if port.gives:
                        when, later = seen, np.int64(0)
                    last = np.uint64(ring + ((count - 1) & port.mask) * port.own_width)
                    for moving in range(count, count + moves):
                        place = np.uint64(ring + (moving & port.mask) * port.own_width)
                        for j in range(width):  # tokens do not overtake
                            rings[place + j] = max(times[when + j] + later, rings[last + j])
            stopped += (own.fired >= actor.stop) & (own.fired < actor.firings)
            if own.fired > before:  # list the lanes that share a queue with it
                for p in range(actor.ports, actor.ports_end):
                    port = ports[p]
                    partner = port.each * (lane + port.shift)
                    low, high = max(0, partner), min(port.peers, partner + port.span)
                    for other in range(port.peer + low, port.peer + high):
                        if not listed[other]:
                            listed[other] = True
                            work[end & (work.size - 1)] = other
                            end += 1

        if stopped:
            return True
        now, best = NEVER, none  # then the earliest grant of all resources
        for r in range(resources.size):
            if resources[r].stale:
                _find_next(resources[r], waiting, lanes, asked, server, free)
            if resources[r].grant_at < now:
                now, best = resources[r].grant_at, r
        if best < 0:
            return False
        granter = resources[best]
        if memory is not None and granter.model:
            _find_by_rank(granter, now, actors, waiting, lanes, asked, requests, memory)
        winner = waiting[granter.next]
        granter.queued -= 1
        waiting[granter.next] = waiting[granter.waiting + granter.queued]
        granter.stale = 1
        taker = lanes[winner]
        holder = actors[taker.actor]
        n, firing = winner - holder.first_lane, taker.fired
        hold = np.int64(pool[holder.busy + firing * holder.busy_k + n * holder.busy_l])
        if memory is not None and granter.model:
            least = hold
            hold, longer, taker.latency = stateful.serve(  # type: ignore[assignment]
                granter.model,
                memory.params[granter.params : granter.params_end],
                memory.state[granter.state : granter.state_end],
                requests[taker.request : taker.request + holder.request_n],
                now,
            )
            taker.busy = max(least, longer)
            if record:
                answer = holder.answers + firing * holder.lanes + n
                memory.held[answer], memory.busy[answer] = hold, taker.busy
                memory.shown[answer] = taker.latency
        free[server[winner]] = now + hold
        why_at = CAUSE * lanes.size + winner
        if record:
            grant = holder.grants + firing * holder.lanes + n
            ready[grant], ready_causes[grant] = asked[winner], times[why_at]
        else:
            times[WAITED * lanes.size + winner] += now - asked[winner]
        if now > asked[winner]:
            times[winner], times[why_at] = now, GRANT
        taker.state = GRANTED
        listed[winner] = True
        work[end & (work.size - 1)] = winner
        end += 1


@dataclass(eq=False)
class State:
    """All that a run changes; a run that stopped goes on from it."""

    layout: Layout
    full: bool
    lanes: NDArray[np.void]
    counts: NDArray[np.int64]
    rings: NDArray[np.int64]
    times: NDArray[np.int64]
    asked: NDArray[np.int64]
    server: NDArray[np.int64]
    free: NDArray[np.int64]
    waiting: NDArray[np.int64]
    starts: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    causes: NDArray[np.int32] = field(default_factory=lambda: np.empty(0, np.int32))
    ready: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    ready_causes: NDArray[np.int32] = field(default_factory=lambda: np.empty(0, np.int32))
    answers: NDArray[np.int64] = field(default_factory=lambda: np.empty((3, 0), np.int64))

    @classmethod
    def at_first(cls, layout: Layout, full: bool) -> State:
        """Nothing has fired; ``full`` keeps every firing, else the sums of each lane."""
        lanes = np.zeros(layout.lanes, row_type(LaneRow))
        lanes["actor"] = np.repeat(np.arange(layout.actors.size), layout.actors["lanes"])
        state = cls(
            layout,
            full,
            lanes,
            counts=np.zeros(layout.count_size, np.int64),
            rings=np.zeros(layout.ring_size, np.int64),
            times=np.zeros((ROWS, layout.lanes), np.int64),
            asked=np.zeros(layout.lanes, np.int64),
            server=np.zeros(layout.lanes, np.int64),
            free=np.zeros(layout.server_size, np.int64),
            waiting=np.zeros(layout.waiting_size, np.int64),
        )
        if full:
            state.keep(layout.record_size, layout.grant_size, layout.answer_size)
        return state

    def keep(self, firings: int, granted: int, answered: int) -> None:
        """Keep from now on the firings, in so many places, and what was granted and answered."""
        self.full = True
        self.starts, self.causes = np.empty(firings, np.int64), np.empty(firings, np.int32)
        self.ready, self.ready_causes = np.empty(granted, np.int64), np.empty(granted, np.int32)
        self.answers = np.empty((3, answered), np.int64)
        self.__dict__.pop("_arguments", None)

    def go_on(self) -> bool:
        """Run as far as can be; whether lanes came to the stop of their actor.

        Evaluated are first the first lane of each uniform bank and every lane of the others.
        """
        first, is_first, work, listed, before, behind = self._arguments
        work[: first.size] = first
        listed[:] = is_first
        arguments: Any = (*before, work, listed, first.size, *behind)
        return run(*arguments)

    def changing(self) -> tuple[NDArray[Any], ...]:
        """All that a run changes and a later part of it needs."""
        kept = (self.lanes, self.counts, self.rings, self.times, self.asked, self.server, self.free)
        return *kept, self.waiting, self.layout.resources, self.layout.state

    @cached_property
    def _arguments(self) -> tuple[Any, ...]:
        layout = self.layout
        is_first = np.ones(layout.lanes, np.bool_)
        for a in layout.actors[layout.actors["width"] > 1]:
            is_first[a["first_lane"] + 1 : a["first_lane"] + a["lanes"]] = False
        work = np.zeros(1 << (layout.lanes - 1).bit_length(), np.int64)
        before = (
            *(layout.actors, layout.ports, layout.resources, self.lanes, layout.pool),
            *(layout.requests, self.counts, self.rings, self.times.reshape(-1)),
            *(self.asked, self.server, self.free, self.waiting),
        )
        is_stateful = bool(layout.resources["model"].any())
        behind = (
            *(self.full, self.starts, self.causes, self.ready, self.ready_causes),
            Memory(layout.params, layout.state, *self.answers) if is_stateful else None,
        )
        return np.flatnonzero(is_first), is_first, work, is_first.copy(), before, behind


def run_compiled(netlist: Netlist, record: str = "full") -> Timeline:
    """Run a netlist on the compiled engine; see :func:`sparqsim.simulator.engines.simulate`."""
    full, trail = record == "full", None
    if full:
        state = State.at_first(flatten(netlist), full)
        state.go_on()
    else:
        from sparqsim.simulator.engines import repeating

        state, trail = repeating.run_through(netlist)
    layout, times = state.layout, state.times
    rows = [(a["first_lane"], a["first_lane"] + a["lanes"]) for a in layout.actors]
    counted = state.lanes["fired"][layout.counters()]
    fired = tuple(counted[low:high] for low, high in rows)
    cycles = int(times[OVER].max())
    if not full:
        idled, blocked, waited = times[IDLED:ROWS]
        busy = times[END] - idled - waited  # the rest until the end
        sums = np.vstack([busy, idled - blocked, blocked, waited])
        parts = tuple(LaneTimes.of_sums(sums[:, low:high], cycles) for low, high in rows)
        return Timeline(netlist=netlist, cycles=cycles, fired=fired, sums=parts, trail=trail)

    def split(flat: Any, column: str) -> list[Any]:
        offsets = layout.actors[column].tolist()
        parts = zip(offsets, zip(netlist.actors, fired, strict=True), strict=True)
        return [
            None if at < 0 else lane_matrix(flat, at, actor, done) for at, (actor, done) in parts
        ]

    answered = [split(flat, "answers") for flat in state.answers]
    grants = zip(
        split(state.ready, "grants"), split(state.ready_causes, "grants"), *answered, strict=True
    )
    return Timeline(
        netlist=netlist,
        cycles=cycles,
        fired=fired,
        starts=tuple(split(state.starts, "record")),
        causes=tuple(split(state.causes, "record")),
        grants=tuple(None if parts[0] is None else Grants(*parts) for parts in grants),
    )
