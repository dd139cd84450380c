"""Does what is shown of a store say what is in it? Figures, importances, the page, the commands."""

from __future__ import annotations

import base64
import json
import re
import zlib
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from sweep.sweeps import as_toml, toys

import sparqsim
from sparqsim.base import InputError
from sparqsim.scripts import cli
from sparqsim.scripts.sweep.file import Figure, load
from sparqsim.scripts.sweep.frame import Points
from sparqsim.scripts.sweep.importance import importances
from sparqsim.scripts.sweep.page import store_page
from sparqsim.scripts.sweep.plots import draw, draw_all, front, knee


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A grid of 4 sizes, 2 batches and 2 names; a failure."""
    path = tmp_path_factory.mktemp("store")
    sweep = toys([1, 2, 4, 8], how=["fine", "also fine"])
    sweep["block"][0]["work"] = {"name": "gemm:4x4x4", "batch": [1, 3]}
    sparqsim.sweep(sweep, path, workers=0)
    sparqsim.sweep(toys(16, how="refused"), path, workers=0)
    return path


@pytest.fixture
def points(store: Path) -> Points:
    """All of them."""
    return sparqsim.open_store(store)


def test_lines_go_through_the_points(points: Points) -> None:
    """A line for each value of hue, at each x the mean; over the first where that is asked for."""
    figure = Figure(name="f", x="size", y="2 * cycles", hue="how", panel="batch", log_x=True)
    drawn = draw(points, figure)
    lines = [line for ax in drawn.axes for line in ax.get_lines()]
    assert len(drawn.axes) == 2 and len(lines) == 4
    assert all(line.get_ydata().tolist() == [2, 4, 8, 16] for line in lines)
    first = draw(points, Figure(name="f", x="size", y="cycles", relative_to_first=True, knee=True))
    (line,) = first.axes[0].get_lines()  # it bends nowhere: no knee is marked
    assert line.get_ydata().tolist() == [1, 2, 4, 8]


def test_points_that_lack_what_a_figure_sorts_by_are_left_out(tmp_path: Path) -> None:
    """Two blocks of two machines in one store: along a parameter of one machine, the other's points
    are not drawn, in any kind of figure."""
    block = {"work": "gemm:4x4x4", "verify": False}
    sweep = {"block": [block | {"machine": {"name": "eie", "queue_slots": [2, 4], "pes": [2, 4]}},
                       block | {"machine": {"name": "bitfusion", "rows": [2, 4]}}]}  # fmt: skip
    found = sparqsim.sweep(sweep, tmp_path, workers=0)
    (lines,) = draw(found, Figure(name="f", x="queue_slots", y="cycles", hue="machine")).axes
    assert [line.get_xdata().tolist() for line in lines.get_lines()] == [[2, 4]]
    heat = draw(found, Figure(name="f", kind="heat", x="queue_slots", y="pes", value="cycles"))
    assert heat.axes[0].get_images()[0].get_array().shape == (2, 2)
    by_rows = draw(found, Figure(name="f", x="queue_slots", y="cycles", panel="pes"))
    assert len(by_rows.axes) == 2
    draw(found, Figure(name="f", kind="parallel"))
    draw(found, Figure(name="f", kind="pareto", x="queue_slots", y="cycles", hue="rows"))
    with pytest.raises(InputError, match=r"no point of the figure 'f' has 'rows \* pes'"):
        draw(found, Figure(name="f", x="cycles", y="seconds", hue="rows * pes"))


def test_a_heat_map_has_a_cell_for_each_pair(points: Points) -> None:
    """With the value of its points; what is not there is left blank."""
    where = "not (size == 8 and batch == 3)"
    figure = Figure(name="f", kind="heat", x="size", y="batch", value="cycles", where=where)
    (image,) = draw(points, figure).axes[0].get_images()
    cells = np.ma.filled(image.get_array(), np.nan)
    assert cells[:, :3].tolist() == [[1, 2, 4]] * 2 and cells[0, 3] == 8 and np.isnan(cells[1, 3])


def test_a_front_is_what_no_point_beats() -> None:
    """Of random costs, by comparing all with all; equals stay."""
    costs = np.random.default_rng(0).integers(0, 12, (60, 2)).astype(float)
    beaten = [
        any((other <= cost).all() and (other < cost).any() for other in costs) for cost in costs
    ]
    assert front(costs).tolist() == [place for place, each in enumerate(beaten) if not each]
    assert knee(np.array([1.0, 2, 4]), np.array([4.0, 2, 1])) is None
    assert knee(np.array([1.0, 2, 4]), np.array([4.0, 2, 1.95])) == 1


def test_every_kind_is_drawn_and_wrong_names_are_told(points: Points, tmp_path: Path) -> None:
    """Pareto and parallel coordinates; errors for a name that is none, text along an axis, and
    what a kind needs."""
    for figure in (
        Figure(name="f", kind="pareto", x="seconds", y="utilization", hue="how", log_x=True),
        Figure(name="f", kind="parallel", value="cycles"),
    ):
        assert draw(points, figure).axes
    for figure, message in (
        (Figure(name="f", x="sise", y="cycles"), "there is no name 'sise'"),
        (Figure(name="f", x="how", y="cycles"), "'how' is no number"),
        (Figure(name="f", kind="heat", x="size", y="batch"), "needs value"),
        (Figure(name="f", x="size", y="cycles", where="size > 99"), "no points to draw"),
    ):
        with pytest.raises(InputError, match=message):
            draw(points, figure)
    file = as_toml(toys(1), tmp_path / "a.toml")
    file.write_text(file.read_text() + '[[figure]]\nname = "one"\nx = "size"\ny = "cycles"\n')
    assert draw_all(points, load(file), tmp_path / "out") == [tmp_path / "out" / "one.png"]


def test_importance_on_a_grid_is_exact(points: Points) -> None:
    """Of y = cycles + 10 batch the variances add: the shares are theirs. A product shares more
    together than alone."""
    found = {each.name: each for each in importances(points, "cycles + 10 * batch")}
    cycles, batch = np.var([1, 2, 4, 8]), np.var([10, 30])
    assert found["machine.size"].first == pytest.approx(cycles / (cycles + batch))
    assert found["work.batch"].total == pytest.approx(batch / (cycles + batch))
    assert found["machine.how"].total == pytest.approx(0)
    product = {each.name: each for each in importances(points, "cycles * batch")}
    assert product["work.batch"].total > product["work.batch"].first + 0.01
    with pytest.raises(InputError, match="does not vary"):
        importances(points, "macs * 0")


@pytest.mark.slow
def test_importance_off_a_grid_is_by_permutation(points: Points) -> None:
    """What the measure does not depend on is lost without harm."""
    pytest.importorskip("sklearn")
    found = importances(points.only("size < 8 or batch == 1"), "cycles")
    assert found[0].name == "machine.size" and found[0].first is None
    assert all(each.total < 0.05 for each in found[1:])


def test_the_page_has_every_point_and_its_report(points: Points) -> None:
    """Rows to sort, reports to open, the front, and what failed; nothing from elsewhere."""
    text = store_page(points, "a <title>")
    pattern = r'<script type="application/json" id="reports">(.*?)</script>'
    (packed,) = re.findall(pattern, text)
    reports = {}
    for keys, piece in json.loads(packed):
        unpacked = json.loads(zlib.decompress(base64.b64decode(piece)))
        reports |= dict(zip(keys, unpacked, strict=True))
    found = [reports[row.key[:8]]["cycles"] for row in points.done]
    assert found == points.column("cycles") and len(found) == 16
    assert all(f"<code>{key}</code>" in text for key in reports)
    assert f"<h1>{points.path.name}: a &lt;title&gt;</h1>" in text
    assert "energy (pJ)" in text and "time (s)" in text
    assert "the toy was told to refuse" in text
    assert not re.search(r'(src|href)="http', text)


def test_the_commands(store: Path, tmp_path: Path, capsys, monkeypatch) -> None:
    """``sweep`` says what was run and the best of it, ``plot`` what there is, draws and writes."""
    monkeypatch.chdir(tmp_path)
    file = as_toml(toys([3, 5]), tmp_path / "a.toml")
    cli.main(["sweep", str(file), "--dry-run"])
    assert "2 points, 0 of them stored" in capsys.readouterr().out and not Path("out").exists()
    parquet = ["--parquet", "a.parquet"] if find_spec("pyarrow") else []
    cli.main(["sweep", str(file), "--workers", "0", *parquet])
    assert "2 points run, 0 of them failed; 2 of this sweep" in capsys.readouterr().out
    cli.main(["sweep", str(file), "--workers", "0", "--csv", "-"])
    assert len(capsys.readouterr().out.splitlines()) == 3
    cli.main(["plot", str(store)])
    told = capsys.readouterr().out
    assert "16 points, 1 failed" in told and "machine.size" in told
    options = ["--x", "size", "--y", "cycles", "--output", "a.svg", "--page", "a.html", "--failed"]
    cli.main(["plot", str(store), *options, "--importance", "cycles", "--csv", "a.csv"])
    told = capsys.readouterr().out
    assert "told to refuse" in told and "Sobol" in told
    assert Path("a.svg").read_bytes().startswith(b"<?xml") and Path("a.html").exists()
    for wrong, message in (
        (["sweep", str(file), "--scheduler", "tcp://x", "--local-cluster", "2"], "not both"),
        (["sweep", str(file), "--workers", "1", "--local-cluster", "2"], "changes nothing"),
        (["sweep", "eie_queue"], "did you mean eie_queues"),
        (["plot", str(tmp_path / "none")], "there is no store"),
        (["plot", str(store), "--hue", "how"], "--hue changes nothing without a figure"),
        (["plot", str(store), "--folder", "d"], "--folder changes nothing without --figures-of"),
        (["plot", str(store), "--title", "a"], "--title changes nothing without a figure or a"),
        (["plot", str(store), "--page", "w", "--csv", "w"], "would both be written to w"),
        (["plot", str(store), *options[:4], "--output", "w"], "must be named .png or .svg"),
        (["plot", str(store), "--x", "sise", "--y", "cycles", "--csv", "w"], "no name 'sise'"),
    ):
        with pytest.raises(SystemExit):
            cli.main(wrong)
        assert message in capsys.readouterr().err
    assert not Path("w").exists() and not Path("d").exists()
    cli.main(["sweep", "--list"])
    assert "eie_queues" in capsys.readouterr().out
    cli.main(["sweep", "--schema"])
    assert json.loads(capsys.readouterr().out)["title"] == "Sparqsim sweep"
