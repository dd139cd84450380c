"""Cycles of a layer under a mapping in closed form, compiled: for :mod:`.cost` and the search.

A layer takes the longest of what the array, the bus and the places in the buffers need; what that
is, :mod:`.cost` says. Every piece of a datum counts as the mean of its pieces, every tile as the
mean of the tiles.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sparqsim.architectures.arrays.rules import BankTimes
from sparqsim.base import kernel

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Three = tuple[int, int, int]
Four = tuple[int, int, int, int]
Times = tuple[float, ...]
compiled = kernel(error_model="numpy", _nrt=False)  # nothing here owns memory


@compiled
def longest_of(
    trips: Ints, order: Ints, kept: Three, depends: Bools, counts: Four, places: Three, bus: Four,
    occupied: int, tail: float, last: Floats, banks: BankTimes,
) -> float:  # fmt: skip
    """Cycles of a layer, near a lower bound.

    Parameters
    ----------
    trips, order : int64 [5]
        Of the mapping, the order innermost first.
    kept : three int
        Loops for which each datum is kept.
    depends : bool [3, 5]
        ``DEPENDS``.
    counts : four int
        Groups, and pieces that are transferred of each datum.
    places : three int
        For pieces in each buffer.
    bus : four int
        Cycles of the bus for each datum, and for partial sums that come back.
    occupied, tail : int, float
        Cycles of the array, and of what follows its last step.
    last : float64 [2, 5]
        Share that the last tile along each loop has, of what is moved and of the array's time.
    banks : BankTimes
        What the DRAM takes beyond its bits.
    """
    tiles = counts[0]
    for loop in range(5):
        tiles *= trips[loop]
    each_tile = occupied / tiles
    moved: float = bus[0] + bus[1] + bus[2] + bus[3]
    lead = banks.load + bus[0] / counts[1] + bus[1] / counts[2] + each_tile + tail
    transfers = counts[1] + counts[2] + (bus[0] + bus[1]) / banks.transfer
    turned = banks.turn * _turns(counts, places, bus, lead, transfers)
    lost = turned + _clashes(counts, bus, banks)
    refreshes = max((moved + lost) // (banks.every - banks.refresh), occupied // banks.every)
    slower = 1 + refreshes * banks.refresh / max(moved + lost, occupied)
    slower *= (moved + lost - turned) / moved
    taken = (
        bus[0] * slower, bus[1] * slower, (bus[2] + turned) * slower, bus[3] * slower,
    )  # fmt: skip
    moved += turned
    load_in, load_w, store = taken[0] / counts[1], taken[1] / counts[2], taken[2] / counts[3]
    first, back, tail = banks.load + load_in + load_w, taken[3] / counts[3], tail + banks.store
    before, behind, life, held_in, held_w = _uncovered(
        trips, order, kept, depends, counts, places[2], taken, each_tile, last
    )
    busy = occupied + tail
    if banks.load > 0 and moved < occupied:
        held = (held_in, held_w, 1)
        busy += _interrupted(counts, places, held, taken, occupied, tail, refreshes, banks)
    longest = max(banks.load + before + store, first + behind) + busy
    # While the last tile is worked on, only stores that were put off can use the bus.
    end = max(0.0, each_tile + tail - (places[2] - 1) * store)
    longest = max(longest, banks.load + moved * slower + end)
    if bus[3] > 0:
        back += banks.load
        walked = _visited(trips[3], taken, occupied, last[0, 3], last[1, 3])
        evened = (places[0] - held_in) * load_in + (places[1] - held_w) * load_w
        evened += 2 * places[2] * taken[3] * trips[3] / (trips[3] - 1) / counts[3]
        longest = max(longest, walked - evened)
    waits = (moved * slower - taken[2]) / longest * min(store, banks.transfer) / 2
    turn = life * each_tile + tail + bus[2] / counts[3] + waits + back
    between = (taken[0] + taken[1]) / transfers + bus[2] / counts[3] + banks.turn
    taking_turns = _by_places(counts[3], places[2], occupied, turn, between, transfers, banks)
    rest = (counts[3] - 1) % places[2]
    return max(longest, first + taking_turns + (rest + life) * each_tile + tail + store)


@compiled
def _by_places(
    stores: int, places: int, occupied: int, turn: float, between: float, transfers: float,
    banks: BankTimes,
) -> float:  # fmt: skip
    """Cycles in which all places for outputs but those of the last round are taken and free again.

    A place is taken from the first tile of its outputs to their last, until they have left the
    array, waited for a transfer under way, and been stored; and read back. Where the array waits
    for places, what keeps a store from the bus keeps the array: a load between two stores, if both
    take longer than the places give, and a refresh.
    """
    turns = (stores - 1) // places
    turn += banks.turn / 2 - banks.opens
    cycles = turns * turn
    if turn * stores > places * occupied:
        cycles += max(0.0, between - turn / places) * min(transfers, turns * places)
        cycles += banks.refresh * turns * turn / banks.every
    return cycles


@compiled
def _clashes(counts: Four, bus: Four, banks: BankTimes) -> float:
    """Cycles lost because a stream's row was closed by another that was in its bank.

    Streams begin in different banks, and meet as one gets ahead of the other. They take turns as
    often as the rarer has a transfer.
    """
    inputs, weights = counts[1] + bus[0] / banks.transfer, counts[2] + bus[1] / banks.transfer
    outputs, back = counts[3] + bus[2] / banks.transfer, 0.0
    if bus[3] > 0:
        back = counts[3] + bus[3] / banks.transfer
    met = min(inputs, weights) * min(1.0, abs(bus[0] - bus[1]) / banks.round)
    met += min(inputs, outputs) * min(1.0, abs(bus[0] - bus[2]) / banks.round)
    met += min(weights, outputs) * min(1.0, abs(bus[1] - bus[2]) / banks.round)
    met += min(back, outputs) * min(1.0, abs(bus[3] - bus[2]) / banks.round)
    return banks.clash * min(2 * met, inputs + weights + outputs + back)


@compiled
def _turns(counts: Four, places: Three, bus: Four, lead: float, transfers: float) -> float:
    """Stores behind which something is still to be loaded.

    Loads lead by the cycles from the first of them to the first store, and by the places there are.
    """
    led = lead / (bus[0] + bus[1])
    if bus[3] > 0:
        led, transfers = 0.0, transfers + counts[3]
    led = min(led, places[0] / counts[1], places[1] / counts[2], 1.0)
    return min(counts[3] * (1 - led), transfers)


@compiled
def _interrupted(
    counts: Four, places: Three, held: Three, taken: Times, occupied: int, tail: float,
    refreshes: float, banks: BankTimes,
) -> float:  # fmt: skip
    """Cycles for which the array waits for a DRAM that has less to do than it.

    It goes on with what its buffers hold ahead, while the DRAM rests, or moves one transfer of
    another buffer that is not needed as soon.
    """
    load_in, load_w, store = taken[0] / counts[1], taken[1] / counts[2], taken[2] / counts[3]
    ahead_in = ahead_w = ahead_out = np.inf
    if counts[1] > places[0]:
        ahead_in = max(0.0, (places[0] - held[0]) * occupied / counts[1] - load_in - banks.load)
    if counts[2] > places[1]:
        ahead_w = max(0.0, (places[1] - held[1]) * occupied / counts[2] - load_w - banks.load)
    if counts[3] > places[2]:
        ahead_out = max(0.0, (places[2] - held[2]) * occupied / counts[3] - tail)
    many_in = counts[1] + taken[0] / banks.transfer
    many_w = counts[2] + taken[1] / banks.transfer
    cycles = refreshes * max(0.0, banks.refresh - min(ahead_in, ahead_w, ahead_out))
    cycles += many_in * max(0.0, taken[0] / many_in - ahead_w)
    cycles += many_w * max(0.0, taken[1] / many_w - ahead_in)
    return cycles + counts[3] * max(0.0, store - min(ahead_in, ahead_w))


@compiled
def _uncovered(
    trips: Ints, order: Ints, kept: Three, depends: Bools, counts: Four, places_out: int,
    bus: Times, each_tile: float, last: Floats,
) -> tuple[float, float, int, int, int]:  # fmt: skip
    """Cycles of loads before the array's work and of stores behind it, that it cannot cover.

    Loads come in the order of need. So before the last tile of the first round of a loop, and of
    the same round in the second and the last iteration of a loop outside it, all pieces that tiles
    up to there need must have come, and outputs been stored whose places they take. And the outputs
    of the last round, but those of its first tile, are stored behind that.

    Returns
    -------
    before, behind : float
    life : int
        Tiles from the first to the last that an output's place is taken by.
    held_in, held_w : int
        Pieces of a block.
    """
    load_in, load_w, store = bus[0] / counts[1], bus[1] / counts[2], bus[2] / counts[3]
    before, behind = load_in + load_w, store
    rounds, some_in, some_w, some_out = 1, 1, 1, 1  # tiles, and pieces that they are first to need
    held_in, held_w, life = 1, 1, 1
    for level in range(1, 7):
        again, new_in, new_w, new_out = counts[0], True, True, True
        last_load, last_time = 1 / again, 1 / again
        if level < 6:
            loop = order[level - 1]
            again, last_load, last_time = trips[loop], last[0, loop], last[1, loop]
            new_in = depends[0, loop] or level > kept[0]
            new_w = depends[1, loop] or level > kept[1]
            new_out = depends[2, loop] or level > kept[2]
            if loop == 3 and not new_out:
                life = rounds * (again - 1) + 1
        if again == 1:
            continue
        # Sizes of a tile before the last, and of the last, over the mean.
        whole = again * (1 - last_load) / (again - 1)
        whole_time = again * (1 - last_time) / (again - 1)
        inner, next_in, next_w, next_out = 1, int(new_in), int(new_w), int(new_out)
        for deeper in range(level):  # of the next iteration, the first round of a loop inside
            if deeper > 0:
                within = order[deeper - 1]
                inner *= trips[within]
                if depends[0, within] or deeper > kept[0]:
                    next_in *= trips[within]
                if depends[1, within] or deeper > kept[1]:
                    next_w *= trips[within]
                if depends[2, within] or deeper > kept[2]:
                    next_out *= trips[within]
            for gone in (1, again - 1):  # linear between
                size, time = whole, whole_time
                if gone == again - 1:
                    size, time = again * last_load, again * last_time
                come_in = (some_in * gone * whole if new_in else some_in) + next_in * size
                come_w = (some_w * gone * whole if new_w else some_w) + next_w * size
                left = (some_out * gone if new_out else some_out) + next_out - places_out
                waiting = come_in * load_in + come_w * load_w + max(0, left) * store
                worked = rounds * gone * whole_time + (inner - 1) * time
                before = max(before, waiting - each_tile * worked)
        rounds *= again
        if new_in:
            some_in *= again
            held_in *= again if level <= kept[0] else 1
        if new_w:
            some_w *= again
            held_w *= again if level <= kept[1] else 1
        if new_out:
            some_out *= again
        waiting = some_in * load_in + some_w * load_w + max(0, some_out - places_out) * store
        before = max(before, waiting - each_tile * (rounds - 1))
        behind = max(behind, some_out * store - each_tile * (rounds - 1))
    return before, behind, life, held_in, held_w


@compiled
def _visited(visits: int, bus: Times, occupied: int, last_load: float, last_time: float) -> float:
    """Cycles of a layer whose sums leave and come back, were visits not evened out by buffers.

    Before the first visit no sums come back, after the last outputs leave, not sums.
    """
    sums = bus[3] / (visits - 1)
    final = bus[2] - sums * (visits - 1)
    worked = (1 - last_time) / (visits - 1) * occupied
    loaded = (1 - last_load) / (visits - 1) * (bus[0] + bus[1])
    walked = max(worked, loaded + sums) + (visits - 2) * max(worked, loaded + 2 * sums)
    loaded = last_load * (bus[0] + bus[1])
    return walked + max(last_time * occupied, loaded + sums + final)
