"""Is SNAP's arithmetic right: kernel, plain twin and a convolution written as loops, bit by bit?"""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from sparqsim.architectures.snap import SNAP
from sparqsim.architectures.snap.mapping import schedule
from sparqsim.simulator.mac import snap as mac
from sparqsim.workloads.encodings.channel_bundles import ChannelBundles
from sparqsim.workloads.layers import Conv2d

Ints = NDArray[np.int32]


def bundles(dense: Ints, length: int, axis: int) -> mac.Bundles:
    made = ChannelBundles.encode(dense, length, axis, value_bits=16)
    return mac.Bundles(made.pointers, made.channels, made.values)


def tensors(layer: Conv2d, density: float, rng: np.random.Generator) -> tuple[Ints, Ints]:
    """Weights [out, in / groups, r, s] and activations [image, channel, y, x] of full range."""

    def draw(shape: tuple[int, ...]) -> Ints:
        values = rng.integers(-(2**15), 2**15, shape, dtype=np.int32)
        return np.where(rng.random(shape) < density, values, 0).astype(np.int32)

    return draw(layer.weight_shape), draw((layer.batch, layer.in_channels, *layer.input))


def convolution(layer: Conv2d, weights: Ints, inputs: Ints) -> NDArray[np.int64]:
    """Output by output, tap by tap, in Python's own integers."""
    sums = np.zeros((layer.batch, layer.out_channels, *layer.output), np.int64)
    fan_in = layer.in_channels // layer.groups
    for image, k, oy, ox in np.ndindex(sums.shape):
        low = k // (layer.out_channels // layer.groups) * fan_in
        total = 0
        for c, r, s in np.ndindex(weights.shape[1:]):
            y = oy * layer.stride[0] + r * layer.dilation[0] - layer.padding[0]
            x = ox * layer.stride[1] + s * layer.dilation[1] - layer.padding[1]
            if 0 <= y < layer.input[0] and 0 <= x < layer.input[1]:
                total += int(weights[k, c, r, s]) * int(inputs[image, low + c, y, x])
        sums[image, k, oy, ox] = total
    return sums


