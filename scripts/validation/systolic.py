"""Systolic arrays: the closed form beside SCALE-Sim's layers, and beside single elements.

A table (``scalesim_layers.csv``, or one like it) has one layer per row: its matrix product, the
array, the dataflow, N:M sparsity of the weights if any. Fill, drain and the load of the stationary
operand are paid per fold there, and cycles counted from 0. Every row must agree exactly.

Then the closed form is held against netlists of single processing elements on small arrays, folds
apart and folds back to back, shapes drawn from a fixed seed.
Source: ``scalesim_layers.csv``, runs of SCALE-Sim 3 on a 32 x 32 array without stalls.
"""

from __future__ import annotations

from pathlib import Path

import click
import msgspec
import numpy as np

from sparqsim.architectures.arrays.elements import element_netlist
from sparqsim.architectures.arrays.folds import Charge, Dataflow, SystolicGrid
from sparqsim.scripts.output import console, json_option, table, write_json
from sparqsim.scripts.validation._arrays import (
    as_rows,
    compare_scalesim,
    count_table,
    report_table,
)
from sparqsim.scripts.validation._evidence import Evidence, Table
from sparqsim.simulator.engines import simulate

REFERENCE = Path(__file__).with_name("scalesim_layers.csv")
SEED = 1
SHAPES = 8  # of each dataflow and charge
LARGEST_SIDE, LARGEST_EXTENT = 8, 40

EVIDENCE = (
    Evidence(
        tables=(
            count_table("SCALE-Sim 3"),
            Table(
                title="cycles of the formula beside single elements",
                rows="elements",
                name="{dataflow} {charge}, {array}: {m} x {n} x {k}",
                published=("formula",),
                simulated="elements",
                held="equal",
            ),
        ),
    ),
)


class Proof(msgspec.Struct, frozen=True, kw_only=True):
    """Cycles of a small product by the closed form and by single elements."""

    dataflow: str
    charge: str
    array: str
    m: int
    n: int
    k: int
    formula: int
    elements: int


def back_to_back(grid: SystolicGrid, count: int, steps: int) -> int:
    """Cycles of folds that follow each other: each at least as long as the rows of the grid.

    A stationary operand, or the sums of an output-stationary grid, move one row per cycle beside
    the fold that computes; fill, drain and one such move are paid once.
    """
    return (count - 1) * max(steps, grid.rows) + steps + 2 * grid.rows + grid.columns - 2


def proofs() -> list[Proof]:
    """Small shapes, every dataflow, folds apart and back to back."""
    rng = np.random.default_rng(SEED)
    found = []
    for dataflow in Dataflow:
        for charge in (Charge.PER_FOLD, Charge.PER_LAYER):
            for _ in range(SHAPES):
                rows, columns = (int(v) for v in rng.integers(2, LARGEST_SIDE + 1, 2))
                m, n, k = (int(v) for v in rng.integers(1, LARGEST_EXTENT + 1, 3))
                grid = SystolicGrid(
                    rows=rows, columns=columns, dataflow=dataflow, skew=charge, load=charge
                )
                folds = grid.folds(m, n, k)
                formula = folds.cycles
                if charge is Charge.PER_LAYER:
                    formula = back_to_back(grid, folds.count, folds.steps)
                found.append(
                    Proof(
                        dataflow=dataflow.value,
                        charge=charge.value,
                        array=f"{rows}x{columns}",
                        m=m,
                        n=n,
                        k=k,
                        formula=formula,
                        elements=simulate(element_netlist(grid, folds)).cycles,
                    )
                )
    return found


@click.command()
@click.option(
    "--against",
    type=click.Path(path_type=Path),
    metavar="FILE.csv",
    help="A table with the columns of scalesim_layers.csv; default: the shipped one.",
)
@json_option
def command(against: Path | None, json_path: str | None) -> None:
    """The closed form of a systolic array: SCALE-Sim's layers, single elements."""
    if against is not None:
        report_table(against, compare_scalesim(against), json_path)
        return
    compared, small = compare_scalesim(REFERENCE), proofs()
    if json_path:
        write_json(
            {
                "rows": len({each.line for each in compared.numbers}),
                "numbers": len(compared.numbers),
                "compared": as_rows(compared.numbers),
                "mismatches": [each._asdict() for each in compared.numbers if not each.agrees],
                "elements": [
                    msgspec.structs.asdict(row) | {"equal": row.formula == row.elements}
                    for row in small
                ],
            },
            json_path,
        )
    if json_path == "-":
        return
    made = table(
        "Cycles of small products, folds apart or back to back",
        ("dataflow", "fill and drain", "array"),
        ("M", "N", "K", "formula", "elements"),
    )
    for row in small:
        made.add_row(
            *(row.dataflow, row.charge, row.array),
            *(str(v) for v in (row.m, row.n, row.k, row.formula, row.elements)),
            style="red" if row.formula != row.elements else None,
        )
    console().print(made)
    equal = sum(row.formula == row.elements for row in small)
    console().print(f"{equal} of {len(small)} products take the cycles of the formula.")
    report_table(REFERENCE, compared, None)
