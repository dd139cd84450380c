"""Is a run refused before it takes more memory, or more cycles, than there are?"""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from sparqsim.base import InputError
from sparqsim.simulator.engines import simulate
from sparqsim.simulator.engines.limits import check_limits
from sparqsim.simulator.loops import Loops
from sparqsim.simulator.memory.open_row import OpenRow
from sparqsim.simulator.memory.sram import Sram
from sparqsim.simulator.netlist import Actor, Channel, Netlist, Resource

HUGE = 2**40


def net(lanes: int = 1, firings: int = 1, servers: int = 1, capacity: int = 2) -> Netlist:
    """Two actors, a channel between them and a resource."""
    return Netlist(
        [
            Actor(name="a", lanes=lanes, firings=firings, resource="bus"),
            Actor(name="b", lanes=lanes, firings=firings),
        ],
        [Channel(name="q", source="a", target="b", capacity=capacity)],
        [Resource(name="bus", servers=servers)],
        name="net",
    )


@pytest.mark.parametrize("engine", ["compiled", "simpy"])
@pytest.mark.parametrize("what", ["lanes", "firings", "servers"])
def test_what_memory_cannot_hold_is_refused(what: str, engine: str) -> None:
    """2^40 of anything is an error that names the netlist and the limit, on both engines."""
    with pytest.raises(InputError, match=r"a run of 'net' .* the limit is"):
        simulate(net(**{what: HUGE}), engine=engine)


def test_sums_need_no_memory_for_firings_and_few_tokens_none_for_capacity() -> None:
    """2^40 firings may run as sums, and a queue of 2^40 that two tokens pass."""
    check_limits(net(firings=HUGE), "compiled", "summary")
    assert simulate(net(firings=2, capacity=HUGE)).cycles == 3


@pytest.mark.parametrize(("lanes", "firings"), [(100, 2), (2, 500)])
@pytest.mark.parametrize("engine", ["compiled", "simpy"])
def test_the_estimate_is_near_what_is_taken(
    lanes: int, firings: int, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that may take a third of what it was seen to take is refused; one of thrice it runs."""
    netlist = net(lanes, firings, lanes)
    simulate(netlist, engine=engine)  # compiled before it is measured
    tracemalloc.start()
    simulate(netlist, engine=engine).lane_times("a")
    taken = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    monkeypatch.setenv("SPARQSIM_MEMORY_LIMIT", str(3 * taken))
    check_limits(netlist, engine, "full")
    monkeypatch.setenv("SPARQSIM_MEMORY_LIMIT", str(taken // 3))
    with pytest.raises(InputError, match="would take"):
        check_limits(netlist, engine, "full")


def test_cycles_that_64_bits_cannot_count_are_refused() -> None:
    """2^30 firings of 2^31 - 1 cycles are counted to the cycle; 2^40 of them would overflow."""

    def long(firings: int) -> Netlist:
        return Netlist([Actor(name="a", busy=Loops(((firings,),), np.array([2**31 - 1])))])

    assert simulate(long(2**30), record="summary").cycles == 2**30 * (2**31 - 1)
    with pytest.raises(InputError, match=r"at most 2\^62 are counted"):
        simulate(long(2**40), record="summary")


@pytest.mark.parametrize("value", [HUGE * 2, 2**62, -1, 0])
def test_sizes_of_memories_have_bounds(value: int) -> None:
    """Banks and cycles of memories are refused by field."""
    with pytest.raises(InputError, match=r"OpenRow\.banks must be 1 to"):
        OpenRow(banks=value)
    with pytest.raises(InputError, match=r"OpenRow\.miss_cycles must be 1 to"):
        OpenRow(miss_cycles=value)
    with pytest.raises(InputError, match=r"sram\.banks must be 1 to"):
        Sram(capacity_bytes=1024, width_bits=8, banks=value)
