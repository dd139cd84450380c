"""Does the page of a layer stand alone and say what the report says?"""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import numpy as np
import pytest

from sparqsim.architectures.eie import EIE
from sparqsim.architectures.machine import Result, run
from sparqsim.base import InputError
from sparqsim.simulator.pages import layer_page, write
from sparqsim.simulator.pages.charts import Axis, RatioScale, spark_of_bytes, with_unit
from sparqsim.simulator.pages.html import Html, Number, Table, h
from sparqsim.simulator.report import Report
from sparqsim.workloads.layers import Linear
from sparqsim.workloads.tensors import synthetic

VOID = {"meta", "img", "br", "input"}


@pytest.fixture(scope="module")
def result() -> Result:
    layer = Linear(name="fc <1>", in_features=96, out_features=40)
    rng = np.random.default_rng(0)
    tensors = synthetic(layer, rng, weight_density=0.3, activation_density=0.4)
    return run(EIE(pes=8, act_registers=8), tensors, seed=0)


@pytest.fixture(scope="module")
def text(result: Result) -> str:
    return layer_page(result.report, result.timeline, result.traffic)


class Reader(HTMLParser):
    """Checks that tags are closed in order; keeps the text, the attributes and the tables."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict]] = []
        self.cells: list[list[str]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "tr":
            self.cells.append([])
        if tag in ("td", "th"):
            self.cells[-1].append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)
        if {"td", "th"} & set(self.open) and self.cells:
            self.cells[-1][-1] += data


def test_it_stands_alone(text: str) -> None:
    """Nothing is loaded: no address but places in the page, no style or picture from elsewhere;
    a policy that forbids it, and allows the page's own script alone."""
    reader = Reader(text)
    assert not {tag for tag, _ in reader.tags} & {"link", "iframe", "object", "base", "form"}
    for _, attributes in reader.tags:
        assert attributes.get("href", attributes.get("xlink:href", "#")).startswith("#")
        assert attributes.get("src", "data:image/").startswith("data:image/")
        assert not any(name.startswith("on") for name in attributes)
    style = "".join(re.findall(r"<style>(.*?)</style>", text, re.DOTALL))
    assert style and not re.search(r"url\(|@import", style.replace("url(#", ""))
    policies = [a["content"] for tag, a in reader.tags if tag == "meta" and "http-equiv" in a]
    scripts = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    (policy,), (script,) = policies, scripts
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert "default-src 'none'" in policy and policy.endswith(f"script-src 'sha256-{digest}'")


def test_it_says_what_the_report_says(result: Result, text: str) -> None:
    """Headline, stalls, critical path, counters, memory, energy and configuration."""
    report = result.report
    reader = Reader(text)
    words = " ".join(reader.words)
    assert "fc <1> on eie" in words and f"{report.cycles:,}" in words
    assert f"{report.macs.effectual:,}" in words and "bit by bit" in words
    for note in report.notes:
        assert note in words
    for name, count in report.counters.items():
        assert [name.replace("_", " "), f"{count:,}"] in reader.cells
    for step in report.critical_path:
        if step.share >= 0.01:
            assert f"{100 * step.share:.1f} %" in words and step.where in words
    assert any("most at column_walk[" in each for each in reader.words)
    for name, part in report.stalls.items():
        busy = f"{100 * part.busy / (part.lanes * report.cycles):.1f} %"
        assert any(row[:4] == [name, str(part.lanes), "", busy] for row in reader.cells)
    for part in report.energy.parts:
        assert any(
            row[0] == part.part and row[-2:] == [part.basis, part.source] for row in reader.cells
        )
    for name in report.memory:
        assert any(row[0] == name for row in reader.cells)
    for channel in result.timeline.netlist.channels:
        assert any(row[:3] == [channel.name, channel.source, channel.target]
                   for row in reader.cells)  # fmt: skip
    assert ["pes", "8"] in reader.cells
    assert report.provenance.configuration_hash in words


