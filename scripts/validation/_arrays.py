"""The array machines' analytic models against per-layer tables of their authors' own code.

A table is a CSV file with one row per layer: its shape, bits, buffers, tiling and loop order, and
what the authors' code counted. Every row is rebuilt as (shape, rules, mapping), costed, and
compared: cycles and counters exactly, energies to 1e-6 or the digits the table prints. A row that
the machine refuses is told, and the others go on. The columns are those of the published-model runs
shipped in this folder (``bitfusion_layers.csv``, ``ant_layers.csv``, ``scalesim_layers.csv``).
"""

from __future__ import annotations

import math
import os
import statistics
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import click
import msgspec

from sparqsim.architectures.arrays.ant import Ant
from sparqsim.architectures.arrays.bitfusion import BitFusion
from sparqsim.architectures.arrays.cost import Rates, cost
from sparqsim.architectures.arrays.folds import NM, Charge, Dataflow, SystolicGrid
from sparqsim.architectures.arrays.rules import ArrayRules
from sparqsim.architectures.arrays.search import promoted
from sparqsim.architectures.arrays.shapes import ConvShape, Loop, Tile
from sparqsim.architectures.arrays.shapes import Mapping as TileMapping
from sparqsim.architectures.machine import Machine
from sparqsim.architectures.network import run_network
from sparqsim.base import InputError, read_csv
from sparqsim.scripts.output import check_differences, console, marked, table, write_json
from sparqsim.scripts.validation._evidence import Table
from sparqsim.simulator.report import NetworkReport
from sparqsim.workloads.work import Network, load

Row = Mapping[str, str]
Order = tuple[Loop, Loop, Loop, Loop, Loop]

LOOPS = {
    "B/b": Loop.BATCH,
    "OW/ow": Loop.COLUMNS,
    "OH/oh": Loop.ROWS,
    "IC/ic": Loop.INPUTS,
    "OC/oc": Loop.OUTPUTS,
}
COUNTERS = {
    "ibuf_rd_bits": "input_buffer_read",
    "ibuf_wr_bits": "input_buffer_write",
    "wbuf_rd_bits": "weight_buffer_read",
    "wbuf_wr_bits": "weight_buffer_write",
    "obuf_rd_bits": "output_buffer_read",
    "obuf_wr_bits": "output_buffer_write",
    "dram_rd_bits": "dram_read",
    "dram_wr_bits": "dram_write",
}
ENERGY_TOLERANCE = 1e-6


def timed(machine: Machine, network: str | Network) -> NetworkReport:
    """A network, or one by name, timed from its shapes at the widths that its table publishes."""
    if isinstance(network, str):
        network = load(network, numbers=False)
    return run_network(machine, network, verify=False)


class BadTable(InputError):
    """A table that cannot be read: no row of it is a matter of the machine."""


class Refused(NamedTuple):
    """A row that the machine does not run, and why."""

    line: int
    label: str
    why: str


def count_table(title: str) -> Table:
    """Where the numbers of :class:`Comparison` are."""
    return Table(
        title=title,
        rows="compared",
        name="{label} {column}",
        published=("reference",),
        simulated="simulated",
        quantity="column",
        held="agrees",
    )


class Compared(NamedTuple):
    """A table beside ours."""

    numbers: list[Comparison]
    refused: list[Refused]


class Case(NamedTuple):
    """One row of a table, ready to be costed."""

    label: str
    shape: ConvShape
    rules: ArrayRules
    rates: Rates
    mapping: TileMapping


class Comparison(NamedTuple):
    """One number of a table beside ours."""

    line: int
    label: str
    column: str
    reference: float
    simulated: float
    tolerance: float

    @property
    def error(self) -> float:
        """Relative error; infinite where the reference is 0 and ours is not."""
        if self.reference == self.simulated:
            return 0.0
        return abs(self.simulated / self.reference - 1) if self.reference else math.inf

    @property
    def agrees(self) -> bool:
        """Whether the difference is within the tolerance, an absolute one."""
        return abs(self.simulated - self.reference) <= self.tolerance


def read_rows(path: str | os.PathLike[str]) -> list[tuple[int, Row]]:
    """Return (line number, row) of every data row of a CSV file.

    Raises
    ------
    BadTable
        If the file cannot be read, is empty, or a row has too few or too many fields.
    """
    rows: list[tuple[int, Row]]
    try:
        rows = [*read_csv(path, "the table")[1]]
    except InputError as error:
        raise BadTable(str(error)) from None
    if not rows:
        raise BadTable(f"the table {path} must have a header and at least one row")
    for line, row in rows:
        if None in row or None in row.values():
            raise BadTable(
                f"{path}, line {line}: must have as many fields as the header; the file may be "
                "truncated"
            )
    return rows


