"""The eight networks Bit Fusion (ISCA 2018) is measured on, with the bits of every layer.

They are the authors' variants, as their performance model has them (``bitfusion.csv``): AlexNet and
ResNet-18 are WRPN's, twice as wide and without groups; ResNet-18's blocks are a 1 x 1 and a 3 x 3
convolution; VGG-7 is the ternary CIFAR-10 network; RNN and LSTM are one square matrix each. First
convolutions and last layers keep more bits. Bits below 2 are stored as they are and computed as 2.
"""

from __future__ import annotations

import csv
from functools import cache, partial
from importlib import resources

from sparqsim.workloads.layers import Conv2d, Layer, Linear, Model


@cache
def _rows() -> tuple[dict[str, str], ...]:
    text = resources.files(__package__).joinpath("bitfusion.csv").read_text()
    lines = (line for line in text.splitlines() if not line.startswith("#"))
    return tuple(csv.DictReader(lines))


def _same(size: int, out: int, kernel: int, stride: int) -> tuple[int, int]:
    """Return the (before, after) padding that makes ``size`` into ``out``; the odd one is after."""
    total = max((out - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def _layer(row: dict[str, str], batch: int) -> Layer:
    number = {key: int(value) for key, value in row.items() if key not in ("network", "layer")}
    if number["kernel"] == 0:
        return Linear(
            name=row["layer"],
            in_features=number["in"],
            out_features=number["out"],
            rows=batch,
            bias=False,
            activation_bits=number["activation_bits"],
            weight_bits=number["weight_bits"],
        )
    size, kernel, stride = number["size"], number["kernel"], number["stride"]
    before, after = _same(size, number["out_size"], kernel, stride)
    return Conv2d(
        name=row["layer"],
        in_channels=number["in"],
        out_channels=number["out"],
        input=(size, size),
        kernel=(kernel, kernel),
        stride=(stride, stride),
        padding=(before, before, after, after),
        bias=False,
        batch=batch,
        activation_bits=number["activation_bits"],
        weight_bits=number["weight_bits"],
    )


def _network(network: str, batch: int = 16) -> Model:
    return Model(
        name=f"bitfusion/{network}",
        source="Bit Fusion, ISCA 2018",
        layers=tuple(_layer(row, batch) for row in _rows() if row["network"] == network),
    )


alexnet = partial(_network, "alexnet")
svhn = partial(_network, "svhn")
cifar10 = partial(_network, "cifar10")
lenet5 = partial(_network, "lenet5")
vgg7 = partial(_network, "vgg7")
resnet18 = partial(_network, "resnet18")
rnn = partial(_network, "rnn")
lstm = partial(_network, "lstm")
