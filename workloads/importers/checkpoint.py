"""Checkpoints in safetensors: tensors by name, read when they are asked for, and their codes.

A checkpoint is one file or several that an index names, all in one folder. Only the header is read
at first; bfloat16 becomes float32. Quantized linear layers of GPTQ, AWQ and compressed-tensors
keep their codes, scales and zero points: ``scale * (code - zero)`` for each group of inputs.

Sources: the safetensors format; AutoGPTQ's, AutoAWQ's and compressed-tensors' packing.
"""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparqsim.base import InputError, read_text
from sparqsim.workloads.formats.integer import Int
from sparqsim.workloads.importers import MOST_ELEMENTS, Codes, Later

TYPES = {
    "F64": np.float64, "F32": np.float32, "F16": np.float16, "I64": np.int64, "I32": np.int32,
    "I16": np.int16, "I8": np.int8, "U8": np.uint8, "BOOL": np.bool_, "BF16": np.uint16,
}  # fmt: skip
REAL = ("F64", "F32", "F16", "BF16")  # what scales are of
WORDS = ("I32",)  # published: what codes are packed into
LONGEST_HEADER = 100 * 2**20  # published: the format's own limit, bytes
AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)  # published: AutoAWQ, which output a nibble belongs to


@dataclass(frozen=True)
class Stored:
    """Where a tensor lies."""

    path: Path
    dtype: str
    shape: tuple[int, ...]
    start: int

    def check(self, name: str, kinds: Collection[str] = TYPES) -> None:
        """Refuse a tensor that is of none of these types."""
        if self.dtype not in kinds:
            raise InputError(
                f"{self.path}: {name!r} is of the type {self.dtype}, not supported; it must be "
                f"{', '.join(kinds)}"
            )

    def read(self) -> NDArray[Any]:
        """Map the values, of one of ``TYPES``; bfloat16 as float32."""
        if math.prod(self.shape) == 0:
            return np.zeros(self.shape, np.float32)
        held = np.memmap(self.path, TYPES[self.dtype], "r", self.start, self.shape)
        if self.dtype == "BF16":
            return (held.astype(np.uint32) << 16).view(np.float32)
        return held


