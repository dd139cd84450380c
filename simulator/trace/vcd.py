"""A run as waveforms that GTKWave opens: a Value Change Dump.

One scope per actor, in it one per lane with two signals: ``firing``, the number of the firing that
occupies it (no value while it is idle), and ``state``, what it does in words: ``busy``,
``done``, or what the next firing waits for (``tokens_of_queue``, ``free_slots_in_queue``,
``resource``). A channel is a scope with a signal a queue: the tokens that count against its
capacity. Queues are numbered by the lanes they end at, those of a gather by where they begin.
Times are real, in picoseconds. The text is streamed; before it is written the firings are put in
the order of time, which takes 16 bytes per firing.

Left out: channels of actors with a behaviour, whose tokens are not recorded.

Source: IEEE 1364-2005, chapter 18; ``string`` as GTKWave reads it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from sparqsim.simulator.netlist import Channel, Netlist, Pattern
from sparqsim.simulator.queues import is_countable
from sparqsim.simulator.timeline import GRANT, INPUT, Timeline
from sparqsim.simulator.trace.window import Ints, Pending, Window, pieces

BUSY, DONE = "busy", "done"
# Kinds of values; of one cycle the tokens come first.
TOKENS, FIRING, STATE = 0, 1, 2
IDLE = -1  # firing: no value
RANK_END, RANK_START = 1, 2  # what ends in a cycle comes before what begins in it


def vcd_text(timeline: Timeline, window: Window) -> Iterator[str]:
    """The file, piece by piece."""
    signals = _Signals(timeline)
    yield from signals.declarations()
    states = [BUSY, DONE, *map(_word, signals.cause_names)]
    pending = Pending(5)
    for actor in timeline.netlist.actors:
        _idle_from_the_start(timeline, signals, actor.name, window, pending)
    levels = {name: _levels_before(timeline, name, window) for name in signals.queues}
    for name, level in levels.items():
        queue = np.flatnonzero(_joined(timeline.netlist, timeline.netlist.channel(name)))
        pending.add(window.begin, 0, signals.queues[name] + queue, TOKENS, level[queue])
    names = [actor.name for actor in timeline.netlist.actors]
    at = -1
    for begin, end, found in pieces(timeline, names, window):
        for name, (firing, lane) in zip(names, found, strict=True):
            _fire(timeline, signals, name, firing, lane, window, pending)
        for name in signals.queues:
            _move(timeline, signals, name, max(begin, window.begin), end, levels[name], pending)
        due = pending.before(end if end < window.end else None)
        due = due[due[:, 0] <= window.end]
        text, at = _text(due, signals, states, timeline.netlist.clock_hz, at)
        yield text
    if at < window.end:
        yield f"#{_picoseconds(window.end, timeline.netlist.clock_hz)}\n"


class _Signals:
    """Identifiers of all signals; of a lane first ``firing``, then ``state``."""

    def __init__(self, timeline: Timeline) -> None:
        netlist = timeline.netlist
        self.netlist = netlist
        causes = INPUT + 2 * len(netlist.channels)
        self.cause_names = [timeline.cause_name(code) for code in range(causes)]
        self.lanes: dict[str, int] = {}
        self.queues: dict[str, int] = {}
        count = 0
        for actor in netlist.actors:
            self.lanes[actor.name] = count
            count += 2 * actor.lanes
        for channel in netlist.channels:
            if is_countable(netlist, channel):
                self.queues[channel.name] = count
                count += _queues(netlist, channel)
        self.count = count
        self.names = [_identifier(number) for number in range(count)]

    def declarations(self) -> Iterator[str]:
        """The header, up to the first time."""
        netlist, used = self.netlist, set[str]()
        yield f"$comment {_word(netlist.name)} at {netlist.clock_hz:g} Hz $end\n"
        yield "$timescale 1 ps $end\n"
        for actor in netlist.actors:
            first = self.lanes[actor.name]
            yield f"$scope module {_unlike(actor.name, used)} $end\n"
            for lane in range(actor.lanes):
                inner = f"lane_{lane}" if actor.lanes > 1 else ""
                firing, state = self.names[first + 2 * lane : first + 2 * lane + 2]
                yield f"$scope module {inner} $end\n" if inner else ""
                yield f"$var integer 64 {firing} firing $end\n$var string 1 {state} state $end\n"
                yield "$upscope $end\n" if inner else ""
            yield "$upscope $end\n"
        bounds = [*self.queues.values(), self.count][1:]
        for (name, first), last in zip(self.queues.items(), bounds, strict=True):
            yield f"$scope module {_unlike(name, used)} $end\n"
            for queue in np.flatnonzero(_joined(netlist, netlist.channel(name))).tolist():
                label = f"tokens_{queue}" if last - first > 1 else "tokens"
                yield f"$var integer 64 {self.names[first + queue]} {label} $end\n"
            yield "$upscope $end\n"
        yield "$enddefinitions $end\n"


def _fire(
    timeline: Timeline, signals: _Signals, name: str, firing: Ints, lane: Ints,
    window: Window, pending: Pending,
) -> None:  # fmt: skip
    """What changes when these firings of an actor begin, and when they end."""
    starts, busy = timeline.starts_of(name), timeline.busy(name)
    start, length = starts[firing, lane], busy[firing, lane]
    signal = signals.lanes[name] + 2 * lane
    shown = length > 0  # what takes no time is not seen
    begin = np.maximum(start, window.begin)
    pending.add(begin[shown], RANK_START, signal[shown], FIRING, firing[shown])
    pending.add(begin[shown], RANK_START, signal[shown] + 1, STATE, 0)
    _gap(timeline, signals, name, firing + 1, lane, start + length, pending)


def _gap(
    timeline: Timeline, signals: _Signals, name: str, firing: Ints, lane: Ints, since: Ints,
    pending: Pending,
) -> None:  # fmt: skip
    """The wait before firings, from when the lane was free: its cause, then the resource."""
    i = timeline.netlist.index(name)
    starts, causes = timeline.starts_of(name), timeline.causes_of(name)
    signal = signals.lanes[name] + 2 * lane
    more = firing < len(starts)
    more[more] = starts[firing[more], lane[more]] >= 0
    pending.add(since[~more], RANK_END, signal[~more], FIRING, IDLE)
    pending.add(since[~more], RANK_END, signal[~more] + 1, STATE, 1)
    firing, lane, since, signal = firing[more], lane[more], since[more], signal[more]
    grants = timeline.grants[i] if timeline.grants else None
    start = starts[firing, lane]
    ready = start if grants is None else grants.ready[firing, lane]
    why = (causes if grants is None else grants.causes)[firing, lane]
    waits = ready > since
    pending.add(since[waits], RANK_END, signal[waits], FIRING, IDLE)
    pending.add(since[waits], RANK_END, signal[waits] + 1, STATE, 2 + why[waits])
    held = start > ready
    pending.add(ready[held], RANK_END, signal[held], FIRING, IDLE)
    pending.add(ready[held], RANK_END, signal[held] + 1, STATE, 2 + GRANT)


def _idle_from_the_start(
    timeline: Timeline, signals: _Signals, name: str, window: Window, pending: Pending
) -> None:
    """What each lane does when the window begins, if no firing that touches it says so."""
    starts, busy = timeline.starts_of(name), timeline.busy(name)
    lanes = np.arange(timeline.netlist.actor(name).lanes)
    ends = np.where(starts >= 0, starts + np.maximum(busy, 1), np.iinfo(np.int64).max)
    earlier = (ends <= window.begin).sum(axis=0)  # firings that are over
    before = Pending(5)
    since = np.zeros(len(lanes), np.int64)
    _gap(timeline, signals, name, earlier, lanes, since, before)
    rows = before.before(None)
    rows[:, 0] = np.maximum(rows[:, 0], window.begin)
    pending.add(*rows.T)


def _queues(netlist: Netlist, channel: Channel) -> int:
    """Lanes by which the queues of a channel are numbered."""
    by = channel.source if channel.pattern is Pattern.GATHER else channel.target
    return netlist.actor(by).lanes


def _joined(netlist: Netlist, channel: Channel) -> NDArray[np.bool_]:
    """Which of these lanes have a queue: a shift leaves lanes without a partner."""
    queues = _queues(netlist, channel)
    source = netlist.actor(channel.source).lanes
    if channel.pattern is not Pattern.SHIFT:
        return np.ones(queues, bool)
    return np.array([bool(channel.source_lanes(lane, source)) for lane in range(queues)])


def _moved(
    timeline: Timeline, name: str, begin: int, end: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Cycle, queue and change of every push and pop of a channel in ``[begin, end)``."""
    channel = timeline.netlist.channel(name)
    joined = _joined(timeline.netlist, channel)
    queues = np.arange(len(joined))
    shift = channel.offset if channel.pattern is Pattern.SHIFT else 0
    cycles, places, changes = [], [], []
    for actor, rates, sign, by in (
        (channel.source, channel.produce, 1, Pattern.BROADCAST),
        (channel.target, channel.consume, -1, Pattern.GATHER),
    ):
        starts = timeline.starts_of(actor)
        rate = np.broadcast_to(np.asarray(rates, np.int64), starts.shape)
        firing, lane = np.nonzero((starts >= begin) & (starts < end) & (rate != 0))
        at, amount = starts[firing, lane], sign * rate[firing, lane]
        queue = lane + (shift if sign > 0 else 0)
        if channel.pattern is by:  # one lane serves all queues
            at, amount = np.repeat(at, len(queues)), np.repeat(amount, len(queues))
            queue = np.tile(queues, len(firing))
        there = (queue >= 0) & (queue < len(queues))
        there[there] = joined[queue[there]]
        cycles.append(at[there])
        places.append(queue[there])
        changes.append(amount[there])
    return np.concatenate(cycles), np.concatenate(places), np.concatenate(changes)


