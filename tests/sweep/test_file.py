"""Does every mistake in a sweep file get an error that names the line or the key, before any work?"""
# ruff: noqa: E501

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from paths import DOCS

from sparqsim.base import InputError
from sparqsim.scripts import cli
from sparqsim.scripts.sweep.expression import Expression
from sparqsim.scripts.sweep.file import SCHEMA, load, schema, shipped
from sparqsim.scripts.sweep.plan import Plan

GOOD = """
title = "good"
minimise = "edp_js"

[[block]]
work = "eie/nt-we"

[block.machine]
name = "eie"
pes = [16, 64]
queue_slots = 8

[[block]]
work = { name = "gemm:{n}x64x64", batch = 1 }
recipe = { name = "w4a8", weights.granularity = ["tensor", "channel"] }
variables.n = { from = 16, to = 64, step = 16 }
where = ["rows * columns <= 1024"]
verify = false
machine = { name = "bitfusion", rows = { from = 8, to = 64, count = 4, scale = "log" }, columns = { derived = "rows" } }
"""
# What is changed, and what the message must say: the line counts from the text's first, empty one.
MISTAKES = {
    "no TOML": ('title = "good"', "title = good", r"no TOML.*line 2"),
    "unknown key at the top": ("title", "titel", r"line 2 \(titel\).*no key 'titel'; there is"),
    "unknown key of a block": ("verify =", "verfiy =", r"line 18 \(block\[2\].verfiy\).*no key"),
    "missing machine": ('[block.machine]\nname = "eie"', "[block.variables]\nx = 1", r"line \d+ \(block\[1\]\).*'machine' is missing"),
    "machine without a name": ('name = "eie"\n', "", r"line \d+ \(block\[1\].machine\).*must have a name"),
    "unknown machine": ('name = "eie"', 'name = "eye"', r"line \d+ \(block\[1\].machine\).*no machine 'eye'"),
    "unknown field": ("pes = [16, 64]", "peas = [16, 64]", r"line 10 \(block\[1\].machine.peas\).*no field 'peas'"),
    "value of a wrong type": ("queue_slots = 8", 'queue_slots = "8"', r"line \d+ \(block\[1\].machine\).*[Ee]xpected `int`"),
    "value the machine refuses": ("queue_slots = 8", "queue_slots = 1", r"line \d+ \(block\[1\].machine\).*queue_slots must be 2 to.*got 1.*pes = 16"),
    "unknown work": ('work = "eie/nt-we"', 'work = "eie/nt-me"', r"line 6 \(block\[1\].work\).*nt-me"),
    "option that does nothing": ("batch = 1", "context = 8", r"line 14 \(block\[2\].work\).*context changes nothing"),
    "option of a wrong type": ("batch = 1", "batch = 1.5", r"line 14 \(block\[2\].work.*\).*[Ee]xpected `int"),
    "unknown recipe": ('name = "w4a8"', 'name = "w5a9"', r"line 15 \(block\[2\].recipe\).*w5a9"),
    "recipe field that does not go": ('["tensor", "channel"]', '["tensor", "line"]', r"line 15 \(block\[2\].recipe\).*granularity.*line"),
    "empty list": ("pes = [16, 64]", "pes = []", r"line 10 \(block\[1\].machine.pes\).*at least one"),
    "value twice": ("pes = [16, 64]", "pes = [16, 16]", r"line 10 \(block\[1\].machine.pes\).*twice"),
    "range upside down": ("from = 16, to = 64, step", "from = 64, to = 16, step", r"line 16 \(block\[2\].variables.n\).*from must be below to"),
    "range without steps": (", step = 16", "", r"line 16 \(block\[2\].variables.n\).*a step or a count"),
    "range without end": ("to = 64, step = 16", "to = inf, step = 16", r"line 16 \(block\[2\].variables.n\).*to must be .*got inf"),
    "range of too many": ("to = 64, step = 16", "to = 64, step = 1e-9", r"line 16 \(block\[2\].variables.n\).*at most 10,000,000 values, got 4.8e\+10"),
    "more points than numbers": ("queue_slots = 8", "queue_slots = { from = 2, to = 5000, step = 1 }\n" + "\n".join(f"{name} = {{ from = 1, to = 10000, step = 1 }}" for name in ("clock_hz", "sram_row_entries", "index_bits", "accumulator_bits")), r"99,980.* points are too many; at most 10,000,000"),
    "log range from zero": ("from = 8, to = 64, count", "from = 0, to = 64, count", r"line 19 \(block\[2\].machine.rows\).*above 0"),
    "expression that is none": ("rows * columns <=", "rows * columns <=<", r"line 17 \(block\[2\].where\[1\]\).*no expression"),
    "expression that would do more": ("rows * columns <= 1024", "open('x')", r"line 17 .*calls open"),
    "unknown name in an expression": ("rows * columns <=", "rows * colums <=", r"line 17 .*'colums'"),
    "derived in a circle": ("rows = { from = 8, to = 64, count = 4, scale = \"log\" }", 'rows = { derived = "columns" }', r"line 19 .*depend on each other"),
    "no point is left": ("<= 1024", "< 0", r"line 17 \(block\[2\].where\).*no point meets the constraints"),
    "sample of a wrong kind": ("verify = false", 'verify = false\nsample = { kind = "sobl", count = 4 }', r"line 19 \(block\[2\].sample.kind\).*one of random, latin-hypercube, sobol"),
    "sobol of an odd count": ("verify = false", 'verify = false\nsample = { kind = "sobol", count = 5 }', r"line 19 \(block\[2\].sample\).*power of two, got 5"),
    "seed that does nothing": ("verify = false", "verify = false\nseed = [0, 1]", r"line 19 \(block\[2\].seed\).*changes nothing"),
    "correlation that does nothing": ("batch = 1", "correlation = 0.4", r"line 14 \(block\[2\].work.correlation\).*changes nothing"),
    "correlation of published tensors": ('work = "eie/nt-we"', 'work = { name = "digits-mlp", correlation = 0.4 }', r"line 6 \(block\[1\].work\).*real tensors"),
    "correlation without zeros": ('work = "eie/nt-we"', 'work = { name = "resnet18/fc", correlation = 0.4 }', r"line 6 \(block\[1\].work\).*no zeros"),
    "correlation beyond 1": ('work = "eie/nt-we"', 'work = { name = "eie/alex-7", correlation = [0.2, 1.5] }', r"line 6 \(block\[1\].work\).*-1 to 1"),
    "density that is no number": ('work = "eie/nt-we"', 'work = { name = "eie/nt-we", weight_density = "thin" }', r"line 6 \(block\[1\].work\).*`float"),
    "search over two blocks": ('minimise = "edp_js"', 'search = { minimise = ["edp_js"] }', r"a search has one block for its space, got 2"),
    "best both ways": ('minimise = "edp_js"', 'minimise = "edp_js"\nmaximise = "sqnr_db"', r"minimise or maximise, not both"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_gets_an_error_message(tmp_path: Path, mistake: str) -> None:
    """It names file, line and key, what is wrong, and where it helps what there is."""
    before, after, message = MISTAKES[mistake]
    assert before in GOOD
    path = tmp_path / "sweep.toml"
    path.write_text(GOOD.replace(before, after))
    with pytest.raises(InputError, match=rf"sweep.toml.*{message}"):
        Plan(load(path))


def test_the_file_without_mistakes_has_its_points(tmp_path: Path) -> None:
    """So the error messages above are of the mistakes: 2 points, and 4 x 2 x 3 of 4 squares."""
    path = tmp_path / "sweep.toml"
    path.write_text(GOOD)
    plan = Plan(load(path))
    assert len(plan) == 2 + 4 * 2 * 3 and plan.excluded == 4 * 2
    assert {point.fields["columns"] for point in plan.points(plan.numbers[2:])} == {8, 16, 32}


def test_a_dict_is_the_same_as_the_file(tmp_path: Path) -> None:
    """And its mistakes are named by key."""
    block: dict[str, Any] = {"work": "gemm:16x16x16", "machine": {"name": "plain", "rows": [8, 16]}}
    assert len(Plan(load({"block": [block]}))) == 2
    block["machine"] = {"name": "plain", "rowz": 8}
    with pytest.raises(InputError, match=r"block\[1\].machine.rowz.*no field 'rowz'"):
        Plan(load({"block": [block]}))


def test_a_mistake_costs_no_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command ends with code 2, and nothing is stored."""
    path = tmp_path / "sweep.toml"
    path.write_text(GOOD.replace("queue_slots = 8", "queue_slots = 1"))
    with pytest.raises(SystemExit) as ended:
        cli.main(["sweep", str(path), "--store", str(tmp_path / "store")])
    assert ended.value.code == 2 and "queue_slots" in capsys.readouterr().err
    assert not list((tmp_path / "store").rglob("*.json"))


def test_the_schema_is_that_of_the_file() -> None:
    """What ships for editors is what is read here."""
    assert json.loads(SCHEMA.read_text(encoding="utf-8")) == json.loads(json.dumps(schema()))


@pytest.mark.parametrize("name", shipped())
def test_a_shipped_sweep_is_one(name: str) -> None:
    """It is read without a mistake, and meets the schema."""
    import tomllib

    jsonschema = pytest.importorskip("jsonschema")
    jsonschema.validate(tomllib.loads(shipped()[name].read_text()), schema())
    assert load(name).file.title


def test_every_shipped_sweep_is_named_in_the_guide() -> None:
    """With its figures."""
    text = (DOCS / "howto" / "sweep.md").read_text()
    for name, path in shipped().items():
        assert f"**`{name}`**" in text
        for figure in load(path).file.figure:
            assert (
                f"{figure.name}.png" in text and (DOCS / "figures" / f"{figure.name}.png").exists()
            )


# ------------------------------------------------------------------ expressions


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a * 2 + b.c", 10),
        ("a ** 2 // 2 % 3", 1),
        ("-a < 0 <= b.c and not a == 4", True),
        ("max(a, b.c, 1) if kind in ['x', 'y'] else min(a, 1)", 4),
        ("round(log2(a * 4)) + ceil(a / 2) + abs(-1)", 7),
    ],
)
def test_an_expression_has_pythons_value(text: str, value: object) -> None:
    """Of a = 3, b.c = 4, kind = 'x'."""
    names = {"a": 3, "b.c": 4, "kind": "x"}
    assert Expression(text).value(names.__getitem__) == value


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true')",
        "().__class__",
        "a[0]",
        "lambda: 1",
        "[x for x in a]",
        "f'{a}'",
        "(a := 1)",
        "open",
        "9 ** 9 ** 9 ** 9",
        "a ** 500 * a ** 500",
        "round(a, -1000000000)",
        "'x' * 10 ** 9",
        "a" * 2000,
        "(" * 90 + "1" + ")" * 89,
        "1 / 0",
        "sqrt(-1)",
        "(-1) ** 0.5",
        "abs(x=1)",
        "1 < 'x'",
        "~a",
        "b''",
        "1j",
    ],
)
def test_an_expression_does_no_more_than_arithmetic(text: str) -> None:
    """Everything else gets an error message, at once."""
    with pytest.raises(InputError):
        Expression(text).value({"a": 3}.__getitem__)
