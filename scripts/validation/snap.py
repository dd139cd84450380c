"""What is published of SNAP beside what the model gives, and what had to be assumed for it.

Little of SNAP is published in numbers, and none by layer. The table runs ResNet-50, one image, with
synthetic tensors: independent zeros, weights and activations at one density each (the image itself
is dense). The densities of the authors' pruned network are not known to us, so throughput, power
and utilisation are comparisons that rest on them - not a pass.

    sparqsim validate snap [--weight-density 0.5] [--activation-density 0.5] [--pes-per-aim 3]

Every field of the machine's configuration is an option, so that what is assumed can be varied.
"""

from __future__ import annotations

from typing import Any

import click
import msgspec
import numpy as np

from sparqsim.architectures.machine import run
from sparqsim.architectures.snap import SNAP
from sparqsim.scripts.output import PatientBar, console, json_option, table, write_json
from sparqsim.scripts.run import configure, machine_options
from sparqsim.scripts.validation._evidence import Evidence, Table
from sparqsim.simulator.report import Report
from sparqsim.workloads.models import get_layer, get_model
from sparqsim.workloads.tensors import synthetic

NETWORK = "resnet50"
RECIPE = "int16"  # published: 16-bit operands; nothing is pruned beyond the densities given
IMAGE_LAYER = "conv1"  # its input is the image, which has no zeros
# What the authors publish (abstracts of the VLSI and JSSC papers), or follows from it.
UTILIZATION = 75.0  # published, %: average over their pruned networks
PSUM_REDUCTION = 22.0  # published: psum write-back against earlier sparse processors
FRAMES_PER_SECOND = 90.98  # published: pruned ResNet-50 at 0.80 V, 480 MHz
POWER_MW = 348.0  # published: at the same point
ENERGY_MJ = 3.83  # derived: 348 mW / 90.98 frame/s
EFFECTUAL_GMACS = 0.998  # derived: 252 x 480 MHz x 75 % / 90.98 frame/s
SPARSE_OVER_DENSE = 12.9  # derived: 21.55 over 1.67 TOPS/W, if 1.67 is the dense case
MULTIPLIERS = 252  # recalled from the paper, unchecked

EVIDENCE = (
    Evidence(
        long=True,
        tables=(
            Table(
                title="SNAP on a pruned ResNet-50",
                rows="items",
                name="{item}",
                published=("published",),
                simulated="simulated",
                quantity="item",
                note="remark",
            ),
        ),
    ),
)


class Item(msgspec.Struct, frozen=True, kw_only=True):
    """One number beside ours. ``basis``: of the published one; ``remark``: what ours rests on."""

    item: str
    unit: str
    published: float
    basis: str
    simulated: float
    error: float
    remark: str


def network_reports(
    machine: SNAP,
    weight_density: float,
    activation_density: float,
    seed: int,
    bar: PatientBar | None = None,
) -> list[Report]:
    """Reports of all layers of ResNet-50, every output verified."""
    rng = np.random.default_rng(seed)
    layers = get_model(NETWORK).layers
    reports = []
    for done, layer in enumerate(layers):
        if bar:
            bar(layer.name, done, len(layers))
        shown = 1.0 if layer.name == IMAGE_LAYER else activation_density
        made = synthetic(layer, rng, weight_density=weight_density, activation_density=shown)
        report = run(machine, made, recipe=RECIPE, record="summary", seed=seed).report
        reports += [report] * layer.repeat
    return reports


def summary(reports: list[Report], multipliers: int) -> dict[str, float]:
    """Sums over layers."""
    cycles = sum(report.cycles for report in reports)
    products = sum(report.macs.effectual for report in reports)
    psums = sum(report.counters["psums_written"] for report in reports)
    seconds = sum(report.seconds for report in reports)
    energy = sum(report.energy.known_pj for report in reports)
    return {
        "cycles": cycles,
        "frames_per_second": 1 / seconds,
        "effectual_gmacs": products / 1e9,
        "utilization": 100 * products / (cycles * multipliers),
        "psum_reduction": products / psums if psums else 1.0,
        "energy_mj": energy * 1e-9,
        "power_mw": energy * 1e-9 / seconds,
    }


