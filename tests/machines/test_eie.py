"""Is EIE the machine of the paper? Its timing, arithmetic, encoding, energy and its bad input."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparqsim.architectures.eie import EIE, load_counts
from sparqsim.architectures.eie.config import TABLE_II
from sparqsim.architectures.eie.schedule import Fetch, Pass
from sparqsim.architectures.eie.stored import fixed_table
from sparqsim.architectures.machine import Result, program, run
from sparqsim.base import InputError
from sparqsim.simulator.mac import eie as mac
from sparqsim.workloads import recipes
from sparqsim.workloads.encoded import Coded, encode, outline
from sparqsim.workloads.encodings.csc import CSC
from sparqsim.workloads.encodings.relative_index import RelativeIndexCSC
from sparqsim.workloads.layers import Conv2d, Linear, MatMul
from sparqsim.workloads.tensors import LayerTensors, from_digits, synthetic

BARE = EIE(act_spill=False)


def cycles_by_hand(entries: np.ndarray, positions: np.ndarray, length: int, slots: int) -> int:
    """The datasheet's rules 1 to 6 as a loop over cycles: an independent model of the array.

    ``entries`` is [broadcasts, pes]. A row of N elements is held; its next non-zero is broadcast
    if no queue is full; a row without one left takes a cycle to replace. The run ends when the
    pipes are empty and every row has been looked at.
    """
    pes = entries.shape[1]
    queues: list[list[int]] = [[] for _ in range(pes)]
    left = [0] * pes
    row, cursor, k, cycle = -1, 0, 0, 0
    rows = -(-length // pes)
    last = scanned = 0
    while k < len(positions) or any(queues) or any(left) or row < rows - 1:
        full = any(len(queue) == slots - 1 for queue in queues)
        for pe in range(pes):
            if left[pe] == 0 and queues[pe]:
                left[pe] = max(int(entries[queues[pe].pop(0), pe]), 1)
            if left[pe]:
                left[pe] -= 1
                last = cycle
        in_row = positions[(positions // pes == row) & (positions >= cursor)]
        if row < 0 or len(in_row) == 0:
            if row < rows - 1:
                row, scanned = row + 1, cycle + 1
        elif not full:
            for queue in queues:
                queue.append(k)
            k += 1
            cursor = int(in_row[0]) + 1
            if in_row[0] % pes == pes - 1:
                row += 1
        cycle += 1
    # After its issue an entry takes a register, three stages and the write register: 6 cycles.
    return max(last + 1 + 6, scanned)


@settings(max_examples=60, deadline=None)
@given(
    pes=st.integers(1, 6),
    columns=st.integers(1, 40),
    density=st.floats(0.05, 1.0),
    slots=st.integers(2, 6),
    seed=st.integers(0, 2**32 - 1),
)
def test_timing_equals_the_rules_as_a_loop_over_cycles(
    pes: int, columns: int, density: float, slots: int, seed: int
) -> None:
    """The netlist's cycles are those of an independent cycle-by-cycle model of the datasheet."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 5, (pes, columns))
    active = np.flatnonzero(rng.random(columns) < density)
    if not len(active):
        return
    machine = EIE(pes=pes, queue_slots=slots, act_spill=False)
    timed = machine.program_from_counts(counts, active, bias=False)
    expected = cycles_by_hand(counts[:, active].T, active, columns, slots)
    for engine in ("compiled", "simpy"):
        assert run(machine, timed, engine=engine).report.cycles == expected


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(1, 40),
    cols=st.integers(1, 40),
    pes=st.integers(1, 9),
    density=st.floats(0.0, 1.0),
    batch=st.integers(1, 3),
    index_bits=st.integers(1, 8),
    registers=st.sampled_from([2, 64]),
    bias=st.booleans(),
    relu=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_outputs_are_exact(
    rows: int,
    cols: int,
    pes: int,
    density: float,
    batch: int,
    index_bits: int,
    registers: int,
    bias: bool,
    relu: bool,
    seed: int,
) -> None:
    """Any layer, any array, spilled or not: outputs equal the dense product, on both engines."""
    rng = np.random.default_rng(seed)
    layer = Linear(name="l", in_features=cols, out_features=rows, rows=batch)
    weight = rng.standard_normal((rows, cols)) * (rng.random((rows, cols)) < density)
    given_ = LayerTensors(
        layer=layer,
        weight=weight,
        activation=rng.standard_normal((batch, cols)) * (rng.random((batch, cols)) < 0.6),
        bias=rng.standard_normal(rows) if bias else None,
        relu=relu,
        pruned=True,
    )
    machine = EIE(pes=pes, index_bits=index_bits, act_registers=registers)
    fast = run(machine, given_)
    slow = run(machine, given_, engine="simpy", execute=True)
    assert fast.report.verification.status == slow.report.verification.status == "exact"
    assert fast.report.cycles == slow.report.cycles
    assert fast.report.macs.effectual <= fast.report.cycles * pes


