"""Formats by name: one table of grammar rows and one list of the names worth showing."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from functools import cache
from typing import Literal, NamedTuple

from sparqsim.base import InputError
from sparqsim.workloads.formats.abfloat import AbFloat
from sparqsim.workloads.formats.base import Format
from sparqsim.workloads.formats.flint import Flint
from sparqsim.workloads.formats.floating import Float, Specials, TensorFloat32
from sparqsim.workloads.formats.integer import Int, Sign
from sparqsim.workloads.formats.pairs import outlier_victim
from sparqsim.workloads.formats.powers import APoT, PoT

Match = re.Match[str]

# published: ml_dtypes' names; (exponent bits, mantissa bits, bias, specials), bias None: the usual
_NAMED_FLOATS: dict[str, tuple[int, int, int | None, Specials]] = {
    "float16": (5, 10, None, "ieee"),
    "bfloat16": (8, 7, None, "ieee"),
    "float8_e5m2": (5, 2, None, "ieee"),
    "float8_e4m3": (4, 3, None, "ieee"),
    "float8_e3m4": (3, 4, None, "ieee"),
    "float8_e4m3fn": (4, 3, None, "nan"),
    "float8_e4m3fnuz": (4, 3, None, "fnuz"),
    "float8_e5m2fnuz": (5, 2, None, "fnuz"),
    "float8_e4m3b11fnuz": (4, 3, 11, "fnuz"),
    "float6_e2m3fn": (2, 3, None, "finite"),
    "float6_e3m2fn": (3, 2, None, "finite"),
    "float4_e2m1fn": (2, 1, None, "finite"),
}


class Row(NamedTuple):
    """One way to name formats: what is matched, how it is built, how it is shown."""

    pattern: str
    build: Callable[[Match], Format]
    shown: str
    meaning: str


def _bias(text: str | None) -> int | None:
    return None if text is None else int(text.replace("n", "-"))


def _int(m: Match) -> Format:
    kind = m["kind"] or "signed"
    return Int(int(m["bits"]), signed=kind != "unsigned", narrow=kind == "narrow")


def _named_float(m: Match) -> Format:
    name = m[0]
    if name not in _NAMED_FLOATS:
        name = {"fp16": "float16", "bf16": "bfloat16"}.get(name, name.replace("fp", "float", 1))
    exponent, mantissa, bias, specials = _NAMED_FLOATS[name]
    return Float(exponent, mantissa, bias, specials, alias=name)


def _ant_float(m: Match) -> Format:
    exponent, bits, signed = int(m["e"]), int(m["bits"]), m["sign"] == "signed"
    width = bits - signed
    if width == 2:
        exponent = 2  # as the authors' quantizer: two bits of magnitude are all exponent
    if exponent > width:
        raise InputError(
            f"{m[0]}: an exponent of {exponent} bits must fit the {width} bits of the magnitude"
        )
    return Float(exponent, width - exponent, 1, signed=signed, alias=m[0])


def _float(m: Match) -> Format:
    specials: Specials = m["specials"] or "finite"  # type: ignore[assignment]
    return Float(int(m["e"]), int(m["m"]), _bias(m["bias"]), specials, signed=not m["unsigned"])


def _abfloat(m: Match) -> Format:
    exponent, mantissa = int(m["e"]), int(m["m"])
    if m["bits"] and int(m["bits"]) != 1 + exponent + mantissa:
        raise InputError(
            f"{m[0]}: a sign, {exponent} exponent and {mantissa} mantissa bits are "
            f"{1 + exponent + mantissa} bits, not {m['bits']}"
        )
    bias = _bias(m["bias"])
    return AbFloat(exponent, mantissa, 0 if bias is None else bias)


def _pairs(m: Match) -> Format:
    kind: Literal["int", "flint"] = m["kind"]  # type: ignore[assignment]
    widths = (int(m["e"]), int(m["m"])) if m["e"] else None
    keep: Literal["larger", "left"] = "left" if m["left"] else "larger"
    return outlier_victim(kind, int(m["bits"]), widths, _bias(m["bias"]), keep)


_SIGN = r"_(?P<sign>signed|unsigned)"
_BIAS = r"(?:_bias(?P<bias>[n-]?\d+))"

GRAMMAR = (
    Row(
        r"int(?P<bits>\d+)(?:_(?P<kind>signed|unsigned|narrow))?",
        _int,
        "int{1..16}[_signed|_unsigned|_narrow]",
        "two's complement (also without suffix), plain binary, symmetric two's complement",
    ),
    Row("sign", lambda m: Sign(), "sign", "one bit: -1 or +1"),
    Row(
        r"uint(?P<bits>\d+)",
        lambda m: Int(int(m["bits"]), signed=False),
        "uint{1..16}",
        "plain binary",
    ),
    Row(
        rf"flint(?P<bits>\d+){_SIGN}",
        lambda m: Flint(int(m["bits"]), m["sign"] == "signed"),
        "flint{3..8}_signed|_unsigned",
        "ANT's integer-float with a first-one code",
    ),
    Row(
        rf"pot(?P<bits>\d+){_SIGN}",
        lambda m: PoT(int(m["bits"]), m["sign"] == "signed"),
        "pot{2..8}_signed|_unsigned",
        "zero and powers of two",
    ),
    Row(
        rf"apot_?(?P<bits>\d+){_SIGN}(?:_k(?P<k>\d+))?",
        lambda m: APoT(int(m["bits"]), m["sign"] == "signed", int(m["k"] or 2)),
        "apot_{2..8}_signed|_unsigned[_k{1..4}]",
        "sums of powers of two, terms of k bits (2)",
    ),
    Row(
        rf"float_e(?P<e>\d+)_(?P<bits>\d+){_SIGN}",
        _ant_float,
        "float_e{E}_{bits}_signed|_unsigned",
        "ANT's floats: E exponent bits, the rest mantissa, bias 1, all codes finite",
    ),
    Row(
        "|".join(_NAMED_FLOATS) + r"|fp16|bf16|fp(?:"
        + "|".join(n.removeprefix("float") for n in _NAMED_FLOATS if "_" in n) + ")",
        _named_float,
        "float16, bfloat16, float8_e4m3fn, ... (or fp16, bf16, fp8_e4m3fn, ...)",
        "floats as ml_dtypes names them",
    ),
    Row("tf32", lambda m: TensorFloat32(), "tf32", "float32 with 10 bits of mantissa"),
    Row(
        r"float_e(?P<e>\d+)m(?P<m>\d+)(?:_(?P<specials>ieee|nan|fnuz))?"
        rf"{_BIAS}?(?P<unsigned>_unsigned)?",
        _float,
        "float_e{1..8}m{0..10}[_ieee|_nan|_fnuz][_bias{B}][_unsigned]",
        "any float; without a suffix every code is finite",
    ),
    Row(
        rf"abfloat(?P<bits>\d+)?_e(?P<e>\d+)m(?P<m>\d+){_BIAS}?(?:_signed)?",
        _abfloat,
        "abfloat[bits]_e{E}m{M}[_bias{B}][_signed]",
        "OliVe's outliers: never zero, bias (0) added to the exponent",
    ),
    Row(
        rf"ovp_(?P<kind>int|flint)(?P<bits>\d+)(?:_e(?P<e>\d+)m(?P<m>\d+))?{_BIAS}?(?P<left>_left)?",
        _pairs,
        "ovp_int{bits}|ovp_flint{bits}[_e{E}m{M}][_bias{B}][_left]",
        "outlier-victim pairs; _left keeps the left of two outliers",
    ),
)  # fmt: skip

NAMES = (
    "sign",
    *(f"int{b}_{kind}" for b in (2, 3, 4, 5, 6, 7, 8, 16) for kind in ("signed", "unsigned")),
    *(f"int{b}_narrow" for b in (4, 8)),
    *(f"pot{b}_{sign}" for b in (3, 4, 5) for sign in ("unsigned", "signed")),
    *(f"apot_{b}_{sign}" for b in range(3, 9) for sign in ("unsigned", "signed")),
    *(f"flint{b}_{sign}" for b in range(3, 9) for sign in ("unsigned", "signed")),
    *(f"float_e{e}_3_{sign}" for e in (2, 3) for sign in ("unsigned", "signed")),
    "float_e4_3_signed",
    *(f"float_e{e}_4_{sign}" for e in (2, 3) for sign in ("unsigned", "signed")),
    "float_e4_4_unsigned",
    *_NAMED_FLOATS,
    "abfloat4_E2M1_bias0_signed",
    "abfloat4_E2M1_bias2_signed",
    "abfloat4_E2M1_bias3_signed",
    "abfloat8_E4M3_bias4_signed",
    "ovp_int4",
    "ovp_flint4",
    "ovp_int8",
)


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
    return _get(name.strip().lower())


def is_spelled(name: str) -> bool:
    """Whether :data:`GRAMMAR` spells a name, be its parameters possible or not."""
    return any(re.fullmatch(row.pattern, name.strip().lower()) for row in GRAMMAR)


@cache
def _get(wanted: str) -> Format:
    for row in GRAMMAR:
        match = re.fullmatch(row.pattern, wanted)
        if match:
            return row.build(match)
    if wanted.startswith("codebook"):
        raise InputError(
            f"{wanted!r}: a codebook holds values of its own, which no name tells; make it with "
            "formats.Codebook(entries, bits) or formats.fit_codebook(data, bits)"
        )
    near = difflib.get_close_matches(wanted, [n.lower() for n in NAMES], n=4, cutoff=0.5)
    hint = f"did you mean {', '.join(near)}? " if near else ""
    spelled = "; ".join(row.shown for row in GRAMMAR)
    raise InputError(f"there is no format {wanted!r}; {hint}names are spelled {spelled}")


def names() -> tuple[str, ...]:
    """The formats worth listing; the grammar spells more."""
    return NAMES
