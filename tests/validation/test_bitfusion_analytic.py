"""Is the analytic Bit Fusion the authors' own model, to the last bit and cycle?

``bitfusion_layers.csv`` are 61 layers run from the authors' code with its tilings and orders;
``bitfusion_networks.csv`` their sums and the comparison with Eyeriss. With the tilings given every
count must agree exactly; our own search, under their rules, must find the same cycles.
"""

from __future__ import annotations

import csv
import math
from collections import defaultdict
from pathlib import Path

import pytest
from paths import DATA, PUBLISHED

from sparqsim.architectures.arrays.bitfusion import ENERGY, BitFusion
from sparqsim.architectures.arrays.cost import Rates, cost
from sparqsim.architectures.arrays.rules import Drain
from sparqsim.architectures.arrays.search import Objective, candidates
from sparqsim.architectures.arrays.shapes import ConvShape, Datum
from sparqsim.base import InputError
from sparqsim.scripts.validation._arrays import bitfusion_case, compare_bitfusion, read_rows
from sparqsim.workloads.models import get_model

TABLE = PUBLISHED / "bitfusion_layers.csv"
NETWORKS = DATA / "bitfusion_networks.csv"
ROWS = read_rows(TABLE)
MODELS = {
    "AlexNet": "alexnet", "SVHN": "svhn", "CIFAR10": "cifar10", "LeNet-5": "lenet5",
    "VGG-7": "vgg7", "RESNET-18": "resnet18", "RNN": "rnn", "LSTM": "lstm",
}  # fmt: skip


def test_every_count_of_every_row() -> None:
    """Cycles, stalls, compute, eight counters exactly; energies to 1e-6 or the digits printed."""
    compared = compare_bitfusion(TABLE).numbers
    assert len(compared) == 61 * (3 + 8 + 4)
    assert [c for c in compared if not c.agrees] == []


@pytest.mark.parametrize(
    ("line", "row"), ROWS, ids=[f"{r['network']}/{r['layer']}" for _, r in ROWS]
)
def test_our_search_finds_their_cycles(line: int, row: dict[str, str]) -> None:
    """Same cycles, and no more energy than their mapping takes."""
    case = bitfusion_case(row)
    found = candidates(case.shape, case.rules, case.rates, Objective.CYCLES)[0]
    ours = cost(case.shape, case.rules, found)
    theirs = cost(case.shape, case.rules, case.mapping)
    assert ours.cycles == int(row["total_cycles"])
    assert ours.energy(case.rates).total_nj <= theirs.energy(case.rates).total_nj * (1 + 1e-12)
    assert case.shape.macs == int(row["macs"])


def test_whole_networks_from_our_own_layer_tables() -> None:
    """From the model's layers through the search to the sums, shares and Eyeriss ratios printed."""
    machine = BitFusion()
    with NETWORKS.open() as file:
        table = {row["network"]: row for row in csv.DictReader(file)}
    speed, saving = [], []
    for network, row in table.items():
        model = get_model(f"bitfusion/{MODELS[network]}")
        total: dict[str, float] = defaultdict(float)
        for layer in model.layers:
            assert layer.activation_bits and layer.weight_bits
            shape = ConvShape.of(layer)
            assert shape.batch == machine.batch
            rules = machine.rules(
                layer.activation_bits, layer.weight_bits, unfold=machine.unfolds(shape)
            )
            c = machine.analytic(shape, rules)
            energy = c.energy(machine.rates)
            for key, value in (
                ("cycles", c.cycles), ("stall", c.stall_cycles), ("macs", shape.macs),
                ("dram", c.traffic.dram_read + c.traffic.dram_write),
                ("core_nj", energy.core_nj), ("sram_nj", energy.sram_nj),
                ("total_nj", energy.total_nj),
            ):  # fmt: skip
                total[key] += layer.repeat * value
        assert total["cycles"] == int(row["cycles_batch16"])
        assert total["stall"] == int(row["mem_stall_cycles"])
        assert total["macs"] == int(row["macs_batch16"])
        assert total["dram"] == int(row["dram_bits_batch16"])
        assert total["total_nj"] / 1e6 == pytest.approx(float(row["energy_mJ_batch16"]), rel=5e-6)
        assert total["core_nj"] / total["total_nj"] == pytest.approx(
            float(row["E_core_share"]), abs=6e-4
        )
        milliseconds = total["cycles"] / (machine.clock_hz / 1e3) / machine.batch
        speed.append(float(row["eyeriss_ms_per_image"]) / milliseconds)
        eyeriss_mj = float(row["energy_reduction_vs_eyeriss"]) * float(row["energy_mJ_batch16"])
        saving.append(eyeriss_mj / (total["total_nj"] / 1e6))
    # Published: 3.9x faster and 5.1x less energy than Eyeriss, geometric mean.
    assert math.prod(speed) ** (1 / len(speed)) == pytest.approx(3.93, abs=0.005)
    assert math.prod(saving) ** (1 / len(saving)) == pytest.approx(5.12, abs=0.005)


