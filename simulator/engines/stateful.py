"""The stateful resources the compiled engine can serve: one row of each table a kind.

A stateful resource is two functions on integer arrays. ``serve(params, state, request, now)``
changes the state and returns ``(hold, busy, latency)``, each at least 1: the cycles until the
server can take the next request, the cycles for which the request occupies its lane (the place in
a controller's queue), and the cycles from ``now`` until the answer is there.
``rank(params, state, request, now)`` orders waiting requests: the least goes first. Both engines
call the same two functions.
"""

from __future__ import annotations

from typing import Any

from sparqsim_base import kernel

KINDS: dict[str, int] = {"open_row": 1}


@kernel(error_model="numpy", forceinline=True)
def _open_row_serve(params: Any, state: Any, request: Any, now: int) -> tuple[int, int, int]:
    bank, row, extra = request[0], request[1], request[2]
    hold = params[0] if state[bank] == row else params[1]
    state[bank] = row
    return hold, hold, hold + extra


@kernel(error_model="numpy", forceinline=True)
def _open_row_rank(params: Any, state: Any, request: Any, now: int) -> int:
    return 0 if state[request[0]] == request[1] else 1


@kernel(error_model="numpy", forceinline=True)
def serve(kind: int, params: Any, state: Any, request: Any, now: int) -> tuple[int, int, int]:
    """Serve a request of a resource of that kind; changes ``state``."""
    return _open_row_serve(params, state, request, now)


@kernel(error_model="numpy", forceinline=True)
def rank(kind: int, params: Any, state: Any, request: Any, now: int) -> int:
    """Rank of a waiting request of a resource of that kind; the least goes first."""
    return _open_row_rank(params, state, request, now)
