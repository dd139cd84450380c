"""How many values a second do formats encode and decode? ``python -m benchmarks.formats``.

One thread, after compiling, on normal numbers whose three sigma are the format's largest value (of
pairs: the largest that is no outlier, as OliVe starts its scale); processor time of the best of a
few runs, so that other work on the machine disturbs little. The yardstick beside it is the usual
way to the rank, ``numpy.searchsorted`` over the midpoints (one run).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import click
import msgspec
import numpy as np
from rich.console import Console
from rich.table import Table

from sparqsim.base import written_whole
from sparqsim.workloads import formats

NAMES = (
    *("int4_signed", "int8_signed", "int16_signed", "pot4_signed", "apot_4_unsigned"),
    *("apot_8_signed", "flint4_signed", "flint8_unsigned", "float4_e2m1fn", "float8_e4m3fn"),
    *("bfloat16", "float16", "abfloat8_E4M3_bias4_signed", "ovp_int4", "ovp_int8"),
)


def rate(work: Callable[[], Any], values: int, repeats: int) -> float:
    """Millions of values a second of this thread's processor time, in the best run."""
    best = float("inf")
    for _ in range(repeats):
        start = time.thread_time()
        work()
        best = min(best, time.thread_time() - start)
    return values / best / 1e6


def measure(name: str, count: int, repeats: int, dtype: str) -> dict[str, Any]:
    """Encode and decode of one format, and the yardstick for encoding."""
    format_ = formats.get(name)
    normal = format_.normal if isinstance(format_, formats.OutlierVictim) else format_
    largest = min(float(normal.values[-1]), 1e4)  # the ends of floats are beyond any data
    x = (np.random.default_rng(0).normal(size=count) * largest / 3).astype(dtype)
    if format_.values[0] >= 0:
        x = np.abs(x)
    codes = format_.encode(x)  # compiles, builds the buckets
    format_.decode(codes, dtype)
    middles = ((format_.values[:-1] + format_.values[1:]) / 2).astype(dtype)
    return {
        "format": name,
        "dtype": dtype,
        "values": count,
        "encode_mvalues_per_s": rate(lambda: format_.encode(x), count, repeats),
        "decode_mvalues_per_s": rate(lambda: format_.decode(codes, dtype), count, repeats),
        "searchsorted_mvalues_per_s": rate(lambda: np.searchsorted(middles, x), count, 1),
    }


@click.command()
@click.option("--values", "count", default=10_000_000, show_default=True, type=click.IntRange(2))
@click.option("--repeats", default=5, show_default=True, type=click.IntRange(1))
@click.option("--dtype", default="float32", type=click.Choice(["float32", "float64"]))
@click.option("--json", "json_path", metavar="FILE", help="Write JSON to FILE, or to - (stdout).")
def main(count: int, repeats: int, dtype: str, json_path: str | None) -> None:
    """Measure encoding and decoding."""
    rows = [measure(name, count - count % 2, repeats, dtype) for name in NAMES]
    if json_path:
        text = msgspec.json.format(msgspec.json.encode(rows), indent=2) + b"\n"
        if json_path == "-":
            click.echo(text, nl=False)
            return
        with written_whole(json_path) as temporary:
            temporary.write_bytes(text)
        return
    table = Table("format", box=None, header_style="bold", pad_edge=False)
    for heading in ("encode", "decode", "numpy.searchsorted"):
        table.add_column(f"{heading}, M/s", justify="right")
    for row in rows:
        rates = [f"{value:.0f}" for key, value in row.items() if key.endswith("per_s")]
        table.add_row(row["format"], *rates)
    Console(highlight=False).print(table)


if __name__ == "__main__":
    main()
