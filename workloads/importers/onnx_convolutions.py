"""Convolutions of an ONNX graph as layers.

A 1-D convolution is one of height one. A 3-D one is a 2-D one on each output plane, whose channels
are those of the planes that its kernel covers: MACs and weights are exact, and an input plane is
counted once for each output plane that reads it. A transposed convolution is the product of each
pixel's channels with all taps of all filters, a convolution of one tap, whose columns are then
added where they overlap: MACs are pixels by channels by filters by taps, nothing is multiplied with
the zeros that a convolution on a dilated input would see, and the additions are element-wise work.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparqsim.workloads.importers import Tensors
from sparqsim.workloads.importers.onnx_constants import Constant
from sparqsim.workloads.importers.onnx_file import Shape
from sparqsim.workloads.importers.onnx_graph import Step
from sparqsim.workloads.importers.onnx_site import Site
from sparqsim.workloads.importers.products import Arrange
from sparqsim.workloads.layers import Conv2d

MOST_TAPS = 2**24  # assumed, numbers that spread the columns of a transposed convolution


@dataclass(frozen=True)
class Window:
    """Kernel, strides, dilations and padding (begins, then ends) of a convolution, by axis."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    pads: tuple[int, ...]

    def plane(self) -> Window:
        """The same of the two last of three axes."""
        pads = (*self.pads[1:3], *self.pads[4:])
        return Window(self.kernel[1:], self.stride[1:], self.dilation[1:], pads)

    def flat(self) -> Window:
        """The same of two axes: a single one gets a height of one."""
        if len(self.kernel) == 2:
            return self
        before, after = self.pads
        return Window((1, *self.kernel), (1, *self.stride), (1, *self.dilation),
                      (0, before, 0, after))  # fmt: skip


@dataclass(frozen=True)
class Planes:
    """Makes of ``[n, c, d, h, w]`` the planes that each output plane sees.

    They are ``[n * outputs, c * kernel, h, w]``.

    Attributes
    ----------
    kernel, stride, dilation, before, after, outputs : int
        Along the depth.
    """

    kernel: int
    stride: int
    dilation: int
    before: int
    after: int
    outputs: int

    def __call__(self, x: NDArray[Any]) -> NDArray[Any]:
        """Gather the planes."""
        channels, (h, w) = x.shape[1], x.shape[3:]
        padded = np.pad(x, ((0, 0), (0, 0), (self.before, self.after), (0, 0), (0, 0)))
        first = np.arange(self.outputs)[:, None] * self.stride
        seen = padded[:, :, first + np.arange(self.kernel) * self.dilation]
        return np.ascontiguousarray(seen.transpose(0, 2, 1, 3, 4, 5)).reshape(
            -1, channels * self.kernel, h, w
        )


def window_of(site: Site, shape: Shape, kernel: tuple[int, ...]) -> Window:
    """Return how a convolution moves over an input of ``shape``."""
    rank = len(kernel)

    def along(name: str, default: int, count: int) -> tuple[int, ...]:
        given = site.attributes.get(name)
        values = (default,) * count if given is None else tuple(given.ints)
        if len(values) != count:
            raise site.fail(f"must have {count} values as its {name}, got {list(values)}")
        return values

    stride, dilation = along("strides", 1, rank), along("dilations", 1, rank)
    auto = site.text("auto_pad", "NOTSET")
    if auto.startswith("SAME"):
        pads = _same(shape[2:], kernel, stride, dilation, auto == "SAME_LOWER")
    elif auto == "VALID":
        pads = (0,) * (2 * rank)
    elif auto in ("NOTSET", ""):
        pads = along("pads", 0, 2 * rank)
    else:
        raise site.fail(f"has an auto_pad {auto!r}, which ONNX does not know")
    return Window(kernel, stride, dilation, pads)


def conv(site: Site) -> bool:
    """``Conv``, or onnxruntime's ``FusedConv`` without its activation."""
    weights = real_weights(site, site.input(1))
    shape = site.shape(site.input(0))
    bias = _bias(site, site.input(2), weights.shape[0])
    names = [name for name in (site.input(1), site.input(2)) if name]
    convolve(site, site.operand, site.input(0), shape, weights, bias, names)
    return True


