"""What every machine is: a frozen configuration that lowers an encoded layer to a program.

A :class:`Machine` is a configuration that checks itself. It says which formats it computes
(:meth:`Machine.computes`) and which layers (:meth:`Machine.refusal`); :func:`program` applies the
recipe, stores the operands in those formats (:mod:`sparqsim.architectures.operands`) and has
``lower`` run the functional MAC core once and turn the work counted in that pass into the busy
times of a netlist: a :class:`Program`. :func:`run` simulates the program and gathers a
:class:`~sparqsim.simulator.report.Report`. A registered machine needs nothing else.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, ClassVar, Protocol, Self

import msgspec
import numpy as np
from numpy.typing import NDArray

from sparqsim.architectures.account import Account
from sparqsim.architectures.operands import Computes, take
from sparqsim.base import InputError
from sparqsim.simulator.energy.tables import Basis
from sparqsim.simulator.engines import simulate
from sparqsim.simulator.netlist import Netlist
from sparqsim.simulator.report import (
    TOO_SMALL,
    Energy,
    EnergyPart,
    Macs,
    Memory,
    Operand,
    Report,
    Roof,
    Verification,
    balance_of,
    bound_of,
    path_of,
    provenance_of,
    stalls_of,
    utilization_of,
)
from sparqsim.simulator.sketch import sketch_of
from sparqsim.simulator.timeline import Timeline
from sparqsim.simulator.traffic import Traffic
from sparqsim.workloads import recipes
from sparqsim.workloads.encoded import EncodedLayer, encode
from sparqsim.workloads.layers import Layer, Model, OtherWork
from sparqsim.workloads.quantize import sqnr_db
from sparqsim.workloads.recipes import Recipe
from sparqsim.workloads.shared import once
from sparqsim.workloads.tensors import LayerTensors

# Firings of all lanes that are kept for the critical path, some 50 bytes each; above so many parts
# of the run are gone through once more. That takes about as long.
MOST_KEPT = {"path": 1 << 18, "either": 20_000_000, "sketch": 20_000_000}
MOST_REPEATING = 2_000_000  # and of a run that repeats, which without a sketch is over at once


@dataclass(frozen=True)
class Figure:
    """One number of a datasheet with its unit, basis and source."""

    name: str
    value: str
    basis: Basis
    source: str


@dataclass(frozen=True, kw_only=True)
class Peak:
    """Dense multiply-accumulates a second, and of which operands: ``8 x 8 bits``."""

    macs_per_s: float
    operands: str


@dataclass(frozen=True, kw_only=True)
class Area:
    """Silicon of a configuration in its own technology; ``source`` shows the arithmetic."""

    mm2: float
    node_nm: float
    basis: Basis
    source: str

    def at(self, node_nm: float) -> float:
        """Square millimetres in another technology: area goes with the square of the node."""
        return self.mm2 * (node_nm / self.node_nm) ** 2


@dataclass(frozen=True, kw_only=True)
class UnitTime:
    """Cycles that a unit beside the array needs for work without multiply-accumulates."""

    unit: str
    cycles: int


def nothing_more(timeline: Timeline) -> Any:
    """Counters or energies of a program that has none beside its account."""
    return {}


class Computed(Protocol):
    """A layer's outputs, and how to check them: what a datapath gives to a program."""

    outputs: NDArray[Any]
    output_scale: Any
    output_zero: int
    effectual: int

    def verify(self) -> Verification:
        """Compare the outputs with an independent reference."""
        ...


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
    account
        Its memories and who moves their bits.
    outputs, output_scale, output_zero
        What the machine computed, in the layer's output shape, or None where only the timing is
        known; an output stands for ``output_scale * (output - output_zero)``.
    lost_steps
        How many steps of an output the arithmetic itself may lose: products that are truncated.
    verify
        Compares ``outputs`` with an independent reference.
    counters, energy
        What happened in a run of the netlist beside the account's bits, from its timeline.
    executed
        After a run with ``verify="execute"``: whether the tokens carried to the same outputs. None
        where the netlist's firings carry no arithmetic.
    notes
        What a reader of the report must know.
    recipe, operands
        Filled in by :func:`program`: what made the operands, and how they are stored.
    float_output
        Likewise: the output of the float layer, or None.
    """

    netlist: Netlist
    layer: str
    inputs: str
    macs: Macs
    worker: str
    multipliers: int
    account: Account
    outputs: NDArray[Any] | None = None
    output_scale: Any = 1.0
    output_zero: int = 0
    lost_steps: float = 0.0
    verify: Callable[[], Verification] | None = None
    counters: Callable[[Timeline], dict[str, int]] = nothing_more
    energy: Callable[[Timeline], list[EnergyPart]] = field(default=lambda timeline: [])
    executed: Callable[[], bool] | None = None
    notes: list[str] = field(default_factory=list)
    recipe: str = ""
    operands: Mapping[str, Operand] = field(default_factory=dict)
    float_output: Callable[[], NDArray[np.float32]] | None = None

    def with_work(self, work: Computed) -> Program:
        """The program with the numbers of a layer that was multiplied and can be verified."""
        return replace(
            self,
            outputs=work.outputs,
            output_scale=work.output_scale,
            output_zero=work.output_zero,
            verify=work.verify,
            macs=msgspec.structs.replace(self.macs, effectual=work.effectual),
        )

    def values(self) -> NDArray[np.float64] | None:
        """The outputs as real numbers, or None."""
        if self.outputs is None:
            return None
        real: NDArray[np.float64] = (
            self.outputs.astype(np.float64) - self.output_zero
        ) * self.output_scale
        return real


class Machine(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A configuration of an accelerator; subclasses add its fields and check them when built.

    ``name`` is its name in the registry, ``title`` the machine and its paper, ``recipe`` the recipe
    that runs when none is given. ``needs_numbers`` says that the time depends on the values of the
    tensors; other machines can be timed from shapes alone. ``takes_counts`` says that
    :meth:`program_from_counts_file` reads work counted elsewhere.

    Attributes
    ----------
    clock_hz
        Clock frequency; a field of every machine that ships.
    dram_gbytes_per_s
        Bandwidth of DRAM, in 1e9 bytes a second; a field of machines that have a DRAM.
    """

    name: ClassVar[str] = ""
    title: ClassVar[str] = ""
    recipe: ClassVar[str] = "int8"
    needs_numbers: ClassVar[bool] = False
    takes_counts: ClassVar[bool] = False

    def recipe_for(self, layer: Layer) -> Recipe:
        """The recipe that runs when none is given; a table of layers may publish its widths."""
        return recipes.get(self.recipe)

    def computes(self, layer: EncodedLayer) -> Computes:
        """The formats in which this machine multiplies such a layer."""
        raise NotImplementedError

    def refusal(self, layer: Layer) -> str:
        """Why the machine does not run such a layer, in words that follow its name; or nothing."""
        return ""

    def as_run(self, model: Model) -> Model:
        """The network as this machine runs it; a configuration may leave part of it out.

        Raises
        ------
        InputError
            If the configuration cannot run such a network.
        """
        return model

    def lower(self, layer: EncodedLayer) -> Program:
        """Compute and count one layer whose operands are in formats it computes.

        An outline (:attr:`EncodedLayer.is_outline`) has shapes and formats but no numbers: then
        only the timing is known. Raises InputError if the machine cannot take the layer.
        """
        raise NotImplementedError

    def lower_network(self, layers: Sequence[EncodedLayer]) -> Program | None:
        """All layers of a network as one program, or None where they run one by one.

        A machine overrides it whose paper keeps weights or activations on the chip between layers.
        The layers are outlines in formats it computes; ``layer.layer.repeat`` of each run.
        """
        return None

    def without_timing(self) -> Self:
        """The same for configurations that compute and count the same and differ in timing alone.

        Runs of such configurations share what they count, and a sweep puts them next to each other.
        """
        return self

    def time_beside(self, work: OtherWork) -> UnitTime | None:
        """Time of work without multiply-accumulates, or None where no unit for it is modelled."""
        return None

    def peak(self) -> Peak | None:
        """What its multipliers can do at most, at the width it is usually told of, or None."""
        return None

    def bandwidth(self) -> float | None:
        """Bandwidth of its DRAM in bytes per second, or None where it has (or models) none."""
        return None

    def area(self) -> Area | None:
        """Its area, or None where nobody published it."""
        return None

    def resized(self, *, macs_per_s: float | None = None, bandwidth: float | None = None) -> Self:
        """As close a configuration as the fields allow, of that peak or that bandwidth.

        Raises
        ------
        InputError
            If no field of this machine sets it.
        """
        what = "peak" if macs_per_s is not None else "bandwidth"
        raise InputError(f"{self.name} has no field that sets its {what}")

    def program_from_counts_file(self, path: str | os.PathLike[str]) -> Program:
        """A program of which only the timing is known, from a file of counted work."""
        raise InputError(f"{self.name} runs layers; it reads no file of counts")

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
        return self.program.account.traffic()


