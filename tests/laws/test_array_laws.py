"""Do the array machines obey what must hold of any machine, their search included?

A table reproduced exactly says nothing about the next configuration. Here layers, machines and
configurations are drawn: more of a resource never costs time, traffic is at least compulsory and
no more where everything fits, the closed form that the search goes by is near the run, and every
field changes something. The cases that once broke a law go in by name.

Of 700 others none broke the half per cent of bandwidth, buffers and clock; of 600 on a bus none was
farther from its estimate than the law says, of 430 none paid more for more units.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import cache
from typing import Any

import msgspec
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from sparqsim.architectures.arrays.ant import Ant
from sparqsim.architectures.arrays.bitfusion import BitFusion
from sparqsim.architectures.arrays.cost import cost
from sparqsim.architectures.arrays.diannao import DianNao
from sparqsim.architectures.arrays.folds import Dataflow
from sparqsim.architectures.arrays.machine import ArrayMachine, Timing
from sparqsim.architectures.arrays.memory import with_banks
from sparqsim.architectures.arrays.olive import Olive
from sparqsim.architectures.arrays.plain import PlainArray
from sparqsim.architectures.arrays.rules import TRANSFER_WORDS
from sparqsim.architectures.arrays.search import Objective, best_mapping, promoted
from sparqsim.architectures.arrays.shapes import ConvShape, Loop, Mapping, Tile
from sparqsim.architectures.arrays.shifting import Multiplier
from sparqsim.architectures.arrays.tiled import BankedMachine, TiledMachine
from sparqsim.architectures.arrays.tpu import TPU
from sparqsim.architectures.machine import run
from sparqsim.base import InputError
from sparqsim.simulator.engines import simulate
from sparqsim.simulator.memory.standards import STANDARDS
from sparqsim.workloads.encoded import outline
from sparqsim.workloads.layers import Conv2d, Linear, MatMul
from sparqsim.workloads.models import get_layer, get_model

TOLERANCE = 0.005
BUFFERS = ("input_buffer_kib", "weight_buffer_kib", "output_buffer_kib")
WEIGHTS, INPUTS = Dataflow.WEIGHT_STATIONARY, Dataflow.INPUT_STATIONARY
# A machine and the widths it runs at.
MACHINES: dict[str, tuple[TiledMachine, tuple[int, int]]] = {
    "bitfusion 8x8": (BitFusion(), (8, 8)),
    "bitfusion 4x2": (BitFusion(rows=8, columns=40), (4, 2)),
    "ant": (Ant(side_at_8_bits=16), (4, 4)),
    "ant ws": (Ant(dataflow=WEIGHTS), (8, 8)),
    "olive": (Olive(), (4, 4)),
    "plain": (PlainArray(rows=20, columns=12), (8, 8)),
    "plain is": (PlainArray(dataflow=INPUTS), (8, 8)),
    "plain 2:4": (PlainArray(dataflow=WEIGHTS, sparsity="2:4"), (8, 8)),
    "diannao": (DianNao(), (16, 16)),
}


@st.composite
def shapes(draw: st.DrawFn) -> ConvShape:
    """Convolutions, some grouped or depthwise, and products of matrices."""
    if draw(st.booleans()):
        return ConvShape(
            batch=draw(st.sampled_from([1, 4, 32, 128])),
            in_channels=draw(st.integers(1, 512)),
            out_channels=draw(st.integers(1, 512)),
            groups=draw(st.sampled_from([1, 1, 12])),
        )
    channels, filters, groups = draw(
        st.one_of(
            st.tuples(st.integers(1, 256), st.integers(1, 256), st.just(1)),
            st.sampled_from([(1, 1, 96), (4, 8, 8), (64, 64, 4)]),
        )
    )
    kernel = draw(st.sampled_from([1, 3, 3, 5]))
    side = draw(st.integers(kernel, 40))
    layer = Conv2d(
        name="c",
        in_channels=channels * groups,
        out_channels=filters * groups,
        groups=groups,
        input=(side, side),
        kernel=(kernel, kernel),
        padding=(kernel // 2, kernel // 2),
        stride=(draw(st.sampled_from([1, 1, 2])),) * 2,
    )
    return ConvShape.of(layer)


@st.composite
def configurations(draw: st.DrawFn, name: str) -> tuple[TiledMachine, tuple[int, int]]:
    """A machine with other buffers, bandwidth and objective."""
    machine, widths = MACHINES[name]
    fields: dict[str, Any] = {
        field: max(2, int(getattr(machine, field) * draw(st.sampled_from([0.25, 0.6, 1, 2]))))
        for field in BUFFERS
    }
    fields |= machine.of_bandwidth(1e9 * draw(st.sampled_from([1, 3, 12, 25, 64, 200])))
    if not isinstance(machine, DianNao):  # larger buffers of a shipped table take more energy
        fields["objective"] = draw(st.sampled_from([Objective.CYCLES, Objective.EDP]))
    return replace(machine, **fields), widths


def bandwidth_of(machine: ArrayMachine) -> str:
    """The field that says it."""
    return next(iter(machine.of_bandwidth(1e9)))


def timed(machine: ArrayMachine, shape: ConvShape, widths: tuple[int, int]) -> tuple[Timing, int]:
    """A layer's timing and the cycles of its run."""
    timing = machine.timing(shape, widths, "layer")
    return timing, simulate(timing.netlist, record="summary").cycles


