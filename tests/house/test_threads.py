"""Do kernels on several threads give what they give on one, to the bit? All other tests run them on
one, for the processes of a run of tests share the cores."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sparqsim.architectures.machine import run
from sparqsim.architectures.snap import SNAP
from sparqsim.workloads import formats
from sparqsim.workloads.calibrate import Entropy
from sparqsim.workloads.formats.pairs import outlier_victim
from sparqsim.workloads.layers import Conv2d
from sparqsim.workloads.observers import Observer
from sparqsim.workloads.rounding_errors import squared_errors
from sparqsim.workloads.slices import Samples
from sparqsim.workloads.tensors import synthetic

GRIDS = formats.get("int4_signed"), formats.get("flint4_signed"), outlier_victim("int", 4)


def made() -> dict[str, NDArray]:
    """What every kernel that may use several threads makes of 16 rows, short and long ones."""
    rng = np.random.default_rng(0)
    found: dict[str, NDArray] = {}
    for length in (6, 3000):
        rows = rng.standard_t(3, (16, length))
        for grid in GRIDS:
            errors = squared_errors(
                Samples.of(rows), grid, np.full(16, 0.3), None, np.array([0.5, 1.0, 1.5])
            )
            found[f"errors {grid.name} {length}"] = errors
        observer = Observer(axis=0)
        for part in (0.01 * rows, rows):
            observer.update(part)
        found[f"counts {length}"] = np.asarray(observer.samples().counts)
    low, high = Entropy(bins=64, stride=1).range(
        Samples.of(rows), formats.get("int4_narrow"), False
    )
    found["clipped"] = np.stack([low, high])
    layer = Conv2d(name="c", in_channels=40, out_channels=13, input=(9, 8), kernel=(3, 3))
    result = run(SNAP(), synthetic(layer, rng, weight_density=0.5, activation_density=0.5))
    assert result.report.verification.status == "exact"
    counters = result.report.counters
    found["snap"] = np.array([result.report.cycles, *(counters[name] for name in sorted(counters))])
    return found


def test_several_threads_give_what_one_gives(tmp_path: Path) -> None:
    """In a process of four threads, however many cores there are, and in this one."""
    code = (
        "import numba, numpy, sys, test_threads\n"
        "assert numba.config.NUMBA_NUM_THREADS == 4\n"
        "numpy.savez(sys.argv[1], **test_threads.made())\n"
    )
    paths = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[1])])
    subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "four.npz")],
        check=True,
        env={**os.environ, "NUMBA_NUM_THREADS": "4", "PYTHONPATH": paths},
    )
    four, one = np.load(tmp_path / "four.npz"), made()
    assert sorted(four) == sorted(one)
    for name, values in one.items():
        np.testing.assert_array_equal(values, four[name], err_msg=name)
