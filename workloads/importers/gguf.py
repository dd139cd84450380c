"""Networks in GGUF, as llama.cpp keeps them: decoders of the families Llama, Qwen and GPT-2.

Sizes come from the file's fields, which biases there are and every other parameter from its
tensors. Blocks of Q4_0 and Q8_0 are codes with a scale for every 32 inputs, and stay so. A scale of
Q4_0 may be negative: ``d q = |d| ((-q - 1) - (-1))``, codes of 4 bits with the zero point -1. Other
block formats are real numbers here: those of K add an offset that is no whole multiple of the scale
(Q4_K: ``d * s * q - m * o``), so no whole zero point is exact. A Llama's queries and keys have the
order of rows that llama.cpp gives them. Needs the extra ``gguf``.

Source: the GGUF specification and gguf-py's ``quants.py`` (ggml-org/llama.cpp).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from sparqsim.base import InputError
from sparqsim.workloads.formats.integer import Int
from sparqsim.workloads.importers import (
    MOST_ELEMENTS,
    Codes,
    Imported,
    ImportReport,
    Later,
    Tensors,
)
from sparqsim.workloads.importers.transformers import LARGEST, TOKENS, Names, Stack
from sparqsim.workloads.layers import Layer, Linear, MatMul, Model

BITS = {"Q4_0": 4, "Q8_0": 8}  # published: of a code as it is stored
BLOCK = 32  # published: inputs that share a scale, in Q4_0 and Q8_0
LLAMA = Names(
    query="blk.{}.attn_q",
    key="blk.{}.attn_k",
    value="blk.{}.attn_v",
    output="blk.{}.attn_output",
    gate="blk.{}.ffn_gate",
    up="blk.{}.ffn_up",
    down="blk.{}.ffn_down",
    attention="blk.{}.attn",
)
GPT2 = Names(
    query="blk.{}.attn_qkv",
    key="blk.{}.attn_qkv",
    value="blk.{}.attn_qkv",
    output="blk.{}.attn_output",
    up="blk.{}.ffn_up",
    down="blk.{}.ffn_down",
    attention="blk.{}.attn",
)
FAMILIES = {"gpt2": GPT2, "llama": LLAMA, "qwen2": LLAMA, "qwen3": LLAMA}
HEAD = ("output", "token_embd")  # the second where both are one tensor


class _File:
    """A GGUF file's fields and tensors."""

    def __init__(self, path: Path) -> None:
        try:
            import gguf
        except ImportError:
            raise InputError(
                "reading GGUF needs the package gguf; pip install 'sparqsim[gguf]'"
            ) from None
        self.path, self.gguf = path, gguf
        try:
            reader = gguf.GGUFReader(path)
            self.fields = reader.fields
            self.tensors = {each.name: each for each in reader.tensors}
        except OSError as error:
            raise InputError(f"cannot read {path}: {error.strerror}") from None
        except Exception:  # the reader meets what it does not expect by many types
            raise InputError(
                f"{path} is no GGUF file, or is cut short; download it again"
            ) from None
        self.architecture = self.field("general.architecture")

    def field(self, name: str) -> Any:
        """A field's value, or None."""
        found = self.fields.get(name)
        try:
            return None if found is None else found.contents()
        except (ValueError, IndexError, TypeError, UnicodeError):
            raise InputError(f"{self.path}: its field {name!r} cannot be read") from None

    def size(self, name: str, default: int | None = None) -> int:
        """A size of the architecture: whole, at least 1."""
        whole = f"{self.architecture}.{name}"
        value = self.field(whole)
        value = default if value is None else value
        if type(value) is not int or not 1 <= value <= LARGEST:
            raise InputError(f"{self.path}: {whole} must be whole, 1 to {LARGEST}, got {value!r}")
        return value

    def shape(self, name: str) -> tuple[int, ...]:
        """Of a tensor, outputs first: GGUF has the fastest axis first."""
        shape = tuple(int(size) for size in reversed(self.tensors[name].shape))
        if math.prod(max(size, 1) for size in shape) > MOST_ELEMENTS:
            raise InputError(f"{self.path}: {name!r} has shape {list(shape)}; that is too large")
        return shape

    def kind(self, name: str) -> str:
        """The name of a tensor's format."""
        found: str = self.tensors[name].tensor_type.name
        return found

    def values(self, name: str) -> NDArray[np.float32]:
        """The real numbers of a tensor."""
        held = self.tensors[name]
        try:
            made = self.gguf.quants.dequantize(held.data, held.tensor_type)
        except NotImplementedError:
            raise InputError(
                f"{self.path}: {name!r} is of the format {self.kind(name)}, which the package gguf "
                "does not decode"
            ) from None
        return np.asarray(made, np.float32).reshape(self.shape(name))

    def codes(self, name: str) -> Codes | None:
        """The codes of a matrix; None where its format is none that is exact as such."""
        shape = self.shape(name)
        read = {"Q4_0": _q4_0, "Q8_0": _q8_0}.get(self.kind(name))
        if read is None or len(shape) != 2:
            return None
        wide = 2 + (BLOCK // 2 if self.kind(name) == "Q4_0" else BLOCK)
        if shape[1] % BLOCK:
            raise InputError(f"{self.path}: {name!r} must have a multiple of {BLOCK} inputs")

        q4 = self.kind(name) == "Q4_0"

        def blocks() -> NDArray[np.uint8]:
            data = np.ascontiguousarray(self.tensors[name].data).view(np.uint8)
            return data.reshape(shape[0], shape[1] // BLOCK, wide)

        def scale() -> NDArray[np.float32]:
            held = np.ascontiguousarray(blocks()[..., :2]).view(np.float16)[..., 0]
            return np.repeat(held.astype(np.float32), BLOCK, axis=1)

        def numbers() -> NDArray[Any]:
            held = read(blocks()[..., 2:]).reshape(shape)
            return np.where(scale() < 0, -held - np.int8(1), held) if q4 else held

        zero = Later(shape, lambda: -(scale() < 0).astype(np.int32) * q4)
        sizes = Later(shape, lambda: np.abs(scale()) if q4 else scale())
        return Codes(Later(shape, numbers), sizes, zero, Int(BITS[self.kind(name)]))


def _q4_0(packed: NDArray[np.uint8]) -> NDArray[np.int8]:
    """The first half of a block lies in the low bits of its bytes; both stand for code - 8."""
    codes = np.concatenate([packed & 15, packed >> 4], axis=-1)
    return codes.astype(np.int8) - np.int8(8)


def _q8_0(packed: NDArray[np.uint8]) -> NDArray[np.int8]:
    return packed.view(np.int8)


def import_gguf(
    path: str | Path,
    *,
    batch: int = 1,
    sequence: int | None = None,
    context: int | None = None,
) -> Imported:
    """Return the layers and weights of a decoder in a GGUF file.

    Parameters
    ----------
    batch : int
        Sequences at once.
    sequence : int, optional
        Tokens; as many as there are positions, at most ``TOKENS``, otherwise.
    context : int, optional
        Decode one token that attends to so many keys.

    Raises
    ------
    InputError
        If the file is damaged, of no family that is known here, or lacks a tensor; or if the extra
        ``gguf`` is not installed.
    """
    file = _File(Path(path))
    if file.architecture not in FAMILIES:
        raise InputError(
            f"{file.path} is of the architecture {file.architecture!r}; there is "
            f"{', '.join(FAMILIES)}"
        )
    stack = _stack(file, batch, sequence, context)
    layers, tensors, plain = _weighted(file, stack.layers())
    total = sum(math.prod(file.shape(name)) for name in file.tensors)
    model = Model(
        name=file.path.stem,
        source=f"GGUF file {file.path.name}, architecture {file.architecture}",
        layers=layers,
        other_parameters=total - sum(layer.stored for layer in layers),
        other_parameters_are="embeddings and norms",
        other=stack.other(),
    )
    coded = sum(each.codes is not None for each in tensors.values())
    notes = [f"{coded} layers come with codes, which run as they are"] if coded else []
    if plain:
        notes.append(f"taken as real numbers: weights of {', '.join(sorted(plain))}")
    taken = {"layers": len(layers), "of them with weights": len(tensors)}
    return Imported(model, tensors, report=ImportReport(taken=taken, notes=tuple(notes)))


def _stack(file: _File, batch: int, sequence: int | None, context: int | None) -> Stack:
    names = FAMILIES[file.architecture]
    width, heads = file.size("embedding_length"), file.size("attention.head_count")
    shared = file.size("attention.head_count_kv", heads)
    if heads % shared:
        raise InputError(f"{file.path}: {shared} key heads must divide {heads} query heads")
    tokens = min(file.size("context_length"), TOKENS) if sequence is None else sequence
    rotary = file.architecture != "gpt2"
    head = next((name for name in HEAD if f"{name}.weight" in file.tensors), HEAD[0])
    vocabulary = _stored(file, f"{head}.weight")[0]
    return Stack(
        names=names,
        blocks=file.size("block_count"),
        width=width,
        heads=heads,
        shared=shared,
        each=file.size("attention.key_length", max(width // heads, 1)),
        hidden=file.size("feed_forward_length"),
        queries=1 if context is not None else tokens,
        keys=tokens if context is None else context,
        batch=batch,
        biases=frozenset(
            part
            for part in ("query", "key", "value", "output", "gate", "up", "down")
            if f"{getattr(names, part).format(0)}.bias" in file.tensors
        ),
        norm="RMSNormalization" if rotary else "LayerNormalization",
        activation="Swish" if rotary else "Gelu",
        rotary=rotary,
        tail=(
            Linear(name=head, in_features=width, out_features=vocabulary, rows=batch, bias=False),
        ),
    )


def _stored(file: _File, name: str) -> tuple[int, ...]:
    if name not in file.tensors:
        raise InputError(f"{file.path}: there is no tensor {name!r}")
    return file.shape(name)


def _weighted(
    file: _File, layers: tuple[Layer, ...]
) -> tuple[tuple[Layer, ...], dict[str, Tensors], set[str]]:
    """Layers with the widths of their codes, their weights, and formats that are no codes."""
    found: list[Layer] = []
    tensors: dict[str, Tensors] = {}
    plain: set[str] = set()
    for layer in layers:
        if isinstance(layer, MatMul):
            found.append(layer)
            continue
        name, shape = f"{layer.name}.weight", layer.weight_shape
        if _stored(file, name) != shape:
            raise InputError(
                f"{file.path}: {name!r} must be {list(shape)}, got {list(file.shape(name))}"
            )
        codes = file.codes(name)
        raw: Later = Later(shape, _maker(file, name) if codes is None else codes.values)
        bias = None
        if layer.bias:
            if _stored(file, f"{layer.name}.bias") != shape[:1]:
                raise InputError(f"{file.path}: '{layer.name}.bias' must be {list(shape[:1])}")
            bias = file.values(f"{layer.name}.bias")
        tensors[layer.name] = Tensors(raw, codes=codes).then(None, bias)
        if codes is None:
            plain.add(file.kind(name))
            found.append(layer)
        else:
            bits = BITS[file.kind(name)]
            found.append(msgspec.structs.replace(layer, weight_bits=bits))
    return tuple(found), tensors, plain


def _maker(file: _File, name: str) -> Callable[[], NDArray[Any]]:
    return lambda: file.values(name)
