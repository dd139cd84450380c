"""Does a file that torch.onnx.export makes with its defaults load, run and compress?

The exporter of today (dynamo) writes the weights into a file beside the model. The oracle is torch
itself: outputs of the module, its own weights, its count of MACs.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sparqsim.workloads import compress, recipes
from sparqsim.workloads.layers import MatMul
from sparqsim.workloads.work import load

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
from torch import nn  # noqa: E402

from sparqsim.workloads.importers import onnx_run  # noqa: E402
from sparqsim.workloads.importers.onnx import import_onnx  # noqa: E402
from sparqsim.workloads.importers.torch import import_torch  # noqa: E402


class Cnn(nn.Module):
    """Batch norm, ReLU, a residual, pooling, a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, stride=(2, 1), padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1, groups=2)
        self.bn2 = nn.BatchNorm2d(8)
        self.fc = nn.Linear(8, 10)
        for norm in (self.bn1, self.bn2):
            nn.init.normal_(norm.running_mean)
            nn.init.uniform_(norm.running_var, 0.5, 2)

    def forward(self, x: Any) -> Any:
        x = torch.relu(self.bn1(self.conv1(x)))
        x = torch.relu(x + self.bn2(self.conv2(x)))
        return self.fc(nn.functional.max_pool2d(x, 2).mean((2, 3)))


class Block(nn.Module):
    """A transformer block: nn.MultiheadAttention and a feed-forward part."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(16, 4, batch_first=True)
        self.before, self.after = nn.LayerNorm(16), nn.LayerNorm(16)
        self.up, self.down = nn.Linear(16, 64), nn.Linear(64, 16)

    def forward(self, x: Any) -> Any:
        h = self.before(x)
        x = x + self.attention(h, h, h, need_weights=False)[0]
        return x + self.down(nn.functional.gelu(self.up(self.after(x))))


class Causal(nn.Module):
    """scaled_dot_product_attention with a causal mask; query, key and value from one matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(16, 48), nn.Linear(16, 16, bias=False)

    def forward(self, x: Any) -> Any:
        batch, tokens, width = x.shape
        q, k, v = self.qkv(x).view(batch, tokens, 3, 4, 4).permute(2, 0, 3, 1, 4)
        y = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.out(y.transpose(1, 2).reshape(batch, tokens, width))


MODELS = {
    "cnn": (Cnn, (2, 3, 8, 8), ["conv1", "conv2", "fc"]),
    "mlp": (
        lambda: nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4)),
        (5, 16),
        ["0", "2"],
    ),
    "block": (Block, (2, 7, 16), ["attention.in_proj", "attention.out_proj", "up", "down"]),
    "causal": (Causal, (2, 7, 16), ["qkv", "out"]),
}


@pytest.fixture(scope="module", params=MODELS)
def exported(request: Any, tmp_path_factory: Any) -> tuple[Any, Any, Path, list[str]]:
    """(module, example, file, names of its layers with weights), exported with the defaults."""
    make, shape, names = MODELS[request.param]
    torch.manual_seed(0)
    module, example = make().eval(), torch.randn(shape)
    path = tmp_path_factory.mktemp(request.param) / f"{request.param}.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(module, (example,), str(path), verbose=False)
    return module, example, path, names


def test_it_computes_what_torch_computes(exported: Any) -> None:
    """The module's output, from its own weights read beside the file."""
    module, example, path, _ = exported
    assert path.with_name(f"{path.name}.data").exists(), "torch writes the weights beside it"
    made = onnx_run.Runner(import_onnx(path)).run({"x": example.numpy(), "input": example.numpy()})
    with torch.no_grad():
        wanted = module(example).numpy()
    np.testing.assert_allclose(next(iter(made.values())), wanted, rtol=1e-4, atol=1e-5)


def test_layers_have_their_names_macs_and_parameters(exported: Any) -> None:
    """Layers are called after torch's parameters; MACs are those of the module as it runs."""
    module, example, path, names = exported
    model = import_onnx(path).model
    layers = [each for each in model.layers if not isinstance(each, MatMul)]
    assert [layer.name for layer in layers] == names
    assert model.macs == import_torch(module, example).model.macs
    weights = sum(p.numel() for name, p in module.named_parameters() if p.dim() > 1)
    assert model.weights == weights


def test_it_is_compressed_and_judged(exported: Any, tmp_path: Path) -> None:
    """compress with --calibration: eight bits keep the outputs, four lose more."""
    _, example, path, names = exported
    x = np.random.default_rng(1).standard_normal((6 * len(example), *example.shape[1:]))
    np.savez(tmp_path / "x.npz", x.astype(np.float32))
    network = load(str(path), calibration=tmp_path / "x.npz")
    assert network.subject is not None
    ratio = {}
    for name in ("int8", "w4a8"):
        _, report, _ = compress.compress(network.subject, recipes.get(name))
        assert [row.name for row in report.tensors] == names
        ratio[name] = report.compressed["SQNR of outputs, dB"]
    assert ratio["int8"] > 25 and ratio["int8"] > ratio["w4a8"] + 6


def test_one_layer_is_named(exported: Any) -> None:
    """FILE.onnx/LAYER is that layer, with the weights of the module."""
    module, _, path, names = exported
    network = load(f"{path}/{names[-1]}")
    assert [layer.name for layer in network.layers] == [names[-1]]
    own = dict(module.named_parameters())[f"{names[-1]}.weight"].detach().numpy()
    assert network.weights is not None
    np.testing.assert_array_equal(network.weights[names[-1]], own)


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"dynamo": False}, {"optimize": False}])
@pytest.mark.parametrize("name", MODELS)
def test_other_ways_of_exporting(name: str, options: dict[str, bool], tmp_path: Path) -> None:
    """The older exporter, and the new one's graph before it is simplified, are the same network."""
    make, shape, _ = MODELS[name]
    torch.manual_seed(0)
    module, example, path = make().eval(), torch.randn(shape), tmp_path / "net.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(module, (example,), str(path), verbose=False, **options)
    imported = import_onnx(path)
    assert imported.model.macs == import_torch(module, example).model.macs
    feeds = {key: example.numpy() for key in imported.graph.file.inputs}
    (made,) = onnx_run.Runner(imported).run(feeds).values()
    with torch.no_grad():
        np.testing.assert_allclose(made, module(example).numpy(), rtol=1e-4, atol=1e-5)


def test_attention_as_one_operation_counts_the_same(tmp_path: Path) -> None:
    """Opset 23 writes attention as one operation: the same products as in opset 20."""
    macs = set()
    for opset in (20, 23):
        path = tmp_path / f"net{opset}.onnx"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                Causal().eval(), (torch.randn(2, 7, 16),), str(path), verbose=False,
                opset_version=opset,
            )  # fmt: skip
        imported = import_onnx(path)
        macs.add(imported.model.macs)
        assert bool(imported.graph.inside) == (opset == 23)
    assert len(macs) == 1


def test_a_dynamic_batch_is_bound(tmp_path: Path) -> None:
    """A size that torch left open follows --batch, through every shape that depends on it."""
    torch.manual_seed(0)
    path = tmp_path / "open.onnx"
    batch = torch.export.Dim("batch", min=1, max=64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            Causal().eval(), (torch.randn(2, 7, 16),), str(path), verbose=False,
            dynamic_shapes={"x": {0: batch}},
        )  # fmt: skip
    once, thrice = (load(str(path), batch=count).model for count in (1, 3))
    assert thrice.macs == 3 * once.macs and once.weights == thrice.weights