def chosen(machine: TiledMachine, shape: ConvShape, widths: tuple[int, int]) -> Mapping:
    """What the search picks."""
    rules, dram = machine.layer_rules(shape, widths), machine.dram
    if dram is not None:
        rules = with_banks(rules, dram, machine.clock_hz)
    return best_mapping(shape, rules, machine.rates, machine.objective, machine.clock_hz, dram)


def weight(machine: TiledMachine, shape: ConvShape, widths: tuple[int, int]) -> float:
    """What the objective says a run costs."""
    timing, cycles = timed(machine, shape, widths)
    if machine.objective is Objective.CYCLES:
        return cycles
    return cycles * timing.analytic.energy(machine.rates, cycles).total_nj


def drawn(name: str, data: st.DataObject) -> tuple[TiledMachine, ConvShape, tuple[int, int]]:
    machine, widths = data.draw(configurations(name))
    shape = data.draw(shapes())
    try:
        timed(machine, shape, widths)
    except InputError:
        assume(False)  # not even the smallest tile fits
    return machine, shape, widths


def law(few: int, many: int) -> Callable[[Callable[[str, st.DataObject], None]], Any]:
    """A law over machines: few examples, many where tests may be slow."""

    def wrap(body: Callable[[str, st.DataObject], None]) -> Any:
        def test(name: str, examples: int) -> None:
            drawn = given(data=st.data())(lambda data: body(name, data))
            settings(max_examples=examples, deadline=None)(drawn)()

        test.__doc__ = body.__doc__
        params = [pytest.param(name, few, id=name) for name in MACHINES]
        slow = pytest.mark.slow
        params += [pytest.param(name, many, id=f"{name}, many", marks=slow) for name in MACHINES]
        return pytest.mark.parametrize(("name", "examples"), params)(test)

    return wrap


@law(3, 60)
def test_more_bandwidth_or_buffer_never_costs(name: str, data: st.DataObject) -> None:
    """Cycles (their product with energy, where that is the objective) stay within half a per cent.

    The search runs again for the larger machine. Of a larger buffer only cycles are judged: each
    access to it costs more energy, by the rule of SRAM's capacity.
    """
    machine, shape, widths = drawn(name, data)
    field = data.draw(st.sampled_from([bandwidth_of(machine), *BUFFERS]))
    if field in BUFFERS:
        machine = replace(machine, objective=Objective.CYCLES)
    more = getattr(machine, field) * data.draw(st.sampled_from([1.25, 2, 8]))
    larger = replace(machine, **{field: int(more) + 1})
    before, after = (weight(each, shape, widths) for each in (machine, larger))
    assert after <= before * (1 + TOLERANCE) + 1


@law(2, 30)
def test_a_faster_clock_never_costs_time(name: str, data: st.DataObject) -> None:
    """Seconds under the objective of cycles; the DRAM keeps its bandwidth."""
    machine, shape, widths = drawn(name, data)
    machine = replace(machine, objective=Objective.CYCLES)
    faster = replace(machine, clock_hz=machine.clock_hz * data.draw(st.sampled_from([1.5, 4])))
    slow, fast = (timed(each, shape, widths)[1] / each.clock_hz for each in (machine, faster))
    assert fast <= slow * (1 + TOLERANCE) + 1 / machine.clock_hz
    assert faster.bandwidth() == machine.bandwidth()