def text(row: Row, column: str) -> str:
    """Return a field.

    Raises
    ------
    BadTable
        If the table has no such column.
    """
    if column not in row:
        raise BadTable(f"the table must have a column {column!r}; it has {', '.join(row)}")
    return row[column]


def whole(row: Row, column: str) -> int:
    """Return a field as a whole number."""
    field = text(row, column)
    try:
        return int(field)
    except ValueError:
        raise BadTable(f"column {column!r} must be a whole number, got {field!r}") from None


def number(row: Row, column: str) -> tuple[float, float]:
    """Return a field as a number, and half a unit of the last digit it prints."""
    field = text(row, column)
    try:
        printed = Decimal(field)
        value = float(printed)
    except ArithmeticError:
        value = math.nan
    if not math.isfinite(value):
        raise BadTable(f"column {column!r} must be a finite number, got {field!r}")
    exponent = printed.as_tuple().exponent
    assert isinstance(exponent, int)  # finite
    return value, 0.5 * 10.0**exponent


def _tiles(row: Row, order: str) -> tuple[Tile, Order]:
    names = text(row, order).split(">")
    if sorted(names) != sorted(LOOPS):
        raise BadTable(
            f"column {order!r} must name {', '.join(LOOPS)} once each, outermost first and "
            f"joined by '>', got {row[order]!r}"
        )
    tile = Tile(
        batch=whole(row, "tile_b"),
        out_width=whole(row, "tile_ow"),
        out_height=whole(row, "tile_oh"),
        in_channels=whole(row, "tile_ic"),
        out_channels=whole(row, "tile_oc"),
    )
    return tile, tuple(LOOPS[name] for name in names)  # type: ignore[return-value]


def _kib(row: Row, column: str) -> int:
    size = whole(row, column)
    if size % 1024:
        raise BadTable(f"column {column!r} must be whole KiB given in bytes, got {size}")
    return size // 1024


def bitfusion_case(row: Row) -> Case:
    """Rebuild a row of a table like ``bitfusion_layers.csv``."""
    machine = BitFusion(
        rows=whole(row, "N"),
        columns=whole(row, "M"),
        weight_buffer_kib=_kib(row, "wbuf_B"),
        input_buffer_kib=_kib(row, "ibuf_B"),
        output_buffer_kib=_kib(row, "obuf_B"),
        dram_gbytes_per_s=whole(row, "mem_bits_per_cycle") * whole(row, "freq_Hz") / 8e9,
        clock_hz=float(whole(row, "freq_Hz")),
    )
    shape = ConvShape.square(
        batch=whole(row, "B"),
        out=whole(row, "O"),
        kernel=whole(row, "K"),
        stride=whole(row, "S"),
        in_channels=whole(row, "IC"),
        out_channels=whole(row, "OC"),
    )
    rules = machine.rules(
        whole(row, "abits"), whole(row, "wbits"), unfold=whole(row, "im2col") == 1
    )
    label = f"{text(row, 'network')}/{text(row, 'layer')}"
    mapping = promoted(shape, rules, *_tiles(row, "order"))
    return Case(label, shape, rules, machine.rates, mapping)


def ant_case(row: Row) -> Case:
    """Rebuild a row of a table like ``ant_layers.csv``."""
    machine = Ant(
        side_at_8_bits=whole(row, "N"),
        weight_buffer_kib=_kib(row, "wbuf_B"),
        input_buffer_kib=_kib(row, "ibuf_B"),
        output_buffer_kib=_kib(row, "obuf_B"),
        dram_gbytes_per_s=whole(row, "mem_bits_per_cycle") * whole(row, "freq_Hz") / 8e9,
        clock_hz=float(whole(row, "freq_Hz")),
        dataflow=_dataflow(row),
    )
    shape = ConvShape.square(
        batch=whole(row, "sim_B"),
        out=whole(row, "sim_O"),
        kernel=whole(row, "sim_K"),
        stride=whole(row, "stride"),
        in_channels=whole(row, "sim_IC"),
        out_channels=whole(row, "sim_OC"),
    )
    label = f"{text(row, 'design')}/{text(row, 'network')}/{text(row, 'layer_idx')}"
    rules = machine.rules(whole(row, "bits"))
    mapping = promoted(shape, rules, *_tiles(row, "order_outer_to_inner"))
    return Case(label, shape, rules, machine.rates, mapping)


