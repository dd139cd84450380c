"""Is a systolic array's closed form what a clocked array does, and what SCALE-Sim prints?

The oracle here is a grid of registers clocked by hand: it multiplies real matrices, and says when
the last result leaves. Then every row of ``scalesim_layers.csv`` (SCALE-Sim 3, 32 x 32, no stalls)
and of ``bitfusion_rtl_latency.csv`` (Bit Fusion's RTL) exactly.
"""

from __future__ import annotations

import csv
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paths import DATA

from sparqsim.architectures.arrays.bitfusion import BitFusion
from sparqsim.architectures.arrays.folds import NM, Charge, Dataflow, SystolicGrid
from sparqsim.base import InputError
from sparqsim.scripts.validation._arrays import compare_scalesim
from sparqsim.scripts.validation.systolic import REFERENCE


def clocked_weight_stationary(a: np.ndarray, w: np.ndarray) -> tuple[np.ndarray, int]:
    """Clock an R x C grid whose cells hold ``w``; return the product and the cycles it took.

    Weights ripple in from the top, R cycles. Row r of inputs enters r cycles late and moves right
    one column per cycle; partial sums move down one row per cycle and leave below the last row.
    """
    (rows, columns), pixels = w.shape, a.shape[0]
    held = np.zeros_like(w)
    cycles = 0
    for row in reversed(range(rows)):
        held = np.vstack([w[row], held[:-1]])
        cycles += 1
    assert np.array_equal(held, w)
    moving, sums = np.zeros_like(w), np.zeros_like(w)
    out = np.zeros((pixels, columns), w.dtype)
    taken = np.zeros(columns, int)
    for clock in range(pixels + rows + columns):
        entering = [
            a[clock - r, r] if 0 <= clock - r < pixels else 0 for r in range(rows)
        ]  # skewed by a cycle a row
        moving = np.column_stack([entering, moving[:, :-1]])
        sums = np.vstack([np.zeros(columns, w.dtype), sums[:-1]]) + moving * w
        for column in range(columns):
            pixel = clock - (rows - 1) - column
            if 0 <= pixel < pixels:
                out[pixel, column] = sums[-1, column]
                taken[column] += 1
        if (taken == pixels).all():
            return out, cycles + clock + 1
    raise AssertionError("the array never finished")


def clocked_output_stationary(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, int]:
    """Clock a grid that keeps its sums; both operands enter skewed from two sides."""
    (rows, depth), columns = a.shape, b.shape[1]
    right, down = np.zeros((rows, columns), a.dtype), np.zeros((rows, columns), a.dtype)
    sums = np.zeros((rows, columns), a.dtype)
    multiplied = np.zeros((rows, columns), int)
    for clock in range(depth + rows + columns):
        from_left = [a[r, clock - r] if 0 <= clock - r < depth else 0 for r in range(rows)]
        from_top = [b[clock - c, c] if 0 <= clock - c < depth else 0 for c in range(columns)]
        right = np.column_stack([from_left, right[:, :-1]])
        down = np.vstack([from_top, down[:-1]])
        sums = sums + right * down
        for r in range(rows):
            for c in range(columns):
                multiplied[r, c] += 0 <= clock - r - c < depth
        if (multiplied == depth).all():
            return sums, clock + 1
    raise AssertionError("the array never finished")


small = st.integers(1, 6)


@settings(deadline=None)
@given(rows=small, columns=small, stream=small, seed=st.integers(0, 99))
def test_one_fold_takes_as_long_as_a_clocked_array(
    rows: int, columns: int, stream: int, seed: int
) -> None:
    """Load, skew and steps of one full fold: to the cycle, while the product comes out right."""
    rng = np.random.default_rng(seed)
    a = rng.integers(-8, 8, (stream, rows))
    w = rng.integers(-8, 8, (rows, columns))
    product, cycles = clocked_weight_stationary(a, w)
    assert np.array_equal(product, a @ w)
    charged = {"rows": rows, "columns": columns, "skew": Charge.PER_FOLD, "load": Charge.PER_FOLD}
    ws = SystolicGrid(dataflow=Dataflow.WEIGHT_STATIONARY, **charged)
    assert ws.folds(m=stream, n=columns, k=rows).cycles == cycles
    # Input stationary is the transposed product with the operands' roles exchanged.
    still = SystolicGrid(dataflow=Dataflow.INPUT_STATIONARY, **charged)
    assert still.folds(m=columns, n=stream, k=rows).cycles == cycles

    b = rng.integers(-8, 8, (stream, columns))
    product, cycles = clocked_output_stationary(w[:, :1] * a.T, b)
    assert np.array_equal(product, (w[:, :1] * a.T) @ b)
    grid = SystolicGrid(dataflow=Dataflow.OUTPUT_STATIONARY, **charged)
    assert grid.folds(m=rows, n=columns, k=stream).cycles == cycles


