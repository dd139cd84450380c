"""The table of machines: one row each. To add a machine, write its file and add its row."""

from __future__ import annotations

import importlib

from sparqsim.architectures.machine import Machine
from sparqsim.base import InputError

# name -> module:class
MACHINES: dict[str, str] = {
    "eie": "sparqsim.architectures.eie:EIE",
    "snap": "sparqsim.architectures.snap:SNAP",
    "sparse-tensor-core": "sparqsim.architectures.sparse_tensor_core:SparseTensorCore",
    "bitfusion": "sparqsim.architectures.bitfusion:BitFusion",
    "ant": "sparqsim.architectures.ant:Ant",
    "olive": "sparqsim.architectures.olive:Olive",
    "tpu": "sparqsim.architectures.tpu:TPU",
    "plain": "sparqsim.architectures.plain:PlainArray",
    "eyeriss": "sparqsim.architectures.eyeriss:Eyeriss",
    "diannao": "sparqsim.architectures.diannao:DianNao",
    "heatvit": "sparqsim.architectures.heatvit:HeatViT",
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
    module, attribute = MACHINES[name].split(":")
    found: type[Machine] = getattr(importlib.import_module(module), attribute)
    return found
