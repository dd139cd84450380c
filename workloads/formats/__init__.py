"""Number formats as values: ``formats.get("flint4_unsigned").encode(x / scale)``.

See :mod:`sparqsim.workloads.formats.base` for what a format is, and ``sparqsim formats`` for what
there is.
"""

from sparqsim.workloads.formats.abfloat import AbFloat, clearing_bias
from sparqsim.workloads.formats.base import Format, TableFormat
from sparqsim.workloads.formats.codebook import Codebook, fit_codebook
from sparqsim.workloads.formats.flint import Flint
from sparqsim.workloads.formats.floating import Float
from sparqsim.workloads.formats.integer import Int
from sparqsim.workloads.formats.pairs import OutlierVictim, outlier_victim
from sparqsim.workloads.formats.powers import APoT, PoT
from sparqsim.workloads.formats.registry import GRAMMAR, get, is_spelled, names

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
    "is_spelled",
    "names",
    "outlier_victim",
]
