"""The stateful resources the compiled engine can serve: one row of the table a kind.

A stateful resource is two functions on integer arrays. ``serve(params, state, request, now)``
changes the state and returns ``(hold, busy, latency)``, each at least 1: the cycles until the
server can take the next request, the cycles for which the request occupies its lane (the place in
a controller's queue), and the cycles from ``now`` until the answer is there.
``rank(params, state, request, now)`` orders waiting requests: the least goes first. Both engines
call the same two functions. To add a kind, add it to :data:`KINDS` and to the two functions below,
which choose among them inside the compiled engine.
"""

from __future__ import annotations

from typing import Any

from sparqsim.base import kernel
from sparqsim.simulator.memory import dram_kernels, open_row

KINDS: dict[str, int] = {"open_row": 1, "dram": 2}
OPEN_ROW = 1


@kernel(error_model="numpy", _nrt=False)
def serve(kind: int, params: Any, state: Any, request: Any, now: int) -> tuple[int, int, int]:
    """Serve a request of a resource of that kind; changes ``state``."""
    if kind == OPEN_ROW:
        return open_row.serve(params, state, request, now)
    return dram_kernels.serve(params, state, request, now)


@kernel(error_model="numpy", _nrt=False, forceinline=True)
def rank(kind: int, params: Any, state: Any, request: Any, now: int) -> int:
    """Rank of a waiting request of a resource of that kind; the least goes first."""
    if kind == OPEN_ROW:
        return open_row.rank(params, state, request, now)
    return dram_kernels.rank(params, state, request, now)
