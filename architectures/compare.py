"""The same work on several machines, made comparable.

What is made equal is made equal to the first machine: peak multiply-accumulates a second, DRAM
bandwidth, or area. Areas are brought to the first machine's technology by the square of the node,
and a machine is resized by its multipliers, in proportion; its buffers follow only where the
machine's fields say so. Ratios are over the layers that run on every machine, so that none gains by
refusing one. Energies rest on each machine's own tables: a note says on which.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import msgspec

from sparqsim.architectures.machine import Area, Machine
from sparqsim.architectures.network import run_network
from sparqsim.architectures.tasks import Progress
from sparqsim.base import InputError
from sparqsim.simulator.comparison import (
    Compared,
    ComparedNetwork,
    ComparisonReport,
    Contender,
    mean_ratios,
    ratios_of,
)
from sparqsim.simulator.report import Beside, NetworkReport, totals_of
from sparqsim.workloads.recipes import Recipe
from sparqsim.workloads.work import Network

Equal = Literal["macs", "bandwidth", "area", "none"]
CLOSE = 0.01  # a difference from what was to be equal that is told


@dataclass(frozen=True)
class Chosen:
    """A machine of a comparison: its label, and its configuration before and after equalising."""

    label: str
    given: Machine
    machine: Machine
    area: Area | None


def compare(
    networks: Sequence[Network],
    machines: Mapping[str, Machine],
    *,
    recipes: Mapping[str, Recipe | str] | None = None,
    equal: Equal = "none",
    progress: Progress | None = None,
    **options: Any,
) -> ComparisonReport:
    """Run networks on machines.

    Parameters
    ----------
    networks
        At least one.
    machines
        Configurations by label; the first is what the others are made equal to and measured by.
    recipes
        By label; a machine that is not there runs its own.
    equal
        ``macs`` (a second, at peak), ``bandwidth`` (of DRAM), ``area`` or ``none``.
    options
        As for :func:`~sparqsim.architectures.network.run_network`.

    Raises
    ------
    InputError
        If a machine cannot be made equal, or no machine runs a layer of a network.
    """
    if not machines or not networks:
        raise InputError("a comparison needs at least one machine and one piece of work")
    chosen = equalized(machines, equal)
    found = []
    for network in networks:
        reports = {
            each.label: run_network(
                each.machine,
                network,
                recipe=(recipes or {}).get(each.label),
                progress=_said(progress, f"{network.name} on {each.label}"),
                **options,
            )
            for each in chosen
        }
        found.append(_compared(network, reports))
    labels = [each.label for each in chosen]
    means = []
    if len(found) > 1:
        for place, label in enumerate(labels):
            means.append(mean_ratios(label, [each.machines[place].ratios for each in found]))
    return ComparisonReport(
        equal=equal,
        contenders=[_contender(each, chosen[0]) for each in chosen],
        networks=found,
        means=means,
        notes=_notes(chosen, equal, found),
    )


def joined(reports: Sequence[ComparisonReport]) -> ComparisonReport:
    """Comparisons of the same machines over different networks as one, with its means.

    Raises
    ------
    InputError
        If the machines or their configurations are not the same.
    """
    first, *others = reports
    for each in others:
        if each.contenders != first.contenders or each.equal != first.equal:
            raise InputError("comparisons can be joined only of the same machines made alike equal")
    networks = [network for report in reports for network in report.networks]
    means = [
        mean_ratios(each.label, [network.machines[place].ratios for network in networks])
        for place, each in enumerate(first.contenders)
    ]
    notes = list(dict.fromkeys(note for report in reports for note in report.notes))
    return ComparisonReport(
        equal=first.equal,
        contenders=first.contenders,
        networks=networks,
        means=means if len(networks) > 1 else [],
        notes=notes,
    )


def _said(progress: Progress | None, what: str) -> Progress | None:
    if progress is None:
        return None

    def tell(layer: str, done: int, total: int) -> None:
        progress(f"{what}: {layer}", done, total)

    return tell


# ------------------------------------------------------------------ made equal


def equalized(machines: Mapping[str, Machine], equal: Equal) -> list[Chosen]:
    """The machines with what is to be equal made equal to the first one's.

    Raises
    ------
    InputError
        If a machine does not know what is to be equal, or has no field that sets it.
    """
    if equal not in get_args(Equal):
        raise InputError(f"equal must be {', '.join(get_args(Equal))}, got {equal!r}")
    (label, first), *others = machines.items()
    found = [Chosen(label, first, first, first.area())]
    for name, machine in others:
        resized, area = machine, machine.area()
        if equal == "macs":
            resized = machine.resized(macs_per_s=_peak(first, equal))
        elif equal == "bandwidth":
            resized = machine.resized(bandwidth=_bandwidth(first, machine))
        elif equal == "area":
            mine = _area(first)
            share = mine.mm2 / _area(machine).at(mine.node_nm)
            resized = machine.resized(macs_per_s=_peak(machine, equal) * share)
        if resized != machine:
            area = resized.area() or _in_proportion(machine, resized)
        found.append(Chosen(name, machine, resized, area))
    return found


def _peak(machine: Machine, equal: str) -> float:
    peak = machine.peak()
    if peak is None:
        raise InputError(f"{equal} cannot be made equal: the peak of {machine.name} is not known")
    return peak.macs_per_s


def _bandwidth(first: Machine, machine: Machine) -> float:
    for each in (first, machine):
        if each.bandwidth() is None:
            raise InputError(f"bandwidth cannot be made equal: no DRAM of {each.name} is modelled")
    return first.bandwidth() or 0.0


def _area(machine: Machine) -> Area:
    area = machine.area()
    if area is None:
        raise InputError(f"area cannot be made equal: that of {machine.name} is not known")
    return area


def _in_proportion(given: Machine, resized: Machine) -> Area | None:
    """The area of a resized machine where only the given one's is known."""
    from sparqsim.simulator.energy.tables import Basis

    area, before, after = given.area(), given.peak(), resized.peak()
    if area is None or before is None or after is None:
        return None
    share = after.macs_per_s / before.macs_per_s
    return Area(
        mm2=area.mm2 * share,
        node_nm=area.node_nm,
        basis=Basis.ASSUMED,
        source=f"in proportion to the multipliers: {area.mm2:.4g} mm2 x {share:.4g}",
    )


