"""Import a network from an ONNX file: shapes and weights, nothing executed.

Convolutions (grouped, depthwise, dilated, 1-D as height one), ``Gemm`` and ``MatMul`` become
layers. A product with a constant becomes a :class:`~sparqsim.workloads.layers.Linear`, one with a
stack of constants that each serve an input of their own a grouped convolution of one column; a
product of two activations, as in attention, a :class:`~sparqsim.workloads.layers.MatMul`. Operands
that broadcast are counted once (:mod:`sparqsim.workloads.importers.products`). A constant stays one
behind ``Cast``, ``Transpose``, ``Reshape``, ``Slice``, ``Concat`` and arithmetic with other
constants. Per-channel affine operations behind a layer are folded into it. The operations in
``PASSIVE`` do no MACs and are listed; any other is refused with its name and place.

A layer is called after its parameters where they have a name like torch's (``conv1.weight``), else
after the module that torch's exporter notes, else after its node. What is checked before:
:mod:`sparqsim.workloads.importers.onnx_file`; how the network runs:
:mod:`sparqsim.workloads.importers.onnx_run`. Source: the ONNX operator specification. Needs the
extra ``onnx``.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from sparqsim.base import InputError
from sparqsim.workloads.importers import Imported, Names, Tensors, with_layers
from sparqsim.workloads.importers.onnx_constants import Constants, expands
from sparqsim.workloads.importers.onnx_file import ModelFile, Shape, place_of
from sparqsim.workloads.importers.products import Arrange, Product, product_of
from sparqsim.workloads.layers import Conv2d, Layer, Linear, MatMul, OtherKind, OtherWork

# Operations without multiply-accumulates on the array: by the unit that would do them, ...
OTHER_NAMES: dict[OtherKind, str] = {
    "pooling": """
        AveragePool GlobalAveragePool GlobalMaxPool LpPool MaxPool ReduceL1 ReduceL2
        ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare
    """,
    "elementwise": """
        Abs Add Ceil Celu Clip Cos CumSum Div Elu Erf Exp Floor Gelu HardSigmoid HardSwish LeakyRelu
        Log Max Mean Min Mish Mod Mul Neg PRelu Pow Reciprocal Relu RotaryEmbedding Round Selu
        Sigmoid Sign Sin Softplus Softsign Sqrt Sub Sum Swish Tan Tanh ThresholdedRelu
    """,
    "softmax": "LogSoftmax Softmax",
    "normalisation": """
        BatchNormalization GroupNormalization InstanceNormalization LRN LayerNormalization
        LpNormalization RMSNormalization
    """,
}
KIND: dict[str, OtherKind] = {op: kind for kind, ops in OTHER_NAMES.items() for op in ops.split()}
# ... and those that only move, compare or make data.
MOVING_NAMES = """
And ArgMax ArgMin Cast CastLike Concat Constant ConstantOfShape DepthToSpace Dropout Equal Expand
EyeLike Flatten Gather GatherElements GatherND Greater GreaterOrEqual Identity IsInf IsNaN Less
LessOrEqual NonZero Not OneHot Or Pad Range Reshape Resize ScatterElements ScatterND Shape Size
Slice SpaceToDepth Split Squeeze Tile TopK Transpose Trilu Unsqueeze Upsample Where Xor
"""
PASSIVE = frozenset(KIND) | frozenset(MOVING_NAMES.split())
STANDARD_DOMAINS = ("", "ai.onnx")
HINTS = {  # what else an operation can be exported as
    "Attention": "export it with opset 20, which writes it as these and a Softmax",
}
SCOPES = "pkg.torch.onnx.name_scopes"  # as torch's exporter calls them
PARAMETER = re.compile(r"(.+?)[._](?:weight|bias)")


def import_onnx(
    path: str | Path,
    sizes: Mapping[str, int | Shape] | None = None,
    *,
    batch: int | None = None,
    like: Mapping[str, Shape] | None = None,
) -> Imported:
    """Read the layers and weights of an ONNX file.

    Parameters
    ----------
    path : path of a ``.onnx`` file
    sizes : mapping, optional
        Sizes that the inputs leave open: ``{"batch": 1, "sequence": 128}`` by their names,
        ``{"x:0": 1}`` by input and axis, or ``{"x": (1, 3, 224, 224)}``.
    batch : int, optional
        The first size of every input, where it is open.
    like : mapping of str to tuple of int, optional
        Shapes of arrays to be fed, by input: other open sizes are theirs, and the batch 1.

    Raises
    ------
    InputError
        If the file cannot be read or is not a model this importer can follow; the message names
        the node and what to do. Also if the extra ``onnx`` is not installed.
    """
    try:
        return _Importer(ModelFile(Path(path), sizes or {}, batch, like)).run()
    except UnicodeError:  # protobuf hands out names that are no text
        raise InputError(f"ONNX file {Path(path).name}: a name in it is no text in UTF-8") from None


@dataclass(frozen=True)
class Operand:
    """A value of the graph as a layer reads it."""

    value: str
    arrange: Arrange


@dataclass(frozen=True)
class Step:
    """How a layer stands in its graph.

    Attributes
    ----------
    layer : str
    left : Operand
        Makes the layer's input of a value.
    right : Operand or None
        The other operand of a product of two activations.
    output : str
        The value that it makes, everything folded in.
    result : Arrange
        Undone, it makes that value of the layer's output, ...
    shape : tuple of int
        ... which has this shape.
    added : str
        A value that is added, times ``factor``: the C of a ``Gemm`` that is no bias.
    factor : float
    scale : float
        Of a product of two activations: its result is multiplied by it first.
    """

    layer: str
    left: Operand
    right: Operand | None
    output: str
    result: Arrange
    shape: Shape
    added: str = ""
    factor: float = 1.0
    scale: float = 1.0


@dataclass(frozen=True, eq=False)
class Graph:
    """What is needed to run an imported network beside its layers.

    Attributes
    ----------
    file : ModelFile
    steps : tuple of Step
        A layer each, in the order of running.
    nodes : tuple of (position, node)
        The others, without those that were folded into layers.
    tables : mapping of str to value
        Constants that are looked up by their rows (embeddings), by their names.
    """

    file: ModelFile
    steps: tuple[Step, ...]
    nodes: tuple[tuple[int, Any], ...]
    tables: Mapping[str, str]


def _module_of(node: Any) -> str:
    """The module in which torch's exporter says a node stands; empty if it does not."""
    scopes = next((p.value for p in node.metadata_props if p.key == SCOPES), "")
    modules = re.findall(r"'([^']*)'", scopes[:1000])[:-1]  # the last is the operation
    return modules[-1] if modules else ""


