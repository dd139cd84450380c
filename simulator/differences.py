"""Two reports side by side: what changed, and why, from their critical paths.

The pieces of a critical path sum to the run, so their differences sum to the difference of the
times: what changed is told by where on the path it changed. Times are compared in seconds, for the
clocks may differ.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import msgspec

from sparqsim.base import InputError
from sparqsim.simulator.comparison import ComparisonReport
from sparqsim.simulator.report import Energy, LayerRun, NetworkReport, Report
from sparqsim.simulator.saved import AnyReport

TELLING = 0.02  # of the larger time: a smaller change of a step is not told in words
MOST_WORDS = 4  # steps that are told


class Measure(msgspec.Struct, frozen=True, kw_only=True):
    """A number in both reports, None where one has none."""

    name: str
    before: float | None
    after: float | None


class Field(msgspec.Struct, frozen=True, kw_only=True):
    """A field of the configuration, the recipe or the work that is not the same."""

    name: str
    before: Any
    after: Any


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds of the critical paths in one place."""

    kind: str
    where: str
    before_s: float
    after_s: float

    @property
    def change_s(self) -> float:
        """What the second has more; 0 where sums over layers differ by rounding alone."""
        return change_of(self.before_s, self.after_s)


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """Two runs of a layer, or of a network with its layers.

    Attributes
    ----------
    before, after
        What they are, in words.
    fields
        What was configured differently.
    measures
        Cycles, seconds, energy and the like.
    steps
        Of the critical paths, the largest change first; empty where one of them is not known.
    energy
        By part, in picojoules.
    why
        What changed most on the critical path, in words.
    layers
        Of a network: those that both run, in its order.
    only_before, only_after
        Layers that run in one of them alone.
    """

    before: str
    after: str
    fields: list[Field]
    measures: list[Measure]
    steps: list[Step]
    energy: list[Measure]
    why: str
    layers: list[Difference] = []
    only_before: list[str] = []
    only_after: list[str] = []

    @property
    def seconds(self) -> Measure:
        """The times."""
        return next(each for each in self.measures if each.name == "seconds")

    @property
    def change_s(self) -> float:
        """Seconds that the second takes more."""
        return change_of(self.seconds.before or 0.0, self.seconds.after or 0.0)


def change_of(before: float, after: float) -> float:
    """``after - before``; 0 where they are equal but for the rounding of sums."""
    return 0.0 if math.isclose(before, after, rel_tol=1e-9) else after - before


def unshared(before: AnyReport, after: AnyReport) -> tuple[list[str], list[str]]:
    """Of two comparisons, what only the first and only the second has, in words."""
    if not isinstance(before, ComparisonReport) or not isinstance(after, ComparisonReport):
        return [], []
    first, second = _by_label(before), _by_label(after)
    return (
        [" on ".join(key) for key in first if key not in second],
        [" on ".join(key) for key in second if key not in first],
    )


def differences(before: AnyReport, after: AnyReport) -> list[Difference]:
    """What changed from one report to another of the same kind.

    Two comparisons give a difference for each network on each machine that both have.

    Raises
    ------
    InputError
        If they are of different kinds, or have nothing in common.
    """
    if isinstance(before, Report) and isinstance(after, Report):
        return [of_layers(before, after)]
    if isinstance(before, NetworkReport) and isinstance(after, NetworkReport):
        return [of_networks(before, after)]
    if isinstance(before, ComparisonReport) and isinstance(after, ComparisonReport):
        first, second = _by_label(before), _by_label(after)
        shared = [key for key in first if key in second]
        if not shared:
            raise InputError("the comparisons have no network on a machine in common")
        return [of_networks(first[key], second[key]) for key in shared]
    kinds = {Report: "a layer", NetworkReport: "a network", ComparisonReport: "a comparison"}
    raise InputError(
        f"reports must be of the same kind to be compared, got {kinds[type(before)]} and "
        f"{kinds[type(after)]}"
    )


def _by_label(report: ComparisonReport) -> dict[tuple[str, str], NetworkReport]:
    return {
        (network.network, each.label): each.report
        for network in report.networks
        for each in network.machines
    }


def of_layers(before: Report, after: Report) -> Difference:
    """What changed from one run of a layer to another."""
    steps = _steps(before, after)
    return Difference(
        before=f"{before.layer} on {before.machine}",
        after=f"{after.layer} on {after.machine}",
        fields=_fields(before, after, "layer"),
        measures=_paired(_measures(before), _measures(after)),
        steps=steps,
        energy=_paired(_energies(before.energy), _energies(after.energy)),
        why=_why(before.seconds, after.seconds, steps, before.bound_by, after.bound_by),
    )


def of_networks(before: NetworkReport, after: NetworkReport) -> Difference:
    """What changed from one run of a network to another, layer by layer."""
    first, second = _runs(before), _runs(after)
    shared = [name for name in first if name in second]
    layers = [of_layers(first[name].report, second[name].report) for name in shared]
    steps: dict[tuple[str, str], list[float]] = {}
    known = all(layer.steps for layer in layers)
    for name, layer in zip(shared, layers, strict=True):
        for step in layer.steps if known else ():
            sums = steps.setdefault((step.kind, step.where), [0.0, 0.0])
            sums[0] += step.before_s * first[name].repeat
            sums[1] += step.after_s * second[name].repeat
    summed = _ordered(
        Step(kind=kind, where=where, before_s=sums[0], after_s=sums[1])
        for (kind, where), sums in steps.items()
    )
    total, later = before.totals, after.totals
    only = [name for name in first if name not in second]
    alone = [name for name in second if name not in first]
    why = _why(total.seconds, later.seconds, summed, "", "")
    for names, mine, other in ((only, "A", "B"), (alone, "B", "A")):
        if names:
            why += f"; {len(names)} of the layers that {mine} runs, {other} does not"
    return Difference(
        before=f"{before.network} on {before.machine}",
        after=f"{after.network} on {after.machine}",
        fields=_fields(before, after, "network"),
        measures=_paired(_totals(before), _totals(after)),
        steps=summed,
        energy=_paired(_energies(total.energy), _energies(later.energy)),
        why=why,
        layers=layers,
        only_before=only,
        only_after=alone,
    )


