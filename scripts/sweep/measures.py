"""The numbers of a report by short names, the same for a layer and for a network.

========================  ========================================================================
``cycles``, ``seconds``   of the run
``energy_pj``, ``edp_js``  energy; energy times time
``macs``                  dense ones of what ran; ``effectual_macs`` of two non-zeros
``utilization``           share of the multiplications that could have started and were effectual
``dram_read_bits`` ...    and ``dram_written_bits``, where the machine has DRAM
``load_balance``          mean-field time over the run (one layer)
``bound_by``              what the time depends on (one layer)
``sqnr_db``               of the outputs against the float layer; of a network the least
``verified``              exact, mismatch or skipped
``accuracy`` ...          whatever a network is judged by, and ``float32.accuracy`` before
``layers``, ``refused``   of a network: run, and not run
``area_mm2`` ...          of the configuration: also ``peak_macs_per_s``, ``bandwidth_bytes_per_s``
========================  ========================================================================

Whatever else a report holds goes by its path in the JSON: ``counters.queue_full_cycles``,
``memory.dram.read_bits``, ``totals.energy.average_power_w``.
"""

from __future__ import annotations

import re
from typing import Any

from sparqsim.architectures.machine import Machine
from sparqsim.simulator.report import NetworkReport, Report

# What tables of points show first.
MEASURES = (
    *("cycles", "seconds", "energy_pj", "edp_js", "utilization", "load_balance", "bound_by"),
    *("sqnr_db", "accuracy", "area_mm2", "dram_read_bits", "verified"),
)
LABELS = {
    "dram_gbytes_per_s": "DRAM bandwidth (GB/s)",
    "seconds": "time (s)",
    "energy_pj": "energy (pJ)",
    "edp_js": "energy x time (Js)",
    "sqnr_db": "SQNR (dB)",
    "area_mm2": "area (mm2)",
    "dram_read_bits": "DRAM read (bits)",
    "dram_written_bits": "DRAM written (bits)",
    "peak_macs_per_s": "peak (MAC/s)",
    "bandwidth_bytes_per_s": "DRAM bandwidth (B/s)",
}


_OVER = re.compile(r"(\w+) / 1e(3|6|9|12)")
_PREFIXES = "pnum kMGT"  # of 1e-12 to 1e12, by thousands; none at 1


def named(column: str) -> str:
    """A column, or an expression over some, in words with its unit.

    Examples
    --------
    >>> named("energy_pj / 1e9"), named("machine.queue_slots"), named("cycles / macs")
    ('energy (mJ)', 'queue slots', 'cycles / macs')
    """
    column = re.sub(r"\b(machine|variables|work)\.", "", column)
    over = _OVER.fullmatch(column)
    if over and over[1] in LABELS:
        return _over(LABELS[over[1]], int(over[2]) // 3)
    return LABELS.get(column, column.replace("_", " "))


def _over(label: str, thousands: int) -> str:
    """A label with its unit so many thousands larger."""
    words, _, unit = label.rstrip(")").rpartition(" (")
    prefix, base = (unit[0], unit[1:]) if unit == "pJ" else (" ", unit)
    place = _PREFIXES.index(prefix) + thousands
    if unit in ("mm2", "dB") or place >= len(_PREFIXES):
        return f"{label} / 1e{3 * thousands}"
    return f"{words} ({_PREFIXES[place].strip()}{base})"


def measures_of(report: Report | NetworkReport, machine: Machine) -> dict[str, Any]:
    """Measures by name; what is not known is not there."""
    found = _of_network(report) if isinstance(report, NetworkReport) else _of_layer(report)
    area, peak = machine.area(), machine.peak()
    found |= {
        "area_mm2": area.mm2 if area else None,
        "peak_macs_per_s": peak.macs_per_s if peak else None,
        "bandwidth_bytes_per_s": machine.bandwidth(),
    }
    return {name: value for name, value in found.items() if value is not None}


def _of_layer(report: Report) -> dict[str, Any]:
    energy, dram = report.energy.total_pj, report.memory.get("dram")
    return {
        "layer": report.layer,
        "cycles": report.cycles,
        "seconds": report.seconds,
        "energy_pj": energy,
        "edp_js": None if energy is None else energy * 1e-12 * report.seconds,
        "macs": report.macs.dense,
        "effectual_macs": report.macs.effectual,
        "utilization": report.utilization["multipliers"],
        "load_balance": report.load_balance.efficiency,
        "bound_by": report.bound_by,
        "dram_read_bits": dram.read_bits if dram else None,
        "dram_written_bits": dram.written_bits if dram else None,
        "sqnr_db": report.output_sqnr_db,
        "verified": report.verification.status,
    }


def _of_network(report: NetworkReport) -> dict[str, Any]:
    totals = report.totals
    noises = [row.report.output_sqnr_db for row in report.runs]
    found: dict[str, Any] = {
        "cycles": totals.cycles,
        "seconds": totals.seconds,
        "energy_pj": totals.energy.total_pj,
        "edp_js": totals.edp_js,
        "macs": totals.macs,
        "effectual_macs": totals.effectual_macs,
        "utilization": totals.utilization,
        "dram_read_bits": totals.dram_read_bits,
        "dram_written_bits": totals.dram_written_bits,
        "sqnr_db": min((noise for noise in noises if noise is not None), default=None),
        "verified": report.status,
        "layers": totals.layers,
        "refused": totals.layers_of_network - totals.layers,
    }
    if report.accuracy is not None:
        for name, value in report.accuracy.compressed.items():
            found[name.replace(" ", "_")] = value
        for name, value in report.accuracy.float32.items():
            found[f"float32.{name.replace(' ', '_')}"] = value
    return found


def at_path(report: Any, path: str) -> Any:
    """What a report's JSON holds at a dotted path; None where there is nothing.

    A part that is no key may be the number of a row or its name: ``rows.conv1.report.cycles``.
    """
    for part in path.split("."):
        if isinstance(report, dict):
            report = report.get(part)
        elif isinstance(report, list):
            named = [each for each in report if isinstance(each, dict) and each.get("name") == part]
            if part.isdigit() and int(part) < len(report):
                report = report[int(part)]
            else:
                report = named[0] if named else None
        else:
            return None
    return report
