"""The RTX 3090 model against measured GEMMs, dense and 2:4: ``rtx3090_gemm.csv`` or one like it.

The rows are those of the VENOM repository (SC 2023): fp16, weights of m x k by k x n. Every row has
a time of the dense library; those of the kernel ``cuSPARSELt`` have one of the 2:4 library. Other
kernels' own times are not compared, and a product's time in a library is the median of its rows.

One constant is fitted, on the largest dense product: the power limit, as of the A100, under which
each tiling has a clock of its own. It is a condition of the measurement. The rows of the kernels
CLASP and Sputnik come from a run whose dense library was about twice as fast: some of its times
exceed the peak of fp32 sums. They are kept apart, as sums in fp16, at the clock of the fitted
product: the model's power is that of fp32 sums, and what sums in fp16 take is not known.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from statistics import median

import msgspec

from sparqsim.architectures import presets
from sparqsim.architectures.sparse_tensor_core import Shape, SparseTensorCore
from sparqsim.scripts.validation._power_limit import power_limit_w
from sparqsim.scripts.validation._silicon import Held, Measured, Silicon, lines_of, positive, size

REFERENCE = Path(__file__).with_name("rtx3090_gemm.csv")
COLUMNS = ("kernel", "m", "k", "n", "sparse_ms", "dense_cublas_ms")
MEASURED_ON = "rtx3090"  # the preset
SPARSE_LIBRARY = "cuSPARSELt"
FP16_SUMS = "dense, fp16 sums"
APART = ("CLASP", "Sputnik")  # kernels whose rows have dense times of another run
DENSE_FIT = Shape(rows=4096, columns=8192, depth=1024)  # the largest dense product


class Fit(msgspec.Struct, frozen=True, kw_only=True):
    """What was fitted."""

    power_limit_w: float
    clock_mhz: float


def read_table(path: str | Path) -> list[Measured]:
    """The products of a table in each library, with the median of their times.

    Raises
    ------
    InputError
        If the file cannot be read, lacks a column, is truncated, has no row, or holds a size that
        is no whole number from 1 or a time that is no positive number.
    """
    found: dict[tuple[str, Shape], list[float]] = defaultdict(list)
    for where, line in lines_of(path, COLUMNS):
        shape = Shape(*(size(line[name], f"{where}: {name}") for name in ("m", "n", "k")))
        dense = FP16_SUMS if line["kernel"].startswith(APART) else "dense"
        cell, ms = "dense_cublas_ms", "milliseconds"
        found[dense, shape].append(positive(line[cell], f"{where}: {cell}", ms))
        if line["kernel"] == SPARSE_LIBRARY:
            found["2:4", shape].append(positive(line["sparse_ms"], f"{where}: sparse_ms", ms))
    return [
        Measured(
            library=library, dtype="fp16", shape=shape, milliseconds=median(times), rows=len(times)
        )
        for (library, shape), times in sorted(found.items())
    ]


def measured_on() -> SparseTensorCore:
    """The GPU of the table."""
    machine = presets.load(MEASURED_ON)
    assert isinstance(machine, SparseTensorCore)
    return machine


def fit(rows: Iterable[Measured], machine: SparseTensorCore) -> Fit:
    """The power limit that meets the product to fit."""
    times = {row.shape: row.milliseconds for row in rows if row.library == "dense"}
    limit = power_limit_w(machine, DENSE_FIT, "fp16", times[DENSE_FIT])
    limited = msgspec.structs.replace(machine, power_limit_w=limit)
    clock = limited.gemm(*DENSE_FIT, pattern="dense").netlist.clock_hz
    return Fit(power_limit_w=limit, clock_mhz=clock / 1e6)


def hold() -> Held:
    """The GPU with the fit; sums in fp16 run at its full rate, at the fitted product's clock."""
    machine = measured_on()
    found = fit(read_table(REFERENCE), machine)
    limited = msgspec.structs.replace(machine, power_limit_w=found.power_limit_w)
    fp16_sums = msgspec.structs.replace(
        machine, fp32_accumulate=1.0, clock_hz=1e6 * found.clock_mhz
    )
    return Held(
        found,
        lambda row: fp16_sums if row.library == FP16_SUMS else limited,
        lambda row: (row.library, row.shape) == ("dense", DENSE_FIT),
    )


def _told(found: Fit) -> str:
    return (
        f"a power limit of {found.power_limit_w:.0f} W on the largest dense product, whose clock "
        f"is then {found.clock_mhz:.0f} MHz"
    )


SILICON = Silicon(
    preset=MEASURED_ON,
    title="RTX 3090 fp16",
    reference=REFERENCE,
    columns=COLUMNS,
    read=read_table,
    hold=hold,
    told=_told,
    together=("dense and 2:4", ("dense", "2:4")),
)
