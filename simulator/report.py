"""The result of a run: one frozen record, nested like the machine, ready for JSON.

Units are in the names: ``_cycles``, ``_pj``, ``_bits``. Every number that is not counted stands
beside its source and its basis (published, derived or assumed).
"""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any

import msgspec

from sparqsim.base import InputError
from sparqsim.simulator.critical_path import COMPUTING, FULL_QUEUE, PathShare, shares_of
from sparqsim.simulator.energy.tables import Basis
from sparqsim.simulator.sketch import Sketch
from sparqsim.simulator.timeline import Timeline

TOO_SMALL = " is too small"  # in the note of a memory that would have to hold more than it can


class Macs(msgspec.Struct, frozen=True, kw_only=True):
    """Multiply-accumulates: of the dense layer; done on two non-zero operands; spent on padding."""

    dense: int
    effectual: int
    padding: int = 0


class Balance(msgspec.Struct, frozen=True, kw_only=True):
    """Spread of the work over the lanes of the actor that does it.

    ``mean_field_cycles`` is total work over lanes, the time an analytical tool would give;
    ``efficiency`` is that over the run's cycles.
    """

    actor: str
    lanes: int
    work_cycles: list[int]
    mean_field_cycles: float
    busiest_cycles: int
    busiest_over_mean: float
    efficiency: float


class Stalls(msgspec.Struct, frozen=True, kw_only=True):
    """Where the lane-cycles of an actor went; the five kinds sum to lanes times cycles."""

    lanes: int
    busy: int
    starved: int
    blocked: int
    waiting: int
    finished: int


class PathStep(msgspec.Struct, frozen=True, kw_only=True):
    """Cycles of the critical path in one place, and their share of the run.

    ``lane`` is the lane that has most of them, ``lane_cycles`` (``pe[17]``: that computes, or whose
    queue is full); empty where the place has one lane, or is a resource.
    """

    kind: str
    where: str
    cycles: int
    share: float
    lane: str = ""
    lane_cycles: int = 0


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """Use of one memory (all its instances): size, traffic and mean bandwidth."""

    capacity_bits: int
    used_bits: int
    fits: bool
    read_bits: int
    written_bits: int
    read_gbytes_per_s: float
    written_gbytes_per_s: float
    source: str


class Roof(msgspec.Struct, frozen=True, kw_only=True):
    """What bounds a layer: multiply-accumulates a second if every multiplier worked in every cycle,
    at the width of its operands, and bytes a second of DRAM (None: none is modelled)."""

    macs_per_s: float
    bytes_per_s: float | None


class EnergyPart(msgspec.Struct, frozen=True, kw_only=True):
    """Energy of one part, and where its constant comes from.

    It is None where it is not known; then ``source`` says why.
    """

    part: str
    energy_pj: float | None
    basis: Basis
    source: str


class Energy(msgspec.Struct, frozen=True, kw_only=True):
    """Energy by part; the parts sum to the total, which is None unless all of them are known."""

    total_pj: float | None
    average_power_w: float | None
    parts: list[EnergyPart]

    @classmethod
    def of(cls, parts: Sequence[EnergyPart], seconds: float) -> Energy:
        """Sum the parts."""
        known = [part.energy_pj for part in parts if part.energy_pj is not None]
        if len(known) < len(parts):
            return cls(total_pj=None, average_power_w=None, parts=list(parts))
        power = sum(known) * 1e-12 / seconds if seconds else 0.0
        return cls(total_pj=sum(known), average_power_w=power, parts=list(parts))

    @property
    def known_pj(self) -> float:
        """The total.

        Raises
        ------
        InputError
            If a part of it is not known.
        """
        if self.total_pj is None:
            raise InputError(f"the energy is not known: {'; '.join(self.missing)}")
        return self.total_pj

    @property
    def missing(self) -> list[str]:
        """The parts that are not known, and why."""
        return [f"{part.part}: {part.source}" for part in self.parts if part.energy_pj is None]


class Verification(msgspec.Struct, frozen=True, kw_only=True):
    """Whether the machine's outputs equal an independent reference, bit by bit.

    ``status`` is "exact", "mismatch" or "skipped".
    """

    status: str
    outputs: int = 0
    mismatches: int = 0
    against: str = ""


class Operand(msgspec.Struct, frozen=True, kw_only=True):
    """How a machine stores an operand.

    Attributes
    ----------
    format, stored_as
        As the recipe made it; what the machine holds it in.
    bits
        Of a stored value.
    how
        ``as it is``, ``held exactly`` or ``rounded again``.
    granularity
        Values that share a scale: ``tensor`` or ``channel``.
    """

    format: str
    stored_as: str
    bits: int
    how: str
    granularity: str


