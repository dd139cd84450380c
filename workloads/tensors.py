"""A layer with its numbers: what a machine is given to run.

Weights are dense arrays as torch and ONNX lay them out, or a
:class:`~sparqsim.workloads.encodings.csc.CSC` for a pruned fully connected layer, which then is
never held dense. Activations are the layer's input: ``[rows, in_features]`` for a fully connected
layer, ``[batch, channels, height, width]`` for a convolution. They are real (a trained network on
real images) or synthetic at given densities.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from sparqsim.base import InputError, check_memory
from sparqsim.workloads.brought import Brought
from sparqsim.workloads.encodings.csc import CSC
from sparqsim.workloads.layers import Conv2d, Layer, Linear, MatMul, unknown
from sparqsim.workloads.synthetic import (
    activations,
    channel_densities,
    sparse_matrix,
    tensor,
    thinned,
)

COLUMNS_AT_ONCE = 1024  # of a sparse product: little memory beside the matrix


@dataclass(frozen=True, eq=False, kw_only=True)
class LayerTensors:
    """A layer, its operands and its bias.

    Parameters
    ----------
    layer
        Shapes.
    weight
        Of ``layer.weight_shape``; a CSC ``(out_features, in_features)`` where it is sparse. Of a
        product of two activations the right operand, ``[batch, n, k]``: outputs first, as weights
        have them.
    activation
        The layer's input; of a product of two activations the left operand, ``[batch, m, k]``.
    bias
        ``[out]`` or None.
    source
        Where the numbers come from, for the record.
    relu
        Whether ReLU follows.
    calibration, right_calibration
        Inputs (and right operands) on which static ranges are found, of any shape; None: those
        that are run.
    pruned
        Whether the weights come pruned: trained so, or synthetic at a density below 1.
    brought
        The codes that its file has for these numbers, or None.
    notes
        What a reader of a report must know of these numbers.

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
    calibration: NDArray[Any] | None = None
    right_calibration: NDArray[Any] | None = None
    pruned: bool = False
    brought: Brought | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        where, layer = f"layer {self.layer.name!r}", self.layer
        right: tuple[int, ...] = layer.weight_shape
        wanted: tuple[int, ...] = ()
        if isinstance(layer, Linear):
            wanted = (layer.rows, layer.in_features)
        elif isinstance(layer, Conv2d):
            wanted = (layer.batch, layer.in_channels, *layer.input)
        else:
            right, wanted = (layer.batch, layer.n, layer.k), (layer.batch, layer.m, layer.k)
        if tuple(self.weight.shape) != right:
            raise InputError(
                f"{where}: weights must have shape {right}, got {tuple(self.weight.shape)}"
            )
        if self.activation.shape != wanted:
            raise InputError(
                f"{where}: activations must have shape {wanted}, got {self.activation.shape}"
            )
        if self.bias is not None and self.bias.shape != right[:1]:
            raise InputError(f"{where}: bias must have shape {right[:1]}, got {self.bias.shape}")
        stored = self.weight.values if isinstance(self.weight, CSC) else self.weight
        given = {"weights": stored, "activations": self.activation, "bias": self.bias}
        given |= {"calibration": self.calibration, "right calibration": self.right_calibration}
        for name, array in given.items():
            if array is not None:
                _numbers(where, name, array)

    @property
    def sparse_weight(self) -> CSC:
        """Weights of a fully connected layer as a CSC of their non-zeros."""
        if isinstance(self.weight, CSC):
            return self.weight
        return CSC.from_dense(self.weight)

    def output(self) -> NDArray[np.float32]:
        """The layer's output in float32, bias and ReLU included, in the layer's output shape."""
        x = self.activation.astype(np.float32, copy=False)
        if isinstance(self.weight, CSC):
            found = _sparse_product(x, self.weight)
        elif isinstance(self.layer, Conv2d):
            found = _convolved(self.layer, x, self.weight.astype(np.float32, copy=False))
        else:
            found = x @ np.swapaxes(self.weight.astype(np.float32, copy=False), -1, -2)
        if self.bias is not None:
            shape = (-1, 1, 1) if isinstance(self.layer, Conv2d) else (-1,)
            found = found + self.bias.astype(np.float32).reshape(shape)
        return np.maximum(found, np.float32(0)) if self.relu else found


def _sparse_product(x: NDArray[np.float32], weight: CSC) -> NDArray[np.float32]:
    """Vectors ``[rows, in]`` times a sparse matrix ``[out, in]``, some columns at a time."""
    out, inputs = weight.shape
    sums = np.zeros((len(x), out))
    for low in range(0, inputs, COLUMNS_AT_ONCE):
        starts = weight.indptr[low : low + COLUMNS_AT_ONCE + 1]
        block = slice(int(starts[0]), int(starts[-1]))
        values = weight.values[block].astype(np.float64)
        column = np.repeat(np.arange(low, low + len(starts) - 1), np.diff(starts))
        for row, one in enumerate(x):
            sums[row] += np.bincount(weight.indices[block], values * one[column], out)
    return sums.astype(np.float32)


