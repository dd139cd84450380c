"""The dense integer MAC core: convolutions unfolded to matrix products, 32-bit accumulators.

A convolution becomes a matrix product by *unfolding* (im2col): every output pixel gets a row that
holds its inputs, taps outermost and channels innermost, and every output channel a column of
weights in the same order. Groups are independent products; a depthwise layer has one channel in
each. A processing element multiplies two integers and adds to a 32-bit accumulator that wraps
around, as two's complement adders do; so the order of the additions does not matter.

:func:`gemm` is the kernel, :func:`gemm_plain` the same in the plainest Python.
:func:`convolve_levels` is the independent reference: it never unfolds, but adds a strided slice of
the input for each kernel tap, in float64, exact while sums stay below 2^53.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparqsim.base import InputError, check_memory, kernel

ACCUMULATOR_BITS = 32


@kernel(error_model="numpy")
def gemm(a: Any, w: Any, out: Any) -> None:
    """Multiply int32 ``a`` [M, K] by int32 ``w`` [K, N] into int32 ``out`` [M, N], wrapping.

    ``out`` is added to. Four rows go together, so that a row of weights is read once for them.
    """
    rows, depth = a.shape
    columns = w.shape[1]
    whole = rows - rows % 4
    for m in range(0, whole, 4):
        for k in range(depth):
            a0, a1, a2, a3 = a[m, k], a[m + 1, k], a[m + 2, k], a[m + 3, k]
            if a0 == 0 and a1 == 0 and a2 == 0 and a3 == 0:
                continue
            for n in range(columns):
                weight = w[k, n]
                out[m, n] = np.int32(out[m, n] + a0 * weight)
                out[m + 1, n] = np.int32(out[m + 1, n] + a1 * weight)
                out[m + 2, n] = np.int32(out[m + 2, n] + a2 * weight)
                out[m + 3, n] = np.int32(out[m + 3, n] + a3 * weight)
    for m in range(whole, rows):
        for k in range(depth):
            a0 = a[m, k]
            if a0:
                for n in range(columns):
                    out[m, n] = np.int32(out[m, n] + a0 * w[k, n])


def gemm_plain(a: NDArray[Any], w: NDArray[Any], out: NDArray[Any]) -> None:
    """The specification of :func:`gemm`: one product after another, in Python's integers."""
    for m in range(a.shape[0]):
        for n in range(w.shape[1]):
            total = int(out[m, n])
            for k in range(a.shape[1]):
                total += int(a[m, k]) * int(w[k, n])
            out[m, n] = wrap_one(total)


def wrap_one(value: int, bits: int = ACCUMULATOR_BITS) -> int:
    """An integer as a two's complement register of that many bits holds it."""
    half = 1 << (bits - 1)
    return (value + half) % (1 << bits) - half


def wrap(values: NDArray[Any], bits: int = ACCUMULATOR_BITS) -> NDArray[np.int64]:
    """Whole numbers as two's complement registers hold them; the array twin of `wrap_one`."""
    half = np.int64(1) << np.int64(bits - 1)
    full = np.int64(1) << np.int64(bits)
    return (values.astype(np.int64) + half) % full - half


def effectual(a: NDArray[Any], w: NDArray[Any]) -> int:
    """Products of two non-zeros in ``a`` [M, K] by ``w`` [K, N]."""
    in_column = np.count_nonzero(a, axis=0).astype(np.int64)
    in_row = np.count_nonzero(w, axis=1).astype(np.int64)
    return int(in_column @ in_row)


