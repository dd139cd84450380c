"""What the compiled search (:mod:`.search_kernels`) is told of a layer, an array and its prices."""

from __future__ import annotations

from typing import NamedTuple

from sparqsim.architectures.arrays.kernels import Ints
from sparqsim.architectures.arrays.rules import ArrayRules, BankTimes, Drain
from sparqsim.architectures.arrays.shapes import ConvShape


class Tables(NamedTuple):
    """Sizes to try, a row each, with what the search sums over the tiles of that loop.

    ``batch``: size, trips, last; ``patch``: rows' size, trips, last, most, total and distinct
    inputs, then columns'; ``channels``: size, trips, folds, occupied, room and bits of an output's
    weights, folds of the first and the last tile; ``outputs``: size, trips, folds, occupied, size
    in the buffer, folds of the last tile.
    """

    batch: Ints
    patch: Ints
    channels: Ints
    outputs: Ints


class Prices(NamedTuple):
    """:class:`~.cost.Rates`, in their order: pJ a cycle, and a bit."""

    core_static: float
    core_dynamic: float
    dram_static: float
    input_read: float
    input_write: float
    weight_read: float
    weight_write: float
    output_read: float
    output_write: float
    dram_read: float
    dram_write: float


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
    scalings: int  # of a sum; 0: none before the outputs are requantized
    sum_bits: int
    output_bits: int
    sums_in_buffer: bool
    input_room: int
    weight_room: int
    output_room: int
    dram_bits: int
    dram_cycles: int
    banks: BankTimes
    reuse: int
    short_passes: int  # cycles that a pass takes at least
    every_pass: int  # cycles lost between passes
    drain: int
    drain_charged: bool
    skewed: int  # -1: all results leave at once
    exchange: int
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
            scalings=-(-shape.in_channels // rules.scaled_channels) if rules.scaled_channels else 0,
            sum_bits=rules.sum_bits,
            output_bits=rules.output_bits,
            sums_in_buffer=rules.sums_in_buffer,
            input_room=rules.input_usable_bits,
            weight_room=rules.weight_usable_bits,
            output_room=rules.output_usable_bits,
            dram_bits=rules.dram_bits,
            dram_cycles=rules.dram_cycles,
            banks=rules.banks,
            reuse=int(rules.reuse),
            short_passes=rules.exchange_cycles if rules.drain is Drain.SHORT_PASSES else 0,
            every_pass=rules.drain_cycles if rules.drain is Drain.PER_PASS else 0,
            drain=rules.drain_cycles,
            drain_charged=rules.drain is not Drain.NONE,
            skewed=-1 if rules.skewed is None else int(rules.skewed),
            exchange=rules.exchange_cycles,
            authors=authors is not None,
            layout=int(authors.layout) if authors else 0,
            read_back=authors.outputs_read_back if authors else False,
            last_store=authors.last_store_counted if authors else False,
            tile_fits=authors.output_tile_fits if authors else True,
        )
