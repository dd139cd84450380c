"""A small run to be stepped through: the block diagram, its tokens, queues and waits.

:func:`write_animation` makes a page of its own, :func:`write_frame` one cycle as an SVG for a
slide; both show the timeline of a run and simulate nothing.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from sparqsim.simulator.animation.drawing import Diagram
from sparqsim.simulator.animation.film import check_cycle, check_showable, frames, moments
from sparqsim.simulator.animation.page import page
from sparqsim.simulator.pages import write
from sparqsim.simulator.timeline import Timeline
from sparqsim.simulator.trace.window import Window

__all__ = ["check_cycle", "check_showable", "write_animation", "write_frame"]


def write_animation(
    timeline: Timeline,
    path: str | os.PathLike[str],
    title: str,
    window: Window | None = None,
) -> Path:
    """Write a page on which a run can be stepped through; returns its path.

    Parameters
    ----------
    timeline
        A run of which single firings were recorded.
    title
        What ran on what.
    window
        Cycles to show; by default all.

    Raises
    ------
    InputError
        If the run has too many actors, lanes, firings or moments to be shown, or kept only sums.
    """
    film = list(frames(timeline, moments(timeline, window)))
    return write(page(Diagram(timeline.netlist), film, title, timeline), path)


def write_frame(timeline: Timeline, cycle: int, path: str | os.PathLike[str], title: str) -> Path:
    """Write one cycle of a run as an SVG; returns its path.

    Raises
    ------
    InputError
        As :func:`write_animation`; or if the run has no such cycle.
    """
    check_showable(timeline.netlist)
    check_cycle(timeline, cycle)
    (frame,) = frames(timeline, np.array([cycle]))
    return write(Diagram(timeline.netlist).svg(frame, title, words=True), path)
