"""What the actors of a netlist of tiles do with their tokens, for ``verify="execute"``.

A token of inputs or weights names the first tile of the piece that was loaded; the array multiplies
what its tokens name, whatever it is. Sums travel with the token of their piece to the output DMA,
which stores them; where partial sums come back, the token of the DMA that reads them carries what
is in the DRAM then, the array adds to that, and the store replaces it. A token that is lost,
doubled or out of order makes other sums than the MAC core's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparqsim.architectures.arrays.shapes import Datum, Loop
from sparqsim.architectures.arrays.walk import Walk
from sparqsim.simulator.mac import dense
from sparqsim.simulator.netlist import Execute
from sparqsim.workloads.layers import Conv2d

# Pixels [..., taps, channels] by weights [taps, channels, outputs], of a group, of those channels
# and outputs of it: int64 sums [..., outputs].
Products = Callable[[NDArray[Any], NDArray[Any], int, slice, slice], NDArray[np.int64]]
Spans = dict[Loop | None, slice]
Tokens = dict[str, list[Any]]
# Where sums lie in the DRAM, the sums, and whether they were read back before.
Sums = list[tuple[tuple[slice, ...], NDArray[np.int64], bool]]


def whole_products(
    pixels: NDArray[Any], weights: NDArray[Any], group: int, inputs: slice, outputs: slice
) -> NDArray[np.int64]:
    """Products of whole numbers, none of their bits dropped."""
    found: NDArray[np.int64] = np.tensordot(
        pixels.astype(np.float64, copy=False),
        weights.astype(np.float64, copy=False),
        axes=([-2, -1], [0, 1]),
    ).astype(np.int64)
    return found


class TileTokens:
    """The arithmetic of a layer, tile by tile.

    Parameters
    ----------
    conv
        The convolution that the layer is.
    x : whole numbers [batch, channels, height, width]
        Inputs, of which ``fill`` stands for 0.
    w : whole numbers [out, channels of a group, kh, kw]
    products
        What the array makes of a block of pixels and one of weights.
    fill : int
        What a padded place holds.
    """

    def __init__(
        self,
        conv: Conv2d,
        x: NDArray[Any],
        w: NDArray[Any],
        products: Products = whole_products,
        fill: int = 0,
    ) -> None:
        self.conv, self.x, self.w, self.products, self.fill = conv, x, w, products, fill
        self.carried = np.zeros(0, np.int64)  # [groups, batch, oh, ow, out], in the DRAM

    def actions(self, walk: Walk) -> dict[str, Execute]:
        """What each actor of :func:`~sparqsim.architectures.arrays.tiles.tile_netlist` does."""
        self._shape, self._mapping, self._tiles = walk.shape, walk.mapping, walk.tiles
        self._counts, self._pieces = walk.counts, walk.pieces
        self._walk = walk
        return {
            "input_dma": self._loads("inputs", Datum.INPUT),
            "weight_dma": self._loads("weights", Datum.WEIGHT),
            "psum_dma": self._read_back,
            "array": self._array,
            "drain": lambda lane, firing, got: {"drained": got["sums"]},
            "post": lambda lane, firing, got: {"outputs": got["drained"]},
            "output_dma": self._store,
        }

    def sums(self) -> NDArray[np.int64] | None:
        """What the last run carried, ``[batch, out channels, oh, ow]``; None before any run."""
        if not self.carried.size:
            return None
        flat = self.carried.reshape(self.conv.groups, -1, self.carried.shape[-1])
        return dense.fold_outputs(flat, self.conv.batch, self.conv.output)

    def _begin(self) -> None:
        """Unfold the operands when a run begins."""
        conv, shape = self.conv, self._shape
        groups, depth = conv.groups, (shape.taps, conv.in_channels // conv.groups)
        image = (shape.batch, shape.out_height, shape.out_width)
        geometry = (conv.kernel, conv.stride, conv.padding, conv.dilation, groups)
        rows = dense.unfold(self.x, *geometry, fill=self.fill)
        self._pixels = rows.reshape(groups, *image, *depth)
        columns = dense.unfold_weights(self.w, groups)
        self._weights = columns.reshape(groups, *depth, shape.out_channels)
        self.carried = np.zeros((groups, *image, shape.out_channels), np.int64)
        self._held: dict[tuple[Datum, int], tuple[int, int]] = {}
        self._open: dict[int, dict[tuple[tuple[int, int], ...], Any]] = {}

    def _spans(self, tile: int) -> Spans:
        """Where a tile lies: one slice per loop, and of the groups under None."""
        place = np.unravel_index(tile, self._counts)
        found: Spans = {None: slice(int(place[0]), int(place[0]) + 1)}
        for loop, at in zip(self._mapping.order, place[1:], strict=True):
            size = self._mapping.tile.sizes[loop]
            stop = min((int(at) + 1) * size, self._shape.extents[loop])
            found[loop] = slice(int(at) * size, stop)
        return found

    def _where(self, tile: int) -> tuple[slice, ...]:
        own = self._spans(tile)
        return (*_pixels(own), own[Loop.OUTPUTS])

    def _loads(self, channel: str, datum: Datum) -> Execute:
        """Tokens that name the first tile of the piece whose last transfer has come."""
        stream = self._walk.streams["input_dma" if datum is Datum.INPUT else "weight_dma"]

        def load(lane: int, firing: int, got: Tokens) -> Tokens:
            return {channel: [int(stream.rank[firing])]} if stream.closes[firing] else {}

        return load

    def _read_back(self, lane: int, firing: int, got: Tokens) -> Tokens:
        stream = self._walk.streams["psum_dma"]
        if not stream.closes[firing]:
            return {}
        first = int(stream.rank[firing])
        tiles = range(first, first + self._walk.tiles_of_sums)
        found = [(where, self.carried[where].copy(), True) for where in map(self._where, tiles)]
        return {"psums": [found]}

    def _array(self, lane: int, firing: int, got: Tokens) -> Tokens:
        if firing == 0:
            self._begin()
        named = []
        for name, datum in (("inputs", Datum.INPUT), ("weights", Datum.WEIGHT)):
            slot = (datum, int(self._pieces[datum].slots[firing]))
            for first in got.get(name, []):
                self._held[slot] = (first, firing)
            first, since = self._held[slot]
            named.append(self._spans((first + firing - since) % self._tiles))
        x, w = named
        left = self._pixels[(*_pixels(x), slice(None), x[Loop.INPUTS])]
        right = self._weights[w[None], :, w[Loop.INPUTS], w[Loop.OUTPUTS]][0]
        where = self._where(firing)
        made = np.zeros(self.carried[where].shape, np.int64)
        if left.shape[:-2] == made.shape[:-1] and left.shape[-2:] == right.shape[:2]:
            # A piece of another shape, from a token that lost its way, makes nothing.
            made += self.products(left, right, w[None].start, w[Loop.INPUTS], w[Loop.OUTPUTS])
        return self._add(firing, where, made, got.get("psums", []))

    def _add(
        self, firing: int, where: tuple[slice, ...], made: NDArray[np.int64], back: list[Sums]
    ) -> Tokens:
        """Add a tile's sums to those of its piece, and send these on when the piece ends."""
        pieces, each = self._pieces[Datum.OUTPUT], self._open
        slot = int(pieces.slots[firing])
        if pieces.opens[firing]:
            each[slot] = {_key(place): (place, sums, again) for read in back
                          for place, sums, again in read}  # fmt: skip
        place, sums, again = each[slot].get(_key(where), (where, 0, False))
        each[slot][_key(where)] = (place, sums + made, again)
        return {"sums": [list(each.pop(slot).values())]} if pieces.closes[firing] else {}

    def _store(self, lane: int, firing: int, got: Tokens) -> Tokens:
        for piece in got.get("outputs", []):
            for where, sums, again in piece:
                self.carried[where] = sums if again else self.carried[where] + sums
        return {}


def _key(where: tuple[slice, ...]) -> tuple[tuple[int, int], ...]:
    return tuple((each.start, each.stop) for each in where)


def _pixels(span: Spans) -> tuple[slice, ...]:
    return tuple(span[loop] for loop in (None, Loop.BATCH, Loop.ROWS, Loop.COLUMNS))
