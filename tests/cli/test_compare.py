"""Is a comparison fair, complete, and normalised to what it says?"""

from __future__ import annotations

import math
from pathlib import Path

import msgspec
import pytest
from test_run_network import answer

from sparqsim.architectures.compare import compare, equalized
from sparqsim.architectures.registry import get_machine
from sparqsim.base import InputError
from sparqsim.simulator.comparison import ComparisonReport
from sparqsim.simulator.pages import comparison_page
from sparqsim.simulator.report import Report
from sparqsim.workloads.work import load

MACHINES = {name: get_machine(name)() for name in ("bitfusion", "eie", "plain")}


@pytest.fixture(scope="module")
def report() -> ComparisonReport:
    """Two trained networks on two arrays and EIE."""
    return compare([load("digits-cnn"), load("digits-mlp")], MACHINES)


def test_ratios_are_to_the_first_machine(report: ComparisonReport) -> None:
    """Each measure over the first's; the first's are 1."""
    for network in report.networks:
        first = network.machines[0].shared
        for each in network.machines:
            ratios, totals = each.ratios, each.shared
            assert ratios.cycles == totals.cycles / first.cycles
            assert ratios.seconds == totals.seconds / first.seconds
            assert ratios.energy == totals.energy.total_pj / first.energy.total_pj
            assert ratios.edp == pytest.approx(ratios.energy * ratios.seconds)
        assert network.machines[0].ratios.dram == 1
        assert network.machines[1].label == "eie" and network.machines[1].ratios.dram is None


def test_only_layers_that_all_run_are_set_side_by_side(report: ComparisonReport) -> None:
    """EIE runs no 3x3 convolution: the ratios leave them out for all, the reports do not."""
    cnn, mlp = report.networks
    assert cnn.shared_layers == ["fc1", "fc2", "fc3"]
    array = cnn.machines[0]
    assert array.shared.layers == 3 and array.report.totals.layers == 6
    sums = sum(row.report.cycles for row in array.report.runs if row.name in cnn.shared_layers)
    assert array.shared.cycles == sums < array.report.totals.cycles
    assert mlp.machines[0].shared == mlp.machines[0].report.totals
    assert any("digits-cnn: 3 of 6 layers" in note for note in report.notes)
    assert cnn.summed_over == "the 3 of 6 layers that run on every machine"
    ran = [cnn.ran_on(each) for each in cnn.machines]
    assert ran == ["all layers", "3 of 6 layers", "all layers"] and mlp.summed_over == "all layers"
    assert "eie 3 of 6 layers" in cnn.ran_on_each and mlp.ran_on_each == "all layers"
    assert cnn.ran_on_each in comparison_page(report)


def test_both_means_are_told(report: ComparisonReport) -> None:
    """Geometric and arithmetic, of the networks' ratios; none where a network lacks one."""
    assert [mean.label for mean in report.means] == list(MACHINES)
    for place, mean in enumerate(report.means):
        values = [network.machines[place].ratios.seconds for network in report.networks]
        assert None not in values
        assert mean.geometric.seconds == pytest.approx(math.sqrt(values[0] * values[1]))
        assert mean.arithmetic.seconds == pytest.approx(sum(values) / 2)
    assert report.means[1].geometric.dram is None
    single = compare([load("digits-mlp")], MACHINES, verify=False)
    assert single.means == []


def test_energies_of_different_bases_come_with_a_note(report: ComparisonReport) -> None:
    """The note names basis and technology of every machine."""
    (note,) = [note for note in report.notes if "energies" in note]
    for name in MACHINES:
        assert name in note
    assert "45" in note and "28" in note and "assumed" in note


def test_json_gives_the_comparison_back(report: ComparisonReport) -> None:
    """Whole reports included."""
    encoded = msgspec.json.encode(report)
    again = msgspec.json.decode(encoded, type=ComparisonReport)
    assert msgspec.json.encode(again) == encoded


