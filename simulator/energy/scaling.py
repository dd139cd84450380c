"""How a published energy follows a configuration: the rules, each with its source.

A published figure holds at the point at which it was published. Away from it a machine multiplies
it by factors of this module (:func:`follow`); the product is ``derived`` (or weaker) and names
every rule. At the point itself all factors are 1 and the entry stays as it was. Where no rule
leads from the point to the configuration the energy is *not known* (:func:`unknown`).

``active units and width``
    An array's energy of a cycle goes with its units, so that the energy of a product does not
    depend on the array's shape, idle units aside; and a unit's with the product of its operands'
    widths. Source: ANT (MICRO 2022), in which four 4-bit elements gang into one of 8 bits at the
    same energy of the array.
``words``
    A bit of an SRAM goes with a power of the number of words, capacity over the width of the port:
    2 KiB and 128 KiB with a 64-bit port (CACTI 7) are two points of it. So a wider port is
    more banks of less depth side by side. Writes follow as reads.
``node``
    Switching energy goes with the scaling equations of Stillmaker and Baas (Integration 58, 2017)
    at each node's nominal supply, or at a supply that is given. Off-chip parts keep theirs.
``area and time``
    Static power goes with silicon area (units, and the same paper's areas by node); its energy
    goes with time. Leakage of a square millimetre is taken as equal on all nodes (assumed).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from sparqsim.base import InputError
from sparqsim.simulator.energy.tables import (
    SRAM_64_BIT_PJ,
    Basis,
    Entry,
    Kind,
    Unit,
    power_law,
    weaker,
)

STILLMAKER = "Stillmaker and Baas, Integration 58, 2017"


class Node(NamedTuple):
    """A technology: switching energy in fJ is ``square V^2 + linear V + constant``.

    ``supply_v`` is its nominal supply, ``area`` that of a circuit over the same at 45 nm.
    """

    nm: float
    supply_v: float
    square: float
    linear: float
    constant: float
    area: float


# published: Stillmaker and Baas 2017, high-performance devices where there are two kinds; energy
# and area coefficients as in the open nodeScale of UCLA's NanoCAD. Nominal supplies: those of the
# predictive technology models (PTM) the equations were fitted to.
NODES = (
    Node(7, 0.70, 0.1776, -0.09097, 0.02447, 0.059),
    Node(10, 0.75, 0.2068, -0.09311, 0.02375, 0.10),
    Node(14, 0.80, 0.2363, -0.09675, 0.02239, 0.17),
    Node(16, 0.85, 0.2958, -0.1241, 0.03024, 0.19),
    Node(20, 0.90, 0.373, -0.1582, 0.04104, 0.21),
    Node(32, 0.90, 0.8367, -0.4341, 0.1701, 0.46),
    Node(45, 1.00, 1.018, -0.3107, 0.1539, 1.0),
    Node(65, 1.10, 3.755, -4.398, 1.975, 1.5),
    Node(90, 1.20, 4.762, -4.781, 2.092, 2.8),
    Node(130, 1.30, 7.171, -6.709, 2.904, 6.4),
    Node(180, 1.80, 0.0, 24.64, -17.98, 19.0),
)
LEAST_NM, GREATEST_NM = NODES[0].nm, NODES[-1].nm
# derived: CACTI 7, 45 nm, 64-bit port: 32.3 pJ a read of 128 KiB over 2.76 of 2 KiB
WORDS_EXPONENT = math.log(SRAM_64_BIT_PJ[45][1] / SRAM_64_BIT_PJ[45][0]) / math.log(64)


class Factor(NamedTuple):
    """By how much a figure changes, and by which rule; ``times`` is None where none applies.

    ``node_nm`` is the technology it leads to, where it leads to another.
    """

    times: float | None
    rule: str
    basis: Basis = Basis.DERIVED
    node_nm: float | None = None


def follow(entry: Entry, factors: Iterable[Factor]) -> Entry:
    """A figure times factors, with the rules in its source; itself where all of them are 1."""
    if entry.value == 0:
        return entry
    value, basis, node_nm, told = entry.value, entry.basis, entry.node_nm, []
    for factor in factors:
        if factor.times is None:
            return unknown(entry, factor.rule)
        if factor.times != 1:
            value *= factor.times
            basis = weaker(basis, factor.basis)
            node_nm = factor.node_nm or node_nm
            told.append(f"x{factor.times:.3g} by {factor.rule}")
    if not told:
        return entry
    return msgspec.structs.replace(
        entry,
        value=value,
        basis=basis,
        node_nm=node_nm,
        source="; ".join([entry.source, *told]),
    )


def unknown(entry: Entry, why: str) -> Entry:
    """The entry without a number: no rule leads from what is known of it to a configuration."""
    return msgspec.structs.replace(entry, value=math.nan, basis=Basis.UNKNOWN, source=why)


# ---------------------------------------------------------------------- the rules


def units(now: float, then: float, of: str) -> Factor:
    """Of an array (or another part) of so many units, each counted by its width."""
    return Factor(now / then, f"active units and width, {now:g} for {then:g} {of}")


def words(now_kib: float, then_kib: float, now_port: float = 1.0, then_port: float = 1.0) -> Factor:
    """Of a bit of an SRAM of that capacity and port.

    Parameters
    ----------
    now_kib, then_kib
        Capacity.
    now_port, then_port
        Bits that are read at once, or anything in proportion to them.
    """
    depth = now_kib / now_port / (then_kib / then_port)
    told = f"words of the SRAM, {depth:.3g} times as many (CACTI 7)"
    return Factor(depth**WORDS_EXPONENT, told)


def access(now_kib: float, then_kib: float, now_port: float, then_port: float) -> Factor:
    """Of a whole access to such an SRAM: all bits of the port."""
    bit = words(now_kib, then_kib, now_port, then_port)
    assert bit.times is not None
    told = f"an access of {now_port:g} bits for {then_port:g}; {bit.rule}"
    return Factor(now_port / then_port * bit.times, told)


def node(now_nm: float, then_nm: float, kind: Kind = Kind.LOGIC) -> Factor:
    """Of switching at another node, each at its nominal supply."""
    if now_nm == then_nm or kind is Kind.OFF_CHIP:
        return Factor(1.0, "node")
    outside = [nm for nm in (now_nm, then_nm) if not LEAST_NM <= nm <= GREATEST_NM]
    if outside:
        return _no_node(outside[0])
    volts = f"{nominal_v(then_nm):.3g} V to {nominal_v(now_nm):.3g} V"
    return Factor(
        switching_fj(now_nm) / switching_fj(then_nm),
        f"node, {then_nm:g} to {now_nm:g} nm at {volts} ({STILLMAKER})",
        node_nm=now_nm,
    )


def supply(node_nm: float, now_v: float, then_v: float) -> Factor:
    """Of switching at another supply, the node being the same."""
    if now_v == then_v:
        return Factor(1.0, "supply")
    return Factor(
        switching_fj(node_nm, now_v) / switching_fj(node_nm, then_v),
        f"supply, {then_v:g} to {now_v:g} V ({STILLMAKER})",
    )


def area(now_nm: float, then_nm: float) -> Factor:
    """Of static power at another node: leakage goes with area."""
    if now_nm == then_nm:
        return Factor(1.0, "area")
    outside = [nm for nm in (now_nm, then_nm) if not LEAST_NM <= nm <= GREATEST_NM]
    if outside:
        return _no_node(outside[0])
    points = [(each.nm, each.area) for each in NODES]
    return Factor(
        power_law(points, now_nm) / power_law(points, then_nm),
        f"area, {then_nm:g} to {now_nm:g} nm ({STILLMAKER}), leakage of it taken as equal",
        Basis.ASSUMED,
        now_nm,
    )


def period(now_mhz: float, then_mhz: float) -> Factor:
    """Of the static energy of a cycle at another clock: power is the same, a cycle is not."""
    return Factor(then_mhz / now_mhz, f"time, a cycle of {now_mhz:g} MHz for {then_mhz:g}")


def _no_node(nm: float) -> Factor:
    told = f"at {nm:g} nm: {STILLMAKER} cover {LEAST_NM:g} to {GREATEST_NM:g} nm"
    return Factor(None, told)


# ---------------------------------------------------------------------- the table of nodes


def nominal_v(node_nm: float) -> float:
    """Nominal supply of a node."""
    return power_law([(each.nm, each.supply_v) for each in NODES], _covered(node_nm))


def switching_fj(node_nm: float, supply_v: float | None = None) -> float:
    """Energy with which a gate of the paper switches, at the nominal supply or another.

    Between nodes a power law through the neighbours', each at its own nominal supply or both at
    the one that is given.

    Raises
    ------
    InputError
        If the paper does not cover the node.
    """
    return power_law([(each.nm, _switching(each, supply_v)) for each in NODES], _covered(node_nm))


def _switching(each: Node, supply_v: float | None) -> float:
    volts = each.supply_v if supply_v is None else supply_v
    return each.square * volts**2 + each.linear * volts + each.constant


def _covered(node_nm: float) -> float:
    if not LEAST_NM <= node_nm <= GREATEST_NM:
        raise InputError(
            f"scaling between nodes covers {LEAST_NM:g} to {GREATEST_NM:g} nm, got {node_nm!r}"
        )
    return node_nm


# ---------------------------------------------------------------------- DRAM


def dram_family(standard: str) -> str:
    """``dram.ddr4`` of ``DDR4-3200``: the entry of a table that prices a standard."""
    return f"dram.{standard.partition('-')[0].lower()}"


def of_dram(entry: Entry, priced: Entry | None, standard: str) -> Entry:
    """A machine's DRAM figure, or that of a standard which stands in its place.

    Parameters
    ----------
    priced
        What a bit of the standard costs with its background; None where no figure is at hand.
    """
    if priced is None:
        return unknown(entry, f"no figure of {standard} is at hand")
    if entry.unit is not Unit.PJ_PER_BIT:
        return msgspec.structs.replace(
            entry, value=0.0, basis=priced.basis, source=f"in the energy of a bit of {standard}"
        )
    return msgspec.structs.replace(priced, name=entry.name, source=f"{priced.source}: {standard}")