def program(
    machine: Machine,
    work: LayerTensors | EncodedLayer,
    recipe: Recipe | str | None = None,
    *,
    requantize: bool = False,
) -> Program:
    """Lower a layer: the recipe first, then storage in the machine's formats, then the machine.

    Parameters
    ----------
    work
        A layer with its tensors, or one that a recipe has encoded already.
    recipe
        For tensors; by default the codes that their file brought, else the machine's own.
    requantize
        Round again by the machine's own recipe what it does not compute.

    Raises
    ------
    InputError
        If the machine does not run such layers, or does not compute the recipe's formats.
    """
    layer = work
    if isinstance(layer, LayerTensors):
        refuse(machine, layer.layer)
        own = machine.recipe_for(layer.layer)
        asked = recipe if layer.brought else recipe or own
        layer = once("encoded", (asked, own), (work,), partial(encode, layer, asked, own=own))
    refuse(machine, layer.layer)
    computes, own = machine.computes(layer), machine.recipe_for(layer.layer)
    taken = once(
        "taken",
        (machine.name, computes, own, requantize),
        (layer,),
        partial(take, machine.name, layer, computes, own, requantize=requantize),
    )
    lowered = machine.lower(taken.layer)
    if not isinstance(lowered, Program):
        raise InputError(f"{machine.name} must lower a layer to a Program, got {lowered!r:.60}")
    told = [
        f"{role}: {each.format} {each.how} in {each.stored_as}"
        for role, each in taken.operands.items()
        if each.how != "as it is"
    ]
    return replace(
        lowered,
        notes=[*taken.layer.notes, *told, *lowered.notes],
        recipe=layer.recipe,
        operands=taken.operands,
        float_output=None if layer.is_outline else layer.float_output,
    )


