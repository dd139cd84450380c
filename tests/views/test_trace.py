"""Is the trace whole and right? Every firing of a run, once, where and when it was."""

from __future__ import annotations

import gzip
import itertools
import json
import math
import resource
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from netlists import netlists

from sparqsim.base import InputError
from sparqsim.scripts.run import command
from sparqsim.simulator import trace
from sparqsim.simulator.deadlock import Deadlock
from sparqsim.simulator.engines import simulate
from sparqsim.simulator.netlist import Actor, Channel, Netlist, Pattern
from sparqsim.simulator.queues import held
from sparqsim.simulator.timeline import Timeline
from sparqsim.simulator.trace import Window, chrome
from sparqsim.simulator.traffic import Access


def written(timeline: Timeline, path: Path) -> dict:
    assert trace.write_trace(timeline, path) == path
    raw = path.read_bytes()
    return json.loads(gzip.decompress(raw) if path.suffix == ".gz" else raw)


def bank(clock_hz: float = 800e6) -> Netlist:
    busy = np.random.default_rng(0).integers(0, 9, (50, 4))
    return Netlist(
        [Actor(name='feed "50 %"', firings=50), Actor(name="work", lanes=4, busy=busy, part="PE")],
        [
            Channel(
                name="queue",
                source='feed "50 %"',
                target="work",
                capacity=3,
                pattern=Pattern.BROADCAST,
            )
        ],
        clock_hz=clock_hz,
    )


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(netlist=netlists(), chunk=st.sampled_from([1, 3, 1 << 14]))
def test_every_firing_is_there_once(tmp_path_factory, netlist: Netlist, chunk: int) -> None:
    """On any netlist, deadlocks too: firing, start, cycles and cause of each, whatever the piece
    that is formatted at once."""
    try:
        timeline = simulate(netlist)
    except Deadlock as stuck:
        timeline = stuck.timeline
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chrome, "CHUNK", chunk)
        events = written(timeline, tmp_path_factory.mktemp("t") / "t.json")["traceEvents"]
    threads = {e["tid"]: e for e in events if e["ph"] == "M" and e["name"] == "thread_name"}
    processes = {e["pid"]: e["args"]["name"] for e in events if e["name"] == "process_name"}
    assert list(processes.values()) == [actor.name for actor in netlist.actors]
    found = {}
    for e in events:
        if e["ph"] == "X":
            actor = processes[e["pid"]]
            lane = int(("0 " + threads[e["tid"]]["args"]["name"].removeprefix(actor)).split()[-1])
            assert e["name"] == actor and threads[e["tid"]]["pid"] == e["pid"]
            key = actor, lane, e["args"]["firing"]
            assert key not in found
            found[key] = e["args"]["cycle"], e["args"]["cycles"], e["args"]["cause"]
    expected = {}
    for actor in netlist.actors:
        starts, busy = timeline.starts_of(actor.name), timeline.busy(actor.name)
        causes = timeline.causes_of(actor.name)
        for k, lane in zip(*np.nonzero(starts >= 0), strict=True):
            cause = timeline.cause_name(int(causes[k, lane]))
            expected[actor.name, lane, k] = starts[k, lane], busy[k, lane], cause
    assert found == expected


@pytest.mark.parametrize("clock_hz", [800e6, 1e9, 123.4e6, 2.7e9, 5e9])
def test_times_are_real_time(tmp_path: Path, clock_hz: float) -> None:
    """``ts`` and ``dur`` are microseconds at the clock, to the half nanosecond; lanes do not
    overlap; and the sum of ``dur`` is the busy time where the period is a whole nanosecond."""
    timeline = simulate(bank(clock_hz))
    events = written(timeline, tmp_path / "t.json")["traceEvents"]
    lanes = defaultdict(list)
    for e in events:
        if e["ph"] == "X":
            assert e["ts"] == pytest.approx(e["args"]["cycle"] / clock_hz * 1e6, abs=1.6e-6)
            assert e["dur"] == pytest.approx(e["args"]["cycles"] / clock_hz * 1e6, abs=0.502e-3)
            lanes[e["tid"]].append((e["ts"], e["dur"]))
    assert len(lanes) == 5
    for spans in lanes.values():
        spans.sort()
        for (ts, dur), (after, _) in itertools.pairwise(spans):
            assert ts + dur <= after + 1e-12
    if clock_hz == 1e9:
        busy = int(timeline.lane_times("work").busy.sum())
        total = sum(e["dur"] for e in events if e["name"] == "work")
        assert total * 1000 == pytest.approx(busy, rel=1e-12)


