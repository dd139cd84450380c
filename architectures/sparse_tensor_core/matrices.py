"""A layer as products of matrices, in the format and by the pattern in which tensor cores take it.

Weights are the left operand (rows: output features), activations the right one (columns: tokens,
pixels); groups of a convolution and heads of an attention product are products of their own. The
reduction runs over the taps of a kernel and, within a tap, over the channels, so that neighbours
along the channels stay neighbours. Where several taps are kept N of M and M does not divide the
channels, each tap is padded with zero channels to whole groups, as implicit-GEMM kernels align
them.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from sparqsim.architectures.operands import Computes, held_in, one_of
from sparqsim.architectures.pairs import decoded
from sparqsim.architectures.sparse_tensor_core.config import (
    DENSE,
    KINDS,
    Configuration,
    Kind,
    Shape,
    Sparsity,
)
from sparqsim.architectures.sparse_tensor_core.unfolding import Image
from sparqsim.simulator.mac import dense
from sparqsim.workloads.encoded import Coded, EncodedLayer, as_convolution, as_image, as_kernels
from sparqsim.workloads.encodings.nm import NMSparse
from sparqsim.workloads.layers import Layer
from sparqsim.workloads.prune import NM


def dtype_of(gpu: Configuration, layer: EncodedLayer) -> str | None:
    """The format in which a GPU multiplies a layer, or None.

    Tensor cores take both operands in one: the one that both have, else the narrowest, of at least
    their bits, that holds both exactly.
    """
    operands = (layer.weight, layer.activation)
    for dtype in gpu.kinds:
        if all(one_of(tensor, KINDS[dtype].formats) for tensor in operands):
            return dtype
    bits = max(tensor.bits if isinstance(tensor, Coded) else 32 for tensor in operands)
    for dtype in gpu.kinds:
        kind = KINDS[dtype]
        if kind.bits >= bits and all(held_in(tensor, kind.formats) for tensor in operands):
            return dtype
    return None


def computes(gpu: Configuration, layer: EncodedLayer) -> Computes:
    """The formats in which a GPU multiplies a layer; all of them where it has none in common.

    Activations may have a zero point in integer modes: its product with the sums of the weights is
    known ahead and goes into the bias. Weights may not: that would take sums of activations.
    """
    dtype = dtype_of(gpu, layer)
    known = gpu.kinds if dtype is None else (dtype,)
    names = tuple(name for each in known for name in KINDS[each].formats)
    symmetric = not (isinstance(layer.weight, Coded) and np.any(layer.weight.zero_point))
    integers = all(KINDS[each].integers for each in known)
    return Computes(weights=names, activations=names, zero_points=symmetric and integers)


# ---------------------------------------------------------------------- patterns


def sparsity_of(gpu: Configuration, layer: EncodedLayer, dtype: str) -> tuple[Sparsity, str]:
    """The pattern by which a layer's weights are kept, and what to say of it.

    That of the recipe where the machine does it, else the native one if the weights fit it; dense
    where neither shortens the reduction.
    """
    pattern = layer.pattern
    if pattern is None:
        return DENSE, ""
    conv = as_convolution(layer.layer)
    each = conv.in_channels // conv.groups
    wanted, native = Sparsity(pattern.n, pattern.m, pattern.unit), Sparsity(*KINDS[dtype].native)
    if wanted.is_dense:
        return DENSE, ""
    mine = [wanted] if gpu.any_pattern or wanted == native else []
    for sparsity in dict.fromkeys([*mine, native]):
        if not _fits(layer, pattern, sparsity):
            continue
        if -(-each // sparsity.group) * sparsity.kept >= each:
            told = f"{sparsity.name} of {each} channel{'s' * (each > 1)} saves nothing: runs dense"
            return DENSE, told
        told = "" if sparsity == wanted else f"{wanted.name} runs as {sparsity.name}, which it fits"
        return sparsity, told
    return DENSE, (
        f"{wanted.name} runs dense: the machine keeps {native.name} in {dtype}, which the weights "
        "do not fit" + ("" if gpu.any_pattern else " (any_pattern is a metadata select for more)")
    )


def _fits(layer: EncodedLayer, pattern: NM, sparsity: Sparsity) -> bool:
    """Whether weights pruned by a pattern are kept by another; an outline's by the pattern."""
    if layer.is_outline:
        if sparsity.unit not in (1, pattern.unit):
            return False
        unit = pattern.unit // sparsity.unit
        times, rest = divmod(sparsity.m, pattern.m * unit)
        return not rest and pattern.n * unit * times <= sparsity.n
    assert isinstance(layer.weight, Coded)
    kernels = as_kernels(layer.layer, layer.weight.levels() != 0)
    rows = np.moveaxis(kernels, 1, -1).reshape(-1, kernels.shape[1])
    units = units_of(rows, sparsity)
    return bool(units.sum(axis=-1).max() <= sparsity.n)


