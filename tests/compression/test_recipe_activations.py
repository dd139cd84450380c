"""Do recipes reach activations and whole networks: tokens, averages, rules, across layers?"""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from sparqsim.architectures.machine import run
from sparqsim.architectures.network import run_network
from sparqsim.architectures.registry import get_machine
from sparqsim.base import InputError
from sparqsim.workloads import compress, recipes
from sparqsim.workloads.layers import Linear
from sparqsim.workloads.models.real import subject
from sparqsim.workloads.recipes import Recipe, TensorRecipe
from sparqsim.workloads.tensors import LayerTensors
from sparqsim.workloads.work import load


def layer(rows: int = 16, seed: int = 0) -> LayerTensors:
    """A small fully connected layer of normal numbers."""
    rng = np.random.default_rng(seed)
    return LayerTensors(
        layer=Linear(name="fc", in_features=32, out_features=24, rows=rows),
        weight=rng.standard_normal((24, 32)).astype(np.float32),
        activation=rng.standard_normal((rows, 32)).astype(np.float32),
        source="synthetic",
    )


def test_each_token_has_its_own_scale() -> None:
    """By hand: a line is divided by its largest magnitude over 127, rounded, multiplied again."""
    rng = np.random.default_rng(1)
    x = (rng.standard_normal((2, 5, 64)) * 10.0 ** rng.integers(-3, 3, (2, 5, 1))).astype("f4")
    recipe = TensorRecipe(format="int8", granularity="token", dynamic=True)
    found = compress.fitted(x, recipe).round(x)
    scale = (np.abs(x).max(axis=-1, keepdims=True).astype(np.float64) / 127).astype(np.float32)
    assert np.allclose(found, np.rint(x / scale) * scale, rtol=1e-6)
    whole = compress.fitted(x, msgspec.structs.replace(recipe, granularity="tensor")).round(x)
    lines = [compress._noise(x[0, i], found[0, i]) or 0 for i in range(5)]
    assert min(lines) > 35 and np.count_nonzero(whole) < np.count_nonzero(found)


@pytest.mark.parametrize("machine", ["snap", "eyeriss", "diannao", "sparse-tensor-core"])
def test_machines_refuse_scales_of_tokens_by_name(machine: str) -> None:
    """A machine that does not requantize row by row says so."""
    recipe = Recipe(
        name="tokens",
        weights=TensorRecipe(format="int8"),
        activations=TensorRecipe(format="int8", granularity="token", dynamic=True),
    )
    with pytest.raises(InputError, match="one scale for each token"):
        run(get_machine(machine)(), layer(), recipe=recipe)


def test_a_moving_average_follows_each_input() -> None:
    """By hand: range += C (range of the input - range), from that of the first."""
    x = np.array([[1.0, -1.0], [3.0, -3.0], [8.0, 0.0]], np.float32)
    high = 1.0 + 0.5 * (3.0 - 1.0)
    high += 0.5 * (8.0 - high)
    found = compress.fitted(x, TensorRecipe(format="int8", calibration="moving:0.5"))
    assert found.scale[0] == pytest.approx(high / 127)  # 5: a value of 8 saturates
    assert found.round(x).max() == pytest.approx(high)


@pytest.mark.parametrize(
    ("rule", "kept"),
    [
        ("threshold:0.5", lambda x: np.abs(x) > 0.5),
        ("relative:0.25", lambda x: np.abs(x) > 0.25 * np.abs(x).max(axis=1, keepdims=True)),
        ("top:8", lambda x: np.argsort(np.argsort(-np.abs(x), axis=1), axis=1) < 8),
    ],
)
@pytest.mark.parametrize("machine", ["eie", "snap"])
def test_pruned_activations_reach_sparse_machines(machine: str, rule: str, kept) -> None:
    """The products that a machine does are those of two numbers that are not zero, counted here
    from the rule alone; and it does fewer than without the rule."""
    own = recipes.get(get_machine(machine).recipe)
    tensors = layer(rows=1 if machine == "eie" else 16)
    asked = msgspec.structs.replace(own.activations, prune=rule)
    pruned = msgspec.structs.replace(own, name="rule", activations=asked, override=())
    reports = [run(get_machine(machine)(), tensors, recipe=r).report for r in (own, pruned)]
    assert reports[1].verification.status == "exact"
    assert reports[1].macs.effectual < reports[0].macs.effectual
    left = np.where(kept(tensors.activation), tensors.activation, 0)
    weights = compress.compress_weight(tensors.weight, own.of("weights", "fc"))
    decoded = weights.dequantize() if not isinstance(weights, np.ndarray) else weights
    products = int(((left != 0).astype(int) @ (decoded != 0).astype(int).T).sum())
    # A value that is kept may still round to zero; none that is pruned may count.
    assert products * 0.97 <= reports[1].macs.effectual <= products


