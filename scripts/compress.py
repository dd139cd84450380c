"""``sparqsim compress``: quantize and prune a trained model by a recipe, and see what is left."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sparqsim_base import InputError, output_folder, written_whole

if TYPE_CHECKING:
    from rich.table import Table

    from workloads.compress import Report

WIDTH = 100
PATIENCE_SECONDS = 2.0  # a progress bar is shown to who waits longer


class PatientBar:
    """A progress bar on standard error that appears only after `PATIENCE_SECONDS`."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        self.started = time.perf_counter()
        self.bar = Progress(
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.description}"),
            console=Console(stderr=True),
            transient=True,
        )
        self.task = self.bar.add_task("")
        self.shown = False

    def __call__(self, what: str, done: int, total: int) -> None:
        self.bar.update(self.task, description=what, completed=done, total=total)
        if not self.shown and time.perf_counter() - self.started > PATIENCE_SECONDS:
            self.bar.start()
            self.shown = True

    def __enter__(self) -> PatientBar:
        return self

    def __exit__(self, *_: object) -> None:
        if self.shown:
            self.bar.stop()


def _decibels(value: float | None) -> str:
    return "exact" if value is None else f"{value:.1f}"


def _size(count: int) -> str:
    return f"{count / 1e6:.2f} MB" if count >= 1e6 else f"{count / 1e3:.2f} kB"


def _table(title: str, left: tuple[str, ...], right: tuple[str, ...]) -> Table:
    from rich.box import SIMPLE
    from rich.table import Table

    table = Table(
        title=title, title_justify="left", box=SIMPLE, padding=(0, 1, 0, 0), pad_edge=False
    )
    for column in left:
        table.add_column(column, no_wrap=True, overflow="ellipsis")
    for column in right:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def weights_table(report: Report) -> Table:
    """Return what became of each weight."""
    table = _table(
        f"{report.model} by {report.recipe}: weights",
        ("tensor", "shape", "format", "scale by", "layout"),
        ("bits", "density", "SQNR dB", "size"),
    )
    for row in report.tensors:
        table.add_row(
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
    return table


def activations_table(report: Report) -> Table:
    """Return what became of each operand, on the inputs for calibration."""
    table = _table(
        "activations, on the inputs for calibration",
        ("operand", "format", "range"),
        ("bits", "density", "SQNR dB"),
    )
    for row in report.activations:
        table.add_row(
            row.name,
            row.format,
            "each input's" if row.dynamic else "calibrated",
            str(row.code_bits),
            f"{row.density:.3f}",
            _decibels(row.sqnr_db),
        )
    return table


def summary_table(report: Report) -> Table:
    """Return sizes, and the network's measures before and after."""
    table = _table("", ("",), ("float32", report.recipe))
    size = f"{_size(report.bytes)} ({report.ratio:.2f}x less)"
    table.add_row("weights", _size(report.float32_bytes), size)
    noisy = [row for row in report.activations if row.sqnr_db is not None]
    if noisy:
        bits = "/".join(map(str, sorted({row.code_bits for row in report.activations})))
        worst = min(noisy, key=lambda row: row.sqnr_db or 0.0)
        table.add_row(f"activations ({len(report.activations)})", "32 bits", f"{bits} bits")
        table.add_row("least activation SQNR", "", f"{_decibels(worst.sqnr_db)} dB ({worst.name})")
    for name, before in report.float32.items():
        table.add_row(name, f"{before:.4f}", f"{report.compressed[name]:.4f}")
    table.add_row("time to compress", "", f"{report.seconds:.1f} s")
    return table


def _listing() -> str:
    from workloads.models.real import SUBJECTS
    from workloads.recipes import named

    rows = [f"  {name:<16}{recipe.description}" for name, recipe in named().items()]
    return "\n".join(["models: " + ", ".join(SUBJECTS), "recipes:", *rows])


def _show_list(context: click.Context, _: click.Parameter, asked: bool) -> None:
    if asked and not context.resilient_parsing:
        click.echo(_listing())
        context.exit()


@click.command("compress")
@click.argument("model")
@click.option("--recipe", required=True, metavar="FILE|NAME", help="A TOML file or a known name.")
@click.option("--out", metavar="DIR", help="Save the compressed model here.")
@click.option("--json", "json_path", metavar="FILE|-", help="Write the report; - is the terminal.")
@click.option("--activations", is_flag=True, help="List every activation, not just the worst.")
@click.option("--no-judge", is_flag=True, help="Do not run the network before and after.")
@click.option(
    "--list",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_list,
    help="List trained models and named recipes.",
)
def command(
    model: str,
    recipe: str,
    out: str | None,
    json_path: str | None,
    activations: bool,
    no_judge: bool,
) -> None:
    """Quantize and prune a trained MODEL by a recipe, without training.

    Shows bits, density, SQNR and size of every tensor and what the network still gets right.
    """
    import msgspec

    from workloads import compress, recipes
    from workloads.models.real import subject

    chosen = recipes.get(recipe)
    # Outputs are tried first: a run of many seconds must not end at a folder that is not there.
    if json_path not in (None, "-") and not Path(json_path or "").absolute().parent.is_dir():
        raise InputError(f"cannot write {json_path}: its folder does not exist")
    trained = subject(model)
    with PatientBar() as bar:
        compressed, report, stored = compress.compress(
            trained, chosen, judge=not no_judge, progress=bar
        )
    if out is not None:
        compress.save(output_folder(out), compressed, stored)
    if json_path is not None:
        text = msgspec.json.format(msgspec.json.encode(report), indent=1)
        if json_path == "-":
            sys.stdout.write(text.decode() + "\n")
            return
        with written_whole(json_path) as path:
            path.write_bytes(text + b"\n")
    _print(report, activations, out)


def _print(report: Report, activations: bool, out: str | None) -> None:
    from rich.console import Console

    terminal = Console()
    console = Console(width=min(WIDTH, terminal.width) if terminal.is_terminal else WIDTH)
    console.print(weights_table(report))
    if activations and report.activations:
        console.print(activations_table(report))
    console.print(summary_table(report))
    console.print(f"source: {report.source}", style="dim", highlight=False)
    if out is not None:
        console.print(f"saved in {out}", highlight=False)
