"""Does the report of all validations count what they say, and say it whole?"""

from __future__ import annotations

import importlib
import math
from pathlib import Path

import click
import msgspec
import pytest
from click.testing import CliRunner
from scipy.stats import spearmanr

from sparqsim.base import InputError
from sparqsim.scripts import validate
from sparqsim.scripts.validation import _book as book
from sparqsim.scripts.validation import _page as page
from sparqsim.scripts.validation._evidence import (
    Evidence,
    Number,
    Table,
    numbers_of,
    spearman,
    statistics_of,
)

ROWS = {
    "rows": [
        {"layer": "a", "paper": 10, "ours": 11, "ok": True, "fit": False},
        {"layer": "b", "paper": 20, "ours": 15, "ok": False, "fit": False},
        {"layer": "c", "paper": 40, "ours": [38, 42], "ok": None, "fit": False},
        {"layer": "d", "paper": 50, "ours": 99, "ok": True, "fit": True},
        {"layer": "e", "paper": 0, "ours": 1, "ok": None, "fit": False},
    ]
}
TABLE = Table(
    title="t", name="{layer}", published=("paper",), simulated="ours", held="ok", fitted="fit"
)


def test_numbers_have_their_state_and_error() -> None:
    """Held, missed, shown or fitted; a mean of several; no relative error over a published 0."""
    found = numbers_of(ROWS, TABLE)
    assert [each.state for each in found] == ["held", "missed", "shown", "fitted", "shown"]
    assert [each.error for each in found] == pytest.approx([0.1, -0.25, 0.0, 0.98, None])


def test_a_published_range_is_held_at_its_nearer_end() -> None:
    """Within the range there is no error; outside, the nearer end counts."""
    table = Table(title="t", name="{n}", published=("low", "high"), simulated="ours")
    rows = [{"n": n, "low": 2, "high": 4, "ours": ours} for n, ours in enumerate((3, 1, 5))]
    assert [each.error for each in numbers_of({"rows": rows}, table)] == [0, -0.5, 0.25]


def test_statistics_leave_out_what_was_fitted() -> None:
    """MAPE, rank and maximum by hand over the numbers that are free."""
    found = statistics_of("all", numbers_of(ROWS, TABLE))
    assert (found.numbers, found.held, found.missed, found.shown, found.fitted) == (5, 1, 1, 2, 1)
    assert found.mape == pytest.approx((0.1 + 0.25 + 0) / 3)
    assert found.maximum == pytest.approx(-0.25) and found.worst == "b"
    assert found.spearman == pytest.approx(1.0)
    assert statistics_of("none", []).mape is None


def test_rank_correlation_is_that_of_scipy() -> None:
    """Ties share the mean of their ranks."""
    theirs, ours = [1, 2, 2, 5, 9, 3], [2.0, 2.5, 2.5, 1.0, 7.0, 7.0]
    assert spearman(theirs, ours) == pytest.approx(spearmanr(theirs, ours).statistic)
    assert spearman([1, 2], [1, 2]) is None


def test_every_validation_says_where_its_numbers_are() -> None:
    """Each module has at least one table, and only the flags that its command has."""
    for name in validate.validations():
        module = importlib.import_module(book.module_of(name))
        assert module.EVIDENCE and all(each.tables for each in module.EVIDENCE), name
        options = {option for each in module.command.params for option in each.opts}
        for evidence in module.EVIDENCE:
            given = {each for each in evidence.arguments if each.startswith("--")}
            given |= {"--figures"} if evidence.figures else set()
            assert given | {"--json"} <= options, name


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two validations in a process of this test: one runs, one fails."""

    @click.command()
    @click.option("--json", "path")
    def runs(path: str) -> None:
        Path(path).write_bytes(msgspec.json.encode(ROWS))
        print("a table")

    @click.command()
    @click.option("--json", "path")
    def fails(path: str) -> None:
        raise InputError("the table is not there")

    class Here(book.ProcessPoolExecutor):
        """Runs at once, so that the two commands above are known."""

        def submit(self, function, /, *arguments):  # type: ignore[no-untyped-def]
            from concurrent.futures import Future

            done: Future = Future()
            done.set_result(function(*arguments))
            return done

    for name, command in (("tpu", runs), ("eie", fails)):
        module = importlib.import_module(book.module_of(name))
        monkeypatch.setattr(module, "command", command)
        monkeypatch.setattr(module, "EVIDENCE", (Evidence(tables=(TABLE,)),))
    monkeypatch.setattr(book, "ProcessPoolExecutor", Here)
    monkeypatch.setattr(validate, "validations", lambda: ("tpu", "eie"))


def test_the_report_holds_numbers_tables_misses_and_failures(small: None, tmp_path: Path) -> None:
    """Exit code 1 where a validation fails; the page and the JSON say the same all the same."""
    result = CliRunner().invoke(
        validate.command, ["--all", "--report", str(tmp_path / "out"), "--jobs", "1"]
    )
    assert result.exit_code == 1 and "the table is not there" in result.output
    made = msgspec.json.decode((tmp_path / "out" / "validation.json").read_bytes(), type=book.Book)
    assert [(each.validation, each.total.numbers) for each in made.summaries] == [("tpu", 5)]
    assert [each.number.name for each in made.unsupported] == ["b", "e"]
    assert (tmp_path / "out" / "tables" / "tpu.txt").read_text() == "a table\n"
    for text in (page.markdown(made), page.page(made)):
        assert "the table is not there" in text and "-25.0 %" in text
    assert "http" not in (tmp_path / "out" / "index.html").read_text()
    assert (tmp_path / "out" / "figures" / "errors.svg").read_text().startswith("<?xml")


@pytest.mark.parametrize(
    "arguments", [["--all"], ["--report", "x"], ["--jobs", "2"], ["--all", "--report", "x", "tpu"]]
)
def test_options_that_would_do_nothing_are_refused(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """--all, --report and --jobs go together, without a name."""
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(validate.command, arguments)
    assert isinstance(result.exception, InputError) and "go together" in str(result.exception)


@pytest.mark.slow
def test_every_table_is_made_within_ten_minutes(validated: Path) -> None:
    """All validations in two processes: none fails, none differs, every table has numbers."""
    made = msgspec.json.decode((validated / "validation.json").read_bytes(), type=book.Book)
    assert {run.name for run in made.runs} == {*validate.validations()}
    assert [run.command for run in made.runs if run.failed or run.differs] == []
    assert all(table.numbers for run in made.runs for table in run.tables)
    assert sum(run.cpu_seconds for run in made.runs) < 2 * 600
    exact = [each for each in made.runs if "layers.csv" in each.command or each.name == "systolic"]
    assert len(exact) == 3
    for run in exact:
        errors = [number.error for table in run.tables for number in table.numbers]
        assert all(error is not None and math.isclose(error, 0, abs_tol=1e-3) for error in errors)


def test_a_number_without_bound_that_is_far_off_supports_nothing() -> None:
    """Missed, or shown and more than 15 % off, or without a relative error at all."""
    states = (("held", 0.5), ("shown", 0.1), ("fitted", 9.0))
    made = [Number(name="n", quantity="q", published=1, simulated=1 + error, error=error,
                   state=state) for state, error in states]  # type: ignore[arg-type]  # fmt: skip
    assert not any(map(book.unsupported, made))
    far = msgspec.structs.replace(made[1], error=-0.2)
    assert book.unsupported(far) and book.unsupported(msgspec.structs.replace(far, error=None))
    assert book.unsupported(msgspec.structs.replace(made[0], state="missed"))
