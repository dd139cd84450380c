"""Run an imported ONNX network node by node, with its products open to view.

The layers are computed here, in float32, by the one definition of a layer's output
(:meth:`~sparqsim.workloads.tensors.LayerTensors.output`), with their folded weights or with others;
what stands between them is cut into pieces that onnxruntime runs where it is installed, and ONNX's
own reference evaluator elsewhere. So what a product reads can be shown to ``see`` on the way, and
replaced: one door for capturing activations and for quantizing them, as the other trained networks
have it (:mod:`sparqsim.workloads.models.real`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparqsim.base import InputError
from sparqsim.workloads.importers import Imported, Range
from sparqsim.workloads.importers.onnx_file import place_of
from sparqsim.workloads.importers.onnx_graph import Operand, Step
from sparqsim.workloads.importers.onnx_inputs import LABELS, Samples, Values
from sparqsim.workloads.layers import Layer
from sparqsim.workloads.models.real import See, Subject
from sparqsim.workloads.quantize import fit, sqnr_db
from sparqsim.workloads.tensors import LayerTensors

Array = NDArray[np.float32]
MOST_AT_ONCE = 2**30  # assumed, elements: a value of one run, 4 GiB in float32


@dataclass(frozen=True, eq=False)
class _Piece:
    """Nodes between layers that run together.

    Attributes
    ----------
    run : callable
        Maps values by name to those that later pieces and layers read.
    reads, makes : tuple of str
    """

    run: Callable[[Values], Values]
    reads: tuple[str, ...]
    makes: tuple[str, ...]


class Runner:
    """A network ready to run.

    Parameters
    ----------
    imported : Imported
        From an ONNX file with its weights at hand.
    weights : Weights, optional
        Its weights, where they are held already.

    Raises
    ------
    InputError
        If a value of one run would be too large.
    """

    def __init__(self, imported: Imported, weights: Weights | None = None) -> None:
        self.imported, self.graph = imported, imported.graph
        self.file = self.graph.file
        if self.file.counted:
            raise self.file.fail(
                f"{self.file.counted[0]!r} is control flow: such a network is counted, not run"
            )
        self.layers: dict[str, Layer] = {layer.name: layer for layer in imported.model.layers}
        for name, shape in self.file.shapes.items():
            if np.prod(shape, dtype=float) > MOST_AT_ONCE:
                raise self.file.fail(
                    f"value {name!r} of shape {list(shape)} is too large to be run; give smaller "
                    "sizes"
                )
        self.pieces = self._cut()
        self.last = self._last_reads()
        self.weights: Mapping[str, Array] = Weights(imported) if weights is None else weights
        self.biases = _biases(imported)

    def _cut(self) -> list[_Piece]:
        """Return the piece before each layer, and the one before the end."""
        nodes_in_order = [node for _, node in self.graph.nodes]
        maker = {
            name: (at, node)
            for at, node in enumerate(nodes_in_order)
            for name in node.output
            if name
        }
        steps: list[Step] = list(self.graph.steps)
        wanted = [_reads(step) for step in steps] + [tuple(self.file.outputs)]
        made_by_layers = {step.output for step in steps}
        done: set[str] = set()
        nodes: list[list[tuple[int, Any]]] = []
        for targets in wanted:
            needed = _behind(targets, maker, done | made_by_layers)
            done |= {name for _, node in needed for name in node.output}
            nodes.append(needed)
        pieces = []
        for place, needed in enumerate(nodes):
            later = {name for targets in wanted[place:] for name in targets}
            later |= {n for each in nodes[place + 1 :] for _, node in each for n in node.input}
            own = {name for _, node in needed for name in node.output if name}
            pieces.append(self._piece(needed, own, tuple(sorted(own & later))))
        return pieces

    def _piece(
        self, needed: list[tuple[int, Any]], own: set[str], makes: tuple[str, ...]
    ) -> _Piece:
        read = {name for _, node in needed for name in node.input if name} - own
        tables = set(self.graph.tables.values())
        constants = {name for name in read if name in self.file.initializers} - tables
        reads = tuple(sorted(read - constants))
        if not makes:
            return _Piece(lambda _: {}, (), ())

        @cache
        def evaluator() -> Callable[[Values], Values]:
            return self._evaluator(needed, reads, makes, constants)

        return _Piece(lambda values: evaluator()(values), reads, makes)

    def _evaluator(
        self,
        needed: list[tuple[int, Any]],
        reads: tuple[str, ...],
        makes: tuple[str, ...],
        constants: set[str],
    ) -> Callable[[Values], Values]:
        """Return what runs some nodes: onnxruntime, or ONNX's reference."""
        from onnx import ValueInfoProto, helper, numpy_helper

        types = self.file.types
        inputs = [helper.make_tensor_value_info(name, types.get(name) or 1, None) for name in reads]
        outputs = [ValueInfoProto(name=name) for name in makes]
        held = [
            numpy_helper.from_array(
                np.asarray(self.file.read(f"tensor {name!r}", self.file.initializers[name])), name
            )
            for name in sorted(constants)
        ]
        nodes, (position, first) = [node for _, node in needed], needed[0]
        graph = helper.make_graph(nodes, "piece", inputs, outputs, held)
        model = helper.make_model(
            graph, opset_imports=self.file.model.opset_import, ir_version=self._version()
        )
        names = list(makes)

        def guarded(work: Callable[[], Any]) -> Any:
            try:
                return work()
            except Exception as error:  # whatever a nonsensical graph makes them raise
                line = (str(error).strip().splitlines() or ["no reason given"])[0]
                raise self.file.fail(
                    f"{place_of(first, position)} and what follows it cannot run: {line}"
                ) from None

        run = guarded(lambda: _with_onnxruntime(model) or _with_reference(model))
        return lambda values: dict(zip(names, guarded(lambda: run(names, values)), strict=True))

    def _version(self) -> int:
        version: int = self.file.model.ir_version
        return version

    def run(
        self,
        feeds: Values,
        weights: Mapping[str, Array] | None = None,
        see: See | None = None,
    ) -> Values:
        """Run once.

        Parameters
        ----------
        feeds : mapping of str to array
            The inputs.
        weights : mapping, optional
            Weights that replace the network's own, by name; the others stay.
        see : callable, optional
            Called as ``see(layer, operand)`` before each layer with the input in the layer's
            shape; for a product of two activations as ``see("NAME.left", ...)`` with
            ``[batch, m, k]`` and ``see("NAME.right", ...)`` with ``[batch, n, k]``. What it
            returns, unless None, is used instead.

        Returns
        -------
        dict of str to array
            The outputs.
        """
        replaced = weights or {}
        values: Values = dict(feeds)
        for name, value in self.graph.tables.items():
            table = replaced[name] if name in replaced else self.weights[name]
            values[value] = np.asarray(table).astype(self._dtype(value), copy=False)
        for place, piece in enumerate(self.pieces):
            values |= piece.run({name: values[name] for name in piece.reads})
            if place < len(self.graph.steps):
                step = self.graph.steps[place]
                values[step.output] = self._computed(step, values, replaced, see)
            for name in self.last.get(place, ()):
                values.pop(name, None)
        return {name: self._value(name, values) for name in self.file.outputs}

    def _last_reads(self) -> dict[int, list[str]]:
        """Return which values nobody reads after each piece and its layer."""
        last: dict[str, int] = {}
        for place, piece in enumerate(self.pieces):
            reads = [*piece.reads, *piece.makes]
            if place < len(self.graph.steps):
                step = self.graph.steps[place]
                reads += [*_reads(step), step.output]
            last |= dict.fromkeys(reads, place)
        found: dict[int, list[str]] = {}
        for name, place in last.items():
            if name not in self.file.outputs:
                found.setdefault(place, []).append(name)
        return found

    def _value(self, name: str, values: Values) -> NDArray[Any]:
        if name in values:
            return values[name]
        return self.file.read(f"tensor {name!r}", self.file.initializers[name])

    def _computed(
        self,
        step: Step,
        values: Values,
        replaced: Mapping[str, Array],
        see: See | None,
    ) -> NDArray[Any]:
        layer = self.layers[step.layer]

        def shown(name: str, operand: Operand) -> Array:
            x = operand.arrange(self._value(operand.value, values)).astype(np.float32, copy=False)
            x = self._real(operand, x, values)
            seen = None if see is None else see(name, x)
            return x if seen is None else np.asarray(seen, np.float32).reshape(x.shape)

        if step.right is not None:
            left, right = (
                shown(f"{layer.name}.left", step.left),
                shown(f"{layer.name}.right", step.right),
            )
        else:
            left = shown(layer.name, step.left)
            right = replaced[layer.name] if layer.name in replaced else self.weights[layer.name]
        made = LayerTensors(
            layer=layer,
            weight=right,
            activation=left,
            bias=self.biases.get(layer.name),
            relu=False,
        ).output()
        made = made if step.scale == 1.0 else made * np.float32(step.scale)
        result = step.result.undone(made, step.shape)
        if step.added:
            result = result + np.float32(step.factor) * self._value(step.added, values)
        dtype = self._dtype(step.output)
        if step.codes is not None:
            result = _coded(result, step.codes)
        elif dtype.kind in "iu":
            result = np.rint(result)
        return result.astype(dtype, copy=False)

    def _real(self, operand: Operand, x: Array, values: Values) -> Array:
        """What codes stand for; what the operation itself rounds in each run is rounded here."""
        if operand.zero:
            x = x - np.float32(self._value(operand.zero, values).reshape(-1)[0])
        elif operand.finds:
            return fit(x, "int8_unsigned", asymmetric=True).round(x)
        return x if operand.scale == 1.0 else (x * np.float32(operand.scale)).astype(np.float32)

    def _dtype(self, name: str) -> np.dtype[Any]:
        from onnx import helper

        return np.dtype(helper.tensor_dtype_to_np_dtype(self.file.types.get(name) or 1))

    def operands(self, feeds: Values) -> Values:
        """Return what each product reads in one run, by the names that `run` shows."""
        kept: Values = {}

        def keep(name: str, operand: Array) -> None:
            kept[name] = operand

        self.run(feeds, see=keep)
        return kept


