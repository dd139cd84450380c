"""Training by a recipe: what compression broke, a few epochs on the training images repair.

A recipe says what is done to weights and inputs, as for :mod:`sparqsim.workloads.compress`. Here
the digits networks, the only ones that come with labelled training data, are pruned by it (once,
by magnitude or by saliency), run with rounded weights and inputs, and trained so
(:mod:`sparqsim.workloads.train`: straight-through slopes, trained scales). What comes out has the
form that compression without training gives: codes, scales, the same report, the same files.

Left out: biases, which stay those of the float32 network (hardware adds them at full width);
one scale per channel, zero points, dynamic ranges and formats of several types, which are refused.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparqsim.base import InputError
from sparqsim.workloads import formats, prune, train
from sparqsim.workloads.compress import Compressed, Report, activation_report, reported
from sparqsim.workloads.formats import Format
from sparqsim.workloads.models.digits import NETWORKS, Digits, load_digits, scale_pixels
from sparqsim.workloads.models.real import Subject, subject
from sparqsim.workloads.quantize import Quantizer
from sparqsim.workloads.recipes import Recipe, TensorClass, TensorRecipe, signed_or_not
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
        One scale per tensor; see the module.
    epochs, learning_rate, seed
        As for :func:`sparqsim.workloads.train.fit`; the seed is that of the order of images.

    Returns
    -------
    Compressed, Report, dict of str to StoredTensor
        As :func:`sparqsim.workloads.compress.compress` gives.

    Raises
    ------
    InputError
        If there is no such network, the recipe asks for what training does not do, or training
        diverges.
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
    grids: dict[str, dict[str, Format]] = {"weights": {}, "activations": {}}
    for layer in float32.weights:
        for kind, sample in (("weights", float32.weights), ("activations", captured)):
            grid = _grid(recipe, kind, layer, sample[layer])  # type: ignore[arg-type]
            if grid is not None:
                grids[kind][layer] = grid
    train.quantize(net, images[0], weights=grids["weights"], activations=grids["activations"])
    train.fit(
        net,
        *images,
        epochs=epochs,
        learning_rate=learning_rate,
        generator=np.random.default_rng(seed),
    )
    return _result(float32, recipe, net, grids, captured, time.perf_counter() - start)


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


def _grid(recipe: Recipe, kind: TensorClass, layer: str, sample: Array) -> Format | None:
    """The format to train in; None where the recipe leaves float32."""
    asked = recipe.of(kind, layer)
    where = f"recipe {recipe.name!r}, {kind} of {layer}"
    if asked.rule is not None:
        raise InputError(f"{where}: training prunes no activations; leave out prune")
    if asked.scheme == "keep":
        return None
    wanted = {"granularity": "tensor", "asymmetric": False, "dynamic": False}
    for field, value in wanted.items():
        if getattr(asked, field) != value:
            raise InputError(
                f"{where}: training learns one scale per tensor, without zero point; {field} must "
                f"be {value!r}, got {getattr(asked, field)!r}; write a recipe file with that, or "
                "take int4, 2:4 or unstructured50"
            )
    if asked.scheme != "format" or asked.calibration not in ("minmax", "mse"):
        raise InputError(
            f"{where}: training learns the scale of one number format; got {asked.format} with "
            f"the calibration {asked.calibration}"
        )
    signed, unsigned = signed_or_not(asked.format)
    return formats.get(signed if kind == "weights" or sample.min() < 0 else unsigned)


def _result(
    float32: Subject,
    recipe: Recipe,
    net: Any,
    grids: Mapping[str, Mapping[str, Format]],
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
        if name in grids["weights"]:
            stages = layer.parametrizations.weight
            originals[name] = _masked(stages)
            made = _quantizer(grids["weights"][name], stages[len(stages) - 1])
            tensors[name] = made.quantize(weight)
        if name in grids["activations"]:
            quantizers[name] = _quantizer(grids["activations"][name], layer.input_quantizer)
            rounded = quantizers[name].round(captured[name])
            asked = recipe.of("activations", name)
            rows.append(activation_report(name, captured[name], rounded, quantizers[name], asked))
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


def _quantizer(grid: Format, trained: Any) -> Quantizer:
    return Quantizer((grid,), np.array([trained.scale], np.float32))
