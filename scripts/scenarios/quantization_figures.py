"""The figures and the table of docs/background/quantization.md, to docs/figures or another folder.

The lecture's 4 x 4 example, the error over the clipping range, and what 4 bits do to MiniLM's
weights (the real model of the extra ``models``, without which that figure is left out).
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from sparqsim.base import InputError, output_folder, written_whole
from sparqsim.workloads import formats
from sparqsim.workloads.adaptive import fit_ant, fit_olive, pair_statistics
from sparqsim.workloads.calibrate import METHODS, parameters
from sparqsim.workloads.quantize import QuantizedTensor, fit, quantize
from sparqsim.workloads.rounding_errors import squared_errors
from sparqsim.workloads.slices import Samples

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "figures"

# published: the lecture's example of 2-bit affine quantization
LECTURE = np.array(
    [
        [2.09, -0.98, 1.48, 0.09],
        [0.05, -0.14, -1.08, 2.12],
        [-0.91, 1.92, 0.0, -1.03],
        [1.87, 0.0, 1.53, 1.49],
    ]
)


def _save(figure: Figure, folder: Path, name: str) -> None:
    path = folder / f"quantization_{name}.png"
    with written_whole(path) as temporary:
        figure.savefig(temporary, dpi=120)
    print(f"wrote {path.name}")


def _matrix(axes: Any, title: str, values: np.ndarray, texts: list[str], limit: float) -> None:
    axes.imshow(values, cmap="RdBu", vmin=-limit, vmax=limit)
    for (i, j), text in zip(np.ndindex(values.shape), texts, strict=True):
        dark = abs(values[i, j]) > 0.65 * limit
        axes.text(j, i, text, ha="center", va="center", color="white" if dark else "black")
    axes.set(title=title, xticks=[], yticks=[])


def lecture_figure() -> Figure:
    """The tensor, its 2-bit codes, what they stand for, and the error."""
    q: QuantizedTensor = quantize(LECTURE, "int2_signed", asymmetric=True)
    assert q.zero_point is not None
    scale, zero = float(q.scale[0]), int(q.zero_point[0])
    codes, back = q.integers(), q.dequantize().astype(np.float64)
    figure = Figure(figsize=(11, 3.3), layout="constrained")
    axes = figure.subplots(1, 4)
    error = LECTURE - back
    panels = (
        ("r", LECTURE, ".2f"),
        (f"q = clamp(round(r / {scale:.2f}) - {-zero})", codes, "d"),
        (f"r' = {scale:.2f} (q + {-zero})", back, ".2f"),
        (f"r - r'  (SQNR {q.sqnr_db(LECTURE):.1f} dB)", error, ".2f"),
    )
    for place, (title, values, spec) in zip(axes, panels, strict=True):
        _matrix(place, title, values, [format(v, spec) for v in values.ravel()], 2.2)
    return figure


def clipping_figure(rng: np.random.Generator) -> Figure:
    """SQNR over the clipping range of normal values and of values with outliers."""
    figure = Figure(figsize=(10, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    factors = np.arange(2, 101) / 100
    for axes, title, x in (
        (left, "normal", rng.normal(size=20_000)),
        (right, "Student's t, 3 degrees of freedom", rng.standard_t(3, 20_000)),
    ):
        samples = Samples.of(x[None])
        for name in ("int4_narrow", "flint4_signed", "pot4_signed", "int8_narrow"):
            grid = formats.get(name)
            scale, _ = parameters(grid, samples.low, samples.high, asymmetric=False)
            errors = squared_errors(samples, grid, scale, None, factors)[0]
            (line,) = axes.plot(
                factors, 10 * np.log10(np.square(x).sum() / errors), label=name.split("_")[0]
            )
            if name != "int4_narrow":
                continue
            for marker, method in zip("os^D", METHODS, strict=True):
                found = fit(x, grid, method=method)
                factor = float(found.scale[0] / scale[0])
                sqnr = found.quantize(x).sqnr_db(x)
                colour = line.get_color()
                axes.plot(factor, sqnr, marker, color=colour, label=f"int4, {method}", ms=8)
        axes.set(title=title, xlabel="clipping range / largest magnitude")
        axes.grid(alpha=0.3)
    left.set_ylabel("SQNR (dB)")
    right.legend(fontsize=8)
    return figure


def minilm_figure(weights: dict[str, np.ndarray]) -> Figure:
    """Weights of MiniLM: how far the largest lie, and SQNR at 4 bits by method and layer."""
    figure = Figure(figsize=(10, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    ratio = {name: np.abs(w).max() / w.std() for name, w in weights.items()}
    widest = max(ratio, key=ratio.__getitem__)
    w = weights[widest]
    left.hist((w / w.std()).ravel(), bins=400, log=True, color="tab:blue")
    left.set(title=f"{widest}: max / sigma = {ratio[widest]:.0f}", xlabel="weight / sigma")
    left.set_ylabel("count")
    ways = (
        ("int4, per tensor", lambda w: fit(w, "int4_narrow")),
        ("int4, per channel", lambda w: fit(w, "int4_narrow", axis=0)),
        ("int4, per channel, mse", lambda w: fit(w, "int4_narrow", axis=0, method="mse")),
        ("ANT, per tensor", fit_ant),
        ("ANT, per channel", lambda w: fit_ant(w, axis=0)),
        ("OliVe, per tensor", fit_olive),
        ("OliVe, per channel", lambda w: fit_olive(w, axis=0)),
    )
    rows = []
    for name, way in ways:
        quantized = [way(w).quantize(w) for w in weights.values()]
        sqnr = [q.sqnr_db(w) for q, w in zip(quantized, weights.values(), strict=True)]
        bits = sum(q.bits() for q in quantized) / sum(w.size for w in weights.values())
        rows.append(sqnr)
        numbers = f"{min(sqnr):.1f} | {np.median(sqnr):.1f} | {max(sqnr):.1f} | {bits:.3f}"
        print(f"| {name} | {numbers} |")
        if name == "OliVe, per tensor":
            counted = [
                pair_statistics(w, q) for q, w in zip(quantized, weights.values(), strict=True)
            ]
            pairs = sum(c.pairs for c in counted)
            lost = sum(c.of_two_outliers for c in counted) / pairs
            some = sum(c.with_outlier for c in counted) / pairs
            print(f"  pairs with an outlier {some:.2%}, of two outliers {lost:.3%}")
    right.boxplot(rows, orientation="horizontal", tick_labels=[name for name, _ in ways])
    right.invert_yaxis()
    right.set(title=f"4 bits, {len(weights)} weight matrices", xlabel="SQNR (dB)")
    right.grid(alpha=0.3)
    return figure


def main(folder: Path = FOLDER) -> None:
    """Make every figure; MiniLM's only where the model is installed."""
    output_folder(folder)
    _save(lecture_figure(), folder, "lecture")
    _save(clipping_figure(np.random.default_rng(0)), folder, "clipping")
    from sparqsim.workloads.models.real_minilm import load_minilm

    try:
        model = load_minilm()
    except InputError as error:
        print(f"without MiniLM's figure: {error}")
        return
    weights = {name: w for name, w in model.weights.items() if w.ndim == 2}
    _save(minilm_figure(weights), folder, "minilm")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:2]))
