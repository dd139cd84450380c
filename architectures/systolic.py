"""Systolic arrays: what a grid of processing elements costs in cycles, whatever sits in them.

An ``R x C`` grid multiplies an ``M x K`` by a ``K x N`` matrix in *folds*, each a part of the
product that fits the grid. One operand stays put in a fold and gives the dataflow its name; the
third dimension streams through, one step a cycle:

    output stationary   ceil(M/R) ceil(N/C) folds of K steps; results stay, then leave
    weight stationary   ceil(K/R) ceil(N/C) folds of M steps; weights are loaded first, R cycles
    input stationary    ceil(K/R) ceil(M/C) folds of N steps; inputs are loaded first, R cycles

Operands enter skewed, a row or column a cycle later than its neighbour, so a fold's last result
leaves R + C - 2 cycles after its last step begins. Simulators differ by whether that, and the load,
are paid per fold (nothing overlaps), per layer (folds follow back to back) or not at all: here it
is a named :class:`Charge`, which reports must print. A second closed form, :func:`column_edge`, is
the clock edge of a tile's result in a column-accumulating array as RTL has it.

Both are proved by netlists of single processing elements, :func:`element_netlist`. A whole layer
runs at the level of tiles, :func:`tile_netlist`, one firing a tile:

    input_dma  => inputs  =>                                               (=> is a buffer: a ring
    weight_dma => weights => array -> drain -> post -> outputs => output_dma      of blocks)
    psum_dma   => psums   =>

All DMAs share the DRAM, a bus or rows and banks. A buffer is a ring of as many blocks as fit in it,
at least its two halves; a block's place is free again when the last tile that uses it has ended
(outputs: when they are stored). Tiles follow each other as in RTL, each occupying the array for its
steps, or longer where a pass is shorter than what must be shifted in or out behind it; what is left
of fill and drain is paid once, at the end. Source: SCALE-Sim 3's published equations (which count
from cycle 0 and so print one less), Bit Fusion's RTL.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from sparqsim.architectures.checks import check_whole
from sparqsim.architectures.tiling import (
    ArrayRules,
    ConvShape,
    Cost,
    Datum,
    Mapping,
    cost,
)
from sparqsim.base import InputError
from sparqsim.simulator.memory.dram import Dram, Granularity
from sparqsim.simulator.netlist import Actor, Channel, Execute, Netlist, Pattern, Resource

POST_STAGES = 3  # assumed: multiply, rounding shift, offset and clamp; a result a column and cycle
# assumed: weights come in pieces of so many words of the DRAM bus, between which the other DMAs,
# whose blocks are needed sooner, get their turn; but not the first block, for all wait for it.
# Chosen among 16 to 256 words by how near the events come to the authors' models; whole blocks were
# 5.9 % off on two Bit Fusion layers.
WEIGHT_PIECE_WORDS = 64

Ints = NDArray[np.int64]


class Dataflow(enum.StrEnum):
    """Which operand stays in the processing elements."""

    WEIGHT_STATIONARY = "ws"
    OUTPUT_STATIONARY = "os"
    INPUT_STATIONARY = "is"


class Charge(enum.StrEnum):
    """How often an overhead of the array is paid."""

    PER_FOLD = "per fold"
    PER_LAYER = "per layer"
    NONE = "none"


class NM(NamedTuple):
    """Structured sparsity: ``kept`` non-zeros in every group of ``of`` along the reduction."""

    kept: int
    of: int


class Folds(msgspec.Struct, frozen=True, kw_only=True):
    """How a product folds on the grid and what it costs.

    Attributes
    ----------
    across_rows, across_columns : int
        Folds along either side of the grid.
    steps : int
        Streaming steps of one fold.
    load_cycles, skew_cycles : int
        Loading the stationary operand, and filling and draining, over the whole layer as charged.
    used : int
        Cells of the grid in use, summed over all folds.
    cells : int
        Cells of the grid.
    """

    across_rows: int
    across_columns: int
    steps: int
    load_cycles: int
    skew_cycles: int
    used: int
    cells: int

    @property
    def count(self) -> int:
        """Number of folds."""
        return self.across_rows * self.across_columns

    @property
    def streaming_cycles(self) -> int:
        """Steps of all folds."""
        return self.count * self.steps

    @property
    def cycles(self) -> int:
        """Total cycles, counted from 1."""
        return self.streaming_cycles + self.load_cycles + self.skew_cycles

    @property
    def mapping_efficiency(self) -> float:
        """Mean fraction of the grid in use in a fold."""
        return self.used / (self.count * self.cells)


class SystolicGrid(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A grid of processing elements and when its overheads are paid.

    Attributes
    ----------
    rows, columns : int
        Size of the grid.
    dataflow : Dataflow
        What stays in the processing elements.
    skew : Charge
        When filling and draining, ``rows + columns - 2`` cycles, is paid.
    load : Charge
        When loading the stationary operand, ``rows`` cycles, is paid (not output stationary).
    """

    rows: int
    columns: int
    dataflow: Dataflow = Dataflow.WEIGHT_STATIONARY
    skew: Charge = Charge.PER_LAYER
    load: Charge = Charge.PER_LAYER

    def __post_init__(self) -> None:
        check_whole("SystolicGrid", rows=self.rows, columns=self.columns)

    def folds(self, m: int, n: int, k: int, sparsity: NM | None = None) -> Folds:
        """Fold an ``m x k`` by ``k x n`` product, ``n`` counting output channels.

        ``sparsity`` is of the weights along ``k``; a weight-stationary grid then holds kept
        weights only, ``k kept / of`` rows of them.

        Raises
        ------
        InputError
            If a dimension is not a whole number of at least 1, or the grid cannot skip.
        """
        check_whole("product", m=m, n=n, k=k)
        if sparsity is not None:
            k = self._compressed(k, sparsity)
        down, across, steps = {
            Dataflow.OUTPUT_STATIONARY: (m, n, k),
            Dataflow.WEIGHT_STATIONARY: (k, n, m),
            Dataflow.INPUT_STATIONARY: (k, m, n),
        }[self.dataflow]
        across_rows, across_columns = -(-down // self.rows), -(-across // self.columns)
        times = {Charge.PER_FOLD: across_rows * across_columns, Charge.PER_LAYER: 1, Charge.NONE: 0}
        loads = self.dataflow is not Dataflow.OUTPUT_STATIONARY
        return Folds(
            across_rows=across_rows,
            across_columns=across_columns,
            steps=steps,
            load_cycles=times[self.load] * self.rows if loads else 0,
            skew_cycles=times[self.skew] * (self.rows + self.columns - 2),
            used=down * across,
            cells=self.rows * self.columns,
        )

    def _compressed(self, k: int, sparsity: NM) -> int:
        kept, of = sparsity
        check_whole("NM", kept=kept, of=of)
        if kept > of:
            raise InputError(f"N:M sparsity keeps at most M of M, got {kept}:{of}")
        if self.dataflow is not Dataflow.WEIGHT_STATIONARY:
            raise InputError(
                f"{kept}:{of} weights are skipped by a weight-stationary grid only, "
                f"this one is {self.dataflow}"
            )
        return -(-k * kept // of)


def column_edge(*, tile: int, column: int, steps: int, rows: int) -> int:
    """Return the clock edge after which a tile's result in a column is final.

    Tiles of ``steps`` steps enter back to back; inputs move one column a cycle and partial sums
    ripple down ``rows`` rows into an accumulator a column. Tiles and columns count from 0.
    """
    return (tile + 1) * steps + rows + column


def back_to_back_cycles(*, tiles: int, steps: int, rows: int, columns: int) -> int:
    """Return the cycles of a run of equal tiles without a bubble: the last tile's last edge."""
    return column_edge(tile=tiles - 1, column=columns - 1, steps=steps, rows=rows)


class Stream(NamedTuple):
    """The transfers of one DMA: a firing each.

    ``bits`` each moves, in ``busy`` cycles of the bus; ``opens`` and ``closes`` are 1 for the first
    and last transfer of a block.
    """

    bits: Ints
    busy: Ints
    opens: Ints
    closes: Ints


def _stream(blocks: int, block_bits: int, width: int, piece_words: int | None = None) -> Stream:
    """Cut blocks that follow each other without a gap into bus words.

    A block's last word may carry the next block's first bits, so that a stream takes the cycles of
    its bits; every transfer takes a cycle at least.
    """
    pieces = np.ones(blocks, np.int64)
    if piece_words is not None:
        pieces[1:] = max(1, -(-block_bits // (width * piece_words)))
    block = np.repeat(np.arange(blocks), pieces)
    place = np.arange(len(block)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    ends = block * block_bits + (place + 1) * block_bits // pieces[block]
    ends = np.concatenate([[0], ends])
    busy = np.maximum(np.diff(-(-ends // width)), 1)
    closes = place == pieces[block] - 1
    return Stream(np.diff(ends), busy, (place == 0).astype(np.int64), closes.astype(np.int64))


def streams_of(analytic: Cost, rules: ArrayRules) -> dict[Datum, Stream]:
    """What crosses the DRAM's bus for each operand, one way; weights come in pieces."""
    return {
        datum: _stream(
            kept.transfers,
            kept.held_bits,
            rules.dram_bits_per_cycle,
            WEIGHT_PIECE_WORDS if datum is Datum.WEIGHT else None,
        )
        for datum, kept in zip(Datum, analytic.residences, strict=True)
    }


def _later(flags: Ints, free: int) -> Ints:
    """The flags without the first ``free`` that are set: so many places are free at the start."""
    waits = flags.copy()
    waits[np.flatnonzero(flags)[:free]] = 0
    return waits


class _Bus:
    """DRAM as a server of so many bits a cycle: a transfer holds it for its words."""

    channels = ("",)

    def __init__(self) -> None:
        self.resources = [Resource(name="dram")]

    def moves(self, stream: Stream, datum: Datum, is_write: bool) -> list[dict[str, Any]]:
        """What makes an actor move the stream, one for each channel."""
        return [{"busy": stream.busy, "resource": "dram"}]


class _Banks:
    """DRAM with its rows and banks: a transfer is one request a channel.

    Each buffer has a region of its own, in which its blocks lie in the order they are used
    (assumed); transfers are whole bursts of every channel.
    """

    def __init__(self, dram: Dram, clock_hz: float) -> None:
        self.dram = dram
        self.resources = dram.resources(clock_hz)
        self.channels = tuple(str(c) if c else "" for c in range(dram.channels))

    def moves(self, stream: Stream, datum: Datum, is_write: bool) -> list[dict[str, Any]]:
        """What makes an actor move the stream, one for each channel."""
        grain = self.dram.timing.burst_bytes * self.dram.channels
        size = -(-np.maximum(stream.bits, 1) // (8 * grain)) * grain
        region = self.dram.capacity_bytes // len(Datum) // grain * grain
        if size.max() > region:
            raise InputError(
                f"a transfer of {size.max()} bytes must fit a third of the DRAM's "
                f"{self.dram.capacity_bytes}; give it more channels"
            )
        begin = np.cumsum(size) - size
        # A block that would cross the end of the region starts over at its beginning.
        turn = begin % region + size > region
        address = datum * region + np.where(turn, 0, begin % region)
        requests = self.dram.requests(address, size, is_write, Granularity.TILE)
        return [
            {"firings": len(size), "resource": resource.name, "request": mine}
            for resource, mine in zip(self.resources, requests, strict=True)
        ]


class Dma(NamedTuple):
    """The actors, one a channel, that move an operand; ``stores`` if they write the DRAM."""

    datum: Datum
    actors: tuple[str, ...]
    stores: bool


class TiledNetlist(NamedTuple):
    """A layer at the level of tiles.

    ``analytic`` is what the analytic model says of it, ``dmas`` who moves the operands, and
    ``rescales`` who brings sums back and forth once their scale is known: the way ("read" or
    "written"), the actors, and all the bits they move.
    """

    netlist: Netlist
    analytic: Cost
    dmas: tuple[Dma, ...]
    rescales: tuple[tuple[str, tuple[str, ...], int], ...]


def tile_netlist(
    shape: ConvShape,
    rules: ArrayRules,
    mapping: Mapping,
    *,
    clock_hz: float,
    name: str = "tiles",
    dram: Dram | None = None,
    actions: Callable[[Cost], dict[str, Execute]] | None = None,
    rescale: tuple[int, int] | None = None,
) -> TiledNetlist:
    """A layer at the level of tiles, and what the analytic model says of it.

    Every tile takes the time of a whole one; a tile at the edge of a layer is padded.

    Parameters
    ----------
    dram
        Rows and banks instead of a bus of ``rules.dram_bits_per_cycle``; every DMA is then an
        actor a channel.
    actions
        Gives what ``array``, ``drain``, ``post`` and ``output_dma`` do with their tokens. The
        tokens of ``inputs`` and ``weights`` carry the number of the first tile of their block.
    rescale
        Bits of a sum and of an output: when the last output is stored as a sum, all of them are
        read again and written at their scale.

    Raises
    ------
    InputError
        If a tile exceeds the layer, or does not fit its buffer.
    """
    analytic = cost(shape, rules, mapping)
    trips = mapping.trips(shape)
    tiles, streams = analytic.tiles, streams_of(analytic, rules)
    steps, passes = rules.steps(shape, mapping.tile), rules.passes(shape, mapping.tile)
    between, _ = rules.bubbles(steps // passes)
    occupied = steps + passes * between
    run = {} if actions is None else actions(analytic)
    memory = _Bus() if dram is None else _Banks(dram, clock_hz)
    number = np.arange(tiles)
    opens, closes, places = {}, {}, {}
    for datum, kept in zip(Datum, analytic.residences, strict=True):
        each = math.prod(trips[loop] for loop in mapping.order[5 - kept.absorbed :])
        opens[datum] = (number % each == 0).astype(np.int64)
        closes[datum] = (number % each == each - 1).astype(np.int64)
        places[datum] = min(kept.transfers, 2 * rules.rooms[datum] // kept.held_bits)

    def dmas(label: str, datum: Datum, part: str, execute: Execute | None = None) -> list[Actor]:
        """An actor a channel; the first of them does what there is to do."""
        moves = memory.moves(streams[datum], datum, label == "output_dma")
        return [
            Actor(name=f"{label}{c}", part=part, execute=None if c else execute, **move)
            for c, move in zip(memory.channels, moves, strict=True)
        ]

    def reads(channel: str, datum: Datum) -> Execute | None:
        """Tokens that carry the first tile of their block."""
        ends, block = streams[datum].closes, np.cumsum(streams[datum].closes) - 1
        each = tiles // analytic.residences[datum].transfers

        def read(lane: int, firing: int, got: Any) -> dict[str, list[Any]]:
            return {channel: [int(block[firing]) * each]} if ends[firing] else {}

        return read if run else None

    actors = [
        *dmas("input_dma", Datum.INPUT, "Input DMA", reads("inputs", Datum.INPUT)),
        *dmas("weight_dma", Datum.WEIGHT, "Weight DMA", reads("weights", Datum.WEIGHT)),
    ]
    out, room = Datum.OUTPUT, places[Datum.OUTPUT]
    blocks = analytic.residences[out].transfers
    if rules.outputs_read_back:
        actors += dmas("psum_dma", out, "Partial sum DMA")
    actors += [
        Actor(
            name="array",
            firings=tiles,
            busy=occupied,
            execute=run.get("array"),
            part="Array",
        ),
        Actor(
            name="drain",
            firings=blocks,
            busy=0,
            latency=max(1, rules.drain_cycles + rules.exchange_cycles),
            execute=run.get("drain"),
            part="Array drain",
        ),
        # Results pass through it as they leave the array, a column's one a cycle: never slower
        # than they are computed. What is left is the way of the last one through its stages.
        Actor(
            name="post",
            firings=blocks,
            busy=POST_STAGES,
            execute=run.get("post"),
            part="Post-processing",
        ),
        *dmas("output_dma", out, "Output DMA", run.get("output_dma")),
    ]
    channels = [
        Channel(name="sums", source="array", target="drain", capacity=room, produce=closes[out]),
        Channel(name="drained", source="drain", target="post", capacity=room),
    ]
    for c in memory.channels:
        for label, datum in (("input", Datum.INPUT), ("weight", Datum.WEIGHT)):
            channels += [
                Channel(
                    name=f"{label}s{c}",
                    source=f"{label}_dma{c}",
                    target="array",
                    capacity=places[datum],
                    produce=streams[datum].closes,
                    consume=opens[datum],
                ),
                Channel(
                    name=f"{label}_place{c}",
                    source="array",
                    target=f"{label}_dma{c}",
                    capacity=places[datum],
                    produce=closes[datum],
                    consume=_later(streams[datum].opens, places[datum]),
                ),
            ]
        wants, place_for = "array", _later(opens[out], room)
        if rules.outputs_read_back:
            wants, place_for = f"psum_dma{c}", _later(streams[out].opens, room)
            channels.append(
                Channel(
                    name=f"psums{c}",
                    source=wants,
                    target="array",
                    capacity=room,
                    produce=streams[out].closes,
                    consume=opens[out],
                )
            )
        channels += [
            Channel(
                name=f"outputs{c}",
                source="post",
                target=f"output_dma{c}",
                capacity=room,
                consume=streams[out].opens,
            ),
            Channel(
                name=f"output_place{c}",
                source=f"output_dma{c}",
                target=wants,
                capacity=room,
                produce=streams[out].closes,
                consume=place_for,
            ),
        ]
    rescales: tuple[tuple[str, tuple[str, ...], int], ...] = ()
    if rescale is not None:
        rescales = _rescaled(
            shape, rules, rescale, memory, actors, channels, len(streams[out].bits)
        )
    netlist = Netlist(
        actors=actors,
        channels=channels,
        resources=memory.resources,
        clock_hz=clock_hz,
        name=name,
    )
    found = [
        Dma(datum, tuple(f"{label}{c}" for c in memory.channels), label == "output_dma")
        for label, datum in (
            ("input_dma", Datum.INPUT), ("weight_dma", Datum.WEIGHT),
            ("psum_dma", out), ("output_dma", out),
        )
        if label != "psum_dma" or rules.outputs_read_back
    ]  # fmt: skip
    return TiledNetlist(netlist, analytic, tuple(found), rescales)


def _rescaled(
    shape: ConvShape,
    rules: ArrayRules,
    widths: tuple[int, int],
    memory: _Bus | _Banks,
    actors: list[Actor],
    channels: list[Channel],
    stores: int,
) -> tuple[tuple[str, tuple[str, ...], int], ...]:
    """Bring all sums back once the last is stored, and write the outputs at their scale.

    Half an output buffer at a time; ``actors`` and ``channels`` are added to. ``stores`` is how
    many transfers store the sums.
    """
    count = shape.groups * shape.batch * shape.out_height * shape.out_width * shape.out_channels
    pieces = max(1, -(-count * widths[0] // rules.rooms[Datum.OUTPUT]))
    found = []
    for way, label, bits in (("read", "sum_dma", widths[0]), ("written", "scaled_dma", widths[1])):
        stream = _stream(pieces, -(-count * bits // pieces), rules.dram_bits_per_cycle)
        moves = memory.moves(stream, Datum.OUTPUT, way == "written")
        names = [f"{label}{c}" for c in memory.channels]
        actors += [
            Actor(name=name, part="Rescaling DMA", **move)
            for name, move in zip(names, moves, strict=True)
        ]
        found.append((way, tuple(names), count * bits))
    first = (np.arange(pieces) == 0).astype(np.int64)
    last = (np.arange(stores) == stores - 1).astype(np.int64)
    for c in memory.channels:
        channels += [
            Channel(
                name=f"all_stored{c}",
                source=f"output_dma{c}",
                target=f"sum_dma{c}",
                capacity=1,
                produce=last,
                consume=first,
            ),
            Channel(
                name=f"sums_back{c}", source=f"sum_dma{c}", target=f"scaled_dma{c}", capacity=2
            ),
        ]
    return tuple(found)


def accumulator_netlist(*, rows: int, columns: int, steps: int, tiles: int) -> Netlist:
    """Single elements of an array whose columns sum into accumulators, as Bit Fusion's.

    Actor ``row r`` has a lane an element; inputs shift from lane to lane, partial sums go down.
    Actor ``accumulators`` adds a column's sum every step; its firing ``(t + 1) steps - 1`` ends
    tile ``t``.
    """
    count = steps * tiles
    actors = [Actor(name=f"row {r}", lanes=columns, firings=count) for r in range(rows)]
    actors.append(Actor(name="accumulators", lanes=columns, firings=count))
    channels = [_shifted(f"inputs {r}", f"row {r}", 2) for r in range(rows)]
    channels += [
        Channel(name=f"sums {r}", source=f"row {r}", target=actors[r + 1].name, capacity=2)
        for r in range(rows)
    ]
    return Netlist(actors=actors, channels=channels, name="accumulating array")


def _shifted(name: str, actor: str, capacity: int) -> Channel:
    return Channel(
        name=name, source=actor, target=actor, capacity=capacity, pattern=Pattern.SHIFT, offset=1
    )


def element_netlist(grid: SystolicGrid, folds: Folds) -> Netlist:
    """Single elements of a grid working through the folds of a product.

    Actor ``row r`` has a lane an element and fires once a step. Both moving operands (or one and
    the partial sums) come from the left and from above, so operands enter skewed of themselves.
    A stationary operand comes in from the top through ``load r``, an element's next value waiting
    in it beside the one in use. Charged per fold, a fold begins when the last result of the one
    before is there; else folds follow each other, and the sums of an output-stationary grid
    leave through ``out r`` at the bottom, one row a cycle.

    Raises
    ------
    InputError
        If only one of two overheads is charged per fold.
    """
    rows, columns, count = grid.rows, grid.columns, folds.count
    stationary = grid.dataflow is not Dataflow.OUTPUT_STATIONARY
    apart = grid.skew is Charge.PER_FOLD
    if stationary and (grid.load is Charge.PER_FOLD) != apart:
        raise InputError("elements load and drain per fold both, or neither: charge them alike")
    first = np.tile(np.arange(folds.steps) == 0, count).astype(np.int64)
    last = np.tile(np.arange(folds.steps) == folds.steps - 1, count).astype(np.int64)
    actors = [Actor(name=f"row {r}", lanes=columns, firings=len(first)) for r in range(rows)]
    channels = [_shifted(f"right {r}", f"row {r}", 2) for r in range(rows) if columns > 1]
    channels += [
        Channel(name=f"down {r}", source=f"row {r}", target=f"row {r + 1}", capacity=2)
        for r in range(rows - 1)
    ]
    begins = "row 0"
    begin = _later(first, 1)
    if stationary:
        begins = "load 0"
        for r in range(rows):
            through = np.arange(count * (rows - r)) % (rows - r)
            keeps = (through == rows - r - 1).astype(np.int64)
            actors.append(Actor(name=f"load {r}", lanes=columns, firings=len(through)))
            channels.append(
                Channel(
                    name=f"held {r}",
                    source=f"load {r}",
                    target=f"row {r}",
                    capacity=1,
                    produce=keeps,
                    consume=first,
                )
            )
            if r + 1 < rows:
                channels.append(
                    Channel(
                        name=f"load {r} down",
                        source=f"load {r}",
                        target=f"load {r + 1}",
                        capacity=2,
                        produce=1 - keeps,
                    )
                )
        begin = _later((np.arange(count * rows) % rows == 0).astype(np.int64), 1)
    elif not apart:
        for r in range(rows):
            own = (np.arange(count * (r + 1)) % (r + 1) == 0).astype(np.int64)
            actors.append(Actor(name=f"out {r}", lanes=columns, firings=len(own)))
            channels.append(
                Channel(
                    name=f"result {r}",
                    source=f"row {r}",
                    target=f"out {r}",
                    capacity=1,
                    produce=last,
                    consume=own,
                )
            )
            if r:
                channels.append(
                    Channel(
                        name=f"out {r - 1} down",
                        source=f"out {r - 1}",
                        target=f"out {r}",
                        capacity=2,
                        consume=1 - own,
                    )
                )
    if apart and count > 1:
        channels.append(
            Channel(
                name="fold done",
                source=f"row {rows - 1}",
                target=begins,
                capacity=2,
                pattern=Pattern.SHIFT,
                offset=1 - columns,
                produce=last,
                consume=begin,
            )
        )
    return Netlist(actors=actors, channels=channels, name=f"{grid.dataflow} elements")
