"""Is the sparse tensor core right: its numbers, its outputs on both engines, its time's physics?"""

from __future__ import annotations

import math
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparqsim.architectures import presets
from sparqsim.architectures.machine import Program, program, run
from sparqsim.architectures.registry import get_machine
from sparqsim.architectures.sparse_tensor_core import (
    KINDS,
    SparseTensorCore,
    Sparsity,
    numbers,
)
from sparqsim.architectures.sparse_tensor_core.matrices import encode
from sparqsim.architectures.sparse_tensor_core.numbers import Product
from sparqsim.base import InputError
from sparqsim.simulator.engines import simulate
from sparqsim.workloads import formats
from sparqsim.workloads.encoded import outline
from sparqsim.workloads.layers import Conv2d, Layer, Linear, MatMul
from sparqsim.workloads.prune import NM, prune
from sparqsim.workloads.recipes import Recipe, TensorRecipe
from sparqsim.workloads.tensors import LayerTensors, from_digits, synthetic

SMALL_GPU = SparseTensorCore(sms=3, fp8=True)  # 64 x 64 tiles of small layers make several waves
NATIVE = {dtype: "2:4x2" if dtype == "int4" else "1:2" if dtype == "tf32" else "2:4"
          for dtype in SMALL_GPU.kinds}  # fmt: skip
PRESETS = presets.names("sparse-tensor-core")


def preset(name: str, **fields: Any) -> SparseTensorCore:
    machine = presets.load(name)
    assert isinstance(machine, SparseTensorCore)
    return msgspec.structs.replace(machine, **fields)


def coded(dtype: str, prune: str | None = None, **more: Any) -> Recipe:
    """Both operands in a format of the machine, the weights by a pattern."""
    names = {"fp16": "float16", "bf16": "bfloat16", "fp8": "float8_e4m3fn"}
    unit = {} if dtype.startswith("int") else {"calibration": "unit"}
    one = TensorRecipe(format=names.get(dtype, dtype), **unit, **more)
    pruned = {} if prune is None else {"prune": prune, "pad": True}
    return Recipe(
        name=f"{dtype} {prune}", weights=msgspec.structs.replace(one, **pruned), activations=one
    )


def linear(rows: int = 70, depth: int = 200, out: int = 150, seed: int = 1) -> LayerTensors:
    rng = np.random.default_rng(seed)
    made = synthetic(Linear(name="l", in_features=depth, out_features=out, rows=rows), rng)
    return LayerTensors(
        layer=made.layer,
        weight=made.sparse_weight.to_dense(),
        activation=made.activation,
        bias=rng.normal(size=out).astype(np.float32),
        relu=False,
    )


def product_of(work: Program) -> Product:
    """What a program computed."""
    assert work.verify is not None
    found: Product = work.verify.__self__  # type: ignore[attr-defined]
    return found


def conv() -> LayerTensors:
    layer = Conv2d(
        name="c", in_channels=12, out_channels=20, input=(9, 8), kernel=(3, 3),
        padding=(1, 0, 2, 1), stride=(2, 1), groups=2, batch=2,
    )  # fmt: skip
    return synthetic(layer, np.random.default_rng(2))


# ------------------------------------------------------------------ numbers of the datasheet