def _levels_before(timeline: Timeline, name: str, window: Window) -> Ints:
    """Tokens in each queue before the window begins."""
    _, queue, change = _moved(timeline, name, 0, window.begin)
    count = _queues(timeline.netlist, timeline.netlist.channel(name))
    return np.bincount(queue, change, count).astype(np.int64)


def _move(
    timeline: Timeline, signals: _Signals, name: str, begin: int, end: int, level: Ints,
    pending: Pending,
) -> None:  # fmt: skip
    """The levels of a channel's queues wherever they change in ``[begin, end)``."""
    cycle, queue, change = _moved(timeline, name, begin, end)
    keys, place = np.unique(queue * (end - begin) + cycle - begin, return_inverse=True)
    if not len(keys):
        return
    steps = np.bincount(place, change).astype(np.int64)
    queue, since = np.divmod(keys, end - begin)
    first = np.flatnonzero(np.diff(queue, prepend=-1))
    sums = np.cumsum(steps)
    earlier = sums[first] - steps[first]
    runs = np.diff(np.append(first, len(keys)))
    now = sums - np.repeat(earlier - level[queue[first]], runs)
    level[queue[first]] = now[np.append(first[1:], len(keys)) - 1]
    moved = steps != 0
    signal = signals.queues[name] + queue
    pending.add(begin + since[moved], 0, signal[moved], TOKENS, now[moved])


