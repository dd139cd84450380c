"""Is a user's ONNX network run as it is, and judged for what it is?

The oracle is ONNX's own reference evaluator on the file as it stands: with nothing replaced, the
network cut open at its products must give the same outputs.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx_files import saved

from sparqsim.base import InputError
from sparqsim.workloads import compress, recipes
from sparqsim.workloads.layers import Conv2d, Linear, MatMul
from sparqsim.workloads.recipes import Recipe, TensorRecipe
from sparqsim.workloads.work import Network, load, subject_for

onnx = pytest.importorskip("onnx")
from onnx import helper  # noqa: E402
from onnx.reference import ReferenceEvaluator  # noqa: E402

from sparqsim.workloads.importers import onnx_run  # noqa: E402
from sparqsim.workloads.importers.onnx import import_onnx  # noqa: E402

node = helper.make_node


def draw(seed: int, *shape: int) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def cnn(path: Path) -> tuple[Path, dict[str, list[int]]]:
    """Convolutions with batch norm, a residual, pooling, 1x1 and depthwise, a Gemm."""
    constants = {
        "c1.weight": draw(1, 4, 3, 3, 2), "c1.bias": draw(2, 4), "g": draw(3, 4), "o": draw(4, 4),
        "m": draw(5, 4), "v": np.abs(draw(6, 4)) + 0.2, "dw": draw(7, 4, 1, 3, 3),
        "s": draw(8, 1, 4, 1, 1), "fc.weight": draw(9, 5, 4), "fc.bias": draw(10, 5),
        "lo": np.float32(0), "hi": np.float32(6),
    }  # fmt: skip
    nodes = [
        node("Conv", ["x", "c1.weight", "c1.bias"], ["a"], "one", pads=[1, 0, 2, 1]),
        node("BatchNormalization", ["a", "g", "o", "m", "v"], ["b"]),
        node("Relu", ["b"], ["r"]),
        node("Conv", ["r", "dw"], ["d"], "depth", group=4, auto_pad="SAME_UPPER", dilations=[1, 1]),
        node("Mul", ["d", "s"], ["e"]),
        node("Add", ["e", "r"], ["f"]),
        node("Clip", ["f", "lo", "hi"], ["h"]),
        node("MaxPool", ["h"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        node("GlobalAveragePool", ["p"], ["q"]),
        node("Flatten", ["q"], ["z"]),
        node("Gemm", ["z", "fc.weight", "fc.bias"], ["y"], transB=1, alpha=0.5, beta=2.0),
    ]
    return saved(path, nodes, {"x": [2, 3, 6, 7]}, ["y"], constants), {"x": [2, 3, 6, 7]}


def attention(path: Path) -> tuple[Path, dict[str, list[int]]]:
    """Grouped-query attention by broadcast, a mask, an output that is read within, too."""
    constants = {
        "wq": draw(1, 8, 8), "wk": draw(2, 8, 4), "wv": draw(3, 8, 4), "bq": draw(4, 8),
        "sq": np.array([0, 0, 2, 2, 2]), "sk": np.array([0, 0, 2, 1, 2]),
        "out": np.array([0, 0, 8]), "mask": np.triu(np.full((5, 5), -1e4, np.float32), 1),
        "scale": np.float32(1 / math.sqrt(2)), "wo": draw(5, 8, 8),
    }  # fmt: skip
    nodes = []
    for one, axes in (("q", [0, 2, 3, 1, 4]), ("k", [0, 2, 3, 4, 1]), ("v", [0, 2, 3, 1, 4])):
        nodes.append(node("MatMul", ["x", f"w{one}"], [f"{one}0"], f"project_{one}"))
        if one == "q":
            nodes.append(node("Add", ["q0", "bq"], ["q9"]))
        source, split = ("q9", "sq") if one == "q" else (f"{one}0", "sk")
        nodes.append(node("Reshape", [source, split], [f"{one}1"]))
        nodes.append(node("Transpose", [f"{one}1"], [one], perm=axes))
    nodes += [
        node("MatMul", ["q", "k"], ["s0"], "scores"),
        node("Mul", ["s0", "scale"], ["s1"]),
        node("Add", ["s1", "mask"], ["s2"]),
        node("Softmax", ["s2"], ["p"]),
        node("MatMul", ["p", "v"], ["c0"], "context"),
        node("Transpose", ["c0"], ["c1"], perm=[0, 3, 1, 2, 4]),
        node("Reshape", ["c1", "out"], ["c2"]),
        node("MatMul", ["c2", "wo"], ["o"], "mix"),
        node("Add", ["o", "x"], ["y"]),
    ]
    return saved(path, nodes, {"x": [3, 5, 8]}, ["y", "p"], constants), {"x": [3, 5, 8]}


def odd_products(path: Path) -> tuple[Path, dict[str, list[int]]]:
    """Constants on the left, in stacks, in pairs with inputs; vectors; a Gemm with a matrix C."""
    constants = {
        "left": draw(1, 6, 4), "stack": draw(2, 3, 5, 4), "each": draw(3, 2, 5, 3),
        "eachleft": draw(4, 2, 7, 3), "c": draw(5, 4, 6), "w": draw(6, 6, 5), "vec": draw(7, 5),
        "k1": draw(8, 2, 4, 3), "half": draw(9, 5, 5).astype(np.float16),
        "parts": draw(10, 10, 5), "zero": np.array([0]), "five": np.array([5]),
        "ten": np.array([10]), "axis0": np.array([0]),
    }  # fmt: skip
    nodes = [
        node("MatMul", ["left", "x"], ["a"], "by_left"),  # [6,4] [2,4,5] -> [2,6,5]
        node("MatMul", ["u", "stack"], ["b"], "by_stack"),  # [4,5] [3,5,4] -> [3,4,4]
        node("MatMul", ["x", "each"], ["d"], "each_its_own"),  # [2,4,5] [2,5,3] -> [2,4,3]
        node("Transpose", ["d"], ["dt"], perm=[0, 2, 1]),
        node("MatMul", ["eachleft", "dt"], ["e"], "each_left"),  # [2,7,3] [2,3,4] -> [2,7,4]
        node("Gemm", ["u", "w", "c"], ["f"], "gemm_c", transA=0, transB=1, alpha=2.0, beta=0.5),
        node("Gemm", ["u", "f", "b0"], ["g"], "two", transA=1, alpha=0.25),  # [5,4] [4,6] -> [5,6]
        node("MatMul", ["x", "vec"], ["h"], "by_vector"),  # [2,4]
        node("Conv", ["x", "k1"], ["i"], "line", strides=[2], pads=[1, 0]),
        node("Cast", ["half"], ["halff"], to=1),
        node("MatMul", ["u", "halff"], ["j"], "from_half"),
        node("Slice", ["parts", "zero", "five", "axis0"], ["p0"]),
        node("Slice", ["parts", "five", "ten", "axis0"], ["p1"]),
        node("MatMul", ["u", "p0"], ["k"], "first_part"),
        node("MatMul", ["k", "p1"], ["l"], "second_part"),
        node("MatMul", ["x", "u5"], ["m"], "mixed"),  # [2,4,5] [3,1,5,4] -> [3,2,4,4]
    ]
    constants["b0"] = draw(11, 5, 1)
    inputs = {"x": [2, 4, 5], "u": [4, 5], "u5": [3, 1, 5, 4]}
    outputs = ["a", "b", "d", "e", "f", "g", "h", "i", "j", "l", "m"]
    return saved(path, nodes, inputs, outputs, constants), inputs


def embedding(path: Path) -> tuple[Path, dict[str, list[int]]]:
    """Words looked up in a table, then a layer."""
    constants = {"words.weight": draw(1, 11, 4), "fc.weight": draw(2, 4, 3)}
    nodes = [
        node("Gather", ["words.weight", "ids"], ["e"]),
        node("LayerNormalization", ["e", "one"], ["n"]),
        node("MatMul", ["n", "fc.weight"], ["y"]),
    ]
    constants["one"] = np.ones(4, np.float32)
    path = saved(path, nodes, {"ids": [2, 5]}, ["y"], constants, {"ids": 7})
    return path, {"ids": [2, 5]}


def repeated_heads(path: Path) -> tuple[Path, dict[str, list[int]]]:
    """Grouped-query attention as torch writes it: 2 heads of keys and values, 3 times each."""
    constants = {
        "axis": np.array([2]), "each": np.array([2, 2, 3, 5, 4]), "all": np.array([2, 6, 5, 4]),
        "scale": np.float32(1 / math.sqrt(2)), "flat": np.array([12, 5, 4]),
        "turned": np.array([2, 6, 4, 5]),
    }  # fmt: skip
    nodes = []
    for one in "kv":
        nodes += [
            node("Unsqueeze", [one, "axis"], [f"{one}1"]),
            node("Expand", [f"{one}1", "each"], [f"{one}2"]),
            node("Reshape", [f"{one}2", "all"], [f"{one}3"]),
        ]
    nodes += [
        node("Reshape", ["k3", "flat"], ["k9"]),
        node("Transpose", ["k9"], ["k8"], perm=[0, 2, 1]),
        node("Reshape", ["k8", "turned"], ["k4"]),
        node("Mul", ["k4", "scale"], ["k5"]),
        node("MatMul", ["q", "k5"], ["s"], "scores"),
        node("Softmax", ["s"], ["p"]),
        node("MatMul", ["p", "v3"], ["y"], "context"),
    ]
    shapes: dict[str, list[int]] = {"q": [2, 6, 7, 4], "k": [2, 2, 5, 4], "v": [2, 2, 5, 4]}
    return saved(path, nodes, dict(shapes), ["y", "p"], constants), shapes


MAKERS = {f.__name__: f for f in (cnn, attention, repeated_heads, odd_products, embedding)}


def feeds_of(inputs: dict[str, list[int]], seed: int = 99) -> dict[str, NDArray[Any]]:
    rng = np.random.default_rng(seed)
    return {
        name: rng.integers(0, 11, shape) if name == "ids" else draw(seed + len(shape), *shape)
        for name, shape in inputs.items()
    }


@pytest.mark.parametrize("runtime", ["onnxruntime", "reference"])
@pytest.mark.parametrize("maker", MAKERS)
def test_the_network_runs_as_it_is(
    maker: str, runtime: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cut open at its products, with or without onnxruntime, it gives the file's outputs."""
    if runtime == "reference":
        monkeypatch.setattr(onnx_run, "_with_onnxruntime", lambda _: None)
    else:
        pytest.importorskip("onnxruntime")
    path, inputs = MAKERS[maker](tmp_path / "n.onnx")
    feeds = feeds_of(inputs)
    made = onnx_run.Runner(import_onnx(path)).run(feeds)
    evaluator = ReferenceEvaluator(str(path))
    for name, wanted in zip(evaluator.output_names, evaluator.run(None, feeds), strict=True):
        assert made[name].shape == wanted.shape and made[name].dtype == wanted.dtype
        np.testing.assert_allclose(made[name], wanted, rtol=2e-4, atol=2e-5, err_msg=name)


