"""Is what was stored safe, and never run again? Files are whole or not there, the index follows
them, failures are kept and retried, sweeps may share a store."""

from __future__ import annotations

import errno
import os
import sqlite3
from pathlib import Path

import pytest
from sweep.sweeps import TOY, files, toys

import sparqsim
from sparqsim.base import InputError
from sparqsim.scripts.sweep import index as index_module
from sparqsim.scripts.sweep import store as store_module
from sparqsim.scripts.sweep.store import Record, Store, decoded, encoded


def ran(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Keys of the points that are run from now on."""
    from sparqsim.scripts.sweep import processes

    found: list[str] = []
    original = processes.record_of

    def record_of(bench, point, model):
        found.append(point.key)
        return original(bench, point, model)

    monkeypatch.setattr(processes, "record_of", record_of)
    return found


def test_points_are_run_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What exists is not run again; a larger sweep runs what is new; a limit is kept to."""
    found = ran(monkeypatch)
    assert len(sparqsim.sweep(toys([1, 2, 3]), tmp_path, workers=0, limit=2)) == 2
    assert len(sparqsim.sweep(toys([1, 2, 3]), tmp_path, workers=0)) == 3
    points = sparqsim.sweep(toys([3, 4]), tmp_path, workers=0)
    assert len(found) == len(set(found)) == 4
    assert sorted(points.column("cycles")) == [3, 4]
    assert sorted(sparqsim.open_store(tmp_path).column("cycles")) == [1, 2, 3, 4]


@pytest.mark.parametrize("how", ["cut", "empty", "changed", "renamed", "absent"])
def test_a_broken_file_is_seen_and_redone(tmp_path: Path, monkeypatch, how: str) -> None:
    """A truncated file, a changed one, one under another's name: not counted, run again, and the
    bytes are as they were."""
    sparqsim.sweep(toys([1, 2, 3]), tmp_path, workers=0)
    before = files(tmp_path)
    victim, other = sorted((tmp_path / "points").rglob("*.json"))[:2]
    content = victim.read_bytes()
    changed = {
        "cut": content[: len(content) // 2],
        "empty": b"",
        "changed": content.replace(b'"cycles":', b'"cycles":1'),
        "renamed": other.read_bytes(),
    }
    if how == "absent":
        victim.unlink()
    else:
        victim.write_bytes(changed[how])
    assert len(sparqsim.open_store(tmp_path)) == 2
    found = ran(monkeypatch)
    assert len(sparqsim.sweep(toys([1, 2, 3]), tmp_path, workers=0)) == 3
    assert found == [victim.stem] and files(tmp_path) == before


@pytest.mark.parametrize("how", ["absent", "garbage", "damaged", "older", "wider", "empty"])
def test_the_index_can_be_made_again(tmp_path: Path, monkeypatch, how: str) -> None:
    """From the files alone, whatever became of it."""
    sparqsim.sweep(toys([1, 2, 3]), tmp_path, workers=0)
    index = tmp_path / "index.sqlite"
    content = index.read_bytes()
    index.unlink()
    if how == "garbage":
        index.write_bytes(b"no database at all" * 100)
    elif how == "damaged":  # its last page, which is seen only when it is asked for
        index.write_bytes(content[:-4096] + bytes(4096))
    elif how == "empty":
        index.write_bytes(b"")
    elif how == "older":
        with sqlite3.connect(index) as database:
            database.execute("CREATE TABLE points (key TEXT)")
    elif how == "wider":
        with sqlite3.connect(index) as database:
            database.execute(index_module.TABLE.replace("columns TEXT", "columns TEXT, more TEXT"))
    found = ran(monkeypatch)
    assert len(sparqsim.sweep(toys([1, 2, 3]), tmp_path, workers=0)) == 3 and not found
    with sqlite3.connect(index) as database:
        assert database.execute("SELECT COUNT(*) FROM points").fetchone() == (3,)


def test_an_index_that_is_held_is_done_without(tmp_path: Path, monkeypatch) -> None:
    """By another program: points are run, stored and counted all the same."""
    monkeypatch.setattr(index_module, "WAIT_SECONDS", 0.1)
    sparqsim.sweep(toys([1, 2]), tmp_path, workers=0)
    holder = sqlite3.connect(tmp_path / "index.sqlite", isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    assert len(sparqsim.sweep(toys([1, 2, 3]), tmp_path, workers=0)) == 3
    holder.close()
    assert len(sparqsim.open_store(tmp_path)) == len(files(tmp_path)) == 3


def test_a_reader_sees_points_that_the_index_was_not_told_of(tmp_path: Path) -> None:
    """It may not write the index, so it reads those files itself: the first of them too."""
    sparqsim.sweep(toys([1, 2, 3]), tmp_path, workers=0)
    with sqlite3.connect(tmp_path / "index.sqlite") as database:
        database.execute("DELETE FROM points")
    assert sorted(sparqsim.open_store(tmp_path).column("cycles")) == [1, 2, 3]
    with sqlite3.connect(tmp_path / "index.sqlite") as database:
        assert database.execute("SELECT COUNT(*) FROM points").fetchone() == (0,)


def test_failures_are_stored_and_retried_on_request(tmp_path: Path, monkeypatch) -> None:
    """With the machine's own words, or the error's; the others are run all the same."""
    sweep = toys(1, how=["fine", "refused", "error"])
    points = sparqsim.sweep(sweep, tmp_path, workers=0)
    messages = sorted(row.message for row in points.failed)
    assert len(points) == 1 and messages[1] == "the toy was told to refuse"
    assert messages[0].startswith("RuntimeError in toy_machine.py, line ")
    found = ran(monkeypatch)
    sparqsim.sweep(sweep, tmp_path, workers=0)
    assert not found
    sparqsim.sweep(sweep, tmp_path, workers=0, retry_failed=True)
    assert sorted(found) == sorted(row.key for row in points.failed)


def test_another_model_is_another_key(tmp_path: Path, monkeypatch) -> None:
    """The points of the older version stay, and are not mixed with the newer's."""
    from sparqsim.scripts.sweep import plan, points, processes, runner

    sparqsim.sweep(toys([1, 2]), tmp_path, workers=0)
    for module in (plan, points, processes, runner):
        if hasattr(module, "model_version"):
            monkeypatch.setattr(module, "model_version", lambda machine: "another")
    sparqsim.sweep(toys([2]), tmp_path, workers=0)
    assert len(files(tmp_path)) == 3
    points_now = sparqsim.open_store(tmp_path)
    assert points_now.versions == 2 and points_now.column("cycles") == [2]


def test_a_full_disk_ends_the_sweep_and_leaves_no_part(tmp_path: Path, monkeypatch) -> None:
    """What was stored stays, the message says what to do, and it goes on when there is room."""
    sparqsim.sweep(toys([1]), tmp_path, workers=0)

    def full(file: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(store_module.os, "fsync", full)
        with pytest.raises(InputError, match=r"No space left.*make room.*what is stored is kept"):
            sparqsim.sweep(toys([1, 2]), tmp_path, workers=0)
    assert len(files(tmp_path)) == 1 and not list(tmp_path.rglob("*.part"))
    assert len(sparqsim.sweep(toys([1, 2]), tmp_path, workers=0)) == 2


def test_a_store_that_cannot_be_written_is_read(tmp_path: Path, monkeypatch) -> None:
    """Its points are seen even without an index; a sweep is refused at once."""
    sparqsim.sweep(toys([1, 2]), tmp_path, workers=0)
    (tmp_path / "index.sqlite").unlink()
    before = set(tmp_path.rglob("*"))
    assert len(sparqsim.open_store(tmp_path)) == 2 and set(tmp_path.rglob("*")) == before
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(InputError, match="permission denied"):
        sparqsim.sweep(toys([1, 2, 3]), tmp_path, workers=0)
    with pytest.raises(InputError, match="there is no store"):
        sparqsim.open_store(tmp_path / "none")


def test_a_record_is_itself_or_nothing() -> None:
    """Whatever single byte of its file is lost or changed."""
    record = Record(key="0" * 32, model="m", values={"a": 1}, fields={}, status="done")
    content = encoded(record)
    assert decoded(content) == record
    inside = content.index(b'"record":') + len(b'"record":')
    for place in range(inside, len(content) - 2):
        assert decoded(content[:place]) is None
        changed = content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]
        assert decoded(changed) is None


def test_a_table_goes_to_other_programs(tmp_path: Path) -> None:
    """CSV, Parquet, pandas and polars have one row per point and the same columns."""
    points = sparqsim.sweep(toys([1, 2, 3], how=["fine"]), tmp_path / "store", workers=0)
    points.csv(str(tmp_path / "a.csv"))
    head, *lines = (tmp_path / "a.csv").read_text().splitlines()
    columns = ["key", *points.columns]
    assert head.split(",") == columns and len(lines) == 3
    pandas = pytest.importorskip("pandas")
    frame = points.pandas()
    assert list(frame.columns) == columns and sorted(frame["cycles"]) == [1, 2, 3]
    polars = pytest.importorskip("polars")
    assert points.polars().columns == columns
    pytest.importorskip("pyarrow")
    points.parquet(str(tmp_path / "a.parquet"))
    assert pandas.read_parquet(tmp_path / "a.parquet").equals(frame)
    assert polars.read_parquet(tmp_path / "a.parquet").equals(points.polars())


def test_any_number_of_a_report_is_a_column(tmp_path: Path) -> None:
    """By its short name, the end of a dotted one, or its path in the JSON."""
    points = sparqsim.sweep(toys([1, 2]), tmp_path, workers=0)
    assert points.name("size") == "machine.size" and TOY in points.distinct("machine")
    assert points.column("stalls.a.busy") == points.column("size")
    assert points.report(points.done[0].key).cycles == points.column("cycles")[0]
    with pytest.raises(InputError, match=r"no name.*'nothing'"):
        points.column("nothing")


def test_two_stores_open_at_once(tmp_path: Path) -> None:
    """What one writes the other sees when it looks again."""
    with Store(tmp_path, create=True) as one, Store(tmp_path, create=True) as two:
        record = Record(key="ab" * 16, model="m", values={}, fields={}, status="done")
        one.write([(record, encoded(record))])
        assert two.index.status([record.key]) == {record.key: "done"}


def test_a_report_is_read_as_what_it_is(tmp_path: Path) -> None:
    """A layer's, of a machine with rows; a network's; both as ``run`` gives them."""
    fields = {"name": "plain", "rows": 8}
    for work in ("gemm:4x4x4", "bitfusion/lenet5"):
        block = {"work": work, "verify": False, "machine": fields}
        (row,) = sparqsim.sweep({"block": [block]}, tmp_path, workers=0).rows()
        report = sparqsim.open_store(tmp_path).report(row["key"])
        machine = sparqsim.machine("plain", rows=8)
        expected = sparqsim.run(machine, work, verify=False)
        assert type(report) is type(expected)
        if work != "gemm:4x4x4":  # a layer of a sweep keeps sums alone, without a critical path
            assert report == expected
