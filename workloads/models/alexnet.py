"""AlexNet as first published: convolutions 2, 4 and 5 in two groups, one a GPU of the time.

Image 227 x 227; overlapping 3 x 3 / 2 max pooling after convolutions 1, 2 and 5 (55 -> 27 -> 13 ->
6). Source: Krizhevsky et al., NIPS 2012, with the input size of the Caffe reference model. The
densities of fc6-fc8 are those of Deep Compression's model as EIE (ISCA 2016) lists them in Table
III.
"""

from __future__ import annotations

from sparqsim.workloads.layers import Linear, Model
from sparqsim.workloads.models.parts import behind, conv

TABLE_III = "EIE, ISCA 2016, Table III"


def fully_connected(
    name: str, inputs: int, outputs: int, batch: int, weights: float, activations: float
) -> Linear:
    """Return a layer with its Table III densities."""
    return Linear(
        name=name,
        in_features=inputs,
        out_features=outputs,
        rows=batch,
        weight_density=weights,
        activation_density=activations,
        density_source=TABLE_III,
    )


def alexnet(batch: int = 1) -> Model:
    """Return AlexNet for ``batch`` images."""
    layers = (
        conv("conv1", 3, 96, 227, 11, 4, 0, bias=True, batch=batch),
        conv("conv2", 96, 256, 27, 5, groups=2, bias=True, batch=batch),
        conv("conv3", 256, 384, 13, 3, bias=True, batch=batch),
        conv("conv4", 384, 384, 13, 3, groups=2, bias=True, batch=batch),
        conv("conv5", 384, 256, 13, 3, groups=2, bias=True, batch=batch),
        fully_connected("fc6", 9216, 4096, batch, 0.09, 0.351),
        fully_connected("fc7", 4096, 4096, batch, 0.09, 0.353),
        fully_connected("fc8", 4096, 1000, batch, 0.25, 0.375),
    )
    more = {"conv1": ("LRN", "MaxPool"), "conv2": ("LRN", "MaxPool"), "conv5": ("MaxPool",)}
    return Model(
        name="alexnet",
        source="Krizhevsky et al., NIPS 2012",
        layers=layers,
        other=tuple(
            work
            for layer in layers[:-1]
            for work in behind(layer, "Relu", *more.get(layer.name, ()))
        ),
    )