@pytest.mark.parametrize("maker", MAKERS)
def test_operands_fit_their_layers(maker: str, tmp_path: Path) -> None:
    """Each layer is shown its input in its own shape; products of activations both operands."""
    path, inputs = MAKERS[maker](tmp_path / "n.onnx")
    imported = import_onnx(path)
    operands = onnx_run.Runner(imported).operands(feeds_of(inputs))
    for layer in imported.model.layers:
        if isinstance(layer, MatMul):
            sides = operands[f"{layer.name}.left"], operands[f"{layer.name}.right"]
            assert sides[0].shape == (layer.batch, layer.m, layer.k)
            assert sides[1].shape == (layer.batch, layer.n, layer.k)
        elif isinstance(layer, Linear):
            assert operands[layer.name].shape == (layer.rows, layer.in_features)
        else:
            shape = (layer.batch, layer.in_channels, *layer.input)
            assert operands[layer.name].shape == shape
    assert len(operands) == sum(1 + isinstance(each, MatMul) for each in imported.model.layers)


def test_heads_that_are_repeated_count_once(tmp_path: Path) -> None:
    """Keys and values that torch repeats for their query heads are 2 heads of 2 x 5 x 4, not 6."""
    path, _ = repeated_heads(tmp_path / "n.onnx")
    scores, context = import_onnx(path).model.layers
    assert scores.macs == context.macs == 2 * 6 * 7 * 5 * 4
    assert scores.input_elements == 2 * (6 * 7 * 4 + 2 * 5 * 4)
    assert context.input_elements == 2 * (6 * 7 * 5 + 2 * 5 * 4)


