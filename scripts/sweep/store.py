"""The store of a sweep: one content-addressed JSON file per point, which is the record.

::

    STORE/points/3f/3f09...json     {"sha256": ..., "record": {...}}
    STORE/index.sqlite              made from the files, and again whenever it is not there

A file is written beside its place, synced and renamed, so that a reader sees all of it or nothing;
its digest tells a file that was cut off or changed, which counts as not there and is run again. So
the store survives a killed process, a full disk and a power cut, and several sweeps may write into
it at once: what two of them run is the same bytes. A point that failed is stored with its message.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import msgspec
from msgspec import Raw, Struct

from sparqsim.base import InputError, output_folder
from sparqsim.scripts.sweep.index import Entry, Index
from sparqsim.scripts.sweep.points import KEY_DIGITS

WRITERS = 4  # threads that wait for the disk
POINTS = "points"
TEMPORARY = ".part"
LEFT_SECONDS = 3600.0  # after which an unfinished file is one that nobody goes on with


class Record(Struct, frozen=True, kw_only=True):
    """What is stored of a point.

    Attributes
    ----------
    values
        What the sweep's file gave, by dotted names.
    fields
        The whole configuration of the machine.
    model
        The version of the model that ran it.
    status, message
        Whether it was done or failed, and why.
    measures
        The report's numbers by short names.
    report
        As ``sparqsim run --json`` writes it; null of a point that failed.
    """

    key: str
    model: str
    values: dict[str, Any]
    fields: dict[str, Any]
    status: Literal["done", "failed"]
    message: str = ""
    measures: dict[str, Any] = {}
    report: Raw = Raw(b"null")


class _File(Struct, frozen=True):
    sha256: str
    record: Raw


def encoded(record: Record) -> bytes:
    """The bytes of a record's file."""
    body = msgspec.json.encode(record)
    digest = hashlib.sha256(body).hexdigest().encode()
    return b'{"sha256":"' + digest + b'","record":' + body + b"}\n"


def decoded(content: bytes) -> Record | None:
    """The record of a file, or None where the file is not as it was written."""
    try:
        file = msgspec.json.decode(content, type=_File)
        if hashlib.sha256(file.record).hexdigest() != file.sha256:
            return None
        return msgspec.json.decode(file.record, type=Record)
    except msgspec.MsgspecError:
        return None


class Store:
    """A folder of points.

    Parameters
    ----------
    path
        Of the folder.
    create
        Make it where there is none, and write into it. Else it is read only, and the index may be
        kept in memory.

    Raises
    ------
    InputError
        If it cannot be read, or written where that is asked for.
    """

    def __init__(self, path: str | os.PathLike[str], *, create: bool = False) -> None:
        self.path = Path(path)
        if create:
            output_folder(self.path / POINTS)
        elif not (self.path / POINTS).is_dir():
            raise InputError(f"there is no store {self.path}; a sweep makes one")
        self.writable = create
        self.writers: ThreadPoolExecutor | None = None
        self.mark = secrets.token_hex(8)  # of its unfinished files, whoever else writes
        self.index = Index(self.path, self._entries, self.read, writable=create)

    def file(self, key: str) -> Path:
        """Where a point's file is or would be."""
        return self.path / POINTS / key[:2] / f"{key}.json"

    def read(self, key: str) -> Record | None:
        """The record of a point; None where there is none, or a broken one."""
        try:
            return decoded(self.file(key).read_bytes())
        except OSError:
            return None

    def write(self, contents: Sequence[tuple[Record, bytes]]) -> None:
        """Write files of points, whole and synced; then tell the index.

        Raises
        ------
        InputError
            If the disk is full or the store cannot be written; what was written before stays.
        """
        if self.writers is None:
            self.writers = ThreadPoolExecutor(WRITERS, thread_name_prefix="store")
        try:
            for folder in {self.file(record.key).parent for record, _ in contents}:
                folder.mkdir(exist_ok=True)
            entries = list(self.writers.map(self._write, contents))
        except OSError as error:
            full = "; make room on the disk" if error.errno == errno.ENOSPC else ""
            raise InputError(
                f"cannot write into the store {self.path}: {error.strerror}{full}, and start the "
                "sweep again: what is stored is kept"
            ) from None
        self.index.add(entries)

    def _write(self, content: tuple[Record, bytes]) -> tuple[Entry, Record]:
        record, data = content
        path = self.file(record.key)
        temporary = path.with_name(f"{record.key}.{self.mark}{TEMPORARY}")
        try:
            with open(temporary, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
                told = os.fstat(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
        return Entry(record.key, told.st_size, told.st_mtime_ns), record

    def close(self) -> None:
        """Wait for the disk, and close the index."""
        if self.writers is not None:
            self.writers.shutdown()
        self.index.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _sweep_away(self, file: os.DirEntry[str]) -> None:
        """Remove what a process that was killed left unfinished."""
        with contextlib.suppress(OSError):
            if file.stat().st_mtime < time.time() - LEFT_SECONDS:
                os.unlink(file)

    def _entries(self) -> Iterator[tuple[str, list[Entry]]]:
        """What files there are, a folder at a time: its two digits, and key, size and time."""
        try:
            folders = sorted(os.listdir(self.path / POINTS))
        except OSError as error:
            raise InputError(f"cannot read the store {self.path}: {error.strerror}") from None
        for folder in folders:
            found = []
            with contextlib.suppress(OSError), os.scandir(self.path / POINTS / folder) as files:
                for file in files:
                    name = file.name.removesuffix(".json")
                    if len(name) == KEY_DIGITS and file.name.endswith(".json"):
                        told = file.stat()
                        found.append(Entry(name, told.st_size, told.st_mtime_ns))
                    elif self.writable and file.name.endswith(TEMPORARY):
                        self._sweep_away(file)
            yield folder, found
