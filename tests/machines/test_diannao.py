"""Is DianNao the machine of the paper? Its peak, time, arithmetic, and its bad input."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from sparqsim.architectures.arrays.diannao import NFU_STAGES, PARTS, DianNao
from sparqsim.architectures.machine import program, run
from sparqsim.base import InputError
from sparqsim.scripts.validation import diannao as validation
from sparqsim.simulator.traffic import moved
from sparqsim.workloads.encoded import outline
from sparqsim.workloads.layers import Conv2d, Layer, Linear, MatMul
from sparqsim.workloads.models import get_layer
from sparqsim.workloads.tensors import LayerTensors, synthetic

NFU = DianNao()
CONV = Conv2d(
    name="small", in_channels=20, out_channels=18, input=(7, 6), kernel=(3, 3), padding=(1, 1)
)


def test_the_peak_is_496_operations_a_cycle() -> None:
    """256 multipliers and sixteen trees of 15 adders; 7.5 % above the recalled figure."""
    assert NFU.multipliers == 256
    assert NFU.peak_gops == pytest.approx(496 * 0.98)
    assert NFU.peak_gops / validation.PUBLISHED_GOPS == pytest.approx(1.075, abs=0.001)


@settings(max_examples=30, deadline=None)
@given(channels=st.integers(1, 40), filters=st.integers(1, 40), size=st.integers(3, 9),
       kernel=st.integers(1, 3), batch=st.integers(1, 2))  # fmt: skip
def test_a_layer_is_never_faster_than_its_multipliers(
    channels: int, filters: int, size: int, kernel: int, batch: int
) -> None:
    """Cycles cover the work in groups of 16 by 16, the pipeline, and at least the analytic time."""
    layer = Conv2d(name="any", in_channels=channels, out_channels=filters, input=(size, size),
                   kernel=(kernel, kernel), batch=batch)  # fmt: skip
    report = run(NFU, outline(layer, NFU.recipe)).report
    pixels = batch * (size - kernel + 1) ** 2
    least = pixels * kernel**2 * -(-channels // 16) * -(-filters // 16)
    assert report.cycles >= least + NFU_STAGES
    assert report.cycles * NFU.multipliers >= layer.macs
    assert report.counters["compute_cycles"] >= least


def test_alexnet_is_bound_as_it_must_be() -> None:
    """Three channels fill 3 of 16 multipliers; deep layers all; fc6 waits for its synapses."""
    found = {row.layer: row for row in validation.rows()}
    assert found["conv1"].multipliers_busy == pytest.approx(3 / 16, rel=0.01)
    assert found["conv3"].multipliers_busy > 0.99
    synapses = get_layer("alexnet/fc6").weights * 16 / (NFU.bandwidth() * 8 / NFU.clock_hz)
    assert synapses <= found["fc6"].cycles <= 1.05 * synapses
    assert found["fc6"].bound == "memory" and found["conv3"].bound == "compute"


@pytest.mark.parametrize(
    "layer",
    [CONV, msgspec.structs.replace(CONV, groups=2, stride=(2, 1), batch=2),
     msgspec.structs.replace(CONV, dilation=(2, 1)),
     Linear(name="fc", in_features=70, out_features=33, rows=2),
     MatMul(name="scores", batch=3, m=5, k=20, n=6)],
    ids=["conv", "grouped", "dilated", "fc", "product"],
)  # fmt: skip
@pytest.mark.parametrize("density", [0.0, 0.4, 1.0])
def test_outputs_are_exact_and_time_is_equal_on_both_engines(layer: Layer, density: float) -> None:
    """Also where every input is zero, which takes as long as any other; tokens carry the sums."""
    tensors = synthetic(layer, np.random.default_rng(2), activation_density=density)
    compiled = run(NFU, tensors).report
    simpy = run(NFU, tensors, engine="simpy", execute=True).report
    assert compiled.verification.status == simpy.verification.status == "exact"
    assert compiled.cycles == simpy.cycles == run(NFU, outline(layer, NFU.recipe)).report.cycles
    assert (compiled.macs.effectual == 0) == (density == 0)


def test_bias_and_relu_are_applied() -> None:
    """A bias of the whole range shifts outputs; ReLU leaves none below zero."""
    made = synthetic(CONV, np.random.default_rng(2))
    biased = LayerTensors(layer=made.layer, weight=made.weight, activation=made.activation,
                          bias=np.linspace(-3, 3, 18), relu=False)  # fmt: skip
    moved_up, plain = program(NFU, biased), program(NFU, made)
    real = moved_up.values()
    assert real is not None and plain.outputs is not None
    assert real.min() < 0 <= plain.outputs.min()
    assert run(NFU, moved_up).report.verification.status == "exact"
    without = LayerTensors(layer=made.layer, weight=made.weight, activation=made.activation,
                           relu=False)  # fmt: skip
    bare = program(NFU, without).values()
    assert bare is not None
    assert np.abs((real - bare).mean(axis=(0, 2, 3)) - np.linspace(-3, 3, 18)).max() < 0.2


def test_a_lost_block_is_a_wrong_output() -> None:
    """If the sums of one block vanish on the way, tokens do not carry the kernel's sums."""
    lost = program(NFU, synthetic(CONV, np.random.default_rng(2)))
    dma = lost.netlist.actor("output_dma")
    plain = dma.execute
    assert plain is not None

    def loses(lane: int, k: int, got: dict[str, list[object]]) -> dict[str, list[object]]:
        return {} if k == 0 else plain(lane, k, got)

    object.__setattr__(dma, "execute", loses)
    assert run(NFU, lost, engine="simpy", execute=True).report.verification.status == "mismatch"