class Provenance(msgspec.Struct, frozen=True, kw_only=True):
    """What is needed to run it again."""

    configuration: dict[str, Any]
    configuration_hash: str
    seed: int | None
    engine: str
    inputs: str
    versions: dict[str, str]


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """All that a run says; written by ``--json``, read by tables, figures and pages.

    ``recipe`` names what made the operands, which ``operands`` tells by role ("weights",
    "activations"). ``output_sqnr_db`` is signal to noise of the machine's outputs against the float
    layer before the recipe: verified outputs are exact, not accurate. It is None where nothing was
    computed or nothing differs. ``bound_by`` names what the time depends on: see :func:`bound_of`.
    ``roof`` is None in reports from before it was there. ``sketch`` is what the run looked like;
    None unless it was asked for.
    """

    machine: str
    layer: str
    recipe: str
    operands: dict[str, Operand]
    output_sqnr_db: float | None
    cycles: int
    seconds: float
    macs: Macs
    utilization: dict[str, float]
    load_balance: Balance
    stalls: dict[str, Stalls]
    bound_by: str
    critical_path: list[PathStep]
    counters: dict[str, int]
    memory: dict[str, Memory]
    energy: Energy
    verification: Verification
    provenance: Provenance
    notes: list[str] = []
    roof: Roof | None = None
    sketch: Sketch | None = None

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        from sparqsim.simulator.pages.notebook import of_report

        return of_report(self)

    def pandas(self) -> Any:
        """A pandas frame of one row; needs pandas."""
        from sparqsim.simulator.frames import frame, row_of

        return frame([row_of(self)])


def balance_of(timeline: Timeline, actor: str) -> Balance:
    """Load balance of one actor of a run."""
    spread = timeline.load_balance(actor)
    return Balance(
        actor=actor,
        lanes=len(spread.work_cycles),
        work_cycles=list(spread.work_cycles),
        mean_field_cycles=spread.mean_field_cycles,
        busiest_cycles=max(spread.work_cycles),
        busiest_over_mean=spread.busiest_over_mean,
        efficiency=spread.efficiency,
    )


def stalls_of(timeline: Timeline) -> dict[str, Stalls]:
    """Where the lane-cycles of every actor went."""
    return {
        actor.name: Stalls(lanes=actor.lanes, **timeline.lane_times(actor.name).totals())
        for actor in timeline.netlist.actors
    }


def path_of(timeline: Timeline) -> list[PathStep]:
    """The critical path by place, the longest first; empty where it is not known.

    Of a run that kept sums alone the engine goes through parts once more; see
    :func:`sparqsim.simulator.critical_path.shares_of`.
    """
    path, netlist = shares_of(timeline), timeline.netlist
    if path is None:
        return []
    most: dict[tuple[str, str], PathShare] = {}
    for each in path.shares(by_lane=True):
        most.setdefault((each.kind, each.where), each)  # the largest comes first
    steps = []
    for share in path.shares():
        busiest, actor = most[share.kind, share.where], ""
        if share.kind == COMPUTING:
            actor = share.where
        elif share.kind == FULL_QUEUE:
            actor = netlist.channel(share.where).target
        told = bool(actor) and netlist.actor(actor).lanes > 1
        steps.append(
            PathStep(
                kind=share.kind,
                where=share.where,
                cycles=share.cycles,
                share=share.cycles / timeline.cycles,
                lane=f"{actor}[{busiest.lane}]" if told else "",
                lane_cycles=busiest.cycles if told else 0,
            )
        )
    return steps


def bound_of(timeline: Timeline, worker: str) -> str:
    """What the length of a run depends on: the part that is busy the longest.

    It is a resource by its name (``dram``), an actor's part of the machine, ``compute`` for the
    actor ``worker`` that multiplies, ``load imbalance`` where more than half of its busiest lane's
    time is more than its mean lane has, or ``latency`` where no part is busy half of the time.
    """
    netlist, cycles = timeline.netlist, timeline.cycles
    busy = {actor.name: timeline.lane_times(actor.name).busy for actor in netlist.actors}
    times: dict[str, float] = {}
    stems = [resource.name.rstrip("0123456789") for resource in netlist.resources]
    for resource, stem in zip(netlist.resources, stems, strict=True):
        users = (actor.name for actor in netlist.actors if actor.resource == resource.name)
        channels = stems.count(stem)  # dram0, dram1, ... are one
        name = stem if channels > 1 else resource.name
        held = sum(int(busy[user].sum()) for user in users) / (resource.servers * channels)
        times[name] = times.get(name, 0.0) + held
    lanes = busy[worker]
    kind = "compute" if 2 * lanes.mean() >= lanes.max() else "load imbalance"
    for actor in netlist.actors:
        part = kind if actor.name == worker else actor.part
        times[part] = max(times.get(part, 0), busy[actor.name].max())
    longest = max(times, key=times.__getitem__)
    return longest if 2 * times[longest] >= cycles else "latency"


