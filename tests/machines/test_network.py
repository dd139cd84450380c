"""Does a network's report hold all of the network, once, in order, with nothing made up?"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest

from sparqsim.architectures import tasks
from sparqsim.architectures.account import Account
from sparqsim.architectures.arrays.bitfusion import BitFusion
from sparqsim.architectures.arrays.tpu import TPU
from sparqsim.architectures.eie import EIE
from sparqsim.architectures.machine import Machine, Program, UnitTime, run
from sparqsim.architectures.network import effective_recipe, run_layer, run_network
from sparqsim.architectures.registry import get_machine, machine_names
from sparqsim.base import InputError
from sparqsim.simulator.report import Beside, LayerRun, NetworkReport, Refused
from sparqsim.workloads import recipes
from sparqsim.workloads.compress import compress
from sparqsim.workloads.encoded import Coded, EncodedLayer, encode
from sparqsim.workloads.layers import Conv2d, Layer, Linear, MatMul, Model, OtherWork
from sparqsim.workloads.network_tensors import NetworkTensors
from sparqsim.workloads.recipes import Override, TensorRecipe
from sparqsim.workloads.tensors import LayerTensors
from sparqsim.workloads.work import Network, load

CONV = Conv2d(
    name="conv", in_channels=8, out_channels=16, input=(6, 6), kernel=(3, 3), padding=(1, 1)
)
LAYERS: tuple[Layer, ...] = (
    CONV,
    Conv2d(name="depthwise", in_channels=16, out_channels=16, input=(6, 6), kernel=(3, 3),
           groups=16),
    MatMul(name="scores", m=6, k=16, n=6, batch=2),
    Linear(name="up", in_features=32, out_features=48, rows=3, repeat=4),
    Linear(name="also_up", in_features=32, out_features=48, rows=3),
    Linear(name="down", in_features=48, out_features=32, rows=3),
)  # fmt: skip
OTHER = (
    OtherWork(name="input", kind="elementwise", operation="Sub", elements=288),
    OtherWork(name="pool", kind="pooling", operation="MaxPool", elements=576, after="conv"),
    OtherWork(name="softmax", kind="softmax", operation="Softmax", elements=72, after="scores"),
    OtherWork(name="gelu", kind="elementwise", operation="Gelu", elements=144, after="up",
              repeat=4),
)  # fmt: skip
TOY = Network(
    name="toy", model=Model(name="toy", source="a test", layers=LAYERS, other=OTHER), source="test"
)
MLP = replace(
    TOY,
    model=Model(
        name="mlp",
        source="a test",
        layers=tuple(layer for layer in LAYERS if isinstance(layer, Linear)),
    ),
)


@pytest.fixture(scope="module")
def report() -> NetworkReport:
    """The toy network on an array."""
    return run_network(BitFusion(), TOY)


def test_rows_stand_in_the_order_of_the_network(report: NetworkReport) -> None:
    """Layers as they run; work beside them behind the layer it follows."""
    assert [row.name for row in report.rows] == [
        "input", "conv", "pool", "depthwise", "scores", "softmax", "up", "gelu", "also_up", "down",
    ]  # fmt: skip
    assert all(isinstance(row, LayerRun | Beside) for row in report.rows)
    assert [row.elements for row in report.beside] == [288, 576, 72, 144]
    assert any("not timed" in note and "1,512 elements" in note for note in report.notes)


def test_equal_layers_are_simulated_once(
    report: NetworkReport, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A layer of equal shape and numbers shares its report; its row says whose it is."""
    rows = {row.name: row for row in report.runs}
    assert rows["also_up"].same_as == "up" and rows["down"].same_as == ""
    shared = msgspec.structs.replace(rows["also_up"].report, layer="up")
    assert shared == rows["up"].report
    done = []
    carry_out = tasks.Task.carry_out
    monkeypatch.setattr(
        tasks.Task,
        "carry_out",
        lambda self: done.append(self.layer.name) or carry_out(self),
    )
    run_network(BitFusion(), TOY)
    assert done == ["conv", "depthwise", "scores", "up", "down"]


