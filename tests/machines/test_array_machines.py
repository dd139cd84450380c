"""Do the quantized array machines compute what numbers say, and count what they did?

Every machine on random convolutions (strides, groups, depthwise, dilation) and fully connected
layers: outputs bit-exact against a reference that never unfolds, both engines alike, tokens that
carry the sums, energy that is counters times rates. What is special to one machine is in its own
suite.
"""

from __future__ import annotations

import tracemalloc

import msgspec
import numpy as np
import pytest
from array_layers import LAYERS, MACHINES, TILED, tensors
from hypothesis import given, settings
from hypothesis import strategies as st

from sparqsim.architectures.arrays.ant import Ant
from sparqsim.architectures.arrays.bitfusion import BitFusion
from sparqsim.architectures.arrays.datapath import requantized
from sparqsim.architectures.arrays.diannao import DianNao
from sparqsim.architectures.arrays.energies import shipped_energies
from sparqsim.architectures.arrays.folds import NM, Dataflow, SystolicGrid
from sparqsim.architectures.arrays.machine import ArrayMachine
from sparqsim.architectures.arrays.olive import Olive
from sparqsim.architectures.arrays.plain import PlainArray
from sparqsim.architectures.arrays.shapes import Loop, Mapping, Tile
from sparqsim.architectures.arrays.tpu import TPU
from sparqsim.architectures.machine import program as lowered
from sparqsim.architectures.machine import run
from sparqsim.architectures.network import run_network
from sparqsim.base import InputError
from sparqsim.workloads.encoded import outline
from sparqsim.workloads.layers import Linear, MatMul, Model
from sparqsim.workloads.models import get_model
from sparqsim.workloads.prune import NM as NMPattern
from sparqsim.workloads.prune import prune
from sparqsim.workloads.requantize import Multiplier, requantize_one
from sparqsim.workloads.tensors import LayerTensors, synthetic
from sparqsim.workloads.work import Network, load


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("machine", MACHINES)
def test_outputs_are_exact(machine: str, layer: str) -> None:
    """Every output of every kind of layer equals the reference, signed inputs and ReLU or not."""
    for seed, signed in enumerate((False, True)):
        work = tensors(LAYERS[layer], seed, signed, relu=not signed)
        report = run(MACHINES[machine], work).report
        assert report.verification.status == "exact"
        assert report.verification.outputs == LAYERS[layer].output_elements
        assert report.macs.dense == LAYERS[layer].macs
        assert 0 < report.macs.effectual < report.macs.dense


@pytest.mark.parametrize("machine", MACHINES)
def test_outputs_approximate_the_layer(machine: str) -> None:
    """What an output stands for is the real layer's output, as near as the width allows."""
    work = tensors(LAYERS["connected"], 3)
    program = lowered(MACHINES[machine], work)
    assert program.outputs is not None
    exact = np.maximum(work.activation @ work.sparse_weight.to_dense().T + work.bias, 0)
    error = np.abs(program.values() - exact).max() / exact.max()
    eight = program.operands["weights"].bits == 8
    assert error < (0.05 if eight else 0.25)