def test_counts_of_odd_products(tmp_path: Path) -> None:
    """MACs are those of numpy's products; a constant counts once, whatever it is multiplied by."""
    path, _ = odd_products(tmp_path / "n.onnx")
    model = import_onnx(path).model
    macs = {layer.name: layer.macs for layer in model.layers}
    assert macs == {
        "by_left": 2 * 6 * 4 * 5, "by_stack": 3 * 4 * 5 * 4, "each_its_own": 2 * 4 * 5 * 3,
        "each_left": 2 * 7 * 3 * 4, "gemm_c": 4 * 5 * 6, "two": 5 * 4 * 6, "by_vector": 2 * 4 * 5,
        "line": 2 * 2 * 4 * 3 * 2, "from_half": 4 * 25, "first_part": 4 * 25, "second_part": 4 * 25,
        "mixed": 3 * 2 * 4 * 5 * 4,
    }  # fmt: skip
    weights = {layer.name: layer.weights for layer in model.layers}
    assert weights["by_stack"] == 3 * 5 * 4 and weights["each_its_own"] == 2 * 5 * 3
    assert weights["each_left"] == 2 * 7 * 3 and weights["from_half"] == 25
    each = model.layer("each_its_own")
    assert isinstance(each, Conv2d) and each.groups == 2 and each.gemm() == (4, 3, 5, 2)
    assert model.layer("mixed").input_elements == 2 * 4 * 5 + 3 * 5 * 4
    # neither folded nor taken in: the matrix C and the column c of the two Gemms
    assert model.other_parameters == 24 + 5
    assert [work.name for work in model.other] == ["gemm_c.add", "two.add"]


