"""What is compiled of costs and of the search over mappings.

:func:`longest_of` is the closed form of a layer's cycles, for both :mod:`.cost` and the search;
:func:`search_all` is the search. Its arithmetic is that of :func:`.cost.cost`, on sums that
:mod:`.search` has made of every size of a tile along each loop.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sparqsim.architectures.arrays.rules import TRANSFER_WORDS, ArrayRules, Drain
from sparqsim.architectures.arrays.shapes import ConvShape
from sparqsim.base import kernel

Ints = NDArray[np.int64]
_compiled = kernel(error_model="numpy")


class Facts(NamedTuple):
    """What the kernels know of a layer and an array."""

    groups: int
    batch: int
    in_channels: int
    out_channels: int
    outputs: int
    macs: int  # that are multiplied
    weights: int
    unfolded: int  # inputs, each once for every output pixel and tap that needs it
    taps: int
    pixels_per_step: int
    outputs_per_step: int
    streams: int  # -1: a pass is a tile
    repeats: int
    granule: int
    input_bits: int
    weight_bits: int
    weight_group: int
    weights_of_group: int
    sum_bits: int
    output_bits: int
    sums_in_buffer: bool
    input_room: int
    weight_room: int
    output_room: int
    dram_bits: int
    dram_cycles: int
    store_cycles: int
    reuse: int
    short_passes: int  # cycles that a pass takes at least
    every_pass: int  # cycles lost between passes
    last_drain: int
    tail: int
    authors: bool
    layout: int
    read_back: bool
    last_store: bool
    tile_fits: bool

    @classmethod
    def of(cls, shape: ConvShape, rules: ArrayRules) -> Facts:
        """Gather them."""
        authors = rules.authors
        return cls(
            groups=shape.groups,
            batch=shape.batch,
            in_channels=shape.in_channels,
            out_channels=shape.out_channels,
            outputs=shape.outputs,
            macs=shape.macs * rules.weights_of_group // rules.weight_group,
            weights=shape.weights,
            unfolded=shape.macs // shape.out_channels,
            taps=shape.taps,
            pixels_per_step=rules.pixels_per_step,
            outputs_per_step=rules.outputs_per_step,
            streams=-1 if rules.streams is None else int(rules.streams),
            repeats=rules.repeats,
            granule=rules.reduction_granule,
            input_bits=rules.input_bits,
            weight_bits=rules.weight_bits,
            weight_group=rules.weight_group,
            weights_of_group=rules.weights_of_group,
            sum_bits=rules.sum_bits,
            output_bits=rules.output_bits,
            sums_in_buffer=rules.sums_in_buffer,
            input_room=rules.input_room_bits,
            weight_room=rules.weight_room_bits,
            output_room=rules.output_room_bits,
            dram_bits=rules.dram_bits,
            dram_cycles=rules.dram_cycles,
            store_cycles=rules.store_cycles,
            reuse=int(rules.reuse),
            short_passes=rules.exchange_cycles if rules.drain is Drain.SHORT_PASSES else 0,
            every_pass=rules.drain_cycles if rules.drain is Drain.PER_PASS else 0,
            last_drain=rules.last_drain,
            tail=rules.tail_cycles,
            authors=authors is not None,
            layout=int(authors.layout) if authors else 0,
            read_back=authors.outputs_read_back if authors else False,
            last_store=authors.last_store_counted if authors else False,
            tile_fits=authors.output_tile_fits if authors else True,
        )


@_compiled
def longest_of(
    trips: Ints, order: Ints, kept: Ints, depends: NDArray[np.bool_], counts: Ints, places: Ints,
    bus: Ints, occupied: int, tail: int, last_visit: float,
) -> float:  # fmt: skip
    """Cycles of a layer, a lower bound; see the module. Compiled by the search.

    Parameters
    ----------
    trips, order, kept : int64 [5], [5], [3]
        Of the mapping, the order innermost first.
    depends : bool [3, 5]
        ``DEPENDS``.
    counts : int64 [4]
        Groups, and pieces that are transferred of each datum.
    places : int64 [3]
        For pieces in each buffer.
    bus : int64 [4]
        Cycles of the bus for each datum, and for partial sums that come back.
    occupied, tail : int
        Cycles of the array, and of what follows its last step.
    last_visit : float
        Share of the reduction that the last tile along it has.
    """
    tiles = counts[0]
    for loop in range(5):
        tiles *= trips[loop]
    each_tile = occupied / tiles
    load_in, load_w, store = bus[0] / counts[1], bus[1] / counts[2], bus[2] / counts[3]
    # Loads come in the order of need. So before the last tile of the first round of a loop, and of
    # the same round in the second iteration of a loop outside it, all pieces that tiles up to there
    # need must have come, and outputs stored whose places they take. And the outputs of the last
    # round, but those of its first tile, are stored behind that.
    before, behind = load_in + load_w, store
    rounds, some_in, some_w, some_out = 1, 1, 1, 1  # tiles, and pieces that they are first to need
    held_in, held_w = 1, 1  # pieces of a block
    life = 1  # tiles from the first to the last that an output's place is taken by
    for level in range(1, 7):
        again, new_in, new_w, new_out = counts[0], True, True, True
        if level < 6:
            loop = order[level - 1]
            again = trips[loop]
            new_in = depends[0, loop] or level > kept[0]
            new_w = depends[1, loop] or level > kept[1]
            new_out = depends[2, loop] or level > kept[2]
            if loop == 3 and not new_out:
                life = rounds * (again - 1) + 1
        if again == 1:
            continue
        inner = 1
        next_in, next_w, next_out = int(new_in), int(new_w), int(new_out)
        for deeper in range(level):
            if deeper > 0:
                within = order[deeper - 1]
                inner *= trips[within]
                if depends[0, within] or deeper > kept[0]:
                    next_in *= trips[within]
                if depends[1, within] or deeper > kept[1]:
                    next_w *= trips[within]
                if depends[2, within] or deeper > kept[2]:
                    next_out *= trips[within]
            waiting = (some_in + next_in) * load_in + (some_w + next_w) * load_w
            waiting += max(0, some_out + next_out - places[2]) * store
            before = max(before, waiting - each_tile * (rounds + inner - 1))
        rounds *= again
        if new_in:
            some_in *= again
            held_in *= again if level <= kept[0] else 1
        if new_w:
            some_w *= again
            held_w *= again if level <= kept[1] else 1
        if new_out:
            some_out *= again
        waiting = some_in * load_in + some_w * load_w + max(0, some_out - places[2]) * store
        before = max(before, waiting - each_tile * (rounds - 1))
        behind = max(behind, some_out * store - each_tile * (rounds - 1))
    first = load_in + load_w
    longest = max(before + store, first + behind) + occupied + tail
    total = bus[0] + bus[1] + bus[2] + bus[3]
    # While the last tile is worked on, only stores that were put off can use the bus.
    longest = max(longest, total + max(0.0, each_tile + tail - (places[2] - 1) * store))
    if bus[3] > 0:
        # Visits differ: before the first no sums come back, after the last outputs leave, not sums.
        # Buffers even that out as far as they go.
        visits = trips[3]
        sums = bus[3] / (visits - 1)
        final = bus[2] - sums * (visits - 1)
        each = (1 - last_visit) / (visits - 1)
        loaded = each * (bus[0] + bus[1])
        walked = max(each * occupied, loaded + sums)
        walked += (visits - 2) * max(each * occupied, loaded + 2 * sums)
        loaded = last_visit * (bus[0] + bus[1])
        walked += max(last_visit * occupied, loaded + sums + final)
        evened = (places[0] - held_in) * load_in + (places[1] - held_w) * load_w
        evened += 2 * places[2] * sums * visits / counts[3]
        longest = max(longest, walked - evened)
    # A place for outputs is taken from their first tile to their last, until they have left the
    # array, waited for a transfer under way, and been stored; and read back.
    turn = life * each_tile + tail + store + bus[3] / counts[3]
    turn += (total - bus[2]) / longest * min(store, TRANSFER_WORDS) / 2
    turns, rest = (counts[3] - 1) // places[2], (counts[3] - 1) % places[2]
    last = (rest + life) * each_tile + tail + store
    return max(longest, first + turns * turn + last)


@_compiled
def _bus_cycles(f: Facts, bits: int, transfers: int) -> int:
    return max(-(-bits * f.dram_cycles // f.dram_bits), transfers)


@_compiled
def _pixels(f: Facts, batch: Ints, patch: Ints) -> tuple[int, int]:
    """Folds of pixels of all tiles, and the cycles of passes along them."""
    folds, occupied = 0, 0
    for part in range(8):
        b, h, w = part & 1, part >> 1 & 1, part >> 2
        times = (batch[1] - 1) if b == 0 else 1
        times *= (patch[1] - 1) if h == 0 else 1
        times *= (patch[7] - 1) if w == 0 else 1
        pixels = batch[2 * b] * patch[2 * h] * patch[6 + 2 * w]
        each = -(-pixels // f.pixels_per_step)
        folds += times * each
        if f.streams == 0:
            steps = each * f.repeats
            each = max(steps, f.short_passes) + f.every_pass
        occupied += times * each
    return folds, occupied


@_compiled
def _array_times(
    f: Facts, batch: Ints, patch: Ints, channels: Ints, outputs: Ints
) -> tuple[int, int]:
    """Steps of all tiles, and the cycles they occupy the array."""
    folds, occupied = _pixels(f, batch, patch)
    steps = f.groups * folds * channels[2] * outputs[2] * f.repeats
    if f.streams == 0:
        return steps, f.groups * occupied * channels[2] * outputs[2]
    if f.streams == 1:
        return steps, f.groups * folds * channels[2] * outputs[3]
    if f.streams == 2:
        return steps, f.groups * folds * channels[3] * outputs[2]
    tiles = f.groups * batch[1] * patch[1] * patch[7] * channels[1] * outputs[1]
    return steps, steps + tiles * f.every_pass


@_compiled
def _whole_times(
    f: Facts, pixels: int, channels: Ints, outputs: Ints, tiles: int
) -> tuple[int, int]:
    """As :func:`_array_times` of whole tiles, nothing lost behind the last pass."""
    along = -(-pixels // f.pixels_per_step)
    across = -(-outputs[0] // f.outputs_per_step)
    steps, passes = along * across * channels[6] * f.repeats, 1
    if f.streams == 0:
        passes = across * channels[6]
    elif f.streams == 1:
        passes = along * channels[6]
    elif f.streams == 2:
        passes = along * across
    lost = max(0, f.short_passes - steps // passes) + f.every_pass
    return tiles * steps, tiles * steps + (tiles * passes - 1) * lost


@_compiled
def _array_reads(
    f: Facts, macs: int, sums: int, in_once: int, w_once: int, split: bool
) -> tuple[int, int, int, int]:
    """Bits the array reads from each buffer, and writes to that of outputs."""
    reads_in, reads_w = macs * f.input_bits, macs * f.weight_bits // f.weights_of_group
    reads_out = macs * f.sum_bits
    out_once = sums * f.sum_bits
    in_once *= f.input_bits
    w_once = w_once * f.weight_bits // f.weight_group
    keep = f.reuse
    if keep == 0:
        keep, saved = 1, reads_out - out_once
        if reads_w - w_once > saved:
            keep, saved = 2, reads_w - w_once
        if reads_in - in_once > saved:
            keep = 3
    writes = reads_out
    if keep == 1:
        reads_out = writes = out_once
        if not f.authors and not f.sums_in_buffer:
            reads_out = (sums - f.outputs) * f.sum_bits
            if not split:
                writes = f.outputs * f.output_bits
    elif keep == 2:
        reads_w = w_once
    else:
        reads_in = in_once
    return reads_in, reads_w, reads_out, writes


@_compiled
def _keep_inputs(
    room: int,
    bits: int,
    batch: Ints,
    patch: Ints,
    channels: Ints,
    facts_batch: int,
    facts_channels: int,
    trips: Ints,
    order: Ints,
) -> tuple[int, int, int, int, int]:
    """Loops kept, pieces, reloads, and inputs a row and a column of the image are loaded for."""
    held_b, held_h, held_w, held_c = batch[0], patch[3], patch[9], channels[0]
    rows, columns = patch[4], patch[10]
    kept, pieces, loads = 0, 1, 1
    for place in range(5):
        loop = order[place]
        if kept == place:
            new_b = facts_batch if loop == 0 else held_b
            new_w = patch[11] if loop == 1 else held_w
            new_h = patch[5] if loop == 2 else held_h
            new_c = facts_channels if loop == 3 else held_c
            if new_b * new_h * new_w * new_c * bits <= room:
                held_b, held_h, held_w, held_c = new_b, new_h, new_w, new_c
                kept += 1
                if loop != 4:
                    pieces *= trips[loop]
                if loop == 1:
                    columns = patch[11]
                elif loop == 2:
                    rows = patch[5]
        if kept <= place and loop == 4:
            loads *= trips[loop]
    return kept, pieces, loads, rows, columns


@_compiled
def _keep(
    room: int, piece_bits: int, depends: Any, trips: Ints, order: Ints
) -> tuple[int, int, int]:
    """Loops kept, pieces of a block, and how often it is loaded (outputs: visited)."""
    kept, pieces, loads = 0, 1, 1
    for place in range(5):
        loop = order[place]
        if kept == place:
            grown = pieces * trips[loop] if depends[loop] else pieces
            if grown * piece_bits <= room:
                kept, pieces = kept + 1, grown
        if kept <= place and not depends[loop]:
            loads *= trips[loop]
    return kept, pieces, loads


@_compiled
def _published(f: Facts, held: Ints, moved: Ints, occupied: int) -> int:
    """Cycles by the authors' models."""
    fill = held[0] + held[1] + (held[2] if f.read_back else 0)
    store = held[2] if f.last_store else 0
    busy = moved[0] + moved[1] + moved[2] + (moved[2] if f.read_back else 0) - fill - store
    latency = _bus_cycles(f, fill, 0) + _bus_cycles(f, store, 0)
    return max(occupied, _bus_cycles(f, busy, 0)) + f.last_drain + latency


