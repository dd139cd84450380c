"""The DRAM model against Ramulator 2.1: 108 runs of one channel, and the closed forms behind them.

Each row of the table names an access pattern on a standard: a latency on an otherwise idle
channel, a sequential stream, a new row with each access in one bank or in rotating banks, random
accesses, and streams that mix two reads with one write. The pattern is made again, run through
:func:`sparqsim.simulator.memory.dram.replay` with the queues of the reference (32 + 32; rows that
end in ``_Q1`` have 1 + 4), and its cycles are set beside the reference's. The bounds are those
within which two independent simulators agree. Where a textbook formula gives the cycles, it is
printed.

The random addresses of the reference are not known; ours are drawn anew from a fixed seed, and
two draws differ by about 0.1 %.
Source: ``dram_reference.csv``, runs of Ramulator 2.1 (c5b1c3a4): open page, FR-FCFS with row hits
protected, write drain from 26 to 6 of 32.
"""

from __future__ import annotations

import math
import re
from pathlib import Path

import click
import msgspec
import numpy as np
from numpy.typing import NDArray

from sparqsim.base import InputError, read_csv
from sparqsim.scripts.output import check_differences, console, json_option, table, write_json
from sparqsim.scripts.validation._evidence import Evidence, Table
from sparqsim.simulator.memory.dram import Dram, DramChannel, Granularity, replay
from sparqsim.simulator.memory.standards import DramStandard

Ints = NDArray[np.int64]

REFERENCE = Path(__file__).with_name("dram_reference.csv")
COLUMNS = ("standard", "pattern", "address_map", "refresh", "requests", "cycles")
SEED = 1
RANDOM_SPAN_BYTES = 64 << 20  # random accesses fall into the first 64 MiB
CHUNK_BURSTS = 32  # 2 KiB of the mixes

# What two independent simulators agree within, by the start of the pattern's name; a pattern that
# has no bound is reported only.
BOUNDS = {
    r"lat_": 0.01,
    r"seq_": 0.01,
    r"stride_newrow_": 0.01,
    r"random_read_": 0.02,
    r"chunk\d+_random_read_": 0.02,
    r"random_write_": 0.10,
    r"mix2R1W_2K_": 0.10,
}

