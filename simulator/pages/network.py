"""A network's run on a page: every layer in order, each of which opens, and what they sum to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from sparqsim.simulator.pages.charts import (
    Axis,
    Plot,
    bar,
    heat_map,
    legend,
    percent,
    roofline,
    with_unit,
)
from sparqsim.simulator.pages.diagrams import Sketches
from sparqsim.simulator.pages.html import Html, Number, Table, contents, document, h, join, section
from sparqsim.simulator.pages.layer import roof_point
from sparqsim.simulator.pages.parts import (
    STATES,
    captioned,
    count,
    decibels,
    energy_cell,
    energy_hues,
    energy_shares,
    energy_table,
    facts,
    in_words,
    joules,
    notes,
    outcome,
    path_bar,
    provenance,
    share_cell,
    subtitle,
)
from sparqsim.simulator.report import Energy, LayerRun, NetworkReport, PathStep, Refused, Report

BOUNDS = {"compute": "busy", "load imbalance": "starved", "dram": "waiting", "latency": "finished"}
OTHERS = ("c4", "c1", "c5", "c6")  # other parts that bound a layer
COLUMNS, ROWS = 240, 64  # of the picture of all lanes, at most


def network_page(report: NetworkReport) -> str:
    """A network's run as a page of HTML."""
    title = f"{report.network} on {report.machine}"
    sketches = Sketches()
    sections = [
        notes(report.notes),
        _accuracy(report),
        section("At a glance", *_glance(report)),
        _path(report),
        _stalls(report),
        _roofline(report),
        section("Over the run", *_over_time(report)),
        section(
            "Energy", energy_table(report.totals.energy, "Energy by part, over the layers that ran")
        ),
        section("Layers", *_layers(report, sketches)),
        _beside(report),
        provenance(report.provenance),
    ]
    top = [
        h("h1", title),
        subtitle(report.provenance, f"recipe {report.recipe} · {report.source}"),
        _headline(report),
    ]
    return document(title, [*top, contents(sections), *sections, sketches.html()])


def _headline(report: NetworkReport) -> Html:
    totals = report.totals
    edp = "" if totals.edp_js is None else f"energy x time {with_unit(totals.edp_js, 'Js')}"
    rows = [
        ("Cycles", f"{totals.cycles:,}", with_unit(totals.seconds, "s")),
        ("Layers run", f"{totals.layers}", f"of {totals.layers_of_network}"),
        ("MACs run", with_unit(totals.macs, ""), f"of {with_unit(totals.macs_of_network, '')}"),
        ("Multipliers busy", percent(totals.utilization), "on effectual MACs"),
        ("Energy", joules(totals.energy.total_pj), edp),
        ("Outputs", report.status, "of the layers that ran, bit by bit"),
    ]
    if totals.dram_read_bits is not None and totals.dram_written_bits is not None:
        read, written = totals.dram_read_bits / 8, totals.dram_written_bits / 8
        moved = f"read {with_unit(read, 'B')}, written {with_unit(written, 'B')}"
        rows.append(("DRAM", with_unit(read + written, "B"), moved))
    return facts(rows, bad="Outputs" if report.status == "mismatch" else "")


def _accuracy(report: NetworkReport) -> Html:
    judged = report.accuracy
    if judged is None:
        return Html("")
    rows = [
        [name, Number(f"{before:.4f}", before),
         Number(f"{judged.compressed[name]:.4f}", judged.compressed[name])]
        for name, before in judged.float32.items()
    ]  # fmt: skip
    caption = f"The network judged with the codes that ran. {judged.note}".strip()
    table = Table(caption, ("measure", "float32", judged.recipe), rows, plain=True).html()
    return section("Accuracy", table)


# ------------------------------------------------------------------ layers


def bound_classes(reports: Sequence[Report]) -> dict[str, str]:
    """A class for what bounds each of the layers."""
    found = dict.fromkeys(report.bound_by for report in reports)
    others = [bound for bound in found if bound not in BOUNDS]
    more = {bound: OTHERS[place % len(OTHERS)] for place, bound in enumerate(others)}
    return {bound: (BOUNDS | more)[bound] for bound in found}


