"""Any quantizer as a step of a network that is trained: it rounds forwards, its slope is 1."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparqsim.base import InputError

try:
    import torch
    from torch import nn
except ImportError:
    raise InputError(
        "training needs torch, which is not installed; pip install 'sparqsim[train]'"
    ) from None

Rounds = Callable[[NDArray[np.float32]], NDArray[np.float32]]


class _RoundAsGiven(torch.autograd.Function):
    """Round by a function on arrays, straight through."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, rounds: Rounds) -> torch.Tensor:
        threads = torch.get_num_threads()
        rounded = torch.from_numpy(np.ascontiguousarray(rounds(x.detach().numpy())))
        # numba's first parallel kernel sets the number of OpenMP threads, which torch shares.
        torch.set_num_threads(threads)
        return rounded

    @staticmethod
    def backward(ctx: Any, *slopes: torch.Tensor) -> Any:
        return slopes[0], None


class StraightThrough(nn.Module):
    """Rounds a tensor by any quantizer, which may look at it each time; its slope is 1."""

    def __init__(self, rounds: Rounds):
        super().__init__()
        self.rounds = rounds

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = _RoundAsGiven.apply(x, self.rounds)
        return found
