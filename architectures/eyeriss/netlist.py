"""The block diagram: passes as firings of the networks, the PEs and the DMAs, and what tokens do.

With numbers, every firing runs its share of the arithmetic: a PE convolves its row, the drain adds
the rows up (:class:`Carried`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparqsim.architectures.eyeriss.config import Configuration, Ints
from sparqsim.architectures.eyeriss.sequence import (
    CHANNELS,
    FILTERS,
    IMAGES,
    ROWS,
    Sequence,
    share,
)
from sparqsim.architectures.fixed_point import FixedPointLayer
from sparqsim.simulator.mac import dense, fixed16
from sparqsim.simulator.netlist import Actor, Channel, Netlist, Pattern, Resource

Tokens = dict[str, list[Any]]


class Carried:
    """What PEs and drain do with tokens: one-dimensional convolutions, added up the columns.

    Attributes
    ----------
    sums : int64 [batch, out channels, oh, ow]
        What tokens have carried to the drain since the run began, not wrapped.
    """

    def __init__(self, sequence: Sequence, work: FixedPointLayer) -> None:
        self.sequence, self.work = sequence, work
        top, left, bottom, right = work.placed[1]
        around = ((0, 0), (0, 0), (top, bottom), (left, right))
        self.image = np.pad(work.x, around).astype(np.int64)
        self.jobs = {int(cell): index for index, cell in np.ndenumerate(sequence.cells)}
        self.sums = np.zeros(work.sums.shape, np.int64)

    def begin(self, lane: int, k: int, got: Tokens) -> Tokens:
        """First windows: the token is the number of the pass."""
        if k == 0:
            self.sums[:] = 0
        return {"windows": [k]}

    def multiply(self, lane: int, k: int, got: Tokens) -> Tokens:
        """A PE convolves its filter rows with its input rows."""
        number, sequence = got["windows"][0], self.sequence
        if not sequence.lanes[number, lane]:
            return {"sums": [None]}
        order, shape, work = sequence.order, sequence.shape, self.work
        low, high, group = order.low[number], order.high[number], int(order.group[number])
        which, tap, row = self.jobs[lane]
        sizes = high - low
        channels, filters = share(sequence.mapping, which, sizes[CHANNELS], sizes[FILTERS])
        images, y = slice(low[IMAGES], high[IMAGES]), low[ROWS] + row
        mine = _moved(filters, group * shape.out_channels + low[FILTERS])
        taps = work.w[mine, _moved(channels, low[CHANNELS]), tap]
        first = group * shape.in_channels + low[CHANNELS]
        rows = self.image[images, _moved(channels, first), y * shape.stride_height + tap]
        sums = np.zeros((len(rows), len(taps), shape.out_width), np.int64)
        for z in range(shape.kernel_width):
            seen = rows[:, :, z :: shape.stride_width][:, :, : shape.out_width]
            products = seen[:, None] * taps[None, :, :, z, None].astype(np.int64)
            sums += (products >> work.shift).sum(axis=2)
        return {"sums": [(images, mine, y, sums)]}

    def add(self, lane: int, k: int, got: Tokens) -> Tokens:
        """The drain adds what the PEs of a pass have made."""
        for token in got["sums"]:
            if token is not None:
                images, mine, y, sums = token
                self.sums[images, mine, y] += sums
        return {}

    def executed(self) -> bool:
        """Whether the tokens of the last ``verify="execute"`` run gave the kernel's sums."""
        return np.array_equal(dense.wrap(self.sums, fixed16.BITS), self.work.sums)


def _moved(span: slice, by: int) -> slice:
    return slice(by + span.start, by + span.stop)