@dataclass(frozen=True)
class _Behind:
    """The layer whose output a value is, and the axis of its channels, from the end."""

    index: int
    axis: int


class _Importer:
    def __init__(self, file: ModelFile) -> None:
        self.file, self.source = file, file.source
        self.shapes = file.shapes
        self.constants = Constants(file)
        self.layers: list[Layer] = []
        self.steps: list[Step] = []
        self.tensors: dict[str, Tensors] = {}
        self.left_out: Counter[str] = Counter()
        self.other: list[OtherWork] = []
        self.nodes: list[tuple[int, Any]] = []
        self.tables: dict[str, str] = {}
        self.names = Names()
        self.made_by: dict[str, _Behind] = {}
        self.readers: dict[str, list[Any]] = {}

    def run(self) -> Imported:
        file = self.file
        self.uses = Counter(name for _, node in file.order for name in node.input)
        self.uses.update(file.outputs)
        for _, node in file.order:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)
        for position, node in file.order:
            self._visit(node, position)
        other = self.constants.left_over()
        model = with_layers(file.name, self.source, self.layers, other, tuple(self.other))
        return Imported(
            model,
            {} if file.missing else self.tensors,
            dict(self.left_out),
            {step.layer: self._cut(step.output) for step in self.steps},
            tuple(file.missing),
            Graph(file, tuple(self.steps), tuple(self.nodes), self.tables),
        )

    def _cut(self, value: str) -> bool:
        """Whether all that reads a value is one operation that cuts what is negative to 0."""
        if self.uses[value] != 1 or value not in self.readers:
            return False
        (reader,) = self.readers[value]
        if reader.op_type != "Clip":
            return bool(reader.op_type == "Relu")
        least = [attribute.f for attribute in reader.attribute if attribute.name == "min"]
        if not least and len(reader.input) > 1 and reader.input[1] in self.constants:
            least = self.constants[reader.input[1]].values().reshape(-1).tolist()
        return least == [0.0]

    # -- layers ---------------------------------------------------------------------------------

    def _fail(self, text: str) -> InputError:
        return self.file.fail(text)

    def _visit(self, node: Any, position: int) -> None:
        place = place_of(node, position)
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
            return
        if node.op_type not in PASSIVE:
            advice = HINTS.get(node.op_type, "export the network in terms of these")
            raise self._fail(
                f"{place} is not supported: of the operations that multiply and accumulate, Conv, "
                f"Gemm and MatMul are; {advice}"
            )
        if self.constants.fold(node, place):
            self.nodes.append((position, node))  # another node may still read it
        elif not self._fold_affine(node, place):
            self.left_out[node.op_type] += 1
            self.nodes.append((position, node))
            self._note_other(node)
            self._note_table(node)

    def _note_other(self, node: Any) -> None:
        kind = KIND.get(node.op_type)
        shapes = [
            self.shapes[name] for name in (*node.input, node.output[0]) if name in self.shapes
        ]
        if kind is None or not shapes or not self.file.is_real(node.output[0]):
            return
        work = OtherWork(
            name=node.name or node.output[0],
            kind=kind,
            operation=node.op_type,
            elements=max(math.prod(shape) for shape in shapes),
            after=self.layers[-1].name if self.layers else "",
        )
        self.other.append(work)

    def _note_table(self, node: Any) -> None:
        """Note a constant whose rows are looked up by numbers that are not constant."""
        if node.op_type != "Gather" or node.input[0] not in self.file.initializers:
            return
        constant = self.constants[node.input[0]]
        along = next((a.i for a in node.attribute if a.name == "axis"), 0)
        if constant.floating and len(constant.shape) == 2 and along == 0:
            self.tables[node.input[0]] = node.input[0]

    def _shape(self, node: Any, position: int, value: str) -> Shape:
        return self.constants.shape(value, place_of(node, position))

    def _name(self, node: Any, parameters: list[str]) -> str:
        """Name a layer after its parameters where they have names like torch's."""
        weighted = any(name in self.constants for name in parameters)
        reader = self.readers.get(node.output[0], [])
        if weighted and len(reader) == 1 and reader[0].op_type == "Add":
            parameters = [*parameters, *reader[0].input]
        for name in parameters:
            label = self.constants[name].label if name in self.constants else ""
            found = PARAMETER.fullmatch(label)
            if found:
                return self.names.take(found[1])
        module, own = _module_of(node), node.name or node.output[0]
        if module and weighted:
            return self.names.take(module)
        return self.names.take(f"{module}.{own.removeprefix('node_')}" if module else own)

    def _add(
        self,
        node: Any,
        position: int,
        layer: Layer,
        step: Step,
        tensors: Tensors | None,
        channel_axis: int | None,
    ) -> None:
        """Append a layer; without ``channel_axis`` nothing can be folded into it."""
        if tensors is not None:
            if tensors.raw.shape != layer.weight_shape:
                raise self._fail(
                    f"{place_of(node, position)}: weights must be {list(layer.weight_shape)}, "
                    f"got {list(tensors.raw.shape)}"
                )
            self.tensors[layer.name] = tensors
            if channel_axis is not None and not step.added:
                self.made_by[node.output[0]] = _Behind(len(self.layers), channel_axis)
        self.layers.append(layer)
        self.steps.append(step)

    def _conv(self, node: Any, position: int, attributes: dict[str, Any]) -> None:
        place = place_of(node, position)
        shape = self._shape(node, position, node.input[0])
        if node.input[1] not in self.constants:
            raise self._fail(f"{place}: its weights {node.input[1]!r} must be constant")
        weights = self.constants.taken(node.input[1], place)
        rank = len(weights.shape) - 2
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
        image, taps = shape, weights.shape
        if rank == 1:  # a 1-D convolution is a 2-D one of height one
            image, taps = (*shape[:2], 1, shape[2]), (*taps[:2], 1, taps[2])
            stride, dilation, pads = (1, *stride), (1, *dilation), (0, pads[0], 0, pads[1])
        bias = self._bias(node, place, taps[0])
        if bias is None and len(node.input) > 2 and node.input[2]:
            raise self._fail(f"{place}: its bias must have one value an output ({taps[0]})")
        layer = Conv2d(
            name=self._name(node, list(node.input[1:3])),
            in_channels=image[1],
            out_channels=taps[0],
            input=(image[2], image[3]),
            kernel=(taps[2], taps[3]),
            stride=(stride[0], stride[1]),
            padding=pads,
            dilation=(dilation[0], dilation[1]),
            groups=attributes["group"].i if "group" in attributes else 1,
            bias=bias is not None,
            batch=image[0],
        )
        made = (image[0], taps[0], *layer.output)
        value = made if rank == 2 else (*made[:2], made[3])
        step = Step(
            layer.name,
            Operand(node.input[0], Arrange(shape, tuple(range(rank + 2)), image)),
            None,
            node.output[0],
            Arrange(made, (0, 1, 2, 3), made),
            value,
        )
        raw = weights.array.then(taps, lambda x: x.reshape(taps))
        self._add(node, position, layer, step, Tensors(raw).then(None, bias), -1 - rank)

    def _bias(self, node: Any, place: str, outputs: int) -> NDArray[Any] | None:
        """Return a bias with one value an output; None if there is none, or it is no such thing."""
        if len(node.input) < 3 or not node.input[2]:
            return None
        constant = self.constants.get(node.input[2])
        if constant is None:
            if node.op_type == "Conv":
                raise self._fail(f"{place}: its bias {node.input[2]!r} must be constant")
            return None
        size = math.prod(constant.shape)
        if size not in (1, outputs) or size != (constant.shape[-1] if constant.shape else 1):
            return None
        return self.constants.values(node.input[2], place).reshape(-1)

    def _gemm(self, node: Any, position: int, attributes: dict[str, Any]) -> None:
        place = place_of(node, position)
        left = self._shape(node, position, node.input[0])
        right = self._shape(node, position, node.input[1])
        if len(left) != 2 or len(right) != 2:
            raise self._fail(f"{place} must multiply two matrices, got {list(left)}, {list(right)}")
        flips = [bool(attributes[name].i) if name in attributes else False
                 for name in ("transA", "transB")]  # fmt: skip
        try:
            product = product_of(
                left[::-1] if flips[0] else left, right[::-1] if flips[1] else right
            )
        except InputError:
            raise self._fail(f"{place}: {list(left)} by {list(right)} does not fit") from None
        product = product.flipped(*flips)
        alpha = attributes["alpha"].f if "alpha" in attributes else 1.0
        beta = attributes["beta"].f if "beta" in attributes else 1.0
        third = node.input[2] if len(node.input) > 2 else ""
        by_right = node.input[1] in self.constants
        bias = self._bias(node, place, product.sizes["N"]) if by_right else None
        if third and bias is None:
            self._add_product(node, position, product, alpha, None, (third, beta))
            self._note_added(node, position, third, product)
        else:
            self._add_product(node, position, product, alpha, None if bias is None else bias * beta)

    def _note_added(self, node: Any, position: int, third: str, product: Product) -> None:
        """A C of a Gemm that is no bias is added element by element: other work."""
        shape = self._shape(node, position, third)
        if not expands(shape, product.shape):
            raise self._fail(
                f"{place_of(node, position)}: its C of {list(shape)} does not fit a result of "
                f"{list(product.shape)}"
            )
        self.left_out["Add"] += 1
        self.other.append(
            OtherWork(
                name=f"{self.layers[-1].name}.add",
                kind="elementwise",
                operation="Add",
                elements=math.prod(product.shape),
                after=self.layers[-1].name,
            )
        )

    def _matmul(self, node: Any, position: int, attributes: dict[str, Any]) -> None:
        left = self._shape(node, position, node.input[0])
        right = self._shape(node, position, node.input[1])
        self._add_product(node, position, product_of(left, right))

    def _add_product(
        self,
        node: Any,
        position: int,
        product: Product,
        scale: float = 1.0,
        bias: NDArray[Any] | None = None,
        added: tuple[str, float] = ("", 1.0),
    ) -> None:
        """Append a product: with a constant, with a stack of them, or of two activations."""
        values, size = node.input[:2], product.sizes
        constant = next((side for side in (1, 0) if values[side] in self.constants), None)
        parameters = [] if constant is None else [values[constant]]
        name = self._name(node, [*parameters, *node.input[2:]])
        step = partial(
            Step, name, output=node.output[0], shape=product.shape, added=added[0], factor=added[1]
        )
        if constant is None:
            made = step(
                left=Operand(values[0], product.left("BMK")),
                right=Operand(values[1], product.right("BNK")),
                result=product.result("BMN"),
                scale=scale,
            )
            layer = MatMul(name=name, m=size["M"], k=size["K"], n=size["N"], batch=size["B"])
            self._add(node, position, layer, made, None, None)
            return
        weights = self.constants.taken(values[constant], place_of(node, position))
        flat = size["B"] == 1
        make = _as_linear if flat else _as_groups
        weighted, shape, turn, operand, result = make(name, product, constant, bias is not None)
        made = step(left=Operand(values[1 - constant], operand), right=None, result=result)
        axis = self._channel_axis(product, constant, weights.shape) if flat else None
        tensors = Tensors(weights.array.then(shape, turn))
        by = None if scale == 1.0 else np.array([scale])
        self._add(node, position, weighted, made, tensors.then(by, bias), axis)

    def _channel_axis(self, product: Product, constant: int, shape: Shape) -> int | None:
        """Return where the constant's outputs stand in the result, if they are one axis of it."""
        if constant == 1:
            return -1  # of a stack, only what is the same for every output can be folded
        if math.prod(shape[:-2]) != 1:
            return None
        return -2 if len(product.shape) == len(product.shapes[2]) else -1

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
        behind = self.made_by[value]
        outputs = self.tensors[self.layers[behind.index].name].raw.shape[0]
        if node.op_type == "BatchNormalization":
            if at != 0 or not self._is_norm(node, outputs, behind.axis):
                return False
            scale, shift = self._norm(node, place)
        elif node.op_type in ("Add", "Sub", "Mul", "Div") and len(others) == 1:
            if not self._per_channel(others[0], outputs, behind.axis, value):
                return False
            if node.op_type == "Div" and at == 1:
                return False
            constant = self.constants.values(others[0], place).reshape(-1).astype(np.float64)
            scale, shift = _affine(node.op_type, constant, at == 1)
        else:
            return False
        layer = self.layers[behind.index]
        folded = self.tensors[layer.name].then(scale, shift)
        self.tensors[layer.name] = folded
        assert not isinstance(layer, MatMul)
        self.layers[behind.index] = msgspec.structs.replace(layer, bias=folded.bias is not None)
        self.steps[behind.index] = replace(self.steps[behind.index], output=node.output[0])
        self.made_by[node.output[0]] = behind
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
            self.constants.values(name, place).astype(np.float64) for name in node.input[1:]
        )
        epsilon = next((a.f for a in node.attribute if a.name == "epsilon"), 1e-5)
        if not (variance + epsilon > 0).all():
            raise self._fail(f"{place}: its variance must be positive in every channel")
        scale = gamma / np.sqrt(variance + epsilon)
        return scale, beta - mean * scale


