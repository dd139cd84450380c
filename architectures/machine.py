"""What every machine is: a frozen configuration that lowers a layer to a program.

A :class:`Machine` is a configuration that checks itself. ``lower`` encodes a layer the way the
hardware stores it, runs the functional MAC core once, and turns the work counted in that pass into
the busy times of a netlist: a :class:`Program`. :func:`run` simulates the program and gathers a
:class:`~sparqsim.simulator.report.Report`. A registered machine needs nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import msgspec
from numpy.typing import NDArray

from sparqsim.simulator.energy.tables import Basis
from sparqsim.simulator.engines import simulate
from sparqsim.simulator.netlist import Netlist
from sparqsim.simulator.report import (
    Energy,
    EnergyPart,
    Macs,
    Memory,
    Report,
    Verification,
    balance_of,
    path_of,
    provenance_of,
    stalls_of,
    utilization_of,
)
from sparqsim.simulator.timeline import Timeline
from sparqsim.simulator.traffic import Traffic
from sparqsim.workloads.tensors import LayerTensors


@dataclass(frozen=True)
class Figure:
    """One number of a datasheet with its unit, basis and source."""

    name: str
    value: str
    basis: Basis
    source: str


@dataclass(frozen=True, eq=False, kw_only=True)
class Program:
    """A layer as a machine runs it.

    Attributes
    ----------
    netlist
        What the engines run.
    layer, inputs
        Name of the layer and where its numbers come from.
    macs
        Counted in the pass that computed the outputs.
    worker
        The actor whose lanes do the multiplications: load balance is told of it.
    multipliers
        Multiplications the machine can start in a cycle.
    outputs, output_scale
        What the machine computed, or None where only the timing is known; the real number that
        an output of 1 stands for.
    verify
        Compares ``outputs`` with an independent reference.
    counters, memory, energy
        What happened in a run of the netlist, from its timeline.
    traffic
        Which firings of a run moved the bits of each memory; empty where the machine does not say.
    executed
        After a run with ``verify="execute"``: whether the tokens carried to the same outputs.
    notes
        What a reader of the report must know.
    """

    netlist: Netlist
    layer: str
    inputs: str
    macs: Macs
    worker: str
    multipliers: int
    outputs: NDArray[Any] | None
    verify: Callable[[], Verification] | None
    counters: Callable[[Timeline], dict[str, int]]
    memory: Callable[[Timeline], dict[str, Memory]]
    energy: Callable[[Timeline], list[EnergyPart]]
    traffic: Callable[[Timeline], Traffic] = field(default=lambda timeline: {})
    output_scale: float = 1.0
    executed: Callable[[], bool] | None = None
    notes: list[str] = field(default_factory=list)


class Machine(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A configuration of an accelerator; subclasses add its fields and check them when built.

    ``name`` is its name in the registry, ``title`` the machine and its paper.
    """

    name: ClassVar[str] = ""
    title: ClassVar[str] = ""

    def lower(self, tensors: LayerTensors) -> Program:
        """Encode, compute and count one layer; raises InputError if the machine cannot take it."""
        raise NotImplementedError

    def datasheet(self) -> list[Figure]:
        """The machine's numbers, each with its source."""
        raise NotImplementedError


@dataclass(frozen=True, eq=False)
class Result:
    """A report with what it was made from, for figures and traces."""

    report: Report
    timeline: Timeline
    program: Program

    @property
    def traffic(self) -> Traffic:
        """What moved the bits of each memory, for bandwidth over time."""
        return self.program.traffic(self.timeline)


def run(
    machine: Machine,
    work: LayerTensors | Program,
    *,
    engine: str = "compiled",
    record: str = "full",
    verify: bool = True,
    execute: bool = False,
    seed: int | None = None,
) -> Result:
    """Lower a layer (unless it is a program already), simulate it, verify it, report.

    Parameters
    ----------
    machine
        Whose program it is.
    work
        A layer with its tensors, or a program of this machine.
    engine, record
        As for :func:`sparqsim.simulator.engines.simulate`.
    verify
        Compare the outputs with an independent reference.
    execute
        Let every firing run its arithmetic (SimPy engine).
    seed
        Of the tensors, for the record.
    """
    program = work if isinstance(work, Program) else machine.lower(work)
    timeline = simulate(
        program.netlist, engine=engine, record=record, verify="execute" if execute else None
    )
    checked = Verification(status="skipped")
    if verify and program.verify is not None:
        checked = program.verify()
    if execute and program.executed is not None and not program.executed():
        checked = msgspec.structs.replace(checked, status="mismatch")
    cycles = timeline.cycles
    utilization = utilization_of(timeline)
    available = cycles * program.multipliers
    utilization["multipliers"] = program.macs.effectual / available if available else 0.0
    report = Report(
        machine=machine.name,
        layer=program.layer,
        cycles=cycles,
        seconds=timeline.seconds,
        macs=program.macs,
        utilization=utilization,
        load_balance=balance_of(timeline, program.worker),
        stalls=stalls_of(timeline),
        critical_path=path_of(timeline),
        counters=program.counters(timeline),
        memory=program.memory(timeline),
        energy=Energy.of(program.energy(timeline), timeline.seconds),
        verification=checked,
        provenance=provenance_of(machine, seed, engine, program.inputs),
        notes=program.notes,
    )
    return Result(report, timeline, program)
