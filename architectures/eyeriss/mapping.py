"""What a mapping is on the chip: where its sets lie, whether it fits, and what a pass takes."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from sparqsim.architectures.arrays.shapes import Axis, ConvShape
from sparqsim.architectures.eyeriss.config import (
    KIB,
    SPAD_WORDS,
    Configuration,
    Ints,
    RowStationary,
)
from sparqsim.architectures.eyeriss.energies import WORD_BITS


class Pass(NamedTuple):
    """One pass: sizes of its share of every loop (the last of a loop may be smaller)."""

    images: int
    rows: int
    filters: int
    channels: int


class Steps(NamedTuple):
    """Cycles of the parts of a pass."""

    fill_filters: int
    fill_ifmaps: int
    compute: int
    stream_ifmaps: int
    psums: int
    drain: int

    @property
    def total(self) -> int:
        """Cycles of the pass."""
        fill = self.fill_filters + self.fill_ifmaps
        return fill + max(self.compute, self.stream_ifmaps, self.psums) + self.drain


def most_sets(chip: Configuration, kernel_rows: int, strip: int) -> int:
    """How many logical sets fit the grid: side by side, or folded where they are too wide."""
    high = chip.rows // kernel_rows
    if strip <= chip.columns:
        return high * (chip.columns // strip)
    return high // -(-strip // chip.columns)


def place(chip: Configuration, kernel_rows: int, strip: int, sets: int) -> Ints | None:
    """Grid cells of the logical sets, or None where they do not fit.

    Returns
    -------
    int64 [sets, kernel_rows, strip]
        Number of the PE, row by row. A set wider than the grid is folded into pieces below each
        other.
    """
    if sets > most_sets(chip, kernel_rows, strip):
        return None
    number, tap, column = np.ogrid[:sets, :kernel_rows, :strip]
    if strip <= chip.columns:
        down, beside = np.divmod(number, chip.columns // strip)
        row, column = down * kernel_rows + tap, beside * strip + column
    else:
        piece, column = np.divmod(column, chip.columns)
        row = (number * -(-strip // chip.columns) + piece) * kernel_rows + tap
    cells: Ints = row * chip.columns + column
    return cells


def unfit(chip: Configuration, shape: ConvShape, mapping: RowStationary) -> str:
    """Why a mapping does not fit the chip; empty if it does."""
    taps, wide = shape.kernel_height, shape.kernel_width
    filters = mapping.p * mapping.q * wide
    if filters > SPAD_WORDS["filter"]:
        return f"p q S = {filters} filter words exceed {SPAD_WORDS['filter']} of a PE"
    if mapping.q * wide > SPAD_WORDS["ifmap"]:
        return f"q S = {mapping.q * wide} input words exceed {SPAD_WORDS['ifmap']} of a PE"
    if mapping.p > SPAD_WORDS["psum"]:
        return f"p = {mapping.p} partial sums exceed {SPAD_WORDS['psum']} of a PE"
    if mapping.e > shape.out_height or mapping.n > shape.batch:
        return f"e and n must be at most {shape.out_height} rows and {shape.batch} images"
    together = mapping.p * mapping.t
    if mapping.m % together and mapping.m < shape.out_channels:
        return f"m = {mapping.m} must be a multiple of p t = {together}"
    sets = mapping.r * mapping.t
    if sets > most_sets(chip, taps, mapping.e):
        return f"{sets} sets of {taps} x {mapping.e} PEs do not fit {chip.rows} x {chip.columns}"
    if together * mapping.q * mapping.r * taps * wide * WORD_BITS > chip.filter_kib * KIB:
        return f"the filters of a pass exceed {chip.filter_kib} KiB"
    inputs, psums = glb_bits(chip, shape, mapping)
    if inputs + psums > chip.glb_kib * KIB:
        taken = (inputs + psums) / KIB
        return f"inputs and partial sums take {taken:.1f} KiB of the GLB's {chip.glb_kib}"
    return ""


def real_inputs(axis: Axis, low: Ints, high: Ints) -> Ints:
    """Inputs between the first and the last that outputs ``low`` to ``high`` reach, less padding.

    Parameters
    ----------
    axis : Axis
    low, high : int64 [spans]
        Half-open spans of outputs.
    """
    begin = np.maximum(low * axis.stride, axis.before)
    reached = high * axis.stride + axis.span(1) - axis.stride
    found: Ints = np.maximum(np.minimum(reached, axis.reach - axis.after) - begin, 0)
    return found


class Strips(NamedTuple):
    """Inputs of an image's channel, by strips of output rows.

    Attributes
    ----------
    held : int
        What the GLB has room for while it works on a strip.
    fetched : int64 [kinds, 2]
        What a strip fetches from DRAM, where no padding is, and how many strips fetch as much.
    """

    held: int
    fetched: Ints


@functools.lru_cache(maxsize=4096)
def strips_of(shape: ConvShape, strip: int, padded: bool) -> Strips:
    """The inputs of strips of so many output rows, of which the GLB may hold padding too."""
    rows, columns = shape.rows, shape.columns
    first = np.arange(0, shape.out_height, strip)
    whole = np.array([0])
    wide = int(real_inputs(columns, whole, whole + shape.out_width)[0])
    inputs = wide * real_inputs(rows, first, np.minimum(first + strip, shape.out_height))
    held = rows.span(strip) * columns.reach if padded else int(inputs.max())
    return Strips(held, np.column_stack(np.unique(inputs, return_counts=True)))


def glb_bits(chip: Configuration, shape: ConvShape, mapping: RowStationary) -> tuple[int, int]:
    """Bits of inputs and of partial sums a mapping keeps in the GLB."""
    channels = min(mapping.q * mapping.r, shape.in_channels)
    held = strips_of(shape, mapping.e, chip.padded_glb).held
    inputs = mapping.n * channels * held * WORD_BITS
    filters = min(mapping.m, shape.out_channels)
    return inputs, mapping.n * filters * mapping.e * shape.out_width * WORD_BITS


def active_pes(shape: ConvShape, mapping: RowStationary) -> int:
    """PEs a mapping uses: R r e t."""
    return shape.kernel_height * mapping.r * mapping.e * mapping.t


def steps(chip: Configuration, shape: ConvShape, mapping: RowStationary, work: Pass) -> Steps:
    """How long the parts of a pass take."""
    taps, wide = shape.kernel_height, shape.kernel_width
    high, broad = shape.patch(work.rows, shape.out_width)
    filters, channels = min(mapping.p, work.filters), min(mapping.q, work.channels)
    words = taps * wide * work.channels * work.filters
    inputs = work.images * work.channels * high * broad
    window = work.channels * high * min(wide, broad)
    psums = work.images * work.filters * work.rows * shape.out_width
    ifmap_words = chip.ifmap_bus_bits // WORD_BITS
    return Steps(
        fill_filters=-(-words * WORD_BITS // chip.filter_bus_bits),
        fill_ifmaps=-(-window // ifmap_words),
        compute=wide * shape.out_width * filters * channels * work.images,
        stream_ifmaps=-(-(inputs - window) // ifmap_words),
        psums=-(-psums * WORD_BITS // chip.psum_bus_bits),
        drain=filters + taps - 1,  # the last p sums climb the column
    )


def processing_cycles(chip: Configuration, shape: ConvShape, mapping: RowStationary) -> int:
    """Cycles of all passes, one after another: the analytic twin of a run without DRAM."""
    return sum(
        times * steps(chip, shape, mapping, work).total for work, times in _kinds(shape, mapping)
    )


def _kinds(shape: ConvShape, mapping: RowStationary) -> Iterator[tuple[Pass, int]]:
    """Passes of each size, and how many there are."""
    for (n, a), (e, b), (m, c), (k, d) in itertools.product(
        chunks(shape.batch, mapping.n),
        chunks(shape.out_height, mapping.e),
        _filter_chunks(shape, mapping),
        chunks(shape.in_channels, mapping.q * mapping.r),
    ):
        yield Pass(n, e, m, k), a * b * c * d * shape.groups


def link_time(chip: Configuration, bits: int) -> int:
    """Core cycles for which a transfer holds the link: its whole words, a cycle at least."""
    return max(1, math.ceil(-(-bits // chip.link_bits) * (chip.clock_hz / chip.link_hz)))


def analytic_cycles(chip: Configuration, shape: ConvShape, mapping: RowStationary) -> int:
    """Cycles in closed form, equal to a run's where nothing is compressed."""
    return (linked_cycles if chip.off_chip else processing_cycles)(chip, shape, mapping)


