"""Does `sparqsim compress` take a user's own network, and answer what it cannot do by an error?"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from sparqsim.scripts.cli import main

onnx = pytest.importorskip("onnx")
from onnx import helper  # noqa: E402
from onnx_files import saved  # noqa: E402


@pytest.fixture
def net(tmp_path: Path) -> Path:
    """Two layers with a ReLU between them, four samples at once, and inputs with labels."""
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("Gemm", ["x", "up.weight"], ["a"], transB=1),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Gemm", ["b", "down.weight"], ["y"], transB=1),
    ]
    weights = {
        "up.weight": rng.standard_normal((24, 8)).astype(np.float32),
        "down.weight": rng.standard_normal((3, 24)).astype(np.float32),
    }
    inputs = {"x": rng.standard_normal((16, 8)).astype(np.float32)}
    np.savez(tmp_path / "x.npz", **inputs, labels=np.arange(16) % 3)
    np.savez(tmp_path / "other.npz", **{"x": inputs["x"][:8]})
    return saved(tmp_path / "net.onnx", nodes, {"x": [4, 8]}, ["y"], weights)


def answer(arguments: list[str], capfd: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of a call."""
    code = 0
    try:
        main(["compress", *arguments])
    except SystemExit as stop:
        code = int(stop.code or 0)
    out, err = capfd.readouterr()
    return code, out, err


def test_a_users_network_is_judged(net: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Halves of one file, or two files; SQNR, agreement and accuracy beside float32's."""
    data = str(net.with_name("x.npz"))
    code, out, _ = answer([str(net), "--recipe", "int8", "--calibration", data], capfd)
    assert code == 0 and "calibrated on the first half" in " ".join(out.split())
    assert "exact" in out and "accuracy" in out and max(map(len, out.splitlines())) <= 100
    both = ["--calibration", str(net.with_name("other.npz")), "--inputs", data]
    code, out, _ = answer([str(net), "--recipe", "int8", *both, "--json", "-"], capfd)
    report = json.loads(out)
    assert code == 0 and {row["name"] for row in report["tensors"]} == {"up", "down"}
    assert set(report["float32"]) == {"top-1 as float32", "accuracy"}
    assert report["compressed"]["SQNR of outputs, dB"] > 25
    assert "half" not in report["source"]


def test_weights_alone(net: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Without inputs weights are compressed and saved, and the report says that nothing judged."""
    out_folder = tmp_path / "out"
    code, out, _ = answer([str(net), "--recipe", "w4", "--out", str(out_folder)], capfd)
    assert code == 0 and "not judged: give inputs as --calibration FILE.npz" in out
    assert {path.name for path in out_folder.iterdir()} == {
        "compressed.json",
        "compressed.safetensors",
    }


def test_digits_are_compressed_from_before_they_were_pruned(
    capfd: pytest.CaptureFixture[str],
) -> None:
    """A network that comes pruned as well is not pruned twice: every weight is there."""
    from sparqsim.workloads.models.digits import load_digits

    _, out, _ = answer(["digits-mlp", "--recipe", "int8", "--json", "-"], capfd)
    report = json.loads(out)
    assert all(row["density"] > 0.95 for row in report["tensors"])
    accuracy = load_digits("mlp").metadata.accuracy_dense
    assert report["float32"]["accuracy"] == pytest.approx(accuracy)


@pytest.mark.parametrize(
    "arguments, says",
    [
        (["NET", "--recipe", "int8"], "net comes without inputs; give --calibration FILE.npz"),
        (["NET/up", "--recipe", "w4"], "compress takes a whole network"),
        (["NET", "--recipe", "w4", "--inputs", "X"], "need others to calibrate on"),
        (["NET", "--recipe", "w4", "--calibration", "absent.npz"], "cannot read absent.npz"),
        (["NET", "--recipe", "w4", "--shape", "x=4x8"], "has no open size; [4, 8] changes nothing"),
        (["resnet18", "--recipe", "w4"], "a table of shapes, without weights to compress"),
        (["gemm:1x2x3", "--recipe", "w4"], "a table of shapes"),
        (["digits-mlp", "--recipe", "w4", "--calibration", "X"], "calibration changes nothing for"),
        (["digits-mpl", "--recipe", "w4"], "did you mean digits-mlp"),
        (["absent.onnx", "--recipe", "w4"], "cannot read absent.onnx"),
    ],
)
def test_bad_input_is_an_error_message(
    arguments: list[str], says: str, net: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2 and one line that names the matter."""
    names = {"NET": str(net), "NET/up": f"{net}/up", "X": str(net.with_name("x.npz"))}
    code, _, err = answer([names.get(each, each) for each in arguments], capfd)
    assert code == 2 and says in err
    assert "Traceback" not in err and len(err.strip().splitlines()) == 1
