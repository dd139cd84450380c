"""Is Eyeriss the machine of the paper? Mapping, time, traffic, arithmetic, and its bad input."""

from __future__ import annotations

import csv
import dataclasses
import itertools
from pathlib import Path

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from sparqsim.architectures.arrays.shapes import ConvShape
from sparqsim.architectures.eyeriss import Eyeriss, RowStationary
from sparqsim.architectures.eyeriss.mapping import (
    active_pes,
    glb_bits,
    place,
    processing_cycles,
    unfit,
)
from sparqsim.architectures.eyeriss.search import candidates, rank, search, search_plain, shares
from sparqsim.architectures.machine import program, run
from sparqsim.base import InputError
from sparqsim.scripts.validation import eyeriss as validation
from sparqsim.scripts.validation.eyeriss import under
from sparqsim.simulator.traffic import moved
from sparqsim.workloads import recipes
from sparqsim.workloads.encoded import encode, outline
from sparqsim.workloads.layers import Conv2d, Linear, MatMul
from sparqsim.workloads.models import get_layer
from sparqsim.workloads.recipes import TensorRecipe
from sparqsim.workloads.tensors import LayerTensors, synthetic, with_rows

CHIP = Eyeriss()
APART = Eyeriss(off_chip=False)
PADDED = Eyeriss(off_chip=False, padded_glb=True)  # as the paper counts
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
    return synthetic(msgspec.structs.replace(layer, **changes), rng, activation_density=0.5)


@pytest.mark.parametrize("layer", MAPPINGS)
def test_the_published_mapping_fits_and_uses_the_published_pes(layer: str) -> None:
    """Table III fits scratchpads, grid and buffer; R r e t PEs multiply, as on the chip."""
    mapping, shape = MAPPINGS[layer], shape_of(layer)
    assert unfit(CHIP, shape, mapping) == ""
    assert active_pes(shape, mapping) == MEASURED[layer].active_pes
    report = run(APART, under(APART, alexnet(layer), mapping)).report
    assert report.counters["active_pes"] == MEASURED[layer].active_pes
    assert sum(work > 0 for work in report.load_balance.work_cycles) == MEASURED[layer].active_pes


def test_the_buffer_holds_what_table_iii_says() -> None:
    """Inputs and partial sums of a mapping take the published kilobytes."""
    with validation.MAPPINGS.open(newline="") as file:
        for line in csv.DictReader(file):
            name = line["layer"].lower()
            inputs, psums = glb_bits(PADDED, shape_of(name), MAPPINGS[name])
            assert inputs / 8192 == pytest.approx(float(line["ifmap_GLB_KB"]), abs=0.06)
            assert psums / 8192 == pytest.approx(float(line["psum_GLB_KB"]), abs=0.06)


@pytest.mark.parametrize("layer", MAPPINGS)
def test_processing_time_within_five_percent_of_the_chip(layer: str) -> None:
    """One overhead (a pass starts empty), nothing fitted; a time is printed to 0.1 ms."""
    measured = MEASURED[layer].processing_ms
    report = run(APART, under(APART, alexnet(layer), MAPPINGS[layer])).report
    assert abs(report.seconds * 1e3 - measured) - 0.05 <= 0.05 * measured


def test_buffer_traffic_is_the_chips_but_for_one_layer() -> None:
    """GLB bytes within 0.5 % of the chip; CONV3's are those of CONV4's mapping, not its own."""
    found = {}
    for layer in MAPPINGS:
        count = run(PADDED, under(PADDED, alexnet(layer), MAPPINGS[layer])).report.counters
        found[layer] = count["glb_access_bits"] / 8e6
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
    mapping = search(APART, ConvShape.of(layer))
    report = run(APART, under(APART, layer, mapping)).report
    assert report.cycles == processing_cycles(APART, ConvShape.of(layer), mapping)
    assert report.cycles * APART.pes >= layer.macs
    assert sum(report.load_balance.work_cycles) == layer.macs
    assert run(CHIP, under(CHIP, layer, mapping)).report.cycles >= report.cycles


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(1, 12), strip=st.integers(1, 30), sets=st.integers(1, 40)
)  # fmt: skip
def test_sets_are_placed_inside_the_grid_without_overlap(rows: int, strip: int, sets: int) -> None:
    """Every PE of every set is a cell of its own, and rows of a set's column are neighbours."""
    cells = place(CHIP, rows, strip, sets)
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
    tensors = synthetic(Linear(name="fc", in_features=50, out_features=30, rows=3),
                      np.random.default_rng(0), activation_density=0.3)  # fmt: skip
    compiled = run(CHIP, tensors).report
    simpy = run(CHIP, tensors, engine="simpy", execute=True).report
    assert compiled.verification.status == simpy.verification.status == "exact"
    assert compiled.cycles == simpy.cycles