def test_other_work_is_listed_where_it_stands(tmp_path: Path) -> None:
    """What is not folded is listed in order, with its elements and the layer before it."""
    path, _ = cnn(tmp_path / "n.onnx")
    imported = import_onnx(path)
    listed = [
        (each.operation, each.kind, each.elements, each.after) for each in imported.model.other
    ]
    assert listed == [
        ("Relu", "elementwise", 2 * 4 * 7 * 7, "c1"),
        ("Add", "elementwise", 2 * 4 * 7 * 7, "depth"),
        ("Clip", "elementwise", 2 * 4 * 7 * 7, "depth"),
        ("MaxPool", "pooling", 2 * 4 * 7 * 7, "depth"),
        ("GlobalAveragePool", "pooling", 2 * 4 * 3 * 3, "depth"),
    ]
    assert imported.relus == {"c1": True, "depth": False, "fc": False}


def test_weights_and_operands_can_be_replaced(tmp_path: Path) -> None:
    """Doubled weights double a linear network's output but its bias; a zeroed operand, all."""
    nodes = [node("MatMul", ["x", "w"], ["a"], "one"), node("MatMul", ["a", "v"], ["y"], "two")]
    constants = {"w": draw(1, 4, 3), "v": draw(2, 3, 2)}
    path = saved(tmp_path / "n.onnx", nodes, {"x": [5, 4]}, ["y"], constants)
    runner = onnx_run.Runner(import_onnx(path))
    x = {"x": draw(3, 5, 4)}
    plain = runner.run(x)["y"]
    twice = runner.run(x, {"one": 2 * constants["w"].T})["y"]
    np.testing.assert_allclose(twice, 2 * plain, rtol=1e-6)
    zeroed = runner.run(x, see=lambda name, v: np.zeros_like(v) if name == "two" else None)["y"]
    assert not zeroed.any()


