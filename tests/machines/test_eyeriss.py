"""Is Eyeriss the machine of the paper? Mapping, time, traffic, arithmetic, and its bad input."""

from __future__ import annotations

import csv
from pathlib import Path

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from sparqsim.architectures.eyeriss import Eyeriss
from sparqsim.architectures.machine import run
from sparqsim.architectures.tiling import ConvShape
from sparqsim.base import InputError
from sparqsim.scripts.validation import eyeriss as validation
from sparqsim.workloads.layers import Conv2d, Linear
from sparqsim.workloads.models import get_layer
from sparqsim.workloads.tensors import LayerTensors, made_up, with_rows

CHIP = Eyeriss()
APART = Eyeriss(off_chip=False)
MAPPINGS = validation.read_mappings()
MEASURED = {line.layer: line for line in validation.read_measured(validation.MEASURED)}


def alexnet(layer: str) -> Conv2d:
    found = with_rows(get_layer(f"alexnet/{layer}"), validation.IMAGES)
    assert isinstance(found, Conv2d)
    return found


def shape_of(layer: str) -> ConvShape:
    return ConvShape.of(alexnet(layer))


def small(rng: np.random.Generator, **changes: object) -> LayerTensors:
    layer = Conv2d(
        name="small", in_channels=5, out_channels=7, input=(9, 8), kernel=(3, 3), padding=(1, 1),
        batch=2,
    )  # fmt: skip
    return made_up(msgspec.structs.replace(layer, **changes), rng, activation_density=0.5)


@pytest.mark.parametrize("layer", MAPPINGS)
def test_the_published_mapping_fits_and_uses_the_published_pes(layer: str) -> None:
    """Table III fits scratchpads, grid and buffer; R r e t PEs multiply, as on the chip."""
    mapping, shape = MAPPINGS[layer], shape_of(layer)
    assert CHIP.unfit(shape, mapping) == ""
    assert CHIP.active_pes(shape, mapping) == MEASURED[layer].active_pes
    report = run(APART, APART.plan(alexnet(layer), mapping)).report
    assert report.counters["active_pes"] == MEASURED[layer].active_pes
    assert sum(work > 0 for work in report.load_balance.work_cycles) == MEASURED[layer].active_pes


def test_the_buffer_holds_what_table_iii_says() -> None:
    """Inputs and partial sums of a mapping take the published kilobytes."""
    with validation.MAPPINGS.open(newline="") as file:
        for line in csv.DictReader(file):
            name = line["layer"].lower()
            inputs, psums = CHIP.glb_bits(shape_of(name), MAPPINGS[name])
            assert inputs / 8192 == pytest.approx(float(line["ifmap_GLB_KB"]), abs=0.06)
            assert psums / 8192 == pytest.approx(float(line["psum_GLB_KB"]), abs=0.06)


@pytest.mark.parametrize("layer", MAPPINGS)
def test_processing_time_within_five_percent_of_the_chip(layer: str) -> None:
    """One overhead (a pass starts empty), nothing fitted; a time is printed to 0.1 ms."""
    measured = MEASURED[layer].processing_ms
    report = run(APART, APART.plan(alexnet(layer), MAPPINGS[layer])).report
    assert abs(report.seconds * 1e3 - measured) - 0.05 <= 0.05 * measured


def test_buffer_traffic_is_the_chips_but_for_one_layer() -> None:
    """GLB bytes within 0.5 % of the chip; CONV3's are those of CONV4's mapping, not its own."""
    found = {}
    for layer in MAPPINGS:
        count = run(APART, APART.plan(alexnet(layer), MAPPINGS[layer])).report.counters
        found[layer] = (count["glb_read_bits"] + count["glb_write_bits"]) / 8e6
    for layer in ("conv1", "conv2", "conv4", "conv5"):
        assert found[layer] == pytest.approx(MEASURED[layer].glb_mb, rel=0.005)
    assert found["conv3"] > 1.3 * MEASURED["conv3"].glb_mb
    assert validation.conv3_otherwise() == pytest.approx(MEASURED["conv3"].glb_mb, rel=0.005)


