"""How a layer is cut to fit an array's buffers, and what that costs: machine independent.

A layer is five loops around the array: batch, output columns, output rows, input channels, output
channels. Each is cut into tiles; a :class:`Mapping` is the tile sizes and the order in which tiles
are walked, outermost first. Three buffers (inputs, weights, outputs) hold one tile each in one
half while the other half is filled or drained. Which loops a buffer *absorbs* decides how often
its data cross the DRAM bus: walking the loops from the innermost out, a buffer keeps what it needs
while it still fits, and loops its data do not depend on are free; from the first loop that no
longer fits, every further loop moves the held block again (:func:`residence`).

An array is here only what these sums need to know, :class:`ArrayRules`: how many pixels, output
channels and reduction elements it covers in a cycle (which says weight-, output- or input-
stationary), how operands are laid out, bits, buffers, bus. Fill and drain of the array are charged
as :class:`Drain` says. :func:`cost` is the specification in plain integers; :func:`search` is the
same arithmetic compiled, over every power-of-two tile and every loop order, pruned by lower bounds
and remembered by shape. Left out: DRAM latency and rows, bank conflicts, post-processing; those are
for the event-driven machines. Source: the published performance model of the Bit Fusion authors,
restated as rules.
"""

from __future__ import annotations

import enum
import functools
import itertools
import math
from typing import Any

import msgspec
import numpy as np

from sparqsim.architectures.checks import check_whole
from sparqsim.base import InputError, kernel
from sparqsim.simulator.energy.tables import EnergyTable
from sparqsim.workloads.layers import Conv2d, Layer, MatMul


class Loop(enum.IntEnum):
    """The five tiled loops around an array."""

    BATCH = 0
    COLUMNS = 1
    ROWS = 2
    INPUTS = 3
    OUTPUTS = 4


class Datum(enum.IntEnum):
    """What the three buffers hold."""

    INPUT = 0
    WEIGHT = 1
    OUTPUT = 2


# DEPENDS[datum][loop]: whether another iteration of the loop needs another block of the datum.
DEPENDS = (
    (True, True, True, True, False),
    (False, False, False, True, True),
    (True, True, True, False, True),
)


class Layout(enum.IntEnum):
    """How a tile of activations lies in its buffer."""

    PATCH = 0  # the input patch once; kernel taps are steps in time
    UNFOLDED = 1  # im2col: every output pixel has its own copy of its taps; taps join channels
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
    processing elements must be emptied or loaded in between (``ArrayRules.pass_is_fold``).
    """

    NONE = 0  # never, as the published models have it
    PER_LAYER = 1  # once: passes follow each other through the array without a bubble
    SHORT_PASSES = 2  # once, and a pass occupies the array at least exchange_cycles: while it
    #                   computes, the results before it leave, or the weights after it come in
    PER_PASS = 3  # every pass is drained before the next one enters


class ConvShape(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What tiling needs to know of a convolution, a linear layer or a matrix product.

    ``in_channels`` and ``out_channels`` are those of one group; ``groups`` independent problems
    of this shape follow each other (a depthwise layer, the heads of an attention product).
    """

    batch: int
    out_height: int = 1
    out_width: int = 1
    kernel_height: int = 1
    kernel_width: int = 1
    stride_height: int = 1
    stride_width: int = 1
    dilation_height: int = 1
    dilation_width: int = 1
    in_channels: int
    out_channels: int
    groups: int = 1

    def __post_init__(self) -> None:
        check_whole("ConvShape", **msgspec.structs.asdict(self))

    @classmethod
    def square(
        cls, *, batch: int, out: int, kernel: int, stride: int, in_channels: int, out_channels: int
    ) -> ConvShape:
        """Return a convolution whose output, kernel and stride are square."""
        return cls(
            batch=batch,
            out_height=out,
            out_width=out,
            kernel_height=kernel,
            kernel_width=kernel,
            stride_height=stride,
            stride_width=stride,
            in_channels=in_channels,
            out_channels=out_channels,
        )

    @classmethod
    def of(cls, layer: Layer, *, batch: int = 1) -> ConvShape:
        """Return the shape of a layer run on ``batch`` times its own batch."""
        if isinstance(layer, Conv2d):
            return cls(
                batch=batch * layer.batch,
                out_height=layer.output[0],
                out_width=layer.output[1],
                kernel_height=layer.kernel[0],
                kernel_width=layer.kernel[1],
                stride_height=layer.stride[0],
                stride_width=layer.stride[1],
                dilation_height=layer.dilation[0],
                dilation_width=layer.dilation[1],
                in_channels=layer.in_channels // layer.groups,
                out_channels=layer.out_channels // layer.groups,
                groups=layer.groups,
            )
        gemm = layer.gemm()
        rows, groups = gemm.m, gemm.batch
        if isinstance(layer, MatMul):  # both operands are new for every sample of the batch
            groups *= batch
        else:
            rows *= batch
        return cls(batch=rows, in_channels=gemm.k, out_channels=gemm.n, groups=groups)

    def patch(self, out_height: int, out_width: int) -> tuple[int, int]:
        """Return (rows, columns) of inputs that a patch of outputs depends on."""
        return (
            self.dilation_height * (self.kernel_height - 1)
            + 1
            + (out_height - 1) * self.stride_height,
            self.dilation_width * (self.kernel_width - 1) + 1 + (out_width - 1) * self.stride_width,
        )

    @property
    def taps(self) -> int:
        """Kernel positions."""
        return self.kernel_height * self.kernel_width

    @property
    def macs(self) -> int:
        """Multiply-accumulates, dense."""
        pixels = self.batch * self.out_height * self.out_width
        return self.groups * pixels * self.taps * self.in_channels * self.out_channels

    @property
    def extents(self) -> tuple[int, int, int, int, int]:
        """Length of each loop, indexed by :class:`Loop`."""
        return (self.batch, self.out_width, self.out_height, self.in_channels, self.out_channels)


