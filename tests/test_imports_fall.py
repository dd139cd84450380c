"""Does the house stand? Imports only fall: scripts -> architectures -> simulator | workloads."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from architectures import registry

ROOT = Path(__file__).resolve().parent.parent
ALLOWED = {
    "sparqsim_base": set(),
    "simulator": {"simulator", "sparqsim_base"},
    "workloads": {"workloads", "sparqsim_base"},
    "architectures": {"architectures", "simulator", "workloads", "sparqsim_base"},
    "scripts": {"scripts", "architectures", "simulator", "workloads", "sparqsim_base"},
}
MACHINES = {row[0].split(":")[0] for row in registry.MACHINES.values()}


def modules() -> list[Path]:
    found = [path for name in ALLOWED for path in (ROOT / name).rglob("*.py")]
    return [ROOT / "sparqsim_base.py", *sorted(found)]


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_only_fall(path: Path) -> None:
    """A package imports only what lies below it; no machine imports another."""
    package = path.relative_to(ROOT).parts[0].removesuffix(".py")
    used = {name.split(".")[0] for name in imported(path)} & set(ALLOWED)
    assert used <= ALLOWED[package]
    if package == "architectures" and path.stem != "registry":
        own = f"architectures.{path.stem}"
        used_machines = {
            m for m in MACHINES for n in imported(path) if n == m or n.startswith(m + ".")
        }
        assert used_machines <= {own}
    if package != "scripts":
        assert not any(name.startswith("matplotlib.pyplot") for name in imported(path))
