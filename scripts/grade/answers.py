"""An answer file read and judged: whatever is in it, the outcome is a :class:`Grade`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from sparqsim.base import InputError, printable, read_toml
from sparqsim.scripts.grade.sheet import (
    Entry,
    Grade,
    Mark,
    Question,
    draw,
    generator,
    get_lab,
    read_seed,
    sheet_kind,
    student_id,
)

MOST_BYTES = 2**16  # assumed: no answer file that a person writes is longer
SHOWN = 60  # characters of a given answer in the result


def grade(lab: str, path: str, student: str, seed_file: str | None = None) -> Grade:
    """Grade a file of answers.

    A file that cannot be read as answers, or answers of wrong types, cost their points; they raise
    nothing.

    Raises
    ------
    InputError
        If there is no such lab or file, or the ID or the seed is none.
    """
    chosen, who, seed = get_lab(lab), student_id(student), read_seed(seed_file)
    given, remarks = _read(path)
    parameters = draw(lab, who, seed)
    entry: Entry | None = None
    if chosen.judge is not None:
        hidden = generator(seed, lab, who, "hidden") if seed else None
        marks, more, entry = chosen.judge(parameters, given, Path(path).parent, hidden)
        remarks += more
    else:
        assert chosen.solve is not None
        right = chosen.solve(parameters)
        marks = [_mark(each, given, right[each.key]) for each in chosen.questions]
        known = {each.key for each in chosen.questions}
        remarks += [f"{_shown(key)} answers no question" for key in given if key not in known]
    return Grade(
        lab=lab,
        student=who,
        sheet=sheet_kind(seed),
        points=sum(each.points for each in marks),
        of=sum(each.of for each in marks),
        marks=marks,
        remarks=remarks[:20],
        entry=entry,
    )


def _read(path: str) -> tuple[dict[str, Any], list[str]]:
    """The answers by key, and what is wrong with the file."""
    if not Path(path).is_file():
        raise InputError(f"there is no file of answers {path}")
    if Path(path).stat().st_size > MOST_BYTES:
        return {}, [f"the file is longer than {MOST_BYTES:,} bytes and was not read"]
    try:
        return dict(read_toml(path, "a file of answers", dict[str, Any])), []
    except InputError as error:
        return {}, [printable(str(error), 300)]


def _mark(question: Question, given: dict[str, Any], right: Any) -> Mark:
    """Hold one answer against the right one."""
    if question.key not in given:
        return Mark(question=question.key, verdict="missing", points=0, of=question.points)
    answer = given[question.key]
    shown = _shown(answer)
    fits, wanted = _fits(question, answer)
    if not fits:
        return Mark(
            question=question.key, verdict="unreadable", points=0, of=question.points,
            given=shown, why=f"the answer must be {wanted}",
        )  # fmt: skip
    good = _equal(question, answer, right)
    return Mark(
        question=question.key,
        verdict="right" if good else "wrong",
        points=question.points if good else 0,
        of=question.points,
        given=shown,
    )


def _shown(value: Any) -> str:
    return printable(repr(value)[: 4 * SHOWN], SHOWN)


def _number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) < 1e300 if isinstance(value, int) else math.isfinite(value)


def _whole(value: Any) -> bool:
    return _number(value) and value == int(value)


def _fits(question: Question, answer: Any) -> tuple[bool, str]:
    """Whether an answer is of the kind that is asked for, and that kind in words."""
    if question.kind == "number":
        return _number(answer), "a finite number"
    if question.kind == "whole":
        return _whole(answer), "a whole number"
    if question.kind == "wholes":
        return isinstance(answer, list) and all(map(_whole, answer)), "a list of whole numbers"
    return isinstance(answer, str), "a word"


def _equal(question: Question, answer: Any, right: Any) -> bool:
    if question.kind == "number":
        return abs(answer - right) <= question.within * abs(right) + 1e-12
    if question.kind == "wholes":
        return [int(each) for each in answer] == list(right)
    if question.kind == "word":
        return bool(answer.strip().lower() == right)
    return bool(answer == right)