EVIDENCE = (
    Evidence(
        tables=(
            Table(
                title="cycles of one DRAM channel: Ramulator 2.1",
                name="{standard} {pattern}, refresh {refresh}",
                published=("reference",),
                simulated="simulated",
                quantity="standard",
                held="within",
            ),
        ),
    ),
)


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the table: what to run, and the cycles the reference took."""

    standard: str
    pattern: str
    address_map: str
    refresh: bool
    requests: int
    cycles: int


class Compared(msgspec.Struct, frozen=True, kw_only=True):
    """A pattern with the reference's cycles and ours.

    ``error`` is relative (simulated / reference - 1); ``bound`` what it may be, ``None`` if the
    row is reported only; ``formula`` the cycles of the closed form, where there is one.
    """

    standard: str
    pattern: str
    refresh: bool
    reference: int
    simulated: int
    error: float
    bound: float | None
    within: bool | None
    formula: float | None


def read_runs(path: Path) -> list[Run]:
    """The rows of a table with (at least) the columns of ``dram_reference.csv``.

    Raises
    ------
    InputError
        If it cannot be read, lacks a column, or holds something that is not a run.
    """
    header, rows = read_csv(path, "the table")
    missing = [column for column in COLUMNS if column not in header]
    if missing or not rows:
        raise InputError(
            f"{path} must have the columns {', '.join(COLUMNS)} and at least one row; "
            + (f"it lacks {', '.join(missing)}" if missing else "it has no row")
        )
    runs = []
    for line, row in rows:
        if None in row.values():
            raise InputError(f"{path}, line {line}: too few fields; the file may be truncated")
        numbers = {}
        for column in ("requests", "cycles"):
            if not (row[column].isascii() and row[column].isdigit() and int(row[column])):
                raise InputError(
                    f"{path}, line {line}: {column} must be a positive whole number, got "
                    f"{row[column]!r}"
                )
            numbers[column] = int(row[column])
        if row["refresh"] not in ("on", "off"):
            raise InputError(
                f"{path}, line {line}: refresh must be on or off, got {row['refresh']!r}"
            )
        runs.append(
            Run(
                standard=row["standard"],
                pattern=row["pattern"],
                address_map=row["address_map"],
                refresh=row["refresh"] == "on",
                **numbers,
            )
        )
    return runs


def pattern_requests(
    dram: Dram, pattern: str, count: int, rng: np.random.Generator
) -> tuple[Ints, Ints]:
    """The addresses (in bursts) of a pattern of the table, and whether each access writes.

    Raises
    ------
    InputError
        If no pattern has that name.
    """
    timing, where = dram.timing, dram.layout()
    bursts = np.arange(count)
    row_step = 1 << where["Ro"][0]
    span = RANDOM_SPAN_BYTES // timing.burst_bytes
    base = re.sub(r"_Q\d+$", "", pattern)
    writes = np.full(count, int(re.search(r"_wr_|_write_", base) is not None))
    if re.fullmatch(r"seq_(read|write)_\w+", base):
        return bursts, writes
    if base == "stride_newrow_samebank":
        return bursts * row_step, writes
    if base == "stride_newrow_diffbank":  # bank groups first, then the banks within them
        group, rest = bursts % timing.bank_groups, bursts // timing.bank_groups
        bank, row = rest % timing.banks_per_group, rest // timing.banks_per_group
        return row * row_step + (bank << where["Ba"][0]) + (group << where["Bg"][0]), writes
    if re.fullmatch(r"random_(read|write)_64M", base):
        return rng.integers(0, span, count), writes
    if chunk := re.fullmatch(r"chunk(\d+)_random_read_64M", base):
        size = max(1, int(chunk[1]) // timing.burst_bytes)
        start = rng.integers(0, span // size, -(-count // size)) * size
        return (start[:, None] + np.arange(size)).ravel()[:count], writes
    if mix := re.fullmatch(r"mix2R1W_(2K|64B)_(same|diff)bank", base):
        # c[i] = f(a[i], b[i]): chunks of a, b and c in turn; the arrays begin in one bank, or
        # a quarter of the banks apart.
        size = CHUNK_BURSTS if mix[1] == "2K" else 1
        array, place = bursts // size % 3, bursts // (3 * size) * size + bursts % size
        length = -(-count // 3 // row_step) * row_step
        apart = max(1, timing.banks_per_group // 4) << where["Ba"][0]
        shift = array * apart if mix[2] == "diff" else 0
        return array * length + shift + place, (array == 2).astype(np.int64)
    raise InputError(f"no DRAM pattern {pattern!r}; the names are those of {REFERENCE.name}")


def isolated_latency(channel: DramChannel, pattern: str) -> int:
    """Cycles of one access to an idle channel whose row is open, closed, or in conflict."""
    from sparqsim.simulator.memory import dram_kernels as kernels

    case = re.fullmatch(r"lat_(wr_)?(closed|hit|conflict)", pattern)
    if case is None:
        raise InputError(f"no DRAM pattern {pattern!r}; latencies are lat_[wr_]closed|hit|conflict")
    dram = channel.dram
    parameters, state = channel.parameters(), channel.initial_state()
    row_step = (1 << dram.layout()["Ro"][0]) * dram.timing.burst_bytes
    before, access = dram.requests(
        [row_step if case[2] == "conflict" else 0, 0],
        dram.timing.burst_bytes,
        [False, case[1] is not None],
    )[0]
    now = 0
    if case[2] != "closed":
        kernels.serve(parameters, state, before, now)
        now = dram.timing.tREFI // 2  # long after, so that nothing of it is left but the row
    _, _, latency = kernels.serve(parameters, state, access, now)
    return int(latency)


def bound_of(pattern: str) -> float | None:
    """What a pattern's relative error may be; ``None`` if it is reported only."""
    return next((bound for start, bound in BOUNDS.items() if re.match(start, pattern)), None)


