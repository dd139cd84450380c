"""The table of machines: one row each. To add a machine, write its file and add its row."""

from __future__ import annotations

import importlib

from architectures.machine import Machine
from sparqsim_base import InputError

# name -> module:class of the machine; module:command of its validation, or ""
MACHINES: dict[str, tuple[str, str]] = {
    "eie": ("architectures.eie:EIE", "scripts.validation.eie:command"),
    "snap": ("architectures.snap:SNAP", "scripts.validation.snap:command"),
    "sparse-tensor-core": (
        "architectures.sparse_tensor_core:SparseTensorCore",
        "scripts.validation.sparse_tensor_core:command",
    ),
    "bitfusion": ("architectures.bitfusion:BitFusion", "scripts.validation.bitfusion:command"),
    "ant": ("architectures.ant:Ant", "scripts.validation.ant:command"),
    "olive": ("architectures.olive:Olive", "scripts.validation.olive:command"),
    "tpu": ("architectures.tpu:TPU", "scripts.validation.tpu:command"),
    "plain": ("architectures.plain:PlainArray", ""),
    "eyeriss": ("architectures.eyeriss:Eyeriss", "scripts.validation.eyeriss:command"),
    "diannao": ("architectures.diannao:DianNao", "scripts.validation.diannao:command"),
    "heatvit": ("architectures.heatvit:HeatViT", "scripts.validation.heatvit:command"),
}


def machine_names() -> tuple[str, ...]:
    """Names of the machines, in the order of the table."""
    return tuple(MACHINES)


def get_machine(name: str) -> type[Machine]:
    """The configuration class of a machine.

    Raises
    ------
    InputError
        If there is no such machine; the letter says which there are.
    """
    if name not in MACHINES:
        raise InputError(f"there is no machine {name!r}; there is {', '.join(MACHINES)}")
    module, attribute = MACHINES[name][0].split(":")
    found: type[Machine] = getattr(importlib.import_module(module), attribute)
    return found
