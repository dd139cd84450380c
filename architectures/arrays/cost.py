"""What a layer costs on an array under a mapping, in closed form.

A buffer holds *pieces*, a tile's worth of a datum each, loaded when a tile first needs them; the
pieces of a *block*, what the innermost ``kept`` loops need, stay until these loops have ended, and
take at most half the buffer: the pieces of the next block come into what is left. Then the DRAM's
bus and the array overlap but for what neither can avoid, and a layer takes the longest of

* the bus: every transfer takes its bits' cycles, one at least;
* the array, and before it the pieces that its first tile, or the first round of any loop, cannot do
  without, and behind it draining and storing the last;
* the outputs: a place in their buffer is free again when what was in it has left the array, passed
  the post-processing and been stored.

That is a lower bound of what the netlist of tiles (:mod:`.tiles`) takes, and near it. A DRAM with
rows and banks (:class:`~.rules.BankTimes`) moves whole bursts, some cycles after they are asked
for, loses some around a store between loads, and rests for refreshes; and where a buffer holds
little ahead, the array waits while the DRAM rests or moves what is needed later. The authors
of Bit Fusion and ANT have another one (:func:`published_cycles`): what fits half a buffer is loaded
before the first step, and the rest overlaps. :func:`cost` is the specification, in plain integers;
:mod:`.search` is the same arithmetic compiled.
"""

from __future__ import annotations

import functools
import itertools
import math

import msgspec
import numpy as np
from numpy.typing import NDArray

from sparqsim.architectures.arrays.kernels import longest_of
from sparqsim.architectures.arrays.rules import ArrayRules, Reuse, Side
from sparqsim.architectures.arrays.shapes import (
    DEPENDS,
    ConvShape,
    Datum,
    Loop,
    Mapping,
    Tile,
    needed,
    sizes_of,
)
from sparqsim.base import InputError
from sparqsim.simulator.energy.tables import EnergyTable

Ints = NDArray[np.int64]


