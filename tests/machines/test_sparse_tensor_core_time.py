"""Is the sparse tensor core's time right: closed forms, physics, what L2 keeps, power?"""

from __future__ import annotations

import math
import time
from itertools import pairwise
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparqsim.architectures import presets
from sparqsim.architectures.arrays.shapes import ConvShape
from sparqsim.architectures.machine import run
from sparqsim.architectures.sparse_tensor_core import (
    Plan,
    Shape,
    SparseTensorCore,
    TensorCores,
    Tiling,
    best_tiling,
    tilings,
)
from sparqsim.architectures.sparse_tensor_core.config import TILES
from sparqsim.architectures.sparse_tensor_core.matrices import image_of, shape_of
from sparqsim.architectures.sparse_tensor_core.netlist import whole_cycles
from sparqsim.simulator.engines import simulate
from sparqsim.simulator.traffic import moved
from sparqsim.workloads.layers import Conv2d

SMALL_GPU = SparseTensorCore(sms=3)  # several waves of small tiles
PRESETS = presets.names("sparse-tensor-core")


def preset(name: str, **fields: Any) -> SparseTensorCore:
    machine = presets.load(name)
    assert isinstance(machine, SparseTensorCore)
    return msgspec.structs.replace(machine, **fields)


# ------------------------------------------------------------------ time


def test_every_tensor_core_has_a_warp() -> None:
    """A tile is cut as in CUTLASS's sm80 kernels: four warps at least, of 64 x 64 at most."""
    cores = preset("a100-40gb").cores("fp16", "dense")
    warps = {tile: cores.warp(Tiling(*tile, 1, 64, 1, 3)) for tile in TILES}
    assert warps == {
        (256, 128): (64, 64), (128, 256): (64, 64), (128, 128): (64, 64), (256, 64): (64, 64),
        (64, 256): (64, 64), (128, 64): (64, 32), (64, 128): (32, 64), (64, 64): (32, 32),
    }  # fmt: skip
    group = preset("h100").cores("fp16", "dense")  # one reads for all four tensor cores
    assert group.warp(Tiling(64, 128, 1, 64, 1, 3)) == (64, 128)


def test_one_tile_takes_the_sum_of_its_stages() -> None:
    """Closed form: launch, block start, DRAM, L2, port, multiply, epilogue, store, one by one."""
    machine = preset("a100-40gb")
    rows, columns, depth = 50, 40, 60
    tiling = Tiling(64, 64, 1, 64, 1, 3)
    lowered = machine.gemm(rows, columns, depth, pattern="dense", tiling=tiling)
    per_cycle = machine.dram_gbytes_per_s * 1e9 * machine.dram_efficiency / machine.clock_hz
    moved = (rows + columns) * depth * 2
    launch = math.ceil(machine.launch_us * 1e-6 * machine.clock_hz)
    dram = int(moved / per_cycle) + 466 - 261
    l2 = int(moved / 5120) + 261
    tensor = math.ceil(64 * 64 * 64 / 1000)  # 1000 of 1024 multipliers' cycles
    shared = math.ceil((2 * 64 * 64 * 2 + 4 * 2 * 32 * 64 * 2) / 128)  # four warps of 32 x 32
    mma = max(tensor, shared) + 30
    epilogue = 2 * 64 * 64 * 4 // 128
    store = int(rows * columns * 2 / per_cycle) + 466
    expected = launch + 500 + dram + l2 + math.ceil(moved / 64) + mma + epilogue + store
    assert simulate(lowered.netlist).cycles == expected


def test_the_last_wave_costs_a_whole_one() -> None:
    """Two tiles more than there are SMs take nearly twice the time, as twice the tiles do."""
    machine = preset("a100-40gb", launch_us=0.0)
    tiling = Tiling(128, 128, 1, 64, 64, 4)

    def cycles(high: int, wide: int) -> int:
        lowered = machine.gemm(128 * high, 128 * wide, 4096, pattern="dense", tiling=tiling)
        return simulate(lowered.netlist).cycles

    full, more, twice = cycles(9, 12), cycles(10, 11), cycles(18, 12)  # 108, 110, 216 tiles
    assert 1.9 < more / full < 2.1
    assert twice == pytest.approx(more, rel=0.05)


