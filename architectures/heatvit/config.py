"""The numbers of HeatViT's engine, and how it cuts a product."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, NamedTuple, Self

import msgspec

from sparqsim.architectures.checks import (
    MOST_KIB,
    MOST_SIDE,
    check_clock,
    check_positive,
    check_whole,
)
from sparqsim.architectures.heatvit.products import Product
from sparqsim.architectures.machine import Figure, Machine, Peak, UnitTime
from sparqsim.base import InputError
from sparqsim.simulator.energy.tables import Basis
from sparqsim.workloads.layers import OtherWork
from sparqsim.workloads.tokens import tokens_per_block

KIB = 1024 * 8  # bits
BITS = 8  # published: 8-bit fixed point
SUM_BITS = 32  # assumed: accumulators
BLOCK_RAM_KIB = 4096  # published: 32.1 Mbit of block RAM in the ZCU102's device, rounded
BOARD_W = 10.697  # published (secondary): DeiT-S on the ZCU102
SOFTMAX_PASSES = 3  # assumed: maximum, exponentials with their sum, division
POST_STAGES = 8  # assumed: requantization and look-ups, To results of a head and cycle
ON_THE_WAY = ("Relu", "Gelu")  # what post applies as results come


class Tile(NamedTuple):
    """What the engine does in a firing: a share of the columns and of the heads of a product."""

    product: int
    columns: slice
    heads: slice
    cycles: int
    post: int
    weight_bits: int
    results: int


class Configuration(Machine, frozen=True, kw_only=True):
    """Configuration of the engine.

    Attributes
    ----------
    parallel_heads
        Heads the engine multiplies side by side, or parts of a linear layer's reduction.
    parallel_inputs
        Inputs that each takes in a cycle.
    parallel_outputs
        Outputs that each makes in a cycle.
    weight_buffer_kib
        Both halves of the weight buffer.
    keep
        Shares of a DeiT's patches that go on from blocks 4, 7 and 10, such as .7,.49,.343; empty
        for all.
    """

    name: ClassVar[str] = "heatvit"
    title: ClassVar[str] = "HeatViT (HPCA 2023): vision transformer with token selectors, FPGA"
    recipe: ClassVar[str] = "int8"

    parallel_heads: int = 3  # assumed: of an open reimplementation, not the paper's
    parallel_inputs: int = 8  # assumed: likewise
    parallel_outputs: int = 8  # assumed: likewise
    clock_hz: float = 150e6  # assumed: recalled; a comparison table says 300 MHz
    dram_gbytes_per_s: float = 19.2  # assumed: the ZCU102's 64-bit DDR4-2400
    weight_buffer_kib: int = 256  # assumed: two tiles of 64 columns of DeiT-S's widest product
    keep: str = ""

    def __post_init__(self) -> None:
        check_clock("heatvit", self.clock_hz)
        check_positive("heatvit", 1e-6, 1e6, dram_gbytes_per_s=self.dram_gbytes_per_s)
        sides = ("parallel_heads", "parallel_inputs", "parallel_outputs")
        check_whole("heatvit", most=MOST_SIDE, **{name: getattr(self, name) for name in sides})
        check_whole("heatvit", most=MOST_KIB, weight_buffer_kib=self.weight_buffer_kib)
        if self.dram_bits_per_cycle < 1:
            raise InputError(
                f"heatvit.dram_gbytes_per_s must move a bit in a cycle of heatvit.clock_hz, got "
                f"{self.dram_gbytes_per_s!r}"
            )
        if self.keep:
            tokens_per_block(ratios=self.ratios)

    @property
    def ratios(self) -> tuple[float, ...]:
        """Shares of patches that go on behind each selector."""
        try:
            return tuple(float(share) for share in self.keep.split(","))
        except ValueError:
            raise InputError(
                f"heatvit.keep must be shares such as .7,.49,.343, got {self.keep!r}"
            ) from None

    @property
    def multipliers(self) -> int:
        """Of the engine."""
        return self.parallel_heads * self.parallel_inputs * self.parallel_outputs

    @property
    def dram_bits_per_cycle(self) -> int:
        """Bits of weights that arrive in a cycle."""
        return int(self.dram_gbytes_per_s * 8e9 // self.clock_hz)

    def cycles(self, product: Product) -> int:
        """Cycles of a product on the engine; heads side by side, or a reduction shared."""
        if product.heads > 1:
            inner = -(-product.k // self.parallel_inputs) * -(-product.heads // self.parallel_heads)
        else:
            inner = -(-product.k // (self.parallel_inputs * self.parallel_heads))
        return product.m * -(-product.n // self.parallel_outputs) * inner

    def tiles(self, products: Sequence[Product]) -> list[Tile]:
        """Cut products by heads and by columns whose weights fit half the buffer.

        Raises
        ------
        InputError
            If those of a cycle do not fit.
        """
        found = []
        room = self.weight_buffer_kib * KIB // 2
        for number, p in enumerate(products):
            side = self.parallel_heads if p.heads > 1 else 1
            for low in range(0, p.heads, side):
                heads = min(side, p.heads - low)
                wide = (
                    room // (heads * p.k * BITS) // self.parallel_outputs * self.parallel_outputs
                    if p.weights
                    else p.n
                )
                if not wide:
                    raise InputError(
                        f"{p.name}: {self.parallel_outputs} columns of {heads * p.k} weights must "
                        "fit half of the weight buffer; enlarge heatvit.weight_buffer_kib from "
                        f"{self.weight_buffer_kib}"
                    )
                for first in range(0, p.n, wide):
                    columns = slice(first, min(first + wide, p.n))
                    count = columns.stop - first
                    # Of a product of heads a part of the heads side by side idles for a lone head.
                    part = p._replace(n=count, heads=max(heads, 2) if p.heads > 1 else 1)
                    passes = SOFTMAX_PASSES if p.kind == "scores" else 1
                    found.append(
                        Tile(
                            product=number,
                            columns=columns,
                            heads=slice(low, low + heads),
                            cycles=self.cycles(part),
                            post=passes * p.m * -(-count // self.parallel_outputs),
                            weight_bits=heads * p.k * count * BITS if p.weights else 0,
                            results=heads * p.m * count,
                        )
                    )
        return found

    def peak(self) -> Peak:
        """Of all multipliers."""
        return Peak(macs_per_s=self.multipliers * self.clock_hz, operands="8 x 8 bits")

    def bandwidth(self) -> float:
        """Of the memory that holds the weights."""
        return self.dram_gbytes_per_s * 1e9

    def resized(self, *, macs_per_s: float | None = None, bandwidth: float | None = None) -> Self:
        """With as many outputs a cycle, or that bandwidth."""
        fields: dict[str, float] = {}
        if macs_per_s is not None:
            fields["parallel_outputs"] = max(
                1, round(macs_per_s / (self.parallel_heads * self.parallel_inputs * self.clock_hz))
            )
        if bandwidth is not None:
            fields["dram_gbytes_per_s"] = bandwidth / 1e9
        return msgspec.structs.replace(self, **fields)

    def time_beside(self, work: OtherWork) -> UnitTime | None:
        """Softmax takes passes of ``post``; ReLU and GELU are applied as results come."""
        if work.kind == "softmax":
            passes = SOFTMAX_PASSES * -(
                -work.elements // (self.parallel_heads * self.parallel_outputs)
            )
            return UnitTime(unit="post", cycles=passes)
        return UnitTime(unit="post", cycles=0) if work.operation in ON_THE_WAY else None

    def datasheet(self) -> list[Figure]:
        """The numbers of this configuration and where they come from."""
        assumed, derived = Basis.ASSUMED, Basis.DERIVED
        reimplemented = "an open reimplementation's choice, not the paper's"
        peak = self.multipliers * self.clock_hz / 1e9
        return [
            Figure(
                "engine",
                f"{self.parallel_heads} x {self.parallel_inputs} x {self.parallel_outputs} MACs",
                assumed,
                reimplemented,
            ),
            Figure("clock", f"{self.clock_hz / 1e6:g} MHz", assumed, "recalled; disputed"),
            Figure("peak", f"{peak:g} GMAC/s", derived, "MACs x clock"),
            Figure("operands", f"{BITS} bits", Basis.PUBLISHED, "HPCA 2023"),
            Figure("selectors", "before blocks 4, 7, 10", Basis.PUBLISHED, "HPCA 2023"),
            Figure("DRAM", f"{self.dram_gbytes_per_s:g} GB/s", assumed, "ZCU102, DDR4-2400"),
            Figure("weight buffer", f"{self.weight_buffer_kib} KiB", assumed, "not published"),
            Figure("board power", f"{BOARD_W} W", Basis.PUBLISHED, "DeiT-S, secondary source"),
        ]
