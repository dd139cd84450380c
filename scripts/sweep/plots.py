"""Figures of a store: lines, heat maps, Pareto fronts, parallel coordinates; they simulate nothing.

Names are columns of the points (:mod:`sparqsim.scripts.sweep.frame`) or their ends. Where several
points have the same place in a figure, their mean is drawn, and the band from least to most.
"""

from __future__ import annotations

import os
from contextlib import suppress
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sparqsim.base import InputError, output_folder, written_whole
from sparqsim.scripts.sweep.file import Figure, Sweep
from sparqsim.scripts.sweep.frame import Points
from sparqsim.scripts.sweep.measures import named
from sparqsim.simulator.axes import dress, write_figure
from sparqsim.simulator.palette import (
    BLUE,
    GREEN,
    INK,
    MUTED,
    ORANGE,
    PURPLE,
    SMALL,
    TEXT,
    TITLE,
    VERMILION,
    WIDTH,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, INK, MUTED, "#56B4E9", "#999933")
MARKS = "os^Dv<>PX"
MORE_IS_BETTER = (
    "utilization",
    "load_balance",
    "sqnr_db",
    "accuracy",
    "peak_macs",
    "cosine",
    "least_cosine",
    "rank",
)
KNEE_GAIN = 0.1  # of a doubling of x below which a curve is taken to have bent
HEIGHT = 3.6
PANELS = 3  # in a row
MOST_TICKS = 10  # along x


class Drawing:
    """The points of a figure and the values of its columns.

    Points of different blocks have different columns; one that lacks what the figure sorts by is
    left out.
    """

    def __init__(self, points: Points, figure: Figure) -> None:
        self.points, self.figure = points.only(figure.where), figure
        self.places = range(len(self.points))
        if not self.places:
            raise InputError(f"the figure {figure.name!r} has no points to draw")

    def of(self, name: str) -> list[Any]:
        """Values of a column at the points that are drawn."""
        return self.points.column(name)

    def numbers(self, name: str) -> NDArray[np.float64]:
        """Numbers of a column; nan where there is none. Raises InputError at a name."""
        values = self.of(name)
        try:
            found = np.array([np.nan if v is None else v for v in values], np.float64)
        except (TypeError, ValueError, OverflowError):
            found = np.empty(0)
        if found.shape != (len(values),):
            raise InputError(f"{name!r} is no number; it cannot be drawn along an axis")
        return found

    def groups(self, name: str) -> list[tuple[str, NDArray[np.bool_]]]:
        """Each value of a column, and which points have it; one group of all without a name.

        Raises
        ------
        InputError
            If no point that is drawn has the column.
        """
        if not name:
            return [("", np.ones(len(self.places), bool))]
        values = self.of(name)
        distinct = {repr(value): value for value in values if value is not None}
        known = list(distinct.values())
        if not known:
            raise InputError(f"no point of the figure {self.figure.name!r} has {name!r}")
        with suppress(TypeError):  # of several types
            known.sort()
        return [
            (told(value), np.array([repr(each) == repr(value) for each in values]))
            for value in known
        ]


def told(value: Any) -> str:
    """A value for a legend; of a path its end."""
    if isinstance(value, float):
        return f"{value:.4g}"
    return Path(value).stem if isinstance(value, str) and value.endswith(".py") else str(value)


def draw(points: Points, figure: Figure) -> Any:
    """A figure of a store.

    Raises
    ------
    InputError
        If a name is no column, or the kind of figure needs another one.
    """
    drawing = Drawing(points, figure)
    if figure.kind == "parallel":
        return _one(_parallel, drawing)
    if figure.kind == "heat":
        _need(figure, "x", "y", "value")
        return _panels(_heat, drawing)
    _need(figure, "x", "y")
    return _panels(_pareto if figure.kind == "pareto" else _lines, drawing)


def draw_all(points: Points, sweep: Sweep, folder: str | os.PathLike[str]) -> list[Path]:
    """Draw the figures of a sweep's file into a folder.

    Raises
    ------
    InputError
        If it has none, or the folder cannot be written.
    """
    if not sweep.file.figure:
        raise InputError(f"{sweep.where} describes no figure; use sparqsim plot")
    target, paths = output_folder(folder), []
    for figure in sweep.file.figure:
        paths.append(target / f"{figure.name}.png")
        save(draw(points, figure), paths[-1], figure.title or figure.name)
    return paths


def save(drawn: Any, path: str | os.PathLike[str], title: str) -> None:
    """Write a figure as PNG, or as SVG by its name."""
    kind = "svg" if str(path).endswith(".svg") else "png"
    with written_whole(path) as temporary, open(temporary, "wb") as file:
        write_figure(drawn, file, kind, title)


def names_of(figure: Figure) -> list[str]:
    """The measures along y."""
    return [figure.y] if isinstance(figure.y, str) else list(figure.y)


def _need(figure: Figure, *names: str) -> None:
    for name in names:
        if not getattr(figure, name):
            raise InputError(f"a figure of kind {figure.kind!r} needs {name}")


# ------------------------------------------------------------------ panels


