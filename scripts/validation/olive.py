"""OliVe's headline on a systolic array: speed and energy over AdaFloat, OLAccel and ANT.

The paper's means are over language models quantized after training. Here: BERT-base (MNLI), batch
64, every layer at 4 bits on OliVe, event by event. Its authors released no simulator and no sizes:
buffers, bandwidth and energies are ANT's, assumed, and so is the model of what moves
(``authors_model``), in which the others were run. AdaFloat and OLAccel are the totals of the same
network from ANT's released simulator, whose array has the same area. ANT, quantized after training
without outliers, needs 8 bits for language models: it runs here event by event at 8 bits in every
layer (assumed; the paper has nearly all). The aim is 10 to 15 %.
"""

from __future__ import annotations

import click
import msgspec

from sparqsim.architectures.arrays.ant import Ant
from sparqsim.architectures.arrays.olive import Olive
from sparqsim.architectures.arrays.plans import run_network, total_cycles, total_energy_pj
from sparqsim.scripts.output import json_option
from sparqsim.scripts.validation._arrays import Headline, report_headlines
from sparqsim.workloads.layers import Model
from sparqsim.workloads.models import get_model

# published: BERT-base (MNLI) from ANT's released simulator: cycles, and mJ summed over its parts
ADAFLOAT = (790424726, 766.10336 + 436.97058 + 401.79699 + 487.63581)
OLACCEL = (618200556, 599.17852 + 256.11897 + 210.99146 + 122.58551)
# published: abstract and section VI, speed and energy of OliVe over ...
RATIOS = {"AdaFloat": (4.8, 3.7), "OLAccel": (3.8, 2.1), "ANT at 8 bits": (3.7, 3.3)}
BOUND = 0.15


def at_bits(model: Model, bits: int) -> Model:
    """The model with both operands of every layer at one width."""
    layers = tuple(
        msgspec.structs.replace(layer, activation_bits=bits, weight_bits=bits)
        for layer in model.layers
    )
    return msgspec.structs.replace(model, layers=layers)


def headlines() -> list[Headline]:
    """Six ratios."""
    bert = get_model("ant/bert_mnli")
    ours = run_network(Olive(authors_model=True), at_bits(bert, 4))
    ant = run_network(Ant(authors_model=True), at_bits(bert, 8))
    others = {
        "AdaFloat": ADAFLOAT,
        "OLAccel": OLACCEL,
        "ANT at 8 bits": (total_cycles(ant), total_energy_pj(ant) * 1e-9),
    }
    cycles, millijoules = total_cycles(ours), total_energy_pj(ours) * 1e-9
    return [
        Headline(what=f"{what} over {name}", published=published, ours=found, bound=BOUND)
        for name, (other_cycles, other_millijoules) in others.items()
        for what, published, found in (
            ("speed", RATIOS[name][0], other_cycles / cycles),
            ("energy", RATIOS[name][1], other_millijoules / millijoules),
        )
    ]


@click.command()
@json_option
def command(json_path: str | None) -> None:
    """OliVe's speed and energy over AdaFloat, OLAccel and ANT."""
    report_headlines(
        "OliVe on a systolic array, times",
        headlines(),
        json_path,
        "BERT-base (MNLI) beside the paper's mean over language models; sizes assumed to be ANT's",
    )
