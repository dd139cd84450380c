"""Does pruning keep exactly what the pattern and the scores say, and how many it says?"""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from sparqsim.base import InputError
from sparqsim.workloads.encodings.nm import NMSparse
from sparqsim.workloads.prune import (
    CHANNEL,
    NM,
    ROW,
    AnyActivationRule,
    AnyPattern,
    Blocks,
    Composed,
    Pattern,
    RelativeThreshold,
    ReLU,
    Slices,
    Threshold,
    TopK,
    Unstructured,
    Vectors,
    density_of,
    magnitude,
    mask,
    masks,
    prune,
    saliency,
    without_dead_slices,
)

# Few distinct values, so that ties are common.
scores_of = arrays(
    np.float32, array_shapes(min_dims=2, max_dims=3, max_side=9), elements=st.sampled_from(range(5))
)
densities = st.sampled_from([0.0, 0.1, 1 / 3, 0.5, 0.7, 1.0])


def best_by_sorting(scores: np.ndarray, count: int) -> np.ndarray:
    """The plain twin: sort by score, then by place."""
    order = sorted(range(scores.size), key=lambda i: (-scores.flat[i], i))
    kept = np.zeros(scores.size, bool)
    kept[order[:count]] = True
    return kept.reshape(scores.shape)


@settings(deadline=None)
@given(scores_of, densities)
def test_unstructured_equals_sorting(scores: np.ndarray, density: float) -> None:
    """Exactly floor(density * places + 1/2) best places stay; the earlier of equals wins."""
    kept = mask(scores, Unstructured(), density)
    assert np.array_equal(kept, best_by_sorting(scores, math.floor(density * scores.size + 0.5)))


@settings(deadline=None)
@given(st.lists(scores_of, min_size=1, max_size=4), densities)
def test_global_is_one_ranking(tensors: list[np.ndarray], density: float) -> None:
    """Under the global scope the tensors are pruned as if they were one."""
    named = {str(i): t for i, t in enumerate(tensors)}
    kept = masks(named, Unstructured(), density, scope="global")
    joined = np.concatenate([t.ravel() for t in tensors])
    want = mask(joined, Unstructured(), density)
    assert np.array_equal(np.concatenate([kept[n].ravel() for n in named]), want)
    assert all(kept[n].shape == t.shape for n, t in named.items())


