"""The best mapping of a layer on an array: by cycles, energy, or both.

Tiles are tried along every loop (:func:`splits`), in every order in which the pixel loops lie
within each other (batch, rows, columns), each buffer keeping what fits half of it. What a mapping
costs is :func:`~.cost.cost`, compiled; lower bounds prune. Under ``cycles`` the mapping of least
energy among those within 0.1 % of the least cycles is taken, for a layer that waits for the DRAM
anyway should not pay more for it. Under the authors' models (``ArrayRules.authors``) tiles are
theirs, powers of two and square, in all 120 orders, and only among equal cycles energy decides.
"""

from __future__ import annotations

import enum
import functools
import itertools
import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sparqsim.architectures.arrays.cost import Rates, cost, residence_of
from sparqsim.architectures.arrays.rules import ArrayRules, Side
from sparqsim.architectures.arrays.search_facts import Facts, Prices, Tables
from sparqsim.architectures.arrays.search_kernels import search_all
from sparqsim.architectures.arrays.shapes import (
    DEPENDS,
    LOOPS,
    Axis,
    ConvShape,
    Datum,
    Loop,
    Mapping,
    Tile,
    needed,
    sizes_of,
)
from sparqsim.architectures.arrays.tiles import TiledNetlist, tile_netlist
from sparqsim.base import InputError
from sparqsim.simulator.engines import simulate
from sparqsim.simulator.memory.dram import Dram
from sparqsim.simulator.netlist import Netlist

Ints = NDArray[np.int64]
NEAR_TIE = 1e-3  # of cycles, within which energy decides
SPLITS = (*range(1, 9), 10, 12, 14, 16, 20, 24, 28, 32)  # tiles a loop; then powers of two


class Objective(enum.StrEnum):
    """What a mapping is chosen by."""

    CYCLES = "cycles"
    ENERGY = "energy"
    EDP = "edp"  # energy times cycles


def promoted(
    shape: ConvShape,
    rules: ArrayRules,
    tile: Tile,
    order: tuple[Loop, Loop, Loop, Loop, Loop],
) -> Mapping:
    """Keep in each buffer what fits half of it, for as many of the innermost loops as it does."""
    kept = [0, 0, 0]
    for datum in Datum:
        for loops in range(LOOPS + 1):
            tried = list(kept)
            tried[datum] = loops
            mapping = Mapping(tile=tile, order=order, kept=tuple(tried))  # type: ignore[arg-type]
            if residence_of(datum, shape, rules, mapping).held_bits > rules.usable_bits[datum]:
                break
            kept = tried
    return Mapping(tile=tile, order=order, kept=tuple(kept))  # type: ignore[arg-type]


# ---------------------------------------------------------------------- what is tried


