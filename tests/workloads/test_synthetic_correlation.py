"""Are synthetic channels dense together as measured ones are, and is it said where they are not?"""

from __future__ import annotations

import numpy as np
import pytest

from sparqsim.architectures.network import run_layer
from sparqsim.architectures.registry import get_machine
from sparqsim.base import InputError
from sparqsim.scripts.cli import main
from sparqsim.workloads.layers import Conv2d, Linear
from sparqsim.workloads.synthetic import channel_densities
from sparqsim.workloads.tensors import synthetic
from sparqsim.workloads.work import load

# outputs, inputs, pixels, density of weights and of activations, products of two that are not zero,
# correlation of the channels' densities: counted in the masks of the artifact of Sparseloop (MICRO
# 2022), figure 12, layers 7, 13, 19, 23 and 25 of a pruned MobileNet 0.5 on Eyeriss v2
MEASURED = [
    (64, 64, 1024, 0.5203, 0.7281, 1_702_140, 0.48),
    (256, 128, 64, 0.6443, 0.8329, 1_144_158, 0.37),
    (256, 256, 64, 0.5499, 0.6077, 1_457_458, 0.42),
    (256, 256, 64, 0.6988, 0.6084, 1_821_557, 0.37),
    (512, 256, 16, 0.6495, 0.6772, 948_572, 0.63),
]


def products(weight: np.ndarray, activation: np.ndarray) -> int:
    """Of two that are not zero, of ``[out, in]`` and ``[pixels, in]``."""
    return int(((weight != 0).sum(axis=0) * (activation != 0).sum(axis=0)).sum())


def test_products_of_correlated_channels_are_as_many_as_measured() -> None:
    """Independent places are too few by 1 to 7 %; with the measured correlation the five layers
    together are right within 1.5 %, and nearer than independent ones."""
    rng = np.random.default_rng(0)
    found = {None: 0.0, "measured": 0.0}
    for out, channels, pixels, weights, inputs, true, r in MEASURED:
        layer = Linear(name="fc", in_features=channels, out_features=out, rows=pixels)
        for key in found:
            mean = np.mean(
                [
                    products(made.weight if key else made.weight.to_dense(), made.activation)
                    for made in (
                        synthetic(
                            layer, rng, weight_density=weights, activation_density=inputs,
                            correlation=r if key else None,
                        )
                        for _ in range(12)
                    )
                ]
            )  # fmt: skip
            found[key] += mean / true / len(MEASURED)
    assert found[None] == pytest.approx(0.965, abs=0.01)  # the table's own: 3.6 % low
    assert found["measured"] == pytest.approx(1.0, abs=0.015)


@pytest.mark.parametrize("correlation", [-0.8, 0.0, 0.5, 1.0])
def test_densities_keep_their_means_and_have_the_correlation(correlation: float) -> None:
    """Over many channels, by numpy's own estimates; spreads as derived. The correlation is that of
    normal scores: densities that pile up at 0 and 1 correlate by up to a tenth less."""
    weights, inputs = channel_densities(20_000, 0.3, 0.5, correlation, np.random.default_rng(1))
    assert weights.mean() == pytest.approx(0.3, abs=0.005)
    assert inputs.mean() == pytest.approx(0.5, abs=0.01)
    assert np.corrcoef(weights, inputs)[0, 1] == pytest.approx(correlation, abs=0.08)
    assert weights.std() == pytest.approx(0.19 * np.sqrt(0.3 * 0.7), rel=0.05)
    assert inputs.std() == pytest.approx(0.77 * np.sqrt(0.5 * 0.5), rel=0.05)


def test_channels_of_grouped_convolutions_meet_their_weights() -> None:
    """Depthwise: a channel's own kernel is dense where the channel is."""
    layer = Conv2d(
        name="dw", in_channels=2000, out_channels=2000, input=(8, 8), kernel=(5, 5),
        padding=(2, 2), groups=2000,
    )  # fmt: skip
    made = synthetic(
        layer, np.random.default_rng(2), weight_density=0.5, activation_density=0.5, correlation=0.9
    )
    weights = (made.weight != 0).mean(axis=(1, 2, 3))
    inputs = (made.activation != 0).mean(axis=(0, 2, 3))
    assert np.corrcoef(weights, inputs)[0, 1] > 0.5  # 25 and 64 places a channel blur it


def test_machines_do_more_where_channels_correlate_and_say_so() -> None:
    """SNAP skips zeros of both operands: more products and cycles; independence has its note."""
    machine, network = get_machine("snap")(), load("gemm:64x256x64", numbers=True)
    densities = {"weight_density": 0.4, "activation_density": 0.5}
    plain = run_layer(machine, network, **densities).report
    joined = run_layer(machine, network, correlation=0.6, **densities).report
    assert 1.02 < joined.macs.effectual / plain.macs.effectual < 1.25
    assert joined.verification.status == "exact"
    assert any("--correlation" in note for note in plain.notes)
    assert not any("--correlation" in note for note in joined.notes)
    assert "correlate by 0.6" in joined.provenance.inputs


def test_a_correlation_that_changes_nothing_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """Of dense layers, of real tensors, and beyond 1."""
    network = load("gemm:4x8x4", numbers=True)
    with pytest.raises(InputError, match="changes nothing"):
        run_layer(get_machine("snap")(), network, correlation=0.5, weight_density=0.5)
    with pytest.raises(InputError, match="from -1 to 1"):
        run_layer(get_machine("snap")(), network, correlation=float("nan"))
    with pytest.raises(SystemExit):
        main(["run", "snap", "digits-mlp/fc1", "--correlation", "0.5"])
    assert "has real tensors" in capsys.readouterr().err
