"""Does a search find what is best, keep to its constraints, and go on where it was left?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sweep.sweeps import TOY, files

import sparqsim
from sparqsim.base import InputError
from sparqsim.scripts.sweep import runner
from sparqsim.scripts.sweep.expression import Expression

pytest.importorskip("optuna", reason="needs the extra `search`")

from sparqsim.scripts.sweep.search import violation


def search(method: str, **more: Any) -> dict[str, Any]:
    """Of the toy with the fewest cycles."""
    block = {
        "work": "gemm:4x4x4",
        "verify": False,
        "machine": {"name": TOY, "size": {"from": 1, "to": 400}},
    }
    asked = {"method": method, "trials": 32, "generation": 8, "minimise": ["cycles"], **more}
    return {"block": [block], "search": asked}


@pytest.mark.parametrize("method", ["tpe", "nsga2", "random", "cmaes"])
def test_a_search_is_repeated_from_its_seed(tmp_path: Path, method: str) -> None:
    """Stopped after some points and taken up again it comes to the points of one that was not; a
    second time nothing is run."""
    if method == "cmaes":
        pytest.importorskip("cmaes")
    whole = sparqsim.sweep(search(method), tmp_path / "whole", workers=0)
    parts = tmp_path / "parts"
    sparqsim.sweep(search(method), parts, workers=0, limit=11)
    assert len(files(parts)) == 11
    sparqsim.sweep(search(method), parts, workers=0)
    assert files(parts) == files(tmp_path / "whole") and 8 < len(whole) <= 32


def test_a_search_finds_the_least_that_is_allowed(tmp_path: Path) -> None:
    """Fewer cycles are better, but at least 100 are asked for: found are more such points than
    chance would give, and the best is near."""
    asked = search("tpe", trials=64, constraints=["cycles >= 100"])
    points = sparqsim.sweep(asked, tmp_path, workers=0)
    allowed = sorted(size for size in points.column("cycles") if size >= 100)
    assert allowed[0] < 110 and sum(size < 160 for size in allowed) > 64 * 60 / 400 * 1.5


def test_a_search_passes_over_points_without_a_number(tmp_path: Path) -> None:
    """A measure may be a formula; what fails, or has no value of it, is a proposal that failed."""
    formula = "cycles / (1 if size > 100 else 0)"
    points = sparqsim.sweep(search("tpe", minimise=[formula]), tmp_path, workers=0)
    sizes = points.column("cycles")
    assert min(sizes) <= 100 < max(sizes)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"minimise": ["sqnr_db"]}, r"\(search\): 'sqnr_db' is no number of the report"),
        ({"minimise": ["cycles +"]}, r"search.minimise\[1\]\): 'cycles \+' is no expression"),
        ({"constraints": ["bound_by < 3"]}, r"search.constraints\[1\]\): .*no value here"),
    ],
)
def test_a_search_for_what_no_point_has_ends_at_once(
    tmp_path: Path, more: dict[str, Any], message: str
) -> None:
    """After its first generation, with an error message; so does one whose space is empty."""
    with pytest.raises(InputError, match=message):
        sparqsim.sweep(search("random", trials=10**6, **more), tmp_path, workers=0)
    assert len(files(tmp_path)) <= 8
    empty = search("random", trials=16)
    empty["block"][0]["where"] = ["size > 1000"]
    with pytest.raises(InputError, match=r"block\[1\].where\): no proposal meets"):
        sparqsim.sweep(empty, tmp_path, workers=0)


def test_generations_share_their_processes(tmp_path: Path, monkeypatch) -> None:
    """One is started for each worker, not for each generation."""
    starts: list[int] = []
    original = runner.fresh

    def fresh() -> runner.Process:
        starts.append(1)
        return original()

    monkeypatch.setattr(runner, "fresh", fresh)
    assert len(sparqsim.sweep(search("random", trials=24), tmp_path, workers=1)) > 16
    assert len(starts) == 1


def test_two_aims(tmp_path: Path) -> None:
    """Fewer cycles and more cycles: everything is a compromise, and all of it is stored."""
    asked = search("nsga2", maximise=["machine.size"])
    assert len(sparqsim.sweep(asked, tmp_path, workers=0)) > 8


def test_what_cannot_be_searched_is_an_error_message(tmp_path: Path) -> None:
    """A measure that is none; names by a method for numbers; no space at all."""
    with pytest.raises(InputError, match=r"'cykles' is no number of the report.*cycles"):
        sparqsim.sweep(search("tpe", minimise=["cykles"]), tmp_path, workers=0)
    names = search("cmaes")
    names["block"][0]["machine"]["how"] = ["fine", "refused"]
    with pytest.raises(InputError, match=r"machine.how is a list of names"):
        sparqsim.sweep(names, tmp_path, workers=0)
    fixed = search("tpe")
    fixed["block"][0]["machine"]["size"] = 3
    with pytest.raises(InputError, match="nothing varies"):
        sparqsim.sweep(fixed, tmp_path, workers=0)


@pytest.mark.parametrize(
    ("text", "by"),
    [("a >= 5", 2), ("a <= 5", -2), ("a < 3", 1), ("a > 1", -2), ("a == 4", 1), ("a in [3]", 0)],
)
def test_a_violation_says_by_how_much(text: str, by: float) -> None:
    """Of a = 3; what is no order is met or not."""
    assert violation(Expression(text), {"a": 3}.__getitem__) == by
