"""Sums of an H100's tensor cores, bit by bit, beside those of the MAC core.

``h100_bits.npz`` is some of what ``benchmarks/silicon_bits.py``, which says what its draws and
arrays are, measured for this project on an NVIDIA H100 (80 GB HBM3, driver 580.159.04, CUDA 13.0,
PyTorch 2.11, Triton 3.6) on 2026-11-26, as its ``about`` tells; the tiles of ``least`` are ones
that tell the least alignment from its neighbours. ``mma`` is ``mma.sync``, ``wgmma`` a chain of
instructions along the depth, and ``mma.sp`` and ``wgmma.sp`` keep 16 values of 32 (tf32: 8 of 16;
fp8: 32 of 64). The MAC core gets the same operands and the block and bits of the preset ``h100``;
every sum has to have the same bits. E5M2, in which the machine has no mode, is added up as E4M3.

Formats that are not known are left out, and told.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import msgspec
import numpy as np
from numpy.typing import NDArray

from sparqsim.architectures import presets
from sparqsim.architectures.sparse_tensor_core import SparseTensorCore, TensorCores
from sparqsim.architectures.sparse_tensor_core.config import DENSE, KINDS, Kind
from sparqsim.base import InputError
from sparqsim.scripts.output import (
    check_differences,
    console,
    json_option,
    marked,
    table,
    write_json,
)
from sparqsim.scripts.validation._evidence import Evidence, Table
from sparqsim.simulator.mac import sparse_tensor_core as mac
from sparqsim.workloads import formats
from sparqsim.workloads.npz import read_npz

REFERENCE = Path(__file__).with_name("h100_bits.npz")
MEASURED_ON = "h100"
DTYPES = {
    "fp16": "fp16", "bf16": "bf16", "tf32": "tf32", "e4m3": "fp8", "e5m2": "fp8",
}  # fmt: skip  # of PTX -> the one of KINDS by whose rule it is added up
E5M2 = KINDS["fp8"]._replace(formats=("float8_e5m2",), least=-14)
UNUSED_BITS = {"tf32": 13}  # below those of the format, in the 32 of a register
ARRAYS = ("a", "b", "c", "d")

EVIDENCE = (
    Evidence(
        tables=(
            Table(
                title="sums of an H100's tensor cores, bit by bit (equal ones)",
                name="{instruction} {format} {draw}",
                published=("sums",),
                simulated="equal",
                quantity="format",
                held="held",
            ),
        ),
    ),
)


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """One draw on the card.

    Attributes
    ----------
    left, right : float32 [tiles, rows, kept], [tiles, columns, depth]
        Operands.
    places : uint8 [tiles, rows, kept]
        Place of each kept value in its group.
    start, sums : float32 [tiles, rows, columns]
        Sums before and after.
    """

    instruction: str
    format: str
    draw: str
    left: NDArray[np.float32]
    right: NDArray[np.float32]
    places: NDArray[np.uint8]
    start: NDArray[np.float32]
    sums: NDArray[np.float32]

    @property
    def cores(self) -> TensorCores:
        """The tensor cores of the preset in this format."""
        machine = presets.load(MEASURED_ON)
        assert isinstance(machine, SparseTensorCore)
        return TensorCores(machine, DTYPES[self.format], DENSE)

    @property
    def kept(self) -> tuple[int, int]:
        """Values kept of the values of a group."""
        groups = self.right.shape[2] - self.left.shape[2]
        if groups == 0:
            return 1, 1
        n, m, unit = kind_of(self.format).native
        return n * unit, m * unit

    def again(self, multiply: Any = mac.multiply_floats) -> NDArray[np.float32]:
        """The sums by the MAC core."""
        cores, kind, found = self.cores, kind_of(self.format), []
        for left, right, places, start in zip(
            self.left, self.right, self.places, self.start, strict=True
        ):
            sums = np.ascontiguousarray(start.T)
            multiply(
                left, places, *self.kept, right, kind.least, cores.block,
                cores.fraction_bits, kind.sum_bits, sums,
            )  # fmt: skip
            found.append(sums.T)
        return np.stack(found)


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """How many sums of a draw are equal."""

    instruction: str
    format: str
    draw: str
    sums: int
    equal: int
    held: bool


def read(path: str | os.PathLike[str]) -> tuple[dict[str, str], list[Measured], list[str]]:
    """What was measured: about the card, each draw, and draws in formats that are not known.

    Raises
    ------
    InputError
        If the file is no npz of such arrays.
    """
    arrays = read_npz(path, "sums measured by benchmarks/silicon_bits.py", ("about",))
    try:
        about = msgspec.convert(json.loads(str(arrays.pop("about"))), dict[str, str])
    except (ValueError, msgspec.ValidationError):
        raise InputError(f"{path}: 'about' must be names and words in JSON") from None
    draws: dict[str, dict[str, NDArray[Any]]] = {}
    for name, array in arrays.items():
        draw, _, which = name.rpartition("/")
        draws.setdefault(draw, {})[which] = array
    known = {name: each for name, each in draws.items() if _format_of(name) in DTYPES}
    if not known:
        raise InputError(f"{path} must hold draws in one of {', '.join(DTYPES)}; it holds none")
    found = [_measured(f"{path}: {name}", name, each) for name, each in known.items()]
    return about, found, [name for name in draws if name not in known]


def kind_of(name: str) -> Kind:
    """What a format, by its name in PTX, is to the tensor core."""
    return E5M2 if name == "e5m2" else KINDS[DTYPES[name]]


def _format_of(draw: str) -> str:
    return draw.partition("/")[2].partition("/")[0]


def _measured(where: str, name: str, given: dict[str, NDArray[Any]]) -> Measured:
    parts = name.split("/")
    if len(parts) != 3 or not set(ARRAYS) <= set(given):
        raise InputError(f"{where} must be instruction/format/draw with {', '.join(ARRAYS)}")
    a, b, c, d = (given[each] for each in ARRAYS)
    places = given.get("places", np.zeros(a.shape, np.uint8))
    whole = a.ndim == b.ndim == 3 and a.dtype.kind == b.dtype.kind == "u"
    if not (
        whole
        and a.shape == places.shape
        and c.shape == d.shape == (len(a), a.shape[1], b.shape[1])
        and len(a) == len(b)
        and c.dtype == d.dtype == np.float32
    ):
        raise InputError(
            f"{where}: a [tiles, rows, kept] and b [tiles, columns, depth] must be whole numbers, "
            "places as a, c and d float32 [tiles, rows, columns]"
        )
    made = Measured(
        instruction=parts[0],
        format=parts[1],
        draw=parts[2],
        left=_decoded(a, parts[1]),
        right=_decoded(b, parts[1]),
        places=places.astype(np.uint8),
        start=c,
        sums=d,
    )
    kept, group = made.kept
    if a.shape[2] * group != b.shape[2] * kept or (places >= group).any():
        raise InputError(f"{where}: {kept} of {group} must be kept, each at a place below {group}")
    return made


def _decoded(codes: NDArray[Any], name: str) -> NDArray[np.float32]:
    format_ = formats.get(kind_of(name).formats[0])
    values = format_.decode(codes >> UNUSED_BITS.get(name, 0))
    return np.ascontiguousarray(values, np.float32)


def compare(measured: Measured) -> Row:
    """Sums of the card beside those of the kernel."""
    same = measured.again().view(np.uint32) == measured.sums.view(np.uint32)
    return Row(
        instruction=measured.instruction,
        format=measured.format,
        draw=measured.draw,
        sums=same.size,
        equal=int(same.sum()),
        held=bool(same.all()),
    )


def grouped(rows: list[Row]) -> Iterator[tuple[str, str, list[Row]]]:
    """Rows of each instruction and format."""
    for instruction, name in dict.fromkeys((row.instruction, row.format) for row in rows):
        yield (
            instruction,
            name,
            [row for row in rows if (row.instruction, row.format) == (instruction, name)],
        )


def show(about: dict[str, str], rows: list[Row], unknown: list[str]) -> None:
    """Show counts of each instruction and format."""
    told = f"Sums of {about.get('device', 'a card')}, {about.get('date', 'undated')}, bit by bit"
    made = table(told, ("instruction", "format", "draws"), ("sums", "equal", ""))
    for instruction, name, some in grouped(rows):
        sums, equal = sum(row.sums for row in some), sum(row.equal for row in some)
        verdict = "" if sums == equal else marked("miss", "red")
        draws = ", ".join(row.draw for row in some)
        made.add_row(instruction, name, draws, f"{sums:,}", f"{equal:,}", verdict)
    console().print(made)
    equal, sums = sum(row.equal for row in rows), sum(row.sums for row in rows)
    console().print(f"{equal:,} of {sums:,} sums are equal.")
    if unknown:
        console().print(f"left out, of formats that are not known: {', '.join(unknown)}")


@click.command()
@click.option(
    "--against",
    metavar="FILE.npz",
    default=str(REFERENCE),
    help="Sums measured by benchmarks/silicon_bits.py; default: the shipped ones.",
)
@json_option
def command(against: str, json_path: str | None) -> None:
    """Sums of an H100's tensor cores, bit by bit."""
    about, measured, unknown = read(against)
    rows = [compare(each) for each in measured]
    if json_path is not None:
        write_json({"about": about, "rows": rows}, json_path)
    if json_path != "-":
        show(about, rows, unknown)
    check_differences(
        against,
        [
            f"{row.instruction} {row.format} {row.draw}: {row.equal:,} of {row.sums:,} sums equal"
            for row in rows
            if not row.held
        ],
    )
