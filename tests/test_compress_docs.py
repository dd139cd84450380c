"""Do the pages on compression say what the code does, and only what was measured?"""

from __future__ import annotations

import doctest
from pathlib import Path

import msgspec

from scripts.scenarios.minilm_bits import Findings, page
from workloads import recipes

DOCS = Path(__file__).resolve().parents[1] / "docs"


def test_blocks_of_the_page_run() -> None:
    """Every block of docs/compress.md prints what it says."""
    failed, tried = doctest.testfile(str(DOCS / "compress.md"), module_relative=False)
    assert tried > 5 and failed == 0


def test_the_minilm_page_is_what_its_data_say() -> None:
    """docs/minilm.md is the page of docs/data/minilm.json: no number was typed in."""
    found = msgspec.json.decode((DOCS / "data" / "minilm.json").read_bytes(), type=Findings)
    assert (DOCS / "minilm.md").read_text(encoding="utf-8") == page(found)


def test_the_data_cover_every_named_recipe_within_the_bound() -> None:
    """Each recipe that ships was measured, and compressed MiniLM in under 20 s."""
    found = msgspec.json.decode((DOCS / "data" / "minilm.json").read_bytes(), type=Findings)
    assert {row.name for row in found.named} == set(recipes.named())
    assert all(row.seconds < 20 for row in found.named)


def test_figures_of_the_pages_are_there() -> None:
    """Every picture a page shows is in the repository."""
    for name in ("minilm.md", "compress.md"):
        for line in (DOCS / name).read_text(encoding="utf-8").splitlines():
            if line.startswith("!["):
                assert (DOCS / line.split("(")[1].rstrip(")")).is_file()