def _contender(each: Chosen, first: Chosen) -> Contender:
    before = msgspec.to_builtins(each.given)
    after: dict[str, Any] = msgspec.to_builtins(each.machine)
    peak, area = each.machine.peak(), each.area
    node = first.area.node_nm if first.area is not None else None
    return Contender(
        label=each.label,
        machine=each.machine.name,
        configuration=after,
        changed=[name for name, value in after.items() if value != before[name]],
        peak_macs_per_s=peak.macs_per_s if peak else None,
        peak_operands=peak.operands if peak else "",
        bandwidth_bytes_per_s=each.machine.bandwidth(),
        area_mm2=area.mm2 if area else None,
        area_node_nm=area.node_nm if area else None,
        area_basis=area.basis.value if area else "",
        area_source=area.source if area else "",
        area_at_first_mm2=area.at(node) if area and node else None,
    )


# ------------------------------------------------------------------ side by side


def _compared(network: Network, reports: Mapping[str, NetworkReport]) -> ComparedNetwork:
    ran = [{row.name for row in report.runs} for report in reports.values()]
    if not set().union(*ran):
        labels = ", ".join(reports)
        raise InputError(f"no layer of {network.name} runs on {labels}")
    shared = [layer.name for layer in network.layers if all(layer.name in each for each in ran)]
    totals = {}
    for label, report in reports.items():
        totals[label] = report.totals
        if len(shared) < len(report.runs):
            rows = [row for row in report.runs if row.name in shared]
            totals[label] = totals_of(rows, None, 0.0)
    first = next(iter(totals.values()))
    return ComparedNetwork(
        network=network.name,
        shared_layers=shared,
        machines=[
            Compared(
                label=label,
                shared=totals[label],
                ratios=ratios_of(totals[label], first),
                report=report,
            )
            for label, report in reports.items()
        ],
    )


def _notes(chosen: Sequence[Chosen], equal: Equal, found: Sequence[ComparedNetwork]) -> list[str]:
    first = chosen[0]
    notes = []
    if equal == "none":
        notes.append("nothing was made equal: the machines are as they are configured")
    for each in chosen[1:]:
        notes += _missed(first, each, equal)
    if equal == "area":
        notes.append(
            "areas of other technologies are scaled by the square of the node, and machines are "
            "resized by their multipliers in proportion to area: derived, not laid out"
        )
    widths = dict.fromkeys(peak.operands for each in chosen if (peak := each.machine.peak()))
    if equal == "macs" and len(widths) > 1:
        notes.append(f"peaks are of different operands: {', '.join(widths)}")
    for network in found:
        whole = {row.name for row in network.machines[0].report.rows if not isinstance(row, Beside)}
        left = len(whole) - len(network.shared_layers)
        if left:
            notes.append(
                f"{network.network}: {left} of {len(whole)} layers do not run on every machine; "
                "ratios are over the others"
            )
    notes += _energies(found)
    return notes


def _missed(first: Chosen, each: Chosen, equal: Equal) -> list[str]:
    """How far a machine is from what was to be equal."""
    wanted: float | None = None
    got: float | None = None
    if equal == "macs":
        wanted, got = _peak(first.machine, equal), _peak(each.machine, equal)
    elif equal == "bandwidth":
        wanted, got = first.machine.bandwidth(), each.machine.bandwidth()
    elif equal == "area" and first.area is not None and each.area is not None:
        wanted, got = first.area.mm2, each.area.at(first.area.node_nm)
    if not wanted or got is None or abs(got / wanted - 1) <= CLOSE:
        return []
    return [
        f"{each.label} comes as close to the {equal} of {first.label} as its fields allow: "
        f"{got / wanted:.3g} times"
    ]


def _energies(found: Sequence[ComparedNetwork]) -> list[str]:
    """On what the machines' energies rest, unless it is the same for all."""
    told: dict[str, str] = {}
    for network in found:
        for each in network.machines:
            parts = [part for part in each.report.totals.energy.parts if part.energy_pj]
            bases = ", ".join(sorted({part.basis.value for part in parts}))
            nodes = sorted(
                {node for part in parts for node in re.findall(r"([\d.]+) nm", part.source)}
            )
            told[each.label] = f"{bases or 'nothing'} ({', '.join(nodes) or 'no'} nm)"
    if len(told) < 2:
        return []
    if len(set(told.values())) == 1:
        return [f"energies are {next(iter(told.values()))} on all machines"]
    listed = "; ".join(f"{label}: {what}" for label, what in told.items())
    return [f"energies differ in what they rest on, and their ratios mix it: {listed}"]