def _coded(x: NDArray[Any], codes: Range) -> NDArray[Any]:
    """Real numbers as codes with a fixed scale."""
    low = -(1 << codes.bits - 1) if codes.signed else 0
    found = np.rint(x / np.float32(codes.scale or 1.0)) + codes.zero
    return np.clip(found, low, low + (1 << codes.bits) - 1)


def _reads(step: Step) -> tuple[str, ...]:
    sides = [step.left] if step.right is None else [step.left, step.right]
    names = [*(side.value for side in sides), *(side.zero for side in sides), step.added]
    return tuple(name for name in names if name)


def _behind(
    targets: tuple[str, ...], maker: Mapping[str, tuple[int, Any]], known: set[str]
) -> list[tuple[int, Any]]:
    """Return the nodes that the targets need beside what is known, in their order."""
    needed: dict[int, tuple[int, Any]] = {}
    waiting = list(targets)
    while waiting:
        name = waiting.pop()
        if name in known or name not in maker or maker[name][0] in needed:
            continue
        at, node = maker[name]
        needed[at] = (at, node)
        waiting += [source for source in node.input if source]
    return [needed[at] for at in sorted(needed)]


def _with_onnxruntime(model: Any) -> Callable[[list[str], Values], list[Any]] | None:
    try:
        import onnxruntime
    except ImportError:
        return None
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what it cannot do, the reference may
    try:
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
    except Exception:  # an operation, a type or a version that it lacks
        return None

    def run(names: list[str], values: Values) -> list[Any]:
        made: list[Any] = session.run(names, values)
        return made

    return run


