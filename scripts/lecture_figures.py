"""Draw the figures of docs/lecture as SVG for slides, from results found here.

    python -m sparqsim.scripts.lecture_figures [FOLDER] [NAME ...]

Each figure is a function of :data:`FIGURES`; the same version of matplotlib draws the same bytes.
The accuracies of ``qat`` are those that ``scenarios.qat_table`` trained and stored.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import matplotlib
import msgspec
import numpy as np
from matplotlib.figure import Figure

from sparqsim.base import InputError, output_folder, written_whole
from sparqsim.scripts.cli import carry_out

DOCS = Path(__file__).resolve().parents[1] / "docs"
FOLDER = DOCS / "lecture" / "figures"
# Letters are outlines: a slide shows them alike everywhere. The salt makes ids of the file's own.
STYLE = {
    "svg.hashsalt": "sparqsim",
    "svg.fonttype": "path",
    "font.size": 13,
    "axes.titlesize": 14,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "lines.linewidth": 2.2,
}
SIZE = (9, 4.6)  # inches: nearly two to one, as the body of a slide


def figure(columns: int = 1, **options: Any) -> tuple[Figure, Any]:
    """A figure of a slide's size, and its axes."""
    made = Figure(figsize=SIZE, layout="constrained")
    return made, made.subplots(1, columns, **options)


def memory() -> Figure:
    """Bytes of the parameters over their number, and where they fit."""
    from sparqsim.scripts.platforms import PLATFORMS, WIDTHS, footprints

    rows = footprints(None, {})
    shown = ("digits-cnn", "mobilenet_v2", "resnet50", "bert_large", "gpt2_xl", "llama_7b")
    made, axes = figure()
    line = np.logspace(3, 12.3)
    for bits, colour in zip(WIDTHS, ("C0", "C1", "C2"), strict=True):
        axes.plot(line, line * bits / 8, color=colour, label=f"{bits} bits", lw=1.5)
        for row in rows:
            if row["name"] in shown:
                axes.plot(row["parameters"], row["bytes"][bits], "o", color=colour)
    for row in rows:
        if row["name"] in shown:
            axes.annotate(
                row["name"], (row["parameters"], row["bytes"][4]), (8, -12),
                textcoords="offset points", fontsize=11,
            )  # fmt: skip
    for name, most in [*PLATFORMS.items(), ("1 TB", 1e12)]:
        axes.axhline(most, color="0.4", ls="--", lw=1)
        label = name if name == "1 TB" else f"{name}, {_bytes(most)}"
        axes.text(1.3e3, most * 1.2, label, fontsize=11, color="0.3")
    axes.set(xscale="log", yscale="log", xlabel="parameters", ylabel="bytes",
             title="Where models fit", xlim=(1e3, 2.5e12), ylim=(1e3, 8e12))  # fmt: skip
    axes.legend(title="per parameter", loc="lower right")
    return made


def _bytes(count: float) -> str:
    for unit, least in (("GB", 1e9), ("MB", 1e6), ("KB", 1e3)):
        if count >= least:
            return f"{count / least:g} {unit}"
    return f"{count:g} B"


def bandwidth() -> Figure:
    """Bytes per second that decoding LLaMA-7B takes, by tokens per second and bits."""
    from sparqsim.scripts.platforms import CONTEXT, footprint
    from sparqsim.workloads.work import load

    step = load("llama_7b", numbers=False, context=CONTEXT).model
    read = footprint(step, step, CONTEXT)["bytes_per_token"]
    rate = np.linspace(1, 250)
    made, axes = figure()
    for bits, each in read.items():
        axes.plot(rate, rate * each / 1e12, label=f"{bits} bits: {each / 1e9:.1f} GB per token")
    axes.axhline(1, color="0.4", ls="--", lw=1)
    axes.text(2, 1.04, "1 TB/s", color="0.3")
    axes.set(xlabel="tokens per second, one user", ylabel="TB/s from memory", ylim=(0, 3.6),
             title=f"Decoding LLaMA-7B with {CONTEXT} tokens of context")  # fmt: skip
    axes.legend()
    return made


def affine() -> Figure:
    """The 4 x 4 example at 2 bits."""
    from sparqsim.scripts.scenarios.quantization_figures import lecture_figure

    with matplotlib.rc_context({"axes.grid": False, "font.size": 11, "axes.titlesize": 12}):
        return lecture_figure()


