"""The chip's numbers: grid, buffers, clocks and buses, and the letters of a mapping."""

from __future__ import annotations

import math
from typing import ClassVar, Self

import msgspec
import numpy as np
from numpy.typing import NDArray

from sparqsim.architectures.checks import MOST_SIDE, check_clock, check_whole
from sparqsim.architectures.eyeriss.energies import NODE_NM, WORD_BITS, mac_energy_pj
from sparqsim.architectures.fixed_point import RECIPE
from sparqsim.architectures.machine import Area, Figure, Machine, Peak
from sparqsim.base import InputError
from sparqsim.simulator.energy.tables import Basis

KIB = 1024 * 8  # bits
SPAD_WORDS = {"filter": 224, "ifmap": 12, "psum": 24}  # published: 448, 24 and 48 bytes a PE
AREA_MM2 = 12.25  # assumed: the core of the chip, recalled from JSSC 2017, unchecked
MOST_RATIO = 1e6  # assumed: of clocks that meet in a machine

Ints = NDArray[np.int64]


class RowStationary(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A mapping, by the paper's letters (JSSC 2017, Table III).

    Attributes
    ----------
    n, m, e
        Images, filters and output rows whose partial sums are in the GLB together.
    p, q
        Filters and channels a PE interleaves.
    r, t
        Sets in the array on different channels, and on different filters.
    """

    n: int
    m: int
    e: int
    p: int
    q: int
    r: int
    t: int

    def __post_init__(self) -> None:
        check_whole("mapping", **msgspec.structs.asdict(self))


class Configuration(Machine, frozen=True, kw_only=True):
    """Configuration of Eyeriss; the defaults are the chip at 200 MHz.

    Attributes
    ----------
    rows
        PEs above each other.
    columns
        PEs beside each other.
    glb_kib
        Part of the global buffer for inputs and partial sums.
    filter_kib
        Part of the global buffer for the filters of the next pass.
    link_hz
        Clock frequency of the link to DRAM.
    filter_bus_bits
        Width of the network that brings filters to the PEs.
    psum_bus_bits
        Width of each of the networks that bring partial sums in and out.
    ifmap_bus_bits
        Width of the network that brings inputs.
    link_bits
        Width of the link to DRAM.
    off_chip
        Whether DRAM traffic takes time; without it a run is the paper's "processing latency".
    padded_glb
        Whether the global buffer holds and reads zero padding too, as the paper's tables count;
        else its read port inserts it.
    """

    name: ClassVar[str] = "eyeriss"
    title: ClassVar[str] = "Eyeriss v1 (ISCA 2016, JSSC 2017): row-stationary dense CNN accelerator"
    recipe: ClassVar[str] = RECIPE
    needs_numbers: ClassVar[bool] = True  # activations are coded by their zeros, off the chip

    rows: int = 12  # published
    columns: int = 14  # published
    glb_kib: int = 100  # published: 108 KB, of which
    filter_kib: int = 8  # assumed: recalled as the filters' part, unchecked
    clock_hz: float = 200e6  # published: of the measured tables
    link_hz: float = 60e6  # published: of the measured tables
    filter_bus_bits: int = 64  # assumed: recalled from JSSC 2017 section V, unchecked
    psum_bus_bits: int = 64  # assumed: likewise; one bus in, one out
    ifmap_bus_bits: int = 16  # assumed: likewise
    link_bits: int = 64  # assumed: a word of the run-length code
    off_chip: bool = True
    padded_glb: bool = False

    def __post_init__(self) -> None:
        fields = msgspec.structs.asdict(self)
        for choice in ("off_chip", "padded_glb"):
            if not isinstance(fields.pop(choice), bool):
                value = getattr(self, choice)
                raise InputError(f"eyeriss.{choice} must be true or false, got {value!r}")
        check_clock("eyeriss", fields.pop("clock_hz"))
        check_clock("eyeriss", fields.pop("link_hz"), "link_hz")
        if self.clock_hz > MOST_RATIO * self.link_hz:
            raise InputError(
                f"eyeriss.link_hz must be at least a millionth of eyeriss.clock_hz, "
                f"{self.clock_hz:g}, got {self.link_hz:g}"
            )
        for side in ("rows", "columns"):
            check_whole("eyeriss", most=MOST_SIDE, **{side: fields.pop(side)})
        check_whole("eyeriss", **fields)
        for name in ("filter_bus_bits", "psum_bus_bits", "ifmap_bus_bits"):
            if getattr(self, name) % WORD_BITS:
                raise InputError(
                    f"eyeriss.{name} must be a multiple of {WORD_BITS}, got {getattr(self, name)}"
                )

    @property
    def pes(self) -> int:
        """Processing elements."""
        return self.rows * self.columns

    def peak(self) -> Peak:
        """One product per PE and cycle."""
        return Peak(macs_per_s=self.pes * self.clock_hz, operands="16 x 16 bits")

    def bandwidth(self) -> float | None:
        """Of the link to DRAM."""
        return self.link_hz * self.link_bits / 8 if self.off_chip else None

    def area(self) -> Area | None:
        """Of the chip's core; of another grid or buffer none is known."""
        whole = Configuration()
        mine = (self.rows, self.columns, self.glb_kib, self.filter_kib)
        if mine != (whole.rows, whole.columns, whole.glb_kib, whole.filter_kib):
            return None
        return Area(
            mm2=AREA_MM2, node_nm=NODE_NM, basis=Basis.ASSUMED,
            source="3.5 mm x 3.5 mm, recalled from JSSC 2017, unchecked",
        )  # fmt: skip

    def resized(self, *, macs_per_s: float | None = None, bandwidth: float | None = None) -> Self:
        """With a grid of about the same shape, or with another clock of the link; the buffers and
        buses stay."""
        fields: dict[str, float] = {}
        if macs_per_s is not None:
            pes = macs_per_s / self.clock_hz
            fields["rows"] = max(1, round(math.sqrt(pes * self.rows / self.columns)))
            fields["columns"] = max(1, round(pes / fields["rows"]))
        if bandwidth is not None:
            fields["link_hz"] = 8 * bandwidth / self.link_bits
        return msgspec.structs.replace(self, **fields)

    def datasheet(self) -> list[Figure]:
        """The numbers of this configuration and where they come from."""
        published, derived, assumed = Basis.PUBLISHED, Basis.DERIVED, Basis.ASSUMED
        one, source = mac_energy_pj()
        return [
            Figure("PEs", f"{self.rows} x {self.columns}", published, "JSSC 2017"),
            Figure("core clock", f"{self.clock_hz / 1e6:g} MHz", published, "JSSC 2017 (100-250)"),
            Figure("peak", f"{self.pes * self.clock_hz / 1e9:g} GMAC/s", derived, "PEs x clock"),
            Figure("global buffer", f"{self.glb_kib} KiB", published, "108 KB less filters"),
            Figure("filter buffer", f"{self.filter_kib} KiB", assumed, "recalled, unchecked"),
            Figure("scratchpads", "448, 24, 48 B a PE", published, "filter, ifmap, psum"),
            Figure("filter bus", f"{self.filter_bus_bits} bits", assumed, "recalled, unchecked"),
            Figure("psum buses", f"{self.psum_bus_bits} bits", assumed, "recalled, unchecked"),
            Figure("ifmap bus", f"{self.ifmap_bus_bits} bits", assumed, "recalled, unchecked"),
            Figure("link clock", f"{self.link_hz / 1e6:g} MHz", published, "JSSC 2017 (to 90)"),
            Figure("link width", f"{self.link_bits} bits", assumed, "a run-length word"),
            Figure("core area", f"{AREA_MM2:g} mm2", assumed, "of the chip; recalled, unchecked"),
            Figure("16-bit MAC", f"{one:.3g} pJ", assumed, source),
        ]
