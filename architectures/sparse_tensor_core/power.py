"""The board whose power is known, of which a configuration is a part or a multiple.

``tdp_w``, ``peak_over_tdp`` and ``idle_w`` are figures of a board: at its SMs, clock and memories,
those of the preset that has all. Away from it the energy of a multiplication and of a bit stays
what it is there (memories by their size, as the table of energies has them), and idle power goes
with the SMs. Power figures that no preset has are of the configuration as it stands.
"""

from __future__ import annotations

import functools

import msgspec

from sparqsim.architectures import presets
from sparqsim.architectures.sparse_tensor_core.config import Configuration
from sparqsim.base import InputError


@functools.lru_cache(maxsize=256)
def board_of(gpu: Configuration) -> Configuration:
    """The nearest preset with these figures of power, with the formats of the GPU; or the GPU."""
    boards = [
        each.configuration
        for each in presets.shipped().values()
        if isinstance(each.configuration, Configuration)
    ]
    mine = msgspec.structs.asdict(gpu)

    def differing(board: Configuration) -> int:
        return sum(mine[name] != value for name, value in msgspec.structs.asdict(board).items())

    alike = [each for each in boards if _figures(each) == _figures(gpu)]
    found = min(alike, key=differing, default=gpu)
    return msgspec.structs.replace(
        found, int4=gpu.int4, fp8=gpu.fp8, outlier_pairs=gpu.outlier_pairs
    )


def _figures(gpu: Configuration) -> tuple[float, ...]:
    return gpu.tdp_w, gpu.peak_over_tdp, gpu.idle_w


def idle_w(gpu: Configuration) -> float:
    """Power of the idle GPU: the board's, in proportion to the SMs.

    Raises
    ------
    InputError
        If the power limit is not above it.
    """
    found = gpu.idle_w * gpu.sms / board_of(gpu).sms
    if gpu.power_limit_w and gpu.power_limit_w <= found:
        raise InputError(
            f"{gpu.name}.power_limit_w must exceed the idle power of {gpu.sms} SMs, {found:.4g} "
            f"W, got {gpu.power_limit_w}; raise it, or give 0 for no limit"
        )
    return found
