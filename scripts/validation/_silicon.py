"""Products measured on a GPU beside ours: what all such tables share.

A table has its module (:mod:`._rtx3090`, :mod:`._h100`), which reads it, says what is fitted and
gives the machine of each row. Here each row is simulated, and errors are summed up by regime, which
is what the model says bounds a product: ``launch`` where a tenth of the time is spent before the
kernel, ``memory`` where DRAM is busier than the tensor cores, ``wave`` where the last wave leaves a
tenth of all SM waves idle, else ``compute``. Where a table names the library's kernel, the product
is simulated a second time, cut as that kernel cuts it: what is still missed then is not the choice
of a tiling.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import msgspec

from sparqsim.architectures.machine import Program, run
from sparqsim.architectures.sparse_tensor_core import (
    Plan,
    Shape,
    SparseTensorCore,
    Tiling,
    best_tiling,
)
from sparqsim.base import InputError, read_csv
from sparqsim.scripts.output import PatientBar, console, marked, table
from sparqsim.scripts.validation._evidence import spearman
from sparqsim.scripts.validation._kernel_names import Cut, tiling_of
from sparqsim.simulator.report import Report

REGIMES = ("launch", "memory", "wave", "compute")
BOUND = 0.10  # of a time
TENTH = 0.10  # of a time or of SM waves; see the regimes


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """A product in a library: its measured milliseconds, of so many rows.

    ``clock_mhz`` and ``power_w`` are those of the SMs and the board meanwhile, where they are
    known, as is how the library's kernel ``cut`` the product.
    """

    library: str
    dtype: str
    shape: Shape
    milliseconds: float
    rows: int = 1
    clock_mhz: float | None = None
    power_w: float | None = None
    cut: Cut | None = None

    @property
    def pattern(self) -> str:
        """Of the weights."""
        return "dense" if self.library.startswith("dense") else "2:4"


class Compared(msgspec.Struct, frozen=True, kw_only=True):
    """A product's time beside ours; ``error`` is relative, ``fitted`` agrees by construction.

    ``clock_mhz`` and ``power_w`` are ours; the measured ones are None where they are not known.
    ``library_tiling`` is how the library cut the product, and ``library_error`` that of our time
    where it is cut so; None where it is not known.
    """

    library: str
    dtype: str
    shape: str
    regime: str
    tiling: str
    rows: int
    measured: float
    simulated: float
    error: float
    fitted: bool
    within: bool
    clock_mhz: float
    measured_clock_mhz: float | None
    power_w: float | None
    measured_power_w: float | None
    library_tiling: str | None
    library_error: float | None


class AsCut(msgspec.Struct, frozen=True, kw_only=True):
    """Errors of the products of a library whose cut is known, cut by our choice and by its own.

    ``known`` of all ``products``; ``same`` are those where both have one tile.
    """

    library: str
    products: int
    known: int
    same: int
    within: int
    mape: float
    bias: float
    library_within: int
    library_mape: float
    library_bias: float


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """Errors of some products: how many, and of their rows; mean and greatest magnitudes, mean.

    ``spearman`` is the rank correlation of measured and simulated times, None of fewer than three.
    """

    library: str
    regime: str
    products: int
    within: int
    rows: int
    rows_within: int
    mape: float
    bias: float
    maximum: float
    spearman: float | None


class Held(NamedTuple):
    """A machine that is held to a table: what was fitted, and the machine and fit of each row."""

    fit: msgspec.Struct
    machine: Callable[[Measured], SparseTensorCore]
    fitted: Callable[[Measured], bool]


class Silicon(NamedTuple):
    """A table of a GPU: its preset and file, how it is read and held, and what is said of it.

    ``together`` are the libraries that are summed up as one, under that title. Products of more
    than ``most_macs`` are left out where the file is not named by the user: they take too long.
    """

    preset: str
    title: str
    reference: Path
    columns: tuple[str, ...]
    read: Callable[[str | Path], list[Measured]]
    hold: Callable[[], Held]
    told: Callable[[Any], str]
    together: tuple[str, tuple[str, ...]]
    most_macs: int = 1 << 62


def has_columns(path: str | Path, columns: tuple[str, ...]) -> bool:
    """Whether a file has these columns."""
    header, _ = read_csv(path, "the table")
    return set(columns) <= set(header)


def lines_of(path: str | Path, columns: tuple[str, ...]) -> list[tuple[str, dict[str, str]]]:
    """(where, fields) of each line of a table.

    Raises
    ------
    InputError
        If the file cannot be read, lacks a column, is truncated or has no row.
    """
    header, lines = read_csv(path, "the table")
    missing = [column for column in columns if column not in header]
    if missing:
        raise InputError(
            f"{path} must have the columns {', '.join(columns)}; it lacks {', '.join(missing)}"
        )
    found = []
    for number, line in lines:
        where = f"{path}, line {number}"
        if None in line or None in line.values():
            raise InputError(
                f"{where}: must have as many fields as the header; the file may be truncated"
            )
        found.append((where, line))
    if not found:
        raise InputError(f"{path} has no row; nothing to compare")
    return found


def size(field: str, where: str) -> int:
    """A whole number from 1."""
    if not (field.isdecimal() and int(field) > 0):
        raise InputError(f"{where} must be a whole number from 1, got {field!r}")
    return int(field)


def positive(field: str, where: str, unit: str) -> float:
    """A positive number of some unit."""
    try:
        value = float(field)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise InputError(f"{where} must be a positive number of {unit}, got {field!r}")
    return value


def _sizes(shape: Shape) -> str:
    return "x".join(map(str, shape[:3]))


def _name(row: Measured) -> str:
    return f"{row.dtype} {row.library} {_sizes(row.shape)}"


def compare(measured: Measured, held: Held) -> Compared:
    """A product's time, clock and power beside ours, and as the library cut it."""
    machine = held.machine(measured)
    cores = machine.cores(measured.dtype, measured.pattern)
    tiling = best_tiling(cores, measured.shape)
    program, report = _simulated(machine, measured, tiling)
    error = 1e3 * report.seconds / measured.milliseconds - 1
    library_tiling, library_error = None, None
    if measured.cut:
        cut = tiling_of(measured.cut, cores, measured.shape)
        seconds = _simulated(machine, measured, cut)[1].seconds
        library_tiling, library_error = _told(cut), 1e3 * seconds / measured.milliseconds - 1
    return Compared(
        library=measured.library,
        dtype=measured.dtype,
        shape=_sizes(measured.shape),
        regime=regime(Plan(cores, measured.shape, tiling), report.seconds),
        tiling=_told(tiling),
        rows=measured.rows,
        measured=measured.milliseconds,
        simulated=1e3 * report.seconds,
        error=error,
        fitted=held.fitted(measured),
        within=abs(error) <= BOUND,
        clock_mhz=program.netlist.clock_hz / 1e6,
        measured_clock_mhz=measured.clock_mhz,
        power_w=report.energy.average_power_w,
        measured_power_w=measured.power_w,
        library_tiling=library_tiling,
        library_error=library_error,
    )