def groups_by_loops(pattern: Pattern, shape: tuple[int, ...]) -> list[list[tuple]]:
    """Collect the places of each group of a ranked pattern, groups in the order they appear."""
    groups: dict[tuple, list[tuple]] = {}
    for place in np.ndindex(shape):
        if isinstance(pattern, Slices):
            key: tuple = (place[pattern.axis],)
        elif isinstance(pattern, Vectors):
            axis = pattern.axis % len(shape)
            key = tuple(p // pattern.length if i == axis else p for i, p in enumerate(place))
        else:
            column = int(np.ravel_multi_index(place[1:], shape[1:]))
            key = (place[0] // pattern.height, column // pattern.width)
        groups.setdefault(key, []).append(place)
    return list(groups.values())


ranked = st.one_of(
    st.builds(Slices, axis=st.integers(0, 1)),
    st.builds(Vectors, length=st.integers(1, 12), axis=st.integers(-2, 1)),
    st.builds(Blocks, height=st.integers(1, 5), width=st.integers(1, 5)),
)


@settings(deadline=None)
@given(scores_of, ranked, densities)
def test_groups_equal_the_plain_twin(scores: np.ndarray, pattern: Pattern, density: float) -> None:
    """Whole groups stay, best mean first, as many as come nearest to the target."""
    groups = groups_by_loops(pattern, scores.shape)
    means = [sum(float(scores[place]) for place in group) / len(group) for group in groups]
    order = sorted(range(len(groups)), key=lambda g: (-means[g], g))
    after = [sum(len(groups[g]) for g in order[:k]) for k in range(len(groups) + 1)]
    misses = [abs(kept - density * scores.size) for kept in after]
    longest = max(k for k, miss in enumerate(misses) if miss == min(misses))
    want = np.zeros(scores.shape, bool)
    for g in order[:longest]:
        for place in groups[g]:
            want[place] = True
    assert np.array_equal(mask(scores, pattern, density), want)


@settings(deadline=None)
@given(scores_of, st.integers(1, 6), st.data())
def test_n_of_m_equals_sorting(scores: np.ndarray, m: int, data: st.DataObject) -> None:
    """In every group of m along the axis exactly the n best stay (all of a shorter group)."""
    n = data.draw(st.integers(1, m))
    axis = data.draw(st.integers(-scores.ndim, scores.ndim - 1))
    kept = mask(scores, NM(n=n, m=m, axis=axis, ragged="short"))
    lines = np.moveaxis(scores, axis, -1).reshape(-1, scores.shape[axis])
    kept_lines = np.moveaxis(kept, axis, -1).reshape(lines.shape)
    for line, kept_line in zip(lines, kept_lines, strict=True):
        for start in range(0, len(line), m):
            piece = slice(start, start + m)
            assert np.array_equal(kept_line[piece], best_by_sorting(line[piece], n))
    encoded = NMSparse.encode(scores * kept, n, m, axis)
    assert np.array_equal(encoded.decode(), scores * kept)


@settings(deadline=None)
@given(st.integers(1, 4), st.integers(1, 30), st.integers(0, 2**32 - 1), st.data())
def test_units_of_neighbours_stay_together(
    unit: int, length: int, seed: int, data: st.DataObject
) -> None:
    """N:M of units is N:M of their summed scores, each decision spread over its unit; a short last
    unit counts with what it has."""
    m = data.draw(st.integers(1, 5))
    n = data.draw(st.integers(1, m))
    scores = np.random.default_rng(seed).random((3, length))
    kept = mask(scores, NM(n=n, m=m, unit=unit, ragged="short"))
    sums = np.add.reduceat(scores, range(0, length, unit), axis=1)
    expected = mask(sums, NM(n=n, m=m, ragged="short"))
    assert np.array_equal(kept, np.repeat(expected, unit, axis=1)[:, :length])
    dead = scores.copy()
    dead[:, ::2] = 0  # an earlier stage's zeros: they never come back
    if length > 1:
        after = mask(dead, Slices(axis=1, density=0.5) & NM(n=n, m=m, unit=unit, ragged="short"))
        assert not after[:, ~after.any(axis=0)].any()


def test_a_group_of_units_must_fill_the_axis() -> None:
    """2 of 4 pairs need a multiple of 8, unless the last group may be short."""
    scores = np.ones((2, 12))
    with pytest.raises(InputError, match="2:4 needs an axis that is a multiple of 8"):
        mask(scores, NM(unit=2))
    kept = mask(scores, NM(unit=2, ragged="short"))
    assert np.flatnonzero(kept[0]).tolist() == [0, 1, 2, 3, 8, 9, 10, 11]
    assert (NM(unit=2).kept, NM(unit=2).group, NM(unit=2).fixed_density()) == (4, 8, 0.5)


def test_equal_scores_keep_the_first() -> None:
    """All scores equal: the first places, the first groups and the first tensor win."""
    flat = np.ones((4, 8))
    assert mask(flat, Unstructured(), 0.5)[:2].all()
    assert mask(flat, ROW, 0.5)[:2].all() and not mask(flat, ROW, 0.5)[2:].any()
    assert mask(flat, NM())[:, [0, 1, 4, 5]].all()
    both = masks({"a": flat, "b": flat}, Unstructured(), 0.5, scope="global")
    assert both["a"].all() and not both["b"].any()


def test_global_groups_compete_by_their_mean() -> None:
    """A tensor of better filters keeps more of them; the whole meets the target."""
    good, poor = np.full((4, 10), 2.0), np.full((8, 5), 1.0)
    kept = masks({"poor": poor, "good": good}, Slices(axis=0), 0.75, scope="global")
    assert kept["good"].all() and kept["poor"][:4].all() and not kept["poor"][4:].any()


def test_channel_then_2_of_4() -> None:
    """Dead channels are no neighbours: 2:4 holds among those left, and densities multiply."""
    weights = np.random.default_rng(5).normal(size=(16, 32, 3, 3))
    pruned = prune(weights, CHANNEL & NM(axis=1), 0.25)
    assert density_of(pruned) == 0.25
    assert np.array_equal(pruned, prune(weights, Slices(axis=1, density=0.5) & NM(axis=1)))
    alive = mask(magnitude(weights), CHANNEL, 0.5)[0, :, 0, 0]
    assert np.array_equal((pruned != 0).any(axis=(0, 2, 3)), alive)
    left = without_dead_slices(pruned, axis=1)
    assert left.shape == (16, 16, 3, 3)
    assert np.array_equal(left, prune(weights[:, alive], NM(axis=1)))
    assert np.array_equal(NMSparse.encode(left, axis=1).decode(), left)


def test_row_then_2_of_4_leaves_dead_rows_dead() -> None:
    """Lines that are gone keep nothing; all others exactly two of four."""
    weights = np.random.default_rng(5).normal(size=(6, 8))
    kept = mask(magnitude(weights), ROW & NM(), 0.25)
    assert sorted(kept.sum(axis=1).tolist()) == [0, 0, 0, 4, 4, 4]
    nothing = mask(magnitude(weights), Slices(axis=1, density=0.0) & NM())
    assert not nothing.any()


def test_the_open_stage_takes_the_rest() -> None:
    """With an overall density the one open stage gets what the fixed ones leave to do."""
    scores = np.random.default_rng(6).random((32, 64))
    kept = mask(scores, NM() & Unstructured(), 0.2)
    assert np.count_nonzero(kept) == math.floor(0.2 * scores.size + 0.5)
    assert kept.reshape(-1, 4).sum(axis=1).max() <= 2
    assert (NM() & Unstructured() & ROW).fixed_density() is None
    assert (NM() & ROW & NM(n=1, m=2)).stages == (NM(), ROW, NM(n=1, m=2))


def test_scores_decide_not_weights() -> None:
    """Saliency is |w g|: a large weight without gradient goes first."""
    weights, gradients = np.array([10.0, 1.0, -2.0, 3.0]), np.array([0.0, 1.0, 1.0, -1.0])
    assert saliency(weights, gradients).tolist() == [0, 1, 2, 3]
    by_magnitude = prune(weights, Unstructured(density=0.5))
    by_saliency = prune(weights, Unstructured(density=0.5), scores=saliency(weights, gradients))
    assert by_magnitude.tolist() == [10, 0, 0, 3]
    assert by_saliency.tolist() == [0, 0, -2, 3]


@pytest.mark.parametrize("dtype", [np.int8, np.float16, np.float32, np.float64])
def test_dtype_is_kept_and_the_least_int8_is_large(dtype: type) -> None:
    """Pruning keeps the dtype; |-128| is 128, not -128."""
    weights = np.array([[1, -128, 3, 2]], dtype)
    pruned = prune(weights, NM())
    assert pruned.dtype == dtype and pruned.tolist() == [[0, -128, 3, 0]]
    assert density_of(pruned) == 0.5


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s: mask(s, NM(m=5, n=2)), "multiple of 5, but axis 1 of .* has 8; pad the tensor"),
        (lambda s: mask(s, Unstructured()), r"stage 0 \(Unstructured\) open; give a density"),
        (lambda s: mask(s, NM(), 0.5), "exactly one stage .* but 0 of 1 do"),
        (lambda s: mask(s, ROW & Unstructured(), 0.5), "but 2 of 2 do"),
        (lambda s: mask(s, NM() & ROW, 0.6), "0.6 cannot be met: .* leave only 0.5"),
        (lambda s: mask(s, Unstructured() & NM(), 0.3), "put N:M first"),
        (lambda s: mask(s, CHANNEL & NM(), 0.375), "axis 1 of .* has 6"),
        (lambda s: mask(s, Unstructured(), 1.5), "density must be between 0 and 1, got 1.5"),
        (lambda s: mask(s, Unstructured(), math.nan), "density must be between 0 and 1, got nan"),
        (lambda s: mask(s, Slices(axis=2), 0.5), "axis of a tensor of shape .* between -2 and 1"),
        (lambda s: mask(s[0], Blocks(height=2, width=2), 0.5), "2 or more dimensions"),
        (lambda s: mask(np.full_like(s, np.nan), ROW, 0.5), r"scores of 'scores' must be finite"),
        (lambda s: mask(s[:0], ROW, 0.5), "at least 1, got 0"),
        (lambda s: masks({}, ROW, 0.5), "nothing to prune"),
        (lambda s: masks({"a": s}, ROW, 0.5, scope="all"), "scope must be 'layer' or 'global'"),
        (lambda s: prune(s, ROW, 0.5, scores=s[:1]), "scores must have the shape"),
        (lambda s: saliency(s, s[:1]), "gradients must have the shape"),
        (lambda s: magnitude(np.array(["a"])), "real numbers"),
        (lambda s: NM(n=3, m=2), "n of N:M must be between 1 and 2, got 3"),
        (lambda s: NM(n=0, m=2), "n of N:M must be between 1 and 2, got 0"),
        (lambda s: NM(ragged="pad"), "'refuse' or 'short'"),
        (lambda s: Vectors(length=0), "length of vectors must be at least 1"),
        (lambda s: Blocks(height=2, width=0.5), "width of blocks must be a whole number"),
        (lambda s: Slices(density=-0.1), "density must be between 0 and 1, got -0.1"),
        (lambda s: Composed(stages=()), "at least one stage"),
    ],
)
def test_bad_input_is_named(call: object, message: str) -> None:
    """What cannot be pruned as asked gets an error message with place and remedy."""
    with pytest.raises(InputError, match=message):
        call(np.ones((4, 8)))


