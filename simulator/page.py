"""A run on one page of HTML that stands alone: headline numbers, figures, tables.

Figures are inlined as SVG, the style is in the page, nothing is loaded from elsewhere and no script
runs; the file can be mailed, printed and kept. What it says is what the report says: numbers that
are derived or assumed are named so beside their source.
"""

from __future__ import annotations

import base64
import html
import io
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from sparqsim.base import printable, written_whole
from sparqsim.simulator.network_plots import network_figures
from sparqsim.simulator.plots import figures, write_figure
from sparqsim.simulator.report import Energy, LayerRun, NetworkReport, Provenance, Refused, Report
from sparqsim.simulator.timeline import Timeline
from sparqsim.simulator.traffic import Traffic

CAPTIONS = {
    "topology": "The machine as it was simulated: actors, the channels between them with the "
    "tokens each queue holds, and the resources they share.",
    "load_balance": "The work of each lane. From the mean to the busiest lane is what imbalance "
    "costs; from there to the run's length, what queues, beginning and end cost.",
    "stalls": "Where the lane-cycles of each actor went. A lane is starved if the last thing it "
    "waited for was input, blocked if it was room behind a full queue.",
    "critical_path": "The chain of causes walked back from the end of the run; its pieces sum to "
    "the run's cycles.",
    "lane_stalls": "The same account for each lane of the actor that does the work.",
    "utilization": "The busy share of all lanes of each actor, over the run.",
    "bandwidth": "What each memory reads and writes; a firing's bits move evenly while it is busy.",
    "cycles_by_layer": "Cycles of every layer that ran, repeats included, and what bounds it.",
    "energy_by_layer": "Energy of every layer that ran, repeats included, by part.",
    "queues": "Tokens held by the queues of each channel; means over short intervals.",
}
MOST_CHARACTERS = 300  # of a text from outside
PREFIXES = (
    *(("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3), ("", 1.0)),
    *(("m", 1e-3), ("µ", 1e-6), ("n", 1e-9), ("p", 1e-12)),
)
STYLE = """
:root{color-scheme:light;--ink:#222;--muted:#6b6b6b;--faint:#e4e4e4;--blue:#0072b2;--red:#b3430a}
*{box-sizing:border-box}
body{margin:0;background:#fff;color:var(--ink);font:16px/1.5 -apple-system,"Segoe UI",Roboto,
"Helvetica Neue",Arial,sans-serif}
main{max-width:1080px;margin:0 auto;padding:2.5rem 1.5rem 4rem}
h1{font-size:1.75rem;line-height:1.2;margin:0}
h2{font-size:1.15rem;margin:2.75rem 0 .75rem;padding-top:.75rem;border-top:1px solid var(--faint)}
p.sub{color:var(--muted);margin:.3rem 0 1.75rem}
dl.head{display:grid;grid-template-columns:repeat(auto-fit,minmax(10.5rem,1fr));gap:1.25rem 1.5rem;
margin:0}
dl.head div{border-left:3px solid var(--blue);padding-left:.75rem}
dl.head div.bad{border-color:var(--red)}
dt{color:var(--muted);font-size:.8rem}
dd{margin:0;font-size:1.35rem;line-height:1.3;font-variant-numeric:tabular-nums}
dd small{display:block;font-size:.78rem;color:var(--muted)}
ul.notes{padding-left:1.2rem}
figure{margin:0 0 2.25rem;overflow-x:auto}
figure img{display:block;width:100%;height:auto}
figcaption{color:var(--muted);font-size:.88rem;max-width:44rem;margin-top:.5rem}
.scroll{overflow-x:auto}
table{border-collapse:collapse;font-size:.9rem;font-variant-numeric:tabular-nums;min-width:50%}
th{text-align:left;font-weight:600;border-bottom:1.5px solid var(--ink);padding:.3rem .9rem .3rem 0}
td{border-bottom:1px solid var(--faint);padding:.3rem .9rem .3rem 0;vertical-align:top}
.n{text-align:right;white-space:nowrap}
td:first-child{overflow-wrap:anywhere;max-width:26rem}
td.s{color:var(--muted);font-size:.82rem}
tr.sum td{font-weight:600;border-top:1.5px solid var(--ink)}
@media print{main{max-width:none;padding:0}figure,table{break-inside:avoid}}
"""


def escape(text: str) -> str:
    """Text as it stands on a page, whatever is in it."""
    return html.escape(printable(text, MOST_CHARACTERS))


def write_page(
    report: Report,
    timeline: Timeline | None,
    path: str | os.PathLike[str],
    traffic: Traffic | None = None,
) -> Path:
    """Write :func:`page` to a file, whole or not at all; returns the path.

    Raises
    ------
    InputError
        If the file cannot be written.
    """
    text = page(report, timeline, traffic)
    with written_whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return Path(path)


def page(report: Report, timeline: Timeline | None = None, traffic: Traffic | None = None) -> str:
    """A run as a page of HTML.

    Parameters
    ----------
    report
        Of the run.
    timeline
        Of the same run, for the figures of single lanes and over time.
    traffic
        ``result.traffic``, for bandwidth over time.
    """
    title = f"{report.layer} on {report.machine}"
    recipe = f"recipe {report.recipe} · " if report.recipe else ""
    body = [
        f"<h1>{escape(title)}</h1>",
        _subtitle(report.provenance, recipe + report.provenance.inputs),
        _headline(report),
        _note_list(report.notes),
    ]
    body.append("<h2>Figures</h2>")
    drawn = figures(report, timeline, traffic)
    body += [_figure(name, draw(), title) for name, draw in drawn.items()]
    body += _tables(report)
    return _whole(title, body)


def write_network_page(report: NetworkReport, path: str | os.PathLike[str]) -> Path:
    """Write :func:`network_page` to a file, whole or not at all; returns the path.

    Raises
    ------
    InputError
        If the file cannot be written.
    """
    text = network_page(report)
    with written_whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return Path(path)


def network_page(report: NetworkReport) -> str:
    """A network's run as a page of HTML."""
    title = f"{report.network} on {report.machine}"
    totals = report.totals
    edp = "" if totals.edp_js is None else f"{totals.edp_js:.3g} Js"
    headline = [
        ("Cycles", f"{totals.cycles:,}", with_unit(totals.seconds, "s")),
        ("Layers run", f"{totals.layers}", f"of {totals.layers_of_network}"),
        ("MACs run", with_unit(totals.macs, ""), f"of {with_unit(totals.macs_of_network, '')}"),
        ("Multipliers busy", f"{100 * totals.utilization:.1f} %", "on effectual MACs"),
        ("Energy", _joules(totals.energy.total_pj), edp),
        ("Verification", report.status, "outputs of all layers, bit by bit"),
    ]
    body = [
        f"<h1>{escape(title)}</h1>",
        _subtitle(report.provenance, f"recipe {report.recipe} · {report.source}"),
        _facts(headline, bad="Verification" if report.status == "mismatch" else ""),
        _note_list(report.notes),
    ]
    if report.accuracy is not None:
        judged = report.accuracy
        rows = [
            (name, f"{before:.4f}", f"{judged.compressed[name]:.4f}")
            for name, before in judged.float32.items()
        ]
        body.append(_table("Accuracy", ("measure", "float32", judged.recipe), rows, (1, 2)))
    body.append("<h2>Figures</h2>")
    body += [_figure(name, figure, title) for name, figure in network_figures(report).items()]
    body += _network_tables(report)
    return _whole(title, body)


def _whole(title: str, body: Sequence[str]) -> str:
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>\n"
        f"<body><main>\n{chr(10).join(body)}\n</main></body></html>\n"
    )


def _subtitle(made: Provenance, what: str) -> str:
    return (
        f'<p class="sub">Sparqsim {escape(made.versions.get("sparqsim", ""))} · engine '
        f"{escape(made.engine)} · configuration {escape(made.configuration_hash)} · "
        f"{'no seed' if made.seed is None else f'seed {made.seed}'} · {escape(what)}</p>"
    )


def _note_list(notes: Sequence[str]) -> str:
    if not notes:
        return ""
    items = "".join(f"<li>{escape(note)}</li>" for note in notes)
    return f'<h2>Notes</h2><ul class="notes">{items}</ul>'


def with_unit(value: float, unit: str) -> str:
    """A number with an SI prefix and three digits, for example ``8.17 µs``."""
    if value == 0:
        return f"0 {unit}"
    prefix, size = next((p for p in PREFIXES if abs(value) >= p[1] * 0.9995), PREFIXES[-1])
    return f"{value / size:.3g} {prefix}{unit}"


def _joules(picojoules: float | None, times: int = 1) -> str:
    """An energy, so many times; or that it is not known."""
    return "not known" if picojoules is None else with_unit(picojoules * times * 1e-12, "J")


def _headline(report: Report) -> str:
    checked, balance = report.verification, report.load_balance
    if checked.status == "exact":
        outcome = "exact", f"{checked.outputs:,} outputs, bit by bit"
    elif checked.status == "mismatch":
        outcome = "MISMATCH", f"{checked.mismatches:,} of {checked.outputs:,} outputs differ"
    else:
        outcome = "skipped", "outputs were not compared"
    multipliers = report.utilization.get("multipliers", 0.0)
    watts = report.energy.average_power_w
    power = "" if watts is None else f"{with_unit(watts, 'W')} on average"
    rows = [
        ("Cycles", f"{report.cycles:,}", f"{with_unit(report.seconds, 's')}"),
        ("Effectual MACs", f"{report.macs.effectual:,}", f"of {report.macs.dense:,} dense"),
        ("Multipliers busy", f"{100 * multipliers:.1f} %", "on effectual MACs"),
        ("Load balance", f"{100 * balance.efficiency:.1f} %", "mean-field time over the run"),
        ("Energy", _joules(report.energy.total_pj), power),
        ("Verification", *outcome),
    ]
    return _facts(rows, bad="Verification" if checked.status == "mismatch" else "")


def _facts(rows: Sequence[tuple[str, str, str]], bad: str) -> str:
    """Headline numbers: what, value, and more about it; ``bad`` names one to be marked."""
    items = [
        f"<div{' class=bad' if name == bad else ''}><dt>{name}</dt>"
        f"<dd>{escape(value)}<small>{escape(small)}</small></dd></div>"
        for name, value, small in rows
    ]
    return f'<dl class="head">{"".join(items)}</dl>'


def _figure(name: str, figure: Any, title: str) -> str:
    file = io.BytesIO()
    write_figure(figure, file, "svg", f"{title}: {name}")
    data = base64.b64encode(file.getvalue()).decode()
    pixels = figure.get_figwidth() * 96
    # Wide figures scroll rather than shrink until they cannot be read; small ones do not grow.
    size = f"max-width:{max(pixels, 860):.0f}px;min-width:{min(0.7 * pixels, 1500):.0f}px"
    caption = CAPTIONS.get(name, name)
    return (
        f'<figure id="{name}"><img style="{size}" alt="{escape(caption)}" '
        f'src="data:image/svg+xml;base64,{data}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def _table(
    name: str, header: Sequence[str], rows: Iterable[Sequence[str]], numbers: Sequence[int],
    last_is_sum: bool = False,
) -> str:  # fmt: skip
    """A table whose columns ``numbers`` are set to the right; a last column "source" is small."""

    def cell(tag: str, i: int, text: str) -> str:
        kind = "n" if i in numbers else "s" if header[i] == "source" and tag == "td" else ""
        attribute = f' class="{kind}"' if kind else ""
        return f"<{tag}{attribute}>{escape(text)}</{tag}>"

    rows = [list(row) for row in rows]
    if not rows:
        return ""
    lines = []
    for i, row in enumerate(rows):
        mark = ' class="sum"' if last_is_sum and i == len(rows) - 1 else ""
        lines.append(f"<tr{mark}>{''.join(cell('td', j, text) for j, text in enumerate(row))}</tr>")
    head = "".join(cell("th", j, text) for j, text in enumerate(header))
    return (
        f'<h2>{name}</h2><div class="scroll"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def _tables(report: Report) -> list[str]:
    kinds = ("busy", "starved", "blocked", "waiting", "finished")

    def share(part: int, whole: int) -> str:
        return f"{100 * part / whole:.1f} %" if whole else "–"

    stalls = []
    for name, part in report.stalls.items():
        times = [getattr(part, kind) for kind in kinds]
        stalls.append([name, f"{part.lanes:,}", *(share(time, sum(times)) for time in times)])
    memory = [
        [
            name,
            f"{part.used_bits / 8192:,.1f}",
            f"{part.capacity_bits / 8192:,.1f}",
            "yes" if part.fits else "no",
            f"{part.read_gbytes_per_s:,.3g}",
            f"{part.written_gbytes_per_s:,.3g}",
            part.source,
        ]
        for name, part in report.memory.items()
    ]
    return [
        _table("Time by actor", ("actor", "lanes", *kinds), stalls, range(1, 7)),
        _table(
            "Critical path",
            ("what", "where", "cycles", "share"),
            [
                (step.kind, step.where, f"{step.cycles:,}", f"{100 * step.share:.1f} %")
                for step in report.critical_path
            ],
            (2, 3),
        ),
        _table(
            "Counters",
            ("counter", "times"),
            [(name.replace("_", " "), f"{n:,}") for name, n in report.counters.items()],
            (1,),
        ),
        _table(
            "Memory",
            (
                "memory",
                "used (KiB)",
                "size (KiB)",
                "fits",
                "read (GB/s)",
                "written (GB/s)",
                "source",
            ),
            memory,
            (1, 2, 4, 5),
        ),
        _energy_table(report.energy),
        *_provenance_tables(report.provenance),
    ]


def _energy_table(energy: Energy) -> str:
    total_pj = energy.total_pj
    rows = [
        [
            part.part,
            _joules(part.energy_pj),
            f"{100 * part.energy_pj / total_pj:.1f} %" if total_pj and part.energy_pj else "–",
            part.basis.value,
            part.source,
        ]
        for part in energy.parts
    ]
    rows.append(["total", _joules(total_pj), "", "", ""])
    header = ("part", "energy", "share", "basis", "source")
    return _table("Energy", header, rows, (1, 2), last_is_sum=True)


def _provenance_tables(made: Provenance) -> list[str]:
    fields = [(name, str(value)) for name, value in made.configuration.items()]
    return [
        _table("Configuration", ("field", "value"), fields, ()),
        _table("Versions", ("package", "version"), list(made.versions.items()), ()),
    ]


def _network_tables(report: NetworkReport) -> list[str]:
    """A row a layer, refusals and work beside them among the rows; then energy and provenance."""
    rows = []
    for row in report.rows:
        if isinstance(row, LayerRun):
            found = row.report
            noise = "–" if found.output_sqnr_db is None else f"{found.output_sqnr_db:.1f}"
            rows.append([
                row.name, f"{row.repeat}", f"{found.cycles * row.repeat:,}",
                f"{100 * found.utilization['multipliers']:.1f} %",
                _joules(found.energy.total_pj, row.repeat), noise,
                found.verification.status, f"bound by {found.bound_by}",
            ])  # fmt: skip
        elif isinstance(row, Refused):
            why = f"not on {report.machine}: {row.why}"
            rows.append([row.name, f"{row.repeat}", "–", "–", "–", "–", "not run", why])
        else:
            cycles = "–" if row.cycles is None else f"{row.cycles * row.repeat:,}"
            told = f"{row.kind}, {row.elements:,} elements" + (f", {row.unit}" if row.unit else "")
            rows.append([row.name, f"{row.repeat}", cycles, "–", "–", "–", "–", told])
    header = ("layer", "x", "cycles", "use", "energy", "SQNR (dB)", "outputs", "source")
    return [
        _table("Layers", header, rows, range(1, 6)),
        _energy_table(report.totals.energy),
        *_provenance_tables(report.provenance),
    ]
