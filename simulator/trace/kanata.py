"""A run as a pipeline diagram that Konata opens: the log format Kanata 0004.

A row follows a token from actor to actor, lane to lane; its stages are the firings it takes part
in, each as long as the firing occupies its lane (or until the row's next stage begins, where that
is earlier). Where a token waits before the next stage, from the cycle in which it is visible, lane
1 of the row names the cause. Where one token goes to many lanes, or many are taken at once, new
rows begin, and an arrow leads to each from the row that woke it.

A firing goes on with the row of the last token it has taken from its first channel lane to lane
(or shifted) that leads forward; a firing that takes none stays with the token before. Of several
firings to which one row could lead the first has it. Two traces stand side by side in Konata.

The text is streamed; what is kept is 24 bytes per firing.

Source: "Kanata log format", docs/kanata-log-format.md of Konata (Shioya).
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sparqsim.base import printable
from sparqsim.simulator.netlist import Channel, Netlist, Pattern
from sparqsim.simulator.queues import is_countable
from sparqsim.simulator.timeline import INPUT, Timeline
from sparqsim.simulator.trace.window import Ints, Pending, Window, pieces, touching

NONE = -1
# What happens to a row in a cycle, in the order in which it must be written.
STAGE_ENDS, WAIT_ENDS, ROW_ENDS, ROW_BEGINS, STAGE_AT_ONCE, STAGE_BEGINS, WAIT_BEGINS = range(7)
LANES = 1 << 24  # an actor and a lane as one number


@dataclass(frozen=True, eq=False)
class Rows:
    """Which row each firing of an actor belongs to, each ``[firings, lanes]``; NONE if not shown.

    ``woken_by`` is, where a row begins, the row of the token that it came from; ``follow`` the
    cycle in which the row's next stage begins, and ``why`` the cause of that start.
    """

    row: Ints
    begins: NDArray[np.bool_]
    woken_by: Ints
    follow: Ints
    why: NDArray[np.int32]


def rows_of(timeline: Timeline, window: Window) -> tuple[list[Rows], int]:
    """The rows of each actor's firings, and how many there are."""
    netlist, found = timeline.netlist, list[Rows]()
    count = 0
    for actor, (channel, goes_on) in zip(netlist.actors, _main_inputs(netlist), strict=True):
        shown = touching(timeline, actor.name, window)
        row = np.full(shown.shape, NONE, np.int64)
        woken, begins = row.copy(), shown.copy()
        if channel is not None:
            source = found[netlist.index(channel.source)]
            for lane in range(actor.lanes):
                lanes = channel.source_lanes(lane, source.row.shape[1])
                if lanes and len(source.row):
                    into = (row[:, lane], begins[:, lane], woken[:, lane])
                    _lane_rows(timeline, channel, goes_on, source, lane, shown[:, lane], into)
        new = int(begins.sum())
        row[begins] = count + np.arange(new)
        count += new
        row = _kept(row, shown)
        follow = np.full(shown.shape, NONE, np.int64)
        why = np.full(shown.shape, NONE, np.int32)
        starts, causes = timeline.starts_of(actor.name), timeline.causes_of(actor.name)
        same = (row[1:] == row[:-1]) & (row[1:] != NONE)
        follow[:-1][same], why[:-1][same] = starts[1:][same], causes[1:][same]
        found.append(Rows(row, begins, woken, follow, why))
        if channel is not None and goes_on:
            _lead_on(timeline, found[netlist.index(channel.source)], found[-1], actor.name)
    return found, count


def _main_inputs(netlist: Netlist) -> list[tuple[Channel | None, bool]]:
    """For each actor the channel its rows follow, and whether rows of its source go on in it.

    Channels that lead to an actor declared no later are not followed: they close a cycle. The rows
    of an actor go on in one other alone, the first that follows a channel from it.
    """
    found: list[tuple[Channel | None, bool]] = []
    led_on: set[str] = set()
    for i in range(len(netlist.actors)):
        forward = [
            channel
            for channel in (netlist.channels[c] for c in netlist.inputs[i])
            if netlist.index(channel.source) < i and is_countable(netlist, channel)
        ]
        straight = [c for c in forward if c.pattern in (Pattern.LANE, Pattern.SHIFT)]
        channel = next(iter(straight or forward), None)
        goes_on = channel is not None and bool(straight) and channel.source not in led_on
        if channel is not None and goes_on:
            led_on.add(channel.source)
        found.append((channel, goes_on))
    return found


