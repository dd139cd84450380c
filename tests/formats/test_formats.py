"""Does every format agree with itself: table, bit-level decode, encode, decode, nearest value?"""

from __future__ import annotations

import pickle
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparqsim.base import InputError
from sparqsim.workloads import formats
from sparqsim.workloads.formats.lookup import nearest_rank

# Beyond the listed names: every width, odd biases, terms of other widths.
SPELLED = (
    *(f"int{b}_{kind}" for b in range(1, 9) for kind in ("signed", "unsigned")),
    *(f"int{b}_narrow" for b in range(2, 9)),
    *(f"pot{b}_{sign}" for b in range(2, 9) for sign in ("signed", "unsigned")),
    *(f"apot_{b}_{s}_k{k}" for b in (2, 5, 8) for s in ("signed", "unsigned") for k in (1, 3, 4)),
    *("float_e1m1", "float_e3m0", "float_e5m2_nan_bias3", "float_e4m4_unsigned", "float_e2m2_ieee"),
    *("abfloat_e1m1", "abfloat_e2m5_bias2", "abfloat_e3m2_bias-4", "abfloat_e5m2_bias40"),
)
ALL = {formats.get(name) for name in (*formats.names(), *SPELLED)}
PAIRS = sorted((f for f in ALL if isinstance(f, formats.OutlierVictim)), key=lambda f: f.name)
TABLES = sorted((f for f in ALL if isinstance(f, formats.TableFormat)), key=lambda f: f.name)
TABLES.append(formats.Codebook((0.1, 0.0, -0.3, 1 / 3, 0.7, -2.0, 1e-9), 3))
SMALL = [f for f in TABLES if f.bits <= 8]


def by_name(format_: formats.Format) -> str:
    return format_.name


def tie_up(format_: formats.TableFormat) -> np.ndarray:
    """Where ties go, said again from the rule in words."""
    values = format_.values
    if format_.ties == "ties go to the larger value":
        return np.ones(len(values) - 1, bool)
    assert format_.ties == "ties go to the even code"
    code_of = {v: c for c, v in reversed(list(enumerate(format_.code_values)))}
    return np.array([code_of[v] % 2 == 0 for v in values[1:]])


def critical_points(values: np.ndarray, dtype: type) -> np.ndarray:
    """Values and midpoints, each with its float neighbours, and the ends of the number line."""
    points = np.concatenate([values, (values[:-1] + values[1:]) / 2]).astype(dtype)
    around = [np.nextafter(points, dtype(end)) for end in (-np.inf, np.inf)]
    info = np.finfo(dtype)
    ends = [0.0, -0.0, np.inf, -np.inf, info.max, -info.max, info.smallest_subnormal, info.tiny]
    return np.concatenate([points, *around, np.array(ends, dtype)])


@pytest.mark.parametrize("format_", SMALL, ids=by_name)
def test_bit_level_decode_equals_the_table(format_: formats.TableFormat) -> None:
    """integer * 2**exponent is the table's value, exactly, for every code."""
    if isinstance(format_, formats.Codebook):
        with pytest.raises(InputError, match="no exponent and integer"):
            format_.exponent_integer(0)
        return
    assert len(format_.code_values) == 1 << format_.bits
    for code, value in enumerate(format_.code_values):
        if np.isfinite(value):
            exponent, integer = format_.exponent_integer(code)
            assert Fraction(integer) * Fraction(2) ** exponent == Fraction(float(value))
        else:
            with pytest.raises(InputError, match="no multiplier takes"):
                format_.exponent_integer(code)


@pytest.mark.parametrize("format_", TABLES, ids=by_name)
def test_every_used_code_round_trips(format_: formats.TableFormat) -> None:
    """encode(decode(code)) is the code, unless it is spare or stands for no number."""
    codes = np.arange(len(format_.code_values), dtype=format_.code_dtype)
    usable = np.isfinite(format_.code_values)
    usable[sorted(format_.unused_codes)] = False
    codes = codes[usable]
    decoded = format_.decode(codes)
    np.testing.assert_array_equal(format_.encode(decoded), codes)
    np.testing.assert_array_equal(np.unique(decoded + 0.0), format_.values)
    assert format_.encode(decoded).dtype == format_.code_dtype


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("format_", TABLES, ids=by_name)
def test_encode_equals_the_plain_twin(format_: formats.TableFormat, dtype: type) -> None:
    """At every value and midpoint, and one float to either side, the nearest value is chosen."""
    with np.errstate(over="ignore"):
        points = critical_points(format_.values, dtype)
    if len(points) > 3000:  # the twin is slow: of the formats of 16 bits, a sample
        points = np.random.default_rng(0).choice(points, 3000)
    up = tie_up(format_)
    expected = [format_.values[nearest_rank(x, format_.values, up)] for x in points]
    np.testing.assert_array_equal(format_.decode(format_.encode(points)), expected)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("format_", TABLES, ids=by_name)
