"""Are the counts of a layer right, and is a wrong layer refused?

The oracle is a convolution done the slow way: every tap of every output counted one by one.
"""

from __future__ import annotations

import itertools
import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparqsim.base import InputError
from sparqsim.workloads.layers import Conv2d, Gemm, Layer, Linear, MatMul, Model


@st.composite
def convolutions(draw: st.DrawFn) -> Conv2d:
    small = st.integers(1, 3)
    groups, kernel, dilation = (
        draw(small),
        draw(st.tuples(small, small)),
        draw(st.tuples(small, small)),
    )
    reach = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    return Conv2d(
        name="c",
        in_channels=groups * draw(small),
        out_channels=groups * draw(small),
        input=(reach[0] + draw(st.integers(0, 5)), reach[1] + draw(st.integers(0, 5))),
        kernel=kernel,
        stride=draw(st.tuples(small, small)),
        padding=draw(st.tuples(*[st.integers(0, 2)] * 4)),
        dilation=dilation,
        groups=groups,
        bias=draw(st.booleans()),
        batch=draw(small),
    )


def positions(layer: Conv2d, axis: int) -> list[int]:
    """First tap of every output along one axis, found by sliding the kernel."""
    size = layer.input[axis] + layer.padding[axis] + layer.padding[axis + 2]
    last_tap = (layer.kernel[axis] - 1) * layer.dilation[axis]
    return [at for at in range(0, size, layer.stride[axis]) if at + last_tap < size]


@given(convolutions())
def test_a_convolution_counts_every_tap(layer: Conv2d) -> None:
    """Output size and MACs are those of a kernel slid over the padded image, tap by tap."""
    rows, cols = positions(layer, 0), positions(layer, 1)
    assert layer.output == (len(rows), len(cols))
    taps = sum(
        1
        for _ in itertools.product(
            range(layer.batch), rows, cols, range(layer.kernel[0]), range(layer.kernel[1])
        )
    )
    per_group = layer.in_channels // layer.groups
    assert layer.macs == taps * layer.out_channels * per_group
    assert layer.weights == math.prod(layer.kernel) * layer.out_channels * per_group
    assert layer.parameters == layer.weights + (layer.out_channels if layer.bias else 0)
    assert layer.output_elements == layer.batch * layer.out_channels * len(rows) * len(cols)


@given(convolutions())
def test_the_product_holds_the_same_work(layer: Conv2d) -> None:
    """The im2col product has the layer's weights (n k a group) and outputs (m n a group)."""
    gemm = layer.gemm()
    assert gemm.batch * gemm.n * gemm.k == layer.weights
    assert gemm.batch * gemm.m * gemm.n == layer.output_elements


@given(convolutions())
def test_a_layer_survives_json(layer: Conv2d) -> None:
    """A layer written as JSON is read back as the same record, its kind told by the tag."""
    assert msgspec.json.decode(msgspec.json.encode(layer), type=Layer) == layer


def test_products_without_and_with_weights() -> None:
    """A linear layer has a weight for every pair of features; an attention product has none."""
    linear = Linear(name="l", in_features=5, out_features=7, rows=3)
    assert (linear.macs, linear.weights, linear.parameters) == (105, 35, 42)
    assert linear.gemm() == Gemm(m=3, n=7, k=5, batch=1)
    product = MatMul(name="p", batch=2, m=3, k=5, n=7)
    assert (product.macs, product.weights, product.parameters) == (210, 0, 0)
    assert (product.input_elements, product.output_elements) == (2 * (15 + 35), 42)


def test_two_sided_padding_is_kept_as_four() -> None:
    """Padding (height, width) means both sides; an even kernel may pad one side alone."""
    both = Conv2d(
        name="c", in_channels=1, out_channels=1, input=(4, 4), kernel=(3, 3), padding=(1, 0)
    )
    assert both.padding == (1, 0, 1, 0) and both.output == (4, 2)
    after = msgspec.structs.replace(both, kernel=(2, 2), padding=(0, 0, 1, 1))
    assert after.output == (4, 4)


GOOD = {"in_channels": 4, "out_channels": 4, "input": (4, 4), "kernel": (3, 3)}


@pytest.mark.parametrize(
    "wrong, says",
    [
        ({"name": ""}, "name must be"),
        ({"in_channels": 0}, "in_channels must be whole and at least 1, got 0"),
        ({"out_channels": 4.0}, "out_channels must be whole"),
        ({"in_channels": True}, "in_channels must be whole"),
        ({"input": (0, 4)}, "input must be whole"),
        ({"input": (4,)}, "input must be a pair"),
        ({"kernel": 3}, "kernel must be a pair"),
        ({"kernel": (5, 5)}, "the kernel must fit"),
        ({"dilation": (3, 3)}, "the kernel must fit"),
        ({"stride": (1, 0)}, "stride must be whole and at least 1"),
        ({"padding": (-1, 0)}, "padding must be whole and at least 0"),
        ({"padding": (1, 1, 1)}, "padding must be (height, width) or"),
        ({"groups": 3}, "groups must divide the channels"),
        ({"batch": 0}, "batch must be"),
        ({"repeat": 0}, "repeat must be"),
        ({"weight_bits": 0}, "weight_bits must be a whole number from 1 to 64"),
        ({"activation_bits": 4.5}, "activation_bits must be"),
        ({"weight_density": float("nan"), "density_source": "x"}, "fraction above 0"),
        ({"weight_density": 0.0, "density_source": "x"}, "fraction above 0"),
        ({"activation_density": 1.5, "density_source": "x"}, "at most 1, got 1.5"),
        ({"activation_density": 0.5}, "needs its density_source"),
    ],
)
def test_a_wrong_layer_is_refused(wrong: dict[str, object], says: str) -> None:
    """Each field out of range is named, with what was given."""
    with pytest.raises(InputError) as error:
        Conv2d(**({"name": "c"} | GOOD | wrong))
    assert says in str(error.value)


def test_unknown_fields_are_refused() -> None:
    """A misspelt key in a file is an error, not a default."""
    with pytest.raises(msgspec.ValidationError, match="rowz"):
        msgspec.json.decode(
            b'{"kind":"linear","name":"a","in_features":1,"out_features":1,"rowz":2}', type=Layer
        )


def test_a_model_multiplies_repeats() -> None:
    """Totals count each repeat and add the parameters outside the layers."""
    layer = Linear(name="a", in_features=2, out_features=3, repeat=4)
    model = Model(name="m", source="s", layers=(layer,), other_parameters=5)
    assert (model.macs, model.weights, model.parameters) == (24, 24, 41)
    assert model.layer("a") is layer


def test_a_wrong_model_is_refused() -> None:
    """A model has layers, under names of their own; an unknown layer's message lists near ones."""
    layer = Linear(name="fc6", in_features=2, out_features=3)
    with pytest.raises(InputError, match="at least one layer"):
        Model(name="m", source="s", layers=())
    with pytest.raises(InputError, match="unique, got twice"):
        Model(name="m", source="s", layers=(layer, layer))
    with pytest.raises(InputError, match="other_parameters"):
        Model(name="m", source="s", layers=(layer,), other_parameters=-1)
    with pytest.raises(InputError, match="did you mean fc6"):
        Model(name="m", source="s", layers=(layer,)).layer("fc")
