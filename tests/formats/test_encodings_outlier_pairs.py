"""Do outlier-victim pairs pack into bytes and back exactly, with every byte accounted for?"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sparqsim.base import InputError
from sparqsim.workloads import formats
from sparqsim.workloads.encodings.outlier_pairs import OutlierPairs

NAMES = ("ovp_int4", "ovp_flint4", "ovp_int8")


@settings(deadline=None)
@given(
    st.sampled_from(NAMES),
    arrays(
        np.float64,
        st.tuples(st.integers(1, 4), st.integers(1, 5).map(lambda n: 2 * n)),
        elements=st.floats(-500, 500, width=32),
    ),
)
def test_round_trip(name: str, values: np.ndarray) -> None:
    """Unpacked codes are the format's codes, decoded values the format's values."""
    form = formats.get(name)
    packed = OutlierPairs.encode(values, form)
    codes = form.encode(values)
    assert np.array_equal(packed.decode_codes(), codes)
    assert np.array_equal(packed.decode(), form.decode(codes))
    assert packed.bits == values.size * form.bits
    assert packed.outliers == (codes == form.identifier).sum()


def test_bytes_by_hand() -> None:
    """[3, -2] is two codes; [1, 24] is identifier and abfloat; [24, 1] the other way round."""
    form = formats.get("ovp_int4")
    packed = OutlierPairs.encode(np.array([3.0, -2, 1, 24, 24, 1]), form)
    assert packed.data[0] == 0x3E
    high, low = packed.data[1] >> 4, packed.data[1] & 15
    assert high == 0b1000 and packed.data[2] == (low << 4) | 0b1000
    assert packed.decode().tolist() == [3, -2, 0, 24, 24, 0]
    assert packed.outliers == 2


@pytest.mark.parametrize("name", NAMES)
def test_every_byte_is_read_or_refused(name: str) -> None:
    """Every pair that can stand in memory decodes as the format's table has it, or is refused."""
    form = formats.get(name)
    count = 1 << form.bits
    left, right = (a.ravel().astype(np.uint8) for a in np.mgrid[:count, :count])
    made = ~np.isnan(form.code_values).any(axis=2).ravel()
    codes = np.stack([left, right], axis=1)
    good = OutlierPairs.pack(codes[made], form)
    assert np.array_equal(good.decode(), form.code_values.reshape(-1, 2)[made])
    bad = codes[~made]
    assert len(bad)
    for pair in bad[:: max(1, len(bad) // 20)]:
        with pytest.raises(InputError, match="never makes"):
            OutlierPairs.pack(pair, form)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": np.array([0x3E], np.uint8)}, "data must have 2 entries, got 1"),
        ({"data": np.array([0x3E, 0x88], np.uint8)}, r"pair 1 is \(8, 8\)"),
        ({"data": np.array([0x3E, 0x88])}, "dtype uint8, got int64"),
        ({"shape": (4, 1)}, "must be even"),
        ({"format": formats.get("ovp_int8")}, "data must have 4 entries, got 2"),
    ],
)
def test_corrupt_data_is_refused(change: dict, message: str) -> None:
    """Truncation, mixed-up formats and impossible pairs get an error message."""
    record = OutlierPairs.encode(np.array([3.0, -2, 1, 24]), formats.get("ovp_int4"))
    with pytest.raises(InputError, match=message):
        replace(record, **change)


def test_codes_that_do_not_fit_are_refused() -> None:
    """A code of more bits, an odd axis or an odd width cannot be packed."""
    form = formats.get("ovp_int4")
    with pytest.raises(InputError, match="must fit 4 bits"):
        OutlierPairs.pack(np.array([1, 16], np.uint8), form)
    with pytest.raises(InputError, match="must be even"):
        OutlierPairs.pack(np.array([1, 2, 3], np.uint8), form)
    with pytest.raises(InputError, match="no NaN"):
        OutlierPairs.encode(np.array([1.0, np.nan]), form)
    with pytest.raises(InputError, match="at 4 or 8 bits a code, but ovp_int6"):
        OutlierPairs.encode(np.array([1.0, 2.0]), formats.get("ovp_int6_e2m3"))
