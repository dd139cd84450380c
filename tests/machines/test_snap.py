"""Is SNAP's time physical, is every output exact on both engines, is bad input refused?"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparqsim.architectures.machine import program, run
from sparqsim.architectures.snap import SNAP
from sparqsim.architectures.snap.mapping import schedule
from sparqsim.base import InputError
from sparqsim.simulator.engines import simulate
from sparqsim.workloads import recipes
from sparqsim.workloads.encoded import Coded, encode, outline
from sparqsim.workloads.layers import Conv2d, Linear, MatMul
from sparqsim.workloads.tensors import LayerTensors, synthetic

LAYERS: dict[str, Conv2d | Linear] = {
    layer.name: layer
    for layer in (
        Conv2d(
            name="3x3",
            in_channels=40,
            out_channels=13,
            input=(9, 8),
            kernel=(3, 3),
            stride=(2, 1),
            padding=(1, 1),
        ),
        Conv2d(name="1x1", in_channels=70, out_channels=9, input=(4, 5), kernel=(1, 1)),
        Conv2d(name="1x4", in_channels=5, out_channels=9, input=(3, 9), kernel=(1, 4)),
        Conv2d(
            name="7x7",
            in_channels=3,
            out_channels=5,
            input=(9, 7),
            kernel=(7, 7),
            stride=(2, 2),
            padding=(3, 3),
            batch=2,
        ),
        Conv2d(
            name="depthwise",
            in_channels=6,
            out_channels=12,
            groups=6,
            input=(5, 5),
            kernel=(3, 3),
            padding=(2, 1, 0, 1),
            dilation=(2, 1),
        ),
        Linear(name="fc", in_features=100, out_features=33),
        Linear(name="fc of 3", in_features=50, out_features=20, rows=3),
    )
}
LEVELS = [(True, True), (True, False), (False, True), (False, False)]


def tensors(name: str, weights: float = 0.5, inputs: float = 0.5, seed: int = 0) -> LayerTensors:
    rng = np.random.default_rng(seed)
    made = synthetic(LAYERS[name], rng, weight_density=weights, activation_density=inputs)
    bias = rng.normal(size=LAYERS[name].weight_shape[0])
    return LayerTensors(
        layer=made.layer, weight=made.weight, activation=made.activation, bias=bias, relu=False
    )


@pytest.mark.parametrize("name", LAYERS)
def test_engines_agree_and_outputs_are_exact(name: str) -> None:
    """Tokens that carry bundles, matches and psums through SimPy add up to the kernel's outputs.

    The compiled engine gives the same cycles; the machine's outputs equal a dense convolution.
    """
    machine = SNAP(pes_per_aim=4, comparators=8, banks=3)
    lowered = program(machine, tensors(name))
    compiled = run(machine, lowered).report
    executed = run(machine, lowered, engine="simpy", execute=True).report
    assert compiled.verification.status == executed.verification.status == "exact"
    assert lowered.outputs is not None
    assert executed.verification.outputs == np.prod(lowered.outputs.shape)
    assert compiled.cycles == executed.cycles
    assert compiled.stalls == executed.stalls


@pytest.mark.parametrize("levels", LEVELS)
def test_every_level_of_reduction_is_exact(levels: tuple[bool, bool]) -> None:
    """With a level off more psums are written, as many as were counted, and the sums stay."""
    pe, core = levels
    machine = SNAP(pe_reduction=pe, core_reduction=core)
    report = run(machine, tensors("1x4"), engine="simpy", execute=True).report
    assert report.verification.status == "exact"
    names = {
        (True, True): "psums_with_both",
        (True, False): "psums_with_pe_reduction",
        (False, True): "psums_with_core_reduction",
        (False, False): "psums_without_reduction",
    }
    assert report.counters["psums_written"] == report.counters[names[levels]]
    assert report.counters["psums_without_reduction"] == report.macs.effectual


def test_a_lost_weight_is_noticed() -> None:
    """If the front end drops one stored weight, the executed tokens no longer give the sums."""
    machine = SNAP()
    lowered = program(machine, tensors("1x1"))
    work: Any = lowered.executed.__self__  # type: ignore[union-attr]
    work.stored.weights.values[3] = 0
    report = run(machine, lowered, engine="simpy", execute=True).report
    assert report.verification.status == "mismatch"


@pytest.mark.parametrize("sharing", [1, 3])
@pytest.mark.parametrize("which", ["weights", "activations"])
def test_all_zero(which: str, sharing: int) -> None:
    """Nothing matches: outputs are the biases, and a step costs each AIM a cycle for every PE.

    The pipeline adds a cycle for each of the five other blocks.
    """
    machine = SNAP(pes_per_aim=sharing)
    layer = Conv2d(name="zero", in_channels=64, out_channels=32, input=(16, 4), kernel=(3, 3))
    rng = np.random.default_rng(1)
    made = synthetic(layer, rng)
    zero = {"weight": made.weight, "activation": made.activation}
    key = "weight" if which == "weights" else "activation"
    zero[key] = np.zeros_like(zero[key])
    bias = np.arange(-16, 16) / 16.0
    given = LayerTensors(layer=layer, bias=bias, relu=False, **zero)
    lowered = program(machine, given)
    report = run(machine, lowered).report
    assert report.verification.status == "exact"
    assert report.macs.effectual == report.counters["psums_written"] == 0
    assert report.cycles == sharing * report.counters["steps"] + 5
    values = lowered.values()
    assert values is not None
    np.testing.assert_allclose(
        values, np.broadcast_to(bias[:, None, None], values.shape), atol=1e-4
    )


def test_all_dense() -> None:
    """Every PE has 16 x 32 products a step, a third of that in cycles, and never waits for more.

    Start and end of the pipeline aside: 1 for the buffers, 16 passes and 1 before the first PE
    starts, then psums of one step are reduced (16 cycles) and written (16).
    """
    machine = SNAP(pes_per_aim=3)
    layer = Conv2d(name="dense", in_channels=64, out_channels=64, input=(9, 5), kernel=(3, 3))
    given = LayerTensors(
        layer=layer, weight=np.ones(layer.weight_shape), activation=np.ones((1, 64, 9, 5))
    )
    report = run(machine, given).report
    assert report.verification.status == "exact"
    assert report.macs.effectual == layer.macs
    step = math.ceil(16 * 32 / 3)
    steps = report.counters["steps"]
    assert steps == 3 * 3 * 2  # output columns, kernel columns, bundles
    first = 1 + 16 + 1
    last_of_three = 2 * 16  # the third PE of an AIM gets its first matches two turns later
    assert report.cycles == first + last_of_three + steps * step + 16 + 16
    assert report.utilization["multipliers"] > 0.97


machines = st.builds(
    SNAP,
    cores=st.integers(1, 4),
    rows=st.integers(1, 7),
    columns=st.integers(1, 3),
    multipliers=st.integers(1, 4),
    comparators=st.integers(1, 32),
    bundle_channels=st.integers(1, 40),
    pes_per_aim=st.just(1),
    kernels_per_step=st.integers(1, 20),
    split_tree=st.booleans(),
    pe_reduction=st.booleans(),
    core_reduction=st.booleans(),
    banks=st.integers(1, 9),
    step_slots=st.integers(1, 5),
    match_slots=st.integers(1, 3),
)


@settings(max_examples=40, deadline=None)
@given(machines, st.sampled_from(sorted(LAYERS)), st.floats(0, 1), st.floats(0, 1))
def test_time_has_its_lower_bounds(machine: SNAP, name: str, weights: float, inputs: float) -> None:
    """Cycles are at least the effectual MACs over the multipliers, and what AIMs and banks take."""
    report = run(machine, tensors(name, weights, inputs), record="summary").report
    assert report.verification.status == "exact"
    multipliers = machine.pes * machine.multipliers
    assert report.cycles >= math.ceil(report.macs.effectual / multipliers)
    passes, psums = report.counters["aim_passes"], report.counters["psums_written"]
    assert report.cycles >= passes / (machine.cores * machine.aims_per_core)
    assert report.cycles >= psums / (machine.cores * machine.banks)
    for stalls in report.stalls.values():
        assert stalls.busy <= stalls.lanes * report.cycles


@pytest.mark.parametrize("levels", LEVELS)
@pytest.mark.parametrize("name", ["3x3", "1x1", "7x7", "fc"])
def test_more_banks_are_not_slower_here(name: str, levels: tuple[bool, bool]) -> None:
    """Doubling the banks splits each bank's queue in two; no layer here runs slower for it."""
    given = tensors(name)
    pe, core = levels
    times = [
        run(SNAP(banks=banks, pe_reduction=pe, core_reduction=core), given).report.cycles
        for banks in (1, 2, 4, 8, 16)
    ]
    assert times == sorted(times, reverse=True)
    if not pe and not core:
        assert times[0] > times[-1]


