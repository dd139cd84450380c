"""Is what every package stands on safe? Files are written whole or not at all, errors say why, and
compiled kernels find a cache wherever the program is installed."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import stat
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from paths import ROOT

import sparqsim.base
from sparqsim.base import InputError, check_can_write, kernel, output_folder, written_whole

# written_whole


def test_a_file_is_written_whole(tmp_path: Path) -> None:
    """While the block runs the target is not touched; then it is the new file, and nothing else."""
    target = tmp_path / "out.json"
    target.write_text("old")
    with written_whole(target) as path:
        path.write_text("new")
        assert path.parent == tmp_path and path.suffix == ".json"
        assert target.read_text() == "old"
    assert target.read_text() == "new"
    assert os.listdir(tmp_path) == ["out.json"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("old", ["old", None])
def test_a_failure_leaves_no_trace(tmp_path: Path, error: type[BaseException], old) -> None:
    """The old file stays as it was, or there is none; no temporary file is left, whatever ended
    the block."""
    target = tmp_path / "out.json"
    if old is not None:
        target.write_text(old)
    with pytest.raises(error), written_whole(target) as path:
        path.write_text("half of")
        raise error
    assert [p.read_text() for p in tmp_path.iterdir()] == ([] if old is None else [old])


def test_a_block_that_writes_by_name_or_removes_its_file(tmp_path: Path) -> None:
    """Libraries that replace the file, as numpy does, work; one that removed it is an error."""
    with written_whole(tmp_path / "a.npz") as path:
        np.savez(path, x=np.arange(3))
    assert np.load(tmp_path / "a.npz")["x"].tolist() == [0, 1, 2]
    with pytest.raises(FileNotFoundError), written_whole(tmp_path / "b") as path:
        path.unlink()
    assert os.listdir(tmp_path) == ["a.npz"]


def test_rights_follow_the_umask(tmp_path: Path) -> None:
    """A file as any other: not the private rights of a temporary one, and the umask is kept."""
    before = os.umask(0o027)
    try:
        with written_whole(tmp_path / "out") as path:
            path.write_text("x")
        assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o640
        assert os.umask(0o027) == 0o027
    finally:
        os.umask(before)


def test_an_absent_folder_is_made(tmp_path: Path) -> None:
    """``--json out/new/x.json`` needs no folder to be made before, and checking it makes none."""
    target = tmp_path / "out" / "new" / "x.json"
    check_can_write(target)
    assert not (tmp_path / "out").exists()
    with written_whole(target) as path:
        path.write_text("whole")
    assert target.read_text() == "whole" and os.listdir(target.parent) == ["x.json"]


@pytest.mark.parametrize("where", ["file/out.json", "file/new/out.json"])
def test_a_folder_that_is_none_is_an_error_message(tmp_path: Path, where: str) -> None:
    """The path and what to do, before the work and when it is written."""
    (tmp_path / "file").write_text("")
    said = f"cannot write .*{where}.*; name a file in a folder you can write"
    with pytest.raises(InputError, match=said):
        check_can_write(tmp_path / where)
    with pytest.raises(InputError, match=said), written_whole(tmp_path / where):
        pass
    with pytest.raises(InputError, match="it is a folder"), written_whole(tmp_path):
        pass


def test_a_device_is_written_and_stays_a_device(tmp_path: Path) -> None:
    """``--json /dev/null`` must not put a file in the place of the device, even for root."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        with written_whole(pipe) as path:
            path.write_text("through")
        assert os.read(reader, 100) == b"through"
    finally:
        os.close(reader)
    assert stat.S_ISFIFO(pipe.stat().st_mode) and os.listdir(tmp_path) == ["pipe"]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    """The file it points to is replaced."""
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "file").write_text("old")
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "store" / "file")
    with written_whole(link) as path:
        path.write_text("new")
    assert link.is_symlink() and (tmp_path / "store" / "file").read_text() == "new"


# output_folder


def test_a_folder_is_made_with_its_parents(tmp_path: Path) -> None:
    """And one that is there is taken as it is."""
    folder = output_folder(tmp_path / "a" / "b")
    assert folder.is_dir() and output_folder(folder) == folder
    assert output_folder(str(folder)) == folder


def test_a_folder_that_cannot_be_is_an_error_message(tmp_path: Path, monkeypatch) -> None:
    """A file in its place, a file on the way, or no right to write."""
    (tmp_path / "file").write_text("")
    for wrong in ("file", "file/below"):
        with pytest.raises(InputError, match=f"cannot make the folder .*{wrong}"):
            output_folder(tmp_path / wrong)
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(InputError, match=r"cannot write into the folder .*permission denied"):
        output_folder(tmp_path)


# kernels


def test_a_kernel_keeps_its_plain_function() -> None:
    """The compiled function and ``py_func`` give the same; options reach numba."""

    def plain(x: float, y: float) -> float:
        return x / y

    fast = kernel(cache=False)(plain)
    careless = kernel(cache=False, error_model="numpy")(plain)
    assert fast.py_func is plain and fast(6, 4) == plain(6, 4) == 1.5
    with pytest.raises(ZeroDivisionError):
        fast(1.0, 0.0)
    assert careless(1.0, 0.0) == float("inf")


