"""One account of the bits a run moves: a table of ports, and everything that is summed over it.

A :class:`Port` says which actor's firings read and write a memory, and how many bits each; a
:class:`Store` says what the memory is: its size, how full it gets, and what a bit costs. Traffic
over time, the memories of the report, their energy and their counters are all sums over this table,
so that they cannot differ.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

import numpy as np
from numpy.typing import ArrayLike

from sparqsim.base import InputError
from sparqsim.simulator.energy.tables import Basis, Entry
from sparqsim.simulator.loops import Loops
from sparqsim.simulator.netlist import Netlist
from sparqsim.simulator.report import EnergyPart, Memory, memory_use
from sparqsim.simulator.traffic import Access, Traffic


@dataclass(frozen=True, kw_only=True)
class Store:
    """A memory.

    Attributes
    ----------
    name : str
        In the report: ``weight_buffer``, ``dram``.
    capacity_bits : int
        Of all its instances; 0 where no size is known or it does not matter.
    used_bits : int
        What the run keeps in it at once.
    source : str
        Where the size comes from.
    read, write : Entry or None
        Energy of a bit; None where the machine prices the memory otherwise (by power over time).
    part : str
        Name of its part of the energy; that of the memory by default.
    """

    name: str
    capacity_bits: int = 0
    used_bits: int = 0
    source: str = ""
    read: Entry | None = None
    write: Entry | None = None
    part: str = ""


@dataclass(frozen=True, eq=False, kw_only=True)
class Port:
    """What the firings of one actor read from and write to one memory.

    Attributes
    ----------
    store, actor : str
    read_bits, written_bits : number or array
        One number, of each firing ``[firings]``, or ``[1 or firings, 1 or lanes]``, or loops; a
        mean need not be whole, the sum over all firings is.
    """

    store: str
    actor: str
    read_bits: ArrayLike | Loops = 0
    written_bits: ArrayLike | Loops = 0


@dataclass(frozen=True, eq=False)
class Account:
    """Memories and ports of a program.

    Raises
    ------
    InputError
        If a port names a memory that is not there, or a memory stands there twice.
    """

    stores: Sequence[Store] = ()
    ports: Sequence[Port] = field(default=())
    _totals: dict[tuple[int, int, int], tuple[float, float]] = field(
        default_factory=dict, init=False, repr=False
    )

    def __post_init__(self) -> None:
        names = [store.name for store in self.stores]
        if len(set(names)) < len(names):
            raise InputError(f"memories of an account must differ in name, got {names}")
        for port in self.ports:
            if port.store not in names:
                raise InputError(
                    f"a port of {port.actor!r} names the memory {port.store!r}; there is {names}"
                )

    def traffic(self) -> Traffic:
        """Which firings move the bits of each memory."""
        found: dict[str, list[Access]] = {store.name: [] for store in self.stores}
        for port in self.ports:
            found[port.store].append(
                Access(actor=port.actor, read_bits=port.read_bits, written_bits=port.written_bits)
            )
        return {name: rows for name, rows in found.items() if rows}

    def moved(self, netlist: Netlist, store: str, actors: str = "*") -> tuple[int, int]:
        """Bits read from and written to a memory in a whole run, by actors that match a glob."""
        read = written = 0.0
        for number, port in enumerate(self.ports):
            if port.store == store and fnmatchcase(port.actor, actors):
                through = self._through(netlist, number)
                read += through[0]
                written += through[1]
        return round(read), round(written)

    def _through(self, netlist: Netlist, number: int) -> tuple[float, float]:
        """Bits read and written through a port: summed once, for arrays may be large."""
        port = self.ports[number]
        actor = netlist.actor(port.actor)
        key = (number, actor.count, actor.lanes)
        if key not in self._totals:
            self._totals[key] = (
                _total(netlist, port.actor, port.read_bits),
                _total(netlist, port.actor, port.written_bits),
            )
        return self._totals[key]

    def memory(self, netlist: Netlist, seconds: float) -> dict[str, Memory]:
        """The memories of the report."""
        found = {}
        for store in self.stores:
            read, written = self.moved(netlist, store.name)
            found[store.name] = memory_use(
                capacity_bits=store.capacity_bits,
                used_bits=store.used_bits,
                read_bits=read,
                written_bits=written,
                seconds=seconds,
                source=store.source,
            )
        return found

    def energy(self, netlist: Netlist) -> list[EnergyPart]:
        """Energy of the memories whose bits have a price."""
        found = []
        for store in self.stores:
            priced = [
                (entry, bits)
                for entry, bits in zip(
                    (store.read, store.write), self.moved(netlist, store.name), strict=True
                )
                if entry is not None
            ]
            if priced:
                found.append(priced_part(store.part or store.name, priced))
        return found

    def counters(self, netlist: Netlist) -> dict[str, int]:
        """``MEMORY_read_bits`` and ``MEMORY_written_bits`` of each memory."""
        found = {}
        for store in self.stores:
            read, written = self.moved(netlist, store.name)
            found[f"{store.name}_read_bits"] = read
            found[f"{store.name}_written_bits"] = written
        return found


def _total(netlist: Netlist, actor: str, bits: ArrayLike | Loops) -> float:
    """Bits of all firings of all lanes of an actor."""
    found = netlist.actor(actor)
    if isinstance(bits, Loops):
        return float(bits.total() * found.lanes)
    given = np.asarray(bits)
    if given.ndim == 0:
        return float(given) * found.count * found.lanes
    given = given[:, None] if given.ndim == 1 else given
    repeats = 1
    if given.shape[0] == 1:
        repeats *= found.count
    if given.shape[1] == 1:
        repeats *= found.lanes
    return float(given.sum(dtype=np.float64 if given.dtype.kind == "f" else np.int64)) * repeats


def priced_part(part: str, shares: Sequence[tuple[Entry, float]]) -> EnergyPart:
    """A part of the energy from entries and how often each is paid, with their sources.

    It is not known if one of them is not.
    """
    first = shares[0][0]
    why = dict.fromkeys(entry.source for entry, _ in shares if not entry.is_known)
    if why:
        return EnergyPart(part=part, energy_pj=None, basis=Basis.UNKNOWN, source="; ".join(why))
    sources = dict.fromkeys(
        f"{entry.value:.4g} {entry.unit}: {entry.source}" for entry, _ in shares
    )
    return EnergyPart(
        part=part,
        energy_pj=sum(entry.value * times for entry, times in shares),
        basis=max((entry.basis for entry, _ in shares), key=list(Basis).index),
        source=f"{'; '.join(sources)} ({first.node_nm:g} nm)",
    )
