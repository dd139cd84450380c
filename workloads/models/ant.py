"""Networks with the bits ANT (MICRO 2022) chose for each layer, batch 64 as in its evaluation.

ANT keeps four bits wherever accuracy allows and raises single layers to eight; both operands of a
layer have the same width. Its performance model has no attention products: neither has
``ant/bert_mnli``, whose twelve blocks are written out because their bits differ. On Bit Fusion's
integers only two layers of ResNet-18 stand four bits (``ant/resnet18_on_bitfusion``). Source: the
authors' performance model; first convolutions and last layers are always at eight bits.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

import msgspec

from sparqsim.workloads.layers import Layer, Linear, MatMul, Model, OtherWork
from sparqsim.workloads.models import resnet, vgg
from sparqsim.workloads.models.bert import bert_base

SOURCE = "ANT, MICRO 2022"
# published: the layers raised to eight bits
BERT_MNLI = frozenset({"8.query", "8.key", "8.value", "9.mlp_down", "pooler", "classifier"})
# published: the layers Bit Fusion's integers can lower to four
LOW_ON_BIT_FUSION = frozenset({"layer4.0.conv2", "layer4.1.conv2"})


def _with_bits(
    name: str,
    layers: Iterable[Layer],
    eight: Collection[str],
    other: tuple[OtherWork, ...] = (),
) -> Model:
    return Model(
        name=name,
        source=SOURCE,
        layers=tuple(
            msgspec.structs.replace(layer, activation_bits=bits, weight_bits=bits)
            for layer in layers
            for bits in (8 if layer.name in eight else 4,)
        ),
        other=other,
    )


def _bare(layers: Iterable[Layer]) -> list[Layer]:
    """Drop other people's densities: they are of other trained networks."""
    return [
        msgspec.structs.replace(
            layer, weight_density=None, activation_density=None, density_source=None
        )
        for layer in layers
    ]


def vgg16(batch: int = 64) -> Model:
    """Return VGG-16, all but its ends at four bits."""
    model = vgg.vgg16(batch)
    return _with_bits("ant/vgg16", _bare(model.layers), {"conv1_1", "fc8"}, model.other)


def resnet18(batch: int = 64) -> Model:
    """Return ResNet-18, all but its ends at four bits."""
    model = resnet.resnet18(batch)
    return _with_bits("ant/resnet18", model.layers, {"conv1", "fc"}, model.other)


def resnet18_on_bitfusion(batch: int = 64) -> Model:
    """Return ResNet-18 as Bit Fusion's integers need it for the same accuracy."""
    model = resnet.resnet18(batch)
    high = {layer.name for layer in model.layers} - LOW_ON_BIT_FUSION
    return _with_bits("ant/resnet18_on_bitfusion", model.layers, high, model.other)


def bert_mnli(sequence_length: int = 128, batch: int = 64) -> Model:
    """Return BERT-base for MNLI (three-way entailment is scored by two outputs in the source)."""
    encoder = bert_base(sequence_length, batch).layers
    block = [layer for layer in encoder if layer.repeat > 1 and not isinstance(layer, MatMul)]
    layers: list[Layer] = [
        msgspec.structs.replace(layer, name=f"{i}.{layer.name.partition('.')[2]}", repeat=1)
        for i in range(block[0].repeat)
        for layer in block
    ]
    pooler = encoder[-1]
    head = Linear(name="classifier", in_features=768, out_features=2, rows=batch)
    return _with_bits("ant/bert_mnli", [*layers, pooler, head], BERT_MNLI)
