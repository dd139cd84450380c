"""A compressed model on disk: codes in safetensors, what they mean in JSON, the same bits back.

A folder holds two files. ``compressed.safetensors`` has the arrays: codes packed to their width,
scales, zero points. ``compressed.json`` says for each tensor its shape, its number format and how
the codes lie, repeats the recipe, and carries the SHA-256 of the other file, so that two files
that do not belong together are refused. Reading gives the codes that were written, bit for bit,
and so the same decoded weights.

Codes lie in one of three ways:

* ``dense``: all of them.
* ``bitmap``: one bit a code that says whether it is the *fill* (the code of most zeros), then the
  codes that are not.
* ``gaps``: codes that are not the fill, each with the number of fills before it in 4 bits; a
  longer run takes entries of their own (Deep Compression, ICLR 2016).

The last two are tried only for tensors that were pruned or had an eighth of zeros before, and then
the smallest of the three is taken; float32 values lie dense or by bitmap. For 2:4 sparsity the
bitmap takes just the bits of its metadata. Biases and normalisation are not compressed and stay
with the model.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from sparqsim.base import InputError, output_folder, written_whole
from sparqsim.workloads import formats
from sparqsim.workloads.formats import Format
from sparqsim.workloads.formats.codebook import Codebook
from sparqsim.workloads.quantize import SCALE_BITS, QuantizedTensor, Quantizer
from sparqsim.workloads.recipes import Recipe
from sparqsim.workloads.slices import Slices

Layout = Literal["dense", "bitmap", "gaps"]
Bytes = NDArray[np.uint8]

ARRAYS, MANIFEST = "compressed.safetensors", "compressed.json"
VERSION = 1
RUN_BITS = 4  # published: EIE's and Deep Compression's index width
LONGEST_RUN = (1 << RUN_BITS) - 1
LARGEST = 1 << 30  # assumed: no tensor of a file is larger, so a hostile header asks for no more


def pack_bits(codes: NDArray[np.unsignedinteger], bits: int) -> Bytes:
    """Return codes packed to ``bits`` bits each, the first in the lowest bits of the first byte.

    Parameters
    ----------
    codes : unsigned array
        Of any shape; below ``2**bits``.
    bits : int
        1 to 32.
    """
    flat = codes.reshape(-1)
    if bits in (8, 16):
        return flat.astype(f"<u{bits // 8}").view(np.uint8)
    if bits == 4:
        even = np.append(flat, flat.dtype.type(0)) if flat.size % 2 else flat
        return (even[::2] | (even[1::2] << 4)).astype(np.uint8)
    size = np.min_scalar_type((1 << bits) - 1).itemsize
    planes = np.unpackbits(
        flat.astype(f"<u{size}").view(np.uint8).reshape(flat.size, size),
        axis=1,
        count=bits,
        bitorder="little",
    )
    return np.packbits(planes, bitorder="little")


def unpack_bits(packed: Bytes, bits: int, count: int) -> NDArray[np.unsignedinteger]:
    """Return the ``count`` codes of `pack_bits`: uint8, uint16 or uint32, whichever holds them.

    Raises
    ------
    InputError
        If there are not just as many bytes as that takes.
    """
    if len(packed) != -(-count * bits // 8):
        raise InputError(
            f"{count} codes of {bits} bits must take {-(-count * bits // 8)} bytes, "
            f"got {len(packed)}"
        )
    dtype = np.min_scalar_type((1 << bits) - 1)
    if bits in (8, 16):
        return packed.view(f"<u{bits // 8}").astype(dtype)
    if bits == 4:
        return np.stack([packed & 15, packed >> 4], axis=1).reshape(-1)[:count]
    planes = np.unpackbits(packed, count=count * bits, bitorder="little").reshape(count, bits)
    whole = np.zeros((count, dtype.itemsize * 8), np.uint8)
    whole[:, :bits] = planes
    return np.packbits(whole, axis=1, bitorder="little").reshape(-1).view(dtype)


def runs_of(kept: NDArray[np.bool_]) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Return the runs of fills before each entry, and which entries are codes (others pad).

    A gap of g fills takes ``g // 16`` padding entries of run 15 (they stand for a fill
    themselves), then the code with ``g % 16``.
    """
    places = np.flatnonzero(kept)
    gaps = np.diff(places, prepend=-1) - 1
    pads = gaps // (LONGEST_RUN + 1)
    ends = np.cumsum(pads + 1)
    runs = np.full(int(ends[-1]) if len(ends) else 0, LONGEST_RUN, np.uint8)
    is_code = np.zeros(len(runs), np.bool_)
    runs[ends - 1] = gaps % (LONGEST_RUN + 1)
    is_code[ends - 1] = True
    return runs, is_code


class FormatEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A number format by name; a codebook also by its entries."""

    name: str
    entries: tuple[float, ...] = ()

    @classmethod
    def of(cls, grid: Format) -> FormatEntry:
        """Describe a format."""
        return cls(name=grid.name, entries=grid.entries if isinstance(grid, Codebook) else ())

    def format(self) -> Format:
        """Return the format described.

        Raises
        ------
        InputError
            If there is none so called.
        """
        if not self.entries:
            return formats.get(self.name)
        bits = self.name.removeprefix("codebook")
        if not bits.isdecimal():
            raise InputError(f"only a codebook has entries, got {self.name!r} with some")
        return Codebook(self.entries, int(bits))


class TensorEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the arrays of one tensor mean.

    Attributes
    ----------
    formats : tuple of FormatEntry
        Empty for a tensor left in float32.
    axis, group, ragged
        Values that share a scale; see :class:`sparqsim.workloads.slices.Slices`.
    pairs : int or None
        Axis of outlier-victim pairs.
    layout : str
        How the codes lie.
    fill : int or None
        The code that ``bitmap`` and ``gaps`` leave out; None: the zero point of each slice.
    stored : int
        How many codes (with padding) or float32 values are stored.
    """

    shape: tuple[int, ...]
    formats: tuple[FormatEntry, ...] = ()
    axis: int | None = None
    group: int | None = None
    ragged: bool = False
    pairs: int | None = None
    layout: Layout = "dense"
    fill: int | None = 0
    stored: int = 0


class ActivationEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A calibrated quantizer of one operand."""

    formats: tuple[FormatEntry, ...]
    scale: float
    zero_point: int | None = None
    pairs: int | None = None


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``compressed.json``."""

    version: int
    model: str
    recipe: Recipe
    tensors: dict[str, TensorEntry]
    activations: dict[str, ActivationEntry]
    sha256: str


@dataclass(frozen=True)
class StoredTensor:
    """One tensor as it will lie in the file.

    Attributes
    ----------
    entry : TensorEntry
    arrays : mapping of str to array
        By part, each a row: ``codes``, ``scale`` ...; ``values`` for float32.
    bits : int
        Size of all together: codes and index at their width, scales and shared values at 32 bits.
    """

    entry: TensorEntry
    arrays: Mapping[str, NDArray[np.generic]]
    bits: int


def store(tensor: QuantizedTensor | NDArray[np.float32], sparse: bool) -> StoredTensor:
    """Lay one tensor out.

    Parameters
    ----------
    tensor : QuantizedTensor or float32 array
    sparse : bool
        Whether layouts that leave zeros out are tried; the smallest is taken.
    """
    if not isinstance(tensor, QuantizedTensor):
        return _store_floats(tensor, sparse)
    q, codes = tensor.quantizer, tensor.codes.reshape(-1)
    layout: Layout = "dense"
    fill: int | None = 0
    size = codes.size * q.bits
    kept = np.ones(codes.size, np.bool_)
    runs, is_code = np.empty(0, np.uint8), np.empty(0, np.bool_)
    if sparse:
        fill = int(np.bincount(codes).argmax()) if q.zero_point is None else None
        not_fill = codes != _fills(fill, q, tensor.shape)
        trial_runs, trial_is_code = runs_of(not_fill)
        sizes: dict[Layout, int] = {
            "dense": size,
            "bitmap": codes.size + int(not_fill.sum()) * q.bits,
            "gaps": len(trial_runs) * (RUN_BITS + q.bits),
        }
        layout = min(sizes, key=lambda name: sizes[name])
        size = sizes[layout]
        if layout != "dense":
            kept, runs, is_code = not_fill, trial_runs, trial_is_code
    arrays: dict[str, NDArray[np.generic]] = {"scale": q.scale}
    stored = codes[kept]
    if layout == "bitmap":
        arrays["bitmap"] = np.packbits(kept, bitorder="little")
    elif layout == "gaps":
        arrays["runs"] = pack_bits(runs, RUN_BITS)
        padded = np.full(len(runs), fill or 0, codes.dtype)
        padded[is_code] = stored
        stored = padded
    arrays["codes"] = pack_bits(stored, q.bits)
    if q.zero_point is not None:
        arrays["zero_point"] = q.zero_point
    if q.choice is not None:
        arrays["choice"] = q.choice
    entry = TensorEntry(
        shape=tensor.shape,
        formats=tuple(FormatEntry.of(grid) for grid in q.formats),
        axis=q.slices.axis,
        group=q.slices.group,
        ragged=q.slices.ragged,
        pairs=q.pairs,
        layout=layout,
        fill=fill,
        stored=len(stored),
    )
    size += q.side_bits
    size += sum(SCALE_BITS * len(described.entries) for described in entry.formats)
    return StoredTensor(entry, arrays, size)


