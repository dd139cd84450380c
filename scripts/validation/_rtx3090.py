"""The RTX 3090 model against measured GEMMs, dense and 2:4: ``rtx3090_gemm.csv`` or one like it.

The rows are those of the VENOM repository (SC 2023): fp16, weights of m x k by k x n. Every row has
a time of the dense library; those of the kernel ``cuSPARSELt`` have one of the 2:4 library. Other
kernels' own times are not compared, and a product's time in a library is the median of its rows.

One constant is fitted, on the largest dense product: the power limit, as of the A100, under which
each tiling has a clock of its own. It is a condition of the measurement. The rows of the kernels
CLASP and Sputnik come from a run whose dense library was about twice as fast: some of its times
exceed the peak of fp32 sums. They are kept apart, as sums in fp16, at the clock of the fitted
product: the model's power is that of fp32 sums, and what sums in fp16 take is not known.

Each product has a regime, by what the model says of it: ``launch`` where a tenth of the time is
spent before the kernel, ``memory`` where DRAM is busier than the tensor cores, ``wave`` where the
last wave leaves a tenth of all SM waves idle, else ``compute``.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from statistics import fmean, median
from typing import Any

import msgspec

from sparqsim.architectures import presets
from sparqsim.architectures.sparse_tensor_core import Plan, Shape, SparseTensorCore, best_tiling
from sparqsim.base import InputError, read_csv
from sparqsim.scripts.output import PatientBar, console, marked, table
from sparqsim.scripts.validation import _power_limit
from sparqsim.scripts.validation._evidence import spearman
from sparqsim.scripts.validation._power_limit import power_limit_w

REFERENCE = Path(__file__).with_name("rtx3090_gemm.csv")
COLUMNS = ("kernel", "m", "k", "n", "sparse_ms", "dense_cublas_ms")
MEASURED_ON = "rtx3090"  # the preset
SPARSE_LIBRARY = "cuSPARSELt"
FP16_SUMS = "dense, fp16 sums"
APART = ("CLASP", "Sputnik")  # kernels whose rows have dense times of another run
DENSE_FIT = Shape(rows=4096, columns=8192, depth=1024)  # the largest dense product
PATTERNS = {"dense": "dense", FP16_SUMS: "dense", "2:4": "2:4"}  # library -> pattern
REGIMES = ("launch", "memory", "wave", "compute")
BOUND = 0.10  # of a time
TENTH = 0.10  # of a time or of SM waves; see the regimes


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """A product in a library: the median of its measured milliseconds, and how many there are."""

    library: str
    shape: Shape
    milliseconds: float
    rows: int


class Compared(msgspec.Struct, frozen=True, kw_only=True):
    """A product's time beside ours; ``error`` is relative, ``fitted`` agrees by construction."""

    library: str
    shape: str
    regime: str
    tiling: str
    rows: int
    measured: float
    simulated: float
    error: float
    fitted: bool
    within: bool


class Fit(msgspec.Struct, frozen=True, kw_only=True):
    """What was fitted."""

    power_limit_w: float
    clock_mhz: float


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


def is_such_a_table(path: str | Path) -> bool:
    """Whether a file has the columns of this table."""
    header, _ = read_csv(path, "the table")
    return set(COLUMNS) <= set(header)


def read_table(path: str | Path) -> list[Measured]:
    """The products of a table in each library, with the median of their times.

    Raises
    ------
    InputError
        If the file cannot be read, lacks a column, is truncated, has no row, or holds a size that
        is no whole number from 1 or a time that is no positive number.
    """
    header, lines = read_csv(path, "the table")
    missing = [column for column in COLUMNS if column not in header]
    if missing:
        raise InputError(
            f"{path} must have the columns {', '.join(COLUMNS)}; it lacks {', '.join(missing)}"
        )
    found: dict[tuple[str, Shape], list[float]] = defaultdict(list)
    for number, line in lines:
        where = f"{path}, line {number}"
        if None in line or None in line.values():
            raise InputError(
                f"{where}: must have as many fields as the header; the file may be truncated"
            )
        shape = Shape(*(_size(line[name], f"{where}: {name}") for name in ("m", "n", "k")))
        apart = line["kernel"].startswith(APART)
        dense = FP16_SUMS if apart else "dense"
        found[dense, shape].append(_time(line["dense_cublas_ms"], f"{where}: dense_cublas_ms"))
        if line["kernel"] == SPARSE_LIBRARY:
            found["2:4", shape].append(_time(line["sparse_ms"], f"{where}: sparse_ms"))
    if not found:
        raise InputError(f"{path} has no row; nothing to compare")
    return [
        Measured(library=library, shape=shape, milliseconds=median(times), rows=len(times))
        for (library, shape), times in sorted(found.items())
    ]


def _size(field: str, where: str) -> int:
    if not (field.isdecimal() and int(field) > 0):
        raise InputError(f"{where} must be a whole number from 1, got {field!r}")
    return int(field)


def _time(field: str, where: str) -> float:
    try:
        value = float(field)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise InputError(f"{where} must be a positive number of milliseconds, got {field!r}")
    return value


def measured_on() -> SparseTensorCore:
    """The GPU of the table."""
    machine = presets.load(MEASURED_ON)
    assert isinstance(machine, SparseTensorCore)
    return machine


