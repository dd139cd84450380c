"""The compiled engine: evaluate everything that is determined, grant the earliest request, repeat.

A firing's start is a maximum over times already known: the end of the lane's previous firing, the
cycles its input tokens become visible, the cycles its output slots are freed. So no event queue is
needed for it. Per channel two rings hold the last ``capacity`` times at which tokens became visible
and slots were freed; a worklist holds the actors for which something new is known, and each is
evaluated as far as its inputs and rooms are known. Only resource requests need the order of time:
when the worklist is empty, the earliest grant possible over all resources is made. That is safe,
because whatever it causes happens at least one cycle later.

Lanes of a uniform bank (see :mod:`sparqsim.simulator.engines.layout`) are evaluated a row at a time
in loops over contiguous memory, which LLVM turns into vector instructions; the others lane by lane.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sparqsim.base import kernel
from sparqsim.simulator.engines import stateful
from sparqsim.simulator.engines.layout import (
    ANSWERS,
    BANKED,
    BUSY,
    BUSY_K,
    BUSY_L,
    CAPACITY,
    CONSUME,
    CONSUME_K,
    CONSUME_L,
    FIRINGS,
    FIRST_LANE,
    FREE_AT,
    FREED,
    FREED_W,
    GRANTS,
    INPUTS,
    INPUTS_END,
    KIND,
    LANES,
    LATENCY,
    LATENCY_K,
    LATENCY_L,
    MADE,
    MADE_STEP,
    MASK,
    MODEL,
    OFFSET,
    OUTPUTS,
    OUTPUTS_END,
    PARAMS,
    PARAMS_END,
    PRODUCE,
    PRODUCE_K,
    PRODUCE_L,
    RANK,
    RANK_K,
    RANK_L,
    RECORD,
    REQUEST,
    REQUEST_K,
    REQUEST_L,
    REQUEST_N,
    RESOURCE,
    SERVERS,
    SOURCE,
    STATE,
    STATE_END,
    TAKEN,
    TAKEN_STEP,
    TARGET,
    UNIFORM,
    VISIBLE,
    VISIBLE_W,
    WAITING,
    flatten,
)
from sparqsim.simulator.netlist import Netlist
from sparqsim.simulator.timeline import (
    FREE,
    GRANT,
    INPUT,
    OUTPUT,
    PREVIOUS,
    Grants,
    LaneTimes,
    Timeline,
    lane_matrix,
)

NEVER = np.iinfo(np.int64).max
BROADCAST, GATHER = 1, 2

# Without reference counts, which none of these functions needs: they own no array.
_compiled = kernel(error_model="numpy", _nrt=False)
_inlined = kernel(error_model="numpy", _nrt=False, forceinline=True)

# Rows of the per-lane sums kept under record="summary".
BUSY_SUM, STARVED_SUM, BLOCKED_SUM, WAITING_SUM = range(4)


@_inlined
def _row_is_known(
    a: int, k: int, actors: Any, channels: Any, inputs: Any, outputs: Any, pool: Any, counts: Any
) -> bool:
    """Whether every time that firing ``k`` of a uniform bank depends on is known."""
    for x in range(actors[a, INPUTS], actors[a, INPUTS_END]):
        c = inputs[x]
        rate = pool[channels[c, CONSUME] + k * channels[c, CONSUME_K]]
        if rate and counts[channels[c, MADE]] < counts[channels[c, TAKEN]] + rate:
            return False
    for x in range(actors[a, OUTPUTS], actors[a, OUTPUTS_END]):
        c = outputs[x]
        rate = pool[channels[c, PRODUCE] + k * channels[c, PRODUCE_K]]
        room = counts[channels[c, TAKEN]] + channels[c, CAPACITY] - counts[channels[c, MADE]]
        if rate and rate > room:
            return False
    return True


@_inlined
def _latest(
    starts: Any, causes: Any, at: int, lanes: int, times: Any, base: int, code: int
) -> None:
    """Raise each lane's start to the time beside it.

    Indices are unsigned so that numba adds no test for negative ones, which would keep LLVM from
    using vector instructions.
    """
    mine, other = np.uint64(at), np.uint64(base)
    for lane in range(np.uint64(lanes)):
        time, start = times[other + lane], starts[mine + lane]
        later = time > start
        causes[mine + lane] = code if later else causes[mine + lane]
        starts[mine + lane] = time if later else start


@_inlined
def _not_before(starts: Any, causes: Any, at: int, lanes: int, time: int, code: int) -> None:
    """Raise the starts of all lanes to one time."""
    mine = np.uint64(at)
    for lane in range(np.uint64(lanes)):
        start = starts[mine + lane]
        later = time > start
        causes[mine + lane] = code if later else causes[mine + lane]
        starts[mine + lane] = time if later else start


@_inlined
def _rows(
    a: int,
    actors: Any,
    channels: Any,
    inputs: Any,
    outputs: Any,
    pool: Any,
    rings: Any,
    counts: Any,
    fired: Any,
    ends: Any,
    record: bool,
    starts: Any,
    causes: Any,
    sums: Any,
    finish: Any,
) -> bool:
    """Evaluate a uniform bank as many rows as are known; whether there was any."""
    lanes, base = actors[a, LANES], actors[a, FIRST_LANE]
    first = fired[base]
    width, me = np.uint64(lanes), np.uint64(base)
    k = first
    while k < actors[a, FIRINGS]:
        if not _row_is_known(a, k, actors, channels, inputs, outputs, pool, counts):
            break
        at = actors[a, RECORD] + k * lanes if record else base
        row = np.uint64(at)
        own = FREE if k == 0 else PREVIOUS
        for lane in range(width):
            starts[row + lane] = ends[me + lane]
            causes[row + lane] = own
        for x in range(actors[a, INPUTS], actors[a, INPUTS_END]):
            c = inputs[x]
            rate = pool[channels[c, CONSUME] + k * channels[c, CONSUME_K]]
            if rate == 0:
                continue
            token = counts[channels[c, TAKEN]] + rate - 1
            slot = channels[c, VISIBLE] + (token & channels[c, MASK]) * channels[c, VISIBLE_W]
            code = INPUT + 2 * c
            if channels[c, KIND] == BROADCAST:
                _not_before(starts, causes, at, lanes, rings[slot], code)
            else:
                _latest(starts, causes, at, lanes, rings, slot, code)
        for x in range(actors[a, OUTPUTS], actors[a, OUTPUTS_END]):
            c = outputs[x]
            rate = pool[channels[c, PRODUCE] + k * channels[c, PRODUCE_K]]
            token = counts[channels[c, MADE]] + rate - 1 - channels[c, CAPACITY]
            if rate == 0 or token < 0:
                continue
            slot = channels[c, FREED] + (token & channels[c, MASK]) * channels[c, FREED_W]
            code = OUTPUT + 2 * c
            if channels[c, KIND] == GATHER:
                _not_before(starts, causes, at, lanes, rings[slot], code)
            else:
                _latest(starts, causes, at, lanes, rings, slot, code)

        for x in range(actors[a, INPUTS], actors[a, INPUTS_END]):
            c = inputs[x]
            rate = pool[channels[c, CONSUME] + k * channels[c, CONSUME_K]]
            taken = counts[channels[c, TAKEN]]
            for token in range(taken, taken + rate):
                slot = np.uint64(channels[c, FREED] + (token & channels[c, MASK]) * lanes)
                for lane in range(width):
                    rings[slot + lane] = starts[row + lane] + 1
            counts[channels[c, TAKEN]] = taken + rate

        if not record:
            for lane in range(width):
                gap = starts[row + lane] - ends[me + lane]
                cause = causes[row + lane] - INPUT
                sums[STARVED_SUM, me + lane] += gap if cause >= 0 and cause % 2 == 0 else 0
                sums[BLOCKED_SUM, me + lane] += gap if cause >= 0 and cause % 2 == 1 else 0

        work = np.uint64(actors[a, BUSY] + k * actors[a, BUSY_K])
        if actors[a, BUSY_L]:
            for lane in range(width):
                ends[me + lane] = starts[row + lane] + pool[work + lane]
        else:
            for lane in range(width):
                ends[me + lane] = starts[row + lane] + pool[work]
        if not record:
            for lane in range(width):
                sums[BUSY_SUM, me + lane] += ends[me + lane] - starts[row + lane]

        delay = np.uint64(actors[a, LATENCY] + k * actors[a, LATENCY_K])
        for x in range(actors[a, OUTPUTS], actors[a, OUTPUTS_END]):
            c = outputs[x]
            rate = pool[channels[c, PRODUCE] + k * channels[c, PRODUCE_K]]
            made = counts[channels[c, MADE]]
            if rate == 0:
                continue
            ring, mask = channels[c, VISIBLE], channels[c, MASK]
            slot = np.uint64(ring + (made & mask) * lanes)
            before = np.uint64(ring + ((made - 1) & mask) * lanes)
            if actors[a, LATENCY] < 0:
                for lane in range(width):
                    shown = max(ends[me + lane], starts[row + lane] + 1)
                    rings[slot + lane] = max(shown, rings[before + lane])
            elif actors[a, LATENCY_L]:
                for lane in range(width):
                    shown = starts[row + lane] + pool[delay + lane]
                    rings[slot + lane] = max(shown, rings[before + lane])
            else:
                for lane in range(width):
                    shown = starts[row + lane] + pool[delay]
                    rings[slot + lane] = max(shown, rings[before + lane])
            for token in range(made + 1, made + rate):
                copy = np.uint64(ring + (token & mask) * lanes)
                for lane in range(width):
                    rings[copy + lane] = rings[slot + lane]
            counts[channels[c, MADE]] = made + rate
        # Starts do not fall, so with one latency for all the last row finishes last.
        if actors[a, LATENCY_K] and actors[a, LATENCY_L]:
            for lane in range(width):
                shown = max(ends[me + lane], starts[row + lane] + pool[delay + lane])
                finish[me + lane] = max(finish[me + lane], shown)
        elif actors[a, LATENCY_K]:
            for lane in range(width):
                shown = max(ends[me + lane], starts[row + lane] + pool[delay])
                finish[me + lane] = max(finish[me + lane], shown)
        k += 1
    if k > first and not actors[a, LATENCY_K]:
        last = np.uint64(actors[a, RECORD] + (k - 1) * lanes if record else base)
        if actors[a, LATENCY] < 0:
            for lane in range(width):
                finish[me + lane] = max(ends[me + lane], starts[last + lane] + 1)
        elif actors[a, LATENCY_L]:
            delay = np.uint64(actors[a, LATENCY])
            for lane in range(width):
                finish[me + lane] = max(ends[me + lane], starts[last + lane] + pool[delay + lane])
        else:
            latency = pool[actors[a, LATENCY]]
            for lane in range(width):
                finish[me + lane] = max(ends[me + lane], starts[last + lane] + latency)
    fired[base] = k
    return k > first


@_inlined
def _ready(
    actor: Any,
    lane: int,
    k: int,
    end: int,
    channels: Any,
    inputs: Any,
    outputs: Any,
    pool: Any,
    rings: Any,
    counts: Any,
) -> tuple[int, int]:
    """When (a) to (c) hold for a firing, and the last of them to hold; -1 if not yet known."""
    start, cause = end, PREVIOUS if k else FREE
    for x in range(actor[INPUTS], actor[INPUTS_END]):
        c = channels[inputs[x]]
        rate = pool[c[CONSUME] + k * c[CONSUME_K] + lane * c[CONSUME_L]]
        if rate == 0:
            continue
        low, high = 0, c[VISIBLE_W]
        if c[KIND] != BROADCAST and c[KIND] != GATHER:
            low = max(0, lane - c[OFFSET])
            high = min(high, lane - c[OFFSET] + 1)
        token = counts[c[TAKEN] + lane * c[TAKEN_STEP]] + rate - 1
        slot = c[VISIBLE] + (token & c[MASK]) * c[VISIBLE_W]
        for other in range(low, high):
            if counts[c[MADE] + other * c[MADE_STEP]] <= token:
                return -1, 0
            if rings[slot + other] > start:
                start, cause = rings[slot + other], INPUT + 2 * inputs[x]
    for x in range(actor[OUTPUTS], actor[OUTPUTS_END]):
        c = channels[outputs[x]]
        rate = pool[c[PRODUCE] + k * c[PRODUCE_K] + lane * c[PRODUCE_L]]
        token = counts[c[MADE] + lane * c[MADE_STEP]] + rate - 1 - c[CAPACITY]
        if rate == 0 or token < 0:
            continue
        low, high = 0, c[FREED_W]
        if c[KIND] != BROADCAST and c[KIND] != GATHER:
            low = max(0, lane + c[OFFSET])
            high = min(high, lane + c[OFFSET] + 1)
        slot = c[FREED] + (token & c[MASK]) * c[FREED_W]
        for other in range(low, high):
            if counts[c[TAKEN] + other * c[TAKEN_STEP]] <= token:
                return -1, 0
            if rings[slot + other] > start:
                start, cause = rings[slot + other], OUTPUT + 2 * outputs[x]
    return start, cause


@_inlined
def _fire(
    actor: Any,
    lane: int,
    k: int,
    start: int,
    cause: int,
    busy: int,
    latency: int,
    channels: Any,
    inputs: Any,
    outputs: Any,
    pool: Any,
    rings: Any,
    counts: Any,
    fired: Any,
    ends: Any,
    record: bool,
    starts: Any,
    causes: Any,
    finish: Any,
) -> None:
    """Start a firing of one lane: pop, take room, make what it produces visible."""
    me = actor[FIRST_LANE] + lane
    if record:
        starts[actor[RECORD] + k * actor[LANES] + lane] = start
        causes[actor[RECORD] + k * actor[LANES] + lane] = cause
    for x in range(actor[INPUTS], actor[INPUTS_END]):
        c = channels[inputs[x]]
        rate = pool[c[CONSUME] + k * c[CONSUME_K] + lane * c[CONSUME_L]]
        count = c[TAKEN] + lane * c[TAKEN_STEP]
        for token in range(counts[count], counts[count] + rate):
            rings[c[FREED] + (token & c[MASK]) * c[FREED_W] + lane] = start + 1
        counts[count] += rate
    for x in range(actor[OUTPUTS], actor[OUTPUTS_END]):
        c = channels[outputs[x]]
        rate = pool[c[PRODUCE] + k * c[PRODUCE_K] + lane * c[PRODUCE_L]]
        count = c[MADE] + lane * c[MADE_STEP]
        earlier = rings[c[VISIBLE] + ((counts[count] - 1) & c[MASK]) * c[VISIBLE_W] + lane]
        shown = max(start + latency, earlier)
        for token in range(counts[count], counts[count] + rate):
            rings[c[VISIBLE] + (token & c[MASK]) * c[VISIBLE_W] + lane] = shown
        counts[count] += rate
    ends[me] = start + busy
    finish[me] = max(finish[me], start + busy, start + latency)
    fired[me] = k + 1


@_inlined
def _earliest_grant(resource: Any, waiting: Any, count: int, request_at: Any, bank: Any, free: Any):  # type: ignore[no-untyped-def]
    """The first cycle at which a resource can grant one of its waiting requests."""
    if count == 0:
        return NEVER
    first = NEVER
    for x in range(resource[WAITING], resource[WAITING] + count):
        me = waiting[x]
        time = request_at[me]
        if resource[BANKED]:
            time = max(time, free[resource[FREE_AT] + bank[me]])
        first = min(first, time)
    if not resource[BANKED]:
        server = NEVER
        for x in range(resource[FREE_AT], resource[FREE_AT] + resource[SERVERS]):
            server = min(server, free[x])
        first = max(first, server)
    return first


@_inlined
def _wake(
    actor: Any,
    lane: int,
    actors: Any,
    channels: Any,
    inputs: Any,
    outputs: Any,
    work: Any,
    listed: Any,
    stirred: Any,
    end: int,
) -> int:
    """List the neighbours of a lane that fired (of all lanes: -1); the new end of the worklist.

    Only the lanes it shares a queue with are stirred: of a wide bank nothing else is known anew.
    """
    in_count = actor[INPUTS_END] - actor[INPUTS]
    for x in range(in_count + actor[OUTPUTS_END] - actor[OUTPUTS]):
        back = x < in_count
        c = channels[inputs[actor[INPUTS] + x] if back else outputs[actor[OUTPUTS] + x - in_count]]
        other = c[SOURCE] if back else c[TARGET]
        if not listed[other]:
            listed[other] = True
            work[end % work.size] = other
            end += 1
        if actors[other, UNIFORM]:
            continue
        begin, stop = 0, actors[other, LANES]
        if lane >= 0 and c[KIND] != BROADCAST and c[KIND] != GATHER:
            partner = lane - c[OFFSET] if back else lane + c[OFFSET]
            begin, stop = max(0, partner), min(stop, partner + 1)
        for partner in range(begin, stop):
            stirred[actors[other, FIRST_LANE] + partner] = True
    return end


@_compiled
def run(
    actors: Any,
    channels: Any,
    resources: Any,
    inputs: Any,
    outputs: Any,
    pool: Any,
    requests: Any,
    params: Any,
    state: Any,
    actor_of: Any,
    rings: Any,
    counts: Any,
    free: Any,
    waiting: Any,
    record: bool,
    fired: Any,
    starts: Any,
    causes: Any,
    ready: Any,
    ready_causes: Any,
    held: Any,
    occupied: Any,
    shown: Any,
    sums: Any,
    finish: Any,
    ends: Any,
    request_at: Any,
    request_cause: Any,
    bank: Any,
    queued: Any,
    grant_at: Any,
    stale: Any,
    work: Any,
    listed: Any,
    stirred: Any,
) -> None:
    """Run a netlist laid out by :func:`sparqsim.simulator.engines.layout.flatten` until nothing can
    fire.

    ``record`` false keeps no time of a single firing, only the sums a lane. Every array after
    ``state`` is written.
    """
    head, end = 0, actors.shape[0]

    while True:
        while head < end:
            a = work[head % work.size]
            head += 1
            listed[a] = False
            actor = actors[a]
            if actor[UNIFORM]:
                moved = _rows(
                    a,
                    actors,
                    channels,
                    inputs,
                    outputs,
                    pool,
                    rings,
                    counts,
                    fired,
                    ends,
                    record,
                    starts,
                    causes,
                    sums,
                    finish,
                )
                if moved:
                    end = _wake(
                        actor, -1, actors, channels, inputs, outputs, work, listed, stirred, end
                    )
            else:
                for lane in range(actor[LANES]):
                    me = actor[FIRST_LANE] + lane
                    if not stirred[me]:
                        continue
                    stirred[me] = False
                    moved = False
                    while fired[me] < actor[FIRINGS] and request_at[me] < 0:
                        k = fired[me]
                        start, cause = _ready(
                            actor,
                            lane,
                            k,
                            ends[me],
                            channels,
                            inputs,
                            outputs,
                            pool,
                            rings,
                            counts,
                        )
                        if start < 0:
                            break
                        if not record:
                            gap = start - ends[me]
                            if cause >= INPUT and (cause - INPUT) % 2 == 0:
                                sums[STARVED_SUM, me] += gap
                            elif cause >= INPUT:
                                sums[BLOCKED_SUM, me] += gap
                        r = actor[RESOURCE]
                        if r >= 0:
                            request_at[me], request_cause[me] = start, cause
                            if resources[r, BANKED]:
                                at = k * actor[REQUEST_K] + lane * actor[REQUEST_L]
                                bank[me] = requests[actor[REQUEST] + at]
                            waiting[resources[r, WAITING] + queued[r]] = me
                            queued[r] += 1
                            stale[r] = True
                            break
                        at = k * actor[BUSY_K] + lane * actor[BUSY_L]
                        busy = pool[actor[BUSY] + at]
                        latency = max(busy, 1)
                        if actor[LATENCY] >= 0:
                            at = k * actor[LATENCY_K] + lane * actor[LATENCY_L]
                            latency = pool[actor[LATENCY] + at]
                        _fire(
                            actor,
                            lane,
                            k,
                            start,
                            cause,
                            busy,
                            latency,
                            channels,
                            inputs,
                            outputs,
                            pool,
                            rings,
                            counts,
                            fired,
                            ends,
                            record,
                            starts,
                            causes,
                            finish,
                        )
                        sums[BUSY_SUM, me] += busy
                        moved = True
                    if moved:
                        end = _wake(
                            actor,
                            lane,
                            actors,
                            channels,
                            inputs,
                            outputs,
                            work,
                            listed,
                            stirred,
                            end,
                        )

        first, best = NEVER, -1
        for r in range(resources.shape[0]):
            if stale[r]:
                grant_at[r] = _earliest_grant(
                    resources[r], waiting, queued[r], request_at, bank, free
                )
                stale[r] = False
            if grant_at[r] < first:
                first, best = grant_at[r], r
        if best < 0:
            break

        resource = resources[best]
        model = resource[MODEL]
        own_params = params[resource[PARAMS] : resource[PARAMS_END]]
        own_state = state[resource[STATE] : resource[STATE_END]]
        chosen, chosen_first, chosen_rank, place = -1, 0, 0, -1
        for x in range(resource[WAITING], resource[WAITING] + queued[best]):
            me = waiting[x]
            if request_at[me] > first:
                continue
            if resource[BANKED] and free[resource[FREE_AT] + bank[me]] > first:
                continue
            actor = actors[actor_of[me]]
            lane = me - actor[FIRST_LANE]
            own = pool[actor[RANK] + fired[me] * actor[RANK_K] + lane * actor[RANK_L]]
            if chosen >= 0 and own > chosen_first:
                continue
            rank = 0
            if model:
                at = actor[REQUEST] + fired[me] * actor[REQUEST_K] + lane * actor[REQUEST_L]
                asked = requests[at : at + actor[REQUEST_N]]
                rank = stateful.rank(model, own_params, own_state, asked, first)
            better = chosen < 0 or own < chosen_first or rank < chosen_rank
            if not better and rank == chosen_rank:
                age, oldest = request_at[me], request_at[chosen]
                better = age < oldest or (age == oldest and me < chosen)
            if better:
                chosen, chosen_first, chosen_rank, place = me, own, rank, x
        me = chosen
        queued[best] -= 1
        waiting[place] = waiting[resource[WAITING] + queued[best]]
        stale[best] = True

        a = actor_of[me]
        actor = actors[a]
        lane, k = me - actor[FIRST_LANE], fired[me]
        busy = pool[actor[BUSY] + k * actor[BUSY_K] + lane * actor[BUSY_L]]
        latency, hold = busy, busy
        if actor[LATENCY] >= 0:
            latency = pool[actor[LATENCY] + k * actor[LATENCY_K] + lane * actor[LATENCY_L]]
        if model:
            at = actor[REQUEST] + k * actor[REQUEST_K] + lane * actor[REQUEST_L]
            asked = requests[at : at + actor[REQUEST_N]]
            hold, longer, latency = stateful.serve(model, own_params, own_state, asked, first)
            busy = max(busy, longer)
            if record:
                at = actor[ANSWERS] + k * actor[LANES] + lane
                held[at], occupied[at], shown[at] = hold, busy, latency
        server = resource[FREE_AT]
        if resource[BANKED]:
            server += bank[me]
        else:
            while free[server] > first:
                server += 1
        free[server] = first + hold
        if record:
            ready[actor[GRANTS] + k * actor[LANES] + lane] = request_at[me]
            ready_causes[actor[GRANTS] + k * actor[LANES] + lane] = request_cause[me]
        else:
            sums[WAITING_SUM, me] += first - request_at[me]
        cause = GRANT if first > request_at[me] else request_cause[me]
        request_at[me] = -1
        _fire(
            actor,
            lane,
            k,
            first,
            cause,
            busy,
            latency,
            channels,
            inputs,
            outputs,
            pool,
            rings,
            counts,
            fired,
            ends,
            record,
            starts,
            causes,
            finish,
        )
        sums[BUSY_SUM, me] += busy
        if not listed[a]:
            listed[a] = True
            work[end % work.size] = a
            end += 1
        stirred[me] = True
        end = _wake(actor, lane, actors, channels, inputs, outputs, work, listed, stirred, end)


def run_compiled(netlist: Netlist, record: str = "full") -> Timeline:
    """Run a netlist on the compiled engine; see :func:`sparqsim.simulator.engines.simulate`."""
    layout = flatten(netlist)
    full = record == "full"
    kept = layout.record_size if full else layout.lanes
    starts = np.empty(kept, np.int64)
    causes = np.empty(kept, np.int32)
    ready = np.empty(layout.grant_size if full else 0, np.int64)
    ready_causes = np.empty(ready.size, np.int32)
    held = np.empty(layout.answer_size if full else 0, np.int64)
    occupied = np.empty(held.size, np.int64)
    shown = np.empty(held.size, np.int64)
    fired = np.zeros(layout.lanes, np.int64)
    finish = np.zeros(layout.lanes, np.int64)
    sums = np.zeros((4, layout.lanes), np.int64)
    actor_of = np.repeat(np.arange(len(netlist.actors)), layout.actors[:, LANES])
    run(
        layout.actors,
        layout.channels,
        layout.resources,
        layout.inputs,
        layout.outputs,
        layout.pool,
        layout.requests,
        layout.params,
        layout.state.copy(),
        actor_of,
        np.zeros(layout.ring_size, np.int64),
        np.zeros(layout.count_size, np.int64),
        np.zeros(layout.server_size, np.int64),
        np.zeros(layout.waiting_size, np.int64),
        full,
        fired,
        starts,
        causes,
        ready,
        ready_causes,
        held,
        occupied,
        shown,
        sums,
        finish,
        np.zeros(layout.lanes, np.int64),
        np.full(layout.lanes, -1, np.int64),
        np.zeros(layout.lanes, np.int32),
        np.zeros(layout.lanes, np.int64),
        np.zeros(len(layout.resources), np.int64),
        np.full(len(layout.resources), NEVER, np.int64),
        np.zeros(len(layout.resources), np.bool_),
        np.arange(len(layout.actors)),
        np.ones(len(layout.actors), np.bool_),
        np.ones(layout.lanes, np.bool_),
    )
    done = []
    for i, row in enumerate(layout.actors):
        low = row[FIRST_LANE]
        if row[UNIFORM]:
            done.append(np.full(row[LANES], fired[low]))
        else:
            done.append(fired[low : low + row[LANES]])
        assert done[i].size == netlist.actors[i].lanes
    cycles = int(finish.max(initial=0))

    def split(flat: Any, column: int) -> list[Any]:
        return [
            lane_matrix(flat, int(row[column]), actor, done[i]) if row[column] >= 0 else None
            for i, (row, actor) in enumerate(zip(layout.actors, netlist.actors, strict=True))
        ]

    if not full:
        lanes = [
            LaneTimes.of_sums(sums[:, row[FIRST_LANE] : row[FIRST_LANE] + row[LANES]], cycles)
            for row in layout.actors
        ]
        return Timeline(netlist=netlist, cycles=cycles, fired=tuple(done), sums=tuple(lanes))
    granted = zip(
        split(ready, GRANTS),
        split(ready_causes, GRANTS),
        split(held, ANSWERS),
        split(occupied, ANSWERS),
        split(shown, ANSWERS),
        strict=True,
    )
    return Timeline(
        netlist=netlist,
        cycles=cycles,
        fired=tuple(done),
        starts=tuple(split(starts, RECORD)),
        causes=tuple(split(causes, RECORD)),
        grants=tuple(None if parts[0] is None else Grants(*parts) for parts in granted),
    )
