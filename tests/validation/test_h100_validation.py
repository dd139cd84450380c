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
from sparqsim.scripts.validation._silicon import Held, Measured, Summary, compare

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
    assert held.fit.peak_over_tdp == measured_on().peak_over_tdp


@pytest.mark.parametrize(
    ("dtype", "library", "shape"),
    [
        ("fp16", "dense", (2048, 2048, 2048)),
        ("fp16", "dense", (3072, 3072, 3072)),
        ("fp16", "dense", (10240, 512, 8192)),
        ("fp16", "dense", (512, 512, 512)),
        ("fp16", "2:4", (2048, 2048, 2048)),
        ("fp16", "2:4", (768, 4096, 768)),
        ("fp16", "2:4", (4096, 1024, 11008)),
        ("int8", "2:4", (4096, 4096, 4096)),
        ("int8", "2:4", (4096, 256, 4096)),
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
    """NVML's power is a mean over a second; the limit was 700 W wherever it is kept, and the clock
    below the boost clock."""
    known = [row for row in measured.values() if row.power_w is not None]
    assert 20 < len(known) < len(measured) / 4
    for row in known:
        assert row.power_w == pytest.approx(695, rel=0.05)
        assert row.clock_mhz is not None and row.clock_mhz < 1700


@pytest.mark.slow
def test_the_whole_table(validated: Path) -> None:
    """Ranks hardly differ, and of both fp16 libraries most products are within 10 %."""
    content = json.loads((validated / "data" / "sparse-tensor-core_3.json").read_text())
    summaries = msgspec.convert(content["summaries"], list[Summary])
    found = {(each.library, each.regime): each for each in summaries}
    dense, sparse = found["fp16 dense", "all"], found["fp16 2:4", "all"]
    assert dense.mape < 0.11 and sparse.mape < 0.10
    assert dense.within + sparse.within >= 0.6 * (dense.products + sparse.products)
    together = found["all", "all"]
    assert together.spearman is not None and together.spearman > 0.98
    assert len(content["rows"]) + len(content["left_out"]) == len(read_table(REFERENCE))


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
    assert "1.7 x TDP" in shown and max(map(len, shown.splitlines())) <= 100


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
