"""Small sweeps for the tests, and processes that run them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from paths import HEEDING

TOY = str(Path(__file__).resolve().parent / "toy_machine.py")


def toys(size: Any, **fields: Any) -> dict[str, Any]:
    """A sweep of the toy machine over sizes."""
    machine = {"name": TOY, "size": size, **fields}
    return {"block": [{"work": "gemm:4x4x4", "verify": False, "machine": machine}]}


def as_toml(sweep: dict[str, Any], path: Path) -> Path:
    """Write a sweep of :func:`toys` as a file."""
    block = sweep["block"][0]
    lines = ["[[block]]", f"work = {json.dumps(block['work'])}", "verify = false"]
    lines += [f"where = {json.dumps(block['where'])}"] if "where" in block else []
    lines.append("[block.machine]")
    lines += [f"{name} = {_value(value)}" for name, value in block["machine"].items()]
    path.write_text("\n".join(lines) + "\n")
    return path


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{name} = {_value(each)}" for name, each in value.items()) + " }"
    return json.dumps(value)


def started(file: Path, store: Path, *options: str) -> subprocess.Popen[str]:
    """``sparqsim sweep`` in a process group of its own."""
    return subprocess.Popen(
        [*HEEDING, sys.executable, "-m", "sparqsim.scripts.cli", "sweep", str(file),
         "--store", str(store), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )  # fmt: skip


def files(store: Path) -> dict[str, bytes]:
    """What is stored, by name."""
    return {path.name: path.read_bytes() for path in sorted((store / "points").rglob("*.json"))}
