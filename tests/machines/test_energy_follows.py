"""Do the energies of every machine follow its configuration - and stay where they are published?

At its defaults a machine has its authors' figures. Away from them a rule says what changes; what no
rule covers has no number. The rules themselves are questioned in ``tests/memory``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from msgspec.structs import replace

from sparqsim.architectures.arrays.ant import Ant
from sparqsim.architectures.arrays.bitfusion import ENERGY, BitFusion
from sparqsim.architectures.arrays.diannao import DianNao
from sparqsim.architectures.arrays.energies import ANT_ENERGY
from sparqsim.architectures.arrays.machine import ArrayMachine
from sparqsim.architectures.arrays.olive import Olive
from sparqsim.architectures.arrays.plain import PlainArray
from sparqsim.architectures.arrays.search import Objective
from sparqsim.architectures.arrays.tpu import TPU
from sparqsim.architectures.eie import EIE
from sparqsim.architectures.eyeriss import Eyeriss
from sparqsim.architectures.heatvit import HeatViT
from sparqsim.architectures.machine import Machine, run
from sparqsim.architectures.presets import load
from sparqsim.architectures.snap import SNAP
from sparqsim.architectures.sparse_tensor_core import SparseTensorCore
from sparqsim.architectures.sparse_tensor_core.config import Tiling
from sparqsim.base import InputError
from sparqsim.scripts.cli import cli
from sparqsim.simulator.energy.tables import Basis
from sparqsim.simulator.report import Report
from sparqsim.workloads.layers import Linear
from sparqsim.workloads.tensors import synthetic

FC = Linear(name="fc", in_features=256, out_features=128, rows=8)
WORK = synthetic(FC, np.random.default_rng(0), weight_density=0.4, activation_density=0.5)
ARRAYS: tuple[type[ArrayMachine], ...] = (BitFusion, Ant, Olive, PlainArray, TPU, DianNao)
RATE = "core_dynamic_per_compute_cycle"


def parts(machine: Machine) -> dict[str, float | None]:
    """Energy by part of one small layer."""
    return {part.part: part.energy_pj for part in report(machine).energy.parts}


def report(machine: Machine) -> Report:
    """Of one small layer."""
    return run(machine, WORK, verify=False).report


def total(machine: Machine) -> float:
    """Energy of one small layer."""
    return report(machine).energy.known_pj


# ------------------------------------------------------------------ at the published point


@pytest.mark.parametrize(("machine", "table"), [(BitFusion(), ENERGY), (Ant(), ANT_ENERGY)])
def test_authors_figures_stand_at_their_point(machine: ArrayMachine, table: Any) -> None:
    """Every entry of the authors' tables, its basis and its source."""
    assert machine.energies == table


def test_borrowed_figures_stand_at_the_defaults() -> None:
    """OliVe's and the plain array's are ANT's, and assumed."""
    for machine in (Olive(), PlainArray()):
        for mine, theirs in zip(machine.energies.entries, ANT_ENERGY.entries, strict=True):
            assert (mine.value, mine.basis) == (theirs.value, Basis.ASSUMED)


def test_a_machine_without_energies_of_its_own_has_no_such_choice() -> None:
    """TPU and DianNao publish none: "published" is no option there."""
    for kind in (TPU, DianNao):
        with pytest.raises(InputError, match=r"must be one of cacti-aladdin, horowitz"):
            kind(energy_table="published")


# ------------------------------------------------------------------ arrays


@pytest.mark.parametrize("shape", [(8, 8), (4, 8), (16, 16), (32, 64)])
@pytest.mark.parametrize("kind", [BitFusion, PlainArray, TPU])
def test_the_energy_of_products_is_not_the_arrays_shape(
    kind: type[ArrayMachine], shape: tuple[int, int]
) -> None:
    """A layer that fills every array: Bit Fusion's 8 x 8 once took 8 times the energy of 16 x 32,
    the TPU's 64 x 64 12 times that of 256 x 256."""
    rows, columns = shape
    full = Linear(name="full", in_features=512, out_features=512, rows=64)
    given = {"energy_table": "cacti-aladdin"} if kind is TPU else {}

    def array_pj(**fields: Any) -> float | None:
        machine = kind(**fields, **given)
        found = run(machine, machine.plan(full)).report.energy
        return next(part.energy_pj for part in found.parts if part.part == "array dynamic")

    assert array_pj(rows=rows, columns=columns) == pytest.approx(array_pj())


def test_narrow_elements_take_less() -> None:
    """A plain element of 4 bits takes a quarter of one of 8: ANT's four of them are a gang."""
    eight, four = (PlainArray(bits=bits).energies.entry(RATE) for bits in (8, 4))
    assert four.value == pytest.approx(eight.value / 4)
    whole = Ant().energies.entry(RATE)
    assert PlainArray(rows=64, columns=64, bits=4).energies.entry(RATE).value == whole.value