def _glance(report: NetworkReport) -> list[Html]:
    """Time and energy of every layer as columns."""
    runs = report.runs
    if not runs:
        return []
    classes = bound_classes([row.report for row in runs])
    hues = energy_hues([row.report.energy for row in runs])
    times = [row.report.seconds * row.repeat for row in runs]
    spent = [_known(row.report.energy) * 1e-12 * row.repeat for row in runs]
    x = Axis(0, len(runs), "layers in order")
    time = Plot(x, Axis(0, 1.05 * max(times), unit="s"), f"Time of {len(runs)} layers", height=180)
    for place, (row, seconds) in enumerate(zip(runs, times, strict=True)):
        words = f"{_times(row)}: {with_unit(seconds, 's')}, bound by {row.report.bound_by}"
        time.column(place, 0, seconds, f"solid {classes[row.report.bound_by]}", words)
    energy = Plot(
        x, Axis(0, 1.05 * max(spent) or 1.0, unit="J"), f"Energy of {len(runs)} layers", height=180
    )
    for place, (row, joule) in enumerate(zip(runs, spent, strict=True)):
        foot = 0.0
        for kind, share in energy_shares(row.report.energy, hues):
            words = f"{_times(row)}: {with_unit(joule, 'J')}, of it {percent(share)}"
            energy.column(place, foot, foot + share * joule, f"solid {kind}", words)
            foot += share * joule
    return [
        h("h3", "Time"), _bound_legend(classes), time.html(),
        h("h3", "Energy"), legend(part_names(hues)), energy.html(),
    ]  # fmt: skip


def _known(energy: Energy) -> float:
    return sum(part.energy_pj or 0.0 for part in energy.parts)


def _times(row: LayerRun) -> str:
    return f"{row.name} x {row.repeat}" if row.repeat > 1 else row.name


def _bound_legend(classes: Mapping[str, str]) -> Html:
    return legend((kind, f"bound by {bound}") for bound, kind in classes.items())


def part_names(hues: Mapping[str, str]) -> list[tuple[str, str]]:
    """Each class with the parts of the energy that it stands for."""
    parts: dict[str, list[str]] = {}
    for part, kind in hues.items():
        parts.setdefault(kind, []).append(part)
    return [
        (kind, " + ".join(names[:3]) + (" ..." if len(names) > 3 else ""))
        for kind, names in parts.items()
    ]


def _layers(report: NetworkReport, sketches: Sketches) -> list[Html]:
    """One row per layer, which opens; refusals among them."""
    runs = report.runs
    hues = energy_hues([row.report.energy for row in runs])
    classes = bound_classes([row.report for row in runs])
    cycles = [row.report.cycles * row.repeat for row in runs]
    energies = [_known(row.report.energy) * row.repeat for row in runs]
    whole, longest, most = sum(cycles) or 1, max(cycles, default=1), max(energies, default=1.0)
    rows: list[list[object]] = []
    more: list[Html | None] = []
    for row in report.rows:
        if isinstance(row, LayerRun):
            found, mine = row.report, row.report.cycles * row.repeat
            scale = _known(found.energy) * row.repeat / (most or 1.0)
            shares = [(kind, share * scale) for kind, share in energy_shares(found.energy, hues)]
            rows.append([
                row.name, count(row.repeat), count(mine), share_cell(mine / whole),
                bar([(classes[found.bound_by], mine / (longest or 1))]),
                share_cell(found.utilization["multipliers"]),
                energy_cell(found.energy.total_pj, row.repeat), bar(shares),
                decibels(found.output_sqnr_db), found.verification.status, found.bound_by,
            ])  # fmt: skip
            more.append(layer_detail(row, hues, sketches))
        elif isinstance(row, Refused):
            why = f"not on {report.machine}: {row.why}"
            none = Number("–", None)
            rows.append([row.name, count(row.repeat), none, none, "", none, none, "", none,
                         "not run", why])  # fmt: skip
            more.append(None)
    totals = report.totals
    sums = [[
        "total", count(totals.layers), count(totals.cycles), "", "", share_cell(totals.utilization),
        energy_cell(totals.energy.total_pj), "", "", report.status, "",
    ]]  # fmt: skip
    columns = (
        "layer", "x", "cycles", "share", "time", "use", "energy", "by part", "SQNR (dB)", "outputs",
        "bound by",
    )  # fmt: skip
    caption = (
        "A layer opens by its name. x: times it stands in the network, which cycles and energy "
        "count; use: effectual MACs over what the multipliers could do; SQNR: of the outputs to "
        "the float layer's."
    )
    return [Table(caption, columns, rows, more=more, sums=sums).html()]


def _beside(report: NetworkReport) -> Html:
    rows = []
    for row in report.beside:
        cycles = None if row.cycles is None else row.cycles * row.repeat
        rows.append([row.name, row.kind, row.operation, count(row.repeat), count(row.elements),
                     row.unit or "not timed", count(cycles)])  # fmt: skip
    columns = ("work", "kind", "operation", "x", "elements", "timed by", "cycles")
    caption = "Work without multiply-accumulates, timed where the machine has a unit for it."
    return section("Work beside the layers", Table(caption, columns, rows).html())