def _convolved(
    layer: Conv2d, x: NDArray[np.float32], weight: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Convolve tap by tap: ``[batch, out, oh, ow]``."""
    top, left, bottom, right = layer.padding
    image = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)))
    (high, wide), groups = layer.output, layer.groups
    each = layer.in_channels // groups
    sums = np.zeros((layer.batch, groups, layer.out_channels // groups, high * wide), np.float32)
    taps = weight.reshape(groups, -1, each, *layer.kernel)
    reach = [(size - 1) * step + 1 for size, step in zip(layer.output, layer.stride, strict=True)]
    for row in range(layer.kernel[0]):
        for column in range(layer.kernel[1]):
            first = (row * layer.dilation[0], column * layer.dilation[1])
            seen = image[
                :, :,
                first[0] : first[0] + reach[0] : layer.stride[0],
                first[1] : first[1] + reach[1] : layer.stride[1],
            ]  # fmt: skip
            sums += taps[:, :, :, row, column] @ seen.reshape(layer.batch, groups, each, -1)
    return sums.reshape(layer.batch, layer.out_channels, high, wide)


def _numbers(where: str, name: str, array: NDArray[Any]) -> None:
    if array.dtype.kind not in "iuf":
        raise InputError(f"{where}: {name} must be real numbers, got {array.dtype}")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        wrong = int(np.size(array) - np.isfinite(array).sum())
        raise InputError(f"{where}: {name} must be finite, but {wrong} are NaN or infinite")


# published: an estimate from densities alone is 1.4 to 6.5 % below the cycles that the authors of
# Eyeriss v2 simulated for six layers of a pruned MobileNet (Sparseloop, MICRO 2022, figure 12)
IID = (
    "zeros of these synthetic tensors are independent; where weights and activations of a channel "
    "are dense together, as in trained networks, a machine that skips both zeros does 1.4 to 6.5 % "
    "more (--correlation)"
)


def synthetic(
    layer: Layer,
    rng: np.random.Generator,
    *,
    weight_density: float | None = None,
    activation_density: float | None = None,
    row_cv: float = 0.0,
    correlation: float | None = None,
) -> LayerTensors:
    """Tensors for a layer of which only the shape is known.

    Densities are the layer's published ones unless given, else 1. Non-zeros of the weights are
    normal, of the activations half-normal (they follow a ReLU); both operands of a product of two
    activations are normal. Their places are independent; the rows of a fully connected layer vary
    in density by ``row_cv``. With a ``correlation`` input channels are of unequal density, those of
    weights and activations together (:func:`~sparqsim.workloads.synthetic.channel_densities`).
    """
    dense_weights = layer.weight_density if weight_density is None else weight_density
    dense_inputs = layer.activation_density if activation_density is None else activation_density
    keep = 1.0 if dense_weights is None else dense_weights
    shown = 1.0 if dense_inputs is None else dense_inputs
    _check_fits(layer, keep)
    how = "iid" if correlation is None else f"channels correlate by {correlation:g}"
    source = f"synthetic, {how}: weight density {keep:.4g}, activation density {shown:.4g}"
    if correlation is not None:
        return _correlated(layer, rng, keep, shown, correlation, source)
    notes = (IID,) if keep < 1 and shown < 1 else ()
    if isinstance(layer, MatMul):
        right = tensor((layer.batch, layer.n, layer.k), rng, density=keep)
        left = tensor((layer.batch, layer.m, layer.k), rng, density=shown)
        return LayerTensors(
            layer=layer, weight=right, activation=left, source=source, relu=False, notes=notes
        )
    if isinstance(layer, Linear):
        rows, cols = layer.weight_shape
        weight: NDArray[Any] | CSC = sparse_matrix(rows, cols, keep, rng, row_cv)
        shape: tuple[int, ...] = (layer.rows, layer.in_features)
    else:
        weight = tensor(layer.weight_shape, rng, density=keep)
        shape = (layer.batch, layer.in_channels, *layer.input)
    inputs = activations(int(np.prod(shape)), shown, rng).reshape(shape)
    return LayerTensors(
        layer=layer, weight=weight, activation=inputs, source=source, pruned=keep < 1, notes=notes
    )


def _correlated(
    layer: Layer,
    rng: np.random.Generator,
    keep: float,
    shown: float,
    correlation: float,
    source: str,
) -> LayerTensors:
    """Tensors whose input channels are dense together in weights and activations."""
    two = isinstance(layer, MatMul)
    channels = layer.k if isinstance(layer, MatMul) else 0
    if isinstance(layer, Linear):
        channels = layer.in_features
    elif isinstance(layer, Conv2d):
        channels = layer.in_channels
    weights, inputs = channel_densities(channels, keep, shown, correlation, rng)
    if isinstance(layer, Conv2d):
        each = layer.in_channels // layer.groups
        group = np.arange(layer.out_channels) // (layer.out_channels // layer.groups)
        weights = weights[group[:, None] * each + np.arange(each)][:, :, None, None]
        inputs = inputs[:, None, None]
    right, left = as_operand_shapes(layer)
    drawn = tensor(left, rng)
    return LayerTensors(
        layer=layer,
        weight=thinned(tensor(right, rng), weights, rng),
        activation=thinned(drawn if two else np.abs(drawn), inputs, rng),
        source=source,
        relu=not two,
        pruned=not two and keep < 1,
    )


def as_operand_shapes(layer: Layer) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Shapes of the right operand (weights) and of the left one (inputs)."""
    if isinstance(layer, Linear):
        return layer.weight_shape, (layer.rows, layer.in_features)
    if isinstance(layer, Conv2d):
        return layer.weight_shape, (layer.batch, layer.in_channels, *layer.input)
    return (layer.batch, layer.n, layer.k), (layer.batch, layer.m, layer.k)


def _check_fits(layer: Layer, density: float) -> None:
    """Refuse tensors that memory does not hold: float32, and twice that while they are drawn."""
    if isinstance(layer, MatMul):
        elements = layer.batch * layer.k * (layer.m + layer.n)
    elif isinstance(layer, Linear):
        elements = int(layer.in_features * (layer.out_features * density + layer.rows))
    else:
        pixels = math.prod(layer.input)
        elements = math.prod(layer.weight_shape) + layer.batch * layer.in_channels * pixels
    check_memory(8 * elements, f"layer {layer.name!r}: its tensors")


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
        pruned=True,
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
