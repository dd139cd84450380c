"""Do the codes of a quantized ONNX file run as they are?

Each file is built here. Its layers must have the file's very codes, scales and zero points; a run
of the file by onnxruntime, which knows nothing of this importer, says what the network computes.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx_files import saved

from sparqsim.architectures.machine import program
from sparqsim.architectures.network import run_layer, run_network
from sparqsim.architectures.registry import get_machine
from sparqsim.base import InputError
from sparqsim.workloads.encoded import Coded, EncodedLayer, encode
from sparqsim.workloads.importers.onnx import import_onnx
from sparqsim.workloads.network_tensors import NetworkTensors
from sparqsim.workloads.quantize import QuantizedTensor
from sparqsim.workloads.work import Network, load

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
from onnx import helper  # noqa: E402

from sparqsim.workloads.importers.onnx_run import Runner  # noqa: E402

MICROSOFT = {"domain": "com.microsoft"}
QONNX = {"domain": "qonnx.custom_op.general"}
Built = tuple[list[Any], dict[str, list[int | str]], dict[str, NDArray[Any]], dict[str, int]]
g = np.random.default_rng(0)


def whole(shape: tuple[int, ...], kind: type = np.int8, low: int = -64, high: int = 65) -> Any:
    """Weights of 7 bits: onnxruntime's sums of pairs saturate at 16 bits on many processors."""
    return g.integers(low, high, shape).astype(kind)


CONSTANTS: dict[str, NDArray[Any]] = {
    "s": np.array(0.02, np.float32), "z": np.array(3, np.int8), "uz": np.array(131, np.uint8),
    "w": whole((6, 4, 3, 3)), "ws": g.uniform(0.01, 0.02, 6).astype(np.float32),
    "wz": np.zeros(6, np.int8), "ys": np.array(0.25, np.float32), "one": np.array(0.01, np.float32),
    "b": whole((6,), np.int32, -3000, 3000), "m": whole((12, 5)), "mz": np.array(2, np.int8),
}  # fmt: skip
node = helper.make_node


def used(nodes: list[Any], **more: NDArray[Any]) -> dict[str, NDArray[Any]]:
    names = {name for each in nodes for name in each.input}
    return {name: each for name, each in (CONSTANTS | more).items() if name in names}


def qdq() -> Built:
    """Q/DQ pairs: a scale and a zero point for inputs, a scale for each output channel."""
    nodes = [
        node("QuantizeLinear", ["x", "s", "z"], ["xq"]),
        node("DequantizeLinear", ["xq", "s", "z"], ["xd"]),
        node("DequantizeLinear", ["w", "ws", "wz"], ["wd"], axis=0),
        node("Conv", ["xd", "wd"], ["y"], "layer", pads=[1, 1, 1, 1]),
    ]
    return nodes, {"x": [1, 4, 5, 5]}, used(nodes), {}


def qdq_bias() -> Built:
    """As onnxruntime's own quantizer writes it: a bias of 32 bits has a pair of its own."""
    nodes, inputs, *_ = qdq()
    nodes = [*nodes[:-1], node("DequantizeLinear", ["b", "bs"], ["bd"], axis=0)]
    nodes.append(node("Conv", ["xd", "wd", "bd"], ["y"], "layer", pads=[1, 1, 1, 1]))
    return nodes, inputs, used(nodes, bs=CONSTANTS["ws"] * CONSTANTS["s"]), {}


def qlinear_conv() -> Built:
    """One operator, with a bias of 32 bits."""
    inputs = ["x", "s", "uz", "w", "ws", "wz", "ys", "uz", "b"]
    nodes = [node("QLinearConv", inputs, ["y"], "layer", strides=[2, 1])]
    return nodes, {"x": [1, 4, 5, 5]}, used(nodes), {"x": 2, "y": 2}


def qlinear_matmul() -> Built:
    nodes = [node("QLinearMatMul", ["x", "s", "z", "m", "one", "mz", "ys", "z"], ["y"], "layer")]
    return nodes, {"x": [3, 12]}, used(nodes), {"x": 3, "y": 3}