def test_peaks_are_made_equal() -> None:
    """As close as whole rows and columns allow, and the change is told."""
    chosen = equalized(MACHINES, "macs")
    assert chosen[0].machine == MACHINES["bitfusion"]
    wanted = MACHINES["bitfusion"].peak().macs_per_s
    for each in chosen[1:]:
        got = each.machine.peak().macs_per_s
        assert abs(got / wanted - 1) < abs(each.given.peak().macs_per_s / wanted - 1)
    report = compare([load("digits-mlp")], MACHINES, equal="macs", verify=False)
    changed = {each.label: each.changed for each in report.contenders}
    assert changed == {"bitfusion": [], "eie": ["pes"], "plain": ["rows", "columns"]}
    assert any("eie comes as close" in note for note in report.notes)
    assert any("different operands" in note for note in report.notes)


def test_bandwidths_are_made_equal() -> None:
    """The DRAM bus of the other machine is widened or narrowed."""
    arrays = {name: MACHINES[name] for name in ("plain", "bitfusion")}
    first, second = equalized(arrays, "bandwidth")
    assert second.machine.bandwidth() == first.machine.bandwidth()
    with pytest.raises(InputError, match="no DRAM of eie is modelled"):
        equalized(MACHINES, "bandwidth")
    with pytest.raises(InputError, match="no DRAM of eie is modelled"):
        equalized({"eie": MACHINES["eie"], "plain": MACHINES["plain"]}, "bandwidth")


def test_areas_are_made_equal_in_one_technology() -> None:
    """By the square of the node; a machine whose area nobody published cannot be made equal."""
    eie, snap = get_machine("eie")(), get_machine("snap")()
    first, second = equalized({"eie": eie, "snap": snap}, "area")
    assert first.area is not None and second.area is not None
    assert snap.area().at(45) == pytest.approx(2.3 * (45 / 16) ** 2)
    step = snap.area().at(45) / snap.cores  # of a core: the smallest change
    assert abs(second.area.at(45) - first.area.mm2) <= step / 2
    report = compare([load("digits-mlp")], {"eie": eie, "snap": snap}, equal="area")
    other = report.contenders[1]
    assert other.area_node_nm == 16 and other.area_basis == "assumed"
    assert other.area_at_first_mm2 == pytest.approx(second.area.at(45))
    assert any("square of the node" in note for note in report.notes)
    with pytest.raises(InputError, match="that of bitfusion is not known"):
        equalized({"eie": eie, "bitfusion": MACHINES["bitfusion"]}, "area")


def test_the_public_function_is_the_same() -> None:
    """By names or configurations, with one recipe for all or one by label."""
    import sparqsim

    by_name = sparqsim.compare("digits-mlp", ["bitfusion", "plain"], "int8", verify=False)
    machines = {name: MACHINES[name] for name in ("bitfusion", "plain")}
    recipes = {"bitfusion": "int8", "plain": "int8"}
    same = sparqsim.compare([load("digits-mlp")], machines, recipes, verify=False)
    assert msgspec.json.encode(by_name) == msgspec.json.encode(same)
    with pytest.raises(InputError, match="recipe names 'ant'"):
        sparqsim.compare("digits-mlp", machines, {"ant": "int8"})
    with pytest.raises(InputError, match="sequence of names"):
        sparqsim.compare("digits-mlp", "bitfusion")


