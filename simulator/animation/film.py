"""A small run moment by moment: what every lane does, what every queue holds, and why.

A *moment* is a cycle in which something changes: a firing starts or ends, or its results become
visible. Between moments all stays as it is. All of it is read from the timeline of a real run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sparqsim.base import InputError
from sparqsim.simulator.netlist import Channel, Netlist, Pattern
from sparqsim.simulator.queues import is_countable
from sparqsim.simulator.timeline import GRANT, INPUT, Timeline
from sparqsim.simulator.trace.window import Window, window_of

# What a lane does, in the order of LaneStates.
BUSY, STARVED, BLOCKED, WAITING, DONE = range(5)
STATE_NAMES = ("busy", "waits for tokens", "waits for free slots", "waits for a resource", "done")

# assumed: more than this is no picture any more
MOST_ACTORS, MOST_LANES, MOST_MOMENTS, MOST_FIRINGS = 40, 512, 1500, 20_000
DOTS = 6  # tokens on their way that are drawn for a channel

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Queue:
    """A channel at a moment: tokens in all its queues, in the fullest, and those on their way.

    ``moving`` has a pair for each token drawn: its place among the dots, and how far it is, 0 to 1.
    """

    tokens: int
    fullest: int
    moving: tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class Frame:
    """A moment: the state of each lane of each actor, in words, and each channel."""

    cycle: int
    states: tuple[tuple[int, ...], ...]
    words: tuple[str, ...]
    queues: tuple[Queue, ...]


def check_showable(netlist: Netlist) -> None:
    """Refuse what no picture shows.

    Raises
    ------
    InputError
        If there are too many actors, lanes or firings, or an actor is a behaviour.
    """
    lanes = sum(actor.lanes for actor in netlist.actors)
    for count, most, what in (
        (len(netlist.actors), MOST_ACTORS, "actors"),
        (lanes, MOST_LANES, "lanes"),
        (netlist.lane_firings, MOST_FIRINGS, "firings"),
    ):
        if count > most:
            raise InputError(
                f"an animation shows at most {most:,} {what}, and this run has {count:,}; take a "
                "smaller layer or machine, or write a trace (sparqsim run ... --trace)"
            )
    for channel in netlist.channels:
        if not is_countable(netlist, channel):
            raise InputError(
                f"channel {channel.name!r} ends at an actor written as a behaviour, whose tokens "
                "are not recorded; an animation cannot show it"
            )


def check_cycle(timeline: Timeline, cycle: int) -> None:
    """Raise InputError if the run has no such cycle."""
    if not 0 <= cycle <= timeline.cycles:
        raise InputError(f"the run has the cycles 0 to {timeline.cycles:,}, got {cycle:,}")


def moments(timeline: Timeline, window: Window | None = None) -> Ints:
    """The cycles in which something changes, from the first of the window to its end.

    Raises
    ------
    InputError
        If the run cannot be shown, or there are too many.
    """
    check_showable(timeline.netlist)
    shown = window_of(timeline, window)
    found = [np.array([shown.begin, min(shown.end, timeline.cycles)])]
    for actor in timeline.netlist.actors:
        starts = timeline.starts_of(actor.name)
        done = starts >= 0
        for length in (0, timeline.busy(actor.name), timeline.latency(actor.name)):
            found.append((starts + length)[done])
    cycles = np.unique(np.concatenate(found))
    cycles = cycles[(cycles >= shown.begin) & (cycles <= shown.end)]
    if len(cycles) > MOST_MOMENTS:
        raise InputError(
            f"an animation shows at most {MOST_MOMENTS:,} moments, and these cycles have "
            f"{len(cycles):,}; name fewer (--window FROM:TO, of 0:{timeline.cycles}) or take a "
            "smaller layer"
        )
    return cycles


def frames(timeline: Timeline, cycles: Ints) -> Iterator[Frame]:
    """The frame of each of these cycles."""
    netlist = timeline.netlist
    actors = [_Lanes(timeline, i, cycles) for i in range(len(netlist.actors))]
    channels = [_Queues(timeline, channel, cycles) for channel in netlist.channels]
    for number, cycle in enumerate(cycles.tolist()):
        states = [lanes.states(number, cycle) for lanes in actors]
        holders = _holders(netlist, states)
        yield Frame(
            cycle=cycle,
            states=tuple(tuple(state for state, _ in each) for each in states),
            words=tuple(
                lanes.words(number, each, holders)
                for lanes, each in zip(actors, states, strict=True)
            ),
            queues=tuple(queues.at(number, cycle) for queues in channels),
        )


def _holders(netlist: Netlist, states: list[list[tuple[int, int]]]) -> dict[str, str]:
    """For each resource the actors that hold it now."""
    return {
        name: ", ".join(
            netlist.actors[i].name for i in users if any(state == BUSY for state, _ in states[i])
        )
        for name, users in netlist.holders.items()
    }


class _Lanes:
    """The lanes of an actor."""

    def __init__(self, timeline: Timeline, i: int, cycles: Ints) -> None:
        self.netlist = timeline.netlist
        self.actor = self.netlist.actors[i]
        self.starts = timeline.starts_of(self.actor.name)
        self.ends = self.starts + timeline.busy(self.actor.name)
        self.causes = timeline.causes_of(self.actor.name)
        self.grants = timeline.grants[i] if timeline.grants else None
        fired = (self.starts >= 0).sum(axis=0)
        self.fired = fired
        self.count = np.stack(
            [
                np.searchsorted(self.starts[:n, lane], cycles, side="right")
                for lane, n in enumerate(fired.tolist())
            ],
            axis=1,
        )

    def states(self, number: int, cycle: int) -> list[tuple[int, int]]:
        """The state of each lane, and the cause of the wait (or 0)."""
        found = []
        for lane, begun in enumerate(self.count[number].tolist()):
            # A firing that takes no time is seen in the cycle it happens.
            at_work = begun and (
                cycle < self.ends[begun - 1, lane] or cycle == self.starts[begun - 1, lane]
            )
            if at_work:
                found.append((BUSY, 0))
            elif begun >= self.fired[lane]:
                found.append((DONE, 0))
            elif self.grants is not None and self.grants.ready[begun, lane] <= cycle:
                found.append((WAITING, GRANT))
            else:
                causes = self.causes if self.grants is None else self.grants.causes
                why = int(causes[begun, lane])
                found.append((STARVED if (why - INPUT) % 2 == 0 else BLOCKED, why))
        return found

    def words(self, number: int, states: list[tuple[int, int]], holders: dict[str, str]) -> str:
        """What the lanes do, and what those that wait wait for."""
        several, parts = self.actor.lanes > 1, []
        for (state, why), count in sorted(Counter(states).items()):
            who = f"{count} of {self.actor.lanes} " if several else ""
            text = self._cause(state, why, holders)
            if state == BUSY and not several:
                k = int(self.count[number, 0])
                text = f"busy with firing {k} of {self.actor.count}"
            elif several and count > 1:
                text = text.replace("waits", "wait", 1)
            parts.append(who + text)
        return "; ".join(parts)

    def _cause(self, state: int, why: int, holders: dict[str, str]) -> str:
        if state == WAITING:
            name = str(self.actor.resource)
            by = holders.get(name)
            return f"waits for {name}" + (f", held by {by}" if by else "")
        if state in (BUSY, DONE) or why < INPUT:
            return STATE_NAMES[state]
        channel = self.netlist.channels[(why - INPUT) // 2]
        if state == STARVED:
            return f"waits for tokens of {channel.name}, from {channel.source}"
        return f"waits for free slots in {channel.name}: {channel.target} has not taken enough"


class _Queues:
    """The queues of a channel."""

    def __init__(self, timeline: Timeline, channel: Channel, cycles: Ints) -> None:
        self.channel = channel
        self.starts = timeline.starts_of(channel.source)
        self.shown = self.starts + timeline.latency(channel.source)
        produce, consume = timeline.rates(channel.name)
        self.made = np.broadcast_to(produce, self.starts.shape)
        pushed = _passed(self.starts, self.made, cycles)
        taken = timeline.starts_of(channel.target)
        popped = _passed(taken, np.broadcast_to(consume, taken.shape), cycles)
        if channel.pattern is Pattern.SHIFT:
            sources = self.starts.shape[1]
            lanes = [j for j in range(taken.shape[1]) if channel.source_lanes(j, sources)]
            pushed, popped = pushed[:, [j - channel.offset for j in lanes]], popped[:, lanes]
        # One lane on either side of a broadcast or a gather serves all queues.
        self.levels = pushed - popped

    def at(self, number: int, cycle: int) -> Queue:
        """The channel in the cycle of that number."""
        level = self.levels[number]
        on_way = (self.starts >= 0) & (self.starts <= cycle) & (cycle < self.shown)
        firing, lane = np.nonzero(on_way & (self.made > 0))
        moving: dict[int, float] = {}
        for k, i in zip(firing.tolist(), lane.tolist(), strict=True):
            passed, whole = cycle - self.starts[k, i] + 1, self.shown[k, i] - self.starts[k, i] + 1
            moving[(k + i) % DOTS] = round(float(passed / whole), 3)
        fullest = int(level.max(initial=0))
        return Queue(int(level.sum()), fullest, tuple(sorted(moving.items())))


def _passed(starts: Ints, amounts: Ints, cycles: Ints) -> Ints:
    """Tokens that firings of each lane moved up to and in each cycle, ``[cycles, lanes]``."""
    sums = np.zeros((len(cycles), starts.shape[1]), np.int64)
    for lane in range(starts.shape[1]):
        fired = int((starts[:, lane] >= 0).sum())
        total = np.concatenate([[0], np.cumsum(amounts[:fired, lane])])
        sums[:, lane] = total[np.searchsorted(starts[:fired, lane], cycles, side="right")]
    return sums
