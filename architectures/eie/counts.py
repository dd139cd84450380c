"""Work counted elsewhere: entries of each PE and column, from a file, without the weights."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparqsim.base import InputError
from sparqsim.workloads.npz import read_npz


def load_counts(path: str | os.PathLike[str]) -> tuple[Any, Any, bool]:
    """Read ``counts``, ``active_columns`` and, if it is there, ``bias`` from an npz file.

    Raises
    ------
    InputError
        If it cannot be read, is no npz, or lacks a key.
    """
    arrays = read_npz(
        path,
        "the arrays 'counts' [PEs, columns] and 'active_columns'",
        ("counts", "active_columns"),
    )
    unknown = sorted(set(arrays) - {"counts", "active_columns", "bias"})
    if unknown:
        raise InputError(f"{path} holds unknown arrays: {', '.join(unknown)}; remove them")
    bias = arrays.get("bias", np.array(True))
    if bias.shape != () or bias.dtype.kind not in "biu":
        raise InputError(f"{path}: bias must be a single true or false")
    return arrays["counts"], arrays["active_columns"], bool(bias)


def checked_counts(
    counts: NDArray[np.integer], active_columns: NDArray[np.integer], pes: int
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Counts and active columns, ascending, if they fit each other and the machine.

    Raises
    ------
    InputError
        If the shapes do not fit, a count is negative, or a column is unknown or named twice.
    """
    for name, array, dimensions in (("counts", counts, 2), ("active_columns", active_columns, 1)):
        if array.dtype.kind not in "iu" or array.ndim != dimensions:
            raise InputError(
                f"{name} must be whole numbers in {dimensions} dimension(s), got {array.dtype} "
                f"of shape {array.shape}"
            )
    if counts.shape[0] != pes:
        raise InputError(
            f"counts has {counts.shape[0]} rows, one a PE, but the machine has {pes} PEs; "
            f"set pes to {counts.shape[0]}"
        )
    if not counts.shape[1]:
        raise InputError("counts must have at least one column, got none")
    if counts.size and (int(counts.min()) < 0 or int(counts.max()) > 2**30):
        raise InputError(f"counts must be 0 to 2^30, got {counts.min()} to {counts.max()}")
    active = np.sort(active_columns.astype(np.int64))
    if len(active) and (active[0] < 0 or active[-1] >= counts.shape[1]):
        raise InputError(
            f"active_columns must be 0 to {counts.shape[1] - 1}, got {active[0]} to {active[-1]}"
        )
    if (np.diff(active) == 0).any():
        twice = int(active[1:][np.diff(active) == 0][0])
        raise InputError(f"active_columns must name a column once, but {twice} stands there twice")
    return counts.astype(np.int32), active
