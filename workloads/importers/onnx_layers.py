"""Matrix products of an ONNX graph as layers: ``Gemm``, ``MatMul``, an ``Einsum`` that is one."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparqsim.base import InputError
from sparqsim.workloads.importers import Tensors
from sparqsim.workloads.importers.onnx_constants import Constant, expands
from sparqsim.workloads.importers.onnx_convolutions import conv, transposed
from sparqsim.workloads.importers.onnx_file import Shape
from sparqsim.workloads.importers.onnx_graph import Operand, Step
from sparqsim.workloads.importers.onnx_site import Collected, Site
from sparqsim.workloads.importers.products import (
    Arrange,
    Product,
    einsum_of,
    product_of,
    product_of_copies,
)
from sparqsim.workloads.layers import Conv2d, Layer, Linear, MatMul


@dataclass(frozen=True)
class Side:
    """One side of a product.

    Attributes
    ----------
    value : str
    weights : Constant or None
        Its numbers, where it is constant.
    operand : callable
        Makes an :class:`Operand` of the value and an arrangement.
    """

    value: str
    weights: Constant | None
    operand: Callable[[str, Any], Operand]


def side(site: Site, which: int) -> Side:
    """An input of real numbers as a side of a product."""
    value = site.input(which)
    held = site.is_constant(value)
    weights = site.among.constants.taken(value, site.place) if held else None
    return Side(value, weights, site.operand)


def gemm(site: Site) -> bool:
    """``Gemm``, and onnxruntime's without its activation."""
    product = flat_product(site, site.shape(site.input(0)), site.shape(site.input(1)))
    alpha, beta = site.real("alpha", 1.0), site.real("beta", 1.0)
    third = site.input(2)
    bias = None
    if third and site.is_constant(site.input(1)):
        bias = row_bias(site, third, product.sizes["N"])
    sides = (side(site, 0), side(site, 1))
    if third and bias is None:
        add_product(site, product, sides, scale=alpha, added=third, factor=beta)
        _note_added(site, third, product)
    else:
        scaled = None if bias is None else bias * beta
        add_product(site, product, sides, scale=alpha, bias=scaled)
    return True


def flat_product(site: Site, left: Shape, right: Shape) -> Product:
    """The product of two matrices, either of which may come transposed."""
    if len(left) != 2 or len(right) != 2:
        raise site.fail(f"must multiply two matrices, got {list(left)}, {list(right)}")
    flips = [bool(site.whole(name, 0)) for name in ("transA", "transB")]
    try:
        product = product_of(left[::-1] if flips[0] else left, right[::-1] if flips[1] else right)
    except InputError:
        raise site.fail(f"multiplies {list(left)} by {list(right)}, which does not fit") from None
    return product.flipped(*flips)


def row_bias(site: Site, name: str, outputs: int) -> NDArray[Any] | None:
    """A constant with one value per output, or None."""
    constant = site.among.constants.get(name)
    if constant is None:
        return None
    size = math.prod(constant.shape)
    if size not in (1, outputs) or size != (constant.shape[-1] if constant.shape else 1):
        return None
    return site.among.constants.values(name, site.place).reshape(-1)


def _note_added(site: Site, third: str, product: Product) -> None:
    """A C of a Gemm that is no bias is added element by element: other work."""
    shape = site.shape(third)
    if not expands(shape, product.shape):
        raise site.fail(
            f"has a C of {list(shape)}, which does not fit a result of {list(product.shape)}"
        )
    site.among.left_out["Add"] += 1
    name = f"{site.among.layers[-1].name}.add"
    site.among.work(name, "elementwise", "Add", math.prod(product.shape))


def matmul(site: Site) -> bool:
    """``MatMul``."""
    sides = side(site, 0), side(site, 1)
    copies = (1, 1)
    if sides[0].weights is None and sides[1].weights is None:
        copies = _copies(site.among, sides[0].value), _copies(site.among, sides[1].value)
    left, right = (site.shape(each.value) for each in sides)
    add_product(site, product_of_copies(left, right, copies), sides)
    return True


def _copies(among: Collected, value: str) -> int:
    """How many matrices in a row of a stack are copies of one, made by an ``Expand``.

    As torch repeats keys for their query heads, it expands an axis of 1 before the matrices, merges
    it with the heads, and may turn and scale each matrix.
    """
    while (node := among.producers.get(value)) is not None:
        made, shape = among.shapes.get(value), among.shapes.get(node.input[0])
        if made is None or shape is None:
            break
        if node.op_type == "Expand":
            copied = len(made) == len(shape) >= 3 and shape[-3] == 1
            return made[-3] if copied and _without(made) == _without(shape) else 1
        if node.op_type == "Reshape":
            if made[-2:] != shape[-2:]:
                break
        elif node.op_type == "Transpose":
            axes = next((list(a.ints) for a in node.attribute if a.name == "perm"), [])
            rank = len(made)
            if axes != [*range(rank - 2), rank - 1, rank - 2]:
                break
        elif node.op_type in ("Mul", "Div"):
            others = [name for name in node.input[1:] if name in among.constants]
            if not others or math.prod(among.constants[others[0]].shape) != 1:
                break
        elif node.op_type not in ("Cast", "Identity"):
            break
        value = node.input[0]
    return 1