class Checkpoint(Mapping[str, Stored]):
    """The tensors of a folder's safetensors, by name; empty if there are none.

    Raises
    ------
    InputError
        If a file is damaged, or the index leads out of the folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.missing: list[str] = []
        self.tensors: dict[str, Stored] = {}
        for name in self._files():
            path = folder / name
            if os.path.isfile(path):
                self.tensors |= _header(path)
            else:
                self.missing.append(name)

    def _files(self) -> list[str]:
        index = self.folder / "model.safetensors.index.json"
        if not index.is_file():
            return ["model.safetensors"]
        found = read_json(index).get("weight_map")
        if not isinstance(found, dict) or not all(isinstance(v, str) for v in found.values()):
            raise InputError(f"{index} must map the names of tensors to files, as weight_map")
        names = sorted(set(found.values()))
        for name in names:
            if PurePosixPath(name).name != name or "\\" in name or "\0" in name:
                raise InputError(f"{index} names the file {name!r}, which must lie beside it")
        return names

    def __getitem__(self, name: str) -> Stored:
        return self.tensors[name]

    def __iter__(self) -> Any:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)

    def later(self, name: str, shape: tuple[int, ...], turned: bool = False) -> Later:
        """Real numbers of a tensor of that shape; ``turned``: stored with inputs first.

        Raises
        ------
        InputError
            If its shape is another.
        """
        held = self.tensors[name]
        stored = shape[::-1] if turned else shape
        if math.prod(held.shape) != math.prod(shape) or (turned and held.shape != stored):
            raise InputError(
                f"{held.path}: {name!r} must be {list(stored)}, got {list(held.shape)}"
            )

        def make() -> NDArray[Any]:
            values = held.read().astype(np.float32, copy=False)
            return values.T if turned else values.reshape(shape)

        return Later(shape, make)


def read_json(path: Path) -> dict[str, Any]:
    """Return an object from a JSON file.

    Raises
    ------
    InputError
        If the file cannot be read or is none.
    """
    try:
        found = json.loads(read_text(path, "the configuration"))
    except InputError:
        raise
    except (ValueError, RecursionError):
        raise InputError(f"{path} is no JSON; download it again") from None
    if not isinstance(found, dict):
        raise InputError(f"{path} must hold a JSON object, got {type(found).__name__}")
    return found


def _header(path: Path) -> dict[str, Stored]:
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(8)
        length = struct.unpack("<Q", head)[0] if len(head) == 8 else size
        if length > min(size - 8, LONGEST_HEADER):
            raise InputError(f"{path} is no safetensors file, or is cut short; copy it again")
        text = file.read(length)
    try:
        entries = json.loads(text)
    except (ValueError, RecursionError):
        raise InputError(f"{path} has a header that is no JSON; copy it again") from None
    if not isinstance(entries, dict):
        raise InputError(f"{path} has a header that is no table; copy it again")
    found = {}
    for name, entry in entries.items():
        if name == "__metadata__":
            continue
        try:
            dtype, shape = str(entry["dtype"]), tuple(entry["shape"])
            first, last = entry["data_offsets"]
            whole = all(type(n) is int and n >= 0 for n in (*shape, first, last))
        except (KeyError, TypeError, ValueError):
            whole = False
        if not whole or math.prod(max(n, 1) for n in shape) > MOST_ELEMENTS or len(shape) > 32:
            raise InputError(f"{path}: {name!r} has no sane dtype, shape and data_offsets")
        if dtype in TYPES:
            wanted = math.prod(shape) * np.dtype(TYPES[dtype]).itemsize
            if last - first != wanted:
                raise InputError(f"{path}: {name!r} has {last - first} bytes, not {wanted}")
            if 8 + length + last > size:
                raise InputError(f"{path}: {name!r} ends behind the file's end; copy it again")
        found[name] = Stored(path, dtype, shape, 8 + length + first)
    return found


# -- quantized linear layers ----------------------------------------------------------------------


def codes_of(
    tensors: Checkpoint, prefix: str, shape: tuple[int, int], config: Mapping[str, Any]
) -> Codes | None:
    """Return the codes of a linear layer ``[out, in]``; None where its weights are real numbers.

    Parameters
    ----------
    prefix : str
        Of the layer's tensors.
    config : mapping
        The checkpoint's ``quantization_config``; empty for one that has none.

    Raises
    ------
    InputError
        If the packing is none that is known here, or tensors lack.
    """
    method = config.get("quant_method")
    if f"{prefix}.weight" in tensors and f"{prefix}.weight_scale" not in tensors:
        return None
    if not isinstance(method, str) or method not in PACKINGS:
        raise InputError(
            f"quant_method {method!r} is not supported; there is {', '.join(PACKINGS)}"
        )
    try:
        return PACKINGS[method](_Reader(tensors, prefix), shape, config)
    except KeyError as error:
        raise InputError(f"{tensors.folder}: there is no tensor {error.args[0]!r}") from None


class _Reader:
    """The tensors of one layer."""

    def __init__(self, tensors: Checkpoint, prefix: str) -> None:
        self.tensors, self.prefix = tensors, prefix

    def __contains__(self, name: str) -> bool:
        return f"{self.prefix}.{name}" in self.tensors

    def check(self, name: str, kinds: Collection[str]) -> None:
        self.tensors[f"{self.prefix}.{name}"].check(f"{self.prefix}.{name}", kinds)

    def shape(self, name: str) -> tuple[int, ...]:
        return self.tensors[f"{self.prefix}.{name}"].shape

    def __call__(self, name: str) -> NDArray[Any]:
        return self.tensors[f"{self.prefix}.{name}"].read()

    def must_be(self, name: str, shape: tuple[int, ...], kinds: Collection[str]) -> None:
        """Check a tensor's shape and type."""
        self.check(name, kinds)
        if self.shape(name) != shape:
            raise InputError(
                f"{self.prefix}.{name} must be {list(shape)}, got {list(self.shape(name))}"
            )


def unpacked(words: NDArray[Any], bits: int, axis: int) -> NDArray[np.uint8]:
    """Codes of ``bits`` from words of 32, the lowest first, along an axis."""
    last = np.moveaxis(np.asarray(words).view(np.uint32), axis, -1)
    mask, places = (1 << bits) - 1, range(0, 32, bits)
    codes = np.stack([(last >> place) & mask for place in places], axis=-1).astype(np.uint8)
    return np.moveaxis(codes.reshape(*last.shape[:-1], -1), -1, axis)


def _bits(config: Mapping[str, Any], shape: tuple[int, int]) -> tuple[int, int]:
    """Width of a code, and how many inputs share a scale."""
    bits = config.get("bits", config.get("w_bit", 4))
    group = config.get("group_size", config.get("q_group_size", 128))
    if type(bits) is not int or bits not in (2, 4, 8):
        raise InputError(f"codes must have 2, 4 or 8 bits, got {bits!r}")
    if type(group) is not int or group == 0 or group < -1:
        raise InputError(f"group_size must be whole and at least 1, or -1, got {group!r}")
    return bits, shape[1] if group == -1 else group