@pytest.mark.parametrize("name", ["3x3", "1x1", "fc"])
def test_deeper_queues_are_not_slower_here(name: str) -> None:
    """Steps that wait before an AIM, and matches before a PE, hide imbalance."""
    given = tensors(name)
    for field in ("step_slots", "match_slots"):
        times = [run(SNAP(**{field: n}), given).report.cycles for n in (1, 2, 4, 8)]
        assert times == sorted(times, reverse=True)


def test_but_more_can_be_slower() -> None:
    """The counter-example: PEs that start earlier ask for banks in another order.

    A bank serves first come, first served, which is not always best (Graham's anomaly), and with
    another number of banks other outputs meet in one. With plenty of both no smaller number wins.
    """
    layer = Conv2d(name="m", in_channels=16, out_channels=26, input=(12, 4), kernel=(3, 3))
    given = synthetic(layer, np.random.default_rng(1), weight_density=0.5, activation_density=0.5)

    def cycles(**fields: Any) -> int:
        machine = SNAP(core_reduction=False, kernels_per_step=2, pes_per_aim=1, **fields)
        return run(machine, given, record="summary").report.cycles

    assert cycles(step_slots=1) < cycles(step_slots=2)
    assert cycles(banks=7) < cycles(banks=8)
    plenty = cycles(banks=1024, step_slots=4096, match_slots=4096)
    assert plenty <= min(cycles(step_slots=n) for n in (1, 2, 4, 8))
    assert plenty <= min(cycles(banks=n) for n in (6, 7, 8, 9))


