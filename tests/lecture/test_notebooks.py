"""Do the lecture's notebooks run, and does every check find what is not solved?"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from paths import DOCS

from sparqsim.base import InputError
from sparqsim.scripts import notebooks
from sparqsim.scripts.notebooks import TEXTS, Cell, cells, code_of, notebook

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
    coded = [cell for cell in found if cell.kind not in TEXTS.values()]
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


def made(path: Path) -> dict[str, Any]:
    """What a notebook file holds (checked by nbformat where it is installed)."""
    found: dict[str, Any] = msgspec.json.decode(path.read_bytes())
    try:
        import nbformat
    except ImportError:
        return found
    nbformat.validate(nbformat.from_dict(found))
    return found


def test_all_notebooks_come_from_one_source(tmp_path: Path) -> None:
    """A student's notebook has no solution, as many cells, and is otherwise the same; a Chinese one
    has the cells of code of the English one, and differs in every cell of text."""
    paths = notebooks.write(tmp_path)
    assert len(paths) == len(set(paths)) == 4 * len(SOURCES) == 16
    for path in SOURCES:
        for ending in (".ipynb", ".zh.ipynb"):
            student, solution = (
                made(tmp_path / kind / (path.stem + ending)) for kind in ("student", "solution")
            )
            for left, right in zip(student["cells"], solution["cells"], strict=True):
                text, solved = "".join(left["source"]), "".join(right["source"])
                task = left["metadata"].get("tags") == ["task"]
                assert ("..." in text and text != solved) if task else text == solved
                assert notebooks.MARK not in text + solved
        english = made(tmp_path / "solution" / f"{path.stem}.ipynb")
        for theirs, ours in zip(english["cells"], solution["cells"], strict=True):
            assert (theirs == ours) == (theirs["cell_type"] == "code")


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_both_languages_say_the_same(path: Path) -> None:
    """A text and its Chinese have the same level of heading, the same code and as many paragraphs;
    the Chinese is Chinese."""
    english, chinese = (
        [cell.text for cell in source(path) if cell.kind == kind] for kind in TEXTS.values()
    )
    for one, two in zip(english, chinese, strict=True):
        assert len(re.findall("[\u4e00-\u9fff]", two)) > 10
        for pattern in (r"^# #+", r"`[^`]+`"):
            said = [re.findall(pattern, text, re.MULTILINE) for text in (one, two)]
            assert sorted(set(said[0])) == sorted(set(said[1])), one
        assert one.count("\n#\n") == two.count("\n#\n"), one


@pytest.mark.parametrize(
    ("text", "said"),
    [("x = 1\n# %%\n", "must begin with a cell"), ("# %% tsk\nx = 1\n", "is one of"),
     ("# %% task\nx = 1\n", "hold '# solution'"), ("# %%\nx = 1  # solution\n", "hold"),
     ("# %% [markdown]\n# a\n# %%\nx = 1\n", "must stand its Chinese"),
     ("# %%\nx = 1\n# %% [markdown] zh\n# a\n", "must stand its Chinese")],
)  # fmt: skip
def test_a_source_that_breaks_a_rule_is_refused(text: str, said: str) -> None:
    """Text outside cells, an unknown kind, a task without a solution, a solution outside tasks, a
    text in one language alone."""
    with pytest.raises(InputError, match=said):
        notebook(text, student=True)
