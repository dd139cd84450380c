"""SNAP's MAC core: channel-index matching of bundles and two-level reduction of partial sums.

Both operands lie in *bundles*: the non-zeros of a few neighbouring channels at one place, each with
its channel index. The front end compares every index of a weight bundle with every index of an
activation bundle in an N x N array of comparators; a match is a useful product. Bundles longer than
N take several passes, one for every pair of N-long pieces; an empty bundle takes none. Up to
``multipliers`` products enter a PE's adder tree per cycle. If it can be split, a cycle may hold
the last products of one bundle pair and the first of the next, which belong to other outputs.

Products add up in two levels: the products of a bundle pair within the PE, then the sums of the
PEs that work on the same output. What leaves is a partial sum (psum) to be written to the output
buffer. :func:`match` counts the psums there would be with either level, with both and with none.

Where a PE works at a step is said by three tables (:class:`Schedule`), so that every mapping - and
every kernel size, stride, dilation and group - is data. A fully connected layer is a convolution
of a 1 x 1 image. Sums are plain 64-bit integers; the machine wraps them to its width.

:func:`match` runs the kernel, which marks the channels of an activation bundle and looks up every
weight's channel. :func:`match_plain` is the same with the comparators spelt out.

Source: Zhang et al., SNAP, VLSI 2019 and JSSC 2021.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from sparqsim.base import kernel


class Bundles(NamedTuple):
    """A tensor in bundles, place by place: int64 pointers, uint8 channels, int32 values."""

    pointers: NDArray[np.int64]
    channels: NDArray[np.uint8]
    values: NDArray[np.int32]


class Geometry(NamedTuple):
    """A convolution; ``bundles`` is how many cover the channels of one group at one place."""

    groups: int
    bundles: int
    height: int
    width: int
    kernel_height: int
    kernel_width: int
    stride_y: int
    stride_x: int
    pad_y: int
    pad_x: int
    dilation_y: int
    dilation_x: int


class Schedule(NamedTuple):
    """Who works where; step ``(round * tiles + tile) * items + item``.

    Attributes
    ----------
    blocks : int64 [rounds, slots, 3]
        Group, first output channel and the one after the last of a block; equal where idle. Slot
        ``core * slots_per_core + i`` belongs to PE rows ``i * positions`` and following.
    positions : int64 [tiles, positions, 3]
        Image, row and column of the outputs the PE rows of a slot work on; image -1 where idle.
    items : int64 [items, columns, 3]
        Kernel row, kernel column and bundle that each column of PEs takes; kernel row -1 where
        idle.
    """

    blocks: NDArray[np.int64]
    positions: NDArray[np.int64]
    items: NDArray[np.int64]

    @property
    def steps(self) -> int:
        """Steps of every lane."""
        return len(self.blocks) * len(self.positions) * len(self.items)


class FrontEnd(NamedTuple):
    """Comparators a side, multipliers of a PE, whether its tree splits; rows and slots of cores."""

    comparators: int
    multipliers: int
    splits: bool
    rows: int
    slots_per_core: int


class Work(NamedTuple):
    """What :func:`match` fills in. PE lanes are ``[column, core, row]``, row lanes ``[core, row]``.

    Attributes
    ----------
    sums : int64 [images, output channels, height, width]
        Added to.
    passes, cycles, products, pe_psums : int32 [steps, PE lanes]
        Comparator passes; cycles in which the PE multiplies; products, each a psum where nothing
        is reduced; psums where products of a bundle pair are summed in the PE.
    aligned, reduced : int32 [steps, row lanes]
        Psums where only the PEs of a row add their products one by one; where both levels do.
    fetched : int32 [steps, slots]
        Activations read from the buffer, by the slot for whose block: each bundle once a step for
        all output channels of its group.
    """

    sums: NDArray[np.int64]
    passes: NDArray[np.int32]
    cycles: NDArray[np.int32]
    products: NDArray[np.int32]
    pe_psums: NDArray[np.int32]
    aligned: NDArray[np.int32]
    reduced: NDArray[np.int32]
    fetched: NDArray[np.int32]

    @classmethod
    def blank(
        cls, outputs: tuple[int, int, int, int], schedule: Schedule, columns: int, rows: int
    ) -> Work:
        """Zeros for the steps of a schedule, PE columns and rows of all cores."""
        steps, slots = schedule.steps, schedule.blocks.shape[1]
        widths = (*[columns * rows] * 4, rows, rows, slots)
        counts = [np.zeros((steps, width), np.int32) for width in widths]
        return cls(np.zeros(outputs, np.int64), *counts)


@kernel(error_model="numpy", parallel=True)
def _match(
    a_pointers: Any,
    a_channels: Any,
    a_values: Any,
    w_pointers: Any,
    w_channels: Any,
    w_values: Any,
    length: int,
    geometry: Any,
    blocks: Any,
    positions: Any,
    taps: Any,
    front: Any,
    sums: Any,
    passes: Any,
    cycles: Any,
    products: Any,
    pe_psums: Any,
    aligned: Any,
    reduced: Any,
    fetched: Any,
) -> Any:
    """The loops of :func:`match`.

    Arrays come one by one: under ``parallel=True`` numba loses what is written to arrays within a
    tuple. No two turns of the parallel loop write to the same place: they differ in the output
    position or in the block of output channels.
    """
    rounds, slots = blocks.shape[0], blocks.shape[1]
    tiles, at_once = positions.shape[0], positions.shape[1]
    items, columns = taps.shape[0], taps.shape[1]
    row_lanes = reduced.shape[1]
    pairs = 0
    for unit in numba.prange(rounds * tiles * slots):
        slot = unit % slots
        tile = unit // slots % tiles
        turn = unit // (slots * tiles)
        group = blocks[turn, slot, 0]
        first, end = blocks[turn, slot, 1], blocks[turn, slot, 2]
        if first == end:
            continue
        fetches = slot == 0 or blocks[turn, slot - 1, 0] != group
        core, within = slot // front.slots_per_core, slot % front.slots_per_core
        marks = np.zeros((columns, length), np.int32)
        sizes = np.zeros(columns, np.int64)
        starts = np.zeros(columns, np.int64)
        places = np.zeros(columns, np.int64)
        for position in range(at_once):
            image = positions[tile, position, 0]
            if image < 0:
                continue
            out_y, out_x = positions[tile, position, 1], positions[tile, position, 2]
            row = core * front.rows + within * at_once + position
            for item in range(items):
                step = (turn * tiles + tile) * items + item
                for j in range(columns):
                    sizes[j] = 0
                    r, s = taps[item, j, 0], taps[item, j, 1]
                    y = out_y * geometry.stride_y + r * geometry.dilation_y - geometry.pad_y
                    x = out_x * geometry.stride_x + s * geometry.dilation_x - geometry.pad_x
                    if r < 0 or y < 0 or y >= geometry.height or x < 0 or x >= geometry.width:
                        continue
                    place = (image * geometry.groups + group) * geometry.height + y
                    bundle = taps[item, j, 2]
                    place = (place * geometry.width + x) * geometry.bundles + bundle
                    starts[j] = a_pointers[place]
                    sizes[j] = a_pointers[place + 1] - starts[j]
                    for e in range(starts[j], starts[j] + sizes[j]):
                        marks[j, a_channels[e]] = a_values[e]
                    places[j] = (r * geometry.kernel_width + s) * geometry.bundles + bundle
                    if fetches:
                        fetched[step, slot] += sizes[j]
                bundles_of = geometry.kernel_height * geometry.kernel_width * geometry.bundles
                for channel in range(first, end):
                    total = np.int64(0)
                    most, contributing = 0, 0
                    for j in range(columns):
                        if sizes[j] == 0:
                            continue
                        low = w_pointers[channel * bundles_of + places[j]]
                        high = w_pointers[channel * bundles_of + places[j] + 1]
                        if low == high:
                            continue
                        found = 0
                        psum = np.int64(0)
                        for e in range(low, high):
                            activation = marks[j, w_channels[e]]
                            found += activation != 0
                            psum += np.int64(w_values[e]) * np.int64(activation)
                        lane = j * row_lanes + row
                        pieces = -(-(high - low) // front.comparators)
                        pieces *= -(-sizes[j] // front.comparators)
                        pairs += 1
                        passes[step, lane] += pieces
                        products[step, lane] += found
                        if not front.splits:
                            cycles[step, lane] += -(-found // front.multipliers)
                        if found:
                            pe_psums[step, lane] += 1
                            contributing += 1
                            most = max(most, found)
                        total += psum
                    aligned[step, row] += most
                    reduced[step, row] += contributing > 0
                    sums[image, channel, out_y, out_x] += total
                for j in range(columns):
                    lane = j * row_lanes + row
                    if front.splits:
                        cycles[step, lane] = -(-products[step, lane] // front.multipliers)
                    for e in range(starts[j], starts[j] + sizes[j]):
                        marks[j, a_channels[e]] = 0
    return pairs


def match(
    activations: Bundles,
    weights: Bundles,
    length: int,
    geometry: Geometry,
    schedule: Schedule,
    front: FrontEnd,
    work: Work,
) -> int:
    """Match every bundle pair of a layer, multiply, reduce and count.

    Parameters
    ----------
    activations : Bundles
        Places [image, group, y, x].
    weights : Bundles
        Places [output channel, kernel row, kernel column].
    length
        Channels a bundle covers.
    geometry : Geometry
    schedule : Schedule
    front : FrontEnd
    work : Work
        Filled in.

    Returns
    -------
    pairs : int
        Pairs of bundles that are both not empty.
    """
    return int(_match(*activations, *weights, length, geometry, *schedule, front, *work))


def match_plain(
    activations: Bundles,
    weights: Bundles,
    length: int,
    geometry: Geometry,
    schedule: Schedule,
    front: FrontEnd,
    work: Work,
) -> int:
    """The specification of :func:`match`: one comparator, one product, one psum after another."""
    pairs = 0
    row_lanes = work.reduced.shape[1]
    at_once = schedule.positions.shape[1]
    step = -1
    for blocks in schedule.blocks:
        for positions in schedule.positions:
            for item in schedule.items:
                step += 1
                for slot, (group, first, end) in enumerate(blocks):
                    core, within = divmod(slot, front.slots_per_core)
                    fetches = slot == 0 or blocks[slot - 1][0] != group
                    for position, where in enumerate(positions):
                        if where[0] < 0 or first == end:
                            continue
                        row = core * front.rows + within * at_once + position
                        bundles = [
                            activation_bundle(activations, geometry, group, where, tap)
                            for tap in item
                        ]
                        if fetches:
                            work.fetched[step, slot] += sum(
                                len(channels) for channels, _ in bundles
                            )
                        for channel in range(first, end):
                            at_row = []
                            for j, tap in enumerate(item):
                                lane = j * row_lanes + row
                                other = weight_bundle(weights, geometry, channel, tap)
                                found, passes = compare(bundles[j], other, front.comparators)
                                pairs += passes > 0
                                work.passes[step, lane] += passes
                                work.products[step, lane] += len(found)
                                work.pe_psums[step, lane] += bool(found)
                                if not front.splits:
                                    work.cycles[step, lane] += -(-len(found) // front.multipliers)
                                at_row.append(found)
                            work.aligned[step, row] += max(len(found) for found in at_row)
                            work.reduced[step, row] += any(at_row)
                            image, y, x = where
                            work.sums[image, channel, y, x] += sum(sum(found) for found in at_row)
                if front.splits:
                    work.cycles[step] = -(-work.products[step] // front.multipliers)
    return pairs


Bundle = tuple[NDArray[np.uint8], NDArray[np.int32]]


def _bundle(stored: Bundles, place: int) -> Bundle:
    low, high = stored.pointers[place], stored.pointers[place + 1]
    return stored.channels[low:high], stored.values[low:high]


def activation_bundle(
    activations: Bundles, geometry: Geometry, group: int, where: Any, tap: Any
) -> Bundle:
    """The bundle under a kernel tap at an output; empty in the padding and where idle."""
    (image, out_y, out_x), (r, s, bundle) = where, tap
    y = out_y * geometry.stride_y + r * geometry.dilation_y - geometry.pad_y
    x = out_x * geometry.stride_x + s * geometry.dilation_x - geometry.pad_x
    if r < 0 or not (0 <= y < geometry.height and 0 <= x < geometry.width):
        return np.zeros(0, np.uint8), np.zeros(0, np.int32)
    place = ((image * geometry.groups + group) * geometry.height + y) * geometry.width + x
    return _bundle(activations, int(place * geometry.bundles + bundle))


def weight_bundle(weights: Bundles, geometry: Geometry, channel: int, tap: Any) -> Bundle:
    """The bundle of an output channel at a kernel tap; empty where idle."""
    r, s, bundle = tap
    if r < 0:
        return np.zeros(0, np.uint8), np.zeros(0, np.int32)
    place = (channel * geometry.kernel_height + r) * geometry.kernel_width + s
    return _bundle(weights, int(place * geometry.bundles + bundle))


def compare(one: Bundle, other: Bundle, comparators: int) -> tuple[list[int], int]:
    """Products of two bundles, and the passes through an array of ``comparators`` a side."""
    products: list[int] = []
    passes = 0
    for low in range(0, len(other[0]), comparators):
        for start in range(0, len(one[0]), comparators):
            passes += 1
            for e in range(low, min(low + comparators, len(other[0]))):
                # A row of comparators; channels differ within a bundle, so one matches at most.
                row = one[0][start : start + comparators] == other[0][e]
                if row.any():
                    match_at = start + int(row.argmax())  # the priority encoder
                    products.append(int(one[1][match_at]) * int(other[1][e]))
    return products, passes
