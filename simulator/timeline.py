"""What happened in a run, and why: starts and causes, and everything that follows from them.

A :class:`Timeline` holds, for every firing, the cycle it started and its *cause*: which of its
conditions was the last to hold. From these two numbers alone follow where each lane's time went,
how full each queue was, how evenly the work was spread, and the critical path (see
:mod:`sparqsim.simulator.critical_path`).

Under ``record="summary"`` a timeline keeps only the sums of each lane, so its size does not depend
on the number of firings; what needs single firings is then refused with a message.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sparqsim.base import InputError
from sparqsim.simulator.amounts import check_count
from sparqsim.simulator.netlist import Actor, Netlist

if TYPE_CHECKING:
    from sparqsim.simulator.engines.trail import Trail

# Why a firing started when it did: the last of its conditions to hold. On a tie the earlier
# condition of this order is named, and of channels the earlier declared.
FREE = 0  # nothing held it: the first firing, at cycle 0
PREVIOUS = 1  # the lane's previous firing had to end
GRANT = 2  # the resource had to be granted
INPUT = 3  # INPUT + 2 c: tokens of channel c had to become visible
OUTPUT = 4  # OUTPUT + 2 c: slots of channel c had to be freed


@dataclass(frozen=True, eq=False)
class LaneTimes:
    """Where the cycles of each lane of an actor went; the five sum to the run's cycles.

    Attributes
    ----------
    busy, starved, blocked, waiting, finished
        Cycles ``[lanes]``: firing; waiting last for input tokens; waiting last for a free slot
        of a full queue; waiting for a granted resource; nothing left to do (after a deadlock:
        stuck).
    """

    busy: NDArray[np.int64]
    starved: NDArray[np.int64]
    blocked: NDArray[np.int64]
    waiting: NDArray[np.int64]
    finished: NDArray[np.int64]

    @classmethod
    def of_sums(cls, sums: NDArray[np.int64], cycles: int) -> LaneTimes:
        """From the rows busy, starved, blocked and waiting; the rest of ``cycles`` is finished."""
        busy, starved, blocked, waiting = sums
        return cls(busy, starved, blocked, waiting, cycles - sums.sum(axis=0))

    def totals(self) -> dict[str, int]:
        """The five kinds of time summed over lanes, in lane-cycles."""
        names = ("busy", "starved", "blocked", "waiting", "finished")
        return {name: int(getattr(self, name).sum()) for name in names}


@dataclass(frozen=True, eq=False)
class Grants:
    """What is known of the firings of an actor that holds a resource, each ``[firings, lanes]``.

    ``ready`` is the cycle in which all but the resource held, ``causes`` the last of those to
    hold. For a stateful resource ``held``, ``busy`` and ``shown`` are the hold of the server, the
    time the lane was occupied and the latency it computed.
    """

    ready: NDArray[np.int64]
    causes: NDArray[np.int32]
    held: NDArray[np.int64] | None = None
    busy: NDArray[np.int64] | None = None
    shown: NDArray[np.int64] | None = None


@dataclass(frozen=True, eq=False)
class Decided:
    """The firings of an actor with a behaviour, decided during the run, each ``[firings, lanes]``.

    ``busy`` and ``latency`` are cycles; ``consume`` and ``produce`` are tokens by channel. All
    are 0 where a lane did not fire.
    """

    busy: NDArray[np.int64]
    latency: NDArray[np.int64]
    consume: dict[str, NDArray[np.int64]]
    produce: dict[str, NDArray[np.int64]]


@dataclass(frozen=True)
class LoadBalance:
    """How evenly the work of an actor was spread over its lanes.

    Attributes
    ----------
    work_cycles
        Busy cycles of each lane.
    mean_field_cycles
        Total work over the number of lanes: the time an analytical tool that assumes perfect
        balance would give.
    cycles
        The time the run took.
    """

    work_cycles: tuple[int, ...]
    cycles: int

    @property
    def mean_field_cycles(self) -> float:
        return sum(self.work_cycles) / len(self.work_cycles)

    @property
    def busiest_over_mean(self) -> float:
        """The busiest lane's work over the mean; 1 is perfect balance."""
        mean = self.mean_field_cycles
        return max(self.work_cycles) / mean if mean else 1.0

    @property
    def efficiency(self) -> float:
        """Mean-field time over the time the run took: what imbalance and queues left of it."""
        return self.mean_field_cycles / self.cycles if self.cycles else 1.0


