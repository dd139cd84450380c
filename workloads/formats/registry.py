"""Formats by name: one table of grammar rows and one list of the names worth showing."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

from sparqsim_base import InputError
from workloads.formats.base import Format
from workloads.formats.flint import Flint
from workloads.formats.integer import Int


class Row(NamedTuple):
    """One way to name formats: what is matched, how it is built, how it is shown."""

    pattern: str
    build: Callable[[re.Match[str]], Format]
    shown: str
    meaning: str


def _int(m: re.Match[str]) -> Format:
    kind = m["kind"] or "signed"
    return Int(int(m["bits"]), signed=kind != "unsigned", narrow=kind == "narrow")


GRAMMAR = (
    Row(
        r"int(?P<bits>\d+)(?:_(?P<kind>signed|unsigned|narrow))?",
        _int,
        "int{1..16}[_signed|_unsigned|_narrow]",
        "two's complement (default), plain binary, symmetric two's complement",
    ),
    Row(
        r"uint(?P<bits>\d+)",
        lambda m: Int(int(m["bits"]), signed=False),
        "uint{1..16}",
        "plain binary",
    ),
    Row(
        r"flint(?P<bits>\d+)_(?P<sign>signed|unsigned)",
        lambda m: Flint(int(m["bits"]), m["sign"] == "signed"),
        "flint{3..8}_signed|_unsigned",
        "ANT's float-integer",
    ),
)

NAMES = (
    *(f"int{b}_{kind}" for b in (2, 3, 4, 5, 6, 7, 8, 16) for kind in ("signed", "unsigned")),
    *(f"int{b}_narrow" for b in (4, 8)),
    *(f"flint{b}_{sign}" for b in range(3, 9) for sign in ("unsigned", "signed")),
)


@cache
def get(name: str) -> Format:
    """The format of a name, for example ``get("flint4_unsigned")``.

    Parameters
    ----------
    name
        One of :func:`names` or anything that :data:`GRAMMAR` spells; case does not matter.

    Raises
    ------
    InputError
        If nothing is called so (near names are listed) or its parameters cannot be.
    """
    if not isinstance(name, str):
        raise InputError(f"a format's name must be a string, got {type(name).__name__} {name!r}")
    wanted = name.strip().lower()
    for row in GRAMMAR:
        match = re.fullmatch(row.pattern, wanted)
        if match:
            return row.build(match)
    near = difflib.get_close_matches(wanted, [n.lower() for n in NAMES], n=4, cutoff=0.5)
    hint = f"did you mean {', '.join(near)}? " if near else ""
    raise InputError(
        f"there is no format {name!r}; {hint}names are spelled "
        + "; ".join(r.shown for r in GRAMMAR)
    )


def names() -> tuple[str, ...]:
    """The formats worth listing; the grammar spells more."""
    return NAMES
