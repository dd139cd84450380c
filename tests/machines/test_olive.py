"""Does OliVe keep real outliers, stay aligned whatever the shape, and keep its paper's ratios?"""

from __future__ import annotations

import json

import numpy as np
import pytest
from click.testing import CliRunner

from sparqsim.architectures.machine import run
from sparqsim.architectures.olive import Olive
from sparqsim.architectures.tiling import ConvShape
from sparqsim.base import InputError
from sparqsim.scripts.validation.olive import command, headlines
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
    assert f"weights as ovp_int{bits}" in report.notes[0] or "ovp_flint4" in report.notes[0]


def test_pairs_lie_along_channels_of_a_group() -> None:
    """An odd number of channels a group gets one of zeros: neighbours never cross a group."""
    rng = np.random.default_rng(1)
    machine = Olive()
    values = with_outliers((2, 6, 4, 5), rng, 0.1)
    stored = machine.store(values, 4, weights=False, groups=2)
    assert stored.codes.shape == (2, 8, 4, 5)  # two groups of three channels and one of zeros
    assert not stored.levels[:, [3, 7]].any()
    pairs = stored.levels.reshape(2, 2, 2, 2, 4, 5)
    outlier = np.abs(pairs) > 16  # beyond int4 and flint4 alike
    assert outlier.any()
    victims = pairs[:, :, :, ::-1][outlier]
    assert not victims.any()
    conv = Conv2d(name="c", in_channels=6, out_channels=4, input=(4, 5), kernel=(3, 3), groups=2)
    assert (
        machine.shape_of(conv, 1) == ConvShape.of(conv).__replace__(in_channels=4)
        if hasattr(ConvShape, "__replace__")
        else machine.shape_of(conv, 1).in_channels == 4
    )


def test_outliers_survive_where_integers_lose_them() -> None:
    """At 4 bits OliVe's outputs are nearer to the real layer's than plain integers'."""
    from sparqsim.architectures.plain import PlainArray

    work = layer_of(64, 256, 64, seed=4)
    exact = work.activation @ np.asarray(work.weight).T
    errors = []
    for machine in (Olive(), PlainArray(bits=4)):
        program = machine.lower(work)
        # The sums themselves: four-bit outputs would hide the difference.
        assert program.verify is not None and program.verify().status == "exact"
        x = machine.store(work.activation[:, :, None, None], 4, weights=False, groups=1)
        w = machine.store(np.asarray(work.weight)[:, :, None, None], 4, weights=True, groups=1)
        sums = (x.levels * x.scale[0])[:, :, 0, 0] @ (w.levels[:, :, 0, 0] * w.scale[:, None]).T
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
    rows = headlines()
    assert [row.published for row in rows] == [4.8, 3.7, 3.8, 2.1, 3.7, 3.3]
    assert all(row.within for row in rows)
    found = json.loads(CliRunner().invoke(command, ["--json", "-"]).output)["rows"]
    assert len(found) == 6
