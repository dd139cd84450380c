"""Does compressed sparse column hold exactly the matrix, and refuse data that is not one?"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from sparqsim.base import InputError
from sparqsim.workloads.encodings.csc import CSC

small = arrays(
    st.sampled_from([np.int64, np.uint8]),
    array_shapes(min_dims=2, max_dims=2, max_side=12),
    elements=st.sampled_from([0, 0, 0, 1, 2, 5]),
)


def example() -> CSC:
    return CSC.from_dense(np.array([[0, 5, 0], [7, 0, 0], [1, 2, 0]]))


@settings(deadline=None)
@given(small)
def test_round_trip_and_scipy(dense: np.ndarray) -> None:
    """from_dense stores what scipy stores, in the same order, and to_dense gives it back."""
    ours, theirs = CSC.from_dense(dense), scipy.sparse.csc_array(dense)
    assert np.array_equal(ours.to_dense(), dense)
    assert ours.values.dtype == dense.dtype
    assert np.array_equal(ours.indptr, theirs.indptr)
    assert np.array_equal(ours.indices, theirs.indices)
    assert np.array_equal(ours.values, theirs.data)
    assert ours.density == np.count_nonzero(dense) / dense.size


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int8, bool])
def test_any_dtype_and_memory_order(dtype: type) -> None:
    """The dtype of the matrix is kept, and a transposed or strided view reads the same."""
    dense = (np.arange(60).reshape(6, 10) % 4).astype(dtype)
    for view in (dense, dense.T, dense[::2, ::3]):
        matrix = CSC.from_dense(view)
        assert matrix.values.dtype == dtype
        assert np.array_equal(matrix.to_dense(), view)


def test_stored_zero_is_kept() -> None:
    """A value that a quantizer rounded to zero stays stored; the pattern is the pruner's."""
    matrix = example().with_values(np.array([0, 1, 0, 3]))
    assert matrix.stored == 4
    assert np.array_equal(matrix.to_dense(), [[0, 0, 0], [0, 0, 0], [1, 3, 0]])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shape": (3, 4)}, "indptr must have 5 entries, got 4"),
        ({"shape": (2, 3)}, r"within 0\.\.1, got 2 in column 0"),
        ({"shape": (0, 3)}, r"shape\[0\] must be at least 1"),
        ({"indptr": np.array([0, 2, 4, 5])}, "from 0 to the 4 stored values, got 0 to 5"),
        ({"indptr": np.array([0, 3, 2, 4])}, "must not fall, but does after column 1"),
        ({"indptr": np.array([0, 2, 4, 4], np.int32)}, "dtype int64, got int32"),
        ({"indices": np.array([1, 2, 0, -1], np.int32)}, "got -1 in column 1"),
        ({"indices": np.array([2, 1, 0, 2], np.int32)}, "row 1 follows 2 in column 0"),
        ({"indices": np.array([1, 1, 0, 2], np.int32)}, "row 1 follows 1 in column 0"),
        ({"indices": np.array([1, 2, 0], np.int32)}, "to the 3 stored values|must have 3 entries"),
        ({"values": np.array([1.0, 2.0, np.nan, 4.0])}, r"finite, got nan at \[2\]"),
        ({"values": np.array(["a"] * 4)}, "real numbers"),
        ({"values": [1, 2, 3, 4]}, "numpy array, got list"),
    ],
)
def test_corrupt_data_is_refused(change: dict, message: str) -> None:
    """Every broken rule is named, with what was given and where."""
    with pytest.raises(InputError, match=message):
        replace(example(), **change)


@pytest.mark.parametrize(
    ("dense", "message"),
    [
        (np.zeros(4), "2 dimension"),
        (np.zeros((0, 4)), r"\[0\] must be at least 1"),
        (np.array([[1.0, np.inf]]), r"finite, got inf at \[0, 1\]"),
        (np.array([[1j]]), "real numbers"),
    ],
)
def test_bad_dense_matrix_is_refused(dense: np.ndarray, message: str) -> None:
    """A tensor that is not a finite real matrix gets an error message."""
    with pytest.raises(InputError, match=message):
        CSC.from_dense(dense)


def test_huge_finite_values_are_not_mistaken_for_infinity() -> None:
    """The quick finiteness pass may overflow; the verdict may not."""
    dense = np.array([[1.7e308, 1.7e308]])
    assert np.array_equal(CSC.from_dense(dense).to_dense(), dense)


@given(
    dense=arrays(
        np.int64, array_shapes(min_dims=2, max_dims=2, max_side=8), elements=st.integers(-2, 2)
    )
)
def test_rows_and_columns_can_be_taken_and_added(dense: np.ndarray) -> None:
    """A stretch of rows and one more column are those of the dense matrix."""
    matrix = CSC.from_dense(dense)
    for low in range(dense.shape[0]):
        for high in range(low + 1, dense.shape[0] + 1):
            np.testing.assert_array_equal(matrix.rows(low, high).to_dense(), dense[low:high])
    wider = matrix.with_column(dense[:, 0])
    np.testing.assert_array_equal(wider.to_dense(), np.column_stack([dense, dense[:, 0]]))


def test_stored_zeros_can_be_dropped() -> None:
    """The matrix is the same without them; one that stores none is returned as it is."""
    matrix = CSC.from_dense(np.array([[1, 0, 2], [3, 4, 0]]))
    stored = matrix.with_values(np.array([0, 3, 0, 2]))
    kept = stored.without_zeros()
    assert kept.stored == 2 and kept.indptr.tolist() == [0, 1, 1, 2]
    np.testing.assert_array_equal(kept.to_dense(), stored.to_dense())
    assert matrix.without_zeros() is matrix
