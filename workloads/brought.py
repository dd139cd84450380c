"""Codes that a network's file brings: what a layer runs without being rounded again.

A quantized file has whole numbers, scales and zero points for weights, and for what layers read.
They become a :class:`Brought` beside the layer's real numbers, and
:func:`~sparqsim.workloads.encoded.encode` takes them as they are: the codes of the weights are the
file's, inputs are put on the file's grid by its own rule, ``clamp(round(x / scale) + zero)``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from sparqsim.base import InputError
from sparqsim.workloads.formats.integer import Int
from sparqsim.workloads.importers import Codes, Imported, Range
from sparqsim.workloads.layers import MatMul
from sparqsim.workloads.quantize import QuantizedTensor, Quantizer, fit
from sparqsim.workloads.slices import Slices

NAME = "as the file has it"  # in place of a recipe's name


@dataclass(frozen=True, eq=False, kw_only=True)
class Brought:
    """The codes of a layer.

    Attributes
    ----------
    weight : QuantizedTensor, Range or None
        Of the layer's ``weight_shape``; of a product of two activations what the codes of its
        right operand stand for. None: the file has real numbers.
    activation : Range or None
        What the codes of its input (left operand) stand for.
    """

    weight: QuantizedTensor | Range | None = None
    activation: Range | None = None

    def of(self, which: Literal["weights", "activations"]) -> QuantizedTensor | Range | None:
        """What is known of an operand."""
        return self.weight if which == "weights" else self.activation

    @property
    def kinds(self) -> tuple[Any, ...]:
        """Equal for layers whose operands are equal in format, sharing of scales, zero points."""
        return tuple(_kind(each) for each in (self.weight, self.activation))

    def quantized(
        self, which: Literal["weights", "activations"], x: NDArray[Any]
    ) -> QuantizedTensor | None:
        """The codes of an operand whose real numbers are ``x``; None where the file has none."""
        stated = self.of(which)
        if isinstance(stated, Range):
            return quantizer_of(stated, x).quantize(x)
        return stated

    def sample(self, which: Literal["weights", "activations"]) -> Quantizer | None:
        """Format and sharing of an operand, for an outline: numbers do not count."""
        stated = self.of(which)
        if isinstance(stated, QuantizedTensor):
            return stated.quantizer
        if stated is None:
            return None
        if stated.scale is None:  # some zero point will be found
            stated = Range(stated.bits, stated.signed, 1.0, 1)
        return quantizer_of(stated, np.zeros(1))


def _kind(stated: QuantizedTensor | Range | None) -> Any:
    if not isinstance(stated, QuantizedTensor):
        return stated
    used = stated.quantizer
    has_zero = used.zero_point is not None and bool(used.zero_point.any())
    return used.format.name, used.slices, has_zero


def quantizer_of(stated: Range, x: NDArray[Any]) -> Quantizer:
    """Scale and zero point of an operand: the file's, or found in ``x`` as the file would.

    A file that finds ranges in the run may multiply the bare numbers: then ``x`` is whole, its
    scale is 1, and its least number tells the zero point.
    """
    grid = Int(stated.bits, stated.signed)
    if stated.scale is not None:
        zero = np.array([stated.zero], np.int32) if stated.zero else None
        return Quantizer((grid,), np.array([stated.scale], np.float32), zero)
    least, most = float(np.min(x)), float(np.max(x))
    if np.array_equal(x, np.rint(x)) and most - least < 1 << stated.bits:
        zero = np.array([grid.values[0] - min(least, 0.0)], np.int32)
        if most + zero[0] <= grid.values[-1]:
            return Quantizer((grid,), np.ones(1, np.float32), zero if zero.any() else None)
    return fit(x, grid, asymmetric=True)


class BroughtCodes(Mapping[str, Brought]):
    """What an imported network brings, by layer; made when it is asked for."""

    def __init__(self, imported: Imported) -> None:
        self.imported = imported
        self.two = {each.name for each in imported.model.layers if isinstance(each, MatMul)}
        coded = [name for name, held in imported.tensors.items() if held.codes is not None]
        ranged = [
            name.rpartition(".")[0] if name.rpartition(".")[0] in self.two else name
            for name in imported.ranges
        ]
        self.names = dict.fromkeys([*coded, *ranged])
        self.made: dict[str, Brought] = {}

    def __getitem__(self, name: str) -> Brought:
        if name not in self.names:
            raise KeyError(name)
        if name not in self.made:
            self.made[name] = self._make(name)
        return self.made[name]

    def _make(self, name: str) -> Brought:
        ranges, held = self.imported.ranges, self.imported.tensors.get(name)
        if name in self.two:
            return Brought(
                weight=ranges.get(f"{name}.right"), activation=ranges.get(f"{name}.left")
            )
        if held is None or held.codes is None:
            return Brought(activation=ranges.get(name))
        try:
            weight = quantized(held.codes, held.scale)
        except InputError as error:
            raise InputError(f"layer {name!r}: {error}") from None
        return Brought(weight=weight, activation=ranges.get(name))

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


def quantized(codes: Codes, factor: NDArray[np.float64] | None = None) -> QuantizedTensor:
    """Return the codes of weights as a tensor, with the fewest scales that say the same.

    Parameters
    ----------
    codes : Codes
    factor : array [out], optional
        Positive; what was folded in, by output.

    Raises
    ------
    InputError
        If a number is none of its format, a zero point is not whole, or a scale not positive.
    """
    numbers = codes.numbers.make().astype(np.float32)
    scale, zero = codes.scale.make().astype(np.float32), codes.zero.make()
    if factor is not None:
        scale = (scale * factor.reshape(-1, *(1,) * (scale.ndim - 1))).astype(np.float32)
    dead = scale == 0  # whatever the numbers are
    if dead.any():
        numbers = np.where(dead, zero.astype(np.float32), numbers)
        scale = np.where(dead, np.float32(1), scale)
    known = np.isin(numbers, codes.grid.values.astype(np.float32))
    if not known.all():
        raise InputError(f"its weights hold {numbers[~known][0]:g}, which no {codes.grid.name} is")
    if not np.array_equal(zero, np.rint(zero.astype(np.float32))):
        raise InputError("its zero points must be whole")
    slices, first = shared(numbers.shape, scale, zero.astype(np.int64))
    scales = slices.split(scale)[:, first]
    zeros = slices.split(zero.astype(np.int32))[:, first]
    held = Quantizer((codes.grid,), scales, zeros if zeros.any() else None, slices)
    return QuantizedTensor(codes.grid.encode(numbers), held)


def shared(shape: tuple[int, ...], scale: NDArray[Any], zero: NDArray[Any]) -> tuple[Slices, int]:
    """Return which entries share scale and zero point, and where the first of a slice stands."""
    rows = [each.reshape(shape[0], -1) for each in (scale, zero)]
    if all((each == each[0, 0]).all() for each in rows):
        return Slices(), 0
    width = rows[0].shape[1]
    changes = np.zeros(width, bool)
    for each in rows:
        changes[1:] |= (each[:, 1:] != each[:, :-1]).any(axis=0)
    places = np.flatnonzero(changes)
    if not len(places):
        return Slices(0), 0
    group = math.gcd(*(int(place) for place in places))
    return Slices(0, group, width % group != 0), 0
