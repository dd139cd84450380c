"""SqueezeNet 1.0 (Iandola et al., 2016) with the weight densities that Deep Compression left.

A *fire* module squeezes its input by a 1 x 1 convolution and expands it by 1 x 1 and 3 x 3 ones
side by side. Deep Compression (ICLR 2016) prunes the 3 x 3 expansions to a third and leaves the
rest nearly dense: a network that most accelerators for sparse weights gain little on. Densities are
exact, counted in the authors' file (``squeezenet.csv``); those of activations are not published.
"""

from __future__ import annotations

import csv
from importlib import resources

from sparqsim.workloads.layers import Conv2d, Model

DENSITIES = "published: counted in the file of Deep Compression's authors (BSD)"


def squeezenet(batch: int = 1) -> Model:
    """Return SqueezeNet 1.0 for ``batch`` images of 227 x 227."""
    text = resources.files(__package__).joinpath("squeezenet.csv").read_text()
    rows = csv.DictReader(line for line in text.splitlines() if not line.startswith("#"))
    layers = []
    for row in rows:
        size = {key: int(value) for key, value in row.items() if key != "layer"}
        layers.append(
            Conv2d(
                name=row["layer"],
                in_channels=size["in"],
                out_channels=size["out"],
                input=(size["in_size"], size["in_size"]),
                kernel=(size["kernel"], size["kernel"]),
                stride=(size["stride"], size["stride"]),
                padding=(size["pad"], size["pad"]),
                batch=batch,
                weight_density=size["nonzero"] / size["weights"],
                density_source=DENSITIES,
            )
        )
    return Model(
        name="squeezenet",
        source="Iandola et al., arXiv 1602.07360; densities of Deep Compression, counted in the "
        "authors' file",
        layers=tuple(layers),
    )
