"""Tables of energy: what one operation, bit or cycle costs, at which node, and who says so.

An :class:`Entry` is a number with its unit, technology node and source; an :class:`EnergyTable` is
a set of them under unique names. Two tables ship here and differ three- to fivefold where they
overlap, so every figure must be printed with its source and the user may switch:

* ``horowitz``: 45 nm arithmetic and a cache, the numbers most papers quote;
* ``cacti-aladdin``: CACTI 7 SRAM and Aladdin-style arithmetic at 45, 28 and 16 nm, DRAM standards.

Machines whose authors published their own energies have a table of their own beside the machine.
Between nodes, energies follow a power law through the neighbouring nodes of the second table (one
curve for logic, one for memory); between SRAM sizes, a power law through its two sizes. Beyond
the ends the last slope is continued and the result is marked ``assumed``. Power that flows whether
or not anything happens is an entry in mW, priced a cycle at a clock (:meth:`Entry.per_cycle`):
processing elements and DRAM have one, SRAM leakage no source known to us. Left out: voltage and
temperature.
"""

from __future__ import annotations

import difflib
import enum
import math

import msgspec

from sparqsim.base import InputError

LEAST_NODE_NM, GREATEST_NODE_NM = 5.0, 180.0  # where a power law is still worth printing


class Basis(enum.StrEnum):
    """How well a number is known."""

    PUBLISHED = "published"
    DERIVED = "derived"
    ASSUMED = "assumed"
    UNKNOWN = "not known"


class Unit(enum.StrEnum):
    """What an entry's value is per."""

    PJ_PER_OP = "pJ/op"
    PJ_PER_BIT = "pJ/bit"
    PJ_PER_CYCLE = "pJ/cycle"
    MILLIWATT = "mW"


class Kind(enum.StrEnum):
    """Which curve an entry follows from node to node; DRAM and links keep their value."""

    LOGIC = "logic"
    MEMORY = "memory"
    OFF_CHIP = "off-chip"


class Entry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One number: ``value`` in ``unit`` at ``node_nm``, and who says so.

    ``capacity_kib`` is the size of the memory where it has one: SRAM entries are looked up by it.
    An energy that is not known has no number (nan), and its source says why.
    """

    name: str
    value: float
    unit: Unit
    node_nm: float
    kind: Kind
    basis: Basis
    source: str
    capacity_kib: float | None = None

    def __post_init__(self) -> None:
        if not self.name or not self.source:
            raise InputError(f"an energy entry needs a name and a source, got {self!r}")
        real = isinstance(self.value, int | float)
        if self.is_known != (real and 0 <= self.value < math.inf):
            raise InputError(
                f"energy {self.name!r}: value must be finite and at least 0, got {self.value!r}"
            )
        _check_node(self.name, self.node_nm)
        if self.capacity_kib is not None and not 0 < self.capacity_kib < math.inf:
            raise InputError(
                f"energy {self.name!r}: capacity_kib must be above 0, got {self.capacity_kib!r}"
            )

    @property
    def is_known(self) -> bool:
        """Whether it has a number."""
        return self.basis is not Basis.UNKNOWN

    def __str__(self) -> str:
        return (
            f"{self.name}: {self.value:.4g} {self.unit} at {self.node_nm:g} nm "
            f"[{self.basis}: {self.source}]"
        )

    def per_cycle(self, clock_hz: float) -> Entry:
        """Return a static power as the energy it costs in one cycle of a clock.

        Raises
        ------
        InputError
            If this is not a power, or the clock is not positive.
        """
        if self.unit is not Unit.MILLIWATT:
            raise InputError(f"energy {self.name!r} must be a power in mW, it is in {self.unit}")
        if not 0 < clock_hz < math.inf:
            raise InputError(f"clock_hz must be above 0, got {clock_hz!r}")
        picojoules = self.value * 1e9 / clock_hz
        return msgspec.structs.replace(self, value=picojoules, unit=Unit.PJ_PER_CYCLE)

    def at_node(self, node_nm: float) -> Entry:
        """Return this entry scaled to another node, and say so in its source."""
        if self.kind is Kind.OFF_CHIP or node_nm == self.node_nm:
            return self
        _check_node(self.name, node_nm)
        factor = power_law(_NODES[self.kind], node_nm) / power_law(_NODES[self.kind], self.node_nm)
        known = [node for node, _ in _NODES[self.kind]]
        inside = all(known[0] <= node <= known[-1] for node in (node_nm, self.node_nm))
        return msgspec.structs.replace(
            self,
            value=self.value * factor,
            node_nm=node_nm,
            basis=weaker(self.basis, Basis.DERIVED if inside else Basis.ASSUMED),
            source=f"{self.source}; x{factor:.3g} from {self.node_nm:g} nm by the "
            f"{self.kind} curve of cacti-aladdin" + ("" if inside else ", continued beyond it"),
        )


class EnergyTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Entries under unique (name, node, capacity)."""

    name: str
    entries: tuple[Entry, ...]

    def __post_init__(self) -> None:
        if not self.entries:
            raise InputError(f"energy table {self.name!r} is empty; give it at least one entry")
        seen: set[tuple[str, float, float | None]] = set()
        for entry in self.entries:
            key = (entry.name, entry.node_nm, entry.capacity_kib)
            if key in seen:
                raise InputError(
                    f"energy table {self.name!r} has {entry.name!r} at {entry.node_nm:g} nm twice"
                )
            seen.add(key)

    def entry(self, name: str, *, node_nm: float | None = None) -> Entry:
        """Return an entry by name, scaled to a node from the nearest one the table has.

        Raises
        ------
        InputError
            If the table has no such name, or it names a memory to be looked up by size.
        """
        found = [entry for entry in self.entries if entry.name == name]
        if not found:
            close = difflib.get_close_matches(name, {entry.name for entry in self.entries})
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise InputError(
                f"energy table {self.name!r} has no {name!r}{hint} "
                f"It has {', '.join(sorted({entry.name for entry in self.entries}))}"
            )
        if any(entry.capacity_kib is not None for entry in found):
            raise InputError(
                f"{name!r} of energy table {self.name!r} depends on its size: use "
                f"sram({name!r}, capacity_kib=...)"
            )
        return _at_nearest(found, node_nm)

    def sram(
        self, name: str = "sram.read", *, capacity_kib: float, node_nm: float | None = None
    ) -> Entry:
        """Return the energy per bit of an SRAM of a given size: a power law through the table's.

        With one size in the table, the exponent is that of ``cacti-aladdin``.

        Raises
        ------
        InputError
            If the size is not positive, or the table has no memory of that name.
        """
        if not 0 < capacity_kib < math.inf:
            raise InputError(f"an SRAM's capacity_kib must be above 0, got {capacity_kib!r}")
        sized = [e for e in self.entries if e.name == name and e.capacity_kib is not None]
        if not sized:
            raise InputError(
                f"energy table {self.name!r} has no memory {name!r} with a size; it has "
                f"{', '.join(sorted({entry.name for entry in self.entries}))}"
            )
        by_size = [
            _at_nearest([e for e in sized if e.capacity_kib == size], node_nm)
            for size in sorted({e.capacity_kib for e in sized if e.capacity_kib is not None})
        ]
        for entry in by_size:
            if entry.capacity_kib == capacity_kib:
                return entry
        points = [(e.capacity_kib or 0.0, e.value) for e in by_size]
        if len(points) == 1:
            size, value = points[0]
            points = [(size, value), (64 * size, value * _SRAM_128_OVER_2)]
        inside = by_size[0].capacity_kib < capacity_kib < by_size[-1].capacity_kib  # type: ignore[operator]
        nearest = min(by_size, key=lambda e: abs(math.log((e.capacity_kib or 1.0) / capacity_kib)))
        return msgspec.structs.replace(
            nearest,
            value=power_law(points, capacity_kib),
            capacity_kib=capacity_kib,
            basis=weaker(nearest.basis, Basis.DERIVED if inside else Basis.ASSUMED),
            source=f"{nearest.source}; {capacity_kib:g} KiB by a power law in size",
        )


