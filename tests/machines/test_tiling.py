"""Does tiling count what it says, and does the search find the least?

``cost`` is held against laws (nothing moves less than once, nothing is faster than the array or the
bus) and hand-worked layers; the compiled ``search`` against an exhaustive walk of every
power-of-two tile in all 120 orders with the plain ``cost``.
"""

from __future__ import annotations

import itertools
import math
import time

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from sparqsim.architectures.tiling import (
    DEPENDS,
    ArrayRules,
    ConvShape,
    Datum,
    Drain,
    Layout,
    Loop,
    Mapping,
    Rates,
    Reuse,
    Tile,
    cost,
    residence,
    search,
)
from sparqsim.base import InputError
from sparqsim.workloads.layers import Conv2d, Linear, MatMul
from sparqsim.workloads.models import get_model

ORDER = (Loop.BATCH, Loop.COLUMNS, Loop.ROWS, Loop.INPUTS, Loop.OUTPUTS)
RULES = ArrayRules(
    pixels_per_step=1,
    outputs_per_step=4,
    reduction_per_step=8,
    layout=Layout.PATCH,
    reduction_granule=8,
    outputs_padded=True,
    outputs_read_back=True,
    last_store_counted=True,
    output_granule=4,
    input_bits=8,
    weight_bits=8,
    output_bits=32,
    input_room_bits=4096,
    weight_room_bits=4096,
    output_room_bits=4096,
    dram_bits_per_cycle=64,
    drain_cycles=11,
    exchange_cycles=8,
)
RATES = Rates(
    core_static_per_cycle=1.0,
    core_dynamic_per_compute_cycle=5.0,
    dram_static_per_cycle=0.5,
    input_buffer_read=0.031,
    input_buffer_write=0.037,
    weight_buffer_read=0.041,
    weight_buffer_write=0.043,
    output_buffer_read=0.047,
    output_buffer_write=0.053,
    dram_read=7.0,
    dram_write=11.0,
)


def whole(high: int) -> st.SearchStrategy[int]:
    return st.integers(1, high)


shapes = st.builds(
    ConvShape,
    batch=whole(3),
    out_height=whole(4),
    out_width=whole(3),
    kernel_height=whole(3),
    kernel_width=whole(2),
    stride_height=whole(2),
    stride_width=whole(2),
    dilation_height=whole(2),
    dilation_width=whole(2),
    in_channels=whole(5),
    out_channels=whole(6),
    groups=whole(2),
)
rules = st.builds(
    ArrayRules,
    pixels_per_step=whole(3),
    outputs_per_step=whole(4),
    reduction_per_step=whole(4),
    layout=st.sampled_from(Layout),
    reduction_granule=whole(4),
    outputs_padded=st.booleans(),
    outputs_read_back=st.booleans(),
    last_store_counted=st.booleans(),
    output_granule=whole(3),
    input_bits=st.sampled_from([1, 4, 8]),
    weight_bits=st.sampled_from([1, 4, 8]),
    output_bits=st.sampled_from([8, 32]),
    input_room_bits=st.integers(64, 1200),
    weight_room_bits=st.integers(384, 1200),
    output_room_bits=st.integers(128, 1200),
    dram_bits_per_cycle=whole(200),
    reuse=st.sampled_from(Reuse),
    drain=st.sampled_from(Drain),
    drain_cycles=st.integers(10, 20),
    exchange_cycles=st.integers(0, 10),
    pass_is_fold=st.booleans(),
    repeats=whole(2),
)


def powers(extent: int, granule: int = 1) -> list[int]:
    """Return granule, 2 granule, ... up to the first that reaches the extent, capped by it."""
    sizes = [granule]
    while sizes[-1] < extent:
        sizes.append(2 * sizes[-1])
    return sorted({min(size, extent) for size in sizes})


def every_tile(shape: ConvShape, array: ArrayRules) -> list[Tile]:
    """Return every tile the search may use and whose blocks fit."""
    sides = powers(max(shape.out_height, shape.out_width))
    tiles = [
        Tile(
            batch=batch,
            out_height=min(side, shape.out_height),
            out_width=min(side, shape.out_width),
            in_channels=inputs,
            out_channels=outputs,
        )
        for batch in powers(shape.batch)
        for side in sides
        for inputs in powers(shape.in_channels)
        for outputs in powers(shape.out_channels, array.output_granule)
    ]
    return [
        tile
        for tile in tiles
        if all(n <= r for n, r in zip(array.tile_bits(shape, tile), array.rooms, strict=True))
    ]


