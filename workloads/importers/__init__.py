"""Networks from outside: their layers, and their weights with normalisation folded in.

An importer finds the multiply-accumulate work of a network that somebody else trained and hands it
over as :class:`Imported`: the same :class:`~sparqsim.workloads.layers.Model` the built-in tables
give, plus weights and biases by layer name. What needs no MAC array (pooling, softmax, ...) is
counted by kind in ``left_out``; what would need one but is not understood is refused by name.

A per-channel affine operation right after a layer, batch normalisation above all, is folded: with
``y = scale * (W x + b) + shift`` the layer becomes ``(scale W) x + (scale b + shift)``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from sparqsim.base import InputError
from sparqsim.workloads.formats import Format
from sparqsim.workloads.layers import Layer, Model, OtherWork, unknown

# assumed: above the largest tensor of today's networks (a vocabulary of 2^18 by 2^14) by far
MOST_ELEMENTS = 2**34
MOST_OUTPUTS = 2**24  # assumed, likewise: a bias of so many is still small


class Later:
    """An array that is made when numpy asks for it.

    Parameters
    ----------
    shape : tuple of int
    make : callable
        Gives the array; called each time, so nothing is kept.
    """

    def __init__(self, shape: tuple[int, ...], make: Callable[[], NDArray[Any]]) -> None:
        self.shape, self.make = shape, make

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self.make(), dtype=dtype)

    def then(self, shape: tuple[int, ...], change: Callable[[NDArray[Any]], NDArray[Any]]) -> Later:
        """Return what ``change`` makes of it, of the given shape."""
        return Later(shape, lambda: change(self.make()))


@dataclass(frozen=True, eq=False)
class Codes:
    """Numbers that stand for weights, entry by entry: ``scale * (number - zero)``.

    Attributes
    ----------
    numbers, scale, zero : Later
        Of one shape; scales and zeros repeat as far as they are shared.
    grid : Format
        Of the numbers.
    """

    numbers: Later
    scale: Later
    zero: Later
    grid: Format

    def then(self, shape: tuple[int, ...], change: Callable[[NDArray[Any]], NDArray[Any]]) -> Codes:
        """Return what ``change``, which moves entries, makes of all three."""
        numbers, scale = self.numbers.then(shape, change), self.scale.then(shape, change)
        return Codes(numbers, scale, self.zero.then(shape, change), self.grid)

    def values(self) -> NDArray[np.float32]:
        """Make the weights."""
        numbers = self.numbers.make().astype(np.float32)
        zero, scale = self.zero.make(), self.scale.make()
        return ((numbers - zero.astype(np.float32)) * scale).astype(np.float32)


@dataclass(frozen=True)
class Range:
    """What the codes of an activation stand for: ``scale * (code - zero)``.

    Attributes
    ----------
    bits : int
    signed : bool
    scale : float or None
        None: the file finds scale and zero point in each run.
    zero : int
    """

    bits: int
    signed: bool
    scale: float | None
    zero: int = 0


@dataclass(frozen=True, eq=False)
class Tensors:
    """A layer's raw weights and the folded affine: scaled only when asked for.

    Attributes
    ----------
    raw : array or Later
        Of the layer's ``weight_shape``.
    scale, bias : float64 array [out] or None
    codes : Codes or None
        What the raw weights were made of, where the file has them as codes.
    """

    raw: NDArray[Any] | Later
    scale: NDArray[np.float64] | None = None
    bias: NDArray[np.float64] | None = None
    codes: Codes | None = None

    def __post_init__(self) -> None:
        if self.raw.shape[0] > MOST_OUTPUTS:
            raise InputError(
                f"a layer must have at most {MOST_OUTPUTS} outputs, got {self.raw.shape[0]}"
            )

    def then(self, scale: NDArray[Any] | None, shift: NDArray[Any] | None) -> Tensors:
        """Return these tensors followed by ``scale * y + shift``, each [out] or [1] or None."""
        outputs = self.raw.shape[0]
        new_scale, new_bias = self.scale, self.bias
        if scale is not None:
            scale = np.broadcast_to(np.asarray(scale, np.float64), outputs)
            new_scale = scale if new_scale is None else new_scale * scale
            new_bias = None if new_bias is None else new_bias * scale
        if shift is not None:
            shift = np.broadcast_to(np.asarray(shift, np.float64), outputs)
            new_bias = shift if new_bias is None else new_bias + shift
        return Tensors(self.raw, new_scale, new_bias, self.codes)


class ImportReport(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a file; what is refused ends the import with an error.

    Attributes
    ----------
    taken : mapping from operation to count
        Became layers.
    merged : mapping from operation to count
        Became part of the layer before: normalisation, biases.
    folded : mapping from operation to count
        Work on constants or sizes alone, done beforehand.
    passed : mapping from operation to count
        Multiplies and accumulates nothing: listed beside the layers, or mere movement.
    notes : tuple of str
        What else a reader must know.
    """

    taken: Mapping[str, int]
    merged: Mapping[str, int] = {}
    folded: Mapping[str, int] = {}
    passed: Mapping[str, int] = {}
    notes: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """The report in words, a line for each kind."""
        told = {
            "layers of": self.taken,
            "merged into layers": self.merged,
            "folded, for they are constant": self.folded,
            "passed by": self.passed,
        }
        return [
            f"{what}: {', '.join(f'{count} {name}' for name, count in sorted(found.items()))}"
            for what, found in told.items()
            if found
        ] + list(self.notes)


