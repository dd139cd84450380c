"""Is every operation of an ONNX graph that multiplies a layer with the right counts and numbers?

Counts come from the arithmetic beside them; what a network computes is held against onnxruntime.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx_files import saved, value

from sparqsim.base import InputError
from sparqsim.workloads.importers import Imported
from sparqsim.workloads.importers.onnx import import_onnx
from sparqsim.workloads.importers.products import einsum_of
from sparqsim.workloads.layers import Conv2d, MatMul
from sparqsim.workloads.network_tensors import NetworkTensors
from sparqsim.workloads.work import load

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
from onnx import TensorProto, helper  # noqa: E402

from sparqsim.workloads.importers.onnx_run import Runner  # noqa: E402

MICROSOFT = {"domain": "com.microsoft"}
node = helper.make_node
Constants = dict[str, NDArray[Any]]


def draw(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def same(
    path: Path, imported: Imported, feeds: dict[str, NDArray[Any]], tolerance: float = 1e-4
) -> None:
    """The imported network computes what onnxruntime computes."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_outputs()]
    expected = dict(zip(names, session.run(None, feeds), strict=True))
    found = Runner(imported).run(feeds)
    for name in names:
        np.testing.assert_allclose(found[name], expected[name], rtol=tolerance, atol=tolerance)


# -- recurrent -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind, gates", [("LSTM", 4), ("GRU", 3), ("RNN", 1)])
def test_recurrent_layers(tmp_path: Path, kind: str, gates: int) -> None:
    """7 steps, both ways, 5 -> 6: the inputs at once, the state step by step."""
    constants = {
        "w": draw(2, gates * 6, 5), "r": draw(2, gates * 6, 6), "b": draw(2, 2 * gates * 6),
    }  # fmt: skip
    nodes = [
        node(kind, ["x", "w", "r", "b"], ["h"], "rnn", hidden_size=6, direction="bidirectional"),
        node("Relu", ["h"], ["y"]),
    ]
    path = saved(tmp_path / "r.onnx", nodes, {"x": [7, 3, 5]}, ["y"], constants)
    imported = import_onnx(path)
    assert imported.model.macs == 2 * 7 * 3 * gates * 6 * (5 + 6)
    assert imported.model.parameters == 2 * gates * 6 * (5 + 6 + 2)
    assert [(each.name, each.repeat, each.steps) for each in imported.model.layers] == [
        ("rnn.forward.input", 1, 1), ("rnn.forward.recurrent", 7, 7),
        ("rnn.backward.input", 1, 1), ("rnn.backward.recurrent", 7, 7),
    ]  # fmt: skip
    np.testing.assert_array_equal(imported.weights("rnn.backward.recurrent"), constants["r"][1])
    bias = imported.bias("rnn.forward.recurrent")
    assert bias is not None
    np.testing.assert_array_equal(bias, constants["b"][0, gates * 6 :])
    same(path, imported, {"x": draw(7, 3, 5, seed=1)})


def test_an_lstm_counts_as_torch_counts_it(tmp_path: Path) -> None:
    """100 steps, 64 -> 64: 100 x 4 x (64 x 64 + 64 x 64) MACs, as the torch importer has them."""
    torch = pytest.importorskip("torch")
    from sparqsim.workloads.importers.torch import import_torch

    constants = {"w": draw(1, 256, 64), "r": draw(1, 256, 64)}
    nodes = [node("LSTM", ["x", "w", "r"], ["y"], "lstm", hidden_size=64)]
    path = saved(tmp_path / "l.onnx", nodes, {"x": [100, 1, 64]}, ["y"], constants)
    model = import_onnx(path).model
    ours = import_torch(torch.nn.LSTM(64, 64, bias=False), torch.zeros(100, 1, 64)).model
    assert model.macs == ours.macs == 3_276_800
    assert model.weights == ours.weights == 2 * 256 * 64


