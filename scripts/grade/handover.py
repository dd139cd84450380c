"""A program as plain numbers: what passes from the process of a submission to that of the judge.

A netlist, an account and outputs are arrays and names; nothing that runs passes. The file is an npz
whose member ``program`` is JSON, in which an array is the number of another member. What is read is
checked as any netlist is when it is built.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from sparqsim.architectures.account import Account, Port, Store
from sparqsim.architectures.machine import Program
from sparqsim.architectures.operands import Computes
from sparqsim.base import InputError
from sparqsim.simulator.loops import Loops
from sparqsim.simulator.netlist import Actor, Channel, Netlist, Pattern, Resource
from sparqsim.simulator.report import Macs
from sparqsim.workloads.npz import read_npz


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
    firings: int
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
    resources: list[tuple[str, int, bool]]
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


def write(path: Path, program: Program, computes: Computes, bandwidth: float | None) -> None:
    """Write a program.

    Raises
    ------
    InputError
        If it holds what is no number: a behaviour, a stateful resource.
    """
    pack, netlist = _Packer(), program.netlist
    for actor in netlist.actors:
        if actor.behaviour is not None:
            raise InputError(f"actor {actor.name!r} has a behaviour; only firings are judged")
    for each in netlist.resources:
        if each.model is not None:
            raise InputError(f"resource {each.name!r} has a model of its own; it is not judged")
    data = ProgramData(
        weights=tuple(computes.weights),
        activations=tuple(computes.activations),
        zero_points=computes.zero_points,
        bandwidth=bandwidth,
        clock_hz=float(netlist.clock_hz),
        actors=[
            ActorData(
                name=a.name, lanes=a.lanes, firings=a.count, busy=pack(a.busy),
                latency=pack(a.latency), resource=a.resource, request=pack(a.request),
                rank=pack(a.rank),
            )
            for a in netlist.actors
        ],
        channels=[
            ChannelData(
                name=c.name, source=c.source, target=c.target, capacity=c.capacity,
                pattern=c.pattern, offset=c.offset, produce=pack(c.produce),
                consume=pack(c.consume),
            )
            for c in netlist.channels
        ],
        resources=[(r.name, r.servers, r.banked) for r in netlist.resources],
        worker=program.worker,
        multipliers=program.multipliers,
        dense_macs=program.macs.dense,
        effectual_macs=program.macs.effectual,
        stores=[store.name for store in program.account.stores],
        ports=[
            PortData(
                store=p.store, actor=p.actor, read_bits=pack(p.read_bits),
                written_bits=pack(p.written_bits),
            )
            for p in program.account.ports
        ],
        outputs=pack(program.outputs),
        output_scale=pack(program.output_scale),
        output_zero=program.output_zero,
    )  # fmt: skip
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


def _program(data: ProgramData, arrays: dict[str, NDArray[Any]]) -> Program:
    def given(value: Numbers) -> Any:
        if isinstance(value, Nothing):
            return None
        if isinstance(value, Number):
            return value.value
        if isinstance(value, Array):
            return arrays[str(value.member)]
        return Loops(value.runs, arrays[str(value.values)], value.steps)

    def amount(value: Numbers) -> Any:
        found = given(value)
        return 0 if found is None else found

    outputs = given(data.outputs)
    if outputs is not None and not isinstance(outputs, np.ndarray):
        raise InputError("outputs must be an array")
    netlist = Netlist(
        actors=[
            Actor(
                name=a.name, lanes=a.lanes, firings=a.firings, busy=given(a.busy),
                latency=given(a.latency), resource=a.resource, request=given(a.request),
                rank=amount(a.rank),
            )
            for a in data.actors
        ],
        channels=[
            Channel(
                name=c.name, source=c.source, target=c.target, capacity=c.capacity,
                pattern=c.pattern, offset=c.offset, produce=given(c.produce),
                consume=given(c.consume),
            )
            for c in data.channels
        ],
        resources=[
            Resource(name=name, servers=servers, banked=banked)
            for name, servers, banked in data.resources
        ],
        clock_hz=data.clock_hz,
    )  # fmt: skip
    account = Account(
        [Store(name=name) for name in data.stores],
        [
            Port(
                store=p.store,
                actor=p.actor,
                read_bits=amount(p.read_bits),
                written_bits=amount(p.written_bits),
            )
            for p in data.ports
        ],
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
        output_scale=given(data.output_scale),
        output_zero=data.output_zero,
    )
    netlist.index(data.worker)
    return program
