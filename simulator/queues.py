"""How many tokens each queue of a run held over time.

A queue holds a token from the start of the firing that makes it to the start of the firing that
takes it: what counts against its capacity. Both are recorded starts, so the mean over any interval
is a difference of two sums that ``searchsorted`` finds; no list of events is made, and a million
firings cost milliseconds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sparqsim.base import InputError
from sparqsim.simulator.netlist import Channel, Netlist, Pattern
from sparqsim.simulator.timeline import Timeline


@dataclass(frozen=True, eq=False)
class Held:
    """Tokens held by the queues of one channel.

    Attributes
    ----------
    edges
        Whole cycles ``[intervals + 1]`` from 0 (or a window's begin) to the end of the run.
    tokens
        Mean number held in each interval by each queue, ``[intervals, queues]``. Queues follow the
        lanes they end at (for a gather, the lanes they begin at).
    """

    edges: NDArray[np.int64]
    tokens: NDArray[np.float64]


def intervals(cycles: int, most: int, begin: int = 0) -> NDArray[np.int64]:
    """Edges of at most ``most`` intervals of about equal length, each at least one cycle.

    They reach from ``begin`` to ``cycles``.
    """
    cycles = max(cycles, begin + 1)
    count = min(cycles - begin, most)
    return np.linspace(begin, cycles, count + 1).round().astype(np.int64)


def is_countable(netlist: Netlist, channel: Channel) -> bool:
    """Whether the tokens of each firing are known: not where a user's behaviour decides them."""
    ends = (netlist.actor(channel.source), netlist.actor(channel.target))
    return all(actor.behaviour is None for actor in ends)


def held(
    timeline: Timeline,
    channel: str,
    most_intervals: int = 400,
    window: tuple[int, int] | None = None,
) -> Held:
    """Mean tokens held by each queue of a channel in each of ``most_intervals`` intervals.

    Runs of fewer cycles get one interval per cycle, and then the numbers are exact counts. A window
    is the first cycle and the one behind the last; by default it is the whole run.

    Raises
    ------
    InputError
        If there is no such channel, single firings were not recorded, or a user's behaviour
        decides its tokens.
    """
    netlist = timeline.netlist
    known = [each.name for each in netlist.channels]
    if channel not in known:
        raise InputError(
            f"there is no channel {channel!r} in this run; there is {', '.join(known) or 'none'}"
        )
    c = netlist.channel(channel)
    if not is_countable(netlist, c):
        raise InputError(
            f"channel {channel!r} ends at an actor written as a behaviour, whose tokens are not "
            "recorded firing by firing; choose another channel"
        )
    begin, end = window or (0, timeline.cycles)
    edges = intervals(end, most_intervals, begin)
    made = _token_cycles(timeline.starts_of(c.source), c.produce, edges)
    taken = _token_cycles(timeline.starts_of(c.target), c.consume, edges)
    if c.pattern is Pattern.SHIFT:
        lanes = range(taken.shape[1])
        joined = [j for j in lanes if c.source_lanes(j, made.shape[1])]
        made, taken = made[:, [j - c.offset for j in joined]], taken[:, joined]
    # One lane on either side of a broadcast or a gather serves all queues.
    return Held(edges, np.diff(made - taken, axis=0) / np.diff(edges)[:, None])


def _token_cycles(
    starts: NDArray[np.int64], rates: ArrayLike, edges: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Tokens times the cycles since they passed, before each edge ``[edges, lanes]``."""
    rate = np.broadcast_to(np.asarray(rates, np.int64), starts.shape)
    sums = np.zeros((len(edges), starts.shape[1]), np.int64)
    for lane in range(starts.shape[1]):
        fired = int((starts[:, lane] >= 0).sum())
        at, amount = starts[:fired, lane], rate[:fired, lane]
        count = np.searchsorted(at, edges)
        tokens = np.concatenate([[0], np.cumsum(amount)])
        weighted = np.concatenate([[0], np.cumsum(amount * at)])
        sums[:, lane] = tokens[count] * edges - weighted[count]
    return sums
