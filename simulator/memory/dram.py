"""DRAM: channels of banks with row buffers, as stateful resources of a netlist.

A :class:`Dram` says which standard, how many channels, how addresses are spread over them and
what the controller does with open rows. :meth:`Dram.requests` cuts transfers of bytes into
requests (one a burst, a row or a whole tile) for each channel; :meth:`Dram.resources` gives the
resources those requests go to. A controller that holds 32 requests is an actor of 32 lanes: each
lane waits with one request and is free again when the request has left the controller's queue. A
lane cannot open the first row of a request while it waits with the one before, so a DMA engine
that keeps two requests in flight is an actor of two lanes.

How a channel serves is told in :mod:`sparqsim.simulator.memory.dram_kernels`; the standards and
their
sources are in :mod:`sparqsim.simulator.memory.standards`. :func:`replay` runs one channel alone,
without a netlist, fed through queues as a memory controller is.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray

from sparqsim.base import InputError
from sparqsim.simulator.memory.standards import DramStandard, dram_standard
from sparqsim.simulator.netlist import FieldBound, Resource

Ints = NDArray[np.int64]


class Page(enum.Enum):
    """What becomes of a row after a request: it stays open, or all rows are closed."""

    OPEN = "open"
    CLOSED = "closed"


class Granularity(enum.Enum):
    """How much one request moves: a burst, up to a row's bytes, or a whole transfer."""

    BURST = "burst"
    ROW = "row"
    TILE = "tile"


