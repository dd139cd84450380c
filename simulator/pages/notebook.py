"""What a notebook shows of a result: plain tables, for a page's style would not stay with them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sparqsim.simulator.pages.charts import percent, with_unit
from sparqsim.simulator.pages.html import Html, h, join
from sparqsim.simulator.pages.parts import in_words, joules, outcome
from sparqsim.simulator.report import LayerRun, NetworkReport, Report

if TYPE_CHECKING:
    from sparqsim.simulator.comparison import ComparisonReport
    from sparqsim.simulator.netlist import Netlist

MOST_ROWS = 60  # of a table
STEPS = 4  # of a critical path


def plain(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> Html:
    """A table without a style; rows beyond :data:`MOST_ROWS` are counted."""
    shown = [h("tr", *(h("td", str(cell)) for cell in row)) for row in rows[:MOST_ROWS]]
    if len(rows) > MOST_ROWS:
        rest = f"and {len(rows) - MOST_ROWS:,} more"
        shown.append(h("tr", h("td", rest, colspan=len(columns))))
    head = h("tr", *(h("th", name, scope="col") for name in columns))
    return h("table", h("thead", head), h("tbody", *shown))


def of_report(report: Report) -> str:
    """A layer: its headline and the largest steps of its critical path."""
    word, told = outcome(report)
    rows = [
        ("cycles", f"{report.cycles:,} ({with_unit(report.seconds, 's')})"),
        ("MACs", f"{report.macs.effectual:,} effectual of {report.macs.dense:,}"),
        ("multipliers busy", percent(report.utilization.get("multipliers", 0.0))),
        ("bound by", report.bound_by),
        ("energy", joules(report.energy.total_pj)),
        ("outputs", f"{word}: {told}"),
        *(("critical path", in_words(step)) for step in report.critical_path[:STEPS]),
    ]
    title = h("p", h("b", f"{report.layer} on {report.machine}"), f" · recipe {report.recipe}")
    return join([title, plain(("", ""), rows)])


def of_network(report: NetworkReport) -> str:
    """A network: totals and one row per layer."""
    totals = report.totals
    told = (
        f" · recipe {report.recipe} · {totals.cycles:,} cycles ({with_unit(totals.seconds, 's')}), "
        f"{joules(totals.energy.total_pj)}, {totals.layers} of {totals.layers_of_network} layers, "
        f"outputs {report.status}"
    )
    rows = []
    for row in report.rows:
        if isinstance(row, LayerRun):
            found = row.report
            rows.append((
                row.name, row.repeat, f"{found.cycles * row.repeat:,}",
                percent(found.utilization["multipliers"]),
                joules(found.energy.total_pj, row.repeat), found.bound_by,
            ))  # fmt: skip
    columns = ("layer", "x", "cycles", "use", "energy", "bound by")
    title = h("p", h("b", f"{report.network} on {report.machine}"), told)
    return join([title, plain(columns, rows)])


def of_comparison(report: ComparisonReport) -> str:
    """A comparison: sums and ratios of every network on every machine."""
    rows = []
    for network in report.networks:
        for each in network.machines:
            totals, ratios = each.shared, each.ratios
            energy = "–" if ratios.energy is None else f"{ratios.energy:.3g}"
            rows.append((
                network.network, each.label, with_unit(totals.seconds, "s"),
                joules(totals.energy.total_pj), percent(totals.utilization),
                "–" if ratios.seconds is None else f"{ratios.seconds:.3g}", energy,
            ))  # fmt: skip
    first = report.contenders[0].label
    columns = (
        "network", "machine", "time", "energy", "use", f"time over {first}'s",
        f"energy over {first}'s",
    )  # fmt: skip
    return join([h("p", h("b", "Comparison")), plain(columns, rows)])


def of_netlist(netlist: Netlist) -> str:
    """A netlist: its actors, channels and resources."""
    from sparqsim.simulator.frames import columns_of, rows_of_netlist

    rows = rows_of_netlist(netlist)
    columns = columns_of(rows)
    cells = [
        ["" if (value := row.get(name)) is None else value for name in columns] for row in rows
    ]
    return join([h("p", h("b", netlist.name)), plain(columns, cells)])


def of_rows(title: str, rows: Sequence[dict[str, Any]], columns: Sequence[str]) -> str:
    """Rows by name, such as the points of a store."""
    cells = [
        ["–" if (v := row.get(name)) is None else _text(v) for name in columns] for row in rows
    ]
    return join([h("p", h("b", title)), plain(columns, cells)])


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
