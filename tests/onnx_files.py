"""Small ONNX files for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def value(name: str, shape: list[int | str] | None, kind: int = 1) -> Any:
    """A value of a graph; 1 is float32, 7 is int64."""
    from onnx import helper

    return helper.make_tensor_value_info(name, kind, shape)


def saved(
    path: Path,
    nodes: list[Any],
    inputs: dict[str, list[int | str]],
    outputs: list[str],
    constants: dict[str, NDArray[Any]] | None = None,
    kinds: dict[str, int] | None = None,
    opset: int = 17,
) -> Path:
    """Write a graph: float32 inputs unless ``kinds`` says otherwise, shapes of outputs unknown."""
    import onnx
    from onnx import helper, numpy_helper

    graph = helper.make_graph(
        nodes,
        "g",
        [value(name, shape, (kinds or {}).get(name, 1)) for name, shape in inputs.items()],
        [value(name, None, (kinds or {}).get(name, 1)) for name in outputs],
        [numpy_helper.from_array(np.asarray(v), name) for name, v in (constants or {}).items()],
    )
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("custom", 1)]
    imports += [helper.make_opsetid(each, 1) for each in {n.domain for n in nodes} - {"", "custom"}]
    onnx.save(helper.make_model(graph, opset_imports=imports, ir_version=8), str(path))
    return path
