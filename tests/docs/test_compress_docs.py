"""Does the page on MiniLM say only what was measured?"""

from __future__ import annotations

import msgspec
from paths import DOCS

from sparqsim.scripts.scenarios.minilm_bits import Findings, page
from sparqsim.workloads import recipes


def test_the_minilm_page_is_what_its_data_say() -> None:
    """docs/background/minilm.md is the page of docs/data/minilm.json: no number was typed in."""
    found = msgspec.json.decode((DOCS / "data" / "minilm.json").read_bytes(), type=Findings)
    assert (DOCS / "background" / "minilm.md").read_text(encoding="utf-8") == page(found)


def test_the_data_cover_every_named_recipe_within_the_bound() -> None:
    """Each recipe that ships was measured, and compressed MiniLM in under 20 s."""
    found = msgspec.json.decode((DOCS / "data" / "minilm.json").read_bytes(), type=Findings)
    assert {row.name for row in found.named} == set(recipes.named())
    assert all(row.seconds < 20 for row in found.named)
