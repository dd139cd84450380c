"""Are the formats the published ones? Golden tables of the papers' own code; ml_dtypes; k-means.

``data/datatypes.json`` holds value sets made by executing the quantizers of the authors of ANT and
OliVe, codes where the papers define them; its field ``about`` says how.
"""

from __future__ import annotations

import json

import ml_dtypes
import numpy as np
import pytest
from paths import DATA
from sklearn.cluster import KMeans

from sparqsim.base import InputError
from sparqsim.workloads import formats

GOLDEN = json.loads((DATA / "datatypes.json").read_text())
TYPES, PAIRS = GOLDEN["types"], GOLDEN["olive_ovp"]
ML_DTYPES = [n for n in formats.names() if n.startswith("float") and hasattr(ml_dtypes, n)]
ML_DTYPES += ["bfloat16", "float16"]


@pytest.mark.parametrize("name", [n for n, t in TYPES.items() if "values" in t])
def test_values_and_codes_are_the_authors(name: str) -> None:
    """Values, and code by code the value, exponent and integer, are the golden ones."""
    format_ = formats.get(name)
    assert format_.name == name
    assert isinstance(format_, formats.TableFormat)
    assert format_.values.tolist() == TYPES[name]["values"]
    for bits, row in TYPES[name].get("codes", {}).items():
        code = int(bits, 2)
        assert format_.code_values[code] == row["value"]
        integer = row["base_integer"] if "base_integer" in row else row["integer"]
        assert format_.exponent_integer(code) == (row["exponent"], integer)


@pytest.mark.parametrize("name", [n for n, t in TYPES.items() if "values" not in t])
def test_types_the_authors_code_cannot_make_are_refused(name: str) -> None:
    """Where the authors' quantizer fails, so do we, with an error message."""
    with pytest.raises(InputError, match="must fit"):
        formats.get(name)


def test_wider_flint_follows_from_the_definition() -> None:
    """Datasheet formula: b=0 -> r; b=1, r!=0 -> (r<<1) << 2*lz(r); b=1, r=0 -> 2**(2n-2)."""
    for n in range(2, 9):
        expected = []
        for code in range(1 << n):
            top, rest = divmod(code, 1 << (n - 1))
            zeros = len(f"{rest:0{n - 1}b}".split("1")[0])
            large = (rest << 1) << (2 * zeros) if rest else 2 ** (2 * n - 2)
            expected.append(large if top else rest)
        if n >= 3:
            assert formats.Flint(n).code_values.tolist() == expected
        if n < 8:
            signed = formats.Flint(n + 1, signed=True).code_values.tolist()
            assert signed == [*expected, *(-v for v in expected)]


def test_wider_apot_follows_from_the_authors_bases() -> None:
    """The bases written out in the authors' quantizer for 5 and 6 bits of magnitude."""
    bases = {
        5: ([1, 3, 6], [2, 4, 7], [5]),
        6: ([1, 4, 7], [2, 5, 8], [3, 6, 9]),
    }
    for width, terms in bases.items():
        sums = [0.0]
        for term in terms:
            sums = [s + p for s in sums for p in (0.0, *(2.0**-e for e in term))]
        assert formats.APoT(width).values.tolist() == sorted(sums)
        assert formats.APoT(width).shifts == tuple(map(tuple, terms))


def test_one_bit_terms_are_uniform() -> None:
    """APoT of 1-bit terms is plain binary below 1; one term as wide as the code is PoT, scaled."""
    np.testing.assert_array_equal(formats.APoT(6, term_bits=1).values, np.arange(64) / 64)
    single = formats.APoT(4, term_bits=4).values
    np.testing.assert_array_equal(single * 2.0**15, formats.PoT(4).values)


def test_seed_table_of_abfloat() -> None:
    """Bias 0 gives 3, 4, 6, 8, 12, 16, 24; the least that clears normal ones: 2, 3, 4."""
    values = formats.get("abfloat_e2m1_bias0").values
    assert values[values > 0].tolist() == [3, 4, 6, 8, 12, 16, 24]
    biases = PAIRS["abfloat_bias_default"]
    assert formats.clearing_bias(7, 2, 1) == biases["int4"]
    assert formats.clearing_bias(16, 2, 1) == biases["flint4"]
    assert formats.clearing_bias(127, 4, 3) == 4  # 9 << 4 = 144; 9 << 3 = 72 does not clear 127


