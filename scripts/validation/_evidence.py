"""What a validation says, as numbers that can be counted: published, simulated, held or not.

Each validation names in ``EVIDENCE`` the runs of its command and, of each, where in the JSON that
it writes the tables are. :func:`numbers_of` reads them; :func:`statistics_of` sums them up.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from statistics import fmean
from typing import Any, Literal

import msgspec

State = Literal["held", "missed", "shown", "fitted"]


class Table(msgspec.Struct, frozen=True, kw_only=True):
    """Where in a validation's JSON the numbers of one table are.

    Attributes
    ----------
    title
        Of the table.
    rows
        Key of its rows, a list or one record.
    name
        How a row is called, with its fields in braces.
    published, simulated
        Fields of the two numbers; of two published ones the range between them. Of a list of
        simulated numbers their mean counts.
    quantity
        Field that says what is measured: all of it, or what stands behind ``": "``. Errors are
        summed up by quantity.
    held
        Field that says whether the number keeps its bound; None there, or no such field: it has
        none. A number is 0 or 1 where it stands for a comparison that must be exact.
    fitted
        Field that says whether the number agrees by construction.
    note
        Field of a remark.
    """

    title: str
    rows: str = "rows"
    name: str
    published: tuple[str, ...]
    simulated: str
    quantity: str = ""
    held: str = ""
    fitted: str = ""
    note: str = ""


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """A run of a validation's command, whether it draws ``figures``; ``long`` ones come first."""

    tables: tuple[Table, ...]
    arguments: tuple[str, ...] = ()
    figures: bool = False
    long: bool = False


class Number(msgspec.Struct, frozen=True, kw_only=True):
    """A published number beside ours.

    ``published`` is the nearer end where a range is published. ``error`` is relative; None where
    0 is published and ours is not. ``state``: within its bound, outside, without a bound, fitted.
    """

    name: str
    quantity: str
    published: float
    simulated: float
    error: float | None
    state: State
    note: str = ""


class Statistics(msgspec.Struct, frozen=True, kw_only=True):
    """Errors of some numbers, those that were fitted left out; None where there is nothing to say.

    ``mape`` is the mean magnitude of the relative errors, ``spearman`` the rank correlation of
    published and simulated numbers, ``maximum`` the greatest error, of the number ``worst``.
    """

    quantity: str
    numbers: int
    held: int
    missed: int
    shown: int
    fitted: int
    mape: float | None
    spearman: float | None
    maximum: float | None
    worst: str


def numbers_of(content: dict[str, Any], table: Table) -> list[Number]:
    """The numbers of a table in a validation's JSON."""
    rows = content[table.rows]
    return [_number(row, table) for row in (rows if isinstance(rows, list) else [rows])]


def _number(row: dict[str, Any], table: Table) -> Number:
    ours = row[table.simulated]
    simulated = fmean(ours) if isinstance(ours, list) else float(ours)
    ends = [float(row[field]) for field in table.published]
    published = min(max(simulated, ends[0]), ends[-1])
    return Number(
        name=table.name.format_map(row),
        quantity=str(row[table.quantity]).rpartition(": ")[2] if table.quantity else table.title,
        published=published,
        simulated=simulated,
        error=_error(published, simulated),
        state=_state(row, table),
        note=str(row.get(table.note) or "") if table.note else "",
    )


def _error(published: float, simulated: float) -> float | None:
    if published == simulated:
        return 0.0
    return simulated / published - 1 if published else None


def _state(row: dict[str, Any], table: Table) -> State:
    if table.fitted and row[table.fitted]:
        return "fitted"
    held = row.get(table.held) if table.held else None
    return "shown" if held is None else "held" if held else "missed"


def spearman(ours: Sequence[float], theirs: Sequence[float]) -> float | None:
    """Rank correlation; equal numbers share the mean of their ranks. None of fewer than three."""
    import numpy as np

    if len(ours) < 3:
        return None
    ranks = []
    for values in (ours, theirs):
        _, at, counts = np.unique(values, return_inverse=True, return_counts=True)
        ranks.append((np.cumsum(counts) - (counts - 1) / 2)[at])
    deviations = [each - each.mean() for each in ranks]
    spread = math.prod(math.sqrt(float((each**2).sum())) for each in deviations)
    return float((deviations[0] * deviations[1]).sum()) / spread if spread else None


def statistics_of(quantity: str, numbers: Iterable[Number], rank: bool = True) -> Statistics:
    """Sum up numbers; ``rank`` says that they are of one quantity, whose order means something."""
    found = list(numbers)
    free = [each for each in found if each.state != "fitted"]
    errors = [(abs(each.error), each) for each in free if each.error is not None]
    worst = max(errors, key=lambda pair: pair[0], default=(0.0, None))[1]
    count = {state: sum(each.state == state for each in found) for state in
             ("held", "missed", "shown", "fitted")}  # fmt: skip
    return Statistics(
        quantity=quantity,
        numbers=len(found),
        **count,
        mape=fmean(size for size, _ in errors) if errors else None,
        spearman=spearman([x.published for x in free], [x.simulated for x in free])
        if rank
        else None,
        maximum=worst.error if worst else None,
        worst=worst.name if worst and worst.error else "",
    )


def by_quantity(numbers: Iterable[Number]) -> list[Statistics]:
    """Statistics of each quantity, in the order in which they come."""
    groups: dict[str, list[Number]] = {}
    for number in numbers:
        groups.setdefault(number.quantity, []).append(number)
    return [statistics_of(quantity, members) for quantity, members in groups.items()]
