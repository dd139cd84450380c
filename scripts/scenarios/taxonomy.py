"""Fine grain keeps accuracy, coarse grain keeps hardware simple: one layer, every pattern.

    sparqsim scenarios taxonomy [--out docs]

The first fully connected layer of the digits CNN (256 inputs, 128 outputs, trained weights) is
pruned by magnitude to the same density by each pattern, without retraining, and run on every
machine with 64 real input vectors; so is a synthetic layer of 2048 x 2048, for in a small one
launch, fetch, fill and drain weigh more than the weights. A row is an output, a channel is an
input. A dense machine gains from a pattern only where whole rows or channels vanish: it is then
given the smaller layer. The sparse tensor core gains from N:M alone. Bits are those of the tightest
encoding here for 8-bit weights. Writes ``background/taxonomy.md`` with its figure and data.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from sparqsim.architectures.arrays.bitfusion import BitFusion
from sparqsim.architectures.arrays.plain import PlainArray
from sparqsim.architectures.eie import EIE
from sparqsim.architectures.machine import Machine, run
from sparqsim.architectures.snap import SNAP
from sparqsim.architectures.sparse_tensor_core import SparseTensorCore
from sparqsim.scripts.output import PatientBar
from sparqsim.scripts.scenarios.frame import Scenario, open_frame
from sparqsim.workloads import recipes
from sparqsim.workloads.encodings.bitmap import Bitmap
from sparqsim.workloads.encodings.nm import NMSparse
from sparqsim.workloads.layers import Linear
from sparqsim.workloads.models.digits import load_digits
from sparqsim.workloads.prune import NM, Blocks, Pattern, Slices, Unstructured, prune
from sparqsim.workloads.recipes import Recipe
from sparqsim.workloads.synthetic import activations, tensor
from sparqsim.workloads.tensors import LayerTensors

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LAYER = "fc1"
IMAGES = 64
LARGE = 2048  # inputs and outputs of the synthetic layer
LARGE_INPUTS = 16  # its input vectors
LARGE_ACTIVATION_DENSITY = 0.5  # assumed: what a ReLU leaves
WEIGHT_BITS = 8
PATTERNS: dict[str, Pattern] = {
    "unstructured": Unstructured(),
    "N:M": NM(n=2, m=4, axis=1),
    "block 4x4": Blocks(height=4, width=4),
    "row": Slices(axis=0),
    "channel": Slices(axis=1),
}
DENSITIES = {0.5: 2, 0.25: 1}  # density -> N of the N:4 pattern that has it
MACHINES = ("eie", "snap", "sparse-tensor-core", "bitfusion", "plain")


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One pattern at one density: bits, and cycles and energy on each machine.

    ``accuracy`` is None where the layer belongs to no network.
    """

    pattern: str
    density: float
    accuracy: float | None
    bits: int
    cycles: dict[str, int]
    energy_nj: dict[str, float]
    verified: bool


class Study(msgspec.Struct, frozen=True, kw_only=True):
    """The digits layer and the synthetic one, pattern by pattern; dense comes first."""

    layer: str
    images: int
    large_inputs: int
    rows: list[Row]
    large: list[Row]


def machine_for(name: str) -> Machine:
    """A machine in the configuration that can make something of a pattern."""
    if name == "eie":
        return EIE()
    if name == "snap":
        return SNAP()
    if name == "bitfusion":
        return BitFusion()
    if name == "plain":
        return PlainArray()
    return SparseTensorCore(any_pattern=True)


def recipe_for(name: str, pattern: str, density: float) -> Recipe:
    """The formats of a machine, without further pruning; the tensor core is told the N:M."""
    base = recipes.get("int8" if name == "sparse-tensor-core" else machine_for(name).recipe)
    told = name == "sparse-tensor-core" and pattern == "N:M"
    weights = msgspec.structs.replace(
        base.weights, prune=f"{DENSITIES[density]}:4" if told else None, density=None, pad=False
    )
    return msgspec.structs.replace(base, weights=weights)


