"""Work is one argument: a network by name, a file, or a product given by its sizes.

======================================  ============================================================
``resnet50``                            a network Sparqsim knows (``sparqsim models`` lists them)
``resnet50/layer1.0.conv2``             one of its layers
``net.onnx``, ``net.onnx/conv1``        an ONNX file, or one layer of it
``topology.csv``                        a SCALE-Sim topology, convolutions or matrix products
``problem.yaml``                        a Timeloop problem
``gemm:MxKxN``                          M input rows by a K x N matrix of weights
``matmul:MxKxN,batch=B``                B products of two activation matrices, as in attention
``conv:CxHxW,KxRxS,stride=2,pad=1``     K filters of R x S on C channels of H x W
======================================  ============================================================

The same words serve every command. Where a network brings trained weights, real inputs and a way
to judge it (digits, MiniLM, a user's ONNX file with data), :class:`Network` has them; elsewhere
tensors are made up from the shapes (:mod:`sparqsim.workloads.tensors`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparqsim.base import InputError
from sparqsim.workloads.layers import Layer, Model, OtherWork
from sparqsim.workloads.models.real import Subject

Array = NDArray[np.float32]


@dataclass(frozen=True, eq=False, kw_only=True)
class Network:
    """What is to be run: shapes, and the numbers that come with them.

    Attributes
    ----------
    name : str
        As the user wrote it, without the layer.
    model : Model
        Shapes of all layers, in order; ``repeat`` says how often each stands.
    layer : str or None
        The one layer that was asked for; None for all.
    weights : mapping of str to float32 array, or None
        Trained weights by layer name, of the layer's ``weight_shape``, normalisation folded in.
        None: nothing but shapes is known.
    biases : mapping of str to float32 array [out]
        By layer name, where a layer has one and its values are known.
    relus : mapping of str to bool
        Whether negative outputs are cut to 0 right behind a layer (ReLU, ReLU6), where known.
    inputs : callable or None
        ``inputs()`` gives real operands that fit ``model.layers``: under a layer's name
        ``[rows, in_features]`` or ``[batch, channels, height, width]``; for a product of two
        activations ``NAME.left`` ``[batch, m, k]`` and ``NAME.right`` ``[batch, k, n]``.
        None: none are at hand.
    subject : Subject or None
        What a recipe is tried on: calibrates and judges. Its operands have the same names. None:
        the network cannot be judged.
    missing : str
        What to install or to lay beside the file for trained weights, where it lacks; else empty.
    source : str
        Who published the shapes and weights, or which file they are from.
    """

    name: str
    model: Model
    source: str
    layer: str | None = None
    weights: Mapping[str, Array] | None = None
    biases: Mapping[str, Array] = field(default_factory=dict)
    relus: Mapping[str, bool] = field(default_factory=dict)
    inputs: Callable[[], Mapping[str, Array]] | None = None
    subject: Subject | None = None
    missing: str = ""

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The layers to run: all, or the one that was asked for."""
        return self.model.layers if self.layer is None else (self.model.layer(self.layer),)

    @property
    def other(self) -> tuple[OtherWork, ...]:
        """Pooling, element-wise work, softmax, normalisation: none for a single layer."""
        return self.model.other if self.layer is None else ()


def load(
    work: str,
    *,
    batch: int | None = None,
    sequence: int | None = None,
    context: int | None = None,
    shapes: Mapping[str, int | tuple[int, ...]] | None = None,
    calibration: str | Path | None = None,
    inputs: str | Path | None = None,
    dense: bool = False,
) -> Network:
    """Return the network that ``work`` names; see the table above.

    Parameters
    ----------
    work : str
    batch : int, optional
        Images, sentences or vectors at once; the network's own default (mostly 1) otherwise.
    sequence : int, optional
        Tokens of a sequence, for transformers.
    context : int, optional
        Decode one token that attends to so many keys (itself included), for decoders.
    shapes : mapping, optional
        Sizes that an ONNX file leaves open: ``{"x": (1, 3, 224, 224)}``, ``{"x:0": 1}`` for one
        axis of input ``x``, or ``{"N": 1}`` by the size's own name.
    calibration, inputs : path, optional
        ``.npz`` files for an ONNX file: arrays named as its inputs (or a single array, for a single
        input) with samples along the first axis. Ranges are found on the one, the network is judged
        on the other; without ``inputs`` the first half of ``calibration`` calibrates and the second
        half judges. ``labels`` in the latter gives accuracy.
    dense : bool
        Take a network's weights from before it was pruned, where it comes both ways (digits).

    Raises
    ------
    InputError
        If there is no such work (the letter lists the nearest), a file cannot be read, or an option
        changes nothing for this work.
    """
    options = Options(batch, sequence, context, shapes, calibration, inputs, dense)
    options.check()
    kind, colon, text = work.partition(":")
    if colon and kind in SIZES:
        return _from_sizes(work, kind, text, options)
    name, layer = _known_or_file(work)
    if name in TABLE:
        network = _from_table(name, options)
    else:
        network = _from_file(name, options)
    if layer is not None:
        network = replace(network, layer=_layer_name(network.model, layer))
    return network
