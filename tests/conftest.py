"""What holds for every test: one thread for products, the same draws, no numba warnings.

``make explore`` draws afresh and prints what reproduces a failure.
"""

from __future__ import annotations

import fcntl
import gc
import os
from pathlib import Path

import pytest
from hypothesis import settings

# Threads of BLAS and of kernels spin while they wait for each other; beside another process of
# tests on the same cores that takes most of the time. Both are read when numpy and numba are
# imported, and by commands that tests start. What kernels give on several: house/test_threads.py.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("NUMBA_NUM_THREADS", "1")

# The same draws on every run, so that a change alone turns a test red.
settings.register_profile("same", derandomize=True)
settings.register_profile("afresh", print_blob=True)
settings.load_profile("same")


def pytest_configure(config: pytest.Config) -> None:
    """Numba's warnings are errors; naming one in pyproject.toml would import numpy too early."""
    config.addinivalue_line("filterwarnings", "error::numba.core.errors.NumbaWarning")


def pytest_collection_finish(session: pytest.Session) -> None:
    """What stays to the end, thousands of tests and all modules, is not looked at by every
    collection of garbage."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def validated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of ``sparqsim validate --all --report``, made once for all workers of a run.

    Two processes make it; a worker that asks meanwhile waits.
    """
    from sparqsim.scripts import validate
    from sparqsim.scripts.output import PatientBar
    from sparqsim.scripts.validation import _book, _page

    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder = base / "validated"
    with (base / "validated.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "index.html").exists():
            bar = PatientBar()
            _page.write(
                _book.make(
                    validate.validations(),
                    folder,
                    2,
                    lambda run, done, runs: bar(run.name, done, runs),
                ),
                folder,
            )
    return folder
