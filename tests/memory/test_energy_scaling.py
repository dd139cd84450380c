"""Do published energies follow a configuration by the stated rules, and by nothing else?"""

from __future__ import annotations

import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparqsim.base import InputError
from sparqsim.simulator.energy import scaling
from sparqsim.simulator.energy.tables import Basis, Entry, Kind, Unit
from sparqsim.simulator.report import Energy, EnergyPart

FIGURE = Entry(
    name="figure", value=4.0, unit=Unit.PJ_PER_BIT, node_nm=45, kind=Kind.LOGIC,
    basis=Basis.PUBLISHED, source="a paper",
)  # fmt: skip
NODES = st.floats(scaling.LEAST_NM, scaling.GREATEST_NM)


def times(factor: scaling.Factor) -> float:
    """A factor that is known."""
    assert factor.times is not None
    return factor.times


def test_a_figure_stays_as_it_is_at_its_point() -> None:
    """Factors of 1 leave value, basis and source; others make it derived and name their rules."""
    here = [scaling.units(8, 8, "units"), scaling.node(45, 45), scaling.words(8, 8, 64, 64)]
    assert scaling.follow(FIGURE, here) is FIGURE
    moved = scaling.follow(FIGURE, [scaling.units(2, 8, "units"), scaling.node(16, 45)])
    assert moved.value == pytest.approx(4 * 0.25 * times(scaling.node(16, 45)))
    assert (moved.basis, moved.node_nm) == (Basis.DERIVED, 16)
    assert moved.source.startswith("a paper; x0.25 by active units and width, 2 for 8 units; x")
    assert "Stillmaker and Baas" in moved.source


@given(NODES, NODES)
def test_a_better_node_never_takes_more(one: float, other: float) -> None:
    """Smaller nodes switch and leak no more; there and back again is where it began."""
    small, large = sorted((one, other))
    for rule in (scaling.node, scaling.area):
        assert times(rule(small, large)) <= 1 + 1e-12
        assert times(rule(small, large)) * times(rule(large, small)) == pytest.approx(1)


def test_nodes_are_those_of_the_paper() -> None:
    """By hand at 45 and 7 nm, at their nominal supplies; a lower supply takes less."""
    assert scaling.switching_fj(45) == pytest.approx(1.018 - 0.3107 + 0.1539)
    assert scaling.switching_fj(7) == pytest.approx(0.1776 * 0.49 - 0.09097 * 0.7 + 0.02447)
    assert scaling.switching_fj(7) < scaling.switching_fj(8) < scaling.switching_fj(10)
    lower = times(scaling.supply(16, 0.55, 0.80))
    assert lower < times(scaling.supply(16, 0.70, 0.80)) < 1
    assert lower == pytest.approx((0.55 / 0.80) ** 2, rel=0.1)


def test_off_chip_figures_have_no_node() -> None:
    """DRAM keeps its energy whatever the technology of the chip."""
    assert scaling.node(7, 45, Kind.OFF_CHIP).times == 1


@given(st.floats(1, 1e4), st.floats(8, 512))
def test_a_port_is_as_good_as_banks(capacity_kib: float, port: float) -> None:
    """Twice the capacity at twice the port are two such memories: a bit costs the same; a larger
    memory costs more a bit, a wider port less a bit but more an access."""
    assert times(scaling.words(2 * capacity_kib, capacity_kib, 2 * port, port)) == pytest.approx(1)
    assert times(scaling.words(2 * capacity_kib, capacity_kib)) > 1
    assert times(scaling.words(capacity_kib, capacity_kib, 2 * port, port)) < 1
    assert 1 < times(scaling.access(capacity_kib, capacity_kib, 2 * port, port)) < 2


def test_the_two_figures_of_cacti_are_on_the_rule() -> None:
    """2 KiB and 128 KiB at a port of 64 bits: 2.76 and 32.3 pJ a read."""
    assert times(scaling.words(2, 128)) == pytest.approx(2.76 / 32.3)


def test_where_no_rule_leads_there_is_no_number() -> None:
    """A node that the paper does not cover, a DRAM without a figure: not known, and why."""
    for factor in (scaling.node(3, 45), scaling.area(200, 45)):
        found = scaling.follow(FIGURE, [factor])
        assert not found.is_known and math.isnan(found.value) and "cover 7 to 180" in found.source
    assert not scaling.of_dram(FIGURE, None, "LPDDR5-6400").is_known
    with pytest.raises(InputError, match="covers 7 to 180 nm, got 3"):
        scaling.switching_fj(3)
    for wrong in (math.nan, math.inf, -1.0):
        with pytest.raises(InputError, match="must be finite"):
            msgspec.structs.replace(FIGURE, value=wrong)


def test_an_unknown_part_leaves_no_total() -> None:
    """The sum of what is known is never told as the total."""
    known = EnergyPart(part="array", energy_pj=5.0, basis=Basis.DERIVED, source="a rule")
    unknown = EnergyPart(part="DRAM", energy_pj=None, basis=Basis.UNKNOWN, source="no figure")
    whole, lacking = Energy.of([known], 1e-9), Energy.of([known, unknown], 1e-9)
    assert (whole.total_pj, whole.known_pj, whole.missing) == (5.0, 5.0, [])
    assert (lacking.total_pj, lacking.average_power_w) == (None, None)
    with pytest.raises(InputError, match="the energy is not known: DRAM: no figure"):
        _ = lacking.known_pj
