"""NeuralTalk's caption generator, the three matrices EIE measures.

``we`` turns the 4096 image features of VGG-16 into a word vector of 600, ``lstm`` is one step of an
LSTM of width 600 (its input is 1 + 600 + 600: a constant 1 for the bias, the word, the state; its
output the four gates), ``wd`` scores the vocabulary. A word takes one ``lstm`` and one ``wd``.
Activations are dense. Source: Karpathy and Fei-Fei, CVPR 2015; shapes and densities EIE (ISCA
2016), Table III.
"""

from __future__ import annotations

from sparqsim.workloads.layers import Linear, Model
from sparqsim.workloads.models.alexnet import TABLE_III


def neuraltalk(batch: int = 1) -> Model:
    """Return the layers of one word for ``batch`` images."""

    def linear(name: str, inputs: int, outputs: int, weights: float) -> Linear:
        return Linear(
            name=name,
            in_features=inputs,
            out_features=outputs,
            rows=batch,
            bias=False,
            weight_density=weights,
            activation_density=1.0,
            density_source=TABLE_III,
        )

    return Model(
        name="neuraltalk",
        source="Karpathy and Fei-Fei, CVPR 2015; EIE, ISCA 2016",
        layers=(
            linear("we", 4096, 600, 0.10),
            linear("lstm", 1201, 2400, 0.10),
            linear("wd", 600, 8791, 0.11),
        ),
    )