@pytest.mark.parametrize(
    ("name", "dtype", "dense", "sparse"),
    [
        ("a100-40gb", "fp16", 312, 624),
        ("a100-40gb", "bf16", 312, 624),
        ("a100-40gb", "int8", 624, 1248),
        ("a100-40gb", "tf32", 156, 312),
        ("a100-40gb", "int4", 1248, 2496),
        ("h100", "fp16", 989.4 * 1.98 / 1.83, 1978.9 * 1.98 / 1.83),
        ("h100", "fp8", 1978.9 * 1.98 / 1.83, 3957.8 * 1.98 / 1.83),
        ("orin", "int8", 85.2, 170.4),
    ],
)
def test_peaks_are_the_published_ones(name: str, dtype: str, dense: float, sparse: float) -> None:
    """SMs x multipliers x clock gives the white papers' TOP/s (Orin's: 85 and 170). The H100's
    are those of 1.83 GHz; its clock here is the boost clock."""
    machine = preset(name)
    native = machine.cores(dtype).sparsity.name
    figures = {figure.name: figure.value for figure in machine.datasheet()}
    assert float(figures[f"peak, {dtype}"].split()[0]) == pytest.approx(dense, rel=2e-3)
    assert float(figures[f"peak, {dtype} {native}"].split()[0]) == pytest.approx(sparse, rel=2e-3)
    told = machine.peak()
    assert 2e-12 * told.macs_per_s * KINDS[dtype].rate == pytest.approx(dense, rel=2e-3)


@pytest.mark.parametrize(
    ("dtype", "share"),
    [("fp16", 0.5625), ("bf16", 0.5625), ("int8", 0.625), ("tf32", 0.515625), ("int4", 0.625)],
)
def test_storage_is_the_published_share(dtype: str, share: float) -> None:
    """2:4 of fp16 takes 56.25 % of the dense bits, of int8 62.5 %: values and positions."""
    machine = SparseTensorCore()
    cores = machine.cores(dtype)
    assert cores.weight_bits == share * cores.kind.bits
    lowered = program(machine, linear(depth=256), coded(dtype, NATIVE[dtype]))
    stored = lowered.counters(simulate(lowered.netlist))["weight_bits"]
    assert stored == share * cores.kind.bits * 150 * 256


def test_the_registry_knows_it() -> None:
    """``sparqsim run sparse-tensor-core`` finds the machine."""
    assert get_machine("sparse-tensor-core") is SparseTensorCore


# ------------------------------------------------------------------ outputs


def depthwise() -> LayerTensors:
    layer = Conv2d(
        name="d", in_channels=12, out_channels=12, input=(9, 8), kernel=(3, 3), padding=(1, 1),
        groups=12,
    )  # fmt: skip
    return synthetic(layer, np.random.default_rng(2))


def first() -> LayerTensors:
    layer = Conv2d(
        name="f", in_channels=3, out_channels=16, input=(15, 15), kernel=(5, 5), stride=(2, 2)
    )
    return synthetic(layer, np.random.default_rng(2))


def attention() -> LayerTensors:
    return synthetic(MatMul(name="a", m=33, k=18, n=29, batch=3), np.random.default_rng(2))


@pytest.mark.parametrize("dtype", SMALL_GPU.kinds)
@pytest.mark.parametrize("sparse", [True, False])
@pytest.mark.parametrize("make", [linear, conv, depthwise, first, attention])
def test_outputs_are_exact_on_both_engines(dtype: str, sparse: bool, make: Any) -> None:
    """Verified against dense products; the SimPy run computes the same bits in its firings."""
    lowered = program(SMALL_GPU, make(), coded(dtype, NATIVE[dtype] if sparse else None))
    assert lowered.operands["weights"].how == lowered.operands["activations"].how == "as it is"
    fast = run(SMALL_GPU, lowered).report
    slow = run(SMALL_GPU, lowered, engine="simpy", execute=True).report
    assert fast.verification.status == slow.verification.status == "exact"
    assert fast.cycles == slow.cycles and fast.stalls == slow.stalls


@pytest.mark.parametrize("pattern", ["1:2", "1:4", "3:8", "2:16", "4:8", "5:5"])
@pytest.mark.parametrize("dtype", ["fp16", "int8"])
def test_any_pattern_is_exact(pattern: str, dtype: str) -> None:
    """A core for any N:M, also where M does not divide the depth or a step."""
    machine = preset("any-nm")
    lowered = program(machine, linear(depth=203), coded(dtype, pattern))
    assert f"{dtype}, {'dense' if pattern == '5:5' else pattern}" in lowered.notes[0]
    report = run(machine, lowered, engine="simpy", execute=True).report
    assert report.verification.status == "exact"