def _with_reference(model: Any) -> Callable[[list[str], Values], list[Any]]:
    from onnx.reference import ReferenceEvaluator

    from sparqsim.workloads.importers.onnx_codes import operators

    used = {node.domain for node in model.graph.node}
    mine = [each for each in operators() if each.op_domain in used]
    evaluator = ReferenceEvaluator(model, new_ops=mine)

    def run(names: list[str], values: Values) -> list[Any]:
        made: list[Any] = evaluator.run(names, values)
        return made

    return run


class Weights(Mapping[str, Array]):
    """The folded weights of layers and tables by name, made when they are first asked for.

    Those of layers that run inside an operation are not among them: others cannot be put there.
    """

    def __init__(self, imported: Imported) -> None:
        self.imported = imported
        inside = imported.graph.inside
        layers = [name for name in imported.tensors if name not in inside]
        self.names = [*layers, *imported.graph.tables]
        self.made: dict[str, Array] = {}

    def __getitem__(self, name: str) -> Array:
        if name not in self.names:
            raise KeyError(name)
        if name not in self.made:
            self.made[name] = self._make(name)
        return self.made[name]

    def _make(self, name: str) -> Array:
        if name in self.imported.tensors:
            return self.imported.weights(name)
        file = self.imported.graph.file
        value = self.imported.graph.tables[name]
        table: Array = file.read(f"tensor {value!r}", file.initializers[value]).astype(np.float32)
        return table

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