def test_weights_within_an_operation_run_but_cannot_be_replaced(tmp_path: Path) -> None:
    """A machine gets an LSTM's own weights; a recipe is not tried on what it cannot change."""
    constants = {"w": draw(1, 24, 5), "r": draw(1, 24, 6), "v": draw(6, 2)}
    nodes = [
        node("LSTM", ["x", "w", "r"], ["a", "h"], "lstm", hidden_size=6),
        node("MatMul", ["h", "v"], ["y"], "head"),
    ]
    path = saved(tmp_path / "l.onnx", nodes, {"x": [4, 2, 5]}, ["y"], constants)
    np.savez(tmp_path / "x.npz", x=draw(8, 2, 5))
    network = load(str(path), calibration=tmp_path / "x.npz")
    assert network.subject is not None and list(network.subject.weights) == ["head"]
    tensors = NetworkTensors(network=network).of(network.model.layer("lstm.recurrent"))
    np.testing.assert_array_equal(tensors.weight, constants["r"][0])
    assert "synthetic inputs" in tensors.source


# -- convolutions --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "shape, weights, attributes",
    [
        ([1, 3, 2, 2], (3, 1, 2, 2), {"strides": [2, 2]}),
        ([2, 4, 5, 4], (4, 3, 3, 2), {"strides": [2, 1], "pads": [1, 0, 1, 1], "group": 2}),
        ([1, 4, 5, 4], (4, 2, 3, 3), {"strides": [2, 2], "output_padding": [1, 1]}),
        ([1, 4, 5, 4], (4, 2, 3, 3), {"dilations": [2, 1], "auto_pad": "SAME_UPPER"}),
        ([2, 3, 6], (3, 2, 4), {"strides": [2]}),
    ],
)
def test_transposed_convolutions(
    tmp_path: Path, shape: list[int], weights: tuple[int, ...], attributes: dict[str, Any]
) -> None:
    """MACs are pixels x channels x filters of a group x taps; the columns are then added."""
    w, pixels = draw(*weights), int(np.prod(shape[2:]))
    filters = weights[1] * attributes.get("group", 1)
    nodes = [node("ConvTranspose", ["x", "w", "b"], ["t"], "up", **attributes),
             node("Relu", ["t"], ["y"])]  # fmt: skip
    constants = {"w": w, "b": draw(filters)}
    path = saved(tmp_path / "t.onnx", nodes, {"x": list(shape)}, ["y"], constants)
    imported = import_onnx(path)
    (layer,) = imported.model.layers
    assert layer.macs == shape[0] * pixels * int(np.prod(weights))
    assert layer.weights == w.size
    assert imported.model.other[0].operation == "Col2Im"
    same(path, imported, {"x": draw(*shape, seed=1)})


def test_the_transposed_convolution_of_the_books(tmp_path: Path) -> None:
    """3 -> 1 channels, 2 x 2 taps with stride 2 on 2 x 2 pixels: 48 MACs."""
    nodes = [node("ConvTranspose", ["x", "w"], ["y"], strides=[2, 2])]
    path = saved(tmp_path / "t.onnx", nodes, {"x": [1, 3, 2, 2]}, ["y"], {"w": draw(3, 1, 2, 2)})
    assert import_onnx(path).model.macs == 48


@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"pads": [1, 0, 2, 1, 1, 0], "strides": [2, 1, 2]},
        {"dilations": [2, 1, 1], "pads": [2, 1, 1, 2, 1, 1]},
        {"group": 2, "auto_pad": "SAME_UPPER", "strides": [1, 2, 1]},
    ],
)
def test_convolutions_of_three_axes(tmp_path: Path, attributes: dict[str, Any]) -> None:
    """MACs are outputs x taps, weights those of the file; numbers are onnxruntime's."""
    each = 4 // attributes.get("group", 1)
    w = draw(6, each, 3, 2, 3)
    nodes = [node("Conv", ["x", "w", "b"], ["y"], "volume", **attributes)]
    path = saved(tmp_path / "v.onnx", nodes, {"x": [2, 4, 5, 6, 7]}, ["y"], {"w": w, "b": draw(6)})
    imported = import_onnx(path)
    (layer,) = imported.model.layers
    made = imported.graph.file.shapes["y"]
    assert layer.macs == int(np.prod(made)) * each * 18
    assert layer.weights == w.size
    same(path, imported, {"x": draw(2, 4, 5, 6, 7, seed=1)})


