"""Decoder language models: GPT2-XL, OPT-6.7B, LLaMA-7B, in prefill and in decoding.

Prefill computes the whole prompt of ``sequence_length`` tokens at once. Decoding (``decode=True``)
computes one token that attends to ``sequence_length`` keys, itself included: every weight is read
for one row of work. Both score the vocabulary for the last token alone, as generation does. The
causal mask is not exploited: prefill's attention products are counted whole. Sources: Radford et
al., 2019; Zhang et al., arXiv 2205.01068; Touvron et al., arXiv 2302.13971.
"""

from __future__ import annotations

from sparqsim.workloads.layers import Layer, Linear, Model
from sparqsim.workloads.models.parts import transformer_blocks, transformer_other


def _layers(
    *,
    blocks: int,
    width: int,
    heads: int,
    hidden: int,
    vocabulary: int,
    sequence_length: int,
    decode: bool,
    batch: int,
    bias: bool,
    fused_qkv: bool = False,
    gated: bool = False,
) -> tuple[Layer, ...]:
    head = Linear(
        name="lm_head", in_features=width, out_features=vocabulary, rows=batch, bias=False
    )
    body = transformer_blocks(
        blocks=blocks,
        width=width,
        heads=heads,
        hidden=hidden,
        queries=1 if decode else sequence_length,
        keys=sequence_length,
        batch=batch,
        bias=bias,
        fused_qkv=fused_qkv,
        gated=gated,
    )
    return (*body, head)


def gpt2_xl(sequence_length: int = 1024, decode: bool = False, batch: int = 1) -> Model:
    """Return GPT2-XL (1.5 billion parameters)."""
    blocks, width, positions = 48, 1600, 1024  # published
    layers = _layers(
        blocks=blocks,
        width=width,
        heads=25,
        hidden=6400,
        vocabulary=50257,
        sequence_length=sequence_length,
        decode=decode,
        batch=batch,
        bias=True,
        fused_qkv=True,
    )
    return Model(
        name="gpt2_xl",
        source="Radford et al., 2019",
        layers=layers,
        other=transformer_other(layers[:-1]),
        other_parameters=positions * width + (2 * blocks + 1) * 2 * width,
        other_parameters_are="position embeddings, layer norms (words are lm_head's weights)",
    )


def opt_6_7b(sequence_length: int = 2048, decode: bool = False, batch: int = 1) -> Model:
    """Return OPT-6.7B."""
    # published; the vocabulary is padded from 50265 and two positions are reserved in the release
    blocks, width, positions = 32, 4096, 2050
    layers = _layers(
        blocks=blocks,
        width=width,
        heads=32,
        hidden=16384,
        vocabulary=50272,
        sequence_length=sequence_length,
        decode=decode,
        batch=batch,
        bias=True,
    )
    return Model(
        name="opt_6_7b",
        source="Zhang et al., arXiv 2205.01068",
        layers=layers,
        other=transformer_other(layers[:-1], activation="Relu"),
        other_parameters=positions * width + (2 * blocks + 1) * 2 * width,
        other_parameters_are="position embeddings, layer norms (words are lm_head's weights)",
    )


def llama_7b(sequence_length: int = 2048, decode: bool = False, batch: int = 1) -> Model:
    """Return LLaMA-7B."""
    blocks, width, vocabulary = 32, 4096, 32000  # published
    layers = _layers(
        blocks=blocks,
        width=width,
        heads=32,
        hidden=11008,
        vocabulary=vocabulary,
        sequence_length=sequence_length,
        decode=decode,
        batch=batch,
        bias=False,
        gated=True,
    )
    return Model(
        name="llama_7b",
        source="Touvron et al., arXiv 2302.13971",
        layers=layers,
        other=transformer_other(
            layers[:-1], activation="Swish", norm="RMSNormalization", rotary=True
        ),
        other_parameters=vocabulary * width + (2 * blocks + 1) * width,
        other_parameters_are="word embeddings, RMS norms",
    )
