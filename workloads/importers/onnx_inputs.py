"""Inputs of an ONNX network from a file: arrays in an ``.npz``.

They stand under the names of the graph's inputs, or a single array for a single input, *samples*
along the first axis. The graph takes as many at once as its inputs' first size says; the samples
are that many times a whole number of runs. ``labels``, whole numbers, say the class of each.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparqsim.base import InputError, printable
from sparqsim.workloads.importers.onnx_file import Shape
from sparqsim.workloads.importers.onnx_graph import Graph
from sparqsim.workloads.npz import MOST_WORDS, read_npz

Values = dict[str, NDArray[Any]]
LABELS = "labels"


def read_arrays(path: str | Path) -> dict[str, NDArray[Any]]:
    """Return the arrays of an ``.npz``.

    Raises
    ------
    InputError
        If it cannot be read, or holds something other than numbers.
    """
    return read_npz(path, "the inputs of a network")


@dataclass(frozen=True, eq=False)
class Samples:
    """Inputs for a number of runs.

    Attributes
    ----------
    arrays : mapping of str to array
        By input, all runs behind one another along the first axis.
    each : mapping of str to int
        How much of that axis a run takes; 0 for an input that is a single number.
    runs : int
    labels : integer array [samples] or None
    """

    arrays: Mapping[str, NDArray[Any]]
    each: Mapping[str, int]
    runs: int
    labels: NDArray[np.int64] | None = None

    def feeds(self) -> Iterator[Values]:
        """Give the inputs of each run."""
        for run in range(self.runs):
            yield {
                name: array[run * self.each[name] : (run + 1) * self.each[name]]
                if self.each[name]
                else array[run]
                for name, array in self.arrays.items()
            }

    def part(self, first: int, last: int) -> Samples:
        """Return runs ``first`` to ``last`` (without it)."""
        step = {name: each or 1 for name, each in self.each.items()}
        arrays = {
            name: array[first * step[name] : last * step[name]]
            for name, array in self.arrays.items()
        }
        labels = self.labels
        if labels is not None:
            each = len(labels) // self.runs
            labels = labels[first * each : last * each]
        return Samples(arrays, self.each, last - first, labels)


def samples_of(arrays: Mapping[str, NDArray[Any]], graph: Graph, where: str) -> Samples:
    """Return arrays as inputs of a graph; ``where`` says where they are from.

    Raises
    ------
    InputError
        If a name, shape or type does not suit the graph's inputs.
    """
    inputs = graph.file.inputs
    found = dict(arrays)
    labels = found.pop(LABELS, None) if LABELS not in inputs else None
    if len(inputs) == 1 and len(found) == 1:
        found = {next(iter(inputs)): next(iter(found.values()))}
    if found.keys() != inputs.keys():
        raise InputError(
            f"{where} must hold arrays named {', '.join(inputs)} (and may hold {LABELS}), "
            f"got {printable(', '.join(found), MOST_WORDS) or 'none'}"
        )
    runs: dict[str, int] = {}
    each: dict[str, int] = {}
    for name, (shape, kind) in inputs.items():
        found[name] = _of_kind(found[name], kind, f"{where}, {name!r}")
        each[name] = 0 if not shape else shape[0]
        runs[name] = _runs(found[name].shape, shape, f"{where}, {name!r}")
    if len(set(runs.values())) != 1:
        counts = ", ".join(f"{name} for {count}" for name, count in runs.items())
        raise InputError(f"{where} must hold inputs for as many runs each, got {counts}")
    count = next(iter(runs.values()))
    return Samples(found, each, count, _checked_labels(labels, found, inputs, where))


def _of_kind(array: NDArray[Any], kind: int, where: str) -> NDArray[Any]:
    """Return an array in the type of an input, if nothing but width differs."""
    from onnx import helper

    wanted = np.dtype(helper.tensor_dtype_to_np_dtype(kind))
    floating = wanted.kind not in "biu"  # numpy calls bfloat16 a kind of its own
    fits = array.dtype.kind in ("fiu" if floating else "iu" if wanted.kind in "iu" else "b")
    if not fits:
        raise InputError(f"{where} must be {wanted}, got {array.dtype}")
    if floating and not np.isfinite(array).all():
        raise InputError(f"{where} must be finite, got NaN or infinity")
    if not floating and wanted.kind in "iu" and array.size:
        limits = np.iinfo(wanted)
        if int(array.min()) < limits.min or int(array.max()) > limits.max:
            raise InputError(f"{where} must fit {wanted}, got {array.min()} to {array.max()}")
    return array.astype(wanted, copy=False)


def _runs(shape: Shape, wanted: Shape | None, where: str) -> int:
    if wanted is None:
        raise InputError(f"{where}: the graph does not tell this input's shape")
    first = wanted[0] if wanted else 1
    fits = len(shape) == max(len(wanted), 1) and tuple(shape[1:]) == tuple(wanted[1:])
    if not fits or shape[0] % first or not shape[0]:
        sizes = " x ".join(map(str, ("samples", *wanted[1:])))
        many = f", the samples a multiple of {first}" if first > 1 else ""
        raise InputError(f"{where} must be {sizes}{many}, got {' x '.join(map(str, shape))}")
    return int(shape[0] // first)


def _checked_labels(
    labels: NDArray[Any] | None,
    arrays: Mapping[str, NDArray[Any]],
    inputs: Mapping[str, Any],
    where: str,
) -> NDArray[np.int64] | None:
    if labels is None:
        return None
    samples = len(next(iter(arrays.values())))
    if labels.dtype.kind not in "iu" or labels.shape != (samples,):
        raise InputError(
            f"{where}: {LABELS} must be {samples} whole numbers, one a sample, got {labels.dtype} "
            f"of shape {list(labels.shape)}"
        )
    return labels.astype(np.int64)
