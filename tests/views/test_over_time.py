"""Does what is drawn over time sum to what the report says, on every machine?"""

from __future__ import annotations

import numpy as np
import pytest

from sparqsim.architectures.machine import run
from sparqsim.architectures.registry import get_machine, machine_names
from sparqsim.simulator.load import load_over_time
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