def test_the_base_imports_only_the_standard_library() -> None:
    """numba is loaded by the first kernel, not by the import."""
    code = "import sys, sparqsim.base; print(sorted({'numba', 'numpy'} & set(sys.modules)))"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert told.stdout.strip() == "[]"


@pytest.fixture
def caches(monkeypatch, tmp_path: Path):
    """Which cache folder is chosen if only the given folders can be written."""
    import numba

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(sparqsim.base.tempfile, "gettempdir", lambda: str(tmp_path))

    def chosen(*writable: str, user: str = "") -> str:
        monkeypatch.setattr(numba.config, "CACHE_DIR", user)
        names = {"install": ROOT / "sparqsim" / "__pycache__", "home": tmp_path / "home"}
        allowed = {names[name] for name in writable}
        monkeypatch.setattr(sparqsim.base, "_writable", lambda folder: folder in allowed)
        sparqsim.base._give_numba_a_cache()
        return numba.config.CACHE_DIR

    return chosen


def test_numba_decides_where_it_can(caches) -> None:
    """Beside the source or at home if one can be written, and always where the user says."""
    assert caches("install") == caches("home") == caches("install", "home") == ""
    assert caches(user="/mine") == "/mine"


def test_the_last_resort_is_a_private_temporary_folder(caches, tmp_path: Path) -> None:
    """The same for every process of a user, so that it is a cache, and no one else's: numba loads
    code from it. A folder of that name that others can write is not used."""
    folder = Path(caches())
    assert folder.parent == tmp_path and caches() == str(folder)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    folder.chmod(0o777)
    other = Path(caches())
    assert other != folder and stat.S_IMODE(other.stat().st_mode) == 0o700


KERNEL = """
    import json
    from tiny import twice
    print(json.dumps([twice(21), twice.__module__, sum(twice.stats.cache_hits.values())]))
"""
WHOLE = """
    import json
    from sparqsim import simulator
    from sparqsim.simulator.engines import simulate
    from sparqsim.simulator.engines.compiled import run
    from sparqsim.simulator.netlist import Actor, Netlist

    cycles = simulate(Netlist([Actor(name="a", firings=6, busy=7)])).cycles
    print(json.dumps([cycles, simulator.__name__, sum(run.stats.cache_hits.values())]))
"""


TINY = "from sparqsim.base import kernel\n\n\n@kernel()\ndef twice(x):\n    return 2 * x\n"


def twice_in_a_process(folder: Path, before: str = "", **options) -> list:
    """What ``twice(21)`` is, its module and the hits of the cache, in a process of its own."""
    if not (folder / "tiny.py").exists():
        (folder / "tiny.py").write_text(TINY)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)])}
    environment["NUMBA_CACHE_DIR"] = str(folder / "cache")
    told = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(before) + textwrap.dedent(KERNEL)],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
        cwd=folder,
        timeout=600,
        **options,
    )
    assert told.returncode == 0
    return json.loads(told.stdout)


LOADED = """
    import atexit, sys

    def tell():
        with open("loaded", "w") as file:
            file.writelines(f"{name}\\n" for name in sys.modules)

    atexit.register(tell)
"""


class Told(NamedTuple):
    """What a process at a terminal answered and said there, and the modules that it loaded."""

    answer: list
    said: str
    loaded: set[str]


def at_a_terminal(folder: Path) -> Told:
    """``twice_in_a_process`` with a terminal as its standard error."""
    ours, theirs = os.openpty()
    answer = twice_in_a_process(folder, LOADED, stderr=theirs)
    os.close(theirs)
    os.set_blocking(ours, False)
    try:
        said = os.read(ours, 1000).decode()
    except OSError:  # nothing was written
        said = ""
    finally:
        os.close(ours)
    return Told(answer, said, set((folder / "loaded").read_text().split()))


@pytest.fixture(scope="module")
def first_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Told]:
    """A folder in which a process found no cache, and left one; compiled once for all tests."""
    folder = tmp_path_factory.mktemp("first")
    return folder, at_a_terminal(folder)


@pytest.fixture
def cached(first_run: tuple[Path, Told]) -> Iterator[Path]:
    """The folder of the first run, whose cache is left as it was found."""
    folder = first_run[0]
    kept = {path: path.read_bytes() for path in folder.rglob("*.nb?")}
    yield folder
    for path in folder.rglob("*.nb?"):
        path.unlink()
    for path, content in kept.items():
        path.write_bytes(content)


