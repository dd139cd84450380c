"""Does training by a recipe give what the recipe says, and win back what rounding lost?"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sparqsim.base import InputError
from sparqsim.scripts.cli import main
from sparqsim.workloads import compress, formats, recipes
from sparqsim.workloads.layers import Linear
from sparqsim.workloads.models.digits import load_digits, scale_pixels
from sparqsim.workloads.models.real import subject
from sparqsim.workloads.quantize import QuantizedTensor

pytest.importorskip("torch")

from sparqsim.workloads import train
from sparqsim.workloads.train_recipe import train_by_recipe

RECIPE = """
name = "w3a4"
[weights]
format = "int3"
prune = "unstructured"
density = 0.3
across = true
score = "saliency"
[activations]
format = "int4"
[[override]]
layers = "fc3"
weights = { format = "flint4" }
"""


def test_saliency_is_the_weight_times_its_slope() -> None:
    """By hand for one layer: the slope of the mean loss is (softmax - one-hot)' x / n."""
    rng = np.random.default_rng(0)
    net = train.chain([Linear(name="fc", in_features=6, out_features=4, bias=True)], rng)
    x = rng.standard_normal((50, 6)).astype(np.float32)
    y = rng.integers(0, 4, 50)
    weight, bias = train.weights_of(net)["fc"], train.biases_of(net)["fc"]
    logits = x @ weight.T + bias
    odds = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    slope = (odds - np.eye(4)[y]).T @ x / len(x)
    assert np.allclose(train.saliencies(net, x, y)["fc"], np.abs(weight * slope), atol=1e-6)


def test_a_trained_network_is_what_its_recipe_says(tmp_path: Path) -> None:
    """Weights lie on the formats' grids; as many stay as asked, those of most saliency; biases are
    untouched; answers are better than without training; what is saved comes back."""
    recipe = recipes.parse(RECIPE, "test")
    made, report, stored = train_by_recipe("digits-mlp", recipe, epochs=2)
    digits = load_digits("mlp", pruned=False)
    net = train.chain(digits.layers, np.random.default_rng(0))
    import torch

    with torch.no_grad():
        for name, layer in train.weighted(net).items():
            layer.weight.copy_(torch.from_numpy(np.array(digits.weights[name])))
            layer.bias.copy_(torch.from_numpy(np.array(digits.biases[name])))
    images = scale_pixels(digits.images.train_images)
    scores = train.saliencies(net, images, digits.images.train_labels)
    pruned = {name: scores[name] for name in ("fc1", "fc2")}  # fc3 has a recipe of its own
    every = np.sort(np.concatenate([each.ravel() for each in pruned.values()]))[::-1]
    bar = every[round(0.3 * every.size) - 1]
    for name, weight in made.weights().items():
        grid = formats.get("flint4_signed" if name == "fc3" else "int3_signed").values
        steps = weight / made.tensors[name].scale[0]
        assert np.abs(steps[..., None] - grid).min(axis=-1).max() < 1e-5
        if name in pruned:
            assert not weight[scores[name] < bar].any()
    untrained = recipes.parse(RECIPE.replace('score = "saliency"', ""), "test")
    _, before, _ = compress.compress(subject("digits-mlp"), untrained)
    assert report.float32 == before.float32
    assert report.compressed["accuracy"] > before.compressed["accuracy"] + 0.02
    compress.save(tmp_path, made, stored)
    back = compress.load(tmp_path).weights()
    assert all(np.array_equal(back[name], weight) for name, weight in made.weights().items())


WAYS = {
    "fp8": None,
    "channels": '[weights]\nformat = "int3"\ngranularity = "channel"\n',
    "groups": '[weights]\nformat = "int3"\ngranularity = "group:16"\npad = true\n'
    'asymmetric = true\n[activations]\nformat = "int4"\ndynamic = true\ngranularity = "token"\n',
    "searched": '[weights]\nformat = "ant3"\nprune = "2:4"\n[activations]\nformat = "int4"\n'
    'asymmetric = true\nprune = "threshold:0.1"\n',
}


@pytest.mark.parametrize("way", WAYS)
def test_recipes_of_every_kind_are_trained(way: str) -> None:
    """Scales of channels, floats, groups, tokens, ranges of the run, types that are searched for:
    what comes out is decoded from the recipe's own codes, and answers no worse than untrained."""
    text = WAYS[way]
    recipe = recipes.get(way) if text is None else recipes.parse(f'name = "{way}"\n{text}', "test")
    made, report, _ = train_by_recipe("digits-mlp", recipe, epochs=1)
    untrained, before, _ = compress.compress(subject("digits-mlp"), recipe)
    assert made.activations.keys() == untrained.activations.keys()
    for name, tensor in made.tensors.items():
        assert isinstance(tensor, QuantizedTensor)
        other = untrained.tensors[name]
        assert isinstance(other, QuantizedTensor)
        assert tensor.quantizer.slices == other.quantizer.slices
        assert len(tensor.scale) == len(other.scale)
    assert report.compressed["accuracy"] >= before.compressed["accuracy"] - 0.01
    if way in ("channels", "searched"):
        assert report.compressed["accuracy"] > before.compressed["accuracy"]


def test_a_step_a_channel_has_the_slopes_of_its_channel() -> None:
    """Each channel's step has LSQ's slope over that channel alone."""
    import torch

    rng = np.random.default_rng(0)
    w, grid = rng.standard_normal((3, 8)).astype(np.float32), formats.get("int3_signed")
    whole = train.Quantizer(grid, w, elements=8, by_channel=True)
    whole(torch.from_numpy(w)).pow(2).sum().backward()
    for row, step, slope in zip(w, whole.step, whole.step.grad, strict=True):
        one = train.Quantizer(grid, row, elements=8)
        one(torch.from_numpy(row)).pow(2).sum().backward()
        assert step.item() == one.step.item()
        assert float(slope) == pytest.approx(float(one.step.grad), rel=1e-5)


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ('weights]\nformat = "sign"\nprune = "2:4"', "fc1: sign holds no zero"),
        ('override]]\nlayers = "conv9"\nweights = { format = "int4" }', "no layer matches"),
    ],
)
def test_what_training_does_not_do_is_refused(part: str, said: str) -> None:
    """By name, before an epoch is run."""
    text = 'name = "x"\n[' + ("[" if part.startswith("override") else "") + part
    with pytest.raises(InputError, match=said):
        train_by_recipe("digits-mlp", recipes.parse(text, "test"), epochs=1)


def test_the_command_trains_and_saves(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line for what cannot be trained; tables and files for what can."""
    file = tmp_path / "recipe.toml"
    file.write_text('name = "w4"\n[weights]\nformat = "int4"\n')
    out = tmp_path / "out"
    main(["train", "digits-mlp", "--recipe", str(file), "--epochs", "1", "-o", str(out)])
    assert "int4_signed" in capsys.readouterr().out
    assert compress.load(out).model == "digits-mlp"
    with pytest.raises(SystemExit):
        main(["train", "resnet18", "--recipe", str(file)])
    assert "labelled data" in capsys.readouterr().err