def _gptq(read: _Reader, shape: tuple[int, int], config: Mapping[str, Any]) -> Codes:
    """``qweight`` [in / pack, out], ``qzeros`` [groups, out / pack], ``scales`` [groups, out].

    Inputs come in the order of their groups, as kernels take them: with act-order a group is spread
    over the inputs as they are stored.
    """
    (outputs, inputs), (bits, group) = shape, _bits(config, shape)
    pack, groups = 32 // bits, -(-inputs // group)
    if inputs % pack or outputs % pack:
        raise InputError(f"GPTQ must pack {pack} codes a word; {outputs} x {inputs} are no such")
    more = 0 if config.get("checkpoint_format") == "gptq_v2" else 1  # published: stored less one
    read.must_be("qweight", (inputs // pack, outputs), WORDS)
    read.must_be("scales", (groups, outputs), REAL)
    read.must_be("qzeros", (groups, outputs // pack), WORDS)
    of_input = np.arange(inputs) // group
    if "g_idx" in read:
        read.must_be("g_idx", (inputs,), ("I32", "I64"))
        of_input = read("g_idx").astype(np.int64)
        if of_input.min(initial=0) < 0 or of_input.max(initial=0) >= groups:
            raise InputError(f"{read.prefix}.g_idx must name a group for each input")
    order = np.argsort(of_input, kind="stable")
    of_input = of_input[order]

    def zeros() -> NDArray[Any]:
        held = (unpacked(read("qzeros"), bits, 1).astype(np.int32) + more) & ((1 << bits) - 1)
        return held[of_input].T

    return Codes(
        Later(shape, lambda: unpacked(read("qweight"), bits, 0)[order].T),
        Later(shape, lambda: read("scales").astype(np.float32)[of_input].T),
        Later(shape, zeros),
        Int(bits, False),
    )


def _awq(read: _Reader, shape: tuple[int, int], config: Mapping[str, Any]) -> Codes:
    """``qweight`` [in, out / 8] in an order of its own, ``qzeros`` and ``scales`` by groups."""
    (outputs, inputs), (bits, group) = shape, _bits(config, shape)
    if bits != 4 or str(config.get("version", "gemm")).lower() != "gemm":
        raise InputError("AWQ must be of 4 bits in the version gemm")
    groups = -(-inputs // group)
    if outputs % 8:
        raise InputError(f"AWQ must pack 8 outputs a word, got {outputs}")
    read.must_be("qweight", (inputs, outputs // 8), WORDS)
    read.must_be("scales", (groups, outputs), REAL)
    read.must_be("qzeros", (groups, outputs // 8), WORDS)

    def ordered(words: NDArray[Any]) -> NDArray[np.uint8]:
        codes = unpacked(words, 4, 1).reshape(len(words), -1, 8)
        found = np.empty_like(codes)
        found[..., AWQ_ORDER] = codes
        return found.reshape(len(words), -1)

    def spread(values: NDArray[Any]) -> NDArray[Any]:
        return np.repeat(values, group, axis=0)[:inputs].T

    return Codes(
        Later(shape, lambda: ordered(read("qweight")).T),
        Later(shape, lambda: spread(read("scales").astype(np.float32))),
        Later(shape, lambda: spread(ordered(read("qzeros")))),
        Int(4, False),
    )


def _compressed(read: _Reader, shape: tuple[int, int], config: Mapping[str, Any]) -> Codes:
    """``weight`` of int8, or ``weight_packed`` less 2^(bits - 1), and ``weight_scale``."""
    groups = config.get("config_groups")
    first = next(iter(groups.values())) if isinstance(groups, dict) and groups else {}
    told = first.get("weights") if isinstance(first, dict) else None
    bits = told.get("num_bits", 8) if isinstance(told, dict) else 8
    if "weight_zero_point" in read or "weight_g_idx" in read:
        raise InputError("compressed-tensors must be symmetric and in order, these are not")
    packed = "weight_packed" in read
    if type(bits) is not int or bits not in (4, 8):
        raise InputError("compressed-tensors must hold integers of 4 or 8 bits")
    outputs, inputs = shape
    if packed:
        read.must_be("weight_packed", (outputs, -(-inputs * bits // 32)), WORDS)
    else:
        read.must_be("weight", shape, ("I8",))
    scales = read.shape("weight_scale")
    read.check("weight_scale", REAL)
    groups = scales[1] if len(scales) == 2 else 1
    even = 1 <= groups <= inputs and -(-inputs // -(-inputs // groups)) == groups
    if math.prod(scales) != 1 and (scales[0] != outputs or len(scales) > 2 or not even):
        raise InputError(f"{read.prefix}.weight_scale must be by output, got {list(scales)}")

    def numbers() -> NDArray[Any]:
        if not packed:
            return read("weight")
        codes = unpacked(read("weight_packed"), bits, 1)[:, :inputs]
        return codes.astype(np.int16) - (1 << bits - 1)

    def scale() -> NDArray[Any]:
        held = read("weight_scale").astype(np.float32)
        if held.size == 1:
            return np.broadcast_to(held.reshape(()), shape)
        held = held.reshape(outputs, -1)
        return np.repeat(held, -(-inputs // held.shape[1]), axis=1)[:, :inputs]

    zero = Later(shape, lambda: np.broadcast_to(np.int32(0), shape))
    return Codes(Later(shape, numbers), Later(shape, scale), zero, Int(bits))


PACKINGS: dict[Any, Callable[[_Reader, tuple[int, int], Mapping[str, Any]], Codes]] = {
    "gptq": _gptq,
    "awq": _awq,
    "compressed-tensors": _compressed,
}
