"""Are ranges right: each method against its definition, a stream against the whole, torch?"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from sparqsim.base import InputError
from sparqsim.workloads import formats
from sparqsim.workloads.calibrate import (
    Entropy,
    LeastSquares,
    MinMax,
    Percentile,
    method_named,
    parameters,
)
from sparqsim.workloads.formats import Format
from sparqsim.workloads.formats.pairs import outlier_victim
from sparqsim.workloads.observers import MovingAverage, Observer
from sparqsim.workloads.quantize import fit
from sparqsim.workloads.rounding_errors import squared_errors
from sparqsim.workloads.slices import Samples, Slices, checked

seeds = st.integers(0, 2**32 - 1)
GRIDS: tuple[Format, ...] = (
    formats.get("int4_signed"),
    formats.get("int8_signed"),
    formats.get("int3_unsigned"),
    formats.get("flint4_signed"),
    formats.get("flint4_unsigned"),
    formats.get("pot4_signed"),
    outlier_victim("int", 4),
    outlier_victim("flint", 4),
    outlier_victim("int", 4, keep="left"),
    outlier_victim("int", 8),
    formats.get("float8_e4m3"),
)


def heavy(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Values with outliers."""
    return rng.standard_t(3, shape)


@pytest.mark.parametrize("grid", GRIDS, ids=lambda g: g.name)
@pytest.mark.parametrize("n", [6, 1200, 6000])
def test_squared_errors_are_those_of_rounding(grid: Format, n: int) -> None:
    """The scan's error equals that of really rounding, for each row, scale and format.

    Rows that are short beside the grid and long ones take different ways; outlier-victim pairs one
    more.
    """
    x = heavy(np.random.default_rng(n), 3, n)
    scale = np.array([0.3, 0.05, 1.0])
    factors = np.array([0.2, 0.75, 1.0, 1.49])
    found = squared_errors(Samples.of(x), grid, scale, None, factors)
    for i, factor in enumerate(factors):
        s = (scale * factor)[:, None]
        direct = np.square(x - grid.round(x / s) * s).sum(axis=1)
        np.testing.assert_allclose(found[:, i], direct, rtol=1e-9)


@pytest.mark.parametrize("n", [8, 6000])
def test_squared_errors_with_zero_points_and_counts(n: int) -> None:
    """A zero point shifts the grid; a value counted c times weighs c times."""
    rng = np.random.default_rng(5)
    x = np.sort(heavy(rng, 2, n), axis=1)
    counts = rng.integers(0, 4, (2, n)).astype(float)
    zero, scale = np.array([-3, 5], np.int32), np.array([0.2, 0.1])
    low, high = x.min(axis=1), x.max(axis=1)
    samples = Samples(x, low, high, counts)
    grid = formats.get("int4_signed")
    q = np.clip(np.rint(x / scale[:, None]) + zero[:, None], -8, 7)
    direct = (counts * np.square(x - (q - zero[:, None]) * scale[:, None])).sum(axis=1)
    found = squared_errors(samples, grid, scale, zero, np.array([1.0]))[:, 0]
    np.testing.assert_allclose(found, direct, rtol=1e-9)


@given(seeds, st.integers(1, 5), st.sampled_from([None, 0, 1, -1]))
@settings(max_examples=25, deadline=None)
def test_a_stream_is_the_whole(seed: int, batches: int, axis: int | None) -> None:
    """The histogram depends on the values alone: not on their order or split into batches."""
    rng = np.random.default_rng(seed)
    x = heavy(rng, 4, 4) * np.ldexp(1.0, rng.integers(-40, 40, (4, 4)))
    x[rng.random((4, 4)) < 0.3] = 0
    whole, stream = Observer(axis), Observer(axis)
    parts = [x * s for s in rng.random(batches)]
    for part in parts:
        whole.update(part)
    for index in rng.permutation(batches):
        stream.update(parts[index])
    a, b = whole.samples(), stream.samples()
    assert np.array_equal(a.values, b.values) and a.counts is not None and b.counts is not None
    assert np.array_equal(a.counts, b.counts)
    assert np.array_equal(a.low, b.low) and np.array_equal(a.high, b.high)
    assert a.counts.sum() == x.size * batches
    assert (np.diff(a.values, axis=1) >= 0).all()