# -- products ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "equation, left, right, macs",
    [
        ("bhqd,bhkd->bhqk", [2, 3, 4, 5], [2, 3, 6, 5], 2 * 3 * 4 * 6 * 5),
        ("bqhd,bkhd->bhqk", [2, 4, 3, 5], [2, 6, 3, 5], 2 * 3 * 4 * 6 * 5),
        ("ij,jk", [3, 4], [4, 5], 60),
        ("bid,kd->bki", [2, 3, 4], [5, 4], 120),
        ("i,j->ji", [3], [4], 12),
        ("abc,cab->b", [2, 3, 4], [4, 2, 3], 24),
    ],
)
def test_einsum(
    tmp_path: Path, equation: str, left: list[int], right: list[int], macs: int
) -> None:
    """An Einstein sum of two arrays is one product, whatever the order of its axes."""
    nodes = [node("Einsum", ["a", "b"], ["y"], "sum", equation=equation)]
    feeds = {"a": draw(*left), "b": draw(*right, seed=1)}
    path = saved(tmp_path / "e.onnx", nodes, {"a": [*left], "b": [*right]}, ["y"])
    imported = import_onnx(path)
    assert imported.model.macs == macs and isinstance(imported.model.layers[0], MatMul)
    same(path, imported, feeds)
    path = saved(tmp_path / "c.onnx", nodes, {"a": [*left]}, ["y"], {"b": feeds["b"]})
    constant = import_onnx(path)
    assert constant.model.macs == macs and constant.model.weights == feeds["b"].size
    same(path, constant, {"a": feeds["a"]})


@pytest.mark.parametrize(
    "equation, says",
    [("ii,ij->j", "does not fit"), ("ij,jk->k", "no product"), ("...i,ij", "'...'")],
)
def test_sums_that_are_no_product(equation: str, says: str) -> None:
    """A trace, or a sum over one array alone, is refused with its equation."""
    with pytest.raises(InputError, match=says):
        einsum_of(equation, (3, 3), (3, 3))


def test_fused_products(tmp_path: Path) -> None:
    """onnxruntime's products with more in them: transposed, scaled, with an activation behind."""
    nodes = [
        node("FusedConv", ["x", "w", "b"], ["c"], "conv", activation="LeakyRelu",
             activation_params=[0.2], **MICROSOFT),
        node("Flatten", ["c"], ["f"]),
        node("FusedGemm", ["f", "v"], ["g"], "gemm", activation="Tanh", transB=1, **MICROSOFT),
        node("FusedMatMul", ["g", "g"], ["m"], "product", transA=1, alpha=0.5, **MICROSOFT),
        node("FusedMatMul", ["m", "u"], ["y"], "last", transB=1, alpha=2.0, **MICROSOFT),
    ]  # fmt: skip
    constants = {"w": draw(4, 3, 3, 3), "b": draw(4), "v": draw(5, 36), "u": draw(7, 5)}
    path = saved(tmp_path / "f.onnx", nodes, {"x": [2, 3, 5, 5]}, ["y"], constants)
    imported = import_onnx(path)
    macs = [2 * 9 * 4 * 27, 2 * 36 * 5, 5 * 2 * 5, 5 * 5 * 7]
    assert [layer.macs for layer in imported.model.layers] == macs
    assert [work.operation for work in imported.model.other] == ["LeakyRelu", "Tanh"]
    same(path, imported, {"x": draw(2, 3, 5, 5, seed=1)})


