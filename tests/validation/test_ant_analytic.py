"""Is the analytic ANT the authors' own model, to the last bit and cycle?

``ant_layers.csv`` are 132 output-stationary layers run from the authors' code with its tilings and
orders, 111 on ANT and 21 on Bit Fusion's widths in the same array; ``ant_ws_layers.csv`` 15
weight-stationary ones, likewise; ``ant_networks.csv`` sums whole networks of both kinds.
"""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from paths import DATA, PUBLISHED

from sparqsim.architectures.arrays.ant import ENERGY, Ant
from sparqsim.architectures.arrays.cost import Rates, cost
from sparqsim.architectures.arrays.folds import Dataflow
from sparqsim.architectures.arrays.search import Objective, candidates
from sparqsim.architectures.arrays.shapes import ConvShape
from sparqsim.base import InputError
from sparqsim.scripts.validation._arrays import ant_case, compare_ant, read_rows
from sparqsim.workloads.models import get_model

TABLE, STATIONARY = PUBLISHED / "ant_layers.csv", PUBLISHED / "ant_ws_layers.csv"
with (DATA / "ant_networks.csv").open() as file:
    NETWORKS = {(row["design"], row["network"]): row for row in csv.DictReader(file)}
OUTPUT, WEIGHT = Dataflow.OUTPUT_STATIONARY, Dataflow.WEIGHT_STATIONARY


@pytest.mark.parametrize(("table", "rows"), [(TABLE, 132), (STATIONARY, 15)])
def test_every_count_of_every_row(table: Path, rows: int) -> None:
    """Cycles, stalls, compute, eight counters exactly; energies to 1e-6 or the digits printed."""
    found = compare_ant(table)
    assert len(found.numbers) == rows * (3 + 8 + 4) and not found.refused
    assert [c for c in found.numbers if not c.agrees] == []


@pytest.mark.parametrize("table", [TABLE, STATIONARY])
def test_our_search_finds_their_cycles_and_energy_on_every_row(table: Path) -> None:
    """Same cycles and the same energy as their mapping takes: their rule, to the last digit.

    It holds no tile of outputs against its buffer; one weight-stationary tile exceeds it threefold.
    """
    for _, row in read_rows(table):
        case = ant_case(row)
        found = candidates(case.shape, case.rules, case.rates, Objective.CYCLES)[0]
        ours, theirs = (cost(case.shape, case.rules, each) for each in (found, case.mapping))
        assert ours.cycles == int(row["total_cycles"])
        assert ours.energy(case.rates).total_nj == pytest.approx(
            theirs.energy(case.rates).total_nj, rel=1e-9
        )
        assert case.shape.macs == int(row["macs_true"])


def totals(model: str, dataflow: Dataflow) -> dict[str, float]:
    """Search and sum a network of our own layer tables."""
    machine = Ant(dataflow=dataflow)
    total = dict.fromkeys(("cycles", "stall", "static", "dram", "sram", "core"), 0.0)
    for layer in get_model(model).layers:
        assert layer.activation_bits is not None
        c = machine.analytic(ConvShape.of(layer), machine.rules(layer.activation_bits))
        energy = c.energy(machine.rates)
        for key, value in (
            ("cycles", c.cycles), ("stall", c.stall_cycles), ("static", energy.dram_static_nj),
            ("dram", energy.dram_nj), ("sram", energy.sram_nj), ("core", energy.core_nj),
        ):  # fmt: skip
            total[key] += layer.repeat * value
    return total


@pytest.mark.parametrize(
    ("design", "network", "model", "dataflow"),
    [
        ("ANT-OS", "vgg16", "ant/vgg16", OUTPUT),
        ("ANT-OS", "resnet18", "ant/resnet18", OUTPUT),
        ("ANT-OS", "mnli", "ant/bert_mnli", OUTPUT),
        ("BitFusion", "resnet18", "ant/resnet18_on_bitfusion", OUTPUT),
        ("ANT-WS", "resnet18", "ant/resnet18", WEIGHT),
        ("ANT-WS", "mnli", "ant/bert_mnli", WEIGHT),
    ],
)
def test_whole_networks(design: str, network: str, model: str, dataflow: Dataflow) -> None:
    """Cycles and stalls of whole networks exactly, from the model's layers through the search."""
    row, total = NETWORKS[design, network], totals(model, dataflow)
    assert total["cycles"] == int(row["total_cycles"])
    assert total["stall"] == int(row["mem_stall_cycles"])
    for key in ("static", "core"):
        assert total[key] == pytest.approx(float(row[f"E_{key}_nJ"]), rel=1e-6)
    # Of BERT's weight-stationary mappings of equal cycles ours take 0.1 % less energy than theirs.
    parts = (float(row["E_dram_nJ"]), float(row["E_sram_nJ"]))
    assert 0.999 * sum(parts) <= total["dram"] + total["sram"] <= (1 + 1e-6) * sum(parts)
    if (design, network) != ("ANT-WS", "mnli"):
        assert (total["dram"], total["sram"]) == pytest.approx(parts, rel=1e-6)


def test_weight_stationary_vgg16_is_found_96_cycles_faster() -> None:
    """Same energies; of 247 million cycles 96 fewer, all of them stalls."""
    row, total = NETWORKS["ANT-WS", "vgg16"], totals("ant/vgg16", WEIGHT)
    assert int(row["total_cycles"]) - total["cycles"] == 96
    assert int(row["mem_stall_cycles"]) - total["stall"] == 96
    for key in ("dram", "sram"):
        assert total[key] == pytest.approx(float(row[f"E_{key}_nJ"]), rel=1e-6)


def test_sides_of_the_array() -> None:
    """64 x 64 at 4 bits, 32 x 32 at 8: four elements gang into one."""
    machine = Ant()
    assert (machine.side(4), machine.side(8)) == (64, 32)
    for bits in (2, 16, 0, 4.5):
        with pytest.raises(InputError, match="4 or 8 bits"):
            machine.rules(bits)  # type: ignore[arg-type]


def test_input_stationary_is_refused() -> None:
    """The paper's array keeps outputs or weights."""
    with pytest.raises(InputError, match="output- or weight-stationary"):
        Ant(dataflow=Dataflow.INPUT_STATIONARY)


@pytest.mark.parametrize("field", ["side_at_8_bits", "output_buffer_kib", "node_nm"])
def test_configurations_check_themselves(field: str) -> None:
    """Sizes are counts, clocks and nodes finite and above 0, at birth."""
    for bad in (0, -1, float("nan"), float("inf"), None):
        with pytest.raises(InputError, match=f"Ant.{field} must be"):
            Ant(**{field: bad})  # type: ignore[arg-type]


def test_energy_table_prices_every_rate_with_a_source() -> None:
    """Each rate names its source; what was reused from another node says so."""
    for field in Rates.__struct_fields__:
        assert "ANT" in ENERGY.entry(field).source
    for field in ("core_static_per_cycle", "core_dynamic_per_compute_cycle"):
        assert ENERGY.entry(field).node_nm == 45
        assert "reuse" in ENERGY.entry(field).source
