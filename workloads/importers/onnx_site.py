"""Where an ONNX node stands while a graph is read, and what is collected of it."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from sparqsim.base import InputError
from sparqsim.workloads.importers import Names, Range, Tensors
from sparqsim.workloads.importers.onnx_codes import WHOLE, fixed
from sparqsim.workloads.importers.onnx_constants import Constant, Constants
from sparqsim.workloads.importers.onnx_file import ModelFile, Shape, place_of
from sparqsim.workloads.importers.onnx_graph import Operand, Step
from sparqsim.workloads.importers.onnx_operators import kind_of
from sparqsim.workloads.layers import Layer, OtherKind, OtherWork

SCOPES = "pkg.torch.onnx.name_scopes"  # as torch's exporter calls them
PARAMETER = re.compile(r"(.+?)[._](?:weight|bias)(?:_[ih]h(?:_l\d+)?)?(?:_quantized)?")


def _module_of(node: Any) -> str:
    """The module in which torch's exporter says a node stands; empty if it does not."""
    scopes = next((p.value for p in node.metadata_props if p.key == SCOPES), "")
    modules = re.findall(r"'([^']*)'", scopes[:1000])[:-1]  # the last is the operation
    return modules[-1] if modules else ""


@dataclass(frozen=True)
class Behind:
    """The layer whose output a value is, and the axis of its channels, from the end."""

    index: int
    axis: int


class Collected:
    """The layers of a graph and what else it does, as far as it was read."""

    def __init__(self, file: ModelFile) -> None:
        self.file, self.source, self.shapes = file, file.source, file.shapes
        self.constants = Constants(file)
        self.layers: list[Layer] = []
        self.steps: list[Step] = []
        self.tensors: dict[str, Tensors] = {}
        self.ranges: dict[str, Range] = {}  # by operand
        self.inside: dict[str, str] = {}
        self.took: Counter[str] = Counter()
        self.left_out: Counter[str] = Counter()
        self.folded: Counter[str] = Counter()
        self.merged: Counter[str] = Counter()
        self.other: list[OtherWork] = []
        self.nodes: list[tuple[int, Any]] = []
        self.tables: dict[str, str] = {}
        self.names = Names()
        self.made_by: dict[str, Behind] = {}
        self.coded: dict[str, Range] = {}  # real values, by name, that lie on a grid of codes
        self.dynamic: set[str] = set()  # codes whose scale is found in each run
        self.weights_of: dict[Any, str] = {}
        self.producers = {name: node for _, node in file.order for name in node.output}
        self.readers: dict[str, list[Any]] = {}
        for _, node in file.order:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)
        self.uses = Counter(name for _, node in file.order for name in node.input)
        self.uses.update(file.outputs)

    def name(self, node: Any, parameters: list[str]) -> str:
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

    def note_other(self, node: Any) -> None:
        """Note a node's work where some unit of a machine would do it."""
        kind = kind_of(node.domain, node.op_type)
        shapes = [
            self.shapes[name] for name in (*node.input, node.output[0]) if name in self.shapes
        ]
        types = self.file.types.get(node.output[0], 0)
        if kind and shapes and (self.file.is_real(node.output[0]) or types in WHOLE):
            work = max(math.prod(shape) for shape in shapes)
            self.work(node.name or node.output[0], kind, node.op_type, work, self.repeat(node))

    def work(
        self, name: str, kind: OtherKind, operation: str, elements: int, repeat: int = 1
    ) -> None:
        """Note work beside the layers, behind the last of them."""
        self.other.append(
            OtherWork(
                name=name,
                kind=kind,
                operation=operation,
                elements=elements,
                after=self.layers[-1].name if self.layers else "",
                repeat=repeat,
            )
        )

    def repeat(self, node: Any) -> int:
        """How often a node runs: as often as the loop that it was in."""
        return self.file.repeats.get(node.output[0], 1) if node.output else 1