def test_an_aim_to_each_pe_takes_away_the_wait() -> None:
    """Where no PE shares its AIM nobody waits for one; where seven share, some do."""
    given = tensors("3x3")
    alone = run(SNAP(pes_per_aim=1), given).report
    shared = run(SNAP(pes_per_aim=7), given).report
    assert alone.counters["aim_wait_cycles"] == 0 < shared.counters["aim_wait_cycles"]
    assert alone.cycles < shared.cycles


@pytest.mark.parametrize("name", LAYERS)
def test_pes_that_add_up_share_an_output(name: str) -> None:
    """Each output, tap and bundle is worked on once; PEs of a row lane share their output.

    In row mode they lie in one row of the core; in diagonal mode on one diagonal.
    """
    machine = SNAP()
    lowered = program(machine, tensors(name))
    work: Any = lowered.executed.__self__  # type: ignore[union-attr]
    layer = work.layer
    plan, slots = schedule(machine, layer)
    blocks = [range(int(low), int(high)) for _, low, high in plan.blocks.reshape(-1, 3)]
    assert sorted(k for block in blocks for k in block) == list(range(layer.out_channels))
    places = [tuple(p) for p in plan.positions.reshape(-1, 3).tolist() if p[0] >= 0]
    assert sorted(places) == list(np.ndindex(layer.batch, *layer.output))
    taps = [tuple(t) for t in plan.items.reshape(-1, 3).tolist() if t[0] >= 0]
    bundles = -(-layer.in_channels // layer.groups // machine.bundle_channels)
    assert sorted(taps) == list(np.ndindex(*layer.kernel, bundles))
    assert slots * plan.positions.shape[1] <= machine.rows
    row_of = work.aim_of.reshape(machine.columns, machine.cores, machine.rows)
    moved = (row_of[1, 0] - row_of[0, 0]) % machine.rows
    assert (moved == (1 if layer.kernel[0] > 1 else 0)).all()


def test_overflow_wraps_and_is_said() -> None:
    """Narrow accumulators wrap as the reference does, and the report counts them."""
    report = run(SNAP(accumulator_bits=28), tensors("3x3")).report
    assert report.verification.status == "exact"
    assert any("overflowed" in note for note in report.notes)


def test_same_seed_same_trace() -> None:
    """Two runs of the same tensors start every firing in the same cycle."""
    one, other = (simulate(program(SNAP(), tensors("1x1")).netlist) for _ in range(2))
    assert one.starts is not None and other.starts is not None
    for mine, theirs in zip(one.starts, other.starts, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_sparse_weights_of_a_linear_layer() -> None:
    """A fully connected layer gives the same outputs from a CSC and from the dense matrix."""
    made = synthetic(LAYERS["fc"], np.random.default_rng(3), weight_density=0.3)
    dense = LayerTensors(
        layer=made.layer,
        weight=made.sparse_weight.to_dense(),
        activation=made.activation,
    )
    one, other = program(SNAP(), made), program(SNAP(), dense)
    np.testing.assert_array_equal(one.outputs, other.outputs)


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("banks", 0, "snap.banks must be 1 to 1024"),
        ("cores", True, "snap.cores must be 1 to 64"),
        ("pes_per_aim", 22, "snap.pes_per_aim must be 1 to 21"),
        ("bundle_channels", 257, "an index has 8 bits"),
        ("comparators", 8.0, "got 8.0"),
        ("clock_hz", float("nan"), "snap.clock_hz must be 1 kHz to 1 THz"),
        ("accumulator_bits", 64, "16 to 63"),
    ],
)
def test_bad_configuration(field: str, value: Any, says: str) -> None:
    """A configuration checks itself when it is built."""
    with pytest.raises(InputError, match=says):
        SNAP(**{field: value})


