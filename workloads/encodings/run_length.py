"""Run-length encoding as Eyeriss keeps activations in DRAM: runs of zeros between the values.

An *entry* is a run of 0 to 31 zeros (5 bits) and the 16-bit value behind it; three entries and a
bit that marks the last word make a word of 64 bits. A longer run is cut by entries whose value is
itself a zero, so such an entry stands for 32 zeros; so do zeros at the end. Dense data grow by a
third (64 bits for 48); zeros alone take two thirds of a bit each. Unlike a bitmap it is read
strictly in order. Source: Chen et al., Eyeriss, JSSC 2017.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparqsim.base import InputError
from sparqsim.workloads.encodings.checks import array_of

RUN_BITS, VALUE_BITS, ENTRIES_A_WORD, WORD_BITS = 5, 16, 3, 64  # published
REACH = 1 << RUN_BITS  # places the longest entry stands for


@dataclass(frozen=True, eq=False)
class RunLength:
    """A vector of 16-bit integers as runs and values.

    Parameters
    ----------
    places : int
        Length of the vector, at least 1.
    runs : uint8 array [entries]
        Zeros before each value, at most 31.
    values : int16 array [entries]

    Raises
    ------
    InputError
        If the arrays do not fit together or do not fill the vector exactly.
    """

    places: int
    runs: NDArray[np.uint8]
    values: NDArray[np.int16]

    def __post_init__(self) -> None:
        array_of("RunLength.runs", self.runs, np.uint8, 1)
        array_of("RunLength.values", self.values, np.int16, 1, len(self.runs))
        if self.runs.size and int(self.runs.max()) >= REACH:
            raise InputError(f"RunLength.runs must be below {REACH}, got {self.runs.max()}")
        filled = int(self.runs.sum(dtype=np.int64)) + len(self.runs)
        if filled != self.places or not self.places:
            raise InputError(
                f"RunLength must fill its {self.places} places (at least 1) exactly, but its "
                f"entries stand for {filled}"
            )

    @classmethod
    def encode(cls, vector: NDArray[Any]) -> RunLength:
        """Encode a vector of integers that fit 16 bits."""
        if vector.ndim != 1 or not vector.size:
            raise InputError(f"run-length encoding takes a vector, got shape {vector.shape}")
        _check_values(vector)
        ends = np.flatnonzero(vector)
        stops = np.append(ends, len(vector) - 1) if vector[-1] == 0 else ends
        gaps = np.diff(stops, prepend=-1) - 1
        cuts = gaps // REACH
        count = cuts + 1
        runs = np.full(int(count.sum()), REACH - 1, np.uint8)
        values = np.zeros(len(runs), np.int16)
        last = np.cumsum(count) - 1
        runs[last] = gaps - cuts * REACH
        values[last] = vector[stops]
        return cls(len(vector), runs, values)

    def decode(self) -> NDArray[np.int16]:
        """The vector."""
        vector = np.zeros(self.places, np.int16)
        vector[np.cumsum(self.runs.astype(np.int64) + 1) - 1] = self.values
        return vector

    @property
    def bits(self) -> int:
        """Size in whole words."""
        return -(-len(self.runs) // ENTRIES_A_WORD) * WORD_BITS


def encoded_bits(rows: NDArray[Any]) -> NDArray[np.int64]:
    """Bits of each row of ``[rows, places]`` if it is encoded for itself.

    Counts what :meth:`RunLength.encode` makes without making it.
    """
    if rows.ndim != 2 or not rows.size:
        raise InputError(f"rows must be [rows, places], not empty, got shape {rows.shape}")
    _check_values(rows)
    nonzero = rows != 0
    nonzero[:, -1] = True  # the last place ends an entry, whatever its value
    row, place = np.nonzero(nonzero)
    before = np.empty(len(place), np.int64)
    before[0] = -1
    before[1:] = np.where(row[1:] == row[:-1], place[:-1], -1)
    entries = np.bincount(row, (place - before - 1) // REACH + 1, minlength=len(rows))
    return -(-entries.astype(np.int64) // ENTRIES_A_WORD) * WORD_BITS


def _check_values(values: NDArray[Any]) -> None:
    if values.dtype.kind not in "iu":
        raise InputError(f"run-length encoding takes integers, got {values.dtype}")
    low, high = int(values.min()), int(values.max())
    if low < -(1 << (VALUE_BITS - 1)) or high >= 1 << (VALUE_BITS - 1):
        raise InputError(f"values must fit {VALUE_BITS} signed bits, got {low} to {high}")
