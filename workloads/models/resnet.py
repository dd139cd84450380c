"""ResNet-18 and ResNet-50 on 224 x 224 images.

A stage halves the image and doubles the channels. In the bottleneck blocks of ResNet-50 it is the
3 x 3 convolution that strides ("v1.5", as in torchvision and MLPerf; the paper strides in the
first 1 x 1). Batch normalisation is folded: convolutions carry no bias here and its scales and
offsets are counted as other parameters. Source: He et al., CVPR 2016.
"""

from __future__ import annotations

from sparqsim.workloads.layers import Conv2d, Linear, Model, OtherWork
from sparqsim.workloads.models.parts import behind, conv


def _model(name: str, blocks: tuple[int, ...], bottleneck: bool, batch: int) -> Model:
    layers: list[Conv2d | Linear] = [conv("conv1", 3, 64, 224, 7, 2, batch=batch)]
    other: list[OtherWork] = [*behind(layers[0], "Relu", "MaxPool")]
    size, channels = 56, 64
    for stage, count in enumerate(blocks):
        width = 64 << stage
        out = width * (4 if bottleneck else 1)
        for block in range(count):
            prefix = f"layer{stage + 1}.{block}"
            stride = 2 if stage and not block else 1
            if bottleneck:
                chain = [(channels, width, 1, 1), (width, width, 3, stride), (width, out, 1, 1)]
            else:
                chain = [(channels, out, 3, stride), (out, out, 3, 1)]
            extent = size
            for i, (fan_in, fan_out, kernel, step) in enumerate(chain, 1):
                label = f"{prefix}.conv{i}"
                layers.append(conv(label, fan_in, fan_out, extent, kernel, step, batch=batch))
                extent //= step
                if i < len(chain):
                    other += behind(layers[-1], "Relu")
            if stride == 2 or channels != out:
                layers.append(
                    conv(f"{prefix}.downsample", channels, out, size, 1, stride, batch=batch)
                )
            other += behind(layers[-1], "Add", "Relu")
            size, channels = size // stride, out
    other += behind(layers[-1], "GlobalAveragePool")
    norms = sum(2 * layer.out_channels for layer in layers if isinstance(layer, Conv2d))
    layers.append(Linear(name="fc", in_features=channels, out_features=1000, rows=batch))
    return Model(
        name=name,
        source="He et al., CVPR 2016",
        layers=tuple(layers),
        other_parameters=norms,
        other_parameters_are="batch-norm scales and offsets",
        other=tuple(other),
    )


def resnet18(batch: int = 1) -> Model:
    """Return ResNet-18 for ``batch`` images."""
    return _model("resnet18", (2, 2, 2, 2), False, batch)


def resnet50(batch: int = 1) -> Model:
    """Return ResNet-50 (v1.5) for ``batch`` images."""
    return _model("resnet50", (3, 4, 6, 3), True, batch)