def test_all_critical_points_are_nearest(format_: formats.TableFormat, dtype: type) -> None:
    """No value of any format, up to 16 bits, is nearer than the chosen one, whatever the point."""
    values = format_.values
    with np.errstate(over="ignore"):
        points = critical_points(values, dtype)
    points = points[np.isfinite(points)]
    chosen = format_.decode(format_.encode(points))
    rank = np.searchsorted(values, chosen)
    wide, real = points.astype(np.longdouble), values.astype(np.longdouble)
    for step in (-1, 1):
        neighbour = real[np.clip(rank + step, 0, len(values) - 1)]
        assert (abs(chosen - wide) <= abs(neighbour - wide)).all()


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_rounding_is_monotone_idempotent_and_saturates(data: st.DataObject) -> None:
    """round keeps order, changes nothing the second time and stays within the values."""
    format_ = data.draw(st.sampled_from(TABLES))
    width = data.draw(st.sampled_from([32, 64]))
    numbers = data.draw(st.lists(st.floats(allow_nan=False, width=width), min_size=1, max_size=20))
    x = np.sort(np.array(numbers, f"f{width // 8}"))
    rounded = format_.round(x)
    assert (np.diff(rounded.astype(np.float64)) >= 0).all()
    np.testing.assert_array_equal(format_.round(rounded), rounded)
    assert np.isin(format_.round(x.astype(np.float64)), format_.values).all()


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_any_codebook_equals_the_plain_twin(data: st.DataObject) -> None:
    """Values without structure, however close, are told apart at their exact midpoints.

    Where the first entry is 0, zero gets it and every other number the nearest of the rest.
    """
    number = st.floats(-1e3, 1e3, allow_subnormal=False).filter(lambda v: v == 0 or abs(v) > 1e-30)
    entries = data.draw(st.lists(number, min_size=2, max_size=15, unique=True))
    if data.draw(st.booleans()):
        entries = [0.0, *(entry for entry in entries if entry)]
    book = formats.Codebook(tuple(entries), 4)
    usable = book.values[book.values != 0] if entries[0] == 0 else book.values
    for dtype in (np.float32, np.float64):
        points = critical_points(book.values, dtype)
        up = np.ones(len(usable) - 1, bool)
        expected = [
            0.0 if x == 0 and entries[0] == 0 else usable[nearest_rank(x, usable, up)]
            for x in points
        ]
        np.testing.assert_array_equal(book.decode(book.encode(points)), expected)


@pytest.mark.parametrize(
    "entries",
    [
        (-1.0, 1.0),  # the one threshold is zero
        tuple(1 + k * 2.0**-52 for k in range(9)),  # neighbours in float64, one number in float32
        (-3e100, -2e100, -1e100, 0.5, 1e100, 2e100),  # beyond float32
        (*(1 + k * 2.0**-30 for k in range(5)), 1e-280, 1e280),  # crowded and far apart
    ],
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_awkward_codebooks_equal_the_plain_twin(entries: tuple[float, ...], dtype: type) -> None:
    """Buckets with many thresholds, thresholds that collide in float32, or none but zero."""
    book = formats.Codebook(entries, 4)
    with np.errstate(over="ignore"):
        points = critical_points(book.values, dtype)
    points = points[~np.isnan(points)]
    up = np.ones(len(entries) - 1, bool)
    expected = [book.values[nearest_rank(x, book.values, up)] for x in points]
    np.testing.assert_array_equal(book.decode(book.encode(points)), expected)


def test_shapes_and_types_pass_through() -> None:
    """Any shape, memory order, integer or float type; the result has the shape of the input."""
    flint = formats.get("flint4_signed")
    x = np.arange(-12, 12).reshape(2, 3, 4)
    expected = flint.round(x.astype(np.float64))
    for given_ in (x, x.astype(np.float16), x.astype(np.int8), x.tolist()):
        np.testing.assert_array_equal(flint.round(given_), expected)
    np.testing.assert_array_equal(flint.round(x.T), expected.T)
    assert flint.encode(3.0).shape == () and flint.decode(flint.encode([])).shape == (0,)
    assert flint.round(np.float32([1])).dtype == np.float32
    assert flint.decode([1], np.float32).dtype == np.float32
    assert formats.get("pot8_unsigned").round(np.float32([3e38]))[0] == 2.0**128


def test_formats_are_values() -> None:
    """Equal parameters: equal, one hash, and so after pickling; tables cannot be written to."""
    for format_ in ALL:
        copy = pickle.loads(pickle.dumps(format_))
        assert copy == format_ and hash(copy) == hash(format_)
        assert not format_.values.flags.writeable and not format_.code_values.flags.writeable
        assert format_.source.startswith("published")
    assert formats.get("int4") is not None and formats.get("int4") == formats.Int(4)
    assert formats.get("float_e3m3") == formats.Float(3, 3, 3)
    assert formats.get("float8_e4m3fn") == formats.get("float_e4m3_nan")


def test_names_are_found_again() -> None:
    """get(format.name) is the format, for listed and spelled names; case does not matter."""
    for name in formats.names():
        assert formats.get(name).name == name
    for format_ in ALL:
        assert formats.get(format_.name) == format_
        assert formats.get(format_.name.upper()) == format_
    for alias, name in {
        "int4": "int4_signed",
        "uint8": "int8_unsigned",
        "fp8_e4m3fn": "float8_e4m3fn",
        "fp16": "float16",
        "bf16": "bfloat16",
        "apot4_signed": "apot_4_signed",
        "abfloat_e2m1_bias2": "abfloat4_E2M1_bias2_signed",
        "ovp_int4_e2m1_bias2": "ovp_int4",
    }.items():
        assert formats.get(alias).name == name


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("flnt4_signed", "did you mean .*flint4_signed"),
        ("flint4", "did you mean"),
        ("", "there is no format"),
        ("int0", "from 1 to 16, got 0"),
        ("int17", "from 1 to 16, got 17"),
        ("int1_narrow", "at least 2 bits"),
        ("flint9_signed", "from 3 to 8, got 9"),
        ("pot9_signed", "from 2 to 8"),
        ("apot_4_signed_k9", "from 1 to 4"),
        ("float_e9m1", "from 1 to 8"),
        ("float_e8m10", "from 2 to 16"),
        ("float_e4m0_ieee", "1 mantissa bit"),
        ("float_e4m3_fnuz_unsigned", "must be signed"),
        ("float_e4_4_signed", "must fit the 3 bits"),
        ("abfloat8_e2m1_bias2_signed", "are 4 bits, not 8"),
        ("abfloat_e4m3_bias99", "from -64 to 64"),
        ("ovp_int5", "no published split"),
        ("ovp_int4_bias1", "raise the bias"),
        ("ovp_int8_e2m1", "as wide"),
        ("codebook4", "fit_codebook"),
    ],
)
def test_a_wrong_name_is_answered_with_an_error_message(name: str, message: str) -> None:
    """What is wrong with a name is said, with the bounds or the names near it."""
    with pytest.raises(InputError, match=message):
        formats.get(name)


