"""The same work on several machines on a page: everything over the first machine's."""

from __future__ import annotations

import math
from collections.abc import Sequence

from sparqsim.simulator.comparison import (
    Compared,
    ComparedNetwork,
    ComparisonReport,
    Contender,
    Ratios,
)
from sparqsim.simulator.pages.charts import (
    HUES,
    Axis,
    Plot,
    RatioScale,
    RoofPoint,
    bar,
    legend,
    percent,
    roofline,
    with_unit,
)
from sparqsim.simulator.pages.diagrams import Sketches
from sparqsim.simulator.pages.html import Html, Number, Table, contents, document, h, join, section
from sparqsim.simulator.pages.layer import roof_point
from sparqsim.simulator.pages.network import part_names, summed_path
from sparqsim.simulator.pages.parts import (
    captioned,
    count,
    energy_cell,
    energy_hues,
    energy_shares,
    energy_table,
    facts,
    in_words,
    notes,
    path_bar,
    provenance_tables,
    share_cell,
)
from sparqsim.simulator.report import Beside, LayerRun, Report

MEASURES = {
    "cycles": "cycles",
    "seconds": "time",
    "energy": "energy",
    "edp": "energy x time",
    "dram": "DRAM",
}
WORDS = 3  # steps of a critical path in a layer's row


def comparison_page(report: ComparisonReport) -> str:
    """A comparison as a page of HTML."""
    works = ", ".join(network.network for network in report.networks)
    labels = [each.label for each in report.contenders]
    title = f"{works} on {', '.join(labels)}"
    equal = "nothing was made equal" if report.equal == "none" else f"{report.equal} made equal"
    made = report.networks[0].machines[0].report.provenance
    told = (
        f"Sparqsim {made.versions.get('sparqsim', '')} · engine {made.engine} · {equal} · all "
        f"ratios over {labels[0]}'s: below 1 is less"
    )
    sections = [notes(report.notes), section("Machines", *_machines(report))]
    if report.means:
        sections.append(section("Means over the networks", *_means(report)))
    sketches = Sketches()
    for network in report.networks:
        sections.append(section(f"{network.network}: totals", *_totals(network)))
        sections.append(section(f"{network.network}: layers", *_layers(network, sketches)))
        sections.append(section(f"{network.network}: where the time goes", *_paths(network)))
        sections.append(_roofline(network))
        sections.append(_accuracy(network))
    sections.append(section("Energy and its sources", *_energies(report)))
    sections.append(section("Provenance", *_provenance(report)))
    body = [h("h1", title), h("p", told, class_="sub"), _headline(report), contents(sections)]
    return document(title, [*body, *sections, sketches.html()])


def machine_legend(labels: Sequence[str]) -> Html:
    """The colours of the machines."""
    return legend((hue(place), label) for place, label in enumerate(labels))


def hue(place: int) -> str:
    """The class of a machine by its place."""
    return f"c{place % HUES}"


def _headline(report: ComparisonReport) -> Html:
    """Of each network the fastest and the one of least energy."""
    rows = [("Outputs", report.status, "of all machines, bit by bit")]
    for network in report.networks:
        timed = [each for each in network.machines if each.shared.seconds]
        fastest = min(timed, key=lambda each: each.shared.seconds)
        rows.append((f"Fastest on {network.network}", fastest.label,
                     with_unit(fastest.shared.seconds, "s")))  # fmt: skip
        known = [each for each in network.machines if each.shared.energy.total_pj is not None]
        if known:
            least = min(known, key=lambda each: each.shared.energy.known_pj)
            told = with_unit(least.shared.energy.known_pj * 1e-12, "J")
            rows.append((f"Least energy on {network.network}", least.label, told))
    return facts(rows, bad="Outputs" if report.status == "mismatch" else "")


# ------------------------------------------------------------------ machines


