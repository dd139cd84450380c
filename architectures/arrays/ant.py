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

from typing import ClassVar

from sparqsim.architectures.arrays.cost import Cost, cost
from sparqsim.architectures.arrays.datapath import Operand, coded_operand
from sparqsim.architectures.arrays.energies import ANT_ENERGY as ENERGY
from sparqsim.architectures.arrays.folds import Dataflow
from sparqsim.architectures.arrays.ganged import GangedMachine
from sparqsim.architectures.arrays.rules import ArrayRules
from sparqsim.architectures.arrays.search import Objective, candidates
from sparqsim.architectures.arrays.shapes import ConvShape, Mapping
from sparqsim.architectures.operands import Computes
from sparqsim.base import InputError
from sparqsim.simulator.energy.tables import EnergyTable
from sparqsim.workloads import recipes
from sparqsim.workloads.encoded import Coded, EncodedLayer, Role
from sparqsim.workloads.layers import Layer
from sparqsim.workloads.recipes import Recipe

INT8 = ("int8_unsigned", "int8_signed")


class Ant(GangedMachine, frozen=True, kw_only=True):
    """The configuration of the paper; every number published.

    Attributes
    ----------
    dataflow
        Which operand stays in the elements: outputs (os) or weights (ws).
    authors_model
        Whether copies, padding and sums move as in the authors' performance model.
    energy_table
        What prices a run: "published" is the authors' energies, else a shipped table.
    """

    name: ClassVar[str] = "ant"
    known_as: ClassVar[str] = "ANT"
    recipe: ClassVar[str] = "ant4"
    title: ClassVar[str] = "ANT (MICRO 2022): adaptive numerical types, decoded at the borders"

    published: ClassVar[EnergyTable] = ENERGY
    batch: ClassVar[int] = 64  # published: images of the paper's evaluation

    side_at_8_bits: int = 32
    weight_buffer_kib: int = 128
    input_buffer_kib: int = 256
    output_buffer_kib: int = 128
    dram_gbytes_per_s: float = 64.0
    clock_hz: float = 500e6
    node_nm: float = 28.0
    dataflow: Dataflow = Dataflow.OUTPUT_STATIONARY

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.dataflow is Dataflow.INPUT_STATIONARY:
            raise InputError("ANT runs output- or weight-stationary, got input-stationary")

    @property
    def stationary(self) -> Dataflow:
        """Which operand stays in the elements."""
        return self.dataflow

    def analytic(self, shape: ConvShape, rules: ArrayRules, mapping: Mapping | None = None) -> Cost:
        """Return the closed form's cost, with the mapping of least cycles unless one is given."""
        chosen = mapping or candidates(shape, rules, self.rates, Objective.CYCLES)[0]
        return cost(shape, rules, chosen)

    def computes(self, layer: EncodedLayer) -> Computes:
        """ANT's types at 4 bits, for the tensor or a channel; 8-bit integers if either is wider."""
        if any(
            not isinstance(tensor, Coded) or tensor.bits > 4
            for tensor in (layer.weight, layer.activation)
        ):
            return self.finer_scales(Computes(weights=INT8, activations=INT8), layer, 8)
        types = tuple(
            f"{kind}4_{sign}" for kind in ("int", "flint", "pot", "float_e3_")
            for sign in ("unsigned", "signed")
        )  # fmt: skip
        found = Computes(weights=types, activations=types, channel_formats=True)
        return self.finer_scales(found, layer, 4)

    def recipe_for(self, layer: Layer) -> Recipe:
        """8-bit integers where a table of layers publishes them, else ANT's types."""
        return recipes.get("int8" if self.published_widths(layer)[0] == 8 else self.recipe)

    def operand(self, layer: EncodedLayer, role: Role) -> Operand:
        """What the border decoders make of codes."""
        return coded_operand(layer, role)
