"""Is a correct, a wrong and a hostile answer file of each lab graded as it should be?

The right answers are found here as a student would: by hand, from the tables that commands print,
and from runs on the command line; not by the labs' own solutions.
"""

from __future__ import annotations

import json
import math
import re
import shlex
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from paths import DOCS

from sparqsim.base import InputError
from sparqsim.scripts.cli import cli
from sparqsim.scripts.grade import answers
from sparqsim.scripts.grade.answers import MOST_BYTES, grade
from sparqsim.scripts.grade.sheet import (
    LABS,
    SEED_VARIABLE,
    Grade,
    Lab,
    Question,
    draw,
    get_lab,
    read_seed,
    student_id,
)
from sparqsim.workloads import formats

WHO = "s1234567"
SEED = "a seed that nobody guesses"
ASKED = [name for name in LABS if get_lab(name).questions]
LONG = ("eie", "precision")  # whose answers take a dozen runs


@pytest.fixture(autouse=True)
def without_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(SEED_VARIABLE, raising=False)


def told(command: str, capsys: pytest.CaptureFixture[str]) -> Any:
    """The JSON that a command prints."""
    words = [*shlex.split(command)[1:], "--json", "-"]
    capsys.readouterr()
    cli.main(args=words, prog_name="sparqsim", standalone_mode=False)
    return json.loads(capsys.readouterr().out)


def by_hand_quantization(given: dict[str, Any], _: Any) -> dict[str, Any]:
    """The lecture's formulas in plain numpy."""
    r, levels = np.array(given["matrix"]), 2 ** given["bits"] - 1
    low, high = min(r.min(), 0), max(r.max(), 0)
    scale, bottom = (high - low) / levels, -(2 ** (given["bits"] - 1))
    zero = bottom + round(-low / scale)
    q = np.clip(np.rint(r / scale) + zero, bottom, bottom + levels)
    error = r - scale * (q - zero)
    factor = given["scale_w"] * given["scale_x"] / given["scale_y"]
    return {
        "scale": scale,
        "zero_point": zero,
        "codes": q.ravel().astype(int).tolist(),
        "worst_error": np.abs(error).max(),
        "sqnr_db": 10 * np.log10((r**2).sum() / (error**2).sum()),
        "right_shift": -math.frexp(factor)[1],
        "output": max(-128, min(127, math.floor(abs(given["sum"]) * factor + 0.5)
                                * (1 if given["sum"] > 0 else -1))),
    }  # fmt: skip


def from_runs_eie(given: dict[str, Any], capsys: Any) -> dict[str, Any]:
    """The command of the sheet, and the same for other queues."""
    command = get_lab("eie").sheet(given)[0].removesuffix(" --json -") + " --no-verify"
    report = told(command, capsys)
    base = command.partition(" --queue-slots")[0] + " --no-verify"
    cycles = {s: told(f"{base} --queue-slots {s}", capsys)["cycles"] for s in
              (2, 3, 5, 9, 17, 33, 65, 129, 257)}  # fmt: skip
    work = report["load_balance"]["work_cycles"]
    return {
        "cycles": report["cycles"],
        "padding_share": report["counters"]["padding_entries"] / report["counters"]["entries"],
        "balanced_cycles": sum(work) / len(work),
        "load_balance": sum(work) / len(work) / report["cycles"],
        "enough_slots": next(s for s, each in cycles.items() if each <= 1.05 * cycles[257]),
    }


def nearest(values: np.ndarray, x: float) -> int:
    """The nearest value of a table; of two the larger."""
    return int(max(values, key=lambda v: (-abs(v - x), v)))


def from_runs_precision(given: dict[str, Any], capsys: Any) -> dict[str, Any]:
    """Three runs; tables of the formats by nearest values, outliers by the paper's rule."""
    work = f"gemm:{given['m']}x{given['k']}x{given['n']}"
    runs = {
        name: told(f"sparqsim run bitfusion {work} --no-verify --recipe {name}", capsys)
        for name in ("int8", "w4a8", "int4")
    }
    table = {
        name: np.array(told(f"sparqsim formats {name}", capsys)["values"])
        for name in ("flint4_unsigned", "int4_signed", "flint4_signed", "pot4_signed")
    }
    outliers = formats.get("abfloat_e2m1_bias2").values
    pairs = []
    for left, right in zip(given["pairs"][::2], given["pairs"][1::2], strict=True):
        found = [left, right]
        if max(map(abs, found)) > 7:
            place = int(abs(right) > abs(left))
            found[place] = int(np.sign(found[place])) * nearest(
                outliers[outliers > 0], abs(found[place])
            )
            found[1 - place] = 0
        pairs += found
    error = {
        name: sum(min(abs(table[name] - z)) ** 2 for z in given["row"])
        for name in table
        if name != "flint4_unsigned"
    }
    cycles = {name: run["cycles"] for name, run in runs.items()}
    return {
        "cycles_int8": cycles["int8"],
        "speedup_w4a8": cycles["int8"] / cycles["w4a8"],
        "speedup_int4": cycles["int8"] / cycles["int4"],
        "bound_int4": runs["int4"]["bound_by"].upper(),  # letters' case does not matter
        "flint": [nearest(table["flint4_unsigned"], x) for x in given["values"]],
        "pairs": pairs,
        "type": min(error, key=error.__getitem__),
    }