def qgemm() -> Built:
    c = whole((5,), np.int32, -900, 900)
    inputs = ["x", "s", "z", "t", "one", "mz", "c", "ys", "z"]
    nodes = [node("QGemm", inputs, ["y"], "layer", transB=1, alpha=1.0, **MICROSOFT)]
    t = np.ascontiguousarray(CONSTANTS["m"].T)
    return nodes, {"x": [3, 12]}, used(nodes, t=t, c=c), {"x": 3, "y": 3}


def conv_integer() -> Built:
    """Ranges found in the run; the scales come afterwards."""
    nodes = [
        node("DynamicQuantizeLinear", ["x"], ["xq", "xs", "xz"]),
        node("ConvInteger", ["xq", "w", "xz"], ["sum"], "layer", pads=[1, 1, 1, 1]),
        node("Cast", ["sum"], ["real"], to=1),
        node("Mul", ["xs", "one"], ["both"]),
        node("Mul", ["real", "both"], ["y"]),
    ]
    return nodes, {"x": [1, 4, 5, 5]}, used(nodes), {}


def matmul_integer() -> Built:
    nodes = [
        node("DynamicQuantizeLinear", ["x"], ["xq", "xs", "xz"]),
        node("MatMulInteger", ["xq", "m", "xz", "mz"], ["y"], "layer"),
    ]
    return nodes, {"x": [3, 12]}, used(nodes), {"y": 6}


def dynamic_matmul() -> Built:
    nodes = [node("DynamicQuantizeMatMul", ["x", "m", "one", "mz"], ["y"], "layer", **MICROSOFT)]
    return nodes, {"x": [3, 12]}, used(nodes), {}


def nbits() -> Built:
    """4 bits in blocks of 16 along 48 inputs, the lower first in a byte."""
    codes = whole((5, 3, 16), np.uint8, 0, 16)
    packed = codes[..., ::2] | codes[..., 1::2] << 4
    scales = g.uniform(0.01, 0.02, 15).astype(np.float32)
    kinds = {"K": 48, "N": 5, "bits": 4, "block_size": 16}
    nodes = [node("MatMulNBits", ["x", "packed", "scales"], ["y"], "layer", **kinds, **MICROSOFT)]
    return nodes, {"x": [2, 48]}, {"packed": packed, "scales": scales}, {}


def attention() -> Built:
    """A product of two activations, both on a grid."""
    nodes = [
        node("QuantizeLinear", ["x", "s", "z"], ["xq"]),
        node("DequantizeLinear", ["xq", "s", "z"], ["xd"]),
        node("QuantizeLinear", ["k", "one", "uz"], ["kq"]),
        node("DequantizeLinear", ["kq", "one", "uz"], ["kd"]),
        node("Transpose", ["kd"], ["kt"], perm=[0, 2, 1]),
        node("MatMul", ["xd", "kt"], ["y"], "layer"),
    ]
    return nodes, {"x": [2, 3, 8], "k": [2, 4, 8]}, used(nodes), {}


BUILT: dict[
    str, tuple[Callable[[], Built], int, float]
] = {  # MACs, tolerance in the output's units
    "qdq": (qdq, 25 * 6 * 36, 1e-4),
    "qdq_bias": (qdq_bias, 25 * 6 * 36, 1e-4),
    "qlinear_conv": (qlinear_conv, 2 * 3 * 6 * 36, 1),
    "qlinear_matmul": (qlinear_matmul, 3 * 12 * 5, 1),
    "qgemm": (qgemm, 3 * 12 * 5, 1),
    "conv_integer": (conv_integer, 25 * 6 * 36, 1e-3),
    "matmul_integer": (matmul_integer, 3 * 12 * 5, 0),
    "dynamic_matmul": (dynamic_matmul, 3 * 12 * 5, 1e-4),
    "nbits": (nbits, 2 * 48 * 5, 1e-4),
    "attention": (attention, 2 * 3 * 8 * 4, 1e-4),
}


