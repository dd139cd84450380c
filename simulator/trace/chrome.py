"""A run as a trace that Perfetto (ui.perfetto.dev) and chrome://tracing open.

One process per actor, one thread per lane, one complete event per firing, in the Trace Event
Format's JSON object form. ``ts`` and ``dur`` are microseconds of real time at the netlist's clock;
the exact cycle, the cycles it took and the cause of its start stand in ``args``. Beside the lanes
of the actor that takes from a channel runs a counter of the tokens its queues hold: the mean, the
least and the most of all queues, in at most 2000 intervals; where it is known what moved the bits
of the memories, a process beside the actors counts the bytes per cycle of each. Arrows lead
along the critical path from lane to lane, and say what the time between was spent on.

Perfetto rounds ``ts`` and ``dur`` to whole nanoseconds, each for itself, and drops events that then
overlap. Where this would happen ``dur`` is cut by up to half a nanosecond, which only concerns
clocks whose period is no whole number of nanoseconds; ``args`` stay exact.

The file is streamed: a million firings need no more memory than ten thousand. Left out: waits (they
are the gaps before firings, with their cause in the firing that ends them).

Source: "Trace Event Format", the Chromium project, sections "Metadata", "Complete", "Counter" and
"Flow Events".
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparqsim.simulator.critical_path import CriticalPath, critical_path
from sparqsim.simulator.netlist import Actor
from sparqsim.simulator.queues import held, is_countable
from sparqsim.simulator.timeline import INPUT, Timeline
from sparqsim.simulator.trace.window import Window, touching
from sparqsim.simulator.traffic import Traffic, moved

CHUNK = 1 << 14  # firings formatted at once
CRITICAL = "critical path"
COUNTER_INTERVALS = 2000
PS_PER_US = 10**6


def chrome_text(timeline: Timeline, window: Window, traffic: Traffic) -> Iterator[str]:
    """The file, piece by piece."""
    yield _head(timeline, window)
    separator = "\n"
    parts = (
        _names(timeline, bool(traffic)),
        _firings(timeline, window),
        _arrows(timeline, window),
        _queues(timeline, window),
        _memories(timeline, window, traffic),
    )
    for texts in parts:
        for text in texts:
            yield separator + text
            separator = ",\n"
    yield "\n]}\n"


def _head(timeline: Timeline, window: Window) -> str:
    netlist = timeline.netlist
    about = {"netlist": netlist.name, "clock_hz": netlist.clock_hz, "cycles": timeline.cycles}
    about |= {"window": list(window)}
    return f'{{"displayTimeUnit":"ns","otherData":{json.dumps(about)},"traceEvents":['


def _first_threads(timeline: Timeline) -> list[int]:
    """The first thread of each actor; threads are numbered after the processes, all unlike."""
    lanes = [actor.lanes for actor in timeline.netlist.actors]
    return [2 + len(lanes) + sum(lanes[:i]) for i in range(len(lanes))]


def _names(timeline: Timeline, memories: bool) -> Iterator[str]:
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
    if memories:
        pid = len(threads) + 1
        yield meta("process_name", pid, pid, name="memories")
        yield meta("process_sort_index", pid, pid, sort_index=pid)


def _firings(timeline: Timeline, window: Window) -> Iterator[str]:
    count = INPUT + 2 * len(timeline.netlist.channels)
    causes = np.array([json.dumps(timeline.cause_name(code)) for code in range(count)], object)
    threads = _first_threads(timeline)
    for i, (actor, first) in enumerate(zip(timeline.netlist.actors, threads, strict=True)):
        name = json.dumps(actor.name).replace("%", "%%")
        event = (
            f'{{"ph":"X","cat":"firing","name":{name},"pid":{i + 1},"tid":%d,"ts":%d.%06d,'
            '"dur":%d.%06d,"args":{"firing":%d,"cycle":%d,"cycles":%d,"cause":%s}}'
        )
        for columns in _chunks(timeline, actor, window):
            lane, firing, start, busy, cause = columns
            ts, dur = times_ps(start, busy, timeline.netlist.clock_hz)
            fields = (
                *(first + lane, *np.divmod(ts, PS_PER_US), *np.divmod(dur, PS_PER_US)),
                *(firing, start, busy, causes[cause]),
            )
            yield ",\n".join(map(event.__mod__, zip(*(f.tolist() for f in fields), strict=True)))


def _chunks(timeline: Timeline, actor: Actor, window: Window) -> Iterator[tuple[NDArray[Any], ...]]:
    """Lane, firing, start, busy and cause of an actor's firings, lane by lane, piece by piece."""
    starts, busy = timeline.starts_of(actor.name), timeline.busy(actor.name)
    causes, shown = timeline.causes_of(actor.name), touching(timeline, actor.name, window)
    lanes_at_once = max(1, CHUNK // max(len(starts), 1))
    for low in range(0, actor.lanes, lanes_at_once):
        for begin in range(0, len(starts), CHUNK):
            piece = (slice(begin, begin + CHUNK), slice(low, low + lanes_at_once))
            lane, firing = np.nonzero(shown[piece].T)
            if len(lane):
                yield (
                    *(low + lane, begin + firing, starts[piece].T[lane, firing]),
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


def _arrows(timeline: Timeline, window: Window) -> Iterator[str]:
    """An arrow for each step of the critical path from one lane to another."""
    path = critical_path(timeline)
    netlist = timeline.netlist
    a, lane = path.actor, path.lane
    starts = np.zeros_like(a)
    for i, actor in enumerate(netlist.actors):
        here = a == i
        starts[here] = timeline.starts_of(actor.name)[path.firing[here], lane[here]]
    moves = (a[1:] != a[:-1]) | (lane[1:] != lane[:-1])
    moves &= (starts[:-1] >= window.begin) & (starts[1:] < window.end)
    at = np.flatnonzero(moves)
    threads = np.array(_first_threads(timeline))
    why = [json.dumps(_step(path, code, actor)) for code, actor in zip(
        path.code[at + 1].tolist(), a[at].tolist(), strict=True)]  # fmt: skip
    ts, _ = times_ps(starts, np.zeros_like(starts), netlist.clock_hz)
    common = f'"cat":"{CRITICAL}","name":"{CRITICAL}"'
    for begin in range(0, len(at), CHUNK):
        texts = []
        for number, step in enumerate(at[begin : begin + CHUNK].tolist(), begin):
            for phase, place in (('"s"', step), ('"f","bp":"e"', step + 1)):
                us, ps = divmod(int(ts[place]), PS_PER_US)
                texts.append(
                    f'{{"ph":{phase},{common},"id":{number},"pid":{a[place] + 1},'
                    f'"tid":{threads[a[place]] + lane[place]},"ts":{us}.{ps:06d},'
                    f'"args":{{"through":{why[number]}}}}}'
                )
        yield ",\n".join(texts)


def _step(path: CriticalPath, code: int, actor: int) -> str:
    """What filled a step of the path: the code of the firing it leads to."""
    part = path.netlist.actors[actor]
    if code == -2:
        return f"resource {part.resource}"
    return f"work of {part.name}" if code < 0 else f"full queue {path.netlist.channels[code].name}"


def _queues(timeline: Timeline, window: Window) -> Iterator[str]:
    """Tokens that the queues of each channel hold."""
    netlist = timeline.netlist
    for channel in netlist.channels:
        if not is_countable(netlist, channel):
            continue
        queues = held(timeline, channel.name, COUNTER_INTERVALS, window)
        if not queues.tokens.shape[1]:
            continue
        levels = {"tokens": queues.tokens.mean(axis=1).round(3)}
        if queues.tokens.shape[1] > 1:
            levels = {"mean": levels["tokens"]}
            levels["least"] = queues.tokens.min(axis=1).round(3)
            levels["most"] = queues.tokens.max(axis=1).round(3)
        name = f"{channel.name} (holds {channel.capacity})"
        pid = netlist.index(channel.target) + 1
        yield _counter(timeline, name, pid, queues.edges, levels)


def _memories(timeline: Timeline, window: Window, traffic: Traffic) -> Iterator[str]:
    """Bytes a cycle that each memory reads and writes."""
    pid = len(timeline.netlist.actors) + 1
    for name, accesses in traffic.items():
        found = moved(timeline, accesses, COUNTER_INTERVALS, window)
        cycles = np.diff(found.edges)
        rates = {"read": found.read_bits / 8 / cycles, "written": found.written_bits / 8 / cycles}
        yield _counter(timeline, f"{name}: bytes per cycle", pid, found.edges, rates)


def _counter(
    timeline: Timeline, name: str, pid: int, edges: NDArray[np.int64],
    levels: Mapping[str, NDArray[np.float64]],
) -> str:  # fmt: skip
    """Events of a counter wherever one of its levels changes."""
    rows = np.column_stack(list(levels.values()))
    changed = np.ones(len(rows), bool)
    changed[1:] = (np.diff(rows, axis=0) != 0).any(axis=1)
    shown = json.dumps(name).replace("%", "%%")
    values = ",".join(f'"{key}":%.9g' for key in levels)
    event = f'{{"ph":"C","name":{shown},"pid":{pid},"ts":%d.%06d,"args":{{{values}}}}}'
    ts, _ = times_ps(edges, np.zeros_like(edges), timeline.netlist.clock_hz)
    at = np.divmod(ts[:-1][changed], PS_PER_US)
    fields = [part.tolist() for part in (*at, *rows[changed].T)]
    return ",\n".join(map(event.__mod__, zip(*fields, strict=True)))
