"""The critical path: the chain of causes walked back from the end of a run.

From the firing that ends last, ask what it waited for last; go to the firing that supplied it; and
so on back to cycle 0. Each step covers the cycles between the two starts and belongs to what filled
them: an actor computing (its previous firing, or the latency of the firing that made the token), a
full queue (one cycle from the pop that freed a slot to the push it let in), or a held resource. The
steps join end to end, so they sum to the run's cycles exactly.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sparqsim.base import kernel
from sparqsim.simulator.engines.layout import SHARED, row_type
from sparqsim.simulator.netlist import Netlist, Pattern
from sparqsim.simulator.timeline import FREE, GRANT, INPUT, PREVIOUS, Timeline

COMPUTING, FULL_QUEUE, RESOURCE = "computing", "full queue", "resource"

# So many firings are looked at in plain Python: to compile the kernel, or to load it, takes longer.
PLAIN_LOOKS = 20_000

Ints = NDArray[np.int64]


class _ActorRow(NamedTuple):
    """An actor in the walk: where its starts lie, and the holders of its resource."""

    starts: int
    lanes: int
    firings: int
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


@dataclass(frozen=True)
class PathShare:
    """Cycles of the critical path that belong to one place.

    ``kind`` is "computing" (``where`` is an actor), "full queue" (a channel) or "resource".
    ``lane`` is None where lanes are summed.
    """

    kind: str
    where: str
    lane: int | None
    cycles: int


@dataclass(frozen=True, eq=False)
class CriticalPath:
    """The firings on the critical path, first to last, and the cycles of each step.

    Attributes
    ----------
    actor, lane, firing
        Each firing on the path: position of its actor, lane, firing number.
    code
        What filled the step that ends at the *next* firing (or at the end of the run): -1 the
        firing itself, 0 and up the full queue of that channel, -2 its resource.
    cycles
        Cycles of that step.
    """

    netlist: Netlist
    actor: Ints
    lane: Ints
    firing: Ints
    code: Ints
    cycles: Ints

    def shares(self, by_lane: bool = False) -> list[PathShare]:
        """Cycles by place, the largest first; they sum to the run's cycles."""
        lanes = self.lane if by_lane else np.full_like(self.lane, -1)
        keys, place = np.unique(
            np.column_stack([self.actor, self.code, lanes]), axis=0, return_inverse=True
        )
        sums = np.bincount(place.reshape(-1), weights=self.cycles, minlength=len(keys))
        joined: dict[tuple[str, str, int | None], int] = {}
        for (actor, code, lane), cycles in zip(keys.tolist(), sums.tolist(), strict=True):
            part = self.netlist.actors[actor]
            kind, where = COMPUTING, part.name
            if code >= 0:
                kind, where = FULL_QUEUE, self.netlist.channels[code].name
            elif code == -2:
                kind, where = RESOURCE, str(part.resource)
            key = (kind, where, lane if by_lane else None)
            joined[key] = joined.get(key, 0) + int(cycles)
        found = [PathShare(*key, cycles) for key, cycles in joined.items() if cycles]
        return sorted(found, key=lambda share: (-share.cycles, share.kind, share.where))


_compiled = kernel(error_model="numpy", _nrt=False)


@_compiled
def _walk(
    a: int,
    lane: int,
    k: int,
    end: int,
    actors: Any,
    ports: Any,
    starts: Any,
    causes: Any,
    shown: Any,
    sums: Any,
    holder_ends: Any,
    holders: Any,
    banks: Any,
    path: Any,
    most_looks: int,
) -> int:
    """Fill ``path`` with rows (actor, lane, firing, code, cycles), last first; how many.

    It gives -1 where ``path`` is too short, or more firings would have to be looked at.
    """
    count, code, looks = 0, -1, 0
    while count < path.shape[0] and looks < most_looks:
        looks += 1
        actor = actors[a]
        at = actor.starts + k * actor.lanes + lane
        start, cause = starts[at], causes[at]
        path[count, 0], path[count, 1], path[count, 2] = a, lane, k
        path[count, 3], path[count, 4] = code, end - start
        count += 1
        end = start
        if cause == FREE:
            return count
        if cause == PREVIOUS:
            code = -1
            k -= 1
            continue
        if cause == GRANT:
            code = -2
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
        code = port.channel if port.gives else -1
        own_sums = port.own_at + lane % port.own_width
        token = sums[own_sums + (k + 1) * port.own_width] - 1 - port.lag
        a = port.peer
        peer = actors[a]
        low, high = 0, peer.lanes
        if port.each:
            low, high = lane + port.shift, lane + port.shift + 1
        for other in range(low, high):
            looks += 1
            lane, k, above = other, 0, peer.firings
            moved, width = port.other_at + lane % port.other_width, port.other_width
            while above - k > 1:  # the firing that moved the token
                middle = (k + above) // 2
                if sums[moved + middle * width] <= token:
                    k = middle
                else:
                    above = middle
            at = peer.starts + k * peer.lanes + lane
            if port.gives:
                if starts[at] + 1 == start:
                    break
                continue
            # Tokens do not overtake: an earlier one may have held this one back.
            after = token + 1
            while k >= 0:
                looks += 1
                at = peer.starts + k * peer.lanes + lane
                before = sums[moved + k * width]
                if before < after and starts[at] + shown[at] >= start:
                    break
                after = before
                k -= 1
            if k >= 0 and starts[at] + shown[at] == start:
                break
    return -1


def _flat(parts: list[NDArray[Any]], dtype: Any) -> NDArray[Any]:
    return np.concatenate([np.zeros(0, dtype), *(np.asarray(p, dtype).reshape(-1) for p in parts)])