@settings(max_examples=25, deadline=None)
@given(shape=shapes, array=rules)
def test_search_finds_the_exhaustive_minimum(shape: ConvShape, array: ArrayRules) -> None:
    """Pruned and compiled, the search reaches the least cycles and, among them, least energy."""
    costs = [
        cost(shape, array, Mapping(tile=tile, order=order))
        for tile in every_tile(shape, array)
        for order in itertools.permutations(Loop)
    ]
    if not costs:
        with pytest.raises(InputError, match="no tile of"):
            search(shape, array, RATES)
        return
    least = min(c.cycles for c in costs)
    energy = min(c.energy(RATES).total_nj for c in costs if c.cycles == least)
    found = cost(shape, array, search(shape, array, RATES))
    assert found.cycles == least
    assert found.energy(RATES).total_nj == pytest.approx(energy, rel=1e-12)


@given(
    trips=st.tuples(*[whole(5)] * 5),
    order=st.permutations(list(Loop)),
    datum=st.sampled_from(Datum),
    tile_bits=whole(50),
    spare=st.integers(0, 3000),
    more=st.integers(0, 3000),
)
def test_a_buffer_moves_every_block_once_or_more_and_never_more_with_more_room(
    trips: tuple[int, ...], order: list[Loop], datum: Datum, tile_bits: int, spare: int, more: int
) -> None:
    """Compulsory traffic bounds it from below, a tile a visit from above; room only helps."""
    room = tile_bits + spare
    small = residence(datum, tile_bits, room, trips, tuple(order))
    large = residence(datum, tile_bits, room + more, trips, tuple(order))
    blocks = math.prod(trips[loop] for loop in Loop if DEPENDS[datum][loop])
    assert tile_bits * blocks <= large.bits <= small.bits <= tile_bits * math.prod(trips)
    assert small.held_bits <= room
    if tile_bits * blocks <= room:
        assert small.bits == tile_bits * blocks


@given(
    trips=st.tuples(*[whole(4)] * 5),
    order=st.permutations(list(Loop)),
    datum=st.sampled_from(Datum),
    tile_bits=whole(50),
    spare=st.integers(0, 800),
)
def test_a_buffer_that_keeps_its_block_serves_every_tile_of_the_walk(
    trips: tuple[int, ...], order: list[Loop], datum: Datum, tile_bits: int, spare: int
) -> None:
    """Walking all tiles, what is held holds every tile asked for, and loads are what is counted."""
    kept = residence(datum, tile_bits, tile_bits + spare, trips, tuple(order))
    outer = len(order) - kept.absorbed
    held: set[tuple[int, ...]] = set()
    where: tuple[int, ...] | None = None
    loads = 0
    for index in itertools.product(*(range(trips[loop]) for loop in order)):
        if index[:outer] != where:
            where, held, loads = index[:outer], set(), loads + 1
        held.add(tuple(i for i, loop in zip(index, order, strict=True) if DEPENDS[datum][loop]))
        assert len(held) * tile_bits <= kept.held_bits
    assert loads == kept.transfers


@settings(deadline=None)
@given(shape=shapes, array=rules, data=st.data())
def test_cost_obeys_the_array_and_the_bus(
    shape: ConvShape, array: ArrayRules, data: st.DataObject
) -> None:
    """No layer beats one full step a cycle, nor the bus; traffic adds up."""
    tiles = every_tile(shape, array)
    if not tiles:
        return
    order = tuple(data.draw(st.permutations(list(Loop))))
    c = cost(shape, array, Mapping(tile=data.draw(st.sampled_from(tiles)), order=order))
    peak = array.pixels_per_step * array.outputs_per_step * array.reduction_per_step
    moved = c.traffic.dram_read + c.traffic.dram_write
    assert c.cycles == c.compute_cycles + c.bubble_cycles + c.stall_cycles
    assert c.compute_cycles * peak >= shape.macs * array.repeats
    assert c.cycles * array.dram_bits_per_cycle >= moved
    back = c.residences[Datum.OUTPUT].bits if array.outputs_read_back else 0
    assert c.traffic.dram_read == sum(c.residences[d].bits for d in Datum if d != 2) + back
    # The whole output is stored at least once.
    assert c.traffic.dram_write >= shape.groups * shape.batch * shape.out_height * (
        shape.out_width * shape.out_channels * array.output_bits
    )


