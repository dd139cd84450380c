"""Quantized numbers in an ONNX graph: constants as codes, and what the codes of a value stand for.

``DequantizeLinear`` (one scale for a tensor, a channel or a block) and QONNX's ``Quant`` and
``BipolarQuant`` give real numbers of codes; here the codes, scales and zero points stay known
beside them. What becomes of them: :mod:`sparqsim.workloads.brought`.

Source: the ONNX operator specification; QONNX, https://github.com/fastmachinelearning/qonnx.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sparqsim.base import InputError
from sparqsim.workloads.formats import Format
from sparqsim.workloads.formats.integer import Int, Sign
from sparqsim.workloads.importers import Codes, Later, Range
from sparqsim.workloads.importers.onnx_file import Shape
from sparqsim.workloads.importers.onnx_operators import QONNX

if TYPE_CHECKING:
    from sparqsim.workloads.importers.onnx_constants import Constant, Constants

QUANTIZED = frozenset({"DequantizeLinear", "Quant", "IntQuant", "BipolarQuant"})
WHOLE = {  # ONNX's numbers of integer types that codes have: bits, whether signed
    2: (8, False), 3: (8, True), 4: (16, False), 5: (16, True), 21: (4, False), 22: (4, True),
    25: (2, False), 26: (2, True),
}  # fmt: skip
MOST_BITS = 16  # of an integer format


def spread(values: NDArray[Any], shape: Shape, axis: int, block: int) -> NDArray[Any]:
    """Return scales or zero points for every entry: one for all, an index of an axis, or a block.

    Raises
    ------
    InputError
        If they do not fit the shape.
    """
    if values.size == 1:
        return np.broadcast_to(values.reshape(()), shape)
    axis += len(shape) if axis < 0 else 0
    if not 0 <= axis < len(shape):
        raise InputError(f"axis {axis} is none of a tensor {list(shape)}")
    try:
        if values.ndim == 1 and not block:
            values = values.reshape((-1,) + (1,) * (len(shape) - axis - 1))
        elif block > 0:
            values = values.take(np.arange(shape[axis]) // block, axis, mode="clip")
        return np.broadcast_to(values, shape)
    except (ValueError, IndexError):
        raise InputError(f"scales {list(values.shape)} do not fit {list(shape)}") from None


def coded(
    constants: Constants,
    names: tuple[str, str, str],
    place: str,
    axis: int = 1,
    block: int = 0,
) -> Constant | None:
    """Return a constant of codes with a scale and a zero point, by the names of all three.

    An empty scale is 1, an empty zero point 0. None: something is not constant, or the codes are
    of a type that no format here has (32 bits; float8).
    """
    number, scale, zero = names
    kind = WHOLE.get(constants.file.types.get(number, 0))
    found = [constants.get(name) for name in names if name]
    sources = [source for source in found if source is not None]
    if kind is None or len(sources) < len(found):
        return None
    shape = sources[0].shape

    def later(name: str, default: float) -> Later:
        if not name:
            return Later(shape, lambda: np.broadcast_to(np.float32(default), shape))
        constant = constants[name]
        return Later(shape, lambda: spread(constant.values(), shape, axis, block))

    codes = Codes(sources[0].array, later(scale, 1), later(zero, 0), Int(*kind))
    return constants.made_of(sources, Later(shape, codes.values), True, place, codes)


def quantized(
    constants: Constants, node: Any, place: str, attributes: dict[str, Any]
) -> Constant | None:
    """Return what a node of :data:`QUANTIZED` makes of constants."""
    names = [*node.input, "", "", ""]
    if node.op_type == "DequantizeLinear":
        axis = attributes["axis"].i if "axis" in attributes else 1
        block = attributes["block_size"].i if "block_size" in attributes else 0
        return coded(constants, (names[0], names[1], names[2]), place, axis, block) or (
            _plain(constants, node, place, axis, block)
        )
    given = _grid_of(constants, node, attributes)
    if given is None:
        return None
    grid, scale, zero = given
    source = constants[names[0]]
    shape = source.shape

    def numbers() -> NDArray[Any]:
        scaled = source.values().astype(np.float32) / spread(scale, shape, 0, 0)
        if isinstance(grid, Sign):
            return np.where(scaled >= 0, np.float32(1), np.float32(-1))
        rounded = np.rint(scaled + spread(zero, shape, 0, 0))
        return np.clip(rounded, grid.values[0], grid.values[-1]).astype(np.int32)

    codes = Codes(
        Later(shape, numbers),
        Later(shape, lambda: spread(scale, shape, 0, 0)),
        Later(shape, lambda: spread(zero, shape, 0, 0)),
        grid,
    )
    sources = [constants[name] for name in names if name]
    return constants.made_of(sources, Later(shape, codes.values), True, place, codes)


def _plain(constants: Constants, node: Any, place: str, axis: int, block: int) -> Constant | None:
    """A constant of codes that no format here has, as its values (a bias in 32 bits, float8)."""
    sources = [constants[name] for name in node.input if name]
    shape = sources[0].shape

    def make() -> NDArray[Any]:
        numbers, scale, *zero = (source.values() for source in sources)
        above = numbers.astype(np.float64)  # which holds all of 32 bits
        if zero:
            above = above - spread(zero[0].astype(np.float64), shape, axis, block)
        return (above.astype(np.float32) * spread(scale, shape, axis, block)).astype(scale.dtype)

    return constants.made_of(sources, Later(shape, make), True, place)


def _grid_of(
    constants: Constants, node: Any, attributes: dict[str, Any]
) -> tuple[Format, NDArray[Any], NDArray[Any]] | None:
    """Format, scales and zero points of a ``Quant`` or ``BipolarQuant`` with constant ones."""
    if any(name not in constants for name in node.input[1:]):
        return None
    parts = [constants[name].values() for name in node.input[1:]]
    if node.op_type == "BipolarQuant":
        return Sign(), parts[0], np.zeros((), np.float32)
    scale, zero, bits = parts
    if not (scale > 0).all():
        raise InputError("its scales must be positive")
    width = int(bits.reshape(-1)[0]) if bits.size == 1 else 0
    if not 1 <= width <= MOST_BITS or float(width) != float(bits.reshape(-1)[0]):
        raise InputError(f"its bit width must be one whole number from 1 to {MOST_BITS}")
    signed = "signed" not in attributes or bool(attributes["signed"].i)
    narrow = signed and width > 1 and "narrow" in attributes and bool(attributes["narrow"].i)
    mode = attributes["rounding_mode"].s if "rounding_mode" in attributes else b"ROUND"
    if mode.upper() not in (b"ROUND", b"HALF_EVEN"):
        raise InputError(f"it rounds by {mode.decode(errors='replace')!r}; ROUND is understood")
    return Int(width, signed, narrow), scale, zero


def range_of(
    constants: Constants, node: Any, attributes: dict[str, Any], dynamic: set[str]
) -> Range | None:
    """Return what the codes of a value that is no constant stand for: one scale for all of it."""
    if node.op_type != "DequantizeLinear":
        given = None if node.op_type == "BipolarQuant" else _grid_of(constants, node, attributes)
        if given is None or given[1].size != 1 or given[2].size != 1:
            return None
        grid, scale, zero = given
        assert isinstance(grid, Int)
        return Range(grid.bits, grid.signed, scale.item(), int(zero.item()))
    kind = WHOLE.get(constants.file.types.get(node.input[0], 0))
    if kind is None:
        return None
    if node.input[0] in dynamic:
        return Range(*kind, None)
    return fixed(constants, kind, node.input[1], node.input[2] if len(node.input) > 2 else "")


def fixed(constants: Constants, kind: tuple[int, bool], scale: str, zero: str) -> Range | None:
    """Return the range of codes with one constant scale and zero point; None if they are not so."""
    parts = [constants.get(name) for name in (scale, zero) if name]
    if any(part is None or math.prod(part.shape) != 1 for part in parts):
        return None
    values = [part.values().item() for part in parts if part is not None]
    return Range(*kind, float(values[0]), int(values[1]) if zero else 0)


def operators() -> list[Any]:
    """QONNX's operators on real numbers, for ONNX's reference evaluator: one class per domain."""
    from onnx.reference.op_run import OpRun

    class Quant(OpRun):
        op_domain = ""

        def _run(self, x, scale, zero, bits, signed=1, narrow=0, rounding_mode="ROUND"):
            width = int(np.asarray(bits).reshape(-1)[0])
            least = -(1 << width - 1) + bool(narrow) if signed else 0
            most = (1 << width - 1) - 1 if signed else (1 << width) - 1
            numbers = np.clip(np.rint(x / scale + zero), least, most)
            return (((numbers - zero) * scale).astype(x.dtype),)

    class BipolarQuant(OpRun):
        op_domain = ""

        def _run(self, x, scale):
            return (np.where(x >= 0, scale, -scale).astype(x.dtype),)

    return [
        type(each.__name__, (each,), {"op_domain": domain})
        for each in (Quant, BipolarQuant)
        for domain in QONNX
    ]