def data(path: Path, **arrays: Any) -> Path:
    np.savez(path, **arrays)
    return path


def judged(tmp_path: Path, samples: int = 8, **more: Any) -> Network:
    path, inputs = cnn(tmp_path / "net.onnx")
    x = draw(5, samples, *inputs["x"][1:])
    return load(str(path), calibration=data(tmp_path / "x.npz", x=x, **more))


def test_a_users_network_is_compressed_and_judged(tmp_path: Path) -> None:
    """More bits, more SQNR; float32 differs in nothing; labels give accuracy; halves are said."""
    labels = np.arange(8) % 5
    network = judged(tmp_path, labels=labels)
    assert network.subject is not None and "judged on the second" in network.source
    found = {}
    for bits in (4, 8):
        tensor = TensorRecipe(format=f"int{bits}", granularity="tensor")
        recipe = Recipe(name="both", weights=tensor, activations=TensorRecipe(format=f"int{bits}"))
        _, report, _ = compress.compress(network.subject, recipe)
        assert report.float32.keys() == {"top-1 as float32", "accuracy"}
        found[bits] = report.compressed["SQNR of outputs, dB"]
        assert [row.name for row in report.tensors] == ["c1", "depth", "fc"]
    assert found[8] > found[4] + 15 and 25 < found[8] < 60
    _, report, _ = compress.compress(network.subject, Recipe(name="keep"))
    assert report.compressed == report.float32
    accuracy = report.float32["accuracy"]
    path = tmp_path / "net.onnx"
    with np.load(tmp_path / "x.npz") as file:
        x = file["x"][4:]
    outputs = np.concatenate([ReferenceEvaluator(str(path)).run(None, {"x": x[i : i + 2]})[0]
                              for i in (0, 2)])  # fmt: skip
    assert accuracy == np.mean(outputs.argmax(axis=1) == labels[4:])


def test_decoded_weights_and_rounded_operands_are_what_is_run(tmp_path: Path) -> None:
    """The judged network is numpy's product of decoded weights and rounded operands, exactly."""
    constants = {"fc.weight": draw(1, 3, 6)}
    path = saved(tmp_path / "n.onnx", [node("Gemm", ["x", "fc.weight"], ["y"], transB=1)],
                 {"x": [4, 6]}, ["y"], constants)  # fmt: skip
    x = draw(2, 8, 6)
    network = load(str(path), calibration=data(tmp_path / "x.npz", any_name=x))
    assert network.subject is not None
    made, report, _ = compress.compress(network.subject, recipes.get("int8"))
    rounded = made.see("fc", x[4:])
    assert rounded is not None
    got, wanted = rounded @ made.weights()["fc"].T, x[4:] @ constants["fc.weight"].T
    noise = float(np.square(got.astype(float) - wanted).sum())
    ratio = 10 * math.log10(float(np.square(wanted.astype(float)).sum()) / noise)
    assert report.compressed["SQNR of outputs, dB"] == pytest.approx(ratio, rel=1e-6)


