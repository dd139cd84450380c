"""Is the sparse tensor core right: its numbers, its outputs on both engines, its time's physics?"""

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
from numpy.typing import NDArray

from sparqsim.architectures.machine import run
from sparqsim.architectures.registry import get_machine
from sparqsim.architectures.sparse_tensor_core import (
    PRESETS,
    Shape,
    SparseTensorCore,
    Sparsity,
    Tiling,
    _Plan,
    _whole_cycles,
    encode,
    preset,
    prune_to,
)
from sparqsim.base import InputError
from sparqsim.simulator.engines import simulate
from sparqsim.workloads.layers import Conv2d, Linear
from sparqsim.workloads.tensors import LayerTensors, from_digits, made_up

SMALL_GPU: dict[str, Any] = {"sms": 3}  # 64 x 64 tiles of small layers make several waves


def linear(rows: int = 70, depth: int = 200, out: int = 150, seed: int = 1) -> LayerTensors:
    rng = np.random.default_rng(seed)
    made = made_up(Linear(name="l", in_features=depth, out_features=out, rows=rows), rng)
    return LayerTensors(
        layer=made.layer,
        weight=made.sparse_weight.to_dense(),
        activation=made.activation,
        bias=rng.normal(size=out).astype(np.float32),
    )


def conv() -> LayerTensors:
    layer = Conv2d(
        name="c", in_channels=12, out_channels=20, input=(9, 8), kernel=(3, 3),
        padding=(1, 0, 2, 1), stride=(2, 1), groups=2, batch=2,
    )  # fmt: skip
    return made_up(layer, np.random.default_rng(2))


# ------------------------------------------------------------------ numbers of the datasheet


@pytest.mark.parametrize(
    ("name", "dtype", "dense", "sparse"),
    [
        ("a100-40", "fp16", 312, 624),
        ("a100-40", "bf16", 312, 624),
        ("a100-40", "int8", 624, 1248),
        ("a100-40", "tf32", 156, 312),
        ("a100-40", "int4", 1248, 2496),
        ("h100", "fp16", 989.4, 1978.9),
        ("orin", "int8", 85.2, 170.4),
    ],
)
def test_peaks_are_the_published_ones(name: str, dtype: str, dense: float, sparse: float) -> None:
    """SMs x multipliers x clock gives the white papers' TOP/s (Orin's: 85 and 170)."""
    machine = preset(name, dtype=dtype)
    figures = {figure.name: figure.value for figure in machine.datasheet()}
    assert float(figures["peak, dense"].split()[0]) == pytest.approx(dense, rel=2e-3)
    assert float(figures["peak, sparse"].split()[0]) == pytest.approx(sparse, rel=2e-3)


@pytest.mark.parametrize(
    ("dtype", "share"),
    [("fp16", 0.5625), ("bf16", 0.5625), ("int8", 0.625), ("tf32", 0.515625), ("int4", 0.625)],
)
def test_storage_is_the_published_share(dtype: str, share: float) -> None:
    """2:4 of fp16 takes 56.25 % of the dense bits, of int8 62.5 %: values and positions."""
    machine = SparseTensorCore(dtype=dtype)
    assert machine.sparsity.stored_bits(machine.kind.bits) == share * machine.kind.bits
    tensors = linear(depth=256)
    program = machine.lower(tensors)
    stored = program.counters(simulate(program.netlist))["weight_bits"]
    assert stored == share * machine.kind.bits * 150 * 256


@pytest.mark.parametrize("name", PRESETS)
def test_every_number_of_a_preset_has_a_source(name: str) -> None:
    """The datasheet prints each number with its basis; the numbers are the configuration's."""
    machine = preset(name)
    for figure in machine.datasheet():
        assert figure.source and figure.basis in ("published", "derived", "assumed")
        if hasattr(machine, figure.name):
            assert float(figure.value) == pytest.approx(getattr(machine, figure.name), rel=1e-5)


def test_the_registry_knows_it() -> None:
    """``sparqsim run sparse-tensor-core`` finds the machine."""
    assert get_machine("sparse-tensor-core") is SparseTensorCore


