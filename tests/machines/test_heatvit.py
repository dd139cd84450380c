"""Does dropping tokens do what it should? Selection, products, time, arithmetic, bad input."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from sparqsim.architectures.heatvit import EVERY_BLOCK, HeatViT, Product, network_steps
from sparqsim.architectures.machine import program as lowered
from sparqsim.architectures.machine import run
from sparqsim.architectures.network import run_layer, run_network
from sparqsim.base import InputError
from sparqsim.scripts.validation import heatvit as validation
from sparqsim.simulator.traffic import moved
from sparqsim.workloads.encoded import outline
from sparqsim.workloads.layers import Conv2d, Layer, Linear, MatMul, OtherWork
from sparqsim.workloads.models import get_model, vit
from sparqsim.workloads.recipes import Recipe, TensorRecipe
from sparqsim.workloads.tensors import LayerTensors, synthetic
from sparqsim.workloads.tokens import TokenSelector, tokens_per_block
from sparqsim.workloads.vision_transformer import (
    PATCHES,
    VisionTransformer,
    calibrated,
    forward,
    synthetic_image,
)
from sparqsim.workloads.work import load

ENGINE = HeatViT()
RATIOS = {2: 0.7, 3: 0.4}


@pytest.fixture(scope="module")
def net() -> VisionTransformer:
    """A DeiT of three blocks and one head: small enough to compute everywhere."""
    return VisionTransformer.drawn(64, np.random.default_rng(0), blocks=3)


@pytest.fixture(scope="module")
def selectors(net: VisionTransformer) -> dict[int, TokenSelector]:
    rng = np.random.default_rng(1)
    return calibrated(net, [synthetic_image(rng) for _ in range(6)], RATIOS, rng)


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
    memory = run(ENGINE, ENGINE.plan(width, tokens)).report.memory
    assert memory["weight_buffer"].written_bits == 8 * weights
    assert memory["dram"].read_bits == 8 * (weights + 196 * 768)
    assert memory["dram"].written_bits == 8 * 1000


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
    images = [synthetic_image(rng) for _ in range(6)]
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
    found = list(ENGINE.infer(net, [synthetic_image(rng) for _ in range(3)], selectors))
    for program, done in found:
        planned = run(ENGINE, ENGINE.plan(64, done.tokens, select=True)).report
        assert run(ENGINE, program).report.cycles == planned.cycles
    assert len({tuple(done.tokens) for _, done in found}) > 1


def test_every_product_is_exact_and_carried_on_both_engines(
    net: VisionTransformer, selectors: dict[int, TokenSelector]
) -> None:
    """MAC core, reference and the tiles that tokens carry give the same integers."""
    image = synthetic_image(np.random.default_rng(3))
    ((program, done),) = ENGINE.infer(net, [image], selectors, check=True)
    ((_, quick),) = ENGINE.infer(net, [image], selectors)
    compiled = run(ENGINE, program).report
    simpy = run(ENGINE, program, engine="simpy", execute=True).report
    assert compiled.verification.status == simpy.verification.status == "exact"
    assert compiled.cycles == simpy.cycles
    assert done.tokens == quick.tokens and (done.logits == quick.logits).all()
    exact = forward(net, image, selectors).logits
    assert np.corrcoef(done.logits, exact)[0, 1] > 0.9  # 8 bits, and near-threshold tokens
    whole = forward(net, image).logits
    ((_, every),) = ENGINE.infer(net, [image])
    assert np.corrcoef(every.logits, whole)[0, 1] > 0.999


def test_a_lost_token_is_a_wrong_output(
    net: VisionTransformer, selectors: dict[int, TokenSelector]
) -> None:
    """If the engine's first tile vanishes, execution does not give the core's sums."""
    image = synthetic_image(np.random.default_rng(3))
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
    image = synthetic_image(np.random.default_rng(0))
    rng = np.random.default_rng(2)
    selector = {2: TokenSelector.random(1, 64, rng)}
    assert forward(net, image, selector, threshold=0.0).tokens == [197, 197, 197]
    assert forward(net, image, selector, threshold=1.0).tokens == [197, 2, 2]
    assert forward(net, image).tokens == [197, 197, 197]


def test_bits_over_time_are_the_reports(
    net: VisionTransformer, selectors: dict[int, TokenSelector]
) -> None:
    """Every memory has ports: what they move over the run sums to what the report says, and the
    weight buffer is filled with what DRAM gives."""
    image = synthetic_image(np.random.default_rng(3))
    ((program, _),) = ENGINE.infer(net, [image], selectors)
    result = run(ENGINE, program)
    assert set(result.traffic) == {"weight_buffer", "activations", "dram"}
    for name, use in result.report.memory.items():
        over_time = moved(result.timeline, result.traffic[name])
        assert over_time.read_bits.sum() == pytest.approx(use.read_bits)
        assert over_time.written_bits.sum() == pytest.approx(use.written_bits)


LAYERS: dict[str, Layer] = {
    "connected": Linear(name="fc", in_features=70, out_features=33, rows=5),
    "patches": Conv2d(name="patches", in_channels=3, out_channels=20, input=(12, 12),
                      kernel=(4, 4), stride=(4, 4)),
    "padded": Conv2d(name="padded", in_channels=6, out_channels=10, input=(7, 6), kernel=(3, 3),
                     padding=(1, 0, 2, 1), stride=(2, 1), batch=2),
    "groups": Conv2d(name="groups", in_channels=12, out_channels=8, input=(5, 5), kernel=(3, 3),
                     padding=(1, 1), groups=4),
    "depthwise": Conv2d(name="depthwise", in_channels=5, out_channels=5, input=(6, 6),
                        kernel=(3, 3), groups=5),
    "attention": MatMul(name="attention", m=9, k=16, n=11, batch=4),
}  # fmt: skip


def off_centre(layer: Layer, seed: int = 0) -> LayerTensors:
    """Numbers whose zero points are not 0, and a bias."""
    made = synthetic(layer, np.random.default_rng(seed))
    bias = np.random.default_rng(1).normal(size=layer.weight_shape[0]) if layer.weights else None
    weight = made.weight if isinstance(made.weight, np.ndarray) else made.weight.to_dense()
    return LayerTensors(
        layer=layer,
        weight=weight + np.float32(0.3),
        activation=made.activation + np.float32(0.7),
        bias=bias,
        relu=False,
    )


@pytest.mark.parametrize("density", [0.0, 1.0])
@pytest.mark.parametrize("layer", LAYERS)
def test_a_layer_is_exact_on_both_engines(layer: str, density: float) -> None:
    """One layer alone, all zero and all dense; its outputs are near the float layer's."""
    tensors = synthetic(LAYERS[layer], np.random.default_rng(0), activation_density=density)
    compiled = run(ENGINE, tensors).report
    simpy = run(ENGINE, tensors, engine="simpy", execute=True).report
    assert compiled.verification.status == simpy.verification.status == "exact"
    assert compiled.cycles == simpy.cycles
    assert (compiled.macs.effectual == 0) == (density == 0)
    if density:
        assert compiled.output_sqnr_db is not None and compiled.output_sqnr_db > 30
    drawn = run(ENGINE, outline(LAYERS[layer], "int8")).report
    assert (drawn.cycles, drawn.memory) == (compiled.cycles, compiled.memory)


