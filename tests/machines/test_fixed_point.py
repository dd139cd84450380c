"""Is 16-bit truncated arithmetic, and the run-length code of its activations, right to the bit?"""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sparqsim.architectures.fixed_point import FixedPointLayer
from sparqsim.base import InputError
from sparqsim.simulator.mac import dense, fixed16
from sparqsim.workloads import recipes
from sparqsim.workloads.encoded import encode
from sparqsim.workloads.encodings.run_length import RunLength, encoded_bits
from sparqsim.workloads.layers import Conv2d, Linear
from sparqsim.workloads.tensors import LayerTensors, synthetic

WORDS = st.integers(-(2**15), 2**15 - 1)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), m=st.integers(1, 9), k=st.integers(1, 12), n=st.integers(1, 7),
       shift=st.integers(0, 20))  # fmt: skip
def test_kernel_is_its_plain_twin(data: st.DataObject, m: int, k: int, n: int, shift: int) -> None:
    """Truncated products, 32-bit sums: compiled and in Python's integers alike."""
    a = data.draw(arrays(np.int32, (m, k), elements=WORDS))
    w = data.draw(arrays(np.int32, (k, n), elements=WORDS))
    fast, plain = np.zeros((m, n), np.int32), np.zeros((m, n), np.int64)
    fixed16.gemm(a, w, shift, fast)
    fixed16.gemm_plain(a, w, shift, plain)
    assert (fast == plain).all()