# ------------------------------------------------------------------ outputs


@pytest.mark.parametrize("dtype", ["fp16", "bf16", "tf32", "int8", "int4"])
@pytest.mark.parametrize("pattern", ["native", "dense"])
@pytest.mark.parametrize("make", [linear, conv])
def test_outputs_are_exact_on_both_engines(dtype: str, pattern: str, make: Any) -> None:
    """Verified against dense products; the SimPy run computes the same bits in its firings."""
    machine = SparseTensorCore(dtype=dtype, pattern=pattern, **SMALL_GPU)
    program = machine.lower(make())
    fast = run(machine, program).report
    slow = run(machine, program, engine="simpy", execute=True).report
    assert fast.verification.status == slow.verification.status == "exact"
    assert fast.cycles == slow.cycles and fast.stalls == slow.stalls


@pytest.mark.parametrize("pattern", ["1:2", "1:4", "3:8", "2:16", "4:8", "5:5"])
@pytest.mark.parametrize("dtype", ["fp16", "int8"])
def test_any_pattern_is_exact(pattern: str, dtype: str) -> None:
    """The generic core takes any N:M, also where M does not divide the depth or a step."""
    machine = preset("generic", pattern=pattern, dtype=dtype)
    program = machine.lower(linear(depth=203))
    report = run(machine, program, engine="simpy", execute=True).report
    assert report.verification.status == "exact"


@pytest.mark.parametrize("dtype", ["fp16", "int8"])
def test_a_split_depth_is_exact(dtype: str) -> None:
    """Parts of the depth on different SMs, whichever ends first, add up in their order."""
    tensors = linear(rows=256, depth=2048, out=64)
    machine = SparseTensorCore(dtype=dtype, pattern="dense")
    program = machine.lower(tensors)
    assert "depth split in" in program.notes[0]
    report = run(machine, program, engine="simpy", execute=True).report
    assert report.verification.status == "exact"
    whole = msgspec.structs.replace(machine, dense_split_k=False)
    assert "depth split" not in whole.lower(tensors).notes[0]


def test_a_lost_token_shows() -> None:
    """The executed run is compared: another step's operands give other sums."""
    program = SparseTensorCore(dtype="int8", **SMALL_GPU).lower(linear())
    simulate(program.netlist, engine="simpy", verify="execute")
    assert program.executed is not None and program.executed()
    program.executed.__self__.run_parts[0, 0, 3, 4] += 1  # type: ignore[attr-defined]
    assert not program.executed()


def test_integers_against_numpy() -> None:
    """int8 outputs are the integer product of the scaled and pruned operands, plus the bias."""
    tensors = linear(depth=64, out=24, rows=5)
    weights = prune_to(np.asarray(tensors.weight, np.float64), Sparsity(2, 4))
    scales = [float(np.abs(a).max()) / 127 for a in (weights, tensors.activation)]
    left = np.rint(weights / scales[0]).astype(np.int64)
    right = np.rint(tensors.activation.astype(np.float64) / scales[1]).astype(np.int64)
    assert tensors.bias is not None
    bias = np.rint(tensors.bias.astype(np.float64) / (scales[0] * scales[1])).astype(np.int64)
    outputs = SparseTensorCore(dtype="int8").lower(tensors).outputs
    assert outputs is not None and (outputs[0] == right @ left.T + bias).all()


def test_floats_are_close_to_the_layer() -> None:
    """fp16 of weights that fit 2:4 already: the layer's own output within fp16's rounding."""
    tensors = linear()
    fitting = prune_to(np.asarray(tensors.weight), Sparsity(2, 4)).astype(np.float32)
    given = LayerTensors(layer=tensors.layer, weight=fitting, activation=tensors.activation)
    program = SparseTensorCore().lower(given)
    exact = tensors.activation.astype(np.float64) @ fitting.T
    scale = np.abs(tensors.activation) @ np.abs(fitting).T
    assert program.outputs is not None
    assert (np.abs(program.outputs[0] - exact) <= 2.0**-10 * scale).all()
    assert not any("pruned" in note for note in program.notes)


