"""The result of a run: one frozen record, nested like the machine, ready for JSON.

Units are in the names: ``_cycles``, ``_pj``, ``_bits``. Every number that is not counted stands
beside its source and its basis (published, derived or assumed).
"""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from sparqsim.simulator.energy.tables import Basis
from sparqsim.simulator.timeline import Timeline


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
    """Cycles of the critical path in one place, and their share of the run."""

    kind: str
    where: str
    cycles: int
    share: float


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


class EnergyPart(msgspec.Struct, frozen=True, kw_only=True):
    """Energy of one part, and where its constant comes from."""

    part: str
    energy_pj: float
    basis: Basis
    source: str


class Energy(msgspec.Struct, frozen=True, kw_only=True):
    """Energy by part; the parts sum to the total."""

    total_pj: float
    average_power_w: float
    parts: list[EnergyPart]

    @classmethod
    def of(cls, parts: Sequence[EnergyPart], seconds: float) -> Energy:
        """Sum the parts."""
        total = sum(part.energy_pj for part in parts)
        power = total * 1e-12 / seconds if seconds else 0.0
        return cls(total_pj=total, average_power_w=power, parts=list(parts))


class Verification(msgspec.Struct, frozen=True, kw_only=True):
    """Whether the machine's outputs equal an independent reference, bit by bit.

    ``status`` is "exact", "mismatch" or "skipped".
    """

    status: str
    outputs: int = 0
    mismatches: int = 0
    against: str = ""


class Provenance(msgspec.Struct, frozen=True, kw_only=True):
    """What is needed to run it again."""

    configuration: dict[str, Any]
    configuration_hash: str
    seed: int | None
    engine: str
    inputs: str
    versions: dict[str, str]


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """All that a run says; written by ``--json``, read by tables, figures and pages."""

    machine: str
    layer: str
    cycles: int
    seconds: float
    macs: Macs
    utilization: dict[str, float]
    load_balance: Balance
    stalls: dict[str, Stalls]
    critical_path: list[PathStep]
    counters: dict[str, int]
    memory: dict[str, Memory]
    energy: Energy
    verification: Verification
    provenance: Provenance
    notes: list[str] = []


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
    """The critical path by place, the longest first; empty where single firings were not kept."""
    if timeline.starts is None:
        return []
    return [
        PathStep(
            kind=share.kind,
            where=share.where,
            cycles=share.cycles,
            share=share.cycles / timeline.cycles,
        )
        for share in timeline.critical_path.shares()
    ]


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


def provenance_of(
    configuration: msgspec.Struct, seed: int | None, engine: str, inputs: str
) -> Provenance:
    """Configuration with its hash, seed, engine and the versions of what ran."""
    import hashlib
    from importlib.metadata import PackageNotFoundError, version

    versions = {"python": platform.python_version()}
    for package in ("sparqsim", "numpy", "numba", "simpy"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    values: Mapping[str, Any] = msgspec.to_builtins(configuration)
    encoded = msgspec.json.encode([type(configuration).__name__, values], order="deterministic")
    return Provenance(
        configuration=dict(values),
        configuration_hash=hashlib.sha256(encoded).hexdigest()[:16],
        seed=seed,
        engine=engine,
        inputs=inputs,
        versions=versions,
    )
