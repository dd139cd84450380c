"""SNAP's channel-indexed bundles: both operands compressed along the channel axis.

At each pixel (or kernel tap) the channels are cut into bundles of ``length`` neighbours. A bundle
keeps its non-zeros and, beside each, its channel index within the bundle. The front end compares
all indices of a weight bundle with all indices of an activation bundle at once; every match is a
useful product, and all products of a bundle pair add into one output (channel-first dataflow).

Bundles are stored position by position (the other axes, in C order), and within a position by
rising channel. A last bundle shorter than ``length`` is allowed.

Assumed: indices count within the bundle and each bundle holds a count of its non-zeros; the papers
give neither. Source: Zhang et al., SNAP, VLSI 2019 and JSSC 2021.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparqsim.base import InputError
from sparqsim.workloads.encodings.checks import (
    array_of,
    finite_numbers,
    tensor_shape,
    value_width,
    whole_number,
)

MOST_CHANNELS = 256  # derived: a channel index is a uint8


@dataclass(frozen=True, eq=False)
class ChannelBundles:
    """A sparse tensor as bundles of non-zeros with their channel indices.

    Parameters
    ----------
    shape : tuple of int
        Shape of the dense tensor.
    axis : int
        The channel axis.
    length : int
        Channels a bundle covers, 1 to 256.
    pointers : int64 array [bundles + 1]
        Where each bundle starts in ``channels`` and ``values``.
    channels : uint8 array [non-zeros]
        Channel within the bundle, strictly ascending.
    values : array [non-zeros]
    value_bits : int, optional
        Bits of a value; those of the dtype by default.

    Raises
    ------
    InputError
        If the arrays do not fit together or a channel is out of range or out of order.
    """

    shape: tuple[int, ...]
    axis: int
    length: int
    pointers: NDArray[np.int64]
    channels: NDArray[np.uint8]
    values: NDArray[Any]
    value_bits: int | None = None

    def __post_init__(self) -> None:
        shape = tensor_shape("ChannelBundles.shape", self.shape)
        object.__setattr__(self, "shape", shape)
        whole_number("ChannelBundles.axis", self.axis, 0, len(shape) - 1)
        whole_number("ChannelBundles.length", self.length, 1, MOST_CHANNELS)
        pointers = array_of("ChannelBundles.pointers", self.pointers, np.int64, 1, self.bundles + 1)
        stored = len(array_of("ChannelBundles.channels", self.channels, np.uint8, 1))
        finite_numbers("ChannelBundles.values", self.values, 1)
        array_of("ChannelBundles.values", self.values, length=stored)
        object.__setattr__(self, "value_bits", value_width(self.value_bits, self.values.dtype))
        if pointers[0] != 0 or pointers[-1] != stored or (pointers[1:] < pointers[:-1]).any():
            raise InputError(
                f"ChannelBundles.pointers must rise from 0 to the {stored} stored values, got "
                f"{pointers[0]} to {pointers[-1]}; the data is truncated or mixed up"
            )
        bundle = self.bundle_of()
        covers = np.minimum(
            self.length, shape[self.axis] - bundle % self.bundles_per_position * self.length
        )
        if (outside := self.channels >= covers).any():
            wrong = int(outside.argmax())
            raise InputError(
                f"ChannelBundles.channels must be below {covers[wrong]} in bundle "
                f"{bundle[wrong]}, got {self.channels[wrong]}"
            )
        falls = (self.channels[1:] <= self.channels[:-1]) & (bundle[1:] == bundle[:-1])
        if falls.any():
            raise InputError(
                f"ChannelBundles.channels must rise within bundle {bundle[int(falls.argmax())]}"
            )

    @classmethod
    def encode(
        cls, dense: NDArray[Any], length: int, axis: int = 0, value_bits: int | None = None
    ) -> ChannelBundles:
        """Encode a tensor; refuses NaN, infinity and emptiness.

        Parameters
        ----------
        dense : array
            For example activations [C, H, W] with axis 0 or weights [K, C, R, S] with axis 1.
        length : int
            Channels a bundle covers, 1 to 256.
        axis : int
            The channel axis; may count from the end.
        value_bits : int, optional
            Bits of a value; those of the dtype by default.
        """
        shape = tensor_shape("the shape of the tensor", finite_numbers("the tensor", dense).shape)
        axis = whole_number("axis", axis, -len(shape), len(shape) - 1) % len(shape)
        whole_number("length", length, 1, MOST_CHANNELS)
        flat = np.ascontiguousarray(np.moveaxis(dense, axis, -1)).ravel()
        where = np.flatnonzero(flat)
        position, channel = np.divmod(where, shape[axis])
        per_position = -(-shape[axis] // length)
        within = channel % length
        bundle = position * per_position + channel // length
        bundles = flat.size // shape[axis] * per_position
        pointers = np.zeros(bundles + 1, np.int64)
        np.cumsum(np.bincount(bundle, minlength=bundles), out=pointers[1:])
        return cls(shape, axis, length, pointers, within.astype(np.uint8), flat[where], value_bits)

    def decode(self) -> NDArray[Any]:
        """Return the dense tensor."""
        others = self.shape[: self.axis] + self.shape[self.axis + 1 :]
        channels = self.shape[self.axis]
        position, rank = np.divmod(self.bundle_of(), self.bundles_per_position)
        dense = np.zeros((self.positions, channels), self.values.dtype)
        dense[position, rank * self.length + self.channels] = self.values
        return np.ascontiguousarray(np.moveaxis(dense.reshape(*others, channels), -1, self.axis))

    @property
    def positions(self) -> int:
        """Places of all axes but the channels."""
        return math.prod(self.shape) // self.shape[self.axis]

    @property
    def bundles_per_position(self) -> int:
        """Bundles that cover the channels of one position."""
        return -(-self.shape[self.axis] // self.length)

    @property
    def bundles(self) -> int:
        """All bundles, empty ones too."""
        return self.positions * self.bundles_per_position

    def bundle_of(self) -> NDArray[np.int64]:
        """Return the bundle of each stored value [non-zeros]."""
        return np.repeat(np.arange(self.bundles), np.diff(self.pointers))

    def counts(self) -> NDArray[np.int64]:
        """Return the non-zeros of each bundle [positions, bundles_per_position]."""
        return np.diff(self.pointers).reshape(self.positions, self.bundles_per_position)

    @property
    def index_bits(self) -> int:
        """Bits of a channel index: ceil(log2 length)."""
        return (self.length - 1).bit_length()

    @property
    def bits(self) -> int:
        """Bits of values, channel indices, and a count (0..length) a bundle."""
        assert self.value_bits is not None
        count_bits = self.length.bit_length()
        return len(self.values) * (self.value_bits + self.index_bits) + self.bundles * count_bits
