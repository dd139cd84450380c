"""Products of codes on the engine, checked, and what firings need to do them again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparqsim.architectures.heatvit.config import Tile
from sparqsim.architectures.heatvit.products import Kind, Product, Step
from sparqsim.simulator.mac import dense
from sparqsim.simulator.netlist import Execute
from sparqsim.simulator.report import Verification

Ints = NDArray[np.int64]
Levels = NDArray[np.int32]


class Operands:
    """Operands of products by number, their sums, and the sums that tokens carry.

    A selector's products are not here: its firings carry nothing.
    """

    def __init__(self) -> None:
        self.known: dict[int, tuple[Levels, Levels, Ints]] = {}
        self.carried: dict[int, Ints] = {}

    def actions(self, tiles: Sequence[Tile]) -> dict[str, Execute]:
        """Engine and post as they work on tokens: a token is a tile with its sums."""

        def engine(lane: int, k: int, got: dict[str, list[Any]]) -> dict[str, list[Any]]:
            if k == 0:
                self.carried = {
                    number: np.zeros_like(sums) for number, (*_, sums) in self.known.items()
                }
            tile = tiles[k]
            if tile.product not in self.known:
                return {}
            left, right, _ = self.known[tile.product]
            part = left[tile.heads].astype(np.int64) @ right[tile.heads, :, tile.columns]
            return {"sums": [(tile, part)]}

        def post(lane: int, k: int, got: dict[str, list[Any]]) -> dict[str, list[Any]]:
            for token in got["sums"]:
                if token is not None:
                    tile, part = token
                    self.carried[tile.product][tile.heads, :, tile.columns] += part
            return {}

        return {"engine": engine, "post": post}

    def executed(self) -> bool:
        """Whether the tokens of the last ``verify="execute"`` run gave the core's sums."""
        return self.carried.keys() == self.known.keys() and all(
            np.array_equal(self.carried[number], sums) for number, (*_, sums) in self.known.items()
        )


class Pass:
    """The products of an image's way through a network.

    Parameters
    ----------
    check
        Whether every product is also done on the MAC core and compared, and kept for execution.
    """

    def __init__(self, check: bool) -> None:
        self.check, self.steps = check, list[Step]()
        self.operands = Operands()
        self.outputs = self.mismatches = self.effectual = 0

    def multiply(self, name: str, kind: Kind, left: Levels, right: Levels) -> Ints:
        """Product of integers [heads, m, k] by [heads, k, n]."""
        heads, m, k = left.shape
        n = right.shape[2]
        number = sum(isinstance(step, Product) for step in self.steps)
        self.steps.append(Product(name, m, n, k, heads, kind))
        exact = product_in_floats(left, right)
        if not self.check:
            return exact
        sums = np.zeros((heads, m, n), np.int32)
        for head in range(heads):
            dense.gemm(left[head], np.ascontiguousarray(right[head]), sums[head])
            self.effectual += dense.effectual(left[head], right[head])
        self.outputs += sums.size
        self.mismatches += int(np.count_nonzero(sums != exact))
        self.operands.known[number] = (left, right, sums.astype(np.int64))
        return sums.astype(np.int64)

    def verify(self) -> Verification:
        """Every product on the MAC core beside the same product in floating point."""
        return Verification(
            status="mismatch" if self.mismatches else "exact",
            outputs=self.outputs,
            mismatches=self.mismatches,
            against="every matrix product in floating point (BLAS), exact for these sums",
        )


def product_in_floats(left: Levels, right: Levels) -> Ints:
    """Products [heads, m, k] by [heads, k, n] in float32, in parts that are exact."""
    largest = [max(int(np.abs(each).max(initial=0)), 1) for each in (left, right)]
    exact = np.zeros((len(left), left.shape[1], right.shape[2]), np.int64)
    depth = max(1, 2**24 // (largest[0] * largest[1]))  # products that float32 adds exactly
    for low in range(0, left.shape[2], depth):
        span = slice(low, low + depth)
        part = left[:, :, span].astype(np.float32) @ right[:, span].astype(np.float32)
        exact += part.astype(np.int64)
    return exact
