"""Reports on the terminal, within 100 columns: of a layer, of a network, of a comparison."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from sparqsim.scripts.output import console, marked, table
from sparqsim.simulator.pages.charts import percent
from sparqsim.simulator.report import (
    TOO_SMALL,
    Beside,
    Energy,
    LayerRun,
    NetworkReport,
    Operand,
    Refused,
    Report,
    Row,
    ideal_steps,
)

NOT_KNOWN = "not known"


def duration(seconds: float) -> str:
    """A time with its unit and four digits."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= size:
            return f"{seconds / size:.4g} {unit}"
    return f"{seconds / 1e-9:.4g} ns"


def joules(picojoules: float | None) -> str:
    """An energy with its unit and four digits."""
    if picojoules is None:
        return NOT_KNOWN
    for unit, size in (("J", 1e12), ("mJ", 1e9), ("uJ", 1e6), ("nJ", 1e3)):
        if picojoules >= size:
            return f"{picojoules / size:.4g} {unit}"
    return f"{picojoules:.4g} pJ"


def energy_and_power(energy: Energy) -> str:
    """The total with its mean power; or what of it is not known."""
    if energy.total_pj is None or energy.average_power_w is None:
        return f"{NOT_KNOWN}: {'; '.join(energy.missing)}"
    return f"{joules(energy.total_pj)} ({energy.average_power_w:.3g} W)"


def size(bits: int) -> str:
    """Bits in bytes with a unit and four digits."""
    for unit, least in (("GiB", 2**33), ("MiB", 2**23), ("KiB", 2**13)):
        if bits >= least:
            return f"{bits / least:.4g} {unit}"
    return f"{bits / 8:.4g} B"


VERIFIED = {
    "exact": ("yes, bit by bit", "green"),
    "mismatch": ("NO", "red"),
    "skipped": ("not checked", ""),
}


def verified(status: str, more: str = "") -> Text:
    """Whether outputs were right, and more words."""
    return Text.assemble(VERIFIED[status], more)


def checked(status: str) -> Text:
    """The same for a narrow column."""
    words = {"exact": "yes", "mismatch": "NO", "skipped": "–"}
    return Text(words[status], "red" if status == "mismatch" else "")


def decibels(value: float | None) -> str:
    """Signal to noise, or a dash where nothing differs or nothing was computed."""
    return "–" if value is None else f"{value:.1f} dB"


def stored(role: str, operand: Operand) -> str:
    """How an operand is held: its format, what the machine stores it in, and how."""
    held = "" if operand.stored_as == operand.format else f" in {operand.stored_as}"
    return (
        f"{role}: {operand.format}, {operand.how}{held}; {operand.bits} bits, one scale per "
        f"{operand.granularity}"
    )


