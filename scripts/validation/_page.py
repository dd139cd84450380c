"""One page of all validations, as Markdown and as HTML that asks for nothing elsewhere."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from sparqsim.base import written_whole
from sparqsim.scripts.validation._book import FAR, Book, Produced
from sparqsim.scripts.validation._evidence import Number, Statistics

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST = 60  # numbers of a table on the page; of longer ones those that were not held


class Rows(NamedTuple):
    """A table of the page; its columns ``numbers`` (first, one past the last) are numbers."""

    headings: tuple[str, ...]
    rows: list[tuple[str, ...]]
    numbers: tuple[int, int]

    def aligned_right(self) -> list[bool]:
        """Of each column."""
        first, end = self.numbers
        return [first <= column < end for column in range(len(self.headings))]


class Image(NamedTuple):
    """A figure of the page."""

    path: str
    text: str


class Heading(NamedTuple):
    """A heading of the page."""

    text: str
    level: int = 2


Block = Heading | Rows | Image | str


def blocks(made: Book) -> Iterator[Block]:
    """The page, from top to bottom."""
    yield Heading("Sparqsim: validation", 1)
    yield (
        f"Sparqsim {made.sparqsim}, Python {made.python}, {made.system}: "
        f"{len(made.runs)} runs in {made.jobs} processes, {made.seconds:.0f} s "
        f"({sum(run.cpu_seconds for run in made.runs):.0f} s of processor time)."
    )
    yield Heading("Summary")
    yield Rows(
        ("validation", "table", "numbers", "held", "missed", "shown", "fitted", "MAPE",
         "Spearman", "maximum", "of"),
        [(each.validation, each.table, *_counts(each.total), _percent(each.total.mape, ""),
          _rank(each.spearman), _percent(each.total.maximum), each.total.worst)
         for each in made.summaries],
        (2, 10),
    )  # fmt: skip
    yield (
        "Held: within the bound set for the number; missed: outside; shown: it has no bound, for "
        "an input of the comparison is not published; fitted: it agrees by construction and is in "
        "no statistic. MAPE: mean absolute relative error. Spearman: rank correlation, the least "
        "of the quantities with three numbers or more. Maximum: the greatest relative error."
    )
    yield Image("figures/errors.svg", "Relative error of every number, by validation")
    yield Heading("Claims that are not supported")
    yield (
        "Numbers that miss their bound and, of those without a bound, the ones that differ by "
        f"more than {100 * FAR:.0f} %."
    )
    yield Rows(
        ("validation", "number", "published", "ours", "error", "remark"),
        [(each.validation, each.number.name, *_pair(each.number), each.number.note)
         for each in made.unsupported],
        (2, 5),
    )  # fmt: skip
    for run in made.runs:
        yield from _run_blocks(run)
    yield Heading("Times")
    yield Rows(
        ("command", "s", "s of processor"),
        [(run.command, f"{run.seconds:.0f}", f"{run.cpu_seconds:.0f}") for run in made.runs],
        (1, 3),
    )


def _run_blocks(run: Produced) -> Iterator[Block]:
    yield Heading(run.command.removeprefix("sparqsim validate "))
    yield from re.sub(r":\w+:`[.~]*([^`]+)`", r"\1", run.about).split("\n\n")
    if run.failed:
        yield f"FAILED: {run.failed}"
    if run.differs:
        yield f"Numbers differ: {run.differs}"
    for table in run.tables:
        yield Heading(table.title, 3)
        yield Rows(
            ("quantity", "numbers", "held", "missed", "shown", "fitted", "MAPE", "Spearman",
             "maximum", "of"),
            [(each.quantity, *_counts(each), _percent(each.mape, ""), _rank(each.spearman),
              _percent(each.maximum), each.worst) for each in table.statistics],
            (1, 9),
        )  # fmt: skip
        numbers = table.numbers
        if len(numbers) > MOST:
            numbers = [each for each in numbers if each.state != "held"]
            yield (
                f"{len(table.numbers)} numbers; below are the {len(numbers)} that were not held. "
                f"All are in validation.json."
            )
        if numbers:
            yield Rows(
                ("number", "published", "ours", "error", "state"),
                [(each.name, *_pair(each), each.state) for each in numbers],
                (1, 4),
            )
    for figure in run.figures:
        yield Image(figure, Path(figure).stem.replace("_", " "))
    yield f"Printed: {run.printed}; it took {run.seconds:.0f} s."


def _counts(each: Statistics) -> tuple[str, ...]:
    return tuple(str(n) for n in (each.numbers, each.held, each.missed, each.shown, each.fitted))


def _pair(number: Number) -> tuple[str, str, str]:
    return f"{number.published:.4g}", f"{number.simulated:.4g}", _percent(number.error)


def _percent(value: float | None, sign: str = "+") -> str:
    return "" if value is None else f"{100 * value:{sign}.1f} %"


def _rank(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def markdown(made: Book) -> str:
    """The page as Markdown."""
    parts = []
    for block in blocks(made):
        if isinstance(block, Heading):
            parts.append(f"{'#' * block.level} {block.text}")
        elif isinstance(block, Image):
            parts.append(f"![{block.text}]({block.path})")
        elif isinstance(block, Rows):
            rule = ["--:" if right else "---" for right in block.aligned_right()]
            lines = [block.headings, rule, *block.rows]
            parts.append("\n".join("| " + " | ".join(_cells(line)) + " |" for line in lines))
        else:
            parts.append(block)
    return "\n\n".join(parts) + "\n"


def _cells(line: Sequence[str]) -> list[str]:
    return [" ".join(cell.split()).replace("|", "\\|") for cell in line]


STYLE = """
:root{color-scheme:light dark;--line:#8884}
body{font:16px/1.5 system-ui,sans-serif;max-width:72rem;margin:2rem auto;padding:0 1rem}
div.wide{overflow-x:auto}table{border-collapse:collapse;font-size:.9rem;margin:.5rem 0}
td,th{border-bottom:1px solid var(--line);padding:.2rem .6rem;text-align:left}
.n{text-align:right;white-space:nowrap;font-variant-numeric:tabular-nums}
img{max-width:100%;background:#fff;border-radius:4px}h2{margin-top:2.5rem}
"""


def page(made: Book) -> str:
    """The page as HTML, nothing of which is asked for elsewhere."""
    parts = [
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>Sparqsim: validation</title><style>{STYLE}</style></head><body>"
    ]
    for block in blocks(made):
        if isinstance(block, Heading):
            parts.append(f"<h{block.level}>{html.escape(block.text)}</h{block.level}>")
        elif isinstance(block, Image):
            text = html.escape(block.text, quote=True)
            parts.append(f'<p><img src="{html.escape(block.path)}" alt="{text}"></p>')
        elif isinstance(block, Rows):
            parts.append(_html_table(block))
        elif block.startswith("    "):
            parts.append(f"<pre>{html.escape(block)}</pre>")
        else:
            parts.append(f"<p>{html.escape(block)}</p>")
    return "\n".join([*parts, "</body></html>"]) + "\n"


def _html_table(block: Rows) -> str:
    def row(cells: Sequence[str], tag: str) -> str:
        kinds = [' class="n"' if right else "" for right in block.aligned_right()]
        inside = (
            f"<{tag}{kind}>{html.escape(cell)}</{tag}>"
            for kind, cell in zip(kinds, cells, strict=True)
        )
        return f"<tr>{''.join(inside)}</tr>"

    lines = [row(block.headings, "th"), *(row(cells, "td") for cells in block.rows)]
    return f'<div class="wide"><table>{"".join(lines)}</table></div>'


def draw(made: Book) -> Figure:
    """Relative error of every number, one line per validation, by state."""
    from matplotlib.figure import Figure

    colours = {"held": "#0072b2", "missed": "#d55e00", "shown": "#7a8794"}
    names = list(dict.fromkeys(run.name for run in made.runs))
    figure = Figure(figsize=(10, 0.6 + 0.42 * len(names)), layout="constrained")
    axes = figure.add_subplot()
    for state, colour in colours.items():
        points = [
            (100 * number.error, names.index(run.name))
            for run in made.runs
            for table in run.tables
            for number in table.numbers
            if number.state == state and number.error is not None
        ]
        axes.plot(*zip(*points, strict=True) if points else ([], []), "o", color=colour,
                  markersize=4, alpha=0.6, label=state)  # fmt: skip
    axes.axvline(0, color="#1b2a3a", linewidth=0.8)
    axes.set_xscale("symlog", linthresh=10)
    ticks = (-100, -50, -10, -5, 0, 5, 10, 50, 100, 500)
    axes.set_xticks(ticks, [f"{tick:+d} %" if tick else "0" for tick in ticks])
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_xlabel("simulated over published (linear within 10 %, logarithmic beyond)")
    axes.legend(frameon=False, ncols=3, loc="lower right", bbox_to_anchor=(1, 1))
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def write(made: Book, folder: Path) -> None:
    """Write the page in both forms, the numbers, and the figure of errors."""
    with written_whole(folder / "figures" / "errors.svg") as path:
        draw(made).savefig(path, format="svg", metadata={"Date": None})
    encoded = msgspec.json.format(msgspec.json.encode(made), indent=1) + b"\n"
    for name, content in (
        ("validation.json", encoded),
        ("index.md", markdown(made).encode()),
        ("index.html", page(made).encode()),
    ):
        with written_whole(folder / name) as path:
            path.write_bytes(content)
