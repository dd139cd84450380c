"""Activations pruned at run time: accuracy against cycles on EIE and SNAP, image by image.

    sparqsim scenarios dynamic_pruning [--out docs]

The pruned digits CNN drops activations of every hidden layer's input by a rule whose mask is new
for each image: the largest k of the input stay (top-k), or those above a share of its largest
(threshold). Accuracy is over all test images. Images run one by one on EIE (fully connected
layers) and on SNAP (all but the first layer). With top-k every image keeps as many activations, so
that what still differs is where they are; with a threshold the number differs too.

Where EfficientNet-Lite0's trained weights are installed, its layers after a ReLU6 run on SNAP with
their real inputs, and with the zeros filled in: the zeros are there, nothing is dropped. Writes
``background/dynamic_pruning.md`` with its figure and data.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from sparqsim.architectures.eie import EIE
from sparqsim.architectures.machine import Machine, run
from sparqsim.architectures.snap import SNAP
from sparqsim.base import InputError
from sparqsim.scripts.output import PatientBar, console
from sparqsim.scripts.scenarios.frame import Scenario
from sparqsim.workloads.models.digits import Digits, load_digits
from sparqsim.workloads.prune import ActivationRule, RelativeThreshold, TopK
from sparqsim.workloads.tensors import LayerTensors, from_trained, with_rows

if TYPE_CHECKING:
    from matplotlib.figure import Figure

IMAGES = 8
LAYERS = ("conv2", "conv3", "fc1", "fc2", "fc3")  # inputs that a ReLU made
KEPT = (0.4, 0.3, 0.2, 0.15, 0.1, 0.05)  # of top-k, of all places of an input
THRESHOLDS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5)  # of an input's largest
MACHINES: dict[str, tuple[Machine, tuple[str, ...]]] = {
    "eie": (EIE(), ("fc1", "fc2", "fc3")),
    "snap": (SNAP(), LAYERS),
}
EFFICIENTNET = "efficientnet-lite0"
GIVEN_AWAY = 0.01  # accuracy a user may give away


class Spread(msgspec.Struct, frozen=True, kw_only=True):
    """Cycles of single images: mean, least and most."""

    mean: float
    least: int
    most: int


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One rule at one strength; ``rule`` is ``none``, ``top-k`` or ``threshold``.

    ``setting`` is the share kept or the threshold; ``density`` the share of non-zero activations,
    over layers by size.
    """

    rule: str
    setting: float
    accuracy: float
    density: float
    cycles: dict[str, Spread]
    verified: bool


class ReluLayer(msgspec.Struct, frozen=True, kw_only=True):
    """A layer on SNAP with its real input, and with no zero in it."""

    name: str
    zeros: float
    macs: int
    effectual: int
    cycles: int
    filled_cycles: int
    verified: bool


class Study(msgspec.Struct, frozen=True, kw_only=True):
    """Rows of the digits CNN, the first without pruning; layers of EfficientNet, if installed."""

    images: int
    test_images: int
    rows: list[Row]
    efficientnet: list[ReluLayer]


def rule_for(rule: str, setting: float, places: int) -> ActivationRule | None:
    """The rule for an input of so many places; None leaves it as it is."""
    if rule == "none":
        return None
    if rule == "top-k":
        return TopK(k=max(1, round(setting * places)))
    return RelativeThreshold(share=setting)


def pruned_inputs(
    digits: Digits, rule: str, setting: float
) -> tuple[float, dict[str, NDArray[np.float32]]]:
    """Accuracy over the test images, and each layer's input as the rule leaves it."""
    inputs: dict[str, NDArray[np.float32]] = {}

    def see(name: str, x: NDArray[np.float32]) -> NDArray[np.float32]:
        flat = x.reshape(len(x), -1)
        chosen = rule_for(rule, setting, flat.shape[1]) if name in LAYERS else None
        inputs[name] = x if chosen is None else chosen.apply(flat).reshape(x.shape)
        return inputs[name]

    return digits.accuracy(see=see), inputs


def measure(digits: Digits, rule: str, setting: float, images: int = IMAGES) -> Row:
    """Classify all test images, and run the first ones on each machine."""
    accuracy, inputs = pruned_inputs(digits, rule, setting)
    layers = {layer.name: layer for layer in digits.layers}
    cycles, verified = {}, True
    for name, (machine, names) in MACHINES.items():
        totals = []
        for image in range(images):
            total = 0
            for each in names:
                tensors = LayerTensors(
                    layer=with_rows(layers[each], 1),
                    weight=digits.weights[each],
                    activation=inputs[each][image : image + 1],
                    bias=digits.biases[each],
                    relu=each != LAYERS[-1],
                    pruned=True,
                )
                report = run(machine, tensors, record="summary").report
                total += report.cycles
                verified &= report.verification.status == "exact"
            totals.append(total)
        cycles[name] = Spread(mean=float(np.mean(totals)), least=min(totals), most=max(totals))
    alive = [inputs[each] for each in LAYERS]
    return Row(
        rule=rule,
        setting=setting,
        accuracy=accuracy,
        density=float(sum(np.count_nonzero(x) for x in alive) / sum(x.size for x in alive)),
        cycles=cycles,
        verified=verified,
    )


