"""Does quantization do what its definition says: against loops, torch, onnxruntime, the papers?"""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paths import DATA

from sparqsim.base import InputError
from sparqsim.workloads import formats
from sparqsim.workloads.adaptive import (
    ANT_SCAN,
    OLIVE_SCAN,
    ant_candidates,
    fit_ant,
    fit_olive,
    pair_statistics,
)
from sparqsim.workloads.formats.pairs import outlier_victim
from sparqsim.workloads.observers import Observer
from sparqsim.workloads.quantize import Quantizer, fit, quantize, sqnr_db, vanished
from sparqsim.workloads.slices import Slices

seeds = st.integers(0, 2**32 - 1)
OLIVE = json.loads((DATA / "olive_vectors.json").read_text())["rows"]

# The 4 x 4 example of the lecture: a tensor, its 2-bit codes, scale and zero point.
LECTURE = np.array(
    [
        [2.09, -0.98, 1.48, 0.09],
        [0.05, -0.14, -1.08, 2.12],
        [-0.91, 1.92, 0.0, -1.03],
        [1.87, 0.0, 1.53, 1.49],
    ]
)
LECTURE_CODES = [[1, -2, 0, -1], [-1, -1, -2, 1], [-2, 1, -1, -2], [1, -1, 0, 0]]


def test_the_lecture_example() -> None:
    """Scale 3.2 / 3 (printed as 1.07), zero point -1, and each of the sixteen codes."""
    q = quantize(LECTURE, "int2_signed", asymmetric=True)
    assert q.scale[0] == pytest.approx(3.2 / 3)
    assert q.zero_point is not None and q.zero_point.tolist() == [-1]
    assert q.integers().tolist() == LECTURE_CODES
    np.testing.assert_allclose(q.dequantize(), (np.array(LECTURE_CODES) + 1) * 3.2 / 3, rtol=1e-6)
    assert q.bits() == 16 * 2 + 32 + 2


@given(seeds, st.integers(2, 8), st.booleans(), st.sampled_from([None, 0, 1]))
@settings(deadline=None)
def test_affine_by_definition(seed: int, bits: int, asymmetric: bool, axis: int | None) -> None:
    """Each code is clamp(round(x/S) + Z), each error at most half a step, zero exact."""
    rng = np.random.default_rng(seed)
    x = rng.normal(rng.normal(), 1, (4, 6)) * 10.0 ** rng.integers(-5, 5)
    x[0, 0] = 0
    q = quantize(x, f"int{bits}_signed", axis=axis, asymmetric=asymmetric)
    slices = Slices(axis)
    codes, back = slices.split(q.integers()), slices.split(q.dequantize())
    for i, row in enumerate(slices.split(x)):
        scale = float(q.scale[i])
        zero = 0 if q.zero_point is None else int(q.zero_point[i])
        low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
        assert codes[i].tolist() == [min(max(round(v / scale) + zero, low), high) for v in row]
        # Rounding the zero point can move the range by half a step, so clip up to one.
        assert np.abs(back[i] - row).max() <= scale * (1 if asymmetric else 0.5) * (1 + 1e-6)
    assert q.dequantize()[0, 0] == 0


@given(seeds, st.sampled_from(["flint4_signed", "pot4_signed", "int4_signed", "int8_signed"]))
@settings(deadline=None)
def test_quantizing_twice_changes_nothing(seed: int, name: str) -> None:
    """What was rounded to a grid is on it: rounding again gives the same codes."""
    x = np.random.default_rng(seed).standard_t(3, (5, 8)).astype(np.float32)
    quantizer = fit(x, name, axis=0)
    once = quantizer.quantize(x)
    assert np.array_equal(quantizer.quantize(once.dequantize()).codes, once.codes)