def real_weights(site: Site, name: str) -> Constant:
    """A constant of real numbers that a layer takes in."""
    if not site.is_constant(name):
        raise site.fail(f"must have constant weights, {name!r} is computed")
    return site.among.constants.taken(name, site.place)


def _bias(site: Site, name: str, outputs: int) -> NDArray[Any] | None:
    if not name:
        return None
    if not site.is_constant(name):
        raise site.fail(f"must have a constant bias, {name!r} is computed")
    if math.prod(site.among.constants[name].shape) not in (1, outputs):
        raise site.fail(f"must have a bias of one value per output ({outputs})")
    return site.among.constants.values(name, site.place).reshape(-1)


def convolve(
    site: Site,
    operand: Any,
    value: str,
    shape: Shape,
    weights: Constant,
    bias: NDArray[Any] | None,
    names: list[str],
    **more: Any,
) -> None:
    """Append a convolution.

    Parameters
    ----------
    operand : callable
        Makes an operand of a value and an arrangement.
    value : str
        The input, of ``shape``.
    bias : array [out] or None
    names : list of str
        Parameters after which the layer may be called; the first are its weights.
    **more
        Of the :class:`Step`.
    """
    rank = len(weights.shape) - 2
    if rank not in (1, 2, 3) or len(shape) != rank + 2:
        raise site.fail(
            f"must be a convolution along 1 to 3 axes, got input {list(shape)} and weights "
            f"{list(weights.shape)}"
        )
    window = window_of(site, shape, weights.shape[2:])
    image, taps, depth = shape, weights.shape, 1
    arrange: Arrange | Planes = Arrange(shape, tuple(range(rank + 2)), shape)
    if rank == 3:
        planes = _planes(site, shape, window)
        depth, arrange = planes.outputs, planes
        image = (shape[0] * depth, shape[1] * planes.kernel, *shape[3:])
        taps = (taps[0], taps[1] * taps[2], *taps[3:])
        window = window.plane()
    elif rank == 1:
        image, taps = (*shape[:2], 1, shape[2]), (*taps[:2], 1, taps[2])
        arrange = Arrange(shape, (0, 1, 2), image)
    window = window.flat()
    layer = Conv2d(
        name=site.among.name(site.node, names),
        in_channels=image[1],
        out_channels=taps[0],
        input=(image[2], image[3]),
        kernel=(taps[2], taps[3]),
        stride=(window.stride[0], window.stride[1]),
        padding=window.pads,
        dilation=(window.dilation[0], window.dilation[1]),
        groups=site.whole("group", 1),
        bias=bias is not None,
        batch=image[0],
    )
    made: Shape = (image[0], taps[0], *layer.output)
    result, output = Arrange(made, (0, 1, 2, 3), made), made
    if rank == 1:
        output = (*made[:2], made[3])
    elif rank == 3:
        output = (shape[0], taps[0], depth, *layer.output)
        result = Arrange(output, (0, 2, 1, 3, 4), made)
    step = Step(layer.name, operand(value, arrange), None, site.node.output[0], result, output,
                **more)  # fmt: skip

    def laid(x: NDArray[Any]) -> NDArray[Any]:
        return x.reshape(taps)

    codes = None if weights.codes is None else weights.codes.then(taps, laid)
    tensors = Tensors(weights.array.then(taps, laid), codes=codes).then(None, bias)
    site.add(layer, step, tensors, -1 - rank, names[0] if names else "")


def _planes(site: Site, shape: Shape, window: Window) -> Planes:
    depth, kernel = shape[2], window.kernel[0]
    stride, dilation = window.stride[0], window.dilation[0]
    before, after = window.pads[0], window.pads[3]
    reach = dilation * (kernel - 1) + 1
    if min(stride, dilation) < 1 or min(before, after) < 0 or depth + before + after < reach:
        raise site.fail(f"has a kernel that does not fit its depth of {depth}")
    outputs = (depth + before + after - reach) // stride + 1
    return Planes(kernel, stride, dilation, before, after, outputs)


