"""A table of layers of one's own: a CSV with one layer per row, its columns named after its fields.

The columns ``name`` and ``kind`` must be there; ``kind`` is ``linear``, ``conv2d`` or ``matmul``.
The other columns are those fields of :mod:`sparqsim.workloads.layers` that the rows need. An empty
cell is the field's default; pairs are written ``3x3``, four sides ``0x0x1x1``, a bias ``true`` or
``false``::

    name,kind,in_features,out_features,rows,in_channels,out_channels,input,kernel,padding,m,k,n,repeat
    stem,conv2d,,,,3,64,224x224,7x7,3x3,,,,
    scores,matmul,,,,,,,,,128,64,128,12
    head,linear,64,10,1,,,,,,,,,

What ``sparqsim models WORK --json`` calls a field of a layer is its column here.
"""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import Any, get_args

import msgspec

from sparqsim.base import InputError, read_text
from sparqsim.workloads.layers import Layer, Model, unknown

LARGEST_FILE = 2**24  # assumed, bytes: a table has one line per layer
LARGEST = 2**31 - 1  # assumed: no size of a layer of today comes near
KINDS = {each.__name__.lower(): each for each in get_args(Layer)}
TEXT = ("name", "weights_of", "density_source")


def rows_of(path: Path) -> list[tuple[int, list[str]]]:
    """Return (line number, cells) of every row of a CSV that is not empty.

    Raises
    ------
    InputError
        If it cannot be read, is too long, or is no CSV in UTF-8.
    """
    text = read_text(path, "the table", LARGEST_FILE)
    try:
        rows = list(enumerate(csv.reader(text.splitlines()), start=1))
    except csv.Error as error:
        raise InputError(f"{path} is no CSV: {error}") from None
    return [(line, row) for line, row in rows if any(cell.strip() for cell in row)]


def is_table(path: str | Path) -> bool:
    """Whether a CSV has the columns of a table of one's own."""
    rows = rows_of(Path(path))
    header = [cell.strip() for cell in rows[0][1]] if rows else []
    return "name" in header and "kind" in header


def import_table(path: str | Path) -> Model:
    """Return the layers of a table.

    Raises
    ------
    InputError
        If the file cannot be read, a column is unknown or stands twice, or a row is no layer; file
        and line are named.
    """
    path = Path(path)
    found = rows_of(path)
    if not found:
        raise InputError(f"{path} is empty; it must hold a header and one layer per row")
    (_, header), *rows = found
    columns = [cell.strip() for cell in header]
    while columns and not columns[-1]:
        columns.pop()
    known = {name for kind in KINDS.values() for name in kind.__struct_fields__} | {"kind"}
    for place, column in enumerate(columns):
        if column not in known:
            raise unknown(f"{path}: a layer has no field", column, sorted(known))
        if column in columns[:place]:
            raise InputError(f"{path} has the column {column!r} twice")
    if not rows:
        raise InputError(f"{path} must hold one layer per row below its header, found none")
    layers = []
    for line, cells in rows:
        try:
            layers.append(_layer(columns, cells))
        except InputError as error:
            raise InputError(f"{path}, line {line}: {error}") from None
    return Model(name=path.stem, source=f"table {path.name}", layers=tuple(layers))


def _layer(columns: list[str], cells: list[str]) -> Layer:
    given = {
        column: cell.strip() for column, cell in zip(columns, cells, strict=False) if cell.strip()
    }
    if any(cell.strip() for cell in cells[len(columns) :]):
        raise InputError(f"it must have at most {len(columns)} cells, got {len(cells)}")
    kind = given.pop("kind", "")
    if kind not in KINDS:
        raise unknown("there is no kind", kind, KINDS)
    strange = [name for name in given if name not in KINDS[kind].__struct_fields__]
    if strange:
        raise InputError(f"a {kind} has no {strange[0]}; leave the cell empty")
    fields = {name: cell if name in TEXT else _value(name, cell) for name, cell in given.items()}
    try:
        return msgspec.convert(fields | {"kind": kind}, KINDS[kind])
    except msgspec.ValidationError as error:
        raise InputError(f"its cells are no {kind}: {error}") from None


def _value(name: str, cell: str) -> Any:
    if cell in ("true", "false"):
        return cell == "true"
    if re.fullmatch(r"\d{1,10}(x\d{1,10})*", cell, re.ASCII):
        numbers = [int(part) for part in cell.split("x")]
        if max(numbers) > LARGEST:
            raise InputError(f"{name} must be at most {LARGEST}, got {cell}")
        return tuple(numbers) if len(numbers) > 1 else numbers[0]
    if name.endswith("density") and re.fullmatch(r"[01]?\.?\d{1,17}", cell, re.ASCII):
        return float(cell)
    raise InputError(f"{name} must be a whole number, or several as 3x3, got {cell!r}")