@pytest.mark.parametrize("machine", MACHINES)
def test_a_wrong_product_is_found(machine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One sum off by a thousandth of its range in the MAC core: the run says mismatch."""
    kind = type(MACHINES[machine])
    right = kind.multiply

    def wrong(self, *arguments):  # type: ignore[no-untyped-def]
        sums = right(self, *arguments).astype(np.int64)
        sums.flat[np.abs(sums).argmax()] //= 2
        return sums

    monkeypatch.setattr(kind, "multiply", wrong)
    report = run(MACHINES[machine], tensors(LAYERS["connected"], relu=False)).report
    assert report.verification.status == "mismatch"
    assert report.verification.mismatches >= 1


@pytest.mark.parametrize("machine", MACHINES)
def test_both_engines_and_the_tokens_agree(machine: str) -> None:
    """Same cycles, stalls and path on either engine; tokens carry the sums to the DRAM."""
    work = tensors(LAYERS["grouped"])
    fast = run(MACHINES[machine], work)
    slow = run(MACHINES[machine], work, engine="simpy", execute=machine in TILED)
    assert slow.report.verification.status == "exact"
    assert fast.report.cycles == slow.report.cycles
    assert fast.report.stalls == slow.report.stalls
    assert fast.report.critical_path == slow.report.critical_path
    if machine in TILED:
        assert slow.program.executed is not None and slow.program.executed()


@pytest.mark.parametrize(
    "machine",
    [
        BitFusion(input_buffer_kib=1, output_buffer_kib=2),
        Ant(input_buffer_kib=1, weight_buffer_kib=2),
    ],
)
def test_a_token_of_the_wrong_block_is_found(machine: ArrayMachine) -> None:
    """Blocks swapped on their way: the sums that arrive are not the kernel's."""
    program = lowered(machine, tensors(LAYERS["strided"]))
    source = program.netlist.actor("input_dma")
    assert source.count > 1
    right = source.execute
    assert right is not None and program.executed is not None
    assert run(machine, program, engine="simpy", execute=True).report.verification.status == "exact"

    def wrong(lane, firing, got):  # type: ignore[no-untyped-def]
        return right(lane, 0, got)

    object.__setattr__(source, "execute", wrong)
    report = run(machine, program, engine="simpy", execute=True).report
    assert report.verification.status == "mismatch"
    assert not program.executed()


@pytest.mark.parametrize("machine", MACHINES)
def test_energy_is_counters_times_rates(machine: str) -> None:
    """Each part from the run's cycles and counters; every part names its source."""
    report = run(MACHINES[machine], tensors(LAYERS["image"])).report
    rates, counted = MACHINES[machine].rates, report.counters
    moved = sum(
        counted[f"{field.replace('write', 'written')}_bits"] * getattr(rates, field)
        for field in ("input_buffer_read", "input_buffer_write", "weight_buffer_read",
                      "weight_buffer_write", "output_buffer_read", "output_buffer_write",
                      "dram_read", "dram_write")
    )  # fmt: skip
    static = (rates.core_static_per_cycle + rates.dram_static_per_cycle) * report.cycles
    dynamic = rates.core_dynamic_per_compute_cycle * counted["compute_cycles"]
    assert report.energy.total_pj == pytest.approx(moved + static + dynamic)
    assert all(part.source for part in report.energy.parts)
    assert msgspec.json.decode(msgspec.json.encode(report))["cycles"] == report.cycles


@pytest.mark.parametrize("kind", [BitFusion, Ant, Olive, PlainArray, TPU])
def test_the_user_switches_energy_tables(kind: type[ArrayMachine]) -> None:
    """Another table, other energies and sources, the same cycles; an unknown one is an error."""
    work = tensors(LAYERS["image"])
    own = () if kind is TPU else ("published",)  # the TPU has no table of its own
    tables = (*own, "cacti-aladdin", "horowitz")
    reports = {table: run(kind(energy_table=table), work).report for table in tables}
    assert len({report.energy.total_pj for report in reports.values()}) == len(tables)
    assert "CACTI" in str(reports["cacti-aladdin"].energy.parts)
    assert "Horowitz" in str(reports["horowitz"].energy.parts)
    with pytest.raises(InputError, match=r"energy_table must be one of .*got 'mine'"):
        kind(energy_table="mine")


@pytest.mark.parametrize("kind", [BitFusion, Ant, Olive, PlainArray, TPU])
def test_datasheets_say_where_numbers_come_from(kind: type[ArrayMachine]) -> None:
    """One row per field and energy, each with a basis and a source; assumed ones are said to be."""
    figures = kind().datasheet()
    assert {f.name for f in figures} >= set(kind.__struct_fields__)
    assert all(f.source and f.basis for f in figures)
    assumed = {f.name for f in figures if f.basis.value == "assumed"}
    assert kind.assumed <= assumed


@pytest.mark.parametrize("kind", [BitFusion, Ant, Olive, PlainArray, TPU])
def test_configurations_refuse_what_cannot_be_built(kind: type[ArrayMachine]) -> None:
    """Counts, clocks and unknown keys, at birth, by the name of the field."""
    for field in ("input_buffer_kib", "weight_buffer_kib", "clock_hz", "node_nm"):
        for bad in (0, -1, float("nan"), "8", None):
            with pytest.raises(InputError, match=f"{kind.__name__}.{field} must be"):
                kind(**{field: bad})
    with pytest.raises(TypeError, match="colour"):
        kind(colour="blue")
    with pytest.raises(msgspec.ValidationError, match="unknown field"):
        msgspec.convert({"colour": "blue"}, kind)


def test_widths_a_machine_lacks_are_refused() -> None:
    """An error message that names the layer and the widths there are."""
    wide = Linear(name="wide", in_features=4, out_features=4, activation_bits=16, weight_bits=16)
    for machine in (Ant(), Olive(), PlainArray()):
        with pytest.raises(InputError, match=r"'wide'.*16"):
            machine.plan(wide)
    six = Linear(name="six", in_features=4, out_features=4, weight_bits=6)
    with pytest.raises(InputError, match="next wider"):
        BitFusion().plan(six)
    assert Ant().published_widths(six) == (8, 8)
    with pytest.raises(InputError, match="needs 8 bits, the array multiplies 4"):
        PlainArray(bits=4).plan(msgspec.structs.replace(six, weight_bits=8))


def test_a_layer_too_large_for_any_tile_is_refused() -> None:
    """Nothing fits a buffer of a KiB: the message says what there is."""
    large = Linear(name="large", in_features=50_000, out_features=4)
    machine = TPU(weight_buffer_kib=64)
    assert machine.fifo_tiles == 1
    with pytest.raises(InputError, match="must hold a tile"):
        TPU(weight_buffer_kib=32)
    tiny = PlainArray(rows=1024, columns=1024, weight_buffer_kib=1, input_buffer_kib=1)
    with pytest.raises(InputError, match="larger buffers"):
        tiny.plan(large)


@pytest.mark.parametrize("machine", MACHINES)
def test_networks_simulate_identical_layers_once(machine: str) -> None:
    """A layer like one before borrows its report; the sum counts both, and repeats, unless the
    machine runs the network as one program."""
    model = Model(
        name="m",
        source="synthetic",
        layers=(
            Linear(name="a", in_features=64, out_features=64, rows=8, repeat=3),
            Linear(name="b", in_features=64, out_features=64, rows=8),
            MatMul(name="c", m=8, k=64, n=8, batch=2),
        ),
    )
    report = run_network(
        MACHINES[machine], Network(name="m", model=model, source="synthetic"), verify=False
    )
    a, b, c = report.runs
    assert (a.same_as, b.same_as, c.same_as) == ("", "a", "")
    assert b.report.layer == "b" and b.report.cycles == a.report.cycles
    assert b.report.verification.status == "skipped"
    alone = 4 * a.report.cycles + c.report.cycles
    if report.whole is None:
        assert report.totals.cycles == alone
    else:  # it runs as one program
        assert report.totals.cycles == report.whole.cycles <= alone


def test_whole_networks_run_from_their_shapes() -> None:
    """ResNet-50 and BERT-base: every layer, no faster than the array could be when full."""
    for name in ("resnet50", "bert_base"):
        network = load(name, numbers=False)
        for machine in (BitFusion(), TPU()):
            report = run_network(machine, network, verify=False)
            assert len(report.runs) == len(network.layers)
            assert report.totals.cycles >= network.model.macs / machine.multipliers_at_8_bits
            for each in report.runs:
                assert each.report.cycles >= each.report.counters["compute_cycles"]


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.integers(-(2**31), 2**31 - 1), min_size=1, max_size=8),
    st.floats(1e-9, 2.0**30),
)
def test_the_reference_requantizes_by_the_definition(sums: list[int], factor: float) -> None:
    """The formula on arrays is the one in Python's integers, value by value."""
    multiplier = Multiplier.of(factor)
    found = requantized(np.array(sums)[:, None], [multiplier], 0, -128, 127)
    assert [int(v) for v in found[:, 0]] == [requantize_one(s, multiplier) for s in sums]