def _runs(report: NetworkReport) -> dict[str, LayerRun]:
    return {row.name: row for row in report.runs}


# ------------------------------------------------------------------ numbers


def _measures(report: Report) -> dict[str, float | None]:
    dram = report.memory.get("dram")
    return {
        "cycles": report.cycles,
        "seconds": report.seconds,
        "effectual MACs": report.macs.effectual,
        "multipliers used": report.utilization.get("multipliers"),
        "load balance": report.load_balance.efficiency,
        "energy (pJ)": report.energy.total_pj,
        "DRAM read (bits)": dram.read_bits if dram else None,
        "DRAM written (bits)": dram.written_bits if dram else None,
        "SQNR (dB)": report.output_sqnr_db,
    }


def _totals(report: NetworkReport) -> dict[str, float | None]:
    totals = report.totals
    found: dict[str, float | None] = {
        "cycles": totals.cycles,
        "seconds": totals.seconds,
        "effectual MACs": totals.effectual_macs,
        "multipliers used": totals.utilization,
        "energy (pJ)": totals.energy.total_pj,
        "energy x time (Js)": totals.edp_js,
        "DRAM read (bits)": totals.dram_read_bits,
        "DRAM written (bits)": totals.dram_written_bits,
        "layers run": totals.layers,
    }
    if report.accuracy is not None:
        found |= report.accuracy.compressed
    return found


def _energies(energy: Energy) -> dict[str, float | None]:
    sums: dict[str, float | None] = {}
    for part in energy.parts:
        so_far = sums.get(part.part, 0.0)
        mine = part.energy_pj
        sums[part.part] = None if so_far is None or mine is None else so_far + mine
    return sums


def _paired(before: Mapping[str, float | None], after: Mapping[str, float | None]) -> list[Measure]:
    names = dict.fromkeys([*before, *after])
    pairs = [(name, before.get(name), after.get(name)) for name in names]
    return [
        Measure(name=name, before=old, after=new)
        for name, old, new in pairs
        if old is not None or new is not None
    ]


def _fields(
    before: Report | NetworkReport, after: Report | NetworkReport, work: str
) -> list[Field]:
    """What was asked for differently; ``work`` is the field that names the work."""
    first, second = before.provenance, after.provenance
    pairs = [
        (name, getattr(before, name), getattr(after, name)) for name in (work, "machine", "recipe")
    ]
    pairs += [("inputs", first.inputs, second.inputs), ("seed", first.seed, second.seed)]
    for name in dict.fromkeys([*first.configuration, *second.configuration]):
        pairs.append((name, first.configuration.get(name), second.configuration.get(name)))
    for name in dict.fromkeys([*first.versions, *second.versions]):
        pairs.append((f"version of {name}", first.versions.get(name), second.versions.get(name)))
    return [Field(name=name, before=old, after=new) for name, old, new in pairs if old != new]


# ------------------------------------------------------------------ why


def _steps(before: Report, after: Report) -> list[Step]:
    """The places of both paths, the largest change first."""
    if not before.critical_path or not after.critical_path:
        return []
    spent: dict[tuple[str, str], list[float]] = {}
    for place, report in enumerate((before, after)):
        cycle = report.seconds / report.cycles if report.cycles else 0.0
        for step in report.critical_path:
            spent.setdefault((step.kind, step.where), [0.0, 0.0])[place] += step.cycles * cycle
    return _ordered(
        Step(kind=kind, where=where, before_s=times[0], after_s=times[1])
        for (kind, where), times in spent.items()
    )


def _ordered(steps: Any) -> list[Step]:
    return sorted(steps, key=lambda step: -abs(step.change_s))


def place_of(step: Step) -> str:
    """Where a step is, in words."""
    how = {"computing": "computing in", "full queue": "behind the full queue"}
    return f"{how.get(step.kind, 'waiting for the resource')} {step.where}"


def _why(before_s: float, after_s: float, steps: list[Step], bound: str, later: str) -> str:
    """What changed most, in words."""
    from sparqsim.simulator.pages.charts import with_unit

    change = change_of(before_s, after_s)
    least = TELLING * max(before_s, after_s)
    ratio = f" ({after_s / before_s:.3g} times)" if before_s else ""
    if change == 0:
        told = "takes the same time"
    else:
        more = "more" if change > 0 else "less"
        told = f"takes {with_unit(abs(change), 's')} {more}{ratio}"
    parts = [
        f"{with_unit(abs(step.change_s), 's')} {'more' if step.change_s > 0 else 'less'} "
        f"{place_of(step)}"
        for step in steps[:MOST_WORDS]
        if abs(step.change_s) >= least and step.change_s
    ]
    if parts:
        told += ": " + ", ".join(parts)
    elif not steps and change:
        told += "; a critical path is not in both reports, so the reason is not told"
    if bound != later:
        told += f"; bound by {later}, before by {bound}"
    return told
