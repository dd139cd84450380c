"""Goes through pieces of a run of sums once more, and records their firings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sparqsim.simulator.engines.compiled import OVER, State
from sparqsim.simulator.engines.layout import flatten
from sparqsim.simulator.engines.periods import Jump
from sparqsim.simulator.engines.repeating import WINDOW, Run, stand
from sparqsim.simulator.engines.trail import Mark, Repeat, Stretch, Trail

Ints = NDArray[np.int64]

PIECE = 1 << 17  # firings of all lanes that are looked at together, had they as many each
KEPT = 2  # marks of which what follows is kept


class Bounds(NamedTuple):
    """Where a run stands at a moment, or by how much it stands farther at another.

    Attributes
    ----------
    fired, over : int64 [lanes]
        Firings until then, and when all of them are over.
    counts : int64 [counts]
        Tokens moved by each end of a channel.
    free : int64 [servers]
        When each server is free again.
    """

    fired: Ints
    over: Ints
    counts: Ints
    free: Ints

    @classmethod
    def after(cls, jump: Jump, servers: int) -> Bounds:
        """By how much a run stands farther after a period."""
        free = np.zeros(servers, np.int64)
        for span in jump.holds:
            free[span] = jump.shift
        return cls(jump.fired, jump.shift * jump.active, jump.counts, free)

    def plus(self, other: Bounds, times: int = 1) -> Bounds:
        """Both together, the other so many times."""
        return Bounds(*(a + times * b for a, b in zip(self, other, strict=True)))


class Records(NamedTuple):
    """What was recorded of an actor, each ``[rows, lanes]``.

    The last three are what a resource with a state answered, else None.
    """

    starts: Ints
    causes: NDArray[np.int32]
    held: Ints | None
    busy: Ints | None
    shown: Ints | None


@dataclass(frozen=True, eq=False)
class Recorded:
    """A piece gone through: where it began and ended, and its records among those of others.

    Attributes
    ----------
    records
        Of each actor.
    row : int64 [actors]
        The firing that lies in their first row.
    """

    begin: Bounds
    end: Bounds
    records: list[Records]
    row: Ints


class Piece(NamedTuple):
    """Firings of the leader of a turn, ``first`` to ``last - 1``, that follow a mark."""

    turn: int
    first: int
    last: int
    mark: int


class Recorder:
    """The pieces of a run by number, recorded when they are asked for."""

    def __init__(self, trail: Trail) -> None:
        self.trail, self.netlist = trail, trail.netlist
        self.layout = flatten(self.netlist, WINDOW if trail.windowed else None)
        rows = self.layout.actors
        self.lanes = rows["lanes"].tolist()
        self.spans = [slice(a["first_lane"], a["first_lane"] + a["lanes"]) for a in rows]
        self.counter = self.layout.counters()
        self.state = State.at_first(self.layout, full=False)
        self.beginning = tuple(part.copy() for part in self.state.changing())
        self.run = Run(self.netlist, self.state) if trail.windowed else None
        self.pieces: list[Piece] = []
        self.steps: list[list[int | Jump]] = [[] for _ in trail.marks]  # that follow each mark
        self._lay_out()
        self.at = {(piece.turn, piece.first): n for n, piece in enumerate(self.pieces)}
        self.kept: dict[int, dict[int, Recorded]] = {}

    def _lay_out(self) -> None:
        """Cut what was gone through at marks, and into pieces that are not too long."""
        most = self.trail.of_leader(PIECE)
        marks, m = [(mark.turn, mark.firing) for mark in self.trail.marks], 0
        for part in self.trail.parts:
            if isinstance(part, Repeat):
                self.steps[m].append(part.jump)
                continue
            here = part.first
            while here < part.last:
                there = min(part.last, here + most)
                if m + 1 < len(marks) and marks[m + 1] < (part.turn, there):
                    there = marks[m + 1][1]
                self.steps[m].append(len(self.pieces))
                self.pieces.append(Piece(part.turn, here, there, m))
                here = there
                m += marks[m + 1 : m + 2] == [(part.turn, here)]

    def pieces_of(self, stretch: Stretch) -> range:
        """The pieces of a stretch."""
        begin = end = self.at[stretch.turn, stretch.first]
        while self.pieces[end].last < stretch.last:
            end += 1
        return range(begin, end + 1)

    def __getitem__(self, piece: int) -> Recorded:
        mark = self.pieces[piece].mark
        if mark not in self.kept:
            if len(self.kept) == KEPT:
                del self.kept[next(iter(self.kept))]
            self.kept[mark] = self._record(mark)
        return self.kept[mark][piece]

    def _record(self, number: int) -> dict[int, Recorded]:
        """The pieces that follow a mark."""
        marks = self.trail.marks
        self._rewind(marks[number])
        fired = self._bounds().fired
        row = np.array([fired[span].min() for span in self.spans])
        ended, passed = self.trail.fired, self.trail.passed
        if number + 1 < len(marks):
            follows = marks[number + 1]
            assert follows.state is not None
            lanes: Any = follows.state[0]
            ended, passed = lanes["fired"], follows.passed
        ended = ended[self.counter]
        most = np.array([ended[span].max() for span in self.spans])
        sizes = (most - row - passed + marks[number].passed) * self.lanes
        begins = np.cumsum([0, *sizes]).tolist()
        records = self._make_records(begins)
        found = {}
        for step in self.steps[number]:
            if isinstance(step, Jump):
                assert self.run is not None
                step.add(self.state, self.run.parts.rings)
                self.run.look_anew()
                row = row + step.times * step.fired[[span.start for span in self.spans]]
                continue
            self._place_records(begins[:-1] - row * self.lanes)
            begin = self._bounds()
            self._go(self.pieces[step])
            found[step] = Recorded(begin, self._bounds(), records, row)
        return found

    def _rewind(self, mark: Mark) -> None:
        copies = self.beginning if mark.state is None else mark.state
        for part, copy in zip(self.state.changing(), copies, strict=True):
            part[...] = copy
        if self.run is not None:
            self.run.look_anew()

    def _bounds(self) -> Bounds:
        state = self.state
        fired = state.lanes["fired"][self.counter]
        return Bounds(fired, state.times[OVER].copy(), state.counts.copy(), state.free.copy())

    def _go(self, piece: Piece) -> None:
        leader = self.trail.leaders[piece.turn]
        if self.run is not None:
            self.run.reach(leader, piece.last)
        else:
            stand(self.state, leader, piece.last)

    def _make_records(self, begins: list[int]) -> list[Records]:
        """Records of every actor, from these places on."""
        size, state = begins[-1], self.state
        models = self.layout.resources["model"]
        state.keep(size, size if models.size else 0, size if models.any() else 0)
        flat = (state.starts, state.causes, *state.answers)
        found = []
        for i, row in enumerate(self.layout.actors):
            place = slice(begins[i], begins[i + 1])
            is_answered = row["resource"] >= 0 and models[row["resource"]]
            kept = [part[place].reshape(-1, self.lanes[i]) for part in flat if part.size]
            kept += [None] * (len(Records._fields) - len(kept))
            found.append(Records(*(kept if is_answered else (*kept[:2], None, None, None))))
        return found

    def _place_records(self, places: Ints) -> None:
        """Where firing 0 of each actor would lie."""
        for column in ("record", "grants", "answers"):
            self.layout.actors[column] = places
