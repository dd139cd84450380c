"""Are docs/quantization.md and the examples in the docstrings true as printed?"""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import numpy as np
import pytest

PAGE = Path(__file__).resolve().parent.parent / "docs" / "quantization.md"


def test_the_page_is_executed() -> None:
    """Every block of the page prints what stands below it."""
    result = doctest.testfile(str(PAGE), module_relative=False, encoding="utf-8")
    assert result.attempted > 20 and result.failed == 0


@pytest.mark.parametrize("name", ["calibrate", "quantize"])
def test_docstring_examples(name: str) -> None:
    """An example in a docstring prints what it shows."""
    module = importlib.import_module(f"workloads.{name}")
    result = doctest.testmod(module, extraglobs={"np": np})
    assert result.attempted > 0 and result.failed == 0
