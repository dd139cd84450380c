"""Does any input corrupt, crash or deceive? Every refusal is one line, code 2, nothing written."""

from __future__ import annotations

import csv
import io
import re
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from paths import HEEDING

from sparqsim.base import InputError, bytes_of, check_memory, printable, read_text
from sparqsim.scripts.cli import main

NAMES = [
    "\x1b[31mred\x1b[0m", "[/bold]", "[red]x[/red]", "\u202egnp.exe", "a" * 10_000, "a\x00b",
    "<script>alert(1)</script>", "two\nlines", "]]>&amp;\"'", "\x07bell", ":smile:", "$x^{$",
    "[link=http://x]y", "../../etc/passwd", "=cmd|' /C calc'!A0", "%s%n", "\u200b", "--help",
    "\x9b31mCSI", "\x7f",
]  # fmt: skip
STEERING = ("\x1b", "\x07", "\u202e", "\u200b", "\x00", "\x9b", "\x7f")


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What is said of arguments that must be refused: in one line, with exit code 2."""
    with pytest.raises(SystemExit) as ended:
        main([*arguments])
    said = capsys.readouterr().err.strip()
    assert ended.value.code == 2, said
    assert said.startswith("error: ") and len(said.splitlines()) == 1, said
    return said


@pytest.fixture
def network(tmp_path: Path) -> Path:
    """A hundred layers with names that attack what shows them."""
    nodes, weights, before = [], [], "x"
    for i in range(100):
        name = NAMES[i % len(NAMES)] + (str(i) if i >= len(NAMES) else "")
        identity = np.eye(8, dtype=np.float32).ravel().tolist()
        weights.append(helper.make_tensor(f"w{i}", TensorProto.FLOAT, [8, 8], identity))
        nodes.append(helper.make_node("MatMul", [before, f"w{i}"], [f"{name}_o"], name=name))
        before = f"{name}_o"
    graph = helper.make_graph(
        nodes, "\x1b[31mgraph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [4, 8])],
        [helper.make_tensor_value_info(before, TensorProto.FLOAT, [4, 8])],
        weights,
    )  # fmt: skip
    path = tmp_path / "net.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), path)
    return path


def test_hostile_names_are_harmless(
    network: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Names steer neither terminal, page nor spreadsheet; none is lost, none is a mark-up."""
    page, table, figures = tmp_path / "page.html", tmp_path / "rows.csv", tmp_path / "figures"
    main(["models", str(network)])
    main(["models", str(network), "--json", "-"])
    main(["compress", str(network), "--recipe", "w4"])
    main(["run", "bitfusion", str(network), "--no-verify", "--page", str(page),
          "--csv", str(table), "--figures", str(figures)])  # fmt: skip
    shown = capsys.readouterr()
    for text in (shown.out, shown.err, page.read_text(), table.read_text()):
        assert not [each for each in STEERING if each in text]
    assert "\\x1b[31mred" in shown.out and "[red]x[/red]" in shown.out and "[/bold]" in shown.out
    assert "<script>alert" not in page.read_text() and "&lt;script&gt;" in page.read_text()
    assert page.stat().st_size < 2_000_000 and len(shown.out) < 200_000
    rows = list(csv.reader(io.StringIO(table.read_text())))
    assert len(rows) == 101
    assert not [cell for row in rows for cell in row if cell.startswith(("=", "+", "@"))]
    assert all(path.stat().st_size for path in figures.iterdir())


def test_text_is_printable_and_short() -> None:
    """Escapes show what was there; ordinary text, of any script, stays as it is."""
    assert printable("a\x1b[31m\u202e") == "a\\x1b[31m\\u202e"
    assert printable("größe 层 😀\nx") == "größe 层 😀\nx"
    for length in range(1, 12):
        assert len(printable("abcdefghijklmnop", length)) == length


def _bad_files(folder: Path) -> dict[str, Path]:
    made = {
        "latin": 'name = "café"'.encode("latin-1"),
        "deep": b"a = " + b"[" * 5000 + b"]" * 5000,
        "digits": b"rows = " + b"9" * 5000,
        "nul": b'name = "a\x00b"',
        "control": b'"\\u001b[31mx" = 1',
        "binary": bytes(range(256)) * 4,
    }
    for name, content in made.items():
        (folder / f"{name}.toml").write_bytes(content)
    (folder / "loop.toml").symlink_to("loop.toml")
    (folder / "folder.toml").mkdir()
    found = {name: folder / f"{name}.toml" for name in (*made, "loop", "folder", "absent")}
    return found | {"endless": Path("/dev/zero"), "empty name": Path("")}