def relu_layer(tensors: LayerTensors) -> ReluLayer:
    """A layer on SNAP as it is, and with the input's zeros set to its median value."""
    x: NDArray[Any] = tensors.activation
    alive = x != 0
    filled = replace(tensors, activation=np.where(alive, x, np.median(x[alive])).astype(x.dtype))
    real, full = (run(SNAP(), each, record="summary").report for each in (tensors, filled))
    return ReluLayer(
        name=tensors.layer.name,
        zeros=1 - float(alive.mean()),
        macs=real.macs.dense,
        effectual=real.macs.effectual,
        cycles=real.cycles,
        filled_cycles=full.cycles,
        verified=all(each.verification.status == "exact" for each in (real, full)),
    )


def efficientnet(bar: PatientBar) -> list[ReluLayer]:
    """The 1x1 layers behind each block's ReLU6, on one photograph; none if not installed."""
    from sparqsim.workloads.models.real import subject

    try:
        names = [layer.name for layer in subject(EFFICIENTNET).layers]
    except InputError as error:
        console().print(f"{EFFICIENTNET} is left out: {error}")
        return []
    behind = [name for name in names if name.endswith(".project")]
    found = []
    for number, name in enumerate(behind):
        bar(f"{EFFICIENTNET}/{name}", number, len(behind))
        found.append(relu_layer(from_trained(EFFICIENTNET, name)))
    return found


def study(bar: PatientBar) -> Study:
    """Prune, classify, run."""
    digits = load_digits("cnn")
    cases = [("none", 0.0)]
    cases += [("top-k", kept) for kept in KEPT]
    cases += [("threshold", share) for share in THRESHOLDS]
    rows = []
    for number, (rule, setting) in enumerate(cases):
        bar(f"{rule} {setting:g}", number, len(cases))
        rows.append(measure(digits, rule, setting))
    return Study(
        images=IMAGES,
        test_images=len(digits.images.test_images),
        rows=rows,
        efficientnet=efficientnet(bar),
    )


def draw(found: Study) -> Figure:
    """Accuracy over cycles of each rule and machine; zeros and speed-up of EfficientNet."""
    from matplotlib.figure import Figure

    wide = bool(found.efficientnet)
    figure = Figure(figsize=(12 if wide else 8, 4), layout="constrained")
    axes = figure.subplots(1, 2 + wide, width_ratios=[1, 1, 1.25][: 2 + wide])
    none = found.rows[0]
    styles = {"top-k": ("#0072b2", "o"), "threshold": ("#d55e00", "s")}
    titles = {"eie": "EIE, fully connected layers", "snap": "SNAP, all but the first layer"}
    for place, name in zip(axes, MACHINES, strict=False):
        for rule, (colour, marker) in styles.items():
            rows = [none, *(row for row in found.rows if row.rule == rule)]
            spread = [row.cycles[name] for row in rows]
            mean = np.array([each.mean for each in spread])
            reach = [
                mean - [each.least for each in spread],
                np.array([each.most for each in spread]) - mean,
            ]
            place.errorbar(
                mean,
                [100 * row.accuracy for row in rows],
                xerr=reach,
                color=colour,
                marker=marker,
                markersize=5,
                linewidth=1.2,
                elinewidth=0.7,
                capsize=2,
                label=rule,
            )
        whole = none.cycles[name].mean
        place.plot([whole], [100 * none.accuracy], "D", color="black", label="ReLU alone", zorder=5)
        place.set_xlim(left=0)
        place.set_title(titles[name], loc="left")
        place.set_xlabel("cycles per image: mean, least to most")
    axes[0].set_ylabel("digits accuracy (%)")
    axes[0].legend(frameon=False, loc="lower right")
    if wide:
        place, layers = axes[2], found.efficientnet
        x = np.arange(len(layers))
        place.bar(x, [100 * each.zeros for each in layers], color="#bbbbbb")
        place.set_ylim(0, 100)
        place.set_ylabel("zeros of the input (%), bars")
        place.set_xticks(x, [each.name.removesuffix(".project")[5:] for each in layers], fontsize=8)
        place.set_xlabel("EfficientNet-Lite0, block's projection")
        place.set_title("ReLU6's zeros on SNAP", loc="left")
        gain = place.twinx()
        gain.plot(x, [each.filled_cycles / each.cycles for each in layers], "o", color="#009e73")
        gain.set_ylim(1, max(2.0, *(1.1 * each.filled_cycles / each.cycles for each in layers)))
        gain.set_ylabel("speed-up over no zeros (x), dots")
        gain.spines["top"].set_visible(False)
    for place in axes:
        place.spines["top"].set_visible(False)
    for place in axes[:2]:
        place.spines["right"].set_visible(False)
    return figure