def test_products_that_read_the_same_share_an_array(tmp_path: Path) -> None:
    """Query, key and value read one array: it is captured once and quantized once."""
    path, inputs = attention(tmp_path / "n.onnx")
    file = data(tmp_path / "x.npz", x=draw(1, 6, *inputs["x"][1:]))
    network = load(str(path), calibration=file)
    assert network.subject is not None
    captured = network.subject.capture()
    assert captured["project_q"] is captured["project_k"] is captured["project_v"]
    assert captured["project_q"].shape == (3 * 5, 8)
    assert network.inputs is not None and network.inputs()["scores.left"].shape == (6, 10, 2)


def test_tables_are_compressed_as_embeddings(tmp_path: Path) -> None:
    """A table of words is named, quantized by [embeddings] and looked up as decoded."""
    path, _ = embedding(tmp_path / "n.onnx")
    file = data(tmp_path / "x.npz", ids=np.arange(20).reshape(4, 5) % 11)
    network = load(str(path), calibration=file)
    assert network.subject is not None and network.subject.tables == {"words.weight"}
    recipe = Recipe(name="e", embeddings=TensorRecipe(format="int3", granularity="tensor"))
    _, report, _ = compress.compress(network.subject, recipe)
    assert {row.name: row.format for row in report.tensors}["words.weight"] == "int3_signed"
    assert report.compressed["SQNR of outputs, dB"] < 40
    assert network.weights is not None and set(network.weights) == {"fc"}


def test_without_inputs_weights_alone_are_compressed(tmp_path: Path) -> None:
    """A network without inputs cannot be judged or calibrated; its weights can be compressed."""
    path, _ = cnn(tmp_path / "net.onnx")
    network = load(str(path))
    assert network.subject is None and network.inputs is None
    bare = subject_for(network)
    _, report, _ = compress.compress(bare, recipes.get("w4"), judge=False)
    assert len(report.tensors) == 3
    with pytest.raises(InputError, match="net comes without inputs; give --calibration"):
        compress.compress(bare, recipes.get("int8"), judge=False)


X = np.zeros((4, 3, 6, 7), np.float32)
NAN = X.copy()
NAN[0, 0, 0, 0] = np.nan


@pytest.mark.parametrize(
    "arrays, says",
    [
        ({"z": X, "y": X}, "must hold arrays named x (and may hold labels), got z, y"),
        ({"x": X[:, :2]}, "'x' must be samples x 3 x 6 x 7, the samples a multiple of 2, got"),
        ({"x": X[:3]}, "multiple of 2, got 3 x 3 x 6 x 7"),
        ({"x": X[:0]}, "got 0 x 3 x 6 x 7"),
        ({"x": X[0]}, "got 3 x 6 x 7"),
        ({"x": NAN}, "'x' must be finite"),
        ({"x": X.astype(complex)}, "'x' must be float32, got complex128"),
        ({"x": X.astype("U1")}, "'x' must be float32, got <U1"),
        ({"x": X > 0}, "'x' must be float32, got bool"),
        ({"x": X, "labels": np.zeros(3, int)}, "labels must be 4 whole numbers"),
        ({"x": X, "labels": np.zeros(4)}, "labels must be 4 whole numbers"),
        ({"x": X[:2]}, "has inputs for a single run"),
        ({"labels": np.zeros(4, int)}, "got none"),
        ({"x": np.array([None])}, "must be an npz of arrays of numbers"),
    ],
)
def test_bad_inputs_are_named(arrays: dict[str, Any], says: str, tmp_path: Path) -> None:
    """Wrong names, shapes, types and numbers of inputs are errors that name file and array."""
    path, _ = cnn(tmp_path / "net.onnx")
    file = data(tmp_path / "bad.npz", **arrays)
    with pytest.raises(InputError) as error:
        load(str(path), calibration=file)
    assert says in str(error.value) and "bad.npz" in str(error.value)