@settings(max_examples=30, deadline=None)
@given(data=st.data(), shift=st.sampled_from([0, 3, 15, 16, 20]), groups=st.sampled_from([1, 2]))
def test_reference_convolution_is_the_definition(
    data: st.DataObject, shift: int, groups: int
) -> None:
    """Against four nested loops over Python's integers, extremes included."""
    x = data.draw(arrays(np.int32, (1, 2, 5, 4), elements=WORDS))
    w = data.draw(arrays(np.int32, (2, 2 // groups, 2, 2), elements=WORDS))
    found = fixed16.convolve(x, w, shift, (2, 1), (1, 0, 0, 1), (1, 2), groups)
    image = np.pad(x, ((0, 0), (0, 0), (1, 0), (0, 1)))
    for f, y, z in np.ndindex(found.shape[1:]):
        total = 0
        for c, i, j in np.ndindex(w.shape[1:]):
            channel = f // (2 // groups) * (2 // groups) + c
            total += (int(image[0, channel, 2 * y + i, z + 2 * j]) * int(w[f, c, i, j])) >> shift
        assert found[0, f, y, z] == total


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), density=st.sampled_from([0.0, 0.1, 0.5, 1.0]))
def test_no_sum_overflows_and_outputs_come_near_the_real_ones(seed: int, density: float) -> None:
    """The chosen shift keeps 16-bit sums from wrapping; errors stay within a unit a product."""
    rng = np.random.default_rng(seed)
    layer = Conv2d(name="c", in_channels=3, out_channels=4, input=(6, 6), kernel=(3, 3))
    tensors = synthetic(layer, rng, activation_density=density)
    work = FixedPointLayer(encode(tensors, "int16"))
    assert work.verify().status == "exact"
    exact = fixed16.convolve(work.x, work.w, work.shift, *work.placed)
    assert (dense.wrap(exact, 16) == exact).all()
    real = dense.convolve_levels(
        tensors.activation,
        tensors.weight,
        (1, 1),
        (0, 0, 0, 0),
        (1, 1),
        1,  # type: ignore[arg-type]
    )
    units = np.maximum(real, 0) / work.output_scale
    assert np.abs(units - work.outputs).max() <= 27 * 2 + 2


def test_zero_gating_counts_products_with_zero_inputs() -> None:
    """Padding counts as zeros; every product is gated or has an input."""
    layer = Conv2d(name="c", in_channels=2, out_channels=3, input=(4, 4), kernel=(3, 3),
                   padding=(1, 1))  # fmt: skip
    ones = LayerTensors(layer=layer, weight=np.ones((3, 2, 3, 3)), activation=np.ones((1, 2, 4, 4)))
    work = FixedPointLayer(encode(ones, "int16"))
    assert work.effectual + work.zero_input == layer.macs
    assert work.effectual == 3 * 2 * (4 * 3 - 2) ** 2


def test_codes_are_taken_as_they_are_with_a_scale_a_channel() -> None:
    """No code is rounded again; an output's real value is that of the products and the shift."""
    layer = Linear(name="fc", in_features=40, out_features=6, rows=5)
    tensors = synthetic(layer, np.random.default_rng(1))
    weight = tensors.sparse_weight.to_dense() * [[1], [9], [1], [3], [1], [2]]
    loud = LayerTensors(
        layer=layer, weight=weight, activation=tensors.activation,
        bias=np.linspace(-2, 2, 6), relu=False,
    )  # fmt: skip
    recipe = recipes.get("int16")
    weights = msgspec.structs.replace(recipe.weights, granularity="channel")
    coded = encode(loud, msgspec.structs.replace(recipe, weights=weights))
    work = FixedPointLayer(coded)
    assert (work.x[:, :, 0, 0] == coded.activation.levels()).all()  # type: ignore[union-attr]
    assert (work.w[:, :, 0, 0] == coded.weight.levels()).all()  # type: ignore[union-attr]
    assert work.outputs.shape == (5, 6) and len(np.unique(work.unit)) > 1
    assert work.verify().status == "exact" and work.wrapped == 0
    steps = (loud.output() - work.outputs * work.output_scale) / work.output_scale
    assert (
        steps.min() > -1 and steps.max() < 40 + 1
    )  # truncation loses at most one step per product


def test_a_smaller_shift_would_overflow() -> None:
    """The shift is the smallest that is safe: a sum of its exact products leaves less room."""
    layer = Linear(name="fc", in_features=40, out_features=6, rows=5)
    work = FixedPointLayer(encode(synthetic(layer, np.random.default_rng(1)), "int16"))
    exact = dense.convolve_levels(work.x.astype(float), work.w.astype(float), *work.placed)
    lost = 40
    assert np.abs(exact).max() / 2**work.shift + lost < 2**15 - 1
    assert np.abs(exact).max() / 2 ** (work.shift - 1) + lost >= 2**15 - 1


def test_sums_that_cannot_fit_are_told() -> None:
    """More products a sum than 16 bits have units: what wraps is counted and said."""
    layer = Linear(name="long", in_features=70_000, out_features=2)
    ones = LayerTensors(layer=layer, weight=-np.ones((2, 70_000)), activation=np.ones((1, 70_000)))
    work = FixedPointLayer(encode(ones, "int16"))
    assert work.wrapped == 2 and work.verify().status == "exact"
    assert any("wrapped around" in note for note in work.notes)


SPARSE = st.one_of(st.just(0), st.just(0), st.just(0), WORDS)


@settings(max_examples=150, deadline=None)
@given(vector=arrays(np.int64, st.integers(1, 200), elements=SPARSE), ends=st.integers(0, 100))
def test_run_lengths_decode_to_what_went_in(vector: np.ndarray, ends: int) -> None:
    """Whatever the runs, also of zeros at the end; and the size is counted without encoding."""
    vector = np.concatenate([vector, np.zeros(ends, np.int64)])
    encoded = RunLength.encode(vector)
    assert (encoded.decode() == vector).all()
    assert encoded_bits(vector[None])[0] == encoded.bits


def test_run_length_words_by_hand() -> None:
    """31 zeros fit an entry, 32 need one more; three entries a word."""
    value = np.array([7])
    zeros = np.zeros(31, int)
    assert RunLength.encode(np.concatenate([zeros, value])).runs.tolist() == [31]
    longer = RunLength.encode(np.concatenate([zeros, [0], value]))
    assert longer.runs.tolist() == [31, 0] and longer.values.tolist() == [0, 7]
    assert RunLength.encode(np.ones(3, int)).bits == 64
    assert RunLength.encode(np.ones(4, int)).bits == 128
    assert RunLength.encode(np.zeros(96, int)).bits == 64
    rows = np.array([[0, 0, 5, 0], [1, 2, 3, 4]])
    assert encoded_bits(rows).tolist() == [RunLength.encode(row).bits for row in rows]


def test_bad_run_lengths_are_refused() -> None:
    """Floats, wide values, empty or truncated codes are error messages."""
    for bad in (np.zeros(3), np.array([1 << 15]), np.zeros(0, int), np.zeros((2, 2), int)):
        with pytest.raises(InputError):
            RunLength.encode(bad)
    for rows in (np.zeros((0, 3), int), np.zeros(3, int)):
        with pytest.raises(InputError):
            encoded_bits(rows)
    good = RunLength.encode(np.array([0, 0, 5]))
    with pytest.raises(InputError, match="exactly"):
        RunLength(4, good.runs, good.values)
    with pytest.raises(InputError, match="below 32"):
        RunLength(33, np.array([32], np.uint8), good.values)