@pytest.mark.parametrize("layer", LAYERS)
def test_zero_points_are_exact(layer: str) -> None:
    """Asymmetric operands, padded places included; sums of activations are counted where weights
    have a zero point, and tokens carry the codes' products."""
    one = TensorRecipe(format="int8")
    shifted = msgspec.structs.replace(one, asymmetric=True)
    for weights, counted in ((one, False), (shifted, True)):
        recipe = Recipe(name="z", weights=weights, activations=shifted)
        report = run(
            ENGINE, off_centre(LAYERS[layer]), recipe=recipe, engine="simpy", execute=True
        ).report
        assert report.verification.status == "exact"
        two = isinstance(LAYERS[layer], MatMul)  # both operands are activations
        assert ("activation_sum_additions" in report.counters) == (counted or two)


@pytest.mark.parametrize("layer", LAYERS)
def test_dynamic_ranges_cost_a_way_back(layer: str) -> None:
    """Sums of 32 bits are written, read again and scaled: more cycles and bits, told in a note."""
    tensors = off_centre(LAYERS[layer])
    static, dynamic = (run(ENGINE, tensors, recipe=r).report for r in ("int8", "int8-dynamic"))
    assert dynamic.verification.status == "exact" and dynamic.cycles > static.cycles
    results = LAYERS[layer].gemm()
    sums = results.batch * results.m * results.n
    one, other = (report.memory["activations"] for report in (static, dynamic))
    assert other.written_bits - one.written_bits == sums * 32
    assert other.read_bits - one.read_bits == sums * 32
    assert any("dynamic ranges" in note for note in dynamic.notes)
    drawn = run(ENGINE, outline(LAYERS[layer], "int8-dynamic")).report
    assert drawn.cycles == dynamic.cycles


