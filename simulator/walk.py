"""The walk back through a run: from each firing to the one that it waited for last.

A :class:`Span` holds what is known of some firings, those of every actor from a certain one on:
all of a run, or what was recorded of a part of it. :class:`Walk` goes back through it, and says
where it stopped: at the start of the run, before a firing ahead of the span, or because the firing
waited for may lie ahead of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sparqsim.base import kernel
from sparqsim.simulator.engines.layout import SHARED, row_type
from sparqsim.simulator.netlist import Netlist, Pattern
from sparqsim.simulator.timeline import FREE, GRANT, INPUT, PREVIOUS

Ints = NDArray[np.int64]

# What filled a step: the firing itself, its resource, or from 0 on the full queue of a channel.
ITSELF, HELD = -1, -2

# Why a walk stopped: at the start of the run, before a firing ahead of the span, at one whose cause
# may lie ahead of it, or after as many rows or looks as were allowed.
BEGINNING, AHEAD, UNKNOWN, ALLOWED = range(4)

# So many firings are looked at in plain Python: to compile the kernel, or to load it, takes longer.
PLAIN_LOOKS = 20_000


class Place(NamedTuple):
    """Before a firing of a walk back, at the step of kind ``code`` that lasts until ``end``."""

    actor: int
    lane: int
    firing: int
    end: int
    code: int = ITSELF


class _ActorRow(NamedTuple):
    """An actor in the walk: where its starts lie, and the holders of its resource."""

    starts: int  # firings count from the first of the run, so that offsets may lie below 0
    lanes: int
    firings: int  # up to the end of the span
    first_lane: int  # among the lanes of all actors
    free: int = -1  # until when firings ahead of the span hold its resource
    banks: int = 1
    holders: int = 0
    holders_end: int = 0


class _Tokens(NamedTuple):
    """Tokens moved by the first n firings of a lane: ``sums[at + n * width + lane % width]``."""

    at: int
    width: int


class _PortRow(NamedTuple):
    """An end of a channel as its actor sees it; the cause that names it is INPUT + its place."""

    channel: int
    gives: int
    peer: int
    each: int  # 1: a lane has a partner of its own; 0: all lanes of the peer are
    shift: int
    lag: int  # tokens by which this end may be ahead of the other
    own_at: int
    own_width: int
    other_at: int
    other_width: int


@dataclass(frozen=True, eq=False)
class Span:
    """What is known of the firings of every actor from a certain one on.

    Attributes
    ----------
    firsts
        The first firing of each actor that has a row.
    starts, causes, shown
        Of each actor ``[firings, lanes]``: start cycles, causes, and cycles until what is made is
        visible.
    holds
        Of each actor that holds a resource the cycles of its holds ``[firings, lanes]``.
    rates
        Of each channel what the firings of its source make, and those of its target take, each
        ``[1 or firings, 1 or lanes]``.
    begun, over : int64 [lanes of all actors]
        The first firing of each lane that is known, and when all before it was over; or -1.
    moved
        Of each channel the tokens made and taken before these firings, each ``[1 or lanes]``.
    free
        Until when firings before hold each resource; or -1.
    """

    netlist: Netlist
    firsts: list[int]
    starts: list[Ints]
    causes: list[NDArray[np.integer]]
    shown: list[Ints]
    holds: list[Ints | None]
    rates: list[tuple[Ints, Ints]]
    begun: Ints
    over: Ints
    moved: list[tuple[Ints, Ints]]
    free: list[int]


_compiled = kernel(error_model="numpy", _nrt=False)


@_compiled
def _walk(
    a: int,
    lane: int,
    k: int,
    end: int,
    code: int,
    actors: Any,
    ports: Any,
    starts: Any,
    causes: Any,
    shown: Any,
    sums: Any,
    begun: Any,
    over: Any,
    holder_ends: Any,
    holders: Any,
    banks: Any,
    path: Any,
    most_looks: int,
    place: Any,
) -> int:
    """Fill ``path`` with rows (actor, lane, firing, code, cycles), last first; how many.

    ``place`` gets where it stands then (actor, lane, firing, end, code), and why.
    """
    count, looks, why = 0, 0, ALLOWED
    while count < path.shape[0] and looks < most_looks:
        actor = actors[a]
        if k < begun[actor.first_lane + lane]:
            why = AHEAD
            break
        looks += 1
        at = actor.starts + k * actor.lanes + lane
        start, cause = starts[at], causes[at]
        path[count, 0], path[count, 1], path[count, 2] = a, lane, k
        path[count, 3], path[count, 4] = code, end - start
        if cause == FREE:
            count += 1
            why = BEGINNING
            break
        if cause == PREVIOUS:
            count += 1
            code, end = ITSELF, start
            k -= 1
            continue
        if cause == GRANT:
            if start <= actor.free:
                why = UNKNOWN
                break
            count += 1
            code, end = HELD, start
            wanted = start * actor.banks + (banks[at] if actor.banks > 1 else 0)
            low, high = actor.holders, actor.holders_end - 1
            while low < high:
                middle = (low + high) // 2
                if holder_ends[middle] < wanted:
                    low = middle + 1
                else:
                    high = middle
            a, lane, k = holders[low, 0], holders[low, 1], holders[low, 2]
            continue
        port = ports[cause - INPUT]
        own_sums = port.own_at + lane % port.own_width
        token = sums[own_sums + (k + 1) * port.own_width] - 1 - port.lag
        peer = actors[port.peer]
        low, high = 0, peer.lanes
        if port.each:
            low, high = lane + port.shift, lane + port.shift + 1
        width = port.other_width
        mover, found, unknown = np.int64(0), False, False
        for other in range(low, high):
            looks += 1
            first = begun[peer.first_lane + other]
            ahead = over[peer.first_lane + other] >= start  # what came before may be it
            moved = port.other_at + other % width
            mover, above = first, peer.firings
            if sums[moved + first * width] > token:
                unknown |= ahead
                if unknown:
                    break
                continue
            while above - mover > 1:  # the firing that moved the token
                middle = (mover + above) // 2
                if sums[moved + middle * width] <= token:
                    mover = middle
                else:
                    above = middle
            if port.gives:
                found = starts[peer.starts + mover * peer.lanes + other] + 1 == start
            else:
                # Tokens do not overtake: an earlier one may have held this one back.
                after = token + 1
                while mover >= first:
                    looks += 1
                    at = peer.starts + mover * peer.lanes + other
                    before = sums[moved + mover * width]
                    if before < after and starts[at] + shown[at] >= start:
                        found = starts[at] + shown[at] == start
                        break
                    after = before
                    mover -= 1
                unknown |= mover < first and ahead
            if found or unknown:
                low = other
                break
        if unknown or not found:
            why = UNKNOWN
            break
        count += 1
        code, end = port.channel if port.gives else ITSELF, start
        a, lane, k = port.peer, low, mover  # type: ignore[assignment]
    place[0], place[1], place[2], place[3], place[4], place[5] = a, lane, k, end, code, why
    return count


class Walk:
    """Walks back through a span."""

    def __init__(self, span: Span) -> None:
        self.span = span
        self.size = sum(starts.size for starts in span.starts)
        holder_ends, holders, found = self._holders()
        self.actors = []
        at = first_lane = 0
        for i, (actor, first) in enumerate(zip(span.netlist.actors, span.firsts, strict=True)):
            firings = len(span.starts[i])
            row = _ActorRow(at - first * actor.lanes, actor.lanes, first + firings, first_lane)
            self.actors.append(row._replace(**found.get(i, {})))
            at, first_lane = at + span.starts[i].size, first_lane + actor.lanes
        self.ports, sums = self._ports()
        flat = (_flat(span.starts, np.int64), _flat(span.causes, np.int32))
        times = (*flat, _flat(span.shown, np.int64), sums, span.begun, span.over)
        self.tables = (*times, holder_ends, holders, self.banks)

    def go(self, place: Place, plainly: bool) -> tuple[Ints, Place, int]:
        """The steps from a place on, why it stopped (:data:`BEGINNING`, ...) and where.

        The steps are rows (actor, lane, firing, code, cycles), last first. ``plainly`` uses no
        kernel, but then the walk may stop because it takes long.
        """
        # A step may cover no cycles only where a firing is busy for none, so firings bound them.
        most = self.size + 1
        there = np.zeros(6, np.int64)
        if plainly:
            path = np.zeros((min(most, PLAIN_LOOKS), 5), np.int64)
            plain = _walk.py_func  # type: ignore[attr-defined]
            rows = self.actors, self.ports
            count = plain(*place, *rows, *self.tables, path, PLAIN_LOOKS, there)
        else:
            path = np.zeros((most, 5), np.int64)
            looks = np.iinfo(np.int64).max
            count = _walk(*place, *self._rows, *self.tables, path, looks, there)
        *at, why = there.tolist()
        return path[:count], Place(*at), why

    @cached_property
    def _rows(self) -> tuple[NDArray[np.void], NDArray[np.void]]:
        actors = np.array(self.actors, row_type(_ActorRow))
        return actors, np.array(self.ports, row_type(_PortRow))

    def _ports(self) -> tuple[list[_PortRow], Ints]:
        """Two rows a channel, of its target and of its source, and the sums of their tokens."""
        span = self.span
        rows: list[_PortRow] = []
        sums: list[Ints] = []
        size = 0
        for c, channel in enumerate(span.netlist.channels):
            ends = [span.netlist.index(end) for end in (channel.source, channel.target)]
            tokens = []
            for i, rate, before in zip(ends, span.rates[c], span.moved[c], strict=True):
                width, first, firings = rate.shape[1], span.firsts[i], len(span.starts[i])
                total = np.zeros((firings + 1, width), np.int64)
                np.cumsum(np.broadcast_to(rate, (firings, width)), axis=0, out=total[1:])
                lanes = self.actors[i].first_lane + np.arange(width)
                begun = span.begun[lanes] - first
                total += before[:width] - total[begun, np.arange(width)]
                tokens.append(_Tokens(size - first * width, width))
                sums.append(total)
                size += total.size
            each = channel.pattern not in SHARED
            shift = channel.offset if channel.pattern is Pattern.SHIFT else 0
            made, taken = tokens
            rows.append(_PortRow(c, 0, ends[0], each, -shift, 0, *taken, *made))
            rows.append(_PortRow(c, 1, ends[1], each, shift, channel.capacity, *made, *taken))
        return rows, _flat(sums, np.int64)

    @cached_property
    def banks(self) -> Ints:
        """The bank each firing asks for, laid out as the starts; empty if no resource is banked."""
        span = self.span
        banked = {r.name for r in span.netlist.resources if r.banked}
        banks = np.zeros(self.size if banked else 0, np.int64)
        at = 0
        for i, actor in enumerate(span.netlist.actors):
            firings, lanes = span.starts[i].shape
            if actor.resource in banked and actor.request is not None:
                asked = np.asarray(actor.request)[:, :, 0]
                if len(asked) > 1:
                    asked = asked[span.firsts[i] : span.firsts[i] + firings]
                banks[at : at + firings * lanes] = np.broadcast_to(asked, (firings, lanes)).ravel()
            at += firings * lanes
        return banks

    def _holders(self) -> tuple[Ints, Ints, dict[int, dict[str, int]]]:
        """Firings (actor, lane, firing) by the cycle their hold ends, sorted, of each resource.

        For a banked resource the key is that cycle times the banks plus the bank. The last are the
        fields of each holder's row.
        """
        span, netlist = self.span, self.span.netlist
        all_ends, all_rows, size = [np.zeros(0, np.int64)], [np.zeros((0, 3), np.int64)], 0
        begins = np.cumsum([0, *(starts.size for starts in span.starts)]).tolist()
        first_lanes = np.cumsum([0, *(actor.lanes for actor in netlist.actors)]).tolist()
        spans: dict[int, dict[str, int]] = {}
        for r, resource in enumerate(netlist.resources):
            ends, rows = [], []
            users = netlist.holders[resource.name]
            servers = resource.servers if resource.banked else 1
            for i in users:
                starts, hold, first = span.starts[i], span.holds[i], span.firsts[i]
                assert hold is not None
                begun = span.begun[first_lanes[i] : first_lanes[i + 1]] - first
                firing, lane = np.nonzero(
                    (starts >= 0) & (np.arange(len(starts))[:, None] >= begun)
                )
                key = (starts + hold)[firing, lane] * servers
                if servers > 1:
                    key += self.banks[begins[i] + firing * netlist.actors[i].lanes + lane]
                ends.append(key)
                rows.append(np.column_stack([np.full_like(lane, i), lane, first + firing]))
            joined, table = np.concatenate(ends), np.concatenate(rows)
            order = np.argsort(joined, kind="stable")
            all_ends.append(joined[order])
            all_rows.append(table[order])
            place = {"holders": size, "holders_end": size + len(order), "free": span.free[r]}
            spans |= dict.fromkeys(users, place | {"banks": servers})
            size += len(order)
        return np.concatenate(all_ends), np.concatenate(all_rows), spans


def _flat(parts: list[NDArray[Any]], dtype: Any) -> NDArray[Any]:
    return np.concatenate([np.zeros(0, dtype), *(np.asarray(p, dtype).reshape(-1) for p in parts)])
