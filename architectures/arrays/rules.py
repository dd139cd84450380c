"""An array as tiling sees it: what a step covers, widths, buffers, bandwidth.

:class:`ArrayRules` says how many pixels, output channels and reduction elements the array covers in
a step (which says weight-, output- or input-stationary), and when filling and emptying it is paid
for. What crosses the DRAM's bus are real data: inputs once for every block that needs them, never
padding, nor the copies that unfolding (im2col) makes, which the array's border makes as it reads
its buffer; outputs at the width they have after requantization, partial sums, where they do not
stay, at the width of an accumulator, there and back.

The published models of Bit Fusion and ANT differ from that, by name: :class:`AuthorsModel`.
"""

from __future__ import annotations

import enum
import math
from fractions import Fraction
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from sparqsim.architectures.arrays.folds import Dataflow
from sparqsim.architectures.arrays.shapes import ConvShape, Tile
from sparqsim.architectures.checks import check_whole
from sparqsim.base import InputError

Ints = NDArray[np.int64]
# assumed: a transfer is at most so many words of the DRAM bus, between which another DMA, whose
# piece is needed sooner, gets its turn
TRANSFER_WORDS = 64
POST_STAGES = (
    3  # assumed: multiply, rounding shift, offset and clamp; one result per column and cycle
)


class Side(enum.IntEnum):
    """The three dimensions of the matrix product that an array does."""

    PIXELS = 0
    OUTPUTS = 1
    REDUCTION = 2


class Layout(enum.IntEnum):
    """How the authors' models lay a tile of activations out."""

    PATCH = 0  # the input patch once; kernel taps are steps in time
    UNFOLDED = 1  # im2col: every output pixel has its own copy of its taps
    UNFOLDED_PADDED = 2  # im2col, each pixel's copy padded to whole reduction granules


class Reuse(enum.IntEnum):
    """Which operand a processing element keeps while the others stream from the buffers."""

    CHEAPEST = 0  # whichever moves the fewest bits for this tile; output first among equals
    OUTPUT = 1
    WEIGHT = 2
    INPUT = 3


class Drain(enum.IntEnum):
    """When filling and emptying the array, ``drain_cycles`` a time, is paid for.

    A *pass* is what goes through the array in one piece: a whole tile, or one fold of it where the
    processing elements must be emptied or loaded in between (``ArrayRules.streams``).
    """

    NONE = 0  # never, as the published models have it
    PER_LAYER = 1  # once: passes follow each other through the array without a bubble
    SHORT_PASSES = 2  # once, and a pass occupies the array at least exchange_cycles: while it
    #                   computes, the results before it leave, or the weights after it come in
    PER_PASS = 3  # every pass is drained before the next one enters


