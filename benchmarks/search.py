"""How long does the search for mappings take, for whole networks?

    python -m benchmarks.search [--json FILE|-]

All layers of a network on a machine with an objective, kernels compiled, nothing remembered from
before: mappings are searched, and the best few candidates simulated where near-ties are settled so.
Processor seconds; ResNet-50 with the product of energy and delay is to take less than two.
"""

from __future__ import annotations

import time

import click

from sparqsim.architectures.arrays.ant import Ant
from sparqsim.architectures.arrays.bitfusion import BitFusion
from sparqsim.architectures.arrays.plain import PlainArray
from sparqsim.architectures.arrays.search import Objective, best_mapping, seen
from sparqsim.architectures.arrays.shapes import ConvShape
from sparqsim.architectures.arrays.tiled import TiledMachine
from sparqsim.scripts.output import console, json_option, table, write_json
from sparqsim.workloads.models import get_model

MACHINES: tuple[type[TiledMachine], ...] = (BitFusion, Ant, PlainArray)
NETWORKS = ("resnet50", "mobilenet_v2", "bert_base", "llama_7b")


def searched_s(machine: TiledMachine, network: str) -> float:
    """Processor seconds of the search for all layers of a network."""
    shapes = [ConvShape.of(layer) for layer in get_model(network).layers]
    best_mapping.cache_clear()
    seen.cache_clear()
    start = time.process_time()
    for shape in shapes:
        best_mapping(
            shape, machine.layer_rules(shape, (8, 8)), machine.rates, machine.objective,
            machine.clock_hz,
        )  # fmt: skip
    return time.process_time() - start


@click.command()
@json_option
def main(json_path: str | None) -> None:
    """Time the search of networks on machines, by objective."""
    searched_s(BitFusion(), "resnet50")  # compiles
    found = {
        (kind().name, network, objective.name.lower()): searched_s(
            kind(objective=objective), network
        )
        for kind in MACHINES
        for network in NETWORKS
        for objective in Objective
    }
    if json_path:
        write_json({" ".join(key): seconds for key, seconds in found.items()}, json_path)
    if json_path != "-":
        objectives = tuple(objective.name.lower() for objective in Objective)
        rows = table("Processor seconds of a search", ("machine", "network"), objectives)
        for kind in MACHINES:
            for network in NETWORKS:
                times = [f"{found[kind().name, network, each]:.2f}" for each in objectives]
                rows.add_row(kind().name, network, *times)
        console().print(rows)


if __name__ == "__main__":
    main()
