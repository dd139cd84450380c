"""Does N:M encoding hold exactly the tensor, with the metadata layout of the sparse tensor core?"""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparqsim.base import InputError
from sparqsim.workloads.encodings.nm import NMSparse


@st.composite
def pruned_tensors(draw: st.DrawFn) -> tuple[np.ndarray, int, int, int]:
    """A tensor with at most n of m along an axis, some groups with fewer, and a ragged tail."""
    m = draw(st.integers(1, 9))
    n = draw(st.integers(1, m))
    shape = tuple(draw(st.lists(st.integers(1, 11), min_size=1, max_size=3)))
    axis = draw(st.integers(0, len(shape) - 1))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    dense = np.moveaxis(rng.integers(-3, 4, shape), axis, -1).copy()
    for start in range(0, shape[axis], m):
        group = dense[..., start : start + m]
        ranks = rng.permuted(np.broadcast_to(np.arange(group.shape[-1]), group.shape), axis=-1)
        group[ranks >= n] = 0
    return np.moveaxis(dense, -1, axis), n, m, axis


@settings(deadline=None)
@given(pruned_tensors())
def test_round_trip(case: tuple[np.ndarray, int, int, int]) -> None:
    """Whatever n, m, axis and ragged tail: decoding gives the tensor back."""
    dense, n, m, axis = case
    encoded = NMSparse.encode(dense, n, m, axis)
    assert np.array_equal(encoded.decode(), dense)
    assert encoded.decode().dtype == dense.dtype
    groups = dense.size // dense.shape[axis] * -(-dense.shape[axis] // m)
    assert encoded.bits == groups * n * (64 + int(np.ceil(np.log2(m))))


@pytest.mark.parametrize(("dtype", "ratio"), [(np.float16, 0.5625), (np.int8, 0.625)])
def test_published_share_of_dense_bits(dtype: type, ratio: float) -> None:
    """2:4 takes 56.25 % of dense bits at 16 bits and 62.5 % at 8 (published)."""
    dense = np.tile(np.array([1, 0, 2, 0], dtype), (8, 4))
    assert NMSparse.encode(dense).bits == ratio * dense.size * dense.itemsize * 8


def test_narrow_values_are_counted_as_such() -> None:
    """int4 codes kept in bytes are charged 4 bits each."""
    dense = np.tile(np.array([1, 0, 2, 0], np.int8), (8, 4))
    assert NMSparse.encode(dense, value_bits=4).bits == dense.size // 2 * (4 + 2)


def test_overfull_group_is_named() -> None:
    """A tensor not pruned to n of m is refused, with the place."""
    dense = np.zeros((3, 8))
    dense[2, 4:7] = 1
    with pytest.raises(InputError, match=r"line 2, group 1 has 3; prune the tensor to 2:4 first"):
        NMSparse.encode(dense)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n": 0}, "n must be between 1 and 4"),
        ({"n": 5}, "n must be between 1 and 4"),
        ({"m": 300}, "m must be between 1 and 256"),
        ({"axis": 2}, "axis must be between 0 and 1"),
        ({"shape": (2, 12)}, r"values must have shape \(2, 3, 2\)"),
        ({"values": np.ones((2, 2, 1))}, "truncated or mixed up"),
        ({"positions": np.full((2, 2, 2), [0, 4], np.uint8)}, "below m = 4, got 4"),
        ({"positions": np.full((2, 2, 2), [1, 1], np.uint8)}, "rise within a group"),
        ({"positions": np.full((2, 2, 2), [0, 1], np.int8)}, "dtype uint8, got int8"),
        ({"values": np.full((2, 2, 2), np.nan)}, "finite"),
        ({"shape": (2, 7), "positions": np.full((2, 2, 2), [0, 3], np.uint8)}, "beyond the 7"),
        ({"value_bits": 65}, "value_bits must be between 1 and 64"),
    ],
)
def test_corrupt_data_is_refused(change: dict, message: str) -> None:
    """Each broken rule is named."""
    record = NMSparse.encode(np.tile(np.array([1.0, 0, 2, 0]), (2, 2)))
    with pytest.raises(InputError, match=message):
        replace(record, **change)