def efficiency_gain(machine: SNAP, seed: int) -> float:
    """Energy of a 3 x 3 layer dense over its energy at 10 % weights and 10 % activations."""
    layer = get_layer(f"{NETWORK}/layer3.1.conv2")
    dense, sparse = (
        run(
            machine,
            synthetic(
                layer,
                np.random.default_rng(seed),
                weight_density=density,
                activation_density=density,
            ),
            recipe=RECIPE,
            record="summary",
        ).report.energy.known_pj
        for density in (1.0, 0.1)
    )
    return dense / sparse


def compare(
    machine: SNAP,
    weight_density: float = 0.5,
    activation_density: float = 0.5,
    seed: int = 0,
    bar: PatientBar | None = None,
) -> tuple[list[Item], bool]:
    """Every published number beside ours, and whether every output of the runs was exact."""
    multipliers = machine.pes * machine.multipliers
    reports = network_reports(machine, weight_density, activation_density, seed, bar)
    exact = all(report.verification.status == "exact" for report in reports)
    whole = summary(reports, multipliers)
    rest = summary([report for report in reports if report.layer != IMAGE_LAYER], multipliers)
    drawn = f"weights {weight_density:g}, activations {activation_density:g}, iid: assumed"
    energies = f"{drawn}; energy table, no clock, control, leakage"
    rows = [
        ("multipliers", "", MULTIPLIERS, "assumed", multipliers, "both recalled, unless set"),
        ("throughput", "frame/s", FRAMES_PER_SECOND, "published", whole["frames_per_second"],
         drawn),
        ("utilisation", "%", UTILIZATION, "published", whole["utilization"], drawn),
        (f"... without {IMAGE_LAYER}", "%", UTILIZATION, "published", rest["utilization"], drawn),
        ("psum write-back reduction", "x", PSUM_REDUCTION, "published", whole["psum_reduction"],
         "against one psum per product"),
        (f"... without {IMAGE_LAYER}", "x", PSUM_REDUCTION, "published", rest["psum_reduction"],
         "against one psum per product"),
        ("effectual MACs", "G/frame", EFFECTUAL_GMACS, "derived", whole["effectual_gmacs"],
         "circular: the densities were chosen near it"),
        ("energy", "mJ/frame", ENERGY_MJ, "derived", whole["energy_mj"], energies),
        ("power", "mW", POWER_MW, "published", whole["power_mw"], energies),
        ("efficiency, 10 % / 10 % over dense", "x", SPARSE_OVER_DENSE, "derived",
         efficiency_gain(machine, seed), "at one voltage; theirs at two"),
    ]  # fmt: skip
    return [
        Item(
            item=item,
            unit=unit,
            published=published,
            basis=basis,
            simulated=float(ours),
            error=float(ours) / published - 1,
            remark=remark,
        )
        for item, unit, published, basis, ours, remark in rows
    ], exact


@click.command()
@click.option(
    "--weight-density",
    type=click.FloatRange(0, 1, min_open=True),
    default=0.5,
    show_default=True,
    help="Density of the synthetic weights, which is not published.",
)
@click.option(
    "--activation-density",
    type=click.FloatRange(0, 1, min_open=True),
    default=0.5,
    show_default=True,
    help="Density of the synthetic activations, which is not published.",
)
@click.option(
    "--seed", type=int, default=0, show_default=True, help="Seed of the synthetic tensors."
)
@json_option
def command(
    weight_density: float,
    activation_density: float,
    seed: int,
    json_path: str | None,
    **fields: Any,
) -> None:
    """SNAP: published numbers beside ours on pruned ResNet-50 (half a minute)."""
    machine = configure(SNAP, fields, None)
    assert isinstance(machine, SNAP)
    with PatientBar() as bar:
        items, exact = compare(machine, weight_density, activation_density, seed, bar)
    if json_path:
        write_json({"outputs_exact": exact, "items": items}, json_path)
    if json_path == "-":
        return
    screen = console()
    shown = table(
        "SNAP: published beside simulated - an assumption-laden comparison, not a pass",
        ("item", "basis", "ours rests on"),
        ("published", "simulated", "error"),
    )
    for item in items:
        shown.add_row(
            item.item,
            item.basis,
            item.remark,
            f"{item.published:g} {item.unit}".strip(),
            f"{item.simulated:.4g}",
            f"{100 * item.error:+.0f} %",
        )
    screen.print(shown)
    screen.print(f"every output of all layers exact: {'yes' if exact else 'NO'}")


command.params += machine_options(SNAP)


if __name__ == "__main__":
    command()
