"""Is the long table of docs/sparse_tensor_core.md what the validation gives?"""

from __future__ import annotations

import re

import pytest
from paths import DOCS

PAGE = DOCS / "sparse_tensor_core.md"


@pytest.mark.slow
def test_the_table_is_what_validation_gives() -> None:
    """Each row of the printed table is one of the comparison, to the digits shown."""
    from sparqsim.scripts.output import PatientBar
    from sparqsim.scripts.validation.sparse_tensor_core import REFERENCE, Row, validate

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
