"""``sparqsim run``: a layer or a network on one machine, and where its time and energy went.

Every field of a machine's configuration is an option of its command, so a new machine needs
nothing here.
"""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Callable
from typing import Any, TypeVar, get_args, get_type_hints

import click
import msgspec

from sparqsim.architectures.machine import Machine, Result, run
from sparqsim.architectures.network import run_layer, run_network
from sparqsim.architectures.registry import get_machine, installed, machine_names
from sparqsim.base import InputError, bytes_of, read_toml
from sparqsim.scripts.output import (
    Differs,
    PatientBar,
    json_option,
    refuse_early,
    refuse_folder,
    refuse_given,
    refuse_twice,
    write_csv,
    write_json,
)
from sparqsim.scripts.work_options import WORK_HELP, data_options, work_options
from sparqsim.simulator.frames import COLUMNS, rows_of
from sparqsim.simulator.report import NetworkReport, Report
from sparqsim.simulator.trace import Window, check_trace_name
from sparqsim.workloads.work import Network, load

F = TypeVar("F", bound=Callable[..., Any])
KINDS = {int: int, float: float, str: str, bool: bool}

# What an option would change nothing for, by what is run.
OF_TENSORS = (
    "weight_density", "activation_density", "correlation", "seed", "calibration", "inputs",
)  # fmt: skip
OF_LAYERS = ("trace", "trace_window", "trace_limit", "summary", "execute")
OF_NETWORKS = ("jobs", "csv_path")
OF_WORK = ("batch", "sequence", "context", "shapes", "dense", "recipe", "requantize", "verify")


def field_help(machine: type[Machine]) -> dict[str, str]:
    """The first sentence on each field, from the ``Attributes`` of its class and those above."""
    helps: dict[str, str] = {}
    for kind in reversed(machine.__mro__):
        text = inspect.cleandoc(kind.__doc__ or "")
        found = re.findall(r"^(\w+)(?: :[^\n]*)?\n((?:    .*\n?)+)", text, re.MULTILINE)
        helps |= {name: " ".join(body.split()).split(". ")[0].rstrip(".") for name, body in found}
    return helps


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


def configure(
    machine: type[Machine], values: dict[str, Any], file: str | None, preset: str | None = None
) -> Machine:
    """A configuration: a preset, a TOML file over it, the options given beside it over both.

    Raises
    ------
    InputError
        On an unknown key, a value of the wrong type, one the machine refuses, or a preset of
        another machine.
    """
    given: dict[str, Any] = {}
    if preset is not None:
        from sparqsim.architectures import presets

        given = msgspec.to_builtins(presets.load(preset, machine.name))
    if file is not None:
        given |= read_toml(file, "the configuration")
    given |= {key: value for key, value in values.items() if value is not None}
    try:
        return msgspec.convert(given, machine, strict=True)
    except msgspec.ValidationError as error:
        if isinstance(error.__cause__, InputError):
            raise error.__cause__ from None
        raise InputError(f"{machine.__name__} configuration: {error}") from None


def parse_window(_: click.Context, __: click.Parameter, text: str | None) -> Window | None:
    """The window of an option, or None."""
    return None if text is None else Window.parse(text)


def tensor_options(function: F) -> F:
    """Add what is asked of tensors and their runs: the same for every command that runs some."""
    density = click.FloatRange(0, 1)
    for option in (
        click.option("--jobs", type=click.IntRange(1), help="Processes; all cores by default."),
        click.option(
            "--verify/--no-verify",
            default=True,
            show_default=True,
            help="Check the outputs bit by bit, and judge the network.",
        ),
        click.option(
            "--requantize", is_flag=True, help="Round again what the machine does not compute."
        ),
        click.option(
            "--seed",
            type=click.IntRange(0),
            default=0,
            show_default=True,
            help="Seed of synthetic tensors.",
        ),
        click.option(
            "--activation-density", type=density, help="Density of synthetic inputs, 0 to 1."
        ),
        click.option(
            "--weight-density", type=density, help="Density of synthetic weights, 0 to 1."
        ),
        click.option(
            "--correlation",
            type=click.FloatRange(-1, 1),
            metavar="R",
            help="Of synthetic weights and inputs: how much their densities go together, channel "
            "by channel; .4 to .6 in measured layers. Without it zeros are independent.",
        ),
        click.option("--dense", is_flag=True, help="Trained weights from before their pruning."),
    ):
        function = option(function)
    return data_options(work_options(function))


