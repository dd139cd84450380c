"""Decoding a language model: where it fits, and what bounds a token.

Left, the bytes of all parameters at 16 to 2 bits beside the memories of three classes of platform.
Right, GPT2-XL decodes a token against 512 others on Bit Fusion, event by event, at DRAM bandwidths
from 8 to 1024 GB/s and weights of 8, 4 and 2 bits; beside it the bound, all weights read once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from sparqsim.architectures.arrays.bitfusion import BitFusion
from sparqsim.architectures.network import run_network
from sparqsim.scripts.output import PatientBar
from sparqsim.scripts.scenarios.frame import Scenario, lines, panels
from sparqsim.simulator.palette import BLUE, GREEN, MUTED, ORANGE
from sparqsim.workloads import recipes
from sparqsim.workloads.models import get_model
from sparqsim.workloads.work import load

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MODELS = ("mobilenet_v2", "resnet50", "bert_base", "gpt2_xl", "llama_7b")
BITS = (16, 8, 4, 2)
PLATFORMS = {"cloud, 24 GB": 24e9, "mobile, 4 GB": 4e9, "tiny, 500 KB": 500e3}
DECODED, CONTEXT = "gpt2_xl", 512
BANDWIDTHS = (8, 32, 128, 512, 1024)  # GB/s
WEIGHT_BITS = (8, 4, 2)


class Size(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes of a model's parameters by their bits."""

    model: str
    parameters: int
    bytes: dict[int, float]


class Speed(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens a second by bandwidth, simulated and as the weights' bytes bound them."""

    bits: int
    simulated: list[float]
    bound: list[float]


class Study(msgspec.Struct, frozen=True, kw_only=True):
    """Sizes of all models, speeds of the one that decodes."""

    gbytes_per_s: list[float]
    sizes: list[Size]
    speeds: list[Speed]


def recipe_of(bits: int) -> recipes.Recipe:
    """Weights of so many bits, activations of 8."""
    return recipes.Recipe(
        name=f"w{bits}a8",
        weights=recipes.TensorRecipe(format=f"int{bits}", granularity="channel"),
        activations=recipes.TensorRecipe(format="int8"),
    )


def measure(bar: PatientBar) -> Study:
    """Count parameters, and decode at every bandwidth."""
    sizes = []
    for name in MODELS:
        parameters = get_model(name).parameters
        sizes.append(
            Size(
                model=name,
                parameters=parameters,
                bytes={bits: parameters * bits / 8 for bits in BITS},
            )
        )
    network = load(DECODED, context=CONTEXT, numbers=False)
    read = sum(layer.weights * layer.repeat for layer in network.layers)
    speeds = []
    for bits in WEIGHT_BITS:
        simulated = []
        for number, gbytes in enumerate(BANDWIDTHS):
            bar(f"{bits} bits, {gbytes} GB/s", number, len(BANDWIDTHS))
            machine = BitFusion().resized(bandwidth=gbytes * 1e9)
            report = run_network(machine, network, recipe=recipe_of(bits), verify=False)
            simulated.append(1 / report.totals.seconds)
        bound = [gbytes * 8e9 / (read * bits) for gbytes in BANDWIDTHS]
        speeds.append(Speed(bits=bits, simulated=simulated, bound=bound))
    return Study(gbytes_per_s=list(map(float, BANDWIDTHS)), sizes=sizes, speeds=speeds)


def finding(found: Study) -> str:
    """The paragraph."""
    largest = found.sizes[-1]
    fits = {
        platform: next((b for b in BITS if largest.bytes[b] <= room), None)
        for platform, room in PLATFORMS.items()
    }
    where = "; ".join(
        f"{platform}: {'at no bits shown' if bits is None else f'from {bits} bits down'}"
        for platform, bits in fits.items()
    )
    eight, two = found.speeds[0], found.speeds[-1]
    return (
        f"{largest.model} has {largest.parameters / 1e9:.2f} billion parameters and fits, by its "
        f"weights alone: {where}. A token of {DECODED} reads every weight once: at "
        f"{found.gbytes_per_s[0]:g} GB/s Bit Fusion decodes {eight.simulated[0]:.2f} tokens a "
        f"second with 8-bit weights ({eight.bound[0]:.2f} is the bound), and "
        f"{two.simulated[0]:.2f} with {two.bits}-bit ones. At {found.gbytes_per_s[-1]:g} GB/s "
        f"it is {eight.simulated[-1]:.1f} of {eight.bound[-1]:.1f}: the array has become the bound."
    )


def draw(found: Study) -> Figure:
    """Bytes by model and bits; tokens a second by bandwidth."""
    figure, (left, right) = panels(2, 10.4)
    names = [size.model for size in found.sizes]
    for bits, mark in zip(BITS, ("o", "s", "^", "v"), strict=True):
        left.plot(names, [size.bytes[bits] for size in found.sizes], mark, color=BLUE,
                  alpha=0.35 + 0.65 * bits / 16, label=f"{bits} bits")  # fmt: skip
    for platform, room in PLATFORMS.items():
        left.axhline(room, color=MUTED, linewidth=0.9, linestyle="--")
        place = left.get_yaxis_transform()
        left.text(0.01, 1.15 * room, platform, transform=place, fontsize=8)
    left.set(yscale="log", ylabel="bytes of all parameters")
    left.tick_params(axis="x", rotation=25)
    left.legend(frameon=False, fontsize=8, loc="lower right", bbox_to_anchor=(1, 0.12))
    left.set_title("Where models fit", loc="left")
    colours = (BLUE, GREEN, ORANGE)
    rows = {f"{speed.bits}-bit weights": speed.simulated for speed in found.speeds}
    lines(right, found.gbytes_per_s, rows, colours)
    for speed, colour in zip(found.speeds, colours, strict=True):
        right.plot(found.gbytes_per_s, speed.bound, ":", color=colour, linewidth=1)
    right.set(
        xscale="log", yscale="log", xlabel="DRAM bandwidth (GB/s)", ylabel="tokens per second"
    )
    right.set_title(f"{DECODED} on Bit Fusion; dotted: weights read once", loc="left")
    return figure


SCENARIO = Scenario(
    name="decode", title="Decoding: bytes, bandwidth and platforms", measure=measure,
    finding=finding, draw=draw,
)  # fmt: skip
