"""Vision transformers on 224 x 224 images: ViT-B/16 and DeiT-tiny, -small, -base.

An image is cut into 14 x 14 patches of 16 x 16, and a class token is added: 197 tokens, twelve
blocks, heads 64 wide. DeiT (without distillation) is the same network at three widths; its base is
ViT-B/16. Option ``tokens`` is how many are computed in every block, for token pruning. Sources:
Dosovitskiy et al., ICLR 2021; Touvron et al., ICML 2021.
"""

from __future__ import annotations

from sparqsim.workloads.layers import Linear, Model
from sparqsim.workloads.models.parts import conv, transformer_blocks, transformer_other

BLOCKS, PATCH, TOKENS, HEAD_WIDTH = 12, 16, 197, 64  # published
DEIT = "Touvron et al., ICML 2021"


def _model(name: str, source: str, width: int, batch: int, tokens: int) -> Model:
    inner = transformer_blocks(
        blocks=BLOCKS,
        width=width,
        heads=width // HEAD_WIDTH,
        hidden=4 * width,
        queries=tokens,
        keys=tokens,
        batch=batch,
        fused_qkv=True,
    )
    return Model(
        name=name,
        source=source,
        layers=(
            conv("patch_embedding", 3, width, 224, PATCH, PATCH, 0, bias=True, batch=batch),
            *inner,
            Linear(name="head", in_features=width, out_features=1000, rows=batch),
        ),
        other=transformer_other(inner),
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
