"""Number formats as values: ``formats.get("flint4_unsigned").encode(x / scale)``.

See :mod:`workloads.formats.base` for what a format is, and ``sparqsim formats`` for what there is.
"""

from workloads.formats.base import Format, TableFormat
from workloads.formats.flint import Flint
from workloads.formats.integer import Int
from workloads.formats.registry import GRAMMAR, get, names

__all__ = ["GRAMMAR", "Flint", "Format", "Int", "TableFormat", "get", "names"]
