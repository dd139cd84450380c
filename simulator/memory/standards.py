"""DRAM standards as tables: the organisation and the timing of one channel, with their sources.

A channel is a data bus, and banks that keep one row each open in a row buffer. An access needs its
row *activated* (tRCD before the column command), a bank must be *precharged* (tRP) before another
row is, and a column command moves one burst, CL (reads) or CWL (writes) later. Banks share
circuits: column commands keep tCCD apart (longer within a bank group), activates tRRD, four
activates tFAW. Every tREFI the whole device stands still for tRFC to refresh.

All times are whole cycles of the channel's own clock (tCK). Each table has the names a datasheet
has, so that it can be held against one. ``assumed`` names the values that JEDEC leaves to vendors
or that no datasheet at hand gives; all others are published.

Left out: several ranks, refresh of single banks, power-down, command-bus contention.
"""

from __future__ import annotations

import difflib

import msgspec

from sparqsim.base import InputError


class DramStandard(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One channel of a DRAM: geometry and timing.

    Parameters
    ----------
    name, source
        What it is called and where the numbers are from.
    tCK_ps
        Period of the clock in ps.
    bus_bits, burst_bytes, burst_cycles
        Width of the data bus; bytes one column command moves; cycles they take on the bus.
    bank_groups, banks_per_group, rows, row_bytes
        Geometry; powers of two.
    bus_gap
        Idle cycles on the data bus between a read and a write.
    assumed
        Names of the fields that are not published.

    Raises
    ------
    InputError
        If a number is not positive, a size is not a power of two, or the timing contradicts itself.
    """

    name: str
    source: str
    tCK_ps: int
    bus_bits: int
    burst_bytes: int
    burst_cycles: int
    bank_groups: int
    banks_per_group: int
    rows: int
    row_bytes: int
    CL: int
    CWL: int
    tRCD_rd: int
    tRCD_wr: int
    tRP: int
    tRAS: int
    tRC: int
    tCCD_S: int
    tCCD_L: int
    tRRD_S: int
    tRRD_L: int
    tFAW: int
    tWR: int
    tRTP: int
    tWTR_S: int
    tWTR_L: int
    tRFC: int
    tREFI: int
    bus_gap: int = 2  # assumed: one cycle of postamble, one of preamble, as in Ramulator 2.1
    assumed: tuple[str, ...] = ("bus_gap",)

    def __post_init__(self) -> None:
        where = f"DRAM standard {self.name!r}"
        for key in self.__struct_fields__:
            value = getattr(self, key)
            if isinstance(value, int) and value < (0 if key == "bus_gap" else 1):
                raise InputError(f"{where}: {key} must be a positive whole number, got {value}")
        for key in ("burst_bytes", "bank_groups", "banks_per_group", "rows", "row_bytes"):
            value = getattr(self, key)
            if value & (value - 1):
                raise InputError(f"{where}: {key} must be a power of two, got {value}")
        if self.row_bytes < self.burst_bytes:
            raise InputError(
                f"{where}: a row of {self.row_bytes} bytes cannot hold a burst of "
                f"{self.burst_bytes}; enlarge row_bytes"
            )
        if self.bank_groups > MOST_GROUPS:
            raise InputError(f"{where}: bank_groups may be at most {MOST_GROUPS}")
        for small, large in (
            ("burst_cycles", "tCCD_S"),
            ("tCCD_S", "tCCD_L"),
            ("tRRD_S", "tRRD_L"),
            ("tWTR_S", "tWTR_L"),
            ("tRAS", "tRC"),
        ):
            if getattr(self, small) > getattr(self, large):
                raise InputError(
                    f"{where}: {large} must be at least {small}, got {getattr(self, large)} and "
                    f"{getattr(self, small)}"
                )
        if self.read_to_write < 1:
            raise InputError(f"{where}: CWL may be at most CL + burst_cycles + bus_gap - 1")
        busy = self.tRC + self.tRP + self.tRFC + max(self.tRCD_rd, self.tRCD_wr)
        if busy + self.CWL + self.burst_cycles + self.tWR >= self.tREFI:
            raise InputError(f"{where}: tREFI = {self.tREFI} leaves no time between two refreshes")
        unknown = set(self.assumed) - set(self.__struct_fields__)
        if unknown:
            raise InputError(f"{where}: assumed names no field: {', '.join(sorted(unknown))}")

    @property
    def banks(self) -> int:
        """Banks of the channel."""
        return self.bank_groups * self.banks_per_group

    @property
    def bursts_per_row(self) -> int:
        """Bursts that one open row holds."""
        return self.row_bytes // self.burst_bytes

    @property
    def channel_bytes(self) -> int:
        """Capacity of the channel."""
        return self.banks * self.rows * self.row_bytes

    @property
    def peak_bytes_per_s(self) -> float:
        """Bytes a second if every cycle of the data bus carried data."""
        return self.burst_bytes / (self.burst_cycles * self.tCK_ps * 1e-12)

    @property
    def read_to_write(self) -> int:
        """Least cycles from a read's column command to a write's."""
        return self.CL + self.burst_cycles + self.bus_gap - self.CWL

    @property
    def write_to_read_s(self) -> int:
        """Least cycles from a write's column command to a read's of another bank group."""
        return self.CWL + self.burst_cycles + self.tWTR_S

    @property
    def write_to_read_l(self) -> int:
        """Least cycles from a write's column command to a read's of the same bank group."""
        return self.CWL + self.burst_cycles + self.tWTR_L


MOST_GROUPS = 8

_KIB = 1024
# What JESD235 and JESD238 leave to the vendors; all but the geometry, tCCD and tREFI.
_VENDORS = (
    *("bus_gap", "CL", "CWL", "tRCD_rd", "tRCD_wr", "tRP", "tRAS", "tRC", "tRRD_S", "tRRD_L"),
    *("tFAW", "tWR", "tRTP", "tWTR_S", "tWTR_L", "tRFC"),
)

_ROWS = (
    DramStandard(
        name="DDR3-1600",
        source="JESD79-3 bin 1600K (11-11-11), 8 x8 devices of 4 Gb, one rank; values as in the "
        "presets of Ramulator 2.1",
        tCK_ps=1250,
        bus_bits=64,
        burst_bytes=64,
        burst_cycles=4,
        bank_groups=1,
        banks_per_group=8,
        rows=65536,
        row_bytes=8 * _KIB,
        CL=11,
        CWL=8,
        tRCD_rd=11,
        tRCD_wr=11,
        tRP=11,
        tRAS=28,
        tRC=39,
        tCCD_S=4,
        tCCD_L=4,
        tRRD_S=5,
        tRRD_L=5,
        tFAW=24,
        tWR=12,
        tRTP=6,
        tWTR_S=6,
        tWTR_L=6,
        tRFC=208,
        tREFI=6240,
    ),
    DramStandard(
        name="DDR4-2400",
        source="JESD79-4 bin 2400U (17-17-17), 8 x8 devices of 8 Gb, one rank; values as in the "
        "presets of Ramulator 2.1 (its tRFC is 360 ns)",
        tCK_ps=833,
        bus_bits=64,
        burst_bytes=64,
        burst_cycles=4,
        bank_groups=4,
        banks_per_group=4,
        rows=65536,
        row_bytes=8 * _KIB,
        CL=17,
        CWL=12,
        tRCD_rd=17,
        tRCD_wr=17,
        tRP=17,
        tRAS=39,
        tRC=56,
        tCCD_S=4,
        tCCD_L=6,
        tRRD_S=4,
        tRRD_L=6,
        tFAW=26,
        tWR=18,
        tRTP=9,
        tWTR_S=3,
        tWTR_L=9,
        tRFC=433,
        tREFI=9364,
    ),
    DramStandard(
        name="DDR4-3200",
        source="JESD79-4 bin 3200AA (22-22-22), 8 x8 devices of 8 Gb, one rank; tRFC 350 ns, "
        "tREFI 7.8 us, tFAW 21 ns",
        tCK_ps=625,
        bus_bits=64,
        burst_bytes=64,
        burst_cycles=4,
        bank_groups=4,
        banks_per_group=4,
        rows=65536,
        row_bytes=8 * _KIB,
        CL=22,
        CWL=16,
        tRCD_rd=22,
        tRCD_wr=22,
        tRP=22,
        tRAS=52,
        tRC=74,
        tCCD_S=4,
        tCCD_L=8,
        tRRD_S=4,
        tRRD_L=8,
        tFAW=34,
        tWR=24,
        tRTP=12,
        tWTR_S=4,
        tWTR_L=12,
        tRFC=560,
        tREFI=12480,
    ),
    DramStandard(
        name="LPDDR4-3200",
        source="JESD209-4: two x16 dies in lockstep, BL16, RL 28, WL 14; from tRCD 18, tRP 18, "
        "tRAS 42, tRRD 10, tFAW 40, tWR 18, tRTP 7.5, tWTR 10, tRFCab 280, tREFI 3904 ns",
        tCK_ps=625,
        bus_bits=32,
        burst_bytes=64,
        burst_cycles=8,
        bank_groups=1,
        banks_per_group=8,
        rows=65536,
        row_bytes=4 * _KIB,
        CL=28,
        CWL=14,
        tRCD_rd=29,
        tRCD_wr=29,
        tRP=29,
        tRAS=68,
        tRC=97,
        tCCD_S=8,
        tCCD_L=8,
        tRRD_S=16,
        tRRD_L=16,
        tFAW=64,
        tWR=29,
        tRTP=12,
        tWTR_S=16,
        tWTR_L=16,
        tRFC=448,
        tREFI=6246,
    ),
    DramStandard(
        name="LPDDR5-6400",
        source="JESD209-5: one x16 channel of 8 Gb, bank-group mode, CK 800 MHz (WCK 4:1), BL16; "
        "values as in the presets of Ramulator 2.1",
        tCK_ps=1250,
        bus_bits=16,
        burst_bytes=32,
        burst_cycles=2,
        bank_groups=4,
        banks_per_group=4,
        rows=32768,
        row_bytes=2 * _KIB,
        CL=17,
        CWL=9,
        tRCD_rd=15,
        tRCD_wr=15,
        tRP=15,
        tRAS=34,
        tRC=49,
        tCCD_S=2,
        tCCD_L=4,
        tRRD_S=4,
        tRRD_L=4,
        tFAW=16,
        tWR=28,
        tRTP=8,
        tWTR_S=5,
        tWTR_L=10,
        tRFC=168,
        tREFI=3124,
        assumed=("bus_gap", "tRTP"),  # tRTP: 10 ns there; the standard may allow less
    ),
    DramStandard(
        name="HBM2-2000",
        source="JESD235: one 64-bit pseudo-channel of 4 Gb, BL4; values as in the presets of "
        "Ramulator 2.1",
        tCK_ps=1000,
        bus_bits=64,
        burst_bytes=32,
        burst_cycles=2,
        bank_groups=4,
        banks_per_group=4,
        rows=32768,
        row_bytes=1 * _KIB,
        CL=14,
        CWL=5,
        tRCD_rd=14,
        tRCD_wr=12,
        tRP=14,
        tRAS=34,
        tRC=48,
        tCCD_S=2,
        tCCD_L=4,
        tRRD_S=4,
        tRRD_L=4,
        tFAW=15,
        tWR=16,
        tRTP=5,
        tWTR_S=6,
        tWTR_L=8,
        tRFC=260,
        tREFI=3900,
        assumed=_VENDORS,
    ),
    DramStandard(
        name="HBM3-6400",
        source="JESD238: one 32-bit pseudo-channel of 8 Gb, BL8; values as in the presets of "
        "Ramulator 2.1; tRRD 5 ns, tFAW 15 ns, tRFC 450 ns, tREFI 3.9 us",
        tCK_ps=625,
        bus_bits=32,
        burst_bytes=32,
        burst_cycles=2,
        bank_groups=4,
        banks_per_group=4,
        rows=65536,
        row_bytes=1 * _KIB,
        CL=26,
        CWL=8,
        tRCD_rd=26,
        tRCD_wr=14,
        tRP=26,
        tRAS=48,
        tRC=74,
        tCCD_S=2,
        tCCD_L=4,
        tRRD_S=8,
        tRRD_L=8,
        tFAW=24,
        tWR=24,
        tRTP=6,
        tWTR_S=8,
        tWTR_L=12,
        tRFC=720,
        tREFI=6240,
        assumed=_VENDORS,
    ),
)

STANDARDS = {row.name: row for row in _ROWS}


def dram_standard(name: str) -> DramStandard:
    """The standard of that name.

    Raises
    ------
    InputError
        If there is none; the message lists those there are.
    """
    if name not in STANDARDS:
        near = difflib.get_close_matches(str(name), STANDARDS, 1, cutoff=0.3)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise InputError(f"no DRAM standard {name!r}; there is {', '.join(STANDARDS)}{hint}")
    return STANDARDS[name]
