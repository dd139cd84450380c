"""The critical path: the chain of causes walked back from the end of a run.

From the firing that ends last, ask what it waited for last; go to the firing that supplied it; and
so on back to cycle 0. Each step covers the cycles between the two starts and belongs to what filled
them: an actor computing (its previous firing, or the latency of the firing that made the token), a
full queue (one cycle from the pop that freed a slot to the push it let in), or a held resource. The
steps join end to end, so they sum to the run's cycles exactly.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparqsim.base import kernel
from sparqsim.simulator.engines.layout import KIND_OF
from sparqsim.simulator.netlist import Netlist, Pattern
from sparqsim.simulator.timeline import FREE, GRANT, INPUT, PREVIOUS, Timeline

COMPUTING, FULL_QUEUE, RESOURCE = "computing", "full queue", "resource"
BROADCAST, GATHER = KIND_OF[Pattern.BROADCAST], KIND_OF[Pattern.GATHER]

# Columns of a channel's row and of an actor's row in the tables of the walk.
(SOURCE, TARGET, KIND, OFFSET, CAPACITY) = range(5)
(MADE, MADE_W, MADE_RATE, TAKEN, TAKEN_W, TAKEN_RATE) = range(5, 11)
(STARTS, LANES, FIRINGS, HOLDERS, HOLDERS_END, BANKS) = range(6)


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
    actor: NDArray[np.int64]
    lane: NDArray[np.int64]
    firing: NDArray[np.int64]
    code: NDArray[np.int64]
    cycles: NDArray[np.int64]

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


@kernel(error_model="numpy")
def _last_token(sums: Any, at: int, width: int, rate: int, k: int, lane: int) -> int:
    """Index of the last token that firing ``k`` of a lane made or took."""
    if at < 0:
        return rate * (k + 1) - 1
    return sums[at + (k + 1) * width + lane % width] - 1


@kernel(error_model="numpy")
def _firing_of(
    sums: Any, at: int, width: int, rate: int, token: int, lane: int, firings: int
) -> int:
    """The firing of a lane that made or took a token."""
    if at < 0:
        return token // rate
    low, high = 0, firings
    while high - low > 1:
        middle = (low + high) // 2
        if sums[at + middle * width + lane % width] <= token:
            low = middle
        else:
            high = middle
    return low


@kernel(error_model="numpy")
def _walk(
    a: int,
    lane: int,
    k: int,
    end: int,
    actors: Any,
    channels: Any,
    starts: Any,
    causes: Any,
    shown: Any,
    sums: Any,
    holder_ends: Any,
    holders: Any,
    banks: Any,
    path: Any,
) -> int:
    """Fill ``path`` with rows (actor, lane, firing, code, cycles), last first; how many."""
    count, code = 0, -1
    while True:
        at = actors[a, STARTS] + k * actors[a, LANES] + lane
        start = starts[at]
        if count == path.shape[0]:
            return -1
        path[count, 0], path[count, 1], path[count, 2] = a, lane, k
        path[count, 3], path[count, 4] = code, end - start
        count += 1
        end = start
        cause = causes[at]
        if cause == FREE:
            return count
        if cause == PREVIOUS:
            code = -1
            k -= 1
        elif cause == GRANT:
            code = -2
            low, high = actors[a, HOLDERS], actors[a, HOLDERS_END]
            wanted = start * actors[a, BANKS]
            if actors[a, BANKS] > 1:
                wanted += banks[at]
            found = low + np.searchsorted(holder_ends[low:high], wanted)
            a, lane, k = holders[found, 0], holders[found, 1], holders[found, 2]
        else:
            c = (cause - INPUT) // 2
            kind, offset = channels[c, KIND], channels[c, OFFSET]
            taken, taken_w, taken_rate = (
                channels[c, TAKEN],
                channels[c, TAKEN_W],
                channels[c, TAKEN_RATE],
            )
            made, made_w, made_rate = channels[c, MADE], channels[c, MADE_W], channels[c, MADE_RATE]
            source, target = channels[c, SOURCE], channels[c, TARGET]
            if (cause - INPUT) % 2 == 0:
                code = -1
                token = _last_token(sums, taken, taken_w, taken_rate, k, lane)
                low, high = 0, actors[source, LANES]
                if kind != BROADCAST and kind != GATHER:
                    low, high = lane - offset, lane - offset + 1
                a = source
                for other in range(low, high):
                    lane = other
                    k = _firing_of(
                        sums, made, made_w, made_rate, token, other, actors[source, FIRINGS]
                    )
                    # Tokens do not overtake: an earlier one may have held this one back.
                    while k >= 0:
                        at = actors[a, STARTS] + k * actors[a, LANES] + lane
                        last = _last_token(sums, made, made_w, made_rate, k, lane)
                        before = _last_token(sums, made, made_w, made_rate, k - 1, lane)
                        if last > before and starts[at] + shown[at] >= start:
                            break
                        k -= 1
                    if k >= 0 and starts[at] + shown[at] == start:
                        break
            else:
                code = c
                token = _last_token(sums, made, made_w, made_rate, k, lane) - channels[c, CAPACITY]
                low, high = 0, actors[target, LANES]
                if kind != BROADCAST and kind != GATHER:
                    low, high = lane + offset, lane + offset + 1
                a = target
                for other in range(low, high):
                    lane = other
                    k = _firing_of(
                        sums, taken, taken_w, taken_rate, token, other, actors[target, FIRINGS]
                    )
                    at = actors[a, STARTS] + k * actors[a, LANES] + lane
                    if starts[at] + 1 == start:
                        break


def _flat(parts: list[NDArray[Any]], dtype: Any) -> NDArray[Any]:
    return np.concatenate([np.asarray(part, dtype).reshape(-1) for part in parts])


def walk(timeline: Timeline) -> CriticalPath:
    """Walk back from the firing that ends last; see :attr:`Timeline.critical_path`."""
    netlist = timeline.netlist
    assert timeline.starts is not None and timeline.causes is not None
    latencies = [timeline.latency(actor.name) for actor in netlist.actors]
    actors = np.zeros((len(netlist.actors), 6), np.int64)
    size, last = 0, (-1, 0)
    for i, (actor, starts) in enumerate(zip(netlist.actors, timeline.starts, strict=True)):
        actors[i, :3] = size, actor.lanes, starts.shape[0]
        size += starts.size
        if starts.size:
            ends = starts + np.maximum(latencies[i], timeline.busy(actor.name))
            ends[starts < 0] = -1
            best = int(ends.argmax())
            if ends.flat[best] > last[0]:
                last = (int(ends.flat[best]), i)
                place = divmod(best, actor.lanes)
    banks = _banks(timeline, size, actors)
    holder_ends, holders = _holders(timeline, actors, banks)
    sums: list[NDArray[np.int64]] = []
    channels = np.zeros((len(netlist.channels), 11), np.int64)
    offset = 0
    for row, channel in zip(channels, netlist.channels, strict=True):
        row[:5] = (
            netlist.index(channel.source),
            netlist.index(channel.target),
            KIND_OF[channel.pattern],
            channel.offset if channel.pattern is Pattern.SHIFT else 0,
            channel.capacity,
        )
        for column, rate in zip((MADE, TAKEN), timeline.rates(channel.name), strict=True):
            if rate.shape == (1, 1):
                row[column : column + 3] = -1, 1, rate[0, 0]
                continue
            firings = int(actors[row[SOURCE if column == MADE else TARGET], FIRINGS])
            rate = np.broadcast_to(rate, (firings, rate.shape[1]))
            total = np.vstack([np.zeros((1, rate.shape[1]), np.int64), np.cumsum(rate, axis=0)])
            row[column : column + 3] = offset, rate.shape[1], 0
            sums.append(total)
            offset += total.size
    if last[1] < 0 or last[0] <= 0:
        empty = np.zeros(0, np.int64)
        return CriticalPath(netlist, empty, empty, empty, empty, empty)
    # A step may cover no cycles only where a firing is busy for none, so firings bound the steps.
    path = np.zeros((size + 1, 5), np.int64)
    count = _walk(
        last[1],
        place[1],
        place[0],
        timeline.cycles,
        actors,
        channels,
        _flat(list(timeline.starts), np.int64),
        _flat(list(timeline.causes), np.int32),
        _flat(latencies, np.int64),
        _flat(sums, np.int64) if sums else np.zeros(0, np.int64),
        holder_ends,
        holders,
        banks,
        path,
    )
    assert count >= 0, "a chain of causes that does not end"
    steps = path[:count][::-1].copy()
    return CriticalPath(netlist, *(steps[:, i] for i in range(5)))


def _banks(timeline: Timeline, size: int, actors: NDArray[np.int64]) -> NDArray[np.int64]:
    """The bank each firing asks for, laid out as the starts; empty if no resource is banked."""
    netlist = timeline.netlist
    banked = {r.name: r.servers for r in netlist.resources if r.banked}
    banks = np.zeros(size if banked else 0, np.int64)
    for row, actor in zip(actors, netlist.actors, strict=True):
        row[BANKS] = banked.get(actor.resource or "", 1)
        if actor.resource in banked and actor.request is not None:
            asked = np.asarray(actor.request)[:, :, 0]
            spread = np.broadcast_to(asked, (actor.count, actor.lanes))
            banks[row[STARTS] : row[STARTS] + spread.size] = spread.reshape(-1)
    return banks


def _holders(
    timeline: Timeline, actors: NDArray[np.int64], banks: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Firings (actor, lane, firing) by the cycle their hold ends, sorted, a span a resource.

    For a banked resource the key is that cycle times the banks plus the bank.
    """
    netlist = timeline.netlist
    all_ends, all_rows, size = [np.zeros(0, np.int64)], [np.zeros((0, 3), np.int64)], 0
    for resource in netlist.resources:
        ends, rows = [], []
        users = netlist.holders[resource.name]
        for i in users:
            starts = timeline.starts_of(netlist.actors[i].name)
            grants = timeline.grants[i]
            assert grants is not None
            hold = timeline.busy(netlist.actors[i].name) if grants.held is None else grants.held
            firing, lane = np.nonzero(starts >= 0)
            key = (starts + hold)[firing, lane] * actors[i, BANKS]
            if actors[i, BANKS] > 1:
                key += banks[actors[i, STARTS] + firing * actors[i, LANES] + lane]
            ends.append(key)
            rows.append(np.column_stack([np.full_like(lane, i), lane, firing]))
        joined, table = np.concatenate(ends), np.concatenate(rows)
        order = np.argsort(joined, kind="stable")
        all_ends.append(joined[order])
        all_rows.append(table[order])
        for i in users:
            actors[i, HOLDERS : HOLDERS_END + 1] = size, size + len(order)
        size += len(order)
    return np.concatenate(all_ends), np.concatenate(all_rows)
