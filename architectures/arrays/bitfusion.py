"""Bit Fusion (ISCA 2018): an array whose multipliers compose themselves to the operands' widths.

A BitBrick multiplies 2 bits by 2 bits, with a sign flag an operand. Sixteen make a Fusion Unit,
which composes them in two levels (2 -> 4 -> 8 bits) and emits one sum: at 8x8 bits one product a
cycle, at 2x2 bits sixteen, all of the same output, so low precision adds parallelism along the
*reduction*. 16 rows (reduction) x 32 columns (output channels) of Fusion Units; activations move
one register per column, partial sums ripple down a column into a 32-bit accumulator. Each Fusion
Unit has its slice of the weight buffer, so a tile's weights cost no load cycles. Three
double-buffered SRAMs, one DRAM port.

Here: the configuration, its composition and energies, and the authors' performance model as an
analytic twin (:meth:`BitFusion.analytic`, which leaves out array fill and drain). An event-driven
run (:meth:`BitFusion.lower`) is :mod:`.tiles`' netlist of tiles, back to back as the RTL has them;
outputs leave at the width of the next layer's activations, sums only where they do not stay. With
``authors_model`` the run moves what the authors' model moves: 32-bit sums there and back, padding
included. Convolutions of an image are unfolded (im2col), by the authors in DRAM; here the input
buffer holds the image and its port makes the copies (assumed). Activations are integers, unsigned
where none is negative; weights are signed, one scale per output channel; 1 bit is a sign. Left out:
pooling. Source: the ISCA 2018 paper and the authors' released simulator and RTL.
"""

from __future__ import annotations

from typing import Any, ClassVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from sparqsim.architectures.arrays.cost import Cost, cost
from sparqsim.architectures.arrays.datapath import Operand
from sparqsim.architectures.arrays.folds import back_to_back_cycles, column_edge
from sparqsim.architectures.arrays.rules import ArrayRules, AuthorsModel, Drain, Layout, Side
from sparqsim.architectures.arrays.scales import (
    AUTHORS_GROUPS,
    groups_refused,
    tokens_refused,
)
from sparqsim.architectures.arrays.search import Objective, candidates
from sparqsim.architectures.arrays.shapes import ConvShape, Mapping
from sparqsim.architectures.arrays.tiled import BankedMachine
from sparqsim.architectures.operands import Computes
from sparqsim.base import InputError
from sparqsim.simulator.energy.tables import Basis, EnergyTable, Entry, Kind, Unit
from sparqsim.simulator.mac import bitbrick
from sparqsim.workloads import recipes
from sparqsim.workloads.encoded import EncodedLayer
from sparqsim.workloads.layers import Layer
from sparqsim.workloads.recipes import Recipe

BRICK_BITS = 2  # published: a BitBrick multiplies 2 bits by 2 bits
FUSED_BITS = 8  # published: sixteen BitBricks compose to 8 x 8 bits
WIDTHS = (1, 2, 4, 8, 16)  # published; 1 bit computes as 2 and is stored as 1

_AUTHORS = "Bit Fusion authors' released simulator"
# Where the simulator prints more digits than its tables, they are solved from its per-layer
# energies, which are linear in the counters: every value rounds to the printed one.
_SOLVED = f"{_AUTHORS}: printed to 4 digits, the others solved from its 61 per-layer energies"


def _entry(name: str, value: float, unit: Unit, kind: Kind, basis: Basis, source: str) -> Entry:
    return Entry(
        name=name, value=value, unit=unit, node_nm=45, kind=kind, basis=basis, source=source
    )


