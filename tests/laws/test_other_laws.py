"""Do Eyeriss, the tensor cores and SNAP obey what must hold of any machine, their search included?

As for the array machines: traffic is at least compulsory, and more of a resource costs no time.
SNAP's PEs take turns at banks, so that a law holds to two
per cent there. Every field of these and of EIE and HeatViT changes something.
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
from sparqsim.architectures.eie import EIE
from sparqsim.architectures.eyeriss import Eyeriss
from sparqsim.architectures.heatvit import HeatViT
from sparqsim.architectures.machine import Machine, run
from sparqsim.architectures.snap import SNAP
from sparqsim.architectures.sparse_tensor_core import SparseTensorCore
from sparqsim.base import InputError
from sparqsim.workloads.encoded import EncodedLayer, encode, outline
from sparqsim.workloads.layers import Conv2d, Layer, Linear
from sparqsim.workloads.tensors import LayerTensors, synthetic


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
    """Few examples, many where tests may be slow."""

    def wrap(body: Callable[[st.DataObject], None]) -> Any:
        def test(examples: int) -> None:
            drawn = given(data=st.data())(lambda data: body(data))
            settings(max_examples=examples, deadline=None)(drawn)()

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
    assert after.seconds <= 1.005 * before.seconds


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


# ---------------------------------------------------------------------------------- fields

RNG = np.random.default_rng(0)
CONV = synthetic(
    Conv2d(
        name="c", in_channels=20, out_channels=32, input=(12, 12), kernel=(3, 3), padding=(1, 1),
        batch=2,
    ),
    RNG, weight_density=0.4, activation_density=0.5,
)  # fmt: skip
VECTOR = synthetic(
    Linear(name="v", in_features=4200, out_features=100), RNG,
    weight_density=0.2, activation_density=0.4,
)  # fmt: skip
PRODUCT = synthetic(Linear(name="p", in_features=256, out_features=192, rows=70), RNG)
LARGE = Linear(name="l", in_features=1024, out_features=1000, rows=520)  # not in L2
FLAT = Linear(name="s", in_features=64, out_features=2048, rows=512)  # in L2, many waves
DEEP = Linear(name="d", in_features=8192, out_features=64, rows=64)  # a tile, so idle SMs
FIELDS: list[tuple[Machine, list[Any], str, dict[str, Any]]] = [
    (Eyeriss(), [CONV], "int16", {}),
    (EIE(), [VECTOR], "eie", {"accumulator_bits": 32}),
    (SNAP(), [CONV], "int16", {"supply_v": 0.7, "kernels_per_step": 4, "accumulator_bits": 32}),
    (HeatViT(), [PRODUCT], "int8", {}),
    (
        SparseTensorCore(sms=4, l2_mib=1.0, tdp_w=500.0, power_limit_w=150.0),
        [CONV, LARGE, FLAT, DEEP, outline(FLAT, "int8")], "2:4+int8",
        {"fp32_accumulate": 0.5, "dense_issue": 0.5, "sparse_issue": 0.5, "dram_efficiency": 0.5,
         "sparse_tiles": 1, "l2_partitions": 1, "warp_rows": 32, "warp_columns": 32,
         "l2_latency_cycles": 100, "legacy_integers": 0.5},
    ),
]  # fmt: skip
# What changes what is computed, not how fast; or whole networks: each has tests of its own.
ELSEWHERE = {"any_pattern", "int4", "fp8", "outlier_pairs", "float_block", "extra_bits", "keep"}


@pytest.mark.parametrize(
    ("machine", "works", "recipe", "changes"), FIELDS, ids=[each[0].name for each in FIELDS]
)
def test_every_field_changes_something(
    machine: Machine, works: list[Any], recipe: str, changes: dict[str, Any]
) -> None:
    """Cycles, energy, traffic or counts of a layer."""
    coded = [each for each in works if isinstance(each, EncodedLayer)]
    for each in works:
        if isinstance(each, Layer):
            coded += [outline(each, recipe), outline(each, "fp16")]
        elif isinstance(each, LayerTensors):
            coded.append(encode(each, recipe))

    def found(chip: Machine, each: Any) -> tuple[Any, ...]:
        report = run(chip, each, verify=False, record="summary").report
        return report.cycles, report.seconds, report.energy, report.memory, report.counters

    before = [found(machine, each) for each in coded]
    for field in machine.__struct_fields__:
        if field in ELSEWHERE:
            continue
        value = getattr(machine, field)
        other = not value if isinstance(value, bool) else 2 * value or 1.0
        changed = replace(machine, **{field: changes.get(field, other)})
        both = zip(coded, before, strict=True)
        assert any(found(changed, each) != known for each, known in both), field