def critical_path(timeline: Timeline) -> CriticalPath:
    """The chain of causes from the run's start to its end; the pieces sum to its cycles.

    Raises
    ------
    InputError
        If the timeline kept no single firings.
    """
    netlist = timeline.netlist
    starts = [timeline.starts_of(actor.name) for actor in netlist.actors]
    causes = [timeline.causes_of(actor.name) for actor in netlist.actors]
    latencies = [timeline.latency(actor.name) for actor in netlist.actors]
    actors, size, last, place = [], 0, (0, -1), (0, 0)
    for i, (actor, begun) in enumerate(zip(netlist.actors, starts, strict=True)):
        actors.append(_ActorRow(size, actor.lanes, len(begun)))
        size += begun.size
        if begun.size:
            ends = begun + np.maximum(latencies[i], timeline.busy(actor.name))
            ends[begun < 0] = -1
            best = int(ends.argmax())
            if ends.flat[best] > last[0]:
                last, place = (int(ends.flat[best]), i), divmod(best, actor.lanes)
    if last[1] < 0:
        return CriticalPath(netlist, *np.zeros((5, 0), np.int64))
    banks = _banks(timeline, size)
    holder_ends, holders, spans = _holders(timeline, actors, banks)
    actors = [row._replace(**spans.get(i, {})) for i, row in enumerate(actors)]
    ports, sums = _ports(timeline, actors)
    flat = (_flat(starts, np.int64), _flat(causes, np.int32), _flat(latencies, np.int64))
    begin = (last[1], place[1], place[0], timeline.cycles)
    tables = (*flat, sums, holder_ends, holders, banks)
    # A step may cover no cycles only where a firing is busy for none, so firings bound them.
    path = np.zeros((min(size + 1, PLAIN_LOOKS), 5), np.int64)
    plain = _walk.py_func  # type: ignore[attr-defined]
    count = plain(*begin, actors, ports, *tables, path, PLAIN_LOOKS)
    if count < 0:
        path = np.zeros((size + 1, 5), np.int64)
        rows = np.array(actors, row_type(_ActorRow)), np.array(ports, row_type(_PortRow))
        count = _walk(*begin, *rows, *tables, path, np.iinfo(np.int64).max)
    assert count >= 0, "a chain of causes that does not end"
    return CriticalPath(netlist, *path[:count][::-1].T.copy())


def _ports(timeline: Timeline, actors: list[_ActorRow]) -> tuple[list[_PortRow], Ints]:
    """Two rows a channel, of its target and of its source, and the sums of their tokens."""
    rows: list[_PortRow] = []
    sums: list[Ints] = []
    size = 0
    for c, channel in enumerate(timeline.netlist.channels):
        ends = [timeline.netlist.index(end) for end in (channel.source, channel.target)]
        moved = []
        for i, rate in zip(ends, timeline.rates(channel.name), strict=True):
            width = rate.shape[1]
            total = np.zeros((actors[i].firings + 1, width), np.int64)
            np.cumsum(np.broadcast_to(rate, (actors[i].firings, width)), axis=0, out=total[1:])
            moved.append(_Tokens(size, width))
            sums.append(total)
            size += total.size
        each = channel.pattern not in SHARED
        shift = channel.offset if channel.pattern is Pattern.SHIFT else 0
        rows.append(_PortRow(c, 0, ends[0], each, -shift, 0, *moved[1], *moved[0]))
        rows.append(_PortRow(c, 1, ends[1], each, shift, channel.capacity, *moved[0], *moved[1]))
    return rows, _flat(sums, np.int64)


def _banks(timeline: Timeline, size: int) -> Ints:
    """The bank each firing asks for, laid out as the starts; empty if no resource is banked."""
    netlist = timeline.netlist
    banked = {r.name for r in netlist.resources if r.banked}
    banks = np.zeros(size if banked else 0, np.int64)
    at = 0
    for actor in netlist.actors:
        size = timeline.starts_of(actor.name).size
        if actor.resource in banked and actor.request is not None:
            asked = np.asarray(actor.request)[:, :, 0]
            spread = np.broadcast_to(asked, (actor.count, actor.lanes)).reshape(-1)
            banks[at : at + size] = spread[:size]
        at += size
    return banks


def _holders(
    timeline: Timeline, actors: list[_ActorRow], banks: Ints
) -> tuple[Ints, Ints, dict[int, dict[str, int]]]:
    """Firings (actor, lane, firing) by the cycle their hold ends, sorted, one span per resource.

    For a banked resource the key is that cycle times the banks plus the bank. The last are the
    fields of each holder's row.
    """
    netlist = timeline.netlist
    all_ends, all_rows, size = [np.zeros(0, np.int64)], [np.zeros((0, 3), np.int64)], 0
    spans: dict[int, dict[str, int]] = {}
    for resource in netlist.resources:
        ends, rows = [], []
        users = netlist.holders[resource.name]
        servers = resource.servers if resource.banked else 1
        for i in users:
            starts = timeline.starts_of(netlist.actors[i].name)
            grants = timeline.grants[i]
            assert grants is not None
            hold = timeline.busy(netlist.actors[i].name) if grants.held is None else grants.held
            firing, lane = np.nonzero(starts >= 0)
            key = (starts + hold)[firing, lane] * servers
            if servers > 1:
                key += banks[actors[i].starts + firing * actors[i].lanes + lane]
            ends.append(key)
            rows.append(np.column_stack([np.full_like(lane, i), lane, firing]))
        joined, table = np.concatenate(ends), np.concatenate(rows)
        order = np.argsort(joined, kind="stable")
        all_ends.append(joined[order])
        all_rows.append(table[order])
        span = {"banks": servers, "holders": size, "holders_end": size + len(order)}
        spans |= dict.fromkeys(users, span)
        size += len(order)
    return np.concatenate(all_ends), np.concatenate(all_rows), spans
