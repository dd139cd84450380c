"""A layer as a netlist at the level of tiles, one firing of the array a tile.

    input_dma  => inputs  =>                                               (=> is a buffer: a ring
    weight_dma => weights => array -> drain -> post -> outputs => output_dma      of pieces)
    psum_dma   => psums   =>

A tile needs a piece of inputs and one of weights; the first tile that needs one takes it from the
ring, and its place is free again when the block it belongs to has ended (outputs: when they are
stored). Tiles follow each other as in RTL, each occupying the array for its steps, or longer where
a pass is shorter than what must be shifted in or out behind it; what is left of fill and drain is
paid once, at the end. Partial sums that do not stay are stored, and read back before the array adds
to them.

All DMAs share the DRAM, a bus or rows and banks. Pieces travel in transfers of some words, and of
the transfers that wait the one goes first which the earliest tile waits for: loads for the tile
that first needs them, stores for the one that will take their place.

Every array of work here is an outer product over the loops, so that it repeats as they do.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sparqsim.architectures.arrays.cost import Cost, cost
from sparqsim.architectures.arrays.memory import Banks, Bus, Transfers, transfers
from sparqsim.architectures.arrays.rules import POST_STAGES, ArrayRules
from sparqsim.architectures.arrays.shapes import (
    DEPENDS,
    ConvShape,
    Datum,
    Loop,
    Mapping,
    needed,
    sizes_of,
)
from sparqsim.simulator.memory.dram import Dram
from sparqsim.simulator.netlist import Actor, Channel, Execute, Netlist

Ints = NDArray[np.int64]


class Pieces(NamedTuple):
    """The pieces of one datum in the order in which tiles first need them.

    Attributes
    ----------
    bits : int64 [pieces]
        What is loaded, or stored.
    first : int64 [pieces]
        The first tile that needs each.
    opens, closes : int64 [tiles]
        Pieces that a tile is the first to need, and that end with it.
    slots : int64 [tiles]
        Which piece of its block each tile needs.
    back : int64 [pieces]
        Bits of partial sums that are read back before (outputs).
    """

    bits: Ints
    first: Ints
    opens: Ints
    closes: Ints
    slots: Ints
    back: Ints


class Walk:
    """The tiles of a layer in their order, and the pieces they need.

    Parameters
    ----------
    shape, rules, mapping
        Which ``analytic`` costs.
    most_bits
        Of a transfer.

    Attributes
    ----------
    pieces : dict
        :class:`Pieces` of each datum.
    streams : dict
        What each DMA moves, by its name; the rank of a load is the tile that first needs it.
    """

    def __init__(
        self, shape: ConvShape, rules: ArrayRules, mapping: Mapping, most_bits: int
    ) -> None:
        self.shape, self.rules, self.mapping = shape, rules, mapping
        self.analytic = cost(shape, rules, mapping)
        self.trips = mapping.trips(shape)
        self.counts = (shape.groups, *(self.trips[loop] for loop in mapping.order))
        self.tiles = self.analytic.tiles
        self.pieces = {datum: self._pieces(datum) for datum in Datum}
        loads = {"input_dma": Datum.INPUT, "weight_dma": Datum.WEIGHT}
        self.streams = {
            name: transfers(self.pieces[datum].bits, self.pieces[datum].first, most_bits)
            for name, datum in loads.items()
        }
        outputs = self.pieces[Datum.OUTPUT]
        again = outputs.back > 0
        self.streams["psum_dma"] = transfers(outputs.back[again], outputs.first[again], most_bits)
        # A store is waited for by the tile that will take its place.
        waits = np.full(len(outputs.bits), self.tiles)
        places = self.analytic.residences[Datum.OUTPUT].places
        waits[: max(0, len(waits) - places)] = outputs.first[places:]
        self.streams["output_dma"] = transfers(outputs.bits, waits, most_bits)

    @property
    def tiles_of_sums(self) -> int:
        """Tiles that may hold sums of one piece: all of its block, where that is one piece."""
        if self.rules.authors is None:
            return 1
        return self.tiles // self.analytic.residences[Datum.OUTPUT].blocks

    def outer(self, parts: dict[Loop, Ints], over: set[Loop] | None = None) -> Ints:
        """The outer product of a vector a loop, in the order of the walk.

        A loop without a vector repeats it, or stays at its first iteration if it is not in
        ``over``.
        """
        found = np.ones((1,) * len(self.counts), np.int64)
        extents = [self.shape.groups]
        for axis, loop in enumerate(self.mapping.order, start=1):
            extents.append(self.trips[loop] if over is None or loop in over else 1)
            if loop in parts:
                found = found * parts[loop].reshape(-1, *(1,) * (len(self.counts) - 1 - axis))
        return np.broadcast_to(found, extents).reshape(-1)

    def first(self, over: set[Loop]) -> Ints:
        """Number of the tile at each place of the loops in ``over``, the others at their first."""
        number = np.arange(self.tiles).reshape(self.counts)
        for axis, loop in enumerate(self.mapping.order, start=1):
            if loop not in over:
                number = number.take([0], axis)
        return number.reshape(-1)

    def occupied(self) -> Ints:
        """Cycles for which each tile occupies the array."""
        sizes = self._sizes()
        tile = self.mapping.tile.sizes
        if self.rules.authors is not None:  # padded to whole tiles
            sizes = {
                loop: np.full(trips, tile[loop])
                for loop, trips in zip(Loop, self.trips, strict=True)
            }
        pixels = self.outer({loop: sizes[loop] for loop in (Loop.BATCH, Loop.ROWS, Loop.COLUMNS)})
        channels, outputs = (
            self.outer({loop: sizes[loop]}) for loop in (Loop.INPUTS, Loop.OUTPUTS)
        )
        return self.rules.times(self.shape, pixels, channels, outputs)[2]

    def _sizes(self) -> dict[Loop, Ints]:
        return {
            loop: sizes_of(extent, size)
            for loop, extent, size in zip(
                Loop, self.shape.extents, self.mapping.tile.sizes, strict=True
            )
        }

    def _pieces(self, datum: Datum) -> Pieces:
        whole = self.rules.authors is not None  # a block is one piece
        kept = {loop for loop in Loop if self.mapping.keeps(datum, loop)}
        held = {loop for loop in kept if whole or not DEPENDS[datum][loop]}
        over = set(Loop) - held
        start = {loop: (np.arange(self.trips[loop]) == 0).astype(np.int64) for loop in held}
        end = {
            loop: (np.arange(self.trips[loop]) == self.trips[loop] - 1).astype(np.int64)
            for loop in (held if datum is Datum.OUTPUT else kept)
        }
        residence = self.analytic.residences[datum]
        first = self.first(over)
        bits = np.full(len(first), residence.held_bits)
        back = np.zeros_like(bits)
        if not whole:
            bits = self._bits(datum, over)
        elif self.rules.authors is not None and self.rules.authors.outputs_read_back:
            back = bits
        if datum is Datum.OUTPUT and not whole:
            bits, back = self._sums(bits, over)
        closes = self.outer(end) * (1 if datum is Datum.OUTPUT else residence.pieces)
        return Pieces(bits, first, self.outer(start), closes, self._slots(kept - held), back)

    def _slots(self, loops: set[Loop]) -> Ints:
        """Number of the piece that each tile needs among those of its block."""
        slots, stride = np.zeros(1, np.int64), 1
        for loop in reversed(self.mapping.order):
            if loop in loops:
                slots = slots[None] + stride * np.arange(self.trips[loop]).reshape(
                    -1, *(1,) * slots.ndim
                )
                stride *= self.trips[loop]
            else:
                slots = slots[None]
        return np.broadcast_to(slots.reshape(slots.shape[:-1]), self.counts).reshape(-1)

    def _bits(self, datum: Datum, over: set[Loop]) -> Ints:
        """Bits of each piece; of outputs, how many there are."""
        shape, sizes = self.shape, self._sizes()
        if datum is Datum.WEIGHT:
            groups = shape.taps * -(-sizes[Loop.INPUTS] // self.rules.weight_group)
            sizes[Loop.INPUTS] = groups * self.rules.weight_bits
        elif datum is Datum.INPUT:
            for loop, axis, size in (
                (Loop.ROWS, shape.rows, self.mapping.tile.out_height),
                (Loop.COLUMNS, shape.columns, self.mapping.tile.out_width),
            ):
                each, first = needed(axis, size)
                sizes[loop] = first if self.mapping.keeps(datum, loop) else each
            sizes[Loop.INPUTS] = sizes[Loop.INPUTS] * self.rules.input_bits
        parts = {loop: sizes[loop] for loop in Loop if DEPENDS[datum][loop]}
        return self.outer(parts, over)

    def _sums(self, outputs: Ints, over: set[Loop]) -> tuple[Ints, Ints]:
        """Bits stored and read back: sums, but for the last visit; nothing before the first."""
        rules, visit = self.rules, np.arange(self.trips[Loop.INPUTS])
        if Loop.INPUTS not in over or len(visit) == 1:
            return outputs * rules.output_bits, np.zeros_like(outputs)
        width = np.where(visit < len(visit) - 1, rules.sum_bits, rules.output_bits)
        back = np.where(visit > 0, rules.sum_bits, 0)
        return tuple(outputs * self.outer({Loop.INPUTS: each}, over) for each in (width, back))  # type: ignore[return-value]


def _later(flags: Ints, free: int) -> Ints:
    """The flags without the first ``free`` that are set: so many places are free at the start."""
    waits = flags.copy()
    waits[np.flatnonzero(flags)[:free]] = 0
    return waits


class Dma(NamedTuple):
    """The actors, one a channel, that move a datum, and the bits of each of their firings."""

    datum: Datum
    actors: tuple[str, ...]
    stores: bool
    bits: Ints


class TiledNetlist(NamedTuple):
    """A layer at the level of tiles.

    ``analytic`` is what the closed form says of it, ``dmas`` who moves the operands, and
    ``rescales`` who brings sums back and forth once their scale is known: the way ("read" or
    "written"), the actors, and all the bits they move.
    """

    netlist: Netlist
    analytic: Cost
    dmas: tuple[Dma, ...]
    rescales: tuple[tuple[str, tuple[str, ...], int], ...]


Actions = Callable[[Walk], dict[str, Execute]]


def tile_netlist(
    shape: ConvShape,
    rules: ArrayRules,
    mapping: Mapping,
    *,
    clock_hz: float,
    name: str = "tiles",
    dram: Dram | None = None,
    actions: Actions | None = None,
    rescale: tuple[int, int] | None = None,
) -> TiledNetlist:
    """A layer at the level of tiles, and what the closed form says of it.

    Parameters
    ----------
    dram
        Rows and banks instead of a bus of ``rules.dram_bits``; every DMA is then an actor a
        channel.
    actions
        Gives what the actors do with their tokens.
    rescale
        Bits of a sum and of an output: when the last output is stored as a sum, all of them are
        read again and written at their scale.

    Raises
    ------
    InputError
        If a tile exceeds the layer, or what is kept does not fit its buffer.
    """
    memory = Bus(rules) if dram is None else Banks(dram, clock_hz)
    walk = Walk(shape, rules, mapping, memory.most_bits)
    builder = _Builder(walk, memory, {} if actions is None else actions(walk))
    for label, datum in (("input", Datum.INPUT), ("weight", Datum.WEIGHT)):
        builder.loads(label, datum)
    builder.outputs()
    rescales = () if rescale is None else builder.rescales(*rescale)
    netlist = Netlist(
        actors=builder.actors,
        channels=builder.channels,
        resources=memory.resources,
        clock_hz=clock_hz,
        name=name,
    )
    return TiledNetlist(netlist, walk.analytic, tuple(builder.dmas), rescales)


class _Builder:
    """Actors and channels of a netlist of tiles."""

    def __init__(self, walk: Walk, memory: Bus | Banks, run: dict[str, Execute]) -> None:
        self.walk, self.memory, self.run = walk, memory, run
        self.actors: list[Actor] = []
        self.channels: list[Channel] = []
        self.dmas: list[Dma] = []

    def dma(self, label: str, part: str, datum: Datum, stores: bool) -> Transfers:
        """An actor a channel; the first of them does what there is to do."""
        stream = self.walk.streams[label]
        moves = self.memory.moves(stream, datum, stores)
        names = tuple(f"{label}{c}" for c in self.memory.channels)
        self.dmas.append(Dma(datum, names, stores, stream.bits))
        self.actors += [
            Actor(name=name, part=part, execute=None if k else self.run.get(label), **move)
            for k, (name, move) in enumerate(zip(names, moves, strict=True))
        ]
        return stream

    def loads(self, label: str, datum: Datum) -> None:
        """A DMA, the buffer it fills, and the places that come back to it."""
        pieces, places = self.walk.pieces[datum], self.walk.analytic.residences[datum].places
        stream = self.dma(f"{label}_dma", f"{label.title()} DMA", datum, False)
        for c in self.memory.channels:
            self.channels += [
                Channel(
                    name=f"{label}s{c}",
                    source=f"{label}_dma{c}",
                    target="array",
                    capacity=places,
                    produce=stream.closes,
                    consume=pieces.opens,
                ),
                Channel(
                    name=f"{label}_place{c}",
                    source="array",
                    target=f"{label}_dma{c}",
                    capacity=places,
                    produce=pieces.closes,
                    consume=_later(stream.opens, places),
                ),
            ]

    def outputs(self) -> None:
        """The array, what follows it, and the partial sums that come back."""
        rules, pieces = self.walk.rules, self.walk.pieces[Datum.OUTPUT]
        places = self.walk.analytic.residences[Datum.OUTPUT].places
        count, back = len(pieces.bits), pieces.back > 0
        if back.any():
            load = self.dma("psum_dma", "Partial sum DMA", Datum.OUTPUT, False)
        self.actors += [
            Actor(
                name="array",
                busy=self.walk.occupied(),
                execute=self.run.get("array"),
                part="Array",
            ),
            Actor(
                name="drain",
                firings=count,
                busy=0,
                latency=max(1, rules.drain_cycles + rules.exchange_cycles),
                execute=self.run.get("drain"),
                part="Array drain",
            ),
            # Results pass through it as they leave the array, a column's one a cycle: never slower
            # than they are computed. What is left is the way of the last one through its stages.
            Actor(
                name="post",
                firings=count,
                busy=0,
                latency=POST_STAGES,
                execute=self.run.get("post"),
                part="Post-processing",
            ),
        ]
        store = self.dma("output_dma", "Output DMA", Datum.OUTPUT, True)
        self.channels += [
            Channel(
                name="sums", source="array", target="drain", capacity=places,
                produce=pieces.closes,
            ),
            Channel(name="drained", source="drain", target="post", capacity=places),
        ]  # fmt: skip
        # Who takes the place of each piece: its partial sums, or the array.
        first = np.arange(count) < places
        users = (("psum_dma", back), ("array", ~back))
        opened = np.cumsum(pieces.opens) - 1  # the piece that a tile opens
        takes_sums = np.where(pieces.opens > 0, back[opened], False).astype(np.int64)
        freed = {user: np.zeros(count, np.int64) for user, _ in users}
        for user, uses in users:
            freed[user][: max(0, count - places)] = uses[places:]
        for c in self.memory.channels:
            self.channels.append(
                Channel(
                    name=f"outputs{c}",
                    source="post",
                    target=f"output_dma{c}",
                    capacity=places,
                    consume=store.opens,
                )
            )
            if back.any():
                waits_place = np.zeros(len(load.bits), np.int64)
                waits_place[load.opens > 0] = ~first[back]
                self.channels += [
                    Channel(
                        name=f"psums{c}",
                        source=f"psum_dma{c}",
                        target="array",
                        capacity=places,
                        produce=load.closes,
                        consume=takes_sums,
                    ),
                    self._place(f"psum_place{c}", c, f"psum_dma{c}", places, freed["psum_dma"],
                                store, waits_place),
                ]  # fmt: skip
            if not back.all():
                own = np.where(pieces.opens > 0, ~back[opened] & ~first[opened], False)
                self.channels.append(
                    self._place(
                        f"output_place{c}", c, "array", places, freed["array"], store,
                        own.astype(np.int64),
                    )
                )  # fmt: skip

    def _place(
        self, name: str, c: str, target: str, places: int, freed: Ints, store: Transfers,
        consume: Ints,
    ) -> Channel:  # fmt: skip
        """Places of outputs that come back when what was in them is stored."""
        produce = np.zeros(len(store.bits), np.int64)
        produce[store.closes > 0] = freed
        return Channel(
            name=name,
            source=f"output_dma{c}",
            target=target,
            capacity=places,
            produce=produce,
            consume=consume,
        )

    def rescales(
        self, sum_bits: int, output_bits: int
    ) -> tuple[tuple[str, tuple[str, ...], int], ...]:
        """Bring all sums back once the last is stored, and write the outputs at their scale.

        Half an output buffer at a time.
        """
        count, memory = self.walk.shape.outputs, self.memory
        pieces = max(1, -(-count * sum_bits // self.walk.rules.rooms[Datum.OUTPUT]))
        each = np.diff(np.arange(pieces + 1) * count // pieces)
        stores = next(dma for dma in self.dmas if dma.stores).bits
        found, streams = [], []
        for way, label, bits in (
            ("read", "sum_dma", sum_bits),
            ("written", "scaled_dma", output_bits),
        ):
            rank = np.full(pieces, self.walk.tiles)
            stream = transfers(each * bits, rank, memory.most_bits)
            moves = memory.moves(stream, Datum.OUTPUT, way == "written")
            names = tuple(f"{label}{c}" for c in memory.channels)
            self.actors += [
                Actor(name=name, part="Rescaling DMA", **move)
                for name, move in zip(names, moves, strict=True)
            ]
            found.append((way, names, count * bits))
            streams.append(stream)
        read, written = streams
        first = (np.arange(len(read.bits)) == 0).astype(np.int64)
        last = (np.arange(len(stores)) == len(stores) - 1).astype(np.int64)
        for c in memory.channels:
            self.channels += [
                Channel(
                    name=f"all_stored{c}",
                    source=f"output_dma{c}",
                    target=f"sum_dma{c}",
                    capacity=1,
                    produce=last,
                    consume=first,
                ),
                Channel(
                    name=f"sums_back{c}",
                    source=f"sum_dma{c}",
                    target=f"scaled_dma{c}",
                    capacity=2,
                    produce=read.closes,
                    consume=written.opens,
                ),
            ]
        return tuple(found)
