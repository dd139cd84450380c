"""A layer as a recipe leaves it: codes, formats, scales and zero points, ready for a machine.

A recipe is applied once. What it makes stays made: a machine takes the codes as they are, stores
them exactly in a wider format of its own, or refuses; it never turns them back into floats to
quantize them again. Beside the codes an :class:`EncodedLayer` keeps the numbers they came from, so
that a run can say how far its outputs are from the float layer's.

Every layer is also a grouped convolution, which is what dense machines run: a fully connected layer
has one pixel, and ``batch`` products of two activation operands are as many groups of a layer of
one pixel (:func:`as_convolution`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from sparqsim.base import InputError
from sparqsim.workloads import recipes
from sparqsim.workloads.adaptive import pair_axis
from sparqsim.workloads.brought import NAME, Brought
from sparqsim.workloads.compress import fitted, fitted_weight, pruned_inputs
from sparqsim.workloads.encodings.csc import CSC
from sparqsim.workloads.formats import Format
from sparqsim.workloads.importers import Range
from sparqsim.workloads.layers import Conv2d, Layer, Linear, MatMul
from sparqsim.workloads.prune import NM, Pattern
from sparqsim.workloads.quantize import QuantizedTensor, Quantizer, vanished
from sparqsim.workloads.recipes import Recipe, TensorRecipe
from sparqsim.workloads.synthetic import activations, tensor
from sparqsim.workloads.tensors import LayerTensors, as_operand_shapes

Role = Literal["weights", "activations"]
ROLES: tuple[Role, Role] = ("weights", "activations")


@dataclass(frozen=True, eq=False, kw_only=True)
class Coded:
    """A tensor in codes.

    Attributes
    ----------
    codes : unsigned array, or CSC of codes
        In the shape of the tensor, as :class:`~sparqsim.workloads.quantize.QuantizedTensor` has
        them. A CSC stores what is not zero.
    quantizer : Quantizer
        Formats, scales, zero points, and which values share them.
    pattern : Pattern or None
        The zeros that pruning made, where a pattern did.
    dynamic : bool
        The range is known only when the whole tensor is.
    """

    codes: NDArray[np.unsignedinteger] | CSC
    quantizer: Quantizer
    pattern: Pattern | None = None
    dynamic: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the tensor."""
        return tuple(self.codes.shape)

    @property
    def bits(self) -> int:
        """Width of a code."""
        return self.quantizer.bits

    @property
    def formats(self) -> tuple[Format, ...]:
        """One, or several of which each channel has one."""
        return self.quantizer.formats

    @property
    def name(self) -> str:
        """Formats, joined by ``|``."""
        return "|".join(grid.name for grid in self.formats)

    @property
    def scale(self) -> NDArray[np.float64]:
        """Real value of one: ``[1]``, or one for each slice."""
        return self.quantizer.scale.astype(np.float64)

    @property
    def zero_point(self) -> NDArray[np.int64]:
        """Of each scale; zeros where the format is symmetric."""
        if self.quantizer.zero_point is None:
            return np.zeros(len(self.quantizer.scale), np.int64)
        return self.quantizer.zero_point.astype(np.int64)

    @property
    def dense(self) -> Coded:
        """The same tensor with all its codes in an array."""
        if not isinstance(self.codes, CSC):
            return self
        fill = self.quantizer.quantize(np.zeros((1,) * len(self.shape), np.float32)).codes.item()
        whole = np.full(self.shape, fill, self.codes.values.dtype)
        columns = np.repeat(np.arange(self.shape[1]), np.diff(self.codes.indptr))
        whole[self.codes.indices, columns] = self.codes.values
        return replace(self, codes=whole)

    @property
    def sparse(self) -> CSC:
        """Codes of what is not zero, of a matrix."""
        if isinstance(self.codes, CSC):
            return self.codes
        decoded = QuantizedTensor(self.codes, self.quantizer).dequantize()
        kept = CSC.from_dense(decoded != 0)
        columns = np.repeat(np.arange(kept.shape[1]), np.diff(kept.indptr))
        return kept.with_values(self.codes[kept.indices, columns])

    def levels(self) -> NDArray[np.floating]:
        """What the codes stand for before scale and zero point: float32, in the tensor's shape."""
        return self._whole.levels()

    def values(self) -> NDArray[np.float32]:
        """The numbers: ``scale * (level - zero point)``."""
        return self._whole.dequantize()

    @cached_property
    def _whole(self) -> QuantizedTensor:
        dense = self.dense
        assert not isinstance(dense.codes, CSC)
        return QuantizedTensor(dense.codes, self.quantizer)