def ranges() -> Figure:
    """SQNR of each token with one calibrated range and with a range of its own."""
    from sparqsim.workloads.quantize import fit, quantize, sqnr_db

    rng = np.random.default_rng(0)
    tokens = rng.normal(size=(32, 256)) * rng.lognormal(0, 0.9, (32, 1))
    static = fit(tokens[:16], "int8_signed").quantize(tokens[16:]).dequantize()
    dynamic = quantize(tokens[16:], "int8_signed", axis=0).dequantize()
    size = np.abs(tokens[16:]).max(axis=1)
    order = np.argsort(size)
    made, axes = figure()
    for name, values in (("static: one range, calibrated", static),
                         ("dynamic: one range per token", dynamic)):  # fmt: skip
        noise = [sqnr_db(x, y) for x, y in zip(tokens[16:], values, strict=True)]
        axes.plot(size[order], np.array(noise)[order], "o-", label=name)
    axes.axvline(np.abs(tokens[:16]).max(), color="0.4", ls="--", lw=1, label="calibrated range")
    axes.set(xscale="log", xlabel="largest magnitude of a token", ylabel="SQNR (dB)",
             title="int8 activations (synthetic tokens)")  # fmt: skip
    axes.legend()
    return made


def requantization() -> Figure:
    """Outputs of QMatMul: real values, the 8-bit codes they become, and the error."""
    from sparqsim.workloads.quantize import fit
    from sparqsim.workloads.requantize import IntegerLinear

    rng = np.random.default_rng(0)
    w, x = rng.normal(size=(64, 256)) / 16, np.abs(rng.normal(size=(32, 256)))
    f_w, f_x = fit(w, "int8_signed", axis=0), fit(x, "int8_unsigned", asymmetric=True)
    y = x @ w.T
    f_y = fit(y, "int8_signed", asymmetric=True)
    assert f_x.zero_point is not None and f_y.zero_point is not None
    layer = IntegerLinear.build(
        f_w.quantize(w).integers(), scale_w=f_w.scale, scale_x=float(f_x.scale[0]),
        scale_y=float(f_y.scale[0]), zero_x=int(f_x.zero_point[0]), zero_y=int(f_y.zero_point[0]),
        input_range=(0, 255),
    )  # fmt: skip
    codes = layer(f_x.quantize(x).integers())
    made, (left, right) = figure(2)
    left.plot(y.ravel()[:600], codes.ravel()[:600], ".", ms=4)
    left.set(xlabel="output of the float layer", ylabel="q_Y", title="q_Y = M (sum) + Z_Y")
    error = y - (codes - f_y.zero_point[0]) * f_y.scale[0]
    right.hist(error.ravel() / f_y.scale[0], bins=41, color="C1")
    right.set(xlabel="error in steps of S_Y", ylabel="outputs", title="8 x 8 bits, int32 sums")
    return made


def grids() -> Figure:
    """The values of unsigned types of four bits."""
    from sparqsim.workloads import formats

    names = ("int4_unsigned", "apot_4_unsigned", "pot4_unsigned", "flint4_unsigned")
    made, axes = figure()
    for place, name in enumerate(names):
        values = formats.get(name).values
        axes.plot(values / values.max(), np.full(len(values), place), "|", ms=26, mew=2.5)
    axes.set_yticks(range(len(names)), ["uniform (int4)", "APoT", "PoT", "flint (ANT)"])
    axes.set(xlabel="value over the largest", ylim=(-0.6, 3.6), title="Sixteen values, four ways")
    axes.grid(axis="y", visible=False)
    return made


