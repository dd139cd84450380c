"""The nine layers of EIE's benchmark (ISCA 2016, Table III) under the names that paper gives them.

Not a network: the fully connected layers of AlexNet, VGG-16 and NeuralTalk, one vector each.
"""

from __future__ import annotations

import msgspec

from sparqsim.workloads.layers import Model
from sparqsim.workloads.models.alexnet import TABLE_III, alexnet
from sparqsim.workloads.models.neuraltalk import neuraltalk
from sparqsim.workloads.models.vgg import vgg16

NAMES = {
    "alex": (alexnet, {"6": "fc6", "7": "fc7", "8": "fc8"}),
    "vgg": (vgg16, {"6": "fc6", "7": "fc7", "8": "fc8"}),
    "nt": (neuraltalk, {"we": "we", "wd": "wd", "lstm": "lstm"}),
}


def eie(batch: int = 1) -> Model:
    """Return the nine layers for ``batch`` input vectors."""
    return Model(
        name="eie",
        source=TABLE_III,
        layers=tuple(
            msgspec.structs.replace(make(batch=batch).layer(layer), name=f"{network}-{short}")
            for network, (make, layers) in NAMES.items()
            for short, layer in layers.items()
        ),
    )
