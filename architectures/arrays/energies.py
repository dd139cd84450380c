"""Energies of the array machines: the authors' tables, and shipped ones in their place.

An authors' table holds at the :class:`Point` it was published at; :func:`at_point` takes it to
another by the rules of :mod:`sparqsim.simulator.energy.scaling`.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from sparqsim.base import InputError
from sparqsim.simulator.energy import scaling
from sparqsim.simulator.energy.tables import (
    Basis,
    EnergyTable,
    Entry,
    Kind,
    Unit,
    get_table,
)

_ANT = "ANT authors' released simulator"
_SOLVED = f"{_ANT}: printed to 3 or 4 digits, the others solved from its per-layer energies"


def _solved(
    name: str, value: float, unit: Unit, kind: Kind, source: str = _SOLVED, node_nm: float = 28
) -> Entry:
    return Entry(
        name=name,
        value=value,
        unit=unit,
        node_nm=node_nm,
        kind=kind,
        basis=Basis.DERIVED,
        source=source,
    )


_REUSED = f"{_SOLVED}; the authors reuse processing-element power of 45 nm"
# The energies of a 28 nm array with decoders that its authors published: ANT's. OliVe and the
# plain arrays, whose authors published none, borrow them.
ANT_ENERGY = EnergyTable(
    name="ant",
    entries=(
        _solved("core_static_per_cycle", 131.715, Unit.PJ_PER_CYCLE, Kind.LOGIC, _REUSED, 45),
        _solved(
            "core_dynamic_per_compute_cycle", 573.358, Unit.PJ_PER_CYCLE, Kind.LOGIC, _REUSED, 45
        ),
        _solved("dram_static_per_cycle", 969.23, Unit.PJ_PER_CYCLE, Kind.OFF_CHIP),
        _solved("weight_buffer_read", 0.0329930, Unit.PJ_PER_BIT, Kind.MEMORY),
        _solved("weight_buffer_write", 0.0397309, Unit.PJ_PER_BIT, Kind.MEMORY),
        _solved("input_buffer_read", 0.0347047, Unit.PJ_PER_BIT, Kind.MEMORY),
        _solved("input_buffer_write", 0.04860664, Unit.PJ_PER_BIT, Kind.MEMORY),
        _solved("output_buffer_read", 0.00921705, Unit.PJ_PER_BIT, Kind.MEMORY),
        _solved("output_buffer_write", 0.01299764, Unit.PJ_PER_BIT, Kind.MEMORY),
        _solved("dram_read", 644.304 / 1024, Unit.PJ_PER_BIT, Kind.OFF_CHIP),
        _solved("dram_write", 784.104 / 1024, Unit.PJ_PER_BIT, Kind.OFF_CHIP),
    ),
)


_BUFFERS = ("input", "weight", "output")


class Point(NamedTuple):
    """What the energies of an array follow.

    Attributes
    ----------
    node_nm, clock_hz
        Technology and clock of the array.
    multipliers
        8-bit multiply-accumulates of the full array in a cycle, by width: units and width in one.
    buffers_kib
        Input, weight and output buffer.
    port_bits
        What the array takes from, or gives to, each of them in a cycle, or in proportion to it.
    """

    node_nm: float
    clock_hz: float
    multipliers: float
    buffers_kib: tuple[int, int, int]
    port_bits: tuple[float, float, float]


def at_point(table: EnergyTable, now: Point, then: Point) -> EnergyTable:
    """A table published at ``then`` as it is at ``now``; itself where they are equal.

    The array's dynamic energy goes with active units, width and node; its static with units, area
    and time; buffers with words and node; the DRAM's background with time; its bits stay.
    """
    units = scaling.units(now.multipliers, then.multipliers, "8-bit multipliers")
    node = scaling.node(now.node_nm, then.node_nm)
    period = scaling.period(now.clock_hz / 1e6, then.clock_hz / 1e6)
    area = scaling.area(now.node_nm, then.node_nm)
    factors = {
        "core_dynamic_per_compute_cycle": [units, node],
        "core_static_per_cycle": [units, area, period],
        "dram_static_per_cycle": [period],
    }
    sizes = zip(now.buffers_kib, then.buffers_kib, now.port_bits, then.port_bits, strict=True)
    for part, size in zip(_BUFFERS, sizes, strict=True):
        for way in ("read", "write"):
            factors[f"{part}_buffer_{way}"] = [scaling.words(*size), node]
    entries = [scaling.follow(entry, factors.get(entry.name, ())) for entry in table.entries]
    return EnergyTable(name=table.name, entries=tuple(entries))


def with_dram(table: EnergyTable, standard: str) -> EnergyTable:
    """A table whose DRAM is of a standard: the standard's own energy a bit, where it is known."""
    priced = of_standard(standard)
    entries = [
        scaling.of_dram(entry, priced, standard) if entry.name.startswith("dram_") else entry
        for entry in table.entries
    ]
    return EnergyTable(name=table.name, entries=tuple(entries))


