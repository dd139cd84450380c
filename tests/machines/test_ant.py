"""Does ANT choose its types from real tensors, gang its elements, and keep its paper's ratios?"""

from __future__ import annotations

import functools
import json

import numpy as np
import pytest
from click.testing import CliRunner
from paths import DATA, PUBLISHED

from sparqsim.architectures.arrays.ant import Ant
from sparqsim.architectures.arrays.folds import Dataflow
from sparqsim.architectures.machine import run
from sparqsim.base import InputError
from sparqsim.scripts.validation import _arrays
from sparqsim.scripts.validation import ant as validation
from sparqsim.scripts.validation.ant import command, headlines
from sparqsim.workloads.adaptive import fit_ant
from sparqsim.workloads.encoded import encode
from sparqsim.workloads.layers import Conv2d, Linear
from sparqsim.workloads.models import get_model
from sparqsim.workloads.tensors import LayerTensors, from_digits

BOTH = (Dataflow.OUTPUT_STATIONARY, Dataflow.WEIGHT_STATIONARY)
timed = functools.cache(_arrays.timed)  # two tests look at a run


def shaped(kind: str, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Tensors of which the best type is known: flat, long-tailed, powers of two."""
    made = {
        "int": lambda: rng.uniform(-1, 1, shape),
        "flint": lambda: rng.standard_t(4, size=shape),
        "pot": lambda: rng.choice([-1, 1], shape) * 2.0 ** rng.integers(-6, 1, shape),
    }
    return made[kind]()


@pytest.mark.parametrize("dataflow", BOTH)
@pytest.mark.parametrize("kind", ["int", "flint", "pot"])
def test_the_type_is_chosen_from_the_tensor(kind: str, dataflow: Dataflow) -> None:
    """Flat tensors take int, long-tailed ones flint, powers of two PoT; any products are exact."""
    rng = np.random.default_rng(3)
    layer = Linear(name="f", in_features=64, out_features=48, rows=32)
    work = LayerTensors(
        layer=layer,
        weight=shaped(kind, (48, 64), rng),
        activation=shaped("int", (32, 64), rng),
        relu=False,
    )
    result = run(Ant(dataflow=dataflow), work)
    assert result.report.verification.status == "exact"
    chosen = fit_ant(work.weight, 4, axis=0).format.name
    assert chosen.startswith(kind)
    stored = {role: each.stored_as for role, each in result.report.operands.items()}
    assert stored == {"weights": chosen, "activations": "int4_signed"}


def test_types_below_one_are_exact_too() -> None:
    """Floats with negative exponents: raised in the decoder, lowered in the scale."""
    rng = np.random.default_rng(0)
    values = np.abs(rng.normal(size=(40, 40)) ** 3)
    layer = Linear(name="f", in_features=40, out_features=40, rows=40)
    work = LayerTensors(layer=layer, weight=values, activation=values)
    stored = Ant().operand(encode(work, "ant4"), "activations")
    assert np.array_equal(stored.levels, np.rint(stored.levels))
    approximated = stored.levels * stored.scale
    assert np.abs(approximated[:, :, 0, 0] - values).mean() < 0.1 * np.abs(values).max()


@pytest.mark.parametrize("machine", [Ant(), Ant(bits=8)])
@pytest.mark.parametrize("layer", ["conv2", "fc1"])
def test_real_layers_of_digits_are_exact(machine: Ant, layer: str) -> None:
    """Trained, pruned weights on test images, at 4 bits and at 8."""
    names = {each.name for each in get_model("digits-cnn").layers}
    if layer not in names:
        layer = sorted(names)[0]
    report = run(machine, from_digits("cnn", layer, images=4)).report
    assert report.verification.status == "exact"
    assert "trained weights" in report.provenance.inputs
    assert report.macs.effectual < report.macs.dense / 2  # pruned, and after ReLU


def test_four_elements_gang_into_one() -> None:
    """A compute-bound layer takes four times as long at 8 bits; the array has half the sides."""
    layer = Conv2d(name="c", in_channels=64, out_channels=256, input=(32, 32), kernel=(3, 3))
    four, eight = (run(Ant(bits=b), Ant(bits=b).plan(layer)).report for b in (4, 8))
    assert (Ant().side(4), Ant().side(8)) == (64, 32)
    assert eight.counters["compute_cycles"] == pytest.approx(
        4 * four.counters["compute_cycles"], rel=0.1
    )
    with pytest.raises(InputError, match="4 or 8 bits, got 5"):
        Ant(bits=5)
    with pytest.raises(InputError, match="output- or weight-stationary"):
        Ant(dataflow=Dataflow.INPUT_STATIONARY)


@pytest.mark.parametrize("dataflow", BOTH)
def test_networks_take_the_published_cycles(dataflow: Dataflow) -> None:
    """Three networks event by event, our tilings, within 1 % of the authors' totals.

    Weight-stationary tilings stream many rows a fold; output-stationary folds are as long as the
    reduction: hardly any is shorter than what is shifted out behind it.
    """
    import csv

    with (DATA / "ant_networks.csv").open() as file:
        rows = {(r["design"], r["network"]): r for r in csv.DictReader(file)}
    design = f"ANT-{dataflow.value.upper()}"
    for network, theirs in (("vgg16", "vgg16"), ("resnet18", "resnet18"), ("bert_mnli", "mnli")):
        machine = Ant(dataflow=dataflow, authors_model=True)
        report = timed(machine, f"ant/{network}")
        published = int(rows[design, theirs]["total_cycles"])
        assert report.totals.cycles == pytest.approx(published, rel=0.01)


def test_headlines_are_told_with_their_misses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time within 5 % of every published ratio; the energy of ResNet-18 misses, and is shown."""
    monkeypatch.setattr(validation, "timed", timed)
    rows = headlines()
    times = [row for row in rows if "time" in row.what]
    assert all(abs(row.error) < 0.05 for row in times)
    means = rows[-2:]
    assert [row.published for row in means] == [2.8, 2.5]
    assert [row.what for row in rows if row.within is False] == ["resnet18: energy"]


def test_the_command_checks_a_table() -> None:
    """--against: all 132 layers of the authors' code agree in every number."""
    arguments = ["--against", str(PUBLISHED / "ant_layers.csv"), "--json", "-"]
    found = json.loads(CliRunner().invoke(command, arguments).output)
    assert found["rows"] == 132 and found["mismatches"] == found["refused"] == []
    result = CliRunner().invoke(command, ["--against", "nowhere.csv"])
    assert isinstance(result.exception, InputError) and "nowhere.csv" in str(result.exception)
