"""Layers as an accelerator sees them: shapes, counts, and the matrix product each one is.

A layer here is a piece of work on the multiply-accumulate array and nothing else: convolutions,
fully connected layers and the two products inside attention. Pooling, normalisation, softmax and
element-wise arithmetic need no such array: they are :class:`OtherWork`, listed beside the layers,
and a layer's ``input`` says what shape they left behind. Every layer is also a (batched) matrix
product, :meth:`Conv2d.gemm`: ``batch`` times an ``m x k`` matrix of activations by a ``k x n``
matrix.

Counts are of one layer, for its whole ``batch`` (``rows``); a table writes ``repeat`` identical
layers once, and :class:`Model` multiplies. Images are channels first; weights are laid out
``(out, in / groups, kernel h, kernel w)`` and ``(out, in)``, as torch and ONNX have them.
"""

from __future__ import annotations

import difflib
import math
from collections import Counter
from collections.abc import Iterable
from typing import Literal, NamedTuple

import msgspec

from sparqsim.base import InputError


class Gemm(NamedTuple):
    """``batch`` independent products of an ``m x k`` by a ``k x n`` matrix."""

    m: int
    n: int
    k: int
    batch: int

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the dense product."""
        return self.batch * self.m * self.n * self.k


def _whole(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


class _Layer(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    tag=str.lower,
    tag_field="kind",
):
    """What every layer carries beside its shape.

    Attributes
    ----------
    name : str
        Unique within its model.
    repeat : int
        How many identical layers this row of the table stands for.
    steps : int
        How many of these are one layer that runs again with the same weights: steps of time.
    weights_of : str
        The layer whose weights these are; empty where it has its own.
    activation_bits, weight_bits : int or None
        Published bit widths, where a table has them. A :class:`MatMul` has no weights: there
        ``weight_bits`` is the width of its right operand.
    weight_density, activation_density : float or None
        Published fraction of non-zeros in (0, 1]; ``density_source`` then says whose.
    """

    name: str
    repeat: int = 1
    steps: int = 1
    weights_of: str = ""
    activation_bits: int | None = None
    weight_bits: int | None = None
    weight_density: float | None = None
    activation_density: float | None = None
    density_source: str | None = None

    def _at_least(self, least: int, **fields: object) -> None:
        """Raise unless every given field is a whole number (or tuple of them) >= ``least``."""
        for field, value in fields.items():
            parts = value if isinstance(value, tuple) else (value,)
            if not parts or not all(_whole(part, least) for part in parts):
                raise InputError(
                    f"layer {self.name!r}: {field} must be whole and at least {least}, "
                    f"got {value!r}"
                )

    def _pair(self, **fields: object) -> None:
        for field, value in fields.items():
            if not isinstance(value, tuple) or len(value) != 2:
                raise InputError(
                    f"layer {self.name!r}: {field} must be a pair (height, width), got {value!r}"
                )

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise InputError(f"a layer's name must be a non-empty string, got {self.name!r}")
        self._at_least(1, repeat=self.repeat, steps=self.steps)
        if self.repeat % self.steps:
            raise InputError(
                f"layer {self.name!r}: steps must divide repeat ({self.repeat}), got {self.steps}"
            )
        for field in ("activation_bits", "weight_bits"):
            bits = getattr(self, field)
            if bits is not None and not (_whole(bits, 1) and bits <= 64):
                raise InputError(
                    f"layer {self.name!r}: {field} must be a whole number from 1 to 64, "
                    f"got {bits!r}"
                )
        for field in ("weight_density", "activation_density"):
            density = getattr(self, field)
            if density is None:
                continue
            if not (isinstance(density, int | float) and 0.0 < density <= 1.0):
                raise InputError(
                    f"layer {self.name!r}: {field} must be a fraction above 0 and at most 1, "
                    f"got {density!r}"
                )
            if not self.density_source:
                raise InputError(
                    f"layer {self.name!r}: a {field} needs its density_source: say who measured it"
                )

    def gemm(self) -> Gemm:
        """Return the matrix product this layer is."""
        raise NotImplementedError

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """Shape of the weight array; empty where there is none."""
        raise NotImplementedError

    @property
    def macs(self) -> int:
        """Dense multiply-accumulates of one such layer."""
        return self.gemm().macs

    @property
    def weights(self) -> int:
        """Number of weights of one such layer, without bias."""
        return math.prod(self.weight_shape) if self.weight_shape else 0

    @property
    def parameters(self) -> int:
        """Number of weights and biases of one such layer."""
        return self.weights

    @property
    def stored(self) -> int:
        """Weights and biases that all its repeats add to a model, each tensor once."""
        own = self.parameters - (self.weights if self.weights_of else 0)
        return own * (self.repeat // self.steps)


class Conv2d(_Layer, frozen=True, kw_only=True):
    """A two-dimensional convolution over ``batch`` images.

    Attributes
    ----------
    in_channels, out_channels, groups : int
        Both channel counts are multiples of ``groups``; depthwise is ``groups == in_channels``.
    input : tuple of int
        (height, width) before padding.
    kernel, stride, dilation : tuple of int
        (height, width).
    padding : tuple of int
        (height, width), or (top, left, bottom, right) where the sides differ. It is kept as four.
    """

    in_channels: int
    out_channels: int
    input: tuple[int, int]
    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, ...] = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    bias: bool = True
    batch: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        self._pair(input=self.input, kernel=self.kernel, stride=self.stride, dilation=self.dilation)
        self._at_least(
            1,
            in_channels=self.in_channels,
            out_channels=self.out_channels,
            input=self.input,
            kernel=self.kernel,
            stride=self.stride,
            dilation=self.dilation,
            groups=self.groups,
            batch=self.batch,
        )
        self._at_least(0, padding=self.padding)
        if not isinstance(self.padding, tuple) or len(self.padding) not in (2, 4):
            raise InputError(
                f"layer {self.name!r}: padding must be (height, width) or (top, left, bottom, "
                f"right), got {self.padding!r}"
            )
        if len(self.padding) == 2:
            msgspec.structs.force_setattr(self, "padding", self.padding * 2)
        if self.in_channels % self.groups or self.out_channels % self.groups:
            raise InputError(
                f"layer {self.name!r}: groups must divide the channels, got {self.groups} groups "
                f"for {self.in_channels} in and {self.out_channels} out"
            )
        if min(self.output) < 1:
            raise InputError(
                f"layer {self.name!r}: the kernel must fit the padded input, got kernel "
                f"{self.kernel} with dilation {self.dilation} on input {self.input} with padding "
                f"{self.padding}"
            )

    @property
    def output(self) -> tuple[int, int]:
        """(height, width) of the output."""
        top, left, bottom, right = self.padding
        size = (self.input[0] + top + bottom, self.input[1] + left + right)
        reach = [d * (k - 1) + 1 for k, d in zip(self.kernel, self.dilation, strict=True)]
        return (
            (size[0] - reach[0]) // self.stride[0] + 1,
            (size[1] - reach[1]) // self.stride[1] + 1,
        )

    @property
    def weight_shape(self) -> tuple[int, ...]:
        return (self.out_channels, self.in_channels // self.groups, *self.kernel)

    @property
    def parameters(self) -> int:
        return self.weights + self.bias * self.out_channels

    @property
    def input_elements(self) -> int:
        """Number of input activations, without padding."""
        return self.batch * self.in_channels * math.prod(self.input)

    @property
    def output_elements(self) -> int:
        """Number of output activations."""
        return self.batch * self.out_channels * math.prod(self.output)

    def gemm(self) -> Gemm:
        """Return the product after im2col: output pixels by output channels, one per group."""
        return Gemm(
            m=self.batch * math.prod(self.output),
            n=self.out_channels // self.groups,
            k=self.in_channels // self.groups * math.prod(self.kernel),
            batch=self.groups,
        )


class Linear(_Layer, frozen=True, kw_only=True):
    """A fully connected layer on ``rows`` vectors (images or tokens of a batch)."""

    in_features: int
    out_features: int
    rows: int = 1
    bias: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        self._at_least(
            1, in_features=self.in_features, out_features=self.out_features, rows=self.rows
        )

    @property
    def weight_shape(self) -> tuple[int, ...]:
        return (self.out_features, self.in_features)

    @property
    def parameters(self) -> int:
        return self.weights + self.bias * self.out_features

    @property
    def input_elements(self) -> int:
        """Number of input activations."""
        return self.rows * self.in_features

    @property
    def output_elements(self) -> int:
        """Number of output activations."""
        return self.rows * self.out_features

    def gemm(self) -> Gemm:
        """Return the product: rows by output features."""
        return Gemm(m=self.rows, n=self.out_features, k=self.in_features, batch=1)


class MatMul(_Layer, frozen=True, kw_only=True):
    """``batch`` products of two activation matrices, ``m x k`` by ``k x n``, as in attention.

    Both operands are made at run time: there are no weights. Masked (causal) products are counted
    whole. Products that share an operand are one product with more rows or columns: in
    grouped-query attention the G query heads that read one key head give ``m = G * tokens`` rows
    of one left operand, ``batch`` counts key heads, and a key is counted, and fetched, once.
    Likewise ``[m, k]`` by a stack ``[s, k, n]`` is one product with ``s * n`` columns.
    """

    m: int
    k: int
    n: int
    batch: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        self._at_least(1, m=self.m, k=self.k, n=self.n, batch=self.batch)

    @property
    def weight_shape(self) -> tuple[int, ...]:
        return ()

    @property
    def input_elements(self) -> int:
        """Number of activations in both operands."""
        return self.batch * (self.m + self.n) * self.k

    @property
    def output_elements(self) -> int:
        """Number of output activations."""
        return self.batch * self.m * self.n

    def gemm(self) -> Gemm:
        """Return the product itself."""
        return Gemm(m=self.m, n=self.n, k=self.k, batch=self.batch)


Layer = Conv2d | Linear | MatMul


def for_batch(layer: Layer, count: int) -> Layer:
    """Return the work of ``count`` such layers run at once: as many times the rows or images."""
    if isinstance(layer, Linear):
        return msgspec.structs.replace(layer, rows=layer.rows * count)
    return msgspec.structs.replace(layer, batch=layer.batch * count)


OtherKind = Literal["pooling", "elementwise", "softmax", "normalisation"]


class OtherWork(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Work without multiply-accumulates on the array.

    Attributes
    ----------
    name : str
        Its own in the network, or that of the operation.
    kind : str
        What unit of a machine would do it: pooling, elementwise (additions, activation functions),
        softmax or normalisation.
    operation : str
        Such as ``MaxPool``, ``Relu``, ``Add``: ONNX's name.
    elements : int
        How many it passes over: its largest input, or its output where that is larger; of the
        whole batch, once.
    after : str
        The layer that stands before it in the order of running; empty before the first.
    repeat : int
        How many times the network does it: as often as the layers beside it.
    """

    name: str
    kind: OtherKind
    operation: str
    elements: int
    after: str = ""
    repeat: int = 1

    def __post_init__(self) -> None:
        if not _whole(self.elements, 0) or not _whole(self.repeat, 1):
            raise InputError(
                f"{self.name!r} must have whole elements (at least 0) and repeat (at least 1), "
                f"got {self.elements!r} and {self.repeat!r}"
            )


