"""The array machines in several configurations, and small layers of every kind for them."""

from __future__ import annotations

import dataclasses

import numpy as np

from sparqsim.architectures.arrays.ant import Ant
from sparqsim.architectures.arrays.bitfusion import BitFusion
from sparqsim.architectures.arrays.folds import Dataflow
from sparqsim.architectures.arrays.machine import ArrayMachine
from sparqsim.architectures.arrays.olive import Olive
from sparqsim.architectures.arrays.plain import PlainArray
from sparqsim.architectures.arrays.tpu import TPU
from sparqsim.workloads.layers import Conv2d, Layer, Linear
from sparqsim.workloads.tensors import LayerTensors, synthetic

MACHINES: dict[str, ArrayMachine] = {
    "bitfusion": BitFusion(),
    "ant": Ant(),
    "ant8": Ant(bits=8),
    "ant-ws": Ant(dataflow=Dataflow.WEIGHT_STATIONARY),
    "olive": Olive(),
    "olive8": Olive(bits=8),
    "plain8": PlainArray(),
    "plain8-is": PlainArray(dataflow=Dataflow.INPUT_STATIONARY),
    "plain4-ws": PlainArray(bits=4, dataflow=Dataflow.WEIGHT_STATIONARY),
    "tpu": TPU(),
}
TILED = [name for name in MACHINES if name != "tpu"]
LAYERS: dict[str, Layer] = {
    "strided": Conv2d(
        name="strided", in_channels=6, out_channels=10, input=(11, 9), kernel=(3, 3),
        stride=(2, 1), padding=(1, 0, 1, 2), batch=2,
    ),
    "grouped": Conv2d(
        name="grouped", in_channels=6, out_channels=4, input=(7, 7), kernel=(3, 2), groups=2,
        dilation=(2, 1),
    ),
    "depthwise": Conv2d(
        name="depthwise", in_channels=5, out_channels=5, input=(8, 8), kernel=(3, 3), groups=5,
        padding=(1, 1),
    ),
    "image": Conv2d(name="image", in_channels=3, out_channels=16, input=(16, 16), kernel=(5, 5)),
    "connected": Linear(name="connected", in_features=77, out_features=41, rows=5),
}  # fmt: skip


def tensors(layer: Layer, seed: int = 0, signed: bool = False, relu: bool = True) -> LayerTensors:
    """Half-normal inputs (or normal ones), normal weights, a bias."""
    rng = np.random.default_rng(seed)
    given = synthetic(layer, rng, activation_density=0.7)
    inputs = given.activation
    if signed:
        inputs = inputs * rng.choice([-1.0, 1.0], inputs.shape)
    bias = rng.normal(size=layer.weight_shape[0]) * 3
    return dataclasses.replace(given, activation=inputs, bias=bias, relu=relu)
