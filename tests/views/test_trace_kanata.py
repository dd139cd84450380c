"""Is the pipeline diagram of a run what happened? Read again by a parser of the format's text."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, given, settings
from netlists import netlists

from sparqsim.simulator.deadlock import Deadlock
from sparqsim.simulator.engines import simulate
from sparqsim.simulator.netlist import Actor, Channel, Netlist, Pattern
from sparqsim.simulator.trace import Window, write_trace


@dataclass
class Row:
    """An instruction of the log: its label and on each lane the stages (name, begin, end)."""

    label: str = ""
    thread: int = -1
    woken_by: int | None = None
    retired: int | None = None
    lanes: dict[int, list[tuple[str, int, int]]] = field(default_factory=lambda: defaultdict(list))


def read(path: Path) -> list[Row]:
    """The rows of a log; refuses what docs/kanata-log-format.md of Konata does not allow."""
    lines = path.read_text(encoding="utf-8").splitlines()
    assert lines[0] == "Kanata\t0004" and lines[1].startswith("C=\t")
    now, rows, open_stages, retired = int(lines[1][3:]), list[Row](), dict(), 0
    for line in lines[2:]:
        command, *values = line.split("\t")
        if command == "C":
            assert int(values[0]) > 0
            now += int(values[0])
            continue
        number = int(values[0])
        if command == "I":
            assert number == len(rows)
            rows.append(Row(thread=int(values[2])))
            continue
        row = rows[number]
        assert row.retired is None
        if command == "L":
            row.label += values[2]
        elif command == "S":
            assert (number, values[1]) not in open_stages
            open_stages[number, values[1]] = (values[2], now)
        elif command == "E":
            name, begun = open_stages.pop((number, values[1]))
            assert name == values[2]
            row.lanes[int(values[1])].append((name, begun, now))
        elif command == "W":
            assert int(values[1]) < number and values[2] == "0"
            row.woken_by = int(values[1])
        else:
            assert command == "R" and int(values[1]) == retired and values[2] == "0"
            row.retired, retired = now, retired + 1
    assert not open_stages and all(row.retired is not None for row in rows)
    return rows


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(netlist=netlists())
def test_every_firing_is_a_stage(tmp_path_factory, netlist: Netlist) -> None:
    """On any netlist: as many stages of an actor as it fired, begun when it did, in all as long as
    its lanes were busy, less what a next stage cut off; none overlaps another of its row."""
    try:
        timeline = simulate(netlist)
    except Deadlock as stuck:
        timeline = stuck.timeline
    rows = read(write_trace(timeline, tmp_path_factory.mktemp("k") / "t.kanata"))
    found = defaultdict(list)
    for row in rows:
        end = 0
        for name, begin, after in row.lanes[0]:
            assert end <= begin
            found[name].append((begin, after - begin))
            end = after
        waits = row.lanes[1]
        for cause, begin, after in waits:
            assert begin < after and cause
            assert all(after <= b or e <= begin for _, b, e in row.lanes[0])
    for actor in netlist.actors:
        starts, busy = timeline.starts_of(actor.name), timeline.busy(actor.name)
        done = starts >= 0
        stages = found[actor.name]
        assert sorted(begin for begin, _ in stages) == sorted(starts[done].tolist())
        length = sum(length for _, length in stages)
        early = timeline.latency(actor.name)[done] < busy[done]
        assert length <= busy[done].sum()
        if not early.any():
            assert length == busy[done].sum()


def pipeline() -> Netlist:
    busy = np.random.default_rng(0).integers(1, 9, (40, 2))
    return Netlist(
        [
            Actor(name="feed", firings=40),
            Actor(name="read", lanes=2, busy=busy),
            Actor(name="multiply", lanes=2, firings=40, busy=4),
            Actor(name="sum", firings=40, busy=2),
        ],
        [
            Channel(name="queue", source="feed", target="read", capacity=4,
                    pattern=Pattern.BROADCAST),
            Channel(name="operands", source="read", target="multiply", capacity=2),
            Channel(name="products", source="multiply", target="sum", capacity=2,
                    pattern=Pattern.GATHER),
        ],
    )  # fmt: skip


def test_a_row_is_a_token(tmp_path: Path) -> None:
    """Tokens go on from lane to lane; where one goes to many or many are taken, rows begin anew,
    woken by the row they came from. A row's waits in a channel sum to what its queues showed."""
    timeline = simulate(pipeline())
    rows = read(write_trace(timeline, tmp_path / "t.kanata"))
    kinds = defaultdict(list)
    for row in rows:
        kinds[tuple(name for name, _, _ in row.lanes[0])].append(row)
    assert {kind: len(each) for kind, each in kinds.items()} == {
        ("feed",): 40,
        ("read", "multiply"): 80,
        ("sum",): 40,
    }
    for row in kinds["read", "multiply"]:
        assert row.woken_by is not None and rows[row.woken_by].label.startswith("feed ")
        assert row.label.split()[1] == rows[row.woken_by].label.split()[1]
    times, shown = timeline.occupancy("operands")
    waited = sum(e - b for row in rows for _, b, e in row.lanes[1])
    assert waited == (np.diff(times, append=timeline.cycles) * shown).sum()


def test_a_window_begins_where_it_says(tmp_path: Path) -> None:
    """Only firings that touch the window are stages, and none is begun before it."""
    timeline = simulate(pipeline())
    rows = read(write_trace(timeline, tmp_path / "t.kanata", window=Window(60, 100)))
    starts, busy = timeline.starts_of("read"), timeline.busy("read")
    inside = (starts < 100) & (starts + busy > 60)
    stages = [stage for row in rows for stage in row.lanes[0] if stage[0] == "read"]
    assert len(stages) == inside.sum()
    assert all(begin >= 60 for _, begin, _ in stages)


def test_tokens_split_and_joined(tmp_path: Path) -> None:
    """A firing that makes two tokens leads one row on; a firing that takes two goes on with the
    last of them."""
    netlist = Netlist(
        [
            Actor(name="make", firings=4, busy=3),
            Actor(name="single", firings=8),
            Actor(name="pair", firings=4),
        ],
        [
            Channel(name="q", source="make", target="single", capacity=4, produce=2),
            Channel(name="r", source="single", target="pair", capacity=4, consume=2),
        ],
    )
    rows = read(write_trace(simulate(netlist), tmp_path / "t.kanata"))
    kinds = [tuple(name for name, _, _ in row.lanes[0]) for row in rows]
    assert sorted(kinds) == sorted([("make", "single")] * 4 + [("single", "pair")] * 4)
    assert all(row.woken_by is not None for row in rows if row.lanes[0][0][0] == "single")
