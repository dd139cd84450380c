"""Does dropping tokens do what it should? Selection, products, time, arithmetic, bad input."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from sparqsim.architectures.heatvit import EVERY_BLOCK, HeatViT, Product, network_steps
from sparqsim.architectures.machine import run
from sparqsim.base import InputError
from sparqsim.scripts.validation import heatvit as validation
from sparqsim.workloads.layers import Conv2d, Linear
from sparqsim.workloads.models import get_model
from sparqsim.workloads.tensors import made_up
from sparqsim.workloads.tokens import TokenSelector, tokens_per_block
from sparqsim.workloads.vision_transformer import (
    PATCHES,
    VisionTransformer,
    calibrated,
    forward,
    made_up_image,
)

ENGINE = HeatViT()
RATIOS = {2: 0.7, 3: 0.4}


@pytest.fixture(scope="module")
def net() -> VisionTransformer:
    """A DeiT of three blocks and one head: small enough to compute everywhere."""
    return VisionTransformer.drawn(64, np.random.default_rng(0), blocks=3)


@pytest.fixture(scope="module")
def selectors(net: VisionTransformer) -> dict[int, TokenSelector]:
    rng = np.random.default_rng(1)
    return calibrated(net, [made_up_image(rng) for _ in range(6)], RATIOS, rng)


@pytest.mark.parametrize(("network", "width"), [("deit_tiny", 192), ("deit_small", 384),
                                                ("deit_base", 768)])  # fmt: skip
def test_all_tokens_are_the_networks_own_work(network: str, width: int) -> None:
    """The products of an unpruned run are the layers of the model table."""
    steps = [step for step in network_steps(width, EVERY_BLOCK, True) if isinstance(step, Product)]
    assert sum(step.macs for step in steps) == get_model(network).macs


@pytest.mark.parametrize("width", [64, 192])
def test_only_weights_come_from_dram(width: int) -> None:
    """Every weight once, in 8 bits; attention's operands are on the chip, also of a single head."""
    tokens = [197, 197]
    weights = width * (3 * 16**2 + 2 * 12 * width + 1000)
    assert run(ENGINE, ENGINE.plan(width, tokens)).report.counters["weight_bits"] == 8 * weights


def test_the_fixed_share_is_the_work_ratio_at_best() -> None:
    """197/138/97/68 tokens gain what they save, less the fill; selectors and packages cost."""
    for width in (192, 384, 768):
        whole = run(ENGINE, ENGINE.plan(width, EVERY_BLOCK)).report
        free = run(ENGINE, ENGINE.plan(width, tokens_per_block())).report
        paid = run(ENGINE, ENGINE.plan(width, tokens_per_block(package=True), select=True)).report
        saved = whole.macs.dense / free.macs.dense
        assert whole.cycles / free.cycles == pytest.approx(saved, rel=0.02)
        assert free.cycles < paid.cycles < 1.03 * free.cycles
        assert paid.counters["selections"] == 3
        assert paid.counters["selector_engine_cycles"] > 0


@settings(max_examples=25, deadline=None)
@given(drops=st.lists(st.integers(0, 60), min_size=2, max_size=5))
def test_fewer_tokens_never_take_longer(drops: list[int]) -> None:
    """Without the cost of selecting, dropping tokens only saves; and time covers the work."""
    tokens = np.maximum(197 - np.cumsum([0, *drops]), 1).tolist()
    report = run(ENGINE, ENGINE.plan(192, tokens)).report
    whole = run(ENGINE, ENGINE.plan(192, [197] * len(tokens))).report
    assert report.cycles <= whole.cycles
    assert report.cycles * ENGINE.multipliers >= report.macs.dense
    assert report.cycles >= report.counters["engine_cycles"]


def test_images_differ_and_the_mean_share_is_what_was_asked(
    net: VisionTransformer, selectors: dict[int, TokenSelector]
) -> None:
    """Calibrated on these images the mean holds; each image keeps its own number."""
    rng = np.random.default_rng(1)
    images = [made_up_image(rng) for _ in range(6)]
    runs = [forward(net, image, selectors) for image in images]
    for block, ratio in RATIOS.items():
        left = [done.tokens[block - 1] - 2 for done in runs]  # class and package token apart
        assert np.mean(left) == pytest.approx(ratio * PATCHES, abs=6)
        assert len(set(left)) > 2
    assert all(0 in done.kept[-1] for done in runs)


def test_a_run_is_what_its_tokens_say(
    net: VisionTransformer, selectors: dict[int, TokenSelector]
) -> None:
    """The products met in the pass are those planned from its token counts: same cycles."""
    rng = np.random.default_rng(7)
    found = list(ENGINE.infer(net, [made_up_image(rng) for _ in range(3)], selectors))
    for program, done in found:
        planned = run(ENGINE, ENGINE.plan(64, done.tokens, select=True)).report
        assert run(ENGINE, program).report.cycles == planned.cycles
    assert len({tuple(done.tokens) for _, done in found}) > 1


