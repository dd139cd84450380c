"""Is a Dask cluster another place to run the same points? A real scheduler and two workers on
loopback, one of them killed: the same bytes as here, nothing lost, nothing twice."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sweep.sweeps import as_toml, files, started, toys

import sparqsim
from sparqsim.base import InputError

pytest.importorskip("distributed", reason="needs the extra `dask`")
pytestmark = pytest.mark.slow


class Cluster:
    """A scheduler and its workers, each a process of its own."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "scheduler.json"
        self.scheduler = self._start("scheduler", "--host", "127.0.0.1", "--port", "0")
        deadline = time.monotonic() + 60
        while not self.file.exists() or not self.file.read_text():
            assert time.monotonic() < deadline and self.scheduler.poll() is None
            time.sleep(0.1)
        self.address = json.loads(self.file.read_text())["address"]
        self.workers = [self._start("worker", "--nthreads", "1", "--no-nanny") for _ in range(2)]

    def _start(self, what: str, *options: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", f"distributed.cli.dask_{what}", "--no-dashboard",
             "--scheduler-file", str(self.file), *options],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def stop(self) -> None:
        for process in (*self.workers, self.scheduler):
            process.kill()
            process.wait()


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    made = Cluster(tmp_path)
    yield made
    made.stop()


def test_a_cluster_that_loses_a_worker_gives_the_same_bytes(
    cluster: Cluster, tmp_path: Path
) -> None:
    """One of two workers is killed once points are stored; a point that ends its process whenever
    it is run is a failure, and so are those that refuse or break."""
    sweep = toys({"from": 1, "to": 150, "step": 1}, busy_ms=20.0, how=["fine", "refused", "die"])
    sweep["block"][0]["where"] = ["how == 'fine' or size == 5"]
    command = [sys.executable, "-c", RUN, json.dumps(sweep), str(tmp_path / "far"), cluster.address]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    while not files(tmp_path / "far"):
        assert process.poll() is None
        time.sleep(0.1)
    cluster.workers[0].kill()
    _, told = process.communicate()
    assert process.returncode == 0, told
    far = sparqsim.open_store(tmp_path / "far")
    assert sorted(far.column("cycles")) == list(range(1, 151))
    assert [row.message for row in far.failed if "ended" in row.message] == [
        "the process that ran it ended twice: signal 9"
    ]
    sweep["block"][0]["machine"]["how"] = ["fine", "refused"]
    sparqsim.sweep(sweep, tmp_path / "here", workers=0)
    here, there = files(tmp_path / "here"), files(tmp_path / "far")
    assert here.items() <= there.items() and len(there) == len(here) + 1


RUN = """
import json, sys, sparqsim
if __name__ == "__main__":
    sparqsim.sweep(json.loads(sys.argv[1]), sys.argv[2], scheduler=sys.argv[3])
"""


def test_a_scheduler_that_ends_is_told_of(cluster: Cluster, tmp_path: Path) -> None:
    """With what to do; what is stored is kept."""
    file = as_toml(toys({"from": 1, "to": 2000, "step": 1}, busy_ms=20.0), tmp_path / "toys.toml")
    process = started(file, tmp_path / "store", "--scheduler", cluster.address)
    while not (tmp_path / "store").exists() or not files(tmp_path / "store"):
        assert process.poll() is None
        time.sleep(0.1)
    cluster.scheduler.kill()
    _, told = process.communicate()
    assert process.returncode == 2 and "the Dask scheduler is gone" in told
    assert files(tmp_path / "store")


def test_somebody_else_answers(monkeypatch) -> None:
    """One who says nothing, or is no scheduler, is not waited for."""
    monkeypatch.setattr("sparqsim.scripts.sweep.cluster.ANSWER_SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"tcp://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(InputError, match=f"no Dask scheduler answers at {address}: nothing"):
            sparqsim.sweep(toys(1), "unused", scheduler=address)


def test_nobody_answers() -> None:
    """An error message within seconds."""
    with pytest.raises(InputError, match=r"no Dask scheduler answers at tcp://127.0.0.1:9"):
        sparqsim.sweep(toys(1), "unused", scheduler="tcp://127.0.0.1:9")