def _lane_rows(
    timeline: Timeline, channel: Channel, goes_on: bool, source: Rows, lane: int,
    present: NDArray[np.bool_], into: tuple[Ints, NDArray[np.bool_], Ints],
) -> None:  # fmt: skip
    """Fill in a lane's rows where they go on, where they begin anew, and what woke them."""
    row, begins, woken = into
    produce, consume = timeline.rates(channel.name)
    taken = np.broadcast_to(consume, (len(row), consume.shape[1]))[:, lane % consume.shape[1]]
    taking = present & (taken > 0)
    last = np.cumsum(taken) - 1  # the last token taken so far
    starts = timeline.starts_of(channel.source)
    maker, feeder = np.zeros(len(row), np.int64), np.zeros(len(row), np.int64)
    latest = np.full(len(row), NONE, np.int64)
    for each in channel.source_lanes(lane, source.row.shape[1]):
        made = np.broadcast_to(produce, (len(starts), produce.shape[1]))
        sums = np.cumsum(made[:, each % produce.shape[1]])
        place = np.searchsorted(sums, last, side="right").clip(0, len(sums) - 1)
        later = starts[place, each] > latest
        maker[later], feeder[later], latest[later] = place[later], each, starts[place, each][later]
    origin = source.row[maker, feeder]
    first = taking.copy()
    at = np.flatnonzero(taking)
    first[at[1:]] = maker[at[1:]] != maker[at[:-1]]
    joins = np.zeros(len(row), bool)
    if goes_on:
        after = np.minimum(maker + 1, len(source.row) - 1)
        is_last = (after == maker) | (source.row[after, feeder] != origin)
        joins = first & is_last & (origin != NONE)
    row[joins] = origin[joins]
    # A firing that takes nothing stays with the token before it.
    before = np.maximum.accumulate(np.where(taking, np.arange(len(row)), NONE))
    stays = present & ~taking & (before != NONE)
    begins[:] = present & ~joins & ~stays
    woken[begins & taking] = origin[begins & taking]


def _kept(row: Ints, shown: NDArray[np.bool_]) -> Ints:
    """Rows with the firings that stay with the one before them filled in."""
    known = np.where(row != NONE, np.arange(len(row))[:, None], NONE)
    before = np.maximum.accumulate(known, axis=0) if len(row) else known
    filled = np.take_along_axis(row, before.clip(0), axis=0) if len(row) else row
    return np.where(shown & (before != NONE), filled, NONE)


def _lead_on(timeline: Timeline, source: Rows, target: Rows, name: str) -> None:
    """Tell the last firing of each row in the source when its next stage begins, and why."""
    starts, causes = timeline.starts_of(name), timeline.causes_of(name)
    goes_on = (target.row != NONE) & ~target.begins
    goes_on[1:] &= target.row[1:] != target.row[:-1]  # the row's first stage in this actor
    firing, lane = np.nonzero(goes_on)
    known = source.row != NONE
    ends = known.copy()
    ends[:-1] &= source.row[1:] != source.row[:-1]
    k, i = np.nonzero(ends)
    order = np.argsort(source.row[k, i])
    k, i = k[order], i[order]
    place = np.searchsorted(source.row[k, i], target.row[firing, lane])
    source.follow[k[place], i[place]] = starts[firing, lane]
    source.why[k[place], i[place]] = causes[firing, lane]


def kanata_text(timeline: Timeline, window: Window) -> Iterator[str]:
    """The file, piece by piece."""
    found, count = rows_of(timeline, window)
    names = [actor.name for actor in timeline.netlist.actors]
    writer = _Writer(timeline, count)
    yield f"Kanata\t0004\nC=\t{window.begin}\n"
    writer.at = window.begin
    pending = Pending(6)
    for _, end, piece in pieces(timeline, names, window):
        for i, (rows, (firing, lane)) in enumerate(zip(found, piece, strict=True)):
            _stages(timeline, i, rows, firing, lane, window, pending)
        yield writer.lines(pending.before(end if end < window.end else None))