@settings(max_examples=40, deadline=None)
@given(
    kernel=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    size=st.tuples(st.integers(5, 20), st.integers(5, 20)),
    channels=st.integers(1, 9),
    filters=st.integers(1, 20),
    batch=st.integers(1, 3),
)
def test_a_run_without_dram_takes_the_analytic_time_and_at_least_the_work(
    kernel: tuple[int, int],
    stride: tuple[int, int],
    size: tuple[int, int],
    channels: int,
    filters: int,
    batch: int,
) -> None:
    """Event by event and in closed form alike; never faster than the multipliers; DRAM adds."""
    layer = Conv2d(
        name="any", in_channels=channels, out_channels=filters, input=size, kernel=kernel,
        stride=stride, batch=batch,
    )  # fmt: skip
    mapping = APART.search(ConvShape.of(layer))
    report = run(APART, APART.plan(layer, mapping)).report
    assert report.cycles == APART.processing_cycles(ConvShape.of(layer), mapping)
    assert report.cycles * APART.pes >= layer.macs
    assert sum(report.load_balance.work_cycles) == layer.macs
    assert run(CHIP, CHIP.plan(layer, mapping)).report.cycles >= report.cycles


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(1, 12), strip=st.integers(1, 30), sets=st.integers(1, 40)
)  # fmt: skip
def test_sets_are_placed_inside_the_grid_without_overlap(rows: int, strip: int, sets: int) -> None:
    """Every PE of every set is a cell of its own, and rows of a set's column are neighbours."""
    cells = CHIP.place(rows, strip, sets)
    if cells is None:
        side_by_side, folded = 14 // strip, -(-strip // 14)
        assert sets > 12 // rows * side_by_side and sets > 12 // rows // folded
        return
    assert cells.shape == (sets, rows, strip)
    assert len(np.unique(cells)) == cells.size
    assert cells.min() >= 0 and cells.max() < CHIP.pes
    assert (np.diff(cells, axis=1) == CHIP.columns).all()


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"kernel": (2, 4), "stride": (2, 1), "input": (40, 11), "padding": (0, 0)},
        {"in_channels": 6, "out_channels": 4, "groups": 2},
        {"kernel": (1, 1), "padding": (0, 0)},
    ],
)
def test_outputs_are_exact_and_carried_by_tokens_on_both_engines(
    changes: dict[str, object],
) -> None:
    """Kernel, reference and the row convolutions of single PEs give the same bits and cycles."""
    tensors = small(np.random.default_rng(3), **changes)
    compiled = run(CHIP, tensors).report
    simpy = run(CHIP, tensors, engine="simpy", execute=True).report
    assert compiled.verification.status == simpy.verification.status == "exact"
    assert compiled.cycles == simpy.cycles


def test_a_fully_connected_layer_runs() -> None:
    """A layer of single pixels is a convolution of them."""
    tensors = made_up(Linear(name="fc", in_features=50, out_features=30, rows=3),
                      np.random.default_rng(0), activation_density=0.3)  # fmt: skip
    compiled = run(CHIP, tensors).report
    simpy = run(CHIP, tensors, engine="simpy", execute=True).report
    assert compiled.verification.status == simpy.verification.status == "exact"
    assert compiled.cycles == simpy.cycles


def test_a_lost_token_is_a_wrong_output() -> None:
    """If one PE's sums vanish on the way, execution does not give the kernel's sums."""
    program = CHIP.lower(small(np.random.default_rng(3)))
    array = program.netlist.actor("pe_array")
    plain = array.execute
    assert plain is not None and program.executed is not None

    def loses(lane: int, k: int, got: dict[str, list[object]]) -> dict[str, list[object]]:
        return plain(lane, k, got) if (lane, k) != (15, 0) else {"sums": [None]}

    object.__setattr__(array, "execute", loses)
    assert run(CHIP, program, engine="simpy", execute=True).report.verification.status == "mismatch"


def test_zeros_save_energy_and_traffic_not_time() -> None:
    """All-zero and all-dense inputs take the same processing time; zeros gate every product."""
    rng = np.random.default_rng(1)
    dense = small(rng, padding=(0, 0))
    zeros = LayerTensors(
        layer=dense.layer, weight=dense.weight, activation=np.zeros_like(dense.activation)
    )
    full = LayerTensors(
        layer=dense.layer, weight=dense.weight, activation=np.ones_like(dense.activation)
    )
    nothing, everything = (run(APART, each).report for each in (zeros, full))
    assert nothing.cycles == everything.cycles
    assert nothing.counters["macs_gated"] == nothing.macs.dense and nothing.macs.effectual == 0
    assert everything.counters["macs_gated"] == 0
    energies = [{p.part: p.energy_pj for p in r.energy.parts} for r in (nothing, everything)]
    assert energies[0]["mac"] == 0 < energies[1]["mac"]
    assert energies[0]["spad"] < energies[1]["spad"]
    assert nothing.counters["dram_ifmap_bits"] < everything.counters["dram_ifmap_bits"]
    assert nothing.verification.status == everything.verification.status == "exact"