def of_standard(standard: str) -> Entry | None:
    """What a bit of a DRAM standard costs, or None where no figure is at hand."""
    try:
        return get_table("cacti-aladdin").entry(scaling.dram_family(standard))
    except InputError:
        return None


def borrowed(table: EnergyTable, name: str, why: str) -> EnergyTable:
    """A table of another machine: every number of it becomes an assumption."""
    return EnergyTable(
        name=name,
        entries=tuple(
            msgspec.structs.replace(
                entry, basis=Basis.ASSUMED, source=f"{why}; there: {entry.source}"
            )
            for entry in table.entries
        ),
    )


def shipped_energies(
    name: str, *, node_nm: float, multipliers: float, buffers_kib: tuple[float, float, float],
    dram: str,
) -> EnergyTable:  # fmt: skip
    """An array's rates from a shipped table, in place of its authors'.

    Parameters
    ----------
    multipliers
        8-bit multiply-accumulates of a full array in a cycle.
    buffers_kib
        Sizes of input, weight and output buffer; a write is priced as a read.
    dram
        Which DRAM of the table ``cacti-aladdin``.

    Raises
    ------
    InputError
        If there is no such table.
    """
    table = get_table(name)
    mac = table.entry("mac.int8", node_nm=node_nm)
    outside = get_table("cacti-aladdin").entry(dram)

    def renamed(entry: Entry, rate: str, unit: Unit, value: float, said: str = "") -> Entry:
        return Entry(
            name=rate,
            value=value,
            unit=unit,
            node_nm=node_nm,
            kind=entry.kind,
            basis=entry.basis,
            source=entry.source + said,
        )

    entries = [
        renamed(
            mac,
            "core_dynamic_per_compute_cycle",
            Unit.PJ_PER_CYCLE,
            mac.value * multipliers,
            f"; {multipliers:g} of them",
        )
    ]
    for rate in ("core_static_per_cycle", "dram_static_per_cycle"):
        entries.append(
            Entry(
                name=rate,
                value=0.0,
                unit=Unit.PJ_PER_CYCLE,
                node_nm=node_nm,
                kind=Kind.LOGIC,
                basis=Basis.ASSUMED,
                source=f"{name} has no static power of an array: left out",
            )
        )
    for part, size in zip(_BUFFERS, buffers_kib, strict=True):
        sram = table.sram(capacity_kib=size, node_nm=node_nm)
        for way in ("read", "write"):
            rate = f"{part}_buffer_{way}"
            entries.append(renamed(sram, rate, Unit.PJ_PER_BIT, sram.value))
    for rate in ("dram_read", "dram_write"):
        entries.append(renamed(outside, rate, Unit.PJ_PER_BIT, outside.value))
    return EnergyTable(name=name, entries=tuple(entries))
