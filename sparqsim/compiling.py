"""How kernels are compiled and kept: with a word to who waits, and a cache of which no damage ends
a run.

It is loaded with numba, by the first kernel.
"""

from __future__ import annotations

import importlib
import multiprocessing
import sys
from contextlib import suppress
from typing import Any
from weakref import WeakSet

import numba
from numba.core import event
from numba.core.caching import FunctionCache
from numba.core.runtime import rtsys


class KernelCache(FunctionCache):
    """numba's cache of one function, of which no file and no disk can end a run.

    A file that was left empty or cut short (by a full disk, a lost machine) is dropped, and the
    function compiled anew; where nothing can be written, it is compiled and not kept.
    """

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """The compiled function, or None if it is not there or cannot be read.

        A loaded function needs numba's runtime alone. Everything that numba could compile (half a
        second of imports) is loaded when something is to be compiled, not before.
        """
        try:
            rtsys.initialize(target_context)
            found = self._load_overload(sig, target_context)
        except Exception:  # what unpickling half a file raises is any of many errors
            with suppress(OSError):
                self.flush()
            found = None
        if found is None:
            _load_array_functions()
        return found

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keep a compiled function if it can be kept."""
        with suppress(OSError):
            super().save_overload(sig, data)


def _load_array_functions() -> None:
    """Load what numba can compile of numpy, but not scipy.

    numba looks by importing ``scipy.linalg`` (0.4 s) whether ``np.correlate`` could be compiled.
    No kernel here needs it, and scipy is there: a kernel that does will import it when it runs.
    """
    if "numba.np.arraymath" in sys.modules:
        return
    from numba.np import linalg

    looks, linalg.ensure_blas = linalg.ensure_blas, lambda: None
    try:
        importlib.import_module("numba.np.arraymath")
    finally:
        linalg.ensure_blas = looks


class _Compilations(event.Listener):
    """Tells who waits at a terminal, once, that kernels are being compiled."""

    def __init__(self) -> None:
        self.ours: WeakSet[Any] = WeakSet()
        self.told = False

    def on_start(self, event: event.Event) -> None:
        """A kernel is not in the cache."""
        if self.told or event.data["dispatcher"] not in self.ours or not sys.stderr.isatty():
            return
        self.told = True
        if multiprocessing.parent_process() is None:
            print("compiling kernels for the first time; later runs load them", file=sys.stderr)

    def on_end(self, event: event.Event) -> None:
        """Nothing to say."""


_COMPILATIONS = _Compilations()
event.register("numba:compile", _COMPILATIONS)


def compiled(function: Any, cache: bool, options: dict[str, Any]) -> Any:
    """A numba dispatcher of ``function``; see :func:`sparqsim.base.kernel`."""
    # Only Python and kernels call kernels, so that a wrapper for C is not worth its time.
    dispatcher = numba.njit(**{"no_cfunc_wrapper": True, **options})(function)
    _COMPILATIONS.ours.add(dispatcher)
    if cache:
        with suppress(OSError, RuntimeError):  # no folder at all can be written
            dispatcher._cache = KernelCache(function)
    return dispatcher
