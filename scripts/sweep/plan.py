"""The points of a sweep: counted and checked before any work, made again one at a time.

A plan holds no points, only their numbers, in an order that puts those next to each other which
share tensors, an encoded layer or counted work.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from sparqsim.architectures.machine import Machine
from sparqsim.base import InputError
from sparqsim.scripts.sweep.file import MOST_POINTS, Sweep
from sparqsim.scripts.sweep.points import KEY_DIGITS, Networks, Point, Work, digest_of, key_of
from sparqsim.scripts.sweep.space import Space
from sparqsim.workloads.network_tensors import NetworkTensors


class Keyed:
    """Gives points their keys; works are loaded and digested once."""

    def __init__(self) -> None:
        self.networks = Networks()
        self.digests: dict[Work, str] = {}
        self.checked: set[Any] = set()

    def point(self, point: Point) -> Point:
        """The point with its key.

        Raises
        ------
        InputError
            If its work cannot be loaded, or takes no densities or correlation.
        """
        work = point.work
        if work not in self.digests:
            self.digests[work] = digest_of(work, self.networks.get(work))
        draws = work, point.synthetic
        if draws not in self.checked:
            NetworkTensors(
                network=self.networks.get(work), **msgspec.structs.asdict(point.synthetic)
            )
            self.checked.add(draws)
        return msgspec.structs.replace(point, key=key_of(point, self.digests[work]))


class Plan:
    """All points of a sweep.

    Attributes
    ----------
    numbers : integers [points]
        Of the points that meet the constraints, no key twice, in the order of the file.
    keys : bytes [points]
        Their keys.
    excluded, doubled : int
        Places that met no constraint; points that stood there already.

    Raises
    ------
    InputError
        At the first point that is none: before any work.
    """

    def __init__(self, sweep: Sweep) -> None:
        self.sweep, self.keyed = sweep, Keyed()
        self.spaces = [Space(sweep, number) for number in range(len(sweep.file.block))]
        sizes = [space.places.size for space in self.spaces]
        if sum(sizes) > MOST_POINTS:
            raise InputError(
                f"{sweep.where}: {sum(sizes):,} points are too many; at most {MOST_POINTS:,}"
            )
        self.starts = np.cumsum([0, *sizes])
        numbers: list[int] = []
        keys: list[bytes] = []
        for space, low in zip(self.spaces, self.starts, strict=False):
            before = len(keys)
            for place in range(space.places.size):
                point = self._keyed(space, place)
                if point is not None:
                    numbers.append(int(low) + place)
                    keys.append(point.key.encode())
            if len(keys) == before:
                raise InputError(f"{space.place('where')}: no point meets the constraints")
        every = np.array(keys, f"S{KEY_DIGITS}")
        _, first = np.unique(every, return_index=True)
        first = np.sort(first)
        self.numbers: NDArray[np.int64] = np.array(numbers, np.int64)[first]
        self.keys = every[first]
        self.excluded = int(self.starts[-1]) - len(numbers)
        self.doubled = len(numbers) - len(first)

    def __len__(self) -> int:
        return len(self.numbers)

    def point(self, number: int) -> Point | None:
        """The point of a number, or None where it does not meet the constraints."""
        block = int(np.searchsorted(self.starts, number, side="right")) - 1
        return self._keyed(self.spaces[block], number - int(self.starts[block]))

    def _keyed(self, space: Space, place: int) -> Point | None:
        point = space.point(space.places[place])
        if point is None:
            return None
        try:
            return self.keyed.point(point)
        except InputError as error:
            raise InputError(f"{space.place('work')}: {error}") from None

    def arranged(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """Numbers of points, those next to each other that share work."""
        known: dict[Any, int] = {}
        outer, inner = np.zeros((2, len(numbers)), np.int64)
        for place, point in enumerate(self.points(numbers)):
            outer[place] = known.setdefault(shares(point), len(known))
            inner[place] = hash(same_work(point))
        return numbers[np.lexsort((inner, outer))]

    def points(self, numbers: NDArray[np.int64]) -> Iterator[Point]:
        """Points by their numbers."""
        for number in numbers.tolist():
            point = self.point(number)
            assert point is not None
            yield point


def shares(point: Point) -> Any:
    """Equal for points that share tensors and encoded layers."""
    return (
        *(point.work, point.recipe, point.machine, point.seed),
        *(point.synthetic, point.verify),
    )


def same_work(point: Point) -> Machine:
    """Equal for points of equal :func:`shares` that differ in timing alone."""
    return point.configuration().without_timing()
