"""A vision transformer that computes, with token selectors between its blocks.

The forward pass of DeiT for one image, block by block: before a block with a selector every token
is scored, the ones above the threshold stay, the others become one package token
(:mod:`sparqsim.workloads.tokens`), and all later blocks see fewer tokens. How many stay depends on
the image, so what a machine has to do is known only by doing it. Every matrix product goes through
a ``multiply`` that the caller gives: an accelerator's arithmetic, or plain numpy.

No trained DeiT ships here. Weights are drawn at the variance that keeps signals alive, images are
smooth fields with noise, and a selector's threshold is calibrated on other images so that it keeps
a wanted share *on average* (:func:`calibrated`), which is what its training loss does. The share of
a single image is then what it is. Layer norm, softmax and GELU are exact; biases are zero. Sources:
Touvron et al., ICML 2021; Dong et al., HeatViT, HPCA 2023.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparqsim.base import InputError
from sparqsim.workloads.encodings.checks import finite_numbers, whole_number
from sparqsim.workloads.models.vit import BLOCKS, HEAD_WIDTH, PATCH
from sparqsim.workloads.tokens import KEEP_THRESHOLD, TokenSelector, keep_above

Floats = NDArray[np.floating[Any]]
# multiply(name, left [heads, m, k], right [heads, k, n]) -> [heads, m, n]; a linear layer is one
# head; the right operand of a linear layer is a weight
Multiply = Callable[[str, Floats, Floats], Floats]

PATCHES = 196  # published: 14 x 14
CLASSES = 1000
FIELD = 4  # assumed: an image's smooth part varies over a 4 x 4 grid


@dataclass(frozen=True, eq=False)
class VisionTransformer:
    """Weights of a DeiT; every matrix is [inputs, outputs], float32.

    Parameters
    ----------
    patch : array [3 * 16 * 16, width]
    position : array [197, width]
    blocks : sequence of four arrays each
        [width, 3 width], [width, width], [width, 4 width], [4 width, width].
    head : array [width, 1000]
    """

    patch: Floats
    position: Floats
    blocks: Sequence[tuple[Floats, Floats, Floats, Floats]]
    head: Floats

    @classmethod
    def drawn(cls, width: int, rng: np.random.Generator, blocks: int = BLOCKS) -> VisionTransformer:
        """Draw weights of variance 1 / inputs.

        Parameters
        ----------
        width : int
            A multiple of 64, the width of a head.
        """
        if whole_number("width", width, HEAD_WIDTH) % HEAD_WIDTH:
            raise InputError(f"width must be a multiple of {HEAD_WIDTH}, got {width}")
        whole_number("blocks", blocks, 1)

        def matrix(inputs: int, outputs: int) -> Floats:
            drawn = rng.standard_normal((inputs, outputs), dtype=np.float32)
            return drawn * np.float32(inputs**-0.5)

        return cls(
            matrix(3 * PATCH**2, width),
            rng.standard_normal((PATCHES + 1, width), dtype=np.float32),
            tuple(
                (
                    matrix(width, 3 * width),
                    matrix(width, width),
                    matrix(width, 4 * width),
                    matrix(4 * width, width),
                )
                for _ in range(blocks)
            ),
            matrix(width, CLASSES),
        )

    @property
    def width(self) -> int:
        """Features of a token."""
        return self.patch.shape[1]

    @property
    def heads(self) -> int:
        """Attention heads."""
        return self.width // HEAD_WIDTH


@dataclass(frozen=True, eq=False)
class Forward:
    """What happened to one image.

    Attributes
    ----------
    tokens : list of int
        Tokens each block worked on.
    kept : list of int64 array
        Places (0 to 196) of the image's own tokens left behind each selector; a package token has
        none.
    scores : list of array
        Of each selector, one a token it saw.
    features : array [tokens, width]
        The tokens where the pass ended.
    logits : array [1000]
    """

    tokens: list[int] = field(default_factory=list)
    kept: list[NDArray[np.int64]] = field(default_factory=list)
    scores: list[Floats] = field(default_factory=list)
    features: Floats = field(default_factory=lambda: np.zeros((0, 0)))
    logits: Floats = field(default_factory=lambda: np.zeros(0))


def synthetic_image(rng: np.random.Generator) -> Floats:
    """Patches [196, 768] of a synthetic image: a smooth field, a mood, noise.

    Images differ in contrast and mood as photographs do; the amounts are assumed.
    """
    coarse = rng.standard_normal((FIELD, FIELD, 3 * PATCH**2))
    at = np.linspace(0, FIELD - 1, 14)
    low = np.minimum(at.astype(int), FIELD - 2)
    share = (at - low)[:, None]
    rows = coarse[low] * (1 - share[..., None]) + coarse[low + 1] * share[..., None]
    smooth = rows[:, low] * (1 - share) + rows[:, low + 1] * share
    contrast = rng.uniform(0.5, 1.5)
    mood = rng.standard_normal(3 * PATCH**2) * 0.3
    noise = rng.standard_normal((14, 14, 3 * PATCH**2)) * 0.5
    return (contrast * smooth + mood + noise).reshape(PATCHES, -1).astype(np.float32)


def plain_multiply(name: str, left: Floats, right: Floats) -> Floats:
    """The product in floating point."""
    return left @ right


def forward(
    net: VisionTransformer,
    patches: Floats,
    selectors: dict[int, TokenSelector] | None = None,
    *,
    threshold: float = KEEP_THRESHOLD,
    multiply: Multiply = plain_multiply,
    scored: Callable[[int, int, int], None] | None = None,
) -> Forward:
    """Classify one image, dropping tokens on the way.

    Parameters
    ----------
    patches : array [196, 768]
    selectors
        By the block (from 1) they stand before.
    multiply
        Does every product of the network; selectors score in floating point.
    scored
        Told of every selection: the block, tokens seen, tokens left with the package token.

    Raises
    ------
    InputError
        If the patches do not fit or a selector stands before no block.
    """
    selectors = selectors or {}
    for block in selectors:
        whole_number("a selector's block", block, 1, len(net.blocks))
    done = Forward()
    x = _embedded(net, patches, multiply)
    places = np.arange(PATCHES + 1)
    for number in range(1, len(net.blocks) + 1):
        if number in selectors:
            scores = selectors[number].scores(x)
            choice = keep_above(scores, threshold)
            done.scores.append(scores)
            if scored is not None:
                scored(number, len(x), choice.tokens)
            x = choice.apply(x)
            places = places[choice.kept]
            done.kept.append(places[places >= 0])
            if len(choice.pruned):
                places = np.append(places, -1)
        done.tokens.append(len(x))
        x = _through_block(net, number, x, multiply)
    logits = multiply("head", _norm(x[:1])[None], net.head[None])[0, 0]
    return replace(done, features=x, logits=logits)


def _embedded(net: VisionTransformer, patches: Floats, multiply: Multiply) -> Floats:
    """Tokens [197, width] of an image's patches."""
    finite_numbers("patches", patches, 2)
    if patches.shape != (PATCHES, net.patch.shape[0]):
        raise InputError(f"patches must be [196, {net.patch.shape[0]}], got {patches.shape}")
    x = np.zeros((PATCHES + 1, net.width), np.float32)
    x[1:] = multiply("patch_embedding", patches[None], net.patch[None])[0]
    return x + net.position


