"""The same products on Sparqsim, SCALE-Sim 3 and ZigZag, side by side in one run.

    python -m benchmarks.peers [--work cubes|resnet50|all] [--out docs]

Installs the two others from the package index into a virtual environment of their own
(``build/peers``). Each job is a process of its own, from its start to its end, so that processor
time and memory are all that a user pays for one answer. Jobs are the products 256^3 and 1024^3 and
those of ResNet-50's layers, on an array of 32 x 32 that keeps its weights. Prints the table; with
``--out`` writes the page ``background/peers.md`` and its numbers, ``data/peers.json``, after every
job, so that a run that is broken off leaves what it has.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import msgspec

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / "build" / "peers"
NEEDS = ("scalesim==3.0.0", "numpy<2.4", "zigzag-dse==3.9.1", "six")
TOOLS = ("sparqsim", "scale-sim", "zigzag")
SIDE = 32


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What a tool said of a product, and what that took.

    ``array`` are the cycles of the array alone, ``memory`` those with its memories; ``seconds`` of
    all processors and ``peak_mb`` are those of the whole process.
    """

    array: int
    memory: int
    seconds: float
    peak_mb: float


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """A product [M, K] x [K, N], how often ResNet-50 has it (0: it is none of its), the answers."""

    name: str
    m: int
    k: int
    n: int
    repeat: int
    answers: dict[str, Answer]


class Peers(msgspec.Struct, frozen=True, kw_only=True):
    """All jobs of a run, and where it ran."""

    date: str
    cores: int
    machine: str
    versions: dict[str, str]
    jobs: list[Job]

    @property
    def layers(self) -> list[Job]:
        """Those of ResNet-50."""
        return [job for job in self.jobs if job.repeat]


def installed() -> Path:
    """The Python of the peers' environment, which is made where it is missing."""
    python = VENV / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(VENV)], check=True)
    marker = VENV / "installed.json"
    if not marker.exists() or json.loads(marker.read_text()) != list(NEEDS):
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, *NEEDS], check=True)
        marker.write_text(json.dumps(NEEDS))
    return python


def measured(command: list[str]) -> Answer:
    """Run a process, and add its processor seconds and its most memory to what it printed."""
    with tempfile.TemporaryFile() as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.DEVNULL, cwd=ROOT)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise click.ClickException(f"{' '.join(command)} ended with {process.returncode}")
        out.seek(0)
        found: dict[str, Any] = json.loads(out.read())
    return Answer(
        array=found["array"],
        memory=found["memory"],
        seconds=used.ru_utime + used.ru_stime,
        peak_mb=used.ru_maxrss / 1e3,
    )


def ask(tool: str, sizes: tuple[int, int, int], python: Path) -> Answer:
    """One product on one tool."""
    numbers = [str(size) for size in sizes]
    if tool == "sparqsim":
        return measured([sys.executable, "-m", "benchmarks.peers", "--one", "x".join(numbers)])
    with tempfile.TemporaryDirectory() as folder:
        script = str(Path(__file__).with_name("peer_tools.py"))
        return measured([str(python), script, tool, *numbers, folder])


def one(sizes: str) -> dict[str, int]:
    """A product on Sparqsim: by the closed form of folds, and event by event with its memories."""
    from sparqsim.api import machine, run
    from sparqsim.architectures.arrays.folds import Charge, Dataflow, SystolicGrid
    from sparqsim.simulator.report import Report

    m, k, n = (int(size) for size in sizes.split("x"))
    grid = SystolicGrid(
        rows=SIDE, columns=SIDE, dataflow=Dataflow("ws"), skew=Charge.PER_FOLD, load=Charge.PER_FOLD
    )
    plain = machine("plain", rows=SIDE, columns=SIDE, dataflow="ws")
    report = run(plain, f"gemm:{sizes}", verify=False)
    assert isinstance(report, Report)
    return {"array": grid.folds(m, n, k).cycles, "memory": report.cycles}


