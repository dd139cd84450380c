"""MobileNetV2 (width 1.0) on 224 x 224 images: inverted residuals around depthwise convolutions.

A block widens by 1 x 1 (``expand``), filters each channel by itself (``depthwise``) and narrows by
1 x 1 (``project``). Source: Sandler et al., CVPR 2018, Table 2.
"""

from __future__ import annotations

from sparqsim.workloads.layers import Conv2d, Linear, Model, OtherWork
from sparqsim.workloads.models.parts import behind, conv

# published, Table 2: expansion, output channels, blocks, stride of the first
STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


def mobilenet_v2(batch: int = 1) -> Model:
    """Return MobileNetV2 for ``batch`` images."""
    layers: list[Conv2d] = [conv("conv_first", 3, 32, 224, 3, 2, batch=batch)]
    other: list[OtherWork] = [*behind(layers[0], "Clip")]
    size, channels, block = 112, 32, 0
    for expansion, out, count, first_stride in STAGES:
        for i in range(count):
            block += 1
            stride = first_stride if i == 0 else 1
            hidden = expansion * channels
            name = f"block{block}"
            if expansion != 1:
                layers.append(conv(f"{name}.expand", channels, hidden, size, 1, batch=batch))
                other += behind(layers[-1], "Clip")
            layers.append(
                conv(
                    f"{name}.depthwise", hidden, hidden, size, 3, stride, groups=hidden, batch=batch
                )
            )
            other += behind(layers[-1], "Clip")
            size //= stride
            layers.append(conv(f"{name}.project", hidden, out, size, 1, batch=batch))
            if stride == 1 and channels == out:
                other += behind(layers[-1], "Add")
            channels = out
    layers.append(conv("conv_last", channels, 1280, size, 1, batch=batch))
    other += behind(layers[-1], "Clip", "GlobalAveragePool")
    return Model(
        name="mobilenet_v2",
        source="Sandler et al., CVPR 2018",
        layers=(
            *layers,
            Linear(name="classifier", in_features=1280, out_features=1000, rows=batch),
        ),
        other_parameters=sum(2 * layer.out_channels for layer in layers),
        other_parameters_are="batch-norm scales and offsets",
        other=tuple(other),
    )
