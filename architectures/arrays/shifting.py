"""Elements that shift instead of multiplying: weights as sums of powers of two.

An element takes one term of a weight per cycle: it shifts the activation and adds. So a weight of n
terms takes n cycles, and the array's efficiency is set by the number of terms, not by the bits
(APoT), while a single power of two (PoT) takes one. All elements move in step, so that a term that
is missing (a sum with fewer powers) takes its cycle too (assumed).

The energy of an element's cycle is that of one that multiplies, times shifter and adder over
multiplier and adder as the table ``horowitz`` has them (assumed: registers and control with them).
"""

from __future__ import annotations

import enum
from typing import NamedTuple

import numpy as np

from sparqsim.architectures.arrays.datapath import Operand, in_shape
from sparqsim.simulator.energy.scaling import Factor
from sparqsim.simulator.energy.tables import Basis, get_table
from sparqsim.simulator.mac import shift
from sparqsim.workloads.encoded import Coded, EncodedLayer
from sparqsim.workloads.formats.powers import APoT, PoT

SHIFTED_BITS = (8, 16, 32)  # of the table's shifters


class Multiplier(enum.StrEnum):
    """How an element makes a product."""

    INTEGER = "integer"
    SHIFT = "shift"


class Shifts(NamedTuple):
    """Of a format: cycles of a product, and bits of a shifted activation."""

    terms: int
    bits: int

    @classmethod
    def of(cls, grid: PoT | APoT, activation_bits: int) -> Shifts:
        """Of weights in a format."""
        return cls(grid.terms, activation_bits + grid.largest_shift)

    @property
    def energy(self) -> Factor:
        """Of an element's cycle, over that of an 8-bit multiplier and adder."""
        table = get_table("horowitz")
        width = next((bits for bits in SHIFTED_BITS if bits >= self.bits), SHIFTED_BITS[-1])
        shifter, adder = table.entry(f"shift.int{width}"), table.entry("add.int32")
        multiplier = table.entry("multiply.int8")
        return Factor(
            (shifter.value + adder.value) / (multiplier.value + adder.value),
            f"a {width}-bit shifter for an 8-bit multiplier, each with its adder (horowitz)",
            Basis.ASSUMED,
        )


def formats(bits: int) -> tuple[str, ...]:
    """Formats of weights up to a width, the narrowest first; sums stay within 32 bits."""
    names = []
    for width in range(3, bits + 1):
        for sign in ("signed", "unsigned"):
            if width <= 4 or (width == 5 and sign == "signed"):
                names.append(f"pot{width}_{sign}")
            names.append(f"apot_{width}_{sign}")
    return tuple(names)


def grid_of(layer: EncodedLayer) -> PoT | APoT:
    """The format of a layer's weights."""
    assert isinstance(layer.weight, Coded)
    grid = layer.weight.formats[0]
    assert isinstance(grid, PoT | APoT)
    return grid


def shifted_weights(layer: EncodedLayer) -> Operand:
    """Weights as words of signs and shifts; values below 1 are raised, and the scale lowered."""
    tensor, grid = layer.weight, grid_of(layer)
    assert isinstance(tensor, Coded) and isinstance(tensor.dense.codes, np.ndarray)
    words = np.array(
        [
            shift.pack(grid.left_shifts(code), float(value) < 0)
            for code, value in enumerate(grid.code_values)
        ],
        np.int64,
    )
    factor = 2.0**grid.raised
    return Operand(
        codes=in_shape(layer, "weights", words[tensor.dense.codes]),
        levels=in_shape(layer, "weights", tensor.levels()).astype(np.float64) * factor,
        scale=tensor.scale / factor,
        zero=tensor.zero_point,
        signed=grid.signed,
        bits=tensor.bits,
        tensor=tensor,
    )
