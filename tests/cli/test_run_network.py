"""Does ``sparqsim run`` give a whole network: table, JSON, CSV, figures, page, and exit codes?"""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import msgspec
import pytest

from sparqsim import run
from sparqsim.scripts.cli import main
from sparqsim.scripts.run import command, machine_options, tensor_options
from sparqsim.scripts.show import show_network
from sparqsim.simulator.frames import COLUMNS
from sparqsim.simulator.report import NetworkReport, Report

OFF_BY_ONE = """
from dataclasses import replace

from sparqsim.architectures.arrays.bitfusion import BitFusion
from sparqsim.simulator.report import Verification

class Wrong(BitFusion, frozen=True, kw_only=True):
    name = "wrong"
    title = "Bit Fusion that says its outputs are wrong"

    def lower(self, layer):
        made = super().lower(layer)
        wrong = Verification(status="mismatch", outputs=9, mismatches=1)
        return replace(made, verify=lambda: wrong)
"""


def answer(arguments: list[str], capfd: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of a call."""
    code = 0
    try:
        main(arguments)
    except SystemExit as stop:
        code = int(stop.code or 0)
    out, err = capfd.readouterr()
    return code, out, err


def test_a_network_is_a_table_with_totals(capfd: pytest.CaptureFixture[str]) -> None:
    """One row per layer, refusals by number with their reason, totals, accuracy, notes."""
    code, out, _ = answer(["run", "eie", "digits-cnn"], capfd)
    assert code == 0
    lines = out.splitlines()
    for name in ("conv1", "conv2", "conv3", "fc1", "fc2", "fc3"):
        assert sum(line.split(" ")[0] == name for line in lines) == 1
    assert sum("not run (1)" in line for line in lines) == 3
    assert "(1) not on eie: " in out and "3 of 6" in out
    for word in ("cycles", "energy x time", "MACs run", "accuracy", "in float32", "recipe eie"):
        assert word in out


def test_a_layer_tells_recipe_operands_and_noise(capfd: pytest.CaptureFixture[str]) -> None:
    """Which recipe ran, how each operand is stored, SQNR beside the verification."""
    call = ["run", "bitfusion", "digits-cnn/conv2", "--recipe"]
    code, out, _ = answer([*call, "w4a8"], capfd)
    assert code == 0
    assert "recipe w4a8" in out and "weights: int4_signed, as it is; 4 bits" in out
    assert "SQNR to the float layer" in out and "yes, bit by bit" in out
    code, out, _ = answer([*call, "flint4"], capfd)
    assert code == 0 and "weights: flint4_signed, held exactly in int" in out
    call[1] = "tpu"
    code, _, err = answer([*call, "fp16"], capfd)
    assert code == 2 and "--requantize" in err
    code, out, _ = answer([*call, "fp16", "--requantize"], capfd)
    assert code == 0 and "rounded again" in out


def test_json_and_csv_say_what_the_table_says(capfd: pytest.CaptureFixture[str]) -> None:
    """JSON is the report; CSV has one line per row, refusals among them."""
    code, out, _ = answer(["run", "eie", "digits-cnn", "--json", "-"], capfd)
    assert code == 0
    report = msgspec.json.decode(out, type=NetworkReport)
    code, out, _ = answer(["run", "eie", "digits-cnn", "--csv", "-"], capfd)
    lines = list(csv.DictReader(io.StringIO(out)))
    assert code == 0 and tuple(lines[0]) == COLUMNS
    assert [line["name"] for line in lines] == [row.name for row in report.rows]
    kinds = [line["row"] for line in lines]
    assert [kind for kind in kinds if kind != "beside"] == ["refused"] * 3 + ["run"] * 3
    lines = [line for line in lines if line["row"] != "beside"]
    ran = {row.name: row.report for row in report.runs}
    for line in lines[3:]:
        assert int(line["cycles"]) == ran[line["name"]].cycles
        assert line["weights"] == "codebook4" and line["verified"] == "exact"
    assert sum(float(line["share"]) for line in lines[3:]) == pytest.approx(1)
    assert "3x3" in lines[0]["why"]


def test_files_of_a_network(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """JSON, CSV, figures and page, all in one call."""
    call = ["run", "bitfusion", "digits-mlp", "--figures", str(tmp_path / "f")]
    for option, name in (("--json", "r.json"), ("--csv", "r.csv"), ("--page", "p.html")):
        call += [option, str(tmp_path / name)]
    code, out, _ = answer(call, capfd)
    assert code == 0 and "Totals" in out
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["totals"]["layers"] == 3
    drawn = {path.name for path in (tmp_path / "f").iterdir()}
    assert drawn == {"cycles_by_layer.png", "energy_by_layer.png"}
    assert "digits-mlp on bitfusion" in (tmp_path / "p.html").read_text()


def test_jobs_change_no_byte(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Of JSON: with one process or two."""
    for jobs in ("1", "2"):
        call = ["run", "plain", "digits-mlp", "--jobs", jobs]
        assert answer([*call, "--json", str(tmp_path / f"{jobs}.json")], capfd)[0] == 0
    assert (tmp_path / "1.json").read_bytes() == (tmp_path / "2.json").read_bytes()


def test_options_of_work_reach_it(capfd: pytest.CaptureFixture[str]) -> None:
    """Batch, sequence, context and seed: each changes what is run."""

    def run(*arguments: str) -> NetworkReport:
        call = ["run", "bitfusion", *arguments, "--json", "-"]
        code, out, err = answer(call, capfd)
        assert code == 0, err
        return msgspec.json.decode(out, type=NetworkReport)

    one, two = (run("bitfusion/lenet5", "--no-verify", "--batch", n) for n in ("1", "2"))
    assert two.totals.macs == 2 * one.totals.macs
    short, long = (run("bert_base", "--no-verify", "--sequence", n) for n in ("16", "32"))
    assert short.totals.macs < long.totals.macs
    near, far = (run("gpt2_xl", "--no-verify", "--context", n) for n in ("64", "128"))
    assert near.totals.macs < far.totals.macs
    assert near.totals.dram_read_bits < far.totals.dram_read_bits  # type: ignore[operator]
    assert any("cached keys" in note for note in near.notes)
    before, after = (run("digits-mlp", *flag) for flag in ([], ["--dense"]))
    assert before.totals.effectual_macs < after.totals.effectual_macs


def test_seeds_draw_other_tensors(capfd: pytest.CaptureFixture[str]) -> None:
    """Of a layer with synthetic tensors: other numbers, other noise; the same seed, the same."""
    found = []
    for seed in ("0", "0", "1"):
        call = ["run", "bitfusion", "gemm:4x64x32", "--seed", seed, "--json", "-"]
        code, out, _ = answer(call, capfd)
        assert code == 0
        found.append(msgspec.json.decode(out, type=Report).output_sqnr_db)
    assert found[0] == found[1] != found[2]


def test_nothing_that_runs_is_an_error(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The table is given, the exit code is 2, and the message says why."""
    file = tmp_path / "conv.csv"
    file.write_text(
        "Layer name, IFMAP Height, IFMAP Width, Filter Height, Filter Width, Channels, "
        "Num Filter, Strides,\nconv1, 8, 8, 3, 3, 4, 8, 1,\nconv2, 8, 8, 3, 3, 4, 8, 1,\n"
    )
    code, out, err = answer(["run", "eie", str(file)], capfd)
    assert code == 2 and "no layer of" in err and "3x3" in err
    assert "conv1" in out and "conv2" in out and "0 of 2" in out


def test_a_difference_is_exit_code_1(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Outputs that differ are no bad input: the report is given, and the command fails."""
    file = tmp_path / "wrong.py"
    file.write_text(OFF_BY_ONE)
    for work in ("gemm:4x16x8", "digits-mlp"):
        code, out, err = answer(["run", str(file), work], capfd)
        assert code == 1 and "NO" in out and "differ" in err and "Traceback" not in err
    compared = ["compare", "digits-mlp", "--machines", f"bitfusion,{file}"]
    code, out, err = answer(compared, capfd)
    assert code == 1 and "NO" in out and "differ" in err


def test_a_machine_from_a_file(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Its fields are options, as those of any machine; `machines` shows its datasheet."""
    file = tmp_path / "mine.py"
    file.write_text(
        "from sparqsim.architectures.arrays.bitfusion import BitFusion\n"
        "class Mine(BitFusion, frozen=True, kw_only=True):\n"
        "    name = 'mine'\n"
        "    title = 'Mine'\n"
    )
    call = ["run", str(file), "gemm:64x64x64", "--rows", "8", "--json", "-"]
    code, out, _ = answer(call, capfd)
    report = json.loads(out)
    assert code == 0 and report["machine"] == "mine"
    assert report["provenance"]["configuration"]["rows"] == 8
    code, out, _ = answer(["machines", str(file)], capfd)
    assert code == 0 and out.startswith("Mine")


def test_no_option_has_two_meanings() -> None:
    """Fields of a machine and options of the command have names of their own."""
    import click

    from sparqsim.architectures.registry import get_machine, machine_names

    shared = {parameter.name for parameter in tensor_options(click.command()(lambda: 0)).params}
    for name in machine_names():
        made = command.get_command(click.Context(command), name)  # type: ignore[attr-defined]
        names = [parameter.name for parameter in made.params]
        assert len(names) == len(set(names)), name
        assert shared <= set(names)
        assert {option.name for option in machine_options(get_machine(name))} <= set(names)


def test_long_words_leave_room_for_the_totals(capfd: pytest.CaptureFixture[str]) -> None:
    """Neither a note on the judging nor a recipe's name takes the room of what stands beside it."""
    report = run("plain", "digits-mlp")
    assert isinstance(report, NetworkReport) and report.accuracy is not None
    why, name = "a layer is judged " + "in another way " * 20, "a recipe " * 20
    judged = msgspec.structs.replace(report.accuracy, note=why, recipe=name)
    show_network(msgspec.structs.replace(report, accuracy=judged), "a network")
    lines = capfd.readouterr().out.splitlines()
    for label in ("layers run ", "cycles ", "multipliers used ", "accuracy "):
        assert any(line.startswith(label) for line in lines), label
    assert any(line.startswith("note: a layer is judged") for line in lines)