def test_totals_are_sums_over_rows_and_repeats(report: NetworkReport) -> None:
    """Cycles, time, energy, traffic and MACs; a repeated layer counts as often as it stands."""
    totals = report.totals
    counted = [(row.report, row.repeat) for row in report.runs]
    assert {row.name: row.repeat for row in report.runs}["up"] == 4
    assert totals.cycles == sum(each.cycles * n for each, n in counted)
    assert totals.seconds == pytest.approx(sum(each.seconds * n for each, n in counted))
    energy = sum(each.energy.total_pj * n for each, n in counted)
    assert totals.energy.total_pj == pytest.approx(energy)
    assert totals.edp_js == pytest.approx(energy * 1e-12 * totals.seconds)
    read = sum(each.memory["dram"].read_bits * n for each, n in counted)
    assert totals.dram_read_bits == read
    assert totals.macs == totals.macs_of_network == TOY.model.macs
    assert all(row.macs == row.report.macs.dense for row in report.runs)
    assert totals.layers == totals.layers_of_network == 9
    assert 0 < totals.utilization < 1


def test_a_layer_is_the_same_alone_and_in_its_network(report: NetworkReport) -> None:
    """Synthetic tensors come from seed and shape: cycles, energy and noise are equal."""
    for name in ("conv", "scores", "also_up"):
        alone = run_layer(BitFusion(), replace(TOY, layer=name), record="summary").report
        row = next(row for row in report.runs if row.name == name)
        assert msgspec.json.encode(alone) == msgspec.json.encode(row.report)


def test_refused_layers_stay_in_the_table() -> None:
    """EIE names what it does not run; MACs that run and those of the network are both told."""
    report = run_network(EIE(), TOY)
    refused = {row.name: row for row in report.refused}
    assert set(refused) == {"conv", "depthwise", "scores"}
    assert "3x3" in refused["conv"].why
    assert len(report.rows) == len(LAYERS) + len(OTHER)
    assert report.totals.macs_of_network == TOY.model.macs
    assert report.totals.macs == sum(e.macs * e.repeat for e in LAYERS if isinstance(e, Linear))
    assert report.totals.layers == 6 and report.totals.layers_of_network == 9
    assert any("do not run on eie" in note for note in report.notes)


def test_a_recipe_that_is_not_computed_is_refused_by_layer() -> None:
    """Formats of one layer's own override are its refusal; --requantize rounds them again."""
    whole = recipes.get("int8")
    override = Override(layers="down", weights=TensorRecipe(format="float8_e4m3fn"))
    recipe = msgspec.structs.replace(whole, name="mixed", override=(override,))
    report = run_network(BitFusion(), TOY, recipe=recipe)
    (refused,) = report.refused
    assert refused.name == "down" and "float8_e4m3fn" in refused.why
    again = run_network(BitFusion(), TOY, recipe=recipe, requantize=True)
    assert not again.refused
    operands = {row.name: row.report.operands for row in again.runs}
    assert operands["down"]["weights"].how == "rounded again"
    assert operands["up"]["weights"].how == "as it is"


def test_an_override_that_matches_nothing_is_an_error() -> None:
    """It would change nothing, so the whole run is refused."""
    override = Override(layers="dwon", weights=TensorRecipe(format="int4"))
    recipe = msgspec.structs.replace(recipes.get("int8"), override=(override,))
    with pytest.raises(InputError, match="dwon"):
        run_network(BitFusion(), TOY, recipe=recipe)


def test_json_gives_the_report_back(report: NetworkReport) -> None:
    """Refusals, runs and work beside them keep their kinds."""
    for each in (report, run_network(EIE(), TOY)):
        encoded = msgspec.json.encode(each)
        again = msgspec.json.decode(encoded, type=NetworkReport)
        assert msgspec.json.encode(again) == encoded
        assert [type(row) for row in again.rows] == [type(row) for row in each.rows]


MINE = """
from sparqsim.architectures.eie import EIE

class Mine(EIE, frozen=True, kw_only=True):
    name = "mine"
    title = "EIE under another name, from a file"
"""


