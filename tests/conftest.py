"""What holds for every test: one thread for products, the same draws, no numba warnings.

``make explore`` draws afresh and prints what reproduces a failure.
"""

import os

import pytest
from hypothesis import settings

# Threads of BLAS spin while they wait for each other; beside another process of tests on the same
# cores that takes most of the time. They are read when numpy is imported, and by commands that
# tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# The same draws on every run, so that a change alone turns a test red.
settings.register_profile("same", derandomize=True)
settings.register_profile("afresh", print_blob=True)
settings.load_profile("same")


def pytest_configure(config: pytest.Config) -> None:
    """Numba's warnings are errors; naming one in pyproject.toml would import numpy too early."""
    config.addinivalue_line("filterwarnings", "error::numba.core.errors.NumbaWarning")
