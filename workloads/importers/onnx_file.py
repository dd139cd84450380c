"""An ONNX file as data from outside: what is unsafe is refused before anything is interpreted.

It must have no functions, no cycle, no control flow whose course depends on data
(:mod:`sparqsim.workloads.importers.onnx_control`), and known, sane sizes
(:mod:`sparqsim.workloads.importers.onnx_inference`). A size left open (a batch ``N``) is given by
the caller, and so is the value of an input that is a single whole number. Weights may lie in other
files beside the model, never elsewhere: no path upwards, no link out. They are read when they are
asked for, and only then.

Source: the ONNX specification (IR, operators, external data).
"""

from __future__ import annotations

import heapq
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparqsim.base import InputError
from sparqsim.workloads.importers import MOST_ELEMENTS
from sparqsim.workloads.importers.onnx_control import CONTROL_FLOW, Unfolding, bodies, reads
from sparqsim.workloads.importers.onnx_inference import Inference
from sparqsim.workloads.importers.onnx_operators import STANDARD

MOST_AXES = 32  # numpy's limit before version 2
REAL = (1, 10, 11, 16)  # ONNX's numbers of float32, float16, double and bfloat16, ...
WHOLE_NUMBERS = (2, 3, 4, 5, 6, 7, 9, 12, 13)  # ... of integers and truth values
Shape = tuple[int, ...]


def load_model(path: Path) -> Any:
    """Return the parsed file, without the values that lie in others.

    Raises
    ------
    InputError
        If it cannot be read or is no ONNX model, or the extra ``onnx`` is not installed.
    """
    try:
        import onnx
    except ImportError:
        raise InputError(
            "reading ONNX needs the package onnx; pip install 'sparqsim[onnx]'"
        ) from None
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
    place = not_text(model)
    if place is not None:
        raise InputError(f"{path}: {place} is no text in UTF-8; export or copy it again")
    return model


def not_text(message: Any, path: str = "") -> str | None:
    """Return the first string field that is no UTF-8, which protobuf hands out as bytes; or None.

    Fields of bytes and of numbers are left alone: they hold the weights.
    """
    for field in message.DESCRIPTOR.fields:
        of_text = field.type == field.TYPE_STRING
        if not of_text and field.type != field.TYPE_MESSAGE:
            continue
        value = getattr(message, field.name)
        alone = isinstance(value, str | bytes) or hasattr(value, "DESCRIPTOR")
        if alone and not of_text and not message.HasField(field.name):
            continue
        for index, each in enumerate([value] if alone else value):
            place = f"{path}{field.name}" + ("" if alone else f"[{index}]")
            found = place if isinstance(each, bytes) else None
            if not of_text:
                found = not_text(each, f"{place}.")
            if found is not None:
                return found
    return None


def place_of(node: Any, position: int) -> str:
    """Say which node: its name if it has one, its operation, its position."""
    name = f" {node.name!r}" if node.name else ""
    output = f" making {node.output[0]!r}" if node.output else ""
    return f"node {position}{name} ({node.op_type}{output})"


def one_node(node: Any, opsets: Any) -> Any:
    """Return ONNX's reference evaluator of a single node, whose inputs are the graph's."""
    from onnx import ValueInfoProto, helper
    from onnx.reference import ReferenceEvaluator

    inputs = [ValueInfoProto(name=name) for name in dict.fromkeys(filter(None, node.input))]
    outputs = [ValueInfoProto(name=name) for name in filter(None, node.output)]
    graph = helper.make_graph([node], "one", inputs, outputs)
    return ReferenceEvaluator(helper.make_model(graph, opset_imports=opsets))


