"""Is EIE the machine of the paper? Its timing, arithmetic, encoding, energy and its bad input."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparqsim.architectures.eie import EIE, TABLE_II, Pass, _Fetch, load_counts
from sparqsim.architectures.machine import Result, run
from sparqsim.base import InputError
from sparqsim.simulator.mac import eie as mac
from sparqsim.workloads.layers import Conv2d, Linear
from sparqsim.workloads.tensors import LayerTensors, from_digits, made_up

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
    program = machine.program_from_counts(counts, active, bias=False)
    expected = cycles_by_hand(counts[:, active].T, active, columns, slots)
    for engine in ("compiled", "simpy"):
        assert run(machine, program, engine=engine).report.cycles == expected


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
    """The MAC core and its specification agree on sums, entries, SRAM reads and MACs."""
    rng = np.random.default_rng(seed)
    weight = rng.standard_normal((rows, cols)) * (rng.random((rows, cols)) < 0.4)
    machine = EIE(pes=pes, act_spill=False)
    layer = Linear(name="l", in_features=cols, out_features=rows)
    activation = rng.standard_normal((1, cols)) * (rng.random((1, cols)) < 0.7)
    work = LayerTensors(layer=layer, weight=weight, activation=activation)
    vectors, codes, codebook, _ = machine._quantized(work, work.sparse_weight)
    from sparqsim.workloads.encodings.relative_index import RelativeIndexCSC

    matrix = RelativeIndexCSC.encode(codes, np.arange(16), pes)
    columns = np.flatnonzero(vectors[0])
    results = []
    for core in (mac.spmv, mac.spmv_plain):
        sums = np.zeros((pes, -(-rows // pes)), np.int64)
        taken = np.zeros((len(columns), pes), np.int32)
        reads = np.zeros((len(columns), pes), np.int32)
        macs = core(
            matrix.pointers,
            matrix.codes,
            matrix.runs,
            codebook,
            columns,
            vectors[0][columns],
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


def test_a_row_costs_its_non_zeros_and_one_unless_the_last_is_one() -> None:
    """Rule 1: rows of 4 elements; the second row ends in a non-zero and saves the cycle."""
    positions = np.array([0, 2, 5, 7, 9])
    fetch = _Fetch.of([Pass(positions=positions, length=12, fresh=True)], 4)
    assert fetch.found.tolist() == [2, 2, 1]
    assert np.cumsum(fetch.awaited).tolist() == [0, 2, 3]
    # Start-up 1; row 0: 2 + 1, row 1: 2, row 2: 1 broadcast, at cycles 1 2, 4 5, 6.
    program = EIE(pes=4, act_spill=False).program_from_counts(
        np.ones((4, 12), int), positions, bias=False
    )
    starts = run(EIE(pes=4, act_spill=False), program).timeline.starts_of("ccu")[:, 0]
    assert starts.tolist() == [1, 2, 4, 5, 6]


def test_wrapping_and_requantization() -> None:
    """Two's complement wraps; rounding is half away from zero; saturation and ReLU clip."""
    assert mac.wrap(np.array([127, 128, -129, 256]), 8).tolist() == [127, -128, 127, 0]
    values = np.array([5, 6, -6, -5, 1 << 40])
    assert mac.requantize(values, 2, 16, relu=False).tolist() == [1, 2, -2, -1, 32767]
    assert mac.requantize(values, 2, 16, relu=True).tolist() == [1, 2, 0, 0, 32767]
    assert mac.requantize(np.array([3]), -2, 16, relu=False).tolist() == [12]


def test_overflow_is_told() -> None:
    """Accumulators too narrow for a layer wrap, exactly so, and the report says how many."""
    layer = Linear(name="l", in_features=64, out_features=4)
    work = LayerTensors(layer=layer, weight=np.ones((4, 64)), activation=np.ones((1, 64)))
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
        )
        result = run(BARE, work)
        assert result.report.verification.status == "exact"
        assert result.program.outputs is not None
        values = result.program.outputs * result.program.output_scale
    labels = net.images.test_labels[: len(images)]
    in_float = float(np.mean(net.forward(images).argmax(axis=1) == labels))
    assert float(np.mean(values.argmax(axis=1) == labels)) >= in_float - 0.02


def test_spill_charges_the_activation_sram() -> None:
    """A vector over the registers is loaded and stored in batches; without spill it is not."""
    rng = np.random.default_rng(0)
    layer = Linear(name="l", in_features=300, out_features=100)
    work = made_up(layer, rng, weight_density=0.3, activation_density=0.5)
    spilled = run(EIE(pes=4, act_registers=16), work)
    bare = run(EIE(pes=4, act_registers=16, act_spill=False), work)
    batches, stretches = -(-300 // 64), -(-100 // 64)
    words = 16 * 16 // 64 * 4
    assert spilled.report.counters["act_sram_reads"] == batches * stretches * words
    assert spilled.report.counters["act_sram_writes"] == stretches * words
    assert bare.report.counters["act_sram_reads"] == 0
    assert spilled.report.cycles > bare.report.cycles
    assert spilled.report.macs.effectual == bare.report.macs.effectual
    assert spilled.report.verification.status == bare.report.verification.status == "exact"


def test_power_is_that_of_table_ii() -> None:
    """64 PEs at 800 MHz draw the published 0.59 W; energy follows cycles, not frequency."""
    report = digits(BARE, "fc1").report
    assert report.energy.average_power_w == pytest.approx(0.59, abs=0.005)
    assert {part.source for part in report.energy.parts if part.part != "lnzd"} == {TABLE_II}
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
    assert counters["entries"] == counters["macs"] + counters["padding_entries"]
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
    """The letter says which field, what must hold and what was given."""
    with pytest.raises(InputError, match=rf"eie\.{field} must be"):
        EIE(**{field: value})


def test_bad_layers_are_refused() -> None:
    """NaN weights, a convolution, a wrong shape."""
    layer = Linear(name="l", in_features=4, out_features=2)
    weight = np.ones((2, 4))
    weight[0, 0] = np.nan
    with pytest.raises(InputError, match="finite"):
        LayerTensors(layer=layer, weight=weight, activation=np.ones((1, 4)))
    with pytest.raises(InputError, match="must have shape"):
        LayerTensors(layer=layer, weight=np.ones((2, 3)), activation=np.ones((1, 4)))
    conv = Conv2d(name="c", in_channels=1, out_channels=1, input=(4, 4), kernel=(1, 1))
    with pytest.raises(InputError, match="fully connected"):
        BARE.lower(made_up(conv, np.random.default_rng(0)))


def test_bad_counts_are_refused(tmp_path: Path) -> None:
    """Malformed, truncated, missing or wrong arrays: a letter each."""
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