def _without(shape: Shape) -> Shape:
    """The axes of a stack but the last before its matrices."""
    return shape[:-3] + shape[-2:]


def einsum(site: Site) -> bool:
    """An ``Einsum`` that is a product of two arrays; one that only rearranges is none."""
    if len(site.node.input) == 1:
        return _beside(site)
    if len(site.node.input) != 2:
        raise site.fail("multiplies more than two arrays; write it as products of two")
    shapes = [site.shape(name) for name in site.node.input]
    product = einsum_of(site.text("equation", ""), shapes[0], shapes[1])
    if product.sizes["M"] == product.sizes["N"] == product.sizes["K"] == 1:
        return _beside(site)
    add_product(site, product, (side(site, 0), side(site, 1)))
    return True


def _beside(site: Site) -> bool:
    """An operation that multiplies and accumulates nothing."""
    site.among.left_out[site.node.op_type] += 1
    site.among.nodes.append((site.position, site.node))
    elements = math.prod(site.shape(site.node.output[0]))
    site.among.work(site.node.name or site.node.output[0], "elementwise", site.node.op_type,
                    elements, site.among.repeat(site.node))  # fmt: skip
    return True


def add_product(
    site: Site,
    product: Product,
    sides: tuple[Side, Side],
    *,
    scale: float = 1.0,
    bias: NDArray[Any] | None = None,
    **more: Any,
) -> None:
    """Append a product: with a constant, with a stack of them, or of two activations.

    ``bias`` has one value per output; ``more`` is of the :class:`Step`.
    """
    size = product.sizes
    constant = next((which for which in (1, 0) if sides[which].weights is not None), None)
    parameters = [] if constant is None else [sides[constant].value]
    name = site.among.name(site.node, [*parameters, *site.node.input[2:]])
    step = partial(Step, name, output=site.node.output[0], shape=product.shape, **more)
    if constant is None:
        made = step(
            left=sides[0].operand(sides[0].value, product.left("BMK")),
            right=sides[1].operand(sides[1].value, product.right("BNK")),
            result=product.result("BMN"),
            scale=scale,
        )
        site.add(
            MatMul(name=name, m=size["M"], k=size["K"], n=size["N"], batch=size["B"]), made, None
        )
        return
    weights = sides[constant].weights
    assert weights is not None
    flat = size["B"] == 1
    make = _as_linear if flat else _as_groups
    weighted, shape, turn, operand, result = make(name, product, constant, bias is not None)
    other = sides[1 - constant]
    made = step(left=other.operand(other.value, operand), right=None, result=result)
    axis = _channel_axis(product, constant, weights.shape) if flat else None
    codes = None if weights.codes is None else weights.codes.then(shape, turn)
    by = None if scale == 1.0 else np.array([scale])
    tensors = Tensors(weights.array.then(shape, turn), codes=codes).then(by, bias)
    site.add(weighted, made, tensors, axis, sides[constant].value)


def _channel_axis(product: Product, constant: int, shape: Shape) -> int | None:
    """Return where the constant's outputs stand in the result, if they are one axis of it."""
    if product.of_letters:
        return None
    if constant == 1:
        return -1  # of a stack, only what is the same for every output can be folded
    if math.prod(shape[:-2]) != 1:
        return None
    return -2 if len(product.shape) == len(product.shapes[2]) else -1


Made = tuple[Layer, Shape, Arrange, Arrange, Arrange]


def _as_linear(name: str, product: Product, constant: int, bias: bool) -> Made:
    """A product with a constant matrix on the left (0) or right (1), as a fully connected layer.

    Returns the layer, the shape of its weights, and the arrangements of the constant, of the other
    operand and of the result.
    """
    size, sides = product.sizes, (product.left, product.right)
    out, row = ("N", "M") if constant else ("M", "N")
    outputs, rows, depth = size[out], size[row], size["K"]
    layer = Linear(name=name, in_features=depth, out_features=outputs, rows=rows, bias=bias)
    shape = (outputs, depth)
    return (
        layer,
        shape,
        sides[constant](f"B{out}K", shape),
        sides[1 - constant](f"B{row}K", (rows, depth)),
        product.result(f"B{row}{out}", (rows, outputs)),
    )


def _as_groups(name: str, product: Product, constant: int, bias: bool) -> Made:
    """A product with a stack of constants that each serve an input of their own: a group each."""
    size, sides = product.sizes, (product.left, product.right)
    out, row = ("N", "M") if constant else ("M", "N")
    inputs, outputs, rows = size["B"] * size["K"], size["B"] * size[out], size[row]
    layer = Conv2d(
        name=name,
        in_channels=inputs,
        out_channels=outputs,
        input=(rows, 1),
        kernel=(1, 1),
        groups=size["B"],
        bias=bias,
    )
    shape = (outputs, size["K"], 1, 1)
    return (
        layer,
        shape,
        sides[constant](f"B{out}K", shape),
        sides[1 - constant](f"BK{row}", (1, inputs, rows, 1)),
        product.result(f"B{out}{row}", (1, outputs, rows, 1)),
    )


LAYERS: dict[tuple[str, str], Callable[[Site], bool]] = {
    ("", "Conv"): conv,
    ("", "ConvTranspose"): transposed,
    ("", "Einsum"): einsum,
    ("", "Gemm"): gemm,
    ("", "MatMul"): matmul,
}