UNITS = ("rows", "columns", "side_at_8_bits", "tn")


@law(2, 40)
def test_more_units_cost_no_more_than_their_fill_and_drain(name: str, data: st.DataObject) -> None:
    """Twice the units along a side: at most the longer way through them, once, and short passes.

    Units come with their slices of the buffers, whose banks they read. So the larger machine may
    take the smaller one's mapping, and pays for its longer way through the array once, at the end,
    and in each pass that is too short to cover it. A tile may wait until outputs before it have
    left, which takes longer too; but then twice as many are on their way.
    """
    machine, shape, widths = drawn(name, data)
    machine = replace(machine, objective=Objective.CYCLES)
    side = data.draw(st.sampled_from([field for field in UNITS if hasattr(machine, field)]))
    buffers = {field: 2 * getattr(machine, field) for field in BUFFERS}
    larger = replace(machine, **{side: 2 * getattr(machine, side)}, **buffers)
    before, after = (timed(each, shape, widths)[1] for each in (machine, larger))
    mapping = chosen(machine, shape, widths)
    small, large = (each.layer_rules(shape, widths) for each in (machine, larger))
    bubbles, more = (cost(shape, each, mapping).bubble_cycles for each in (small, large))
    longer = large.tail_cycles(mapping.tile) - small.tail_cycles(mapping.tile)
    assert after <= before * (1 + TOLERANCE) + longer + max(0, more - bubbles)


@law(3, 60)
def test_traffic_is_compulsory_and_no_more_where_all_fits(name: str, data: st.DataObject) -> None:
    """Inputs that outputs depend on, weights, outputs, each once; a small layer moves just that."""
    machine, shape, widths = drawn(name, data)
    rules = machine.layer_rules(shape, widths)
    traffic = timed(machine, shape, widths)[0].analytic.traffic
    weights = shape.groups * rules.weights_bits(shape, shape.in_channels, shape.out_channels)
    read = shape.inputs * rules.input_bits + weights
    written = shape.outputs * rules.output_bits
    assert traffic.dram_read >= read and traffic.dram_write >= written
    roomy = replace(
        machine,
        objective=Objective.ENERGY,
        input_buffer_kib=1 + 4 * shape.inputs * rules.input_bits // 8192,
        weight_buffer_kib=1 + 4 * shape.weights * 2 * rules.weight_bits // 8192,
        output_buffer_kib=1 + 64 * shape.outputs * rules.sum_bits // 8192,
    )
    found = timed(roomy, shape, widths)[0].analytic.traffic
    assert found.dram_write == written
    assert read <= found.dram_read <= read + (weights - read if read < weights else 0)


ESTIMATES = [pytest.param(name, 3, 0, id=name) for name in MACHINES]
ESTIMATES += [
    pytest.param(name, 60, 2, id=f"{name}, many", marks=pytest.mark.slow) for name in MACHINES
]


@pytest.mark.parametrize(("name", "examples", "allowed"), ESTIMATES)
def test_the_run_is_near_the_estimate_of_its_search(name: str, examples: int, allowed: int) -> None:
    """Within 3 %, or a transfer and two drains of the array where a layer is as short as some here.

    Of 60 layers at most two may be farther off, and none by more than 15 %: small layers whose
    tiles at the edge differ from the others along several loops, which the estimate takes apart.
    """
    misses: dict[str, float] = {}

    def body(data: st.DataObject) -> None:
        machine, shape, widths = drawn(name, data)
        timing, cycles = timed(machine, shape, widths)
        rules = machine.layer_rules(shape, widths)
        tile = chosen(machine, shape, widths).tile
        short = TRANSFER_WORDS + 2 * rules.tail_cycles(tile)
        off = abs(cycles - timing.analytic.cycles)
        if off > max(0.03 * timing.analytic.cycles, short):
            misses[f"{machine} on {shape}"] = off / timing.analytic.cycles

    drawing = settings(max_examples=examples, deadline=None)
    drawing(given(data=st.data())(body))()
    assert len(misses) <= allowed and max(misses.values(), default=0) <= 0.15, misses


