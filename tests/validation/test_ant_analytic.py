"""Is the analytic ANT the authors' own model, to the last bit and cycle?

``ant_layers.csv`` are 132 output-stationary layers run from the authors' code with its tilings and
orders, 111 on ANT and 21 on Bit Fusion's widths in the same array; ``ant_networks.csv`` sums whole
networks, weight-stationary ones too, of which no layer was seen before.
"""

from __future__ import annotations

import csv

import pytest
from paths import DATA

from sparqsim.architectures.ant import ENERGY, Ant
from sparqsim.architectures.systolic import Dataflow
from sparqsim.architectures.tiling import ConvShape, Rates, cost, search
from sparqsim.base import InputError
from sparqsim.scripts.validation._arrays import ant_case, compare_ant, read_rows
from sparqsim.workloads.models import get_model

TABLE = DATA / "ant_layers.csv"
with (DATA / "ant_networks.csv").open() as file:
    NETWORKS = {(row["design"], row["network"]): row for row in csv.DictReader(file)}
OUTPUT, WEIGHT = Dataflow.OUTPUT_STATIONARY, Dataflow.WEIGHT_STATIONARY


def test_every_count_of_every_row() -> None:
    """Cycles, stalls, compute, eight counters exactly; energies to 1e-6 or the digits printed."""
    compared = compare_ant(TABLE)
    assert len(compared) == 132 * (3 + 8 + 4)
    assert [c for c in compared if not c.agrees] == []


def test_our_search_finds_their_cycles_on_every_row() -> None:
    """Same cycles, and no more energy than their mapping takes."""
    for _, row in read_rows(TABLE):
        case = ant_case(row)
        ours = cost(case.shape, case.rules, search(case.shape, case.rules, case.rates))
        theirs = cost(case.shape, case.rules, case.mapping)
        assert ours.cycles == int(row["total_cycles"])
        assert ours.energy(case.rates).total_nj <= theirs.energy(case.rates).total_nj * (1 + 1e-12)
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
    # Among mappings of equal cycles the energies may be split differently, never add up to more.
    parts = total["dram"] + total["sram"]
    assert parts <= (float(row["E_dram_nJ"]) + float(row["E_sram_nJ"])) * (1 + 1e-5)
    if dataflow is OUTPUT:
        for key in ("dram", "sram"):
            assert total[key] == pytest.approx(float(row[f"E_{key}_nJ"]), rel=1e-6)


def test_weight_stationary_vgg16_is_found_96_cycles_faster() -> None:
    """The one network where the search beats theirs, by its stalls: 96 of 247 million cycles."""
    row, total = NETWORKS["ANT-WS", "vgg16"], totals("ant/vgg16", WEIGHT)
    assert int(row["total_cycles"]) - total["cycles"] == 96
    assert int(row["mem_stall_cycles"]) - total["stall"] == 96


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
