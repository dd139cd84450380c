"""A machine for tests of sweeps: it takes as many cycles as asked, fails or ends its process."""

from __future__ import annotations

import os
import signal
import time
from typing import ClassVar

from sparqsim.architectures.account import Account
from sparqsim.architectures.machine import Figure, Machine, Program
from sparqsim.architectures.operands import Computes
from sparqsim.base import InputError
from sparqsim.simulator.netlist import Actor, Netlist
from sparqsim.simulator.report import Macs
from sparqsim.workloads.encoded import EncodedLayer


class Toy(Machine, frozen=True, kw_only=True):
    """Of no use but to be swept.

    Attributes
    ----------
    size
        Cycles of a run.
    how
        "fine", "refused", "error", or "die".
    busy_ms
        Milliseconds of processor time that a run takes.
    """

    name: ClassVar[str] = "toy"
    title: ClassVar[str] = "a toy"

    size: int = 1
    how: str = "fine"
    busy_ms: float = 0.0

    def __post_init__(self) -> None:
        if self.size < 1:
            raise InputError(f"toy.size must be at least 1, got {self.size}")

    def computes(self, layer: EncodedLayer) -> Computes:
        """8-bit integers."""
        held = ("int8_unsigned", "int8_signed")
        return Computes(weights=held, activations=held)

    def lower(self, layer: EncodedLayer) -> Program:
        """One actor that is busy."""
        if self.how == "refused":
            raise InputError("the toy was told to refuse")
        if self.how == "error":
            raise RuntimeError("the toy was told to break")
        if self.how == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        end = time.process_time() + self.busy_ms / 1e3
        while time.process_time() < end:
            pass
        return Program(
            netlist=Netlist([Actor(name="a", firings=1, busy=self.size)]),
            layer=layer.name,
            inputs="none",
            macs=Macs(dense=layer.layer.macs, effectual=layer.layer.macs),
            worker="a",
            multipliers=1,
            account=Account([], []),
        )

    def datasheet(self) -> list[Figure]:
        """Nothing."""
        return []
