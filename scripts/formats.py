"""``sparqsim formats``: which number formats there are, the codes of one, a figure of grids."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np
from rich.markup import escape

from sparqsim.base import InputError, written_whole
from sparqsim.scripts.output import console, json_option, table, write_json
from sparqsim.workloads import formats
from sparqsim.workloads.formats import Format, OutlierVictim, TableFormat

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.table import Table

MOST_ROWS = 256  # codes shown in a terminal; JSON has all of them
DRAWN = (  # the types of four bits that compete with each other, unsigned and signed
    *(f"{kind}_unsigned" for kind in ("int4", "flint4", "float_e3_4", "apot_4", "pot4")),
    *("int4_narrow", "flint4_signed", "float4_e2m1fn", "apot_4_signed", "pot4_signed"),
    *("ovp_int4", "ovp_flint4"),
)
FIGURE_KINDS = (".png", ".svg", ".pdf")


@click.command()
@click.argument("name", required=False)
@json_option
@click.option("--figure", "figure_path", metavar="FILE", help="Draw the values: png, svg or pdf.")
@click.option(
    "--quantize",
    "numbers",
    metavar="ROWS",
    help="Quantize numbers, such as 2.09,-0.98/0.05,-0.14: commas within a row, / between rows.",
)
@click.option("--asymmetric", is_flag=True, help="With a zero point; integer formats only.")
def command(
    name: str | None,
    json_path: str | None,
    figure_path: str | None,
    numbers: str | None,
    asymmetric: bool,
) -> None:
    """List the number formats, or the codes and values of the format NAME.

    The list is a choice: widths, biases and splits other than those listed are spelled by the
    grammar below the table. With --quantize, numbers are quantized to NAME by one scale.
    """
    chosen = None if name is None else formats.get(name)
    if numbers is None and asymmetric:
        raise InputError("--asymmetric changes nothing without --quantize; leave it out")
    if numbers is not None:
        if chosen is None or figure_path:
            raise InputError("--quantize needs the NAME of a format, and draws no --figure")
        from sparqsim.scripts.quantized import quantized, show_quantized

        made = quantized(chosen, numbers, asymmetric)
        if json_path:
            write_json(made, json_path)
        if json_path != "-":
            show_quantized(made)
        return
    if figure_path:
        drawn = [formats.get(each) for each in DRAWN] if chosen is None else [chosen]
        _write_figure(drawn, figure_path)
    if json_path:
        listed = [describe(formats.get(each)) for each in formats.names()]
        write_json(listed if chosen is None else describe(chosen) | _tables(chosen), json_path)
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


def _print_all() -> None:
    rows = [describe(formats.get(each)) for each in formats.names()]
    sources = list(dict.fromkeys(row["source"] for row in rows))
    listed = table(
        "", ("format",), ("bits", "values", "min", "max", "least size", "ties to", "source")
    )
    for row in rows:
        listed.add_row(
            row["name"],
            str(row["bits"]),
            str(row["count"]),
            *(f"{row[key]:g}" for key in ("min", "max", "least")),
            "even code" if row["ties"].endswith("even code") else "larger",
            str(sources.index(row["source"]) + 1),
        )
    screen = console()
    screen.print(listed)
    screen.print("\n[bold]sources[/bold]")
    for number, source in enumerate(sources, start=1):
        screen.print(f"{number}  {source}", markup=False)
    screen.print("\n[bold]any other is spelled[/bold]")
    for spelling in formats.GRAMMAR:
        screen.print(f"{spelling.shown}\n    {spelling.meaning}", markup=False)


def _print_one(format_: Format) -> None:
    screen = console()
    row = describe(format_)
    screen.print(
        f"[bold]{format_.name}[/bold]: {row['bits']} bits, {row['count']} values from "
        f"{row['min']:g} to {row['max']:g}, least size {row['least']:g}; {row['ties']}"
    )
    screen.print(f"source: {escape(row['source'])}")
    if isinstance(format_, OutlierVictim):
        screen.print(
            f"pairs: two codes of {format_.normal.name}; or a code of {format_.outlier.name} and "
            f"{format_.identifier:0{format_.bits}b} in its victim's place"
        )
        for part in (format_.normal, format_.outlier):
            screen.print(_code_table(part))
    else:
        assert isinstance(format_, TableFormat)
        screen.print(_code_table(format_))


def _code_table(format_: TableFormat) -> Table:
    rows = _rows(format_)
    more = f"the first {MOST_ROWS} of {len(rows)} codes; --json - has all of them"
    codes = table(
        f"\n{format_.name}",
        ("code",),
        ("value", "integer", "exponent", ""),
        more if len(rows) > MOST_ROWS else "",
    )
    for row in rows[:MOST_ROWS]:
        spare = "never encoded" if row.get("spare") else ""
        if row["value"] is None:
            codes.add_row(row["bits"], row["special"], "", "", spare)
        else:
            numbers = (str(row["integer"]), str(row["exponent"]))
            codes.add_row(row["bits"], f"{row['value']:.9g}", *numbers, spare)
    return codes


def _write_figure(drawn: Sequence[Format], path: str) -> None:
    suffix = Path(path).suffix.lower()
    if suffix not in FIGURE_KINDS:
        raise InputError(f"a figure's name must end in {', '.join(FIGURE_KINDS)}, got {path!r}")
    made = io.BytesIO()  # a PDF that meets a full disk halfway ends in an unrelated error
    draw(drawn).savefig(made, dpi=150, format=suffix[1:])
    with written_whole(path) as temporary:
        temporary.write_bytes(made.getvalue())


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
