"""Are the tables of layers those of the published networks?

Totals are held against figures published elsewhere (parameter counts of the authors' and the usual
reference implementations, MACs as torchvision and the papers give them), and shapes against the
layers that the authors of Bit Fusion and ANT simulated.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from paths import PUBLISHED

from sparqsim.base import InputError
from sparqsim.scripts.models import command
from sparqsim.workloads.layers import Conv2d, Linear, MatMul, Model
from sparqsim.workloads.models import get_layer, get_model, model_names, model_options
from sparqsim.workloads.models.digits import load_digits

PARAMETERS = {  # published with the reference weights of each
    "alexnet": 60_965_224,
    "vgg16": 138_357_544,
    "resnet18": 11_689_512,
    "resnet50": 25_557_032,
    "mobilenet_v2": 3_504_872,
    "deit_tiny": 5_717_416,
    "deit_small": 22_050_664,
    "deit_base": 86_567_656,
    "vit_base": 86_567_656,
    "bert_base": 109_482_240,
    "bert_large": 335_141_888,
    "gpt2_xl": 1_557_611_200,
    "opt_6_7b": 6_658_473_984,
    "llama_7b": 6_738_415_616,
    "efficientnet-lite0": 4_652_008,
    "squeezenet": 1_248_424,
}
GIGA_MACS = {  # published: torchvision (its "GFLOPS" are MACs); AlexNet with groups: Caffe
    "alexnet": 0.724,
    "vgg16": 15.470,
    "resnet18": 1.814,
    "resnet50": 4.089,
    "mobilenet_v2": 0.301,
    "vit_base": 17.564,
}


@pytest.mark.parametrize("name, count", PARAMETERS.items())
def test_parameters_are_the_published_ones(name: str, count: int) -> None:
    """Weights, biases and the stated other parameters add up to the published count, exactly."""
    assert get_model(name).parameters == count


@pytest.mark.parametrize("name, giga", GIGA_MACS.items())
def test_macs_are_the_published_ones(name: str, giga: float) -> None:
    """MACs of one image agree with the published figure to its last digit."""
    assert round(get_model(name).macs / 1e9, 3) == giga


def test_known_parts() -> None:
    """The BERT-base encoder has 85,054,464 parameters; VGG-16's convolutions 14,714,688."""
    bert = get_model("bert_base")
    norms = 12 * 2 * 2 * 768
    encoder = sum(x.parameters * x.repeat for x in bert.layers if x.repeat > 1) + norms
    assert encoder == 85_054_464
    # all-MiniLM-L6-v2 is published with a pooler (384 x 384 and a bias) that it does not use.
    assert get_model("minilm").parameters == 22_713_216 - 384 * 385
    trunk = get_model("vgg16-trunk")  # VGG-16's convolutions but the last, two a batch norm more
    assert trunk.parameters - trunk.other_parameters == 14_714_688 - 512 * (9 * 512 + 1)
    vgg = get_model("vgg16")
    assert sum(x.parameters for x in vgg.layers if isinstance(x, Conv2d)) == 14_714_688


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "mobilenet_v2", "vgg16", "alexnet"])
def test_shapes_chain(name: str) -> None:
    """A convolution reads what an earlier one wrote: its channels, its size or a pooled one."""
    written = {(3, 227), (3, 224)}
    for layer in get_model(name).layers:
        if isinstance(layer, Conv2d):
            # a 2 x 2 or 3 x 3 maximum over every second pixel may lie between
            sources = [size for channels, size in written if channels == layer.in_channels]
            pooled = [after for size in sources for after in (size // 2, (size - 3) // 2 + 1)]
            assert layer.input[0] in sources + pooled, layer.name
            written.add((layer.out_channels, layer.output[0]))


def reference(name: str) -> list[dict[str, str]]:
    lines = (PUBLISHED / name).read_text().splitlines()
    return list(csv.DictReader(line for line in lines if not line.startswith("#")))


@pytest.mark.parametrize(
    "network, ours",
    [
        ("AlexNet", "alexnet"),
        ("SVHN", "svhn"),
        ("CIFAR10", "cifar10"),
        ("LeNet-5", "lenet5"),
        ("VGG-7", "vgg7"),
        ("RESNET-18", "resnet18"),
        ("RNN", "rnn"),
        ("LSTM", "lstm"),
    ],
)
def test_bit_fusion_networks(network: str, ours: str) -> None:
    """Every layer has the MACs, output and bits that Bit Fusion's authors simulated, batch 16."""
    rows = [row for row in reference("bitfusion_layers.csv") if row["network"] == network]
    layers = get_model(f"bitfusion/{ours}").layers
    assert len(rows) == len(layers)
    for row, layer in zip(rows, layers, strict=True):
        bits = (layer.activation_bits, layer.weight_bits)
        assert (layer.macs, *bits) == (int(row["macs"]), int(row["abits"]), int(row["wbits"]))
        size = layer.output[0] if isinstance(layer, Conv2d) else 1
        assert size == int(row["O"])


@pytest.mark.parametrize(
    "design, network, ours",
    [
        ("ANT-OS", "vgg16", "vgg16"),
        ("ANT-OS", "resnet18", "resnet18"),
        ("ANT-OS", "mnli", "bert_mnli"),
        ("BitFusion", "resnet18", "resnet18_on_bitfusion"),
    ],
)
def test_ant_networks(design: str, network: str, ours: str) -> None:
    """Every layer has the MACs and bits that ANT's authors simulated, in their order."""
    rows = [
        row
        for row in reference("ant_layers.csv")
        if (row["design"], row["network"]) == (design, network)
    ]
    layers = get_model(f"ant/{ours}").layers
    assert [layer.macs for layer in layers] == [int(row["macs_true"]) for row in rows]
    assert [layer.weight_bits for layer in layers] == [int(row["bits"]) for row in rows]


# EIE, ISCA 2016, Table III: layer, input, output, weight %, activation %
TABLE_III = """
Alex-6 9216 4096 9 35.1
Alex-7 4096 4096 9 35.3
Alex-8 4096 1000 25 37.5
VGG-6 25088 4096 4 18.3
VGG-7 4096 4096 4 37.5
VGG-8 4096 1000 23 41.1
NT-We 4096 600 10 100
NT-Wd 600 8791 11 100
NT-LSTM 1201 2400 10 100
"""


def test_eie_layers() -> None:
    """The nine layers of Table III are there in their order, and are those of the networks."""
    rows = [line.split() for line in TABLE_III.split("\n") if line]
    layers = get_model("eie").layers
    assert [layer.name for layer in layers] == [row[0].lower() for row in rows]
    for (_, *numbers), layer in zip(rows, layers, strict=True):
        assert isinstance(layer, Linear)
        assert layer.weight_density and layer.activation_density
        got = [layer.in_features, layer.out_features]
        assert got == [int(numbers[0]), int(numbers[1])]
        assert layer.weight_density * 100 == pytest.approx(float(numbers[2]))
        assert layer.activation_density * 100 == pytest.approx(float(numbers[3]))
    alias, own = get_layer("eie/alex-6"), get_layer("alexnet/fc6")
    assert alias.gemm() == own.gemm() and alias.weight_density == own.weight_density


@pytest.mark.parametrize("network", ["mlp", "cnn"])
def test_digits_have_their_own_densities(network: str) -> None:
    """The shipped classifiers are listed with the densities of their pruned weights."""
    digits = load_digits(network)
    model = get_model(f"digits-{network}", batch=3)
    for layer in model.layers:
        weights = digits.weights[layer.name]
        assert layer.weight_shape == weights.shape
        assert layer.weight_density is not None
        assert round(layer.weight_density * weights.size) == np.count_nonzero(weights)
    assert model.layers[-1].output_elements == 30


def test_attention_is_counted() -> None:
    """Scores and context are 2 L^2 d MACs a block, whatever the number of heads."""
    for length in (16, 128):
        model = get_model("bert_base", sequence_length=length, batch=3)
        products = sum(x.macs * x.repeat for x in model.layers if isinstance(x, MatMul))
        assert products == 12 * 3 * 2 * length**2 * 768


@pytest.mark.parametrize("name", ["gpt2_xl", "opt_6_7b", "llama_7b"])
def test_prefill_is_many_decodings(name: str) -> None:
    """Prefill of L tokens does L times a decoding's linear work at full length, but one lm_head."""
    length = 64
    prefill = get_model(name, sequence_length=length)
    decode = get_model(name, sequence_length=length, decode=True)
    for whole, single in zip(prefill.layers, decode.layers, strict=True):
        assert whole.macs == single.macs * (1 if whole.name == "lm_head" else length)
    assert prefill.parameters == decode.parameters


@pytest.mark.parametrize("name", model_names())
def test_batch_scales_work_alone(name: str) -> None:
    """Twice the batch: twice the MACs, the same weights."""
    batch = model_options(name)["batch"]
    once, twice = get_model(name), get_model(name, batch=2 * batch)
    assert twice.macs == 2 * once.macs
    assert twice.parameters == once.parameters
    assert once.name == name and once.source


@pytest.mark.parametrize(
    "name, options, says",
    [
        ("alexnett", {}, "did you mean alexnet"),
        ("", {}, "there is alexnet, vgg16"),
        ("bert_base", {"sequence_len": 3}, "did you mean sequence_length"),
        ("bert_base", {"batch": 0}, "batch must be a whole number of at least 1, got 0"),
        ("bert_base", {"batch": 1.0}, "batch must be a whole number"),
        ("llama_7b", {"decode": 1}, "decode must be true or false, got 1"),
        ("llama_7b", {"batch": True}, "batch must be a whole number"),
    ],
)
def test_unknown_models_and_options(name: str, options: dict[str, object], says: str) -> None:
    """A wrong name or option is answered with what there is."""
    with pytest.raises(InputError) as error:
        get_model(name, **options)
    assert says in str(error.value)


@pytest.mark.parametrize(
    "path, says",
    [
        ("alexnet", "named model/layer"),
        ("bitfusion/alexnet", "named model/layer"),
        ("alexnet/fc9", "did you mean fc"),
        ("nothing/fc6", "there is no model 'nothing'"),
    ],
)
def test_unknown_layers(path: str, says: str) -> None:
    """A wrong layer is answered with the near ones."""
    with pytest.raises(InputError) as error:
        get_layer(path)
    assert says in str(error.value)


@pytest.mark.parametrize("light, ours", [("resnet50", "resnet50"), ("bvlc_alexnet", "alexnet")])
def test_other_work_is_that_of_the_network_as_a_file(light: str, ours: str) -> None:
    """Activations, additions, pooling, normalisation: as often and as large as in ONNX's own file.

    The file's softmax of class scores and its AlexNet's pooling of 54 x 54 maps (its image is
    224 x 224, ours 227 x 227) are apart.
    """
    onnx = pytest.importorskip("onnx")
    from sparqsim.workloads.importers.onnx import import_onnx

    folder = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
    file = import_onnx(folder / f"light_{light}.onnx").model
    table = get_model(ours)

    def found(model: Model) -> dict[str, list[int]]:
        kinds: dict[str, list[int]] = {}
        for work in model.other:
            if work.operation != "Softmax":
                operation = work.operation.removeprefix("Global").replace("Sum", "Add")
                kinds.setdefault(operation, []).append(work.elements)
        return kinds

    theirs, own = found(file), found(table)
    assert {key: len(value) for key, value in own.items()} == {
        key: len(value) for key, value in theirs.items()
    }
    if ours == "resnet50":
        assert {key: sorted(each) for key, each in own.items()} == {
            key: sorted(each) for key, each in theirs.items()
        }


@pytest.mark.parametrize(
    "name, norms", [("bert_base", 25), ("vit_base", 25), ("llama_7b", 65), ("minilm", 13)]
)
def test_other_work_of_transformers(name: str, norms: int) -> None:
    """A softmax a head and query, a norm for each one trained, two additions a block."""
    model = get_model(name)
    counts: dict[str, list[int]] = {}
    for work in model.other:
        each = counts.setdefault(work.operation, [0, 0])
        each[0] += work.repeat
        each[1] += work.repeat * work.elements
    scores = [x for x in model.layers if x.name.endswith("scores")]
    assert counts["Softmax"][1] == sum(x.repeat * x.output_elements for x in scores)
    norm = "RMSNormalization" if name == "llama_7b" else "LayerNormalization"
    assert counts[norm][0] == norms and counts["Add"][0] == norms - 1


def run(*arguments: str) -> str:
    result = CliRunner().invoke(command, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    return result.output


def test_command_lists_models_and_layers(tmp_path: Path) -> None:
    """The command shows every model, the layers of one, and the same as JSON."""
    listed = run()
    first_words = [line.split()[0] for line in listed.splitlines() if line]
    assert all(name in first_words for name in model_names())
    for name in model_names():
        assert max(map(len, run(name).splitlines())) <= 100
    shown = run("bert_base", "--sequence", "64")
    assert "blocks.scores" in shown and "109,482,240 parameters" in shown
    summary = json.loads(run("--json", "-"))
    assert {row["name"]: row["parameters"] for row in summary}["vgg16"] == 138_357_544
    run("alexnet", "--json", str(tmp_path / "a.json"))
    model = json.loads((tmp_path / "a.json").read_text())
    assert sum(layer["macs"] for layer in model["layers"]) == model["macs"]


@pytest.mark.parametrize(
    "arguments, says",
    [
        (("alexnett",), "did you mean alexnet"),
        (("alexnet", "--sequence", "8"), "sequence changes nothing for alexnet"),
        (("alexnet", "--shape", "x"), "a shape is INPUT=SIZES"),
        (("alexnet", "--shape", "x=2x"), "a shape is INPUT=SIZES"),
        (("--batch", "2"), "batch needs WORK"),
        (("llama_7b", "--context", "8", "--sequence", "8"), "decoding computes one token"),
        (("missing.onnx",), "cannot read missing.onnx"),
        (("alexnet", "--json", "/dev/null/x.json"), "cannot write"),
    ],
)
def test_command_refuses(arguments: tuple[str, ...], says: str) -> None:
    """Bad input to the command is answered by an error message."""
    with pytest.raises(InputError) as error:
        CliRunner().invoke(command, arguments, catch_exceptions=False)
    assert says in str(error.value)