def test_a_product_of_two_activations_runs_as_groups() -> None:
    """Every head of an attention product is a group; outputs come in the product's shape."""
    made = synthetic(MatMul(name="scores", batch=3, m=5, k=9, n=6), np.random.default_rng(4))
    result = run(CHIP, made)
    assert result.report.verification.status == "exact"
    assert result.program.outputs is not None and result.program.outputs.shape == (3, 5, 6)
    assert result.report.output_sqnr_db is not None and result.report.output_sqnr_db > 40
    simpy = run(CHIP, made, engine="simpy", execute=True).report
    assert simpy.verification.status == "exact" and simpy.cycles == result.report.cycles


def test_narrower_codes_are_held_as_they_are() -> None:
    """int8 with one scale per channel runs without rounding again, in the time of 16 bits."""
    tensors = small(np.random.default_rng(6))
    wide, narrow = run(CHIP, tensors), run(CHIP, tensors, recipe="int8")
    assert wide.report.operands["weights"].how == "as it is"
    assert {each.how for each in narrow.report.operands.values()} == {"held exactly"}
    assert narrow.report.verification.status == "exact"
    apart = [run(APART, tensors, recipe=recipe).report.cycles for recipe in ("int16", "int8")]
    assert apart[0] == apart[1]
    scale = np.asarray(narrow.program.output_scale)
    assert len(np.unique(scale)) == len(np.unique(scale[0, :, 0, 0])) > 1
    found, real = narrow.program.values(), tensors.output()
    assert found is not None and np.abs(found - real).max() < 0.05 * np.abs(real).max()


def test_zero_points_are_refused() -> None:
    """Truncated products do not fall apart into the terms of a zero point."""
    tensors = small(np.random.default_rng(6))
    recipe = msgspec.structs.replace(
        recipes.get("int8"), activations=TensorRecipe(format="int8_signed", asymmetric=True)
    )
    with pytest.raises(InputError, match="zero point"):
        run(CHIP, tensors, recipe=recipe)
    again = run(CHIP, tensors, recipe=recipe, requantize=True).report
    assert again.operands["activations"].how == "rounded again"
    assert again.verification.status == "exact"


def test_an_outline_takes_the_time_of_dense_tensors() -> None:
    """Shapes alone: nothing gated or compressed; dense activations are stored raw, so alike."""
    layer = small(np.random.default_rng(0)).layer
    full = synthetic(layer, np.random.default_rng(0), activation_density=1.0)
    bias = np.full(7, 100.0)
    told = run(CHIP, dataclasses.replace(full, bias=bias)).report
    alone = run(CHIP, outline(layer, "int16")).report
    assert alone.cycles == told.cycles and alone.verification.status == "skipped"
    assert alone.memory["dram"] == told.memory["dram"]
    assert alone.counters["macs_gated"] == 0


