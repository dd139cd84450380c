"""Which part of a run a trace shows, and its firings in the order of time, piece by piece.

A firing belongs to a window of cycles if it touches it, and is then shown whole. Pieces are
stretches of time that hold about :data:`PIECE` firings each, so that text is made and forgotten
piece by piece, however long the run is.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sparqsim.base import InputError
from sparqsim.simulator.timeline import Timeline

PIECE = 1 << 14  # firings

Ints = NDArray[np.int64]


class Window(NamedTuple):
    """Cycles ``begin`` up to, but not including, ``end``."""

    begin: int
    end: int

    @classmethod
    def parse(cls, text: str) -> Window:
        """A window from ``FROM:TO``, in cycles.

        Raises
        ------
        InputError
            If it reads otherwise, or is empty.

        Examples
        --------
        >>> Window.parse("100:250")
        Window(begin=100, end=250)
        """
        first, _, last = text.partition(":")
        if not (first.isdecimal() and last.isdecimal() and int(first) < int(last)):
            raise InputError(f"a window reads FROM:TO in cycles, as 1000:2000, got {text!r}")
        return cls(int(first), int(last))

    def within(self, timeline: Timeline) -> Window:
        """The part of it in which the run happens.

        Raises
        ------
        InputError
            If the run ends before it begins.
        """
        if self.begin >= max(timeline.cycles, 1):
            raise InputError(
                f"the window {self.begin}:{self.end} begins after the run, which has "
                f"{timeline.cycles:,} cycles"
            )
        return Window(self.begin, min(self.end, max(timeline.cycles, 1)))


def window_of(timeline: Timeline, window: Window | None) -> Window:
    """The cycles to show: a window within the run, or all of it.

    Raises
    ------
    InputError
        If single firings were not recorded, or the window lies behind the end.
    """
    if timeline.starts is None:
        raise InputError(
            "a trace shows single firings, but this run kept only sums; run it with record='full'"
        )
    return (window or Window(0, max(timeline.cycles, 1))).within(timeline)


def touching(timeline: Timeline, actor: str, window: Window) -> NDArray[np.bool_]:
    """Which firings ``[firings, lanes]`` of an actor touch the window."""
    starts = timeline.starts_of(actor)
    done: NDArray[np.bool_] = starts >= 0
    if window == (0, max(timeline.cycles, 1)):
        return done
    last = starts + np.maximum(timeline.busy(actor), 1)
    return done & (starts < window.end) & (last > window.begin)


def count_touching(timeline: Timeline, window: Window) -> int:
    """Firings that touch the window, of all actors."""
    return sum(int(touching(timeline, a.name, window).sum()) for a in timeline.netlist.actors)


def pieces(
    timeline: Timeline, actors: list[str], window: Window
) -> Iterator[tuple[int, int, list[tuple[Ints, Ints]]]]:
    """Stretches ``[begin, end)`` of time with the firings and lanes of each actor starting there.

    The first begins at the first start of a firing that touches the window, the last ends with it.
    """
    masks = [touching(timeline, name, window) for name in actors]
    ordered = [_in_order(timeline.starts_of(n), m) for n, m in zip(actors, masks, strict=True)]
    firings = sum(len(starts) for starts, _ in ordered)
    first = min((int(starts[0]) for starts, _ in ordered if len(starts)), default=window.begin)
    first = min(first, window.begin)
    count = max(1, min(-(-firings // PIECE), window.end - first))
    edges = np.linspace(first, window.end, count + 1).astype(np.int64)
    places = [np.searchsorted(starts, edges) for starts, _ in ordered]
    for number, (begin, end) in enumerate(zip(edges.tolist(), edges[1:].tolist(), strict=False)):
        found = []
        for name, (_, order), place in zip(actors, ordered, places, strict=True):
            lanes = timeline.netlist.actor(name).lanes
            firing, lane = np.divmod(order[place[number] : place[number + 1]], lanes)
            found.append((firing, lane))
        yield begin, end, found


def _in_order(starts: Ints, mask: NDArray[np.bool_]) -> tuple[Ints, Ints]:
    """Starts of the firings of a mask in the order of time, and their flat places."""
    flat = np.flatnonzero(mask)
    begun = starts.reshape(-1)[flat]
    order = np.argsort(begun, kind="stable")
    return begun[order], flat[order]


class Pending:
    """Records ``(cycle, rank, ...)`` that wait until all earlier ones are known."""

    def __init__(self, fields: int) -> None:
        self.records: list[NDArray[np.int64]] = [np.zeros((0, fields), np.int64)]

    def add(self, *columns: Any) -> None:
        """Add records, one column per field; a field may be one number for all."""
        rows = np.column_stack(np.broadcast_arrays(*columns)).astype(np.int64)
        if len(rows):
            self.records.append(rows)

    def before(self, cycle: int | None) -> NDArray[np.int64]:
        """Take out those of earlier cycles (or all), by cycle, then rank, then as they came."""
        rows = np.concatenate(self.records)
        due = np.ones(len(rows), bool) if cycle is None else rows[:, 0] < cycle
        self.records = [rows[~due]]
        rows = rows[due]
        return rows[np.lexsort((rows[:, 1], rows[:, 0]))]
