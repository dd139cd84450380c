"""Can a request reach a memory model that it cannot serve? No kernel checks what it is given."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparqsim.base import InputError
from sparqsim.simulator.engines import simulate
from sparqsim.simulator.memory.dram import Dram, DramChannel
from sparqsim.simulator.memory.open_row import OpenRow
from sparqsim.simulator.netlist import Actor, Netlist, Resource

MODELS: dict[str, Any] = {
    "open_row": OpenRow(banks=3),
    "dram": DramChannel(Dram(standard="DDR4-2400")),
}


def netlist(model: Any, request: list[list[int]]) -> Netlist:
    """One actor whose firings send the requests."""
    return Netlist(
        actors=[Actor(name="dma", firings=len(request), resource="memory", request=request)],
        resources=[Resource(name="memory", model=model)],
    )


def at_least(model: Any) -> list[int]:
    """The least of every field."""
    return [bound.least for bound in model.bounds()]


@pytest.mark.parametrize("kind", MODELS)
def test_the_bounds_of_every_field_are_tight(kind: str) -> None:
    """The least and the most of a field are served, alike on both engines; one beyond is refused
    by name when the netlist is built, and so are numbers that would wrap around."""
    model = MODELS[kind]
    for place, bound in enumerate(model.bounds()):
        for value in (bound.least, bound.most):
            if bound.name == "bursts":
                value = min(value, 64)  # a whole DRAM takes long
            request = at_least(model)
            request[place] = value
            net = netlist(model, [at_least(model), request])
            fast, slow = (simulate(net, engine=engine) for engine in ("compiled", "simpy"))
            assert fast.cycles == slow.cycles > 0
        for value in (bound.least - 1, bound.most + 1, 2**63 - 1, -(2**63)):
            request = at_least(model)
            request[place] = value
            with pytest.raises(InputError, match=rf"'{bound.name}'.*got {value} \(firing 1\)"):
                netlist(model, [at_least(model), request])


@settings(deadline=None, max_examples=100)
@given(st.sampled_from(sorted(MODELS)), st.data())
def test_random_requests_are_refused_or_run_alike(kind: str, data: st.DataObject) -> None:
    """Any integers: a message, or the same cycles on both engines."""
    model = MODELS[kind]
    fields = [
        st.one_of(
            st.integers(bound.least, min(bound.most, 50)), st.integers(-(2**62), 2**62)
        ) if data.draw(st.integers(0, 9)) == 0
        else st.integers(bound.least, min(bound.most, 50))
        for bound in model.bounds()
    ]  # fmt: skip
    request = data.draw(st.lists(st.tuples(*fields), min_size=1, max_size=6))
    legal = all(
        bound.least <= row[place] <= bound.most
        for row in request for place, bound in enumerate(model.bounds())
    )  # fmt: skip
    try:
        net = netlist(model, [list(row) for row in request])
    except InputError:
        assert not legal
        return
    assert legal
    if np.max([row[-1] for row in request]) < 10**6:
        fast, slow = (simulate(net, engine=engine) for engine in ("compiled", "simpy"))
        assert fast.cycles == slow.cycles
