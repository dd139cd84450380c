"""Does a user get an answer or an error? The command line, run as a process or in this one."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from sparqsim.scripts.cli import main

KEYS = {
    "machine",
    "layer",
    "cycles",
    "seconds",
    "macs",
    "utilization",
    "load_balance",
    "stalls",
    "critical_path",
    "counters",
    "memory",
    "energy",
    "verification",
    "provenance",
    "recipe",
    "operands",
    "output_sqnr_db",
    "bound_by",
}


def answer(arguments: list[str], capfd: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of a call."""
    code = 0
    try:
        main(arguments)
    except SystemExit as stop:
        code = int(stop.code or 0)
    out, err = capfd.readouterr()
    return code, out, err


def test_help_answers_at_once() -> None:
    """`sparqsim --help` imports nothing heavy: well under a second of processor time."""
    call = [sys.executable, "-m", "sparqsim.scripts.cli", "--help"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    out = subprocess.run(call, capture_output=True, text=True, check=True).stdout
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert "run" in out and "validate" in out
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.8
    heavy = "{'numba', 'networkx', 'matplotlib', 'numpy'}"
    check = f"import sys, sparqsim.scripts.cli; assert not {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", check], check=True)


def test_run_gives_the_whole_report(capfd: pytest.CaptureFixture[str]) -> None:
    """--json - prints the report alone, with the promised keys."""
    code, out, _ = answer(["run", "eie", "digits-mlp/fc3", "--json", "-"], capfd)
    report = json.loads(out)
    assert code == 0 and set(report) >= KEYS
    assert report["verification"]["status"] == "exact"
    assert {"spmat_reads", "ptr_reads", "padding_entries", "broadcasts"} <= set(report["counters"])
    assert report["provenance"]["configuration"]["pes"] == 64


def test_options_of_the_machine_reach_it(capfd: pytest.CaptureFixture[str]) -> None:
    """A field of the configuration is an option; both engines give the same report."""
    call = ["run", "eie", "digits-mlp/fc3", "--batch", "3", "--pes", "16"]
    call += ["--queue-slots", "4", "--no-act-spill", "--json", "-"]
    reports = []
    for engine in (["--engine", "compiled"], ["--engine", "simpy", "--execute"]):
        code, out, _ = answer([*call, *engine], capfd)
        assert code == 0
        reports.append(json.loads(out))
    one, two = reports
    assert one["provenance"]["configuration"]["queue_slots"] == 4
    for key in KEYS - {"provenance"}:
        assert one[key] == two[key]


def test_table_fits_a_hundred_columns(capfd: pytest.CaptureFixture[str]) -> None:
    """The terminal's report, and the lists, are no wider than 100 columns."""
    compared = ["compare", "digits-mlp", "digits-cnn", "--machines", "bitfusion,eie,plain,tpu,ant"]
    for call in (
        ["run", "eie", "digits-mlp/fc3"],
        ["run", "eie", "digits-cnn"],
        [*compared, "--no-verify"],
        ["machines"],
        ["machines", "eie"],
        ["machines", "sparse-tensor-core", "--preset", "h100"],
    ):
        code, out, _ = answer(call, capfd)
        assert code == 0 and max(map(len, out.splitlines())) <= 100


