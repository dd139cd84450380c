"""Two small networks trained on handwritten digits, with their data: real weights, real inputs.

The images are the 8 x 8 digits of the UCI archive that scikit-learn ships (1797 of them, pixels
0 to 16). ``digits-mlp`` has three fully connected layers; ``digits-cnn`` three convolutions (the
second of stride 2, so no pooling) and three fully connected ones. Every layer but the last is
followed by ReLU. Each network comes twice: *dense*, and *pruned* by magnitude with fine-tuning.
``scripts/train_digits.py`` trains them; weights and images lie in ``data/`` as safetensors, so
running them needs numpy alone: neither torch nor scikit-learn, and no pickle.

The test images were never trained, tuned or calibrated on; calibrate on ``train_images``.
Inference is float32; batch norm, pooling and softmax do not occur.

Source of the images: E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI
Machine Learning Repository, 1998, doi:10.24432/C50P49, CC BY 4.0 (its test part, as shipped by
``sklearn.datasets.load_digits``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from sparqsim.base import InputError, written_whole
from sparqsim.workloads.layers import Conv2d, Linear, unknown

Array = NDArray[np.float32]

DATA = Path(__file__).resolve().parent / "data"
PIXEL_MAX = 16  # published: UCI counts the ink of 4 x 4 blocks of pixels, 0 to 16
CLASSES = 10

NETWORKS: Mapping[str, tuple[Conv2d | Linear, ...]] = MappingProxyType(
    {
        "mlp": (
            Linear(name="fc1", in_features=64, out_features=128),
            Linear(name="fc2", in_features=128, out_features=128),
            Linear(name="fc3", in_features=128, out_features=CLASSES),
        ),
        "cnn": (
            Conv2d(
                name="conv1",
                in_channels=1,
                out_channels=8,
                input=(8, 8),
                kernel=(3, 3),
                padding=(1, 1),
            ),
            Conv2d(
                name="conv2",
                in_channels=8,
                out_channels=16,
                input=(8, 8),
                kernel=(3, 3),
                stride=(2, 2),
                padding=(1, 1),
            ),
            Conv2d(
                name="conv3",
                in_channels=16,
                out_channels=16,
                input=(4, 4),
                kernel=(3, 3),
                padding=(1, 1),
            ),
            Linear(name="fc1", in_features=256, out_features=128),
            Linear(name="fc2", in_features=128, out_features=64),
            Linear(name="fc3", in_features=64, out_features=CLASSES),
        ),
    }
)


class Metadata(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a network was trained and what came of it; kept in the file beside the weights.

    Attributes
    ----------
    network : str
        ``mlp`` or ``cnn``.
    seed, split_seed : int
        Of initial weights and order of batches; of the choice of test images.
    accuracy_dense, accuracy_pruned : float
        Fraction of the test images classified rightly, before and after pruning.
    densities : dict
        Layer name to fraction of weights kept in the pruned network.
    recipe : str
        How it was trained, in words.
    versions : dict
        Of the libraries that trained it.
    """

    network: str
    seed: int
    split_seed: int
    accuracy_dense: float
    accuracy_pruned: float
    densities: dict[str, float]
    recipe: str
    versions: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class Images:
    """The digits, split once and for all; images are uint8 [n, 8, 8], labels uint8 [n]."""

    train_images: NDArray[np.uint8]
    train_labels: NDArray[np.uint8]
    test_images: NDArray[np.uint8]
    test_labels: NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class Digits:
    """A trained network with its data. Arrays are read-only.

    Attributes
    ----------
    name : str
        ``digits-mlp`` or ``digits-cnn``.
    pruned : bool
        Whether these are the pruned and fine-tuned weights.
    layers : tuple of Conv2d or Linear
        In the order in which they run; ReLU stands between each two.
    weights : mapping of str to float32 array
        By layer name: ``[out, in]``, or ``[out, in, kernel h, kernel w]``.
    biases : mapping of str to float32 array
        By layer name: ``[out]``.
    images : Images
        Training and test images with labels.
    metadata : Metadata
        Seeds, accuracies, densities, versions.
    """

    name: str
    pruned: bool
    layers: tuple[Conv2d | Linear, ...]
    weights: Mapping[str, Array]
    biases: Mapping[str, Array]
    images: Images
    metadata: Metadata

    def forward(
        self,
        images: NDArray[Any] | None = None,
        *,
        weights: Mapping[str, Array] | None = None,
        see: Callable[[str, Array], Array | None] | None = None,
    ) -> Array:
        """Run the network.

        Parameters
        ----------
        images : array [n, 8, 8], optional
            Pixels from 0 to 16; the test images by default.
        weights : mapping, optional
            Weights that replace the network's own, by layer name; the others stay.
        see : callable, optional
            Called as ``see(layer name, input)`` before each layer, with ``input`` of shape
            [n, features] or [n, channels, h, w]. What it returns, unless None, is used instead:
            a place to quantize or prune activations.

        Returns
        -------
        float32 array [n, 10]
            Logits.

        Raises
        ------
        InputError
            If images or weights, or what ``see`` returns, have a wrong shape; if images or
            weights are not finite.
        """
        x = scale_pixels(self.images.test_images if images is None else images)
        used = dict(self.weights)
        for name, weight in (weights or {}).items():
            used[name] = self._checked(name, weight)
        for position, layer in enumerate(self.layers):
            if isinstance(layer, Linear):
                x = x.reshape(len(x), layer.in_features)
            if see is not None:
                seen = see(layer.name, x)
                if seen is not None and np.shape(seen) != x.shape:
                    raise InputError(
                        f"see must return an input of {self.name}/{layer.name} of shape "
                        f"{x.shape}, or None, got shape {np.shape(seen)}"
                    )
                x = x if seen is None else np.asarray(seen, dtype=np.float32)
            if isinstance(layer, Linear):
                x = x @ used[layer.name].T + self.biases[layer.name]
            else:
                x = _convolve(layer, x, used[layer.name]) + self.biases[layer.name][:, None, None]
            if position < len(self.layers) - 1:
                x = np.maximum(x, np.float32(0))
        return x

    def _checked(self, name: str, weight: Array) -> Array:
        shapes = {layer.name: layer.weight_shape for layer in self.layers}
        if name not in shapes:
            raise unknown(f"{self.name} has no layer", name, shapes)
        weight = np.asarray(weight, dtype=np.float32)
        if weight.shape != shapes[name]:
            raise InputError(
                f"weights of {self.name}/{name} must have shape {shapes[name]}, got {weight.shape}"
            )
        if not np.isfinite(weight).all():
            raise InputError(f"weights of {self.name}/{name} must be finite, got NaN or infinity")
        return weight

    def accuracy(
        self,
        weights: Mapping[str, Array] | None = None,
        *,
        see: Callable[[str, Array], Array | None] | None = None,
    ) -> float:
        """Return the fraction of test images classified rightly; parameters as in `forward`."""
        chosen = self.forward(weights=weights, see=see).argmax(axis=1)
        return float(np.mean(chosen == self.images.test_labels))

    def activations(self, images: NDArray[Any] | None = None) -> dict[str, Array]:
        """Return each layer's input by layer name: [n, features] or [n, channels, h, w].

        ``images`` as in `forward`; the test images by default. Zeros are what ReLU (or, for the
        first layer, blank paper) made.
        """
        inputs: dict[str, Array] = {}

        def keep(name: str, x: Array) -> None:
            inputs[name] = x

        self.forward(images, see=keep)
        return inputs


