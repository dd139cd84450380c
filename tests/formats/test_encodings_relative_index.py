"""Does EIE's relative-index CSC follow the paper, entry by entry, and refuse corrupt data?"""

from __future__ import annotations

import time
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparqsim.base import InputError
from sparqsim.workloads.encodings.csc import CSC
from sparqsim.workloads.encodings.relative_index import RelativeIndexCSC
from sparqsim.workloads.formats import fit_codebook

CODEBOOK = np.array([0, *range(-7, 0), *range(1, 9)], np.int16)


def entries_by_the_rule(column: list[int], pes: int, pe: int, index_bits: int) -> list[tuple]:
    """Walk one PE's rows of one column with a pencil: the plain twin of the encoder."""
    longest = 2**index_bits - 1
    entries, gap = [], 0
    for code in column[pe::pes]:
        if code == 0:
            gap += 1
            continue
        while gap > longest:
            entries.append((0, longest))
            gap -= longest + 1
        entries.append((code, gap))
        gap = 0
    return entries


@st.composite
def sparse_codes(draw: st.DrawFn) -> np.ndarray:
    rows, cols = draw(st.integers(1, 90)), draw(st.integers(1, 4))
    seed, density = draw(st.integers(0, 2**32 - 1)), draw(st.sampled_from([0, 0.03, 0.2, 1]))
    rng = np.random.default_rng(seed)
    return (rng.integers(1, 16, (rows, cols)) * (rng.random((rows, cols)) < density)).astype("u1")


@settings(deadline=None)
@given(sparse_codes(), st.sampled_from([1, 2, 3, 7, 64, 256]), st.integers(1, 8))
def test_equals_the_plain_twin_and_round_trips(
    dense: np.ndarray, pes: int, index_bits: int
) -> None:
    """Each PE's list of each column is the pencil's; decoding gives back codes and weights."""
    matrix = CSC.from_dense(dense)
    encoded = RelativeIndexCSC.encode(matrix, CODEBOOK, pes, index_bits)
    padding = 0
    for pe in range(pes):
        for j in range(dense.shape[1]):
            piece = slice(encoded.pointers[pe, j], encoded.pointers[pe, j + 1])
            got = list(
                zip(encoded.codes[piece].tolist(), encoded.runs[piece].tolist(), strict=True)
            )
            want = entries_by_the_rule(dense[:, j].tolist(), pes, pe, index_bits)
            assert got == want
            assert encoded.entries_per_column()[pe, j] == len(want)
            padding += sum(code == 0 for code, _ in want)
    assert encoded.padding_entries == padding
    assert encoded.entries == matrix.stored + padding
    back = encoded.decode_codes()
    assert np.array_equal(back.to_dense(), dense)
    assert np.array_equal(back.indptr, matrix.indptr)
    assert np.array_equal(encoded.decode().to_dense(), CODEBOOK[dense])


@pytest.mark.parametrize(
    ("gap", "expected"),
    [
        (0, [(5, 0)]),
        (15, [(5, 15)]),
        (16, [(0, 15), (5, 0)]),
        (18, [(0, 15), (5, 2)]),
        (32, [(0, 15), (0, 15), (5, 0)]),
        (47, [(0, 15), (0, 15), (5, 15)]),
    ],
)
def test_gaps_of_the_paper(gap: int, expected: list[tuple[int, int]]) -> None:
    """A gap g costs floor(g / 16) padding entries, then the entry with g mod 16."""
    dense = np.zeros((100, 1), np.uint8)
    dense[gap] = 5
    encoded = RelativeIndexCSC.encode(CSC.from_dense(dense), CODEBOOK, pes=1)
    assert list(zip(encoded.codes.tolist(), encoded.runs.tolist(), strict=True)) == expected


def test_bits_by_hand() -> None:
    """Bits are entries x 8, pointers x 16 and 16 shared weights x 16 at the published widths."""
    dense = np.zeros((40, 3), np.uint8)
    dense[39, 1] = dense[0, 0] = 3
    encoded = RelativeIndexCSC.encode(CSC.from_dense(dense), CODEBOOK, pes=2)
    assert encoded.entries == 3  # row 39 is local row 19 of PE 1: one padding entry
    assert encoded.spmat_bits == 3 * 8
    assert encoded.pointer_bits() == 2 * 4 * 16
    assert encoded.pointer_bits(20) == 2 * 4 * 20
    assert encoded.bits == 24 + 128 + 256


