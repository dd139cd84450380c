"""The colours and sizes that all figures share.

One colour means one thing: blue is a lane at work, orange a lane without input, vermilion a lane
behind a full queue, purple a wait for a resource, grey nothing left to do. They are told apart by
colour-blind readers (after Okabe and Ito, "Color Universal Design", 2008; purple by Paul Tol).
"""

from __future__ import annotations

INK, MUTED, FAINT = "#222222", "#6B6B6B", "#E4E4E4"
BLUE, ORANGE, VERMILION, PURPLE, GREEN = "#0072B2", "#E69F00", "#D55E00", "#AA4499", "#009E73"
GREY = "#D3D3D3"
SMALL, TEXT, TITLE = 8, 9, 10  # points
WIDTH = 7.2  # inches: the text width of a page
DPI = 150


def lighter(colour: str, share: float) -> tuple[float, ...]:
    """A colour mixed with a share of white, as red, green and blue."""
    from matplotlib.colors import to_rgb

    return tuple(c + (1 - c) * share for c in to_rgb(colour))
