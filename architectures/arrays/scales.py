"""Scales finer than one an output channel: of groups along the reduction, and of tokens.

With a scale, and perhaps a zero point, for every G weights of a channel

    y[m, n] = S_X sum_g S[n, g] P_g[m, n]        P_g = sum over k in g of q_x (q_w - Z[n, g])

a sum leaves the array when its group is complete. It is multiplied by S[n, g] / U[n] as outputs are
requantized, by a fixed-point multiplier and a rounding shift, and added up in the output buffer.
U[n], what 1 stands for there, is the least power of two with which no sum of the channel leaves the
accumulator, whatever the inputs; it is known with the weights.

With a scale S_X[m] for each token, the sums of a row are first brought to one scale, the power of
two above the largest, by a multiplier below 1 of the row; then they are requantized by channel.
The zero point of a token takes its product with the sum of the weights, known ahead, off.

Published of a scale a group in hardware: VS-Quant (MLSys 2021), whose scales are integers of few
bits; the fixed-point multiplier is assumed, that of the post-processing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from sparqsim.architectures.arrays.rules import ArrayRules
from sparqsim.simulator.mac import dense
from sparqsim.workloads.encoded import Coded, EncodedLayer, as_convolution, as_image, as_kernels
from sparqsim.workloads.layers import Conv2d, Layer, MatMul
from sparqsim.workloads.quantize import SCALE_BITS
from sparqsim.workloads.requantize import fixed_points, scaled
from sparqsim.workloads.slices import Slices

if TYPE_CHECKING:
    from sparqsim.architectures.arrays.datapath import Multiply, Operand

Ints = NDArray[np.int64]


class GroupScales(NamedTuple):
    """Of weights, as the timing sees them: values that share a scale, and bits beside them."""

    size: int
    side_bits: int

    @classmethod
    def of(cls, layer: EncodedLayer) -> GroupScales | None:
        """Those of a layer, or None where a channel has one scale."""
        weight = layer.weight
        assert isinstance(weight, Coded)
        group = weight.quantizer.slices.group
        if group is None:
            return None
        conv = as_convolution(layer.layer)
        zero = weight.bits if np.any(weight.zero_point) else 0
        return cls(min(group, conv.in_channels // conv.groups), SCALE_BITS + zero)

    def scalings(self, layer: Layer) -> int:
        """Sums of groups of all outputs; the last group of a channel may be short."""
        conv = as_convolution(layer)
        return -(-(conv.in_channels // conv.groups) // self.size) * layer.output_elements


def with_groups(rules: ArrayRules, scales: GroupScales) -> ArrayRules:
    """The rules of an array whose sums leave at the end of each group of weights."""
    return msgspec.structs.replace(
        rules,
        scaled_channels=scales.size,
        weight_group=scales.size,
        weights_of_group=scales.size,
        weight_bits=scales.size * rules.weight_bits + scales.side_bits,
        sums_in_buffer=True,
    )


def groups_refused(layer: EncodedLayer, *, rows: int | None = None, why: str = "") -> str:
    """Why an array does not scale the groups of a layer's weights, or nothing.

    Parameters
    ----------
    rows
        Of an array in which weights or inputs stay, along the reduction.
    why
        What else keeps it from that.
    """
    if not isinstance(layer.weight, Coded) or layer.weight.quantizer.slices.group is None:
        return ""
    size, taps = layer.weight.quantizer.slices.group, math.prod(as_convolution(layer.layer).kernel)
    if layer.weight.quantizer.slices.axis != 0 or isinstance(layer.layer, MatMul):
        return "which are not groups of one output channel; choose the granularity group:N"
    if taps > 1:
        return (
            f"which run across the {taps} taps of its kernel, while an array sums tap by tap; "
            "give this layer the granularity channel in an [[override]]"
        )
    if rows is not None and size > rows:
        return (
            f"but what stays in the array is {rows} of them at a time, and the sum of a group "
            f"would need accumulators of its own; choose groups of at most {rows}, or an "
            "output-stationary array"
        )
    return why


AUTHORS_GROUPS = "which the authors' model does not know; leave authors_model out"


def spread(tensor: Coded, each: NDArray[Any]) -> NDArray[Any]:
    """One number for each scale, as an array that goes with the tensor's values."""
    slices = tensor.quantizer.slices
    if len(each) == 1:
        return np.broadcast_to(each, tensor.shape)
    if slices == Slices(0):
        return np.broadcast_to(each.reshape(-1, *(1,) * (len(tensor.shape) - 1)), tensor.shape)
    rows = slices.split(np.broadcast_to(np.uint8(0), tensor.shape)).shape
    return slices.join(np.broadcast_to(each[:, None], rows), tensor.shape)