def scale_pixels(images: NDArray[Any]) -> Array:
    """Return pixels 0..16 as float32 in [0, 1], of shape [n, 1, 8, 8].

    Raises
    ------
    InputError
        If the shape is not [n, 8, 8] or a pixel lies outside 0..16 or is not a number.
    """
    images = np.asarray(images)
    if images.ndim != 3 or images.shape[1:] != (8, 8) or len(images) == 0:
        raise InputError(f"digit images must have shape (n, 8, 8), n >= 1, got {images.shape}")
    if images.dtype.kind not in "uif" or not ((images >= 0) & (images <= PIXEL_MAX)).all():
        raise InputError(f"digit images must have pixels from 0 to {PIXEL_MAX}")
    return images.astype(np.float32)[:, None] / np.float32(PIXEL_MAX)


def _convolve(layer: Conv2d, x: Array, weight: Array) -> Array:
    """Cross-correlate [n, c, h, w] with [out, c, kh, kw], as torch and ONNX do; no dilation."""
    top, left, bottom, right = layer.padding
    x = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)))
    windows = np.lib.stride_tricks.sliding_window_view(x, layer.kernel, axis=(2, 3))
    windows = windows[:, :, :: layer.stride[0], :: layer.stride[1]]
    y = np.tensordot(windows, weight, axes=((1, 4, 5), (1, 2, 3)))  # [n, h, w, out]
    return np.ascontiguousarray(y.transpose(0, 3, 1, 2))