@pytest.mark.parametrize(
    "kind, damage",
    [
        ("nbi", "cut"),
        ("nbc", "garbage"),
        *(
            pytest.param(*both, marks=pytest.mark.slow)
            for both in [("nbi", "empty"), ("nbi", "garbage"), ("nbc", "empty"), ("nbc", "cut")]
        ),
    ],
)
def test_a_damaged_file_of_the_cache_is_healed(cached: Path, kind: str, damage: str) -> None:
    """An index or a kernel left empty, cut or overwritten is dropped: the run gives its answer,
    compiles anew and leaves a cache that the next run loads."""
    (file,) = (cached / "cache").rglob(f"*.{kind}")
    whole = file.read_bytes()
    wrong = {"empty": b"", "cut": whole[: len(whole) // 2], "garbage": bytes(len(whole))}
    file.write_bytes(wrong[damage])
    assert twice_in_a_process(cached) == [42, "tiny", 0]
    assert twice_in_a_process(cached) == [42, "tiny", 1]


NO_SPACE = """
    import errno
    from numba.core.caching import IndexDataCacheFile

    def refuse(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    IndexDataCacheFile._open_for_write = refuse
"""
NO_FOLDER = """
    import sparqsim.base, tempfile, os
    from numba.core import caching

    def refuse(*_, **__):
        raise OSError("Read-only file system")

    caching._CacheLocator.ensure_cache_path = refuse
    sparqsim.base._writable = lambda folder: False
    sparqsim.base.Path.mkdir = refuse
"""


@pytest.mark.parametrize("before", [NO_SPACE, NO_FOLDER], ids=["full disk", "read-only"])
def test_a_run_needs_no_cache(tmp_path: Path, before: str) -> None:
    """Where a disk is full, or nothing can be written at all, kernels are compiled and not kept;
    where standard error is a file, nothing is said of it."""
    with open(tmp_path / "stderr", "w") as file:
        assert twice_in_a_process(tmp_path, before, stderr=file) == [42, "tiny", 0]
    assert not list(tmp_path.rglob("*.nb?"))
    assert (tmp_path / "stderr").read_text() == ""


def test_who_compiles_is_told_and_pays_and_no_one_else(first_run: tuple[Path, Told]) -> None:
    """The first run says one line at a terminal, that it compiles; the second, from the cache, says
    none and runs without what numba could compile. Neither imports scipy for it."""
    folder, first = first_run
    second = at_a_terminal(folder)
    assert (first.answer, second.answer) == ([42, "tiny", 0], [42, "tiny", 1])
    assert first.said.count("compiling kernels for the first time") == first.said.count("\n") == 1
    assert second.said == ""
    assert "numba.np.arraymath" in first.loaded and "numba.np.arraymath" not in second.loaded
    assert not {"scipy.linalg", "scipy.linalg.cython_blas"} & (first.loaded | second.loaded)


def drop_the_right_to_write_anywhere() -> None:
    """In a child that runs as root: from its next exec on, rights bind it as any other user."""
    capbset_drop, dac_override = 24, 1  # linux/prctl.h, linux/capability.h
    if os.getuid() == 0 and ctypes.CDLL(None).prctl(capbset_drop, dac_override, 0, 0, 0):
        raise PermissionError("cannot drop CAP_DAC_OVERRIDE")


@pytest.mark.skipif(sys.platform != "linux", reason="drops root's rights the way of Linux")
@pytest.mark.parametrize(
    "code", [KERNEL, pytest.param(WHOLE, marks=pytest.mark.slow)], ids=["kernel", "whole"]
)
def test_a_read_only_install_without_a_home_works_and_caches(tmp_path: Path, code: str) -> None:
    """End to end, where neither the install nor the home can be written: the answer is right, and
    the second process loads the compiled code of the first."""
    install, home, scratch = (tmp_path / name for name in ("install", "home", "tmp"))
    no_cache = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "sparqsim", install / "sparqsim", ignore=no_cache)
    for part in ("simulator", "workloads"):
        shutil.copytree(ROOT / part, install / "sparqsim" / part, ignore=no_cache)
    (install / "tiny.py").write_text(TINY)
    home.mkdir()
    scratch.mkdir()
    read_only = [home, *(folder for folder in (install, *install.rglob("*")) if folder.is_dir())]
    environment = {**os.environ, "PYTHONPATH": str(install), "HOME": str(home)}
    environment |= {"TMPDIR": str(scratch), "XDG_CACHE_HOME": str(home / "cache")}
    environment.pop("NUMBA_CACHE_DIR", None)
    for folder in read_only:
        folder.chmod(0o555)
    hits = []
    try:
        for _ in range(2):
            try:
                told = subprocess.run(
                    [sys.executable, "-P", "-c", textwrap.dedent(code)],
                    capture_output=True,
                    text=True,
                    cwd="/",
                    env=environment,
                    preexec_fn=drop_the_right_to_write_anywhere,
                    timeout=600,
                )
            except subprocess.SubprocessError:
                pytest.skip("root's rights cannot be dropped here")
            assert told.returncode == 0, told.stderr
            answer, _, hit = json.loads(told.stdout)
            assert answer == 42
            hits.append(hit)
        assert hits == [0, 1]
        assert not list(install.rglob("*.nbi")) and not list(home.iterdir())
        assert list(scratch.rglob("*.nbi"))
    finally:
        for folder in read_only:
            folder.chmod(0o755)
