"""Is every energy a number with a unit, a node and a source, and does scaling keep what is known?

Lookups return the tables' own numbers where there is one, lie between them where there is not, and
are never marked better known than what they were made from.
"""

from __future__ import annotations

import itertools
import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from sparqsim.base import InputError
from sparqsim.simulator.energy.tables import (
    Basis,
    EnergyTable,
    Entry,
    Kind,
    Unit,
    get_table,
    table_names,
)

CACTI, HOROWITZ = get_table("cacti-aladdin"), get_table("horowitz")
NODES = (16.0, 28.0, 45.0)
nodes = st.floats(10, 90)
STRENGTH = list(Basis)


@pytest.mark.parametrize(
    ("node", "kib", "picojoules"),
    [
        (45, 2, 2.76), (28, 2, 1.16), (16, 2, 0.55),
        (45, 128, 32.3), (28, 128, 13.9), (16, 128, 6.3),
    ],
)  # fmt: skip
def test_cacti_points_are_returned_as_they_are(node: float, kib: float, picojoules: float) -> None:
    """64 bits read cost what CACTI says; below 22 nm, scaled values are marked assumed."""
    entry = CACTI.sram(capacity_kib=kib, node_nm=node)
    assert 64 * entry.value == pytest.approx(picojoules, rel=1e-12)
    assert entry.unit is Unit.PJ_PER_BIT
    assert entry.basis is (Basis.DERIVED if node >= 22 else Basis.ASSUMED)


@pytest.mark.parametrize(("node", "picojoules"), [(45, 1.15), (28, 0.59), (16, 0.20)])
def test_multiply_accumulate_points(node: float, picojoules: float) -> None:
    """The int8 multiply-accumulate at the three nodes."""
    assert CACTI.entry("mac.int8", node_nm=node).value == picojoules


def test_two_tables_differ_several_fold_and_say_so() -> None:
    """The same operation: 1.15 against 0.3 pJ. Neither hides whose number it is."""
    ours, theirs = (t.entry("mac.int8", node_nm=45) for t in (CACTI, HOROWITZ))
    assert 3 < ours.value / theirs.value < 5
    assert "Aladdin" in str(ours) and "Horowitz" in str(theirs)
    assert "pJ/op at 45 nm" in str(ours)
    assert "[assumed: M. Horowitz" in str(theirs)
    add, multiply = HOROWITZ.entry("add.int32"), HOROWITZ.entry("multiply.int8")
    assert theirs.value == pytest.approx(add.value + multiply.value)
    assert 64 * HOROWITZ.sram(capacity_kib=8).value == 10.0


@given(size=st.floats(0.25, 4096), node=nodes)
def test_memories_grow_with_size_and_shrink_with_node(size: float, node: float) -> None:
    """Monotone in both, between the table's points where it lies between them."""
    here = CACTI.sram(capacity_kib=size, node_nm=node)
    assert here.value < CACTI.sram(capacity_kib=2 * size, node_nm=node).value
    assert here.value < CACTI.sram(capacity_kib=size, node_nm=node * 1.2).value
    if 2 < size < 128:
        low, high = (CACTI.sram(capacity_kib=kib, node_nm=node) for kib in (2, 128))
        assert low.value < here.value < high.value
    else:
        assert here.basis is Basis.ASSUMED or size in (2, 128)


@given(start=nodes, end=nodes, kind=st.sampled_from([Kind.LOGIC, Kind.MEMORY]))
def test_scaling_there_and_back_is_nothing(start: float, end: float, kind: Kind) -> None:
    """Energies rise with the node and come back; the basis only weakens."""
    entry = Entry(
        name="x", value=2.0, unit=Unit.PJ_PER_OP, node_nm=start, kind=kind,
        basis=Basis.PUBLISHED, source="here",
    )  # fmt: skip
    there = entry.at_node(end)
    assert there.at_node(start).value == pytest.approx(2.0, rel=1e-9)
    assert (there.value > 2.0) == (end > start) or math.isclose(end, start, rel_tol=1e-12)
    if end != start:
        inside = all(16 <= node <= 45 for node in (start, end))
        assert there.basis is (Basis.DERIVED if inside else Basis.ASSUMED)
        assert there.source.startswith("here; x")