def layer_detail(row: LayerRun, hues: Mapping[str, str], sketches: Sketches) -> Html:
    """What opens under a layer's row: path, stalls, memories, energy, and its sketch."""
    found = row.report
    if row.same_as:
        equal = f"Equal work to {row.same_as}, which was simulated in its place."
    else:
        equal = ""
    _, checked = outcome(found)
    stored = "; ".join(
        f"{role} {each.format}" + ("" if each.format == each.stored_as else f" in {each.stored_as}")
        for role, each in found.operands.items()
    )
    told = (
        f"{found.macs.effectual:,} effectual of {found.macs.dense:,} MACs in {found.cycles:,} "
        f"cycles, {with_unit(found.seconds, 's')}; {checked}. {stored}. {equal}"
    )
    path = path_bar(found.critical_path)
    rows = []
    for name, part in found.stalls.items():
        times = {state: getattr(part, state) for state in STATES}
        whole = max(sum(times.values()), 1)
        shares = [(state, time / whole) for state, time in times.items()]
        rows.append([name, count(part.lanes), bar(shares), share_cell(part.busy / whole)])
    stalls = Table("Actors", ("actor", "lanes", "time", "busy"), rows, plain=True, kind="inner")
    moved = [
        [name, Number(with_unit(each.read_bits / 8, "B"), each.read_bits),
         Number(with_unit(each.written_bits / 8, "B"), each.written_bits)]
        for name, each in found.memory.items()
    ]  # fmt: skip
    memories = Table("Memories", ("memory", "read", "written"), moved, plain=True, kind="inner")
    spent = [
        [part.part, energy_cell(part.energy_pj), bar([(hues[part.part], _part(found, part.part))])]
        for part in found.energy.parts
    ]
    energy = Table("Energy", ("part", "energy", ""), spent, plain=True, kind="inner")
    tables = h("div", stalls.html(), memories.html(), energy.html(), class_="small")
    heading = h("h4", "Critical path") if path else None
    return join([h("p", told), heading, path, tables, *sketches.of(found)])


def _part(report: Report, name: str) -> float:
    total = sum(part.energy_pj or 0.0 for part in report.energy.parts) or 1.0
    return sum(part.energy_pj or 0.0 for part in report.energy.parts if part.part == name) / total


# ------------------------------------------------------------------ sums over layers


def summed_path(report: NetworkReport) -> list[PathStep]:
    """The critical paths of the layers, one after the other; empty where one is not known."""
    runs = report.runs
    if not runs or not all(row.report.critical_path for row in runs):
        return []
    sums: dict[tuple[str, str], int] = {}
    for row in runs:
        for step in row.report.critical_path:
            key = (step.kind, step.where)
            sums[key] = sums.get(key, 0) + step.cycles * row.repeat
    total = sum(sums.values()) or 1
    steps = [
        PathStep(kind=kind, where=where, cycles=cycles, share=cycles / total)
        for (kind, where), cycles in sums.items()
    ]
    return sorted(steps, key=lambda step: -step.cycles)


def _path(report: NetworkReport) -> Html:
    steps = summed_path(report)
    drawn = path_bar(steps)
    if drawn is None:
        return Html("")
    why = (
        "The critical paths of all layers that run, one after the other: what the time was spent "
        f"on, or what was waited for. Most of it: {in_words(steps[0])}."
    )
    return section("Critical path", h("p", why), drawn)


def _stalls(report: NetworkReport) -> Html:
    """Where the lane-cycles of each actor went, over all layers."""
    sums: dict[str, dict[str, int]] = {}
    lanes: dict[str, int] = {}
    for row in report.runs:
        for name, part in row.report.stalls.items():
            of_actor = sums.setdefault(name, dict.fromkeys(STATES, 0))
            lanes[name] = max(lanes.get(name, 0), part.lanes)
            for state in STATES:
                of_actor[state] += getattr(part, state) * row.repeat
    rows = []
    for name, times in sums.items():
        whole = max(sum(times.values()), 1)
        shares = [(state, time / whole) for state, time in times.items()]
        rows.append([name, count(lanes[name]), bar(shares), *(share_cell(s) for _, s in shares)])
    columns = ("actor", "lanes", "where its time went", *STATES)
    caption = "Lane-cycles of each actor, over all layers that ran."
    table = Table(caption, columns, rows).html()
    return section("Stalls", legend(STATES.items()), table) if rows else Html("")


