"""Is docs/background/energy.md drawn from the rules as they are?"""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner
from paths import DOCS

from sparqsim.scripts.scenarios.energy_rules import Rules, draw, main, rules


def test_the_figure_is_what_the_rules_say_today() -> None:
    """docs/data/energy_rules.json, which the figure shows, is worked out anew."""
    kept = msgspec.json.decode((DOCS / "data" / "energy_rules.json").read_bytes(), type=Rules)
    now = rules()
    for name in Rules.__struct_fields__:
        for then, again in zip(getattr(kept, name), getattr(now, name), strict=True):
            assert again == pytest.approx(then)
    node, sram, array, supply = draw(now).axes
    assert list(node.lines[0].get_ydata()) == [energy for _, energy in now.nodes]
    assert sorted(sram.lines[1].get_ydata()) == sorted(cacti for *_, cacti in now.srams)
    assert [bar.get_height() for bar in array.patches] == [each[2] for each in now.arrays]
    assert list(supply.lines[0].get_ydata()) == [energy for _, energy in now.supplies]


def test_the_script_writes_figure_and_data(tmp_path: Path) -> None:
    """Both files, or an error message."""
    (tmp_path / "data").mkdir()
    done = CliRunner().invoke(main, ["--out", str(tmp_path), "--data", str(tmp_path / "data")])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "energy_rules.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "data" / "energy_rules.json").is_file()