@dataclass(frozen=True, eq=False)
class Site:
    """A node and what it stands among."""

    among: Collected
    node: Any
    position: int

    @cached_property
    def place(self) -> str:
        """Which node, in words."""
        return place_of(self.node, self.position)

    @cached_property
    def attributes(self) -> dict[str, Any]:
        """By name."""
        return {attribute.name: attribute for attribute in self.node.attribute}

    def whole(self, name: str, default: int) -> int:
        """An attribute that is a whole number."""
        return int(self.attributes[name].i) if name in self.attributes else default

    def real(self, name: str, default: float) -> float:
        """An attribute that is a real number."""
        return float(self.attributes[name].f) if name in self.attributes else default

    def text(self, name: str, default: str) -> str:
        """An attribute that is text."""
        if name not in self.attributes:
            return default
        found: str = self.attributes[name].s.decode(errors="replace")
        return found

    def fail(self, text: str) -> InputError:
        """An error about this node."""
        return self.among.file.fail(f"{self.place} {text}")

    def input(self, which: int) -> str:
        """The name of an input, or nothing where it is left out."""
        return self.node.input[which] if len(self.node.input) > which else ""

    def shape(self, value: str) -> Shape:
        """The shape of a value; refused if it is not known."""
        return self.among.constants.shape(value, self.place)

    def is_constant(self, value: str) -> bool:
        """Whether a value is constant."""
        return value in self.among.constants

    def number(self, value: str, default: float = 0.0) -> float:
        """A constant that is a single number."""
        if not value:
            return default
        constant = self.among.constants.get(value)
        if constant is None or math.prod(constant.shape) != 1:
            raise self.fail(f"must have a single constant {value!r}")
        constant.take()
        return float(constant.values().item())

    def vector(self, value: str) -> NDArray[Any]:
        """A constant of a few numbers, in one row."""
        constant = self.among.constants.get(value)
        if constant is None:
            raise self.fail(f"must have a constant {value!r}")
        constant.take()
        return constant.values().reshape(-1)

    def operand(self, value: str, arrange: Any) -> Operand:
        """A real value as a layer reads it."""
        return Operand(value, arrange, range=self.among.coded.get(value))

    def codes(self, value: str, arrange: Any, scale: str, zero: str) -> Operand:
        """A value of codes as a layer reads it; without a ``scale`` its numbers are its values."""
        kind = WHOLE.get(self.among.file.types.get(value, 0))
        if kind is None:
            raise self.fail(f"must read codes of up to 16 bits, {value!r} has none")
        if value in self.among.dynamic:
            known: Range | None = Range(*kind, None)
        elif scale:
            known = fixed(self.among.constants, kind, scale, zero)
        else:
            constant = zero and self.is_constant(zero)
            zeros = int(self.number(zero)) if constant else 0
            known = Range(*kind, 1.0, zeros) if constant or not zero else Range(*kind, None)
        return Operand(value, arrange, self.number(scale, 1.0), zero, known)

    def output(self, scale: str, zero: str, value: str) -> Range:
        """In which codes an output is written."""
        kind = WHOLE.get(self.among.file.types.get(value, 3), (8, True))
        found = fixed(self.among.constants, kind, scale, zero)
        if found is None:
            raise self.fail("must write its output with one constant scale and zero point")
        return found

    def add(
        self,
        layer: Layer,
        step: Step | None,
        tensors: Tensors | None,
        channel_axis: int | None = None,
        root: str = "",
    ) -> None:
        """Append a layer.

        Parameters
        ----------
        layer : Layer
        step : Step or None
            None: it runs inside its operation, closed to view.
        tensors : Tensors or None
            None: it has no weights.
        channel_axis : int, optional
            Where its channels are in its output; without it nothing can be folded into it.
        root : str
            The constant that its weights are, whole.
        """
        among = self.among
        if tensors is not None:
            if tensors.raw.shape != layer.weight_shape:
                raise self.fail(
                    f"has weights {list(tensors.raw.shape)}; they must be "
                    f"{list(layer.weight_shape)}"
                )
            among.tensors[layer.name] = tensors
            plain = step is not None and not step.added and step.codes is None
            if channel_axis is not None and plain:
                among.made_by[self.node.output[0]] = Behind(len(among.layers), channel_axis)
        if root:
            layer = self._shared(layer, root)
        bits = (
            {}
            if tensors is None or tensors.codes is None
            else {"weight_bits": tensors.codes.grid.bits}
        )
        right = None if step is None or step.right is None else step.right.range
        left = None if step is None else step.left.range
        bits |= {"weight_bits": right.bits} if right is not None else {}
        bits |= {"activation_bits": left.bits} if left is not None else {}
        layer = replace_layer(layer, **bits)
        times = among.repeat(self.node)
        if times > 1:
            layer = _repeated(layer, times)
        among.layers.append(layer)
        if step is None:
            among.inside[layer.name] = self.node.op_type
            return
        among.steps.append(step)
        sides = {layer.name: step.left}
        if step.right is not None:
            sides = {f"{layer.name}.left": step.left, f"{layer.name}.right": step.right}
        among.ranges |= {name: side.range for name, side in sides.items() if side.range}

    def closed(
        self,
        layer: Layer,
        weights: Constant,
        turn: Callable[[NDArray[Any]], NDArray[Any]],
        bias: NDArray[Any] | None,
        root: str = "",
    ) -> None:
        """Append a layer that runs inside its operation, with the weights that ``turn`` makes."""
        shape = layer.weight_shape
        codes = None if weights.codes is None else weights.codes.then(shape, turn)
        tensors = Tensors(weights.array.then(shape, turn), codes=codes).then(None, bias)
        self.add(layer, None, tensors, root=root)
        self.runs_whole()

    def runs_whole(self) -> None:
        """Note that the node runs as it is, whatever layers are in it."""
        if (self.position, self.node) not in self.among.nodes[-1:]:
            self.among.nodes.append((self.position, self.node))

    def activated(self, operation: str, elements: int, name: str) -> None:
        """Note an activation function within a layer's operation, which runs behind the layer."""
        from onnx import helper

        step = self.among.steps[-1]
        made, before = step.output, f"{step.output}@before"
        self.among.steps[-1] = replace(step, output=before)
        self.among.made_by.pop(made, None)
        self.among.file.types[before] = self.among.file.types.get(made) or 1
        found = self.attributes.get("activation_params")
        names = {"LeakyRelu": ["alpha"], "HardSigmoid": ["alpha", "beta"]}.get(operation, [])
        given = dict(zip(names, found.floats if found is not None else [], strict=False))
        alpha = self.attributes.get("activation_alpha")
        if alpha is not None and names:
            given.setdefault("alpha", alpha.f)
        if operation == "Clip":
            raise self.fail("clips its result, which is not supported; export it unfused")
        after = helper.make_node(operation, [before], [made], **given)
        self.among.nodes.append((self.position, after))
        self.among.work(f"{name}.{operation.lower()}", "elementwise", operation, elements,
                        self.among.repeat(self.node))  # fmt: skip

    def _shared(self, layer: Layer, root: str) -> Layer:
        """Note whose weights a layer has that another one uses too."""
        key = (self.among.constants[root].whole, layer.weight_shape)
        if key[0] is None:
            return layer
        first = self.among.weights_of.setdefault(key, layer.name)
        return layer if first == layer.name else replace_layer(layer, weights_of=first)


def replace_layer(layer: Layer, **fields: Any) -> Layer:
    """The layer with some fields changed."""
    return msgspec.structs.replace(layer, **fields)


def _repeated(layer: Layer, times: int) -> Layer:
    return replace_layer(layer, repeat=layer.repeat * times, steps=layer.steps * times)


def per_output(values: NDArray[Any], outputs: int) -> NDArray[np.float64]:
    """One number for each output of one for each, or one for all."""
    return np.broadcast_to(values.astype(np.float64).reshape(-1), outputs)
