"""Does the A100 model hold against measured GEMMs, and does the command read tables with care?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner

from sparqsim.base import InputError
from sparqsim.scripts.output import PatientBar
from sparqsim.scripts.validation import sparse_tensor_core as validation
from sparqsim.scripts.validation.sparse_tensor_core import (
    BOUND,
    FITTED_SHAPE,
    REFERENCE,
    Fit,
    Measured,
    Row,
    compare,
    fit,
    fitted_row,
    measured_on,
    one_token,
    read_table,
)

HEADER = (
    "item,M,N,K,dtype,dense_ms,sparse_ms,dense_TFLOPS,sparse_TFLOPS_dense_equiv,speedup,note,"
    "source,confidence\n"
)


@pytest.fixture(scope="module")
def fitted() -> Fit:
    return fit(fitted_row(), measured_on())


def test_the_fit_meets_its_row(fitted: Fit) -> None:
    """Two numbers for two times: the 4096^3 row comes out as measured."""
    found = compare(fitted_row(), fitted, measured_on())
    assert [each.quantity for each in found] == ["dense_ms", "sparse_ms", "speedup"]
    assert all(each.fitted and abs(each.error) < 2e-3 for each in found)
    assert 50 < fitted.power_limit_w < 400 and 0 < fitted.sparse_call_us < 546


def test_a_changed_copy_of_the_fitted_row_is_not_fitted(fitted: Fit) -> None:
    """The fit stays the shipped row's: another time of the same product shows its error."""
    row = msgspec.structs.replace(fitted_row(), dense_ms=1.2)
    dense, sparse, _ = compare(row, fitted, measured_on())
    assert not dense.fitted and dense.error == pytest.approx(0.607959 / 1.2 - 1, abs=1e-3)
    assert not sparse.fitted and abs(sparse.error) < 2e-3


def test_one_token_is_a_slowdown(fitted: Fit) -> None:
    """With the library's call as fitted, 2:4 hurts on one token, though its kernel would not."""
    token = one_token(fitted, measured_on())
    assert token["speedup"] < 0.5 < 1 < token["kernel_speedup"] < 2
    assert token["dense_us"] >= 4096 * 4096 * 2 / 1555e9 * 1e6


@pytest.mark.slow
def test_the_large_product_is_within_the_bound(validated: Path) -> None:
    """16384^3, not fitted, at the 400 W its note states: times and speed-up are within 15 %."""
    content = json.loads((validated / "data" / "sparse-tensor-core.json").read_text())
    rows = msgspec.convert(content["rows"], list[Row])
    dense, sparse, speedup = (row for row in rows if row.shape == "16384 x 16384 x 16384")
    assert abs(dense.error) < 0.02 and dense.within
    assert abs(sparse.error) <= BOUND and sparse.within
    assert abs(speedup.error) <= BOUND and speedup.within
    assert dense.simulated_at_limit is not None and dense.simulated_at_limit > dense.simulated


@pytest.mark.parametrize(
    "batch", [4, pytest.param(16, marks=pytest.mark.slow), pytest.param(64, marks=pytest.mark.slow)]
)
def test_the_linear_layer_is_predicted_by_the_other_row_s_fit(fitted: Fit, batch: int) -> None:
    """DistilBERT's layer as one user timed it, dense and 2:4: within 10 %, nothing fitted on it."""
    rows, _ = read_table(REFERENCE)
    row = next(each for each in rows if each.bare and each.columns == 768 * batch)
    dense, sparse, _ = compare(row, fitted, measured_on())
    assert max(abs(dense.error), abs(sparse.error)) < 0.10 and not dense.fitted


def test_the_other_user_s_times_are_no_kernel_s(fitted: Fit) -> None:
    """Of the same layer they are longer than the slowest of our tilings, by twice and more."""
    rows, _ = read_table(REFERENCE)
    row = next(each for each in rows if each.shape == (768, 3072, 3072) and not each.bare)
    for each in compare(row, fitted, measured_on())[:2]:
        assert each.slowest_kernel is not None and not each.within
        assert each.measured > 2 * each.slowest_kernel


def test_a_model_slower_than_the_measurement_is_not_fitted() -> None:
    """Neither a limit nor a call can make it faster: both stay off."""
    fast = Measured(
        item="x", rows=512, columns=512, depth=512, dtype="fp16", dense_ms=1e-4, sparse_ms=1e-4,
        limit_w=None, bare=False,
    )  # fmt: skip
    found = fit(fast, measured_on())
    assert found.power_limit_w == 0 and found.sparse_call_us == 0
    assert found.clock_mhz == pytest.approx(1410)