def _machines(report: ComparisonReport) -> list[Html]:
    rows = [
        [
            h("span", each.label), each.machine, _changed(each),
            _scaled(each.peak_macs_per_s, "MAC/s"), each.peak_operands,
            _scaled(each.bandwidth_bytes_per_s, "B/s"), _area(each.area_mm2),
            "" if each.area_node_nm is None else f"{each.area_node_nm:g} nm",
            _area(each.area_at_first_mm2),
            h("span", f"{each.area_basis}: {each.area_source}", class_="note")
            if each.area_basis else "",
        ]
        for each in report.contenders
    ]  # fmt: skip
    columns = (
        "machine", "kind", "changed", "at peak", "of operands", "DRAM", "mm2", "node",
        "mm2 in the first's node", "source of the area",
    )  # fmt: skip
    caption = (
        "The machines as they ran; the first is what the others are measured by. Changed: fields, "
        "to make the machines equal."
    )
    return [Table(caption, columns, rows, plain=True).html()]


def _changed(each: Contender) -> str:
    return ", ".join(f"{name} = {each.configuration[name]}" for name in each.changed) or "nothing"


def _scaled(value: float | None, unit: str) -> Number:
    return Number("not known" if value is None else with_unit(value, unit), value)


def _area(value: float | None) -> Number:
    return Number("not known" if value is None else f"{value:.4g}", value)


# ------------------------------------------------------------------ ratios


def _ratio(value: float | None) -> Number:
    return Number("–" if value is None else f"{value:.3g}", value)


def _ratio_rows(labelled: Sequence[tuple[str, Ratios]]) -> list[list[object]]:
    """One row per machine: every ratio, and bars of time and energy."""
    scale = RatioScale.of(
        value for _, each in labelled for value in (each.seconds, each.energy) if value is not None
    )
    return [
        [
            label, *(_ratio(getattr(each, name)) for name in MEASURES),
            scale.bars([each.seconds]), scale.bars([None, each.energy]),
        ]
        for label, each in labelled
    ]  # fmt: skip


RATIO_COLUMNS = ("machine", *MEASURES.values(), "time as a bar", "energy as a bar")


def _means(report: ComparisonReport) -> list[Html]:
    found = []
    for kind in ("geometric", "arithmetic"):
        rows = _ratio_rows([(mean.label, getattr(mean, kind)) for mean in report.means])
        caption = (
            f"The {kind} mean of the ratios over {len(report.networks)} networks. The line in a "
            "bar is 1."
        )
        found.append(Table(caption, RATIO_COLUMNS, rows, plain=True).html())
    return found


def _totals(network: ComparedNetwork) -> list[Html]:
    over = network.summed_over
    rows = []
    for each in network.machines:
        totals, report = each.shared, each.report
        moved = None
        if totals.dram_read_bits is not None and totals.dram_written_bits is not None:
            moved = (totals.dram_read_bits + totals.dram_written_bits) / 8
        judged = report.accuracy.compressed if report.accuracy else {}
        accuracy = ", ".join(f"{name} {value:.4f}" for name, value in judged.items())
        rows.append([
            each.label, report.recipe, count(totals.cycles),
            Number(with_unit(totals.seconds, "s"), totals.seconds),
            energy_cell(totals.energy.total_pj),
            Number("not known" if totals.edp_js is None else with_unit(totals.edp_js, "Js"),
                   totals.edp_js),
            Number("–" if moved is None else with_unit(moved, "B"), moved),
            share_cell(totals.utilization), bar([("busy", totals.utilization)]),
            f"{report.totals.layers} of {report.totals.layers_of_network}", report.status,
            accuracy or "–",
        ])  # fmt: skip
    columns = (
        "machine", "recipe", "cycles", "time", "energy", "energy x time", "DRAM", "use", "",
        "layers run", "outputs", "accuracy",
    )  # fmt: skip
    first = network.machines[0].label
    ratios = _ratio_rows([(each.label, each.ratios) for each in network.machines])
    told = f"Over {first}'s, on {over}: below 1 is less. The line in a bar is 1."
    return [
        Table(f"Sums over {over}.", columns, rows, plain=True).html(),
        Table(told, RATIO_COLUMNS, ratios, plain=True).html(),
        *_split(network),
    ]


