"""Writing traces: CPU seconds, bytes and memory for a million firings, format by format.

    python -m benchmarks.traces [FIRINGS]

A pipeline of four actors of 64 lanes is run and written in each format by a process of its own, so
that the memory is that of one writer: the most it holds beyond what the run needed.
"""

from __future__ import annotations

import multiprocessing
import resource
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

import numpy as np

from sparqsim.simulator.engines import simulate
from sparqsim.simulator.netlist import Actor, Channel, Netlist
from sparqsim.simulator.trace import trace_bytes, write_trace

STAGES = ("ptr_read", "spmat_read", "arithmetic", "act_write")
LANES = 64
NAMES = ("t.json", "t.json.gz", "t.kanata", "t.vcd")


def pipeline(firings: int) -> Netlist:
    """Four stages of so many firings in all, a lane to each PE of EIE."""
    each = firings // (len(STAGES) * LANES)
    busy = np.random.default_rng(0).integers(1, 20, (each, LANES))
    return Netlist(
        [Actor(name=name, lanes=LANES, busy=busy) for name in STAGES],
        [Channel(name=f"to {b}", source=a, target=b, capacity=2) for a, b in pairwise(STAGES)],
        clock_hz=800e6,
    )


def write(name: str, firings: int) -> str:
    """Write one trace, and a line on it."""
    netlist = pipeline(firings)
    timeline = simulate(netlist)
    with tempfile.TemporaryDirectory() as folder:
        write_trace(simulate(pipeline(2560)), Path(folder) / name)  # kernels are loaded
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        begin = time.process_time()
        path = write_trace(timeline, Path(folder) / name)
        seconds = time.process_time() - begin
        held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        size = path.stat().st_size
    foretold = trace_bytes(netlist.lane_firings, name)
    return (
        f"{name[1:]:9} {netlist.lane_firings:11,} firings {seconds:6.1f} s CPU"
        f"{size / 1e6:8.1f} MB (foretold {foretold / 1e6:.1f}), memory +{held / 1e3:.0f} MB"
    )


def main() -> None:
    """Print a line for each format, of a tenth of the firings and of all."""
    firings = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    spawn = multiprocessing.get_context("spawn")
    for name in NAMES:
        for count in (firings // 10, firings):
            with spawn.Pool(1) as pool:
                print(pool.apply(write, (name, count)), flush=True)


if __name__ == "__main__":
    main()