def test_every_product_is_exact_and_carried_on_both_engines(
    net: VisionTransformer, selectors: dict[int, TokenSelector]
) -> None:
    """MAC core, reference and the tiles that tokens carry give the same integers."""
    image = made_up_image(np.random.default_rng(3))
    ((program, done),) = ENGINE.infer(net, [image], selectors, check=True)
    ((_, quick),) = ENGINE.infer(net, [image], selectors)
    compiled = run(ENGINE, program).report
    simpy = run(ENGINE, program, engine="simpy", execute=True).report
    assert compiled.verification.status == simpy.verification.status == "exact"
    assert compiled.cycles == simpy.cycles
    assert done.tokens == quick.tokens and (done.logits == quick.logits).all()
    exact = forward(net, image, selectors).logits
    assert np.corrcoef(done.logits, exact)[0, 1] > 0.9  # 8 bits, and near-threshold tokens


def test_a_lost_token_is_a_wrong_output(
    net: VisionTransformer, selectors: dict[int, TokenSelector]
) -> None:
    """If the engine's first tile vanishes, execution does not give the core's sums."""
    image = made_up_image(np.random.default_rng(3))
    ((program, _),) = ENGINE.infer(net, [image], selectors, check=True)
    engine = program.netlist.actor("engine")
    plain = engine.execute
    assert plain is not None

    def loses(lane: int, k: int, got: dict[str, list[object]]) -> dict[str, list[object]]:
        made = plain(lane, k, got)
        return made if k else {"sums": [None]}

    object.__setattr__(engine, "execute", loses)
    report = run(ENGINE, program, engine="simpy", execute=True).report
    assert report.verification.status == "mismatch"


def test_the_extremes_of_selection(net: VisionTransformer) -> None:
    """Nothing dropped: no package, full work. All dropped: class and package token go on."""
    image = made_up_image(np.random.default_rng(0))
    rng = np.random.default_rng(2)
    selector = {2: TokenSelector.random(1, 64, rng)}
    assert forward(net, image, selector, threshold=0.0).tokens == [197, 197, 197]
    assert forward(net, image, selector, threshold=1.0).tokens == [197, 2, 2]
    assert forward(net, image).tokens == [197, 197, 197]


@pytest.mark.parametrize("density", [0.0, 1.0])
@pytest.mark.parametrize(
    "layer",
    [Linear(name="fc", in_features=70, out_features=33, rows=5),
     Conv2d(name="patches", in_channels=3, out_channels=20, input=(12, 12), kernel=(4, 4),
            stride=(4, 4))],
)  # fmt: skip
def test_a_layer_is_exact_on_both_engines(layer: Linear | Conv2d, density: float) -> None:
    """One layer alone, all zero and all dense."""
    tensors = made_up(layer, np.random.default_rng(0), activation_density=density)
    compiled = run(ENGINE, tensors).report
    simpy = run(ENGINE, tensors, engine="simpy", execute=True).report
    assert compiled.verification.status == simpy.verification.status == "exact"
    assert compiled.cycles == simpy.cycles
    assert (compiled.macs.effectual == 0) == (density == 0)
    program = ENGINE.lower(tensors)
    if isinstance(layer, Linear) and density:
        assert program.outputs is not None
        real = np.maximum(tensors.activation @ tensors.sparse_weight.to_dense().T, 0)
        assert np.abs(program.outputs * program.output_scale - real).max() < 0.05 * real.max()


@pytest.mark.parametrize(
    ("field", "value"),
    [("th", 0), ("weight_buffer_kib", 1.5), ("clock_hz", float("nan")), ("dram_gbytes_per_s", 0)],
)
def test_a_bad_configuration_is_refused(field: str, value: object) -> None:
    """The letter names the field."""
    with pytest.raises(InputError, match=field):
        HeatViT(**{field: value})


def test_bad_input_is_refused(net: VisionTransformer) -> None:
    """Rising tokens, odd widths, NaN patches, groups, a buffer too small are letters."""
    for width, tokens in ((100, [197]), (64, []), (64, [5, 6]), (64, [0])):
        with pytest.raises(InputError):
            ENGINE.plan(width, tokens)
    image = made_up_image(np.random.default_rng(0))
    with pytest.raises(InputError, match="finite"):
        forward(net, np.full_like(image, np.nan))
    with pytest.raises(InputError, match="patches must be"):
        forward(net, image[:5])
    with pytest.raises(InputError, match="block"):
        forward(net, image, {9: TokenSelector.random(1, 64, np.random.default_rng(0))})
    with pytest.raises(InputError, match="weight_buffer_kib"):
        HeatViT(weight_buffer_kib=1).plan(192, [197])
    layer = Conv2d(name="g", in_channels=4, out_channels=4, input=(4, 4), kernel=(1, 1), groups=2)
    with pytest.raises(InputError, match="one group"):
        ENGINE.lower(made_up(layer, np.random.default_rng(0)))
    with pytest.raises(InputError, match="multiple of 64"):
        VisionTransformer.drawn(100, np.random.default_rng(0))


def test_the_validation_shows_what_it_measures(monkeypatch: pytest.MonkeyPatch) -> None:
    """One small batch of DeiT-T: a row with the published range beside; sources everywhere."""
    monkeypatch.setattr(validation, "WIDTHS", {"deit_tiny": 192})
    monkeypatch.setattr(validation, "CALIBRATION", 1)
    result = CliRunner().invoke(validation.command, ["--json", "-", "--images", "2"])
    assert result.exit_code == 0, result.output
    (row,) = msgspec.json.decode(result.output)["rows"]
    assert len(row["images"]) == 2 and row["published_low"] == 1.82
    assert 1.5 < row["fixed_with_selectors"] < row["fixed_bound"] < 1.7
    assert all(figure.source for figure in ENGINE.datasheet())
