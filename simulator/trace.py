"""A run as a trace that Perfetto (ui.perfetto.dev) and chrome://tracing open.

One process an actor, one thread a lane, one complete event a firing, in the Trace Event Format's
JSON object form. ``ts`` and ``dur`` are microseconds of real time at the netlist's clock; the exact
cycle, the cycles it took and the cause of its start stand in ``args``. Beside the lanes of the
actor that takes from a channel runs a counter of the tokens its queues hold: the mean, the least
and the most of all queues, in at most 2000 intervals.

Perfetto rounds ``ts`` and ``dur`` to whole nanoseconds, each for itself, and drops events that then
overlap. Where this would happen ``dur`` is cut by up to half a nanosecond, which only concerns
clocks whose period is no whole number of nanoseconds; ``args`` stay exact.

The file is streamed: a million firings need no more memory than ten thousand. Left out: waits (they
are the gaps before firings, with their cause in the firing that ends them).

Source: "Trace Event Format", the Chromium project, sections "Metadata", "Complete" and "Counter
Events".
"""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from sparqsim.base import InputError, written_whole
from sparqsim.simulator.netlist import Actor
from sparqsim.simulator.queues import held, is_countable
from sparqsim.simulator.timeline import INPUT, Timeline

CHUNK = 1 << 14  # firings formatted at once
COUNTER_INTERVALS = 2000
PS_PER_US = 10**6


def write_trace(timeline: Timeline, path: str | os.PathLike[str]) -> Path:
    """Write a run as a trace, whole or not at all; returns the path.

    Parameters
    ----------
    timeline
        A run of which single firings were recorded.
    path
        Ends in ``.json``, or in ``.json.gz`` for a compressed file.

    Raises
    ------
    InputError
        If the ending is another, the file cannot be written, or the run was recorded as sums.
    """
    path = Path(path)
    check_trace_name(path)
    if timeline.starts is None:
        raise InputError(
            "a trace shows single firings, but this run kept only sums; run it with record='full'"
        )
    with ExitStack() as stack:
        file: BinaryIO = stack.enter_context(open(stack.enter_context(written_whole(path)), "wb"))
        if path.suffix == ".gz":
            packed = gzip.GzipFile("", "wb", compresslevel=3, fileobj=file, mtime=0)
            file = cast(BinaryIO, stack.enter_context(packed))
        file.write(_head(timeline).encode())
        for separator, text in _events(timeline):
            file.write((separator + text).encode())
        file.write(b"\n]}\n")
    return path


def check_trace_name(path: str | os.PathLike[str]) -> None:
    """Refuse a name whose ending does not say how the trace is written.

    Raises
    ------
    InputError
        If it ends neither in ``.json`` nor in ``.json.gz``.
    """
    if not Path(path).name.endswith((".json", ".json.gz")):
        raise InputError(f"a trace must be named .json or .json.gz, got {path}")


def _head(timeline: Timeline) -> str:
    netlist = timeline.netlist
    about = {"netlist": netlist.name, "clock_hz": netlist.clock_hz, "cycles": timeline.cycles}
    return f'{{"displayTimeUnit":"ns","otherData":{json.dumps(about)},"traceEvents":['


def _events(timeline: Timeline) -> Iterator[tuple[str, str]]:
    """What precedes it, and a text of one or more events joined by commas."""
    separator = "\n"
    for texts in (_names(timeline), _firings(timeline), _counters(timeline)):
        for text in texts:
            yield separator, text
            separator = ",\n"


def _first_threads(timeline: Timeline) -> list[int]:
    """The first thread of each actor; threads are numbered after the processes, all unlike."""
    lanes = [actor.lanes for actor in timeline.netlist.actors]
    return [1 + len(lanes) + sum(lanes[:i]) for i in range(len(lanes))]


def _names(timeline: Timeline) -> Iterator[str]:
    def meta(kind: str, pid: int, tid: int, **args: object) -> str:
        event = {"ph": "M", "name": kind, "pid": pid, "tid": tid, "args": args}
        return json.dumps(event, separators=(",", ":"))

    threads = _first_threads(timeline)
    for i, (actor, first) in enumerate(zip(timeline.netlist.actors, threads, strict=True)):
        yield meta("process_name", i + 1, first, name=actor.name)
        yield meta("process_sort_index", i + 1, first, sort_index=i)
        if actor.part != actor.name:
            yield meta("process_labels", i + 1, first, labels=actor.part)
        for lane in range(actor.lanes):
            name = f"{actor.name} {lane}" if actor.lanes > 1 else actor.name
            yield meta("thread_name", i + 1, first + lane, name=name)
            yield meta("thread_sort_index", i + 1, first + lane, sort_index=lane)


