"""Start the guard: a module of ours run on something we do not trust, within limits."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Literal

import msgspec

from sparqsim.base import printable
from sparqsim.scripts.grade import guard

GRACE_SECONDS = 30  # for the guard to start, and to end what was left behind
# What a child needs of the environment. The lecturer's seed is not among it.
KEPT = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "NUMBA_CACHE_DIR", "XDG_CACHE_HOME")


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What a submission may take."""

    seconds: float = 120.0  # kernels may have to be compiled first
    memory_bytes: int = 4 * 2**30
    file_bytes: int = 64 * 2**20
    processes: int = 4


class End(msgspec.Struct, frozen=True):
    """How a guarded process ended; ``said`` is the end of its standard error."""

    how: Literal["exit", "signal", "time", "processes", "lost"]
    code: int | None = None
    said: str = ""

    def in_words(self, limits: Limits) -> str:
        """Why it gave no answer."""
        last = [line for line in self.said.splitlines() if line.strip()]
        told = f": {printable(last[-1], 200)}" if last else ""
        return {
            "exit": f"it ended with code {self.code}{told}",
            "signal": f"it was ended by signal {-(self.code or 0)}{told}",
            "time": f"it was still running after {limits.seconds:g} s",
            "processes": f"it started more than {limits.processes} processes",
            "lost": "it ended the process that watched over it",
        }[self.how]


def run_guarded(module: str, arguments: list[str], folder: Path, limits: Limits) -> End:
    """Run ``python -m module arguments`` in a folder, within limits."""
    environment = {name: os.environ[name] for name in KEPT if name in os.environ}
    environment.setdefault("XDG_CACHE_HOME", os.path.expanduser("~/.cache"))  # compiled kernels
    environment |= {name: str(folder) for name in ("HOME", "TMPDIR")}
    environment |= {
        "SPARQSIM_MEMORY_LIMIT": str(limits.memory_bytes),
        "OPENBLAS_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
        "NUMBA_NUM_THREADS": "1",
    }
    # What is left when a submission kills the guard becomes a child of this process.
    before = set(guard.descendants(os.getpid()))
    guard.prctl(guard.SUBREAPER, 1)
    # -P: a file that was left in the folder must not be imported in the place of ours.
    python = [sys.executable, "-P", "-m"]
    told = msgspec.json.encode(limits).decode()
    try:
        found = subprocess.run(
            [*python, guard.__name__, told, "--", *python, module, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=folder,
            env=environment,
            start_new_session=True,
            timeout=limits.seconds + GRACE_SECONDS,
        )
        return msgspec.json.decode(found.stdout, type=End)
    except (subprocess.TimeoutExpired, msgspec.MsgspecError):
        guard.end_all(before)
        return End("lost")
    finally:
        guard.prctl(guard.SUBREAPER, 0)
