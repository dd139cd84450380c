"""Do scales of groups along the reduction, and of tokens, cost and give what they should?"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparqsim.architectures.arrays.ant import Ant
from sparqsim.architectures.arrays.bitfusion import BitFusion
from sparqsim.architectures.arrays.cost import cost
from sparqsim.architectures.arrays.folds import Dataflow
from sparqsim.architectures.arrays.plain import PlainArray
from sparqsim.architectures.arrays.scales import GroupScales, by_definition, with_groups
from sparqsim.architectures.arrays.search import Objective, seen
from sparqsim.architectures.arrays.shapes import ConvShape
from sparqsim.architectures.arrays.tiled import TiledMachine
from sparqsim.architectures.arrays.tpu import TPU
from sparqsim.architectures.heatvit.machine import HeatViT
from sparqsim.architectures.machine import Machine, run
from sparqsim.architectures.machine import program as lowered
from sparqsim.base import InputError
from sparqsim.workloads.encoded import Coded, encode, outline
from sparqsim.workloads.layers import Conv2d, Layer, Linear, MatMul
from sparqsim.workloads.recipes import Recipe, TensorRecipe
from sparqsim.workloads.requantize import Multiplier, fixed_points, requantize_one, scaled
from sparqsim.workloads.tensors import LayerTensors, synthetic

LAYERS: dict[str, Layer] = {
    "connected": Linear(name="l", in_features=77, out_features=41, rows=5),
    "pointwise": Conv2d(
        name="p", in_channels=40, out_channels=12, input=(5, 4), kernel=(1, 1), groups=2, batch=2,
        padding=(1, 0, 0, 1),
    ),
    "attention": MatMul(name="m", m=5, k=8, n=6, batch=3),
}  # fmt: skip
GROUPED: dict[str, Machine] = {
    "plain": PlainArray(),
    "plain-ws": PlainArray(dataflow=Dataflow.WEIGHT_STATIONARY),
    "bitfusion": BitFusion(),
    "bitfusion-20": BitFusion(accumulator_bits=20),
}
WEIGHTS = TensorRecipe(format="int4", granularity="group:16", pad=True)
INPUTS = TensorRecipe(format="int8")


def recipe(weights: TensorRecipe = WEIGHTS, inputs: TensorRecipe = INPUTS) -> Recipe:
    return Recipe(name="finer", weights=weights, activations=inputs)


def tensors(layer: Layer) -> LayerTensors:
    """Numbers off centre, rows of very different sizes, and a bias."""
    rng = np.random.default_rng(1)
    made = synthetic(layer, np.random.default_rng(0))
    x = made.activation + np.float32(0.7)
    if not isinstance(layer, Conv2d):
        x = x * rng.uniform(0.01, 3, (*x.shape[:-1], 1)).astype(np.float32)
    bias = None if isinstance(layer, MatMul) else rng.normal(size=layer.weight_shape[0])
    return dataclasses.replace(made, activation=x, bias=bias, relu=False)


@pytest.mark.parametrize("asymmetric", [False, True])
@pytest.mark.parametrize("layer", ["connected", "pointwise"])
@pytest.mark.parametrize("machine", GROUPED)
def test_groups_are_exact(machine: str, layer: str, asymmetric: bool) -> None:
    """A scale (and a zero point) for 16 weights, the last of them fewer: bit by bit on both
    engines, carried by tokens; each output is scaled once a group."""
    weights = TensorRecipe(format="int4", granularity="group:16", pad=True, asymmetric=asymmetric)
    inputs = TensorRecipe(format="int8", asymmetric=asymmetric)
    work, used = tensors(LAYERS[layer]), recipe(weights, inputs)
    report = run(GROUPED[machine], work, recipe=used).report
    again = run(GROUPED[machine], work, recipe=used, engine="simpy", execute=True).report
    assert report.verification.status == again.verification.status == "exact"
    assert report.cycles == again.cycles
    assert report.operands["weights"].granularity == "group of 16"
    groups = {"connected": 5, "pointwise": 2}[layer]
    assert report.counters["group_scalings"] == groups * LAYERS[layer].output_elements
    assert ("activation_sum_additions" in report.counters) == asymmetric
    assert any(part.part == "scaling of sums" for part in report.energy.parts)


@pytest.mark.parametrize("name", ["int4", "flint4"])
def test_groups_on_ant(name: str) -> None:
    """Codes that the border decodes are summed and scaled group by group too."""
    weights = TensorRecipe(format=name, granularity="group:16", pad=True)
    used = recipe(weights, TensorRecipe(format="int4"))
    report = run(Ant(), tensors(LAYERS["connected"]), recipe=used).report
    assert report.verification.status == "exact"


@pytest.mark.parametrize("asymmetric", [False, True])
@pytest.mark.parametrize("machine", ["plain", "bitfusion"])
def test_an_outline_takes_the_time_of_the_numbers(machine: str, asymmetric: bool) -> None:
    """Shapes and formats alone give the cycles, bits and energy of a verified run: scales, zero
    points and sums of activations included."""
    weights = TensorRecipe(format="int4", granularity="group:16", pad=True, asymmetric=asymmetric)
    inputs = TensorRecipe(format="int8_signed", dynamic=True, granularity="token")
    work, used = tensors(LAYERS["connected"]), recipe(weights, inputs)
    whole = run(GROUPED[machine], work, recipe=used).report
    alone = run(GROUPED[machine], outline(LAYERS["connected"], used)).report
    assert (alone.cycles, alone.memory, alone.counters) == (
        whole.cycles, whole.memory, whole.counters,
    )  # fmt: skip
    assert alone.energy == whole.energy


def test_a_step_covers_one_group() -> None:
    """Closed form: with G = 32 the 64 places along Bit Fusion's reduction at 4 x 4 bits do half of
    what they do with one scale per channel; with G = 64 all of it. Scales travel with weights."""
    layer = Linear(name="l", in_features=512, out_features=64, rows=128)
    cycles, bits = {}, {}
    for granularity in ("channel", "group:64", "group:32"):
        weights = TensorRecipe(format="int4", granularity=granularity)
        coded = outline(layer, recipe(weights, TensorRecipe(format="int4")))
        report = run(BitFusion(), coded).report
        cycles[granularity] = report.counters["compute_cycles"]
        bits[granularity] = report.memory["weight_buffer"].written_bits
    rows, columns = 128, 64 // 32
    assert cycles["channel"] == cycles["group:64"] == rows * columns * 512 // 64
    assert cycles["group:32"] == 2 * cycles["channel"]
    stored = 512 * 64 * 4
    assert bits["channel"] % stored == bits["group:32"] % (stored + 512 // 32 * 64 * 32) == 0


@pytest.mark.parametrize("machine", ["plain", "plain-ws", "bitfusion"])
def test_the_search_promises_what_the_closed_form_says(machine: str) -> None:
    """Groups that a channel does not fill, and several in a tile: cycles and energy of the compiled
    search are those of the specification; no tile cuts a group."""
    array = GROUPED[machine]
    assert isinstance(array, TiledMachine)
    shape = ConvShape(batch=37, in_channels=203, out_channels=50)
    rules = with_groups(array.layer_rules(shape, (8, 8)), GroupScales(16, 40))
    for each in seen(shape, rules, array.rates, Objective.CYCLES, 4):
        one = cost(shape, rules, each.mapping)
        assert each.cycles == pytest.approx(one.cycles, abs=1)
        assert each.energy == pytest.approx(1e3 * one.energy(array.rates).total_nj, rel=1e-6)
        assert each.mapping.tile.in_channels in (*range(16, 203, 16), 203)


def test_short_groups_wait_for_the_sums_before_them() -> None:
    """On 32 rows that keep sums, a group of 8 weights takes 32 cycles, in which the sums before it
    are shifted out: four times as long as a group of 32."""
    layer = Linear(name="l", in_features=512, out_features=64, rows=128)
    taken = {}
    for size in (32, 8):
        weights = TensorRecipe(format="int8", granularity=f"group:{size}")
        taken[size] = run(PlainArray(), outline(layer, recipe(weights))).report
    folds = 128 // 32 * 64 // 32 * 512
    assert taken[32].counters["compute_cycles"] == taken[8].counters["compute_cycles"] == folds
    busy = {size: report.stalls["array"].busy for size, report in taken.items()}
    assert busy == {32: folds, 8: 4 * folds}


@pytest.mark.parametrize("asymmetric", [False, True])
@pytest.mark.parametrize("layer", ["connected", "attention"])
@pytest.mark.parametrize("machine", [BitFusion(), PlainArray(), TPU(), HeatViT()])
def test_tokens_are_exact(machine: Machine, layer: str, asymmetric: bool) -> None:
    """A scale for each row of inputs: bit by bit, no cycle more than a dynamic scale for all of
    them, and nearer to the float layer where rows differ."""
    work, found = tensors(LAYERS[layer]), {}
    for granularity in ("token", "tensor"):
        inputs = TensorRecipe(
            format="int8", dynamic=True, granularity=granularity, asymmetric=asymmetric
        )
        weights = TensorRecipe(format="int8", granularity="channel")
        found[granularity] = run(machine, work, recipe=recipe(weights, inputs)).report
    token, tensor = found["token"], found["tensor"]
    assert token.verification.status == "exact" and token.cycles == tensor.cycles
    assert token.operands["activations"].granularity == "token"
    assert token.output_sqnr_db is not None and tensor.output_sqnr_db is not None
    assert token.output_sqnr_db > tensor.output_sqnr_db - 0.5
    assert any("one scale for each token" in note for note in token.notes)


def test_groups_and_tokens_together() -> None:
    """What weight-and-activation quantization of language models does (W4A8, groups and tokens)."""
    inputs = TensorRecipe(format="int8", dynamic=True, granularity="token", asymmetric=True)
    weights = TensorRecipe(format="int4", granularity="group:16", pad=True, asymmetric=True)
    work = tensors(LAYERS["connected"])
    for machine in (BitFusion(), PlainArray()):
        report = run(
            machine, work, recipe=recipe(weights, inputs), engine="simpy", execute=True
        ).report
        assert report.verification.status == "exact"


@pytest.mark.parametrize("token", [False, True])
@pytest.mark.parametrize("layer", ["connected", "pointwise"])
def test_outputs_are_those_of_the_decoded_numbers(layer: str, token: bool) -> None:
    """The product of the decoded numbers in float64 differs by no more than an output's rounding:
    half a step, and a hair for the scaled sums."""
    if token and layer == "pointwise":
        pytest.skip("lines of images have no scales")
    inputs = TensorRecipe(
        format="int8", asymmetric=True, dynamic=token, granularity="token" if token else "tensor"
    )
    weights = TensorRecipe(format="int4", granularity="group:16", pad=True, asymmetric=True)
    coded = encode(tensors(LAYERS[layer]), recipe(weights, inputs))
    assert isinstance(coded.weight, Coded) and isinstance(coded.activation, Coded)
    assert coded.given is not None
    decoded = dataclasses.replace(
        coded.given, weight=coded.weight.values(), activation=coded.activation.values()
    )
    program = lowered(PlainArray(), coded)
    values = program.values()
    assert values is not None
    assert np.abs(values - decoded.output()).max() <= 0.501 * program.output_scale


REFUSED = {
    "kernel of 9 taps": (
        PlainArray(),
        Conv2d(name="c", in_channels=32, out_channels=8, input=(6, 6), kernel=(3, 3)),
        WEIGHTS, "across the 9 taps",
    ),
    "more than stays in the array": (
        PlainArray(dataflow=Dataflow.WEIGHT_STATIONARY, rows=8), LAYERS["connected"], WEIGHTS,
        "groups of at most 8",
    ),
    "accumulators of whole sums": (TPU(), LAYERS["connected"], WEIGHTS, "accumulators add whole"),
    "authors' model": (
        BitFusion(authors_model=True), LAYERS["connected"], WEIGHTS, "leave authors_model out"
    ),
    "sparse weights": (
        PlainArray(dataflow=Dataflow.WEIGHT_STATIONARY, sparsity="2:4"), LAYERS["connected"],
        WEIGHTS, "beside sparsity 2:4",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_refused_by_name(case: str) -> None:
    """What an array cannot scale is refused, with what to do."""
    machine, layer, weights, said = REFUSED[case]
    with pytest.raises(InputError, match=f"one scale for every 16 values.*{said}"):
        run(machine, tensors(layer), recipe=recipe(weights))


def test_a_group_longer_than_a_channel_is_the_channel() -> None:
    """It costs and holds what a scale a channel does, but for its one scaling an output."""
    weights = TensorRecipe(format="int4", granularity="group:99999999", pad=True)
    report = run(BitFusion(), tensors(LAYERS["connected"]), recipe=recipe(weights)).report
    assert report.verification.status == "exact"
    assert report.counters["group_scalings"] == LAYERS["connected"].output_elements


def test_lines_of_images_are_refused() -> None:
    """A line of an image lies across what a convolution sums."""
    inputs = TensorRecipe(format="int8", dynamic=True, granularity="token")
    weights = TensorRecipe(format="int8", granularity="channel")
    with pytest.raises(InputError, match=r"one scale for each token.*rows of an image"):
        run(BitFusion(), tensors(LAYERS["pointwise"]), recipe=recipe(weights, inputs))


@given(
    st.integers(-(2**31), 2**31 - 1),
    st.floats(1e-12, 2.0**30, exclude_max=True),
)
def test_scaling_is_that_of_outputs(sum_: int, factor: float) -> None:
    """The kernel, the definition for arrays and the plain twin agree, multipliers too."""
    one, (m0_q31, shift) = Multiplier.of(factor), fixed_points([factor])
    assert (one.m0_q31, one.right_shift) == (m0_q31[0], shift[0])
    sums = np.array([[sum_]], np.int64)
    expected = requantize_one(sum_, one, low=-(2**31), high=2**31 - 1)
    assert scaled(sums, m0_q31, shift).item() == expected
    if shift[0] <= 40:
        assert by_definition(sums, m0_q31, shift).item() == expected