class Tile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Tile sizes of the five loops; the last tile of a loop may be partly padding."""

    batch: int
    out_width: int
    out_height: int
    in_channels: int
    out_channels: int

    def __post_init__(self) -> None:
        check_whole("Tile", **msgspec.structs.asdict(self))

    @property
    def sizes(self) -> tuple[int, int, int, int, int]:
        """Tile sizes, indexed by :class:`Loop`."""
        return (
            self.batch,
            self.out_width,
            self.out_height,
            self.in_channels,
            self.out_channels,
        )

    @property
    def pixels(self) -> int:
        """Output pixels in a tile, over its batch."""
        return self.batch * self.out_width * self.out_height


class Mapping(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Tile sizes and the order in which tiles are walked, outermost loop first."""

    tile: Tile
    order: tuple[Loop, Loop, Loop, Loop, Loop]

    def __post_init__(self) -> None:
        if sorted(self.order) != list(Loop):
            raise InputError(
                f"Mapping.order must name each of the five loops once, got {self.order!r}"
            )

    def trips(self, shape: ConvShape) -> tuple[int, ...]:
        """Return how many tiles each loop has, indexed by :class:`Loop`."""
        for loop, size, extent in zip(Loop, self.tile.sizes, shape.extents, strict=True):
            if size > extent:
                raise InputError(
                    f"a tile of {size} along {loop.name} exceeds the layer's {extent}; "
                    f"make it at most {extent}"
                )
        return tuple(
            -(-extent // size) for extent, size in zip(shape.extents, self.tile.sizes, strict=True)
        )


_SWITCHES = ("outputs_padded", "outputs_read_back", "last_store_counted", "pass_is_fold")


class ArrayRules(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An array as tiling sees it, at one pair of operand widths.

    Attributes
    ----------
    pixels_per_step, outputs_per_step, reduction_per_step : int
        What one step (a cycle when the array is full) covers of a tile. Weight-stationary and
        Bit Fusion: (1, columns, rows); output-stationary: (rows, columns, 1).
    layout : Layout
        How activations lie in their buffer.
    reduction_granule : int
        Weights (and ``UNFOLDED_PADDED`` activations) of a tile are stored padded to a multiple.
    outputs_padded : bool
        Whether an output tile is stored padded to a multiple of ``outputs_per_step``.
    outputs_read_back : bool
        Whether partial sums come back from DRAM whenever they were written to it.
    last_store_counted : bool
        Whether storing the last block of outputs is waited for.
    output_granule : int
        Search: output-channel tiles are this times a power of two.
    input_bits, weight_bits, output_bits : int
        Stored widths.
    input_room_bits, weight_room_bits, output_room_bits : int
        Usable bits of each buffer for the tile in work: half of a double buffer.
    dram_bits_per_cycle : int
        Width of the DRAM interface at the array's clock.
    reuse : Reuse
        What stays in the processing elements, for the count of buffer reads and writes.
    drain : Drain
        When fill and drain are paid.
    drain_cycles : int
        Cycles from the last step of a pass to its last result leaving the array.
    exchange_cycles : int
        Cycles to shift the results of a pass out of the processing elements, or stationary
        operands into them, through the side of the array; at most ``drain_cycles``.
    pass_is_fold : bool
        Whether a pass is one fold, the part of a tile that is on the array at a time, rather than
        the tile: output- and weight-stationary arrays hold a fold in their processing elements.
    repeats : int
        Cycles of one step, where operands are wider than a multiplier.
    """

    pixels_per_step: int
    outputs_per_step: int
    reduction_per_step: int
    layout: Layout
    reduction_granule: int
    outputs_padded: bool
    outputs_read_back: bool
    last_store_counted: bool
    output_granule: int
    input_bits: int
    weight_bits: int
    output_bits: int
    input_room_bits: int
    weight_room_bits: int
    output_room_bits: int
    dram_bits_per_cycle: int
    reuse: Reuse = Reuse.CHEAPEST
    drain: Drain = Drain.NONE
    drain_cycles: int = 0
    exchange_cycles: int = 0
    pass_is_fold: bool = False
    repeats: int = 1

    def __post_init__(self) -> None:
        fields = msgspec.structs.asdict(self)
        for field in ("drain_cycles", "exchange_cycles"):
            check_whole("ArrayRules", least=0, **{field: fields.pop(field)})
        if self.exchange_cycles > self.drain_cycles:
            raise InputError(
                f"ArrayRules.exchange_cycles must be at most drain_cycles ({self.drain_cycles}), "
                f"got {self.exchange_cycles}"
            )
        for choice in ("layout", "reuse", "drain", *_SWITCHES):
            del fields[choice]
        check_whole("ArrayRules", **fields)
        for field in _SWITCHES:
            if not isinstance(getattr(self, field), bool):
                raise InputError(
                    f"ArrayRules.{field} must be true or false, got {getattr(self, field)!r}"
                )
        for field, kind in (("layout", Layout), ("reuse", Reuse), ("drain", Drain)):
            if not isinstance(getattr(self, field), kind):
                raise InputError(
                    f"ArrayRules.{field} must be one of {kind.__name__}'s "
                    f"{', '.join(kind.__members__)}, got {getattr(self, field)!r}"
                )

    @property
    def rooms(self) -> tuple[int, int, int]:
        """Usable bits of each buffer, indexed by :class:`Datum`."""
        return (self.input_room_bits, self.weight_room_bits, self.output_room_bits)

    def folds(self, shape: ConvShape, tile: Tile) -> tuple[int, int, int]:
        """Return into how many array-sized parts a tile's pixels, outputs and reduction fall."""
        if self.layout is Layout.PATCH:
            reduction = shape.taps * -(-tile.in_channels // self.reduction_per_step)
        else:
            reduction = -(-shape.taps * tile.in_channels // self.reduction_per_step)
        return (
            -(-tile.pixels // self.pixels_per_step),
            -(-tile.out_channels // self.outputs_per_step),
            reduction,
        )

    def steps(self, shape: ConvShape, tile: Tile) -> int:
        """Return the cycles one tile takes through a full array."""
        return math.prod(self.folds(shape, tile)) * self.repeats

    def tile_bits(self, shape: ConvShape, tile: Tile) -> tuple[int, int, int]:
        """Return the bits a tile occupies in each buffer, indexed by :class:`Datum`."""
        reduction = shape.taps * tile.in_channels
        stored = -(-reduction // self.reduction_granule) * self.reduction_granule
        if self.layout is Layout.PATCH:
            height, width = shape.patch(tile.out_height, tile.out_width)
            inputs = tile.batch * height * width * tile.in_channels
        else:
            inputs = tile.pixels * (stored if self.layout is Layout.UNFOLDED_PADDED else reduction)
        outputs = tile.out_channels
        if self.outputs_padded:
            outputs = -(-outputs // self.outputs_per_step) * self.outputs_per_step
        return (
            inputs * self.input_bits,
            stored * tile.out_channels * self.weight_bits,
            tile.pixels * outputs * self.output_bits,
        )

    def array_bits(self, shape: ConvShape, tile: Tile) -> tuple[int, int, int]:
        """Return the bits one tile moves between each buffer and the array.

        Inputs and weights are read that often; outputs are both read and written. The operand that
        stays in the processing elements moves once, the others once a multiply-accumulate.
        """
        reduction = shape.taps * tile.in_channels
        pixels, outputs = tile.pixels, tile.out_channels
        macs = pixels * outputs * reduction
        each_mac = (macs * self.input_bits, macs * self.weight_bits, macs * self.output_bits)
        held = {
            Reuse.OUTPUT: (Datum.OUTPUT, pixels * outputs * self.output_bits),
            Reuse.WEIGHT: (Datum.WEIGHT, reduction * outputs * self.weight_bits),
            Reuse.INPUT: (Datum.INPUT, reduction * pixels * self.input_bits),
        }
        kinds = [self.reuse] if self.reuse is not Reuse.CHEAPEST else list(held)
        choices = []
        for kind in kinds:
            datum, once = held[kind]
            choices.append(tuple(once if d is datum else each_mac[d] for d in Datum))
        inputs, weights, results = min(choices, key=sum)
        return (inputs, weights, results)

    def passes(self, shape: ConvShape, tile: Tile) -> int:
        """Return the passes of a tile: 1, or its folds along the sides of the array."""
        if not self.pass_is_fold:
            return 1
        sides = (self.pixels_per_step, self.outputs_per_step, self.reduction_per_step)
        folds = self.folds(shape, tile)
        return math.prod(fold for fold, side in zip(folds, sides, strict=True) if side > 1)

    def bubbles(self, steps: int) -> tuple[int, int]:
        """Return cycles lost (between passes of ``steps`` steps, after the last of them)."""
        if self.drain is Drain.NONE:
            return 0, 0
        between = {
            Drain.PER_LAYER: 0,
            Drain.SHORT_PASSES: max(0, self.exchange_cycles - steps),
            Drain.PER_PASS: self.drain_cycles,
        }[self.drain]
        return between, self.drain_cycles


class Residence(msgspec.Struct, frozen=True, kw_only=True):
    """What a buffer keeps of one datum.

    The innermost ``absorbed`` loops work from one block of ``held_bits``; the block crosses the
    DRAM bus ``transfers`` times, once for every iteration of the loops further out.
    """

    absorbed: int
    held_bits: int
    transfers: int

    @property
    def bits(self) -> int:
        """Bits moved over the whole layer, one way."""
        return self.held_bits * self.transfers


def residence(
    datum: Datum,
    tile_bits: int,
    room_bits: int,
    trips: tuple[int, ...],
    order: tuple[Loop, ...],
    groups: int = 1,
) -> Residence:
    """Walk the loops innermost first and keep what fits.

    Parameters
    ----------
    datum : Datum
        Whose buffer.
    tile_bits, room_bits : int
        One tile, and the usable half of the buffer.
    trips : tuple of int
        Tiles a loop, indexed by :class:`Loop`.
    order : tuple of Loop
        Outermost first.
    groups : int
        Iterations of one more loop outside all others, on which everything depends.
    """
    held, absorbed = tile_bits, 0
    for loop in reversed(order):
        grown = held * trips[loop] if DEPENDS[datum][loop] else held
        if grown > room_bits:
            break
        held, absorbed = grown, absorbed + 1
    outer = order[: len(order) - absorbed]
    return Residence(
        absorbed=absorbed,
        held_bits=held,
        transfers=groups * math.prod(trips[loop] for loop in outer),
    )


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
        """Take the rates from a table that has an entry of each name."""
        return cls(**{field: table.entry(field).value for field in cls.__struct_fields__})

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
        Cycles the array waits to fill and drain, under the rules' :class:`Drain`.
    latency_cycles : int
        Loading the first blocks and storing the last, when nothing else can happen.
    stall_cycles : int
        Cycles beyond compute and bubbles: waiting for DRAM, and ``latency_cycles``.
    residences : tuple of Residence
        Indexed by :class:`Datum`.
    traffic : Traffic
        The eight counters.
    """

    tiles: int
    compute_cycles: int
    bubble_cycles: int
    latency_cycles: int
    stall_cycles: int
    residences: tuple[Residence, Residence, Residence]
    traffic: Traffic

    @property
    def cycles(self) -> int:
        """Total cycles."""
        return self.compute_cycles + self.bubble_cycles + self.stall_cycles

    def energy(self, rates: Rates) -> Energy:
        """Price cycles and traffic."""
        moved = {
            field: getattr(self.traffic, field) * getattr(rates, field)
            for field in self.traffic.__struct_fields__
        }
        dram_pj = moved.pop("dram_read") + moved.pop("dram_write")
        core_pj = (
            rates.core_static_per_cycle * self.cycles
            + rates.core_dynamic_per_compute_cycle * self.compute_cycles
        )
        return Energy(
            core_nj=core_pj / 1e3,
            sram_nj=sum(moved.values()) / 1e3,
            dram_nj=dram_pj / 1e3,
            dram_static_nj=rates.dram_static_per_cycle * self.cycles / 1e3,
        )


def cost(shape: ConvShape, rules: ArrayRules, mapping: Mapping) -> Cost:
    """Return cycles and traffic of a layer under a given mapping, in exact integers.

    The array and the DRAM bus overlap but for the first blocks in and the last block out.

    Raises
    ------
    InputError
        If a tile exceeds the layer, or does not fit its buffer.
    """
    trips = mapping.trips(shape)
    bits = rules.tile_bits(shape, mapping.tile)
    for datum, need, room in zip(Datum, bits, rules.rooms, strict=True):
        if need > room:
            raise InputError(
                f"a tile's {datum.name.lower()} block must fit the usable {room} bits of its "
                f"buffer, but takes {need}; choose a smaller tile than {mapping.tile}"
            )
    inputs, weights, outputs = (
        residence(datum, bits[datum], rules.rooms[datum], trips, mapping.order, shape.groups)
        for datum in Datum
    )
    tiles = shape.groups * math.prod(trips)
    steps = rules.steps(shape, mapping.tile)
    passes = rules.passes(shape, mapping.tile)
    between, last = rules.bubbles(steps // passes)
    to_array = rules.array_bits(shape, mapping.tile)
    read_back = outputs.bits if rules.outputs_read_back else 0
    traffic = Traffic(
        input_buffer_read=tiles * to_array[Datum.INPUT],
        input_buffer_write=inputs.bits,
        weight_buffer_read=tiles * to_array[Datum.WEIGHT],
        weight_buffer_write=weights.bits,
        output_buffer_read=tiles * to_array[Datum.OUTPUT] + outputs.bits,
        output_buffer_write=tiles * to_array[Datum.OUTPUT] + read_back,
        dram_read=inputs.bits + weights.bits + read_back,
        dram_write=outputs.bits,
    )
    # Before the first step and after the last one the bus and the array do not overlap.
    fill = inputs.held_bits + weights.held_bits
    fill += outputs.held_bits if rules.outputs_read_back else 0
    store = outputs.held_bits if rules.last_store_counted else 0
    width = rules.dram_bits_per_cycle
    latency = -(-fill // width) + -(-store // width)
    overlapped = traffic.dram_read + traffic.dram_write - fill - store
    compute = tiles * steps
    inner_bubbles = (tiles * passes - 1) * between
    waiting = max(0, -(-overlapped // width) - compute - inner_bubbles)
    return Cost(
        tiles=tiles,
        compute_cycles=compute,
        bubble_cycles=inner_bubbles + last,
        latency_cycles=latency,
        stall_cycles=waiting + latency,
        residences=(inputs, weights, outputs),
        traffic=traffic,
    )


@functools.cache
def _orders() -> tuple[np.ndarray, np.ndarray]:
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
    rows: list[tuple[int, ...]] = []
    starts = [0]
    for mask in range(32):
        single = tuple(loop for loop in Loop if mask >> loop & 1)
        several = [loop for loop in Loop if not mask >> loop & 1]
        rows += [single + order for order in itertools.permutations(several)]
        starts.append(len(rows))
    return np.array(rows, np.int64), np.array(starts, np.int64)


def _search(
    shape: np.ndarray,
    rules: np.ndarray,
    rates: np.ndarray,
    depends: np.ndarray,
    orders: np.ndarray,
    starts: np.ndarray,
    best: np.ndarray,
) -> float:
    """Find the cheapest mapping; the compiled form of :func:`cost` over all mappings.

    Parameters
    ----------
    shape, rules, rates : int64, int64, float64
        Fields of :class:`ConvShape`, :class:`ArrayRules` and :class:`Rates`, in their order.
    depends, orders, starts : bool, int64, int64
        ``DEPENDS`` and the two arrays of :func:`_orders`.
    best : int64, shape (10,)
        Written: the five tile sizes, then the five loops, innermost first.

    Returns
    -------
    float
        Energy of the best mapping in pJ; infinite if nothing fits.
    """
    (batch, out_h, out_w, kernel_h, kernel_w, stride_h, stride_w, dilation_h, dilation_w,
     in_ch, out_ch, groups) = shape  # fmt: skip
    (per_pixels, per_outputs, per_reduction, layout, granule, padded, read_back, last_store,
     out_granule, in_bits, w_bits, out_bits, in_room, w_room, out_room, width, reuse, drain,
     drain_cycles, exchange_cycles, pass_is_fold, repeats) = rules  # fmt: skip
    taps = kernel_h * kernel_w
    room = np.array([in_room, w_room, out_room])
    trips = np.empty(5, np.int64)
    bits = np.empty(3, np.int64)
    held = np.empty(3, np.int64)
    moved = np.empty(3, np.int64)
    best_cycles = np.int64(2**62)
    best_energy = np.inf
    # Large tiles first: they are rarely far from the best, so the bounds below bite early.
    b = np.int64(1)
    while b < batch:
        b *= 2
    while b >= 1:
        tb = min(b, batch)
        side = np.int64(1)
        while side < max(out_h, out_w):
            side *= 2
        while side >= 1:
            th, tw = min(side, out_h), min(side, out_w)
            pixels = tb * th * tw
            ic = np.int64(1)
            while ic < in_ch:
                ic *= 2
            while ic >= 1:
                tic = min(ic, in_ch)
                reduction = taps * tic
                stored = -(-reduction // granule) * granule
                if layout == 0:
                    rows = dilation_h * (kernel_h - 1) + 1 + (th - 1) * stride_h
                    columns = dilation_w * (kernel_w - 1) + 1 + (tw - 1) * stride_w
                    bits[0] = tb * rows * columns * tic * in_bits
                    folds = taps * -(-tic // per_reduction)
                else:
                    bits[0] = pixels * (stored if layout == 2 else reduction) * in_bits
                    folds = -(-reduction // per_reduction)
                oc = out_granule
                while oc < out_ch:
                    oc *= 2
                while oc >= out_granule and bits[0] <= in_room:
                    toc = min(oc, out_ch)
                    oc //= 2
                    bits[1] = stored * toc * w_bits
                    wide = -(-toc // per_outputs) * per_outputs if padded else toc
                    bits[2] = pixels * wide * out_bits
                    if bits[1] > w_room or bits[2] > out_room:
                        continue
                    trips[0] = -(-batch // tb)
                    trips[1] = -(-out_w // tw)
                    trips[2] = -(-out_h // th)
                    trips[3] = -(-in_ch // tic)
                    trips[4] = -(-out_ch // toc)
                    tiles = groups * trips[0] * trips[1] * trips[2] * trips[3] * trips[4]
                    steps = -(-pixels // per_pixels) * -(-toc // per_outputs) * folds * repeats
                    passes = np.int64(1)
                    if pass_is_fold:
                        if per_pixels > 1:
                            passes *= -(-pixels // per_pixels)
                        if per_outputs > 1:
                            passes *= -(-toc // per_outputs)
                        if per_reduction > 1:
                            passes *= folds
                    between = np.int64(0)
                    last = np.int64(0)
                    if drain != 0:
                        last = drain_cycles
                        if drain == 2:
                            between = max(np.int64(0), exchange_cycles - steps // passes)
                        elif drain == 3:
                            between = drain_cycles
                    compute = tiles * steps
                    array = compute + (tiles * passes - 1) * between
                    # No order does better than moving every block once.
                    least = (2 if read_back else 1) * bits[2]
                    least *= trips[0] * trips[1] * trips[2] * trips[4]
                    least += bits[0] * trips[0] * trips[1] * trips[2] * trips[3]
                    least += bits[1] * trips[3] * trips[4]
                    fill = bits[0] + bits[1] + (bits[2] if read_back else 0)
                    bound = max(array + -(-fill // width), -(-groups * least // width)) + last
                    if bound > best_cycles:
                        continue
                    macs = pixels * toc * reduction
                    in_read, w_read, out_each = macs * in_bits, macs * w_bits, macs * out_bits
                    once_out = pixels * toc * out_bits
                    once_w = reduction * toc * w_bits
                    once_in = reduction * pixels * in_bits
                    keep = reuse
                    if keep == 0:
                        keep = 1
                        saved = out_each - once_out
                        if w_read - once_w > saved:
                            keep, saved = 2, w_read - once_w
                        if in_read - once_in > saved:
                            keep = 3
                    if keep == 1:
                        out_each = once_out
                    elif keep == 2:
                        w_read = once_w
                    else:
                        in_read = once_in
                    fixed_energy = (
                        tiles
                        * (
                            in_read * rates[3]
                            + w_read * rates[5]
                            + out_each * (rates[7] + rates[8])
                        )
                        + compute * rates[1]
                    )
                    mask = 0
                    for loop in range(5):
                        if trips[loop] == 1:
                            mask |= 1 << loop
                    for row in range(starts[mask], starts[mask + 1]):
                        for datum in range(3):
                            block = bits[datum]
                            times = groups
                            keeps = True
                            for position in range(5):
                                loop = orders[row, position]
                                if keeps and depends[datum, loop]:
                                    keeps = block * trips[loop] <= room[datum]
                                    if keeps:
                                        block *= trips[loop]
                                if not keeps:
                                    times *= trips[loop]
                            held[datum] = block
                            moved[datum] = block * times
                        fill = held[0] + held[1] + (held[2] if read_back else 0)
                        store = held[2] if last_store else np.int64(0)
                        back = moved[2] if read_back else np.int64(0)
                        dram_read = moved[0] + moved[1] + back
                        busy = -(-(dram_read + moved[2] - fill - store) // width)
                        cycles = max(array, busy) + last + -(-fill // width) + -(-store // width)
                        if cycles > best_cycles:
                            continue
                        energy = (
                            fixed_energy
                            + cycles * (rates[0] + rates[2])
                            + moved[0] * rates[4]
                            + moved[1] * rates[6]
                            + moved[2] * rates[7]
                            + back * rates[8]
                            + dram_read * rates[9]
                            + moved[2] * rates[10]
                        )
                        if cycles < best_cycles or energy < best_energy:
                            best_cycles, best_energy = cycles, energy
                            best[0], best[1], best[2], best[3], best[4] = tb, tw, th, tic, toc
                            for position in range(5):
                                best[5 + position] = orders[row, position]
                ic //= 2
            side //= 2
        b //= 2
    return best_energy


@functools.cache
def _compiled_search() -> Any:
    """Compile :func:`_search` when it is first needed, so that configurations load at once."""
    return kernel()(_search)


def _numbers(record: msgspec.Struct, dtype: type) -> np.ndarray:
    return np.array([getattr(record, field) for field in record.__struct_fields__], dtype)


@functools.lru_cache(maxsize=4096)
def search(shape: ConvShape, rules: ArrayRules, rates: Rates) -> Mapping:
    """Return the mapping with the least cycles and, among equals, the least energy.

    Tiles are powers of two (the layer's extent where that is less; output rows and columns alike),
    output channels ``rules.output_granule`` times a power of two, in all 120 orders. Remembered by
    (shape, rules, rates), so repeated layers of a network cost nothing.

    Raises
    ------
    InputError
        If not even the smallest tile fits the buffers.
    """
    best = np.zeros(10, np.int64)
    orders, starts = _orders()
    energy = _compiled_search()(
        _numbers(shape, np.int64),
        _numbers(rules, np.int64),
        _numbers(rates, np.float64),
        np.array(DEPENDS),
        orders,
        starts,
        best,
    )
    if math.isinf(energy):
        raise InputError(
            f"no tile of {shape} fits buffers of {rules.rooms} usable bits "
            f"(input, weight, output); give the array larger buffers"
        )
    sizes = [int(size) for size in best[:5]]
    return Mapping(
        tile=Tile(**dict(zip(Tile.__struct_fields__, sizes, strict=True))),
        order=tuple(Loop(int(loop)) for loop in best[:4:-1]),  # type: ignore[arg-type]
    )