def test_padding_is_stored_only_where_the_paper_counts_it() -> None:
    """DRAM gives real inputs either way; the paper's buffer takes in and gives padding beside them.

    The image is 9 x 8, one place of padding around it.
    """
    tensors = small(np.random.default_rng(0))
    mapping = RowStationary(n=1, m=7, e=9, p=7, q=1, r=1, t=1)
    found = {}
    for padded in (False, True):
        chip = Eyeriss(padded_glb=padded)
        layer = outline(tensors.layer, "int16")
        found[padded] = run(chip, chip.lower_under(layer, mapping)).report
    plain, paper = found[False].memory, found[True].memory
    assert plain["dram"] == paper["dram"] and found[False].cycles == found[True].cycles
    inputs = 2 * 5 * 16  # images, channels, bits
    assert found[False].counters["dram_ifmap_bits"] == inputs * 9 * 8
    psums = found[False].counters["ofmap_raw_bits"]  # sums are written once a channel
    assert plain["glb"].written_bits == inputs * 9 * 8 + 5 * psums
    assert paper["glb"].written_bits == inputs * 11 * 10 + 5 * psums
    assert paper["glb"].read_bits - plain["glb"].read_bits == inputs * (11 * 10 - 9 * 8)
    assert paper["glb"].used_bits - plain["glb"].used_bits == 16 * (11 * 10 - 9 * 8)


@pytest.mark.parametrize("chip", [CHIP, APART], ids=["with DRAM", "without"])
def test_the_account_is_that_of_the_passes(chip: Eyeriss) -> None:
    """Bits of every memory by the loops written out, and the same over time."""
    tensors = small(np.random.default_rng(7))
    layer, mapping = encode(tensors, "int16"), RowStationary(n=1, m=4, e=4, p=2, q=2, r=1, t=2)
    result = run(chip, chip.lower_under(layer, mapping))
    read = written = into = filters = passes = 0
    strips = ((4, 5), (4, 6), (1, 2))  # output rows, and input rows that are no padding
    for _, (e, rows), m in itertools.product((1, 1), strips, (4, 3)):  # images, rows, filters
        for k in (2, 2, 1):  # channels
            inputs, psums = k * rows * 8, m * e * 8
            into += inputs  # every pass has other channels than the one before
            read += inputs + psums  # sums: not before the first pass, but after the last one
            written += psums
            filters += 9 * k * m
            passes += 1
    memory, counters = result.report.memory, result.report.counters
    assert counters["passes"] == passes
    assert memory["glb"].read_bits == 16 * read
    assert memory["glb"].written_bits == 16 * (written + into)
    assert counters["glb_access_bits"] == 16 * (read + written)
    assert memory["filter_buffer"].read_bits == memory["filter_buffer"].written_bits
    assert memory["filter_buffer"].read_bits == counters["dram_filter_bits"] == 16 * filters
    macs, gated = counters["macs"], counters["macs_gated"]
    assert memory["spads"].read_bits == 16 * (3 * (macs - gated) + gated)
    assert memory["spads"].written_bits == 16 * (macs - gated)
    for name, use in memory.items():
        over_time = moved(result.timeline, result.traffic[name])
        assert over_time.read_bits.sum() == pytest.approx(use.read_bits)
        assert over_time.written_bits.sum() == pytest.approx(use.written_bits)


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_the_compiled_search_finds_what_its_specification_does(data: st.DataObject) -> None:
    """The same mapping, ties included, on any chip and shape."""
    draw = data.draw
    chip = Eyeriss(
        rows=draw(st.integers(1, 12)), columns=draw(st.integers(1, 14)),
        glb_kib=draw(st.integers(1, 100)), filter_kib=draw(st.integers(1, 8)),
        ifmap_bus_bits=draw(st.sampled_from([16, 48])), off_chip=draw(st.booleans()),
        link_hz=draw(st.sampled_from([1e6, 6e7, 3e8])), padded_glb=draw(st.booleans()),
    )  # fmt: skip
    shape = ConvShape(
        batch=draw(st.integers(1, 4)), out_height=draw(st.integers(1, 20)),
        out_width=draw(st.integers(1, 20)), kernel_height=draw(st.integers(1, 6)),
        kernel_width=draw(st.integers(1, 6)), stride_height=draw(st.integers(1, 3)),
        stride_width=draw(st.integers(1, 3)), in_channels=draw(st.integers(1, 12)),
        out_channels=draw(st.integers(1, 30)), groups=draw(st.integers(1, 2)),
        pad_top=draw(st.integers(0, 3)), pad_left=draw(st.integers(0, 3)),
        pad_right=draw(st.integers(0, 3)),
    )  # fmt: skip
    expected = search_plain(chip, shape)
    if expected is None:
        with pytest.raises(InputError, match="no row-stationary mapping"):
            search(chip, shape)
    else:
        found = search(chip, shape)
        assert found == expected and unfit(chip, shape, found) == ""
        assert rank(chip, shape, found) == min(
            rank(chip, shape, each)
            for each in candidates(chip, shape)
            if not unfit(chip, shape, each)
        )


