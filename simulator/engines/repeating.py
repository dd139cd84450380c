"""Runs that repeat: jump over whole periods, exactly.

With durations, rates and ranks given as :class:`sparqsim.simulator.loops.Loops`, the compiled
engine need not go through every firing. It is stopped before certain firings of one actor, the
*leader*. There all that is determined has been evaluated, and a moment is compared with earlier
ones: if what lies between is a period (:mod:`.periods`), as many periods as every actor has left
are added to counts, sums and times at once, and the run goes on from there. Of the loops only a
window of firings is ever written out.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparqsim.simulator.engines.compiled import OVER, State
from sparqsim.simulator.engines.layout import flatten, uniform_actors
from sparqsim.simulator.engines.periods import Moment, Parts, Period, given_of
from sparqsim.simulator.engines.trail import Trail
from sparqsim.simulator.loops import Loops
from sparqsim.simulator.netlist import Netlist

Ints = NDArray[np.int64]

SHORT = 1 << 17  # firings that are sooner gone through one by one than looked at for what repeats
WINDOW = 8192  # firings of loops written out at once
FIRST_WINDOW = 512  # and after a jump, since the next may follow soon
RECENT = 32  # moments at the same place of a loop that are compared with the next one
DENSE = 12  # stops one firing apart, in each stretch of the first looks
APART = 12  # a number with many divisors: later stops lie multiples of it apart
# To look whether a run repeats takes about as long as so many firings; the first looks are free.
WORTH_A_LOOK, FREE_LOOKS = 1024, 128
COMPARED = 4  # moments compared with one take as long as a look
REWARD = 8  # looks that a jump over much allows in addition, at most


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


def _looped(netlist: Netlist, i: int) -> Iterator[bool]:
    return (isinstance(given, Loops) for given in (*given_of(netlist, i), netlist.actors[i].rank))


def run_through(netlist: Netlist) -> tuple[State, Trail]:
    """The state after the whole run, sums of lanes and not single firings, and how it went."""
    looks = pays(netlist)
    trail = Trail(netlist, windowed=looks)
    if looks:
        run = Run(netlist, State.at_first(flatten(netlist, WINDOW), full=False), trail)
        while (leader := run.leader()) >= 0 and run.follow(leader):
            pass
        state = run.state
    else:
        state = State.at_first(flatten(netlist), full=False)
        go_straight(state, trail)
    trail.fired, trail.over = state.lanes["fired"].copy(), state.times[OVER].copy()
    return state, trail


def go_straight(state: State, trail: Trail) -> None:
    """Go through a whole run firing by firing, with stops for marks alone."""
    firings = state.layout.actors["firings"]
    leader = int(firings.argmax()) if firings.size else 0
    trail.lead(leader, 0)
    last = int(firings[leader]) if firings.size else 0
    here = 0
    while (there := min(last, here + trail.to_next_mark())) < last and stand(state, leader, there):
        trail.went(there - here)
        trail.mark(state, there)
        here = there
    stand(state, leader, last)
    trail.rest(last)


def stand(state: State, leader: int, firing: int) -> bool:
    """Go on until a lane of the leader stands before a firing; whether it came to that."""
    state.layout.actors["stop"][leader] = firing
    return state.go_on()


@dataclass(eq=False)
class Run:
    """A run with its windows into loops."""

    netlist: Netlist
    state: State
    trail: Trail | None = None

    def __post_init__(self) -> None:
        self.actors = self.state.layout.actors
        self.parts = Parts(self.netlist, self.state)
        self.first_lanes = self.actors["first_lane"].tolist()
        self.firings = self.actors["firings"].tolist()
        self.counted, self.stop = self.state.lanes["fired"], self.actors["stop"]
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
        self.look_anew()

    def look_anew(self) -> None:
        """Write out all loops from where the run stands."""
        for i, loops in enumerate(self.loops):
            if loops:
                self.ahead[i] = FIRST_WINDOW
                self.look(i)

    def fired(self, i: int) -> int:
        return int(self.counted[self.first_lanes[i]])

    def look(self, i: int) -> None:
        """Write out the loops of an actor from its next firing on."""
        first = self.fired(i)
        last = self.firings[i]
        if self.windows[i]:
            last = min(last, first + self.ahead[i])
        self.ahead[i] = min(WINDOW, 2 * self.ahead[i])
        self.stop[i] = self.written[i] = last
        for where, name, at, step, given in self.windows[i]:
            numbers = given.window(first, last)
            if step > 1:
                numbers = np.repeat(numbers, step)
            self.state.layout.pool[at : at + numbers.size] = numbers
            where[name] = at - first * step

    def leader(self) -> int:
        """The actor with loops that has most firings left, or -1; one with inner loops, if any."""
        left = [
            firings - self.fired(i) if self.loops[i] else 0
            for i, firings in enumerate(self.firings)
        ]
        inner = [more * (len(self.sizes(i)) > 1) for i, more in enumerate(left)]
        best = int(np.argmax(inner if any(inner) else left))
        return best if left[best] > 0 else -1

    def sizes(self, i: int) -> tuple[int, ...]:
        """Iterations of the loops of an actor, of what is given by most of them."""
        return max((given.sizes for given in self.loops[i]), key=len, default=())

    def reach(self, leader: int, firing: int) -> bool:
        """Go on until the leader stands before a firing and nothing else can be evaluated.

        False if it cannot get there, and then the run is over. Marks are left on the way.
        """
        if self.trail is None:
            return self._reach(leader, firing)
        while (here := self.fired(leader)) < firing:
            there = min(firing, here + self.trail.to_next_mark())
            if not self._reach(leader, there):
                return False
            if self.trail.went(there - here):
                self.trail.mark(self.state, there)
        return True

    def _reach(self, leader: int, firing: int) -> bool:
        while self.fired(leader) < firing:
            for i, windows in enumerate(self.windows):
                if windows and self.fired(i) >= self.written[i]:
                    self.look(i)
            self.stop[leader] = min(self.written[leader], firing)
            if not self.state.go_on():
                return False
        while self.others_stopped(leader):
            self.state.go_on()
        return True

    def others_stopped(self, leader: int) -> bool:
        """Whether another actor came to the end of its window; then it is moved on."""
        found = False
        for i, firings in enumerate(self.firings):
            if i != leader and self.fired(i) == self.stop[i] < firings:
                self.look(i)
                found = True
        return found

    def follow(self, leader: int) -> bool:
        """Run until the leader has done all its firings, jumping where the run repeats.

        False if it cannot.
        """
        assert self.trail is not None
        self.trail.lead(leader, self.fired(leader))
        ended = self._follow(leader)
        self.trail.rest(self.fired(leader))
        return ended

    def _follow(self, leader: int) -> bool:
        stops = _Stops(int(self.actors[leader]["firings"]), self.sizes(leader))
        marks = [_Marks(1 if not level else RECENT) for level in range(len(stops.distances))]
        while (here := self.fired(leader)) < stops.firings:
            if not self.reach(leader, stops.after(here)):
                return False
            now, here = Moment.of(self.state, self.actors["first_lane"]), self.fired(leader)
            # The outermost first, for its periods are the longest.
            for level in reversed(range(len(marks))):
                if here % stops.distances[level]:
                    continue
                if level:
                    stops.comes_round(here)
                # No period is to jump over the moments of a loop that are to be compared.
                end = stops.firings if level else stops.end_of_iteration(here)
                before, like = None, marks[level].like(now, leader)
                for compared, (at, then, shift) in enumerate(like, 1):
                    if self.jump(leader, at, then, now, shift, end):
                        before = at
                        break
                    stops.looked += compared % COMPARED == 0
                if before is not None:
                    stops.jumped(before, here, self.fired(leader))
                    for inner in marks[: level + 1]:
                        inner.clear()
                    break
                marks[level].put(here, now)
        return True

    def jump(self, leader: int, at: int, before: Moment, now: Moment, shift: int, end: int) -> bool:
        """Add whole periods if what lies between two moments is one; whether any was added.

        The leader stood before its firing ``at`` in the first, and goes no farther than to ``end``.
        """
        period = Period(self.parts, self.state, before, now, shift)
        left = (end - self.fired(leader)) // int(period.fired[self.first_lanes[leader]])
        times = min(left, period.times_left()) if left else 0
        if times < 1 or not period.recurs():
            return False
        times = min(times, period.ranked())
        if times < 1:
            return False
        jump, here = period.jump(times), self.fired(leader)
        jump.add(self.state, self.parts.rings)
        self.move_windows(period, times)
        if self.trail is not None:
            self.trail.jumped(at, here, self.fired(leader), jump)
        return True

    def move_windows(self, period: Period, times: int) -> None:
        """Read what is written out as of the firings so many periods later, which is the same."""
        for i, windows in enumerate(self.windows):
            moved = times * int(period.fired[self.first_lanes[i]])
            if not windows or not moved:
                continue
            rise = times * period.rises.get(i, 0)
            for where, name, at, step, given in windows:
                where[name] -= moved * step
                if name == "rank":
                    self.state.layout.pool[at : at + min(WINDOW, len(given)) * step] += rise
            self.written[i] = min(self.written[i] + moved, period.ends[i])
            self.stop[i] = self.written[i]
            self.ahead[i] = FIRST_WINDOW
            if self.fired(i) >= self.written[i]:
                self.look(i)


class _Stops:
    """Where the leader stops, to be looked at.

    A *stretch* begins with an iteration of the loop around the innermost, or behind a jump. In it
    the leader stops where a period began in the iteration before, and one later; else ever farther
    apart, at 1, 2, 5, 10, 20, 50 times a distance that most short periods divide; at the very first
    at each firing, so that any short period is found, which that distance is then made a multiple
    of. Where iterations had no jump, more and more are passed over, and looks are so rare that a
    run without periods takes little longer for them.
    """

    def __init__(self, firings: int, sizes: tuple[int, ...]) -> None:
        self.firings = firings
        self.distances = [1, *np.cumprod(sizes[:0:-1]).tolist()]  # firings in an iteration of each
        self.inner = self.distances[1] if len(sizes) > 1 else firings
        self.outer = next((d for d in self.distances if d >= WORTH_A_LOOK), WORTH_A_LOOK)
        self.since, self.looked, self.apart = 0, 0, APART
        self.vain, self.rests = 0, 0
        self.barren = 0  # up to where no period is looked for
        self.planned: list[int] = []  # places in an iteration where to stop, by those before
        self.found: list[int] = []  # and in the next, by this one

    def after(self, here: int) -> int:
        """The next stop."""
        self.looked += 1
        if self.looked > FREE_LOOKS + here // WORTH_A_LOOK:
            return min(self.firings, here - here % self.outer + self.outer)
        end = self.end_of_iteration(here)
        if self.rests or here < self.barren:
            return end
        begin = here - here % self.inner
        planned = next((begin + at for at in self.planned if begin + at > here), end)
        if planned < end:
            return planned
        if self.looked <= FREE_LOOKS and here < self.since + DENSE:
            return min(end, here + 1)
        for power in range(18):
            for digit in (1, 2, 5):
                there = self.since + self.apart * 10**power * digit
                if there > here:
                    return min(end, there)
        return end

    def end_of_iteration(self, here: int) -> int:
        """The firing behind an iteration of the loop around the innermost."""
        return min(self.firings, here - here % self.inner + self.inner)

    def comes_round(self, here: int) -> None:
        """An iteration of the innermost loop but one begins."""
        if here == self.since:
            return
        if self.rests:
            self.rests -= 1
        else:
            self.vain = 0 if self.found else self.vain + 1
            self.rests = min(1 << self.vain, 64) - 1 if self.looked > FREE_LOOKS else 0
            self.planned = self.found
        self.since, self.found = here, []

    def jumped(self, before: int, there: int, here: int) -> None:
        """Periods like the one between two stops have been passed."""
        period = there - before
        worth = min(REWARD, (here - there) // WORTH_A_LOOK)
        self.since, self.looked = here, max(0, self.looked - worth)
        end = self.end_of_iteration(here)
        if end - here < min(period, WORTH_A_LOOK):  # what is left holds no such period
            self.barren = end
        if before % self.inner + period < self.inner:
            # Next time it is looked for shorter ones too.
            self.found += [(before + p) % self.inner for p in sorted({0, self.apart, period})]
        if period % self.apart and math.lcm(self.apart, period) < WORTH_A_LOOK:
            self.apart = math.lcm(self.apart, period)


class _Marks:
    """Moments with which later ones are compared, each with the firings of the leader until then.

    The last few of them, and one that moves on after twice as many steps as the last time (Brent's
    way), so that any period is found.
    """

    def __init__(self, most: int) -> None:
        self.most = most  # of the last that are kept
        self.clear()

    def clear(self) -> None:
        """Forget all."""
        self.kept: list[tuple[int, Moment]] = []  # the one that moves on, and the last
        self.firsts = np.zeros((0, 2, 0), np.int64)
        self.steps, self.power = 0, 1

    def like(self, now: Moment, leader: int) -> Iterator[tuple[int, Moment, int]]:
        """Moments since which all actors that fired are as much later as the leader, and how much.

        The last of them first.
        """
        if not self.kept:
            return
        fired, later = (now.firsts - self.firsts).transpose(1, 0, 2)
        shift = later[:, leader]
        alike = ((later == shift[:, None]) | (fired == 0)).all(axis=1) & (shift > 0)
        for place in np.flatnonzero(alike)[::-1].tolist():
            yield *self.kept[place], int(shift[place])

    def put(self, at: int, moment: Moment) -> None:
        """The next moment."""
        self.steps += 1
        old, last = self.kept[:1], self.kept[1:]
        if not old or self.steps >= self.power:
            old, self.steps, self.power = [(at, moment)], 0, 2 * self.power
        self.kept = [*old, *[*last, (at, moment)][-self.most :]]
        self.firsts = np.stack([kept.firsts for _, kept in self.kept])
