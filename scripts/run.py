"""``sparqsim run``: one layer on one machine, and where its time and energy went.

Every field of a machine's configuration is an option of its command, so a new machine needs
nothing here.
"""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any, get_args, get_type_hints

import click
import msgspec

from sparqsim.architectures.machine import Machine, Program, Result, run
from sparqsim.architectures.registry import get_machine, machine_names
from sparqsim.base import InputError, check_can_write, output_folder
from sparqsim.scripts.output import PatientBar, console, json_option, table, write_json
from sparqsim.simulator.report import Report
from sparqsim.simulator.trace import check_trace_name

KINDS = {int: int, float: float, str: str, bool: bool}


def field_help(machine: type[Machine]) -> dict[str, str]:
    """The first sentence on each field, from the ``Attributes`` of the class's docstring."""
    text = inspect.getdoc(machine) or ""
    found = re.findall(r"^(\w+)(?: :[^\n]*)?\n((?:    .*\n?)+)", text, re.MULTILINE)
    return {name: " ".join(body.split()).split(". ")[0].rstrip(".") for name, body in found}


def machine_options(machine: type[Machine]) -> list[click.Option]:
    """One option a field of the configuration."""
    helps, options = field_help(machine), []
    hints = get_type_hints(machine)
    for field in msgspec.structs.fields(machine):
        kind = hints[field.name]
        default = field.default if field.default is not msgspec.NODEFAULT else None
        shown: Any = getattr(default, "value", default)
        name = field.name.replace("_", "-")
        flag = f"--{name}/--no-{name}" if kind is bool else f"--{name}"
        choices = [a for a in get_args(kind) if isinstance(a, str)] or [
            str(member.value) for member in getattr(kind, "__members__", {}).values()
        ]
        options.append(
            click.Option(
                [flag, field.name],
                type=click.Choice(choices) if choices else KINDS.get(kind, str),
                default=None,
                help=f"{helps.get(field.name, '')}  [default: {shown}]",
            )
        )
    return options


def configure(machine: type[Machine], values: dict[str, Any], file: str | None) -> Machine:
    """A configuration from a TOML file and the options given beside it.

    Raises
    ------
    InputError
        On an unknown key, a value of the wrong type, or one the machine refuses.
    """
    given: dict[str, Any] = {}
    if file is not None:
        try:
            given = msgspec.toml.decode(Path(file).read_bytes())
        except (OSError, msgspec.DecodeError) as error:
            raise InputError(f"cannot read the configuration {file}: {error}") from None
    given |= {key: value for key, value in values.items() if value is not None}
    try:
        return msgspec.convert(given, machine, strict=True)
    except msgspec.ValidationError as error:
        if isinstance(error.__cause__, InputError):
            raise error.__cause__ from None
        raise InputError(f"{machine.__name__} configuration: {error}") from None


