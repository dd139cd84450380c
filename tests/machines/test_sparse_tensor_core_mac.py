"""Is the tensor core's arithmetic what is documented? Kernel against twin, bounds, examples."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from sparqsim.simulator.mac import sparse_tensor_core as mac
from sparqsim.workloads import formats

LEAST = {"fp16": -14, "bf16": -126, "tf32": -126, "float8_e4m3fn": -6}


def in_format(values: NDArray[Any], name: str) -> NDArray[np.float32]:
    return formats.get(name).round(np.asarray(values)).astype(np.float32)


def positions(rng: np.random.Generator, rows: int, groups: int, n: int, m: int) -> NDArray[Any]:
    order = rng.random((rows, groups, m)).argsort(axis=2)[..., :n]
    return np.sort(order, axis=2).reshape(rows, -1).astype(np.uint8)


def added(
    values: Any, activations: Any, *, block: int = 8, bits: int = 24, least: int = -14,
    plain: bool = False, start: float = 0.0,
) -> float:  # fmt: skip
    """One dense sum, by the kernel or its twin."""
    left = np.array([values], np.float32)
    right = np.array([activations], np.float32)
    sums = np.full((1, 1), start, np.float32)
    multiply = mac.multiply_floats_plain if plain else mac.multiply_floats
    multiply(left, np.zeros(left.shape, np.uint8), 1, 1, right, least, block, bits, 24, sums)
    return float(sums[0, 0])


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    name=st.sampled_from(list(LEAST)),
    pattern=st.sampled_from([(1, 1), (2, 4), (1, 2), (3, 8), (4, 4)]),
    block=st.sampled_from([4, 8, 16]),
    bits=st.sampled_from([(23, 24), (24, 24), (25, 24), (26, 24), (13, 14), (20, 11)]),
    spread=st.integers(0, 24),
    power=st.sampled_from([0, 0, -20, -75]),
)
def test_the_float_kernel_is_its_twin(
    seed: int, name: str, pattern: tuple[int, int], block: int, bits: tuple[int, int],
    spread: int, power: int,
) -> None:  # fmt: skip
    """Bit by bit the kernel gives what exact fractions give, and both lie within the bound."""
    rng = np.random.default_rng(seed)
    n, m = pattern
    rows, columns, groups = 3, int(rng.integers(1, 2 * mac.TOGETHER + 2)), int(rng.integers(1, 8))

    def drawn(shape: tuple[int, ...]) -> NDArray[np.float32]:
        scale = 2.0 ** (power + rng.integers(-spread, spread + 1, shape))
        some = rng.random(shape) < 0.8
        return in_format(rng.normal(size=shape) * scale * some, name)

    values, activations = drawn((rows, groups * n)), drawn((columns, groups * m))
    places = positions(rng, rows, groups, n, m)
    least = LEAST[name]
    start = (rng.normal(size=(columns, rows)) * 4.0**power * (seed % 2)).astype(np.float32)
    fast, slow = start.copy(), start.copy()
    for multiply, sums in ((mac.multiply_floats, fast), (mac.multiply_floats_plain, slow)):
        multiply(values, places, n, m, activations, least, block, *bits, sums)
    assert (fast.view(np.uint32) == slow.view(np.uint32)).all()
    column = np.arange(groups * n) // n * m + places
    floor = 2.0**least
    for row in range(rows):
        chosen, kept = activations[:, column[row]].astype(float), values[row].astype(float)
        exact = chosen @ kept + start[:, row]
        large = np.where(chosen != 0, np.maximum(np.abs(chosen), floor), 0)
        size = large @ np.where(kept != 0, np.maximum(np.abs(kept), floor), 0)
        bound = mac.error_bound(size + np.abs(start[:, row]), groups * n, block, *bits)
        assert (np.abs(fast[:, row] - exact) <= bound).all()


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    pattern=st.sampled_from([(1, 1), (2, 4), (4, 8), (1, 256)]),
    size=st.sampled_from([8, 128, 2**20]),
)
def test_the_integer_kernel_is_its_twin(seed: int, pattern: tuple[int, int], size: int) -> None:
    """Whole numbers agree exactly, also where 32 bits wrap around."""
    rng = np.random.default_rng(seed)
    n, m = pattern
    groups, columns = 3, int(rng.integers(1, mac.TOGETHER + 3))
    values = rng.integers(-size, size, (4, groups * n)).astype(np.int32)
    activations = rng.integers(-size, size, (columns, groups * m)).astype(np.int32)
    places = positions(rng, 4, groups, n, m)
    fast = rng.integers(-(2**31), 2**31, (columns, 4)).astype(np.int32)
    slow = fast.copy()
    mac.multiply_integers(values, places, n, m, activations, fast)
    mac.multiply_integers_plain(values, places, n, m, activations, slow)
    assert (fast == slow).all()


@pytest.mark.parametrize("plain", [False, True])
def test_the_position_picks_the_activation(plain: bool) -> None:
    """2:4 by hand: kept at 1, 3 and at 0, 2: 10 x 2 + 20 x 4 + 30 x 5 + 40 x 7 = 530."""
    values = np.array([[10, 20, 30, 40]], np.int32)
    places = np.array([[1, 3, 0, 2]], np.uint8)
    sums = np.zeros((1, 1), np.int32)
    multiply = mac.multiply_integers_plain if plain else mac.multiply_integers
    multiply(values, places, 2, 4, np.arange(1, 9, dtype=np.int32)[None], sums)
    assert sums[0, 0] == 530


@pytest.mark.parametrize("plain", [False, True])
class TestPublishedBehaviour:
    """What experiments on V100, A100 and H100 show (Fasi et al.; Khattak and Mikaitis)."""

    def test_sums_are_cut_toward_zero(self, plain: bool) -> None:
        """1 + 2^-24 + 2^-24 is 1 + 2^-23 in a block: one extra bit; 1 + 2^-25 four times is 1."""
        one_extra_bit = added([1, 2.0**-12, 2.0**-12], [1, 2.0**-12, 2.0**-12], plain=plain)
        assert one_extra_bit == 1 + 2.0**-23
        small = [2.0**-13] * 4
        wide = [2.0**-12] * 4
        assert added([1, *small], [1, *wide], plain=plain) == 1.0
        assert added([1, *small], [1, *wide], bits=25, plain=plain) == 1 + 2.0**-23
        assert added([-1, 2.0**-12, -(2.0**-12)], [1, 2.0**-13, 0], plain=plain) == -1.0

    def test_no_extra_bit_loses_it(self, plain: bool) -> None:
        """Without the extra bit (V100) the same sum stays 1."""
        terms = [1, 2.0**-12, 2.0**-12]
        assert added(terms, terms, bits=23, plain=plain) == 1.0

    def test_a_block_is_aligned_at_once(self, plain: bool) -> None:
        """2^-28 is cut off beside 1 in a block, in any order; one by one the order decides."""
        for order in ([0, 1, 2], [0, 2, 1], [2, 0, 1]):
            terms = np.array([1, -1, 2.0**-14])[order]
            assert added(terms, np.abs(terms), plain=plain) == 0.0
        small = [1, 1, 2.0**-14]
        assert added([1, -1, 2.0**-14], small, block=1, plain=plain) == 2.0**-28
        assert added([2.0**-14, 1, -1], small[::-1], block=1, plain=plain) == 0.0

    def test_the_accumulator_takes_part(self, plain: bool) -> None:
        """The running sum is aligned with the block: 2^24 swallows 1, but not 2."""
        assert added([1], [1], start=2.0**25, plain=plain) == 2.0**25
        assert added([2, 2], [1, 1], start=2.0**25, plain=plain) == 2.0**25 + 4

    def test_subnormals_are_kept(self, plain: bool) -> None:
        """The least fp16 subnormal times 1 is itself."""
        assert added([2.0**-24], [1], plain=plain) == 2.0**-24

    def test_no_block_is_aligned_below_the_least(self, plain: bool) -> None:
        """2^-149 - 2^-158 and 2^-158 are cut at 2^(-133 - bits): with 24 bits, not 25, one is lost.

        Their sum is fp32's least number, which without a least alignment both would give.
        """
        left, right = [7 * 2.0**-79, 2.0**-79], [73 * 2.0**-79, 2.0**-79]
        assert added(left, right, bits=24, least=-126, plain=plain) == 0.0
        assert added(left, right, bits=25, least=-126, plain=plain) == 2.0**-149

    def test_a_sum_that_overflows_stays_infinite(self, plain: bool) -> None:
        """2^127 twice is infinite; less 2^127 in the same block it is not, in the next it stays."""
        back = [2.0**127, 2.0**127, -(2.0**127)]
        assert added(back, [1, 1, 1], least=-126, plain=plain) == 2.0**127
        assert added(back, [1, 1, 1], least=-126, block=2, plain=plain) == np.inf
        minus = [-each for each in back]
        assert added(minus, [1, 1, 1], least=-126, block=2, plain=plain) == -np.inf
        assert added([-1], [1], start=np.inf, plain=plain) == np.inf

    def test_products_are_exact_and_not_normalized(self, plain: bool) -> None:
        """1.5 x 1.5 = 2.25 has the exponent 0, so one bit more of it survives beside 2^-24."""
        assert added([1.5, 2.0**-12], [1.5, 2.0**-12], plain=plain) == 2.25
        kept = added([1.5, 2.0**-12, -1.5], [1.5, 2.0**-12, 1.5], plain=plain)
        assert kept == 2.0**-24


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    name=st.sampled_from(list(LEAST)),
    spread=st.integers(0, 90),
    bits=st.sampled_from([(24, 24), (25, 24), (13, 14)]),
)
def test_the_third_road_is_the_kernel(
    seed: int, name: str, spread: int, bits: tuple[int, int]
) -> None:
    """A block over arrays adds what the kernel adds, bit by bit, subnormal sums included."""
    rng = np.random.default_rng(seed)
    least, count = LEAST[name], 40

    def drawn() -> NDArray[np.float32]:
        scale = 2.0 ** rng.integers(-spread, 1, (count, 8))
        return in_format(rng.normal(size=(count, 8)) * scale * (rng.random((count, 8)) < 0.8), name)

    left, right = drawn(), drawn()
    total = (rng.normal(size=count) * 2.0 ** -(seed % 3 * spread)).astype(np.float32)
    doubles = (each.astype(float) for each in (total, left, right))
    again = mac.add_block(*doubles, least, *bits)
    for i in range(count):
        sums = total[i : i + 1, None].copy()
        places = np.zeros((1, 8), np.uint8)
        mac.multiply_floats(left[i : i + 1], places, 1, 1, right[i : i + 1], least, 8, *bits, sums)
        assert sums[0, 0] == again[i]


def test_a_sum_does_not_depend_on_how_its_depth_is_cut() -> None:
    """Stepping through the depth in whole blocks gives the same bits as one call."""
    rng = np.random.default_rng(5)
    values, activations = in_format(rng.normal(size=(4, 64)), "fp16"), in_format(
        rng.normal(size=(3, 128)), "fp16"
    )  # fmt: skip
    places = positions(rng, 4, 32, 2, 4)

    def run(spans: list[tuple[int, int]]) -> NDArray[np.float32]:
        sums = np.zeros((3, 4), np.float32)
        for low, high in spans:
            left = np.ascontiguousarray(values[:, low:high])
            right = np.ascontiguousarray(activations[:, 2 * low : 2 * high])
            kept = np.ascontiguousarray(places[:, low:high])
            mac.multiply_floats(left, kept, 2, 4, right, -14, 8, 24, 24, sums)
        return sums

    assert (run([(0, 64)]) == run([(0, 32), (32, 40), (40, 64)])).all()
