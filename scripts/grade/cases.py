"""The layers that a student's machine is judged on; both processes make them from a few numbers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np

from sparqsim.workloads.encoded import EncodedLayer, encode
from sparqsim.workloads.layers import Conv2d, Layer, Linear
from sparqsim.workloads.tensors import LayerTensors, synthetic

RECIPE = "int8"


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """A layer, the seed of its numbers, and whether the student may know it."""

    layer: Conv2d | Linear
    seed: int
    hidden: bool = False


def public_cases() -> list[Case]:
    """A fully connected layer and a convolution; small, for the SimPy engine runs them too."""
    return [
        Case(layer=Linear(name="connected", in_features=72, out_features=40, rows=3), seed=1),
        Case(layer=_convolution(8, 12, (6, 7), 3, 1), seed=2),
    ]


def hidden_cases(rng: np.random.Generator) -> list[Case]:
    """As the public ones, of sizes that are drawn: also a stride, and groups."""
    sizes = ((33, 96), (9, 48), (1, 6))
    inputs, outputs, rows = (int(rng.integers(low, high)) for low, high in sizes)
    connected = Linear(name="connected", in_features=inputs, out_features=outputs, rows=rows)
    groups = int(rng.integers(2, 4))
    channels, filters = groups * int(rng.integers(2, 6)), groups * int(rng.integers(2, 6))
    size = (int(rng.integers(5, 9)), int(rng.integers(5, 9)))
    convolution = _convolution(channels, filters, size, int(rng.integers(2, 4)), groups, 2)
    layers: list[Conv2d | Linear] = [connected, convolution]
    return [Case(layer=layer, seed=int(rng.integers(2**31)), hidden=True) for layer in layers]


def _convolution(
    channels: int, filters: int, size: tuple[int, int], kernel: int, groups: int, stride: int = 1
) -> Conv2d:
    return Conv2d(
        name="convolution", in_channels=channels, out_channels=filters, input=size,
        kernel=(kernel, kernel), padding=(1, 1), groups=groups, stride=(stride, stride),
    )  # fmt: skip


def tensors(case: Case) -> LayerTensors:
    """The numbers of a case: zeros among them, and a bias."""
    rng = np.random.default_rng(case.seed)
    layer: Layer = case.layer
    made = synthetic(layer, rng, weight_density=0.6, activation_density=0.7)
    return replace(made, bias=rng.normal(size=layer.weight_shape[0]))


def encoded(case: Case) -> EncodedLayer:
    """The layer as 8-bit codes."""
    return encode(tensors(case), RECIPE, own=RECIPE)


def write_cases(path: Path, cases: list[Case]) -> None:
    """Write cases as JSON."""
    path.write_bytes(msgspec.json.encode(cases))


def read_cases(path: Path) -> list[Case]:
    """Read what :func:`write_cases` wrote."""
    return msgspec.json.decode(path.read_bytes(), type=list[Case])
