"""``sparqsim scenarios``: questions with an answer that is measured, a figure and a paragraph."""

from __future__ import annotations

import textwrap

import click

from sparqsim.scripts.output import (
    WIDTH,
    PatientBar,
    console,
    json_option,
    refuse_folder,
    table,
    write_json,
)
from sparqsim.scripts.scenarios.catalogue import SCENARIOS, get_scenario
from sparqsim.scripts.scenarios.frame import answer, write


@click.command()
@click.argument("name", required=False)
@click.option("--out", metavar="DIR", callback=refuse_folder, default="out/scenarios",
              show_default=True, help="Folder for the figure and the data.")  # fmt: skip
@json_option
def command(name: str | None, out: str, json_path: str | None) -> None:
    """List the scenarios, or run one: its figure, its numbers, and what they say."""
    if name is None:
        if json_path:
            write_json(SCENARIOS, json_path)
        if json_path != "-":
            shown = table("", ("scenario", "question"), ())
            for each, question in SCENARIOS.items():
                shown.add_row(each, question)
            console().print(shown)
        return
    scenario = get_scenario(name)
    with PatientBar() as bar:
        found = scenario.measure(bar)
        bar("drawing", 1, 1)
        written = write(scenario, found, out)
    if json_path:
        write_json(answer(scenario, found), json_path)
    if json_path != "-":
        screen = console()
        screen.print(f"[bold]{scenario.title}[/bold]")
        screen.print(textwrap.fill(scenario.finding(found), WIDTH), markup=False)
        screen.print("\nwrote " + ", ".join(map(str, written)), markup=False)
