"""``sparqsim formats``: which number formats there are, the codes of one, a figure of grids."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec
import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from sparqsim_base import InputError, written_whole
from workloads import formats
from workloads.formats import Format, OutlierVictim, TableFormat

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDE = 400  # columns where the output is no terminal: enough for any row, so none is broken
MOST_ROWS = 256  # codes shown in a terminal; JSON has all of them
DRAWN = (  # the types of four bits that compete with each other, unsigned and signed
    *(f"{kind}_unsigned" for kind in ("int4", "flint4", "float_e3_4", "apot_4", "pot4")),
    *("int4_narrow", "flint4_signed", "float4_e2m1fn", "apot_4_signed", "pot4_signed"),
    *("ovp_int4", "ovp_flint4"),
)
PLAIN: dict[str, Any] = {"box": None, "header_style": "bold", "pad_edge": False}
FIGURE_KINDS = (".png", ".svg", ".pdf")


@click.command()
@click.argument("name", required=False)
@click.option("--json", "json_path", metavar="FILE", help="Write JSON to FILE, or to - (stdout).")
@click.option("--figure", "figure_path", metavar="FILE", help="Draw the values: png, svg or pdf.")
def command(name: str | None, json_path: str | None, figure_path: str | None) -> None:
    """List the number formats, or the codes and values of the format NAME.

    The list is a choice: widths, biases and splits other than those listed are spelled by the
    grammar below the table.
    """
    chosen = None if name is None else formats.get(name)
    if figure_path:
        drawn = [formats.get(each) for each in DRAWN] if chosen is None else [chosen]
        _write_figure(drawn, figure_path)
    if json_path:
        listed = [describe(formats.get(each)) for each in formats.names()]
        _write_json(listed if chosen is None else describe(chosen) | _tables(chosen), json_path)
    elif chosen is not None:
        _print_one(chosen)
    elif not figure_path:
        _print_all()


def describe(format_: Format) -> dict[str, Any]:
    """What a row of the list says of a format."""
    values = format_.values
    sizes = np.abs(values[values != 0])
    return {
        "name": format_.name,
        "bits": format_.bits,
        "count": len(values),
        "min": float(values[0]),
        "max": float(values[-1]),
        "least": float(sizes.min()),
        "ties": format_.ties,
        "source": format_.source,
    }


def _rows(format_: TableFormat) -> list[dict[str, Any]]:
    rows = []
    for code, value in enumerate(format_.code_values):
        row: dict[str, Any] = {"code": code, "bits": f"{code:0{format_.bits}b}"}
        if np.isfinite(value):
            exponent, integer = format_.exponent_integer(code)
            row |= {"value": float(value), "exponent": exponent, "integer": integer}
        else:
            row |= {"value": None, "special": str(value)}
        if code in format_.unused_codes:
            row["spare"] = True
        rows.append(row)
    return rows


def _tables(format_: Format) -> dict[str, Any]:
    values = {"values": format_.values.tolist()}
    if isinstance(format_, OutlierVictim):
        return values | {
            "identifier": f"{format_.identifier:0{format_.bits}b}",
            "normal": {"name": format_.normal.name, "codes": _rows(format_.normal)},
            "outlier": {"name": format_.outlier.name, "codes": _rows(format_.outlier)},
        }
    assert isinstance(format_, TableFormat)
    return values | {"codes": _rows(format_)}


def _console() -> Console:
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=WIDE)


def _print_all() -> None:
    table = Table("format", **PLAIN)
    for heading in ("bits", "values", "min", "max", "least size"):
        table.add_column(heading, justify="right")
    table.add_column("ties to")
    table.add_column("source", overflow="fold")
    for each in formats.names():
        row = describe(formats.get(each))
        numbers = (f"{row[key]:g}" for key in ("min", "max", "least"))
        ties = "even code" if row["ties"].endswith("even code") else "larger"
        if "outlier" in row["ties"]:
            ties = "larger, outlier"
        source = escape(row["source"])
        table.add_row(each, str(row["bits"]), str(row["count"]), *numbers, ties, source)
    grammar = Table("any other is spelled", "meaning", **PLAIN)
    for spelling in formats.GRAMMAR:
        grammar.add_row(escape(spelling.shown), escape(spelling.meaning))
    console = _console()
    console.print(table)
    console.print()
    console.print(grammar)


def _print_one(format_: Format) -> None:
    console = _console()
    row = describe(format_)
    console.print(
        f"[bold]{format_.name}[/bold]: {row['bits']} bits, {row['count']} values from "
        f"{row['min']:g} to {row['max']:g}, least size {row['least']:g}; {row['ties']}"
    )
    console.print(f"source: {escape(row['source'])}")
    if isinstance(format_, OutlierVictim):
        console.print(
            f"pairs: two codes of {format_.normal.name}; or a code of {format_.outlier.name} and "
            f"{format_.identifier:0{format_.bits}b} in its victim's place"
        )
        for part in (format_.normal, format_.outlier):
            console.print(_code_table(part))
    else:
        assert isinstance(format_, TableFormat)
        console.print(_code_table(format_))


def _code_table(format_: TableFormat) -> Table:
    table = Table("code", title=f"\n{format_.name}", title_justify="left", **PLAIN)
    for heading in ("value", "integer", "exponent"):
        table.add_column(heading, justify="right")
    table.add_column("")
    rows = _rows(format_)
    for row in rows[:MOST_ROWS]:
        spare = "never encoded" if row.get("spare") else ""
        if row["value"] is None:
            table.add_row(row["bits"], row["special"], "", "", spare)
        else:
            numbers = (str(row["integer"]), str(row["exponent"]))
            table.add_row(row["bits"], f"{row['value']:.9g}", *numbers, spare)
    if len(rows) > MOST_ROWS:
        table.caption = f"the first {MOST_ROWS} of {len(rows)} codes; --json - has all of them"
    return table


def _write_json(content: Any, path: str) -> None:
    text = msgspec.json.format(msgspec.json.encode(content), indent=1).decode()
    if path == "-":
        click.echo(text)
        return
    with written_whole(path) as temporary:
        temporary.write_text(text + "\n")


def _write_figure(drawn: Sequence[Format], path: str) -> None:
    suffix = Path(path).suffix.lower()
    if suffix not in FIGURE_KINDS:
        raise InputError(f"a figure's name must end in {', '.join(FIGURE_KINDS)}, got {path!r}")
    with written_whole(path) as temporary:
        draw(drawn).savefig(temporary, dpi=150, format=suffix[1:])


def draw(drawn: Sequence[Format]) -> Figure:
    """The values of formats as ticks: left linear from the largest down, right in octaves."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 1.1 + 0.36 * len(drawn)), layout="constrained")
    linear, octaves = figure.subplots(1, 2, sharey=True)
    for place, format_ in enumerate(drawn):
        values = format_.values
        spacing = min(1.0, 60 / len(values))  # thin lines where values are many
        colour = f"C{(0 if format_.signed else 1) + 2 * isinstance(format_, OutlierVictim)}"
        style = {"ls": "", "marker": "|", "ms": 11, "mew": 0.5 + 1.2 * spacing, "color": colour}
        linear.plot(values / np.abs(values).max(), np.full(len(values), place), **style)
        sizes = values[values > 0]
        octaves.plot(np.log2(sizes / sizes.max()), np.full(len(sizes), place), **style)
    linear.set_yticks(range(len(drawn)), [format_.name for format_ in drawn], family="monospace")
    linear.set_ylim(len(drawn) - 0.5, -0.5)
    linear.set_xlabel("value / largest value")
    octaves.set_xlabel("log2 of (positive value / largest value)")
    linear.set_title("Values", loc="left")
    octaves.set_title("Range in octaves", loc="left")
    for axes in (linear, octaves):
        axes.grid(axis="y", lw=0.4, alpha=0.5)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(axis="y", length=0)
    return figure
