"""The A100 model against measured GEMMs, dense and 2:4: ``a100_sparse.csv`` or a table like it.

Two things a shape does not tell are fitted, both on the shipped table's 4096^3 fp16 row: the
board's power limit, so that the dense time is met, and the time of a call of the sparse library
around its kernel, so that the sparse time is met. Nothing else is tuned, and every other row, of
another table too, is a prediction. Both belong to the conditions of a measurement, not to the
chip: a row whose note says that the clocks were locked runs under the power limit that the note
states, or without one (what the fitted limit would do to it is printed beside), and a row whose
calls follow back to back, as in CUTLASS's profiler and PyTorch's timer, has no library call, which
then hides behind the kernel before.

A linear layer of DistilBERT (768 x 3072, batch 4) is there twice, by two users. The times of one,
its other batches too, are predicted within 9 %; those of the other are 4.5 and 6 times as long.
For a time outside the bound the slowest of all tilings is printed: what is beyond it is outside
the kernel, and no model of a kernel can have it.

Rows that are no fp16, bf16, tf32 or int8 product of a stated size with a time are listed as left
out, with the reason. The table has no row for a single token; the model's prediction is printed.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import click
import msgspec

from sparqsim.architectures import presets
from sparqsim.architectures.machine import run
from sparqsim.architectures.sparse_tensor_core import (
    KINDS,
    Shape,
    SparseTensorCore,
    tilings,
)
from sparqsim.base import InputError, read_csv
from sparqsim.scripts.output import (
    PatientBar,
    check_differences,
    console,
    json_option,
    marked,
    table,
    write_json,
)
from sparqsim.scripts.validation import _silicon
from sparqsim.scripts.validation._evidence import Evidence, Table
from sparqsim.scripts.validation._h100 import SILICON as H100
from sparqsim.scripts.validation._power_limit import power_limit_w
from sparqsim.scripts.validation._rtx3090 import SILICON as RTX3090

REFERENCE = Path(__file__).with_name("a100_sparse.csv")
COLUMNS = ("item", "M", "N", "K", "dtype", "dense_ms", "sparse_ms", "note")
MEASURED_ON = "a100-40gb"  # the preset
FITTED_SHAPE = (4096, 4096, 4096)
PATTERNS = {"dense_ms": "dense", "sparse_ms": "native"}
BOUND = 0.15  # of a time, on rows that were not fitted
ONE_TOKEN = (4096, 1, 4096)  # a layer of a 7-billion-parameter language model on one token

SILICON = {each.preset: each for each in (RTX3090, H100)}  # tables of many products
EVIDENCE = (
    Evidence(
        long=True,
        tables=(
            Table(
                title="A100 (40 GB) GEMMs, measured",
                name="{item} {shape} {quantity}",
                published=("measured",),
                simulated="simulated",
                quantity="quantity",
                held="within",
                fitted="fitted",
            ),
        ),
    ),
    *(
        Evidence(
            arguments=("--gpu", each.preset),
            long=each is H100,
            tables=(
                Table(
                    title=f"{each.title} GEMMs, measured (ms)",
                    name="{dtype} {library} {shape}",
                    published=("measured",),
                    simulated="simulated",
                    quantity="library",
                    held="within",
                    fitted="fitted",
                ),
            ),
        )
        for each in SILICON.values()
    ),
)


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """A row of the table: a product, and its times in milliseconds where they were measured.

    ``limit_w`` is the power limit of a run with locked clocks (0: none stated; None: clocks were
    not locked); ``bare`` says that kernels alone were timed.
    """

    item: str
    rows: int
    columns: int
    depth: int
    dtype: str
    dense_ms: float | None
    sparse_ms: float | None
    limit_w: float | None
    bare: bool

    @property
    def shape(self) -> tuple[int, int, int]:
        """Rows, columns and depth."""
        return self.rows, self.columns, self.depth


class Fit(msgspec.Struct, frozen=True, kw_only=True):
    """What was fitted: a power limit in watts (0: none) and a library call in microseconds."""

    power_limit_w: float
    clock_mhz: float
    sparse_call_us: float


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One number of the table beside ours; ``error`` is relative.

    ``fitted`` numbers agree by construction. ``simulated_at_limit`` is the time under the fitted
    power limit where the row itself ran without it. ``slowest_kernel`` is that of the slowest
    tiling, without a library's call, where the measured time is longer than ours and outside the
    bound.
    """

    item: str
    shape: str
    dtype: str
    quantity: str
    measured: float
    simulated: float
    error: float
    fitted: bool
    within: bool
    simulated_at_limit: float | None = None
    slowest_kernel: float | None = None