def test_a_product_of_two_activations() -> None:
    """A batch of products is as many groups; both operands are skipped where they are zero."""
    layer = MatMul(name="scores", m=5, k=40, n=7, batch=3)
    given = synthetic(layer, np.random.default_rng(0), weight_density=0.5, activation_density=0.4)
    machine = SNAP(comparators=8, pes_per_aim=4)
    result = run(machine, given, engine="simpy", execute=True)
    report, values = result.report, result.program.values()
    assert report.verification.status == "exact" and values is not None
    assert report.cycles == run(machine, given).report.cycles
    wanted = given.activation @ given.weight.transpose(0, 2, 1)  # type: ignore[union-attr]
    assert values.shape == wanted.shape == (3, 5, 7)
    np.testing.assert_allclose(values, wanted, atol=1e-3 * np.abs(wanted).max())
    ones = (given.activation != 0).astype(int)
    both = ones @ (given.weight != 0).astype(int).transpose(0, 2, 1)  # type: ignore[union-attr]
    assert report.macs.effectual == both.sum() < layer.macs
    assert any("right operand" in note for note in report.notes)


@pytest.mark.parametrize("recipe", ["int16", "int8", "w4a8", "ant4", "pot4"])
def test_codes_of_a_recipe_run_as_they_are(recipe: str) -> None:
    """Narrower formats are held exactly in 16 bits; what they round to zero is skipped."""
    given = tensors("3x3")
    encoded = encode(given, recipe, own="int16")
    result = run(SNAP(), encoded)
    report, values = result.report, result.program.values()
    assert values is not None and report.verification.status == "exact"
    weight, inputs = encoded.weight, encoded.activation
    assert isinstance(weight, Coded) and isinstance(inputs, Coded)
    how = "as it is" if recipe == "int16" else "held exactly"
    assert {operand.how for operand in report.operands.values()} == {how}
    exact = LayerTensors(
        layer=given.layer, weight=weight.values(), activation=inputs.values(), bias=given.bias,
        relu=False,
    ).output()  # fmt: skip
    step = np.broadcast_to(result.program.output_scale, values.shape)
    tolerance = 1.01 * step + 1e-5 * np.abs(exact).max()  # half a step each of sum and bias
    assert (np.abs(values - exact) <= tolerance).all()
    stored = np.count_nonzero(weight.values())
    work: Any = result.program.executed.__self__  # type: ignore[union-attr]
    assert len(work.stored.weights.values) == stored


