"""What lies between two moments of a run: whether it recurs, how often, and what that adds.

Where loops repeat, the future follows from the places of the actors in them, the tokens and free
slots of channels, the ends of lanes, the requests that wait and the holds of resources, all
relative to now. If since an earlier moment

* every lane that fired ended later by the same number of cycles,
* every channel that moved moved as many tokens at both ends, and its times shifted as much,
* requests that wait and holds shifted as much,

then the firings in between are a *period*: it recurs, until an actor leaves the runs of its loops.
Times that can decide nothing any more, since they lie before the end of the lane that would wait
for them, count as equal. Lanes that did not fire are no part of the period and stay as they are.
One of them may have waited throughout for a resource that was never free, behind others of lesser
rank: so it does until one of them comes to its rank.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparqsim.simulator.engines.compiled import (
    CAUSE,
    END,
    IDLED,
    OVER,
    ROWS,
    START,
    WAITING,
    State,
)
from sparqsim.simulator.loops import Loops
from sparqsim.simulator.netlist import Netlist

Ints = NDArray[np.int64]

FOREVER = np.iinfo(np.int64).max


def given_of(netlist: Netlist, i: int) -> list[Any]:
    """All that is given over the firings of an actor but its rank."""
    actor = netlist.actors[i]
    rates = [netlist.channels[c].consume for c in netlist.inputs[i]]
    rates += [netlist.channels[c].produce for c in netlist.outputs[i]]
    return [actor.busy, actor.latency, *rates]


@dataclass(eq=False)
class Moment:
    """A copy of what changes."""

    lanes: NDArray[np.void]
    fired: Ints
    counts: Ints
    rings: Ints
    times: Ints
    asked: Ints
    server: Ints
    free: Ints
    firsts: Ints  # of the first lane of each actor: fired, and end

    @classmethod
    def of(cls, state: State, first_lanes: Ints) -> Moment:
        parts: Any = (state.lanes, state.lanes["fired"], state.counts, state.rings, state.times)
        copies = [part.copy() for part in (*parts, state.asked, state.server, state.free)]
        firsts = np.stack([copies[1][first_lanes], state.times[END, first_lanes]])
        values: Any = (*copies, firsts)
        return cls(*values)


@dataclass(eq=False)
class Rings:
    """The slots of all rings of all channels: one element per slot and lane.

    Attributes
    ----------
    at, place, mask, width
        Where the lane's first slot lies, the slot counted from the next to be written, the slots
        less 1, and lanes.
    count, channel
        The count of tokens moved by its end, and its channel.
    """

    at: Ints
    place: Ints
    mask: Ints
    width: Ints
    count: Ints
    channel: Ints

    def indices(self, counts: Ints) -> Ints:
        """Where the elements lie, with so many tokens moved."""
        return self.at + ((counts[self.count] + self.place) & self.mask) * self.width


class Parts:
    """What a layout has, as periods look at it.

    Attributes
    ----------
    spans
        The lanes of each actor.
    first, counter
        Of each lane the first of its actor, and the one that counts its firings.
    rings
        The slots of all channels.
    own, other : int64 [counts]
        Of each count of tokens moved, the first one of its channel, and the first of its end.
    ends, end_channels, first_ends : int64
        The lanes at both ends of each channel, their channels, and where each channel's begin.
    changing
        Of each actor what is given over its firings and is not the same in all.
    asks_alike
        Of each actor whether all its requests are the same.
    """

    def __init__(self, netlist: Netlist, state: State) -> None:
        rows = state.layout.actors
        lanes = rows["lanes"]
        self.netlist, self.layout = netlist, state.layout
        self.spans = [slice(a["first_lane"], a["first_lane"] + a["lanes"]) for a in rows]
        self.firings = rows["firings"].tolist()
        self.first = np.repeat(rows["first_lane"], lanes)
        self.counter = state.layout.counters()
        self._lay_out_queues()
        self.changing = [
            list({id(g): g for g in given_of(netlist, i) if _changes(g)}.values())
            for i in range(len(netlist.actors))
        ]
        requests = [
            np.zeros(1) if a.request is None else np.asarray(a.request) for a in netlist.actors
        ]
        self.asks_alike = [bool((asks == asks[:1]).all()) for asks in requests]
        number = {resource.name: r for r, resource in enumerate(netlist.resources)}
        held = [-1 if a.resource is None else number[a.resource] for a in netlist.actors]
        self.held = np.repeat(held, lanes)  # the resource of each lane
        self.banked = np.array([*state.layout.resources["banked"], 0], np.bool_)[self.held]

    def _lay_out_queues(self) -> None:
        netlist, rows = self.netlist, self.layout.actors
        own = np.zeros(self.layout.count_size, np.int64)
        other = own.copy()
        rings: list[list[Ints]] = []
        ends: list[Ints] = []
        for c, channel in enumerate(netlist.channels):
            i, j = netlist.index(channel.source), netlist.index(channel.target)
            first = int(rows[i]["ports"]) + len(netlist.inputs[i])
            port = self.layout.ports[first + netlist.outputs[i].index(c)]
            slots = int(port["mask"]) + 1
            for side, end in (("own", i), ("other", j)):
                at, step = int(port[f"{side}_count"]), int(port[f"{side}_step"])
                counts = slice(at, at + (int(rows[end]["lanes"]) if step else 1))
                own[counts], other[counts] = int(port["own_count"]), at
                width = int(port[f"{side}_width"])
                place, lane = np.divmod(np.arange(slots * width), width)
                each = (int(port[f"{side}_ring"]) + lane, place, slots - 1, width, at, c)
                rings.append([np.broadcast_to(part, lane.shape) for part in each])
            ends.append(
                np.concatenate([np.arange(s.start, s.stop) for s in (self.spans[i], self.spans[j])])
            )
        self.own, self.other = own, other
        self.rings = Rings(*map(np.concatenate, zip(*rings, strict=True))) if rings else None
        sizes = [end.size for end in ends]
        self.ends = np.concatenate(ends) if ends else np.zeros(0, np.int64)
        self.end_channels = np.repeat(np.arange(len(sizes)), sizes)
        self.first_ends = np.cumsum([0, *sizes[:-1]])
        self.channel_counts = own[[int(r[4][0]) for r in rings[::2]]] if rings else own


def _changes(given: Any) -> bool:
    if isinstance(given, Loops):
        return given.constant is None
    return given is not None and len(given) > 1


class Period:
    """What lies between two moments of a run, of which the second is ``shift`` cycles later."""

    def __init__(self, parts: Parts, state: State, before: Moment, now: Moment, shift: int) -> None:
        self.parts, self.state, self.shift = parts, state, shift
        self.before, self.now = before, now
        self.fired = (now.fired - before.fired)[parts.counter]
        self.active = self.fired > 0
        self.ends = list(parts.firings)  # of each actor, until where it repeats
        self.rises: dict[int, int] = {}  # of the ranks of each actor, in a period

    def recurs(self) -> bool:
        """Whether all that decides the future is as before, and later by the shift."""
        later = self.now.times[END] - self.before.times[END]
        if ((later != self.shift) & self.active).any():
            return False
        return self._lanes_recur() and self._queues_recur() and self._holds_recur()

    def _lanes_recur(self) -> bool:
        before, now, active = self.before, self.now, self.active
        if (self.fired != self.fired[self.parts.first]).any():
            return False
        states = now.lanes["state"]
        if (before.lanes["state"] != states).any():
            return False
        if ((now.times[OVER] - before.times[OVER] != self.shift) & active).any():
            return False
        waits = states == WAITING
        self.passed = np.flatnonzero(waits & ~active)  # lanes that waited throughout
        self.waits = waits & active
        recur = now.asked - before.asked == self.shift
        recur &= now.times[CAUSE] == before.times[CAUSE]
        recur &= (now.server == before.server) | ~self.parts.banked
        return bool(recur[self.waits].all()) and not self.parts.banked[self.passed].any()

    def _queues_recur(self) -> bool:
        parts, now, before = self.parts, self.now, self.before
        rings = parts.rings
        if rings is None:
            self.moves = np.zeros(0, np.bool_)
            return True
        moved = now.counts - before.counts
        if (moved != moved[parts.own]).any():
            return False
        if ((now.counts != now.counts[parts.other]) & (moved > 0)).any():
            return False
        moves = moved[parts.channel_counts] > 0  # which channels
        if (moves[parts.end_channels] & ~self.active[parts.ends]).any():
            return False
        floor = np.minimum.reduceat(now.times[END][parts.ends], parts.first_ends)[rings.channel]
        new = np.maximum(now.rings[rings.indices(now.counts)], floor)
        old = np.maximum(before.rings[rings.indices(before.counts)] + self.shift, floor)
        self.moves = moves
        return not ((new != old) & moves[rings.channel]).any()

    def _holds_recur(self) -> bool:
        self.holds: list[slice] = []
        self.rank_passed: dict[str, int] = {}  # the least of those that waited throughout
        now, before, netlist = self.now, self.before, self.parts.netlist
        for r, resource in enumerate(netlist.resources):
            row = self.parts.layout.resources[r]
            spans = [self.parts.spans[i] for i in netlist.holders[resource.name]]
            users = [span for span in spans if self.active[span].all()]
            passed = [lane for lane in self.passed if self.parts.held[lane] == r]
            span = slice(int(row["free_at"]), int(row["free_at"]) + int(row["servers"]))
            new, old = now.free[span], before.free[span]
            if passed:
                # What waits must have been there when the resource was next free, and ever since.
                if not users or now.asked[passed].max() > old.min():
                    return False
                self.rank_passed[resource.name] = int(now.lanes["rank"][passed].min())
            elif not users:
                continue
            else:
                floor = min(int(now.times[END][user].min()) for user in users)
                new, old = np.maximum(new, floor), np.maximum(old, floor - self.shift)
            if not resource.banked:
                new, old = np.sort(new), np.sort(old)
            if (new - old != self.shift).any():
                return False
            self.holds.append(span)
        return True

    def times_left(self) -> int:
        """How often what is given recurs before an actor leaves the runs of its loops."""
        netlist, least = self.parts.netlist, FOREVER
        self.asked: dict[str, list[_Asked]] = {}  # by resource
        for i, span in enumerate(self.parts.spans):
            fired = int(self.fired[span.start])
            if not fired:
                continue
            last = int(self.now.fired[span.start])
            actor, end = netlist.actors[i], self.ends[i]
            for given in self.parts.changing[i]:
                here, added = _steady(given, last - fired, last)
                end = min(end, here if not added else last)
                if end - last < fired:
                    return 0
            left = end
            if actor.resource is not None:
                here, rise = end, 0
                if _changes(actor.rank):
                    here, rise = _steady(actor.rank, last - fired, last)
                end = min(end, here)
                if not self.parts.asks_alike[i]:
                    return 0  # the banks asked for are given one by one
                self.rises[i] = rise
                ranks = _Asked(rise, actor.rank, last - fired, last)
                self.asked.setdefault(actor.resource, []).append(ranks)
                left = end
                if self.now.lanes["state"][span.start] == WAITING:
                    left -= 1  # what waits has been looked at
                    then, now = (m.lanes["rank"][span.start] for m in (self.before, self.now))
                    if now - then != rise:
                        return 0
            self.ends[i] = end
            least = min(least, (left - last) // fired)
            if least < 1:
                return 0
        return int(least)

    def ranked(self) -> int:
        """How often the requests keep their order, those that waited throughout among them."""
        if not all(map(_keep_their_order, self.asked.values())):
            return 0
        least = FOREVER
        for name, rank in self.rank_passed.items():
            for ranks in self.asked[name]:
                below = rank - 1 - ranks.bounds[1]
                if below < 0:
                    return 0
                if ranks.rise > 0:
                    least = min(least, below // ranks.rise)
        return int(least)

    def jump(self, times: int) -> Jump:
        """So many times more."""
        before, now = self.before, self.now
        return Jump(
            times=times,
            shift=self.shift,
            fired=self.fired,
            active=self.active,
            waits=self.waits,
            rises=[(self.parts.spans[i], rise) for i, rise in self.rises.items() if rise],
            counts=now.counts - before.counts,
            moving=self.moves,
            holds=self.holds,
            sums=now.times[IDLED:ROWS] - before.times[IDLED:ROWS],
        )


@dataclass(frozen=True, eq=False)
class Jump:
    """A period that passes so many times more.

    Attributes
    ----------
    times, shift
        How often, and the cycles of one.
    fired : int64 [lanes]
        Firings in a period.
    active, waits : bool [lanes]
        The lanes that fire, and those of them that wait for a resource at its ends.
    rises
        Lanes of which the ranks rise, and by how much in a period.
    counts : int64 [counts]
        Tokens moved in a period.
    moving : bool [channels]
        Where tokens move.
    holds
        The servers that are held on and on.
    sums : int64 [3, lanes]
        What a period adds to the sums of a summary.
    """

    times: int
    shift: int
    fired: Ints
    active: NDArray[np.bool_]
    waits: NDArray[np.bool_]
    rises: list[tuple[slice, int]]
    counts: Ints
    moving: NDArray[np.bool_]
    holds: list[slice]
    sums: Ints

    def add(self, state: State, rings: Rings | None) -> None:
        """Let it pass, from the end of a period on."""
        active, waits, shift = self.active, self.waits, self.times * self.shift
        state.lanes["fired"] += self.times * self.fired
        state.asked[waits] += shift
        for span, rise in self.rises:
            state.lanes["rank"][span] += self.times * rise
        for row in (END, OVER):
            state.times[row, active] += shift
        state.times[START, waits] += shift
        state.times[IDLED:ROWS] += self.times * self.sums
        if rings is not None:
            moving = self.moving[rings.channel]
            there = state.rings[rings.indices(state.counts)[moving]]
            state.counts += self.times * self.counts
            state.rings[rings.indices(state.counts)[moving]] = there + shift
        for span in self.holds:
            state.free[span] += shift
        state.layout.resources["stale"] = 1


def _steady(given: Any, first: int, last: int) -> tuple[int, int]:
    """Until which firing what is given repeats, and by how much it rises in a period."""
    return given.steady(first, last) if isinstance(given, Loops) else (last, 0)


@dataclass(eq=False)
class _Asked:
    """The ranks of an actor's requests in a period, by how much they rise, and the next one."""

    rise: int
    given: Any
    first: int
    last: int

    @cached_property
    def bounds(self) -> tuple[int, int]:
        """The least and the greatest of them."""
        given = self.given
        if isinstance(given, Loops):
            if given.constant is not None:
                return given.constant, given.constant
            ranks = given.window(self.first, min(self.last + 1, len(given)))
        else:
            ranks = given[self.first : self.last + 1] if len(given) > 1 else given
        return int(ranks.min()), int(ranks.max())


def _keep_their_order(asked: list[_Asked]) -> bool:
    """Whether ranks that rise by more are above the others from now on."""
    return all(
        one.bounds[0] > other.bounds[1] for one in asked for other in asked if other.rise < one.rise
    )
