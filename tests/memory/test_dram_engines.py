"""Do both engines serve a DRAM channel by the rule the stand-alone replay obeys?"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparqsim.simulator.engines import simulate
from sparqsim.simulator.memory import dram_kernels as kernels
from sparqsim.simulator.memory.dram import Dram, Granularity, Page, replay
from sparqsim.simulator.memory.standards import STANDARDS
from sparqsim.simulator.netlist import Actor, Netlist

Served = list[tuple[int, int]]


def plain_loop(dram: Dram, clock_hz: float, actors: list[Actor]) -> list[np.ndarray]:
    """Start of every firing ``[firings, lanes]`` by the rule of the machine model, naively.

    Each lane asks again when its firing has ended; the free channel takes the least (rank, cycle
    of asking, actor, lane).
    """
    parameters = dram.channel(clock_hz).parameters()
    state = dram.channel(clock_hz).initial_state()
    starts = [np.zeros((actor.count, actor.lanes), np.int64) for actor in actors]
    asking = {(i, j): (0, 0) for i, a in enumerate(actors) for j in range(a.lanes) if a.count}
    free = 0
    while asking:
        now = max(free, min(asked for asked, _ in asking.values()))

        def key(lane, now=now):
            asked, firing = asking[lane]
            request = actors[lane[0]].request[firing, lane[1]]
            return kernels.rank(parameters, state, request, now), asked, lane

        actor, lane = min((who for who in asking if asking[who][0] <= now), key=key)
        firing = asking.pop((actor, lane))[1]
        request = actors[actor].request[firing, lane]
        hold, busy, _ = kernels.serve(parameters, state, request, now)
        starts[actor][firing, lane] = now
        free = now + hold
        if firing + 1 < actors[actor].count:
            asking[actor, lane] = (now + busy, firing + 1)
    return starts


@st.composite
def machines(draw) -> tuple[Dram, float, list[Actor]]:
    dram = Dram(
        standard=draw(st.sampled_from(list(STANDARDS))),
        page=draw(st.sampled_from(Page)),
        write_batch=draw(st.sampled_from([2, 20])),
    )
    clock_hz = draw(st.sampled_from([5e8, 7e8, 1e12 / dram.timing.tCK_ps]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    actors = []
    for i in range(draw(st.integers(1, 3))):
        lanes, firings = draw(st.integers(1, 5)), draw(st.integers(1, 8))
        count = lanes * firings
        address = rng.integers(0, draw(st.sampled_from([4, 1 << 20])), count) * 64
        size = rng.integers(1, draw(st.sampled_from([64, 5000])), count)
        write = rng.random(count) < draw(st.sampled_from([0.0, 0.5]))
        request = dram.requests(address, size, write, Granularity.TILE)[0]
        actors.append(
            Actor(
                name=f"dma{i}",
                lanes=lanes,
                firings=firings,
                resource="dram",
                request=request.reshape(firings, lanes, kernels.FIELDS),
            )
        )
    return dram, clock_hz, actors


@settings(max_examples=60, deadline=None)
@given(machines())
def test_engines_obey_the_rule(case: tuple[Dram, float, list[Actor]]) -> None:
    """Starts of every lane on both engines are those of the plain loop."""
    dram, clock_hz, actors = case
    netlist = Netlist(actors, resources=dram.resources(clock_hz), clock_hz=clock_hz)
    expected = plain_loop(dram, clock_hz, actors)
    for engine in ("compiled", "simpy"):
        timeline = simulate(netlist, engine=engine)
        for actor, starts in zip(actors, expected, strict=True):
            np.testing.assert_array_equal(timeline.starts_of(actor.name), starts)


@pytest.mark.parametrize("name", STANDARDS)
def test_one_lane_is_a_queue_of_one(name: str) -> None:
    """An actor of one lane starts its requests when `replay` does with one place."""
    dram = Dram(standard=name)
    clock_hz = 1e12 / dram.timing.tCK_ps
    address = np.random.default_rng(1).integers(0, 1 << 20, 300) * 64
    requests = dram.requests(address, 64, False, Granularity.BURST)[0]
    lone = Actor(name="dma", firings=len(requests), resource="dram", request=requests)
    netlist = Netlist([lone], resources=dram.resources(clock_hz), clock_hz=clock_hz)
    timeline = simulate(netlist)
    run = replay(dram.channel(clock_hz), requests, read_queue=1)
    np.testing.assert_array_equal(timeline.starts_of("dma")[:, 0], run.start)
    assert timeline.cycles == run.cycles