def _check_node(name: str, node_nm: float) -> None:
    if not LEAST_NODE_NM <= node_nm <= GREATEST_NODE_NM:
        raise InputError(
            f"energy {name!r}: node_nm must lie between {LEAST_NODE_NM:g} and "
            f"{GREATEST_NODE_NM:g}, got {node_nm!r}"
        )


def weaker(one: Basis, other: Basis) -> Basis:
    """The basis of what rests on both."""
    return max(one, other, key=list(Basis).index)


def _at_nearest(entries: list[Entry], node_nm: float | None) -> Entry:
    """Pick the entry whose node is nearest on a log scale (the first, for None) and scale it."""
    if node_nm is None:
        return entries[0]
    _check_node(entries[0].name, node_nm)
    return min(entries, key=lambda e: abs(math.log(e.node_nm / node_nm))).at_node(node_nm)


def power_law(points: list[tuple[float, float]], x: float) -> float:
    """Evaluate a piecewise power law through ``points`` (ascending), end slopes continued."""
    inner = [index for index, (node, _) in enumerate(points[1:-1], 1) if x >= node]
    left = inner[-1] if inner else 0
    (x0, y0), (x1, y1) = points[left], points[left + 1]
    return y0 * (x / x0) ** (math.log(y1 / y0) / math.log(x1 / x0))


_CACTI = "CACTI 7, 64-bit port, energy of a read divided by 64"
_ALADDIN = "Aladdin-style MAC: 8-bit multiply, 32-bit accumulate"
_SCALED_16 = "; below 22 nm scaled, not modelled"
# pJ per 64-bit read at (2 KiB, 128 KiB) and per MAC, by node; derived: computed with these tools.
SRAM_64_BIT_PJ = {45: (2.76, 32.3), 28: (1.16, 13.9), 16: (0.55, 6.3)}
MAC_PJ = {45: 1.15, 28: 0.59, 16: 0.20}
_SRAM_128_OVER_2 = SRAM_64_BIT_PJ[45][1] / SRAM_64_BIT_PJ[45][0]
_NODES = {
    Kind.LOGIC: [(float(node), MAC_PJ[node]) for node in sorted(MAC_PJ)],
    Kind.MEMORY: [(float(node), SRAM_64_BIT_PJ[node][1]) for node in sorted(SRAM_64_BIT_PJ)],
}


