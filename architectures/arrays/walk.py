"""The tiles of a layer in their order, and the pieces of each datum that they need.

Everything is said by the loops: as numbers at the iterations where their runs begin.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np
from numpy.typing import NDArray

from sparqsim.architectures.arrays.cost import cost
from sparqsim.architectures.arrays.nests import Nest, Transfers
from sparqsim.architectures.arrays.rules import ArrayRules
from sparqsim.architectures.arrays.shapes import (
    DEPENDS,
    ConvShape,
    Datum,
    Loop,
    Mapping,
    needed,
    sizes_of,
)
from sparqsim.simulator.loops import Loops

Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]


class Walk:
    """The tiles of a layer in their order, and the pieces they need.

    Parameters
    ----------
    shape, rules, mapping
        Which ``analytic`` costs.
    most_bits
        Of a transfer.

    Attributes
    ----------
    axes
        The loops, the outermost first, each with its iterations; groups are None.
    pieces : dict
        :class:`Pieces` of each datum.
    streams : dict
        What each DMA moves, by its name; the rank of a load is the tile that first needs it.
    """

    def __init__(
        self, shape: ConvShape, rules: ArrayRules, mapping: Mapping, most_bits: int
    ) -> None:
        self.shape, self.rules, self.mapping = shape, rules, mapping
        self.analytic = cost(shape, rules, mapping)
        trips = mapping.trips(shape)
        self.axes: list[tuple[Loop | None, int]] = [(None, shape.groups)]
        self.axes += [(loop, trips[loop]) for loop in mapping.order]
        self.counts = tuple(n for _, n in self.axes)
        self.tiles = self.analytic.tiles
        self.sizes = {
            loop: sizes_of(extent, size)
            for loop, extent, size in zip(Loop, shape.extents, mapping.tile.sizes, strict=True)
        }
        self.pieces = {datum: Pieces(self, datum) for datum in Datum}
        inputs, weights, outputs = self.pieces.values()
        self.streams = {
            name: Transfers(pieces.nest, pieces.bits, pieces.first, pieces.steps, most_bits)
            for name, pieces in (("input_dma", inputs), ("weight_dma", weights))
        }
        if (back := outputs.nest_back) is not None:
            self.streams["psum_dma"] = Transfers(
                back, outputs.back_bits, outputs.first, outputs.steps, most_bits
            )
        # A store is waited for by the tile that will take its place.
        steps = outputs.steps if outputs.places < outputs.count else (0,) * len(self.axes)
        self.streams["output_dma"] = Transfers(
            outputs.nest, outputs.bits, outputs.waits, steps, most_bits
        )

    @property
    def tiles_of_sums(self) -> int:
        """Tiles that may hold sums of one piece: all of its block, where that is one piece."""
        if self.rules.authors is None:
            return 1
        return self.tiles // self.analytic.residences[Datum.OUTPUT].blocks

    def outer(self, nest: Nest, parts: dict[Loop, Ints]) -> Ints:
        """The outer product of a vector a loop where the runs of a nest begin."""
        found = np.ones((1,) * len(self.axes), np.int64)
        for axis, (loop, _) in enumerate(self.axes):
            if loop in parts:
                found = found * parts[loop][nest.at(axis)]
        return found

    def occupied(self) -> Loops:
        """Cycles for which each tile occupies the array."""
        nest, sizes = self.pieces[Datum.OUTPUT].tiles, self.sizes
        if self.rules.authors is not None:  # padded to whole tiles
            tile = self.mapping.tile.sizes
            sizes = {loop: np.full_like(row, tile[loop]) for loop, row in sizes.items()}
        pixels, channels, outputs = (
            self.outer(nest, {loop: sizes[loop] for loop in loops})
            for loops in ((Loop.BATCH, Loop.ROWS, Loop.COLUMNS), (Loop.INPUTS,), (Loop.OUTPUTS,))
        )
        return nest.loops(self.rules.times(self.shape, pixels, channels, outputs)[2])


class Pieces:
    """The pieces of one datum in the order in which tiles first need them.

    Attributes
    ----------
    tiles, nest : Nest
        The loops over the tiles, and over the pieces.
    nest_back : Nest or None
        Those over the pieces of which partial sums are read back before.
    steps : tuple of int
        By how many tiles the first that needs a piece is later, for each loop over the pieces.
    count, places : int
        Pieces there are, and for which the buffer has room.
    opens, closes : Loops
        Pieces that a tile is the first to need, and that end with it.
    slots : Loops
        Which piece of its block each tile needs.
    """

    def __init__(self, walk: Walk, datum: Datum) -> None:
        self.walk, self.datum = walk, datum
        residence = walk.analytic.residences[datum]
        self.places, self._held_bits = residence.places, residence.held_bits
        self._whole = walk.rules.authors is not None  # a block is one piece
        kept = {loop for loop in Loop if walk.mapping.keeps(datum, loop)}
        self._held = {loop for loop in kept if self._whole or not DEPENDS[datum][loop]}
        self._parts = self._amounts()
        self._extents = [1 if loop in self._held else n for loop, n in walk.axes]
        self._strides = _strides(self._extents)
        self.count = prod(self._extents)
        self.steps = tuple(
            0 if loop in self._held else stride
            for (loop, _), stride in zip(walk.axes, _strides(walk.counts), strict=True)
        )
        cuts = self._cuts()
        self.tiles = Nest.cut([(0, n) for n in walk.counts], cuts)
        self.nest = Nest.cut([(0, n) for n in self._extents], cuts)
        self.nest_back = self._nest_back(cuts)
        self.opens = self.tiles.loops(self.opened)
        ended = self._all(self._held if datum is Datum.OUTPUT else kept, last=True)
        self.closes = self.tiles.loops(
            ended * (1 if datum is Datum.OUTPUT else residence.pieces)
        )  # fmt: skip
        several = kept - self._held
        slots = _strides([n if loop in several else 1 for loop, n in walk.axes])
        slots = [
            stride if loop in several else 0
            for (loop, _), stride in zip(walk.axes, slots, strict=True)
        ]  # fmt: skip
        self.slots = self.tiles.loops(_weighed(self.tiles, slots), slots)

    def number(self, nest: Nest) -> Ints:
        """Number of the piece at each place, or of that which the tile there needs."""
        strides = [
            0 if loop in self._held else stride
            for (loop, _), stride in zip(self.walk.axes, self._strides, strict=True)
        ]
        return _weighed(nest, strides)

    def first(self, nest: Nest) -> Ints:
        """The first tile that needs each."""
        return _weighed(nest, self.steps)

    def bits(self, nest: Nest) -> Ints:
        """What is loaded, or stored: of sums, but for the last visit, their width."""
        if self._whole:
            return np.array(self._held_bits)
        found, rules = self.walk.outer(nest, self._parts), self.walk.rules
        if self.datum is not Datum.OUTPUT:
            return found
        if not self._visited_again:
            return found * rules.output_bits
        axis = self._inputs_axis
        last = nest.at(axis) == self._extents[axis] - 1
        return found * np.where(last, rules.output_bits, rules.sum_bits)

    def back_bits(self, nest: Nest) -> Ints:
        """Partial sums that are read back before, of the pieces of which they are."""
        if self._whole:
            return self.bits(nest)
        return self.walk.outer(nest, self._parts) * self.walk.rules.sum_bits

    def read_back(self, nest: Nest) -> Flags:
        """Whether partial sums of the piece at each place are read back before."""
        return self._read_back([nest.at(axis) for axis in range(len(self._extents))])

    def waits(self, nest: Nest) -> Ints:
        """The tile that takes the place of each piece, or beyond the last one."""
        if self.places >= self.count:
            return np.array(self.walk.tiles)
        found = np.zeros((), np.int64)
        for digit, step in zip(self._successor(nest), self.steps, strict=True):
            found = found + digit * step
        return found

    def freed(self, nest: Nest) -> tuple[Flags, Flags]:
        """Whether partial sums take the place of each piece, or the array does."""
        there = self.number(nest) + self.places < self.count
        sums = self._read_back(self._successor(nest))
        return there & sums, there & ~sums

    @property
    def opened(self) -> Flags:
        """Whether a tile is the first to need its piece."""
        return self._all(self._held, last=False)

    @property
    def _inputs_axis(self) -> int:
        return 1 + self.walk.mapping.order.index(Loop.INPUTS)

    @property
    def _visited_again(self) -> bool:
        """Whether outputs leave and come back."""
        return self._extents[self._inputs_axis] > 1

    def _read_back(self, digits: Sequence[Ints]) -> Flags:
        authors = self.walk.rules.authors
        if authors is not None:
            return np.array(authors.outputs_read_back)
        return digits[self._inputs_axis] > 0

    def _nest_back(self, cuts: list[set[int]]) -> Nest | None:
        authors = self.walk.rules.authors
        if self.datum is not Datum.OUTPUT:
            return None
        if authors is not None:
            return self.nest if authors.outputs_read_back else None
        if not self._visited_again:
            return None
        first = [int(axis == self._inputs_axis) for axis in range(len(cuts))]
        return Nest.cut(list(zip(first, self._extents, strict=True)), cuts)

    def _successor(self, nest: Nest) -> list[Ints]:
        """Where in the loops the piece is that takes the place of each; the outermost goes on."""
        left, found = self.number(nest) + self.places, []
        for extent in self._extents[:0:-1]:
            left, digit = np.divmod(left, extent)
            found.append(digit)
        return [left, *found[::-1]]

    def _all(self, loops: set[Loop], last: bool) -> Flags:
        """Whether a tile is at the first, or the last, iteration of all these loops."""
        found = np.ones((1,) * len(self.walk.axes), np.bool_)
        for axis, (loop, n) in enumerate(self.walk.axes):
            if loop in loops:
                found = found & (self.tiles.at(axis) == (n - 1 if last else 0))
        return found

    def _cuts(self) -> list[set[int]]:
        """Where something changes along each loop, or the number a place away carries over."""
        found = []
        for (loop, n), extent, stride in zip(
            self.walk.axes, self._extents, self._strides, strict=True
        ):
            cuts = {1, n - 1}
            for parts in (self.walk.sizes, self._parts):
                if loop in parts:
                    cuts |= set((np.flatnonzero(np.diff(parts[loop])) + 1).tolist())
            if extent > 1:
                place = self.places // stride % extent
                cuts |= {place, place + 1, n - place - 1, n - place, n - place + 1}
            found.append(cuts)
        return found

    def _amounts(self) -> dict[Loop, Ints]:
        """Of each loop that the datum depends on, its factors of the bits (outputs: the count)."""
        shape, rules, mapping = self.walk.shape, self.walk.rules, self.walk.mapping
        sizes = dict(self.walk.sizes)
        if self.datum is Datum.WEIGHT:
            groups = shape.taps * -(-sizes[Loop.INPUTS] // rules.weight_group)
            sizes[Loop.INPUTS] = groups * rules.weight_bits
        elif self.datum is Datum.INPUT:
            for loop, axis, size in (
                (Loop.ROWS, shape.rows, mapping.tile.out_height),
                (Loop.COLUMNS, shape.columns, mapping.tile.out_width),
            ):
                each, first = needed(axis, size)
                sizes[loop] = first if mapping.keeps(self.datum, loop) else each
            sizes[Loop.INPUTS] = sizes[Loop.INPUTS] * rules.input_bits
        return {loop: sizes[loop] for loop in Loop if DEPENDS[self.datum][loop]}


def _strides(extents: Sequence[int]) -> list[int]:
    """By how much the number of a place rises for each iteration of each loop."""
    return [prod(extents[axis + 1 :]) for axis in range(len(extents))]


def _weighed(nest: Nest, strides: Sequence[int]) -> Ints:
    """The sum of the iterations where runs begin, each times its stride."""
    found = np.zeros((1,) * len(strides), np.int64)
    for axis, stride in enumerate(strides):
        found = found + nest.at(axis) * stride
    return found
