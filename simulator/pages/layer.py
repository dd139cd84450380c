"""A run of one layer on a page: its time, its energy, and what happened over time."""

from __future__ import annotations

import numpy as np

from sparqsim.simulator.load import load_over_time
from sparqsim.simulator.pages.charts import (
    Axis,
    Plot,
    RoofPoint,
    heat_map,
    legend,
    percent,
    roofline,
    spark,
    with_unit,
)
from sparqsim.simulator.pages.diagrams import block_diagram
from sparqsim.simulator.pages.html import Html, Number, Table, contents, document, h, section
from sparqsim.simulator.pages.parts import (
    captioned,
    count,
    counter_table,
    energy_table,
    facts,
    ideal_table,
    joules,
    memory_table,
    notes,
    outcome,
    path_section,
    provenance,
    share_cell,
    stall_table,
    subtitle,
)
from sparqsim.simulator.queues import Held, held, is_countable
from sparqsim.simulator.report import Report
from sparqsim.simulator.timeline import Timeline
from sparqsim.simulator.topology import topology_of
from sparqsim.simulator.traffic import Traffic, moved

OVER_TIME = 240  # intervals, at most
QUEUES = 12  # drawn, at most: the fullest


def layer_page(
    report: Report, timeline: Timeline | None = None, traffic: Traffic | None = None
) -> str:
    """A run as a page of HTML.

    Parameters
    ----------
    report
        Of the run.
    timeline
        Of the same run, for the topology and what happened over time. A run recorded as sums has
        the former alone.
    traffic
        ``result.traffic``, for bandwidth over time.
    """
    title = f"{report.layer} on {report.machine}"
    recipe = f"recipe {report.recipe} · " if report.recipe else ""
    sections = [
        notes(report.notes),
        path_section(report),
        section("Time by actor", *_time(report)),
        _roofline(report),
        section("Energy", energy_table(report.energy)),
    ]
    if timeline is not None and timeline.starts is not None:
        sections += _over_time(report, timeline, traffic)
    sections.append(section("Memories", memory_table(report.memory)))
    if timeline is not None:
        sections.append(_topology(timeline))
    sections += [
        section("Counters", counter_table(report.counters)),
        section("Operands", _operands(report)),
        provenance(report.provenance),
    ]
    top = [
        h("h1", title),
        subtitle(report.provenance, recipe + report.provenance.inputs),
        _headline(report),
    ]
    return document(title, [*top, contents(sections), *sections])


def _headline(report: Report) -> Html:
    balance, watts = report.load_balance, report.energy.average_power_w
    multipliers = report.utilization.get("multipliers", 0.0)
    rows = [
        ("Cycles", f"{report.cycles:,}", with_unit(report.seconds, "s")),
        ("Bound by", report.bound_by, "the part that is busy the longest"),
        ("Effectual MACs", f"{report.macs.effectual:,}", f"of {report.macs.dense:,} dense"),
        ("Multipliers busy", percent(multipliers), "on effectual MACs"),
        ("Load balance", percent(balance.efficiency), "mean-field time over the run"),
        ("Energy", joules(report.energy.total_pj),
         "" if watts is None else f"{with_unit(watts, 'W')} on average"),
        ("Outputs", *outcome(report)),
        ("SQNR", "–" if report.output_sqnr_db is None else f"{report.output_sqnr_db:.1f} dB",
         "of the outputs to the float layer's"),
    ]  # fmt: skip
    return facts(rows, bad="Outputs" if report.verification.status == "mismatch" else "")


def _time(report: Report) -> list[Html]:
    caption = (
        "Lane-cycles of each actor. A lane is starved if the last thing it waited for was input, "
        "blocked if it was a free slot of a full queue, waiting if it was a resource."
    )
    return [stall_table(report.stalls, caption), ideal_table(report)]