def products() -> list[Job]:
    """The jobs, unanswered: two cubes, and the products of ResNet-50 that differ."""
    from sparqsim.workloads.work import load

    found = [
        Job(name=f"{side}^3", m=side, k=side, n=side, repeat=0, answers={}) for side in (256, 1024)
    ]
    counts: dict[tuple[int, int, int], tuple[str, int]] = {}
    for layer in load("resnet50", numbers=False).layers:
        gemm = layer.gemm()
        sizes = (gemm.m, gemm.k, gemm.n)
        name, seen = counts.get(sizes, (layer.name, 0))
        counts[sizes] = (name, seen + layer.repeat)
    return found + [
        Job(name=name, m=m, k=k, n=n, repeat=repeat, answers={})
        for (m, k, n), (name, repeat) in counts.items()
    ]


def answered(job: Job, python: Path) -> Job:
    """The job with the answers of all tools, one after the other."""
    sizes = (job.m, job.k, job.n)
    answers = {tool: ask(tool, sizes, python) for tool in TOOLS}
    return msgspec.structs.replace(job, answers=answers)


def line(job: Job) -> str:
    """A job's answers on a line."""
    parts = [f"{job.name:24} {job.m:6} {job.k:5} {job.n:5}"]
    for tool in TOOLS:
        each = job.answers[tool]
        parts.append(
            f"| {each.array:>11,} {each.memory:>11,} {each.seconds:7.1f} s {each.peak_mb:6,.0f} MB"
        )
    return " ".join(parts)


def versions() -> dict[str, str]:
    """Of the tools that ran."""
    from importlib.metadata import version

    shown = {need.split("==")[0]: need.split("==")[1] for need in NEEDS if "==" in need}
    return {"sparqsim": version("sparqsim")} | shown


def total(jobs: list[Job], tool: str, field: str) -> float:
    """A measure of a tool summed over jobs, the cycles of a layer as often as ResNet-50 has it."""
    counts = field in ("array", "memory") and len(jobs) > 1
    return sum(getattr(job.answers[tool], field) * (job.repeat if counts else 1) for job in jobs)


def _row(name: str, sizes: str, jobs: list[Job]) -> str:
    """A row of the page: cycles, and time and memory over ours."""
    cells = [name, sizes]
    ours = total(jobs, "sparqsim", "seconds")
    for tool in TOOLS:
        seconds = total(jobs, tool, "seconds")
        peak = max(job.answers[tool].peak_mb for job in jobs)
        ratio = "" if tool == "sparqsim" else f" ({seconds / ours:.1f}x)"
        cells += [
            f"{total(jobs, tool, 'array'):,.0f}",
            f"{total(jobs, tool, 'memory'):,.0f}",
            f"{seconds:.1f} s{ratio}",
            f"{peak:,.0f} MB",
        ]
    return f"| {' | '.join(cells)} |"


