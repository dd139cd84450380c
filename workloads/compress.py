"""Compression: a trained network and a recipe give codes, sizes, and what is left of its answers.

For each weight: prune by the recipe's pattern (magnitude decides), then fit and apply the number
format, one scale per tensor, channel or group. For each operand that a product reads: find its
range on inputs for calibration, run on the float32 network, or leave it to be found anew for each
input (*dynamic*). The compressed network then runs on inputs it was not calibrated on, with decoded
weights and with operands rounded on the way: what an accelerator with exact accumulation would
give, up to the float32 order of sums.

Left out: training, bias correction and any rounding learned from data. Sizes count codes, their
index if zeros are left out, scales, zero points and codebooks; biases, normalisation and small
tables stay in float32 and are not counted on either side.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from sparqsim.base import InputError
from sparqsim.workloads import formats, storage
from sparqsim.workloads.adaptive import fit_ant, fit_olive, pair_axis
from sparqsim.workloads.calibrate import Method, Percentile
from sparqsim.workloads.models.real import Subject
from sparqsim.workloads.observers import MovingAverage
from sparqsim.workloads.prune import density_of, prune
from sparqsim.workloads.quantize import QuantizedTensor, Quantizer, fit, sqnr_db, vanished
from sparqsim.workloads.recipes import KEEP, Recipe, TensorRecipe, settled, signed_or_not
from sparqsim.workloads.slices import Slices, checked
from sparqsim.workloads.storage import StoredTensor

Array = NDArray[np.float32]
# derived: a bitmap costs one bit per code, so at 8 bits it pays if more than an eighth are zeros
ZEROS_WORTH_LEAVING_OUT = 7 / 8
SHARED_VALUE_BITS = 16  # published: EIE (ISCA 2016), section IV: codebooks of 16-bit fixed point
Progress = Callable[[str, int, int], None]  # what is done, steps done, steps in all


class TensorReport(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one weight.

    Attributes
    ----------
    name : str
    shape : tuple of int
    format : str
        The format chosen, or several joined by ``|``; ``float32`` if it was left.
    granularity, layout : str
        Values that share a scale; how the codes lie (see :mod:`sparqsim.workloads.storage`).
    code_bits, bits_per_weight : float
        Width of a code; stored bits over number of weights, everything included.
    density : float
        Share of decoded weights that are not zero.
    sqnr_db : float or None
        Signal to noise of decoded against trained weights; None if nothing differs.
    bytes : int
        Stored size, rounded up.
    vanished : int
        Slices so small that no normal float32 is their scale: they became zero.
    """

    name: str
    shape: tuple[int, ...]
    format: str
    granularity: str
    layout: str
    code_bits: int
    bits_per_weight: float
    density: float
    sqnr_db: float | None
    bytes: int
    vanished: int = 0