def test_a_wrong_output_is_found() -> None:
    """Verification sees one changed sum, and a float that is off by its last bit in the sample."""
    for dtype in ("int8", "fp16"):
        program = SparseTensorCore(dtype=dtype).lower(linear(rows=8))
        assert program.verify is not None and program.verify().status == "exact"
        work = program.verify.__self__  # type: ignore[attr-defined]
        if dtype == "int8":
            work.outputs[0, 3, 5] += 1
        else:
            work.sums[0, 3, 5] = np.nextafter(work.sums[0, 3, 5], np.float32(np.inf))
        assert program.verify().mismatches == 1


@pytest.mark.parametrize("dtype", ["fp16", "int8", "int4"])
def test_all_zero_and_all_dense(dtype: str) -> None:
    """Zero weights give zeros and no effectual MAC; the time is that of any weights."""
    tensors = linear()
    zero = LayerTensors(
        layer=tensors.layer,
        weight=np.zeros(tensors.layer.weight_shape, np.float32),
        activation=tensors.activation,
    )
    machine = SparseTensorCore(dtype=dtype)
    nothing, some = (run(machine, t).report for t in (zero, tensors))
    assert nothing.macs.effectual == 0 and nothing.verification.status == "exact"
    assert nothing.cycles == some.cycles
    outputs = machine.lower(zero).outputs
    assert outputs is not None and not outputs.any()
    full = LayerTensors(
        layer=tensors.layer,
        weight=np.ones(tensors.layer.weight_shape, np.float32),
        activation=np.ones_like(tensors.activation),
    )
    dense = run(machine.dense, full).report
    assert dense.macs.effectual == dense.macs.dense == tensors.layer.macs
    kept = run(machine, full).report
    assert kept.macs.effectual == kept.macs.dense // 2


def test_a_real_layer() -> None:
    """A trained layer on real images comes out exact, pruned and dense."""
    tensors = from_digits("cnn", "conv2", images=4)
    for machine in (SparseTensorCore(dtype="int8"), SparseTensorCore(pattern="dense")):
        assert run(machine, tensors).report.verification.status == "exact"