Tensor = Coded | NDArray[np.float32]  # an array is what stays in float32


@dataclass(frozen=True, eq=False, kw_only=True)
class EncodedLayer:
    """A layer after a recipe.

    Attributes
    ----------
    layer : Layer
        Shapes.
    weight : Coded or float32 array
        Outputs first. Of a :class:`~sparqsim.workloads.layers.MatMul` the right operand,
        ``[batch, n, k]``.
    activation : Coded or float32 array
        The layer's input; of a product of two activations the left operand, ``[batch, m, k]``.
    given : LayerTensors or None
        The numbers before the recipe; None in an outline.
    recipe : str
        Its name, for the record.
    notes : tuple of str
        What a reader of the report must know.
    """

    layer: Layer
    weight: Tensor
    activation: Tensor
    given: LayerTensors | None
    recipe: str
    notes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The name of the layer."""
        return self.layer.name

    @property
    def bias(self) -> NDArray[np.float64]:
        """One real number for each output channel; zeros where there is none."""
        if self.given is None or self.given.bias is None:
            return np.zeros(as_convolution(self.layer).out_channels)
        return self.given.bias.astype(np.float64)

    @property
    def relu(self) -> bool:
        """Whether ReLU follows."""
        return self.given is None or self.given.relu

    @property
    def source(self) -> str:
        """Where the numbers come from."""
        return "shapes and formats alone" if self.given is None else self.given.source

    @property
    def is_outline(self) -> bool:
        """Whether there are shapes and formats but no numbers."""
        return self.given is None

    @property
    def dynamic(self) -> bool:
        """Whether ranges of activations are found in the run: sums leave before their scale is
        known."""
        return isinstance(self.activation, Coded) and self.activation.dynamic

    @property
    def pattern(self) -> NM | None:
        """N:M along the reduction, where the recipe's last stage is that."""
        pattern = self.weight.pattern if isinstance(self.weight, Coded) else None
        last = pattern.stages[-1] if pattern is not None and hasattr(pattern, "stages") else pattern
        return last if isinstance(last, NM) else None

    def float_output(self) -> NDArray[np.float32]:
        """The output of the layer in float32, before any recipe; in the layer's output shape."""
        if self.given is None:
            raise InputError(f"layer {self.name!r} is an outline without numbers")
        return self.given.output()


def as_convolution(layer: Layer) -> Conv2d:
    """The grouped convolution that a layer is."""
    if isinstance(layer, Conv2d):
        return layer
    if isinstance(layer, Linear):
        return Conv2d(
            name=layer.name,
            in_channels=layer.in_features,
            out_channels=layer.out_features,
            input=(1, 1),
            kernel=(1, 1),
            bias=layer.bias,
            batch=layer.rows,
        )
    return Conv2d(
        name=layer.name,
        in_channels=layer.batch * layer.k,
        out_channels=layer.batch * layer.n,
        input=(1, 1),
        kernel=(1, 1),
        groups=layer.batch,
        bias=False,
        batch=layer.m,
    )


def as_image(layer: Layer, array: NDArray[Any]) -> NDArray[Any]:
    """A left operand as the image of :func:`as_convolution`: ``[batch, channels, h, w]``."""
    if isinstance(layer, Conv2d):
        return array
    if isinstance(layer, Linear):
        return array[:, :, None, None]
    return np.ascontiguousarray(array.transpose(1, 0, 2)).reshape(layer.m, -1, 1, 1)


