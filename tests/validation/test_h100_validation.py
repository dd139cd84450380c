"""Does the H100 model hold against our own measurements, with two constants fitted?"""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from sparqsim.architectures.sparse_tensor_core import KINDS, Shape
from sparqsim.base import InputError
from sparqsim.scripts.validation import sparse_tensor_core
from sparqsim.scripts.validation._h100 import (
    CALL_FIT,
    POWER_FIT,
    REFERENCE,
    Fit,
    hold,
    measured_on,
    read_table,
)
from sparqsim.scripts.validation._kernel_names import Cut, cut_of, tiling_of
from sparqsim.scripts.validation._silicon import (
    AsCut,
    Held,
    Measured,
    Summary,
    compare,
    lines_of,
)

HEADER = "# source: mine\ndtype,library,rows,columns,depth,cold_us,mhz,power_w,window_s\n"


@pytest.fixture(scope="module")
def measured() -> dict[tuple[str, str, Shape], Measured]:
    return {(row.dtype, row.library, row.shape): row for row in read_table(REFERENCE)}


@pytest.fixture(scope="module")
def held() -> Held:
    return hold()


def test_the_fits_meet_their_products(
    measured: dict[tuple[str, str, Shape], Measured], held: Held
) -> None:
    """Two numbers for two times; the fitted product's clock comes out within 6 % of NVML's."""
    power = compare(measured["fp16", "dense", POWER_FIT], held)
    call = compare(measured["fp16", "2:4", CALL_FIT], held)
    assert power.fitted and abs(power.error) < 5e-3
    assert call.fitted and abs(call.error) < 5e-3
    assert power.measured_clock_mhz is not None
    assert power.clock_mhz == pytest.approx(power.measured_clock_mhz, rel=0.06)
    assert isinstance(held.fit, Fit) and 0 < held.fit.sparse_call_us < 3


@pytest.mark.parametrize(
    ("dtype", "library", "shape"),
    [
        ("fp16", "dense", (768, 4096, 768)),
        ("fp16", "dense", (3072, 3072, 3072)),
        ("fp16", "dense", (10240, 512, 8192)),
        ("fp16", "2:4", (1024, 1024, 1024)),
        ("fp16", "2:4", (1024, 4096, 768)),
        ("int8", "2:4", (4096, 2048, 11008)),
        ("int8", "2:4", (4096, 256, 11008)),
        ("fp8", "dense", (4096, 1024, 11008)),
        ("fp8", "2:4", (1024, 4096, 12288)),
    ],
)
def test_predicted_times_are_within_the_bound(
    measured: dict[tuple[str, str, Shape], Measured],
    held: Held,
    dtype: str,
    library: str,
    shape: tuple[int, int, int],
) -> None:
    """Some products that were not fitted: one wave and many, launch and compute."""
    found = compare(measured[dtype, library, Shape(*shape)], held)
    assert found.within and not found.fitted, found


def test_power_is_kept_of_long_windows(
    measured: dict[tuple[str, str, Shape], Measured],
) -> None:
    """NVML's power is a mean over a second: where it is kept the limit held it, and a low clock."""
    known = [row for row in measured.values() if row.power_w is not None]
    assert 40 < len(known) < len(measured) / 4
    at_limit = [row for row in known if row.power_w == pytest.approx(700, rel=0.05)]
    assert len(at_limit) > 0.85 * len(known)  # some windows hold what was before
    for row in known:
        assert row.power_w is not None and row.power_w < 1.02 * 700
        assert row.clock_mhz is not None and row.clock_mhz < 1800


@pytest.mark.slow
def test_the_whole_table(validated: Path) -> None:
    """Ranks hardly differ; dense fp16 is met, and dense int8 by its library's cut."""
    content = json.loads((validated / "data" / "sparse-tensor-core_3.json").read_text())
    summaries = msgspec.convert(content["summaries"], list[Summary])
    found = {(each.library, each.regime): each for each in summaries}
    assert found["fp16 dense", "all"].mape < 0.09
    computing = found["fp16 dense", "compute"]
    assert computing.within >= 0.9 * computing.products
    together = found["all", "all"]
    assert together.spearman is not None and together.spearman > 0.99
    assert len(content["rows"]) + len(content["left_out"]) == len(read_table(REFERENCE))
    cut = {each.library: each for each in msgspec.convert(content["as_cut"], list[AsCut])}
    assert cut["int8 dense"].library_mape < 0.6 * cut["int8 dense"].mape
    assert cut["all"].known > 0.95 * cut["all"].products
    assert cut["all"].library_within > cut["all"].within


# ---------------------------------------------------------------------- names of kernels


