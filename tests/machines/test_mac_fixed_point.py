"""Does a fixed-point output follow from its sum as the definition says?"""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sparqsim.simulator.mac.dense import wrap
from sparqsim.simulator.mac.fixed_point import narrow, outputs_of, shift_for


def test_rounding_saturation_and_relu_by_hand() -> None:
    """A half goes away from zero; what is too large saturates; ReLU clips at 0."""
    values = np.array([5, 6, -6, -5, 1 << 40])
    for rounded in (
        lambda relu: narrow(values, 2, 16, relu),
        lambda relu: outputs_of(values, 48, 2, 16, relu),
    ):
        assert rounded(False).tolist() == [1, 2, -2, -1, 32767]
        assert rounded(True).tolist() == [1, 2, 0, 0, 32767]
    assert narrow(np.array([3]), -2, 16, relu=False).tolist() == [12]


@given(
    st.lists(st.integers(-(2**60), 2**60), min_size=1, max_size=8),
    st.integers(16, 60),
    st.integers(0, 40),
    st.booleans(),
)
def test_the_datapath_equals_the_definition(
    sums: list[int], width: int, shift: int, relu: bool
) -> None:
    """Wrapped registers, shifted, are exact sums modulo the width, divided."""
    exact = np.array(sums, np.int64)
    found = narrow(wrap(exact, width), shift, 16, relu)
    np.testing.assert_array_equal(found, outputs_of(exact, width, shift, 16, relu))


@given(st.lists(st.integers(-(2**50), 2**50), max_size=8), st.integers(2, 20))
def test_the_shift_is_the_least_that_fits(sums: list[int], bits: int) -> None:
    """With one bit less dropped the largest sum would not fit; no sum: nothing is dropped."""
    values = np.array(sums, np.int64)
    shift, most = shift_for(values, bits), (1 << (bits - 1)) - 1
    largest = int(np.abs(values).max(initial=0))
    assert largest >> shift <= most
    assert shift == 0 or largest >> (shift - 1) > most
