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
    analytic_cycles,
    glb_bits,
    most_sets,
    processing_cycles,
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
    total, passes = analytic_cycles(chip, shape, mapping), processing_cycles(chip, shape, mapping)
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

    With DRAM the link counts, nothing compressed; of equal ones the fewest cycles without it.

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
    """Cycles the link takes for the filters of a pass."""
    return _transfer(sizes[3] * sizes[4] * channels * filters, link, sizes[15])


@kernel(error_model="numpy")
def _strip(
    sizes: Any, link: Any, images: Any, rows: Any, m: Any, p: Any, q: Any, r: Any, t: Any
) -> Any:
    """Cycles of the passes over a strip, alone and with the filters that the next one waits for.

    A pass of each size, and what may come behind it: one of as many filters, or of the last ones,
    then the first filters of the next channels, then of the next filters held; and in the end the
    first pass again.
    """
    in_channels, out_channels = sizes[7:9]
    together, most = p * t, q * r
    least, begin, low = _last(in_channels, most), min(most, in_channels), _last(out_channels, m)
    alone = linked = 0
    for which in range(8):  # whole chunks and rests of three loops
        held, d = _chunk(out_channels, m, which & 1)
        channels, c = _chunk(in_channels, most, which & 2)
        filters, f = _chunk(held, together, which & 4)
        if d * c * f == 0:
            continue
        one = _pass_cycles(sizes, p, q, images, rows, filters, channels)
        alone += d * c * f * one
        linked += d * c * (f - 1) * max(one, 1 + _filter_time(sizes, link, channels, filters))
        rest = _last(held, together)
        if filters != rest:
            linked += d * c * max(one, 1 + _filter_time(sizes, link, channels, rest))
            continue
        first = min(together, held)
        linked += d * (c - 1) * max(one, 1 + _filter_time(sizes, link, channels, first))
        if channels != least:
            linked += d * max(one, 1 + _filter_time(sizes, link, least, first))
            continue
        linked += (d - 1) * max(one, 1 + _filter_time(sizes, link, begin, first))
        first = min(together, low if held != low else min(m, out_channels))
        linked += max(one, 1 + _filter_time(sizes, link, begin, first))
    return alone, linked


@kernel(error_model="numpy")
def _inputs(sizes: Any, link: Any, fetched: Any, n: Any, m: Any, most: Any) -> Any:
    """Cycles the link takes for all inputs of a group, as often as they come."""
    in_channels, out_channels = sizes[7:9]
    rounds = 1 if most >= in_channels else -(-out_channels // m)
    total = 0
    for which in range(4):
        channels, c = _chunk(in_channels, most, which & 1)
        images, a = _chunk(sizes[0], n, which & 2)
        if a * c:
            for strip in range(len(fetched)):
                words = images * channels * fetched[strip, 0]
                total += a * c * fetched[strip, 1] * _transfer(words, link, sizes[15])
    return rounds * total


@kernel(error_model="numpy")
def _cycles(
    sizes: Any, link: Any, fetched: Any,
    n: Any, m: Any, e: Any, p: Any, q: Any, r: Any, t: Any,
) -> Any:  # fmt: skip
    """:func:`~sparqsim.architectures.eyeriss.mapping.linked_cycles`, and
    :func:`~sparqsim.architectures.eyeriss.mapping.processing_cycles`."""
    batch, out_height, out_width = sizes[:3]
    in_channels, out_channels, groups = sizes[7:10]
    passes = linked = 0
    for which in range(4):
        images, a = _chunk(batch, n, which & 1)
        rows, b = _chunk(out_height, e, which & 2)
        if a * b:
            alone, waited = _strip(sizes, link, images, rows, m, p, q, r, t)
            passes += a * b * alone
            linked += a * b * waited
            for second in range(2):
                held, d = _chunk(out_channels, m, second)
                if d:
                    words = images * rows * held * out_width
                    linked += a * b * d * _transfer(words, link, sizes[15])
    linked += _inputs(sizes, link, fetched, n, m, q * r)
    first = _filter_time(sizes, link, min(q * r, in_channels), min(p * t, m, out_channels))
    filters, rest = _last(_last(out_channels, m), p * t), _last(in_channels, q * r)
    end = _pass_cycles(sizes, p, q, _last(batch, n), _last(out_height, e), filters, rest)
    return groups * linked + first - max(0, 1 + first - end), groups * passes


@kernel(error_model="numpy")
def _rank(
    sizes: Any, link: Any, held: Any, fetched: Any,
    n: Any, m: Any, e: Any, p: Any, q: Any, r: Any, t: Any,
) -> Any:  # fmt: skip
    """:func:`rank`, but words for bits."""
    in_channels, out_channels = sizes[7:9]
    total, passes = _cycles(sizes, link, fetched, n, m, e, p, q, r, t)
    psums = n * min(m, out_channels) * e * sizes[2]
    return total if link > 0 else passes, passes, n * min(q * r, in_channels) * held + psums


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
