"""Is docs/tutorial_netlist.md true as printed?"""

from __future__ import annotations

import doctest
from pathlib import Path

PAGE = Path(__file__).resolve().parent.parent / "docs" / "tutorial_netlist.md"


def test_the_tutorial_is_executed() -> None:
    """Every block of the page, in order, prints what stands below it."""
    result = doctest.testfile(str(PAGE), module_relative=False, encoding="utf-8")
    assert result.attempted > 40 and result.failed == 0
