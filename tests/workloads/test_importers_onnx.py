"""Is a network from an ONNX file the network in the file?

Numbers are held against ONNX's own reference evaluator: each imported layer, with everything folded
into it, must map the evaluator's input of that layer to the evaluator's value behind the folded
operations. Files that lie are refused by a letter, whatever bytes they hold.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from onnx_files import saved, value

from sparqsim.base import InputError
from sparqsim.scripts.models import command
from sparqsim.workloads.importers import Imported, Names, Tensors
from sparqsim.workloads.importers.onnx import import_onnx
from sparqsim.workloads.layers import Conv2d, Linear, MatMul
from sparqsim.workloads.models import get_model
from sparqsim.workloads.work import load

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper  # noqa: E402
from onnx.reference import ReferenceEvaluator  # noqa: E402

LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"


def run_conv(layer: Conv2d, x: NDArray[Any], w: NDArray[Any], b: Any) -> NDArray[Any]:
    """Convolve by gathering windows: independent of how a machine would tile it."""
    top, left, bottom, right = layer.padding
    x = np.pad(x.astype(np.float64), ((0, 0), (0, 0), (top, bottom), (left, right)))
    reach = [d * (k - 1) + 1 for k, d in zip(layer.kernel, layer.dilation, strict=True)]
    windows = sliding_window_view(x, reach, axis=(2, 3))
    windows = windows[:, :, :: layer.stride[0], :: layer.stride[1]]
    windows = windows[..., :: layer.dilation[0], :: layer.dilation[1]]
    per_in, per_out = layer.in_channels // layer.groups, layer.out_channels // layer.groups
    parts = [
        np.einsum(
            "nchwij,ocij->nohw",
            windows[:, g * per_in : (g + 1) * per_in],
            w[g * per_out : (g + 1) * per_out].astype(np.float64),
        )
        for g in range(layer.groups)
    ]
    return np.concatenate(parts, axis=1) + (0.0 if b is None else b[:, None, None])


def assert_same(
    imported: Imported, path: Path, feed: dict[str, Any], places: list[tuple[str, str, str]]
) -> None:
    """Each (layer, input value, output value) of the evaluator is reproduced by the layer."""
    model = onnx.load(str(path))
    del model.graph.output[:]
    names = {name for place in places for name in place[1:]} - set(feed)
    model.graph.output.extend(value(name, None) for name in names)
    got = dict(zip(sorted(names), ReferenceEvaluator(model).run(sorted(names), feed), strict=True))
    got |= feed
    for name, source, target in places:
        layer = imported.model.layer(name)
        weights, bias = imported.weights(name), imported.bias(name)
        assert weights.shape == layer.weight_shape
        assert not isinstance(layer, MatMul) and layer.bias == (bias is not None)
        if isinstance(layer, Conv2d):
            x = got[source] if got[source].ndim == 4 else got[source][:, :, None]
            result = run_conv(layer, x, weights, bias).reshape(got[target].shape)
        else:
            result = got[source].astype(np.float64) @ weights.T + (0 if bias is None else bias)
        np.testing.assert_allclose(result, got[target], rtol=2e-4, atol=2e-5, err_msg=name)


def test_convolutions_and_what_is_folded(tmp_path: Path) -> None:
    """Padding, stride, dilation, groups, batch norm, scale and offset: numbers equal ONNX's."""
    g = np.random.default_rng(0)

    def draw(*shape: int) -> NDArray[np.float32]:
        return g.standard_normal(shape).astype(np.float32)

    constants = {
        "w1": draw(8, 3, 3, 2), "b1": draw(8),
        "g1": draw(8), "o1": draw(8), "m1": draw(8), "v1": np.abs(draw(8)) + 0.1,
        "w2": draw(8, 1, 3, 3), "s2": draw(8), "t2": draw(1, 8, 1, 1),
        "w3": draw(12, 4, 2, 2), "b3": draw(12), "c3": np.float32(0.3) * np.ones((), np.float32),
        "w4": draw(5, 12), "b4": draw(5), "w5": draw(5, 7), "b5": draw(7), "axes": np.array([1, 2]),
    }  # fmt: skip
    node = helper.make_node
    nodes = [
        node("Conv", ["x", "w1", "b1"], ["c1"], "first", pads=[1, 0, 2, 1], strides=[2, 1]),
        node("BatchNormalization", ["c1", "g1", "o1", "m1", "v1"], ["n1"], epsilon=1e-3),
        node("Relu", ["n1"], ["r1"]),
        node("Conv", ["r1", "w2"], ["c2"], "depthwise", group=8, auto_pad="SAME_UPPER"),
        node("Unsqueeze", ["s2", "axes"], ["s2u"]),
        node("Mul", ["c2", "s2u"], ["k2"]),
        node("Sub", ["t2", "k2"], ["n2"]),
        node("Conv", ["n2", "w3", "b3"], ["c3o"], "grouped", group=2, dilations=[2, 1]),
        node("Div", ["c3o", "c3"], ["n3"]),
        node("GlobalAveragePool", ["n3"], ["p"]),
        node("Flatten", ["p"], ["f"]),
        node("Gemm", ["f", "w4", "b4"], ["y4"], "gemm", transB=1, alpha=0.5, beta=2.0),
        node("MatMul", ["y4", "w5"], ["y5m"], "product"),
        node("Add", ["b5", "y5m"], ["y5"]),
    ]
    path = saved(tmp_path / "c.onnx", nodes, {"x": [2, 3, 9, 8]}, ["y5"], constants)
    imported = import_onnx(path)
    assert [layer.name for layer in imported.model.layers] == [
        "first", "depthwise", "grouped", "gemm", "product",
    ]  # fmt: skip
    places = [
        ("first", "x", "n1"),
        ("depthwise", "r1", "n2"),
        ("grouped", "n2", "n3"),
        ("gemm", "f", "y4"),
        ("product", "y4", "y5"),
    ]
    assert_same(imported, path, {"x": draw(2, 3, 9, 8)}, places)
    assert imported.left_out == {"Relu": 1, "GlobalAveragePool": 1, "Flatten": 1}
    assert imported.model.other_parameters == 0
    assert imported.model.layers[1].gemm().batch == 8


