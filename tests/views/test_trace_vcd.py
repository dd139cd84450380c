"""Are the waves of a run what happened? Read again by another's parser (pyvcd)."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from netlists import netlists

from sparqsim.simulator.deadlock import Deadlock
from sparqsim.simulator.engines import simulate
from sparqsim.simulator.netlist import Actor, Channel, Netlist
from sparqsim.simulator.queues import held
from sparqsim.simulator.timeline import Timeline
from sparqsim.simulator.trace import Window, write_trace

reader = pytest.importorskip("vcd.reader")
PERIOD = 1000  # picoseconds at 1 GHz


def read(path: Path) -> tuple[dict[tuple[str, ...], list[tuple[int, object]]], int]:
    """For each signal, by its scopes and name, the cycles at which it changes; and the last."""
    names: dict[str, tuple[str, ...]] = {}
    waves: dict[tuple[str, ...], list[tuple[int, object]]] = {}
    scopes: list[str] = []
    now = 0
    with path.open("rb") as file:
        for token in reader.tokenize(file):
            kind = token.kind.name
            if kind == "SCOPE":
                scopes.append(token.scope.ident)
            elif kind == "UPSCOPE":
                scopes.pop()
            elif kind == "VAR":
                assert token.var.id_code not in names
                name = names[token.var.id_code] = (*scopes, token.var.reference)
                waves[name] = []
            elif kind == "CHANGE_TIME":
                assert token.time_change % PERIOD == 0 and token.time_change >= now * PERIOD
                now = token.time_change // PERIOD
            elif kind in ("CHANGE_VECTOR", "CHANGE_STRING"):
                change = token.data
                waves[names[change.id_code]].append((now, change.value))
    return waves, now


def durations(wave: list[tuple[int, object]], end: int) -> dict[object, int]:
    """Cycles for which a signal has each of its values."""
    sums: dict[object, int] = defaultdict(int)
    for (at, value), (after, _) in zip(wave, [*wave[1:], (end, None)], strict=True):
        assert at < after or after == end
        sums[value] += after - at
    return sums


def lanes_of(timeline: Timeline, name: str) -> list[tuple[str, ...]]:
    lanes = timeline.netlist.actor(name).lanes
    return [(name,)] if lanes == 1 else [(name, f"lane_{lane}") for lane in range(lanes)]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(netlist=netlists())
def test_states_sum_to_the_lane_times(tmp_path_factory, netlist: Netlist) -> None:
    """On any netlist: of each lane the cycles it is busy, waits for tokens, for free slots and its
    resource, and is done, are those of the timeline; each queue holds what it held, never more
    than its capacity, and each number of a firing stands as long as it was busy."""
    try:
        timeline = simulate(netlist)
    except Deadlock as stuck:
        timeline = stuck.timeline
    waves, end = read(write_trace(timeline, tmp_path_factory.mktemp("v") / "t.vcd"))
    assert end == max(timeline.cycles, 1)
    for actor in netlist.actors:
        times = timeline.lane_times(actor.name)
        starts, busy = timeline.starts_of(actor.name), timeline.busy(actor.name)
        for lane, scope in enumerate(lanes_of(timeline, actor.name)):
            sums = durations(waves[*scope, "state"], timeline.cycles)
            kinds = {"busy": 0, "done": 0, "tokens_of": 0, "free_slots_in": 0, "resource": 0}
            for state, cycles in sums.items():
                kinds[next(kind for kind in kinds if str(state).startswith(kind))] += cycles
            assert kinds == {
                "busy": times.busy[lane],
                "done": times.finished[lane],
                "tokens_of": times.starved[lane],
                "free_slots_in": times.blocked[lane],
                "resource": times.waiting[lane],
            }
            shown = durations(waves[*scope, "firing"], timeline.cycles)
            fired = int((starts[:, lane] >= 0).sum())
            for k in range(fired):
                assert shown.get(k, 0) == busy[k, lane]
    for channel in netlist.channels:
        exact = held(timeline, channel.name, 10**6).tokens
        found = [wave for name, wave in waves.items() if name[0] == channel.name]
        assert len(found) == exact.shape[1]
        for wave, tokens in zip(found, exact.T, strict=True):
            levels = np.zeros(len(tokens), int)
            for at, value in wave:
                levels[at:] = value
            assert levels.min() >= 0 and levels.max() <= channel.capacity
            assert levels.tolist() == tokens.tolist()


def test_a_window_is_a_part_of_the_whole(tmp_path: Path) -> None:
    """Inside the window every signal has in each cycle the value that the whole trace gives it."""
    busy = np.random.default_rng(3).integers(0, 7, (60, 3))
    netlist = Netlist(
        [Actor(name="a b", lanes=3, busy=busy), Actor(name="c", lanes=3, firings=60, busy=3)],
        [Channel(name="q", source="a b", target="c", capacity=2)],
    )
    timeline = simulate(netlist)
    whole, _ = read(write_trace(timeline, tmp_path / "whole.vcd"))
    part, end = read(write_trace(timeline, tmp_path / "part.vcd", window=Window(50, 90)))
    assert end == 90 and set(part) == set(whole)

    def value(wave: list[tuple[int, object]], cycle: int) -> object:
        return [each for at, each in wave if at <= cycle][-1]

    for name, wave in part.items():
        assert wave[0][0] == 50
        for cycle in range(50, 90):
            assert value(wave, cycle) == value(whole[name], cycle), (name, cycle)


def test_names_are_unlike(tmp_path: Path) -> None:
    """Names that differ in blanks alone are told apart, and none ends a declaration."""
    netlist = Netlist(
        [Actor(name="a b", firings=2), Actor(name="a_b", firings=2), Actor(name="$end", firings=1)],
        [Channel(name="a  b", source="a b", target="a_b", capacity=1)],
    )
    waves, _ = read(write_trace(simulate(netlist), tmp_path / "t.vcd"))
    scopes = {scope[0] for scope in waves}
    assert scopes == {"a_b", "a_b_2", "_end", "a_b_3"}
