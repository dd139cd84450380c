"""The rules by which published energies follow a configuration, drawn beside what they rest on.

Four pictures: switching energy by node (Stillmaker and Baas) beside the figures of the table
``cacti-aladdin``; a bit of an SRAM by its words beside a run of CACTI 7 over capacities and ports
(``cacti_ports.csv``); the energy of a layer's array on Bit Fusions of several shapes; and switching
by supply voltage at 16 nm.

    python -m sparqsim.scripts.scenarios.energy_rules [--out docs/figures] [--data docs/data]
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec
import numpy as np

from sparqsim.architectures.arrays.bitfusion import BitFusion
from sparqsim.architectures.machine import run
from sparqsim.base import InputError, output_folder, written_whole
from sparqsim.scripts.scenarios.frame import by_factors, open_frame
from sparqsim.simulator.energy import scaling
from sparqsim.simulator.energy.tables import MAC_PJ, SRAM_64_BIT_PJ
from sparqsim.simulator.palette import BLUE, GREEN, ORANGE, VERMILION
from sparqsim.workloads.layers import Linear

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROOT = Path(__file__).resolve().parents[2]
CACTI = Path(__file__).with_name("cacti_ports.csv")
SHAPES = ((4, 8), (8, 8), (8, 16), (16, 32), (32, 32), (32, 64))
LAYER = Linear(
    name="fc", in_features=1024, out_features=512, rows=16, activation_bits=8, weight_bits=8
)
SNAP_NM, SUPPLIES_V = 16.0, (0.55, 0.60, 0.65, 0.70, 0.75, 0.80, 0.85)


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """What is drawn.

    Attributes
    ----------
    nodes : list of (nm, energy over that at 45 nm)
    logic, memory : list of (nm, over 45 nm)
        Of the table ``cacti-aladdin``: a MAC, a read of 128 KiB.
    srams : list of (words, pJ per bit of the rule, pJ per bit of CACTI)
        The rule goes through 128 KiB at a port of 64 bits.
    arrays : list of (rows, columns, array energy in nJ, cycles)
        Bit Fusions on one layer.
    supplies : list of (V, energy over that at 0.80 V)
    """

    nodes: list[tuple[float, float]]
    logic: list[tuple[float, float]]
    memory: list[tuple[float, float]]
    srams: list[tuple[float, float, float]]
    arrays: list[tuple[int, int, float, int]]
    supplies: list[tuple[float, float]]


def cacti_reads() -> list[tuple[float, float, float]]:
    """Capacity in KiB, port in bits and pJ of a read, as CACTI 7 gave them."""
    with CACTI.open(encoding="utf-8") as file:
        rows = csv.DictReader(line for line in file if not line.startswith("#"))
        return [
            (float(row["capacity_kib"]), float(row["port_bits"]), float(row["read_pj"]))
            for row in rows
        ]


def rules() -> Rules:
    """Everything the figure shows, worked out now."""
    base = scaling.switching_fj(45)
    of_mac, of_read = MAC_PJ, {nm: sizes[1] for nm, sizes in SRAM_64_BIT_PJ.items()}
    srams = []
    for capacity_kib, port, read_pj in cacti_reads():
        bit = scaling.words(capacity_kib, 128, port, 64).times
        assert bit is not None
        by_rule = SRAM_64_BIT_PJ[45][1] / 64 * bit
        srams.append((capacity_kib * 8192 / port, by_rule, read_pj / port))
    return Rules(
        nodes=[(node.nm, scaling.switching_fj(node.nm) / base) for node in scaling.NODES],
        logic=[(float(nm), value / of_mac[45]) for nm, value in of_mac.items()],
        memory=[(float(nm), value / of_read[45]) for nm, value in of_read.items()],
        srams=srams,
        arrays=[_array(rows, columns) for rows, columns in SHAPES],
        supplies=[
            (v, scaling.switching_fj(SNAP_NM, v) / scaling.switching_fj(SNAP_NM, 0.80))
            for v in SUPPLIES_V
        ],
    )


def _array(rows: int, columns: int) -> tuple[int, int, float, int]:
    machine = BitFusion(rows=rows, columns=columns)
    report = run(machine, machine.plan(LAYER)).report
    array = next(part for part in report.energy.parts if part.part == "array dynamic")
    return rows, columns, (array.energy_pj or 0.0) / 1e3, report.counters["compute_cycles"]


def draw(found: Rules) -> Figure:
    """One picture a rule."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.6, 6.8), layout="constrained")
    (node, sram), (array, supply) = figure.subplots(2, 2)
    node.plot(*zip(*found.nodes, strict=True), "o-", color=BLUE, label="Stillmaker and Baas")
    node.plot(*zip(*found.logic, strict=True), "^", color=ORANGE, label="MAC, cacti-aladdin")
    node.plot(*zip(*found.memory, strict=True), "s", color=GREEN, label="128 KiB, cacti-aladdin")
    node.set(yscale="log", xlabel="node (nm)", ylabel="energy over 45 nm")
    by_factors(node, [7, 16, 28, 45, 90, 180])
    node.set_title("Node, at its nominal supply")
    words, rule, cacti = (np.array(each) for each in zip(*found.srams, strict=True))
    order = np.argsort(words)
    sram.plot(words[order], rule[order], "-", color=BLUE, label="the rule")
    sram.plot(words, cacti, "o", color=VERMILION, label="CACTI 7, 45 nm", markersize=4)
    sram.set(
        xscale="log", yscale="log", xlabel="words: capacity over port", ylabel="pJ per bit read"
    )
    sram.set_title("SRAM: capacity and port")
    names = [f"{rows}x{columns}" for rows, columns, *_ in found.arrays]
    array.bar(names, [nanojoules for *_, nanojoules, _ in found.arrays], color=BLUE)
    array.set(ylabel="array energy (nJ)", xlabel="Fusion Units")
    array.set_ylim(0, 1.3 * max(nanojoules for *_, nanojoules, _ in found.arrays))
    array.set_title("Array: the same layer on other shapes")
    supply.plot(*zip(*found.supplies, strict=True), "o-", color=BLUE, label="Stillmaker and Baas")
    volts = np.array([v for v, _ in found.supplies])
    supply.plot(volts, (volts / 0.80) ** 2, "--", color=ORANGE, label="square of the supply")
    supply.set(xlabel="supply (V)", ylabel="energy over 0.80 V", ylim=(0, 1.25))
    supply.set_title("Supply, 16 nm")
    for axes in (node, sram, supply):
        axes.legend(frameon=False, fontsize=8)
    for axes in (node, sram, array, supply):
        open_frame(axes)
    return figure


@click.command()
@click.option("--out", type=click.Path(path_type=Path), default=ROOT / "docs" / "figures")
@click.option("--data", type=click.Path(path_type=Path), default=ROOT / "docs" / "data")
def main(out: Path, data: Path) -> None:
    """Draw the rules of energy, and write what is drawn as JSON."""
    try:
        found = rules()
        with written_whole(output_folder(out) / "energy_rules.png") as path:
            draw(found).savefig(path, dpi=150)
        with written_whole(output_folder(data) / "energy_rules.json") as path:
            path.write_bytes(msgspec.json.format(msgspec.json.encode(found), indent=1) + b"\n")
    except InputError as error:
        raise click.ClickException(str(error)) from None
    for rows, columns, nanojoules, cycles in found.arrays:
        click.echo(f"{rows:3d} x {columns:2d}: {nanojoules:.1f} nJ in {cycles:,} cycles")


if __name__ == "__main__":
    main()
