"""Does a scenario's paragraph say what its numbers say, and can each be listed and run?"""

from __future__ import annotations

import json
import time
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from sparqsim.architectures.arrays.bitfusion import BitFusion
from sparqsim.base import InputError
from sparqsim.scripts.scenarios import (
    codesign,
    decode,
    dynamic_graph,
    eie_queues,
    mixed_precision,
    nm_gemm,
)
from sparqsim.scripts.scenarios.catalogue import SCENARIOS, get_scenario
from sparqsim.scripts.scenarios.command import command
from sparqsim.scripts.scenarios.frame import write


def silent(what: str, done: int, total: int) -> None:
    """A bar that nobody sees."""


def test_each_is_what_its_row_says() -> None:
    """A scenario's name is its row's and its module's, and an unknown one is an error message."""
    for name, question in SCENARIOS.items():
        scenario = get_scenario(name)
        assert scenario.name == name and scenario.title and question.strip()
    with pytest.raises(InputError, match="did you mean decode"):
        get_scenario("decoed")


def test_the_command_lists_and_runs(tmp_path: Path, monkeypatch) -> None:
    """Without a name the questions; with one the paragraph, the figure, and the numbers as JSON."""
    listed = CliRunner().invoke(command, ["--json", "-"])
    assert json.loads(listed.output) == SCENARIOS
    monkeypatch.setattr(eie_queues, "LAYERS", ("digits-mlp/fc1",))
    monkeypatch.setattr(eie_queues, "DEPTHS", (1, 8, 16))
    result = CliRunner().invoke(command, ["eie_queues", "--out", str(tmp_path), "--json", "-"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.output)
    (row,) = found["data"]["rows"]
    assert row["efficiency"] == sorted(row["efficiency"])
    assert f"{100 * row['efficiency'][0]:.0f} %" in found["finding"]
    assert (tmp_path / "figures" / "eie_queues.png").read_bytes().startswith(b"\x89PNG")
    again = msgspec.json.decode((tmp_path / "data" / "eie_queues.json").read_bytes())
    assert again == found["data"]


def test_a_mapping_is_kept_by_cutting_its_tiles(monkeypatch) -> None:
    """With all tokens, a kept mapping is the mapping; with fewer, it fits and is never faster than
    one made anew, and never slower than the graph of all tokens."""
    machine, few, block = BitFusion(), 48, dynamic_graph.block
    monkeypatch.setattr(dynamic_graph, "block", lambda tokens: block(tokens)[:2])
    kept = []
    for layer in dynamic_graph.block(197):
        shape, mapping = dynamic_graph.shape_and_mapping(machine, layer)
        assert dynamic_graph.fitted(mapping, shape) == mapping
        kept.append(mapping)
    whole = dynamic_graph.time_block(machine, 197, kept)
    assert whole == dynamic_graph.time_block(machine, 197, None)
    anew = dynamic_graph.time_block(machine, few, None)[0]
    assert anew <= dynamic_graph.time_block(machine, few, kept)[0] < whole[0]


def test_the_front_holds_what_nothing_beats() -> None:
    """No point is as accurate as one of the front for less energy times time."""

    def point(accuracy: float, energy: float) -> codesign.Point:
        return codesign.Point(
            weight_bits=4, granularity="tensor", side=8, dram_gbytes_per_s=4.0,
            accuracy=accuracy, seconds=1.0, energy_pj=energy,
        )  # fmt: skip

    points = [point(0.9, 5), point(0.8, 3), point(0.7, 4), point(0.95, 9), point(0.95, 8)]
    front = codesign.front(points)
    assert [(p.accuracy, p.energy_pj) for p in front] == [(0.8, 3), (0.9, 5), (0.95, 8)]
    text = codesign.finding(codesign.Study(points=points))
    assert "Of 5 points 3 are worth having" in text and "1.1 times the energy times time" in text


def test_paragraphs_come_from_their_numbers() -> None:
    """Other numbers, another paragraph: sizes that fit, budgets that pay, sizes from which on."""
    sizes = [decode.Size(model="big", parameters=10**9, bytes={16: 2e9, 8: 1e9, 4: 5e8, 2: 2.5e8})]
    speeds = [decode.Speed(bits=8, simulated=[1.0, 7.0], bound=[2.0, 9.0])] * 2
    text = decode.finding(decode.Study(gbytes_per_s=[8.0, 16.0], sizes=sizes, speeds=speeds))
    assert "mobile, 4 GB: from 16 bits down; tiny, 500 KB: at no bits shown" in text
    assert "7.0 of 9.0" in text
    row = mixed_precision.Row(
        recipe="w8a8", mixed=False, bits={"fc": 8}, mean_bits=8, accuracy=0.97, cycles=100,
        energy_nj=10,
    )  # fmt: skip
    two = msgspec.structs.replace(row, recipe="w2a8", accuracy=0.4, energy_nj=1)
    mixed = msgspec.structs.replace(row, recipe="m", mixed=True, accuracy=0.965, energy_nj=4)
    study = mixed_precision.Study(float32=0.97, rows=[row, two, mixed])
    assert mixed_precision.chosen(study) is mixed
    assert "0.40 times the energy" in mixed_precision.finding(study)
    gpu = nm_gemm.Row(gpu="g", dense_s=[1, 4], sparse_s=[1, 2], bound_by=["a", "b"],
                      sparse_bound_by=["a", "c"])  # fmt: skip
    text = nm_gemm.finding(nm_gemm.Study(sides=[256, 512], rows=[gpu]))
    assert "gains 1.00 at 256 (bound by a) and 2.00 at 512" in text
    assert "reached from 512 on" in text


@pytest.mark.slow
@pytest.mark.parametrize("name", SCENARIOS)
def test_each_answers_within_half_a_minute(tmp_path: Path, name: str) -> None:
    """It measures, says, and draws something, in under 30 s of an idle processor; one that others
    use is given twice that."""
    scenario = get_scenario(name)
    begin = time.process_time()
    try:
        found = scenario.measure(silent)
    except InputError as error:
        pytest.skip(str(error))  # trained weights that are not installed
    assert time.process_time() - begin < 60
    assert len(scenario.finding(found)) > 100
    for path in write(scenario, found, tmp_path):
        assert path.stat().st_size > 0
