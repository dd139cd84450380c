"""Token pruning: a vision transformer drops image patches it does not need, block by block.

HeatViT puts a *selector* before some blocks (4, 7 and 10 of DeiT's 12). It scores each token in
every head by a small network, weighs the heads by another, and keeps the tokens whose score exceeds
a threshold, so each input keeps another number. The class token always stays. The pruned tokens are
not lost: their mean, weighted by score, goes on as one *package token* behind the kept ones. All
later blocks work on fewer tokens: linear layers gain in proportion, attention with the square.

The selector, for h heads of d features (it runs on the accelerator's own GEMM engine):

    local_i = GELU(x_i L_i)                                      d -> d/2 in head i
    score_i = softmax(MLP([local_i, mean of local_i over tokens]))   d -> d/2 -> d/4 -> keep, drop
    weight  = sigmoid(MLP(means of x_1 ... x_h over features))       h -> h -> h, for each token
    score   = sum_i weight_i score_i / sum_i weight_i

Instead of a selector's threshold a fixed share may be kept (:func:`keep_best`), by these scores or
by the attention the class token pays (:func:`attention_scores`).

Assumed, for the sources do not say: separate weights for each head, GELU between the layers of both
MLPs, biases zero at random initialisation, and that a package token is judged by the next selector
like any other. Left out: training. Sources: Dong et al., HeatViT, HPCA 2023 (equations); Rao et
al., DynamicViT, 2021 (keep ratios); Liang et al., EViT, 2022 (attention as score).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparqsim.base import InputError
from sparqsim.workloads.encodings.checks import array_of, finite_numbers, whole_number

Floats = NDArray[np.float64]

SELECTOR_BLOCKS = (4, 7, 10)  # published, HeatViT: the selector runs before these (from 1)
KEEP_RATIOS = (0.7, 0.49, 0.343)  # assumed: DynamicViT's .7, squared and cubed; HeatViT gives none
KEEP_THRESHOLD = 0.5  # published, HeatViT: at inference


@dataclass(frozen=True, eq=False)
class TokenSelector:
    """The weights of one selector; all float64, head axis first.

    Parameters
    ----------
    local : array [heads, d, d/2]
        Local features of each head.
    keep1, keep2, keep3 : arrays [heads, d, d/2], [heads, d/2, d/4], [heads, d/4, 2]
        The keep/drop classifier of each head; output 0 is keep.
    keep1_bias, keep2_bias, keep3_bias : arrays [heads, d/2], [heads, d/4], [heads, 2]
    head1, head2 : arrays [heads, heads]
        The network that weighs the heads.
    head1_bias, head2_bias : arrays [heads]
    local_bias : array [heads, d/2]

    Raises
    ------
    InputError
        If shapes do not fit, d is no multiple of 4, or a weight is not finite.
    """

    local: Floats
    local_bias: Floats
    keep1: Floats
    keep1_bias: Floats
    keep2: Floats
    keep2_bias: Floats
    keep3: Floats
    keep3_bias: Floats
    head1: Floats
    head1_bias: Floats
    head2: Floats
    head2_bias: Floats

    def __post_init__(self) -> None:
        array_of("TokenSelector.local", self.local, np.float64, 3)
        for name, shape in _shapes(*self.local.shape[:2]).items():
            array = getattr(self, name)
            array_of(f"TokenSelector.{name}", finite_numbers(name, array), np.float64)
            if array.shape != shape:
                raise InputError(f"TokenSelector.{name} must be {shape}, got {array.shape}")

    @classmethod
    def random(cls, heads: int, head_dim: int, rng: np.random.Generator) -> TokenSelector:
        """Draw weights of variance 1 / inputs and zero biases: a selector that was never trained.

        Parameters
        ----------
        heads, head_dim : int
            DeiT-T has 3 heads of 64 features; ``head_dim`` is a multiple of 4.
        rng : numpy.random.Generator
        """
        drawn = {
            name: np.zeros(shape)
            if name.endswith("bias")
            else rng.normal(0, shape[-2] ** -0.5, shape)
            for name, shape in _shapes(heads, head_dim).items()
        }
        return cls(**drawn)

    @property
    def heads(self) -> int:
        """Number of attention heads."""
        return self.local.shape[0]

    @property
    def head_dim(self) -> int:
        """Features of a head."""
        return self.local.shape[1]

    def head_scores(self, tokens: NDArray[Any]) -> Floats:
        """Return each head's probability to keep each token [heads, tokens]."""
        x = self._by_head(tokens)
        local = _gelu(x @ self.local + self.local_bias[:, None])
        mean = np.broadcast_to(local.mean(axis=1, keepdims=True), local.shape)
        hidden = np.concatenate([local, mean], axis=2)
        hidden = _gelu(hidden @ self.keep1 + self.keep1_bias[:, None])
        hidden = _gelu(hidden @ self.keep2 + self.keep2_bias[:, None])
        keep, drop = np.moveaxis(hidden @ self.keep3 + self.keep3_bias[:, None], -1, 0)
        return _sigmoid(keep - drop)  # a softmax over two

    def head_weights(self, tokens: NDArray[Any]) -> Floats:
        """Return how much each head's word counts for each token [tokens, heads]."""
        summary = self._by_head(tokens).mean(axis=2).T
        hidden = _gelu(summary @ self.head1 + self.head1_bias)
        return _sigmoid(hidden @ self.head2 + self.head2_bias)

    def scores(self, tokens: NDArray[Any]) -> Floats:
        """Return the probability to keep each token [tokens].

        Parameters
        ----------
        tokens : array [tokens, heads * head_dim]
            The block's input for one image, the class token first.
        """
        weights = self.head_weights(tokens)
        return (weights * self.head_scores(tokens).T).sum(axis=1) / weights.sum(axis=1)

    def gemms(self, tokens: int) -> tuple[tuple[int, int, int, int], ...]:
        """Return the selector's matrix multiplies as (M, N, K, how many), in order."""
        whole_number("tokens", tokens, 1)
        h, d = self.heads, self.head_dim
        return (
            (tokens, d // 2, d, h),
            (tokens, d // 2, d, h),
            (tokens, d // 4, d // 2, h),
            (tokens, 2, d // 4, h),
            (tokens, h, h, 1),
            (tokens, h, h, 1),
        )

    def macs(self, tokens: int) -> int:
        """Return the multiply-accumulates of scoring this many tokens."""
        return sum(math.prod(gemm) for gemm in self.gemms(tokens))

    def _by_head(self, tokens: NDArray[Any]) -> Floats:
        finite_numbers("tokens", tokens, 2)
        if not len(tokens) or tokens.shape[1] != self.heads * self.head_dim:
            raise InputError(
                f"tokens must be [tokens >= 1, {self.heads * self.head_dim}], got {tokens.shape}"
            )
        x = tokens.astype(np.float64).reshape(len(tokens), self.heads, self.head_dim)
        return x.swapaxes(0, 1)


@dataclass(frozen=True, eq=False)
class Selection:
    """Which tokens of one image go on.

    Parameters
    ----------
    kept, pruned : int64 arrays
        Token numbers, ascending; together all tokens once. Token 0, the class token, is kept.
    package : float64 array [pruned]
        Share of each pruned token in the package token; sums to 1, or is empty.
    """

    kept: NDArray[np.int64]
    pruned: NDArray[np.int64]
    package: Floats

    def __post_init__(self) -> None:
        array_of("Selection.kept", self.kept, np.int64, 1)
        array_of("Selection.pruned", self.pruned, np.int64, 1)
        finite_numbers("Selection.package", array_of("Selection.package", self.package, float, 1))
        array_of("Selection.package", self.package, length=len(self.pruned))
        together = np.sort(np.concatenate([self.kept, self.pruned]))
        if not len(self.kept) or self.kept[0] != 0:
            raise InputError("Selection.kept must begin with 0: the class token always stays")
        if (together != np.arange(len(together))).any():
            raise InputError("Selection.kept and .pruned must hold every token once")
        for name, numbers in (("kept", self.kept), ("pruned", self.pruned)):
            if (np.diff(numbers) < 0).any():
                raise InputError(f"Selection.{name} must be ascending")
        if len(self.package) and not (
            self.package.min() >= 0 and math.isclose(self.package.sum(), 1, rel_tol=1e-9)
        ):
            raise InputError("Selection.package must be shares that sum to 1")

    @property
    def tokens(self) -> int:
        """Tokens that go on: the kept ones and, if any was pruned, the package token."""
        return len(self.kept) + bool(len(self.pruned))

    def apply(self, tokens: NDArray[Any]) -> NDArray[Any]:
        """Return the kept tokens in order, then the package token [tokens, features]."""
        finite_numbers("tokens", tokens, 2)
        array_of("tokens", tokens, length=len(self.kept) + len(self.pruned))
        if not len(self.pruned):
            return tokens[self.kept]
        package = self.package @ tokens[self.pruned]
        return np.concatenate([tokens[self.kept], package[None].astype(tokens.dtype)])


def keep_above(scores: NDArray[Any], threshold: float = KEEP_THRESHOLD) -> Selection:
    """Keep the class token and every token whose score exceeds the threshold.

    Raises
    ------
    InputError
        If scores are not finite and within 0..1, or the threshold is not.
    """
    _check_scores(scores)
    if not 0 <= threshold <= 1:
        raise InputError(f"threshold must be between 0 and 1, got {threshold}")
    keep = scores > threshold
    keep[0] = True
    return _selection(scores, keep)


def keep_best(scores: NDArray[Any], patches: int) -> Selection:
    """Keep the class token and the ``patches`` best others; of equal scores the earlier token.

    Parameters
    ----------
    scores : array [tokens]
        From a selector or from attention, within 0..1, the class token first.
    patches : int
        Tokens kept beside the class token; see :func:`patches_kept`.
    """
    _check_scores(scores)
    whole_number("patches", patches, 0, len(scores) - 1)
    keep = np.zeros(len(scores), bool)
    keep[0] = True
    keep[1 + np.argsort(-scores[1:], kind="stable")[:patches]] = True
    return _selection(scores, keep)


def attention_scores(attention: NDArray[Any]) -> Floats:
    """Return the attention that the class token pays to each token, mean over heads [tokens].

    Parameters
    ----------
    attention : array [heads, tokens, tokens]
        Rows sum to 1 (after the softmax); row 0 is the class token's.
    """
    finite_numbers("attention", attention, 3)
    heads, rows, columns = attention.shape
    if not heads or not rows or rows != columns:
        raise InputError(f"attention must be [heads, tokens, tokens], got {attention.shape}")
    if attention.min() < 0 or not np.allclose(attention.sum(axis=2), 1, rtol=0, atol=1e-2):
        raise InputError("attention must be not negative, and its rows must sum to 1 (softmax)")
    return np.minimum(attention[:, 0].mean(axis=0, dtype=np.float64), 1)


def patches_kept(patches: int, ratio: float) -> int:
    """Return floor(ratio * patches), safe from binary fractions (0.29 of 100 is 29)."""
    whole_number("patches", patches, 0)
    if not 0 <= ratio <= 1:
        raise InputError(f"a keep ratio must be between 0 and 1, got {ratio}")
    return math.floor(round(ratio * patches, 9))


def tokens_per_block(
    patches: int = 196,
    blocks: int = 12,
    before: Sequence[int] = SELECTOR_BLOCKS,
    ratios: Sequence[float] = KEEP_RATIOS,
    package: bool = False,
) -> tuple[int, ...]:
    """Return the tokens that each block works on under fixed keep ratios.

    Parameters
    ----------
    patches, blocks : int
        Image patches (a class token is added) and transformer blocks.
    before, ratios : sequences
        Block numbers (from 1, rising) with a selector before them, and the share of the *original*
        patches kept from there on (falling).
    package : bool
        Whether to count one package token behind the first selector.

    Examples
    --------
    >>> tokens_per_block()
    (197, 197, 197, 138, 138, 138, 97, 97, 97, 68, 68, 68)
    """
    whole_number("blocks", blocks, 1)
    if len(before) != len(ratios):
        raise InputError(f"{len(before)} selectors need as many ratios, got {len(ratios)}")
    places = [whole_number("a selector's block", block, 1, blocks) for block in before]
    if sorted(set(places)) != places or sorted(ratios, reverse=True) != list(ratios):
        raise InputError(
            f"selectors must stand in rising order with falling ratios, got {list(before)} and "
            f"{list(ratios)}"
        )
    counts = [1 + patches_kept(patches, 1.0)] * blocks
    for block, ratio in zip(places, ratios, strict=True):
        kept = patches_kept(patches, ratio)
        merged = int(package and kept < patches)
        counts[block - 1 :] = [1 + kept + merged] * (blocks - block + 1)
    return tuple(counts)


def _shapes(heads: int, d: int) -> dict[str, tuple[int, ...]]:
    whole_number("heads of a token selector", heads, 1)
    if whole_number("features of a head", d, 4) % 4:
        raise InputError(f"features of a head must be a multiple of 4, got {d}")
    shapes: dict[str, tuple[int, ...]] = {
        "local": (heads, d, d // 2),
        "keep1": (heads, d, d // 2),
        "keep2": (heads, d // 2, d // 4),
        "keep3": (heads, d // 4, 2),
        "head1": (heads, heads),
        "head2": (heads, heads),
    }
    biases = {f"{name}_bias": (*shape[:-2], shape[-1]) for name, shape in shapes.items()}
    assert shapes.keys() | biases.keys() == {field.name for field in fields(TokenSelector)}
    return shapes | biases


def _check_scores(scores: NDArray[Any]) -> None:
    finite_numbers("scores", scores, 1)
    if not len(scores):
        raise InputError("scores must hold at least the class token's")
    if scores.min() < 0 or scores.max() > 1:
        raise InputError(
            f"scores must be within 0..1, got {scores.min()} to {scores.max()}; use probabilities"
        )


def _selection(scores: NDArray[Any], keep: NDArray[np.bool_]) -> Selection:
    pruned = np.flatnonzero(~keep)
    share = scores[pruned].astype(np.float64)
    if not share.any():  # all score zero: equally little worth, so a plain mean
        share = np.ones(len(pruned))
    if len(share):
        share /= share.sum()
    return Selection(np.flatnonzero(keep), pruned, share)


def _gelu(x: Floats) -> Floats:
    """Return x times the normal distribution function: the exact GELU."""
    return x * 0.5 * (1 + _erf(x / math.sqrt(2)))


_erf = np.vectorize(math.erf, otypes=[np.float64])


def _sigmoid(x: Floats) -> Floats:
    return 1 / (1 + np.exp(-np.clip(x, -700, 700)))  # beyond, exp overflows
