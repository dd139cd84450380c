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

Work is given as the loops have it (:mod:`.walk`), so that a run can be told by what repeats.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from sparqsim.architectures.arrays.cost import Cost, cost
from sparqsim.architectures.arrays.memory import Banks, Bus
from sparqsim.architectures.arrays.nests import Nest, Transfers
from sparqsim.architectures.arrays.rules import POST_STAGES, ArrayRules
from sparqsim.architectures.arrays.shapes import ConvShape, Datum, Mapping
from sparqsim.architectures.arrays.walk import Walk
from sparqsim.simulator.loops import Loops
from sparqsim.simulator.memory.dram import Dram
from sparqsim.simulator.netlist import Actor, Channel, Execute, Netlist


class Dma(NamedTuple):
    """The actors, one a channel, that move a datum, and the bits of each of their firings."""

    datum: Datum
    actors: tuple[str, ...]
    stores: bool
    bits: Loops


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
    if dram is None:
        memory: Bus | Banks = Bus(rules, cost(shape, rules, mapping).cycles)
    else:
        memory = Banks(dram, clock_hz)
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
        """One actor per channel; the first of them does what there is to do."""
        stream = self.walk.streams[label]
        moves = self.memory.moves(stream.bits, stream.rank, datum, stores)
        names = tuple(f"{label}{c}" for c in self.memory.channels)
        self.dmas.append(Dma(datum, names, stores, stream.bits))
        self.actors += [
            Actor(name=name, part=part, execute=None if k else self.run.get(label), **move)
            for k, (name, move) in enumerate(zip(names, moves, strict=True))
        ]
        return stream

    def loads(self, label: str, datum: Datum) -> None:
        """A DMA, the buffer it fills, and the places that come back to it."""
        pieces = self.walk.pieces[datum]
        places = pieces.places
        stream = self.dma(f"{label}_dma", f"{label.title()} DMA", datum, False)
        waits = stream.at_first(pieces.number(stream.nest) >= places)  # the first places are free
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
                    consume=waits,
                ),
            ]

    def outputs(self) -> None:
        """The array, what follows it, and the partial sums that come back."""
        rules, pieces = self.walk.rules, self.walk.pieces[Datum.OUTPUT]
        places, count = pieces.places, pieces.count
        sums_return = pieces.nest_back is not None
        if sums_return:
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
                latency=rules.out_cycles(self.walk.mapping.tile),
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
        to_sums, to_array = (store.at_last(each) for each in pieces.freed(store.nest))
        back, opened = pieces.read_back(pieces.tiles), pieces.opened
        later = pieces.number(pieces.tiles) >= places
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
            if sums_return:
                self.channels += [
                    Channel(
                        name=f"psums{c}",
                        source=f"psum_dma{c}",
                        target="array",
                        capacity=places,
                        produce=load.closes,
                        consume=pieces.tiles.loops(opened & back),
                    ),
                    self._place(f"psum_place{c}", c, f"psum_dma{c}", places, to_sums,
                                load.at_first(pieces.number(load.nest) >= places)),
                ]  # fmt: skip
            if not back.all():
                own = pieces.tiles.loops(opened & ~back & later)
                self.channels.append(
                    self._place(f"output_place{c}", c, "array", places, to_array, own)
                )

    def _place(
        self, name: str, c: str, target: str, places: int, produce: Loops, consume: Loops
    ) -> Channel:
        """Places of outputs that come back when what was in them is stored."""
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
        pieces = max(1, -(-count * sum_bits // self.walk.rules.usable_bits[Datum.OUTPUT]))
        each = np.diff(np.arange(pieces + 1) * count // pieces)
        nest = Nest.cut([(0, pieces)], [range(pieces)])
        stores = len(next(dma for dma in self.dmas if dma.stores).bits)
        found, streams = [], []
        for way, label, bits in (
            ("read", "sum_dma", sum_bits),
            ("written", "scaled_dma", output_bits),
        ):
            stream = Transfers(
                nest,
                lambda nest, bits=bits: each[nest.at(0)] * bits,  # type: ignore[misc]
                lambda nest: np.array(self.walk.tiles),
                (0,),
                memory.most_bits,
            )
            moves = memory.moves(stream.bits, stream.rank, Datum.OUTPUT, way == "written")
            names = tuple(f"{label}{c}" for c in memory.channels)
            self.actors += [
                Actor(name=name, part="Rescaling DMA", **move)
                for name, move in zip(names, moves, strict=True)
            ]
            found.append((way, names, count * bits))
            streams.append(stream)
        read, written = streams
        first, last = _only(0, len(read.bits)), _only(stores - 1, stores)
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


def _only(firing: int, firings: int) -> Loops:
    """1 for one of so many firings."""
    nest = Nest.cut([(0, firings)], [[firing, firing + 1]])
    return nest.loops(nest.at(0) == firing)