def _dataflow(row: Row) -> Dataflow:
    field = text(row, "dataflow").lower()
    try:
        return Dataflow(field)
    except ValueError:
        raise BadTable(
            f"column 'dataflow' must be one of {', '.join(Dataflow)}, got {field!r}"
        ) from None


def _compare_case(case: Case, row: Row, line: int) -> Iterator[Comparison]:
    ours = cost(case.shape, case.rules, case.mapping)
    energy = ours.energy(case.rates)
    exact = {
        "total_cycles": ours.cycles,
        "mem_stall_cycles": ours.stall_cycles,
        "compute_cycles": ours.compute_cycles,
        **{column: getattr(ours.traffic, field) for column, field in COUNTERS.items()},
    }
    for column, value in exact.items():
        yield Comparison(line, case.label, column, whole(row, column), value, 0.0)
    priced = {
        "E_core_nJ": energy.core_nj,
        "E_sram_nJ": energy.sram_nj,
        "E_dram_nJ": energy.dram_nj,
        "E_static_nJ": energy.dram_static_nj,
        "E_total_nJ": energy.total_nj,
    }
    for column, nanojoules in priced.items():
        if column in row:
            reference, digit = number(row, column)
            tolerance = max(ENERGY_TOLERANCE * abs(reference), digit)
            yield Comparison(line, case.label, column, reference, nanojoules, tolerance)


def _sparsity(row: Row) -> NM | None:
    """Return the weights' N:M pattern from an optional column ``sparsity`` such as ``2:4``."""
    field = row.get("sparsity", "")
    if not field:
        return None
    parts = field.split(":")
    if len(parts) != 2 or not all(part.isdecimal() for part in parts):
        raise BadTable(f"column 'sparsity' must be N:M, like 2:4, or empty, got {field!r}")
    return NM(kept=int(parts[0]), of=int(parts[1]))


def _compare_folds(row: Row, line: int) -> Iterator[Comparison]:
    sides = text(row, "array").lower().split("x")
    if len(sides) != 2 or not all(side.isdecimal() for side in sides):
        raise BadTable(f"column 'array' must be ROWSxCOLUMNS, got {row['array']!r}")
    grid = SystolicGrid(
        rows=int(sides[0]),
        columns=int(sides[1]),
        dataflow=_dataflow(row),
        skew=Charge.PER_FOLD,
        load=Charge.PER_FOLD,
    )
    m, n, k = (whole(row, f"gemm_{letter}") for letter in "MNK")
    folds = grid.folds(m, n, k, _sparsity(row))
    label = f"{text(row, 'net')}/{text(row, 'layer')}"
    # Their cycle is the index of the last one, counted from 0.
    cycles = whole(row, "total_cycles")
    yield Comparison(line, label, "total_cycles", cycles, folds.cycles - 1, 0.0)
    for column, ours in (
        ("overall_util_pct", 100 * m * n * k / (grid.rows * grid.columns * (folds.cycles - 1))),
        ("mapping_eff_pct", 100 * folds.mapping_efficiency),
    ):
        if column in row:
            reference, _ = number(row, column)
            yield Comparison(line, label, column, reference, ours, 1e-9 * abs(reference))


def _compare_all(
    path: str | os.PathLike[str],
    compare: Callable[[Row, int], Iterator[Comparison]],
    label: tuple[str, ...],
) -> Compared:
    found = Compared([], [])
    for line, row in read_rows(path):
        try:
            found.numbers.extend(list(compare(row, line)))
        except BadTable as error:
            raise BadTable(f"{path}, line {line}: {error}") from None
        except InputError as error:
            name = "/".join(row.get(column, "?") for column in label)
            found.refused.append(Refused(line, name, str(error)))
    return found


def compare_bitfusion(path: str | os.PathLike[str]) -> Compared:
    """Return every number of a table like ``bitfusion_layers.csv`` beside ours."""
    return _compare_all(
        path,
        lambda row, line: _compare_case(bitfusion_case(row), row, line),
        ("network", "layer"),
    )


def compare_ant(path: str | os.PathLike[str]) -> Compared:
    """Return every number of a table like ``ant_layers.csv`` beside ours."""
    return _compare_all(
        path,
        lambda row, line: _compare_case(ant_case(row), row, line),
        ("design", "network", "layer_idx"),
    )


def compare_scalesim(path: str | os.PathLike[str]) -> Compared:
    """Return every number of a table like ``scalesim_layers.csv`` beside ours."""
    return _compare_all(path, _compare_folds, ("net", "layer"))


against_option = click.option(
    "--against",
    type=click.Path(path_type=Path),
    metavar="FILE.csv",
    help="Check the analytic model against a table of per-layer counts instead.",
)