@pytest.mark.parametrize("dtype", ["fp16", "int8"])
def test_a_split_depth_is_exact(dtype: str) -> None:
    """Parts of the depth on different SMs, whichever ends first, add up in their order."""
    tensors, machine = linear(rows=256, depth=2048, out=64), SparseTensorCore()
    lowered = program(machine, tensors, coded(dtype))
    assert "depth split in" in lowered.notes[0]
    report = run(machine, lowered, engine="simpy", execute=True).report
    assert report.verification.status == "exact"
    whole = msgspec.structs.replace(machine, dense_split_k=False)
    assert "depth split" not in program(whole, tensors, coded(dtype)).notes[0]


def test_a_lost_token_shows() -> None:
    """The executed run is compared: another step's operands give other sums."""
    lowered = program(SMALL_GPU, linear(), "int8")
    simulate(lowered.netlist, engine="simpy", verify="execute")
    assert lowered.executed is not None and lowered.executed()
    product_of(lowered).run_parts[0, 0, 3, 4] += 1
    assert not lowered.executed()


def test_integers_against_numpy() -> None:
    """int8 outputs are the integer product of the recipe's codes, plus the bias in its units."""
    tensors = linear(depth=64, out=24, rows=5)
    pruned = prune(np.asarray(tensors.weight), NM(n=2, m=4, axis=1))
    scales = [np.float32(np.abs(a).max() / 127) for a in (pruned, tensors.activation)]
    left = np.rint(pruned / scales[0]).astype(np.int64)
    right = np.rint(tensors.activation / scales[1]).astype(np.int64)
    assert tensors.bias is not None
    unit = float(scales[0]) * float(scales[1])
    bias = np.rint(tensors.bias.astype(np.float64) / unit).astype(np.int64)
    signed = TensorRecipe(format="int8_signed")
    recipe = Recipe(
        name="signed",
        weights=msgspec.structs.replace(signed, prune="2:4"),
        activations=signed,
    )
    lowered = program(SparseTensorCore(), tensors, recipe)
    assert lowered.outputs is not None and (lowered.outputs == right @ left.T + bias).all()
    assert lowered.output_scale == pytest.approx(unit, rel=1e-12)


def test_channels_have_scales_of_their_own() -> None:
    """int8 weights by channel: each column of outputs has its scale; 8 bits are near the layer."""
    for make in (linear, conv):
        tensors = make()
        lowered = program(SparseTensorCore(), tensors, "int8")
        values = lowered.values()
        assert values is not None and np.size(lowered.output_scale) == tensors.weight.shape[0]
        exact = tensors.output()
        assert np.abs(values - exact).max() < 0.03 * np.abs(exact).max()


@pytest.mark.parametrize("make", [linear, conv, first])
def test_zero_points_of_activations_are_in_the_bias(make: Any) -> None:
    """Asymmetric inputs, padded and pruned: bit by bit exact, and nearer than symmetric ones."""
    tensors = make()
    tensors = LayerTensors(
        layer=tensors.layer, weight=tensors.weight, activation=tensors.activation + 1, relu=False
    )
    one = TensorRecipe(format="int8")
    plain = Recipe(name="s", weights=one, activations=one)
    shifted = Recipe(
        name="z", weights=one, activations=msgspec.structs.replace(one, asymmetric=True)
    )
    machine = SparseTensorCore()
    found = [run(machine, tensors, recipe=recipe).report for recipe in (plain, shifted)]
    assert [report.verification.status for report in found] == ["exact", "exact"]
    assert found[0].cycles == found[1].cycles
    pruned = msgspec.structs.replace(
        shifted, weights=msgspec.structs.replace(one, prune="2:4", pad=True)
    )
    assert run(machine, tensors, recipe=pruned).report.verification.status == "exact"


