"""Does the formats page say what the code does?"""

from __future__ import annotations

import doctest
from pathlib import Path

PAGE = Path(__file__).resolve().parent.parent / "docs" / "formats.md"


def test_the_page_is_true() -> None:
    """Every block of the page prints what it shows."""
    result = doctest.testfile(str(PAGE), module_relative=False, encoding="utf-8")
    assert result.attempted > 15 and result.failed == 0
