"""Do the figures and data of docs/background/snap.md come from commands that work?"""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner

from sparqsim.architectures.machine import run
from sparqsim.architectures.snap import SNAP
from sparqsim.base import InputError
from sparqsim.scripts.scenarios import snap_utilization as scenario
from sparqsim.scripts.validation import snap as validation
from sparqsim.simulator.report import Report
from sparqsim.workloads.layers import Conv2d
from sparqsim.workloads.tensors import synthetic


def small_reports() -> list[Report]:
    """Of two layers, the first named as the one that sees the image."""
    rng = np.random.default_rng(0)
    reports = []
    for name, channels in ((validation.IMAGE_LAYER, 3), ("deep", 64)):
        layer = Conv2d(name=name, in_channels=channels, out_channels=8, input=(9, 9), kernel=(3, 3))
        reports.append(run(SNAP(), synthetic(layer, rng), record="summary").report)
    return reports


def test_a_network_is_the_sum_of_its_layers() -> None:
    """Frames, utilisation and power follow from the sums of cycles, products and energy."""
    first, second = small_reports()
    whole = validation.summary([first, second], 252)
    cycles = first.cycles + second.cycles
    products = first.macs.effectual + second.macs.effectual
    assert whole["cycles"] == cycles
    assert whole["frames_per_second"] == pytest.approx(480e6 / cycles)
    assert whole["utilization"] == pytest.approx(100 * products / (252 * cycles))
    energy = (first.energy.total_pj + second.energy.total_pj) * 1e-9
    assert whole["energy_mj"] == pytest.approx(energy)
    assert whole["power_mw"] == pytest.approx(energy * 480e6 / cycles)


def test_validation_prints_and_writes_the_same_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows with published, simulated and error; the terminal says it is no pass."""
    monkeypatch.setattr(validation, "network_reports", lambda *_: small_reports())
    monkeypatch.setattr(validation, "efficiency_gain", lambda *_: 4.0)
    printed = CliRunner().invoke(validation.command, [])
    assert printed.exit_code == 0 and "not a pass" in printed.output
    assert "all layers exact: yes" in printed.output
    written = CliRunner().invoke(validation.command, ["--json", "-"])
    content = msgspec.json.decode(written.stdout)
    assert content["outputs_exact"] is True
    rows = {row["item"]: row for row in content["items"]}
    assert rows["multipliers"]["error"] == 0
    fewer = CliRunner().invoke(validation.command, ["--json", "-", "--cores", "2"])
    assert "126" in fewer.stdout
    frames = rows["throughput"]
    assert frames["published"] == 90.98
    assert frames["error"] == pytest.approx(frames["simulated"] / 90.98 - 1)


def test_validation_refuses_bad_input() -> None:
    """A density of nothing, no number, a field the machine refuses."""
    for density in ("0", "1.5", "many"):
        refused = CliRunner().invoke(validation.command, ["--weight-density", density])
        assert refused.exit_code == 2 and "--weight-density" in refused.output
    for argument in (["--weight-density", "nan"], ["--banks", "0"]):
        with pytest.raises(InputError, match="must be"):
            CliRunner().invoke(validation.command, argument, catch_exceptions=False)


def test_waiting_lanes_add_up() -> None:
    """The curve of waiting lanes over time has the area that the lanes' own sums have."""
    result = scenario.simulated(SNAP(), scenario.CONV, 0.2, 0.2, 0, "full")
    _, share = scenario.waiting(result, "aim", result.report.cycles)
    lanes = result.timeline.netlist.actor("aim").lanes
    assert share.sum() * lanes == pytest.approx(result.report.counters["aim_wait_cycles"])


def test_the_scenario_draws_or_says_why_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three pictures and their numbers; an impossible folder is an error and leaves nothing."""
    small = Conv2d(name="3x3", in_channels=32, out_channels=8, input=(4, 4), kernel=(3, 3))
    flat = Conv2d(name="1x1", in_channels=96, out_channels=8, input=(4, 4), kernel=(1, 1))
    monkeypatch.setattr(scenario, "CONV", small)
    monkeypatch.setattr(scenario, "POINTWISE", flat)
    monkeypatch.setattr(scenario, "DENSITIES", (0.2, 0.5, 0.8, 1.0))
    result = CliRunner().invoke(scenario.main, ["--out", str(tmp_path / "figures")])
    assert result.exit_code == 0, result.output
    assert "products for one psum written" in result.output
    for name in ("utilization", "conflicts", "psums"):
        drawn = (tmp_path / "figures" / f"snap_{name}.png").read_bytes()
        assert drawn.startswith(b"\x89PNG")
    (tmp_path / "file").write_text("in the way")
    result = CliRunner().invoke(scenario.main, ["--out", str(tmp_path / "file" / "below")])
    assert result.exit_code == 1
    assert "cannot make the folder" in result.output