def test_what_16_bits_do_not_hold_is_refused() -> None:
    """Floats, and zero points; an outline has no zeros to skip."""
    given = tensors("1x1")
    with pytest.raises(InputError, match="snap computes weights in int16_signed; bfloat16"):
        program(SNAP(), given, "bf16")
    text = 'name = "a8"\n[activations]\nformat = "int8"\nasymmetric = true\n'
    with pytest.raises(InputError, match="activations with a zero point"):
        moved = LayerTensors(
            layer=given.layer, weight=given.weight, activation=given.activation - 0.1
        )
        program(SNAP(), moved, recipes.parse(text, "text"))
    with pytest.raises(InputError, match="depends on the numbers"):
        program(SNAP(), outline(given.layer, "int16"))


@pytest.mark.parametrize("name", LAYERS)
def test_the_account_is_told_once(name: str) -> None:
    """Bits of the memories are those of the firings; each weight is read once a tile and block."""
    result = run(SNAP(), tensors(name))
    report, counters = result.report, result.report.counters
    work: Any = result.program.executed.__self__  # type: ignore[union-attr]
    assert counters["weights_fetched"] == len(work.stored.weights.values) * len(
        work.schedule.positions
    )
    entries = counters["activations_fetched"] + counters["weights_fetched"]
    assert report.memory["operand_buffers"].read_bits == entries * (16 + 5)
    psums = counters["psums_written"] * 48
    assert report.memory["output_buffer"].written_bits == psums
    assert report.memory["output_buffer"].read_bits == psums
    assert set(result.traffic) == set(report.memory)
    for memory, use in report.memory.items():
        assert counters[f"{memory}_read_bits"] == use.read_bits > 0


def test_datasheet_says_what_is_assumed() -> None:
    """No number recalled or guessed is shown as published."""
    sheet = {figure.name: figure for figure in SNAP().datasheet()}
    assert sheet["multipliers"].value == "252"
    for name in ("AIM", "PEs per AIM", "channels of a bundle", "output banks per core"):
        assert sheet[name].basis == "assumed"


@pytest.mark.slow
def test_resnet50_in_a_minute_of_two_cores(validated: Path) -> None:
    """The validation's run of all layers, half of weights and inputs kept: every output is exact,
    no multiplier does more than a product a cycle; 120 s of processor time."""
    book = json.loads((validated / "validation.json").read_text())
    (made,) = (each for each in book["runs"] if each["name"] == "snap")
    found = json.loads((validated / "data" / "snap.json").read_text())
    items = {item["item"]: item["simulated"] for item in found["items"]}
    assert made["cpu_seconds"] < 120 and found["outputs_exact"] is True
    assert items["multipliers"] == 252 and 0 < items["utilisation"] <= 100