@_compiled
def _offer(values: Any, best: Any, key: float, cycles: int, energy: float) -> int:
    """The place of a candidate among the best, made free for it; -1 if it is none of them."""
    count = len(values)
    last = values[count - 1]
    if key > last[0] or (key == last[0] and energy >= last[2]):
        return -1
    place = count - 1
    for k in range(count):
        if values[k, 0] == key and values[k, 1] == cycles and values[k, 2] == energy:
            return -1
        if key < values[k, 0] or (key == values[k, 0] and energy < values[k, 2]):
            place = k
            break
    for k in range(count - 1, place, -1):
        values[k] = values[k - 1]
        best[k] = best[k - 1]
    values[place, 0], values[place, 1], values[place, 2] = key, cycles, energy
    return place


@_compiled
def search_all(
    f: Facts,
    prices: Any,
    batches: Ints,
    patches: Ints,
    channels: Ints,
    outputs: Ints,
    depends: Any,
    orders: Ints,
    starts: Ints,
    weigh: int,
    limit: float,
    best: Ints,
    values: Any,
) -> None:
    """Find the best mappings: :func:`~.cost.cost` over all of them, compiled.

    Parameters
    ----------
    f, prices
        Of the layer and array; :class:`~.cost.Rates` in their order.
    batches, patches, channels, outputs
        :class:`Tables`.
    depends, orders, starts
        ``DEPENDS`` and the two arrays of :func:`_orders`.
    weigh
        By cycles (0), energy (1) or their product (2); of equals, by energy.
    limit
        Cycles at most.
    best : int64 [count, 13]
        Written: of each the tile, the order, innermost loop first, and what is kept.
    values : float64 [count, 3]
        Written: what it is weighed by, cycles and energy (pJ); infinite where there is none.
    """
    trips = np.empty(5, np.int64)
    kept = np.empty(3, np.int64)
    held = np.empty(3, np.int64)
    moved = np.empty(3, np.int64)
    counts = np.empty(4, np.int64)
    places = np.empty(3, np.int64)
    bus = np.empty(4, np.int64)
    worst = len(values) - 1
    for x in range(len(batches)):
        batch = batches[x]
        trips[0] = batch[1]
        for y in range(len(patches)):
            patch = patches[y]
            trips[1], trips[2] = patch[7], patch[1]
            pixels = batch[0] * patch[0] * patch[6]
            for z in range(len(channels)):
                channel = channels[z]
                trips[3] = channel[1]
                piece_in = batch[0] * patch[3] * patch[9] * channel[0] * f.input_bits
                if f.authors and f.layout > 0:
                    depth = f.taps * channel[0]
                    if f.layout == 2:
                        depth = -(-depth // f.granule) * f.granule
                    piece_in = pixels * depth * f.input_bits
                if piece_in > f.input_room:
                    continue
                for v in range(len(outputs)):
                    output = outputs[v]
                    trips[4] = output[1]
                    piece_w = channel[4] * output[0]
                    split = channel[1] > 1
                    width = f.sum_bits
                    if not (split or f.sums_in_buffer or f.authors):
                        width = f.output_bits
                    piece_out = pixels * output[4] * width
                    if piece_w > f.weight_room or (piece_out > f.output_room and f.tile_fits):
                        continue
                    tiles = f.groups * trips[0] * trips[1] * trips[2] * trips[3] * trips[4]
                    if f.authors:
                        steps, occupied = _whole_times(f, pixels, channel, output, tiles)
                        macs = tiles * pixels * output[0] * f.taps * channel[0]
                        sums = tiles * pixels * output[0]
                        in_once = tiles * pixels * f.taps * channel[0]
                        w_once = tiles * f.taps * channel[0] * output[0]
                        least_in = f.groups * piece_in * trips[0] * trips[1] * trips[2] * trips[3]
                        least_w = f.groups * piece_w * trips[3] * trips[4]
                        least_out = f.groups * piece_out * trips[0] * trips[1] * trips[2] * trips[4]
                        least_back = least_out if f.read_back else 0
                        fill = piece_in + piece_w + (piece_out if f.read_back else 0)
                        filling = _bus_cycles(f, fill, 0)
                    else:
                        steps, occupied = _array_times(f, batch, patch, channel, output)
                        macs, sums = f.macs, f.outputs * trips[3]
                        in_once = f.unfolded * trips[4]
                        w_once = f.weights * trips[0] * trips[1] * trips[2]
                        image = patch[5] * patch[11]
                        least_in = f.groups * f.batch * image * f.in_channels * f.input_bits
                        least_w = f.groups * channel[5] * f.out_channels
                        least_out = f.outputs * f.output_bits
                        least_back = 0
                        filling = f.tail
                    # No order does better than moving everything once.
                    least = least_in + least_w + least_out + least_back
                    bound = max(occupied + filling, _bus_cycles(f, least, 0)) + f.last_drain
                    if not f.authors:
                        bound -= f.last_drain
                    if bound > limit:
                        continue
                    reads_in, reads_w, reads_out, writes = _array_reads(
                        f, macs, sums, in_once, w_once, split
                    )
                    fixed = (
                        reads_in * prices[3]
                        + reads_w * prices[5]
                        + reads_out * prices[7]
                        + writes * prices[8]
                        + steps * prices[1]
                    )
                    cheapest = (
                        fixed
                        + bound * (prices[0] + prices[2])
                        + least_in * (prices[4] + prices[9])
                        + least_w * (prices[6] + prices[9])
                        + least_out * (prices[7] + prices[10])
                        + least_back * (prices[8] + prices[9])
                    )
                    key = float(bound)
                    if weigh == 1:
                        key = cheapest
                    elif weigh == 2:
                        key = bound * cheapest
                    if key > values[worst, 0]:
                        continue
                    last = f.in_channels - (channel[1] - 1) * channel[0]
                    last_visit = last / f.in_channels
                    mask = 0
                    for loop in range(5):
                        if trips[loop] == 1:
                            mask |= 1 << loop
                    for row in range(starts[mask], starts[mask + 1]):
                        order = orders[row]
                        if f.authors:
                            kept[0], pieces_in, loads_in = _keep(
                                f.input_room, piece_in, depends[0], trips, order
                            )
                            rows, columns = 0, 0
                        else:
                            kept[0], pieces_in, loads_in, rows, columns = _keep_inputs(
                                f.input_room,
                                f.input_bits,
                                batch,
                                patch,
                                channel,
                                f.batch,
                                f.in_channels,
                                trips,
                                order,
                            )
                        kept[1], pieces_w, loads_w = _keep(
                            f.weight_room, piece_w, depends[1], trips, order
                        )
                        kept[2], pieces_out, visits = _keep(
                            f.output_room, piece_out, depends[2], trips, order
                        )
                        if f.authors:
                            moved[0] = least_in * loads_in
                            moved[1] = least_w * loads_w
                            moved[2] = least_out * visits
                            back = moved[2] if f.read_back else 0
                            held[0], held[1] = pieces_in * piece_in, pieces_w * piece_w
                            held[2] = pieces_out * piece_out
                            cycles = _published(f, held, moved, occupied)
                        else:
                            moved[0] = f.groups * f.batch * rows * columns * f.in_channels
                            moved[0] *= f.input_bits * loads_in
                            moved[1] = least_w * loads_w
                            moved[2] = f.outputs * (f.output_bits + (visits - 1) * f.sum_bits)
                            back = f.outputs * (visits - 1) * f.sum_bits
                            counts[0] = f.groups
                            stored = f.groups * trips[0] * trips[1] * trips[2] * trips[4]
                            counts[1] = f.groups * trips[0] * trips[1] * trips[2] * trips[3]
                            counts[1] *= loads_in
                            counts[2] = f.groups * trips[3] * trips[4] * loads_w
                            counts[3] = stored * visits
                            places[0] = max(2 * pieces_in, 2 * f.input_room // piece_in)
                            places[1] = max(2 * pieces_w, 2 * f.weight_room // piece_w)
                            places[2] = max(2 * pieces_out, 2 * f.output_room // piece_out)
                            if visits > 1:
                                places[2] = min(places[2], stored // f.groups)
                            for d in range(3):
                                bus[d] = _bus_cycles(f, moved[d], counts[d + 1])
                                places[d] = min(places[d], counts[d + 1])
                            bus[2] += counts[3] * f.store_cycles
                            bus[3] = _bus_cycles(f, back, stored * (visits - 1))
                            cycles = math.ceil(
                                longest_of(
                                    trips,
                                    order,
                                    kept,
                                    depends,
                                    counts,
                                    places,
                                    bus,
                                    occupied,
                                    f.tail,
                                    last_visit,
                                )
                            )
                        if cycles > limit:
                            continue
                        energy = (
                            fixed
                            + cycles * (prices[0] + prices[2])
                            + moved[0] * (prices[4] + prices[9])
                            + moved[1] * (prices[6] + prices[9])
                            + moved[2] * (prices[7] + prices[10])
                            + back * (prices[8] + prices[9])
                        )
                        key = float(cycles)
                        if weigh == 1:
                            key = energy
                        elif weigh == 2:
                            key = cycles * energy
                        place = _offer(values, best, key, cycles, energy)
                        if place >= 0:
                            best[place, 0], best[place, 1] = batch[0], patch[6]
                            best[place, 2], best[place, 3] = patch[0], channel[0]
                            best[place, 4] = output[0]
                            for k in range(5):
                                best[place, 5 + k] = order[k]
                            for k in range(3):
                                best[place, 10 + k] = kept[k]
