"""Is integer-only inference exact: requantization bit for bit, and the algebra of zero points?"""

from __future__ import annotations

import json
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from paths import DATA

from sparqsim.base import InputError
from sparqsim.workloads.quantize import fit
from sparqsim.workloads.requantize import (
    INT32_MAX,
    INT32_MIN,
    IntegerLinear,
    Multiplier,
    high_multiply,
    integer_product,
    requantize,
    requantize_one,
    rounding_shift,
)

VECTORS = json.loads((DATA / "requant_vectors.json").read_text())["rows"]

int32 = st.integers(INT32_MIN, INT32_MAX)
factors = st.floats(1e-30, 2.0**30)


@pytest.mark.parametrize("row", VECTORS)
def test_vectors(row: list[float]) -> None:
    """Multiplier, shift and every output equal vectors computed apart from this project."""
    factor, m0_q31, shift, acc, result, as_uint8, as_int8 = row
    multiplier = Multiplier.of(factor)
    assert (multiplier.m0_q31, multiplier.right_shift) == (m0_q31, shift)
    wide = {"low": INT32_MIN, "high": INT32_MAX}
    one = np.array([int(acc)])
    assert requantize(one, multiplier, **wide)[0] == result
    assert requantize_one(int(acc), multiplier, **wide) == result
    assert requantize(one, multiplier, 128, 0, 255)[0] == as_uint8
    assert requantize(one, multiplier, 0)[0] == as_int8


@given(int32, int32)
@example(INT32_MIN, INT32_MIN)
@example(-(2**30), 1)
@example(-3 * 2**30, 1)
def test_high_multiply_rounds_a_half_up(a: int, b: int) -> None:
    """The product over 2**31 is the nearest integer, a half upwards; only (-2**31)^2 saturates."""
    exact = Fraction(a * b, 2**31) + Fraction(1, 2)
    nearest = exact.numerator // exact.denominator
    assert high_multiply(a, b) == min(nearest, INT32_MAX)
    assert (nearest > INT32_MAX) == (a == b == INT32_MIN)


@given(int32, st.integers(0, 70))
@example(INT32_MIN, 31)
@example(INT32_MIN, 32)
@example(INT32_MAX, 31)
@example(INT32_MIN, 33)
def test_rounding_shift_is_half_away_from_zero(x: int, n: int) -> None:
    """The shift divides by 2**n, a half away from zero, also by more than 31."""
    magnitude = Fraction(abs(x), 2**n) + Fraction(1, 2)
    rounded = magnitude.numerator // magnitude.denominator
    assert rounding_shift(x, n) == (rounded if x >= 0 else -rounded)


@given(st.lists(int32, min_size=1, max_size=8), factors, st.integers(-200, 200))
@example([INT32_MIN, INT32_MAX, -1, 0], 1e-30, 0)
@example([INT32_MIN, INT32_MAX, -1, 1], 2.0**30, 3)
@example([INT32_MIN, INT32_MAX, -1, 1], 1.0, 0)
def test_kernel_equals_plain_twin(accs: list[int], factor: float, zero_point: int) -> None:
    """The compiled kernel and the definition in Python integers agree on everything."""
    multiplier = Multiplier.of(factor)
    compiled = requantize(np.array(accs), multiplier, zero_point, -300, 300)
    assert compiled.tolist() == [requantize_one(a, multiplier, zero_point, -300, 300) for a in accs]


@given(int32, st.floats(1e-6, 0.999))
def test_two_roundings_err_by_at_most_one(acc: int, factor: float) -> None:
    """The result is within one of M * acc, with M as the multiplier holds it."""
    multiplier = Multiplier.of(factor)
    result = requantize_one(acc, multiplier, 0, INT32_MIN, INT32_MAX)
    exact = acc * Fraction(multiplier.m0_q31, 2 ** (31 + multiplier.right_shift))
    assert abs(result - exact) <= 1


@given(factors)
@example(1.0 - 2.0**-40)
@example(np.nextafter(0.5, 0))
def test_multiplier_is_normal_and_near(factor: float) -> None:
    """M0 lies in [.5, 1) and the factor is met within 2**-31."""
    multiplier = Multiplier.of(factor)
    assert 2**30 <= multiplier.m0_q31 < 2**31
    assert abs(multiplier.value / factor - 1) <= 2.0**-31


