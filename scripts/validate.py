"""``sparqsim validate``: the papers' tables beside ours, with the error of each number."""

from __future__ import annotations

import importlib

import click

from architectures.registry import MACHINES
from scripts.output import console
from sparqsim_base import InputError

# What is checked beside the machines, whose validations are in their rows of the registry.
PARTS = {
    "dram": "scripts.validation.dram:command",
    "systolic": "scripts.validation.systolic:command",
}


def validations() -> dict[str, str]:
    """Name to ``module:command`` of every validation there is."""
    machines = {name: row[1] for name, row in MACHINES.items() if row[1]}
    return machines | PARTS


def load(name: str) -> click.Command:
    """The command that validates one machine or part.

    Raises
    ------
    InputError
        If there is none of that name.
    """
    known = validations()
    if name not in known:
        raise InputError(f"there is no validation {name!r}; there is {', '.join(known)}")
    module, attribute = known[name].split(":")
    command: click.Command = getattr(importlib.import_module(module), attribute)
    return command


class ValidateGroup(click.Group):
    """Sub-commands from the registry, imported when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(validations())

    def get_command(self, ctx: click.Context, name: str) -> click.Command:
        return load(name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Validations"):
            formatter.write_dl(
                [(name, load(name).get_short_help_str(80)) for name in validations()]
            )


@click.group(cls=ValidateGroup, invoke_without_command=True)
@click.pass_context
def command(context: click.Context) -> None:
    """Hold the papers' tables beside ours: all of them, or one."""
    if context.invoked_subcommand is None:
        for name in validations():
            console().rule(name)
            load(name).main(args=[], prog_name=f"sparqsim validate {name}", standalone_mode=False)