def test_sums_that_leave_the_accumulator_are_told() -> None:
    """16 by 16 bits wrap around 32; the outputs are exact all the same, and the report says so."""
    layer = Linear(
        name="wide", in_features=64, out_features=8, rows=2, activation_bits=16, weight_bits=16
    )
    report = run(BitFusion(), tensors(layer, relu=False)).report
    assert report.verification.status == "exact"
    assert any("left the 32-bit accumulators" in note for note in report.notes)
    narrow = msgspec.structs.replace(layer, activation_bits=8, weight_bits=8)
    for bits, wraps in ((32, False), (12, True)):
        report = run(BitFusion(accumulator_bits=bits), tensors(narrow, relu=False)).report
        assert report.verification.status == "exact"
        assert any("wrapped around" in note for note in report.notes) == wraps
    with pytest.raises(InputError, match="accumulator_bits must be 8 to 32, got 40"):
        BitFusion(accumulator_bits=40)


def test_constants_and_empty_signals_do_not_divide_by_zero() -> None:
    """All-zero inputs or weights: outputs are the bias alone."""
    layer = Linear(name="zero", in_features=8, out_features=4, rows=2)
    for machine in (BitFusion(), Ant(), Olive(), PlainArray(), TPU()):
        for weight, inputs in (
            (np.zeros((4, 8)), np.ones((2, 8))),
            (np.ones((4, 8)), np.zeros((2, 8))),
        ):
            work = LayerTensors(layer=layer, weight=weight, activation=inputs, bias=np.arange(4.0))
            program = lowered(machine, work)
            assert program.verify is not None and program.verify().status == "exact"
            assert program.outputs is not None
            assert np.array_equal(program.outputs.argmax(axis=1), [3, 3])