ENERGY = EnergyTable(
    name="bitfusion",
    entries=(
        _entry(
            "core_dynamic_per_compute_cycle", 235.104, Unit.PJ_PER_CYCLE, Kind.LOGIC,
            Basis.PUBLISHED, _AUTHORS,
        ),
        _entry(
            "core_static_per_cycle", 0.0, Unit.PJ_PER_CYCLE, Kind.LOGIC,
            Basis.PUBLISHED, f"{_AUTHORS}: not charged apart",
        ),
        _entry(
            "dram_static_per_cycle", 0.0, Unit.PJ_PER_CYCLE, Kind.OFF_CHIP,
            Basis.PUBLISHED, f"{_AUTHORS}: not charged apart",
        ),
        *(
            _entry(name, value, Unit.PJ_PER_BIT, Kind.MEMORY, Basis.DERIVED, _SOLVED)
            for name, value in (
                ("weight_buffer_read", 0.02136568),  # .02137
                ("weight_buffer_write", 0.02891621),  # .02892
                ("input_buffer_read", 0.05947438),  # .05947
                ("input_buffer_write", 0.11370401),  # .11370
                ("output_buffer_read", 0.0331600),  # .03316; only the sum of both is determined,
                ("output_buffer_write", 0.0730793),  # .07308; the layers read and write alike
            )
        ),
        *(
            _entry(name, 15.0, Unit.PJ_PER_BIT, Kind.OFF_CHIP, Basis.PUBLISHED, _AUTHORS)
            for name in ("dram_read", "dram_write")
        ),
    ),
)  # fmt: skip