@dataclass(frozen=True, eq=False, kw_only=True)
class Timeline:
    """The starts and causes of every firing of a run, or the sums of each lane.

    Attributes
    ----------
    netlist
        What was run.
    cycles
        Until every firing has ended and its results are visible.
    fired
        Firings done, a vector ``[lanes]`` for each actor in the order of declaration.
    starts, causes
        For each actor ``[firings, lanes]``; -1 where a firing did not happen. None under
        ``record="summary"``.
    grants
        For each actor that holds a resource what is known of its requests, else None.
    sums
        Under ``record="summary"``, the times of each lane.
    decided
        The firings of each actor with a behaviour, by its name.
    trail
        Under ``record="summary"`` of the compiled engine, how to go through the run once more; see
        :mod:`sparqsim.simulator.engines.trail`.
    """

    netlist: Netlist
    cycles: int
    fired: tuple[NDArray[np.int64], ...]
    starts: tuple[NDArray[np.int64], ...] | None = None
    causes: tuple[NDArray[np.int32], ...] | None = None
    grants: tuple[Grants | None, ...] = ()
    sums: tuple[LaneTimes, ...] | None = None
    decided: Mapping[str, Decided] = field(default_factory=dict)
    trail: Trail | None = None

    def __repr__(self) -> str:
        return f"<Timeline of {self.netlist!r}: {self.cycles} cycles>"

    @property
    def seconds(self) -> float:
        """The run's time at the netlist's clock."""
        return self.cycles / self.netlist.clock_hz

    def starts_of(self, actor: str) -> NDArray[np.int64]:
        """Start cycles ``[firings, lanes]`` of an actor; -1 where a firing did not happen."""
        return self._recorded(self.starts)[self.netlist.index(actor)]

    def causes_of(self, actor: str) -> NDArray[np.int32]:
        """Causes ``[firings, lanes]`` of an actor's starts; see the codes of this module."""
        return self._recorded(self.causes)[self.netlist.index(actor)]

    def _recorded(self, kept: Any) -> Any:
        if kept is None:
            raise InputError(
                "this run kept only the sums of lanes; for single firings run it with record='full'"
            )
        return kept

    def busy(self, actor: str) -> NDArray[np.int64]:
        """Cycles ``[firings, lanes]`` for which each firing occupied its lane."""
        i = self.netlist.index(actor)
        part = self.netlist.actors[i]
        if actor in self.decided:
            return self.decided[actor].busy
        busy = np.broadcast_to(np.asarray(part.busy, np.int64), (part.count, part.lanes))
        grants = self.grants[i] if self.grants else None
        return busy if grants is None or grants.busy is None else grants.busy

    def latency(self, actor: str) -> NDArray[np.int64]:
        """Cycles ``[firings, lanes]`` from each firing's start until its results are visible."""
        i = self.netlist.index(actor)
        part = self.netlist.actors[i]
        if actor in self.decided:
            return self.decided[actor].latency
        grants = self.grants[i] if self.grants else None
        if grants is not None and grants.shown is not None:
            return grants.shown
        if part.latency is None:
            return np.maximum(self.busy(actor), 1)
        return np.broadcast_to(np.asarray(part.latency, np.int64), (part.count, part.lanes))

    def rates(self, channel: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Tokens each firing of the source makes, and each of the target takes, of a channel.

        Both are ``[1 or firings, 1 or lanes]``.
        """
        c = self.netlist.channel(channel)
        produce, consume = c.produce, c.consume
        if c.source in self.decided:
            produce = self.decided[c.source].produce[channel]
        if c.target in self.decided:
            consume = self.decided[c.target].consume[channel]
        return np.asarray(produce, np.int64), np.asarray(consume, np.int64)

    def summary(self) -> Timeline:
        """The same run with the sums of each lane alone."""
        if self.sums is not None:
            return self
        sums = tuple(self.lane_times(actor.name) for actor in self.netlist.actors)
        return Timeline(netlist=self.netlist, cycles=self.cycles, fired=self.fired, sums=sums)

    def lane_times(self, actor: str) -> LaneTimes:
        """Busy, starved, blocked, waiting and finished cycles of each lane.

        The whole of a gap before a firing goes to the last condition to hold; a wait for a
        resource is counted from the cycle in which all else held.
        """
        i = self.netlist.index(actor)
        if self.sums is not None:
            return self.sums[i]
        return _lane_times(self, i)

    def utilization(self, actor: str) -> float:
        """Busy cycles over cycles, mean of all lanes; 0 for an empty run."""
        lanes = self.netlist.actor(actor).lanes
        return (
            int(self.lane_times(actor).busy.sum()) / (self.cycles * lanes) if self.cycles else 0.0
        )

    def load_balance(self, actor: str) -> LoadBalance:
        """How evenly the work of an actor was spread over its lanes."""
        return LoadBalance(tuple(self.lane_times(actor).busy.tolist()), self.cycles)

    def utilization_over_time(
        self, actor: str, bins: int = 200
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Bin edges in cycles ``[bins + 1]`` and the busy fraction of all lanes in each bin."""
        starts, busy = self.starts_of(actor), self.busy(actor)
        check_count("bins", bins, least=1)
        done = starts >= 0
        edges = np.linspace(0, max(self.cycles, 1), bins + 1)
        busy_until = _covered(starts[done], busy[done], edges)
        lanes = self.netlist.actor(actor).lanes
        return edges, np.diff(busy_until) / (np.diff(edges) * lanes)

    def occupancy(
        self, channel: str, lane: int | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """How many tokens a channel's queues show over time.

        Returns
        -------
        times, tokens
            The cycles at which the number changes, from 0, and the number from each of them on:
            of the queue into one lane of the target, or summed over all of its queues.
        """
        c = self.netlist.channel(channel)
        source, target = self.netlist.actor(c.source), self.netlist.actor(c.target)
        shown = self.starts_of(c.source) + self.latency(c.source)
        produce, consume = self.rates(channel)
        made = np.broadcast_to(produce, shown.shape)
        shown = np.maximum.accumulate(np.where(made > 0, shown, 0), axis=0)
        popped = self.starts_of(c.target)
        taken = np.broadcast_to(consume, popped.shape)
        if lane is not None and not 0 <= lane < target.lanes:
            raise InputError(f"lanes of {target.name!r} are 0 to {target.lanes - 1}, got {lane}")
        at, change = [], []
        for j in range(target.lanes) if lane is None else [lane]:
            happened = popped[:, j] >= 0
            feeders = c.source_lanes(j, source.lanes)
            at.append(popped[happened, j])
            change.append(-taken[happened, j] * len(feeders))
            for i in feeders:
                fired = self.starts_of(c.source)[:, i] >= 0
                at.append(shown[fired, i])
                change.append(made[fired, i])
        times, place = np.unique(np.concatenate([[0], *at]), return_inverse=True)
        steps = np.bincount(place, weights=np.concatenate([[0], *change])).astype(np.int64)
        return times.astype(np.int64), np.cumsum(steps)

    def cause_name(self, code: int) -> str:
        """A cause in words, for example ``"free slots in queue"``."""
        if code < INPUT:
            return ("nothing", "previous firing", "resource")[code]
        channel = self.netlist.channels[(code - INPUT) // 2].name
        return f"tokens of {channel}" if (code - INPUT) % 2 == 0 else f"free slots in {channel}"


def lane_matrix(
    flat: NDArray[Any], offset: int, actor: Actor, fired: NDArray[np.int64]
) -> NDArray[Any]:
    """The part of a flat record that belongs to an actor, ``[firings, lanes]``, -1 if unfired."""
    shape = (actor.count, actor.lanes)
    matrix = flat[offset : offset + shape[0] * shape[1]].reshape(shape)
    if (fired < actor.count).any():
        matrix[np.arange(actor.count)[:, None] >= fired] = -1
    return matrix


def _covered(
    starts: NDArray[np.int64], lengths: NDArray[np.int64], edges: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Total length of all intervals ``[start, start + length)`` that lies before each edge."""

    def passed(points: NDArray[np.int64]) -> NDArray[np.float64]:
        ordered = np.sort(points)
        sums = np.concatenate([[0], np.cumsum(ordered)])
        count = np.searchsorted(ordered, edges)
        return count * edges - sums[count]

    return passed(starts) - passed(starts + lengths)


def _lane_times(timeline: Timeline, i: int) -> LaneTimes:
    actor = timeline.netlist.actors[i]
    assert timeline.starts is not None and timeline.causes is not None
    starts, causes = timeline.starts[i], timeline.causes[i]
    done = starts >= 0
    busy = np.where(done, timeline.busy(actor.name), 0)
    ends = np.where(done, starts + busy, 0)
    before = np.vstack([np.zeros((1, actor.lanes), np.int64), ends[:-1]]) if len(ends) else ends
    grants = timeline.grants[i] if timeline.grants else None
    ready, why = (starts, causes) if grants is None else (grants.ready, grants.causes)
    gap = np.where(done, ready - before, 0)
    is_input = (why >= INPUT) & ((why - INPUT) % 2 == 0)
    is_output = (why >= INPUT) & ((why - INPUT) % 2 == 1)
    sums = [
        busy,
        np.where(is_input, gap, 0),
        np.where(is_output, gap, 0),
        np.where(done, starts - ready, 0),
    ]
    return LaneTimes.of_sums(np.array([part.sum(axis=0) for part in sums]), timeline.cycles)