def roof_point(report: Report, kind: str = "c0") -> RoofPoint | None:
    """Where a layer stands under its roof; None where it has no DRAM or did no work."""
    dram = report.memory.get("dram")
    moved_bytes = (dram.read_bits + dram.written_bits) / 8 if dram else 0.0
    if not moved_bytes or not report.macs.effectual or not report.seconds:
        return None
    return RoofPoint(
        name=report.layer,
        macs_per_byte=report.macs.effectual / moved_bytes,
        macs_per_s=report.macs.effectual / report.seconds,
        kind=kind,
    )


def _roofline(report: Report) -> Html:
    point = roof_point(report)
    if point is None or report.roof is None:
        return Html("")
    roof = report.roof
    caption = (
        f"{report.layer}: {with_unit(point.macs_per_s, 'MAC/s')} at {point.macs_per_byte:.3g} "
        f"effectual MACs a byte of DRAM. The roof: {with_unit(roof.macs_per_s, 'MAC/s')} if every "
        "multiplier worked in every cycle"
    )
    if roof.bytes_per_s:
        caption += f", and {with_unit(roof.bytes_per_s, 'B/s')} of DRAM"
    drawn = roofline([point], [(roof.macs_per_s, roof.bytes_per_s, "roof")])
    return section("Roofline", captioned(drawn, f"{caption}."))


def _operands(report: Report) -> Html:
    rows = [
        [role, each.format, each.stored_as, count(each.bits), each.how, each.granularity]
        for role, each in report.operands.items()
    ]
    columns = ("operand", "format", "stored as", "bits", "how", "one scale a")
    return Table("How the machine stores its operands", columns, rows, plain=True).html()


# ------------------------------------------------------------------ over time


def _over_time(report: Report, timeline: Timeline, traffic: Traffic | None) -> list[Html]:
    """Utilisation, load of the lanes, queues and bandwidth."""
    return [
        section("Utilisation over time", _utilisation(timeline)),
        section("Load of the lanes", _load(report, timeline)),
        section("Queues", *_queues(timeline)),
        section("Bandwidth over time", *_bandwidth(timeline, traffic or {})),
    ]


def _utilisation(timeline: Timeline) -> Html:
    rows = []
    bins = min(max(timeline.cycles, 1), OVER_TIME)
    for actor in timeline.netlist.actors:
        edges, busy = timeline.utilization_over_time(actor.name, bins)
        mean = timeline.utilization(actor.name)
        alt = f"{actor.name} is busy {percent(mean)} of the time on average"
        rows.append([actor.name, count(actor.lanes), share_cell(mean), spark(edges, busy, alt)])
    caption = f"Busy share of the lanes of each actor from cycle 0 to {timeline.cycles:,}."
    return Table(caption, ("actor", "lanes", "mean", "over time"), rows, plain=True).html()


def _load(report: Report, timeline: Timeline) -> Html:
    """A heat map of the actor that does the work."""
    actor = report.load_balance.actor
    if timeline.netlist.actor(actor).lanes == 1:
        return h("p", f"{actor} has one lane: its load is its utilisation above.")
    load = load_over_time(timeline, actor, OVER_TIME)
    lanes, rows = int(load.lanes[-1]), len(load.shares)
    busiest = report.load_balance.busiest_over_mean
    each = "lane" if rows == lanes else f"{lanes // rows} lanes or so"
    alt = (
        f"Load of {lanes} lanes of {actor} over {timeline.cycles:,} cycles: the busiest has "
        f"{busiest:.2f} times the mean's work"
    )
    x = Axis(0, max(timeline.cycles, 1), "cycle")
    y = Axis(0, lanes, f"lane of {actor}")
    drawn = heat_map(load.shares, x, y, alt, height=min(max(8 * rows, 60), 340))
    caption = (
        f"A row is a {each} of {actor}, a column {_interval(load.edges)}; full blue is busy all "
        f"of it, clear idle. The busiest lane has {busiest:.2f} times the mean's work."
    )
    return captioned(drawn, caption)


def _interval(edges: np.ndarray) -> str:
    length = round((edges[-1] - edges[0]) / (len(edges) - 1))
    return f"about {length:,} cycles" if length > 1 else "a cycle"


