"""Named configurations as TOML files, each number with its basis and source.

A file gives every field of a machine, or is like another and gives what differs::

    machine = "sparse-tensor-core"
    title = "NVIDIA A100, 80 GB (SXM4)"
    like = "a100-40gb"

    [fields]
    dram_gb = { value = 80.0, basis = "published", source = "A100 datasheet, 80 GB" }

    [area]                       # of the silicon, where it is published
    mm2 = 826.0
    node_nm = 7.0
    basis = "published"
    source = "A100 white paper: GA100, TSMC 7N"

``basis`` is published, derived or assumed. Every key is checked: what is unknown, of a wrong type
or without a source is refused, by name and file.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from sparqsim.architectures.machine import Area, Figure, Machine
from sparqsim.architectures.registry import get_machine
from sparqsim.base import InputError, read_toml
from sparqsim.simulator.energy.tables import Basis
from sparqsim.workloads.layers import unknown

FOLDER = Path(__file__).resolve().parent


class Sourced(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A field's value and where it comes from."""

    value: bool | int | float | str
    basis: Basis
    source: str


class SourcedArea(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An area and where it comes from."""

    mm2: float
    node_nm: float
    basis: Basis
    source: str


class File(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a preset's file says; see the module."""

    machine: str
    title: str
    like: str | None = None
    fields: dict[str, Sourced] = {}
    area: SourcedArea | None = None


@dataclass(frozen=True, kw_only=True)
class Preset:
    """A named configuration.

    Attributes
    ----------
    name, title : str
    configuration : Machine
    fields : dict of str to Sourced
        Every field of it, in the order of the machine's.
    area : Area or None
    """

    name: str
    title: str
    configuration: Machine
    fields: dict[str, Sourced]
    area: Area | None


@cache
def shipped() -> dict[str, Preset]:
    """The presets that ship with Sparqsim, by name."""
    return {path.stem: read(path) for path in sorted(FOLDER.glob("*.toml"))}


def names(machine: str | None = None) -> tuple[str, ...]:
    """Names of the presets, of one machine or of all."""
    return tuple(
        name
        for name, preset in shipped().items()
        if machine is None or preset.configuration.name == machine
    )


def get(name_or_path: str) -> Preset:
    """A preset by name, or read from a file.

    Raises
    ------
    InputError
        If there is neither; near names are listed.
    """
    if name_or_path in shipped():
        return shipped()[name_or_path]
    path = Path(name_or_path)
    if path.suffix == ".toml" or os.path.exists(path):
        return read(path)
    raise unknown("there is no preset", name_or_path, shipped())


def load(name_or_path: str, machine: str | None = None) -> Machine:
    """The configuration of a preset.

    Parameters
    ----------
    name_or_path
        A name, or a file.
    machine
        The machine it must be of, where there is one to be met.

    Raises
    ------
    InputError
        As :func:`get`; or if it is a preset of another machine.
    """
    found = get(name_or_path).configuration
    if machine is not None and found.name != machine:
        there = ", ".join(names(machine)) or "none"
        raise InputError(
            f"the preset {name_or_path!r} is of {found.name}, not of {machine}; {machine} has "
            f"{there}"
        )
    return found


# ---------------------------------------------------------------------- what a datasheet shows


def nearest(machine: Machine) -> Preset | None:
    """The preset of a machine that differs from a configuration in the fewest fields, or None."""
    mine = [each for each in shipped().values() if type(each.configuration) is type(machine)]
    return min(mine, key=lambda each: len(_differing(each, machine)), default=None)


def figures(machine: Machine) -> list[Figure]:
    """Every field of a configuration with the source that the nearest preset gives for it."""
    preset = nearest(machine)
    if preset is None:
        return []
    differing = _differing(preset, machine)
    found = [] if differing else [Figure("preset", preset.name, Basis.DERIVED, preset.title)]
    for name, told in preset.fields.items():
        value = getattr(machine, name)
        if name in differing:
            source = f"given; {preset.name} has {_shown(told.value)}"
            found.append(Figure(name, _shown(value), Basis.ASSUMED, source))
        else:
            found.append(Figure(name, _shown(value), told.basis, told.source))
    return found


def area(machine: Machine) -> Area | None:
    """The published area of a configuration that is a preset, or None."""
    preset = nearest(machine)
    return None if preset is None or _differing(preset, machine) else preset.area


def _differing(preset: Preset, machine: Machine) -> list[str]:
    return [
        name
        for name in preset.fields
        if getattr(machine, name) != getattr(preset.configuration, name)
    ]


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return value if isinstance(value, str) else f"{value:.6g}"


# ---------------------------------------------------------------------- files


def read(path: Path) -> Preset:
    """The preset of a file.

    Raises
    ------
    InputError
        If the file cannot be read or is not a preset: the key is named, and the file.
    """
    given = _file(path)
    where = f"the preset {path}"
    try:
        machine = get_machine(given.machine)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    fields = _fields(given, path, (path.stem,))
    known = machine.__struct_fields__
    for name, told in fields.items():
        if name not in known:
            raise unknown(f"{where}: {given.machine} has no field", name, known)
        if not told.source:
            raise InputError(f"{where}: fields.{name} must have a source, got an empty one")
    missing = [name for name in known if name not in fields]
    if missing:
        raise InputError(
            f"{where} must give every field of {given.machine}, or be like a preset that does; it "
            f"lacks {', '.join(missing)}"
        )
    try:
        values = {name: fields[name].value for name in known}
        configuration = msgspec.convert(values, machine, strict=True)
    except msgspec.ValidationError as error:
        cause = error.__cause__ if isinstance(error.__cause__, InputError) else error
        raise InputError(f"{where}: {cause}") from None
    told_area = given.area
    return Preset(
        name=path.stem,
        title=given.title,
        configuration=configuration,
        fields={name: fields[name] for name in known},
        area=None if told_area is None else Area(**msgspec.structs.asdict(told_area)),
    )


def _file(path: Path) -> File:
    found: File = read_toml(path, "a preset", File)
    return found


def _fields(given: File, path: Path, seen: tuple[str, ...]) -> dict[str, Sourced]:
    """All fields of a file: those of the preset that it is like, and its own."""
    if given.like is None:
        return dict(given.fields)
    if given.like in seen:
        raise InputError(f"the preset {path} is like itself: {' -> '.join([*seen, given.like])}")
    base = FOLDER / f"{given.like}.toml"
    if not base.is_file():
        known = [each.stem for each in FOLDER.glob("*.toml")]
        raise unknown(f"the preset {path}: there is no preset to be like called", given.like, known)
    other = _file(base)
    if other.machine != given.machine:
        raise InputError(
            f"the preset {path} is of {given.machine}, but {given.like} of {other.machine}"
        )
    return _fields(other, base, (*seen, given.like)) | given.fields