class Closed(Mapping[str, Array]):
    """The folded weights of layers that run inside an operation, by name."""

    def __init__(self, imported: Imported) -> None:
        self.imported = imported
        self.names = [name for name in imported.tensors if name in imported.graph.inside]

    def __getitem__(self, name: str) -> Array:
        if name not in self.names:
            raise KeyError(name)
        return self.imported.weights(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


# -- what a recipe is tried on --------------------------------------------------------------------


def subject_of(
    imported: Imported, calibration: Samples | None = None, judged: Samples | None = None
) -> Subject:
    """Return an imported network as something that a recipe is tried on.

    Parameters
    ----------
    imported : Imported
        From an ONNX file with its weights at hand.
    calibration, judged : Samples, optional
        Inputs on which ranges are found, and on which the network is judged. Without them
        ``capture`` and ``judge`` raise an :class:`InputError`.

    Returns
    -------
    Subject
        Its measures are, beside the float32 network: ``SQNR of outputs, dB`` (named if there are
        several; absent where nothing differs); where an output is ``[samples, classes]``,
        ``top-1 as float32``, and ``accuracy`` where there are labels.
    """
    name, weights = imported.model.name, Weights(imported)
    run = cache(lambda: Runner(imported, weights))

    @cache
    def reference() -> Values:
        return _outputs(run(), _given(judged, name), None, None)

    def judge(used: Mapping[str, Array] | None, see: See | None) -> dict[str, float]:
        samples = _given(judged, name)
        changed = used is not None or see is not None
        found = _outputs(run(), samples, used, see) if changed else reference()
        return measures(found, reference(), samples.labels, name)

    def inputs(*_: int) -> Values:
        return run().operands(next(_given(judged, name).feeds()))

    return Subject(
        name=name,
        source=imported.model.source,
        layers=imported.model.layers,
        weights=weights,
        tables=frozenset(imported.graph.tables),
        capture=lambda: _captured(run(), _given(calibration, name)),
        judge=judge,
        biases=_biases(imported),
        relus=imported.relus,
        inputs=None if judged is None else inputs,
    )


def _biases(imported: Imported) -> dict[str, Array]:
    found = {name: imported.bias(name) for name in imported.tensors}
    return {name: bias for name, bias in found.items() if bias is not None}


def _given(samples: Samples | None, name: str) -> Samples:
    if samples is None:
        raise InputError(f"{name} comes without inputs; give --calibration FILE.npz")
    return samples


def _captured(runner: Runner, samples: Samples) -> Values:
    """Return what each product reads in all runs; products that read the same share an array."""
    kept: dict[str, list[NDArray[Any]]] = {}
    for feeds in samples.feeds():
        for name, operand in runner.operands(feeds).items():
            kept.setdefault(name, []).append(operand)
    shared: dict[Any, NDArray[Any]] = {}
    found: Values = {}
    for step in runner.graph.steps:
        parts = {f"{step.layer}.left": step.left, f"{step.layer}.right": step.right}
        if step.right is None:
            parts = {step.layer: step.left}
        for name, operand in parts.items():
            if operand not in shared:
                shared[operand] = np.concatenate(kept[name])
            del kept[name]
            found[name] = shared[operand]
    return found


def _outputs(
    runner: Runner, samples: Samples, weights: Mapping[str, Array] | None, see: See | None
) -> Values:
    """Return the real outputs of all runs, one behind the other."""
    made = [runner.run(feeds, weights, see) for feeds in samples.feeds()]
    real = [name for name, array in made[0].items() if array.dtype.kind not in "biuSUO"]
    if not real:
        raise InputError(f"{runner.imported.model.name} has no output of floating point to judge")
    return {name: np.concatenate([np.atleast_1d(each[name]) for each in made]) for name in real}


def measures(
    found: Values, reference: Values, labels: NDArray[np.int64] | None, name: str
) -> dict[str, float]:
    """Return how far outputs are from the float32 network's; see :func:`subject_of`.

    Raises
    ------
    InputError
        If there are labels and no output has a row a label, or a label is no class.
    """
    result: dict[str, float] = {}
    for output, array in found.items():
        ratio = sqnr_db(reference[output], array)
        if ratio == -np.inf:
            raise InputError(f"{name}: the output {output!r} is all 0 in float32; nothing to judge")
        if ratio != np.inf:
            of = "outputs" if len(found) == 1 else output
            result[f"SQNR of {of}, dB"] = float(ratio)
    rows = None if labels is None else len(labels)
    logits = next(
        (n for n, a in found.items() if a.ndim == 2 and a.shape[1] > 1 and rows in (None, len(a))),
        None,
    )
    if labels is not None and (logits is None or not _are_classes(labels, found[logits])):
        raise InputError(
            f"{name} has no output [samples, classes] that suits the labels, {labels.min()} to "
            f"{labels.max()}; leave {LABELS} out"
        )
    if logits is not None:
        chosen = found[logits].argmax(axis=1)
        result["top-1 as float32"] = float(np.mean(chosen == reference[logits].argmax(axis=1)))
        if labels is not None:
            result["accuracy"] = float(np.mean(chosen == labels))
    return result


def _are_classes(labels: NDArray[np.int64], logits: NDArray[Any]) -> bool:
    return bool(labels.min() >= 0 and labels.max() < logits.shape[1])
