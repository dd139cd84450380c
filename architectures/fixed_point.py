"""A layer in 16-bit fixed point, as the early dense accelerators compute it, and its check.

Weights, inputs and outputs are 16-bit two's complement, each tensor with as many fraction bits
as its largest value leaves. Products are truncated and added in 16 bits
(:mod:`sparqsim.simulator.mac.fixed16`). The layer's ``shift`` is the smallest with which no sum can
overflow, judged by the exact sums; a machine would get it from calibration. A fully connected layer
is a convolution of one pixel. The independent reference never unfolds the convolution.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparqsim.base import InputError
from sparqsim.simulator.mac import dense, fixed16
from sparqsim.simulator.report import Verification
from sparqsim.workloads.encodings.csc import CSC
from sparqsim.workloads.layers import Conv2d
from sparqsim.workloads.tensors import LayerTensors


class FixedPointLayer:
    """A layer's tensors in fixed point, its outputs, and what was counted on the way.

    Attributes
    ----------
    x : int32 [batch, channels, height, width]
        Inputs, not padded.
    w : int32 [out, channels of a group, kh, kw]
    shift : int
        Bits dropped of every product.
    sums : int64 [batch, out, oh, ow]
        16-bit sums without bias.
    outputs : int64
        With bias and ReLU; ``[rows, out]`` for a fully connected layer.
    output_scale : float
        Real value of an output of 1.
    effectual : int
        Products of two non-zeros.
    zero_input : int
        Products whose input is zero, padding included: what zero gating skips.

    Raises
    ------
    InputError
        On a dilated convolution.
    """

    def __init__(self, tensors: LayerTensors) -> None:
        layer = tensors.layer
        weight = tensors.weight.to_dense() if isinstance(tensors.weight, CSC) else tensors.weight
        activation = np.asarray(tensors.activation)
        self.groups, self.stride, self.padding = 1, (1, 1), (0, 0, 0, 0)
        self.linear = not isinstance(layer, Conv2d)
        if isinstance(layer, Conv2d):
            if layer.dilation != (1, 1):
                raise InputError(
                    f"layer {layer.name!r} has dilation {layer.dilation}; this machine runs (1, 1)"
                )
            self.groups, self.stride = layer.groups, layer.stride
            self.padding = layer.padding  # type: ignore[assignment]
        else:
            activation, weight = activation[:, :, None, None], weight[:, :, None, None]
        self.x, x_fraction = _fixed(activation)
        self.w, w_fraction = _fixed(weight)
        geometry = (self.w.shape[2:], self.stride, self.padding, (1, 1), self.groups)
        rows = dense.unfold(self.x, *geometry)
        columns = dense.unfold_weights(self.w, self.groups)
        self.effectual = sum(dense.effectual(r, c) for r, c in zip(rows, columns, strict=True))
        self.zero_input = int((rows.size - np.count_nonzero(rows)) * columns.shape[2])
        largest = float(
            np.abs(
                dense.convolve_levels(
                    self.x.astype(np.float64), self.w.astype(np.float64), self.stride,
                    self.padding, (1, 1), self.groups,
                )
            ).max(initial=0)
        )  # fmt: skip
        fraction = x_fraction + w_fraction
        bias = np.zeros(len(self.w)) if tensors.bias is None else tensors.bias.astype(np.float64)
        self.shift = _shift(largest, rows.shape[2], np.abs(bias).max(initial=0), fraction)
        self.bias = np.rint(bias * 2.0 ** (fraction - self.shift)).astype(np.int64)
        sums = np.zeros((self.groups, rows.shape[1], columns.shape[2]), np.int32)
        for group in range(self.groups):
            fixed16.gemm(rows[group], columns[group], self.shift, sums[group])
        self.out = layer.output if isinstance(layer, Conv2d) else (1, 1)
        folded = dense.fold_outputs(sums.astype(np.int64), len(self.x), self.out)
        self.sums = dense.wrap(folded, fixed16.BITS)
        self.relu = tensors.relu
        self.carried = None  # firings of a netlist of tiles do not execute this arithmetic
        self.outputs = self.finished(self.sums)
        self.output_scale = 2.0 ** (self.shift - fraction)

    def finished(self, sums: NDArray[np.int64]) -> NDArray[np.int64]:
        """Sums with bias, wrapped, and ReLU where it follows."""
        done = dense.wrap(sums + self.bias[:, None, None], fixed16.BITS)
        done = np.maximum(done, 0) if self.relu else done
        return done[:, :, 0, 0] if self.linear else done

    def verify(self) -> Verification:
        """Compare with the reference, bit by bit."""
        exact = fixed16.convolve(self.x, self.w, self.shift, self.stride, self.padding, self.groups)
        expected = self.finished(dense.wrap(exact, fixed16.BITS))
        differ = int(np.count_nonzero(expected != self.outputs))
        return Verification(
            status="mismatch" if differ else "exact",
            outputs=self.outputs.size,
            mismatches=differ,
            against="convolution of truncated integer products, tap by tap, without unfolding",
        )

    @property
    def note(self) -> str:
        """How the numbers are kept, for the report."""
        return (
            f"16-bit fixed point; {self.shift} bits of every product are dropped, so that no sum "
            "overflows 16 bits"
        )


def _fixed(values: NDArray[Any]) -> tuple[NDArray[np.int32], int]:
    """16-bit integers and their fraction bits."""
    largest = float(np.abs(values).max(initial=0))
    if largest == 0:
        return np.zeros(values.shape, np.int32), 0
    fraction = fixed16.BITS - 1 - math.ceil(math.log2(largest))
    if round(largest * 2.0**fraction) > fixed16.LARGEST:
        fraction -= 1
    return np.rint(values.astype(np.float64) * 2.0**fraction).astype(np.int32), fraction


def _shift(largest: float, depth: int, bias: float, fraction: int) -> int:
    """Bits to drop so that sums fit, with one unit lost to truncation for every product."""
    for shift in range(2 * fixed16.BITS):
        lost = depth if shift else 0
        if largest / 2**shift + lost + bias * 2.0 ** (fraction - shift) < fixed16.LARGEST:
            return shift
    return fixed16.BITS  # more products than 16 bits can hold units: then sums may wrap
