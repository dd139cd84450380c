"""How much memory a run takes, and whether its cycles can be counted: told before it begins.

What a run takes follows from the numbers of lanes, firings, servers and tokens alone. The compiled
engine keeps rows of fixed size for each lane, server and slot of a ring and, where single firings
are kept, for each firing of a lane; the SimPy engine keeps objects of Python for each of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sparqsim.base import InputError, check_memory
from sparqsim.simulator.loops import Loops
from sparqsim.simulator.netlist import Netlist, Pattern

if TYPE_CHECKING:
    from sparqsim.simulator.netlist import Actor, Channel

MOST_CYCLES = 2**62  # of a whole run: times are 64 bits, and an end may be added to a start

# Bytes of the compiled engine, derived from the rows in `layout` and `compiled.State`: a lane has a
# row (56), nine times (72), three of its requests (24), a place in the worklist (up to 16), and its
# sums (48); a firing a start and a cause, one that holds a resource the same for its request.
LANE, FIRING, GRANTED, SERVER, SLOT, GIVEN = 224, 12, 24, 8, 8, 4
SUMMED = 48  # and of a firing of one actor at a time, when it is asked where its cycles went
# Bytes of the SimPy engine, measured with tracemalloc on CPython 3.11, rounded up.
OBJECTS_OF_A_LANE, OBJECTS_OF_A_LINK, OBJECTS_OF_A_FIRING = 3000, 1600, 100


def check_limits(netlist: Netlist, engine: str, record: str) -> None:
    """Refuse a run that would take more memory than there may be, or more cycles than are counted.

    Raises
    ------
    InputError
        Naming the netlist, the size and the limit; see :func:`sparqsim.base.check_memory`.
    """
    need = _compiled(netlist, record == "full") if engine == "compiled" else _simpy(netlist)
    lanes = sum(actor.lanes for actor in netlist.actors)
    servers = sum(resource.servers for resource in netlist.resources)
    check_memory(
        need,
        f"a run of {netlist.name!r} ({lanes:,} lanes, {netlist.lane_firings:,} firings, "
        f"{servers:,} servers)",
    )
    cycles = sum(_most_cycles(actor) for actor in netlist.actors)
    if cycles > MOST_CYCLES:
        raise InputError(
            f"a run of {netlist.name!r} could take up to {cycles:.3g} cycles, and at most 2^62 are "
            "counted; give its actors fewer firings, lanes or cycles"
        )


def _most_cycles(actor: Actor) -> int:
    """Cycles of all firings one after the other; what memory holds as an array cannot be many."""
    found = 1
    for given in (actor.busy, actor.latency):
        if isinstance(given, Loops):
            found = max(found, given.least_and_most()[1])
        elif isinstance(given, np.ndarray) and given.size == 1:
            found = max(found, int(given.flat[0]))
    return found * actor.count * actor.lanes


def _compiled(netlist: Netlist, full: bool) -> int:
    need, summed = sum(SERVER * resource.servers for resource in netlist.resources), 0
    for actor in netlist.actors:
        need += LANE * actor.lanes
        if full:
            holds = actor.resource is not None
            need += (FIRING + (GRANTED if holds else 0)) * actor.count * actor.lanes
            summed = max(summed, SUMMED * actor.count * actor.lanes)
        for given in (actor.busy, actor.latency):
            if isinstance(given, np.ndarray):
                need += GIVEN * max(given.size, len(given) * actor.lanes)
            elif full and isinstance(given, Loops):
                need += GIVEN * len(given) * actor.lanes
    rings = sum(2 * SLOT * _slots(netlist, channel) for channel in netlist.channels)
    return need + summed + rings


def _slots(netlist: Netlist, channel: Channel) -> int:
    """Tokens of which the ends of a channel keep the times."""
    from sparqsim.simulator.engines.layout import ring_slots

    source, target = netlist.actor(channel.source), netlist.actor(channel.target)
    return ring_slots(channel, source) * max(source.lanes, target.lanes)


def _simpy(netlist: Netlist) -> int:
    need = sum(SERVER * resource.servers for resource in netlist.resources)
    for actor in netlist.actors:
        need += (OBJECTS_OF_A_LANE + OBJECTS_OF_A_FIRING * actor.count) * actor.lanes
    for channel in netlist.channels:
        lanes = [netlist.actor(end).lanes for end in (channel.source, channel.target)]
        joined = max(lanes) if channel.pattern is not Pattern.SHIFT else min(lanes)
        need += OBJECTS_OF_A_LINK * joined
    return need
