"""Does every registered machine keep the laws - and does the suite find machines that do not?

A machine enrols by its row in the registry. Each runs a fully connected layer, a convolution, a
depthwise layer and a product of two activations, or says why it does not.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest

from sparqsim.architectures.account import Account, Port
from sparqsim.architectures.arrays.bitfusion import BitFusion
from sparqsim.architectures.laws import broken
from sparqsim.architectures.machine import Program
from sparqsim.architectures.registry import get_machine, machine_names
from sparqsim.workloads.encoded import EncodedLayer
from sparqsim.workloads.layers import Conv2d, Layer, Linear, MatMul
from sparqsim.workloads.tensors import LayerTensors, synthetic

LAYERS: dict[str, Layer] = {
    "connected": Linear(name="connected", in_features=72, out_features=40, rows=3),
    "convolution": Conv2d(
        name="convolution", in_channels=8, out_channels=12, input=(6, 7), kernel=(3, 3),
        padding=(1, 1),
    ),
    "pointwise": Conv2d(
        name="pointwise", in_channels=16, out_channels=8, input=(3, 4), kernel=(1, 1), bias=False
    ),
    "depthwise": Conv2d(
        name="depthwise", in_channels=6, out_channels=6, input=(7, 7), kernel=(3, 3), groups=6,
        padding=(1, 1),
    ),
    "attention": MatMul(name="attention", m=6, k=16, n=8, batch=2),
}  # fmt: skip
# What a machine does not run, by its own words.
REFUSED = {
    ("eie", "convolution"), ("eie", "depthwise"), ("eie", "attention"),
}  # fmt: skip


def tensors(layer: Layer) -> LayerTensors:
    """Synthetic numbers with zeros, and a bias where the layer has one."""
    rng = np.random.default_rng(3)
    made = synthetic(layer, rng, weight_density=0.6, activation_density=0.7)
    if isinstance(layer, MatMul) or not layer.bias:
        return made
    return dataclasses.replace(made, bias=rng.normal(size=layer.weight_shape[0]))


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("name", machine_names())
def test_the_laws_hold(name: str, layer: str) -> None:
    """Exact outputs, both engines alike, tokens that carry or are refused, use at most 1, an
    account whose sums agree, nothing negative, a report that round-trips through JSON."""
    machine = get_machine(name)()
    if (name, layer) in REFUSED:
        assert machine.refusal(LAYERS[layer])
        return
    assert not machine.refusal(LAYERS[layer])
    assert broken(machine, tensors(LAYERS[layer])) == []


def sevenfold(port: Port) -> Port:
    """A port that tells seven times the bits."""
    return Port(
        store=port.store,
        actor=port.actor,
        read_bits=np.asarray(port.read_bits) * 7,
        written_bits=np.asarray(port.written_bits) * 7,
    )


FAULTS: dict[str, tuple[Callable[[Program], dict[str, Any]], str]] = {
    "outputs one too large": (
        lambda program: {"outputs": program.outputs + 1},
        "steps off on the average",
    ),
    "one multiplier told": (
        lambda program: {"multipliers": 1},
        "use of multipliers must be 0 to 1",
    ),
    "seven times the traffic": (
        lambda program: {
            "account": Account(program.account.stores, [*map(sevenfold, program.account.ports)])
        },
        "busy cycles, in which",
    ),
    "half the work told": (
        lambda program: {
            "macs": msgspec.structs.replace(program.macs, dense=program.macs.dense - 1)
        },
        "dense MACs are told",
    ),
    "tokens that carry nothing": (
        lambda program: {"executed": lambda: False},
        "tokens do not carry",
    ),
}


def with_fault(change: Callable[[Program], dict[str, Any]]) -> BitFusion:
    """Bit Fusion with one thing wrong in its programs."""

    class Wrong(BitFusion, frozen=True, kw_only=True):
        def lower(self, layer: EncodedLayer) -> Program:
            program = super().lower(layer)
            return dataclasses.replace(program, **change(program))

    return Wrong()


@pytest.mark.parametrize("fault", FAULTS)
def test_a_machine_with_a_fault_is_found(fault: str) -> None:
    """Each fault of a machine that keeps the laws, as above, is a sentence that names it, and no
    other law complains."""
    change, said = FAULTS[fault]
    for layer in ("connected", "convolution"):
        found = broken(with_fault(change), tensors(LAYERS[layer]))
        assert found and all(said in sentence for sentence in found)