def transposed(site: Site) -> bool:
    """``ConvTranspose``: a product with all taps, whose columns are added where they overlap."""
    value, weights = site.input(0), real_weights(site, site.input(1))
    shape, rank = site.shape(value), len(weights.shape) - 2
    if rank not in (1, 2) or len(shape) != rank + 2:
        raise site.fail(
            f"must be along 1 or 2 axes, got input {list(shape)} and weights {list(weights.shape)}"
        )
    groups = site.whole("group", 1)
    channels, each = shape[1], weights.shape[1]
    taps, pixels = math.prod(weights.shape[2:]), math.prod(shape[2:])
    if groups < 1 or channels % groups or weights.shape[0] != channels:
        raise site.fail(f"has {channels} channels in {groups} groups, which do not fit its weights")
    filters = groups * each
    image = (shape[0], channels, *((1,) if rank == 1 else ()), *shape[2:])
    layer = Conv2d(
        name=site.among.name(site.node, [site.input(1)]),
        in_channels=channels,
        out_channels=filters * taps,
        input=(image[2], image[3]),
        kernel=(1, 1),
        groups=groups,
        bias=False,
        batch=shape[0],
    )
    flat = layer.weight_shape

    def laid(x: NDArray[Any]) -> NDArray[Any]:
        parts = x.reshape(groups, channels // groups, each * taps)
        return parts.transpose(0, 2, 1).reshape(flat)

    columns = _scatter(site, filters, weights.shape[2:])
    output = (shape[0], filters * taps, *shape[2:])
    made = (shape[0], filters * taps, *layer.output)
    step = Step(
        layer.name,
        site.operand(value, Arrange(shape, tuple(range(rank + 2)), image)),
        None,
        columns,
        Arrange(output, tuple(range(rank + 2)), made),
        output,
    )
    codes = None if weights.codes is None else weights.codes.then(flat, laid)
    site.add(layer, step, Tensors(weights.array.then(flat, laid), codes=codes), None, site.input(1))
    total = shape[0] * pixels * filters * taps
    site.among.work(f"{layer.name}.add", "elementwise", "Col2Im", total,
                    site.among.repeat(site.node))  # fmt: skip
    return True


def _scatter(site: Site, filters: int, kernel: tuple[int, ...]) -> str:
    """Append the node that adds columns to the output: a transposed convolution of ones.

    Returns the name of the columns.
    """
    from onnx import helper, numpy_helper

    taps = math.prod(kernel)
    if filters * taps * taps > MOST_TAPS:
        raise site.fail(f"has {filters} filters of {taps} taps; that is too large")
    file, node = site.among.file, site.node
    columns, ones = f"{node.output[0]}@columns", f"{node.output[0]}@taps"
    kind = file.types.get(node.output[0]) or 1
    spread = np.tile(np.eye(taps, dtype=helper.tensor_dtype_to_np_dtype(kind)), (filters, 1))
    file.initializers[ones] = numpy_helper.from_array(spread.reshape(-1, 1, *kernel), ones)
    file.types[columns] = file.types[ones] = kind
    after = type(node)()
    after.CopyFrom(node)
    after.input[:] = [columns, ones, *node.input[2:]]
    for attribute in after.attribute:
        if attribute.name == "group":
            attribute.i = filters
            break
    else:
        after.attribute.append(helper.make_attribute("group", filters))
    site.among.nodes.append((site.position, after))
    return columns


def _same(
    size: tuple[int, ...],
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    dilation: tuple[int, ...],
    lower: bool,
) -> tuple[int, ...]:
    """Return ONNX's SAME padding, begins then ends: as many outputs as strides cover the input."""
    begins, ends = [], []
    for extent, taps, step, spread in zip(size, kernel, stride, dilation, strict=True):
        outputs = -(-extent // step) if step > 0 else 1
        total = max((outputs - 1) * step + spread * (taps - 1) + 1 - extent, 0)
        less, more = total // 2, total - total // 2
        begins.append(more if lower else less)
        ends.append(less if lower else more)
    return (*begins, *ends)
