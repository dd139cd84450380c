"""Points run by the workers of a Dask cluster (extra ``dask``), which is used as it is.

A task is a batch of about half a second of work. A Dask worker hands it to a process beside it, one
for each of its threads, so that a point which ends its process does not end the worker; it is run
twice and then counts as failed, as it does on one machine. A worker that dies is Dask's matter: its
tasks go to others. Outcomes come back as the bytes of their files, and are stored where the sweep
was started; workers need no shared disk, but the same Sparqsim, which is checked, and the files
that the sweep names.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from sparqsim.base import InputError
from sparqsim.scripts.sweep.points import Point, model_version
from sparqsim.scripts.sweep.processes import Batch, Outcome, Process, died, fresh
from sparqsim.scripts.sweep.runner import MOST_IN_BATCH, MOST_KILLS, Points, batch_of

BATCH_SECONDS = 0.5  # of work in a task
AHEAD = 2  # tasks for each thread of the cluster
WAIT_SECONDS = 60  # for a first worker
ANSWER_SECONDS = 10  # for a scheduler

# ------------------------------------------------------------------ on a Dask worker

_idle: list[Process] = []
_lock = threading.Lock()


def run_batch(content: bytes) -> list[bytes]:
    """Run a batch of points; the task that is sent to a worker."""
    batch = msgspec.msgpack.decode(content, type=Batch)
    return [msgspec.msgpack.encode(outcome) for outcome in attended(batch)]


def attended(batch: Batch) -> Iterator[Outcome]:
    """Outcomes of a batch by a process that is replaced when it dies."""
    with _lock:
        process = _idle.pop() if _idle else fresh()
    left, deaths = list(batch.points), 0
    while left:
        process.send(msgspec.structs.replace(batch, points=left))
        while left:
            outcome = process.receive()
            if outcome is None:
                break
            left.pop(0)
            deaths = 0
            yield outcome
            if not outcome.data:
                left.clear()
        if left:
            how = process.kill()
            process = fresh()
            deaths += 1
            if deaths == MOST_KILLS:
                yield _died(batch.number, left.pop(0), how)
                deaths = 0
    with _lock:
        _idle.append(process)


def _died(batch: int, point: Point, how: str) -> Outcome:
    return Outcome(
        batch=batch,
        place=0,
        key=point.key,
        failed=True,
        message=how,
        data=died(point, model_version(point.machine), how),
        seconds=0.0,
    )


# ------------------------------------------------------------------ where the sweep was started


def _greet(distributed: Any, address: str) -> None:
    """Ask who is at an address; raises InputError unless it is a scheduler that answers soon."""

    async def identity() -> Any:
        async with distributed.rpc(address, timeout=ANSWER_SECONDS) as there:
            return await there.identity()

    try:
        kind = asyncio.run(asyncio.wait_for(identity(), ANSWER_SECONDS))["type"]
    except TimeoutError:
        kind = f"nothing heard in {ANSWER_SECONDS} s"
    except Exception as error:  # whatever another program's answer makes of Dask
        kind = str(error) or type(error).__name__
    if kind != "Scheduler":
        raise InputError(
            f"no Dask scheduler answers at {address}: {kind}; give the address that `dask "
            "scheduler` prints, as tcp://host:8786"
        )


class Cluster:
    """Runs points on a Dask cluster.

    Parameters
    ----------
    scheduler
        Address of a running scheduler, as ``tcp://host:8786``.
    workers
        Instead of it: make a cluster of so many workers on this machine.

    Raises
    ------
    InputError
        If the extra is not installed, or nobody answers at the address.
    """

    def __init__(self, scheduler: str | None, workers: int | None = None) -> None:
        try:
            import distributed
        except ImportError:
            raise InputError("this needs Dask: pip install 'sparqsim[dask]'") from None
        self.distributed: Any = distributed
        self.cluster: Any = None
        self.seconds = 0.0
        if scheduler is None:
            self.cluster = distributed.LocalCluster(
                n_workers=workers, threads_per_worker=1, dashboard_address=None
            )
        else:
            _greet(distributed, scheduler)
        self.client = distributed.Client(self.cluster or scheduler, timeout=ANSWER_SECONDS)

    def close(self) -> None:
        """Leave the cluster; end it where it was made here."""
        self.client.close()
        if self.cluster is not None:
            self.cluster.close()

    def __call__(self, plan: Points, numbers: NDArray[np.int64]) -> Iterator[Outcome]:
        try:
            self.client.wait_for_workers(1, timeout=WAIT_SECONDS)
        except TimeoutError:
            raise InputError("the Dask scheduler has no workers; start some") from None
        self.plan, self.start, self.numbers = plan, 0, numbers
        self.out: dict[Any, Batch] = {}
        self.again: list[Batch] = []
        self.run = f"sparqsim-{time.time_ns():x}"
        self.sent = 0
        done = self.distributed.as_completed()
        self._feed(done)
        try:
            for future in done:
                batch = self.out.pop(future)
                yield from self._taken(future, batch)
                self._feed(done)
        finally:
            self.client.cancel(list(self.out))

    def _feed(self, done: Any) -> None:
        """Send tasks until every thread has enough of them."""
        threads = sum(self.client.nthreads().values())
        while len(self.out) < AHEAD * max(threads, 1):
            batch = self._next()
            if batch is None:
                return
            future = self.client.submit(
                run_batch, msgspec.msgpack.encode(batch), key=f"{self.run}-{self.sent}", pure=False
            )
            self.sent += 1
            self.out[future] = batch
            done.add(future)

    def _next(self) -> Batch | None:
        if self.again:
            return self.again.pop()
        if self.start >= len(self.numbers):
            return None
        many = 1
        if self.seconds:
            many = min(max(int(BATCH_SECONDS / self.seconds), 1), MOST_IN_BATCH)
        points = list(self.plan.points(self.numbers[self.start : self.start + many]))
        self.start += many
        return batch_of(self.sent, points)

    def _taken(self, future: Any, batch: Batch) -> Iterator[Outcome]:
        """The outcomes of a task that has ended, however it has."""
        if future.status == "finished":
            for content in future.result():
                outcome = msgspec.msgpack.decode(content, type=Outcome)
                self.seconds += (outcome.seconds - self.seconds) / (8 if self.seconds else 1)
                yield outcome
            return
        error = future.exception() if future.status == "error" else None
        if isinstance(error, self.distributed.scheduler.KilledWorker):
            # Its workers died, again and again. It may be one point's doing.
            if len(batch.points) == 1:
                yield _died(batch.number, batch.points[0], "with its Dask worker")
                return
            for point in batch.points:
                self.again.append(batch_of(batch.number, [point]))
        elif error is None:  # lost with the scheduler's memory of it
            self.again.append(batch)
        else:
            raise InputError(f"a Dask worker cannot run points: {type(error).__name__}: {error}")
