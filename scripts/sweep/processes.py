"""Points run by processes that may die: what is asked of them, what they answer, how they start.

A process gets batches of points and answers each point as soon as it is done, with the bytes of its
file. It uses one core. It ends when nobody listens any more, so it does not outlive who asked.

Processes are forked after a warm-up, with kernels and networks loaded. Where that is not to be had
(threads of kernels that do not survive a fork run already, a worker of a cluster) a fresh
interpreter is started. Source for which threads do: numba's manual, "The Threading Layers".
"""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from multiprocessing.connection import Connection
from typing import Any

import msgspec
from msgspec import Struct

from sparqsim.base import InputError
from sparqsim.scripts.sweep.measures import measures_of
from sparqsim.scripts.sweep.points import Bench, Networks, Point, Synthetic, model_version
from sparqsim.scripts.sweep.store import Record, encoded

FORKABLE = ("workqueue", "tbb")  # numba's threads that survive a fork


class Batch(Struct, frozen=True, kw_only=True):
    """Points to be run one after the other, and the version of the model that must run them."""

    number: int
    points: list[Point]
    models: dict[str, str]


class Outcome(Struct, frozen=True, kw_only=True):
    """A point that was run.

    ``data`` are the bytes of its file; empty where it was not run, for ``message`` then says why
    the process is of no use. ``measure`` is what the best point is told by.
    """

    batch: int
    place: int
    key: str
    failed: bool
    message: str
    data: bytes
    seconds: float


def outcomes(bench: Bench, batch: Batch) -> Iterable[Outcome]:
    """Run the points of a batch."""
    for machine, version in batch.models.items():
        mine = model_version(machine)
        if mine != version:
            told = f"{socket.gethostname()} has model {mine} of {machine}, not {version}"
            yield Outcome(
                batch=batch.number,
                place=0,
                key="",
                failed=True,
                message=told,
                data=b"",
                seconds=0.0,
            )
            return
    for place, point in enumerate(batch.points):
        start = time.perf_counter()
        record = record_of(bench, point, batch.models[point.machine])
        yield Outcome(
            batch=batch.number,
            place=place,
            key=point.key,
            failed=record.status == "failed",
            message=record.message,
            data=encoded(record),
            seconds=time.perf_counter() - start,
        )


def record_of(bench: Bench, point: Point, model: str) -> Record:
    """Run a point; whatever goes wrong is its message."""
    common: dict[str, Any] = {
        "key": point.key,
        "model": model,
        "values": point.values,
        "fields": point.fields,
    }
    try:
        report = bench.run(point)
        measures = measures_of(report, point.configuration())
    except InputError as error:
        return Record(status="failed", message=str(error), **common)
    except Exception as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{os.path.basename(frame.filename)}, line {frame.lineno}"
        told = f"{type(error).__name__} in {where}: {error}"
        return Record(status="failed", message=told, **common)
    content = msgspec.Raw(msgspec.json.encode(report))
    return Record(status="done", measures=measures, report=content, **common)


def died(point: Point, model: str, how: str) -> bytes:
    """The file of a point that ended its process whenever it was run."""
    return encoded(
        Record(
            key=point.key,
            model=model,
            values=point.values,
            fields=point.fields,
            status="failed",
            message=f"the process that ran it ended twice: {how}",
        )
    )


# ------------------------------------------------------------------ within the process


def serve(connection: Connection, bench: Bench) -> None:
    """Answer batches until nobody asks any more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who asked is told, and ends this process
    one_core()
    encode = msgspec.msgpack.Encoder().encode
    decode = msgspec.msgpack.Decoder(Batch).decode
    with contextlib.suppress(EOFError, OSError):
        while True:
            for outcome in outcomes(bench, decode(connection.recv_bytes())):
                connection.send_bytes(encode(outcome))


def one_core() -> None:
    """Let kernels and numpy use one thread."""
    import numba

    numba.set_num_threads(1)
    with contextlib.suppress(ImportError):
        from threadpoolctl import threadpool_limits

        threadpool_limits(1)


# ------------------------------------------------------------------ seen from outside


class Process:
    """A process that runs points, and the connection to it."""

    def __init__(self, connection: Connection, ended: Callable[[], int], pid: int) -> None:
        self.connection, self.pid = connection, pid
        self._ended = ended

    def send(self, batch: Batch) -> bool:
        """Give it a batch; false where it is dead."""
        try:
            self.connection.send_bytes(msgspec.msgpack.encode(batch))
        except OSError:
            return False
        return True

    def receive(self) -> Outcome | None:
        """Its next answer; None where it is dead."""
        try:
            return msgspec.msgpack.decode(self.connection.recv_bytes(), type=Outcome)
        except (EOFError, OSError):
            return None

    def kill(self) -> str:
        """End it, whatever it does; returns how it ended before, if it had."""
        self.connection.close()
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        code = self._ended()
        return f"signal {-code}" if code < 0 else f"exit code {code}"


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Hold Ctrl-C back while a process starts, which has it held back from its first moment."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Forks:
    """Starts processes as copies of this one, warmed up."""

    def __init__(self, networks: Networks) -> None:
        self.networks = networks
        self.open: list[Connection] = []
        gc.collect()
        gc.freeze()  # so that the collector of a copy does not touch, and copy, what is shared

    def __call__(self) -> Process:
        ours, theirs = multiprocessing.Pipe()
        self.open = [each for each in self.open if not each.closed]
        made = multiprocessing.get_context("fork").Process(
            target=_serve_fork, args=(theirs, [*self.open, ours], self.networks), daemon=True
        )
        with uninterrupted(), warnings.catch_warnings():
            # The threads here only wait for the disk.
            warnings.simplefilter("ignore", DeprecationWarning)
            made.start()
        theirs.close()
        self.open.append(ours)

        def ended() -> int:
            made.join()
            return made.exitcode or 0

        assert made.pid is not None
        return Process(ours, ended, made.pid)


def _serve_fork(connection: Connection, others: list[Connection], networks: Networks) -> None:
    for other in others:  # else nobody would notice that their other end is gone
        other.close()
    serve(connection, Bench(networks))


def fresh() -> Process:
    """Start an interpreter of its own."""
    ours, theirs = multiprocessing.Pipe()
    with uninterrupted():
        made = subprocess.Popen(
            [sys.executable, "-m", __name__, str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            env={**os.environ, "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"},
        )
    theirs.close()
    return Process(ours, made.wait, made.pid)


def can_fork() -> bool:
    """Whether copies of this process can run kernels; numba's threads are then such that they can.

    It must be asked before the warm-up.
    """
    import numba

    if "fork" not in multiprocessing.get_all_start_methods() or sys.platform == "darwin":
        return False
    try:
        return numba.threading_layer() in FORKABLE
    except ValueError:  # none has been started yet
        numba.config.THREADING_LAYER = "workqueue"
        return True


def warm_up(points: Sequence[Point]) -> None:
    """Load what running points loads: a tiny product on the machine of each."""
    from sparqsim.workloads.work import load

    tiny = load("gemm:16x16x16")
    for point in {point.machine: point for point in points}.values():
        with contextlib.suppress(Exception):
            msgspec.structs.replace(point, recipe=None, synthetic=Synthetic()).run(tiny)


if __name__ == "__main__":
    serve(Connection(int(sys.argv[1])), Bench())
