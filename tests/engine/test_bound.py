"""Is the part named that the length of a run depends on?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from sparqsim.simulator.engines import simulate
from sparqsim.simulator.netlist import Actor, Channel, Netlist, Pattern, Resource
from sparqsim.simulator.report import bound_of


def bound(actors: list[Actor], channels: list[Channel], resources: Sequence[Resource] = ()) -> str:
    """What bounds a run, found from all firings and from sums of lanes alike."""
    netlist = Netlist(actors, channels, resources)
    found = {bound_of(simulate(netlist, record=record), "array") for record in ("full", "summary")}
    assert len(found) == 1
    return found.pop()


def fed(busy: int, *dmas: Actor) -> tuple[list[Actor], list[Channel]]:
    """An array of one lane that takes a token of every DMA for each of its firings."""
    array = Actor(name="array", firings=dmas[0].count, busy=busy)
    channels = [
        Channel(name=f"{dma.name}_to", source=dma.name, target="array", capacity=2) for dma in dmas
    ]
    return [*dmas, array], channels


def dma(name: str, busy: int, resource: str | None = "dram") -> Actor:
    return Actor(name=name, firings=50, busy=busy, resource=resource, part="fetch")


def test_a_resource_is_held_by_all_that_share_it() -> None:
    """Neither DMA is busy all the time, but the bus they share is: it bounds the run."""
    actors, channels = fed(6, dma("weights", 4), dma("inputs", 4))
    assert bound(actors, channels, [Resource(name="dram")]) == "dram"
    assert bound(actors, channels, [Resource(name="dram", servers=2)]) == "compute"


def test_channels_of_a_memory_are_one() -> None:
    """dram0 and dram1 are two halves of a DRAM; l2 is no channel of an l."""
    actors, channels = fed(3, dma("even", 4, "dram0"), dma("odd", 4, "dram1"))
    assert bound(actors, channels, [Resource(name="dram0"), Resource(name="dram1")]) == "dram"
    actors, channels = fed(3, dma("even", 4, "l2"))
    assert bound(actors, channels, [Resource(name="l2")]) == "l2"


def test_an_actor_is_named_by_its_part() -> None:
    """A slow fetch without a shared resource; a fast one leaves the array as the bound."""
    for busy, expected in ((9, "fetch"), (2, "compute")):
        assert bound(*fed(5, dma("fetcher", busy, None))) == expected


@pytest.mark.parametrize(
    ("work", "expected"), [([40, 40, 40, 40], "compute"), ([40, 4, 4, 4], "load imbalance")]
)
def test_uneven_lanes_are_load_imbalance(work: list[int], expected: str) -> None:
    """Where the busiest lane works more than twice as long as the mean one."""
    array = Actor(name="array", lanes=4, busy=np.array([work]))
    assert bound([array], []) == expected


def test_a_long_wait_without_work_is_latency() -> None:
    """No part is busy half of the time: what takes long is the way."""
    fetch = Actor(name="fetch", firings=2, busy=1, latency=100)
    array = Actor(name="array", firings=2, busy=1, lanes=2)
    way = Channel(name="way", source="fetch", target="array", capacity=2, pattern=Pattern.BROADCAST)
    assert bound([fetch, array], [way]) == "latency"
