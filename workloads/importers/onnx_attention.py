"""Fused operations of an ONNX graph as the layers within: attention, products with more in them.

Attention is two products, ``NAME.scores`` and ``NAME.context``, and a softmax; query heads that
share a key head are rows of one product, so a key is counted once. Masks leave counts as they are.
Keys and values of earlier tokens (``past``) count as they are read. What the products read is made
inside the operation, closed to view.

Source: the ONNX operator specification (Attention, opset 23); onnxruntime's ContribOperators.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from sparqsim.workloads.importers.onnx_convolutions import conv, real_weights
from sparqsim.workloads.importers.onnx_layers import add_product, gemm, side
from sparqsim.workloads.importers.onnx_operators import MICROSOFT
from sparqsim.workloads.importers.onnx_quantized import weights_of
from sparqsim.workloads.importers.onnx_site import Site
from sparqsim.workloads.importers.products import product_of
from sparqsim.workloads.layers import Linear, MatMul


def _attend(
    site: Site,
    name: str,
    batch: int,
    heads: int,
    shared: int,
    tokens: int,
    keys: int,
    each: int,
    value: int,
) -> None:
    """Append both products and the softmax.

    Parameters
    ----------
    batch, heads, shared : int
        Query heads, and the key heads that they share.
    tokens, keys : int
        Queries, and keys that each sees.
    each, value : int
        Sizes of a key and of a value.
    """
    if min(batch, heads, shared, tokens, keys, each, value) < 1 or heads % shared:
        raise site.fail(f"has {heads} query heads for {shared} key heads, which do not fit")
    rows, stack = heads // shared * tokens, batch * shared
    scores = MatMul(name=f"{name}.scores", batch=stack, m=rows, k=each, n=keys)
    site.add(scores, None, None)
    site.among.work(f"{name}.softmax", "softmax", "Softmax", stack * rows * keys,
                    site.among.repeat(site.node))  # fmt: skip
    site.add(MatMul(name=f"{name}.context", batch=stack, m=rows, k=keys, n=value), None, None)
    site.runs_whole()


def attention(site: Site) -> bool:
    """ONNX's ``Attention``: 4-D ``[batch, heads, tokens, size]`` or 3-D with heads told apart."""
    query, key, value = (site.shape(site.input(which)) for which in range(3))
    past = site.shape(site.input(4))[2] if site.input(4) else 0
    if len(query) == 4:
        batch, heads, tokens, each = query
        shared, keys, deep = key[1], key[2], value[3]
    else:
        heads, shared = site.whole("q_num_heads", 0), site.whole("kv_num_heads", 0)
        if len(query) != 3 or min(heads, shared) < 1:
            raise site.fail("must tell q_num_heads and kv_num_heads for inputs of 3 axes")
        batch, tokens, each = query[0], query[1], query[2] // heads
        keys, deep = key[1], value[2] // shared
    name = site.among.name(site.node, [])
    _attend(site, name, batch, heads, shared, tokens, past + keys, each, deep)
    return True


def multi_head(site: Site) -> bool:
    """onnxruntime's ``MultiHeadAttention``; keys and values may come packed with queries."""
    query, heads = site.shape(site.input(0)), site.whole("num_heads", 0)
    past = site.shape(site.input(6))[2] if site.input(6) else 0
    if heads < 1:
        raise site.fail("must tell num_heads")
    if len(query) == 5:  # [batch, tokens, heads, 3, size]
        batch, tokens, _, _, each = query
        keys, deep = tokens, each
    else:
        batch, tokens, hidden = query
        each, key = hidden // heads, site.shape(site.input(1))
        keys = key[2] if len(key) == 4 else key[1]
        deep = each
        if site.input(2):
            value = site.shape(site.input(2))
            deep = value[3] if len(value) == 4 else value[2] // heads
    name = site.among.name(site.node, [])
    _attend(site, name, batch, heads, heads, tokens, past + keys, each, deep)
    return True


