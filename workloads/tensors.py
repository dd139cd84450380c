"""A layer with its numbers: what a machine is given to run.

Weights are dense arrays as torch and ONNX lay them out, or a
:class:`~sparqsim.workloads.encodings.csc.CSC` for a pruned fully connected layer, which then is
never held dense. Activations are the layer's input: ``[rows, in_features]`` for a fully connected
layer, ``[batch, channels, height, width]`` for a convolution. They are real (a trained network on
real images) or made up at given densities.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from sparqsim.base import InputError
from sparqsim.workloads.encodings.csc import CSC
from sparqsim.workloads.layers import Conv2d, Layer, Linear, unknown
from sparqsim.workloads.synthetic import activations, sparse_matrix, tensor


@dataclass(frozen=True, eq=False, kw_only=True)
class LayerTensors:
    """A layer, its weights, its input and its bias.

    Parameters
    ----------
    layer
        Shapes.
    weight
        Of ``layer.weight_shape``; a CSC ``(out_features, in_features)`` where it is sparse.
    activation
        The layer's input.
    bias
        ``[out]`` or None.
    source
        Where the numbers come from, for the record.
    relu
        Whether ReLU follows.

    Raises
    ------
    InputError
        If shapes do not fit or a number is not finite.
    """

    layer: Layer
    weight: NDArray[Any] | CSC
    activation: NDArray[Any]
    bias: NDArray[Any] | None = None
    source: str = "given"
    relu: bool = True

    def __post_init__(self) -> None:
        where = f"layer {self.layer.name!r}"
        if tuple(self.weight.shape) != self.layer.weight_shape:
            raise InputError(
                f"{where}: weights must have shape {self.layer.weight_shape}, "
                f"got {tuple(self.weight.shape)}"
            )
        if isinstance(self.layer, Linear):
            wanted: tuple[int, ...] = (self.layer.rows, self.layer.in_features)
        elif isinstance(self.layer, Conv2d):
            wanted = (self.layer.batch, self.layer.in_channels, *self.layer.input)
        else:
            raise InputError(f"{where} has no weights; it needs two activation operands")
        if self.activation.shape != wanted:
            raise InputError(
                f"{where}: activations must have shape {wanted}, got {self.activation.shape}"
            )
        if self.bias is not None and self.bias.shape != (self.layer.weight_shape[0],):
            raise InputError(
                f"{where}: bias must have shape ({self.layer.weight_shape[0]},), "
                f"got {self.bias.shape}"
            )
        stored = self.weight.values if isinstance(self.weight, CSC) else self.weight
        for name, array in (("weights", stored), ("activations", self.activation)):
            _numbers(where, name, array)
        if self.bias is not None:
            _numbers(where, "bias", self.bias)

    @property
    def sparse_weight(self) -> CSC:
        """Weights of a fully connected layer as a CSC of their non-zeros."""
        if isinstance(self.weight, CSC):
            return self.weight
        return CSC.from_dense(self.weight)


def _numbers(where: str, name: str, array: NDArray[Any]) -> None:
    if array.dtype.kind not in "iuf":
        raise InputError(f"{where}: {name} must be real numbers, got {array.dtype}")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        wrong = int(np.size(array) - np.isfinite(array).sum())
        raise InputError(f"{where}: {name} must be finite, but {wrong} are NaN or infinite")


def made_up(
    layer: Layer,
    rng: np.random.Generator,
    *,
    weight_density: float | None = None,
    activation_density: float | None = None,
    row_cv: float = 0.0,
) -> LayerTensors:
    """Tensors for a layer of which only the shape is known.

    Densities are the layer's published ones unless given, else 1. Non-zeros of the weights are
    normal, of the activations half-normal (they follow a ReLU). Their places are independent; the
    rows of a fully connected layer vary in density by ``row_cv``.
    """
    dense_weights = layer.weight_density if weight_density is None else weight_density
    dense_inputs = layer.activation_density if activation_density is None else activation_density
    keep = 1.0 if dense_weights is None else dense_weights
    shown = 1.0 if dense_inputs is None else dense_inputs
    if isinstance(layer, Linear):
        rows, cols = layer.weight_shape
        weight: NDArray[Any] | CSC = sparse_matrix(rows, cols, keep, rng, row_cv)
        shape: tuple[int, ...] = (layer.rows, layer.in_features)
    elif isinstance(layer, Conv2d):
        weight = tensor(layer.weight_shape, rng, density=keep)
        shape = (layer.batch, layer.in_channels, *layer.input)
    else:
        raise InputError(f"layer {layer.name!r} has no weights to make up")
    inputs = activations(int(np.prod(shape)), shown, rng).reshape(shape)
    source = f"made up, iid: weight density {keep:.4g}, activation density {shown:.4g}"
    return LayerTensors(layer=layer, weight=weight, activation=inputs, source=source)


def with_rows(layer: Layer, rows: int) -> Layer:
    """The same layer for a batch of ``rows`` vectors or images."""
    if isinstance(layer, Linear):
        return msgspec.structs.replace(layer, rows=rows)
    if isinstance(layer, Conv2d):
        return msgspec.structs.replace(layer, batch=rows)
    raise InputError(f"layer {layer.name!r} takes no batch of inputs")


def from_digits(network: str, layer: str, images: int | None = None) -> LayerTensors:
    """A layer of a pruned digits network with its real weights and its input on test images.

    Parameters
    ----------
    network, layer
        ``"mlp"`` or ``"cnn"``, and the layer's name.
    images
        How many test images, from the first; all by default.
    """
    from sparqsim.workloads.models.digits import load_digits

    digits = load_digits(network)
    by_name = {each.name: each for each in digits.layers}
    if layer not in by_name:
        raise unknown(f"{digits.name} has no layer", layer, by_name)
    available = len(digits.images.test_images)
    count = available if images is None else images
    if not 1 <= count <= available:
        raise InputError(f"{digits.name} has 1 to {available} test images, got {count}")
    inputs = digits.activations(digits.images.test_images[:count])[layer]
    return LayerTensors(
        layer=with_rows(by_name[layer], count),
        weight=digits.weights[layer],
        activation=inputs,
        bias=digits.biases[layer],
        source=f"{digits.name}: trained weights, inputs of {count} test images",
        relu=layer != digits.layers[-1].name,
    )


def from_trained(model: str, layer: str, rows: int | None = None) -> LayerTensors:
    """A layer of a trained network with its real weights and real inputs.

    Parameters
    ----------
    model, layer
        Such as ``"minilm"`` and ``"layer0.up"``; see :mod:`sparqsim.workloads.models.real`.
    rows
        How many vectors or images of the captured inputs, from the first; one by default.
    """
    from sparqsim.workloads.models.real import subject

    found = subject(model)
    shapes = {each.name: each for each in found.layers if each.name in found.weights}
    if layer not in shapes:
        raise unknown(f"{model} has no layer with weights called", layer, shapes)
    captured = found.capture()[layer]
    if isinstance(shapes[layer], Linear):
        captured = captured.reshape(-1, captured.shape[-1])
    count = 1 if rows is None else rows
    if not 1 <= count <= len(captured):
        raise InputError(f"{model}/{layer} has 1 to {len(captured)} inputs, got {count}")
    return LayerTensors(
        layer=with_rows(shapes[layer], count),
        weight=found.weights[layer],
        activation=captured[:count],
        source=f"{model}: trained weights, {count} real inputs; {found.source}",
        relu=False,
    )


def compressed(tensors: LayerTensors, recipe_name: str) -> LayerTensors:
    """The same layer after a recipe: pruned and rounded weights, rounded inputs.

    Parameters
    ----------
    tensors
        The layer; a sparse matrix is made dense for this.
    recipe_name
        A named recipe or a TOML file; see :mod:`sparqsim.workloads.recipes`.
    """
    from sparqsim.workloads import recipes
    from sparqsim.workloads.compress import compress_weight, fitted
    from sparqsim.workloads.quantize import QuantizedTensor

    recipe, name = recipes.get(recipe_name), tensors.layer.name
    weight = tensors.weight.to_dense() if isinstance(tensors.weight, CSC) else tensors.weight
    kept = compress_weight(weight, recipe.of("weights", name))
    inputs = tensors.activation.astype(np.float32)
    for_inputs = recipe.of("activations", name)
    if for_inputs.scheme != "keep":
        inputs = fitted(inputs, for_inputs).round(inputs)
    return replace(
        tensors,
        weight=kept.dequantize() if isinstance(kept, QuantizedTensor) else kept,
        activation=inputs,
        source=f"{tensors.source}; recipe {recipe_name}",
    )


def layer_tensors(
    path: str,
    rng: np.random.Generator,
    *,
    batch: int | None = None,
    weight_density: float | None = None,
    activation_density: float | None = None,
    recipe: str | None = None,
) -> LayerTensors:
    """The tensors of ``"MODEL/LAYER"``: real ones of a trained network, else made up.

    Parameters
    ----------
    path
        Such as ``"alexnet/fc6"``, ``"eie/vgg-7"``, ``"digits-cnn/fc1"`` (pruned, on its test
        images) or ``"minilm/layer0.up"``.
    rng
        Draws what is made up.
    batch
        Vectors or images; by default one, or all test images of a digits network.
    weight_density, activation_density
        Of made-up tensors; by default as published for the layer, else 1.
    recipe
        A named recipe or a TOML file by which the tensors are pruned and rounded first.

    Raises
    ------
    InputError
        If there is no such layer; the letter says what there is.
    """
    from sparqsim.workloads.models import get_layer
    from sparqsim.workloads.models.real import SUBJECTS

    for name, value in (("weight", weight_density), ("activation", activation_density)):
        if value is not None and not 0 <= value <= 1:
            raise InputError(f"the {name} density must be a fraction from 0 to 1, got {value}")
    model, _, layer = path.partition("/")
    if model in SUBJECTS:
        if weight_density is not None or activation_density is not None:
            raise InputError(f"{model} has real tensors; a density cannot be asked of them")
        if model.startswith("digits-"):
            tensors = from_digits(model.removeprefix("digits-"), layer, batch)
        else:
            tensors = from_trained(model, layer, batch)
    else:
        shape = get_layer(path)
        if batch is not None:
            shape = with_rows(shape, batch)
        tensors = made_up(
            shape, rng, weight_density=weight_density, activation_density=activation_density
        )
    return tensors if recipe is None else compressed(tensors, recipe)
