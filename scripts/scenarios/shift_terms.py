"""What a multiplication by shifting costs: cycles and energy by the number of terms of a weight.

A layer with synthetic weights runs on the plain array: with an integer multiplier at 8 bits, and
with a shifter at powers of two (PoT, one term) and sums of them (APoT, terms of 2 bits). APoT buys
accuracy with terms, and each term is a cycle.

    python -m sparqsim.scripts.scenarios.shift_terms [--out docs/figures] [--data docs/data]
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec
import numpy as np

from sparqsim.architectures.arrays.plain import PlainArray
from sparqsim.architectures.arrays.shifting import Multiplier
from sparqsim.architectures.machine import run
from sparqsim.base import InputError, output_folder, written_whole
from sparqsim.scripts.scenarios.frame import open_frame
from sparqsim.simulator.palette import BLUE, GREEN, ORANGE
from sparqsim.workloads import formats
from sparqsim.workloads.formats.powers import APoT, PoT
from sparqsim.workloads.layers import Linear
from sparqsim.workloads.recipes import Recipe, TensorRecipe
from sparqsim.workloads.tensors import LayerTensors, synthetic

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROOT = Path(__file__).resolve().parents[2]
WEIGHTS = ("int8", "pot3", "pot4", "apot_4", "apot_5", "apot_6", "apot_7", "apot_8")
LAYER = Linear(name="fc", in_features=512, out_features=256, rows=64)


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A format of weights: terms of a value (0: an integer), cycles, energy and noise."""

    weights: str
    terms: int
    cycles: int
    array_nj: float
    sqnr_db: float


def work() -> LayerTensors:
    """The layer with its numbers."""
    return synthetic(LAYER, np.random.default_rng(0))


def measure(weights: str, tensors: LayerTensors) -> Row:
    """The layer with weights in a format, activations in 8-bit integers."""
    recipe = Recipe(
        name=weights,
        weights=TensorRecipe(format=weights, granularity="channel", calibration="mse"),
        activations=TensorRecipe(format="int8"),
    )
    shifts = weights != "int8"
    machine = PlainArray(multiplier=Multiplier.SHIFT if shifts else Multiplier.INTEGER)
    report = run(machine, tensors, recipe=recipe).report
    assert report.verification.status == "exact" and report.output_sqnr_db is not None
    array = next(part for part in report.energy.parts if part.part == "array dynamic")
    grid = formats.get(report.operands["weights"].stored_as)
    return Row(
        weights=weights,
        terms=grid.terms if isinstance(grid, PoT | APoT) else 0,
        cycles=report.cycles,
        array_nj=(array.energy_pj or 0.0) / 1e3,
        sqnr_db=report.output_sqnr_db,
    )


def draw(rows: list[Row]) -> Figure:
    """Noise, cycles and energy of each format, beside the integer's."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.6, 3.4), layout="constrained")
    panels = figure.subplots(1, 3)
    names = [row.weights for row in rows]
    whole = next(row for row in rows if not row.terms)
    for axes, title, values in (
        (panels[0], "signal to noise of the outputs (dB)", [row.sqnr_db for row in rows]),
        (panels[1], "cycles over int8's", [row.cycles / whole.cycles for row in rows]),
        (panels[2], "array energy over int8's", [row.array_nj / whole.array_nj for row in rows]),
    ):
        colours = [GREEN if not row.terms else BLUE if row.terms == 1 else ORANGE for row in rows]
        bars = axes.bar(names, values, color=colours)
        told = [str(row.terms) if row.terms else "" for row in rows]
        axes.bar_label(bars, labels=told, fontsize=8)
        axes.set_title(title, fontsize=10)
        axes.tick_params(axis="x", rotation=60)
        open_frame(axes)
    figure.supxlabel("format of the weights; above a bar the terms of a value", fontsize=9)
    return figure


@click.command()
@click.option("--out", type=click.Path(path_type=Path), default=ROOT / "docs" / "figures")
@click.option("--data", type=click.Path(path_type=Path), default=ROOT / "docs" / "data")
def main(out: Path, data: Path) -> None:
    """Draw what a term costs and what it buys, and write the numbers as JSON."""
    try:
        tensors = work()
        rows = [measure(weights, tensors) for weights in WEIGHTS]
        with written_whole(output_folder(out) / "shift_terms.png") as path:
            draw(rows).savefig(path, dpi=150)
        with written_whole(output_folder(data) / "shift_terms.json") as path:
            path.write_bytes(msgspec.json.format(msgspec.json.encode(rows), indent=1) + b"\n")
    except InputError as error:
        raise click.ClickException(str(error)) from None
    for row in rows:
        click.echo(
            f"{row.weights:7} {row.terms} terms {row.cycles:7,} cycles {row.array_nj:8.1f} nJ "
            f"{row.sqnr_db:5.1f} dB"
        )


if __name__ == "__main__":
    main()
