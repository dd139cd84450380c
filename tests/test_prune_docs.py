"""Are docs/sparsity.md and the examples in the docstrings true as printed?"""

from __future__ import annotations

import doctest
import re
from importlib import import_module
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parent.parent / "docs" / "sparsity.md"


def test_the_page_runs_as_printed() -> None:
    """Every block of the page, in order and in one session, prints what the page shows."""
    text = PAGE.read_text()
    blocks = re.findall(r"^```pycon\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert len(blocks) == text.count("```pycon") > 0
    test = doctest.DocTestParser().get_doctest("\n".join(blocks), {}, PAGE.name, str(PAGE), 0)
    report: list[str] = []
    failed, tried = doctest.DocTestRunner().run(test, out=report.append)
    assert tried and not failed, "".join(report)


def test_the_page_shows_figures_that_exist() -> None:
    """No broken picture."""
    figures = re.findall(r"!\[[^]]*\]\(([^)]+)\)", PAGE.read_text())
    assert figures and all((PAGE.parent / figure).is_file() for figure in figures)


@pytest.mark.parametrize("name", ["workloads.encodings.csc", "workloads.prune", "workloads.tokens"])
def test_docstring_examples(name: str) -> None:
    """An example in a docstring prints what it shows."""
    module = import_module(name)
    names = {"np": import_module("numpy"), **vars(module)}
    failed, tried = doctest.testmod(module, extraglobs=names)
    assert tried and not failed
