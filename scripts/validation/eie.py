"""EIE's Table IV beside ours: nine layers at the densities of Table III, drawn at random.

Weights and activations are independent Bernoulli at the published densities, five seeds each;
nothing is tuned. The time is that of a 64-PE EIE at 800 MHz with a queue of 8 slots, without the
activation SRAM, as in the authors' simulator. "Theoretical" is entries over PEs: the time of
perfect balance, with and without the padding entries; the paper's counts padding.

Three layers miss, and are shown as misses. NT-LSTM does so by a hair, less than the rounding of the
published time (7.5 us may be 7.45). Alex-8 was timed by the authors at 42.9 % activations,
not the 37.5 % of Table III. VGG-6 stays unexplained: the paper's own theoretical time implies
22.4 % activations where Table III says 18.3 %.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec
import numpy as np

from sparqsim.architectures.eie import EIE
from sparqsim.architectures.machine import run
from sparqsim.base import output_folder, written_whole
from sparqsim.scripts.output import (
    PatientBar,
    console,
    json_option,
    marked,
    refuse_folder,
    table,
    write_json,
)
from sparqsim.scripts.validation._evidence import Evidence, Table
from sparqsim.simulator.report import Report
from sparqsim.workloads.encodings.relative_index import RelativeIndexCSC
from sparqsim.workloads.layers import Layer
from sparqsim.workloads.models import get_layer
from sparqsim.workloads.synthetic import activations, sparse_matrix

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# published, Table IV: microseconds of EIE (64 PEs, 800 MHz), "theoretical" and "actual"
TABLE_IV = {
    "alex-6": (28.1, 30.3),
    "alex-7": (11.7, 12.2),
    "alex-8": (8.9, 9.9),
    "vgg-6": (28.1, 34.4),
    "vgg-7": (7.9, 8.7),
    "vgg-8": (7.3, 8.4),
    "nt-we": (5.2, 8.0),
    "nt-wd": (13.0, 13.9),
    "nt-lstm": (6.5, 7.5),
}
BOUND = 0.10  # what iid sparsity is expected to hold on seven of the nine layers
SEEDS = 5
PES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
SLOTS = (2, 3, 4, 8, 16, 32, 64, 128, 256)

EVIDENCE = (
    Evidence(
        figures=True,
        tables=(
            Table(
                title="EIE, Table IV: microseconds of one vector",
                name="{layer}",
                published=("published_us",),
                simulated="simulated_us",
                held="within_bound",
            ),
        ),
    ),
)


class LayerRow(msgspec.Struct, frozen=True, kw_only=True):
    """One layer: published and simulated microseconds, and the error of the mean.

    ``load_balance`` is entries over PEs over the run's cycles, as the paper has it.
    """

    layer: str
    published_us: float
    simulated_us: float
    lowest_us: float
    highest_us: float
    error: float
    within_bound: bool
    published_theoretical_us: float
    theoretical_us: float
    theoretical_without_padding_us: float
    load_balance: float
    seeds: int


class TrendRow(msgspec.Struct, frozen=True, kw_only=True):
    """One point of a trend, mean over seeds: efficiency is mean-field time over run time."""

    layer: str
    pes: int
    queue_slots: int
    cycles: float
    padding_share: float
    efficiency: float


def timed(layer: Layer, machine: EIE, seed: int) -> tuple[Report, int]:
    """A run at the layer's published densities, and its padding entries; timing only."""
    rng = np.random.default_rng(seed)
    rows, cols = layer.weight_shape
    pattern = sparse_matrix(rows, cols, layer.weight_density or 1.0, rng)
    vector = activations(cols, layer.activation_density or 1.0, rng)
    codes = pattern.with_values(np.ones(pattern.stored, np.uint8))
    encoded = RelativeIndexCSC.encode(codes, np.arange(16), machine.pes, machine.index_bits)
    counts = encoded.entries_per_column()
    active = np.flatnonzero(vector)
    report = run(
        machine,
        machine.program_from_counts(counts, active, bias=False, name=layer.name),
        record="summary",
    ).report
    useful = int(np.diff(pattern.indptr)[active].sum())
    return report, int(counts[:, active].sum()) - useful