def _fills(
    fill: int | None, q: Quantizer, shape: tuple[int, ...]
) -> int | NDArray[np.unsignedinteger]:
    """The code that is left out: one for all, or at each place of a tensor the zero point's."""
    if fill is not None:
        return fill
    assert q.zero_point is not None
    zeros = (q.zero_point & ((1 << q.bits) - 1)).astype(q.formats[0].code_dtype)
    rows = q.slices.split(np.empty(shape, zeros.dtype))
    return q.slices.join(np.repeat(zeros[:, None], rows.shape[1], axis=1), shape).reshape(-1)


def _store_floats(tensor: NDArray[np.float32], sparse: bool) -> StoredTensor:
    """Lay a float32 tensor out: all values, or a bitmap and those whose bits are not all 0."""
    flat = np.ascontiguousarray(tensor, np.float32).reshape(-1)
    kept = flat.view(np.uint32) != 0
    dense, bitmap = flat.size * 32, flat.size + int(kept.sum()) * 32
    if not sparse or bitmap >= dense:
        entry = TensorEntry(shape=tensor.shape, stored=flat.size)
        return StoredTensor(entry, {"values": flat}, dense)
    arrays = {"values": flat[kept], "bitmap": np.packbits(kept, bitorder="little")}
    entry = TensorEntry(shape=tensor.shape, layout="bitmap", stored=int(kept.sum()))
    return StoredTensor(entry, arrays, bitmap)


