"""Coverage-guided fuzzing of importers and loaders: any bytes are read, or refused with an error.

    python tests/hostile/fuzz_files.py [-max_total_time=SECONDS] [CORPUS]

Needs atheris (``pip install 'sparqsim[fuzz]'``), whose options these are. The first byte says what
the rest is: a file of an importer, a recipe, or arrays. It ends with an error at the first input
that ends otherwise, and leaves it behind as ``crash-...``.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(
    include=["sparqsim.workloads.importers", "sparqsim.workloads.npz", "sparqsim.workloads.recipes"]
):
    from sparqsim.base import InputError
    from sparqsim.workloads import recipes
    from sparqsim.workloads.importers import gguf, onnx, scalesim, table, timeloop
    from sparqsim.workloads.npz import read_npz

FOLDER = Path(tempfile.mkdtemp())
READERS = (
    ("onnx", onnx.import_onnx),
    ("gguf", gguf.import_gguf),
    ("csv", scalesim.import_scalesim),
    ("csv", table.import_table),
    ("yaml", timeloop.import_timeloop),
    ("toml", recipes.read),
    ("npz", lambda path: read_npz(path, "arrays")),
)


def read(data: bytes) -> None:
    """Give a file of these bytes to one reader."""
    if not data:
        return
    ending, reader = READERS[data[0] % len(READERS)]
    path = FOLDER / f"x.{ending}"
    path.write_bytes(data[1:])
    try:
        reader(path)
    except InputError as error:
        assert str(error)


if __name__ == "__main__":
    os.environ.setdefault("SPARQSIM_MEMORY_LIMIT", "500MB")
    atheris.Setup(sys.argv, read)
    atheris.Fuzz()