def by_hand_sparsity(given: dict[str, Any], capsys: Any) -> dict[str, Any]:
    """Two of four by looking, bits by counting, and two runs."""
    w = np.array(given["weights"])
    mask = np.zeros(16, int)
    for start in range(0, 16, 4):
        mask[start + np.argsort(np.abs(w[start : start + 4]))[2:]] = 1
    index = (given["m"] - 1).bit_length()
    work = "gemm:{0}x{0}x{0}".format(given["size"])
    cycles = [
        told(f"sparqsim run sparse-tensor-core {work} --no-verify --recipe {name}", capsys)[
            "cycles"
        ]
        for name in ("fp16", "2:4")
    ]
    return {
        "mask": mask.tolist(),
        "kept_2of4": (w[mask == 1] ** 2).sum() / (w**2).sum(),
        "kept_unstructured": np.sort(w**2)[8:].sum() / (w**2).sum(),
        "bits_per_weight": given["n"] * (given["value_bits"] + index) / given["m"],
        "speedup": cycles[0] / cycles[1],
    }


SOLVED = {
    "quantization": by_hand_quantization,
    "eie": from_runs_eie,
    "precision": from_runs_precision,
    "sparsity": by_hand_sparsity,
}


def written(folder: Path, given: dict[str, Any]) -> str:
    """An answer file."""
    path = folder / "answers.toml"
    lines = [f"{key} = {msgspec.json.encode(value, enc_hook=float).decode()}"
             for key, value in given.items()]  # fmt: skip
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


def solved_once(lab: str, monkeypatch: pytest.MonkeyPatch) -> Lab:
    """The lab with its answers to one sheet found once, for they may take a dozen runs."""
    given, held = draw(lab, WHO, ""), get_lab(lab)
    assert held.solve is not None
    solved = {msgspec.json.encode(given): held.solve(given)}

    def solve(parameters: dict[str, Any]) -> dict[str, Any]:
        return solved[msgspec.json.encode(parameters)]

    once = msgspec.structs.replace(held, solve=solve)
    monkeypatch.setattr(answers, "get_lab", lambda _: once)
    return once


def off(question: Question, value: Any) -> Any:
    """An answer just beyond what is accepted."""
    if question.kind == "number":
        return value * (1 + 2 * question.within) + 1e-9
    if question.kind == "wholes":
        return [value[0] + 1, *value[1:]]
    return value + ("s" if question.kind == "word" else 1)


