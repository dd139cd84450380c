"""``sparqsim diff``: two reports side by side, what changed, and why."""

from __future__ import annotations

from typing import Any

import click
from rich.markup import escape

from sparqsim.base import InputError
from sparqsim.scripts.output import console, json_option, real_path, table, write_json
from sparqsim.simulator.differences import Difference, Measure, differences, place_of, unshared
from sparqsim.simulator.pages.charts import with_unit
from sparqsim.simulator.saved import read_report

MOST_LAYERS = 24  # of a network, those whose time changed most
MOST_STEPS = 12  # of a critical path


@click.command("diff")
@click.argument("before", metavar="A.json")
@click.argument("after", metavar="B.json")
@json_option
def command(before: str, after: str, json_path: str | None) -> None:
    """Compare two reports that run or compare wrote with --json: B against A.

    What was configured differently, what changed, and from their critical paths why.
    """
    for given in (before, after):
        if json_path not in (None, "-") and real_path(given) == real_path(json_path):
            raise InputError(f"--json would write over the report {given}; name another file")
    reports = read_report(before), read_report(after)
    found = differences(*reports)
    if json_path:
        write_json(found, json_path)
    if json_path != "-":
        for each in found:
            show_difference(each)
        for names, where in zip(unshared(*reports), "AB", strict=True):
            if names:
                console().print(escape(f"only {where} has: {', '.join(names)}"))


def show_difference(found: Difference) -> None:
    """Print a difference: its reason first, then the tables that it rests on."""
    screen = console()
    screen.print(f"[bold]A: {escape(found.before)}    B: {escape(found.after)}[/bold]")
    screen.print(escape(f"B {found.why}\n"))
    fields = table("Asked differently", ("field", "A", "B"), ())
    for field in found.fields:
        fields.add_row(field.name, _value(field.before), _value(field.after))
    if found.fields:
        screen.print(fields)
    else:
        screen.print("work, machine, recipe and versions are the same")
    screen.print()
    _show_measures("What came of it", found.measures)
    if found.steps:
        steps = table("Critical path", ("where",), ("A", "B", "change"))
        for step in found.steps[:MOST_STEPS]:
            steps.add_row(
                place_of(step),
                with_unit(step.before_s, "s"),
                with_unit(step.after_s, "s"),
                _signed(step.change_s),
            )
        screen.print(steps)
        screen.print()
    energies = [measure for measure in found.energy if measure.before or measure.after]
    _show_measures("Energy by part (pJ)", energies)
    _show_layers(found)


def _show_measures(title: str, measures: list[Measure]) -> None:
    listed = table(title, ("",), ("A", "B", "B / A"))
    for each in measures:
        ratio = "–"
        if each.before and each.after is not None:
            ratio = f"{each.after / each.before:.4g}"
        listed.add_row(each.name, _number(each.before), _number(each.after), ratio)
    screen = console()
    screen.print(listed)
    screen.print()


def _show_layers(found: Difference) -> None:
    if not found.layers:
        return
    changed = [each for each in found.layers if each.change_s]
    changed.sort(key=lambda each: -abs(each.change_s))
    shown = changed[:MOST_LAYERS]
    screen = console()
    if not changed:
        screen.print(f"No layer's time changed, of {len(found.layers)}")
    title = f"Layers whose time changed: {len(changed)} of {len(found.layers)}"
    listed = table(title, ("layer", "why"), ("A", "B"))
    for each in shown:
        name = each.after.rpartition(" on ")[0]
        seconds = each.seconds
        listed.add_row(
            name,
            each.why,
            with_unit(seconds.before or 0.0, "s"),
            with_unit(seconds.after or 0.0, "s"),
        )
    if changed:
        screen.print(listed)
    if len(changed) > len(shown):
        screen.print(f"and {len(changed) - len(shown)} more; --json has them all")
    for names, where in ((found.only_before, "A"), (found.only_after, "B")):
        if names:
            screen.print(escape(f"only {where} runs: {', '.join(names)}"))


def _value(value: Any) -> str:
    return "–" if value is None else str(value)


def _signed(seconds: float) -> str:
    return f"{'+' if seconds > 0 else '-' if seconds < 0 else ''}{with_unit(abs(seconds), 's')}"


def _number(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:,}" if isinstance(value, int) else f"{value:.6g}"