def compacted(weight: NDArray[Any], inputs: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """The layer without outputs and inputs whose weights are all zero."""
    rows, columns = weight.any(axis=1), weight.any(axis=0)
    return np.ascontiguousarray(weight[rows][:, columns]), np.ascontiguousarray(inputs[:, columns])


def stored_bits(weight: NDArray[Any], pattern: str, n: int) -> int:
    """Bits of 8-bit weights in the tightest encoding here that fits the pattern."""
    if pattern == "dense":
        return weight.size * WEIGHT_BITS
    codes = np.where(weight != 0, 1, 0).astype(np.int8)
    if pattern == "N:M":
        return NMSparse.encode(codes, n=n, m=4, axis=1, value_bits=WEIGHT_BITS).bits
    if pattern == "block 4x4":
        blocks = codes.reshape(codes.shape[0] // 4, 4, -1, 4).any(axis=(1, 3))
        return int(blocks.sum()) * 16 * WEIGHT_BITS + blocks.size
    if pattern in ("row", "channel"):
        axis = 0 if pattern == "row" else 1
        kept = codes.any(axis=1 - axis)
        return int(kept.sum()) * codes.shape[1 - axis] * WEIGHT_BITS + kept.size
    return Bitmap.encode(codes, value_bits=WEIGHT_BITS).bits


def pruned_by(weight: NDArray[Any], pattern: str, density: float) -> NDArray[Any]:
    """The weights after a pattern of :data:`PATTERNS`, or as they are for ``"dense"``."""
    if pattern == "dense":
        return weight
    if pattern == "N:M":
        return prune(weight, NM(n=DENSITIES[density], m=4, axis=1))
    return prune(weight, PATTERNS[pattern], density)


def measure(
    weight: NDArray[Any], inputs: NDArray[Any], pattern: str, density: float, accuracy: float | None
) -> Row:
    """Run pruned weights on every machine."""
    cycles, energy, verified = {}, {}, True
    for name in MACHINES:
        machine, recipe = machine_for(name), recipe_for(name, pattern, density)
        used, seen = weight, inputs
        if name in ("bitfusion", "plain", "sparse-tensor-core") and pattern != "N:M":
            used, seen = compacted(weight, inputs)
        layer = Linear(
            name=LAYER, in_features=used.shape[1], out_features=used.shape[0], rows=len(inputs)
        )
        tensors = LayerTensors(layer=layer, weight=used, activation=seen, pruned=True)
        report = run(machine, tensors, recipe=recipe, record="summary").report
        cycles[name] = report.cycles
        energy[name] = report.energy.known_pj / 1e3
        verified &= report.verification.status == "exact"
    return Row(
        pattern=pattern,
        density=density,
        accuracy=accuracy,
        bits=stored_bits(weight, pattern, DENSITIES.get(density, 4)),
        cycles=cycles,
        energy_nj=energy,
        verified=verified,
    )


def study(bar: PatientBar) -> Study:
    """Prune, classify, and run on every machine."""
    digits = load_digits("cnn", pruned=False)
    weight = digits.weights[LAYER]
    inputs = digits.activations(digits.images.test_images[:IMAGES])[LAYER]
    rng = np.random.default_rng(0)
    large_weight = tensor((LARGE, LARGE), rng)
    large_inputs = activations((LARGE_INPUTS, LARGE), LARGE_ACTIVATION_DENSITY, rng)
    cases: list[tuple[str, float]] = [("dense", 1.0)]
    cases += [(pattern, density) for density in DENSITIES for pattern in PATTERNS]
    rows, large = [], []
    for number, (name, density) in enumerate(cases):
        bar(f"{name} at {density:g}", number, len(cases))
        pruned = pruned_by(weight, name, density)
        accuracy = digits.accuracy({LAYER: pruned})
        rows.append(measure(pruned, inputs, name, density, accuracy))
        pruned = pruned_by(large_weight, name, density)
        large.append(measure(pruned, large_inputs, name, density, None))
    return Study(
        layer=f"digits-cnn/{LAYER}",
        images=IMAGES,
        large_inputs=LARGE_INPUTS,
        rows=rows,
        large=large,
    )


def draw(found: Study) -> Figure:
    """Accuracy and bits of each pattern, and the speed-up over dense on each machine."""
    from matplotlib.figure import Figure

    dense, large_dense = found.rows[0], found.large[0]
    names = list(PATTERNS)
    figure = Figure(figsize=(11, 6.4), layout="constrained")
    grid = figure.add_gridspec(2, 3)
    colours = {"eie": "#0072b2", "snap": "#009e73", "sparse-tensor-core": "#cc79a7"}
    colours |= {"bitfusion": "#d55e00", "plain": "#999999"}
    place = np.arange(len(names))
    for line, density in enumerate(DENSITIES):
        rows = {row.pattern: row for row in found.rows if row.density == density}
        large = {row.pattern: row for row in found.large if row.density == density}
        axes = figure.add_subplot(grid[line, 0])
        shown = [100 * (rows[name].accuracy or 0) for name in names]
        whole = 100 * (dense.accuracy or 0)
        axes.plot(place, shown, "o", color="#0072b2", markersize=8)
        axes.axhline(whole, color="black", linewidth=1, linestyle="--")
        axes.annotate("dense", (-0.5, whole), (0, 3), textcoords="offset points")
        axes.set_ylabel("digits accuracy (%)")
        axes.set_xlim(-0.6, len(names) - 0.4)
        axes.set_ylim(min(shown) - 5, 100)
        axes.set_title(f"{100 * density:g} % of the layer's weights kept", loc="left")
        for x, name, accuracy in zip(place, names, shown, strict=True):
            label = f"{accuracy:.1f} %\nbits {rows[name].bits / dense.bits:.2f}"
            axes.annotate(
                label,
                (x, accuracy),
                (0, -8),
                textcoords="offset points",
                ha="center",
                va="top",
                fontsize=7,
            )
        axes.set_xticks(place, names, rotation=25, ha="right")
        axes = figure.add_subplot(grid[line, 1:])
        width = 0.8 / len(MACHINES)
        for i, machine in enumerate(MACHINES):
            gain = [large_dense.cycles[machine] / large[name].cycles[machine] for name in names]
            shift = (i - (len(MACHINES) - 1) / 2) * width
            axes.bar(place + shift, gain, width, color=colours[machine], label=machine)
        axes.axhline(1, color="black", linewidth=1, linestyle="--")
        axes.axhline(1 / density, color="#777777", linewidth=1, linestyle=":")
        axes.annotate(f"ideal {1 / density:g}x", (len(names) - 0.52, 1 / density), va="bottom")
        axes.set_ylabel(f"speed-up over dense,\n{LARGE} x {LARGE} layer (x)")
        axes.set_xticks(place, names)
        axes.set_xlim(-0.6, len(names) - 0.1)
        if line == 0:
            axes.legend(frameon=False, ncols=5, loc="upper center", bbox_to_anchor=(0.5, 1.2))
    for each in figure.axes:
        open_frame(each)
    return figure


def _tables(rows: list[Row]) -> list[str]:
    """Two tables of a layer: cycles (with accuracy and bits), and energy."""
    dense = rows[0]
    machines = " | ".join(MACHINES)
    judged = dense.accuracy is not None
    lines = [
        f"| pattern | kept | {'accuracy | ' if judged else ''}bits/dense | {machines} |",
        "|---|--:|" + ("--:|" if judged else "") + "--:|" + "--:|" * len(MACHINES),
    ]
    for row in rows:
        cycles = " | ".join(f"{row.cycles[name]:,}" for name in MACHINES)
        accuracy = "" if row.accuracy is None else f"{100 * row.accuracy:.2f} % | "
        bits = f"{row.bits / dense.bits:.3f}"
        lines.append(f"| {row.pattern} | {100 * row.density:g} % | {accuracy}{bits} | {cycles} |")
    lines += ["", "Energy in nJ:", "", f"| pattern | kept | {machines} |"]
    lines.append("|---|--:|" + "--:|" * len(MACHINES))
    for row in rows:
        energy = " | ".join(f"{row.energy_nj[name]:,.0f}" for name in MACHINES)
        lines.append(f"| {row.pattern} | {100 * row.density:g} % | {energy} |")
    return lines


def page(found: Study) -> str:
    """The page of a study: every number in it comes from the study."""
    return "\n".join(
        [
            "# One layer, every pattern",
            "",
            "Fine grain keeps accuracy, coarse grain keeps hardware simple. Two layers pruned by "
            "magnitude to the same density by each pattern, without retraining, and run on every "
            "machine; all outputs verified bit by bit. Made by "
            "`sparqsim scenarios taxonomy --out docs`.",
            "",
            "![Accuracy and speed-up of each pattern](../figures/taxonomy.png)",
            "",
            f"## `{found.layer}`",
            "",
            f"256 inputs, 128 outputs, trained weights, {found.images} real input vectors. Cycles:",
            "",
            *_tables(found.rows),
            "",
            f"## A synthetic layer of {LARGE} x {LARGE}",
            "",
            f"Normal weights, {found.large_inputs} input vectors of which "
            f"{100 * LARGE_ACTIVATION_DENSITY:g} % is not zero. Cycles:",
            "",
            *_tables(found.large),
            "",
            "## How to read it",
            "",
            "A row is an output, a channel is an input; bits are over those of the dense layer. "
            "Cycles of different machines are not to be compared: they differ in multipliers, "
            "clock and technology; compare a column with its own first row. EIE and SNAP take "
            "any zero, and zeros of the inputs too; SNAP, with its assumed number of index "
            "matchers, spends a cycle on a pair of bundles even if little matches, so it gains "
            "most where whole bundles vanish. The sparse tensor core takes N:M; dense arrays "
            "take only whole rows and channels, as a smaller layer. In the digits layer, what "
            "does not shrink with the weights (launch, fetch, fill and drain) outweighs what "
            "does. Energies rest on each machine's own sources (`sparqsim machines NAME`). N:M "
            "at 25 % is 1:4, which no shipped tensor core takes and the model allows on "
            "request.",
            "",
        ]
    )


def finding(found: Study) -> str:
    """The paragraph."""
    kept = min(DENSITIES)
    rows = {row.pattern: row for row in found.rows if row.density == kept}
    large = {row.pattern: row for row in found.large if row.density == kept}
    best = max(rows.values(), key=lambda row: row.accuracy or 0)
    least = min(rows.values(), key=lambda row: row.accuracy or 0)

    def gain(machine: str, pattern: str) -> str:
        return f"{found.large[0].cycles[machine] / large[pattern].cycles[machine]:.2f}"

    return (
        f"With {100 * kept:g} % of a layer's weights and no retraining, {best.pattern} pruning "
        f"keeps {100 * (best.accuracy or 0):.2f} % of the digits right and {least.pattern} pruning "
        f"{100 * (least.accuracy or 0):.2f} %. On a layer of {LARGE} x {LARGE}, EIE gains "
        f"{gain('eie', 'unstructured')} from unstructured zeros and the dense arrays nothing; from "
        f"whole rows Bit Fusion gains {gain('bitfusion', 'row')}, SNAP {gain('snap', 'row')}. The "
        f"sparse tensor core gains {gain('sparse-tensor-core', 'N:M')} from 1:4."
    )


SCENARIO = Scenario(
    name="taxonomy", title="One layer, every pattern", measure=study, finding=finding, draw=draw,
    page=page,
)  # fmt: skip