def _queues(timeline: Timeline) -> list[Html]:
    netlist = timeline.netlist
    found: dict[str, tuple[float, Held]] = {}
    for channel in netlist.channels:
        if is_countable(netlist, channel):
            full = held(timeline, channel.name, OVER_TIME)
            if full.tokens.any():
                weights = np.diff(full.edges)
                mean = float(np.average(full.tokens.mean(axis=1), weights=weights))
                found[channel.name] = mean / channel.capacity, full
    if not found:
        return []
    chosen = sorted(found, key=lambda name: -found[name][0])[:QUEUES]
    told = "Tokens held by the queues of each channel, mean over short intervals"
    if len(found) > QUEUES:
        told += f"; the {QUEUES} fullest of {len(found)} channels"
    entries = [("busy", "mean of its queues; the band is from the least to the most filled")]
    panels = [_queue(timeline, name, found[name][1]) for name in found if name in chosen]
    key = legend([*entries, ("blocked", "capacity of each, where it is near")])
    return [h("p", f"{told}."), key, h("div", *panels, class_="small")]


def _queue(timeline: Timeline, name: str, full: Held) -> Html:
    capacity, queues = timeline.netlist.channel(name).capacity, full.tokens.shape[1]
    mean, highest = full.tokens.mean(axis=1), float(full.tokens.max())
    near = capacity <= 4 * max(highest, 1)
    alt = f"{name}: {mean.mean():.3g} of {capacity:,} tokens on average, {highest:.3g} at most"
    top = 1.08 * (capacity if near else max(highest, 1))
    plot = Plot(Axis(0, int(full.edges[-1])), Axis(0, top), alt, height=110)
    if queues > 1:
        plot.area(full.edges, full.tokens.min(axis=1), full.tokens.max(axis=1), "band busy")
    plot.steps(full.edges, mean, "line busy")
    if near:
        plot.line([0, full.edges[-1]], [capacity, capacity], "limit")
    what = f"{queues} queues of {capacity:,}" if queues > 1 else f"holds {capacity:,}"
    return captioned(plot.html(), "tokens over cycles", f"{name} ({what})")


def _bandwidth(timeline: Timeline, traffic: Traffic) -> list[Html]:
    panels = []
    for memory, accesses in traffic.items():
        flow = moved(timeline, accesses, OVER_TIME)
        read, written = flow.read_gbytes_per_s, flow.written_gbytes_per_s
        if not read.any() and not written.any():
            continue
        seconds = float(flow.seconds.sum())
        means = [flow.read_bits.sum() / 8 / seconds, flow.written_bits.sum() / 8 / seconds]
        told = f"read {with_unit(means[0], 'B/s')}, written {with_unit(means[1], 'B/s')} on average"
        top = 1e9 * max(float(read.max(initial=0)), float(written.max(initial=0))) or 1.0
        plot = Plot(
            Axis(0, int(flow.edges[-1])), Axis(0, 1.08 * top, unit="B/s"), f"{memory}: {told}",
            height=130,
        )  # fmt: skip
        if read.any():
            plot.area(flow.edges, 0, 1e9 * read, "area read")
        if written.any():
            plot.steps(flow.edges, 1e9 * written, "line written")
        panels.append(captioned(plot.html(), f"{told}; along the axis cycles", memory))
    if not panels:
        return []
    words = "Bits of a firing move evenly while it is busy; a burst inside a firing is not seen."
    key = legend([("read", "read"), ("written", "written")])
    return [h("p", words), key, h("div", *panels, class_="small")]


# ------------------------------------------------------------------ the machine


def _topology(timeline: Timeline) -> Html:
    topology = topology_of(timeline.netlist)
    caption = (
        "The machine as it was simulated: actors, the channels between them with the tokens each "
        "queue holds, and the resources they share."
    )
    rows = [
        [c.name, c.source, c.target, c.pattern, Number(f"{c.capacity:,}", c.capacity)]
        for c in topology.channels
    ]
    columns = ("channel", "from", "to", "pattern", "capacity")
    table = Table("The same in words: channels and the tokens they hold", columns, rows).html()
    return section("Topology", captioned(block_diagram(topology), caption), table)
