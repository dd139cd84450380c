"""Bit Fusion's headline: speed and energy over Eyeriss on the paper's eight networks.

Bit Fusion runs event by event in its authors' model (``authors_model``: sums of 32 bits there and
back, padding in full), every layer at its published bits, batch 16; tilings are found by our own
search. Eyeriss's times and energies are those the authors compare with (from their released
results: ours divides their Bit Fusion run by their ratio). The paper's 3.9x and 5.1x are geometric
means over the networks. Beside them, without a bound, stands what they would be if only real
outputs moved, at the width they are requantized to.

With ``--against`` the analytic model is held against a table of per-layer counts of the authors'
code: cycles and the eight counters exactly, energies to 1e-6.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import click

from sparqsim.architectures.arrays.bitfusion import BitFusion
from sparqsim.scripts.output import json_option
from sparqsim.scripts.validation._arrays import (
    Headline,
    against_option,
    compare_bitfusion,
    evidence,
    geometric_mean,
    report_headlines,
    report_table,
    timed,
)


class Eyeriss(NamedTuple):
    """A network on Eyeriss, an image: and the authors' Bit Fusion over it."""

    milliseconds: float
    millijoules: float
    speedup: float
    energy_reduction: float


# published: the authors' released results. Energy: their Bit Fusion's (of a batch of 16), an image,
# times their ratio.
EYERISS = {
    "alexnet": Eyeriss(8.785792, 131.946 / 16 * 1.556, 1.866, 1.556),
    "svhn": Eyeriss(1.412096, 4.22034 / 16 * 10.573, 8.574, 10.573),
    "cifar10": Eyeriss(5.519232, 11.5914 / 16 * 14.772, 13.406, 14.772),
    "lenet5": Eyeriss(0.139712, 1.14137 / 16 * 4.298, 2.724, 4.298),
    "vgg7": Eyeriss(2.703232, 9.2488 / 16 * 9.866, 7.662, 9.866),
    "resnet18": Eyeriss(11.935744, 169.666 / 16 * 1.853, 1.946, 1.853),
    "rnn": Eyeriss(0.131072, 1.25687 / 16 * 5.143, 2.657, 5.143),
    "lstm": Eyeriss(0.102600, 1.08004 / 16 * 4.783, 2.434, 4.783),
}
SPEEDUP, ENERGY_REDUCTION = 3.9, 5.1  # published: abstract
BOUND = 0.05  # of the geometric means: tilings are ours, fill and drain are charged

LAYERS = Path(__file__).with_name("bitfusion_layers.csv")
EVIDENCE = evidence("Bit Fusion over Eyeriss, times", LAYERS)


def headlines() -> list[Headline]:
    """Both ratios of every network, their geometric means, and those of real traffic."""
    speedups, reductions = _over_eyeriss(BitFusion(authors_model=True))
    rows = []
    for (network, other), speedup, reduction in zip(
        EYERISS.items(), speedups, reductions, strict=True
    ):
        rows += [
            Headline(what=f"{network}: speed", published=other.speedup, ours=speedup),
            Headline(what=f"{network}: energy", published=other.energy_reduction, ours=reduction),
        ]
    real = _over_eyeriss(BitFusion())
    for what, published, ours, bound in (
        ("speed over Eyeriss", SPEEDUP, speedups, BOUND),
        ("energy over Eyeriss", ENERGY_REDUCTION, reductions, BOUND),
        ("speed, real outputs alone", SPEEDUP, real[0], None),
        ("energy, real outputs alone", ENERGY_REDUCTION, real[1], None),
    ):
        rows.append(
            Headline(
                what=f"geometric mean: {what}",
                published=published,
                ours=geometric_mean(ours),
                bound=bound,
                note="" if bound else "not counted as the authors count",
            )
        )
    return rows


def _over_eyeriss(machine: BitFusion) -> tuple[list[float], list[float]]:
    """Speed and energy of every network, over Eyeriss."""
    speedups, reductions = [], []
    for network, other in EYERISS.items():
        ours = timed(machine, f"bitfusion/{network}").totals
        milliseconds = ours.cycles / machine.clock_hz * 1e3 / machine.batch
        millijoules = ours.energy.known_pj * 1e-9 / machine.batch
        speedups.append(other.milliseconds / milliseconds)
        reductions.append(other.millijoules / millijoules)
    return speedups, reductions


@click.command()
@against_option
@json_option
def command(against: Path | None, json_path: str | None) -> None:
    """Bit Fusion's speed and energy over Eyeriss; --against: its per-layer counts."""
    if against is not None:
        report_table(against, compare_bitfusion(against), json_path)
        return
    report_headlines(
        "Bit Fusion over Eyeriss, times",
        headlines(),
        json_path,
        "networks: beside the authors' released results; means: beside the paper's abstract",
    )
