"""Is a GGUF file the decoder that llama.cpp would run, with the codes of its blocks?

Files are written here by the package gguf, whose own decoding says what the codes stand for.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sparqsim.architectures.network import run_layer
from sparqsim.architectures.registry import get_machine
from sparqsim.base import InputError
from sparqsim.workloads.quantize import QuantizedTensor
from sparqsim.workloads.work import load

gguf = pytest.importorskip("gguf")

WIDTH, HIDDEN, WORDS, HEADS, SHARED = 64, 96, 50, 4, 2
SHAPES = {
    "attn_q": (WIDTH, WIDTH), "attn_k": (WIDTH // 2, WIDTH), "attn_v": (WIDTH // 2, WIDTH),
    "attn_output": (WIDTH, WIDTH), "ffn_gate": (HIDDEN, WIDTH), "ffn_up": (HIDDEN, WIDTH),
    "ffn_down": (WIDTH, HIDDEN),
}  # fmt: skip


def written(path: Path, kind: str, architecture: str = "llama") -> dict[str, Any]:
    """A small Llama of two blocks; returns the real numbers of its matrices."""
    writer, rng, found = gguf.GGUFWriter(path, architecture), np.random.default_rng(0), {}
    writer.add_block_count(2)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(HIDDEN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(SHARED)
    writer.add_context_length(128)
    shapes = {f"blk.{i}.{name}": shape for i in range(2) for name, shape in SHAPES.items()}
    for name, shape in (shapes | {"token_embd": (WORDS, WIDTH)}).items():
        which = gguf.GGMLQuantizationType[kind]
        data = gguf.quants.quantize(rng.standard_normal(shape).astype(np.float32), which)
        found[name] = gguf.quants.dequantize(data, which)
        writer.add_tensor(f"{name}.weight", data, raw_dtype=which)
    for norm in ("output_norm", *(f"blk.{i}.{n}_norm" for i in range(2) for n in ("attn", "ffn"))):
        writer.add_tensor(f"{norm}.weight", np.ones(WIDTH, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return found


@pytest.mark.parametrize("kind, bits", [("Q4_0", 4), ("Q8_0", 8), ("F16", None), ("Q4_1", None)])
def test_blocks_are_what_llama_cpp_decodes(tmp_path: Path, kind: str, bits: int | None) -> None:
    """Weights are bit for bit those of gguf; Q4_0 and Q8_0 as codes with a scale for 32 inputs."""
    weights = written(tmp_path / "m.gguf", kind)
    network = load(str(tmp_path / "m.gguf"), sequence=8)
    assert network.weights is not None and set(network.weights) == set(weights)
    for name, expected in weights.items():
        np.testing.assert_array_equal(network.weights[name], expected)
        assert network.model.layer(name).weight_bits == bits
        if bits is not None:  # a scale may be negative: the zero point is -1 then
            held = network.brought[name].weight
            assert isinstance(held, QuantizedTensor)
            assert (held.format.bits, held.quantizer.slices.group) == (bits, 32)
            np.testing.assert_array_equal(held.dequantize(), expected)
    assert network.report is not None
    said = f"taken as real numbers: weights of {kind}" in network.report.notes
    assert said == (bits is None)


def test_counts(tmp_path: Path) -> None:
    """MACs of 8 tokens, of which the last is scored; a head tied to the embeddings counts once."""
    written(tmp_path / "m.gguf", "Q8_0")
    model = load(str(tmp_path / "m.gguf"), sequence=8).model
    block = sum(a * b for a, b in SHAPES.values())
    attention = 2 * HEADS * 8 * 8 * (WIDTH // HEADS)
    assert model.macs == 2 * (8 * block + attention) + WORDS * WIDTH
    assert model.parameters == 2 * block + WORDS * WIDTH + 5 * WIDTH
    decoding = load(str(tmp_path / "m.gguf"), context=100).model
    assert decoding.macs == 2 * (block + 2 * 100 * WIDTH) + WORDS * WIDTH


@pytest.mark.parametrize("kind", ["Q4_0", "Q8_0"])
def test_blocks_run_as_they_are(tmp_path: Path, kind: str) -> None:
    """Machines that scale sums at the end of a group multiply the file's codes, those of Bit Fusion
    at 4 bits; one that does not refuses them by name."""
    written(tmp_path / "m.gguf", kind)
    work = load(f"{tmp_path}/m.gguf/blk.0.ffn_up", sequence=4)
    for machine in ("plain", "bitfusion"):
        report = run_layer(get_machine(machine)(), work).report
        operand = report.operands["weights"]
        assert (report.verification.status, operand.granularity) == ("exact", "group of 32")
        if machine == "bitfusion":
            assert (operand.how, operand.bits) == ("as it is", {"Q4_0": 4, "Q8_0": 8}[kind])
    with pytest.raises(InputError, match="one scale for every 32 values"):
        run_layer(get_machine("tpu")(), work)


def test_damaged_files(tmp_path: Path) -> None:
    """A file cut short or of another family ends in an error message."""
    written(tmp_path / "m.gguf", "Q8_0")
    whole = (tmp_path / "m.gguf").read_bytes()
    for cut in (0, 7, 60, 300, len(whole) // 2):
        (tmp_path / "cut.gguf").write_bytes(whole[:cut])
        with pytest.raises(InputError, match=r"cut\.gguf"):
            load(str(tmp_path / "cut.gguf"))
    written(tmp_path / "r.gguf", "Q8_0", "rwkv6")
    with pytest.raises(InputError, match="architecture 'rwkv6'; there is gpt2, llama"):
        load(str(tmp_path / "r.gguf"))
