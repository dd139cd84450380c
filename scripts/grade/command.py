"""``sparqsim grade``: a student's sheet, the grade of an answer file, the board of a contest."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click
import msgspec

from sparqsim.base import InputError, printable
from sparqsim.scripts.grade.answers import grade
from sparqsim.scripts.grade.sheet import (
    LABS,
    SEED_VARIABLE,
    Grade,
    draw,
    get_lab,
    read_seed,
    sheet_kind,
    student_id,
)
from sparqsim.scripts.output import console, json_option, table, write_json

MOST_FILE = 2**20  # bytes of a result on a board


@click.command()
@click.argument("lab", required=False)
@click.argument("answers", required=False, metavar="[ANSWERS.toml]")
@click.option("--student", metavar="ID", help="Whose sheet it is.")
@click.option("--questions", is_flag=True, help="Print the student's sheet.")
@click.option(
    "--solutions", is_flag=True, help="Print the answers to the sheet, as an answer file."
)
@click.option(
    "--seed-file",
    metavar="FILE",
    help=f"The lecturer's seed: sealed sheets, hidden cases.  [default: {SEED_VARIABLE}]",
)
@click.option("--board", metavar="DIR", help="Rank the results (JSON) of a contest in a folder.")
@click.option("--list", "listed", is_flag=True, help="List the labs.")
@json_option
def command(
    lab: str | None,
    answers: str | None,
    student: str | None,
    questions: bool,
    solutions: bool,
    seed_file: str | None,
    board: str | None,
    listed: bool,
    json_path: str | None,
) -> None:
    """Grade the answers of a student to a LAB, or print the student's sheet.

    Every student has parameters of their own, drawn from the ID. A file that is wrong, broken or
    hostile is graded like any other; the exit code is 0 whatever the points are.
    """
    modes = {"--questions": questions, "--solutions": solutions, "--list": listed}
    modes |= {"--board": board is not None, "ANSWERS.toml": answers is not None}
    chosen = [name for name, wanted in modes.items() if wanted]
    if len(chosen) != 1:
        told = ", ".join(chosen) or "none of them"
        raise InputError(f"give one of {', '.join(modes)}, got {told}")
    if listed:
        _list(json_path)
        return
    if lab is None:
        raise InputError(f"say which lab; there is {', '.join(LABS)}")
    if board is not None:
        _board(lab, board, json_path)
        return
    if student is None:
        raise InputError("say whose sheet it is: --student ID")
    if answers is not None:
        found = grade(lab, answers, student, seed_file)
        if json_path:
            write_json(found, json_path)
        if json_path != "-":
            _show(found)
    else:
        _sheet(lab, student_id(student), read_seed(seed_file), solutions, json_path)


def _list(json_path: str | None) -> None:
    titles = {name: get_lab(name).title for name in LABS}
    if json_path:
        write_json(titles, json_path)
    if json_path != "-":
        shown = table("Labs", ("lab", "what"), ())
        for name, title in titles.items():
            shown.add_row(name, title)
        console().print(shown)


def _sheet(name: str, student: str, seed: str, solutions: bool, json_path: str | None) -> None:
    """The sheet of a student, or the answers to it."""
    lab, given = get_lab(name), draw(name, student, seed)
    if solutions:
        if lab.solve is None:
            raise InputError(f"the lab {name!r} is judged by running it; it has no solutions")
        found = lab.solve(given)
        if json_path:
            write_json(found, json_path)
        if json_path != "-":
            for key, value in found.items():  # numbers, words and lists of JSON are TOML's
                click.echo(f"{key} = {msgspec.json.encode(value).decode()}")
        return
    asked = [
        {"key": each.key, "text": each.text, "kind": each.kind, "points": each.points}
        for each in lab.questions
    ]
    if json_path:
        sheet = {"lab": name, "student": student, "sheet": sheet_kind(seed), "given": given}
        write_json(sheet | {"task": lab.sheet(given), "questions": asked}, json_path)
    if json_path == "-":
        return
    screen = console()
    screen.print(f"{lab.title}; {student}, {sheet_kind(seed)} sheet", markup=False)
    for line in lab.sheet(given):
        screen.print(line, markup=False, soft_wrap=True)
    if asked:
        shown = table("", ("key in ANSWERS.toml", "question", "kind"), ("points",))
        for each in lab.questions:
            kind = each.kind + (f" within {each.within:g}" if each.within else "")
            shown.add_row(each.key, each.text, kind, str(each.points))
        screen.print(shown)


def _show(found: Grade) -> None:
    shown = table(
        f"{found.lab}, {found.student} ({found.sheet} sheet)",
        ("question", "verdict", "answer or reason"),
        ("points",),
    )
    for mark in found.marks:
        reason = " ".join(each for each in (mark.given, mark.why) if each)
        shown.add_row(mark.question, mark.verdict, reason, f"{mark.points} of {mark.of}")
    screen = console()
    screen.print(shown)
    if found.entry is not None and found.entry.edp_js is not None:
        entry = found.entry
        screen.print(
            f"energy x time {entry.edp_js:.4g} Js, accuracy {entry.accuracy:.4f}, "
            f"{entry.area_mm2:.2f} mm2"
        )
    for remark in found.remarks:
        screen.print(f"remark: {printable(remark)}", markup=False)
    screen.print(f"{found.points} of {found.of} points")


def _results(lab: str, folder: str) -> tuple[list[Grade], list[str]]:
    """The best result of each student in a folder, and the files that are no result."""
    if not folder or not Path(folder).is_dir():
        raise InputError(f"--board needs a folder of results, and {folder!r} is none")
    best: dict[str, Grade] = {}
    wrong = []
    for path in sorted(Path(folder).glob("*.json")):
        try:
            if path.stat().st_size > MOST_FILE:
                raise ValueError("too long")
            found = msgspec.json.decode(path.read_bytes(), type=Grade)
            if found.lab != lab or found.entry is None:
                raise ValueError("of another lab")
        except (OSError, ValueError, RecursionError):
            wrong.append(path.name)
            continue
        held = best.get(found.student)
        if held is None or _place(found) < _place(held):
            best[found.student] = found
    return sorted(best.values(), key=_place), wrong


def _place(found: Grade) -> tuple[bool, float, str]:
    """Counting entries first, by energy x time."""
    entry = found.entry
    edp = entry.edp_js if entry is not None else None
    return bool(entry is None or entry.refused or edp is None), edp or 0.0, found.student


def _board(lab: str, folder: str, json_path: str | None) -> None:
    if lab != "contest":
        raise InputError(f"--board ranks the lab 'contest', got {lab!r}")
    ranked, wrong = _results(lab, folder)
    if json_path:
        write_json([{"student": each.student, "entry": each.entry} for each in ranked], json_path)
    if json_path != "-":
        _show_board(ranked, wrong)


def _show_board(ranked: Sequence[Grade], wrong: Sequence[str]) -> None:
    shown = table("Contest", ("student", "why not"), ("place", "energy x time", "accuracy", "mm2"))
    for number, each in enumerate(ranked, start=1):
        entry = each.entry
        assert entry is not None
        shown.add_row(
            each.student,
            entry.refused,
            "–" if entry.refused else str(number),
            "–" if entry.edp_js is None else f"{entry.edp_js:.4g} Js",
            "–" if entry.accuracy is None else f"{entry.accuracy:.4f}",
            "–" if entry.area_mm2 is None else f"{entry.area_mm2:.2f}",
        )
    screen = console()
    screen.print(shown)
    for name in wrong:
        screen.print(f"remark: {printable(name)} is no result of this contest", markup=False)
