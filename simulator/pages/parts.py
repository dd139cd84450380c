"""What pages of a layer, a network and a comparison share: one function a kind of answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sparqsim.simulator.pages.charts import (
    HUES,
    bar,
    figure,
    legend,
    percent,
    share_list,
    with_unit,
)
from sparqsim.simulator.pages.html import Html, Number, Table, h, join, section
from sparqsim.simulator.report import (
    Energy,
    Memory,
    PathStep,
    Provenance,
    Report,
    Stalls,
    ideal_steps,
)

STATES = {
    "busy": "busy",
    "starved": "starved: no input",
    "blocked": "blocked behind a full queue",
    "waiting": "waiting for a resource",
    "finished": "nothing left to do",
}
KINDS = {"computing": "computing", "full queue": "full-queue", "resource": "resource"}
SMALL_SHARE = 0.01  # of a critical path, under which steps are told together


def joules(picojoules: float | None, times: int = 1) -> str:
    """An energy, so many times; or that it is not known."""
    return "not known" if picojoules is None else with_unit(picojoules * times * 1e-12, "J")


def energy_cell(picojoules: float | None, times: int = 1) -> Number:
    """Likewise as a cell."""
    return Number(joules(picojoules, times), None if picojoules is None else picojoules * times)


def count(value: float | None) -> Number:
    """A whole number as a cell, with commas."""
    return Number("–" if value is None else f"{value:,.0f}", value)


def share_cell(value: float | None) -> Number:
    """A share as a cell."""
    return Number("–" if value is None else percent(value), value)


def decibels(value: float | None) -> Number:
    """Signal to noise as a cell."""
    return Number("–" if value is None else f"{value:.1f}", value)


def facts(rows: Sequence[tuple[str, str, str]], bad: str = "") -> Html:
    """Headline numbers: what, value, and more about it; ``bad`` names one to be marked."""
    return h(
        "dl",
        *(
            h("div", h("dt", name), h("dd", value, h("small", small)),
              class_="bad" if name == bad else None)
            for name, value, small in rows
        ),
        class_="head",
    )  # fmt: skip


def subtitle(made: Provenance, what: str) -> Html:
    """What made the page: version, engine, configuration, seed."""
    seed = "no seed" if made.seed is None else f"seed {made.seed}"
    version = made.versions.get("sparqsim", "")
    told = (
        f"Sparqsim {version} · engine {made.engine} · configuration {made.configuration_hash} · "
        f"{seed} · {what}"
    )
    return h("p", told, class_="sub")


def notes(given: Sequence[str]) -> Html:
    """What a reader must know."""
    if not given:
        return Html("")
    return section("Notes", h("ul", *(h("li", note) for note in given)))


# ------------------------------------------------------------------ time


def in_words(step: PathStep) -> str:
    """A step of the critical path: "38.0 % behind a full queue of pe[17]"."""
    share = percent(step.share)
    if step.kind == "computing":
        told = f"{share} computing in {step.where}"
    elif step.kind == "full queue":
        told = f"{share} behind the full queue {step.where}"
    else:
        told = f"{share} waiting for the resource {step.where}"
    if step.lane and step.cycles:
        told += f"; most at {step.lane}: {percent(step.share * step.lane_cycles / step.cycles)}"
    return told


def path_bar(steps: Sequence[PathStep], *, words: bool = True) -> Html | None:
    """The chain of causes as a bar with words; None where it is not known."""
    if not steps:
        return None
    large = [step for step in steps if step.share >= SMALL_SHARE]
    rest = sum(step.share for step in steps) - sum(step.share for step in large)
    shares = [(KINDS[step.kind], step.share) for step in large]
    told = [(KINDS[step.kind], in_words(step)) for step in large]
    if rest > 0:
        shares.append(("elsewhere", rest))
        told.append(("elsewhere", f"{percent(rest)} in steps of less than 1 % each"))
    alt = "Critical path: " + "; ".join(line for _, line in told)
    return join([bar(shares, alt, tall=True), share_list(told) if words else None])


def path_section(report: Report) -> Html:
    """Where the time went: the critical path."""
    drawn = path_bar(report.critical_path)
    if drawn is None:
        return Html("")
    why = (
        f"The {report.cycles:,} cycles walked back from the end of the run: at each step, what the "
        "firing waited for last. The pieces sum to the run."
    )
    return section("Critical path", h("p", why), drawn)


def stall_table(stalls: Mapping[str, Stalls], caption: str) -> Html:
    """Where the lane-cycles of every actor went: one bar per row, with its numbers."""
    rows = []
    for name, part in stalls.items():
        times = {state: getattr(part, state) for state in STATES}
        whole = max(sum(times.values()), 1)
        shares = [(state, time / whole) for state, time in times.items()]
        cells = [share_cell(share) for _, share in shares]
        rows.append([name, count(part.lanes), Html(bar(shares)), *cells])
    columns = ("actor", "lanes", "where its time went", *STATES)
    return join([legend(STATES.items()), Table(caption, columns, rows, plain=len(rows) < 3).html()])


def ideal_table(report: Report) -> Html:
    """What each step from an ideal machine to the simulated one costs."""
    rows = []
    for what, cycles in ideal_steps(report):
        share = cycles / report.cycles if report.cycles else 0.0
        rows.append([what, bar([("busy", min(share, 1.0))]), count(cycles), share_cell(share)])
    columns = ("cycles if", "", "cycles", "of the run")
    return Table("From an ideal machine to the simulated one", columns, rows, plain=True).html()


# ------------------------------------------------------------------ energy and memories


def energy_hues(energies: Sequence[Energy]) -> dict[str, str]:
    """A class for every part, the largest first; the least share one."""
    sums: dict[str, float] = {}
    for energy in energies:
        for part in energy.parts:
            sums[part.part] = sums.get(part.part, 0.0) + (part.energy_pj or 0.0)
    ordered = sorted(sums, key=lambda name: -sums[name])
    return {name: f"c{min(place, HUES - 1)}" for place, name in enumerate(ordered)}


def energy_shares(energy: Energy, hues: Mapping[str, str]) -> list[tuple[str, float]]:
    """Shares of the known energy by class, in the order of the classes."""
    known = sum(part.energy_pj or 0.0 for part in energy.parts) or 1.0
    shares: dict[str, float] = {}
    for part in energy.parts:
        hue = hues[part.part]
        shares[hue] = shares.get(hue, 0.0) + (part.energy_pj or 0.0) / known
    return sorted(shares.items())


def energy_table(energy: Energy, caption: str = "Energy by part") -> Html:
    """Energy by part with basis and source."""
    hues = energy_hues([energy])
    known = sum(part.energy_pj or 0.0 for part in energy.parts)
    rows = []
    for part in energy.parts:
        share = None if part.energy_pj is None or not known else part.energy_pj / known
        drawn = bar([(hues[part.part], share or 0.0)])
        rows.append([
            part.part, energy_cell(part.energy_pj), share_cell(share), drawn, part.basis.value,
            h("span", part.source, class_="note"),
        ])  # fmt: skip
    sums = [["total", energy_cell(energy.total_pj), "", "", "", ""]]
    columns = ("part", "energy", "share", "", "basis", "source of its constant")
    return Table(caption, columns, rows, sums=sums).html()


def memory_table(memories: Mapping[str, Memory]) -> Html:
    """Size, filling and traffic of every memory."""
    rows = [
        [
            name,
            Number(f"{part.used_bits / 8192:,.1f}", part.used_bits),
            Number(f"{part.capacity_bits / 8192:,.1f}", part.capacity_bits),
            "yes" if part.fits else h("span", "no", class_="bad"),
            Number(with_unit(part.read_bits / 8, "B"), part.read_bits),
            Number(with_unit(part.written_bits / 8, "B"), part.written_bits),
            Number(f"{part.read_gbytes_per_s:,.3g}", part.read_gbytes_per_s),
            Number(f"{part.written_gbytes_per_s:,.3g}", part.written_gbytes_per_s),
            h("span", part.source, class_="note"),
        ]
        for name, part in memories.items()
    ]
    columns = (
        "memory", "used (KiB)", "size (KiB)", "fits", "read", "written", "read (GB/s)",
        "written (GB/s)", "source of its size",
    )  # fmt: skip
    return Table("Memories: how full they are and what moved", columns, rows).html()


def counter_table(counters: Mapping[str, int]) -> Html:
    """What was counted."""
    rows = [[name.replace("_", " "), count(value)] for name, value in counters.items()]
    return Table("Counters of the run", ("counter", "times"), rows).html()


# ------------------------------------------------------------------ where it comes from


def provenance(made: Provenance, title: str = "Provenance") -> Html:
    """Configuration and versions: what is needed to run it again."""
    return section(title, *provenance_tables(made))


def provenance_tables(made: Provenance, whose: str = "") -> list[Html]:
    """Likewise without a heading."""
    fields = [(name, _value(value)) for name, value in made.configuration.items()]
    versions = list(made.versions.items())
    return [
        h("p", f"Inputs: {made.inputs}"),
        Table(f"Configuration{whose}", ("field", "value"), fields).html(),
        Table(f"Versions{whose}", ("package", "version"), versions, plain=True).html(),
    ]


def _value(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return Number(f"{value:,}" if isinstance(value, int) else f"{value:g}", float(value))


def outcome(report: Report) -> tuple[str, str]:
    """Whether its outputs are right, in a word and in words."""
    checked = report.verification
    if checked.status == "exact":
        return "exact", f"{checked.outputs:,} outputs, bit by bit"
    if checked.status == "mismatch":
        return "MISMATCH", f"{checked.mismatches:,} of {checked.outputs:,} outputs differ"
    return "skipped", "outputs were not compared"


def captioned(drawn: Html, caption: str, title: str = "") -> Html:
    """A figure with a heading above and words below."""
    return figure(h("h4", title) if title else None, drawn, caption=caption)
