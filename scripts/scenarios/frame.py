"""What every scenario is: a question, numbers that answer it, a paragraph and a figure of them.

A scenario measures once; its paragraph, figure, page and JSON all come from what was measured, so
that no number is typed in. It is a row of :data:`sparqsim.scripts.scenarios.catalogue.SCENARIOS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from sparqsim.base import output_folder, written_whole
from sparqsim.scripts.output import PatientBar, write_json

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 150


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """A question with the functions that answer it.

    Attributes
    ----------
    name, title
        Of its files; above its figure and paragraph.
    measure
        Runs everything, telling a bar how far it is; the numbers it gives are a msgspec struct.
    finding
        The paragraph that answers the question, from the numbers.
    draw
        The figure, from the numbers.
    page
        A page of Markdown with tables, from the numbers; None where the paragraph is all.
    """

    name: str
    title: str
    measure: Callable[[PatientBar], Any]
    finding: Callable[[Any], str]
    draw: Callable[[Any], Figure]
    page: Callable[[Any], str] | None = None


def write(scenario: Scenario, found: Any, folder: str | Path) -> list[Path]:
    """Write ``data/NAME.json``, ``figures/NAME.png`` and its page ``background/NAME.md``, if any.

    Raises
    ------
    InputError
        If the folder cannot be written.
    """
    folder = output_folder(folder)
    data = output_folder(folder / "data") / f"{scenario.name}.json"
    figure = output_folder(folder / "figures") / f"{scenario.name}.png"
    write_json(found, str(data))
    with written_whole(figure) as path:
        scenario.draw(found).savefig(path, dpi=DPI)
    written = [data, figure]
    if scenario.page is not None:
        written.append(output_folder(folder / "background") / f"{scenario.name}.md")
        with written_whole(written[-1]) as path:
            path.write_text(scenario.page(found), encoding="utf-8")
    return written


def answer(scenario: Scenario, found: Any) -> dict[str, Any]:
    """What ``--json`` gives: the question, the paragraph and the numbers."""
    return {
        "scenario": scenario.name,
        "title": scenario.title,
        "finding": scenario.finding(found),
        "data": msgspec.to_builtins(found),
    }


def panels(count: int, width: float = 8.4, height: float = 3.8) -> tuple[Figure, list[Axes]]:
    """A figure with panels side by side, without upper and right frame."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    made = list(figure.subplots(1, count, squeeze=False)[0])
    open_frame(*made)
    for axes in made:
        axes.title.set_size(10)
        axes.title.set_horizontalalignment("left")
    return figure, made


def open_frame(*of: Axes) -> None:
    """Leave out the upper and right frame of axes."""
    for axes in of:
        axes.spines[["top", "right"]].set_visible(False)


def by_factors(axes: Axes, values: Sequence[float], **options: Any) -> None:
    """Equal factors along the x axis, with the values themselves as its ticks."""
    axes.set_xscale("log")
    axes.set_xticks(values, [f"{value:g}" for value in values], **options)
    axes.minorticks_off()


def lines(
    axes: Axes, x: Sequence[float], rows: Mapping[str, Sequence[float]], colours: Sequence[str]
) -> None:
    """A marked line for each row, named in a legend."""
    for (name, values), colour in zip(rows.items(), colours, strict=False):
        axes.plot(x, values, "o-", markersize=4, linewidth=1.4, color=colour, label=name)
    axes.legend(frameon=False, fontsize=8)
