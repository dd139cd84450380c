"""Markup that stands alone: elements, tables and whole pages, with every text escaped.

All pages are made of these few functions. What is not :class:`Html` already is text, whatever it
came from, and is escaped; so no name of a layer can become markup. A page carries its style and
its script, and a policy under which a browser loads nothing else and runs no other script.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from sparqsim.base import printable, written_whole

MOST_CHARACTERS = 300  # of a text from outside
LONG, SHORT = 32, 20  # characters of a cell: more may be broken anywhere, fewer nowhere
MANY_ROWS = 500  # of which a browser with script shows some at a time


class Html(str):
    """Markup that stands on a page as it is."""

    __slots__ = ()


def escape(text: str) -> Html:
    """Text as it stands on a page, whatever is in it."""
    return Html(html.escape(printable(text, MOST_CHARACTERS)))


def join(parts: Iterable[Any]) -> Html:
    """Pieces one behind the other; those that are not :class:`Html` are escaped, None is left out.

    Examples
    --------
    >>> join(["a<b ", h("b", "c")])
    'a&lt;b <b>c</b>'
    """
    return Html(
        "".join(
            part if isinstance(part, Html) else escape(str(part))
            for part in parts
            if part is not None
        )
    )


def h(tag: str, *children: Any, **attributes: Any) -> Html:
    """An element. ``class_`` is the attribute ``class``, ``data_x`` is ``data-x``.

    An attribute that is None or False is left out; one that is True stands without a value.

    Examples
    --------
    >>> h("p", "a<b", class_="n", id=None, hidden=True)
    '<p class="n" hidden>a&lt;b</p>'
    """
    told = []
    for name, value in attributes.items():
        if value is None or value is False:
            continue
        key = name.rstrip("_").replace("_", "-")
        given = value if isinstance(value, Html) else escape(str(value))
        told.append(f" {key}" if value is True else f' {key}="{given}"')
    closing = "" if tag in ("img", "meta", "br", "input") else f"</{tag}>"
    return Html(f"<{tag}{''.join(told)}>{join(children)}{closing}")


# ------------------------------------------------------------------ tables


@dataclass(frozen=True)
class Number:
    """A cell with a number: how it is written, and what it is sorted by (None: not known)."""

    text: str | Html
    value: float | None


@dataclass(frozen=True)
class Table:
    """A table with a caption that sorts and filters where scripts run.

    Attributes
    ----------
    caption, columns
        What it shows, and its headings.
    rows
        Cells as text, :class:`Html` or :class:`Number`. The first cell names its row.
    more
        What opens under each row; None: nothing.
    sums
        Rows that stay at the foot.
    plain
        Leave out sorting and filtering: of few rows whose order says something.
    """

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    more: Sequence[Html | None] = ()
    sums: Sequence[Sequence[Any]] = ()
    plain: bool = False
    kind: str = ""

    def html(self) -> Html:
        """The table; nothing where it has no rows."""
        if not self.rows:
            return Html("")
        numbers = [
            any(isinstance(row[place], Number) for row in self.rows)
            for place in range(len(self.columns))
        ]
        drawn = [
            any(isinstance(row[place], Html) and row[place].startswith("<div") for row in self.rows)
            for place in range(len(self.columns))
        ]
        head = h("tr", *(
            h("th", name, scope="col", class_="n" if is_number else "drawn" if is_drawn else None)
            for name, is_number, is_drawn in zip(self.columns, numbers, drawn, strict=True)
        ))  # fmt: skip
        if self.more:
            bodies = join(
                h("tbody", self._row(row, under), self._under(under))
                for row, under in zip(self.rows, self.more, strict=True)
            )
        else:
            bodies = h("tbody", *(self._row(row) for row in self.rows))
        foot = h("tfoot", *(self._row(row) for row in self.sums)) if self.sums else None
        kinds = [self.kind, "" if self.plain else "data"]
        return h(
            "div",
            h("table", h("caption", self.caption), h("thead", head), bodies, foot,
              class_=" ".join(kinds).strip() or None),
            class_="scroll", tabindex="0", role="region", aria_label=self.caption,
        )  # fmt: skip

    def _row(self, cells: Sequence[Any], under: Html | None = None) -> Html:
        first, *others = cells
        wraps = _wraps(first)
        if under is not None:
            first = h("details", h("summary", first))
        return h("tr", h("th", first, scope="row", class_=wraps), *map(_cell, others))

    def _under(self, under: Html | None) -> Html | None:
        if under is None:
            return None
        inside = h("div", under, class_="under")
        return h("tr", h("td", inside, colspan=len(self.columns)), class_="more")


def _wraps(cell: Any) -> str | None:
    """A class for a cell whose text may be broken anywhere to fit, or is better not broken."""
    if isinstance(cell, Html):
        return None
    characters = len(str(cell))
    return "long" if characters > LONG else "short" if 0 < characters <= SHORT else None


def _cell(cell: Any) -> Html:
    if not isinstance(cell, Number):
        return h("td", cell, class_=_wraps(cell))
    value = None if cell.value is None else Html(f"{cell.value:.6g}")
    return h("td", cell.text, class_="n", data_v=value)


# ------------------------------------------------------------------ a page


@cache
def _asset(name: str) -> str:
    return (files("sparqsim.simulator.pages") / name).read_text(encoding="utf-8")


def document(title: str, body: Sequence[Any], scripts: Sequence[str] = ()) -> str:
    """A whole page: it loads nothing, and runs the script of all pages and ``scripts``."""
    running = (_asset("page.js"), *scripts)
    allowed = " ".join(f"'sha256-{digest(script)}'" for script in running)
    policy = f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src {allowed}"
    head = join([
        h("meta", charset="utf-8"),
        h("meta", http_equiv="Content-Security-Policy", content=Html(policy)),
        h("meta", name="viewport", content="width=device-width,initial-scale=1"),
        h("title", title),
        h("style", Html(_asset("page.css"))),
    ])  # fmt: skip
    scripted = join(h("script", Html(script)) for script in running)
    page = h("html", h("head", head), h("body", h("main", *body), scripted), lang="en")
    return f"<!DOCTYPE html>\n{page}\n"


def digest(script: str) -> str:
    """What a page's policy calls a script by, so that no other one runs."""
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def write(text: str, path: str | os.PathLike[str]) -> Path:
    """Write a page to a file, whole or not at all; returns the path.

    Raises
    ------
    InputError
        If the file cannot be written.
    """
    with written_whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return Path(path)


def script_json(value: Any) -> Html:
    """JSON that a script of the page reads; nothing in it can close its element."""
    return Html(json.dumps(value, separators=(",", ":")).replace("<", "\\u003c"))


def section(title: str, *children: Any) -> Html:
    """A part of a page under a heading that the contents list; nothing where it is empty."""
    kept = [child for child in children if child not in (None, "")]
    if not kept:
        return Html("")
    name = "-".join("".join(c if c.isalnum() else " " for c in title.lower()).split())
    return h("section", h("h2", title, id=name), *kept, aria_labelledby=name)


def contents(sections: Sequence[Html]) -> Html:
    """Links to the sections of a page."""
    links = []
    for each in sections:
        if not each:
            continue
        name = each.split('id="', 1)[1].split('"', 1)[0]
        title = each.split(f'id="{name}">', 1)[1].split("</h2>", 1)[0]
        links.append(h("a", Html(title), href=f"#{name}"))
    return h("nav", *links, aria_label="Contents")