def test_pointers_grow_with_what_they_count() -> None:
    """90000 entries in one PE need 17-bit pointers; 45000 in each of two, the published 16."""
    full = CSC.from_dense(np.ones((300, 300), np.uint8))
    for pes, width in ((1, 17), (2, 16)):
        encoded = RelativeIndexCSC.encode(full, CODEBOOK, pes)
        assert encoded.bits == 90000 * 8 + pes * 301 * width + 256


def test_more_pes_mean_less_padding() -> None:
    """Dealing rows to more PEs shortens the gaps each one sees (EIE, figure 12)."""
    rng = np.random.default_rng(1)
    matrix = CSC.from_dense((rng.random((2048, 64)) < 0.04).astype(np.uint8))
    padding = [RelativeIndexCSC.encode(matrix, CODEBOOK, n).padding_entries for n in (1, 16, 256)]
    assert padding[0] > padding[1] > padding[2]


@pytest.mark.parametrize("code", [0, 16, -1])
def test_code_that_cannot_be_stored_is_refused(code: int) -> None:
    """Code 0 would read as padding, 16 does not fit four bits."""
    matrix = CSC.from_dense(np.ones((2, 2), int)).with_values(np.array([1, 2, code, 3]))
    with pytest.raises(InputError, match=r"must be 1\.\.15 .*got -?\d+ for stored value 2"):
        RelativeIndexCSC.encode(matrix, CODEBOOK)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"pes": 0}, "pes must be between 1 and 256, got 0"),
        ({"pes": 2.0}, "pes must be a whole number"),
        ({"index_bits": 9}, "index_bits must be between 1 and 8, got 9"),
        ({"codebook": np.arange(17)}, "entries of the codebook must be between 2 and 16, got 17"),
        ({"codebook": np.zeros((2, 2))}, "1 dimension"),
        ({"codebook": np.arange(16) + 1}, r"codebook\[0\] must be 0"),
        ({"codebook": np.append(np.arange(15.0), np.nan)}, "finite"),
        ({"codebook": np.zeros(16)}, "must not be zero"),
    ],
)
def test_bad_arguments_are_refused(arguments: dict, message: str) -> None:
    """Each argument out of its range is named."""
    matrix = CSC.from_dense(np.ones((2, 2), np.uint8))
    with pytest.raises(InputError, match=message):
        RelativeIndexCSC.encode(matrix, **{"codebook": CODEBOOK, **arguments})


def test_a_short_codebook_bounds_the_codes() -> None:
    """A codebook fitted to few distinct weights has fewer entries, and codes stay below them."""
    matrix = CSC.from_dense(np.array([[1, 2], [0, 2]], np.uint8))
    short = np.array([0.0, -0.5, 0.5])
    encoded = RelativeIndexCSC.encode(matrix, short, pes=2)
    assert encoded.decode().to_dense().tolist() == [[-0.5, 0.5], [0.0, 0.5]]
    with pytest.raises(InputError, match=r"must be 1\.\.1 "):
        RelativeIndexCSC.encode(matrix, short[:2], pes=2)


def test_prune_share_encode() -> None:
    """The whole road: every weight that was kept is stored, as the nearest shared weight not 0."""
    weights = np.random.default_rng(3).normal(size=(96, 40)) * (np.arange(40) > 3)
    weights[5, 7] = 1e-6
    kept = np.abs(weights) > 0.8
    kept[5, 7] = True
    codebook = fit_codebook(weights * kept, zero=True)
    shared = np.array(codebook.entries)
    encoded = RelativeIndexCSC.encode_weights(CSC.from_dense(weights * kept), shared, pes=16)
    decoded = encoded.decode().to_dense()
    distance = np.abs(weights[..., None] - shared[1:])
    nearest = shared[1:][distance.argmin(axis=-1)]
    assert np.array_equal(decoded, np.where(kept, nearest, 0))
    with pytest.raises(InputError, match="must not be 0"):
        zero = CSC.from_dense(np.ones((2, 2))).with_values(np.array([1.0, 0, 2, 3]))
        RelativeIndexCSC.encode_weights(zero, shared)
    with pytest.raises(InputError, match="a shared weight that is not 0"):
        RelativeIndexCSC.encode_weights(CSC.from_dense(np.ones((2, 2))), np.zeros(4))


def test_a_tie_goes_to_the_larger_shared_weight() -> None:
    """1.5 lies between 1 and 2 and takes 2; -1.5 between -2 and -1 takes -1."""
    matrix = CSC.from_dense(np.array([[1.5, -1.5]]))
    codebook = np.array([0, 2.0, -2.0, 1.0, -1.0])
    decoded = RelativeIndexCSC.encode_weights(matrix, codebook, pes=1).decode()
    assert decoded.to_dense().tolist() == [[2.0, -1.0]]