class RunGroup(click.Group):
    """One sub-command a registered machine, made when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(machine_names())

    def get_command(self, ctx: click.Context, name: str) -> click.Command:
        return machine_command(name, get_machine(name))

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Machines"):
            formatter.write_dl([(name, get_machine(name).title) for name in machine_names()])


@click.group(cls=RunGroup)
def command() -> None:
    """Run one layer on one machine."""


def machine_command(name: str, machine: type[Machine]) -> click.Command:
    """The command ``sparqsim run NAME``."""

    @click.option("--layer", help="MODEL/LAYER, such as alexnet/fc6 or digits-mlp/fc1.")
    @click.option("--batch", type=click.IntRange(1), help="Vectors or images; all of digits.")
    @click.option("--weight-density", type=float, help="Of made-up weights; else as published.")
    @click.option("--activation-density", type=float, help="Of made-up activations.")
    @click.option("--recipe", metavar="FILE|NAME", help="Prune and round the tensors first.")
    @click.option("--seed", type=int, default=0, show_default=True, help="Of made-up tensors.")
    @click.option("--config", metavar="FILE", help="The machine's configuration in TOML.")
    @click.option("--engine", type=click.Choice(["compiled", "simpy"]), default="compiled")
    @click.option("--execute", is_flag=True, help="Compute in every firing (SimPy engine).")
    @click.option("--verify/--no-verify", default=True, help="Check the outputs bit by bit.")
    @click.option("--summary", is_flag=True, help="Keep sums only: memory stays constant.")
    @json_option
    @click.option("--trace", metavar="FILE", help="Write a Chrome/Perfetto trace (.json, .gz).")
    @click.option("--figures", metavar="DIR", help="Draw the figures into a folder.")
    @click.option("--page", metavar="FILE", help="Write everything as one HTML page.")
    @click.pass_context
    def go(context: click.Context, **given: Any) -> None:
        fields = {option.name: given.pop(str(option.name)) for option in own}
        counts = given.pop("counts", None)
        configuration = configure(machine, {str(k): v for k, v in fields.items()}, given["config"])
        if (given["layer"] is None) == (counts is None):
            wanted = "--layer MODEL/LAYER or --counts FILE" if takes_counts else "--layer"
            raise InputError(f"say what to run: give {wanted}")
        if given["summary"] and (given["trace"] or given["figures"] or given["page"]):
            raise InputError("--trace, --figures and --page need every firing; drop --summary")
        if given["execute"] and given["engine"] != "simpy":
            raise InputError("--execute needs --engine simpy")
        if given["figures"]:
            output_folder(given["figures"])
        for file in (given["json_path"], given["trace"], given["page"]):
            if file and file != "-":
                check_can_write(file)
        if given["trace"]:
            check_trace_name(given["trace"])
        with PatientBar() as bar:
            result = carry_out(configuration, counts, bar, **given)
            write_out(result, bar, given["trace"], given["figures"], given["page"])
        if given["json_path"]:
            write_json(result.report, given["json_path"])
        if given["json_path"] != "-":
            show(result.report, machine.title)
        if result.report.verification.status == "mismatch":
            raise InputError("the machine's outputs differ from the reference; see the report")

    own = machine_options(machine)
    takes_counts = hasattr(machine, "program_from_counts")
    go.__doc__ = f"{machine.title}."
    made = click.command(name)(go)
    if takes_counts:
        made.params.append(
            click.Option(
                ["--counts"],
                metavar="FILE.npz",
                help="Timing only, from entries per PE and column.",
            )
        )
    made.params += own
    return made


def carry_out(
    machine: Machine,
    counts: str | None,
    bar: PatientBar,
    *,
    layer: str | None,
    batch: int | None,
    weight_density: float | None,
    activation_density: float | None,
    recipe: str | None,
    seed: int,
    engine: str,
    execute: bool,
    verify: bool,
    summary: bool,
    **_: Any,
) -> Result:
    """Make the tensors, lower, simulate and verify."""
    import numpy as np

    from sparqsim.workloads.tensors import layer_tensors

    steps = 3
    program: Program
    if counts is not None:
        bar(f"reading {counts}", 0, steps)
        program = machine.program_from_counts_file(counts)  # type: ignore[attr-defined]
    else:
        bar("making the tensors", 0, steps)
        tensors = layer_tensors(
            str(layer),
            np.random.default_rng(seed),
            batch=batch,
            weight_density=weight_density,
            activation_density=activation_density,
            recipe=recipe,
        )
        bar("encoding and multiplying", 1, steps)
        program = machine.lower(tensors)
    bar("simulating and verifying", 2, steps)
    return run(
        machine,
        program,
        engine=engine,
        record="summary" if summary else "full",
        verify=verify,
        execute=execute,
        seed=None if counts else seed,
    )


def write_out(
    result: Result, bar: PatientBar, trace: str | None, figures: str | None, page: str | None
) -> None:
    """Write what was asked for beside the report."""
    if trace:
        from sparqsim.simulator.trace import write_trace

        bar(f"writing {trace}", 2, 3)
        write_trace(result.timeline, trace)
    if figures:
        from sparqsim.simulator.plots import save_figures

        bar(f"drawing into {figures}", 2, 3)
        save_figures(result.report, result.timeline, figures, traffic=result.traffic)
    if page:
        from sparqsim.simulator.page import write_page

        bar(f"writing {page}", 2, 3)
        write_page(result.report, result.timeline, page, result.traffic)


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _time(seconds: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= size:
            return f"{seconds / size:.4g} {unit}"
    return f"{seconds / 1e-9:.4g} ns"


def _energy(picojoules: float) -> str:
    for unit, size in (("J", 1e12), ("mJ", 1e9), ("uJ", 1e6), ("nJ", 1e3)):
        if picojoules >= size:
            return f"{picojoules / size:.4g} {unit}"
    return f"{picojoules:.4g} pJ"


def _bits(bits: int) -> str:
    for unit, size in (("GiB", 2**33), ("MiB", 2**23), ("KiB", 2**13)):
        if bits >= size:
            return f"{bits / size:.4g} {unit}"
    return f"{bits / 8:.4g} B"


VERIFIED = {
    "exact": "[green]yes, bit by bit[/green]",
    "mismatch": "[red]NO[/red]",
    "skipped": "not checked",
}


def show(report: Report, title: str) -> None:
    """Print a report within 100 columns."""
    screen = console()
    screen.print(f"[bold]{title}[/bold]\n{report.layer}; {report.provenance.inputs}\n")
    macs, balance = report.macs, report.load_balance
    facts = table("", ("",), ("",))
    facts.show_header = False
    checked = VERIFIED[report.verification.status]
    if report.verification.outputs:
        checked += f" ({report.verification.outputs:,} outputs)"
    if report.verification.mismatches:
        checked += f", {report.verification.mismatches:,} differ"
    rows = [
        ("cycles", f"{report.cycles:,}"),
        ("time", _time(report.seconds)),
        ("MACs: dense", f"{macs.dense:,}" if macs.dense else "unknown"),
        ("MACs: effectual", f"{macs.effectual:,}"),
        ("entries of padding", f"{macs.padding:,}"),
        ("multipliers used", _percent(report.utilization["multipliers"])),
        ("energy", f"{_energy(report.energy.total_pj)} ({report.energy.average_power_w:.3g} W)"),
        ("outputs verified", checked),
    ]
    for row in rows:
        facts.add_row(*row)
    screen.print(facts)
    screen.print()

    ideal = table("From ideal to simulated", ("cycles if",), ("cycles", "of the run"))
    effectual = report.utilization["multipliers"] * report.cycles
    for what, cycles in (
        ("every multiplier did useful work in every cycle", effectual),
        (f"work were spread evenly over {balance.lanes} lanes of {balance.actor} (mean field)",
         balance.mean_field_cycles),
        ("only the busiest lane counted", float(balance.busiest_cycles)),
        ("as simulated", float(report.cycles)),
    ):  # fmt: skip
        share = cycles / report.cycles if report.cycles else 0.0
        ideal.add_row(what, f"{cycles:,.0f}", _percent(share))
    screen.print(ideal)
    screen.print()

    kinds = ("busy", "starved", "blocked", "waiting", "finished")
    stalls = table(
        "Where the lane-cycles went",
        ("part",),
        ("lanes", *kinds),
        "starved: no input; blocked: no room; waiting: for a resource; finished: nothing left",
    )
    for part, each in report.stalls.items():
        whole = max(each.lanes * report.cycles, 1)
        shares = [_percent(getattr(each, kind) / whole) for kind in kinds]
        stalls.add_row(part, str(each.lanes), *shares)
    screen.print(stalls)
    screen.print()

    if report.critical_path:
        path = table("Critical path", ("kind", "where"), ("cycles", "of the run"))
        for step in report.critical_path[:8]:
            path.add_row(step.kind, step.where, f"{step.cycles:,}", _percent(step.share))
        rest = report.critical_path[8:]
        if rest:
            cycles = sum(step.cycles for step in rest)
            path.add_row("", f"{len(rest)} more", f"{cycles:,}", _percent(cycles / report.cycles))
        screen.print(path)
        screen.print()

    counters = table("Counters", ("",), ("",))
    counters.show_header = False
    for name, value in report.counters.items():
        counters.add_row(name, f"{value:,}")
    screen.print(counters)
    screen.print()

    memory = table(
        "Memories", ("memory", "source"), ("size", "used", "read", "written", "GB/s read")
    )
    for name, use in report.memory.items():
        used = _bits(use.used_bits) if use.fits else f"[red]{_bits(use.used_bits)} too much[/red]"
        memory.add_row(
            name,
            use.source,
            _bits(use.capacity_bits),
            used,
            _bits(use.read_bits),
            _bits(use.written_bits),
            f"{use.read_gbytes_per_s:.3g}",
        )
    screen.print(memory)
    screen.print()

    energy = table("Energy", ("part", "basis", "source"), ("energy", "share"))
    for item in report.energy.parts:
        share = item.energy_pj / report.energy.total_pj if report.energy.total_pj else 0.0
        energy.add_row(
            item.part, item.basis.value, item.source, _energy(item.energy_pj), _percent(share)
        )
    screen.print(energy)
    for note in report.notes:
        screen.print(f"note: {note}")
