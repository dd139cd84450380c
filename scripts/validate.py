"""``sparqsim validate``: the papers' tables beside ours, with the error of each number."""

from __future__ import annotations

import importlib
import os
import pkgutil
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sparqsim.base import InputError, output_folder
from sparqsim.scripts import validation
from sparqsim.scripts.output import (
    Differs,
    PatientBar,
    check_differences,
    console,
    refuse_folder,
    table,
)

if TYPE_CHECKING:
    from sparqsim.scripts.validation._book import Book, Produced


def validations() -> tuple[str, ...]:
    """Every validation there is: a module of :mod:`sparqsim.scripts.validation` each."""
    found = [each.name for each in pkgutil.iter_modules(validation.__path__)]
    return tuple(name.replace("_", "-") for name in found if not name.startswith("_"))


def load(name: str) -> click.Command:
    """The command that validates one machine or part.

    Raises
    ------
    InputError
        If there is none of that name.
    """
    known = validations()
    if name not in known:
        raise InputError(f"there is no validation {name!r}; there is {', '.join(known)}")
    module = importlib.import_module(f"{validation.__name__}.{name.replace('-', '_')}")
    command: click.Command = module.command
    return command


class ValidateGroup(click.Group):
    """One sub-command per validation, imported when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(validations())

    def get_command(self, ctx: click.Context, name: str) -> click.Command:
        return load(name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Validations"):
            formatter.write_dl(
                [(name, load(name).get_short_help_str(80)) for name in validations()]
            )


@click.group(cls=ValidateGroup, invoke_without_command=True)
@click.option("--all", "whole", is_flag=True, help="Run every validation; needs --report.")
@click.option(
    "--report",
    metavar="DIR",
    callback=refuse_folder,
    help="With --all: write every table, figure and number, and a page that sums them up.",
)
@click.option("--jobs", type=click.IntRange(1), help="With --all: processes; all cores by default.")
@click.pass_context
def command(context: click.Context, whole: bool, report: str | None, jobs: int | None) -> None:
    """Hold the papers' tables beside ours: all of them, or one.

    Exit code 1 where a number that must agree does not.
    """
    one = context.invoked_subcommand
    if whole != (report is not None) or (one and whole) or (jobs and not whole):
        raise InputError(
            "--all, --report DIR and --jobs go together, without the name of a validation"
        )
    if report is not None:
        write_report(Path(report), jobs or len(os.sched_getaffinity(0)))
    elif one is None:
        print_all()


def print_all() -> None:
    """Run every validation, one after the other, and print its tables."""
    found = []
    for name in validations():
        console().rule(name)
        try:
            load(name).main(args=[], prog_name=f"sparqsim validate {name}", standalone_mode=False)
        except Differs as difference:
            found.append(difference.message)
    check_differences("validate", found)


def write_report(folder: Path, jobs: int) -> None:
    """Run every validation in processes and write the report of them all."""
    from sparqsim.scripts.validation import _book as book
    from sparqsim.scripts.validation import _page as page

    output_folder(folder)
    with PatientBar() as bar:

        def told(run: Produced, done: int, runs: int) -> None:
            bar(run.command, done, runs)

        made = book.make(validations(), folder, jobs, told)
    page.write(made, folder)
    show(made, folder)
    wrong = [f"{run.command}: {run.differs or run.failed}" for run in made.runs]
    check_differences(
        "validate",
        [text for text, run in zip(wrong, made.runs, strict=True) if run.differs or run.failed],
    )


def show(made: Book, folder: Path) -> None:
    """Print the summary by table."""

    def percent(value: float | None) -> str:
        return "" if value is None else f"{100 * value:.1f} %"

    shown = table(
        "Every validation",
        ("validation", "table"),
        ("numbers", "held", "missed", "shown", "MAPE", "Spearman", "maximum"),
    )
    for each in made.summaries:
        total = each.total
        shown.add_row(
            each.validation,
            each.table,
            *(str(count) for count in (total.numbers, total.held, total.missed, total.shown)),
            percent(total.mape),
            "" if each.spearman is None else f"{each.spearman:.3f}",
            percent(total.maximum),
        )
    screen = console()
    screen.print(shown)
    screen.print(
        f"{len(made.unsupported)} numbers do not support their claim; all is in "
        f"{folder / 'index.html'}, made in {made.seconds:.0f} s by {made.jobs} processes"
    )
