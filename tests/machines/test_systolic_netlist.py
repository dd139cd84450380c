"""Does a netlist of single elements take the time the formulas say, and one of tiles that of both?

Elements prove the closed forms: folds apart (SCALE-Sim's equations), folds back to back, columns
that accumulate (Bit Fusion's RTL). Tiles are held against the analytic model that knows no queues,
on the authors' own tilings, and against bounds no machine can beat.
"""

from __future__ import annotations

import csv
import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from paths import DATA

from sparqsim.architectures.ant import Ant
from sparqsim.architectures.bitfusion import BitFusion
from sparqsim.architectures.systolic import (
    NM,
    POST_STAGES,
    Charge,
    Dataflow,
    SystolicGrid,
    accumulator_netlist,
    column_edge,
    element_netlist,
    tile_netlist,
)
from sparqsim.architectures.tiling import ConvShape, Datum, Drain, search
from sparqsim.base import InputError
from sparqsim.scripts.validation._arrays import Case, ant_case, bitfusion_case, read_rows
from sparqsim.scripts.validation.systolic import REFERENCE
from sparqsim.simulator.engines import simulate

small, size = st.integers(1, 6), st.integers(1, 13)


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(Dataflow), small, small, size, size, size)
def test_elements_with_folds_apart_take_the_published_cycles(dataflow, rows, columns, m, n, k):
    """A fold is loaded, streamed and drained before the next: SCALE-Sim's equations exactly."""
    grid = SystolicGrid(
        rows=rows,
        columns=columns,
        dataflow=dataflow,
        skew=Charge.PER_FOLD,
        load=Charge.PER_FOLD,
    )
    folds = grid.folds(m, n, k)
    assert simulate(element_netlist(grid, folds)).cycles == folds.cycles


@settings(deadline=None, max_examples=20)
@given(small, small, size, size, st.integers(1, 4), st.integers(1, 4), st.integers(1, 4))
def test_elements_skip_pruned_weights(rows, columns, m, n, groups, kept, more) -> None:
    """N:M weights: only kept ones are held, so the reduction is shorter; the formula exactly."""
    grid = SystolicGrid(rows=rows, columns=columns, skew=Charge.PER_FOLD, load=Charge.PER_FOLD)
    pattern = NM(kept=kept, of=kept + more)
    folds = grid.folds(m, n, groups * pattern.of, pattern)
    assert folds == grid.folds(m, n, groups * kept)
    assert simulate(element_netlist(grid, folds)).cycles == folds.cycles


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(Dataflow), small, small, size, size, size)
def test_folds_back_to_back_cost_fill_and_drain_once(dataflow, rows, columns, m, n, k) -> None:
    """A pass takes its steps, or the rows that are shifted in or out beside it; the rest is once.

    Fill and drain are R + C - 2 cycles, and R more to load the first fold's stationary operand or
    to shift the last fold's sums out. This is what ``exchange_cycles`` and ``drain_cycles`` of the
    tiling rules stand for.
    """
    grid = SystolicGrid(rows=rows, columns=columns, dataflow=dataflow)
    folds = grid.folds(m, n, k)
    assume(max(rows, folds.steps) > 1)  # a register cannot be refilled in the cycle it is emptied
    passes = (folds.count - 1) * max(folds.steps, rows) + folds.steps
    cycles = simulate(element_netlist(grid, folds)).cycles
    assert cycles == passes + (rows + columns - 2) + rows
    if dataflow is not Dataflow.OUTPUT_STATIONARY and folds.steps >= rows:
        assert cycles == folds.cycles  # charged per layer, the closed form says the same


@settings(deadline=None, max_examples=40)
@given(small, small, st.integers(1, 9), st.integers(1, 5))
def test_accumulating_columns_finish_on_their_edges(rows, columns, steps, tiles) -> None:
    """Column c of tile t is final after edge (t + 1) T + R + c, whatever the shape."""
    timeline = simulate(accumulator_netlist(rows=rows, columns=columns, steps=steps, tiles=tiles))
    ends = timeline.starts_of("accumulators") + 1
    for tile in range(tiles):
        for column in range(columns):
            edge = column_edge(tile=tile, column=column, steps=steps, rows=rows)
            assert ends[(tile + 1) * steps - 1, column] == edge
    assert timeline.cycles == tiles * steps + rows + columns - 1