@pytest.mark.parametrize(
    ("activation", "weight", "products", "passes"),
    [
        (8, 8, 1, 1), (8, 4, 2, 1), (4, 8, 2, 1), (4, 4, 4, 1), (8, 2, 4, 1), (2, 8, 4, 1),
        (4, 2, 8, 1), (2, 4, 8, 1), (2, 2, 16, 1), (1, 1, 16, 1), (8, 1, 4, 1), (1, 4, 8, 1),
        (16, 16, 1, 4), (16, 8, 1, 2), (8, 16, 1, 2), (16, 2, 4, 2),
    ],
)  # fmt: skip
def test_composition(activation: int, weight: int, products: int, passes: int) -> None:
    """Products a Fusion Unit a cycle for every pair of widths; sixteen BitBricks at most."""
    machine = BitFusion()
    assert machine.products_per_unit(activation, weight) == products
    assert machine.passes(activation, weight) == passes
    bricks = (
        max(activation, 2) // 2 * max(weight, 2) // 2
    )  # BitBrick products an operand pair takes
    assert products * bricks == 16 * passes


def test_wide_operands_take_passes_and_one_bit_is_stored_as_one() -> None:
    """16 x 16 bits take four times the steps of 8 x 8; 1 bit computes as 2 and moves as 1."""
    machine = BitFusion()
    shape = ConvShape(batch=16, in_channels=16, out_channels=32)
    bits = {pair: machine.rules(*pair) for pair in ((8, 8), (16, 16), (2, 2), (1, 1))}
    mapping = candidates(shape, bits[16, 16], machine.rates, Objective.CYCLES)[0]
    costs = {pair: cost(shape, rules, mapping) for pair, rules in bits.items()}
    steps = {pair: each.compute_cycles for pair, each in costs.items()}
    assert steps[16, 16] == 4 * steps[8, 8]
    assert steps[1, 1] == steps[2, 2]
    one, two = (costs[pair].residences[Datum.WEIGHT].moved_bits for pair in ((1, 1), (2, 2)))
    assert 2 * one == two


@pytest.mark.parametrize("bits", [0, 3, 5, 32, -8, 8.5, math.nan])
def test_widths_that_cannot_be_composed(bits: int) -> None:
    """Only 1, 2, 4, 8 and 16 bits; the message says what to do."""
    with pytest.raises(InputError, match="store the tensor at the next wider"):
        BitFusion().rules(bits, 8)


@pytest.mark.parametrize("bad", [0, -1, math.nan, math.inf, "16", None])
@pytest.mark.parametrize("field", ["rows", "dram_gbytes_per_s", "clock_hz"])
def test_configurations_check_themselves(field: str, bad: object) -> None:
    """Sizes are counts, clocks and nodes finite and above 0, at birth."""
    with pytest.raises(InputError, match=f"BitFusion.{field} must be"):
        BitFusion(**{field: bad})  # type: ignore[arg-type]


