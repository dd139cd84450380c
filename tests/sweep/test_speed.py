"""Does a large sweep end whole, with memory that does not grow? Times: benchmarks/sweep.py."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from sweep.sweeps import started

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


def run(file: Path, store: Path, *options: str) -> int:
    """The largest memory of a sweep's parent in KiB."""
    process, most = started(file, store, *options), 0
    while process.poll() is None:
        lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
        most = max([most, *(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))])
        time.sleep(0.05)
    assert process.returncode == 0, process.communicate()
    return most


def test_ten_thousand_points(tmp_path: Path) -> None:
    """All 10,044 EIE points are stored, and the parent's memory is that of a sweep of a tenth."""
    file = tmp_path / "eie.toml"
    file.write_text(eie(28))
    small = run(file, tmp_path / "small", "--workers", "2")
    file.write_text(eie(279))
    large = run(file, tmp_path / "large", "--workers", "2")
    points = sparqsim.open_store(tmp_path / "large")
    assert len(points) == 10_044 and not points.failed
    assert large < 1.1 * small
