"""The command ``sparqsim``: one row per sub-command, each imported only when it is called."""

from __future__ import annotations

import gc
import importlib
import io
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import click

from sparqsim.base import MEMORY_LIMIT, InputError, bytes_of, printable

# name -> (module:attribute, one line of help). Help is here so that `--help` imports nothing.
COMMANDS = {
    "run": (
        "sparqsim.scripts.run:command",
        "A network or a layer on one machine: cycles, energy, where time went.",
    ),
    "animate": (
        "sparqsim.scripts.animate:command",
        "Step through a small layer: tokens, queues and waits, cycle by cycle.",
    ),
    "compare": (
        "sparqsim.scripts.compare:command",
        "The same work on several machines, made comparable.",
    ),
    "diff": (
        "sparqsim.scripts.diff:command",
        "Two reports side by side: what changed, and why.",
    ),
    "explore": (
        "sparqsim.scripts.explore:command",
        "A page on which machine, recipe, batch and bandwidth are turned.",
    ),
    "sweep": (
        "sparqsim.scripts.sweep.command:command",
        "Thousands of points from a file, resumable; here or on a cluster.",
    ),
    "plot": (
        "sparqsim.scripts.sweep.plot_command:command",
        "Figures, tables and a page of a sweep's results.",
    ),
    "validate": (
        "sparqsim.scripts.validate:command",
        "The papers' tables beside ours, error by error.",
    ),
    "machines": (
        "sparqsim.scripts.machines:command",
        "The machines there are, and their datasheets.",
    ),
    "formats": (
        "sparqsim.scripts.formats:command",
        "Number formats: values, ranges, a figure of grids.",
    ),
    "compress": ("sparqsim.scripts.compress:command", "Quantize and prune a model by a recipe."),
    "train": (
        "sparqsim.scripts.train:command",
        "Compress a network and train what that broke.",
    ),
    "scenarios": (
        "sparqsim.scripts.scenarios.command:command",
        "Questions answered by measuring: a figure and a paragraph each.",
    ),
    "models": ("sparqsim.scripts.models:command", "The models there are, and their layers."),
    "grade": (
        "sparqsim.scripts.grade.command:command",
        "A student's sheet of a lab, and the grade of an answer file.",
    ),
}


@contextmanager
def loading() -> Iterator[None]:
    """Load modules without the collector of garbage, which would walk all that is loaded often.

    What is loaded stays, so that it is not walked later either.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


class LazyGroup(click.Group):
    """A group whose sub-commands are imported when they are called, from a table of rows."""

    def __init__(self, *args: object, table: dict[str, tuple[str, str]], **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        self.table = table

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.table)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in self.table:
            return None
        module, attribute = self.table[name][0].split(":")
        with loading():
            command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in self.table:
            known = ", ".join(self.table)
            raise InputError(f"{ctx.command_path} knows no {args[0]!r}; there is {known}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, row[1]) for name, row in self.table.items()])


@click.command(cls=LazyGroup, table=COMMANDS, context_settings={"max_content_width": 100})
@click.version_option(package_name="sparqsim")
@click.option(
    "--memory-limit",
    metavar="SIZE",
    help="Refuse work that would take more, such as 8GB; by default 3/4 of the machine's memory.",
)
def cli(memory_limit: str | None) -> None:
    """Sparqsim: cycles, energy and exact outputs of quantized and sparse accelerators."""
    if memory_limit is not None:
        bytes_of(memory_limit)
        os.environ[MEMORY_LIMIT] = memory_limit


def _fail(message: str) -> None:
    """Say what is wrong in one line and exit with code 2."""
    click.echo(f"error: {printable(message)}".replace("\n", " "), err=True)
    sys.exit(2)


def _end_well() -> None:
    """Let a request to end (SIGTERM) run what cleans up, as Ctrl-C does."""

    def end(number: int, _: object) -> None:
        sys.exit(128 + number)

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, end)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line: exit code 0, or 2 with one message when the input is at fault."""
    carry_out(cli, arguments, "sparqsim")


def carry_out(command: click.Command, arguments: list[str] | None = None, name: str = "") -> None:
    """Run a command as :func:`main` does; one that is interrupted ends with 130."""
    _end_well()
    try:
        command.main(args=arguments, prog_name=name or None, standalone_mode=False)
    except InputError as error:
        _fail(str(error))
    except click.ClickException as error:
        shown = io.StringIO()
        error.show(file=shown)
        click.echo(printable(shown.getvalue()), err=True, nl=False)
        sys.exit(error.exit_code)
    except MemoryError as error:
        _fail(f"there is not enough memory for this work ({error}); take less of it at once")
    except UnicodeEncodeError as error:
        _fail(f"a name holds what no file or terminal can be given: {error.reason}")
    except RecursionError:
        _fail("the input is nested too deeply to be read")
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(0)
        where = f"{error.filename}: " if error.filename else ""
        _fail(f"{where}{error.strerror or error}; nothing more was written")
    except click.Abort:
        sys.exit(130)


if __name__ == "__main__":
    main()
