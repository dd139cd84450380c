"""Is a network from an ONNX file the network in the file?

Numbers are held against ONNX's own reference evaluator: each imported layer, with everything folded
into it, must map the evaluator's input of that layer to the evaluator's value behind the folded
operations.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
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

onnx = pytest.importorskip("onnx")
from onnx import helper  # noqa: E402
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