def splits(extent: int, granule: int = 1) -> list[int]:
    """Sizes of tiles of one loop: equal parts, in whole granules where it has that many."""
    parts = [n for n in SPLITS if n <= extent]
    parts += [2**k for k in range(6, extent.bit_length()) if 2**k < extent] + [extent]
    sizes = {-(-extent // n) for n in parts}
    whole = {min(extent, -(-size // granule) * granule) for size in sizes}
    return sorted(whole | {size for size in sizes if size < granule}, reverse=True)


def powers(extent: int, granule: int = 1) -> list[int]:
    """The granule times powers of two, up to the first that reaches the extent, capped by it."""
    sizes = [granule]
    while sizes[-1] < extent:
        sizes.append(2 * sizes[-1])
    return sorted({min(size, extent) for size in sizes}, reverse=True)


def patches(shape: ConvShape, pixels: int) -> list[tuple[int, int]]:
    """Rows and columns of tiles: equal parts, and rows that just fill ``pixels`` a time."""
    found = set()
    for wide in splits(shape.out_width):
        for high in splits(shape.out_height):
            found.add((high, wide))
            for folds in (high * wide // pixels, -(-high * wide // pixels)):
                found.add((min(shape.out_height, max(1, folds * pixels // wide)), wide))
    return sorted(found, key=lambda pair: (-pair[0] * pair[1], -pair[1]))


@functools.lru_cache(maxsize=1024)
def _tables(shape: ConvShape, rules: ArrayRules) -> Tables:
    """The sizes to try along each loop."""
    batch, rows, columns, channels, outputs = (
        shape.batch, shape.rows, shape.columns, shape.in_channels, shape.out_channels,
    )  # fmt: skip
    whole = rules.authors is not None
    if whole:
        sides = powers(max(rows.outputs, columns.outputs))
        pairs = [(min(side, rows.outputs), min(side, columns.outputs)) for side in sides]
        tried = (powers(batch), pairs, powers(channels), powers(outputs, rules.output_granule))
    else:
        group = math.lcm(rules.weight_group, 1 if rules.taps_joined else rules.reduction_per_step)
        tried = (
            splits(batch),
            patches(shape, rules.pixels_per_step),
            [size for size in splits(channels, group) if _whole_groups(shape, rules, size)],
            splits(outputs, rules.output_granule),
        )
    pairs = list(dict.fromkeys(tried[1]))
    highs = {high: _axis(rows, high, whole) for high, _ in pairs}
    wides = {wide: _axis(columns, wide, whole) for _, wide in pairs}
    return Tables(
        batch=_table([_loop(batch, size) for size in tried[0]]),
        patch=_table([(*highs[high], *wides[wide]) for high, wide in pairs]),
        channels=_table([_channels(shape, rules, size) for size in tried[2]]),
        outputs=_table([_outputs(shape, rules, size) for size in tried[3]]),
    )


def _table(rows: list[tuple[int, ...]]) -> Ints:
    return np.array(rows, np.int64)


def _loop(extent: int, size: int) -> tuple[int, int, int]:
    trips = -(-extent // size)
    return size, trips, extent - (trips - 1) * size


def _axis(axis: Axis, size: int, whole: bool) -> tuple[int, ...]:
    each, first = needed(axis, size)
    most = axis.span(size) if whole else int(each.max())
    return (*_loop(axis.outputs, size), most, int(each.sum()), int(first.sum()))


def _stretched(rules: ArrayRules, side: Side, folds: Ints) -> Ints:
    """Cycles of passes whose streaming side has so many steps; else the folds as they are."""
    if rules.streams is not side:
        return folds
    if rules.scaled_channels and side is Side.REDUCTION:  # a pass is what is scaled at once
        each = np.array(rules.folds_of_scaled * rules.repeats, np.int64)
        return folds // rules.folds_of_scaled * (each + rules.between(each))
    return folds * rules.repeats + rules.between(folds * rules.repeats)


def _whole_groups(shape: ConvShape, rules: ArrayRules, channels: int) -> bool:
    """Whether tiles of so many channels cut none of those whose sum is scaled by itself."""
    if not rules.scaled_channels or channels == shape.in_channels:
        return True
    return channels % rules.scaled_channels == 0


def _channels(shape: ConvShape, rules: ArrayRules, size: int) -> tuple[int, ...]:
    sizes = sizes_of(shape.in_channels, size)
    one = np.ones(1, np.int64)
    folds = rules.folds(shape, one, sizes, one)[Side.REDUCTION]
    return (
        size,
        len(sizes),
        int(folds.sum()),
        int(_stretched(rules, Side.REDUCTION, folds).sum()),
        rules.weights_room(shape, size, 1),
        (len(sizes) - 1) * rules.weights_bits(shape, size, 1)
        + rules.weights_bits(shape, int(sizes[-1]), 1),
        int(folds[0]),
        int(folds[-1]),
    )


def _outputs(shape: ConvShape, rules: ArrayRules, size: int) -> tuple[int, ...]:
    sizes = sizes_of(shape.out_channels, size)
    folds = -(-sizes // rules.outputs_per_step)
    stretched = _stretched(rules, Side.OUTPUTS, folds)
    width = rules.outputs_room(1, size, True) // rules.sum_bits
    return size, len(sizes), int(folds.sum()), int(stretched.sum()), width, int(folds[-1])


@functools.cache
def _orders(authors: bool) -> tuple[Ints, Ints]:
    """Return the loop orders worth trying, by the set of loops that have one trip.

    A loop with one trip changes nothing wherever it stands: such loops stay innermost.

    Returns
    -------
    orders : int64, shape (count, 5)
        Innermost loop first.
    starts : int64, shape (33,)
        Orders of mask ``m`` (bit ``loop`` set where the loop has one trip) are rows
        ``starts[m]`` to ``starts[m + 1]``.
    """
    nested = (Loop.COLUMNS, Loop.ROWS, Loop.BATCH)  # innermost first
    rows: list[tuple[int, ...]] = []
    starts = [0]
    for mask in range(2**LOOPS):
        single = tuple(loop for loop in Loop if mask >> loop & 1)
        several = [loop for loop in Loop if not mask >> loop & 1]
        for order in itertools.permutations(several):
            pixels = [loop for loop in order if loop in nested]
            if authors or pixels == [loop for loop in nested if loop in pixels]:
                rows.append(single + order)
        starts.append(len(rows))
    return np.array(rows, np.int64), np.array(starts, np.int64)


class Seen(NamedTuple):
    """A mapping and what the closed form promises of it: cycles, and pJ."""

    mapping: Mapping
    cycles: float
    energy: float


def _found(
    shape: ConvShape, rules: ArrayRules, rates: Rates, weigh: int, limit: float, count: int
) -> list[Seen]:
    """The best mappings by cycles (0), energy (1) or both (2), of at most so many cycles."""
    best = np.zeros((count, 13), np.int64)
    values = np.full((count, 3), math.inf)
    prices = Prices(*(float(getattr(rates, field)) for field in rates.__struct_fields__))
    orders, starts = _orders(rules.authors is not None)
    search_all(
        Facts.of(shape, rules), prices, _tables(shape, rules), np.array(DEPENDS), orders, starts,
        weigh, limit, np.empty(LOOPS, np.int64), np.empty((2, LOOPS)), best, values,
    )  # fmt: skip
    found = []
    for row, (first, second, _) in zip(best.tolist(), values.tolist(), strict=True):
        if math.isinf(first):
            break
        mapping = Mapping(
            tile=Tile(**dict(zip(Tile.__struct_fields__, row[:5], strict=True))),
            order=tuple(Loop(loop) for loop in row[9:4:-1]),  # type: ignore[arg-type]
            kept=tuple(row[10:]),  # type: ignore[arg-type]
        )
        cycles, energy = (first, second) if weigh == 0 else (second, first)
        found.append(Seen(mapping, cycles, energy / cycles if weigh == 2 else energy))
    return found


@functools.lru_cache(maxsize=4096)
def seen(
    shape: ConvShape, rules: ArrayRules, rates: Rates, objective: Objective, count: int
) -> tuple[Seen, ...]:
    """The mappings that look best by the closed form, and what it promises, the best first.

    Raises
    ------
    InputError
        If not even the smallest tile fits the buffers.
    """
    weigh = list(Objective).index(objective)
    found = _found(shape, rules, rates, weigh, math.inf, count)
    if not found:
        raise InputError(
            f"no tile of {shape} fits buffers of {rules.usable_bits} usable bits "
            f"(input, weight, output); give the array larger buffers"
        )
    if objective is Objective.CYCLES and rules.authors is None:
        limit = found[0].cycles * (1 + NEAR_TIE)
        frugal = _found(shape, rules, rates, 1, limit, count)
        found = list({each.mapping: each for each in [*frugal, *found]}.values())
    return tuple(found)


def candidates(
    shape: ConvShape, rules: ArrayRules, rates: Rates, objective: Objective, count: int = 1
) -> tuple[Mapping, ...]:
    """The mappings that look best by the closed form (:func:`seen`), the best first."""
    return tuple(each.mapping for each in seen(shape, rules, rates, objective, count))


SETTLED = 8  # candidates that are simulated at most by each measure
SETTLED_TILES = 65_536  # assumed: of a candidate that is worth simulating
ROUNDING = 1e-9  # of energies, summed in another order


@functools.lru_cache(maxsize=SETTLED)
def netlist_of(
    shape: ConvShape,
    rules: ArrayRules,
    mapping: Mapping,
    clock_hz: float,
    dram: Dram | None = None,
) -> TiledNetlist:
    """The netlist of a mapping without tokens; remembered, with its sums once it has run."""
    return tile_netlist(shape, rules, mapping, clock_hz=clock_hz, dram=dram)


def _simulated(netlist: Netlist) -> int:
    """Cycles of a run, of which the netlist keeps the sums."""
    netlist.known["summary"] = timeline = simulate(netlist, record="summary")
    return timeline.cycles


@functools.lru_cache(maxsize=4096)
def best_mapping(
    shape: ConvShape,
    rules: ArrayRules,
    rates: Rates,
    objective: Objective,
    clock_hz: float,
    dram: Dram | None = None,
) -> Mapping:
    """Return the best mapping: those that look best are simulated, best first.

    The closed form is near a lower bound, so that no other can be better once one has taken what
    the next promises. Under the authors' models the closed form decides.

    Raises
    ------
    InputError
        If not even the smallest tile fits the buffers.
    """
    found = seen(shape, rules, rates, objective, SETTLED)
    if rules.authors is not None or len(found) == 1:
        return found[0].mapping
    promised = [_weight(objective, each.cycles, each.energy) for each in found]
    tried: list[tuple[float, float, Mapping]] = []  # what it is chosen by, first and second
    for (mapping, *_), promise in zip(found, promised, strict=True):
        least = min((weight for weight, _, _ in tried), default=math.inf)
        if least <= (1 + NEAR_TIE) * min(promised):
            break
        if promise > least * (1 + ROUNDING):
            continue
        priced = cost(shape, rules, mapping)
        cycles = priced.cycles
        if priced.tiles <= SETTLED_TILES:
            cycles = _simulated(netlist_of(shape, rules, mapping, clock_hz, dram).netlist)
        energy = 1e3 * priced.energy(rates, cycles).total_nj
        second = energy if objective is Objective.CYCLES else float(cycles)
        tried.append((_weight(objective, cycles, energy), second, mapping))
    least = min(weight for weight, _, _ in tried)
    tie = NEAR_TIE if objective is Objective.CYCLES else 0
    near = [one for one in tried if one[0] <= least * (1 + tie)]
    return min(near, key=lambda one: one[1])[2]


def _weight(objective: Objective, cycles: float, energy: float) -> float:
    return {
        Objective.CYCLES: float(cycles),
        Objective.ENERGY: energy,
        Objective.EDP: energy * cycles,
    }[objective]
