"""The search for a mapping: even shares of every loop, the fastest that fits.

:func:`search_plain` is the specification, over :func:`candidates`; :func:`search` is the same
arithmetic compiled, remembered by chip and shape.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np

from sparqsim.architectures.arrays.shapes import ConvShape
from sparqsim.architectures.eyeriss.config import (
    KIB,
    SPAD_WORDS,
    Configuration,
    RowStationary,
)
from sparqsim.architectures.eyeriss.energies import WORD_BITS
from sparqsim.architectures.eyeriss.mapping import (
    active_pes,
    edges,
    filter_time,
    glb_bits,
    input_cycles,
    most_sets,
    overlapped_cycles,
    processing_cycles,
    steps,
    strips_of,
    unfit,
)
from sparqsim.base import InputError, kernel

LARGEST = np.iinfo(np.int64).max
Key = tuple[int, int, int]


def interleaved(chip: Configuration, shape: ConvShape) -> Iterator[tuple[int, int, int, int]]:
    """Output rows e, filters p and channels q of a PE, and images n worth trying: even shares."""
    wide = shape.kernel_width
    strips = shares(shape.out_height, chip.pes)
    many = shares(shape.out_channels, SPAD_WORDS["psum"])
    few = shares(shape.in_channels, SPAD_WORDS["ifmap"] // wide)
    images = shares(shape.batch, shape.batch)
    for e, p, q, n in itertools.product(strips, many, few, images):
        fits = p * q * wide <= SPAD_WORDS["filter"] and q * wide <= SPAD_WORDS["ifmap"]
        if fits and most_sets(chip, shape.kernel_height, e):
            yield e, p, q, n


def candidates(chip: Configuration, shape: ConvShape) -> Iterator[RowStationary]:
    """Mappings worth trying: even shares of every loop, the array as full as it goes."""
    for e, p, q, n in interleaved(chip, shape):
        most = most_sets(chip, shape.kernel_height, e)
        for r in shares(-(-shape.in_channels // q), most):
            for t in shares(-(-shape.out_channels // p), most // r):
                one = n * p * t * e * shape.out_width * WORD_BITS
                channels = min(q * r, shape.in_channels)
                held = strips_of(shape, e, chip.padded_glb).held
                left = chip.glb_kib * KIB - n * channels * held * WORD_BITS
                rounds = min(left // one, -(-shape.out_channels // (p * t)))
                if rounds >= 1:
                    yield RowStationary(n=n, m=rounds * p * t, e=e, p=p, q=q, r=r, t=t)


def shares(total: int, most: int) -> list[int]:
    """Sizes up to ``most`` (but at least 1) that cut a loop into different numbers of parts."""
    limit = max(1, min(total, most))
    return sorted({-(-total // parts) for parts in range(-(-total // limit), total + 1)})


def rank(chip: Configuration, shape: ConvShape, mapping: RowStationary) -> Key:
    """What a search minimises: cycles, cycles without DRAM, bits in the GLB."""
    total = passes = processing_cycles(chip, shape, mapping)
    if chip.off_chip:
        first, last = (filter_time(chip, shape, each) for each in edges(shape, mapping))
        end = steps(chip, shape, mapping, edges(shape, mapping)[1])
        total = first + overlapped_cycles(chip, shape, mapping)
        total -= max(0, end.fill_filters + last - end.total)
        total += input_cycles(chip, shape, mapping)
    return total, passes, sum(glb_bits(chip, shape, mapping))


def search_plain(chip: Configuration, shape: ConvShape) -> RowStationary | None:
    """The specification of :func:`search`; None where nothing fits."""
    best: tuple[Key, RowStationary] | None = None
    for mapping in candidates(chip, shape):
        # a mapping that multiplies longer than the best one takes cannot be better
        least = shape.macs // active_pes(shape, mapping)
        if (best is not None and least > best[0][0]) or unfit(chip, shape, mapping):
            continue
        key = rank(chip, shape, mapping)
        if best is None or key < best[0]:
            best = (key, mapping)
    return None if best is None else best[1]


@functools.cache
def search(chip: Configuration, shape: ConvShape) -> RowStationary:
    """The mapping with the fewest cycles, of equal ones that with the least in the GLB.

    With DRAM the link counts: inputs and the first filters are waited for, later ones come while a
    pass computes, and no link hides the last pass; of equal ones the fewest cycles without it.

    Raises
    ------
    InputError
        If the kernel is larger than the grid or the scratchpads.
    """
    sizes = (
        shape.batch, shape.out_height, shape.out_width, shape.kernel_height, shape.kernel_width,
        shape.stride_height, shape.patch(1, shape.out_width)[1], shape.in_channels,
        shape.out_channels, shape.groups, chip.glb_kib * KIB // WORD_BITS,
        chip.filter_kib * KIB // WORD_BITS, chip.filter_bus_bits, chip.psum_bus_bits,
        chip.ifmap_bus_bits // WORD_BITS, chip.link_bits,
    )  # fmt: skip
    link = chip.clock_hz / chip.link_hz if chip.off_chip else 0.0
    best = np.full(10, LARGEST, np.int64)
    for e, p, q, n in interleaved(chip, shape):
        most, strips = most_sets(chip, shape.kernel_height, e), strips_of(shape, e, chip.padded_glb)
        _try_sets(sizes, link, most, *strips, n, e, p, q, best)
    if best[0] == LARGEST:
        raise InputError(
            f"no row-stationary mapping fits a {shape.kernel_height} x {shape.kernel_width} "
            f"kernel: it must be at most {chip.rows} high and {SPAD_WORDS['ifmap']} wide, and "
            f"its sums must fit {chip.glb_kib} KiB"
        )
    letters = RowStationary.__struct_fields__
    return RowStationary(**dict(zip(letters, best[3:].tolist(), strict=True)))


@kernel(error_model="numpy")
def _next_share(total: Any, share: Any) -> Any:
    """The share after this one; 0 if it was the last."""
    parts = -(-total // share) - 1
    return -(-total // parts) if parts > 0 else 0


@kernel(error_model="numpy")
def _chunk(total: Any, size: Any, second: Any) -> Any:
    """A size into which a loop is cut, and how many there are: whole ones, then the rest."""
    if second:
        rest = total % size
        return rest, min(rest, 1)
    return size, total // size


@kernel(error_model="numpy")
def _last(total: Any, size: Any) -> Any:
    """Size of the last part of a loop."""
    return (total - 1) % size + 1


@kernel(error_model="numpy")
def _fill_filters(sizes: Any, channels: Any, filters: Any) -> Any:
    """Cycles in which a pass's filters leave the buffer for the PEs."""
    return -(-sizes[3] * sizes[4] * channels * filters * WORD_BITS // sizes[12])


@kernel(error_model="numpy")
def _pass_cycles(sizes: Any, p: Any, q: Any, n: Any, e: Any, m: Any, k: Any) -> Any:
    """The total of :func:`~sparqsim.architectures.eyeriss.mapping.steps`."""
    out_width, taps, wide, stride, broad = sizes[2:7]
    psum_bus, ifmap_words = sizes[13:15]
    filters, channels = min(p, m), min(q, k)
    high = (e - 1) * stride + taps
    inputs, window = n * k * high * broad, k * high * min(wide, broad)
    fill = _fill_filters(sizes, k, m) + -(-window // ifmap_words)
    compute = wide * out_width * filters * channels * n
    stream = -(-(inputs - window) // ifmap_words)
    psums = -(-n * m * e * out_width * WORD_BITS // psum_bus)
    return fill + max(compute, stream, psums) + filters + taps - 1


@kernel(error_model="numpy")
def _transfer(words: Any, link: Any, link_bits: Any) -> Any:
    """:func:`~sparqsim.architectures.eyeriss.mapping.link_time`."""
    return max(1, np.int64(np.ceil(-(-words * WORD_BITS // link_bits) * link)))


@kernel(error_model="numpy")
def _filter_time(sizes: Any, link: Any, channels: Any, filters: Any) -> Any:
    """:func:`~sparqsim.architectures.eyeriss.mapping.filter_time`."""
    return _transfer(sizes[3] * sizes[4] * channels * filters, link, sizes[15])


@kernel(error_model="numpy")
def _processing(
    sizes: Any, link: Any, n: Any, m: Any, e: Any, p: Any, q: Any, r: Any, t: Any
) -> Any:
    """:func:`~sparqsim.architectures.eyeriss.mapping.processing_cycles` and
    :func:`~sparqsim.architectures.eyeriss.mapping.overlapped_cycles`."""
    batch, out_height, in_channels, out_channels = sizes[0], sizes[1], sizes[7], sizes[8]
    total = overlapped = 0
    for which in range(32):  # whole chunks and rests of five loops
        images, a = _chunk(batch, n, which & 1)
        rows, b = _chunk(out_height, e, which & 2)
        channels, c = _chunk(in_channels, q * r, which & 4)
        held, d = _chunk(out_channels, m, which & 8)
        filters, f = _chunk(held, p * t, which & 16)
        times = a * b * c * d * f
        if times:
            one = _pass_cycles(sizes, p, q, images, rows, filters, channels)
            total += times * one
            filled = _fill_filters(sizes, channels, filters)
            overlapped += times * max(one, filled + _filter_time(sizes, link, channels, filters))
    return total * sizes[9], overlapped * sizes[9]


@kernel(error_model="numpy")
def _inputs(sizes: Any, link: Any, fetched: Any, n: Any, m: Any, held: Any) -> Any:
    """:func:`~sparqsim.architectures.eyeriss.mapping.input_cycles`; ``held`` channels at once."""
    in_channels, out_channels = sizes[7:9]
    rounds = 1 if held >= in_channels else -(-out_channels // m)
    total = 0
    for which in range(4):
        channels, c = _chunk(in_channels, held, which & 1)
        images, a = _chunk(sizes[0], n, which & 2)
        if a * c:
            for strip in range(len(fetched)):
                words = images * channels * fetched[strip, 0]
                total += a * c * fetched[strip, 1] * _transfer(words, link, sizes[15])
    return sizes[9] * rounds * total


@kernel(error_model="numpy")
def _rank(
    sizes: Any, link: Any, held: Any, fetched: Any,
    n: Any, m: Any, e: Any, p: Any, q: Any, r: Any, t: Any,
) -> Any:  # fmt: skip
    """:func:`rank`, but words for bits."""
    batch, out_height, out_width = sizes[:3]
    in_channels, out_channels = sizes[7:9]
    passes, overlapped = _processing(sizes, link, n, m, e, p, q, r, t)
    channels, total = min(q * r, in_channels), passes
    if link > 0:
        first = _filter_time(sizes, link, channels, min(p * t, m, out_channels))
        filters, rest = _last(_last(out_channels, m), p * t), _last(in_channels, q * r)
        end = _pass_cycles(sizes, p, q, _last(batch, n), _last(out_height, e), filters, rest)
        last = _fill_filters(sizes, rest, filters) + _filter_time(sizes, link, rest, filters)
        total = first + overlapped - max(0, last - end)
        total += _inputs(sizes, link, fetched, n, m, q * r)
    psums = n * min(m, out_channels) * e * out_width
    return total, passes, n * channels * held + psums


@kernel(error_model="numpy")
def _try_sets(
    sizes: Any, link: Any, most: Any, held: Any, fetched: Any,
    n: Any, e: Any, p: Any, q: Any, best: Any,
) -> None:  # fmt: skip
    """Try all numbers of sets, r and t; the inner half of :func:`search_plain`, compiled.

    Parameters
    ----------
    sizes : 16 ints
        Of the layer's loops (``broad`` is the width of the inputs it reads), then of the GLB and
        the filter buffer in words, of the three buses and the link.
    link : float
        Core cycles in which DRAM's link moves a word of its own; 0 where it takes no time.
    most : int
        Sets that the grid holds.
    held, fetched
        As in :class:`~sparqsim.architectures.eyeriss.mapping.Strips`, of strips of ``e`` rows.
    best : int64 [10]
        Improved: the rank of the best mapping so far, and its letters in their order.
    """
    batch, out_height, out_width, taps, wide = sizes[:5]
    in_channels, out_channels, groups, glb, filter_buffer = sizes[7:12]
    macs = groups * batch * out_height * out_width * taps * wide * in_channels * out_channels
    r = 1
    while 0 < r <= most:
        left = glb - n * min(q * r, in_channels) * held
        t = 1
        while 0 < t <= most // r and p * t * q * r * taps * wide <= filter_buffer:
            together = p * t
            rounds = min(left // (n * together * e * out_width), -(-out_channels // together))
            if rounds >= 1 and macs // (taps * r * e * t) <= best[0]:
                m = rounds * together
                key = _rank(sizes, link, held, fetched, n, m, e, p, q, r, t)
                if key < (best[0], best[1], best[2]):
                    for place, value in enumerate((*key, n, m, e, p, q, r, t)):
                        best[place] = value
            t = _next_share(-(-out_channels // p), t)
        r = _next_share(-(-in_channels // q), r)
