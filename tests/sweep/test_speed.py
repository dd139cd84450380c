"""Does a large sweep end whole, with memory that does not grow? Times: benchmarks/sweep.py."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from sweep.sweeps import as_toml, started, toys

import sparqsim

pytestmark = pytest.mark.slow


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
    """All 10,044 points are stored, and the parent's memory is that of a sweep of a tenth: whatever
    the machine, for the parent sees nothing of what its processes run."""
    waits = [k / 1e6 for k in range(36)]
    most = []
    for sizes in (28, 279):
        sweep = toys({"from": 1, "to": sizes, "step": 1}, busy_ms=waits)
        file = as_toml(sweep, tmp_path / f"{sizes}.toml")
        most.append(run(file, tmp_path / str(sizes), "--workers", "2"))
        points = sparqsim.open_store(tmp_path / str(sizes))
        assert len(points) == sizes * len(waits) and not points.failed
    small, large = most
    assert large < 1.1 * small