def test_one_tensor_of_two_layers_is_counted_once(tmp_path: Path) -> None:
    """Tied embeddings, and a head that serves two levels: one tensor each, whoever reads it."""
    constants = {"table": draw(50, 8), "w": draw(4, 3, 3, 3), "v": draw(8, 8)}
    nodes = [
        node("Gather", ["table", "i"], ["e"]),
        node("MatMul", ["e", "v"], ["h"], "hidden"),
        node("Transpose", ["table"], ["turned"], perm=[1, 0]),
        node("MatMul", ["h", "turned"], ["y"], "logits"),
        node("Conv", ["a", "w"], ["p"], "near"),
        node("Conv", ["b", "w"], ["q"], "far"),
    ]
    inputs = {"i": [6], "a": [1, 3, 8, 8], "b": [1, 3, 4, 4]}
    path = saved(tmp_path / "t.onnx", nodes, inputs, ["y", "p", "q"], constants, {"i": 7})  # type: ignore[arg-type]
    model = import_onnx(path).model
    assert model.parameters == 50 * 8 + 4 * 27 + 8 * 8
    assert model.weights == model.parameters
    assert model.layer("far").weights_of == "near"
    assert model.macs == 6 * 8 * 8 + 6 * 8 * 50 + 36 * 4 * 27 + 4 * 4 * 27


# -- attention -----------------------------------------------------------------------------------


def test_attention_of_four_axes(tmp_path: Path) -> None:
    """Opset 23: 8 query heads on 2 key heads; each key is counted once."""
    inputs: dict[str, list[int | str]] = {
        "q": [1, 8, 16, 32],
        "k": [1, 2, 24, 32],
        "v": [1, 2, 24, 20],
    }
    nodes = [node("Attention", ["q", "k", "v"], ["y"], "attention")]
    model = import_onnx(saved(tmp_path / "a.onnx", nodes, inputs, ["y"], opset=23)).model
    scores, context = model.layers
    assert scores.macs == 8 * 16 * 24 * 32 and context.macs == 8 * 16 * 24 * 20
    assert scores.input_elements == 8 * 16 * 32 + 2 * 24 * 32
    assert [work.kind for work in model.other] == ["softmax"]


def test_fused_attention(tmp_path: Path) -> None:
    """onnxruntime's: projection and attention in one, several heads, keys shared by groups."""
    nodes = [
        node("Attention", ["x", "w", "b"], ["a"], "first", num_heads=4, **MICROSOFT),
        node("MultiHeadAttention", ["a", "k", "k"], ["m"], "second", num_heads=4, **MICROSOFT),
        node("GroupQueryAttention", ["m", "g", "g", "", "", "n", "t"], ["y", "pk", "pv"], "third",
             num_heads=4, kv_num_heads=2, **MICROSOFT),
    ]  # fmt: skip
    constants = {
        "w": draw(32, 96), "b": draw(96), "n": np.array([9, 9], np.int32),
        "t": np.array(10, np.int32),
    }  # fmt: skip
    inputs: dict[str, list[int | str]] = {"x": [2, 10, 32], "k": [2, 12, 32], "g": [2, 10, 16]}
    path = saved(tmp_path / "m.onnx", nodes, inputs, ["y"], constants)
    imported = import_onnx(path)
    assert [(layer.name, layer.macs) for layer in imported.model.layers] == [
        ("first.qkv", 20 * 32 * 96), ("first.scores", 2 * 4 * 10 * 10 * 8),
        ("first.context", 2 * 4 * 10 * 10 * 8), ("second.scores", 2 * 4 * 10 * 12 * 8),
        ("second.context", 2 * 4 * 10 * 12 * 8), ("third.scores", 2 * 4 * 10 * 10 * 8),
        ("third.context", 2 * 4 * 10 * 10 * 8),
    ]  # fmt: skip
    third = imported.model.layer("third.scores")
    assert isinstance(third, MatMul) and (third.batch, third.m) == (4, 20)
    np.testing.assert_array_equal(imported.weights("first.qkv"), constants["w"].T)
    feeds = {name: draw(*map(int, shape), seed=1) for name, shape in inputs.items()}
    same(path, imported, feeds)


