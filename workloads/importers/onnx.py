"""Import a network from an ONNX file: shapes and weights, nothing executed.

Convolutions (grouped, depthwise, dilated, 1-D as height one), ``Gemm`` and ``MatMul`` become
layers. A product with a constant becomes a :class:`~sparqsim.workloads.layers.Linear`; a product of
two
activations, as in attention, a :class:`~sparqsim.workloads.layers.MatMul`. Per-channel affine
operations behind a layer are folded into it. The operations in ``PASSIVE`` do no MACs and are
counted only; any other is refused with its name and place.

The file is data from outside and treated so: it must hold its weights (no external files), have no
control flow, no functions, no cycle, and known, sane dimensions, which ONNX's own shape inference
propagates; a symbolic dimension (a batch ``N``) is given by the caller. Nothing is allocated for a
weight until it is asked for. Source: the ONNX operator specification. Needs the extra ``onnx``.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from sparqsim.base import InputError
from sparqsim.workloads.importers import MOST_ELEMENTS, Imported, Names, Tensors, with_layers
from sparqsim.workloads.layers import Conv2d, Layer, Linear, MatMul

# Operations without multiply-accumulates on the array.
PASSIVE_NAMES = """
Abs Add And ArgMax ArgMin AveragePool BatchNormalization Cast CastLike Ceil Celu Clip Concat
Constant ConstantOfShape Cos CumSum DepthToSpace Div Dropout Elu Equal Erf Exp Expand EyeLike
Flatten Floor Gather GatherElements GatherND Gelu GlobalAveragePool GlobalMaxPool Greater
GreaterOrEqual GroupNormalization HardSigmoid HardSwish Identity InstanceNormalization IsInf
IsNaN LRN LayerNormalization LeakyRelu Less LessOrEqual Log LogSoftmax LpNormalization LpPool
Max MaxPool Mean Min Mish Mod Mul Neg NonZero Not OneHot Or PRelu Pad Pow RMSNormalization Range
Reciprocal ReduceL1 ReduceL2 ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum
ReduceSumSquare Relu Reshape Resize RotaryEmbedding Round ScatterElements ScatterND Selu Shape
Sigmoid Sign Sin Size Slice Softmax Softplus Softsign SpaceToDepth Split Sqrt Squeeze Sub Sum
Swish Tan Tanh ThresholdedRelu Tile TopK Transpose Trilu Unsqueeze Upsample Where Xor
"""
PASSIVE = frozenset(PASSIVE_NAMES.split())
CONTROL_FLOW = frozenset({"If", "Loop", "Scan", "SequenceMap"})
MOST_AXES = 32  # numpy's limit before version 2
STANDARD_DOMAINS = ("", "ai.onnx")


def import_onnx(path: str | Path, dims: Mapping[str, int] | None = None) -> Imported:
    """Read the layers and weights of an ONNX file.

    Parameters
    ----------
    path : path of a ``.onnx`` file
    dims : mapping from symbolic dimension to its size
        For example ``{"batch": 1, "sequence": 128}``.

    Raises
    ------
    InputError
        If the file cannot be read or is not a model this importer can follow; the message names
        the node and what to do. Also if the extra ``onnx`` is not installed.
    """
    try:
        import onnx
    except ImportError:
        raise InputError(
            "reading ONNX needs the package onnx; pip install 'sparqsim[onnx]'"
        ) from None
    path = Path(path)
    try:
        model = onnx.load(str(path), format="protobuf", load_external_data=False)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
    except Exception:  # protobuf raises several unrelated types here
        raise InputError(
            f"{path} is not an ONNX model, or is cut short; export or copy it again"
        ) from None
    if not model.graph.node:
        raise InputError(f"{path} holds no ONNX graph; export it again")
    return _Importer(model, path.stem, f"ONNX file {path.name}", dict(dims or {})).run()


def _place(node: Any, position: int) -> str:
    """Say which node: its name if it has one, its operation, its position."""
    name = f" {node.name!r}" if node.name else ""
    output = f" making {node.output[0]!r}" if node.output else ""
    return f"node {position}{name} ({node.op_type}{output})"


class _Constant:
    """A constant of the graph, or a rearranged view of one; its values are made when asked for."""

    def __init__(
        self,
        shape: tuple[int, ...],
        values: Callable[[], NDArray[Any]],
        floating: bool,
        root: _Constant | None = None,
    ) -> None:
        self.shape, self.values, self.floating = shape, values, floating
        self._root = root
        self.taken = False

    @property
    def is_root(self) -> bool:
        return self._root is None

    def take(self) -> None:
        """Note that a layer took it in."""
        self.taken = True
        if self._root is not None:
            self._root.take()


class _Importer:
    def __init__(self, model: Any, name: str, source: str, dims: dict[str, int]) -> None:
        self.model, self.name, self.source, self.dims = model, name, source, dims
        self.constants: dict[str, _Constant] = {}
        self.layers: list[Layer] = []
        self.tensors: dict[str, Tensors] = {}
        self.left_out: Counter[str] = Counter()
        self.names = Names()
        # value -> (index of the layer whose output it is, axis of its channels from the end)
        self.made_by: dict[str, tuple[int, int]] = {}

    # -- checks before anything is interpreted --------------------------------------------------

    def run(self) -> Imported:
        self._refuse_what_is_unsafe()
        self.order = self._sorted()
        self._bind_dimensions()
        self.shapes = self._infer_shapes()
        self.uses = Counter(name for node in self.model.graph.node for name in node.input)
        self.uses.update(value.name for value in self.model.graph.output)
        for tensor in self.model.graph.initializer:
            self._add_initializer(tensor)
        for position, node in self.order:
            self._visit(node, position)
        roots = {id(constant): constant for constant in self.constants.values() if constant.is_root}
        other = sum(
            math.prod(constant.shape)
            for constant in roots.values()
            if constant.floating and not constant.taken and math.prod(constant.shape) > 1
        )
        model = with_layers(self.name, self.source, self.layers, other)
        return Imported(model, self.tensors, dict(self.left_out))

    def _fail(self, text: str) -> InputError:
        return InputError(f"{self.source}: {text}")

    def _refuse_what_is_unsafe(self) -> None:
        graph = self.model.graph
        if self.model.functions:
            raise self._fail(
                f"it defines functions ({self.model.functions[0].name!r} first); inline them with "
                "onnx.inliner.inline_local_functions and save it again"
            )
        if graph.sparse_initializer:
            raise self._fail("it has sparse initializers; save its weights dense")
        tensors = [(f"initializer {tensor.name!r}", tensor) for tensor in graph.initializer]
        for position, node in enumerate(graph.node):
            for attribute in node.attribute:
                if attribute.HasField("g") or attribute.graphs or node.op_type in CONTROL_FLOW:
                    raise self._fail(
                        f"{_place(node, position)} is control flow, whose work depends on data; "
                        "export the network with it unrolled"
                    )
                if attribute.HasField("t"):
                    tensors.append((_place(node, position), attribute.t))
        for what, tensor in tensors:
            if tensor.data_location or tensor.external_data:
                raise self._fail(
                    f"{what} keeps its values in another file, which is not read; save the model "
                    "with its weights inside"
                )
            self._sane(what, tuple(tensor.dims))

    def _sane(self, what: str, shape: tuple[int, ...]) -> tuple[int, ...]:
        shape = tuple(int(size) for size in shape)
        if len(shape) > MOST_AXES:
            raise self._fail(f"{what} must have at most {MOST_AXES} axes, got {len(shape)}")
        if min(shape, default=0) < 0 or math.prod(max(n, 1) for n in shape) > MOST_ELEMENTS:
            raise self._fail(
                f"{what} has shape {list(shape)}; sizes must be at least 0 and their product at "
                f"most {MOST_ELEMENTS}"
            )
        return shape

    def _sorted(self) -> list[tuple[int, Any]]:
        """Nodes so that each follows what it reads, and otherwise in the file's order."""
        graph = self.model.graph
        nodes = list(enumerate(graph.node))
        maker: dict[str, int] = {}
        known = {value.name for value in graph.input} | {t.name for t in graph.initializer}
        for position, node in nodes:
            for output in filter(None, node.output):
                if output in maker or output in known:
                    raise self._fail(f"{_place(node, position)}: {output!r} is made twice")
                maker[output] = position
        waiting: dict[int, int] = {}
        readers: dict[int, list[int]] = {}
        for position, node in nodes:
            sources = set()
            for value in filter(None, node.input):
                if value in maker:
                    sources.add(maker[value])
                elif value not in known:
                    raise self._fail(
                        f"{_place(node, position)} reads {value!r}, which nothing makes"
                    )
            waiting[position] = len(sources)
            for source in sources:
                readers.setdefault(source, []).append(position)
        ready = [position for position, _ in nodes if not waiting[position]]  # a heap: it ascends
        order: list[tuple[int, Any]] = []
        while ready:
            position = heapq.heappop(ready)
            order.append(nodes[position])
            for reader in readers.get(position, []):
                waiting[reader] -= 1
                if not waiting[reader]:
                    heapq.heappush(ready, reader)
        if len(order) < len(nodes):
            position, node = next(n for n in nodes if waiting[n[0]])
            raise self._fail(f"{_place(node, position)} waits for its own output: a cycle")
        return order

    def _bind_dimensions(self) -> None:
        """Write the given sizes over symbolic dimensions of the graph's inputs."""
        graph = self.model.graph
        given = {tensor.name for tensor in graph.initializer}
        unused = set(self.dims)
        for value in graph.input:
            if value.name in given or not value.type.HasField("tensor_type"):
                continue
            for axis, dim in enumerate(value.type.tensor_type.shape.dim):
                if dim.dim_value > 0:
                    continue
                symbol = dim.dim_param or f"{value.name}:{axis}"
                if symbol not in self.dims:
                    raise self._fail(
                        f"input {value.name!r} has a size left open on axis {axis}; give it, as "
                        f"{symbol}=1"
                    )
                unused.discard(symbol)
                size = self.dims[symbol]
                if type(size) is not int or not 1 <= size <= MOST_ELEMENTS:
                    raise self._fail(f"size {symbol} must be whole and at least 1, got {size!r}")
                dim.dim_value = size
        if unused:
            raise self._fail(f"it has no open size called {', '.join(sorted(unused))}")
        # Sizes noted by the exporter for other values are the symbolic ones: infer them afresh.
        if self.dims:
            del graph.value_info[:]
            for value in graph.output:
                if value.type.HasField("tensor_type"):
                    value.type.tensor_type.ClearField("shape")

    def _infer_shapes(self) -> dict[str, tuple[int, ...]]:
        import onnx

        graph = self.model.graph
        positions = [position for position, _ in self.order]
        if positions != sorted(positions):
            copies = [onnx.NodeProto.FromString(n.SerializeToString()) for _, n in self.order]
            del graph.node[:]
            graph.node.extend(copies)
            self.order = list(zip(positions, graph.node, strict=True))
        try:
            inferred = onnx.shape_inference.infer_shapes(self.model, data_prop=True).graph
        except Exception as error:  # onnx raises several unrelated types here
            line = str(error).strip().splitlines()[0] if str(error).strip() else "no reason given"
            raise self._fail(f"its shapes do not fit together: {line}") from None
        shapes = {}
        for value in (*inferred.input, *inferred.value_info, *inferred.output):
            kind = value.type.tensor_type
            if kind.HasField("shape") and all(d.HasField("dim_value") for d in kind.shape.dim):
                sizes = tuple(d.dim_value for d in kind.shape.dim)
                shapes[value.name] = self._sane(f"value {value.name!r}", sizes)
        return shapes

    # -- constants ------------------------------------------------------------------------------

    def _add_initializer(self, tensor: Any) -> None:
        what = f"tensor {tensor.name!r}"
        self.constants[tensor.name] = self._stored(tensor, what)

    def _stored(self, tensor: Any, what: str) -> _Constant:
        from onnx import TensorProto, numpy_helper

        real = (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16)

        def values() -> NDArray[Any]:
            try:
                array: NDArray[Any] = numpy_helper.to_array(tensor)
            except Exception:  # too short, of an unknown type, ...: onnx raises several types here
                raise self._fail(
                    f"{what} does not hold the values its shape {list(tensor.dims)} asks for"
                ) from None
            return array

        return _Constant(tuple(tensor.dims), values, tensor.data_type in real)

    def _fold_constant(self, node: Any, position: int) -> bool:
        """Note the output of a node that is a constant, or a rearrangement of one."""
        attributes = {attribute.name: attribute for attribute in node.attribute}
        place = _place(node, position)
        if node.op_type == "Constant":
            if "value" not in attributes:  # scalars and strings: never weights
                return True
            self.constants[node.output[0]] = self._stored(attributes["value"].t, place)
            return True
        source = self.constants.get(node.input[0]) if node.input else None
        if source is None:
            return False
        made: _Constant
        if node.op_type == "ConstantOfShape":
            sizes, value = source.values().reshape(-1), np.zeros(1, np.float32)
            if "value" in attributes:
                value = self._stored(attributes["value"].t, place).values().reshape(-1)
            if sizes.dtype.kind not in "iu" or value.size != 1:
                raise self._fail(f"{place} must take whole sizes and repeat one value")
            shape = self._sane(place, tuple(sizes.tolist()))
            # A view that repeats one number: a fully connected layer of it takes no memory.
            made = _Constant(shape, lambda: np.broadcast_to(value, shape), value.dtype.kind == "f")
        elif node.op_type == "Identity":
            made = source
        elif node.op_type in ("Unsqueeze", "Squeeze", "Reshape", "Flatten"):
            shape = self._shape(node, position, node.output[0])
            if math.prod(shape) != math.prod(source.shape):
                raise self._fail(f"{place} makes {list(shape)} of {list(source.shape)}")
            made = _Constant(shape, lambda: source.values().reshape(shape), source.floating, source)
        elif node.op_type == "Transpose":
            rank = len(source.shape)
            axes = tuple(attributes["perm"].ints) if "perm" in attributes else None
            axes = tuple(reversed(range(rank))) if axes is None else axes
            if sorted(axes) != list(range(rank)):
                raise self._fail(f"{place} permutes {rank} axes by {list(axes)}")
            turned = tuple(source.shape[axis] for axis in axes)
            made = _Constant(
                turned, lambda: source.values().transpose(axes), source.floating, source
            )
        else:
            return False
        self.constants[node.output[0]] = made
        return True

    def _weights(self, name: str, place: str) -> NDArray[Any]:
        """Return a constant that a layer takes in."""
        constant = self.constants[name]
        if not constant.floating:
            raise self._fail(
                f"{place}: {name!r} is not of floating point; import the network before it was "
                "quantized and quantize it here"
            )
        constant.take()
        return constant.values()

    # -- layers ---------------------------------------------------------------------------------

    def _visit(self, node: Any, position: int) -> None:
        place = _place(node, position)
        if node.domain not in STANDARD_DOMAINS:
            raise self._fail(
                f"{place} is of the domain {node.domain!r}; export with standard operators only"
            )
        try:
            self._interpret(node, position, place)
        except IndexError:
            raise self._fail(f"{place} lacks an input or output") from None
        except InputError as error:
            if str(error).startswith(self.source):
                raise
            raise self._fail(f"{place}: {error}") from None

    def _interpret(self, node: Any, position: int, place: str) -> None:
        handlers = {"Conv": self._conv, "Gemm": self._gemm, "MatMul": self._matmul}
        if node.op_type in handlers:
            attributes = {attribute.name: attribute for attribute in node.attribute}
            handlers[node.op_type](node, position, attributes)
        elif node.op_type not in PASSIVE:
            raise self._fail(
                f"{place} is not supported: of the operations that multiply and accumulate, Conv, "
                "Gemm and MatMul are; export the network in terms of these"
            )
        elif not self._fold_constant(node, position) and not self._fold_affine(node, place):
            self.left_out[node.op_type] += 1

    def _shape(self, node: Any, position: int, value: str) -> tuple[int, ...]:
        constant = self.constants.get(value)
        shape = constant.shape if constant else self.shapes.get(value)
        if shape is None:
            raise self._fail(
                f"{_place(node, position)}: the shape of {value!r} does not follow from the "
                "inputs; export the network with fixed shapes"
            )
        return shape

    def _add(
        self,
        node: Any,
        position: int,
        make: Callable[[str], Layer],
        tensors: Tensors | None,
        channel_axis: int,
    ) -> None:
        """Append a layer; ``make`` builds it from its name."""
        name = self.names.take(node.name or node.output[0])
        layer = make(name)
        if tensors is not None:
            if tensors.raw.shape != layer.weight_shape:
                raise self._fail(
                    f"{_place(node, position)}: weights must be {list(layer.weight_shape)}, "
                    f"got {list(tensors.raw.shape)}"
                )
            self.tensors[name] = tensors
            self.made_by[node.output[0]] = (len(self.layers), channel_axis)
        self.layers.append(layer)

    def _conv(self, node: Any, position: int, attributes: dict[str, Any]) -> None:
        place = _place(node, position)
        shape = self._shape(node, position, node.input[0])
        if node.input[1] not in self.constants:
            raise self._fail(f"{place}: its weights {node.input[1]!r} must be constant")
        weights = self._weights(node.input[1], place)
        rank = weights.ndim - 2
        if rank not in (1, 2) or len(shape) != rank + 2:
            raise self._fail(
                f"{place} must be a 1-D or 2-D convolution, got input {list(shape)} and weights "
                f"{list(weights.shape)}"
            )

        def along(name: str, default: int, count: int) -> tuple[int, ...]:
            values = tuple(attributes[name].ints) if name in attributes else (default,) * count
            if len(values) != count:
                raise self._fail(f"{place}: {name} must have {count} values, got {list(values)}")
            return values

        stride, dilation = along("strides", 1, rank), along("dilations", 1, rank)
        auto = (
            attributes["auto_pad"].s.decode(errors="replace")
            if "auto_pad" in attributes
            else "NOTSET"
        )
        if auto.startswith("SAME"):
            pads = _same(shape[2:], weights.shape[2:], stride, dilation, auto == "SAME_LOWER")
        elif auto == "VALID":
            pads = (0,) * (2 * rank)
        else:
            pads = along("pads", 0, 2 * rank)
        if rank == 1:  # a 1-D convolution is a 2-D one of height one
            shape, weights = (*shape[:2], 1, shape[2]), weights[:, :, None]
            stride, dilation, pads = (1, *stride), (1, *dilation), (0, pads[0], 0, pads[1])
        bias = self._bias(node, place, weights.shape[0])

        def make(name: str) -> Conv2d:
            return Conv2d(
                name=name,
                in_channels=shape[1],
                out_channels=weights.shape[0],
                input=(shape[2], shape[3]),
                kernel=(weights.shape[2], weights.shape[3]),
                stride=(stride[0], stride[1]),
                padding=pads,
                dilation=(dilation[0], dilation[1]),
                groups=attributes["group"].i if "group" in attributes else 1,
                bias=bias is not None,
                batch=shape[0],
            )

        self._add(node, position, make, Tensors(weights).then(None, bias), -1 - rank)

    def _bias(self, node: Any, place: str, outputs: int) -> NDArray[Any] | None:
        if len(node.input) < 3 or not node.input[2]:
            return None
        if node.input[2] not in self.constants:
            raise self._fail(f"{place}: its bias {node.input[2]!r} must be constant")
        bias = self._weights(node.input[2], place)
        if bias.size not in (1, outputs) or bias.size != (bias.shape[-1] if bias.ndim else 1):
            raise self._fail(
                f"{place}: its bias must have one value an output ({outputs}), got shape "
                f"{list(bias.shape)}"
            )
        return bias.reshape(-1)

    def _gemm(self, node: Any, position: int, attributes: dict[str, Any]) -> None:
        place = _place(node, position)
        left = self._shape(node, position, node.input[0])
        right = self._shape(node, position, node.input[1])
        if len(left) != 2 or len(right) != 2:
            raise self._fail(f"{place} must multiply two matrices, got {list(left)}, {list(right)}")
        flip_left = "transA" in attributes and attributes["transA"].i
        flip_right = "transB" in attributes and attributes["transB"].i
        rows, depth = reversed(left) if flip_left else left
        depth_too, outputs = reversed(right) if flip_right else right
        if depth != depth_too:
            raise self._fail(f"{place}: {list(left)} by {list(right)} does not fit")
        if node.input[1] not in self.constants:
            self._add_product(node, position, rows, depth, outputs, 1)
            return
        weights = self._weights(node.input[1], place)
        tensors = Tensors(weights if flip_right else weights.T)
        if "alpha" in attributes:
            tensors = tensors.then(np.array([attributes["alpha"].f]), None)
        bias = self._bias(node, place, outputs)
        if bias is not None and "beta" in attributes:
            bias = bias * attributes["beta"].f
        self._add_linear(node, position, rows, tensors.then(None, bias), -1)

    def _matmul(self, node: Any, position: int, attributes: dict[str, Any]) -> None:
        place = _place(node, position)
        left = self._shape(node, position, node.input[0])
        right = self._shape(node, position, node.input[1])
        if not left or not right:
            raise self._fail(f"{place} must multiply matrices, got a scalar")
        left = (1, *left) if len(left) == 1 else left
        right = (*right, 1) if len(right) == 1 else right
        if left[-1] != right[-2]:
            raise self._fail(f"{place}: {list(left)} by {list(right)} does not fit")
        depth = left[-1]
        by_right = node.input[1] in self.constants
        if by_right or node.input[0] in self.constants:
            name, shape, other = (
                (node.input[1], right, left) if by_right else (node.input[0], left, right)
            )
            if math.prod(shape[:-2]) != 1:
                raise self._fail(
                    f"{place}: a constant operand must be one matrix, got shape {list(shape)}"
                )
            weights = self._weights(name, place).reshape(shape[-2:])
            rows = math.prod(other) // depth if depth else 0
            tensors = Tensors(weights.T if by_right else weights)
            self._add_linear(node, position, rows, tensors, -1 if by_right else -2)
            return
        try:
            batch = math.prod(np.broadcast_shapes(left[:-2], right[:-2]))
        except ValueError:
            raise self._fail(f"{place}: {list(left)} by {list(right)} does not fit") from None
        self._add_product(node, position, left[-2], depth, right[-1], batch)

    def _add_linear(
        self, node: Any, position: int, rows: int, tensors: Tensors, channel_axis: int
    ) -> None:
        def make(name: str) -> Linear:
            return Linear(
                name=name,
                in_features=tensors.raw.shape[1],
                out_features=tensors.raw.shape[0],
                rows=rows,
                bias=tensors.bias is not None,
            )

        self._add(node, position, make, tensors, channel_axis)

    def _add_product(
        self, node: Any, position: int, rows: int, depth: int, columns: int, batch: int
    ) -> None:
        def make(name: str) -> MatMul:
            return MatMul(name=name, m=rows, k=depth, n=columns, batch=batch)

        self._add(node, position, make, None, -1)

    # -- folding --------------------------------------------------------------------------------

    def _fold_affine(self, node: Any, place: str) -> bool:
        """Fold a per-channel affine operation into the layer whose only reader it is."""
        made = [i for i, value in enumerate(node.input) if value in self.made_by]
        if len(made) != 1 or self.uses[node.input[made[0]]] != 1:
            return False
        at = made[0]
        value = node.input[at]
        others = [name for i, name in enumerate(node.input) if i != at]
        if not others or not all(name in self.constants for name in others):
            return False
        scale: NDArray[Any] | None
        shift: NDArray[Any] | None
        index, axis = self.made_by[value]
        outputs = self.tensors[self.layers[index].name].raw.shape[0]
        if node.op_type == "BatchNormalization":
            if at != 0 or not self._is_norm(node, outputs, axis):
                return False
            scale, shift = self._norm(node, place)
        elif node.op_type in ("Add", "Sub", "Mul", "Div") and len(others) == 1:
            if not self._per_channel(others[0], outputs, axis, value):
                return False
            if node.op_type == "Div" and at == 1:
                return False
            constant = self._weights(others[0], place).reshape(-1).astype(np.float64)
            scale, shift = _affine(node.op_type, constant, at == 1)
        else:
            return False
        layer = self.layers[index]
        folded = self.tensors[layer.name].then(scale, shift)
        self.tensors[layer.name] = folded
        assert not isinstance(layer, MatMul)
        self.layers[index] = msgspec.structs.replace(layer, bias=folded.bias is not None)
        self.made_by[node.output[0]] = (index, axis)
        return True

    def _per_channel(self, name: str, outputs: int, axis: int, value: str) -> bool:
        constant = self.constants[name]
        rank = len(self.shapes.get(value, ()))
        if not constant.floating or len(constant.shape) > rank:
            return False
        along = {i - len(constant.shape): size for i, size in enumerate(constant.shape)}
        channels = along.pop(axis, 1)
        return channels in (1, outputs) and all(size == 1 for size in along.values())

    def _is_norm(self, node: Any, outputs: int, axis: int) -> bool:
        training = any(a.name == "training_mode" and a.i for a in node.attribute)
        constants = [self.constants[name] for name in node.input[1:]]
        return (
            not training
            and len(constants) == 4
            and all(c.shape == (outputs,) and c.floating for c in constants)
            # its channels are axis 1: those of the convolution, or of a matrix of two axes
            and len(self.shapes.get(node.input[0], ())) + axis == 1
        )

    def _norm(self, node: Any, place: str) -> tuple[NDArray[Any], NDArray[Any]]:
        gamma, beta, mean, variance = (
            self._weights(name, place).astype(np.float64) for name in node.input[1:]
        )
        epsilon = next((a.f for a in node.attribute if a.name == "epsilon"), 1e-5)
        if not (variance + epsilon > 0).all():
            raise self._fail(f"{place}: its variance must be positive in every channel")
        scale = gamma / np.sqrt(variance + epsilon)
        return scale, beta - mean * scale


def _affine(
    operation: str, constant: NDArray[np.float64], constant_first: bool
) -> tuple[NDArray[np.float64] | None, NDArray[np.float64] | None]:
    """Return (scale, shift) of an element-wise operation with a constant."""
    if operation == "Add":
        return None, constant
    if operation == "Sub":
        return (np.array([-1.0]), constant) if constant_first else (None, -constant)
    if operation == "Mul":
        return constant, None
    with np.errstate(divide="ignore"):  # an infinite weight is named when it is asked for
        return 1.0 / constant, None


def _same(
    size: tuple[int, ...],
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    dilation: tuple[int, ...],
    lower: bool,
) -> tuple[int, ...]:
    """Return ONNX's SAME padding, begins then ends: as many outputs as strides cover the input."""
    begins, ends = [], []
    for extent, taps, step, spread in zip(size, kernel, stride, dilation, strict=True):
        outputs = -(-extent // step) if step > 0 else 1
        total = max((outputs - 1) * step + spread * (taps - 1) + 1 - extent, 0)
        less, more = total // 2, total - total // 2
        begins.append(more if lower else less)
        ends.append(less if lower else more)
    return (*begins, *ends)
