"""Does the house stand? Imports only fall: scripts -> architectures -> simulator | workloads."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import pytest
from paths import ROOT

from sparqsim.architectures import registry

# What each part may import; `sparqsim` itself holds the public names and base.py.
ALLOWED = {
    "simulator": {"simulator", "base"},
    "workloads": {"workloads", "base"},
    "architectures": {"architectures", "simulator", "workloads", "base"},
    "scripts": {"scripts", "architectures", "simulator", "workloads", "base"},
}
MACHINES = {row.split(":")[0].removesuffix(".machine") for row in registry.MACHINES.values()}


def modules() -> list[Path]:
    return sorted(path for name in ALLOWED for path in (ROOT / name).rglob("*.py"))


def everything() -> list[Path]:
    shown = ("sparqsim", "tests", "benchmarks")
    return [*modules(), *sorted(path for name in shown for path in (ROOT / name).rglob("*.py"))]


def statements(nodes: Iterable[ast.AST]) -> Iterator[ast.AST]:
    """All statements, within functions too; expressions, most of a tree, hold none."""
    for node in nodes:
        yield node
        for part in ("body", "orelse", "finalbody", "handlers", "cases"):
            yield from statements(getattr(node, part, ()))


@cache
def imported(path: Path) -> set[str]:
    """The full names that a file imports; a file is parsed once for all tests."""
    names: set[str] = set()
    for node in statements(ast.parse(path.read_text(encoding="utf-8")).body):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def module(path: Path) -> str:
    """What a file is imported as."""
    return ".".join(("sparqsim", *path.relative_to(ROOT).with_suffix("").parts))


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_only_fall(path: Path) -> None:
    """A package imports only what lies below it; no machine imports another."""
    package = path.relative_to(ROOT).parts[0]
    used = {name.split(".")[1] for name in imported(path) if name.startswith("sparqsim.")}
    assert used <= ALLOWED[package]
    if package == "architectures" and path.stem != "registry":
        own = {machine for machine in MACHINES if f"{module(path)}.".startswith(f"{machine}.")}
        used_machines = {
            m for m in MACHINES for n in imported(path) if n == m or n.startswith(m + ".")
        }
        assert used_machines <= own
    if package != "scripts":
        assert not any(name.startswith("matplotlib.pyplot") for name in imported(path))


def test_no_bare_names() -> None:
    """Everything is imported as ``sparqsim.``: a user's own ``scripts/`` must never be meant."""
    bare = {
        str(path.relative_to(ROOT)): found
        for path in everything()
        if (found := {name.split(".")[0] for name in imported(path)} & {*ALLOWED, "sparqsim_base"})
    }
    assert len(everything()) > 300 and bare == {}