shapes = st.tuples(st.integers(1, 900), st.integers(1, 600), st.integers(1, 900), st.integers(1, 2))


@settings(max_examples=40, deadline=None)
@given(
    shape=shapes,
    name=st.sampled_from(list(PRESETS)),
    dtype=st.sampled_from(["fp16", "tf32", "int8"]),
    pattern=st.sampled_from(["native", "dense"]),
)
def test_physics(shape: tuple[int, int, int, int], name: str, dtype: str, pattern: str) -> None:
    """No multiplier, port or memory does more than it can; nothing is read less than once."""
    machine = preset(name)
    cores = machine.cores(dtype, pattern)
    lowered = machine.gemm(*shape, dtype=dtype, pattern=pattern)
    timeline = simulate(lowered.netlist)
    cycles = timeline.cycles
    slots = lowered.counters(timeline)["multiplier_slots"]
    assert lowered.macs.effectual <= slots <= cycles * lowered.multipliers
    plan = Plan(cores, Shape(*shape), best_tiling(cores, Shape(*shape)))
    s, bits = plan.shape, cores.kind.bits
    operands = s.batch * s.depth * (s.rows * cores.weight_bits / 8 + s.columns * bits / 8)
    assert plan.missed_bytes.sum() >= operands * (1 - 1e-9)
    assert plan.missed_bytes.sum() <= plan.l2_bytes * (1 + 1e-9)
    memory = lowered.account.memory(lowered.netlist, timeline.seconds)
    assert memory["dram"].read_bits == pytest.approx(8 * plan.missed_bytes.sum(), abs=1)
    assert memory["l2"].read_bits == pytest.approx(
        8 * (plan.l2_bytes + plan.output_bytes)
        + (plan.tiling.splits > 1) * plan.tiles * 8 * cores.epilogue_bytes(plan.tiling),
        abs=1,
    )
    dram = memory["dram"]
    limit = machine.dram_gbytes_per_s * machine.dram_efficiency
    assert dram.read_gbytes_per_s + dram.written_gbytes_per_s <= limit * 1.001
    for actor in timeline.netlist.actors:
        assert (timeline.lane_times(actor.name).finished >= 0).all()


@pytest.mark.parametrize("shape", [(300, 200, 500), (64, 70, 4096)])
def test_bits_over_time_are_the_reports(shape: tuple[int, int, int]) -> None:
    """Every memory has ports: what they move over the run sums to what the report says. Operands
    reach shared memory as L2 gives them; of a split depth, sums pass through L2 too."""
    result = run(SMALL_GPU, SMALL_GPU.gemm(*shape, pattern="dense"))
    memory = result.report.memory
    assert set(result.traffic) == set(memory) == {"registers", "shared", "l2", "dram"}
    for name, use in memory.items():
        over_time = moved(result.timeline, result.traffic[name])
        assert over_time.read_bits.sum() == pytest.approx(use.read_bits)
        assert over_time.written_bits.sum() == pytest.approx(use.written_bits)
    assert memory["l2"].written_bits >= memory["dram"].read_bits + memory["dram"].written_bits


@settings(max_examples=15, deadline=None)
@given(shape=shapes, dtype=st.sampled_from(["fp16", "int8"]))
def test_engines_agree(shape: tuple[int, int, int, int], dtype: str) -> None:
    """Starts and causes are the same to the cycle on both engines."""
    rows, columns, depth, batch = shape
    sizes = rows % 300 + 1, columns % 200 + 1, depth % 300 + 1, batch
    netlist = SMALL_GPU.gemm(*sizes, dtype=dtype).netlist
    fast, slow = (simulate(netlist, engine=engine) for engine in ("compiled", "simpy"))
    assert fast.starts is not None and slow.starts is not None
    assert all((one == two).all() for one, two in zip(fast.starts, slow.starts, strict=True))