def units_of(nonzero: NDArray[np.bool_], sparsity: Sparsity) -> NDArray[np.bool_]:
    """Which units of each group of rows [rows, depth] hold a non-zero: [rows, groups, m]."""
    rows, depth = nonzero.shape
    groups = -(-depth // sparsity.group)
    room = np.zeros((rows, groups * sparsity.group), bool)
    room[:, :depth] = nonzero
    return room.reshape(rows, groups, sparsity.m, sparsity.unit).max(axis=-1)


def encode(
    weights: NDArray[np.number], sparsity: Sparsity
) -> tuple[NDArray[np.number], NDArray[np.uint8]]:
    """A matrix [rows, depth] as the tensor core reads it.

    Returns
    -------
    values, positions
        Kept elements [rows, groups * kept] and the place of each in its group. A dense matrix
        comes back as it is, with positions 0.

    Raises
    ------
    InputError
        If a group holds more than the pattern keeps.
    """
    rows, depth = weights.shape
    if sparsity.is_dense:
        return weights, np.zeros(weights.shape, np.uint8)
    units = units_of(weights != 0, sparsity).reshape(rows, -1)
    kept = NMSparse.encode(units.view(np.uint8), sparsity.n, sparsity.m, 1).positions
    places = kept.astype(np.intp)[..., None] * sparsity.unit + np.arange(sparsity.unit)
    room = np.zeros((rows, kept.shape[1], sparsity.group), weights.dtype)
    room.reshape(rows, -1)[:, :depth] = weights
    places = places.reshape(rows, kept.shape[1], sparsity.kept)
    values = np.take_along_axis(room, places, axis=2)
    return values.reshape(rows, -1), places.astype(np.uint8).reshape(rows, -1)


# ---------------------------------------------------------------------- matrices


def channels_of(layer: Layer, sparsity: Sparsity) -> int:
    """Channels of a group as they lie along the reduction."""
    conv = as_convolution(layer)
    each = conv.in_channels // conv.groups
    if sparsity.is_dense or conv.kernel == (1, 1):
        return each
    return -(-each // sparsity.group) * sparsity.group


def shape_of(layer: Layer, sparsity: Sparsity) -> Shape:
    """The sizes of a layer's products."""
    conv = as_convolution(layer)
    return Shape(
        rows=conv.out_channels // conv.groups,
        columns=conv.batch * math.prod(conv.output),
        depth=math.prod(conv.kernel) * channels_of(layer, sparsity),
        batch=conv.groups,
    )


def image_of(layer: Layer, sparsity: Sparsity) -> Image | None:
    """The image from which the columns of a layer's products are unfolded; None where each place
    of the input is in one column."""
    conv = as_convolution(layer)
    if conv.kernel == (1, 1) and not any(conv.padding):
        return None
    return Image(conv, channels_of(layer, sparsity))


def _values(tensor: Coded, kind: Kind) -> NDArray[np.number]:
    """The levels of codes; of pairs what the decoders in front of the dot products make of them."""
    if not kind.pairs:
        return tensor.levels()
    terms = [integers << exponents for exponents, integers in decoded(tensor)]
    found: NDArray[np.number] = np.sum(terms, axis=0)
    return found


def matrices(
    layer: EncodedLayer, sparsity: Sparsity, kind: Kind
) -> tuple[NDArray[np.number], NDArray[np.number]]:
    """Weights [products, rows, depth] and activations [products, columns, depth].

    They are the levels of the codes, int32 or float32. A padded place of the image holds the level
    that stands for zero.
    """
    assert isinstance(layer.weight, Coded) and isinstance(layer.activation, Coded)
    conv, zero = as_convolution(layer.layer), layer.activation.zero_point[0]
    held = np.int32 if kind.integers else np.float32
    image = as_image(layer.layer, _values(layer.activation, kind)).astype(held)
    kernels = as_kernels(layer.layer, _values(layer.weight, kind)).astype(held)
    more = channels_of(layer.layer, sparsity) - kernels.shape[1]
    if more:
        kernels = np.pad(kernels, ((0, 0), (0, more), (0, 0), (0, 0)))
        grouped = image.reshape(conv.batch, conv.groups, -1, *conv.input)
        grouped = np.pad(grouped, ((0, 0), (0, 0), (0, more), (0, 0), (0, 0)), constant_values=zero)
        image = grouped.reshape(conv.batch, -1, *conv.input)
    columns = dense.unfold(
        image, conv.kernel, conv.stride, conv.padding, conv.dilation, conv.groups, fill=int(zero)
    )
    rows = dense.unfold_weights(kernels, conv.groups).transpose(0, 2, 1)
    return np.ascontiguousarray(rows), columns
