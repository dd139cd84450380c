"""OliVe's headline on a systolic array: speed and energy over AdaFloat, OLAccel and ANT.

The paper's means are over language models quantized after training. Here: BERT-base (MNLI), batch
64, every layer at 4 bits on OliVe, event by event. Its authors released no simulator and no sizes:
buffers, bandwidth and energies are ANT's, assumed, and so is the model of what moves
(``authors_model``), in which the others were run. AdaFloat and OLAccel are the totals of the same
network from ANT's released simulator, whose array has the same area. ANT, quantized after training
without outliers, needs 8 bits for language models: it runs here event by event at 8 bits in every
layer (assumed; the paper has nearly all). The aim is 10 to 15 %.

In a GPU's tensor cores, decoders in front of the dot products: four of the paper's language models,
as formats of the machine ``sparse-tensor-core``. Assumed: an A100 stands for the paper's simulated
Turing GPU, kernel launches cost nothing, GOBO computes in fp16 (its short weights are unpacked
before the product, which is not charged), ANT runs at 8 bits in every layer, and sums leave as 32
bits on all integer formats. The published ratios exceed those of the peaks, 4 over fp16 and 2 over
int8, which no run of products alone can; ours stay below them and miss.
"""

from __future__ import annotations

import functools
import statistics
from dataclasses import replace

import click
import msgspec

from sparqsim.architectures.arrays.ant import Ant
from sparqsim.architectures.arrays.olive import Olive
from sparqsim.architectures.network import run_network
from sparqsim.architectures.sparse_tensor_core import SparseTensorCore
from sparqsim.scripts.output import json_option
from sparqsim.scripts.validation._arrays import (
    Headline,
    headline_table,
    report_headlines,
    timed,
)
from sparqsim.scripts.validation._evidence import Evidence
from sparqsim.workloads.work import Network, load

# published: BERT-base (MNLI) from ANT's released simulator: cycles, and mJ summed over its parts
ADAFLOAT = (790424726, 766.10336 + 436.97058 + 401.79699 + 487.63581)
OLACCEL = (618200556, 599.17852 + 256.11897 + 210.99146 + 122.58551)
# published: abstract and section VI, speed and energy of OliVe over ...
RATIOS = {"AdaFloat": (4.8, 3.7), "OLAccel": (3.8, 2.1), "ANT at 8 bits": (3.7, 3.3)}
BOUND = 0.15
# published: abstract and section VI, in a GPU; and the format that stands for each here
GPU_RATIOS = {"GOBO": (4.5, 4.0), "int8": (2.7, 2.3), "ANT": (2.4, 2.0)}
STANDS_FOR = {"GOBO": "fp16", "int8": "int8", "ANT": "int8"}
GPU = SparseTensorCore(outlier_pairs=True, launch_us=0.0)
MODELS = {"bert_base": 16, "bert_large": 16, "gpt2_xl": 2, "opt_6_7b": 2}  # assumed: batches

EVIDENCE = (
    Evidence(
        tables=(headline_table("OliVe over others, times"),),
        long=True,
    ),
)


def at_bits(network: Network, bits: int) -> Network:
    """The network with both operands of every layer at one width."""
    layers = tuple(
        msgspec.structs.replace(layer, activation_bits=bits, weight_bits=bits)
        for layer in network.layers
    )
    return replace(network, model=msgspec.structs.replace(network.model, layers=layers))


def headlines() -> list[Headline]:
    """Six ratios."""
    bert = load("ant/bert_mnli", numbers=False)
    ours = timed(Olive(authors_model=True), at_bits(bert, 4)).totals
    ant = timed(Ant(authors_model=True), at_bits(bert, 8)).totals
    others = {
        "AdaFloat": ADAFLOAT,
        "OLAccel": OLACCEL,
        "ANT at 8 bits": (ant.cycles, ant.energy.known_pj * 1e-9),
    }
    cycles, millijoules = ours.cycles, ours.energy.known_pj * 1e-9
    return [
        Headline(what=f"{what} over {name}", published=published, ours=found, bound=BOUND)
        for name, (other_cycles, other_millijoules) in others.items()
        for what, published, found in (
            ("speed", RATIOS[name][0], other_cycles / cycles),
            ("energy", RATIOS[name][1], other_millijoules / millijoules),
        )
    ]


@functools.cache
def gpu_headlines() -> tuple[Headline, ...]:
    """Six ratios in a GPU: geometric means over the language models."""
    gains: dict[str, list[tuple[float, float]]] = {}
    for name, batch in MODELS.items():
        network = load(name, batch=batch, numbers=False)
        totals = {
            recipe: run_network(GPU, network, recipe=recipe, verify=False).totals
            for recipe in ("olive4", "int8", "fp16")
        }
        ours = totals["olive4"]
        for recipe, theirs in totals.items():
            gains.setdefault(recipe, []).append(
                (theirs.seconds / ours.seconds, theirs.energy.known_pj / ours.energy.known_pj)
            )
    return tuple(
        Headline(
            what=f"GPU: {what} over {name}",
            published=GPU_RATIOS[name][which],
            ours=statistics.geometric_mean(pair[which] for pair in gains[STANDS_FOR[name]]),
            bound=BOUND,
            note=f"{STANDS_FOR[name]} here",
        )
        for name in GPU_RATIOS
        for which, what in enumerate(("speed", "energy"))
    )


@click.command()
@json_option
def command(json_path: str | None) -> None:
    """OliVe's speed and energy over others, on a systolic array and in a GPU's tensor cores."""
    report_headlines(
        "OliVe on a systolic array and in a GPU, times",
        [*headlines(), *gpu_headlines()],
        json_path,
        "arrays: BERT-base (MNLI), sizes assumed to be ANT's; GPU: four language models on an "
        "A100; beside the paper's means over language models",
    )