def read_table(path: str | Path) -> tuple[list[Measured], list[tuple[str, str]]]:
    """The products of a table, and (item, reason) of each row that is left out.

    Raises
    ------
    InputError
        If the file cannot be read, lacks a column, is truncated, holds a time that is no positive
        number, or has no product at all.
    """
    header, lines = read_csv(path, "the table")
    missing = [column for column in COLUMNS if column not in header]
    if missing:
        raise InputError(
            f"{path} must have the columns {', '.join(COLUMNS)}; it lacks {', '.join(missing)}"
        )
    found: list[Measured] = []
    left_out: list[tuple[str, str]] = []
    for number, line in lines:
        if None in line or None in line.values():
            raise InputError(
                f"{path}, line {number}: must have as many fields as the header; the file may be "
                "truncated"
            )
        times = {name: _time(line[name], f"{path}, line {number}: {name}") for name in
                 ("dense_ms", "sparse_ms")}  # fmt: skip
        shape = _shape(line)
        reason = ""
        if shape is None:
            reason = "no size M, N, K"
        elif line["dtype"] not in KINDS:
            reason = f"no format {line['dtype']!r}"
        elif times["dense_ms"] is None and times["sparse_ms"] is None:
            reason = "no time"
        if reason or shape is None:
            left_out.append((line["item"], reason))
            continue
        found.append(
            Measured(
                item=line["item"],
                rows=shape[0],
                columns=shape[1],
                depth=shape[2],
                dtype=line["dtype"],
                dense_ms=times["dense_ms"],
                sparse_ms=times["sparse_ms"],
                limit_w=_limit_w(line["note"]),
                bare=line["item"].strip() == "GEMM CUTLASS" or "back to back" in line["note"],
            )
        )
    if not found:
        raise InputError(f"{path} has no row with M, N, K, dtype and a time; nothing to compare")
    return found, left_out


def _time(field: str, where: str) -> float | None:
    if not field.strip():
        return None
    try:
        value = float(field)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise InputError(f"{where} must be a positive number of milliseconds, got {field!r}")
    return value


def _limit_w(note: str) -> float | None:
    """The power limit a note on locked clocks states; see :class:`Measured`."""
    if "clocks locked" not in note:
        return None
    stated = re.search(r"clocks locked[^;]*?\b(\d+(?:\.\d+)?) ?W\b", note)
    return float(stated[1]) if stated else 0.0


def _shape(line: dict[str, str]) -> tuple[int, int, int] | None:
    """(rows, columns, depth) of a row; ``m x k x n batchB`` in K is B times m vectors of k."""
    sizes = [line[name].strip() for name in ("M", "N", "K")]
    if all(size.isdecimal() and int(size) > 0 for size in sizes):
        return int(sizes[0]), int(sizes[1]), int(sizes[2])
    linear = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)x([1-9]\d*) batch([1-9]\d*)", sizes[2])
    if linear is None:
        return None
    vectors, depth, outputs, batch = map(int, linear.groups())
    return outputs, vectors * batch, depth


def measured_on() -> SparseTensorCore:
    """The GPU of the table."""
    machine = presets.load(MEASURED_ON)
    assert isinstance(machine, SparseTensorCore)
    return machine


def milliseconds(
    machine: SparseTensorCore, shape: tuple[int, int, int], pattern: str, dtype: str = "fp16"
) -> float:
    """Time of a product on a machine."""
    program = machine.gemm(*shape, dtype=dtype, pattern=pattern)
    return 1e3 * run(machine, program, record="summary").report.seconds


def slowest_milliseconds(
    machine: SparseTensorCore, shape: tuple[int, int, int], pattern: str, dtype: str
) -> float:
    """Time of a product under the slowest of its tilings, without a library's call."""
    bare = msgspec.structs.replace(machine, sparse_call_us=0.0)
    times = []
    for tiling in tilings(bare.cores(dtype, pattern), Shape(*shape)):
        program = bare.gemm(*shape, dtype=dtype, pattern=pattern, tiling=tiling)
        times.append(run(bare, program, record="summary").report.seconds)
    return 1e3 * max(times)


