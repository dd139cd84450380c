"""SNAP, by what builds on what: fields, who works where, the layer matched, the machine."""

from sparqsim.architectures.snap.machine import SNAP

__all__ = ["SNAP"]
