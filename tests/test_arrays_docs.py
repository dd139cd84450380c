"""Is docs/arrays.md true as printed, and are its figures what the scenario draws?"""

from __future__ import annotations

import doctest
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from scripts.scenarios.array_figures import Point, agreement_figure, main, tiles_figure

PAGE = Path(__file__).resolve().parent.parent / "docs" / "arrays.md"


def test_the_page_is_executed() -> None:
    """Every block of the page prints what stands below it."""
    result = doctest.testfile(str(PAGE), module_relative=False, encoding="utf-8")
    assert result.attempted > 40 and result.failed == 0


def test_the_page_shows_figures_that_exist() -> None:
    """No broken picture."""
    figures = re.findall(r"!\[[^]]*\]\(([^)]+)\)", PAGE.read_text())
    assert len(figures) == 3 and all((PAGE.parent / figure).is_file() for figure in figures)


def test_figures_show_what_they_are_given(tmp_path: Path) -> None:
    """A bar a firing; a mark a layer, above the line where event by event takes longer."""
    panels = tiles_figure().axes
    assert [len(panel.collections) for panel in panels] == [6, 6]
    points = [Point("Bit Fusion", 1000, 1010), Point("ANT", 2000, 1980)]
    axes, labels = agreement_figure(points).axes[0], ("Bit Fusion, 1 layers", "ANT, 1 layers")
    marks = [mark for mark in axes.collections if mark.get_label() in labels]
    shown = [float(value) for mark in marks for value in mark.get_offsets()[0]]
    assert shown == pytest.approx([1000, 1.0, 2000, -1.0])
    result = CliRunner().invoke(main, ["--data", str(tmp_path), "--out", str(tmp_path)])
    assert result.exit_code == 1 and "cannot read the table" in result.output
    assert list(tmp_path.iterdir()) == []
