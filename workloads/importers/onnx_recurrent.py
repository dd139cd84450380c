"""Recurrent operations of an ONNX graph as layers: ``LSTM``, ``GRU``, ``RNN``.

For each direction there is one product of all time steps' inputs (``NAME.input``), and one product
of the state that runs again in each step with the same weights (``NAME.recurrent``, repeated as
often). Gates and the state's update are element-wise work. Sequences that end early are counted to
the end. The layers run inside their operation: what they read is closed to view.

Source: the ONNX operator specification; onnxruntime's ContribOperators.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparqsim.workloads.formats.integer import Int
from sparqsim.workloads.importers import Codes, Later, Range
from sparqsim.workloads.importers.onnx_codes import WHOLE
from sparqsim.workloads.importers.onnx_constants import Constant
from sparqsim.workloads.importers.onnx_convolutions import real_weights
from sparqsim.workloads.importers.onnx_operators import MICROSOFT
from sparqsim.workloads.importers.onnx_quantized import BYTE
from sparqsim.workloads.importers.onnx_site import Site
from sparqsim.workloads.layers import Linear

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1, "DynamicQuantizeLSTM": 4}


def recurrent(site: Site) -> bool:
    """``LSTM``, ``GRU`` or ``RNN``: weights ``[directions, gates * hidden, inputs]``."""
    given, again = (real_weights(site, site.input(which)) for which in (1, 2))
    bias = site.input(3)
    held = None
    if bias:
        held = site.vector(bias).reshape(max(given.shape[0], 1), -1)
    _add(site, given, again, False, held)
    return True


def dynamic_lstm(site: Site) -> bool:
    """onnxruntime's ``DynamicQuantizeLSTM``: weights ``[directions, inputs, gates * hidden]``."""
    parts = []
    for value, scale, zero in ((1, 8, 9), (2, 10, 11)):
        names = [site.input(value), site.input(scale), site.input(zero)]
        parts.append(_coded(site, names))
    bias = site.input(3)
    held = site.vector(bias).reshape(parts[0].shape[0], -1) if bias else None
    _add(site, parts[0], parts[1], True, held)
    return True


def _coded(site: Site, names: list[str]) -> Constant:
    constants = site.among.constants
    kind = WHOLE.get(site.among.file.types.get(names[0], 0))
    if kind is None or not all(name in constants for name in names):
        raise site.fail("must have constant weights of codes with their scales and zero points")
    sources = [constants[name] for name in names]
    shape = sources[0].shape
    if len(shape) != 3 or any(
        math.prod(each.shape) not in (shape[0], shape[0] * shape[2]) for each in sources[1:]
    ):
        raise site.fail("must have scales and zero points for each direction, or each output of it")

    def wide(which: int) -> Later:
        def make() -> NDArray[Any]:
            return np.broadcast_to(sources[which].values().reshape(shape[0], 1, -1), shape)

        return Later(shape, make)

    codes = Codes(sources[0].array, wide(1), wide(2), Int(*kind))
    held = constants.made_of(sources, Later(shape, codes.values), True, site.place, codes)
    held.take()
    return held


def _add(
    site: Site, given: Constant, again: Constant, turned: bool, bias: NDArray[Any] | None
) -> None:
    """Append the layers of each direction; ``turned`` weights have inputs first."""
    shape, gates = site.shape(site.input(0)), GATES[site.node.op_type]
    if len(shape) != 3 or len(given.shape) != 3 or len(again.shape) != 3:
        raise site.fail(f"must read [steps, batch, inputs], got {list(shape)}")
    steps, batch = (shape[1], shape[0]) if site.whole("layout", 0) else shape[:2]
    wide, deep = (2, 1) if turned else (1, 2)
    directions, outputs, hidden = given.shape[0], given.shape[wide], again.shape[deep]
    if given.shape[deep] != shape[2] or outputs != gates * hidden or again.shape[wide] != outputs:
        raise site.fail(
            f"has weights {list(given.shape)} and {list(again.shape)}, which do not fit inputs "
            f"{list(shape)}"
        )
    if bias is not None and bias.shape != (directions, 2 * outputs):
        raise site.fail(f"must have a bias of {[directions, 2 * outputs]} numbers")
    name = site.among.name(site.node, [site.input(1), site.input(2)])
    for which in range(directions):
        side = "" if directions == 1 else (".forward", ".backward")[min(which, 1)]

        def turn(x: NDArray[Any], which: int = which) -> NDArray[Any]:
            return x[which].T if turned else x[which]

        for kind, weights in (("input", given), ("recurrent", again)):
            first = kind == "input"
            layer = Linear(
                name=site.among.names.take(f"{name}{side}.{kind}"),
                in_features=shape[2] if first else hidden,
                out_features=outputs,
                rows=batch * steps if first else batch,
                bias=bias is not None,
                repeat=1 if first else steps,
                steps=1 if first else steps,
            )
            part = None
            if bias is not None:
                part = bias[which, :outputs] if first else bias[which, outputs:]
            site.closed(layer, weights, turn, part)
            if site.node.op_type == "DynamicQuantizeLSTM":
                site.among.ranges[layer.name] = Range(*BYTE, None)
    elements = steps * batch * directions * outputs
    site.among.work(f"{name}.gates", "elementwise", site.node.op_type, elements,
                    site.among.repeat(site.node))  # fmt: skip


RECURRENT: dict[tuple[str, str], Callable[[Site], bool]] = {
    ("", "LSTM"): recurrent,
    ("", "GRU"): recurrent,
    ("", "RNN"): recurrent,
    (MICROSOFT, "DynamicQuantizeLSTM"): dynamic_lstm,
}