def test_a_network_keeps_its_activations_on_the_chip() -> None:
    """DeiT-T as one program: the engine's cycles and the weights are those of the unpruned run,
    and DRAM has the image, every weight once and the result."""
    model = get_model("deit_tiny")
    program = ENGINE.lower_network([outline(layer, "int8") for layer in model.layers])
    assert program is not None
    whole = run(ENGINE, program).report
    planned = run(ENGINE, ENGINE.plan(192, EVERY_BLOCK)).report
    assert whole.macs == planned.macs
    assert whole.counters["engine_cycles"] == planned.counters["engine_cycles"]
    assert whole.memory["dram"].read_bits == planned.memory["dram"].read_bits
    assert whole.cycles == pytest.approx(planned.cycles, rel=0.05)
    dynamic = [outline(layer, "int8-dynamic") for layer in model.layers]
    assert ENGINE.lower_network(dynamic) is None


@pytest.mark.parametrize("recipe", ["int4", "w4a8", "flint4"])
def test_narrow_codes_are_held_in_eight_bits(recipe: str) -> None:
    """The engine has one width: narrow codes run exactly and gain nothing; fp16 is refused."""
    tensors = off_centre(LAYERS["connected"])
    report = run(ENGINE, tensors, recipe=recipe).report
    assert report.verification.status == "exact"
    assert report.cycles == run(ENGINE, tensors).report.cycles
    assert {each.stored_as for each in report.operands.values()} <= {
        "int8_signed", "int8_unsigned",
    }  # fmt: skip
    with pytest.raises(InputError, match="float16 is none of them"):
        lowered(ENGINE, tensors, "fp16")


def test_the_engine_is_resized_and_times_what_stands_beside() -> None:
    """Another peak is another number of outputs a cycle; softmax takes three passes of post."""
    assert ENGINE.peak().macs_per_s == 3 * 8 * 8 * 150e6
    assert ENGINE.resized(macs_per_s=2 * ENGINE.peak().macs_per_s).parallel_outputs == 16
    assert ENGINE.resized(bandwidth=1e9).bandwidth() == 1e9
    softmax = ENGINE.time_beside(
        OtherWork(name="s", kind="softmax", operation="Softmax", elements=240)
    )
    assert softmax is not None and softmax.cycles == 3 * 10
    gelu = OtherWork(name="g", kind="elementwise", operation="Gelu", elements=240)
    norm = OtherWork(name="n", kind="normalisation", operation="LayerNormalization", elements=9)
    told = ENGINE.time_beside(gelu)
    assert told is not None and told.cycles == 0 and ENGINE.time_beside(norm) is None


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("parallel_heads", 0),
        ("weight_buffer_kib", 1.5),
        ("clock_hz", float("nan")),
        ("dram_gbytes_per_s", 0),
    ],
)
def test_a_bad_configuration_is_refused(field: str, value: object) -> None:
    """The message names the field."""
    with pytest.raises(InputError, match=field):
        HeatViT(**{field: value})


