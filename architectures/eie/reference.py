"""What EIE's outputs must be, from the decoded numbers alone: dense products, no entry walked."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sparqsim.simulator.mac.fixed_point import outputs_of
from sparqsim.simulator.report import Verification
from sparqsim.workloads.encoded import Coded, EncodedLayer
from sparqsim.workloads.encodings.csc import CSC
from sparqsim.workloads.layers import Conv2d

BLOCK = 1 << 21  # derived: values of a dense block of columns, 16 MiB


def verify(
    layer: EncodedLayer,
    outputs: NDArray[np.int64],
    *,
    fraction: int,
    accumulator_bits: int,
    shift: int,
    output_bits: int,
) -> Verification:
    """Compare outputs with the integer product of the decoded operands.

    Parameters
    ----------
    layer
        Codes that the machine was given.
    outputs
        In the layer's output shape.
    fraction
        Fraction bits of the machine's table: sums are whole in units of ``2**-fraction``.
    accumulator_bits, shift, output_bits
        How the machine holds sums and makes outputs of them.
    """
    weight, activation = layer.weight, layer.activation
    assert isinstance(weight, Coded) and isinstance(activation, Coded)
    sums = _product(weight, _columns(layer, activation.levels().astype(np.float64)))
    whole = np.rint(np.ldexp(sums, fraction)).astype(np.int64)
    if layer.given is not None and layer.given.bias is not None:
        unit = weight.scale * activation.scale / 2.0**fraction
        most = (1 << (accumulator_bits - 1)) - 1
        whole += np.rint(np.clip(layer.bias / unit, -most, most)).astype(np.int64)[:, None]
    expected = outputs_of(whole, accumulator_bits, shift, output_bits, layer.relu)
    differ = int((_shaped(layer, expected) != outputs).sum())
    return Verification(
        status="mismatch" if differ else "exact",
        outputs=outputs.size,
        mismatches=differ,
        against="integer product of the dense decoded matrix (float64 BLAS, exact to 2^53)",
    )


def _columns(layer: EncodedLayer, levels: NDArray[np.float64]) -> NDArray[np.float64]:
    """Inputs ``[in, vectors]``."""
    shape = layer.layer
    if not isinstance(shape, Conv2d):
        return levels.T
    top, left, bottom, right = shape.padding
    image = np.pad(levels, ((0, 0), (0, 0), (top, bottom), (left, right)))
    seen = image[:, :, :: shape.stride[0], :: shape.stride[1]]
    return np.moveaxis(seen, 1, 0).reshape(shape.in_channels, -1)


def _shaped(layer: EncodedLayer, outputs: NDArray[np.int64]) -> NDArray[np.int64]:
    """Outputs ``[out, vectors]`` in the shape of the layer's output."""
    shape = layer.layer
    if not isinstance(shape, Conv2d):
        return outputs.T
    return np.moveaxis(outputs.reshape(-1, shape.batch, *shape.output), 0, 1)


def _product(weight: Coded, columns: NDArray[np.float64]) -> NDArray[np.float64]:
    """Decoded weights times ``columns``: ``[out, vectors]``, a block of inputs at a time."""
    if not isinstance(weight.codes, CSC):
        dense = weight.levels().astype(np.float64)
        return dense.reshape(len(dense), -1) @ columns
    codes, values = weight.codes, weight.formats[0].code_values
    rows, inputs = codes.shape
    sums = np.zeros((rows, columns.shape[1]))
    block = max(1, min(inputs, BLOCK // max(rows, 1)))
    dense = np.zeros((block, rows))
    for low in range(0, inputs, block):
        high = min(low + block, inputs)
        span = slice(int(codes.indptr[low]), int(codes.indptr[high]))
        dense[:] = 0
        places = np.repeat(np.arange(high - low), np.diff(codes.indptr[low : high + 1]))
        dense[places, codes.indices[span]] = values[codes.values[span]]
        sums += dense[: high - low].T @ columns[low:high]
    return sums
