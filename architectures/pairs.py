"""What a decoder makes of outlier-victim pairs, wherever it stands: at an array's borders, or in
front of the dot products of a tensor core."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparqsim.simulator.mac import flint, olive
from sparqsim.workloads.adaptive import pair_axis
from sparqsim.workloads.encoded import Coded
from sparqsim.workloads.formats import Format
from sparqsim.workloads.formats.integer import Int
from sparqsim.workloads.formats.pairs import OutlierVictim, outlier_victim

# Formats of pairs, and of what is a pair without outliers.
FOUR = ("int4_narrow", "flint4_signed", "ovp_int4", "ovp_flint4")
EIGHT = ("int8_narrow", "ovp_int8")


def decoded(tensor: Coded) -> flint.Terms:
    """Exponents and integers of a tensor's codes, in its shape.

    Pairs are neighbours along the channels; the last of an odd number is a normal value.
    """
    codes = tensor.dense.codes
    assert isinstance(codes, np.ndarray)
    axis = pair_axis(codes.ndim)
    last = np.moveaxis(codes, axis, -1)
    odd = last.shape[-1] % 2
    even = np.ascontiguousarray(np.pad(last, [(0, 0)] * (last.ndim - 1) + [(0, odd)]))
    return [
        (_back(exponents, last, axis), _back(integers, last, axis))
        for exponents, integers in _terms(even, tensor.formats[0])
    ]


def _back(array: NDArray[Any], last: NDArray[Any], axis: int) -> NDArray[Any]:
    return np.ascontiguousarray(np.moveaxis(array[..., : last.shape[-1]], -1, axis))


def _terms(codes: NDArray[Any], grid: Format) -> flint.Terms:
    """Of pairs along the last axis, or of normal values alone."""
    if not isinstance(grid, OutlierVictim):
        grid = outlier_victim("int" if isinstance(grid, Int) else "flint", grid.bits)
    normal, outlier = (
        np.stack(part.exponent_integers, axis=1).astype(np.int32)
        for part in (grid.normal, grid.outlier)
    )
    terms, _ = olive.operand(codes, grid.bits, grid.identifier, normal, outlier)
    return terms
