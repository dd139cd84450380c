"""Is every page of the documentation, and every example in a docstring, true as printed?"""

from __future__ import annotations

import doctest
import importlib
import json
import re
from pathlib import Path

import msgspec
import numpy as np
import pytest
from paths import ROOT

from sparqsim.scripts.validation._arrays import Headline

PAGES = sorted(
    page
    for page in [*ROOT.glob("README*.md"), *(ROOT / "docs").rglob("*.md")]
    if "_generated" not in page.parts  # parts of pages, made by a build
)
LONG = ("arrays.md",)  # headlines of three papers, each network event by event
EXECUTED = [
    pytest.param(page, marks=pytest.mark.slow if page.name in LONG else ())
    for page in PAGES
    if "```pycon" in page.read_text(encoding="utf-8")
]
MODULES = sorted(
    ".".join(("sparqsim", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__")
    for part in ("simulator", "architectures", "workloads", "scripts")
    for path in (ROOT / part).rglob("*.py")
    if ">>> " in path.read_text(encoding="utf-8")
)


def keep_headlines(validated: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let ``headlines`` of two papers return what this run's validations found by them."""
    for name in ("bitfusion", "ant"):
        rows = json.loads((validated / "data" / f"{name}.json").read_text())["rows"]
        found = msgspec.convert(rows, list[Headline])
        module = importlib.import_module(f"sparqsim.scripts.validation.{name}")
        monkeypatch.setattr(module, "headlines", lambda found=found: found)


@pytest.mark.parametrize("page", EXECUTED, ids=lambda page: page.name)
def test_a_page_prints_what_it_shows(
    page: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """Every block of the page, in order and in one session, prints what stands below it."""
    monkeypatch.chdir(ROOT)
    if page.name in LONG:
        keep_headlines(request.getfixturevalue("validated"), monkeypatch)
    text = page.read_text(encoding="utf-8")
    if ">>> import torch" in text:
        pytest.importorskip("torch")
    blocks = re.findall(r"^```pycon\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert len(blocks) == text.count("```pycon")
    test = doctest.DocTestParser().get_doctest("\n".join(blocks), {}, page.name, str(page), 0)
    report: list[str] = []
    failed, tried = doctest.DocTestRunner().run(test, out=report.append)
    assert tried and not failed, "".join(report)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_figures_are_there(page: Path) -> None:
    """What a page shows or points to within the project exists."""
    targets = re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8"))
    inside = [target for target in targets if "://" not in target]
    assert [each for each in inside if not (page.parent / each).exists()] == []


@pytest.mark.parametrize("name", MODULES)
def test_an_example_in_a_docstring_prints_what_it_shows(name: str) -> None:
    """The examples of a module, with its names and np at hand."""
    if name == "sparqsim.workloads.train":
        pytest.importorskip("torch")
    module = importlib.import_module(name)
    failed, tried = doctest.testmod(module, extraglobs={"np": np} | vars(module))
    assert tried and not failed


def test_pages_and_examples_are_found() -> None:
    """The two searches above look where pages and examples are."""
    assert len(EXECUTED) > 8 and {"sparqsim.workloads.prune", "sparqsim.simulator.netlist"} <= set(
        MODULES
    )
