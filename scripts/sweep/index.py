"""The index of a store: what its files say, in SQLite, so that they need not all be read.

It is made from the files and never believed against them: when a store is opened, a file whose size
or time is not as the index knows it is read again. If it cannot be read or written it is made anew,
in memory where the store is read only.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from sparqsim.base import InputError

if TYPE_CHECKING:
    from sparqsim.scripts.sweep.store import Record

NAME = "index.sqlite"
LOOK_UP = 500  # keys at once
WAIT_SECONDS = 10.0  # for another sweep that writes
TABLE = """CREATE TABLE points (
    key TEXT PRIMARY KEY, size INTEGER, mtime INTEGER, status TEXT, model TEXT, message TEXT,
    columns TEXT
) WITHOUT ROWID"""  # an index with any other is made anew


class Entry(NamedTuple):
    """A file: its key, bytes and time of change in nanoseconds."""

    key: str
    size: int
    mtime: int


class Row(NamedTuple):
    """What the index knows of a point; ``columns`` are values, fields and measures by name."""

    key: str
    status: str
    model: str
    message: str
    columns: dict[str, Any]


class Index:
    """The index of a store.

    Parameters
    ----------
    folder
        Of the store.
    files
        Lists the files there: the two digits of a folder, and its files; asked for as often as need
        be.
    read
        The record of a file, or None.
    writable
        Whether the index may be kept there.

    Attributes
    ----------
    broken : int
        Files that are not as they were written.
    """

    def __init__(
        self,
        folder: Path,
        files: Callable[[], Iterable[tuple[str, list[Entry]]]],
        read: Callable[[str], Record | None],
        *,
        writable: bool,
    ) -> None:
        self.path, self.files, self.read, self.writable = folder / NAME, files, read, writable
        self.database = self._opened()
        try:
            self.broken = self._refresh()
        except sqlite3.Error as error:
            self._leave(error)

    def _opened(self) -> sqlite3.Connection:
        """The index of the folder, made anew where it is none; else one in memory."""
        mode = "rwc" if self.writable else "ro"
        for _ in range(2):
            try:
                database = sqlite3.connect(
                    f"file:{_quoted(self.path)}?mode={mode}", uri=True, timeout=WAIT_SECONDS
                )
                if self._is_ours(database):
                    return database
                database.close()
            except sqlite3.OperationalError:  # no place for one, or another sweep holds it
                break
            except sqlite3.DatabaseError:
                pass
            if self.writable:
                self._remove()
        return _in_memory()

    def _is_ours(self, database: sqlite3.Connection) -> bool:
        """Whether its table is as this version makes it; it is made where there is none."""
        if self.writable:
            database.execute("PRAGMA synchronous = OFF")  # it can be made again from the files
        found = _table_of(database)
        if found is None and self.writable:
            with contextlib.suppress(sqlite3.OperationalError):  # another sweep was first
                database.execute(TABLE)
            found = _table_of(database)
        return found == TABLE

    def _remove(self) -> None:
        with contextlib.suppress(OSError):
            self.path.unlink()

    def _leave(self, why: sqlite3.Error) -> None:
        """Take another database, brought up to the files.

        It is a copy of one that cannot be written now, and a new one in place of a damaged one.
        """
        rows: list[tuple[Any, ...]] = []
        held = isinstance(why, sqlite3.OperationalError)  # or read only, or the disk is full
        if held:
            with contextlib.suppress(sqlite3.Error):
                rows = self.database.execute("SELECT * FROM points").fetchall()
        self.database.close()
        if not held and self.writable:
            self._remove()
        self.database = _in_memory() if held else self._opened()
        self._change(rows, [])
        self.broken = self._refresh()

    # ------------------------------------------------------------------ from the files

    def _refresh(self) -> int:
        """Bring the index up to the files; returns how many of them are broken."""
        broken, seen = 0, []
        for folder, entries in self.files():
            seen.append(folder)
            known = {
                key: (size, mtime, status)
                for key, size, mtime, status in self.database.execute(
                    "SELECT key, size, mtime, status FROM points WHERE key >= ? AND key < ?",
                    (folder, f"{folder}g"),  # g follows the hexadecimal digits
                )
            }
            fresh = []
            for entry in entries:
                size, mtime, status = known.pop(entry.key, (0, 0, ""))
                if (size, mtime) != entry[1:]:
                    record = self.read(entry.key)
                    fresh.append(_row(entry, record))
                    status = fresh[-1][3]
                broken += status == "broken"
            self._change(fresh, list(known))
        self._forget_folders(seen)
        return broken

    def _change(self, fresh: Sequence[tuple[Any, ...]], gone: Sequence[str]) -> None:
        if not fresh and not gone:
            return
        with self.database:
            self.database.executemany("DELETE FROM points WHERE key = ?", [(key,) for key in gone])
            self.database.executemany(
                "INSERT OR REPLACE INTO points VALUES (?, ?, ?, ?, ?, ?, ?)", fresh
            )

    def _forget_folders(self, seen: Sequence[str]) -> None:
        there = self.database.execute("SELECT DISTINCT substr(key, 1, 2) FROM points").fetchall()
        gone = [(name, f"{name}g") for (name,) in there if name not in set(seen)]
        if gone:
            with self.database:
                self.database.executemany("DELETE FROM points WHERE key >= ? AND key < ?", gone)

    def add(self, written: Sequence[tuple[Entry, Record]]) -> None:
        """Tell of files that were just written."""
        try:
            self._change([_row(entry, record) for entry, record in written], [])
        except sqlite3.Error as error:
            self._leave(error)

    # ------------------------------------------------------------------ asked

    def status(self, keys: Sequence[str]) -> dict[str, str]:
        """``done`` or ``failed`` of the keys that are stored whole."""
        marks = ", ".join("?" * len(keys))
        return dict(
            self._asked(
                f"SELECT key, status FROM points WHERE key IN ({marks}) AND status != 'broken'",
                *keys,
            )
        )

    def counted(self, keys: Sequence[str]) -> Counter[str]:
        """How many of the keys are ``done`` and ``failed``."""
        found: Counter[str] = Counter()
        for start in range(0, len(keys), LOOK_UP):
            found.update(self.status(keys[start : start + LOOK_UP]).values())
        return found

    def rows(self, status: str = "done") -> Iterator[Row]:
        """All points of a status, by key."""
        for key, is_now, model, message, columns in self._asked(
            "SELECT key, status, model, message, columns FROM points WHERE status = ? ORDER BY key",
            status,
        ):
            yield Row(key, is_now, model, message, msgspec.json.decode(columns))

    def models(self) -> list[str]:
        """Versions of the model, the one that was written last first."""
        return [
            model
            for model, _ in self._asked(
                "SELECT model, MAX(mtime) AS last FROM points WHERE status != 'broken' "
                "GROUP BY model ORDER BY last DESC"
            )
        ]

    def counts(self) -> dict[str, int]:
        """How many points there are of each status."""
        return dict(self._asked("SELECT status, COUNT(*) FROM points GROUP BY status"))

    def _asked(self, query: str, *values: str) -> Iterator[tuple[Any, ...]]:
        """The rows of a query; raises InputError if the index was damaged since it was opened."""
        try:
            yield from self.database.execute(query, values)
        except sqlite3.Error as error:
            raise InputError(
                f"{self.path} cannot be read: {error}; start again, and delete it if that does not "
                "help: it is made again from the points"
            ) from None

    def close(self) -> None:
        """Close the database."""
        self.database.close()


def _row(entry: Entry, record: Record | None) -> tuple[Any, ...]:
    if record is None or record.key != entry.key:
        return (*entry, "broken", "", "", "{}")
    fields = {f"machine.{name}": value for name, value in record.fields.items()}
    columns = {**fields, **record.values, **record.measures}
    return (
        *entry,
        record.status,
        record.model,
        record.message,
        msgspec.json.encode(columns).decode(),
    )


def _table_of(database: sqlite3.Connection) -> str | None:
    """How the table was made, if there is one."""
    found = database.execute("SELECT sql FROM sqlite_master WHERE name = 'points'").fetchone()
    return None if found is None else str(found[0])


def _in_memory() -> sqlite3.Connection:
    database = sqlite3.connect(":memory:")
    database.execute(TABLE)
    return database


def _quoted(path: Path) -> str:
    from urllib.parse import quote

    return quote(str(path.absolute()))
