"""Does an array that shifts compute what its weights stand for, one term per cycle?

Powers of two (PoT) have one term, sums of them (APoT) several: the kernel and its twin, layers
against an independent reference, cycles and energy by terms, and what is refused.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from paths import DOCS

from sparqsim.architectures.arrays.folds import Dataflow
from sparqsim.architectures.arrays.plain import PlainArray
from sparqsim.architectures.arrays.shifting import Multiplier, Shifts, formats
from sparqsim.architectures.laws import broken
from sparqsim.architectures.machine import run
from sparqsim.base import InputError
from sparqsim.scripts.cli import cli
from sparqsim.scripts.scenarios import shift_terms
from sparqsim.simulator.mac import shift
from sparqsim.workloads import formats as number_formats
from sparqsim.workloads.formats.powers import APoT, PoT
from sparqsim.workloads.layers import Conv2d, Linear
from sparqsim.workloads.recipes import Recipe, TensorRecipe
from sparqsim.workloads.tensors import synthetic

SHIFT = PlainArray(multiplier=Multiplier.SHIFT)


def recipe(weights: str) -> Recipe:
    """Weights in a format, activations in 8-bit integers."""
    return Recipe(
        name=weights,
        weights=TensorRecipe(format=weights, granularity="channel", calibration="mse"),
        activations=TensorRecipe(format="int8"),
    )


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32 - 1))
def test_the_kernel_is_its_twin(seed: int) -> None:
    """On random words, sums that wrap included; by hand -(3 << 1) - (3 << 4) = -54."""
    rng = np.random.default_rng(seed)
    m, k, n = rng.integers(1, 6, 3)
    words = np.array(
        [
            shift.pack(rng.integers(0, 20, rng.integers(0, 5)).tolist(), bool(rng.integers(2)))
            for _ in range(k * n)
        ],
        np.int64,
    ).reshape(k, n)
    values = rng.integers(-(2**15), 2**15, (m, k))
    fast, plain = np.zeros((2, m, n), np.int32)
    shift.gemm(values, words, fast)
    shift.gemm_plain(values, words, plain)
    assert (fast == plain).all()
    one = np.zeros((1, 1), np.int32)
    shift.gemm(np.array([[3]]), np.array([[shift.pack([1, 4], True)]]), one)
    assert one[0, 0] == -54


def test_a_word_has_its_bounds() -> None:
    """Eight terms, shifts that fit: anything else is refused."""
    for wrong in ([0] * 9, [-1], [63]):
        with pytest.raises(InputError, match="at most 8 terms of shifts 0 to 62"):
            shift.pack(wrong, False)


@pytest.mark.parametrize("name", formats(8))
def test_terms_add_up_to_the_value(name: str) -> None:
    """Of every code: its shifts make its value, at most ``terms`` of them, none too large."""
    grid = number_formats.get(name)
    assert isinstance(grid, PoT | APoT)
    for code, value in enumerate(grid.code_values):
        shifts = grid.left_shifts(code)
        assert len(shifts) <= grid.terms and max(shifts, default=0) <= grid.largest_shift
        assert sum(2.0**each for each in shifts) == abs(value) * 2.0**grid.raised


@pytest.mark.parametrize("weights", ["pot4", "pot5", "apot_4", "apot_8"])
@pytest.mark.parametrize("dataflow", list(Dataflow))
def test_layers_are_exact(weights: str, dataflow: Dataflow) -> None:
    """A convolution and a layer of vectors, bit by bit, in every dataflow."""
    machine = PlainArray(multiplier=Multiplier.SHIFT, dataflow=dataflow)
    for layer in (
        Conv2d(name="c", in_channels=6, out_channels=9, input=(6, 6), kernel=(3, 3)),
        Linear(name="f", in_features=70, out_features=40, rows=3),
    ):
        work = synthetic(layer, np.random.default_rng(1))
        report = run(machine, work, recipe=recipe(weights)).report
        assert report.verification.status == "exact"
        assert report.operands["weights"].how == "as it is"


def test_the_laws_hold_with_shifts() -> None:
    """As of every machine, its own recipe and sums of two powers: engines, account, tokens."""
    layer = Conv2d(name="c", in_channels=8, out_channels=12, input=(6, 7), kernel=(3, 3))
    for chosen in (None, recipe("apot_5")):
        assert broken(SHIFT, synthetic(layer, np.random.default_rng(3)), chosen) == []


def test_a_term_is_a_cycle() -> None:
    """Steps of the array are those of integers times the terms; narrow formats move fewer bits."""
    layer = Linear(name="f", in_features=128, out_features=64, rows=32)
    work = synthetic(layer, np.random.default_rng(0))
    whole = run(PlainArray(), work).report
    for name, terms in (("pot4", 1), ("apot_4", 2), ("apot_6", 3), ("apot_8", 4)):
        found = run(SHIFT, work, recipe=recipe(name)).report
        steps = found.counters["compute_cycles"] / whole.counters["compute_cycles"]
        assert steps == terms
        assert found.memory["dram"].read_bits <= whole.memory["dram"].read_bits


def test_energy_is_that_of_a_shifter_beside_a_multiplier() -> None:
    """By hand: a 16-bit shifter and an adder for an 8-bit multiplier and an adder."""
    ratio = (0.057 + 0.1) / (0.2 + 0.1)
    assert Shifts(1, 14).energy.times == pytest.approx(ratio)
    rate = "core_dynamic_per_compute_cycle"
    for table in ("published", "horowitz"):
        integer, shifting = (
            PlainArray(multiplier=each, energy_table=table).energies.entry(rate)
            for each in Multiplier
        )
        assert shifting.value == pytest.approx(ratio * integer.value)
        assert "16-bit shifter for an 8-bit multiplier" in shifting.source


def test_what_an_array_of_shifters_does_not_do() -> None:
    """Integers as weights, N:M patterns: refused with what to do."""
    work = synthetic(Linear(name="f", in_features=8, out_features=8), np.random.default_rng(0))
    with pytest.raises(InputError, match="int8"):
        run(SHIFT, work, recipe="int8")
    with pytest.raises(InputError, match="needs multiplier integer"):
        PlainArray(multiplier=Multiplier.SHIFT, sparsity="2:4", dataflow=Dataflow.WEIGHT_STATIONARY)
    told = CliRunner().invoke(cli, ["run", "plain", "gemm:8x8x8", "--multiplier", "shift"])
    assert told.exit_code == 0 and "pot4_signed" in told.output


def test_the_figure_is_what_the_simulator_says_today(tmp_path: Path) -> None:
    """Rows of docs/data/shift_terms.json, one of them run again; the script writes both files."""
    kept = msgspec.json.decode(
        (DOCS / "data" / "shift_terms.json").read_bytes(), type=list[shift_terms.Row]
    )
    assert [row.weights for row in kept] == list(shift_terms.WEIGHTS)
    again = shift_terms.measure("apot_5", shift_terms.work())
    assert again.sqnr_db == pytest.approx(kept[4].sqnr_db)
    assert (again.terms, again.cycles) == (kept[4].terms, kept[4].cycles)
    assert again.array_nj == pytest.approx(kept[4].array_nj)
    bars = shift_terms.draw(kept).axes[0].patches
    assert [bar.get_height() for bar in bars] == [row.sqnr_db for row in kept]
