"""A plain systolic array of integer multipliers, 8 or 4 bits wide: what the others compare with.

Output-, weight- or input-stationary; every layer is unfolded (im2col) at the border, which makes
the copies as it reads the image in its buffer; three double-buffered SRAMs, one DRAM port. An
element multiplies two integers and adds to a 32-bit accumulator. Nothing is decoded and nothing
composed: a layer that needs 8 bits cannot run on an array of 4-bit elements, and a layer of 4 bits
gains nothing on one of 8. Sizes, clock and energies are those of ANT's array, so that what differs
in a comparison is the arithmetic; all of it is assumed.

With ``multiplier="shift"`` an element shifts and adds instead: weights are powers of two or sums of
a few, one term per cycle (:mod:`.shifting`).

With ``sparsity="N:M"`` a weight-stationary array keeps only the N weights of M neighbours along
the reduction (channels of one tap) that are not zero, each with its place among the M, by which an
element picks its activation: R rows of elements then cover R M / N places of the reduction, and
weights are stored as N values with indices. Weights of more non-zeros run dense. Left out: the
wires that bring M activations to each selector, and what the netlist of tiles leaves out.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any, ClassVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from sparqsim.architectures.arrays.datapath import Operand
from sparqsim.architectures.arrays.energies import ANT_ENERGY, borrowed
from sparqsim.architectures.arrays.folds import NM, Dataflow
from sparqsim.architectures.arrays.rules import ArrayRules, grid_rules
from sparqsim.architectures.arrays.scales import groups_refused, tokens_refused
from sparqsim.architectures.arrays.shapes import ConvShape
from sparqsim.architectures.arrays.shifting import (
    Multiplier,
    Shifts,
    formats,
    grid_of,
    shifted_weights,
)
from sparqsim.architectures.arrays.tiled import BankedMachine
from sparqsim.architectures.machine import Program
from sparqsim.architectures.operands import Computes
from sparqsim.base import InputError
from sparqsim.simulator.energy import scaling
from sparqsim.simulator.energy.tables import EnergyTable
from sparqsim.simulator.mac import shift
from sparqsim.workloads import recipes
from sparqsim.workloads.encoded import Coded, EncodedLayer, Role, as_kernels
from sparqsim.workloads.formats.powers import PoT
from sparqsim.workloads.layers import Layer
from sparqsim.workloads.recipes import Recipe, TensorRecipe

DENSE = "dense"
ENERGY = borrowed(ANT_ENERGY, "plain", "assumed as ANT's array")


class PlainArray(BankedMachine, frozen=True, kw_only=True):
    """Configuration; all of it assumed, as ANT's array of gangs of four.

    Attributes
    ----------
    rows
        Elements along one side of the array.
    columns
        Elements along the output channels.
    bits
        Width of both operands, 4 or 8.
    dataflow
        What stays in the elements: outputs (os), weights (ws) or inputs (is).
    multiplier
        How an element makes a product: by an integer multiplier, or by shifting and adding, a power
        of two a cycle.
    sparsity
        Weights the elements keep: "dense", or "N:M" of a weight-stationary array.
    energy_table
        What prices a run: "published" is ANT's energies, assumed, else a shipped table.
    """

    name: ClassVar[str] = "plain"
    title: ClassVar[str] = "Plain systolic array of integer multipliers, for comparison"

    published: ClassVar[EnergyTable] = ENERGY
    assumed: ClassVar[frozenset[str]] = frozenset(
        (
            "input_buffer_kib",
            "weight_buffer_kib",
            "output_buffer_kib",
            "dram_gbytes_per_s",
            "clock_hz",
            "node_nm",
            "dataflow",
            "sparsity",
            "rows",
            "columns",
            "bits",
        )
    )

    rows: int = 32
    columns: int = 32
    bits: int = 8
    weight_buffer_kib: int = 128
    input_buffer_kib: int = 256
    output_buffer_kib: int = 128
    dram_gbytes_per_s: float = 64.0
    clock_hz: float = 500e6
    node_nm: float = 28.0
    dataflow: Dataflow = Dataflow.OUTPUT_STATIONARY
    multiplier: Multiplier = Multiplier.INTEGER
    sparsity: str = DENSE

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.bits not in (4, 8):
            raise InputError(f"PlainArray.bits must be 4 or 8, got {self.bits}")
        kept = self.kept
        if kept is not None and self.dataflow is not Dataflow.WEIGHT_STATIONARY:
            raise InputError(
                f"PlainArray.sparsity {self.sparsity} needs weights that stay in the elements; "
                f"set dataflow to ws, got {self.dataflow.value}"
            )
        if kept is not None and self.multiplier is Multiplier.SHIFT:
            raise InputError(
                f"PlainArray.sparsity {self.sparsity} needs multiplier integer: places of kept "
                "weights are not modelled beside shifts"
            )
        if kept is not None and kept.of % kept.kept:
            raise InputError(
                f"PlainArray.sparsity N:M must have an N that divides M, got {self.sparsity}"
            )

    @property
    def kept(self) -> NM | None:
        """The pattern of the weights, or None where all are kept."""
        if self.sparsity == DENSE:
            return None
        found = re.fullmatch(r"([1-9]\d?):([1-9]\d?)", self.sparsity)
        if found is None or int(found[1]) > int(found[2]):
            raise InputError(
                f'PlainArray.sparsity must be "dense" or "N:M" with N up to M, got '
                f"{self.sparsity!r}"
            )
        return NM(int(found[1]), int(found[2]))

    @property
    def multipliers_at_8_bits(self) -> float:
        """One an element; an element of 4 bits is priced as a quarter."""
        return self.rows * self.columns * self.bits**2 / 64

    @property
    def port_bits(self) -> tuple[float, float, float]:
        """Inputs of a row's elements, weights and sums of a column's."""
        return self.rows * self.bits, self.columns * self.bits, self.columns

    def computes(self, layer: EncodedLayer) -> Computes:
        """Integers of the array's width; weights that are shifts, sums of powers of two."""
        held = (f"int{self.bits}_unsigned", f"int{self.bits}_signed")
        weights = held if self.multiplier is Multiplier.INTEGER else formats(self.bits)
        return Computes(
            weights=weights,
            activations=held,
            zero_points=True,
            no_groups=self._no_groups(layer),
            no_tokens=tokens_refused(layer),
        )

    def _no_groups(self, layer: EncodedLayer) -> str:
        """Why weights may not have scales of groups, or nothing."""
        why = ""
        if self.multiplier is Multiplier.SHIFT:
            why = "which is not modelled beside shifts; choose the multiplier integer"
        elif self.kept is not None:
            why = f"which is not modelled beside sparsity {self.sparsity}; choose dense"
        stays = self.dataflow is not Dataflow.OUTPUT_STATIONARY
        return groups_refused(layer, rows=self.rows if stays else None, why=why)

    def recipe_for(self, layer: Layer) -> Recipe:
        """Integers of the array's width; powers of two of 4 bits as weights where it shifts."""
        own = recipes.get(f"int{self.bits}")
        if self.multiplier is Multiplier.INTEGER:
            return own
        weights = TensorRecipe(format="pot4", granularity="channel", calibration="mse")
        return msgspec.structs.replace(own, name=f"pot4a{self.bits}", weights=weights)

    @property
    def shifts(self) -> Shifts:
        """Of its own recipe's weights, where it shifts."""
        return Shifts.of(PoT(4, signed=True), self.bits)

    @property
    def energies(self) -> EnergyTable:
        """As of any array; a shifter in the place of a multiplier has its share."""
        table = super().energies
        if self.multiplier is Multiplier.INTEGER:
            return table
        entries = [
            scaling.follow(entry, [self.shifts.energy])
            if entry.name == "core_dynamic_per_compute_cycle"
            else entry
            for entry in table.entries
        ]
        return EnergyTable(name=table.name, entries=tuple(entries))

    def operand(self, layer: EncodedLayer, role: Role) -> Operand:
        """An operand as it enters the MAC core: integers, or words of shifts."""
        if role == "weights" and self.multiplier is Multiplier.SHIFT:
            return shifted_weights(layer)
        return super().operand(layer, role)

    def multiply(
        self, rows: NDArray[Any], columns: NDArray[Any], x: Operand, w: Operand
    ) -> NDArray[np.integer]:
        """Products of integers, or of integers and words of shifts."""
        if self.multiplier is Multiplier.INTEGER:
            return super().multiply(rows, columns, x, w)
        out = np.zeros((len(rows), columns.shape[1]), np.int32)
        shift.gemm(np.ascontiguousarray(rows, np.int64), np.ascontiguousarray(columns), out)
        return out

    def lower(self, layer: EncodedLayer) -> Program:
        """Multiply by integers or by shifts, whose number the weights' format says."""
        if self.multiplier is Multiplier.INTEGER:
            return self._lowered(layer)
        found = Shifts.of(grid_of(layer), self.bits)
        return _Shifting(of_format=found, **msgspec.structs.asdict(self))._lowered(layer)

    def _lowered(self, layer: EncodedLayer) -> Program:
        """Skip weights where the array keeps N of M and the layer has no more; else run dense."""
        if self.kept is not None and not self._skips(layer, self.kept):
            dense = msgspec.structs.replace(self, sparsity=DENSE)
            note = f"the weights are not {self.sparsity}: all of them are kept and multiplied"
            return _noted(dense._lowered(layer), note)
        pattern = layer.pattern
        if self.kept is None and pattern is not None:
            kept = f"{pattern.kept}:{pattern.group}"
            note = f"the weights are {kept}, but the array keeps all; sparsity with ws skips them"
            return _noted(super().lower(layer), note)
        return super().lower(layer)

    def _skips(self, layer: EncodedLayer, kept: NM) -> bool:
        """Whether no M neighbours along the channels of a tap have more than N non-zeros."""
        if layer.pattern is not None:
            return (layer.pattern.kept, layer.pattern.group) == (kept.kept, kept.of)
        if layer.is_outline or not isinstance(layer.weight, Coded):
            return False
        weights = as_kernels(layer.layer, layer.weight.values() != 0)
        odd = -weights.shape[1] % kept.of
        padded = np.pad(weights, ((0, 0), (0, odd), (0, 0), (0, 0)))
        split = padded.reshape(len(padded), -1, kept.of, *padded.shape[2:])
        return bool(split.sum(axis=2).max(initial=0) <= kept.kept)

    def published_widths(self, layer: Layer) -> tuple[int, int]:
        """The array's width, whatever less the layer needs."""
        widest = max(layer.activation_bits or 0, layer.weight_bits or 0)
        if widest > self.bits:
            raise InputError(
                f"layer {layer.name!r} needs {widest} bits, the array multiplies {self.bits}; "
                "give it bits=8 or the layer less"
            )
        return (self.bits, self.bits)

    def layer_rules(self, shape: ConvShape, widths: tuple[int, int]) -> ArrayRules:
        """Folds back to back while they are not shorter than what is shifted behind them."""
        rules = grid_rules(
            rows=self.rows,
            columns=self.columns,
            dataflow=self.dataflow,
            bits=self.bits,
            sum_bits=self.sum_bits,
            usable_bits=self.usable_bits,
            dram=self.dram_bus,
        )
        kept = self.kept
        if self.multiplier is Multiplier.SHIFT:
            bits = min(widths[1], self.bits)
            return msgspec.structs.replace(rules, repeats=self.shifts.terms, weight_bits=bits)
        if kept is None:
            return rules
        return msgspec.structs.replace(
            rules,
            reduction_per_step=self.rows * kept.of // kept.kept,
            weight_bits=kept.kept * (self.bits + (kept.of - 1).bit_length()),  # values and places
            weight_group=kept.of,
            weights_of_group=kept.kept,
        )


class _Shifting(PlainArray, frozen=True, kw_only=True):
    """An array that shifts, with the format of a layer's weights."""

    of_format: Shifts = Shifts(1, 16)

    def __post_init__(self) -> None:
        """All fields were checked when the array was made."""

    @property
    def shifts(self) -> Shifts:
        """Of the layer's weights."""
        return self.of_format


def _noted(program: Program, note: str) -> Program:
    return replace(program, notes=[note, *program.notes])