@pytest.mark.parametrize("name", ["int4_signed", "flint4_signed", "pot4_signed", "ovp_int4"])
@pytest.mark.parametrize(("axis", "group"), [(None, None), (0, None), (1, None), (0, 4), (1, 2)])
def test_slices_are_quantized_apart(name: str, axis: int | None, group: int | None) -> None:
    """A slice is quantized as if it were a tensor of its own."""
    grid = outlier_victim("int", 4) if name == "ovp_int4" else formats.get(name)
    x = np.random.default_rng(7).standard_t(3, (4, 8, 3)[: 2 if group == 2 else 3])
    if name == "ovp_int4" and axis == 1 and x.ndim == 2 and group is None:
        x = x[:, :6]
    slices = Slices(axis, group)
    q = quantize(x, grid, axis=axis, group=group)
    rows, back = slices.split(x), slices.split(q.dequantize())
    assert len(q.scale) == len(rows)
    for i, row in enumerate(rows):
        alone = quantize(row, grid)
        assert alone.scale[0] == q.scale[i]
        assert np.array_equal(alone.dequantize(), back[i])
    assert q.bits() == x.size * grid.bits + 32 * len(rows)
    assert q.codes.shape == q.dequantize().shape == x.shape


@pytest.mark.parametrize("name", formats.names())
def test_every_format_serves(name: str) -> None:
    """Any format quantizes through the same call, and decoding is its own decoding, scaled."""
    grid = formats.get(name)
    x = np.random.default_rng(0).normal(size=(6, 8)).astype(np.float32)
    x = np.abs(x) if grid.values[0] >= 0 else x
    q = quantize(x, name, axis=0)
    expected = grid.decode(q.codes) * q.scale[:, None].astype(np.float64)
    np.testing.assert_allclose(q.dequantize(), expected, rtol=1e-6)
    assert q.sqnr_db(x) > 0
    assert int(q.codes.max()) < 2**grid.bits


@pytest.mark.parametrize("grid", ["int4_narrow", "flint4_signed", "sign"])
@pytest.mark.parametrize("axis", [None, 0, 1])
def test_a_short_last_group_is_a_group(grid: str, axis: int | None) -> None:
    """With ``ragged`` the rest of a slice has a scale of its own, found on those values alone."""
    x = np.random.default_rng(0).normal(size=(6, 50)).astype(np.float32)
    whole = quantize(x, grid, axis=axis, group=32, ragged=True)
    lines = x.reshape(1, -1) if axis is None else x if axis == 0 else x.T
    parts = [line[low : low + 32] for line in lines for low in range(0, len(line), 32)]
    expected = [quantize(part, grid) for part in parts]
    np.testing.assert_allclose(whole.scale, np.concatenate([each.scale for each in expected]), 1e-6)
    rows = np.concatenate([each.dequantize() for each in expected]).reshape(lines.shape)
    found = whole.dequantize()
    found = found.reshape(1, -1) if axis is None else found
    np.testing.assert_allclose(found, rows.T if axis == 1 else rows, 1e-6)


@pytest.mark.parametrize("size", [1e-38, 1e-40])
@pytest.mark.parametrize("asymmetric", [False, True])
def test_a_dead_channel_becomes_zero(size: float, asymmetric: bool) -> None:
    """A channel whose scale no normal float32 holds is zero; the others are as without it."""
    x = np.random.default_rng(0).normal(size=(4, 16)).astype(np.float32)
    x[2] *= np.float32(size)
    q = quantize(x, "int8_signed", axis=0, asymmetric=asymmetric)
    assert not q.dequantize()[2].any() and q.scale[2] == 1
    assert vanished(x, q.quantizer) == 1
    rest = [0, 1, 3]
    alone = quantize(x[rest], "int8_signed", axis=0, asymmetric=asymmetric)
    np.testing.assert_array_equal(q.dequantize()[rest], alone.dequantize())
    assert vanished(x[rest], alone.quantizer) == 0


def test_one_bit_covers_what_it_can() -> None:
    """A signed bit holds 0 and -1: its scale is the least value's size."""
    q = quantize(np.array([-3.0, -1.0, 2.0]), "int1_signed")
    np.testing.assert_array_equal(q.dequantize(), [-3.0, 0.0, 0.0])
    np.testing.assert_array_equal(
        quantize(np.array([0.0, 1.0, 4.0]), "int1_unsigned").dequantize(), [0.0, 0.0, 4.0]
    )


