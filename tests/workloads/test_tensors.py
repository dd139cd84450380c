"""Do layers get the tensors asked for? Synthetic or trained."""

from __future__ import annotations

import numpy as np
import pytest

from sparqsim.base import InputError
from sparqsim.workloads.encodings.csc import CSC
from sparqsim.workloads.layers import MatMul
from sparqsim.workloads.models import get_layer
from sparqsim.workloads.tensors import LayerTensors, from_digits, synthetic, with_rows


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_published_densities_are_the_default() -> None:
    """EIE's layers are drawn at Table III densities; given ones win; the same seed, the same."""
    layer = get_layer("eie/alex-8")
    tensors = synthetic(layer, rng())
    assert isinstance(tensors.weight, CSC) and tensors.pruned
    assert tensors.weight.density == pytest.approx(0.25, abs=0.002)
    assert np.mean(tensors.activation != 0) == pytest.approx(0.375, abs=0.03)
    again = synthetic(layer, rng())
    np.testing.assert_array_equal(tensors.activation, again.activation)
    dense = synthetic(with_rows(layer, 3), rng(), weight_density=1.0, activation_density=0.0)
    assert dense.sparse_weight.density == 1 and not dense.activation.any()
    assert dense.activation.shape == (3, 4096) and not dense.pruned


def test_convolutions_have_images() -> None:
    """A convolution's weights and activations have the shapes of torch and ONNX."""
    layer = with_rows(get_layer("alexnet/conv2"), 2)
    tensors = synthetic(layer, rng(), weight_density=0.5)
    assert tensors.weight.shape == layer.weight_shape
    assert tensors.activation.shape[0] == 2
    assert np.mean(np.asarray(tensors.weight) != 0) == pytest.approx(0.5, abs=0.01)


def test_digits_are_real() -> None:
    """A digits layer has the trained weights and the inputs the network saw."""
    from sparqsim.workloads.models.digits import load_digits

    net = load_digits("cnn")
    tensors = from_digits("cnn", "fc2", 7)
    np.testing.assert_array_equal(np.asarray(tensors.weight), net.weights["fc2"])
    seen = net.activations(net.images.test_images[:7])["fc2"]
    np.testing.assert_array_equal(tensors.activation, seen)
    assert not from_digits("cnn", "fc3", 1).relu and tensors.relu


def test_bad_requests_are_refused() -> None:
    """Densities of real tensors, layers without weights, shapes and numbers that do not fit."""
    with pytest.raises(InputError, match="takes no batch"):
        with_rows(MatMul(name="m", m=2, k=3, n=4), 2)
    layer = get_layer("eie/nt-we")
    good = synthetic(layer, rng())
    for field, value, message in (
        ("activation", np.zeros((2, 4096)), "activations must have shape"),
        ("activation", np.full((1, 4096), np.nan), "4096 are NaN or infinite"),
        ("activation", np.zeros((1, 4096), complex), "real numbers"),
        ("bias", np.zeros(3), "bias must have shape"),
        ("bias", np.full(600, np.inf), "bias must be finite"),
    ):
        with pytest.raises(InputError, match=message):
            LayerTensors(
                **{
                    "layer": layer,
                    "weight": good.weight,
                    "activation": good.activation,
                    field: value,
                }
            )