def test_every_memory_has_its_traffic_over_time() -> None:
    """What moves over time sums to what the report says of each memory."""
    result = run(NFU, synthetic(CONV, np.random.default_rng(2)))
    memory = result.report.memory
    assert set(memory) == {"input_buffer", "weight_buffer", "output_buffer", "dram"}
    for name, use in memory.items():
        over_time = moved(result.timeline, result.traffic[name])
        assert over_time.read_bits.sum() == pytest.approx(use.read_bits)
        assert over_time.written_bits.sum() == pytest.approx(use.written_bits)
    assert memory["dram"].read_bits >= (CONV.weights + 20 * 7 * 6) * 16


def test_dynamic_ranges_cost_nothing_where_sums_have_the_width_of_codes() -> None:
    """Sums leave in 16 bits at a scale set beforehand; the report says so."""
    tensors = synthetic(CONV, np.random.default_rng(2))
    found, fixed = (run(NFU, tensors, recipe=r).report for r in ("int8-dynamic", "int8"))
    assert found.cycles == fixed.cycles and found.verification.status == "exact"
    assert any("none come back" in note for note in found.notes)


def test_another_peak_or_bandwidth_is_met_as_far_as_the_fields_can() -> None:
    """A square NFU, whole gigabytes a second; area is known of the published design alone."""
    peak = NFU.peak()
    assert peak.macs_per_s == 256 * 980e6 and NFU.area() is not None
    larger = NFU.resized(macs_per_s=4 * peak.macs_per_s)
    assert larger.tn == 32 and larger.area() is None
    assert NFU.resized(bandwidth=100e9).bandwidth() == pytest.approx(100e9, rel=0.01)


def test_more_memory_bandwidth_never_slows_a_layer() -> None:
    """Nor do larger buffers make a memory-bound layer slower."""
    layer = Linear(name="fc", in_features=512, out_features=256, rows=2)
    times = [
        run(DianNao(dram_gbytes_per_s=rate), outline(layer, NFU.recipe))
        for rate in (5, 50, 250, 1000)
    ]
    cycles = [each.report.cycles for each in times]
    assert cycles == sorted(cycles, reverse=True) and cycles[0] > 10 * cycles[-1]


def test_the_netlist_is_the_block_diagram() -> None:
    """Its actors stand for NFU stages and the DMAs of the three buffers."""
    parts = {actor.part for actor in program(NFU, outline(CONV, NFU.recipe)).netlist.actors}
    assert {"NFU-1 and NFU-2", "NFU-3", "NBin DMA", "SB DMA", "NBout DMA"} <= parts
    assert parts <= set(PARTS.values())


@pytest.mark.parametrize(
    ("field", "value"),
    [("tn", 0), ("weight_buffer_kib", 2.5), ("clock_hz", float("inf")),
     ("dram_gbytes_per_s", 0), ("energy_table", "published"), ("energy_table", "none")],
)  # fmt: skip
def test_a_bad_configuration_is_refused(field: str, value: object) -> None:
    """The message names the field."""
    with pytest.raises(InputError, match=field):
        DianNao(**{field: value})


def test_wider_operands_are_refused() -> None:
    """16 bits are all there are."""
    with pytest.raises(InputError, match="at most 16"):
        NFU.plan(msgspec.structs.replace(CONV, activation_bits=32))


def test_the_validation_prints_and_writes() -> None:
    """Rows with measured, simulated, error; every figure of the datasheet has a source."""
    result = CliRunner().invoke(validation.command, ["--json", "-"])
    assert result.exit_code == 0, result.output
    rows = msgspec.json.decode(result.output)["rows"]
    assert all({"measured", "simulated", "error"} <= row.keys() for row in rows)
    assert CliRunner().invoke(validation.command, []).exit_code == 0
    assert all(figure.source for figure in NFU.datasheet())
