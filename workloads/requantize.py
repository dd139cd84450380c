"""Integer-only inference: integer products with zero points, and fixed-point requantization.

With ``real = scale * (q - Z)`` a layer needs only integers (Jacob et al., CVPR 2018)::

    sum_k (q_x - Z_x)(q_w - Z_w)
        = sum_k q_x q_w - Z_w sum_k q_x - Z_x sum_k q_w + K Z_x Z_w

The last two terms do not depend on the input: they are computed ahead and added with the bias. If
``Z_w = 0`` (symmetric weights) the second term is gone too, and the array multiplies plain codes.

The int32 accumulator is then brought to the output's scale by ``M = S_w S_x / S_y`` without a
floating-point unit: ``M = M0 * 2**-shift`` with ``M0`` in [.5, 1) held in 31 fraction bits;

1. *saturating rounding doubling high multiply*: ``acc * M0``, rounded to the nearest integer;
2. *rounding right shift* by ``shift``, to the nearest integer; 3. add ``Z_y``; 4. clamp.

Ties: step 1 rounds a half up, towards plus infinity (``-1.5 -> -1``: the nudge ``1 - 2**30``
before a division that truncates); step 2 rounds a half away from zero (``-1.5 -> -2``). Rounding
twice, the result can differ by one from rounding ``M * acc`` once. Semantics of gemmlowp and
TensorFlow Lite, checked on 60 vectors. Left out: ARM's single-rounding variant.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sparqsim.base import InputError, kernel

INT32_MIN, INT32_MAX = -(2**31), 2**31 - 1


@dataclass(frozen=True)
class Multiplier:
    """A positive real factor as ``m0_q31 * 2**-31 * 2**-right_shift``.

    Attributes
    ----------
    m0_q31
        Integer in [2**30, 2**31): the factor's significand in [.5, 1), 31 fraction bits.
    right_shift
        Negative for a factor of 1 and above: the accumulator is shifted left first, saturating.
    """

    m0_q31: int
    right_shift: int

    @classmethod
    def of(cls, factor: float) -> Multiplier:
        """The multiplier nearest to ``factor``; its relative error is at most 2**-31.

        Raises
        ------
        InputError
            If the factor is not positive and finite, or 2**31 and above.
        """
        if not (math.isfinite(factor) and 0 < factor < 2**31):
            raise InputError(
                f"a requantization factor S_w*S_x/S_y must lie in (0, 2**31), got {factor}; "
                "check the three scales"
            )
        significand, exponent = math.frexp(factor)
        m0_q31 = math.floor(significand * 2**31 + 0.5)
        if m0_q31 == 2**31:  # .99999999999 rounds up to 1: the next power of two
            m0_q31, exponent = 2**30, exponent + 1
        return cls(m0_q31, -exponent)

    @property
    def value(self) -> float:
        """The factor that the hardware really applies."""
        return math.ldexp(self.m0_q31, -31 - self.right_shift)


def fixed_points(factors: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """:meth:`Multiplier.of` of many factors: ``m0_q31`` and ``right_shift``, in their shape.

    Raises
    ------
    InputError
        If a factor is not positive and finite, or 2**31 and above.
    """
    each = np.asarray(factors, np.float64)
    wrong = ~(np.isfinite(each) & (each > 0) & (each < 2**31))
    if wrong.any():
        Multiplier.of(float(each[wrong].flat[0]))
    significands, exponents = np.frexp(each)
    m0_q31 = np.floor(significands * 2**31 + 0.5).astype(np.int64)
    up = m0_q31 == 2**31  # as there: the next power of two
    return np.where(up, 2**30, m0_q31), -(exponents.astype(np.int64) + up)


@kernel()
def high_multiply(a: int, b: int) -> int:
    """Saturating rounding doubling high multiply of int32: ``a * b / 2**31``, a half goes up."""
    if a == -2147483648 and b == -2147483648:
        return 2147483647
    return (a * b + (1 << 30)) >> 31


@kernel()
def rounding_shift(x: int, n: int) -> int:
    """Divide an int32 by ``2**n``, to the nearest integer, a half away from zero; any n >= 0."""
    n = min(n, 62)  # |x| <= 2**31: beyond 32 nothing is left, and int64 still holds the mask
    mask = (1 << n) - 1
    threshold = (mask >> 1) + (1 if x < 0 else 0)
    return (x >> n) + (1 if (x & mask) > threshold else 0)


@kernel()
def _requantize(acc, m0_q31, right_shift, zero_point, low, high, out):
    """Requantize ``acc`` (rows, channels) with one multiplier per channel into ``out``."""
    rows, channels = acc.shape
    for i in range(rows):
        for j in range(channels):
            x = acc[i, j]
            n = right_shift[j]
            if n < 0:
                x = min(max(x << min(-n, 31), -2147483648), 2147483647)
                n = 0
            y = rounding_shift(high_multiply(x, m0_q31[j]), n) + zero_point
            out[i, j] = min(max(y, low), high)


def requantize_one(
    acc: int, multiplier: Multiplier, zero_point: int = 0, low: int = -128, high: int = 127
) -> int:
    """The plain twin: one accumulator, Python integers, each step as the text defines it."""
    product = acc * 2 ** max(-multiplier.right_shift, 0)
    product = min(max(product, INT32_MIN), INT32_MAX) * multiplier.m0_q31
    nudge = 2**30 if product >= 0 else 1 - 2**30
    nudged = product + nudge
    x = abs(nudged) // 2**31 * (1 if nudged >= 0 else -1)  # a division that truncates
    divisor = 2 ** max(multiplier.right_shift, 0)
    y = (2 * abs(x) + divisor) // (2 * divisor) * (1 if x >= 0 else -1)  # a half away from zero
    return min(max(y + zero_point, low), high)


def requantize(
    acc: ArrayLike,
    multipliers: Multiplier | Sequence[Multiplier],
    zero_point: int = 0,
    low: int = -128,
    high: int = 127,
) -> NDArray[np.int32]:
    """Bring int32 accumulators to an output's integers.

    Parameters
    ----------
    acc
        Integers within int32; the last axis is the output channel.
    multipliers
        One for all, or one for each channel.
    zero_point, low, high
        Of the output: ``clamp(. + zero_point, low, high)``.

    Raises
    ------
    InputError
        If ``acc`` is not of integers within int32, or the number of multipliers does not fit.
    """
    array = np.asarray(acc)
    if array.dtype.kind not in "iu":
        raise InputError(f"accumulators must be integers, got {array.dtype}; do not scale them")
    if array.size and (array.min() < INT32_MIN or array.max() > INT32_MAX):
        raise InputError(
            f"accumulators must fit int32, got {array.min()} .. {array.max()}; "
            "shorten the sum or narrow the operands"
        )
    if low > high:
        raise InputError(f"clamping needs low <= high, got {low} > {high}")
    if not INT32_MIN <= zero_point <= INT32_MAX:
        raise InputError(f"a zero point must fit int32, got {zero_point}")
    channels = array.shape[-1] if array.ndim else 1
    row = [multipliers] * channels if isinstance(multipliers, Multiplier) else list(multipliers)
    if len(row) != channels:
        raise InputError(
            f"there must be one multiplier per channel: {channels} channels, {len(row)} multipliers"
        )
    out = np.empty(array.shape, np.int32)
    if array.size:
        m0 = np.array([m.m0_q31 for m in row], np.int64)
        shift = np.array([m.right_shift for m in row], np.int64)
        flat = np.ascontiguousarray(array.astype(np.int64)).reshape(-1, channels)
        _requantize(flat, m0, shift, zero_point, low, high, out.reshape(-1, channels))
    return out


def scaled(
    acc: NDArray[np.int64], m0_q31: NDArray[np.int64], right_shift: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Steps 1 and 2 alone, within int32: ``acc`` [..., channels], one multiplier per channel."""
    out = np.empty(acc.shape, np.int64)
    if acc.size:
        flat = np.ascontiguousarray(acc).reshape(-1, acc.shape[-1])
        _requantize(flat, m0_q31, right_shift, 0, INT32_MIN, INT32_MAX, out.reshape(flat.shape))
    return out


