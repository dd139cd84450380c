"""Does the figure of array drains show what it says: what they cost, and that tiling avoids it?"""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner
from paths import PUBLISHED

from sparqsim.scripts.scenarios.array_drain import main, slowdowns


def test_published_tilings_lose_up_to_fivefold_and_the_search_most_of_it_back() -> None:
    """Most 1.0 to 1.4 times, LeNet-5 2.6, LSTM 4.0, ANT's array 3 to 5; searched, under 1.25."""
    rows = slowdowns(PUBLISHED)
    bitfusion = {row.network: row.drained for row in rows if row.machine == "Bit Fusion"}
    assert round(bitfusion.pop("LeNet-5"), 1) == 2.6
    assert round(bitfusion.pop("LSTM"), 1) == 4.0
    assert all(1.0 <= drained < 1.4 for drained in bitfusion.values())
    assert all(3.0 < row.drained < 5.0 for row in rows if row.machine == "ANT")
    for row in rows:
        assert 1.0 <= row.short_only <= row.drained
        assert 1.0 <= row.searched < min(1.25, row.drained + 1e-12)


def test_the_command_draws_or_says_why_not(tmp_path: Path) -> None:
    """A picture and a row a network; a missing table or folder is a letter, and nothing is left."""
    result = CliRunner().invoke(main, ["--data", str(PUBLISHED), "--out", str(tmp_path)])
    assert result.exit_code == 0
    assert len(result.output.splitlines()) == 2 + 12
    assert (tmp_path / "array_drain.png").read_bytes().startswith(b"\x89PNG")
    empty = tmp_path / "empty"
    empty.mkdir()
    result = CliRunner().invoke(main, ["--data", str(empty), "--out", str(empty)])
    assert result.exit_code == 1
    assert "cannot read the table" in result.output
    assert list(empty.iterdir()) == []
