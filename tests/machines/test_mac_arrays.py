"""Do the array machines' MAC cores compute what integers say, and equal their plain twins?

Kernels against twins on random operands, both against numpy's integer products; BitBricks and
exponent-integer elements exhaustively over every pair of codes; unfolding against torch's rule,
written as loops.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparqsim.base import InputError
from sparqsim.simulator.mac import bitbrick, dense, flint, olive
from sparqsim.workloads import formats

BITS = st.sampled_from((2, 4, 8))
TYPES = tuple(
    f"{kind}_{sign}"
    for kind in ("int4", "flint4", "pot4", "float_e2_4", "float_e3_4")
    for sign in ("signed", "unsigned")
)
seeds = st.integers(0, 2**32 - 1)


def every(bits: int, signed: bool) -> np.ndarray:
    low = -(1 << (bits - 1)) if signed else 0
    return np.arange(low, low + (1 << bits))


@pytest.mark.parametrize("bits", list(itertools.product((2, 4, 8), repeat=2)))
@pytest.mark.parametrize("signed", list(itertools.product((False, True), repeat=2)))
def test_bricks_multiply_every_pair_of_operands(bits, signed) -> None:
    """All pairs of 2, 4 and 8 bits, signed and unsigned: the product is the product."""
    left, right = every(bits[0], signed[0]), every(bits[1], signed[1])
    products = bitbrick.gemm(left[:, None], right[None, :], bits, signed)
    assert np.array_equal(products, np.outer(left, right))


@pytest.mark.parametrize("signed", list(itertools.product((False, True), repeat=2)))
def test_a_brick_is_a_two_bit_multiplier(signed) -> None:
    """All 16 pairs of fields, by the definition of two's complement; within -6 to 9."""
    for a, w in itertools.product(range(4), repeat=2):
        left = a - 4 * (a >> 1) if signed[0] else a
        right = w - 4 * (w >> 1) if signed[1] else w
        assert bitbrick.brick(a, w, *signed) == left * right
        assert -6 <= left * right <= 9


@settings(deadline=None, max_examples=40)
@given(seeds, st.tuples(BITS | st.just(16), BITS | st.just(16)), st.tuples(*[st.booleans()] * 2))
def test_brick_arrays_equal_single_bricks(seed, bits, signed) -> None:
    """The digit-wise products are the specification's sums, 16 bits and wrapping included."""
    rng = np.random.default_rng(seed)
    m, n, k = rng.integers(1, 4, 3)
    a = rng.choice(every(bits[0], signed[0]), (m, k))
    w = rng.choice(every(bits[1], signed[1]), (k, n))
    found = bitbrick.gemm(a, w, bits, signed)
    assert np.array_equal(found, bitbrick.gemm_plain(a, w, bits, signed))
    assert np.array_equal(found, dense.wrap(a.astype(np.int64) @ w.astype(np.int64)))


@pytest.mark.parametrize(
    ("values", "bits", "signed", "said"),
    [
        ([4], 2, False, "0 to 3"),
        ([-3], 2, True, "-2 to 1"),
        ([128], 8, True, "-128 to 127"),
        ([0], 3, True, "whole 2-bit digits"),
        ([0], 0, True, "whole 2-bit digits"),
    ],
)
def test_operands_that_do_not_fit_are_refused(values, bits, signed, said) -> None:
    """A digit lost in silence would be a wrong product."""
    with pytest.raises(InputError, match=said):
        bitbrick.digits(np.array(values), bits, signed)


def test_a_reduction_that_could_round_is_refused() -> None:
    """Float32 adds whole numbers exactly below 2^24 only; the longest allowed stays below."""
    longest = bitbrick.MOST_PRODUCTS
    a = np.full((1, longest), -(2**15))
    assert bitbrick.gemm(a, a.T, (16, 16), (True, True))[0, 0] == dense.wrap_one(longest << 30)
    with pytest.raises(InputError, match=f"at most {longest} long, got {longest + 1}"):
        long = np.zeros((1, longest + 1), int)
        bitbrick.gemm(long, long.T, (2, 2), (True, True))


