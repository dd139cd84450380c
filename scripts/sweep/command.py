"""``sparqsim sweep``: the points of a file: run, stored, taken up again where they were left."""

from __future__ import annotations

import os
import shlex
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import click

from sparqsim.base import InputError, check_can_write
from sparqsim.scripts.output import Differs, console, refuse_early, table
from sparqsim.scripts.run import all_cores
from sparqsim.scripts.sweep.file import SCHEMA, Sweep, load, shipped
from sparqsim.scripts.sweep.watch import Watch, as_measured, varying

SHOWN = 8  # points of a dry run


def _schema(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted:
        click.echo(SCHEMA.read_text(encoding="utf-8"), nl=False)
        context.exit()


def _listed(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted:
        sweeps = table("Sweeps that ship with Sparqsim", ("name", "what"), ())
        for name in shipped():
            sweeps.add_row(name, load(name).file.title)
        console().print(sweeps)
        context.exit()


@click.command("sweep")
@click.argument("file")
@click.option("--store", metavar="DIR", help="Of the results.  [default: out/NAME]")
@click.option("--workers", type=click.IntRange(0), help="Processes; all cores by default.")
@click.option("--scheduler", metavar="tcp://HOST:PORT", help="Of a running Dask cluster.")
@click.option("--local-cluster", type=click.IntRange(1), metavar="N",
              help="Run over a Dask cluster of N workers made here.")  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Say what would be run.")
@click.option("--limit", type=click.IntRange(1), metavar="N", help="Run at most N points now.")
@click.option("--retry-failed", is_flag=True, help="Run points again that failed.")
@click.option("--figures", metavar="DIR", help="Draw the figures of the file.")
@click.option("--page", metavar="FILE", callback=refuse_early, help="Write the store as one page.")
@click.option("--csv", "csv_path", metavar="FILE|-", callback=refuse_early, help="Write a table.")
@click.option("--parquet", metavar="FILE", callback=refuse_early, help="Write a Parquet table.")
@click.option("--schema", is_flag=True, is_eager=True, expose_value=False, callback=_schema,
              help="Print the JSON schema of a sweep file, for editors.")  # fmt: skip
@click.option("--list", is_flag=True, is_eager=True, expose_value=False, callback=_listed,
              help="List the sweeps that ship with Sparqsim.")  # fmt: skip
def command(file: str, **given: Any) -> None:
    """Run the points of FILE that are not stored yet; FILE may be the name of a shipped sweep.

    It may be stopped at any moment, and goes on where it was when it is started again.
    """
    loaded = load(file)
    if given["scheduler"] and given["local_cluster"]:
        raise InputError("give --scheduler or --local-cluster, not both")
    if (given["scheduler"] or given["local_cluster"]) and given["workers"] is not None:
        raise InputError("--workers changes nothing for a cluster, which has its own; leave it out")
    store = Path(given["store"] or Path("out") / loaded.name)
    if given["dry_run"]:
        _dry_run(loaded, store, given)
        return
    _run(loaded, store, file, given)


def _dry_run(loaded: Sweep, store: Path, given: dict[str, Any]) -> None:
    """Say how many points there are, how many are stored, and show a few."""
    from sparqsim.scripts.sweep.plan import Plan
    from sparqsim.scripts.sweep.runner import pending
    from sparqsim.scripts.sweep.store import POINTS, Store

    screen = console()
    if loaded.file.search is not None:
        search = loaded.file.search
        screen.print(
            f"a search by {search.method}: {search.trials:,} trials; its points follow from what "
            "it finds"
        )
        return
    plan = Plan(loaded)
    left = plan.numbers
    if (store / POINTS).is_dir():
        with Store(store) as opened:
            left = pending(plan, opened, given["retry_failed"])
    screen.print(
        f"{len(plan):,} points, {len(plan) - len(left):,} of them stored in {store}; "
        f"{plan.excluded:,} excluded by constraints, {plan.doubled:,} double"
    )
    left = left[: given["limit"]]
    some = [point.values for point in plan.points(left[:SHOWN])]
    names = varying(some)
    if names:
        shown = table(f"The first of {len(left):,} points to be run", tuple(names), ())
        for values in some:
            shown.add_row(*(str(values.get(name, "")) for name in names))
        screen.print(shown)


def _run(loaded: Sweep, store: Path, file: str, given: dict[str, Any]) -> None:
    from sparqsim.scripts.sweep.api import Workers, run
    from sparqsim.scripts.sweep.store import Store

    for path in (given["page"], given["csv_path"], given["parquet"]):
        if path not in (None, "-"):
            check_can_write(path)
    workers = all_cores() if given["workers"] is None else given["workers"]
    try:
        with (
            Workers(workers, given["scheduler"], given["local_cluster"]) as hands,
            Store(store, create=True) as opened,
        ):
            watch, keys = run(
                loaded, opened, hands, limit=given["limit"], retry_failed=given["retry_failed"]
            )
            counts = opened.index.counted(sorted(keys))
    except KeyboardInterrupt:
        again = ["sparqsim", "sweep", file]
        again += ["--store", given["store"]] if given["store"] else []
        click.echo(
            f"\nstopped; what was finished is kept in {store}. To go on: {shlex.join(again)}",
            err=True,
        )
        sys.stderr.flush()
        if given["local_cluster"]:
            os._exit(130)  # what Dask does at the end of a process takes seconds
        sys.exit(130)
    if given["csv_path"] != "-":
        _summary(store, watch, counts)
    _write(loaded, store, keys, given)
    if watch.differing:
        raise Differs(f"outputs of {watch.differing:,} points differ from the reference")


def _summary(store: Path, watch: Watch, counts: Counter[str]) -> None:
    """Print what was done, and the best points of this run."""
    screen = console()
    if watch.best:
        names = varying([record.values for _, record in watch.best])
        direction = "least" if watch.less else "most"
        best = table(f"{direction} {watch.measure}, of this run", tuple(names), (watch.measure,))
        for value, record in watch.best:
            cells = [str(record.values.get(name, "")) for name in names]
            best.add_row(*cells, f"{as_measured(value, watch.less):.4g}")
        screen.print(best)
        screen.print()
    screen.print(
        f"{watch.done:,} points run, {watch.failed:,} of them failed; {counts['done']:,} of this "
        f"sweep are stored in {store}"
    )
    if counts["failed"]:
        screen.print(
            f"{counts['failed']:,} points of it failed (sparqsim plot {store} --failed lists them)"
        )


def _write(loaded: Sweep, store: Path, keys: frozenset[str], given: dict[str, Any]) -> None:
    """Write what was asked for."""
    if not any(given[name] for name in ("csv_path", "parquet", "figures", "page")):
        return
    from sparqsim.scripts.sweep.api import open_store

    points = open_store(store, keys)
    if given["csv_path"]:
        points.csv(given["csv_path"])
    if given["parquet"]:
        points.parquet(given["parquet"])
    if given["figures"]:
        from sparqsim.scripts.sweep.plots import draw_all

        draw_all(points, loaded, given["figures"])
    if given["page"]:
        from sparqsim.scripts.sweep.page import write_store_page

        write_store_page(points, given["page"], loaded.file.title)