def test_weights_instead_of_codes_are_refused() -> None:
    """Real weights are not codes: the message says to encode them first."""
    with pytest.raises(InputError, match="encode the weights with a codebook first"):
        RelativeIndexCSC.encode(CSC.from_dense(np.ones((2, 2))), CODEBOOK)


def corrupt() -> RelativeIndexCSC:
    dense = np.zeros((40, 2), np.uint8)
    dense[[3, 39], 0] = 4  # PE 1: (4, run 1), then 17 zeros: (0, 15), (4, 1)
    return RelativeIndexCSC.encode(CSC.from_dense(dense), CODEBOOK, pes=2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"codes": np.array([4, 0], np.uint8)}, "must have 2 entries|from 0 to the 2 entries"),
        ({"runs": np.array([1, 15], np.uint8)}, "runs must have 3 entries, got 2"),
        ({"runs": np.array([1, 15, 2], np.uint8)}, "entry 2 .*past the last row"),
        ({"runs": np.array([1, 14, 1], np.uint8)}, "entry 1 .*must have the longest run"),
        ({"runs": np.array([1, 16, 1], np.uint8)}, "entry 1 .*does not fit the index bits"),
        ({"codes": np.array([4, 0, 0], np.uint8), "runs": np.array([1, 15, 15], np.uint8)}, "past"),
        (
            {"codes": np.array([4, 4, 0], np.uint8), "runs": np.array([1, 1, 15], np.uint8)},
            "entry 2 .*ends with padding",
        ),
        ({"codes": np.array([4, 0, 17], np.uint8)}, "codes must be below 16, .* got 17"),
        ({"pointers": np.array([[0, 0, 0], [0, 3, 2]])}, "from 0 to the 3 entries"),
        ({"pointers": np.array([[0, 0, 0], [0, 4, 3]])}, "must not fall"),
        ({"pointers": np.array([[0, 1, 0], [1, 3, 3]])}, "must not fall"),
        ({"pointers": np.array([[0, 0, 3]])}, "past the last row|longest|padding"),
        ({"pointers": np.array([[0, 0], [0, 3]])}, "pointers must have 3 columns, got 2"),
        ({"shape": (30, 2)}, "past the last row"),
    ],
)
def test_corrupt_data_is_refused(change: dict, message: str) -> None:
    """Truncated arrays, bad pointers and entries that break a rule are named with their place."""
    record = corrupt()
    assert record.codes.tolist() == [4, 0, 4] and record.runs.tolist() == [1, 15, 1]
    if "pointers" in change and len(change["pointers"]) == 1:
        # With one PE the local row is the row: make it too short so that the entry overruns.
        change = {**change, "shape": (10, 2)}
    with pytest.raises(InputError, match=message):
        replace(record, **change)


@pytest.mark.slow
def test_alexnet_fc6_encodes_in_150_ms() -> None:
    """4096 x 9216 at 9 % into 64 PEs: in 150 ms of one core, once compiled."""
    rng = np.random.default_rng(0)
    dense = (rng.random((4096, 9216), dtype=np.float32) < 0.09).astype(np.uint8)
    matrix = CSC.from_dense(dense)
    RelativeIndexCSC.encode(matrix, CODEBOOK)
    seconds = []
    for _ in range(5):
        start = time.process_time()
        RelativeIndexCSC.encode(matrix, CODEBOOK)
        seconds.append(time.process_time() - start)
    assert min(seconds) < 0.15


@pytest.mark.slow
def test_vgg_fc6_needs_no_dense_memory() -> None:
    """25088 columns x 4096 rows at 4 %: encode and decode stay below a byte a dense place."""
    rng = np.random.default_rng(0)
    rows, cols, each = 4096, 25088, 164
    steps = rng.integers(1, 2 * rows // each - 1, (cols, each))
    indices = np.cumsum(steps, axis=1, dtype=np.int64) - 1
    inside = indices < rows
    indptr = np.concatenate([[0], np.cumsum(inside.sum(axis=1))])
    indices = indices[inside].astype(np.int32)
    codes = rng.integers(1, 16, len(indices), dtype=np.uint8)
    matrix = CSC((rows, cols), indptr, indices, codes)
    del steps, inside
    tracemalloc.start()
    back = RelativeIndexCSC.encode(matrix, CODEBOOK).decode_codes()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert np.array_equal(back.indices, indices) and np.array_equal(back.values, codes)
    assert peak < rows * cols