def test_activations_that_stay_in_float_can_be_pruned() -> None:
    """``see`` gives the operand with zeros, and the report its density."""
    recipe = Recipe(name="r", activations=TensorRecipe(prune="threshold:0.3"))
    made, report, _ = compress.compress(subject("digits-mlp"), recipe)
    seen = made.see("fc2", np.array([[0.2, -0.4, 0.3, 0.5]], np.float32))
    assert seen is not None and seen.tolist() == [[0.0, pytest.approx(-0.4), 0.0, 0.5]]
    densities = [row.density for row in report.activations]
    assert len(densities) == 3 and all(0 < each < 0.6 for each in densities)
    assert report.compressed["accuracy"] != report.float32["accuracy"]


ACROSS = """
name = "global"
[weights]
format = "int8"
prune = "unstructured"
density = 0.2
across = true
"""


def test_pruning_across_layers_keeps_the_largest_of_all() -> None:
    """One threshold for all layers, found here by sorting all their weights together."""
    trained = subject("digits-mlp")
    made, report, _ = compress.compress(trained, recipes.parse(ACROSS, "test"))
    every = np.sort(np.abs(np.concatenate([w.ravel() for w in trained.weights.values()])))[::-1]
    bar = every[round(0.2 * every.size) - 1]
    shares = set()
    for row in report.tensors:
        weight = trained.weights[row.name]
        settled = made.recipe.of("weights", row.name)
        assert not settled.across
        assert settled.density == pytest.approx((np.abs(weight) >= bar).mean(), abs=2 / weight.size)
        assert not made.weights()[row.name][np.abs(weight) < bar].any()
        shares.add(round(row.density, 3))
    assert len(shares) == 3  # each layer another, not .2 each
    again = recipes.parse(recipes.as_toml(made.recipe), "written")
    assert again == made.recipe


def test_machines_run_what_was_pruned_across_layers() -> None:
    """Layers of a network run at the densities that the whole network gives them."""
    network = load("digits-mlp", dense=True)
    report = run_network(get_machine("snap")(), network, recipe=recipes.parse(ACROSS, "test"))
    _, compressed, _ = compress.compress(
        subject("digits-mlp"), recipes.parse(ACROSS, "test"), judge=False
    )
    for row, tensor in zip(report.runs, compressed.tensors, strict=True):
        inputs = row.macs * tensor.density
        assert row.report.macs.effectual <= inputs * 1.001, row.name


@pytest.mark.parametrize(
    ("part", "fields", "said"),
    [
        ("activations", {"format": "int8", "granularity": "token"}, "dynamic = true"),
        ("weights", {"format": "int8", "granularity": "token", "dynamic": True}, "dynamic is for"),
        ("weights", {"format": "int8", "calibration": "moving:0.1"}, "are for activations"),
        ("weights", {"prune": "threshold:0.1"}, "is a rule for activations"),
        ("activations", {"prune": "2:4"}, "pruned by threshold:V"),
        ("activations", {"prune": "top:x"}, "with a number"),
        ("activations", {"prune": "top:-1"}, "k must be"),
        ("activations", {"prune": "threshold:nan"}, "threshold must be"),
        ("activations", {"prune": "threshold:1", "density": 0.5}, "takes no density"),
        ("activations", {"format": "int8", "calibration": "moving:2"}, "moving:C with C"),
        ("weights", {"prune": "2:4", "across": True}, "across is for a density"),
        ("weights", {"score": "saliency"}, "needs a pattern"),
    ],
)
def test_what_makes_no_sense_is_refused(part: str, fields: dict[str, object], said: str) -> None:
    """By what must hold instead."""
    with pytest.raises(InputError, match=said):
        Recipe(name="r", **{part: TensorRecipe(**fields)})


def test_saliency_is_left_to_training() -> None:
    """Without the slopes of a loss there is no saliency."""
    recipe = TensorRecipe(prune="unstructured", density=0.5, score="saliency")
    with pytest.raises(InputError, match="sparqsim train"):
        compress.compress_weight(np.ones((4, 4), np.float32), recipe)
