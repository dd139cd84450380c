"""The search over mappings, compiled: :func:`search_all`.

Its arithmetic is that of :func:`.cost.cost`, on sums that :mod:`.search` has made of every size of
a tile along each loop.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from sparqsim.architectures.arrays.kernels import Bools, Floats, Ints, Three, compiled, longest_of
from sparqsim.architectures.arrays.rules import POST_STAGES
from sparqsim.architectures.arrays.search_facts import Facts, Prices, Tables

ENOUGH_PLACES = 4


class Tiled(NamedTuple):
    """What is known of tiles before an order is chosen: of a piece, and of the layer.

    Attributes
    ----------
    piece_in, piece_w, piece_out : int
        Room of a piece in its buffer.
    least_in, least_w, least_out, least_back : int
        Bits that cross the bus if everything is moved once.
    occupied : int
        Cycles of the array.
    last_drain, tail : int
        Cycles behind the last step that are charged, and until results can be stored.
    least_cycles : int
        No order takes fewer.
    energy : float
        Of the array, and of what it reads and writes (pJ).
    """

    piece_in: int
    piece_w: int
    piece_out: int
    least_in: int
    least_w: int
    least_out: int
    least_back: int
    occupied: int
    last_drain: int
    tail: int
    least_cycles: int
    energy: float


class Walked(NamedTuple):
    """What an order makes of it: cycles, bits moved, and loops for which each datum is kept.

    ``slack`` is places for outputs, as far as more of them even out tiles of other sizes.
    """

    cycles: int
    moved: Three
    back: int
    kept: Three
    slack: int


@compiled
def _bus_cycles(f: Facts, bits: int, transfers: int) -> int:
    burst = f.banks.burst_bits
    if burst > 1 and transfers > 0:
        bits = transfers * -(-bits // (transfers * burst)) * burst
    return max(-(-bits * f.dram_cycles // f.dram_bits), transfers)


@compiled
def _behind(f: Facts, pixels: int, outputs: int) -> tuple[int, int]:
    """Cycles behind the last step of a tile: charged, and until its results can be stored."""
    drained = f.drain
    if f.skewed == 0:
        drained -= max(0, f.pixels_per_step - pixels)
    elif f.skewed == 1:
        drained -= max(0, f.outputs_per_step - outputs)
    return drained if f.drain_charged else 0, max(1, drained + f.exchange) + POST_STAGES


@compiled
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


@compiled
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


@compiled
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


@compiled
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


@compiled
def _priced(
    f: Facts, p: Prices, steps: int, macs: int, sums: int, in_once: int, w_once: int, split: bool
) -> float:
    """Energy of the array, and of what it reads and writes."""
    reads_in, reads_w, reads_out, writes = _array_reads(f, macs, sums, in_once, w_once, split)
    moved = reads_in * p.input_read + reads_w * p.weight_read
    return moved + reads_out * p.output_read + writes * p.output_write + steps * p.core_dynamic


@compiled
def _tiled(
    f: Facts, p: Prices, trips: Ints, batch: Ints, patch: Ints, channels: Ints, outputs: Ints
) -> Tiled:
    """Tiles of real data, as small at the edges as they are."""
    split = channels[1] > 1
    width = f.sum_bits if split or f.sums_in_buffer else f.output_bits
    steps, occupied = _array_times(f, batch, patch, channels, outputs)
    last_drain, tail = _behind(f, batch[0] * patch[0] * patch[6], outputs[0])
    least_in = f.groups * f.batch * patch[5] * patch[11] * f.in_channels * f.input_bits
    least_w = f.groups * channels[5] * f.out_channels
    least_out = f.outputs * f.output_bits
    w_once = f.weights * trips[0] * trips[1] * trips[2]
    sums = f.outputs * (f.scalings if f.scalings else trips[3])
    least = _bus_cycles(f, least_in + least_w + least_out, 0)
    return Tiled(
        piece_in=max(1, batch[0] * patch[3] * patch[9] * channels[0] * f.input_bits),
        piece_w=channels[4] * outputs[0],
        piece_out=batch[0] * patch[0] * patch[6] * outputs[4] * width,
        least_in=least_in,
        least_w=least_w,
        least_out=least_out,
        least_back=0,
        occupied=occupied,
        last_drain=last_drain,
        tail=tail,
        least_cycles=max(occupied + tail, least),
        energy=_priced(f, p, steps, f.macs, sums, f.unfolded * trips[4], w_once, split),
    )


@compiled
def _whole(
    f: Facts, p: Prices, trips: Ints, batch: Ints, patch: Ints, channels: Ints, outputs: Ints
) -> Tiled:
    """Tiles of the authors' models: all of them whole."""
    pixels, depth = batch[0] * patch[0] * patch[6], f.taps * channels[0]
    piece_in = batch[0] * patch[3] * patch[9] * channels[0] * f.input_bits
    if f.layout > 0:
        padded = -(-depth // f.granule) * f.granule if f.layout == 2 else depth
        piece_in = pixels * padded * f.input_bits
    piece_w, piece_out = channels[4] * outputs[0], pixels * outputs[4] * f.sum_bits
    of_pixels = f.groups * trips[0] * trips[1] * trips[2]
    tiles = of_pixels * trips[3] * trips[4]
    steps, occupied = _whole_times(f, pixels, channels, outputs, tiles)
    last_drain, tail = _behind(f, pixels, outputs[0])
    least_in, least_w = of_pixels * trips[3] * piece_in, f.groups * trips[3] * trips[4] * piece_w
    least_out = of_pixels * trips[4] * piece_out
    back = least_out if f.read_back else 0
    filling = _bus_cycles(f, piece_in + piece_w + (piece_out if f.read_back else 0), 0)
    least = _bus_cycles(f, least_in + least_w + least_out + back, 0)
    sums = tiles * pixels * outputs[0]
    w_once = tiles * depth * outputs[0]
    return Tiled(
        piece_in=piece_in,
        piece_w=piece_w,
        piece_out=piece_out,
        least_in=least_in,
        least_w=least_w,
        least_out=least_out,
        least_back=back,
        occupied=occupied,
        last_drain=last_drain,
        tail=tail,
        least_cycles=max(occupied + filling, least) + last_drain,
        energy=_priced(f, p, steps, sums * depth, sums, tiles * pixels * depth, w_once, False),
    )


@compiled
def _keep_inputs(
    f: Facts, trips: Ints, order: Ints, batch: Ints, patch: Ints, channels: Ints
) -> tuple[int, int, int, int]:
    """Loops that real inputs are kept for, pieces of a block, loads of a piece, and bits loaded.

    What neighbouring patches share is loaded once where they are of one block.
    """
    held_b, held_h, held_w, held_c = batch[0], patch[3], patch[9], channels[0]
    rows, columns = patch[4], patch[10]
    kept, pieces, loads = 0, 1, 1
    for place in range(5):
        loop = order[place]
        if kept == place:
            new_b = f.batch if loop == 0 else held_b
            new_w = patch[11] if loop == 1 else held_w
            new_h = patch[5] if loop == 2 else held_h
            new_c = f.in_channels if loop == 3 else held_c
            if new_b * new_h * new_w * new_c * f.input_bits <= f.input_room:
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
    bits = f.groups * f.batch * rows * columns * f.in_channels * f.input_bits * loads
    return kept, pieces, loads, bits


@compiled
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


@compiled
def _walk(
    f: Facts, tile: Tiled, trips: Ints, order: Ints, depends: Bools, batch: Ints, patch: Ints,
    channels: Ints, last: Floats,
) -> Walked:  # fmt: skip
    """Real tiles in an order."""
    kept_in, pieces_in, loads_in, moved_in = _keep_inputs(f, trips, order, batch, patch, channels)
    kept_w, pieces_w, loads_w = _keep(f.weight_room, tile.piece_w, depends[1], trips, order)
    kept_out, pieces_out, visits = _keep(f.output_room, tile.piece_out, depends[2], trips, order)
    moved_w = tile.least_w * loads_w
    back = f.outputs * (visits - 1) * f.sum_bits
    moved_out = f.outputs * f.output_bits + back
    of_pixels = f.groups * trips[0] * trips[1] * trips[2]
    stored = of_pixels * trips[4]
    loaded_in, loaded_w = of_pixels * trips[3] * loads_in, f.groups * trips[3] * trips[4] * loads_w
    places_out = max(2 * pieces_out, 2 * f.output_room // tile.piece_out)
    if visits > 1:
        places_out = min(places_out, stored // f.groups)
    stores = stored * visits
    places = (
        min(max(2 * pieces_in, 2 * f.input_room // tile.piece_in), loaded_in),
        min(max(2 * pieces_w, 2 * f.weight_room // tile.piece_w), loaded_w),
        min(places_out, stores),
    )
    bus = (
        _bus_cycles(f, moved_in, loaded_in),
        _bus_cycles(f, moved_w, loaded_w),
        _bus_cycles(f, moved_out, stores),
        _bus_cycles(f, back, stored * (visits - 1)),
    )
    kept = (kept_in, kept_w, kept_out)
    counts = (f.groups, loaded_in, loaded_w, stores)
    cycles = longest_of(
        trips, order, kept, depends, counts, places, bus, tile.occupied, tile.tail, last, f.banks
    )
    moved = (moved_in, moved_w, moved_out)
    return Walked(math.ceil(cycles), moved, back, kept, min(places[2], ENOUGH_PLACES))


@compiled
def _walk_whole(f: Facts, tile: Tiled, trips: Ints, order: Ints, depends: Bools) -> Walked:
    """Tiles of the authors' models in an order."""
    kept_in, pieces_in, loads_in = _keep(f.input_room, tile.piece_in, depends[0], trips, order)
    kept_w, pieces_w, loads_w = _keep(f.weight_room, tile.piece_w, depends[1], trips, order)
    kept_out, pieces_out, visits = _keep(f.output_room, tile.piece_out, depends[2], trips, order)
    moved = (tile.least_in * loads_in, tile.least_w * loads_w, tile.least_out * visits)
    cycles = _published(f, tile, (pieces_in, pieces_w, pieces_out), moved)
    back = moved[2] if f.read_back else 0
    return Walked(cycles, moved, back, (kept_in, kept_w, kept_out), 0)


@compiled
def _published(f: Facts, tile: Tiled, pieces: Three, moved: Three) -> int:
    """Cycles by the authors' models."""
    held_out = pieces[2] * tile.piece_out
    fill = pieces[0] * tile.piece_in + pieces[1] * tile.piece_w
    fill += held_out if f.read_back else 0
    store = held_out if f.last_store else 0
    busy = moved[0] + moved[1] + moved[2] + (moved[2] if f.read_back else 0) - fill - store
    latency = _bus_cycles(f, fill, 0) + _bus_cycles(f, store, 0)
    return max(tile.occupied, _bus_cycles(f, busy, 0)) + tile.last_drain + latency


@compiled
def _energy(p: Prices, tile: Tiled, cycles: int, moved: Three, back: int) -> float:
    """Energy of a layer (pJ)."""
    return (
        tile.energy
        + cycles * (p.core_static + p.dram_static)
        + moved[0] * (p.input_write + p.dram_read)
        + moved[1] * (p.weight_write + p.dram_read)
        + moved[2] * (p.output_read + p.dram_write)
        + back * (p.output_write + p.dram_read)
    )


@compiled
def _weighed(weigh: int, cycles: int, energy: float) -> float:
    """By cycles (0), energy (1) or their product (2)."""
    if weigh == 1:
        return energy
    return cycles * energy if weigh == 2 else float(cycles)


@compiled
def _offer(values: Floats, best: Ints, key: float, second: float, slack: int) -> int:
    """The place of a candidate among the best, made free for it; -1 if it is none of them."""
    count = len(values)
    last = values[count - 1]
    if key > last[0] or (key == last[0] and second > last[1]):
        return -1
    place = count - 1
    for k in range(count):
        if values[k, 0] == key and values[k, 1] == second:
            if slack <= values[k, 2]:
                return -1
            values[k, 2] = slack
            return k
        if key < values[k, 0] or (key == values[k, 0] and second < values[k, 1]):
            place = k
            break
    for k in range(count - 1, place, -1):
        for field in range(3):
            values[k, field] = values[k - 1, field]
        for field in range(13):
            best[k, field] = best[k - 1, field]
    values[place, 0], values[place, 1], values[place, 2] = key, second, slack
    return place


@compiled
def _last_tiles(f: Facts, sizes: Tables, last: Floats) -> None:
    """Write the share that the last tile along each loop has, of what is moved and of time."""
    last[0, 0] = sizes.batch[2] / f.batch
    last[0, 1] = sizes.patch[8] / ((sizes.patch[7] - 1) * sizes.patch[6] + sizes.patch[8])
    last[0, 2] = sizes.patch[2] / ((sizes.patch[1] - 1) * sizes.patch[0] + sizes.patch[2])
    last[0, 3] = 1 - (sizes.channels[1] - 1) * sizes.channels[0] / f.in_channels
    last[0, 4] = 1 - (sizes.outputs[1] - 1) * sizes.outputs[0] / f.out_channels
    for loop in range(3):
        last[1, loop] = last[0, loop]
    last[1, 3] = sizes.channels[7] / sizes.channels[2]
    last[1, 4] = sizes.outputs[5] / sizes.outputs[2]


@compiled
def _try_orders(
    f: Facts, p: Prices, tile: Tiled, trips: Ints, depends: Bools, orders: Ints, sizes: Tables,
    last: Floats, weigh: int, limit: float, best: Ints, values: Floats,
) -> None:  # fmt: skip
    """Offer the mappings of one tile in all orders; ``sizes`` holds its row of each table."""
    for row in range(len(orders)):
        order = orders[row]
        if f.authors:
            walked = _walk_whole(f, tile, trips, order, depends)
        else:
            walked = _walk(
                f, tile, trips, order, depends, sizes.batch, sizes.patch, sizes.channels, last
            )
        if walked.cycles > limit:
            continue
        energy = _energy(p, tile, walked.cycles, walked.moved, walked.back)
        key = _weighed(weigh, walked.cycles, energy)
        second = energy if weigh == 0 else float(walked.cycles)
        place = _offer(values, best, key, second, walked.slack)
        if place >= 0:
            made = best[place]
            made[0], made[1], made[2] = sizes.batch[0], sizes.patch[6], sizes.patch[0]
            made[3], made[4] = sizes.channels[0], sizes.outputs[0]
            for level in range(5):
                made[5 + level] = order[level]
            made[10], made[11], made[12] = walked.kept


@compiled
def search_all(
    f: Facts, p: Prices, tables: Tables, depends: Bools, orders: Ints, starts: Ints, weigh: int,
    limit: float, trips: Ints, last: Floats, best: Ints, values: Floats,
) -> None:  # fmt: skip
    """Find the best mappings: :func:`~.cost.cost` over all of them, compiled.

    Parameters
    ----------
    f, p, tables
        Of the layer and the array.
    depends, orders, starts
        ``DEPENDS``, and the orders worth trying by the set of loops that have one trip.
    weigh
        By cycles (0), energy (1) or their product (2); of equals, by energy (0) or cycles.
    limit
        Cycles at most.
    trips, last : int64 [5], float64 [2, 5]
        Scratch.
    best : int64 [count, 13]
        Written: of each the tile, the order, innermost loop first, and what is kept.
    values : float64 [count, 3]
        Written: what it is weighed by, first and second, and slack; infinite where there is none.
    """
    worst = len(values) - 1
    for x in range(len(tables.batch)):
        batch = tables.batch[x]
        trips[0] = batch[1]
        for y in range(len(tables.patch)):
            patch = tables.patch[y]
            trips[1], trips[2] = patch[7], patch[1]
            for z in range(len(tables.channels)):
                channels = tables.channels[z]
                trips[3] = channels[1]
                for v in range(len(tables.outputs)):
                    outputs = tables.outputs[v]
                    trips[4] = outputs[1]
                    if f.authors:
                        tile = _whole(f, p, trips, batch, patch, channels, outputs)
                    else:
                        tile = _tiled(f, p, trips, batch, patch, channels, outputs)
                    if tile.piece_in > f.input_room:
                        break
                    if tile.piece_w > f.weight_room or tile.least_cycles > limit:
                        continue
                    if tile.piece_out > f.output_room and f.tile_fits:
                        continue
                    # No order does better than moving everything once.
                    once = (tile.least_in, tile.least_w, tile.least_out)
                    least = _energy(p, tile, tile.least_cycles, once, tile.least_back)
                    if _weighed(weigh, tile.least_cycles, least) > values[worst, 0]:
                        continue
                    mask = 0
                    for loop in range(5):
                        if trips[loop] == 1:
                            mask |= 1 << loop
                    tried = orders[starts[mask] : starts[mask + 1]]
                    sizes = Tables(batch, patch, channels, outputs)
                    _last_tiles(f, sizes, last)
                    _try_orders(
                        f, p, tile, trips, depends, tried, sizes, last, weigh, limit, best, values
                    )