def test_files_are_written(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Report, trace, figures and page, all in one call."""
    call = ["run", "eie", "gemm:1x16x8", "--pes", "2"]
    call += ["--json", str(tmp_path / "r.json"), "--trace", str(tmp_path / "t.json")]
    call += ["--figures", str(tmp_path / "f"), "--page", str(tmp_path / "p.html")]
    code, _, _ = answer(call, capfd)
    assert code == 0
    assert json.loads((tmp_path / "r.json").read_text())["machine"] == "eie"
    assert json.loads((tmp_path / "t.json").read_text())["traceEvents"]
    assert {path.name for path in (tmp_path / "f").iterdir()} >= {"load_balance.png", "stalls.png"}
    assert "<html" in (tmp_path / "p.html").read_text()[:200]


def test_configuration_from_a_file(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """TOML sets fields, options win over it, unknown keys and wrong types are refused."""
    file = tmp_path / "eie.toml"
    file.write_text("pes = 8\nqueue_slots = 4\n")
    call = ["run", "eie", "digits-mlp/fc3", "--batch", "1", "--config", str(file)]
    code, out, _ = answer([*call, "--pes", "16", "--json", "-"], capfd)
    used = json.loads(out)["provenance"]["configuration"]
    assert code == 0 and (used["pes"], used["queue_slots"]) == (16, 4)
    for text, message in (
        ("pse = 8", "pse"),
        ("pes = 'many'", "pes"),
        ("pes = 8\npes = 9", "eie.toml"),
        ("pes = ", "eie.toml"),
    ):
        file.write_text(text)
        code, _, err = answer(call, capfd)
        assert code == 2 and message in err and "Traceback" not in err


def test_configuration_from_a_preset(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A named configuration; a file's fields win over it, options over both."""
    call = ["run", "sparse-tensor-core", "gemm:64x256x256", "--no-verify", "--json", "-"]

    def used(*more: str) -> dict:
        code, out, err = answer([*call, *more], capfd)
        assert code == 0, err
        return json.loads(out)["provenance"]["configuration"]

    plain, preset = used(), used("--preset", "h100")
    assert plain["sms"] != preset["sms"]
    file = tmp_path / "own.toml"
    file.write_text("sms = 7\nl2_mib = 3.0\n")
    mixed = used("--preset", "h100", "--config", str(file), "--sms", "5")
    assert (mixed["sms"], mixed["l2_mib"]) == (5, 3.0)
    assert mixed["clock_hz"] == preset["clock_hz"]


FC3 = ["run", "eie", "digits-mlp/fc3"]
MLP = ["run", "eie", "digits-mlp"]
ARRAY = ["run", "bitfusion", "gemm:2x8x8"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "eie", "alexnet/fc9"], "fc6"),
        (["run", "eie", "digits-mlp/fc9"], "fc1"),
        (["run", "eie", "nothing"], "there is no model"),
        (["run", "eie", "digits-mlp", "digits-cnn"], "unexpected"),
        (["run", "eie"], "--counts"),
        (["run", "bitfusion"], "WORK"),
        (["run", "bitfusion", "gemm:2x8"], "gemm"),
        ([*FC3, "--queue-slots", "1"], "queue_slots"),
        ([*FC3, "--pes", "x"], "pes"),
        (["run", "eie", "alexnet/conv1"], "does not run on eie"),
        (["run", "eie", "alexnet/fc8", "--weight-density", "nan"], "fraction"),
        (["run", "eie", "alexnet/fc8", "--weight-density", "2"], "--weight-density"),
        (["run", "eie", "alexnet/fc8", "--activation-density", "-1"], "--activation-density"),
        (["run", "eie", "digits-mlp/fc1", "--weight-density", ".5"], "real tensors"),
        (["run", "eie", "digits-mlp/fc1", "--batch", "100000"], "1 to 359"),
        ([*FC3, "--batch", "0"], "--batch"),
        ([*FC3, "--context", "3"], "context changes nothing"),
        ([*FC3, "--sequence", "3"], "sequence changes nothing"),
        ([*FC3, "--shape", "x=3"], "shapes changes nothing"),
        ([*FC3, "--shape", "three"], "a shape is"),
        ([*FC3, "--calibration", "x.npz"], "calibration changes nothing"),
        ([*FC3, "--inputs", "x.npz"], "inputs changes nothing"),
        (["run", "eie", "alexnet/fc8", "--dense"], "dense changes nothing"),
        ([*FC3, "--seed", "-1"], "--seed"),
        ([*FC3, "--recipe", "int9"], "int8"),
        ([*FC3, "--recipe", "absent.toml"], "absent.toml"),
        ([*FC3, "--config", "absent.toml"], "absent.toml"),
        ([*FC3, "--preset", "h100"], "h100"),
        ([*FC3, "--preset", "nothing"], "nothing"),
        ([*FC3, "--engine", "fast"], "--engine"),
        ([*FC3, "--summary", "--trace", "x.json"], "summary"),
        ([*FC3, "--execute"], "simpy"),
        ([*FC3, "--jobs", "2"], "--jobs changes nothing"),
        ([*FC3, "--csv", "-"], "--csv changes nothing"),
        ([*MLP, "--trace", "x.json"], "--trace changes nothing"),
        ([*MLP, "--summary"], "--summary changes nothing"),
        ([*MLP, "--execute", "--engine", "simpy"], "--execute changes nothing"),
        ([*MLP, "--jobs", "0"], "--jobs"),
        ([*MLP, "--csv", "/dev/null/x.csv"], "/dev/null"),
        ([*ARRAY, "--no-verify", "--seed", "3"], "--seed changes nothing"),
        ([*ARRAY, "--no-verify", "--weight-density", ".5"], "--weight-density changes nothing"),
        (["run", "eie", "--counts", "absent.npz"], "npz"),
        ([*FC3, "--counts", "absent.npz"], "not both"),
        (["run", "eie", "--counts", "absent.npz", "--batch", "2"], "--batch changes nothing"),
        (["run", "eie", "--counts", "absent.npz", "--recipe", "eie"], "--recipe changes nothing"),
        (["run", "eie", "--counts", "absent.npz", "--no-verify"], "--verify changes nothing"),
        ([*ARRAY, "--counts", "x.npz"], "--counts"),
        ([*FC3, "--json", "/dev/null/x.json"], "/dev/null"),
        ([*FC3, "--page", "/dev/null/x.html"], "/dev/null"),
        ([*FC3, "--trace", "/dev/null/x.json"], "/dev/null"),
        ([*FC3, "--trace", "x.txt"], ".json"),
        ([*FC3, "--figures", "/proc/x"], "/proc/x"),
        (["run", "eei", "alexnet/fc8"], "eie"),
        (["run", "absent.py", "alexnet/fc8"], "absent.py"),
        (["rnu"], "run"),
        (["validate", "eei"], "eie"),
        (["machines", "eei"], "eie"),
        (["machines", "absent.py"], "absent.py"),
        (["machines", "eie", "--preset", "h100"], "h100"),
        (["machines", "--preset", "h100"], "--preset"),
    ],
)
def test_bad_input_is_an_error_message(
    arguments: list[str], message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2, one message that names the matter, no traceback."""
    code, out, err = answer(arguments, capfd)
    assert code == 2 and not out
    assert message in err and "Traceback" not in err
    lines = err.strip().splitlines()
    assert len(lines) == 1 or lines[0].startswith("Usage:")


def test_counts_file(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Statistics without weights: timing alone, and a malformed file is refused."""
    path = tmp_path / "counts.npz"
    rng = np.random.default_rng(0)
    np.savez(path, counts=rng.integers(0, 4, (64, 33)), active_columns=np.arange(0, 32, 2))
    call = ["run", "eie", "--counts", str(path), "--sram-row-entries", "4", "--json", "-"]
    code, out, _ = answer(call, capfd)
    report = json.loads(out)
    assert code == 0 and report["counters"]["broadcasts"] == 17
    assert report["verification"]["status"] == "skipped"
    path.write_bytes(path.read_bytes()[:100])
    code, _, err = answer(call, capfd)
    assert code == 2 and "npz" in err


@pytest.mark.skipif(os.geteuid() == 0, reason="root can write anywhere")
def test_unwritable_folder(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A folder without permission is named and nothing is left in it."""
    tmp_path.chmod(0o500)
    call = ["run", "eie", "digits-mlp/fc3", "--json", str(tmp_path / "r.json")]
    code, _, err = answer(call, capfd)
    assert code == 2 and str(tmp_path) in err


def test_validation_of_eie_holds(capfd: pytest.CaptureFixture[str]) -> None:
    """Seven of nine layers of Table IV within the bound; the two known misses are misses."""
    from sparqsim.scripts.output import PatientBar
    from sparqsim.scripts.validation.eie import table_iv

    rows = {row.layer: row for row in table_iv(PatientBar(), seeds=1)}
    assert len(rows) == 9
    misses = {name for name, row in rows.items() if not row.within_bound}
    assert {"alex-8", "vgg-6"} <= misses <= {"alex-8", "vgg-6", "nt-lstm"}


def test_memory_of_decoding_says_its_context(capfd: pytest.CaptureFixture[str]) -> None:
    """Without ``--context`` a decoder attends to a stated number of tokens; what makes no tokens
    has no bandwidth of decoding."""
    asked = ["models", "gpt2_xl", "--memory", "--json", "-"]
    (default,), (stated,) = (
        json.loads(answer([*asked, *more], capfd)[1]) for more in ([], ["--context", "2048"])
    )
    assert default == stated and default["context"] == 2048
    (none,) = json.loads(answer(["models", "resnet18", "--memory", "--json", "-"], capfd)[1])
    assert "bytes_per_s" not in none
