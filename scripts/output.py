"""What every command prints with: one console, one table style, one way to write files, one bar."""

from __future__ import annotations

import csv
import io
import os
import textwrap
import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from sparqsim.base import (
    InputError,
    check_can_make_folder,
    check_can_write,
    printable,
    printable_json,
    written_whole,
)

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress
    from rich.table import Table
    from rich.text import Text

WIDTH = 100  # columns of a table where the output is not a terminal
MOST = 300  # characters of a cell
WIDEST_RIGHT = 60  # of a column that does not wrap: a long name leaves room for the others
PATIENCE_SECONDS = 2.0  # a progress bar is shown to who waits longer


class Differs(click.ClickException):
    """Numbers that should be equal are not: one message, exit code 1."""

    def show(self, file: Any = None) -> None:
        """Print the message."""
        click.echo(f"difference: {self.message}", err=True, file=file)


def check_differences(where: str, found: Sequence[str]) -> None:
    """Fail where numbers differ, naming the first few.

    Raises
    ------
    Differs
        If there are any.
    """
    if found:
        shown = "; ".join(found[:3]) + (f"; and {len(found) - 3} more" if len(found) > 3 else "")
        raise Differs(f"{where}: {shown}")


def refuse_early(_: click.Context, option: click.Parameter, path: str | None) -> str | None:
    """Refuse a file that cannot be written before the work, not after it.

    ``-`` is the terminal where the option's metavar says so (``FILE|-``), else it is refused.
    """
    if path == "-":
        if "|-" not in (option.metavar or ""):
            raise InputError(f"{option.opts[0]} cannot go to the terminal; name a file")
    elif path is not None:
        check_can_write(path)
    return path


def refuse_folder(_: click.Context, option: click.Parameter, path: str | None) -> str | None:
    """Refuse a folder that cannot be made or written before the work, not after it."""
    if path in ("", "-"):
        raise InputError(f"{option.opts[0]} must name a folder, got {path!r}")
    if path is not None:
        check_can_make_folder(path)
    return path


def real_path(path: str) -> str:
    """Return a path without links; as it is if it can be none, which who opens it tells."""
    try:
        return os.path.realpath(path)
    except ValueError:  # a NUL byte
        return path


def refuse_twice(files: Mapping[str, str | None]) -> None:
    """Refuse to write two things (by their option) to one file or to the terminal at once."""
    places: dict[str, str] = {}
    for option, path in files.items():
        if path is None:
            continue
        place = "the terminal" if path == "-" else real_path(path)
        if place in places and place != os.devnull:
            raise InputError(f"{places[place]} and {option} would both be written to {path}")
        places[place] = option


def refuse_given(context: click.Context, names: Iterable[str], why: str) -> None:
    """Refuse options that were given though they would change nothing."""
    flags = {parameter.name: parameter.opts[0] for parameter in context.command.params}
    for name in names:
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            raise InputError(f"{flags[name]} changes nothing {why}; leave it out")


json_option = click.option(
    "--json",
    "json_path",
    metavar="FILE|-",
    callback=refuse_early,
    help="Write JSON to a file; - is the terminal.",
)


def console() -> Console:
    """A console that is never wider than a table of 100 columns needs."""
    from rich.console import Console

    class Screen(Console):
        """A console on which no text steers the terminal, and no name is mistaken for a smiley."""

        def render_str(self, text: str, **options: Any) -> Text:
            return super().render_str(printable(text), **{"emoji": False, **options})

    screen = Screen(highlight=False)
    if not screen.is_terminal or screen.width > WIDTH:
        screen = Screen(highlight=False, width=WIDTH)
    return screen


def table(title: str, left: tuple[str, ...], right: tuple[str, ...], caption: str = "") -> Table:
    """A plain table: columns of text to the left, then of numbers to the right."""
    from rich.table import Table as RichTable
    from rich.text import Text

    def told(text: str, style: str) -> Text:
        """Words above or below a table, which may be wider than it."""
        lines = textwrap.fill(printable(text, MOST), WIDTH)
        return Text(lines, style, no_wrap=True, overflow="ignore")

    class Table(RichTable):
        """A table whose cells are text, no mark-up, and stay within a few lines."""

        def add_row(self, *cells: Any, **options: Any) -> None:
            kept = (marked(cell, "") if isinstance(cell, str) else cell for cell in cells)
            super().add_row(*kept, **options)

    made = Table(
        title=told(title, "bold") if title else None,
        title_justify="left",
        header_style="bold",
        box=None,
        pad_edge=False,
        caption=told(caption, "dim italic") if caption else None,
        caption_justify="left",
    )
    for heading in left:
        made.add_column(marked(heading, ""), overflow="fold")
    for heading in right:
        made.add_column(marked(heading, ""), justify="right", no_wrap=True, max_width=WIDEST_RIGHT)
    return made


def marked(text: str, style: str) -> Text:
    """A cell of a table in a style, such as ``red``; whatever is in it is shown as it stands."""
    from rich.text import Text

    return Text(printable(text, MOST), style)


def write_json(content: Any, path: str) -> None:
    """Write JSON to a file, whole or not at all, or to the terminal where ``path`` is ``-``."""
    import msgspec

    text = printable_json(msgspec.json.format(msgspec.json.encode(content), indent=2).decode())
    if path == "-":
        click.echo(text)
        return
    with written_whole(path) as temporary:
        temporary.write_text(f"{text}\n", encoding="utf-8")


def write_csv(columns: Sequence[str], rows: Iterable[Mapping[str, Any]], path: str) -> None:
    """Write a table with a header; a row may lack columns; ``-`` is the terminal."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _cell(value) for name, value in row.items()} for row in rows)
    if path == "-":
        click.echo(text.getvalue(), nl=False)
        return
    with written_whole(path) as temporary:
        temporary.write_text(text.getvalue(), encoding="utf-8")


def _cell(value: Any) -> Any:
    """A value of a table that a spreadsheet takes for text, not for a formula."""
    if not isinstance(value, str):
        return value
    text = printable(value)
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) else text


def progress_bar(**options: Any) -> Progress:
    """A bar on standard error with counts, the time left and a few words; none in a file."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    screen = Console(stderr=True)
    return Progress(
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.description}", markup=False),
        console=screen,
        transient=True,
        disable=not screen.is_terminal,
        **options,
    )


class PatientBar:
    """A progress bar on standard error that appears only after :data:`PATIENCE_SECONDS`.

    It tells the time left. Call it with what is being done, and how many steps of how many are
    done.
    """

    def __init__(self) -> None:
        self.bar = progress_bar()
        self.task = self.bar.add_task("")
        # A clock of its own: one long step must show the bar too.
        self.clock = threading.Timer(PATIENCE_SECONDS, self.bar.start)
        self.clock.daemon = True

    def __call__(self, what: str, done: int, total: int) -> None:
        shown = printable(what, WIDTH // 2)
        self.bar.update(self.task, description=shown, completed=done, total=total)

    def __enter__(self) -> PatientBar:
        self.clock.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.clock.cancel()
        self.clock.join()
        self.bar.stop()