def test_the_module_prices_shipped_tables_with_their_own_words() -> None:
    """A shipped table has an entry for each rate, the size of its SRAMs taken into account."""
    table = shipped_energies(
        "cacti-aladdin", node_nm=28.0, multipliers=16, buffers_kib=(2, 128, 16), dram="dram.lpddr4"
    )
    assert table.entry("input_buffer_read").value == pytest.approx(1.16 / 64)
    assert table.entry("weight_buffer_read").value == pytest.approx(13.9 / 64)
    assert table.entry("core_dynamic_per_compute_cycle").value == pytest.approx(16 * 0.59)
    assert table.entry("dram_read").value == 8.0


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("kind", [BitFusion, Ant, Olive, PlainArray])
def test_dram_with_rows_and_banks(kind: type[ArrayMachine], channels: int) -> None:
    """Exact outputs, engines alike, tokens that carry the sums, never faster than the pins."""
    machine = kind(dram_standard="DDR4-2400", dram_channels=channels)
    work = tensors(LAYERS["strided"])
    fast = run(machine, work)
    slow = run(machine, work, engine="simpy", execute=True)
    assert fast.report.verification.status == slow.report.verification.status == "exact"
    assert fast.report.cycles == slow.report.cycles
    assert slow.program.executed is not None and slow.program.executed()
    counted = fast.report.counters
    moved = counted["dram_read_bits"] + counted["dram_written_bits"]
    assert machine.dram is not None
    assert fast.report.seconds >= moved / 8 / machine.dram.peak_bytes_per_s
    assert "DDR4-2400" in fast.report.notes[-1]


def test_banks_cost_what_a_bus_of_their_bandwidth_does_not_show() -> None:
    """A memory-bound layer: DDR3-1600 reaches 90 to 100 % of its pins, and two channels help."""
    layer = Linear(name="large", in_features=4096, out_features=4096, rows=4)
    took = [
        run(m, m.plan(layer)).report
        for m in (BitFusion(dram_standard="DDR3-1600", dram_channels=c) for c in (1, 2))
    ]
    bits = took[0].counters["dram_read_bits"] + took[0].counters["dram_written_bits"]
    least = bits / 8 / 12.8e9
    assert 1.0 <= took[0].seconds / least < 1.1
    assert took[1].seconds < 0.6 * took[0].seconds


def test_dram_that_is_not_there_is_refused() -> None:
    """Unknown standards, and channels of a bus: an error message each, at birth."""
    with pytest.raises(InputError, match=r"no DRAM standard 'DDR9'"):
        BitFusion(dram_standard="DDR9")
    with pytest.raises(InputError, match=r"Ant.dram_channels are of a DRAM standard"):
        Ant(dram_channels=2)
    with pytest.raises(InputError, match=r"Olive.dram_channels must be a whole number"):
        Olive(dram_standard="DDR4-2400", dram_channels=0)


@pytest.mark.slow
def test_networks_are_timed_in_seconds() -> None:
    """Processor seconds: ResNet-50 and BERT-base under 5, LLaMA-7B (a step, a prompt) under 30."""
    import time

    from sparqsim.workloads.models.decoders import llama_7b

    def cycles(model: Model) -> int:
        network = Network(name=model.name, model=model, source=model.source)
        return run_network(BitFusion(), network, verify=False).totals.cycles

    cycles(get_model("bitfusion/lenet5"))  # compiles
    for models, limit in (
        ((get_model("resnet50"),), 5),
        ((get_model("bert_base"),), 5),
        ((llama_7b(2048), llama_7b(2048, decode=True)), 30),
    ):
        start = time.process_time()
        for model in models:
            assert cycles(model) > 0
        assert time.process_time() - start < limit


@pytest.mark.slow
@pytest.mark.parametrize("machine", ["bitfusion", "ant", "olive", "tpu"])
def test_resnet50_is_verified_whole(machine: str) -> None:
    """Every output of every layer, synthetic tensors, in under 60 processor seconds."""
    import time

    rng, start = np.random.default_rng(0), time.process_time()
    for layer in get_model("resnet50").layers:
        report = run(MACHINES[machine], synthetic(layer, rng), record="summary").report
        assert report.verification.status == "exact"
    assert time.process_time() - start < 60


