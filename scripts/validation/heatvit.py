"""HeatViT: what dropping tokens gains, beside the published range of 1.82 to 2.58.

DeiT-T, -S and -B run on the same engine with all tokens, and with three selectors. Three kinds of
numbers of tokens: a batch of synthetic images whose selectors decide (calibrated on other images to
keep .7, .49 and .343 of the patches *on average*); the bound of a fixed share, 197 / 138 / 97 / 68
tokens, selectors free; and the share that is recalled for HeatViT's family (.7, .39, .21,
unchecked). The published range is from a secondary source, for trained selectors and keep ratios
that are not known: the comparison shows where our numbers lie, it is no pass.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec
import numpy as np

from sparqsim.architectures.heatvit import EVERY_BLOCK, HeatViT
from sparqsim.architectures.machine import run
from sparqsim.base import output_folder, written_whole
from sparqsim.scripts.output import (
    PatientBar,
    console,
    json_option,
    refuse_folder,
    table,
    write_json,
)
from sparqsim.scripts.validation._evidence import Evidence, Table
from sparqsim.workloads.models.vit import WIDTHS
from sparqsim.workloads.tokens import KEEP_RATIOS, SELECTOR_BLOCKS, tokens_per_block
from sparqsim.workloads.vision_transformer import (
    VisionTransformer,
    calibrated,
    synthetic_image,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PUBLISHED = (1.82, 2.58)  # published (secondary): pruning alone
RECALLED_RATIOS = (0.7, 0.39, 0.21)  # assumed: recalled of the HeatViT family, unchecked
CALIBRATION = 8

EVIDENCE = (
    Evidence(
        figures=True,
        long=True,
        tables=(
            Table(
                title="HeatViT: speed-up by dropping tokens, mean of images",
                name="{network}",
                published=("published_low", "published_high"),
                simulated="images",
            ),
        ),
    ),
)


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One network: speed-ups over the same engine with all tokens.

    ``images`` has one a synthetic image; ``blocks_tokens`` the tokens behind each selector.
    """

    network: str
    dense_ms: float
    fixed_bound: float
    fixed_with_selectors: float
    recalled_ratios: float
    images: list[float]
    blocks_tokens: list[list[int]]
    selector_share: float
    published_low: float
    published_high: float


def measure(network: str, images: int, seed: int, bar: PatientBar) -> Row:
    """One network on a batch of images."""
    machine, width = HeatViT(), WIDTHS[network]
    rng = np.random.default_rng(seed)
    net = VisionTransformer.drawn(width, rng)
    bar(f"{network}: calibrating", 0, images)
    ratios = dict(zip(SELECTOR_BLOCKS, KEEP_RATIOS, strict=True))
    selectors = calibrated(net, [synthetic_image(rng) for _ in range(CALIBRATION)], ratios, rng)
    dense = run(machine, machine.plan(width, EVERY_BLOCK), record="summary").report.cycles

    def gain(tokens: tuple[int, ...], select: bool) -> float:
        program = machine.plan(width, tokens, select=select)
        return dense / run(machine, program, record="summary").report.cycles

    gains, tokens, on_selectors = [], [], []
    batch = (synthetic_image(rng) for _ in range(images))
    for number, (program, done) in enumerate(machine.infer(net, batch, selectors)):
        bar(f"{network}: image {number + 1}", number, images)
        report = run(machine, program, record="summary").report
        gains.append(dense / report.cycles)
        tokens.append([done.tokens[block - 1] for block in SELECTOR_BLOCKS])
        on_selectors.append(report.counters["selector_engine_cycles"] / report.cycles)
    return Row(
        network=network,
        dense_ms=dense / machine.clock_hz * 1e3,
        fixed_bound=gain(tokens_per_block(), False),
        fixed_with_selectors=gain(tokens_per_block(package=True), True),
        recalled_ratios=gain(tokens_per_block(ratios=RECALLED_RATIOS, package=True), True),
        images=gains,
        blocks_tokens=tokens,
        selector_share=float(np.mean(on_selectors)),
        published_low=PUBLISHED[0],
        published_high=PUBLISHED[1],
    )