def show(report: Report, title: str) -> None:
    """Print the report of a layer."""
    screen = console()
    screen.print(f"[bold]{escape(title)}[/bold]")
    screen.print(escape(f"{report.layer}; {report.provenance.inputs}\n"))
    warnings = _warn(screen, report.notes)
    if report.recipe:
        screen.print(f"recipe {escape(report.recipe)}")
    for role, operand in report.operands.items():
        screen.print(escape(stored(role, operand)))
    screen.print()
    macs = report.macs
    facts = table("", ("",), ("",))
    facts.show_header = False
    found = report.verification
    outputs = f" ({found.outputs:,} outputs)" if found.outputs else ""
    if found.mismatches:
        outputs += f", {found.mismatches:,} differ"
    rows: list[tuple[str, str | Text]] = [
        ("cycles", f"{report.cycles:,}"),
        ("time", duration(report.seconds)),
        ("MACs: dense", f"{macs.dense:,}" if macs.dense else "unknown"),
        ("MACs: effectual", f"{macs.effectual:,}"),
        ("entries of padding", f"{macs.padding:,}"),
        ("multipliers used", percent(report.utilization["multipliers"])),
        ("energy", energy_and_power(report.energy)),
        ("outputs verified", verified(found.status, outputs)),
        ("SQNR to the float layer", decibels(report.output_sqnr_db)),
        ("bound by", report.bound_by),
    ]
    for name, fact in rows:
        facts.add_row(name, fact)
    screen.print(facts)
    screen.print()

    ideal = table("From ideal to simulated", ("cycles if",), ("cycles", "of the run"))
    for what, cycles in ideal_steps(report):
        share = cycles / report.cycles if report.cycles else 0.0
        ideal.add_row(what, f"{cycles:,.0f}", percent(share))
    screen.print(ideal)
    screen.print()

    kinds = ("busy", "starved", "blocked", "waiting", "finished")
    stalls = table(
        "Where the lane-cycles went",
        ("part",),
        ("lanes", *kinds),
        "starved: no input; blocked: no free slot; waiting: for a resource; finished: nothing left",
    )
    for part, each in report.stalls.items():
        whole = max(each.lanes * report.cycles, 1)
        shares = [percent(getattr(each, kind) / whole) for kind in kinds]
        stalls.add_row(part, str(each.lanes), *shares)
    screen.print(stalls)
    screen.print()

    if report.critical_path:
        path = table("Critical path", ("kind", "where"), ("cycles", "of the run"))
        for step in report.critical_path[:8]:
            path.add_row(step.kind, step.where, f"{step.cycles:,}", percent(step.share))
        rest = report.critical_path[8:]
        if rest:
            cycles = sum(step.cycles for step in rest)
            path.add_row("", f"{len(rest)} more", f"{cycles:,}", percent(cycles / report.cycles))
        screen.print(path)
        screen.print()

    counters = table("Counters", ("",), ("",))
    counters.show_header = False
    for name, value in report.counters.items():
        counters.add_row(name, f"{value:,}")
    screen.print(counters)
    screen.print()

    memory = table(
        "Memories", ("memory", "source"), ("size", "used", "read", "written", "GB/s read")
    )
    for name, use in report.memory.items():
        used = marked(size(use.used_bits) + " too much" * (not use.fits), "" if use.fits else "red")
        memory.add_row(
            name,
            use.source,
            size(use.capacity_bits),
            used,
            size(use.read_bits),
            size(use.written_bits),
            f"{use.read_gbytes_per_s:.3g}",
        )
    screen.print(memory)
    screen.print()

    energy = table("Energy", ("part", "basis", "source"), ("energy", "share"))
    for item in report.energy.parts:
        mine, total = item.energy_pj, report.energy.total_pj
        known = mine is not None and total is not None
        told = percent(mine / total if total else 0.0) if known else "–"  # type: ignore[operator]
        energy.add_row(item.part, item.basis.value, item.source, joules(mine), told)
    screen.print(energy)
    for note in report.notes:
        if note not in warnings:
            screen.print(f"note: {escape(note)}")


# ------------------------------------------------------------------ a network


def million(count: int) -> str:
    """A count with a prefix and four digits."""
    for unit, least in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if count >= least:
            return f"{count / least:.4g} {unit}"
    return str(count)


def show_network(report: NetworkReport, title: str) -> None:
    """Print the report of a network: one row per layer, then totals."""
    screen = console()
    screen.print(f"[bold]{escape(title)}[/bold]")
    screen.print(escape(f"{report.network}; {report.source}\n"))
    warnings = _warn(screen, report.notes)
    screen.print(f"recipe {escape(report.recipe)}")
    for told in _stored_in_network(report.runs):
        screen.print(escape(told))
    screen.print()
    whys = list(dict.fromkeys(row.why for row in report.refused))
    listed = table(
        f"{report.network} on {report.machine}",
        ("layer", "bound by"),
        ("x", "cycles", "share", "use", "DRAM", "energy", "SQNR", "exact"),
        "x: times it stands; use: effectual MACs over what the multipliers could do; SQNR: outputs "
        "against the float layer; exact: outputs verified bit by bit",
    )
    alone = sum(row.report.cycles * row.repeat for row in report.runs)
    layer = ""
    for row in report.rows:
        name = row.name
        if isinstance(row, Beside):
            name = f"  {name.removeprefix(f'{layer}.')}"
        else:
            layer = name
        listed.add_row(name, *_cells(row, whys, alone))
    screen.print(listed)
    screen.print()
    for number, why in enumerate(whys, start=1):
        screen.print(f"({number}) not on {report.machine}: {escape(why)}")
    screen.print(_totals(report))
    if report.accuracy is not None and report.accuracy.note:
        screen.print(f"note: {escape(report.accuracy.note)}")
    for note in report.notes:
        if note not in warnings:
            screen.print(f"note: {escape(note)}")


