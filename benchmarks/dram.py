"""How many requests a second does one DRAM channel serve? ``python -m benchmarks.dram``.

One thread, after compiling; processor time of the best of a few runs. Random reads are the worst
case: each choice weighs all 32 requests that wait. Coarse requests are also given in bursts, for
their work is that of their bursts.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import click
import msgspec
import numpy as np

from sparqsim.base import written_whole
from sparqsim.simulator.memory.dram import Dram, Granularity, replay

STANDARD = "DDR4-3200"
SPAN_BURSTS = 1 << 20


def best_time(work: Callable[[], Any], repeats: int) -> float:
    """Seconds of this thread's processor time in the best run."""
    best = float("inf")
    for _ in range(repeats):
        start = time.thread_time()
        work()
        best = min(best, time.thread_time() - start)
    return best


def measure(repeats: int) -> list[dict[str, Any]]:
    """A row a pattern: requests, bursts, seconds, and millions of each a second."""
    dram = Dram(standard=STANDARD)
    channel, burst = dram.channel(), dram.timing.burst_bytes
    rng = np.random.default_rng(0)
    scattered = rng.integers(0, SPAN_BURSTS, SPAN_BURSTS) * burst
    third = np.arange(SPAN_BURSTS) % 3
    mixed = third * (64 << 20) + np.arange(SPAN_BURSTS) // 3 * burst
    patterns = {
        "stream, bursts": dram.requests(0, SPAN_BURSTS * burst, False, Granularity.BURST)[0],
        "two reads, one write, bursts": dram.requests(mixed, burst, third == 2)[0],
        "random reads, bursts": dram.requests(scattered, burst)[0],
        "stream, rows": dram.requests(0, 64 * SPAN_BURSTS * burst, False, Granularity.ROW)[0],
        "stream, one tile": dram.requests(0, 64 * SPAN_BURSTS * burst, False, Granularity.TILE)[0],
    }
    rows = []
    for name, requests in patterns.items():
        run = replay(channel, requests)
        seconds = best_time(partial(replay, channel, requests), repeats)
        bursts = run.read_bursts + run.write_bursts
        rows.append(
            {
                "pattern": name,
                "requests": len(requests),
                "bursts": bursts,
                "seconds": seconds,
                "mrequests_per_s": len(requests) / seconds / 1e6,
                "mbursts_per_s": bursts / seconds / 1e6,
                "cycles": run.cycles,
            }
        )
    return rows


@click.command()
@click.option("--repeats", default=5, show_default=True, type=click.IntRange(min=1))
@click.option("--json", "json_path", help="Write the rows to a file, or to - for the terminal.")
def main(repeats: int, json_path: str | None) -> None:
    """Requests a second of one channel."""
    rows = measure(repeats)
    text = msgspec.json.format(msgspec.json.encode({"standard": STANDARD, "rows": rows}), indent=1)
    if json_path == "-":
        click.echo(text)
        return
    if json_path is not None:
        with written_whole(json_path) as path:
            path.write_bytes(text + b"\n")
    click.echo(f"{STANDARD}, one channel, queues of 32")
    for row in rows:
        click.echo(
            f"{row['pattern']:30} {row['mrequests_per_s']:10.4g} M requests/s "
            f"{row['mbursts_per_s']:10.4g} M bursts/s"
        )


if __name__ == "__main__":
    main()
