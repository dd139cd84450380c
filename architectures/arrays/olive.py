"""OliVe (ISCA 2023): outlier-victim pairs decoded at the borders of a systolic array.

Large values (outliers) matter and are rare; OliVe stores one in the place of two: its neighbour,
the victim, becomes 0 and its code says so. Pairs stay aligned, a byte at 4 bits, so decoders along
the array's two borders (n + m of them) are all it takes: each looks at a pair and hands the
elements exponents and integers, <a, b>. An element computes <a, b> x <c, d> = (b d) << (a + c) into
a 32-bit accumulator; four 4-bit elements gang into one of 8 bits. Output-stationary.

Pairs are neighbours along the reduction: channels of a pixel, features of a vector; the last of an
odd number is coded as a normal value. Buffers, bandwidth, clock and energies are not published;
they are ANT's here, and assumed. OliVe's other form, decoders in a GPU's
tensor cores, is a format of :mod:`sparqsim.architectures.sparse_tensor_core`.
Source: the ISCA 2023 paper and its authors' quantizer; no simulator was released.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from sparqsim.architectures.arrays.datapath import Operand, in_shape, term_products
from sparqsim.architectures.arrays.energies import ANT_ENERGY, borrowed
from sparqsim.architectures.arrays.folds import Dataflow
from sparqsim.architectures.arrays.machine import BankedMachine, four_or_eight
from sparqsim.architectures.arrays.rules import ArrayRules, Drain, ant_authors_rules, grid_rules
from sparqsim.architectures.arrays.shapes import ConvShape
from sparqsim.architectures.operands import Computes
from sparqsim.architectures.pairs import EIGHT, FOUR, decoded
from sparqsim.base import InputError
from sparqsim.simulator.energy.tables import EnergyTable
from sparqsim.simulator.mac import flint
from sparqsim.workloads import recipes
from sparqsim.workloads.encoded import Coded, EncodedLayer, Role
from sparqsim.workloads.layers import Layer
from sparqsim.workloads.recipes import Recipe

ENERGY = borrowed(ANT_ENERGY, "olive", "assumed as ANT's, OliVe published none")


class Olive(BankedMachine, frozen=True, kw_only=True):
    """Configuration; sizes are ANT's and assumed, the array and its arithmetic published.

    Attributes
    ----------
    side_at_8_bits
        Rows and columns of gangs of four elements; twice as many elements at 4 bits.
    input_buffer_kib
        Input buffer, both halves.
    weight_buffer_kib
        Weight buffer, both halves.
    output_buffer_kib
        Output buffer, both halves.
    dram_bits_per_cycle
        Width of the DRAM interface.
    dram_clock_mhz
        Clock frequency of DRAM, which is not the array's.
    clock_mhz
        Clock frequency of the array.
    node_nm
        Technology.
    bits
        Width of layers that name none, 4 or 8.
    dram_standard
        "bus", so many bits a cycle without latency, or the name of a DRAM standard.
    dram_channels
        Channels of that standard.
    objective
        What a mapping is chosen by: cycles, energy, or their product (edp).
    authors_model
        Whether copies, padding and sums move as in the model of ANT's authors, in which the arrays
        that OliVe is compared with were run.
    energy_table
        What prices a run: "published" is ANT's energies, assumed, else a shipped table.
    """

    name: ClassVar[str] = "olive"
    recipe: ClassVar[str] = "olive4"
    title: ClassVar[str] = "OliVe (ISCA 2023): outlier-victim pairs, decoded at the borders"

    published: ClassVar[EnergyTable] = ENERGY
    assumed: ClassVar[frozenset[str]] = frozenset(
        (
            "input_buffer_kib",
            "weight_buffer_kib",
            "output_buffer_kib",
            "dram_bits_per_cycle",
            "dram_clock_mhz",
            "clock_mhz",
            "node_nm",
            "side_at_8_bits",
        )
    )

    side_at_8_bits: int = 32  # assumed: ANT's
    weight_buffer_kib: int = 128  # assumed: ANT's
    input_buffer_kib: int = 256  # assumed: ANT's
    output_buffer_kib: int = 128  # assumed: ANT's
    dram_bits_per_cycle: int = 1024  # assumed: ANT's
    clock_mhz: float = 500.0  # assumed: ANT's
    node_nm: float = 22.0  # assumed: recalled from the paper, unchecked
    bits: int = 4  # published
    authors_model: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self.side(self.bits)

    def side(self, bits: int) -> int:
        """Rows (and columns) of the array at a width: 4-bit elements, or gangs of four."""
        if bits not in (4, 8):
            raise InputError(f"OliVe computes at 4 or 8 bits, got {bits!r}; store the tensor at 8")
        return self.side_at_8_bits * (8 // bits)

    @property
    def multipliers_at_8_bits(self) -> int:
        """A gang of four elements each."""
        return self.side_at_8_bits**2

    @property
    def port_bits(self) -> tuple[float, float, float]:
        """A side of the array each."""
        return self.side_at_8_bits, self.side_at_8_bits, self.side_at_8_bits

    def computes(self, layer: EncodedLayer) -> Computes:
        """Pairs at 4 bits, and what is a pair without outliers; at 8 bits if either is wider."""
        both = [each for each in (layer.weight, layer.activation) if isinstance(each, Coded)]
        four = all(grid.name in FOUR for each in both for grid in each.formats)
        held = FOUR if four else EIGHT
        return Computes(weights=held, activations=held)

    def recipe_for(self, layer: Layer) -> Recipe:
        """Pairs of 8 bits where a table of layers publishes more than 4, else of its own width."""
        return recipes.get(f"olive{self.published_widths(layer)[0]}")

    def published_widths(self, layer: Layer) -> tuple[int, int]:
        """4 bits, or 8 where either operand of the layer needs more than 4."""
        return four_or_eight("OliVe", layer, self.bits)

    def layer_rules(self, shape: ConvShape, widths: tuple[int, int]) -> ArrayRules:
        """Output-stationary folds back to back while they are not shorter than what leaves."""
        side, outputs = self.side(widths[0]), Dataflow.OUTPUT_STATIONARY
        if self.authors_model:
            return ant_authors_rules(
                side, outputs, widths[0], self.rooms, self.dram_bus, Drain.SHORT_PASSES
            )
        return grid_rules(
            rows=side,
            columns=side,
            dataflow=outputs,
            bits=widths[0],
            sum_bits=self.sum_bits,
            rooms=self.rooms,
            dram=self.dram_bus,
        )

    def operand(self, layer: EncodedLayer, role: Role) -> Operand:
        """What the border decoders make of pairs along the channels."""
        tensor: Coded = layer.weight if role == "weights" else layer.activation  # type: ignore[assignment]
        words = flint.pack(decoded(tensor))
        return Operand(
            codes=in_shape(layer, role, words),
            levels=in_shape(layer, role, tensor.levels()).astype(np.float64),
            scale=tensor.scale,
            zero=tensor.zero_point,
            signed=True,
            bits=tensor.bits,
            tensor=tensor,
        )

    def multiply(
        self, rows: NDArray[Any], columns: NDArray[Any], x: Operand, w: Operand
    ) -> NDArray[np.integer]:
        """Exponent-integer products of decoded pairs."""
        return term_products(rows, columns, x, w)
