"""Run a command within limits and leave nothing of it behind.

    python -m sparqsim.scripts.grade.guard LIMITS -- COMMAND ...

The guard is a process between the grader and what it does not trust. It limits the command's
memory, files and processor time, watches the clock and the number of its processes, and in the end
kills whatever the command started, also what left its session: orphans become the guard's children
(a "subreaper", Linux). It prints one line of JSON, :class:`End`. This module imports only the
standard library, for it starts twice for every submission.

Limits are no sandbox: the command runs as the same user and may read, write and send what that
user may.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection

SUBREAPER, PDEATHSIG = 36, 1  # linux/prctl.h
POLL_SECONDS = 0.02
TAIL_BYTES = 2000  # of what the command said


def prctl(option: int, value: int) -> None:
    with contextlib.suppress(OSError, AttributeError):  # not Linux
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def _limit(limits: dict[str, float]) -> None:
    """In the child, before the command: limits that the kernel keeps."""
    prctl(PDEATHSIG, signal.SIGKILL)
    seconds = int(limits["seconds"]) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
    for kind, most in (
        (resource.RLIMIT_AS, limits["memory_bytes"]),
        (resource.RLIMIT_FSIZE, limits["file_bytes"]),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, 256),
    ):
        resource.setrlimit(kind, (int(most), int(most)))


def descendants(root: int) -> list[int]:
    """Processes that stem from ``root``; where /proc is not there, none can be told."""
    parents: dict[int, int] = {}
    try:
        entries = os.listdir("/proc")
    except OSError:
        return []
    for entry in entries:
        if entry.isdigit():
            with contextlib.suppress(OSError, ValueError, IndexError):
                with open(f"/proc/{entry}/stat", encoding="ascii", errors="replace") as file:
                    # The name in brackets may hold anything, so count from its end.
                    state, parent = file.read().rpartition(")")[2].split()[:2]
                if state != "Z":
                    parents[int(entry)] = int(parent)
    found, front = [], [root]
    while front:
        front = [each for each, parent in parents.items() if parent in front]
        found += front
    return found


def end_all(spared: Collection[int] = ()) -> None:
    """Kill every process that stems from this one, but for some, until there is none."""
    ended: set[int] = set()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        left = {each for each in descendants(os.getpid()) if each not in spared}
        ended |= left
        for signal_ in (signal.SIGSTOP, signal.SIGKILL):  # who stands still starts no other
            for each in left:
                with contextlib.suppress(OSError):
                    os.kill(each, signal_)
        for each in ended:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(each, os.WNOHANG)
        if not left:
            return
        time.sleep(POLL_SECONDS)


def run(limits: dict[str, float], command: list[str]) -> dict[str, object]:
    """Run a command; how it ended: by itself (``exit``, a ``signal``), or by which limit."""
    prctl(SUBREAPER, 1)
    prctl(PDEATHSIG, signal.SIGKILL)
    start = time.monotonic()
    with tempfile.TemporaryFile() as said:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=said,
            start_new_session=True,
            preexec_fn=lambda: _limit(limits),
        )
        ended = ""
        while not ended:
            # Its end is looked at without taking it, so that its number stays its own.
            if os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG):
                break
            if time.monotonic() - start > limits["seconds"]:
                ended = "time"
            elif len(descendants(os.getpid())) > limits["processes"]:
                ended = "processes"
            time.sleep(POLL_SECONDS)
        code = None if ended else child.wait()
        with contextlib.suppress(OSError):  # all there is to do where /proc is not there
            os.killpg(child.pid, signal.SIGKILL)
        end_all()
        said.seek(max(0, said.seek(0, os.SEEK_END) - TAIL_BYTES))
        tail = said.read(TAIL_BYTES).decode("utf-8", "replace")
    if code is not None and code < 0:
        ended = "time" if -code == signal.SIGXCPU else "signal"
    return {"how": ended or "exit", "code": code, "said": tail}


if __name__ == "__main__":
    cut = sys.argv.index("--")
    print(json.dumps(run(json.loads(sys.argv[cut - 1]), sys.argv[cut + 1 :])))