def linked_cycles(chip: Configuration, shape: ConvShape, mapping: RowStationary) -> int:
    """Cycles with DRAM, nothing compressed: the analytic twin of such a run.

    Filters of the next pass come while one computes, from the cycle after it has taken its own;
    what waits for the drain of a pass is waited for in turn: the inputs of the next block of them,
    and the slots of the sums that leave.
    """
    once = mapping.q * mapping.r >= shape.in_channels  # then the next round finds inputs there
    rounds = -(-shape.out_channels // mapping.m)
    total = (1 if once else rounds) * _input_cycles(chip, shape, mapping)
    total += _output_cycles(chip, shape, mapping)
    follow = list(_following(shape, mapping))
    for (n, a), (e, b) in itertools.product(
        chunks(shape.batch, mapping.n), chunks(shape.out_height, mapping.e)
    ):
        for (filters, channels), after, times in follow:
            one = steps(chip, shape, mapping, Pass(n, e, filters, channels)).total
            total += a * b * times * max(one, 1 + _filter_time(chip, shape, *after))
    # Behind the last pass comes none, and nothing hides the filters of the first.
    (filters, channels), first, _ = follow[-1]
    end = Pass(_last(shape.batch, mapping.n), _last(shape.out_height, mapping.e), filters, channels)
    waited = _filter_time(chip, shape, *first)
    hidden = max(0, 1 + waited - steps(chip, shape, mapping, end).total)
    return shape.groups * total + waited - hidden


def _following(
    shape: ConvShape, mapping: RowStationary
) -> Iterator[tuple[tuple[int, int], tuple[int, int], int]]:
    """Filters and channels of the passes over a strip, those of the pass behind, and how often.

    The very last comes last; behind it comes the first.
    """
    together = mapping.p * mapping.t
    held = chunks(shape.out_channels, mapping.m)
    channels = chunks(shape.in_channels, mapping.q * mapping.r)
    for size, d in held:
        filters = chunks(size, together)
        for k, c in channels:
            for one, other, times in _neighbours(filters)[:-1]:
                yield (one, k), (other, k), d * c * times
        for one, other, times in _neighbours(channels)[:-1]:
            yield (filters[-1][0], one), (filters[0][0], other), d * times
    for one, other, times in _neighbours(held):
        yield (
            (_last(one, together), channels[-1][0]),
            (min(other, together), channels[0][0]),
            times,
        )


def _neighbours(parts: list[tuple[int, int]]) -> list[tuple[int, int, int]]:
    """Sizes of a loop, the size behind, and how often; last the last, behind which the first is."""
    behind = parts[1:] + parts[:1]
    return [
        each
        for (size, times), (after, _) in zip(parts, behind, strict=True)
        for each in ((size, size, times - 1), (size, after, 1))
    ]


def _input_cycles(chip: Configuration, shape: ConvShape, mapping: RowStationary) -> int:
    """Cycles the link takes for all inputs of a group, once."""
    total = 0
    for (n, a), (k, d) in itertools.product(
        chunks(shape.batch, mapping.n), chunks(shape.in_channels, mapping.q * mapping.r)
    ):
        for each, times in strips_of(shape, mapping.e, chip.padded_glb).fetched.tolist():
            total += a * d * times * link_time(chip, n * k * each * WORD_BITS)
    return total


def _output_cycles(chip: Configuration, shape: ConvShape, mapping: RowStationary) -> int:
    """Cycles the link takes for all outputs of a group."""
    return sum(
        a * b * c * link_time(chip, n * e * m * shape.out_width * WORD_BITS)
        for (n, a), (e, b), (m, c) in itertools.product(
            chunks(shape.batch, mapping.n),
            chunks(shape.out_height, mapping.e),
            chunks(shape.out_channels, mapping.m),
        )
    )


def _filter_time(chip: Configuration, shape: ConvShape, filters: int, channels: int) -> int:
    """Cycles the link takes for the filters of a pass."""
    return link_time(chip, shape.taps * channels * filters * WORD_BITS)


def _last(total: int, size: int) -> int:
    """Size of the last part of a loop."""
    return (total - 1) % size + 1


def chunks(total: int, size: int) -> list[tuple[int, int]]:
    """Sizes into which a loop is cut, and how many there are of each."""
    whole, rest = divmod(total, size)
    return [pair for pair in ((size, whole), (rest, int(rest > 0))) if pair[0] and pair[1]]


def _filter_chunks(shape: ConvShape, mapping: RowStationary) -> list[tuple[int, int]]:
    return [
        (size, count * times)
        for held, times in chunks(shape.out_channels, mapping.m)
        for size, count in chunks(held, mapping.p * mapping.t)
    ]