class AuthorsModel(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the published performance models have otherwise.

    Tiles at the edge of a layer are padded to whole ones, in time and in traffic; weights are
    padded to whole granules in DRAM too; a buffer keeps what fits half of it, in one piece, and the
    array waits for all of it.

    Attributes
    ----------
    layout : Layout
        How activations lie in DRAM and in their buffer.
    outputs_read_back : bool
        Whether partial sums come back from DRAM whenever they were written to it, the first time
        too; else never.
    last_store_counted : bool
        Whether storing the last block of outputs is waited for.
    output_tile_fits : bool
        Whether a tile of outputs must fit its buffer.
    """

    layout: Layout
    outputs_read_back: bool
    last_store_counted: bool
    output_tile_fits: bool = True

    def __post_init__(self) -> None:
        _check_choice("AuthorsModel", "layout", self.layout, Layout)
        _check_switches(
            "AuthorsModel", self, ("outputs_read_back", "last_store_counted", "output_tile_fits")
        )


class BankTimes(NamedTuple):
    """What a DRAM with rows and banks takes beyond its bits: by default nothing, as of a bus.

    Attributes
    ----------
    burst_bits : int
        A transfer moves whole bursts, one of every channel.
    transfer : float
        Cycles of the longest transfer.
    load, store : float
        Cycles from the request of a burst alone until it is there, or is stored.
    opens : float
        Of them, to open a row, which stores that follow each other share.
    turn : float
        Cycles lost around a store between loads.
    clash, round : float
        Cycles lost, on average, where one stream follows another that passes through its bank; and
        cycles of a stream through all banks.
    refresh, every : float
        Of so many cycles all banks stand still for some.
    """

    burst_bits: int = 1
    transfer: float = float(TRANSFER_WORDS)
    load: float = 0.0
    store: float = 0.0
    opens: float = 0.0
    turn: float = 0.0
    clash: float = 0.0
    round: float = 1.0
    refresh: float = 0.0
    every: float = 1.0

    def check(self) -> None:
        """Refuse what no DRAM takes."""
        check_whole("BankTimes", burst_bits=self.burst_bits)
        if not (
            0 < min(self.transfer, self.round) < math.inf
            and 0 <= self.refresh < self.every < math.inf
        ):
            raise InputError(
                "BankTimes.transfer and round must be above 0, and refresh at least 0 and less "
                f"than every, got {self.transfer}, {self.round}, {self.refresh} and {self.every}"
            )
        for field in ("load", "store", "opens", "turn", "clash"):
            if not 0 <= getattr(self, field) < math.inf:
                raise InputError(
                    f"BankTimes.{field} must be a finite number of cycles, at least 0, got "
                    f"{getattr(self, field)!r}"
                )


class ArrayRules(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An array as tiling sees it, at one pair of operand widths.

    Attributes
    ----------
    pixels_per_step, outputs_per_step, reduction_per_step : int
        What one step (a cycle when the array is full) covers of a tile. Weight-stationary and
        Bit Fusion: (1, columns, rows); output-stationary: (rows, columns, 1).
    streams : Side or None
        What flows through the array while the other two stay: then a pass is one fold of a tile
        along those two. None: a pass is a tile.
    taps_joined : bool
        Whether kernel taps and channels fill the reduction side of the array together (unfolded,
        im2col), or taps are steps in time.
    repeats : int
        Cycles of one step, where operands are wider than a multiplier.
    reduction_granule : int
        Weights of a tile lie in their buffer padded to a multiple.
    outputs_padded : bool
        Whether a tile of outputs lies in its buffer padded to a multiple of ``outputs_per_step``.
    output_granule : int
        Search: tiles of output channels are multiples of it where the layer has so many.
    input_bits : int
        Width of an input.
    weight_bits, weight_group : int
        Bits in which so many neighbouring weights along the channels of a tap are stored: one, or
        the M of N:M sparse ones.
    weights_of_group : int
        How many of them are multiplied.
    scaled_channels : int
        Channels after which a sum leaves the array to be scaled (:mod:`.scales`), of layers of one
        tap; 0: when the reduction of a tile ends. Then ``sums_in_buffer``.
    sum_bits, output_bits : int
        Width of a partial sum, and of an output as it leaves.
    sums_in_buffer : bool
        Whether sums are added up in the output buffer; else a tile that has its whole reduction
        leaves the array as outputs.
    input_usable_bits, weight_usable_bits, output_usable_bits : int
        Usable bits of each buffer for what is in work: half of it.
    dram_bits, dram_cycles : int
        The DRAM moves so many bits in so many cycles of the array's clock.
    banks : BankTimes
        What the DRAM takes beyond that.
    reuse : Reuse
        What stays in the processing elements, for the count of buffer reads and writes.
    drain : Drain
        When fill and drain are paid.
    drain_cycles : int
        Cycles from the last step of a pass to its last result leaving the array.
    skewed : Side or None
        What leaves the array a cycle later for each further one of it that a step covers: a tile
        that has fewer of them drains sooner, by those it lacks. None: all at once.
    exchange_cycles : int
        Cycles to shift the results of a pass out of the processing elements, or stationary
        operands into them, through the side of the array; at most ``drain_cycles``.
    authors : AuthorsModel or None
        The published model in the place of real traffic.
    """

    pixels_per_step: int
    outputs_per_step: int
    reduction_per_step: int
    streams: Side | None = None
    taps_joined: bool = False
    repeats: int = 1
    reduction_granule: int = 1
    outputs_padded: bool = False
    output_granule: int = 1
    input_bits: int
    weight_bits: int
    weight_group: int = 1
    weights_of_group: int = 1
    scaled_channels: int = 0
    sum_bits: int
    output_bits: int
    sums_in_buffer: bool = True
    input_usable_bits: int
    weight_usable_bits: int
    output_usable_bits: int
    dram_bits: int
    dram_cycles: int = 1
    banks: BankTimes = BankTimes()
    reuse: Reuse = Reuse.CHEAPEST
    drain: Drain = Drain.NONE
    drain_cycles: int = 0
    skewed: Side | None = None
    exchange_cycles: int = 0
    authors: AuthorsModel | None = None

    def __post_init__(self) -> None:
        fields = msgspec.structs.asdict(self)
        for field in ("drain_cycles", "exchange_cycles", "scaled_channels"):
            check_whole("ArrayRules", least=0, **{field: fields.pop(field)})
        if self.exchange_cycles > self.drain_cycles:
            raise InputError(
                f"ArrayRules.exchange_cycles must be at most drain_cycles ({self.drain_cycles}), "
                f"got {self.exchange_cycles}"
            )
        switches = ("taps_joined", "outputs_padded", "sums_in_buffer")
        _check_switches("ArrayRules", self, switches)
        for field, kind in (("reuse", Reuse), ("drain", Drain)):
            _check_choice("ArrayRules", field, getattr(self, field), kind)
        for field in ("streams", "skewed"):
            if getattr(self, field) is not None:
                _check_choice("ArrayRules", field, getattr(self, field), Side)
        for field in ("reuse", "drain", "streams", "skewed", "authors", "banks", *switches):
            del fields[field]
        check_whole("ArrayRules", **fields)
        self.banks.check()
        if self.exchange_cycles and self.streams is None:
            raise InputError(
                "ArrayRules.exchange_cycles are of passes that are folds: say what streams, got "
                f"{self.exchange_cycles} and None"
            )
        if self.weights_of_group > self.weight_group:
            raise InputError(
                f"ArrayRules.weights_of_group must be at most weight_group ({self.weight_group}), "
                f"got {self.weights_of_group}"
            )

    @property
    def usable_bits(self) -> tuple[int, int, int]:
        """Usable bits of each buffer, indexed by :class:`~.shapes.Datum`."""
        return (self.input_usable_bits, self.weight_usable_bits, self.output_usable_bits)

    def bus_cycles(self, bits: int) -> int:
        """Return the cycles in which the DRAM moves so many bits in one go."""
        return -(-bits * self.dram_cycles // self.dram_bits)

    def transfer_cycles(self, bits: int, transfers: int) -> int:
        """Return the cycles for so many bits in so many transfers, a cycle and a burst each."""
        burst = self.banks.burst_bits
        if burst > 1 and transfers:
            bits = transfers * -(-bits // (transfers * burst)) * burst
        return max(self.bus_cycles(bits), transfers)

    # ------------------------------------------------------------------ the array's time

    def folds(
        self, shape: ConvShape, pixels: Ints, channels: Ints, outputs: Ints
    ) -> tuple[Ints, Ints, Ints]:
        """Array-sized parts of tiles along each :class:`Side`; arrays broadcast."""
        if self.scaled_channels:
            reduction = self.scalings(channels) * self.folds_of_scaled
        elif self.taps_joined:
            reduction = -(-shape.taps * channels // self.reduction_per_step)
        else:
            reduction = shape.taps * -(-channels // self.reduction_per_step)
        return (-(-pixels // self.pixels_per_step), -(-outputs // self.outputs_per_step), reduction)

    def scalings(self, channels: Ints) -> Ints:
        """How often sums of so many channels are scaled; a short last group takes a whole one."""
        return -(-channels // self.scaled_channels)

    @property
    def folds_of_scaled(self) -> int:
        """Array-sized parts of the channels after which a sum is scaled."""
        return -(-self.scaled_channels // self.reduction_per_step)

    def times(
        self, shape: ConvShape, pixels: Ints, channels: Ints, outputs: Ints
    ) -> tuple[Ints, Ints, Ints]:
        """Of tiles of those sizes: steps in cycles, passes, and cycles they occupy the array."""
        folds = self.folds(shape, pixels, channels, outputs)
        steps = folds[0] * folds[1] * folds[2] * self.repeats
        passes = np.ones_like(steps)
        if self.streams is not None:
            passes = steps // (folds[self.streams] * self.repeats)
        if self.scaled_channels and self.streams is Side.REDUCTION:
            passes = passes * self.scalings(channels)
        lost: Ints = passes * self.between(steps // passes)
        return steps, passes, steps + lost

    def between(self, steps: Ints) -> Ints:
        """Cycles lost between passes of so many cycles."""
        if self.drain is Drain.SHORT_PASSES:
            return np.maximum(0, self.exchange_cycles - steps)
        return np.full_like(steps, self.drain_cycles if self.drain is Drain.PER_PASS else 0)

    def drained(self, tile: Tile) -> int:
        """Cycles from the last step of a tile to its last result leaving its element."""
        if self.skewed is Side.PIXELS:
            lacks = max(0, self.pixels_per_step - tile.pixels)
        elif self.skewed is Side.OUTPUTS:
            lacks = max(0, self.outputs_per_step - tile.out_channels)
        else:
            lacks = 0
        return self.drain_cycles - lacks

    def last_drain(self, tile: Tile) -> int:
        """Cycles in which the last pass leaves the array, where they are charged."""
        return 0 if self.drain is Drain.NONE else self.drained(tile)

    def out_cycles(self, tile: Tile) -> int:
        """Cycles from the last step of a tile to its last result at the side of the array."""
        return max(1, self.drained(tile) + self.exchange_cycles)

    def tail_cycles(self, tile: Tile) -> int:
        """Cycles from the last step of a tile until its results can be stored."""
        return self.out_cycles(tile) + POST_STAGES

    # ------------------------------------------------------------------ bits of tiles

    def weights_bits(self, shape: ConvShape, channels: int, outputs: int) -> int:
        """Return the bits of the weights of so many channels and outputs of a group, real ones."""
        groups = shape.taps * -(-channels // self.weight_group)
        return groups * self.weight_bits * outputs

    def weights_room(self, shape: ConvShape, channels: int, outputs: int) -> int:
        """Return the bits they take in their buffer, padded to whole granules."""
        places = shape.taps * -(-channels // self.weight_group) * self.weight_group
        padded = -(-places // self.reduction_granule) * self.reduction_granule
        return -(-padded // self.weight_group) * self.weight_bits * outputs

    def outputs_room(self, pixels: int, outputs: int, split: bool) -> int:
        """Return the bits of a tile of outputs in the buffer; ``split``: sums are still partial."""
        if self.outputs_padded:
            outputs = -(-outputs // self.outputs_per_step) * self.outputs_per_step
        partial = split or self.sums_in_buffer
        return pixels * outputs * (self.sum_bits if partial else self.output_bits)

    def authors_bits(self, shape: ConvShape, tile: Tile) -> tuple[int, int, int]:
        """Return the bits of a tile in DRAM and in each buffer, as the published models have it."""
        assert self.authors is not None
        reduction = shape.taps * tile.in_channels
        stored = -(-reduction // self.reduction_granule) * self.reduction_granule
        layout = self.authors.layout
        if layout is Layout.PATCH:
            patch = shape.rows.span(tile.out_height) * shape.columns.span(tile.out_width)
            inputs = tile.batch * patch * tile.in_channels
        else:
            inputs = tile.pixels * (stored if layout is Layout.UNFOLDED_PADDED else reduction)
        return (
            inputs * self.input_bits,
            self.weights_room(shape, tile.in_channels, tile.out_channels),
            self.outputs_room(tile.pixels, tile.out_channels, True),
        )


def bandwidth(bytes_per_s: float, clock_hz: float) -> tuple[int, int]:
    """Return (bits, cycles): what a DRAM moves, and in how many cycles of a clock."""
    bits = Fraction(str(bytes_per_s)) * 8 / Fraction(str(clock_hz))
    bits = bits.limit_denominator(1 << 14)  # products stay within 64 bits
    return max(1, bits.numerator), bits.denominator


def _check_choice(where: str, field: str, value: object, kind: type[enum.IntEnum]) -> None:
    if not isinstance(value, kind):
        raise InputError(
            f"{where}.{field} must be one of {kind.__name__}'s {', '.join(kind.__members__)}, "
            f"got {value!r}"
        )


def _check_switches(where: str, record: msgspec.Struct, fields: tuple[str, ...]) -> None:
    for field in fields:
        value = getattr(record, field)
        if not isinstance(value, bool):
            raise InputError(f"{where}.{field} must be true or false, got {value!r}")


def grid_rules(
    *,
    rows: int,
    columns: int,
    dataflow: Dataflow,
    bits: int,
    sum_bits: int,
    usable_bits: tuple[int, int, int],
    dram: tuple[int, int],
    drain: Drain = Drain.SHORT_PASSES,
    authors: AuthorsModel | None = None,
) -> ArrayRules:
    """A grid that keeps sums, weights or inputs, its border unfolding what it reads (im2col).

    Folds follow back to back while they are not shorter than what is shifted behind them. A
    buffer holds patches; a column's outputs leave requantized to the width of the inputs.

    Parameters
    ----------
    bits
        Of both operands.
    sum_bits
        Of a partial sum in its buffer.
    usable_bits
        Usable bits of input, weight and output buffer.
    dram
        Bits, and the cycles in which they move.
    """
    pixels, outputs, reduction, streams, reuse = {
        Dataflow.OUTPUT_STATIONARY: (rows, columns, 1, Side.REDUCTION, Reuse.OUTPUT),
        Dataflow.WEIGHT_STATIONARY: (1, columns, rows, Side.PIXELS, Reuse.WEIGHT),
        Dataflow.INPUT_STATIONARY: (columns, 1, rows, Side.OUTPUTS, Reuse.INPUT),
    }[dataflow]
    skewed = Side.PIXELS if dataflow is Dataflow.INPUT_STATIONARY else Side.OUTPUTS
    return ArrayRules(
        pixels_per_step=pixels,
        outputs_per_step=outputs,
        reduction_per_step=reduction,
        streams=streams,
        taps_joined=True,
        reduction_granule=rows,
        input_bits=bits,
        weight_bits=bits,
        sum_bits=sum_bits,
        output_bits=max(bits, 2) if authors is None else sum_bits,
        sums_in_buffer=dataflow is not Dataflow.OUTPUT_STATIONARY,
        input_usable_bits=usable_bits[0],
        weight_usable_bits=usable_bits[1],
        output_usable_bits=usable_bits[2],
        dram_bits=dram[0],
        dram_cycles=dram[1],
        reuse=reuse,
        drain=drain,
        drain_cycles=rows + columns - 1,
        skewed=skewed if authors is None else None,
        exchange_cycles=rows,  # derived: a fold's sums, or its weights, move one row per cycle
        authors=authors,
    )


ANT_WORD_BITS = 16  # published: ANT's authors' released simulator, of an output


def ant_authors_rules(
    side: int,
    dataflow: Dataflow,
    bits: int,
    usable_bits: tuple[int, int, int],
    dram: tuple[int, int],
    drain: Drain,
) -> ArrayRules:
    """The model of ANT's authors, in which the arrays that ANT is compared with were run too."""
    return grid_rules(
        rows=side,
        columns=side,
        dataflow=dataflow,
        bits=bits,
        sum_bits=ANT_WORD_BITS,
        usable_bits=usable_bits,
        dram=dram,
        drain=drain,
        authors=AuthorsModel(
            layout=Layout.UNFOLDED_PADDED,
            outputs_read_back=False,
            last_store_counted=drain is not Drain.NONE,  # their model hides it
            output_tile_fits=False,
        ),
    )


def told(rules: ArrayRules) -> str:
    """How fill and drain are charged, and by whose model, in words."""
    found = {
        Drain.NONE: "fill and drain of the array are not in the analytic cycles",
        Drain.PER_LAYER: "fill and drain of the array are charged once a layer",
        Drain.SHORT_PASSES: "fill and drain of the array are charged once a layer; a pass takes "
        f"at least the {rules.exchange_cycles} cycles its operands or results are shifted",
        Drain.PER_PASS: "fill and drain of the array are charged every pass",
    }[rules.drain]
    if rules.authors is None:
        return found
    return (
        "by the authors' model: tiles at the edge and padding count in full, outputs move as "
        f"{rules.sum_bits}-bit words; {found}"
    )
