"""Runs as traces for the viewers people have, the format chosen by the name of the file.

``.json``, ``.json.gz``: Perfetto and chrome://tracing (:mod:`.chrome`); ``.kanata``: Konata, a
token a row (:mod:`.kanata`); ``.vcd``: GTKWave, a wave a lane and a queue (:mod:`.vcd`). Each is
written piece by piece, so that memory does not grow with the text, and each can be limited to a
window of cycles.
"""

from __future__ import annotations

import gzip
import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO, cast

from sparqsim.base import InputError, written_whole
from sparqsim.simulator.timeline import Timeline
from sparqsim.simulator.trace.chrome import chrome_text
from sparqsim.simulator.trace.kanata import kanata_text
from sparqsim.simulator.trace.vcd import vcd_text
from sparqsim.simulator.trace.window import Window, count_touching, window_of
from sparqsim.simulator.traffic import Traffic

__all__ = ["Window", "check_trace_name", "check_trace_size", "trace_bytes", "write_trace"]

# Bytes a firing, measured by benchmarks/traces.py on a pipeline of four actors.
BYTES_A_FIRING = {".json": 170, ".json.gz": 17, ".kanata": 90, ".vcd": 45}


def write_trace(
    timeline: Timeline,
    path: str | os.PathLike[str],
    *,
    window: Window | None = None,
    traffic: Traffic | None = None,
) -> Path:
    """Write a run as a trace, whole or not at all; returns the path.

    Parameters
    ----------
    timeline
        A run of which single firings were recorded.
    path
        Ends in ``.json``, ``.json.gz``, ``.kanata`` or ``.vcd``.
    window
        Cycles to show; by default all of a run.
    traffic
        What moved the bits of each memory, for its bytes per cycle (Perfetto alone).

    Raises
    ------
    InputError
        If the ending is another, the file cannot be written, the run was recorded as sums, or the
        window lies behind its end.
    """
    path = Path(path)
    ending = check_trace_name(path)
    shown = window_of(timeline, window)
    with ExitStack() as stack:
        file: BinaryIO = stack.enter_context(open(stack.enter_context(written_whole(path)), "wb"))
        if ending.endswith(".gz"):
            packed = gzip.GzipFile("", "wb", compresslevel=3, fileobj=file, mtime=0)
            file = cast(BinaryIO, stack.enter_context(packed))
        for text in _text(timeline, ending, shown, traffic or {}):
            file.write(text.encode())
    return path


def _text(timeline: Timeline, ending: str, window: Window, traffic: Traffic) -> Iterator[str]:
    if ending == ".kanata":
        return kanata_text(timeline, window)
    if ending == ".vcd":
        return vcd_text(timeline, window)
    return chrome_text(timeline, window, traffic)


def check_trace_name(path: str | os.PathLike[str]) -> str:
    """The ending of a name, which says how the trace is written.

    Raises
    ------
    InputError
        If it says nothing.
    """
    for ending in BYTES_A_FIRING:
        if Path(path).name.endswith(ending):
            return ending
    raise InputError(
        "a trace must be named .json or .json.gz (Perfetto), .kanata (Konata) or .vcd (GTKWave), "
        f"got {path}"
    )


def trace_bytes(firings: int, path: str | os.PathLike[str]) -> int:
    """About how many bytes a trace of so many firings takes; raises InputError as its name."""
    return firings * BYTES_A_FIRING[check_trace_name(path)]


def check_trace_size(
    timeline: Timeline,
    path: str | os.PathLike[str],
    *,
    limit: int,
    window: Window | None = None,
) -> str:
    """Say about how large a trace will be, in bytes; refuse one above the limit.

    Raises
    ------
    InputError
        If it would take more than ``limit`` bytes, saying how large it would be.
    """
    firings = count_touching(timeline, window_of(timeline, window))
    size = trace_bytes(firings, path)
    told = f"the trace {path} of {firings:,} firings takes about {size / 1e6:,.1f} MB"
    if size > limit:
        raise InputError(
            f"{told}, more than --trace-limit, {limit / 1e6:,.1f} MB; raise it, name the trace "
            f".json.gz, or the cycles to write (--trace-window FROM:TO, of 0:{timeline.cycles})"
        )
    return told
