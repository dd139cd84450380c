"""Transformers by their sizes: the layers of a stack of blocks under the names of a checkpoint.

Decoders (Llama, Mistral, Qwen, GPT-2) score the vocabulary for the last token alone, as generation
does; masks are not exploited. Query heads that share a key head are rows of one product.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from sparqsim.workloads.layers import Layer, Linear, MatMul, OtherWork
from sparqsim.workloads.models.parts import behind

TOKENS = 512  # assumed: what is computed where no sequence is asked for
LARGEST = 2**24  # assumed: no size of a network of today comes near


@dataclass(frozen=True, kw_only=True)
class Names:
    """How a checkpoint calls the parts of block ``{}``; several that are one tensor share a name.

    ``scores`` and ``context`` are the two products without weights.
    """

    query: str
    key: str
    value: str
    output: str
    up: str
    down: str
    gate: str = ""
    attention: str = "{}.attention"

    @property
    def is_fused(self) -> bool:
        """Whether query, key and value are one layer."""
        return self.query == self.key


@dataclass(frozen=True, kw_only=True)
class Stack:
    """Sizes of a stack of equal blocks.

    Attributes
    ----------
    blocks, width, heads, shared, each, hidden : int
        Blocks, model width, query heads, key heads, size of a head, width of the feed-forward part.
    queries, keys, batch : int
        Tokens computed, tokens attended to, sequences.
    biases : frozenset of str
        Parts that have one: fields of ``names``.
    norm, activation : str
        As ONNX calls them.
    norms : int
        Parameters of the norms of a block, and ...
    rest : int
        ... of everything beside the blocks' layers: embeddings, last norm.
    """

    names: Names
    blocks: int
    width: int
    heads: int
    shared: int
    each: int
    hidden: int
    queries: int
    keys: int
    batch: int
    biases: frozenset[str]
    norm: str = "LayerNormalization"
    activation: str = "Gelu"
    rotary: bool = False
    norms: int = 0
    rest: int = 0
    tail: tuple[Layer, ...] = field(default=())
    front: tuple[Layer, ...] = field(default=())

    def layers(self) -> tuple[Layer, ...]:
        """All layers in order."""
        inner = [layer for block in range(self.blocks) for layer in self._block(block)]
        return (*self.front, *inner, *self.tail)

    def _linear(self, block: int, part: str, inputs: int, outputs: int) -> Linear:
        return Linear(
            name=getattr(self.names, part).format(block),
            in_features=inputs,
            out_features=outputs,
            rows=self.batch * self.queries,
            bias=part in self.biases,
        )

    def _block(self, block: int) -> Iterator[Layer]:
        inner, kept = self.heads * self.each, self.shared * self.each
        if self.names.is_fused:
            yield self._linear(block, "query", self.width, inner + 2 * kept)
        else:
            yield self._linear(block, "query", self.width, inner)
            yield self._linear(block, "key", self.width, kept)
            yield self._linear(block, "value", self.width, kept)
        rows, stack = self.heads // self.shared * self.queries, self.batch * self.shared
        where = self.names.attention.format(block)
        yield MatMul(name=f"{where}.scores", m=rows, k=self.each, n=self.keys, batch=stack)
        yield MatMul(name=f"{where}.context", m=rows, k=self.keys, n=self.each, batch=stack)
        yield self._linear(block, "output", inner, self.width)
        if self.names.gate:
            yield self._linear(block, "gate", self.width, self.hidden)
        yield self._linear(block, "up", self.width, self.hidden)
        yield self._linear(block, "down", self.hidden, self.width)

    def other(self) -> tuple[OtherWork, ...]:
        """What runs between the layers of the blocks."""
        found: list[OtherWork] = []
        table: dict[str, tuple[str, ...]] = {}
        for block in range(self.blocks):
            where = self.names.attention.format(block)
            table[f"{where}.scores"] = ("Softmax",)
            for part in ("output", "down"):
                table[getattr(self.names, part).format(block)] = ("Add", self.norm)
            gate = self.names.gate
            acts = gate or self.names.up
            table[acts.format(block)] = (self.activation,)
            if gate:
                table[self.names.up.format(block)] = ("Mul",)
            if self.rotary:
                for part in ("query", "key"):
                    table[getattr(self.names, part).format(block)] = ("RotaryEmbedding",)
        for layer in self.layers():
            found += behind(layer, *table.get(layer.name, ()))
        return tuple(found)

    @property
    def other_parameters(self) -> int:
        """Norms and embeddings."""
        return self.blocks * self.norms + self.rest
