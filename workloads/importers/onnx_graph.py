"""What is kept of an ONNX graph so that it can be run: its layers' places and the other nodes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from sparqsim.workloads.importers import Range
from sparqsim.workloads.importers.onnx_file import ModelFile, Shape
from sparqsim.workloads.importers.products import Arrange


@dataclass(frozen=True)
class Operand:
    """A value of the graph as a layer reads it.

    Attributes
    ----------
    value : str
    arrange : callable
        Makes the layer's input of it.
    scale : float
    zero : str
        A code stands for ``scale * (code - zero)``, where the value is of codes; ``zero`` is the
        name of a value, or empty for 0.
    range : Range or None
        The codes that the file has for what the layer reads.
    finds : bool
        The value is real, and the operation itself finds 8-bit codes with a zero point for it.
    """

    value: str
    arrange: Callable[[NDArray[Any]], NDArray[Any]]
    scale: float = 1.0
    zero: str = ""
    range: Range | None = None
    finds: bool = False


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
    codes : Range or None
        The codes in which the output is written, where the graph has it so.
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
    codes: Range | None = None


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
    inside : mapping of str to str
        Layers without a step, by their names: the operation in which they run, closed to view.
    """

    file: ModelFile
    steps: tuple[Step, ...]
    nodes: tuple[tuple[int, Any], ...]
    tables: Mapping[str, str]
    inside: Mapping[str, str] = field(default_factory=dict)
