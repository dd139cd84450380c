"""Do results show themselves in a notebook, and become data frames?"""

from __future__ import annotations

import sys

import msgspec
import pytest
from test_page import Reader

import sparqsim
from sparqsim.architectures.compare import compare, joined
from sparqsim.architectures.machine import program, run
from sparqsim.architectures.network import run_network
from sparqsim.architectures.registry import get_machine
from sparqsim.base import InputError
from sparqsim.simulator.frames import COLUMNS, rows_of, rows_of_all, rows_of_netlist
from sparqsim.workloads.layers import Linear
from sparqsim.workloads.tensors import synthetic
from sparqsim.workloads.work import load

HOSTILE = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory):
    """A report, a network, a comparison, a store and a netlist, with hostile names."""
    import numpy as np

    layer = Linear(name=HOSTILE, in_features=16, out_features=8)
    machine = get_machine("bitfusion")()
    tensors = synthetic(layer, np.random.default_rng(0))
    result = run(machine, program(machine, tensors))
    network = run_network(machine, load("digits-cnn", numbers=False), verify=False)
    work = [load("gemm:4x8x8", numbers=False)]
    machines = {HOSTILE: machine, "tpu": get_machine("tpu")()}
    comparison = compare(work, machines, verify=False)
    block = {"work": "gemm:4x8x8", "verify": False,
             "machine": {"name": "bitfusion", "rows": [2, 4]}}  # fmt: skip
    store = sparqsim.sweep({"block": [block]}, tmp_path_factory.mktemp("store"), workers=0)
    return result.report, network, comparison, store, result.timeline.netlist


def test_each_shows_itself(results) -> None:
    """Whole markup in which names are text, with the numbers that matter."""
    report, network, comparison, store, netlist = results
    for each, words in (
        (report, (f"{report.cycles:,}", report.bound_by)),
        (network, (f"{network.totals.cycles:,}", "conv2")),
        (comparison, ("tpu", "gemm:4x8x8")),
        (store, ("2 points", "energy_pj")),
        (netlist, ("array", "dram")),
    ):
        reader = Reader(each._repr_html_())
        assert "script" not in {tag for tag, _ in reader.tags}
        told = " ".join(reader.words)
        assert all(word in told for word in words), words


def test_rows_are_those_of_the_report(results) -> None:
    """One row per layer with its numbers, a row for every layer on every machine, a row for every
    part of a netlist."""
    _, network, comparison, _, netlist = results
    rows = rows_of(network)
    assert len(rows) == len(network.rows) and set().union(*rows) <= set(COLUMNS)
    cycles = [row["cycles"] for row in rows if row["row"] == "run"]
    assert cycles == [row.report.cycles for row in network.runs]
    assert [row["machine"] for row in rows_of_all(comparison)] == [HOSTILE, "tpu"]
    parts = [*netlist.actors, *netlist.channels, *netlist.resources]
    assert [row["name"] for row in rows_of_netlist(netlist)] == [part.name for part in parts]


def test_frames(results, monkeypatch: pytest.MonkeyPatch) -> None:
    """A frame from each; without pandas an error message that names the extra."""
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "pandas", None)
        for each in results:
            with pytest.raises(InputError, match=r"pip install 'sparqsim\[tables\]'"):
                each.pandas()
    pytest.importorskip("pandas")
    report, network, comparison, store, netlist = results
    assert report.pandas()["cycles"].tolist() == [report.cycles]
    assert len(network.pandas()) == len(network.rows) and len(comparison.pandas()) == 2
    assert len(store.pandas()) == 2 and len(netlist.pandas()) > 3


def test_comparisons_of_the_same_machines_join(results) -> None:
    """Networks one after the other, and means over them; other machines are refused."""
    comparison = results[2]
    both = joined([comparison, comparison])
    assert len(both.networks) == 2
    ratio = comparison.networks[0].machines[1].ratios.cycles
    assert both.means[1].geometric.cycles == pytest.approx(ratio)
    other = msgspec.structs.replace(comparison, contenders=comparison.contenders[:1])
    with pytest.raises(InputError, match="same machines"):
        joined([comparison, other])
