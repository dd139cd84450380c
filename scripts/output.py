"""What every command prints with: one console, one table style, one way to write files, one bar."""

from __future__ import annotations

import csv
import io
import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from sparqsim.base import check_can_write, written_whole

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

WIDTH = 100  # columns of a table where the output is not a terminal
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


def refuse_early(_: click.Context, __: click.Parameter, path: str | None) -> str | None:
    """Refuse a file that cannot be written before the work, not after it."""
    if path not in (None, "-"):
        check_can_write(str(path))
    return path


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

    screen = Console(highlight=False)
    if not screen.is_terminal or screen.width > WIDTH:
        screen = Console(highlight=False, width=WIDTH)
    return screen


def table(title: str, left: tuple[str, ...], right: tuple[str, ...], caption: str = "") -> Table:
    """A plain table: columns of text to the left, then of numbers to the right."""
    from rich.table import Table

    made = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        header_style="bold",
        box=None,
        pad_edge=False,
        caption=caption or None,
        caption_justify="left",
    )
    for heading in left:
        made.add_column(heading, overflow="fold")
    for heading in right:
        made.add_column(heading, justify="right", no_wrap=True)
    return made


def write_json(content: Any, path: str) -> None:
    """Write JSON to a file, whole or not at all, or to the terminal where ``path`` is ``-``."""
    import msgspec

    text = msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n"
    if path == "-":
        click.echo(text, nl=False)
        return
    with written_whole(path) as temporary:
        temporary.write_bytes(text)


def write_csv(columns: Sequence[str], rows: Iterable[Mapping[str, Any]], path: str) -> None:
    """Write a table with a header; a row may lack columns; ``-`` is the terminal."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    if path == "-":
        click.echo(text.getvalue(), nl=False)
        return
    with written_whole(path) as temporary:
        temporary.write_text(text.getvalue(), encoding="utf-8")


class PatientBar:
    """A progress bar on standard error that appears only after :data:`PATIENCE_SECONDS`.

    It tells the time left. Call it with what is being done, and how many steps of how many are
    done.
    """

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )

        screen = Console(stderr=True)
        self.bar = Progress(
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.description}"),
            console=screen,
            transient=True,
            disable=not screen.is_terminal,
        )
        self.task = self.bar.add_task("")
        # A clock of its own: one long step must show the bar too.
        self.clock = threading.Timer(PATIENCE_SECONDS, self.bar.start)
        self.clock.daemon = True

    def __call__(self, what: str, done: int, total: int) -> None:
        self.bar.update(self.task, description=what, completed=done, total=total)

    def __enter__(self) -> PatientBar:
        self.clock.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.clock.cancel()
        self.clock.join()
        self.bar.stop()
