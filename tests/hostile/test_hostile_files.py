"""Do bytes that a fuzzer finds break an importer or a loader? Long: a minute of atheris."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("atheris")
onnx = pytest.importorskip("onnx")

HERE = Path(__file__).resolve().parent
SECONDS = 60


def seeds(folder: Path) -> None:
    """A small good file of each kind, each behind the byte that says what it is."""
    from onnx import helper

    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", 1, [2, 3])],
        [helper.make_tensor_value_info("y", 1, [2, 4])],
        [onnx.numpy_helper.from_array(np.ones((3, 4), np.float32), "w")],
    )  # fmt: skip
    np.savez(folder / "arrays.npz", x=np.ones((2, 3), np.float32))
    good = [
        helper.make_model(graph).SerializeToString(),
        b"GGUF\x03\0\0\0" + bytes(16),
        b"Layer, M, N, K,\nfc, 4, 5, 6,\n",
        b"name,kind,in_features,out_features\nfc,linear,4,5\n",
        b"problem:\n  shape: {name: x, dimensions: [M, N, K]}\n  instance: {M: 2, N: 3, K: 4}\n",
        b'name = "x"\n[weights]\nformat = "int4"\nprune = "2:4"\n',
        (folder / "arrays.npz").read_bytes(),
    ]
    (folder / "arrays.npz").unlink()
    for kind, content in enumerate(good):
        (folder / str(kind)).write_bytes(bytes([kind]) + content)


@pytest.mark.slow
def test_a_fuzzer_finds_nothing(tmp_path: Path) -> None:
    """Within a minute every input is read or refused; none takes over 10 s or 2 GB."""
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    seeds(corpus)
    limits = [
        f"-max_total_time={SECONDS}",
        "-timeout=10",
        "-rss_limit_mb=2048",
        "-max_len=4096",
        "-seed=1",
    ]  # as all draws: the same on every run
    ended = subprocess.run(
        [sys.executable, str(HERE / "fuzz_files.py"), *limits, str(corpus)],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr[-4000:]
    assert not list(tmp_path.glob("crash-*"))