def netlist_of(sequence: Sequence, carried: Carried | None, name: str) -> Netlist:
    """The passes as actors; one firing per pass."""
    chip = sequence.chip
    actors, channels = _array(sequence, carried)
    if not chip.off_chip:
        return Netlist(actors, channels, clock_hz=chip.clock_hz, name=name)
    for label, bits, part in (
        ("filter_dma", sequence.filter_bits, "Filter DMA"),
        ("ifmap_dma", sequence.block_bits[0], "Ifmap DMA"),
        ("ofmap_dma", sequence.round_bits[0], "Ofmap DMA"),
    ):
        actors.append(Actor(name=label, busy=_link(chip, bits), resource="link", part=part))
    channels += _to_dram(sequence)
    return Netlist(actors, channels, [Resource(name="link")], chip.clock_hz, name)


def _array(sequence: Sequence, carried: Carried | None) -> tuple[list[Actor], list[Channel]]:
    """The PEs and the networks: one pass after another."""
    fill_filters, fill_ifmaps, _, stream, psums, drain = sequence.steps.T
    begin, multiply, add = (
        (None, None, None) if carried is None else (carried.begin, carried.multiply, carried.add)
    )
    later = _but_first(np.ones(sequence.count, np.int64))
    actors = [
        Actor(name="filter_noc", busy=fill_filters, part="Filter network"),
        Actor(name="ifmap_fill", busy=fill_ifmaps, execute=begin, part="First windows"),
        Actor(name="ifmap_noc", busy=stream, part="Ifmap network"),
        Actor(
            name="pe_array", lanes=sequence.chip.pes, busy=sequence.lanes, execute=multiply,
            part="PEs",
        ),
        Actor(name="psum_noc", busy=psums, part="Psum networks"),
        Actor(name="drain", busy=drain, execute=add, part="Array drain"),
    ]  # fmt: skip
    channels = [
        Channel(name="filters", source="filter_noc", target="ifmap_fill", capacity=1),
        Channel(name="rows", source="ifmap_fill", target="ifmap_noc", capacity=1),
        Channel(
            name="windows", source="ifmap_fill", target="pe_array", capacity=1,
            pattern=Pattern.BROADCAST,
        ),
        Channel(name="psums", source="ifmap_fill", target="psum_noc", capacity=1),
        Channel(name="streamed", source="ifmap_noc", target="drain", capacity=1),
        Channel(
            name="sums", source="pe_array", target="drain", capacity=1, pattern=Pattern.GATHER
        ),
        Channel(name="moved", source="psum_noc", target="drain", capacity=1),
        Channel(
            name="next_pass", source="drain", target="filter_noc", capacity=1,
            produce=later[::-1], consume=later,
        ),
    ]  # fmt: skip
    return actors, channels


def _to_dram(sequence: Sequence) -> list[Channel]:
    """The GLB's buffers between the array and the DMAs."""
    order = sequence.order
    last_of_block = np.append(order.loads[1:], 0)
    begins_round = np.append(0, order.ends[:-1])
    blocks, rounds = int(order.loads.sum()), int(order.ends.sum())
    return [
        # Filters of the next pass alone: more would hold the link while inputs are waited for.
        Channel(name="filter_buffer", source="filter_dma", target="filter_noc", capacity=1),
        Channel(
            name="ifmap_buffer", source="ifmap_dma", target="filter_noc", capacity=1,
            consume=order.loads,
        ),
        Channel(
            name="ifmap_room", source="drain", target="ifmap_dma", capacity=1,
            produce=last_of_block, consume=_but_first(np.ones(blocks, np.int64)),
        ),
        Channel(
            name="ofmaps", source="drain", target="ofmap_dma", capacity=1, produce=order.ends
        ),
        Channel(
            name="psum_room", source="ofmap_dma", target="filter_noc", capacity=1,
            produce=_but_first(np.ones(rounds, np.int64))[::-1], consume=begins_round,
        ),
    ]  # fmt: skip


def _but_first(counts: Ints) -> Ints:
    counts[0] = 0
    return counts


def _link(chip: Configuration, bits: Ints) -> NDArray[np.int64]:
    """Core cycles for which the link is held."""
    words = -(-bits // chip.link_bits)
    return np.maximum(np.ceil(words * (chip.clock_hz / chip.link_hz)), 1).astype(np.int64)