def _simulated(
    machine: SparseTensorCore, measured: Measured, tiling: Tiling
) -> tuple[Program, Report]:
    program = machine.gemm(
        *measured.shape, dtype=measured.dtype, pattern=measured.pattern, tiling=tiling
    )
    return program, run(machine, program, record="summary").report


def _told(tiling: Tiling) -> str:
    split = f" in {tiling.splits}" if tiling.splits > 1 else ""
    return f"{tiling.rows}x{tiling.columns}{split}"


def regime(plan: Plan, seconds: float) -> str:
    """What bounds a product that takes so long; see the module."""
    cores, gpu = plan.cores, plan.cores.gpu
    if plan.before_us * 1e-6 >= TENTH * seconds:
        return "launch"
    cycles = seconds * plan.clock_hz
    moved = plan.missed_bytes.sum() + plan.output_bytes
    dram = moved / cores.dram_bytes_per_cycle(plan.clock_hz) / cycles
    if dram >= plan.slots / (gpu.sms * cores.macs_per_sm) / cycles:
        return "memory"
    idle = 1 - plan.tiles / (plan.waves * gpu.sms)
    return "wave" if idle >= TENTH else "compute"


def summarize(rows: list[Compared], library: str, regime: str) -> Summary:
    """Errors of products of a library in a regime."""
    errors = [row.error for row in rows]
    return Summary(
        library=library,
        regime=regime,
        products=len(rows),
        within=sum(row.within for row in rows),
        rows=sum(row.rows for row in rows),
        rows_within=sum(row.rows for row in rows if row.within),
        mape=fmean(map(abs, errors)),
        bias=fmean(errors),
        maximum=max(errors, key=abs),
        spearman=spearman([row.measured for row in rows], [row.simulated for row in rows]),
    )


def summaries(rows: list[Compared], together: tuple[str, tuple[str, ...]]) -> list[Summary]:
    """By format, library and regime, each library whole, and some libraries together."""
    made = []
    formats = list(dict.fromkeys(row.dtype for row in rows))
    libraries = sorted({row.library for row in rows}, key=lambda name: (name == "2:4", name))
    for dtype, library in itertools.product(formats, libraries):
        mine = [row for row in rows if (row.dtype, row.library) == (dtype, library)]
        if not mine:
            continue
        name = library if len(formats) == 1 else f"{dtype} {library}"
        for each in REGIMES:
            some = [row for row in mine if row.regime == each]
            made += [summarize(some, name, each)] if some else []
        made.append(summarize(mine, name, "all"))
    title, summed = together
    for each in (*REGIMES, "all") if len(formats) > 1 else ("all",):
        some = [row for row in rows if row.library in summed and each in (row.regime, "all")]
        made += [summarize(some, title, each)] if some else []
    return made


