"""Does ``diff`` say what changed between two reports, and refuse what is no report?"""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import numpy as np
import pytest

from sparqsim.architectures.compare import compare
from sparqsim.architectures.eie import EIE
from sparqsim.architectures.machine import run
from sparqsim.architectures.network import run_network
from sparqsim.architectures.registry import get_machine
from sparqsim.base import InputError
from sparqsim.scripts import cli
from sparqsim.simulator.differences import Step, change_of, differences
from sparqsim.simulator.report import Report
from sparqsim.simulator.saved import read_report
from sparqsim.workloads.layers import Linear
from sparqsim.workloads.tensors import synthetic
from sparqsim.workloads.work import load


def layer(**fields: int) -> Report:
    """A small layer on EIE."""
    shape = Linear(name="fc", in_features=256, out_features=64)
    tensors = synthetic(shape, np.random.default_rng(0), weight_density=0.2, activation_density=0.4)
    return run(EIE(pes=8, **fields), tensors, verify=False, seed=0).report


@pytest.fixture(scope="module")
def reports() -> tuple[Report, Report]:
    """With short queues, and with long ones."""
    return layer(queue_slots=2), layer(queue_slots=16)


def test_changes_of_the_path_sum_to_the_change_of_time(reports: tuple[Report, Report]) -> None:
    """The field that was changed alone is named; steps and energies sum to the totals; the words
    name the place that changed most."""
    before, after = reports
    (found,) = differences(before, after)
    assert [(f.name, f.before, f.after) for f in found.fields] == [("queue_slots", 2, 16)]
    assert after.cycles < before.cycles
    change = sum(step.change_s for step in found.steps)
    assert change == pytest.approx(after.seconds - before.seconds)
    assert sum(each.after for each in found.energy) == pytest.approx(after.energy.known_pj)
    largest = max(found.steps, key=lambda step: abs(step.change_s))
    assert found.steps[0] == largest and largest.where in found.why and "less" in found.why
    (same,) = differences(before, before)
    assert same.fields == [] and same.why == "takes the same time"


def test_networks_are_compared_layer_by_layer() -> None:
    """Layers that both run, with their own reasons; those that one alone runs by name. A path that
    is not there is not made up."""
    network = load("digits-mlp", numbers=False)
    slow, fast = (
        run_network(get_machine("tpu")().resized(bandwidth=rate * 1e9), network, verify=False,
                    paths=True)
        for rate in (4, 64)
    )  # fmt: skip
    (found,) = differences(slow, fast)
    assert [each.before for each in found.layers] == [f"{r.name} on tpu" for r in slow.runs]
    total = sum(
        sign * row.report.seconds * row.repeat
        for sign, each in ((1, fast), (-1, slow))
        for row in each.runs
    )
    assert sum(step.change_s for step in found.steps) == pytest.approx(total)
    fewer = msgspec.structs.replace(fast, rows=fast.rows[1:])
    (found,) = differences(slow, fewer)
    assert found.only_before == ["fc1"] and not found.only_after
    assert found.why.endswith("; 1 of the layers that A runs, B does not")
    without = run_network(get_machine("tpu")(), network, verify=False)
    (found,) = differences(without, fast)
    assert found.steps == [] and "not told" in found.why


def test_sums_that_differ_by_rounding_are_equal() -> None:
    """A step of many layers is summed in an order; what that leaves is no change."""
    step = Step(kind="computing", where="drain", before_s=0.1 + 0.2, after_s=0.3)
    assert step.before_s != step.after_s and step.change_s == 0
    assert change_of(1.0, 1.001) == pytest.approx(0.001)


def test_what_one_comparison_has_alone_is_told(tmp_path: Path, capsys) -> None:
    """A machine that only one of two comparisons has is named, not dropped; a difference without
    changed layers prints no empty table."""
    paths = []
    for number, other in enumerate(("tpu", "plain")):
        machines = {name: get_machine(name)() for name in ("bitfusion", other)}
        report = compare([load("gemm:4x8x8", numbers=False)], machines, verify=False)
        paths.append(str(tmp_path / f"{number}.json"))
        Path(paths[-1]).write_bytes(msgspec.json.encode(report))
    cli.main(["diff", *paths])
    told = capsys.readouterr().out
    assert "only A has: gemm:4x8x8 on tpu" in told and "only B has: gemm:4x8x8 on plain" in told
    assert "No layer's time changed, of 1" in told and "why" not in told


def test_the_command(reports: tuple[Report, Report], tmp_path: Path, capsys) -> None:
    """It prints and writes JSON; reports of two kinds, and what is no report, get an error."""
    paths = []
    machines = {"tpu": get_machine("tpu")()}
    comparison = compare([load("gemm:4x8x8", numbers=False)], machines, verify=False)
    for number, report in enumerate((*reports, comparison)):
        paths.append(str(tmp_path / f"{number}.json"))
        Path(paths[-1]).write_bytes(msgspec.json.encode(report))
        assert read_report(paths[-1]) == report
    cli.main(["diff", *paths[:2], "--json", str(tmp_path / "diff.json")])
    told = capsys.readouterr().out
    assert "queue_slots" in told and "Critical path" in told
    (stored,) = json.loads((tmp_path / "diff.json").read_text())
    assert stored["steps"] and stored["fields"][0]["name"] == "queue_slots"
    cli.main(["diff", paths[2], paths[2]])
    assert "takes the same time" in capsys.readouterr().out
    before = Path(paths[0]).read_bytes()
    with pytest.raises(SystemExit):
        cli.main(["diff", *paths[:2], "--json", paths[0]])
    assert "would write over the report" in capsys.readouterr().err
    assert Path(paths[0]).read_bytes() == before
    wrong = tmp_path / "wrong.json"
    for text, message in (
        ("[1]", "no report"),
        ('{"a": 1}', "what run --json or compare --json wrote"),
        ('{"critical_path": 3}', "no whole Report"),
        ("[" * 100_000, "no report"),
    ):
        wrong.write_text(text)
        with pytest.raises(InputError, match=message):
            read_report(wrong)
    with pytest.raises(InputError, match="cannot read"):
        read_report(tmp_path / "none.json")
    with pytest.raises(InputError, match="same kind"):
        differences(reports[0], comparison)
