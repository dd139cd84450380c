"""Three questions to SNAP that its abstracts raise and do not answer.

*Where does 75 % utilisation lie?* A surface over weight and activation density for several AIM
sizes and several numbers of PEs that share an AIM. *When do PEs wait for each other?* Lanes that
wait for an AIM, or for an output bank, over the time of a layer. *Where does 22 times less psum
write-back come from?* Psums written with each level of reduction on and off, and what the banks
make of it.

    python -m sparqsim.scripts.scenarios.snap_utilization [--out docs/figures] [--seed 0]
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np
from numpy.typing import NDArray

from sparqsim.architectures.machine import Result, run
from sparqsim.architectures.snap import SNAP
from sparqsim.base import InputError, output_folder, written_whole
from sparqsim.scripts.output import PatientBar
from sparqsim.scripts.scenarios.frame import by_factors
from sparqsim.workloads.layers import Conv2d
from sparqsim.workloads.tensors import synthetic

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROOT = Path(__file__).resolve().parents[2]
DENSITIES = (0.05, 0.1, 0.2, 0.3, 0.45, 0.6, 0.8, 1.0)
SIZES = (8, 16, 32)  # comparators on a side of an AIM
SHARING = (1, 3, 7)  # PEs per AIM
BANKS = (2, 4, 8, 16)
TARGET = 0.75  # published: average utilisation
REDUCTION = 22.0  # published: less psum write-back
# A middle layer of a ResNet, all its rows and blocks full: what is lost is lost to sparsity.
CONV = Conv2d(
    name="3x3",
    in_channels=128,
    out_channels=64,
    input=(14, 14),
    kernel=(3, 3),
    padding=(1, 1),
)
POINTWISE = Conv2d(name="1x1", in_channels=384, out_channels=64, input=(14, 14), kernel=(1, 1))
LEVELS = {
    "both levels": (True, True, "#4c72b0"),
    "PE level alone": (True, False, "#55a868"),
    "core level alone": (False, True, "#dd8452"),
    "no reduction": (False, False, "#c44e52"),
}


def simulated(
    machine: SNAP, layer: Conv2d, weights: float, inputs: float, seed: int, record: str = "summary"
) -> Result:
    """A layer at two densities, drawn from a seed; refuses a wrong output."""
    rng = np.random.default_rng(seed)
    made = synthetic(layer, rng, weight_density=weights, activation_density=inputs)
    result = run(machine, made, record=record, seed=seed)
    if result.report.verification.status != "exact":
        raise InputError(f"{layer.name}: the machine's outputs differ from the reference")
    return result


def surfaces(
    seed: int, bar: PatientBar, sizes: Sequence[int] = SIZES, shared: Sequence[int] = SHARING
) -> dict[tuple[int, int], NDArray[np.float64]]:
    """Utilisation [weight density, activation density] for each (AIM size, sharing)."""
    found = {}
    pairs = [(n, p) for n in sizes for p in shared]
    for number, (size, sharing) in enumerate(pairs):
        machine = SNAP(comparators=size, pes_per_aim=sharing)
        surface = np.zeros((len(DENSITIES), len(DENSITIES)))
        for i, weights in enumerate(DENSITIES):
            bar(
                f"AIM of {size}, {sharing} PEs",
                number * len(DENSITIES) + i,
                len(pairs) * len(DENSITIES),
            )
            for j, inputs in enumerate(DENSITIES):
                report = simulated(machine, CONV, weights, inputs, seed).report
                surface[i, j] = report.utilization["multipliers"]
        found[size, sharing] = surface
    return found


def draw_surfaces(found: dict[tuple[int, int], NDArray[np.float64]]) -> Figure:
    """A panel for each AIM size and sharing, with the line of 75 %."""
    from matplotlib.figure import Figure

    sizes, shared = (list(dict.fromkeys(each)) for each in zip(*found, strict=True))
    width, height = 1.8 + 2.4 * len(shared), 1.2 + 2.4 * len(sizes)
    drawing = Figure(figsize=(max(width, 6.4), max(height, 4.6)), layout="constrained")
    panels = drawing.subplots(len(sizes), len(shared), sharex=True, sharey=True, squeeze=False)
    ticks = range(len(DENSITIES))
    for row, size in zip(panels, sizes, strict=True):
        for axes, sharing in zip(row, shared, strict=True):
            surface = found[size, sharing]
            image = axes.imshow(surface, origin="lower", vmin=0, vmax=1, cmap="viridis")
            for (i, j), value in np.ndenumerate(surface):
                colour = "white" if value < 0.6 else "black"
                axes.text(
                    j, i, f"{100 * value:.0f}", ha="center", va="center", fontsize=7, color=colour
                )
            if surface.max() >= TARGET:
                axes.contour(surface, levels=[TARGET], colors="#d62728", linewidths=2)
            axes.set_title(f"N = {size}, {sharing} PE{'s' * (sharing > 1)} per AIM", fontsize=10)
            axes.set_xticks(ticks, [f"{100 * d:g}" for d in DENSITIES], fontsize=8)
            axes.set_yticks(ticks, [f"{100 * d:g}" for d in DENSITIES], fontsize=8)
    drawing.supxlabel("activation density (%)", fontsize=10)
    drawing.supylabel("weight density (%)", fontsize=10)
    drawing.colorbar(image, ax=panels, shrink=0.6, label="effectual MACs per multiplier and cycle")
    drawing.suptitle(
        "SNAP: utilisation in % of a 3 x 3 layer, 128 channels, bundles of 32; red line: 75 %",
        fontsize=11,
    )
    return drawing


def waiting(result: Result, actor: str, bins: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Middles of at most ``bins`` stretches of a run, and the share of lanes that wait in each."""
    timeline = result.timeline
    grants = timeline.grants[timeline.netlist.index(actor)]
    assert grants is not None
    change = np.zeros(timeline.cycles + 1, np.int64)
    np.add.at(change, grants.ready.ravel(), 1)
    np.add.at(change, timeline.starts_of(actor).ravel(), -1)
    level = np.cumsum(change)[: timeline.cycles] / timeline.netlist.actor(actor).lanes
    edges = np.linspace(0, timeline.cycles, min(bins, timeline.cycles) + 1).astype(np.int64)
    sums = np.concatenate([[0.0], np.cumsum(level)])
    return (edges[1:] + edges[:-1]) / 2, np.diff(sums[edges]) / np.diff(edges)


