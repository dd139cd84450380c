"""Does any number in a configuration crash, hang or deceive? Each runs, or is refused by its field.

Each machine is run with one field after the other at an extreme, everything else at its default.
"""

from __future__ import annotations

import math
import time
from typing import Any, get_args, get_type_hints

import msgspec
import pytest

from sparqsim.architectures.machine import Machine
from sparqsim.architectures.network import run_layer
from sparqsim.architectures.registry import get_machine, machine_names
from sparqsim.base import InputError
from sparqsim.workloads.work import load

WHOLE = (2**40, 2**62, 2**63 - 1, 2**31, 10**6, -1, 0)
REAL = (1e308, 5e-324, math.nan, math.inf, -1.0, 0.0, 1e12, 1e-12)


def numbers(machine: type[Machine]) -> list[tuple[str, tuple[Any, ...]]]:
    """Fields that hold numbers, each with the values to be tried."""
    found: list[tuple[str, tuple[Any, ...]]] = []
    for name, kind in get_type_hints(machine).items():
        kinds = {kind, *get_args(kind)}
        if name in machine.__struct_fields__ and float in kinds:
            found.append((name, REAL))
        elif name in machine.__struct_fields__ and int in kinds:
            found.append((name, WHOLE))
    return found


@pytest.mark.parametrize("name", machine_names())
def test_not_a_number_and_less_than_nothing_are_refused_by_field(name: str) -> None:
    """nan, infinity and -1 are no size of anything."""
    machine = get_machine(name)
    assert numbers(machine)
    for field, values in numbers(machine):
        for value in (-1,) if values is WHOLE else (math.nan, math.inf, -1.0):
            with pytest.raises(InputError, match=field):
                msgspec.structs.replace(machine(), **{field: value})


@pytest.mark.slow
@pytest.mark.parametrize("name", machine_names())
def test_an_extreme_field_runs_or_is_refused_by_name(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is not refused runs within seconds and gives a time that is a number."""
    monkeypatch.setenv("SPARQSIM_MEMORY_LIMIT", "2GB")
    machine, network = get_machine(name), load("gemm:4x64x64", numbers=True)
    for field, values in numbers(machine):
        for value in values:
            start = time.process_time()
            try:
                report = run_layer(msgspec.structs.replace(machine(), **{field: value}), network)
            except InputError as error:
                said = str(error)
                assert field in said or "limit is" in said or "no tile" in said, (field, value)
            else:
                seconds = report.report.seconds
                assert 0 < seconds < math.inf, (field, value, seconds)
            assert time.process_time() - start < 10, (field, value)