@settings(max_examples=50, deadline=None)
@given(
    rows=st.integers(1, 30),
    cols=st.integers(1, 20),
    pes=st.integers(1, 5),
    row_entries=st.integers(1, 9),
    seed=st.integers(0, 2**32 - 1),
)
def test_kernel_equals_its_plain_twin(
    rows: int, cols: int, pes: int, row_entries: int, seed: int
) -> None:
    """The MAC core and its specification agree on sums, entries, SRAM reads and MACs.

    The sums are the dense product; entries of the bias column add their row's bias.
    """
    rng = np.random.default_rng(seed)
    codes = rng.integers(1, 16, (rows, cols)) * (rng.random((rows, cols)) < 0.4)
    matrix = RelativeIndexCSC.encode(CSC.from_dense(codes.astype(np.uint8)), np.arange(16), pes)
    table = np.concatenate([[0], rng.integers(-(2**15), 2**15, 15)])
    vector = rng.integers(-(2**15), 2**15, cols) * (rng.random(cols) < 0.7)
    columns = np.flatnonzero(vector)
    bias = rng.integers(-(2**30), 2**30, (pes, -(-rows // pes)))
    results = []
    for core in (mac.spmv, mac.spmv_plain):
        sums = np.zeros((pes, -(-rows // pes)), np.int64)
        taken = np.zeros((len(columns), pes), np.int32)
        reads = np.zeros((len(columns), pes), np.int32)
        macs = core(
            matrix.pointers,
            matrix.codes,
            matrix.runs,
            table,
            columns,
            vector[columns],
            cols - 1,
            bias,
            row_entries,
            sums,
            taken,
            reads,
        )
        results.append((macs, sums, taken, reads))
    (macs, *arrays), (plain_macs, *plain) = results
    assert macs == plain_macs
    for one, two in zip(arrays, plain, strict=True):
        np.testing.assert_array_equal(one, two)
    counted = mac.count_spmat_reads(matrix.entries_per_column(), columns, row_entries)
    np.testing.assert_array_equal(counted, arrays[2])
    dense = table[codes].astype(object)
    dense[:, cols - 1] = 0
    expected = dense @ vector.astype(object)
    if vector[cols - 1]:
        expected += np.where(codes[:, cols - 1], bias.T.reshape(-1)[:rows], 0)
    np.testing.assert_array_equal(arrays[0].T.reshape(-1)[:rows], expected)


def test_a_row_costs_its_non_zeros_and_one_unless_the_last_is_one() -> None:
    """Rule 1: rows of 4 elements; the second row ends in a non-zero and saves the cycle."""
    positions = np.array([0, 2, 5, 7, 9])
    fetch = Fetch.of([Pass(positions=positions, length=12, fresh=True)], 4)
    assert fetch.found.tolist() == [2, 2, 1]
    assert np.cumsum(fetch.awaited).tolist() == [0, 2, 3]
    # Start-up 1; row 0: 2 + 1, row 1: 2, row 2: 1 broadcast, at cycles 1 2, 4 5, 6.
    timed = EIE(pes=4, act_spill=False).program_from_counts(
        np.ones((4, 12), int), positions, bias=False
    )
    starts = run(EIE(pes=4, act_spill=False), timed).timeline.starts_of("ccu")[:, 0]
    assert starts.tolist() == [1, 2, 4, 5, 6]


def test_overflow_is_told() -> None:
    """Accumulators too narrow for a layer wrap, exactly so, and the report says how many."""
    layer = Linear(name="l", in_features=64, out_features=4)
    weight = np.repeat([[1.0, 0.7]], 4, axis=0).repeat(32, axis=1)
    work = LayerTensors(layer=layer, weight=weight, activation=np.ones((1, 64)), pruned=True)
    result = run(EIE(accumulator_bits=20), work)
    assert result.report.verification.status == "exact"
    assert any("wrapped around" in note for note in result.report.notes)


def digits(machine: EIE, layer: str, images: int = 12, network: str = "mlp") -> Result:
    return run(machine, from_digits(network, layer, images))


def test_real_layers_keep_their_accuracy() -> None:
    """The digits MLP, layer by layer through EIE's arithmetic, classifies as it did in float."""
    from sparqsim.workloads.models.digits import load_digits

    net = load_digits("mlp")
    images = net.images.test_images[:150]
    values = net.activations(images)[net.layers[0].name]
    for layer in net.layers:
        work = LayerTensors(
            layer=Linear(
                name=layer.name,
                in_features=layer.weight_shape[1],
                out_features=layer.weight_shape[0],
                rows=len(images),
            ),
            weight=net.weights[layer.name],
            activation=values,
            bias=net.biases[layer.name],
            relu=layer is not net.layers[-1],
            pruned=True,
        )
        result = run(BARE, work)
        assert result.report.verification.status == "exact"
        found = result.program.values()
        assert found is not None
        values = found
    labels = net.images.test_labels[: len(images)]
    in_float = float(np.mean(net.forward(images).argmax(axis=1) == labels))
    assert float(np.mean(values.argmax(axis=1) == labels)) >= in_float - 0.02


def test_spill_charges_the_activation_sram() -> None:
    """A vector over the registers is loaded and stored in batches; without spill it is not."""
    rng = np.random.default_rng(0)
    layer = Linear(name="l", in_features=300, out_features=100)
    work = synthetic(layer, rng, weight_density=0.3, activation_density=0.5)
    spilled = run(EIE(pes=4, act_registers=16), work)
    bare = run(EIE(pes=4, act_registers=16, act_spill=False), work)

    def words(stretch: int) -> int:
        """Of 64 bits, four activations each, all PEs in lockstep."""
        return math.ceil(math.ceil(stretch / 4) / 4) * 4

    loaded = sum(words(n) for n in (64, 64, 64, 64, 44))
    counters = spilled.report.counters
    assert counters["act_sram_reads"] == loaded * 2  # for each stretch of rows
    assert counters["act_sram_writes"] == words(64) + words(36)
    assert counters["act_sram_read_bits"] == 64 * counters["act_sram_reads"]
    busy = spilled.timeline.lane_times("act_sram").busy.sum()
    assert busy * 4 == counters["act_sram_reads"] + counters["act_sram_writes"]
    used = spilled.report.memory["act_sram"].used_bits
    assert used == (300 + 100) * 16 and bare.report.memory["act_sram"].used_bits == 0
    assert bare.report.counters["act_sram_reads"] == 0
    assert spilled.report.cycles > bare.report.cycles
    assert spilled.report.macs.effectual == bare.report.macs.effectual
    assert spilled.report.verification.status == bare.report.verification.status == "exact"


def test_power_is_that_of_table_ii() -> None:
    """64 PEs at 800 MHz draw the published 0.59 W; energy follows cycles, not frequency."""
    report = digits(BARE, "fc1").report
    assert report.energy.average_power_w == pytest.approx(0.59, abs=0.005)
    over_time = [p for p in report.energy.parts if p.part not in ("lnzd", "act_sram")]
    assert {part.source for part in over_time} == {TABLE_II} and len(over_time) == 5
    assert [p.energy_pj for p in report.energy.parts if p.part == "act_sram"] == [0]
    slow = digits(EIE(act_spill=False, clock_hz=400e6), "fc1").report
    assert slow.energy.total_pj == pytest.approx(report.energy.total_pj)
    assert slow.seconds == pytest.approx(2 * report.seconds)
    assert sum(part.energy_pj for part in report.energy.parts) == report.energy.total_pj


def test_report_is_consistent() -> None:
    """Stalls sum to lanes times cycles, the critical path to the cycles; counters add up."""
    report = digits(EIE(), "fc2").report
    for part in report.stalls.values():
        total = part.busy + part.starved + part.blocked + part.waiting + part.finished
        assert total == part.lanes * report.cycles
    assert sum(step.cycles for step in report.critical_path) == report.cycles
    counters = report.counters
    kinds = ("macs", "bias_entries", "padding_entries")
    assert counters["entries"] == sum(counters[kind] for kind in kinds)
    assert counters["ptr_reads"] == counters["broadcasts"] * 64
    assert sum(report.load_balance.work_cycles) == counters["entries"]


@pytest.mark.parametrize("pes", [1, 2, 64, 256])
def test_scales_over_pes(pes: int) -> None:
    """One PE to more PEs than rows: exact, and never faster than its work allows."""
    report = digits(EIE(pes=pes), "fc3").report
    assert report.verification.status == "exact"
    assert report.cycles * pes >= report.counters["entries"]


def test_deeper_queues_are_never_slower() -> None:
    """EIE is feed-forward but for the fetch credit: more slots cannot delay a start."""
    cycles = [digits(EIE(queue_slots=slots), "fc1").report.cycles for slots in (2, 3, 4, 8, 64)]
    assert cycles == sorted(cycles, reverse=True)


def test_all_zero_layer_and_input() -> None:
    """Nothing to multiply: outputs are zero and exact; only rows are fetched, columns walked."""
    layer = Linear(name="l", in_features=128, out_features=10)
    nothing = LayerTensors(layer=layer, weight=np.zeros((10, 128)), activation=np.zeros((1, 128)))
    report = run(BARE, nothing).report
    assert report.cycles == 2 and report.macs.effectual == 0
    assert report.verification.status == "exact"
    weightless = LayerTensors(layer=layer, weight=np.zeros((10, 128)), activation=np.ones((1, 128)))
    report = run(BARE, weightless).report
    assert report.verification.status == "exact" and report.counters["broadcasts"] == 128


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("pes", 0),
        ("pes", 257),
        ("queue_slots", 1),
        ("sram_row_entries", 0),
        ("index_bits", 9),
        ("clock_hz", 0.0),
        ("clock_hz", float("nan")),
        ("accumulator_bits", 64),
    ],
)
def test_bad_configuration_is_named(field: str, value: float) -> None:
    """The message says which field, what must hold and what was given."""
    with pytest.raises(InputError, match=rf"eie\.{field} must be"):
        EIE(**{field: value})


def test_bad_layers_are_refused() -> None:
    """NaN weights, a wrong shape, and layers that are no stored matrix times vectors."""
    layer = Linear(name="l", in_features=4, out_features=2)
    weight = np.ones((2, 4))
    weight[0, 0] = np.nan
    with pytest.raises(InputError, match="finite"):
        LayerTensors(layer=layer, weight=weight, activation=np.ones((1, 4)))
    with pytest.raises(InputError, match="must have shape"):
        LayerTensors(layer=layer, weight=np.ones((2, 3)), activation=np.ones((1, 4)))
    refused = {
        "1x1 convolutions, pixel by pixel; this convolution is 3x1": Conv2d(
            name="c", in_channels=1, out_channels=1, input=(4, 4), kernel=(3, 1)
        ),
        "2 groups": Conv2d(
            name="c", in_channels=2, out_channels=2, input=(4, 4), kernel=(1, 1), groups=2
        ),
        "compressed ahead of time": MatMul(name="scores", m=2, k=3, n=4),
    }
    for words, other in refused.items():
        with pytest.raises(InputError, match=f"does not run on eie: .*{words}"):
            program(BARE, synthetic(other, np.random.default_rng(0)))
    with pytest.raises(InputError, match="depends on the numbers"):
        program(BARE, outline(layer, "eie"))


def test_pixels_of_a_1x1_convolution_are_vectors() -> None:
    """Stride, padding and batch: the outputs and cycles of a fully connected layer on the pixels.

    Section VII-A of the paper names 1 x 1 convolution, pixel by pixel.
    """
    rng = np.random.default_rng(0)
    layer = Conv2d(
        name="c", in_channels=70, out_channels=33, input=(7, 6), kernel=(1, 1), stride=(2, 1),
        padding=(1, 0, 2, 1), batch=2,
    )  # fmt: skip
    made = synthetic(layer, rng, weight_density=0.3, activation_density=0.5)
    bias = rng.normal(size=33)
    image = np.pad(made.activation, ((0, 0), (0, 0), (1, 2), (0, 1)))[:, :, ::2]
    pixels = image.transpose(0, 2, 3, 1).reshape(-1, 70)
    fc = Linear(name="fc", in_features=70, out_features=33, rows=len(pixels))
    flat = LayerTensors(
        layer=fc,
        weight=made.weight[:, :, 0, 0],
        activation=pixels,
        bias=bias,
        pruned=True,
        calibration=made.activation,
    )
    conv = LayerTensors(
        layer=layer, weight=made.weight, activation=made.activation, bias=bias, pruned=True
    )
    for machine in (BARE, EIE(pes=8, act_registers=4)):
        one, other = run(machine, conv), run(machine, flat)
        assert one.report.verification.status == other.report.verification.status == "exact"
        assert one.report.cycles == other.report.cycles
        assert one.report.counters == other.report.counters
        assert one.report.macs == other.report.macs
        assert one.program.outputs is not None and other.program.outputs is not None
        assert one.program.outputs.shape == (2, 33, 5, 7)
        rows = one.program.outputs.transpose(0, 2, 3, 1).reshape(-1, 33)
        np.testing.assert_array_equal(rows, other.program.outputs)
        values, wanted = one.program.values(), conv.output()
        assert values is not None and np.abs(values - wanted).max() < 0.2 * np.abs(wanted).max()
    executed = run(EIE(pes=8, act_registers=4), conv, engine="simpy", execute=True).report
    assert executed.verification.status == "exact"


def test_codes_of_a_recipe_run_as_they_are() -> None:
    """What EIE multiplies are the recipe's decoded numbers: its values follow from them alone."""
    work = from_digits("mlp", "fc2", 7)
    encoded = encode(work, "eie", own="eie")
    weight, inputs = encoded.weight, encoded.activation
    assert isinstance(weight, Coded) and isinstance(inputs, Coded)
    assert len(weight.formats[0].values) <= 16
    assert np.array_equal(weight.values() != 0, np.asarray(work.weight) != 0)
    exact = inputs.values().astype(np.float64) @ weight.values().T.astype(np.float64)
    exact = np.maximum(exact + work.bias, 0)
    result = run(EIE(), encoded)
    found = result.program.values()
    assert found is not None and result.report.verification.status == "exact"
    step = float(np.max(result.program.output_scale))
    assert np.abs(found - exact).max() <= 0.51 * step
    assert result.report.operands["weights"].how == "as it is"
    assert result.report.output_sqnr_db is not None


@pytest.mark.parametrize("recipe", ["int4", "w4a8", "flint4", "pot4", "ant4"])
def test_other_formats_are_held_exactly(recipe: str) -> None:
    """16 values fit the table, whatever they are; nothing is rounded again, zeros are dropped."""
    layer = Linear(name="l", in_features=90, out_features=70, rows=2)
    made = synthetic(layer, np.random.default_rng(0), weight_density=0.5, activation_density=0.5)
    work = replace(made, relu=False, bias=np.linspace(3, 9, 70))
    encoded = encode(work, recipe, own="eie")
    weight, inputs = encoded.weight, encoded.activation
    assert isinstance(weight, Coded) and isinstance(inputs, Coded)
    exact = inputs.values().astype(np.float64) @ weight.values().T.astype(np.float64)
    result = run(EIE(), encoded)
    found, step = result.program.values(), result.program.output_scale
    assert found is not None and result.report.verification.status == "exact"
    assert (np.abs(found - exact - work.bias) <= 0.51 * step).all()
    assert result.report.operands["weights"].how == "held exactly"
    kept = np.count_nonzero(weight.values(), axis=0)
    assert kept.sum() <= work.sparse_weight.stored
    walked = sum(int(kept[vector != 0].sum()) for vector in inputs.values())
    assert result.report.counters["macs"] == walked


def test_formats_that_the_table_does_not_hold_are_refused() -> None:
    """Eight bits, a table without zero, an entry beyond 16-bit fixed point, a zero point."""
    work = from_digits("mlp", "fc2", 3)
    with pytest.raises(InputError, match="computes weights in codebook4; int8_signed is none"):
        program(EIE(), work, "int8")
    assert run(EIE(), work, recipe="int8", requantize=True).report.operands["weights"].how == (
        "rounded again"
    )
    dense = LayerTensors(
        layer=Linear(name="l", in_features=64, out_features=32),
        weight=np.random.default_rng(0).normal(size=(32, 64)),
        activation=np.ones((1, 64)),
    )
    text = 'name = "shared"\n[weights]\nformat = "codebook4"\n'
    with pytest.raises(InputError, match="a codebook4 that keeps no code for zero"):
        program(EIE(), dense, recipes.parse(text, "text"))
    text = 'name = "a8"\n[activations]\nformat = "int8"\nasymmetric = true\n'
    with pytest.raises(InputError, match="activations with a zero point"):
        program(EIE(), replace(work, activation=work.activation - 0.1), recipes.parse(text, "text"))
    with pytest.raises(InputError, match="16-bit fixed point"):
        fixed_table(np.array([0.0, 1 / 3]), "l")


def test_a_sparse_matrix_is_never_made_dense(monkeypatch: pytest.MonkeyPatch) -> None:
    """From a recipe's codes to outputs and their check; stored zeros are dropped on the way."""
    layer = Linear(name="l", in_features=60, out_features=50)
    work = synthetic(layer, np.random.default_rng(0), weight_density=0.2)
    assert isinstance(work.weight, CSC)
    values = work.weight.values.copy()
    values[::7] = 0
    sparse = replace(work, weight=work.weight.with_values(values))
    dense = replace(work, weight=sparse.sparse_weight.to_dense())
    wanted = run(EIE(pes=8), dense)

    def refuse(*_: object) -> None:
        raise AssertionError("a sparse matrix was made dense")

    monkeypatch.setattr(CSC, "to_dense", refuse)
    result = run(EIE(pes=8), sparse)
    assert result.report.verification.status == "exact"
    assert result.report.macs == wanted.report.macs
    assert result.report.cycles == wanted.report.cycles
    np.testing.assert_array_equal(result.program.outputs, wanted.program.outputs)


def test_a_table_in_whole_numbers() -> None:
    """The least fraction bits with which all entries are whole: sums stay as small as can be."""
    for values, fraction in (([0, 1, -8], 0), ([0, 0.75, -2], 2), ([0, 12, 8, -4], -2)):
        table, found = fixed_table(np.array(values, float), "l")
        assert found == fraction and len(table) == 16
        np.testing.assert_array_equal(table[: len(values)] * 2.0**-found, values)
        assert not table[len(values) :].any()


def test_the_bias_is_exact_and_takes_its_column() -> None:
    """A bias far from every weight is met to half a step; its column is walked entry by entry."""
    rng = np.random.default_rng(0)
    layer = Linear(name="l", in_features=40, out_features=30, rows=2)
    weight = rng.normal(size=(30, 40)) * (rng.random((30, 40)) < 0.3)
    inputs = rng.random((2, 40)) * 0.05  # 1 would be far beyond their 16 bits
    bias = np.where(np.arange(30) % 3, rng.normal(size=30), 0)
    both = [
        LayerTensors(layer=layer, weight=weight, activation=inputs, bias=b, relu=False, pruned=True)
        for b in (bias, None)
    ]
    one, other = (run(EIE(pes=4, act_registers=64), each) for each in both)
    assert one.report.counters["bias_entries"] == 2 * 20
    assert one.report.macs == other.report.macs
    assert one.report.counters["broadcasts"] - other.report.counters["broadcasts"] == 2
    first, second = one.program.values(), other.program.values()
    assert first is not None and second is not None
    np.testing.assert_allclose(first - second, np.tile(bias, (2, 1)), atol=1e-4)
    assert any("column of its own" in note for note in one.report.notes)
    faint = replace(both[0], activation=inputs * 1e-5)  # their step is too fine for such a bias
    report = run(EIE(pes=4), faint).report
    assert report.verification.status == "exact"
    assert any("biases exceed 40 bits" in note for note in report.notes)


def test_what_does_not_fit_is_told() -> None:
    """Four PEs hold no AlexNet fc7: by the fullest PE, not by the mean; pointers grow with it."""
    from sparqsim.workloads.models import get_layer

    work = synthetic(get_layer("alexnet/fc7"), np.random.default_rng(0))
    report = run(EIE(pes=4), work, record="summary", verify=False).report
    spmat = report.memory["spmat_sram"]
    assert spmat.used_bits >= 8 * report.counters["entries"] and not spmat.fits
    assert any(note.startswith("spmat_sram is too small") for note in report.notes)
    assert any("pointers are taken 19 bits wide" in note for note in report.notes)
    bits = report.counters["ptr_sram_read_bits"]
    assert bits == report.counters["broadcasts"] * 4 * 2 * 19
    lopsided = np.zeros((2, 3), int)
    lopsided[1, 0] = 2**17 + 1  # one entry more than 128 KiB of 8-bit entries
    uneven = EIE(pes=2).program_from_counts(lopsided, np.array([1]), bias=False)
    assert "spmat_sram is too small" in run(EIE(pes=2), uneven).report.notes[0]


def test_the_account_is_told_once() -> None:
    """Counters of bits, memories and traffic are sums over the same ports."""
    result = run(EIE(pes=4, act_registers=16), from_digits("mlp", "fc1", 5))
    report = result.report
    assert set(result.traffic) == set(report.memory) == {"spmat_sram", "ptr_sram", "act_sram"}
    for name, memory in report.memory.items():
        assert report.counters[f"{name}_read_bits"] == memory.read_bits > 0
        assert report.counters[f"{name}_written_bits"] == memory.written_bits
    assert report.memory["spmat_sram"].read_bits == 64 * report.counters["spmat_reads"]
    assert report.memory["ptr_sram"].read_bits == 32 * report.counters["ptr_reads"]


def test_the_critical_path_names_the_walk() -> None:
    """A PE issues one entry per cycle: that, not reading pointers, is what a layer waits for."""
    report = digits(BARE, "fc1", 1).report
    assert {step.where for step in report.critical_path} >= {"column_walk"}
    assert "ptr_read" not in report.stalls


def test_bad_counts_are_refused(tmp_path: Path) -> None:
    """Malformed, truncated, missing or wrong arrays: an error message each."""
    good = {"counts": np.ones((64, 5), np.uint8), "active_columns": np.array([0, 3])}
    path = tmp_path / "counts.npz"
    np.savez(path, **good)
    counts, active, bias = load_counts(path)
    assert bias and run(BARE, BARE.program_from_counts(counts, active)).report.cycles > 0
    whole = path.read_bytes()
    for content in (b"", b"not an archive", whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(InputError, match="npz"):
            load_counts(path)
    with pytest.raises(InputError, match="npz"):
        load_counts(tmp_path / "absent.npz")
    np.savez(path, counts=good["counts"])
    with pytest.raises(InputError, match="lacks active_columns"):
        load_counts(path)
    np.savez(path, **good, extra=np.ones(1))
    with pytest.raises(InputError, match="unknown arrays: extra"):
        load_counts(path)
    wrong = [
        (np.ones((3, 5), int), np.array([0]), "3 rows"),
        (np.ones((64, 5)), np.array([0]), "whole numbers"),
        (-np.ones((64, 5), int), np.array([0]), "0 to 2"),
        (np.ones((64, 0), int), np.array([], int), "at least one column"),
        (np.ones((64, 5), int), np.array([5]), "must be 0 to 4"),
        (np.ones((64, 5), int), np.array([1, 1]), "column once"),
        (np.ones((64, 5), int), np.array([0.5]), "whole numbers"),
    ]
    for counts, active, message in wrong:
        with pytest.raises(InputError, match=message):
            BARE.program_from_counts(counts, active)