def _stages(
    timeline: Timeline, i: int, rows: Rows, firing: Ints, lane: Ints, window: Window,
    pending: Pending,
) -> None:  # fmt: skip
    """Add what happens to the rows of these firings of an actor.

    A record is a cycle, its rank, a row, and what is named: actor and lane or cause, firing, waker.
    """
    name = timeline.netlist.actors[i].name
    row = rows.row[firing, lane]
    start = timeline.starts_of(name)[firing, lane]
    end = start + timeline.busy(name)[firing, lane]
    visible = np.maximum(start + timeline.latency(name)[firing, lane], end)
    follow, why = rows.follow[firing, lane], rows.why[firing, lane]
    goes_on = follow != NONE
    start = np.maximum(start, window.begin)
    end = np.maximum(np.where(goes_on, np.minimum(end, follow), end), start)
    begins, place = rows.begins[firing, lane], i * LANES + lane
    waker = rows.woken_by[firing, lane]
    pending.add(
        *(start[begins], ROW_BEGINS, row[begins], place[begins], firing[begins], waker[begins])
    )
    lasts = end > start
    pending.add(start[lasts], STAGE_BEGINS, row[lasts], place[lasts], NONE, NONE)
    pending.add(end[lasts], STAGE_ENDS, row[lasts], place[lasts], NONE, NONE)
    pending.add(start[~lasts], STAGE_AT_ONCE, row[~lasts], place[~lasts], NONE, NONE)
    since = np.maximum(visible, start)
    waits = goes_on & (follow > since)
    pending.add(since[waits], WAIT_BEGINS, row[waits], why[waits], NONE, NONE)
    pending.add(follow[waits], WAIT_ENDS, row[waits], why[waits], NONE, NONE)
    pending.add(since[~goes_on], ROW_ENDS, row[~goes_on], NONE, NONE, NONE)


class _Writer:
    """Turns records into lines; rows are numbered as they appear."""

    def __init__(self, timeline: Timeline, rows: int) -> None:
        netlist = timeline.netlist
        self.number = array("q", bytes(8 * rows))
        self.count = self.retired = self.at = 0
        self.actors = [_words(actor.name) for actor in netlist.actors]
        self.banks = [actor.lanes > 1 for actor in netlist.actors]
        codes = range(INPUT + 2 * len(netlist.channels))
        self.causes = [_words(timeline.cause_name(code)) for code in codes]

    def lines(self, records: Ints) -> str:
        """Lines of records in order."""
        lines, numbers = [], self.number
        for cycle, rank, row, place, firing, waker in records.tolist():
            if cycle > self.at:
                lines.append(f"C\t{cycle - self.at}\n")
                self.at = cycle
            if rank == ROW_BEGINS:
                lines.append(self._begin(row, place, firing, waker))
                continue
            number = numbers[row]
            if rank == STAGE_BEGINS:
                lines.append(f"S\t{number}\t0\t{self.actors[place // LANES]}\n")
            elif rank == STAGE_ENDS:
                lines.append(f"E\t{number}\t0\t{self.actors[place // LANES]}\n")
            elif rank == ROW_ENDS:
                lines.append(f"R\t{number}\t{self.retired}\t0\n")
                self.retired += 1
            elif rank == WAIT_BEGINS:
                lines.append(f"S\t{number}\t1\t{self.causes[place]}\n")
            elif rank == WAIT_ENDS:
                lines.append(f"E\t{number}\t1\t{self.causes[place]}\n")
            else:
                name = self.actors[place // LANES]
                lines.append(f"S\t{number}\t0\t{name}\nE\t{number}\t0\t{name}\n")
        return "".join(lines)

    def _begin(self, row: int, place: int, firing: int, waker: int) -> str:
        number = self.number[row] = self.count
        self.count += 1
        actor, lane = divmod(place, LANES)
        label = (
            f"{self.actors[actor]}[{lane}] {firing}"
            if self.banks[actor]
            else (f"{self.actors[actor]} {firing}")
        )
        text = f"I\t{number}\t{row}\t{actor}\nL\t{number}\t0\t{label}\n"
        if waker != NONE:
            text += f"W\t{number}\t{self.number[waker]}\t0\n"
        return text


def _words(name: str) -> str:
    """A name without tabs and line breaks, which would end it."""
    return " ".join(printable(name).split()) or "_"
