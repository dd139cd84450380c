"""The points of a store as rows: for tables, figures and other programs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from copy import copy
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec

from sparqsim.base import InputError, written_whole
from sparqsim.scripts.output import write_csv
from sparqsim.scripts.sweep.expression import Expression
from sparqsim.scripts.sweep.index import Row
from sparqsim.scripts.sweep.measures import MEASURES, at_path
from sparqsim.scripts.sweep.space import resolved
from sparqsim.scripts.sweep.store import Store
from sparqsim.simulator.frames import imported
from sparqsim.simulator.report import NetworkReport, Report


class Points:
    """The points of a store.

    Where it holds those of several versions of the model, it is those of the version written last.

    Parameters
    ----------
    path
        Of the store.
    keys
        Of the points that count; None: all.

    Raises
    ------
    InputError
        If there is no store.
    """

    def __init__(self, path: Path, keys: frozenset[str] | None = None) -> None:
        self.path, self.keys = path, keys
        self.store = Store(path)
        self.broken = self.store.index.broken
        models = self.store.index.models()
        self.versions, self.model = len(models), next(iter(models), "")

    @cached_property
    def done(self) -> list[Row]:
        """The points that were run, by key."""
        return [row for row in self.store.index.rows() if self._is_mine(row)]

    @cached_property
    def failed(self) -> list[Row]:
        """The points that could not be run, and why."""
        return [row for row in self.store.index.rows("failed") if self._is_mine(row)]

    def _is_mine(self, row: Row) -> bool:
        return row.model == self.model if self.keys is None else row.key in self.keys

    def only(self, where: str) -> Points:
        """The points for which an expression over columns is true; all for an empty one."""
        places = set(matching(self, where))
        chosen = copy(self)
        chosen.__dict__ = {
            name: value for name, value in vars(self).items() if name not in ("columns", "varying")
        }
        chosen.done = [row for place, row in enumerate(self.done) if place in places]
        return chosen

    def __len__(self) -> int:
        return len(self.done)

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """Names that some point has, in the order of the first."""
        return tuple(dict.fromkeys(name for row in self.done for name in row.columns))

    @cached_property
    def varying(self) -> tuple[str, ...]:
        """Names of the file and the machines whose value is not the same for all points."""
        return tuple(
            name for name in self.columns if is_given(name) and len(self.distinct(name)) > 1
        )

    def distinct(self, name: str) -> list[Any]:
        """Values of a column, each once; numbers in order."""
        found = {repr(value): value for value in self.column(name) if value is not None}
        values = list(found.values())
        if all(isinstance(value, int | float) for value in values):
            values.sort()
        return values

    def rows(self) -> list[dict[str, Any]]:
        """One dict per point, ``key`` first, then values, fields and measures by name."""
        return [{"key": row.key, **row.columns} for row in self.done]

    def name(self, given: str) -> str:
        """The column that is meant, or a path in the reports.

        Raises
        ------
        InputError
            If no point has anything of that name, or several columns are meant.
        """
        try:
            return resolved(given, self.columns)
        except InputError as error:
            if (
                "may be" not in str(error)
                and self.done
                and self._found(given, self.done[0]) is not None
            ):
                return given
            raise

    def column(self, given: str) -> list[Any]:
        """The values of a column, of a path in the reports, or of an expression over such names;
        None where a point has none.

        Raises
        ------
        InputError
            If no point has anything of that name, or several columns are meant.
        """
        if not re.fullmatch(r"[\w.-]+", given):
            return self._calculated(Expression(given))
        name = self.name(given)
        if name in self.columns:
            return [row.columns.get(name) for row in self.done]
        return [self._found(name, row) for row in self.done]

    def _calculated(self, expression: Expression) -> list[Any]:
        columns = {name: self.column(name) for name in expression.names}
        found: list[Any] = []
        for place in range(len(self)):
            here = {name: values[place] for name, values in columns.items()}
            known = None not in here.values()
            found.append(expression.value(here.__getitem__) if known else None)
        return found

    def report(self, key: str) -> Report | NetworkReport:
        """The report of a point.

        Raises
        ------
        InputError
            If the point is not stored whole, or failed.
        """
        content = self.content(key)
        if msgspec.json.decode(content, type=_Network).network:
            return msgspec.json.decode(content, type=NetworkReport)
        return msgspec.json.decode(content, type=Report)

    def content(self, key: str) -> bytes:
        """The JSON of a point's report; raises InputError as :meth:`report`."""
        record = self.store.read(key)
        if record is None or record.status != "done":
            raise InputError(f"the point {key} is not in the store {self.path}, or it failed")
        return bytes(record.report)

    def _found(self, path: str, row: Row) -> Any:
        return at_path(msgspec.json.decode(self.content(row.key)), path)

    # ------------------------------------------------------------------ for other programs

    def csv(self, path: str) -> None:
        """Write a CSV table; ``-`` is the terminal."""
        write_csv(("key", *self.columns), self.rows(), path)

    def _repr_html_(self) -> str:
        """What a notebook shows: what varies, and the measures."""
        from sparqsim.simulator.pages.notebook import of_rows

        measures = [name for name in MEASURES if name in self.columns]
        title = f"{self.path.resolve().name}: {len(self):,} points, {len(self.failed):,} failed"
        return of_rows(title, [row.columns for row in self.done], [*self.varying, *measures])

    def pandas(self) -> Any:
        """A pandas frame; needs pandas."""
        return imported("pandas").DataFrame(self._table())

    def polars(self) -> Any:
        """A polars frame; needs polars."""
        return imported("polars").DataFrame(self._table(), strict=False)

    def parquet(self, path: str) -> None:
        """Write a Parquet file; needs pyarrow."""
        pyarrow, parquet = imported("pyarrow"), imported("pyarrow.parquet")
        table = pyarrow.table(self._table())
        with written_whole(path) as temporary:
            parquet.write_table(table, temporary)

    def _table(self) -> dict[str, list[Any]]:
        """Columns by name; one whose values are of several types is text."""
        rows = self.rows()
        return {
            name: _of_one_type([row.get(name) for row in rows]) for name in ("key", *self.columns)
        }


class _Network(msgspec.Struct):
    """What tells a network's report from a layer's."""

    network: str = ""


def is_given(name: str) -> bool:
    """Whether a column is given by the file or the configuration, not measured."""
    return bool(re.match(r"(work|recipe|machine|seed|variables)(\.|$)", name))


def _of_one_type(values: Sequence[Any]) -> list[Any]:
    kinds = {type(value) for value in values if value is not None}
    if kinds <= {int, float} and len(kinds) == 2:
        return [None if value is None else float(value) for value in values]
    if len(kinds) > 1 or kinds & {list, dict}:
        return [None if value is None else str(value) for value in values]
    return list(values)


def matching(points: Points, where: str) -> Iterator[int]:
    """Places of the points that meet an expression over columns; all for an empty one."""
    if not where:
        yield from range(len(points))
        return
    expression = Expression(where)
    columns = {name: points.column(name) for name in expression.names}
    for place in range(len(points)):
        here = {name: values[place] for name, values in columns.items()}
        if expression.value(here.__getitem__):
            yield place