@pytest.mark.parametrize("name", ML_DTYPES)
def test_floats_decode_as_ml_dtypes(name: str) -> None:
    """Every code, infinities, NaN and minus zero among them."""
    format_ = formats.get(name)
    dtype = np.float16 if name == "float16" else getattr(ml_dtypes, name)
    codes = np.arange(1 << format_.bits, dtype=format_.code_dtype)
    with np.errstate(all="ignore"):
        theirs = codes.view(dtype).astype(np.float64)
    ours = format_.decode(codes)
    np.testing.assert_array_equal(ours, theirs)
    numbers = ~np.isnan(theirs)
    np.testing.assert_array_equal(np.signbit(ours)[numbers], np.signbit(theirs)[numbers])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", ML_DTYPES)
def test_floats_round_as_ml_dtypes(name: str, dtype: type) -> None:
    """Codes equal a cast's at values, midpoints, their neighbours and random numbers in range.

    float64 to ml_dtypes goes through float32 and so can round twice; the oracle for float64 is
    the cast of those points that float32 holds exactly.
    """
    format_ = formats.get(name)
    theirs = np.float16 if name == "float16" else getattr(ml_dtypes, name)
    values = format_.values
    points = np.concatenate([values, (values[:-1] + values[1:]) / 2]).astype(np.float32)
    up, down = np.float32(np.inf), np.float32(-np.inf)
    points = np.concatenate([points, np.nextafter(points, up), [np.float32(-0.0)]])
    points = np.concatenate([points, np.nextafter(points, down)])
    rng = np.random.default_rng(0)
    spread = np.exp2(rng.uniform(-30, 17, 20_000)) * rng.choice([-1, 1], 20_000)
    points = np.concatenate([points, spread.astype(np.float32)])
    points = points[np.abs(points) <= values[-1]]
    cast = points.astype(theirs).view(format_.code_dtype)
    np.testing.assert_array_equal(format_.encode(points.astype(dtype)), cast)


def test_floats_saturate_where_a_cast_overflows() -> None:
    """Beyond the largest value, up to infinity, the largest stays."""
    for name in ML_DTYPES:
        format_ = formats.get(name)
        top = format_.values[-1]
        assert format_.round(np.array([top * 2, np.inf, -np.inf])).tolist() == [top, top, -top]


def test_pairs_decode_as_the_table_and_the_circuit() -> None:
    """Every pair of codes of the 4-bit formats: table, pair decoder and decode agree or refuse."""
    for name in ("ovp_int4", "ovp_flint4", "ovp_int4_e1m2_bias1"):
        format_ = formats.get(name)
        assert isinstance(format_, formats.OutlierVictim)
        made = 0
        for left in range(16):
            for right in range(16):
                value = format_.code_values[left, right]
                if np.isnan(value).any():
                    with pytest.raises(InputError, match="that encoding never makes"):
                        format_.exponent_integer_pair(left, right)
                    with pytest.raises(InputError, match=rf"\({left}, {right}\) stands"):
                        format_.decode([0, 0, left, right])
                    continue
                made += 1
                both = format_.exponent_integer_pair(left, right)
                assert [i * 2.0**e for e, i in both] == value.tolist()
                assert format_.decode([left, right]).tolist() == value.tolist()
        assert made == 15 * 15 + 2 * 14  # normal pairs; an outlier on either side


def test_pairs_of_8_bits_decode_as_the_table() -> None:
    """All 65536 pairs of ovp_int8: the made ones decode to the table, and encode back."""
    format_ = formats.get("ovp_int8")
    made = np.argwhere(~np.isnan(format_.code_values).any(axis=2))
    assert len(made) == 255 * 255 + 2 * 254
    values = format_.decode(made)
    np.testing.assert_array_equal(values, format_.code_values[made[:, 0], made[:, 1]])
    np.testing.assert_array_equal(format_.encode(values), made)


