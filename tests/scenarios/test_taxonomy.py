"""Is the page on patterns what its data say, and its point true in them?"""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from paths import DOCS

from sparqsim.scripts.scenarios.taxonomy import (
    DENSITIES,
    IMAGES,
    LAYER,
    MACHINES,
    PATTERNS,
    Study,
    compacted,
    measure,
    page,
    pruned_by,
    stored_bits,
)
from sparqsim.workloads.models.digits import load_digits


def found() -> Study:
    return msgspec.json.decode((DOCS / "data" / "taxonomy.json").read_bytes(), type=Study)


def test_the_page_is_what_its_data_say() -> None:
    """No number on the page was typed in."""
    assert (DOCS / "background" / "taxonomy.md").read_text(encoding="utf-8") == page(found())


def test_the_data_can_be_measured_again() -> None:
    """Accuracy, bits, cycles and energy of a row of the digits layer, run anew."""
    digits = load_digits("cnn", pruned=False)
    inputs = digits.activations(digits.images.test_images[:IMAGES])[LAYER]
    (row,) = [r for r in found().rows if (r.pattern, r.density) == ("channel", 0.25)]
    weight = pruned_by(digits.weights[LAYER], "channel", 0.25)
    again = measure(weight, inputs, "channel", 0.25, digits.accuracy({LAYER: weight}))
    assert again.cycles == row.cycles and again.bits == row.bits and again.verified
    assert again.accuracy == row.accuracy
    assert again.energy_nj == pytest.approx(row.energy_nj)


def test_fine_grain_keeps_accuracy_and_coarse_grain_needs_fewer_bits() -> None:
    """At every density unstructured pruning classifies best and whole rows store least."""
    for density in DENSITIES:
        rows = {row.pattern: row for row in found().rows if row.density == density}
        assert set(rows) == set(PATTERNS) and all(row.verified for row in rows.values())
        if density == min(DENSITIES):
            assert max(rows.values(), key=lambda row: row.accuracy or 0).pattern == "unstructured"
        assert min(rows["row"].bits, rows["channel"].bits) < rows["unstructured"].bits
        for row in rows.values():
            assert set(row.cycles) == set(MACHINES)


def test_compaction_and_bits() -> None:
    """Dead outputs and inputs vanish; bits of each encoding follow from its definition."""
    weight = np.zeros((8, 8))
    weight[:4, 2:6] = 1
    small, seen = compacted(weight, np.arange(16.0).reshape(2, 8))
    assert small.shape == (4, 4) and seen.tolist() == [[2, 3, 4, 5], [10, 11, 12, 13]]
    assert stored_bits(weight, "dense", 4) == 8 * 64
    assert stored_bits(weight, "unstructured", 4) == 8 * 16 + 64
    assert stored_bits(weight, "row", 4) == 8 * 32 + 8
    assert stored_bits(weight, "block 4x4", 4) == 8 * 32 + 4
    assert stored_bits(weight, "N:M", 2) == 64 // 2 * (8 + 2)
