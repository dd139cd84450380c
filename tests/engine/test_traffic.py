"""Are the bits of memories over time all there, where they moved, and those of the report?"""

from __future__ import annotations

import numpy as np
import pytest
from array_layers import LAYERS, MACHINES, tensors
from hypothesis import given, settings
from hypothesis import strategies as st

from sparqsim.architectures.arrays.ant import Ant
from sparqsim.architectures.arrays.bitfusion import BitFusion
from sparqsim.architectures.arrays.tpu import TPU
from sparqsim.architectures.eie import EIE
from sparqsim.architectures.machine import Result, run
from sparqsim.base import InputError
from sparqsim.simulator.engines import simulate
from sparqsim.simulator.netlist import Actor, Netlist
from sparqsim.simulator.traffic import Access, moved
from sparqsim.workloads.encoded import outline
from sparqsim.workloads.layers import Linear
from sparqsim.workloads.models import get_model
from sparqsim.workloads.tensors import synthetic


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 5), st.integers(1, 30), st.integers(1, 50))
def test_each_firing_moves_its_bits_while_it_is_busy(
    seed: int, lanes: int, firings: int, most: int
) -> None:
    """Interval by interval as when every firing is spread over its cycles one by one."""
    rng = np.random.default_rng(seed)
    shape = (firings, lanes)
    net = Netlist([Actor(name="bank", lanes=lanes, busy=rng.integers(0, 9, shape))])
    timeline = simulate(net)
    bits = rng.integers(0, 1000, shape)
    found = moved(timeline, [Access(actor="bank", read_bits=bits, written_bits=3)], most)
    assert len(found.read_bits) <= most
    by_cycle = np.zeros((found.edges[-1], 2))
    starts, busy = timeline.starts_of("bank"), np.maximum(timeline.busy("bank"), 1)
    for place in np.ndindex(shape):
        span = slice(starts[place], starts[place] + busy[place])
        by_cycle[span] += np.array([bits[place], 3]) / busy[place]
    expected = np.add.reduceat(by_cycle, found.edges[:-1])
    np.testing.assert_allclose(found.read_bits, expected[:, 0], atol=1e-6)
    np.testing.assert_allclose(found.written_bits, expected[:, 1], atol=1e-6)
    assert found.seconds.sum() == pytest.approx(found.edges[-1] / net.clock_hz)


def same_as_reported(result: Result) -> None:
    """Every memory of the report, and the same bits read and written."""
    assert set(result.traffic) == set(result.report.memory)
    for memory, accesses in result.traffic.items():
        flow, use = moved(result.timeline, accesses), result.report.memory[memory]
        assert flow.read_bits.sum() == pytest.approx(use.read_bits, rel=1e-9, abs=1e-6)
        assert flow.written_bits.sum() == pytest.approx(use.written_bits, rel=1e-9, abs=1e-6)


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("machine", MACHINES)
def test_arrays_move_the_bits_of_their_reports(machine: str, layer: str) -> None:
    """DRAM and the three buffers, every kind of layer; no DMA moves more than a buffer did."""
    result = run(MACHINES[machine], tensors(LAYERS[layer]), verify=False)
    same_as_reported(result)
    for accesses in result.traffic.values():
        for access in accesses:
            assert np.min(access.read_bits) >= 0
            assert np.min(access.written_bits) >= 0


def test_a_channel_moves_its_share() -> None:
    """DMAs in two channels: together the report's bits, as many on each."""
    for kind in (BitFusion, Ant):
        machine = kind(dram_standard="DDR4-2400", dram_channels=2)
        result = run(machine, tensors(LAYERS["image"]), verify=False)
        same_as_reported(result)
        reads = {access.actor: np.sum(access.read_bits) for access in result.traffic["dram"]}
        assert reads["weight_dma"] == reads["weight_dma1"] > 0


def test_a_bus_is_never_faster_than_it_is() -> None:
    """DRAM bandwidth over time stays below the bus's, and reaches it where DMAs never pause.

    A last word may carry the next block's first bits, which count where their own transfer is.
    """
    fc = Linear(name="fc", in_features=4096, out_features=4096, rows=4)
    result = run(BitFusion(), BitFusion().plan(fc))
    flow = moved(result.timeline, result.traffic["dram"])
    rate = flow.read_gbytes_per_s + flow.written_gbytes_per_s
    assert 0.99 * 12 < rate.max() <= 12 * 1.001


def test_a_network_on_the_tpu_moves_the_bits_of_its_report() -> None:
    """Layers of different sizes one behind the other."""
    machine = TPU()
    layers = [outline(layer, "int8") for layer in get_model("digits-cnn").layers]
    same_as_reported(run(machine, machine.lower_network(layers)))


def test_eie_moves_the_bits_of_its_report() -> None:
    """Spmat, Ptr and (where vectors exceed the registers) Act SRAM; counts alone too."""
    rng = np.random.default_rng(0)
    layer = Linear(name="fc", in_features=300, out_features=200, rows=2)
    work = synthetic(layer, rng, weight_density=0.2, activation_density=0.4)
    spilled = run(EIE(pes=4, act_registers=16), work)
    assert set(spilled.traffic) == {"spmat_sram", "ptr_sram", "act_sram"}
    same_as_reported(spilled)
    machine = EIE(pes=8)
    counts = rng.integers(0, 5, (8, 60))
    program = machine.program_from_counts(counts, np.arange(0, 60, 2))
    result = run(machine, program)
    for memory, accesses in result.traffic.items():
        read = moved(result.timeline, accesses).read_bits.sum()
        assert read == pytest.approx(result.report.memory[memory].read_bits)


@pytest.mark.parametrize(
    ("access", "says"),
    [
        (Access(actor="bank", read_bits=-1), "read_bits of 'bank' must be finite"),
        (Access(actor="bank", written_bits=np.nan), "written_bits of 'bank' must be finite"),
        (Access(actor="bank", read_bits="many"), "read_bits of 'bank' must be finite"),
        (Access(actor="bank", read_bits=[1, 2, 3]), "fit its 2 firings of 1 lanes"),
        (Access(actor="bunk", read_bits=1), "bunk"),
    ],
)
def test_bits_that_cannot_be_are_refused(access: Access, says: str) -> None:
    """An error message says what is wrong with what."""
    timeline = simulate(Netlist([Actor(name="bank", firings=2)]))
    with pytest.raises(InputError, match=says):
        moved(timeline, [access])
    with pytest.raises(InputError, match="record='full'"):
        moved(timeline.summary(), [Access(actor="bank", read_bits=1)])