def test_the_histogram_is_fine_and_its_zeros_exact() -> None:
    """Every value is within a 2048th of the largest from its bin's centre; zeros are zeros."""
    rng = np.random.default_rng(0)
    x = np.maximum(heavy(rng, 20_000), 0)
    observer = Observer()
    for part in np.split(x, 4):
        observer.update(part)
    samples = observer.samples()
    assert samples.counts is not None
    zero = samples.values[0] == 0
    assert samples.counts[0][zero].sum() == (x == 0).sum()
    told = np.repeat(samples.values[0], samples.counts[0].astype(int))
    assert np.abs(np.sort(x) - told).max() <= x.max() / 2048


def test_streamed_methods_near_exact() -> None:
    """On one batch every method gives nearly the range from a histogram as from the tensor.

    The extreme is put just inside a power of two, so that entropy sees the same bins both ways.
    """
    x = heavy(np.random.default_rng(2), 50_000)
    x *= (8 - 1e-9) / np.abs(x).max()
    observer = Observer()
    observer.update(x)
    for method in (MinMax(), Percentile(percent=99), LeastSquares(), Entropy()):
        for grid in ("int4_signed", "int8_signed", "flint4_signed"):
            exact, streamed = fit(x, grid, method=method), fit(observer, grid, method=method)
            assert streamed.scale[0] == pytest.approx(exact.scale[0], rel=0.03)


def test_percentile_is_the_quantile() -> None:
    """Of a tensor: numpy's quantile of magnitudes, or of values with both tails cut."""
    x = heavy(np.random.default_rng(3), 2, 999)
    grid = formats.get("int8_signed")
    low, high = Percentile(percent=95).range(Samples.of(x), grid, asymmetric=False)
    np.testing.assert_allclose(high, np.quantile(np.abs(x), 0.95, axis=1))
    np.testing.assert_allclose(low, -high)
    low, high = Percentile(percent=95).range(Samples.of(x), grid, asymmetric=True)
    np.testing.assert_allclose([low, high], np.quantile(x, [0.025, 0.975], axis=1))
    low, high = Percentile(percent=100).range(Samples.of(x), grid, asymmetric=True)
    assert np.array_equal(low, x.min(axis=1)) and np.array_equal(high, x.max(axis=1))


@given(seeds, st.sampled_from(["int4_signed", "int8_signed", "flint4_signed", "pot4_signed"]))
@settings(max_examples=20, deadline=None)
def test_least_squares_is_least(seed: int, name: str) -> None:
    """No multiple of the full range that was tried does better, by brute force."""
    x = heavy(np.random.default_rng(seed), 1, 64)
    grid, scan = formats.get(name), LeastSquares(start=0.1, stop=1.0, step=0.05)
    low, high = scan.range(Samples.of(x), grid, asymmetric=False)
    scale, _ = parameters(grid, low, high, asymmetric=False)
    full, _ = parameters(grid, x.min(axis=1), x.max(axis=1), asymmetric=False)

    def error(s: float) -> float:
        return float(np.square(grid.round(x / s) * s - x).sum())

    tried = [error(full[0] * f) for f in scan.factors]
    assert error(float(scale[0])) == pytest.approx(min(tried), rel=1e-5)


def _entropy_by_definition(x: np.ndarray, levels: np.ndarray, bins: int, stride: int) -> int:
    """The number of bins kept, with scipy's relative entropy and nothing precomputed."""
    top = np.abs(x).max()
    count = np.histogram(np.abs(x), bins=bins, range=(0, top))[0].astype(float)
    best, least = bins, np.inf
    for keep in range(bins, len(levels) - 1, -stride):
        p = count[:keep].copy()
        p[-1] += count[keep:].sum()
        centre = (np.arange(keep) + 0.5) / keep * levels[-1]
        distance = np.abs(centre[:, None] - levels[::-1])  # reversed: a tie goes to the larger
        code = len(levels) - 1 - distance.argmin(axis=1)
        q = np.zeros(keep)
        for k in range(len(levels)):
            mine = (code == k) & (p > 0)
            if mine.any():
                q[mine] = count[:keep][code == k].sum() / mine.sum()
        divergence = stats.entropy(p, q)
        if divergence <= least:
            best, least = keep, divergence
    return best


