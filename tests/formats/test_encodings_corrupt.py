"""Is a damaged record always either refused by an error or still a whole, decodable record?"""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparqsim.base import InputError
from sparqsim.workloads import formats
from sparqsim.workloads.encodings import (
    CSC,
    Bitmap,
    ChannelBundles,
    NMSparse,
    OutlierPairs,
    RelativeIndexCSC,
)

DENSE = np.zeros((24, 8), np.uint8)
DENSE[::5, ::2] = 3
DENSE[1::7, 1::4] = 9
RECORDS: list[Any] = [
    CSC.from_dense(DENSE),
    RelativeIndexCSC.encode(CSC.from_dense(DENSE), np.arange(16.0), pes=3, index_bits=2),
    Bitmap.encode(DENSE),
    ChannelBundles.encode(DENSE, 3, axis=1),
    NMSparse.encode(DENSE, 3, 4),
    OutlierPairs.encode(DENSE.astype(float), formats.get("ovp_int4")),
]
EXTREMES = [-(2**63), -(2**31), -1, 0, 1, 2, 255, 2**31, 2**63 - 1]


@settings(deadline=None, max_examples=400)
@given(st.sampled_from(RECORDS), st.data())
def test_damage_is_refused_or_harmless(record: Any, data: st.DataObject) -> None:
    """Cut an array or overwrite a few of its entries: an error, or a record that decodes whole."""
    arrays = [f.name for f in fields(record) if isinstance(getattr(record, f.name), np.ndarray)]
    name = data.draw(st.sampled_from(arrays))
    array = getattr(record, name).copy()
    if data.draw(st.booleans()):
        array = array[: data.draw(st.integers(0, len(array)))]
    for _ in range(data.draw(st.integers(0, 3)) if array.size else 0):
        place = data.draw(st.integers(0, array.size - 1))
        value = data.draw(st.sampled_from(EXTREMES))
        array.flat[place] = np.int64(value).astype(array.dtype)
    try:
        damaged = replace(record, **{name: array})
    except InputError:
        return
    decode = damaged.to_dense if isinstance(damaged, CSC) else damaged.decode
    decoded = decode()
    assert decoded.shape == DENSE.shape
    assert damaged.bits > 0


def test_pointers_that_wrap_around_are_refused() -> None:
    """Steps whose differences overflow to positive numbers do not pass for rising pointers."""
    high = 2**63 - 1
    indptr = np.array([0, high, -2, 1])
    assert (np.diff(indptr) >= 0).all()
    with pytest.raises(InputError, match="must not fall"):
        CSC((4, 3), indptr, np.array([1], np.int32), np.array([1]))
    pointers = indptr[None]
    one = np.array([1], np.uint8)
    with pytest.raises(InputError, match="must not fall"):
        RelativeIndexCSC((4, 3), pointers, one, one, np.arange(16))
    with pytest.raises(InputError, match="must rise"):
        ChannelBundles((3,), 0, 1, indptr, np.zeros(1, np.uint8), np.ones(1))


def test_a_shape_whose_size_overflows_is_refused() -> None:
    """2**32 x 2**32 places do not pass for none."""
    with pytest.raises(InputError, match="must have 2305843009213693952 entries"):
        Bitmap((2**32, 2**32), np.zeros(1, np.uint8), np.zeros(0))


@pytest.mark.parametrize("dtype", [">f4", ">i2", "longdouble"])
def test_numbers_of_another_machine_are_refused(dtype: str) -> None:
    """Foreign byte order and extended precision are named, not mangled."""
    with pytest.raises(InputError, match="byte order, got dtype"):
        CSC.from_dense(np.ones((2, 2), dtype))