@given(
    clock_mhz=st.one_of(st.sampled_from([800.0, 1000.0, 940.0]), st.floats(1, 9000)),
    first=st.integers(0, 10**9),
    busy=st.lists(st.integers(0, 40), min_size=1, max_size=30),
)
def test_viewers_see_no_overlap(clock_mhz: float, first: int, busy: list[int]) -> None:
    """Back-to-back firings do not overlap once a viewer has rounded ``ts`` and ``dur``, read as
    floating point, each to whole nanoseconds: it would drop them."""
    lengths = np.array(busy)
    starts = first + np.concatenate([[0], np.cumsum(lengths)[:-1]])
    ts, dur = chrome.times_ps(starts, lengths, clock_mhz * 1e6)
    assert (dur >= 0).all()

    def viewed(ps: int) -> int:
        return math.floor(float(f"{ps // 10**6}.{ps % 10**6:06d}") * 1000.0 + 0.5)

    ends = [viewed(t) + viewed(d) for t, d in zip(ts.tolist(), dur.tolist(), strict=True)]
    assert all(end <= viewed(t) for end, t in zip(ends, ts.tolist()[1:], strict=False))


def test_form(tmp_path: Path) -> None:
    """The Trace Event Format's object form: the fields each kind of event must have."""
    content = written(simulate(bank()), tmp_path / "t.json")
    assert content["displayTimeUnit"] == "ns"
    cycles = simulate(bank()).cycles
    assert content["otherData"] == {
        "netlist": "netlist",
        "clock_hz": 800e6,
        "cycles": cycles,
        "window": [0, cycles],
    }
    needed = {
        "M": {"name", "pid", "tid", "args"},
        "X": {"name", "cat", "pid", "tid", "ts", "dur", "args"},
        "C": {"name", "pid", "ts", "args"},
        "s": {"name", "cat", "id", "pid", "tid", "ts", "args"},
        "f": {"name", "cat", "id", "pid", "tid", "ts", "args", "bp"},
    }
    kinds = set()
    for e in content["traceEvents"]:
        assert set(e) == needed[e["ph"]] | {"ph"}
        assert isinstance(e["pid"], int) and e["pid"] > 0
        kinds.add((e["ph"], e["name"] if e["ph"] == "M" else ""))
        if e["ph"] == "C":
            assert all(isinstance(v, int | float) for v in e["args"].values())
    meta = ("process_name", "process_labels", "process_sort_index")
    meta += ("thread_name", "thread_sort_index")
    assert kinds == {*((ph, "") for ph in "XCsf"), *(("M", name) for name in meta)}
    threads = [e["tid"] for e in content["traceEvents"] if e["name"] == "thread_name"]
    assert len(set(threads)) == len(threads)  # a thread number stands for one lane in all viewers


def test_counters_are_the_tokens_held(tmp_path: Path) -> None:
    """A counter gives mean, least and most of a channel's queues, each time one changes."""
    timeline = simulate(bank())
    events = written(timeline, tmp_path / "t.json")["traceEvents"]
    counters = [e for e in events if e["ph"] == "C"]
    assert {e["name"] for e in counters} == {"queue (holds 3)"}
    assert max(e["args"]["most"] for e in counters) == 3
    made, taken = timeline.starts_of('feed "50 %"'), timeline.starts_of("work")
    for e in counters:
        cycle = round(e["ts"] * 800)
        tokens = (made <= cycle).sum() - (taken <= cycle).sum(axis=0)
        wanted = {"mean": tokens.mean(), "least": tokens.min(), "most": tokens.max()}
        assert e["args"] == pytest.approx(wanted)