def closed_form(
    timing: DramStandard, pattern: str, mapping: str, count: int, refresh: bool
) -> float | None:
    """Cycles a textbook formula gives for a pattern of the table, if one does.

    With b cycles a burst, N accesses, L = CL or CWL: a lone access takes
    1 + {0 hit, tRCD closed, tRP + tRCD conflict} + L + b; a stream 1 + tRCD + L + N b; a new row
    of one bank each time 1 + (N-1) tRC + tRCD + L + b; of rotating banks the same with
    max(tFAW, 4 tRRD_S) per four activates; u bursts an activate at random
    N max(b, s / u) with s = max(b, tRRD_S, tFAW / 4, tRC / banks). Every tREFI a stream loses
    tRTP + tRP + tRFC + tRCD - b (reads) or CWL + b + tWR + tRP + tRFC + tRCD - b (writes).
    """
    write = re.search(r"_wr_|_write_", pattern) is not None
    burst = timing.burst_cycles
    activate = timing.tRCD_wr if write else timing.tRCD_rd
    alone = 1 + activate + (timing.CWL if write else timing.CL) + burst
    if latency := re.fullmatch(r"lat_(?:wr_)?(\w+)", pattern):
        return alone + {"closed": 0, "hit": -activate, "conflict": timing.tRP}[latency[1]]
    if re.search(r"_Q1$", pattern) or timing.tCCD_S != burst:
        return None
    base = re.sub(r"_Q\d+$", "", pattern)
    cycles: float
    if base.startswith("seq_"):
        step = burst
        if timing.bank_groups > 1 and mapping.endswith("Co"):
            step = timing.tCCD_L  # whole rows of one bank group
        cycles = alone + (count - 1) * step
        gap = timing.tRTP
        if write:
            gap = timing.CWL + burst + timing.tWR
        lost = gap + timing.tRP + timing.tRFC + activate - step
    elif base == "stride_newrow_samebank":
        cycles, lost = alone + (count - 1) * timing.tRC, timing.tRFC
    elif base == "stride_newrow_diffbank" and not refresh:
        four = max(timing.tFAW, 4 * timing.tRRD_S)
        cycles, lost = alone + (count - 1) // 4 * four + (count - 1) % 4 * timing.tRRD_S, 0
    elif random := re.fullmatch(r"(?:chunk(\d+)_)?random_(?:read|write)_64M", base):
        size = max(1, int(random[1] or 0) // timing.burst_bytes)
        if mapping.endswith("Bg"):  # a chunk spreads over the bank groups
            size = max(1, size // timing.bank_groups)
        opening = max(burst, timing.tRRD_S, timing.tFAW / 4, timing.tRC / timing.banks)
        cycles = alone + count * max(burst, opening / size)
        lost = timing.tRTP + timing.tRP + timing.tRFC + activate - burst
    else:
        return None
    if not refresh:
        return cycles
    total: float = cycles
    while True:  # refreshes lengthen the run, which may then see one more
        longer = cycles + math.floor(total / timing.tREFI) * lost
        if longer == total:
            return total
        total = longer


def compare(run: Run) -> Compared:
    """Run one row of the table."""
    dram = Dram(standard=run.standard, mapping=run.address_map, refresh=run.refresh)
    if run.pattern.startswith("lat_"):
        simulated = isolated_latency(dram.channel(), run.pattern)
    else:
        rng = np.random.default_rng(SEED)
        address, writes = pattern_requests(dram, run.pattern, run.requests, rng)
        burst = dram.timing.burst_bytes
        requests = dram.requests(address * burst, burst, writes, Granularity.BURST)[0]
        queues = (1, 4) if run.pattern.endswith("_Q1") else (32, 32)
        simulated = replay(
            dram.channel(), requests, read_queue=queues[0], write_queue=queues[1]
        ).cycles
    error = simulated / run.cycles - 1
    bound = bound_of(run.pattern)
    return Compared(
        standard=run.standard,
        pattern=run.pattern,
        refresh=run.refresh,
        reference=run.cycles,
        simulated=simulated,
        error=error,
        bound=bound,
        within=None if bound is None else abs(error) <= bound,
        formula=closed_form(dram.timing, run.pattern, run.address_map, run.requests, run.refresh),
    )


def misses(rows: list[Compared]) -> list[str]:
    """The rows outside their bounds, in words."""
    return [
        f"{row.standard} {row.pattern}, refresh {'on' if row.refresh else 'off'}: "
        f"{row.reference:,} in the table, {row.simulated:,} simulated"
        for row in rows
        if row.within is False
    ]


def print_table(rows: list[Compared]) -> None:
    """Show the rows and, below them, how many lie within their bounds."""
    shown = table(
        "DRAM, cycles (tCK) of one channel: Ramulator 2.1 and ours",
        ("standard", "pattern", "refresh"),
        ("reference", "simulated", "error %", "bound %", "formula", ""),
    )
    for row in rows:
        shown.add_row(
            row.standard,
            row.pattern,
            "on" if row.refresh else "off",
            f"{row.reference:,}",
            f"{row.simulated:,}",
            f"{100 * row.error:+.2f}",
            "none" if row.bound is None else f"{100 * row.bound:.0f}",
            "" if row.formula is None else f"{row.formula:,.0f}",
            "miss" if row.within is False else "",
            style="red" if row.within is False else None,
        )
    screen = console()
    screen.print(shown)
    bounded = [row for row in rows if row.within is not None]
    missed = misses(rows)
    for miss in missed:
        screen.print(f"miss: {miss}")
    screen.print(
        f"{len(bounded) - len(missed)} of {len(bounded)} rows with a bound are within it; "
        f"{len(rows) - len(bounded)} are reported only."
    )


@click.command("dram")
@click.option(
    "--against",
    type=click.Path(path_type=Path),
    default=REFERENCE,
    help="A table with the columns of dram_reference.csv; default: the shipped one.",
)
@json_option
def command(against: Path, json_path: str | None) -> None:
    """The DRAM model beside Ramulator 2.1, pattern by pattern."""
    rows = []
    for run in read_runs(against):
        try:
            rows.append(compare(run))
        except InputError as error:
            raise InputError(f"{against}: {error}") from None
    if json_path is not None:
        write_json({"rows": rows}, json_path)
    if json_path != "-":
        print_table(rows)
    check_differences(str(against), misses(rows))
