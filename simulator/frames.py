"""Reports and netlists as rows, for CSV files and data frames."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sparqsim.base import InputError
from sparqsim.simulator.report import LayerRun, NetworkReport, Refused, Report

if TYPE_CHECKING:
    from sparqsim.simulator.comparison import ComparisonReport
    from sparqsim.simulator.netlist import Netlist

COLUMNS = (
    "row", "name", "kind", "repeat", "same_as", "macs", "cycles", "seconds", "share",
    "utilization", "bound_by", "dram_read_bits", "dram_written_bits", "energy_pj",
    "output_sqnr_db", "verified", "recipe", "weights", "activations", "elements", "why",
)  # fmt: skip


def row_of(report: Report) -> dict[str, Any]:
    """A layer's numbers by name; a memory that is not there has None."""
    dram = report.memory.get("dram")
    measured = {
        "cycles": report.cycles,
        "seconds": report.seconds,
        "utilization": report.utilization["multipliers"],
        "bound_by": report.bound_by,
        "dram_read_bits": dram.read_bits if dram else None,
        "dram_written_bits": dram.written_bits if dram else None,
        "energy_pj": report.energy.total_pj,
        "output_sqnr_db": report.output_sqnr_db,
        "verified": report.verification.status,
        "recipe": report.recipe,
    }
    stored = {role: each.stored_as for role, each in report.operands.items()}
    named = {"machine": report.machine, "layer": report.layer, "macs": report.macs.dense}
    return named | measured | stored


def rows_of(report: NetworkReport) -> list[dict[str, Any]]:
    """A row a row of the network; all numbers are of one layer, ``repeat`` aside."""
    alone = sum(row.report.cycles * row.repeat for row in report.runs) or 1
    lines = []
    for row in report.rows:
        line: dict[str, Any] = {"name": row.name, "kind": row.kind, "repeat": row.repeat}
        if isinstance(row, LayerRun):
            measured = row_of(row.report)
            del measured["machine"], measured["layer"]
            share = row.report.cycles * row.repeat / alone
            line |= measured | {"row": "run", "same_as": row.same_as, "macs": row.macs}
            line["share"] = share
        elif isinstance(row, Refused):
            line |= {"row": "refused", "macs": row.macs, "why": row.why}
        else:
            line |= {"row": "beside", "elements": row.elements, "cycles": row.cycles}
        lines.append(line)
    return lines


def rows_of_all(report: ComparisonReport) -> list[dict[str, Any]]:
    """Likewise of every network on every machine, which two columns name first."""
    return [
        {"network": network.network, "machine": each.label, **row}
        for network in report.networks
        for each in network.machines
        for row in rows_of(each.report)
    ]


def rows_of_netlist(netlist: Netlist) -> list[dict[str, Any]]:
    """A row for every actor, channel and resource."""
    rows: list[dict[str, Any]] = [
        {"kind": "actor", "name": actor.name, "part": actor.part, "lanes": actor.lanes,
         "firings": None if actor.behaviour else actor.count, "resource": actor.resource}
        for actor in netlist.actors
    ]  # fmt: skip
    rows += [
        {"kind": "channel", "name": channel.name, "pattern": channel.pattern.value,
         "source": channel.source, "target": channel.target, "capacity": channel.capacity}
        for channel in netlist.channels
    ]  # fmt: skip
    rows += [
        {"kind": "resource", "name": resource.name, "servers": resource.servers}
        for resource in netlist.resources
    ]
    return rows


def frame(rows: Iterable[Mapping[str, Any]]) -> Any:
    """A pandas frame; raises InputError where pandas is not installed."""
    return imported("pandas").DataFrame(list(rows))


def columns_of(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names that some row has, in the order of the first."""
    return list(dict.fromkeys(name for row in rows for name in row))


def imported(package: str) -> Any:
    """A package of the extra ``tables``; raises InputError where it is not installed."""
    import importlib

    try:
        return importlib.import_module(package)
    except ImportError:
        top = package.partition(".")[0]
        raise InputError(f"this needs {top}: pip install 'sparqsim[tables]'") from None
