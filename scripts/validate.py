"""``sparqsim validate``: the papers' tables beside ours, with the error of each number."""

from __future__ import annotations

import importlib
import pkgutil

import click

from sparqsim.base import InputError
from sparqsim.scripts import validation
from sparqsim.scripts.output import Differs, check_differences, console


def validations() -> tuple[str, ...]:
    """Every validation there is: a module of :mod:`sparqsim.scripts.validation` each."""
    found = [each.name for each in pkgutil.iter_modules(validation.__path__)]
    return tuple(name.replace("_", "-") for name in found if not name.startswith("_"))


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
    module = importlib.import_module(f"{validation.__name__}.{name.replace('-', '_')}")
    command: click.Command = module.command
    return command


class ValidateGroup(click.Group):
    """A sub-command a validation, imported when it is asked for."""

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
    """Hold the papers' tables beside ours: all of them, or one.

    Exit code 1 where a number that must agree does not.
    """
    if context.invoked_subcommand is None:
        found = []
        for name in validations():
            console().rule(name)
            try:
                load(name).main(
                    args=[], prog_name=f"sparqsim validate {name}", standalone_mode=False
                )
            except Differs as difference:
                found.append(difference.message)
        check_differences("validate", found)