def test_processes_give_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One process or two, real tensors or drawn ones, a machine of a file or not."""
    monkeypatch.setattr(tasks, "POOL_PAYS_AFTER_S", -1.0)
    file = tmp_path / "mine.py"
    file.write_text(MINE)
    pools = []
    by_pool = tasks._by_pool

    def counted(machine, layers, *rest):  # type: ignore[no-untyped-def]
        pools.append(len(layers))
        return by_pool(machine, layers, *rest)

    monkeypatch.setattr(tasks, "_by_pool", counted)
    for machine, work in ((get_machine(str(file))(), load("digits-mlp")), (BitFusion(), TOY)):
        one, two = (run_network(machine, work, jobs=jobs) for jobs in (1, 2))
        assert msgspec.json.encode(one) == msgspec.json.encode(two)
    assert [each for each in pools if each] == [3, 5]


@pytest.mark.parametrize("name", machine_names())
def test_outlines_take_the_time_of_numbers(name: str) -> None:
    """Where the time does not depend on values, shapes and formats alone give it to the cycle."""
    machine = get_machine(name)()
    if machine.needs_numbers:
        pytest.skip("its time depends on the values")
    fast, whole = (run_network(machine, TOY, verify=verify) for verify in (False, True))
    assert fast.status == "skipped" and whole.status == "exact"
    assert [row.name for row in fast.rows] == [row.name for row in whole.rows]
    for one, two in zip(fast.runs, whole.runs, strict=True):
        assert (one.name, one.report.cycles) == (two.name, two.report.cycles)
        assert one.report.memory == two.report.memory
        assert one.report.bound_by == two.report.bound_by
    assert fast.provenance.seed is None and whole.provenance.seed == 0


def test_densities_change_what_they_are_asked_of() -> None:
    """Of a machine that skips zeros they change the time; of outlines they are refused."""
    few = EIE(pes=4)
    dense, thin = (run_network(few, MLP, weight_density=share) for share in (1.0, 0.1))
    assert thin.totals.cycles < dense.totals.cycles
    assert thin.totals.effectual_macs < dense.totals.effectual_macs
    with pytest.raises(InputError, match="does not depend on densities"):
        run_network(BitFusion(), TOY, verify=False, weight_density=0.5)


@pytest.mark.parametrize(
    ("machine", "recipe", "requantize"),
    [
        (BitFusion(), None, False),
        (BitFusion(), "w4a8", False),
        (BitFusion(), "w4", False),
        (BitFusion(), "ant4", True),
        (get_machine("ant")(), None, False),
        (EIE(), None, False),
    ],
)
def test_accuracy_is_that_of_the_codes_that_ran(
    machine: Machine, recipe: str | None, requantize: bool
) -> None:
    """The judged network has the codes of every layer, weights and inputs, bit for bit."""
    work = load("digits-cnn")
    assert work.subject is not None
    report = run_network(machine, work, recipe=recipe, requantize=requantize)
    chosen = None if recipe is None else recipes.get(recipe)
    effective = effective_recipe(machine, work, report.rows, chosen)
    compressed, judged, _ = compress(work.subject, effective)
    assert report.accuracy is not None
    assert report.accuracy.compressed == judged.compressed
    assert report.accuracy.float32 == judged.float32
    tensors = NetworkTensors(network=work)
    for row in report.runs:
        layer = work.model.layer(row.name)
        own = machine.recipe_for(layer)
        again = row.report.operands["weights"].how == "rounded again"
        coded = encode(tensors.of(layer), own if again else chosen or own, own=own)
        assert isinstance(coded.weight, Coded) and isinstance(coded.activation, Coded)
        kept = compressed.tensors[row.name]
        np.testing.assert_array_equal(coded.weight.dense.codes, kept.codes)
        np.testing.assert_array_equal(coded.weight.values(), kept.dequantize())
        read = work.inputs()[row.name]
        rounded = compressed.activations[row.name].round(read)
        np.testing.assert_array_equal(coded.activation.values(), rounded)
    for row in report.refused:
        np.testing.assert_array_equal(compressed.tensors[row.name], work.weights[row.name])


def test_ranges_seen_in_other_axes_do_not_move_pairs() -> None:
    """Outlier-victim pairs lie along the reduction of a product, however calibration was laid."""
    rng = np.random.default_rng(0)
    left, right = (rng.standard_t(3, (2, 6, 16)).astype(np.float32) for _ in range(2))
    flat = left.reshape(12, 16)
    tensors = LayerTensors(
        layer=LAYERS[2], weight=right, activation=left, relu=False, calibration=flat,
        right_calibration=right.reshape(1, 2, 6, 16),
    )  # fmt: skip
    report = run(get_machine("olive")(), tensors).report
    assert report.verification.status == "exact" and (report.output_sqnr_db or 0) > 5


def test_synthetic_networks_are_not_judged() -> None:
    """No accuracy without data; a single layer or a run without numbers is not judged either."""
    assert run_network(BitFusion(), TOY).accuracy is None
    trained = load("digits-mlp")
    assert run_network(BitFusion(), trained, verify=False).accuracy is None
    assert run_network(BitFusion(), replace(trained, layer="fc1")).accuracy is None


def test_a_network_as_one_program() -> None:
    """TPU keeps activations on the chip: the totals are the whole's, no more than the layers'."""
    report = run_network(TPU(), MLP)
    assert report.whole is not None
    assert report.totals.cycles == report.whole.cycles
    alone = sum(row.report.cycles * row.repeat for row in report.runs)
    longest = max(row.report.cycles for row in report.runs)
    assert longest < report.whole.cycles < alone
    assert report.totals.energy.total_pj == pytest.approx(report.whole.energy.total_pj)
    assert any("one program" in note for note in report.notes)


class Pooling(BitFusion, frozen=True, kw_only=True):
    """Bit Fusion with a pooling unit of 8 elements a cycle."""

    def time_beside(self, work: OtherWork) -> UnitTime | None:
        if work.kind != "pooling":
            return None
        return UnitTime(unit="pooling unit", cycles=-(-work.elements // 8))


def test_work_beside_the_layers_is_timed_by_a_unit(report: NetworkReport) -> None:
    """Its cycles and time are in the totals; what has no unit is listed and not charged."""
    timed = run_network(Pooling(), TOY)
    rows = {row.name: row for row in timed.beside}
    assert (rows["pool"].unit, rows["pool"].cycles) == ("pooling unit", 72)
    assert rows["softmax"].cycles is None
    assert timed.totals.cycles == report.totals.cycles + 72
    clock_s = report.totals.seconds / report.totals.cycles
    assert timed.totals.seconds == pytest.approx(report.totals.seconds + 72 * clock_s)


def test_a_relu_behind_a_layer_is_part_of_it() -> None:
    """It is the layer's own rule on the way out; a later one, or one of a refused layer, is not."""
    work = load("digits-cnn")
    ran, refused = run_network(BitFusion(), work), run_network(EIE(), work)
    assert [(row.unit, row.cycles) for row in ran.beside] == [("with its layer", 0)] * 5
    assert not any("not timed" in note for note in ran.notes)
    assert [row.cycles for row in refused.beside] == [None] * 3 + [0] * 2
    late = (
        OtherWork(name="add", kind="elementwise", operation="Add", elements=96, after="down"),
        OtherWork(name="relu", kind="elementwise", operation="Relu", elements=96, after="down"),
    )
    model = msgspec.structs.replace(MLP.model, other=late)
    found = run_network(BitFusion(), replace(MLP, model=model))
    assert [row.cycles for row in found.beside] == [None, None]