class Model(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The layers of a network, in the order in which they run.

    Attributes
    ----------
    name, source : str
        What it is called and who published the shapes.
    layers : tuple of Layer
        At least one; names are unique.
    other_parameters : int
        Trained parameters outside the layers' weights and biases, ...
    other_parameters_are : str
        ... and what they are: batch-norm scales, embeddings.
    other : tuple of OtherWork
        What runs between the layers, in order; empty where the source does not tell.
    """

    name: str
    source: str
    layers: tuple[Layer, ...]
    other_parameters: int = 0
    other_parameters_are: str = ""
    other: tuple[OtherWork, ...] = ()

    def __post_init__(self) -> None:
        if not self.layers:
            raise InputError(f"model {self.name!r} must have at least one layer, got none")
        counts = Counter(layer.name for layer in self.layers)
        twice = [name for name, count in counts.items() if count > 1]
        if twice:
            raise InputError(f"model {self.name!r}: layer names must be unique, got twice {twice}")
        if not _whole(self.other_parameters, 0):
            raise InputError(
                f"model {self.name!r}: other_parameters must be whole and at least 0, "
                f"got {self.other_parameters!r}"
            )

    @property
    def macs(self) -> int:
        """Dense multiply-accumulates of all layers, repeats included."""
        return sum(layer.macs * layer.repeat for layer in self.layers)

    @property
    def weights(self) -> int:
        """Weights of all layers without biases, each tensor once."""
        return sum(
            layer.weights * (layer.repeat // layer.steps)
            for layer in self.layers
            if not layer.weights_of
        )

    @property
    def parameters(self) -> int:
        """All trained parameters: layers with biases, and the others, each tensor once."""
        return sum(layer.stored for layer in self.layers) + self.other_parameters

    def layer(self, name: str) -> Layer:
        """Return the layer called ``name``.

        Raises
        ------
        InputError
            If there is none; the message lists the nearest names.
        """
        for layer in self.layers:
            if layer.name == name:
                return layer
        names = [layer.name for layer in self.layers]
        raise unknown(f"model {self.name!r} has no layer", name, names)


def unknown(what: str, name: str, known: Iterable[str]) -> InputError:
    """Return the error for a name that is not known, with the nearest known ones or all of them."""
    known = list(known)
    near = [each for each in known if name in each][:5] if name else []
    near += [
        each for each in difflib.get_close_matches(name, known, cutoff=0.5) if each not in near
    ]
    if near:
        return InputError(f"{what} {name!r}; did you mean {', '.join(near)}?")
    shown = ", ".join(known[:40]) + (f", and {len(known) - 40} more" if len(known) > 40 else "")
    return InputError(f"{what} {name!r}; there is {shown}")
