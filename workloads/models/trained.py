"""The digit classifiers that ship with Sparqsim, as tables with the densities they really have.

Weights are the pruned ones, activations those of the test images. The weights themselves, and other
trained networks, come from :mod:`workloads.models.digits` and :mod:`workloads.models.real`.
"""

from __future__ import annotations

from functools import partial

import msgspec
import numpy as np

from workloads.layers import Layer, Linear, Model


def _digits(network: str, batch: int = 1) -> Model:
    from workloads.models.digits import load_digits

    digits = load_digits(network)
    inputs = digits.activations()

    def table(layer: Layer) -> Layer:
        size = {"rows": batch} if isinstance(layer, Linear) else {"batch": batch}
        return msgspec.structs.replace(
            layer,
            weight_density=float(np.mean(digits.weights[layer.name] != 0)),
            activation_density=float(np.mean(inputs[layer.name] != 0)),
            density_source="measured on the shipped weights and test images",
            **size,
        )

    return Model(
        name=digits.name,
        source="scikit-learn's digits, trained for Sparqsim",
        layers=tuple(table(layer) for layer in digits.layers),
    )


digits_mlp = partial(_digits, "mlp")
digits_cnn = partial(_digits, "cnn")