@pytest.mark.parametrize("kind", ARRAYS)
def test_energy_falls_as_the_technology_improves(kind: type[ArrayMachine]) -> None:
    """180 to 7 nm: every part falls or stays; below 7 nm nothing is known of published figures."""
    before = parts(kind(node_nm=180))
    for node_nm in (90, 45, 28, 16, 7):
        now = parts(kind(node_nm=node_nm))
        assert all(now[part] <= before[part] * (1 + 1e-9) for part in now)  # type: ignore[operator]
        assert sum(now.values()) < sum(before.values())  # type: ignore[arg-type]
        assert kind(node_nm=node_nm).adder.value < kind(node_nm=180).adder.value
        before = now


@pytest.mark.parametrize("kind", [BitFusion, Ant, Olive, PlainArray])
def test_buffers_follow_capacity_and_static_power_time(kind: type[ArrayMachine]) -> None:
    """A bit of a buffer of 8 times the words costs 8^0.59 times as much; power is not a matter of
    the clock, so a cycle of half the length takes half the static energy."""
    one, table = kind(), kind().energies
    large = replace(one, weight_buffer_kib=8 * one.weight_buffer_kib).energies
    ratio = large.entry("weight_buffer_read").value / table.entry("weight_buffer_read").value
    assert ratio == pytest.approx(8 ** (np.log(32.3 / 2.76) / np.log(64)))
    fast = replace(one, clock_hz=2 * one.clock_hz).energies
    for rate in ("core_static_per_cycle", "dram_static_per_cycle"):
        assert fast.entry(rate).value == pytest.approx(table.entry(rate).value / 2)
    assert fast.entry(RATE) == table.entry(RATE)


@pytest.mark.parametrize("kind", [BitFusion, Ant, Olive, PlainArray])
def test_a_faster_clock_does_not_speed_up_the_dram(kind: type[Any]) -> None:
    """The bandwidth is a field of its own."""
    assert kind(clock_hz=2e9).bandwidth() == kind().bandwidth()
    assert kind(dram_gbytes_per_s=100.0).bandwidth() == 1e11


def test_a_dram_standard_has_its_own_energy() -> None:
    """A named standard is priced as such, its background with it; none is priced as another."""
    rates = PlainArray(dram_standard="HBM2-2000").energies
    assert rates.entry("dram_read").value == 6.25
    assert rates.entry("dram_static_per_cycle").value == 0
    unknown = PlainArray(dram_standard="LPDDR5-6400")
    assert parts(unknown)["DRAM"] is None and report(unknown).energy.total_pj is None
    shipped = PlainArray(dram_standard="DDR3-1600", energy_table="horowitz")
    assert shipped.energies.entry("dram_write").value == 70
    with pytest.raises(InputError, match="objective energy needs every energy, but dram_static"):
        report(replace(unknown, objective=Objective.ENERGY))


# ------------------------------------------------------------------ the other machines


def test_eie_follows_every_module_of_its_table() -> None:
    """Rows of 1, 8 and 64 entries once cost alike; a slow clock takes no more energy."""
    base = parts(EIE())
    changes = {
        "spmat_read": [EIE(sram_row_entries=1), EIE(sram_row_entries=64)],
        "queue": [EIE(queue_slots=4), EIE(queue_slots=64)],
        "arithmetic": [EIE(accumulator_bits=32), EIE(accumulator_bits=63)],
        "act_rw": [EIE(act_registers=32), EIE(act_registers=256)],
    }
    cycles = report(EIE()).cycles
    for part, machines in changes.items():
        for machine in machines:
            found = report(machine)
            now = next(each.energy_pj for each in found.energy.parts if each.part == part)
            assert base[part] and now
            assert now / found.cycles != pytest.approx(base[part] / cycles, rel=1e-3)
    # by hand: a row of 512 bits is an access of 8 times the bits at 8^-0.59 each
    then, wide = report(EIE()), report(EIE(sram_row_entries=64))
    reads = wide.counters["spmat_reads"] / then.counters["spmat_reads"]
    ratio = reads * 8 ** (1 - np.log(32.3 / 2.76) / np.log(64))
    found = next(each for each in wide.energy.parts if each.part == "spmat_read")
    assert found.energy_pj == pytest.approx(base["spmat_read"] * ratio)  # type: ignore[operator]
    assert total(EIE(clock_hz=4e8)) == pytest.approx(total(EIE()))