@pytest.mark.parametrize("name", ["int4_narrow", "flint4_signed", "int8_narrow"])
def test_entropy_by_definition(name: str) -> None:
    """The threshold is the one that scipy's relative entropy is least at."""
    grid = formats.get(name)
    for seed in range(2):
        x = heavy(np.random.default_rng(seed), 5000)
        low, high = Entropy(bins=512, stride=1).range(Samples.of(x[None]), grid, asymmetric=False)
        keep = _entropy_by_definition(x, grid.values[grid.values >= 0], 512, 1)
        assert max(-low[0], high[0]) == pytest.approx(np.abs(x).max() * keep / 512)


def test_entropy_like_onnxruntime() -> None:
    """onnxruntime's calibrator, with its smoothing and whole-bin codes, clips about as far."""
    calibrate = pytest.importorskip("onnxruntime.quantization.calibrate")
    x = np.random.default_rng(0).laplace(size=200_000)
    top = float(np.abs(x).max())
    # Its 128 codes cover both signs: 64 magnitudes, as a narrow 7-bit integer has.
    collector = calibrate.HistogramCollector("entropy", True, 128, 128, 99.9, None)
    counts, edges = np.histogram(x, bins=2047, range=(-top, top))
    theirs = collector.get_entropy_threshold((counts, edges, x.min(), x.max(), top), 128)
    high = float(np.asarray(theirs[1]))
    ours = Entropy(bins=1024, stride=1).range(
        Samples.of(x[None]), formats.get("int7_narrow"), asymmetric=False
    )
    assert ours[1][0] == pytest.approx(high, rel=0.15)
    assert ours[1][0] < 0.9 * top


def test_minmax_observers_of_torch() -> None:
    """Scale and zero point equal torch's observers', per tensor, channel, and moving."""
    observers = pytest.importorskip("torch.ao.quantization.observer")
    import torch

    rng = np.random.default_rng(4)
    batches = [heavy(rng, 6, 5).astype(np.float32) * s for s in (1, 3, 0.5)]
    plain = observers.MinMaxObserver(dtype=torch.quint8, qscheme=torch.per_tensor_affine)
    channel = observers.PerChannelMinMaxObserver(
        ch_axis=1, dtype=torch.quint8, qscheme=torch.per_channel_affine
    )
    narrow = observers.MinMaxObserver(
        dtype=torch.qint8, qscheme=torch.per_tensor_symmetric, quant_min=-127, quant_max=127
    )
    moving = observers.MovingAverageMinMaxObserver(
        averaging_constant=0.25, dtype=torch.quint8, qscheme=torch.per_tensor_affine
    )
    ours = (Observer(), Observer(1), Observer(), MovingAverage(constant=0.25))
    grids = (("int8_unsigned", True), ("int8_unsigned", True), ("int8_narrow", False))
    grids += (("int8_unsigned", True),)
    for theirs, mine, (name, asymmetric) in zip(
        (plain, channel, narrow, moving), ours, grids, strict=True
    ):
        for batch in batches:
            theirs(torch.from_numpy(batch))
            mine.update(batch)
        scale, zero = theirs.calculate_qparams()
        quantizer = fit(mine, name, asymmetric=asymmetric)
        np.testing.assert_allclose(quantizer.scale, scale.numpy(), rtol=1e-6)
        if quantizer.zero_point is not None:
            assert np.array_equal(quantizer.zero_point, zero.numpy())


@given(seeds, st.integers(1, 3))
def test_slices_split_and_join(seed: int, group: int) -> None:
    """Joining what was split gives the tensor back, on any axis, with any group that divides."""
    rng = np.random.default_rng(seed)
    x = rng.random((2, 3, 6))
    for axis in (None, 0, 1, 2, -1, -3):
        slices = Slices(axis, None if group == 1 else group)
        rows = slices.split(x)
        assert np.array_equal(slices.join(rows, x.shape), x)
        if axis is not None:
            assert rows.shape[0] % x.shape[axis] == 0
    assert np.array_equal(Slices(1).split(x)[2], x[:, 2, :].ravel())
    assert np.array_equal(Slices(0, 3).split(x)[1], x[0, 0, 3:])


