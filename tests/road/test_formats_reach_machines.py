"""Do a recipe's codes reach the machines as they are, and does their width cost what it should?"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparqsim.architectures.arrays.ant import Ant
from sparqsim.architectures.arrays.bitfusion import BitFusion
from sparqsim.architectures.arrays.plain import PlainArray
from sparqsim.architectures.arrays.tpu import TPU
from sparqsim.architectures.machine import Machine, run
from sparqsim.architectures.machine import program as lowered
from sparqsim.architectures.operands import take
from sparqsim.base import InputError
from sparqsim.workloads import recipes
from sparqsim.workloads.compress import compress_weight, fitted
from sparqsim.workloads.encoded import (
    Coded,
    as_convolution,
    as_image,
    as_kernels,
    as_output,
    encode,
    outline,
)
from sparqsim.workloads.layers import Conv2d, Layer, Linear, MatMul
from sparqsim.workloads.quantize import QuantizedTensor
from sparqsim.workloads.recipes import Recipe, TensorRecipe
from sparqsim.workloads.tensors import LayerTensors, synthetic

CONV = Conv2d(
    name="conv", in_channels=64, out_channels=64, input=(14, 14), kernel=(3, 3), padding=(1, 1)
)
SMALL: dict[str, Layer] = {
    "conv": Conv2d(
        name="c", in_channels=6, out_channels=10, input=(7, 6), kernel=(3, 3), stride=(2, 1),
        padding=(1, 0, 2, 1), batch=2,
    ),
    "depthwise": Conv2d(
        name="d", in_channels=5, out_channels=5, input=(6, 6), kernel=(3, 3), groups=5,
        padding=(1, 1),
    ),
    "connected": Linear(name="l", in_features=33, out_features=7, rows=3),
    "attention": MatMul(name="m", m=5, k=8, n=6, batch=3),
}  # fmt: skip
ZERO_POINTS = Recipe(
    name="asymmetric",
    weights=TensorRecipe(format="int8", granularity="channel"),
    activations=TensorRecipe(format="int8", asymmetric=True),
)
BOTH_ZERO_POINTS = Recipe(
    name="both asymmetric",
    weights=TensorRecipe(format="int8", granularity="channel", asymmetric=True),
    activations=TensorRecipe(format="int8", asymmetric=True),
)


def tensors(layer: Layer, seed: int = 0, signed: bool = True) -> LayerTensors:
    """Synthetic numbers off centre, so that zero points are not 0, and a bias."""
    given_ = synthetic(layer, np.random.default_rng(seed))
    rng = np.random.default_rng(seed + 1)
    inputs = given_.activation + np.float32(0.7) * (1 if signed else 0)
    bias = None if isinstance(layer, MatMul) else rng.normal(size=layer.weight_shape[0])
    return dataclasses.replace(given_, activation=inputs, bias=bias, relu=False)


def test_bit_fusion_composes_the_widths_of_the_recipe() -> None:
    """A Fusion Unit does (8/a)(8/w) products a cycle: the array's cycles at w4a8, w2a8 and int4
    are a half, a quarter and a quarter of int8's; codes and outputs are exact at each."""
    work = tensors(CONV)
    compute = {}
    for recipe in ("int8", "w4a8", recipes.of_widths(2, 8), "int4"):
        report = run(BitFusion(), work, recipe=recipe).report
        assert report.verification.status == "exact"
        assert all(each.how == "as it is" for each in report.operands.values())
        compute[report.recipe] = report.counters["compute_cycles"]
    assert compute["int8"] == 2 * compute["w4a8"] == 4 * compute["w2a8"] == 4 * compute["int4"]


@pytest.mark.parametrize("machine", [PlainArray(), TPU()])
def test_narrow_codes_cost_what_wide_ones_do_where_nothing_composes(machine: Machine) -> None:
    """On fixed 8-bit multipliers int4 and flint4 are held exactly in int8 and gain no cycle."""
    work = tensors(CONV)
    wide = run(machine, work, recipe="int8").report
    for recipe in ("int4", "w4a8", "flint4", "ant4"):
        report = run(machine, work, recipe=recipe).report
        assert report.verification.status == "exact" and report.cycles == wide.cycles
        assert report.operands["weights"].stored_as == "int8_signed"
        assert report.operands["weights"].how == "held exactly"