def test_zero_points_of_weights_are_refused() -> None:
    """They would take sums of activations, which tensor cores do not make."""
    one = TensorRecipe(format="int8", asymmetric=True)
    with pytest.raises(InputError, match="weights with a zero point"):
        program(SparseTensorCore(), linear(), Recipe(name="z", weights=one, activations=one))


def test_floats_are_close_to_the_layer() -> None:
    """fp16 is stored as fp16: the layer's own output within its rounding; fp32 after TF32."""
    for dtype, kind, bits in (("fp16", np.float16, 10), ("tf32", np.float32, 10)):
        tensors = linear()
        lowered = program(SparseTensorCore(), tensors, coded(dtype))
        exact = tensors.activation.astype(np.float64) @ np.asarray(tensors.weight).T + tensors.bias
        scale = np.abs(tensors.activation) @ np.abs(tensors.weight).T + np.abs(tensors.bias)
        assert lowered.outputs is not None and lowered.outputs.dtype == kind
        assert (np.abs(lowered.outputs - exact) <= 2.0**-bits * scale).all()


def test_bf16_is_stored_as_bf16() -> None:
    """Every output is a bfloat16, the nearest to its sum."""
    lowered = program(SparseTensorCore(), linear(), "bf16")
    assert lowered.outputs is not None
    assert (formats.get("bfloat16").round(lowered.outputs) == lowered.outputs).all()


def test_fp8_sums_have_14_bits_and_leave_as_bf16() -> None:
    """As measured on an H100: blocks of 32, aligned to 13 bits; there alone is the format, and a
    deep sum is further from the layer than one of the same codes in fp16."""
    h100, work = preset("h100", dense_split_k=False), linear(depth=2048)
    cores = h100.cores("fp8")
    assert (cores.block, cores.fraction_bits, cores.kind.sum_bits) == (32, 13, 14)
    assert h100.cores("fp16").fraction_bits == 25
    lowered = program(h100, work, "fp8")
    assert lowered.verify is not None and lowered.verify().status == "exact"
    assert lowered.operands["weights"].stored_as == "float8_e4m3fn"
    assert any("outputs are bf16" in note for note in lowered.notes)
    wider = program(msgspec.structs.replace(h100, fp8=False), work, "fp8")
    assert wider.operands["weights"].how == "held exactly" and mode(wider) == "fp16, dense"
    narrow, wide = product_of(lowered), product_of(wider)
    assert (np.frexp(narrow.sums)[0] * 2**14 % 1 == 0).all()
    exact = narrow.columns[0].astype(float) @ narrow.values[0].T.astype(float)
    far, near = (np.abs(each.sums[0] - exact).max() for each in (narrow, wide))
    assert far > 100 * near > 0


def test_what_exceeds_fp16_is_infinite_and_told() -> None:
    """fp16 may hold operands and not their sums: those are infinity, in a note, and verified."""
    tensors = linear(rows=4)
    large = LayerTensors(
        layer=tensors.layer, weight=tensors.weight, activation=tensors.activation * 3000
    )
    lowered = program(SparseTensorCore(), large)
    assert lowered.outputs is not None and np.isinf(lowered.outputs).any()
    assert any("are infinite" in note for note in lowered.notes)
    assert lowered.verify is not None and lowered.verify().status == "exact"


def test_relu_is_the_epilogues() -> None:
    """With ReLU after the layer no output is below 0, and the others are what they were."""
    tensors = linear()
    after = LayerTensors(
        layer=tensors.layer, weight=tensors.weight, activation=tensors.activation,
        bias=tensors.bias, relu=True,
    )  # fmt: skip
    for recipe in ("fp16", "int8"):
        plain, cut = (program(SparseTensorCore(), t, recipe) for t in (tensors, after))
        assert plain.outputs is not None and cut.outputs is not None
        assert (np.maximum(plain.outputs, 0) == cut.outputs).all()
        assert cut.verify is not None and cut.verify().status == "exact"


