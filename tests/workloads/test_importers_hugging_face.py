"""Is a folder of Hugging Face the network that its configuration describes?

Parameters are held against the published counts; checkpoints are written here, quantized ones by
packing bit by bit, and read back.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from sparqsim.architectures.network import run_layer, run_network
from sparqsim.architectures.registry import get_machine
from sparqsim.base import InputError
from sparqsim.workloads import recipes
from sparqsim.workloads.compress import compress
from sparqsim.workloads.importers.checkpoint import unpacked
from sparqsim.workloads.importers.hugging_face import import_folder
from sparqsim.workloads.models import get_model
from sparqsim.workloads.quantize import QuantizedTensor
from sparqsim.workloads.work import load, subject_for

LLAMA = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 4096,
    "intermediate_size": 11008, "num_attention_heads": 32, "num_hidden_layers": 32,
    "vocab_size": 32000, "max_position_embeddings": 2048, "hidden_act": "silu",
}  # fmt: skip
PUBLISHED: dict[str, tuple[dict[str, Any], int]] = {  # parameters as the model cards' files have
    "llama-7b": (LLAMA, 6_738_415_616),
    "mistral-7b-v0.1": (
        LLAMA | {"model_type": "mistral", "architectures": ["MistralForCausalLM"],
                 "intermediate_size": 14336, "num_key_value_heads": 8},
        7_241_732_096,
    ),
    "qwen2-0.5b": (
        LLAMA | {"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], "hidden_size": 896,
                 "intermediate_size": 4864, "num_attention_heads": 14, "num_key_value_heads": 2,
                 "num_hidden_layers": 24, "vocab_size": 151936, "tie_word_embeddings": True},
        494_032_768,
    ),
    "qwen3-0.6b": (
        LLAMA | {"model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"], "hidden_size": 1024,
                 "intermediate_size": 3072, "num_attention_heads": 16, "num_key_value_heads": 8,
                 "num_hidden_layers": 28, "vocab_size": 151936, "tie_word_embeddings": True,
                 "head_dim": 128},
        596_049_920,
    ),
    "gpt2": (
        {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "n_embd": 768, "n_head": 12,
         "n_layer": 12, "n_positions": 1024, "vocab_size": 50257},
        124_439_808,
    ),
    "bert-base-uncased": (
        {"model_type": "bert", "architectures": ["BertModel"], "hidden_size": 768,
         "intermediate_size": 3072, "num_attention_heads": 12, "num_hidden_layers": 12,
         "max_position_embeddings": 512, "type_vocab_size": 2, "vocab_size": 30522},
        109_482_240,
    ),
    "vit-base-patch16-224": (
        {"model_type": "vit", "architectures": ["ViTForImageClassification"], "hidden_size": 768,
         "intermediate_size": 3072, "num_attention_heads": 12, "num_hidden_layers": 12,
         "id2label": {str(label): "" for label in range(1000)}},
        86_567_656,
    ),
}  # fmt: skip


def folder_of(folder: Path, config: dict[str, Any]) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_parameters(tmp_path: Path, name: str) -> None:
    """Every parameter of the published network is in the count, once."""
    config, parameters = PUBLISHED[name]
    assert import_folder(folder_of(tmp_path / name, config)).model.parameters == parameters


@pytest.mark.parametrize(
    "name, ours, options",
    [
        ("llama-7b", "llama_7b", {"sequence": 64}),
        ("llama-7b", "llama_7b", {"context": 100}),
        ("bert-base-uncased", "bert_base", {"sequence": 48}),
        ("vit-base-patch16-224", "vit_base", {}),
    ],
)
def test_macs_are_those_of_our_tables(
    tmp_path: Path, name: str, ours: str, options: dict[str, int]
) -> None:
    """A folder and the table of the same published network count the same work."""
    given = load(str(folder_of(tmp_path / name, PUBLISHED[name][0])), batch=2, **options)  # type: ignore[arg-type]
    length = dict.fromkeys(["sequence_length"] * len(options), sum(options.values()))
    table = get_model(ours, batch=2, **length, **({"decode": True} if "context" in options else {}))
    assert given.model.macs == table.macs
    ours_beside = [(work.kind, work.elements * work.repeat) for work in table.other]
    total = {kind: sum(n for k, n in ours_beside if k == kind) for kind, _ in ours_beside}
    assert sum(w.elements for w in given.model.other if w.kind == "softmax") == total["softmax"]


TINY = LLAMA | {
    "hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4,
    "num_key_value_heads": 2, "num_hidden_layers": 2, "vocab_size": 40,
}  # fmt: skip
SHAPES = {
    "self_attn.q_proj": (32, 32), "self_attn.k_proj": (16, 32), "self_attn.v_proj": (16, 32),
    "self_attn.o_proj": (32, 32), "mlp.gate_proj": (48, 32), "mlp.up_proj": (48, 32),
    "mlp.down_proj": (32, 48),
}  # fmt: skip
Pack = dict[str, NDArray[Any]]


def packed(codes: NDArray[np.integer], order: list[int]) -> NDArray[np.int32]:
    """Codes of 4 bits along the last axis, 8 a word: place ``i`` holds code ``order[i]``."""
    words = np.zeros((*codes.shape[:-1], codes.shape[-1] // 8), np.uint32)
    for index in np.ndindex(words.shape):
        for place, which in enumerate(order):
            code = int(codes[(*index[:-1], 8 * index[-1] + which)])
            words[index] |= np.uint32(code << 4 * place)
    return words.view(np.int32)


def gptq(rng: np.random.Generator, shape: tuple[int, int]) -> tuple[Pack, NDArray[Any]]:
    out, inputs = shape
    codes, zeros = rng.integers(0, 16, shape), rng.integers(1, 16, (out, inputs // 16))
    scales = rng.uniform(0.01, 0.02, (out, inputs // 16)).astype(np.float16)
    order = list(range(8))
    tensors = {
        "qweight": np.ascontiguousarray(packed(codes, order).T),  # along the inputs
        "qzeros": packed((zeros - 1).T, order),
        "scales": np.ascontiguousarray(scales.T),
        "g_idx": np.arange(inputs, dtype=np.int32) // 16,
    }
    wide = [np.repeat(each, 16, axis=1) for each in (scales.astype(np.float32), zeros)]
    return tensors, ((codes - wide[1]) * wide[0]).astype(np.float32)


def awq(rng: np.random.Generator, shape: tuple[int, int]) -> tuple[Pack, NDArray[Any]]:
    out, inputs = shape
    codes, zeros = rng.integers(0, 16, shape), rng.integers(0, 16, (out, inputs // 16))
    scales = rng.uniform(0.01, 0.02, (out, inputs // 16)).astype(np.float16)
    order = [0, 2, 4, 6, 1, 3, 5, 7]
    tensors = {
        "qweight": packed(codes.T, order), "qzeros": packed(zeros.T, order),
        "scales": np.ascontiguousarray(scales.T),
    }  # fmt: skip
    wide = [np.repeat(each, 16, axis=1) for each in (scales.astype(np.float32), zeros)]
    return tensors, ((codes - wide[1]) * wide[0]).astype(np.float32)


def compressed(rng: np.random.Generator, shape: tuple[int, int]) -> tuple[Pack, NDArray[Any]]:
    codes = rng.integers(-127, 128, shape).astype(np.int8)
    scales = rng.uniform(0.01, 0.02, (shape[0], 1)).astype(np.float32)
    tensors = {"weight": codes, "weight_scale": scales, "input_scale": np.float32([0.05])}
    return tensors, codes * scales


def compressed4(rng: np.random.Generator, shape: tuple[int, int]) -> tuple[Pack, NDArray[Any]]:
    codes = rng.integers(-8, 8, shape)
    scales = rng.uniform(0.01, 0.02, (shape[0], shape[1] // 16)).astype(np.float32)
    tensors = {"weight_packed": packed(codes + 8, list(range(8))), "weight_scale": scales}
    return tensors, (codes * np.repeat(scales, 16, axis=1)).astype(np.float32)


def plain(rng: np.random.Generator, shape: tuple[int, int]) -> tuple[Pack, NDArray[Any]]:
    weight = rng.standard_normal(shape).astype(np.float32)
    return {"weight": weight}, weight


QUANTIZED = {
    "gptq": (gptq, {"quant_method": "gptq", "bits": 4, "group_size": 16}),
    "awq": (awq, {"quant_method": "awq", "bits": 4, "group_size": 16, "version": "gemm"}),
    "int8": (compressed, {"quant_method": "compressed-tensors", "config_groups": {
        "group_0": {"weights": {"num_bits": 8}}}}),
    "int4": (compressed4, {"quant_method": "compressed-tensors", "config_groups": {
        "group_0": {"weights": {"num_bits": 4}}}}),
    "float": (plain, None),
}  # fmt: skip


def tiny(folder: Path, kind: str) -> tuple[Path, dict[str, NDArray[Any]]]:
    """A small Llama with a checkpoint, and the weights that it stands for."""
    pack, settings = QUANTIZED[kind]
    config = TINY if settings is None else TINY | {"quantization_config": settings}
    rng, tensors, weights = np.random.default_rng(0), {}, {}
    for block in range(2):
        for name, shape in SHAPES.items():
            held, weights[f"layers.{block}.{name}"] = pack(rng, shape)
            tensors |= {f"model.layers.{block}.{name}.{key}": each for key, each in held.items()}
    weights["lm_head"] = rng.standard_normal((40, 32)).astype(np.float32)
    tensors["lm_head.weight"] = weights["lm_head"]
    save_file(tensors, folder_of(folder / kind, config) / "model.safetensors")
    return folder / kind, weights


@pytest.mark.parametrize("kind", QUANTIZED)
def test_weights_are_those_of_the_checkpoint(tmp_path: Path, kind: str) -> None:
    """What the packed codes stand for, in every layer, and the codes themselves."""
    path, weights = tiny(tmp_path, kind)
    network = load(str(path), sequence=4)
    assert network.weights is not None and set(network.weights) == set(weights)
    for name, expected in weights.items():
        np.testing.assert_allclose(network.weights[name], expected, rtol=1e-6, atol=1e-9)
    held = network.brought.get("layers.1.mlp.up_proj")
    assert (held is None) == (kind == "float")
    if held is not None:
        assert isinstance(held.weight, QuantizedTensor)
        assert held.weight.format.bits == (8 if kind == "int8" else 4)
        assert held.weight.quantizer.slices.group == (None if kind == "int8" else 16)
        np.testing.assert_allclose(
            held.weight.dequantize(), weights["layers.1.mlp.up_proj"], rtol=1e-6, atol=1e-9
        )


def test_a_checkpoint_of_8_bits_runs_as_it_is(tmp_path: Path) -> None:
    """Weights of compressed-tensors with a fixed scale of the inputs: no rounding, bit by bit."""
    path, _ = tiny(tmp_path, "int8")
    report = run_layer(
        get_machine("plain")(), load(f"{path}/layers.0.mlp.down_proj", sequence=4),
        record="summary",
    ).report  # fmt: skip
    assert report.verification.status == "exact"
    assert {each.how for each in report.operands.values()} == {"as it is"}
    whole = run_network(get_machine("plain")(), load(str(path), sequence=4))
    assert len(whole.rows) >= 19


@pytest.mark.parametrize("kind", ["gptq", "awq", "int4"])
def test_groups_of_a_checkpoint_run_as_they_are(tmp_path: Path, kind: str) -> None:
    """4-bit codes with a scale, and a zero point where there is one, for 16 inputs: bit by bit on
    Bit Fusion, at 4 bits."""
    path, _ = tiny(tmp_path, kind)
    work = load(f"{path}/layers.0.mlp.down_proj", sequence=4)
    report = run_layer(get_machine("bitfusion")(), work, record="summary").report
    operand = report.operands["weights"]
    assert (report.verification.status, operand.how, operand.bits) == ("exact", "as it is", 4)
    assert operand.granularity == "group of 16"


def test_act_order_is_an_order_of_inputs(tmp_path: Path) -> None:
    """Groups of GPTQ that are spread over the inputs cost what groups side by side cost, and the
    numbers are those of the checkpoint, its inputs in the order of their groups."""
    path, weights = tiny(tmp_path, "gptq")
    layer = "layers.0.mlp.down_proj"
    plain_run = run_layer(get_machine("bitfusion")(), load(f"{path}/{layer}", sequence=4)).report
    tensors = load_file(path / "model.safetensors")
    key = f"model.{layer}.g_idx"
    stored = np.random.default_rng(3).permutation(48)  # where each input stands in the file
    codes = unpacked(tensors[f"model.{layer}.qweight"], 4, 0)
    words = packed(np.ascontiguousarray(codes[stored].T), list(range(8))).T
    tensors[f"model.{layer}.qweight"] = np.ascontiguousarray(words)
    tensors[key] = tensors[key][stored]
    save_file(tensors, path / "model.safetensors")
    network = load(f"{path}/{layer}", sequence=4)
    assert network.report is not None and network.weights is not None
    assert any("1 of them have act-order" in note for note in network.report.notes)
    order = np.argsort(stored // 16, kind="stable")
    np.testing.assert_allclose(network.weights[layer], weights[layer][:, stored][:, order])
    report = run_layer(get_machine("bitfusion")(), network).report
    assert report.operands["weights"].granularity == "group of 16"
    assert (report.verification.status, report.cycles) == ("exact", plain_run.cycles)


def test_several_files_and_bfloat16(tmp_path: Path) -> None:
    """An index names the files; bfloat16 is read exactly; what is not there is told."""
    path, _ = tiny(tmp_path, "float")
    (path / "model.safetensors").rename(path / "first.safetensors")
    index = {"weight_map": {"a": "first.safetensors", "b": "second.safetensors"}}
    (path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "'second.safetensors', which is not there" in load(str(path)).missing
    index["weight_map"]["b"] = "../second.safetensors"
    (path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match="must lie beside it"):
        load(str(path))
    words = np.array([0x3F80, 0xC020], np.uint16)  # 1 and -2.5
    header = json.dumps({"x": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}}).encode()
    held = len(header).to_bytes(8, "little") + header + words.tobytes()
    (tmp_path / "model.safetensors").write_bytes(held)
    from sparqsim.workloads.importers.checkpoint import Checkpoint

    assert Checkpoint(tmp_path)["x"].read().tolist() == [1.0, -2.5]


@pytest.mark.parametrize(
    "change, says",
    [
        ({"model_type": "mamba"}, "of the family 'mamba'; there is bert"),
        ({"hidden_size": None}, "must tell hidden_size"),
        ({"hidden_size": "32"}, "hidden_size must be whole"),
        ({"num_key_value_heads": 3}, "3 key heads must divide 4 query heads"),
        ({"tie_word_embeddings": 1}, "tie_word_embeddings must be true or false"),
    ],
)
def test_wrong_configurations(tmp_path: Path, change: dict[str, Any], says: str) -> None:
    """A configuration that describes no network ends in an error message that names its field."""
    with pytest.raises(InputError, match=says):
        import_folder(folder_of(tmp_path / "bad", TINY | change))


def test_damaged_checkpoints(tmp_path: Path) -> None:
    """A file cut short, a header that lies or a tensor that lacks: an error, never a traceback."""
    path, _ = tiny(tmp_path, "gptq")
    whole = (path / "model.safetensors").read_bytes()
    for cut in (0, 4, 100, len(whole) - 10):
        (path / "model.safetensors").write_bytes(whole[:cut])
        with pytest.raises(InputError, match=r"model\.safetensors"):
            load(str(path))
    lied = whole.replace(b"[0,", b"[9,", 1)
    (path / "model.safetensors").write_bytes(lied)
    with pytest.raises(InputError):
        load(str(path))


@pytest.mark.parametrize(
    "kind, change, says",
    [
        ("gptq", {"quant_method": ["gptq"]}, r"quant_method \['gptq'\] is not supported"),
        ("gptq", {"quant_method": {}}, "quant_method {} is not supported"),
        ("gptq", {"bits": 4.0}, "codes must have 2, 4 or 8 bits, got 4.0"),
        ("gptq", {"group_size": [16]}, "group_size must be whole"),
        ("int4", {"config_groups": {"x": {"weights": {"num_bits": 4.0}}}}, "integers of 4 or 8"),
        ("int4", {"config_groups": ["x"]}, r"must be \[32, 8\]"),
    ],
)
def test_settings_of_a_wrong_type(
    tmp_path: Path, kind: str, change: dict[str, Any], says: str
) -> None:
    """Whatever JSON has in place of a setting, it is refused by its name."""
    path, _ = tiny(tmp_path, kind)
    settings = {**(QUANTIZED[kind][1] or {}), **change}
    folder_of(path, TINY | {"quantization_config": settings, "architectures": "x"})
    with pytest.raises(InputError, match=says):
        load(str(path), sequence=4)


@pytest.mark.parametrize(
    "kind, name, dtype",
    [
        ("gptq", "qweight", "F32"), ("gptq", "scales", "I32"), ("gptq", "qzeros", "X"),
        ("awq", "qweight", "F32"), ("int8", "input_scale", "F8_E4M3"), ("int8", "weight", "U8"),
        ("int4", "weight_packed", "F32"), ("float", "weight", "F8_E5M2"),
    ],
)  # fmt: skip
def test_tensors_of_a_wrong_type(tmp_path: Path, kind: str, name: str, dtype: str) -> None:
    """A tensor of a type that its packing does not have is refused by its name and type."""
    path, _ = tiny(tmp_path, kind)
    file = path / "model.safetensors"
    held = file.read_bytes()
    length = int.from_bytes(held[:8], "little")
    header = json.loads(held[8 : 8 + length])
    tensor = f"model.layers.1.mlp.up_proj.{name}"
    header[tensor]["dtype"] = dtype
    text = json.dumps(header).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + held[8 + length :])
    with pytest.raises(InputError, match=f"{name}'? .*{dtype}|{name}.* bytes"):
        load(str(path), sequence=4)


def test_weights_alone_are_compressed(tmp_path: Path) -> None:
    """A folder has weights and is not run: a recipe for weights suits it, one for inputs not."""
    path, weights = tiny(tmp_path, "float")
    subject = subject_for(load(str(path)))
    _, report, _ = compress(subject, recipes.get("w4"), judge=False)
    assert [row.name for row in report.tensors] == [*weights]
    with pytest.raises(InputError, match="is not run here"):
        compress(subject, recipes.get("int8"), judge=False)