def as_rows(compared: list[Comparison]) -> list[dict[str, Any]]:
    """Every number of a table beside ours, for JSON."""
    return [each._asdict() | {"agrees": each.agrees} for each in compared]


def report_table(path: Path, found: Compared, json_path: str | None) -> None:
    """Print each number of a table that differs from ours, the rows refused, and how many agree.

    As JSON: ``rows`` (of the table), how many ``numbers`` were ``compared`` and each of them,
    ``mismatches`` and ``refused``, one entry each.

    Raises
    ------
    Differs
        If a number differs, or a row is refused.
    """
    compared = found.numbers
    rows = len({each.line for each in compared}) + len(found.refused)
    wrong = [each for each in compared if not each.agrees]
    if json_path:
        content = {
            "rows": rows,
            "numbers": len(compared),
            "compared": as_rows(compared),
            "mismatches": [
                {
                    "line": each.line,
                    "label": each.label,
                    "column": each.column,
                    "reference": each.reference,
                    "simulated": each.simulated,
                    "error": each.error if math.isfinite(each.error) else None,
                }
                for each in wrong
            ],
            "refused": [each._asdict() for each in found.refused],
        }
        write_json(content, json_path)
    if json_path != "-":
        _show_table(path, rows, found, wrong)
    differences = [
        f"line {each.line}, {each.column}: {each.reference:.10g} in the table, "
        f"{each.simulated:.10g} ours"
        for each in wrong
    ]
    differences += [f"line {each.line}: refused, {each.why}" for each in found.refused]
    check_differences(str(path), differences)


def _show_table(path: Path, rows: int, found: Compared, wrong: list[Comparison]) -> None:
    compared = found.numbers
    if wrong:
        made = table(
            f"{path.name}: what differs", ("line", "row", "column"), ("table", "ours", "error")
        )
        for each in wrong:
            made.add_row(
                str(each.line),
                each.label,
                each.column,
                f"{each.reference:.10g}",
                f"{each.simulated:.10g}",
                f"{100 * each.error:.4g} %",
            )
        console().print(made)
    if found.refused:
        made = table(f"{path.name}: what the machine refuses", ("line", "row", "why"), ())
        for refused in found.refused:
            made.add_row(str(refused.line), refused.label, refused.why)
        console().print(made)
    lines = len({each.line for each in wrong}) + len(found.refused)
    console().print(
        f"{path.name}: {rows - lines} of {rows} rows agree in every number; "
        f"{len(wrong)} of {len(compared)} numbers differ, {len(found.refused)} rows are refused."
    )
    console().print(f"compared: {', '.join(dict.fromkeys(each.column for each in compared))}")


class Headline(msgspec.Struct, frozen=True, kw_only=True):
    """A published number beside ours.

    ``bound`` is the relative error it should keep, ``None`` where the number is only shown;
    ``note`` says what ours is made of.
    """

    what: str
    published: float
    ours: float
    bound: float | None = None
    note: str = ""

    @property
    def error(self) -> float:
        """Relative error."""
        return self.ours / self.published - 1

    @property
    def within(self) -> bool | None:
        """Whether it keeps its bound."""
        return None if self.bound is None else abs(self.error) <= self.bound


def headline_table(title: str) -> Table:
    """Where the numbers of :class:`Headline` are."""
    return Table(
        title=title,
        name="{what}",
        published=("published",),
        simulated="ours",
        quantity="what",
        held="within",
        note="note",
    )


def report_headlines(
    title: str, rows: list[Headline], json_path: str | None, caption: str = ""
) -> None:
    """Print published numbers beside ours; those that miss their bound are marked."""
    if json_path:
        content = [
            {**msgspec.structs.asdict(row), "error": row.error, "within": row.within}
            for row in rows
        ]
        write_json({"rows": content}, json_path)
    if json_path == "-":
        return
    made = table(title, ("what",), ("paper", "ours", "error", "bound", ""), caption)
    for row in rows:
        made.add_row(
            row.what + (f" ({row.note})" if row.note else ""),
            f"{row.published:.3g}",
            f"{row.ours:.3g}",
            f"{100 * row.error:+.1f} %",
            "" if row.bound is None else f"{100 * row.bound:.0f} %",
            marked("miss", "red") if row.within is False else "",
        )
    console().print(made)
    bounded = [row for row in rows if row.within is not None]
    held = sum(row.within is True for row in bounded)
    console().print(f"{held} of {len(bounded)} numbers with a bound are within it.")


def geometric_mean(values: list[float]) -> float:
    """Geometric mean of positive numbers."""
    return statistics.geometric_mean(values)