def draw(rows: list[Row]) -> Figure:
    """Speed-ups of every image by network; tokens through the blocks."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.axhspan(*PUBLISHED, color="#9aa5b1", alpha=0.35, label="published, pruning alone")
    for at, row in enumerate(rows):
        jitter = np.linspace(-0.18, 0.18, len(row.images))
        label = {"label": "an image, selectors decide"} if at == 0 else {}
        left.plot(at + jitter, sorted(row.images), "o", color="#0072b2", markersize=4, **label)
        for value, colour, text in (
            (row.fixed_bound, "#d55e00", "fixed 197/138/97/68, selectors free"),
            (row.recalled_ratios, "#009e73", "fixed .7/.39/.21, with selectors"),
        ):
            label = {"label": text} if at == 0 else {}
            left.hlines(value, at - 0.3, at + 0.3, color=colour, linewidth=2, **label)
    left.set_xticks(range(len(rows)), [row.network for row in rows])
    left.set_ylabel("speed-up over all tokens")
    left.set_ylim(1, 3.3)
    left.legend(frameon=False, fontsize=8, loc="upper left")
    left.set_title("What dropping tokens gains")
    row = rows[0]
    edges = np.arange(1, 14)
    for number, counts in enumerate(row.blocks_tokens):
        steps = np.repeat([197, *counts], 3)
        label = {"label": "an image"} if number == 0 else {}
        right.stairs(steps, edges, baseline=None, color="#0072b2", alpha=0.35, **label)
    right.stairs(
        tokens_per_block(), edges, baseline=None, color="#d55e00", linewidth=2, label="fixed share"
    )
    right.set_xticks(edges[:-1] + 0.5, [str(block) for block in range(1, 13)])
    right.set_xlabel("block")
    right.set_ylabel("tokens")
    right.set_ylim(0)
    right.legend(frameon=False, fontsize=8)
    right.set_title(f"Tokens of {len(row.images)} images, untrained selectors, {row.network}")
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def show(rows: list[Row]) -> None:
    """Print the comparison."""
    made = table(
        "HeatViT: speed-up by dropping tokens, same engine, 8 bits throughout",
        ("network",),
        ("all tokens ms", "images: mean", "range", "bound", ".7/.49/.343", ".7/.39/.21", "paper"),
        "images: synthetic, selectors decide, calibrated to .7/.49/.343 on average. bound: that "
        "share fixed and selectors free. The next two: fixed shares with selectors",
    )
    for row in rows:
        made.add_row(
            row.network,
            f"{row.dense_ms:.1f}",
            f"{np.mean(row.images):.2f}",
            f"{min(row.images):.2f}-{max(row.images):.2f}",
            f"{row.fixed_bound:.2f}",
            f"{row.fixed_with_selectors:.2f}",
            f"{row.recalled_ratios:.2f}",
            f"{row.published_low}-{row.published_high}",
        )
    console().print(made)
    share = max(row.selector_share for row in rows)
    console().print(f"selectors take at most {100 * share:.1f} % of the time on the engine")


@click.command()
@json_option
@click.option("--figures", metavar="DIR", callback=refuse_folder, help="Draw speed-ups and tokens.")
@click.option("--images", type=click.IntRange(1, 256), default=8, show_default=True,
              help="Images whose selectors decide.")  # fmt: skip
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True,
              help="Seed of the untrained selectors and images.")  # fmt: skip
def command(json_path: str | None, figures: str | None, images: int, seed: int) -> None:
    """HeatViT's gain by pruning tokens, image by image."""
    if figures:
        output_folder(figures)
    with PatientBar() as bar:
        rows = [measure(network, images, seed, bar) for network in WIDTHS]
    if figures:
        with written_whole(Path(figures) / "heatvit_tokens.png") as path:
            draw(rows).savefig(path, dpi=150)
    if json_path:
        write_json({"rows": rows}, json_path)
    if json_path != "-":
        show(rows)