def fit(measured: Measured, machine: SparseTensorCore) -> Fit:
    """The power limit and the library call that meet a row's two times.

    A limit can only slow the kernel down, a call only add to it: where the model is slower than
    the measurement already, the limit stays off and the call 0, and the error shows.

    Raises
    ------
    InputError
        If the row lacks one of its times.
    """
    if measured.dense_ms is None or measured.sparse_ms is None:
        raise InputError("the row to fit must have dense_ms and sparse_ms")
    shape, dtype = measured.shape, measured.dtype
    limit = power_limit_w(machine, Shape(*shape), dtype, measured.dense_ms)
    limited = msgspec.structs.replace(machine, power_limit_w=limit)
    sparse_ms = milliseconds(limited, shape, "native", dtype)
    call_ms = max(0.0, measured.sparse_ms - sparse_ms)
    clock = limited.gemm(*shape, dtype=dtype, pattern="dense").netlist.clock_hz
    return Fit(power_limit_w=limit, clock_mhz=clock / 1e6, sparse_call_us=1e3 * call_ms)


def fitted_row() -> Measured:
    """The row of the shipped table that is fitted."""
    return next(row for row in read_table(REFERENCE)[0] if row.shape == FITTED_SHAPE)


def compare(measured: Measured, found: Fit, machine: SparseTensorCore) -> list[Row]:
    """Every number of a row beside ours: times, and the speed-up where both were measured."""
    machine = msgspec.structs.replace(
        machine,
        power_limit_w=found.power_limit_w if measured.limit_w is None else measured.limit_w,
        sparse_call_us=0.0 if measured.bare else found.sparse_call_us,
    )
    fitted = measured == fitted_row()
    ours: dict[str, float] = {}
    at_limit: dict[str, float] = {}
    theirs = {"dense_ms": measured.dense_ms, "sparse_ms": measured.sparse_ms}
    for quantity, pattern in PATTERNS.items():
        if theirs[quantity] is not None:
            what = measured.shape, pattern, measured.dtype
            ours[quantity] = milliseconds(machine, *what)
            if measured.limit_w is not None and found.power_limit_w:
                slower = msgspec.structs.replace(machine, power_limit_w=found.power_limit_w)
                at_limit[quantity] = milliseconds(slower, *what)
    if len(ours) == 2:
        theirs["speedup"] = measured.dense_ms / measured.sparse_ms  # type: ignore[operator]
        ours["speedup"] = ours["dense_ms"] / ours["sparse_ms"]
    made = []
    for quantity, simulated in ours.items():
        reference = theirs[quantity]
        assert reference is not None
        error = simulated / reference - 1
        slowest = None
        if quantity in PATTERNS and error < -BOUND and not fitted:
            what = measured.shape, PATTERNS[quantity], measured.dtype
            slowest = slowest_milliseconds(machine, *what)
        made.append(
            Row(
                item=measured.item,
                shape=" x ".join(map(str, measured.shape)),
                dtype=measured.dtype,
                quantity=quantity,
                measured=reference,
                simulated=simulated,
                error=error,
                fitted=fitted,
                within=abs(error) <= BOUND,
                simulated_at_limit=at_limit.get(quantity),
                slowest_kernel=slowest,
            )
        )
    return made


def one_token(found: Fit, machine: SparseTensorCore) -> dict[str, float]:
    """One token through a 4096 x 4096 layer: microseconds dense and 2:4, and the speed-up.

    ``kernel_speedup`` is that of the bare kernels, without the library's call.
    """
    called = msgspec.structs.replace(machine, sparse_call_us=found.sparse_call_us)
    dense = 1e3 * milliseconds(machine, ONE_TOKEN, "dense")
    kernel = 1e3 * milliseconds(machine, ONE_TOKEN, "native")
    sparse = 1e3 * milliseconds(called, ONE_TOKEN, "native")
    return {
        "dense_us": dense,
        "sparse_us": sparse,
        "speedup": dense / sparse,
        "kernel_speedup": dense / kernel,
    }