def _one(make: Any, drawing: Drawing) -> Any:
    from matplotlib.figure import Figure as Canvas

    canvas = Canvas(figsize=(WIDTH, HEIGHT), layout="constrained")
    make(drawing, canvas.add_subplot(), "", np.ones(len(drawing.places), bool))
    return canvas


def _panels(make: Any, drawing: Drawing) -> Any:
    """A panel for each measure along y and each value of ``panel``."""
    from matplotlib.figure import Figure as Canvas

    figure = drawing.figure
    parts = [
        (measure, name, chosen)
        for measure in names_of(figure)
        for name, chosen in drawing.groups(figure.panel)
    ]
    across = 2 if len(parts) == 4 else min(len(parts), PANELS)
    down = -(-len(parts) // across)
    width = WIDTH if across < 3 else 1.4 * WIDTH
    canvas = Canvas(
        figsize=(width, HEIGHT * down * (1 if across < 3 else 0.85)), layout="constrained"
    )
    axes = canvas.subplots(down, across, squeeze=False).ravel()
    for ax, (measure, name, chosen) in zip(axes, parts, strict=False):
        make(drawing, ax, measure, chosen)
        title = _panel(figure, name) or ("" if len(parts) == 1 else measure)
        ax.set_title(title, loc="left", fontsize=TEXT, color=INK)
        if title == measure:  # told above the panel
            ax.set_ylabel("over the first" if figure.relative_to_first else "")
    for ax in axes[len(parts) :]:
        ax.set_axis_off()
    labelled = [ax for ax in axes if ax.get_legend_handles_labels()[0]]
    if labelled:
        found = dict(zip(*reversed(labelled[0].get_legend_handles_labels()), strict=True))
        for ax in labelled[1:]:
            found |= dict(zip(*reversed(ax.get_legend_handles_labels()), strict=True))
        canvas.legend(
            list(found.values()), list(found), loc="outside right center", frameon=False,
            fontsize=SMALL, title=figure.hue.rpartition(".")[2], title_fontsize=SMALL,
        )  # fmt: skip
    if figure.title:
        canvas.suptitle(figure.title, fontsize=TITLE, color=INK, x=0.01, ha="left")
    return canvas


def _panel(figure: Figure, name: str) -> str:
    """What a panel is of: a number says of what."""
    is_number = name.replace(".", "", 1).isdigit()
    return f"{_label(figure.panel)} = {name}" if is_number else name


def _scaled(ax: Axes, figure: Figure, x: NDArray[np.float64]) -> None:
    """Equal ratios where they are asked for, with plain numbers at the ticks."""
    from matplotlib.ticker import LogLocator, NullLocator

    places = np.unique(x[np.isfinite(x)])
    if figure.log_x and figure.kind == "lines" and len(places) <= MOST_TICKS:
        ax.set_xscale("log", base=2)
        ax.set_xticks(places, [f"{value:.6g}" for value in places])
        ax.xaxis.set_minor_locator(NullLocator())
    elif figure.log_x:
        ax.set_xscale("log")
    if figure.log_y:
        ax.set_yscale("log")
    for axis in (ax.xaxis, ax.yaxis):
        if getattr(axis.get_transform(), "base", None) == 10:
            axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            axis.set_minor_locator(NullLocator())
            axis.set_major_formatter(lambda value, _: f"{value:g}")


# ------------------------------------------------------------------ kinds


def _lines(drawing: Drawing, ax: Axes, measure: str, chosen: NDArray[np.bool_]) -> None:
    figure = drawing.figure
    x, y = drawing.numbers(figure.x), drawing.numbers(measure)
    looks = zip(drawing.groups(figure.hue), cycle(COLOURS), cycle(MARKS), strict=False)
    for (name, mine), colour, mark in looks:
        valid = chosen & mine & np.isfinite(x) & np.isfinite(y)
        places = np.unique(x[valid])
        if not len(places):
            continue
        values = [y[valid & (x == place)] for place in places]
        scale = values[0].mean() if figure.relative_to_first else 1.0
        mean = np.array([each.mean() for each in values]) / scale
        low, high = (np.array([f(each) for each in values]) / scale for f in (np.min, np.max))
        ax.plot(places, mean, color=colour, marker=mark, ms=4, lw=1.3, label=name or None)
        if (high > low).any():
            ax.fill_between(places, low, high, color=colour, alpha=0.15, lw=0)
        at = knee(places, mean) if figure.knee else None
        if at is not None:
            ax.plot(places[at], mean[at], "o", ms=10, mfc="none", mec=colour, mew=1.5)
    dress(ax, "", _label(figure.x), _label(measure, figure.relative_to_first))
    _scaled(ax, figure, x)


def knee(x: NDArray[np.float64], y: NDArray[np.float64]) -> int | None:
    """The first place from which a doubling of x changes y by less than a tenth; None: nowhere.

    >>> knee(np.array([1.0, 2, 4, 8]), np.array([8.0, 4, 3.9, 3.8]))
    1
    """
    for place in range(len(x) - 1):
        doublings = np.log2(x[place + 1] / x[place])
        if abs(np.log(y[place + 1] / y[place])) < np.log1p(KNEE_GAIN) * doublings:
            return place
    return None


def _heat(drawing: Drawing, ax: Axes, measure: str, chosen: NDArray[np.bool_]) -> None:
    figure = drawing.figure
    rows, columns = drawing.groups(measure), drawing.groups(figure.x)
    values = drawing.numbers(figure.value)
    cells = np.full((len(rows), len(columns)), np.nan)
    for row, (_, here) in enumerate(rows):
        for column, (_, there) in enumerate(columns):
            found = values[here & there & chosen & np.isfinite(values)]
            if len(found):
                cells[row, column] = found.mean()
    image = ax.imshow(cells, origin="lower", aspect="auto", cmap="viridis")
    ax.set_xticks(range(len(columns)), [name for name, _ in columns], fontsize=SMALL)
    ax.set_yticks(range(len(rows)), [name for name, _ in rows], fontsize=SMALL)
    ax.set_xlabel(_label(figure.x), fontsize=TEXT)
    ax.set_ylabel(_label(measure), fontsize=TEXT)
    middle = np.nanmean([np.nanmin(cells), np.nanmax(cells)])
    for row, column in np.argwhere(np.isfinite(cells)):
        value = cells[row, column]
        ax.text(column, row, f"{value:.3g}", ha="center", va="center", fontsize=SMALL - 1,
                color="white" if value < middle else INK)  # fmt: skip
    ax.figure.colorbar(image, ax=ax).set_label(_label(figure.value), fontsize=TEXT)


def _pareto(drawing: Drawing, ax: Axes, measure: str, chosen: NDArray[np.bool_]) -> None:
    figure = drawing.figure
    x, y = drawing.numbers(figure.x), drawing.numbers(measure)
    looks = zip(drawing.groups(figure.hue), cycle(COLOURS), cycle(MARKS), strict=False)
    for (name, mine), colour, mark in looks:
        valid = chosen & mine
        ax.plot(x[valid], y[valid], mark, color=colour, ms=4, alpha=0.7, label=name or None)
    known = np.flatnonzero(chosen & np.isfinite(x) & np.isfinite(y))
    best = known[front(np.stack([_less(figure.x, x), _less(measure, y)], axis=1)[known])]
    best = best[np.argsort(x[best])]
    ax.plot(x[best], y[best], color=INK, lw=1.0, drawstyle="steps-post", zorder=0)
    ax.plot(x[best], y[best], "o", ms=8, mfc="none", mec=INK, mew=0.8)
    dress(ax, "", _label(figure.x), _label(measure))
    _scaled(ax, figure, x)


def _less(name: str, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Values of which less is better."""
    more = any(name.rpartition(".")[2].startswith(each) for each in MORE_IS_BETTER)
    return -values if more else values


def front(costs: NDArray[np.float64]) -> NDArray[np.intp]:
    """Places of the rows that no other row beats in one column and equals or beats in all.

    >>> front(np.array([[1.0, 3.0], [2.0, 2.0], [3.0, 3.0], [2.0, 2.0]])).tolist()
    [0, 1, 3]
    """
    kept = [
        place
        for place, cost in enumerate(costs)
        if not ((costs <= cost).all(axis=1) & (costs < cost).any(axis=1)).any()
    ]
    return np.array(kept, np.intp)


def _parallel(drawing: Drawing, ax: Axes, _: str, chosen: NDArray[np.bool_]) -> None:
    """One line per point through its value on every axis, coloured by ``value``."""
    import matplotlib

    figure = drawing.figure
    names = names_of(figure) or [*drawing.points.varying, figure.value or "seconds"]
    value = drawing.numbers(figure.value or "seconds")
    spread = np.nanmax(value) - np.nanmin(value) or 1.0
    shades = matplotlib.colormaps["viridis"]((value - np.nanmin(value)) / spread)
    heights = np.empty((len(names), len(value)))
    for column, name in enumerate(names):
        groups = drawing.groups(name)
        try:
            numbers = drawing.numbers(name)
        except InputError:
            numbers = np.full(len(value), np.nan)
            for place, (_, mine) in enumerate(groups):
                numbers[mine] = place
        low, high = np.nanmin(numbers), np.nanmax(numbers)
        heights[column] = (numbers - low) / (high - low or 1.0)
        marks = [groups[0], groups[-1]] if len(groups) > 6 else groups
        for label, mine in marks:
            at = np.nanmean(heights[column][mine])
            ax.text(column, at, f" {label}", fontsize=SMALL - 1, color=INK, va="center")
    for place in np.argsort(-value):
        ax.plot(range(len(names)), heights[:, place], color=shades[place], lw=0.8, alpha=0.6)
    dress(ax, figure.title, "", "", "x")
    slanted: dict[str, Any] = {"rotation": 20, "ha": "right"} if len(names) > 6 else {}
    ax.set_xticks(
        range(len(names)), [name.removeprefix("machine.") for name in names], fontsize=SMALL,
        **slanted,
    )  # fmt: skip
    ax.set_yticks([])
    ax.set_xlim(-0.1, len(names) - 0.7)


def _label(name: str, relative: bool = False) -> str:
    """A column's name in words."""
    return f"{named(name)}, over the first" if relative else named(name)
