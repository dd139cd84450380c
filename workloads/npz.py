"""Arrays from ``.npz`` files: nothing is unpacked that the headers of the file rule out."""

from __future__ import annotations

import math
import os
import warnings
import zipfile
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparqsim.base import InputError, check_memory, printable

MOST_WORDS = 200  # characters of what zipfile and numpy say, who quote what they read
READERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def read_npz(
    path: str | os.PathLike[str], what: str, needed: Iterable[str] = ()
) -> dict[str, NDArray[Any]]:
    """The arrays of an ``.npz`` file, by name.

    Parameters
    ----------
    what
        What the file must hold, in words.
    needed
        Names that must be there; without them nothing is unpacked.

    Raises
    ------
    InputError
        If the file cannot be read or is no npz, if a member is no array of plain numbers, is
        shorter than its header says or larger than memory may be, or a name is missing.
    """
    try:
        with warnings.catch_warnings(), zipfile.ZipFile(path) as archive:
            warnings.simplefilter("ignore")  # of numpy, on headers as Python 2 wrote them
            sizes = dict(_header(archive, info) for info in archive.infolist())
        missing = [name for name in needed if name not in sizes]
        if missing or not sizes:
            raise InputError(
                f"{path} must hold {what}; it lacks {' and '.join(missing) or 'all of it'} and "
                f"holds {printable(', '.join(sizes), MOST_WORDS) or 'no array'}"
            )
        check_memory(sum(sizes.values()), f"{path}: its arrays")
        with warnings.catch_warnings(), np.load(path, allow_pickle=False) as arrays:
            warnings.simplefilter("ignore")
            return {name: arrays[name] for name in sizes}
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from None
    except InputError:
        raise
    except Exception as error:  # on files cut, forged or locked: any of a dozen unrelated types
        why = printable(str(error), MOST_WORDS)
        raise InputError(f"{path} must be an npz of arrays of numbers: {why}") from None


def _header(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> tuple[str, int]:
    """Name of a member and bytes of its array, as its header has them."""
    name, dot, kind = info.filename.rpartition(".")
    if kind != "npy" or not dot:
        raise ValueError(f"its member {info.filename!r} is no array")
    with archive.open(info) as file:
        version = np.lib.format.read_magic(file)
        if version not in READERS:
            raise ValueError(f"{name!r} has version {version} of the format")
        try:
            shape, _, dtype = READERS[version](file)
        except Exception:  # Python's own parser speaks of its own objects
            raise ValueError(f"the header of {name!r} is none of an array") from None
        begun = file.tell()
    if dtype.hasobject:
        raise ValueError(f"{name!r} holds objects of Python, which may run code")
    size = math.prod(shape) * dtype.itemsize
    if size > info.file_size - begun:
        raise ValueError(f"{name!r} says it has {size:,} bytes, but there are fewer")
    return name, size