def qat() -> Figure:
    """Accuracy of the digits CNN after training and with quantization-aware training."""
    table = msgspec.json.decode((DOCS / "data" / "qat.json").read_bytes())
    made, (left, right) = figure(2, sharey=True)
    for axes, family in ((left, "int"), (right, "pot")):
        rows = sorted(
            (row for row in table["quantized"] if row["family"] == family), key=lambda r: r["bits"]
        )
        bits = [row["bits"] for row in rows]
        for key, name in (("before", "PTQ: rounded after training"), ("after", "QAT")):
            values = np.array([row[key] for row in rows])
            axes.plot(bits, values.mean(axis=1), "o-", label=name)
            axes.fill_between(bits, values.min(axis=1), values.max(axis=1), alpha=0.2)
        axes.axhline(np.mean(table["float32"]["after"]), color="0.4", ls="--", lw=1)
        axes.set(
            xlabel="bits of weights and activations", title={"int": "uniform", "pot": "PoT"}[family]
        )
        axes.set_xticks(bits)
    left.set_ylabel("accuracy, digits CNN")
    right.legend(loc="lower right", fontsize=11)
    return made


def bitfusion() -> Figure:
    """Cycles of a product on Bit Fusion by bits: what the array needs, what the run takes."""
    from sparqsim.architectures.arrays.bitfusion import BitFusion
    from sparqsim.architectures.machine import run
    from sparqsim.workloads.layers import Linear

    pairs = ((16, 16), (8, 8), (8, 4), (4, 4), (4, 2), (2, 2))
    machine, compute, whole = BitFusion(), [], []
    for activations, weights in pairs:
        layer = Linear(name="fc", in_features=1024, out_features=512, rows=256,
                       activation_bits=activations, weight_bits=weights)  # fmt: skip
        report = run(machine, machine.plan(layer)).report
        compute.append(report.counters["compute_cycles"])
        whole.append(report.cycles)
    made, axes = figure()
    place = np.arange(len(pairs))
    axes.bar(place - 0.2, compute, 0.4, label="multiplying")
    axes.bar(place + 0.2, whole, 0.4, label="whole run, DRAM of 12 GB/s")
    axes.set_xticks(place, [f"{a} x {w}" for a, w in pairs])
    axes.set(yscale="log", xlabel="bits of activations x weights", ylabel="cycles",
             title="Bit Fusion: 256 x 1024 by 1024 x 512")  # fmt: skip
    axes.legend()
    return made


def ant() -> Figure:
    """SQNR of types of four bits by the shape of the tensor, and what ANT's own search chooses."""
    from sparqsim.workloads.adaptive import fit_ant
    from sparqsim.workloads.quantize import fit

    rng = np.random.default_rng(0)
    tensors = {
        "uniform": rng.uniform(-1, 1, 8192),
        "normal": rng.normal(size=8192),
        "Laplace": rng.laplace(size=8192),
        "Student t, 3": rng.standard_t(3, 8192),
    }
    types = {"int4": "int4_narrow", "flint4": "flint4_signed", "pot4": "pot4_signed"}
    made, axes = figure()
    for place, (name, grid) in enumerate(types.items()):
        noise = [fit(x, grid, method="mse").quantize(x).sqnr_db(x) for x in tensors.values()]
        axes.bar(np.arange(4) + 0.25 * (place - 1), noise, 0.25, label=name)
    for place, x in enumerate(tensors.values()):
        chosen = fit_ant(x)
        name, level = chosen.format.name.partition("_")[0], chosen.quantize(x).sqnr_db(x)
        axes.plot([place - 0.4, place + 0.4], [level, level], "k--", lw=1.5)
        axes.text(place + 0.41, level, name, va="center", fontsize=11)
    axes.set_xticks(range(4), list(tensors))
    axes.set(
        ylabel="SQNR (dB)",
        title="4 bits; bars: clipped for least error (mse); dashed: ANT's own search",
        ylim=(0, 27),
    )
    axes.legend(ncol=2)
    return made


def olive() -> Figure:
    """Values with outliers, and what three ways of four bits make of them."""
    from sparqsim.workloads.adaptive import fit_ant, fit_olive
    from sparqsim.workloads.quantize import quantize

    rng = np.random.default_rng(0)
    x = rng.normal(size=10_000)
    x[::500] *= 15
    ways = {
        "int4": quantize(x, "int4_signed"),
        "ANT": fit_ant(x).quantize(x),
        "OliVe": fit_olive(x).quantize(x),
    }
    made, (left, right) = figure(2)
    left.hist(x, bins=200, log=True)
    left.set(xlabel="value", ylabel="count", title="1 in 500 is 15 times as large")
    bars = right.bar(
        list(ways), [each.sqnr_db(x) for each in ways.values()], color=["C0", "C1", "C2"]
    )
    right.bar_label(bars, fmt="%.1f")
    right.margins(y=0.1)
    right.set(ylabel="SQNR (dB)", title="4 bits per value, one scale")
    return made