def milliseconds(machine: SparseTensorCore, shape: Shape, library: str) -> float:
    """Time of a product in a library on a machine."""
    return _power_limit.milliseconds(machine, shape, PATTERNS[library], "fp16")


def fit(rows: Iterable[Measured], machine: SparseTensorCore) -> Fit:
    """The power limit that meets the product to fit."""
    times = {row.shape: row.milliseconds for row in rows if row.library == "dense"}
    limit = power_limit_w(machine, DENSE_FIT, "fp16", times[DENSE_FIT])
    limited = msgspec.structs.replace(machine, power_limit_w=limit)
    clock = limited.gemm(*DENSE_FIT, pattern="dense").netlist.clock_hz
    return Fit(power_limit_w=limit, clock_mhz=clock / 1e6)


def fitted_machine(found: Fit, library: str, machine: SparseTensorCore) -> SparseTensorCore:
    """The GPU with the fit; sums in fp16 run at its full rate, at the fitted product's clock."""
    if library == FP16_SUMS:
        return msgspec.structs.replace(machine, fp32_accumulate=1.0, clock_hz=1e6 * found.clock_mhz)
    return msgspec.structs.replace(machine, power_limit_w=found.power_limit_w)


def compare(measured: Measured, found: Fit, machine: SparseTensorCore) -> Compared:
    """A product's time beside ours."""
    machine = fitted_machine(found, measured.library, machine)
    simulated = milliseconds(machine, measured.shape, measured.library)
    cores = machine.cores("fp16", PATTERNS[measured.library])
    tiling = best_tiling(cores, measured.shape)
    error = simulated / measured.milliseconds - 1
    fitted = (measured.library, measured.shape) == ("dense", DENSE_FIT)
    return Compared(
        library=measured.library,
        shape="x".join(map(str, measured.shape[:3])),
        regime=regime(Plan(cores, measured.shape, tiling), simulated / 1e3),
        tiling=f"{tiling.rows}x{tiling.columns}"
        + (f" in {tiling.splits}" if tiling.splits > 1 else ""),
        rows=measured.rows,
        measured=measured.milliseconds,
        simulated=simulated,
        error=error,
        fitted=fitted,
        within=abs(error) <= BOUND,
    )


def regime(plan: Plan, seconds: float) -> str:
    """What bounds a product that takes so long; see the module."""
    cores, gpu = plan.cores, plan.cores.gpu
    before_us = gpu.launch_us * plan.launches
    before_us += 0.0 if cores.sparsity.is_dense else gpu.sparse_call_us
    if before_us * 1e-6 >= TENTH * seconds:
        return "launch"
    cycles = seconds * gpu.clock_hz
    moved = plan.missed_bytes.sum() + plan.output_bytes
    dram = moved / cores.dram_bytes_per_cycle(gpu.clock_hz) / cycles
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


def summaries(rows: list[Compared]) -> list[Summary]:
    """By library and regime, each library whole, and the two libraries together."""
    made = []
    for library in PATTERNS:
        mine = [row for row in rows if row.library == library]
        for each in REGIMES:
            some = [row for row in mine if row.regime == each]
            made += [summarize(some, library, each)] if some else []
        made += [summarize(mine, library, "all")] if mine else []
    both = [row for row in rows if row.library != FP16_SUMS]
    return [*made, summarize(both, "dense and 2:4", "all")] if both else made


def validate(path: str | Path, bar: PatientBar) -> dict[str, Any]:
    """The whole comparison: ``fit``, ``rows``, ``summaries``, ``bound``.

    The fit stays the shipped table's, whatever the path.
    """
    machine, rows = measured_on(), read_table(path)
    bar("fitting", 0, len(rows) + 1)
    found = fit(read_table(REFERENCE), machine)
    made = []
    for number, row in enumerate(rows):
        bar(f"{row.library} {row.shape.rows} rows", number + 1, len(rows) + 1)
        made.append(compare(row, found, machine))
    return {"fit": found, "rows": made, "summaries": summaries(made), "bound": BOUND}


def show(content: dict[str, Any]) -> None:
    """Print the comparison within 100 columns."""
    found: Fit = content["fit"]
    made = table(
        "RTX 3090 fp16 GEMMs: measured and simulated",
        ("", "rows x columns x depth", "tile", "regime"),
        ("ms", "simulated", "error", ""),
        f"fitted: a power limit of {found.power_limit_w:.0f} W on the largest dense product, whose "
        f"clock is then {found.clock_mhz:.0f} MHz; "
        f"bound {100 * BOUND:.0f} % on the rest",
    )
    for row in content["rows"]:
        verdict = "fitted" if row.fitted else "" if row.within else marked("miss", "red")
        made.add_row(
            row.library, row.shape, row.tiling, row.regime, f"{row.measured:.4g}",
            f"{row.simulated:.4g}", f"{100 * row.error:+.1f} %", verdict,
        )  # fmt: skip
    console().print(made)
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


def missed(content: dict[str, Any]) -> list[str]:
    """The products outside the bound, in words."""
    return [
        f"{row.library} {row.shape}: {row.measured:.4g} ms measured, {row.simulated:.4g} ours"
        for row in content["rows"]
        if not (row.fitted or row.within)
    ]
