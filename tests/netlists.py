"""Random netlists for the tests: banks, every pattern, rates with zeros, resources, deadlocks."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from sparqsim.simulator.memory.open_row import OpenRow
from sparqsim.simulator.netlist import Actor, Channel, Netlist, Pattern, Resource


def amounts(draw, firings: int, lanes: int, low: int, high: int):
    """A number, an array over firings, or one over firings and lanes."""
    shape = draw(st.sampled_from(["number", "firings", "lanes"]))
    number = st.integers(low, high)
    if shape == "number" or not firings:
        return draw(number)
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    size = firings if shape == "firings" else (firings, lanes)
    return rng.integers(low, high + 1, size)


@st.composite
def netlists(draw) -> Netlist:
    """A netlist of up to five actors that ends, in time or in a deadlock."""
    resources = []
    for i in range(draw(st.integers(0, 2))):
        kind = draw(st.sampled_from(["plain", "banked", "model"]))
        if kind == "model":
            resources.append(Resource(name=f"r{i}", model=OpenRow()))
        else:
            servers = draw(st.integers(1, 3))
            resources.append(Resource(name=f"r{i}", servers=servers, banked=kind == "banked"))
    actors = []
    for i in range(draw(st.integers(1, 5))):
        lanes = draw(st.sampled_from([1, 1, 2, 3, 5]))
        firings = draw(st.integers(0, 9))
        resource = draw(st.sampled_from([None, None, *resources]))
        request = None
        latency = None
        if resource is not None and resource.fields:
            highs = [2, 3, 4] if resource.model else [resource.servers]
            rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
            request = np.stack([rng.integers(0, h, (firings, lanes)) for h in highs], axis=-1)
        if draw(st.booleans()) and (resource is None or resource.model is None):
            latency = amounts(draw, firings, lanes, 1, 6)
        actors.append(
            Actor(
                name=f"a{i}",
                lanes=lanes,
                firings=firings,
                busy=amounts(draw, firings, lanes, 1 if resource else 0, 5),
                latency=latency,
                resource=resource.name if resource else None,
                request=request,
                rank=amounts(draw, firings, lanes, 0, 2) if resource else 0,
            )
        )
    used = {a.resource for a in actors}
    channels = []
    for i in range(draw(st.integers(0, 7))):
        source, target = draw(st.sampled_from(actors)), draw(st.sampled_from(actors))
        patterns = [Pattern.SHIFT]
        if source.lanes == target.lanes:
            patterns.append(Pattern.LANE)
        if source.lanes == 1:
            patterns.append(Pattern.BROADCAST)
        if target.lanes == 1:
            patterns.append(Pattern.GATHER)
        capacity = draw(st.integers(1, 6))
        simple = draw(st.booleans())
        most = min(capacity, 3)
        channels.append(
            Channel(
                name=f"c{i}",
                source=source.name,
                target=target.name,
                pattern=draw(st.sampled_from(patterns)),
                offset=draw(st.integers(-2, 2)),
                capacity=capacity,
                produce=1 if simple else amounts(draw, source.count, source.lanes, 0, most),
                consume=1 if simple else amounts(draw, target.count, target.lanes, 0, most),
            )
        )
    return Netlist(actors, channels, [r for r in resources if r.name in used])