Made = tuple[Layer, Shape, Arrange, Arrange, Arrange]


def _as_linear(name: str, product: Product, constant: int, bias: bool) -> Made:
    """A product with a constant matrix on the left (0) or right (1), as a fully connected layer.

    Returns the layer, the shape of its weights, and the arrangements of the constant, of the other
    operand and of the result.
    """
    size, sides = product.sizes, (product.left, product.right)
    out, row = ("N", "M") if constant else ("M", "N")
    outputs, rows, depth = size[out], size[row], size["K"]
    layer = Linear(name=name, in_features=depth, out_features=outputs, rows=rows, bias=bias)
    shape = (outputs, depth)
    return (
        layer,
        shape,
        sides[constant](f"B{out}K", shape),
        sides[1 - constant](f"B{row}K", (rows, depth)),
        product.result(f"B{row}{out}", (rows, outputs)),
    )


def _as_groups(name: str, product: Product, constant: int, bias: bool) -> Made:
    """A product with a stack of constants that each serve an input of their own: a group each."""
    size, sides = product.sizes, (product.left, product.right)
    out, row = ("N", "M") if constant else ("M", "N")
    inputs, outputs, rows = size["B"] * size["K"], size["B"] * size[out], size[row]
    layer = Conv2d(
        name=name,
        in_channels=inputs,
        out_channels=outputs,
        input=(rows, 1),
        kernel=(1, 1),
        groups=size["B"],
        bias=bias,
    )
    shape = (outputs, size["K"], 1, 1)
    return (
        layer,
        shape,
        sides[constant](f"B{out}K", shape),
        sides[1 - constant](f"BK{row}", (1, inputs, rows, 1)),
        product.result(f"B{out}{row}", (1, outputs, rows, 1)),
    )


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
