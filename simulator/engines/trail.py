"""What a run of sums leaves behind, so that parts of it can be gone through once more.

A run is a row of *stretches* that were gone through firing by firing, and of periods that recurred.
A stretch is told by two firings of the actor that led the engine then, for everything else follows
from where the leader stands. Of a few moments the whole state is kept: from any of these *marks*
the engine can go on as it did.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sparqsim.simulator.engines.compiled import State
from sparqsim.simulator.engines.periods import Jump
from sparqsim.simulator.netlist import Netlist

Ints = NDArray[np.int64]

APART = 1 << 20  # firings of all lanes from one mark to the next, at first, had they as many each
MARKS_BYTES = 1 << 24  # that all marks together may take before every second is dropped
FEWEST_MARKS = 8


class Stretch(NamedTuple):
    """Firings of the leader of a turn, ``first`` to ``last - 1``."""

    turn: int
    first: int
    last: int


@dataclass(frozen=True, eq=False)
class Repeat:
    """Parts of a run that, as they lie before it, recurred."""

    parts: tuple[Part, ...]
    jump: Jump


Part = Stretch | Repeat


@dataclass(frozen=True, eq=False)
class Mark:
    """A moment of a run: before a firing of the leader of a turn.

    Attributes
    ----------
    state
        Copies of what changes, in the order of :meth:`State.changing`; None is the beginning.
    passed : int64 [actors]
        Firings of each lane that were jumped over until then.
    """

    turn: int
    firing: int
    state: tuple[NDArray[np.generic], ...] | None
    passed: Ints


@dataclass(eq=False)
class Trail:
    """How a run went.

    Attributes
    ----------
    windowed
        Whether loops were written out in windows, as :mod:`.repeating` does.
    leaders
        The actor that led in each turn.
    parts
        What was gone through, and what recurred, in order.
    marks
        The beginning and some moments after it.
    fired, over : int64 [lanes]
        Firings of each lane in the end, and when all of them were over.
    """

    netlist: Netlist
    windowed: bool
    leaders: list[int] = field(default_factory=list)
    parts: list[Part] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)
    fired: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    over: Ints = field(default_factory=lambda: np.zeros(0, np.int64))

    def __post_init__(self) -> None:
        self.passed = np.zeros(len(self.netlist.actors), np.int64)
        self.marks.append(Mark(0, 0, None, self.passed.copy()))
        self._apart = self._left = self.of_leader(APART)
        self._since = 0

    @property
    def turn(self) -> int:
        return len(self.leaders) - 1

    def of_leader(self, firings: int) -> int:
        """So many firings of all lanes as firings of the leader."""
        return max(1, firings // max(1, sum(actor.lanes for actor in self.netlist.actors)))

    def lead(self, leader: int, firing: int) -> None:
        """An actor leads from one of its firings on."""
        self.leaders.append(leader)
        self._since = firing

    def to_next_mark(self) -> int:
        """Firings of the leader until a mark is due."""
        return self._left

    def went(self, firings: int) -> bool:
        """So many firings of the leader were gone through; whether a mark is due."""
        self._left -= firings
        return self._left <= 0

    def mark(self, state: State, firing: int) -> None:
        """Keep the state before a firing of the leader."""
        copies = tuple(part.copy() for part in state.changing())
        self.marks.append(Mark(self.turn, firing, copies, self.passed.copy()))
        most = max(FEWEST_MARKS, MARKS_BYTES // sum(part.nbytes for part in copies))
        if len(self.marks) > most:
            del self.marks[1::2]
            self._apart *= 2
        self._left = self._apart

    def jumped(self, before: int, now: int, after: int, jump: Jump) -> None:
        """What the leader did from one firing until another recurred, until it stood before a
        third one."""
        self._end_stretch(now)
        at = self._begin_of(before)
        self.parts.append(Repeat(tuple(self.parts[at:]), jump))
        self.passed += jump.times * jump.fired[self._first_lanes()]
        self._since = after

    def rest(self, firing: int) -> None:
        """The turn is over before a firing of the leader."""
        self._end_stretch(firing)

    def _first_lanes(self) -> Ints:
        return np.cumsum([0, *(actor.lanes for actor in self.netlist.actors[:-1])])

    def _end_stretch(self, firing: int) -> None:
        if firing > self._since:
            self.parts.append(Stretch(self.turn, self._since, firing))
        self._since = firing

    def _begin_of(self, firing: int) -> int:
        """The place of the part that begins where the leader stood before a firing.

        A stretch may be cut there.
        """
        for at in reversed(range(len(self.parts))):
            part = self.parts[at]
            if isinstance(part, Stretch) and part.first <= firing:
                if part.first == firing:
                    return at
                if firing < part.last:
                    cut = part._replace(last=firing), part._replace(first=firing)
                    self.parts[at : at + 1] = cut
                return at + 1
        raise AssertionError("a period that begins before its turn")