@pytest.mark.parametrize("pattern", ["native", "dense"])
@pytest.mark.parametrize("shape", [(512, 512, 1024), (4096, 8, 2048), (1000, 300, 700)])
def test_more_is_never_slower(pattern: str, shape: tuple[int, int, int]) -> None:
    """With the tiling held, more bandwidth, stages or a lower latency never cost time.

    Requests are whole cycles, so a wider memory may round a store up where it was rounded down:
    one cycle for each wave is allowed.
    """
    machine = SparseTensorCore()
    tiling = best_tiling(machine.cores("fp16", pattern), Shape(*shape))

    def cycles(stages: int = tiling.stages, **fields: Any) -> int:
        changed = msgspec.structs.replace(machine, **fields)
        cut = tiling._replace(stages=stages)
        lowered = changed.gemm(*shape, pattern=pattern, tiling=cut)
        return simulate(lowered.netlist, record="summary").cycles

    base = cycles()
    for fields in (
        {"dram_gbytes_per_s": 3110.0},
        {"l2_bytes_per_cycle": 10240},
        {"port_bytes_per_cycle": 128},
        {"shared_bytes_per_cycle": 256},
        {"dram_latency_cycles": 300},
        {"launch_us": 1.0},
    ):
        assert cycles(**fields) <= base + 4, fields
    by_stages = [cycles(stages=count) for count in range(2, 7)]
    assert all(after <= before + 4 for before, after in pairwise(by_stages))