def draw_conflicts(seed: int) -> Figure:
    """Waiting for AIMs by sharing, and for output banks by level of reduction, over time."""
    from matplotlib.figure import Figure

    drawing = Figure(figsize=(8.0, 6.4), layout="constrained")
    above, below = drawing.subplots(2, 1)
    for sharing, colour in zip(SHARING, ("#55a868", "#4c72b0", "#c44e52"), strict=True):
        machine = SNAP(pes_per_aim=sharing)
        result = simulated(machine, CONV, 0.5, 0.5, seed, "full")
        x, share = waiting(result, "aim", 60)
        label = f"{sharing} PE{'s' * (sharing > 1)} per AIM: {result.report.cycles:,} cycles"
        above.plot(x, 100 * share, color=colour, label=label)
    above.set_title("Waiting for an AIM (N = 32), both densities 50 %", fontsize=10)
    above.set_ylabel("PEs that wait (%)")
    for name, (pe, core, colour) in LEVELS.items():
        machine = SNAP(pe_reduction=pe, core_reduction=core)
        result = simulated(machine, CONV, 0.5, 0.5, seed, "full")
        x, share = waiting(result, "write_back", 60)
        label = f"{name}: {result.report.cycles:,} cycles"
        below.plot(x, 100 * share, color=colour, label=label)
    below.set_title("Waiting for one of the 8 output banks of a core", fontsize=10)
    below.set_ylabel("writers that wait (%)")
    below.set_xlabel("cycle")
    for axes in (above, below):
        axes.set_xlim(left=0)
        axes.set_ylim(-3, 103)
        axes.legend(loc="upper right", fontsize=8)
        axes.grid(alpha=0.3)
    return drawing


COUNTERS = {
    "both levels": "psums_with_both",
    "PE level alone": "psums_with_pe_reduction",
    "core level alone": "psums_with_core_reduction",
}