def test_one_dimensional_and_lower_padding(tmp_path: Path) -> None:
    """A 1-D convolution is a 2-D one of height one; SAME_LOWER pads before."""
    g = np.random.default_rng(1)
    w = g.standard_normal((4, 3, 4)).astype(np.float32)
    x = g.standard_normal((2, 3, 11)).astype(np.float32)
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"], "c", strides=[2], auto_pad="SAME_LOWER")]
    path = saved(tmp_path / "c.onnx", nodes, {"x": [2, 3, 11]}, ["y"], {"w": w})
    imported = import_onnx(path)
    assert_same(imported, path, {"x": x}, [("c", "x", "y")])


def test_a_value_read_twice_is_not_folded(tmp_path: Path) -> None:
    """What another node reads as well must stay as it is: the layer keeps its own output."""
    node = helper.make_node
    constants = {"w": np.ones((2, 3), np.float32), "b": np.ones(3, np.float32)}
    nodes = [
        node("MatMul", ["x", "w"], ["y"], "product"),
        node("Add", ["y", "b"], ["z"]),
        node("Relu", ["y"], ["r"]),
    ]
    path = saved(tmp_path / "m.onnx", nodes, {"x": [4, 2]}, ["z", "r"], constants)
    imported = import_onnx(path)
    assert imported.bias("product") is None
    assert imported.left_out == {"Add": 1, "Relu": 1}
    assert imported.model.other_parameters == 3


