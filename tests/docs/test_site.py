"""Is the reference of the site what the program, its records and its engines say?"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from paths import DOCS, ROOT

sys.path.insert(0, str(DOCS))
import reference_pages
import timing_figure

from sparqsim.scripts.sweep.file import SweepFile
from sparqsim.simulator.comparison import ComparisonReport
from sparqsim.simulator.report import NetworkReport
from sparqsim.workloads import recipes


def records() -> dict[str, set[str]]:
    """Names of the fields of every record that the reference explains."""
    roots = (NetworkReport, ComparisonReport)
    kinds = [kind for root in roots for kind in reference_pages.reached(root)]
    found = {
        kind.__name__: {field.name for field in msgspec.structs.fields(kind)}
        for kind in [*kinds, recipes.Recipe, recipes.TensorRecipe, recipes.Override]
    }
    schema = msgspec.json.schema(SweepFile)["$defs"]
    return found | {name: set(each["properties"]) for name, each in schema.items()}


def test_every_text_is_of_a_field_that_exists() -> None:
    """docs/reference/fields.toml explains no field that is gone."""
    known = records()
    assert set(reference_pages.TEXTS) <= set(known)
    for name, texts in reference_pages.TEXTS.items():
        assert set(texts) <= known[name], name


@pytest.mark.parametrize("page", ["report", "recipes", "sweep_file"])
def test_every_field_is_explained(page: str) -> None:
    """The last cell of each row of a table of fields says what the field is."""
    text = reference_pages.PAGES[page]()
    rows = [line for line in text.splitlines() if line.startswith("| `")]
    assert len(rows) > 15
    assert [row for row in rows if re.search(r"\|\s*\|$", row)] == []


def test_units_are_those_of_the_names() -> None:
    """The unit stands at the end of a field's name; a plain number has none."""
    units = {"energy_pj": "pJ", "read_gbytes_per_s": "GB/s", "cycles": "cycles", "layers": "",
             "output_sqnr_db": "dB", "bandwidth_bytes_per_s": "byte/s"}  # fmt: skip
    assert {name: reference_pages._unit(f"`{name}`") for name in units} == units


def test_the_commands_are_those_of_the_program() -> None:
    """A heading for each command and machine, and the options of each."""
    from sparqsim.architectures.registry import machine_names
    from sparqsim.scripts.cli import COMMANDS

    text = reference_pages.commands()
    for name in COMMANDS:
        assert f"## sparqsim {name}\n" in text
    for name in machine_names():
        assert f"### sparqsim run {name}\n" in text
    assert "`--queue-slots INTEGER`" in text and "`--all`" in text


def test_the_public_names_are_all_there() -> None:
    """Each once."""
    import sparqsim

    text = reference_pages.public_names()
    told = re.findall(r"^\.\. auto\w+:: sparqsim\.(\w+)$", text, re.MULTILINE)
    assert sorted(told) == sparqsim.__all__


def test_the_figure_of_timing_shows_every_rule_of_ties() -> None:
    """Grants in the order of the rules, each of which decides one of them."""
    found = timing_figure.grants()
    assert {each.rule for each in found} == {
        "least rank", "oldest", "declared earlier", "lower lane", "alone"
    }  # fmt: skip
    assert [each.start for each in found] == list(range(0, 2 * len(found), 2))
    urgent = next(each for each in found if each.actor == "urgent")
    assert urgent.start == 4 and found[3].actor == "b" and found[3].requested == 0


@pytest.mark.slow
def test_the_site_builds_strictly_and_asks_for_nothing(tmp_path: Path) -> None:
    """No warning; no script, style, font or figure is loaded from another place."""
    pytest.importorskip("furo")
    pytest.importorskip("myst_parser")
    out = tmp_path / "site"
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html"]
    done = subprocess.run([*command, str(DOCS), str(out)], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    pages = list(out.rglob("*.html"))
    assert len(pages) > 35
    for page in pages:
        text = page.read_text(encoding="utf-8")
        loaded = re.findall(r"<(?:script|link|img|iframe)[^>]*(?:src|href)=\"([^\"]+)\"", text)
        assert [each for each in loaded if re.match(r"(?:https?:)?//", each)] == [], page
    for style in out.rglob("*.css"):
        assert not re.search(r"url\(['\"]?(?:https?:)?//|@import", style.read_text()), style