def test_a_multiplier_each_channel() -> None:
    """The last axis is the channel, each with its own factor, in any number of dimensions."""
    acc = np.arange(-12, 12).reshape(2, 3, 4) * 1000
    row = [Multiplier.of(m) for m in (0.5, 0.001, 0.03, 2.5)]
    out = requantize(acc, row, 3)
    for place in np.ndindex(acc.shape):
        assert out[place] == requantize_one(int(acc[place]), row[place[-1]], 3)
    assert requantize(np.zeros((0, 4), np.int32), row).shape == (0, 4)


@given(st.data())
def test_zero_point_algebra(data: st.DataObject) -> None:
    """Codes multiplied first and corrected after equal the product of the shifted codes."""
    m, n, k = (data.draw(st.integers(1, 6)) for _ in range(3))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    q_x, q_w = rng.integers(0, 256, (m, k)), rng.integers(-128, 128, (n, k))
    z_x = rng.integers(0, 256, m) if data.draw(st.booleans()) else int(rng.integers(0, 256))
    z_w = rng.integers(-128, 128, n) if data.draw(st.booleans()) else int(rng.integers(-128, 128))
    direct = (q_x - np.reshape(z_x, (-1, 1))) @ (q_w - np.reshape(z_w, (-1, 1))).T
    assert np.array_equal(integer_product(q_x, q_w, z_x, z_w), direct)


@pytest.mark.parametrize("asymmetric_weights", [False, True])
def test_integer_layer_follows_the_float_layer(asymmetric_weights: bool) -> None:
    """Integers alone give the float output within what quantizing both operands can change.

    Half a step of one operand times the other, summed; half a step of the bias' scale; one step
    of the output for its two roundings.
    """
    rng = np.random.default_rng(1)
    w, bias, x = rng.normal(size=(5, 24)), rng.normal(size=5), rng.normal(0.5, 1, size=(7, 24))
    y = x @ w.T + bias
    f_w = fit(w, "int8_signed", axis=0, asymmetric=asymmetric_weights)
    f_x = fit(x, "int8_unsigned", asymmetric=True)
    f_y = fit(y, "int8_signed", asymmetric=True)
    assert f_x.zero_point is not None and f_y.zero_point is not None
    layer = IntegerLinear.build(
        f_w.quantize(w).integers(),
        scale_w=f_w.scale,
        zero_w=0 if f_w.zero_point is None else f_w.zero_point,
        scale_x=float(f_x.scale[0]),
        zero_x=int(f_x.zero_point[0]),
        scale_y=float(f_y.scale[0]),
        zero_y=int(f_y.zero_point[0]),
        bias=bias,
        input_range=(0, 255),
    )
    q_y = layer(f_x.quantize(x).integers())
    assert q_y.min() >= -128 and q_y.max() <= 127
    s_w, s_x, s_y = f_w.scale.astype(float), float(f_x.scale[0]), float(f_y.scale[0])
    bound = np.abs(x).sum(axis=1)[:, None] * s_w / 2 + np.abs(w).sum(axis=1) * s_x / 2
    bound += 24 * s_w * s_x / 4 + s_w * s_x / 2 + s_y
    error = np.abs((q_y - f_y.zero_point[0]) * s_y - y)
    assert (error <= bound).all()
    assert np.square(error).sum() < 1e-3 * np.square(y).sum()


def test_precomputed_term_is_the_algebra() -> None:
    """The offset computed ahead gives the accumulators of the shifted codes, exactly."""
    rng = np.random.default_rng(3)
    q_w, q_x = rng.integers(-128, 128, (4, 10)), rng.integers(0, 256, (6, 10))
    zero_w = np.array([0, 5, -7, 1])
    layer = IntegerLinear.build(
        q_w, scale_w=0.5, scale_x=0.25, scale_y=1.0, zero_w=zero_w, zero_x=117,
        bias=np.array([0.0, 1.0, -1.0, 0.125]), input_range=(0, 255),
    )  # fmt: skip
    direct = (q_x - 117) @ (q_w - zero_w[:, None]).T + [0, 8, -8, 1]
    assert np.array_equal(layer.accumulate(q_x), direct)


