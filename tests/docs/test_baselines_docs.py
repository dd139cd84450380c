"""Are the data behind docs/background/baselines.md what the simulator says?"""

from __future__ import annotations

import msgspec
import pytest
from paths import ROOT

from sparqsim.scripts.validation import eyeriss


def test_the_eyeriss_data_are_what_the_simulator_says_today() -> None:
    """One layer of docs/data/eyeriss.json is simulated again, every quantity of it."""
    kept = msgspec.json.decode((ROOT / "docs" / "data" / "eyeriss.json").read_bytes())["rows"]
    lines = {line.layer: line for line in eyeriss.read_measured(eyeriss.MEASURED)}
    mapping = eyeriss.read_mappings()["conv5"]
    rows, _ = eyeriss.simulate(lines["conv5"], lines["conv5"].zero_share, mapping)
    then = {row["quantity"]: row["simulated"] for row in kept if row["layer"] == "conv5"}
    assert {row.quantity: row.simulated for row in rows} == pytest.approx(then, rel=1e-3)
