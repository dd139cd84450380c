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

from typing import ClassVar

import numpy as np

from sparqsim.architectures.arrays.datapath import Operand, in_shape
from sparqsim.architectures.arrays.energies import ANT_ENERGY, borrowed
from sparqsim.architectures.arrays.ganged import GangedMachine
from sparqsim.architectures.operands import Computes
from sparqsim.architectures.pairs import EIGHT, FOUR, decoded
from sparqsim.simulator.energy.tables import EnergyTable
from sparqsim.simulator.mac import flint
from sparqsim.workloads import recipes
from sparqsim.workloads.encoded import Coded, EncodedLayer, Role
from sparqsim.workloads.layers import Layer
from sparqsim.workloads.recipes import Recipe

ENERGY = borrowed(ANT_ENERGY, "olive", "assumed as ANT's, OliVe published none")


class Olive(GangedMachine, frozen=True, kw_only=True):
    """Configuration; sizes are ANT's and assumed, the array and its arithmetic published.

    Attributes
    ----------
    authors_model
        Whether copies, padding and sums move as in the model of ANT's authors, in which the arrays
        that OliVe is compared with were run.
    energy_table
        What prices a run: "published" is ANT's energies, assumed, else a shipped table.
    """

    name: ClassVar[str] = "olive"
    known_as: ClassVar[str] = "OliVe"
    recipe: ClassVar[str] = "olive4"
    title: ClassVar[str] = "OliVe (ISCA 2023): outlier-victim pairs, decoded at the borders"

    published: ClassVar[EnergyTable] = ENERGY
    assumed: ClassVar[frozenset[str]] = frozenset(
        (
            "input_buffer_kib",
            "weight_buffer_kib",
            "output_buffer_kib",
            "dram_gbytes_per_s",
            "clock_hz",
            "node_nm",
            "side_at_8_bits",
        )
    )

    side_at_8_bits: int = 32  # assumed: ANT's
    weight_buffer_kib: int = 128  # assumed: ANT's
    input_buffer_kib: int = 256  # assumed: ANT's
    output_buffer_kib: int = 128  # assumed: ANT's
    dram_gbytes_per_s: float = 64.0  # assumed: ANT's
    clock_hz: float = 500e6  # assumed: ANT's
    node_nm: float = 22.0  # assumed: recalled from the paper, unchecked

    def computes(self, layer: EncodedLayer) -> Computes:
        """Pairs at 4 bits, and what is a pair without outliers; at 8 bits if either is wider."""
        both = [each for each in (layer.weight, layer.activation) if isinstance(each, Coded)]
        four = all(grid.name in FOUR for each in both for grid in each.formats)
        held = FOUR if four else EIGHT
        found = Computes(weights=held, activations=held)
        return self.finer_scales(found, layer, 4 if four else 8)

    def recipe_for(self, layer: Layer) -> Recipe:
        """Pairs of 8 bits where a table of layers publishes more than 4, else of its own width."""
        return recipes.get(f"olive{self.published_widths(layer)[0]}")

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
