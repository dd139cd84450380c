"""Pruning: which weights and activations stay, as patterns that are values.

A *pattern* says which shapes of zeros are allowed, because hardware can skip some and not others:

* :class:`Unstructured` - any single weight (EIE, SNAP);
* :class:`Slices` - whole rows, columns, filters or channels (any dense machine, with less work);
* :class:`Vectors`, :class:`Blocks` - runs along an axis, rectangles of the matrix view;
* :class:`NM` - at most N of every M neighbours along an axis (the sparse tensor core: 2 of 4);
* ``pattern & pattern`` - one after the other among what the first left (channel, then 2:4).

A *score* says what is worth keeping: :func:`magnitude`, :func:`saliency`, or any array of your own.
Every choice is by rank: the best stay. A group's score is the mean over its members that are still
alive, so short groups at a ragged edge are judged fairly. Counts are exact and ties are decided:
the earlier place (and, globally, the earlier tensor) wins.

``density`` is the kept share of all places. With ``scope="layer"`` each tensor meets it by itself,
with ``scope="global"`` all tensors compete under one threshold. Kept groups are the longest prefix
of the ranking that comes nearest to the target (the larger of two equally near ones).

Activations are pruned anew for each input: :class:`ReLU`, :class:`Threshold`,
:class:`RelativeThreshold`, :class:`TopK`.

Left out: retraining. Sources: Han et al. 2015 (magnitude), LeCun et al. 1990 and Molchanov et al.
2019 (saliency), Mishra et al. 2021 (2:4).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from sparqsim.base import InputError
from sparqsim.workloads.encodings.checks import finite_numbers, tensor_shape, whole_number

Mask = NDArray[np.bool_]
Scope = Literal["layer", "global"]


class Pattern(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="pattern"
):
    """A shape of zeros. Combine two with ``first & then``."""

    def __and__(self, then: Pattern) -> Composed:
        return Composed(stages=(*_stages(self), *_stages(then)))

    def fixed_density(self) -> float | None:
        """Return the density that the pattern itself implies, or None if it takes any."""
        raise NotImplementedError

    def choose(self, scores: list[NDArray[Any]], alive: list[Mask], density: float) -> list[Mask]:
        """Return what stays of ``alive``: the share ``density`` of it, tensors in competition."""
        raise NotImplementedError


class _Ranked(Pattern, frozen=True, kw_only=True):
    """A pattern that keeps the best-scored of its groups.

    Parameters
    ----------
    density : float, optional
        Share kept of what is alive (0 to 1); if absent, what is left to meet the overall target.
    """

    density: float | None = None

    def __post_init__(self) -> None:
        if self.density is not None:
            _share("density", self.density)

    def fixed_density(self) -> float | None:
        return self.density

    def tiles(self, shape: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return the view in which the groups are tiles, and the size of a tile on each axis."""
        raise NotImplementedError

    def choose(self, scores: list[NDArray[Any]], alive: list[Mask], density: float) -> list[Mask]:
        views = [self.tiles(s.shape) for s in scores]
        sizes = [_tile_sums(a.reshape(v), t) for a, (v, t) in zip(alive, views, strict=True)]
        means = [
            _tile_sums(np.where(a, s, 0).reshape(v), t) / np.maximum(size, 1)
            for s, a, (v, t), size in zip(scores, alive, views, sizes, strict=True)
        ]
        size, mean = _joined(sizes), _joined(means)
        living = np.flatnonzero(size)
        ranking = living[np.argsort(-mean[living], kind="stable")]
        kept_after = np.concatenate([[0], np.cumsum(size[ranking])])
        target = density * kept_after[-1]
        # The last of the nearest prefixes is the longest.
        misses = np.abs(kept_after - target)
        chosen = np.zeros(len(size), bool)
        chosen[ranking[: np.flatnonzero(misses == misses.min())[-1]]] = True
        kept, start = [], 0
        for a, (view, tile), group in zip(alive, views, sizes, strict=True):
            mask = chosen[start : start + group.size].reshape(group.shape)
            start += group.size
            kept.append(a & _spread(mask, view, tile).reshape(a.shape))
        return kept


