"""Does every command of the lecture kit run in time, and is every figure what a run draws?"""

from __future__ import annotations

import json
import re
import shlex
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from paths import DOCS, ROOT

from sparqsim.base import InputError
from sparqsim.scripts import lecture_figures
from sparqsim.scripts.cli import cli

LECTURE = DOCS / "lecture"
MOST_SECONDS = 10.0


def page(name: str) -> str:
    return (LECTURE / name).read_text(encoding="utf-8")


def tabled(text: str) -> list[str]:
    """The commands of the tables, in order."""
    rows = [line for line in text.splitlines() if line.startswith("|")]
    return [each for row in rows for each in re.findall(r"`(sparqsim [^`]+)`", row)]


COMMANDS = tabled(page("index.md"))
QUICK = ("formats ", "models llama_7b", "models digits", "compress digits-mlp", "run eie")
TIMED = [
    pytest.param(each, id=each[9:40], marks=[] if each[9:].startswith(QUICK) else pytest.mark.slow)
    for each in dict.fromkeys(COMMANDS)
]


def called(command: str, capsys: pytest.CaptureFixture[str]) -> str:
    """What a command prints, run in this process."""
    cli.main(args=shlex.split(command)[1:], prog_name="sparqsim", standalone_mode=False)
    return capsys.readouterr().out


@pytest.mark.parametrize("command", TIMED)
def test_a_command_of_a_slide_runs_in_time(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends well, prints something, and takes less than 10 s (the second time, where the first
    compiled)."""
    monkeypatch.chdir(ROOT)
    for _ in range(2):
        start = time.process_time()
        assert called(command, capsys).strip()
        seconds = time.process_time() - start
        if seconds < MOST_SECONDS:
            break
    assert seconds < MOST_SECONDS


def test_recipes_that_exercises_name_are_there(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each recipe file prunes half of a network."""
    monkeypatch.chdir(ROOT)
    found = sorted((LECTURE / "recipes").glob("*.toml"))
    assert len(found) == 3 and all(path.name in page("index.md") for path in found)
    for path in found:
        shown = called(f"sparqsim compress digits-mlp --recipe {path} --json -", capsys)
        assert {row["density"] for row in json.loads(shown)["tensors"]} == {0.5}


@pytest.mark.parametrize("name", ["index", "grading"])
def test_both_languages_say_the_same(name: str) -> None:
    """The same commands, code, figures and links, in the same order, and as many rows, headings
    and items."""
    one, two = page(f"{name}.md"), page(f"{name}.zh.md")
    two = two.replace("grading.zh.md", "grading.md")
    for pattern in (
        r"`(sparqsim [^`]+)`", r"^```.*?```$", r"\]\((figures/[^)]+)\)",
        r"`--\S+ \S+?`", r"\]\((\.\./[^)]+)\)",
    ):  # fmt: skip
        found = [re.findall(pattern, text, re.MULTILINE | re.DOTALL if "```" in pattern
                            else re.MULTILINE) for text in (one, two)]  # fmt: skip
        assert found[0] == found[1], pattern
    for start in ("|", "#", "* ", "!["):
        counts = [sum(line.startswith(start) for line in t.splitlines()) for t in (one, two)]
        assert counts[0] == counts[1], start


def test_figures_are_named_drawn_and_fit_a_slide() -> None:
    """Every figure is shown on the page, is drawn by the script, and is an SVG about twice as wide
    as high with letters as outlines."""
    shown = set(re.findall(r"!\[[^\]]+\]\(figures/(\w+)\.svg\)", page("index.md")))
    files = {path.stem for path in (LECTURE / "figures").iterdir()}
    assert shown == files == set(lecture_figures.FIGURES)
    for name in files:
        root = ElementTree.parse(LECTURE / "figures" / f"{name}.svg").getroot()
        wide, high = (float(root.attrib[side].removesuffix("pt")) for side in ("width", "height"))
        assert 1.5 < wide / high < 4 and "<text" not in ElementTree.tostring(root).decode()
    with pytest.raises(InputError, match="there is no figure"):
        lecture_figures.write("x")


LONG_FIGURES = sorted({*lecture_figures.FIGURES} - {"grids"})


@pytest.mark.parametrize(
    "name", ["grids", *(pytest.param(each, marks=pytest.mark.slow) for each in LONG_FIGURES)]
)
def test_every_figure_is_what_a_run_draws(name: str, tmp_path: Path) -> None:
    """The bytes that ship, drawn again."""
    shipped = (LECTURE / "figures" / f"{name}.svg").read_bytes()
    assert lecture_figures.write(name, tmp_path).read_bytes() == shipped


def test_bytes_of_a_model_and_of_a_decoding_step(capsys: pytest.CaptureFixture[str]) -> None:
    """LLaMA-7B: published parameters at 2 bytes; a step reads all weights but the table of words,
    and keys and values of 32 blocks, 4096 wide, for every token."""
    (row,) = json.loads(called("sparqsim models llama_7b --context 2048 --memory --json -", capsys))
    assert row["parameters"] == 6_738_415_616 and row["bytes"]["16"] == 2 * 6_738_415_616
    table, norms = 32_000 * 4096, 65 * 4096
    weights = row["parameters"] - table - norms
    assert row["bytes_per_token"]["16"] == 2 * (weights + 2 * 32 * 4096 * 2048)
    assert row["bytes_per_s"]["16"] == 100 * row["bytes_per_token"]["16"] > 1e12
    assert row["fits"]["16"] == ["cloud GPU"] and row["fits"]["4"] == ["cloud GPU", "phone"]
    for wrong in ("sparqsim models --memory --batch 2", "sparqsim models resnet18/conv1 --memory"):
        with pytest.raises(InputError):
            called(wrong, capsys)


LECTURE_ROWS = "2.09,-0.98,1.48,0.09/0.05,-0.14,-1.08,2.12/-0.91,1.92,0,-1.03/1.87,0,1.53,1.49"


def test_the_lectures_example_is_quantized(capsys: pytest.CaptureFixture[str]) -> None:
    """The slide's scale 1.07, zero point -1 and codes; a flint's code is shown as it is; what is no
    matrix, and a zero point for a format without one, is refused."""
    made = json.loads(
        called(f"sparqsim formats int2 --asymmetric --quantize {LECTURE_ROWS} --json -", capsys)
    )
    assert round(made["scale"], 2) == 1.07 and made["zero_point"] == -1
    assert made["code"] == [[1, -2, 0, -1], [-1, -1, -2, 1], [-2, 1, -1, -2], [1, -1, 0, 0]]
    flint = json.loads(called("sparqsim formats flint4_unsigned --quantize 64,9 --json -", capsys))
    assert flint["code"] == [[0b1000, 0b1101]] and flint["decoded"] == [[64.0, 10.0]]
    for wrong in (
        "int2 --quantize 1,2/3", "int2 --quantize 1,nan", "int2 --quantize x", "--quantize 1",
        "pot4_signed --asymmetric --quantize 1,2", "int2 --asymmetric", "ovp_int4 --quantize 1,2",
        "int2 --quantize 1 --figure x.svg",
    ):  # fmt: skip
        with pytest.raises(InputError):
            called(f"sparqsim formats {wrong}", capsys)