@pytest.mark.parametrize(
    ("name", "cut"),
    [
        (
            "Memset (Device) + nvjet_sm90_hsh_128x256_64x4_2x1_v_bz_coopA_TNN",
            Cut(128, 256, 64, 4, (2, 1)),
        ),
        (
            "sm90_xmma_sparse_gemm_f16f16_f16f32_f32_tn_t_tilesize64x128x128_cgasize1x4x1"
            "_warpgroupsize1x1x1_execute_segment_k_off_kernel_5x_cusparselt",
            Cut(64, 128, 128, 0, (1, 4)),
        ),
        (
            "void cutlass::Kernel2<cutlass_80_tensorop_i16832gemm_s8_128x64_128x3_tn_align16>",
            Cut(128, 64, 128, 3, (1, 1)),
        ),
        ("nvjet_sm90_hsh_64x16_64x16_2x1_v_bz_splitK_TNT", None),
        ("sm90_xmma_sparse_gemm tilesize128x256x64_cgasize2x1x1 segment_k_on", None),
        ("ampere_sgemm", None),
        ("", None),
    ],
)
def test_a_name_tells_the_cut(name: str, cut: Cut | None) -> None:
    """Tile, step, stages and cluster; nothing of a depth in parts, for it does not say how many."""
    assert cut_of(name) == cut


def test_every_name_of_the_table_tells_its_cut_or_that_it_splits() -> None:
    """No row is passed over for another reason."""
    kernels = [line["kernel"] for _, line in lines_of(REFERENCE, ("kernel",))]
    split = [name for name in kernels if "splitK" in name or "segment_k_on" in name]
    assert [name for name in kernels if cut_of(name) is None] == split
    assert 0 < len(split) < len(kernels) / 20


def test_a_product_is_cut_as_told(measured: dict[tuple[str, str, Shape], Measured]) -> None:
    """Stages as named, or as many as fit; a cluster stays within the output."""
    shape = Shape(1000, 512, 200)
    dense, sparse = (measured_on().cores("fp16", pattern) for pattern in ("dense", "2:4"))
    tiling = tiling_of(Cut(128, 128, 64, 5, (2, 4)), dense, shape)
    assert tiling == (128, 128, 1, 64, 4, 5, (2, 4))
    assert tiling_of(Cut(192, 192, 64, 4, (4, 2)), dense, shape).cluster == (2, 1)  # of 6 x 3
    assert tiling_of(Cut(128, 256, 64, 0, (1, 1)), sparse, shape).stages == 5  # 41 KiB of 227


def test_a_row_is_compared_by_both_cuts(
    measured: dict[tuple[str, str, Shape], Measured], held: Held
) -> None:
    """Dense int8 of few columns: the library's tile is smaller than the fastest, and explains the
    time; without a name there is nothing beside."""
    row = measured["int8", "dense", Shape(11008, 256, 4096)]
    found = compare(row, held)
    assert (found.tiling, found.library_tiling) == ("128x256", "128x64")
    assert found.library_error is not None and abs(found.library_error) < 0.1 < abs(found.error)
    bare = compare(msgspec.structs.replace(row, cut=None), held)
    assert (bare.library_tiling, bare.library_error) == (None, None)
    assert bare.error == found.error


# ---------------------------------------------------------------------- tables


def test_a_format_the_machine_lacks_is_passed_over(tmp_path: Path) -> None:
    """Rows of formats that the machine has are kept, in their order."""
    mine = tmp_path / "mine.csv"
    row = "dense,64,64,64,9,1980,300,0.1\n"
    mine.write_text(HEADER + "".join(f"{name},{row}" for name in ("fp16", "fp3", "int8")))
    assert "fp3" not in KINDS
    assert [each.dtype for each in read_table(mine)] == ["fp16", "int8"]


def test_the_command_takes_such_a_table(tmp_path: Path) -> None:
    """Its columns choose the GPU; a row outside the bound is told with exit code 1."""
    mine = tmp_path / "mine.csv"
    mine.write_text(HEADER + "fp16,2:4,512,512,512,1,1980,300,0.1\n")
    call = ["--against", str(mine)]
    result = CliRunner().invoke(sparse_tensor_core.command, [*call, "--json", "-"])
    assert result.exit_code == 1 and "0.001 ms measured" in result.stderr
    (row,) = json.loads(result.stdout)["rows"]
    assert row["regime"] == "launch" and row["measured_power_w"] is None
    shown = CliRunner().invoke(sparse_tensor_core.command, call).stdout
    assert "1.68 x TDP" in shown and max(map(len, shown.splitlines())) <= 100


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (HEADER, "has no row"),
        (HEADER + "fp16,dense,64\n", "line 3: must have as many fields"),
        (HEADER + "fp16,sparse,64,64,64,1,1,1,1\n", "line 3: library must be dense or 2:4, got"),
        (HEADER + "fp16,2:4,64,0,64,1,1,1,1\n", "line 3: columns must be a whole number from 1"),
        (HEADER + "fp16,2:4,64,64,64,0,1,1,1\n", "line 3: cold_us must be a positive number of mi"),
        (HEADER + "fp16,2:4,64,64,64,1,1,x,1\n", "line 3: power_w must be a positive number of W"),
    ],
)
def test_a_wrong_table_is_refused(tmp_path: Path, text: str, words: str) -> None:
    """The message names the file, the line and what is wrong."""
    table = tmp_path / "table.csv"
    table.write_text(text)
    with pytest.raises(InputError, match=words):
        read_table(table)
