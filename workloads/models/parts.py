"""Pieces that several networks share: square convolutions and transformer blocks."""

from __future__ import annotations

from sparqsim.workloads.layers import Conv2d, Layer, Linear, MatMul


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
) -> tuple[Layer, ...]:
    """Return the layers of ``blocks`` identical transformer blocks.

    Parameters
    ----------
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

    def linear(name: str, fan_in: int, fan_out: int) -> Linear:
        return Linear(
            name=f"blocks.{name}",
            in_features=fan_in,
            out_features=fan_out,
            rows=rows,
            bias=bias,
            repeat=blocks,
        )

    def product(name: str, k: int, n: int) -> MatMul:
        return MatMul(
            name=f"blocks.{name}", m=queries, k=k, n=n, batch=batch * heads, repeat=blocks
        )

    inputs = {"qkv": 3 * width} if fused_qkv else dict.fromkeys(("query", "key", "value"), width)
    gate = (linear("mlp_gate", width, hidden),) if gated else ()
    return (
        *(linear(name, width, size) for name, size in inputs.items()),
        product("scores", depth, keys),
        product("context", keys, depth),
        linear("projection", width, width),
        *gate,
        linear("mlp_up", width, hidden),
        linear("mlp_down", hidden, width),
    )
