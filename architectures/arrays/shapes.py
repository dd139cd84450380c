"""A layer as five loops around an array, cut into tiles, and what the buffers keep of them.

The loops are batch, output columns, output rows, input channels and output channels; groups
(depthwise layers, the heads of attention) are one more loop outside them. A :class:`Mapping` is the
size of a tile along each loop, the order in which tiles are walked, and for each of the three
buffers how many of the innermost loops it keeps its data for. So a mapping means the same on every
machine on which it fits.
"""

from __future__ import annotations

import enum
import functools
import math

import msgspec
import numpy as np
from numpy.typing import NDArray

from sparqsim.architectures.checks import check_whole
from sparqsim.base import InputError, check_memory
from sparqsim.workloads.layers import Conv2d, Layer, MatMul

LOOPS = 5


class Loop(enum.IntEnum):
    """The five tiled loops around an array."""

    BATCH = 0
    COLUMNS = 1
    ROWS = 2
    INPUTS = 3
    OUTPUTS = 4


class Datum(enum.IntEnum):
    """What the three buffers hold."""

    INPUT = 0
    WEIGHT = 1
    OUTPUT = 2


# DEPENDS[datum][loop]: whether another iteration of the loop needs another piece of the datum.
DEPENDS = (
    (True, True, True, True, False),
    (False, False, False, True, True),
    (True, True, True, False, True),
)