def made(name: str, folder: Path) -> tuple[Path, dict[str, NDArray[Any]]]:
    """A file, and inputs for it."""
    nodes, inputs, constants, kinds = BUILT[name][0]()
    path = saved(folder / f"{name}.onnx", nodes, inputs, ["y"], constants, kinds)
    rng = np.random.default_rng(1)
    types = {1: np.float32, 2: np.uint8, 3: np.int8}
    feeds = {}
    for key, shape in inputs.items():
        kind = types[kinds.get(key, 1)]
        drawn = rng.standard_normal([int(size) for size in shape])
        feeds[key] = drawn.astype(kind) if kind is np.float32 else (drawn * 40 + 60).astype(kind)
    return path, feeds


def with_inputs(name: str, folder: Path) -> Network:
    path, feeds = made(name, folder)
    np.savez(folder / "x.npz", **{k: np.concatenate([v, v]) for k, v in feeds.items()})  # type: ignore[arg-type]
    return load(str(path), calibration=folder / "x.npz")


@pytest.mark.parametrize("name", BUILT)
def test_the_file_computes_the_same(tmp_path: Path, name: str) -> None:
    """MACs are exact, and the imported network gives what onnxruntime gives (codes: within 1)."""
    path, feeds = made(name, tmp_path)
    imported = import_onnx(path)
    _, macs, most = BUILT[name]
    assert imported.model.macs == macs
    (expected,) = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(
        None, feeds
    )
    found = Runner(imported).run(feeds)["y"]
    assert found.dtype == expected.dtype
    assert np.abs(found.astype(np.float64) - expected).max() <= most


@pytest.mark.parametrize("name", BUILT)
def test_codes_run_as_they_are(tmp_path: Path, name: str) -> None:
    """A machine of 8 bits multiplies the file's codes, bit by bit, and says "as it is"; those of 4
    bits with a scale for 16 it holds exactly, and Bit Fusion has them as they are."""
    network = with_inputs(name, tmp_path)
    if name == "nbits":
        for machine, how in (("plain", "held exactly"), ("bitfusion", "as it is")):
            ran = run_layer(get_machine(machine)(), network, record="summary").report
            operand = ran.operands["weights"]
            assert (ran.verification.status, operand.how) == ("exact", how)
            assert operand.granularity == "group of 16"
        with pytest.raises(InputError, match="one scale for every 16 values"):
            run_layer(get_machine("tpu")(), network)
        return
    report = run_layer(get_machine("plain")(), network, record="summary").report
    assert report.verification.status == "exact"
    assert report.recipe == "as the file has it"
    assert {each.how for each in report.operands.values()} == {"as it is"}
    assert {each.bits for each in report.operands.values()} == {8}


def encoded(network: Network) -> EncodedLayer:
    return encode(NetworkTensors(network=network).of(network.layers[0]), None)


def signed(codes: Any) -> NDArray[np.int64]:
    return np.asarray(codes).astype(np.uint8).view(np.int8).astype(np.int64)


def test_codes_scales_and_zero_points_are_those_of_the_file(tmp_path: Path) -> None:
    """Weights and inputs of Q/DQ pairs: nothing is fitted, nothing is rounded twice."""
    layer = encoded(with_inputs("qdq", tmp_path))
    assert isinstance(layer.weight, Coded) and isinstance(layer.activation, Coded)
    np.testing.assert_array_equal(signed(layer.weight.codes), CONSTANTS["w"])
    np.testing.assert_array_equal(layer.weight.quantizer.scale, CONSTANTS["ws"])
    assert layer.weight.quantizer.slices.axis == 0
    _, feeds = made("qdq", tmp_path)
    expected = np.clip(np.rint(feeds["x"] / np.float32(0.02)) + 3, -128, 127)
    np.testing.assert_array_equal(signed(layer.activation.codes), expected)
    assert layer.activation.zero_point.tolist() == [3]
    assert layer.activation.scale.tolist() == [np.float32(0.02)]


