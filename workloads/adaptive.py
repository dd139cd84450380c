"""Quantizers that search: ANT's types and OliVe's outlier-victim pairs.

`fit_ant` chooses, as ANT does, the type with the least squared error, its scale scanned;
`fit_olive` quantizes in outlier-victim pairs, the threshold of outliers scanned.

Sources: ANT, MICRO 2022; OliVe, ISCA 2023, and their authors' code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sparqsim.base import InputError
from sparqsim.workloads import formats
from sparqsim.workloads.calibrate import LeastSquares, parameters
from sparqsim.workloads.formats import Format
from sparqsim.workloads.formats.pairs import OutlierVictim, outlier_victim
from sparqsim.workloads.observers import Observer
from sparqsim.workloads.quantize import QuantizedTensor, Quantizer, format_of, sampled
from sparqsim.workloads.slices import Samples, Slices, checked

ANT_SCAN = LeastSquares(start=0.75, stop=1.49)  # published: ANT, 1 % steps of the maximum
ANT_SCAN_WIDE = LeastSquares(start=0.95, stop=1.49)  # published: authors' code above 6 bits


def ant_candidates(bits: int, signed: bool) -> tuple[Format, ...]:
    """The types ANT chooses among: int, flint, PoT, float with 3 exponent bits; int above 6 bits.

    With 3 magnitude bits (4 bits signed) that float has no mantissa and is PoT: it is left out.
    Below, flint and PoT have one set of values and the first named stays.
    """
    sign = "signed" if signed else "unsigned"
    names = [f"int{bits}_{sign}"]
    if bits <= 6:
        names += [f"flint{bits}_{sign}", f"pot{bits}_{sign}"]
        if bits - signed > 2:
            names.append(f"float_e3_{bits}_{sign}")
    found: list[Format] = []
    for name in names:
        grid = formats.get(name)
        if not any(np.array_equal(grid.values, other.values) for other in found):
            found.append(grid)
    return tuple(found)


def fit_ant(
    data: ArrayLike | Observer,
    bits: int = 4,
    *,
    axis: int | None = None,
    group: int | None = None,
    ragged: bool = False,
    signed: bool | None = None,
    type_per_slice: bool = False,
    candidates: Sequence[str | Format] | None = None,
) -> Quantizer:
    """ANT's choice: of each candidate type the scale with the least squared error, then the type.

    The scale is scanned over .75 to 1.49 of the slice's maximum in 1 % steps (.95 and up above
    6 bits, as the authors' code does).

    Parameters
    ----------
    signed
        Default: if a value is negative.
    type_per_slice
        False: one type for the tensor, by the sum of the slices' errors (the authors' code);
        True: one a slice.
    candidates
        Default: `ant_candidates`.

    Raises
    ------
    InputError
        As `fit`; or for an unsigned type where values are negative.
    """
    slices, samples = sampled(data, axis, group, ragged)
    sign = bool(samples.low.min() < 0) if signed is None else signed
    grids = (
        ant_candidates(bits, sign)
        if candidates is None
        else tuple(format_of(c) for c in candidates)
    )
    if not grids:
        raise InputError("ANT needs at least one candidate type")
    scan = ANT_SCAN if bits <= 6 else ANT_SCAN_WIDE
    scales, errors = [], []
    for grid in grids:
        top, _ = parameters(grid, samples.low, samples.high, asymmetric=False)
        factor, error = scan.best(samples, grid, top)
        scales.append((top * factor).astype(np.float32))
        errors.append(error)
    table = np.array(errors)
    if not type_per_slice:
        best = int(table.sum(axis=1).argmin())
        return Quantizer((grids[best],), scales[best], None, slices)
    place = table.argmin(axis=0)
    used = np.unique(place)
    scale = np.array(scales)[place, np.arange(len(place))]
    choice = None if len(used) == 1 else np.searchsorted(used, place).astype(np.uint8)
    return Quantizer(tuple(grids[i] for i in used), scale, None, slices, choice)


OLIVE_SCAN = LeastSquares(start=0.75, stop=1.49, step=0.02)  # published: OliVe's authors' code


def fit_olive(
    x: ArrayLike,
    bits: int = 4,
    *,
    axis: int | None = None,
    group: int | None = None,
    ragged: bool = False,
    keep: Literal["larger", "left"] = "larger",
    candidates: Sequence[str | OutlierVictim] | None = None,
    pairs: int | None = None,
) -> Quantizer:
    """OliVe: outlier-victim pairs, with the threshold and normal type of least squared error.

    The threshold, which the largest normal value stands for, starts from three standard deviations
    from the mean, on the farther side, and is scanned over .75 to 1.49 of it in 2 % steps; what is
    beyond is an outlier. Pairs are neighbours within a slice. The outliers' bias is the least that
    clears the normal values, unless a candidate says otherwise.

    Parameters
    ----------
    keep
        Which of two outliers in a pair stays: the larger (the paper) or the left (authors' code).
    candidates
        Default: pairs over int and flint at 4 bits, over int above 6.
    pairs
        Axis along which neighbours are a pair; by default they are neighbours within a slice.

    Raises
    ------
    InputError
        As `fit`; or, without ``pairs``, if a slice has an odd number of values.
    """
    slices = Slices(axis, group, ragged)
    array = checked(x)
    samples = Samples.of(slices.split(array if pairs is None else _paired(array, axis, pairs)))
    if candidates is None:
        kinds: tuple[Literal["int", "flint"], ...] = ("int", "flint") if bits <= 6 else ("int",)
        grids = tuple(outlier_victim(kind, bits, keep=keep) for kind in kinds)
    else:
        grids = tuple(cast(OutlierVictim, format_of(c)) for c in candidates)
    for grid in grids:
        if not isinstance(grid, OutlierVictim):
            raise InputError(f"OliVe's candidates are outlier-victim pairs, got {grid.name}")
    if not grids:
        raise InputError("OliVe needs at least one candidate format")
    rows = samples.values
    deviation = rows.std(axis=1, dtype=np.float64, ddof=1 if rows.shape[1] > 1 else 0)
    threshold = np.abs(rows.mean(axis=1, dtype=np.float64)) + 3 * deviation  # published: 3 sigma
    scales, errors = [], []
    for grid in grids:
        start, _ = parameters(grid.normal, -threshold, threshold, asymmetric=False)
        factor, error = OLIVE_SCAN.best(samples, grid, start)
        scales.append((start * factor).astype(np.float32))
        errors.append(error.sum())
    best = int(np.argmin(errors))
    return Quantizer((grids[best],), scales[best], None, slices, pairs=pairs)


def pair_axis(dimensions: int) -> int:
    """The axis of OliVe's pairs: channels of images and kernels, else the features, the last."""
    return 1 if dimensions == 4 else dimensions - 1


def _paired(x: NDArray, axis: int | None, pairs: int) -> NDArray:
    """The tensor with the axis of pairs last and even, a zero behind the last of an odd number."""
    if axis is not None and axis % x.ndim == pairs % x.ndim:
        raise InputError(f"pairs along axis {pairs} cannot have a scale each index of that axis")
    last = np.moveaxis(x, pairs, -1)
    return np.pad(last, [(0, 0)] * (x.ndim - 1) + [(0, last.shape[-1] % 2)])


@dataclass(frozen=True)
class PairStatistics:
    """What became of the pairs of a tensor.

    Attributes
    ----------
    pairs
        How many.
    with_outlier
        Pairs that hold a coded outlier, two outliers included.
    of_two_outliers
        Pairs of which both values lay beyond the threshold: one outlier was lost.
    """

    pairs: int
    with_outlier: int
    of_two_outliers: int

    @property
    def outlier_outlier_share(self) -> float:
        """Pairs of two outliers among all; the paper counts .03 to .06 %."""
        return self.of_two_outliers / self.pairs


def pair_statistics(x: ArrayLike, quantized: QuantizedTensor) -> PairStatistics:
    """Count outliers and victims of a tensor quantized in outlier-victim pairs.

    Parameters
    ----------
    x
        The tensor before quantization.

    Raises
    ------
    InputError
        If the format is not one of pairs, or the shapes differ.
    """
    grid = quantized.format
    if not isinstance(grid, OutlierVictim):
        raise InputError(f"only outlier-victim pairs have victims, got {grid.name}")
    array = checked(x)
    if array.shape != quantized.shape:
        raise InputError(f"the tensor {array.shape} is not that of the codes {quantized.shape}")
    slices = quantized.quantizer.slices
    rows, codes = slices.split(array), slices.split(quantized.codes)
    if quantized.quantizer.pairs is not None:
        raise InputError("statistics are of pairs within a slice; fit without pairs")
    normal = float(grid.normal.values[-1])
    cut = (normal + float(grid.values[grid.values > normal][0])) / 2
    outlier = (np.abs(rows / quantized.scale[:, None]) >= cut).reshape(-1, 2)
    coded = (codes == grid.identifier).reshape(-1, 2).any(axis=1)
    return PairStatistics(len(coded), int(coded.sum()), int(outlier.all(axis=1).sum()))
