"""Shapes that onnxruntime's and QONNX's operators make, which ONNX's own inference does not know.

Source: onnxruntime's ContribOperators.md; QONNX, https://github.com/fastmachinelearning/qonnx.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from sparqsim.base import InputError
from sparqsim.workloads.importers.onnx_operators import MICROSOFT, QONNX
from sparqsim.workloads.importers.products import product_of

Shape = tuple[int, ...]
FLOAT, SIGNED_BYTE = 1, 3  # as ONNX numbers them
Made = list[tuple[Shape, int]]


class _Node:
    """A node with what is known of its inputs."""

    def __init__(self, node: Any, shapes: Mapping[str, Shape], types: Mapping[str, int]) -> None:
        self.node, self.shapes, self.types = node, shapes, types
        self.attributes = {attribute.name: attribute for attribute in node.attribute}

    def shape(self, which: int) -> Shape:
        """Of an input; KeyError if it is not known."""
        return self.shapes[self.node.input[which]]

    def kind(self, which: int) -> int:
        """Element type of an input."""
        found = self.types.get(self.node.input[which]) if len(self.node.input) > which else 0
        return found or FLOAT

    def has(self, which: int) -> bool:
        """Whether an input is given."""
        return len(self.node.input) > which and bool(self.node.input[which])

    def whole(self, name: str, default: int = 0) -> int:
        """An attribute."""
        return self.attributes[name].i if name in self.attributes else default


def _same(node: _Node) -> Made:
    return [(node.shape(0), node.kind(0))]


def _as_zero(which: int) -> Callable[[_Node], Made]:
    """The shape of the first input, in the type of a zero point."""
    return lambda node: [(node.shape(0), node.kind(which) if node.has(which) else 2)]


def _real(node: _Node) -> Made:
    return [(node.shape(0), node.kind(1))]


def _normed(node: _Node) -> Made:
    """Outputs of a normalisation behind an addition: itself, mean, variance, the sum."""
    shape, kind = node.shape(0), node.kind(0)
    rest = (*shape[:-1], 1)
    return [(shape, kind), (rest, FLOAT), (rest, FLOAT), (shape, kind)]


def _broadcast(node: _Node) -> Made:
    shape = np.broadcast_shapes(node.shape(0), node.shape(3))
    return [(tuple(int(size) for size in shape), node.kind(0))]


def _product(left: int, right: int, kind: int | None = None) -> Callable[[_Node], Made]:
    def made(node: _Node) -> Made:
        shapes = [node.shape(left), node.shape(right)]
        for which, name in enumerate(("transA", "transB")):
            if node.whole(name):
                shapes[which] = (*shapes[which][:-2], shapes[which][-1], shapes[which][-2])
        return [(product_of(*shapes).shape, node.kind(left) if kind is None else kind)]

    return made


def _qgemm(node: _Node) -> Made:
    ((shape, kind),) = _product(0, 3)(node)
    return [(shape, kind if node.has(7) else FLOAT)]


def _nbits(node: _Node) -> Made:
    return [((*node.shape(0)[:-1], node.whole("N")), node.kind(0))]


def _pooled(node: _Node) -> Made:
    shape = node.shape(0)
    if node.whole("channels_last"):
        return [((shape[0], *(1 for _ in shape[2:]), shape[-1]), node.kind(0))]
    return [((*shape[:2], *(1 for _ in shape[2:])), node.kind(0))]


def _concat(node: _Node) -> Made:
    parts = [node.shape(which) for which in range(2, len(node.node.input), 3)]
    axis = node.whole("axis")
    shape = list(parts[0])
    shape[axis] = sum(part[axis] for part in parts)
    return [(tuple(shape), node.kind(2))]


def _embedded(node: _Node) -> Made:
    return [((*node.shape(0), node.shape(2)[-1]), node.kind(2)), ((node.shape(0)[0],), 6)]


def _attention(node: _Node) -> Made:
    """A fused projection and attention: hidden size of V."""
    batch, length, _ = node.shape(0)
    sizes = node.attributes.get("qkv_hidden_sizes")
    hidden = sizes.ints[2] if sizes is not None else node.shape(1)[-1] // 3
    kind = node.kind(3) if node.node.op_type == "QAttention" else node.kind(0)
    return [((batch, length, hidden), kind)]


def _multi_head(node: _Node) -> Made:
    query, kind = node.shape(0), node.kind(0)
    heads = node.whole("num_heads", 1)
    if len(query) == 5:  # Q, K and V in one
        return [((*query[:2], query[2] * query[4]), kind)]
    value = node.shape(2) if node.has(2) else None
    hidden = query[-1]
    if value is not None:
        hidden = value[-1] if len(value) == 3 else value[1] * value[3]
    whole: Made = [((*query[:2], hidden), kind)]
    key = node.shape(1)
    length, each = (key[1], key[-1] // heads) if len(key) == 3 else (key[2], key[3])
    past = node.shape(6)[2] if node.has(6) else 0
    for size in (each, hidden // heads):
        whole.append(((query[0], heads, past + length, size), kind))
    return whole


def _grouped(node: _Node) -> Made:
    query, kind = node.shape(0), node.kind(0)
    heads, shared = node.whole("num_heads", 1), node.whole("kv_num_heads", 1)
    packed = not node.has(1)
    each = query[-1] // (heads + 2 * shared) if packed else query[-1] // heads
    past = node.shape(3)[2] if node.has(3) else 0
    total = past if past >= query[1] and past else past + query[1]
    held = ((query[0], shared, total, each), kind)
    return [((*query[:2], heads * each), kind), held, held]


def _lstm(node: _Node) -> Made:
    steps, batch, _ = node.shape(0)
    directions, hidden = node.shape(2)[0], node.whole("hidden_size") or node.shape(2)[1]
    last = ((directions, batch, hidden), FLOAT)
    return [((steps, directions, batch, hidden), FLOAT), last, last]


RULES: dict[str, Callable[[_Node], Made]] = {
    **dict.fromkeys(
        ["BiasAdd", "BiasGelu", "BiasSoftmax", "FastGelu", "Gelu", "GroupNorm", "QLinearSigmoid",
         "QLinearLeakyRelu", "QLinearSoftmax", "QuickGelu", "RotaryEmbedding", "Trilu",
         "SkipGroupNorm"],
        _same,
    ),
    **dict.fromkeys(
        ["SimplifiedLayerNormalization", "SkipLayerNormalization",
         "SkipSimplifiedLayerNormalization"],
        _normed,
    ),
    "QuantizeLinear": _as_zero(2),
    "DequantizeLinear": _real,
    "QLinearAdd": _broadcast,
    "QLinearMul": _broadcast,
    "QLinearGlobalAveragePool": _pooled,
    "QLinearConcat": _concat,
    "EmbedLayerNormalization": _embedded,
    "FusedMatMul": _product(0, 1),
    "FusedGemm": _product(0, 1),
    "MatMulIntegerToFloat": _product(0, 1, FLOAT),
    "DynamicQuantizeMatMul": _product(0, 1, FLOAT),
    "QGemm": _qgemm,
    "MatMulNBits": _nbits,
    "Attention": _attention,
    "QAttention": _attention,
    "MultiHeadAttention": _multi_head,
    "GroupQueryAttention": _grouped,
    "DynamicQuantizeLSTM": _lstm,
}  # fmt: skip


def twin(node: Any) -> Any:
    """A node as ONNX's inference knows it: a fused convolution is one with more behind it."""
    if node.op_type != "FusedConv":
        return node
    found = type(node).FromString(node.SerializeToString())
    found.op_type, found.domain = "Conv", ""
    del found.input[3:]
    kept = [each for each in node.attribute if not each.name.startswith("activation")]
    del found.attribute[:]
    found.attribute.extend(kept)
    return found


STANDARD_TOO = ("SimplifiedLayerNormalization",)  # onnxruntime's, though under ONNX's domain


def made_by(
    node: Any, shapes: Mapping[str, Shape], types: Mapping[str, int]
) -> dict[str, tuple[Shape, int]]:
    """Return shape and element type of what a node makes; empty where no rule here tells."""
    if node.domain in QONNX:
        rule: Callable[[_Node], Made] | None = _same
    elif node.domain == MICROSOFT or node.op_type in STANDARD_TOO:
        rule = RULES.get(node.op_type)
    else:
        rule = None
    if rule is None:
        return {}
    try:
        made = rule(_Node(node, shapes, types))
    except (KeyError, IndexError, ValueError, ZeroDivisionError, InputError):
        return {}  # its inputs are not known, or do not fit: that is said where it is read
    if any(size < 0 for shape, _ in made for size in shape):
        return {}
    return {name: each for name, each in zip(node.output, made, strict=False) if name}
