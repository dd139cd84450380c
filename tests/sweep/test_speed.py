"""Is a sweep fast where it must be? Judged by processor time, which other work hardly changes."""

from __future__ import annotations

import os
import resource
import time
from pathlib import Path

import pytest
from sweep.sweeps import as_toml, started, toys

import sparqsim

pytestmark = pytest.mark.slow

LAYERS = ("alex-6", "alex-7", "alex-8", "vgg-6", "vgg-7", "vgg-8", "nt-we", "nt-wd", "nt-lstm")


def eie(slots: int) -> str:
    """Table III's layers x 4 sizes of the array x so many queues."""
    names = ", ".join(f'"eie/{name}"' for name in LAYERS)
    return (
        f"[[block]]\nwork = [{names}]\nverify = false\n[block.machine]\nname = 'eie'\n"
        f"pes = [16, 32, 64, 128]\nqueue_slots = {{ from = 2, to = {1 + slots}, step = 1 }}\n"
    )


def run(file: Path, store: Path, *options: str) -> tuple[float, int]:
    """Processor seconds of a sweep and its workers, and the parent's largest memory in KiB."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    process, most = started(file, store, *options), 0
    while process.poll() is None:
        lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
        most = max([most, *(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))])
        time.sleep(0.05)
    assert process.returncode == 0, process.communicate()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime, most


def test_ten_thousand_points(tmp_path: Path) -> None:
    """10,044 EIE points, encoding included, in what two cores have in 60 s; taken up again when
    they are done in what one has in 2 s; the parent's memory is that of a sweep of a tenth."""
    file = tmp_path / "eie.toml"
    file.write_text(eie(28))
    _, small = run(file, tmp_path / "small", "--workers", "2")
    file.write_text(eie(279))
    seconds, large = run(file, tmp_path / "large", "--workers", "2")
    again, _ = run(file, tmp_path / "large", "--workers", "2")
    points = sparqsim.open_store(tmp_path / "large")
    print(f"{seconds:.1f} s, again {again:.2f} s, {small} and {large} KiB, load {os.getloadavg()}")
    assert len(points) == 10_044 and not points.failed
    assert large < 1.1 * small
    busy = os.getloadavg()[0] > 3  # other work takes caches and shares of a core
    assert seconds < 120 * (1.5 if busy else 1.0) and again < 2.0 * (1.5 if busy else 1.0)


def test_two_workers_do_twice_as_much(tmp_path: Path) -> None:
    """Of points of 50 ms at least 1.8 times one's, where two cores are free."""
    file = as_toml(toys({"from": 1, "to": 200, "step": 1}, busy_ms=50.0), tmp_path / "toys.toml")
    if os.getloadavg()[0] > 0.5 or (os.cpu_count() or 1) < 2:
        pytest.skip("two free cores are needed")
    took = []
    for workers in (1, 2):
        start = time.monotonic()
        run(file, tmp_path / str(workers), "--workers", str(workers))
        took.append(time.monotonic() - start)
        # A store of all points but none to be run: what does not grow with them.
        start = time.monotonic()
        run(file, tmp_path / str(workers), "--workers", str(workers))
        took[-1] -= time.monotonic() - start
    assert took[0] > 1.8 * took[1]