@pytest.mark.parametrize("name", ["conv_integer", "matmul_integer", "dynamic_matmul"])
def test_ranges_found_in_the_run(tmp_path: Path, name: str) -> None:
    """The codes of inputs are those of DynamicQuantizeLinear, and the layer is called dynamic."""
    layer = encoded(with_inputs(name, tmp_path))
    assert layer.dynamic and isinstance(layer.activation, Coded)
    _, feeds = made(name, tmp_path)
    quantize = node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"])
    path = saved(
        tmp_path / "q.onnx", [quantize], {"x": list(feeds["x"].shape)}, ["q"], None, {"q": 2}
    )
    (codes,) = onnxruntime.InferenceSession(str(path)).run(None, feeds)
    np.testing.assert_array_equal(layer.activation.codes, codes)


def test_blocks_of_4_bits_keep_their_scales(tmp_path: Path) -> None:
    """MatMulNBits: unsigned codes around 8, a scale for each block of a row."""
    path, _ = made("nbits", tmp_path)
    network = load(str(path))
    held = network.brought["layer"].weight
    assert isinstance(held, QuantizedTensor)
    assert (held.format.name, held.quantizer.slices.group) == ("int4_unsigned", 16)
    assert held.zero_point is not None and set(held.zero_point.tolist()) == {8}
    constants = {t.name: onnx.numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer}
    np.testing.assert_array_equal(held.scale, constants["scales"])
    np.testing.assert_array_equal(held.codes[:, ::2].reshape(5, 3, 8), constants["packed"] & 15)
    np.testing.assert_array_equal(held.codes[:, 1::2].reshape(5, 3, 8), constants["packed"] >> 4)
    assert network.layers[0].weight_bits == 4


def test_qonnx_widths(tmp_path: Path) -> None:
    """Brevitas' Quant and BipolarQuant: any width, narrow or not, one bit as a sign."""
    rng = np.random.default_rng(2)
    w = rng.normal(size=(8, 3, 3, 3)).astype(np.float32)
    quant = {"rounding_mode": "ROUND", **QONNX}
    nodes = [
        node("Quant", ["x", "s", "z", "four"], ["xq"], signed=0, narrow=0, **quant),
        node("Quant", ["w", "ws", "z", "three"], ["wq"], signed=1, narrow=1, **quant),
        node("Conv", ["xq", "wq"], ["c"], "conv"),
        node("Relu", ["c"], ["r"]),
        node("Flatten", ["r"], ["f"]),
        node("BipolarQuant", ["v", "s"], ["vq"], **QONNX),
        node("MatMul", ["f", "vq"], ["y"], "last"),
    ]
    constants = {
        "w": w, "ws": np.abs(w).max((1, 2, 3), keepdims=True) / 3, "s": np.float32([0.1]),
        "z": np.float32([0]), "three": np.float32([3]), "four": np.float32([4]),
        "v": rng.normal(size=(128, 5)).astype(np.float32),
    }  # fmt: skip
    path = saved(tmp_path / "q.onnx", nodes, {"x": [1, 3, 6, 6]}, ["y"], constants)
    network = load(str(path))
    conv, last = network.brought["conv"], network.brought["last"]
    assert isinstance(conv.weight, QuantizedTensor) and isinstance(last.weight, QuantizedTensor)
    assert (conv.weight.format.name, last.weight.format.name) == ("int3_narrow", "sign")
    assert conv.activation is not None and (conv.activation.bits, conv.activation.signed) == (
        4,
        False,
    )
    expected = np.clip(np.rint(w / constants["ws"]), -3, 3) * constants["ws"]
    np.testing.assert_array_equal(conv.weight.dequantize(), expected.astype(np.float32))
    signs = np.where(constants["v"].T >= 0, np.float32(0.1), np.float32(-0.1))
    np.testing.assert_array_equal(last.weight.dequantize(), signs)
    imported = import_onnx(path)
    x = rng.uniform(0, 1, (1, 3, 6, 6)).astype(np.float32)
    found = Runner(imported).run({"x": x})["y"]
    windows = np.lib.stride_tricks.sliding_window_view(
        np.clip(np.rint(x / np.float32(0.1)), 0, 15) * np.float32(0.1), (3, 3), axis=(2, 3)
    )
    middle = np.maximum(np.einsum("nchwij,ocij->nohw", windows, expected), 0).reshape(1, -1)
    np.testing.assert_allclose(found, middle @ signs.T, rtol=1e-4)


