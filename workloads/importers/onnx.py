"""Import a network from an ONNX file: shapes, weights and codes, nothing executed.

Each operation that multiplies and accumulates has a handler, which makes layers of it
(:data:`HANDLERS`): convolutions, matrix products, recurrent layers, attention, and all of these on
quantized numbers. A product with a constant becomes a
:class:`~sparqsim.workloads.layers.Linear`, one with a stack of constants that each serve an input
of their own a grouped convolution of one column; a product of two activations a
:class:`~sparqsim.workloads.layers.MatMul`. Operands that broadcast are counted once
(:mod:`sparqsim.workloads.importers.products`), and so are tensors that several layers use. A
constant stays one behind ``Cast``, ``Transpose``, ``Reshape``, ``Slice``, ``Concat`` and arithmetic
with other constants. Per-channel affine operations behind a layer are folded into it. What does no
MACs is listed (:mod:`sparqsim.workloads.importers.onnx_operators`); the rest is refused by name.

A layer is called after its parameters where they have a name like torch's (``conv1.weight``), else
after the module that torch's exporter notes, else after its node. What is checked before:
:mod:`sparqsim.workloads.importers.onnx_file`; how the network runs:
:mod:`sparqsim.workloads.importers.onnx_run`. Source: the ONNX operator specification. Needs the
extra ``onnx``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from sparqsim.base import InputError
from sparqsim.workloads.importers import Imported, ImportReport, with_layers
from sparqsim.workloads.importers.onnx_attention import FUSED
from sparqsim.workloads.importers.onnx_codes import QUANTIZED, range_of
from sparqsim.workloads.importers.onnx_file import ModelFile, Shape, place_of
from sparqsim.workloads.importers.onnx_graph import Graph
from sparqsim.workloads.importers.onnx_layers import LAYERS
from sparqsim.workloads.importers.onnx_operators import (
    KEEPING,
    MICROSOFT,
    QONNX,
    STANDARD,
    UNKNOWN,
    is_passive,
)
from sparqsim.workloads.importers.onnx_quantized import QUANTIZED_LAYERS
from sparqsim.workloads.importers.onnx_recurrent import RECURRENT
from sparqsim.workloads.importers.onnx_site import Collected, Site
from sparqsim.workloads.layers import MatMul

SHOWN = 3  # of many, in a note
# A handler says whether it took its node in; else the node is one without MACs.
HANDLERS: dict[tuple[str, str], Callable[[Site], bool]] = {
    **LAYERS,
    **QUANTIZED_LAYERS,
    **RECURRENT,
    **FUSED,
}


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


class _Importer(Collected):
    """Reads a graph node by node."""

    def run(self) -> Imported:
        file = self.file
        self._refuse()
        for position, node in file.order:
            self._visit(node, position)
        other = self.constants.left_over()
        model = with_layers(file.name, self.source, self.layers, other, tuple(self.other))
        return Imported(
            model,
            {} if file.missing else self.tensors,
            dict(self.left_out),
            {step.layer: self._cut(step.output) for step in self.steps},
            self.ranges,
            tuple(file.missing),
            self._report(),
            Graph(file, tuple(self.steps), tuple(self.nodes), self.tables, self.inside),
        )

    def _report(self) -> ImportReport:
        shared = [each for each in self.layers if each.weights_of]
        notes = [f"{each.name} has the weights of {each.weights_of}" for each in shared[:SHOWN]]
        if len(shared) > SHOWN:
            notes.append(f"and so do {len(shared) - SHOWN} more layers with those of others")
        if self.inside:
            kinds = ", ".join(dict.fromkeys(self.inside.values()))
            notes.append(
                f"{len(self.inside)} layers run inside {kinds}: what they read is not seen, so "
                "their inputs are synthetic and a recipe is not judged in them"
            )
        if self.file.counted:
            notes.append(
                f"control flow is written out, so the network is counted and not run "
                f"({', '.join(self.file.counted[:SHOWN])})"
            )
        coded = [name for name, held in self.tensors.items() if held.codes is not None]
        if coded:
            notes.append(f"{len(coded)} layers come with codes, which run as they are")
        if self.file.missing:
            notes.append(f"values that are not there: {', '.join(self.file.missing[:SHOWN])}")
        return ImportReport(
            taken={name: count for name, count in self.took.items() if count},
            merged=dict(self.merged),
            folded=dict(self.folded),
            passed=dict(self.left_out),
            notes=tuple(notes),
        )

    def _refuse(self) -> None:
        """Refuse a graph with operations that are not known, all of them at once."""
        unknown = [
            (position, node)
            for position, node in self.file.order
            if (("" if node.domain in STANDARD else node.domain), node.op_type) not in HANDLERS
            and not is_passive("" if node.domain in STANDARD else node.domain, node.op_type)
        ]
        if not unknown:
            return
        position, node = unknown[0]
        domain = "" if node.domain in STANDARD else node.domain
        text = _unknown(domain, node.op_type, place_of(node, position))
        others = Counter(each.op_type for _, each in unknown if each.op_type != node.op_type)
        if others:
            listed = ", ".join(f"{count} {name!r}" for name, count in others.items())
            text += f"; nor are {listed}"
        raise self.file.fail(text)

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

    def _visit(self, node: Any, position: int) -> None:
        place = place_of(node, position)
        try:
            self._interpret(node, position, place)
        except InputError as error:
            if str(error).startswith(self.source):
                raise
            raise self.file.fail(f"{place}: {error}") from None
        except (IndexError, ValueError):  # what a node lacks that is none
            raise self.file.fail(
                f"{place} lacks an input or output, or has one of another shape than its operation "
                "reads"
            ) from None

    def _interpret(self, node: Any, position: int, place: str) -> None:
        domain = "" if node.domain in STANDARD else node.domain
        handler = HANDLERS.get((domain, node.op_type))
        if handler is not None:
            site = Site(self, node, position)
            layers = len(self.layers)
            if handler(site):
                self.took[node.op_type] += len(self.layers) > layers
                return
        if self.constants.fold(node, place):
            self.folded[node.op_type] += 1
            self.nodes.append((position, node))  # another node may still read it
        elif self._fold_affine(node, place):
            self.merged[node.op_type] += 1
        else:
            self.left_out[node.op_type] += 1
            self.nodes.append((position, node))
            self.note_other(node)
            self._note_table(node)
            self._note_codes(node)

    def _note_codes(self, node: Any) -> None:
        """Note what the codes behind a value stand for."""
        if node.op_type == "DynamicQuantizeLinear":
            self.dynamic.add(node.output[0])
        elif node.op_type in QUANTIZED:
            attributes = {attribute.name: attribute for attribute in node.attribute}
            found = range_of(self.constants, node, attributes, self.dynamic)
            if found is not None:
                self.coded[node.output[0]] = found
        elif node.op_type in KEEPING:
            if node.input[0] in self.coded:
                self.coded |= dict.fromkeys(node.output, self.coded[node.input[0]])
            if node.input[0] in self.dynamic:
                self.dynamic.update(node.output)

    def _note_table(self, node: Any) -> None:
        """Note a constant whose rows are looked up by numbers that are not constant."""
        if node.op_type != "Gather" or node.input[0] not in self.file.initializers:
            return
        constant = self.constants[node.input[0]]
        along = next((a.i for a in node.attribute if a.name == "axis"), 0)
        if constant.floating and len(constant.shape) == 2 and along == 0:
            self.tables[node.input[0]] = node.input[0]

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
        held = self.tensors[layer.name]
        if held.codes is not None and scale is not None and not (scale > 0).all():
            return False  # codes have positive scales
        folded = held.then(scale, shift)
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
            raise self.file.fail(f"{place}: its variance must be positive in every channel")
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


def _unknown(domain: str, operation: str, place: str) -> str:
    """Say why an operation is not taken, and nothing more."""
    if domain and domain not in (MICROSOFT, *QONNX):
        return f"{place} is of the domain {domain!r}; export with standard operators only"
    if operation in UNKNOWN:
        return f"{place} is not supported: {UNKNOWN[operation]}; cut the network before it"
    return (
        f"{place} is not an operation that is known here; export the network in terms of ONNX's own"
    )