def every_pattern(rows: int, cols: int, dtype: type, seed: int) -> np.ndarray:
    """A matrix whose groups of four hold every 0-, 1- and 2-subset, in random order."""
    rng = np.random.default_rng(seed)
    masks = np.array([bits for bits in itertools.product([0, 1], repeat=4) if sum(bits) <= 2])
    mask = masks[rng.integers(0, len(masks), (rows, cols // 4))].reshape(rows, cols)
    return (mask * rng.integers(1, 100, (rows, cols))).astype(dtype)


@pytest.mark.parametrize("dtype", ["int8", "float16", "float32"])
@pytest.mark.parametrize(("rows", "cols"), [(32, 64), (64, 128), (160, 192), (96, 320)])
def test_metadata_equal_torch(dtype: str, rows: int, cols: int) -> None:
    """Values and metadata equal PyTorch's CUTLASS conversion, and the way back is exact."""
    torch = pytest.importorskip("torch")
    from torch.sparse import _semi_structured_conversions as conversions

    if dtype == "float32":
        pairs = every_pattern(rows, cols, np.float32, 1) != 0
        pairs[:, 1::2] &= ~pairs[:, ::2]
        dense = pairs.astype(np.float32) * np.arange(1, 1 + cols, dtype=np.float32)
        ours = NMSparse.encode(dense, 1, 2)
    else:
        dense = every_pattern(rows, cols, np.dtype(dtype).type, 2)
        ours = NMSparse.encode(dense)
    values, metadata = conversions.sparse_semi_structured_from_dense_cutlass(
        torch.from_numpy(dense)
    )
    packed = ours.pack_metadata()
    assert np.array_equal(packed, metadata.numpy())
    assert packed.dtype == metadata.numpy().dtype
    assert np.array_equal(ours.values.reshape(values.shape), values.numpy())
    back = NMSparse.from_metadata(values.numpy(), metadata.numpy())
    assert np.array_equal(back.decode(), dense)
    assert np.array_equal(back.positions, ours.positions)


def test_metadata_words_by_hand() -> None:
    """Group k of a word takes bits 4k to 4k+3, first position low: 0, 2 is 0b1000."""
    dense = np.tile(np.array([1, 0, 2, 0], np.float16), (32, 16))
    packed = NMSparse.encode(dense).pack_metadata()
    assert packed.shape == (32, 4) and packed.dtype == np.int16
    assert (packed.view(np.uint16) == 0x8888).all()


@pytest.mark.parametrize(
    ("shape", "n", "m", "message"),
    [
        ((16, 64), 2, 4, r"tiles of 32 rows x 32 columns, got 16 x 64"),
        ((32, 48), 2, 4, r"tiles of 32 rows x 32 columns, got 32 x 48"),
        ((32, 64), 1, 4, "2:4 with 8- or 16-bit values or 1:2 with 32-bit values, got 1:4"),
        ((32, 64, 1), 2, 4, "3-dimensional"),
    ],
)
def test_what_the_hardware_cannot_hold_is_refused(
    shape: tuple, n: int, m: int, message: str
) -> None:
    """Metadata exist for whole tiles of a matrix only."""
    with pytest.raises(InputError, match=message):
        NMSparse.encode(np.zeros(shape, np.float16), n, m).pack_metadata()


def test_corrupt_metadata_are_refused() -> None:
    """A word that names one position twice, a short array or a wrong dtype gets an error."""
    record = NMSparse.encode(every_pattern(32, 64, np.float16, 3))
    values, metadata = record.values.reshape(32, 32), record.pack_metadata()
    broken = metadata.copy()
    broken[3, 1] = 0
    with pytest.raises(InputError, match="rise within a group"):
        NMSparse.from_metadata(values, broken)
    with pytest.raises(InputError, match=r"got \(31, 4\)"):
        NMSparse.from_metadata(values, metadata[:31])
    with pytest.raises(InputError, match="dtype int16, got int32"):
        NMSparse.from_metadata(values, metadata.astype(np.int32))
    with pytest.raises(InputError, match="8, 16 or 32 bits"):
        NMSparse.from_metadata(values.astype(np.float64), metadata)