def _split(network: ComparedNetwork) -> list[Html]:
    """The energy of each machine by part, bars as long as its energy over the largest."""
    hues = energy_hues([each.shared.energy for each in network.machines])
    known = [
        (each, sum(part.energy_pj or 0.0 for part in each.shared.energy.parts))
        for each in network.machines
    ]
    most = max((energy for _, energy in known), default=0.0)
    if not most:
        return []
    rows = []
    for each, energy in known:
        shares = [
            (kind, share * energy / most) for kind, share in energy_shares(each.shared.energy, hues)
        ]
        largest = sorted(each.shared.energy.parts, key=lambda part: -(part.energy_pj or 0.0))
        words = ", ".join(
            f"{part.part} {percent((part.energy_pj or 0.0) / energy)}" for part in largest[:3]
        ) if energy else ""  # fmt: skip
        rows.append([each.label, bar(shares), energy_cell(energy or None), words])
    caption = "Energy by part; a bar is as long as the machine's energy over the largest one's."
    columns = ("machine", "by part", "known energy", "the largest parts")
    return [legend(part_names(hues)), Table(caption, columns, rows, plain=True).html()]


# ------------------------------------------------------------------ layers


def _layers(network: ComparedNetwork, sketches: Sketches) -> list[Html]:
    """Time and energy of each layer over the first machine's, both means at the foot."""
    labels = [each.label for each in network.machines]
    of_layers = [
        [row for row in each.report.rows if not isinstance(row, Beside)]
        for each in network.machines
    ]
    lines, more = [], []
    for rows in zip(*of_layers, strict=True):
        found = [row.report if isinstance(row, LayerRun) else None for row in rows]
        times = _over_first([each.seconds if each else None for each in found])
        energies = _over_first([each.energy.total_pj if each else None for each in found])
        lines.append((rows, found, times, energies))
        outcomes = [row.report if isinstance(row, LayerRun) else row.why for row in rows]
        more.append(_detail(labels, outcomes, sketches))
    time_scale = RatioScale.of(r for _, _, times, _ in lines for r in times if r)
    energy_scale = RatioScale.of(r for _, _, _, energies in lines for r in energies if r)
    rows_out = [
        [
            rows[0].name, count(rows[0].repeat), time_scale.bars(times),
            *(_time(each, rows[0].repeat, ratio) for each, ratio in zip(found, times, strict=True)),
            energy_scale.bars(energies),
        ]
        for rows, found, times, energies in lines
    ]  # fmt: skip
    columns = ("layer", "x", "time over the first", *labels, "energy over the first")
    log = [name for name, scale in (("time", time_scale), ("energy", energy_scale)) if scale.log]
    told = f" Equal factors are equal lengths in bars of {' and '.join(log)}." if log else ""
    caption = (
        f"Time of each layer, in brackets over {labels[0]}'s; the line in a bar is 1. A layer "
        f"opens by its name.{told}"
    )
    sums = [
        [f"{kind} mean of the ratios", "", "",
         *(_ratio(_mean(kind, [times[place] for _, _, times, _ in lines]))
           for place in range(len(labels))), ""]
        for kind in ("geometric", "arithmetic")
    ]  # fmt: skip
    return [
        machine_legend(labels),
        Table(caption, columns, rows_out, more=more, sums=sums).html(),
    ]


def _over_first(values: Sequence[float | None]) -> list[float | None]:
    first = values[0]
    return [value / first if value is not None and first else None for value in values]


def _mean(kind: str, ratios: Sequence[float | None]) -> float | None:
    """The mean over the layers that have the ratio."""
    known = [ratio for ratio in ratios if ratio]
    if not known:
        return None
    if kind == "arithmetic":
        return sum(known) / len(known)
    return math.exp(sum(map(math.log, known)) / len(known))


def _time(found: Report | None, repeat: int, ratio: float | None) -> Number:
    if found is None:
        return Number("not run", None)
    told = with_unit(found.seconds * repeat, "s")
    return Number(told if ratio is None else f"{told} ({ratio:.3g})", found.seconds * repeat)