@pytest.mark.parametrize(
    "lab", [pytest.param(x, marks=[pytest.mark.slow] if x in LONG else []) for x in ASKED]
)
def test_right_answers_get_all_points_and_wrong_ones_none(
    lab: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What a student finds is right to the last question; each answer a little off costs its own
    points and no others; another student's sheet asks for other answers."""
    right = SOLVED[lab](draw(lab, WHO, ""), capsys)
    held = solved_once(lab, monkeypatch)
    found = grade(lab, written(tmp_path, right), WHO)
    assert (found.points, found.remarks) == (found.of, []), found.marks
    for question in held.questions:
        changed = right | {question.key: off(question, right[question.key])}
        less = grade(lab, written(tmp_path, changed), WHO)
        assert less.points == found.of - question.points
        assert {m.question for m in less.marks if m.verdict != "right"} == {question.key}
    monkeypatch.undo()
    other = grade(lab, written(tmp_path, right), WHO + "8")
    assert other.points < found.of / 2


HOSTILE = {
    "no TOML": b"scale = = 1",
    "no text": b"\xff\xfe\x00scale",
    "nested": b"a = " + b"[" * 5000,
    "long": b"a = 1\n" * MOST_BYTES,
    "empty": b"",
    "digits": b"scale = " + b"9" * 5000,
}
VALUES = ["true", "nan", "-inf", "'1.0'", "1979-05-27T07:32:00Z", "[[1]]", "{a = 1}", "[]",
          "9223372036854775808", "'\\u001b[2J'"]  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("lab", ["quantization", "machine"])
def test_a_file_that_is_no_answers_is_a_result(lab: str, name: str, tmp_path: Path) -> None:
    """Whatever the bytes are: no points, a remark where the file is not TOML, and a grade that
    JSON holds. The lab that runs a machine starts nothing for it."""
    path = tmp_path / "answers.toml"
    path.write_bytes(HOSTILE[name])
    found = grade(lab, str(path), WHO)
    assert found.points == 0 and found.of > 0
    assert found.remarks or name == "empty"
    assert msgspec.json.decode(msgspec.json.encode(found), type=Grade) == found


@pytest.mark.parametrize("lab", ["quantization", "precision"])
def test_answers_of_wrong_types_are_unreadable(
    lab: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Truth values, NaN, dates, tables, texts in the place of numbers cost their points; what is
    shown of them steers no terminal, and long values are cut."""
    path, held = tmp_path / "answers.toml", solved_once(lab, monkeypatch)
    for value in VALUES:
        lines = [f'"{question.key}" = {value}' for question in held.questions]
        lines.append(f'"\\u001b]0;x{"y" * 90}" = 1')
        path.write_text("\n".join(lines), encoding="utf-8")
        found = grade(lab, str(path), WHO)
        assert found.points == 0 and {m.verdict for m in found.marks} <= {"unreadable", "wrong"}
        assert len(found.remarks) == 1 and found.remarks[0].isprintable()
        assert all(mark.given.isprintable() and len(mark.given) <= 60 for mark in found.marks)


def test_the_seed_seals_a_sheet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the lecturer's seed the sheet is another, the same whether the seed comes from a file or
    the environment; the result names it by a fingerprint and not itself."""
    (tmp_path / "seed").write_text(f"{SEED}\n", encoding="utf-8")
    assert read_seed(str(tmp_path / "seed")) == SEED
    assert draw("quantization", WHO, SEED) != draw("quantization", WHO, "")
    path = written(tmp_path, get_lab("quantization").solve(draw("quantization", WHO, SEED)))
    sealed = grade("quantization", path, WHO, str(tmp_path / "seed"))
    assert sealed.points == sealed.of and sealed.sheet.startswith("sealed ")
    assert grade("quantization", path, WHO).points < sealed.of
    monkeypatch.setenv(SEED_VARIABLE, SEED)
    assert grade("quantization", path, WHO) == sealed
    assert SEED not in msgspec.json.encode(sealed).decode()
    for short in ("", "guessable"):
        (tmp_path / "seed").write_text(short, encoding="utf-8")
        with pytest.raises(InputError, match="at least 16 characters"):
            read_seed(str(tmp_path / "seed"))


def test_a_sheet_hangs_on_the_student_alone() -> None:
    """The same ID gives the same sheet however it is typed; no two of a hundred are alike; what is
    no ID is refused."""
    assert student_id(" Mu\u0308ller ") == student_id("Müller")
    for lab in ASKED:
        sheets = {msgspec.json.encode(draw(lab, f"s{number}", "")) for number in range(40)}
        assert len(sheets) == 40
    for wrong in ("", "  ", "a\nb", "x" * 65):
        with pytest.raises(InputError, match="ID must be"):
            student_id(wrong)


def test_the_command_prints_sheets_grades_and_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """--questions shows every key, --solutions an answer file that gets all points, --json the
    result; two things at once, and no such lab, are refused."""
    sheet = told(f"sparqsim grade sparsity --questions --student {WHO}", capsys)
    assert [each["key"] for each in sheet["questions"]] == list(
        get_lab("sparsity").solve(draw("sparsity", WHO, ""))
    )
    words = ["grade", "sparsity", "--solutions", "--student", WHO]
    cli.main(args=words, prog_name="sparqsim", standalone_mode=False)
    path = tmp_path / "answers.toml"
    path.write_text(capsys.readouterr().out, encoding="utf-8")
    found = told(f"sparqsim grade sparsity {path} --student {WHO}", capsys)
    assert found["points"] == found["of"] == 6
    assert set(told("sparqsim grade --list", capsys)) == set(LABS)
    for wrong in (
        f"grade sparsity {path} --questions --student {WHO}",
        f"grade x {path} --student a",
        "grade sparsity --questions",
        f"grade sparsity {path}.no --student a",
        "grade machine --solutions --student a",
        "grade eie --board .",
    ):
        with pytest.raises(InputError):
            cli.main(args=wrong.split(), prog_name="sparqsim", standalone_mode=False)


GUIDE = (DOCS / "lecture" / "grading.md").read_text(encoding="utf-8")
GUIDED = re.findall(r"^\$ (sparqsim grade .*?)(?: >.*)?$", GUIDE, re.MULTILINE)


@pytest.mark.slow
@pytest.mark.parametrize("contest", [False, True], ids=["sheets", "contest"])
def test_the_guides_commands_run(
    contest: bool,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each command of the lecturers' page, in order, on the files that the page shows."""
    monkeypatch.chdir(tmp_path)
    answers, entry = re.findall(r"^```toml\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)
    for name, text in {"answers.toml": answers, "entry.toml": entry, "seed": SEED}.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    (tmp_path / "results").mkdir()
    commands = [each for each in GUIDED if ("contest" in each) == contest]
    assert len(commands) == (2 if contest else 5)
    for command in commands:
        cli.main(args=shlex.split(command)[1:], prog_name="sparqsim", standalone_mode=False)
        assert capsys.readouterr().out.strip()
    if contest:
        (result,) = (tmp_path / "results").iterdir()
        assert msgspec.json.decode(result.read_bytes(), type=Grade).points == 1
    else:
        assert msgspec.json.decode((tmp_path / "s1234567.json").read_bytes(), type=Grade).of == 6