@pytest.mark.parametrize("layer", SMALL)
@pytest.mark.parametrize("recipe", [ZERO_POINTS, BOTH_ZERO_POINTS], ids=lambda r: r.name)
@pytest.mark.parametrize("machine", [BitFusion(), PlainArray(), TPU()])
def test_zero_points_are_exact(machine: Machine, recipe: Recipe, layer: str) -> None:
    """Asymmetric activations, and weights, on integer arrays: bit by bit, padding included; the
    sums of activations that zero points of weights need are counted."""
    work = tensors(SMALL[layer])
    coded = encode(work, recipe)
    assert isinstance(coded.activation, Coded) and coded.activation.zero_point.any()
    report = run(machine, coded).report
    assert report.verification.status == "exact"
    assert report.output_sqnr_db is not None and report.output_sqnr_db > 20
    of_weights = isinstance(coded.weight, Coded) and coded.weight.zero_point.any()
    assert ("activation_sum_additions" in report.counters) == of_weights


def test_padding_holds_the_zero_point() -> None:
    """A padded place stands for 0: a constant image convolved with ones gives, at a corner, the
    sum of the taps inside."""
    layer = Conv2d(
        name="p", in_channels=1, out_channels=1, input=(4, 4), kernel=(3, 3), padding=(1, 1)
    )
    inputs = np.full((1, 1, 4, 4), 5.0, np.float32)
    inputs[0, 0, 3, 3] = 1.0
    work = LayerTensors(layer=layer, weight=np.ones((1, 1, 3, 3)), activation=inputs, relu=False)
    program = lowered(PlainArray(), work, ZERO_POINTS)
    values = program.values()
    assert values is not None and program.verify is not None
    assert program.verify().status == "exact"
    assert values[0, 0, 0, 0] == pytest.approx(20, abs=0.3)
    assert values[0, 0, 1, 1] == pytest.approx(45, abs=0.3)


@pytest.mark.parametrize("machine", [BitFusion(), Ant(), PlainArray(), TPU()])
@pytest.mark.parametrize("layer", SMALL)
def test_dynamic_ranges_cost_a_way_back(machine: Machine, layer: str) -> None:
    """The scale of the outputs is known when the last of them is: more cycles and more bits than
    with static ranges, told in a note; the numbers are exact."""
    work = tensors(SMALL[layer])
    static, dynamic = (run(machine, work, recipe=r).report for r in ("int8", "int8-dynamic"))
    assert dynamic.verification.status == "exact"
    assert dynamic.cycles > static.cycles
    moved = [
        sum(use.read_bits + use.written_bits for use in report.memory.values())
        for report in (static, dynamic)
    ]
    assert moved[1] > moved[0]
    assert any("dynamic ranges" in note for note in dynamic.notes)


def test_ant_runs_the_very_codes_of_compress() -> None:
    """`run ant --recipe ant4` multiplies the codes that `compress` makes of the weights."""
    work = tensors(CONV)
    recipe = recipes.get("ant4")
    made = compress_weight(np.asarray(work.weight), recipe.weights)
    assert isinstance(made, QuantizedTensor)
    taken = take("ant", encode(work, recipe), Ant().computes(encode(work, recipe)), recipe)
    assert isinstance(taken.layer.weight, Coded)
    assert np.array_equal(taken.layer.weight.codes, made.codes)
    assert taken.operands["weights"].how == "as it is"
    seen = fitted(work.activation, recipe.activations).quantize(work.activation)
    assert isinstance(taken.layer.activation, Coded)
    assert np.array_equal(taken.layer.activation.codes, seen.codes)


def test_calibration_gives_the_range() -> None:
    """Static ranges come from the calibration inputs where there are some, else from the inputs."""
    work = tensors(SMALL["connected"])
    wide = dataclasses.replace(work, calibration=np.float32(10) * work.activation)
    scales = [encode(each, "int8").activation.scale[0] for each in (work, wide)]  # type: ignore[union-attr]
    assert scales[1] == pytest.approx(10 * scales[0], rel=1e-6)
    dynamic = [encode(each, "int8-dynamic").activation.scale[0] for each in (work, wide)]  # type: ignore[union-attr]
    assert dynamic[0] == dynamic[1]


