"""Is a network imported from a torch module the module that was given?

The oracle is torch: each imported layer, with what is folded into it, is run by torch's own
functions and must give what the module gives. Parameter counts must add up to the module's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from sparqsim.base import InputError
from sparqsim.workloads.importers import Imported
from sparqsim.workloads.layers import Conv2d, Linear, MatMul

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from sparqsim.workloads.importers.torch import import_torch  # noqa: E402


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def parameters(module: Any) -> int:
    return sum(p.numel() for p in module.parameters())


def unsettle(module: Any) -> Any:
    """Give batch norms statistics as training would leave them."""
    for part in module.modules():
        if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.normal_(part.running_mean)
            for tensor in filter(lambda t: t is not None, (part.weight, part.bias)):
                nn.init.normal_(tensor)
            nn.init.uniform_(part.running_var, 0.5, 2.0)
    return module.eval()


def run(imported: Imported, name: str, x: Any) -> Any:
    """Compute an imported layer by torch's functions."""
    layer = imported.model.layer(name)
    weights = torch.from_numpy(imported.weights(name))
    bias = imported.bias(name)
    offset = None if bias is None else torch.from_numpy(bias)
    if isinstance(layer, Linear):
        return F.linear(x, weights, offset)
    assert isinstance(layer, Conv2d)
    top, left, bottom, right = layer.padding
    x = F.pad(x.reshape(layer.batch, layer.in_channels, *layer.input), (left, right, top, bottom))
    return F.conv2d(x, weights, offset, layer.stride, 0, layer.dilation, layer.groups)


def test_batch_norm_is_folded() -> None:
    """Convolution, depthwise and linear layer with their norms: numbers equal torch's."""
    net = unsettle(
        nn.Sequential(
            nn.Conv2d(3, 8, (3, 2), padding=(1, 0), stride=(2, 1), bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 8, 3, groups=8, dilation=2),
            nn.BatchNorm2d(8, affine=False),
            nn.Flatten(),
            nn.Linear(8 * 2 * 7, 5),
            nn.BatchNorm1d(5),
        )
    )
    x = torch.randn(4, 3, 11, 12)
    imported = import_torch(net, x)
    assert [layer.name for layer in imported.model.layers] == ["0", "3", "6"]
    assert imported.model.other_parameters == 0
    with torch.no_grad():
        for name, first, norm in (("0", 0, 1), ("3", 3, 4), ("6", 6, 7)):
            before, behind = net[:first](x), net[: norm + 1](x)
            torch.testing.assert_close(run(imported, name, before), behind, rtol=1e-4, atol=1e-5)


def test_one_dimensional_convolution() -> None:
    """A 1-D convolution is a 2-D one of height one."""
    net = nn.Conv1d(4, 6, 5, stride=2, padding=2, groups=2)
    x = torch.randn(3, 4, 21)
    imported = import_torch(net, x)
    (layer,) = imported.model.layers
    with torch.no_grad():
        torch.testing.assert_close(run(imported, layer.name, x)[:, :, 0], net(x))


class Residual(nn.Module):
    """The convolution's output is read twice, so its norm must not be folded."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 1)
        self.norm = nn.BatchNorm2d(2)

    def forward(self, x: Any) -> Any:
        y = self.conv(x)
        return y + self.norm(y)


def test_a_value_read_twice_is_not_folded() -> None:
    """What else reads a layer's output must get that output."""
    net = unsettle(Residual())
    imported = import_torch(net, torch.randn(1, 2, 3, 3))
    assert np.array_equal(imported.weights("conv"), net.conv.weight.detach().numpy())
    assert imported.model.other_parameters == 4
    assert imported.left_out == {"batch_norm": 1, "add": 1}