def _cacti_aladdin() -> EnergyTable:
    entries = []
    for node, sizes in SRAM_64_BIT_PJ.items():
        basis = Basis.DERIVED if node >= 22 else Basis.ASSUMED
        note = "" if node >= 22 else _SCALED_16
        for capacity_kib, value in zip((2.0, 128.0), sizes, strict=True):
            entries.append(
                Entry(
                    name="sram.read",
                    value=value / 64,
                    unit=Unit.PJ_PER_BIT,
                    node_nm=node,
                    kind=Kind.MEMORY,
                    basis=basis,
                    source=_CACTI + note,
                    capacity_kib=capacity_kib,
                )
            )
        entries.append(
            Entry(
                name="mac.int8",
                value=MAC_PJ[node],
                unit=Unit.PJ_PER_OP,
                node_nm=node,
                kind=Kind.LOGIC,
                basis=basis,
                source=_ALADDIN + note,
            )
        )
    for name, value, basis, source in (
        ("dram.ddr3", 70.0, Basis.ASSUMED, "DDR3 with its interface, as commonly quoted"),
        (
            "dram.ddr4",
            1300 / 64,
            Basis.ASSUMED,
            "1300 pJ for 64 bits, Jouppi et al., ISCA 2021, Table 2; recalled, unchecked",
        ),
        ("dram.lpddr4", 8.0, Basis.ASSUMED, "LPDDR4, secondary source"),
        ("dram.hbm2", 6.25, Basis.ASSUMED, "HBM2, secondary source"),
        ("dram.hbm3", 4.05, Basis.ASSUMED, "HBM3, secondary source"),
    ):
        entries.append(
            Entry(
                name=name,
                value=value,
                unit=Unit.PJ_PER_BIT,
                node_nm=45,
                kind=Kind.OFF_CHIP,
                basis=basis,
                source=source,
            )
        )
    ant = "ANT's released simulator at 500 MHz"
    for name, milliwatts, kind, source in (
        # 131.715 pJ per cycle over 64 x 64 elements; 969.23 pJ per cycle; both x 0.5 GHz
        ("pe4.static", 131.715 * 0.5 / 64**2, Kind.LOGIC, f"{ant}: array leakage, by element"),
        ("dram.static", 969.23 * 0.5, Kind.OFF_CHIP, f"{ant}: DRAM background power"),
    ):
        entries.append(
            Entry(
                name=name,
                value=milliwatts,
                unit=Unit.MILLIWATT,
                node_nm=45,
                kind=kind,
                basis=Basis.DERIVED,
                source=source,
            )
        )
    return EnergyTable(name="cacti-aladdin", entries=tuple(entries))


def _horowitz() -> EnergyTable:
    said = "M. Horowitz, ISSCC 2014, 45 nm 0.9 V, as widely quoted; not checked against the paper"
    operations = tuple(
        Entry(
            name=name,
            value=value,
            unit=Unit.PJ_PER_OP,
            node_nm=45,
            kind=Kind.LOGIC,
            basis=Basis.ASSUMED,
            source=said,
        )
        for name, value in (
            ("add.int8", 0.03),
            ("add.int32", 0.1),
            ("multiply.int8", 0.2),
            ("multiply.int32", 3.1),
            ("add.fp16", 0.4),
            ("multiply.fp16", 1.1),
            ("add.fp32", 0.9),
            ("multiply.fp32", 3.7),
            ("mac.int8", 0.3),  # 8-bit multiply 0.2 and 32-bit add 0.1
        )
    )
    shifters = tuple(
        Entry(
            name=f"shift.int{bits}",
            value=value,
            unit=Unit.PJ_PER_OP,
            node_nm=45,
            kind=Kind.LOGIC,
            basis=Basis.ASSUMED,
            source="ShiftAddNet, NeurIPS 2020, Table 1, 45 nm; recalled, unchecked",
        )
        for bits, value in ((8, 0.024), (16, 0.057), (32, 0.13))
    )
    cache = Entry(
        name="sram.read",
        value=10.0 / 64,  # 10 pJ per 64-bit read of 8 KiB
        unit=Unit.PJ_PER_BIT,
        node_nm=45,
        kind=Kind.MEMORY,
        basis=Basis.ASSUMED,
        source=said,
        capacity_kib=8.0,
    )
    return EnergyTable(name="horowitz", entries=(*operations, *shifters, cache))


_TABLES = {table.name: table for table in (_cacti_aladdin(), _horowitz())}


def table_names() -> list[str]:
    """Return the names of the shipped tables."""
    return list(_TABLES)


def get_table(name: str) -> EnergyTable:
    """Return a shipped table.

    Raises
    ------
    InputError
        If there is none of that name.
    """
    if name not in _TABLES:
        raise InputError(f"there is no energy table {name!r}; there is {', '.join(_TABLES)}")
    return _TABLES[name]