def restore(
    entry: TensorEntry, arrays: Mapping[str, NDArray[np.generic]]
) -> QuantizedTensor | NDArray[np.float32]:
    """Return the tensor that `store` laid out.

    Raises
    ------
    InputError
        If a part is missing, or parts do not fit together.
    """
    size = math.prod(entry.shape)
    if min(entry.shape, default=1) < 1 or size > LARGEST or not 0 <= entry.stored <= 2 * size:
        raise InputError(f"a tensor cannot have the shape {entry.shape}, {entry.stored} stored")

    def part(name: str, dtype: type) -> NDArray:
        found = arrays.get(name)
        if found is None or found.dtype != dtype or found.ndim != 1:
            raise InputError(f"the part {name!r} must be there, as a row of {np.dtype(dtype)}")
        return found

    def spread(stored: NDArray, fill: int | NDArray) -> NDArray:
        """Put stored codes or values where the layout says, the fill elsewhere."""
        if entry.layout == "dense":
            places = np.arange(len(stored))
        elif entry.layout == "bitmap":
            bitmap = part("bitmap", np.uint8)
            if len(bitmap) != -(-size // 8):
                raise InputError(f"a bitmap of {size} must take {-(-size // 8)} bytes")
            places = np.flatnonzero(np.unpackbits(bitmap, count=size, bitorder="little"))
        else:
            runs = unpack_bits(part("runs", np.uint8), RUN_BITS, entry.stored)
            places = np.cumsum(runs.astype(np.int64) + 1) - 1
        enough = len(stored) == size if entry.layout == "dense" else True
        if not enough or len(places) != len(stored) or (len(places) and places[-1] >= size):
            raise InputError(f"the {entry.layout} layout must place {len(stored)} within {size}")
        whole = np.empty(size, stored.dtype)
        whole[:] = fill
        whole[places] = stored
        return whole.reshape(entry.shape)

    if not entry.formats:
        return spread(part("values", np.float32), 0)
    quantizer = Quantizer(
        tuple(described.format() for described in entry.formats),
        part("scale", np.float32),
        part("zero_point", np.int32) if "zero_point" in arrays else None,
        Slices(entry.axis, entry.group, entry.ragged),
        part("choice", np.uint8) if "choice" in arrays else None,
        entry.pairs,
    )
    stored = unpack_bits(part("codes", np.uint8), quantizer.bits, entry.stored)
    if entry.fill is None and quantizer.zero_point is None:
        raise InputError("a tensor without zero points must say which code is left out (fill)")
    if entry.fill is not None and not 0 <= entry.fill < 1 << quantizer.bits:
        raise InputError(f"the fill must be a code of {quantizer.bits} bits, got {entry.fill}")
    codes = np.zeros(entry.shape, quantizer.formats[0].code_dtype)
    if len(quantizer.slices.split(codes)) != len(quantizer.scale):
        raise InputError(
            f"a tensor of shape {entry.shape} does not have {len(quantizer.scale)} scales"
        )
    codes = spread(stored, _fills(entry.fill, quantizer, entry.shape))
    return QuantizedTensor(codes, quantizer)


def save(
    folder: Path,
    model: str,
    recipe: Recipe,
    tensors: Mapping[str, StoredTensor],
    activations: Mapping[str, Quantizer],
) -> tuple[Path, Path]:
    """Write the two files, both or neither; return their paths.

    Raises
    ------
    InputError
        If the folder cannot be made or written.
    """
    from safetensors.numpy import save as to_bytes

    arrays = {
        f"{name}:{part}": array
        for name, tensor in tensors.items()
        for part, array in tensor.arrays.items()
    }
    data = to_bytes(arrays)
    manifest = Manifest(
        version=VERSION,
        model=model,
        recipe=recipe,
        tensors={name: tensor.entry for name, tensor in tensors.items()},
        activations={
            name: ActivationEntry(
                formats=tuple(FormatEntry.of(grid) for grid in q.formats),
                scale=float(q.scale[0]),
                zero_point=None if q.zero_point is None else int(q.zero_point[0]),
                pairs=q.pairs,
            )
            for name, q in activations.items()
        },
        sha256=hashlib.sha256(data).hexdigest(),
    )
    text = msgspec.json.format(msgspec.json.encode(manifest), indent=1)
    folder = output_folder(folder)
    first, second = folder / ARRAYS, folder / MANIFEST
    with written_whole(first) as arrays_path, written_whole(second) as manifest_path:
        arrays_path.write_bytes(data)
        manifest_path.write_bytes(text)
    return first, second


def load(
    folder: Path,
) -> tuple[Manifest, dict[str, QuantizedTensor | NDArray[np.float32]], dict[str, Quantizer]]:
    """Read what `save` wrote: the manifest, the tensors and the activations' quantizers.

    Raises
    ------
    InputError
        If a file is missing, truncated, changed, or does not mean what a manifest must.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load as from_bytes

    folder = Path(folder)
    try:
        manifest = msgspec.json.decode((folder / MANIFEST).read_bytes(), type=Manifest)
        data = (folder / ARRAYS).read_bytes()
    except OSError as error:
        raise InputError(
            f"{folder} must hold {MANIFEST} and {ARRAYS}: {error.strerror} ({error.filename})"
        ) from None
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise InputError(f"{folder / MANIFEST} must be a manifest: {error}") from None
    if manifest.version != VERSION:
        raise InputError(
            f"{folder / MANIFEST} must be of version {VERSION}, got {manifest.version}"
        )
    if hashlib.sha256(data).hexdigest() != manifest.sha256:
        raise InputError(
            f"{folder / ARRAYS} is not the file that {MANIFEST} describes (its SHA-256 differs): "
            "it is truncated or was changed; compress the model anew"
        )
    try:
        arrays = from_bytes(data)
    except SafetensorError as error:
        raise InputError(f"{folder / ARRAYS} must be a safetensors file: {error}") from None
    tensors: dict[str, QuantizedTensor | NDArray[np.float32]] = {}
    for name, entry in manifest.tensors.items():
        mine = {
            key.removeprefix(f"{name}:"): array
            for key, array in arrays.items()
            if key.rsplit(":", 1)[0] == name
        }
        try:
            tensors[name] = restore(entry, mine)
        except InputError as error:
            raise InputError(f"{folder}, tensor {name!r}: {error}") from None
    quantizers = {
        name: Quantizer(
            tuple(described.format() for described in entry.formats),
            np.array([entry.scale], np.float32),
            None if entry.zero_point is None else np.array([entry.zero_point], np.int32),
            pairs=entry.pairs,
        )
        for name, entry in manifest.activations.items()
    }
    return manifest, tensors, quantizers