def _detail(labels: Sequence[str], found: Sequence[Report | str], sketches: Sketches) -> Html:
    """What opens under a layer: one row per machine, and what its run on each looked like."""
    rows = []
    for label, each in zip(labels, found, strict=True):
        if isinstance(each, str):
            rows.append([label, *[Number("–", None)] * 3, "not run", each])
            continue
        words = "; ".join(in_words(step) for step in each.critical_path[:WORDS])
        rows.append([
            label, count(each.cycles), share_cell(each.utilization["multipliers"]),
            energy_cell(each.energy.total_pj), each.bound_by, words or "path not recorded",
        ])  # fmt: skip
    columns = ("machine", "cycles", "use", "energy", "bound by", "critical path")
    table = Table("One layer on each machine", columns, rows, plain=True, kind="inner").html()
    looks = [
        h("details", h("summary", f"Load, queues and block diagram on {label}"), *drawn)
        for label, each in zip(labels, found, strict=True)
        if not isinstance(each, str) and (drawn := sketches.of(each))
    ]
    return join([table, *looks])


def _paths(network: ComparedNetwork) -> list[Html]:
    found = []
    for each in network.machines:
        steps = summed_path(each.report)
        drawn = path_bar(steps)
        if drawn is not None:
            told = f"{each.label}, {network.ran_on(each)}"
            found.append(join([h("h3", told), drawn]))
    if not found:
        return []
    return [h("p", "Critical paths of the layers, one after the other."), *found]


# ------------------------------------------------------------------ figures


def _roofline(network: ComparedNetwork) -> Html:
    points: list[RoofPoint] = []
    roofs: dict[tuple[float, float | None, str], None] = {}
    for place, each in enumerate(network.machines):
        for row in each.report.runs:
            point = roof_point(row.report, hue(place))
            if point is None or row.report.roof is None:
                continue
            named = f"{each.label}, {point.name}"
            points.append(RoofPoint(named, point.macs_per_byte, point.macs_per_s, point.kind))
            roof = row.report.roof
            roofs[roof.macs_per_s, roof.bytes_per_s, f"line {hue(place)}"] = None
    if not points:
        return Html("")
    caption = (
        "A dot is a layer on a machine: effectual MACs a second over effectual MACs a byte of "
        "DRAM, under the roofs of the machines. Machines without a DRAM are left out."
    )
    labels = [each.label for each in network.machines]
    drawn = join([machine_legend(labels), captioned(roofline(points, list(roofs)), caption)])
    return section(f"{network.network}: roofline", drawn)


def judged(each: Compared) -> tuple[str, float] | None:
    """The first measure that the network is judged by, and its value on a machine."""
    if each.report.accuracy is None:
        return None
    return next(iter(each.report.accuracy.compressed.items()), None)


def _accuracy(network: ComparedNetwork) -> Html:
    """Energy times time against accuracy, where the network can be judged."""
    found = []
    for place, each in enumerate(network.machines):
        measure = judged(each)
        if measure is not None and each.report.totals.edp_js:
            found.append((place, each.label, measure, each.report.totals.edp_js))
    if not found:
        return Html("")
    name = found[0][2][0]
    values = [measure[1] for _, _, measure, _ in found]
    spread = max(max(values) - min(values), 0.01)
    x = Axis.around((edp for _, _, _, edp in found), "energy x time (Js)")
    y = Axis(min(values) - spread / 3, max(values) + spread / 3, name)
    alt = "; ".join(f"{label}: {edp:.3g} Js at {m[1]:.4f}" for _, label, m, edp in found)
    plot = Plot(x, y, alt, height=280)
    for place, label, measure, edp in found:
        plot.dot(edp, measure[1], f"dot {hue(place)}", f"{label}: {edp:.3g} Js, {measure[1]:.4f}")
    labels = [each.label for each in network.machines]
    over = network.ran_on_each
    caption = f"Energy times time of {over} against {name}: up and left is better."
    return section(
        f"{network.network}: accuracy", machine_legend(labels), captioned(plot.html(), caption)
    )


# ------------------------------------------------------------------ sources


def _energies(report: ComparisonReport) -> list[Html]:
    """Of every machine the energy by part with basis and source."""
    return [
        h(
            "details", h("summary", f"{network.network} on {each.label}"),
            energy_table(each.shared.energy), class_="print",
        )
        for network in report.networks
        for each in network.machines
    ]  # fmt: skip


def _provenance(report: ComparisonReport) -> list[Html]:
    return [
        h(
            "details", h("summary", each.label),
            *provenance_tables(each.report.provenance, f" of {each.label}"), class_="print",
        )
        for each in report.networks[0].machines
    ]  # fmt: skip
