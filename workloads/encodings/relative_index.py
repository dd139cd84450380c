"""EIE's relative-index CSC: how a pruned, codebook-quantized matrix lies in the PEs' memories.

Row ``i`` lives in PE ``i mod pes``. For each column a PE keeps a list of entries, one per non-zero
of its rows: a code (4 bits, naming one of 16 shared weights) and a run length, the number of its
own rows skipped since the entry before. The run length has ``index_bits`` bits (4: 0 to 15), so a
gap of g >= 16 zeros takes floor(g / 16) padding entries (code 0, the weight zero, and run 15), then
the entry itself with g mod 16. Runs restart at each column and nothing follows the last non-zero.
Every entry, padding included, costs the PE a cycle: padding is what few index bits cost in time.

The decode rule is the hardware's: ``row += run + 1`` for each entry, padding or not.

Left out: how entries are grouped into SRAM rows (a machine's matter) and fixed-point rounding of
the codebook (a format's). Source: Han et al., EIE, ISCA 2016, sections III and IV.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparqsim.base import InputError
from sparqsim.workloads.encodings.checks import array_of, dimensions, finite_numbers, whole_number
from sparqsim.workloads.encodings.csc import CSC

CODE_BITS = 4  # published, EIE section III: 16 shared weights
POINTER_BITS = 16  # published, EIE section IV: 16-bit column pointers
WEIGHT_BITS = 16  # published, EIE section IV: 16-bit fixed point shared weights
MOST_PES = 256  # published, EIE section VII: the largest array studied


@dataclass(frozen=True, eq=False)
class RelativeIndexCSC:
    """A sparse matrix of codes as EIE's PEs store it.

    Parameters
    ----------
    shape : (rows, cols)
    pointers : int64 array [pes, cols + 1]
        Entries of PE ``p`` in column ``j`` are ``pointers[p, j]:pointers[p, j + 1]`` of ``codes``
        and ``runs``. The PEs' stretches follow each other: ``pointers[p, cols]`` is
        ``pointers[p + 1, 0]``.
    codes, runs : uint8 arrays [entries]
        Code and run length of each entry; code 0 is padding.
    codebook : real array [2 to 16]
        The shared weights; ``codebook[0]`` is 0.
    index_bits : int
        Bits of a run length, 1 to 8.

    Raises
    ------
    InputError
        If the arrays do not fit together or an entry breaks a rule of the format.
    """

    shape: tuple[int, int]
    pointers: NDArray[np.int64]
    codes: NDArray[np.uint8]
    runs: NDArray[np.uint8]
    codebook: NDArray[Any]
    index_bits: int = 4

    def __post_init__(self) -> None:
        rows, cols = dimensions("RelativeIndexCSC.shape", self.shape, 2)
        object.__setattr__(self, "shape", (rows, cols))
        whole_number("RelativeIndexCSC.index_bits", self.index_bits, 1, 8)
        _check_codebook(self.codebook)
        pointers = array_of("RelativeIndexCSC.pointers", self.pointers, np.int64, 2)
        whole_number("the number of PEs", len(pointers), 1, MOST_PES)
        if pointers.shape[1] != cols + 1:
            raise InputError(
                f"RelativeIndexCSC.pointers must have {cols + 1} columns, got {pointers.shape[1]}"
            )
        entries = len(array_of("RelativeIndexCSC.codes", self.codes, np.uint8, 1))
        array_of("RelativeIndexCSC.runs", self.runs, np.uint8, 1, entries)
        if pointers[0, 0] != 0 or pointers[-1, -1] != entries:
            raise InputError(
                f"RelativeIndexCSC.pointers must run from 0 to the {entries} entries, got "
                f"{pointers[0, 0]} to {pointers[-1, -1]}; the data is truncated or mixed up"
            )
        falls = pointers[:, 1:] < pointers[:, :-1]
        if falls.any() or (pointers[1:, 0] != pointers[:-1, -1]).any():
            raise InputError(
                "RelativeIndexCSC.pointers must not fall, and each PE must start where the one "
                "before it ends"
            )
        if entries and self.codes.max() >= len(self.codebook):
            raise InputError(
                f"RelativeIndexCSC.codes must be below {len(self.codebook)}, the size of the "
                f"codebook, got {self.codes.max()}"
            )
        for pe in range(len(pointers)):
            self._refuse_bad_entry(pe)

    def _refuse_bad_entry(self, pe: int) -> None:
        """Raise InputError for the first entry of a PE that breaks a rule of the format."""
        rows, pes = self.shape[0], len(self.pointers)
        first, last = self.pointers[pe, 0], self.pointers[pe, -1]
        codes, runs = self.codes[first:last], self.runs[first:last]
        columns = self.pointers[pe] - first
        passed = np.concatenate([[0], np.cumsum(runs + np.int64(1))])  # rows before each entry
        row = passed[1:] - np.repeat(passed[columns[:-1]], np.diff(columns)) - 1
        ends = np.zeros(len(codes), np.bool_)
        ends[columns[1:][np.diff(columns) > 0] - 1] = True
        longest, padding = (1 << self.index_bits) - 1, codes == 0
        rules = {
            "a run length does not fit the index bits": runs > longest,
            "an entry lies past the last row": row >= (rows - pe + pes - 1) // pes,
            "a padding entry (code 0) must have the longest run": padding & (runs != longest),
            "a column ends with padding": padding & ends,
            "a stored weight must not be zero, but the codebook holds 0 for its code": (
                ~padding & (self.codebook == 0)[codes]
            ),
        }
        broken = np.array(list(rules.values()))
        if not broken.any():
            return
        entry = int(broken.any(axis=0).argmax())
        rule = list(rules)[int(broken[:, entry].argmax())]
        column = int(np.searchsorted(columns, entry, side="right")) - 1
        raise InputError(
            f"corrupt relative-index data in PE {pe}, column {column}, entry {first + entry} "
            f"(code {codes[entry]}, run {runs[entry]}): {rule}"
        )

    @classmethod
    def encode(
        cls, codes: CSC, codebook: NDArray[Any], pes: int = 64, index_bits: int = 4
    ) -> RelativeIndexCSC:
        """Encode a matrix of codes.

        Parameters
        ----------
        codes : CSC
            Values are codes 1..15 of any integer dtype: indices into ``codebook``.
        codebook : real array [2 to 16]
            The shared weights; ``codebook[0]`` must be 0.
        pes : int
            Number of PEs, 1 to 256; may exceed the number of rows.
        index_bits : int
            Bits of a run length, 1 to 8.

        Raises
        ------
        InputError
            If a stored code is 0 (it would read as padding), above 15, not an integer, or names a
            shared weight of 0.
        """
        from sparqsim.workloads.encodings import kernels

        whole_number("pes", pes, 1, MOST_PES)
        whole_number("index_bits", index_bits, 1, 8)
        _check_codebook(codebook)
        if codes.values.dtype.kind not in "iu":
            raise InputError(
                f"EIE stores codes, so the values must be integers 1..15, got {codes.values.dtype};"
                " encode the weights with a codebook first (matrix.with_values(codes))"
            )
        most = len(codebook) - 1
        if codes.stored and (codes.values.min() < 1 or codes.values.max() > most):
            wrong = int(((codes.values < 1) | (codes.values > most)).argmax())
            raise InputError(
                f"the code of a stored weight must be 1..{most} (0 is padding), got "
                f"{codes.values[wrong]} for stored value {wrong}; drop it from the matrix or give "
                "it another code"
            )
        cols = codes.shape[1]
        matrix = codes.indptr, codes.indices, codes.values.astype(np.uint8)
        longest, following = (1 << index_bits) - 1, np.zeros(pes, np.int64)
        cursor, ends = np.zeros(pes, np.int64), np.zeros((cols, pes), np.int64)
        nothing = np.empty(0, np.uint8)
        kernels.walk_entries(*matrix, longest, following, cursor, ends, nothing, nothing)
        entries = int(cursor.sum())
        first = np.cumsum(cursor) - cursor
        entry_codes, runs = np.empty(entries, np.uint8), np.empty(entries, np.uint8)
        kernels.walk_entries(*matrix, longest, following, first.copy(), ends, entry_codes, runs)
        pointers = np.vstack([first, ends]).T.copy()
        return cls(codes.shape, pointers, entry_codes, runs, codebook, index_bits)

    @classmethod
    def encode_weights(
        cls, weights: CSC, codebook: NDArray[Any], pes: int = 64, index_bits: int = 4
    ) -> RelativeIndexCSC:
        """Give each stored weight the nearest shared weight that is not 0, and encode.

        A small weight that a plain quantizer would round to 0 (and so to the padding code) keeps
        its place; a tie goes to the larger shared weight.

        Raises
        ------
        InputError
            As :meth:`encode`; also if a stored weight is 0.
        """
        _check_codebook(codebook)
        if not weights.values.all():
            raise InputError("a stored weight must not be 0; build the CSC from the pruned matrix")
        usable = np.flatnonzero(codebook)
        if not len(usable):
            raise InputError("the codebook must hold a shared weight that is not 0")
        order = usable[np.argsort(codebook[usable], kind="stable")].astype(np.uint8)
        levels = codebook[order].astype(np.float64)
        nearest = np.searchsorted((levels[1:] + levels[:-1]) / 2, weights.values, side="right")
        return cls.encode(weights.with_values(order[nearest]), codebook, pes, index_bits)

    def decode(self) -> CSC:
        """Return the weights, ``codebook[code]`` at every stored place."""
        codes = self.decode_codes()
        return codes.with_values(self.codebook[codes.values])

    def decode_codes(self) -> CSC:
        """Return the codes: exactly what was encoded, as uint8."""
        from sparqsim.workloads.encodings import kernels

        stored = self.entries - self.padding_entries
        indptr = np.zeros(self.shape[1] + 1, np.int64)
        indices = np.empty(stored, np.int32)
        codes = np.empty(stored, np.uint8)
        kernels.decode_entries(
            self.pointers, self.codes, self.runs, self.shape[0], indptr, indices, codes
        )
        return CSC(self.shape, indptr, indices, codes)

    @property
    def pes(self) -> int:
        """Number of PEs the rows are dealt to."""
        return len(self.pointers)

    @property
    def entries(self) -> int:
        """All entries, padding included."""
        return len(self.codes)

    @property
    def padding_entries(self) -> int:
        """Entries that hold no weight."""
        return self.entries - int(np.count_nonzero(self.codes))

    def entries_per_column(self) -> NDArray[np.int64]:
        """Return the entries, padding included, of each PE and column [pes, cols]."""
        return np.diff(self.pointers, axis=1)

    @property
    def spmat_bits(self) -> int:
        """Bits of codes and run lengths."""
        return self.entries * (CODE_BITS + self.index_bits)

    def pointer_bits(self, width: int = POINTER_BITS) -> int:
        """Bits of the column pointers of all PEs, ``width`` bits each."""
        return self.pointers.size * whole_number("width", width, 1)

    def codebook_bits(self, width: int = WEIGHT_BITS) -> int:
        """Bits of one copy of the codebook, ``width`` bits a shared weight."""
        return self.codebook.size * whole_number("width", width, 1)

    @property
    def bits(self) -> int:
        """Bits of entries, pointers and codebook at EIE's published widths.

        A pointer is wider than published where a PE holds more entries than 16 bits can count.
        """
        longest = int((self.pointers[:, -1] - self.pointers[:, 0]).max())
        pointer = max(POINTER_BITS, longest.bit_length())
        return self.spmat_bits + self.pointer_bits(pointer) + self.codebook_bits()


def _check_codebook(codebook: Any) -> None:
    whole_number(
        "entries of the codebook", len(array_of("codebook", codebook, ndim=1)), 2, 1 << CODE_BITS
    )
    finite_numbers("codebook", codebook)
    if codebook[0] != 0:
        raise InputError(
            f"codebook[0] must be 0, for code 0 is the padding zero; got {codebook[0]}"
        )
