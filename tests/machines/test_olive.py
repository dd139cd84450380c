"""Does OliVe keep real outliers, stay aligned whatever the shape, and keep its paper's ratios?"""

from __future__ import annotations

import json

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner

from sparqsim.architectures.arrays.olive import Olive
from sparqsim.architectures.machine import run
from sparqsim.base import InputError
from sparqsim.scripts.validation._arrays import Headline
from sparqsim.scripts.validation.olive import command, gpu_headlines
from sparqsim.workloads.encoded import encode
from sparqsim.workloads.layers import Conv2d, Linear
from sparqsim.workloads.tensors import LayerTensors


def with_outliers(shape: tuple[int, ...], rng: np.random.Generator, share: float = 0.01):
    """Normal values, of which a few are twenty times as large: a transformer's."""
    values = rng.normal(size=shape)
    return np.where(rng.random(shape) < share, values * 20, values)


def layer_of(rows: int, depth: int, out: int, seed: int = 0) -> LayerTensors:
    rng = np.random.default_rng(seed)
    return LayerTensors(
        layer=Linear(name="f", in_features=depth, out_features=out, rows=rows),
        weight=with_outliers((out, depth), rng),
        activation=with_outliers((rows, depth), rng),
        relu=False,
    )


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("depth", [2, 63, 64, 129])
def test_outliers_multiply_exactly(bits: int, depth: int) -> None:
    """Even and odd reductions, outliers by outliers, at both widths."""
    machine = Olive(bits=bits)
    report = run(machine, layer_of(7, depth, 11)).report
    assert report.verification.status == "exact"
    assert report.operands["weights"].stored_as in (f"ovp_int{bits}", "ovp_flint4")


def test_pairs_lie_along_channels() -> None:
    """Neighbours are channels of a pixel; the last of an odd number is a normal value."""
    rng = np.random.default_rng(1)
    conv = Conv2d(name="c", in_channels=5, out_channels=4, input=(4, 5), kernel=(3, 3), batch=2)
    values = with_outliers((2, 5, 4, 5), rng, 0.05)
    work = LayerTensors(layer=conv, weight=rng.normal(size=conv.weight_shape), activation=values)
    coded = encode(work, "olive4").activation
    levels = coded.levels()
    largest = coded.formats[0].normal.values[-1]
    assert np.abs(levels[:, 4]).max() <= largest
    pairs = levels[:, :4].reshape(2, 2, 2, 4, 5)
    outlier = np.abs(pairs) > largest
    assert outlier.any() and not pairs[:, :, ::-1][outlier].any()
    assert run(Olive(), work).report.verification.status == "exact"


def test_outliers_survive_where_integers_lose_them() -> None:
    """At 4 bits OliVe's outputs are nearer to the real layer's than plain integers'."""
    from sparqsim.architectures.arrays.plain import PlainArray

    work = layer_of(64, 256, 64, seed=4)
    exact = work.activation @ np.asarray(work.weight).T
    errors = []
    for machine in (Olive(), PlainArray(bits=4)):
        # The sums themselves: four-bit outputs would hide the difference.
        assert run(machine, work).report.verification.status == "exact"
        coded = encode(work, machine.recipe_for(work.layer))
        sums = coded.activation.values() @ coded.weight.values().T
        errors.append(np.square(sums - exact).mean())
    assert errors[0] < errors[1] / 2


@pytest.mark.models
@pytest.mark.parametrize("name", ["layer0.query", "layer3.down"])
def test_layers_of_a_real_transformer_are_exact(name: str) -> None:
    """MiniLM's weights with their outliers, on its own inputs of real sentences."""
    pytest.importorskip("tokenizers")
    from sparqsim.workloads.models.real_minilm import load_minilm, shared_sentences

    network = load_minilm()
    _, sentences = shared_sentences()
    weight = network.weights[name]
    inputs = network.activations(sentences)[name].reshape(-1, weight.shape[1])[:64]
    layer = Linear(
        name=name, in_features=weight.shape[1], out_features=weight.shape[0], rows=len(inputs)
    )
    work = LayerTensors(layer=layer, weight=weight, activation=inputs, relu=False)
    for bits in (4, 8):
        assert run(Olive(bits=bits), work).report.verification.status == "exact"


def test_sizes_are_assumed_and_said_to_be() -> None:
    """Nothing of OliVe's sizes is published: each says so, and so does each energy."""
    figures = Olive().datasheet()
    assert {f.name for f in figures if f.basis.value == "published"} == {"bits"}
    with pytest.raises(InputError, match="4 or 8 bits, got 6"):
        Olive(bits=6)


def test_headlines_hold() -> None:
    """Speed and energy over AdaFloat, OLAccel and ANT within 15 % of the paper's six numbers."""
    found = json.loads(CliRunner().invoke(command, ["--json", "-"]).output)["rows"]
    rows = msgspec.convert(found[:6], list[Headline])
    assert [row.published for row in rows] == [4.8, 3.7, 3.8, 2.1, 3.7, 3.3]
    assert all(row.within for row in rows)
    assert [row["what"] for row in found[6:]] == [row.what for row in gpu_headlines()]


def test_headlines_of_a_gpu_are_shown_with_their_misses() -> None:
    """Published ratios over GOBO and int8 exceed those of the peaks; ours stay below and miss."""
    rows = {row.what: row for row in gpu_headlines()}
    assert [row.published for row in rows.values()] == [4.5, 4.0, 2.7, 2.3, 2.4, 2.0]
    assert all(row.ours < row.published for row in rows.values())
    assert 1 < rows["GPU: speed over int8"].ours < 2
    assert 1 < rows["GPU: speed over GOBO"].ours < 4
