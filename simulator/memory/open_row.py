"""The simplest stateful memory: banks with one open row, a cost for a hit and one for a miss.

A request is (bank, row, further cycles until the answer). It shows what a stateful resource is in a
page; :mod:`sparqsim.simulator.memory.dram` is the real one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparqsim.base import InputError, kernel
from sparqsim.simulator.netlist import FieldBound

MOST_BANKS = 1 << 20  # assumed: no memory has more; their state is kept whole
MOST = 1 << 40  # assumed: far more than any run has, and far from overflow


@dataclass(frozen=True)
class OpenRow:
    """Banks with one open row each.

    Parameters
    ----------
    banks
        How many.
    hit_cycles, miss_cycles
        Cycles a request holds the memory if its row is open, and if not.
    """

    banks: int = 2
    hit_cycles: int = 2
    miss_cycles: int = 7
    kind = "open_row"

    def __post_init__(self) -> None:
        for field, most in (("banks", MOST_BANKS), ("hit_cycles", MOST), ("miss_cycles", MOST)):
            value = getattr(self, field)
            if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
                raise InputError(f"OpenRow.{field} must be 1 to {most:,}, got {value!r}")

    def bounds(self) -> tuple[FieldBound, ...]:
        """Bank, row, further cycles until the answer."""
        return (
            FieldBound("bank", 0, self.banks - 1),
            FieldBound("row", 0, MOST),
            FieldBound("further cycles", 0, MOST),
        )

    def parameters(self) -> NDArray[np.int64]:
        """Cycles of a hit and of a miss."""
        return np.array([self.hit_cycles, self.miss_cycles], np.int64)

    def initial_state(self) -> NDArray[np.int64]:
        """The open row of each bank; -1 for none."""
        return np.full(self.banks, -1, np.int64)


@kernel(error_model="numpy", _nrt=False, forceinline=True)
def serve(params: Any, state: Any, request: Any, now: int) -> tuple[int, int, int]:
    """Open the row if need be; (hold, busy, latency)."""
    bank, row, further = request[0], request[1], request[2]
    hold = params[0] if state[bank] == row else params[1]
    state[bank] = row
    return hold, hold, hold + further


@kernel(error_model="numpy", _nrt=False, forceinline=True)
def rank(params: Any, state: Any, request: Any, now: int) -> int:
    """A request to the open row goes first."""
    return 0 if state[request[0]] == request[1] else 1
