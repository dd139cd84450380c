"""Do Eyeriss, the tensor cores and SNAP obey what must hold of any machine, their search included?

As for the array machines: traffic is at least compulsory, and more of a resource costs no time.
Examples are drawn from a fixed seed. Eyeriss picks its mapping by a closed form, and SNAP's PEs
take turns at banks, so that a law holds to a per cent or two there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from sparqsim.architectures import presets
from sparqsim.architectures.arrays.shapes import ConvShape
from sparqsim.architectures.eyeriss import Eyeriss
from sparqsim.architectures.machine import run
from sparqsim.architectures.snap import SNAP
from sparqsim.base import InputError
from sparqsim.workloads.encoded import encode, outline
from sparqsim.workloads.layers import Conv2d, Layer, Linear
from sparqsim.workloads.tensors import synthetic


@st.composite
def layers(draw: st.DrawFn, most: int) -> Layer:
    """Convolutions with padding, some grouped, and linear layers, of so many channels."""
    if draw(st.integers(0, 2)) == 0:
        features = st.integers(1, 8 * most)
        rows = draw(st.sampled_from([1, 8, 100]))
        return Linear(name="l", in_features=draw(features), out_features=draw(features), rows=rows)
    kernel, groups = draw(st.sampled_from([1, 3, 3, 5])), draw(st.sampled_from([1, 1, 4]))
    return Conv2d(
        name="c", in_channels=groups * draw(st.integers(1, most)),
        out_channels=groups * draw(st.integers(1, most)), groups=groups,
        input=(draw(st.integers(kernel, 20)), draw(st.integers(kernel, 20))),
        kernel=(kernel, kernel), padding=(kernel // 2,) * 2,
        stride=(draw(st.sampled_from([1, 1, 2])),) * 2, batch=draw(st.sampled_from([1, 3])),
    )  # fmt: skip


def law(few: int, many: int) -> Callable[[Callable[[st.DataObject], None]], Any]:
    """Few examples, many where tests may be slow, the same in every run."""

    def wrap(body: Callable[[st.DataObject], None]) -> Any:
        def test(examples: int) -> None:
            drawn = given(data=st.data())(lambda data: body(data))
            settings(max_examples=examples, deadline=None, derandomize=True, database=None)(drawn)()

        test.__doc__ = body.__doc__
        slow = pytest.param(many, marks=pytest.mark.slow)
        return pytest.mark.parametrize("examples", [few, slow])(test)

    return wrap


def more_of(draw: Callable[..., Any], machine: Any, fields: tuple[str, ...]) -> Any:
    """The machine with more of one of the fields."""
    field = draw(st.sampled_from(fields))
    value = getattr(machine, field) * draw(st.sampled_from([2, 4]))
    return replace(machine, **{field: value})


@law(6, 60)
def test_eyeriss(data: st.DataObject) -> None:
    """DRAM moves what must move; no bus, buffer, link or PE more costs time; a run takes what its
    search has priced, to the cycle."""
    chip = Eyeriss(
        rows=data.draw(st.sampled_from([12, 6])), glb_kib=data.draw(st.sampled_from([40, 100])),
        link_hz=data.draw(st.sampled_from([1e7, 6e7, 3e8])),
    )  # fmt: skip
    fields = ("link_hz", "link_bits", "glb_kib", "filter_kib", "rows", "columns", "clock_hz",
              "filter_bus_bits", "psum_bus_bits", "ifmap_bus_bits")  # fmt: skip
    larger, layer = more_of(data.draw, chip, fields), data.draw(layers(64))
    try:
        before, after = (run(each, outline(layer, "int16")).report for each in (chip, larger))
    except InputError:
        assume(False)  # not even the smallest pass fits
    shape = ConvShape.of(layer)
    for each in (before, after):
        assert each.memory["dram"].read_bits >= 16 * (shape.inputs + shape.weights)
        assert each.memory["dram"].written_bits == 16 * shape.outputs
        assert each.cycles == each.counters["analytic_cycles"]
    assert after.seconds <= 1.01 * before.seconds


@law(8, 120)
def test_tensor_cores(data: st.DataObject) -> None:
    """DRAM moves what must move; no bandwidth, memory, SM or multiplier more costs time."""
    gpu: Any = presets.load(data.draw(st.sampled_from(["a100-40gb", "rtx3090", "h100"])))
    gpu = replace(gpu, sms=data.draw(st.sampled_from([8, 30, gpu.sms])))
    fields = ("dram_gbytes_per_s", "l2_mib", "l2_bytes_per_cycle", "port_bytes_per_cycle",
              "shared_bytes_per_cycle", "shared_kib", "sms", "fp16_macs_per_sm",
              "clock_hz")  # fmt: skip
    larger, layer = more_of(data.draw, gpu, fields), data.draw(layers(128))
    recipe = data.draw(st.sampled_from(["fp16", "2:4+int8"]))
    before, after = (run(each, outline(layer, recipe)).report for each in (gpu, larger))
    shape, bits = ConvShape.of(layer), 16 if recipe == "fp16" else 8
    kept = 1.0 if recipe == "fp16" else 0.5
    written = shape.outputs * (16 if recipe == "fp16" else 32)
    for each in (before, after):
        dram = each.memory["dram"]
        least = bits * (shape.inputs + kept * shape.weights)
        assert dram.read_bits >= least * (1 - 1e-9) and dram.written_bits >= written * (1 - 1e-9)
    assert after.seconds <= 1.005 * before.seconds


@law(6, 60)
def test_snap(data: st.DataObject) -> None:
    """No queue, bank, comparator, multiplier or core more costs time."""
    chip = SNAP(
        cores=data.draw(st.sampled_from([1, 2])), step_slots=data.draw(st.sampled_from([1, 4])),
        match_slots=data.draw(st.sampled_from([1, 2])), banks=data.draw(st.sampled_from([2, 8])),
    )  # fmt: skip
    fields = ("step_slots", "match_slots", "banks", "comparators", "multipliers", "cores")
    larger, layer = more_of(data.draw, chip, fields), data.draw(layers(12))
    made = synthetic(
        layer, np.random.default_rng(0), activation_density=data.draw(st.sampled_from([0.3, 1.0])),
        weight_density=data.draw(st.sampled_from([0.3, 1.0])),
    )  # fmt: skip
    coded = encode(made, "int16")
    before, after = (run(each, coded, verify=False).report for each in (chip, larger))
    assert after.seconds <= 1.02 * before.seconds