class Unstructured(_Ranked, frozen=True, kw_only=True, tag="unstructured"):
    """Any single place: exactly ``floor(density * places + 1/2)`` stay.

    Examples
    --------
    >>> prune(np.array([3.0, -1.0, 2.0, 0.5]), Unstructured(density=0.5)).tolist()
    [3.0, 0.0, 2.0, 0.0]
    """

    def choose(self, scores: list[NDArray[Any]], alive: list[Mask], density: float) -> list[Mask]:
        everything, living = _joined(scores), _joined(alive)
        places = int(np.count_nonzero(living))
        kept = math.floor(density * places + 0.5)
        chosen = living.copy()
        chosen[living] = _best(everything[living][None], kept)[0]
        return [
            part.reshape(s.shape)
            for part, s in zip(
                np.split(chosen, np.cumsum([s.size for s in scores])[:-1]), scores, strict=True
            )
        ]


class Slices(_Ranked, frozen=True, kw_only=True, tag="slices"):
    """Whole slices along an axis; of a conv weight [O, I, KH, KW] 0 are filters, 1 channels."""

    axis: int = 0

    def tiles(self, shape: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        axis = _axis(self.axis, shape)
        return shape, tuple(1 if i == axis else size for i, size in enumerate(shape))


class Vectors(_Ranked, frozen=True, kw_only=True, tag="vectors"):
    """Runs of ``length`` neighbours along an axis; the last of a line may be shorter."""

    length: int
    axis: int = -1

    def __post_init__(self) -> None:
        super().__post_init__()
        whole_number("length of vectors", self.length, 1)

    def tiles(self, shape: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        axis = _axis(self.axis, shape)
        return shape, tuple(self.length if i == axis else 1 for i in range(len(shape)))


class Blocks(_Ranked, frozen=True, kw_only=True, tag="blocks"):
    """Rectangles of the matrix view: first axis x all others, as a conv looks after im2col."""

    height: int
    width: int

    def __post_init__(self) -> None:
        super().__post_init__()
        whole_number("height of blocks", self.height, 1)
        whole_number("width of blocks", self.width, 1)

    def tiles(self, shape: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        if len(shape) < 2:
            raise InputError(f"blocks need a tensor of 2 or more dimensions, got shape {shape}")
        return (shape[0], math.prod(shape[1:])), (self.height, self.width)


class NM(Pattern, frozen=True, kw_only=True, tag="n:m"):
    """At most ``n`` of every ``m`` neighbours along an axis (2:4 by default).

    Slices of that axis which an earlier stage pruned whole do not count as neighbours: the machine
    stores the tensor without them (see :func:`without_dead_slices`).

    Parameters
    ----------
    n, m : int
        1 <= n <= m <= 256.
    axis : int
        The axis of the neighbours: the reduction axis K of the matrix multiply.
    ragged : "refuse" or "short"
        If the axis is no multiple of a group: refuse the tensor, or keep up to ``n`` of the short
        last group (the hardware pads it with zeros).
    unit : int
        Neighbours that are kept or pruned together, judged by the sum of their scores: with 2 the
        ``n`` of ``m`` are pairs, as int4 of the sparse tensor core has them.
    """

    n: int = 2
    m: int = 4
    axis: int = -1
    ragged: Literal["refuse", "short"] = "refuse"
    unit: int = 1

    def __post_init__(self) -> None:
        whole_number("m of N:M", self.m, 1, 256)
        whole_number("n of N:M", self.n, 1, self.m)
        whole_number("unit of N:M", self.unit, 1, 256)
        if self.ragged not in ("refuse", "short"):
            raise InputError(f"ragged must be 'refuse' or 'short', got {self.ragged!r}")

    @property
    def kept(self) -> int:
        """Values kept of a group."""
        return self.n * self.unit

    @property
    def group(self) -> int:
        """Values of a group."""
        return self.m * self.unit

    def fixed_density(self) -> float | None:
        return self.n / self.m

    def choose(self, scores: list[NDArray[Any]], alive: list[Mask], density: float) -> list[Mask]:
        return [self._choose(s, a) for s, a in zip(scores, alive, strict=True)]

    def _choose(self, scores: NDArray[Any], alive: Mask) -> Mask:
        from sparqsim.workloads.encodings import kernels

        axis = _axis(self.axis, scores.shape)
        others = tuple(i for i in range(scores.ndim) if i != axis)
        left = np.flatnonzero(alive.any(axis=others))
        if len(left) % self.group and self.ragged == "refuse":
            raise InputError(
                f"{self.n}:{self.m} needs an axis that is a multiple of {self.group}, but axis "
                f"{axis} of {scores.shape} has {len(left)}; pad the tensor, choose another axis, "
                "or set ragged = 'short'"
            )
        lines, living = np.moveaxis(scores, axis, -1), np.moveaxis(alive, axis, -1)
        if len(left) < scores.shape[axis]:
            lines, living = lines[..., left], living[..., left]
        lines, living = np.ascontiguousarray(lines), np.ascontiguousarray(living)
        keep: Mask = np.zeros(living.shape, bool)
        flat = (-1, max(len(left), 1))
        if self.unit == 1:
            kernels.keep_n_of_m(
                lines.reshape(flat), living.reshape(flat), self.n, self.m, keep.reshape(flat)
            )
        else:
            units = self._keep_units(lines.reshape(flat), living.reshape(flat))
            keep = units.reshape(keep.shape) & living
        if len(left) < scores.shape[axis]:
            full = np.zeros((*keep.shape[:-1], scores.shape[axis]), bool)
            full[..., left] = keep
            keep = full
        return np.ascontiguousarray(np.moveaxis(keep, -1, axis))

    def _keep_units(self, lines: NDArray[Any], living: Mask) -> Mask:
        """What stays of lines [lines, length] when units of neighbours stay or go whole."""
        from sparqsim.workloads.encodings import kernels

        length = lines.shape[1]
        more = ((0, 0), (0, -length % self.unit))
        scores, alive = (
            np.pad(each, more).reshape(len(lines), -1, self.unit)
            for each in (np.where(living, lines, 0), living)
        )
        keep: Mask = np.zeros(scores.shape[:2], bool)
        kernels.keep_n_of_m(scores.sum(axis=2), alive.max(axis=2), self.n, self.m, keep)
        return np.repeat(keep, self.unit, axis=1)[:, :length]


class Composed(Pattern, frozen=True, kw_only=True, tag="composed"):
    """Patterns one after the other, each among what the ones before left alive."""

    stages: tuple[AnyPattern, ...]

    def __post_init__(self) -> None:
        if not self.stages:
            raise InputError("a composed pattern needs at least one stage")

    def fixed_density(self) -> float | None:
        shares = [stage.fixed_density() for stage in self.stages]
        known = [share for share in shares if share is not None]
        return math.prod(known) if len(known) == len(shares) else None


ROW = FILTER = Slices(axis=0)
COLUMN = CHANNEL = Slices(axis=1)
AnyPattern = Unstructured | Slices | Vectors | Blocks | NM | Composed


def magnitude(weights: NDArray[Any]) -> NDArray[Any]:
    """Return |w|, the score of magnitude pruning, as float32 or float64."""
    finite_numbers("weights", weights)
    return np.abs(_as_float(weights))


def saliency(weights: NDArray[Any], gradients: NDArray[Any]) -> NDArray[Any]:
    """Return |w * dL/dw|, the first-order change of the loss if the weight went to zero."""
    finite_numbers("weights", weights)
    finite_numbers("gradients", gradients)
    if weights.shape != gradients.shape:
        raise InputError(
            f"gradients must have the shape of the weights, {weights.shape}, got {gradients.shape}"
        )
    return np.abs(_as_float(weights) * _as_float(gradients))


def masks(
    scores: Mapping[str, NDArray[Any]],
    pattern: Pattern,
    density: float | None = None,
    scope: Scope = "layer",
) -> dict[str, Mask]:
    """Choose what stays in each of several tensors.

    Parameters
    ----------
    scores : mapping of arrays
        Scores of each tensor's places, higher is better; their order decides ties.
    pattern : Pattern
        Which zeros are allowed.
    density : float, optional
        Share of places that stays, 0 to 1. Required if the pattern leaves a density open (and then
        exactly one stage may), refused if it leaves none.
    scope : "layer" or "global"
        Whether each tensor meets the density by itself or all together.

    Returns
    -------
    dict of bool arrays
        True where the place stays, with the shapes of ``scores``.

    Raises
    ------
    InputError
        If scores are not finite, a density is missing, surplus or cannot be met, or a tensor does
        not fit the pattern.
    """
    if scope not in ("layer", "global"):
        raise InputError(f"scope must be 'layer' or 'global', got {scope!r}")
    if not scores:
        raise InputError("nothing to prune: give at least one tensor of scores")
    for name, array in scores.items():
        finite_numbers(f"scores of {name!r}", array)
        tensor_shape(f"the shape of {name!r}", array.shape)
    stages = _stages(pattern)
    shares = _stage_densities(stages, density)
    names = list(scores)
    result: dict[str, Mask] = {}
    for group in [names] if scope == "global" else [[name] for name in names]:
        values = [_as_float(scores[name]) for name in group]
        alive = [np.ones(v.shape, bool) for v in values]
        for stage, share in zip(stages, shares, strict=True):
            alive = stage.choose(values, alive, share)
        result |= zip(group, alive, strict=True)
    return result


def mask(scores: NDArray[Any], pattern: Pattern, density: float | None = None) -> Mask:
    """Choose what stays in one tensor: :func:`masks` for a single array."""
    return masks({"scores": scores}, pattern, density)["scores"]


def prune(
    weights: NDArray[Any],
    pattern: Pattern,
    density: float | None = None,
    scores: NDArray[Any] | None = None,
) -> NDArray[Any]:
    """Return the tensor with zeros where the pattern prunes it.

    Parameters
    ----------
    weights : array
    pattern, density
        As for :func:`masks`.
    scores : array, optional
        What is worth keeping; the magnitude by default.
    """
    if scores is None:
        scores = magnitude(weights)
    elif scores.shape != weights.shape:
        raise InputError(
            f"scores must have the shape of the weights, {weights.shape}, got {scores.shape}"
        )
    return np.where(mask(scores, pattern, density), weights, np.zeros((), weights.dtype))


def without_dead_slices(tensor: NDArray[Any], axis: int) -> NDArray[Any]:
    """Return the tensor without those slices along an axis that are all zero."""
    others = tuple(i for i in range(tensor.ndim) if i != _axis(axis, tensor.shape))
    return np.compress((tensor != 0).any(axis=others), tensor, axis=axis)


def density_of(tensor: NDArray[Any]) -> float:
    """Return the share of non-zeros of a tensor (or of True in a mask)."""
    tensor_shape("the shape of the tensor", tensor.shape)
    return int(np.count_nonzero(tensor)) / tensor.size


class ActivationRule(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="activation"
):
    """Which activations of an input stay. The rule is fixed; the mask is new for each input."""

    def mask(self, activations: NDArray[Any]) -> Mask:
        """Return True where the activation stays."""
        raise NotImplementedError

    def apply(self, activations: NDArray[Any]) -> NDArray[Any]:
        """Return the activations with zeros where they do not stay."""
        return np.where(self.mask(activations), activations, np.zeros((), activations.dtype))


class ReLU(ActivationRule, frozen=True, kw_only=True, tag="relu"):
    """Positive activations stay."""

    def mask(self, activations: NDArray[Any]) -> Mask:
        return _activations(activations) > 0


class Threshold(ActivationRule, frozen=True, kw_only=True, tag="threshold"):
    """Activations whose magnitude exceeds ``value`` stay."""

    value: float

    def __post_init__(self) -> None:
        if not 0 <= self.value < math.inf:
            raise InputError(f"threshold must be finite and at least 0, got {self.value}")

    def mask(self, activations: NDArray[Any]) -> Mask:
        return np.abs(_activations(activations)) > self.value


class RelativeThreshold(ActivationRule, frozen=True, kw_only=True, tag="relative_threshold"):
    """Activations above ``share`` of the largest magnitude of their row (last axis) stay."""

    share: float

    def __post_init__(self) -> None:
        _share("share", self.share)

    def mask(self, activations: NDArray[Any]) -> Mask:
        size = np.abs(_activations(activations))
        return size > self.share * size.max(axis=-1, keepdims=True)


class TopK(ActivationRule, frozen=True, kw_only=True, tag="top_k"):
    """The ``k`` largest magnitudes of each row (last axis) stay, no more and no fewer.

    Equal magnitudes: the earlier place wins. A row with fewer than ``k`` places stays whole.
    """

    k: int

    def __post_init__(self) -> None:
        whole_number("k", self.k, 0)

    def mask(self, activations: NDArray[Any]) -> Mask:
        size = np.abs(_activations(activations))
        rows = size.reshape(-1, size.shape[-1])
        return _best(rows, min(self.k, rows.shape[1])).reshape(size.shape)


AnyActivationRule = ReLU | Threshold | RelativeThreshold | TopK


def _stages(pattern: Pattern) -> tuple[Any, ...]:
    return pattern.stages if isinstance(pattern, Composed) else (pattern,)


def _stage_densities(stages: tuple[Any, ...], density: float | None) -> list[float]:
    """Return each stage's share of what the ones before left, the open one filled in."""
    shares = [stage.fixed_density() for stage in stages]
    is_open = [i for i, share in enumerate(shares) if share is None]
    if density is None:
        if is_open:
            raise InputError(
                f"the pattern leaves the density of stage {is_open[0]} "
                f"({type(stages[is_open[0]]).__name__}) open; give a density"
            )
        return [share for share in shares if share is not None]
    _share("density", density)
    if len(is_open) != 1:
        raise InputError(
            f"a density was given, so exactly one stage of the pattern may leave its own open, but "
            f"{len(is_open)} of {len(stages)} do"
        )
    seen_other = False
    for stage in stages:
        if isinstance(stage, NM) and seen_other:
            raise InputError(
                "a density can be met exactly only if N:M comes before any stage but slices; put "
                "N:M first, or give each stage its own density"
            )
        seen_other |= not isinstance(stage, NM | Slices)
    rest = math.prod(share for share in shares if share is not None)
    if density > rest:
        raise InputError(
            f"density {density:g} cannot be met: the other stages already leave only {rest:g}"
        )
    return [density / rest if share is None else share for share in shares]


def _share(what: str, value: float) -> None:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= 1:
        raise InputError(f"{what} must be between 0 and 1, got {value!r}")


def _axis(axis: int, shape: tuple[int, ...]) -> int:
    name = f"axis of a tensor of shape {shape}"
    return whole_number(name, axis, -len(shape), len(shape) - 1) % len(shape)


def _as_float(array: NDArray[Any]) -> NDArray[Any]:
    """Return float32 or float64 without loss (int64 beyond 2^53 apart)."""
    if array.dtype in (np.float32, np.float64):
        return array
    return array.astype(np.float32 if array.dtype.itemsize <= 2 else np.float64)


def _activations(activations: Any) -> NDArray[Any]:
    finite_numbers("activations", activations)
    tensor_shape("the shape of the activations", activations.shape)
    return _as_float(activations)


def _joined(arrays: list[Any]) -> NDArray[Any]:
    return np.concatenate([np.ravel(a) for a in arrays]) if len(arrays) > 1 else np.ravel(arrays[0])


def _best(rows: NDArray[Any], count: int) -> Mask:
    """Return the ``count`` highest of each row [rows, places]; of equals, the earlier."""
    places = rows.shape[1]
    if count in (0, places):
        return np.full(rows.shape, bool(count))
    bar = np.partition(rows, places - count, axis=1)[:, [places - count]]
    above, level = rows > bar, rows == bar
    missing = count - np.count_nonzero(above, axis=1, keepdims=True)
    if (np.count_nonzero(level, axis=1, keepdims=True) > missing).any():
        level &= np.cumsum(level, axis=1, dtype=np.int32) <= missing
    return above | level


def _tile_sums(array: NDArray[Any], tile: tuple[int, ...]) -> NDArray[Any]:
    """Return the sums over tiles; tiles at the end of an axis may be short."""
    sums = array.astype(np.float64 if array.dtype.kind == "f" else np.int64)
    for axis, (size, length) in enumerate(zip(array.shape, tile, strict=True)):
        if length > 1:
            sums = np.add.reduceat(sums, np.arange(0, size, length), axis=axis)
    return sums


def _spread(chosen: Mask, shape: tuple[int, ...], tile: tuple[int, ...]) -> Mask:
    """Return a mask of ``shape`` with each tile's choice in all its places."""
    for axis, (size, length) in enumerate(zip(shape, tile, strict=True)):
        if length > 1:
            chosen = np.repeat(chosen, min(length, size), axis=axis).take(range(size), axis=axis)
    return chosen
