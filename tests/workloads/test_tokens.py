"""Does token pruning score, keep and merge the tokens its equations say?"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparqsim.base import InputError
from sparqsim.workloads.tokens import (
    Selection,
    TokenSelector,
    attention_scores,
    keep_above,
    keep_best,
    patches_kept,
    tokens_per_block,
)


def selector(heads: int = 3, d: int = 8, seed: int = 0) -> TokenSelector:
    """A selector with non-zero biases too, so that a forgotten one shows."""
    rng = np.random.default_rng(seed)
    drawn = TokenSelector.random(heads, d, rng)
    names = [name for name in vars(drawn) if name.endswith("bias")]
    return replace(drawn, **{n: rng.normal(size=getattr(drawn, n).shape) for n in names})


def gelu(x: float) -> float:
    return x * (1 + math.erf(x / math.sqrt(2))) / 2


def dense(x: list[float], weights: np.ndarray, bias: np.ndarray) -> list[float]:
    return [sum(x[i] * weights[i, j] for i in range(len(x))) + bias[j] for j in range(len(bias))]


def score_by_loops(s: TokenSelector, tokens: np.ndarray) -> list[float]:
    """HeatViT's selector, token by token and head by head, with scalars."""
    d = s.head_dim
    local = [
        [
            [gelu(v) for v in dense(list(t[i * d : (i + 1) * d]), s.local[i], s.local_bias[i])]
            for t in tokens
        ]
        for i in range(s.heads)
    ]
    scores = []
    for k, t in enumerate(tokens):
        per_head = []
        for i in range(s.heads):
            average = [sum(row[j] for row in local[i]) / len(tokens) for j in range(d // 2)]
            hidden = [gelu(v) for v in dense(local[i][k] + average, s.keep1[i], s.keep1_bias[i])]
            hidden = [gelu(v) for v in dense(hidden, s.keep2[i], s.keep2_bias[i])]
            keep, drop = dense(hidden, s.keep3[i], s.keep3_bias[i])
            per_head.append(math.exp(keep) / (math.exp(keep) + math.exp(drop)))
        summary = [float(np.mean(t[i * d : (i + 1) * d])) for i in range(s.heads)]
        hidden = [gelu(v) for v in dense(summary, s.head1, s.head1_bias)]
        weights = [1 / (1 + math.exp(-v)) for v in dense(hidden, s.head2, s.head2_bias)]
        scores.append(sum(w * p for w, p in zip(weights, per_head, strict=True)) / sum(weights))
    return scores


@pytest.mark.parametrize(("heads", "d", "tokens"), [(3, 8, 5), (1, 4, 1), (2, 12, 9)])
def test_scores_equal_the_plain_twin(heads: int, d: int, tokens: int) -> None:
    """The array form equals the equations written out with scalars."""
    x = np.random.default_rng(1).normal(size=(tokens, heads * d))
    s = selector(heads, d)
    assert np.allclose(s.scores(x), score_by_loops(s, x), rtol=1e-12)
    assert s.head_scores(x).shape == (heads, tokens)
    assert s.head_weights(x).shape == (tokens, heads)


def test_scores_follow_the_tokens_when_they_are_reordered() -> None:
    """No token's score depends on where the others stand."""
    x = np.random.default_rng(2).normal(size=(20, 24))
    order = np.random.default_rng(3).permutation(20)
    assert np.allclose(selector().scores(x[order]), selector().scores(x)[order])


def test_published_structure_and_its_work() -> None:
    """DeiT-T: 3 heads of 64; local 64 -> 32, classifier 64 -> 32 -> 16 -> 2, heads 3 -> 3 -> 3."""
    s = TokenSelector.random(3, 64, np.random.default_rng(0))
    assert [w.shape[1:] for w in (s.local, s.keep1, s.keep2, s.keep3)] == [
        (64, 32),
        (64, 32),
        (32, 16),
        (16, 2),
    ]
    assert s.macs(197) == 197 * (3 * (64 * 32 + 64 * 32 + 32 * 16 + 16 * 2) + 9 + 9)
    again = TokenSelector.random(3, 64, np.random.default_rng(0))
    assert np.array_equal(again.keep1, s.keep1)


@settings(deadline=None)
@given(st.lists(st.sampled_from([0.0, 0.2, 0.5, 0.7, 1.0]), min_size=1, max_size=12), st.data())
def test_selection_laws(scores: list[float], data: st.DataObject) -> None:
    """Every token is kept or merged, the class token is kept, and the package is their mean."""
    s = np.array(scores)
    if data.draw(st.booleans()):
        selection = keep_above(s, 0.5)
        assert selection.kept.tolist() == [i for i, v in enumerate(scores) if i == 0 or v > 0.5]
    else:
        count = data.draw(st.integers(0, len(scores) - 1))
        selection = keep_best(s, count)
        best = sorted(range(1, len(scores)), key=lambda i: (-scores[i], i))[:count]
        assert selection.kept.tolist() == sorted([0, *best])
    tokens = np.random.default_rng(4).normal(size=(len(s), 3)).astype(np.float32)
    out = selection.apply(tokens)
    assert len(out) == selection.tokens and out.dtype == tokens.dtype
    assert np.array_equal(out[: len(selection.kept)], tokens[selection.kept])
    if len(selection.pruned):
        weight = s[selection.pruned] if s[selection.pruned].any() else None
        mean = np.average(tokens[selection.pruned].astype(float), axis=0, weights=weight)
        assert np.allclose(out[-1], mean, atol=1e-6)
    else:
        assert len(out) == len(tokens)


def test_each_input_keeps_its_own_number() -> None:
    """With a threshold the number of tokens is a matter of the image."""
    rng = np.random.default_rng(5)
    s = TokenSelector.random(3, 64, rng)
    counts = {keep_above(s.scores(rng.normal(size=(197, 192)))).tokens for _ in range(6)}
    assert len(counts) > 1


def test_fixed_ratios_give_the_reference_counts() -> None:
    """196 patches at .7, .49, .343 leave 197 / 138 / 97 / 68 tokens, one more each if packaged."""
    assert tokens_per_block() == (197,) * 3 + (138,) * 3 + (97,) * 3 + (68,) * 3
    packaged = tokens_per_block(package=True)
    assert packaged == (197,) * 3 + (139,) * 3 + (98,) * 3 + (69,) * 3
    scores = np.random.default_rng(6).random(197)
    assert keep_best(scores, patches_kept(196, 0.7)).tokens == packaged[3]
    assert tokens_per_block(ratios=(1.0, 1.0, 1.0), package=True) == (197,) * 12


def test_ratio_is_not_fooled_by_binary_fractions() -> None:
    """0.29 of 100 patches is 29, though 0.29 * 100 < 29 in floating point."""
    assert int(0.29 * 100) == 28
    assert patches_kept(100, 0.29) == 29


def test_attention_of_the_class_token_ranks() -> None:
    """The score of a token is what the class token pays it, mean over heads."""
    attention = np.full((2, 3, 3), 1 / 3)
    attention[0, 0], attention[1, 0] = [0.2, 0.3, 0.5], [0.4, 0.5, 0.1]
    assert np.allclose(attention_scores(attention), [0.3, 0.4, 0.3])
    assert keep_best(attention_scores(attention), 1).kept.tolist() == [0, 1]


x = np.zeros((4, 24))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: TokenSelector.random(0, 8, np.random.default_rng()), "heads .* at least 1"),
        (lambda: TokenSelector.random(3, 6, np.random.default_rng()), "multiple of 4, got 6"),
        (lambda: replace(selector(), keep2=np.zeros((3, 4, 3))), r"keep2 must be \(3, 4, 2\)"),
        (lambda: replace(selector(), head1=np.full((3, 3), np.nan)), "head1 must be finite"),
        (lambda: replace(selector(), local=np.zeros((3, 8))), "3 dimension"),
        (lambda: selector().scores(x[:, :23]), r"tokens must be \[tokens >= 1, 24\]"),
        (lambda: selector().scores(x[:0]), "tokens >= 1"),
        (lambda: selector().scores(x + np.inf), "tokens must be finite"),
        (lambda: keep_above(np.array([0.5, np.nan])), "scores must be finite"),
        (lambda: keep_above(np.array([0.5, 1.5])), r"within 0\.\.1, got 0.5 to 1.5"),
        (lambda: keep_above(np.zeros(0)), "at least the class token"),
        (lambda: keep_above(np.zeros(3), 2), "threshold must be between 0 and 1, got 2"),
        (lambda: keep_best(np.zeros(3), 3), "patches must be between 0 and 2, got 3"),
        (lambda: attention_scores(np.ones((2, 3, 4))), r"must be \[heads, tokens, tokens\]"),
        (lambda: attention_scores(np.ones((2, 3, 3))), "rows must sum to 1"),
        (lambda: patches_kept(196, 1.1), "keep ratio must be between 0 and 1"),
        (lambda: tokens_per_block(ratios=(0.5,)), "3 selectors need as many ratios, got 1"),
        (lambda: tokens_per_block(ratios=(0.3, 0.5, 0.7)), "falling ratios"),
        (lambda: tokens_per_block(before=(7, 4, 10)), "rising order"),
        (lambda: tokens_per_block(before=(4, 7, 13)), "between 1 and 12, got 13"),
        (lambda: keep_best(np.zeros(4), 2).apply(x[:3]), "tokens must have 4 entries, got 3"),
    ],
)
def test_bad_input_is_named(call: object, message: str) -> None:
    """Shapes, ranges and order that do not fit get an error message."""
    with pytest.raises(InputError, match=message):
        call()


@pytest.mark.parametrize(
    ("kept", "pruned", "package", "message"),
    [
        ([1, 2], [0], [1.0], "begin with 0"),
        ([0, 2], [2], [1.0], "every token once"),
        ([0, 3, 2], [1], [1.0], "kept must be ascending"),
        ([0], [1, 2], [1.0], "must have 2 entries, got 1"),
        ([0], [1, 2], [0.7, 0.7], "sum to 1"),
        ([0], [1, 2], [1.5, -0.5], "sum to 1"),
    ],
)
def test_corrupt_selection_is_refused(
    kept: list, pruned: list, package: list, message: str
) -> None:
    """A selection checks itself."""
    with pytest.raises(InputError, match=message):
        Selection(np.array(kept), np.array(pruned), np.array(package))