def test_who_cannot_see_is_told(text: str) -> None:
    """Pictures have words; tables a caption, and heads of columns and rows; the language is
    named; headings are in order."""
    reader = Reader(text)
    assert ("html", {"lang": "en"}) in reader.tags
    for tag, attributes in reader.tags:
        if tag == "img":
            assert attributes["alt"]
        if tag == "svg" and attributes.get("role") == "img":
            assert attributes["aria-label"]
        if tag == "th":
            assert attributes["scope"] in ("col", "row")
    tags = [tag for tag, _ in reader.tags]
    assert tags.count("table") == tags.count("caption") > 8
    levels = [int(tag[1]) for tag in tags if re.fullmatch(r"h[1-4]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1


def test_colours_can_be_read() -> None:
    """Text stands out from its ground by 4.5 to 1 (WCAG AA), in the light and in the dark."""
    from importlib.resources import files

    style = (files("sparqsim.simulator.pages") / "page.css").read_text()
    light, dark = (
        dict(re.findall(r"--([\w-]+):(#\w+)", block))
        for block in re.findall(r":root\{(.*?)\}", style, re.DOTALL)
    )

    def luminance(colour: str) -> float:
        digits = colour[1:] if len(colour) == 7 else "".join(c * 2 for c in colour[1:])
        parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    for colours in (light, light | dark):
        pairs = [(name, "paper") for name in ("ink", "muted", "blue", "red", "green")]
        pairs += [("ink", "pale"), ("muted", "pale"), ("on-blue", "blue")]
        for text, ground in pairs:
            low, high = sorted((luminance(colours[text]), luminance(colours[ground])))
            assert (high + 0.05) / (low + 0.05) >= 4.5, (text, ground)


def test_names_are_escaped(result: Result) -> None:
    """What users name cannot become markup, in text and in attributes."""
    name = "\"'><script>alert(1)</script><img src=x onerror=alert(1)>"
    evil = msgspec.structs.replace(result.report, layer=name, notes=["a<b"], bound_by=name)
    reader = Reader(layer_page(evil))
    assert sum(tag == "script" for tag, _ in reader.tags) == 1
    assert "img" not in {tag for tag, _ in reader.tags} and "a<b" in reader.words
    assert h("p", name, title=name) == h("p", name, title=name).replace("<script", "")


def test_a_mismatch_is_seen(result: Result) -> None:
    """A wrong output is the reddest thing on the page; a skipped check is not called exact."""
    checked = msgspec.structs.replace(
        result.report.verification, status="mismatch", mismatches=3, outputs=40
    )
    wrong = layer_page(msgspec.structs.replace(result.report, verification=checked))
    assert "MISMATCH" in wrong and "3 of 40 outputs differ" in wrong and 'div class="bad"' in wrong
    skipped = msgspec.structs.replace(checked, status="skipped", mismatches=0, outputs=0)
    text = layer_page(msgspec.structs.replace(result.report, verification=skipped))
    assert "skipped" in text and "bit by bit" not in text and 'div class="bad"' not in text


def test_a_report_from_json_is_enough(result: Result, tmp_path: Path) -> None:
    """A report read back from JSON makes a page, without what needs single firings."""
    again = msgspec.json.decode(msgspec.json.encode(result.report), type=Report)
    path = write(layer_page(again), tmp_path / "run.html")
    words = Reader(path.read_text()).words
    assert "Critical path" in words and "Queues" not in words and "Topology" not in words


def test_the_same_run_gives_the_same_page(result: Result, text: str) -> None:
    """No clock and no random identifiers: byte for byte."""
    assert layer_page(result.report, result.timeline, result.traffic) == text


def test_unwritable(result: Result, tmp_path: Path) -> None:
    """A file in the place of a folder is an error message."""
    (tmp_path / "none").write_text("")
    with pytest.raises(InputError, match="cannot write"):
        write(layer_page(result.report), tmp_path / "none" / "run.html")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0 s"),
        (8.1725e-6, "8.17 µs"),
        (0.9999, "1 s"),
        (999.9e-9, "1 µs"),
        (2.5e12, "2.5 Ts"),
        (3e-15, "3 fs"),
        (3e-21, "0.003 as"),
    ],
)
def test_units(value: float, text: str) -> None:
    """Three digits and the prefix that leaves one to three before the point."""
    assert with_unit(value, "s") == text


def test_scales_hold_what_they_show() -> None:
    """Ticks are round and lie within; ratios that spread widely stand by equal factors."""
    assert Axis(0, 10_165).ticks(4) == [0, 5000, 10_000]
    assert Axis(2, 2e5, log=True).ticks(5) == [10, 100, 1000, 10_000, 100_000]
    assert Axis(0.45, 6.9, log=True).ticks(5) == [0.5, 1, 2, 5]
    assert Axis(2.1, 4.9, log=True).ticks(5) == [2.1, 4.9]
    near, wide = RatioScale.of([0.5, 2]), RatioScale.of([0.01, 100])
    assert near.place(2) == 100 and near.place(1) == 50
    assert wide.place(0.01) == 0 and wide.place(1) == pytest.approx(50) and wide.log


@pytest.mark.parametrize("values", [[0, 0, 255], [7], [3, 3, 9, 0, 0, 255]])
def test_a_spark_of_bytes_is_its_bytes(values: list[int]) -> None:
    """Each value stands over one step of the path, the last as the first."""
    found = re.search(r'd="M0 255(.*)V255z"', spark_of_bytes(bytes(values)))
    assert found is not None
    height, drawn = 0, []
    for up, steps in re.findall(r"v(-?\d+)h(\d+)", found[1]):
        height -= int(up)
        drawn += [height] * int(steps)
    assert drawn == values


def test_a_cell_sorts_by_its_number() -> None:
    """A number keeps its value beside its words; what is not known has none."""
    rows = [["a", Number("1 k", 1000.0)], ["b", Number("–", None)]]
    made = Table("numbers", ("name", "n"), rows).html()
    assert '<td class="n" data-v="1000">1 k</td><' in made and '<td class="n">–</td>' in made
    assert Table("nothing", ("name",), []).html() == Html("")
