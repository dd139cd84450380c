"""Shapes of all values of an ONNX graph, and the small values that follow from them alone.

ONNX's own inference propagates shapes from the inputs'. Where it stops at sizes that the graph
computes from other sizes (``Shape``, ``Gather``, ``Concat``, ...), these are computed here and it
goes on; what it does not know at all, :mod:`sparqsim.workloads.importers.onnx_shapes` tells.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sparqsim.workloads.importers.onnx_control import CONTROL_FLOW
from sparqsim.workloads.importers.onnx_shapes import made_by, twin

if TYPE_CHECKING:
    from sparqsim.workloads.importers.onnx_file import ModelFile

SMALL = 1024  # assumed, elements: more than any list of sizes has, fewer than a layer's weights
LONG = 2**20  # assumed, elements: of no list of sizes
FACTORS = 8  # assumed, elements: a factor for each axis, as of a Resize
ROUNDS = 1000  # of shape inference; each goes on where the last one stopped
# Operations on lists of sizes; the result is never much larger than what goes in.
OF_SIZES_NAMES = """
Add Cast Ceil Concat Div Equal Floor Gather Greater Identity Less Max Min Mod Mul Neg Not
ReduceProd ReduceSum Reshape Slice Squeeze Sub Transpose Unsqueeze Where
"""
OF_SIZES = frozenset(OF_SIZES_NAMES.split())
LITERALS: dict[str, Callable[[Any], NDArray[Any]]] = {  # numbers in an attribute of Constant
    "value_float": lambda given: np.array(given.f, np.float32),
    "value_floats": lambda given: np.array(given.floats, np.float32),
    "value_int": lambda given: np.array(given.i, np.int64),
    "value_ints": lambda given: np.array(given.ints, np.int64),
}
Shape = tuple[int, ...]


def shape_of(node: Any, shapes: Mapping[str, Shape]) -> NDArray[Any] | None:
    """Return what a ``Shape`` or ``Size`` makes; None where it is not known."""
    if not node.input or node.input[0] not in shapes:
        return None
    shape = np.array(shapes[node.input[0]], np.int64)
    if node.op_type == "Size":
        return np.array(shape.prod(), np.int64)
    attributes = {attribute.name: attribute.i for attribute in node.attribute}
    return shape[attributes.get("start", 0) : attributes.get("end", len(shape))]


def _is_long(value: Any) -> bool:
    """Whether onnx would follow it as a list of sizes, number by number, until memory ends."""
    sizes = value.type.tensor_type.shape.dim
    return len(sizes) == 1 and sizes[0].dim_value > LONG


class Inference:
    """Infers the shapes of a file's values.

    Parameters
    ----------
    file : ModelFile
        With its nodes in order and its inputs' shapes bound.

    Attributes
    ----------
    sizes : dict of str to array
        Small values computed from shapes alone.
    """

    def __init__(self, file: ModelFile) -> None:
        self.file = file
        self.sizes: dict[str, NDArray[Any]] = {}

    def run(self) -> tuple[dict[str, Shape], dict[str, int]]:
        """Return shapes and element types of values; fill in ``sizes``."""
        skeleton = self._skeleton()
        for _ in range(ROUNDS):
            shapes, types = self._infer(skeleton)
            made = {name for _, node in self.file.order for name in node.output if name}
            if made <= shapes.keys():
                break
            told = self._tell_shapes(skeleton, shapes, types)
            if not self._compute_sizes(skeleton, shapes) and not told:
                break
        return shapes, types

    def _tell_shapes(self, skeleton: Any, shapes: dict[str, Shape], types: dict[str, int]) -> bool:
        """Note shapes that ONNX's inference does not know; say whether any is new."""
        from onnx import helper

        told = False
        for node in skeleton.graph.node:
            for name, (shape, kind) in made_by(node, shapes, types).items():
                if name not in shapes:
                    shapes[name], types[name] = self.file.sane(f"value {name!r}", shape), kind
                    skeleton.graph.value_info.append(
                        helper.make_tensor_value_info(name, kind, shape)
                    )
                    told = True
        return told

    def _skeleton(self) -> Any:
        """Return the graph for shape inference: nodes in order, small lists, no weights."""
        import onnx
        from onnx import helper

        graph = self.file.model.graph
        skeleton = onnx.ModelProto()
        skeleton.ir_version = self.file.model.ir_version
        skeleton.opset_import.extend(self.file.model.opset_import)
        skeleton.graph.name = "skeleton"
        skeleton.graph.node.extend(
            twin(node) for _, node in self.file.order if node.op_type not in CONTROL_FLOW
        )
        skeleton.graph.input.extend(self.file.fed())
        skeleton.graph.output.extend(graph.output)
        skeleton.graph.value_info.extend(graph.value_info)
        for tensor in graph.initializer:
            whole = tensor.data_type in (onnx.TensorProto.INT64, onnx.TensorProto.INT32)
            what, most = f"initializer {tensor.name!r}", SMALL if whole else FACTORS
            if math.prod(tensor.dims) <= most and self.file.is_there(what, tensor):
                values = self.file.read(what, tensor)
                skeleton.graph.initializer.append(onnx.numpy_helper.from_array(values, tensor.name))
            else:
                skeleton.graph.input.append(
                    helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
                )
        return skeleton

    def _infer(self, skeleton: Any) -> tuple[dict[str, Shape], dict[str, int]]:
        import onnx

        try:
            inferred = onnx.shape_inference.infer_shapes(skeleton).graph
            if not any(map(_is_long, (*inferred.input, *inferred.value_info))):
                inferred = onnx.shape_inference.infer_shapes(skeleton, data_prop=True).graph
        except Exception as error:  # onnx raises several unrelated types here
            line = str(error).strip().splitlines()[0] if str(error).strip() else "no reason given"
            raise self.file.fail(f"its shapes do not fit together: {line}") from None
        shapes, types = {}, {}
        for value in (*inferred.input, *inferred.value_info, *inferred.output):
            kind = value.type.tensor_type
            types[value.name] = kind.elem_type
            if kind.HasField("shape") and all(d.HasField("dim_value") for d in kind.shape.dim):
                sizes = tuple(d.dim_value for d in kind.shape.dim)
                shapes[value.name] = self.file.sane(f"value {value.name!r}", sizes)
        for tensor in inferred.initializer:
            shapes[tensor.name], types[tensor.name] = tuple(tensor.dims), tensor.data_type
        return shapes, types

    def _compute_sizes(self, skeleton: Any, shapes: Mapping[str, Shape]) -> bool:
        """Compute what depends on known shapes alone; say whether anything new was."""
        from onnx import numpy_helper

        graph = skeleton.graph
        known = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
        before = len(self.sizes)
        kept = []
        for node in graph.node:
            values = self._size(node, known, shapes)
            if values is None:
                kept.append(node)
                continue
            name = node.output[0]
            known[name] = values
            if values.dtype.kind not in "iub":  # a factor on the way, as of a Resize
                kept.append(node)
                continue
            self.sizes[name] = values
            graph.initializer.append(numpy_helper.from_array(values, name))
        if len(self.sizes) == before:
            return False
        copies = [type(node).FromString(node.SerializeToString()) for node in kept]
        del graph.node[:]
        graph.node.extend(copies)
        return True

    def _size(
        self, node: Any, known: Mapping[str, NDArray[Any]], shapes: Mapping[str, Shape]
    ) -> NDArray[Any] | None:
        """Return the small value that a node computes from sizes; None if it does not."""
        if len(node.output) != 1 or not node.output[0]:
            return None
        attributes = {attribute.name: attribute for attribute in node.attribute}
        if node.op_type == "Constant":
            return self._literal(node, attributes)
        if node.op_type in ("Shape", "Size"):
            return shape_of(node, shapes)
        if any(name not in known for name in node.input if name):
            return None
        if node.op_type in ("Expand", "ConstantOfShape"):  # as large as they are told to be
            to = known.get(node.input[-1]) if node.input else None
            if (
                to is None
                or to.dtype.kind not in "iu"
                or math.prod(to.reshape(-1).tolist()) > SMALL
            ):
                return None
        elif node.op_type not in OF_SIZES:
            return None
        return self.file.computed(node, {name: known[name] for name in node.input if name})

    def _literal(self, node: Any, attributes: Mapping[str, Any]) -> NDArray[Any] | None:
        """The few numbers of a ``Constant``; None if they are many, or none."""
        if "value" in attributes:
            tensor = attributes["value"].t
            few = math.prod(tensor.dims) <= SMALL
            return self.file.read(f"constant {node.output[0]!r}", tensor) if few else None
        made = (read(attributes[name]) for name, read in LITERALS.items() if name in attributes)
        return next((values for values in made if values.size <= SMALL), None)