def table_iv(bar: PatientBar, seeds: int = SEEDS) -> list[LayerRow]:
    """Every layer of Table IV."""
    machine = EIE(act_spill=False)
    rows = []
    for number, (name, (theoretical, actual)) in enumerate(TABLE_IV.items()):
        bar(f"Table IV: {name}", number, len(TABLE_IV))
        runs = [timed(get_layer(f"eie/{name}"), machine, seed) for seed in range(seeds)]
        times = np.array([report.seconds for report, _ in runs]) * 1e6
        entries = np.array([report.counters["entries"] for report, _ in runs])
        padding = np.array([padded for _, padded in runs])
        per_us = machine.pes * machine.clock_hz / 1e6
        error = float(times.mean() / actual - 1)
        rows.append(
            LayerRow(
                layer=name,
                published_us=actual,
                simulated_us=float(times.mean()),
                lowest_us=float(times.min()),
                highest_us=float(times.max()),
                error=error,
                within_bound=abs(error) <= BOUND,
                published_theoretical_us=theoretical,
                theoretical_us=float(entries.mean() / per_us),
                theoretical_without_padding_us=float((entries - padding).mean() / per_us),
                load_balance=float(np.mean([r.load_balance.efficiency for r, _ in runs])),
                seeds=seeds,
            )
        )
    return rows


def trends(bar: PatientBar, seeds: int = 2) -> list[TrendRow]:
    """Padding and balance over the number of PEs; balance over the depth of the queues."""
    points = [(pes, 8) for pes in PES] + [(64, slots) for slots in SLOTS if slots != 8]
    rows = []
    work = [(name, *point) for name in ("alex-7", "vgg-8", "nt-we") for point in points]
    for number, (name, pes, slots) in enumerate(work):
        bar(f"trends: {name}, {pes} PEs, {slots} slots", number, len(work))
        machine = EIE(pes=pes, queue_slots=slots, act_spill=False)
        runs = [timed(get_layer(f"eie/{name}"), machine, seed) for seed in range(seeds)]
        rows.append(
            TrendRow(
                layer=name,
                pes=pes,
                queue_slots=slots,
                cycles=float(np.mean([report.cycles for report, _ in runs])),
                padding_share=float(
                    np.mean([padded / max(r.counters["entries"], 1) for r, padded in runs])
                ),
                efficiency=float(np.mean([r.load_balance.efficiency for r, _ in runs])),
            )
        )
    return rows