class Axis(msgspec.Struct, frozen=True):
    """One direction of an image: outputs, and the inputs each depends on.

    Output ``o`` depends on places ``o stride + k dilation`` for ``k`` below ``kernel``, counted
    from ``before`` places of zero padding; of all places that outputs reach, the last ``after``
    are padding too. Padding is in no memory.
    """

    outputs: int
    kernel: int
    stride: int
    dilation: int
    before: int
    after: int

    @property
    def reach(self) -> int:
        """Places from the first to the last that an output depends on, padding included."""
        return self.span(self.outputs)

    def span(self, outputs: int) -> int:
        """Places from the first to the last that so many neighbouring outputs depend on."""
        return self.dilation * (self.kernel - 1) + 1 + (outputs - 1) * self.stride

    def needed(self, size: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Inputs that each tile of ``size`` outputs depends on, and those no tile before did."""
        tiles = -(-self.outputs // size)
        output = np.repeat(np.arange(self.outputs), self.kernel)
        place = output * self.stride + np.tile(np.arange(self.kernel), self.outputs) * self.dilation
        real = (place >= self.before) & (place < self.reach - self.after)
        tile, place = output[real] // size, place[real]
        pairs = np.unique(tile * self.reach + place)
        each = np.bincount(pairs // self.reach, minlength=tiles)
        first = np.full(self.reach, tiles)
        np.minimum.at(first, place, tile)
        return each, np.bincount(first, minlength=tiles + 1)[:tiles]


@functools.lru_cache(maxsize=65536)
def needed(axis: Axis, size: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """:meth:`Axis.needed`, remembered."""
    return axis.needed(size)


class ConvShape(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What tiling needs to know of a convolution, a linear layer or a matrix product.

    ``in_channels`` and ``out_channels`` are those of one group; ``groups`` independent problems
    of this shape follow each other (a depthwise layer, the heads of an attention product). Of the
    inputs that outputs reach, ``pad_top`` rows and so on are zero padding.
    """

    batch: int
    out_height: int = 1
    out_width: int = 1
    kernel_height: int = 1
    kernel_width: int = 1
    stride_height: int = 1
    stride_width: int = 1
    dilation_height: int = 1
    dilation_width: int = 1
    in_channels: int
    out_channels: int
    groups: int = 1
    pad_top: int = 0
    pad_bottom: int = 0
    pad_left: int = 0
    pad_right: int = 0

    def __post_init__(self) -> None:
        fields = msgspec.structs.asdict(self)
        padding = {name: fields.pop(name) for name in list(fields) if name.startswith("pad_")}
        check_whole("ConvShape", **fields)
        check_whole("ConvShape", least=0, **padding)

    @classmethod
    def square(
        cls, *, batch: int, out: int, kernel: int, stride: int, in_channels: int, out_channels: int
    ) -> ConvShape:
        """Return a convolution whose output, kernel and stride are square, without padding."""
        return cls(
            batch=batch,
            out_height=out,
            out_width=out,
            kernel_height=kernel,
            kernel_width=kernel,
            stride_height=stride,
            stride_width=stride,
            in_channels=in_channels,
            out_channels=out_channels,
        )

    @classmethod
    def of(cls, layer: Layer, *, batch: int = 1) -> ConvShape:
        """Return the shape of a layer run on ``batch`` times its own batch."""
        if isinstance(layer, Conv2d):
            return cls._of_convolution(layer, batch * layer.batch)
        gemm = layer.gemm()
        rows, groups = gemm.m, gemm.batch
        if isinstance(layer, MatMul):  # both operands are new for every sample of the batch
            groups *= batch
        else:
            rows *= batch
        return cls(batch=rows, in_channels=gemm.k, out_channels=gemm.n, groups=groups)

    @classmethod
    def _of_convolution(cls, layer: Conv2d, batch: int) -> ConvShape:
        (high, wide), (top, left) = layer.input, layer.padding[:2]
        shape = cls(
            batch=batch,
            out_height=layer.output[0],
            out_width=layer.output[1],
            kernel_height=layer.kernel[0],
            kernel_width=layer.kernel[1],
            stride_height=layer.stride[0],
            stride_width=layer.stride[1],
            dilation_height=layer.dilation[0],
            dilation_width=layer.dilation[1],
            in_channels=layer.in_channels // layer.groups,
            out_channels=layer.out_channels // layer.groups,
            groups=layer.groups,
            pad_top=top,
            pad_left=left,
        )
        return msgspec.structs.replace(
            shape,
            pad_bottom=max(0, shape.rows.reach - top - high),
            pad_right=max(0, shape.columns.reach - left - wide),
        )

    @property
    def rows(self) -> Axis:
        """Rows of outputs and of inputs."""
        return Axis(
            self.out_height, self.kernel_height, self.stride_height, self.dilation_height,
            self.pad_top, self.pad_bottom,
        )  # fmt: skip

    @property
    def columns(self) -> Axis:
        """Columns of outputs and of inputs."""
        return Axis(
            self.out_width, self.kernel_width, self.stride_width, self.dilation_width,
            self.pad_left, self.pad_right,
        )  # fmt: skip

    def patch(self, out_height: int, out_width: int) -> tuple[int, int]:
        """Return (rows, columns) of inputs, padding included, that a patch of outputs reaches."""
        return self.rows.span(out_height), self.columns.span(out_width)

    @property
    def taps(self) -> int:
        """Kernel positions."""
        return self.kernel_height * self.kernel_width

    @property
    def inputs(self) -> int:
        """Inputs that outputs depend on, of all groups; zero padding is none."""
        high, wide = (
            int(needed(axis, axis.outputs)[0].sum()) for axis in (self.rows, self.columns)
        )
        return self.groups * self.batch * high * wide * self.in_channels

    @property
    def weights(self) -> int:
        """Weights of all groups."""
        return self.groups * self.taps * self.in_channels * self.out_channels

    @property
    def outputs(self) -> int:
        """Outputs of all groups."""
        pixels = self.batch * self.out_height * self.out_width
        return self.groups * pixels * self.out_channels

    @property
    def macs(self) -> int:
        """Multiply-accumulates, dense."""
        return self.outputs * self.taps * self.in_channels

    @property
    def extents(self) -> tuple[int, int, int, int, int]:
        """Length of each loop, indexed by :class:`Loop`."""
        return (self.batch, self.out_width, self.out_height, self.in_channels, self.out_channels)


class Tile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Tile sizes of the five loops; the last tile of a loop may be smaller."""

    batch: int
    out_width: int
    out_height: int
    in_channels: int
    out_channels: int

    def __post_init__(self) -> None:
        check_whole("Tile", **msgspec.structs.asdict(self))

    @property
    def sizes(self) -> tuple[int, int, int, int, int]:
        """Tile sizes, indexed by :class:`Loop`."""
        return (
            self.batch,
            self.out_width,
            self.out_height,
            self.in_channels,
            self.out_channels,
        )

    @property
    def pixels(self) -> int:
        """Output pixels in a tile, over its batch."""
        return self.batch * self.out_width * self.out_height


class Mapping(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Tile sizes, the order in which tiles are walked, and what the buffers keep.

    Attributes
    ----------
    tile : Tile
    order : tuple of Loop
        Outermost loop first.
    kept : tuple of int
        For each :class:`Datum` how many of the innermost loops run on one block of it: what these
        loops need is loaded once, and stays until they have ended.
    """

    tile: Tile
    order: tuple[Loop, Loop, Loop, Loop, Loop]
    kept: tuple[int, int, int]

    def __post_init__(self) -> None:
        if sorted(self.order) != list(Loop):
            raise InputError(
                f"Mapping.order must name each of the five loops once, got {self.order!r}"
            )
        if not all(isinstance(loops, int) and 0 <= loops <= LOOPS for loops in self.kept):
            raise InputError(f"Mapping.kept must be three numbers from 0 to 5, got {self.kept!r}")

    def trips(self, shape: ConvShape) -> tuple[int, ...]:
        """Return how many tiles each loop has, indexed by :class:`Loop`."""
        for loop, size, extent in zip(Loop, self.tile.sizes, shape.extents, strict=True):
            if size > extent:
                raise InputError(
                    f"a tile of {size} along {loop.name} exceeds the layer's {extent}; "
                    f"make it at most {extent}"
                )
        return tuple(
            -(-extent // size) for extent, size in zip(shape.extents, self.tile.sizes, strict=True)
        )

    def tiles(self, shape: ConvShape) -> int:
        """Return how many tiles are walked, over all groups."""
        return shape.groups * math.prod(self.trips(shape))

    def keeps(self, datum: Datum, loop: Loop) -> bool:
        """Return whether a loop runs on one block of a datum."""
        return loop in self.order[LOOPS - self.kept[datum] :]


MANY = 1 << 20  # tiles of a loop that take no more memory than anything else


def sizes_of(extent: int, tile: int) -> NDArray[np.int64]:
    """Sizes of the tiles of one loop, the last what is left."""
    if extent > MANY * tile:
        check_memory(24.0 * extent / tile, f"the {-(-extent // tile):,} tiles of a loop")
    return np.minimum(tile, extent - np.arange(0, extent, tile))
