"""Post-training quantization: tensors to codes with a scale, and back.

A `Quantizer` is everything decided before a value is seen: the format, the scale of each slice
(tensor, channel or group) and, for asymmetric integers, its zero point::

    q = clamp(round(r / S) + Z)        r' = S * (q - Z)          integers (affine)
    code = nearest(r / S)              r' = S * value[code]      every other format

`fit` makes one from a tensor (dynamic, or the weights) or from an `Observer` that saw calibration
batches (static). `quantize` fits and applies at once. Scales are float32, as hardware and torch
hold them. Integers round a half to even, as torch and ONNX do; other formats send a tie where the
format says (ANT's and OliVe's: to the larger value).

Types and thresholds that are searched for: :mod:`.adaptive`. Left out: rounding learned from data
(AdaRound, GPTQ). Source: Jacob et al., CVPR 2018.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sparqsim.base import InputError, kernel
from sparqsim.workloads import formats
from sparqsim.workloads.calibrate import (
    SMALLEST_SCALE,
    Method,
    MinMax,
    method_named,
    parameters,
)
from sparqsim.workloads.formats import Format, Int
from sparqsim.workloads.formats.integer import Sign
from sparqsim.workloads.formats.pairs import OutlierVictim
from sparqsim.workloads.observers import MovingAverage, Observer
from sparqsim.workloads.slices import Samples, Slices, checked

WHOLE = Slices()
SCALE_BITS = 32  # derived: a scale is held as float32


@kernel(error_model="numpy", _nrt=False)
def _affine(rows, scale, zero, low, high, mask, codes):
    """Codes of ``clamp(round(x / scale) + zero)``, a half to even; one scale per row."""
    for r in range(rows.shape[0]):
        s, z = scale[r], zero[r]
        for i in range(rows.shape[1]):
            q = np.rint(rows[r, i] / s) + z
            if q < low:
                q = low
            if q > high:
                q = high
            codes[r, i] = np.int32(q) & mask


@dataclass(frozen=True, eq=False)
class Quantizer:
    """What is decided before a value is seen; applies to any tensor with the same slices.

    Attributes
    ----------
    formats
        The formats in use: one, or several among which ``choice`` picks.
    scale
        (slices,) float32.
    zero_point
        (slices,) int32 for asymmetric integers, else None.
    slices
        Which values share a scale.
    choice
        (slices,) index into ``formats``, or None if there is one.
    pairs
        Axis along which neighbours are a pair, for outlier-victim pairs; None: the last. The last
        value of an odd number has no neighbour and is coded as a normal one.
    """

    formats: tuple[Format, ...]
    scale: NDArray[np.float32]
    zero_point: NDArray[np.int32] | None = None
    slices: Slices = WHOLE
    choice: NDArray[np.uint8] | None = None
    pairs: int | None = None

    def __post_init__(self) -> None:
        if not self.formats or len({f.bits for f in self.formats}) != 1:
            raise InputError("a quantizer needs formats of one width, at least one of them")
        n = len(self.scale)
        if not np.all((self.scale > 0) & np.isfinite(self.scale)):
            raise InputError("a quantizer's scales must be positive and finite")
        for name, given in (("zero_point", self.zero_point), ("choice", self.choice)):
            if given is not None and given.shape != (n,):
                raise InputError(f"{name} must have one entry for each of {n} scales")
        if (self.choice is None) != (len(self.formats) == 1):
            raise InputError("a quantizer needs a choice exactly if it has several formats")
        if self.zero_point is not None and not all(isinstance(f, Int) for f in self.formats):
            raise InputError("only integer formats have a zero point; use asymmetric=False")

    @property
    def format(self) -> Format:
        """The only format.

        Raises
        ------
        InputError
            If slices have different ones.
        """
        if len(self.formats) > 1:
            names = ", ".join(f.name for f in self.formats)
            raise InputError(f"slices differ in format ({names}); see .formats and .choice")
        return self.formats[0]

    @property
    def bits(self) -> int:
        """Width of one code."""
        return self.formats[0].bits

    @property
    def side_bits(self) -> int:
        """Bits beside the codes: scales (32 each), zero points (a code each), choice of format."""
        per_slice = SCALE_BITS + (0 if self.zero_point is None else self.bits)
        per_slice += (len(self.formats) - 1).bit_length()
        return len(self.scale) * per_slice

    def _rows(self, x: NDArray) -> NDArray:
        rows = self.slices.split(x)
        if len(rows) != len(self.scale):
            raise InputError(
                f"a tensor {x.shape} has {len(rows)} slices by axis {self.slices.axis} and group "
                f"{self.slices.group}, but the quantizer has {len(self.scale)} scales"
            )
        return rows

    def _slices_of(self, index: int) -> NDArray[np.intp] | slice:
        """Which slices use ``formats[index]``."""
        return slice(None) if self.choice is None else np.flatnonzero(self.choice == index)

    def quantize(self, x: ArrayLike) -> QuantizedTensor:
        """Encode a tensor; what lies beyond the range saturates.

        Raises
        ------
        InputError
            If ``x`` is empty, not finite, or does not have the slices of this quantizer.
        """
        array = checked(x)
        if self.pairs is not None:
            return QuantizedTensor(self._quantize_pairs(array), self)
        rows = self._rows(array)
        codes = np.empty(rows.shape, self.formats[0].code_dtype)
        for index, grid in enumerate(self.formats):
            mine = self._slices_of(index)
            codes[mine] = self._encode(rows[mine], grid, mine)
        return QuantizedTensor(self.slices.join(codes, array.shape), self)

    def _quantize_pairs(self, array: NDArray) -> NDArray[np.unsignedinteger]:
        """Codes of pairs along an axis, each value by the scale of its slice."""
        grid = cast(OutlierVictim, self.format)
        scale = self.slices.join(
            np.broadcast_to(self.scale[:, None], self._rows(array).shape), array.shape
        )
        last = np.moveaxis(array / scale, self.pairs, -1)  # type: ignore[arg-type]
        even = last.shape[-1] // 2 * 2
        codes = np.empty(last.shape, grid.code_dtype)
        codes[..., :even] = grid.encode(np.ascontiguousarray(last[..., :even]))
        if even < last.shape[-1]:
            codes[..., even:] = grid.normal.encode(last[..., even:])
        return np.ascontiguousarray(np.moveaxis(codes, -1, self.pairs))  # type: ignore[arg-type]

    def _encode(
        self, rows: NDArray[np.floating], grid: Format, mine: NDArray[np.intp] | slice
    ) -> NDArray[np.unsignedinteger]:
        scale = self.scale[mine]
        if not isinstance(grid, Int):
            return grid.encode(rows / scale[:, None])
        zero = np.zeros(len(scale), np.int32) if self.zero_point is None else self.zero_point[mine]
        codes = np.empty(rows.shape, np.uint8 if grid.bits <= 8 else np.uint16)
        low, high = grid.values[[0, -1]].astype(rows.dtype)
        _affine(rows, scale, zero.astype(rows.dtype), low, high, (1 << grid.bits) - 1, codes)
        return codes

    def round(self, x: ArrayLike) -> NDArray[np.float32]:
        """What is left of ``x`` after quantization ("fake quantization")."""
        return self.quantize(x).dequantize()


@dataclass(frozen=True, eq=False)
class QuantizedTensor:
    """A tensor in codes, with all that is needed to read them.

    Attributes
    ----------
    codes
        Unsigned, in the shape of the tensor: the bits as stored (two's complement for integers).
    quantizer
        Format, scale, zero point, slices.
    """

    codes: NDArray[np.unsignedinteger]
    quantizer: Quantizer

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the tensor."""
        return self.codes.shape

    @property
    def format(self) -> Format:
        """The only format; see `Quantizer.format`."""
        return self.quantizer.format

    @property
    def scale(self) -> NDArray[np.float32]:
        """(slices,)."""
        return self.quantizer.scale

    @property
    def zero_point(self) -> NDArray[np.int32] | None:
        """(slices,) or None."""
        return self.quantizer.zero_point

    def levels(self) -> NDArray[np.floating]:
        """The values that the codes stand for, before scale and zero point: float32."""
        if self.quantizer.pairs is not None:
            return self._pair_levels(self.quantizer.pairs)
        rows = self.quantizer._rows(self.codes)
        out = np.empty(rows.shape, np.float32)
        for index, grid in enumerate(self.quantizer.formats):
            mine = self.quantizer._slices_of(index)
            out[mine] = grid.decode(rows[mine], np.float32)
        return self.quantizer.slices.join(out, self.shape)

    def _pair_levels(self, axis: int) -> NDArray[np.floating]:
        """Levels of pairs along an axis; the last of an odd number is a normal value."""
        grid = cast(OutlierVictim, self.format)
        last = np.moveaxis(self.codes, axis, -1)
        even = last.shape[-1] // 2 * 2
        out = np.empty(last.shape, np.float32)
        out[..., :even] = grid.decode(np.ascontiguousarray(last[..., :even]), np.float32)
        if even < last.shape[-1]:
            out[..., even:] = grid.normal.decode(last[..., even:], np.float32)
        return np.ascontiguousarray(np.moveaxis(out, -1, axis))

    def integers(self) -> NDArray[np.int64]:
        """The levels as integers, for integer arithmetic.

        Raises
        ------
        InputError
            If the format has values that are not whole.
        """
        for grid in self.quantizer.formats:
            if not np.array_equal(grid.values, np.rint(grid.values)):
                raise InputError(f"{grid.name} has values that are not whole; use levels()")
        return self.levels().astype(np.int64)

    def dequantize(self) -> NDArray[np.float32]:
        """``scale * (level - zero_point)``: float32, in the shape of the tensor."""
        slices, q = self.quantizer.slices, self.quantizer
        rows = slices.split(self.levels())
        if q.zero_point is not None:
            rows = rows - q.zero_point[:, None].astype(np.float32)
        return slices.join(rows * q.scale[:, None], self.shape)

    def bits(self) -> int:
        """Size in bits: all codes, and `Quantizer.side_bits`."""
        return self.codes.size * self.quantizer.bits + self.quantizer.side_bits

    def sqnr_db(self, reference: ArrayLike) -> float:
        """Signal to quantization noise against the tensor before: 10 log10(sum x^2 / sum e^2)."""
        return sqnr_db(reference, self.dequantize())


def sqnr_db(reference: ArrayLike, approximation: ArrayLike) -> float:
    """Signal to noise in dB: infinite if nothing differs, minus infinite for a signal of zeros."""
    x = np.asarray(reference, np.float64)
    y = np.asarray(approximation, np.float64)
    if x.shape != y.shape:
        raise InputError(f"SQNR compares tensors of one shape, got {x.shape} and {y.shape}")
    noise = float(np.square(x - y).sum())
    signal = float(np.square(x).sum())
    if noise == 0:
        return float("inf")
    return float(10 * np.log10(signal / noise)) if signal else float("-inf")


def format_of(grid: str | Format) -> Format:
    """A format, or that of a name."""
    return formats.get(grid) if isinstance(grid, str) else grid


def sampled(
    data: ArrayLike | Observer | MovingAverage,
    axis: int | None,
    group: int | None,
    ragged: bool = False,
    tokens: bool = False,
) -> tuple[Slices, Samples]:
    """Which values share a scale, and those values: a tensor's, or those an observer saw."""
    if isinstance(data, Observer | MovingAverage):
        if axis is not None or group is not None or tokens:
            raise InputError("give the axis to the observer, not to fit; observers have no groups")
        return data.slices, data.samples()
    slices = Slices(axis, group, ragged, tokens)
    return slices, Samples.of(slices.split(checked(data)))


def fit(
    data: ArrayLike | Observer | MovingAverage,
    grid: str | Format,
    *,
    method: str | Method = "minmax",
    axis: int | None = None,
    group: int | None = None,
    ragged: bool = False,
    tokens: bool = False,
    asymmetric: bool = False,
) -> Quantizer:
    """Find scales (and zero points) with which a format serves a tensor, or what streamed by.

    Parameters
    ----------
    data
        A tensor (exact), or an observer that has seen batches (static quantization).
    grid
        A format or its name.
    method
        minmax, percentile, mse, entropy, or one of their records with parameters. A sign has a
        scale of its own, the mean size.
    axis, group, ragged, tokens
        As in `Slices`; for an observer the axis is its own.
    asymmetric
        With a zero point: integer formats only.

    Raises
    ------
    InputError
        For a tensor that is empty or not finite, a scale that underflows, an axis or group that
        does not fit, an unknown name, a method that needs more than a moving average keeps.
    """
    chosen, how = format_of(grid), method_named(method)
    if isinstance(chosen, Sign):
        return _fit_sign(data, axis, group, ragged)
    if asymmetric and not isinstance(chosen, Int):
        raise InputError(f"{chosen.name} has no zero point; asymmetric is for integers")
    if isinstance(data, MovingAverage) and not isinstance(how, MinMax):
        raise InputError("a moving average keeps a range alone: use it with method='minmax'")
    slices, samples = sampled(data, axis, group, ragged, tokens)
    low, high = how.range(samples, chosen, asymmetric)
    scale, zero_point = parameters(chosen, low, high, asymmetric)
    return Quantizer((chosen,), scale, zero_point, slices)


def quantize(
    x: ArrayLike,
    grid: str | Format,
    *,
    method: str | Method = "minmax",
    axis: int | None = None,
    group: int | None = None,
    ragged: bool = False,
    asymmetric: bool = False,
) -> QuantizedTensor:
    """`fit` to ``x`` and apply to it: weights, or activations quantized dynamically.

    Examples
    --------
    >>> q = quantize(np.array([[0.1, -0.8], [2.0, 1.0]]), "int8_signed", axis=0)
    >>> q.integers()
    array([[  16, -127],
           [ 127,   64]])
    """
    found = fit(
        x, grid, method=method, axis=axis, group=group, ragged=ragged, asymmetric=asymmetric
    )
    return found.quantize(x)


def vanished(x: NDArray, quantizer: Quantizer) -> int:
    """How many slices come out as zero because no normal float32 is so small a scale."""
    suspects = quantizer.scale == 1
    if not suspects.any():
        return 0
    size = np.abs(quantizer.slices.split(x)[suspects]).max(axis=1)
    largest = max(float(np.abs(grid.values).max()) for grid in quantizer.formats)
    return int(np.count_nonzero((size > 0) & (size / largest < SMALLEST_SCALE)))


def _fit_sign(
    data: ArrayLike | Observer | MovingAverage, axis: int | None, group: int | None, ragged: bool
) -> Quantizer:
    """One bit per value: the sign, with the mean size of each slice for a scale.

    That scale has the least squared error of all (XNOR-Net, ECCV 2016); a slice of zeros gets 1.
    """
    slices, samples = sampled(data, axis, group, ragged)
    counts = samples.counts
    if counts is None and not isinstance(data, Observer | MovingAverage):
        counts = slices.split(np.ones(np.shape(data), np.uint8))  # not what fills a group up
    sizes = np.abs(samples.values.astype(np.float64))
    size = np.average(sizes, axis=1, weights=counts)
    scale = np.where(size > 0, size, 1.0).astype(np.float32)
    return Quantizer((Sign(),), scale, None, slices)
