"""The critical path of a run that kept sums alone: parts of it are gone through once more, from the
last to the first, and every firing of them is recorded.

The walk back (:mod:`sparqsim.simulator.walk`) needs the firings of a *window* of the run at a time:
the piece in which it stands, and those before it for as long as the firing it looks for may lie
there. In the copies of a period it comes to a place where it stood some copies later, with the same
firings before it: from there on it does the same again and again, and what that adds is multiplied.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sparqsim.simulator.critical_path import PathSums
from sparqsim.simulator.engines.periods import Jump
from sparqsim.simulator.engines.recorder import Bounds, Recorded, Recorder, Records
from sparqsim.simulator.engines.trail import Repeat, Stretch, Trail
from sparqsim.simulator.loops import Loops
from sparqsim.simulator.walk import ALLOWED, BEGINNING, UNKNOWN, Place, Span, Walk

Ints = NDArray[np.int64]

PLAIN_STEPS = 4_000  # that are walked in plain Python: to load the kernel takes longer


def path_sums(trail: Trail) -> PathSums:
    """The cycles of the critical path of a run by place."""
    return _Path(trail).sums()


@dataclass(eq=False)
class _Level:
    """Where a cursor stands in parts of a run: behind ``at`` of them.

    ``jump`` is what repeats them, and ``copy`` which one it is, from 1 on. ``seen`` are places of
    the walk at the ends of copies, each with the copy and the cycles found until then.
    """

    parts: Sequence[Any]
    at: int
    jump: Jump | None = None
    copy: int = 0
    seen: dict[Place, tuple[int, Ints]] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class _Spot:
    """A piece where it lies in the run: so much farther, in these copies of periods."""

    recorded: Recorded
    farther: Bounds | None
    copies: dict[_Level, int]
    begin: Bounds
    end: Bounds

    def fill(self, i: int, lanes: slice, into: Records, first: int) -> None:
        """Copy the records of an actor into those of the firings from ``first`` on."""
        begin, end = self.begin.fired[lanes], self.end.fired[lanes]
        low, high = int(begin.min()), int(end.max())
        skipped, later = 0, None
        if self.farther is not None:
            skipped, later = int(self.farther.fired[lanes.start]), self.farther.over[lanes]
        row = low - skipped - int(self.recorded.row[i])
        where: Any = slice(None)
        if begin.max() > low or end.min() < high:
            firing = np.arange(low, high)[:, None]
            where = (begin <= firing) & (firing < end)
        for name, part, whole in zip(Records._fields, self.recorded.records[i], into, strict=True):
            if part is not None and whole is not None:
                rows = part[row : row + high - low]
                if name == "starts" and later is not None:
                    rows = rows + later
                whole[low - first : high - first][where] = rows[where]


class _Cursor:
    """Goes back through a run piece by piece, the copies of periods included."""

    def __init__(self, trail: Trail) -> None:
        self.recorder = Recorder(trail)
        self.levels = [_Level(trail.parts, len(trail.parts))]

    def back(self) -> _Spot | None:
        """The piece before, None at the beginning."""
        while self.levels:
            level = self.levels[-1]
            if not level.at:
                if level.copy > 1:
                    self.go_to(level, level.copy - 1)
                else:
                    self.levels.pop()
                continue
            level.at -= 1
            part = level.parts[level.at]
            if isinstance(part, Stretch):
                pieces = self.recorder.pieces_of(part)
                self.levels.append(_Level(pieces, len(pieces)))
            elif isinstance(part, Repeat):
                times = part.jump.times
                self.levels.append(_Level(part.parts, len(part.parts), part.jump, times))
            else:
                return self._spot(self.recorder[part])
        return None

    def go_to(self, level: _Level, copy: int) -> None:
        """Stand at the end of a copy."""
        del self.levels[self.levels.index(level) + 1 :]
        level.copy, level.at = copy, len(level.parts)

    def _spot(self, recorded: Recorded) -> _Spot:
        begin, end, farther, copies = recorded.begin, recorded.end, None, {}
        for level in self.levels:
            if level.jump is not None:
                copies[level] = level.copy
                once = Bounds.after(level.jump, len(begin.free))
                nothing = Bounds(*map(np.zeros_like, once)) if farther is None else farther
                farther = nothing.plus(once, level.copy)
        if farther is not None:
            begin, end = begin.plus(farther), end.plus(farther)
        return _Spot(recorded, farther, copies, begin, end)


class _Path:
    """The walk back through a run."""

    def __init__(self, trail: Trail) -> None:
        self.trail, self.netlist = trail, trail.netlist
        self.found = PathSums.none(trail.netlist)
        self.cursor = _Cursor(trail)
        self.window: deque[_Spot] = deque()
        self.copies: dict[_Level, int] = {}  # in which the walk stands
        self.steps = 0
        layout = self.cursor.recorder.layout
        self.spans = self.cursor.recorder.spans
        self.counts = layout.ends_of(self.netlist)
        self.servers = [slice(r["free_at"], r["free_at"] + r["servers"]) for r in layout.resources]

    def sums(self) -> PathSums:
        """The cycles of each place."""
        place = self._end()
        while place is not None:
            steps, place, why = Walk(self._span()).go(place, plainly=self.steps < PLAIN_STEPS)
            self.steps += PLAIN_STEPS if why == ALLOWED else len(steps)
            self.found.add(steps)
            if why == BEGINNING:
                break
            if why == UNKNOWN and not self._extend():
                raise AssertionError("a firing whose cause is nowhere")
            place = self._catch_up(place)
        return self.found

    def _end(self) -> Place | None:
        """The firing that ends last; None of an empty run."""
        over = self.trail.over
        cycles = int(over.max(initial=0))
        if not cycles:
            return None
        i = next(i for i, lanes in enumerate(self.spans) if (over[lanes] == cycles).any())
        lanes = self.spans[i]
        while self._extend() and (self.window[0].begin.over[lanes] >= cycles).any():
            pass
        span = self._span()
        busy = self._times(i, span.firsts[i], span.starts[i].shape).busy
        assert busy is not None
        ends = span.starts[i] + np.maximum(span.shown[i], busy)
        firing, lane = np.argwhere((ends == cycles) & (span.starts[i] >= 0))[0].tolist()
        return Place(i, lane, span.firsts[i] + firing, cycles)

    def _extend(self) -> bool:
        """Add the piece before to the window; whether there is one."""
        spot = self.cursor.back()
        if spot is not None:
            self.window.appendleft(spot)
        return spot is not None

    def _catch_up(self, place: Place) -> Place:
        """Drop the pieces behind a place, and what the walk does again and again from there."""
        lane = self.spans[place.actor].start + place.lane
        while True:
            while self.window and self.window[-1].begin.fired[lane] > place.firing:
                self.window.pop()
            if not self.window:
                if not self._extend():
                    raise AssertionError("a firing before the beginning")
                continue
            copies, self.copies = self.copies, self.window[-1].copies
            crossed = [level for level, copy in self.copies.items() if copies.get(level) != copy]
            farther = next(
                filter(None, (self._skip(level, place, lane) for level in crossed)), None
            )
            if farther is None:
                return place
            place = farther

    def _skip(self, level: _Level, place: Place, lane: int) -> Place | None:
        """Where the walk is after all it will do as it did since it was at such a place.

        None if it never was.
        """
        jump, copy = level.jump, self.copies[level]
        assert jump is not None
        fired = int(jump.fired[lane])
        relative = _back(place, copy + 1, fired, jump.shift)
        if relative not in level.seen:
            level.seen[relative] = copy, self.found.cycles.copy()
            return None
        before, cycles = level.seen[relative]
        apart = before - copy
        # All that was looked at since then lies in copies, as what will be must.
        times = (level.copy - 1) // apart if level in self.cursor.levels else 0
        if not times:
            return None
        self.found.cycles[...] += times * (self.found.cycles - cycles)
        self.window.clear()
        level.seen.clear()
        self.cursor.go_to(level, copy - times * apart)
        return _back(place, times * apart, fired, jump.shift)

    def _span(self) -> Span:
        """The firings in the window."""
        begin, end = self.window[0].begin, self.window[-1].end
        netlist = self.netlist
        firsts = []
        kept: list[Any] = []
        for i, lanes in enumerate(self.spans):
            first = int(begin.fired[lanes].min())
            shape = int(end.fired[lanes].max()) - first, lanes.stop - lanes.start
            records = self._times(i, first, shape)
            for spot in self.window:
                spot.fill(i, lanes, records, first)
            firsts.append(first)
            kept.append(records)
        rows = [slice(at, at + len(part.starts)) for at, part in zip(firsts, kept, strict=True)]
        rates = []
        for channel in netlist.channels:
            made = _given(channel.produce, rows[netlist.index(channel.source)])
            rates.append((made, _given(channel.consume, rows[netlist.index(channel.target)])))
        return Span(
            netlist,
            firsts,
            starts=[part.starts for part in kept],
            causes=[part.causes for part in kept],
            shown=[part.shown for part in kept],
            holds=[part.held for part in kept],
            rates=rates,
            begun=begin.fired,
            over=begin.over,
            moved=[(begin.counts[made], begin.counts[taken]) for made, taken in self.counts],
            free=[int(begin.free[servers].max()) for servers in self.servers],
        )

    def _times(self, i: int, first: int, shape: tuple[int, int]) -> Records:
        """Records of firings from one on, without starts and answers, with the times given."""
        actor = self.netlist.actors[i]
        rows = slice(first, first + shape[0])
        busy = np.broadcast_to(_given(actor.busy, rows), shape)
        shown = np.maximum(busy, 1)
        if actor.latency is not None:
            shown = np.broadcast_to(_given(actor.latency, rows), shape)
        starts, causes = np.full(shape, -1, np.int64), np.zeros(shape, np.int32)
        if self.window[0].recorded.records[i].held is not None:
            answers = (np.zeros(shape, np.int64) for _ in range(3))
            return Records(starts, causes, *answers)
        return Records(starts, causes, busy, busy, shown)


def _back(place: Place, times: int, firings: int, cycles: int) -> Place:
    """A place so many periods before."""
    return place._replace(firing=place.firing - times * firings, end=place.end - times * cycles)


def _given(given: ArrayLike | Loops, rows: slice) -> Ints:
    """What is given over firings, of some of them: ``[1 or firings, 1 or lanes]``."""
    if isinstance(given, Loops):
        if given.constant is not None:
            return np.full((1, 1), given.constant)
        return given.window(rows.start, rows.stop)[:, None]
    array = np.asarray(given, np.int64)
    return array if len(array) == 1 else array[rows]