def integer_product(
    q_x: NDArray[np.integer],
    q_w: NDArray[np.integer],
    zero_x: int | NDArray[np.integer] = 0,
    zero_w: int | NDArray[np.integer] = 0,
) -> NDArray[np.int64]:
    """``(q_x - zero_x) @ (q_w - zero_w).T``, computed as hardware does it: codes, then corrections.

    Parameters
    ----------
    q_x
        Inputs (M, K). ``zero_x``: one for all, or one a row (dynamic, per token).
    q_w
        Weights (N, K). ``zero_w``: one for all, or one an output channel.

    Returns
    -------
    accumulators (M, N), exact.

    Raises
    ------
    InputError
        If the inner sizes differ, or the sum could leave 2**53 and with it exactness.
    """
    if q_x.ndim != 2 or q_w.ndim != 2 or q_x.shape[1] != q_w.shape[1]:
        raise InputError(
            f"an integer product needs (M, K) and (N, K), got {q_x.shape} and {q_w.shape}"
        )
    inner = q_x.shape[1]
    z_x = np.asarray(zero_x, np.int64).reshape(-1, 1)
    z_w = np.asarray(zero_w, np.int64).reshape(1, -1)
    largest = [
        float(np.abs(q).max(initial=0)) for q in (q_x.astype(np.int64), q_w.astype(np.int64))
    ]
    if largest[0] * largest[1] * inner >= 2**53:
        raise InputError(
            f"a sum of {inner} products of up to {largest[0]:.0f} * {largest[1]:.0f} could pass "
            "2**53; use fewer bits"
        )
    # float64 BLAS adds integers below 2**53 exactly, in any order, and many times faster.
    codes = (q_x.astype(np.float64) @ q_w.astype(np.float64).T).astype(np.int64)
    sum_x = q_x.sum(axis=1, dtype=np.int64)[:, None]
    sum_w = q_w.sum(axis=1, dtype=np.int64)[None, :]
    return codes - z_w * sum_x - z_x * sum_w + inner * z_x * z_w