@pytest.mark.parametrize(("one", "other"), list(itertools.permutations(NODES, 2)))
def test_scaling_between_known_nodes_is_the_tables_ratio(one: float, other: float) -> None:
    """Logic follows the multiply-accumulate, memory the 128 KiB SRAM."""
    logic, memory = CACTI.entry("mac.int8", node_nm=one), CACTI.sram(capacity_kib=128, node_nm=one)
    assert logic.at_node(other).value == pytest.approx(
        CACTI.entry("mac.int8", node_nm=other).value, rel=1e-9
    )
    assert memory.at_node(other).value == pytest.approx(
        CACTI.sram(capacity_kib=128, node_nm=other).value, rel=1e-9
    )


def test_dram_does_not_scale_with_the_logic_node() -> None:
    """Off-chip energies are those of the standard, whatever the accelerator's node."""
    assert CACTI.entry("dram.hbm2", node_nm=16) == CACTI.entry("dram.hbm2", node_nm=45)
    weak = [CACTI.entry(f"dram.{kind}").basis for kind in ("lpddr4", "hbm2", "hbm3")]
    assert set(weak) == {Basis.ASSUMED}


def test_static_power_is_that_of_the_authors_array() -> None:
    """4-bit elements in mW: ANT's 64 x 64 take 131.715 pJ in a cycle of 500 MHz."""
    element = CACTI.entry("pe4.static")
    assert element.unit is Unit.MILLIWATT
    assert 64**2 * element.value * 1e9 / 500e6 == pytest.approx(131.715)


def test_every_shipped_entry_has_a_source() -> None:
    """All of them, and the names are what ``get_table`` takes."""
    assert table_names() == ["cacti-aladdin", "horowitz"]
    for name in table_names():
        for entry in get_table(name).entries:
            assert entry.source and entry.value > 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: get_table("cacti"), "no energy table 'cacti'; there is cacti-aladdin, horowitz"),
        (lambda: CACTI.entry("mac.int9"), "did you mean 'mac.int8'"),
        (lambda: CACTI.entry("sram.read"), r"use sram\('sram.read', capacity_kib"),
        (lambda: CACTI.sram("mac.int8", capacity_kib=8), "no memory 'mac.int8' with a size"),
        (lambda: CACTI.sram(capacity_kib=0), "capacity_kib must be above 0"),
        (lambda: CACTI.sram(capacity_kib=math.nan), "capacity_kib must be above 0"),
        (lambda: CACTI.entry("mac.int8", node_nm=1), "node_nm must lie between 5 and 180"),
        (lambda: CACTI.entry("mac.int8", node_nm=math.nan), "node_nm must lie between"),
        (lambda: EnergyTable(name="t", entries=()), "is empty"),
        (lambda: replace(CACTI, entries=CACTI.entries[:1] * 2), "has 'sram.read' at 45 nm twice"),
        (lambda: replace(CACTI.entries[0], value=math.inf), "value must be finite"),
        (lambda: replace(CACTI.entries[0], value=-1.0), "value must be finite and at least 0"),
        (lambda: replace(CACTI.entries[0], source=""), "needs a name and a source"),
        (lambda: replace(CACTI.entries[0], capacity_kib=-2.0), "capacity_kib must be above 0"),
    ],
)
def test_bad_tables_and_lookups_are_letters(call: object, message: str) -> None:
    """What must hold, what was given, what there is."""
    with pytest.raises(InputError, match=message):
        call()  # type: ignore[operator]


def test_a_table_can_be_read_from_a_file_and_knows_its_fields() -> None:
    """A user's own table, as data; an unknown field or unit is refused."""
    text = msgspec.json.encode(HOROWITZ)
    assert msgspec.json.decode(text, type=EnergyTable) == HOROWITZ
    entry = msgspec.to_builtins(HOROWITZ.entries[0])
    for spoiled in ({**entry, "volts": 1}, {**entry, "unit": "nJ"}):
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert(spoiled, Entry)
