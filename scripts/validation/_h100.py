"""The H100 model against measured products, dense and 2:4: ``h100_gemm.csv`` or one like it.

The shipped table is our own (``benchmarks/silicon.py``): fp16, int8 and fp8, in cuBLAS as PyTorch
calls it and in cuSPARSELt with its searched algorithm, in replays of a CUDA graph. Its times are
``cold_us``, with operands in DRAM. The board was at its power limit of 700 W in nearly every large
product, so that clocks were 1.2 to 1.6 GHz; power is kept only of windows of half a second, with
half as long a run before, for NVML's is a mean over about a second. A column ``kernel``, where
there is one, tells how the library cut the product.

Two constants are fitted. The preset's ``peak_over_tdp``, what the board would take at its dense
peak, on the dense fp16 product of 8192^3; and the call of the sparse library beside its kernel, on
the 2:4 fp16 product of 512^3. The power limit is the board's own, measured as all else is.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import msgspec

from sparqsim.architectures import presets
from sparqsim.architectures.sparse_tensor_core import KINDS, Shape, SparseTensorCore
from sparqsim.base import InputError
from sparqsim.scripts.validation._kernel_names import cut_of
from sparqsim.scripts.validation._power_limit import milliseconds
from sparqsim.scripts.validation._silicon import Held, Measured, Silicon, lines_of, positive, size

REFERENCE = Path(__file__).with_name("h100_gemm.csv")
COLUMNS = (
    "dtype", "library", "rows", "columns", "depth", "cold_us", "mhz", "power_w", "window_s",
)  # fmt: skip
MEASURED_ON = "h100"  # the preset
LIBRARIES = ("dense", "2:4")
POWER_FIT = Shape(8192, 8192, 8192)  # the largest that is not left out
CALL_FIT = Shape(512, 512, 512)  # the smallest
POWER_WINDOW_S = 0.5  # assumed; see the module
MOST_MACS = 1 << 41  # of the shipped table; 16384^3 takes longer than all other products


class Fit(msgspec.Struct, frozen=True, kw_only=True):
    """What was fitted: see the module; ``peak_over_tdp`` is the preset's."""

    peak_over_tdp: float
    sparse_call_us: float


def read_table(path: str | Path) -> list[Measured]:
    """The products of a table that the machine has a format for.

    Raises
    ------
    InputError
        If the file cannot be read, lacks a column, is truncated, has no row, or holds a library
        that is not known, a size that is no whole number from 1 or a number that is not positive.
    """
    found = []
    for where, line in lines_of(path, COLUMNS):
        shape = Shape(*(size(line[name], f"{where}: {name}") for name in COLUMNS[2:5]))
        us, mhz, watts, window = (
            positive(line[name], f"{where}: {name}", unit)
            for name, unit in zip(COLUMNS[5:], ("microseconds", "MHz", "W", "seconds"), strict=True)
        )
        if line["library"] not in LIBRARIES:
            raise InputError(
                f"{where}: library must be {' or '.join(LIBRARIES)}, got {line['library']!r}"
            )
        if line["dtype"] in KINDS:
            found.append(
                Measured(
                    library=line["library"],
                    dtype=line["dtype"],
                    shape=shape,
                    milliseconds=us / 1e3,
                    clock_mhz=mhz,
                    power_w=watts if window >= POWER_WINDOW_S else None,
                    cut=cut_of(line.get("kernel", "")),
                )
            )
    return found


def measured_on() -> SparseTensorCore:
    """The GPU of the table."""
    machine = presets.load(MEASURED_ON)
    assert isinstance(machine, SparseTensorCore)
    return machine


def fit(rows: Iterable[Measured], machine: SparseTensorCore) -> Fit:
    """The call of the sparse library that meets its product; the peak's power is the preset's."""
    times = {row.shape: row.milliseconds for row in rows if _what(row) == ("fp16", "2:4")}
    bare = milliseconds(machine, CALL_FIT, "2:4", "fp16")
    call = max(0.0, times[CALL_FIT] - bare)
    return Fit(peak_over_tdp=machine.peak_over_tdp, sparse_call_us=1e3 * call)


def hold() -> Held:
    """The GPU with the call as fitted."""
    rows = read_table(REFERENCE)
    found = fit(rows, measured_on())
    machine = msgspec.structs.replace(measured_on(), sparse_call_us=found.sparse_call_us)
    products = {("fp16", "dense", POWER_FIT), ("fp16", "2:4", CALL_FIT)}
    fitted = [row for row in rows if (*_what(row), row.shape) in products]
    return Held(found, lambda _: machine, lambda row: row in fitted)


def _what(row: Measured) -> tuple[str, str]:
    return row.dtype, row.library


def _told(found: Fit) -> str:
    return (
        f"the dense peak's power, {found.peak_over_tdp:g} x TDP, on fp16 8192^3; "
        f"{found.sparse_call_us:.2f} us a call of the sparse library on fp16 512^3"
    )


SILICON = Silicon(
    preset=MEASURED_ON,
    title="H100",
    reference=REFERENCE,
    columns=COLUMNS,
    read=read_table,
    hold=hold,
    told=_told,
    together=("all", LIBRARIES),
    most_macs=MOST_MACS,
)