def test_compressed_is_the_same(tmp_path: Path) -> None:
    """``.json.gz`` holds the bytes of ``.json``, and the same run gives the same file."""
    timeline = simulate(bank())
    trace.write_trace(timeline, tmp_path / "a.json")
    trace.write_trace(timeline, tmp_path / "a.json.gz")
    trace.write_trace(timeline, tmp_path / "b.json.gz")
    packed = (tmp_path / "a.json.gz").read_bytes()
    assert gzip.decompress(packed) == (tmp_path / "a.json").read_bytes()
    assert packed == (tmp_path / "b.json.gz").read_bytes()


def test_arrows_follow_the_critical_path(tmp_path: Path) -> None:
    """An arrow for each step of the path from lane to lane, from the start of a firing to the start
    of the next, in order; and what is between them sums to the run with the steps on one lane."""
    timeline = simulate(bank(1e9))
    events = written(timeline, tmp_path / "t.json")["traceEvents"]
    begins = {(e["tid"], round(e["ts"] * 1000)) for e in events if e["ph"] == "X"}
    leaving = [e for e in events if e["ph"] == "s"]
    arriving = [e for e in events if e["ph"] == "f"]
    assert [e["id"] for e in leaving] == [e["id"] for e in arriving] == [*range(len(leaving))]
    assert leaving
    at = 0.0
    for a, b in zip(leaving, arriving, strict=True):
        assert at <= a["ts"] <= b["ts"] and a["tid"] != b["tid"]
        at = b["ts"]
        for e in (a, b):
            assert (e["tid"], round(e["ts"] * 1000)) in begins
    assert {e["args"]["through"] for e in leaving} <= {
        'work of feed "50 %"',
        "work of work",
        "full queue queue",
    }


def test_bytes_a_cycle_sum_to_the_bits_moved(tmp_path: Path) -> None:
    """The counters of a memory, over their intervals, are the bits of all firings."""
    timeline = simulate(bank(1e9))
    bits = np.arange(50)
    traffic = {"sram": [Access(actor="work", read_bits=bits), Access(actor="work", written_bits=8)]}
    path = trace.write_trace(timeline, tmp_path / "t.json", traffic=traffic)
    events = json.loads(path.read_bytes())["traceEvents"]
    found = [e for e in events if e["ph"] == "C" and e["name"] == "sram: bytes per cycle"]
    edges = np.array([e["ts"] * 1000 for e in found] + [timeline.cycles])
    for key, total in (("read", 4 * bits.sum() / 8), ("written", 4 * 50)):
        assert np.diff(edges) @ [e["args"][key] for e in found] == pytest.approx(total, rel=1e-6)


def test_a_window_shows_what_touches_it(tmp_path: Path) -> None:
    """The firings with a cycle in the window, whole; counters over its cycles alone."""
    timeline = simulate(bank(1e9))
    window = Window(40, 61)
    path = trace.write_trace(timeline, tmp_path / "t.json", window=window)
    events = json.loads(path.read_bytes())["traceEvents"]
    starts, busy = timeline.starts_of("work"), timeline.busy("work")
    inside = (starts < 61) & (starts + np.maximum(busy, 1) > 40)
    shown = [e for e in events if e["ph"] == "X" and e["name"] == "work"]
    assert sorted(e["args"]["cycle"] for e in shown) == sorted(starts[inside].tolist())
    counters = [e for e in events if e["ph"] == "C"]
    assert counters[0]["ts"] * 1000 == 40 and counters[-1]["ts"] * 1000 < 61
    exact = held(timeline, "queue").tokens[40:61].mean(axis=1)
    assert counters[0]["args"]["mean"] == pytest.approx(exact[0])
    assert all(40 <= e["ts"] * 1000 < 61 for e in events if e["ph"] in "sf")


