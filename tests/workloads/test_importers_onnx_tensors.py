"""Is each tensor of an ONNX file counted as what it is: once, constant where it is, of its size?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from onnx_files import saved

from sparqsim.base import InputError
from sparqsim.scripts.models import command
from sparqsim.workloads.importers.onnx import import_onnx
from sparqsim.workloads.work import load, subject_for

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper  # noqa: E402


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
    with pytest.raises(InputError) as error:
        import_onnx(path)
    assert says in str(error.value)


def test_a_link_within_the_folder_is_followed(tmp_path: Path) -> None:
    """A link to a file of the same folder is that file."""
    path = with_outside(tmp_path, "link")
    (tmp_path / "link").symlink_to(tmp_path / "net.data")
    assert import_onnx(path).weights("m").shape == (3, 4)


def test_a_network_without_weights_cannot_be_compressed(tmp_path: Path) -> None:
    """A product of two inputs alone: there is nothing to make smaller, and that is said."""
    node = helper.make_node("MatMul", ["x", "y"], ["z"])
    path = saved(tmp_path / "p.onnx", [node], {"x": [2, 3], "y": [3, 4]}, ["z"])
    with pytest.raises(InputError, match="there is nothing to compress"):
        subject_for(load(str(path)))
