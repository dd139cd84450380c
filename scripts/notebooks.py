"""The lecture's notebooks, for students and with solutions, in two languages, from one source each.

    python -m sparqsim.scripts.notebooks OUT

writes ``NAME.ipynb`` (English) and ``NAME.zh.ipynb`` (Chinese) into ``OUT/student`` and
``OUT/solution`` for every source in ``docs/lecture/notebooks``. Both languages have the same code.
A source is Python; a cell begins with ``# %% KIND``:

* ``# %% [markdown]``: English text, every line a comment;
* ``# %% [markdown] zh``: the same text in Chinese, right behind it;
* ``# %%``: code that all have;
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
TEXTS = {"en": "[markdown]", "zh": "[markdown] zh"}  # language -> kind of its cells of text
KINDS = (*TEXTS.values(), "task", "check", "")
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
        If text stands before the first cell, a kind is unknown, a task holds no solution, or a text
        lacks one of its languages.
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
    for cell, behind in zip(found, [*found[1:], Cell("", "")], strict=True):
        if (cell.kind == TEXTS["en"]) != (behind.kind == TEXTS["zh"]):
            raise InputError(
                f"{where}: behind each cell of English text, and there alone, must stand its "
                f"Chinese ({TEXTS['zh']}), got {cell.text[:40]!r} before {behind.text[:40]!r}"
            )
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


def notebook(source: str, student: bool, language: str = "en") -> dict[str, Any]:
    """A notebook (nbformat 4.5) of a source, its text in one language."""
    others = {kind for spoken, kind in TEXTS.items() if spoken != language}
    kept = [cell for cell in cells(source) if cell.kind not in others]
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return {
        "cells": [_made(cell, number, student) for number, cell in enumerate(kept)],
        "metadata": {"kernelspec": kernel, "language_info": {"name": "python"}},
        "nbformat": 4,
        "nbformat_minor": 5,
    }


def _made(cell: Cell, number: int, student: bool) -> dict[str, Any]:
    """A cell as nbformat has it."""
    if cell.kind in TEXTS.values():
        text = re.sub(r"^# ?", "", cell.text, flags=re.MULTILINE)
        special: dict[str, Any] = {"cell_type": "markdown", "metadata": {}}
    else:
        text = code_of(cell, student)
        tags = {"tags": [cell.kind]} if cell.kind else {}
        special = {"cell_type": "code", "metadata": tags, "execution_count": None, "outputs": []}
    return special | {"id": f"cell-{number}", "source": text.splitlines(keepends=True)}


def write(folder: Path) -> list[Path]:
    """Write the four notebooks of every source; their paths."""
    paths = []
    for source in sorted(SOURCES.glob("*.py")):
        text = source.read_text(encoding="utf-8")
        cells(text, source.name)
        for kind in ("student", "solution"):
            for language, ending in (("en", ".ipynb"), ("zh", ".zh.ipynb")):
                target = output_folder(folder / kind) / (source.stem + ending)
                content = msgspec.json.encode(notebook(text, kind == "student", language))
                with written_whole(target) as temporary:
                    temporary.write_bytes(msgspec.json.format(content, indent=1) + b"\n")
                paths.append(target)
    return paths


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m sparqsim.scripts.notebooks OUT")
    for path in write(Path(sys.argv[1])):
        print(f"wrote {path}")
