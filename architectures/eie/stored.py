"""A layer as EIE holds it: codes, table and bias in whole numbers, and outputs by their meaning.

Weights are codes into a table of 16-bit fixed-point values; activations are 16-bit integers. With
the table in units of 2^-f, an output is

    S_W S_X 2^-f (sum table[code] q_X  +  bias / (S_W S_X 2^-f))

so sums are of whole numbers. The bias is one more column with the activation 1. Through the table
it would be rounded to a shared weight, and 1 is no whole number of steps S_X; so its entries, which
take their cycles like any other, bring a value of their own in units of a sum, at the accumulators'
width (Deep Compression does not share biases either; where the chip keeps them is not published).

A 1 x 1 convolution is a product with one vector for each output pixel.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from sparqsim.architectures.eie.config import CODE_BITS, WEIGHT_BITS, Configuration
from sparqsim.base import InputError
from sparqsim.workloads.encoded import Coded, EncodedLayer
from sparqsim.workloads.encodings.csc import CSC
from sparqsim.workloads.layers import Conv2d


@dataclass(frozen=True, eq=False, kw_only=True)
class Stored:
    """Operands of a product of a matrix with some vectors.

    Attributes
    ----------
    weights : CSC [rows, inputs]
        Codes 1 to 15 of what is not zero.
    table : int64 [16]
        What a code stands for, in units of ``2**-fraction``.
    fraction : int
    vectors : int64 [vectors, inputs]
        Activations in their steps.
    bias : int64 [rows] or None
        In units of a sum.
    unit : float64 [1] or [rows]
        Real value of a sum of 1.
    """

    weights: CSC
    table: NDArray[np.int64]
    fraction: int
    vectors: NDArray[np.int64]
    bias: NDArray[np.int64] | None
    unit: NDArray[np.float64]

    @classmethod
    def of(cls, layer: EncodedLayer, machine: Configuration) -> Stored:
        """The operands of a layer whose formats the machine computes.

        Raises
        ------
        InputError
            If a value of the table is no 16-bit fixed point.
        """
        weight, activation = layer.weight, layer.activation
        assert isinstance(weight, Coded) and isinstance(activation, Coded)
        table, fraction = fixed_table(weight.formats[0].code_values, layer.name)
        unit = weight.scale * activation.scale * 2.0**-fraction
        bias = None
        if layer.given is not None and layer.given.bias is not None:
            limit = 2.0 ** (machine.accumulator_bits - 1) - 1
            bias = np.clip(np.rint(layer.bias / unit), -limit, limit).astype(np.int64)
        return cls(
            weights=as_matrix(weight).sparse.without_zeros(),
            table=table,
            fraction=fraction,
            vectors=as_vectors(layer, activation.levels()).astype(np.int64),
            bias=bias,
            unit=unit,
        )

    @property
    def matrix(self) -> CSC:
        """Codes with the bias as a last column, in which 1 marks an entry."""
        if self.bias is None:
            return self.weights
        return self.weights.with_column((self.bias != 0).astype(self.weights.values.dtype))

    @property
    def broadcasts(self) -> NDArray[np.int64]:
        """Activations ``[vectors, columns of the matrix]``."""
        if self.bias is None:
            return self.vectors
        return np.pad(self.vectors, ((0, 0), (0, 1)), constant_values=1)


def fixed_table(values: NDArray[np.float64], layer: str) -> tuple[NDArray[np.int64], int]:
    """A table ``[16]`` in whole numbers, and the least fraction bits with which they are exact.

    Raises
    ------
    InputError
        If they do not fit 16 bits.
    """
    exact = [Fraction(float(value)) for value in values]
    # An odd number over 2^f needs f fraction bits; a multiple of 2^k needs -k.
    fraction = max(
        each.denominator.bit_length() - (each.numerator & -each.numerator).bit_length()
        for each in exact
        if each
    )
    whole = [int(each * Fraction(2) ** fraction) for each in exact]
    if max(abs(number) for number in whole) >= 1 << (WEIGHT_BITS - 1):
        raise InputError(
            f"layer {layer!r}: EIE's table holds {WEIGHT_BITS}-bit fixed point, but the codebook "
            f"from {values.min():g} to {values.max():g} needs more bits; fit it with entry_bits="
            f"{WEIGHT_BITS}, as recipes do"
        )
    table = np.zeros(1 << CODE_BITS, np.int64)
    table[: len(whole)] = whole
    return table, fraction


def as_matrix(weight: Coded) -> Coded:
    """Weights ``[out, in]``, also of a 1 x 1 convolution."""
    if isinstance(weight.codes, CSC):
        return weight
    return replace(weight, codes=weight.codes.reshape(weight.shape[:2]))


def as_vectors(layer: EncodedLayer, image: NDArray[np.floating]) -> NDArray[np.floating]:
    """Inputs as vectors ``[vectors, in]``: a 1 x 1 convolution has one for each output pixel."""
    shape = layer.layer
    if not isinstance(shape, Conv2d):
        return image
    top, left, bottom, right = shape.padding
    padded = np.pad(image, ((0, 0), (0, 0), (top, bottom), (left, right)))
    (high, wide), (down, across) = shape.output, shape.stride
    pixels = padded[:, :, : (high - 1) * down + 1 : down, : (wide - 1) * across + 1 : across]
    return pixels.transpose(0, 2, 3, 1).reshape(-1, shape.in_channels)


def as_output(layer: EncodedLayer, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Outputs ``[vectors, out]`` in the shape of the layer's output."""
    shape = layer.layer
    if not isinstance(shape, Conv2d):
        return rows
    image = rows.reshape(shape.batch, *shape.output, shape.out_channels)
    return np.ascontiguousarray(image.transpose(0, 3, 1, 2))
