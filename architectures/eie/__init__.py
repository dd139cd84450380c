"""EIE, by what builds on what: fields, the layer as it is stored, its netlist, the machine."""

from sparqsim.architectures.eie.counts import load_counts
from sparqsim.architectures.eie.machine import EIE

__all__ = ["EIE", "load_counts"]
