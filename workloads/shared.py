"""What several runs share is made once: drawn tensors, encoded layers, counted products.

Within :func:`sharing` a value that :func:`once` made is kept for the next run that asks for it, and
the ones that were not asked for the longest go when their arrays exceed a size. Outside of it
nothing is kept, and every run makes its own. What is shared must not be written to.
"""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

import msgspec
import numpy as np

T = TypeVar("T")

LEAST_BYTES = 1 << 15  # what a value without arrays counts: a report, say
LOOKED_AT = 64  # values of a list that are measured


class Kept:
    """Values by key, the one that was used last at the end.

    Parameters
    ----------
    most_bytes
        Of arrays at most; the value that was made last is kept even if it is larger.
    """

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes = most_bytes
        self.bytes = 0
        self.values: OrderedDict[Any, tuple[Any, tuple[object, ...], int]] = OrderedDict()

    def get(self, key: Any, objects: tuple[object, ...], make: Callable[[], T]) -> T:
        """The value of a key, made if need be; ``objects`` live as long as it is kept."""
        if key in self.values:
            self.values.move_to_end(key)
            found: T = self.values[key][0]
            return found
        made = make()
        size = max(array_bytes(made, set()), LEAST_BYTES)
        self.values[key] = made, objects, size
        self.bytes += size
        while self.bytes > self.most_bytes and len(self.values) > 1:
            _, (_, _, freed) = self.values.popitem(last=False)
            self.bytes -= freed
        return made


_kept: ContextVar[Kept | None] = ContextVar("kept", default=None)


@contextmanager
def sharing(kept: Kept) -> Iterator[None]:
    """Let the runs in the block share what they make."""
    token = _kept.set(kept)
    try:
        yield
    finally:
        _kept.reset(token)


def once(what: str, key: Any, objects: tuple[object, ...], make: Callable[[], T]) -> T:
    """``make()``, or what it gave to an earlier run of the same :func:`sharing`.

    Parameters
    ----------
    what
        What is made, so that keys of different things differ.
    key
        Equal, and hashable, where the same is to be made of the same objects.
    objects
        What it is made of, told apart by identity.
    """
    kept = _kept.get()
    if kept is None:
        return make()
    return kept.get((what, key, *map(id, objects)), objects, make)


def array_bytes(value: object, seen: set[int]) -> int:
    """Bytes of all arrays in a value, of long lists by some of their values.

    An array that several places hold counts once.
    """
    if id(value) in seen:
        return 0
    seen.add(id(value))
    if isinstance(value, np.ndarray):
        held = value if value.base is None else value.base
        if held is not value and id(held) in seen:
            return 0
        seen.add(id(held))
        return int(held.nbytes if isinstance(held, np.ndarray) else value.nbytes)
    if isinstance(value, dict):
        inside = list(value.values())
    elif isinstance(value, list | tuple):
        step = len(value) // LOOKED_AT + 1
        return step * sum(array_bytes(each, seen) for each in value[::step])
    elif dataclasses.is_dataclass(value) or isinstance(value, msgspec.Struct):
        inside = [getattr(value, name, None) for name in _fields(value)]
        inside += list(getattr(value, "__dict__", {}).values())
    elif hasattr(value, "__dict__") and not callable(value):
        inside = list(vars(value).values())
    else:
        return 0
    return sum(array_bytes(each, seen) for each in inside)


def _fields(value: object) -> tuple[str, ...]:
    if isinstance(value, msgspec.Struct):
        return value.__struct_fields__
    return tuple(field.name for field in dataclasses.fields(value))  # type: ignore[arg-type]
