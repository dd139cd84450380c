"""What the engine has to do, in order: matrix products, and the selectors' decisions between."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from sparqsim.base import InputError
from sparqsim.workloads.models.vit import BLOCKS, HEAD_WIDTH, PATCH
from sparqsim.workloads.tokens import TokenSelector
from sparqsim.workloads.vision_transformer import CLASSES, PATCHES

Kind = Literal["weights", "activations", "scores", "selector"]


class Product(NamedTuple):
    """A matrix product on the engine: ``heads`` of [m, k] by [k, n].

    ``kind`` says what the right operand is, and what follows: ``weights`` come from DRAM;
    ``activations`` are on the chip, as are those of ``scores``, behind which stands a softmax; a
    ``selector`` has weights too.
    """

    name: str
    m: int
    n: int
    k: int
    heads: int = 1
    kind: Kind = "weights"

    @property
    def weights(self) -> bool:
        """Whether the right operand comes from DRAM."""
        return self.kind in ("weights", "selector")

    @property
    def macs(self) -> int:
        """Multiply-accumulates."""
        return self.m * self.n * self.k * self.heads

    @property
    def results(self) -> int:
        """Sums of all heads."""
        return self.m * self.n * self.heads


class Selection(NamedTuple):
    """A selector's decision: tokens seen and left, of so many features."""

    seen: int
    left: int
    features: int


Step = Product | Selection


def selector_steps(block: int, heads: int, seen: int, left: int) -> list[Step]:
    """A selector's products on the engine, then its decision."""
    shapes = TokenSelector.random(heads, HEAD_WIDTH, np.random.default_rng(0)).gemms(seen)
    steps: list[Step] = [
        Product(f"selector{block}.{number}", m, n, k, many, "selector")
        for number, (m, n, k, many) in enumerate(shapes)
    ]
    return [*steps, Selection(seen, left, heads * HEAD_WIDTH)]


def network_steps(width: int, tokens: Sequence[int], select: bool) -> list[Step]:
    """The products of a DeiT whose blocks see these numbers of tokens.

    Raises
    ------
    InputError
        If there is no block, a number is below 1 or rises, or the width is no multiple of 64.
    """
    heads, odd = divmod(width, HEAD_WIDTH)
    if odd or not heads:
        raise InputError(f"width must be a multiple of {HEAD_WIDTH}, got {width}")
    if not tokens or min(tokens) < 1 or (np.diff(tokens) > 0).any():
        raise InputError(f"tokens must be numbers of at least 1 that never rise, got {[*tokens]}")
    steps: list[Step] = [Product("patch_embedding", PATCHES, width, 3 * PATCH**2)]
    before = tokens[0]
    for block, t in enumerate(tokens, 1):
        if select and t < before:
            steps += selector_steps(block, heads, before, t)
        before = t
        name = f"block{block}."
        steps += [
            Product(name + "qkv", t, 3 * width, width),
            Product(name + "scores", t, t, HEAD_WIDTH, heads, "scores"),
            Product(name + "context", t, HEAD_WIDTH, t, heads, "activations"),
            Product(name + "projection", t, width, width),
            Product(name + "fc1", t, 4 * width, width),
            Product(name + "fc2", t, width, 4 * width),
        ]
    return [*steps, Product("head", 1, CLASSES, width)]


EVERY_BLOCK = (PATCHES + 1,) * BLOCKS
