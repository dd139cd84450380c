"""The lab in which a machine is written in one file, and run to be judged.

Two processes work for it, each within limits: one runs the student's code and hands over programs
as plain numbers, the other judges them (:mod:`sparqsim.scripts.grade.jury`).
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from sparqsim.base import printable
from sparqsim.scripts.grade.cases import Case, hidden_cases, public_cases, write_cases
from sparqsim.scripts.grade.guarded import Limits, run_guarded
from sparqsim.scripts.grade.jury import Task, Verdict
from sparqsim.scripts.grade.sheet import Entry, Lab, Mark

LIMITS = Limits()
NEAR = 6.0  # assumed: cycles over the lower bound that a good machine should reach
SHOWN = 3  # sentences of a case in the result
LAWS, BOUNDS, FAST = 3, 1, 1  # points of a case


def draw(rng: np.random.Generator) -> dict[str, Any]:
    """The budget."""
    return {
        "multipliers": int(rng.choice([32, 48, 64, 96, 128])),
        "bytes_per_cycle": int(rng.choice([8, 16, 32])),
    }


def sheet(given: dict[str, Any]) -> list[str]:
    """The task."""
    return [
        f"Write a machine in one file: at most {given['multipliers']} multipliers, DRAM of at most "
        f"{given['bytes_per_cycle']} bytes per cycle (bandwidth()), recipe int8, 32-bit sums,",
        "requantized as Program.with_work(Work(...)) does it. Weights come from the memory 'dram' "
        "and outputs go there, each at least once; inputs may be on the chip.",
        "The class is built without arguments: its defaults must fit the budget. The guide is",
        'docs/howto/add_a_machine.md. The answer file says: file = "my_machine.py"',
        f"Each case: {LAWS} points if the shared laws hold (outputs bit by bit, both engines, "
        f"account), {BOUNDS} for budget and lower bound, {FAST} for at most {NEAR:g} times the",
        "lower bound. Two cases are public; the lecturer's seed adds hidden ones.",
    ]


def judge(
    given: dict[str, Any],
    answers: dict[str, Any],
    folder: Path,
    hidden: np.random.Generator | None,
) -> tuple[list[Mark], list[str], Entry | None]:
    """Run the submission and judge it."""
    cases = [*public_cases(), *(hidden_cases(hidden) if hidden is not None else [])]
    source, why = _source(answers, folder)
    if not why:
        verdicts, why = _verdicts(Task(**given, cases=cases), source, LIMITS)
    if why:
        verdicts = [Verdict(laws=[why])] * len(cases)
    marks = [
        mark
        for case, verdict in zip(cases, verdicts, strict=True)
        for mark in _marks(case, verdict)
    ]
    return marks, [why] if why else [], None


def _source(answers: dict[str, Any], folder: Path) -> tuple[bytes, str]:
    """The text of the student's file, which must lie beside the answers; or why there is none."""
    name = answers.get("file")
    if not isinstance(name, str) or not name.endswith(".py") or Path(name).name != name:
        return b"", 'the answers must name a file beside them: file = "my_machine.py"'
    path = folder / name
    if path.is_symlink() or not path.is_file():
        return b"", f"there is no file {printable(name, 60)} beside the answers"
    if path.stat().st_size > 2**20:
        return b"", "the file is longer than 1 MiB"
    return path.read_bytes(), ""


def _verdicts(task: Task, source: bytes, limits: Limits) -> tuple[list[Verdict], str]:
    """Run both processes; the verdicts, or why there are none."""
    with tempfile.TemporaryDirectory(prefix="sparqsim-grade-") as name:
        theirs, ours = Path(name) / "submission", Path(name) / "jury"
        theirs.mkdir()
        ours.mkdir()
        (theirs / "machine.py").write_bytes(source)
        write_cases(theirs / "cases.json", task.cases)
        end = run_guarded(
            "sparqsim.scripts.grade.submission",
            [str(theirs / "machine.py"), str(theirs / "cases.json"), str(theirs)],
            theirs,
            limits,
        )
        if end.how != "exit" or end.code:
            return [], f"the submission did not run: {end.in_words(limits)}"
        (ours / "task.json").write_bytes(msgspec.json.encode(task))
        verdict = ours / "verdict.json"
        end = run_guarded(
            "sparqsim.scripts.grade.jury",
            [str(ours / "task.json"), str(theirs), str(verdict)],
            ours,
            limits,
        )
        if end.how != "exit" or end.code:
            return [], f"its programs could not be judged: {end.in_words(limits)}"
        return msgspec.json.decode(verdict.read_bytes(), type=list[Verdict]), ""


def _marks(case: Case, verdict: Verdict) -> list[Mark]:
    over = verdict.over_bound
    fast = over is not None and over <= NEAR
    slow = "" if over is None or fast else f"{over:.1f} times the lower bound"
    return [
        _mark(case, "laws", LAWS, not verdict.laws, verdict.laws),
        _mark(case, "bounds", BOUNDS, over is not None and not verdict.bounds, verdict.bounds),
        _mark(
            case, "near the bound", FAST,
            fast and not verdict.laws and not verdict.bounds, [slow] if slow else [],
        ),
    ]  # fmt: skip


def _mark(case: Case, what: str, points: int, good: bool, sentences: list[str]) -> Mark:
    """One mark; of a hidden case the sentences stay out, for they would tell its sizes."""
    shown = [printable(each, 300) for each in sentences[:SHOWN]]
    return Mark(
        question=f"{'hidden' if case.hidden else 'public'} {case.layer.name}: {what}",
        verdict="right" if good else "wrong",
        points=points if good else 0,
        of=points,
        why="" if case.hidden else "; ".join(shown),
    )


LAB = Lab(title="Write a machine in one file", draw=draw, sheet=sheet, judge=judge)
