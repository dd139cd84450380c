"""The constants of an ONNX graph, and what it makes of them: values that are made when asked for.

A constant stays one behind ``Cast``, ``Transpose``, ``Reshape``, ``Slice``, ``Concat`` and
arithmetic with other constants, so weights that a graph rearranges are weights. What a file has
quantized keeps its numbers, scales and zero points on the way. Nothing is computed until a layer's
weights are asked for, and what is computed is never much larger than what the file
holds: a few bytes cannot ask for much memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparqsim.workloads.importers import Codes, Later
from sparqsim.workloads.importers.onnx_codes import QUANTIZED, quantized
from sparqsim.workloads.importers.onnx_file import REAL, ModelFile, Shape
from sparqsim.workloads.importers.onnx_inference import LITERALS, shape_of
from sparqsim.workloads.importers.onnx_operators import STANDARD

# Operations that are carried out on constants; the others of those named above rearrange.
ARITHMETIC_NAMES = """
Abs Add Cast Ceil Clip Concat Div Exp Floor Gather Log Mul Neg Pad Pow QuantizeLinear Reciprocal
Round Slice Split Sqrt Sub Where
"""
ARITHMETIC = frozenset(ARITHMETIC_NAMES.split())
DEEPEST = 100  # assumed, operations between a constant and a layer: exporters make a handful
FREE = 2**20  # assumed, numbers that may be made of nothing (a grid of positions): a few MB
MOST_GROWTH = 4  # assumed: what is made of constants over what it is made of, beyond that


@dataclass(eq=False)
class Constant:
    """A constant of the graph, or what others make.

    Attributes
    ----------
    array : Later
    floating : bool
    roots : tuple of Constant
        The constants of the file that it is made of; empty for one of them.
    label : str
        The name of the first.
    stored : int
        Elements that the file holds for it.
    depth : int
        Operations between it and the file.
    codes : Codes or None
        Numbers, scales and zero points that it is made of, where the file has it quantized.
    taken : bool
        Whether a layer took it in.
    """

    array: Later
    floating: bool
    roots: tuple[Constant, ...] = ()
    label: str = ""
    stored: int = 1
    depth: int = 0
    codes: Codes | None = None
    taken: bool = field(default=False)

    @property
    def shape(self) -> Shape:
        return self.array.shape

    @property
    def whole(self) -> int | None:
        """Equal for constants that are all of one tensor of the file, however arranged, or None."""
        (root,) = self.roots if len(self.roots) == 1 else (self,)
        return id(root) if math.prod(root.shape) == math.prod(self.shape) else None

    def values(self) -> NDArray[Any]:
        """Make the values."""
        return self.array.make()

    def take(self) -> None:
        """Note that a layer took it in; refuse roots that do not hold their values."""
        self.taken = True
        for root in self.roots:
            root.taken = True
        for root in self.roots or (self,):
            root.values()  # a view of the file


def held(values: NDArray[Any]) -> Constant:
    """A few numbers that are no tensor of the file."""
    return Constant(Later(values.shape, lambda: values), values.dtype.kind == "f")


class Constants:
    """The constants of a file by name, those that nodes make of others included."""

    def __init__(self, file: ModelFile) -> None:
        self.file = file
        self.by_name = {
            name: self._stored(tensor, f"tensor {name!r}", name)
            for name, tensor in file.initializers.items()
        }

    def __contains__(self, name: str) -> bool:
        return name in self.by_name

    def __getitem__(self, name: str) -> Constant:
        return self.by_name[name]

    def get(self, name: str) -> Constant | None:
        return self.by_name.get(name)

    def left_over(self) -> int:
        """Return how many numbers of the file no layer took in, single ones apart."""
        every = {id(constant): constant for constant in self.by_name.values()}
        return sum(
            math.prod(constant.shape)
            for constant in every.values()
            if not constant.roots
            and constant.floating
            and not constant.taken
            and math.prod(constant.shape) > 1
        )

    def shape(self, value: str, place: str) -> Shape:
        """Return the shape of a constant or any other value.

        Raises
        ------
        InputError
            If it is not known.
        """
        constant = self.by_name.get(value)
        shape = constant.shape if constant else self.file.shapes.get(value)
        if shape is None:
            missing = f"; {self.file.missing[0]!r} is not beside it" if self.file.missing else ""
            raise self.file.fail(
                f"{place}: the shape of {value!r} does not follow from the inputs; export the "
                f"network with fixed shapes{missing}"
            )
        return shape

    def taken(self, name: str, place: str, floating: bool = True) -> Constant:
        """Return a constant that a layer takes in."""
        constant = self.by_name[name]
        if constant.floating != floating:
            wanted = "of floating point" if floating else "whole numbers"
            raise self.file.fail(f"{place}: {name!r} must be {wanted}, which it is not")
        constant.take()
        return constant

    def values(self, name: str, place: str) -> NDArray[Any]:
        """Return the values of a small constant that a layer takes in."""
        return self.taken(name, place).values()

    def fold(self, node: Any, place: str) -> bool:
        """Note the outputs of a node that are constant; say whether they are."""
        attributes = {attribute.name: attribute for attribute in node.attribute}
        if node.op_type == "Constant":
            literal = self._literal(node, place, attributes)
            if literal is not None:
                self.by_name[node.output[0]] = literal
            return True
        if node.output[0] in self.file.sizes:
            self.by_name[node.output[0]] = held(self.file.sizes[node.output[0]])
            return True
        if node.op_type in ("Shape", "Size"):
            sizes = shape_of(node, self.file.shapes)
            if sizes is not None:
                self.by_name[node.output[0]] = held(sizes)
            return sizes is not None
        inputs = node.input[:1] if node.op_type == "CastLike" else node.input
        found = [self.by_name.get(name) for name in inputs if name]
        sources = [source for source in found if source is not None]
        if not sources or len(sources) < len(found):
            return False
        if node.op_type in QUANTIZED:
            made = quantized(self, node, place, attributes)
            if made is not None:
                self.by_name[node.output[0]] = made
            return made is not None
        if node.domain not in STANDARD:
            return False
        if node.op_type in ARITHMETIC:
            return self._computed(node, place, sources)
        made = self._rearranged(node, place, attributes, sources[0])
        if made is not None:
            self.by_name[node.output[0]] = made
        return made is not None

    def _stored(self, tensor: Any, what: str, label: str) -> Constant:
        file, shape, floating = self.file, tuple(tensor.dims), tensor.data_type in REAL

        def make() -> NDArray[Any]:
            if floating and not file.is_there(what, tensor):
                # nothing made of it is ever handed out; the shapes are
                return np.broadcast_to(np.ones((), np.float32), shape)
            return file.read(what, tensor)

        return Constant(Later(shape, make), floating, (), label, math.prod(shape))

    def made_of(
        self,
        sources: list[Constant],
        array: Later,
        floating: bool,
        place: str,
        codes: Codes | None = None,
    ) -> Constant:
        """Return what some constants make."""
        roots = {id(root): root for each in sources for root in (each.roots or (each,))}
        depth = 1 + max(each.depth for each in sources)
        if depth > DEEPEST:
            raise self.file.fail(
                f"{place} is the end of more than {DEEPEST} operations on constants; compute them "
                "before you export the network"
            )
        stored = sum(root.stored for root in roots.values())
        whole = tuple(roots.values())
        return Constant(array, floating, whole, sources[0].label, stored, depth, codes)

    def _literal(self, node: Any, place: str, attributes: dict[str, Any]) -> Constant | None:
        """A ``Constant``: a tensor, or numbers in an attribute (strings are never weights)."""
        if "value" in attributes:
            return self._stored(attributes["value"].t, place, node.output[0])
        for name, read in LITERALS.items():
            if name in attributes:
                return held(read(attributes[name]))
        return None

    def _rearranged(
        self, node: Any, place: str, attributes: dict[str, Any], source: Constant
    ) -> Constant | None:
        """A constant reshaped, repeated or transposed: views."""

        def then(shape: Shape, change: Callable[[NDArray[Any]], NDArray[Any]]) -> Constant:
            array = source.array.then(shape, change)
            codes = None if source.codes is None else source.codes.then(shape, change)
            return self.made_of([source], array, source.floating, place, codes)

        if node.op_type == "ConstantOfShape":
            return self._repeated(node, place, attributes, source)
        if node.op_type == "Identity":
            return source
        if node.op_type in ("Unsqueeze", "Squeeze", "Reshape", "Flatten"):
            shape = self.shape(node.output[0], place)
            if math.prod(shape) != math.prod(source.shape):
                raise self.file.fail(f"{place} makes {list(shape)} of {list(source.shape)}")
            return then(shape, lambda x: x.reshape(shape))
        if node.op_type == "Expand":
            shape = self.shape(node.output[0], place)
            if not expands(source.shape, shape):
                raise self.file.fail(f"{place} makes {list(shape)} of {list(source.shape)}")
            return then(shape, lambda x: np.broadcast_to(x, shape))
        if node.op_type == "CastLike":  # like a value of which only the type counts
            from onnx import helper

            kind = self.file.types.get(node.output[0], 0)
            dtype = helper.tensor_dtype_to_np_dtype(kind or 1)
            array = source.array.then(source.shape, lambda x: x.astype(dtype))
            return self.made_of([source], array, kind in REAL, place)
        if node.op_type == "Transpose":
            rank = len(source.shape)
            axes = tuple(attributes["perm"].ints) if "perm" in attributes else None
            axes = tuple(reversed(range(rank))) if axes is None else axes
            if sorted(axes) != list(range(rank)):
                raise self.file.fail(f"{place} permutes {rank} axes by {list(axes)}")
            return then(tuple(source.shape[axis] for axis in axes), lambda x: x.transpose(axes))
        return None

    def _repeated(
        self, node: Any, place: str, attributes: dict[str, Any], source: Constant
    ) -> Constant:
        sizes, value = source.values().reshape(-1), np.zeros(1, np.float32)
        if "value" in attributes:
            value = self._stored(attributes["value"].t, place, "").values().reshape(-1)
        if sizes.dtype.kind not in "iu" or value.size != 1:
            raise self.file.fail(f"{place} must take whole sizes and repeat one value")
        shape = self.file.sane(place, tuple(sizes.tolist()))
        # A view that repeats one number: a fully connected layer of it takes no memory.
        array = Later(shape, lambda: np.broadcast_to(value, shape))
        return Constant(array, value.dtype.kind == "f", (), node.output[0])

    def _computed(self, node: Any, place: str, sources: list[Constant]) -> bool:
        """Note constants that ONNX's reference will make of others, when they are asked for."""
        file, names = self.file, [name for name in node.output if name]
        inputs = {name: self.by_name[name] for name in node.input if name}
        for which, name in enumerate(names):
            if name not in file.shapes:
                return False
            shape = file.shapes[name]

            def make(which: int = which, name: str = name, shape: Shape = shape) -> NDArray[Any]:
                values = {key: np.asarray(each.array) for key, each in inputs.items()}
                found = file.computed(node, values, which)
                if found is None or found.shape != shape:
                    raise file.fail(f"{place}: the values of {name!r} cannot be computed")
                return found

            made = self.made_of(sources, Later(shape, make), file.is_real(name), place)
            if math.prod(shape) > FREE + MOST_GROWTH * made.stored:
                raise file.fail(
                    f"{place} makes {math.prod(shape)} numbers of {made.stored}; compute them "
                    "before you export the network"
                )
            self.by_name[name] = made
        return True


def expands(shape: Shape, to: Shape) -> bool:
    """Whether an array of ``shape`` broadcasts to one of exactly ``to``."""
    try:
        return np.broadcast_shapes(shape, to) == to
    except ValueError:
        return False
