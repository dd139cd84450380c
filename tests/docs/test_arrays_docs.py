"""Are the figures of docs/background/arrays.md what the scenario draws?"""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from sparqsim.scripts.scenarios.array_figures import Point, agreement_figure, main, tiles_figure


def test_figures_show_what_they_are_given(tmp_path: Path) -> None:
    """One bar per firing; one mark per layer, above the line where event by event takes longer."""
    panels = tiles_figure().axes
    assert [len(panel.collections) for panel in panels] == [5, 5]
    points = [Point("Bit Fusion", 1000, 1010), Point("ANT", 2000, 1980)]
    axes, labels = agreement_figure(points).axes[0], ("Bit Fusion, 1 layers", "ANT, 1 layers")
    marks = [mark for mark in axes.collections if mark.get_label() in labels]
    shown = [float(value) for mark in marks for value in mark.get_offsets()[0]]
    assert shown == pytest.approx([1000, 1.0, 2000, -1.0])
    result = CliRunner().invoke(main, ["--data", str(tmp_path), "--out", str(tmp_path)])
    assert result.exit_code == 1 and "cannot read the table" in result.output
    assert list(tmp_path.iterdir()) == []
