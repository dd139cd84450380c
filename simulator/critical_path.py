"""The critical path: the chain of causes walked back from the end of a run.

From the firing that ends last, ask what it waited for last; go to the firing that supplied it; and
so on back to cycle 0. Each step covers the cycles between the two starts and belongs to what filled
them: an actor computing (its previous firing, or the latency of the firing that made the token), a
full queue (one cycle from the pop that freed a slot to the push it let in), or a held resource. The
steps join end to end, so they sum to the run's cycles exactly.

Of a run that kept every firing the steps are known one by one, :func:`critical_path`; of any run
of the compiled engine the cycles of each place, :func:`shares_of`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sparqsim.simulator.netlist import Netlist
from sparqsim.simulator.timeline import Timeline
from sparqsim.simulator.walk import BEGINNING, HELD, Place, Span, Walk

COMPUTING, FULL_QUEUE, RESOURCE = "computing", "full queue", "resource"

Ints = NDArray[np.int64]


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
class PathSums:
    """Cycles of the critical path by lane and by what filled them.

    Attributes
    ----------
    cycles : int64 [lanes of all actors, 2 + channels]
        Those of the resource a lane holds, of its own firings, and of the full queue of each
        channel.
    """

    netlist: Netlist
    cycles: Ints

    @classmethod
    def none(cls, netlist: Netlist) -> PathSums:
        """No cycles as yet."""
        lanes = sum(actor.lanes for actor in netlist.actors)
        return cls(netlist, np.zeros((lanes, 2 + len(netlist.channels)), np.int64))

    def add(self, steps: Ints) -> None:
        """Add steps, rows (actor, lane, firing, code, cycles)."""
        actor, lane, _, code, cycles = steps.T
        first = np.cumsum([0, *(actor.lanes for actor in self.netlist.actors)])
        np.add.at(self.cycles, (first[actor] + lane, code - HELD), cycles)

    def shares(self, by_lane: bool = False) -> list[PathShare]:
        """Cycles by place, the largest first; they sum to the run's cycles."""
        joined: dict[tuple[str, str, int | None], int] = {}
        first = 0
        for actor in self.netlist.actors:
            own = self.cycles[first : first + actor.lanes]
            first += actor.lanes
            for code, lane in np.argwhere(own.T).tolist():
                kind, where = COMPUTING, actor.name
                if code + HELD >= 0:
                    kind, where = FULL_QUEUE, self.netlist.channels[code + HELD].name
                elif code + HELD == HELD:
                    kind, where = RESOURCE, str(actor.resource)
                key = (kind, where, lane if by_lane else None)
                joined[key] = joined.get(key, 0) + int(own[lane, code])
        found = [PathShare(*key, cycles) for key, cycles in joined.items()]
        return sorted(found, key=lambda share: (-share.cycles, share.kind, share.where))


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
        sums = PathSums.none(self.netlist)
        sums.add(np.column_stack([self.actor, self.lane, self.firing, self.code, self.cycles]))
        return sums.shares(by_lane)


def critical_path(timeline: Timeline) -> CriticalPath:
    """The chain of causes from the run's start to its end; the pieces sum to its cycles.

    Raises
    ------
    InputError
        If the timeline kept no single firings.
    """
    netlist = timeline.netlist
    span = _whole(timeline)
    last, begin = 0, None
    for i, begun in enumerate(span.starts):
        if begun.size:
            ends = begun + np.maximum(span.shown[i], timeline.busy(netlist.actors[i].name))
            ends[begun < 0] = -1
            best = int(ends.argmax())
            if begin is None or ends.flat[best] > last:
                firing, lane = divmod(best, netlist.actors[i].lanes)
                last, begin = int(ends.flat[best]), Place(i, lane, firing, timeline.cycles)
    if begin is None or last < 0:
        return CriticalPath(netlist, *np.zeros((5, 0), np.int64))
    walk = Walk(span)
    steps, _, why = walk.go(begin, plainly=True)
    if why != BEGINNING:
        steps, _, why = walk.go(begin, plainly=False)
    assert why == BEGINNING, "a chain of causes that does not end"
    return CriticalPath(netlist, *steps[::-1].T.copy())


def shares_of(timeline: Timeline) -> PathSums | None:
    """The cycles of the critical path by place; None of a run of sums that left no trail.

    Of a run that kept sums alone, the compiled engine goes through what it needs once more.
    """
    if timeline.starts is not None:
        path = critical_path(timeline)
        sums = PathSums.none(timeline.netlist)
        sums.add(np.column_stack([path.actor, path.lane, path.firing, path.code, path.cycles]))
        return sums
    if timeline.trail is None:
        return None
    from sparqsim.simulator.engines.replay import path_sums

    return path_sums(timeline.trail)


def _whole(timeline: Timeline) -> Span:
    """All firings of a run."""
    netlist = timeline.netlist
    names = [actor.name for actor in netlist.actors]
    starts = [timeline.starts_of(name) for name in names]
    holds: list[Ints | None] = []
    for i, actor in enumerate(netlist.actors):
        grants = timeline.grants[i] if timeline.grants else None
        held = None if grants is None else grants.held
        holds.append(timeline.busy(actor.name) if actor.resource and held is None else held)
    lanes = sum(actor.lanes for actor in netlist.actors)
    before = [
        (np.zeros(netlist.actor(c.source).lanes, np.int64),
         np.zeros(netlist.actor(c.target).lanes, np.int64))
        for c in netlist.channels
    ]  # fmt: skip
    return Span(
        netlist,
        firsts=[0] * len(names),
        starts=starts,
        causes=[timeline.causes_of(name) for name in names],
        shown=[timeline.latency(name) for name in names],
        holds=holds,
        rates=[timeline.rates(channel.name) for channel in netlist.channels],
        begun=np.zeros(lanes, np.int64),
        over=np.full(lanes, -1, np.int64),
        moved=before,
        free=[-1] * len(netlist.resources),
    )