@pytest.mark.parametrize("dtype", ["fp16", "int8", "int4"])
def test_a_wrong_position_is_found(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Metadata that name other activations give outputs that the reference does not."""

    def shifted(weights: Any, sparsity: Sparsity) -> Any:
        values, places = encode(weights, sparsity)
        return values, (places + 1) % sparsity.group

    monkeypatch.setattr(numbers, "encode", shifted)
    lowered = program(SparseTensorCore(), linear(), coded(dtype, NATIVE[dtype]))
    assert lowered.verify is not None and lowered.verify().status == "mismatch"


def test_a_wrong_output_is_found() -> None:
    """Verification sees one changed output, and a float sum off by its last bit in the sample."""
    for recipe in ("int8", "fp16"):
        lowered = program(SparseTensorCore(), linear(rows=8), recipe)
        assert lowered.verify is not None and lowered.verify().status == "exact"
        product = product_of(lowered)
        if recipe == "fp16":
            was = product.sums[0, 3, 5]
            product.sums[0, 3, 5] = np.nextafter(was, np.float32(np.inf))
            assert lowered.verify().mismatches == 1
            product.sums[0, 3, 5] = was
        product.outputs[3, 5] += 1
        assert lowered.verify().mismatches == 1


@pytest.mark.parametrize("dtype", ["fp16", "int8", "int4"])
def test_all_zero_and_all_dense(dtype: str) -> None:
    """Zero weights give zeros and no effectual MAC; the time is that of any weights."""
    tensors, machine, sparse = linear(), SparseTensorCore(), coded(dtype, NATIVE[dtype])

    def filled(weight: float, activation: Any) -> LayerTensors:
        shape = tensors.layer.weight_shape
        return LayerTensors(
            layer=tensors.layer, weight=np.full(shape, weight, np.float32), activation=activation
        )

    zero = filled(0.0, tensors.activation)
    nothing, some = (run(machine, t, recipe=sparse).report for t in (zero, tensors))
    assert nothing.macs.effectual == 0 and nothing.verification.status == "exact"
    assert nothing.cycles == some.cycles
    outputs = program(machine, zero, sparse).outputs
    assert outputs is not None and not outputs.any()
    full = filled(1.0, np.ones_like(tensors.activation))
    dense = run(machine, full, recipe=coded(dtype)).report
    assert dense.macs.effectual == dense.macs.dense == tensors.layer.macs
    kept = run(machine, full, recipe=sparse).report
    assert kept.macs.effectual == kept.macs.dense // 2


def test_a_real_layer() -> None:
    """A trained layer on real images comes out exact, pruned and dense."""
    tensors = from_digits("cnn", "conv2", images=4)
    for recipe in ("2:4+int8", "fp16"):
        report = run(SparseTensorCore(), tensors, recipe=recipe).report
        assert report.verification.status == "exact"


# ------------------------------------------------------------------ formats and patterns of a layer


@pytest.mark.parametrize(
    ("weights", "activations", "stored"),
    [
        ("int4", "int4", "int4"),
        ("int4", "int8", "int8"),
        ("flint4", "int8", "int8"),
        ("int8", "float16", "float16"),
        ("float8_e5m2", "float16", "float16"),
        ("bfloat16", "bfloat16", "bfloat16"),
    ],
)
def test_operands_meet_in_one_format(weights: str, activations: str, stored: str) -> None:
    """Tensor cores multiply equal formats: the one both have, or the narrowest that holds both."""
    recipe = Recipe(
        name="two",
        weights=TensorRecipe(format=weights),
        activations=TensorRecipe(format=activations),
    )
    lowered = program(SparseTensorCore(), linear(), recipe)
    found = {each.stored_as.split("_")[0] for each in lowered.operands.values()}
    assert found == {stored}


def test_a_machine_without_int4_holds_it_in_int8() -> None:
    """The H100 has no int4 mode: the codes are held exactly in int8, and said so."""
    lowered = program(preset("h100"), linear(), "int4")
    assert lowered.operands["weights"].stored_as == "int8_signed"
    assert lowered.operands["weights"].how == "held exactly"


def test_what_no_mode_holds_is_refused() -> None:
    """16-bit integers have more digits than TF32: refused with what there is, or rounded again."""
    with pytest.raises(InputError, match="float16, bfloat16, tf32; int16"):
        program(SparseTensorCore(), linear(), "int16")
    lowered = program(SparseTensorCore(), linear(), "int16", requantize=True)
    assert {each.stored_as for each in lowered.operands.values()} == {"float16"}


def mode(lowered: Program) -> str:
    """Format and pattern that a program says."""
    told = next(note for note in lowered.notes if " SMs; " in note)
    return told.split(" SMs; ")[1]


@pytest.mark.parametrize(
    ("dtype", "prune", "ran"),
    [
        ("fp16", "2:4", "fp16, 2:4"),
        ("fp16", "1:4", "fp16, 2:4"),
        ("fp16", "4:8", "fp16, dense"),
        ("fp16", None, "fp16, dense"),
        ("int8", "2:4", "int8, 2:4"),
        ("tf32", "1:2", "tf32, 1:2"),
        ("tf32", "2:4", "tf32, dense"),
        ("int4", "2:4x2", "int4, 4:8"),
        ("int4", "2:4", "int4, dense"),
    ],
)
def test_the_pattern_is_the_layers(dtype: str, prune: str | None, ran: str) -> None:
    """N:M runs sparse where the native pattern holds it, else dense; a note says what became of
    it, and an outline runs alike."""
    tensors, recipe, machine = linear(), coded(dtype, prune), SparseTensorCore()
    lowered = program(machine, tensors, recipe)
    assert mode(lowered) == ran
    if prune is not None and ran.endswith("dense"):
        assert any("runs dense" in note for note in lowered.notes)
    drawn = program(machine, outline(tensors.layer, recipe, own="fp16"))
    assert mode(drawn) == ran
    assert run(machine, drawn).report.cycles == run(machine, lowered).report.cycles


def test_zeros_without_a_pattern_run_dense() -> None:
    """Unstructured zeros take the time of any numbers."""
    recipe = Recipe(name="u", weights=TensorRecipe(prune="unstructured", density=0.1))
    lowered = program(SparseTensorCore(), linear(), recipe)
    assert mode(lowered) == "fp16, dense"
    assert lowered.macs.effectual < 0.2 * lowered.macs.dense


def test_a_recipe_that_prunes_alone_is_filled_up() -> None:
    """2:4 leaves formats open: the machine's own, fp16, fills them in, and the report says so."""
    report = run(SparseTensorCore(), conv(), recipe="2:4").report
    assert report.operands["weights"].stored_as == "float16"
    assert any("leaves weights in float32; 'fp16' gives float16" in note for note in report.notes)


@pytest.mark.parametrize(("channels", "ran"), [(1, "dense"), (2, "dense"), (3, "2:4"), (5, "2:4")])
def test_few_channels_are_padded_where_it_pays(channels: int, ran: str) -> None:
    """Each tap is padded to whole groups of four: two of three channels kept is a gain, two of
    two is none."""
    layer = Conv2d(
        name="c", in_channels=channels, out_channels=8, input=(9, 9), kernel=(3, 3), bias=False
    )
    tensors, machine = synthetic(layer, np.random.default_rng(0)), SparseTensorCore()
    lowered = program(machine, tensors, "2:4")
    assert mode(lowered) == f"fp16, {ran}"
    bits = lowered.counters(simulate(lowered.netlist))["weight_bits"]
    groups = -(-channels // 4)
    assert bits == 8 * 9 * (groups * 2 * 18 if ran == "2:4" else channels * 16)
    assert lowered.verify is not None and lowered.verify().status == "exact"


@pytest.mark.parametrize("make", [linear, conv, depthwise, first, attention])
@pytest.mark.parametrize("recipe", ["fp16", "2:4", "int8"])
def test_an_outline_takes_the_same_time(make: Any, recipe: str) -> None:
    """Shapes and formats tell the time, the bits and the energy; there are no outputs."""
    tensors, machine = make(), SparseTensorCore()
    whole = run(machine, tensors, recipe=recipe).report
    lowered = program(machine, outline(tensors.layer, recipe, own="fp16"))
    assert lowered.outputs is None and lowered.verify is None and lowered.executed is None
    drawn = run(machine, lowered).report
    assert (drawn.cycles, drawn.memory, drawn.counters) == (
        whole.cycles, whole.memory, whole.counters,
    )  # fmt: skip
    assert drawn.energy == whole.energy


# ------------------------------------------------------------------ encoding


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    sparsity=st.sampled_from(
        [Sparsity(2, 4), Sparsity(1, 2), Sparsity(2, 4, 2), Sparsity(3, 8), Sparsity(1, 1)]
    ),
    depth=st.integers(1, 40),
)
def test_what_is_stored_is_what_was_pruned(seed: int, sparsity: Sparsity, depth: int) -> None:
    """Scattering values to their positions gives the pruned matrix; pairs go together."""
    rng = np.random.default_rng(seed)
    pattern = NM(n=sparsity.n, m=sparsity.m, unit=sparsity.unit, ragged="short")
    pruned = prune(rng.integers(-8, 8, (3, depth)), pattern)
    values, places = encode(pruned, sparsity)
    back = np.zeros((3, -(-depth // sparsity.group) * sparsity.group), np.int64)
    at = np.arange(values.shape[1]) // sparsity.kept * sparsity.group + places
    np.put_along_axis(back, at, values.astype(np.int64), axis=1)
    assert (back[:, :depth] == pruned).all() and not back[:, depth:].any()
    assert values.shape[1] * sparsity.group == back.shape[1] * sparsity.kept


def test_pairs_of_int4_by_hand() -> None:
    """4:8 by pairs keeps the two largest of four pairs, whole; unsigned values too."""
    weights = np.array([[1, 1, 7, 0, 0, 15, 2, 2]])
    pruned = prune(weights, NM(n=2, m=4, unit=2))
    assert pruned.tolist() == [[0, 0, 7, 0, 0, 15, 0, 0]]
    values, places = encode(pruned, Sparsity(2, 4, 2))
    assert values.tolist() == [[7, 0, 0, 15]]
    assert places.tolist() == [[2, 3, 4, 5]]


# ------------------------------------------------------------------ error messages


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"sms": 0}, "sms"),
        ({"sms": 2.5}, "sms"),
        ({"clock_hz": math.nan}, "clock_hz"),
        ({"launch_us": -1.0}, "launch_us"),
        ({"sparse_issue": 0.0}, "sparse_issue"),
        ({"dram_efficiency": 1.5}, "dram_efficiency"),
        ({"dram_gbytes_per_s": math.inf}, "dram_gbytes_per_s"),
        ({"dram_latency_cycles": 10}, "dram_latency_cycles"),
        ({"idle_w": 500.0}, "tdp_w"),
        ({"power_limit_w": 20.0}, "power_limit_w"),
        ({"shared_kib": 8}, "shared_kib"),
    ],
)
def test_a_wrong_configuration_is_refused(fields: dict[str, Any], words: str) -> None:
    """The message names the field."""
    with pytest.raises(InputError, match=words):
        SparseTensorCore(**fields)


