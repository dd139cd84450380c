"""The DRAM channel as two compiled functions on integer arrays, ``serve`` and ``rank``.

A channel is a set of timelines, all kept in ``state``: when each bank may next be activated,
precharged and accessed, when each bank group and the data bus may next take a column command, the
last four activates, the next refresh. Serving a request writes its commands onto them: precharge
and activate if its row is not open, then one column command a burst, each at the first cycle that
no constraint forbids. Commands are written at most ``LOOKAHEAD`` cycles before the data bus is
free, just enough to hide a change of rows behind the data of other banks; then the channel waits,
and so chooses among as many requests as a real controller does.

The choice is FR-FCFS: first the request whose column command can issue first (a row hit before a
closed bank, that before a conflict), then the oldest. Requests against the favoured direction of
the bus come after all others. Reads are favoured until none waits; once a write is served, writes
are, for ``WRITE_BATCH`` bursts (a write drain). Writes that wait are thus held back for as long as
reads come without a pause.

Left out: contention for the command bus, several ranks, refresh of single banks, power-down.
Source: the constraints are those of the JEDEC standards, as datasheets print them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sparqsim.base import kernel

Ints = NDArray[np.int64]

# A request: flat bank (bank group first), row, bursts, 1 for a write, and the address in bursts
# within the channel, from which the bank and row of its later bursts follow.
BANK, ROW, BURSTS, IS_WRITE, ADDRESS, FIELDS = range(6)

# Constants, in cycles of the channel's own clock; a core cycle is CLOCK_UP / CLOCK_DOWN of them.
CLOCK_UP, CLOCK_DOWN, CONTROLLER, LOOKAHEAD, CLOSED_PAGE, WRITE_BATCH, BURST, CL, CWL = range(9)
RCD_RD, RCD_WR, RP, RAS, RC, CCD_S, CCD_L, RRD_S, RRD_L, FAW, WR, RTP = range(9, 21)
READ_TO_WRITE, WRITE_TO_READ_S, WRITE_TO_READ_L, RFC, REFI = range(21, 26)
BANKS, BANK_BITS = range(26, 28)
ROW_AT, ROW_MASK, GROUP_AT, GROUP_MASK, BANK_AT, BANK_MASK = range(28, 34)  # in an address
RUN, ROUNDS = range(34, 36)  # neighbouring bursts of one row; if 1, of one row of each group

# State: a header, then GROUP_WORDS for each bank group, then BANK_WORDS for each bank.
NEXT_RD, NEXT_WR = range(2)  # the data bus: earliest column command of a read, of a write
NEXT_ACT = 2  # earliest activate by tRRD_S and tFAW
FAW_HEAD, FAW_0, FAW_1, FAW_2, FAW_3 = range(3, 8)  # a ring of the last four activates
DUE = 8  # the next refresh
FAVOUR, BATCH = range(9, 11)  # 1 while writes are favoured; bursts written since
LAST_KIND = 11  # 1 after a write, 0 after a read, -1 at first
HITS, MISSES, CONFLICTS, REFRESHES, TURNS, READ_BURSTS, WRITE_BURSTS, HEADER = range(12, 20)
G_RD, G_WR, G_ACT, GROUP_WORDS = range(4)
B_ROW, B_RD, B_WR, B_ACT, B_PRE, BANK_WORDS = range(6)
MOST_GROUPS = 8
FIRST_BANK = HEADER + MOST_GROUPS * GROUP_WORDS
QUEUED, LEFT, FIRST = range(3)  # of a queue in `replay`

# These functions allocate nothing. Without numba's counting of references, which costs more than
# the arithmetic, and inlined, a rank takes 4 ns instead of 17.
_compiled = kernel(error_model="numpy", _nrt=False)
_inlined = kernel(error_model="numpy", _nrt=False, forceinline=True)

NEVER = 1 << 60
LONG_AGO = -(1 << 40)
TURN = 1 << 40  # added to the rank of a request against the favoured direction


@_inlined
def _activate_time(params: Ints, state: Ints, group: int, bank: int, start: int) -> int:
    """Earliest activate of a bank from ``start`` on, after a precharge if a row is open."""
    act = max(start, state[bank + B_ACT])
    if state[bank + B_ROW] >= 0:
        act = max(act, max(start, state[bank + B_PRE]) + params[RP])
    return max(act, max(state[NEXT_ACT], state[group + G_ACT]))


@_inlined
def _own_clock(params: Ints, now: int) -> int:
    """A core cycle in cycles of the channel, rounded up."""
    if params[CLOCK_UP] == params[CLOCK_DOWN]:
        return now
    return -(-now * params[CLOCK_UP] // params[CLOCK_DOWN])


@_inlined
def rank(params: Ints, state: Ints, request: Ints, now: int) -> int:
    """Cycles from the first slot the bus could offer until the request's column command.

    0 is therefore the least; ``TURN`` is added against the favoured direction of the bus.
    """
    start = _own_clock(params, now) + params[CONTROLLER]
    kind = request[IS_WRITE]
    group = HEADER + (request[BANK] >> params[BANK_BITS]) * GROUP_WORDS
    bank = FIRST_BANK + request[BANK] * BANK_WORDS
    if state[bank + B_ROW] == request[ROW]:
        column = max(start, state[bank + B_RD + kind])
    else:
        column = _activate_time(params, state, group, bank, start) + params[RCD_RD + kind]
    column = max(column, max(state[NEXT_RD + kind], state[group + G_RD + kind]))
    wait = column - max(start, min(state[NEXT_RD], state[NEXT_WR]))
    return wait if kind == state[FAVOUR] else wait + TURN


@_compiled
def _refresh(params: Ints, state: Ints, until: int) -> None:
    """Do the refreshes due by cycle ``until``: close all rows, then keep all banks for tRFC."""
    end = FIRST_BANK + params[BANKS] * BANK_WORDS
    while state[DUE] <= until:
        ready = state[DUE]
        for bank in range(FIRST_BANK, end, BANK_WORDS):
            ready = max(ready, state[bank + B_ACT])
            if state[bank + B_ROW] >= 0:
                ready = max(ready, max(state[DUE], state[bank + B_PRE]) + params[RP])
        done = ready + params[RFC]
        for bank in range(FIRST_BANK, end, BANK_WORDS):
            state[bank + B_ROW] = -1
            state[bank + B_ACT] = done
        # While idle every refresh but the last leaves no trace.
        times = max(1, (until - done) // params[REFI])
        state[REFRESHES] += times
        state[DUE] += times * params[REFI]


@_inlined
def _after_column(params: Ints, state: Ints, group: int, bank: int, kind: int, column: int) -> None:
    """What the last column command of a bank leaves on the timelines."""
    if kind:
        state[NEXT_WR] = column + params[CCD_S]
        state[group + G_WR] = column + params[CCD_L]
        state[NEXT_RD] = column + params[WRITE_TO_READ_S]
        state[group + G_RD] = column + params[WRITE_TO_READ_L]
        closable = column + params[CWL] + params[BURST] + params[WR]
    else:
        state[NEXT_RD] = column + params[CCD_S]
        state[group + G_RD] = column + params[CCD_L]
        state[NEXT_WR] = column + params[READ_TO_WRITE]
        closable = column + params[RTP]
    state[bank + B_PRE] = max(state[bank + B_PRE], closable)


@_compiled
def _rounds(
    params: Ints, state: Ints, number: int, row: int, kind: int, bursts: int, start: int
) -> tuple[int, int]:
    """Write whole rounds of bursts that take turns among the bank groups, all of them row hits.

    Only as far as each burst follows the one before by tCCD_S, and before the next refresh: then
    the last round says it all. Returns the last column command and the number of bursts written,
    0 where the bursts must be looked at one by one.
    """
    groups, step = params[GROUP_MASK] + 1, params[CCD_S]
    first = state[NEXT_RD + kind]
    number &= params[BANK_MASK]  # in bank group 0
    if start > first or groups * step < params[CCD_L]:
        return 0, 0
    for g in range(groups):
        group = HEADER + g * GROUP_WORDS
        bank = FIRST_BANK + ((g << params[BANK_BITS]) | number) * BANK_WORDS
        ready = max(state[group + G_RD + kind], state[bank + B_RD + kind])
        if state[bank + B_ROW] != row or ready > first + g * step:
            return 0, 0
    count = min(bursts // groups, (state[DUE] - 1 - first + step) // (groups * step)) * groups
    if count <= 0:
        return 0, 0
    last = first + (count - 1) * step
    for g in range(groups):
        group = HEADER + g * GROUP_WORDS
        bank = FIRST_BANK + ((g << params[BANK_BITS]) | number) * BANK_WORDS
        _after_column(params, state, group, bank, kind, last - (groups - 1 - g) * step)
    state[HITS] += count
    return last, count


@_compiled
def _access(
    params: Ints, state: Ints, number: int, row: int, kind: int, bursts: int, start: int
) -> tuple[int, int, int]:
    """Write up to ``bursts`` bursts of one row onto the timelines, those before a refresh.

    Returns the cycle of the last column command, the cycle in which the request leaves the queue
    (its activate, or the column command of a hit), and the number of bursts written.
    """
    group = HEADER + (number >> params[BANK_BITS]) * GROUP_WORDS
    bank = FIRST_BANK + number * BANK_WORDS
    while True:
        bus = max(state[NEXT_RD + kind], state[group + G_RD + kind])
        hit = state[bank + B_ROW] == row
        if hit:
            leave = max(bus, max(start, state[bank + B_RD + kind]))
            column = leave
        else:
            leave = _activate_time(params, state, group, bank, start)
            column = max(bus, leave + params[RCD_RD + kind])
        if column < state[DUE]:
            break
        _refresh(params, state, max(start, state[DUE]))
    if hit:
        state[HITS] += 1
    else:
        if state[bank + B_ROW] >= 0:
            state[CONFLICTS] += 1
        else:
            state[MISSES] += 1
        state[bank + B_ROW] = row
        state[bank + B_ACT] = leave + params[RC]
        state[bank + B_RD] = leave + params[RCD_RD]
        state[bank + B_WR] = leave + params[RCD_WR]
        state[bank + B_PRE] = leave + params[RAS]
        state[group + G_ACT] = leave + params[RRD_L]
        state[FAW_0 + state[FAW_HEAD]] = leave
        state[FAW_HEAD] = (state[FAW_HEAD] + 1) & 3
        oldest = state[FAW_0 + state[FAW_HEAD]]
        state[NEXT_ACT] = max(leave + params[RRD_S], oldest + params[FAW])
    count = 1
    if bursts > 1:
        count = min(bursts, 1 + (state[DUE] - 1 - column) // params[CCD_L])
        column += (count - 1) * params[CCD_L]
        state[HITS] += count - 1
        if count > 1:
            leave = column
    _after_column(params, state, group, bank, kind, column)
    return column, leave, count


@_compiled
def serve(params: Ints, state: Ints, request: Ints, now: int) -> tuple[int, int, int]:
    """Write a request onto the timelines of the channel.

    Returns
    -------
    hold, busy, latency
        Core cycles from ``now``, at least 1: until the channel chooses again, until the request
        leaves the controller's queue (never before that), and until all its data is across.
    """
    start = _own_clock(params, now)
    kind = request[IS_WRITE]
    bank, row, left, address = request[BANK], request[ROW], request[BURSTS], request[ADDRESS]
    column = leave = start
    while left > 0:
        ahead = min(state[NEXT_RD], state[NEXT_WR]) - params[LOOKAHEAD]
        earliest = max(start, ahead) + params[CONTROLLER]
        run = min(left, params[RUN] - (address & (params[RUN] - 1)))
        count = 0
        if params[ROUNDS] and run > params[GROUP_MASK] + 1 and address & params[GROUP_MASK] == 0:
            last, count = _rounds(params, state, bank, row, kind, run, earliest)
            if count:
                column = leave = last
        if count == 0:
            one = 1 if params[ROUNDS] else run
            column, leave, count = _access(params, state, bank, row, kind, one, earliest)
        left -= count
        address += count
        row = (address >> params[ROW_AT]) & params[ROW_MASK]
        group = (address >> params[GROUP_AT]) & params[GROUP_MASK]
        bank = (group << params[BANK_BITS]) | ((address >> params[BANK_AT]) & params[BANK_MASK])
    if state[LAST_KIND] == 1 - kind:
        state[TURNS] += 1
    state[LAST_KIND] = kind
    state[READ_BURSTS + kind] += request[BURSTS]
    written = (state[BATCH] + request[BURSTS]) * kind
    state[BATCH] = written if written < params[WRITE_BATCH] else 0
    state[FAVOUR] = 1 if state[BATCH] > 0 else 0
    if params[CLOSED_PAGE]:
        for at in range(FIRST_BANK, FIRST_BANK + params[BANKS] * BANK_WORDS, BANK_WORDS):
            if state[at + B_ROW] >= 0:
                state[at + B_ROW] = -1
                state[at + B_ACT] = max(state[at + B_ACT], state[at + B_PRE] + params[RP])
    free = min(state[NEXT_RD], state[NEXT_WR]) - params[LOOKAHEAD]
    data = column + params[CWL if kind else CL] + params[BURST]
    up, down = params[CLOCK_UP], params[CLOCK_DOWN]
    if up == down:
        hold, busy, latency = free - now, leave - now, data - now
    else:
        hold = -(-free * down // up) - now
        busy = -(-leave * down // up) - now
        latency = -(-data * down // up) - now
    hold = max(1, hold)
    return hold, max(hold, busy), latency


@_compiled
def replay(
    params: Ints,
    state: Ints,
    requests: Ints,
    entries: Ints,
    waiting: Ints,
    leaving: Ints,
    starts: Ints,
    ends: Ints,
) -> None:
    """Feed requests, in order, through a read queue and a write queue to one channel.

    A request enters its queue, of ``entries[kind]`` places, once those before it have entered and
    a place is free; it leaves ``busy`` cycles after it is served. The channel obeys the rule of
    the engines: when free, it serves the waiting request of least rank, the older first. The
    cycles of service and of the last data go to ``starts`` and ``ends``.

    Room to work: ``waiting`` (requests in order of age, as many as all places) and ``leaving``
    ``[2, places + 2]`` (a row a kind: how many wait, how many leave, and when, in no order).
    """
    here = following = free = 0
    while following < len(requests) or here > 0:
        now = free
        while following < len(requests):
            kind = requests[following, IS_WRITE]
            at, place = now, -1
            if leaving[kind, QUEUED] + leaving[kind, LEFT] == entries[kind]:
                if leaving[kind, LEFT] == 0:
                    break
                place = FIRST
                for i in range(FIRST + 1, FIRST + leaving[kind, LEFT]):
                    if leaving[kind, i] < leaving[kind, place]:
                        place = i
                at = leaving[kind, place]
            if at > now:
                if here > 0:
                    break
                now = at
            if place >= 0:
                leaving[kind, LEFT] -= 1
                leaving[kind, place] = leaving[kind, FIRST + leaving[kind, LEFT]]
            leaving[kind, QUEUED] += 1
            waiting[here] = following
            here += 1
            following += 1
        chosen, least = 0, NEVER
        for i in range(here):
            wait = rank(params, state, requests[waiting[i]], now)
            if wait < least:
                chosen, least = i, wait
                if least == 0:  # none can be less, and the older goes first
                    break
        which = waiting[chosen]
        hold, busy, latency = serve(params, state, requests[which], now)
        here -= 1
        for i in range(chosen, here):
            waiting[i] = waiting[i + 1]
        kind = requests[which, IS_WRITE]
        leaving[kind, QUEUED] -= 1
        leaving[kind, FIRST + leaving[kind, LEFT]] = now + busy
        leaving[kind, LEFT] += 1
        starts[which] = now
        ends[which] = now + latency
        free = now + hold