@pytest.mark.parametrize("option", ["--config", "--recipe"])
def test_files_of_settings(option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file that is no file of settings is refused at once, by its name, whatever it is."""
    for kind, path in _bad_files(tmp_path).items():
        given = "" if kind == "empty name" else str(path)
        start = time.process_time()
        said = refused(capsys, "run", "bitfusion", "gemm:4x4x4", option, given)
        assert time.process_time() - start < 5, kind
        assert not [each for each in STEERING if each in said], kind
        if given and kind != "control":
            assert path.name in said, (kind, said)


def test_files_of_sweeps(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """So is a file that is no sweep."""
    (tmp_path / "endless.toml").symlink_to("/dev/zero")
    files = {**_bad_files(tmp_path), "endless": tmp_path / "endless.toml"}
    for kind in ("latin", "deep", "digits", "nul", "loop", "folder", "endless"):
        said = refused(capsys, "sweep", str(files[kind]))
        assert f"{kind}.toml" in said, (kind, said)


def _arrays(folder: Path) -> dict[str, bytes]:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f4", "fortran_order": False, "shape": (2**40,)}
    )
    pickled = io.BytesIO()
    np.save(pickled, np.array([{}], object), allow_pickle=True)
    made: dict[str, dict[str, bytes]] = {
        "lying shape": {"x.npy": header.getvalue() + b"1234"},
        "pickle": {"x.npy": pickled.getvalue()},
        "no array": {"x": b"hello"},
        "empty": {},
    }
    found = {"cut": b"PK\x03\x04aaaa", "text": b"hello", "npy": pickled.getvalue()}
    for name, members in made.items():
        whole = io.BytesIO()
        with zipfile.ZipFile(whole, "w") as archive:
            for member, content in members.items():
                archive.writestr(member, content)
        found[name] = whole.getvalue()
    plain = io.BytesIO()
    np.savez(plain, x=np.ones(3, np.float32))
    text = b"{'descr': '<f4', 'fortran_order': False, 'shape': (2**9,)}\n"
    spoken = b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text
    many = io.BytesIO()
    np.savez(many, **{f"x{i}": np.ones(1) for i in range(600)})
    with zipfile.ZipFile(parsed := io.BytesIO(), "w") as archive:
        archive.writestr("x.npy", spoken)
    found |= {"header": parsed.getvalue(), "many": many.getvalue()}
    locked = bytearray(plain.getvalue())
    for mark, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        locked[locked.index(mark) + flags] |= 1
    return found | {"encrypted": bytes(locked)}


def test_files_of_arrays(network: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An npz that lies, runs code or is none is refused by name, and nothing of it is run."""
    for kind, content in _arrays(tmp_path).items():
        path = tmp_path / "x.npz"
        path.write_bytes(content)
        calibrated = ("run", "bitfusion", str(network), "--calibration", str(path))
        for arguments in (calibrated, ("run", "eie", "--counts", str(path))):
            said = refused(capsys, *arguments)
            assert "x.npz" in said and len(said) < 1000 and "object at" not in said, (kind, said)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("run", "bitfusion", "gemm:65536x65536x65536"), "the limit is"),
        (("run", "bitfusion", "llama_7b/lm_head", "--batch", "100000000"), "the limit is"),
        (("run", "bitfusion", "gemm:1x4x2147483648"), "1 to 2,147,483,647"),
        (("run", "bitfusion", "gemm:4x4x4", "--rows", str(2**62)), "at most"),
        (("run", "bitfusion", "gemm:4x4x4", "--clock-hz", "1e308"), "BitFusion.clock"),
        (("run", "bitfusion", "gemm:4x4x4", "--clock-hz", "5e-324"), "BitFusion.clock"),
        (
            ("run", "bitfusion", "gemm:4x4x4", "--dram-gbytes-per-s", "1e300"),
            "dram_gbytes_per_s must be",
        ),
        (("run", "eie", "gemm:4x4x4", "--pes", str(2**40)), "eie.pes must be 1 to 256"),
        (("models", "llama_7b", "--context", "9" * 30), ""),
        (("--memory-limit", "4 elephants", "machines"), "a size of memory reads 4GB"),
        (("--memory-limit", "1MB", "run", "bitfusion", "gemm:1024x1024x1024"), "1.0 MB"),
    ],
)
def test_sizes_beyond_all_bounds(
    arguments: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """What memory cannot hold or arithmetic cannot count is refused before it is tried."""
    monkeypatch.setenv("SPARQSIM_MEMORY_LIMIT", "8GB")
    assert said in refused(capsys, *arguments)


def test_memory_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit is what is set, in any unit, else a share of the machine's memory."""
    assert bytes_of("4GB") == 4 * 10**9 and bytes_of("1.5 GiB".replace(" ", "")) == 3 * 2**29
    monkeypatch.setenv("SPARQSIM_MEMORY_LIMIT", "1kB")
    check_memory(1000, "a thousand")
    with pytest.raises(InputError, match="more bytes would take"):
        check_memory(1001, "more bytes")
    for wrong in ("", "GB", "-1GB", "1e99GB", "nan", "4XB"):
        with pytest.raises(InputError, match="a size of memory reads"):
            bytes_of(wrong)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--page", ""), "must have a name"),
        (("--trace", ""), "must have a name"),
        (("--json", ""), "must have a name"),
        (("--figures", ""), "--figures must name a folder"),
        (("--trace", "x\0y.json"), "cannot hold a NUL"),
        (("--figures", "x\0y"), "cannot hold a NUL"),
        (("--json", "loop"), "round in a circle"),
        (("--page", "-"), "--page cannot go to the terminal"),
        (("--trace", "-"), "--trace cannot go to the terminal"),
        (("--page", "same", "--json", "./same"), "would both be written"),
        (("--json", "-", "--csv", "-"), "would both be written"),
        (("--page", "/dev/null/x.html"), "name a file in a folder you can write"),
        (("--figures", "/dev/null/x"), "cannot write into the folder"),
    ],
)
def test_outputs_that_cannot_be(
    options: tuple[str, ...], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Where nothing can be written, or two things to one place, is refused before the work."""
    monkeypatch.chdir(tmp_path)
    Path("loop").symlink_to("loop")
    assert said in refused(capsys, "run", "bitfusion", "gemm:4x4x4", *options)
    assert [path.name for path in tmp_path.iterdir()] == ["loop"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
@pytest.mark.parametrize("option", ["--json", "--csv"])
def test_a_full_disk(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A disk that is full is one message."""
    said = refused(capsys, "run", "bitfusion", "digits-cnn", "--no-verify", option, "/dev/full")
    assert "No space left on device" in said


def test_a_request_to_end_leaves_nothing(tmp_path: Path) -> None:
    """SIGTERM while a file is written ends the command; its temporary file is removed."""
    code = (
        "import sys, time\n"
        "from sparqsim.base import written_whole\n"
        "from sparqsim.scripts.cli import _end_well\n"
        "_end_well()\n"
        "with written_whole('out.json') as path:\n"
        "    path.write_text('half')\n"
        "    print('writing', flush=True)\n"
        "    time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=tmp_path, stdout=subprocess.PIPE, text=True
    ) as running:
        assert running.stdout is not None and running.stdout.readline() == "writing\n"
        assert len(list(tmp_path.iterdir())) == 1
        running.send_signal(signal.SIGTERM)
        assert running.wait(timeout=30) == 128 + signal.SIGTERM
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "work", ["", "/dev/zero", "./x", "loop", "folder", "a" * 5000, "x\x1b[31m"]
)
def test_work_that_is_none(
    work: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What names neither a network nor a file of one is told so, and nothing is read of it."""
    monkeypatch.chdir(tmp_path)
    Path("loop").symlink_to("loop")
    Path("folder").mkdir()
    said = refused(capsys, "models", work)
    assert "\x1b" not in said and len(said) < 6000


def test_text_of_any_file(tmp_path: Path) -> None:
    """A byte-order mark is no text; what is too long is not read to its end."""
    path = tmp_path / "x.txt"
    path.write_bytes(b"\xef\xbb\xbfhello")
    assert read_text(path, "a file") == "hello"
    with pytest.raises(InputError, match="longer than 4 bytes"):
        read_text(path, "a file", most=4)
    with pytest.raises(InputError, match="embedded null"):
        read_text("a\x00b", "a file")


def test_a_trace_says_its_size_and_has_a_limit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The size that is told is near that of the file; above the limit nothing is written."""
    path = tmp_path / "trace.json"
    run = ("run", "snap", "gemm:16x64x64", "--no-verify", "--trace")
    main([*run, str(path)])
    told = re.search(r"takes about ([\d.,]+) MB", capsys.readouterr().err)
    assert told is not None
    assert 0.5 < path.stat().st_size / (1e6 * float(told[1].replace(",", ""))) < 2
    path.unlink()
    assert "--trace-limit, 0.1 MB" in refused(capsys, *run, str(path), "--trace-limit", "100kB")
    assert not list(tmp_path.iterdir())
    assert "without --trace" in refused(capsys, "run", "snap", "gemm:4x4x4", "--trace-limit", "1GB")


@pytest.mark.slow
@pytest.mark.parametrize("after_s", [3.0, 8.0])
def test_an_interrupted_demonstration_ends_well(after_s: float, tmp_path: Path) -> None:
    """Ctrl-C while it loads or runs: exit code 130, no traceback, no file half written."""
    command = [*HEEDING, sys.executable, "-m", "sparqsim.scripts.scenarios.demo", "--out", "demo"]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as running:
        time.sleep(after_s)
        running.send_signal(signal.SIGINT)
        _, said = running.communicate(timeout=60)
    assert running.returncode == 130 and not said.strip()
    assert not list(tmp_path.glob("demo/.*"))
