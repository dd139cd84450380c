"""The image behind a convolution's product, which is unfolded on the way to shared memory.

GPUs multiply a convolution as an *implicit GEMM*: no unfolded copy (im2col) of the image lies in
DRAM or L2. Tiles of it are formed as data are loaded into shared memory, by pointers and
predicates (published: CUTLASS, "Implicit GEMM Convolution"; cuDNN, Chetlur et al. 2014). So

* DRAM gives a row of the image to L2 when a tile of a wave first touches it, and again only where
  L2 has lost it; a part of a split depth touches rows whole;
* L2 and an SM's port bring each tap of each output, a place of the image as often as taps use it
  (assumed: ``cp.async`` goes past L1, so no copy is saved there);
* padding, of the image and of its channels to whole groups, is in no memory: its loads are
  predicated off, and shared memory takes zeros.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sparqsim.workloads.layers import Conv2d

Ints = NDArray[np.int64]


class Touched(NamedTuple):
    """Which pieces of a product's activations each part and panel of columns reads.

    Attributes
    ----------
    first : int64 [parts * panels + 1]
        Where the pieces of each begin in ``pieces``.
    pieces : int64 [...]
        Numbers of the pieces.
    elements : int64 [pieces of a product]
        How long each is.
    """

    first: Ints
    pieces: Ints
    elements: Ints


@dataclass(frozen=True)
class Image:
    """The activations of a convolution, and how its products read them.

    Attributes
    ----------
    conv
        The layer; columns of its products are output pixels, image by image and row by row.
    channels
        Of a product as they lie along the reduction, padded to whole groups.
    """

    conv: Conv2d
    channels: int

    @property
    def real_channels(self) -> int:
        """Channels of a product that there are."""
        return self.conv.in_channels // self.conv.groups

    def _places(self, axis: int) -> Ints:
        """Row or column of the image that each tap of each output reads; -1 where that is padding.

        ``[outputs, taps]``.
        """
        conv = self.conv
        output, tap = np.arange(conv.output[axis])[:, None], np.arange(conv.kernel[axis])
        place = output * conv.stride[axis] + tap * conv.dilation[axis] - conv.padding[axis]
        return np.where((place >= 0) & (place < conv.input[axis]), place, -1)

    @cached_property
    def rows(self) -> Ints:
        """Row of all images that each tap of each output row reads ``[rows of outputs, taps]``."""
        conv, places = self.conv, self._places(0)
        image = np.arange(conv.batch)[:, None, None] * conv.input[0]
        return np.where(places < 0, -1, image + places).reshape(-1, conv.kernel[0])

    @cached_property
    def row_elements(self) -> int:
        """Elements of an image's row that outputs depend on."""
        used = np.unique(self._places(1))
        return int(np.count_nonzero(used >= 0)) * self.real_channels

    @property
    def elements(self) -> int:
        """Elements that outputs depend on, of all products."""
        used = np.unique(self.rows)
        return int(np.count_nonzero(used >= 0)) * self.row_elements * self.conv.groups

    def touched(self, columns: int, parts: Ints) -> Touched:
        """What tiles of so many columns read: pieces are rows of the images.

        Parameters
        ----------
        columns
            Of a tile.
        parts : int64 [parts, 2]
            First element of the reduction, and the one behind the last, of each part of it.
        """
        conv = self.conv
        total, rows = conv.batch * math.prod(conv.output), conv.batch * conv.input[0]
        starts = np.arange(0, total, columns)
        top = starts // conv.output[1]  # first row of outputs
        high = (np.minimum(starts + columns, total) - 1) // conv.output[1] + 1 - top
        panel = np.repeat(np.arange(len(starts)), high)
        outputs = np.arange(len(panel)) - np.repeat(np.cumsum(high) - high - top, high)
        of_row = self.channels * conv.kernel[1]  # elements of the taps in a row of the kernel
        found = []
        for part, (low, behind) in enumerate(parts.tolist()):
            read = self.rows[outputs, low // of_row : -(-behind // of_row)]
            of = np.broadcast_to((part * len(starts) + panel)[:, None], read.shape)
            found.append(np.unique((of * rows + read)[read >= 0]))
        of, pieces = np.divmod(np.concatenate(found), rows)
        counts = np.bincount(of, minlength=len(parts) * len(starts))
        return Touched(np.append(0, np.cumsum(counts)), pieces, np.full(rows, self.row_elements))

    def loaded(self, columns: int, steps: int, step: int) -> Ints:
        """Elements that each step of the depth brings to each tile of so many columns.

        Returns ``[panels of columns, steps]``.
        """
        conv = self.conv
        total = conv.batch * math.prod(conv.output)
        edges = np.minimum(np.arange(0, total + columns, columns), total)
        taps = np.arange(math.prod(conv.kernel)) * self.channels
        low = np.arange(steps)[:, None] * step
        channels = np.minimum(low + step, taps + self.real_channels) - np.maximum(low, taps)
        of_taps = np.diff(self._real_before(edges), axis=0)
        found: Ints = of_taps @ np.maximum(channels, 0).T
        return found

    def _real_before(self, columns: Ints) -> Ints:
        """How many outputs before a column have a tap on the image ``[columns, taps]``."""
        conv = self.conv
        row, column = (np.pad(self._places(axis) >= 0, ((0, 1), (0, 0))) for axis in (0, 1))
        rows, places = (_before(each) for each in (row, column))
        image, pixel = np.divmod(columns, math.prod(conv.output))
        y, x = np.divmod(pixel, conv.output[1])
        above = image[:, None] * rows[-1] + rows[y]
        found: Ints = above[:, :, None] * places[-1] + row[y][:, :, None] * places[x][:, None]
        return found.reshape(len(columns), -1)


def _before(flags: NDArray[np.bool_]) -> Ints:
    """Sums along the first axis of what stands before each place."""
    found: Ints = np.cumsum(flags, axis=0) - flags
    return found