def refuse(machine: Machine, layer: Layer) -> None:
    """Raise InputError if the machine does not run such a layer."""
    why = machine.refusal(layer)
    if why:
        raise InputError(f"layer {layer.name!r} does not run on {machine.name}: {why}")


def run(
    machine: Machine,
    work: LayerTensors | EncodedLayer | Program,
    *,
    recipe: Recipe | str | None = None,
    requantize: bool = False,
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
        A layer with its tensors, encoded or not, or a program of this machine.
    recipe, requantize
        As for :func:`program`.
    engine, record
        As for :func:`sparqsim.simulator.engines.simulate`; ``"summary"`` does not look for the
        critical path. ``"path"`` does, in constant memory; ``"either"`` as is quicker, with all
        firings kept or not; ``"sketch"`` sketches the run besides (of one of more firings than
        :data:`MOST_KEPT`, or :data:`MOST_REPEATING`, the topology alone).
    verify
        Compare the outputs with an independent reference, and with the float layer.
    execute
        Let every firing run its arithmetic (SimPy engine).
    seed
        Of the tensors, for the record.

    Raises
    ------
    InputError
        As :func:`program`; or if ``execute`` is asked of firings that carry no arithmetic.
    """
    if not isinstance(work, Program):
        work = program(machine, work, recipe, requantize=requantize)
    if execute and work.executed is None:
        raise InputError(
            f"the firings of {machine.name} carry no arithmetic for {work.layer!r}; "
            "leave out execute (outputs are verified all the same)"
        )
    kept = record
    if record in MOST_KEPT:
        kept = "full" if _is_kept(work.netlist, MOST_KEPT[record]) else "summary"
    timeline = simulate(
        work.netlist, engine=engine, record=kept, verify="execute" if execute else None
    )
    checked, noise = Verification(status="skipped"), None
    if verify and work.verify is not None:
        # Runs that share outputs share what is to be said of them.
        judge = partial(_judged, work, work.verify)
        checked, noise = once("verified", (), (work.outputs,), judge)
    if execute and work.executed is not None and not work.executed():
        checked = msgspec.structs.replace(checked, status="mismatch")
    cycles = timeline.cycles
    utilization = utilization_of(timeline)
    available = cycles * work.multipliers
    utilization["multipliers"] = work.macs.effectual / available if available else 0.0
    memory = work.account.memory(work.netlist, timeline.seconds)
    energy = [*work.energy(timeline), *work.account.energy(work.netlist)]
    report = Report(
        machine=machine.name,
        layer=work.layer,
        recipe=work.recipe,
        operands=dict(work.operands),
        output_sqnr_db=noise,
        cycles=cycles,
        seconds=timeline.seconds,
        macs=work.macs,
        utilization=utilization,
        load_balance=balance_of(timeline, work.worker),
        stalls=stalls_of(timeline),
        bound_by=bound_of(timeline, work.worker),
        critical_path=[] if record == "summary" else path_of(timeline),
        counters=work.counters(timeline) | work.account.counters(work.netlist),
        memory=memory,
        energy=Energy.of(energy, timeline.seconds),
        verification=checked,
        provenance=provenance_of(machine, seed, engine, work.inputs),
        notes=[*_overflows(memory), *work.notes],
        roof=Roof(
            macs_per_s=work.multipliers * work.netlist.clock_hz, bytes_per_s=machine.bandwidth()
        ),
        sketch=sketch_of(timeline, work.worker) if record == "sketch" else None,
    )
    return Result(report, timeline, work)


def _is_kept(netlist: Netlist, most: int) -> bool:
    """Whether every firing is kept, where at most so many are."""
    from sparqsim.simulator.engines.repeating import pays

    firings = netlist.lane_firings
    return firings <= most and (firings <= MOST_REPEATING or not pays(netlist))


def _judged(work: Program, verify: Callable[[], Verification]) -> tuple[Verification, float | None]:
    """Whether the outputs are right, and how near to the float layer's."""
    return verify(), _noise(work)


def _noise(work: Program) -> float | None:
    """SQNR of the outputs against the float layer; None where nothing differs (or is known)."""
    found = work.values()
    if found is None or work.float_output is None:
        return None
    ratio = sqnr_db(work.float_output(), found)
    return ratio if np.isfinite(ratio) else None


def _overflows(memory: Mapping[str, Memory]) -> list[str]:
    """What does not fit its memory, for the top of the report."""
    return [
        f"{name}{TOO_SMALL}: {use.used_bits:,} bits are kept in {use.capacity_bits:,}; "
        "time and energy are those of a memory that holds them"
        for name, use in memory.items()
        if use.capacity_bits and not use.fits
    ]
