"""The numbers of a network's layers: trained and real where the network brings them, else drawn.

What is drawn depends on the seed and the layer's shape and densities alone, so layers of equal
shape get equal numbers, and a layer gets the same ones alone and within its network.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from sparqsim.base import InputError
from sparqsim.workloads.encodings.csc import CSC
from sparqsim.workloads.importers import Range
from sparqsim.workloads.layers import Layer, MatMul
from sparqsim.workloads.shared import once
from sparqsim.workloads.tensors import LayerTensors, synthetic
from sparqsim.workloads.work import Array, Network

RELU = "Relu"  # the operation of other work
PRUNED_BELOW = 7 / 8  # assumed: weights that were trained and not pruned have next to no zeros


@dataclass(frozen=True, eq=False, kw_only=True)
class NetworkTensors:
    """The tensors of a network's layers.

    Parameters
    ----------
    network
        Whose layers they are.
    seed
        Of what is drawn, at least 0.
    weight_density, activation_density
        Fractions of what is drawn that is not zero; by default as published for the layer, else 1.
    correlation
        Of the densities of weights and activations over input channels; None: zeros are
        independent. See :func:`~sparqsim.workloads.synthetic.channel_densities`.

    Raises
    ------
    InputError
        If a density is no fraction, or is asked of tensors that are real; likewise a correlation,
        or if no layer has zeros in both operands.
    """

    network: Network
    seed: int = 0
    weight_density: float | None = None
    activation_density: float | None = None
    correlation: float | None = None

    def __post_init__(self) -> None:
        real = {
            "weight": self.network.weights is not None,
            "activation": self.network.inputs is not None,
        }
        for name, is_real in real.items():
            value = getattr(self, f"{name}_density")
            if value is not None and not 0 <= value <= 1:
                raise InputError(f"the {name} density must be a fraction from 0 to 1, got {value}")
            if value is not None and is_real:
                raise InputError(
                    f"{self.network.name} has real tensors; a density cannot be asked of them"
                )
        if self.correlation is not None:
            self._check_correlation(self.correlation)
        if self.seed < 0:
            raise InputError(f"the seed must be at least 0, got {self.seed}")

    def _check_correlation(self, correlation: float) -> None:
        if not -1 <= correlation <= 1:
            raise InputError(f"the correlation must be a number from -1 to 1, got {correlation}")
        if self.is_real:
            raise InputError(
                f"{self.network.name} has real tensors; a correlation cannot be asked of them"
            )
        weights, inputs = self.weight_density, self.activation_density
        for layer in self.network.layers:
            keep = layer.weight_density if weights is None else weights
            shown = layer.activation_density if inputs is None else inputs
            if keep not in (None, 1) and shown not in (None, 1):
                return
        raise InputError(
            "a correlation changes nothing where weights or activations have no zeros; give "
            "--weight-density and --activation-density below 1"
        )

    @property
    def is_real(self) -> bool:
        """Whether some of the numbers are trained or real."""
        network = self.network
        return network.weights is not None or network.inputs is not None or bool(network.brought)

    @cached_property
    def _inputs(self) -> Mapping[str, Array]:
        return {} if self.network.inputs is None else self.network.inputs()

    @cached_property
    def _captured(self) -> Mapping[str, Array]:
        return {} if self.network.subject is None else self.network.subject.capture()

    def of(self, layer: Layer) -> LayerTensors:
        """The tensors of a layer."""
        drawn = self.seed, self.weight_density, self.activation_density, self.correlation
        return once("tensors", (layer, *drawn), (self.network,), lambda: self._of(layer))

    def _of(self, layer: Layer) -> LayerTensors:
        network, two = self.network, isinstance(layer, MatMul)
        left, right = (f"{layer.name}.left", f"{layer.name}.right") if two else (layer.name,) * 2
        inputs = self._inputs.get(left)
        weight: NDArray[Any] | CSC | None = (self._inputs if two else network.weights or {}).get(
            right
        )
        source, relu = self._source(two, weight, inputs), self.relu(layer)
        brought = self.network.brought.get(layer.name)
        if inputs is None or weight is None:
            drawn = synthetic(
                layer,
                np.random.default_rng(self.seed),
                weight_density=self.weight_density,
                activation_density=self.activation_density,
                correlation=self.correlation,
            )
            if inputs is None and weight is None and brought is None:
                return replace(drawn, relu=relu)
            if inputs is None:
                inputs = _within(drawn.activation, brought and brought.activation)
            if weight is None:
                weight = _within(drawn.weight, brought and brought.weight)
        return LayerTensors(
            layer=layer,
            weight=weight,
            activation=inputs,
            bias=network.biases.get(layer.name),
            source=source,
            relu=relu,
            calibration=self._captured.get(left),
            right_calibration=self._captured.get(right) if two else None,
            pruned=self.comes_pruned(layer),
            brought=brought,
        )

    def _source(self, two: bool, weight: object, inputs: object) -> str:
        """Where the numbers of a layer come from, in words."""
        told = [] if two else ["synthetic weights" if weight is None else "trained weights"]
        told.append(
            f"{'synthetic' if inputs is None else 'real'} {'operands' if two else 'inputs'}"
        )
        return f"{self.network.name}: {', '.join(told)}; {self.network.source}"

    def comes_pruned(self, layer: Layer) -> bool:
        """Whether a layer's weights come pruned: trained so, or drawn at a density below 1."""
        if isinstance(layer, MatMul):
            return False
        weight = (self.network.weights or {}).get(layer.name)
        if weight is not None:
            return bool(np.count_nonzero(weight) < PRUNED_BELOW * weight.size)
        density = layer.weight_density if self.weight_density is None else self.weight_density
        return density is not None and density < 1

    def relu(self, layer: Layer) -> bool:
        """Whether ReLU is the first thing behind a layer.

        Where the network does not tell, it is assumed behind convolutions and fully connected
        layers whose weights are synthetic.
        """
        if layer.name in self.network.relus:
            return self.network.relus[layer.name]
        if self.network.model.other:
            return layer.name in self._relus
        known = self.network.weights is not None and layer.name in self.network.weights
        return not isinstance(layer, MatMul) and not known

    @cached_property
    def _relus(self) -> frozenset[str]:
        first: dict[str, str] = {}
        for work in self.network.model.other:
            first.setdefault(work.after, work.operation)
        return frozenset(after for after, operation in first.items() if operation == RELU)

    def key(self, layer: Layer) -> Any:
        """Equal for layers of equal shape and numbers."""
        return layer.name if self.is_real else (shape_of(layer), self.relu(layer))


def _within(drawn: Any, stated: object) -> Any:
    """What is drawn, as large as the file's codes reach: they have a scale of their own."""
    if not isinstance(stated, Range) or stated.scale is None:
        return drawn
    least = -(1 << stated.bits - 1) if stated.signed else 0
    reach = max(least + (1 << stated.bits) - 1 - stated.zero, stated.zero - least)
    largest = float(np.abs(drawn).max())
    return drawn * np.float32(reach * stated.scale / largest) if largest else drawn


def shape_of(layer: Layer) -> Layer:
    """The layer without its name and how often it stands: equal for equal work."""
    return msgspec.structs.replace(layer, name="layer", repeat=1, steps=1, weights_of="")
