"""Number formats as values: ``formats.get("flint4_unsigned").encode(x / scale)``.

See :mod:`workloads.formats.base` for what a format is, and ``sparqsim formats`` for what there is.
"""

from workloads.formats.abfloat import AbFloat, clearing_bias
from workloads.formats.base import Format, TableFormat
from workloads.formats.codebook import Codebook, fit_codebook
from workloads.formats.flint import Flint
from workloads.formats.floating import Float
from workloads.formats.integer import Int
from workloads.formats.pairs import OutlierVictim, outlier_victim
from workloads.formats.powers import APoT, PoT
from workloads.formats.registry import GRAMMAR, get, names

__all__ = [
    "GRAMMAR",
    "APoT",
    "AbFloat",
    "Codebook",
    "Flint",
    "Float",
    "Format",
    "Int",
    "OutlierVictim",
    "PoT",
    "TableFormat",
    "clearing_bias",
    "fit_codebook",
    "get",
    "names",
    "outlier_victim",
]
