"""Is Bit Fusion what its paper says, precision by precision, network by network?

Widths change time and storage as the composition of the Fusion Unit does; every pair of widths is
exact from end to end; the eight networks run event by event take what the authors report.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
from pathlib import Path

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner
from paths import DATA, PUBLISHED

from sparqsim.architectures.arrays.bitfusion import BitFusion
from sparqsim.architectures.machine import run
from sparqsim.scripts.validation import _arrays, bitfusion
from sparqsim.scripts.validation.bitfusion import EYERISS, command
from sparqsim.workloads import recipes
from sparqsim.workloads.encoded import encode
from sparqsim.workloads.layers import Conv2d, Linear
from sparqsim.workloads.tensors import LayerTensors, synthetic

WIDTHS = (1, 2, 4, 8, 16)
timed = functools.cache(_arrays.timed)  # several tests look at a run


@pytest.mark.parametrize("bits", list(itertools.product(WIDTHS, repeat=2)))
def test_every_pair_of_widths_is_exact(bits: tuple[int, int]) -> None:
    """25 pairs of widths, one layer: bit-exact outputs by real 2-bit products."""
    layer = Conv2d(
        name="c", in_channels=5, out_channels=9, input=(6, 6), kernel=(3, 3), padding=(1, 1),
        activation_bits=bits[0], weight_bits=bits[1],
    )  # fmt: skip
    work = synthetic(layer, np.random.default_rng(sum(bits)))
    work = dataclasses.replace(work, activation=work.activation - 0.5, relu=False)
    report = run(BitFusion(), work).report
    assert report.verification.status == "exact"
    assert report.macs.effectual <= report.macs.dense == layer.macs


def test_narrow_operands_compute_faster_as_the_units_compose() -> None:
    """Compute cycles fall by (8/a)(8/w): 16 at 2 x 2 bits; at 16 x 16 they rise by 4."""
    cycles = {}
    for bits in itertools.product((2, 4, 8, 16), repeat=2):
        layer = Linear(
            name="f", in_features=4096, out_features=512, rows=16,
            activation_bits=bits[0], weight_bits=bits[1],
        )  # fmt: skip
        machine = BitFusion(dram_gbytes_per_s=1000.0)  # the array alone counts
        report = run(machine, machine.plan(layer)).report
        cycles[bits] = report.counters["compute_cycles"]
        assert report.counters["compute_cycles"] <= report.cycles
    for (a, w), found in cycles.items():
        factor = (8 / min(a, 8)) * (8 / min(w, 8)) / (max(1, a // 8) * max(1, w // 8))
        assert found == cycles[8, 8] / factor


def test_one_bit_computes_as_two_and_is_stored_as_one() -> None:
    """Same array cycles, half the weight bits on the bus."""
    reports = []
    for bits in (1, 2):
        layer = Linear(
            name="f", in_features=1024, out_features=256, rows=512,
            activation_bits=2, weight_bits=bits,
        )  # fmt: skip
        reports.append(run(BitFusion(), BitFusion().plan(layer)).report.counters)
    one, two = reports
    assert one["compute_cycles"] == two["compute_cycles"]
    assert 2 * one["weight_buffer_written_bits"] == two["weight_buffer_written_bits"]


def test_a_sign_keeps_its_sign() -> None:
    """1-bit operands are +1 and -1: a sum counts agreements less disagreements."""
    machine, rng = BitFusion(), np.random.default_rng(0)
    x, w = rng.normal(size=(4, 9, 1, 1)), rng.normal(size=(3, 9, 1, 1))
    layer = Linear(name="f", in_features=9, out_features=3, rows=4)
    work = LayerTensors(layer=layer, weight=w[:, :, 0, 0], activation=x[:, :, 0, 0])
    coded = encode(work, recipes.of_widths(1, 1))
    left, right = (machine.operand(coded, role) for role in ("activations", "weights"))
    rows, columns = left.codes[:, :, 0, 0], right.codes[:, :, 0, 0].T
    sums = machine.multiply(rows, columns, left, right)
    agree = (x[:, None, :, 0, 0] >= 0) == (w[None, :, :, 0, 0] >= 0)
    assert np.array_equal(sums, 2 * agree.sum(axis=2) - 9)
    assert right.scale == pytest.approx(np.abs(w).mean(axis=(1, 2, 3)))


@pytest.mark.parametrize("network", EYERISS)
def test_networks_take_the_published_cycles(network: str) -> None:
    """Event by event with our tilings: no more than 1 % from the sum of the authors' layers.

    Small networks pay a fill, a drain and the post-processing a layer, which theirs leave out.
    """
    import csv

    with (DATA / "bitfusion_networks.csv").open() as file:
        rows = csv.DictReader(line for line in file if not line.startswith("#"))
        published = {
            row["network"].lower().replace("-", ""): int(row["cycles_batch16"]) for row in rows
        }
    report = timed(BitFusion(authors_model=True), f"bitfusion/{network}")
    assert report.totals.cycles == pytest.approx(published[network], rel=0.01)


def test_headlines_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    """3.9 times the speed and 5.1 times the energy of Eyeriss, geometric means, within 5 %, as the
    command tells them."""
    monkeypatch.setattr(bitfusion, "timed", timed)
    result = CliRunner().invoke(command, ["--json", "-"])
    assert result.exit_code == 0
    told = json.loads(result.output)["rows"]
    assert {"what", "published", "ours", "error", "bound", "within", "note"} == set(told[0])
    rows = msgspec.convert(told, list[_arrays.Headline])
    assert len(rows) == 2 * len(EYERISS) + 4
    means = [row for row in rows if row.bound is not None]
    assert [row.published for row in means] == [3.9, 5.1]
    assert all(row.within for row in means)
    # Moving real outputs alone, at their own width, is faster and takes less energy.
    assert all(real.ours > mean.ours for real, mean in zip(rows[-2:], means, strict=True))


def test_the_command_checks_a_table(tmp_path: Path) -> None:
    """--against a table: every number agrees, a wrong one is shown."""
    table = PUBLISHED / "bitfusion_layers.csv"
    found = json.loads(CliRunner().invoke(command, ["--against", str(table), "--json", "-"]).output)
    assert found["rows"] == 61 and found["mismatches"] == []
    text = table.read_text().replace(",3746423,", ",3746424,", 1)
    wrong = tmp_path / "wrong.csv"
    wrong.write_text(text)
    shown = CliRunner().invoke(command, ["--against", str(wrong)])
    assert shown.exit_code == 1
    assert "60 of 61 rows agree" in shown.output and "3746424" in shown.output
    assert f"{wrong}: line " in shown.output
    assert ", total_cycles: 3746424 in the table" in shown.output
    again = CliRunner().invoke(
        command, ["--against", str(wrong), "--json", str(tmp_path / "o.json")]
    )
    assert again.exit_code == 1
    assert len(json.loads((tmp_path / "o.json").read_text())["mismatches"]) == 1
    (mismatch,) = json.loads((tmp_path / "o.json").read_text())["mismatches"]
    assert mismatch["column"] == "total_cycles" and mismatch["simulated"] == 3746423