def as_cut(rows: list[Compared], together: tuple[str, tuple[str, ...]]) -> list[AsCut]:
    """By format and library, and of some libraries together, where cuts are known."""
    groups: dict[str, list[Compared]] = defaultdict(list)
    for row in rows:
        groups[f"{row.dtype} {row.library}"].append(row)
    title, summed = together
    groups[title] = [row for row in rows if row.library in summed]
    made = []
    for name, mine in groups.items():
        known = [(row, row.library_error) for row in mine if row.library_error is not None]
        if not known:
            continue
        errors, theirs = [row.error for row, _ in known], [error for _, error in known]
        made.append(
            AsCut(
                library=name,
                products=len(mine),
                known=len(known),
                same=sum(row.tiling == row.library_tiling for row, _ in known),
                within=sum(row.within for row, _ in known),
                mape=fmean(map(abs, errors)),
                bias=fmean(errors),
                library_within=sum(abs(error) <= BOUND for error in theirs),
                library_mape=fmean(map(abs, theirs)),
                library_bias=fmean(theirs),
            )
        )
    return made


def validate(silicon: Silicon, against: str | None, bar: PatientBar) -> dict[str, Any]:
    """The whole comparison: ``fit``, ``rows``, ``left_out``, ``summaries``, ``as_cut``, ``bound``.

    The fit stays the shipped table's, whatever file it is held against.
    """
    rows = silicon.read(against or silicon.reference)
    most = math.inf if against else silicon.most_macs
    left_out = [_name(row) for row in rows if row.shape.macs > most]
    rows = [row for row in rows if row.shape.macs <= most]
    bar("fitting", 0, len(rows) + 1)
    held = silicon.hold()
    made = []
    for number, row in enumerate(rows):
        bar(f"{row.library} {row.shape.rows} rows", number + 1, len(rows) + 1)
        made.append(compare(row, held))
    return {
        "fit": held.fit,
        "rows": made,
        "left_out": left_out,
        "summaries": summaries(made, silicon.together),
        "as_cut": as_cut(made, silicon.together),
        "bound": BOUND,
    }


def show(silicon: Silicon, content: dict[str, Any]) -> None:
    """Print the comparison within 100 columns."""
    rows: list[Compared] = content["rows"]
    formats, clocks = {row.dtype for row in rows}, any(row.measured_clock_mhz for row in rows)
    made = table(
        f"{silicon.title} GEMMs: measured and simulated",
        ("", "rows x columns x depth", "tile", "regime"),
        ("ms", "simulated", "error", *(("MHz", "ours") if clocks else ()), ""),
        f"fitted: {silicon.told(content['fit'])}; bound {100 * BOUND:.0f} % on the rest",
    )
    for row in rows:
        verdict = "fitted" if row.fitted else "" if row.within else marked("miss", "red")
        clock = (f"{row.measured_clock_mhz:.0f}", f"{row.clock_mhz:.0f}") if clocks else ()
        made.add_row(
            row.library if len(formats) == 1 else f"{row.dtype} {row.library}", row.shape,
            row.tiling, row.regime, f"{row.measured:.4g}", f"{row.simulated:.4g}",
            f"{100 * row.error:+.1f} %", *clock, verdict,
        )  # fmt: skip
    console().print(made)
    if content["left_out"]:
        console().print(f"left out, for they take long: {', '.join(content['left_out'])}")
    made = table(
        "Errors by regime",
        ("", "regime"),
        ("products", "within", "rows", "within", "MAPE", "mean", "greatest", "Spearman"),
    )
    for each in content["summaries"]:
        rank = "" if each.spearman is None else f"{each.spearman:.3f}"
        made.add_row(
            each.library, each.regime, str(each.products), str(each.within), str(each.rows),
            str(each.rows_within), f"{100 * each.mape:.1f} %", f"{100 * each.bias:+.1f} %",
            f"{100 * each.maximum:+.1f} %", rank,
        )  # fmt: skip
    console().print(made)
    if content["as_cut"]:
        _show_as_cut(content["as_cut"])


def _show_as_cut(groups: list[AsCut]) -> None:
    made = table(
        "Errors by who chose the tile: ours, and the library (of its kernel's name)",
        ("",),
        (
            "products",
            "known",
            "same",
            "ours: within",
            "MAPE",
            "mean",
            "its: within",
            "MAPE",
            "mean",
        ),
        "known: the name tells the cut; a split depth it does not tell",
    )
    for each in groups:
        made.add_row(
            each.library, str(each.products), str(each.known), str(each.same),
            str(each.within), f"{100 * each.mape:.1f} %", f"{100 * each.bias:+.1f} %",
            str(each.library_within), f"{100 * each.library_mape:.1f} %",
            f"{100 * each.library_bias:+.1f} %",
        )  # fmt: skip
    console().print(made)


def missed(rows: Iterable[Compared]) -> list[str]:
    """The products outside the bound, in words."""
    return [
        f"{row.library} {row.shape}: {row.measured:.4g} ms measured, {row.simulated:.4g} ours"
        for row in rows
        if not (row.fitted or row.within)
    ]
