"""The block diagram of a list of products on the engine, and which firings move whose bits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparqsim.architectures.account import Account, Port, Store
from sparqsim.architectures.heatvit.config import (
    BITS,
    BLOCK_RAM_KIB,
    KIB,
    POST_STAGES,
    SUM_BITS,
    Configuration,
)
from sparqsim.architectures.heatvit.products import Product, Selection, Step
from sparqsim.simulator.netlist import Actor, Channel, Execute, Netlist, Resource


class Diagram:
    """Actors, channels and ports of a run.

    Parameters
    ----------
    machine
        The engine.
    steps
        What it does, in order.
    inputs, outputs
        How many values of 8 bits come from DRAM before the first product and go there at the end.
    dynamic
        Whether sums wait for their range before they are scaled.
    """

    def __init__(
        self,
        machine: Configuration,
        steps: Sequence[Step],
        inputs: int,
        outputs: int,
        dynamic: bool = False,
    ) -> None:
        self.machine, self.steps, self.dynamic = machine, steps, dynamic
        self.inputs, self.outputs = inputs, outputs
        self.products = [step for step in steps if isinstance(step, Product)]
        self.tiles = machine.tiles(self.products)
        product = np.array([tile.product for tile in self.tiles])
        self.opens = np.append(True, product[1:] != product[:-1])
        self.closes = np.append(self.opens[1:], True)
        self.selections: list[Selection] = []
        decided: list[int] = []  # behind which products a selector decides
        seen = -1
        for step in steps:
            if isinstance(step, Product):
                seen += 1
            else:
                decided.append(seen)
                self.selections.append(step)
        self.judged = self.closes & np.isin(product, decided)
        self.after = self.opens & np.isin(product - 1, decided)
        bits = np.array([tile.weight_bits for tile in self.tiles])
        self.weight_bits: NDArray[np.int64] = bits[bits > 0]
        self.streamed = bits > 0

    # ------------------------------------------------------------------ time

    def netlist(self, name: str, actions: Mapping[str, Execute]) -> Netlist:
        """What the engines run."""
        machine = self.machine
        return Netlist(
            [*self._actors(actions), *self._selectors()],
            self._channels(),
            [Resource(name="dram")],
            machine.clock_hz,
            f"HeatViT {name}",
        )

    def _actors(self, actions: Mapping[str, Execute]) -> list[Actor]:
        width, post = self.machine.dram_bits_per_cycle, [tile.post for tile in self.tiles]

        def dma(label: str, moved: NDArray[np.int64], part: str) -> Actor:
            return Actor(name=label, busy=-(-moved // width), resource="dram", part=part)

        actors = [
            dma("image_dma", np.array([self.inputs * BITS]), "Input DMA"),
            Actor(
                name="engine",
                busy=[tile.cycles for tile in self.tiles],
                execute=actions.get("engine"),
                part="Matrix engine",
            ),
            Actor(
                name="post",
                busy=post,
                latency=[each + POST_STAGES for each in post],
                execute=actions.get("post"),
                part="Requantize, GELU, softmax",
            ),
            dma("output_dma", np.array([self.outputs * BITS]), "Output DMA"),
        ]
        if len(self.weight_bits):
            actors.insert(1, dma("weight_dma", self.weight_bits, "Weight DMA"))
        if self.dynamic:
            last = self.products[-1]
            results = -(
                -last.results
                // (min(last.heads, self.machine.parallel_heads) * self.machine.parallel_outputs)
            )
            actors.append(
                Actor(
                    name="rescale", busy=[results], latency=[results + POST_STAGES],
                    part="Requantize (ranges found in the run)",
                )
            )  # fmt: skip
        return actors

    def _selectors(self) -> list[Actor]:
        """A token a cycle is judged; a dropped one is added to the package, To features a cycle."""
        if not self.selections:
            return []
        judging = [
            s.seen + (s.seen - s.left) * -(-s.features // self.machine.parallel_outputs)
            for s in self.selections
        ]
        return [Actor(name="selector", busy=judging, part="Token selector")]

    def _channels(self) -> list[Channel]:
        first = np.zeros(len(self.tiles), np.int64)
        first[0] = 1
        whole = first[::-1].copy()
        plain = self.closes & ~self.judged
        plain[-1] = False
        follows = self.opens & ~self.after
        follows[0] = False

        def channel(
            name: str, source: str, target: str, *, produce: Any = 1, consume: Any = 1
        ) -> Channel:
            gives, takes = (np.asarray(rate, np.int64) for rate in (produce, consume))
            return Channel(
                name=name, source=source, target=target, capacity=1, produce=gives, consume=takes
            )

        found = [
            channel("image", "image_dma", "engine", consume=first),
            Channel(name="sums", source="engine", target="post", capacity=2),
            channel("result", "post", "engine", produce=plain, consume=follows),
        ]
        if len(self.weight_bits):
            found.append(channel("weights", "weight_dma", "engine", consume=self.streamed))
        if self.selections:
            found += [
                channel("scores", "post", "selector", produce=self.judged),
                channel("kept", "selector", "engine", consume=self.after),
            ]
        if not self.dynamic:
            return [*found, channel("logits", "post", "output_dma", produce=whole)]
        return [
            *found,
            channel("ranges", "post", "rescale", produce=whole),
            channel("logits", "rescale", "output_dma"),
        ]

    # ------------------------------------------------------------------ bits

    def account(self) -> Account:
        """The memories, and what the firings of each actor read and write there."""
        machine, last = self.machine, self.products[-1]
        held = max(
            p.heads * (p.m * p.k + p.m * p.n + (0 if p.weights else p.k * p.n)) * BITS
            for p in self.products
        )
        if self.dynamic:
            held = max(held, last.results * SUM_BITS)
        stores = [
            Store(
                name="weight_buffer",
                capacity_bits=machine.weight_buffer_kib * KIB,
                used_bits=min(2, len(self.tiles)) * max(tile.weight_bits for tile in self.tiles),
                source="assumed; one weight per multiplier and cycle is read",
            ),
            Store(
                name="activations",
                capacity_bits=BLOCK_RAM_KIB * KIB,
                used_bits=held,
                source="published: block RAM of the ZCU102; operands and results of a product",
            ),
            Store(name="dram", source="no size needed; weights once a product, image and result"),
        ]
        return Account(stores, [*self._dram_ports(), *self._chip_ports()])

    def _dram_ports(self) -> list[Port]:
        inputs, outputs = self.inputs * BITS, self.outputs * BITS
        ports = [
            Port(store="dram", actor="image_dma", read_bits=inputs),
            Port(store="activations", actor="image_dma", written_bits=inputs),
            Port(store="activations", actor="output_dma", read_bits=outputs),
            Port(store="dram", actor="output_dma", written_bits=outputs),
        ]
        if len(self.weight_bits):
            ports += [
                Port(store="dram", actor="weight_dma", read_bits=self.weight_bits),
                Port(store="weight_buffer", actor="weight_dma", written_bits=self.weight_bits),
            ]
        return ports

    def _chip_ports(self) -> list[Port]:
        """Each cycle takes the inputs of each part and a right operand for every multiplier."""
        machine = self.machine
        cycles = np.array([tile.cycles for tile in self.tiles])
        left, right = (
            cycles * machine.parallel_heads * machine.parallel_inputs * BITS,
            cycles * machine.multipliers * BITS,
        )
        bits = np.full(len(self.tiles), SUM_BITS if self.dynamic else BITS)
        made = bits * [tile.results for tile in self.tiles]
        inside = np.where(self.streamed, 0, right)
        ports = [
            Port(store="weight_buffer", actor="engine", read_bits=right - inside),
            Port(store="activations", actor="engine", read_bits=left + inside),
            Port(store="activations", actor="post", written_bits=made),
        ]
        if self.selections:
            dropped = [(s.seen - s.left) * s.features * BITS for s in self.selections]
            package = [s.features * BITS for s in self.selections]
            ports.append(
                Port(store="activations", actor="selector", read_bits=dropped, written_bits=package)
            )
        if self.dynamic:
            results = self.products[-1].results
            ports.append(
                Port(
                    store="activations", actor="rescale",
                    read_bits=results * SUM_BITS, written_bits=results * BITS,
                )
            )  # fmt: skip
        return ports
