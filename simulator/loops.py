"""Numbers over the firings of nested loops, said by the loops and not one by one.

A tile loop repeats: what a firing takes, makes and costs depends on where it stands in each loop,
and there on little more than whether it is the first, a middle or the last iteration. So each loop
is a row of *runs* of iterations that are alike, and there is one number for every combination of
runs, however many iterations they hold. Anything that is an outer product over the loops is of this
kind, and so is a single loop of runs, that is, a run-length code.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from math import gcd, prod
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sparqsim.base import InputError

STRETCH = 1 << 16  # firings written out at once
FEW = 16  # runs that are written one by one
RARELY = 8  # firings after which what comes at a pace has taken whole cycles, or later


Ints = NDArray[np.int64]


def changes(values: NDArray[np.integer], axis: int) -> NDArray[np.int64]:
    """Where along an axis something differs from the place before, the first place among them."""
    if values.shape[axis] == 1:
        return np.zeros(1, np.int64)
    rows = values.swapaxes(0, axis)
    differs = rows[1:] != rows[:-1]
    if differs.ndim > 1:
        differs = differs.any(axis=tuple(range(1, differs.ndim)))
    return np.concatenate([[0], 1 + np.flatnonzero(differs)])


@dataclass(frozen=True, eq=False)
class Loops:
    """A number for each firing of nested loops.

    Parameters
    ----------
    runs
        For each loop, the outermost first, the lengths of its runs of like iterations.
    values
        ``[runs of the first loop, ..., runs of the last]``: the number of a firing by its runs.
    steps
        What is added for each iteration of each loop, by default 0 (a tile's number, as a rank).

    Examples
    --------
    >>> rows, columns = [4, 4, 2], [8, 8, 8, 1]
    >>> Loops.outer(rows, columns).window(0, 12).tolist()
    [32, 32, 32, 4, 32, 32, 32, 4, 16, 16, 16, 2]
    >>> Loops.outer(rows, columns).runs
    ((2, 1), (3, 1))
    """

    runs: tuple[tuple[int, ...], ...]
    values: NDArray[np.int64]
    steps: tuple[int, ...] = ()
    sizes: tuple[int, ...] = field(init=False)
    firings: int = field(init=False)

    def __post_init__(self) -> None:
        values = np.asarray(self.values)
        if values.dtype.kind not in "iu":
            raise InputError(f"loops must hold whole numbers, got {values.dtype}")
        if not self.runs or values.shape != tuple(map(len, self.runs)):
            raise InputError(
                f"loops of {tuple(map(len, self.runs))} runs need a value for each of their "
                f"combinations, got {values.shape}"
            )
        if any(run < 1 for row in self.runs for run in row) or not values.size:
            raise InputError(f"a run of a loop must hold at least 1 iteration, got {self.runs}")
        steps = tuple(self.steps) or (0,) * len(self.runs)
        if len(steps) != len(self.runs):
            raise InputError(f"{len(self.runs)} loops need as many steps, got {len(steps)}")
        object.__setattr__(self, "values", values.astype(np.int64))
        object.__setattr__(self, "steps", steps)
        object.__setattr__(self, "sizes", tuple(sum(row) for row in self.runs))
        object.__setattr__(self, "firings", prod(self.sizes))

    @classmethod
    def outer(cls, *factors: ArrayLike) -> Loops:
        """The product of a factor a loop, each an array over its iterations, outermost first."""
        runs, values = [], np.ones((), np.int64)
        for factor in factors:
            array = np.atleast_1d(np.asarray(factor))
            first = changes(array, 0)
            runs.append(tuple(np.diff(first, append=array.size).tolist()))
            values = values[..., None] * array[first]
        return cls(tuple(runs), values)

    def map(self, function: Callable[..., Any], *others: Loops) -> Loops:
        """``function`` of the numbers of these loops and of others over the same runs."""
        if any(other.runs != self.runs for other in others) or any(self.steps):
            raise InputError("loops can be joined firing by firing only over the same runs")
        return Loops(self.runs, function(self.values, *(other.values for other in others)))

    def __len__(self) -> int:
        return self.firings

    @cached_property
    def constant(self) -> int | None:
        """The one number that all firings have, or None."""
        low, high = self.least_and_most()
        return low if low == high else None

    def window(self, first: int, last: int) -> NDArray[np.int64]:
        """The numbers of the firings ``first`` to ``last - 1``."""
        if (last - first) // self.sizes[-1] * len(self.runs[-1]) <= FEW:
            found = np.empty(last - first, np.int64)
            if found.size:
                self._fill(found, first, last, self.firings, (), 0)
            return found
        k = np.arange(first, last)
        places: list[Any] = []
        stepped = np.zeros(k.size, np.int64)
        for ends, size, step in zip(
            self._ends[::-1], self.sizes[::-1], self.steps[::-1], strict=True
        ):
            k, index = np.divmod(k, size)
            places.append(np.searchsorted(ends, index, side="right") if len(ends) > 1 else 0)
            if step:
                stepped += step * index
        return self.values[tuple(places[::-1])] + stepped

    def _fill(
        self, found: Ints, first: int, last: int, inner: int, place: tuple[int, ...], more: int
    ) -> None:
        """Write firings of the loops inside a place, of ``inner`` firings, run by run."""
        axis = len(place)
        bounds, step, inner = self._bounds[axis], self.steps[axis], inner // self.sizes[axis]
        index = first // inner
        run, at = bisect_right(bounds, index), first
        if inner > 1:
            while at < last:
                run += index == bounds[run]
                begin = index * inner
                end = min(last, begin + inner)
                part = found[at - first : end - first]
                self._fill(part, at - begin, end - begin, inner, (*place, run), more + step * index)
                at, index = end, index + 1
            return
        while at < last:
            end = min(last, bounds[run])
            found[at - first : end - first] = self.values[(*place, run)] + more
            at, run = end, run + 1
        if step:
            found += np.arange(first * step, last * step, step)

    @cached_property
    def _ends(self) -> list[NDArray[np.int64]]:
        """Of each loop, where its runs end."""
        return [np.cumsum(row) for row in self.runs]

    @cached_property
    def _bounds(self) -> list[list[int]]:
        """The same, to be searched for one iteration."""
        return [ends.tolist() for ends in self._ends]

    def __getitem__(self, firing: int) -> int:
        return int(self.window(firing, firing + 1)[0])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return self.window(0, len(self))[:, None].astype(dtype or np.int64)

    def steady(self, first: int, last: int) -> tuple[int, int]:
        """Until which firing the numbers of ``first`` to ``last - 1`` repeat, and what that adds.

        That is: ``self[k + last - first] == self[k] + added`` from ``first`` on, as long as the
        left side is a firing below the end. Where they do not repeat, the end is ``last``.
        """
        inner = len(self) // self.sizes[0]
        run = bisect_right(self._bounds[0], first // inner)
        begin = (self._bounds[0][run] - self.runs[0][run]) * inner
        found = self._as_one._steady(first, last)
        if len(self._ends[0]) > 1 and last <= begin + len(part := self._part(run)):
            end, added = part._steady(first - begin, last - begin)
            found = max(found, (begin + end, added))
        return found

    def _steady(self, first: int, last: int) -> tuple[int, int]:
        period, inner = last - first, len(self)
        for axis, (size, step) in enumerate(zip(self.sizes, self.steps, strict=True)):
            outer, inner = inner, inner // size
            apart, index = period // inner, first % outer // inner
            if period % inner or index + apart >= size:
                continue
            most, more = self._alike(axis, index, apart)
            end = first // outer * outer + most * inner
            if last <= end:
                return end, step * apart + more
        return last, 0

    def _alike(self, axis: int, index: int, apart: int) -> tuple[int, int]:
        """Until which iteration those of a loop are as some before, and by how much more."""
        size, bounds = self.sizes[axis], self._bounds[axis]
        end = bounds[bisect_right(bounds, index)]
        if index + apart < end or size > STRETCH:
            return end, 0  # the next run differs
        each = self._iterations[axis]
        more = each[index + apart :] - each[index : size - apart]
        differs = np.flatnonzero((more != more[0, 0]).any(axis=1))
        return index + apart + int(differs[0]) if differs.size else size, int(more[0, 0])

    @cached_property
    def _as_one(self) -> Loops:
        """The same in as few loops and runs as can be."""
        runs, values, steps = list(self.runs), self.values, list(self.steps)
        for axis in reversed(range(len(runs))):
            first = changes(values, axis)
            if len(first) < len(runs[axis]):
                runs[axis] = tuple(np.add.reduceat(runs[axis], first).tolist())
                values = values.take(first, axis)
        for axis in reversed(range(1, len(runs))):
            size = sum(runs[axis])
            if len(runs[axis]) == 1 and steps[axis - 1] == size * steps[axis]:
                runs[axis - 1] = tuple(run * size for run in runs[axis - 1])
                steps[axis - 1] = steps[axis]
                values = values.squeeze(axis)
                del runs[axis], steps[axis]
        return Loops(tuple(runs), values, tuple(steps))

    def _part(self, run: int) -> Loops:
        """What lies in a run of the outermost loop, in as few loops and runs as can be."""
        if run not in self._parts:
            runs = ((self.runs[0][run],), *self.runs[1:])
            part = Loops(runs, self.values[run : run + 1], self.steps)
            self._parts[run] = part._as_one
        return self._parts[run]

    @cached_property
    def _parts(self) -> dict[int, Loops]:
        return {}

    @cached_property
    def _iterations(self) -> list[NDArray[np.int64]]:
        """Of each loop what its iterations hold, ``[iterations, runs of the other loops]``."""
        found = []
        for axis, row in enumerate(self.runs):
            each = np.moveaxis(self.values, axis, 0).reshape(len(row), -1)
            found.append(each.repeat(row, axis=0) if self.sizes[axis] <= STRETCH else each)
        return found

    @property
    def grain(self) -> int:
        """What all numbers are multiples of."""
        return int(np.gcd.reduce(self.values, axis=None))

    @property
    def rises(self) -> bool:
        """Whether anything is added from iteration to iteration."""
        return any(self.steps)

    @cached_property
    def _inside(self) -> list[NDArray[np.int64]]:
        """For each loop what comes in one of its iterations, ``[runs down to it]``."""
        found = [self.values]
        for row in self.runs[:0:-1]:
            found.append((found[-1] * np.array(row)).sum(axis=-1))
        return found[::-1]

    @cached_property
    def _came(self) -> list[NDArray[np.int64]]:
        """For each loop what comes before each of its runs, ``[runs down to it]``."""
        whole = [
            inside * np.array(row) for inside, row in zip(self._inside, self.runs, strict=True)
        ]
        return [np.cumsum(each, axis=-1) - each for each in whole]

    def before(self, firing: int) -> int:
        """The sum over all firings before one, of loops that do not rise."""
        found, inner = 0, len(self)
        if firing == inner:
            return int((self._inside[0] * self.runs[0]).sum())
        place: tuple[int, ...] = ()
        for bounds, size, inside, came in zip(
            self._bounds, self.sizes, self._inside, self._came, strict=True
        ):
            inner //= size
            index, firing = divmod(firing, inner)
            run = bisect_right(bounds, index)
            place = (*place, run)
            begin = bounds[run - 1] if run else 0
            found += int(came[place]) + (index - begin) * int(inside[place])
        return found

    # As the arrays ``[firings, 1]`` that it stands for.

    @property
    def shape(self) -> tuple[int, int]:
        """Firings and 1, since all lanes are alike."""
        return len(self), 1

    def least_and_most(self) -> tuple[int, int]:
        """The least and the greatest number there is."""
        if not any(self.steps):
            return int(self.values.min()), int(self.values.max())
        low = high = self.values
        for axis, (step, row) in enumerate(zip(self.steps, self.runs, strict=True)):
            shape = [-1 if a == axis else 1 for a in range(len(self.runs))]
            last = step * (np.cumsum(row) - 1)
            first = last - step * (np.array(row) - 1)
            low = low + np.minimum(first, last).reshape(shape)
            high = high + np.maximum(first, last).reshape(shape)
        return int(low.min()), int(high.max())

    def total(self) -> int:
        """The sum over all firings; Python integers, which do not overflow."""
        counts: Any = np.ones((), object)
        for row in self.runs:
            counts = counts[..., None] * np.array(row, object)
        stepped = sum(
            step * (size * (size - 1) // 2) * (len(self) // size)
            for step, size in zip(self.steps, self.sizes, strict=True)
        )
        return int((counts * self.values.astype(object)).sum()) + stepped


class Uneven(Loops):
    """A number for each firing of a loop whose iterations differ in firings.

    Parameters
    ----------
    parts
        Runs of like iterations: how many, and the loops inside each of them.
    step
        What is added for each iteration.

    Examples
    --------
    >>> inside = [Loops(((3, 1),), [8, 5]), Loops(((1,),), [5])]
    >>> Uneven([(2, inside[0]), (1, inside[1])]).window(0, 9).tolist()
    [8, 8, 8, 5, 8, 8, 8, 5, 5]
    """

    def __init__(self, parts: Sequence[tuple[int, Loops]], step: int = 0) -> None:
        firings = [times * len(inside) for times, inside in parts]
        ends = list(accumulate(firings))
        sizes = (parts[0][0], *parts[0][1].sizes) if len(parts) == 1 else (ends[-1],)
        vars(self).update(
            parts=tuple(parts), step=step, ends=ends, firings=ends[-1], sizes=sizes,
            iterations=[0, *accumulate(times for times, _ in parts)],
        )  # fmt: skip

    parts: tuple[tuple[int, Loops], ...]
    step: int
    ends: list[int]
    iterations: list[int]

    @property
    def grain(self) -> int:
        """What all numbers are multiples of."""
        return gcd(*(inside.grain for _, inside in self.parts))

    @property
    def rises(self) -> bool:
        """Whether anything is added from iteration to iteration."""
        return self.step != 0 or any(inside.rises for _, inside in self.parts)

    def window(self, first: int, last: int) -> NDArray[np.int64]:
        """The numbers of the firings ``first`` to ``last - 1``."""
        found, at = np.empty(last - first, np.int64), first
        run = bisect_right(self.ends, first)
        while at < last:
            _, inside = self.parts[run]
            iteration, begin = divmod(at - (self.ends[run - 1] if run else 0), len(inside))
            end = min(last, self.ends[run])
            whole = 1 if begin else (end - at) // len(inside)
            if whole > 1:
                end = at + whole * len(inside)
                part = found[at - first : end - first].reshape(whole, -1)
                part[:] = inside.window(0, len(inside))
                added: Any = self.step * np.arange(whole)[:, None]
            else:
                end = min(end, at - begin + len(inside))
                part = found[at - first : end - first]
                part[:] = inside.window(begin, begin + end - at)
                added = 0
            if self.step:
                part += added + self.step * (self.iterations[run] + iteration)
            at = end
            run += at == self.ends[run]
        return found

    def steady(self, first: int, last: int) -> tuple[int, int]:
        """As of loops; only inside a run of iterations."""
        run = bisect_right(self.ends, first)
        _, inside = self.parts[run]
        begin, end = self.ends[run - 1] if run else 0, self.ends[run]
        apart, more = divmod(last - first, len(inside))
        if not more:
            return (end, self.step * apart) if last <= end else (last, 0)
        begin = first - (first - begin) % len(inside)
        if last > begin + len(inside):
            return last, 0
        end, added = inside.steady(first - begin, last - begin)
        return begin + end, added

    def least_and_most(self) -> tuple[int, int]:
        """The least and the greatest number there is."""
        bounds = []
        for (times, inside), before in zip(self.parts, self.iterations, strict=False):
            low, high = inside.least_and_most()
            for iteration in (before, before + times - 1):
                bounds += [low + self.step * iteration, high + self.step * iteration]
        return min(bounds), max(bounds)

    def total(self) -> int:
        """The sum over all firings."""
        found = 0
        for (times, inside), before in zip(self.parts, self.iterations, strict=False):
            found += times * inside.total()
            found += self.step * len(inside) * (times * before + times * (times - 1) // 2)
        return found

    def before(self, firing: int) -> int:
        """The sum over all firings before one, of loops that do not rise."""
        run = bisect_right(self.ends, firing)
        found = self._passed[run]
        if run < len(self.parts):
            _, inside = self.parts[run]
            done, left = divmod(firing - (self.ends[run - 1] if run else 0), len(inside))
            found += done * self._totals[run] + inside.before(left)
        return found

    @cached_property
    def _totals(self) -> list[int]:
        return [inside.total() for _, inside in self.parts]

    @cached_property
    def _passed(self) -> list[int]:
        each = zip(self.parts, self._totals, strict=True)
        return [0, *accumulate(times * total for (times, _), total in each)]


class Paced(Loops):
    """Cycles for what comes through at a pace, a firing each, one behind the other.

    After each firing all that has come so far has taken its time, rounded up to whole cycles; a
    firing takes a cycle at least. Every so many firings it starts over in a new cycle.

    Parameters
    ----------
    amounts
        What comes in each firing; it does not rise.
    pace
        So much comes through, and in so many cycles.
    afresh, around
        Firings after which it starts over, counted from the last multiple of others, where it does
        so as well; 0 for never.

    Examples
    --------
    >>> fours = Loops(((6,),), [4])
    >>> Paced(fours, pace=(3, 1)).window(0, 6).tolist()
    [2, 1, 1, 2, 1, 1]
    >>> Paced(fours, pace=(3, 1), afresh=2).window(0, 6).tolist()
    [2, 1, 2, 1, 2, 1]
    """

    def __init__(
        self, amounts: Loops, pace: tuple[int, int], afresh: int = 0, around: int = 0
    ) -> None:
        if amounts.rises:
            raise InputError("what comes at a pace must not rise from firing to firing")
        firings = len(amounts)
        vars(self).update(
            amounts=amounts, pace=pace, afresh=afresh or firings, around=around or firings,
            firings=firings, sizes=amounts.sizes,
        )  # fmt: skip

    amounts: Loops
    pace: tuple[int, int]
    afresh: int
    around: int

    @classmethod
    def of(cls, amounts: Loops, pace: tuple[int, int], often: int = 0) -> Loops:
        """What comes in each firing as loops that do not rise.

        Where that does not come to whole cycles in each, it starts over in every iteration of the
        innermost loop of which there are at most so many iterations in all; where it comes to whole
        cycles but rarely, every two, four or so of the loop inside: then it repeats when they do.
        """
        whole = pace[0] // gcd(pace[0], amounts.grain * pace[1])  # firings that take whole cycles
        if not often or whole == 1:
            return cls(amounts, pace)
        if isinstance(amounts, Uneven) and amounts.iterations[-1] <= often:
            share = often // amounts.iterations[-1]
            return Uneven(
                [(times, cls.of(inside, pace, share)) for times, inside in amounts.parts]
            )  # fmt: skip
        around = inner = firings = len(amounts)
        for size in amounts.sizes:
            around, inner = inner, inner // size
            if firings // inner > often:
                break
        if whole <= RARELY:
            inner = around
        while firings // around * -(-around // inner) > often:
            inner *= 2
        return cls(amounts, pace, afresh=inner, around=around)

    @property
    def rises(self) -> bool:
        """It does not."""
        return False

    def window(self, first: int, last: int) -> NDArray[np.int64]:
        """The cycles of the firings ``first`` to ``last - 1``."""
        each, cycles = self.pace
        came = np.zeros(last - first + 1, np.int64)
        np.cumsum(self.amounts.window(first, last), out=came[1:])
        came += self.amounts.before(first)
        start = self._start(np.arange(first, last))  # and what had come when it last started over
        begun = np.where(start > first, came[np.maximum(start - first, 0)], self._begun(first))
        ends = -(-(came[1:] - begun) * cycles // each)
        return np.maximum(ends + (begun - came[:-1]) * cycles // each, 1)

    def steady(self, first: int, last: int) -> tuple[int, int]:
        """As of what comes, if that takes whole cycles in the period."""
        if self.constant is None and self._phase(first) != self._phase(last):
            return last, 0
        end, added = self.amounts.steady(first, last)
        if added:
            return last, 0
        if self.constant is not None:
            return end, 0  # a cycle each, whatever came before
        if (last - first) % self.around:
            begin = first - first % self.around
            end = min(end, begin + self.around)
            if (last - first) % self.afresh:
                end = min(end, self._start(first) + self.afresh)
        return max(end, last), 0

    def _phase(self, firing: int) -> int:
        """How far into a cycle it has come before a firing, since it last started over."""
        if firing not in self._phases:
            if len(self._phases) > FEW * FEW:
                self._phases.clear()
            each, cycles = self.pace
            carried = self.amounts.before(firing) - self._begun(firing)
            self._phases[firing] = carried * cycles % each
        return self._phases[firing]

    @cached_property
    def _phases(self) -> dict[int, int]:
        """Of the firings last asked for."""
        return {}

    def _start(self, firing: Any) -> Any:
        """The firing, or firings, at which it last started over."""
        return firing - firing % self.around % self.afresh

    def _begun(self, firing: int) -> int:
        """What had come when it last started over."""
        return self.amounts.before(self._start(firing))

    def least_and_most(self) -> tuple[int, int]:
        """Bounds of the cycles of a firing: what comes, rounded down and up."""
        each, cycles = self.pace
        low, high = self.amounts.least_and_most()
        return max(1, low * cycles // each), max(1, -(-high * cycles // each))

    def total(self) -> int:
        """The sum over all firings."""
        ends = range(0, len(self), STRETCH)
        return sum(int(self.window(at, min(at + STRETCH, len(self))).sum()) for at in ends)