def test_bad_input_is_refused(net: VisionTransformer) -> None:
    """Rising tokens, odd widths, NaN patches, a buffer too small are error messages."""
    for width, tokens in ((100, [197]), (64, []), (64, [5, 6]), (64, [0])):
        with pytest.raises(InputError):
            ENGINE.plan(width, tokens)
    image = synthetic_image(np.random.default_rng(0))
    with pytest.raises(InputError, match="finite"):
        forward(net, np.full_like(image, np.nan))
    with pytest.raises(InputError, match="patches must be"):
        forward(net, image[:5])
    with pytest.raises(InputError, match="block"):
        forward(net, image, {9: TokenSelector.random(1, 64, np.random.default_rng(0))})
    with pytest.raises(InputError, match="weight_buffer_kib"):
        HeatViT(weight_buffer_kib=1).plan(192, [197])
    wide = Conv2d(
        name="g", in_channels=2048, out_channels=16, input=(3, 3), kernel=(3, 3), groups=2
    )
    with pytest.raises(
        InputError, match=r"8 columns of 18432 weights .*weight_buffer_kib from 256"
    ):
        lowered(ENGINE, outline(wide, "int8"))
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


# ------------------------------------------------------------------ shares of tokens, as an option


def test_a_run_keeps_the_shares_it_is_told() -> None:
    """`run heatvit deit_tiny --keep .7,.49,.343`: the network of a plan with those tokens, its
    selectors among the rows; fewer products and cycles than with all tokens, weights the same."""
    machine = HeatViT(keep=".7,.49,.343")
    report = run_network(machine, load("deit_tiny"), verify=False)
    whole = run_network(HeatViT(), load("deit_tiny"), verify=False)
    assert report.whole is not None and whole.whole is not None
    tokens = tokens_per_block(package=True)
    planned = run(ENGINE, ENGINE.plan(192, tokens, select=True)).report
    assert report.totals.macs == report.whole.macs.dense == planned.macs.dense
    for counter in ("engine_cycles", "selector_engine_cycles", "selections", "tokens_dropped"):
        assert report.whole.counters[counter] == planned.counters[counter]
    names = [row.name for row in report.runs]
    assert [name for name in names if name.endswith("head2")] == [
        f"selector{block}.head2" for block in (4, 7, 10)
    ]
    assert report.totals.cycles < 0.65 * whole.totals.cycles
    assert report.totals.energy.known_pj < whole.totals.energy.known_pj
    assert "blocks.qkv" in {row.name for row in whole.runs} and "blocks4-6.qkv" in names


def test_selectors_are_verified_as_any_layer() -> None:
    """Their products are layers with numbers: bit-exact."""
    model = vit.pruned(get_model("deit_tiny"), (0.7, 0.49, 0.343))
    layers = [each for each in model.layers if each.name.startswith("selector10")]
    assert len(layers) == 6
    for layer in layers:
        work = synthetic(layer, np.random.default_rng(0))
        assert run(ENGINE, work).report.verification.status == "exact"


def test_shares_that_change_nothing_are_refused() -> None:
    """A layer alone, a network without selectors, shares that rise or are no numbers."""
    machine = HeatViT(keep=".7,.49,.343")
    with pytest.raises(InputError, match="runs deit_tiny as another network; run all of it"):
        run_layer(machine, load("deit_tiny/blocks.qkv"))
    with pytest.raises(InputError, match="on one image, got 'alexnet'"):
        run_network(machine, load("alexnet"), verify=False)
    for wrong, said in ((".5", "3 selectors need"), (".3,.5,.7", "falling"), ("a,b,c", "shares")):
        with pytest.raises(InputError, match=said):
            HeatViT(keep=wrong)
