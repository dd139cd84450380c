"""Does what is drawn over time sum to what the report says, on every machine?"""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from sparqsim.architectures.machine import run
from sparqsim.architectures.registry import get_machine, machine_names
from sparqsim.simulator.load import load_over_time
from sparqsim.simulator.queues import held
from sparqsim.simulator.report import Report
from sparqsim.simulator.sketch import ROWS, sketch_of
from sparqsim.simulator.topology import topology_of
from sparqsim.simulator.traffic import moved
from sparqsim.workloads.layers import Linear
from sparqsim.workloads.tensors import synthetic

LAYER = Linear(name="connected", in_features=72, out_features=40, rows=3)


@pytest.mark.parametrize("name", machine_names())
def test_bandwidth_and_load_sum_to_the_report(name: str) -> None:
    """Bits of each memory, and busy cycles of each lane, over all intervals; every memory that the
    report names is there."""
    tensors = synthetic(LAYER, np.random.default_rng(3), weight_density=0.6, activation_density=0.7)
    result = run(get_machine(name)(), tensors, verify=False)
    report, timeline = result.report, result.timeline
    assert set(result.traffic) == set(report.memory) and report.memory
    for memory, accesses in result.traffic.items():
        flow = moved(timeline, accesses, 30)
        told = report.memory[memory]
        assert flow.read_bits.sum() == pytest.approx(told.read_bits)
        assert flow.written_bits.sum() == pytest.approx(told.written_bits)
    balance = report.load_balance
    load = load_over_time(timeline, balance.actor, 30, most_rows=balance.lanes)
    busy = (load.shares * np.diff(load.edges)).sum(axis=1)
    assert busy == pytest.approx(np.array(balance.work_cycles, float))
    few = load_over_time(timeline, balance.actor, 30, most_rows=5)
    grouped = (few.shares * np.diff(few.edges)).sum(axis=1) * np.diff(few.lanes)
    assert grouped.sum() == pytest.approx(sum(balance.work_cycles))
    assert few.shares.max() <= 1 and len(few.shares) <= 5


def test_a_sketch_is_the_run_a_byte_a_point() -> None:
    """Its load sums to the busy cycles and its queues to the tokens held, each point within half a
    step of 255; it goes through JSON; a run of sums has its topology alone."""
    tensors = synthetic(LAYER, np.random.default_rng(3), weight_density=0.6, activation_density=0.7)
    result = run(get_machine("eie")(), tensors, verify=False, record="sketch")
    report, timeline = result.report, result.timeline
    sketch = msgspec.json.decode(msgspec.json.encode(report), type=Report).sketch
    assert sketch is not None and sketch == report.sketch
    balance = report.load_balance
    assert (sketch.actor, sketch.lanes, sketch.rows) == (balance.actor, balance.lanes, ROWS)
    load = load_over_time(timeline, balance.actor, sketch.shares().shape[1], ROWS)
    assert np.abs(sketch.shares() - load.shares).max() <= 0.5 / 255 + 1e-12
    assert sketch.queues
    for queue in sketch.queues:
        full = held(timeline, queue.channel, len(queue.over_time))
        told = np.frombuffer(queue.over_time, np.uint8) / 255 * queue.most_tokens
        assert np.abs(told - full.tokens.mean(axis=1)).max() <= 0.5 / 255 * queue.most_tokens + 1e-9
        assert queue.queues == full.tokens.shape[1]
        assert 0 < queue.mean_tokens <= queue.most_tokens <= queue.capacity
    assert sketch.topology == topology_of(timeline.netlist)
    summed = sketch_of(timeline.summary(), balance.actor)
    assert summed.topology == sketch.topology and not summed.rows and not summed.queues
    assert run(get_machine("eie")(), tensors, verify=False).report.sketch is None
