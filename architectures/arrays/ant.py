"""ANT (MICRO 2022): adaptive number types decoded at the borders of a systolic array.

Every tensor (or output channel) takes the type with the least error: int, power of two, float or
flint. Decoders along the array's borders turn each 4-bit code into an exponent and a base integer;
a processing element multiplies the bases, adds the exponents, shifts and accumulates. Four 4-bit
elements gang into one 8-bit integer element, so the array is 64 x 64 at 4 bits and 32 x 32 at 8. It
runs output-stationary or weight-stationary. Three double-buffered SRAMs, one DRAM port; every layer
is unfolded (im2col). Where that is done the paper does not say: here the input buffer holds the
image and the border makes the copies as it reads it (assumed, as TPU v1 does). Outputs leave
requantized to the width of the inputs; partial sums, where they do not stay, in 32 bits, and come
back.

The authors' performance model is an analytic twin (:meth:`Ant.analytic`, which leaves out array
fill and drain), and with ``authors_model`` a run moves what it moves: unfolded copies in DRAM,
outputs in 16-bit words, partial sums that never come back. A tile of outputs is not held against
its buffer there: with that rule the search finds every tiling of their tables, output- and
weight-stationary. Known quirks of the released code (non-square kernels taken as square, an
arithmetic 'geomean') are not copied. Source: the MICRO 2022 paper and the authors' released
simulator.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from sparqsim.architectures.arrays.cost import Cost, cost
from sparqsim.architectures.arrays.datapath import Operand, coded_operand, term_products
from sparqsim.architectures.arrays.energies import ANT_ENERGY as ENERGY
from sparqsim.architectures.arrays.folds import Dataflow
from sparqsim.architectures.arrays.machine import (
    INT8,
    BankedMachine,
    four_or_eight,
    wider_than,
)
from sparqsim.architectures.arrays.rules import ArrayRules, Drain, ant_authors_rules, grid_rules
from sparqsim.architectures.arrays.search import Objective, candidates
from sparqsim.architectures.arrays.shapes import ConvShape, Mapping
from sparqsim.architectures.operands import Computes
from sparqsim.base import InputError
from sparqsim.simulator.energy.tables import EnergyTable
from sparqsim.workloads import recipes
from sparqsim.workloads.encoded import EncodedLayer, Role
from sparqsim.workloads.layers import Layer
from sparqsim.workloads.recipes import Recipe


class Ant(BankedMachine, frozen=True, kw_only=True):
    """The configuration of the paper; every number published.

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
    dataflow
        Which operand stays in the elements: outputs (os) or weights (ws).
    bits
        Width of layers that name none, 4 or 8.
    dram_standard
        "bus", so many bits a cycle without latency, or the name of a DRAM standard.
    dram_channels
        Channels of that standard.
    objective
        What a mapping is chosen by: cycles, energy, or their product (edp).
    authors_model
        Whether copies, padding and sums move as in the authors' performance model.
    energy_table
        What prices a run: "published" is the authors' energies, else a shipped table.
    """

    name: ClassVar[str] = "ant"
    recipe: ClassVar[str] = "ant4"
    title: ClassVar[str] = "ANT (MICRO 2022): adaptive numerical types, decoded at the borders"

    published: ClassVar[EnergyTable] = ENERGY
    batch: ClassVar[int] = 64  # published: images of the paper's evaluation

    side_at_8_bits: int = 32
    weight_buffer_kib: int = 128
    input_buffer_kib: int = 256
    output_buffer_kib: int = 128
    dram_bits_per_cycle: int = 1024
    clock_mhz: float = 500.0
    node_nm: float = 28.0
    dataflow: Dataflow = Dataflow.OUTPUT_STATIONARY
    bits: int = 4
    authors_model: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.dataflow is Dataflow.INPUT_STATIONARY:
            raise InputError("ANT runs output- or weight-stationary, got input-stationary")
        self.side(self.bits)

    def side(self, bits: int) -> int:
        """Return rows (and columns) of the array at a width: 4-bit elements, or gangs of four."""
        if bits not in (4, 8):
            raise InputError(f"ANT computes at 4 or 8 bits, got {bits!r}; store the tensor at 8")
        return self.side_at_8_bits * (8 // bits)

    def rules(self, bits: int, *, drain: Drain = Drain.NONE) -> ArrayRules:
        """Return the authors' model with both operands at ``bits``.

        ``drain`` says when fill and drain are paid: never, as the authors have it, by default.
        """
        side = self.side(bits)
        return ant_authors_rules(side, self.dataflow, bits, self.rooms, self.dram_bus, drain)

    def analytic(self, shape: ConvShape, rules: ArrayRules, mapping: Mapping | None = None) -> Cost:
        """Return the closed form's cost, with the mapping of least cycles unless one is given."""
        chosen = mapping or candidates(shape, rules, self.rates, Objective.CYCLES)[0]
        return cost(shape, rules, chosen)

    @property
    def multipliers_at_8_bits(self) -> int:
        """A gang of four elements each."""
        return self.side_at_8_bits**2

    @property
    def port_bits(self) -> tuple[float, float, float]:
        """A side of the array each."""
        return self.side_at_8_bits, self.side_at_8_bits, self.side_at_8_bits

    def computes(self, layer: EncodedLayer) -> Computes:
        """ANT's types at 4 bits, for the tensor or a channel; 8-bit integers if either is wider."""
        if wider_than(layer, 4):
            return Computes(weights=INT8, activations=INT8)
        types = tuple(
            f"{kind}4_{sign}" for kind in ("int", "flint", "pot", "float_e3_")
            for sign in ("unsigned", "signed")
        )  # fmt: skip
        return Computes(weights=types, activations=types, channel_formats=True)

    def recipe_for(self, layer: Layer) -> Recipe:
        """8-bit integers where a table of layers publishes them, else ANT's types."""
        return recipes.get("int8" if self.published_widths(layer)[0] == 8 else self.recipe)

    def published_widths(self, layer: Layer) -> tuple[int, int]:
        """4 bits, or 8 where either operand of the layer needs more than 4."""
        return four_or_eight("ANT", layer, self.bits)

    def layer_rules(self, shape: ConvShape, widths: tuple[int, int]) -> ArrayRules:
        """Folds back to back while they are not shorter than what is shifted behind them."""
        if self.authors_model:
            return self.rules(widths[0], drain=Drain.SHORT_PASSES)
        return grid_rules(
            rows=self.side(widths[0]),
            columns=self.side(widths[0]),
            dataflow=self.dataflow,
            bits=widths[0],
            sum_bits=self.sum_bits,
            rooms=self.rooms,
            dram=self.dram_bus,
        )

    def operand(self, layer: EncodedLayer, role: Role) -> Operand:
        """What the border decoders make of codes."""
        return coded_operand(layer, role)

    def multiply(
        self, rows: NDArray[Any], columns: NDArray[Any], x: Operand, w: Operand
    ) -> NDArray[np.integer]:
        """Exponent-integer products of decoded codes."""
        return term_products(rows, columns, x, w)
