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

if TYPE_CHECKING:
    from sparqsim.scripts.sweep.store import Record

NAME = "index.sqlite"
LAYOUT = 1  # of the tables; an index of another layout is made anew
LOOK_UP = 500  # keys at once
WAIT_SECONDS = 30.0  # for another sweep that writes
TABLE = """
CREATE TABLE IF NOT EXISTS points (
    key TEXT PRIMARY KEY, size INTEGER, mtime INTEGER, status TEXT, model TEXT, message TEXT,
    columns TEXT
) WITHOUT ROWID
"""


class Entry(NamedTuple):
    """A file: its key, bytes and time of change in nanoseconds."""

    key: str
    size: int
    mtime: int


Folders = Callable[[], Iterable[tuple[str, list[Entry]]]]  # lists the files, as often as asked


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
    writable
        Whether the index may be kept there.
    """

    def __init__(self, folder: Path, *, writable: bool) -> None:
        self.folder = folder
        self.database = self._opened(folder / NAME, writable)

    def _opened(self, path: Path, writable: bool) -> sqlite3.Connection:
        mode = "rwc" if writable else "ro"
        for attempt in range(2):
            try:
                database = sqlite3.connect(
                    f"file:{_quoted(path)}?mode={mode}", uri=True, timeout=WAIT_SECONDS
                )
                if self._is_ours(database, writable):
                    return database
                database.close()
            except sqlite3.Error:
                pass
            if not writable or attempt:
                break
            with contextlib.suppress(OSError):
                path.unlink()
        database = sqlite3.connect(":memory:")
        self._is_ours(database, True)
        return database

    def _is_ours(self, database: sqlite3.Connection, writable: bool) -> bool:
        """Whether the tables are as this version makes them; they are made where there are none."""
        layout = database.execute("PRAGMA user_version").fetchone()[0]
        if layout == 0 and writable:
            database.execute("PRAGMA synchronous = OFF")  # it can be made again from the files
            with database:
                database.execute(TABLE)
                database.execute(f"PRAGMA user_version = {LAYOUT}")
            return True
        database.execute(
            "SELECT key, size, mtime, status, model, message, columns FROM points LIMIT 1"
        )
        return bool(layout == LAYOUT)

    # ------------------------------------------------------------------ from the files

    def refresh(self, folders: Folders, read: Callable[[str], Record | None]) -> int:
        """Bring the index up to the files; returns how many of them are broken."""
        try:
            return self._refresh(folders(), read)
        except sqlite3.OperationalError:  # read only, or held by another sweep: a private one
            memory = sqlite3.connect(":memory:")
            with contextlib.suppress(sqlite3.Error):
                self.database.backup(memory)
            self.database.close()
            self.database = memory
            self.database.execute(TABLE)
            return self._refresh(folders(), read)

    def _refresh(
        self,
        folders: Iterable[tuple[str, list[Entry]]],
        read: Callable[[str], Record | None],
    ) -> int:
        broken, seen = 0, []
        for folder, entries in folders:
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
                    record = read(entry.key)
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
        """Tell of files that were just written; one that cannot be told is found when next read."""
        with contextlib.suppress(sqlite3.OperationalError):
            self._change([_row(entry, record) for entry, record in written], [])

    # ------------------------------------------------------------------ asked

    def status(self, keys: Sequence[str]) -> dict[str, str]:
        """``done`` or ``failed`` of the keys that are stored whole."""
        marks = ", ".join("?" * len(keys))
        rows = self.database.execute(
            f"SELECT key, status FROM points WHERE key IN ({marks}) AND status != 'broken'",
            tuple(keys),
        )
        return dict(rows.fetchall())

    def counted(self, keys: Sequence[str]) -> Counter[str]:
        """How many of the keys are ``done`` and ``failed``."""
        found: Counter[str] = Counter()
        for start in range(0, len(keys), LOOK_UP):
            found.update(self.status(keys[start : start + LOOK_UP]).values())
        return found

    def rows(self, status: str = "done") -> Iterator[Row]:
        """All points of a status, by key."""
        for key, found, model, message, columns in self.database.execute(
            "SELECT key, status, model, message, columns FROM points WHERE status = ? ORDER BY key",
            (status,),
        ):
            yield Row(key, found, model, message, msgspec.json.decode(columns))

    def models(self) -> list[str]:
        """Versions of the model, the one that was written last first."""
        return [
            model
            for model, _ in self.database.execute(
                "SELECT model, MAX(mtime) AS last FROM points WHERE status != 'broken' "
                "GROUP BY model ORDER BY last DESC"
            )
        ]

    def counts(self) -> dict[str, int]:
        """How many points there are of each status."""
        return dict(self.database.execute("SELECT status, COUNT(*) FROM points GROUP BY status"))

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


def _quoted(path: Path) -> str:
    from urllib.parse import quote

    return quote(str(path.absolute()))