def test_a_faster_link_never_slows_a_layer() -> None:
    """The link is the only thing DRAM adds; without it the time is the lower bound."""
    tensors = small(np.random.default_rng(5))
    times = [
        run(Eyeriss(link_hz=link), tensors, verify=False).report.cycles
        for link in (10e6, 30e6, 60e6, 90e6, 1e9)
    ]
    assert times == sorted(times, reverse=True)
    assert times[-1] >= run(APART, tensors, verify=False).report.cycles


def test_what_does_not_fit_is_refused_with_the_reason() -> None:
    """Mappings, kernels and dilations beyond the machine are letters, not results."""
    fine = MAPPINGS["conv2"]
    shape = shape_of("conv2")
    for change, reason in (
        ({"p": 24, "m": 24}, "filter words"),
        ({"q": 3, "p": 8, "m": 8}, "input words"),
        ({"p": 25, "m": 25, "q": 1}, "partial sums"),
        ({"t": 2}, "sets of"),
        ({"m": 128}, "KiB"),
        ({"n": 9}, "at most"),
        ({"m": 65}, "multiple"),
    ):
        reported = CHIP.unfit(shape, msgspec.structs.replace(fine, **change))
        assert reason in reported, (change, reported)
    with pytest.raises(InputError, match="does not fit"):
        CHIP.plan(alexnet("conv2"), msgspec.structs.replace(fine, q=3))
    with pytest.raises(InputError, match="no row-stationary mapping"):
        CHIP.search(ConvShape.square(batch=1, out=4, kernel=13, stride=1, in_channels=1,
                                     out_channels=1))  # fmt: skip
    with pytest.raises(InputError, match="dilation"):
        CHIP.lower(small(np.random.default_rng(0), dilation=(2, 2)))
    with pytest.raises(InputError, match=r"mapping\.p"):
        msgspec.structs.replace(fine, p=0)


@pytest.mark.parametrize(
    ("field", "value"),
    [("rows", 0), ("glb_kib", 1.5), ("clock_hz", float("nan")), ("link_hz", -1.0),
     ("psum_bus_bits", 24), ("off_chip", 1)],
)  # fmt: skip
def test_a_bad_configuration_is_refused(field: str, value: object) -> None:
    """The letter names the field."""
    with pytest.raises(InputError, match=field):
        Eyeriss(**{field: value})


def test_other_measurements_can_be_given(tmp_path: Path) -> None:
    """--against takes a table of the same columns; one of other columns or broken is refused."""
    shipped = validation.MEASURED.read_text().splitlines()
    other = tmp_path / "one.csv"
    other.write_text(
        "\n".join([shipped[0], shipped[4].replace("CONV4", "conv4"), shipped[5]]) + "\n"
    )
    result = CliRunner().invoke(validation.command, ["--against", str(other), "--json", "-"])
    assert result.exit_code == 0, result.output
    rows = msgspec.json.decode(result.output)["rows"]
    assert {row["layer"].lower() for row in rows} == {"conv4", "conv5"}
    assert all({"measured", "simulated", "error"} <= row.keys() for row in rows)
    held = {(row["layer"].lower(), row["quantity"]): row["within_bound"] for row in rows}
    assert held["conv4", "processing"] is True and held["conv4", "glb"] is None
    assert held["conv5", "processing"] is False and held["conv5", "active_pes"] is True
    for text in ("", "layer,power_mW\nconv1,3\n", shipped[0] + "\nconv1,x,y\n",
                 "\n".join([shipped[0], shipped[1].replace("16.5", "nan")])):  # fmt: skip
        other.write_text(text)
        with pytest.raises(InputError):
            validation.read_measured(other)
    with pytest.raises(InputError, match="read"):
        validation.read_measured(tmp_path / "absent.csv")


def test_the_datasheet_names_a_source_for_every_number() -> None:
    """Every figure has a basis and a source, and the peak is that of the paper."""
    figures = CHIP.datasheet()
    assert all(figure.source and figure.basis for figure in figures)
    assert {f.name: f.value for f in figures}["peak"] == "33.6 GMAC/s"
