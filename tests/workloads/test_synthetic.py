"""Are synthetic tensors what was asked for: density, spread, outliers, seed, memory?

Tolerances are five standard deviations of the estimate under test, so a sound generator fails about
once in a million seeds and the seeds here are fixed.
"""

from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparqsim.base import InputError
from sparqsim.workloads.synthetic import (
    BLOCK,
    Distribution,
    _take,
    activations,
    sparse_matrix,
    tensor,
)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@given(
    st.integers(1, 40),
    st.integers(1, 40),
    st.one_of(st.sampled_from([0.0, 1.0, 1e-300]), st.floats(0.0, 1.0)),
    st.sampled_from([0.0, 0.1]),
    st.integers(0, 2**32),
)
@settings(max_examples=60, deadline=None)
def test_any_small_matrix_is_sound(
    rows: int, cols: int, density: float, cv: float, seed: int
) -> None:
    """Any size and density gives a valid CSC (it checks itself) without a stored zero."""
    if cv and density > 0.98:  # so dense that rows cannot differ by a tenth
        return
    matrix = sparse_matrix(rows, cols, density, rng(seed), row_cv=cv)
    assert matrix.shape == (rows, cols)
    assert (matrix.values != 0).all()
    if density in (0.0, 1.0):
        assert matrix.density == density


@pytest.mark.parametrize("density", [0.01, 0.09, 0.5, 0.97])
def test_density_is_met_everywhere(density: float) -> None:
    """Non-zeros are binomial in total, over rows and over columns: iid, not only on average."""
    rows, cols = 800, 600
    matrix = sparse_matrix(rows, cols, density, rng(1))
    spread = math.sqrt(density * (1 - density))
    assert abs(matrix.density - density) < 5 * spread / math.sqrt(rows * cols)
    for counts, draws in (
        (np.bincount(matrix.indices, minlength=rows), cols),
        (np.diff(matrix.indptr), rows),
    ):
        # a binomial's variance over its mean is 1 - p; its estimate spreads by sqrt(2 / n)
        ratio = counts.var(ddof=1) / (draws * density)
        assert abs(ratio / (1 - density) - 1) < 5 * math.sqrt(2 / len(counts))


def test_neighbours_are_independent() -> None:
    """Whether an element is zero says nothing of the next, down a column or along a row."""
    mask = sparse_matrix(700, 700, 0.3, rng(2)).to_dense() != 0
    for a, b in ((mask[1:], mask[:-1]), (mask[:, 1:], mask[:, :-1])):
        correlation = np.corrcoef(a.ravel(), b.ravel())[0, 1]
        assert abs(correlation) < 5 / math.sqrt(a.size)


@pytest.mark.parametrize("cv", [0.133, 0.5])
def test_rows_spread_as_asked(cv: float) -> None:
    """The rows' counts vary by ``row_cv`` and, on top, as a binomial must."""
    rows, cols, density = 4000, 2000, 0.1
    counts = np.bincount(sparse_matrix(rows, cols, density, rng(3), cv).indices, minlength=rows)
    assert counts.mean() / cols == pytest.approx(density, rel=5 * cv / math.sqrt(rows))
    expected = math.sqrt(cv**2 + (1 - density - density * cv**2) / (cols * density))
    assert counts.std() / counts.mean() == pytest.approx(expected, rel=0.06)


def test_kernel_and_plain_twin_agree() -> None:
    """The compiled walk and the same function run as Python place the same non-zeros."""
    source = rng(4)
    waits, lots = source.standard_exponential(500), source.random(500)
    results = []
    for walk in (_take, _take.py_func):  # type: ignore[attr-defined]
        for keep in (np.empty(0), np.linspace(0.1, 1.0, 37)):
            indptr, indices = np.zeros(42, np.int64), np.zeros(500, np.int32)
            end = walk(waits, 0.4, lots, keep, 37, 41, -1, 0, indptr, indices, 0)
            results.append((tuple(end), indptr.tolist(), indices.tolist()))
    assert results[:2] == results[2:]


def test_the_seed_decides() -> None:
    """Same seed, same tensor; another seed, another."""
    for make in (
        lambda g: sparse_matrix(300, 200, 0.1, g, 0.2).to_dense(),
        lambda g: tensor((30, 4000), g, Distribution(kind="laplace", outlier_rate=0.1), 0.5, 0.1),
        lambda g: activations(999, 0.4, g),
    ):
        assert np.array_equal(make(rng(5)), make(rng(5)))
        assert not np.array_equal(make(rng(5)), make(rng(6)))


