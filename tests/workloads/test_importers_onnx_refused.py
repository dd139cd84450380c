"""Is an ONNX file that lies, or asks for what there is not, met by an error that says which?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx_files import saved, value

from sparqsim.base import InputError
from sparqsim.workloads.importers.onnx import import_onnx

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper  # noqa: E402

LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"


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
    with pytest.raises(InputError) as error:
        import_onnx(path)
    assert "ONNX file m.onnx" in str(error.value)
    assert says in str(error.value)


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
        with pytest.raises(InputError) as error:
            import_onnx(path)
        assert says in str(error.value)


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
    """Each way a file may lie is met by an error message that says which."""
    path = corrupted(tmp_path, change)
    with pytest.raises(InputError) as error:
        import_onnx(path)
    assert says in str(error.value)


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
    """A file with bytes changed or cut off either imports or is refused by an error message."""
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
    except InputError as error:
        assert str(error)


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
    """A well-formed file with a nonsensical graph either imports or is refused by an error."""
    model = onnx.load(str(LIGHT / "light_zfnet512.onnx"))
    for _ in range(data.draw(st.integers(1, 5))):
        damage(model, data)
    path = tmp_path / "damaged.onnx"
    path.write_bytes(model.SerializeToString())
    try:
        import_onnx(path)
    except InputError as error:
        assert str(error)


@pytest.mark.parametrize("name", [b"conv1_b_0", b"fc6_w_0", b"OC2_DUMMY_1", b"bias"])
def test_names_that_are_no_text(tmp_path: Path, name: bytes) -> None:
    """A name that is no UTF-8 is refused with its place, whatever it names."""
    original = (LIGHT / "light_zfnet512.onnx").read_bytes()
    assert name in original
    path = tmp_path / "damaged.onnx"
    path.write_bytes(original.replace(name, name[:-1] + b"\xbd", 1))
    with pytest.raises(InputError, match=r"graph\.\w+\[\d+\].* is no text in UTF-8"):
        import_onnx(path)


# -- what all importers share -------------------------------------------------------------------


def test_a_long_row_of_numbers_is_no_list_of_sizes(tmp_path: Path) -> None:
    """A row of 10^12 whole numbers takes no memory before it is refused."""
    nodes = [
        helper.make_node("Range", ["from", "to", "by"], ["row"]),
        helper.make_node("Cast", ["row"], ["real"], to=1),
        helper.make_node("MatMul", ["x", "w"], ["y"]),
        helper.make_node("Mul", ["y", "real"], ["z"]),
    ]
    numbers = {"from": 0, "to": 10**12, "by": 1}
    constants = {name: np.array(each, np.int64) for name, each in numbers.items()}
    constants["w"] = np.ones((3, 3), np.float32)
    path = saved(tmp_path / "m.onnx", nodes, {"x": [3, 3]}, ["z"], constants)
    with pytest.raises(InputError, match="sizes must be at least 0"):
        import_onnx(path)