class ActivationReport(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one operand; density and SQNR are of the inputs for calibration."""

    name: str
    format: str
    dynamic: bool
    code_bits: int
    density: float
    sqnr_db: float | None


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """A compression in numbers.

    Attributes
    ----------
    model, source, recipe : str
    tensors, activations : tuple
    float32_bytes, bytes : int
        Of all weights that a recipe may touch.
    float32, compressed : dict
        Measures of the network before and after, by name; both empty where it was not judged.
    seconds : float
        Wall time of compressing: pruning, fitting, encoding and calibrating, without judging.
    """

    model: str
    source: str
    recipe: str
    tensors: tuple[TensorReport, ...]
    activations: tuple[ActivationReport, ...]
    float32_bytes: int
    bytes: int
    float32: dict[str, float]
    compressed: dict[str, float]
    seconds: float

    @property
    def ratio(self) -> float:
        """How many times smaller the weights became."""
        return self.float32_bytes / self.bytes


@dataclass(frozen=True)
class Compressed:
    """A compressed network.

    Attributes
    ----------
    model : str
    recipe : Recipe
    tensors : mapping of str to QuantizedTensor or float32 array
        By weight; an array is what was left in float32.
    activations : mapping of str to Quantizer
        By operand, for those that are calibrated.
    """

    model: str
    recipe: Recipe
    tensors: Mapping[str, QuantizedTensor | Array]
    activations: Mapping[str, Quantizer]

    def weights(self) -> dict[str, Array]:
        """Return the decoded weights, by name."""
        return {
            name: tensor.dequantize() if isinstance(tensor, QuantizedTensor) else tensor
            for name, tensor in self.tensors.items()
        }

    def see(self, name: str, operand: Array) -> Array | None:
        """Return an operand as the recipe leaves it; None if it does not touch it.

        Raises
        ------
        InputError
            If the operand should be calibrated and was not, or is not finite.
        """
        recipe = self.recipe.of("activations", name)
        if recipe.scheme == "keep" and recipe.rule is None:
            return None
        operand = pruned_inputs(operand, recipe)
        if recipe.scheme == "keep":
            return operand
        if recipe.dynamic:
            return fitted(operand, recipe).round(operand)
        if name not in self.activations:
            raise InputError(
                f"{self.model} has no calibrated range for the operand {name!r}; "
                "calibrate on inputs that reach it"
            )
        return self.activations[name].round(operand)


def pruned_inputs(x: Array, recipe: TensorRecipe) -> Array:
    """Activations with zeros where the recipe's rule makes them."""
    rule = recipe.rule
    return x if rule is None else rule.apply(x).astype(np.float32, copy=False)


def _moving(x: Array, constant: float) -> MovingAverage:
    """A moving average that has seen ``x`` input by input, along the first axis."""
    observer = MovingAverage(constant=constant)
    for one in x:
        observer.update(one)
    return observer


def _method(name: str) -> str | Method:
    return Percentile(percent=float(name[11:])) if name.startswith("percentile:") else name


def fitted(
    x: Array, recipe: TensorRecipe, axis: int | None = None, zero: bool = False
) -> Quantizer:
    """Return the quantizer that a recipe finds for a tensor.

    Parameters
    ----------
    x : float32 array
    recipe : TensorRecipe
        Any but ``float32``.
    axis : int, optional
        The axis of channels; used unless the granularity is ``tensor``.
    zero : bool
        Whether a codebook keeps its first entry for zero though ``x`` holds none: its zeros were
        left out.

    Raises
    ------
    InputError
        If the tensor is empty, not finite, does not suit the format, or exceeds its range where
        the scale is 1.
    """
    axis = None if recipe.granularity in ("tensor", "token") else axis
    bits = recipe.scheme_bits or 0
    tokens = recipe.granularity == "token"
    if tokens and recipe.scheme != "format":
        raise InputError(f"{recipe.format} has one scale per tensor; leave out granularity token")
    if recipe.scheme == "ant":
        return fit_ant(x, bits, axis=axis, group=recipe.group, ragged=recipe.pad)
    if recipe.scheme == "olive":
        return fit_olive(
            x, bits, axis=axis, group=recipe.group, ragged=recipe.pad, pairs=pair_axis(x.ndim)
        )
    if recipe.scheme == "codebook":
        if axis is not None:
            raise InputError("a codebook is shared by a tensor; granularity must be tensor")
        zero = zero or bool((x == 0).any())
        grid = formats.fit_codebook(x, bits, zero=zero, entry_bits=SHARED_VALUE_BITS)
        return Quantizer((grid,), np.ones(1, np.float32), None, Slices())
    signed, unsigned = signed_or_not(recipe.format)
    negative = recipe.asymmetric or bool(x.min() < 0)
    if recipe.calibration == "unit":
        return _unscaled(x, formats.get(signed if negative else unsigned))
    moving = recipe.moving
    return fit(
        x if moving is None else _moving(x, moving),
        signed if negative else unsigned,
        method="minmax" if moving is not None else _method(recipe.calibration),
        axis=axis,
        group=recipe.group,
        ragged=recipe.pad,
        tokens=tokens,
        asymmetric=recipe.asymmetric,
    )


def _unscaled(x: Array, grid: formats.Format) -> Quantizer:
    """The quantizer of a format at a scale of 1; raises InputError if a value exceeds its range."""
    least, most = float(grid.values[0]), float(grid.values[-1])
    for end in (float(x.min()), float(x.max())):
        if not least <= end <= most:
            raise InputError(
                f"{grid.name} at a scale of 1 holds {least:g} to {most:g}, got {end:g}; choose "
                "another calibration than unit, or another format"
            )
    return Quantizer((grid,), np.ones(1, np.float32))


def fitted_weight(
    x: Array, recipe: TensorRecipe, zero: bool = False
) -> tuple[Array, Quantizer | None]:
    """One weight, outputs first, as it is pruned, and its quantizer; None for ``float32``.

    A codebook keeps its first entry for zero where the recipe prunes, or with ``zero``.

    Raises
    ------
    InputError
        If it is not finite, or suits neither pattern nor format.
    """
    x = checked(x, "a weight").astype(np.float32, copy=False)
    if recipe.across:
        raise InputError("pruning across layers needs all of them: run or compress the network")
    if recipe.score != "magnitude":
        raise InputError(f"the score {recipe.score} needs the loss's slopes: use sparqsim train")
    if recipe.prune is not None:
        x = prune(x, recipe.pattern, recipe.density)
        x += np.float32(0)  # no minus zero, which a bitmap would have to keep
    if recipe.scheme == "keep":
        return x, None
    pruned = zero or recipe.prune is not None
    found = fitted(x, recipe, axis=0, zero=pruned)
    without = [grid.name for grid in found.formats if not (grid.values == 0).any()]
    if pruned and without and found.zero_point is None:
        raise InputError(
            f"{without[0]} holds no zero, so what was pruned would come back; choose a format "
            "that holds one, such as int4 or flint4, or do not prune"
        )
    return x, found


def compress_weight(x: Array, recipe: TensorRecipe, zero: bool = False) -> QuantizedTensor | Array:
    """Prune and quantize one weight, outputs first: :func:`fitted_weight`, in codes."""
    kept, found = fitted_weight(x, recipe, zero)
    return kept if found is None else found.quantize(kept)


def _noise(x: Array, y: Array) -> float | None:
    """SQNR in dB, or None where nothing differs (JSON has no infinity)."""
    ratio = sqnr_db(x, y)
    return ratio if np.isfinite(ratio) else None


def _format_name(tensor: QuantizedTensor | Quantizer) -> str:
    quantizer = tensor.quantizer if isinstance(tensor, QuantizedTensor) else tensor
    return "|".join(grid.name for grid in quantizer.formats)


def _tensor_report(
    name: str,
    original: Array,
    tensor: QuantizedTensor | Array,
    stored: StoredTensor,
    recipe: TensorRecipe,
) -> TensorReport:
    coded = isinstance(tensor, QuantizedTensor)
    decoded = tensor.dequantize() if isinstance(tensor, QuantizedTensor) else tensor
    return TensorReport(
        name=name,
        shape=original.shape,
        format=_format_name(tensor) if isinstance(tensor, QuantizedTensor) else KEEP,
        granularity=recipe.granularity if coded else "",
        layout=stored.entry.layout,
        code_bits=tensor.quantizer.bits if isinstance(tensor, QuantizedTensor) else 32,
        bits_per_weight=stored.bits / original.size,
        density=density_of(decoded),
        sqnr_db=_noise(original, decoded),
        bytes=-(-stored.bits // 8),
        vanished=vanished(original, tensor.quantizer) if isinstance(tensor, QuantizedTensor) else 0,
    )


def activation_report(
    name: str, operand: Array, left: Array, quantizer: Quantizer | None, recipe: TensorRecipe
) -> ActivationReport:
    """What is ``left`` of an operand; without a quantizer it stays in float32."""
    return ActivationReport(
        name=name,
        format=KEEP if quantizer is None else _format_name(quantizer),
        dynamic=recipe.dynamic,
        code_bits=32 if quantizer is None else quantizer.bits,
        density=density_of(left),
        sqnr_db=_noise(operand, left),
    )


def stored(tensor: QuantizedTensor | Array, original: Array, recipe: TensorRecipe) -> StoredTensor:
    """How a weight is stored: without its zeros where a recipe or training has made many."""
    sparse = recipe.prune is not None or density_of(original) < ZEROS_WORTH_LEAVING_OUT
    return storage.store(tensor, sparse)


def compress(
    subject: Subject, recipe: Recipe, *, judge: bool = True, progress: Progress | None = None
) -> tuple[Compressed, Report, dict[str, StoredTensor]]:
    """Compress a network by a recipe that does not train.

    Parameters
    ----------
    subject : Subject
        A trained network with its inputs, as :func:`sparqsim.workloads.models.real.subject` gives.
    recipe : Recipe
    judge : bool
        Whether to run the network, in float32 and compressed.
    progress : callable, optional
        Called as ``progress(what, done, total)``.

    Returns
    -------
    Compressed
    Report
    dict of str to StoredTensor
        What :func:`save` writes.

    Raises
    ------
    InputError
        If a tensor suits its pattern or format not, or an override matches no layer; the tensor
        is named.
    """
    touched = recipe.activations.scheme != "keep" or recipe.activations.rule is not None
    touched |= any(row.activations is not None for row in recipe.override)
    start = time.perf_counter()
    captured: Mapping[str, Array] = subject.capture() if touched else {}
    # Overrides are checked against operands too where they are known.
    recipe.check_names([*subject.weights, *captured, *(layer.name for layer in subject.layers)])
    recipe = settled(recipe, subject.weights, subject.tables)
    total = len(subject.weights) + len(captured) + 2 * judge

    def tell(what: str, done: int) -> None:
        if progress is not None:
            progress(what, done, total)

    tensors: dict[str, QuantizedTensor | Array] = {}
    for done, (name, original) in enumerate(subject.weights.items()):
        tell(name, done)
        try:
            tensors[name] = compress_weight(original, recipe.of(subject.kind(name), name))
        except InputError as error:
            raise InputError(
                f"{subject.name}/{name} with the recipe {recipe.name!r}: {error} "
                "(an [[override]] can treat this layer otherwise)"
            ) from None
    quantizers: dict[str, Quantizer] = {}
    activation_reports = []
    shared: dict[tuple[int, TensorRecipe], tuple[Quantizer, Array]] = {}
    for done, (name, operand) in enumerate(captured.items(), start=len(tensors)):
        tell(name, done)
        chosen = recipe.of("activations", name)
        if chosen.scheme == "keep":
            if chosen.rule is not None:
                left = pruned_inputs(operand, chosen)
                activation_reports.append(activation_report(name, operand, left, None, chosen))
            continue
        key = (id(operand), chosen)  # products that read the same array share its quantizer
        try:
            if key not in shared:
                left = pruned_inputs(operand, chosen)
                quantizer = fitted(left, chosen)
                shared[key] = quantizer, quantizer.round(left)
            quantizer, rounded = shared[key]
        except InputError as error:
            raise InputError(f"{subject.name}, operand {name!r}: {error}") from None
        if not chosen.dynamic:
            quantizers[name] = quantizer
        activation_reports.append(activation_report(name, operand, rounded, quantizer, chosen))
    seconds = time.perf_counter() - start
    result = Compressed(subject.name, recipe, tensors, quantizers)
    report, parts = reported(
        subject, result, activation_reports, judge=judge, seconds=seconds, tell=tell
    )
    tell("done", total)
    return result, report, parts


def reported(
    subject: Subject,
    result: Compressed,
    activations: Sequence[ActivationReport],
    *,
    judge: bool,
    seconds: float,
    originals: Mapping[str, Array] | None = None,
    tell: Callable[[str, int], None] = lambda what, done: None,
) -> tuple[Report, dict[str, StoredTensor]]:
    """What became of a network, and its weights as they are stored.

    Parameters
    ----------
    originals
        What its weights were before they were rounded, where training has moved them.
    """
    parts: dict[str, StoredTensor] = {}
    rows = []
    for name, tensor in result.tensors.items():
        original = (originals or subject.weights)[name]
        chosen = result.recipe.of(subject.kind(name), name)
        parts[name] = stored(tensor, original, chosen)
        rows.append(_tensor_report(name, original, tensor, parts[name], chosen))
    measures: list[dict[str, float]] = [{}, {}]
    if judge:
        done = len(rows) + len(activations)
        tell("float32 network", done)
        measures[0] = subject.judge(None, None)
        tell("compressed network", done + 1)
        measures[1] = subject.judge(result.weights(), result.see if activations else None)
    report = Report(
        model=subject.name,
        source=subject.source,
        recipe=result.recipe.name,
        tensors=tuple(rows),
        activations=tuple(activations),
        float32_bytes=sum(4 * weight.size for weight in subject.weights.values()),
        bytes=sum(row.bytes for row in rows),
        float32=measures[0],
        compressed=measures[1],
        seconds=seconds,
    )
    return report, parts


def save(folder: Path, compressed: Compressed, stored: Mapping[str, StoredTensor]) -> Path:
    """Write a compressed network (:func:`~sparqsim.workloads.storage.save`); return the folder."""
    storage.save(folder, compressed.model, compressed.recipe, stored, compressed.activations)
    return folder


def load(folder: Path) -> Compressed:
    """Read a compressed network: the same codes, scales and decoded weights, bit for bit.

    Raises
    ------
    InputError
        If a file is missing, truncated or was changed.
    """
    manifest, tensors, quantizers = storage.load(folder)
    return Compressed(manifest.model, manifest.recipe, tensors, quantizers)
