"""The block diagram of a product on the GPU, and which of its firings move whose bits.

    launch -> issue -> dram_fetch -> l2_read -> sm_port => stages => mma -> epilogue -> store

One firing is one step of one SM (``dram_fetch``: a few steps, ``epilogue``: a tile, ``store``: a
part of one).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparqsim.architectures.account import Account, Port, Store
from sparqsim.architectures.sparse_tensor_core.config import (
    MOST_DRAM_HOLD,
    QUARTERS,
    REGISTERS_KIB,
)
from sparqsim.architectures.sparse_tensor_core.plan import Bank, Plan
from sparqsim.simulator.netlist import Actor, Channel, Execute, Netlist, Pattern, Resource


@dataclass(frozen=True, eq=False)
class BankTimes:
    """Cycles and bytes of every firing of a bank's actors.

    ``starts`` marks the steps of a tile that ask DRAM. Arrays are [firings, lanes]; ``fetched`` is
    [firings, 1], for misses of a wave are shared evenly.
    """

    plan: Plan
    bank: Bank

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        starts = np.zeros(self.plan.tiling.steps, np.int64)
        starts[:: self.plan.fetch_steps] = 1
        return starts

    @property
    def firings(self) -> int:
        """Steps of a lane."""
        return self.bank.tiles * self.plan.tiling.steps

    @cached_property
    def tile(self) -> NDArray[np.int64]:
        """Which tile a lane runs in each wave [waves, lanes]."""
        bank = self.bank
        waves = np.arange(bank.tiles)[:, None] * self.plan.lanes
        return waves + bank.first + np.arange(bank.lanes)

    @cached_property
    def moved(self) -> NDArray[np.float64]:
        """Bytes of each step from L2 to the SM."""
        return self._by_firing(self.plan.step_bytes)

    @cached_property
    def read(self) -> NDArray[np.float64]:
        """Bytes that L2 reads for each step."""
        return self._by_firing(self.plan.read_bytes)

    @property
    def filled(self) -> NDArray[np.float64]:
        """Bytes that shared memory takes in each step, zeros of padding among them."""
        return self._by_firing(self.plan.stage_bytes)

    def _by_firing(self, of_tiles: NDArray[np.float64]) -> NDArray[np.float64]:
        """What tiles and steps have [tiles, steps] by firings and lanes."""
        steps = of_tiles[self.tile].transpose(0, 2, 1)
        return steps.reshape(self.firings, self.bank.lanes)

    @cached_property
    def fetched(self) -> NDArray[np.float64]:
        """Bytes of each request to DRAM."""
        plan, steps = self.plan, self.plan.tiling.steps
        tiles = plan.tiles - np.arange(plan.waves) * plan.lanes
        share = plan.missed_bytes / (np.minimum(tiles, plan.lanes) * steps)
        per_fetch = np.diff(np.append(np.flatnonzero(self.starts), steps))
        return (share[: self.bank.tiles, None] * per_fetch).reshape(-1, 1)

    @cached_property
    def parts(self) -> int:
        """Parts in which L2 takes a tile's output in and writes it back."""
        dram = self.plan.cores.dram_bytes_per_cycle(self.plan.clock_hz)
        whole = math.ceil(self._tile_output.max() / dram / MOST_DRAM_HOLD)
        return max(1, min(self.plan.tiling.steps, whole))

    @cached_property
    def _tile_output(self) -> NDArray[np.int64]:
        """Bytes of each tile's output; of a split depth the last part writes it [waves, lanes]."""
        plan = self.plan
        size = plan.heights[self.tile] * plan.widths[self.tile] * plan.cores.kind.output_bytes
        return np.where(plan.order[self.tile, 1] == plan.tiling.splits - 1, size, 0)

    @cached_property
    def written(self) -> NDArray[np.float64]:
        """Bytes of each part of the output."""
        return np.repeat(self._tile_output / self.parts, self.parts, axis=0)