def _text(
    rows: Ints, signals: _Signals, states: list[str], clock_hz: float, at: int
) -> tuple[str, int]:
    """Lines of changes, and the last cycle named."""
    lines, names = [], signals.names
    # Of a signal, the last word in a cycle.
    order = np.lexsort((rows[:, 2], rows[:, 0]))
    keys = rows[order][:, [0, 2]]
    superseded = np.zeros(len(rows), bool)
    superseded[order[:-1]] = (keys[1:] == keys[:-1]).all(axis=1)
    for cycle, _, signal, kind, value in rows[~superseded].tolist():
        if cycle != at:
            lines.append(f"#{_picoseconds(cycle, clock_hz)}\n")
            at = cycle
        if kind == STATE:
            lines.append(f"s{states[value]} {names[signal]}\n")
        elif value == IDLE:
            lines.append(f"bx {names[signal]}\n")
        else:
            lines.append(f"b{value:b} {names[signal]}\n")
    return "".join(lines), at


def _picoseconds(cycle: int, clock_hz: float) -> int:
    return round(cycle * (1e12 / clock_hz))


def _identifier(number: int) -> str:
    """A signal's short name, of the printable characters."""
    text = ""
    while True:
        number, digit = divmod(number, 94)
        text += chr(33 + digit)
        if not number:
            return text
        number -= 1


def _word(name: str) -> str:
    """A name without blanks, which would end it."""
    return re.sub(r"[^!-~]+", "_", name) or "_"


def _unlike(name: str, used: set[str]) -> str:
    """A name as a scope that no other has."""
    word = plain = _word(name).replace("$", "_")
    number = 2
    while word in used:
        word, number = f"{plain}_{number}", number + 1
    used.add(word)
    return word