def draw(rows: list[LayerRow], points: list[TrendRow]) -> Figure:
    """Table IV as bars; padding and balance over PEs; balance over queue slots."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 7.5), layout="constrained")
    grid = figure.add_gridspec(2, 3)
    axes = figure.add_subplot(grid[0, :])
    place = np.arange(len(rows))
    axes.bar(place - 0.2, [r.published_us for r in rows], 0.38, color="#9aa5b1", label="paper")
    ours = [r.simulated_us for r in rows]
    spread = [
        [r.simulated_us - r.lowest_us for r in rows],
        [r.highest_us - r.simulated_us for r in rows],
    ]
    axes.bar(place + 0.2, ours, 0.38, yerr=spread, color="#0072b2", capsize=2, label="simulated")
    for position, row in zip(place, rows, strict=True):
        axes.annotate(
            f"{100 * row.error:+.0f} %" + ("" if row.within_bound else "  miss"),
            (position, max(row.published_us, row.highest_us)),
            (0, 4),
            textcoords="offset points",
            ha="center",
            color="black" if row.within_bound else "#d55e00",
        )
    axes.set_xticks(place, [r.layer for r in rows])
    axes.set_ylabel("time of one vector (us)")
    axes.set_ylim(0, 1.15 * max(max(ours), max(r.published_us for r in rows)))
    axes.set_title("EIE, Table IV: published and simulated (iid sparsity, mean and range of seeds)")
    axes.legend(frameon=False)
    names = list(dict.fromkeys(point.layer for point in points))
    panels = (
        ("PEs", "padding entries (% of all)", "pes", "padding_share", "Fewer PEs, more padding"),
        ("PEs", "load balance (% of run)", "pes", "efficiency", "More PEs, worse balance"),
        (
            "queue slots",
            "load balance (% of run)",
            "queue_slots",
            "efficiency",
            "Deeper queues even it out",
        ),
    )
    colours = ("#0072b2", "#d55e00", "#009e73")
    for column, (x_label, y_label, x, y, title) in enumerate(panels):
        panel = figure.add_subplot(grid[1, column])
        for name, colour in zip(names, colours, strict=False):
            chosen = [
                p
                for p in points
                if p.layer == name and (p.queue_slots == 8 if x == "pes" else p.pes == 64)
            ]
            chosen.sort(key=lambda point: (point.pes, point.queue_slots))
            panel.plot(
                [p.pes if x == "pes" else p.queue_slots for p in chosen],
                [100 * (p.efficiency if y == "efficiency" else p.padding_share) for p in chosen],
                "o-",
                color=colour,
                label=name,
                markersize=4,
            )
        panel.set_xscale("log", base=2)
        ticks = PES if x == "pes" else SLOTS
        panel.set_xticks(ticks, [str(tick) for tick in ticks])
        panel.set_xlabel(x_label)
        panel.set_ylabel(y_label)
        panel.set_title(title)
        panel.set_ylim(0)
        panel.legend(frameon=False)
    for each in figure.axes:
        each.spines[["top", "right"]].set_visible(False)
    return figure


def show(rows: list[LayerRow]) -> None:
    """Print Table IV within 100 columns."""
    made = table(
        "EIE, Table IV: time of one vector in us (64 PEs, 800 MHz)",
        ("layer",),
        ("paper", "ours", "range", "error", "", "theory: paper", "ours", "unpadded", "balance"),
        f"iid Bernoulli sparsity at Table III densities, {rows[0].seeds} seeds, nothing tuned; "
        f"bound {100 * BOUND:.0f} %",
    )
    for row in rows:
        made.add_row(
            row.layer,
            f"{row.published_us:.1f}",
            f"{row.simulated_us:.2f}",
            f"{row.lowest_us:.2f}-{row.highest_us:.2f}",
            f"{100 * row.error:+.1f} %",
            "" if row.within_bound else marked("miss", "red"),
            f"{row.published_theoretical_us:.1f}",
            f"{row.theoretical_us:.1f}",
            f"{row.theoretical_without_padding_us:.1f}",
            f"{100 * row.load_balance:.0f} %",
        )
    console().print(made)
    held = sum(row.within_bound for row in rows)
    console().print(
        f"{held} of {len(rows)} layers within {100 * BOUND:.0f} %. Known misses: alex-8 was timed "
        "by the authors at 42.9 % activations, not 37.5 %; vgg-6 is unexplained (the paper's own "
        "theoretical time implies 22.4 %, not 18.3 %); nt-lstm, "
        "by less than its time is rounded by."
    )


@click.command()
@json_option
@click.option(
    "--figures",
    metavar="DIR",
    callback=refuse_folder,
    help="Draw Table IV and the trends over PEs and queues.",
)
@click.option("--seeds", type=click.IntRange(1), default=SEEDS, show_default=True,
              help="How many matrices are drawn for each layer.")  # fmt: skip
def command(json_path: str | None, figures: str | None, seeds: int) -> None:
    """EIE's Table IV, with the trends over PEs and queue depth."""
    if figures:
        output_folder(figures)
    with PatientBar() as bar:
        rows = table_iv(bar, seeds)
        points = trends(bar) if figures or json_path else []
        if figures:
            with written_whole(Path(figures) / "eie_table_iv.png") as path:
                draw(rows, points).savefig(path, dpi=150)
    if json_path:
        content: dict[str, Any] = {"rows": rows, "trends": points, "bound": BOUND}
        write_json(content, json_path)
    if json_path != "-":
        show(rows)