def _read(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """Return the tensors, read-only, and the metadata of a safetensors file."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="numpy") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            metadata = dict(file.metadata() or {})
    except (OSError, SafetensorError) as error:
        raise InputError(
            f"{path} must be a whole safetensors file, but it cannot be read ({error}); "
            "reinstall Sparqsim or make it anew with python -m sparqsim.scripts.train_digits"
        ) from None
    for tensor in tensors.values():
        tensor.flags.writeable = False
    return tensors, metadata


def _take(
    tensors: Mapping[str, NDArray[Any]], key: str, dtype: type, shape: tuple, path: Path
) -> NDArray:
    """Return ``tensors[key]`` if it has the dtype and shape (None: any length) and is finite."""
    if key not in tensors:
        raise InputError(f"{path} must hold a tensor {key!r}, but has only {sorted(tensors)}")
    tensor = tensors[key]
    right_shape = tensor.ndim == len(shape) and all(
        wanted in (None, got) for wanted, got in zip(shape, tensor.shape, strict=True)
    )
    if tensor.dtype != dtype or not right_shape:
        raise InputError(
            f"{path}: tensor {key!r} must be {np.dtype(dtype)} of shape {shape}, "
            f"got {tensor.dtype} of shape {tensor.shape}"
        )
    if not np.isfinite(tensor).all():
        raise InputError(f"{path}: tensor {key!r} must be finite, got NaN or infinity")
    return tensor


def load_images(folder: Path = DATA) -> Images:
    """Return the 1797 digits, split into training and test images.

    Raises
    ------
    InputError
        If the file in ``folder`` is missing, truncated or not what it should be.
    """
    path = Path(folder) / "digits_images.safetensors"
    tensors, _ = _read(path)
    found = {}
    for part in ("train", "test"):
        images = _take(tensors, f"{part}_images", np.uint8, (None, 8, 8), path)
        labels = _take(tensors, f"{part}_labels", np.uint8, (len(images),), path)
        if len(images) == 0 or images.max() > PIXEL_MAX or labels.max() >= CLASSES:
            raise InputError(
                f"{path}: {part} must have images with pixels to {PIXEL_MAX} and labels below "
                f"{CLASSES}"
            )
        found[f"{part}_images"], found[f"{part}_labels"] = images, labels
    return Images(**found)


def load_digits(network: str, *, pruned: bool = True, folder: Path = DATA) -> Digits:
    """Return a trained digits network, its images and how it was made.

    Parameters
    ----------
    network : {"mlp", "cnn"}
        Which one.
    pruned : bool
        The pruned and fine-tuned weights, or the dense ones they came from.
    folder : Path
        Where the safetensors lie; those that ship with Sparqsim by default.

    Raises
    ------
    InputError
        If there is no such network, or a file is missing, truncated or not what it should be.
    """
    if network not in NETWORKS:
        raise unknown("there is no digits network", network, NETWORKS)
    path = Path(folder) / f"digits_{network}.safetensors"
    tensors, text = _read(path)
    try:
        metadata = msgspec.json.decode(text.get("sparqsim", ""), type=Metadata)
    except msgspec.MsgspecError as error:
        raise InputError(f"{path}: its metadata 'sparqsim' cannot be read: {error}") from None
    if metadata.network != network:
        raise InputError(f"{path} must hold the network {network!r}, got {metadata.network!r}")
    kind = "pruned" if pruned else "dense"
    layers = NETWORKS[network]
    weights, biases = {}, {}
    for layer in layers:
        key, shape = f"{kind}.{layer.name}", layer.weight_shape
        weights[layer.name] = _take(tensors, f"{key}.weight", np.float32, shape, path)
        biases[layer.name] = _take(tensors, f"{key}.bias", np.float32, shape[:1], path)
    return Digits(
        name=f"digits-{network}",
        pruned=pruned,
        layers=layers,
        weights=MappingProxyType(weights),
        biases=MappingProxyType(biases),
        images=load_images(folder),
        metadata=metadata,
    )


def save_digits(dense: Digits, pruned: Digits, folder: Path = DATA) -> Path:
    """Write a network, dense and pruned, without its images, so that `load_digits` reads it."""
    from safetensors.numpy import save_file

    tensors = {}
    for kind, digits in (("dense", dense), ("pruned", pruned)):
        for name, weight in digits.weights.items():
            tensors[f"{kind}.{name}.weight"] = np.ascontiguousarray(weight)
            tensors[f"{kind}.{name}.bias"] = np.ascontiguousarray(digits.biases[name])
    text = msgspec.json.encode(pruned.metadata).decode()
    target = Path(folder) / f"digits_{pruned.metadata.network}.safetensors"
    with written_whole(target) as path:
        save_file(tensors, path, {"sparqsim": text})
    return target


def save_images(images: Images, folder: Path = DATA) -> Path:
    """Write the split images so that `load_images` reads them."""
    from safetensors.numpy import save_file

    tensors = {f.name: np.ascontiguousarray(getattr(images, f.name)) for f in fields(images)}
    target = Path(folder) / "digits_images.safetensors"
    with written_whole(target) as path:
        save_file(tensors, path)
    return target
