"""Does any command line end in a traceback, hang, take all memory or steer the terminal?

Each of 2,000 drawn command lines runs in this process, and some in processes of 2 GB of address
space: it works, or it is one message and exit code 2, within 10 s.
"""

from __future__ import annotations

import json
import os
import random
import resource
import subprocess
import sys
import time
from pathlib import Path

import inputs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparqsim.base import InputError
from sparqsim.scripts import compare, run
from sparqsim.scripts.cli import main
from sparqsim.workloads import recipes
from sparqsim.workloads.work import load

SECONDS, BYTES = 10, 2 * 10**9
STEERING = "\x00\x07\x1b\u202e"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of bad files, in which commands run on one core with little memory."""
    inputs.bad_files(tmp_path, random.Random(0))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SPARQSIM_MEMORY_LIMIT", "500MB")
    for module in (run, compare):
        monkeypatch.setattr(module, "all_cores", lambda: 1)
    return tmp_path


def check(line: list[str], capsys: pytest.CaptureFixture[str], again: bool = True) -> None:
    """Run a command line and judge how it ends; what was compiled for it is no part of its time."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start, code = time.process_time(), 0
    try:
        main(line)
    except SystemExit as ended:
        code = ended.code or 0
    except Exception as error:
        pytest.fail(f"{line} ended in {type(error).__name__}: {error}")
    said = capsys.readouterr()
    assert code in (0, 2), (line, said.err)
    if again and time.process_time() - start > SECONDS:
        return check(line, capsys, again=False)
    assert time.process_time() - start < SECONDS, line
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < BYTES / 1024, line
    assert not [each for each in STEERING if each in said.out + said.err], line
    if code == 2:
        assert said.err.strip() and len(said.err.strip().splitlines()) <= 4, (line, said.err)
    return None


def test_a_few_hostile_commands(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """So that what breaks all of them is seen at once."""
    for seed in range(15):
        check(inputs.command_line(random.Random(seed)), capsys)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(20))
def test_hostile_commands(part: int, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A hundred at a time."""
    for seed in range(100 * part, 100 * part + 100):
        check(inputs.command_line(random.Random(seed)), capsys)


def _limited() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (BYTES, BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))


@pytest.mark.slow
@pytest.mark.parametrize("part", range(3))
def test_hostile_commands_in_little_memory(part: int, place: Path) -> None:
    """With an address space of 2 GB nothing ends by a signal, and nothing in a traceback."""
    alone = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
    for seed in range(3000 + 10 * part, 3010 + 10 * part):
        line = inputs.command_line(random.Random(seed))
        if any("\0" in each or "\ud800" in each for each in line):
            continue  # no process can be given these
        ended = subprocess.run(
            [sys.executable, "-m", "sparqsim.scripts.cli", *line],
            capture_output=True, env=alone, preexec_fn=_limited, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        said = ended.stderr.decode()
        assert ended.returncode in (0, 2) and "Traceback" not in said, (line, said[-2000:])


@settings(max_examples=150, deadline=None)
@given(
    st.text(max_size=60) | st.from_regex(r"(gemm|matmul|conv):[0-9x,=a-z]{0,30}", fullmatch=True)
)
def test_any_text_is_work_or_refused(text: str) -> None:
    """What is no work is an error message, whatever it is."""
    try:
        assert load(text, numbers=False).layers is not None
    except InputError as error:
        assert str(error)


VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)


@settings(max_examples=150, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from([*recipes.TensorRecipe.__struct_fields__, "nope"]),
        VALUES | st.sampled_from(["int8", "channel", "group:4", "2:4", "top:3", "moving:.5"]),
        max_size=5,
    ),
    st.sampled_from(["weights", "activations", "embeddings", "override"]),
)
def test_any_table_is_a_recipe_or_refused(fields: dict[str, object], part: str) -> None:
    """What a recipe's file may say is taken or refused, and never fails otherwise."""
    lines = [f"{key} = {json.dumps(value)}" for key, value in fields.items() if value is not None]
    text = 'name = "x"\n' + (f"[[{part}]]\n" if part == "override" else f"[{part}]\n")
    try:
        assert recipes.parse(text + "\n".join(lines), "here").name == "x"
    except InputError as error:
        assert str(error)
