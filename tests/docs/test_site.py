"""Is the reference of the site what the program, its records and its engines say?"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
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


def test_every_counter_of_every_machine_is_explained() -> None:
    """What a run of each machine counts, and with finer scales, has a text; every text has such a
    counter."""
    import sparqsim
    from sparqsim.architectures.registry import machine_names

    texts = {
        name: set(found)
        for machines, found in reference_pages.COUNTERS.items()
        for name in machines.split(", ")
    }
    counted: dict[str, set[str]] = {name: set() for name in machine_names()}
    for name in counted:
        report = sparqsim.run(name, "gemm:8x64x32", verify=False)
        moved = {f"{each}_{way}_bits" for each in report.memory for way in ("read", "written")}
        assert moved <= set(report.counters), name
        counted[name] = set(report.counters) - moved
    classes = {
        "weights": sparqsim.TensorRecipe(format="int8", granularity="group:32", asymmetric=True),
        "activations": sparqsim.TensorRecipe(
            format="int8", granularity="token", asymmetric=True, dynamic=True
        ),
    }
    finer = sparqsim.run(
        "plain", "gemm:8x64x32", sparqsim.Recipe(name="finer", **classes), verify=False
    )
    scalings = {name for name in finer.counters if not name.endswith("_bits")}
    for name in ("bitfusion", "ant", "olive", "tpu", "plain", "diannao"):
        counted[name] |= scalings
    assert texts.pop("every machine") == {"MEMORY_read_bits", "MEMORY_written_bits"}
    assert texts == counted


def test_units_are_those_of_the_names() -> None:
    """The unit stands at the end of a field's name; a plain number has none."""
    units = {"energy_pj": "pJ", "read_gbytes_per_s": "GB/s", "cycles": "cycles", "layers": "",
             "output_sqnr_db": "dB", "bandwidth_bytes_per_s": "byte/s"}  # fmt: skip
    assert {name: reference_pages._unit(f"`{name}`") for name in units} == units


def test_the_commands_are_those_of_the_program() -> None:
    """A heading for each command and for each of its own; below it every option that it has or that
    all of its group have, and no other; each option says what it does."""
    from sparqsim.scripts.cli import cli

    parts = re.split(r"^##+ (.+)\n", reference_pages.commands(), flags=re.MULTILINE)
    pages = dict(zip(parts[1::2], parts[2::2], strict=True))
    told = {
        name: set(re.findall(r"^\| `(.+?)` \| .", page.replace("\\|", "|"), re.M))
        for name, page in pages.items()
    }
    found = dict(described(cli, click.Context(cli, info_name="sparqsim")))
    assert set(found) == set(pages)
    for name, options in found.items():
        shared = told.get(name.rpartition(" ")[0], set()) if name.count(" ") == 2 else set()
        assert told[name] - options <= shared_by_members(name, found), name
        assert options <= told[name] | shared, name


def described(command: click.Command, context: click.Context) -> Iterator[tuple[str, set[str]]]:
    """Every command below one, and its options as their help names them."""
    options = [each for each in command.params if isinstance(each, click.Option)]
    assert [each.name for each in options if not (each.help or "").strip()] == []
    records = [each.get_help_record(context) for each in options if not each.hidden]
    yield context.command_path, {record[0] for record in records if record is not None}
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            yield from described(below, click.Context(below, info_name=name, parent=context))


def shared_by_members(group: str, found: dict[str, set[str]]) -> set[str]:
    """Options that every command of a group has; none of a command that is no group."""
    members = [options for name, options in found.items() if name.rpartition(" ")[0] == group]
    return set.intersection(*members) if members else set()


def test_every_parameter_of_every_machine_is_an_option() -> None:
    """A field of a machine is an option of `sparqsim run NAME`, and its help says what it is."""
    from sparqsim.architectures.registry import get_machine, machine_names

    text = reference_pages.commands()
    for name in machine_names():
        (page,) = re.findall(rf"^### sparqsim run {name}\n(.*?)^##", text, re.M | re.S)
        for field in msgspec.structs.fields(get_machine(name)):
            option = field.name.replace("_", "-")
            row = rf"^\| `--{option}[ /`].*?\| \S.*\[default"
            assert re.search(row, page, re.M), (name, option)


def test_every_preset_is_listed() -> None:
    """Below its machine."""
    from sparqsim.architectures import presets

    text = reference_pages.machines()
    assert len(presets.names()) > 4
    for name in presets.names():
        assert text.count(f"| `{name}` |") == 1


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
