"""What SNAP's outputs must be, from the decoded numbers alone: a dense convolution, tap by tap."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sparqsim.simulator.mac.dense import convolve_levels
from sparqsim.simulator.mac.fixed_point import outputs_of
from sparqsim.simulator.report import Verification
from sparqsim.workloads.encoded import (
    Coded,
    EncodedLayer,
    as_convolution,
    as_image,
    as_kernels,
    as_output,
)


def verify(
    layer: EncodedLayer,
    outputs: NDArray[np.int64],
    *,
    accumulator_bits: int,
    shift: int,
    output_bits: int,
) -> Verification:
    """Compare outputs with the integer convolution of the decoded operands.

    Parameters
    ----------
    layer
        Codes that the machine was given.
    outputs
        In the layer's output shape.
    accumulator_bits, shift, output_bits
        How the machine holds sums and makes outputs of them.
    """
    weight, activation = layer.weight, layer.activation
    assert isinstance(weight, Coded) and isinstance(activation, Coded)
    shape = as_convolution(layer.layer)
    sums = convolve_levels(
        as_image(layer.layer, activation.levels()),
        as_kernels(layer.layer, weight.levels()),
        shape.stride,
        shape.padding,
        shape.dilation,
        shape.groups,
    )
    most = (1 << (accumulator_bits - 1)) - 1
    begun = np.rint(np.clip(layer.bias / (weight.scale * activation.scale), -most, most))
    whole = sums.astype(np.int64) + begun.astype(np.int64)[:, None, None]
    expected = as_output(
        layer.layer, outputs_of(whole, accumulator_bits, shift, output_bits, layer.relu)
    )
    differ = int((expected != outputs).sum())
    return Verification(
        status="mismatch" if differ else "exact",
        outputs=outputs.size,
        mismatches=differ,
        against="dense integer convolution, tap by tap (float64 BLAS, exact to 2^53)",
    )
