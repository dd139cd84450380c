"""The commands that the documentation shows, and a folder in which they can be run.

A fenced block ``console`` holds commands behind ``$`` and, if it shows any, what each prints; a
line ``...`` stands for anything. A comment behind a command is left out.
"""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from paths import DOCS, PUBLISHED, ROOT

PAGES = sorted(
    page
    for page in [*ROOT.glob("README*.md"), *DOCS.rglob("*.md")]
    if not {"_generated", "lecture"} & set(page.parts)  # the lecture has tests of its own
)
PLACEHOLDER = re.compile(r"\b[A-Z]{4,}\b|\b(?:DIR|SEC)\b|\.\.\.|…|\|")


class Command(NamedTuple):
    """A command as a page shows it, and the lines it shows below."""

    page: Path
    text: str
    printed: str

    @property
    def arguments(self) -> list[str]:
        """What follows the program's name."""
        return shlex.split(self.text, comments=True)[1:]

    @property
    def program(self) -> str:
        """The program's name."""
        return self.text.split()[0]


def commands(page: Path) -> Iterator[Command]:
    """The commands of a page's console blocks, in order."""
    text = page.read_text(encoding="utf-8")
    blocks = re.findall(r"^```console\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert len(blocks) == text.count("```console"), f"{page}: a block is not closed"
    for block in blocks:
        shown = re.split(r"^\$ ", block.replace("\\\n", " "), flags=re.MULTILINE)
        assert not shown[0], f"{page}: a console block must begin with a command"
        for each in shown[1:]:
            first, _, printed = each.partition("\n")
            yield Command(page, first, printed)


def mentioned(page: Path) -> Iterator[str]:
    """Commands of the program within a page's text."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    for found in re.findall(r"`(sparqsim [^`]+)`", text):
        yield " ".join(found.split())


def prepare(folder: Path) -> None:
    """Put the files that commands name into a folder: a network, inputs, a machine, tables."""
    import onnx
    from onnx import helper, numpy_helper

    rng = np.random.default_rng(0)
    shapes = {"up.weight": (32, 16), "down.weight": (4, 32)}
    weights = [
        numpy_helper.from_array(rng.normal(size=shape).astype(np.float32), name)
        for name, shape in shapes.items()
    ]
    nodes = [
        helper.make_node("Gemm", ["x", "up.weight"], ["a"], transB=1),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Gemm", ["b", "down.weight"], ["y"], transB=1),
    ]
    ends = [helper.make_tensor_value_info("x", 1, ["N", 16])]
    graph = helper.make_graph(
        nodes, "net", ends, [helper.make_tensor_value_info("y", 1, None)], weights
    )
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), folder / "net.onnx")
    np.savez(folder / "x.npz", x=rng.normal(size=(64, 16)).astype(np.float32))
    counts = rng.integers(0, 4, (64, 32))
    np.savez(folder / "counts.npz", counts=counts, active_columns=np.arange(0, 32, 2))
    (folder / "mine.toml").write_text(
        'title = "mine"\n[[block]]\nwork = ["digits-mlp/fc1", "digits-mlp/fc2"]\nverify = false\n'
        'machine = { name = "eie", pes = [16, 32], queue_slots = [2, 4, 8] }\n'
    )
    (folder / "mixed.toml").write_text(
        'name = "mixed"\ndescription = "two widths"\n[weights]\nformat = "int8"\n'
        'granularity = "channel"\n[activations]\nformat = "int8"\n'
    )
    (folder / "w3a4.toml").write_text(
        'name = "w3a4"\ndescription = "few bits"\n[weights]\nformat = "int3"\n'
        '[activations]\nformat = "int4"\n'
    )
    shutil.copy(DOCS / "howto" / "dot.py", folder / "my_machine.py")
    shutil.copy(PUBLISHED / "dram_reference.csv", folder / "dram.csv")
    shutil.copy(PUBLISHED / "scalesim_layers.csv", folder / "systolic.csv")
    (folder / "docs" / "howto").mkdir(parents=True)  # a copy: commands may write into docs
    shutil.copy(DOCS / "howto" / "dot.py", folder / "docs" / "howto")
    (folder / "out").mkdir()