class BitFusion(BankedMachine, frozen=True, kw_only=True):
    """The configuration of the paper; every number published.

    Attributes
    ----------
    rows
        Fusion Units along the reduction.
    columns
        Fusion Units along the output channels.
    accumulator_bits
        Width of a partial sum in the output buffer.
    authors_model
        Whether tiles, padding and sums move as in the authors' performance model.
    energy_table
        What prices a run: "published" is the authors' energies, else a shipped table.
    """

    name: ClassVar[str] = "bitfusion"
    title: ClassVar[str] = "Bit Fusion (ISCA 2018): bit-level composable systolic array"

    published: ClassVar[EnergyTable] = ENERGY
    batch: ClassVar[int] = 16  # published: images of the paper's evaluation

    rows: int = 16
    columns: int = 32
    weight_buffer_kib: int = 64
    input_buffer_kib: int = 32
    output_buffer_kib: int = 16
    accumulator_bits: int = 32
    dram_gbytes_per_s: float = 12.0
    clock_hz: float = 500e6
    node_nm: float = 45.0
    authors_model: bool = False

    def products_per_unit(self, activation_bits: int, weight_bits: int) -> int:
        """Return the products a Fusion Unit sums in a cycle: (8/a)(8/w), 1 bit counted as 2.

        Operands above 8 bits count as 8 here and take several passes (:meth:`passes`).
        """
        a, w = (_composed(bits) for bits in (activation_bits, weight_bits))
        return max(1, FUSED_BITS // a) * max(1, FUSED_BITS // w)

    def passes(self, activation_bits: int, weight_bits: int) -> int:
        """Return the cycles of one step: 4 for 16 x 16 bits, 2 for 16 x 8 (assumed), else 1."""
        a, w = (_composed(bits) for bits in (activation_bits, weight_bits))
        return max(1, a // FUSED_BITS) * max(1, w // FUSED_BITS)

    def unfolds(self, shape: ConvShape) -> bool:
        """Whether the authors lay a layer out as im2col does: convolutions of an image."""
        return shape.taps > 1 and shape.in_channels <= 3  # published: 1 or 3 channels

    def rules(
        self,
        activation_bits: int,
        weight_bits: int,
        *,
        unfold: bool = False,
        drain: Drain = Drain.NONE,
    ) -> ArrayRules:
        """Return the authors' model at one pair of widths.

        Parameters
        ----------
        activation_bits, weight_bits : int
            1, 2, 4, 8 or 16.
        unfold : bool
            Lay activations out as im2col does, as the authors do where :meth:`unfolds`.
        drain : Drain
            When fill and drain are paid: never, as the authors have it, by default.
        """
        return msgspec.structs.replace(
            self._rules((activation_bits, weight_bits), unfold),
            output_bits=self.accumulator_bits,
            output_granule=1 if unfold else self.columns,
            drain=drain,
            skewed=None,
            authors=AuthorsModel(
                layout=Layout.UNFOLDED if unfold else Layout.PATCH,
                outputs_read_back=True,
                last_store_counted=True,
            ),
        )

    def _rules(self, widths: tuple[int, int], unfold: bool) -> ArrayRules:
        reduction = self.rows * self.products_per_unit(*widths)
        inputs, weights, outputs = self.usable_bits
        bits, cycles = self.dram_bus
        return ArrayRules(
            pixels_per_step=1,
            outputs_per_step=self.columns,
            reduction_per_step=reduction,
            taps_joined=unfold,
            repeats=self.passes(*widths),
            reduction_granule=reduction,
            outputs_padded=True,
            output_granule=self.columns,
            input_bits=widths[0],
            weight_bits=widths[1],
            sum_bits=self.accumulator_bits,
            output_bits=min(max(widths[0], BRICK_BITS), self.accumulator_bits),
            input_usable_bits=inputs,
            weight_usable_bits=weights,
            output_usable_bits=outputs,
            dram_bits=bits,
            dram_cycles=cycles,
            drain=Drain.PER_LAYER,
            drain_cycles=self.rows + self.columns - 1,
            skewed=Side.OUTPUTS,
        )

    def analytic(self, shape: ConvShape, rules: ArrayRules, mapping: Mapping | None = None) -> Cost:
        """Return the closed form's cost, with the mapping of least cycles unless one is given."""
        chosen = mapping or candidates(shape, rules, self.rates, Objective.CYCLES)[0]
        return cost(shape, rules, chosen)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not FUSED_BITS <= self.accumulator_bits <= 32:
            raise InputError(
                f"BitFusion.accumulator_bits must be {FUSED_BITS} to 32, "
                f"got {self.accumulator_bits}"
            )

    @property
    def sum_bits(self) -> int:
        """Width of an accumulator."""
        return self.accumulator_bits

    @property
    def multipliers_at_8_bits(self) -> int:
        """One a Fusion Unit."""
        return self.rows * self.columns

    @property
    def port_bits(self) -> tuple[float, float, float]:
        """A row's inputs, every unit's weights, a column's sum: each unit has its slice."""
        return self.rows, self.rows * self.columns, self.columns * self.accumulator_bits

    def computes(self, layer: EncodedLayer) -> Computes:
        """Signs, and integers of 2 to 16 bits with or without a sign, in any two widths."""
        widths = ("sign", *(f"int{b}_{s}" for b in WIDTHS[1:] for s in ("unsigned", "signed")))
        why = AUTHORS_GROUPS if self.authors_model else ""
        return Computes(
            weights=widths,
            activations=widths,
            zero_points=True,
            no_groups=groups_refused(layer, why=why),
            no_tokens=tokens_refused(layer),
        )

    def recipe_for(self, layer: Layer) -> Recipe:
        """The widths that a table of layers publishes, else the machine's own recipe."""
        if layer.activation_bits is None and layer.weight_bits is None:
            return super().recipe_for(layer)
        activations, weights = self.published_widths(layer)
        return recipes.of_widths(weights, activations)

    def published_widths(self, layer: Layer) -> tuple[int, int]:
        """The layer's bits, 8 where it says nothing."""
        found = (layer.activation_bits or FUSED_BITS, layer.weight_bits or FUSED_BITS)
        for bits in found:
            _composed(bits)
        return found

    def layer_rules(self, shape: ConvShape, widths: tuple[int, int]) -> ArrayRules:
        """Tiles back to back; fill and drain once a layer."""
        if self.authors_model:
            return self.rules(*widths, unfold=self.unfolds(shape), drain=Drain.PER_LAYER)
        return self._rules(widths, self.unfolds(shape))

    def multiply(
        self, rows: NDArray[Any], columns: NDArray[Any], x: Operand, w: Operand
    ) -> NDArray[np.integer]:
        """Products of 2-bit digits, shifted and added."""
        bits = (_composed(x.bits), _composed(w.bits))
        return bitbrick.gemm(rows, columns, bits, (x.signed, w.signed))

    def final_edge(self, *, tile: int, column: int, steps: int) -> int:
        """Return the clock edge after which a column's sum of a tile is final, as in the RTL."""
        return column_edge(tile=tile, column=column, steps=steps, rows=self.rows)

    def array_cycles(self, *, tiles: int, steps: int) -> int:
        """Return the array's cycles for equal tiles back to back, without a bubble."""
        return back_to_back_cycles(tiles=tiles, steps=steps, rows=self.rows, columns=self.columns)


def _composed(bits: int) -> int:
    """Return the width an operand is computed at."""
    if bits not in WIDTHS:
        raise InputError(
            f"Bit Fusion composes operands of {', '.join(map(str, WIDTHS))} bits, got {bits!r}; "
            "store the tensor at the next wider of them"
        )
    return max(bits, BRICK_BITS)
