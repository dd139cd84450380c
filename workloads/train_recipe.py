"""Training by a recipe: what compression broke, a few epochs on the training images repair.

A recipe says what is done to weights and inputs, as for :mod:`sparqsim.workloads.compress`. Here
the digits networks, the only ones that come with labelled training data, are pruned by it (once,
by magnitude or by saliency), run with rounded weights and inputs, and trained so
(:mod:`sparqsim.workloads.train`). The scales of one format, of a tensor or of each channel, are
trained with the weights. What else a recipe may say - zero points, groups, ranges found in the run,
types and codebooks that are searched for, activations that are pruned - its own quantizer does in
every step, straight through: that of weights and of dynamic activations looks at them each time,
that of calibrated activations was found before. What comes out has the form that compression
without training gives: codes, scales, the same report, the same files.

Left out: biases, which stay those of the float32 network (hardware adds them at full width).
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from sparqsim.base import InputError
from sparqsim.workloads import formats, prune, train
from sparqsim.workloads.compress import (
    Compressed,
    Report,
    activation_report,
    fitted,
    fitted_weight,
    pruned_inputs,
    reported,
)
from sparqsim.workloads.formats import Format
from sparqsim.workloads.models.digits import NETWORKS, Digits, load_digits, scale_pixels
from sparqsim.workloads.models.real import Subject, subject
from sparqsim.workloads.quantize import Quantizer
from sparqsim.workloads.recipes import Recipe, TensorRecipe, signed_or_not
from sparqsim.workloads.slices import Slices
from sparqsim.workloads.storage import StoredTensor

Array = NDArray[np.float32]
RATE = 0.03  # of three the best on images set aside; see docs/training.md
TRAINABLE = tuple(f"digits-{name}" for name in NETWORKS)


def train_by_recipe(
    name: str, recipe: Recipe, *, epochs: int, learning_rate: float = RATE, seed: int = 0
) -> tuple[Compressed, Report, dict[str, StoredTensor]]:
    """Prune, quantize and train a network.

    Parameters
    ----------
    name
        One of ``TRAINABLE``.
    recipe
        See the module.
    epochs, learning_rate, seed
        As for :func:`sparqsim.workloads.train.fit`; the seed is that of the order of images.

    Returns
    -------
    Compressed, Report, dict of str to StoredTensor
        As :func:`sparqsim.workloads.compress.compress` gives.

    Raises
    ------
    InputError
        If there is no such network, a tensor does not suit its format, or training diverges.
    """
    if name not in TRAINABLE:
        raise InputError(f"training needs labelled data, which {', '.join(TRAINABLE)} have; "
                         f"got {name!r}")  # fmt: skip
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # sums in one order: the same weights on any number of cores
    try:
        return _trained(name, recipe, epochs, learning_rate, seed)
    finally:
        torch.set_num_threads(threads)


def _trained(
    name: str, recipe: Recipe, epochs: int, learning_rate: float, seed: int
) -> tuple[Compressed, Report, dict[str, StoredTensor]]:
    float32, digits = subject(name), load_digits(name.removeprefix("digits-"), pruned=False)
    recipe.check_names([*float32.weights, *(layer.name for layer in digits.layers)])
    start = time.perf_counter()
    images = scale_pixels(digits.images.train_images), digits.images.train_labels
    net = _as_net(digits)
    train.set_masks(net, _masks(net, recipe, images))
    captured = float32.capture()
    rounds = {
        "weights": {name: _of_weights(recipe, name) for name in float32.weights},
        "activations": {
            name: _of_activations(recipe, name, captured[name]) for name in float32.weights
        },
    }
    grids = {
        kind: {name: each for name, each in found.items() if each is not None}
        for kind, found in rounds.items()
    }
    channels = [n for n in float32.weights if recipe.of("weights", n).granularity == "channel"]
    train.quantize(
        net,
        images[0],
        weights=grids["weights"],
        activations=grids["activations"],
        by_channel=channels,
    )
    train.fit(
        net,
        *images,
        epochs=epochs,
        learning_rate=learning_rate,
        generator=np.random.default_rng(seed),
    )
    return _result(float32, recipe, net, captured, time.perf_counter() - start)


def _as_net(digits: Digits) -> Any:
    """The network to train, biases held."""
    import torch

    net = train.chain(digits.layers, np.random.default_rng(0))
    with torch.no_grad():
        for name, layer in train.weighted(net).items():
            layer.weight.copy_(torch.from_numpy(np.array(digits.weights[name])))
            layer.bias.copy_(torch.from_numpy(np.array(digits.biases[name])))
            layer.bias.requires_grad_(False)
    return net


def _masks(
    net: Any, recipe: Recipe, images: tuple[Array, NDArray[Any]]
) -> dict[str, NDArray[np.bool_]]:
    """What stays of each weight that the recipe prunes."""
    groups: dict[Any, list[str]] = {}
    for name in train.weighted(net):
        asked = recipe.of("weights", name)
        if asked.prune is not None:
            groups.setdefault(asked if asked.across else (asked, name), []).append(name)
    found: dict[str, NDArray[np.bool_]] = {}
    for key, names in groups.items():
        asked = key if isinstance(key, TensorRecipe) else key[0]
        salient = asked.score == "saliency"
        scores = train.saliencies(net, *images) if salient else train.magnitudes(net)
        scope: prune.Scope = "global" if asked.across else "layer"
        chosen = {name: scores[name] for name in names}
        found |= prune.masks(chosen, asked.pattern, asked.density, scope)
    return found


def _learned(asked: TensorRecipe) -> bool:
    """Whether the scales of a tensor are trained."""
    return (
        asked.scheme == "format"
        and asked.format != "sign"
        and asked.granularity in ("tensor", "channel")
        and asked.calibration in ("minmax", "mse")
        and not (asked.asymmetric or asked.dynamic or asked.rule)
    )


def _grid(asked: TensorRecipe, sample: Array | None = None) -> Format:
    """The format of weights, or of activations of which there is a sample."""
    signed, unsigned = signed_or_not(asked.format)
    return formats.get(signed if sample is None or sample.min() < 0 else unsigned)


def _unpruned(asked: TensorRecipe) -> TensorRecipe:
    """The recipe of weights that a mask has pruned already."""
    return msgspec.structs.replace(
        asked, prune=None, density=None, across=False, score="magnitude", pad=asked.pad
        and asked.group is not None,
    )  # fmt: skip


def _of_weights(recipe: Recipe, name: str) -> Format | train.Rounds | None:
    """How the weights of a layer are rounded in training; None where they stay in float32."""
    asked = recipe.of("weights", name)
    if asked.scheme == "keep":
        return None
    if _learned(asked):
        return _grid(asked)
    return lambda w: _own(asked, name, w).round(w)


def _own(asked: TensorRecipe, name: str, weight: Array) -> Quantizer:
    """The recipe's quantizer of a weight, which a mask has pruned where it is to be."""
    try:
        found = fitted_weight(weight, _unpruned(asked), zero=asked.prune is not None)[1]
    except InputError as error:
        raise InputError(f"weights of {name}: {error}") from None
    assert found is not None
    return found