@pytest.mark.parametrize("pattern", ["1:4", "2:4", "4:8", "2:16", "8:16"])
def test_the_multipliers_gain_is_m_over_n(pattern: str) -> None:
    """Multiplications of an N:M product are N/M of the dense one's, and so are their cycles."""
    machine = preset("any-nm")
    n, m = map(int, pattern.split(":"))
    shape = (256, 256, 1024)
    both = [machine.gemm(*shape, pattern=each) for each in (pattern, "dense")]
    counts = [p.counters(simulate(p.netlist))["multiplier_slots"] for p in both]
    assert counts[0] * m == counts[1] * n
    cores = machine.cores("fp16", pattern)
    tiling = best_tiling(cores, Shape(*shape))
    assert (
        cores.tensor_cycles(tiling) == tiling.rows * tiling.columns * tiling.step * n // m // 1024
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a100-40gb", "h100", "orin"])
@pytest.mark.parametrize("dtype", ["fp16", "int8"])
@pytest.mark.parametrize("pattern", ["native", "dense"])
def test_the_tiling_is_nearly_the_best(name: str, dtype: str, pattern: str) -> None:
    """The estimate picks a tiling within 10 % of the best of all, simulated."""
    machine = preset(name)
    cores = machine.cores(dtype, pattern)
    for shape in ((4096, 1, 4096), (2048, 2048, 2048), (4096, 512, 4096), (10240, 2048, 512)):
        times = {}
        for tiling in tilings(cores, Shape(*shape)):
            lowered = machine.gemm(*shape, dtype=dtype, pattern=pattern, tiling=tiling)
            times[tiling] = simulate(lowered.netlist, record="summary").cycles
        assert times[best_tiling(cores, Shape(*shape))] <= 1.1 * min(times.values()), shape


def test_a_large_product_in_two_seconds() -> None:
    """4096^3 on the A100 model, dense and sparse, each under 2 s of processor time."""
    machine = SparseTensorCore()
    simulate(machine.gemm(64, 64, 64).netlist, record="summary")  # compile
    for pattern in ("native", "dense"):
        begin = time.process_time()
        report = run(machine, machine.gemm(4096, 4096, 4096, pattern=pattern)).report
        assert time.process_time() - begin < 2.0
        assert 0.7 < report.utilization["multipliers"] < 1.0


# ------------------------------------------------------------------ what L2 keeps


def naive_misses(plan: Plan, capacity: float) -> list[float]:
    """Bytes each wave misses, with panels in dictionaries, a wave at a time."""
    cores, tiling = plan.cores, plan.tiling
    last: dict[tuple[Any, ...], int] = {}
    read: list[float] = []
    missed = []
    for wave in range(plan.waves):
        panels: dict[tuple[Any, ...], float] = {}
        for tile in range(wave * plan.lanes, min((wave + 1) * plan.lanes, plan.tiles)):
            product, split, row, column = map(int, plan.order[tile])
            first = split * tiling.steps * tiling.step
            depth = max(0, min(tiling.steps * tiling.step, plan.shape.depth - first))
            high = min(tiling.rows, plan.shape.rows - row * tiling.rows)
            wide = min(tiling.columns, plan.shape.columns - column * tiling.columns)
            panels["rows", product, split, row] = high * depth * cores.weight_bits / 8
            panels["columns", product, split, column] = wide * depth * cores.kind.bits / 8
        gone = [p for p in panels if p not in last or sum(read[last[p] :]) > capacity]
        missed.append(sum(panels[p] for p in gone))
        last |= dict.fromkeys(panels, wave)
        read.append(sum(panels.values()))
    return missed


@settings(max_examples=40, deadline=None)
@given(
    shape=st.tuples(
        st.integers(1, 3000), st.integers(1, 3000), st.integers(1, 500), st.integers(1, 2)
    ),
    sms=st.integers(1, 20),
    mib=st.sampled_from([0.01, 0.3, 1.0, 1000.0]),
    splits=st.sampled_from([1, 2]),
)
def test_l2_against_a_naive_one(
    shape: tuple[int, int, int, int], sms: int, mib: float, splits: int
) -> None:
    """Misses are those of dictionaries of panels; a huge L2 reads every operand once."""
    machine = SparseTensorCore(sms=sms, l2_mib=mib, l2_partitions=1)
    total = -(-shape[2] // 64)
    total += total % splits
    tiling = Tiling(128, 64, splits, 64, total // splits, 3)
    plan = Plan(machine.cores(), Shape(*shape), tiling)
    assert plan.missed_bytes.tolist() == pytest.approx(naive_misses(plan, mib * 2**20))
    assert sorted(map(tuple, plan.order.tolist())) == sorted(set(map(tuple, plan.order.tolist())))


def naive_rows(plan: Plan, capacity: float) -> list[float]:
    """Bytes of activations and weights each wave misses, tap by tap and place by place."""
    assert plan.image is not None
    conv, cores, t = plan.image.conv, plan.cores, plan.tiling
    used = {x for ox in range(conv.output[1]) for x in places(conv, 1, ox) if x is not None}
    row_bytes = len(used) * conv.in_channels // conv.groups * cores.kind.bits / 8
    last: dict[tuple[Any, ...], int] = {}
    read: list[float] = []
    missed = []
    for wave in range(plan.waves):
        touched: dict[tuple[Any, ...], float] = {}
        for tile in range(wave * plan.lanes, min((wave + 1) * plan.lanes, plan.tiles)):
            product, split, high, wide = map(int, plan.order[tile])
            low = split * t.steps * t.step
            depth = range(low, min(low + t.steps * t.step, plan.shape.depth))
            rows = min(t.rows, plan.shape.rows - high * t.rows)
            touched["weights", product, split, high] = rows * len(depth) * cores.weight_bits / 8
            ks = {d // plan.image.channels // conv.kernel[1] for d in depth}
            for c in range(wide * t.columns, min((wide + 1) * t.columns, plan.shape.columns)):
                image, y = divmod(c // conv.output[1], conv.output[0])
                for k, row in enumerate(places(conv, 0, y)):
                    if k in ks and row is not None:
                        touched["image", product, image, row] = row_bytes
        gone = [p for p in touched if p not in last or sum(read[last[p] :]) > capacity]
        missed.append(sum(touched[p] for p in gone))
        last |= dict.fromkeys(touched, wave)
        read.append(sum(touched.values()))
    return missed


def places(conv: Conv2d, axis: int, output: int) -> list[int | None]:
    """Row or column of the image that each tap of an output reads, or None for padding."""
    first = output * conv.stride[axis] - conv.padding[axis]
    found = [first + tap * conv.dilation[axis] for tap in range(conv.kernel[axis])]
    return [place if 0 <= place < conv.input[axis] else None for place in found]


def naive_loads(plan: Plan) -> list[float]:
    """Bytes each tile brings to its SM, tap by tap."""
    assert plan.image is not None
    image, cores, t = plan.image, plan.cores, plan.tiling
    conv, found = image.conv, []
    for _, split, high, wide in plan.order.tolist():
        rows = min(t.rows, plan.shape.rows - high * t.rows)
        loaded = 0.0
        low = split * t.steps * t.step
        for d in range(low, min(low + t.steps * t.step, plan.shape.depth)):
            loaded += rows * cores.weight_bits / 8
            tap, channel = divmod(d, image.channels)
            ky, kx = divmod(tap, conv.kernel[1])
            if channel >= conv.in_channels // conv.groups:
                continue  # made up to fill a group
            for c in range(wide * t.columns, min((wide + 1) * t.columns, plan.shape.columns)):
                y, x = divmod(c % (conv.output[0] * conv.output[1]), conv.output[1])
                if places(conv, 0, y)[ky] is not None and places(conv, 1, x)[kx] is not None:
                    loaded += cores.kind.bits / 8
        found.append(loaded)
    return found


@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_an_image_is_fetched_by_rows_and_loaded_by_taps(data: st.DataObject) -> None:
    """DRAM misses of rows and loads of taps, written out; a huge L2 reads each row once."""
    draw = data.draw
    conv = Conv2d(
        name="c", in_channels=2 * draw(st.integers(1, 9)), out_channels=2, groups=2,
        input=(draw(st.integers(3, 8)), draw(st.integers(3, 8))),
        kernel=(draw(st.integers(1, 3)), draw(st.integers(1, 3))),
        stride=(draw(st.integers(1, 3)), draw(st.integers(1, 2))),
        padding=(1, 2, 0, 1), dilation=(draw(st.integers(1, 2)), 1), batch=draw(st.integers(1, 3)),
    )  # fmt: skip
    mib = draw(st.sampled_from([0.001, 0.003, 100.0]))
    machine = SparseTensorCore(sms=draw(st.integers(1, 4)), l2_mib=mib, l2_partitions=1)
    cores = machine.cores("fp16", draw(st.sampled_from(["native", "dense"])))
    shape, image = shape_of(conv, cores.sparsity), image_of(conv, cores.sparsity)
    assert image is not None
    steps = -(-shape.depth // 16)
    splits = draw(st.sampled_from([1, 2])) if steps % 2 == 0 else 1
    plan = Plan(cores, shape, Tiling(2, 16, splits, 16, steps // splits, 3), image)
    assert plan.missed_bytes.tolist() == pytest.approx(naive_rows(plan, mib * 2**20))
    assert plan.step_bytes.sum(axis=1).tolist() == pytest.approx(naive_loads(plan))
    if mib == 100:
        weights = shape.batch * shape.rows * shape.depth * cores.weight_bits / 8
        least = ConvShape.of(conv).inputs * 2
        assert image.elements * 2 == least
        assert plan.missed_bytes.sum() == pytest.approx(least + weights)


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    lanes=st.integers(1, 9),
    firings=st.integers(1, 60),
    mean=st.floats(1.5, 50),
)
def test_whole_cycles_lose_nothing(seed: int, lanes: int, firings: int, mean: float) -> None:
    """Running sums of the rounded cycles stay within one of the exact ones."""
    exact = np.random.default_rng(seed).uniform(1.0, 2 * mean - 1, (firings, lanes))
    whole = whole_cycles(exact)
    assert whole.min() >= 1
    assert (np.abs(np.cumsum(whole - exact, axis=0)) <= 1 + 1e-9).all()


# ------------------------------------------------------------------ power


def test_a_power_limit_lowers_the_clock() -> None:
    """Below what multiplying takes, the clock falls so that the main loop meets the limit."""
    machine = SparseTensorCore()
    shape, cores = Shape(2048, 2048, 2048), machine.cores("fp16", "dense")
    full = cores.main_loop_power_w(shape, best_tiling(cores, shape))
    assert machine.idle_w < full <= machine.tdp_w
    free = run(machine, machine.gemm(*shape, pattern="dense")).report
    for limit in (150.0, 250.0):
        held = msgspec.structs.replace(machine, power_limit_w=limit)
        lowered = held.gemm(*shape, pattern="dense")
        ratio = lowered.netlist.clock_hz / machine.clock_hz
        assert ratio == pytest.approx((limit - 50) / (full - 50))
        report = run(held, lowered).report
        assert report.seconds > free.seconds
        assert report.energy.average_power_w <= limit
        assert any("power limit" in note for note in report.notes)
    loose = msgspec.structs.replace(machine, power_limit_w=full)
    assert loose.gemm(*shape, pattern="dense").netlist.clock_hz == machine.clock_hz


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("dtype", ["fp16", "int8"])
def test_the_dense_peak_takes_tdp(name: str, dtype: str) -> None:
    """Steps of a large tile without a barrier, at the peak: idle power and the rest of the peak's.
    Integer kernels of an earlier generation are not what a board's peak is."""
    machine = preset(name, legacy_integers=0.0)
    cores = machine.cores(dtype, "dense")
    tiling = Tiling(256, 128, 1, 1024 // cores.kind.bits, 1, 1)
    seconds = cores.slots(tiling) / cores.macs_per_sm / machine.clock_hz
    power = machine.sms * sum(cores.step_energy_pj(tiling).values()) * 1e-12 / seconds
    assert power + machine.idle_w == pytest.approx(machine.tdp_w * machine.peak_over_tdp)


def test_a_sparse_step_moves_more_for_its_multiplications() -> None:
    """By hand for fp16 2:4, 256 x 128 tiles in 64 x 64 parts: bytes of each memory, x a slot."""
    sparse: TensorCores = SparseTensorCore().cores()
    dense = sparse.dense
    tiling = Tiling(256, 128, 1, 64, 1, 3)
    one, other = dense.step_energy_pj(tiling), sparse.step_energy_pj(tiling)
    # weights 256 or 64 rows of 64: 2 bytes, or 1.125 with positions; activations 2 bytes
    l2 = (64 * (256 * 1.125 + 128 * 2)) / (64 * (256 + 128) * 2)
    part = (64 * 1.125 + 64 * 2) / (64 * 2 * 2)
    written, read = 256 + 128, 8 * (64 + 64)
    shared = (l2 * written + part * read) / (written + read)
    # m16n8k32 against m16n8k16: 16 rows and 8 columns of operands, 128 sums read and written
    registers = (16 * 32 * 1.125 + 8 * 32 * 2 + 1024) / ((16 + 8) * 16 * 2 + 1024) / 2
    assert other["multiplying"] == pytest.approx(one["multiplying"] / 2)
    assert other["l2"] == pytest.approx(l2 * one["l2"])
    assert other["shared memory"] == pytest.approx(shared * one["shared memory"])
    assert other["registers"] == pytest.approx(registers * one["registers"])
    each = 2 * sum(other.values()) / sum(one.values())
    assert 1.1 < each < 1.25


def test_a_limit_of_the_mean_leaves_short_products_alone() -> None:
    """The mean over a product meets the limit where its main loop passes it; a product of which
    half is launch and waits keeps its clock."""
    machine = preset("h100", power_limit_w=500.0)
    for shape, held in (((4096, 4096, 1024), True), ((512, 512, 512), False)):
        program = machine.gemm(*shape, pattern="dense")
        cores = machine.cores("fp16", "dense")
        full = cores.main_loop_power_w(Shape(*shape), best_tiling(cores, Shape(*shape)))
        report = run(machine, program, record="summary").report
        if held:
            assert report.energy.average_power_w == pytest.approx(500, rel=0.05) and full > 500
        assert (program.netlist.clock_hz < machine.clock_hz) == held
        main = msgspec.structs.replace(machine, limit_of_mean=False)
        assert main.gemm(*shape, pattern="dense").netlist.clock_hz <= program.netlist.clock_hz


def test_a_limit_of_tdp_holds_the_sparse_product_alone() -> None:
    """At the A100's 400 W a large dense product keeps its clock; a 2:4 one does not."""
    machine = SparseTensorCore(power_limit_w=400.0)
    shape = Shape(4096, 4096, 4096)
    assert machine.gemm(*shape, pattern="dense").netlist.clock_hz == machine.clock_hz
    clock_hz = machine.gemm(*shape).netlist.clock_hz
    assert 0.8 * machine.clock_hz < clock_hz < machine.clock_hz