@dataclass(frozen=True, eq=False)
class Imported:
    """A network from outside.

    Attributes
    ----------
    model : Model
    tensors : mapping from layer name to Tensors
        For every layer that has weights; empty if their values are missing.
    left_out : mapping from operation to count
        What the network does beside the layers.
    relus : mapping from layer name to bool
        Whether negative outputs are cut to 0 right behind a layer, where that is known.
    ranges : mapping from operand to Range
        Codes that the file has for what a layer reads: under the layer's name, or ``NAME.left`` and
        ``NAME.right`` of a product of two activations.
    missing : tuple of str
        Files with values that are not there.
    report : ImportReport or None
        What became of the file's parts, where the importer tells.
    graph : object or None
        What is needed to run it (:mod:`sparqsim.workloads.importers.onnx_run`), where it can be.
    """

    model: Model
    tensors: Mapping[str, Tensors]
    left_out: Mapping[str, int] = field(default_factory=dict)
    relus: Mapping[str, bool] = field(default_factory=dict)
    ranges: Mapping[str, Range] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    report: ImportReport | None = None
    graph: Any = None

    def weights(self, layer: str) -> NDArray[np.float32]:
        """Return the folded weights, of the layer's ``weight_shape``.

        Raises
        ------
        InputError
            If the layer is unknown or has no weights, or a weight is NaN or infinite.
        """
        tensors = self._of(layer)
        weights = np.asarray(tensors.raw).astype(np.float32)
        if tensors.scale is not None:
            column = (-1,) + (1,) * (weights.ndim - 1)
            weights = (weights * tensors.scale.reshape(column)).astype(np.float32)
        return _finite(weights, f"the weights of layer {layer!r}")

    def bias(self, layer: str) -> NDArray[np.float32] | None:
        """Return the folded bias [out], or None.

        Raises
        ------
        InputError
            As :meth:`weights`.
        """
        bias = self._of(layer).bias
        return None if bias is None else _finite(bias.astype(np.float32), f"the bias of {layer!r}")

    def _of(self, layer: str) -> Tensors:
        if self.missing:
            raise InputError(
                f"the values of model {self.model.name!r} lie in {self.missing[0]!r}, which is "
                "not beside it; copy it there"
            )
        if layer not in self.tensors:
            raise unknown(
                f"model {self.model.name!r} has no weights for layer", layer, self.tensors
            )
        return self.tensors[layer]


def _finite(values: NDArray[np.float32], what: str) -> NDArray[np.float32]:
    if not np.isfinite(values).all():
        bad = np.argwhere(~np.isfinite(values))[0].tolist()
        raise InputError(f"{what} must be finite, got {values[tuple(bad)]} at {bad}")
    return values


def placed(error: InputError, where: str) -> InputError:
    """Return the error with its place in front, unless it says so itself."""
    return error if str(error).startswith(where) else InputError(f"{where}: {error}")


class Names:
    """Gives each layer a name of its own: a second ``conv`` becomes ``conv#2``."""

    def __init__(self) -> None:
        self._taken: dict[str, int] = {}

    def take(self, wanted: str) -> str:
        """Return ``wanted``, or the next free variant of it."""
        name = wanted
        while name in self._taken:
            self._taken[wanted] += 1
            name = f"{wanted}#{self._taken[wanted]}"
        self._taken[name] = 1
        return name


def with_layers(
    name: str,
    source: str,
    layers: list[Layer],
    other_parameters: int,
    other: tuple[OtherWork, ...] = (),
) -> Model:
    """Return the model of an imported network, or refuse one without any layer."""
    if not layers:
        raise InputError(f"{source} must hold a convolution or a matrix product, found none")
    return Model(
        name=name,
        source=source,
        layers=tuple(layers),
        other_parameters=other_parameters,
        other_parameters_are="constants that no layer took in (norms, embeddings)",
        other=other,
    )