def test_elements_give_the_edges_of_the_rtl() -> None:
    """Every row of ``bitfusion_rtl_latency.csv``, from 512 elements."""
    with (DATA / "bitfusion_rtl_latency.csv").open() as file:
        rows = list(csv.DictReader(line for line in file if not line.startswith("#")))
    assert len(rows) == 3
    for row in rows:
        timeline = simulate(
            accumulator_netlist(
                rows=int(row["N"]),
                columns=int(row["M"]),
                steps=int(row["T_steps"]),
                tiles=int(row["tiles"]),
            )
        )
        last = timeline.starts_of("accumulators")[(int(row["tile"]) + 1) * int(row["T_steps"]) - 1]
        assert last[0] + 1 == int(row["edge_col0"])
        assert last[-1] + 1 == int(row["edge_colLast"])


def test_overheads_charged_apart_are_refused() -> None:
    """A fold cannot be loaded before the last one has drained, yet drain with the next."""
    grid = SystolicGrid(rows=2, columns=2, skew=Charge.PER_FOLD, load=Charge.PER_LAYER)
    with pytest.raises(InputError, match="charge them alike"):
        element_netlist(grid, grid.folds(2, 2, 2))


@pytest.mark.slow
@pytest.mark.parametrize("dataflow", Dataflow)
def test_elements_give_the_smallest_published_layers(dataflow) -> None:
    """The smallest layer of each dataflow in ``scalesim_layers.csv``, element by element."""
    rows = [row for _, row in read_rows(REFERENCE)]
    mine = [r for r in rows if r["dataflow"] == dataflow.value and not r.get("sparsity")]
    row = min(mine, key=lambda r: int(r["total_cycles"]))
    side = [int(part) for part in row["array"].split("x")]
    grid = SystolicGrid(
        rows=side[0],
        columns=side[1],
        dataflow=dataflow,
        skew=Charge.PER_FOLD,
        load=Charge.PER_FOLD,
    )
    folds = grid.folds(*(int(row[f"gemm_{letter}"]) for letter in "MNK"))
    timeline = simulate(element_netlist(grid, folds), record="summary")
    assert timeline.cycles - 1 == int(row["total_cycles"])  # theirs counts from 0


# ---------------------------------------------------------------------------------- tiles


def event_driven(case: Case, drain: Drain) -> tuple[int, int]:
    """Cycles of the netlist and of the analytic model, both with that rule for drains."""
    rules = replace(case.rules, drain=drain, last_store_counted=True)
    netlist, analytic, *_ = tile_netlist(case.shape, rules, case.mapping, clock_hz=5e8)
    return simulate(netlist, record="summary").cycles, analytic.cycles


def cases(table: str) -> list[Case]:
    rebuild = bitfusion_case if table.startswith("bitfusion") else ant_case
    return [rebuild(row) for _, row in read_rows(DATA / table)]


@pytest.mark.parametrize(
    ("table", "every"),
    [
        ("bitfusion_layers.csv", 9),
        ("ant_layers.csv", 24),
        pytest.param("bitfusion_layers.csv", 1, marks=pytest.mark.slow),
        pytest.param("ant_layers.csv", 1, marks=pytest.mark.slow),
    ],
)
def test_tiles_take_what_the_analytic_model_says(table: str, every: int) -> None:
    """The authors' tilings, layers over 100,000 cycles: within 1 % of analytic + fill and drain.

    Both with passes back to back and with short passes held up by what is shifted beside them.
    """
    for case in cases(table)[::every]:
        for drain in (Drain.PER_LAYER, Drain.SHORT_PASSES):
            cycles, analytic = event_driven(case, drain)
            if analytic > 100_000:
                assert cycles == pytest.approx(analytic, rel=0.01), case.label


shapes = st.builds(
    ConvShape.square,
    batch=st.integers(1, 5),
    out=st.integers(1, 9),
    kernel=st.integers(1, 3),
    stride=st.integers(1, 2),
    in_channels=st.integers(1, 70),
    out_channels=st.integers(1, 70),
)