BANKED = [name for name, (machine, _) in MACHINES.items() if isinstance(machine, BankedMachine)]
BANKED_ESTIMATES = [pytest.param(name, 2, 0, id=name) for name in BANKED]
BANKED_ESTIMATES += [
    pytest.param(name, 60, 6, id=f"{name}, many", marks=pytest.mark.slow) for name in BANKED
]


@pytest.mark.parametrize(("name", "examples", "allowed"), BANKED_ESTIMATES)
def test_the_run_is_near_its_estimate_with_rows_and_banks(
    name: str, examples: int, allowed: int
) -> None:
    """Any DRAM standard: within 3 %, or a transfer, a refresh and two drains of a short layer.

    Of random layers one in a hundred is farther off; of 60 drawn here, among which a miss has
    neighbours, six may be, none by more than 20 %: buffers of few places, where a store or a load
    that must wait for its turn keeps the array from both.
    """
    misses: dict[str, float] = {}

    def body(data: st.DataObject) -> None:
        drawn_machine, widths = data.draw(configurations(name))
        bus = next(iter(drawn_machine.of_bandwidth(1e9)))
        machine = replace(
            drawn_machine,
            dram_standard=data.draw(st.sampled_from(list(STANDARDS))),
            dram_channels=data.draw(st.sampled_from([1, 2, 4])),
            **{bus: getattr(MACHINES[name][0], bus)},
        )
        shape = data.draw(shapes())
        try:
            timing, cycles = timed(machine, shape, widths)
        except InputError:
            return
        rules = with_banks(machine.layer_rules(shape, widths), machine.dram, machine.clock_hz)
        tile = chosen(machine, shape, widths).tile
        short = rules.banks.transfer + rules.banks.refresh + 2 * rules.tail_cycles(tile)
        off = abs(cycles - timing.analytic.cycles)
        if off > max(0.03 * timing.analytic.cycles, short):
            misses[f"{machine} on {shape}"] = off / timing.analytic.cycles

    settings(max_examples=examples, deadline=None)(given(data=st.data())(body))()
    assert len(misses) <= allowed and max(misses.values(), default=0) <= 0.2, misses


NETWORKS = [
    pytest.param(name, network, marks=() if few else pytest.mark.slow)
    for network in ("resnet50", "mobilenet_v2", "bert_base")
    for name in MACHINES
    for few in [(network == "mobilenet_v2") == (name in ("bitfusion 4x2", "plain"))]
]


@pytest.mark.parametrize(("name", "network"), NETWORKS)
def test_every_layer_of_a_network_is_near_its_estimate(name: str, network: str) -> None:
    """Within 3 % on every layer of real networks, wide operands and narrow ones."""
    machine, widths = MACHINES[name]
    for shape in dict.fromkeys(ConvShape.of(layer) for layer in get_model(network).layers):
        timing, cycles = timed(machine, shape, widths)
        assert cycles == pytest.approx(timing.analytic.cycles, rel=0.03), shape


# ---------------------------------------------------------------------------------- by name


def report(machine: ArrayMachine, layer: str):  # type: ignore[no-untyped-def]
    found = get_layer(layer)
    return run(machine, outline(found, machine.recipe_for(found)), record="summary").report


def dram_bytes(found: Any) -> tuple[float, float]:
    memory = found.memory["dram"]
    return memory.read_bits / 8, memory.written_bits / 8


def test_the_search_knows_the_dram_standard() -> None:
    """A DRAM with rows and banks takes what a bus of its bandwidth takes, within 5 %.

    BERT's first feed-forward layer on a plain array and DDR3-1600: it took 1.3 million cycles,
    where a bus of 12.8 GB/s took 304,602.
    """
    banks, bus = (
        report(machine, "bert_base/blocks.mlp_up")
        for machine in (PlainArray(dram_standard="DDR3-1600"), PlainArray(dram_gbytes_per_s=12.8))
    )
    assert banks.cycles == pytest.approx(bus.cycles, rel=0.05)
    moved = [sum(dram_bytes(each)) for each in (banks, bus)]
    assert moved[0] == pytest.approx(moved[1], rel=0.05)