class Diagram:
    """The actors and channels of a product, and its account.

    Parameters
    ----------
    plan
        Its tiles.
    name
        Of the layer.
    actions
        What actors do with their tokens, by actor.
    """

    def __init__(self, plan: Plan, name: str, actions: Mapping[str, Execute]) -> None:
        self.plan, self.name, self.actions = plan, name, actions
        self.times = [BankTimes(plan, bank) for bank in plan.banks]
        worked = np.ones((plan.waves, plan.lanes), np.int64)
        if len(plan.banks) > 1:
            worked[-1, plan.banks[1].first :] = 0  # fires its steps there in no time
        self.worked = worked  # [waves, lanes]

    # ------------------------------------------------------------------ time

    def netlist(self) -> Netlist:
        """What the engines run."""
        plan, cores, t = self.plan, self.plan.cores, self.plan.tiling
        launch = max(1, math.ceil(plan.before_us * 1e-6 * plan.clock_hz))
        end = np.zeros(t.steps, np.int64)
        end[-1] = 1
        actors = [Actor(name="launch", firings=1, busy=launch, part="Kernel launch")]
        channels = []
        for times in self.times:
            actors += self._bank_actors(times)
            channels += self._bank_channels(times)
        shared = cores.shared_cycles(t) > cores.tensor_cycles(t)
        actors += [
            Actor(
                name="mma",
                lanes=plan.lanes,
                firings=plan.waves * t.steps,
                busy=cores.step_cycles(t) * np.repeat(self.worked, t.steps, axis=0),
                execute=self.actions.get("mma"),
                part="Shared memory (a step's fragments)" if shared else "Tensor cores",
            ),
            Actor(
                name="epilogue",
                lanes=plan.lanes,
                firings=plan.waves,
                busy=cores.epilogue_cycles(t) * self.worked,
                execute=self.actions.get("epilogue"),
                part="Epilogue",
            ),
        ]
        sums = Channel(
            name="sums", source="mma", target="epilogue", capacity=1,
            produce=np.tile(end, plan.waves),
        )  # fmt: skip
        channels.append(sums)
        if cores.kernels.stays:  # the warps that write an output are those that multiply
            begin = np.zeros((plan.waves, t.steps), np.int64)
            begin[1:, 0] = 1
            channels.append(
                Channel(
                    name="accumulators", source="epilogue", target="mma", capacity=1,
                    produce=(np.arange(plan.waves) < plan.waves - 1).astype(np.int64),
                    consume=begin.reshape(-1),
                )
            )  # fmt: skip
        return Netlist(
            actors,
            channels,
            [Resource(name="dram"), Resource(name="l2")],
            clock_hz=plan.clock_hz,
            name=f"tensor cores {self.name}",
        )

    def _bank_actors(self, times: BankTimes) -> list[Actor]:
        """What brings a bank's operands and takes its outputs away."""
        bank, gpu, x = times.bank, self.plan.cores.gpu, times.bank.suffix
        dram = self.plan.cores.dram_bytes_per_cycle(self.plan.clock_hz)
        fetch = whole_cycles(
            np.broadcast_to(times.fetched / dram, (len(times.fetched), bank.lanes))
        )
        l2 = self.plan.cores.l2_bytes_per_cycle(self.plan.clock_hz)
        read = whole_cycles(times.read / l2)
        store = whole_cycles(times.written / dram)
        port = np.maximum(1, np.ceil(times.moved / gpu.port_bytes_per_cycle)).astype(np.int64)
        starts = _firsts(times)
        if self.plan.cores.kernels.stays:
            starts[1:] = 0
        issue = np.where(starts, gpu.block_start_cycles, 1)
        beyond = np.where(times.fetched > 0, gpu.dram_latency_cycles - gpu.l2_latency_cycles, 0)

        def actor(name: str, busy: NDArray[np.int64], part: str, **more: Any) -> Actor:
            name += x
            execute = self.actions.get(name)
            return Actor(name=name, lanes=bank.lanes, busy=busy, part=part, execute=execute, **more)

        return [
            actor("issue", issue, "cp.async"),
            actor(
                "dram_fetch", fetch, "DRAM", latency=np.maximum(fetch + beyond, 1), resource="dram"
            ),
            actor("l2_read", read, "L2", latency=read + gpu.l2_latency_cycles, resource="l2"),
            actor("sm_port", port, "SM port"),
            actor("store", store, "DRAM", latency=store + gpu.dram_latency_cycles, resource="dram"),
        ]

    def _bank_channels(self, times: BankTimes) -> list[Channel]:
        """The ways of a bank's tokens to ``mma`` and back."""
        plan, bank, x, t = self.plan, times.bank, times.bank.suffix, self.plan.tiling
        first = _firsts(times)
        again = first.copy()
        again[0] = 0
        drained = (np.arange(bank.tiles * times.parts) % times.parts == 0).astype(np.int64)
        asks = np.tile(times.starts, bank.tiles)
        # An SM without a tile in the last wave takes and gives nothing there.
        there = (np.arange(plan.waves * t.steps) < times.firings).astype(np.int64)
        stored = (np.arange(plan.waves) < bank.tiles).astype(np.int64)
        followed = (np.arange(plan.waves) < bank.tiles - 1).astype(np.int64)

        def channel(name: str, source: str, target: str, capacity: int, **more: Any) -> Channel:
            return Channel(name=name + x, source=source, target=target, capacity=capacity, **more)

        def into(name: str, source: str, capacity: int) -> Channel:
            shift = {"pattern": Pattern.SHIFT, "offset": bank.first, "consume": there}
            return channel(name, source + x, "mma", capacity, **shift)

        def back(name: str, target: str, **more: Any) -> Channel:
            shift = {"pattern": Pattern.SHIFT, "offset": -bank.first}
            return channel(name, "epilogue", target + x, 1, **shift, **more)

        free = None
        if plan.cores.gpu.store_waits:
            written = np.arange(1, bank.tiles * times.parts + 1) % times.parts == 0
            written[-1] = False  # no tile follows the last
            free = channel(
                "free", f"store{x}", f"issue{x}", 1, produce=written.astype(np.int64), consume=again
            )
        elif not plan.cores.kernels.stays:
            free = back("free", "issue", produce=followed, consume=again)
        grid = {"pattern": Pattern.BROADCAST}
        return [
            channel("grid", "launch", f"issue{x}", 1, consume=first - again, **grid),
            channel("misses", f"issue{x}", f"dram_fetch{x}", t.stages, produce=asks),
            channel("asked", f"issue{x}", f"l2_read{x}", t.stages),
            channel("filled", f"dram_fetch{x}", f"l2_read{x}", t.stages, consume=asks),
            channel("sectors", f"l2_read{x}", f"sm_port{x}", t.stages),
            # A stage is taken when its copy is issued; the one being multiplied is not yet free.
            into("stages", "issue", t.stages - 1),
            into("arrived", "sm_port", t.stages),
            *([free] if free else []),
            back("output", "store", produce=stored, consume=drained),
        ]

    # ------------------------------------------------------------------ bits

    def account(self) -> Account:
        """The memories and the ports of every actor."""
        plan, gpu, t = self.plan, self.plan.cores.gpu, self.plan.tiling
        footprint, l2_bits = 8 * plan.footprint_bytes, int(gpu.l2_mib * 2**23)
        registers = gpu.sms * QUARTERS * REGISTERS_KIB * 8192
        sums = plan.lanes * 8 * plan.cores.epilogue_bytes(t)
        stores = [
            Store(
                name="registers", capacity_bits=registers, used_bits=sums,
                source="capacity published; accumulators of a tile an SM",
            ),
            Store(
                name="shared",
                capacity_bits=gpu.sms * gpu.shared_kib * 8192,
                used_bits=gpu.sms * plan.shared_bits,
                source="capacity published; fragments derived from the warp tile",
            ),
            Store(
                name="l2", capacity_bits=l2_bits, used_bits=min(footprint, l2_bits),
                source="capacity published; hits derived from tile order",
            ),
            Store(
                name="dram", capacity_bits=int(gpu.dram_gb * 8e9), used_bits=footprint,
                source="capacity published; misses derived from tile order",
            ),
        ]  # fmt: skip
        ports = self._sm_ports()
        for times in self.times:
            x = times.bank.suffix
            fetched, read, written = 8 * times.fetched, 8 * times.read, 8 * times.written
            ports += [
                Port(store="dram", actor=f"dram_fetch{x}", read_bits=fetched),
                Port(store="l2", actor=f"dram_fetch{x}", written_bits=fetched),
                Port(store="l2", actor=f"l2_read{x}", read_bits=read),
                Port(store="shared", actor=f"sm_port{x}", written_bits=8 * times.filled),
                Port(store="l2", actor=f"store{x}", read_bits=written, written_bits=written),
                Port(store="dram", actor=f"store{x}", written_bits=written),
            ]
        return Account(stores, ports)

    def _sm_ports(self) -> list[Port]:
        """What the tensor cores and epilogues of all SMs move; steps are whole, padding too."""
        plan, t = self.plan, self.plan.tiling
        step = plan.cores.step_bits(t)
        steps = np.repeat(self.worked, t.steps, axis=0)
        (read, written), (fragments, _) = step["registers"], step["shared"]
        sums = 8 * plan.cores.epilogue_bytes(t) * self.worked
        ports = [
            Port(
                store="registers", actor="mma", read_bits=read * steps, written_bits=written * steps
            ),
            Port(store="registers", actor="epilogue", read_bits=sums),
            Port(store="shared", actor="mma", read_bits=fragments * steps),
            Port(store="shared", actor="epilogue", read_bits=sums, written_bits=sums),
        ]
        if t.splits > 1:
            ports.append(Port(store="l2", actor="epilogue", read_bits=sums, written_bits=sums))
        return ports


def _firsts(times: BankTimes) -> NDArray[np.int64]:
    """Marks the first step of each tile of a lane."""
    first = np.zeros(times.firings, np.int64)
    first[:: times.plan.tiling.steps] = 1
    return first


def whole_cycles(cycles: NDArray[np.float64]) -> NDArray[np.int64]:
    """Whole cycles [firings, lanes], at least 1, whose running sums stay within one of the given.

    Lanes begin at different fractions, so that they do not all round up at once.
    """
    lanes = cycles.shape[1]
    before = np.cumsum(cycles, axis=0) + np.arange(lanes) / lanes
    whole = np.floor(before).astype(np.int64)
    return np.maximum(np.diff(whole, axis=0, prepend=0), 1)
