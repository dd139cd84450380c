"""Does ``explore`` compute what it shows, and does its page look it up?"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from pages.browser import needs_browser, opened

from sparqsim.architectures.network import run_network
from sparqsim.architectures.registry import get_machine
from sparqsim.scripts import cli
from sparqsim.workloads.work import load


@pytest.fixture(scope="module")
def explored(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, list[dict]]:
    """The page and the points of a small product on two machines, one without a DRAM to turn."""
    folder = tmp_path_factory.mktemp("explore")
    page, points = folder / "page.html", folder / "points.json"
    cli.main(["explore", str(page), "gemm:4x64x64", "--machines", "tpu,eie", "--batch", "1,2",
              "--bandwidth", "0.5,1", "--json", str(points)])  # fmt: skip
    return page.read_text(), json.loads(points.read_text())


def test_points_are_runs(explored: tuple[str, list[dict]]) -> None:
    """Each point is what a run of its choices gives; a machine whose bandwidth cannot be turned
    stands once a batch."""
    _, points = explored
    once = [("tpu", 0.5), ("tpu", 1), ("eie", 1)]
    found = [(point["batch"], point["machine"], point["bandwidth"]) for point in points]
    assert found == [(batch, *each) for batch in (1, 2) for each in once]
    tpu = get_machine("tpu")()
    half = tpu.resized(bandwidth=tpu.bandwidth() / 2)
    report = run_network(half, load("gemm:4x64x64", batch=1, numbers=False), verify=False)
    assert points[0]["seconds"] == report.totals.seconds
    assert points[0]["energy_pj"] == report.totals.energy.total_pj


def test_without_a_script_it_is_a_table(explored: tuple[str, list[dict]]) -> None:
    """One row per point; bytes of the model at each width against the platforms."""
    text, points = explored
    (body,) = re.findall(r"All points of the grid.*?<tbody>(.*?)</tbody>", text, re.DOTALL)
    assert body.count("<tr>") == len(points)
    assert "8.19 kB" in text and 'class="ok">fits' in text  # 64 x 64 weights at 16 bits


@needs_browser
def test_choices_are_looked_up(explored: tuple[str, list[dict]], tmp_path: Path) -> None:
    """Turning a choice shows the point that has it; the size of the model is weighed."""
    text, _ = explored
    probe = """
    const selects = [...document.querySelectorAll('#controls select')];
    const machine = selects.find(each => [...each.options].some(option => option.value === 'eie'));
    const cells = [...document.querySelectorAll('#facts dd')];
    const facts = () => cells.map(dd => dd.firstChild.textContent);
    found.first = facts();
    machine.value = 'eie';
    machine.dispatchEvent(new Event('change'));
    found.second = facts();
    found.words = document.getElementById('chosen').textContent;
    const input = document.querySelector('#size-controls input');
    input.value = '1000';
    input.dispatchEvent(new Event('input'));
    const row = [...document.querySelectorAll('.sizes tbody tr')][2];
    found.row = [...row.cells].map(cell => cell.textContent);
    """
    page = opened(text, tmp_path, probe)
    assert page.console == [] and page.found["requests"] == [] and "error" not in page.found
    assert page.found["first"] != page.found["second"] and "eie" in page.found["words"]
    assert page.found["row"][:3] == ["8", "1 TB", "100.0 %"]
    assert page.found["row"][5] == "41.7 times too large"


def test_what_cannot_be_explored_is_an_error_message(tmp_path: Path, capsys) -> None:
    """Numbers that are none, a grid that is too large, machines that run nothing of the work."""
    page = str(tmp_path / "page.html")
    for wrong, message in (
        (["gemm:4x8x8", "--machines", "tpu", "--batch", "1,x"], "--batch must be numbers"),
        (["gemm:4x8x8", "--machines", "tpu", "--bandwidth", "1,1"], "names a number twice"),
        (["gemm:4x8x8", "--machines", "tpu", "--batch", ",".join(map(str, range(1, 4000)))],
         "the grid has"),
        (["conv:4x6x6,4x3x3", "--machines", "eie"], "none of these machines runs"),
        (["nothing", "--machines", "tpu"], "nothing"),
    ):  # fmt: skip
        with pytest.raises(SystemExit):
            cli.main(["explore", page, *wrong])
        assert message in capsys.readouterr().err and not Path(page).exists()


def test_the_fastest_runs_the_most(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A machine that refuses layers is not called the fastest for the rest; what the page or a list
    cannot be is refused before the work."""
    page = str(tmp_path / "page.html")
    grid = ["digits-cnn", "--machines", "tpu,eie", "--bandwidth", "1"]
    cli.main(["explore", page, *grid])
    told = " ".join(capsys.readouterr().out.split())
    assert ": tpu, recipe int8" in told and "(1 run fewer than its 6 layers)" in told
    for wrong, message in (
        (["-", *grid], "cannot go to the terminal"),
        ([page, *grid, "--json", page], "would both be written"),
        ([page, *grid, "--batch", ""], "--batch must be numbers from 1"),
        ([page, *grid, "--recipe", "nosuch"], "error: there is no recipe"),
    ):
        with pytest.raises(SystemExit) as stop:
            cli.main(["explore", *wrong])
        assert stop.value.code == 2 and message in capsys.readouterr().err
