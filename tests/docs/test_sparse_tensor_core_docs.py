"""Are the long tables of docs/background/sparse_tensor_core.md what the validation gives?"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from paths import DOCS

PAGE = DOCS / "background" / "sparse_tensor_core.md"


@pytest.mark.slow
def test_the_table_is_what_validation_gives(validated: Path) -> None:
    """Each row of the printed table is one of the comparison, to the digits shown."""
    text = PAGE.read_text()
    content = json.loads((validated / "data" / "sparse-tensor-core.json").read_text())
    rows = content["rows"]
    printed = re.findall(
        r"(\d+x\d+x\d+) +(dense_ms|sparse_ms|speedup) +(\S+) +(\S+) +([+-]\S+) %", text
    )
    assert [(shape, quantity) for shape, quantity, *_ in printed] == [
        (row["shape"].replace(" ", ""), row["quantity"]) for row in rows
    ]
    for row, (_, _, measured, simulated, error) in zip(rows, printed, strict=True):
        assert f"{row['measured']:.4g}" == measured and f"{row['simulated']:.4g}" == simulated
        assert f"{100 * row['error']:+.1f}" == error
    found = content["fit"]
    assert f"{found['power_limit_w']:.0f} W" in text
    assert f"{found['sparse_call_us']:.0f} us" in text
    dense, sparse = (rows[number]["simulated_at_limit"] for number in (0, 1))
    assert f"{dense:.1f} ms" in text and f"{sparse:.1f} ms" in text


@pytest.mark.slow
@pytest.mark.parametrize("number", [2, 3])
def test_the_errors_by_regime_are_what_validation_gives(validated: Path, number: int) -> None:
    """Each row of the printed errors, the RTX 3090's and the H100's, is one of the comparison, and
    so are the fits."""
    text = PAGE.read_text()
    content = json.loads((validated / "data" / f"sparse-tensor-core_{number}.json").read_text())
    printed = text.split("Errors by regime\n")[number - 1].partition("```")[0].splitlines()[1:]
    expected = []
    for each in content["summaries"]:
        errors = [f"{100 * value:{sign}.1f} %" for value, sign in
                  ((each["mape"], ""), (each["bias"], "+"), (each["maximum"], "+"))]  # fmt: skip
        counts = [each[name] for name in ("products", "within", "rows", "rows_within")]
        rank = [] if each["spearman"] is None else [f"{each['spearman']:.3f}"]
        words = [each["library"], each["regime"], *map(str, counts), *errors, *rank]
        expected.append(" ".join(words).split())
    assert [line.split() for line in printed] == expected
    found = content["fit"]
    units = {"power_limit_w": ".0f} W", "clock_mhz": ".0f} MHz", "peak_over_tdp": "g} times TDP"}
    for name, value in found.items():
        assert f"{{:{units.get(name, '.2f} us')}".format(value) in text


@pytest.mark.slow
def test_the_errors_by_choice_of_tile_are_what_validation_gives(validated: Path) -> None:
    """Each printed row of the H100's products, cut by our choice and by the library's."""
    text = PAGE.read_text()
    content = json.loads((validated / "data" / "sparse-tensor-core_3.json").read_text())
    printed = text.split("Errors by who chose")[1].partition("```")[0].splitlines()[2:]
    expected = []
    for each in content["as_cut"]:
        words = [each["library"], *(str(each[name]) for name in ("products", "known", "same"))]
        for who in ("", "library_"):
            mape, bias = 100 * each[f"{who}mape"], 100 * each[f"{who}bias"]
            words += [str(each[f"{who}within"]), f"{mape:.1f} %", f"{bias:+.1f} %"]
        expected.append(" ".join(words).split())
    assert [line.split() for line in printed] == expected