def test_energy_table_prices_every_rate_with_a_source() -> None:
    """Each rate of the analytic model is an entry at 45 nm that names its source."""
    for field in Rates.__struct_fields__:
        entry = ENERGY.entry(field)
        assert entry.node_nm == 45
        assert "Bit Fusion" in entry.source


def test_undrained_is_a_lower_bound() -> None:
    """The authors' rule never exceeds the machine that pays for fill and drain."""
    machine = BitFusion()
    for layer in get_model("bitfusion/lenet5").layers:
        shape = ConvShape.of(layer)
        free = machine.analytic(shape, machine.rules(2, 2)).cycles
        once = machine.analytic(shape, machine.rules(2, 2, drain=Drain.PER_LAYER)).cycles
        assert once == free + 16 + 32 - 1


def _written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "table.csv"
    path.write_text(text)
    return path


def test_a_changed_number_is_found(tmp_path: Path) -> None:
    """One count off by one: exactly that cell is reported, with its line."""
    lines = TABLE.read_text().splitlines()
    cells = lines[3].split(",")
    column = lines[0].split(",").index("wbuf_rd_bits")
    cells[column] = str(int(cells[column]) + 1)
    path = _written(tmp_path, "\n".join([lines[0], lines[1], ",".join(cells)]) + "\n")
    wrong = [c for c in compare_bitfusion(path).numbers if not c.agrees]
    assert [(c.line, c.column) for c in wrong] == [(3, "wbuf_rd_bits")]
    assert wrong[0].simulated == wrong[0].reference - 1


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda t: "", "header and at least one row"),
        (lambda t: t.splitlines()[0], "header and at least one row"),
        (lambda t: t[: len(t) - 40], "may be truncated"),
        (lambda t: t.replace("tile_ic", "tile"), "must have a column 'tile_ic'"),
        (lambda t: t.replace(",192,", ",nan,"), "'mem_bits_per_cycle' must be a whole number"),
        (lambda t: t.replace("B/b>", ""), "column 'order' must name"),
        (lambda t: t.replace(",65536,32768,", ",65536,32,"), "'ibuf_B' must be whole KiB"),
        (lambda t: t.replace(",12745180", ",inf"), "'E_total_nJ' must be a finite number"),
    ],
)
def test_a_spoiled_table_is_an_error_message(tmp_path: Path, spoil: object, message: str) -> None:
    """Missing, truncated or nonsensical tables say what must hold."""
    path = _written(tmp_path, spoil(TABLE.read_text()))  # type: ignore[operator]
    with pytest.raises(InputError, match=message):
        compare_bitfusion(path)


def test_a_row_that_is_refused_is_told_and_the_others_go_on(tmp_path: Path) -> None:
    """A tile too large for its buffer, or a width that cannot be composed: a row each, with why."""
    lines = TABLE.read_text().splitlines()
    header = lines[0].split(",")
    spoiled = []
    for line, column, value in ((lines[1], "tile_oc", "96"), (lines[2], "wbits", "3")):
        cells = line.split(",")
        cells[header.index(column)] = value
        spoiled.append(",".join(cells))
    path = _written(tmp_path, "\n".join([lines[0], *spoiled, lines[3]]) + "\n")
    found = compare_bitfusion(path)
    assert [refused.line for refused in found.refused] == [2, 3]
    assert "must fit the usable" in found.refused[0].why
    assert "store the tensor at the next wider" in found.refused[1].why
    assert {each.line for each in found.numbers} == {4}
    assert all(each.agrees for each in found.numbers)


def test_an_absent_table_is_an_error_message(tmp_path: Path) -> None:
    """A file that is not there, or is a folder."""
    for path in (tmp_path / "none.csv", tmp_path):
        with pytest.raises(InputError, match="cannot read the table"):
            compare_bitfusion(path)
