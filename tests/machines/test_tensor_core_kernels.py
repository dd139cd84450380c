"""Are a library's kernels those of the GPU's generation, and does each part of them matter?"""

from __future__ import annotations

import msgspec
import pytest

from sparqsim.architectures import presets
from sparqsim.architectures.machine import run
from sparqsim.architectures.sparse_tensor_core import (
    Plan,
    Shape,
    SparseTensorCore,
    Tiling,
    best_tiling,
    tilings,
)
from sparqsim.architectures.sparse_tensor_core.config import TILES
from sparqsim.architectures.sparse_tensor_core.kernels import BETWEEN, LEGACY, SPARSE


def h100(**fields: object) -> SparseTensorCore:
    machine = presets.load("h100")
    assert isinstance(machine, SparseTensorCore)
    return msgspec.structs.replace(machine, **fields)


def test_each_library_has_its_tiles() -> None:
    """cuBLAS's between the powers of two, cuSPARSELt's, CUTLASS's few for dense integers; an A100
    has Ampere's for all."""
    machine, shape = h100(), Shape(8192, 8192, 8192)

    def cut(gpu: SparseTensorCore, dtype: str, pattern: str) -> set[tuple[int, int]]:
        return {(each.rows, each.columns) for each in tilings(gpu.cores(dtype, pattern), shape)}

    assert cut(machine, "fp16", "dense") == {*TILES, *BETWEEN}
    assert cut(machine, "fp16", "2:4") == cut(machine, "int8", "2:4") == set(SPARSE)
    assert cut(machine, "int8", "dense") == set(LEGACY)
    assert cut(h100(legacy_integers=0.0), "int8", "dense") == {*TILES, *BETWEEN}
    assert cut(SparseTensorCore(), "fp16", "dense") == set(TILES)
    for rows, columns in BETWEEN:  # 64 rows an instruction one way or the other; two groups' sums
        assert 0 in (rows % 64, columns % 64) and rows * columns <= 2 * 128 * 160


def test_a_report_tells_of_old_kernels_and_of_the_peak_that_energies_share() -> None:
    """Where dense integers run below the peak for their library's sake, and only there, a note says
    so; the source of energies has the power that they add up to."""
    for gpu, dtype, pattern, old in (
        (h100(), "int8", "dense", True),
        (h100(), "int8", "2:4", False),
        (h100(), "fp8", "dense", False),
        (SparseTensorCore(), "int8", "dense", False),
    ):
        report = run(gpu, gpu.gemm(256, 256, 256, dtype=dtype, pattern=pattern)).report
        assert any("generation before" in note for note in report.notes) == old
        share = gpu.tdp_w * gpu.peak_over_tdp - gpu.idle_w
        assert f"a share of {share:.4g} W" in report.energy.parts[1].source


@pytest.mark.parametrize("tile", [(128, 256), (256, 128)])
def test_a_cluster_reads_what_it_shares_once(tile: tuple[int, int]) -> None:
    """Of two tiles side by side L2 gives the panel of 256 once, and each its own of 128; an SM's
    port and shared memory still take all."""
    cores = h100().cores("fp16", "dense")
    one = next(each for each in tilings(cores, Shape(512, 512, 64)) if each[:2] == tile)
    assert one.cluster == ((2, 1) if tile == (128, 256) else (1, 2))
    plan = Plan(cores, Shape(512, 512, 64), one)
    bytes_of_row = 64 * 2
    assert plan.tiles == 8
    assert plan.l2_bytes == 8 * (128 + 256 / 2) * bytes_of_row
    assert plan.step_bytes.sum() == 8 * (128 + 256) * bytes_of_row
    pairs = plan.order.reshape(4, 2, 4)
    shared = 3 if tile == (128, 256) else 2
    assert (pairs[:, 0, shared] == pairs[:, 1, shared]).all()
    alone = Plan(cores, Shape(512, 512, 64), one._replace(cluster=(1, 1)))
    assert alone.l2_bytes == alone.step_bytes.sum()


def test_a_product_of_one_tile_has_no_cluster() -> None:
    """No neighbour, nothing to share; nor where SMs do not come in pairs."""
    assert best_tiling(h100().cores("fp16", "dense"), Shape(64, 64, 512)).cluster == (1, 1)
    odd = h100(sms=3).cores("fp16", "dense")
    assert {each.cluster for each in tilings(odd, Shape(512, 512, 512))} == {(1, 1)}


def test_blocks_that_stay_fetch_early() -> None:
    """A second wave costs neither the start of a block nor the latency of its first data, but waits
    until the epilogue has let the accumulators go."""
    tiling = Tiling(128, 128, 1, 64, 16, 4)
    free: dict[str, float] = {"launch_us": 0.0, "power_limit_w": 0.0, "dram_gbytes_per_s": 1e6}
    cycles = []
    for groups in (True, False):
        machine = h100(sms=4, l2_bytes_per_cycle=1 << 20, warp_groups=groups, **free)
        for waves in (1, 3):
            program = machine.gemm(512, 128 * waves, 1024, pattern="dense", tiling=tiling)
            cycles.append(run(machine, program, record="summary").report.cycles)
    stays, leaves = (cycles[1] - cycles[0]) / 2, (cycles[3] - cycles[2]) / 2
    cores = h100().cores("fp16", "dense")
    walked = 16 * cores.step_cycles(tiling) + cores.epilogue_cycles(tiling)
    assert stays == pytest.approx(walked, rel=0.01)
    assert leaves - walked > 500 + 292  # the block's start and L2 at least


def test_integers_of_an_earlier_generation_are_slower_and_take_more() -> None:
    """62 % of the peak at most, and more energy of registers and shared memory."""
    old, new = h100().cores("int8", "dense"), h100(legacy_integers=0.0).cores("int8", "dense")
    tiling = Tiling(256, 128, 1, 128, 32, 4)
    assert new.tensor_cycles(tiling) / old.tensor_cycles(tiling) == pytest.approx(0.635, abs=0.01)
    one, other = old.step_energy_pj(tiling), new.step_energy_pj(tiling)
    assert one["multiplying"] == pytest.approx(other["multiplying"])
    assert one["registers"] > 1.3 * other["registers"]
    assert one["shared memory"] > other["shared memory"]


def test_shared_memory_of_warp_groups_takes_and_gives_at_once() -> None:
    """Cycles are those of the fragments, which are more; else of both one after the other."""
    tiling = Tiling(128, 128, 1, 64, 64, 4)
    both, one = h100().cores("fp16"), h100(warp_groups=False).cores("fp16")
    read, written = (each / 8 / 128 for each in both.step_bits(tiling)["shared"])
    assert both.shared_cycles(tiling) == read > written
    assert one.shared_cycles(tiling) == pytest.approx(read + written, abs=1)


def test_l2_may_keep_its_bandwidth_under_a_limit() -> None:
    """At half the SMs' clock it gives twice the bytes a cycle, where its clock is its own."""
    for own, share in ((True, 2.0), (False, 1.0)):
        cores = h100(l2_own_clock=own).cores()
        assert cores.l2_bytes_per_cycle(0.99e9) == share * 3819
