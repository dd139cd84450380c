"""Is the TPU bound by what its paper says: weights at small batches, the array at large ones?"""

from __future__ import annotations

import json

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from sparqsim.architectures.arrays.rules import POST_STAGES
from sparqsim.architectures.arrays.tpu import TPU
from sparqsim.architectures.machine import run
from sparqsim.base import InputError
from sparqsim.scripts.validation.tpu import command, headlines, network
from sparqsim.simulator.report import Report
from sparqsim.workloads.encoded import outline
from sparqsim.workloads.layers import Linear, Model
from sparqsim.workloads.tensors import synthetic


def test_sizes_are_those_of_the_paper() -> None:
    """92 TOPS; four 64 KiB tiles in the FIFO; 4096 rows of accumulators in two halves."""
    machine = TPU()
    assert 2 * machine.multipliers_at_8_bits * machine.clock_hz / 1e12 == pytest.approx(
        92, rel=0.01
    )
    assert machine.fifo_tiles == 4 and machine.tile_bits == 64 * 1024 * 8
    assert machine.part_rows == 2048


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 5000), st.integers(1, 1500), st.integers(1, 1500))
def test_bounds_of_a_layer(rows: int, depth: int, out: int) -> None:
    """No faster than weights arrive or the array multiplies; the netlist is near the closed form.

    The closed form adds what cannot overlap; the netlist may only differ by blocks that wait.
    """
    machine = TPU()
    layer = Linear(name="f", in_features=depth, out_features=out, rows=rows)
    report = run(machine, machine.plan(layer)).report
    tiles = -(-depth // 256) * -(-out // 256) * -(-rows // 2048)
    assert report.counters["tiles"] == tiles
    loads = tiles * 65536 / 34e9 * 700e6
    assert report.cycles >= loads
    assert report.cycles >= layer.macs / 65536
    assert report.counters["dram_read_bits"] == tiles * 65536 * 8
    analytic = report.counters["analytic_cycles"]
    assert analytic - 256 - 511 <= report.cycles <= 1.01 * analytic + 2 * tiles + 511


def test_a_tile_pays_for_what_it_cannot_hide() -> None:
    """One tile: its load, its shift into the array, its rows, the drain, the last activation."""
    machine = TPU()
    layer = Linear(name="f", in_features=256, out_features=256, rows=300)
    load = -(-65536 * 700_000_000 // 34_000_000_000)
    cycles = load + 256 + 300 + (256 + 256 - 1) + POST_STAGES
    assert run(machine, machine.plan(layer)).report.cycles == cycles


def test_few_rows_wait_for_the_shift_and_then_for_weights() -> None:
    """At one row a tile takes 256 cycles of shifting, hidden behind 1350 of loading."""
    machine = TPU(dram_gbytes_per_s=340.0)
    layer = Linear(name="f", in_features=2560, out_features=2560, rows=1)
    fast = run(machine, machine.plan(layer)).report
    assert fast.cycles == pytest.approx(100 * 256, rel=0.05)
    slow = run(TPU(), TPU().plan(layer)).report
    assert slow.cycles == pytest.approx(100 * 1349.3, rel=0.01)
    assert slow.stalls["array"].starved > slow.stalls["array"].busy


def test_a_network_fetches_weights_ahead() -> None:
    """Layers in a row are faster than each alone, and never faster than their weights."""
    machine = TPU()
    layer = Linear(name="f", in_features=1024, out_features=1024, rows=1500)
    alone = run(machine, machine.plan(layer)).report.cycles
    model = Model(name="m", source="synthetic", layers=(msgspec.structs.replace(layer, repeat=5),))
    program = machine.lower_network([outline(layer, "int8") for layer in model.layers])
    together = run(machine, program).report
    assert 5 * 16 * 1500 < together.cycles < 5 * alone
    assert together.macs.dense == model.macs
    slow = run(machine, program, engine="simpy").report
    assert slow.cycles == together.cycles


def test_throughput_is_the_papers() -> None:
    """MLP0 and CNN0 within 15 %; the two whose scheduling is unknown are shown without a bound."""
    rows = {row.what.split(":")[0]: row for row in headlines()}
    assert rows["MLP0"].within and rows["CNN0"].within
    assert rows["LSTM1"].bound is None and rows["CNN1"].bound is None
    assert network("MLP0").weights == pytest.approx(20e6, rel=0.01)
    assert network("CNN0").weights == pytest.approx(8e6, rel=0.01)
    found = json.loads(CliRunner().invoke(command, ["--json", "-"]).output)["rows"]
    assert [row["within"] for row in found] == [True, True, None, None]


def test_a_mapping_is_not_the_users_to_choose() -> None:
    """The TPU's order is fixed; an error message says so."""
    from sparqsim.architectures.arrays.ant import Ant
    from sparqsim.architectures.arrays.search import Objective, candidates
    from sparqsim.architectures.arrays.shapes import ConvShape

    shape = ConvShape(batch=4, in_channels=64, out_channels=64)
    mapping = candidates(shape, Ant().rules(8), Ant().rates, Objective.CYCLES)[0]
    layer = Linear(name="f", in_features=64, out_features=64, rows=4)
    with pytest.raises(InputError, match="one way"):
        TPU().plan(layer, mapping=mapping)


@pytest.mark.parametrize(("activations", "weights"), [(16, 8), (8, 16), (16, 16)])
def test_sixteen_bits_take_half_or_a_quarter_of_the_speed(activations: int, weights: int) -> None:
    """Published, section 2: half speed where one operand has 16 bits, a quarter where both have.

    A 16-bit weight is two bytes of DRAM, a 16-bit activation two of the unified buffer.
    """

    def of(a: int, w: int) -> Report:
        layer = Linear(
            name="f", in_features=1024, out_features=1024, rows=4096, activation_bits=a,
            weight_bits=w,
        )  # fmt: skip
        return run(TPU(), TPU().plan(layer)).report

    eight, wide = of(8, 8), of(activations, weights)
    passes = activations * weights // 64
    assert wide.counters["compute_cycles"] == passes * eight.counters["compute_cycles"]
    assert wide.cycles == pytest.approx(passes * eight.cycles, rel=0.03)
    assert wide.memory["dram"].read_bits == weights // 8 * eight.memory["dram"].read_bits
    array = wide.memory["input_buffer"].read_bits / eight.memory["input_buffer"].read_bits
    assert array == passes
    dynamic = [
        next(part.energy_pj for part in each.energy.parts if part.part == "array dynamic")
        for each in (eight, wide)
    ]
    assert dynamic[1] == pytest.approx(passes * dynamic[0])  # type: ignore[operator]
    assert wide.utilization["multipliers"] == pytest.approx(1, abs=0.03)


def test_a_layer_of_sixteen_bits_is_exact_and_a_network_may_mix() -> None:
    """Outputs are those of the wrapped sums; a layer of 8 bits beside one of 16 keeps its speed."""
    layer = Linear(name="f", in_features=300, out_features=70, rows=9)
    work = synthetic(layer, np.random.default_rng(0))
    report = run(TPU(), work, recipe="int16").report
    assert report.verification.status == "exact"
    assert all(each.stored_as.startswith("int16") for each in report.operands.values())
    large = Linear(name="g", in_features=512, out_features=512, rows=2048)
    both = TPU().lower_network([outline(large, "int8"), outline(large, "int16")])
    alone = [run(TPU(), TPU().lower_network([outline(large, name)])).report.counters
             for name in ("int8", "int16")]  # fmt: skip
    mixed = run(TPU(), both).report.counters
    assert mixed["compute_cycles"] == sum(each["compute_cycles"] for each in alone)


def test_more_than_sixteen_bits_are_refused() -> None:
    """An error message that names the layer and the widths there are."""
    wide = Linear(name="wide", in_features=4, out_features=4, activation_bits=24, weight_bits=8)
    with pytest.raises(InputError, match="'wide' needs 24 bits, the TPU multiplies 8 or 16"):
        TPU().plan(wide)