@dataclass(frozen=True, eq=False)
class IntegerLinear:
    """A linear layer in integers only: codes in, codes out.

    Attributes
    ----------
    q_w
        Weights (N, K). ``zero_w``: (N,).
    offset
        (N,), added to each accumulator: bias - Z_x * (sum_k q_w - K Z_w), computed ahead.
    multipliers
        One an output channel: S_w S_x / S_y.
    zero_y, low, high
        Of the output.
    """

    q_w: NDArray[np.int64]
    zero_w: NDArray[np.int64]
    offset: NDArray[np.int64]
    multipliers: tuple[Multiplier, ...]
    zero_y: int
    low: int
    high: int

    @classmethod
    def build(
        cls,
        q_w: NDArray[np.integer],
        *,
        scale_w: ArrayLike,
        scale_x: float,
        scale_y: float,
        zero_w: ArrayLike = 0,
        zero_x: int = 0,
        zero_y: int = 0,
        bias: NDArray[np.floating] | None = None,
        input_range: tuple[int, int] = (-128, 127),
        output_range: tuple[int, int] = (-128, 127),
    ) -> IntegerLinear:
        """Compute ahead what does not depend on the input, and prove that int32 suffices.

        Parameters
        ----------
        q_w
            (N, K). ``scale_w``, ``zero_w``: one, or one an output channel.
        bias
            (N,) in real units; held as int32 in units of ``scale_w * scale_x``.
        input_range
            The least and largest input code, for the bound on the accumulator.

        Raises
        ------
        InputError
            If the weights are not (N, K) integers, a shape does not fit, a scale is not positive,
            or an accumulator could leave int32.
        """
        if q_w.ndim != 2 or q_w.dtype.kind not in "iu":
            raise InputError(f"weights must be integers (N, K), got {q_w.dtype} {q_w.shape}")
        n, inner = q_w.shape
        weights = q_w.astype(np.int64)
        try:
            s_w = np.broadcast_to(np.asarray(scale_w, np.float64), (n,))
            z_w = np.broadcast_to(np.asarray(zero_w, np.int64), (n,))
            b = np.broadcast_to(np.float64(0) if bias is None else bias.astype(np.float64), (n,))
        except ValueError as error:
            raise InputError(
                f"scale_w, zero_w and bias must be one, or one for each of {n} outputs: {error}"
            ) from None
        for name, scale in (("scale_w", s_w), ("scale_x", scale_x), ("scale_y", scale_y)):
            if not np.all((np.asarray(scale) > 0) & np.isfinite(scale)):
                raise InputError(f"{name} must be positive and finite, got {scale}")
        if not np.isfinite(b).all():
            raise InputError("the bias must be finite, it holds NaN or inf")
        bias_q = np.rint(b / (s_w * scale_x))
        # Hardware adds q_x q_w, then the corrections: each must fit, whatever the input.
        centred = np.abs(weights - z_w[:, None]).sum(axis=1)
        most = max(abs(input_range[0] - zero_x), abs(input_range[1] - zero_x))
        raw = np.abs(weights).sum(axis=1) * max(abs(input_range[0]), abs(input_range[1]))
        bound = np.maximum(centred * most + np.abs(bias_q), raw)
        if n and bound.max() > INT32_MAX:
            worst = int(bound.argmax())
            raise InputError(
                f"output {worst} could reach {bound[worst]:.3g} over {inner} inputs, more than "
                "int32 holds; split the sum, use fewer bits, or check the bias"
            )
        offset = bias_q.astype(np.int64) - zero_x * (weights.sum(axis=1) - inner * z_w)
        return cls(
            q_w=weights,
            zero_w=z_w,
            offset=offset,
            multipliers=tuple(Multiplier.of(float(m)) for m in s_w * scale_x / scale_y),
            zero_y=zero_y,
            low=output_range[0],
            high=output_range[1],
        )

    def accumulate(self, q_x: NDArray[np.integer]) -> NDArray[np.int64]:
        """Inputs (M, K) to accumulators (M, N), bias and zero points included."""
        return integer_product(q_x, self.q_w, 0, self.zero_w) + self.offset

    def __call__(self, q_x: NDArray[np.integer]) -> NDArray[np.int32]:
        """Inputs (M, K) to output codes (M, N)."""
        acc = self.accumulate(q_x)
        return requantize(acc, self.multipliers, self.zero_y, self.low, self.high)