def grain() -> Figure:
    """One real layer pruned to half by six grains: what is kept, and the network's accuracy."""
    from sparqsim.workloads.compress import compress
    from sparqsim.workloads.prune import density_of
    from sparqsim.workloads.recipes import Recipe, TensorRecipe
    from sparqsim.workloads.work import load

    subject = load("digits-mlp", dense=True).subject
    assert subject is not None
    grains = {"unstructured": 0.5, "2:4": None, "vector:4": 0.5, "block:4x4": 0.5, "column": 0.5,
              "row": 0.5}  # fmt: skip
    kept, accuracy = [], []
    for pattern, density in grains.items():
        weights = TensorRecipe(prune=pattern, density=density)
        pruned, report, _ = compress(subject, Recipe(name=pattern, weights=weights))
        before, after = subject.weights["fc2"], pruned.weights()["fc2"]
        assert 0.45 <= density_of(after) <= 0.5
        kept.append(float(np.square(after).sum() / np.square(before).sum()))
        accuracy.append(report.compressed["accuracy"])
    made, (left, right) = figure(2)
    for axes, values, title in (
        (left, kept, "sum of squares kept, layer fc2"),
        (right, accuracy, "accuracy, no retraining"),
    ):
        bars = axes.barh(list(grains), values, color="C0")
        axes.bar_label(bars, fmt="%.2f", padding=3)
        axes.invert_yaxis()
        axes.set(title=title, xlim=(0, 1.15))
    right.set_yticklabels([])
    return made


def tokens() -> Figure:
    """Tokens block by block on HeatViT, and the cycles of the network."""
    from sparqsim.architectures.heatvit import HeatViT
    from sparqsim.architectures.network import run_network
    from sparqsim.workloads.tokens import tokens_per_block
    from sparqsim.workloads.work import load

    keep = {"none": "", ".9, .8, .7": ".9,.8,.7", ".7, .49, .343": ".7,.49,.343"}
    cycles = [
        run_network(HeatViT(keep=each), load("deit_tiny"), verify=False).totals.cycles
        for each in keep.values()
    ]
    made, (left, right) = figure(2)
    left.bar(range(1, 13), tokens_per_block())
    left.set(xlabel="block", ylabel="tokens", title="keep .7, .49, .343")
    bars = right.bar(list(keep), np.array(cycles) / 1e6, color=["C0", "C1", "C2"])
    right.bar_label(bars, fmt="%.2f")
    right.margins(y=0.1)
    right.set(xlabel="kept tokens, by stage", ylabel="million cycles", title="DeiT-T on HeatViT")
    return made


def eie() -> Figure:
    """Load balance over queue depth, and the PEs' work behind it."""
    from sparqsim.architectures.eie import EIE
    from sparqsim.architectures.network import run_layer
    from sparqsim.workloads.work import load

    made, (left, right) = figure(2)
    depths = [1, 2, 4, 8, 16, 32, 64, 128, 256]
    for name in ("alex-7", "vgg-8", "nt-we"):
        network = load(f"eie/{name}")
        reports = [run_layer(EIE(queue_slots=d + 1), network, verify=False).report for d in depths]
        left.plot(depths, [each.load_balance.efficiency for each in reports], "o-", label=name)
        if name == "nt-we":
            work = sorted(reports[0].load_balance.work_cycles)
            right.bar(range(64), work, width=1.0, color="C2")
            right.axhline(np.mean(work), color="0.3", ls="--", lw=1.2, label="mean")
    left.set(xscale="log", xlabel="queue depth", ylabel="load balance", title="EIE, 64 PEs")
    left.set_xticks(depths, [str(d) for d in depths])
    left.minorticks_off()
    left.legend()
    right.set(xlabel="PE, by its work", ylabel="cycles of work", title="nt-we")
    right.legend()
    return made


