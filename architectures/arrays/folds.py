"""Systolic arrays: what a grid of processing elements costs in cycles, whatever sits in them.

An ``R x C`` grid multiplies an ``M x K`` by a ``K x N`` matrix in *folds*, each a part of the
product that fits the grid. One operand stays put in a fold and gives the dataflow its name; the
third dimension streams through, one step per cycle:

    output stationary   ceil(M/R) ceil(N/C) folds of K steps; results stay, then leave
    weight stationary   ceil(K/R) ceil(N/C) folds of M steps; weights are loaded first, R cycles
    input stationary    ceil(K/R) ceil(M/C) folds of N steps; inputs are loaded first, R cycles

Operands enter skewed, a row or column a cycle later than its neighbour, so a fold's last result
leaves R + C - 2 cycles after its last step begins. Simulators differ by whether that, and the load,
are paid per fold (nothing overlaps), per layer (folds follow back to back) or not at all: here it
is a named :class:`Charge`, which reports must print. A second closed form, :func:`column_edge`, is
the clock edge of a tile's result in a column-accumulating array as RTL has it.

Both are proved by netlists of single processing elements (:mod:`.elements`). Source: SCALE-Sim 3's
published equations (which count from cycle 0 and so print one less), Bit Fusion's RTL.
"""

from __future__ import annotations

import enum
from typing import NamedTuple

import msgspec

from sparqsim.architectures.checks import check_whole
from sparqsim.base import InputError


class Dataflow(enum.StrEnum):
    """Which operand stays in the processing elements."""

    WEIGHT_STATIONARY = "ws"
    OUTPUT_STATIONARY = "os"
    INPUT_STATIONARY = "is"


class Charge(enum.StrEnum):
    """How often an overhead of the array is paid."""

    PER_FOLD = "per fold"
    PER_LAYER = "per layer"
    NONE = "none"


class NM(NamedTuple):
    """Structured sparsity: ``kept`` non-zeros in every group of ``of`` along the reduction."""

    kept: int
    of: int


class Folds(msgspec.Struct, frozen=True, kw_only=True):
    """How a product folds on the grid and what it costs.

    Attributes
    ----------
    across_rows, across_columns : int
        Folds along either side of the grid.
    steps : int
        Streaming steps of one fold.
    load_cycles, skew_cycles : int
        Loading the stationary operand, and filling and draining, over the whole layer as charged.
    used : int
        Cells of the grid in use, summed over all folds.
    cells : int
        Cells of the grid.
    """

    across_rows: int
    across_columns: int
    steps: int
    load_cycles: int
    skew_cycles: int
    used: int
    cells: int

    @property
    def count(self) -> int:
        """Number of folds."""
        return self.across_rows * self.across_columns

    @property
    def streaming_cycles(self) -> int:
        """Steps of all folds."""
        return self.count * self.steps

    @property
    def cycles(self) -> int:
        """Total cycles, counted from 1."""
        return self.streaming_cycles + self.load_cycles + self.skew_cycles

    @property
    def mapping_efficiency(self) -> float:
        """Mean fraction of the grid in use in a fold."""
        return self.used / (self.count * self.cells)


class SystolicGrid(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A grid of processing elements and when its overheads are paid.

    Attributes
    ----------
    rows, columns : int
        Size of the grid.
    dataflow : Dataflow
        What stays in the processing elements.
    skew : Charge
        When filling and draining, ``rows + columns - 2`` cycles, is paid.
    load : Charge
        When loading the stationary operand, ``rows`` cycles, is paid (not output stationary).
    """

    rows: int
    columns: int
    dataflow: Dataflow = Dataflow.WEIGHT_STATIONARY
    skew: Charge = Charge.PER_LAYER
    load: Charge = Charge.PER_LAYER

    def __post_init__(self) -> None:
        check_whole("SystolicGrid", rows=self.rows, columns=self.columns)

    def folds(self, m: int, n: int, k: int, sparsity: NM | None = None) -> Folds:
        """Fold an ``m x k`` by ``k x n`` product, ``n`` counting output channels.

        ``sparsity`` is of the weights along ``k``; a weight-stationary grid then holds kept
        weights only, ``k kept / of`` rows of them.

        Raises
        ------
        InputError
            If a dimension is not a whole number of at least 1, or the grid cannot skip.
        """
        check_whole("product", m=m, n=n, k=k)
        if sparsity is not None:
            k = self._compressed(k, sparsity)
        down, across, steps = {
            Dataflow.OUTPUT_STATIONARY: (m, n, k),
            Dataflow.WEIGHT_STATIONARY: (k, n, m),
            Dataflow.INPUT_STATIONARY: (k, m, n),
        }[self.dataflow]
        across_rows, across_columns = -(-down // self.rows), -(-across // self.columns)
        times = {Charge.PER_FOLD: across_rows * across_columns, Charge.PER_LAYER: 1, Charge.NONE: 0}
        loads = self.dataflow is not Dataflow.OUTPUT_STATIONARY
        return Folds(
            across_rows=across_rows,
            across_columns=across_columns,
            steps=steps,
            load_cycles=times[self.load] * self.rows if loads else 0,
            skew_cycles=times[self.skew] * (self.rows + self.columns - 2),
            used=down * across,
            cells=self.rows * self.columns,
        )

    def _compressed(self, k: int, sparsity: NM) -> int:
        kept, of = sparsity
        check_whole("NM", kept=kept, of=of)
        if kept > of:
            raise InputError(f"N:M sparsity keeps at most M of M, got {kept}:{of}")
        if self.dataflow is not Dataflow.WEIGHT_STATIONARY:
            raise InputError(
                f"{kept}:{of} weights are skipped by a weight-stationary grid only, "
                f"this one is {self.dataflow}"
            )
        return -(-k * kept // of)


def column_edge(*, tile: int, column: int, steps: int, rows: int) -> int:
    """Return the clock edge after which a tile's result in a column is final.

    Tiles of ``steps`` steps enter back to back; inputs move one column per cycle and partial sums
    ripple down ``rows`` rows into an accumulator a column. Tiles and columns count from 0.
    """
    return (tile + 1) * steps + rows + column


def back_to_back_cycles(*, tiles: int, steps: int, rows: int, columns: int) -> int:
    """Return the cycles of a run of equal tiles without a bubble: the last tile's last edge."""
    return column_edge(tile=tiles - 1, column=columns - 1, steps=steps, rows=rows)
