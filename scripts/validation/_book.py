"""All validations: run each in a process, read its numbers, sum them up.

A folder gets ``index.html`` and ``index.md`` (the same page), ``validation.json`` (every number),
``tables/`` (what each command prints), ``data/`` (what it writes) and ``figures/``.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import os
import platform
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import click
import msgspec

from sparqsim.base import InputError, output_folder
from sparqsim.scripts.validation._evidence import (
    Evidence,
    Number,
    Statistics,
    by_quantity,
    numbers_of,
    statistics_of,
)

FAR = 0.15  # a number without a bound that differs by more does not support its claim


class Counted(msgspec.Struct, frozen=True, kw_only=True):
    """A table of a validation: its numbers, and their statistics by quantity."""

    title: str
    statistics: list[Statistics]
    numbers: list[Number]


class Produced(msgspec.Struct, frozen=True, kw_only=True):
    """A run of a validation: its tables, files and time; ``failed`` says why it has none.

    ``differs`` is the message of a command whose numbers must agree and do not.
    """

    name: str
    command: str
    about: str
    seconds: float
    cpu_seconds: float
    tables: list[Counted] = []
    figures: list[str] = []
    printed: str = ""
    differs: str = ""
    failed: str = ""


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """All numbers of one table of a validation; ``spearman`` is the least of its quantities.

    Tables are not summed up together: exact counts of thousands would hide a few ratios that miss.
    """

    validation: str
    table: str
    total: Statistics
    spearman: float | None


class Unsupported(msgspec.Struct, frozen=True, kw_only=True):
    """A number that does not support the claim it stands for."""

    validation: str
    table: str
    number: Number


class Book(msgspec.Struct, frozen=True, kw_only=True):
    """Everything: ``seconds`` is the time from start to end in ``jobs`` processes."""

    sparqsim: str
    python: str
    system: str
    jobs: int
    seconds: float
    summaries: list[Summary]
    unsupported: list[Unsupported]
    runs: list[Produced]


class Job(NamedTuple):
    """A run to be made: of which validation, its number there, and what it shows."""

    name: str
    number: int
    evidence: Evidence

    @property
    def stem(self) -> str:
        """Name of its files."""
        return self.name + (f"_{self.number + 1}" if self.number else "")


# -------------------------------------------------------------------------------------------- runs


def module_of(name: str) -> str:
    """The module of a validation."""
    return f"sparqsim.scripts.validation.{name.replace('-', '_')}"


def jobs_of(names: Sequence[str]) -> list[Job]:
    """The runs of validations, the long ones first."""
    found = [
        Job(name, number, evidence)
        for name in names
        for number, evidence in enumerate(importlib.import_module(module_of(name)).EVIDENCE)
    ]
    return sorted(found, key=lambda job: not job.evidence.long)


def produce(job: Job, folder: Path) -> Produced:
    """Run a validation's command and read what it wrote; a failure is a result."""
    module = importlib.import_module(module_of(job.name))
    arguments = [_short(each) for each in job.evidence.arguments]
    data, printed = folder / "data" / f"{job.stem}.json", folder / "tables" / f"{job.stem}.txt"
    figures = folder / "figures" / job.stem
    given = [*job.evidence.arguments, "--json", str(data)]
    given += ["--figures", str(figures)] if job.evidence.figures else []
    start, cpu = time.perf_counter(), time.process_time()
    differs = failed = ""
    tables: list[Counted] = []
    try:
        with printed.open("w", encoding="utf-8") as out, contextlib.redirect_stdout(out):
            differs = _invoke(module.command, given)
        tables = counted(msgspec.json.decode(data.read_bytes()), job.evidence)
    except (InputError, OSError, KeyError, msgspec.MsgspecError) as error:
        failed = str(error) or type(error).__name__
    except Exception:
        failed = traceback.format_exc(limit=-3)
    return Produced(
        name=job.name,
        command=" ".join(["sparqsim validate", job.name, *arguments]),
        about=inspect.cleandoc(module.__doc__ or ""),
        seconds=time.perf_counter() - start,
        cpu_seconds=time.process_time() - cpu,
        tables=tables,
        figures=[str(each.relative_to(folder)) for each in sorted(figures.glob("*.png"))],
        printed=str(printed.relative_to(folder)),
        differs=differs,
        failed=failed,
    )


def _short(argument: str) -> str:
    return Path(argument).name if os.sep in argument else argument


def _invoke(command: click.Command, arguments: list[str]) -> str:
    """Run a command quietly; return the message of numbers that differ."""
    from sparqsim.scripts.output import Differs

    try:
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere):
            command.main(args=arguments, standalone_mode=False)
    except Differs as difference:
        return difference.message
    return ""


def counted(content: dict[str, object], evidence: Evidence) -> list[Counted]:
    """The tables of a validation's JSON."""
    found = []
    for table in evidence.tables:
        numbers = numbers_of(content, table)
        found.append(Counted(title=table.title, statistics=by_quantity(numbers), numbers=numbers))
    return found


def make(
    names: Sequence[str], folder: Path, jobs: int, told: Callable[[Produced, int, int], None]
) -> Book:
    """Run all validations, ``jobs`` at a time, and sum up; ``told`` hears of each that is done."""
    for part in ("data", "tables", "figures"):
        output_folder(folder / part)
    start, waiting = time.perf_counter(), jobs_of(names)
    done: dict[tuple[str, int], Produced] = {}
    with _cores_shared(jobs), ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        running = {pool.submit(produce, job, folder): job for job in waiting}
        for future in as_completed(running):
            job = running[future]
            done[job.name, job.number] = future.result()
            told(done[job.name, job.number], len(done), len(waiting))
    return book([done[key] for key in sorted(done)], jobs, time.perf_counter() - start)


@contextlib.contextmanager
def _cores_shared(jobs: int) -> Iterator[None]:
    """Give each process started here its share of the cores.

    Threads of BLAS wait by spinning: more of them than cores take most of the time.
    """
    name = "OMP_NUM_THREADS"
    given = os.environ.get(name)
    os.environ.setdefault(name, str(max(1, len(os.sched_getaffinity(0)) // jobs)))
    try:
        yield
    finally:
        if given is None:
            del os.environ[name]


def book(runs: list[Produced], jobs: int, seconds: float) -> Book:
    """Sum up runs by table."""
    return Book(
        sparqsim=version("sparqsim"),
        python=platform.python_version(),
        system=f"{platform.system()} {platform.machine()}, {os.cpu_count()} processors",
        jobs=jobs,
        seconds=seconds,
        summaries=[summary(run.name, table) for run in runs for table in run.tables],
        unsupported=[
            Unsupported(validation=run.name, table=table.title, number=number)
            for run in runs
            for table in run.tables
            for number in table.numbers
            if unsupported(number)
        ],
        runs=runs,
    )


def summary(validation: str, table: Counted) -> Summary:
    """A table's numbers together."""
    ranks = [each.spearman for each in table.statistics if each.spearman is not None]
    return Summary(
        validation=validation,
        table=table.title,
        total=statistics_of(table.title, table.numbers, rank=False),
        spearman=min(ranks, default=None),
    )


def unsupported(number: Number) -> bool:
    """Whether a number missed its bound or, where it has none, is far off."""
    far = number.error is None or abs(number.error) > FAR
    return number.state == "missed" or (number.state == "shown" and far)
