"""The loops of a walk in runs of like iterations, and the transfers into which pieces are cut."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparqsim.simulator.loops import Loops, Uneven, changes

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
        self.nest, size = nest, bits(nest)
        self._each = np.maximum(1, -(-size // most_bits))
        self.bits = self._loops(most_bits, size - (self._each - 1) * most_bits, size)
        self.opens, self.closes = self._loops(0, 0, 1, first=1), self._loops(0, 1, 1)
        ranks = rank(nest)
        self.rank = self._loops(ranks, ranks, ranks, steps=steps)

    def at_first(self, values: Numbers) -> Loops:
        """Values of pieces at their first transfers, 0 at the others."""
        return self._loops(0, 0, values, first=values)

    def at_last(self, values: Numbers) -> Loops:
        """Values of pieces at their last transfers, 0 at the others."""
        return self._loops(0, values, values)

    def _loops(
        self, others: Any, last: Any, only: Any, first: Any = None, steps: Sequence[int] = ()
    ) -> Loops:
        """Of each piece a number for its first, last and other transfers, or for its only one."""
        first = others if first is None else first
        nest, steps = self.nest, steps or (0,) * len(self.nest.ends)
        places = [np.broadcast_to(v, nest.shape) for v in (self._each, first, others, last, only)]
        values = np.stack(places).astype(np.int64)
        for axis, step in enumerate(steps):
            if step:
                values[1:] -= step * (nest.at(axis) - nest.begins[axis][0])
        return _in_pieces(nest, tuple(steps), values)


def _in_pieces(nest: Nest, steps: tuple[int, ...], values: Ints) -> Loops:
    """Loops over the transfers of pieces ``[what, *runs]``.

    What: how many there are, and the numbers of the first, of others, of the last and of an only
    one. Loops whose pieces have as many each are loops with one more inside; others are uneven.
    """
    begins = list(nest.begins)
    for axis in range(len(begins)):
        first = changes(values, axis + 1)
        begins[axis], values = begins[axis][first], values.take(first, axis + 1)
    runs = [
        tuple(np.diff(row, append=end).tolist())
        for row, end in zip(begins, nest.ends, strict=True)
    ]  # fmt: skip
    if values[0].min() < values[0].max():
        inside = Nest(tuple(begins[1:]), nest.ends[1:])
        parts = [
            (times, _in_pieces(inside, steps[1:], values[:, run]))
            for run, times in enumerate(runs[0])
        ]
        return parts[0][1] if sum(runs[0]) == 1 else Uneven(parts, steps[0])
    number = int(values[0].flat[0])
    places = [0, *range(number)[1:2], *range(number)[2:][-1:]]  # the first, the second, the last
    row = [values[4]] if number == 1 else [values[1], *[values[2]] * (number > 2), values[3]]
    found = np.stack(row, axis=-1)
    kept = changes(found, found.ndim - 1)
    found, rises = found.take(kept, -1), [*steps, 0]
    runs.append(tuple(np.diff(np.array(places)[kept], append=number).tolist()))
    for axis in reversed(range(len(runs))):
        if sum(runs[axis]) == 1 and found.ndim > 1:
            found = found.take(0, axis)
            del runs[axis], rises[axis]
    return Loops(tuple(runs), found, tuple(rises))
