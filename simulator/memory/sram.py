"""SRAM: banks of one word per cycle and port, and the conflicts between parallel accesses.

An on-chip buffer is built of banks; each has a few ports, and each port moves one word per cycle.
Neighbouring words lie in neighbouring banks, so that a row of accesses to consecutive words runs
in one cycle, while accesses that meet in one bank queue for its ports. A double-buffered memory is
two halves: one is filled while the other is used, and a tile may fill one half.

In a netlist an SRAM is one banked resource whose servers are the ports, bank by bank
(:meth:`Sram.resource`), and an access is a firing whose request names a port
(:meth:`Sram.requests`). Accesses that are made together are known beforehand where addresses are,
so :meth:`Sram.conflict_cycles` gives the cycles they take in closed form.

Left out: which port of a bank an access takes is settled when the request is made (in turn), not
when it is served; banks that read and write on different ports are two memories of one port each.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray

from sparqsim.base import InputError

if TYPE_CHECKING:
    from sparqsim.simulator.netlist import Resource

Ints = NDArray[np.int64]

MOST = 2**40  # assumed: no memory on a chip has more of anything, and products stay below 2^63


class Sram(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A banked on-chip memory.

    Parameters
    ----------
    capacity_bytes
        Bytes in all banks and both halves.
    width_bits
        Bits of a word: what one port moves in a cycle.
    banks, ports
        Banks, and identical ports of each.
    double_buffered
        Whether it is two halves, one filled while the other is used.

    Raises
    ------
    InputError
        If a number is below 1, or the capacity is not a whole number of words in every bank (of
        each half).

    Examples
    --------
    >>> buffer = Sram(capacity_bytes=32 * 1024, width_bits=128, banks=4, double_buffered=True)
    >>> buffer.words, buffer.usable_bytes
    (2048, 16384)
    >>> buffer.conflict_cycles([[0, 1, 2, 3], [0, 4, 8, 1]]).tolist()
    [1, 3]
    """

    capacity_bytes: int
    width_bits: int
    banks: int = 1
    ports: int = 1
    double_buffered: bool = False

    def __post_init__(self) -> None:
        for key in ("capacity_bytes", "width_bits", "banks", "ports"):
            if not 1 <= getattr(self, key) <= MOST:
                raise InputError(f"sram.{key} must be 1 to {MOST:,}, got {getattr(self, key)}")
        part = self.width_bits * self.banks * self.halves
        if self.capacity_bytes * 8 % part:
            raise InputError(
                f"sram.capacity_bytes must be a multiple of {part} bits ({self.width_bits} bits x "
                f"{self.banks} banks x {self.halves} halves), got {self.capacity_bytes} bytes"
            )

    @property
    def halves(self) -> int:
        """2 if it is double-buffered, else 1; the capacity in tiles of a channel through it."""
        return 2 if self.double_buffered else 1

    @property
    def usable_bytes(self) -> int:
        """Bytes one tile may take."""
        return self.capacity_bytes // self.halves

    @property
    def words(self) -> int:
        """Words in all banks and both halves."""
        return self.capacity_bytes * 8 // self.width_bits

    @property
    def peak_bits_per_cycle(self) -> int:
        """Bits a cycle when every port of every bank moves a word."""
        return self.width_bits * self.banks * self.ports

    def words_for(self, bits: ArrayLike) -> Ints:
        """Words that so many bits take, each begun on a word of its own."""
        sizes = np.asarray(bits)
        if sizes.dtype.kind not in "iu" or (sizes.size and sizes.min() < 0):
            raise InputError("sram: bits must be whole numbers of at least 0")
        return -(-sizes.astype(np.int64) // self.width_bits)

    def stream_cycles(self, bits: ArrayLike) -> Ints:
        """Cycles to move so many bits of consecutive words through all ports of all banks."""
        return -(-self.words_for(bits) // (self.banks * self.ports))

    def resource(self, name: str) -> Resource:
        """The memory as a resource: server ``bank * ports + port``."""
        from sparqsim.simulator.netlist import Resource

        return Resource(name=name, servers=self.banks * self.ports, banked=True)

    def requests(self, addresses: ArrayLike) -> Ints:
        """The request of each access.

        Parameters
        ----------
        addresses
            Words, ``[firings]`` or ``[firings, lanes]``; one access each, those of a firing made
            together.

        Returns
        -------
        int64 [firings, 1] or [firings, lanes, 1]
            The server each access needs. The accesses of a firing that meet in a bank take its
            ports in turn; those of successive firings do too where a firing is one access.

        Raises
        ------
        InputError
            If an address is not a whole number or lies outside the memory.
        """
        words = self._checked(addresses)
        rows = words[None, :] if words.ndim == 1 else words
        bank = rows % self.banks
        order = np.argsort(bank, axis=1, kind="stable")
        ranked = np.take_along_axis(bank, order, axis=1)
        place = np.arange(rows.shape[1])
        first = np.ones(rows.shape, dtype=bool)
        first[:, 1:] = ranked[:, 1:] != ranked[:, :-1]
        begins = np.maximum.accumulate(np.where(first, place, 0), axis=1)
        turn = np.empty_like(bank)
        np.put_along_axis(turn, order, place - begins, axis=1)
        server = bank * self.ports + turn % self.ports
        return server.reshape(*words.shape, 1)

    def conflict_cycles(self, addresses: ArrayLike) -> Ints:
        """Cycles for which each group of accesses made together occupies the memory.

        The busiest bank decides: max over banks of ceil(accesses / ports); 0 without accesses.

        Parameters
        ----------
        addresses
            Words, ``[groups, accesses]``.

        Returns
        -------
        int64 [groups]
        """
        words = self._checked(addresses)
        if words.ndim != 2:
            raise InputError(
                f"sram: conflicts are between accesses [groups, accesses], got shape {words.shape}"
            )
        groups = np.arange(len(words))[:, None] * self.banks
        counts = np.bincount(
            (groups + words % self.banks).ravel(), minlength=len(words) * self.banks
        ).reshape(len(words), self.banks)
        busiest: Ints = -(-counts.max(axis=1) // self.ports)
        return busiest

    def _checked(self, addresses: ArrayLike) -> Ints:
        words = np.asarray(addresses)
        if words.ndim not in (1, 2) or (words.size and words.dtype.kind not in "iu"):
            raise InputError(
                f"sram: addresses must be whole numbers [firings] or [firings, lanes], got "
                f"{words.dtype} of shape {words.shape}"
            )
        if words.size and not 0 <= words.min() <= words.max() < self.words:
            raise InputError(
                f"sram: words are 0 to {self.words - 1}, got {words.min()} to {words.max()}"
            )
        return words.astype(np.int64)