def psum_ratios(seed: int) -> dict[tuple[str, str], list[float]]:
    """Products a psum by (layer, levels of reduction), over the densities."""
    found: dict[tuple[str, str], list[float]] = {}
    for layer in (CONV, POINTWISE):
        for density in DENSITIES:
            counted = simulated(SNAP(), layer, density, density, seed).report.counters
            for name, key in COUNTERS.items():
                ratio = counted["psums_without_reduction"] / counted[key]
                found.setdefault((layer.name, name), []).append(ratio)
    return found


def bank_times(seed: int) -> dict[str, list[int]]:
    """Cycles of the 3 x 3 layer by levels of reduction, over the banks of a core."""
    return {
        name: [
            simulated(
                SNAP(pe_reduction=pe, core_reduction=core, banks=banks), CONV, 0.5, 0.5, seed
            ).report.cycles
            for banks in BANKS
        ]
        for name, (pe, core, _) in LEVELS.items()
    }


def draw_psums(ratios: dict[tuple[str, str], list[float]], times: dict[str, list[int]]) -> Figure:
    """Products a psum over density; cycles over banks."""
    from matplotlib.figure import Figure

    drawing = Figure(figsize=(10.0, 4.6), layout="constrained")
    left, right = drawing.subplots(1, 2)
    percent = [100 * density for density in DENSITIES]
    for (layer, name), ratio in ratios.items():
        style = "-" if layer == CONV.name else "--"
        mode = "3 x 3, diagonal" if layer == CONV.name else "1 x 1, row"
        left.plot(percent, ratio, style, color=LEVELS[name][2], label=f"{name} ({mode})")
    left.axhline(REDUCTION, color="0.2", linewidth=1, linestyle=":")
    left.text(5.3, REDUCTION * 1.06, "22 x, published", fontsize=8)
    left.set_yscale("log")
    by_factors(left, percent, fontsize=8)
    left.set_yticks([1, 3, 10, 22, 96], ["1", "3", "10", "22", "96"])
    left.set_xlabel("density of weights and of activations (%)")
    left.set_ylabel("products for one psum written")
    left.set_title("How much each level takes away", fontsize=10)
    left.legend(fontsize=7, loc="upper left")
    least = min(min(cycles) for cycles in times.values())
    for name, cycles in times.items():
        right.plot(BANKS, [c / least for c in cycles], "o-", color=LEVELS[name][2], label=name)
    right.set_yscale("log")
    by_factors(right, BANKS)
    right.set_yticks([1, 2, 5, 10, 20, 40], ["1", "2", "5", "10", "20", "40"])
    right.set_xlabel("output banks per core")
    right.set_ylabel("cycles over the fastest")
    right.set_title("What the banks make of it (3 x 3, densities 50 %)", fontsize=10)
    right.legend(fontsize=8)
    for axes in (left, right):
        axes.grid(alpha=0.3)
    return drawing


@click.command()
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=ROOT / "docs" / "figures",
    help="Folder to write snap_*.png to.",
)
@click.option("--seed", type=int, default=0, show_default=True)
def main(out: Path, seed: int) -> None:
    """Print and draw where SNAP's 75 % and 22 x lie (some minutes)."""
    try:
        folder = output_folder(out)
        with PatientBar() as bar:
            found = surfaces(seed, bar)
        ratios, times = psum_ratios(seed), bank_times(seed)
        for name, drawing in (
            ("utilization", draw_surfaces(found)),
            ("conflicts", draw_conflicts(seed)),
            ("psums", draw_psums(ratios, times)),
        ):
            with written_whole(folder / f"snap_{name}.png") as path:
                drawing.savefig(path, dpi=150)
    except InputError as error:
        raise click.ClickException(str(error)) from None
    click.echo("utilisation (%) at equal densities of weights and activations")
    click.echo("N   PEs/AIM" + "".join(f"{100 * density:7.0f}" for density in DENSITIES))
    for (size, sharing), surface in found.items():
        row = "".join(f"{100 * value:7.1f}" for value in surface.diagonal())
        click.echo(f"{size:<4}{sharing:<7}{row}")
    click.echo("\nproducts for one psum written, by density")
    for (layer, name), ratio in ratios.items():
        click.echo(f"{layer} {name:18}" + "".join(f"{value:7.1f}" for value in ratio))
    click.echo(f"\ncycles with {', '.join(map(str, BANKS))} banks")
    for name, cycles in times.items():
        click.echo(f"{name:18}" + "".join(f"{value:9,}" for value in cycles))


if __name__ == "__main__":
    main()