def grouped(site: Site) -> bool:
    """onnxruntime's ``GroupQueryAttention``: its cache may be as long as it will ever be."""
    (batch, tokens, hidden) = site.shape(site.input(0))
    heads, shared = site.whole("num_heads", 0), site.whole("kv_num_heads", 0)
    if min(heads, shared) < 1:
        raise site.fail("must tell num_heads and kv_num_heads")
    packed = not site.input(1)
    each = hidden // (heads + 2 * shared) if packed else hidden // heads
    made = [name for name in site.node.output[1:2] if name]
    past = site.shape(site.input(3))[2] if site.input(3) else 0
    keys = site.shape(made[0])[2] if made else past + tokens
    name = site.among.name(site.node, [])
    _attend(site, name, batch, heads, shared, tokens, keys, each, each)
    return True


def projected(site: Site) -> bool:
    """onnxruntime's ``Attention`` and ``QAttention``: Q, K and V are projected first."""
    (batch, tokens, inputs) = site.shape(site.input(0))
    quantized, heads = site.node.op_type == "QAttention", site.whole("num_heads", 0)
    if heads < 1:
        raise site.fail("must tell num_heads")
    weight = site.input(1)
    if quantized:
        held = weights_of(site, (weight, site.input(4), site.input(7)), -1)
    else:
        held = real_weights(site, weight)
    if len(held.shape) != 2 or held.shape[0] != inputs:
        raise site.fail(f"has weights {list(held.shape)}, which do not fit {inputs} inputs")
    sizes = site.attributes.get("qkv_hidden_sizes")
    outputs = held.shape[-1]
    q, _, v = sizes.ints if sizes is not None else (outputs // 3,) * 3
    name = site.among.name(site.node, [weight])
    layer = Linear(
        name=f"{name}.qkv",
        in_features=inputs,
        out_features=outputs,
        rows=batch * tokens,
        bias=bool(site.input(2)),
    )
    bias = site.vector(site.input(2)) if site.input(2) else None
    site.closed(layer, held, lambda x: x.reshape(inputs, outputs).T, bias, weight)
    if quantized:
        known = site.codes(site.input(0), None, site.input(3), site.input(6)).range
        if known is not None:
            site.among.ranges[layer.name] = known
    past_at = 8 if quantized else 4
    past = site.shape(site.input(past_at))[3] if site.input(past_at) else 0
    _attend(site, name, batch, heads, heads, tokens, past + tokens, q // heads, v // heads)
    return True


def fused_matmul(site: Site) -> bool:
    """onnxruntime's ``FusedMatMul``: operands may come transposed, the result has a factor."""
    shapes = [site.shape(site.input(which)) for which in (0, 1)]
    flips = [bool(site.whole(name, 0)) for name in ("transA", "transB")]
    if any(site.whole(name, 0) for name in ("transBatchA", "transBatchB")):
        raise site.fail("turns its batch to another axis, which is not supported")
    turned = [
        (*shape[:-2], shape[-1], shape[-2]) if flip and len(shape) > 1 else shape
        for shape, flip in zip(shapes, flips, strict=True)
    ]
    product = product_of(*turned)
    for which, flip in enumerate(flips):
        if flip and len(shapes[which]) > 1:
            product = product.turned(which)
    sides = (side(site, 0), side(site, 1))
    add_product(site, product, sides, scale=site.real("alpha", 1.0))
    return True


def with_activation(handler: Callable[[Site], bool]) -> Callable[[Site], bool]:
    """A product with an activation in it: the product as a layer, the activation as other work."""

    def handle(site: Site) -> bool:
        handler(site)
        layer = site.among.layers[-1]
        kind = site.text("activation", "")
        if kind:
            site.activated(kind, math.prod(site.among.steps[-1].shape), layer.name)
        return True

    return handle


FUSED: dict[tuple[str, str], Callable[[Site], bool]] = {
    ("", "Attention"): attention,
    (MICROSOFT, "MultiHeadAttention"): multi_head,
    (MICROSOFT, "GroupQueryAttention"): grouped,
    (MICROSOFT, "Attention"): projected,
    (MICROSOFT, "QAttention"): projected,
    (MICROSOFT, "FusedMatMul"): fused_matmul,
    (MICROSOFT, "FusedConv"): with_activation(conv),
    (MICROSOFT, "FusedGemm"): with_activation(gemm),
}
