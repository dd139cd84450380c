"""Is the critical path of a run that kept sums alone the one of the run that kept every firing?

The walk through all firings is the definition: the cycles of every lane by what filled them are
equal, whatever was jumped over, wherever the engine left marks and however short the pieces.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from netlists import netlists
from test_loops import patient_netlists, repeating_netlists
from test_timeline import machines

from sparqsim.simulator.critical_path import shares_of
from sparqsim.simulator.deadlock import Deadlock
from sparqsim.simulator.engines import recorder, repeating, replay, simulate, trail
from sparqsim.simulator.loops import Loops
from sparqsim.simulator.netlist import Actor, Channel, Netlist, Resource


@pytest.fixture(autouse=True, scope="module")
def short_runs_jump() -> Iterator[None]:
    """The engine goes through runs as short as these firing by firing, were it not told to jump."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(repeating, "SHORT", 0)
        yield


def check(netlist: Netlist) -> int:
    """The shares of a run of sums are those of the run of firings; its cycles."""
    whole, sums = shares_of(simulate(netlist)), shares_of(simulate(netlist, record="summary"))
    assert whole is not None and sums is not None
    assert np.array_equal(whole.cycles, sums.cycles)
    return int(sums.cycles.sum())


@given(
    netlist=st.one_of(netlists(), machines(), repeating_netlists(), patient_netlists()),
    apart=st.sampled_from([1, 2, 7, trail.APART]),
    piece=st.sampled_from([1, 2, 5, recorder.PIECE]),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_shares_are_those_of_all_firings(netlist: Netlist, apart: int, piece: int) -> None:
    """Of random netlists with every pattern, resource and period."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trail, "APART", apart)
        patch.setattr(trail, "MARKS_BYTES", 4000)
        patch.setattr(recorder, "PIECE", piece)
        try:
            cycles = check(netlist)
        except Deadlock:
            return
        assert cycles == simulate(netlist, record="summary").cycles


def tiles(rows: int, columns: int) -> Netlist:
    """A nest of loops: inputs and weights over one bus, which work waits for in turn."""
    each = rows * columns
    busy = Loops(((rows,), (columns - 1, 1)), [[6, 9]])
    fetch = Loops(((rows,), (1, columns - 1)), [[40, 5]])
    return Netlist(
        [
            Actor(name="fetch", firings=each, busy=fetch, resource="bus", rank=1),
            Actor(name="work", firings=each, busy=busy, latency=12),
            Actor(name="store", firings=each, busy=3, resource="bus"),
        ],
        [
            Channel(name="in", source="fetch", target="work", capacity=2),
            Channel(name="out", source="work", target="store", capacity=1),
        ],
        [Resource(name="bus")],
    )


def test_to_find_it_does_not_take_longer_for_more_iterations(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A walk through copies of a period is cut short where it comes round."""
    counts = Counter[str]()
    original = replay._Path._span

    def counted(self: replay._Path) -> object:
        counts["windows"] += 1
        return original(self)

    monkeypatch.setattr(replay._Path, "_span", counted)
    windows = []
    for columns in (100, 100_000):
        counts.clear()
        run = simulate(tiles(10, columns), record="summary")
        found = shares_of(run)
        assert found is not None and found.cycles.sum() == run.cycles
        windows.append(counts["windows"])
    assert check(tiles(10, 100)) == simulate(tiles(10, 100)).cycles
    assert windows[1] <= windows[0] + 5


def test_a_wide_bank_is_gone_through_in_small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is recorded at once is bounded in firings of all lanes, however many lanes there are."""
    monkeypatch.setattr(trail, "APART", 1 << 17)
    rng = np.random.default_rng(0)
    lanes, firings = 3000, 200
    busy = [rng.integers(1, 9, (firings, lanes)) for _ in range(2)]
    netlist = Netlist(
        [Actor(name=name, lanes=lanes, busy=each) for name, each in zip("ab", busy, strict=True)],
        [Channel(name="queue", source="a", target="b", capacity=2)],
    )
    run = simulate(netlist, record="summary")
    assert run.trail is not None
    pieces = recorder.Recorder(run.trail)
    sizes = [sum(part.starts.size for part in pieces[n].records) for n in range(len(pieces.pieces))]
    assert len(sizes) > 5 and max(sizes) < 2 * trail.APART < netlist.lane_firings
    check(netlist)


def test_marks_take_no_more_than_they_may(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a run of any length: every second is dropped, and later ones lie farther apart."""
    monkeypatch.setattr(trail, "APART", 30)
    monkeypatch.setattr(trail, "MARKS_BYTES", 30_000)
    counts = []
    for columns in (100, 10_000):
        net = tiles(3, columns)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(repeating, "SHORT", 1 << 62)  # nothing is jumped over
            run = simulate(net, record="summary")
        assert run.trail is not None
        kept = [part.nbytes for mark in run.trail.marks[1:] for part in mark.state or ()]
        assert sum(kept) <= 30_000
        counts.append(len(run.trail.marks))
    assert min(counts) > 3
