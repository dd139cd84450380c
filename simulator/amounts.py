"""What parts of a netlist may be given: names, clocks, counts, and amounts of each firing.

Every check raises InputError, which says what must hold and what was given.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sparqsim.base import InputError
from sparqsim.simulator.loops import Loops

MOST_CYCLES = 2**31 - 1  # one firing; kept as 32 bit by the compiled engine
MOST_FIRINGS = 2**40


def check_name(what: str, name: object) -> None:
    """Raise InputError unless a name is text that is not blank."""
    if not isinstance(name, str) or not name.strip():
        raise InputError(f"{what} must have a name, got {name!r}")


def is_number(value: object) -> bool:
    """Whether a value is a number that is finite as a float."""
    if not isinstance(value, int | float | np.integer | np.floating):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number beyond floats
        return False


def check_clock(clock_hz: object) -> None:
    """Raise InputError unless a clock is a positive number of hertz."""
    if not is_number(clock_hz) or clock_hz <= 0:  # type: ignore[operator]
        raise InputError(f"clock_hz must be a positive number of hertz, got {clock_hz!r}")


def near(name: str, known: Iterable[str]) -> str:
    """Ask whether the most similar of the known names was meant; nothing where none is similar."""
    found = difflib.get_close_matches(name, known, 1)
    return f"; did you mean {found[0]!r}?" if found else ""


def found(index: dict[str, int], name: str, what: str) -> int:
    """Return the place of a part by its name; raises InputError if there is none."""
    if name not in index:
        raise InputError(f"there is no {what} named {name!r}{near(str(name), index)}")
    return index[name]


def check_count(what: str, value: object, least: int) -> int:
    """Return a count as Python's int; raises InputError unless it is whole, ``least`` to 2^40."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise InputError(f"{what} must be a whole number, got {value!r}")
    if not least <= value <= MOST_FIRINGS:
        raise InputError(f"{what} must be at least {least} and at most 2^40, got {value}")
    return int(value)


def as_array(what: str, given: ArrayLike | None) -> NDArray[Any]:
    """Return what was given as an array; raises InputError for rows of unequal length."""
    try:
        return np.asarray(given)
    except ValueError:
        raise InputError(f"{what} must be a rectangular array, got unequal rows") from None


def least_and_most(amounts: NDArray[np.integer] | Loops) -> tuple[int, int]:
    """The least and the greatest; 0 where there are none."""
    if isinstance(amounts, Loops):
        return amounts.least_and_most()
    return (int(amounts.min()), int(amounts.max())) if amounts.size else (0, 0)


def per_firing(
    what: str, given: ArrayLike | Loops, shape: tuple[int, int], least: int
) -> NDArray[np.integer] | Loops:
    """``given`` as integers of shape ``[1 or firings, 1 or lanes]``, or as loops; else an error."""
    if isinstance(given, Loops):
        if given.firings != shape[0]:
            raise InputError(
                f"{what} has loops of {given.firings} firings, but there are {shape[0]}"
            )
        check_amounts(what, given, least)
        return given
    array = as_array(what, given)
    if array.dtype.kind not in "iu":
        raise InputError(f"{what} must hold whole numbers, got {array.dtype}")
    if array.ndim == 0:
        array = array.reshape(1, 1)
    elif array.ndim == 1:
        array = array[:, None]
    firings, lanes = shape
    fits = array.ndim == 2 and array.shape[1] in (1, lanes)
    if not fits or (array.shape[0] != firings and (array.shape[0] != 1 or np.ndim(given) == 1)):
        raise InputError(
            f"{what} must be a number, [firings] or [firings, lanes] with {firings} firings and "
            f"{lanes} lanes, got shape {np.shape(given)}"
        )
    if array.size:
        check_amounts(what, array, least)
    return array


def check_amounts(what: str, amounts: NDArray[np.integer] | Loops, least: int) -> None:
    """Raise InputError unless all amounts lie from ``least`` to ``MOST_CYCLES``."""
    low, high = least_and_most(amounts)
    if low < least or high > MOST_CYCLES:
        wrong = low if low < least else high
        raise InputError(f"{what} must be {least} to {MOST_CYCLES}, got {wrong}")