def _through_block(net: VisionTransformer, number: int, x: Floats, multiply: Multiply) -> Floats:
    """Tokens behind a block (from 1): attention and MLP."""
    qkv, out, rise, fall = net.blocks[number - 1]
    name = f"block{number}."
    q, k, v = _heads(multiply(name + "qkv", _norm(x)[None], qkv[None])[0], 3 * net.heads)
    scale = np.float32(HEAD_WIDTH**-0.5)
    attention = _softmax(multiply(name + "scores", q, k.swapaxes(1, 2)) * scale)
    mixed = multiply(name + "context", attention, v).swapaxes(0, 1).reshape(len(x), -1)
    x = x + multiply(name + "projection", mixed[None], out[None])[0]
    hidden = _gelu(multiply(name + "fc1", _norm(x)[None], rise[None])[0])
    return x + multiply(name + "fc2", hidden[None], fall[None])[0]


def calibrated(
    net: VisionTransformer,
    images: Sequence[Floats],
    ratios: dict[int, float],
    rng: np.random.Generator,
) -> dict[int, TokenSelector]:
    """Selectors drawn at random, each one's keep bias set so that it keeps a share on average.

    Images go through the network once: behind a selector with what it keeps.

    Parameters
    ----------
    images
        What the shares are measured on: not those the selectors are used on.
    ratios
        Block to the share of the *original* patches that goes on behind it, falling.

    Raises
    ------
    InputError
        If the patches do not fit or a block is not one of the network's.
    """
    for block in ratios:
        whole_number("a selector's block", block, 1, len(net.blocks))
    selectors: dict[int, TokenSelector] = {}
    passing = [_embedded(net, patches, plain_multiply) for patches in images]
    reached = 1
    for block in sorted(ratios):
        raw = TokenSelector.random(net.heads, HEAD_WIDTH, rng)
        seen: list[tuple[Floats, Floats]] = []
        for number in range(reached, block):
            passing = [_through_block(net, number, x, plain_multiply) for x in passing]
        for before in passing:
            share = np.clip(raw.head_scores(before), 1e-12, 1 - 1e-12)
            seen.append((np.log(share / (1 - share)), raw.head_weights(before).T))
        wanted = ratios[block] * PATCHES
        low, high = -60.0, 60.0
        for _ in range(60):
            middle = (low + high) / 2
            kept = np.mean([_kept(logits, weights, middle) for logits, weights in seen])
            low, high = (middle, high) if kept < wanted else (low, middle)
        bias = raw.keep3_bias.copy()
        bias[:, 0] += high
        selectors[block] = fitted = replace(raw, keep3_bias=bias)
        passing = [keep_above(fitted.scores(x), KEEP_THRESHOLD).apply(x) for x in passing]
        reached = block
    return selectors


def _kept(logits: Floats, weights: Floats, shift: float) -> int:
    """Patches kept, class token left out, if every head's logit were higher by ``shift``."""
    probability = 1 / (1 + np.exp(-np.clip(logits + shift, -500, 500)))
    score = (weights * probability).sum(axis=0) / weights.sum(axis=0)
    return int((score[1:] > KEEP_THRESHOLD).sum())


def _heads(x: Floats, parts: int) -> tuple[Floats, Floats, Floats]:
    split = x.reshape(len(x), parts, HEAD_WIDTH).swapaxes(0, 1)
    q, k, v = np.split(split, 3)
    return q, k, v


def _norm(x: Floats) -> Floats:
    middle = x.mean(axis=-1, keepdims=True)
    return (x - middle) / np.sqrt(x.var(axis=-1, keepdims=True) + np.float32(1e-6))


def _softmax(x: Floats) -> Floats:
    raised = np.exp(x - x.max(axis=-1, keepdims=True))
    return raised / raised.sum(axis=-1, keepdims=True)


def _gelu(x: Floats) -> Floats:
    """GELU in its tanh form, which accelerators approximate piece by piece."""
    inner = np.float32(math.sqrt(2 / math.pi)) * (x + np.float32(0.044715) * (x * x * x))
    return np.float32(0.5) * x * (1 + np.tanh(inner))