class Residence(msgspec.Struct, frozen=True, kw_only=True):
    """What a buffer keeps of one datum.

    Attributes
    ----------
    piece_bits : int
        Room of one piece, at most.
    pieces : int
        Pieces of a block.
    held_bits : int
        Room of a block, at most half the buffer.
    blocks : int
        Blocks that are loaded, or stored, over the whole layer.
    places : int
        Pieces for which the whole buffer has room.
    moved_bits : int
        Bits that cross the DRAM's bus one way: loads of inputs and weights, stores of outputs.
    """

    piece_bits: int
    pieces: int
    held_bits: int
    blocks: int
    places: int
    moved_bits: int

    @property
    def transfers(self) -> int:
        """Pieces that are loaded, or stored."""
        return self.blocks * self.pieces

    @property
    def used_bits(self) -> int:
        """Bits of the buffer that are ever in use."""
        return -(-min(self.places, self.transfers) * self.held_bits // self.pieces)


class Traffic(msgspec.Struct, frozen=True, kw_only=True):
    """The eight counters of a layer, in bits."""

    input_buffer_read: int
    input_buffer_write: int
    weight_buffer_read: int
    weight_buffer_write: int
    output_buffer_read: int
    output_buffer_write: int
    dram_read: int
    dram_write: int


class Rates(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Energies an array machine's layer is charged: pJ a cycle and pJ a bit.

    The names of the eight per-bit rates are those of :class:`Traffic`.
    """

    core_static_per_cycle: float
    core_dynamic_per_compute_cycle: float
    dram_static_per_cycle: float
    input_buffer_read: float
    input_buffer_write: float
    weight_buffer_read: float
    weight_buffer_write: float
    output_buffer_read: float
    output_buffer_write: float
    dram_read: float
    dram_write: float

    @classmethod
    def of(cls, table: EnergyTable) -> Rates:
        """Take the rates from a table that has an entry of each name; 0 if it is not known."""
        entries = {field: table.entry(field) for field in cls.__struct_fields__}
        return cls(**{name: each.value if each.is_known else 0.0 for name, each in entries.items()})

    def __post_init__(self) -> None:
        for field in self.__struct_fields__:
            value = getattr(self, field)
            if not isinstance(value, int | float) or not 0 <= value < math.inf:
                raise InputError(
                    f"Rates.{field} must be a finite number of pJ, at least 0, got {value!r}"
                )


class Energy(msgspec.Struct, frozen=True, kw_only=True):
    """Energy of a layer by part, in nJ."""

    core_nj: float
    sram_nj: float
    dram_nj: float
    dram_static_nj: float

    @property
    def total_nj(self) -> float:
        """Sum of the parts."""
        return self.core_nj + self.sram_nj + self.dram_nj + self.dram_static_nj


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """What a layer costs under one mapping.

    Attributes
    ----------
    tiles : int
        Tiles walked, over all groups.
    compute_cycles : int
        Steps of all tiles.
    bubble_cycles : int
        Cycles the array waits to fill and drain, under the rules' :class:`~.rules.Drain`.
    stall_cycles : int
        Cycles beyond compute and bubbles: waiting for DRAM.
    residences : tuple of Residence
        Indexed by :class:`~.shapes.Datum`.
    traffic : Traffic
        The eight counters.
    """

    tiles: int
    compute_cycles: int
    bubble_cycles: int
    stall_cycles: int
    residences: tuple[Residence, Residence, Residence]
    traffic: Traffic

    @property
    def cycles(self) -> int:
        """Total cycles."""
        return self.compute_cycles + self.bubble_cycles + self.stall_cycles

    def energy(self, rates: Rates, cycles: int | None = None) -> Energy:
        """Price the traffic, and these cycles or, where a run took others, its."""
        taken = self.cycles if cycles is None else cycles
        moved = {
            field: getattr(self.traffic, field) * getattr(rates, field)
            for field in self.traffic.__struct_fields__
        }
        dram_pj = moved.pop("dram_read") + moved.pop("dram_write")
        core_pj = (
            rates.core_static_per_cycle * taken
            + rates.core_dynamic_per_compute_cycle * self.compute_cycles
        )
        return Energy(
            core_nj=core_pj / 1e3,
            sram_nj=sum(moved.values()) / 1e3,
            dram_nj=dram_pj / 1e3,
            dram_static_nj=rates.dram_static_per_cycle * taken / 1e3,
        )


@functools.lru_cache(maxsize=64)
def cost(shape: ConvShape, rules: ArrayRules, mapping: Mapping) -> Cost:
    """Return cycles and traffic of a layer under a given mapping.

    Raises
    ------
    InputError
        If a tile exceeds the layer, or what is kept does not fit half its buffer.
    """
    tiles = mapping.tiles(shape)
    kept = residences(shape, rules, mapping)
    steps, passes, occupied = _array(shape, rules, mapping)
    traffic = _traffic(shape, rules, mapping, kept)
    if rules.authors is not None:
        bubbles = occupied - steps
        if passes:  # the last pass is followed by no other
            bubbles -= _between_last(shape, rules, mapping)
        total = published_cycles(rules, kept, traffic, steps, bubbles)
        total += rules.last_drain(mapping.tile)
    else:
        bubbles = occupied - steps
        total = _cycles(shape, rules, mapping, kept, occupied)
    bubbles += rules.last_drain(mapping.tile)
    return Cost(
        tiles=tiles,
        compute_cycles=steps,
        bubble_cycles=bubbles,
        stall_cycles=total - steps - bubbles,
        residences=kept,
        traffic=traffic,
    )


# ---------------------------------------------------------------------- what is kept


def residences(
    shape: ConvShape, rules: ArrayRules, mapping: Mapping
) -> tuple[Residence, Residence, Residence]:
    """Return what each buffer keeps.

    Raises
    ------
    InputError
        If a tile exceeds the layer, or what is kept does not fit half its buffer.
    """
    found = [residence_of(datum, shape, rules, mapping) for datum in Datum]
    for datum, kept, room in zip(Datum, found, rules.usable_bits, strict=True):
        free = (
            rules.authors is not None and datum is Datum.OUTPUT
            and not rules.authors.output_tile_fits
        )  # fmt: skip
        if kept.held_bits > room and not free:
            raise InputError(
                f"the {datum.name.lower()}s kept must fit the usable {room} bits of their buffer, "
                f"but take {kept.held_bits}; choose a smaller tile than {mapping.tile}, or keep "
                f"them for fewer loops than {mapping.kept[datum]}"
            )
    return found[0], found[1], found[2]


def residence_of(datum: Datum, shape: ConvShape, rules: ArrayRules, mapping: Mapping) -> Residence:
    trips = mapping.trips(shape)
    pieces, blocks = 1, shape.groups
    for loop in Loop:
        if not mapping.keeps(datum, loop):
            blocks *= trips[loop]
        elif DEPENDS[datum][loop]:
            pieces *= trips[loop]
    room = 2 * rules.usable_bits[datum]
    if rules.authors is not None:  # a block is one piece
        held = pieces * rules.authors_bits(shape, mapping.tile)[datum]
        return Residence(
            piece_bits=held,
            pieces=1,
            held_bits=held,
            blocks=blocks,
            places=min(blocks, max(2, room // held)),
            moved_bits=held * blocks,
        )
    piece, held, moved = _bits(datum, shape, rules, mapping, trips, pieces)
    places = max(2 * pieces, room // piece)
    if datum is Datum.OUTPUT and visits(shape, mapping) > 1:
        # A sum is read back after it was stored: its place is taken no sooner.
        places = min(places, blocks * pieces // (shape.groups * trips[Loop.INPUTS]))
    return Residence(
        piece_bits=piece,
        pieces=pieces,
        held_bits=held,
        blocks=blocks,
        places=min(places, blocks * pieces),
        moved_bits=moved,
    )


def _bits(
    datum: Datum,
    shape: ConvShape,
    rules: ArrayRules,
    mapping: Mapping,
    trips: tuple[int, ...],
    pieces: int,
) -> tuple[int, int, int]:
    """Bits of a piece, of a block, and moved over the layer."""
    tile = mapping.tile
    if datum is Datum.OUTPUT:
        piece = rules.outputs_room(tile.pixels, tile.out_channels, trips[Loop.INPUTS] > 1)
        again = visits(shape, mapping) - 1
        moved = shape.outputs * (rules.output_bits + again * rules.sum_bits)
        return piece, pieces * piece, moved
    loads = shape.groups * math.prod(
        trips[loop] for loop in Loop if not DEPENDS[datum][loop] and not mapping.keeps(datum, loop)
    )
    if datum is Datum.WEIGHT:
        piece = rules.weights_room(shape, tile.in_channels, tile.out_channels)
        moved = sum(
            rules.weights_bits(shape, int(size), shape.out_channels)
            for size in sizes_of(shape.in_channels, tile.in_channels)
        )
        return piece, pieces * piece, loads * moved
    sides, held, moved = tile.batch * tile.in_channels, 1, shape.batch * shape.in_channels
    for loop, size in ((Loop.BATCH, tile.batch), (Loop.INPUTS, tile.in_channels)):
        held *= shape.extents[loop] if mapping.keeps(datum, loop) else size
    for loop, axis, size in (
        (Loop.ROWS, shape.rows, tile.out_height),
        (Loop.COLUMNS, shape.columns, tile.out_width),
    ):
        each, first = needed(axis, size)
        sides *= int(each.max())
        if mapping.keeps(datum, loop):  # what neighbours share is loaded once
            held, moved = held * int(first.sum()), moved * int(first.sum())
        else:
            held, moved = held * int(each.max()), moved * int(each.sum())
    # Outputs may depend on padding alone.
    piece, held = max(1, sides * rules.input_bits), max(1, held * rules.input_bits)
    return piece, held, loads * moved * rules.input_bits


def visits(shape: ConvShape, mapping: Mapping) -> int:
    """How often each output comes to its buffer: once, or once a tile of the reduction."""
    if mapping.keeps(Datum.OUTPUT, Loop.INPUTS):
        return 1
    return mapping.trips(shape)[Loop.INPUTS]


# ---------------------------------------------------------------------- the array


def _array(shape: ConvShape, rules: ArrayRules, mapping: Mapping) -> tuple[int, int, int]:
    """Steps and passes of all tiles, and the cycles they occupy the array."""
    if rules.authors is not None:
        sizes = mapping.tile.sizes
        times = rules.times(shape, *_arrays(mapping.tile.pixels, sizes[3], sizes[4]))
        tiles = mapping.tiles(shape)
        return int(times[0]) * tiles, int(times[1]) * tiles, int(times[2]) * tiles
    total = np.zeros(3, np.int64)
    counted = [
        list(zip(*np.unique(sizes_of(extent, size), return_counts=True), strict=True))
        for extent, size in zip(shape.extents, mapping.tile.sizes, strict=True)
    ]
    for parts in itertools.product(*counted):
        (b, w, h, channels, outputs), times = zip(*parts, strict=True)
        each = rules.times(shape, *_arrays(b * w * h, channels, outputs))
        total += np.array([int(number) for number in each]) * math.prod(int(t) for t in times)
    steps, passes, occupied = (int(number) * shape.groups for number in total)
    return steps, passes, occupied


def _arrays(*numbers: int) -> tuple[np.ndarray, ...]:
    return tuple(np.array(number, np.int64) for number in numbers)


def _between_last(shape: ConvShape, rules: ArrayRules, mapping: Mapping) -> int:
    """What the published models do not charge behind the very last pass."""
    sizes = mapping.tile.sizes
    steps, passes, _ = rules.times(shape, *_arrays(mapping.tile.pixels, sizes[3], sizes[4]))
    return int(rules.between(steps // passes))


def _traffic(
    shape: ConvShape,
    rules: ArrayRules,
    mapping: Mapping,
    kept: tuple[Residence, Residence, Residence],
) -> Traffic:
    inputs, weights, outputs = kept
    if rules.authors is not None:
        back = outputs.moved_bits if rules.authors.outputs_read_back else 0
    else:
        back = shape.outputs * (visits(shape, mapping) - 1) * rules.sum_bits
    reads, written = array_bits(shape, rules, mapping)
    return Traffic(
        input_buffer_read=reads[Datum.INPUT],
        input_buffer_write=inputs.moved_bits,
        weight_buffer_read=reads[Datum.WEIGHT],
        weight_buffer_write=weights.moved_bits,
        output_buffer_read=reads[Datum.OUTPUT] + outputs.moved_bits,
        output_buffer_write=written + back,
        dram_read=inputs.moved_bits + weights.moved_bits + back,
        dram_write=outputs.moved_bits,
    )


def array_bits(
    shape: ConvShape, rules: ArrayRules, mapping: Mapping
) -> tuple[tuple[int, int, int], int]:
    """Return the bits that the array reads from each buffer, and those it writes to outputs'.

    Inputs and weights are read, sums both read and written, once a multiply-accumulate; but the
    operand that stays in the processing elements once a tile. That is the authors' count.
    """
    tile, trips = mapping.tile, mapping.trips(shape)
    if rules.authors is not None:
        tiles = mapping.tiles(shape)
        pixels, outputs = tiles * tile.pixels, tile.out_channels
        reduction = shape.taps * tile.in_channels
        macs = pixels * outputs * reduction
        sums, once = pixels * outputs, (pixels * reduction, tiles * reduction * outputs)
    else:
        tiles_of_pixels = trips[Loop.BATCH] * trips[Loop.ROWS] * trips[Loop.COLUMNS]
        macs = shape.macs * rules.weights_of_group // rules.weight_group
        sums = shape.outputs * trips[Loop.INPUTS]
        if rules.scaled_channels:
            sums = shape.outputs * -(-shape.in_channels // rules.scaled_channels)
        unfolded = shape.macs // shape.out_channels
        once = (unfolded * trips[Loop.OUTPUTS], shape.weights * tiles_of_pixels)
    each = (
        macs * rules.input_bits,
        macs * rules.weight_bits // rules.weights_of_group,
        macs * rules.sum_bits,
    )
    weights_once = once[1] * rules.weight_bits // rules.weight_group
    kinds = {
        Reuse.OUTPUT: (each[0], each[1], sums * rules.sum_bits),
        Reuse.WEIGHT: (each[0], weights_once, each[2]),
        Reuse.INPUT: (once[0] * rules.input_bits, each[1], each[2]),
    }
    chosen = rules.reuse
    if chosen is Reuse.CHEAPEST:
        chosen = min(kinds, key=lambda kind: sum(kinds[kind]))
    reads = kinds[chosen]
    written = reads[2]
    if rules.authors is None and chosen is Reuse.OUTPUT and not rules.sums_in_buffer:
        # Sums are complete when they leave the elements, but for a split reduction.
        reads = (reads[0], reads[1], (sums - shape.outputs) * rules.sum_bits)
        if trips[Loop.INPUTS] == 1:
            written = shape.outputs * rules.output_bits
    return reads, written


# ---------------------------------------------------------------------- cycles


def published_cycles(
    rules: ArrayRules,
    kept: tuple[Residence, Residence, Residence],
    traffic: Traffic,
    steps: int,
    bubbles: int,
) -> int:
    """Cycles by the authors' models: the array and the bus overlap but for the first and last.

    The last drain comes on top.
    """
    assert rules.authors is not None
    inputs, weights, outputs = kept
    fill = inputs.held_bits + weights.held_bits
    fill += outputs.held_bits if rules.authors.outputs_read_back else 0
    store = outputs.held_bits if rules.authors.last_store_counted else 0
    latency = rules.bus_cycles(fill) + rules.bus_cycles(store)
    overlapped = traffic.dram_read + traffic.dram_write - fill - store
    array = steps + bubbles
    return array + max(0, rules.bus_cycles(overlapped) - array) + latency


def _cycles(
    shape: ConvShape,
    rules: ArrayRules,
    mapping: Mapping,
    kept: tuple[Residence, Residence, Residence],
    occupied: int,
) -> int:
    """The longest of bus, array and outputs; see the module."""
    visited, stores = visits(shape, mapping), kept[Datum.OUTPUT].transfers
    back = shape.outputs * (visited - 1) * rules.sum_bits
    backs = stores // visited * (visited - 1)
    bus = [rules.transfer_cycles(each.moved_bits, each.transfers) for each in kept]
    longest = longest_of.py_func(  # type: ignore[attr-defined]
        np.array(mapping.trips(shape)),
        np.array(mapping.order[::-1]),
        mapping.kept,
        np.array(DEPENDS),
        (shape.groups, *(each.transfers for each in kept)),
        tuple(each.places for each in kept),
        (*bus, rules.transfer_cycles(back, backs)),
        occupied,
        rules.tail_cycles(mapping.tile),
        _last_tiles(shape, rules, mapping.tile),
        rules.banks,
    )
    return math.ceil(longest)


def _last_tiles(shape: ConvShape, rules: ArrayRules, tile: Tile) -> NDArray[np.float64]:
    """Share that the last tile along each loop has: of what is moved, and of the array's time."""
    sizes = [sizes_of(*both) for both in zip(shape.extents, tile.sizes, strict=True)]
    one, shares = np.ones(1, np.int64), np.empty((2, len(Loop)))
    shares[:] = [each[-1] / each.sum() for each in sizes]
    for loop, side in ((Loop.INPUTS, Side.REDUCTION), (Loop.OUTPUTS, Side.OUTPUTS)):
        folds = rules.folds(shape, one, sizes[Loop.INPUTS], sizes[Loop.OUTPUTS])[side]
        shares[1, loop] = folds[-1] / folds.sum()
    return shares