@settings(deadline=None, max_examples=60)
@given(seeds, st.sampled_from((7, 100, 2**15)))
def test_dense_kernel_equals_its_twin(seed, largest) -> None:
    """Any shape, zeros, sums that wrap around 32 bits."""
    rng = np.random.default_rng(seed)
    m, n, k = rng.integers(1, 10, 3)
    a = rng.integers(-largest, largest + 1, (m, k)).astype(np.int32)
    w = rng.integers(-largest, largest + 1, (k, n)).astype(np.int32)
    a[rng.random(a.shape) < 0.3] = 0
    start = rng.integers(-(2**31), 2**31, (m, n)).astype(np.int32)
    found, plain = start.copy(), start.copy()
    dense.gemm(a, w, found)
    dense.gemm_plain(a, w, plain)
    assert np.array_equal(found, plain)
    assert np.array_equal(found, dense.wrap(start + a.astype(np.int64) @ w.astype(np.int64)))
    assert dense.effectual(a, w) == sum(
        bool(a[i, j] and w[j, o]) for i in range(m) for j in range(k) for o in range(n)
    )


@settings(deadline=None, max_examples=40)
@given(
    seeds,
    st.tuples(*[st.integers(1, 3)] * 2),
    st.tuples(*[st.integers(1, 3)] * 2),
    st.tuples(*[st.integers(0, 2)] * 4),
    st.tuples(*[st.integers(1, 2)] * 2),
    st.sampled_from((1, 2, 4)),
)
def test_unfolded_products_are_convolutions(seed, kernel, stride, padding, dilation, groups):
    """Strides, dilation, uneven padding, groups and depthwise: im2col, taps and loops agree."""
    rng = np.random.default_rng(seed)
    batch, each, wide = (int(v) for v in rng.integers(1, 3, 3))
    x = rng.integers(-7, 8, (batch, groups * each, 5, 6)).astype(np.int32)
    w = rng.integers(-7, 8, (groups * wide, each, *kernel)).astype(np.int32)
    rows = dense.unfold(x, kernel, stride, padding, dilation, groups)
    columns = dense.unfold_weights(w, groups)
    by_tap = dense.convolve_levels(x, w, stride, padding, dilation, groups)
    unfolded = dense.fold_outputs(rows.astype(np.int64) @ columns, batch, by_tap.shape[2:])
    assert np.array_equal(unfolded, by_tap)
    padded = np.pad(x, ((0, 0), (0, 0), padding[::2], padding[1::2]))
    for b, o, y, z in np.ndindex(*by_tap.shape):
        first = o // wide * each
        total = 0
        for c, i, j in np.ndindex(each, *kernel):
            at = (y * stride[0] + i * dilation[0], z * stride[1] + j * dilation[1])
            total += int(padded[b, first + c, at[0], at[1]]) * int(w[o, c, i, j])
        assert by_tap[b, o, y, z] == total


def test_a_reference_that_could_round_is_refused() -> None:
    """Float64 is exact below 2^53 only."""
    x, w = np.full((1, 1, 1, 1), 2.0**30), np.full((1, 1, 1, 1), 2.0**30)
    with pytest.raises(InputError, match="float64"):
        dense.convolve_levels(x, w, (1, 1), (0, 0, 0, 0), (1, 1), 1)


@pytest.mark.parametrize("names", list(itertools.product(TYPES, repeat=2)))
def test_exponent_integers_multiply_every_pair_of_codes(names) -> None:
    """Every code by every code of ANT's types: the products of the decoded values.

    Exponents below 0 are raised for the whole type, as the border decoder does.
    """
    tables, values = [], []
    for name in names:
        grid = formats.get(name)
        exponents, integers = grid.exponent_integers
        raised = max(0, -int(exponents.min()))
        tables.append(flint.decode(np.arange(16, dtype=np.uint8), exponents + raised, integers))
        values.append(grid.code_values * 2.0**raised)
    (ea, ia), (ew, iw) = tables
    products = np.zeros((16, 16), np.int32)
    flint.gemm(ea[:, None], ia[:, None], ew[None, :], iw[None, :], products)
    assert np.array_equal(products, dense.wrap(np.outer(*values)))