OF_STANDARDS = [
    pytest.param(name, standard, marks=() if (name, standard) in few else pytest.mark.slow)
    for few in [{("bitfusion 8x8", "LPDDR5-6400"), ("ant", "DDR3-1600"), ("plain", "HBM3-6400")}]
    for name in ("bitfusion 8x8", "ant", "plain")
    for standard in ("DDR3-1600", "DDR4-3200", "LPDDR5-6400", "HBM3-6400")
]


@pytest.mark.parametrize(("name", "standard"), OF_STANDARDS)
def test_no_standard_loses_to_its_bandwidth(name: str, standard: str) -> None:
    """Layers of two networks: at most a third longer than a bus of the standard's pins."""
    machine, widths = MACHINES[name]
    assert isinstance(machine, BankedMachine)
    banks = replace(machine, dram_standard=standard)
    bus = replace(machine, **machine.of_bandwidth(banks.bandwidth()))
    for network in ("resnet18", "bert_base"):
        for shape in dict.fromkeys(ConvShape.of(layer) for layer in get_model(network).layers):
            with_rows, without = (timed(each, shape, widths)[1] for each in (banks, bus))
            assert with_rows <= 4 / 3 * without


def test_bandwidth_never_tempts_into_tiny_tiles() -> None:
    """Bit Fusion from 12 to 192 GB/s: it once tripled its cycles and took nine times the energy."""
    found = [
        report(BitFusion(dram_gbytes_per_s=rate), "bert_base/blocks.mlp_up")
        for rate in (12.0, 24.0, 48.0, 96.0, 192.0)
    ]
    cycles = [each.cycles for each in found]
    assert all(b <= a * (1 + TOLERANCE) for a, b in itertools.pairwise(cycles))
    energies = [each.energy.total_pj for each in found]
    assert max(energies) < 1.2 * min(energies)
    assert all(each.cycles < 1.002 * each.counters["analytic_cycles"] for each in found)


def test_near_ties_go_to_the_mapping_of_less_energy() -> None:
    """DianNao's 3 x 3 layer of ResNet-50: random sampling once found half the search's energy."""
    found = report(DianNao(), "resnet50/layer1.0.conv2")
    assert found.cycles <= 451_688 and found.energy.total_pj <= 5.4e9


def test_arrays_fill_on_images_that_are_no_powers_of_two() -> None:
    """28 x 28 outputs on ANT's 64 x 64 elements: folds allow 94 %, and 94 % it is."""
    found = report(Ant(), "resnet50/layer2.1.conv2")
    assert found.macs.dense / (found.cycles * 64 * 64) == pytest.approx(0.94, abs=0.01)


@pytest.mark.parametrize("machine", [BitFusion(), PlainArray(), Ant(), DianNao()])
def test_depthwise_layers_store_real_outputs_alone(machine: ArrayMachine) -> None:
    """MobileNet's first depthwise layer: each output once, at the width of an input.

    51.4 MB left Bit Fusion once for 0.4 MB of outputs; its authors' model still has it so.
    """
    layer = get_layer("mobilenet_v2/block1.depthwise")
    found = report(machine, "mobilenet_v2/block1.depthwise")
    read, written = dram_bytes(found)
    width = {"ant": 0.5, "diannao": 2}.get(machine.name, 1)
    assert written == layer.output_elements * width
    assert read < 2 * (layer.input_elements + layer.weights) * width
    theirs = report(BitFusion(authors_model=True), "mobilenet_v2/block1.depthwise")
    assert dram_bytes(theirs)[1] == 32 * 4 * layer.output_elements


def test_spilled_sums_are_read_back_at_the_width_of_an_accumulator() -> None:
    """An output-stationary array with a small output buffer, the reduction outside all else."""
    machine = PlainArray(output_buffer_kib=8)
    shape = ConvShape(batch=512, in_channels=512, out_channels=256)
    rules = machine.layer_rules(shape, (8, 8))
    tile = Tile(batch=32, out_width=1, out_height=1, in_channels=256, out_channels=32)
    order = (Loop.INPUTS, Loop.BATCH, Loop.OUTPUTS, Loop.ROWS, Loop.COLUMNS)
    traffic = cost(shape, rules, promoted(shape, rules, tile, order)).traffic
    assert traffic.dram_write == shape.outputs * (32 + 8)
    assert traffic.dram_read >= shape.outputs * 32