def test_n_of_m_weights_halve_the_reduction() -> None:
    """2:4 weights in a weight-stationary array: half the steps, 5 bits a place instead of 8, the
    closed form's folds, and the dense outputs, on both engines."""
    rng = np.random.default_rng(0)
    layer = Linear(name="l", in_features=256, out_features=64, rows=96)
    weight = prune(rng.standard_normal((64, 256)), NMPattern(n=2, m=4, axis=1))
    work = LayerTensors(layer=layer, weight=weight, activation=rng.random((96, 256)))
    dense = PlainArray(dataflow=Dataflow.WEIGHT_STATIONARY)
    sparse = PlainArray(dataflow=Dataflow.WEIGHT_STATIONARY, sparsity="2:4")
    one, two = run(dense, work), run(sparse, work)
    slow = run(sparse, work, engine="simpy", execute=True)
    assert two.report.verification.status == slow.report.verification.status == "exact"
    assert two.report.cycles == slow.report.cycles < one.report.cycles
    np.testing.assert_array_equal(one.program.outputs, two.program.outputs)
    compute = [r.report.counters["compute_cycles"] for r in (one, two)]
    assert compute[0] == 2 * compute[1]
    grid = SystolicGrid(rows=32, columns=32, dataflow=Dataflow.WEIGHT_STATIONARY)
    assert compute[1] == grid.folds(96, 64, 256, sparsity=NM(2, 4)).streaming_cycles
    bits = [r.report.counters["weight_buffer_written_bits"] for r in (one, two)]
    assert bits[1] * 8 == bits[0] * 5
    assert two.report.macs.effectual <= two.report.cycles * two.program.multipliers


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"sparsity": "2:4"}, "stay in the elements"),
        ({"sparsity": "4:2"}, "N up to M"),
        ({"sparsity": "half"}, "N:M"),
        ({"sparsity": "3:4"}, "divides M"),
    ],
)
def test_patterns_that_cannot_be_kept_are_refused(fields: dict[str, str], message: str) -> None:
    """A message each, when built; weights of more non-zeros run dense, and the report says so."""
    with pytest.raises(InputError, match=message):
        dataflow = Dataflow.OUTPUT_STATIONARY
        if fields["sparsity"] != "2:4":
            dataflow = Dataflow.WEIGHT_STATIONARY
        PlainArray(dataflow=dataflow, **fields)
    layer = Linear(name="l", in_features=8, out_features=4)
    work = LayerTensors(layer=layer, weight=np.ones((4, 8)), activation=np.ones((1, 8)))
    skipping = PlainArray(dataflow=Dataflow.WEIGHT_STATIONARY, sparsity="2:4")
    report = run(skipping, work).report
    assert (
        report.cycles
        == run(msgspec.structs.replace(skipping, sparsity="dense"), work).report.cycles
    )
    assert any("not 2:4: all of them are kept" in note for note in report.notes)


def test_a_summary_takes_no_more_memory_for_a_larger_layer() -> None:
    """Sixteen times as many tiles (3.3 million), and the report of their sums, in the same 4 MB;
    the cycles of the tiles between the first and the last grow in proportion."""
    machine, peaks, cycles = DianNao(), [], []
    mapping = Mapping(
        tile=Tile(batch=1, out_height=1, out_width=1, in_channels=160, out_channels=48),
        order=(Loop.OUTPUTS, Loop.INPUTS, Loop.BATCH, Loop.ROWS, Loop.COLUMNS),
        kept=(2, 3, 2),
    )
    for outputs in (48, 480, 7680):  # the first only loads what is needed
        layer = MatMul(name="product", m=2048, k=1600, n=outputs)
        tracemalloc.start()
        report = run(machine, machine.plan(layer, mapping=mapping), record="summary").report
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        cycles.append(report.cycles)
        assert report.counters["tiles"] == 2048 * 10 * outputs // 48
    assert peaks[2] < 1.2 * peaks[1] < 4e6
    assert (cycles[2] - cycles[1]) * (480 - 48) == (cycles[1] - cycles[0]) * (7680 - 480)


def test_long_runs_that_repeat_keep_no_firings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where either will do, firings are kept of other runs alone; the report is the same."""
    monkeypatch.setattr("sparqsim.architectures.machine.MOST_REPEATING", 500_000)
    machine = BitFusion()
    for rows, kept in ((64, True), (1024, False)):
        layer = Linear(name="l", in_features=1024, out_features=4096, rows=rows)
        made = lowered(machine, outline(layer, "int8"))
        either, full = (run(machine, made, record=record) for record in ("either", "full"))
        assert (either.timeline.starts is not None) == kept
        assert either.report == full.report
