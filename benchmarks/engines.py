"""How fast are the two engines? AlexNet fc6 on EIE's 64 PEs, one core, and are they equal?

    python -m benchmarks.engines [--json FILE|-] [--repeats N]

The netlist is lowered once. Of the compiled engine the best of N runs counts, flattening the
netlist and building the timeline included; the first, which compiles or loads the kernels, does
not. The SimPy engine runs once. Times are processor seconds of this process, so that other loads
of a shared machine do not count.
"""

from __future__ import annotations

import time

import click
import numpy as np

from sparqsim.architectures.eie import EIE
from sparqsim.architectures.machine import program
from sparqsim.scripts.output import console, json_option, table, write_json
from sparqsim.simulator.engines import simulate
from sparqsim.simulator.netlist import Netlist
from sparqsim.simulator.timeline import Timeline
from sparqsim.workloads.models import get_layer
from sparqsim.workloads.tensors import synthetic


def timed(netlist: Netlist, engine: str, repeats: int) -> tuple[Timeline, float]:
    """The timeline and the least processor seconds of some runs."""
    seconds = []
    for _ in range(repeats):
        start = time.process_time()
        timeline = simulate(netlist, engine=engine)
        seconds.append(time.process_time() - start)
    return timeline, min(seconds)


def equal(one: Timeline, two: Timeline) -> bool:
    """Whether every start and every cause is the same."""
    return one.cycles == two.cycles and all(
        np.array_equal(one.starts_of(actor.name), two.starts_of(actor.name))
        and np.array_equal(one.causes_of(actor.name), two.causes_of(actor.name))
        for actor in one.netlist.actors
    )


@click.command()
@json_option
@click.option("--repeats", type=click.IntRange(1), default=30, show_default=True)
@click.option("--layer", default="alexnet/fc6", show_default=True)
def main(json_path: str | None, repeats: int, layer: str) -> None:
    """Time the compiled engine against the SimPy engine."""
    machine = EIE(act_spill=False)
    netlist = program(machine, synthetic(get_layer(layer), np.random.default_rng(0))).netlist
    simulate(netlist)
    fast, fast_seconds = timed(netlist, "compiled", repeats)
    slow, slow_seconds = timed(netlist, "simpy", 1)
    firings = netlist.lane_firings
    result = {
        "layer": layer,
        "lane_firings": firings,
        "cycles": fast.cycles,
        "compiled_firings_per_s": firings / fast_seconds,
        "simpy_firings_per_s": firings / slow_seconds,
        "ratio": slow_seconds / fast_seconds,
        "equal": equal(fast, slow),
    }
    if json_path:
        write_json(result, json_path)
    if json_path != "-":
        rows = table(f"{layer} on EIE, {firings:,} lane-firings", ("engine",), ("ms", "M/s"))
        for name, seconds in (("compiled", fast_seconds), ("simpy", slow_seconds)):
            rows.add_row(name, f"{1e3 * seconds:,.2f}", f"{firings / seconds / 1e6:,.3f}")
        console().print(rows)
        same = "equal" if result["equal"] else "DIFFERENT"
        console().print(f"ratio {result['ratio']:,.0f}; starts and causes {same}")


if __name__ == "__main__":
    main()