# ------------------------------------------------------------------ encoding


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    sparsity=st.sampled_from(
        [Sparsity(2, 4), Sparsity(1, 2), Sparsity(2, 4, 2), Sparsity(3, 8), Sparsity(1, 1)]
    ),
    depth=st.integers(1, 40),
)
def test_what_is_stored_is_what_was_pruned(seed: int, sparsity: Sparsity, depth: int) -> None:
    """Scattering values to their positions gives the pruned matrix; pairs go together."""
    rng = np.random.default_rng(seed)
    dense = rng.integers(-8, 8, (3, depth))
    pruned = prune_to(dense, sparsity)
    values, places, bits = encode(pruned, sparsity, 4)
    back = np.zeros((3, -(-depth // sparsity.group) * sparsity.group), np.int64)
    at = np.arange(values.shape[1]) // sparsity.kept * sparsity.group + places
    np.put_along_axis(back, at, values.astype(np.int64), axis=1)
    assert (back[:, :depth] == pruned).all() and not back[:, depth:].any()
    if not sparsity.is_dense:
        assert bits == pytest.approx(back.size * sparsity.stored_bits(4))
    again = prune_to(pruned, sparsity)
    assert (again == pruned).all()


def test_pairs_of_int4_by_hand() -> None:
    """4:8 by pairs keeps the two largest of four pairs, whole."""
    weights = np.array([[1, 1, 7, 0, 0, -5, 2, 2]])
    pruned = prune_to(weights, Sparsity(2, 4, 2))
    assert pruned.tolist() == [[0, 0, 7, 0, 0, -5, 0, 0]]
    values, places, bits = encode(pruned, Sparsity(2, 4, 2), 4)
    assert values.tolist() == [[7, 0, 0, -5]]
    assert places.tolist() == [[2, 3, 4, 5]]
    assert bits == 2 * (8 + 2)


# ------------------------------------------------------------------ time


def test_one_tile_takes_the_sum_of_its_stages() -> None:
    """Closed form: launch, block start, DRAM, L2, port, multiply, epilogue, store, one by one."""
    machine = preset("a100-40", pattern="dense")
    rows, columns, depth = 50, 40, 60
    program = machine.gemm(rows, columns, depth, tiling=Tiling(64, 64, 1, 64, 1, 3))
    per_cycle = machine.dram_gbytes_per_s * 1e9 * machine.dram_efficiency / machine.clock_hz
    moved = (rows + columns) * depth * 2
    launch = math.ceil(machine.launch_us * 1e-6 * machine.clock_hz)
    dram = int(moved / per_cycle) + 466 - 261
    l2 = int(moved / 5120) + 261
    tensor = math.ceil(64 * 64 * 64 / 1000)  # 1000 of 1024 multipliers' cycles
    shared = math.ceil((2 * 64 * 64 * 2 + 2 * 64 * 64 * 2) / 128)
    mma = max(tensor, shared) + 30
    epilogue = 2 * 64 * 64 * 4 // 128
    store = int(rows * columns * 2 / per_cycle) + 466
    expected = launch + 500 + dram + l2 + math.ceil(moved / 64) + mma + epilogue + store
    assert simulate(program.netlist).cycles == expected


def test_the_last_wave_costs_a_whole_one() -> None:
    """Two tiles more than there are SMs take nearly twice the time, as twice the tiles do."""
    machine = preset("a100-40", pattern="dense", launch_us=0.0)
    tiling = Tiling(128, 128, 1, 64, 64, 4)

    def cycles(high: int, wide: int) -> int:
        program = machine.gemm(128 * high, 128 * wide, 4096, tiling=tiling)
        return simulate(program.netlist).cycles

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
    machine = preset(name, dtype=dtype, pattern=pattern)
    program = machine.gemm(*shape)
    timeline = simulate(program.netlist)
    cycles = timeline.cycles
    slots = program.counters(timeline)["multiplier_slots"]
    assert program.macs.effectual <= slots <= cycles * program.multipliers
    plan = _Plan(machine, Shape(*shape), machine.tiling(Shape(*shape)))
    s, bits = plan.shape, machine.kind.bits
    operands = (
        s.batch * s.depth * (s.rows * machine.sparsity.stored_bits(bits) / 8 + s.columns * bits / 8)
    )
    assert plan.missed_bytes.sum() >= operands * (1 - 1e-9)
    assert plan.missed_bytes.sum() <= plan.l2_bytes * (1 + 1e-9)
    dram = program.memory(timeline)["dram"]
    limit = machine.dram_gbytes_per_s * machine.dram_efficiency
    assert dram.read_gbytes_per_s + dram.written_gbytes_per_s <= limit * 1.001
    for actor in timeline.netlist.actors:
        assert (timeline.lane_times(actor.name).finished >= 0).all()


@settings(max_examples=15, deadline=None)
@given(shape=shapes, dtype=st.sampled_from(["fp16", "int8"]))
def test_engines_agree(shape: tuple[int, int, int, int], dtype: str) -> None:
    """Starts and causes are the same to the cycle on both engines."""
    rows, columns, depth, batch = shape
    machine = SparseTensorCore(dtype=dtype, **SMALL_GPU)
    netlist = machine.gemm(rows % 300 + 1, columns % 200 + 1, depth % 300 + 1, batch).netlist
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
    machine = SparseTensorCore(pattern=pattern)
    tiling = machine.tiling(Shape(*shape))

    def cycles(stages: int = tiling.stages, **fields: Any) -> int:
        changed = msgspec.structs.replace(machine, **fields)
        cut = tiling._replace(stages=stages)
        return simulate(changed.gemm(*shape, tiling=cut).netlist, record="summary").cycles

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
    machine = preset("generic", pattern=pattern)
    n, m = map(int, pattern.split(":"))
    shape = (256, 256, 1024)
    sparse, dense = machine.gemm(*shape), machine.dense.gemm(*shape)
    counts = [p.counters(simulate(p.netlist))["multiplier_slots"] for p in (sparse, dense)]
    assert counts[0] * m == counts[1] * n
    tiling = machine.tiling(Shape(*shape))
    assert (
        machine._tensor_cycles(tiling)
        == tiling.rows * tiling.columns * tiling.step * n // m // 1024
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a100-40", "h100", "orin"])
@pytest.mark.parametrize("dtype", ["fp16", "int8"])
@pytest.mark.parametrize("pattern", ["native", "dense"])
def test_the_tiling_is_nearly_the_best(name: str, dtype: str, pattern: str) -> None:
    """The estimate picks a tiling within 10 % of the best of all, simulated."""
    machine = preset(name, dtype=dtype, pattern=pattern)
    for shape in ((4096, 1, 4096), (2048, 2048, 2048), (4096, 512, 4096), (10240, 2048, 512)):
        times = {
            tiling: simulate(machine.gemm(*shape, tiling=tiling).netlist, record="summary").cycles
            for tiling in machine._tilings(Shape(*shape))
        }
        assert times[machine.tiling(Shape(*shape))] <= 1.1 * min(times.values()), shape


def test_a_large_product_in_two_seconds() -> None:
    """4096^3 on the A100 model, dense and sparse, each under 2 s of processor time."""
    machine = SparseTensorCore()
    simulate(machine.gemm(64, 64, 64).netlist, record="summary")  # compile
    for one in (machine, machine.dense):
        begin = time.process_time()
        report = run(one, one.gemm(4096, 4096, 4096)).report
        assert time.process_time() - begin < 2.0
        assert 0.7 < report.utilization["multipliers"] < 1.0


# ------------------------------------------------------------------ what L2 keeps


def naive_misses(plan: _Plan, capacity: float) -> list[float]:
    """Bytes each wave misses, with panels in dictionaries, a wave at a time."""
    machine, tiling = plan.machine, plan.tiling
    last: dict[tuple[Any, ...], int] = {}
    read: list[float] = []
    missed = []
    for wave in range(plan.waves):
        panels: dict[tuple[Any, ...], float] = {}
        for tile in range(wave * plan.lanes, min((wave + 1) * plan.lanes, plan.tiles)):
            product, split, row, column = map(int, plan.order[tile])
            depth = min(tiling.steps * tiling.step,
                        plan.shape.depth - split * tiling.steps * tiling.step)  # fmt: skip
            high = min(tiling.rows, plan.shape.rows - row * tiling.rows)
            wide = min(tiling.columns, plan.shape.columns - column * tiling.columns)
            bits = machine.kind.bits
            stored = machine.sparsity.stored_bits(bits)
            panels["rows", product, split, row] = high * depth * stored / 8
            panels["columns", product, split, column] = wide * depth * bits / 8
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
    plan = _Plan(machine, Shape(*shape), Tiling(128, 64, splits, 64, total // splits, 3))
    assert plan.missed_bytes.tolist() == pytest.approx(naive_misses(plan, mib * 2**20))
    assert sorted(map(tuple, plan.order.tolist())) == sorted(set(map(tuple, plan.order.tolist())))


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
    whole = _whole_cycles(exact)
    assert whole.min() >= 1
    assert (np.abs(np.cumsum(whole - exact, axis=0)) <= 1 + 1e-9).all()


# ------------------------------------------------------------------ power


def test_a_power_limit_lowers_the_clock() -> None:
    """Below what multiplying takes, the clock falls so that the main loop meets the limit."""
    machine = SparseTensorCore(pattern="dense")
    shape = Shape(2048, 2048, 2048)
    full = machine.main_loop_power_w(shape)
    assert machine.idle_w < full <= machine.tdp_w
    free = run(machine, machine.gemm(*shape)).report
    for limit in (150.0, 250.0):
        held = msgspec.structs.replace(machine, power_limit_w=limit)
        program = held.gemm(*shape)
        ratio = program.netlist.clock_hz / machine.clock_hz
        assert ratio == pytest.approx((limit - 50) / (full - 50))
        report = run(held, program).report
        assert report.seconds > free.seconds
        assert report.energy.average_power_w <= limit
        assert any("power limit" in note for note in report.notes)
    loose = msgspec.structs.replace(machine, power_limit_w=full)
    assert loose.gemm(*shape).netlist.clock_hz == machine.clock_hz


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("dtype", ["fp16", "int8"])
def test_the_dense_peak_takes_tdp(name: str, dtype: str) -> None:
    """Steps of the largest tile without a barrier, at the peak: idle power and TDP's rest."""
    machine = preset(name, dtype=dtype, pattern="dense")
    tiling = Tiling(256, 128, 1, 1024 // machine.kind.bits, 1, 1)
    seconds = machine._slots(tiling) / machine.macs_per_sm / machine.clock_hz
    power = machine.sms * sum(machine.step_energy_pj(tiling).values()) * 1e-12 / seconds
    assert power + machine.idle_w == pytest.approx(machine.tdp_w)


def test_a_sparse_step_moves_more_for_its_multiplications() -> None:
    """By hand for fp16 2:4, 256 x 128 tiles in 64 x 64 parts: bytes of each memory, x a slot."""
    dense, sparse = SparseTensorCore(pattern="dense"), SparseTensorCore()
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


def test_a_limit_of_tdp_holds_the_sparse_product_alone() -> None:
    """At the A100's 400 W a large dense product keeps its clock; a 2:4 one does not."""
    machine = SparseTensorCore(power_limit_w=400.0)
    shape = Shape(4096, 4096, 4096)
    assert machine.dense.gemm(*shape).netlist.clock_hz == machine.clock_hz
    clock_hz = machine.gemm(*shape).netlist.clock_hz
    assert 0.8 * machine.clock_hz < clock_hz < machine.clock_hz


# ------------------------------------------------------------------ letters


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"dtype": "fp8"}, "dtype"),
        ({"pattern": "2of4"}, "N:M"),
        ({"pattern": "5:4"}, "N:M"),
        ({"pattern": "0:4"}, "N:M"),
        ({"pattern": "1:4"}, "any_pattern"),
        ({"dtype": "int4", "int4": False}, "int4"),
        ({"sms": 0}, "sms"),
        ({"sms": 2.5}, "sms"),
        ({"clock_hz": math.nan}, "clock_hz"),
        ({"launch_us": -1.0}, "launch_us"),
        ({"sparse_issue": 0.0}, "sparse_issue"),
        ({"dram_efficiency": 1.5}, "dram_efficiency"),
        ({"dram_gbytes_per_s": math.inf}, "dram_gbytes_per_s"),
        ({"dram_latency_cycles": 10}, "dram_latency_cycles"),
        ({"idle_w": 500.0}, "tdp_w"),
        ({"power_limit_w": 20.0}, "power_limit_w"),
        ({"shared_kib": 8}, "shared_kib"),
    ],
)
def test_a_wrong_configuration_is_refused(fields: dict[str, Any], words: str) -> None:
    """The letter names the field."""
    with pytest.raises(InputError, match=words):
        SparseTensorCore(**fields)


def test_wrong_names_and_sizes_are_refused() -> None:
    """Unknown presets and fields, sizes that are no whole numbers from 1."""
    with pytest.raises(InputError, match="no preset 'v100'"):
        preset("v100")
    with pytest.raises(InputError, match="no field 'sm'"):
        preset("h100", sm=3)
    for size in (0, -1, 2.0, True):
        with pytest.raises(InputError, match="depth"):
            SparseTensorCore().gemm(64, 64, size)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="at most 2 of 4"):
        encode(np.ones((2, 4)), Sparsity(2, 4), 16)


def test_the_layer_keeps_its_shape() -> None:
    """Outputs are [products, columns, rows]: groups of a convolution are products."""
    outputs: NDArray[Any] | None = SparseTensorCore().lower(conv()).outputs
    layer = conv().layer
    gemm = layer.gemm()
    assert outputs is not None and outputs.shape == (gemm.batch, gemm.m, gemm.n)