def test_what_is_too_small_is_told_first() -> None:
    """A memory that holds more than it can leads the notes, with the layers it fails."""
    wide = Linear(name="wide", in_features=9000, out_features=4096)
    model = Model(name="wide", source="a test", layers=(LAYERS[-1], wide))
    report = run_network(EIE(pes=1), replace(TOY, model=model), weight_density=0.05)
    assert "is too small for wide" in report.notes[0]


def test_a_batch_of_layers_reads_its_attention_operands_from_dram(report: NetworkReport) -> None:
    """Products of two activations run, and the notes say where their operands come from."""
    scores = next(row for row in report.runs if row.name == "scores")
    assert scores.report.memory["dram"].read_bits >= 8 * LAYERS[2].input_elements
    assert any("attention products are read from DRAM" in note for note in report.notes)


class Held(BitFusion, frozen=True, kw_only=True):
    """Bit Fusion of which the account says that nothing comes from DRAM."""

    def lower(self, layer: EncodedLayer) -> Program:
        made = super().lower(layer)
        ports = [port for port in made.account.ports if port.store != "dram"]
        return replace(made, account=Account(made.account.stores, ports))


def test_what_comes_from_dram_is_told_by_its_bits() -> None:
    """A machine that reads no right operand from DRAM is not said to."""
    notes = run_network(Held(), TOY).notes
    assert not any("are read from DRAM" in note for note in notes)
    assert any("scores are taken to be on the chip" in note for note in notes)


def test_jobs_must_be_whole() -> None:
    """At least one process."""
    with pytest.raises(InputError, match="jobs"):
        run_network(BitFusion(), TOY, jobs=0)
    assert not any(isinstance(row, Refused) for row in run_network(BitFusion(), MLP).rows)