@pytest.mark.parametrize("kind", ["bfloat16", "float8_e4m3fn", "float8_e5m2"])
def test_narrow_floats_are_numbers(kind: str) -> None:
    """Arrays of ml_dtypes quantize as the float32 they stand for."""
    dtype = getattr(pytest.importorskip("ml_dtypes"), kind)
    x = np.random.default_rng(0).normal(size=64).astype(dtype)
    np.testing.assert_array_equal(
        quantize(x, "int8_signed").codes, quantize(x.astype(np.float32), "int8_signed").codes
    )


def test_static_differs_from_dynamic() -> None:
    """A calibrated quantizer keeps its range: beyond it values saturate at the ends."""
    observer = Observer()
    observer.update(np.array([-1.0, 1.0]))
    quantizer = fit(observer, "int8_narrow")
    assert quantizer.round(np.array([5.0, -5.0, 0.5])).tolist() == pytest.approx(
        [1.0, -1.0, 64 / 127]
    )
    assert quantize(np.array([5.0, -5.0]), "int8_narrow").dequantize().tolist() == [5.0, -5.0]


def test_fake_quantize_of_torch() -> None:
    """Given scale and zero point, rounding equals torch's, but where x / S is a tie in float32.

    torch multiplies by 1/S where we divide: results can differ by a step where x/S is within the
    rounding of a half.
    """
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(11)
    x = rng.normal(size=(16, 500)).astype(np.float32)
    per_tensor = fit(x, "int8_unsigned", asymmetric=True)
    assert per_tensor.zero_point is not None
    theirs = torch.fake_quantize_per_tensor_affine(
        torch.from_numpy(x), float(per_tensor.scale[0]), int(per_tensor.zero_point[0]), 0, 255
    ).numpy()
    same = per_tensor.round(x) == pytest.approx(theirs, rel=1e-6, abs=1e-7)
    tie = np.abs(np.abs(x / per_tensor.scale[0]) % 1 - 0.5) < 1e-4
    assert same or (np.abs(per_tensor.round(x) - theirs)[~tie] < 1e-5).all()
    per_channel = fit(x, "int4_signed", axis=0, asymmetric=True)
    assert per_channel.zero_point is not None
    theirs = torch.fake_quantize_per_channel_affine(
        torch.from_numpy(x),
        torch.from_numpy(per_channel.scale),
        torch.from_numpy(per_channel.zero_point),
        0,
        -8,
        7,
    ).numpy()
    tie = np.abs(np.abs(x / per_channel.scale[:, None]) % 1 - 0.5) < 1e-4
    assert tie.mean() < 0.01
    assert (np.abs(per_channel.round(x) - theirs)[~tie] < 1e-5).all()


@pytest.mark.parametrize(
    ("grid", "low", "high", "asymmetric", "axis", "group"),
    [
        ("int4", -7, 7, False, 0, 32),
        ("int4", -8, 7, True, 0, 32),
        ("int4_unsigned", 0, 15, True, 0, 64),
        ("int8", -127, 127, False, 0, None),
        ("int8", -128, 127, True, 0, None),
        ("int8_unsigned", 0, 255, True, None, None),
    ],
)
def test_affine_primitives_of_torchao(
    grid: str, low: int, high: int, asymmetric: bool, axis: int | None, group: int | None
) -> None:
    """Scales (to the last bit or one), zero points and codes equal torchao's, by group too.

    torchao multiplies by 1/S where we divide, so a code may differ where x/S is nearly a tie.
    Symmetric ranges are those of the same sign-magnitude span: torchao's own -8 .. 7 clips.
    """
    torch = pytest.importorskip("torch")
    ao = pytest.importorskip("torchao.quantization.quant_primitives")
    x = np.random.default_rng(7).standard_t(3, (16, 128)).astype(np.float32)
    ours = quantize(x, grid, axis=axis, group=group, asymmetric=asymmetric)
    block = (16 if axis is None else 1, group or 128)
    kind = ao.MappingType.ASYMMETRIC if asymmetric else ao.MappingType.SYMMETRIC
    dtype = torch.uint8 if low == 0 else torch.int8
    values = torch.from_numpy(x)
    scale, zero = ao.choose_qparams_affine(
        values, kind, block, dtype, low, high, eps=1e-12, scale_dtype=torch.float32
    )
    np.testing.assert_allclose(ours.scale, scale.numpy().ravel(), rtol=2.0**-23)
    if ours.zero_point is not None:
        assert np.array_equal(ours.zero_point, zero.numpy().ravel())
    else:
        assert not zero.numpy().any()
    codes = ao.quantize_affine(values, block, scale, zero, dtype, low, high).numpy()
    ratio = x.reshape(len(ours.scale), -1) / ours.scale[:, None]
    tie = (np.abs(ratio - np.floor(ratio) - 0.5) < 1e-4).reshape(x.shape)
    assert tie.mean() < 0.01
    assert np.array_equal(codes[~tie], ours.integers()[~tie])
    assert np.abs(codes - ours.integers()).max() <= 1