class Dram(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A DRAM and its controller.

    Parameters
    ----------
    standard
        A name from :data:`sparqsim.simulator.memory.standards.STANDARDS`, or a table of one's own.
    channels
        Independent channels (pseudo-channels of HBM).
    mapping
        The fields of an address from the most significant: ``Ro`` row, ``Ba`` bank within its
        group, ``Bg`` bank group, ``Co`` column, and with several channels ``Ch``. By default
        neighbouring bursts take turns among the bank groups. With ``Co`` last a row, or a tile,
        is read from one bank group at tCCD_L; only requests of single bursts, which the
        controller may reorder, then overlap the end of one row with the next.
    page
        Whether rows stay open after a request.
    refresh
        Whether refreshes are done.
    write_batch
        Bursts written before waiting reads go first again.
    controller_cycles
        Cycles (tCK) from the arrival of a request to its first command.

    Raises
    ------
    InputError
        On an unknown standard, a mapping that does not name every field once, a number below 1.

    Examples
    --------
    >>> ddr = Dram(standard="DDR4-3200", channels=2, mapping="RoBaChCoBg")
    >>> round(ddr.peak_bytes_per_s / 1e9, 1)
    51.2
    """

    standard: str | DramStandard
    channels: int = 1
    mapping: str = "RoBaCoBg"
    page: Page = Page.OPEN
    refresh: bool = True
    # assumed: a queue of 32 that drains from .8 to .2, the watermarks Ramulator 2.1 has
    write_batch: int = 20
    controller_cycles: int = 1  # assumed: a request is registered once before it is scheduled

    def __post_init__(self) -> None:
        if isinstance(self.standard, str):
            dram_standard(self.standard)
        for key, least in (("channels", 1), ("write_batch", 1), ("controller_cycles", 0)):
            if not least <= getattr(self, key) < 1 << 20:
                raise InputError(
                    f"dram.{key} must be a whole number from {least} to 2^20 - 1, got "
                    f"{getattr(self, key)}"
                )
        wanted = {"Ro", "Ba", "Bg", "Co"} | ({"Ch"} if self.channels > 1 else set())
        if set(self._fields) != wanted or len(self.mapping) != 2 * len(wanted):
            raise InputError(
                f"dram.mapping must name each of {', '.join(sorted(wanted))} once, most "
                f"significant first, got {self.mapping!r}; try "
                f"'RoBa{'Ch' if self.channels > 1 else ''}CoBg'"
            )

    @property
    def _fields(self) -> list[str]:
        return re.findall("[A-Z][a-z]", self.mapping)

    @property
    def timing(self) -> DramStandard:
        """The table of one channel."""
        if isinstance(self.standard, str):
            return dram_standard(self.standard)
        return self.standard

    @property
    def capacity_bytes(self) -> int:
        """Bytes in all channels."""
        return self.channels * self.timing.channel_bytes

    @property
    def peak_bytes_per_s(self) -> float:
        """Bytes a second of all channels if their data buses never rested."""
        return self.channels * self.timing.peak_bytes_per_s

    def layout(self) -> dict[str, tuple[int, int]]:
        """Where each field lies in a burst address within a channel: (first bit, bits)."""
        timing = self.timing
        sizes = {
            "Ro": timing.rows,
            "Ba": timing.banks_per_group,
            "Bg": timing.bank_groups,
            "Co": timing.bursts_per_row,
        }
        where, at = {}, 0
        for name in reversed([field for field in self._fields if field != "Ch"]):
            bits = sizes[name].bit_length() - 1
            where[name] = (at, bits)
            at += bits
        return where

    def requests(
        self,
        address: ArrayLike,
        size: ArrayLike,
        is_write: ArrayLike = False,
        granularity: Granularity = Granularity.ROW,
    ) -> list[Ints]:
        """Cut transfers into requests.

        Parameters
        ----------
        address, size
            First byte and number of bytes of each transfer, ``[transfers]`` or a number. Whole
            bursts are moved, so that a transfer not aligned to them moves more.
        is_write
            Whether the transfer writes.
        granularity
            What one request moves at most.

        Returns
        -------
        list of int64 [requests, 5]
            For each channel its requests in order: flat bank, row, bursts, 1 for a write, and
            the address in bursts within the channel.

        Raises
        ------
        InputError
            On numbers that are not whole, a size below 1, or bytes outside the DRAM.
        """
        arrays = [np.atleast_1d(np.asarray(given)) for given in (address, size, is_write)]
        names = ("address", "size", "is_write")
        for name, array in zip(names, arrays, strict=True):
            if array.ndim != 1 or array.dtype.kind not in "iub":
                raise InputError(
                    f"dram transfers: {name} must be whole numbers [transfers], got "
                    f"{array.dtype} of shape {array.shape}"
                )
        try:
            first, count, write = np.broadcast_arrays(*arrays)
        except ValueError:
            shapes = ", ".join(f"{n} {len(a)}" for n, a in zip(names, arrays, strict=True))
            raise InputError(f"dram transfers must be equally many, got {shapes}") from None
        first, count = first.astype(np.int64), count.astype(np.int64)
        if len(first) and (count.min() < 1 or first.min() < 0):
            raise InputError(
                f"dram transfers start at byte 0 or above and move at least 1 byte, got address "
                f"{first.min()}, size {count.min()}"
            )
        if len(first) and (first + count).max() > self.capacity_bytes:
            raise InputError(
                f"dram transfer ends at byte {(first + count).max()}, but there are "
                f"{self.capacity_bytes}; use more channels or a larger standard"
            )
        burst = self.timing.burst_bytes
        begin, end = first // burst, -(-(first + count) // burst)
        return [
            self._cut(self._within(begin, channel), self._within(end, channel), write, granularity)
            for channel in range(self.channels)
        ]

    def _within(self, burst: Ints, channel: int) -> Ints:
        """How many of the bursts before ``burst`` lie in a channel."""
        if self.channels == 1:
            return burst
        below = self._fields[self._fields.index("Ch") + 1 :]
        low = 1 << sum(self.layout()[name][1] for name in below)
        rounds, rest = np.divmod(burst, low * self.channels)
        return rounds * low + np.clip(rest - channel * low, 0, low)

    def _cut(
        self, begin: Ints, end: Ints, write: NDArray[np.generic], granularity: Granularity
    ) -> Ints:
        """Requests for bursts ``begin`` up to ``end`` of one channel, none for empty spans."""
        if granularity is Granularity.TILE:
            pieces = (end > begin).astype(np.int64)
            step = self.timing.banks * self.timing.rows * self.timing.bursts_per_row
        else:
            row = granularity is Granularity.ROW
            step = self.timing.bursts_per_row if row else 1
            pieces = np.where(end > begin, -(-end // step) - begin // step, 0)
        which = np.repeat(np.arange(len(begin)), pieces)
        part = np.arange(len(which)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
        address = np.maximum(begin[which], (begin[which] // step + part) * step)
        stop = np.minimum(end[which], (begin[which] // step + part + 1) * step)
        if granularity is Granularity.TILE:
            address, stop = begin[which], end[which]
        where = self.layout()
        row_bits, bank, group = (
            (address >> where[name][0]) & ((1 << where[name][1]) - 1) for name in ("Ro", "Ba", "Bg")
        )
        flat = (group << where["Ba"][1]) | bank
        columns = (flat, row_bits, stop - address, write[which] != 0, address)
        return np.stack(columns, axis=1).astype(np.int64)

    def channel(self, clock_hz: float | None = None) -> DramChannel:
        """One channel as a stateful model, for a netlist of that clock; by default its own."""
        return DramChannel(self, clock_hz)

    def resources(self, clock_hz: float, name: str = "dram") -> list[Resource]:
        """The channels as resources ``name0``, ``name1``, ... (``name`` if there is one)."""
        return [
            Resource(
                name=f"{name}{index}" if self.channels > 1 else name, model=self.channel(clock_hz)
            )
            for index in range(self.channels)
        ]


@dataclass(frozen=True)
class DramChannel:
    """The model of one channel: what :class:`sparqsim.simulator.netlist.ResourceModel` asks for.

    Parameters
    ----------
    dram
        The DRAM it belongs to.
    clock_hz
        Clock of the netlist; ``None`` for the channel's own (1 / tCK). The two clocks tick in
        exact proportion; times are rounded up when they cross.
    """

    dram: Dram
    clock_hz: float | None = None
    kind = "dram"

    def __post_init__(self) -> None:
        if self.clock_hz is not None and not (
            np.isfinite(self.clock_hz) and 1e3 <= self.clock_hz <= 1e12
        ):
            raise InputError(f"clock_hz must be 1 kHz to 1 THz, got {self.clock_hz}")

    def bounds(self) -> tuple[FieldBound, ...]:
        """Bank, row, bursts, whether it writes, and the address in bursts within the channel."""
        timing = self.dram.timing
        bursts = timing.banks * timing.rows * timing.bursts_per_row
        return (
            FieldBound("bank", 0, timing.banks - 1),
            FieldBound("row", 0, timing.rows - 1),
            FieldBound("bursts", 1, bursts),
            FieldBound("is_write", 0, 1),
            FieldBound("address", 0, bursts - 1),
        )

    @cached_property
    def ticks(self) -> Fraction:
        """Cycles of the channel (tCK) in one cycle of the netlist."""
        if self.clock_hz is None:
            return Fraction(1)
        exact = Fraction(10**12) / (Fraction(str(self.clock_hz)) * self.dram.timing.tCK_ps)
        return exact.limit_denominator(10**6)  # 64-bit products; off by 1e-12 at most

    def parameters(self) -> Ints:
        """Constants of the channel, as :mod:`sparqsim.simulator.memory.dram_kernels` lists them."""
        dram, timing, where = self.dram, self.dram.timing, self.dram.layout()
        lowest = [name for name in sorted(where, key=lambda name: where[name]) if where[name][1]]
        rounds = lowest[:2] == ["Bg", "Co"]
        run = timing.bursts_per_row if lowest[:1] == ["Co"] else 1
        if rounds:
            run = timing.bursts_per_row * timing.bank_groups
        # Hides a change of rows in every bank group behind the data of the rows before.
        lookahead = dram.controller_cycles + timing.tRP + max(timing.tRCD_rd, timing.tRCD_wr)
        lookahead += (timing.bank_groups - 1) * max(0, timing.tRRD_S - timing.tCCD_S)
        return np.array(
            [
                *(self.ticks.numerator, self.ticks.denominator, dram.controller_cycles, lookahead),
                *(dram.page is Page.CLOSED, dram.write_batch, timing.burst_cycles),
                *(timing.CL, timing.CWL, timing.tRCD_rd, timing.tRCD_wr, timing.tRP, timing.tRAS),
                *(timing.tRC, timing.tCCD_S, timing.tCCD_L, timing.tRRD_S, timing.tRRD_L),
                *(timing.tFAW, timing.tWR, timing.tRTP, timing.read_to_write),
                *(timing.write_to_read_s, timing.write_to_read_l, timing.tRFC, timing.tREFI),
                *(timing.banks, where["Ba"][1]),
                *(where["Ro"][0], timing.rows - 1, where["Bg"][0], timing.bank_groups - 1),
                *(where["Ba"][0], timing.banks_per_group - 1),
                *(run, rounds),
            ],
            dtype=np.int64,
        )

    def initial_state(self) -> Ints:
        """All banks closed and idle, the first refresh due after tREFI."""
        from sparqsim.simulator.memory import dram_kernels as k

        timing = self.dram.timing
        state = np.zeros(k.FIRST_BANK + timing.banks * k.BANK_WORDS, dtype=np.int64)
        state[k.FAW_0 : k.FAW_3 + 1] = k.LONG_AGO
        state[k.DUE] = timing.tREFI if self.dram.refresh else k.NEVER
        state[k.LAST_KIND] = -1
        state[k.FIRST_BANK + k.B_ROW :: k.BANK_WORDS] = -1
        return state


@dataclass(frozen=True, eq=False)
class Replay:
    """What one channel did with a list of requests.

    Attributes
    ----------
    start, end
        Cycle in which each request was served, and by which its data was across; int64
        ``[requests]``, in cycles of the channel's ``clock_hz``.
    hits, misses, conflicts
        Bursts that found their row open, their bank closed, another row open.
    refreshes, turnarounds, read_bursts, write_bursts
        Refreshes; changes of the direction of the bus; bursts moved.
    """

    start: Ints
    end: Ints
    hits: int
    misses: int
    conflicts: int
    refreshes: int
    turnarounds: int
    read_bursts: int
    write_bursts: int

    @property
    def cycles(self) -> int:
        """Cycle by which the last data was across."""
        return int(self.end.max(initial=0))

    @property
    def activates(self) -> int:
        """Rows opened."""
        return self.misses + self.conflicts


def replay(
    channel: DramChannel, requests: Ints, *, read_queue: int = 32, write_queue: int = 32
) -> Replay:
    """Feed a list of requests to one channel through a controller's queues.

    Requests enter in order, each into its queue as soon as that has a place; the channel serves
    them by its rank. All are there from cycle 0.

    Parameters
    ----------
    channel
        The model and its clock.
    requests
        ``[requests, 5]``, from :meth:`Dram.requests`.
    read_queue, write_queue
        Places in the two queues.

    Raises
    ------
    InputError
        If the requests have another shape or a queue no place.
    """
    from sparqsim.simulator.memory import dram_kernels as k

    given = np.asarray(requests)
    if given.ndim != 2 or given.shape[1] != k.FIELDS or given.dtype != np.int64:
        raise InputError(
            f"requests must be int64 [requests, {k.FIELDS}] from Dram.requests, got "
            f"{given.dtype} of shape {given.shape}"
        )
    for name, places in (("read_queue", read_queue), ("write_queue", write_queue)):
        if not 1 <= places <= 1 << 20:
            raise InputError(f"{name} must have 1 to 2^20 places, got {places}")
    state = channel.initial_state()
    start, end = np.zeros((2, len(given)), dtype=np.int64)
    entries = np.array([read_queue, write_queue], dtype=np.int64)
    waiting = np.zeros(entries.sum(), dtype=np.int64)
    leaving = np.zeros((2, k.FIRST + entries.max()), dtype=np.int64)
    k.replay(
        channel.parameters(),
        state,
        np.ascontiguousarray(given),
        entries,
        waiting,
        leaving,
        start,
        end,
    )
    counts: Sequence[int] = state[k.HITS : k.WRITE_BURSTS + 1].tolist()
    return Replay(start, end, *counts)
