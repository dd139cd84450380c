"""Do a network's layers get its own numbers where it has some, and drawn ones elsewhere?"""

from __future__ import annotations

from dataclasses import replace

import msgspec
import numpy as np
import pytest

from sparqsim.base import InputError
from sparqsim.workloads.layers import Conv2d, Linear, MatMul, Model, OtherWork
from sparqsim.workloads.network_tensors import NetworkTensors
from sparqsim.workloads.work import Network, load

LINEAR = Linear(name="up", in_features=8, out_features=6, rows=2)
SAME = Linear(name="again", in_features=8, out_features=6, rows=2)
PRODUCT = MatMul(name="scores", m=3, k=4, n=5, batch=2)
MODEL = Model(name="shapes", source="t", layers=(LINEAR, SAME, PRODUCT))
SHAPES = Network(name="shapes", model=MODEL, source="t")


def test_drawn_tensors_follow_seed_and_shape() -> None:
    """Equal shapes, equal numbers; another seed, others."""
    tensors = NetworkTensors(network=SHAPES)
    one, two = tensors.of(LINEAR), tensors.of(SAME)
    np.testing.assert_array_equal(one.sparse_weight.to_dense(), two.sparse_weight.to_dense())
    np.testing.assert_array_equal(one.activation, two.activation)
    assert tensors.key(LINEAR) == tensors.key(SAME) != tensors.key(PRODUCT)
    other = NetworkTensors(network=SHAPES, seed=1).of(LINEAR)
    assert not np.array_equal(one.activation, other.activation)
    product = tensors.of(PRODUCT)
    assert product.weight.shape == (2, 5, 4) and product.activation.shape == (2, 3, 4)
    assert (product.activation < 0).any() and not product.relu


def test_a_trained_network_gives_its_own() -> None:
    """Weights, biases, ReLU, real inputs, and the inputs on which ranges are found."""
    work = load("digits-cnn", batch=3)
    tensors = NetworkTensors(network=work)
    assert work.weights is not None and work.inputs is not None and work.subject is not None
    layer = work.model.layer("conv2")
    found = tensors.of(layer)
    np.testing.assert_array_equal(found.weight, work.weights["conv2"])
    np.testing.assert_array_equal(found.activation, work.inputs()["conv2"])
    np.testing.assert_array_equal(found.bias, work.biases["conv2"])
    np.testing.assert_array_equal(found.calibration, work.subject.capture()["conv2"])
    assert found.activation.shape[0] == 3 and found.relu and found.pruned
    assert not tensors.of(work.model.layer("fc3")).relu
    assert "trained weights, real inputs" in found.source
    dense = NetworkTensors(network=load("digits-cnn", dense=True))
    assert not dense.of(dense.network.model.layer("conv2")).pruned
    assert tensors.key(layer) != tensors.key(work.model.layer("conv1"))


def test_products_take_both_operands() -> None:
    """The left operand is the activation, the right one stands where weights do."""
    rng = np.random.default_rng(0)
    operands = {
        "scores.left": rng.normal(size=(2, 3, 4)).astype(np.float32),
        "scores.right": rng.normal(size=(2, 5, 4)).astype(np.float32),
    }
    tensors = NetworkTensors(network=replace(SHAPES, inputs=lambda: operands))
    found = tensors.of(PRODUCT)
    np.testing.assert_array_equal(found.activation, operands["scores.left"])
    np.testing.assert_array_equal(found.weight, operands["scores.right"])
    assert "real operands" in found.source and not found.relu and not found.pruned


def test_weights_without_inputs_get_drawn_ones() -> None:
    """A file of weights alone: the source says which is which."""
    weight = np.ones((6, 8), np.float32)
    tensors = NetworkTensors(network=replace(SHAPES, weights={"up": weight}))
    found = tensors.of(LINEAR)
    np.testing.assert_array_equal(found.weight, weight)
    assert "trained weights, synthetic inputs" in found.source and not found.relu


def test_relu_is_what_the_network_says() -> None:
    """Told outright, or by the first work behind the layer; assumed where nothing is told."""
    assert NetworkTensors(network=SHAPES).relu(LINEAR)
    assert not NetworkTensors(network=replace(SHAPES, relus={"up": False})).relu(LINEAR)
    other = (
        OtherWork(name="relu", kind="elementwise", operation="Relu", elements=1, after="again"),
        OtherWork(name="add", kind="elementwise", operation="Add", elements=1, after="up"),
        OtherWork(name="late", kind="elementwise", operation="Relu", elements=1, after="up"),
    )
    told = replace(SHAPES, model=msgspec.structs.replace(MODEL, other=other))
    tensors = NetworkTensors(network=told)
    assert tensors.relu(SAME) and not tensors.relu(LINEAR)
    assert tensors.key(SAME) != tensors.key(LINEAR)
    assert tensors.of(SAME).relu and not tensors.of(LINEAR).relu


def test_densities_and_seeds_are_checked() -> None:
    """Fractions, of what is drawn; seeds from 0."""
    conv = Conv2d(name="c", in_channels=4, out_channels=4, input=(5, 5), kernel=(3, 3))
    network = replace(SHAPES, model=Model(name="c", source="t", layers=(conv,)))
    thin = NetworkTensors(network=network, weight_density=0.25, activation_density=0.5)
    assert np.mean(np.asarray(thin.of(conv).weight) != 0) == pytest.approx(0.25, abs=0.12)
    assert thin.comes_pruned(conv) and not NetworkTensors(network=network).comes_pruned(conv)
    for name in ("weight_density", "activation_density"):
        for wrong in (-0.1, 1.1, float("nan")):
            with pytest.raises(InputError, match="fraction"):
                NetworkTensors(network=network, **{name: wrong})
        with pytest.raises(InputError, match="real tensors"):
            NetworkTensors(network=load("digits-mlp"), **{name: 0.5})
    with pytest.raises(InputError, match="seed"):
        NetworkTensors(network=network, seed=-1)