@pytest.mark.parametrize("heads", [1, 4])
def test_transformer_block(heads: int) -> None:
    """Torch's own encoder layer: six layers, attention a head each, every parameter accounted."""
    net = nn.TransformerEncoderLayer(16, heads, 32, batch_first=True)
    imported = import_torch(net, torch.randn(2, 5, 16))
    layers = {layer.name: layer for layer in imported.model.layers}
    assert layers["self_attn.in_proj"].gemm() == (10, 48, 16, 1)
    assert layers["self_attn.scores"].gemm() == (5, 5, 16 // heads, 2 * heads)
    assert layers["self_attn.context"].gemm() == (5, 16 // heads, 5, 2 * heads)
    assert imported.model.parameters == parameters(net)
    assert imported.model.other_parameters == 2 * 2 * 16  # two layer norms
    bias = imported.bias("self_attn.in_proj")
    assert bias is not None
    assert np.array_equal(bias, net.self_attn.in_proj_bias.detach().numpy())


class Written(nn.Module):
    """Attention written out with matmul and einsum."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(8, 24, bias=False)

    def forward(self, x: Any) -> Any:
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        p = torch.softmax(q @ k.transpose(1, 2), dim=-1)
        return torch.einsum("bij,bjd->bid", p, v)


def test_attention_written_out() -> None:
    """Products of two activations are found whichever way they are written."""
    imported = import_torch(Written(), torch.randn(3, 5, 8))
    products = [layer for layer in imported.model.layers if isinstance(layer, MatMul)]
    assert [layer.gemm() for layer in products] == [(5, 5, 8, 3), (5, 8, 5, 3)]


@pytest.mark.parametrize("fused", [False, True])
def test_heads_that_are_repeated_count_once(fused: bool) -> None:
    """Grouped-query attention: 2 heads of keys and values serve 8 query heads, read once each."""

    class Grouped(torch.nn.Module):
        def forward(self, q: Any, k: Any, v: Any) -> Any:
            def each(x: Any) -> Any:
                return x[:, :, None].expand(3, 2, 4, 12, 16).reshape(3, 8, 12, 16)

            if fused:
                return torch.nn.functional.scaled_dot_product_attention(q, each(k), each(v))
            scores = q @ each(k).transpose(2, 3) / 4
            return scores.softmax(-1) @ each(v)

    shapes = (3, 8, 5, 16), (3, 2, 12, 16), (3, 2, 12, 16)
    scores, context = import_torch(Grouped(), *(torch.randn(s) for s in shapes)).model.layers
    assert scores.macs == context.macs == 3 * 8 * 5 * 12 * 16
    assert scores.input_elements == 3 * (8 * 5 * 16 + 2 * 12 * 16)
    assert context.input_elements == 3 * (8 * 5 * 12 + 2 * 12 * 16)


def test_recurrent_layers_add_rows() -> None:
    """An LSTM's matrices are used at every step: rows add up, weights are counted once."""
    net = nn.LSTM(6, 7)
    imported = import_torch(net, torch.randn(5, 2, 6))
    layers = {layer.name: layer for layer in imported.model.layers}
    assert layers["weight_ih_l0"].gemm() == (10, 28, 6, 1)
    assert layers["weight_hh_l0"].gemm() == (10, 28, 7, 1)
    assert imported.model.parameters == parameters(net)


def test_shared_and_derived_weights() -> None:
    """Tied weights are one layer; weights computed from parameters are constants as well."""
    shared = nn.Linear(4, 4)
    imported = import_torch(nn.Sequential(shared, nn.ReLU(), shared), torch.randn(3, 4))
    (layer,) = imported.model.layers
    assert isinstance(layer, Linear) and layer.rows == 6
    net = nn.utils.parametrizations.weight_norm(nn.Linear(4, 3))
    x = torch.randn(2, 4)
    (layer,) = (imported := import_torch(net, x)).model.layers
    with torch.no_grad():
        torch.testing.assert_close(run(imported, layer.name, x), net(x))


def test_the_module_is_left_as_it_was() -> None:
    """Training flags and hooks are put back, and imported weights are a copy."""
    net = nn.Sequential(nn.Linear(3, 3), nn.Dropout(), nn.Linear(3, 3))
    net[2].eval()
    imported = import_torch(net, torch.randn(1, 3))
    assert [part.training for part in net] == [True, True, False]
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in net.modules())
    before = imported.weights("0").copy()
    with torch.no_grad():
        net[0].weight.zero_()
    assert np.array_equal(imported.weights("0"), before)


class Raises(nn.Module):
    def forward(self, x: Any) -> Any:
        raise KeyError("missing")


class Grouped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.experts = nn.Parameter(torch.ones(2, 3, 4))

    def forward(self, x: Any) -> Any:
        return torch.bmm(x, self.experts)


@pytest.mark.parametrize(
    "make, example, says",
    [
        (lambda: nn.ConvTranspose2d(3, 3, 3), (1, 3, 4, 4), "transposed is not supported"),
        (lambda: nn.Sequential(nn.Conv3d(1, 1, 2)), (1, 1, 3, 3, 3), "in '0': a convolution that"),
        (lambda: nn.Conv2d(3, 3, 3), (1, 4, 4, 4), "fails on the example"),
        (lambda: nn.Sequential(Raises()), (1,), "fails on the example in '0': 'missing'"),
        (Grouped, (2, 5, 3), "batch of constant matrices"),
        (nn.ReLU, (1,), "found none"),
        (lambda: nn.Linear(2, 2, device="meta"), (1, 2), "no values"),
        (lambda: F.relu, (1,), "must be a torch.nn.Module"),
    ],
)
def test_refused(make: Callable[[], Any], example: tuple[int, ...], says: str) -> None:
    """What cannot be imported is named, with the submodule; nothing of the module changes."""
    with pytest.raises(InputError) as error:
        import_torch(make(), torch.randn(example))
    assert says in str(error.value)


def test_nan_weights_are_named() -> None:
    """A NaN weight is found when the weights are asked for."""
    net = nn.Linear(2, 2)
    with torch.no_grad():
        net.weight[1, 0] = float("nan")
    imported = import_torch(net, torch.randn(1, 2))
    with pytest.raises(InputError, match=r"must be finite, got nan at \[1, 0\]"):
        imported.weights(imported.model.layers[0].name)


class Does(nn.Module):
    """Does what it is told with a parameter."""

    def __init__(self, what: Any, *shape: int, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.what, self.w = what, nn.Parameter(torch.ones(shape, dtype=dtype))

    def forward(self, *inputs: Any) -> Any:
        return self.what(self.w, *inputs)


def test_products_under_any_name() -> None:
    """Products summed over a batch and a dot product are layers; a turned weight is one tensor."""
    made = import_torch(
        Does(lambda w, a, b: torch.addbmm(w, a, b), 3, 5), torch.ones(2, 3, 4), torch.ones(2, 4, 5)
    )
    assert made.model.macs == 2 * 3 * 4 * 5
    assert import_torch(Does(torch.dot, 7), torch.ones(7)).model.macs == 7
    tied = Does(lambda w, x: F.linear(F.linear(x, w), w.t()), 6, 4)
    model = import_torch(tied, torch.ones(3, 4)).model
    assert (model.macs, model.parameters, model.layers[1].weights_of) == (2 * 3 * 24, 24, "w")


@pytest.mark.parametrize(
    "module, inputs, says",
    [
        (nn.Bilinear(3, 4, 5), (torch.ones(2, 3), torch.ones(2, 4)), "_trilinear is not supported"),
        (Does(lambda w, x: torch.cdist(x, w, p=1), 4, 3), (torch.ones(4, 3),), "_cdist_forward"),
        (Does(lambda w, x: x @ w, 4, 5, dtype=torch.cfloat),
         (torch.ones(2, 4, dtype=torch.cfloat),), "w holds complex numbers"),
    ],
)  # fmt: skip
def test_what_multiplies_and_is_no_layer(module: Any, inputs: Any, says: str) -> None:
    """It is refused by name, not left out in silence."""
    with pytest.raises(InputError, match=says):
        import_torch(module, *inputs)
