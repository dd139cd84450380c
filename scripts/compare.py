"""``sparqsim compare``: the same work on several machines, made comparable."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import click
import msgspec
from rich.console import Console
from rich.markup import escape

from sparqsim.architectures.compare import compare
from sparqsim.architectures.machine import Machine
from sparqsim.architectures.registry import get_machine
from sparqsim.base import InputError, output_folder, written_whole
from sparqsim.scripts.output import (
    Differs,
    PatientBar,
    console,
    json_option,
    refuse_early,
    refuse_folder,
    refuse_given,
    refuse_twice,
    table,
    write_csv,
    write_json,
)
from sparqsim.scripts.run import (
    OF_TENSORS,
    all_cores,
    asked_of_tensors,
    configure,
    load_work,
    tensor_options,
)
from sparqsim.scripts.show import NOT_KNOWN, checked, duration, joules, million, size
from sparqsim.scripts.work_options import WORK_HELP
from sparqsim.simulator.comparison import ComparedNetwork, ComparisonReport, Contender, Ratios
from sparqsim.simulator.frames import COLUMNS, rows_of_all
from sparqsim.simulator.pages.charts import percent
from sparqsim.simulator.report import Beside, LayerRun, Report, Totals

FEW = 4  # machines whose times all fit a line


@click.command(
    help="Run each WORK on several machines and set them side by side.\n\n"
    f"{WORK_HELP}\n"
    "A machine is a name, with a preset or a configuration file behind a colon where it is not to "
    "be the default: bitfusion,sparse-tensor-core:h100,eie:my.toml. The first is what the others "
    "are measured by."
)
@click.argument("works", nargs=-1, required=True, metavar="WORK...")
@click.option("--machines", required=True, metavar="A,B,...", help="Machines to compare.")
@click.option(
    "--recipe",
    "given_recipes",
    multiple=True,
    metavar="R | MACHINE=R",
    help="Prune and round: on all machines, or on one; else each machine's own recipe.",
)
@click.option(
    "--equal",
    type=click.Choice(["macs", "bandwidth", "area", "none"]),
    default="none",
    show_default=True,
    help="What is made equal to the first machine's: peak MACs a second, DRAM bandwidth, area.",
)
@click.option(
    "--save",
    metavar="DIR",
    callback=refuse_folder,
    help="Write the configurations, for run --config.",
)
@tensor_options
@json_option
@click.option(
    "--csv",
    "csv_path",
    metavar="FILE|-",
    callback=refuse_early,
    help="Write every layer on every machine as CSV; - is the terminal.",
)
@click.option(
    "--figures",
    metavar="DIR",
    callback=refuse_folder,
    help="Draw the figures that papers print into a folder.",
)
@click.option(
    "--page", metavar="FILE", callback=refuse_early, help="Write everything as one HTML page."
)
@click.pass_context
def command(
    context: click.Context,
    /,
    works: tuple[str, ...],
    machines: str,
    given_recipes: tuple[str, ...],
    equal: Any,
    save: str | None,
    json_path: str | None,
    csv_path: str | None,
    figures: str | None,
    page: str | None,
    **given: Any,
) -> None:
    """Compare machines."""
    configured = chosen_machines(machines)
    recipes = chosen_recipes(given_recipes, configured)
    refuse_twice({"--json": json_path, "--csv": csv_path, "--page": page})
    numbers = given["verify"] or any(each.needs_numbers for each in configured.values())
    if not numbers:
        why = "without verification: the time of these machines does not depend on the numbers"
        refuse_given(context, OF_TENSORS, why)
    networks = [load_work(work, given, numbers) for work in works]
    with PatientBar() as bar:
        report = compare(
            networks,
            configured,
            recipes=recipes,
            equal=equal,
            progress=bar,
            paths=bool(json_path or page),
            jobs=given["jobs"] or all_cores(),
            **asked_of_tensors(given),
        )
    if figures:
        from sparqsim.simulator.comparison_plots import save_comparison_figures

        save_comparison_figures(report, figures)
    if page:
        from sparqsim.simulator.pages import comparison_page, write

        write(comparison_page(report), page)
    if save:
        save_configurations(report.contenders, save)
    if json_path:
        write_json(report, json_path)
    if csv_path:
        write_csv(("network", "machine", *COLUMNS), rows_of_all(report), csv_path)
    if "-" not in (json_path, csv_path):
        show_comparison(report)
    if report.status == "mismatch":
        raise Differs("outputs of a machine differ from the reference; see the report")


# ------------------------------------------------------------------ what is asked


def chosen_machines(text: str) -> dict[str, Machine]:
    """Configurations by label, from ``bitfusion,sparse-tensor-core:h100,eie:my.toml``.

    Raises
    ------
    InputError
        If a machine or its configuration is not there, or one stands there twice.
    """
    found: dict[str, Machine] = {}
    for label in (part.strip() for part in text.split(",")):
        if not label:
            raise InputError(f"--machines must be names with commas between, got {text!r}")
        if label in found:
            raise InputError(f"--machines names {label!r} twice")
        name, _, configuration = label.partition(":")
        machine = get_machine(name)
        if configuration.endswith(".toml"):
            found[label] = configure(machine, {}, configuration)
        else:
            found[label] = configure(machine, {}, None, configuration or None)
    return found


def chosen_recipes(given: Sequence[str], machines: Mapping[str, Machine]) -> dict[str, str]:
    """Recipes by label, from one for all and ``MACHINE=R`` for single ones, which win.

    Raises
    ------
    InputError
        If there are two for all or two for one machine.
    """
    single: dict[str, str] = {}
    general: list[str] = []
    for text in given:
        label, equals, recipe = text.partition("=")
        named = [
            each
            for each, machine in machines.items()
            if equals and label in (each, each.partition(":")[0], machine.name)
        ]
        for each in named:
            if each in single:
                raise InputError(f"--recipe is given twice for {each}")
            single[each] = recipe
        if not named:
            general.append(text)
    if len(general) > 1:
        names = ", ".join(machines)
        raise InputError(
            f"--recipe is given for all machines twice, {', '.join(map(repr, general))}; for one "
            f"write MACHINE=RECIPE, where MACHINE is {names}"
        )
    return {label: recipe for recipe in general for label in machines} | single


def save_configurations(contenders: Sequence[Contender], folder: str) -> None:
    """Write a TOML file a machine, named by its label."""
    place = output_folder(folder)
    for each in contenders:
        lines = [f"# {each.machine}: {each.label}"]
        lines += [
            f"{name} = {_toml(value)}"
            for name, value in each.configuration.items()
            if value is not None
        ]
        name = re.sub(r"[^\w.-]+", "_", each.label.removesuffix(".toml"))
        with written_whole(place / f"{name}.toml") as path:
            path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _toml(value: Any) -> str:
    """A value of a field; JSON's strings, numbers, truth values and lists are TOML's."""
    return msgspec.json.encode(value).decode()


# ------------------------------------------------------------------ what is shown


def show_comparison(report: ComparisonReport) -> None:
    """Print configurations, then each network: one row per layer, and totals."""
    screen = console()
    _show_contenders(screen, report)
    for network in report.networks:
        _show_layers(screen, network)
        _show_totals(screen, network)
    if report.means:
        first = report.contenders[0].label
        for kind in ("geometric", "arithmetic"):
            means = {mean.label: getattr(mean, kind) for mean in report.means}
            _show_ratios(screen, f"{kind} mean over the networks, over {first}'s", means)
    for note in report.notes:
        screen.print(f"note: {escape(note)}")


def _show_contenders(screen: Console, report: ComparisonReport) -> None:
    equal = "nothing" if report.equal == "none" else report.equal
    listed = table(
        f"Machines ({equal} made equal)",
        ("machine", "area from"),
        ("GMAC/s", "of", "GB/s", "mm2", "node", "mm2 there"),
        "GMAC/s: at peak; GB/s: of DRAM; mm2 there: area in the first machine's technology",
    )

    def shown(value: float | None, by: float = 1.0) -> str:
        return "not known" if value is None else f"{value / by:.4g}"

    for each in report.contenders:
        listed.add_row(
            each.label,
            f"{each.area_basis}: {each.area_source}" if each.area_basis else "",
            shown(each.peak_macs_per_s, 1e9),
            each.peak_operands.removesuffix(" bits"),
            "none"
            if each.bandwidth_bytes_per_s is None
            else shown(each.bandwidth_bytes_per_s, 1e9),
            shown(each.area_mm2),
            "" if each.area_node_nm is None else f"{each.area_node_nm:g} nm",
            shown(each.area_at_first_mm2),
        )
    screen.print(listed)
    for each in report.contenders:
        changed = [f"{name} = {each.configuration[name]}" for name in each.changed]
        told = ", ".join(changed) or "as configured"
        screen.print(f"{escape(each.label)}: {escape(told)}")
    screen.print()


def _show_layers(screen: Console, network: ComparedNetwork) -> None:
    """Time of each layer on each machine, and the ratio to the first."""
    labels = [each.label for each in network.machines]
    listed = table(
        f"{network.network}: time of each layer, in brackets over {labels[0]}'s",
        ("layer",),
        tuple(labels),
    )
    of_layers = [
        [row for row in each.report.rows if not isinstance(row, Beside)]
        for each in network.machines
    ]
    for rows in zip(*of_layers, strict=True):
        first, *others = (row.report if isinstance(row, LayerRun) else None for row in rows)
        cells = [_time(first, rows[0].repeat)]
        for found in others:
            told = _time(found, rows[0].repeat)
            if first is not None and found is not None:
                ratio = f"{found.seconds / first.seconds:.3g}"
                told = ratio if len(labels) > FEW else f"{told} ({ratio})"
            cells.append(told)
        listed.add_row(rows[0].name, *cells)
    screen.print(listed)
    screen.print()


def _time(found: Report | None, repeat: int) -> str:
    return "not run" if found is None else duration(found.seconds * repeat)


def _show_totals(screen: Console, network: ComparedNetwork) -> None:
    """One row per machine: sums, ratios to the first, then what ran and how right it is."""
    first = network.machines[0].label
    sums = table(
        f"{network.network}: totals over {network.summed_over}",
        ("machine",),
        (*RATIOS.values(), "use"),
    )
    what = table("", ("machine", "recipe"), ("layers", "MACs", "verified", "accuracy"))
    for each in network.machines:
        sums.add_row(each.label, *_sums(each.shared))
        report, totals = each.report, each.report.totals
        judged = report.accuracy.compressed if report.accuracy else {}
        accuracy = ", ".join(f"{name} {value:.4f}" for name, value in judged.items())
        what.add_row(
            each.label,
            report.recipe,
            f"{totals.layers} of {totals.layers_of_network}",
            f"{million(totals.macs)} of {million(totals.macs_of_network)}",
            checked(report.status),
            accuracy or "–",
        )
    screen.print(sums)
    screen.print()
    ratios = {each.label: each.ratios for each in network.machines}
    _show_ratios(screen, f"{network.network}: over {first}'s (below 1 is less)", ratios)
    screen.print(what)
    screen.print()


RATIOS = {
    "cycles": "cycles",
    "seconds": "time",
    "energy": "energy",
    "edp": "energy x time",
    "dram": "DRAM",
}


def _show_ratios(screen: Console, title: str, ratios: Mapping[str, Ratios]) -> None:
    listed = table(title, ("machine",), tuple(RATIOS.values()))
    for label, each in ratios.items():
        values = [getattr(each, name) for name in RATIOS]
        shown = ["–" if value is None else f"{value:.3g}" for value in values]
        listed.add_row(label, *shown)
    screen.print(listed)
    screen.print()


def _sums(totals: Totals) -> list[str]:
    moved = "–"
    if totals.dram_read_bits is not None and totals.dram_written_bits is not None:
        moved = size(totals.dram_read_bits + totals.dram_written_bits)
    return [
        f"{totals.cycles:,}",
        duration(totals.seconds),
        joules(totals.energy.total_pj),
        NOT_KNOWN if totals.edp_js is None else f"{totals.edp_js:.3g} Js",
        moved,
        percent(totals.utilization),
    ]