def test_every_row_of_scalesim() -> None:
    """Cycles (theirs counts from 0), utilisation and mapping efficiency, three dataflows."""
    compared = compare_scalesim(REFERENCE).numbers
    assert len(compared) == 3 * 11
    assert [c for c in compared if not c.agrees] == []


def test_n_of_m_weights_shorten_the_reduction() -> None:
    """Weight stationary, N:M: the grid holds K N/M rows of weights, rounded up."""
    grid = SystolicGrid(rows=32, columns=32, skew=Charge.PER_FOLD, load=Charge.PER_FOLD)
    for kept, of in ((2, 4), (1, 4), (4, 4), (3, 8)):
        folds = grid.folds(m=196, n=256, k=2304, sparsity=NM(kept, of))
        by_hand = math.ceil(2304 * kept / of / 32) * 8 * (196 + 64 + 32 - 2)
        assert folds.cycles == by_hand
    assert grid.folds(m=3, n=3, k=5, sparsity=NM(2, 4)).used == 3 * 3  # ceil(2.5) rows


def test_the_three_answers_for_one_product() -> None:
    """1024^3 on 32 x 32: what a simulator says depends on when it charges, so ours is named."""

    def cycles(skew: Charge, load: Charge) -> int:
        return (
            SystolicGrid(rows=32, columns=32, skew=skew, load=load).folds(1024, 1024, 1024).cycles
        )

    assert cycles(Charge.NONE, Charge.NONE) == 1_048_576  # Timeloop
    assert cycles(Charge.PER_FOLD, Charge.PER_FOLD) - 1 == 1_144_831  # SCALE-Sim, from cycle 0
    assert cycles(Charge.PER_LAYER, Charge.PER_LAYER) == 1_048_576 + 32 + 62


def test_rtl_latency_of_bit_fusion() -> None:
    """Column m of tile t is final after edge (t + 1) T + N + m; the run ends with the last."""
    with (DATA / "bitfusion_rtl_latency.csv").open() as file:
        rows = [{key: int(value) for key, value in row.items()} for row in csv.DictReader(file)]
    assert len(rows) == 3
    for row in rows:
        machine = BitFusion(rows=row["N"], columns=row["M"])
        edges = [
            machine.final_edge(tile=row["tile"], column=column, steps=row["T_steps"])
            for column in (0, row["M"] - 1)
        ]
        assert edges == [row["edge_col0"], row["edge_colLast"]]
        total = machine.array_cycles(tiles=row["tiles"], steps=row["T_steps"])
        assert total == row["tiles"] * row["T_steps"] + row["N"] + row["M"] - 1
    assert edges[-1] == total


@pytest.mark.parametrize("bad", [0, -3, 2.0, math.nan, True, None])
def test_grids_and_products_are_counts(bad: object) -> None:
    """A side or dimension is a whole number of at least 1."""
    with pytest.raises(InputError, match=r"SystolicGrid.rows must be a whole number"):
        SystolicGrid(rows=bad, columns=4)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"product.k must be a whole number"):
        SystolicGrid(rows=4, columns=4).folds(m=1, n=1, k=bad)  # type: ignore[arg-type]


def test_sparsity_that_cannot_be_skipped_is_refused() -> None:
    """More kept than there are, or a dataflow that does not skip weights."""
    grid = SystolicGrid(rows=4, columns=4)
    with pytest.raises(InputError, match="at most M of M, got 5:4"):
        grid.folds(4, 4, 4, sparsity=NM(5, 4))
    with pytest.raises(InputError, match=r"NM.kept must be a whole number"):
        grid.folds(4, 4, 4, sparsity=NM(0, 4))
    still = SystolicGrid(rows=4, columns=4, dataflow=Dataflow.OUTPUT_STATIONARY)
    with pytest.raises(InputError, match="weight-stationary grid only, this one is os"):
        still.folds(4, 4, 4, sparsity=NM(2, 4))
