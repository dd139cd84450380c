"""A program as plain numbers: what passes from the process of a submission to that of the judge.

A netlist, an account and outputs are arrays and names; nothing that runs passes. A stateful
resource is named with its fields where it is one of :data:`STATEFUL`. The file is an npz whose
member ``program`` is JSON, in which an array is the number of another member. What is read is
checked as any netlist is when it is built.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from sparqsim.architectures.account import Account, Port, Store
from sparqsim.architectures.machine import Program
from sparqsim.architectures.operands import Computes
from sparqsim.base import InputError
from sparqsim.simulator.loops import Loops
from sparqsim.simulator.memory.dram import Dram, DramChannel
from sparqsim.simulator.memory.open_row import OpenRow
from sparqsim.simulator.netlist import (
    Actor,
    Channel,
    Netlist,
    Pattern,
    Resource,
    ResourceModel,
)
from sparqsim.simulator.report import Macs
from sparqsim.workloads.npz import read_npz

T = TypeVar("T", bound=msgspec.Struct)


class Array(msgspec.Struct, frozen=True, tag="array"):
    """An array, by the number of its member."""

    member: int


class Looped(msgspec.Struct, frozen=True, tag="loops"):
    """Numbers over the firings of nested loops."""

    runs: tuple[tuple[int, ...], ...]
    steps: tuple[int, ...]
    values: int


class Number(msgspec.Struct, frozen=True, tag="number"):
    """One number."""

    value: int | float


class Nothing(msgspec.Struct, frozen=True, tag="none"):
    """A field that is not given."""


Numbers = Array | Looped | Number | Nothing


class ActorData(msgspec.Struct, frozen=True, kw_only=True):
    """An :class:`~sparqsim.simulator.netlist.Actor` without what runs."""

    name: str
    lanes: int
    firings: int | None
    busy: Numbers
    latency: Numbers
    resource: str | None
    request: Numbers
    rank: Numbers


class ChannelData(msgspec.Struct, frozen=True, kw_only=True):
    """A :class:`~sparqsim.simulator.netlist.Channel`."""

    name: str
    source: str
    target: str
    capacity: int
    pattern: Pattern
    offset: int
    produce: Numbers
    consume: Numbers


class DramData(msgspec.Struct, frozen=True, kw_only=True, tag="dram"):
    """A channel of a :class:`~sparqsim.simulator.memory.dram.Dram` of a named standard."""

    dram: Dram
    clock_hz: float | None


class OpenRowData(msgspec.Struct, frozen=True, kw_only=True, tag="open_row"):
    """Banks with one open row each: :class:`~sparqsim.simulator.memory.open_row.OpenRow`."""

    banks: int
    hit_cycles: int
    miss_cycles: int


# The stateful resources that are judged: those that both engines know by themselves.
STATEFUL: dict[type, type[DramData] | type[OpenRowData]] = {
    DramChannel: DramData,
    OpenRow: OpenRowData,
}


class ResourceData(msgspec.Struct, frozen=True, kw_only=True):
    """A :class:`~sparqsim.simulator.netlist.Resource`."""

    name: str
    servers: int
    banked: bool
    model: DramData | OpenRowData | None


class PortData(msgspec.Struct, frozen=True, kw_only=True):
    """A :class:`~sparqsim.architectures.account.Port`."""

    store: str
    actor: str
    read_bits: Numbers
    written_bits: Numbers


class ProgramData(msgspec.Struct, frozen=True, kw_only=True):
    """A program, and what its machine says of itself."""

    weights: tuple[str, ...]
    activations: tuple[str, ...]
    zero_points: bool
    bandwidth: float | None
    clock_hz: float
    actors: list[ActorData]
    channels: list[ChannelData]
    resources: list[ResourceData]
    worker: str
    multipliers: int
    dense_macs: int
    effectual_macs: int
    stores: list[str]
    ports: list[PortData]
    outputs: Numbers
    output_scale: Numbers
    output_zero: int


class _Packer:
    """Numbers to members of an npz."""

    def __init__(self) -> None:
        self.members: list[NDArray[Any]] = []

    def __call__(self, value: Any) -> Numbers:
        if value is None:
            return Nothing()
        if isinstance(value, Loops):
            self.members.append(value.values)
            return Looped(value.runs, value.steps, len(self.members) - 1)
        array = np.asarray(value)
        if array.dtype.kind not in "iuf":
            raise InputError(f"a program must hold numbers, got an array of {array.dtype}")
        if array.ndim == 0:
            return Number(array.item())
        self.members.append(array)
        return Array(len(self.members) - 1)


def _told(kind: type[T], thing: Any, pack: _Packer) -> T:
    """The fields of a record that stand for ``thing``."""
    fields = {
        each.name: pack(value) if each.type == Numbers else value
        for each in msgspec.structs.fields(kind)
        for value in [getattr(thing, each.name)]
    }
    return kind(**fields)


def _resource(given: Resource, pack: _Packer) -> ResourceData:
    """A resource whose model, if it has one, is one of those that are judged."""
    model: Any = given.model
    if model is not None:
        if type(model) not in STATEFUL:
            known = " or ".join(kind.__name__ for kind in STATEFUL)
            raise InputError(
                f"resource {given.name!r} has a model of its own; only {known} is judged"
            )
        if isinstance(model, DramChannel) and not isinstance(model.dram.standard, str):
            raise InputError(
                f"resource {given.name!r} must be of a DRAM standard by its name, got a table"
            )
        model = _told(STATEFUL[type(model)], model, pack)
    return ResourceData(name=given.name, servers=given.servers, banked=given.banked, model=model)


def write(path: Path, program: Program, computes: Computes, bandwidth: float | None) -> None:
    """Write a program.

    Raises
    ------
    InputError
        If it holds what is no number: a behaviour, a stateful resource that is not known here.
    """
    pack, netlist = _Packer(), program.netlist
    for actor in netlist.actors:
        if actor.behaviour is not None:
            raise InputError(f"actor {actor.name!r} has a behaviour; only firings are judged")
    data = ProgramData(
        weights=tuple(computes.weights),
        activations=tuple(computes.activations),
        zero_points=computes.zero_points,
        bandwidth=bandwidth,
        clock_hz=float(netlist.clock_hz),
        actors=[_told(ActorData, each, pack) for each in netlist.actors],
        channels=[_told(ChannelData, each, pack) for each in netlist.channels],
        resources=[_resource(each, pack) for each in netlist.resources],
        worker=program.worker,
        multipliers=program.multipliers,
        dense_macs=program.macs.dense,
        effectual_macs=program.macs.effectual,
        stores=[store.name for store in program.account.stores],
        ports=[_told(PortData, each, pack) for each in program.account.ports],
        outputs=pack(program.outputs),
        output_scale=pack(program.output_scale),
        output_zero=program.output_zero,
    )
    told = np.frombuffer(msgspec.json.encode(data), np.uint8)
    with open(path, "wb") as file:
        np.savez(file, program=told, **{str(i): each for i, each in enumerate(pack.members)})  # type: ignore[arg-type]


def read(path: Path) -> tuple[ProgramData, Program]:
    """The data of a file, and the program they describe.

    Raises
    ------
    InputError
        If the file is none of ours, or the netlist or the account does not hold together.
    """
    if path.is_symlink() or not path.is_file():
        raise InputError("it handed over no file")
    arrays = read_npz(path, "a program", ["program"])
    try:
        data = msgspec.json.decode(arrays["program"].tobytes(), type=ProgramData)
        return data, _program(data, arrays)
    except (msgspec.MsgspecError, KeyError, UnicodeDecodeError) as error:
        raise InputError(f"what it handed over is no program: {error}") from None


def _fields(data: msgspec.Struct, arrays: dict[str, NDArray[Any]]) -> dict[str, Any]:
    """The fields of what a record stands for."""
    return {
        name: _given(value, arrays) if isinstance(value, Numbers) else value
        for name, value in ((each, getattr(data, each)) for each in data.__struct_fields__)
    }


def _given(value: Numbers, arrays: dict[str, NDArray[Any]]) -> Any:
    if isinstance(value, Nothing):
        return None
    if isinstance(value, Number):
        return value.value
    if isinstance(value, Array):
        return arrays[str(value.member)]
    return Loops(value.runs, arrays[str(value.values)], value.steps)


def _model(data: DramData | OpenRowData | None, clock_hz: float) -> ResourceModel | None:
    """The model of a resource, which keeps the netlist's time."""
    if data is None:
        return None
    if isinstance(data, OpenRowData):
        return OpenRow(**msgspec.structs.asdict(data))
    if data.clock_hz != clock_hz or not isinstance(data.dram.standard, str):
        raise InputError(
            f"a DRAM must be of a standard by its name and of the netlist's clock, {clock_hz:g} "
            f"Hz, got {data.dram.standard!r} at {data.clock_hz}"
        )
    return DramChannel(data.dram, data.clock_hz)


def _program(data: ProgramData, arrays: dict[str, NDArray[Any]]) -> Program:
    outputs = _given(data.outputs, arrays)
    if outputs is not None and not isinstance(outputs, np.ndarray):
        raise InputError("outputs must be an array")
    netlist = Netlist(
        actors=[Actor(**_fields(each, arrays)) for each in data.actors],
        channels=[Channel(**_fields(each, arrays)) for each in data.channels],
        resources=[
            Resource(**_fields(each, arrays) | {"model": _model(each.model, data.clock_hz)})
            for each in data.resources
        ],
        clock_hz=data.clock_hz,
    )
    account = Account(
        [Store(name=name) for name in data.stores],
        [Port(**_fields(each, arrays)) for each in data.ports],
    )
    program = Program(
        netlist=netlist,
        layer="",
        inputs="",
        macs=Macs(dense=data.dense_macs, effectual=data.effectual_macs),
        worker=data.worker,
        multipliers=data.multipliers,
        account=account,
        outputs=outputs,
        output_scale=_given(data.output_scale, arrays),
        output_zero=data.output_zero,
    )
    netlist.index(data.worker)
    return program
