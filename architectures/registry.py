"""The table of machines: one row each. To add a machine, write its file and add its row.

Machines from outside need no row: a Python file with one machine is run by its path, and an
installed package offers machines by entry points of the group ``sparqsim.machines``::

    [project.entry-points."sparqsim.machines"]
    my-machine = "my_package.my_module:MyMachine"
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import os
import sys
import traceback
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from sparqsim.architectures.machine import Machine
from sparqsim.base import InputError

GROUP = "sparqsim.machines"

# name -> module:class
MACHINES: dict[str, str] = {
    "eie": "sparqsim.architectures.eie:EIE",
    "snap": "sparqsim.architectures.snap:SNAP",
    "sparse-tensor-core": "sparqsim.architectures.sparse_tensor_core:SparseTensorCore",
    "bitfusion": "sparqsim.architectures.arrays.bitfusion:BitFusion",
    "ant": "sparqsim.architectures.arrays.ant:Ant",
    "olive": "sparqsim.architectures.arrays.olive:Olive",
    "tpu": "sparqsim.architectures.arrays.tpu:TPU",
    "plain": "sparqsim.architectures.arrays.plain:PlainArray",
    "eyeriss": "sparqsim.architectures.eyeriss:Eyeriss",
    "diannao": "sparqsim.architectures.arrays.diannao:DianNao",
    "heatvit": "sparqsim.architectures.heatvit:HeatViT",
}


def machine_names() -> tuple[str, ...]:
    """Names of the machines, in the order of the table."""
    return tuple(MACHINES)


def installed() -> dict[str, EntryPoint]:
    """Machines that installed packages offer, by name; a name of the table is never replaced."""
    found = sorted(entry_points(group=GROUP), key=lambda each: each.name)
    return {each.name: each for each in found if each.name not in MACHINES}


def get_machine(name: str) -> type[Machine]:
    """The configuration class of a machine.

    Parameters
    ----------
    name
        Of the table or of an entry point, or the path of a Python file that defines one machine
        (its only subclass of :class:`Machine`, or the one it calls ``MACHINE``).

    Raises
    ------
    InputError
        If there is no such machine (the message says which there are), or its file or package
        cannot be loaded.
    """
    if name in MACHINES:
        module, attribute = MACHINES[name].split(":")
        found: type[Machine] = getattr(importlib.import_module(module), attribute)
        return found
    if name.endswith(".py"):
        return _from_file(Path(name))
    offered = installed()
    if name in offered:
        return _from_package(offered[name])
    known = ", ".join([*MACHINES, *offered])
    raise InputError(f"there is no machine {name!r}; there is {known}, or a file my_machine.py")


def file_of(machine: type[Machine]) -> str | None:
    """The file that :func:`get_machine` loaded a machine from; None for an importable one."""
    module = sys.modules.get(machine.__module__)
    ours = module is not None and machine.__module__.startswith(PREFIX)
    return str(module.__file__) if module is not None and ours else None


def _from_package(offered: EntryPoint) -> type[Machine]:
    where = f"the entry point {offered.name!r} ({offered.value})"
    try:
        found = offered.load()
    except Exception as error:
        raise InputError(f"{where} cannot be loaded: {_short(error)}") from None
    return _checked(found, where)


PREFIX = "sparqsim_machine_"  # of the modules that files are loaded as


def _from_file(path: Path) -> type[Machine]:
    """The machine of a file, which is loaded once, as a module of its own."""
    if not os.path.isfile(path):
        raise InputError(f"there is no machine file {path}")
    return machine_in(_loaded(path.resolve()), path)


def machine_in(module: ModuleType, path: Path) -> type[Machine]:
    """The machine of a module that was loaded from ``path``; raises InputError if it has none."""
    named = getattr(module, "MACHINE", None)
    if named is not None:
        return _checked(named, f"MACHINE in {path}")
    found = [
        each
        for each in vars(module).values()
        if inspect.isclass(each)
        and issubclass(each, Machine)
        and each.__module__ == module.__name__
    ]
    if len(found) != 1:
        names = ", ".join(each.__name__ for each in found) or "none"
        raise InputError(
            f"{path} must define one subclass of Machine, got {names}; say which by MACHINE = ..."
        )
    return _checked(found[0], str(path))


def _loaded(path: Path) -> ModuleType:
    # Of a path always the same name, so that other processes can load it by its name too.
    name = PREFIX + hashlib.sha256(str(path).encode()).hexdigest()[:16]
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        lines = [
            f", line {frame.lineno}"
            for frame in traceback.extract_tb(error.__traceback__)
            if frame.filename == str(path)
        ]
        where = f"{path}{lines[-1] if lines else ''}"
        raise InputError(f"{where} cannot be loaded: {_short(error)}") from None
    return module


def _short(error: BaseException) -> str:
    """An error in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _checked(found: Any, where: str) -> type[Machine]:
    if not (inspect.isclass(found) and issubclass(found, Machine)):
        raise InputError(f"{where} must be a subclass of Machine, got {found!r}")
    if not found.name or not found.title:
        raise InputError(f"{where}: the class {found.__name__} must give its name and its title")
    for needed in ("computes", "lower"):
        if getattr(found, needed) is getattr(Machine, needed):
            raise InputError(f"{where}: the class {found.__name__} must define {needed}()")
    return found
