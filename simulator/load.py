"""How busy each lane of an actor was, over time."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from sparqsim.simulator.queues import intervals
from sparqsim.simulator.timeline import Timeline


@dataclass(frozen=True, eq=False)
class Load:
    """Busy shares of groups of neighbouring lanes.

    Attributes
    ----------
    edges
        Whole cycles ``[intervals + 1]`` from 0 to the end of the run.
    shares
        ``[groups, intervals]``, 0 to 1.
    lanes
        First lane of each group, and at the end how many lanes there are ``[groups + 1]``.
    """

    edges: NDArray[np.int64]
    shares: NDArray[np.float64]
    lanes: NDArray[np.int64]


def load_over_time(
    timeline: Timeline, actor: str, most_intervals: int = 240, most_rows: int = 128
) -> Load:
    """Busy share of each lane, or of groups of lanes where there are more than ``most_rows``.

    A firing counts in each interval for the cycles of it that lie within.

    Raises
    ------
    InputError
        If there is no such actor, or single firings were not recorded.
    """
    starts, busy = timeline.starts_of(actor), timeline.busy(actor)
    lanes = starts.shape[1]
    edges = intervals(timeline.cycles, most_intervals)
    groups = intervals(lanes, most_rows)
    shares = np.zeros((len(groups) - 1, len(edges) - 1))
    for row, (first, end) in enumerate(pairwise(groups)):
        done = starts[:, first:end] >= 0
        begins = np.sort(starts[:, first:end][done])
        ends = np.sort((starts[:, first:end] + busy[:, first:end])[done])
        covered = _passed(begins, edges) - _passed(ends, edges)
        shares[row] = np.diff(covered) / (np.diff(edges) * (end - first))
    return Load(edges, shares, groups)


def _passed(points: NDArray[np.int64], edges: NDArray[np.int64]) -> NDArray[np.int64]:
    """Cycles since each of the sorted points, summed, at each edge."""
    sums = np.concatenate([[0], np.cumsum(points)])
    count = np.searchsorted(points, edges)
    passed: NDArray[np.int64] = count * edges - sums[count]
    return passed
