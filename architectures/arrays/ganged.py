"""Arrays of 4-bit elements with decoders at their borders, four of which gang into one of 8 bits.

What ANT and OliVe share: a square array, twice as many elements along a side at 4 bits, codes that
the borders decode into exponents and integers, and the performance model of ANT's authors.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from sparqsim.architectures.arrays.datapath import Operand, term_products
from sparqsim.architectures.arrays.folds import Dataflow
from sparqsim.architectures.arrays.rules import ArrayRules, Drain, ant_authors_rules, grid_rules
from sparqsim.architectures.arrays.scales import (
    AUTHORS_GROUPS,
    groups_refused,
    tokens_refused,
)
from sparqsim.architectures.arrays.shapes import ConvShape
from sparqsim.architectures.arrays.tiled import BankedMachine
from sparqsim.architectures.operands import Computes
from sparqsim.base import InputError
from sparqsim.workloads.encoded import EncodedLayer
from sparqsim.workloads.layers import Layer


class GangedMachine(BankedMachine, frozen=True, kw_only=True):
    """An array of 4-bit elements and gangs; see the module.

    Attributes
    ----------
    side_at_8_bits
        Rows and columns of gangs of four elements; twice as many elements at 4 bits.
    bits
        Width of layers that name none, 4 or 8.
    authors_model
        Whether copies, padding and sums move as in the performance model of ANT's authors.
    """

    known_as: ClassVar[str]  # in messages

    side_at_8_bits: int
    bits: int = 4  # published, of ANT and of OliVe
    authors_model: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self.side(self.bits)

    @property
    def stationary(self) -> Dataflow:
        """Which operand stays in the elements."""
        return Dataflow.OUTPUT_STATIONARY

    def side(self, bits: int) -> int:
        """Rows (and columns) of the array at a width: 4-bit elements, or gangs of four."""
        if bits not in (4, 8):
            raise InputError(
                f"{self.known_as} computes at 4 or 8 bits, got {bits!r}; store the tensor at 8"
            )
        return self.side_at_8_bits * (8 // bits)

    @property
    def multipliers_at_8_bits(self) -> int:
        """A gang of four elements each."""
        return self.side_at_8_bits**2

    @property
    def port_bits(self) -> tuple[float, float, float]:
        """A side of the array each."""
        return self.side_at_8_bits, self.side_at_8_bits, self.side_at_8_bits

    def finer_scales(self, computes: Computes, layer: EncodedLayer, bits: int) -> Computes:
        """With why operands of a width may not have scales of groups or tokens."""
        stays = self.stationary is not Dataflow.OUTPUT_STATIONARY
        rows = self.side(bits) if stays else None
        why = AUTHORS_GROUPS if self.authors_model else ""
        return dataclasses.replace(
            computes,
            no_groups=groups_refused(layer, rows=rows, why=why),
            no_tokens=tokens_refused(layer),
        )

    def rules(self, bits: int, *, drain: Drain = Drain.NONE) -> ArrayRules:
        """The model of ANT's authors with both operands at ``bits``.

        ``drain`` says when fill and drain are paid: never, as the authors have it, by default.
        """
        side = self.side(bits)
        return ant_authors_rules(
            side, self.stationary, bits, self.usable_bits, self.dram_bus, drain
        )

    def published_widths(self, layer: Layer) -> tuple[int, int]:
        """4 bits, or 8 where either operand of the layer needs more than 4.

        Raises
        ------
        InputError
            If 8 bits are not enough.
        """
        widest = max(layer.activation_bits or self.bits, layer.weight_bits or self.bits)
        if widest > 8:
            raise InputError(
                f"layer {layer.name!r}: {self.known_as} computes at 4 or 8 bits, got {widest}"
            )
        return (4, 4) if widest <= 4 else (8, 8)

    def layer_rules(self, shape: ConvShape, widths: tuple[int, int]) -> ArrayRules:
        """Folds back to back while they are not shorter than what is shifted behind them."""
        if self.authors_model:
            return self.rules(widths[0], drain=Drain.SHORT_PASSES)
        side = self.side(widths[0])
        return grid_rules(
            rows=side,
            columns=side,
            dataflow=self.stationary,
            bits=widths[0],
            sum_bits=self.sum_bits,
            usable_bits=self.usable_bits,
            dram=self.dram_bus,
        )

    def multiply(
        self, rows: NDArray[Any], columns: NDArray[Any], x: Operand, w: Operand
    ) -> NDArray[np.integer]:
        """Exponent-integer products of decoded codes."""
        return term_products(rows, columns, x, w)
