"""BERT-base and -large (uncased): an encoder over ``sequence_length`` tokens, and the pooler.

Every token attends to every token. Task heads are not included. Source: Devlin et al., NAACL 2019.
"""

from __future__ import annotations

from sparqsim.workloads.layers import Linear, Model
from sparqsim.workloads.models.parts import behind, transformer_blocks, transformer_other

VOCABULARY, POSITIONS, SEGMENTS = 30522, 512, 2  # published


def _model(
    name: str, blocks: int, width: int, heads: int, sequence_length: int, batch: int
) -> Model:
    inner = transformer_blocks(
        blocks=blocks,
        width=width,
        heads=heads,
        hidden=4 * width,
        queries=sequence_length,
        keys=sequence_length,
        batch=batch,
    )
    pooler = Linear(name="pooler", in_features=width, out_features=width, rows=batch)
    return Model(
        name=name,
        source="Devlin et al., NAACL 2019",
        layers=(*inner, pooler),
        other=(*transformer_other(inner), *behind(pooler, "Tanh")),
        # embeddings; a layer norm after them and two a block
        other_parameters=(VOCABULARY + POSITIONS + SEGMENTS) * width + (1 + 2 * blocks) * 2 * width,
        other_parameters_are="word, position and segment embeddings, layer norms",
    )


def bert_base(sequence_length: int = 128, batch: int = 1) -> Model:
    """Return BERT-base for ``batch`` sequences."""
    return _model("bert_base", 12, 768, 12, sequence_length, batch)


def bert_large(sequence_length: int = 128, batch: int = 1) -> Model:
    """Return BERT-large for ``batch`` sequences."""
    return _model("bert_large", 24, 1024, 16, sequence_length, batch)