@settings(deadline=None, max_examples=40)
@given(shapes, st.booleans(), st.integers(1, 3))
def test_tiles_obey_bounds_and_move_their_bits(shape: ConvShape, ant: bool, groups: int) -> None:
    """No faster than the array or the bus, each bit moved once as counted, the end accounted for.

    The last block drains, passes the post-processing and is stored with nothing to hide behind.
    """
    shape = replace(shape, groups=groups)
    machine: Ant | BitFusion = Ant() if ant else BitFusion(output_buffer_kib=2)
    rules = machine.layer_rules(shape, (4, 4))
    netlist, analytic, *_ = tile_netlist(
        shape, rules, search(shape, rules, machine.rates), clock_hz=machine.clock_hz
    )
    timeline = simulate(netlist)
    width = rules.dram_bits_per_cycle
    moved = {
        name: int(timeline.lane_times(name).busy.sum())
        for name in ("input_dma", "weight_dma", "output_dma")
    }
    for name, block in zip(moved, analytic.residences, strict=True):
        words = block.bits / width
        assert math.ceil(words) <= moved[name] <= words + block.transfers + 1
    bus = sum(moved.values())
    if rules.outputs_read_back:
        bus += int(timeline.lane_times("psum_dma").busy.sum())
    assert timeline.cycles >= bus
    stored = int(np.asarray(netlist.actor("output_dma").busy)[-1, 0])
    tail = rules.drain_cycles + rules.exchange_cycles + POST_STAGES + stored
    last = timeline.starts_of("array")[-1, 0] + np.asarray(netlist.actor("array").busy)[-1, 0]
    assert timeline.cycles >= last + tail
    assert timeline.cycles >= analytic.compute_cycles + tail
    assert timeline.fired[netlist.index("array")][0] == analytic.tiles


def test_one_tile_costs_the_sum_of_its_parts() -> None:
    """Nothing overlaps: loads, steps, drain, post-processing and store one after the other."""
    machine = BitFusion()
    shape = ConvShape(batch=3, in_channels=20, out_channels=32)
    rules = machine.layer_rules(shape, (8, 8))
    netlist, analytic, *_ = tile_netlist(
        shape, rules, search(shape, rules, machine.rates), clock_hz=5e8
    )
    assert analytic.tiles == 1
    # inputs 3 * 20 * 8 bits, weights 32 rows (a multiple of 16) * 32 * 8, sums 3 * 32 * 32
    loads = -(-480 // 192) + -(-8192 // 192) + 3072 // 192
    steps = 3 * 2
    cycles = loads + steps + (16 + 32 - 1) + POST_STAGES + 3072 // 192
    assert simulate(netlist).cycles == cycles


@settings(deadline=None, max_examples=12)
@given(shapes, st.booleans())
def test_both_engines_run_tiles_alike(shape: ConvShape, ant: bool) -> None:
    """Starts of every firing and their causes."""
    machine: Ant | BitFusion = Ant() if ant else BitFusion()
    rules = machine.layer_rules(shape, (4, 4))
    netlist, analytic, *_ = tile_netlist(
        shape, rules, search(shape, rules, machine.rates), clock_hz=5e8
    )
    assume(analytic.tiles < 400)
    compiled, simpy = (simulate(netlist, engine=engine) for engine in ("compiled", "simpy"))
    assert compiled.cycles == simpy.cycles
    for actor in netlist.actors:
        assert np.array_equal(compiled.starts_of(actor.name), simpy.starts_of(actor.name))
        assert np.array_equal(compiled.causes_of(actor.name), simpy.causes_of(actor.name))


def test_a_buffer_holds_as_many_blocks_as_fit_and_no_more() -> None:
    """Blocks loaded but not yet done with, at any cycle: at most what the whole buffer holds."""
    for case in cases("bitfusion_layers.csv")[2:40:6]:
        netlist, analytic, *_ = tile_netlist(case.shape, case.rules, case.mapping, clock_hz=5e8)
        timeline = simulate(netlist)
        array = timeline.starts_of("array")[:, 0]
        ends = array + np.asarray(netlist.actor("array").busy)[0, 0]
        for name, datum in (("input", Datum.INPUT), ("weight", Datum.WEIGHT)):
            block = analytic.residences[datum]
            places = 2 * case.rules.rooms[datum] // block.held_bits
            channel = netlist.channel(f"{name}_place")
            freed = ends[np.broadcast_to(channel.produce, (analytic.tiles, 1))[:, 0] == 1]
            begun = timeline.starts_of(f"{name}_dma")[:, 0]
            opens = np.asarray(netlist.channel(f"{name}s").produce)[:, 0]
            first = np.concatenate([[True], opens[:-1] == 1])
            begun = begun[first]
            for k in range(places, block.transfers):
                assert begun[k] >= freed[k - places]
