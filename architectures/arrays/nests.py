"""The loops of a walk in runs of like iterations, and the transfers into which pieces are cut."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparqsim.simulator.loops import Loops, changes

Ints = NDArray[np.int64]
Numbers = NDArray[Any]  # whole, or flags


@dataclass(frozen=True, eq=False)
class Nest:
    """Nested loops, the outermost first, each cut into runs.

    What is the same, or rises evenly, throughout every run is said by its values where the runs
    begin.

    Attributes
    ----------
    begins
        Of each loop, the iterations at which its runs begin.
    ends
        Of each loop, the iteration after its last.
    """

    begins: tuple[Ints, ...]
    ends: tuple[int, ...]

    @classmethod
    def cut(cls, spans: Sequence[tuple[int, int]], cuts: Sequence[Iterable[int]]) -> Nest:
        """Loops from one iteration to before another, cut where that is inside."""
        begins = tuple(
            np.array([first, *sorted({at for at in row if first < at < end})], np.int64)
            for (first, end), row in zip(spans, cuts, strict=True)
        )
        return cls(begins, tuple(end for _, end in spans))

    @property
    def shape(self) -> tuple[int, ...]:
        """Runs of each loop."""
        return tuple(map(len, self.begins))

    def at(self, axis: int) -> Ints:
        """Where the runs of a loop begin, to be broadcast against those of the others."""
        return self.begins[axis].reshape(-1, *(1,) * (len(self.begins) - 1 - axis))

    def written_out(self, axis: int) -> Nest:
        """Every iteration a run of its own, of a loop and of all inside it."""
        each = [
            np.arange(row[0], end) for row, end in zip(self.begins, self.ends, strict=True)
        ]  # fmt: skip
        return Nest((*self.begins[:axis], *each[axis:]), self.ends)

    def loops(self, values: Numbers, steps: Sequence[int] = ()) -> Loops:
        """The loops of values where the runs begin, which rise by a step an iteration.

        Loops of one iteration are left out.
        """
        found = np.broadcast_to(np.asarray(values, np.int64), self.shape)
        for axis, step in enumerate(steps):
            if step:
                found = found - step * (self.at(axis) - self.begins[axis][0])
        runs, rises, axis = [], [], 0
        for row, end, step in zip(
            self.begins, self.ends, steps or (0,) * len(self.ends), strict=True
        ):
            if end - row[0] == 1 and found.ndim > 1:
                found = found.take([0], axis).squeeze(axis)
                continue
            first = changes(found, axis)
            runs.append(tuple(np.diff(row[first], append=end).tolist()))
            rises.append(step)
            if len(first) < found.shape[axis]:
                found = found.take(first, axis)
            axis += 1
        return Loops(tuple(runs), found, tuple(rises))


Of = Callable[[Nest], Ints]


class Transfers:
    """What one DMA moves, a firing each: pieces cut into transfers of at most so many bits.

    Loops of pieces with as many transfers each stay loops, with one more inside; the others are
    written out.

    Parameters
    ----------
    nest
        The loops over the pieces.
    bits, rank
        Of a piece, where the runs of a nest begin.
    steps
        What the rank rises by for each iteration of each loop.

    Attributes
    ----------
    bits : Loops
        Of each transfer.
    opens, closes : Loops
        1 for the first and last transfer of a piece.
    rank : Loops
        The tile that waits for it.
    """

    def __init__(
        self, nest: Nest, bits: Of, rank: Of, steps: Sequence[int], most_bits: int
    ) -> None:
        def parts(nest: Nest) -> Ints:
            return np.broadcast_to(np.maximum(1, -(-bits(nest) // most_bits)), nest.shape)

        each = parts(nest)
        kept = next(
            (axis for axis in range(each.ndim) if (each != each.take([0], axis)).any()), each.ndim
        )
        self.nest, self.kept = nest.written_out(kept), kept
        row = parts(self.nest)[(0,) * kept].reshape(-1)
        self._piece = np.repeat(np.arange(row.size), row)
        place = np.arange(self._piece.size) - np.repeat(np.cumsum(row) - row, row)
        self._first, self._last = place == 0, place == row[self._piece] - 1
        size = self._lifted(bits(self.nest))
        size = np.where(self._last, size - place * most_bits, most_bits)
        self.bits = self._loops(size)
        self.opens, self.closes = self._loops(self._first), self._loops(self._last)
        self.rank = self._loops(self._lifted(rank(self.nest)), (*steps[:kept], 0))

    def at_first(self, values: Numbers) -> Loops:
        """Values of pieces at their first transfers, 0 at the others."""
        return self._loops(self._lifted(values) * self._first)

    def at_last(self, values: Numbers) -> Loops:
        """Values of pieces at their last transfers, 0 at the others."""
        return self._loops(self._lifted(values) * self._last)

    def _lifted(self, values: Numbers) -> Numbers:
        """Of each transfer what its piece has: ``[runs of the loops kept, ..., transfers]``."""
        outer = self.nest.shape[: self.kept]
        whole = np.broadcast_to(values, self.nest.shape)
        return whole.reshape(*outer, prod(self.nest.shape[self.kept :]))[..., self._piece]

    def _loops(self, values: Numbers, steps: Sequence[int] = ()) -> Loops:
        begins = (*self.nest.begins[: self.kept], np.arange(self._piece.size))
        ends = (*self.nest.ends[: self.kept], self._piece.size)
        return Nest(begins, ends).loops(values, steps)
