"""A layer as SNAP holds it: both operands in bundles along the channels, sums in whole numbers.

Weights and activations are 16-bit integers and what is zero is not stored. With steps S_W and S_X
an output is ``S_W S_X (sum q_W q_X + bias / (S_W S_X))``: sums begin with the bias in units of a
product, at the accumulators' width. Every layer is a convolution; the right operand of a product of
two activations stands in bundles like weights do.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sparqsim.architectures.snap.config import VALUE_BITS, Configuration
from sparqsim.simulator.mac import snap as mac
from sparqsim.workloads.encoded import Coded, EncodedLayer, as_convolution, as_image, as_kernels
from sparqsim.workloads.encodings.channel_bundles import ChannelBundles
from sparqsim.workloads.layers import Conv2d


@dataclass(frozen=True, eq=False, kw_only=True)
class Stored:
    """Operands of a convolution.

    Attributes
    ----------
    layer : Conv2d
    weights, activations : Bundles
        Places [output channel, kernel row, kernel column] and [image, group, y, x].
    geometry : Geometry
    bias : int64 [out]
        In units of a sum.
    unit : float64 [1] or [out]
        Real value of a sum of 1.
    bits : int
        Size of both operands in bundles.
    """

    layer: Conv2d
    weights: mac.Bundles
    activations: mac.Bundles
    geometry: mac.Geometry
    bias: NDArray[np.int64]
    unit: NDArray[np.float64]
    bits: int

    @classmethod
    def of(cls, layer: EncodedLayer, machine: Configuration) -> Stored:
        """The operands of a layer whose formats the machine computes."""
        weight, activation = layer.weight, layer.activation
        assert isinstance(weight, Coded) and isinstance(activation, Coded)
        shape, length = as_convolution(layer.layer), machine.bundle_channels
        kernels = as_kernels(layer.layer, weight.levels()).astype(np.int32)
        image = as_image(layer.layer, activation.levels()).astype(np.int32)
        grouped = image.reshape(shape.batch, shape.groups, -1, *shape.input)
        weights, weight_bits = _bundles(kernels, length, 1)
        activations, activation_bits = _bundles(grouped, length, 2)
        unit = weight.scale * activation.scale
        limit = 2.0 ** (machine.accumulator_bits - 1) - 1
        return cls(
            layer=shape,
            weights=weights,
            activations=activations,
            geometry=_geometry(shape, length),
            bias=np.clip(np.rint(layer.bias / unit), -limit, limit).astype(np.int64),
            unit=unit,
            bits=weight_bits + activation_bits,
        )


def _bundles(dense: NDArray[np.int32], length: int, axis: int) -> tuple[mac.Bundles, int]:
    """A tensor in bundles along an axis, and the bits it takes."""
    made = ChannelBundles.encode(dense, length, axis, value_bits=VALUE_BITS)
    return mac.Bundles(made.pointers, made.channels, made.values), made.bits


def _geometry(layer: Conv2d, length: int) -> mac.Geometry:
    return mac.Geometry(
        groups=layer.groups,
        bundles=-(-layer.in_channels // layer.groups // length),
        height=layer.input[0],
        width=layer.input[1],
        kernel_height=layer.kernel[0],
        kernel_width=layer.kernel[1],
        stride_y=layer.stride[0],
        stride_x=layer.stride[1],
        pad_y=layer.padding[0],
        pad_x=layer.padding[1],
        dilation_y=layer.dilation[0],
        dilation_x=layer.dilation[1],
    )
