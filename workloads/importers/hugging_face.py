"""Networks as Hugging Face keeps them: a folder with ``config.json`` and safetensors.

BERT, ViT, Llama, Mistral, Qwen 2 and 3, and GPT-2 are read by their configuration, without the
package transformers and without running anything; weights by name from the checkpoint beside it,
where it lies there, quantized ones (GPTQ, AWQ, compressed-tensors) with their codes.

Sources: the configurations and parameter names of Hugging Face's models; published counts of
parameters (docs/reference/work.md).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from sparqsim.base import InputError
from sparqsim.workloads.importers import Imported, ImportReport, Later, Range, Tensors
from sparqsim.workloads.importers.checkpoint import REAL, Checkpoint, codes_of, read_json
from sparqsim.workloads.importers.transformers import LARGEST, TOKENS, Names, Stack
from sparqsim.workloads.layers import Conv2d, Layer, Linear, MatMul, Model

PREFIXES = ("", "model.", "bert.", "vit.", "transformer.")

LLAMA = Names(
    query="layers.{}.self_attn.q_proj",
    key="layers.{}.self_attn.k_proj",
    value="layers.{}.self_attn.v_proj",
    output="layers.{}.self_attn.o_proj",
    gate="layers.{}.mlp.gate_proj",
    up="layers.{}.mlp.up_proj",
    down="layers.{}.mlp.down_proj",
    attention="layers.{}.self_attn",
)
GPT2 = Names(
    query="h.{}.attn.c_attn",
    key="h.{}.attn.c_attn",
    value="h.{}.attn.c_attn",
    output="h.{}.attn.c_proj",
    up="h.{}.mlp.c_fc",
    down="h.{}.mlp.c_proj",
    attention="h.{}.attn",
)
BERT = Names(
    query="encoder.layer.{}.attention.self.query",
    key="encoder.layer.{}.attention.self.key",
    value="encoder.layer.{}.attention.self.value",
    output="encoder.layer.{}.attention.output.dense",
    up="encoder.layer.{}.intermediate.dense",
    down="encoder.layer.{}.output.dense",
    attention="encoder.layer.{}.attention",
)
VIT = Names(
    query="encoder.layer.{}.attention.attention.query",
    key="encoder.layer.{}.attention.attention.key",
    value="encoder.layer.{}.attention.attention.value",
    output="encoder.layer.{}.attention.output.dense",
    up="encoder.layer.{}.intermediate.dense",
    down="encoder.layer.{}.output.dense",
    attention="encoder.layer.{}.attention",
)
ALL = frozenset({"query", "key", "value", "output", "gate", "up", "down"})
ACTIVATIONS = {"relu": "Relu", "silu": "Swish", "swish": "Swish"}  # others are a Gelu


class _Config:
    """A configuration whose sizes are checked when they are read."""

    def __init__(self, path: Path) -> None:
        self.path, self.found = path, read_json(path)

    def size(self, *names: str, default: int | None = None) -> int:
        """The first of these that is there: whole, at least 1."""
        for name in names:
            value = self.found.get(name)
            if value is not None:
                if type(value) is not int or not 1 <= value <= LARGEST:
                    raise InputError(
                        f"{self.path}: {name} must be whole, 1 to {LARGEST}, got {value!r}"
                    )
                return value
        if default is None:
            raise InputError(f"{self.path} must tell {names[0]}")
        return default

    def flag(self, name: str, default: bool = False) -> bool:
        value = self.found.get(name, default)
        if type(value) is not bool:
            raise InputError(f"{self.path}: {name} must be true or false, got {value!r}")
        return value

    def activation(self, name: str) -> str:
        return ACTIVATIONS.get(str(self.found.get(name, "")).lower(), "Gelu")

    def kinds(self) -> list[str]:
        """What the network is for, such as ``LlamaForCausalLM``; empty where that is not told."""
        found = self.found.get("architectures")
        return [str(kind) for kind in found] if isinstance(found, list) else []

    def is_a(self, ending: str) -> bool:
        return any(kind.endswith(ending) for kind in self.kinds())


def _lengths(limit: int, sequence: int | None, context: int | None) -> tuple[int, int]:
    """Tokens computed and attended to."""
    if context is not None:
        return 1, context
    tokens = min(limit, TOKENS) if sequence is None else sequence
    return tokens, tokens


def _head(name: str, inputs: int, outputs: int, rows: int, bias: bool) -> Linear:
    return Linear(name=name, in_features=inputs, out_features=outputs, rows=rows, bias=bias)


def _llama(config: _Config, batch: int, sequence: int | None, context: int | None) -> Stack:
    width, heads = config.size("hidden_size"), config.size("num_attention_heads")
    vocabulary, blocks = config.size("vocab_size"), config.size("num_hidden_layers")
    kind = config.found["model_type"]
    each = config.size("head_dim", default=max(width // heads, 1))
    biases = set()
    if kind == "qwen2" or config.flag("attention_bias"):
        biases |= {"query", "key", "value"} | ({"output"} if kind == "llama" else set())
    if config.flag("mlp_bias"):
        biases |= {"gate", "up", "down"}
    queries, keys = _lengths(config.size("max_position_embeddings", default=TOKENS), sequence,
                             context)  # fmt: skip
    whole = config.is_a("ForCausalLM")
    tied = whole and config.flag("tie_word_embeddings")
    head = (_head("lm_head", width, vocabulary, batch, False),) if whole else ()
    return Stack(
        names=LLAMA, blocks=blocks, width=width, heads=heads,
        shared=config.size("num_key_value_heads", default=heads), each=each,
        hidden=config.size("intermediate_size"), queries=queries, keys=keys, batch=batch,
        biases=frozenset(biases), norm="RMSNormalization", rotary=True,
        activation=config.activation("hidden_act"),
        norms=2 * width + (2 * each if kind == "qwen3" else 0),
        rest=width + (0 if tied else vocabulary * width),
        tail=head,
    )  # fmt: skip


def _gpt2(config: _Config, batch: int, sequence: int | None, context: int | None) -> Stack:
    width, heads = config.size("n_embd"), config.size("n_head")
    vocabulary, positions = config.size("vocab_size"), config.size("n_positions", "n_ctx")
    queries, keys = _lengths(positions, sequence, context)
    whole = config.is_a("LMHeadModel")
    return Stack(
        names=GPT2, blocks=config.size("n_layer"), width=width, heads=heads, shared=heads,
        each=max(width // heads, 1), hidden=config.size("n_inner", default=4 * width),
        queries=queries, keys=keys, batch=batch, biases=ALL,
        activation=config.activation("activation_function"), norms=4 * width,
        rest=positions * width + 2 * width + (0 if whole else vocabulary * width),
        tail=(_head("lm_head", width, vocabulary, batch, False),) if whole else (),
    )  # fmt: skip


def _bert(config: _Config, batch: int, sequence: int | None, context: int | None) -> Stack:
    if context is not None:
        raise InputError(f"{config.path} is an encoder; context is for decoders")
    width, heads = config.size("hidden_size"), config.size("num_attention_heads")
    positions = config.size("max_position_embeddings")
    queries, keys = _lengths(positions, sequence, None)
    classified = config.is_a("ForSequenceClassification")
    tail: tuple[Layer, ...] = ()
    if classified or config.is_a("Model"):
        tail = (_head("pooler.dense", width, width, batch, True),)
    if classified:
        tail += (_head("classifier", width, _labels(config), batch, True),)
    tables = config.size("vocab_size") + positions + config.size("type_vocab_size", default=2)
    return Stack(
        names=BERT, blocks=config.size("num_hidden_layers"), width=width, heads=heads,
        shared=heads, each=max(width // heads, 1), hidden=config.size("intermediate_size"),
        queries=queries, keys=keys, batch=batch, biases=ALL,
        activation=config.activation("hidden_act"), norms=4 * width,
        rest=tables * width + 2 * width,
        tail=tail,
    )  # fmt: skip


def _labels(config: _Config) -> int:
    labels = config.found.get("id2label")
    return len(labels) if isinstance(labels, dict) and labels else 2


def _vit(config: _Config, batch: int, sequence: int | None, context: int | None) -> Stack:
    if context is not None or sequence is not None:
        raise InputError(f"{config.path} reads images; sequence and context are for text")
    width, heads = config.size("hidden_size"), config.size("num_attention_heads")
    image, patch = config.size("image_size", default=224), config.size("patch_size", default=16)
    channels, side = config.size("num_channels", default=3), image // patch
    tokens = side * side + 1
    patches = Conv2d(
        name="embeddings.patch_embeddings.projection", in_channels=channels, out_channels=width,
        input=(image, image), kernel=(patch, patch), stride=(patch, patch), batch=batch,
    )  # fmt: skip
    tail: tuple[Layer, ...] = ()
    if config.is_a("ForImageClassification"):
        tail = (_head("classifier", width, _labels(config), batch, True),)
    elif config.is_a("Model"):
        tail = (_head("pooler.dense", width, width, batch, True),)
    biases = ALL if config.flag("qkv_bias", True) else ALL - {"query", "key", "value"}
    return Stack(
        names=VIT, blocks=config.size("num_hidden_layers"), width=width, heads=heads, shared=heads,
        each=max(width // heads, 1), hidden=config.size("intermediate_size"), queries=tokens,
        keys=tokens, batch=batch, biases=biases, activation=config.activation("hidden_act"),
        norms=4 * width, rest=(tokens + 1) * width + 2 * width, front=(patches,), tail=tail,
    )  # fmt: skip


FAMILIES: dict[str, Callable[[_Config, int, int | None, int | None], Stack]] = {
    "bert": _bert,
    "gpt2": _gpt2,
    "llama": _llama,
    "mistral": _llama,
    "qwen2": _llama,
    "qwen3": _llama,
    "vit": _vit,
}
TIED = {"lm_head": ("embed_tokens", "wte")}


def import_folder(
    folder: str | Path,
    *,
    batch: int = 1,
    sequence: int | None = None,
    context: int | None = None,
) -> Imported:
    """Return the layers of a folder with ``config.json``, and its weights where they are there.

    Parameters
    ----------
    batch : int
        Sequences or images at once.
    sequence : int, optional
        Tokens; :data:`TOKENS` (or as many as there are positions) otherwise.
    context : int, optional
        Decode one token that attends to so many keys.

    Raises
    ------
    InputError
        If a file is damaged, or the network is of no family that is known here.
    """
    folder = Path(folder)
    config = _Config(folder / "config.json")
    kind = config.found.get("model_type")
    if not isinstance(kind, str) or kind not in FAMILIES:
        raise InputError(f"{config.path} is of the family {kind!r}; there is {', '.join(FAMILIES)}")
    stack = FAMILIES[kind](config, batch, sequence, context)
    if stack.heads % stack.shared:
        raise InputError(
            f"{config.path}: {stack.shared} key heads must divide {stack.heads} query heads"
        )
    layers = stack.layers()
    checkpoint = Checkpoint(folder)
    quantized = config.found.get("quantization_config")
    settings = quantized if isinstance(quantized, dict) else {}
    tensors: dict[str, Tensors] = {}
    ranges: dict[str, Range] = {}
    notes: list[str] = []
    if checkpoint:
        reader = _Weights(checkpoint, settings, layers, turned=kind == "gpt2")
        tensors, ranges = reader.tensors, reader.ranges
        layers = tuple(reader.with_bits(layer) for layer in layers)
        notes = reader.notes
    model = Model(
        name=folder.resolve().name,
        source=f"folder {folder.resolve().name}, a {kind} network of Hugging Face",
        layers=layers,
        other_parameters=stack.other_parameters,
        other_parameters_are="embeddings and norms",
        other=stack.other(),
    )
    if not stack.tail:
        kinds = config.kinds() or ["no architecture"]
        notes.append(f"the blocks alone are counted: the head of {kinds[0]} is not known here")
    taken = {"layers": len(layers), "of them with weights": len(tensors)}
    return Imported(
        model,
        tensors if not checkpoint.missing else {},
        ranges=ranges,
        missing=tuple(checkpoint.missing),
        report=ImportReport(taken=taken, notes=tuple(notes)),
    )


class _Weights:
    """The weights of layers in a checkpoint."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        settings: Mapping[str, Any],
        layers: tuple[Layer, ...],
        turned: bool,
    ) -> None:
        self.checkpoint, self.settings, self.turned = checkpoint, settings, turned
        self.tensors: dict[str, Tensors] = {}
        self.ranges: dict[str, Range] = {}
        self.spread = 0  # layers whose groups of inputs are spread over them
        weighted = [layer for layer in layers if layer.weight_shape]
        self.prefix = self._prefix(weighted)
        for layer in weighted:
            self.tensors[layer.name] = self._of(layer)
        coded = [name for name, each in self.tensors.items() if each.codes is not None]
        self.notes = []
        if coded:
            self.notes.append(f"{len(coded)} layers come with codes, which run as they are")
            if self.spread:
                self.notes.append(
                    f"{self.spread} of them have act-order: their inputs are taken in the order "
                    "of their groups, and bringing them into it is not counted"
                )
            if not self.ranges:
                self.notes.append(
                    "activations have no fixed codes: a machine's own recipe rounds them"
                )

    def _prefix(self, layers: list[Layer]) -> str:
        inner = next(each for each in layers if "." in each.name)
        for prefix in PREFIXES:
            names = (
                f"{prefix}{inner.name}.{end}" for end in ("weight", "qweight", "weight_packed")
            )
            if any(name in self.checkpoint for name in names):
                return prefix
        raise InputError(
            f"{self.checkpoint.folder}: its checkpoint has no weights of {inner.name!r}"
        )

    def _where(self, layer: Layer) -> str:
        """The prefix of a layer's tensors; a tied head has those of a table."""
        names = [f"{self.prefix}{layer.name}", layer.name]
        names += [f"{self.prefix}{table}" for table in TIED.get(layer.name, ())]
        for name in names:
            if any(
                f"{name}.{end}" in self.checkpoint for end in ("weight", "qweight", "weight_packed")
            ):
                return name
        raise InputError(f"{self.checkpoint.folder}: there are no weights of layer {layer.name!r}")

    def _of(self, layer: Layer) -> Tensors:
        where = self._where(layer)
        shape = layer.weight_shape
        codes = None
        if len(shape) == 2:
            codes = codes_of(self.checkpoint, where, (shape[0], shape[1]), self.settings)
        if codes is None:
            weight = f"{where}.weight"
            if weight not in self.checkpoint:
                raise InputError(f"{self.checkpoint.folder}: there is no tensor {weight!r}")
            self.checkpoint[weight].check(weight)
            turned = self.turned and "." in layer.name
            raw = self.checkpoint.later(weight, shape, turned)
        else:
            raw = Later(shape, codes.values)
            self._range(layer, where)
            groups = self.checkpoint.get(f"{where}.g_idx")
            self.spread += groups is not None and bool((np.diff(groups.read()) < 0).any())
        bias: NDArray[Any] | None = None
        if not isinstance(layer, MatMul) and layer.bias:
            name = f"{where}.bias"
            if name not in self.checkpoint:
                raise InputError(f"{self.checkpoint.folder}: there is no tensor {name!r}")
            bias = np.asarray(self.checkpoint.later(name, shape[:1]))
        return Tensors(raw, codes=codes).then(None, bias)

    def _range(self, layer: Layer, where: str) -> None:
        """A fixed scale of a layer's inputs, as compressed-tensors has it."""
        name = f"{where}.input_scale"
        if name in self.checkpoint and np.prod(self.checkpoint[name].shape) == 1:
            self.checkpoint[name].check(name, REAL)
            scale = float(np.asarray(self.checkpoint[name].read(), np.float32).reshape(-1)[0])
            self.ranges[layer.name] = Range(8, True, scale)

    def with_bits(self, layer: Layer) -> Layer:
        """The layer with the widths of its codes."""
        held, given = self.tensors.get(layer.name), self.ranges.get(layer.name)
        bits: dict[str, int] = {}
        if held is not None and held.codes is not None:
            bits["weight_bits"] = held.codes.grid.bits
        if given is not None:
            bits["activation_bits"] = given.bits
        return msgspec.structs.replace(layer, **bits)