@pytest.mark.parametrize(
    "kind, kurtosis", [("normal", 3.0), ("laplace", 6.0), ("student-t", 3.0 + 6.0 / (12.0 - 4.0))]
)
def test_distributions(kind: str, kurtosis: float) -> None:
    """Mean 0, the standard deviation asked for, and the kurtosis the textbook gives."""
    values = tensor((4 * BLOCK,), rng(7), Distribution(kind=kind, sigma=2.5, degrees=12.0))  # type: ignore[arg-type]
    values = values.astype(np.float64)
    assert abs(values.mean()) < 5 * 2.5 / math.sqrt(values.size)
    assert values.std() == pytest.approx(2.5, rel=0.015)
    assert (values**4).mean() / values.var() ** 2 == pytest.approx(kurtosis, rel=0.08)


def test_outliers() -> None:
    """The stated fraction is far out: with values of one size, every outlier is told apart."""
    values = np.empty(2 * BLOCK, np.float32)
    with_outliers = Distribution(outlier_rate=0.01, outlier_factor=1e6)
    with_outliers.fill(values, rng(8))
    far = (np.abs(values) > 100).mean()  # no normal does, nearly any millionfold one
    assert abs(far - 0.01) < 5 * math.sqrt(0.01 / values.size) + 1e-4 * 0.01


def test_dense_tensor_density_and_rows() -> None:
    """A dense tensor has the density asked for, and rows that differ by ``row_cv``."""
    values = tensor((2000, 30, 40), rng(9), density=0.2, row_cv=0.3)
    per_row = (values != 0).reshape(2000, -1).mean(axis=1)
    assert per_row.mean() == pytest.approx(0.2, rel=5 * 0.3 / math.sqrt(2000))
    expected = math.sqrt(0.3**2 + (1 - 0.2 - 0.2 * 0.3**2) / (1200 * 0.2))
    assert per_row.std() / per_row.mean() == pytest.approx(expected, rel=0.08)


def test_activations_are_rectified() -> None:
    """Activations are never negative and have the density asked for; the shape may be a tuple."""
    values = activations((64, 1000), 0.351, rng(10))
    assert values.shape == (64, 1000) and values.dtype == np.float32 and values.min() == 0.0
    assert abs((values > 0).mean() - 0.351) < 5 * math.sqrt(0.351 * 0.649 / values.size)


def test_memory_is_that_of_the_result() -> None:
    """VGG's fc6 at 4 % is drawn in the memory of its non-zeros, a dense tensor in its own."""
    sparse_matrix(10, 10, 0.5, rng())
    tracemalloc.start()
    try:
        matrix = sparse_matrix(4096, 25088, 0.04, rng(11))
        kept = matrix.indices.nbytes + matrix.values.nbytes + matrix.indptr.nbytes
        _, sparse_peak = tracemalloc.get_traced_memory()
        del matrix
        tracemalloc.reset_peak()
        dense = tensor((1024, 4096), rng(12), density=0.5)
        _, dense_peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert sparse_peak < 2.0 * kept  # checking a CSC takes a few flags an entry
    assert dense_peak < 1.2 * dense.nbytes


@pytest.mark.parametrize(
    "make, says",
    [
        (lambda: sparse_matrix(0, 5, 0.1, rng()), "sizes must be whole and at least 1"),
        (lambda: sparse_matrix(5, 2.5, 0.1, rng()), "sizes must be whole"),  # type: ignore[arg-type]
        (lambda: sparse_matrix(5, 5, 1.1, rng()), "density must be at least 0.0 and at most 1.0"),
        (lambda: sparse_matrix(5, 5, float("nan"), rng()), "density must be"),
        (lambda: sparse_matrix(5, 5, 0.5, rng(), row_cv=-1.0), "row_cv must be"),
        (lambda: sparse_matrix(5, 5, 0.5, rng(), row_cv=1.0), "row_cv must be below"),
        (lambda: sparse_matrix(5, 5, 0.5, rng(), row_cv=1e-200), "at least 1e-06, got 1e-200"),
        (lambda: tensor((), rng()), "sizes must be"),
        (lambda: tensor((3,), rng(), dtype=np.int8), "dtype must be floating"),
        (lambda: activations(-1, 0.5, rng()), "sizes must be"),
        (lambda: Distribution(sigma=0.0), "sigma must be above 0"),
        (lambda: Distribution(degrees=2.0), "degrees must be above 2"),
        (lambda: Distribution(outlier_rate=2.0), "outlier_rate must be"),
        (lambda: Distribution(outlier_factor=math.inf), "outlier_factor must be"),
        (lambda: Distribution(kind="cauchy"), "kind must be one of normal"),  # type: ignore[arg-type]
    ],
)
def test_bad_input(make: object, says: str) -> None:
    """A parameter out of range is named with what was given."""
    with pytest.raises(InputError) as error:
        make()  # type: ignore[operator]
    assert says in str(error.value)