def unfold(
    x: NDArray[Any],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, ...],
    dilation: tuple[int, int],
    groups: int,
    fill: int = 0,
) -> NDArray[Any]:
    """Unfold activations ``[batch, channels, height, width]``.

    Parameters
    ----------
    padding : tuple of int
        (top, left, bottom, right).
    fill : int
        What a padded place holds: the code of zero.

    Returns
    -------
    array [groups, batch * out height * out width, taps * channels of a group]
        Taps outermost, channels innermost, of the type of ``x``.

    Raises
    ------
    InputError
        If the kernel does not fit the padded input.
    """
    batch, channels = x.shape[:2]
    top, left, bottom, right = padding
    around = ((0, 0), (0, 0), (top, bottom), (left, right))
    padded = np.pad(x, around, constant_values=fill)
    out = [
        (padded.shape[2 + axis] - dilation[axis] * (kernel[axis] - 1) - 1) // stride[axis] + 1
        for axis in range(2)
    ]
    if min(out) < 1:
        raise InputError(f"a kernel {kernel} with dilation {dilation} must fit {padded.shape[2:]}")
    each = channels // groups
    size = batch * math.prod(out) * math.prod(kernel) * channels
    check_memory(size * x.dtype.itemsize, "the unfolded activations of a layer")
    last = np.ascontiguousarray(padded.transpose(0, 2, 3, 1))  # channels last
    rows = np.empty((groups, batch, *out, kernel[0], kernel[1], each), x.dtype)
    for y in range(kernel[0]):
        for z in range(kernel[1]):
            piece = last[:, y * dilation[0] :, z * dilation[1] :]
            piece = piece[:, :: stride[0], :: stride[1]][:, : out[0], : out[1]]
            split = piece.reshape(batch, *out, groups, each)
            rows[:, :, :, :, y, z] = split.transpose(3, 0, 1, 2, 4)
    return rows.reshape(groups, batch * out[0] * out[1], kernel[0] * kernel[1] * each)


def unfold_weights(weight: NDArray[Any], groups: int) -> NDArray[Any]:
    """Weights ``[out, channels of a group, kh, kw]`` as ``[groups, taps * channels, out a group]``.

    The order along the reduction is that of :func:`unfold`.
    """
    out = weight.shape[0] // groups
    split = weight.reshape(groups, out, *weight.shape[1:])
    return np.ascontiguousarray(split.transpose(0, 3, 4, 2, 1)).reshape(groups, -1, out)


def fold_outputs(sums: NDArray[Any], batch: int, out: tuple[int, int]) -> NDArray[Any]:
    """Sums ``[groups, batch * oh * ow, out a group]`` as ``[batch, out channels, oh, ow]``."""
    groups, _, each = sums.shape
    image = sums.reshape(groups, batch, *out, each).transpose(1, 0, 4, 2, 3)
    return np.ascontiguousarray(image).reshape(batch, groups * each, *out)


def convolve_levels(
    x: NDArray[Any],
    weight: NDArray[Any],
    stride: tuple[int, int],
    padding: tuple[int, ...],
    dilation: tuple[int, int],
    groups: int,
) -> NDArray[np.float64]:
    """Convolve whole numbers held as floats, tap by tap; ``[batch, out channels, oh, ow]``.

    Raises
    ------
    InputError
        If a sum could pass 2^53 and with it exactness.
    """
    depth = int(np.prod(weight.shape[1:]))
    bound = float(np.abs(x).max(initial=0)) * float(np.abs(weight).max(initial=0)) * depth
    if bound >= 2.0**53:
        raise InputError(f"sums of up to {bound:.3g} cannot be checked in float64; use fewer bits")
    top, left, bottom, right = padding
    single = bound < 2.0**24  # then float32 adds whole numbers exactly, twice as fast
    kind = np.float32 if single else np.float64
    image = np.pad(x.astype(kind), ((0, 0), (0, 0), (top, bottom), (left, right)))
    kernel = weight.shape[2:]
    out = [
        (image.shape[2 + axis] - dilation[axis] * (kernel[axis] - 1) - 1) // stride[axis] + 1
        for axis in range(2)
    ]
    batch, each, wide = len(x), weight.shape[1], weight.shape[0] // groups
    sums = np.zeros((batch, groups, wide, out[0] * out[1]), kind)
    taps = weight.astype(kind).reshape(groups, wide, each, *kernel)
    for y in range(kernel[0]):
        for z in range(kernel[1]):
            rows = slice(y * dilation[0], y * dilation[0] + (out[0] - 1) * stride[0] + 1, stride[0])
            columns = slice(
                z * dilation[1], z * dilation[1] + (out[1] - 1) * stride[1] + 1, stride[1]
            )
            seen = image[:, :, rows, columns].reshape(batch, groups, each, -1)
            sums += taps[:, :, :, y, z] @ seen
    return sums.reshape(batch, groups * wide, *out).astype(np.float64)