def utilization_of(timeline: Timeline) -> dict[str, float]:
    """Busy fraction of every actor."""
    return {actor.name: timeline.utilization(actor.name) for actor in timeline.netlist.actors}


def memory_use(
    *,
    capacity_bits: int,
    used_bits: int,
    read_bits: int,
    written_bits: int,
    seconds: float,
    source: str,
) -> Memory:
    """A memory's record with its mean bandwidths worked out."""
    per_second = 1 / (8e9 * seconds) if seconds else 0.0
    return Memory(
        capacity_bits=capacity_bits,
        used_bits=used_bits,
        fits=used_bits <= capacity_bits,
        read_bits=read_bits,
        written_bits=written_bits,
        read_gbytes_per_s=read_bits * per_second,
        written_gbytes_per_s=written_bits * per_second,
        source=source,
    )


@cache
def _versions() -> dict[str, str]:
    """Of Python and the packages that compute; read once, for it takes milliseconds."""
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": platform.python_version()}
    for package in ("sparqsim", "numpy", "numba", "simpy"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def provenance_of(
    configuration: msgspec.Struct, seed: int | None, engine: str, inputs: str
) -> Provenance:
    """Configuration with its hash, seed, engine and the versions of what ran."""
    import hashlib

    values: Mapping[str, Any] = msgspec.to_builtins(configuration)
    encoded = msgspec.json.encode([type(configuration).__name__, values], order="deterministic")
    return Provenance(
        configuration=dict(values),
        configuration_hash=hashlib.sha256(encoded).hexdigest()[:16],
        seed=seed,
        engine=engine,
        inputs=inputs,
        versions=dict(_versions()),
    )


class Refused(msgspec.Struct, frozen=True, kw_only=True, tag="refused", tag_field="row"):
    """A layer that the machine does not run, and why; ``macs`` are those of one such layer."""

    name: str
    kind: str
    repeat: int
    macs: int
    why: str


class LayerRun(msgspec.Struct, frozen=True, kw_only=True, tag="run", tag_field="row"):
    """A layer that ran; the network has ``repeat`` of them, each with this report.

    ``macs`` are the dense ones of one such layer. ``same_as`` names the earlier layer of equal
    shape, formats and numbers that was simulated in its place; empty where it was itself.
    """

    name: str
    kind: str
    repeat: int
    macs: int
    same_as: str
    report: Report


class Beside(msgspec.Struct, frozen=True, kw_only=True, tag="beside", tag_field="row"):
    """Work without multiply-accumulates.

    ``elements`` are those of one time of ``repeat``. Where the machine has a unit for it, ``unit``
    names it and ``cycles`` is its time; else they are empty and None, and nothing is charged.
    """

    name: str
    kind: str
    operation: str
    repeat: int
    elements: int
    unit: str = ""
    cycles: int | None = None


Row = LayerRun | Refused | Beside


class Totals(msgspec.Struct, frozen=True, kw_only=True):
    """Sums over what ran, repeats included.

    Attributes
    ----------
    cycles, seconds
        Of the layers, one after the other, and of timed work beside them; of the whole network
        where the machine runs it as one program.
    energy
        Of the layers that ran (or the one program).
    edp_js
        Energy times time, in joule seconds; None where the energy is not known.
    dram_read_bits, dram_written_bits
        None where the machine has no DRAM.
    macs, macs_of_network
        Dense multiply-accumulates that ran, and those of the network.
    effectual_macs
        Those of the former whose operands are both not zero.
    utilization
        Share of the multiplications which could have started that were effectual: over the time.
    layers, layers_of_network
        That ran, and those of the network.
    """

    cycles: int
    seconds: float
    energy: Energy
    edp_js: float | None
    dram_read_bits: int | None
    dram_written_bits: int | None
    macs: int
    macs_of_network: int
    effectual_macs: int
    utilization: float
    layers: int
    layers_of_network: int


class Accuracy(msgspec.Struct, frozen=True, kw_only=True):
    """Measures of the network by name, in float32 and with the codes that ran."""

    recipe: str
    float32: dict[str, float]
    compressed: dict[str, float]
    note: str


class NetworkReport(msgspec.Struct, frozen=True, kw_only=True):
    """All that a run of a network says, its rows in the order of the network.

    Attributes
    ----------
    machine, network, source
        Names, and who published the shapes or trained the weights.
    recipe
        What made the operands.
    rows
        Layers that ran, layers that were refused, and work beside them.
    totals
        Sums over the rows.
    whole
        The network as one program, where the machine runs it so; its totals count then.
    accuracy
        None where the network cannot be judged.
    """

    machine: str
    network: str
    source: str
    recipe: str
    rows: list[Row]
    totals: Totals
    provenance: Provenance
    whole: Report | None = None
    accuracy: Accuracy | None = None
    notes: list[str] = []

    @property
    def runs(self) -> list[LayerRun]:
        """The layers that ran."""
        return [row for row in self.rows if isinstance(row, LayerRun)]

    @property
    def refused(self) -> list[Refused]:
        """The layers that did not."""
        return [row for row in self.rows if isinstance(row, Refused)]

    @property
    def beside(self) -> list[Beside]:
        """Work without multiply-accumulates."""
        return [row for row in self.rows if isinstance(row, Beside)]

    @property
    def status(self) -> str:
        """Of all layers that ran: "mismatch" if one is, else "exact" if all are, else "skipped"."""
        return joint_status(row.report.verification.status for row in self.runs)

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        from sparqsim.simulator.pages.notebook import of_network

        return of_network(self)

    def pandas(self) -> Any:
        """A pandas frame with one row per layer; needs pandas."""
        from sparqsim.simulator.frames import frame, rows_of

        return frame(rows_of(self))


def ideal_steps(report: Report) -> list[tuple[str, float]]:
    """From an ideal machine to the simulated one: what would hold, and the cycles if it did."""
    balance = report.load_balance
    spread = f"work were spread evenly over {balance.lanes} lanes of {balance.actor} (mean field)"
    return [
        (
            "every multiplier did useful work in every cycle",
            report.utilization["multipliers"] * report.cycles,
        ),
        (spread, balance.mean_field_cycles),
        ("only the busiest lane counted", float(balance.busiest_cycles)),
        ("as simulated", float(report.cycles)),
    ]


def joint_status(each: Iterable[str]) -> str:
    """Of several runs: "mismatch" if one is, else "exact" if all are, else "skipped"."""
    found = set(each)
    if "mismatch" in found:
        return "mismatch"
    return "exact" if found == {"exact"} else "skipped"


def totals_of(rows: Sequence[Row], whole: Report | None, beside_s: float) -> Totals:
    """Sums of the rows; time, energy and traffic are those of ``whole`` where there is one.

    Parameters
    ----------
    beside_s
        Seconds of one timed cycle of work beside the layers: the machine's clock.
    """
    runs = [row for row in rows if isinstance(row, LayerRun)]
    counted = [(whole, 1)] if whole is not None else [(row.report, row.repeat) for row in runs]
    beside = sum((row.cycles or 0) * row.repeat for row in rows if isinstance(row, Beside))
    cycles = sum(report.cycles * times for report, times in counted)
    seconds = sum(report.seconds * times for report, times in counted) + beside * beside_s
    energy = summed_energy(counted, seconds)
    drams = [(report.memory["dram"], times) for report, times in counted if "dram" in report.memory]
    used = sum(report.utilization["multipliers"] * report.cycles * n for report, n in counted)
    refused = [row for row in rows if isinstance(row, Refused)]
    macs = sum(row.macs * row.repeat for row in runs)
    layers = sum(row.repeat for row in runs)
    return Totals(
        cycles=cycles + beside,
        seconds=seconds,
        energy=energy,
        edp_js=None if energy.total_pj is None else energy.total_pj * 1e-12 * seconds,
        dram_read_bits=sum(each.read_bits * n for each, n in drams) if drams else None,
        dram_written_bits=sum(each.written_bits * n for each, n in drams) if drams else None,
        macs=macs,
        macs_of_network=macs + sum(row.macs * row.repeat for row in refused),
        effectual_macs=sum(row.report.macs.effectual * row.repeat for row in runs),
        utilization=used / cycles if cycles else 0.0,
        layers=layers,
        layers_of_network=layers + sum(row.repeat for row in refused),
    )


def summed_energy(counted: Sequence[tuple[Report, int]], seconds: float) -> Energy:
    """Energy of several reports, each so many times, by part, basis and source."""
    sums: dict[tuple[str, Basis, str], float | None] = {}
    for report, times in counted:
        for part in report.energy.parts:
            key = (part.part, part.basis, part.source)
            before, more = sums.get(key, 0.0), part.energy_pj
            sums[key] = None if before is None or more is None else before + more * times
    parts = [
        EnergyPart(part=part, energy_pj=energy, basis=basis, source=source)
        for (part, basis, source), energy in sums.items()
    ]
    return Energy.of(parts, seconds)
