"""The 16-bit fixed-point MAC core: products truncated to 16 bits' worth, 16-bit partial sums.

Two 16-bit operands make a product of 31 bits. The datapath keeps it from bit ``shift`` upwards
(dropping bits rounds towards minus infinity) and adds it to a partial sum of 16 bits, which wraps
around as two's complement adders do. ``shift`` is set for a layer. Wrapping commutes with addition,
and every product is truncated for itself, so the sum does not depend on the order in which a
dataflow adds: row by row in Eyeriss, sixteen at a time in DianNao's adder trees.

:func:`gemm` is the kernel, :func:`gemm_plain` the same in the plainest Python;
:func:`convolve` is the independent reference, which never unfolds a convolution.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparqsim.base import kernel
from sparqsim.simulator.mac.dense import wrap_one

BITS = 16
LARGEST = (1 << (BITS - 1)) - 1


@kernel(error_model="numpy")
def gemm(a: Any, w: Any, shift: int, out: Any) -> None:
    """Add truncated products of int32 ``a`` [M, K] and ``w`` [K, N] to int32 ``out`` [M, N].

    Sums are kept in 32 bits; :func:`sparqsim.simulator.mac.dense.wrap` to 16 gives what 16-bit
    adders do.
    """
    rows, depth = a.shape
    columns = w.shape[1]
    by = np.int32(shift)
    whole = rows - rows % 4
    for m in range(0, whole, 4):
        for k in range(depth):
            a0, a1, a2, a3 = a[m, k], a[m + 1, k], a[m + 2, k], a[m + 3, k]
            if a0 == 0 and a1 == 0 and a2 == 0 and a3 == 0:
                continue
            for n in range(columns):
                weight = w[k, n]
                out[m, n] = np.int32(out[m, n] + (np.int32(a0 * weight) >> by))
                out[m + 1, n] = np.int32(out[m + 1, n] + (np.int32(a1 * weight) >> by))
                out[m + 2, n] = np.int32(out[m + 2, n] + (np.int32(a2 * weight) >> by))
                out[m + 3, n] = np.int32(out[m + 3, n] + (np.int32(a3 * weight) >> by))
    for m in range(whole, rows):
        for k in range(depth):
            a0 = a[m, k]
            if a0 != 0:
                for n in range(columns):
                    out[m, n] = np.int32(out[m, n] + (np.int32(a0 * w[k, n]) >> by))


def gemm_plain(a: NDArray[Any], w: NDArray[Any], shift: int, out: NDArray[Any]) -> None:
    """The specification of :func:`gemm`: one product after another, in Python's integers."""
    for m in range(a.shape[0]):
        for n in range(w.shape[1]):
            total = int(out[m, n])
            for k in range(a.shape[1]):
                total += (int(a[m, k]) * int(w[k, n])) >> shift
            out[m, n] = wrap_one(total, 32)


def convolve(
    x: NDArray[Any],
    weight: NDArray[Any],
    shift: int,
    stride: tuple[int, int],
    padding: tuple[int, ...],
    dilation: tuple[int, int],
    groups: int,
) -> NDArray[np.int64]:
    """Truncated products summed tap by tap and channel by channel, not wrapped.

    Parameters
    ----------
    x : int [batch, channels, height, width]
    weight : int [out, channels of a group, kh, kw]
    padding : (top, left, bottom, right)

    Returns
    -------
    int64 [batch, out, oh, ow]
    """
    top, left, bottom, right = padding
    image = np.pad(x.astype(np.int32), ((0, 0), (0, 0), (top, bottom), (left, right)))
    wide, each = len(weight) // groups, weight.shape[1]
    high, broad = weight.shape[2:]
    out = (
        (image.shape[2] - dilation[0] * (high - 1) - 1) // stride[0] + 1,
        (image.shape[3] - dilation[1] * (broad - 1) - 1) // stride[1] + 1,
    )
    taps = weight.astype(np.int32)
    sums = np.zeros((len(x), len(weight), *out), np.int64)
    for group in range(groups):
        mine = slice(group * wide, (group + 1) * wide)
        for channel in range(each):
            partial = np.zeros((len(x), wide, *out), np.int32)  # under 2^31: kh kw 2^(30 - shift)
            exact = partial if shift >= BITS else partial.astype(np.int64)
            plane = image[:, group * each + channel]
            for y in range(high):
                for z in range(broad):
                    seen = plane[:, y * dilation[0] :: stride[0], z * dilation[1] :: stride[1]]
                    seen = seen[:, : out[0], : out[1]]
                    factor = taps[mine, channel, y, z][None, :, None, None]
                    exact += (seen[:, None] * factor) >> shift
            sums[:, mine] += exact
    return sums