def test_the_command_saves_what_it_chose(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """One file per machine, with which `run --config` gives the same cycles."""
    call = ["compare", "digits-mlp", "--machines", "bitfusion,plain,eie", "--equal", "macs"]
    call += ["--no-verify", "--save", str(tmp_path), "--json", "-"]
    code, out, _ = answer(call, capfd)
    assert code == 0
    report = msgspec.json.decode(out, type=ComparisonReport)
    assert {path.name for path in tmp_path.iterdir()} == {
        "bitfusion.toml",
        "plain.toml",
        "eie.toml",
    }
    for each in report.networks[0].machines:
        config = str(tmp_path / f"{each.label}.toml")
        alone = ["run", each.label, "digits-mlp/fc1", "--config", config, "--no-verify"]
        code, out, err = answer([*alone, "--json", "-"], capfd)
        assert code == 0, err
        found = msgspec.json.decode(out, type=Report)
        assert found.cycles == each.report.runs[0].report.cycles


def test_recipes_for_all_and_for_one(capfd: pytest.CaptureFixture[str]) -> None:
    """One for all machines, and one of its own for a machine; accuracy with each."""
    call = ["compare", "digits-mlp", "--machines", "bitfusion,plain", "--recipe", "int8"]
    code, out, _ = answer([*call, "--recipe", "bitfusion=w4a8", "--json", "-"], capfd)
    assert code == 0
    machines = msgspec.json.decode(out, type=ComparisonReport).networks[0].machines
    assert [each.report.recipe for each in machines] == ["w4a8", "int8"]
    assert all(each.report.accuracy is not None for each in machines)
    code, out, _ = answer([*call, "--csv", "-"], capfd)
    lines = [line for line in out.splitlines() if ",beside," not in line]
    assert code == 0 and lines[0].startswith("network,machine,row,name") and len(lines) == 7


def test_a_configuration_stands_behind_a_colon(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A file or a preset: the same machine twice, told apart."""
    (tmp_path / "small.toml").write_text("rows = 4\ncolumns = 4\n")
    labels = f"bitfusion,bitfusion:{tmp_path / 'small.toml'}"
    call = ["compare", "gemm:64x64x64", "--no-verify", "--json", "-", "--machines"]
    code, out, _ = answer([*call, labels], capfd)
    assert code == 0
    _, small = msgspec.json.decode(out, type=ComparisonReport).networks[0].machines
    assert small.ratios.cycles > 1
    code, out, _ = answer([*call, "sparse-tensor-core:h100,sparse-tensor-core"], capfd)
    assert code == 0 and "sparse-tensor-core:h100" in out


DIGITS = ["compare", "digits-mlp", "--machines"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["compare", "digits-mlp"], "--machines"),
        (["compare", "--machines", "bitfusion"], "WORK"),
        ([*DIGITS, "bitfusion,"], "commas"),
        ([*DIGITS, "bitfusion,bitfusion"], "twice"),
        ([*DIGITS, "bitfusoin"], "there is no machine"),
        ([*DIGITS, "bitfusion:absent.toml"], "absent.toml"),
        ([*DIGITS, "bitfusion:h100"], "sparse-tensor-core"),
        ([*DIGITS, "bitfusion", "--equal", "cost"], "--equal"),
        ([*DIGITS, "bitfusion,eie", "--equal", "bandwidth"], "no DRAM of eie"),
        ([*DIGITS, "bitfusion,eie", "--equal", "area"], "is not known"),
        ([*DIGITS, "bitfusion", "--recipe", "int8", "--recipe", "int4"], "twice"),
        ([*DIGITS, "eie", "--recipe", "eie=eie", "--recipe", "eie=w4"], "twice"),
        ([*DIGITS, "bitfusion", "--recipe", "bitfusion=int9"], "there is no recipe"),
        ([*DIGITS, "bitfusion", "--recipe", "plain=int8"], "there is no recipe"),
        ([*DIGITS, "bitfusion", "--no-verify", "--seed", "2"], "--seed changes nothing"),
        ([*DIGITS, "bitfusion", "--weight-density", "0.5"], "real tensors"),
        ([*DIGITS, "bitfusion", "--jobs", "0"], "--jobs"),
        ([*DIGITS, "bitfusion", "--save", "/proc/x"], "/proc/x"),
        ([*DIGITS, "bitfusion", "--json", "/dev/null/x.json"], "/dev/null"),
        (["compare", "conv:4x8x8,8x3x3", "--machines", "eie"], "no layer of"),
    ],
)
def test_bad_input_is_an_error_message(
    arguments: list[str], message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2, one message that names the matter, nothing on standard output."""
    code, out, err = answer(arguments, capfd)
    assert code == 2 and not out
    assert message in err and "Traceback" not in err
    lines = err.strip().splitlines()
    assert len(lines) == 1 or lines[0].startswith("Usage:")
