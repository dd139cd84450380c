"""Is docs/sparse_tensor_core.md true as printed?"""

from __future__ import annotations

import doctest
import re
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parent.parent / "docs" / "sparse_tensor_core.md"


def test_the_page_runs_as_printed() -> None:
    """Every block of the page, in one session, prints what the page shows."""
    result = doctest.testfile(str(PAGE), module_relative=False, encoding="utf-8")
    assert result.attempted > 20 and result.failed == 0


def test_the_page_shows_figures_that_exist() -> None:
    """No broken picture."""
    figures = re.findall(r"!\[[^]]*\]\(([^)]+)\)", PAGE.read_text())
    assert len(figures) == 4 and all((PAGE.parent / figure).is_file() for figure in figures)


@pytest.mark.slow
def test_the_table_is_what_validation_gives() -> None:
    """Each row of the printed table is one of the comparison, to the digits shown."""
    from scripts.output import PatientBar
    from scripts.validation.sparse_tensor_core import REFERENCE, Row, validate

    text = PAGE.read_text()
    content = validate(REFERENCE, PatientBar())
    rows: list[Row] = content["rows"]
    printed = re.findall(
        r"(\d+x\d+x\d+) +(dense_ms|sparse_ms|speedup) +(\S+) +(\S+) +([+-]\S+) %", text
    )
    assert [(shape, quantity) for shape, quantity, *_ in printed] == [
        (row.shape.replace(" ", ""), row.quantity) for row in rows
    ]
    for row, (_, _, measured, simulated, error) in zip(rows, printed, strict=True):
        assert f"{row.measured:.4g}" == measured and f"{row.simulated:.4g}" == simulated
        assert f"{100 * row.error:+.1f}" == error
    found = content["fit"]
    assert f"{found.power_limit_w:.0f} W" in text and f"{found.sparse_call_us:.0f} us" in text
    dense, sparse = rows[0].simulated_at_limit, rows[1].simulated_at_limit
    assert f"{dense:.1f} ms" in text and f"{sparse:.1f} ms" in text
