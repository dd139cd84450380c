"""Is the page on pruning at run time what its data say, and are the data what is measured?"""

from __future__ import annotations

from itertools import pairwise

import msgspec
import numpy as np
import pytest
from paths import DOCS

from sparqsim.scripts.scenarios.dynamic_pruning import (
    KEPT,
    LAYERS,
    MACHINES,
    THRESHOLDS,
    Study,
    measure,
    page,
    pruned_inputs,
    relu_layer,
    rule_for,
)
from sparqsim.workloads.layers import Conv2d
from sparqsim.workloads.models.digits import load_digits
from sparqsim.workloads.prune import RelativeThreshold, TopK
from sparqsim.workloads.tensors import synthetic


def found() -> Study:
    return msgspec.json.decode((DOCS / "data" / "dynamic_pruning.json").read_bytes(), type=Study)


def test_the_page_is_what_its_data_say() -> None:
    """No number on the page was typed in; without EfficientNet the page has no word of it."""
    study = found()
    assert (DOCS / "background" / "dynamic_pruning.md").read_text(encoding="utf-8") == page(study)
    assert "EfficientNet-Lite0" not in page(msgspec.structs.replace(study, efficientnet=[]))


def test_the_data_can_be_measured_again() -> None:
    """Accuracy and density of a row, and cycles of its first images within the row's range."""
    (row,) = [r for r in found().rows if (r.rule, r.setting) == ("top-k", KEPT[2])]
    again = measure(load_digits("cnn"), "top-k", KEPT[2], images=2)
    assert (again.accuracy, again.verified) == (row.accuracy, True)
    assert again.density == pytest.approx(row.density)
    for name in MACHINES:
        assert row.cycles[name].least <= again.cycles[name].least
        assert again.cycles[name].most <= row.cycles[name].most


def test_a_rule_is_applied_to_each_image() -> None:
    """Top-k leaves at most k of an image's input; a threshold's count differs among images."""
    digits = load_digits("cnn")
    accuracy, inputs = pruned_inputs(digits, "none", 0.0)
    assert accuracy == digits.accuracy()
    _, few = pruned_inputs(digits, "top-k", 0.1)
    _, above = pruned_inputs(digits, "threshold", 0.3)
    for name in LAYERS:
        images, places = len(inputs[name]), inputs[name][0].size
        kept = np.count_nonzero(few[name].reshape(images, -1), axis=1)
        assert (kept <= round(0.1 * places)).all()
        assert np.unique(np.count_nonzero(above[name].reshape(images, -1), axis=1)).size > 1
    np.testing.assert_array_equal(few["conv1"], inputs["conv1"])
    assert rule_for("top-k", 0.1, 64) == TopK(k=6)
    assert rule_for("threshold", 0.1, 64) == RelativeThreshold(share=0.1)


def test_fewer_activations_are_fewer_cycles_and_in_the_end_fewer_right_answers() -> None:
    """Along either rule density and EIE's mean time fall; the strongest setting costs accuracy."""
    rows = found().rows
    for rule, settings in (("top-k", KEPT), ("threshold", THRESHOLDS)):
        along = [rows[0], *(row for row in rows if row.rule == rule)]
        assert len(along) == 1 + len(settings) and all(row.verified for row in along)
        for weaker, stronger in pairwise(along):
            assert stronger.density < weaker.density
            assert stronger.cycles["eie"].mean < weaker.cycles["eie"].mean
        assert along[-1].accuracy < along[0].accuracy
    for row in rows:
        for spread in row.cycles.values():
            assert spread.least <= spread.mean <= spread.most


def test_zeros_of_a_layer_are_counted_and_filled() -> None:
    """Zeros of the input, effectual MACs of the real one; filling them in is never faster."""
    shape = Conv2d(
        name="block0.project", in_channels=64, out_channels=8, input=(4, 4), kernel=(1, 1)
    )
    tensors = synthetic(shape, np.random.default_rng(0), activation_density=0.3)
    layer = relu_layer(tensors)
    zeros = float((tensors.activation == 0).mean())
    assert layer.zeros == pytest.approx(zeros) and 0.5 < zeros < 0.9
    assert layer.macs == 64 * 8 * 16 and layer.effectual < 0.5 * layer.macs
    assert layer.cycles < layer.filled_cycles and layer.verified