def run(which: str, machine: SNAP, layer: Conv2d, weights: Ints, inputs: Ints):  # type: ignore[no-untyped-def]
    plan, slots = schedule(machine, layer)
    length, of_group = machine.bundle_channels, layer.in_channels // layer.groups
    grouped = inputs.reshape(layer.batch, layer.groups, of_group, *layer.input)
    geometry = mac.Geometry(
        layer.groups,
        -(-of_group // length),
        layer.input[0],
        layer.input[1],
        layer.kernel[0],
        layer.kernel[1],
        layer.stride[0],
        layer.stride[1],
        layer.padding[0],
        layer.padding[1],
        layer.dilation[0],
        layer.dilation[1],
    )
    front = mac.FrontEnd(
        machine.comparators, machine.multipliers, machine.split_tree, machine.rows, slots
    )
    work = mac.Work.blank(
        (layer.batch, layer.out_channels, *layer.output),
        plan,
        machine.columns,
        machine.cores * machine.rows,
    )
    counted = getattr(mac, which)(
        bundles(grouped, length, 2),
        bundles(weights, length, 1),
        length,
        geometry,
        plan,
        front,
        work,
    )
    return counted, work


@st.composite
def convolutions(draw: st.DrawFn) -> Conv2d:
    size = st.integers(1, 3)
    groups = draw(size)
    kernel, dilation = draw(st.tuples(size, size)), draw(st.tuples(size, size))
    reach = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    return Conv2d(
        name="drawn",
        in_channels=groups * draw(st.integers(1, 9)),
        out_channels=groups * draw(st.integers(1, 5)),
        groups=groups,
        kernel=kernel,
        dilation=dilation,
        stride=draw(st.tuples(size, size)),
        padding=draw(st.tuples(*[st.integers(0, 2)] * 4)),
        input=(reach[0] + draw(st.integers(0, 3)), reach[1] + draw(st.integers(0, 3))),
        batch=draw(st.integers(1, 2)),
    )


machines = st.builds(
    SNAP,
    cores=st.integers(1, 3),
    rows=st.integers(1, 4),
    columns=st.integers(1, 4),
    multipliers=st.integers(1, 4),
    comparators=st.integers(1, 5),
    bundle_channels=st.integers(1, 6),
    pes_per_aim=st.just(1),
    kernels_per_step=st.integers(1, 3),
    split_tree=st.booleans(),
)


@settings(max_examples=40, deadline=None)
@given(machines, convolutions(), st.sampled_from([0.0, 0.3, 0.7, 1.0]), st.integers(0, 99))
def test_kernel_plain_twin_and_loops_agree(
    machine: SNAP, layer: Conv2d, density: float, seed: int
) -> None:
    """Sums equal a loop over outputs and taps; every count equals the comparators spelt out."""
    weights, inputs = tensors(layer, density, np.random.default_rng(seed))
    fast, work = run("match", machine, layer, weights, inputs)
    plain, spelt = run("match_plain", machine, layer, weights, inputs)
    assert fast == plain
    for name, one, other in zip(work._fields, work, spelt, strict=True):
        np.testing.assert_array_equal(one, other, err_msg=name)
    np.testing.assert_array_equal(work.sums, convolution(layer, weights, inputs))


@settings(max_examples=20, deadline=None)
@given(machines, convolutions(), st.integers(0, 99))
def test_counts_follow_from_the_dense_tensors(machine: SNAP, layer: Conv2d, seed: int) -> None:
    """Products are the taps with two non-zeros; each level of reduction leaves fewer psums."""
    weights, inputs = tensors(layer, 0.6, np.random.default_rng(seed))
    _, work = run("match", machine, layer, weights, inputs)
    ones = convolution(layer, (weights != 0).astype(np.int32), (inputs != 0).astype(np.int32))
    assert work.products.sum() == ones.sum()
    assert work.reduced.sum() <= work.pe_psums.sum() <= work.products.sum()
    assert work.reduced.sum() <= work.aligned.sum() <= work.products.sum()
    assert (work.cycles * machine.multipliers >= work.products).all()


def test_levels_of_reduction_by_hand() -> None:
    """PEs with 3 and 2 matches for one output: 5 psums, 2 by PE, 3 aligned, 1 with both."""
    layer = Conv2d(name="hand", in_channels=8, out_channels=1, input=(1, 1), kernel=(1, 1))
    machine = SNAP(cores=1, rows=1, columns=2, bundle_channels=4, comparators=4, pes_per_aim=1)
    weights = np.array([1, 2, 3, 4, 5, 6, 0, 8], np.int32).reshape(1, 8, 1, 1)
    inputs = np.array([1, 0, 1, 1, 1, 1, 1, 0], np.int32).reshape(1, 8, 1, 1)
    pairs, work = run("match", machine, layer, weights, inputs)
    assert (pairs, work.fetched.tolist()) == (2, [[6]])
    assert work.products.tolist() == [[3, 2]]
    assert work.pe_psums.sum() == 2
    assert work.aligned.tolist() == [[3]]
    assert work.reduced.tolist() == [[1]]
    assert work.sums.item() == 1 + 3 + 4 + 5 + 6


@pytest.mark.parametrize(("split", "cycles"), [(True, 2), (False, 3)])
def test_a_split_tree_lets_pairs_share_a_cycle(split: bool, cycles: int) -> None:
    """Three outputs with 2 matches each take 6 / 3 cycles if the tree splits, else one each."""
    layer = Conv2d(name="split", in_channels=2, out_channels=3, input=(1, 1), kernel=(1, 1))
    machine = SNAP(cores=1, rows=1, columns=1, pes_per_aim=1, split_tree=split)
    ones = np.ones(layer.weight_shape, np.int32)
    _, work = run("match", machine, layer, ones, np.ones((1, 2, 1, 1), np.int32))
    assert work.cycles.tolist() == [[cycles]]


@pytest.mark.parametrize("n", [1, 3, 4, 7, 8])
def test_passes_of_dense_bundles(n: int) -> None:
    """Two dense bundles of 7 channels take ceil(7 / N) squared passes."""
    layer = Conv2d(name="passes", in_channels=7, out_channels=1, input=(1, 1), kernel=(1, 1))
    machine = SNAP(comparators=n, bundle_channels=7)
    ones = np.ones((1, 7, 1, 1), np.int32)
    _, work = run("match", machine, layer, ones, ones)
    assert work.passes.sum() == math.ceil(7 / n) ** 2