def page(found: Peers) -> str:
    """The page, every number in it from the run."""
    jobs, layers = found.jobs, found.layers
    equal = sum(abs(j.answers["sparqsim"].array - j.answers["scale-sim"].array) == 1 for j in jobs)
    ideal = sum(j.answers["zigzag"].array for j in jobs) / sum(
        j.answers["sparqsim"].array for j in jobs
    )
    heads = "".join(f" {tool}: array | with memory | CPU | peak |" for tool in TOOLS)
    rows = []
    for job in jobs:
        name = f"{job.name} ({job.repeat} times)" if job.repeat > 1 else job.name
        rows.append(_row(name, f"{job.m} x {job.k} x {job.n}", [job]))
    if layers:
        often = sum(job.repeat for job in layers)
        rows.append(_row(f"**these {often} layers of ResNet-50**", "", layers))
    tools = ", ".join(f"{name} {number}" for name, number in found.versions.items())
    there = {job.name for job in jobs}
    missing = [job.name for job in products() if job.name not in there]
    left_out = f"\nThe run was broken off before {', '.join(missing)}.\n" if missing else ""
    return f"""# Beside other simulators

The same matrix products on Sparqsim, SCALE-Sim 3 and ZigZag, an array of 32 x 32 that keeps its
weights. Made by `python -m benchmarks.peers --out docs` on {found.date}, on a shared machine of
{found.cores} cores ({found.machine}); {tools}.
Each answer is a process of its own: processor seconds and the most memory include its start and its
imports, and in brackets the time over Sparqsim's. *Array* are the cycles of the array alone, *with
memory* those with what each models around it. The last row counts the cycles of a layer as often as
the network has it, its answer once.

| product | M x K x N |{heads}
|---|---|{"--:|" * 12}
{chr(10).join(rows)}
{left_out}
## What the columns are

* **Array.** Sparqsim's closed form pays fill, drain and the load of the weights for every fold, as
  SCALE-Sim does: {equal} of {len(jobs)} products differ by the one cycle by which SCALE-Sim counts
  from 0. ZigZag's are the steps of an array that is always full, {100 * ideal:.0f} % of that.
* **With memory, Sparqsim.** The machine `plain`, event by event: tiles that a search chose, two
  halves to each buffer, a DRAM of 1024 bits a cycle; a fold's weights move in while the fold before
  it computes, so that fill and drain are paid once a tile.
* **With memory, SCALE-Sim.** The array's trace with prefetch of the first operands and stalls of a
  calculated bandwidth; folds one after the other; its Ramulator link was off.
* **With memory, ZigZag.** Its shipped `tpu_like` input (64 bits of DRAM a cycle) under the mapping
  that its search finds fastest: loading and unloading that computation does not hide.

## What each models that the others do not

| | Sparqsim | SCALE-Sim 3 | ZigZag |
|---|---|---|---|
| fill and drain of each fold | yes, or hidden by the next | yes | drain once |
| folds that overlap | yes | no | no folds: a steady state |
| waits and their causes | every firing | stall cycles, summed | stalls by port, in closed form |
| a DRAM with banks and rows | yes (`--dram-standard`) | with Ramulator | no |
| a search of mappings | tiles and order | no: the dataflow | loops over all memories |
| zeros, formats, outputs checked | yes | N:M of weights | no |
| energy | tables with sources | Accelergy | tables of its input |

Memories differ between the three, so *with memory* compares models, not merits.
"""


@click.command()
@click.option("--work", type=click.Choice(["cubes", "resnet50", "all"]), default="all")
@click.option("--out", type=click.Path(path_type=Path), help="Folder of the docs to write into.")
@click.option("--one", "single", hidden=True, metavar="MxKxN")
def main(work: str, out: Path | None, single: str | None) -> None:
    """Run every job on every tool."""
    if single:
        click.echo(json.dumps(one(single)))
        return
    python = installed()
    click.echo(f"{'product':24} {'M':>6} {'K':>5} {'N':>5} " + " ".join(
        f"| {tool}: array, with memory, CPU, peak" for tool in TOOLS))  # fmt: skip
    jobs: list[Job] = []
    for job in products():
        if work != "all" and bool(job.repeat) != (work == "resnet50"):
            continue
        jobs.append(answered(job, python))
        click.echo(line(jobs[-1]))
        if out:
            write(gathered(jobs), out)


def gathered(jobs: list[Job]) -> Peers:
    """The jobs with where and when they ran."""
    return Peers(
        date=datetime.now(UTC).date().isoformat(),
        cores=os.cpu_count() or 1,
        machine=platform.machine(),
        versions=versions(),
        jobs=jobs,
    )


def write(found: Peers, folder: Path) -> None:
    """Write the numbers and the page."""
    for part in ("data", "background"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    data = msgspec.json.format(msgspec.json.encode(found), indent=1) + b"\n"
    (folder / "data" / "peers.json").write_bytes(data)
    (folder / "background" / "peers.md").write_text(page(found), encoding="utf-8")


if __name__ == "__main__":
    main()