def _cells(row: Row, whys: Sequence[str], alone: int) -> list[str | Text]:
    """A row of the table behind its name; ``alone`` is the sum of the layers' cycles."""
    if isinstance(row, Refused):
        why = f"not run ({whys.index(row.why) + 1})"
        return [why, str(row.repeat), *["–"] * 7]
    if isinstance(row, Beside):
        what = row.unit or f"{million(row.elements)} elements"
        timed = "–" if row.cycles is None else f"{row.cycles * row.repeat:,}"
        return [what, str(row.repeat), timed, *["–"] * 6]
    report = row.report
    cycles = report.cycles * row.repeat
    dram = report.memory.get("dram")
    moved = size((dram.read_bits + dram.written_bits) * row.repeat) if dram else "–"
    noise = "–" if report.output_sqnr_db is None else f"{report.output_sqnr_db:.0f} dB"
    whole = report.energy.total_pj
    return [
        report.bound_by,
        str(row.repeat),
        f"{cycles:,}",
        percent(cycles / alone if alone else 0.0),
        percent(report.utilization["multipliers"]),
        moved,
        joules(None if whole is None else whole * row.repeat),
        noise,
        checked(report.verification.status),
    ]


def _totals(report: NetworkReport) -> Table:
    """The sums, and what the network is still worth."""
    totals = report.totals
    facts = table("Totals", ("",), ("",))
    facts.show_header = False
    ran, whole = totals.layers, totals.layers_of_network
    rows: list[tuple[str, str | Text]] = [
        ("layers run", f"{ran} of {whole}"),
        ("MACs run", f"{million(totals.macs)} of {million(totals.macs_of_network)}"),
        ("cycles", f"{totals.cycles:,}"),
        ("time", duration(totals.seconds)),
        ("energy", energy_and_power(totals.energy)),
        ("energy x time", NOT_KNOWN if totals.edp_js is None else f"{totals.edp_js:.4g} Js"),
    ]
    if totals.dram_read_bits is not None and totals.dram_written_bits is not None:
        rows.append(("DRAM read", size(totals.dram_read_bits)))
        rows.append(("DRAM written", size(totals.dram_written_bits)))
    rows.append(("multipliers used", percent(totals.utilization)))
    rows.append(("outputs verified", verified(report.status)))
    noises = [row.report.output_sqnr_db for row in report.runs]
    known = [noise for noise in noises if noise is not None]
    if known:
        rows.append(("least SQNR to a float layer", decibels(min(known))))
    for row in rows:
        facts.add_row(*row)
    if report.accuracy is not None:
        judged = report.accuracy
        for name, before in judged.float32.items():
            after = judged.compressed[name]
            facts.add_row(name, f"{after:.4f} with {judged.recipe}, {before:.4f} in float32")
    return facts


def _stored_in_network(runs: Sequence[LayerRun]) -> list[str]:
    """How the layers' operands are held: each way once, with how many layers have it."""
    found: dict[str, int] = {}
    for row in runs:
        for role, operand in row.report.operands.items():
            told = stored(role, operand)
            found[told] = found.get(told, 0) + 1
    return [
        told if count == len(runs) else f"{told} ({count} of {len(runs)} layers)"
        for told, count in found.items()
    ]


def _warn(screen: Console, notes: Sequence[str]) -> list[str]:
    """Print the notes on memories that are too small; returns them."""
    warnings = [note for note in notes if TOO_SMALL in note]
    for note in warnings:
        screen.print(f"[red]{escape(note)}[/red]")
    return warnings