def machine_choice(function: F) -> F:
    """Add how a machine is configured, and what recipe its operands are made by."""
    for option in (
        click.option("--preset", metavar="NAME", help="A configuration that ships with Sparqsim."),
        click.option("--config", metavar="FILE", help="The machine's configuration in TOML."),
        click.option(
            "--recipe", metavar="FILE|NAME", help="Prune and round; else the machine's own."
        ),
    ):
        function = option(function)
    return function


def asked_of_tensors(given: dict[str, Any]) -> dict[str, Any]:
    """Of the options of a command that runs tensors, those that every run takes."""
    names = (
        "requantize", "verify", "seed", "weight_density", "activation_density", "correlation",
    )  # fmt: skip
    return {name: given[name] for name in names}


def asked_of_layers(given: dict[str, Any]) -> dict[str, Any]:
    """Likewise where there is one machine, with its recipe."""
    return {"recipe": given["recipe"], **asked_of_tensors(given)}


def all_cores() -> int:
    """How many processes can run at once here."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def load_work(work: str, given: dict[str, Any], numbers: bool) -> Network:
    """The network that WORK and its options name; weights and inputs only where wanted."""
    names = ("batch", "sequence", "context", "shapes", "calibration", "inputs", "dense")
    return load(work, numbers=numbers, **{name: given[name] for name in names})


class RunGroup(click.Group):
    """One sub-command per machine, made when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*machine_names(), *installed()]

    def get_command(self, ctx: click.Context, name: str) -> click.Command:
        return machine_command(name, get_machine(name))

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Machines (or a file my_machine.py)"):
            listed = [(name, get_machine(name).title) for name in machine_names()]
            formatter.write_dl(
                [*listed, *((each, offered.value) for each, offered in installed().items())]
            )


@click.group(cls=RunGroup, subcommand_metavar="MACHINE WORK [OPTIONS]")
def command() -> None:
    """Run a network, or one layer of it, on one machine."""


def machine_command(name: str, machine: type[Machine]) -> click.Command:
    """The command ``sparqsim run NAME``."""

    @click.argument("work", required=not machine.takes_counts)
    @tensor_options
    @machine_choice
    @click.option("--engine", type=click.Choice(["compiled", "simpy"]), default="compiled",
                  show_default=True, help="Engine; both give the same starts.")  # fmt: skip
    @click.option("--execute", is_flag=True, help="Compute in every firing (SimPy engine).")
    @click.option("--summary", is_flag=True, help="Keep sums only: memory stays constant.")
    @json_option
    @click.option("--csv", "csv_path", metavar="FILE|-", callback=refuse_early,
                  help="Write the rows of a network as CSV; - is the terminal.")  # fmt: skip
    @click.option("--trace", metavar="FILE", callback=refuse_early,
                  help="Write a trace: .json(.gz) for Perfetto, .kanata, .vcd.")  # fmt: skip
    @click.option("--trace-window", metavar="FROM:TO", callback=parse_window,
                  help="Cycles that the trace shows; else all.")  # fmt: skip
    @click.option("--trace-limit", metavar="SIZE", callback=_size_option, default="200MB",
                  show_default=True, help="Write no larger trace than this.")  # fmt: skip
    @click.option("--figures", metavar="DIR", callback=refuse_folder,
                  help="Draw the figures into a folder.")  # fmt: skip
    @click.option("--page", metavar="FILE", callback=refuse_early,
                  help="Write everything as one HTML page.")  # fmt: skip
    @click.pass_context
    def go(context: click.Context, /, **given: Any) -> None:
        fields = {str(option.name): given.pop(str(option.name)) for option in own}
        counts = given.pop("counts", None)
        configured = configure(machine, fields, given["config"], given["preset"])
        check_outputs(given)
        if not given["trace"]:
            refuse_given(context, ("trace_limit", "trace_window"), "without --trace")
        if counts is not None:
            _only_counts(context, given)
            report: Report | NetworkReport = _layer(context, configured, given, counts=counts)
        elif given["work"] is None:
            raise InputError("say what to run: WORK, such as alexnet/fc6, or --counts FILE.npz")
        else:
            report = _work(context, configured, given)
        _give(report, machine.title, given)

    own = machine_options(machine)
    go.__doc__ = f"{machine.title}.\n\n{WORK_HELP}"
    made = click.command(name)(go)
    if machine.takes_counts:
        counted = "Timing only, from work that was counted elsewhere, instead of WORK."
        made.params.append(click.Option(["--counts"], metavar="FILE.npz", help=counted))
    made.params += own
    return made


def _size_option(_: click.Context, __: click.Parameter, text: str) -> int:
    return bytes_of(text)


def check_outputs(given: dict[str, Any]) -> None:
    """Refuse before the work what could not be written after it."""
    files = {"--json": "json_path", "--csv": "csv_path", "--trace": "trace", "--page": "page"}
    refuse_twice({option: given[name] for option, name in files.items()})
    if given["trace"]:
        check_trace_name(given["trace"])