def test_several_inputs_come_for_as_many_runs(tmp_path: Path) -> None:
    """Each input is fed run by run along its own first size, and all for as many runs."""
    path, inputs = odd_products(tmp_path / "net.onnx")
    arrays = {name: draw(7, 3 * shape[0], *shape[1:]) for name, shape in inputs.items()}
    network = load(str(path), calibration=data(tmp_path / "x.npz", **arrays))
    assert network.subject is not None and network.inputs is not None
    # a run calibrates, two judge: what the first of these reads is the second part of the file
    assert network.subject.capture()["gemm_c"].shape == (4, 5)
    assert np.array_equal(network.inputs()["gemm_c"], arrays["u"][4:8])
    arrays["u"] = arrays["u"][:8]
    with pytest.raises(InputError, match="as many runs each, got x for 3, u for 2, u5 for 3"):
        load(str(path), calibration=data(tmp_path / "x.npz", **arrays))


def test_labels_must_be_classes(tmp_path: Path) -> None:
    """A label beyond the classes, or labels of a network without classes, cannot be judged."""
    network = judged(tmp_path, labels=np.full(8, 5))
    assert network.subject is not None
    with pytest.raises(InputError, match=r"suits the labels, 5 to 5; leave labels out"):
        network.subject.judge(None, None)


