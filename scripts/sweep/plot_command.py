"""``sparqsim plot``: figures, tables and a page of a store."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args, get_type_hints

import click
import msgspec

from sparqsim.base import InputError
from sparqsim.scripts.output import (
    console,
    refuse_early,
    refuse_given,
    refuse_twice,
    table,
)
from sparqsim.scripts.sweep.file import Figure, load
from sparqsim.scripts.sweep.frame import Points

OF_FIGURES = (
    *("kind", "hue", "panel", "value", "log_x", "log_y", "knee", "relative_to_first", "output"),
)
KINDS = get_args(get_type_hints(Figure)["kind"])


@click.command("plot")
@click.argument("store")
@click.option("--x", metavar="NAME", default="", help="Along the x axis.")
@click.option("--y", metavar="NAME", multiple=True, help="Along the y axis; a panel for each.")
@click.option("--hue", metavar="NAME", default="", help="A line and colour for each of its values.")
@click.option("--panel", metavar="NAME", default="", help="A panel for each of its values.")
@click.option("--value", metavar="NAME", default="", help="What a heat map's cells show.")
@click.option("--kind", type=click.Choice(KINDS), default="lines", show_default=True,
              help="What is drawn.")  # fmt: skip
@click.option("--log-x", is_flag=True, help="Equal ratios along x.")
@click.option("--log-y", is_flag=True, help="Equal ratios along y.")
@click.option("--knee", is_flag=True, help="Mark where a curve bends: doubling x gains under 10 %.")
@click.option("--relative-to-first", is_flag=True, help="Over the first value of each line.")
@click.option("--where", metavar="EXPR", default="", help="Only points for which it is true.")
@click.option("--title", default="", help="Title of the figure or the page.")
@click.option("--output", metavar="FILE", callback=refuse_early, help="A .png or .svg.  [default: "
              "out/KIND.png]")  # fmt: skip
@click.option("--figures-of", metavar="FILE", help="Draw the figures of a sweep's file.")
@click.option("--folder", metavar="DIR", default="out", show_default=True, help="Of those figures.")
@click.option("--importance", metavar="NAME", help="Which parameter this measure depends on.")
@click.option("--failed", is_flag=True, help="List the points that failed, and why.")
@click.option("--page", metavar="FILE", callback=refuse_early, help="Write the store as one page.")
@click.option("--csv", "csv_path", metavar="FILE|-", callback=refuse_early, help="Write a table.")
@click.option("--parquet", metavar="FILE", callback=refuse_early, help="Write a Parquet table.")
@click.pass_context
def command(context: click.Context, /, store: str, **given: Any) -> None:
    """Draw a figure of the points in STORE, or say what there is to draw."""
    _check(context, given)
    points = Points(Path(store)).only(given.pop("where"))
    done = [
        _failed(points) if given["failed"] else False,
        _importance(points, given["importance"]) if given["importance"] else False,
        _figures(points, given),
        _tables(points, given),
    ]
    if not any(done):
        _show(points, store)


def _is_drawn(given: dict[str, Any]) -> bool:
    """Whether a figure is asked for."""
    return bool(given["x"] or given["y"] or given["kind"] == "parallel")


def _check(context: click.Context, given: dict[str, Any]) -> None:
    """Refuse what would change nothing, and two things in one file."""
    if not _is_drawn(given):
        refuse_given(context, OF_FIGURES, "without a figure, --x or --y")
        if not given["page"]:
            refuse_given(context, ("title",), "without a figure or a page")
    if not given["figures_of"]:
        refuse_given(context, ("folder",), "without --figures-of")
    if given["output"] and not given["output"].endswith((".png", ".svg")):
        raise InputError(f"--output must be named .png or .svg, got {given['output']}")
    files = {"--csv": "csv_path", "--parquet": "parquet", "--page": "page", "--output": "output"}
    refuse_twice({option: given[name] for option, name in files.items()})


def _tables(points: Points, given: dict[str, Any]) -> bool:
    if given["csv_path"]:
        points.csv(given["csv_path"])
    if given["parquet"]:
        points.parquet(given["parquet"])
    if given["page"]:
        from sparqsim.scripts.sweep.page import write_store_page

        write_store_page(points, given["page"], given["title"])
    return bool(given["csv_path"] or given["parquet"] or given["page"])


def _figures(points: Points, given: dict[str, Any]) -> bool:
    from sparqsim.scripts.sweep.plots import draw, draw_all, save

    if given["figures_of"]:
        for path in draw_all(points, load(given["figures_of"]), given["folder"]):
            click.echo(f"drew {path}")
    wanted = _is_drawn(given)
    if wanted:
        names = {field.name for field in msgspec.structs.fields(Figure)}
        chosen = {name: value for name, value in given.items() if name in names}
        chosen["y"] = list(given["y"])
        figure = Figure(name="figure", **chosen)
        output = Path(given["output"] or f"out/{figure.kind}.png")
        output.parent.mkdir(parents=True, exist_ok=True)
        save(draw(points, figure), output, figure.title or figure.name)
        click.echo(f"drew {output}")
    return wanted or bool(given["figures_of"])


def _failed(points: Points) -> bool:
    screen = console()
    listed = table(f"{len(points.failed):,} points failed", ("key", "message"), ())
    for row in points.failed:
        listed.add_row(row.key[:8], row.message)
    screen.print(listed)
    return True


def _importance(points: Points, measure: str) -> bool:
    from sparqsim.scripts.sweep.importance import importances

    found = importances(points, measure)
    listed = table(
        f"What {measure} depends on, over {len(points):,} points: {found[0].method}",
        ("parameter",),
        ("alone", "with all"),
        "alone, with all: share of the variance that it explains; that is lost without it",
    )
    for each in found:
        alone = "–" if each.first is None else f"{each.first:.3f}"
        listed.add_row(each.name, alone, f"{each.total:.3f}")
    console().print(listed)
    return True


def _show(points: Points, store: str) -> None:
    """Say what is there: counts, what varies, and the measures."""
    screen = console()
    screen.print(f"{store}: {len(points):,} points, {len(points.failed):,} failed", markup=False)
    if points.broken:
        screen.print(f"{points.broken:,} broken files, which a sweep will run again")
    if points.versions > 1:
        screen.print(
            f"points of {points.versions - 1} earlier versions of the model are there and left out"
        )
    if not len(points):
        raise InputError(f"no point in {store} is done")
    varying = table("What varies", ("name", "values"), ("different",))
    for name in points.varying:
        values = points.distinct(name)
        shown = ", ".join(map(str, values[:6])) + (", ..." if len(values) > 6 else "")
        varying.add_row(name, shown, str(len(values)))
    screen.print(varying)
    from sparqsim.scripts.sweep.frame import is_given

    measures = [name for name in points.columns if not is_given(name)]
    told = f"\nmeasures: {', '.join(measures)}, or any path in the report's JSON"
    screen.print(told, markup=False)
