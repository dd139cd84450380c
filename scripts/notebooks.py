"""The lecture's notebooks, for students and with solutions, from one source each.

    python -m sparqsim.scripts.notebooks OUT

writes ``OUT/student/NAME.ipynb`` and ``OUT/solution/NAME.ipynb`` for every source in
``docs/lecture/notebooks``. A source is Python; a cell begins with ``# %% KIND``:

* ``# %% [markdown]``: text, every line a comment;
* ``# %%``: code that both have;
* ``# %% task``: code in which a statement that ends in ``# solution`` becomes ``name = ...`` (or
  ``return ...``) for students;
* ``# %% check``: code that fails while what it checks is not solved.
"""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path
from typing import Any

import msgspec

from sparqsim.base import InputError, output_folder, written_whole

SOURCES = Path(__file__).resolve().parents[1] / "docs" / "lecture" / "notebooks"
KINDS = ("[markdown]", "task", "check", "")
MARK = "# solution"


class Cell(msgspec.Struct, frozen=True):
    """A cell of a source: its kind and its text."""

    kind: str
    text: str


def cells(source: str, where: str = "the source") -> list[Cell]:
    """The cells of a source.

    Raises
    ------
    InputError
        If text stands before the first cell, a kind is unknown, or a task holds no solution.
    """
    before, *parts = re.split(r"^# %%(.*)\n", source, flags=re.MULTILINE)
    if before.strip():
        raise InputError(f"{where} must begin with a cell (# %%), got {before.strip()[:40]!r}")
    found = [
        Cell(kind.strip(), text.strip("\n"))
        for kind, text in zip(parts[::2], parts[1::2], strict=True)
    ]
    for cell in found:
        if cell.kind not in KINDS:
            raise InputError(f"{where}: a cell is one of {KINDS}, got {cell.kind!r}")
        if (cell.kind == "task") != (MARK in cell.text):
            raise InputError(f"{where}: tasks, and they alone, hold {MARK!r}: {cell.text[:60]!r}")
    return found


def without_solutions(code: str) -> str:
    """Code of a task with ``...`` where a solution stood.

    Examples
    --------
    >>> print(without_solutions("low = 1\\nscale = (high\\n         - low)  # solution"))
    low = 1
    scale = ...
    """
    lines = code.splitlines()
    marked = [
        node
        for node in ast.walk(ast.parse(code))
        if isinstance(node, ast.Assign | ast.Return)
        and lines[(node.end_lineno or 0) - 1].rstrip().endswith(MARK)
    ]
    for node in sorted(marked, key=lambda each: -each.lineno):
        head = "return"
        if isinstance(node, ast.Assign):
            head = " = ".join(map(ast.unparse, node.targets)) + " ="
        lines[node.lineno - 1 : node.end_lineno] = [" " * node.col_offset + f"{head} ..."]
    return "\n".join(lines)


def code_of(cell: Cell, student: bool) -> str:
    """The code of a cell, as students get it or solved."""
    if cell.kind != "task":
        return cell.text
    if student:
        return without_solutions(cell.text)
    return re.sub(rf" *{MARK}$", "", cell.text, flags=re.MULTILINE)


def notebook(source: str, student: bool) -> dict[str, Any]:
    """A notebook (nbformat 4.5) of a source."""
    made: list[dict[str, Any]] = []
    for number, cell in enumerate(cells(source)):
        common: dict[str, Any] = {
            "id": f"cell-{number}",
            "metadata": {"tags": [cell.kind]} if cell.kind else {},
        }
        if cell.kind == "[markdown]":
            text = re.sub(r"^# ?", "", cell.text, flags=re.MULTILINE)
            made.append({"cell_type": "markdown", "id": common["id"], "metadata": {},
                         "source": text.splitlines(keepends=True)})  # fmt: skip
            continue
        text = code_of(cell, student)
        made.append(
            {"cell_type": "code", **common, "execution_count": None, "outputs": [],
             "source": text.splitlines(keepends=True)}
        )  # fmt: skip
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return {
        "cells": made,
        "metadata": {"kernelspec": kernel, "language_info": {"name": "python"}},
        "nbformat": 4,
        "nbformat_minor": 5,
    }


def write(folder: Path) -> list[Path]:
    """Write both notebooks of every source; their paths."""
    paths = []
    for source in sorted(SOURCES.glob("*.py")):
        text = source.read_text(encoding="utf-8")
        cells(text, source.name)
        for kind in ("student", "solution"):
            target = output_folder(folder / kind) / f"{source.stem}.ipynb"
            content = msgspec.json.encode(notebook(text, kind == "student"))
            with written_whole(target) as temporary:
                temporary.write_bytes(msgspec.json.format(content, indent=1) + b"\n")
            paths.append(target)
    return paths


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m sparqsim.scripts.notebooks OUT")
    for path in write(Path(sys.argv[1])):
        print(f"wrote {path}")