def test_a_recipe_rounds_again_and_says_so(tmp_path: Path) -> None:
    """Who asks for a recipe gets it, with a note that the file had codes."""
    network = with_inputs("qdq", tmp_path)
    tensors = NetworkTensors(network=network).of(network.layers[0])
    layer = encode(tensors, "w4a8")
    assert isinstance(layer.weight, Coded) and layer.weight.bits == 4
    assert "the file has codes of its own; the recipe rounds their values again" in layer.notes


def test_outlines_have_the_formats_of_the_file(tmp_path: Path) -> None:
    """Timed from shapes alone, a layer has the same operands and takes as many cycles."""
    for name in ("qdq", "conv_integer", "attention"):
        network = with_inputs(name, tmp_path)
        machine = get_machine("plain")()
        full, bare = (run_network(machine, network, verify=each) for each in (True, False))
        assert full.totals.cycles == bare.totals.cycles
        assert full.rows[0].report.operands == bare.rows[0].report.operands  # type: ignore[union-attr]


def test_a_network_of_codes_is_judged_with_them(tmp_path: Path) -> None:
    """The network with its own codes is the network: no output differs from the file's."""
    network = with_inputs("qdq", tmp_path)
    accuracy = run_network(get_machine("plain")(), network).accuracy
    assert accuracy is not None and accuracy.compressed == accuracy.float32


def test_what_a_machine_cannot_take_is_named(tmp_path: Path) -> None:
    """No zero points on a machine without them, unless the user asks to round again."""
    network = with_inputs("matmul_integer", tmp_path)
    tensors = NetworkTensors(network=network).of(network.layers[0])
    eyeriss = get_machine("eyeriss")()
    with pytest.raises(InputError, match="cannot take weights with a zero point"):
        program(eyeriss, tensors)
    lowered = program(eyeriss, tensors, requantize=True)
    assert {each.how for each in lowered.operands.values()} == {"rounded again"}


def test_a_dead_channel_is_zero(tmp_path: Path) -> None:
    """A scale of 0 makes a channel of zeros, whatever its codes: no scale is refused for it."""
    nodes, inputs, constants, kinds = qdq()
    scales = CONSTANTS["ws"] * np.array([1, 0, 1, 1, 0, 1], np.float32)
    path = saved(tmp_path / "d.onnx", nodes, inputs, ["y"], constants | {"ws": scales}, kinds)
    network = load(str(path))
    held = network.brought["layer"].weight
    assert isinstance(held, QuantizedTensor) and network.weights is not None
    np.testing.assert_array_equal(held.dequantize(), network.weights["layer"])
    assert not held.codes[[1, 4]].any()


@pytest.mark.parametrize(
    "change, says",
    [
        ({"ws": -np.ones(6, np.float32)}, "scales must be positive"),
        ({"ws": np.ones(5, np.float32)}, "do not fit"),
    ],
)
def test_bad_scales_are_named(tmp_path: Path, change: dict[str, Any], says: str) -> None:
    """Scales that are no scales end in an error message that names the layer or the file."""
    nodes, inputs, constants, kinds = qdq()
    path = saved(tmp_path / "bad.onnx", nodes, inputs, ["y"], constants | change, kinds)
    with pytest.raises(InputError, match=says):
        network = load(str(path))
        network.brought["layer"].quantized("weights", np.zeros(1))
