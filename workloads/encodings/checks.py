"""The questions every encoding asks of its arrays; if the answer is no, an error says so."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparqsim.base import InputError


def whole_number(what: str, value: Any, least: int, most: int | None = None) -> int:
    """Return ``value`` as an int within ``least``..``most``, or refuse it."""
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | np.integer):
        raise InputError(f"{what} must be a whole number, got {value!r}")
    if value < least or (most is not None and value > most):
        bounds = f"at least {least}" if most is None else f"between {least} and {most}"
        raise InputError(f"{what} must be {bounds}, got {value}")
    return int(value)


def array_of(
    what: str, array: Any, dtype: Any = None, ndim: int | None = None, length: int | None = None
) -> NDArray[Any]:
    """Refuse anything but a numpy array of this dtype, number of dimensions and first length."""
    if not isinstance(array, np.ndarray):
        raise InputError(f"{what} must be a numpy array, got {type(array).__name__}")
    if dtype is not None and array.dtype != np.dtype(dtype):
        raise InputError(f"{what} must be of dtype {np.dtype(dtype)}, got {array.dtype}")
    if ndim is not None and array.ndim != ndim:
        raise InputError(f"{what} must have {ndim} dimension(s), got shape {array.shape}")
    if length is not None and len(array) != length:
        raise InputError(
            f"{what} must have {length} entries, got {len(array)}; "
            "the data is truncated or mixed up"
        )
    return array


def finite_numbers(what: str, array: Any, ndim: int | None = None) -> NDArray[Any]:
    """Refuse an array that is not of real numbers or holds NaN or infinity."""
    array_of(what, array, ndim=ndim)
    kind, size = array.dtype.kind, array.dtype.itemsize
    if kind not in "biuf" or size > 8 or not array.dtype.isnative:
        raise InputError(
            f"{what} must hold real numbers of at most 64 bits in the machine's byte order, got "
            f"dtype {array.dtype.str}"
        )
    if array.dtype.kind == "f":
        # A sum is finite unless a term is not (or it overflows): one cheap pass in the usual case.
        with np.errstate(all="ignore"):
            suspicious = array.size and not np.isfinite(array.sum(dtype=np.float64))
        if suspicious and not np.isfinite(array).all():
            where = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
            raise InputError(
                f"{what} must be finite, got {array[where]} at {list(where)}; clean the tensor"
            )
    return array


def dimensions(what: str, shape: Any, ndim: int) -> tuple[int, ...]:
    """Return ``shape`` as a tuple of ``ndim`` ints, each at least 1."""
    if not isinstance(shape, tuple | list) or len(shape) != ndim:
        raise InputError(f"{what} must be {ndim} whole numbers, got {shape!r}")
    return tuple(whole_number(f"{what}[{i}]", size, 1) for i, size in enumerate(shape))


def tensor_shape(what: str, shape: Any) -> tuple[int, ...]:
    """Return ``shape`` as a tuple of at least one int, each at least 1."""
    if not isinstance(shape, tuple | list) or not shape:
        raise InputError(f"{what} must be one or more whole numbers, got {shape!r}")
    return dimensions(what, shape, len(shape))


def value_width(value_bits: int | None, dtype: np.dtype[Any]) -> int:
    """Return the bits a stored value takes: as given, or those of the dtype."""
    if value_bits is None:
        return 8 * dtype.itemsize
    return whole_number("value_bits", value_bits, 1, 8 * dtype.itemsize)