def test_pair_value_sets_are_the_authors() -> None:
    """Normal sets, identifiers, and the authors' 8-bit outliers, which are E2M5."""
    for kind, name in (("int4_normal", "ovp_int4"), ("flint4_normal", "ovp_flint4")):
        format_ = formats.get(name)
        assert isinstance(format_, formats.OutlierVictim)
        assert format_.normal.values.tolist() == PAIRS[kind]["values"]
        assert f"{format_.identifier:04b}" == PAIRS[kind]["identifier_code"][:4]
    wide = formats.get("ovp_int8_e2m5")
    assert isinstance(wide, formats.OutlierVictim)
    # The authors' common grid has 4 int8 steps to a unit.
    authors = np.array(PAIRS["authors_8bit_outlier_set_E2M5_base5"]) * 4
    np.testing.assert_array_equal(wide.outlier.values, authors)


@pytest.mark.parametrize("row", PAIRS["vectors_int4"])
def test_pair_vectors_of_the_authors(row: dict[str, list[float]]) -> None:
    """Their quantizer keeps the left of two outliers; so does ``_left``, and gives its numbers."""
    scale = row["alpha"] / 7  # type: ignore[operator]
    quantized = formats.get("ovp_int4_left").round(np.array(row["x"]) / scale)
    assert quantized.tolist() == row["q_int4_units"]
    np.testing.assert_allclose(quantized * scale, row["dequant"], atol=1e-6)


def plain_pair(format_: formats.OutlierVictim, left: float, right: float) -> list[float]:
    """The pair rule, in words: nearest of all values, ties to the outlier, the larger stays."""
    normal_max, first = format_.normal.values[-1], format_.outlier.values
    edge = (normal_max + first[first > 0][0]) / 2
    out = [
        float((format_.outlier if abs(x) >= edge else format_.normal).round(np.float64(x)))
        for x in (left, right)
    ]
    is_outlier = [abs(x) >= edge for x in (left, right)]
    if all(is_outlier):
        stays = 0 if format_.keep == "left" or abs(left) >= abs(right) else 1
        out[1 - stays] = 0.0
    elif any(is_outlier):
        out[is_outlier.index(False)] = 0.0
    return out


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", ["ovp_int4", "ovp_int4_left", "ovp_flint4", "ovp_int8"])
def test_pairs_equal_the_plain_rule(name: str, dtype: type) -> None:
    """Midpoints, neighbours and random numbers, every one beside every other."""
    format_ = formats.get(name)
    assert isinstance(format_, formats.OutlierVictim)
    values = format_.values
    points = np.concatenate([values, (values[:-1] + values[1:]) / 2]).astype(dtype)
    points = np.concatenate([points, np.nextafter(points, dtype(np.inf)), dtype([np.inf, -0.0])])
    rng = np.random.default_rng(1)
    x = rng.choice(points, (1000, 2))
    expected = [plain_pair(format_, a, b) for a, b in x]
    np.testing.assert_array_equal(format_.decode(format_.encode(x)), expected)


def test_pairs_need_an_even_axis() -> None:
    """An odd last axis, or none, is refused both ways; an empty one passes."""
    format_ = formats.get("ovp_int4")
    for shape in ((3,), (2, 5), ()):
        with pytest.raises(InputError, match="even"):
            format_.encode(np.zeros(shape))
        with pytest.raises(InputError, match="even"):
            format_.decode(np.zeros(shape, np.uint8))
    assert format_.decode(format_.encode(np.zeros((3, 0)))).shape == (3, 0)


def test_k_means_equals_scikit_learn() -> None:
    """The same start gives the same centres as scikit-learn's Lloyd iterations."""
    data = np.random.default_rng(2).standard_t(4, 5000)
    start = np.linspace(data.min(), data.max(), 16)[:, None]
    theirs = KMeans(16, init=start, n_init=1, max_iter=300, tol=0).fit(data[:, None])
    book = formats.fit_codebook(data, 4)
    ours = np.abs(data - book.round(data)) ** 2
    assert ours.sum() <= theirs.inertia_ * (1 + 1e-9)
    assert book == formats.fit_codebook(data[::-1].reshape(50, 100), 4)