@pytest.mark.parametrize("recipe", ["fp8", "olive4"])
def test_what_a_machine_does_not_compute_is_refused_or_rounded_again(recipe: str) -> None:
    """A message that names the formats, the machine's own recipe and the way out; with
    ``requantize`` the operand is rounded again, and the report says so."""
    work = tensors(CONV)
    with pytest.raises(InputError, match=r"bitfusion computes weights in .*--requantize"):
        run(BitFusion(), work, recipe=recipe)
    report = run(BitFusion(), work, recipe=recipe, requantize=True).report
    assert report.operands["weights"].how == "rounded again"
    assert report.verification.status == "exact"
    assert any("rounded again" in note for note in report.notes)


def test_scales_of_groups_are_refused_by_name() -> None:
    """One scale for 16 values of a channel cannot be applied after a whole sum."""
    grouped = Recipe(name="g", weights=TensorRecipe(format="int4", granularity="group:16"))
    with pytest.raises(InputError, match="one scale for every 16 values"):
        run(BitFusion(), tensors(CONV), recipe=grouped)


def test_without_a_recipe_the_machines_own_runs_and_is_named() -> None:
    """The report names it; what a recipe leaves in float32 gets the machine's own format."""
    work = tensors(CONV)
    assert run(BitFusion(), work).report.recipe == "int8"
    assert run(Ant(), work).report.recipe == "ant4"
    report = run(PlainArray(), work, recipe="2:4").report
    assert report.recipe == "2:4" and report.operands["weights"].format == "int8_signed"
    assert any("leaves weights in float32" in note for note in report.notes)
    assert report.macs.effectual < 0.55 * report.macs.dense


@pytest.mark.parametrize("recipe", ["int8", "int4", "w4a8", "ant4", "int8-dynamic", "2:4"])
@pytest.mark.parametrize("machine", [BitFusion(), Ant(), PlainArray(), TPU()])
@pytest.mark.parametrize("layer", SMALL)
def test_an_outline_takes_the_time_of_the_numbers(
    machine: Machine, recipe: str, layer: str
) -> None:
    """Machines whose time does not depend on values: shapes and formats alone give the cycles,
    the bits and the energy of a verified run."""
    signs = tensors(SMALL[layer], signed=False)
    whole = run(machine, signs, recipe=recipe).report
    own = machine.recipe_for(SMALL[layer])
    alone = run(machine, outline(SMALL[layer], recipe, own=own)).report
    assert alone.cycles == whole.cycles
    assert alone.memory == whole.memory
    assert alone.energy == whole.energy
    assert alone.verification.status == "skipped" and alone.output_sqnr_db is None


@pytest.mark.parametrize("layer", SMALL)
def test_every_layer_is_the_convolution_it_is_run_as(layer: str) -> None:
    """The float output of the layer is that of its convolution, back in the layer's shape."""
    work = tensors(SMALL[layer])
    weight = work.weight if isinstance(work.weight, np.ndarray) else work.weight.to_dense()
    conv = as_convolution(SMALL[layer])
    same = LayerTensors(
        layer=conv,
        weight=as_kernels(SMALL[layer], weight),
        activation=as_image(SMALL[layer], work.activation),
        bias=work.bias,
        relu=False,
    )
    np.testing.assert_allclose(
        as_output(SMALL[layer], same.output()), work.output(), rtol=1e-4, atol=1e-5
    )
    assert conv.macs == SMALL[layer].macs


@settings(deadline=None, max_examples=40)
@given(
    st.sampled_from(["int2", "int3", "int4", "int8", "flint4", "pot4", "apot_4", "ant4"]),
    st.booleans(),
    st.sampled_from(["tensor", "channel"]),
    st.integers(0, 1000),
)
def test_what_is_held_exactly_is_the_same_number(
    name: str, signed: bool, granularity: str, seed: int
) -> None:
    """Codes moved to a wider format stand for the same real numbers, every one."""
    recipe = Recipe(
        name="r",
        weights=TensorRecipe(format=name, granularity=granularity),
        activations=TensorRecipe(format=name),
    )
    coded = encode(tensors(SMALL["conv"], seed, signed), recipe)
    for machine in (BitFusion(), PlainArray(), TPU()):
        try:
            taken = take(machine.name, coded, machine.computes(coded), recipes.get("int8"))
        except InputError:
            assert name == "pot4"  # unsigned powers of two need 15 bits
            continue
        for before, after in (
            (coded.weight, taken.layer.weight), (coded.activation, taken.layer.activation),
        ):  # fmt: skip
            assert isinstance(before, Coded) and isinstance(after, Coded)
            assert np.array_equal(before.values(), after.values())
