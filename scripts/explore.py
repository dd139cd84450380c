"""``sparqsim explore``: a page on which machine, recipe, batch, bandwidth and context are turned.

Every combination is simulated beforehand, from shapes where the time does not depend on the
numbers; the page holds what came of each, as a table for who runs no script.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

import click
import msgspec

from sparqsim.architectures.machine import Machine
from sparqsim.architectures.network import run_network
from sparqsim.base import InputError, check_can_write
from sparqsim.scripts.compare import chosen_machines
from sparqsim.scripts.explore_page import Explored, Model, explore_page
from sparqsim.scripts.output import PatientBar, console, json_option, refuse_twice, write_json
from sparqsim.simulator.pages import write
from sparqsim.simulator.pages.charts import with_unit
from sparqsim.simulator.report import NetworkReport
from sparqsim.workloads.layers import MatMul
from sparqsim.workloads.recipes import get as get_recipe
from sparqsim.workloads.work import Network, load

MOST_POINTS = 3000
MOST_VALUE = 1_000_000_000  # of a batch, a context or a bandwidth


def _numbers(kind: type, least: float) -> Any:
    """A callback that reads ``1,2,4``."""

    def read(_: click.Context, option: click.Parameter, text: str | None) -> list[Any]:
        found = []
        for part in text.split(",") if text is not None else []:
            try:
                value = kind(part)
            except ValueError:
                value = None
            if value is None or not least <= value <= MOST_VALUE:
                raise InputError(
                    f"{option.opts[0]} must be numbers from {least:g} to {MOST_VALUE:,} with "
                    f"commas between, got {text!r}"
                )
            found.append(value)
        if len(set(found)) < len(found):
            raise InputError(f"{option.opts[0]} names a number twice, got {text!r}")
        return found

    return read


def _page(_: click.Context, __: click.Parameter, path: str) -> str:
    if path == "-":
        raise InputError("the page cannot go to the terminal; name a file OUT.html")
    check_can_write(path)
    return path


@click.command("explore")
@click.argument("output", metavar="OUT.html", callback=_page)
@click.argument("work", metavar="WORK")
@click.option("--machines", required=True, metavar="A,B,...", help="Machines, as compare has them.")
@click.option("--recipe", "recipes", multiple=True, metavar="FILE|NAME",
              help="A recipe for all machines; else each machine's own.")  # fmt: skip
@click.option("--batch", callback=_numbers(int, 1), metavar="1,4,16", help="Batches.")
@click.option("--context", callback=_numbers(int, 1), metavar="128,1024",
              help="Decode one token that attends to so many.")  # fmt: skip
@click.option("--bandwidth", callback=_numbers(float, 0.001), metavar="0.5,1,2", default="0.5,1,2",
              show_default=True, help="Times each machine's own DRAM bandwidth.")  # fmt: skip
@json_option
def command(
    output: str,
    work: str,
    machines: str,
    recipes: tuple[str, ...],
    batch: list[int],
    context: list[int],
    bandwidth: list[float],
    json_path: str | None,
) -> None:
    """Simulate a grid of choices and write a page on which they are turned."""
    refuse_twice({"OUT.html": output, "--json": json_path})
    chosen = chosen_machines(machines)
    for recipe in recipes:
        get_recipe(recipe)
    images_of: list[int | None] = [*batch] or [None]
    tokens_of: list[int | None] = [*context] or [None]
    grid = list(product(images_of, tokens_of, bandwidth, recipes or ("",), chosen))
    if len(grid) > MOST_POINTS:
        raise InputError(
            f"the grid has {len(grid):,} points; give fewer values, at most {MOST_POINTS:,} points"
        )
    points: list[Explored] = []
    with PatientBar() as bar:
        networks: dict[Any, Network] = {}
        for number, (images, tokens, factor, recipe, label) in enumerate(grid):
            machine = chosen[label]
            bar(f"{label}, {factor:g} times the bandwidth", number, len(grid))
            key = (images, tokens, machine.needs_numbers)
            if key not in networks:
                networks[key] = load(
                    work, batch=images, context=tokens, numbers=machine.needs_numbers
                )
            points += _explored(
                machine, label, networks[key], recipe, images, tokens, factor, bandwidth
            )
    if not any(point.seconds for point in points):
        why = dict.fromkeys(point.why for point in points)
        raise InputError(f"none of these machines runs {work}: {'; '.join(why)}")
    models = [_model(network, tokens) for (_, tokens, _), network in networks.items()]
    written = write(explore_page(work, points, _distinct(models)), output)
    if json_path:
        write_json(points, json_path)
    if json_path != "-":
        _tell(points, str(written))


def _explored(
    machine: Machine,
    label: str,
    network: Network,
    recipe: str,
    batch: int | None,
    context: int | None,
    factor: float,
    factors: Sequence[float],
) -> Iterator[Explored]:
    """A point; none where the bandwidth cannot be turned and another value stands for it."""
    configured = machine
    own = machine.bandwidth()
    if own is None or factor != 1:
        try:
            if own is None:
                raise InputError("no DRAM is modelled")
            configured = machine.resized(bandwidth=own * factor)
        except InputError:
            if factor != (1 if 1 in factors else factors[0]):
                return
            factor = 1.0
    at: dict[str, Any] = {
        "machine": label,
        "recipe": recipe or "its own",
        "batch": batch,
        "context": context,
        "bandwidth": factor,
    }
    try:
        report = run_network(configured, network, recipe=recipe or None, verify=False)
    except InputError as error:
        yield Explored(**at, why=str(error))
        return
    if not report.runs:
        yield Explored(**at, why=report.refused[0].why)
        return
    yield _point(report, at)


def _point(report: NetworkReport, at: dict[str, Any]) -> Explored:
    totals = report.totals
    moved = None
    if totals.dram_read_bits is not None and totals.dram_written_bits is not None:
        moved = (totals.dram_read_bits + totals.dram_written_bits) / 8
    longest = max(report.runs, key=lambda row: row.report.seconds * row.repeat)
    bounds: dict[str, float] = {}
    for row in report.runs:
        found = row.report
        bounds[found.bound_by] = bounds.get(found.bound_by, 0.0) + found.seconds * row.repeat
    return Explored(
        **(at | {"recipe": report.recipe}),
        seconds=totals.seconds,
        energy_pj=totals.energy.total_pj,
        macs=totals.effectual_macs,
        dram_bytes=moved,
        utilization=totals.utilization,
        bound_by=max(bounds, key=bounds.__getitem__),
        roof=longest.report.roof,
        layers_run=totals.layers,
        layers_of_network=totals.layers_of_network,
    )


def _model(network: Network, context: int | None) -> Model:
    """A model's parameters, and the numbers of its cache that a token reads."""
    model = network.model
    cached = 0
    if context is not None:
        cached = sum(
            layer.k * layer.n * layer.batch * layer.repeat
            for layer in model.layers
            if isinstance(layer, MatMul)
        )
    return Model(name=model.name, parameters=model.parameters, cached=cached, context=context)


def _distinct(models: Sequence[Model]) -> list[Model]:
    return list({msgspec.json.encode(each): each for each in models}.values())


def _tell(points: Sequence[Explored], written: str) -> None:
    ran = [point for point in points if point.seconds]
    most = max(point.layers_run for point in ran)
    best = min((p for p in ran if p.layers_run == most), key=lambda point: point.seconds)
    fewer = sum(point.layers_run < most for point in ran)
    told = f" ({fewer} run fewer than its {most} layers)" if fewer else ""
    screen = console()
    screen.print(
        f"{len(ran)} of {len(points)} points simulated; the fastest takes "
        f"{with_unit(best.seconds, 's')}: {best.words}{told}",
        markup=False,
    )
    screen.print(f"wrote {written}", markup=False)
