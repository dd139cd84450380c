"""What all figures are made with: axes, their common look, and how they are written."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, Literal

from sparqsim.base import printable
from sparqsim.simulator.palette import DPI, FAINT, INK, MUTED, SMALL, TEXT, TITLE, WIDTH

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_CHARACTERS = 90  # of a title


def new_axes(ax: Axes | None, width: float = WIDTH, height: float = 3.0) -> Axes:
    """The axes that are given, or new ones of so many inches."""
    if ax is not None:
        return ax
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained").add_subplot()


def dress(ax: Axes, title: str, x: str, y: str, grid: Literal["", "x", "y"] = "y") -> Axes:
    """Title, labels and the common look."""
    ax.set_title(printable(title, MOST_CHARACTERS), loc="left", fontsize=TITLE, color=INK, pad=8)
    ax.set_xlabel(x, fontsize=TEXT, color=INK)
    ax.set_ylabel(y, fontsize=TEXT, color=INK)
    ax.tick_params(labelsize=SMALL, colors=INK, length=3, width=0.6)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        ax.spines[side].set(color=MUTED, linewidth=0.6)
    ax.set_axisbelow(True)
    if grid:
        ax.grid(axis=grid, color=FAINT, linewidth=0.6)
    return ax


def thousands(axis: Any) -> None:
    """Whole numbers along an axis, with commas."""
    axis.set_major_formatter(lambda value, _: f"{value:,.0f}" if value == int(value) else "")


def legend_below(ax: Axes, columns: int) -> None:
    """The legend under the label of the x axis, where it hides nothing."""
    from matplotlib.transforms import ScaledTranslation

    if not ax.get_legend_handles_labels()[0]:
        return
    under_labels = ScaledTranslation(0, -35 / 72, ax.figure.dpi_scale_trans)
    ax.legend(
        loc="upper left",
        bbox_to_anchor=(0, 0),
        bbox_transform=ax.transAxes + under_labels,
        borderpad=0,
        borderaxespad=0,
        ncols=columns,
        frameon=False,
        fontsize=SMALL,
        handlelength=1.2,
    )


def bank(name: str, lanes: int) -> str:
    """The name of an actor, with its lanes where there are several."""
    return name if lanes == 1 else f"{name} × {lanes}"


def write_figure(figure: Figure, file: Any, kind: str, title: str) -> None:
    """Write a figure as ``"png"`` or ``"svg"``; the same figure gives the same bytes.

    Names in it may hold anything: what would steer a viewer is written as an escape.
    """
    import matplotlib
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        text.set_parse_math(False)  # a dollar in a name is a dollar
        if text.get_text() != printable(text.get_text()):
            text.set_text(printable(text.get_text()))
    about: dict[str, Any] = {"Title": printable(title)} | ({"Date": None} if kind == "svg" else {})
    with matplotlib.rc_context({"svg.hashsalt": "sparqsim"}), warnings.catch_warnings():
        # The font lacks some letters; the figure shows boxes, which says it.
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        figure.savefig(file, format=kind, dpi=DPI, metadata=about)
