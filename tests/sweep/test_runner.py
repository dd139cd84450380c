"""Does a sweep survive what happens to it? Processes and parents that are killed, points that kill,
interruptions, two sweeps at once: nothing is lost or there twice, the bytes are the same."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from sweep.sweeps import as_toml, files, started, toys

import sparqsim
from sparqsim.scripts.sweep import runner
from sparqsim.scripts.sweep.file import load
from sparqsim.scripts.sweep.plan import Plan
from sparqsim.scripts.sweep.store import Store, decoded


def test_processes_give_the_bytes_that_one_gives(tmp_path: Path) -> None:
    """Points that refuse, break or end their process are failures beside the others; each point
    that ends its process was given a second process."""
    sweep = toys({"from": 1, "to": 12, "step": 1}, how=["fine", "refused", "error"])
    sparqsim.sweep(sweep, tmp_path / "one", workers=0)
    sweep["block"][0]["machine"]["how"].append("die")
    sweep["block"][0]["where"] = ["how != 'die' or size == 5"]
    file = as_toml(sweep, tmp_path / "toys.toml")
    process = started(file, tmp_path / "two", "--workers", "2")
    assert process.wait() == 0
    points, both = sparqsim.open_store(tmp_path / "two"), files(tmp_path / "two")
    assert len(points) == 12 and len(points.failed) == 25 and len(both) == 37
    assert files(tmp_path / "one").items() <= both.items()
    (died,) = [row for row in points.failed if "ended" in row.message]
    assert died.message == "the process that ran it ended twice: signal 9"


@pytest.mark.slow
def test_a_point_whose_process_is_killed_once_is_run_again(tmp_path: Path, monkeypatch) -> None:
    """It may not have been its doing."""
    killed: list[int] = []
    original = runner.Local._answer

    def answer(self, seat):
        if not killed:
            killed.append(seat.process.pid)
            os.kill(seat.process.pid, signal.SIGKILL)
        yield from original(self, seat)

    monkeypatch.setattr(runner.Local, "_answer", answer)
    points = sparqsim.sweep(toys(list(range(1, 9)), busy_ms=20.0), tmp_path, workers=2)
    assert killed and sorted(points.column("cycles")) == list(range(1, 9)) and not points.failed


def test_stretches_give_every_point_once() -> None:
    """However fast the workers are, each takes from its own stretch until it is empty."""
    rng = random.Random(0)
    for workers in (1, 2, 5):
        stretches = runner.Stretches(np.arange(1000), workers)
        given: list[int] = []
        while stretches:
            given += stretches.take(min(rng.randrange(workers), rng.randrange(workers)), 7)
        assert sorted(given) == list(range(1000))


def test_the_order_puts_shared_work_together() -> None:
    """Points that differ in timing alone follow each other, and so do those of a layer."""
    machine = {"name": "eie", "queue_slots": [4, 8, 16], "pes": [16, 64]}
    block = {"work": ["eie/nt-we", "eie/nt-wd"], "machine": machine, "verify": False}
    plan = Plan(load({"block": [block]}))
    points = list(plan.points(plan.arranged(plan.numbers)))
    found = [(point.work.name, point.fields["pes"]) for point in points]
    changes = sum(one != other for one, other in pairwise(found))
    assert len(found) == 12 and changes == 3


def test_sharing_changes_nothing(tmp_path: Path) -> None:
    """A point's report is the same alone and behind others that share its work."""
    machine = {"name": "eie", "queue_slots": [2, 8], "pes": [16, 64], "clock_hz": [4e8, 8e8]}
    block = {"work": "eie/nt-we", "machine": machine}
    together = {"block": [block]}
    sparqsim.sweep(together, tmp_path / "together", workers=0)
    alone = {**block, "machine": {**machine, "queue_slots": 8, "pes": 64, "clock_hz": 4e8}}
    points = sparqsim.sweep({"block": [alone]}, tmp_path / "alone", workers=0)
    (name, content), *_ = files(tmp_path / "alone").items()
    assert points.column("verified") == ["exact"]
    assert files(tmp_path / "together")[name] == content