def matmul_integer(onnx: Any) -> Any:
    """A model of one MatMulInteger: u8 [5, 33] by s8 [33, 7], each with a zero point."""
    helper = onnx.helper
    node = helper.make_node("MatMulInteger", ["a", "b", "za", "zb"], ["y"])
    kinds = {"a": (onnx.TensorProto.UINT8, [5, 33]), "b": (onnx.TensorProto.INT8, [33, 7])}
    kinds |= {"za": (onnx.TensorProto.UINT8, []), "zb": (onnx.TensorProto.INT8, [])}
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info(k, *v) for k, v in kinds.items()],
        [helper.make_tensor_value_info("y", onnx.TensorProto.INT32, [5, 7])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def test_matmulinteger_of_onnx() -> None:
    """The product with zero points equals ONNX's MatMulInteger as its reference computes it, over
    the whole range of codes, and as onnxruntime does where every CPU must be right.

    Without VNNI onnxruntime adds pairs of u8 x s8 products in 16 bits, which saturate from
    2 * 255 * 65 on; within -64 to 63 no pair can, so only those weights ask it.
    """
    onnx = pytest.importorskip("onnx")
    reference = pytest.importorskip("onnx.reference")
    ort = pytest.importorskip("onnxruntime")
    model, rng = matmul_integer(onnx), np.random.default_rng(0)
    runs = {
        128: lambda feed: reference.ReferenceEvaluator(model).run(None, feed),
        64: lambda feed: ort.InferenceSession(
            model.SerializeToString(), providers=["CPUExecutionProvider"]
        ).run(None, feed),
    }
    for largest, run in runs.items():
        q_x = rng.integers(0, 256, (5, 33), dtype=np.uint8)
        q_w = rng.integers(-largest, largest, (7, 33), dtype=np.int8)
        feed = {"a": q_x, "b": q_w.T.copy(), "za": np.uint8(131), "zb": np.int8(-3)}
        (theirs,) = run({k: np.asarray(v) for k, v in feed.items()})
        assert np.array_equal(integer_product(q_x, q_w, 131, -3), theirs)


@pytest.mark.parametrize("factor", [0.0, -0.5, float("nan"), float("inf"), 2.0**31])
def test_factors_that_cannot_be(factor: float) -> None:
    """A factor that is not positive and finite is refused."""
    with pytest.raises(InputError, match="factor"):
        Multiplier.of(factor)


def test_bad_accumulators() -> None:
    """Accumulators that are real, beyond int32, or do not fit the multipliers are refused."""
    half = Multiplier.of(0.5)
    with pytest.raises(InputError, match="integers"):
        requantize(np.array([1.5]), half)
    with pytest.raises(InputError, match="fit int32"):
        requantize(np.array([2**31]), half)
    with pytest.raises(InputError, match="3 channels, 2 multipliers"):
        requantize(np.zeros((2, 3), int), [half, half])
    with pytest.raises(InputError, match="low <= high"):
        requantize(np.zeros(3, int), half, 0, 5, 4)
    with pytest.raises(InputError, match="zero point"):
        requantize(np.zeros(3, int), half, 2**40)


def test_bad_layers() -> None:
    """A layer whose accumulator could overflow, or whose parts do not fit, is never built."""
    good = {"scale_w": 0.1, "scale_x": 0.1, "scale_y": 0.1}
    with pytest.raises(InputError, match="more than int32"):
        IntegerLinear.build(np.full((1, 200_000), 127), **good)
    with pytest.raises(InputError, match="more than int32"):
        IntegerLinear.build(np.ones((1, 4), int), bias=np.array([1e9]), **good)
    with pytest.raises(InputError, match="scale_y must be positive"):
        IntegerLinear.build(np.ones((1, 4), int), scale_w=1, scale_x=1, scale_y=0)
    with pytest.raises(InputError, match="one for each of 2 outputs"):
        IntegerLinear.build(np.ones((2, 4), int), scale_w=[1, 1, 1], scale_x=1, scale_y=1)
    with pytest.raises(InputError, match="NaN or inf"):
        IntegerLinear.build(np.ones((1, 4), int), bias=np.array([np.nan]), **good)
    with pytest.raises(InputError, match="integers"):
        IntegerLinear.build(np.ones((1, 4)), **good)
    with pytest.raises(InputError, match=r"\(M, K\)"):
        integer_product(np.ones((2, 3), int), np.ones((2, 4), int))
    with pytest.raises(InputError, match=r"2\*\*53"):
        integer_product(np.full((1, 4), 2**27), np.full((1, 4), 2**27))
