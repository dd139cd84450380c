"""Does the page stand alone and say what the report says?"""

from __future__ import annotations

import base64
import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import numpy as np
import pytest

from sparqsim.architectures.eie import EIE
from sparqsim.architectures.machine import Result, run
from sparqsim.base import InputError
from sparqsim.simulator.page import page, with_unit, write_page
from sparqsim.simulator.report import Report
from sparqsim.workloads.layers import Linear
from sparqsim.workloads.tensors import made_up

VOID = {"meta", "img", "br", "hr", "link"}


@pytest.fixture(scope="module")
def result() -> Result:
    layer = Linear(name="fc <1>", in_features=96, out_features=40)
    rng = np.random.default_rng(0)
    tensors = made_up(layer, rng, weight_density=0.3, activation_density=0.4)
    return run(EIE(pes=8, act_registers=8), tensors, seed=0)


@pytest.fixture(scope="module")
def text(result: Result) -> str:
    return page(result.report, result.timeline)


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

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)
        if self.open and self.open[-1] in ("td", "th"):
            self.cells[-1][-1] += data


def test_it_stands_alone(text: str) -> None:
    """No script, no link, no address of another file; figures are inlined and are whole SVG."""
    reader = Reader(text)
    names = {tag for tag, _ in reader.tags}
    assert not names & {"script", "link", "iframe", "object", "base"}
    assert not any("href" in attributes for _, attributes in reader.tags)
    images = [attributes for tag, attributes in reader.tags if tag == "img"]
    assert len(images) == 7
    for image in images:
        assert image["alt"]
        kind, data = image["src"].split(",", 1)
        assert kind == "data:image/svg+xml;base64"
        svg = base64.b64decode(data).decode()
        assert ElementTree.fromstring(svg).tag.endswith("svg")
        addresses = re.findall(r'(?:href|src)="([^"]*)"', svg)
        assert all(address.startswith("#") for address in addresses)
    style = "".join(reader.words)
    assert "url(" not in style and "@import" not in style


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
        assert [step.kind, step.where, f"{step.cycles:,}", f"{100 * step.share:.1f} %"] in (
            reader.cells
        )
    for name, part in report.stalls.items():
        busy = f"{100 * part.busy / (part.lanes * report.cycles):.1f} %"
        assert any(row[:3] == [name, str(part.lanes), busy] for row in reader.cells)
    for part in report.energy.parts:
        assert any(
            row[0] == part.part and row[3:] == [part.basis, part.source] for row in reader.cells
        )
    for name in report.memory:
        assert any(row[0] == name for row in reader.cells)
    assert ["pes", "8"] in reader.cells
    assert report.provenance.configuration_hash in words


def test_names_are_escaped(result: Result) -> None:
    """What users name cannot become markup."""
    evil = msgspec.structs.replace(result.report, layer="<script>alert(1)</script>", notes=["a<b"])
    reader = Reader(page(evil))
    assert "script" not in {tag for tag, _ in reader.tags}
    assert "a<b" in reader.words


def test_a_mismatch_is_seen(result: Result) -> None:
    """A wrong output is the reddest thing on the page; a skipped check is not called exact."""
    checked = msgspec.structs.replace(
        result.report.verification, status="mismatch", mismatches=3, outputs=40
    )
    wrong = page(msgspec.structs.replace(result.report, verification=checked))
    assert "MISMATCH" in wrong and "3 of 40 outputs differ" in wrong and "class=bad" in wrong
    skipped = msgspec.structs.replace(checked, status="skipped", mismatches=0, outputs=0)
    text = page(msgspec.structs.replace(result.report, verification=skipped))
    assert "skipped" in text and "bit by bit" not in text and "class=bad" not in text


def test_a_report_from_json_is_enough(result: Result, tmp_path: Path) -> None:
    """A report read back from JSON makes a page, without the figures of single lanes."""
    again = msgspec.json.decode(msgspec.json.encode(result.report), type=Report)
    path = write_page(again, None, tmp_path / "run.html")
    reader = Reader(path.read_text())
    assert sum(tag == "img" for tag, _ in reader.tags) == 3


def test_the_same_run_gives_the_same_page(result: Result, text: str) -> None:
    """No clock and no random identifiers: byte for byte."""
    assert page(result.report, result.timeline) == text


def test_unwritable(result: Result, tmp_path: Path) -> None:
    """A folder that is not there is a letter."""
    with pytest.raises(InputError, match="cannot write"):
        write_page(result.report, None, tmp_path / "none" / "run.html")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0 s"),
        (8.1725e-6, "8.17 µs"),
        (0.9999, "1 s"),
        (999.9e-9, "1 µs"),
        (2.5e12, "2.5 Ts"),
        (3e-15, "0.003 ps"),
    ],
)
def test_units(value: float, text: str) -> None:
    """Three digits and the prefix that leaves one to three before the point."""
    assert with_unit(value, "s") == text