def test_quantizelinear_of_onnxruntime() -> None:
    """Codes and values equal ONNX's QuantizeLinear and DequantizeLinear, each of them."""
    ort = pytest.importorskip("onnxruntime")
    onnx = pytest.importorskip("onnx")
    helper, kinds = onnx.helper, onnx.TensorProto
    x = np.random.default_rng(12).normal(size=(6, 400)).astype(np.float32)
    q = quantize(x, "int8_signed", axis=0, asymmetric=True)
    assert q.zero_point is not None
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], axis=0),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"], axis=0),
    ]
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "g",
        [info("x", kinds.FLOAT, x.shape), info("s", kinds.FLOAT, [6]), info("z", kinds.INT8, [6])],
        [info("q", kinds.INT8, x.shape), info("y", kinds.FLOAT, x.shape)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    codes, values = session.run(None, {"x": x, "s": q.scale, "z": q.zero_point.astype(np.int8)})
    assert np.array_equal(codes, q.integers())
    assert np.array_equal(values, q.dequantize())


def _brute_force(x: np.ndarray, grid: formats.Format, start: float, factors: np.ndarray) -> tuple:
    errors = [np.square(grid.round(x / (start * f)) * start * f - x).sum() for f in factors]
    return factors[int(np.argmin(errors))], min(errors)


@pytest.mark.parametrize("bits", [3, 4, 5, 8])
@pytest.mark.parametrize("signed", [True, False])
def test_ant_by_brute_force(bits: int, signed: bool) -> None:
    """Scale and type are those of a plain loop over types and scales, per slice or tensor."""
    rng = np.random.default_rng(bits)
    x = np.stack([rng.uniform(-1, 1, 96), rng.normal(size=96), rng.standard_t(2, 96)])
    x = x if signed else np.abs(x)
    factors = ANT_SCAN.factors if bits <= 6 else np.arange(95, 150) / 100
    assert len(ANT_SCAN.factors) == 75 and ANT_SCAN.factors[-1] == pytest.approx(1.49)
    table = {}
    for grid in ant_candidates(bits, signed):
        starts = np.abs(x).max(axis=1) / min(grid.values[-1], -grid.values[0] or np.inf)
        table[grid.name] = [
            _brute_force(row, grid, s, factors) for row, s in zip(x, starts, strict=True)
        ]
    by_slice = fit_ant(x, bits, axis=0, type_per_slice=True)
    which = by_slice.choice if by_slice.choice is not None else np.zeros(3, int)
    for i in range(3):
        best = min(error for _, error in (column[i] for column in table.values()))
        assert np.square(by_slice.round(x)[i] - x[i]).sum() == pytest.approx(best, rel=1e-4)
        assert table[by_slice.formats[which[i]].name][i][1] == pytest.approx(best)
    by_tensor = fit_ant(x, bits, axis=0)
    sums = {name: sum(error for _, error in column) for name, column in table.items()}
    assert by_tensor.format.name == min(sums, key=sums.__getitem__)
    if bits > 6:
        assert list(table) == [f"int{bits}_{'signed' if signed else 'unsigned'}"]


def test_ant_picks_the_type_that_suits() -> None:
    """Uniform values call for int, normal ones for flint, heavy tails for PoT: the paper's case."""
    rng = np.random.default_rng(1)
    assert fit_ant(rng.uniform(-1, 1, 4000)).format.name == "int4_signed"
    assert fit_ant(rng.normal(size=4000)).format.name == "flint4_signed"
    heavy = rng.normal(size=4000) * np.exp(rng.normal(0, 1.5, 4000))
    assert fit_ant(heavy).format.name == "pot4_signed"
    assert fit_ant(np.abs(rng.normal(size=4000))).format.name.endswith("4_unsigned")
    mixed = fit_ant(
        np.stack([rng.uniform(-1, 1, 4000), heavy]), axis=0, type_per_slice=True
    ).quantize(np.stack([rng.uniform(-1, 1, 4000), heavy]))
    assert [f.name for f in mixed.quantizer.formats] == ["int4_signed", "pot4_signed"]
    assert mixed.bits() == 8000 * 4 + 2 * (32 + 1)
    with pytest.raises(InputError, match="slices differ in format"):
        _ = mixed.format


def test_ant_from_a_stream() -> None:
    """From batches ANT finds the type and nearly the scale it finds from the values at once."""
    x = np.random.default_rng(3).normal(size=20_000)
    observer = Observer()
    for part in np.split(x, 8):
        observer.update(part)
    streamed, exact = fit_ant(observer), fit_ant(x)
    assert streamed.format == exact.format
    assert streamed.scale[0] == pytest.approx(exact.scale[0], rel=0.02)


@pytest.mark.parametrize("row", OLIVE)
def test_olive_vectors(row: dict) -> None:
    """Values equal the authors' quantizer's at a given threshold, which keeps the left outlier."""
    grid = outlier_victim("int", 4, keep="left")
    scale = np.array([row["alpha"] / 7], np.float32)
    quantizer = Quantizer((grid,), scale)
    q = quantizer.quantize(np.array(row["x"]))
    assert q.levels().tolist() == row["q_int4_units"]
    np.testing.assert_allclose(q.dequantize(), row["dequant"], atol=1e-5)


@pytest.mark.parametrize("keep", ["larger", "left"])
def test_olive_by_brute_force(keep: str) -> None:
    """The threshold is the best of 38 around 3 sigma, the normal type the better of two."""
    rng = np.random.default_rng(2)
    x = rng.normal(size=(3, 400))
    x.ravel()[rng.choice(1200, 30, replace=False)] *= 12
    assert len(OLIVE_SCAN.factors) == 38
    sums = {}
    for kind in ("int", "flint"):
        grid = outlier_victim(kind, 4, keep=keep)  # type: ignore[arg-type]
        start = np.abs(x.mean(axis=1)) + 3 * x.std(axis=1, ddof=1)
        start /= grid.normal.values[-1]
        rows = [
            _brute_force(row, grid, s, OLIVE_SCAN.factors) for row, s in zip(x, start, strict=True)
        ]
        sums[grid.name] = (
            sum(error for _, error in rows),
            start * np.array([factor for factor, _ in rows]),
        )
    best = min(sums, key=lambda name: sums[name][0])
    quantizer = fit_olive(x, axis=0, keep=keep)  # type: ignore[arg-type]
    assert quantizer.format.name == best
    np.testing.assert_allclose(quantizer.scale, sums[best][1], rtol=1e-6)


def test_olive_beats_int_where_there_are_outliers() -> None:
    """At 4 bits a few outliers ruin int's scale; pairs keep both the outliers and the rest."""
    rng = np.random.default_rng(4)
    x = rng.normal(size=10_000)
    x[rng.choice(10_000, 20, replace=False)] = rng.choice([-1, 1], 20) * rng.uniform(15, 25, 20)
    pairs = fit_olive(x).quantize(x)
    assert pairs.sqnr_db(x) > quantize(x, "int4_signed").sqnr_db(x) + 10
    counted = pair_statistics(x, pairs)
    assert counted.pairs == 5000 and 15 <= counted.with_outlier <= 25
    assert counted.outlier_outlier_share == counted.of_two_outliers / 5000


def test_pair_statistics_by_hand() -> None:
    """One pair of two outliers, one of one, one of none."""
    quantizer = Quantizer((outlier_victim("int", 4),), np.ones(1, np.float32))
    x = np.array([20.0, -30.0, 1.0, 38.0, 2.0, 3.0])
    q = quantizer.quantize(x)
    assert q.dequantize().tolist() == [0, -32, 0, 32, 2, 3]
    counted = pair_statistics(x, q)
    assert (counted.pairs, counted.with_outlier, counted.of_two_outliers) == (3, 2, 1)


def test_sqnr() -> None:
    """10 log10 of signal over noise; the ends of the scale are infinite."""
    x = np.array([3.0, 4.0])
    assert sqnr_db(x, x + 0.05) == pytest.approx(10 * np.log10(25 / 0.005))
    assert sqnr_db(x, x) == np.inf
    assert sqnr_db(x * 0, x) == -np.inf
    with pytest.raises(InputError, match="one shape"):
        sqnr_db(x, x[:1])


def test_a_constant_tensor() -> None:
    """Constants and zeros are exact at any width and method: their range is their value."""
    for value in (0.0, 1e-30, -7.25, 3e30):
        x = np.full((2, 4), value)
        for method in ("minmax", "percentile", "mse", "entropy"):
            q = quantize(x, "int4_narrow", method=method)
            np.testing.assert_allclose(q.dequantize(), x, rtol=1e-6)
        q = quantize(x, "int4_signed", asymmetric=True, axis=0)
        np.testing.assert_allclose(q.dequantize(), x, rtol=1e-6)
        np.testing.assert_allclose(fit_ant(x).round(x), x, rtol=1e-6)
    one = np.array([[2.5, 0.0]])
    assert np.isfinite(fit_olive(one).round(one)).all()


def test_integers_of_what_is_not_whole() -> None:
    """Formats with fractions have no integers to give."""
    with pytest.raises(InputError, match="not whole"):
        quantize(np.ones(4), "float_e2_4_signed").integers()


def test_bad_input() -> None:
    """Each misuse is named where it happens."""
    x = np.random.default_rng(0).normal(size=(4, 6))
    with pytest.raises(InputError, match="nan"):
        quantize(np.where(x > 0, np.nan, x), "int8_signed")
    with pytest.raises(InputError, match="empty"):
        quantize(x[:0], "int8_signed")
    with pytest.raises(InputError, match="no float32 holds"):
        quantize(x * 1e300, "int8_signed")
    with pytest.raises(InputError, match="group must divide the 6"):
        quantize(x, "int8_signed", axis=0, group=4)
    with pytest.raises(InputError, match="flint4_signed has no zero point"):
        quantize(x, "flint4_signed", asymmetric=True)
    with pytest.raises(InputError, match="holds no negative values"):
        quantize(x, "flint4_unsigned")
    with pytest.raises(InputError, match="no format 'int4_singed'"):
        quantize(x, "int4_singed")
    with pytest.raises(InputError, match="has 6 slices"):
        fit(x, "int8_signed", axis=0).quantize(x.T)
    observer = Observer()
    observer.update(x)
    with pytest.raises(InputError, match="give the axis to the observer"):
        fit(observer, "int8_signed", axis=0)
    with pytest.raises(InputError, match="at least one candidate"):
        fit_ant(x, candidates=())
    with pytest.raises(InputError, match="pairs, got int4_signed"):
        fit_olive(x, candidates=("int4_signed",))
    with pytest.raises(InputError, match="even number"):
        fit_olive(x[:, :5], axis=0)
    with pytest.raises(InputError, match="have victims"):
        pair_statistics(x, quantize(x, "int8_signed"))
    with pytest.raises(InputError, match="of one width"):
        Quantizer((formats.get("int4_signed"), formats.get("int8_signed")), np.ones(1, np.float32))
    with pytest.raises(InputError, match="positive and finite"):
        Quantizer((formats.get("int4_signed"),), np.zeros(1, np.float32))
    with pytest.raises(InputError, match="have a zero point"):
        Quantizer((formats.get("flint4_signed"),), np.ones(1, np.float32), np.zeros(1, np.int32))