def test_attention(tmp_path: Path) -> None:
    """Projections are linear layers on every token, the products inside are a head's each."""
    node = helper.make_node
    width, heads = 8, 2
    constants: dict[str, NDArray[Any]] = {
        name: np.random.default_rng(2).standard_normal((width, width)).astype(np.float32)
        for name in ("wq", "wk", "wv")
    }
    constants |= {"split": np.array([0, 0, heads, width // heads])}
    nodes = []
    for one, axes in (("q", [0, 2, 1, 3]), ("k", [0, 2, 3, 1]), ("v", [0, 2, 1, 3])):
        nodes += [
            node("MatMul", ["x", f"w{one}"], [f"{one}0"], f"project_{one}"),
            node("Reshape", [f"{one}0", "split"], [f"{one}1"]),
            node("Transpose", [f"{one}1"], [one], perm=axes),
        ]
    nodes += [
        node("MatMul", ["q", "k"], ["scores"], "scores"),
        node("Softmax", ["scores"], ["p"]),
        node("MatMul", ["p", "v"], ["y"], "context"),
    ]
    path = saved(tmp_path / "a.onnx", nodes, {"x": ["batch", "tokens", width]}, ["y"], constants)
    imported = import_onnx(path, {"batch": 3, "tokens": 5})
    layers = {layer.name: layer for layer in imported.model.layers}
    assert isinstance(layers["project_q"], Linear) and layers["project_q"].rows == 15
    assert layers["scores"].gemm() == (5, 5, 4, 6)
    assert layers["context"].gemm() == (5, 4, 5, 6)
    x = np.random.default_rng(3).standard_normal((3, 5, width)).astype(np.float32)
    assert_same(imported, path, {"x": x}, [(f"project_{i}", "x", f"{i}0") for i in "qkv"])
    with pytest.raises(InputError, match="size left open on axis 0; give it, as batch=1"):
        import_onnx(path)
    with pytest.raises(InputError, match="tokens must be whole and at least 1, got 0"):
        import_onnx(path, {"batch": 3, "tokens": 0})
    with pytest.raises(InputError, match="no open size called heads"):
        import_onnx(path, {"batch": 3, "tokens": 5, "heads": 2})


def test_constant_on_the_left(tmp_path: Path) -> None:
    """A constant times an activation is a linear layer over the columns."""
    w = np.arange(6, dtype=np.float32).reshape(2, 3)
    nodes = [helper.make_node("MatMul", ["w", "x"], ["y"], "m")]
    imported = import_onnx(saved(tmp_path / "m.onnx", nodes, {"x": [4, 3, 5]}, ["y"], {"w": w}))
    layer = imported.model.layer("m")
    assert layer.gemm() == (20, 2, 3, 1)
    assert np.array_equal(imported.weights("m"), w)


@pytest.mark.parametrize(
    "name, layers, parameters",
    [
        ("bvlc_alexnet", 8, 60_965_224),
        ("vgg19", 19, 143_667_240),
        # batch norms are folded: 53 scales and offsets (53,120) become 53 biases (26,560)
        ("resnet50", 54, 25_557_032 - 26_560),
        ("densenet121", 121, None),
        ("inception_v1", 58, None),
        ("inception_v2", 70, None),
        ("shufflenet", 50, None),
        ("squeezenet", 26, 1_235_496),
        ("zfnet512", 8, None),
    ],
)
def test_light_models(name: str, layers: int, parameters: int | None) -> None:
    """The networks in the onnx wheel import in under a second of CPU, with the published sizes."""
    start = time.process_time()
    imported = import_onnx(LIGHT / f"light_{name}.onnx")
    assert time.process_time() - start < 1.0
    assert len(imported.model.layers) == layers
    if parameters is not None:
        assert imported.model.parameters == parameters


def test_imported_resnet50_is_our_table() -> None:
    """ResNet-50 from ONNX and from the table are the same products, as a multiset."""
    imported = import_onnx(LIGHT / "light_resnet50.onnx")
    ours = get_model("resnet50")
    assert sorted(x.gemm() for x in imported.model.layers) == sorted(x.gemm() for x in ours.layers)
    assert imported.model.weights == ours.weights


def test_command_imports_a_file(tmp_path: Path) -> None:
    """``sparqsim models FILE.onnx --shape SIZE=N`` lists the layers of the file."""
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"], "[product]")]
    constants = {"w": np.ones((4, 2), np.float32)}
    path = saved(tmp_path / "m.onnx", nodes, {"x": ["N", 4]}, ["y"], constants)
    result = CliRunner().invoke(command, [str(path), "--shape", "N=3"], catch_exceptions=False)
    assert "[product]  linear 4->2" in result.output and "total 24 MACs" in result.output
    result = CliRunner().invoke(
        command, [str(path), "--shape", "N=3", "--json", "-"], catch_exceptions=False
    )
    assert json.loads(result.output)["layers"][0]["gemm"] == {"m": 3, "n": 2, "k": 4, "batch": 1}


def test_an_import_says_what_became_of_the_file(tmp_path: Path) -> None:
    """What was taken, merged, folded and passed by is listed; what is refused, all at once."""
    constants = {"w": np.ones((4, 4), np.float32), "b": np.ones(4, np.float32)}
    nodes = [
        helper.make_node("Transpose", ["w"], ["t"]),
        helper.make_node("MatMul", ["x", "t"], ["m"], "first"),
        helper.make_node("Add", ["m", "b"], ["a"]),
        helper.make_node("Relu", ["a"], ["r"]),
        helper.make_node("MatMul", ["r", "w"], ["y"], "second"),
    ]
    path = saved(tmp_path / "m.onnx", nodes, {"x": [3, 4]}, ["y"], constants)
    report = import_onnx(path).report
    assert report is not None
    assert (report.taken, report.merged) == ({"MatMul": 2}, {"Add": 1})
    assert (report.folded, report.passed) == ({"Transpose": 1}, {"Relu": 1})
    assert report.notes == ("second has the weights of first",)
    printed = CliRunner().invoke(command, [str(path)], catch_exceptions=False).output
    for line in ("layers of: 2 MatMul", "passed by: 1 Relu", "second has the weights of first"):
        assert f"imported: {line}" in printed
    nodes += [helper.make_node("Det", ["y"], ["d"]), helper.make_node("Odd", ["y"], ["o"])]
    path = saved(tmp_path / "n.onnx", nodes, {"x": [3, 4]}, ["d", "o"], constants)
    with pytest.raises(InputError, match=r"a determinant; .*; nor are 1 'Odd'"):
        import_onnx(path)


def only_layer(path: Path) -> Any:
    (layer,) = import_onnx(path).model.layers
    return layer


def test_broadcast_operands_count_once(tmp_path: Path) -> None:
    """4 K heads that serve 32 Q heads are read once; so is a matrix that meets a stack."""
    nodes = [helper.make_node("MatMul", ["q", "k"], ["y"])]
    shapes: dict[str, list[Any]] = {"q": [1, 4, 8, 64, 64], "k": [1, 4, 1, 64, 2048]}
    scores = only_layer(saved(tmp_path / "gqa.onnx", nodes, shapes, ["y"]))
    assert scores.macs == 268_435_456
    assert scores.input_elements == 32 * 64 * 64 + 4 * 64 * 2048 == 655_360
    shapes = {"q": [2, 3], "k": [4, 3, 5]}
    stack = only_layer(saved(tmp_path / "b.onnx", nodes, shapes, ["y"]))
    assert (stack.macs, stack.input_elements) == (120, 66)


def test_a_stack_of_constants_is_weights(tmp_path: Path) -> None:
    """[2,3] by a constant [4,3,5]: 120 MACs and 60 parameters, not folded with what follows."""
    constants = {"k": np.arange(60, dtype=np.float32).reshape(4, 3, 5), "s": np.float32(2)}
    nodes = [
        helper.make_node("MatMul", ["q", "k"], ["p"]),
        helper.make_node("Mul", ["p", "s"], ["y"]),
    ]
    path = saved(tmp_path / "b.onnx", nodes, {"q": [2, 3]}, ["y"], constants)
    imported = import_onnx(path)
    (layer,) = imported.model.layers
    assert (layer.macs, layer.parameters, imported.model.parameters) == (120, 60, 60)
    assert imported.weights(layer.name).shape == (20, 3)


def test_weights_behind_a_cast_are_weights(tmp_path: Path) -> None:
    """fp16 weights that pass a Cast are constant: 8x3x3x3 = 216 parameters, their values exact."""
    w = np.random.default_rng(0).standard_normal((8, 3, 3, 3)).astype(np.float16)
    nodes = [
        helper.make_node("Cast", ["w16"], ["w"], to=TensorProto.FLOAT),
        helper.make_node("Conv", ["x", "w"], ["y"], "c"),
    ]
    imported = import_onnx(
        saved(tmp_path / "c.onnx", nodes, {"x": [1, 3, 16, 16]}, ["y"], {"w16": w})
    )
    assert imported.model.parameters == 216 and imported.model.other_parameters == 0
    assert np.array_equal(imported.weights("c"), w.astype(np.float32))


def test_constants_stay_constants(tmp_path: Path) -> None:
    """Arithmetic, slices and shapes of constants: a fused QKV cut in three counts its root once."""
    g = np.random.default_rng(1)
    constants = {
        "qkv": g.standard_normal((8, 24)).astype(np.float32), "gain": np.float32(3),
        "sizes": np.array([8, 8, 8]), "heads": np.array([2, -1]),
    }  # fmt: skip
    node = helper.make_node
    nodes = [
        node("Mul", ["qkv", "gain"], ["scaled"]),
        node("Split", ["scaled", "sizes"], ["wq", "wk", "wv"], axis=1),
        *(node("MatMul", ["x", f"w{one}"], [one], f"to_{one}") for one in "qkv"),
        # a size that is computed: rows of x, two heads
        node("Shape", ["x"], ["shape"], start=0, end=1),
        node("Concat", ["shape", "heads"], ["to"], axis=0),
        node("Reshape", ["q", "to"], ["q2"]),
        node("Transpose", ["q2"], ["q3"], perm=[0, 2, 1]),
        node("MatMul", ["q2", "q3"], ["y"], "scores"),
    ]
    path = saved(tmp_path / "q.onnx", nodes, {"x": ["N", 8]}, ["y", "k", "v"], constants)
    imported = import_onnx(path, {"N": 5})
    assert imported.model.parameters == 8 * 24
    assert imported.model.layer("scores").gemm() == (2, 2, 4, 5)
    assert np.array_equal(imported.weights("to_k"), 3 * constants["qkv"][:, 8:16].T)


def test_sizes_computed_from_sizes(tmp_path: Path) -> None:
    """Where ONNX's inference stops at arithmetic on sizes, it is carried out."""
    node = helper.make_node
    constants = {
        "w": np.ones((4, 3), np.float32), "two": np.float32(2), "minus": np.array([-1]),
        "flat": np.array([1]), "four": np.array([4]),
    }  # fmt: skip
    nodes = [
        node("Shape", ["x"], ["shape"]),
        node("ReduceProd", ["shape"], ["count"], keepdims=1),
        node("Cast", ["count"], ["real"], to=TensorProto.FLOAT),
        node("Div", ["real", "two"], ["half"]),
        node("Floor", ["half"], ["floor"]),
        node("Cast", ["floor"], ["whole"], to=TensorProto.INT64),
        node("Div", ["whole", "four"], ["rows"]),
        node("Concat", ["rows", "flat", "minus"], ["to"], axis=0),
        node("Reshape", ["x", "to"], ["turned"]),
        node("ReduceSum", ["turned", "flat"], ["sums"], keepdims=0),
        node("Slice", ["sums", "zero", "four", "flat"], ["cut"]),
        node("MatMul", ["cut", "w"], ["y"], "m"),
    ]
    constants["zero"] = np.array([0])
    path = saved(tmp_path / "s.onnx", nodes, {"x": ["N", 8]}, ["y"], constants)
    assert import_onnx(path, {"N": 5}).model.layer("m").gemm() == (5, 3, 4, 1)


def test_a_gemm_adds_a_matrix(tmp_path: Path) -> None:
    """A C of [4, 32] is no bias: 8,192 MACs, and an addition beside the layer."""
    constants = {"w": np.ones((32, 64), np.float32), "c": np.ones((4, 32), np.float32)}
    nodes = [helper.make_node("Gemm", ["x", "w", "c"], ["y"], "g", transB=1)]
    imported = import_onnx(saved(tmp_path / "g.onnx", nodes, {"x": [4, 64]}, ["y"], constants))
    assert imported.model.macs == 8192 and imported.bias("g") is None
    assert imported.left_out == {"Add": 1} and imported.model.other[0].elements == 128


def test_sides_padded_differently(tmp_path: Path) -> None:
    """Pads 1,2,0,3 and strides 2,1 on 9x31: 4x34 outputs, 14,688 MACs, and /2x1 in the table."""
    w = {"w": np.ones((4, 3, 3, 3), np.float32)}
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"], "c", pads=[1, 2, 0, 3], strides=[2, 1])]
    path = saved(tmp_path / "a.onnx", nodes, {"x": [1, 3, 9, 31]}, ["y"], w)
    layer = only_layer(path)
    assert layer.macs == 14_688 and layer.output == (4, 34)
    shown = CliRunner().invoke(command, [str(path)], catch_exceptions=False).output
    assert "conv 3x3 /2x1 3->4 9x31->4x34" in shown


@pytest.mark.parametrize(
    "sizes, says",
    [
        ({"x": (2, 3)}, None),
        ({"N": 2, "x:1": 3}, None),
        ({"x:0": 2, "x:1": 3}, None),
        ({"x": (2, 4)}, r"\[2, 4\] by \[3, 2\] does not fit|shapes do not fit"),
        ({"x": (2,)}, r"input 'x' must be \['N', '\?'\], got \[2\]"),
        ({"x": (2, 3), "M": 1}, "no open size called M"),
        ({"x": (2, 0)}, "must be whole and at least 1, got 0"),
    ],
)
def test_open_sizes_are_addressed(tmp_path: Path, sizes: Any, says: str | None) -> None:
    """By name, by input and axis (a size without a name), or an input at once."""
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"], "m")]
    path = saved(
        tmp_path / "m.onnx", nodes, {"x": ["N", None]}, ["y"], {"w": np.ones((3, 2), "f4")}
    )
    if says is None:
        assert import_onnx(path, sizes).model.layer("m").gemm().m == 2
        return
    with pytest.raises(InputError, match=says):
        import_onnx(path, sizes)


def test_sizes_that_change_nothing_are_refused(tmp_path: Path) -> None:
    """A fixed input takes no shape and no batch."""
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"], "m")]
    path = saved(tmp_path / "m.onnx", nodes, {"x": [2, 3]}, ["y"], {"w": np.ones((3, 2), "f4")})
    with pytest.raises(InputError, match=r"has no open size; \[2, 3\] changes nothing"):
        import_onnx(path, {"x": (2, 3)})
    with pytest.raises(InputError, match="a batch of 4 changes nothing"):
        import_onnx(path, batch=4)


# -- values in other files ----------------------------------------------------------------------


def with_outside(folder: Path, location: str = "net.data", **changes: Any) -> Path:
    """A product whose weights lie in another file, behind eight other bytes."""
    w = np.arange(12, dtype=np.float32).reshape(4, 3)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"], "m")]
    path = saved(folder / "net.onnx", nodes, {"x": [2, 4]}, ["y"], {"w": w})
    model = onnx.load(str(path))
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, entry in ({"location": location, "offset": "8", "length": "48"} | changes).items():
        tensor.external_data.add(key=key, value=entry)
    path.write_bytes(model.SerializeToString())
    (folder / "net.data").write_bytes(bytes(8) + w.tobytes())
    return path


def test_weights_beside_the_file(tmp_path: Path) -> None:
    """Weights in a file beside the model are its weights; without it the shape still counts."""
    path = with_outside(tmp_path)
    imported = import_onnx(path)
    assert imported.missing == ()
    assert np.array_equal(imported.weights("m"), np.arange(12).reshape(4, 3).T)
    (tmp_path / "net.data").unlink()
    imported = import_onnx(path)
    assert imported.missing == ("net.data",)
    assert (imported.model.macs, imported.model.parameters) == (24, 12)
    with pytest.raises(InputError, match=r"lie in 'net.data', which is not beside it"):
        imported.weights("m")
    shown = CliRunner().invoke(command, [str(path)], catch_exceptions=False).output
    assert "total 24 MACs" in shown and "shapes alone: the values" in shown
    network = load(str(path))
    assert network.weights is None and "'net.data'" in network.missing


@pytest.mark.parametrize(
    "location, changes, says",
    [
        ("../net.data", {}, "must lie in the model's folder"),
        ("sub/../../net.data", {}, "must lie in the model's folder"),
        ("/etc/hostname", {}, "must lie in the model's folder"),
        ("C:\\net.data", {}, "must lie in the model's folder"),
        ("..\\net.data", {}, "must lie in the model's folder"),
        ("", {}, "must lie in the model's folder"),
        ("net.data\0", {}, "must lie in the model's folder"),
        ("link", {}, "a link that leads out of the model's folder"),
        ("linked/net.data", {}, "a link that leads out of the model's folder"),
        (".", {}, "must have 48 bytes in"),
        ("net.data", {"offset": "9"}, "ends at byte 57 of 'net.data', which has only 56"),
        ("net.data", {"offset": "-8"}, "must have 48 bytes"),
        ("net.data", {"length": "47"}, "must have 48 bytes in 'net.data', got 47"),
        ("net.data", {"offset": "x"}, "must be whole"),
        ("net.data", {"offset": str(2**70)}, "ends at byte"),
    ],
)
def test_other_files_are_read_in_the_folder_alone(
    tmp_path: Path, location: str, changes: dict[str, str], says: str
) -> None:
    """No path upwards, no absolute one, no link out, no byte beyond the end."""
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "net.data").write_bytes(bytes(56))
    (folder / "link").symlink_to(tmp_path / "net.data")
    (folder / "linked").symlink_to(tmp_path)
    path = with_outside(folder, location, **changes)
    with pytest.raises(InputError) as letter:
        import_onnx(path)
    assert says in str(letter.value)


def test_a_link_within_the_folder_is_followed(tmp_path: Path) -> None:
    """A link to a file of the same folder is that file."""
    path = with_outside(tmp_path, "link")
    (tmp_path / "link").symlink_to(tmp_path / "net.data")
    assert import_onnx(path).weights("m").shape == (3, 4)


# -- what is refused ----------------------------------------------------------------------------


def minimal(op: str, **attributes: Any) -> list[Any]:
    return [helper.make_node(op, ["x", "w"], ["y"], "it", **attributes)]


W33 = {"w": np.ones((1, 1, 3, 3), np.float32)}


@pytest.mark.parametrize(
    "nodes, shape, constants, says",
    [
        (minimal("Det"), [1, 1, 5, 5], W33, "is not supported: a determinant"),
        (minimal("Mystery"), [1, 1, 5, 5], W33, "is not an operation that is known here"),
        (minimal("Mystery", domain="custom"), [1, 1, 5, 5], W33, "domain 'custom'"),
        (minimal("Conv"), [1, 1, 2, 2], W33, "the kernel must fit the padded input"),
        (minimal("Conv", pads=[-1, 0, 0, 0]), [1, 1, 5, 5], W33, "padding must be"),
        (minimal("Conv", strides=[0, 1]), [1, 1, 5, 5], W33, "node 0 'it' (Conv"),
        (minimal("Conv", group=0), [1, 1, 5, 5], W33, "groups must be"),
        (minimal("Conv", strides=[1]), [1, 1, 5, 5], W33, "node 0 'it' (Conv"),
        (minimal("MatMul"), [3, 4], {"w": np.ones((5, 2), np.float32)}, "[3, 4] by [5, 2] does"),
        (minimal("MatMul"), [3, 4], {"w": np.ones((4, 2), np.int8)}, "must be of floating point"),
        (minimal("Gemm"), [3, 4], {"w": np.ones((5, 2), np.float32)}, "fit"),
        (minimal("Mul"), [3, 4], {"w": np.ones(4, np.float32)}, "found none"),
        (minimal("MatMul"), [3, 0], {"w": np.ones((0, 2), np.float32)}, "size left open on axis 1"),
        (minimal("Conv"), [1, 2**62, 5, 5], W33, "value 'x' has shape"),
        (minimal("MatMul"), [2**40, 3], {"w": np.ones((3, 2**3), np.float32)}, "at most"),
    ],
)  # fmt: skip
def test_refused_by_name(
    tmp_path: Path, nodes: list[Any], shape: list[Any], constants: dict[str, Any], says: str
) -> None:
    """What cannot be imported is named, with its place."""
    path = saved(tmp_path / "m.onnx", nodes, {"x": shape}, ["y"], constants)
    with pytest.raises(InputError) as letter:
        import_onnx(path)
    assert "ONNX file m.onnx" in str(letter.value)
    assert says in str(letter.value)


def test_control_flow_is_refused(tmp_path: Path) -> None:
    """A loop that may run for ever is refused by name, not unrolled or skipped."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Relu", ["a"], ["b"])],
        "body",
        [helper.make_tensor_value_info("i", TensorProto.INT64, []),
         helper.make_tensor_value_info("go", TensorProto.BOOL, []), value("a", [2])],
        [helper.make_tensor_value_info("on", TensorProto.BOOL, []), value("b", [2])],
    )  # fmt: skip
    nodes = [helper.make_node("Loop", ["n", "", "x"], ["y"], "forever", body=body)]
    path = saved(tmp_path / "l.onnx", nodes, {"x": [2]}, ["y"], {"n": np.array(2**60)})
    with pytest.raises(InputError, match=r"'forever' .* is control flow"):
        import_onnx(path)


def test_a_small_file_can_ask_for_little(tmp_path: Path) -> None:
    """A few bytes that stand for a huge constant are refused before anything is allocated."""
    nodes = [
        helper.make_node("ConstantOfShape", ["s"], ["w"]),
        helper.make_node("MatMul", ["x", "w"], ["y"], "huge"),
    ]
    for size, says in (
        ([2**33, 2**33], "product at most"),
        ([2, 2**32], "outputs, got 4294967296"),
    ):
        constants = {"s": np.array(size)}
        path = saved(tmp_path / "h.onnx", nodes, {"x": [3, size[0]]}, ["y"], constants)
        with pytest.raises(InputError) as letter:
            import_onnx(path)
        assert says in str(letter.value)


def corrupted(tmp_path: Path, change: Any) -> Path:
    constants = {"w": np.ones((4, 2), np.float32), "b": np.ones(2, np.float32)}
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["m"], "product"),
        helper.make_node("Add", ["m", "b"], ["y"], "offset"),
    ]
    path = saved(tmp_path / "m.onnx", nodes, {"x": [3, 4]}, ["y"], constants)
    model = onnx.load(str(path))
    change(model)
    path.write_bytes(model.SerializeToString())
    return path


def outside(model: Any) -> None:
    weights = model.graph.initializer[0]
    weights.data_location = TensorProto.EXTERNAL
    entry = weights.external_data.add()
    entry.key, entry.value = "location", "../../etc/passwd"


def cycle(model: Any) -> None:
    model.graph.node[0].input[0] = "y"


def dangling(model: Any) -> None:
    model.graph.node[1].input[0] = "nothing"


def twice(model: Any) -> None:
    model.graph.node[1].output[0] = "m"


def enormous(model: Any) -> None:
    model.graph.initializer[0].dims[:] = [2**40, 2**40]


def negative(model: Any) -> None:
    model.graph.initializer[0].dims[:] = [-4, 2]


def short(model: Any) -> None:
    model.graph.initializer[0].raw_data = b"1234"


def unknown_type(model: Any) -> None:
    model.graph.initializer[0].data_type = 99


def function(model: Any) -> None:
    model.functions.add().name = "helper"


def no_input(model: Any) -> None:
    del model.graph.node[0].input[:]


def no_output(model: Any) -> None:
    model.graph.node[0].op_type = "Constant"
    del model.graph.node[0].output[:]
    model.graph.node[1].input[0] = "x"


def empty(model: Any) -> None:
    del model.graph.node[:]


@pytest.mark.parametrize(
    "change, says",
    [
        (outside, "must lie in the model's folder"),
        (cycle, "waits for its own output: a cycle"),
        (dangling, "reads 'nothing', which nothing makes"),
        (twice, "is made twice"),
        (enormous, "product at most"),
        (negative, "sizes must be at least 0"),
        (short, "does not hold the values its shape"),
        (unknown_type, "ONNX file"),
        (function, "it defines functions"),
        (no_input, "ONNX file"),
        (no_output, "ONNX file"),
        (empty, "holds no ONNX graph"),
    ],
)
def test_hostile_files(tmp_path: Path, change: Any, says: str) -> None:
    """Each way a file may lie is met by a letter that says which."""
    path = corrupted(tmp_path, change)
    with pytest.raises(InputError) as letter:
        import_onnx(path)
    assert says in str(letter.value)


def test_unsorted_nodes_are_sorted(tmp_path: Path) -> None:
    """Nodes out of order are no cycle: they are put in order."""

    def turn(model: Any) -> None:
        nodes = [onnx.NodeProto.FromString(n.SerializeToString()) for n in model.graph.node]
        del model.graph.node[:]
        model.graph.node.extend(reversed(nodes))

    imported = import_onnx(corrupted(tmp_path, turn))
    assert imported.bias("product") is not None


def test_values_are_checked_when_asked_for(tmp_path: Path) -> None:
    """A NaN weight is named with its place; a layer without weights says so."""
    w = np.ones((4, 2), np.float32)
    w[1, 1] = np.nan
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"], "product")]
    imported = import_onnx(saved(tmp_path / "m.onnx", nodes, {"x": [3, 4]}, ["y"], {"w": w}))
    with pytest.raises(InputError, match=r"'product' must be finite, got nan at \[1, 1\]"):
        imported.weights("product")
    with pytest.raises(InputError, match="did you mean product"):
        imported.weights("produkt")


def test_negative_variance_is_refused(tmp_path: Path) -> None:
    """A batch norm with a negative variance has no scale."""
    ones = np.ones(2, np.float32)
    constants = {
        "w": np.ones((2, 1, 1, 1), np.float32),
        "g": ones,
        "o": ones,
        "m": ones,
        "v": -ones,
    }
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], "c"),
        helper.make_node("BatchNormalization", ["c", "g", "o", "m", "v"], ["y"], "norm"),
    ]
    path = saved(tmp_path / "m.onnx", nodes, {"x": [1, 1, 3, 3]}, ["y"], constants)
    with pytest.raises(InputError, match=r"'norm' .* variance must be positive"):
        import_onnx(path)


@pytest.mark.parametrize("path", ["missing.onnx", "."])
def test_unreadable(tmp_path: Path, path: str) -> None:
    """A missing file or a folder cannot be read."""
    with pytest.raises(InputError, match="cannot read"):
        import_onnx(tmp_path / path)


@given(data=st.data())
@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_damaged_bytes_never_crash(tmp_path: Path, data: st.DataObject) -> None:
    """A file with bytes changed or cut off either imports or is refused by a letter."""
    original = (LIGHT / "light_zfnet512.onnx").read_bytes()
    damaged = bytearray(original[: data.draw(st.integers(0, len(original)))])
    if data.draw(st.booleans()):
        damaged = bytearray(original)
    for _ in range(data.draw(st.integers(0, 8))):
        if damaged:
            damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "damaged.onnx"
    path.write_bytes(bytes(damaged))
    try:
        import_onnx(path)
    except InputError as letter:
        assert str(letter)


SIZES = st.sampled_from([0, 1, -1, 2, 3, 64, 2**31, 2**40, 2**62, -(2**62)])
OPERATIONS = ["MatMul", "Gemm", "Add", "Div", "Transpose", "Squeeze", "Constant", "Identity"]
ATTRIBUTES = ["strides", "pads", "group", "value", "perm", "auto_pad"]
DAMAGES = ["size", "type", "values", "open", "wire", "unwire", "mute", "operation", "attribute"]


def damage(model: Any, data: st.DataObject) -> None:
    """Change one thing of a graph: a size, a type, a value, a wire, an operation, an attribute."""
    graph = model.graph
    node = data.draw(st.sampled_from(graph.node))
    tensor = data.draw(st.sampled_from(graph.initializer))
    kind = data.draw(st.sampled_from(DAMAGES))
    if kind == "size" and tensor.dims:
        tensor.dims[0] = data.draw(SIZES)
    elif kind == "type":
        tensor.data_type = data.draw(st.integers(0, 30))
    elif kind == "values" and tensor.int64_data:
        tensor.int64_data[-1] = data.draw(SIZES)
    elif kind == "open":
        del data.draw(st.sampled_from(graph.input)).type.tensor_type.shape.dim[:]
    elif kind == "wire" and node.input:
        names = sorted({name for n in graph.node for name in (*n.input, *n.output)})
        at = data.draw(st.integers(0, len(node.input) - 1))
        node.input[at] = data.draw(st.sampled_from(["", *names]))
    elif kind == "unwire" and node.input:
        del node.input[data.draw(st.integers(0, len(node.input) - 1))]
    elif kind == "mute":
        del node.output[:]
    elif kind == "operation":
        node.op_type = data.draw(st.sampled_from(OPERATIONS))
    elif kind == "attribute" and node.attribute:
        attribute = data.draw(st.sampled_from(node.attribute))
        if data.draw(st.booleans()):
            attribute.name = data.draw(st.sampled_from(ATTRIBUTES))
        elif attribute.ints:
            attribute.ints[-1] = data.draw(SIZES)
        else:
            attribute.i = data.draw(SIZES)
            attribute.s = b"SAME_\xff"


@given(data=st.data())
@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_damaged_graphs_never_crash(tmp_path: Path, data: st.DataObject) -> None:
    """A well-formed file with a nonsensical graph either imports or is refused by a letter."""
    model = onnx.load(str(LIGHT / "light_zfnet512.onnx"))
    for _ in range(data.draw(st.integers(1, 5))):
        damage(model, data)
    path = tmp_path / "damaged.onnx"
    path.write_bytes(model.SerializeToString())
    try:
        import_onnx(path)
    except InputError as letter:
        assert str(letter)


# -- what all importers share -------------------------------------------------------------------


@given(
    st.lists(st.tuples(st.floats(-4, 4), st.floats(-4, 4)), max_size=4), st.integers(0, 2**32 - 1)
)
def test_folding_composes(steps: list[tuple[float, float]], seed: int) -> None:
    """Folding scale and shift one after the other is applying them one after the other."""
    g = np.random.default_rng(seed)
    raw, x = g.standard_normal((3, 5)), g.standard_normal(5)
    tensors, y = Tensors(raw), raw @ x
    for scale, shift in steps:
        tensors, y = tensors.then(np.full(3, scale), np.array([shift])), scale * y + shift
    scale = np.ones(3) if tensors.scale is None else tensors.scale
    bias = np.zeros(3) if tensors.bias is None else tensors.bias
    np.testing.assert_allclose(scale * (raw @ x) + bias, y, rtol=1e-9, atol=1e-9)


@given(st.lists(st.sampled_from(["a", "a#2", "b", "a#3"]), max_size=12))
def test_names_are_unique(wanted: list[str]) -> None:
    """No two layers get one name, even if the file already uses ours."""
    names = Names()
    given_names = [names.take(name) for name in wanted]
    assert len(set(given_names)) == len(wanted)