def test_values_that_cannot_be_quantized() -> None:
    """NaN, infinity, emptiness and wrong types are named with their place."""
    x = np.ones((2, 3))
    x[1, 2] = np.nan
    with pytest.raises(InputError, match=r"got nan at \(1, 2\) \(1 such"):
        checked(x)
    with pytest.raises(InputError, match="inf at"):
        checked(np.array([1.0, -np.inf]))
    with pytest.raises(InputError, match="empty"):
        checked(np.zeros((0, 4)))
    with pytest.raises(InputError, match="real numbers"):
        checked(np.array(["a"]))
    with pytest.raises(InputError, match="real numbers"):
        checked(np.array([1j]))
    big = np.full(4, np.finfo(np.float64).max)
    assert checked(big) is not None  # a sum that overflows is not an infinity in the tensor


def test_bad_settings() -> None:
    """Every parameter out of its range is named."""
    x = np.ones((4, 6))
    grid = formats.get("int8_signed")
    with pytest.raises(InputError, match="group must divide the 6"):
        Slices(0, 4).split(x)
    with pytest.raises(InputError, match="axis must be within"):
        Slices(2).split(x)
    with pytest.raises(InputError, match="percent must lie"):
        Percentile(percent=0)
    with pytest.raises(InputError, match="start <= stop"):
        LeastSquares(start=2.0)
    with pytest.raises(InputError, match="bins in 8"):
        Entropy(bins=4)
    with pytest.raises(InputError, match="must be at least the 129 magnitudes"):
        Entropy(bins=100).range(Samples.of(x), grid, asymmetric=False)
    with pytest.raises(InputError, match="symmetric"):
        Entropy().range(Samples.of(x), grid, asymmetric=True)
    with pytest.raises(InputError, match="no calibration method 'best'"):
        method_named("best")
    with pytest.raises(InputError, match="constant must lie"):
        MovingAverage(constant=0)
    for observer in (Observer(0), MovingAverage(0)):
        with pytest.raises(InputError, match="must see a batch"):
            observer.samples()
        observer.update(x)
        with pytest.raises(InputError, match="must have 4 channels"):
            observer.update(np.ones((3, 6)))
        with pytest.raises(InputError, match="calibration batch must be finite"):
            observer.update(x * np.nan)


@pytest.mark.parametrize("zeros", [0.5, 0.9])
def test_entropy_does_not_count_exact_zeros(zeros: float) -> None:
    """What a ReLU sets to zero is exact under every threshold, so it moves none."""
    rng = np.random.default_rng(0)
    live = np.abs(rng.normal(size=20_000)) + 1e-3
    x = np.concatenate([live, np.zeros(int(len(live) * zeros / (1 - zeros)))])
    grid = formats.get("int8_unsigned")
    of_live = Entropy().range(Samples.of(live[None]), grid, asymmetric=False)[1]
    np.testing.assert_array_equal(Entropy().range(Samples.of(x[None]), grid, False)[1], of_live)
    observer = Observer()
    observer.update(x)
    assert Entropy().range(observer.samples(), grid, False)[1] == pytest.approx(of_live, rel=0.05)
    assert fit(x, grid, method="entropy").quantize(x).sqnr_db(x) > 40


def test_scales_beyond_float32() -> None:
    """A range too large for a float32 scale is refused; one too small gets 1, as zeros do."""
    grid = formats.get("int8_signed")
    tiny, zero = np.array([1e-40]), np.zeros(1)
    assert parameters(grid, -tiny, tiny, asymmetric=False)[0][0] == 1
    assert parameters(grid, zero, np.array([5e-324]), asymmetric=True)[0][0] == 1
    with pytest.raises(InputError, match="which no float32 holds"):
        parameters(grid, zero, np.array([1e300]), asymmetric=False)
    assert parameters(grid, zero, zero, asymmetric=True)[0][0] == 1
    with pytest.raises(InputError, match="holds no negative values"):
        parameters(formats.get("int4_unsigned"), np.array([-1.0]), np.array([1.0]), False)


def test_pairs_need_neighbours() -> None:
    """A histogram or a slice of odd length cannot serve outlier-victim pairs."""
    pairs = outlier_victim("int", 4)
    observer = Observer()
    observer.update(np.ones(4))
    with pytest.raises(InputError, match="beside whom"):
        fit(observer, pairs, method="mse")
    with pytest.raises(InputError, match="even number"):
        fit(np.ones(5), pairs, method="mse")