def test_the_shipped_table_is_read_whole() -> None:
    """Every row is compared or left out with a reason; a linear layer is read as a product."""
    rows, left_out = read_table(REFERENCE)
    again = [(768, 768 * batch, 3072) for batch in (4, 16, 64, 256)]
    expected = [(16384,) * 3, FITTED_SHAPE, (768, 3072, 3072), *again]
    assert [row.shape for row in rows] == expected
    assert [row.limit_w for row in rows] == [400.0, *[None] * 6]
    assert [row.bare for row in rows] == [True, False, False, *[True] * 4]
    assert len(rows) + len(left_out) == len(REFERENCE.read_text().strip().splitlines()) - 1
    assert all(reason for _, reason in left_out)


@pytest.mark.parametrize(
    ("note", "limit_w"),
    [
        ("clocks locked 1410MHz 400W; dense: 250 W", 400.0),
        ("clocks locked at 1410 MHz, 312.5 W", 312.5),
        ("clocks locked 1410MHz", 0.0),
        ("clocks locked; another ran at 250W", 0.0),
        ("power limit 250 W", None),
    ],
)
def test_a_note_states_the_limit_of_locked_clocks(
    tmp_path: Path, note: str, limit_w: float | None
) -> None:
    """The watts after "clocks locked", up to a semicolon; none stated is no limit."""
    table = tmp_path / "table.csv"
    table.write_text(HEADER + f'a,64,64,64,fp16,1,,,,,"{note}",,\n')
    assert read_table(table)[0][0].limit_w == limit_w


def test_other_rows_of_the_same_columns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``--against`` takes another table; JSON rows have measured, simulated and error."""
    found = Fit(power_limit_w=300.0, clock_mhz=1100.0, sparse_call_us=100.0)
    monkeypatch.setattr(validation, "fit", lambda *_: found)
    table = tmp_path / "mine.csv"
    table.write_text(
        HEADER + "mine,512,256,1024,int8,0.01,,,,,,,\nmine,64,64,64,fp16,,0.02,,,,,,\n"
        "mine,64,64,64,fp64,1,1,,,,,,\n"
    )
    result = CliRunner().invoke(validation.command, ["--against", str(table), "--json", "-"])
    assert result.exit_code == 1, result.output
    assert "dense_ms: 0.01 measured" in result.stderr  # outside the bound
    content: dict[str, Any] = json.loads(result.stdout)
    assert [row["quantity"] for row in content["rows"]] == ["dense_ms", "sparse_ms"]
    for row in content["rows"]:
        assert row["error"] == pytest.approx(row["simulated"] / row["measured"] - 1)
    assert content["left_out"] == [{"item": "mine", "reason": "no format 'fp64'"}]
    shown = CliRunner().invoke(validation.command, ["--against", str(table)])
    assert "100 us a call" in shown.stdout and max(map(len, shown.stdout.splitlines())) <= 100


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "must have the columns"),
        (HEADER, "no row"),
        ("item,M,N\na,1,2\n", "lacks K"),
        (HEADER + "a,64,64\n", "line 2.*as many fields"),
        (HEADER + "a,64,64,64,fp16,nan,,,,,,,\n", "line 2: dense_ms must be a positive"),
        (HEADER + "a,64,64,64,fp16,,inf,,,,,,\n", "line 2: sparse_ms must be a positive"),
        (HEADER + "a,64,64,64,fp16,-1,,,,,,,\n", "positive"),
        (HEADER + "a,64,64,64,fp16,fast,,,,,,,\n", "'fast'"),
        (HEADER + "a,64.5,64,64,fp16,1,,,,,,,\n", "no row"),
    ],
)
def test_a_wrong_table_is_refused(tmp_path: Path, text: str, words: str) -> None:
    """The message names the file, the line and what is wrong."""
    table = tmp_path / "table.csv"
    table.write_text(text)
    with pytest.raises(InputError, match=words):
        read_table(table)


def test_a_missing_table_is_refused(tmp_path: Path) -> None:
    """No file, no comparison."""
    with pytest.raises(InputError, match="cannot read"):
        validation.validate(tmp_path / "none.csv", PatientBar())
