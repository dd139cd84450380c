"""The passes of a layer under a mapping: their order, their cycles, and the bits they move."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from sparqsim.architectures.account import Port
from sparqsim.architectures.arrays.shapes import ConvShape
from sparqsim.architectures.eyeriss.config import Configuration, Ints, RowStationary
from sparqsim.architectures.eyeriss.energies import WORD_BITS
from sparqsim.architectures.eyeriss.mapping import Pass, place, real_inputs, steps
from sparqsim.architectures.fixed_point import FixedPointLayer
from sparqsim.workloads.encodings.run_length import encoded_bits

IMAGES, ROWS, FILTERS, CHANNELS = range(4)  # columns of the spans of a pass, as in Pass


@dataclass(frozen=True, eq=False)
class Order:
    """Which part of the layer each pass works on.

    Attributes
    ----------
    group : int64 [passes]
    low, high : int64 [passes, 4]
        Half-open spans of images, output rows, and a group's filters and channels.
    held : int64 [passes, 2]
        Span of the filters whose partial sums wait in the GLB.
    loads, ends : int64 [passes]
        1 where a pass brings new inputs (a *block* of them), and where one ends a *round*: then
        sums of its images, rows and held filters are finished.
    """

    group: Ints
    low: Ints
    high: Ints
    held: Ints
    loads: Ints
    ends: Ints

    @classmethod
    def of(cls, shape: ConvShape, mapping: RowStationary) -> Order:
        """The loops, outermost first: groups, images, rows, held filters, channels, filters."""
        inner, ends = _inner(shape, mapping)
        group, images, rows = (
            each.ravel()
            for each in np.meshgrid(
                np.arange(shape.groups),
                np.arange(0, shape.batch, mapping.n),
                np.arange(0, shape.out_height, mapping.e),
                indexing="ij",
            )
        )
        outer = np.stack([images, rows], axis=1)
        step, end = np.array([mapping.n, mapping.e]), [shape.batch, shape.out_height]
        until = np.minimum(outer + step, end)
        times, each = len(group), len(inner)
        tiled = np.tile(inner, (times, 1))
        low = np.concatenate([np.repeat(outer, each, axis=0), tiled[:, 0:4:2]], axis=1)
        high = np.concatenate([np.repeat(until, each, axis=0), tiled[:, 1:4:2]], axis=1)
        groups = np.repeat(group, each)
        where = np.column_stack([groups, low[:, [IMAGES, ROWS, CHANNELS]]])
        loads = np.append(1, (np.diff(where, axis=0) != 0).any(axis=1)).astype(np.int64)
        return cls(groups, low, high, tiled[:, 4:], loads, np.tile(ends, times))

    @property
    def sizes(self) -> Ints:
        """``[passes, 4]``."""
        return self.high - self.low


def _inner(shape: ConvShape, mapping: RowStationary) -> tuple[Ints, Ints]:
    """Spans of filters, channels and held filters in one round of images and rows.

    Returns ``[passes, 6]``, and which of them end a round.
    """
    together, channels = (
        mapping.p * mapping.t,
        np.arange(0, shape.in_channels, mapping.q * mapping.r),
    )
    found, ends = [], []
    for first in range(0, shape.out_channels, mapping.m):
        stop = min(first + mapping.m, shape.out_channels)
        filters = np.arange(first, stop, together)
        f, c = np.tile(filters, len(channels)), np.repeat(channels, len(filters))
        spans = [
            f, np.minimum(f + together, stop),
            c, np.minimum(c + mapping.q * mapping.r, shape.in_channels),
            np.full(len(f), first), np.full(len(f), stop),
        ]  # fmt: skip
        found.append(np.column_stack(spans))
        ends.append((np.arange(len(f)) == len(f) - 1).astype(np.int64))
    return np.concatenate(found), np.concatenate(ends)


def share(mapping: RowStationary, number: int, channels: int, filters: int) -> tuple[slice, slice]:
    """Which of a pass's channels and filters a logical set works on."""
    of_channels, of_filters = number % mapping.r, number // mapping.r
    first, one = of_channels * mapping.q, of_filters * mapping.p
    return (
        slice(min(first, channels), min(first + mapping.q, channels)),
        slice(min(one, filters), min(one + mapping.p, filters)),
    )