def _only_counts(context: click.Context, given: dict[str, Any]) -> None:
    if given["work"] is not None:
        raise InputError("give WORK or --counts, not both")
    refuse_given(
        context, (*OF_TENSORS, *OF_WORK, *OF_NETWORKS, "execute"), "for work counted elsewhere"
    )


def _work(
    context: click.Context, machine: Machine, given: dict[str, Any]
) -> Report | NetworkReport:
    """Run WORK, a layer or a network."""
    outlined = not given["verify"] and not machine.needs_numbers and not given["execute"]
    if outlined:
        why = f"without verification: the time of {machine.name} does not depend on the numbers"
        refuse_given(context, OF_TENSORS, why)
    network = load_work(given["work"], given, not outlined)
    if network.layer is None and (len(network.layers) > 1 or network.other):
        refuse_given(context, OF_LAYERS, "for a network; name one of its layers, NETWORK/LAYER")
        return _network(machine, network, given)
    refuse_given(context, OF_NETWORKS, "for a single layer")
    return _layer(context, machine, given, network=network)


def _layer(
    context: click.Context,
    machine: Machine,
    given: dict[str, Any],
    *,
    network: Network | None = None,
    counts: str | None = None,
) -> Report:
    """Run one layer of a network, or work counted in a file, and write what was asked for."""
    drawn = given["trace"] or given["figures"] or given["page"]
    if given["summary"] and drawn:
        raise InputError("--trace, --figures and --page need every firing; drop --summary")
    if given["execute"] and given["engine"] != "simpy":
        raise InputError("--execute needs --engine simpy")
    record = "path" if given["summary"] else "full" if drawn else "either"
    with PatientBar() as bar:
        bar("simulating", 0, 2)
        if network is None:
            counted = machine.program_from_counts_file(str(counts))
            result = run(machine, counted, engine=given["engine"], record=record)
        else:
            result = run_layer(
                machine,
                network,
                engine=given["engine"],
                record=record,
                execute=given["execute"],
                **asked_of_layers(given),
            )
        _draw_layer(result, bar, given)
    return result.report


def _draw_layer(result: Result, bar: PatientBar, given: dict[str, Any]) -> None:
    """Write the trace, the figures and the page of a layer."""
    if given["trace"]:
        from sparqsim.simulator.trace import check_trace_size, write_trace

        window = given["trace_window"]
        told = check_trace_size(
            result.timeline, given["trace"], limit=given["trace_limit"], window=window
        )
        click.echo(told, err=True)
        bar(f"writing {given['trace']}", 1, 2)
        write_trace(result.timeline, given["trace"], window=window, traffic=result.traffic)
    if given["figures"]:
        from sparqsim.simulator.plots import save_figures

        bar(f"drawing into {given['figures']}", 1, 2)
        save_figures(result.report, result.timeline, given["figures"], traffic=result.traffic)
    if given["page"]:
        from sparqsim.simulator.pages import layer_page, write

        bar(f"writing {given['page']}", 1, 2)
        write(layer_page(result.report, result.timeline, result.traffic), given["page"])


def _network(machine: Machine, network: Network, given: dict[str, Any]) -> NetworkReport:
    """Run a network and write what was asked for."""
    with PatientBar() as bar:
        report = run_network(
            machine,
            network,
            engine=given["engine"],
            paths=bool(given["json_path"] or given["page"]),
            jobs=given["jobs"] or all_cores(),
            progress=bar,
            **asked_of_layers(given),
        )
        if given["figures"]:
            from sparqsim.simulator.network_plots import save_network_figures

            save_network_figures(report, given["figures"])
        if given["page"]:
            from sparqsim.simulator.pages import network_page, write

            write(network_page(report), given["page"])
    if given["csv_path"]:
        write_csv(COLUMNS, rows_of(report), given["csv_path"])
    return report


def _give(report: Report | NetworkReport, title: str, given: dict[str, Any]) -> None:
    """Write the JSON, print the report, and fail where outputs differ."""
    from sparqsim.scripts.show import show, show_network

    if given["json_path"]:
        write_json(report, given["json_path"])
    quiet = "-" in (given["json_path"], given["csv_path"])
    if isinstance(report, NetworkReport):
        status = report.status
        if not quiet:
            show_network(report, title)
        if not report.runs:
            raise InputError(
                f"no layer of {report.network} runs on {report.machine}: {report.refused[0].why}"
            )
    else:
        status = report.verification.status
        if not quiet:
            show(report, title)
    if status == "mismatch":
        raise Differs("the machine's outputs differ from the reference; see the report")
