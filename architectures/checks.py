"""What the fields of a configuration must be, told by name."""

from __future__ import annotations

import math
from collections.abc import Mapping

from sparqsim.base import InputError

# assumed: no part of a machine is larger, and products of two such numbers fit 64 bits by far
MOST_WHOLE = 2**40
MOST_SIDE = 2**16  # assumed: of rows or columns of an array
MOST_KIB = 2**24  # assumed: of a memory on a chip, 16 GiB
LEAST, MOST = 1e-18, 1e18  # assumed: of a clock, a bandwidth, an energy in any unit in use


def check_whole(where: str, least: int = 1, most: int = MOST_WHOLE, **fields: object) -> None:
    """Raise unless every field is a whole number of ``least`` to ``most``.

    Raises
    ------
    InputError
        Naming ``where.field`` and what was given.
    """
    for field, value in fields.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise InputError(
                f"{where}.{field} must be a whole number of at least {least}, got {value!r}"
            )
        if value > most:
            raise InputError(f"{where}.{field} must be at most {most:,}, got {value:,}")


def check_positive(where: str, least: float = LEAST, most: float = MOST, **fields: object) -> None:
    """Raise unless every field is a finite number above 0, of a size that hardware has."""
    for field, value in fields.items():
        if not isinstance(value, int | float) or not 0 < value < math.inf:
            raise InputError(f"{where}.{field} must be a finite number above 0, got {value!r}")
        if not least <= value <= most:
            raise InputError(f"{where}.{field} must be {least:g} to {most:g}, got {value:g}")


def check_bounds(where: str, config: object, bounds: Mapping[str, tuple[int, int, str]]) -> None:
    """Raise unless fields are whole numbers within bounds: ``field: (least, most, what)``."""
    for field, (least, most, what) in bounds.items():
        value = getattr(config, field)
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise InputError(f"{where}.{field} must be {least} to {most} ({what}), got {value!r}")


def check_clock(where: str, clock_hz: object, field: str = "clock_hz") -> None:
    """Raise unless a clock is one of a circuit."""
    if not isinstance(clock_hz, int | float) or not 1e3 <= clock_hz <= 1e12:
        raise InputError(f"{where}.{field} must be 1 kHz to 1 THz, got {clock_hz!r}")
