"""``sparqsim machines``: what there is, and the datasheet of each with its sources."""

from __future__ import annotations

import click
from rich.markup import escape

from sparqsim.architectures import presets
from sparqsim.architectures.registry import get_machine, installed, machine_names
from sparqsim.base import InputError
from sparqsim.scripts.output import console, json_option, table, write_json


@click.command()
@click.argument("name", required=False)
@click.option("--preset", metavar="NAME", help="Of a configuration that ships with Sparqsim.")
@json_option
def command(name: str | None, preset: str | None, json_path: str | None) -> None:
    """The machines there are, or the datasheet of one in its default configuration.

    NAME is a machine of the list, or a file my_machine.py.
    """
    if name is None:
        if preset is not None:
            raise InputError(f"--preset {preset} needs the name of its machine before it")
        listed = {each: get_machine(each).title for each in machine_names()}
        broken = {}
        for each, offered in installed().items():
            try:
                listed[each] = f"{get_machine(each).title} ({offered.value})"
            except InputError as error:
                broken[each] = str(error)
        if json_path:
            write_json(listed, json_path)
        if json_path != "-":
            rows = table("Machines", ("name", "what it is"), ())
            for each, title in listed.items():
                rows.add_row(each, title)
            console().print(rows)
            for message in broken.values():
                console().print(escape(message))
        return
    machine, title = get_machine(name), get_machine(name).title
    configured = machine()
    if preset is not None:
        configured = presets.load(preset, machine.name)
        title = f"{title}: {presets.get(preset).title}"
    figures = configured.datasheet()
    if json_path:
        write_json([vars(figure) for figure in figures], json_path)
    if json_path != "-":
        rows = table(title, ("", "value", "basis", "source"), ())
        for figure in figures:
            rows.add_row(figure.name, figure.value, figure.basis.value, figure.source)
        console().print(rows)
