"""Bitmap encoding: one bit per place says zero or not; the non-zeros follow each other.

The simplest sparse form and the cheapest at middling density: its overhead is one bit per place
whatever the density, where a 4-bit index costs four bits per non-zero (more, above a quarter). A
machine finds a value's place in the packed list by counting the ones before it.

Places are in C order, the first place in the highest bit of the first byte; spare bits are 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparqsim.base import InputError
from sparqsim.workloads.encodings.checks import array_of, finite_numbers, tensor_shape, value_width


@dataclass(frozen=True, eq=False)
class Bitmap:
    """A sparse tensor as a bitmap and its non-zeros.

    Parameters
    ----------
    shape : tuple of int
    bitmap : uint8 array [ceil(places / 8)]
    values : array [non-zeros]
    value_bits : int, optional
        Bits of a value; those of the dtype by default.

    Raises
    ------
    InputError
        If the arrays do not fit together.
    """

    shape: tuple[int, ...]
    bitmap: NDArray[np.uint8]
    values: NDArray[Any]
    value_bits: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tensor_shape("Bitmap.shape", self.shape))
        array_of("Bitmap.bitmap", self.bitmap, np.uint8, 1, -(-self.places // 8))
        finite_numbers("Bitmap.values", self.values, 1)
        object.__setattr__(self, "value_bits", value_width(self.value_bits, self.values.dtype))
        spare = -self.places % 8
        if self.bitmap[-1] & ((1 << spare) - 1):
            raise InputError(f"the last {spare} bit(s) of Bitmap.bitmap lie past the tensor: not 0")
        ones = int(np.bitwise_count(self.bitmap).sum(dtype=np.int64))
        array_of("Bitmap.values", self.values, length=ones)

    @classmethod
    def encode(cls, dense: NDArray[Any], value_bits: int | None = None) -> Bitmap:
        """Encode a tensor; refuses NaN, infinity and emptiness."""
        finite_numbers("the tensor", dense)
        flat = np.ascontiguousarray(dense).ravel()
        nonzero = flat != 0
        return cls(dense.shape, np.packbits(nonzero), flat[nonzero], value_bits)

    def decode(self) -> NDArray[Any]:
        """Return the dense tensor."""
        dense = np.zeros(self.places, self.values.dtype)
        dense[np.unpackbits(self.bitmap, count=self.places).view(bool)] = self.values
        return dense.reshape(self.shape)

    @property
    def places(self) -> int:
        """Places of the dense tensor."""
        return math.prod(self.shape)

    @property
    def bits(self) -> int:
        """Bits of the bitmap and the values."""
        assert self.value_bits is not None
        return self.places + len(self.values) * self.value_bits
