"""What ``sparqsim formats NAME --quantize ROWS`` shows: codes, what they stand for, the error."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparqsim.base import InputError
from sparqsim.scripts.output import console
from sparqsim.workloads.formats import Format, TableFormat
from sparqsim.workloads.formats.integer import Int
from sparqsim.workloads.quantize import quantize

MOST_NUMBERS = 4096
MOST_DECIMALS = 8  # that a number is shown with
PANELS = {"value": "r", "code": "q", "decoded": "r' = S (q - Z)", "error": "r - r'"}


def _numbers(text: str) -> NDArray[np.float64]:
    """The matrix that a text holds; raises InputError if it holds none."""
    try:
        rows = [[float(each) for each in row.split(",")] for row in text.split("/")]
        found = np.array(rows, np.float64)
    except ValueError:
        found = np.array(np.nan)
    if found.ndim != 2 or found.size > MOST_NUMBERS or not np.isfinite(found).all():
        raise InputError(
            "--quantize takes rows of as many finite numbers each, such as 1,2.5/-3,0, and at most "
            f"{MOST_NUMBERS} in all; got {text[:60]!r}"
        )
    return found


def quantized(format_: Format, text: str, asymmetric: bool) -> dict[str, Any]:
    """Numbers quantized to a format by one scale.

    Returns
    -------
    dict
        ``scale``, ``zero_point`` (or None), ``bits``, ``sqnr_db`` (None if nothing is lost), and
        ``value``, ``code``, ``decoded``, ``error`` as rows. Integers have their codes counted from
        0 as two's complement counts them; other formats the code itself.

    Raises
    ------
    InputError
        If the text holds no matrix, or the format takes no zero point.
    """
    if asymmetric and not isinstance(format_, Int):
        raise InputError(f"a zero point needs an integer format, got {format_.name}")
    if not isinstance(format_, TableFormat):
        raise InputError(f"--quantize takes a format whose codes stand alone, got {format_.name}")
    r = _numbers(text)
    q = quantize(r, format_, asymmetric=asymmetric)
    back = q.dequantize().astype(np.float64)
    lost = q.sqnr_db(r)
    codes = q.integers() if isinstance(format_, Int) else np.asarray(q.codes)
    return {
        "format": format_.name,
        "scale": float(q.scale[0]),
        "zero_point": None if q.zero_point is None else int(q.zero_point[0]),
        "bits": q.bits(),
        "sqnr_db": lost if np.isfinite(lost) else None,
        "value": r.tolist(),
        "code": codes.astype(int).tolist(),
        "decoded": back.tolist(),
        "error": (r - back).tolist(),
    }


def show_quantized(made: dict[str, Any]) -> None:
    """Print the four matrices, one below the other."""
    screen = console()
    zero = "no zero point" if made["zero_point"] is None else f"zero point {made['zero_point']}"
    noise = "exact" if made["sqnr_db"] is None else f"{made['sqnr_db']:.1f} dB"
    scale = made["scale"]
    told = f"{scale:.4f}" if scale >= 0.001 else f"{scale:.4g}"
    # As many decimals as tell the steps of the grid apart.
    decimals = max(2, 1 - math.floor(math.log10(scale)))
    digits = f".{decimals}f" if decimals <= MOST_DECIMALS else ".3g"
    screen.print(f"{made['format']}: scale {told}, {zero}, {noise}")
    screen.print(f"{made['bits']} bits with scale and zero point")
    for key, heading in PANELS.items():
        screen.print(f"\n[bold]{heading}[/bold]")
        rows = [
            [str(each) if key == "code" else f"{each:{digits}}" for each in row]
            for row in made[key]
        ]
        width = max(6, *(len(each) for row in rows for each in row))
        for cells in rows:
            screen.print(" ".join(each.rjust(width) for each in cells), markup=False)
