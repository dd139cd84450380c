"""``sparqsim animate``: step through a small layer on a machine, on a page of its own."""

from __future__ import annotations

from typing import Any

import click

from sparqsim.architectures.machine import Machine
from sparqsim.architectures.network import run_layer
from sparqsim.architectures.registry import get_machine
from sparqsim.base import InputError, check_can_write
from sparqsim.scripts.output import console, refuse_early, refuse_twice
from sparqsim.scripts.run import (
    RunGroup,
    asked_of_layers,
    configure,
    load_work,
    machine_choice,
    machine_options,
    parse_window,
    tensor_options,
)
from sparqsim.scripts.work_options import WORK_HELP


class AnimateGroup(RunGroup):
    """One sub-command per machine, made when it is asked for."""

    def get_command(self, ctx: click.Context, name: str) -> click.Command:
        return machine_command(name, get_machine(name))


@click.group(cls=AnimateGroup, subcommand_metavar="MACHINE WORK [OPTIONS]")
def command() -> None:
    """Step through a small layer: tokens, queues, and the cause of each wait in words."""


def machine_command(name: str, machine: type[Machine]) -> click.Command:
    """The command ``sparqsim animate NAME``."""

    @click.argument("work")
    @tensor_options
    @machine_choice
    @click.option("-o", "--out", metavar="FILE", callback=refuse_early,
                  help="Write the page (.html).")  # fmt: skip
    @click.option("--window", metavar="FROM:TO", callback=parse_window,
                  help="Cycles that the page shows; else all.")  # fmt: skip
    @click.option("--frame", type=(click.IntRange(0), str), metavar="CYCLE FILE", multiple=True,
                  help="Write a cycle as an SVG; may be given again.")  # fmt: skip
    def go(**given: Any) -> None:
        fields = {str(option.name): given.pop(str(option.name)) for option in own}
        configured = configure(machine, fields, given["config"], given["preset"])
        _check_outputs(given)
        network = load_work(given["work"], given, True)
        if network.layer is None and (len(network.layers) > 1 or network.other):
            raise InputError(
                f"an animation shows a layer, and {given['work']} is a network; name one of its "
                "layers, NETWORK/LAYER"
            )
        _animate(configured, network, given)

    own = machine_options(machine)
    go.__doc__ = f"{machine.title}, cycle by cycle.\n\n{WORK_HELP}"
    made = click.command(name)(go)
    made.params = [each for each in made.params if each.name != "jobs"]
    made.params += own
    return made


def _check_outputs(given: dict[str, Any]) -> None:
    if not given["out"] and not given["frame"]:
        raise InputError("say what to write: -o FILE.html for the page, --frame CYCLE FILE.svg")
    for option, path, ending in (
        ("-o", given["out"], ".html"),
        *(("--frame", path, ".svg") for _, path in given["frame"]),
    ):
        if path and not path.endswith(ending):
            raise InputError(f"the file of {option} must be named {ending}, got {path}")
    for _, path in given["frame"]:
        check_can_write(path)
    if given["window"] and not given["out"]:
        raise InputError("--window says what the page shows; name that file with -o")
    files = {f"--frame {cycle}": path for cycle, path in given["frame"]}
    refuse_twice({"-o": given["out"], **files})


def _animate(machine: Machine, network: Any, given: dict[str, Any]) -> None:
    from sparqsim.simulator.animation import check_cycle, write_animation, write_frame

    result = run_layer(machine, network, **asked_of_layers(given))
    for cycle, _ in given["frame"]:
        check_cycle(result.timeline, cycle)  # before the page is written
    title = f"{machine.name}, {given['work']}"
    written = []
    if given["out"]:
        written.append(write_animation(result.timeline, given["out"], title, given["window"]))
    for cycle, path in given["frame"]:
        written.append(write_frame(result.timeline, cycle, path, title))
    for path in written:
        console().print(f"wrote {path}", markup=False)