def test_unfolding_copies_nothing_in_dram() -> None:
    """A 3 x 3 layer on the arrays that unfold: 56 x 56 inputs and the weights, about once."""
    layer = get_layer("resnet50/layer1.0.conv2")
    for machine, width in ((PlainArray(), 1.0), (Ant(), 0.5)):
        read, _ = dram_bytes(report(machine, "resnet50/layer1.0.conv2"))
        once = (layer.input_elements + layer.weights) * width
        assert once <= read <= 1.1 * once


def test_keys_that_queries_share_are_read_once() -> None:
    """Grouped-query attention: 4 key heads serve 32 query heads of 64 tokens over 2048 keys."""
    scores = MatMul(name="scores", m=8 * 64, k=64, n=2048, batch=4)
    machine = PlainArray()
    read, _ = dram_bytes(run(machine, machine.plan(scores), record="summary").report)
    assert read == scores.input_elements == 655_360


def test_sparse_weights_are_no_more_than_fully_used() -> None:
    """A plan of 2:4 once told 197 % use; patterns of any width of a group are stored."""
    layer = get_layer("resnet50/layer1.0.conv2")
    for pattern in ("2:4", "1:4", "2:8"):
        machine = PlainArray(dataflow=WEIGHTS, sparsity=pattern)
        found = run(machine, machine.plan(layer)).report
        kept, of = map(int, pattern.split(":"))
        assert found.macs.effectual == layer.macs * kept // of
        assert 0.5 < found.utilization["multipliers"] <= 1


# ---------------------------------------------------------------------------------- fields

CHANGES: dict[str, Any] = {
    "dram_standard": "LPDDR4-3200",
    "energy_table": "horowitz",
    "objective": Objective.ENERGY,
    "dataflow": WEIGHTS,
    "sparsity": "2:4",
    "authors_model": True,
    "accumulator_bits": 24,
    "multiplier": Multiplier.SHIFT,
    "bits": 8,
}


@pytest.mark.parametrize("kind", [BitFusion, Ant, Olive, PlainArray, DianNao, TPU])
def test_every_field_changes_something(kind: type[ArrayMachine]) -> None:
    """Cycles, seconds, energy or traffic of at least one of five layers."""
    layers = [
        get_layer("resnet50/layer1.0.conv2"),
        Conv2d(name="c", in_channels=96, out_channels=200, input=(30, 30), kernel=(3, 3)),
        Linear(name="f", in_features=1200, out_features=800, rows=40),
        Linear(name="g", in_features=700, out_features=600, rows=1500),
        Conv2d(name="d", in_channels=8, out_channels=8, groups=8, input=(30, 30), kernel=(5, 5)),
    ]  # fmt: skip

    @cache
    def found(machine: ArrayMachine, layer: int) -> tuple[Any, ...]:
        told = run(machine, machine.plan(layers[layer]), record="summary").report
        return told.cycles, told.seconds, told.energy, told.memory, told.counters

    for field in kind.__struct_fields__:
        before = kind()
        value = getattr(before, field)
        changes = {field: CHANGES.get(field)}
        if field == "dram_channels":
            before, changes = kind(dram_standard="DDR4-2400"), {field: 2}
        elif field == "sparsity":
            before = kind(dataflow=WEIGHTS)
        elif field == "bits" and value == 8:
            changes = {field: 4}
        elif field == "energy_table" and value == "horowitz":
            changes = {field: "cacti-aladdin"}
        elif changes[field] is None:
            changes = {field: value * 2 if isinstance(value, int) else value / 2}
        if field == "node_nm":  # prices shipped tables
            before = kind(energy_table="cacti-aladdin")
        changed = replace(before, **changes)
        assert any(found(changed, i) != found(before, i) for i in range(len(layers))), field


def test_a_bandwidth_beside_a_standard_is_refused() -> None:
    """Neither is silently left out."""
    with pytest.raises(InputError, match="DDR3-1600 has its own"):
        PlainArray(dram_standard="DDR3-1600", dram_gbytes_per_s=3.0)
    with pytest.raises(InputError, match="at least a bit in a cycle"):
        DianNao(dram_gbytes_per_s=0.01)
    with pytest.raises(msgspec.ValidationError, match="Invalid enum value"):
        msgspec.convert({"objective": "speed"}, PlainArray)