class ModelFile:
    """A model that may be interpreted: sorted, with the shape of every value that is known.

    Parameters
    ----------
    path : Path
    sizes : mapping
        Those left open: by their name, as ``input:axis``, or all of an input as a tuple.
    batch : int, optional
        The first size of every input, where it is left open.
    like : mapping of str to shape, optional
        Arrays that will be fed, by input: what else is left open follows them.

    Attributes
    ----------
    order : list of (position in the file, node)
        Each after what it reads, and otherwise in the file's order.
    inputs : dict of str to (shape, element type)
        Those to be fed, not initializers.
    outputs : list of str
    initializers : dict of str to TensorProto
    shapes : dict of str to shape
        Of every value whose shape is known.
    types : dict of str to int
        Element types, as ONNX numbers them.
    sizes : dict of str to array
        Small values computed from shapes alone.
    missing : list of str
        Files beside the model that it names and that are not there.
    repeats : dict of str to int
        How often the nodes of a loop run, by the values that they make.
    counted : list of str
        Nodes of control flow for which the graph can be counted but not run.
    """

    def __init__(
        self,
        path: Path,
        sizes: Mapping[str, int | Shape],
        batch: int | None = None,
        like: Mapping[str, Shape] | None = None,
    ) -> None:
        self.name, self.source = path.stem, f"ONNX file {path.name}"
        self.folder = path.parent.resolve()
        self.missing: list[str] = []
        self.repeats: dict[str, int] = {}
        self.model = load_model(path)
        self._refuse_what_is_unsafe()
        graph = self.model.graph
        self.initializers = {tensor.name: tensor for tensor in graph.initializer}
        self.order = self._sorted()
        self._bind(dict(sizes), batch, like)
        self.outputs = [value.name for value in graph.output]
        self.counted: list[str] = []
        self._infer()
        self._unfold()
        self.inputs = {
            value.name: (self.shapes.get(value.name), value.type.tensor_type.elem_type)
            for value in self.fed()
        }

    def is_real(self, value: str) -> bool:
        """Whether a value is of floating point."""
        return self.types.get(value) in REAL

    def fail(self, text: str) -> InputError:
        """Return an error about this file."""
        return InputError(f"{self.source}: {text}")

    def fed(self) -> Iterator[Any]:
        """The inputs that are no constants."""
        for value in self.model.graph.input:
            if value.name not in self.initializers:
                yield value

    # -- checks before anything is interpreted --------------------------------------------------

    def _refuse_what_is_unsafe(self) -> None:
        graph = self.model.graph
        if self.model.functions:
            raise self.fail(
                f"it defines functions ({self.model.functions[0].name!r} first); inline them with "
                "onnx.inliner.inline_local_functions and save it again"
            )
        if graph.sparse_initializer:
            raise self.fail("it has sparse initializers; save its weights dense")
        tensors = [(f"initializer {tensor.name!r}", tensor) for tensor in graph.initializer]
        for position, node in enumerate(graph.node):
            tensors += self._tensors_of(node, place_of(node, position))
        for what, tensor in tensors:
            self.sane(what, tuple(tensor.dims))
            if tensor.data_location or tensor.external_data:
                self._outside(what, tensor)

    def _tensors_of(self, node: Any, place: str) -> list[tuple[str, Any]]:
        """The tensors of a node, those of graphs within it included."""
        found = [(place, each.t) for each in node.attribute if each.HasField("t")]
        for body in bodies(node):
            if node.op_type not in CONTROL_FLOW or node.domain not in STANDARD:
                raise self.fail(
                    f"{place} holds a graph, whose work depends on data; export the network "
                    "with it unrolled"
                )
            if body.sparse_initializer:
                raise self.fail(f"{place} has sparse initializers; save its weights dense")
            found += [(f"initializer {each.name!r} of {place}", each) for each in body.initializer]
            for each in body.node:
                found += self._tensors_of(each, place)
        return found

    def sane(self, what: str, shape: Shape) -> Shape:
        """Return a shape if numpy and memory could hold it."""
        shape = tuple(int(size) for size in shape)
        if len(shape) > MOST_AXES:
            raise self.fail(f"{what} must have at most {MOST_AXES} axes, got {len(shape)}")
        if min(shape, default=0) < 0 or math.prod(max(n, 1) for n in shape) > MOST_ELEMENTS:
            raise self.fail(
                f"{what} has shape {list(shape)}; sizes must be at least 0 and their product at "
                f"most {MOST_ELEMENTS}"
            )
        return shape

    def _sorted(self) -> list[tuple[int, Any]]:
        """Nodes so that each follows what it reads, and otherwise in the file's order."""
        graph = self.model.graph
        nodes = list(enumerate(graph.node))
        maker: dict[str, int] = {}
        known = {value.name for value in graph.input} | set(self.initializers)
        for position, node in nodes:
            for output in filter(None, node.output):
                if output in maker or output in known:
                    raise self.fail(f"{place_of(node, position)}: {output!r} is made twice")
                maker[output] = position
        waiting: dict[int, int] = {}
        readers: dict[int, list[int]] = {}
        for position, node in nodes:
            sources = set()
            for value in sorted(reads(node)):
                if value in maker:
                    sources.add(maker[value])
                elif value not in known:
                    raise self.fail(
                        f"{place_of(node, position)} reads {value!r}, which nothing makes"
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
            raise self.fail(f"{place_of(node, position)} waits for its own output: a cycle")
        return order

    # -- values that lie elsewhere ---------------------------------------------------------------

    def _outside(self, what: str, tensor: Any) -> tuple[Path, int] | None:
        """Return (file, offset) of values in another file; None, and noted, if it is not there.

        Raises
        ------
        InputError
            If it does not lie in the model's folder, or is too short for the tensor.
        """
        entries = {entry.key: entry.value for entry in tensor.external_data}
        location = entries.get("location", "")
        posix, windows = PurePosixPath(location), PureWindowsPath(location)
        upwards = ".." in (*posix.parts, *windows.parts)
        rooted = posix.is_absolute() or bool(windows.anchor)
        if not location or "\0" in location or upwards or rooted:
            raise self.fail(
                f"{what} keeps its values in another file, {location!r}, which must lie in the "
                "model's folder; save the model with its weights inside or beside it"
            )
        path = (self.folder / location).resolve()
        if not path.is_relative_to(self.folder):
            raise self.fail(
                f"{what} keeps its values in another file, {location!r}, which is a link that "
                "leads out of the model's folder; copy the file there"
            )
        if not os.path.exists(path):
            if location not in self.missing:
                self.missing.append(location)
            return None
        try:
            offset = int(entries.get("offset") or 0)
            length = int(entries.get("length") or self._bytes(what, tensor))
        except ValueError:
            raise self.fail(
                f"{what}: its offset and length in {location!r} must be whole"
            ) from None
        wanted = self._bytes(what, tensor)
        if length != wanted or offset < 0 or not os.path.isfile(path):
            raise self.fail(f"{what} must have {wanted} bytes in {location!r}, got {length}")
        if offset + length > path.stat().st_size:
            raise self.fail(
                f"{what} ends at byte {offset + length} of {location!r}, which has only "
                f"{path.stat().st_size}; copy that file again"
            )
        return path, offset

    def is_there(self, what: str, tensor: Any) -> bool:
        """Whether the values of a tensor can be read: in the file, or in one beside it."""
        outside = tensor.data_location or tensor.external_data
        return not outside or self._outside(what, tensor) is not None

    def _dtype(self, what: str, tensor: Any) -> np.dtype[Any]:
        from onnx import helper

        try:
            dtype = helper.tensor_dtype_to_np_dtype(tensor.data_type)
        except (KeyError, ValueError, TypeError):
            raise self.fail(f"{what} is of an unknown type, {tensor.data_type}") from None
        return np.dtype(dtype)

    def _bytes(self, what: str, tensor: Any) -> int:
        return math.prod(tensor.dims) * self._dtype(what, tensor).itemsize

    def read(self, what: str, tensor: Any) -> NDArray[Any]:
        """Return the values of a tensor; those in another file are mapped, not copied.

        Raises
        ------
        InputError
            If they are not there, or are not what the shape asks for.
        """
        from onnx import numpy_helper

        if tensor.data_location or tensor.external_data:
            found = self._outside(what, tensor)
            if found is None:
                raise self.fail(
                    f"the values of {what} lie in {self.missing[0]!r}, which is not beside it"
                )
            dtype, shape = self._dtype(what, tensor), tuple(tensor.dims)
            if math.prod(shape) == 0:
                return np.zeros(shape, dtype)
            return np.memmap(found[0], dtype, "r", found[1], shape)
        try:
            array: NDArray[Any] = numpy_helper.to_array(tensor)
        except Exception:  # too short, of an unknown type, ...: onnx raises several types here
            raise self.fail(
                f"{what} does not hold the values its shape {list(tensor.dims)} asks for"
            ) from None
        return array

    # -- shapes ----------------------------------------------------------------------------------

    def _bind(
        self, given: dict[str, int | Shape], batch: int | None, like: Mapping[str, Shape] | None
    ) -> None:
        """Write sizes over those that the graph's inputs leave open."""
        unused = set(given)
        batch_used = bound = False
        fed = list(self.fed())
        if len(fed) == 1 and like and len(like) == 1:
            like = {fed[0].name: next(iter(like.values()))}
        for value in fed:
            if not value.type.HasField("tensor_type"):
                continue
            whole = given.get(value.name)
            tensor = value.type.tensor_type
            if isinstance(whole, int) and self._given_value(value, whole):
                unused.discard(value.name)
                bound = True
                continue
            if isinstance(whole, int) and len(tensor.shape.dim) <= 1:
                whole = (whole,)
            if isinstance(whole, tuple):
                unused.discard(value.name)
                given |= self._all_sizes(value, whole)
                bound = True
            elif not tensor.HasField("shape"):
                raise self.fail(
                    f"input {value.name!r} has no shape; give it, as {value.name}=1x3x224x224"
                )
            for axis, dim in enumerate(tensor.shape.dim):
                if dim.dim_value > 0:
                    continue
                names = [dim.dim_param, f"{value.name}:{axis}"]
                known = next((name for name in names if name in given), None)
                size: Any = given[known] if known is not None else None
                if known is not None:
                    unused.discard(known)
                elif axis == 0 and (batch is not None or like):
                    size, batch_used = batch or 1, True
                elif like and len(like.get(value.name, ())) > axis:
                    size = like[value.name][axis]
                else:
                    raise self.fail(
                        f"input {value.name!r} has a size left open on axis {axis}; give it, as "
                        f"{names[0] or names[1]}=1"
                    )
                if type(size) is not int or not 1 <= size <= MOST_ELEMENTS:
                    where = names[0] or names[1]
                    raise self.fail(f"size {where} must be whole and at least 1, got {size!r}")
                dim.dim_value, bound = size, True
        if unused:
            raise self.fail(f"it has no open size called {', '.join(sorted(unused))}")
        if batch is not None and not batch_used:
            raise self.fail(
                f"its inputs leave no first size open, so a batch of {batch} changes nothing; "
                "export it with a dynamic batch"
            )
        # Sizes noted by the exporter for other values are the symbolic ones: infer them afresh.
        if bound:
            del self.model.graph.value_info[:]
            for value in self.model.graph.output:
                if value.type.HasField("tensor_type"):
                    value.type.tensor_type.ClearField("shape")

    def _given_value(self, value: Any, number: int) -> bool:
        """Make an input that is a single whole number a constant; say whether it is one."""
        from onnx import helper, numpy_helper

        tensor = value.type.tensor_type
        single = tensor.HasField("shape") and not tensor.shape.dim
        if not single or tensor.elem_type not in WHOLE_NUMBERS:
            return False
        dtype = helper.tensor_dtype_to_np_dtype(tensor.elem_type)
        if dtype.kind in "iu" and not np.iinfo(dtype).min <= number <= np.iinfo(dtype).max:
            raise self.fail(f"input {value.name!r} must fit {dtype}, got {number}")
        made = numpy_helper.from_array(np.array(number, dtype), value.name)
        self.model.graph.initializer.append(made)
        self.initializers[value.name] = made
        return True

    def _all_sizes(self, value: Any, whole: Shape) -> dict[str, int | Shape]:
        """Return the open sizes of one input whose whole shape is given, by name."""
        tensor = value.type.tensor_type
        if not tensor.HasField("shape"):
            for _ in whole:
                tensor.shape.dim.add()
        dims = tensor.shape.dim
        fits = len(dims) == len(whole) and all(
            dim.dim_value in (0, size) for dim, size in zip(dims, whole, strict=True)
        )
        if not fits:
            sizes = [dim.dim_value or dim.dim_param or "?" for dim in dims]
            raise self.fail(f"input {value.name!r} must be {sizes}, got {list(whole)}")
        found: dict[str, int | Shape] = {
            dim.dim_param or f"{value.name}:{axis}": size
            for axis, (dim, size) in enumerate(zip(dims, whole, strict=True))
            if dim.dim_value <= 0
        }
        if not found:
            raise self.fail(f"input {value.name!r} has no open size; {list(whole)} changes nothing")
        return found

    def _infer(self) -> None:
        inference = Inference(self)
        self.shapes, self.types = inference.run()
        self.sizes = inference.sizes

    def _unfold(self) -> None:
        """Write control flow out whose course is known; refuse the rest."""
        graph = self.model.graph
        opset = max((each.version for each in self.model.opset_import
                     if each.domain in STANDARD), default=1)  # fmt: skip
        carried: list[tuple[str, str]] = []
        while any(node.op_type in CONTROL_FLOW for _, node in self.order):
            known = {
                name: self.read(f"tensor {name!r}", each)
                for name, each in self.initializers.items()
                if math.prod(each.dims) <= 1 and self.is_there(f"tensor {name!r}", each)
            }
            unfolding = Unfolding(graph, opset, known | self.sizes, self.shapes, self.repeats)
            if not unfolding.run():
                raise self._undecided()
            self.counted += unfolding.counted
            carried += unfolding.carried
            self.initializers = {tensor.name: tensor for tensor in graph.initializer}
            self.order = self._sorted()
            self._infer()
        for first, last in carried:
            shapes = [self.shapes.get(name) for name in (first, last)]
            if shapes[0] != shapes[1] and None not in shapes:
                raise self.fail(
                    f"a loop makes {shapes[1]} of {first!r}, {shapes[0]}: its work grows from step "
                    "to step, which is not supported; export the network with it unrolled"
                )

    def _undecided(self) -> InputError:
        """An error about control flow whose course is not known."""
        position, node = next(n for n in self.order if n[1].op_type in CONTROL_FLOW)
        place, maker = (
            place_of(node, position),
            {name: each for _, each in self.order for name in each.output},
        )
        waiting, seen = list(node.input[:2]), set()
        while waiting:
            name = waiting.pop()
            if name in seen:
                continue
            seen.add(name)
            waiting += reads(maker[name]) if name in maker else ()
        single = [
            value.name for value in self.fed()
            if value.name in seen and not value.type.tensor_type.shape.dim
        ]  # fmt: skip
        advice = "export the network with it unrolled"
        if single:
            advice = f"if the value of {single[0]!r} decides, give it, as {single[0]}=1"
        return self.fail(f"{place} is control flow, whose work depends on data; {advice}")

    def computed(
        self, node: Any, values: Mapping[str, NDArray[Any]], which: int = 0
    ) -> NDArray[Any] | None:
        """Return what ONNX's reference makes of a node; None if it does not understand it."""
        try:
            made = one_node(node, self.model.opset_import).run(None, dict(values))[which]
        except Exception:  # whatever a nonsensical node makes the reference raise
            return None
        return np.asarray(made)
