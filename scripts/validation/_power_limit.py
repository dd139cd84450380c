"""The power limit under which a GPU takes as long for a product as was measured."""

from __future__ import annotations

import msgspec

from sparqsim.architectures.machine import run
from sparqsim.architectures.sparse_tensor_core import Shape, SparseTensorCore, best_tiling

ROUNDS = 4


def milliseconds(machine: SparseTensorCore, shape: Shape, pattern: str, dtype: str) -> float:
    """Time of a product on a machine."""
    program = machine.gemm(*shape, dtype=dtype, pattern=pattern)
    return 1e3 * run(machine, program, record="summary").report.seconds


def power_limit_w(machine: SparseTensorCore, shape: Shape, dtype: str, measured: float) -> float:
    """The limit under which a dense product takes so many milliseconds.

    It can only slow the main loop down: 0, no limit, where the model is slower already.
    """
    at, launch = milliseconds(machine, shape, "dense", dtype), machine.launch_us / 1e3
    if at >= measured:
        return 0.0
    cores = machine.cores(dtype, "dense")
    limit = cores.main_loop_power_w(shape, best_tiling(cores, shape))
    for _ in range(ROUNDS):
        ratio = (at - launch) / (measured - launch)
        limit = machine.idle_w + (limit - machine.idle_w) * ratio
        limited = msgspec.structs.replace(machine, power_limit_w=limit)
        at = milliseconds(limited, shape, "dense", dtype)
    return limit