def snap() -> Figure:
    """Cycles of a convolution on SNAP over the density of both operands."""
    from sparqsim.architectures.network import run_layer
    from sparqsim.architectures.snap import SNAP
    from sparqsim.workloads.work import load

    network = load("conv:64x14x14,64x3x3,pad=1")
    densities = [0.1, 0.2, 0.3, 0.4, 0.6, 0.8, 1.0]
    made, (left, right) = figure(2)
    for activation in (0.3, 1.0):
        reports = [
            run_layer(SNAP(), network, verify=False, weight_density=d,
                      activation_density=activation).report for d in densities
        ]  # fmt: skip
        label = f"activations {activation:.0%}"
        left.plot(densities, [r.cycles / 1e3 for r in reports], "o-", label=label)
        right.plot(densities, [r.utilization["multipliers"] for r in reports], "o-", label=label)
    left.set(xlabel="density of weights", ylabel="thousand cycles", ylim=(0, None),
             title="SNAP, 64 x 14 x 14, 3 x 3")  # fmt: skip
    right.set(xlabel="density of weights", ylabel="share used", title="multipliers",
              ylim=(0, 1.05))  # fmt: skip
    left.legend()
    return made


def nm() -> Figure:
    """What N:M keeps against the same density anywhere; what 2:4 gains over the size."""
    from sparqsim.architectures.network import run_layer
    from sparqsim.architectures.sparse_tensor_core import SparseTensorCore
    from sparqsim.workloads.prune import NM, Unstructured, magnitude, mask
    from sparqsim.workloads.work import load

    subject = load("digits-mlp", dense=True).subject
    assert subject is not None
    w = subject.weights["fc2"]
    made, (left, right) = figure(2)
    patterns = [(1, 2), (2, 4), (4, 8), (8, 16)]

    def kept(stays: Any) -> float:
        return float(np.square(w[stays]).sum() / np.square(w).sum())

    found = [kept(mask(magnitude(w), NM(n=n, m=m))) for n, m in patterns]
    found.append(kept(mask(magnitude(w), Unstructured(), 0.5)))
    bars = left.bar([*(f"{n}:{m}" for n, m in patterns), "any"], found,
                    color=["C0"] * 4 + ["C1"])  # fmt: skip
    left.bar_label(bars, fmt="%.3f", fontsize=11)
    left.set(ylabel="sum of squares kept", ylim=(0, 1.05), title="half of a real layer")
    sizes = [256, 512, 1024, 2048, 4096, 8192, 16384]
    gains = []
    for n in sizes:
        network = load(f"gemm:{n}x{n}x{n}")
        dense, sparse = (
            run_layer(SparseTensorCore(), network, recipe=recipe, verify=False).report.seconds
            for recipe in ("fp16", "2:4")
        )
        gains.append(dense / sparse)
    right.plot(sizes, gains, "o-")
    right.axhline(2, color="0.4", ls="--", lw=1)
    right.set(xscale="log", xlabel="n of n x n x n", ylabel="speed-up of 2:4", ylim=(0.9, 2.1),
              title="sparse tensor core (A100)")  # fmt: skip
    right.set_xticks(sizes, [str(n) for n in sizes], rotation=45)
    right.minorticks_off()
    return made


FIGURES: dict[str, Callable[[], Figure]] = {
    each.__name__: each
    for each in (
        memory, bandwidth, affine, ranges, requantization, grids, qat, bitfusion, ant, olive,
        grain, tokens, eie, snap, nm,
    )
}  # fmt: skip


def write(name: str, folder: Path = FOLDER) -> Path:
    """Draw one figure; raises InputError if there is none of that name."""
    if name not in FIGURES:
        raise InputError(f"there is no figure {name!r}; there is {', '.join(FIGURES)}")
    path = output_folder(folder) / f"{name}.svg"
    with matplotlib.rc_context(STYLE):
        made = FIGURES[name]()
        with written_whole(path) as temporary:
            made.savefig(temporary, format="svg", metadata={"Date": None})
    return path


@click.command()
@click.argument("folder", type=click.Path(path_type=Path), default=FOLDER)
@click.argument("names", type=click.Choice(tuple(FIGURES)), nargs=-1)
def main(folder: Path, names: tuple[str, ...]) -> None:
    """Draw all figures of the lecture into FOLDER, or those named."""
    for name in names or FIGURES:
        click.echo(f"wrote {write(name, folder)}")


if __name__ == "__main__":
    carry_out(main)
