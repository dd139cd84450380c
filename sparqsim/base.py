"""What every package of Sparqsim stands on: the user-facing error, compiled kernels, safe writing.

This module knows nothing of accelerators or networks and imports only the standard library.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cached_property, update_wrapper
from pathlib import Path
from typing import Any, TypeVar, cast

F = TypeVar("F", bound=Callable[..., Any])


class InputError(ValueError):
    """An error message for the user: what must hold, what was given, where, and what to do.

    The command line prints the message alone and exits with code 2.
    """


def printable(text: str, most: int | None = None) -> str:
    """Text that a terminal or a page shows as it is, whatever it came from.

    Characters that would steer a terminal, turn the direction of writing or be invisible are
    written as escapes (``\\x1b``); line breaks stay. Beyond ``most`` characters the middle is left
    out.

    Examples
    --------
    >>> print(printable("\\x1b[31mred"), printable("a" * 99, 9))
    \\x1b[31mred aaaa…aaaa
    """
    if not text.isprintable():
        text = "".join(
            each if each == "\n" or each.isprintable() else ascii(each)[1:-1] for each in text
        )
    if most is not None and len(text) > most:
        side = (most - 1) // 2
        text = f"{text[: most - 1 - side]}…{text[-side:] if side else ''}"
    return text


def printable_json(text: str) -> str:
    """JSON of the same meaning that a terminal shows as it is.

    Examples
    --------
    >>> print(printable_json('"größe \\x7f\\u202e"'))
    "größe \\u007f\\u202e"
    """

    def escaped(found: re.Match[str]) -> str:
        if found[0].isprintable():
            return found[0]
        units = memoryview(found[0].encode("utf-16-le")).cast("H")
        return "".join(f"\\u{unit:04x}" for unit in units)

    return re.sub(r"[^ -~\n]", escaped, text)


def _writable(folder: Path) -> bool:
    """Whether a file can be made in ``folder`` or, if it is absent, in its nearest parent."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)


def _give_numba_a_cache() -> None:
    """Let compiled kernels be cached even where neither the install nor the home can be written."""
    import numba

    here = Path(__file__).resolve().parent
    # As numba does; unlike Path.home() it does not fail for a user without a home.
    home_cache = Path(os.environ.get("XDG_CACHE_HOME", os.path.expanduser("~/.cache")))
    if numba.config.CACHE_DIR or _writable(here / "__pycache__") or _writable(home_cache):
        return
    folder = Path(tempfile.gettempdir()) / f"sparqsim-numba-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    # A cache holds code, so one that another user made or can write must not be loaded.
    owner = folder.lstat()
    if folder.is_symlink() or owner.st_uid != os.getuid() or owner.st_mode & 0o022:
        folder = Path(tempfile.mkdtemp(prefix="sparqsim-numba-"))
    numba.config.CACHE_DIR = str(folder)


class Kernel:
    """A function that numba makes ready when it is first called, from Python or a kernel.

    Before that it costs nothing, nor needs numba. It has all attributes of numba's dispatcher.
    """

    def __init__(self, function: Callable[..., Any], cache: bool, options: dict[str, Any]) -> None:
        update_wrapper(self, function)
        self.py_func = function
        self._how = cache, options

    def __call__(self, *arguments: Any) -> Any:
        return self._dispatcher(*arguments)

    def __getattr__(self, name: str) -> Any:  # _numba_type_ among them, by which kernels call it
        return getattr(self._dispatcher, name)

    @cached_property
    def _dispatcher(self) -> Any:
        from sparqsim.compiling import compiled

        with suppress(OSError):  # then kernels are compiled in every run
            _give_numba_a_cache()
        return compiled(self.py_func, *self._how)


def kernel(cache: bool = True, **options: Any) -> Callable[[F], F]:
    """Compile a function with numba, when it is first called, and cache the machine code.

    The code is kept beside the source, or in the user's cache folder, or in the temporary folder:
    the first of them that can be written. The plain function stays reachable as ``f.py_func``.

    Parameters
    ----------
    cache
        Whether to keep the machine code.
    **options
        Passed to :func:`numba.njit`, for example ``parallel=True`` or ``fastmath=False``.
    """

    def made(function: F) -> F:
        return cast(F, Kernel(function, cache, options))

    return made


MEMORY_LIMIT = "SPARQSIM_MEMORY_LIMIT"  # of the environment, so that other processes see it too
UNITS = {"": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12,
         "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40}  # fmt: skip


def bytes_of(text: str) -> int:
    """A size such as ``4GB``, ``1.5GiB`` or ``1000000``; raises InputError for anything else."""
    number = text.strip().lower().rstrip("kmgtib")
    unit = text.strip().lower()[len(number) :]
    try:
        size = float(number) * UNITS[unit]
        if not 1 <= size < 2**63:
            raise ValueError
    except (ValueError, KeyError):
        raise InputError(f"a size of memory reads 4GB, 500MB or 1.5GiB, got {text!r}") from None
    return int(size)


def memory_limit() -> int:
    """Bytes that one piece of work may take: what is set, else three quarters of the machine's."""
    told = os.environ.get(MEMORY_LIMIT)
    if told:
        return bytes_of(told)
    try:
        whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # not on every system
        return 2**33
    return whole * 3 // 4


def _size(count: float) -> str:
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{count / 1e6:,.1f} MB"


def check_memory(need: float, what: str) -> None:
    """Refuse, before it is tried, what would take more memory than there may be.

    Raises
    ------
    InputError
        Naming what it is for, its size and the limit.
    """
    limit = memory_limit()
    if need > limit:
        raise InputError(
            f"{what} would take {_size(need)} of memory, and the limit is {_size(limit)}; take "
            f"less of it at once, or raise the limit (sparqsim --memory-limit 64GB ..., or "
            f"{MEMORY_LIMIT})"
        )


MOST_TEXT = 2**26  # assumed, bytes: any table or file of settings that people write is smaller


def read_text(path: str | os.PathLike[str], what: str, most: int = MOST_TEXT) -> str:
    """The text of a file in UTF-8, with or without a byte-order mark.

    Raises
    ------
    InputError
        If it cannot be read, is longer than ``most`` bytes (as a device without end is) or is no
        such text; ``what`` says what the file should be.
    """
    where = f"{what} {os.fspath(path)!r}" if not os.fspath(path) else f"{what} {path}"
    try:
        with open(path, "rb") as file:
            data = file.read(most + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"cannot read {where}: {reason}") from None
    if len(data) > most:
        raise InputError(f"cannot read {where}: it is longer than {most:,} bytes, or has no end")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            f"cannot read {where}: it must be text in UTF-8, but byte {error.start} is none; save "
            "it as UTF-8"
        ) from None


def read_toml(path: str | os.PathLike[str], what: str, kind: Any = Any) -> Any:
    """The content of a TOML file, converted to ``kind`` by msgspec.

    Raises
    ------
    InputError
        As :func:`read_text`; or if it is not TOML, nested too deeply, or not of that kind.
    """
    import msgspec

    text = read_text(path, what)
    try:
        return msgspec.toml.decode(text, type=kind)
    except msgspec.ValidationError as error:
        if isinstance(error.__cause__, InputError):
            raise InputError(f"{path} must be {what}: {error.__cause__}") from None
        raise InputError(f"{path} must be {what}: {error}") from None
    except (msgspec.MsgspecError, ValueError) as error:
        raise InputError(f"{path} must be {what}, but is no TOML: {error}") from None
    except RecursionError:
        raise InputError(f"{path} must be {what}, but is nested too deeply") from None


def read_csv(
    path: str | os.PathLike[str], what: str
) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """The header of a CSV file and its rows, each with the number of its line.

    Lines before the header that begin with ``# `` are remarks.
    A row that is shorter or longer than the header has None among its values or keys.

    Raises
    ------
    InputError
        As :func:`read_text`; or if it is no CSV.
    """
    import csv
    import io

    text, remarks = read_text(path, what), 0
    while text.startswith("# "):
        text, remarks = text.partition("\n")[2], remarks + 1
    reader = csv.DictReader(io.StringIO(text, newline=""))
    try:
        rows = [(remarks + reader.line_num, row) for row in reader]
    except csv.Error as error:
        raise InputError(f"cannot read {what} {path}: {error}") from None
    return list(reader.fieldnames or []), rows


def _check_name(path: str | os.PathLike[str]) -> None:
    if "\0" in os.fspath(path):
        raise InputError(f"a name of a file cannot hold a NUL, got {os.fspath(path)!r}")


def _behind_links(target: Path) -> Path:
    """What a link leads to, so that writing keeps the link."""
    _check_name(target)
    try:
        return target.resolve() if target.is_symlink() else target
    except (OSError, RuntimeError):
        raise InputError(f"cannot write {target}: its links lead round in a circle") from None


def check_can_write(path: str | os.PathLike[str]) -> None:
    """Refuse at once a file that :func:`written_whole` could not write after the work is done.

    Raises
    ------
    InputError
        If its folder cannot be made or written, or it is a folder itself.
    """
    target = Path(path)
    if not os.fspath(path):
        raise InputError("a file to write must have a name, got an empty one")
    if target.is_dir():
        raise InputError(f"{target} must be a file to write, but it is a folder")
    target = _behind_links(target)
    if not _writable(target.parent.absolute()):
        raise InputError(f"cannot write {target}; name a file in a folder you can write")


@contextmanager
def written_whole(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary path beside ``path``; move it there if the block ends well.

    A reader therefore sees the old file or the whole new one, never a part, and a failure leaves
    no file behind. Folders that are absent are made. A link stays a link; a device or a pipe is
    written as it is, not replaced.

    Raises
    ------
    InputError
        If the folder cannot be made or written.
    """
    target = Path(path)
    if target.is_dir():
        raise InputError(f"{target} must be a file to write, but it is a folder")
    if target.exists() and not target.is_file():
        yield target
        return
    target = _behind_links(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(
            dir=target.parent, prefix=f".{target.stem}-", suffix=target.suffix
        )
    except OSError as error:
        raise InputError(
            f"cannot write {target}: {error.strerror}; name a file in a folder you can write"
        ) from None
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def check_can_make_folder(path: str | os.PathLike[str]) -> None:
    """Refuse at once a folder that :func:`output_folder` could not give after the work is done.

    Raises
    ------
    InputError
        If it, or where it is absent its nearest parent, is no folder that can be written.
    """
    _check_name(path)
    if not _writable(Path(path).absolute()):
        raise InputError(f"cannot write into the folder {path}; name one that you can write")


def output_folder(path: str | os.PathLike[str]) -> Path:
    """Make (if need be) and return a folder that can be written.

    Raises
    ------
    InputError
        If it cannot be made or written.
    """
    _check_name(path)
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make the folder {folder}: {error.strerror}") from None
    if not _writable(folder):
        raise InputError(f"cannot write into the folder {folder}: permission denied")
    return folder