def test_wrong_names_and_sizes_are_refused() -> None:
    """Formats and patterns that are not done, sizes that are no whole numbers from 1."""
    machine = SparseTensorCore()
    for pattern, words in (("2of4", "N:M"), ("5:4", "N:M"), ("0:4", "N:M"), ("1:4", "any_pattern")):
        with pytest.raises(InputError, match=words):
            machine.gemm(64, 64, 64, pattern=pattern)
    for one, dtype in ((machine, "fp8"), (preset("h100"), "int4")):
        with pytest.raises(InputError, match=f"got {dtype!r}"):
            one.gemm(64, 64, 64, dtype=dtype)
    with pytest.raises(InputError, match=r"enlarge sparse_tensor_core\.shared_kib from 40"):
        msgspec.structs.replace(preset("any-nm"), shared_kib=40).gemm(64, 64, 64, pattern="1:256")
    for size in (0, -1, 2.0, True):
        with pytest.raises(InputError, match="depth"):
            SparseTensorCore().gemm(64, 64, size)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="at most 2 of 4"):
        encode(np.ones((2, 4)), Sparsity(2, 4))


@pytest.mark.parametrize("make", [linear, conv, depthwise, attention])
def test_outputs_have_the_layers_shape(make: Any) -> None:
    """Groups of a convolution and heads are products; their outputs lie as the layer's do."""
    tensors = make()
    layer: Layer = tensors.layer
    for recipe in ("fp16", "int8"):
        lowered = program(SparseTensorCore(), tensors, recipe)
        values = lowered.values()
        assert values is not None and values.shape == tensors.output().shape
        assert values.size == layer.output_elements


