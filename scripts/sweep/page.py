"""A store on one page of HTML that stands alone: a table to sort, the Pareto front, every report.

It is made as every page (:mod:`sparqsim.simulator.pages`). All rows are there for who runs no
script; with one, some hundred are shown at a time, so that a page of ten thousand points opens at
once. Reports are packed (zlib), many together, and unpacked when a row is opened.
"""

from __future__ import annotations

import base64
import os
import zlib
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from sparqsim.base import InputError
from sparqsim.scripts.sweep.frame import Points
from sparqsim.scripts.sweep.index import Row
from sparqsim.scripts.sweep.measures import MEASURES, named
from sparqsim.scripts.sweep.plots import front
from sparqsim.simulator.pages.charts import HUES, Axis, Plot, legend, with_unit
from sparqsim.simulator.pages.html import (
    MANY_ROWS,
    Html,
    Number,
    Table,
    contents,
    document,
    h,
    script_json,
    section,
    write,
)
from sparqsim.simulator.pages.parts import captioned, facts

TOGETHER = 50  # reports packed into one piece
FEW_VALUES = HUES  # of a parameter, to be told by colours
MOST_VALUES = 6  # of a parameter that are named


def write_store_page(points: Points, path: str | os.PathLike[str], title: str) -> Path:
    """Write :func:`store_page` to a file, whole or not at all; returns the path."""
    return write(store_page(points, title), path)


def store_page(points: Points, title: str) -> str:
    """The points of a store as a page of HTML; ``title`` may say more than the store's name.

    Raises
    ------
    InputError
        If no point is done.
    """
    if not len(points):
        raise InputError(f"no point in {points.path} is done; there is nothing to show")
    name = points.path.resolve().name
    heading = f"{name}: {title}" if title and title != name else name
    names = [*points.varying, *(each for each in MEASURES if each in points.columns)]
    sections = [
        section("What varies", _varying(points)),
        section("Time and energy", *_picture(points)),
        section("Points", *_table(points, names)),
        section("Failed", _failed(points)),
    ]
    told = f"{len(points):,} points, {len(points.failed):,} failed · model {points.done[0].model}"
    body = [
        h("h1", heading), h("p", told, class_="sub"), _best(points), contents(sections), *sections,
        _packed(points),
    ]  # fmt: skip
    script = (files("sparqsim.scripts.sweep") / "page.js").read_text(encoding="utf-8")
    return document(heading, body, [script])


def _best(points: Points) -> Html:
    """The points that are best in something."""
    rows = [("Points", f"{len(points):,}", f"{len(points.failed):,} failed")]
    for name, what, unit, scale in (
        ("seconds", "Fastest", "s", 1.0),
        ("energy_pj", "Least energy", "J", 1e-12),
        ("edp_js", "Least energy x time", "Js", 1.0),
    ):
        known = [row for row in points.done if row.columns.get(name) is not None]
        if known:
            best = min(known, key=lambda row: row.columns[name])
            rows.append((what, with_unit(best.columns[name] * scale, unit), _where(points, best)))
    return facts(rows)


def _where(points: Points, row: Row) -> str:
    """The values of a point that vary, in words."""
    return ", ".join(f"{named(name)} {_text(row.columns.get(name))}" for name in points.varying)


def _varying(points: Points) -> Html:
    rows = []
    for name in points.varying:
        values = points.distinct(name)
        more = f", ... {_text(values[-1])}" if len(values) > MOST_VALUES else ""
        shown = ", ".join(map(_text, values[:MOST_VALUES])) + more
        rows.append([named(name), Number(f"{len(values):,}", len(values)), shown])
    return Table("Parameters that differ", ("name", "different", "values"), rows).html()


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return "–" if value is None else str(value)


def _cell(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return _text(value)
    return Number(f"{value:,}" if isinstance(value, int) else f"{value:.4g}", float(value))


def _table(points: Points, names: Sequence[str]) -> list[Html]:
    """One row per point, in the order of the keys; each opens to its report where a script runs."""
    rows = []
    for row in points.done:
        key = h("code", row.key[:8])
        rows.append([key, *(_cell(row.columns.get(name)) for name in names)])
    columns = ("point", *map(named, names))
    caption = "All points. With a script a row opens its report; a heading sorts."
    table = Table(caption, columns, rows, kind="points").html()
    if len(rows) > MANY_ROWS:
        table = Html(table.replace("<table ", '<noscript class="rows"><table ', 1).replace(
            "</table>", "</table></noscript>"
        ))  # fmt: skip
    return [table]


def _failed(points: Points) -> Html:
    rows = [[h("code", row.key[:8]), row.message] for row in points.failed]
    return Table("Points that could not be run, and why", ("point", "why"), rows).html()


def _packed(points: Points) -> Html:
    """All reports: for each piece the keys and the packed JSON of its reports."""
    pieces = []
    for start in range(0, len(points), TOGETHER):
        part = points.done[start : start + TOGETHER]
        reports = b"[" + b",".join(points.content(row.key) for row in part) + b"]"
        packed = base64.b64encode(zlib.compress(reports, 6)).decode()
        pieces.append([[row.key[:8] for row in part], packed])
    return h("script", script_json(pieces), type="application/json", id="reports")


def _picture(points: Points) -> list[Html]:
    """Time against energy with the front; a colour a value of the first parameter of few."""
    known = [
        row for row in points.done if row.columns.get("seconds") and row.columns.get("energy_pj")
    ]
    if not known:
        return []
    times = np.array([row.columns["seconds"] for row in known])
    energies = np.array([row.columns["energy_pj"] for row in known]) * 1e-12
    best = front(np.stack([times, energies], axis=1))
    best = best[np.argsort(times[best])]
    x = Axis.around(times, "time", "s")
    y = Axis.around(energies, "energy", "J")
    alt = f"Time and energy of {len(known):,} points; {len(best)} lie on the front"
    plot = Plot(x, y, alt, height=380)
    plot.line(times[best], energies[best], "roof")
    plot.dots(times[best], energies[best], "ring")
    hue = next((name for name in points.varying if len(points.distinct(name)) <= FEW_VALUES), "")
    values = [row.columns.get(hue) for row in known] if hue else [None] * len(known)
    keys = []
    ordered = points.distinct(hue) if hue else [None]
    for place, value in enumerate(map(repr, ordered)):
        mine = np.array([repr(each) == value for each in values])
        plot.dots(times[mine], energies[mine], f"dot c{place}")
        keys.append((f"c{place}", f"{named(hue)} {_text(ordered[place])}" if hue else "a point"))
    front_rows = [
        [h("code", known[place].key[:8]), _where(points, known[place]),
         Number(with_unit(times[place], "s"), times[place]),
         Number(with_unit(energies[place], "J"), energies[place])]
        for place in best
    ]  # fmt: skip
    caption = "A dot is a point; no other beats those that are ringed in both time and energy."
    return [
        legend(keys), captioned(plot.html(), caption),
        Table("The front", ("point", "values", "time", "energy"), front_rows).html(),
    ]  # fmt: skip