def test_k_means_is_at_rest() -> None:
    """Every centre is the mean of the values nearest to it."""
    data = np.random.default_rng(3).normal(size=3000)
    book = formats.fit_codebook(data, 4)
    codes = book.encode(data)
    for code, entry in enumerate(book.entries):
        np.testing.assert_allclose(data[codes == code].mean(), entry, rtol=1e-12, atol=1e-12)


def test_codebook_keeps_zero_for_eie() -> None:
    """Code 0 is zero, and the other 15 go to the values that are not zero."""
    rng = np.random.default_rng(4)
    data = np.where(
        rng.random(4000) < 0.9, 0.0, rng.choice([-1, 1], 4000) * rng.uniform(1, 2, 4000)
    )
    book = formats.fit_codebook(data, 4, zero=True)
    assert book.entries[0] == 0 and len(book.entries) == 16
    codes = book.encode(data)
    np.testing.assert_array_equal(codes == 0, data == 0)
    few = formats.fit_codebook([0, 0, 1.5, -2, 1.5], 4, zero=True)
    assert few.entries == (0.0, -2.0, 1.5)
    with pytest.raises(InputError, match="from 0 to 2"):
        few.decode([3])
    assert formats.fit_codebook([0, 0], 4, zero=True).entries == (0.0, 1.0)


def test_what_is_not_zero_never_becomes_zero() -> None:
    """Code 0 is padding on EIE: a survivor of pruning keeps its place, however small it is."""
    book = formats.Codebook((0.0, 1.0, -2.0), 2)
    tiny = np.array([1e-30, -1e-30, 0.0, -0.0, 3.0, -0.6], np.float32)
    assert book.encode(tiny).tolist() == [1, 1, 0, 0, 1, 2]
    assert formats.Codebook((1.0, 0.0, -2.0), 2).encode(tiny).tolist() == [1, 1, 1, 1, 0, 1]
    assert formats.Codebook((0.0, 5.0), 4).encode([-1.0, 0.0, 9.0]).tolist() == [1, 0, 1]


@pytest.mark.parametrize("largest", [1.0, 0.99999, 1.7, 300.0, 2.0**-40])
def test_entries_in_fixed_point(largest: float) -> None:
    """Entries are whole multiples of a power of two, the least with which the largest fits."""
    data = np.random.default_rng(5).uniform(-largest, largest, 2000)
    data[0] = largest
    book, exact = (formats.fit_codebook(data, 4, zero=True, entry_bits=n) for n in (16, None))
    step = next(2.0**-f for f in range(70, -20, -1) if max(book.entries) * 2.0**f < 2**15 - 0.5)
    whole = np.array(book.entries) / step
    assert np.array_equal(whole, np.rint(whole)) and np.abs(whole).max() < 2**15
    assert np.abs(whole).max() >= 2**14 - 1
    np.testing.assert_allclose(book.entries, exact.entries, atol=step / 2)
    assert len(formats.fit_codebook([0, 1e-9, 1.0], 4, zero=True, entry_bits=16).entries) == 2
    with pytest.raises(InputError, match="entry_bits must be a whole number from 2 to 32"):
        formats.fit_codebook(data, 4, entry_bits=1)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "at least 2 different"),
        ([1.0, 1.0], "at least 2 different"),
        ([1.0, np.nan], "1 values are NaN or infinite"),
        ([1.0, np.inf], "finite"),
        (["a", "b"], "real numbers"),
    ],
)
def test_data_that_fits_no_codebook_is_refused(data: list[object], message: str) -> None:
    """Empty, constant, NaN, infinite and text are told apart."""
    with pytest.raises(InputError, match=message):
        formats.fit_codebook(data, 4)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ((1.0,), "from 2 to 4 entries, got 1"),
        ((1.0, 2.0, 3.0, 4.0, 5.0), "got 5"),
        ((1.0, 2.0, 1.0), "1.0 stands there twice"),
        ((1.0, np.nan), "got nan"),
        ((0.0, 1e300), "got 1e\\+300"),
    ],
)
def test_wrong_codebooks_are_refused(entries: tuple[float, ...], message: str) -> None:
    """Too few, too many, doubled and boundless entries."""
    with pytest.raises(InputError, match=message):
        formats.Codebook(entries, 2)
