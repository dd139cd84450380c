"""Read a SCALE-Sim topology: a CSV with one layer per row.

Two layouts, told by the header: convolutions (``Layer name, IFMAP Height, IFMAP Width, Filter
Height, Filter Width, Channels, Num Filter, Strides``) and matrix products (``Layer, M, N, K``: M
rows of K inputs by N outputs). A stride may have two columns; rows usually end in a comma; the file
may begin with a byte-order mark. A column ``Sparsity`` with ``N:M`` becomes a weight density.

SCALE-Sim knows no padding: its input sizes include it. And it rounds the number of windows *up*,
``ceil((H - R + stride) / stride)``, so that the last one may reach over the edge; the layer here is
padded below and to the right by as much, which gives its outputs and MACs exactly. A layer named
``...DP...`` is depthwise: its filters apply to each channel alone.

Source: SCALE-Sim's documentation of topology files and its ``topology_utils.py``.
"""

from __future__ import annotations

import math
import re
from pathlib import Path

from sparqsim.base import InputError
from sparqsim.workloads.importers import Names
from sparqsim.workloads.importers.table import rows_of
from sparqsim.workloads.layers import Conv2d, Layer, Linear, Model

CONV = ("ifmapheight", "ifmapwidth", "filterheight", "filterwidth", "channels", "numfilter")
STRIDES = ("strides", "stride", "strideheight", "stridesh", "strideh")
STRIDES_WIDTH = ("stridewidth", "stridesw", "stridew")
GEMM = ("m", "n", "k")
LARGEST = 2**31 - 1  # assumed: no size of a layer of today comes near


def import_scalesim(path: str | Path) -> Model:
    """Return the layers of a SCALE-Sim topology.

    Raises
    ------
    InputError
        If the file cannot be read, is no topology (a report of SCALE-Sim, say), or a row lacks a
        size; file and line are named.
    """
    path = Path(path)
    rows = rows_of(path)
    header = [re.sub(r"[^a-z0-9]", "", cell.lower()) for cell in rows[0][1]] if rows else []
    columns = {name: place for place, name in reversed(list(enumerate(header)))}
    conv = all(name in columns for name in CONV) and any(name in columns for name in STRIDES)
    if not conv and not all(name in columns for name in GEMM):
        raise InputError(_no_topology(path, rows[0][1] if rows else []))
    reader = _Row(path, columns)
    names = Names()
    layers: list[Layer] = []
    for line, cells in rows[1:]:
        reader.line, reader.cells = line, cells
        name = names.take(reader.cells[0].strip() or f"row{line}")
        try:
            layers.append(_conv(name, reader) if conv else _gemm(name, reader))
        except InputError as error:
            where = f"{path}, line {line}"
            raise (
                error if str(error).startswith(where) else InputError(f"{where}: {error}")
            ) from None
    if not layers:
        raise InputError(f"{path} must hold one layer per row below its header, found none")
    return Model(name=path.stem, source=f"SCALE-Sim topology {path.name}", layers=tuple(layers))


def _no_topology(path: Path, header: list[str]) -> str:
    shown = ", ".join(cell.strip() for cell in header if cell.strip()) or "nothing"
    what = "a report of SCALE-Sim" if re.search("cycles|SRAM|BW|util", shown, re.I) else "unknown"
    advice = (
        "it has no sizes: give the topology that it was made from"
        if what != "unknown"
        else "name the columns as SCALE-Sim does"
    )
    return (
        f"{path} must be a topology, with the columns 'Layer name, IFMAP Height, IFMAP Width, "
        f"Filter Height, Filter Width, Channels, Num Filter, Strides' or 'Layer, M, N, K'; got "
        f"{shown} ({what}); {advice}"
    )


class _Row:
    """The cells of one row by the names of their columns."""

    def __init__(self, path: Path, columns: dict[str, int]) -> None:
        self.path, self.columns = path, columns
        self.line, self.cells = 0, [""]

    def text(self, *names: str) -> str:
        """Return the cell of the first column that exists; empty if none does."""
        for name in names:
            place = self.columns.get(name)
            if place is not None and place < len(self.cells):
                return self.cells[place].strip()
        return ""

    def size(self, *names: str) -> int:
        text = self.text(*names)
        if not re.fullmatch(r"\d{1,10}", text, re.ASCII) or not 1 <= int(text) <= LARGEST:
            raise InputError(
                f"{self.path}, line {self.line}: {names[0]} must be whole and at least 1, "
                f"got {text!r}"
            )
        return int(text)

    def density(self) -> dict[str, object]:
        """Return the fields of a density, from ``N:M``."""
        ratio = re.fullmatch(r"(\d{1,4})\s*:\s*(\d{1,4})", self.text("sparsity"), re.ASCII)
        if ratio is None or ratio[1] == ratio[2]:
            return {}
        n, m = int(ratio[1]), int(ratio[2])
        if not 1 <= n < m:
            raise InputError(
                f"{self.path}, line {self.line}: sparsity N:M must keep 1 to M of M, got {n}:{m}"
            )
        return {"weight_density": n / m, "density_source": f"{self.path.name}, {n}:{m}"}


def _gemm(name: str, row: _Row) -> Layer:
    return Linear(
        name=name,
        in_features=row.size("k"),
        out_features=row.size("n"),
        rows=row.size("m"),
        bias=False,
        **row.density(),  # type: ignore[arg-type]
    )


def _conv(name: str, row: _Row) -> Layer:
    height, width, tall, wide, channels, filters = (row.size(column) for column in CONV)
    down = row.size(*STRIDES)
    right = row.size(*STRIDES_WIDTH) if row.text(*STRIDES_WIDTH) else down
    depthwise = "DP" in name

    def over(size: int, kernel: int, stride: int) -> int:
        """How far the last window reaches over the edge."""
        if kernel > size:
            raise InputError(f"its filter of {kernel} must fit its input of {size}")
        windows = math.ceil((size - kernel + stride) / stride)
        return max((windows - 1) * stride + kernel - size, 0)

    return Conv2d(
        name=name,
        in_channels=channels,
        out_channels=channels * filters if depthwise else filters,
        input=(height, width),
        kernel=(tall, wide),
        stride=(down, right),
        padding=(0, 0, over(height, tall, down), over(width, wide, right)),
        groups=channels if depthwise else 1,
        bias=False,
        **row.density(),  # type: ignore[arg-type]
    )
