"""Outlier-victim pairs in memory: OliVe's point is that they stay aligned, a pair a byte at 4 bits.

The format (:mod:`sparqsim.workloads.formats.pairs`) gives two codes a pair, one of which may be the
identifier that marks its neighbour as an outlier. Here they are packed as a memory holds them: at 4
bits the left code in the high half of a byte and the right in the low half, at 8 bits in two bytes,
left first. No list of outliers is kept, so any pair can be read without the ones before it; the
decoder looks for the identifier.

Assumed: left is high (the paper draws it so and does not say). Source: OliVe, ISCA 2023.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sparqsim.base import InputError
from sparqsim.workloads.encodings.checks import array_of, tensor_shape

if TYPE_CHECKING:
    from sparqsim.workloads.formats.pairs import OutlierVictim


@dataclass(frozen=True, eq=False)
class OutlierPairs:
    """A tensor of outlier-victim codes as packed bytes.

    Parameters
    ----------
    shape : tuple of int
        Shape of the tensor; pairs are neighbours along the last axis, which is even.
    data : uint8 array [places * code width / 8]
    format : OutlierVictim
        Of 4 or 8 bits.

    Raises
    ------
    InputError
        If the bytes are too few or too many, or hold a pair that encoding never makes.
    """

    shape: tuple[int, ...]
    data: NDArray[np.uint8]
    format: OutlierVictim

    def __post_init__(self) -> None:
        shape = tensor_shape("OutlierPairs.shape", self.shape)
        object.__setattr__(self, "shape", shape)
        if self.format.bits not in (4, 8):
            raise InputError(
                f"pairs are packed at 4 or 8 bits a code, but {self.format.name} has "
                f"{self.format.bits}"
            )
        if shape[-1] % 2:
            raise InputError(f"the last axis must be even to hold pairs, got shape {shape}")
        size = math.prod(shape) * self.format.bits // 8
        array_of("OutlierPairs.data", self.data, np.uint8, 1, size)
        impossible = np.isnan(self.format.code_values[..., 0]).ravel()[self._pairs()]
        if impossible.any():
            pair = int(impossible.argmax())
            left, right = self.decode_codes().reshape(-1, 2)[pair]
            raise InputError(
                f"corrupt outlier-victim data: pair {pair} is ({left}, {right}), which "
                f"{self.format.name} never makes"
            )

    @classmethod
    def encode(cls, values: NDArray[Any], format: OutlierVictim) -> OutlierPairs:
        """Round values to the format (a scale is applied before) and pack the codes."""
        return cls.pack(format.encode(values), format)

    @classmethod
    def pack(cls, codes: NDArray[np.uint8], format: OutlierVictim) -> OutlierPairs:
        """Pack the codes that ``format.encode`` gives."""
        array_of("codes", codes, np.uint8)
        shape = tensor_shape("the shape of the codes", codes.shape)
        if codes.max() >= 1 << format.bits:
            raise InputError(f"codes of {format.name} must fit {format.bits} bits")
        if shape[-1] % 2:
            raise InputError(f"the last axis must be even to hold pairs, got shape {shape}")
        data = codes.reshape(-1).copy()
        if format.bits == 4:
            data = ((data[::2] << 4) | data[1::2]).astype(np.uint8)
        return cls(shape, data, format)

    def decode_codes(self) -> NDArray[np.uint8]:
        """Return the codes, one a byte, in the shape of the tensor."""
        if self.format.bits == 8:
            return self.data.reshape(self.shape).copy()
        return np.stack([self.data >> 4, self.data & 15], axis=1).reshape(self.shape)

    def decode(self) -> NDArray[Any]:
        """Return the values: victims are 0."""
        return self.format.decode(self.decode_codes())

    def _pairs(self) -> NDArray[Any]:
        """Return each pair as one number, left code high."""
        return self.data if self.format.bits == 4 else self.data.view(">u2")

    @property
    def outliers(self) -> int:
        """Outliers stored: pairs with an identifier."""
        codes = self.decode_codes()
        return int(np.count_nonzero(codes == self.format.identifier))

    @property
    def bits(self) -> int:
        """Bits of the packed codes."""
        return 8 * self.data.size