# -- control flow --------------------------------------------------------------------------------


def branch(name: str, weights: str, product: str) -> Any:
    return helper.make_graph(
        [node("MatMul", ["x", weights], ["made"], product)], name, [], [value("made", None)]
    )


def test_a_branch_taken_by_sizes_or_by_a_given_value(tmp_path: Path) -> None:
    """An If whose condition follows from a size, or from a number that the user gives, is gone."""
    branches = {
        "then_branch": branch("then", "w", "narrow"), "else_branch": branch("else", "v", "wide"),
    }  # fmt: skip
    constants = {"w": draw(4, 2), "v": draw(4, 9), "rate": np.array(16000), "two": np.array([2])}
    chosen = [
        node("Equal", ["sr", "rate"], ["is"]),
        node("If", ["is"], ["y"], "choice", **branches),
    ]
    inputs: dict[str, list[int | str]] = {"x": [3, 4], "sr": []}
    path = saved(tmp_path / "i.onnx", chosen, inputs, ["y"], constants, {"sr": 7})
    with pytest.raises(InputError, match=r"'choice' .* decides, give it, as sr=1"):
        import_onnx(path)
    for rate, macs in ((16000, 24), (8000, 108)):
        imported = import_onnx(path, {"sr": rate})
        assert imported.model.macs == macs
        x = draw(3, 4, seed=1)
        session = onnxruntime.InferenceSession(str(path))
        (expected,) = session.run(None, {"x": x, "sr": np.array(rate)})
        np.testing.assert_allclose(Runner(imported).run({"x": x})["y"], expected, rtol=1e-4)
    by_size = [
        node("Shape", ["x"], ["s"], start=0, end=1),
        node("Equal", ["s", "two"], ["is"]),
        node("If", ["is"], ["y"], "choice", **branches),
    ]
    path = saved(tmp_path / "s.onnx", by_size, {"x": ["N", 4]}, ["y"], constants)
    assert import_onnx(path, {"N": 2}).model.macs == 2 * 4 * 2
    assert import_onnx(path, {"N": 3}).model.macs == 3 * 4 * 9


def test_branches_of_equal_work_are_counted(tmp_path: Path) -> None:
    """Data chooses between equal shapes: counted, and not run; between unequal ones: refused."""
    for other, equal in (((4, 2), True), ((4, 3), False)):
        parts = {
            f"{name}_branch": helper.make_graph(
                [node("MatMul", ["x", "w"], ["made"])], name, [], [value("made", None)],
                [onnx.numpy_helper.from_array(draw(*shape, seed=ord(name[0])), "w")],
            )
            for name, shape in (("then", (4, 2)), ("else", other))
        }  # fmt: skip
        nodes = [node("If", ["is"], ["y"], "choice", **parts)]
        path = saved(tmp_path / "e.onnx", nodes, {"x": [3, 4], "is": [1]}, ["y"], {}, {"is": 9})
        if not equal:
            with pytest.raises(InputError, match=r"'choice' .* is control flow"):
                import_onnx(path)
            continue
        imported = import_onnx(path)
        assert imported.model.macs == 24
        with pytest.raises(InputError, match="counted, not run"):
            Runner(imported)