def as_kernels(layer: Layer, array: NDArray[Any]) -> NDArray[Any]:
    """A right operand as kernels ``[out, channels of a group, kh, kw]``."""
    if isinstance(layer, Conv2d):
        return array
    return array.reshape(-1, array.shape[-1], 1, 1)


def as_output(layer: Layer, image: NDArray[Any]) -> NDArray[Any]:
    """Outputs ``[batch, out channels, oh, ow]`` in the shape of the layer's output."""
    if isinstance(layer, Conv2d):
        return image
    if isinstance(layer, Linear):
        return image[:, :, 0, 0]
    return np.ascontiguousarray(image.reshape(layer.m, layer.batch, layer.n).transpose(1, 0, 2))


SAMPLE = 4096  # values by which an outline learns its formats; their scales are never used


def outline(
    layer: Layer,
    recipe: Recipe | str | None,
    *,
    own: Recipe | str | None = None,
    pruned: bool = False,
    brought: Brought | None = None,
) -> EncodedLayer:
    """A layer's shapes with the formats that a recipe gives, and no numbers.

    Formats that depend on the values (a sign, ANT's types) are those of a sample of synthetic
    numbers. All codes are one code that is not held in memory. ``pruned`` says that the weights
    would come so (:attr:`~sparqsim.workloads.tensors.LayerTensors.pruned`). Without a recipe the
    formats are those that its file ``brought``.
    """
    chosen = _chosen(layer, recipe, brought)
    other = recipes.get(own) if isinstance(own, str) else own
    shapes = dict(zip(ROLES, as_operand_shapes(layer), strict=True))

    def spread(which: Role, used: TensorRecipe) -> Tensor:
        two_activations = isinstance(layer, MatMul)
        quantizer = _sampled(two_activations, which, used, pruned)
        if quantizer is None:
            return np.broadcast_to(np.float32(0), shapes[which])
        weights = which == "weights" and not two_activations
        return Coded(
            codes=_blank(quantizer, shapes[which]),
            quantizer=_one(quantizer),
            pattern=_pattern(used) if weights else None,
            dynamic=used.dynamic,
        )

    found: dict[Role, Tensor] = {}
    for which in ROLES:
        stated = None if recipe is not None or brought is None else brought.sample(which)
        if stated is not None:
            found[which] = Coded(
                codes=_blank(stated, shapes[which]),
                quantizer=_one(stated),
                dynamic=_finds(brought, which),
            )
    made, notes = _both(layer, chosen, other, pruned, spread, found)
    return EncodedLayer(
        layer=layer,
        weight=made["weights"],
        activation=made["activations"],
        given=None,
        recipe=chosen.name,
        notes=notes,
    )


def _blank(quantizer: Quantizer, shape: tuple[int, ...]) -> NDArray[np.unsignedinteger]:
    """One code for a whole tensor."""
    return np.broadcast_to(np.zeros((), quantizer.formats[0].code_dtype), shape)


def _one(quantizer: Quantizer) -> Quantizer:
    """A quantizer with the first of its formats and scales alone, and a zero point if any has."""
    zero = quantizer.zero_point
    return replace(
        quantizer,
        formats=quantizer.formats[:1],
        choice=None,
        scale=quantizer.scale[:1],
        zero_point=None if zero is None else zero[[int(np.argmax(zero != 0))]],
    )


def _pattern(recipe: TensorRecipe) -> Pattern | None:
    """The zeros that a recipe makes, where it prunes."""
    return None if recipe.prune is None else recipe.pattern


def _chosen(layer: Layer, recipe: Recipe | str | None, brought: Brought | None) -> Recipe:
    """The recipe; without one, what the file has, which leaves the rest in float32."""
    if recipe is None and brought is None:
        raise InputError(f"layer {layer.name!r} comes without codes; give a recipe")
    if recipe is None:
        return Recipe(name=NAME)
    return recipes.get(recipe) if isinstance(recipe, str) else recipe


