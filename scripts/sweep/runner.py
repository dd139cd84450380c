"""A sweep carried out: what is stored is not run again, the rest is spread over processes.

Each process works through a stretch of points that lie next to each other and share work, and takes
half of the longest stretch that is left when its own is done. A process that dies is replaced; the
point it was at is run once more, alone, and counts as failed if its process dies again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from multiprocessing.connection import wait
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from sparqsim.base import InputError
from sparqsim.scripts.sweep.index import LOOK_UP
from sparqsim.scripts.sweep.plan import Plan
from sparqsim.scripts.sweep.points import Bench, Networks, Point, model_version
from sparqsim.scripts.sweep.processes import (
    Batch,
    Forks,
    Outcome,
    Process,
    can_fork,
    died,
    fresh,
    outcomes,
    warm_up,
)
from sparqsim.scripts.sweep.store import Record, Store, decoded

BATCH_SECONDS = 0.25  # of work in a batch
MOST_IN_BATCH = 256
AHEAD = 2  # batches a process has at once: one to work at, one waiting
MOST_KILLS = 2  # of a process by one point
MOST_STARTS = 5  # of processes that die before they run a point
FLUSH_POINTS = 64
FLUSH_SECONDS = 0.2

Tell = Callable[[Record], None]


class Runner(Protocol):
    """Runs points wherever it does; gives outcomes as they come."""

    def __call__(self, plan: Points, numbers: NDArray[np.int64]) -> Iterator[Outcome]: ...


class Points(Protocol):
    """Points by their numbers."""

    def points(self, numbers: NDArray[np.int64]) -> Iterator[Point]: ...


def pending(plan: Plan, store: Store, retry_failed: bool) -> NDArray[np.int64]:
    """Numbers of the points that are still to be run."""
    waiting = np.ones(len(plan), bool)
    for start in range(0, len(plan), LOOK_UP):
        keys = [key.decode() for key in plan.keys[start : start + LOOK_UP].tolist()]
        found = store.index.status(keys)
        for place, key in enumerate(keys):
            status = found.get(key)
            waiting[start + place] = status is None or (retry_failed and status == "failed")
    return plan.numbers[waiting]


def carry_out(
    plan: Points, numbers: NDArray[np.int64], store: Store, runner: Runner, tell: Tell
) -> None:
    """Run points and store what comes of them, a few at a time.

    Raises
    ------
    InputError
        If the store cannot be written or the processes are of no use.
    """
    waiting: list[tuple[Record, bytes]] = []
    last = time.monotonic()
    work = runner(plan, numbers)
    try:
        for outcome in work:
            record = decoded(outcome.data)
            if record is None:
                raise InputError(f"points cannot be run there: {outcome.message}")
            waiting.append((record, outcome.data))
            tell(record)
            now = time.monotonic()
            if len(waiting) >= FLUSH_POINTS or now - last > FLUSH_SECONDS:
                store.write(waiting)
                waiting, last = [], now
    finally:
        work.close()  # type: ignore[attr-defined]
        if waiting:
            store.write(waiting)


def here(plan: Points, numbers: NDArray[np.int64]) -> Iterator[Outcome]:
    """Run points in this process, one after the other."""
    bench = Bench()
    for number in range(len(numbers)):
        points = list(plan.points(numbers[number : number + 1]))
        yield from outcomes(bench, batch_of(number, points))


def batch_of(number: int, points: Sequence[Point]) -> Batch:
    """A batch, with the versions of the models here."""
    machines = {point.machine for point in points}
    return Batch(
        number=number,
        points=list(points),
        models={machine: model_version(machine) for machine in sorted(machines)},
    )


# ------------------------------------------------------------------ who does what


class Stretches:
    """Points still to be given out: a stretch for each worker, and those that came back."""

    def __init__(self, numbers: NDArray[np.int64], workers: int) -> None:
        self.numbers = numbers
        ends = np.linspace(0, len(numbers), workers + 1).astype(int).tolist()
        self.left = [[low, high] for low, high in pairwise(ends)]
        self.back: list[list[int]] = []

    def __bool__(self) -> bool:
        return bool(self.back) or any(low < high for low, high in self.left)

    def take(self, worker: int, most: int) -> list[int]:
        """The next points of a worker; of the longest stretch left where its own is done."""
        if self.back:
            return self.back.pop()
        mine = self.left[worker]
        if mine[0] >= mine[1]:
            longest = max(self.left, key=lambda each: each[1] - each[0])
            middle = (longest[0] + longest[1]) // 2
            mine[:] = middle, longest[1]
            longest[1] = middle
        low = mine[0]
        mine[0] = min(low + most, mine[1])
        found: list[int] = self.numbers[low : mine[0]].tolist()
        return found


@dataclass(eq=False)
class Seat:
    """A worker: its process, and the batches it has, each with the points that are still out."""

    number: int
    process: Process
    out: dict[int, list[int]] = field(default_factory=dict)


class Local:
    """Runs points on this machine, in processes that are kept from one call to the next."""

    def __init__(self, workers: int, networks: Networks | None = None) -> None:
        if workers < 1:
            raise InputError(f"workers must be at least 1, got {workers}")
        self.workers, self.networks = workers, networks
        self.seats: list[Seat] = []
        self.seconds = 0.0  # of a point, lately
        self.batches = 0
        self.early_deaths = 0

    def __call__(self, plan: Points, numbers: NDArray[np.int64]) -> Iterator[Outcome]:
        if not len(numbers):
            return
        self.plan = plan
        self.stretches = Stretches(numbers, min(self.workers, len(numbers)))
        self.kills: dict[int, int] = {}
        if not self.seats:
            self.start = self._starter(numbers)
        try:
            for place in range(len(self.seats), len(self.stretches.left)):
                self.seats.append(Seat(place, self.start()))
            seats = self.seats[: len(self.stretches.left)]
            for seat in seats:
                self._feed(seat)
            while any(seat.out for seat in seats):
                by_connection = {seat.process.connection: seat for seat in seats if seat.out}
                for ready in wait(list(by_connection)):
                    yield from self._answer(by_connection[ready])  # type: ignore[index]
                for seat in seats:
                    self._feed(seat)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End the processes."""
        for seat in self.seats:
            seat.process.kill()
        self.seats.clear()

    def _starter(self, numbers: NDArray[np.int64]) -> Callable[[], Process]:
        """How processes are started; what they need is loaded here first where they are copies."""
        if self.networks is None or not can_fork():
            return fresh
        first = {point.machine: point for point in self.plan.points(_spread(numbers))}
        warm_up(list(first.values()))
        return Forks(self.networks)

    def _feed(self, seat: Seat) -> None:
        """Give a worker batches until it has enough."""
        while len(seat.out) < AHEAD and self.stretches:
            most = MOST_IN_BATCH if self.seconds else 1
            if self.seconds:
                most = min(max(int(BATCH_SECONDS / self.seconds), 1), MOST_IN_BATCH)
            numbers = self.stretches.take(seat.number, most)
            if not numbers:
                return
            points = list(self.plan.points(np.array(numbers)))
            seat.out[self.batches] = numbers
            sent = seat.process.send(batch_of(self.batches, points))
            self.batches += 1
            if not sent:
                return  # it is dead, which its connection will tell

    def _answer(self, seat: Seat) -> Iterator[Outcome]:
        outcome = seat.process.receive()
        if outcome is None:
            yield from self._replace(seat)
            return
        self.early_deaths = 0
        out = seat.out[outcome.batch]
        out.pop(0)
        if not out:
            del seat.out[outcome.batch]
        self.seconds += (outcome.seconds - self.seconds) / (8 if self.seconds else 1)
        yield outcome

    def _replace(self, seat: Seat) -> Iterator[Outcome]:
        """A worker died: another takes its seat, and its points go back."""
        how = seat.process.kill()
        out = [numbers for _, numbers in sorted(seat.out.items()) if numbers]
        seat.out.clear()
        suspect = out[0].pop(0)
        self.stretches.back += [numbers for numbers in out if numbers]
        self.kills[suspect] = self.kills.get(suspect, 0) + 1
        if self.kills[suspect] < MOST_KILLS:
            self.stretches.back.append([suspect])
        else:
            (point,) = self.plan.points(np.array([suspect]))
            data = died(point, model_version(point.machine), how)
            yield Outcome(
                batch=-1, place=0, key=point.key, failed=True,
                message=f"the process that ran it ended twice: {how}", data=data, seconds=0.0,
            )  # fmt: skip
        self.early_deaths += 1
        if self.early_deaths > MOST_STARTS + self.workers:
            raise InputError(f"processes end before they have run a point: {how}")
        seat.process = self.start()


def _spread(numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    """A few of the points, from all over the sweep."""
    return numbers[np.unique(np.linspace(0, len(numbers) - 1, 16).astype(int))]