def _digits_table(found: Study) -> list[str]:
    lines = [
        "| rule | setting | accuracy | not zero | EIE: mean | least-most "
        "| SNAP: mean | least-most |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for row in found.rows:
        setting = "" if row.rule == "none" else f"{100 * row.setting:g} %"
        cells = [row.rule, setting, f"{100 * row.accuracy:.2f} %", f"{100 * row.density:.1f} %"]
        for name in MACHINES:
            spread = row.cycles[name]
            cells += [f"{spread.mean:.1f}", f"{spread.least}-{spread.most}"]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _efficientnet_section(layers: list[ReluLayer]) -> list[str]:
    macs, effectual = (sum(getattr(e, name) for e in layers) for name in ("macs", "effectual"))
    cycles = sum(each.cycles for each in layers)
    filled = sum(each.filled_cycles for each in layers)
    lines = [
        "",
        "## EfficientNet-Lite0: the zeros that ReLU6 leaves",
        "",
        "Trained weights, not pruned; the real input of one photograph. Of each block the 1x1 "
        "projection follows a ReLU6; expansions follow no ReLU, and their inputs have no zeros. "
        "Beside it, the same layer with the zeros filled in.",
        "",
        "| layer | zeros | MACs left | cycles | without zeros | speed-up |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for each in layers:
        lines.append(
            f"| {each.name} | {100 * each.zeros:.1f} % | {100 * each.effectual / each.macs:.1f} % "
            f"| {each.cycles:,} | {each.filled_cycles:,} "
            f"| {each.filled_cycles / each.cycles:.2f} |"
        )
    lines += [
        "",
        f"Together {100 * (1 - effectual / macs):.1f} % of the MACs fall away, and SNAP is "
        f"{filled / cycles:.2f} times as fast as without zeros, of {macs / effectual:.2f} that "
        "skipping every one of them would give.",
    ]
    return lines


def page(found: Study) -> str:
    """The page of a study: every number in it comes from the study."""
    return "\n".join(
        [
            "# Activations pruned at run time",
            "",
            "A rule drops small activations of an image as they come; the mask is new for each "
            "image, and so is the time. Made by "
            "`sparqsim scenarios dynamic_pruning --out docs`; "
            "all outputs verified bit by bit.",
            "",
            "![Accuracy over cycles, and zeros of EfficientNet](../figures/dynamic_pruning.png)",
            "",
            "## The digits CNN",
            "",
            f"Pruned weights; the inputs of {', '.join(LAYERS)}. Accuracy over "
            f"{found.test_images} test images, cycles of {found.images} of them, one at a time: "
            "EIE on the fully connected layers, SNAP on all five. Top-k keeps a share of all "
            "places of an input, a threshold what exceeds a share of its largest value. The first "
            "row is ReLU alone.",
            "",
            *_digits_table(found),
            "",
            "EIE takes one cycle per non-zero weight of a column whose input is not zero, and a "
            "dropped input is a column less: cycles fall with the density. SNAP compares whole "
            "bundles, so these small layers have a floor of one step per bundle pair that thinner "
            "bundles do not lower.",
            *(_efficientnet_section(found.efficientnet) if found.efficientnet else []),
            "",
        ]
    )


def finding(found: Study) -> str:
    """The paragraph."""
    none = found.rows[0]
    parts = []
    for rule in ("top-k", "threshold"):
        good = [
            row
            for row in found.rows
            if row.rule == rule and row.accuracy >= none.accuracy - GIVEN_AWAY
        ]
        least = min(good, key=lambda row: row.cycles["eie"].mean, default=none)
        gains = (none.cycles[name].mean / least.cycles[name].mean for name in ("eie", "snap"))
        parts.append(
            f"{rule} leaves {100 * least.density:.0f} % of the activations and gains "
            f"{next(gains):.2f} on EIE and {next(gains):.2f} on SNAP"
        )
    return (
        f"ReLU alone leaves {100 * none.density:.0f} % of the activations of the digits CNN and "
        f"{100 * none.accuracy:.2f} % of the answers right. For at most {100 * GIVEN_AWAY:g} point "
        f"of accuracy, {' and '.join(parts)}. On EIE a threshold's time differs from image to "
        f"image, top-k's hardly."
    )


SCENARIO = Scenario(
    name="dynamic_pruning", title="Activations pruned at run time", measure=study,
    finding=finding, draw=draw, page=page,
)  # fmt: skip
