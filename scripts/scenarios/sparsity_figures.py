"""Draw the figures of docs/background/sparsity.md: masks, encoding sizes, EIE padding, tokens.

Run ``python -m sparqsim.scripts.scenarios.sparsity_figures [FOLDER]`` (docs/figures by default).
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from sparqsim.base import output_folder, written_whole
from sparqsim.workloads.encodings import CSC, Bitmap, ChannelBundles, NMSparse, RelativeIndexCSC
from sparqsim.workloads.prune import (
    CHANNEL,
    COLUMN,
    NM,
    ROW,
    Blocks,
    Pattern,
    Unstructured,
    Vectors,
    magnitude,
    mask,
)
from sparqsim.workloads.tokens import tokens_per_block

CODEBOOK = np.arange(16) / 15
DEIT = {"DeiT-T": 192, "DeiT-S": 384, "DeiT-B": 768}  # published: embedding widths
PATTERNS: dict[str, tuple[Pattern, float | None]] = {
    "unstructured": (Unstructured(), 0.5),
    "2:4": (NM(), None),
    "1:2 along columns": (NM(n=1, m=2, axis=0), None),
    "vectors of 4": (Vectors(length=4), 0.5),
    "blocks of 4 x 4": (Blocks(height=4, width=4), 0.5),
    "rows (filters)": (ROW, 0.5),
    "columns (channels)": (COLUMN, 0.5),
    "channels & 2:4": (CHANNEL & NM(), 0.25),
}


def structured_weights(rng: np.random.Generator, rows: int, cols: int) -> NDArray[np.float64]:
    """Draw normal weights whose rows and columns differ in size, as those of real layers do.

    The spread (log-normal, sigma .35) is assumed: for the eye, not for a claim.
    """
    row_scale, col_scale = (rng.lognormal(0, 0.35, n) for n in (rows, cols))
    return rng.normal(size=(rows, cols)) * row_scale[:, None] * col_scale


def kept_energy(weights: NDArray[Any], kept: NDArray[np.bool_]) -> float:
    """Return the share of the sum of squares that stays."""
    return float((weights[kept] ** 2).sum() / (weights**2).sum())


def draw_patterns() -> Figure:
    """Masks of eight patterns on the same 32 x 32 weights, with the energy each keeps."""
    weights = structured_weights(np.random.default_rng(4), 32, 32)
    figure = Figure(figsize=(11, 6.2), layout="constrained")
    size = np.abs(weights)
    for axes, (name, (pattern, density)) in zip(
        figure.subplots(2, 4).flat, PATTERNS.items(), strict=True
    ):
        kept = mask(magnitude(weights), pattern, density)
        axes.imshow(
            np.where(kept, size, np.nan), cmap="viridis", vmax=np.quantile(size, 0.98), vmin=0
        )
        axes.set_facecolor("0.93")
        axes.set_xticks([])
        axes.set_yticks([])
        axes.set_title(
            f"{name}\n{kept.mean():.0%} of weights, {kept_energy(weights, kept):.0%} of energy",
            fontsize=10,
        )
    figure.suptitle("The same 32 x 32 weights under eight patterns (grey: pruned; colour: |w|)")
    return figure


def random_codes(rng: np.random.Generator, shape: tuple[int, int], density: float) -> Any:
    """Draw 4-bit codes, each place non-zero with the probability ``density``."""
    return (rng.integers(1, 16, shape) * (rng.random(shape) < density)).astype(np.uint8)


def encoding_sizes(density: float, shape: tuple[int, int] = (4096, 512)) -> dict[str, float]:
    """Bits per element of 4-bit codes in every encoding at a density."""
    codes = random_codes(np.random.default_rng(7), shape, density)
    matrix = CSC.from_dense(codes)
    plain = CSC(matrix.shape, matrix.indptr, matrix.indices, matrix.values, value_bits=4)
    bits = {
        "dense": codes.size * 4,
        "bitmap": Bitmap.encode(codes, value_bits=4).bits,
        "EIE relative index, 64 PEs": RelativeIndexCSC.encode(matrix, CODEBOOK).bits,
        "SNAP bundles of 16 channels": ChannelBundles.encode(codes, 16, value_bits=4).bits,
        "CSC (12-bit rows)": plain.bits,
    }
    return {name: size / codes.size for name, size in bits.items()}


def draw_encodings() -> Figure:
    """Bits per element against density: where each encoding pays."""
    densities = np.array([0.01, 0.02, 0.04, 0.07, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0])
    sizes = [encoding_sizes(d) for d in densities]
    figure = Figure(figsize=(7.5, 4.6), layout="constrained")
    axes = figure.subplots()
    for name in sizes[0]:
        style = {"color": "0.5", "ls": "--"} if name == "dense" else {"marker": "o", "ms": 3}
        axes.plot(densities, [s[name] for s in sizes], label=name, **style)
    codes = np.tile(np.array([1, 2, 0, 0], np.uint8), (64, 16))
    ratio = NMSparse.encode(codes, value_bits=4).bits / codes.size
    axes.plot([0.5], [ratio], "k*", ms=10, label="2:4 values + positions")
    axes.set(
        xscale="log",
        ylim=(0, 8),
        xlabel="density (share of non-zeros, log scale)",
        ylabel="bits per element of the dense matrix",
        title="4-bit codes, 4096 x 512, zeros at random",
    )
    axes.set_xticks([0.01, 0.03, 0.1, 0.3, 1], ["1 %", "3 %", "10 %", "30 %", "100 %"])
    axes.grid(alpha=0.3)
    axes.legend(fontsize=9)
    return figure


def padding_share(density: float, pes: int, index_bits: int) -> float:
    """Return the share of entries that are padding in a 4096 x 256 matrix of random zeros."""
    codes = random_codes(np.random.default_rng(8), (4096, 256), density)
    encoded = RelativeIndexCSC.encode(CSC.from_dense(codes), CODEBOOK, pes, index_bits)
    return encoded.padding_entries / encoded.entries


def draw_padding() -> Figure:
    """EIE: what index bits and PEs do to padding and to size."""
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    pes = [1, 4, 16, 64, 256]
    for density in (0.04, 0.09, 0.23):
        left.plot(pes, [padding_share(density, n, 4) for n in pes], "o-", label=f"{density:.0%}")
    left.set(
        xscale="log",
        xlabel="PEs the 4096 rows are dealt to",
        ylabel="padding share of all entries",
        title="4-bit run lengths: fewer rows per PE, less padding",
    )
    left.set_xticks(pes, [str(n) for n in pes])
    widths = range(1, 9)
    for density in (0.04, 0.09, 0.23):
        codes = random_codes(np.random.default_rng(8), (4096, 256), density)
        matrix = CSC.from_dense(codes)
        spmat = [RelativeIndexCSC.encode(matrix, CODEBOOK, 64, b).spmat_bits for b in widths]
        share = np.array(spmat) / matrix.stored
        right.plot(widths, share, "o-", label=f"{density:.0%}")
        right.plot(widths[int(share.argmin())], share.min(), "k*", ms=9)
    right.set(
        xlabel="bits of a run length",
        ylabel="bits per non-zero (4 of them the code)",
        ylim=(0, 30),
        title="64 PEs: size (star: the least)",
    )
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.legend(title="density", fontsize=9)
    return figure


def block_macs(tokens: int, width: int) -> int:
    """Return the MACs of one transformer block: QKV, attention, projection, 4x FFN."""
    return 12 * tokens * width**2 + 2 * tokens**2 * width


def draw_tokens() -> Figure:
    """Tokens block by block at the reference keep ratios, and the work left."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    counts = tokens_per_block()
    left.bar(range(1, 13), counts, color="tab:blue")
    for block in (1, 4, 7, 10):
        left.text(block + 1, counts[block - 1] + 3, str(counts[block - 1]), ha="center")
    left.set(
        xlabel="block",
        ylabel="tokens",
        title="class token and patches, keep ratios .7 / .49 / .343",
    )
    left.set_xticks(range(1, 13))
    left.set_ylim(0, 225)
    for name, width in DEIT.items():
        work = [block_macs(n, width) / block_macs(197, width) for n in counts]
        right.plot(range(1, 13), work, "o-", label=f"{name}: {np.mean(work):.1%} of all blocks")
    right.plot(range(1, 13), np.array(counts) / 197, "k:", label="tokens kept")
    right.set(xlabel="block", ylabel="share of the unpruned block's MACs", ylim=(0, 1.05))
    right.set_title("work left (selectors not counted)")
    right.set_xticks(range(1, 13))
    right.grid(alpha=0.3)
    right.legend(fontsize=9)
    return figure


def main(folder: str = "docs/figures") -> None:
    """Write the four figures into a folder."""
    target = output_folder(Path(folder))
    for name, draw in {
        "patterns": draw_patterns,
        "encodings": draw_encodings,
        "padding": draw_padding,
        "tokens": draw_tokens,
    }.items():
        path = target / f"sparsity_{name}.png"
        with written_whole(path) as temporary:
            draw().savefig(temporary, dpi=110)
        print(path)


if __name__ == "__main__":
    main(*sys.argv[1:])
