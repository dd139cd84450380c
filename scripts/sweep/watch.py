"""What is seen of a sweep while it runs: points, rate, time left, failures, the best so far."""

from __future__ import annotations

import math
import re
import sys
import time
from collections.abc import Sequence
from functools import cache
from typing import Any

import msgspec

from sparqsim.base import InputError
from sparqsim.scripts.output import progress_bar
from sparqsim.scripts.sweep.expression import Expression
from sparqsim.scripts.sweep.file import SweepFile
from sparqsim.scripts.sweep.measures import at_path
from sparqsim.scripts.sweep.space import resolved
from sparqsim.scripts.sweep.store import Record

EVERY_SECONDS = 10.0  # a line, where standard error is no terminal
BEST_KEPT = 5


def goal_of(file: SweepFile) -> tuple[str, bool]:
    """What the best point is told by, and whether less is better."""
    if file.search is not None:
        search = file.search
        return (search.minimise or search.maximise)[0], bool(search.minimise)
    if file.maximise:
        return file.maximise, False
    return file.minimise or "seconds", True


def value_of(record: Record, name: str) -> Any:
    """A measure, a value of the file, a field of the machine, a path in the report; or a formula.

    Raises
    ------
    KeyError
        If there is none.
    InputError
        If a formula, an expression over such names, has no value here.
    """
    if name in record.measures:
        return record.measures[name]
    if not re.fullmatch(r"[\w.-]+", name):
        return _parsed(name).value(lambda each: value_of(record, each))
    fields = {f"machine.{field}": value for field, value in record.fields.items()}
    columns = {**fields, **record.values, **record.measures}
    try:
        return columns[resolved(name, tuple(columns))]
    except InputError:
        found = at_path(msgspec.json.decode(record.report), name)
        if found is None:
            raise KeyError(name) from None
        return found


@cache
def _parsed(text: str) -> Expression:
    return Expression(text)


class Watch:
    """Counts points and shows them on standard error.

    Parameters
    ----------
    total
        Points to be run.
    goal
        As :func:`goal_of`.
    quiet
        Show nothing; count only.
    """

    def __init__(self, total: int, goal: tuple[str, bool], *, quiet: bool = False) -> None:
        self.total, (self.measure, self.less) = total, goal
        self.done = self.failed = self.differing = 0
        self.best: list[tuple[float, Record]] = []
        self.start = self.last = time.monotonic()
        self.bar: Any = None
        self.lines = not quiet and not sys.stderr.isatty()
        if not quiet and not self.lines:
            self._begin_bar()

    def _begin_bar(self) -> None:
        self.bar = progress_bar(refresh_per_second=4)
        self.task = self.bar.add_task("", total=self.total)

    def __call__(self, record: Record) -> None:
        """Count a point."""
        self.done += 1
        if record.status == "failed":
            self.failed += 1
        else:
            self.differing += record.measures.get("verified") == "mismatch"
            self._keep(record)
        now = time.monotonic()
        if self.bar is not None:
            self.bar.update(self.task, completed=self.done, description=self.told())
        elif self.lines and now - self.last >= EVERY_SECONDS:
            self.last = now
            left = (self.total - self.done) * (now - self.start) / self.done
            sys.stderr.write(
                f"{self.done:,} of {self.total:,} points, {self.told()}, {left:.0f} s left\n"
            )

    def _keep(self, record: Record) -> None:
        try:
            value = value_of(record, self.measure)
        except (KeyError, InputError):
            return
        if not isinstance(value, int | float) or math.isnan(value):
            return
        slim = msgspec.structs.replace(record, report=msgspec.Raw(b"null"))
        self.best.append((value if self.less else -value, slim))
        self.best.sort(key=lambda each: each[0])
        del self.best[BEST_KEPT:]

    def told(self) -> str:
        """Rate, failures and the best, in a few words."""
        rate = self.done / max(time.monotonic() - self.start, 1e-9)
        words = [f"{rate:,.1f} points/s"]
        if self.failed:
            words.append(f"{self.failed:,} failed")
        if self.best:
            words.append(f"{self.measure} {as_measured(self.best[0][0], self.less):.4g}")
        return ", ".join(words)

    def __enter__(self) -> Watch:
        if self.bar is not None:
            self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.stop()


def as_measured(kept: float, less: bool) -> float:
    """A kept value as it was measured: what is to be large is kept with its sign changed."""
    return kept if less else -kept


def varying(records: Sequence[dict[str, Any]]) -> list[str]:
    """Names whose values differ among some points, in the order of the first."""
    names = dict.fromkeys(name for each in records for name in each)
    return [name for name in names if len({repr(each.get(name)) for each in records}) > 1]
