"""Do the bitmap and SNAP's channel bundles hold exactly the tensor, and refuse corrupt data?"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from sparqsim.base import InputError
from sparqsim.workloads.encodings.bitmap import Bitmap
from sparqsim.workloads.encodings.channel_bundles import ChannelBundles

tensors = arrays(
    st.sampled_from([np.int8, np.float16, np.float32]),
    array_shapes(min_dims=1, max_dims=4, max_side=7),
    elements=st.sampled_from([0, 0, 0, 1, -2, 5]),
)


@settings(deadline=None)
@given(tensors)
def test_bitmap_round_trip_and_bits(dense: np.ndarray) -> None:
    """Decoding gives the tensor back; a place costs a bit, a non-zero its width."""
    encoded = Bitmap.encode(dense)
    assert np.array_equal(encoded.decode(), dense)
    assert encoded.decode().dtype == dense.dtype
    assert encoded.bits == dense.size + np.count_nonzero(dense) * dense.itemsize * 8


@settings(deadline=None)
@given(tensors, st.sampled_from([1, 2, 3, 8, 256]), st.data())
def test_bundles_round_trip_and_equal_the_plain_twin(
    dense: np.ndarray, length: int, data: st.DataObject
) -> None:
    """Each bundle is what a loop over positions and channels finds; decoding is exact."""
    axis = data.draw(st.integers(-dense.ndim, dense.ndim - 1))
    encoded = ChannelBundles.encode(dense, length, axis)
    assert np.array_equal(encoded.decode(), dense)
    bundle = 0
    for line in np.moveaxis(dense, axis, -1).reshape(-1, dense.shape[axis]):
        for start in range(0, len(line), length):
            piece = slice(encoded.pointers[bundle], encoded.pointers[bundle + 1])
            want = [(c, v) for c, v in enumerate(line[start : start + length]) if v != 0]
            got = zip(encoded.channels[piece], encoded.values[piece], strict=True)
            assert list(got) == want
            bundle += 1
    assert encoded.bundles == bundle
    assert encoded.counts().sum() == np.count_nonzero(dense)
    index_bits, count_bits = int(np.ceil(np.log2(length))), int(np.log2(length)) + 1
    value_bits = 8 * dense.itemsize
    assert encoded.bits == np.count_nonzero(dense) * (value_bits + index_bits) + bundle * count_bits


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bitmap": np.array([0b10100000], np.uint8)}, "bitmap must have 2 entries, got 1"),
        ({"bitmap": np.array([0b10100000, 0b01000001], np.uint8)}, r"last 6 bit\(s\)"),
        ({"bitmap": np.array([0b11100000, 0b01000000], np.uint8)}, "must have 4 entries, got 3"),
        ({"bitmap": np.array([0b1010, 0b01000000])}, "dtype uint8, got int64"),
        ({"values": np.array([1.0, 2.0])}, "must have 3 entries, got 2"),
        ({"values": np.array([1.0, np.inf, 2.0])}, "finite, got inf"),
        ({"shape": (2, 20)}, "bitmap must have 5 entries"),
        ({"shape": ()}, "one or more whole numbers"),
    ],
)
def test_corrupt_bitmap_is_refused(change: dict, message: str) -> None:
    """Truncation, spare bits and a count that does not fit are named."""
    record = Bitmap.encode(np.array([[1.0, 0, 2, 0, 0], [0, 0, 0, 0, 3]]))
    assert record.bitmap.tolist() == [0b10100000, 0b01000000]
    with pytest.raises(InputError, match=message):
        replace(record, **change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pointers": np.array([0, 2, 3])}, "pointers must have 5 entries, got 3"),
        ({"pointers": np.array([0, 2, 3, 3, 5])}, "rise from 0 to the 4 stored values"),
        ({"pointers": np.array([0, 3, 2, 3, 4])}, "rise from 0"),
        ({"channels": np.array([0, 2, 0], np.uint8)}, "got 0 to 4|must have 3 entries"),
        ({"channels": np.array([0, 3, 0, 1], np.uint8)}, "below 3 in bundle 0, got 3"),
        ({"channels": np.array([0, 2, 2, 1], np.uint8)}, "below 2 in bundle 1, got 2"),
        ({"channels": np.array([2, 0, 0, 1], np.uint8)}, "rise within bundle 0"),
        ({"length": 0}, "length must be between 1 and 256"),
        ({"axis": 3}, "axis must be between 0 and 1"),
    ],
)
def test_corrupt_bundles_are_refused(change: dict, message: str) -> None:
    """Bad pointers and channels past a (short) bundle are named with the bundle."""
    dense = np.array([[1, 0, 2, 3, 0], [0, 0, 0, 0, 4]])
    record = ChannelBundles.encode(dense, 3, axis=1)
    assert record.channels.tolist() == [0, 2, 0, 1] and record.pointers.tolist() == [0, 2, 3, 3, 4]
    with pytest.raises(InputError, match=message):
        replace(record, **change)


@pytest.mark.parametrize("encode", [Bitmap.encode, lambda x: ChannelBundles.encode(x, 4)])
@pytest.mark.parametrize(
    ("dense", "message"),
    [
        (np.array([1.0, np.nan]), r"finite, got nan at \[1\]"),
        (np.zeros((0, 3)), "at least 1"),
        ([1, 2], "numpy array"),
        (np.array(["x"]), "real numbers"),
    ],
)
def test_bad_tensors_are_refused(encode: object, dense: object, message: str) -> None:
    """A tensor that is not of finite real numbers gets an error message."""
    with pytest.raises(InputError, match=message):
        encode(dense)
