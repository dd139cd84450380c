"""Are the trained digits networks what they say: whole, right, as accurate as their file claims?"""

import json
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparqsim.base import InputError
from sparqsim.workloads.layers import Conv2d
from sparqsim.workloads.models.digits import (
    DATA,
    NETWORKS,
    Images,
    _convolve,
    load_digits,
    load_images,
    save_digits,
    save_images,
    scale_pixels,
)

FILES = ("digits_images.safetensors", "digits_mlp.safetensors", "digits_cnn.safetensors")


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    for name in FILES:
        (tmp_path / name).write_bytes((DATA / name).read_bytes())
    return tmp_path


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("pruned", [False, True])
def test_accuracy_is_the_recorded_one(network: str, pruned: bool) -> None:
    """The accuracy written in the file is, to the image, what its weights give; no near ties."""
    digits = load_digits(network, pruned=pruned)
    recorded = digits.metadata.accuracy_pruned if pruned else digits.metadata.accuracy_dense
    assert digits.accuracy() == recorded
    two_best = np.sort(digits.forward(), axis=1)[:, -2:]
    assert np.diff(two_best, axis=1).min() > 1e-4  # so that the order of a sum decides nothing
    assert recorded > 0.95


@pytest.mark.parametrize("network", NETWORKS)
def test_densities_are_the_recorded_ones(network: str) -> None:
    """Each pruned layer keeps the fraction the metadata states; the dense one has no zeros."""
    pruned, dense = load_digits(network), load_digits(network, pruned=False)
    for name, weight in pruned.weights.items():
        assert np.count_nonzero(weight) / weight.size == pruned.metadata.densities[name]
        assert np.count_nonzero(dense.weights[name]) == weight.size
    kept = sum(np.count_nonzero(weight) for weight in pruned.weights.values())
    assert kept / sum(layer.weights for layer in pruned.layers) < 0.15


def test_files_are_small_and_hold_the_known_data() -> None:
    """All files stay under 1 MB; the 1797 digits are split by class, a fifth for testing."""
    assert sum((DATA / name).stat().st_size for name in FILES) < 1_000_000
    images = load_images()
    assert len(images.train_labels) + len(images.test_labels) == 1797
    train, test = np.bincount(images.train_labels), np.bincount(images.test_labels)
    assert np.array_equal(test, np.round(0.2 * (train + test)).astype(int))
    rows = {image.tobytes() for image in images.test_images}
    assert not rows & {image.tobytes() for image in images.train_images}


def test_split_is_that_of_the_training_script() -> None:
    """The committed split is what the script makes of scikit-learn's digits."""
    pytest.importorskip("sklearn")
    from sparqsim.scripts.train_digits import split_digits

    made, committed = split_digits(), load_images()
    for field in Images.__dataclass_fields__:
        assert np.array_equal(getattr(made, field), getattr(committed, field))


@settings(max_examples=40, deadline=None)
@given(
    channels=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    stride=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    padding=st.tuples(*[st.integers(0, 2)] * 4),
    seed=st.integers(0, 2**32 - 1),
)
def test_convolution_is_its_sum(channels, kernel, stride, padding, seed) -> None:
    """y[n, o, i, j] = sum over c, u, v of x[n, c, i s + u - top, j s + v - left] w[o, c, u, v]."""
    layer = Conv2d(
        name="c",
        in_channels=channels[0],
        out_channels=channels[1],
        input=(4, 5),
        kernel=kernel,
        stride=stride,
        padding=padding,
    )
    generator = np.random.default_rng(seed)
    x = generator.integers(-4, 5, (2, channels[0], 4, 5)).astype(np.float32)
    w = generator.integers(-4, 5, layer.weight_shape).astype(np.float32)
    wanted = np.zeros((2, channels[1], *layer.output), dtype=np.float32)
    for n, o, i, j in np.ndindex(*wanted.shape):
        for c, u, v in np.ndindex(*w.shape[1:]):
            row, column = i * stride[0] + u - padding[0], j * stride[1] + v - padding[1]
            if 0 <= row < 4 and 0 <= column < 5:
                wanted[n, o, i, j] += x[n, c, row, column] * w[o, c, u, v]
    assert np.array_equal(_convolve(layer, x, w), wanted)