@pytest.mark.parametrize("name", ["int8", "flint4_signed", "float8_e4m3fn", "ovp_int4"])
def test_bad_numbers_are_refused(name: str) -> None:
    """NaN is refused with its place; complex and text by type; codes by range and type."""
    format_ = formats.get(name)
    with pytest.raises(InputError, match=r"2 of its 4 values are NaN, the first at index \[1, 0\]"):
        format_.encode(np.array([[1.0, 2.0], [np.nan, np.nan]]))
    for wrong in (np.array([1j, 2j]), np.array(["1", "2"]), np.array([True, False]), None):
        with pytest.raises(InputError, match="encodes real numbers"):
            format_.encode(wrong)
    for codes, message in (([0.5, 1.0], "must be integers"), ([True, False], "must be integers")):
        with pytest.raises(InputError, match=message):
            format_.decode(codes)
    for codes in ([0, 1 << format_.bits], [0, -1]):
        with pytest.raises(InputError, match=f"from 0 to {(1 << format_.bits) - 1}"):
            format_.decode(codes)
    with pytest.raises(InputError, match="float32 or float64"):
        format_.decode([0, 0], np.int32)


def test_parameters_are_checked_at_birth() -> None:
    """Direct construction is as strict as a name."""
    for build in (
        lambda: formats.Int(True),
        lambda: formats.Int(4.0),  # type: ignore[arg-type]
        lambda: formats.Float(4, 3, specials="none"),  # type: ignore[arg-type]
        lambda: formats.get(4),  # type: ignore[arg-type]
        lambda: formats.Int(4).exponent_integer(16),
        lambda: formats.OutlierVictim(formats.Int(4), formats.AbFloat(2, 1, 2)),
    ):
        with pytest.raises(InputError):
            build()


def test_tf32_is_float32_with_ten_bits_of_mantissa() -> None:
    """Codes are the upper 19 bits of float32's; a tie goes away from zero, as ``cvt.rna.tf32``."""
    tf32, half = formats.get("tf32"), 2.0**-11
    assert (tf32.name, tf32.bits, tf32.code_dtype) == ("tf32", 19, np.dtype(np.uint32))
    given = np.array([1 + half, -(1 + half), 1 + half - 2.0**-20, 1 + 3 * half, 0.0])
    assert tf32.round(given).tolist() == [1 + 2 * half, -(1 + 2 * half), 1.0, 1 + 4 * half, 0.0]
    rng = np.random.default_rng(0)
    x = rng.integers(0, 2**32, 200_000, dtype=np.uint64).astype(np.uint32).view(np.float32)
    x = x[np.isfinite(x) & (np.abs(x) < tf32.values[-1])]
    bits = (x.view(np.uint32) + np.uint32(1 << 12)) >> 13
    assert (tf32.encode(x) == bits).all()
    assert (tf32.decode(bits, np.float32) == (bits << 13).view(np.float32)).all()
    codes = np.append(bits[:50], 0)  # the decoder's integer and exponent
    for code, value in zip(codes, tf32.decode(codes), strict=True):
        exponent, integer = tf32.exponent_integer(int(code))
        assert integer * Fraction(2) ** exponent == Fraction(float(value))