def test_a_layer_worked_by_hand() -> None:
    """4 tiles of 3 x 2 steps; weights stay, inputs pass once, sums stay until they are complete."""
    shape = ConvShape(batch=3, in_channels=32, out_channels=8)
    tile = Tile(batch=3, out_width=1, out_height=1, in_channels=16, out_channels=4)
    order = (Loop.BATCH, Loop.COLUMNS, Loop.ROWS, Loop.OUTPUTS, Loop.INPUTS)
    c = cost(shape, RULES, Mapping(tile=tile, order=order))
    assert (c.tiles, c.compute_cycles, c.bubble_cycles) == (4, 4 * 3 * 2, 0)
    inputs, weights, outputs = 3 * 32 * 8, 32 * 8 * 8, 3 * 8 * 32
    assert [r.bits for r in c.residences] == [inputs, weights, outputs]
    assert c.traffic.dram_read == inputs + weights + outputs
    assert c.traffic.dram_write == outputs
    # All three fit whole: everything is loaded before, and stored after.
    assert c.latency_cycles == -(-(inputs + weights + outputs) // 64) + outputs // 64
    assert c.stall_cycles == c.latency_cycles
    # Output stationary: an operand a multiply-accumulate, a sum once a tile.
    assert c.traffic.input_buffer_read == 3 * 32 * 8 * 8
    assert c.traffic.output_buffer_read == 2 * outputs + outputs


@pytest.mark.parametrize(
    ("drain", "by_fold", "bubbles"),
    [
        (Drain.NONE, False, 0),
        (Drain.PER_LAYER, False, 11),
        (Drain.SHORT_PASSES, False, 11 + 3 * (8 - 6)),
        (Drain.PER_PASS, False, 11 + 3 * 11),
        (Drain.SHORT_PASSES, True, 11 + 7 * (8 - 3)),  # a tile is two folds of the reduction
        (Drain.PER_PASS, True, 11 + 7 * 11),
    ],
)
def test_bubbles_are_what_cannot_overlap(drain: Drain, by_fold: bool, bubbles: int) -> None:
    """Four tiles of six steps; the array takes 11 cycles to empty, 8 to shift its results out."""
    shape = ConvShape(batch=3, in_channels=32, out_channels=8)
    tile = Tile(batch=3, out_width=1, out_height=1, in_channels=16, out_channels=4)
    array = replace(RULES, drain=drain, pass_is_fold=by_fold)
    assert cost(shape, array, Mapping(tile=tile, order=ORDER)).bubble_cycles == bubbles


@settings(max_examples=40, deadline=None)
@given(shape=shapes, array=rules)
def test_counting_drains_in_the_search_never_hurts(shape: ConvShape, array: ArrayRules) -> None:
    """Under a rule that charges drains, the search that counts them is at least as good."""
    if not every_tile(shape, array):
        return
    found = []
    for drain in Drain:
        charged = replace(array, drain=drain)
        blind = search(shape, replace(array, drain=Drain.NONE), RATES)
        seeing = cost(shape, charged, search(shape, charged, RATES))
        assert seeing.cycles <= cost(shape, charged, blind).cycles
        found.append(seeing.cycles)
    assert found == sorted(found)  # each rule charges at least what the one before it does


def test_groups_are_one_more_outer_loop() -> None:
    """G independent problems move G times the data and compute G times as long, loaded once."""
    one = ConvShape(batch=4, out_height=4, out_width=4, in_channels=8, out_channels=8)
    many = replace(one, groups=6)
    mapping = search(one, RULES, RATES)
    single, six = cost(one, RULES, mapping), cost(many, RULES, mapping)
    assert six.compute_cycles == 6 * single.compute_cycles
    for field in single.traffic.__struct_fields__:
        assert getattr(six.traffic, field) == 6 * getattr(single.traffic, field)
    assert six.latency_cycles == single.latency_cycles


def test_shapes_of_layers_keep_their_multiply_accumulates() -> None:
    """Every kind of layer has as many multiply-accumulates as its tiling shape."""
    layers = [
        Conv2d(
            name="c", in_channels=6, out_channels=9, input=(17, 13), kernel=(3, 5), stride=(2, 1),
            padding=(1, 2), dilation=(2, 1), groups=3, batch=2,
        ),
        Linear(name="l", in_features=7, out_features=5, rows=3),
        MatMul(name="m", m=4, k=3, n=2, batch=6),
    ]  # fmt: skip
    for layer in layers:
        assert ConvShape.of(layer).macs == layer.macs
        assert ConvShape.of(layer, batch=4).macs == 4 * layer.macs
    assert ConvShape.of(layers[2], batch=4).groups == 24  # a new right operand a sample
    # A dilated patch: 2 * (3 - 1) + 1 rows for one output, 2 more for the next.
    assert ConvShape.of(layers[0]).patch(2, 1) == (7, 5)


def test_resnet50_is_searched_in_under_two_seconds() -> None:
    """All layers, all tiles, all orders; compiled before the clock starts."""
    layers = get_model("resnet50").layers
    array = replace(
        RULES,
        outputs_per_step=32,
        reduction_per_step=16,
        input_room_bits=2**17,
        weight_room_bits=2**18,
        output_room_bits=2**16,
        drain=Drain.SHORT_PASSES,
    )
    search(ConvShape.of(layers[0]), array, RATES)
    search.cache_clear()
    start = time.perf_counter()
    for layer in layers:
        search(ConvShape.of(layer, batch=16), array, RATES)
    assert time.perf_counter() - start < 2.0
    assert search.cache_info().hits > 0  # repeated shapes are remembered


def test_a_tile_must_fit_its_buffer_and_its_layer() -> None:
    """Both errors say which loop or buffer, what it needs and what there is."""
    shape = ConvShape(batch=3, in_channels=32, out_channels=8)
    tile = Tile(batch=3, out_width=1, out_height=1, in_channels=32, out_channels=8)
    small = replace(RULES, weight_room_bits=2047)
    with pytest.raises(InputError, match="weight block must fit the usable 2047 bits"):
        cost(shape, small, Mapping(tile=tile, order=ORDER))
    with pytest.raises(InputError, match="tile of 4 along BATCH exceeds the layer's 3"):
        cost(shape, RULES, Mapping(tile=replace(tile, batch=4), order=ORDER))


@pytest.mark.parametrize("bad", [0, -1, 1.0, math.nan, True, "1", None])
@pytest.mark.parametrize("field", ["batch", "kernel_width", "in_channels", "groups"])
def test_shapes_reject_what_is_not_a_count(field: str, bad: object) -> None:
    """A shape is whole numbers of at least 1, at birth."""
    fields = {"batch": 1, "in_channels": 1, "out_channels": 1, field: bad}
    with pytest.raises(InputError, match=f"ConvShape.{field} must be a whole number"):
        ConvShape(**fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"input_bits": 0}, "ArrayRules.input_bits"),
        ({"dram_bits_per_cycle": math.inf}, "ArrayRules.dram_bits_per_cycle"),
        ({"drain_cycles": -1}, "ArrayRules.drain_cycles"),
        ({"exchange_cycles": -1}, "ArrayRules.exchange_cycles"),
        ({"exchange_cycles": 12}, "exchange_cycles must be at most drain_cycles"),
        ({"drain": 2}, "ArrayRules.drain must be one of Drain.s NONE, "),
        ({"pass_is_fold": 1}, "ArrayRules.pass_is_fold must be true or false"),
        ({"layout": "im2col"}, "ArrayRules.layout must be one of Layout.s PATCH"),
    ],
)
def test_rules_reject_nonsense(changes: dict[str, object], message: str) -> None:
    """Rules are checked at birth, choices are of their type."""
    with pytest.raises(InputError, match=message):
        replace(RULES, **changes)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -1.0, "1"])
def test_rates_reject_what_is_not_an_energy(bad: object) -> None:
    """A rate is a finite number of pJ, at least 0."""
    with pytest.raises(InputError, match=r"Rates.dram_read must be a finite number"):
        replace(RATES, dram_read=bad)


def test_orders_and_fields_are_checked() -> None:
    """An order names every loop once; unknown keys are refused when read from a file."""
    tile = Tile(batch=1, out_width=1, out_height=1, in_channels=1, out_channels=1)
    with pytest.raises(InputError, match="each of the five loops once"):
        Mapping(tile=tile, order=(Loop.BATCH,) * 5)
    with pytest.raises(msgspec.ValidationError, match="unknown field"):
        msgspec.convert({"batch": 1, "in_channels": 1, "out_channels": 1, "pad": 1}, ConvShape)