def _firings(timeline: Timeline) -> Iterator[str]:
    count = INPUT + 2 * len(timeline.netlist.channels)
    causes = np.array([json.dumps(timeline.cause_name(code)) for code in range(count)], object)
    threads = _first_threads(timeline)
    for i, (actor, first) in enumerate(zip(timeline.netlist.actors, threads, strict=True)):
        name = json.dumps(actor.name).replace("%", "%%")
        event = (
            f'{{"ph":"X","cat":"firing","name":{name},"pid":{i + 1},"tid":%d,"ts":%d.%06d,'
            '"dur":%d.%06d,"args":{"firing":%d,"cycle":%d,"cycles":%d,"cause":%s}}'
        )
        for columns in _chunks(timeline, actor):
            lane, firing, start, busy, cause = columns
            ts, dur = times_ps(start, busy, timeline.netlist.clock_hz)
            fields = (
                *(first + lane, *np.divmod(ts, PS_PER_US), *np.divmod(dur, PS_PER_US)),
                *(firing, start, busy, causes[cause]),
            )
            yield ",\n".join(map(event.__mod__, zip(*(f.tolist() for f in fields), strict=True)))


def _chunks(timeline: Timeline, actor: Actor) -> Iterator[tuple[NDArray[Any], ...]]:
    """Lane, firing, start, busy and cause of an actor's firings, lane by lane, piece by piece."""
    starts, busy = timeline.starts_of(actor.name), timeline.busy(actor.name)
    causes = timeline.causes_of(actor.name)
    lanes_at_once = max(1, CHUNK // max(len(starts), 1))
    for low in range(0, actor.lanes, lanes_at_once):
        for begin in range(0, len(starts), CHUNK):
            piece = (slice(begin, begin + CHUNK), slice(low, low + lanes_at_once))
            start = starts[piece].T
            lane, firing = np.nonzero(start >= 0)
            if len(lane):
                yield (
                    *(low + lane, begin + firing, start[lane, firing]),
                    *(busy[piece].T[lane, firing], causes[piece].T[lane, firing]),
                )


def times_ps(
    start: NDArray[np.int64], busy: NDArray[np.int64], clock_hz: float
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """``ts`` and ``dur`` in whole picoseconds that do not overlap when rounded to nanoseconds.

    No time is half a nanosecond, so that no viewer's floating point decides how it is rounded.
    """

    def instant(cycle: NDArray[np.int64]) -> NDArray[np.int64]:
        ps = np.rint(cycle * (1e12 / clock_hz)).astype(np.int64)
        return ps - (ps % 1000 == 500)

    ts, end = instant(start), instant(start + busy)
    whole_ns = (end + 500) // 1000 - (ts + 500) // 1000
    return ts, np.minimum(end - ts, 1000 * whole_ns + 499)


def _counters(timeline: Timeline) -> Iterator[str]:
    netlist = timeline.netlist
    for channel in netlist.channels:
        if not is_countable(netlist, channel):
            continue
        queues = held(timeline, channel.name, COUNTER_INTERVALS)
        if not queues.tokens.shape[1]:
            continue
        levels = [queues.tokens.mean(axis=1)]
        keys = ["tokens"]
        if queues.tokens.shape[1] > 1:
            levels += [queues.tokens.min(axis=1), queues.tokens.max(axis=1)]
            keys = ["mean", "least", "most"]
        rows = np.column_stack(levels).round(3)
        changed = np.ones(len(rows), bool)
        changed[1:] = (np.diff(rows, axis=0) != 0).any(axis=1)
        name = json.dumps(f"{channel.name} (holds {channel.capacity})").replace("%", "%%")
        values = ",".join(f'"{key}":%g' for key in keys)
        pid = netlist.index(channel.target) + 1
        event = f'{{"ph":"C","name":{name},"pid":{pid},"ts":%d.%06d,"args":{{{values}}}}}'
        ts, _ = times_ps(queues.edges, np.zeros_like(queues.edges), netlist.clock_hz)
        at = np.divmod(ts[:-1][changed], PS_PER_US)
        fields = [part.tolist() for part in (*at, *rows[changed].T)]
        yield ",\n".join(map(event.__mod__, zip(*fields, strict=True)))
