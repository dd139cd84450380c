"""Vision transformers on 224 x 224 images: ViT-B/16 and DeiT-tiny, -small, -base.

An image is cut into 14 x 14 patches of 16 x 16, and a class token is added: 197 tokens, twelve
blocks, heads 64 wide. DeiT (without distillation) is the same network at three widths; its base is
ViT-B/16. Option ``tokens`` is how many are computed in every block, for token pruning. Sources:
Dosovitskiy et al., ICLR 2021; Touvron et al., ICML 2021.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from sparqsim.base import InputError
from sparqsim.workloads.layers import Conv2d, Layer, Linear, Model
from sparqsim.workloads.models.parts import conv, transformer_blocks, transformer_other
from sparqsim.workloads.tokens import SELECTOR_BLOCKS, TokenSelector, tokens_per_block

BLOCKS, PATCH, TOKENS, HEAD_WIDTH = 12, 16, 197, 64  # published
DEIT = "Touvron et al., ICML 2021"
WIDTHS = {"deit_tiny": 192, "deit_small": 384, "deit_base": 768}  # published
SELECTOR = "selector"  # what the names of a selector's layers begin with


def _model(name: str, source: str, width: int, batch: int, tokens: int) -> Model:
    return _of_blocks(name, source, width, batch, _blocks("blocks", BLOCKS, width, batch, tokens))


def _blocks(name: str, blocks: int, width: int, batch: int, tokens: int) -> tuple[Layer, ...]:
    return transformer_blocks(
        name=name,
        blocks=blocks,
        width=width,
        heads=width // HEAD_WIDTH,
        hidden=4 * width,
        queries=tokens,
        keys=tokens,
        batch=batch,
        fused_qkv=True,
    )


def _of_blocks(name: str, source: str, width: int, batch: int, inner: tuple[Layer, ...]) -> Model:
    return Model(
        name=name,
        source=source,
        layers=(
            conv("patch_embedding", 3, width, 224, PATCH, PATCH, 0, bias=True, batch=batch),
            *inner,
            Linear(name="head", in_features=width, out_features=1000, rows=batch),
        ),
        other=transformer_other(each for each in inner if not each.name.startswith(SELECTOR)),
        # class token, positions, two layer norms a block and a last one
        other_parameters=width + TOKENS * width + (2 * BLOCKS + 1) * 2 * width,
        other_parameters_are="class token, position embeddings, layer norms",
    )


def vit_base(batch: int = 1, tokens: int = TOKENS) -> Model:
    """Return ViT-B/16."""
    return _model("vit_base", "Dosovitskiy et al., ICLR 2021", 768, batch, tokens)


def deit_tiny(batch: int = 1, tokens: int = TOKENS) -> Model:
    """Return DeiT-tiny."""
    return _model("deit_tiny", DEIT, 192, batch, tokens)


def deit_small(batch: int = 1, tokens: int = TOKENS) -> Model:
    """Return DeiT-small."""
    return _model("deit_small", DEIT, 384, batch, tokens)


def deit_base(batch: int = 1, tokens: int = TOKENS) -> Model:
    """Return DeiT-base."""
    return _model("deit_base", DEIT, 768, batch, tokens)


def pruned(model: Model, ratios: Sequence[float]) -> Model:
    """Return a DeiT on one image that keeps these shares of its patches behind its selectors.

    A selector stands before blocks 4, 7 and 10, where it drops any; its products are layers of the
    network, those of its heads as groups of a convolution. A token that packages what was dropped
    goes on with the kept ones.

    Raises
    ------
    InputError
        If the model is no DeiT of 197 tokens and one image, or the ratios are not three that fall.
    """
    width = WIDTHS.get(model.name)
    if width is None or model != _model(model.name, DEIT, width, 1, TOKENS):
        raise InputError(
            f"shares of tokens are kept of {', '.join(WIDTHS)} on one image, got {model.name!r}"
        )
    counts = tokens_per_block(TOKENS - 1, BLOCKS, SELECTOR_BLOCKS, ratios, package=True)
    inner: list[Layer] = []
    seen, first = TOKENS, 1
    for tokens, group in itertools.groupby(counts):
        blocks = len(list(group))
        if tokens < seen:
            inner += _selector(f"{SELECTOR}{first}", width // HEAD_WIDTH, seen)
        inner += _blocks(f"blocks{first}-{first + blocks - 1}", blocks, width, 1, tokens)
        seen, first = tokens, first + blocks
    return _of_blocks(model.name, model.source, width, 1, tuple(inner))


def _selector(name: str, heads: int, tokens: int) -> list[Layer]:
    """A selector's products on so many tokens."""
    parts = ("local", "keep1", "keep2", "keep3", "head1", "head2")
    shapes = TokenSelector.random(heads, HEAD_WIDTH, np.random.default_rng(0)).gemms(tokens)
    made: list[Layer] = []
    for part, (m, n, k, count) in zip(parts, shapes, strict=True):
        if count == 1:
            made.append(Linear(name=f"{name}.{part}", in_features=k, out_features=n, rows=m))
            continue
        made.append(
            Conv2d(
                name=f"{name}.{part}", in_channels=count * k, out_channels=count * n,
                input=(m, 1), kernel=(1, 1), groups=count,
            )
        )  # fmt: skip
    return made
