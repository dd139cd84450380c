"""VGG-16 (configuration D): thirteen 3 x 3 convolutions in five stages, three FC layers.

Image 224 x 224; 2 x 2 max pooling ends each stage. Source: Simonyan and Zisserman, ICLR 2015. The
densities of fc6-fc8 are those EIE (ISCA 2016) lists in Table III.
"""

from __future__ import annotations

from sparqsim.workloads.layers import Layer, Model, OtherWork
from sparqsim.workloads.models.alexnet import fully_connected
from sparqsim.workloads.models.parts import behind, conv

STAGES = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))  # published: channels, convolutions


def vgg16(batch: int = 1) -> Model:
    """Return VGG-16 for ``batch`` images."""
    layers: list[Layer] = []
    other: list[OtherWork] = []
    size, channels = 224, 3
    for stage, (width, count) in enumerate(STAGES, 1):
        for i in range(1, count + 1):
            name = f"conv{stage}_{i}"
            made = conv(name, channels, width, size, 3, bias=True, batch=batch)
            layers.append(made)
            other += behind(made, "Relu", *(["MaxPool"] if i == count else []))
            channels = width
        size //= 2
    classifier = (
        fully_connected("fc6", 25088, 4096, batch, 0.04, 0.183),
        fully_connected("fc7", 4096, 4096, batch, 0.04, 0.375),
        fully_connected("fc8", 4096, 1000, batch, 0.23, 0.411),
    )
    return Model(
        name="vgg16",
        source="Simonyan and Zisserman, ICLR 2015",
        layers=(*layers, *classifier),
        other=(*other, *behind(classifier[0], "Relu"), *behind(classifier[1], "Relu")),
    )