def test_a_gang_of_four_multiplies_every_pair_of_bytes() -> None:
    """256 x 256 signed, and unsigned, bytes by four 4-bit elements."""
    for low in (-128, 0):
        whole = np.arange(low, low + 256)
        products = flint.gemm_terms(flint.gang(whole[:, None]), flint.gang(whole[None, :]))
        assert np.array_equal(products, np.outer(whole, whole))


@settings(deadline=None, max_examples=40)
@given(seeds)
def test_exponent_integer_kernel_equals_its_twin(seed) -> None:
    """Any exponents to 20 each: shifts beyond the accumulator leave nothing."""
    rng = np.random.default_rng(seed)
    m, n, k = rng.integers(1, 6, 3)
    ea, ew = rng.integers(0, 21, (m, k)), rng.integers(0, 21, (k, n))
    ia, iw = rng.integers(-15, 16, (m, k)), rng.integers(-15, 16, (k, n))
    found, plain = np.zeros((2, m, n), np.int32)
    operands = [part.astype(np.int32) for part in (ea, ia, ew, iw)]
    flint.gemm(*operands, found)
    flint.gemm_plain(*operands, plain)
    assert np.array_equal(found, plain)


def tables(grid) -> tuple[np.ndarray, np.ndarray]:
    """(exponent, integer) of each code as normal value and as outlier."""
    normal, outlier = grid.normal.exponent_integers, grid.outlier.exponent_integers
    return tuple(np.stack(pair, axis=1).astype(np.int32) for pair in (normal, outlier))


@pytest.mark.parametrize("name", ["ovp_int4", "ovp_flint4", "ovp_int8"])
def test_decoders_read_every_pair_of_codes(name) -> None:
    """Every pair that encoding can make: kernel, twin and the format's table give its values."""
    grid = formats.get(name)
    pairs = np.argwhere(~np.isnan(grid.code_values).any(axis=2)).astype(grid.code_dtype)
    flat = pairs.reshape(-1)
    normal, outlier = tables(grid)
    exponents, integers, plain_e, plain_i = np.zeros((4, flat.size), np.int32)
    count = olive.decode_pairs(flat, grid.identifier, normal, outlier, exponents, integers)
    values = integers.astype(np.int64) << exponents
    wanted = grid.code_values[pairs[:, 0].astype(int), pairs[:, 1].astype(int)].reshape(-1)
    assert np.array_equal(values, wanted)
    assert count == np.count_nonzero(flat == grid.identifier)
    small = flat[: 2 * 4096]
    again = olive.decode_pairs_plain(small, grid.identifier, normal, outlier, plain_e, plain_i)
    assert again == np.count_nonzero(small == grid.identifier)
    assert np.array_equal(plain_e[: small.size], exponents[: small.size])
    assert np.array_equal(plain_i[: small.size], integers[: small.size])


@pytest.mark.parametrize("name", ["ovp_int4", "ovp_flint4", "ovp_int8"])
def test_pair_products_are_products_of_values(name) -> None:
    """Outliers and normal values by each other, 8 bits as gangs; wrapped to 32 bits."""
    grid = formats.get(name)
    rng = np.random.default_rng(5)
    normal, outlier = tables(grid)
    codes = [
        grid.encode(rng.standard_t(2, shape) * grid.normal.values[-1] / 3)
        for shape in ((5, 24), (7, 24))
    ]
    (left, found), (right, _) = (
        olive.operand(c, grid.bits, grid.identifier, normal, outlier) for c in codes
    )
    assert found > 0
    products = flint.gemm_terms(left, [(e.T, i.T) for e, i in right])
    values = [grid.decode(c).astype(np.int64) for c in codes]
    assert np.array_equal(products, dense.wrap(values[0] @ values[1].T))


def test_an_odd_axis_has_no_pairs() -> None:
    """Half a pair cannot be read."""
    grid = formats.get("ovp_int4")
    with pytest.raises(InputError, match="even last axis"):
        olive.operand(np.zeros((2, 3), np.uint8), 4, grid.identifier, *tables(grid))