class Sequence:
    """The passes of a layer, with or without numbers.

    Attributes
    ----------
    order : Order
    cells : int64 [sets, kernel rows, strip]
        The PEs of each logical set.
    steps : int64 [passes, 6]
        Cycles of the parts of each pass, as :class:`~.mapping.Steps` names them.
    lanes : int32 [passes, PEs]
        Cycles each PE multiplies in a pass; a product each.
    """

    def __init__(
        self,
        chip: Configuration,
        shape: ConvShape,
        mapping: RowStationary,
        work: FixedPointLayer | None,
    ) -> None:
        self.chip, self.shape, self.mapping, self.work = chip, shape, mapping, work
        cells = place(chip, shape.kernel_height, mapping.e, mapping.r * mapping.t)
        assert cells is not None
        self.cells = cells
        self.order = Order.of(shape, mapping)
        kinds, which = np.unique(self.order.sizes, axis=0, return_inverse=True)
        sizes = [Pass(*kind) for kind in kinds.tolist()]
        self.steps = np.array([steps(chip, shape, mapping, size) for size in sizes])[which]
        self.lanes = np.array([self._lane_cycles(size) for size in sizes], np.int32)[which]
        self.delivered = np.array([self._deliveries(size) for size in sizes], np.int64)[which]

    @property
    def count(self) -> int:
        """Passes."""
        return len(self.order.group)

    @property
    def busy_pes(self) -> int:
        """PEs that multiply, in the fullest pass."""
        return int((self.lanes > 0).sum(axis=1).max())

    def _sets(self, size: Pass) -> list[tuple[int, int, int]]:
        """Each logical set's number, channels and filters in a pass of a size."""
        found = []
        for number in range(self.mapping.r * self.mapping.t):
            channels, filters = share(self.mapping, number, size.channels, size.filters)
            found.append((number, channels.stop - channels.start, filters.stop - filters.start))
        return found

    def _lane_cycles(self, size: Pass) -> NDArray[np.int32]:
        """Cycles each PE multiplies in a pass of a size."""
        busy = np.zeros(self.chip.pes, np.int32)
        row = self.shape.kernel_width * self.shape.out_width * size.images
        for number, channels, filters in self._sets(size):
            busy[self.cells[number, :, : size.rows]] = row * channels * filters
        return busy

    def _deliveries(self, size: Pass) -> tuple[int, int]:
        """Words that arrive in scratchpads in a pass: of filters, and of inputs."""
        broad = self.shape.patch(1, self.shape.out_width)[1]
        of_filters = of_inputs = 0
        for _, channels, filters in self._sets(size):
            if channels * filters:
                of_filters += channels * filters * self.shape.kernel_width
                of_inputs += size.images * channels * broad
        pes = self.shape.kernel_height * size.rows
        return pes * of_filters, pes * of_inputs

    # ------------------------------------------------------------------ bits of each pass

    @cached_property
    def filter_bits(self) -> Ints:
        """Of the filters of each pass."""
        sizes = self.order.sizes
        return self.shape.taps * sizes[:, CHANNELS] * sizes[:, FILTERS] * WORD_BITS

    @property
    def _real(self) -> tuple[Ints, int]:
        """Of the inputs that each pass reaches, rows and columns that are no padding."""
        low, high = self.order.low[:, ROWS], self.order.high[:, ROWS]
        return real_inputs(self.shape.rows, low, high), self._real_columns(self.shape.out_width)

    def _real_columns(self, outputs: int) -> int:
        first = np.array([0])
        return int(real_inputs(self.shape.columns, first, first + outputs)[0])

    def _streamed(self, high: Ints, window: int, wide: int) -> tuple[Ints, Ints]:
        """Bits of the first windows of each pass's rows, and of what follows."""
        sizes = self.order.sizes
        rows = sizes[:, CHANNELS] * high * WORD_BITS
        return rows * window, rows * (sizes[:, IMAGES] * wide - window)

    @cached_property
    def bus_bits(self) -> tuple[Ints, Ints]:
        """Of each pass's inputs on the network, padding included: first windows, then the rest."""
        shape = self.shape
        high = (self.order.sizes[:, ROWS] - 1) * shape.stride_height + shape.kernel_height
        return self._streamed(high, shape.kernel_width, shape.columns.reach)

    @cached_property
    def input_bits(self) -> tuple[Ints, Ints]:
        """What each pass reads of the GLB: first windows, and the inputs that stream after."""
        if self.chip.padded_glb:
            return self.bus_bits
        high, wide = self._real
        return self._streamed(high, self._real_columns(1), wide)

    @cached_property
    def psum_bits(self) -> Ints:
        """Partial sums that each pass writes."""
        of = self.order.sizes
        return of[:, IMAGES] * of[:, FILTERS] * of[:, ROWS] * self.shape.out_width * WORD_BITS

    @cached_property
    def block_bits(self) -> tuple[Ints, Ints]:
        """Of each block of inputs in DRAM: as it is stored there, and raw.

        A strip's share of a plane is taken in proportion to its rows. Padding is not there, nor
        what lies beyond the last row and column that outputs reach.
        """
        order, shape, work = self.order, self.shape, self.work
        block = order.loads == 1
        low, high, group = order.low[block], order.high[block], order.group[block]
        (rows, wide), spans = self._real, high - low
        rows = rows[block]
        raw = spans[:, IMAGES] * spans[:, CHANNELS] * rows * wide * WORD_BITS
        if work is None or not raw.any():
            return raw, raw
        tall = int(real_inputs(shape.rows, np.array([0]), np.array([shape.out_height]))[0])
        x = work.x[:, :, :tall, :wide]
        coded = encoded_bits(x.reshape(-1, tall * wide)).reshape(shape.batch, -1)
        if coded.sum() >= x.size * WORD_BITS:  # dense data are stored as they are
            return raw, raw
        first = group * shape.in_channels
        planes = _box_sums(coded, low[:, IMAGES], high[:, IMAGES],
                           first + low[:, CHANNELS], first + high[:, CHANNELS])  # fmt: skip
        return -(-planes * rows // tall), raw

    @cached_property
    def round_bits(self) -> tuple[Ints, Ints]:
        """Of each round's outputs in DRAM: as they are stored there, and raw."""
        order, shape, work = self.order, self.shape, self.work
        done = order.ends == 1
        low, high, held = order.low[done], order.high[done], order.held[done]
        spans = high - low
        raw = spans[:, IMAGES] * spans[:, ROWS] * (held[:, 1] - held[:, 0])
        raw = raw * shape.out_width * WORD_BITS
        if work is None:
            return raw, raw
        first = order.group[done] * shape.out_channels
        found = np.zeros(len(raw), np.int64)
        for begin in np.unique(low[:, ROWS]):
            here = low[:, ROWS] == begin
            strip = work.image[:, :, begin : high[here, ROWS][0]]
            coded = encoded_bits(strip.reshape(strip.shape[0] * strip.shape[1], -1))
            found[here] = _box_sums(
                coded.reshape(strip.shape[:2]), low[here, IMAGES], high[here, IMAGES],
                (first + held[:, 0])[here], (first + held[:, 1])[here],
            )  # fmt: skip
        return (found if found.sum() < raw.sum() else raw), raw

    # ------------------------------------------------------------------ who moves them

    @property
    def ports(self) -> list[Port]:
        """What each actor of the netlist moves between DRAM, buffers, networks and scratchpads.

        Without the link, a pass finds its filters and inputs in DRAM when its filters leave the
        buffer, and outputs are there when the array has drained.
        """
        order, filters, psums = self.order, self.filter_bits, self.psum_bits
        (windows, stream), (first, rest) = self.input_bits, self.bus_bits
        back = np.where(order.low[:, CHANNELS] == 0, 0, psums)  # a round starts from zero
        to_filters, to_inputs = self.delivered.T * WORD_BITS
        at_first = to_inputs * first // (first + rest)
        hops = (self.shape.kernel_height - 1) * psums
        return [
            *self._from_dram(),
            Port(store="filter_buffer", actor="filter_noc", read_bits=filters),
            Port(store="noc", actor="filter_noc", written_bits=to_filters),
            Port(store="glb", actor="ifmap_fill", read_bits=windows),
            Port(store="noc", actor="ifmap_fill", written_bits=at_first),
            Port(store="glb", actor="ifmap_noc", read_bits=stream),
            Port(store="noc", actor="ifmap_noc", written_bits=to_inputs - at_first),
            Port(store="glb", actor="psum_noc", read_bits=back, written_bits=psums),
            Port(store="noc", actor="psum_noc", written_bits=hops + psums + back),
            self._scratchpads(),
        ]

    def _from_dram(self) -> list[Port]:
        """Filters and inputs on their way in, finished sums on their way out."""
        order, linked = self.order, self.chip.off_chip
        block, done = order.loads == 1, order.ends == 1
        filled = (self.input_bits[0] + self.input_bits[1])[block]
        inputs, (outputs, raw) = self.block_bits[0], self.round_bits

        def of(
            actor: str, otherwise: str, where: NDArray[np.bool_], bits: Ints
        ) -> tuple[str, Ints]:
            if linked:
                return actor, bits
            spread = np.zeros(self.count, np.int64)
            spread[where] = bits
            return otherwise, spread

        every = np.ones(self.count, bool)
        found = []
        for store, way, actor, otherwise, where, bits in (
            ("dram", "read_bits", "filter_dma", "filter_noc", every, self.filter_bits),
            ("filter_buffer", "written_bits", "filter_dma", "filter_noc", every, self.filter_bits),
            ("dram", "read_bits", "ifmap_dma", "filter_noc", block, inputs),
            ("glb", "written_bits", "ifmap_dma", "filter_noc", block, filled),
            ("glb", "read_bits", "ofmap_dma", "drain", done, raw),
            ("dram", "written_bits", "ofmap_dma", "drain", done, outputs),
        ):
            by, moved = of(actor, otherwise, where, bits)
            found.append(Port(store=store, actor=by, **{way: moved}))
        return found

    def _scratchpads(self) -> Port:
        """A product reads a filter word, an input and a sum, and writes the sum; a gated one reads
        its input alone. Gated products are spread evenly."""
        macs = self.shape.macs
        kept = 1 - (0 if self.work is None else self.work.zero_input) / macs
        each = self.lanes.sum(axis=1, dtype=np.int64) / self.chip.pes * WORD_BITS
        return Port(
            store="spads", actor="pe_array",
            read_bits=each * (3 * kept + (1 - kept)), written_bits=each * kept,
        )  # fmt: skip


def _box_sums(table: Ints, top: Ints, bottom: Ints, left: Ints, right: Ints) -> Ints:
    """Sums over boxes of a table: rows ``top`` to ``bottom``, columns ``left`` to ``right``."""
    sums = np.zeros((table.shape[0] + 1, table.shape[1] + 1), np.int64)
    sums[1:, 1:] = table.cumsum(axis=0).cumsum(axis=1)
    found: Ints = sums[bottom, right] - sums[top, right] - sums[bottom, left] + sums[top, left]
    return found
