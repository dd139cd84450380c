"""The DRAM of an array machine: a bus of so many bits a cycle, or rows and banks.

Pieces travel in transfers, small enough that another DMA, whose piece is needed sooner, soon gets
its turn.
"""

from __future__ import annotations

import functools
from typing import Any

import msgspec
import numpy as np

from sparqsim.architectures.arrays.rules import (
    TRANSFER_WORDS,
    ArrayRules,
    BankTimes,
    bandwidth,
)
from sparqsim.architectures.arrays.shapes import Datum
from sparqsim.simulator.engines import simulate
from sparqsim.simulator.loops import Loops, Paced
from sparqsim.simulator.memory.dram import Dram, Granularity
from sparqsim.simulator.netlist import Actor, Netlist, Resource

# assumed: of a channel with rows and banks; no divisor of a row, for a row is opened ahead of its
# first burst inside a transfer only
TRANSFER_BYTES = 4608
AFRESH_CYCLES = 4096  # assumed: of a layer, in which a stream starts in a new word once at most
MEASURED = 512  # transfers of the streams that are measured


class Bus:
    """DRAM as a server of so many bits a cycle: a transfer holds it for its words.

    A word may carry the end of one transfer and the beginning of the next of the same DMA, so that
    a stream takes the cycles of its bits; every transfer takes a cycle at least. Where a word is
    such that transfers hardly ever end with one, a stream starts in a new word in the iterations of
    a tile loop, the innermost that has one in 4096 of the layer's ``cycles`` or fewer: then
    its iterations are alike.
    """

    channels = ("",)

    def __init__(self, rules: ArrayRules, cycles: int) -> None:
        self.rules, self.often = rules, cycles // AFRESH_CYCLES
        self.resources = [Resource(name="dram")]
        self.most_bits = max(1, TRANSFER_WORDS * rules.dram_bits // rules.dram_cycles)

    def moves(self, bits: Loops, rank: Loops, datum: Datum, is_write: bool) -> list[dict[str, Any]]:
        """What makes an actor move so many bits a firing, one for each channel."""
        busy = Paced.of(bits, (self.rules.dram_bits, self.rules.dram_cycles), self.often)
        return [{"busy": busy, "rank": rank, "resource": "dram"}]


class Banks:
    """DRAM with its rows and banks: a transfer is one request per channel.

    Each buffer has a region of its own, in which its pieces lie in the order they are used
    (assumed); the regions begin in different banks, so that streams that keep in step do not close
    each other's rows. Transfers are whole bursts of every channel.
    """

    def __init__(self, dram: Dram, clock_hz: float) -> None:
        self.dram = dram
        self.resources = dram.resources(clock_hz)
        self.channels = tuple(str(c) if c else "" for c in range(dram.channels))
        timing = dram.timing
        self.grain = timing.burst_bytes * dram.channels
        self.most_bits = max(1, TRANSFER_BYTES // timing.burst_bytes) * self.grain * 8
        self.bank = timing.bursts_per_row * timing.bank_groups * self.grain  # to the next bank
        self.round = self.bank * timing.banks_per_group
        self.region = (dram.capacity_bytes // len(Datum) // self.round - 1) * self.round

    def moves(self, bits: Loops, rank: Loops, datum: Datum, is_write: bool) -> list[dict[str, Any]]:
        """What makes an actor move so many bits a firing, one for each channel."""
        each = bits.window(0, len(bits))
        size = -(-np.maximum(each, 1) // (8 * self.grain)) * self.grain
        begin = np.cumsum(size) - size
        # A transfer that would cross the end of the region starts over at its beginning.
        turn = begin % self.region + size > self.region
        first = datum * (self.region + self.round)
        first += datum * self.dram.timing.banks_per_group // len(Datum) * self.bank
        address = first + np.where(turn, 0, begin % self.region)
        requests = self.dram.requests(address, size, is_write, Granularity.TILE)
        return [
            {
                "firings": len(size),
                "rank": rank,
                "resource": resource.name,
                "request": mine,
            }
            for resource, mine in zip(self.resources, requests, strict=True)
        ]


def _seconds(dram: Dram, size: int, *stores: bool, count: int = MEASURED) -> float:
    """Time of so many transfers of that size on each channel, loads and stores by turns."""
    clock_hz = 1e12 / dram.timing.tCK_ps
    banks = Banks(dram, clock_hz)
    bits = Loops(((count,),), np.array([size * dram.channels * 8]))
    actors = []
    for is_write in stores:
        rank = Loops(((count,),), np.array([int(is_write)]), (2,))
        datum = Datum.OUTPUT if is_write else Datum.INPUT
        for channel, move in enumerate(banks.moves(bits, rank, datum, is_write)):
            actors.append(Actor(name=f"{datum.name} {channel}", **move))
    made = Netlist(actors, [], banks.resources, clock_hz=clock_hz)
    return simulate(made, record="summary").seconds


@functools.lru_cache(maxsize=64)
def _measured(dram: Dram) -> tuple[float, float, float, float]:
    """Bytes a second of a stream of loads; seconds of a load and of a store alone, and of a turn.

    What its channels do between refreshes. A turn is the time lost around a store between loads of
    another bank: two turns of the data bus.
    """
    rested, burst = msgspec.structs.replace(dram, refresh=False), dram.timing.burst_bytes
    rate = MEASURED * TRANSFER_BYTES * dram.channels / _seconds(rested, TRANSFER_BYTES, False)
    moved = burst * dram.channels / rate
    load, store = (_seconds(rested, burst, stores, count=1) - moved for stores in (False, True))
    turn = _seconds(rested, burst, False, True) / MEASURED - 2 * moved
    return rate, load, store, turn


def with_banks(rules: ArrayRules, dram: Dram, clock_hz: float) -> ArrayRules:
    """Rules whose bandwidth, waits and rests are those of a DRAM with rows and banks."""
    rate, *seconds = _measured(dram)
    tick, timing = 1e-12 * dram.timing.tCK_ps, dram.timing
    rests = (timing.tRFC * tick, timing.tREFI * tick) if dram.refresh else (0.0, tick)
    longest, around = TRANSFER_BYTES * dram.channels / rate, Banks(dram, clock_hz).round / rate
    opening = timing.tRCD_wr * tick
    clash = (timing.tRP + timing.tRCD_rd) * tick / timing.banks_per_group
    transfer, around, opens, clash, load, store, turn, refresh, every = (
        max(0.0, each * clock_hz) for each in (longest, around, opening, clash, *seconds, *rests)
    )
    bits, cycles = bandwidth(rate, clock_hz)
    times = BankTimes(
        burst_bits=8 * timing.burst_bytes * dram.channels,
        transfer=transfer,
        opens=opens,
        load=load,
        store=store,
        turn=turn,
        clash=clash,
        round=around,
        refresh=refresh,
        every=every,
    )
    return msgspec.structs.replace(rules, dram_bits=bits, dram_cycles=cycles, banks=times)
