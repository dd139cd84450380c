"""Are docs/baselines.md and docs/token_pruning.md true as printed?"""

from __future__ import annotations

import doctest
import re
from pathlib import Path

import msgspec
import pytest

from scripts.validation import eyeriss

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "docs" / name for name in ("baselines.md", "token_pruning.md")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_page_runs_as_printed(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every block of the page, in order and in one session, prints what the page shows."""
    monkeypatch.chdir(ROOT)
    text = page.read_text()
    blocks = re.findall(r"^```pycon\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert len(blocks) == text.count("```pycon") > 0
    test = doctest.DocTestParser().get_doctest("\n".join(blocks), {}, page.name, str(page), 0)
    report: list[str] = []
    failed, tried = doctest.DocTestRunner().run(test, out=report.append)
    assert tried and not failed, "".join(report)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_page_shows_figures_that_exist(page: Path) -> None:
    """No broken picture."""
    figures = re.findall(r"!\[[^]]*\]\(([^)]+)\)", page.read_text())
    assert figures and all((page.parent / figure).is_file() for figure in figures)


def test_the_eyeriss_data_are_what_the_simulator_says_today() -> None:
    """One layer of docs/data/eyeriss.json is simulated again, every quantity of it."""
    kept = msgspec.json.decode((ROOT / "docs" / "data" / "eyeriss.json").read_bytes())["rows"]
    lines = {line.layer: line for line in eyeriss.read_measured(eyeriss.MEASURED)}
    mapping = eyeriss.read_mappings()["conv5"]
    rows, _ = eyeriss.simulate(lines["conv5"], lines["conv5"].zero_share, mapping)
    then = {row["quantity"]: row["simulated"] for row in kept if row["layer"] == "conv5"}
    assert {row.quantity: row.simulated for row in rows} == pytest.approx(then, rel=1e-3)