@pytest.mark.parametrize(
    "pattern", [Unstructured(density=0.1), CHANNEL & NM(axis=1), Blocks(height=4, width=4)]
)
def test_patterns_are_values(pattern: Pattern) -> None:
    """A pattern can be compared, hashed, written to a recipe and read back."""
    again = msgspec.json.decode(msgspec.json.encode(pattern), type=AnyPattern)
    assert again == pattern and hash(again) == hash(pattern)


def test_an_unknown_key_in_a_recipe_is_refused() -> None:
    """A misspelt key is an error, not a default."""
    with pytest.raises(msgspec.ValidationError, match="unknown field `N`"):
        msgspec.convert({"pattern": "n:m", "N": 1}, AnyPattern)


row = np.array([[0.5, -2.0, 2.0, -0.1], [0.0, 0.0, 0.0, 0.0]], np.float32)


@pytest.mark.parametrize(
    ("rule", "kept"),
    [
        (ReLU(), [[1, 0, 1, 0], [0, 0, 0, 0]]),
        (Threshold(value=0.5), [[0, 1, 1, 0], [0, 0, 0, 0]]),
        (RelativeThreshold(share=0.2), [[1, 1, 1, 0], [0, 0, 0, 0]]),
        (TopK(k=1), [[0, 1, 0, 0], [1, 0, 0, 0]]),
        (TopK(k=3), [[1, 1, 1, 0], [1, 1, 1, 0]]),
        (TopK(k=9), [[1, 1, 1, 1], [1, 1, 1, 1]]),
        (TopK(k=0), [[0, 0, 0, 0], [0, 0, 0, 0]]),
    ],
)
def test_activation_rules_by_hand(rule: AnyActivationRule, kept: list) -> None:
    """Each rule on one small input, by hand; the mask is a function of this input alone."""
    assert rule.mask(row).astype(int).tolist() == kept
    assert np.array_equal(rule.apply(row), np.where(kept, row, 0))
    assert rule.apply(row).dtype == np.float32


@settings(deadline=None)
@given(scores_of, st.integers(0, 9))
def test_top_k_is_exact_per_row(scores: np.ndarray, k: int) -> None:
    """Every row keeps exactly min(k, places), the best of it, ties or not."""
    kept = TopK(k=k).mask(scores)
    rows = scores.reshape(-1, scores.shape[-1])
    for line, kept_line in zip(rows, kept.reshape(rows.shape), strict=True):
        assert np.array_equal(kept_line, best_by_sorting(line, min(k, len(line))))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Threshold(value=-1), "at least 0"),
        (lambda: Threshold(value=math.nan), "finite"),
        (lambda: RelativeThreshold(share=2), "share must be between 0 and 1"),
        (lambda: TopK(k=-1), "k must be at least 0"),
        (lambda: ReLU().apply(np.array([1, np.nan])), "activations must be finite"),
        (lambda: TopK(k=1).apply(np.zeros((2, 0))), "at least 1, got 0"),
        (lambda: TopK(k=1).apply(np.float64(3)), "numpy array"),
    ],
)
def test_bad_activation_input_is_named(call: object, message: str) -> None:
    """Rules check themselves and their input."""
    with pytest.raises(InputError, match=message):
        call()