def validate(path: str | Path, bar: PatientBar) -> dict[str, Any]:
    """The whole comparison: ``fit``, ``rows``, ``left_out``, ``one_token``, ``bound``."""
    machine = measured_on()
    rows, left_out = read_table(path)
    bar("fitting on 4096^3", 0, len(rows) + 1)
    found = fit(fitted_row(), machine)
    made: list[Row] = []
    for number, row in enumerate(rows):
        bar(f"{row.item} {row.shape}", number + 1, len(rows) + 1)
        made += compare(row, found, machine)
    return {
        "fit": found,
        "rows": made,
        "left_out": [{"item": item, "reason": reason} for item, reason in left_out],
        "one_token": one_token(found, machine),
        "bound": BOUND,
    }


def show(content: dict[str, Any]) -> None:
    """Print the comparison within 100 columns."""
    found: Fit = content["fit"]
    made = table(
        "A100 (40 GB) GEMMs: measured and simulated",
        ("", "rows x columns x depth", ""),
        ("measured", "simulated", "error", ""),
        f"fitted on 4096^3: a power limit of {found.power_limit_w:.0f} W (clock "
        f"{found.clock_mhz:.0f} MHz) and {found.sparse_call_us:.0f} us a call of the sparse "
        f"library; bound {100 * BOUND:.0f} % on the rest",
    )
    rows: list[Row] = content["rows"]
    for row in rows:
        verdict = "fitted" if row.fitted else "" if row.within else marked("miss", "red")
        made.add_row(
            row.item.replace("GEMM ", ""),
            row.shape.replace(" ", ""),
            row.quantity,
            f"{row.measured:.4g}",
            f"{row.simulated:.4g}",
            f"{100 * row.error:+.1f} %",
            verdict,
        )
    console().print(made)
    for row in rows:
        if row.simulated_at_limit is not None:
            error = 100 * (row.simulated_at_limit / row.measured - 1)
            console().print(
                f"{row.item}, {row.quantity}: clocks were locked; under the fitted power limit it "
                f"would be {row.simulated_at_limit:.4g} ({error:+.1f} %)"
            )
        if row.slowest_kernel is not None:
            console().print(
                f"{row.item}, {row.quantity}: of {row.measured:.4g} ms the slowest tiling takes "
                f"{row.slowest_kernel:.4g}; the rest is outside the kernel"
            )
    token = content["one_token"]
    console().print(
        f"one token, 4096 x 4096: dense {token['dense_us']:.1f} us, 2:4 {token['sparse_us']:.1f} us"
        f" with the library's call: speed-up {token['speedup']:.2f} "
        f"(bare kernels {token['kernel_speedup']:.2f})"
    )
    if content["left_out"]:
        reasons = {f"{row['item']} ({row['reason']})": None for row in content["left_out"]}
        console().print(f"left out: {'; '.join(reasons)}")


@click.command()
@json_option
@click.option(
    "--gpu",
    type=click.Choice([MEASURED_ON, *SILICON]),
    default=MEASURED_ON,
    show_default=True,
    help="Whose shipped table, where --against gives none.",
)
@click.option(
    "--against",
    metavar="FILE.csv",
    help="A table with the columns of a100_sparse.csv, rtx3090_gemm.csv or h100_gemm.csv; they "
    "say whose it is.",
)
def command(json_path: str | None, gpu: str, against: str | None) -> None:
    """Measured GEMMs of an A100, an RTX 3090 or an H100, dense and 2:4."""
    silicon = SILICON.get(gpu)
    if against:
        found = (each for each in SILICON.values() if _silicon.has_columns(against, each.columns))
        silicon = next(found, None)
    if silicon:
        _command_silicon(silicon, json_path, against)
        return
    with PatientBar() as bar:
        content = validate(against or REFERENCE, bar)
    if json_path:
        write_json(content, json_path)
    if json_path != "-":
        show(content)
    if against:
        missed = [row for row in content["rows"] if not (row.fitted or row.within)]
        check_differences(
            against,
            [
                f"{row.item} {row.shape}, {row.quantity}: {row.measured:.4g} measured, "
                f"{row.simulated:.4g} ours"
                for row in missed
            ],
        )


def _command_silicon(silicon: _silicon.Silicon, json_path: str | None, against: str | None) -> None:
    with PatientBar() as bar:
        content = _silicon.validate(silicon, against, bar)
    if json_path:
        write_json(content, json_path)
    if json_path != "-":
        _silicon.show(silicon, content)
    if against:
        check_differences(against, _silicon.missed(content["rows"]))