def test_a_machine_is_resized_by_its_sms() -> None:
    """Another peak is another number of SMs, another bandwidth that of the DRAM; the area is that
    of a preset alone."""
    machine = SparseTensorCore()
    area = machine.area()
    assert area is not None and (area.mm2, area.node_nm) == (826, 7)
    half = machine.resized(macs_per_s=machine.peak().macs_per_s / 2)
    assert half.sms == 54 and half.area() is None
    assert machine.resized(bandwidth=1e12).bandwidth() == 1e12


# ------------------------------------------------------------------ outlier-victim pairs


@pytest.mark.parametrize("make", [linear, conv, depthwise, attention])
@pytest.mark.parametrize("dtype", ["olive4", "olive8"])
def test_pairs_are_decoded_in_front_of_the_dot_products(dtype: str, make: Any) -> None:
    """OliVe's formats, outliers among them: bit by bit on both engines, at the time and the bits of
    integers of the same width."""
    gpu = msgspec.structs.replace(SMALL_GPU, outlier_pairs=True)
    work = make()
    work.activation.reshape(-1)[::97] *= 12  # outliers
    lowered = program(gpu, work, dtype)
    fast = run(gpu, lowered).report
    slow = run(gpu, lowered, engine="simpy", execute=True).report
    assert fast.verification.status == slow.verification.status == "exact"
    assert any("ovp" in each.stored_as for each in fast.operands.values())
    integers = run(SMALL_GPU, program(SMALL_GPU, make(), coded(f"int{dtype[-1]}"))).report
    assert fast.cycles == integers.cycles
    for memory in ("dram", "l2", "shared"):
        assert fast.memory[memory].read_bits == integers.memory[memory].read_bits


def test_a_gpu_without_decoders_takes_no_pairs() -> None:
    """As it is sold: the formats are not there, and the refusal says what to do."""
    with pytest.raises(InputError, match="ovp"):
        program(SMALL_GPU, linear(), "olive4")
    assert "olive4" not in SMALL_GPU.kinds
    with pytest.raises(InputError, match="got 'olive4'"):
        SMALL_GPU.cores("olive4")
    gpu = msgspec.structs.replace(SMALL_GPU, outlier_pairs=True)
    assert gpu.cores("olive4").macs_per_sm == SMALL_GPU.cores("int4").macs_per_sm