@pytest.mark.parametrize("network", NETWORKS)
def test_torch_gives_the_same_logits(network: str) -> None:
    """torch, with the same weights, agrees to float32 rounding."""
    torch = pytest.importorskip("torch")
    from sparqsim.workloads import train

    digits = load_digits(network)
    net = train.chain(digits.layers, np.random.default_rng(0))
    with torch.no_grad():
        for name, layer in train.weighted(net).items():
            layer.weight.copy_(torch.tensor(digits.weights[name]))
            layer.bias.copy_(torch.tensor(digits.biases[name]))
        wanted = net(torch.tensor(scale_pixels(digits.images.test_images))).numpy()
    np.testing.assert_allclose(digits.forward(), wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("network", NETWORKS)
def test_activations_are_each_layers_input(network: str) -> None:
    """Shapes follow the layers; hidden inputs are ReLU's; running the last gives the logits."""
    digits = load_digits(network)
    inputs = digits.activations()
    assert list(inputs) == [layer.name for layer in digits.layers]
    for layer in digits.layers:
        assert inputs[layer.name].size == layer.input_elements * len(digits.images.test_labels)
        assert (inputs[layer.name] >= 0).all()
    last = digits.layers[-1].name
    logits = inputs[last] @ digits.weights[last].T + digits.biases[last]
    assert np.array_equal(logits, digits.forward())
    assert digits.activations(digits.images.test_images[:3])["fc1"].shape[0] == 3


def test_see_replaces_activations_and_weights_replace_weights() -> None:
    """What `see` returns and the weights given are what is used; the others stay."""
    digits = load_digits("mlp")
    blank = digits.forward(see=lambda name, x: 0 * x if name == "fc3" else None)
    assert np.array_equal(blank, np.broadcast_to(digits.biases["fc3"], blank.shape))
    zero = digits.forward(weights={"fc3": np.zeros((10, 128), np.float32)})
    assert np.array_equal(zero, blank)
    assert digits.accuracy({"fc1": digits.weights["fc1"]}) == digits.metadata.accuracy_pruned
    with pytest.raises(ValueError, match="read-only"):
        digits.weights["fc1"][0, 0] = 1


def test_see_must_keep_the_shape() -> None:
    """An input of another shape is refused with its layer."""
    with pytest.raises(InputError, match=r"digits-mlp/fc2 of shape \(359, 128\)"):
        load_digits("mlp").forward(see=lambda name, x: x.T if name == "fc2" else None)


def test_needs_neither_torch_nor_scikit_learn() -> None:
    """Loading and running a network works where neither can be imported."""
    code = (
        "import sys; sys.modules['torch'] = sys.modules['sklearn'] = None\n"
        "from sparqsim.workloads.models.digits import load_digits\n"
        "print(load_digits('mlp').accuracy())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(done.stdout) == load_digits("mlp").metadata.accuracy_pruned


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"fc9": np.zeros((10, 128))}, "has no layer 'fc9'"),
        ({"fc3": np.zeros((128, 10))}, r"must have shape \(10, 128\), got \(128, 10\)"),
        ({"fc3": np.full((10, 128), np.nan)}, "must be finite"),
    ],
)
def test_bad_weights_are_named(weights, message: str) -> None:
    """A wrong name, shape or a NaN gets an error message."""
    with pytest.raises(InputError, match=message):
        load_digits("mlp").accuracy(weights)


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((2, 64)),
        np.zeros((0, 8, 8)),
        np.full((1, 8, 8), 17),
        np.full((1, 8, 8), np.nan),
        np.full((1, 8, 8), -np.inf),
        np.full((1, 8, 8), "a"),
    ],
)
def test_bad_images_are_refused(images) -> None:
    """Images of another shape or range get an error message."""
    with pytest.raises(InputError, match="digit images must have"):
        load_digits("mlp").forward(images)