@pytest.mark.parametrize("name", ["t.json", "t.kanata", "t.vcd"])
def test_sizes_are_foretold(tmp_path: Path, name: str) -> None:
    """The bytes of a trace are within a factor of two of what was said, and too many are refused
    with their number."""
    busy = np.random.default_rng(1).integers(1, 9, (2000, 4))
    actors = [Actor(name=each, lanes=4, busy=busy) for each in ("fetch", "decode", "execute")]
    channels = [
        Channel(name=f"to {b}", source=a, target=b, capacity=2)
        for a, b in itertools.pairwise(("fetch", "decode", "execute"))
    ]
    timeline = simulate(Netlist(actors, channels))
    path = trace.write_trace(timeline, tmp_path / name)
    assert 0.5 < path.stat().st_size / trace.trace_bytes(24000, path) < 2
    assert "24,000 firings" in trace.check_trace_size(timeline, path, limit=10**8)
    with pytest.raises(InputError, match=r"24,000 firings takes about .* MB, more than"):
        trace.check_trace_size(timeline, path, limit=1000)
    part = trace.Window(0, 10)
    assert "24,000" not in trace.check_trace_size(timeline, path, limit=10**8, window=part)


def test_error_messages(tmp_path: Path) -> None:
    """Bad names, sums, windows and folders are refused, and nothing is left behind."""
    timeline = simulate(bank())
    with pytest.raises(InputError, match=r"named \.json or \.json\.gz .*, got .*t\.txt"):
        trace.write_trace(timeline, tmp_path / "t.txt")
    with pytest.raises(InputError, match="record='full'"):
        trace.write_trace(simulate(bank(), record="summary"), tmp_path / "t.json")
    with pytest.raises(InputError, match="name a file in a folder you can write"):
        trace.write_trace(timeline, "/dev/null/t.json")
    with pytest.raises(InputError, match="begins after the run"):
        trace.write_trace(timeline, tmp_path / "t.json", window=Window(10**6, 10**7))
    for text in ("5", "5:5", "9:5", "-1:5", "a:b", ":"):
        with pytest.raises(InputError, match="FROM:TO in cycles"):
            Window.parse(text)
    assert not list(tmp_path.iterdir())


def test_the_command_writes_a_window(tmp_path: Path) -> None:
    """``--trace-window`` limits what ``--trace`` writes, and is refused without it."""
    path = tmp_path / "t.json"
    given = ["eie", "gemm:1x16x16", "--no-verify", "--trace-window", "2:5"]
    alone = CliRunner().invoke(command, given)
    assert isinstance(alone.exception, InputError) and "without --trace" in str(alone.exception)
    result = CliRunner().invoke(command, [*given, "--trace", str(path)])
    assert result.exit_code == 0, result.output
    events = json.loads(path.read_bytes())["traceEvents"]
    cycles = [e["args"]["cycle"] for e in events if e["ph"] == "X"]
    assert cycles and max(cycles) == 4
    memories = [e for e in events if e["ph"] == "C" and "bytes per cycle" in e["name"]]
    assert {e["name"].split(":")[0] for e in memories} == {"spmat_sram", "ptr_sram"}


@pytest.mark.parametrize("name", ["t.json", "t.json.gz"])
def test_a_failure_leaves_the_old_file(tmp_path: Path, monkeypatch, name: str) -> None:
    """A trace that fails half way leaves what was there before."""
    (tmp_path / name).write_text("old")

    def fail(timeline, window):
        raise OSError("disk full")
        yield

    monkeypatch.setattr(chrome, "_queues", fail)
    with pytest.raises(OSError, match="disk full"):
        trace.write_trace(simulate(bank()), tmp_path / name)
    assert [p.name for p in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "old"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["t.json.gz", "t.kanata", "t.vcd"])
def test_many_firings_take_little_memory(tmp_path: Path, name: str) -> None:
    """A trace of 280k firings takes at most 70 MB more than the run itself: 250 bytes a firing."""
    stages = ("ptr_read", "spmat_read", "arithmetic", "act_write")
    busy = np.random.default_rng(0).integers(1, 20, (1094, 64))
    actors = [Actor(name=name, lanes=64, busy=busy) for name in stages]
    channels = [
        Channel(name=f"to {b}", source=a, target=b, capacity=2)
        for a, b in itertools.pairwise(stages)
    ]
    timeline = simulate(Netlist(actors, channels, clock_hz=800e6))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    trace.write_trace(timeline, tmp_path / name)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 70 * 1024
