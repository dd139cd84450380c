"""Do runs that jump over what repeats end as the runs that go through everything, and how fast?

    python -m benchmarks.fast_forward [--json FILE|-] [--only NAME]

The largest tile loops there are, a layer each: DianNao's 765,440 tiles of a projection of LLaMA-7B
with 128 rows, and on Bit Fusion every layer of LLaMA-7B that differs, with 2048 tokens. Each is run
with jumps and without, in summary mode, kernels compiled. Cycles and all sums of every lane must be
equal; else the command fails. It takes half a minute and 600 MB.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import click
import numpy as np

from sparqsim.architectures.arrays.bitfusion import BitFusion
from sparqsim.architectures.arrays.diannao import DianNao
from sparqsim.architectures.machine import Machine, program
from sparqsim.scripts.output import console, json_option, table, write_json
from sparqsim.simulator.engines import repeating, simulate
from sparqsim.simulator.engines.compiled import run_compiled
from sparqsim.simulator.netlist import Actor, Netlist
from sparqsim.simulator.timeline import Timeline
from sparqsim.workloads.encoded import outline
from sparqsim.workloads.layers import Layer, Linear
from sparqsim.workloads.models.decoders import llama_7b
from sparqsim.workloads.network_tensors import shape_of

COLUMNS = ("firings", "cycles", "s with jumps", "s without")
SUMS = ("busy", "starved", "blocked", "waiting", "finished")


@contextmanager
def without_jumps() -> Iterator[None]:
    """Go through every firing."""
    short, repeating.SHORT = repeating.SHORT, 1 << 62
    try:
        yield
    finally:
        repeating.SHORT = short


def lowered(machine: Machine, layer: Layer) -> Netlist:
    """The netlist of a layer's shape, in the machine's own formats."""
    own = machine.recipe_for(layer)
    return program(machine, outline(layer, own, own=own)).netlist


def netlists() -> Iterator[tuple[str, Netlist]]:
    """The tile loops, each with its name."""
    layer = Linear(name="projection", in_features=4096, out_features=11008, rows=128)
    yield "DianNao 4096 -> 11008, 128 rows", lowered(DianNao(), layer)
    shapes = {shape_of(layer): layer for layer in reversed(llama_7b(2048).layers)}
    for each in reversed(shapes.values()):
        yield f"Bit Fusion {each.name}", lowered(BitFusion(), each)


def timed(netlist: Netlist) -> tuple[Timeline, float]:
    """The sums of a run, and its processor seconds."""
    start = time.process_time()
    timeline = run_compiled(netlist, "summary")
    return timeline, time.process_time() - start


def equal(one: Timeline, two: Timeline) -> bool:
    """Whether cycles, firings done and all sums of every lane are the same."""
    return one.cycles == two.cycles and all(
        np.array_equal(one.fired[i], two.fired[i])
        and all(
            np.array_equal(
                getattr(one.lane_times(actor.name), each), getattr(two.lane_times(actor.name), each)
            )
            for each in SUMS
        )
        for i, actor in enumerate(one.netlist.actors)
    )


@click.command()
@json_option
@click.option("--only", default="", help="Tile loops whose name has this.")
def main(json_path: str | None, only: str) -> None:
    """Compare runs with jumps and without."""
    simulate(Netlist([Actor(name="first", firings=1)]), record="summary")  # loads the kernels
    rows = []
    for name, netlist in netlists():
        if only not in name:
            continue
        jumped, seconds = timed(netlist)
        with without_jumps():
            through, all_seconds = timed(netlist)
        if not equal(jumped, through):
            raise click.ClickException(
                f"{name}: {jumped.cycles:,} cycles with jumps, {through.cycles:,} without, or "
                "sums that differ"
            )
        firings = netlist.lane_firings
        rows.append(
            {"name": name, "firings": firings, "cycles": jumped.cycles, "jumping_s": seconds,
             "through_s": all_seconds}
        )  # fmt: skip
    if json_path:
        write_json(rows, json_path)
    if json_path != "-":
        shown = table("Equal to the cycle, with jumps and without", ("tile loop",), COLUMNS)
        for row in rows:
            shown.add_row(
                row["name"], f"{row['firings']:,}", f"{row['cycles']:,}",
                f"{row['jumping_s']:.2f}", f"{row['through_s']:.2f}",
            )  # fmt: skip
        console().print(shown)


if __name__ == "__main__":
    main()
