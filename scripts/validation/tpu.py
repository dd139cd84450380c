"""TPU v1's measured throughput on four production networks, in tera-operations a second.

The paper gives each network's layers in number, its weights, its operations a weight byte and its
batch, not its shapes. Here every layer of a network is alike (assumed): fully connected ones are
square; convolutions have 3 x 3 kernels, as many channels in as out, and as many output pixels as
operations a weight byte over the batch say (CNN0: 361 = 19 x 19). MLP0 and CNN0 should come within
15 %. LSTM1 and CNN1 depend on scheduling that is not published (LSTM1's dependent steps, CNN1's
fully connected layers of 32 rows): they are shown, and miss.

Source: Jouppi et al., ISCA 2017, Tables 1 and 3 (by a secondary source).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import click

from sparqsim.architectures.arrays.tpu import TPU
from sparqsim.architectures.machine import run
from sparqsim.scripts.output import json_option
from sparqsim.scripts.validation._arrays import Headline, headline_table, report_headlines
from sparqsim.scripts.validation._evidence import Evidence
from sparqsim.workloads.encoded import outline
from sparqsim.workloads.layers import Conv2d, Layer, Linear, Model

EVIDENCE = (Evidence(tables=(headline_table("TPU v1, tera-operations a second"),)),)


class Application(NamedTuple):
    """A row of the paper's tables."""

    weights: float
    layers: int
    batch: int
    ops_per_weight_byte: int
    tops: float
    convolutional: bool


# published
APPLICATIONS = {
    "MLP0": Application(20e6, 5, 200, 200, 12.3, False),
    "CNN0": Application(8e6, 16, 8, 2888, 86.0, True),
    "LSTM1": Application(34e6, 56, 96, 96, 2.8, False),
    "CNN1": Application(100e6, 89, 32, 1750, 14.1, True),
}
BOUNDED = ("MLP0", "CNN0")
BOUND = 0.15


def network(name: str) -> Model:
    """A network of equal layers with the published totals."""
    app = APPLICATIONS[name]
    each = app.weights / app.layers
    layer: Layer
    if app.convolutional:
        channels = round(math.sqrt(each / 9))
        side = round(math.sqrt(app.ops_per_weight_byte / app.batch))
        layer = Conv2d(
            name="layer",
            in_channels=channels,
            out_channels=channels,
            input=(side, side),
            kernel=(3, 3),
            padding=(1, 1),
            batch=app.batch,
            repeat=app.layers,
        )
    else:
        side = round(math.sqrt(each))
        layer = Linear(
            name="layer",
            in_features=side,
            out_features=side,
            rows=app.batch,
            repeat=app.layers,
        )
    return Model(name=name, source="TPU v1, ISCA 2017", layers=(layer,))


def headlines() -> list[Headline]:
    """Tera-operations (two a multiply-accumulate) a second of each network."""
    machine = TPU()
    rows = []
    for name, app in APPLICATIONS.items():
        model = network(name)
        layers = [outline(layer, machine.recipe) for layer in model.layers]
        seconds = run(machine, machine.lower_network(layers)).report.seconds
        rows.append(
            Headline(
                what=f"{name}: TOPS",
                published=app.tops,
                ours=2 * model.macs / seconds / 1e12,
                bound=BOUND if name in BOUNDED else None,
                note="" if name in BOUNDED else "scheduling not published: shown only",
            )
        )
    return rows


@click.command()
@json_option
def command(json_path: str | None) -> None:
    """TPU v1's throughput on MLP0, CNN0, LSTM1 and CNN1."""
    report_headlines(
        "TPU v1, tera-operations a second",
        headlines(),
        json_path,
        "layers of equal shape with the published totals (assumed)",
    )
