"""Runs that repeat: jump over whole periods, exactly.

With durations, rates and ranks given as :class:`sparqsim.simulator.loops.Loops`, the compiled
engine need not go through every firing. It is stopped before certain firings of one actor, the
*leader*. There all that is determined has been evaluated, and what happens from then on follows
from the places of the actors in their loops, the tokens and free slots of channels, the ends of
lanes, the requests that wait and the holds of resources, all relative to now. If since an earlier
stop

* every lane that fired ended later by the same number of cycles,
* every channel that moved moved as many tokens at both ends, and its times shifted as much,
* requests that wait and holds shifted as much, and no lane waited throughout,

then the firings in between are a period: it recurs, until an actor leaves the runs of its loops.
Times that can decide nothing any more, since they lie before the end of the lane that would wait
for them, count as equal. Lanes that did not fire are no part of the period and stay as they are. So
as many periods as every actor has left are added to counts, sums and times at once, and the run
goes on from there. Of the loops only a window of firings is ever written out.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparqsim.simulator.engines.compiled import (
    BLOCKED,
    CAUSE,
    END,
    IDLED,
    OVER,
    START,
    WAITED,
    WAITING,
    State,
)
from sparqsim.simulator.engines.layout import flatten, uniform_actors
from sparqsim.simulator.loops import Loops
from sparqsim.simulator.netlist import Netlist

Ints = NDArray[np.int64]

SHORT = 1 << 17  # firings that are sooner gone through one by one than looked at for what repeats
WINDOW = 8192  # firings of loops written out at once
FIRST_WINDOW = 512  # and after a jump, since the next may follow soon
RECENT = 4  # moments at the same place of a loop that are compared with the next one
DENSE = 12  # stops one firing apart, in each stretch of the first looks
APART = 12  # a number with many divisors: later stops lie multiples of it apart
# To look whether a run repeats takes about as long as so many firings; the first looks are free.
WORTH_A_LOOK, FREE_LOOKS = 1024, 128


def pays(netlist: Netlist) -> bool:
    """Whether much is given as loops, and nothing keeps a state that does not repeat."""
    if any(resource.model is not None for resource in netlist.resources):
        return False
    if max(actor.count for actor in netlist.actors) < SHORT:
        return False
    looped = [any(_looped(netlist, i)) for i in range(len(netlist.actors))]
    whole = [
        u or a.lanes == 1 for u, a in zip(uniform_actors(netlist), netlist.actors, strict=True)
    ]
    # The lanes of a bank that fire each for itself may be farther apart than a window.
    return any(looped) and all(w for w, loops in zip(whole, looped, strict=True) if loops)


def _given(netlist: Netlist, i: int) -> list[Any]:
    """All that is given over the firings of an actor."""
    actor = netlist.actors[i]
    rates = [netlist.channels[c].consume for c in netlist.inputs[i]]
    rates += [netlist.channels[c].produce for c in netlist.outputs[i]]
    return [actor.busy, actor.latency, *rates]


def _looped(netlist: Netlist, i: int) -> Iterator[bool]:
    return (isinstance(given, Loops) for given in (*_given(netlist, i), netlist.actors[i].rank))


def run_through(netlist: Netlist) -> State:
    """The state after the whole run, sums of lanes and not single firings."""
    run = _Run(netlist, State.at_first(flatten(netlist, WINDOW), full=False))
    while (leader := run.leader()) >= 0 and run.follow(leader):
        pass
    return run.state


@dataclass(eq=False)
class _Run:
    """A run with its windows into loops."""

    netlist: Netlist
    state: State

    def __post_init__(self) -> None:
        self.actors = self.state.layout.actors
        lanes = self.actors["lanes"]
        self.first = np.repeat(self.actors["first_lane"], lanes)  # of each lane, that of its actor
        uniform = np.repeat(self.actors["width"] > 1, lanes)
        self.counter = np.where(uniform, self.first, np.arange(lanes.sum()))
        self.written = [0] * len(self.actors)  # up to which firing
        self.ahead = [FIRST_WINDOW] * len(self.actors)  # firings to be written out next
        # Loops of each actor, and where those lie of which a window is written out.
        self.loops: list[list[Loops]] = [[] for _ in self.actors]
        self.windows: list[list[tuple[Any, str, int, int, Loops]]] = [[] for _ in self.actors]
        for i, (row, actor) in enumerate(zip(self.actors, self.netlist.actors, strict=True)):
            ends = [self.netlist.channels[c].consume for c in self.netlist.inputs[i]]
            ends += [self.netlist.channels[c].produce for c in self.netlist.outputs[i]]
            at = int(row["ports"])
            ports = zip(self.state.layout.ports[at : at + len(ends)], ends, strict=True)
            places = [(row, name, getattr(actor, name)) for name in ("busy", "latency", "rank")]
            for where, name, given in [*places, *((port, "rate", rate) for port, rate in ports)]:
                if isinstance(given, Loops):
                    self.loops[i].append(given)
                    if given.constant is None:
                        step = int(where[f"{name}_k"])
                        self.windows[i].append((where, name, int(where[name]), step, given))
            if self.loops[i]:
                self.look(i)

    def fired(self, i: int) -> int:
        return int(self.state.lanes["fired"][self.actors[i]["first_lane"]])

    def look(self, i: int) -> None:
        """Write out the loops of an actor from its next firing on."""
        first = self.fired(i)
        last = int(self.actors[i]["firings"])
        if self.windows[i]:
            last = min(last, first + self.ahead[i])
        self.ahead[i] = min(WINDOW, 2 * self.ahead[i])
        self.actors[i]["stop"] = self.written[i] = last
        for where, name, at, step, given in self.windows[i]:
            numbers = given.window(first, last)
            if step > 1:
                numbers = np.repeat(numbers, step)
            self.state.layout.pool[at : at + numbers.size] = numbers
            where[name] = at - first * step

    def leader(self) -> int:
        """The actor with loops that has most firings left, or -1."""
        left = [
            int(row["firings"]) - self.fired(i) if self.loops[i] else 0
            for i, row in enumerate(self.actors)
        ]
        best = int(np.argmax(left))
        return best if left[best] > 0 else -1

    def reach(self, leader: int, firing: int) -> bool:
        """Go on until the leader stands before a firing and nothing else can be evaluated.

        False if it cannot get there, and then the run is over.
        """
        while self.fired(leader) < firing:
            for i, windows in enumerate(self.windows):
                if windows and self.fired(i) >= self.written[i]:
                    self.look(i)
            self.actors[leader]["stop"] = min(self.written[leader], firing)
            if not self.state.go_on():
                return False
        while self.others_stopped(leader):
            self.state.go_on()
        return True

    def others_stopped(self, leader: int) -> bool:
        """Whether another actor came to the end of its window; then it is moved on."""
        found = False
        for i, row in enumerate(self.actors):
            if i != leader and self.fired(i) == row["stop"] < row["firings"]:
                self.look(i)
                found = True
        return found

    def follow(self, leader: int) -> bool:
        """Run until the leader has done all its firings, jumping where the run repeats.

        False if it cannot.
        """
        sizes = max((given.sizes for given in self.loops[leader]), key=len)
        stops = _Stops(int(self.actors[leader]["firings"]), sizes)
        marks = [_Marks() for _ in stops.distances]
        while (here := self.fired(leader)) < stops.firings:
            if not self.reach(leader, stops.after(here)):
                return False
            now, here = _Moment.of(self), self.fired(leader)
            # The outermost first, for its periods are the longest.
            for level in reversed(range(len(marks))):
                if here % stops.distances[level]:
                    continue
                if level:
                    stops.comes_round(here)
                period = next(
                    (here - at for at, then in marks[level] if self.jump(leader, then, now)), 0
                )
                if period:
                    stops.jumped(self.fired(leader), period)
                    for inner in marks[: level + 1]:
                        inner.clear()
                    break
                marks[level].put(here, now, 1 if not level else RECENT)
        return True

    def jump(self, leader: int, before: _Moment, now: _Moment) -> bool:
        """Add whole periods if what lies between two moments is one; whether any was added."""
        lane = int(self.actors[leader]["first_lane"])
        shift = int(now.times[END, lane] - before.times[END, lane])
        period = _Period(self, before, now, shift)
        if shift <= 0 or not period.recurs():
            return False
        times = period.times_left()
        if times < 1:
            return False
        period.add(times)
        for i, windows in enumerate(self.windows):
            if windows:
                self.ahead[i] = FIRST_WINDOW
                self.look(i)
        return True


class _Stops:
    """Where the leader stops, to be looked at.

    A *stretch* begins with an iteration of the loop around the innermost, or behind a jump. In it
    the leader stops ever farther apart, at 1, 2, 5, 10, 20, 50 times a distance that most short
    periods divide; at the very first at each firing, so that any short period is found, which that
    distance is then made a multiple of. Where iterations had no jump, more and more are passed
    over, and looks are so rare that a run without periods takes little longer for them.
    """

    def __init__(self, firings: int, sizes: tuple[int, ...]) -> None:
        self.firings = firings
        self.distances = [1, *np.cumprod(sizes[:0:-1]).tolist()]  # firings in an iteration of each
        self.inner = self.distances[1] if len(sizes) > 1 else firings
        self.outer = next((d for d in self.distances if d >= WORTH_A_LOOK), WORTH_A_LOOK)
        self.since, self.tries, self.looked, self.apart = 0, 0, 0, APART
        self.vain, self.rests, self.has_jumped = 0, 0, False

    @property
    def are_dense(self) -> bool:
        """Whether stops lie a firing apart."""
        return self.looked <= FREE_LOOKS and self.tries <= DENSE

    def after(self, here: int) -> int:
        """The next stop."""
        self.looked += 1
        if self.looked > FREE_LOOKS + here // WORTH_A_LOOK:
            return min(self.firings, here - here % self.outer + self.outer)
        end = min(self.firings, here - here % self.inner + self.inner)
        if self.rests:
            return end
        self.tries += 1
        if self.are_dense:
            return min(end, here + 1)
        while True:
            powers, digit = divmod(self.tries, 3)
            there = self.since + self.apart * 10**powers * (1, 2, 5)[digit]
            if there > here:
                return min(end, there)
            self.tries += 1

    def comes_round(self, here: int) -> None:
        """An iteration of the innermost loop but one begins."""
        if here == self.since:
            return
        if self.rests:
            self.rests -= 1
        else:
            self.vain = 0 if self.has_jumped else self.vain + 1
            self.rests = min(1 << self.vain, 64) - 1 if self.looked > FREE_LOOKS else 0
        self.since, self.tries, self.has_jumped = here, 0, False

    def jumped(self, here: int, period: int) -> None:
        """Periods of so many firings have been passed."""
        self.since, self.tries, self.has_jumped = here, 0, True
        joined = math.lcm(self.apart, period)
        if joined < WORTH_A_LOOK:
            self.apart = joined


@dataclass(eq=False)
class _Moment:
    """A copy of what changes."""

    lanes: NDArray[np.void]
    counts: Ints
    rings: Ints
    times: Ints
    asked: Ints
    server: Ints
    free: Ints

    @classmethod
    def of(cls, run: _Run) -> _Moment:
        state = run.state
        parts: Any = (state.lanes, state.counts, state.rings, state.times)
        return cls(*(part.copy() for part in (*parts, state.asked, state.server, state.free)))


class _Marks:
    """Moments with which later ones are compared, each with the firings of the leader until then.

    The last few of them, and one that moves on after twice as many steps as the last time (Brent's
    way), so that any period is found.
    """

    def __init__(self) -> None:
        self.recent: list[tuple[int, _Moment]] = []
        self.clear()

    def __iter__(self) -> Iterator[tuple[int, _Moment]]:
        yield from reversed(self.recent)
        if self.old and self.old[0] < self.recent[0][0]:
            yield self.old

    def clear(self) -> None:
        """Forget all."""
        self.recent.clear()
        self.old: tuple[int, _Moment] | None = None
        self.steps, self.power = 0, 1

    def put(self, at: int, moment: _Moment, recent: int) -> None:
        """The next moment; so many stay among the last."""
        self.recent = [*self.recent, (at, moment)][-recent:]
        self.steps += 1
        if self.old is None or self.steps >= self.power:
            self.old, self.steps, self.power = (at, moment), 0, 2 * self.power


@dataclass(eq=False)
class _Queue:
    """A channel that moved: its two rings (first number, slots, lanes) and tokens moved."""

    rings: tuple[tuple[int, int, int, int], ...]  # at, slots, lanes, tokens moved so far
    floor: int
    moved: int


@dataclass(eq=False)
class _Period:
    """What lies between two moments of a run, of which the second is ``shift`` cycles later."""

    run: _Run
    before: _Moment
    now: _Moment
    shift: int

    def __post_init__(self) -> None:
        fired = self.now.lanes["fired"] - self.before.lanes["fired"]
        self.fired = fired[self.run.counter]
        self.active = self.fired > 0

    @cached_property
    def spans(self) -> list[slice]:
        """The lanes of each actor."""
        rows = self.run.actors
        return [slice(a["first_lane"], a["first_lane"] + a["lanes"]) for a in rows]

    def recurs(self) -> bool:
        """Whether all that decides the future is as before, and later by the shift."""
        return self._lanes_recur() and self._queues_recur() and self._holds_recur()

    def _lanes_recur(self) -> bool:
        before, now, active = self.before, self.now, self.active
        later = now.times[END] - before.times[END]
        if (later[active] != self.shift).any() or (self.fired != self.fired[self.run.first]).any():
            return False
        waits = now.lanes["state"] == WAITING
        if (before.lanes["state"] != now.lanes["state"]).any() or (waits & ~active).any():
            return False
        if (now.times[OVER] - before.times[OVER] != self.shift)[active].any():
            return False
        same = now.times[CAUSE] == before.times[CAUSE]
        asked = now.asked - before.asked == self.shift
        same_bank = (now.server == before.server) | ~self._banked()
        return bool((asked & same & same_bank)[waits].all())

    def _banked(self) -> NDArray[np.bool_]:
        banked = self.run.state.layout.resources["banked"]
        holds = self.run.actors["resource"]
        each = np.array([h >= 0 and bool(banked[h]) for h in holds])
        return np.repeat(each, self.run.actors["lanes"])

    def _queues_recur(self) -> bool:
        self.queues: list[_Queue] = []
        netlist, ports = self.run.netlist, self.run.state.layout.ports
        for c, channel in enumerate(netlist.channels):
            i, j = netlist.index(channel.source), netlist.index(channel.target)
            own = int(self.run.actors[i]["ports"]) + len(netlist.inputs[i])
            port = ports[own + netlist.outputs[i].index(c)]
            ends = []
            for side, end in (("own", i), ("other", j)):
                step, lanes = int(port[f"{side}_step"]), int(self.run.actors[end]["lanes"])
                at = int(port[f"{side}_count"])
                ends.append(slice(at, at + (lanes if step else 1)))
            counts = [self.now.counts[end] for end in ends]
            moved = [n - self.before.counts[end] for n, end in zip(counts, ends, strict=True)]
            most = max(int(m.max()) for m in moved)
            if any((m != most).any() for m in moved):
                return False
            if not most:
                continue
            if any(np.ptp(n) for n in counts):
                return False
            lanes = np.r_[self.spans[i], self.spans[j]]
            if not self.active[lanes].all():
                return False
            slots = int(port["mask"]) + 1
            rings = tuple(
                (int(port[f"{side}_ring"]), slots, int(port[f"{side}_width"]), int(n[0]))
                for side, n in zip(("own", "other"), counts, strict=True)
            )
            floor = int(self.now.times[END][lanes].min())
            self.queues.append(_Queue(rings, floor, most))
        return all(self._queue_recurs(queue) for queue in self.queues)

    def _queue_recurs(self, queue: _Queue) -> bool:
        for at, slots, width, count in queue.rings:
            span, places = slice(at, at + slots * width), np.arange(slots)
            new = self.now.rings[span].reshape(slots, width)[(count + places) % slots]
            old = self.before.rings[span].reshape(slots, width)
            old = old[(count - queue.moved + places) % slots] + self.shift
            if (np.maximum(new, queue.floor) != np.maximum(old, queue.floor)).any():
                return False
        return True

    def _holds_recur(self) -> bool:
        self.held: list[slice] = []
        netlist = self.run.netlist
        for row, resource in zip(self.run.state.layout.resources, netlist.resources, strict=True):
            users = [i for i in netlist.holders[resource.name] if self.active[self.spans[i]].all()]
            if not users:
                continue
            floor = min(int(self.now.times[END][self.spans[i]].min()) for i in users)
            span = slice(int(row["free_at"]), int(row["free_at"]) + int(row["servers"]))
            new = np.maximum(self.now.free[span], floor)
            old = np.maximum(self.before.free[span] + self.shift, floor)
            if not resource.banked:
                new, old = np.sort(new), np.sort(old)
            if (new != old).any():
                return False
            self.held.append(span)
        return True

    def times_left(self) -> int:
        """How often the period recurs before an actor leaves the runs of its loops."""
        netlist, least = self.run.netlist, np.iinfo(np.int64).max
        self.rises: dict[int, int] = {}  # of the ranks of each actor, in a period
        asking: list[tuple[int, int, int]] = []  # of actors that ask: from, and up to which firing
        for i, span in enumerate(self.spans):
            fired = int(self.fired[span.start])
            if not fired:
                continue
            last = int(self.now.lanes["fired"][span.start])
            actor, end, rise = netlist.actors[i], int(self.run.actors[i]["firings"]), 0
            for given in _given(netlist, i):
                here, added = _steady(given, last - fired, last, end)
                end = min(end, here if not added else last)
            if actor.resource is not None:
                here, rise = _steady(actor.rank, last - fired, last, end)
                end = min(end, here)
                asks = np.zeros(1) if actor.request is None else np.asarray(actor.request)
                if (asks != asks[:1]).any():
                    end = last  # the banks asked for are given one by one
                self.rises[i] = rise
                asking.append((i, last - fired, last))
            if self.now.lanes["state"][span.start] == WAITING:
                end -= 1  # what waits has been looked at
                then, now = (m.lanes["rank"][span.start] for m in (self.before, self.now))
                if now - then != rise:
                    return 0
            least = min(least, (end - last) // fired)
            if least < 1:
                return 0
        ranks: dict[str | None, list[tuple[int, int, int]]] = {}
        for i, first, last in asking:
            asked = _between(netlist.actors[i].rank, first, last)
            ranks.setdefault(netlist.actors[i].resource, []).append((self.rises[i], *asked))
        return int(least) if all(map(_keep_their_order, ranks.values())) else 0

    def add(self, times: int) -> None:
        """Let the period pass so many times more."""
        state, active, shift = self.run.state, self.active, times * self.shift
        layout = state.layout
        state.lanes["fired"] += times * self.fired
        waits = state.lanes["state"] == WAITING
        state.asked[waits] += shift
        for i, rise in self.rises.items():
            state.lanes["rank"][self.spans[i]] += times * rise
        for row in (END, OVER):
            state.times[row, active] += shift
        state.times[START, waits] += shift
        for row in (IDLED, BLOCKED, WAITED):
            state.times[row] += times * (self.now.times[row] - self.before.times[row])
        state.counts += times * (self.now.counts - self.before.counts)
        for queue in self.queues:
            for at, slots, width, _ in queue.rings:
                ring = state.rings[at : at + slots * width].reshape(slots, width)
                ring[:] = np.roll(ring, times * queue.moved, axis=0) + shift
        for span in self.held:
            state.free[span] += shift
        layout.resources["stale"] = 1


def _steady(given: Any, first: int, last: int, end: int) -> tuple[int, int]:
    """Until which firing what is given repeats, and by how much it rises in a period."""
    if isinstance(given, Loops):
        return given.steady(first, last)
    if given is None or len(given) == 1:
        return end, 0
    return last, 0


def _between(given: Any, first: int, last: int) -> tuple[int, int]:
    """The least and the greatest of what is given for the firings ``first`` to ``last``."""
    if isinstance(given, Loops):
        asked = given.window(first, min(last + 1, len(given)))
    else:
        asked = given[first : last + 1] if len(given) > 1 else given
    return int(asked.min()), int(asked.max())


def _keep_their_order(ranks: list[tuple[int, int, int]]) -> bool:
    """Whether ranks (rise, least, greatest) that rise by more are above the others from now on."""
    return all(low > most for rise, low, _ in ranks for other, _, most in ranks if other < rise)