def _finds(brought: Brought | None, which: Role) -> bool:
    """Whether the file finds the range of an operand in each run."""
    stated = None if brought is None else brought.of(which)
    return isinstance(stated, Range) and stated.scale is None


@cache
def _sampled(
    two_activations: bool, which: Role, used: TensorRecipe, pruned: bool
) -> Quantizer | None:
    """What a recipe finds for an operand of a small layer with synthetic numbers; None: floats."""
    rng = np.random.default_rng(0)
    if two_activations:
        side = math.isqrt(SAMPLE)
        return _fitted_inputs(tensor((1, side, side), rng), used)
    if which == "weights":
        return fitted_weight(tensor((32, SAMPLE // 32), rng), used, zero=pruned)[1]
    return _fitted_inputs(activations((32, SAMPLE // 32), 1.0, rng), used)


def _fitted_inputs(
    inputs: NDArray[np.float32], recipe: TensorRecipe, calibration: NDArray[Any] | None = None
) -> Quantizer | None:
    """The quantizer of what a layer reads, by what was seen before if anything; None: floats."""
    if recipe.scheme == "keep":
        return None
    own_range = recipe.dynamic or recipe.calibration == "unit"
    seen = inputs
    if not own_range and calibration is not None:
        seen = pruned_inputs(calibration.astype(np.float32, copy=False), recipe)
    quantizer = fitted(seen, recipe)
    if quantizer.pairs is None:
        return quantizer
    return replace(quantizer, pairs=pair_axis(inputs.ndim))  # what was seen may lie in other axes


def _operand(
    values: NDArray[Any] | CSC,
    recipe: TensorRecipe,
    role: Role,
    calibration: NDArray[Any] | None,
    pruned: bool,
) -> Tensor:
    """Apply a recipe to one operand; of ``pruned`` weights a codebook keeps zero."""
    if role == "weights":
        if isinstance(values, CSC):
            if recipe.scheme == "codebook" and recipe.prune is None and values.stored:
                stored = values.values.astype(np.float32, copy=False)
                quantizer = fitted(stored, recipe, zero=True)
                codes = quantizer.quantize(stored).codes
                return Coded(codes=values.with_values(codes), quantizer=quantizer)
            values = values.to_dense()
        kept, found = fitted_weight(values, recipe, zero=pruned)
        if found is None:
            return kept
        codes = found.quantize(kept).codes
        return Coded(codes=codes, quantizer=found, pattern=_pattern(recipe))
    assert not isinstance(values, CSC)
    inputs = pruned_inputs(values.astype(np.float32, copy=False), recipe)
    fit = _fitted_inputs(inputs, recipe, calibration)
    if fit is None:
        return inputs
    return Coded(codes=fit.quantize(inputs).codes, quantizer=fit, dynamic=recipe.dynamic)


def completed(recipe: TensorRecipe, own: TensorRecipe) -> TensorRecipe:
    """A recipe in which a machine's own fills in the format where it says float32."""
    if recipe.scheme != "keep" or own.scheme == "keep":
        return recipe
    fields = ("prune", "density", "across", "score", "pad")
    return msgspec.structs.replace(own, **{name: getattr(recipe, name) for name in fields})


def operand_name(layer: Layer, which: Role) -> str:
    """What recipes call the ``weights`` (right operand) or ``activations`` (left) of a layer."""
    if isinstance(layer, MatMul):
        return f"{layer.name}.{'right' if which == 'weights' else 'left'}"
    return layer.name


def operand_recipe(
    layer: Layer, which: Role, chosen: Recipe, own: Recipe | None, *, pruned: bool = False
) -> TensorRecipe:
    """What is done to an operand: the recipe, completed by the machine's own.

    Both operands of a product of two activations are activations. Weights that come ``pruned`` are
    not pruned again by a machine's own recipe.
    """
    role: Role = "activations" if isinstance(layer, MatMul) else which
    name = operand_name(layer, which)
    used = chosen.of(role, name)
    if own is not None:
        used = completed(used, own.of(role, name))
    if used.prune and chosen is own and pruned:
        used = msgspec.structs.replace(used, prune=None, density=None, across=False, pad=False)
    return used


def encode(
    tensors: LayerTensors, recipe: Recipe | str | None, *, own: Recipe | str | None = None
) -> EncodedLayer:
    """Apply a recipe to a layer.

    Parameters
    ----------
    tensors
        The layer with its numbers; its ``calibration`` gives the ranges of activations that are
        not dynamic.
    recipe
        A recipe, its name or file; None: the codes that the layer's file brought, as they are.
    own
        The recipe of the machine that will run the layer: it says the format of what ``recipe``
        leaves in float32. Without one those tensors stay in float32.

    Raises
    ------
    InputError
        If a tensor suits its pattern or format not, or there is neither a recipe nor codes; the
        layer is named.
    """
    chosen = _chosen(tensors.layer, recipe, tensors.brought)
    other = recipes.get(own) if isinstance(own, str) else own
    layer = tensors.layer
    values: dict[Role, Any] = {"weights": tensors.weight, "activations": tensors.activation}
    calibration = {"weights": tensors.right_calibration, "activations": tensors.calibration}

    def coded(which: Role, used: TensorRecipe) -> Tensor:
        role: Role = "activations" if isinstance(layer, MatMul) else which
        return _operand(values[which], used, role, calibration[which], tensors.pruned)

    found: dict[Role, Tensor] = {}
    if recipe is None and tensors.brought is not None:
        found = _brought(tensors.brought, values)
    made, notes = _both(layer, chosen, other, tensors.pruned, coded, found)
    if recipe is not None and tensors.brought is not None:
        notes += ("the file has codes of its own; the recipe rounds their values again",)
    weight, given = made["weights"], tensors.weight
    if isinstance(weight, Coded) and isinstance(given, np.ndarray):
        gone = vanished(given, weight.quantizer)
        if gone:
            notes += (f"{gone} channels of the weights are too small for any scale: they are zero",)
    return EncodedLayer(
        layer=layer,
        weight=made["weights"],
        activation=made["activations"],
        given=tensors,
        recipe=chosen.name,
        notes=(*tensors.notes, *notes),
    )


def _brought(brought: Brought, values: Mapping[Role, Any]) -> dict[Role, Tensor]:
    """The operands that the file has as codes."""
    found: dict[Role, Tensor] = {}
    for which in ROLES:
        held = brought.quantized(which, values[which]) if brought.of(which) is not None else None
        if held is not None:
            found[which] = Coded(
                codes=held.codes, quantizer=held.quantizer, dynamic=_finds(brought, which)
            )
    return found


def _both(
    layer: Layer,
    chosen: Recipe,
    own: Recipe | None,
    pruned: bool,
    make: Callable[[Role, TensorRecipe], Tensor],
    found: Mapping[Role, Tensor],
) -> tuple[dict[Role, Tensor], tuple[str, ...]]:
    """Both operands after their recipes, but those ``found`` in codes, and what to say of it."""
    made: dict[Role, Tensor] = dict(found)
    notes = []
    for which in ROLES:
        if which in found:
            continue
        role: Role = "activations" if isinstance(layer, MatMul) else which
        asked = chosen.of(role, operand_name(layer, which))
        used = operand_recipe(layer, which, chosen, own, pruned=pruned)
        if used.format != asked.format:
            given = own.name if own is not None else ""
            who = "the file" if chosen.name == NAME else "the recipe"
            notes.append(f"{who} leaves {which} in float32; {given!r} gives {used.format}")
        if used.prune != asked.prune:
            notes.append(f"the weights come pruned; the pruning of {chosen.name!r} is left out")
        try:
            made[which] = make(which, used)
        except InputError as error:
            raise InputError(
                f"layer {layer.name!r}, {which}, with the recipe {chosen.name!r}: {error} "
                "(an [[override]] can treat this layer otherwise)"
            ) from None
    return made, tuple(notes)