def test_files_that_are_no_npz(tmp_path: Path) -> None:
    """A missing file, one cut short, a lone array and plain text are error messages."""
    path, _ = cnn(tmp_path / "net.onnx")
    (tmp_path / "text.npz").write_text("hello")
    np.save(tmp_path / "lone.npy", X)
    whole = data(tmp_path / "x.npz", x=X).read_bytes()
    (tmp_path / "short.npz").write_bytes(whole[: len(whole) // 2])
    np.savez(tmp_path / "empty.npz")
    for name, says in (
        ("absent.npz", "cannot read"),
        ("text.npz", "must be an npz"),
        ("lone.npy", "must be an npz"),
        ("short.npz", "must be an npz"),
        ("empty.npz", "holds no array"),
    ):
        with pytest.raises(InputError, match=says):
            load(str(path), calibration=tmp_path / name)
    with pytest.raises(InputError, match="need others to calibrate on"):
        load(str(path), inputs=tmp_path / "x.npz")


def test_whole_numbers_must_fit_their_type(tmp_path: Path) -> None:
    """An index beyond the type's range, or a fraction for an index, is refused."""
    path, _ = embedding(tmp_path / "n.onnx")
    for array, says in (
        (np.zeros((4, 5), np.float32), "'ids' must be int64, got float32"),
        (np.full((4, 5), 2**63, np.uint64), "'ids' must fit int64"),
    ):
        with pytest.raises(InputError, match=says):
            load(str(path), calibration=data(tmp_path / "x.npz", ids=array))
    network = load(str(path), calibration=data(tmp_path / "x.npz", ids=np.full((4, 5), 11)))
    assert network.subject is not None
    with pytest.raises(InputError, match="cannot run"):
        network.subject.judge(None, None)


def test_open_sizes_follow_the_inputs(tmp_path: Path) -> None:
    """What a file leaves open is the npz's, with a batch of one, or of what is asked for."""
    nodes = [node("MatMul", ["x", "w"], ["y"], "m")]
    path = saved(tmp_path / "n.onnx", nodes, {"x": ["N", "T", 4]}, ["y"], {"w": draw(1, 4, 2)})
    file = data(tmp_path / "x.npz", x=draw(2, 6, 7, 4))
    assert load(str(path), calibration=file).model.layer("m").gemm().m == 7
    unnamed = data(tmp_path / "z.npz", z=draw(2, 6, 5, 4), labels=np.zeros(6, int))
    assert load(str(path), calibration=unnamed).model.layer("m").gemm().m == 5
    network = load(str(path), calibration=file, batch=3)
    assert network.model.layer("m").gemm().m == 21
    assert network.subject is not None and "SQNR" not in network.subject.judge(None, None)
    with pytest.raises(InputError, match="size left open on axis 0; give it, as N=1"):
        load(str(path))
    assert load(str(path), shapes={"x": (2, 5, 4)}).model.layer("m").gemm().m == 10
    assert load(str(path), shapes={"T": 5}, batch=2).model.layer("m").gemm().m == 10


def test_a_value_too_large_to_run_is_refused(tmp_path: Path) -> None:
    """A file of a few bytes can ask for terabytes; it is listed, and not run."""
    constants = {"w": draw(1, 4, 2), "to": np.array([2**20, 2**12, 4])}
    nodes = [node("Expand", ["x", "to"], ["e"]), node("MatMul", ["e", "w"], ["y"], "m")]
    path = saved(tmp_path / "n.onnx", nodes, {"x": [1, 1, 4]}, ["y"], constants)
    file = data(tmp_path / "x.npz", x=draw(2, 2, 1, 4))
    network = load(str(path), calibration=file)
    assert network.subject is not None
    with pytest.raises(InputError, match="too large to be run"):
        network.subject.judge(None, None)


@given(data=st.data())
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_damaged_networks_run_or_are_refused(tmp_path: Path, data: st.DataObject) -> None:
    """A nonsensical graph that imports also runs and is judged, or is refused by an error."""
    maker = data.draw(st.sampled_from([cnn, attention, odd_products]))
    path, inputs = maker(tmp_path / "n.onnx")
    model = onnx.load(str(path))
    graph = model.graph
    names = sorted({name for each in graph.node for name in (*each.input, *each.output)})
    for _ in range(data.draw(st.integers(1, 3))):
        each = data.draw(st.sampled_from(graph.node))
        kind = data.draw(st.sampled_from(["wire", "operation", "attribute", "values"]))
        if kind == "wire" and each.input:
            at = data.draw(st.integers(0, len(each.input) - 1))
            each.input[at] = data.draw(st.sampled_from(names))
        elif kind == "operation":
            each.op_type = data.draw(
                st.sampled_from(["Relu", "Add", "MatMul", "Transpose", "Softmax"])
            )
        elif kind == "attribute" and each.attribute:
            del each.attribute[:]
        else:
            tensor = data.draw(st.sampled_from(graph.initializer))
            if tensor.raw_data and tensor.data_type == 7:
                tensor.raw_data = np.zeros(len(tensor.raw_data) // 8, np.int64).tobytes()
    path.write_bytes(model.SerializeToString())
    arrays = {name: draw(3, *shape) for name, shape in inputs.items()}
    arrays = {name: np.concatenate([array, array]) for name, array in arrays.items()}
    np.savez(tmp_path / "x.npz", **arrays)
    try:
        network = load(str(path), calibration=tmp_path / "x.npz")
        assert network.subject is not None
        network.subject.capture()
        network.subject.judge(None, None)
    except InputError as error:
        assert str(error)


def test_a_long_chain_of_constants_is_refused(tmp_path: Path) -> None:
    """A thousand transposes of a weight, or a weight that doubles at each step, is an error."""
    nodes = [node("Transpose", [f"w{i}"], [f"w{i + 1}"], perm=[1, 0]) for i in range(1000)]
    nodes.append(node("MatMul", ["x", "w1000"], ["y"]))
    path = saved(tmp_path / "t.onnx", nodes, {"x": [2, 4]}, ["y"], {"w0": draw(1, 4, 4)})
    with pytest.raises(InputError, match="more than 100 operations on constants"):
        import_onnx(path)
    nodes = [node("Concat", [f"w{i}", f"w{i}"], [f"w{i + 1}"], axis=1) for i in range(24)]
    nodes.append(node("MatMul", ["x", "w24"], ["y"]))
    path = saved(tmp_path / "d.onnx", nodes, {"x": [2, 4]}, ["y"], {"w0": draw(1, 4, 64)})
    with pytest.raises(InputError, match="compute them before you export"):
        import_onnx(path)
