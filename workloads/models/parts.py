"""Pieces that several networks share: square convolutions, transformer blocks, other work.

What stands behind a layer passes over its output: activation functions, residual additions,
normalisation that is not folded, softmax, the pooling that shrinks it. The softmax of class scores
is not listed: the largest score is the answer without it.
"""

from __future__ import annotations

from collections.abc import Iterable

from sparqsim.workloads.layers import Conv2d, Layer, Linear, MatMul, OtherKind, OtherWork

KINDS: dict[str, OtherKind] = {
    "Add": "elementwise",
    "Clip": "elementwise",  # ReLU6
    "Gelu": "elementwise",
    "Mul": "elementwise",
    "Relu": "elementwise",
    "RotaryEmbedding": "elementwise",
    "Swish": "elementwise",
    "Tanh": "elementwise",
    "Softmax": "softmax",
    "LRN": "normalisation",
    "LayerNormalization": "normalisation",
    "RMSNormalization": "normalisation",
    "GlobalAveragePool": "pooling",
    "MaxPool": "pooling",
}


def behind(layer: Layer, *operations: str) -> tuple[OtherWork, ...]:
    """Return operations, as ONNX calls them, on the output of a layer."""
    return tuple(
        OtherWork(
            name=f"{layer.name}.{operation.lower()}",
            kind=KINDS[operation],
            operation=operation,
            elements=layer.output_elements,
            after=layer.name,
            repeat=layer.repeat,
        )
        for operation in operations
    )


def conv(
    name: str,
    in_channels: int,
    out_channels: int,
    size: int,
    kernel: int,
    stride: int = 1,
    padding: int | None = None,
    groups: int = 1,
    bias: bool = False,
    batch: int = 1,
) -> Conv2d:
    """Return a convolution square in everything; ``padding`` defaults to half the kernel."""
    pad = kernel // 2 if padding is None else padding
    return Conv2d(
        name=name,
        in_channels=in_channels,
        out_channels=out_channels,
        input=(size, size),
        kernel=(kernel, kernel),
        stride=(stride, stride),
        padding=(pad, pad),
        groups=groups,
        bias=bias,
        batch=batch,
    )


def transformer_blocks(
    *,
    blocks: int,
    width: int,
    heads: int,
    hidden: int,
    queries: int,
    keys: int,
    batch: int,
    bias: bool = True,
    fused_qkv: bool = False,
    gated: bool = False,
    name: str = "blocks",
) -> tuple[Layer, ...]:
    """Return the layers of ``blocks`` identical transformer blocks.

    Parameters
    ----------
    name : str
        Of the blocks, in front of the layers' own.
    blocks, width, heads, hidden : int
        Number of blocks, model width, attention heads, width inside the feed-forward part.
    queries, keys : int
        Tokens computed, and tokens attended to, per sequence: equal for an encoder or prefill; one
        query against all keys in decoding.
    batch : int
        Sequences.
    bias : bool
        Whether the linear layers have one.
    fused_qkv : bool
        Whether query, key and value are one layer in the published network.
    gated : bool
        Whether the feed-forward part is gated: ``down(act(gate(x)) * up(x))``.
    """
    rows, depth = batch * queries, width // heads

    def linear(part: str, fan_in: int, fan_out: int) -> Linear:
        return Linear(
            name=f"{name}.{part}",
            in_features=fan_in,
            out_features=fan_out,
            rows=rows,
            bias=bias,
            repeat=blocks,
        )

    def product(part: str, k: int, n: int) -> MatMul:
        return MatMul(
            name=f"{name}.{part}", m=queries, k=k, n=n, batch=batch * heads, repeat=blocks
        )

    inputs = {"qkv": 3 * width} if fused_qkv else dict.fromkeys(("query", "key", "value"), width)
    gate = (linear("mlp_gate", width, hidden),) if gated else ()
    return (
        *(linear(part, width, size) for part, size in inputs.items()),
        product("scores", depth, keys),
        product("context", keys, depth),
        linear("projection", width, width),
        *gate,
        linear("mlp_up", width, hidden),
        linear("mlp_down", hidden, width),
    )


def transformer_other(
    layers: Iterable[Layer],
    *,
    activation: str = "Gelu",
    norm: str = "LayerNormalization",
    rotary: bool = False,
) -> tuple[OtherWork, ...]:
    """Return the work between the layers of transformer blocks, by the last part of their names.

    A norm stands before the first layer and behind each residual addition, which is as many as
    there are whether a network norms before its blocks' parts or after them. The factor of the
    scores is folded into the queries.
    """
    layers = list(layers)
    gated = any(layer.name.endswith("mlp_gate") for layer in layers)
    table = {
        "scores": ("Softmax",),
        "projection": ("Add", norm),
        "mix": ("Add", norm),
        "mlp_gate": (activation,),
        "mlp_up": ("Mul",) if gated else (activation,),
        "up": (activation,),
        "mlp_down": ("Add", norm),
        "down": ("Add", norm),
    }
    if rotary:
        table |= dict.fromkeys(("query", "key"), ("RotaryEmbedding",))
    first = layers[0]
    assert isinstance(first, Linear)
    before = OtherWork(
        name=f"embeddings.{norm.lower()}",
        kind="normalisation",
        operation=norm,
        elements=first.input_elements,
    )
    between = [
        work
        for layer in layers
        for work in behind(layer, *table.get(layer.name.rpartition(".")[2], ()))
    ]
    return before, *between
