"""What a lab is: parameters drawn for a student, questions about them, and their answers.

Everything drawn follows from the lab, the student's ID and, where the lecturer keeps one, a secret
seed: the same three give the same sheet on any machine. Without the seed a sheet is for practice,
which anybody can draw and solve; with it a sheet is sealed, and only who holds the seed can.
"""

from __future__ import annotations

import hashlib
import hmac
import importlib
import os
import unicodedata
from collections.abc import Callable
from typing import Any, Literal

import msgspec
import numpy as np

from sparqsim.base import InputError, read_text

SEED_VARIABLE = "SPARQSIM_GRADE_SEED"
LEAST_SEED = 16  # assumed, characters: what nobody guesses
MOST_ID = 64  # characters

# name -> module:attribute
LABS = {
    "quantization": "sparqsim.scripts.grade.labs.quantization:LAB",
    "eie": "sparqsim.scripts.grade.labs.eie:LAB",
    "precision": "sparqsim.scripts.grade.labs.precision:LAB",
    "sparsity": "sparqsim.scripts.grade.labs.sparsity:LAB",
    "machine": "sparqsim.scripts.grade.labs.machine:LAB",
    "contest": "sparqsim.scripts.grade.labs.contest:LAB",
}
Kind = Literal["number", "whole", "wholes", "word"]


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """A question with one answer.

    Attributes
    ----------
    key : str
        Under which the answer stands in the file.
    text : str
    kind : str
        ``number``, ``whole`` (one whole number), ``wholes`` (a list of them) or ``word``.
    points : int
    within : float
        Relative tolerance of a ``number``; the others must be equal.
    """

    key: str
    text: str
    kind: Kind = "number"
    points: int = 1
    within: float = 0.0


class Mark(msgspec.Struct, frozen=True, kw_only=True):
    """What one answer got; ``verdict`` is right, wrong, missing or unreadable."""

    question: str
    verdict: Literal["right", "wrong", "missing", "unreadable"]
    points: int
    of: int
    given: str = ""
    why: str = ""


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """A contestant's measures, and why it does not count; nothing where it does."""

    edp_js: float | None = None
    accuracy: float | None = None
    area_mm2: float | None = None
    refused: str = ""


class Grade(msgspec.Struct, frozen=True, kw_only=True):
    """The result of grading: one file per student and lab.

    ``sheet`` is ``practice``, or ``sealed`` and a fingerprint of the seed.
    """

    lab: str
    student: str
    sheet: str
    points: int
    of: int
    marks: list[Mark]
    remarks: list[str] = []
    entry: Entry | None = None


class Lab(msgspec.Struct, frozen=True, kw_only=True):
    """A lab.

    Attributes
    ----------
    title : str
    draw : callable
        Parameters from a generator.
    sheet : callable
        The task in lines, from the parameters.
    questions : tuple of Question
        Empty where a submission is run instead.
    solve : callable or None
        The answers by key, from the parameters.
    judge : callable or None
        Of a lab whose submission is run: marks, remarks and an entry from the parameters, the
        answers, the folder of their file and a generator for hidden cases (None in practice).
    """

    title: str
    draw: Callable[[np.random.Generator], dict[str, Any]]
    sheet: Callable[[dict[str, Any]], list[str]]
    questions: tuple[Question, ...] = ()
    solve: Callable[[dict[str, Any]], dict[str, Any]] | None = None
    judge: Callable[..., tuple[list[Mark], list[str], Entry | None]] | None = None


def get_lab(name: str) -> Lab:
    """A lab by name; raises InputError if there is none."""
    if name not in LABS:
        raise InputError(f"there is no lab {name!r}; there is {', '.join(LABS)}")
    module, attribute = LABS[name].split(":")
    lab: Lab = getattr(importlib.import_module(module), attribute)
    return lab


def student_id(text: str) -> str:
    """An ID as it is drawn from: spaces at its ends and ways to write a letter do not matter.

    Raises
    ------
    InputError
        If it is empty, long or not printable.
    """
    found = unicodedata.normalize("NFC", text).strip()
    if not found or len(found) > MOST_ID or not found.isprintable():
        raise InputError(
            f"a student's ID must be 1 to {MOST_ID} printable characters, got {text[:80]!r}"
        )
    return found


def read_seed(path: str | None) -> str:
    """The lecturer's seed from a file, else from the environment; empty where there is neither.

    Raises
    ------
    InputError
        If the file cannot be read, or the seed is short enough to be guessed.
    """
    seed = os.environ.get(SEED_VARIABLE, "") if path is None else read_text(path, "the seed", 4096)
    seed = seed.strip()
    if len(seed) < LEAST_SEED and (seed or path is not None):
        where = SEED_VARIABLE if path is None else path
        raise InputError(
            f"the seed in {where} must have at least {LEAST_SEED} characters, got {len(seed)}; "
            "draw one with `openssl rand -hex 16`"
        )
    return seed


def sheet_kind(seed: str) -> str:
    """``practice``, or ``sealed`` with a fingerprint from which the seed does not follow."""
    if not seed:
        return "practice"
    return "sealed " + hmac.new(seed.encode(), b"sparqsim grade", hashlib.sha256).hexdigest()[:8]


def generator(seed: str, lab: str, student: str, purpose: str) -> np.random.Generator:
    """The generator of one purpose of one student's lab."""
    told = msgspec.json.encode([lab, student, purpose])
    drawn = hmac.new(seed.encode(), told, hashlib.sha256).digest()
    return np.random.default_rng(int.from_bytes(drawn, "big"))


def draw(name: str, student: str, seed: str) -> dict[str, Any]:
    """The parameters of a student's sheet."""
    return get_lab(name).draw(generator(seed, name, student, "sheet"))