def test_snap_follows_its_supply_and_its_cores_keep_their_memory() -> None:
    """0.55 V takes 43 % of the energy at 0.80 V; more cores bring their own SRAM."""
    base, low = parts(SNAP()), parts(SNAP(supply_v=0.55))
    for part in base:
        assert low[part] / base[part] == pytest.approx(0.4277, abs=1e-3)  # type: ignore[operator]
    reads = {cores: report(SNAP(cores=cores)) for cores in (4, 8)}
    price = {
        cores: parts(SNAP(cores=cores))["psum read and write"]
        / (each.memory["output_buffer"].read_bits + each.memory["output_buffer"].written_bits)  # type: ignore[operator]
        for cores, each in reads.items()
    }
    assert price[8] == pytest.approx(price[4])
    with pytest.raises(InputError, match=r"supply_v must be 0.55 to 0.80 V"):
        SNAP(supply_v=0.9)


def test_eyeriss_follows_its_buffer_and_its_grid() -> None:
    """A GLB of 4 times the words costs 4^0.59 times a bit; networks grow with the grid's side."""

    def price(machine: Eyeriss, part: str, memory: str) -> float:
        found = report(machine)
        bits = found.memory[memory].read_bits + found.memory[memory].written_bits
        return next(p.energy_pj for p in found.energy.parts if p.part == part) / bits  # type: ignore[operator]

    ratio = price(Eyeriss(glb_kib=400), "glb", "glb") / price(Eyeriss(), "glb", "glb")
    assert ratio == pytest.approx(4 ** (np.log(32.3 / 2.76) / np.log(64)))
    ratio = price(Eyeriss(rows=24, columns=28), "noc", "noc") / price(Eyeriss(), "noc", "noc")
    assert ratio == pytest.approx(2)


@pytest.mark.parametrize("preset", ["a100-40gb", "h100"])
def test_part_of_a_board_takes_part_of_its_power(preset: str) -> None:
    """Half the SMs, twice the clock, faster tensor cores: a product takes what it took; idle power
    goes with the SMs; larger shared memory costs more, and does not make the rest cheaper."""
    machine = load(preset)
    assert isinstance(machine, SparseTensorCore)
    base = machine.cores("fp16", "dense")
    shape = (1024, 1024, 1024)
    tile = Tiling(256, 128, 1, 64, 16, 3)
    before = base.step_energy_pj(tile)
    for change in (
        {"sms": machine.sms // 2}, {"clock_hz": 2 * machine.clock_hz}, {"fp16_macs_per_sm": 4096}
    ):  # fmt: skip
        other = replace(machine, **change)
        assert other.cores("fp16", "dense").step_energy_pj(tile) == pytest.approx(before)
    larger = replace(machine, shared_kib=machine.shared_kib * 4).cores("fp16", "dense")
    after = larger.step_energy_pj(tile)
    assert after["multiplying"] == pytest.approx(before["multiplying"])
    assert after["shared memory"] > before["shared memory"]
    half = replace(machine, sms=machine.sms // 2)
    idle = {
        each: next(
            part.energy_pj for part in found.energy.parts if part.part == "idle board"
        ) / found.seconds  # type: ignore[operator]
        for each, found in (
            (each, run(each, each.gemm(*shape, pattern="dense")).report)
            for each in (machine, half)
        )
    }  # fmt: skip
    assert idle[half] == pytest.approx(idle[machine] / 2)


@pytest.mark.parametrize(
    "change",
    [
        {"parallel_outputs": 16},
        {"parallel_heads": 6},
        {"clock_hz": 3e8},
        {"weight_buffer_kib": 512},
    ],
)
def test_the_power_of_another_engine_than_heatvits_is_not_known(change: dict[str, Any]) -> None:
    """10.697 W are of one engine: at the defaults over time, for any other no number."""
    base = report(HeatViT())
    assert base.energy.known_pj == pytest.approx(10.697 * base.seconds * 1e12)
    found = report(replace(HeatViT(), **change))
    assert found.energy.total_pj is None and next(iter(change)) in found.energy.missing[0]


# ------------------------------------------------------------------ what a user sees


def test_what_is_not_known_is_said_and_not_summed() -> None:
    """The terminal says so and why; a comparison leaves the ratio out; JSON has null."""
    runner = CliRunner()
    told = runner.invoke(cli, ["run", "plain", "gemm:16x16x16", "--dram-standard", "LPDDR5-6400"])
    assert told.exit_code == 0 and "not known: DRAM static: no figure of LPDDR5" in told.output
    whole = runner.invoke(
        cli, ["run", "heatvit", "gemm:16x16x16", "--parallel-outputs", "4", "--json", "-"]
    )
    assert whole.exit_code == 0 and '"total_pj": null' in whole.stdout
    side = runner.invoke(
        cli, ["compare", "deit_tiny", "--machines", "plain,heatvit", "--equal", "macs"]
    )
    assert side.exit_code == 0, side.output
    assert "not known" in side.output