def children(pid: int) -> list[int]:
    """Processes that a process has started."""
    path = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(each) for each in path.read_text().split()] if path.exists() else []


POINTS = 1200  # 24 s of work: more than fifty kills leave time for


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc to find processes")
def test_fifty_random_kills_lose_nothing(tmp_path: Path) -> None:
    """Parents and workers are killed at random moments of their work; every time the sweep is taken
    up again. At the end every point is there once, whole, with the bytes of an undisturbed run."""
    sweep = toys({"from": 1, "to": POINTS, "step": 1}, busy_ms=20.0)
    file = as_toml(sweep, tmp_path / "toys.toml")
    rng, kills, runs = random.Random(7), {"parent": 0, "worker": 0}, 0
    while sum(kills.values()) < 50:
        process = started(file, tmp_path / "store", "--workers", "2")
        runs += 1
        while not children(process.pid) and process.poll() is None:
            time.sleep(0.05)  # until it has workers
        while process.poll() is None and sum(kills.values()) < 50:
            time.sleep(rng.uniform(0.0, 0.5))
            workers = children(process.pid)
            if not workers or rng.random() < 0.25:
                kills["parent"] += process.poll() is None
                process.kill()
                break
            with contextlib.suppress(ProcessLookupError):
                os.kill(rng.choice(workers), signal.SIGKILL)
                kills["worker"] += 1
        process.communicate()
        broken = [name for name, content in files(tmp_path / "store").items()
                  if decoded(content) is None]  # fmt: skip
        assert broken == []
    process = started(file, tmp_path / "store", "--workers", "2", "--retry-failed")
    assert process.wait() == 0 and min(kills.values()) > 5, (kills, runs)
    points = sparqsim.open_store(tmp_path / "store")
    assert sorted(points.column("cycles")) == list(range(1, POINTS + 1)) and not points.failed
    quick = toys({"from": 1, "to": POINTS, "step": 300}, busy_ms=20.0)
    sparqsim.sweep(quick, tmp_path / "quick", workers=0)
    assert files(tmp_path / "quick").items() <= files(tmp_path / "store").items()


@pytest.mark.slow
def test_an_interrupted_sweep_ends_at_once_and_says_how_to_go_on(tmp_path: Path) -> None:
    """Within moments, with what is finished kept, and no process left."""
    file = as_toml(toys({"from": 1, "to": 500, "step": 1}, busy_ms=50.0), tmp_path / "toys.toml")
    process = started(file, tmp_path / "store", "--workers", "2")
    while len(files(tmp_path / "store")) < 20:
        time.sleep(0.1)
    workers = children(process.pid)
    start = time.monotonic()
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    _, told = process.communicate()
    assert time.monotonic() - start < 3.0  # of 25 s of work; a second where nothing else runs
    assert process.returncode == 130 and "To go on: sparqsim sweep" in told
    assert len(workers) == 2 and not any(Path(f"/proc/{pid}").exists() for pid in workers)
    kept = files(tmp_path / "store")
    assert len(kept) >= 20 and all(decoded(content) for content in kept.values())


@pytest.mark.slow
def test_two_sweeps_into_one_store_at_once(tmp_path: Path) -> None:
    """Both end well, and every point is there once."""
    first = as_toml(toys({"from": 1, "to": 120, "step": 1}, busy_ms=20.0), tmp_path / "a.toml")
    second = as_toml(toys({"from": 60, "to": 180, "step": 1}, busy_ms=20.0), tmp_path / "b.toml")
    both = [started(file, tmp_path / "store", "--workers", "1") for file in (first, second)]
    assert [process.wait() for process in both] == [0, 0]
    points = sparqsim.open_store(tmp_path / "store")
    assert sorted(points.column("cycles")) == list(range(1, 181)) and not points.failed
    with Store(tmp_path / "store") as store:
        assert store.index.counts() == {"done": 180} and store.index.broken == 0