def power_above(value: NDArray[np.float64]) -> NDArray[np.float64]:
    """The least power of two above each positive value; 1 above 0."""
    found: NDArray[np.float64] = np.ldexp(1.0, np.frexp(value)[1])
    return found


def by_definition(sums: Ints, m0_q31: Ints, right_shift: Ints) -> Ints:
    """Multiply and shift by the definition, for checks; multipliers broadcast.

    A doubling high product rounded to the nearest, then a rounded division, half away from zero.
    """
    left = np.minimum(np.maximum(-right_shift, 0), 31)
    held = np.clip(sums << left, -(2**31), 2**31 - 1)
    product = held * m0_q31
    nudged = product + np.where(product >= 0, 2**30, 1 - 2**30)
    high_part = np.sign(nudged) * (np.abs(nudged) // 2**31)
    divisor = np.int64(1) << np.minimum(np.maximum(right_shift, 0), 40)
    return np.sign(high_part) * ((2 * np.abs(high_part) + divisor) // (2 * divisor))


class Groups:
    """The groups of a layer's weights, and how their sums are added.

    Attributes
    ----------
    unit : float64 [out]
        Real value of 1 in a sum, where that of 1 in an input is 1.
    offset : int64 [out]
        What an input of 1 everywhere would give: a zero point of the inputs takes it off.
    wrapped : int
        Sums of groups that left the accumulator and wrapped around.
    """

    def __init__(
        self, layer: EncodedLayer, x: Operand, w: Operand, input_unit: float, sum_bits: int
    ) -> None:
        self.x, self.w, self.sum_bits, self.wrapped = x, w, sum_bits, 0
        self.conv = as_convolution(layer.layer)
        depth = self.conv.in_channels // self.conv.groups
        scales = GroupScales.of(layer)
        assert scales is not None
        self.size = scales.size
        self.spans = [slice(k, min(k + self.size, depth)) for k in range(0, depth, self.size)]
        out = self.conv.out_channels
        scale = w.scale.reshape(out, -1).T  # [groups of weights, out]
        self.zeros = w.zero.reshape(out, -1).T
        right = (w.levels - as_kernels(layer.layer, spread(w.tensor, w.zero)))[:, :, 0, 0]
        self.levels: NDArray[np.float64] = right
        sums = [right[:, span].sum(axis=1) for span in self.spans]
        sizes = [np.abs(right[:, span]).sum(axis=1) for span in self.spans]
        grid = x.tensor.formats[0].values * (x.tensor.scale[0] / x.scale[0])
        input_zero = float(np.abs(x.zero).max())
        largest = (scale * np.stack(sizes)).sum(axis=0) * max(np.abs(grid).max(), input_zero)
        ahead = np.abs((scale * np.stack(sums)).sum(axis=0)) * input_zero
        bound = largest + ahead + np.abs(layer.bias) / input_unit
        self.unit = power_above(np.where(bound > 0, bound, 1.0)) * 2.0 ** (2 - sum_bits)
        dead = np.stack(sizes) == 0  # whatever their scale is
        self.m0_q31, self.right_shift = fixed_points(np.where(dead, 1.0, scale / self.unit))
        self.offset = np.rint((scale * np.stack(sums)).sum(axis=0) / self.unit).astype(np.int64)

    def sums(self, rows: NDArray[Any], columns: NDArray[Any], multiply: Multiply) -> Ints:
        """Codes ``[groups, pixels, K]`` by ``[groups, K, out]``: scaled sums of all groups."""
        total: Ints = np.zeros((len(rows), rows.shape[1], columns.shape[2]), np.int64)
        for number, span in enumerate(self.spans):
            for group, zeros in enumerate(self.zeros[number].reshape(len(rows), -1)):
                left = np.ascontiguousarray(rows[group, :, span])
                right = np.ascontiguousarray(columns[group, span])
                part = multiply(left, right, self.x, self.w).astype(np.int64)
                if zeros.any():
                    part -= left.sum(axis=1, dtype=np.int64)[:, None] * zeros
                held = dense.wrap(part, self.sum_bits)
                self.wrapped += int(np.count_nonzero(held != part))
                total[group] += scaled(held, *self._factors(number, group, slice(None)))
        return total

    def _factors(self, number: int, group: int, outputs: slice) -> tuple[Ints, Ints]:
        """Multipliers of a group of weights, for outputs of a group of the convolution."""
        found = [
            np.ascontiguousarray(each[number].reshape(self.conv.groups, -1)[group, outputs])
            for each in (self.m0_q31, self.right_shift)
        ]
        return found[0], found[1]

    def products(
        self,
        pixels: NDArray[Any],
        weights: NDArray[Any],
        group: int,
        inputs: slice,
        outputs: slice,
    ) -> Ints:
        """What a tile of whole groups adds to the scaled sums ``[..., outputs]``.

        Pixels ``[..., 1, channels]`` are levels, weights ``[1, channels, outputs]`` levels counted
        from their zero points.
        """
        total: Ints = np.zeros((*pixels.shape[:-2], weights.shape[-1]), np.int64)
        for number, span in enumerate(self.spans):
            if inputs.start <= span.start < inputs.stop:
                here = slice(span.start - inputs.start, span.stop - inputs.start)
                part = (pixels[..., 0, here] @ weights[0, here]).astype(np.int64)
                held = dense.wrap(part, self.sum_bits)
                total += scaled(held, *self._factors(number, group, outputs))
        return total

    def expected(self, left: NDArray[np.float64], zeros: Ints) -> Ints:
        """The scaled sums by definition, ``[batch, out, oh, ow]``, of inputs counted from zero.

        ``zeros`` are their zero points, as they go with the outputs.
        """
        conv, split = self.conv, (len(left), self.conv.groups, -1, *left.shape[2:])
        image, total = left.reshape(split), np.zeros((), np.int64)
        for number, span in enumerate(self.spans):
            kernels = self.levels[:, span]
            seen = image[:, :, span].reshape(len(left), -1, *left.shape[2:])
            part = dense.convolve_levels(
                seen, kernels[:, :, None, None], conv.stride, conv.padding, conv.dilation,
                conv.groups,
            )  # fmt: skip
            part = part.astype(np.int64) + zeros * _by_channel(kernels.sum(axis=1))
            factors = (_by_channel(each[number]) for each in (self.m0_q31, self.right_shift))
            total = total + by_definition(dense.wrap(part, self.sum_bits), *factors)
        return total


@dataclass(frozen=True, eq=False, kw_only=True)
class Tokens:
    """Scales of rows of a product.

    Attributes
    ----------
    unit : float
        Real value of 1 in an input, once the row is scaled.
    m0_q31, right_shift : int64 [batch, out]
        Of the multiplier of each row, as it goes with its sums.
    """

    unit: float
    m0_q31: Ints
    right_shift: Ints

    @classmethod
    def of(cls, layer: EncodedLayer, x: Operand) -> Tokens | None:
        """Those of a layer's inputs, or None where all of them share a scale."""
        if not x.tensor.quantizer.slices.tokens:
            return None
        unit = float(power_above(x.scale.max()))
        factors = with_outputs(layer, x.tensor, x.scale / unit)
        m0_q31, right_shift = fixed_points(factors)
        return cls(unit=unit, m0_q31=m0_q31, right_shift=right_shift)

    def scaled(self, sums: Ints) -> Ints:
        """Sums ``[batch, out, oh, ow]`` at the scale of all rows."""
        last = sums.reshape(-1, sums.shape[2] * sums.shape[3]).T
        found = scaled(last, self.m0_q31.reshape(-1), self.right_shift.reshape(-1))
        return np.ascontiguousarray(found.T).reshape(sums.shape)

    def expected(self, sums: Ints) -> Ints:
        """The same by definition."""
        return by_definition(sums, self.m0_q31[..., None, None], self.right_shift[..., None, None])


def with_outputs(layer: EncodedLayer, tensor: Coded, each: NDArray[Any]) -> NDArray[Any]:
    """One number for each scale of the inputs, as it goes with outputs: ``[batch or 1, out]``."""
    conv = as_convolution(layer.layer)
    if len(each) == 1:
        return np.broadcast_to(each, (1, conv.out_channels))
    image = as_image(layer.layer, spread(tensor, each))[:, :, 0, 0]
    groups = image[:, :: conv.in_channels // conv.groups]
    return np.repeat(groups, conv.out_channels // conv.groups, axis=1)


def tokens_refused(layer: EncodedLayer) -> str:
    """Why lines of a layer's inputs cannot have scales of their own, or nothing."""
    if isinstance(layer.layer, Conv2d):
        return "whose lines are rows of an image, which a convolution sums over"
    return ""


def _by_channel(each: NDArray[Any]) -> NDArray[np.int64]:
    return each.astype(np.int64).reshape(-1, 1, 1)


@dataclass(frozen=True, kw_only=True)
class Scalings:
    """What finer scales, and zero points of weights, cost beside products and requantization.

    Attributes
    ----------
    groups : GroupScales or None
        Of its weights.
    of_groups, of_tokens : int
        Sums that are scaled for their group, and for their token.
    zeros : int
        Products of a token's zero point with the sum of the weights.
    activation_sums : int
        Additions for the sums of activations that zero points of weights need.
    """

    groups: GroupScales | None
    of_groups: int
    of_tokens: int
    zeros: int
    activation_sums: int

    @classmethod
    def of(cls, layer: EncodedLayer) -> Scalings:
        """Those of a layer."""
        assert isinstance(layer.activation, Coded) and isinstance(layer.weight, Coded)
        groups, outputs = GroupScales.of(layer), layer.layer.output_elements
        tokens = layer.activation.quantizer.slices.tokens
        return cls(
            groups=groups,
            of_groups=0 if groups is None else groups.scalings(layer.layer),
            of_tokens=outputs if tokens else 0,
            zeros=outputs if tokens and layer.activation.zero_point.any() else 0,
            activation_sums=_unfolded(layer.layer) if layer.weight.zero_point.any() else 0,
        )

    @property
    def counters(self) -> dict[str, int]:
        """Those that are not zero, by the names of a report's counters."""
        named = {
            "group_scalings": self.of_groups,
            "token_scalings": self.of_tokens,
            "token_zero_products": self.zeros,
            "activation_sum_additions": self.activation_sums,
        }
        return {name: count for name, count in named.items() if count}

    @property
    def multiplications(self) -> int:
        """Of 32 bits."""
        return self.of_groups + self.of_tokens + self.zeros

    @property
    def additions(self) -> int:
        """Of 32 bits."""
        return self.of_groups + self.zeros

    @property
    def notes(self) -> list[str]:
        """What they cost, in words."""
        found = []
        if self.groups is not None:
            found.append(
                f"one scale for every {self.groups.size} weights of a channel: a step covers at "
                f"most one group, whose sum is scaled as it leaves the array ({self.of_groups:,} "
                "scalings, assumed to keep up with it) and added in the output buffer"
            )
        if self.of_tokens:
            found.append(
                f"one scale for each token: {self.of_tokens:,} sums are brought to one scale "
                "behind the array"
            )
        if self.activation_sums:
            found.append(
                f"weights have zero points: {self.activation_sums:,} additions at the array's "
                "border make the sums of activations"
            )
        return found


def _unfolded(layer: Layer) -> int:
    """Inputs of a layer, each once for every output pixel and tap that needs it."""
    conv = as_convolution(layer)
    return conv.macs // (conv.out_channels // conv.groups)
