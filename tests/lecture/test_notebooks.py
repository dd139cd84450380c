"""Do the lecture's notebooks run, and does every check find what is not solved?"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from paths import DOCS

from sparqsim.base import InputError
from sparqsim.scripts import notebooks
from sparqsim.scripts.notebooks import Cell, cells, code_of, notebook

SOURCES = sorted((DOCS / "lecture" / "notebooks").glob("*.py"))
LONG = ("2_queues_on_eie", "3_precision_and_formats")  # over 5 s
TIMED = [
    pytest.param(path, id=path.stem, marks=[pytest.mark.slow] if path.stem in LONG else [])
    for path in SOURCES
]
MOST_SECONDS = 60.0


def source(path: Path) -> list[Cell]:
    return cells(path.read_text(encoding="utf-8"), path.name)


def with_checks(found: list[Cell]) -> Iterator[tuple[Cell, Cell | None]]:
    """Each cell of code, and for a task the check behind it."""
    coded = [cell for cell in found if cell.kind != "[markdown]"]
    for place, cell in enumerate(coded):
        yield cell, coded[place + 1] if cell.kind == "task" else None


@pytest.mark.parametrize("path", TIMED)
def test_solutions_pass_and_open_tasks_do_not(path: Path) -> None:
    """The solved notebook runs from top to bottom. At each task students' cells go before, with
    every ``...`` open or with one of them: the task or its check fails. Solved it takes under a
    minute."""
    space: dict[str, Any] = {}
    tasks, seconds = 0, 0.0
    for cell, check in with_checks(source(path)):
        if check is not None:
            assert check.kind == "check", f"no check follows {cell.text[:40]!r}"
            tasks += 1
            places = cell.text.count(notebooks.MARK)
            alone = [one_open(cell.text, number) for number in range(places)]
            for code in {code_of(cell, student=True), *alone}:
                copy = dict(space)
                with pytest.raises((AssertionError, TypeError, AttributeError, ValueError)):
                    exec(code, copy)
                    exec(check.text, copy)
        start = time.process_time()
        exec(code_of(cell, student=False), space)
        seconds += time.process_time() - start
    assert tasks >= 5 and seconds < MOST_SECONDS


def one_open(code: str, number: int) -> str:
    """A task of which only one solution is left out."""
    parts = code.split(notebooks.MARK)
    marked = "".join(
        part + (notebooks.MARK if place == number else "") for place, part in enumerate(parts[:-1])
    )
    return notebooks.without_solutions(marked + parts[-1])


def test_both_notebooks_come_from_one_source(tmp_path: Path) -> None:
    """A student's notebook has no solution, as many cells, and is otherwise the same; both are
    notebooks (checked by nbformat where it is installed)."""
    paths = notebooks.write(tmp_path)
    assert len(paths) == 2 * len(SOURCES) == 8
    for path in SOURCES:
        student, solution = (
            msgspec.json.decode((tmp_path / kind / f"{path.stem}.ipynb").read_bytes())
            for kind in ("student", "solution")
        )
        for left, right in zip(student["cells"], solution["cells"], strict=True):
            text, solved = "".join(left["source"]), "".join(right["source"])
            task = left["metadata"].get("tags") == ["task"]
            assert ("..." in text and text != solved) if task else text == solved
            assert notebooks.MARK not in text + solved
        try:
            import nbformat
        except ImportError:
            continue
        nbformat.validate(nbformat.from_dict(student))
        nbformat.validate(nbformat.from_dict(solution))


@pytest.mark.parametrize(
    ("text", "said"),
    [("x = 1\n# %%\n", "must begin with a cell"), ("# %% tsk\nx = 1\n", "is one of"),
     ("# %% task\nx = 1\n", "hold '# solution'"), ("# %%\nx = 1  # solution\n", "hold")],
)  # fmt: skip
def test_a_source_that_would_give_a_solution_away_is_refused(text: str, said: str) -> None:
    """Text outside cells, an unknown kind, a task without a solution, a solution outside tasks."""
    with pytest.raises(InputError, match=said):
        notebook(text, student=True)
