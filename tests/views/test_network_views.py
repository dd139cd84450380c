"""Do the figures and the page of a network show what its report says?"""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from test_page import Reader

from sparqsim.architectures.eie import EIE
from sparqsim.architectures.network import run_network
from sparqsim.base import InputError
from sparqsim.simulator.comparison import (
    Compared,
    ComparedNetwork,
    ComparisonReport,
    Contender,
    ratios_of,
)
from sparqsim.simulator.network_plots import (
    cycles_by_layer,
    energy_by_layer,
    network_figures,
    save_network_figures,
)
from sparqsim.simulator.pages import comparison_page, network_page, write
from sparqsim.simulator.report import NetworkReport
from sparqsim.workloads.work import load


@pytest.fixture(scope="module")
def report() -> NetworkReport:
    """A network with refusals, work beside its layers, and an accuracy."""
    return run_network(EIE(), load("digits-cnn"))


def test_a_bar_is_a_layer_with_its_repeats(report: NetworkReport) -> None:
    """Heights are cycles times repeats, in order; the legend names every bound once."""
    runs = report.runs
    twice = msgspec.structs.replace(runs[1], repeat=2)
    rows = [twice if row is runs[1] else row for row in report.rows]
    drawn = cycles_by_layer(msgspec.structs.replace(report, rows=rows))
    bars = sorted(drawn.patches, key=lambda bar: bar.get_x())
    heights = [bar.get_height() for bar in bars]
    assert heights == [runs[0].report.cycles, 2 * runs[1].report.cycles, runs[2].report.cycles]
    names = [label.get_text() for label in drawn.get_xticklabels()]
    assert names == ["fc1", "fc2 x2", "fc3"]
    shown = [text.get_text() for text in drawn.get_legend().get_texts()]
    bounds = dict.fromkeys(f"bound by {row.report.bound_by}" for row in runs)
    assert shown == list(bounds)


def test_parts_of_the_energy_are_stacked(report: NetworkReport) -> None:
    """The bars of a layer sum to its energy, however many parts there are."""
    drawn = energy_by_layer(report)
    for place, row in enumerate(report.runs):
        mine = [bar for bar in drawn.patches if abs(bar.get_x() + 0.4 - place) < 1e-9]
        total = sum(bar.get_height() for bar in mine)
        assert total == pytest.approx(row.report.energy.total_pj * 1e-6)


def test_figures_are_written(report: NetworkReport, tmp_path: Path) -> None:
    """PNG and SVG of each; none where no layer ran."""
    paths = save_network_figures(report, tmp_path, svg=True)
    assert {path.suffix for path in paths} == {".png", ".svg"} and len(paths) == 4
    assert all(path.stat().st_size for path in paths)
    nothing = msgspec.structs.replace(report, rows=[*report.refused])
    assert network_figures(nothing) == {}
    with pytest.raises(InputError, match="nothing to draw"):
        cycles_by_layer(nothing)


def test_many_layers_name_every_so_many(report: NetworkReport) -> None:
    """A long network is drawn whole, and its names stay readable."""
    rows = [msgspec.structs.replace(report.runs[n % 3], name=f"layer{n}") for n in range(54)]
    drawn = cycles_by_layer(msgspec.structs.replace(report, rows=rows))
    assert len(drawn.patches) == 54
    names = [label.get_text() for label in drawn.get_xticklabels()]
    assert names == [f"layer{n}" for n in range(0, 54, 2)]


def test_the_page_says_what_the_report_says(report: NetworkReport, tmp_path: Path) -> None:
    """Totals, a row for every layer, refusals with their reason, accuracy, notes; it stands
    alone."""
    reader = Reader(network_page(report))
    words = " ".join(reader.words)
    assert "digits-cnn on eie" in words and f"{report.totals.cycles:,}" in words
    names = [cells[0] for cells in reader.cells]
    for row in report.rows:
        assert row.name in names
    for row in report.refused:
        (cells,) = [cells for cells in reader.cells if cells[0] == row.name]
        assert cells[-1] == f"not on eie: {row.why}" and cells[-2] == "not run"
    for row in report.runs:
        (cells,) = [cells for cells in reader.cells if cells[0] == row.name]
        assert cells[2] == f"{row.report.cycles * row.repeat:,}" and cells[-2] == "exact"
        assert cells[-1] == row.report.bound_by
    for note in report.notes:
        assert note in words
    assert report.accuracy is not None
    measured = f"{report.accuracy.compressed['accuracy']:.4f}"
    assert ["accuracy", f"{report.accuracy.float32['accuracy']:.4f}", measured] in reader.cells
    headings = [cells for cells in reader.cells if cells[-1] == "bound by"]
    assert headings and headings[0][0] == "layer"
    moving = {
        name: use.read_bits + use.written_bits > 0
        for row in report.runs
        for name, use in row.report.memory.items()
    }
    alts = [str(each.get("aria-label")) for _, each in reader.tags]
    assert any(moving.values()) and not all(moving.values())
    for name, moves in moving.items():  # no empty panel
        assert any(alt.startswith(f"{name}: read") for alt in alts) == moves
    columns = [each for tag, each in reader.tags if tag == "path" and "solid" in str(each)]
    assert len(columns) > len(report.runs)  # of time, and of energy by part
    assert not {tag for tag, _ in reader.tags} & {"link", "iframe"}
    path = write(network_page(report), tmp_path / "page.html")
    assert path.read_text(encoding="utf-8") == network_page(report)


def test_every_opened_layer_shows_what_its_run_looked_like() -> None:
    """Of a network with ``paths``: its load, its queues with their numbers, and its block diagram,
    which is drawn once for layers that have the same."""
    network = run_network(EIE(pes=4), load("digits-mlp"), verify=False, paths=True)
    for page, runs in (
        (network_page(network), network.runs),
        (comparison_page(_compared(network)), network.runs * 2),
    ):
        reader = Reader(page)
        ids = [each["id"] for tag, each in reader.tags if tag == "g" and each.get("id")]
        shown = [each["href"][1:] for tag, each in reader.tags if tag == "use"]
        assert len(ids) == len(set(ids)) == len(set(shown)) == 1 and set(shown) == set(ids)
        assert len(shown) == len(runs)
        for row in runs:
            sketch = row.report.sketch
            assert sketch is not None and f"Load of {sketch.actor}" in reader.words
            for queue in sketch.queues:
                cells = [queue.channel, f"{queue.queues:,}", f"{queue.capacity:,}"]
                cells += [f"{queue.mean_tokens:.3g}", f"{queue.most_tokens:.3g}"]
                assert any(found[:5] == cells for found in reader.cells)


def _compared(network: NetworkReport) -> ComparisonReport:
    """The same run as two machines' of a comparison."""
    both = {"one": network, "other": network}
    ratios = ratios_of(network.totals, network.totals)
    machines = [
        Compared(label=label, shared=network.totals, ratios=ratios, report=each)
        for label, each in both.items()
    ]
    names = [row.name for row in network.runs]
    compared = ComparedNetwork(network="digits-mlp", shared_layers=names, machines=machines)
    contenders = [
        Contender(
            label=label, machine="eie", configuration={}, changed=[], peak_macs_per_s=None,
            peak_operands="", bandwidth_bytes_per_s=None, area_mm2=None, area_node_nm=None,
            area_basis="", area_source="", area_at_first_mm2=None,
        )
        for label in both
    ]  # fmt: skip
    return ComparisonReport(
        equal="none", contenders=contenders, networks=[compared], means=[], notes=[]
    )
