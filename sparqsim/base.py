"""What every package of Sparqsim stands on: the user-facing error, compiled kernels, safe writing.

This module knows nothing of accelerators or networks and imports only the standard library.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])


class InputError(ValueError):
    """A letter to the user: what must hold, what was given, where, and what to do.

    The command line prints the message alone and exits with code 2.
    """


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


def kernel(cache: bool = True, **options: Any) -> Callable[[F], F]:
    """Compile a function with numba and cache the machine code.

    The code is kept beside the source, or in the user's cache folder, or in the temporary folder:
    the first of them that can be written. The plain function stays reachable as ``f.py_func``.

    Parameters
    ----------
    cache
        Whether to keep the machine code.
    **options
        Passed to :func:`numba.njit`, for example ``parallel=True`` or ``fastmath=False``.
    """

    def compile_lazily(function: F) -> F:
        from sparqsim.compiling import compiled

        with suppress(OSError):  # then kernels are compiled in every run
            _give_numba_a_cache()
        return compiled(function, cache, options)

    return compile_lazily


def check_can_write(path: str | os.PathLike[str]) -> None:
    """Refuse at once a file that :func:`written_whole` could not write after the work is done.

    Raises
    ------
    InputError
        If its folder does not exist or cannot be written, or it is a folder itself.
    """
    target = Path(path)
    if target.is_dir():
        raise InputError(f"{target} must be a file to write, but it is a folder")
    if not target.parent.is_dir() or not _writable(target.parent):
        why = "permission denied" if target.parent.is_dir() else "its folder does not exist"
        raise InputError(f"cannot write {target}: {why}; name a file in a folder you can write")


@contextmanager
def written_whole(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary path beside ``path``; move it there if the block ends well.

    A reader therefore sees the old file or the whole new one, never a part, and a failure leaves
    nothing behind. A link stays a link; a device or a pipe is written as it is, not replaced.

    Raises
    ------
    InputError
        If the folder does not exist or cannot be written.
    """
    target = Path(path)
    if target.is_dir():
        raise InputError(f"{target} must be a file to write, but it is a folder")
    if target.exists() and not target.is_file():
        yield target
        return
    if target.is_symlink():
        target = target.resolve()
    try:
        handle, name = tempfile.mkstemp(
            dir=target.parent, prefix=f".{target.stem}-", suffix=target.suffix
        )
    except OSError as error:
        raise InputError(
            f"cannot write {target}: {error.strerror}; name a file in an existing, writable folder"
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
    if not _writable(Path(path).absolute()):
        raise InputError(f"cannot write into the folder {path}; name one that you can write")


def output_folder(path: str | os.PathLike[str]) -> Path:
    """Make (if need be) and return a folder that can be written.

    Raises
    ------
    InputError
        If it cannot be made or written.
    """
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make the folder {folder}: {error.strerror}") from None
    if not _writable(folder):
        raise InputError(f"cannot write into the folder {folder}: permission denied")
    return folder
