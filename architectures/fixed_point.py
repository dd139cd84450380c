"""A layer in 16-bit fixed point, as the early dense accelerators compute it, and its check.

Weights and inputs are 16-bit two's complement codes, taken as a recipe made them. Products are
truncated and added in 16 bits (:mod:`sparqsim.simulator.mac.fixed16`); sums with bias, and ReLU
where it follows, leave as 16-bit codes. The layer's ``shift``, the same for all channels, is the
smallest with which no sum can overflow, judged by the exact sums; a machine would get it from
calibration, and it is set before the layer runs. There are no zero points: a truncated product of
codes that have one does not fall apart into terms. The independent reference never unfolds the
convolution that a layer is.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sparqsim.architectures.operands import Computes
from sparqsim.simulator.mac import dense, fixed16
from sparqsim.simulator.report import Verification
from sparqsim.workloads.encoded import (
    Coded,
    EncodedLayer,
    Tensor,
    as_convolution,
    as_image,
    as_kernels,
    as_output,
)

FORMAT = f"int{fixed16.BITS}_signed"
COMPUTES = Computes(weights=(FORMAT,), activations=(FORMAT,))
RECIPE = "int16"  # whose codes are of that format


class FixedPointLayer:
    """A layer's operands in fixed point, its outputs, and what was counted on the way.

    Attributes
    ----------
    x : int32 [batch, channels, height, width]
        Inputs, not padded.
    w : int32 [out, channels of a group, kh, kw]
    unit : float64 [1] or [out]
        Real value of a product of 1, by output channel.
    shift : int
        Bits dropped of every product.
    bias : int64 [out]
        In units of the sums.
    sums : int64 [batch, out, oh, ow]
        16-bit sums without bias.
    image : int64 [batch, out, oh, ow]
        With bias and ReLU.
    outputs, output_scale
        The same in the layer's output shape, and the real value of 1 there.
    effectual : int
        Products of two non-zeros.
    zero_input : int
        Products whose input is zero, padding included: what zero gating skips.
    lost_steps : float
        By how many units of 1 a sum may be less than that of whole products.
    wrapped : int
        Outputs whose sum left 16 bits. There are none unless a layer has more products a sum than
        16 bits have units.
    """

    output_zero = 0

    def __init__(self, layer: EncodedLayer) -> None:
        self.layer = layer
        conv = self.conv = as_convolution(layer.layer)
        self.x = as_image(layer.layer, _integers(layer.activation))
        self.w = as_kernels(layer.layer, _integers(layer.weight))
        self.placed = (conv.stride, conv.padding, conv.dilation, conv.groups)
        rows = dense.unfold(self.x, conv.kernel, *self.placed)
        columns = dense.unfold_weights(self.w, conv.groups)
        self.effectual = sum(dense.effectual(r, c) for r, c in zip(rows, columns, strict=True))
        self.zero_input = int((rows.size - np.count_nonzero(rows)) * columns.shape[2])
        self.unit = _scale(layer.activation) * _scale(layer.weight)
        self._set_shift(rows.shape[2])
        self.lost_steps = float(rows.shape[2]) if self.shift else 0.0
        sums = np.zeros((conv.groups, rows.shape[1], columns.shape[2]), np.int32)
        for group in range(conv.groups):
            fixed16.gemm(rows[group], columns[group], self.shift, sums[group])
        self._finish(dense.fold_outputs(sums.astype(np.int64), conv.batch, conv.output))

    def _set_shift(self, depth: int) -> None:
        """Find ``shift`` from the exact sums, and the bias at it."""
        exact = dense.convolve_levels(
            self.x.astype(np.float64), self.w.astype(np.float64), *self.placed
        )
        bias = self.layer.bias / self.unit
        largest = np.abs(exact).max(axis=(0, 2, 3), initial=0) + np.abs(bias)
        self.shift = _shift(float(largest.max(initial=0)), depth)
        rounded = np.rint(bias / 2.0**self.shift)
        self.bias = np.clip(rounded, -fixed16.LARGEST, fixed16.LARGEST).astype(np.int64)

    def _finish(self, sums: NDArray[np.int64]) -> None:
        self.sums = dense.wrap(sums, fixed16.BITS)
        with_bias = sums + self.bias[:, None, None]
        self.wrapped = int(np.count_nonzero(dense.wrap(with_bias, fixed16.BITS) != with_bias))
        self.image = self.finished(self.sums)
        self.outputs = as_output(self.layer.layer, self.image)
        scale = np.broadcast_to((self.unit * 2.0**self.shift).reshape(-1, 1, 1), self.image.shape)
        self.output_scale = as_output(self.layer.layer, scale)

    def finished(self, sums: NDArray[np.int64]) -> NDArray[np.int64]:
        """Sums with bias, wrapped, and ReLU where it follows; ``[batch, out, oh, ow]``."""
        done = dense.wrap(sums + self.bias[:, None, None], fixed16.BITS)
        return np.maximum(done, 0) if self.layer.relu else done

    def verify(self) -> Verification:
        """Compare with the reference, bit by bit."""
        exact = fixed16.convolve(self.x, self.w, self.shift, *self.placed)
        expected = self.finished(dense.wrap(exact, fixed16.BITS))
        differ = int(np.count_nonzero(as_output(self.layer.layer, expected) != self.outputs))
        return Verification(
            status="mismatch" if differ else "exact",
            outputs=self.outputs.size,
            mismatches=differ,
            against="convolution of truncated integer products, tap by tap, without unfolding",
        )

    @property
    def notes(self) -> list[str]:
        """How the numbers are kept, for the report."""
        found = [
            f"16-bit fixed point; {self.shift} bits of every product are dropped"
            + ("" if self.wrapped else ", so that no sum overflows 16 bits")
        ]
        if self.wrapped:
            found.append(f"{self.wrapped} sums left 16 bits and wrapped around")
        if self.layer.dynamic:
            found.append(
                "the range of the inputs was found in the run; sums leave in 16 bits at a scale "
                "set beforehand, so none come back"
            )
        return found


def _integers(tensor: Tensor) -> NDArray[np.int32]:
    """What codes stand for, before their scale."""
    assert isinstance(tensor, Coded)
    return tensor.levels().astype(np.int32)


def _scale(tensor: Tensor) -> NDArray[np.float64]:
    assert isinstance(tensor, Coded)
    return tensor.scale


def _shift(largest: float, depth: int) -> int:
    """Bits to drop so that sums fit, with one unit lost to truncation for every product."""
    for shift in range(2 * fixed16.BITS):
        lost = depth if shift else 0
        if largest / 2**shift + lost < fixed16.LARGEST:
            return shift
    return fixed16.BITS  # more products than 16 bits can hold units: then sums may wrap