@given(total=st.integers(1, 300), most=st.integers(0, 300))
def test_shares_are_the_smallest_sizes_of_their_number_of_parts(total: int, most: int) -> None:
    """Any size has a share that cuts the loop into as many parts and is no larger."""
    found = shares(total, most)
    assert found[0] == 1 and found[-1] <= max(1, min(total, most))
    for size in range(1, max(1, min(total, most)) + 1):
        best = max(each for each in found if each <= size)
        assert -(-total // best) == -(-total // size)


def test_another_peak_or_bandwidth_is_met_as_far_as_whole_pes_can() -> None:
    """A grid of the same shape, a link of another clock; area is known of the chip alone."""
    peak, link = CHIP.peak(), CHIP.bandwidth()
    assert peak.macs_per_s == 168 * 200e6 and link == 480e6 and APART.bandwidth() is None
    larger = CHIP.resized(macs_per_s=4 * peak.macs_per_s)
    assert (larger.rows, larger.columns) == (24, 28) and larger.area() is None
    assert CHIP.resized(bandwidth=2 * link).bandwidth() == 2 * link
    assert CHIP.area() is not None


def test_a_lost_token_is_a_wrong_output() -> None:
    """If one PE's sums vanish on the way, execution does not give the kernel's sums."""
    lost = program(CHIP, small(np.random.default_rng(3)))
    array = lost.netlist.actor("pe_array")
    plain = array.execute
    assert plain is not None and lost.executed is not None

    def loses(lane: int, k: int, got: dict[str, list[object]]) -> dict[str, list[object]]:
        return plain(lane, k, got) if (lane, k) != (15, 0) else {"sums": [None]}

    object.__setattr__(array, "execute", loses)
    assert run(CHIP, lost, engine="simpy", execute=True).report.verification.status == "mismatch"


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
    """Mappings, kernels and dilations beyond the machine are error messages, not results."""
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
        reported = unfit(CHIP, shape, msgspec.structs.replace(fine, **change))
        assert reason in reported, (change, reported)
    with pytest.raises(InputError, match="does not fit"):
        under(CHIP, alexnet("conv2"), msgspec.structs.replace(fine, q=3))
    with pytest.raises(InputError, match="no row-stationary mapping"):
        search(CHIP, ConvShape.square(batch=1, out=4, kernel=13, stride=1, in_channels=1,
                                      out_channels=1))  # fmt: skip
    with pytest.raises(InputError, match="dilation"):
        program(CHIP, small(np.random.default_rng(0), dilation=(2, 2)))
    with pytest.raises(InputError, match="at most 12 x 12"):
        program(CHIP, small(np.random.default_rng(0), kernel=(1, 13), input=(1, 20)))
    with pytest.raises(InputError, match=r"mapping\.p"):
        msgspec.structs.replace(fine, p=0)


@pytest.mark.parametrize(
    ("field", "value"),
    [("rows", 0), ("glb_kib", 1.5), ("clock_hz", float("nan")), ("link_hz", -1.0),
     ("psum_bus_bits", 24), ("off_chip", 1)],
)  # fmt: skip
def test_a_bad_configuration_is_refused(field: str, value: object) -> None:
    """The message names the field."""
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
    assert result.exit_code == 1 and "conv5, processing: 10 measured" in result.stderr
    rows = msgspec.json.decode(result.stdout)["rows"]
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