def _of_activations(recipe: Recipe, name: str, sample: Array) -> Format | train.Rounds | None:
    """How what a layer reads is rounded; None where it stays in float32."""
    asked = recipe.of("activations", name)
    if asked.scheme == "keep" and asked.rule is None:
        return None
    if _learned(asked):
        return _grid(asked, sample)
    own = _calibrated(asked, name, sample)
    known = {} if own is None or asked.dynamic else {name: own}
    seen = Compressed("training", recipe, {}, known)

    def rounds(x: Array) -> Array:
        found = seen.see(name, x)
        assert found is not None
        return found

    return rounds


def _calibrated(asked: TensorRecipe, name: str, sample: Array) -> Quantizer | None:
    """The recipe's quantizer of what a layer reads in calibration; None: it is in float32."""
    if asked.scheme == "keep":
        return None
    try:
        return fitted(pruned_inputs(sample, asked), asked)
    except InputError as error:
        raise InputError(f"activations of {name}: {error}") from None


def _result(
    float32: Subject,
    recipe: Recipe,
    net: Any,
    captured: Mapping[str, Array],
    seconds: float,
) -> tuple[Compressed, Report, dict[str, StoredTensor]]:
    """The trained network in codes, judged on the test images."""
    tensors: dict[str, Any] = {}
    quantizers: dict[str, Quantizer] = {}
    originals: dict[str, Array] = {}
    rows = []
    for name, layer in train.weighted(net).items():
        weight = layer.weight.detach().numpy().copy()
        tensors[name] = originals[name] = weight
        asked = recipe.of("weights", name)
        if asked.scheme != "keep":
            stages = layer.parametrizations.weight
            originals[name] = _masked(stages)
            if _learned(asked):
                made = _quantizer(_grid(asked), stages[len(stages) - 1], asked)
                tensors[name] = made.quantize(weight)
            else:
                tensors[name] = _own(asked, name, originals[name]).quantize(originals[name])
        asked, seen = recipe.of("activations", name), captured[name]
        if asked.scheme == "keep" and asked.rule is None:
            continue
        found = _calibrated(asked, name, seen)
        if _learned(asked):
            found = _quantizer(_grid(asked, seen), layer.input_quantizer, asked)
        if found is not None and not asked.dynamic:
            quantizers[name] = found
        left = pruned_inputs(seen, asked)
        rounded = left if found is None else found.round(left)
        rows.append(activation_report(name, seen, rounded, found, asked))
    result = Compressed(float32.name, recipe, tensors, quantizers)
    report, parts = reported(
        float32, result, rows, judge=True, seconds=seconds, originals=originals
    )
    return result, report, parts


def _masked(stages: Any) -> Array:
    """The trained weight before it is rounded."""
    weight = stages.original
    for stage in list(stages)[:-1]:
        weight = stage(weight)
    found: Array = weight.detach().numpy().copy()
    return found


def _quantizer(grid: Format, trained: Any, asked: TensorRecipe) -> Quantizer:
    """The quantizer of trained scales."""
    slices = Slices(0) if asked.granularity == "channel" else Slices()
    return Quantizer((grid,), trained.scales, None, slices)