def test_unknown_network_says_what_there_is() -> None:
    """The message for an unknown network lists the known ones."""
    with pytest.raises(InputError, match=r"no digits network 'vgg16'; there is mlp, cnn"):
        load_digits("vgg16")


def test_round_trip(copied: Path) -> None:
    """What is saved is what is read, bit for bit, and to the byte of the file."""
    dense, pruned = load_digits("cnn", pruned=False), load_digits("cnn")
    save_digits(dense, pruned, copied)
    save_images(pruned.images, copied)
    for name in FILES:
        assert (copied / name).read_bytes() == (DATA / name).read_bytes()


@pytest.mark.parametrize("name", ["digits_images.safetensors", "digits_mlp.safetensors"])
@pytest.mark.parametrize("size", [0, 5, 40, 5000, -1])
def test_truncated_file_is_refused(copied: Path, name: str, size: int) -> None:
    """A file cut anywhere is refused with its name."""
    path = copied / name
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(InputError, match=f"{name} must be a whole safetensors file"):
        load_digits("mlp", folder=copied)


def test_missing_file_is_refused(tmp_path: Path) -> None:
    """A missing file is refused with its name."""
    with pytest.raises(InputError, match=r"digits_mlp\.safetensors must be a whole"):
        load_digits("mlp", folder=tmp_path)


def rewrite(path: Path, change) -> None:
    """Let ``change`` edit the header and body of a safetensors file (8-byte length, JSON, data)."""
    blob = path.read_bytes()
    (length,) = struct.unpack("<Q", blob[:8])
    header, body = json.loads(blob[8 : 8 + length]), bytearray(blob[8 + length :])
    change(header, body)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)


def put_nan(header, body) -> None:
    start = header["pruned.fc1.weight"]["data_offsets"][0]
    body[start : start + 4] = struct.pack("<f", float("nan"))


def rename(header, body) -> None:
    header["pruned.fc7.weight"] = header.pop("pruned.fc1.weight")


def transpose(header, body) -> None:
    header["pruned.fc1.weight"]["shape"].reverse()


def retype(header, body) -> None:
    header["pruned.fc1.weight"]["dtype"] = "I32"


def unknown_key(header, body) -> None:
    text = json.loads(header["__metadata__"]["sparqsim"])
    header["__metadata__"]["sparqsim"] = json.dumps(text | {"colour": 1})


def no_metadata(header, body) -> None:
    del header["__metadata__"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (put_nan, "'pruned.fc1.weight' must be finite"),
        (rename, "must hold a tensor 'pruned.fc1.weight'"),
        (transpose, r"must be float32 of shape \(128, 64\), got float32 of shape \(64, 128\)"),
        (retype, "must be float32 of shape"),
        (unknown_key, "metadata 'sparqsim' cannot be read.*colour"),
        (no_metadata, "metadata 'sparqsim' cannot be read"),
    ],
)
def test_corrupt_network_is_refused(copied: Path, change, message: str) -> None:
    """A readable file with wrong content is refused, and the message says what is wrong."""
    rewrite(copied / "digits_mlp.safetensors", change)
    with pytest.raises(InputError, match=message):
        load_digits("mlp", folder=copied)


def test_other_network_in_the_file_is_refused(copied: Path) -> None:
    """A file of the other network under this one's name is refused."""
    (copied / "digits_mlp.safetensors").write_bytes((DATA / "digits_cnn.safetensors").read_bytes())
    with pytest.raises(InputError, match="must hold the network 'mlp', got 'cnn'"):
        load_digits("mlp", folder=copied)


def test_pixels_out_of_range_are_refused(copied: Path) -> None:
    """A pixel above 16 in the image file is refused."""

    def brighten(header, body) -> None:
        body[header["test_images"]["data_offsets"][0]] = 200

    rewrite(copied / "digits_images.safetensors", brighten)
    with pytest.raises(InputError, match="pixels to 16"):
        load_images(copied)