def test_loops_of_known_length(tmp_path: Path) -> None:
    """5 steps of a loop are 5 products with one set of weights; a scan has as many as its input."""
    body = helper.make_graph(
        [node("Identity", ["go"], ["on"]), node("MatMul", ["h", "w"], ["m"], "step"),
         node("Tanh", ["m"], ["next"]), node("Identity", ["m"], ["out"])],
        "body",
        [value("i", [], 7), value("go", [], TensorProto.BOOL), value("h", [3, 4])],
        [value("on", [], TensorProto.BOOL), value("next", [3, 4]), value("out", [3, 4])],
    )  # fmt: skip
    nodes = [node("Loop", ["n", "", "x"], ["last", "all"], "loop", body=body),
             node("MatMul", ["all", "v"], ["y"], "head")]  # fmt: skip
    constants = {"n": np.array(5), "w": draw(4, 4), "v": draw(4, 2)}
    path = saved(tmp_path / "l.onnx", nodes, {"x": [3, 4]}, ["y"], constants)
    model = import_onnx(path).model
    assert [(each.name, each.repeat, each.macs) for each in model.layers] == [
        ("step", 5, 48), ("head", 1, 5 * 3 * 4 * 2),
    ]  # fmt: skip
    assert model.parameters == 16 + 8
    assert [(work.operation, work.repeat) for work in model.other] == [("Tanh", 5)]
    step = helper.make_graph(
        [node("MatMul", ["row", "w"], ["m"], "step"), node("Add", ["m", "h"], ["next"]),
         node("Identity", ["next"], ["out"])],
        "body",
        [value("h", [3, 4]), value("row", [3, 4])],
        [value("next", [3, 4]), value("out", [3, 4])],
    )  # fmt: skip
    nodes = [node("Scan", ["x", "rows"], ["last", "y"], "scan", body=step, num_scan_inputs=1)]
    inputs: dict[str, list[int | str]] = {"x": [3, 4], "rows": [7, 3, 4]}
    imported = import_onnx(saved(tmp_path / "s.onnx", nodes, inputs, ["y"], {"w": draw(4, 4)}))
    assert imported.model.macs == 7 * 48 and imported.graph.file.shapes["y"] == (7, 3, 4)


def test_a_loop_that_grows_is_refused(tmp_path: Path) -> None:
    """A value that is longer after each step makes more work than the first step tells."""
    body = helper.make_graph(
        [node("Identity", ["go"], ["on"]), node("MatMul", ["h", "w"], ["m"]),
         node("Concat", ["h", "m"], ["next"], axis=0)],
        "body",
        [value("i", [], 7), value("go", [], TensorProto.BOOL), value("h", None)],
        [value("on", [], TensorProto.BOOL), value("next", None)],
    )  # fmt: skip
    nodes = [node("Loop", ["n", "", "x"], ["y"], "loop", body=body)]
    constants = {"n": np.array(5), "w": draw(4, 4)}
    path = saved(tmp_path / "g.onnx", nodes, {"x": [3, 4]}, ["y"], constants)
    with pytest.raises(InputError, match="grows from step to step"):
        import_onnx(path)


# -- what is no layer ----------------------------------------------------------------------------


def test_what_multiplies_nothing_passes(tmp_path: Path) -> None:
    """Detection, sampling and random numbers do no MACs: they are listed as what they are."""
    nodes = [
        node("Conv", ["x", "w"], ["c"], "conv"),
        node("RandomNormalLike", ["c"], ["noise"]),
        node("Add", ["c", "noise"], ["n"]),
        node("GridSample", ["n", "grid"], ["g"]),
        node("RoiAlign", ["n", "rois", "which"], ["r"], output_height=2, output_width=2),
        node("NonMaxSuppression", ["boxes", "scores", "most"], ["kept"]),
    ]
    constants = {
        "w": draw(4, 3, 3, 3), "which": np.zeros(2, np.int64), "most": np.array([3]),
    }  # fmt: skip
    inputs: dict[str, list[int | str]] = {
        "x": [1, 3, 6, 6], "grid": [1, 5, 5, 2], "rois": [2, 4], "boxes": [1, 6, 4],
        "scores": [1, 1, 6],
    }  # fmt: skip
    imported = import_onnx(saved(tmp_path / "p.onnx", nodes, inputs, ["g", "r", "kept"], constants))
    assert isinstance(imported.model.layers[0], Conv2d) and len(imported.model.layers) == 1
    assert [(work.operation, work.kind) for work in imported.model.other] == [
        ("Add", "elementwise"), ("GridSample", "elementwise"), ("RoiAlign", "pooling"),
    ]  # fmt: skip
    assert imported.left_out["NonMaxSuppression"] == imported.left_out["RandomNormalLike"] == 1