def _roofline(report: NetworkReport) -> Html:
    classes = bound_classes([row.report for row in report.runs])
    found = [
        (roof_point(row.report, classes[row.report.bound_by]), row.report.roof)
        for row in report.runs
    ]
    points = [point for point, roof in found if point is not None and roof is not None]
    if not points:
        return Html("")
    roofs = {
        (roof.macs_per_s, roof.bytes_per_s, "roof" if number == 0 else "roof dash"): None
        for number, roof in enumerate(
            dict.fromkeys(roof for _, roof in found if roof is not None)
        )
    }  # fmt: skip
    caption = (
        "A dot is a layer, coloured by what bounds it: effectual MACs a second over effectual MACs "
        "a byte of DRAM. The roof is the bandwidth of its DRAM, and every multiplier at work in "
        "every cycle; operands of another width have a roof of their own (dashed)."
    )
    drawn = roofline(points, list(roofs))
    return section("Roofline", _bound_legend(classes), captioned(drawn, caption))


# ------------------------------------------------------------------ over the run


def _over_time(report: NetworkReport) -> list[Html]:
    """Utilisation, bandwidth and the load of the lanes: an interval is a layer."""
    runs = [row for row in report.runs if row.report.cycles]
    if not runs:
        return []
    lengths = [row.report.cycles * row.repeat for row in runs]
    edges = np.concatenate([[0], np.cumsum(lengths)])
    x = Axis(0, int(edges[-1]))
    use = [row.report.utilization["multipliers"] for row in runs]
    busy = Plot(x, Axis(0, 1), f"Multipliers busy over {len(runs)} layers", height=120)
    busy.area(edges, 0, use, "area busy")
    panels = [captioned(busy.html(), "busy share over cycles", "Multipliers busy")]
    moving = (
        name
        for row in runs
        for name, use in row.report.memory.items()
        if use.read_bits or use.written_bits
    )
    panels += [_flow(name, runs, edges, x) for name in dict.fromkeys(moving)]
    words = "Layers one after the other; within a layer the mean. Work beside them is left out."
    keys = legend([("read", "read"), ("written", "written")])
    return [h("p", words), keys, h("div", *panels, class_="small"), _lanes(runs, edges)]


def _flow(
    memory: str, runs: Sequence[LayerRun], edges: NDArray[np.int64], x: Axis
) -> Html:  # fmt: skip
    found = [row.report.memory.get(memory) for row in runs]
    read = 1e9 * np.array([each.read_gbytes_per_s if each else 0.0 for each in found])
    written = 1e9 * np.array([each.written_gbytes_per_s if each else 0.0 for each in found])
    means = [float(np.average(each, weights=np.diff(edges))) for each in (read, written)]
    told = f"read {with_unit(means[0], 'B/s')}, written {with_unit(means[1], 'B/s')} on average"
    top = float(max(read.max(), written.max())) or 1.0
    plot = Plot(x, Axis(0, 1.08 * top, unit="B/s"), f"{memory}: {told}", height=120)
    plot.area(edges, 0, read, "area read")
    plot.steps(edges, written, "line written")
    return captioned(plot.html(), f"{told}; along the axis cycles", memory)


def _lanes(runs: Sequence[LayerRun], edges: NDArray[np.int64]) -> Html:
    """Busy share of each lane of the actor that does the work, layer by layer."""
    most = max(len(row.report.load_balance.work_cycles) for row in runs)
    if most == 1:
        return Html("")
    rows = min(most, ROWS)
    shares = np.zeros((rows, len(runs)))
    for column, row in enumerate(runs):
        work = np.asarray(row.report.load_balance.work_cycles, np.float64) / row.report.cycles
        groups = np.linspace(0, len(work), rows + 1)
        starts = np.minimum(groups[:-1].astype(int), len(work) - 1)
        ends = np.maximum(groups[1:].astype(int), starts + 1)
        shares[:, column] = [work[a:b].mean() for a, b in zip(starts, ends, strict=True)]
    at = np.linspace(0, edges[-1], COLUMNS, endpoint=False) + edges[-1] / (2 * COLUMNS)
    picture = shares[:, np.searchsorted(edges, at, side="right") - 1]
    actor = runs[0].report.load_balance.actor
    alt = f"Busy share of {most} lanes of {actor} over {len(runs)} layers"
    drawn = heat_map(
        picture, Axis(0, int(edges[-1]), "cycle"), Axis(0, most, f"lane of {actor}"), alt,
        height=min(max(8 * rows, 60), 320),
    )  # fmt: skip
    caption = (
        f"A row is a lane of {actor} (or a few), over the layers: full blue is busy all of the "
        "layer's time, clear idle. Rows of one shade are balanced."
    )
    return captioned(drawn, caption, "Load of the lanes")
