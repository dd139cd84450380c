"""What the actors of a netlist of tiles do with their tokens, for ``verify="execute"``.

The array multiplies the blocks its tokens name, whatever they are; the sums of a block of outputs
travel with its token to the output DMA, which adds them in the DRAM. A token that is lost, doubled
or out of order makes other sums than the MAC core's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparqsim.architectures.tiling import ConvShape, Cost, Datum, Loop, Mapping
from sparqsim.simulator.mac import dense
from sparqsim.simulator.netlist import Execute
from sparqsim.workloads.layers import Conv2d

# Pixels [..., taps, channels] by weights [taps, channels, outputs]: int64 sums [..., outputs].
Products = Callable[[NDArray[Any], NDArray[Any]], NDArray[np.int64]]
Spans = dict[Loop | None, slice]
Tokens = dict[str, list[Any]]


def whole_products(pixels: NDArray[Any], weights: NDArray[Any]) -> NDArray[np.int64]:
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
        Inputs, of which 0 stands for 0.
    w : whole numbers [out, channels of a group, kh, kw]
    products
        What the array makes of a block of pixels and one of weights.
    """

    def __init__(
        self,
        conv: Conv2d,
        x: NDArray[Any],
        w: NDArray[Any],
        products: Products = whole_products,
    ) -> None:
        self.conv, self.x, self.w, self.products = conv, x, w, products
        self.carried = np.zeros(0, np.int64)  # [groups, batch, oh, ow, out], in the DRAM
        self._held: dict[Datum, tuple[int, int]] = {}
        self._block: list[tuple[tuple[slice, ...], NDArray[np.int64]]] = []

    def actions(self, shape: ConvShape, mapping: Mapping, cost: Cost) -> dict[str, Execute]:
        """What each actor of :func:`~sparqsim.architectures.systolic.tile_netlist` does."""
        trips = mapping.trips(shape)
        self._shape, self._mapping = shape, mapping
        self._counts = (shape.groups, *(trips[loop] for loop in mapping.order))
        self._tiles_a_block = cost.tiles // cost.residences[Datum.OUTPUT].transfers
        return {
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
        rows = dense.unfold(self.x, conv.kernel, conv.stride, conv.padding, conv.dilation, groups)
        self._pixels = rows.reshape(groups, *image, *depth)
        columns = dense.unfold_weights(self.w, groups)
        self._weights = columns.reshape(groups, *depth, shape.out_channels)
        self.carried = np.zeros((groups, *image, shape.out_channels), np.int64)
        self._block.clear()

    def _spans(self, tile: int) -> Spans:
        """Where a tile lies: a slice a loop, and of the groups under None."""
        place = np.unravel_index(tile, self._counts)
        found: Spans = {None: slice(int(place[0]), int(place[0]) + 1)}
        for loop, at in zip(self._mapping.order, place[1:], strict=True):
            size = self._mapping.tile.sizes[loop]
            stop = min((int(at) + 1) * size, self._shape.extents[loop])
            found[loop] = slice(int(at) * size, stop)
        return found

    def _array(self, lane: int, firing: int, got: Tokens) -> Tokens:
        if firing == 0:
            self._begin()
        for name, datum in (("inputs", Datum.INPUT), ("weights", Datum.WEIGHT)):
            for first in got.get(name, []):
                self._held[datum] = (first, firing)
        x, w = (
            self._spans(first + firing - since)
            for first, since in (self._held[Datum.INPUT], self._held[Datum.WEIGHT])
        )
        left = self._pixels[(*_pixels(x), slice(None), x[Loop.INPUTS])]
        right = self._weights[w[None], :, w[Loop.INPUTS], w[Loop.OUTPUTS]][0]
        own = self._spans(firing)
        where = (*_pixels(own), own[Loop.OUTPUTS])
        sums = np.zeros(self.carried[where].shape, np.int64)
        if left.shape[:-2] == sums.shape[:-1] and left.shape[-2:] == right.shape[:2]:
            # A block of another shape, from a token that lost its way, makes nothing.
            sums += self.products(left, right)
        self._block.append((where, sums))
        if (firing + 1) % self._tiles_a_block:
            return {}
        done = list(self._block)
        self._block.clear()
        return {"sums": [done]}

    def _store(self, lane: int, firing: int, got: Tokens) -> Tokens:
        for where, sums in got["outputs"][0]:
            self.carried[where] += sums
        return {}


def _pixels(span: Spans) -> tuple[slice, ...]:
    return tuple(span[loop] for loop in (None, Loop.BATCH, Loop.ROWS, Loop.COLUMNS))
