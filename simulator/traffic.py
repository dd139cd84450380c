"""Bits that firings move in and out of memories, and the bandwidth over time that follows.

A machine says which firings read and write each of its memories, and how many bits each
(:class:`Access`). The bits of a firing move evenly while it is busy, which is a cycle at least: a
burst inside a firing is not seen. What is summed over a run is what the report says of the memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sparqsim.base import InputError
from sparqsim.simulator.loops import Loops
from sparqsim.simulator.queues import intervals
from sparqsim.simulator.timeline import Timeline


@dataclass(frozen=True, eq=False, kw_only=True)
class Access:
    """What the firings of an actor read from and write to a memory.

    Attributes
    ----------
    actor
        Whose firings.
    read_bits, written_bits
        One number, of each firing ``[firings]``, or ``[1 or firings, 1 or lanes]``, or loops; a
        mean need not be whole.
    """

    actor: str
    read_bits: ArrayLike | Loops = 0
    written_bits: ArrayLike | Loops = 0


Traffic = Mapping[str, Sequence[Access]]  # of each memory, by its name in the report


@dataclass(frozen=True, eq=False)
class Moved:
    """Bits read from and written to a memory in each interval.

    Attributes
    ----------
    edges
        Whole cycles ``[intervals + 1]`` from 0 to the end of the run.
    read_bits, written_bits
        ``[intervals]``.
    seconds
        Length of each interval ``[intervals]``.
    """

    edges: NDArray[np.int64]
    read_bits: NDArray[np.float64]
    written_bits: NDArray[np.float64]
    seconds: NDArray[np.float64]

    @property
    def read_gbytes_per_s(self) -> NDArray[np.float64]:
        """Bandwidth of reads in each interval."""
        return self.read_bits / 8e9 / self.seconds

    @property
    def written_gbytes_per_s(self) -> NDArray[np.float64]:
        """Bandwidth of writes in each interval."""
        return self.written_bits / 8e9 / self.seconds


def moved(
    timeline: Timeline,
    accesses: Sequence[Access],
    most_intervals: int = 400,
    window: tuple[int, int] | None = None,
) -> Moved:
    """Bits of a memory over time, in at most ``most_intervals`` intervals.

    Parameters
    ----------
    accesses
        All that read or write the memory.
    window
        The first cycle and the one behind the last; by default the whole run.

    Raises
    ------
    InputError
        If single firings were not recorded, an actor is unknown, or bits are negative, not finite
        or of a shape that its firings do not have.
    """
    firings = [_firings(timeline, access.actor) for access in accesses]
    end = max([timeline.cycles, *(int(f.ends.max(initial=0)) for f in firings)])
    begin, end = window if window and window != (0, timeline.cycles) else (0, end)
    edges = intervals(end, most_intervals, begin)
    read, written = np.zeros(len(edges) - 1), np.zeros(len(edges) - 1)
    for access, each in zip(accesses, firings, strict=True):
        read += each.spread(_bits(access, "read_bits", each), edges)
        written += each.spread(_bits(access, "written_bits", each), edges)
    return Moved(edges, read, written, np.diff(edges) / timeline.netlist.clock_hz)


@dataclass(frozen=True, eq=False)
class _Firings:
    """When the firings of an actor that happened began and ended; ``done`` says which those are."""

    done: NDArray[np.bool_]
    begins: NDArray[np.int64]
    ends: NDArray[np.int64]

    def spread(self, bits: NDArray[Any], edges: NDArray[np.int64]) -> NDArray[np.float64]:
        """The bits of each firing, evenly over its time, summed in each interval."""
        if not bits.any():
            return np.zeros(len(edges) - 1)
        rate = (bits / (self.ends - self.begins)).astype(np.float64)

        def before(at: NDArray[np.int64]) -> NDArray[np.float64]:
            """Rate times the cycles since ``at``, before each edge."""
            place = np.searchsorted(edges, at, side="left")
            rates = np.bincount(place, rate, len(edges) + 1)[: len(edges)]
            weighted = np.bincount(place, rate * at, len(edges) + 1)[: len(edges)]
            return np.asarray(np.cumsum(rates) * edges - np.cumsum(weighted), np.float64)

        moving: NDArray[np.float64] = np.diff(before(self.begins) - before(self.ends))
        return np.maximum(moving, 0.0)


def _firings(timeline: Timeline, actor: str) -> _Firings:
    starts = timeline.starts_of(actor)
    done = starts >= 0
    begins = starts[done]
    return _Firings(done, begins, begins + np.maximum(timeline.busy(actor)[done], 1))


def _bits(access: Access, what: str, firings: _Firings) -> NDArray[Any]:
    given = np.asarray(getattr(access, what))
    given = given[:, None] if given.ndim == 1 else given
    shape = firings.done.shape
    if given.dtype.kind not in "iuf" or not (np.isfinite(given) & (given >= 0)).all():
        raise InputError(f"{what} of {access.actor!r} must be finite numbers of at least 0")
    try:
        return np.broadcast_to(given, shape)[firings.done]
    except ValueError:
        raise InputError(
            f"{what} of {access.actor!r} must be one number, or fit its {shape[0]} firings of "
            f"{shape[1]} lanes, got shape {given.shape}"
        ) from None
