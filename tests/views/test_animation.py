"""Does an animation show what happened, moment by moment, and is its page whole?"""

from __future__ import annotations

import json
import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from netlists import netlists

from sparqsim.base import InputError
from sparqsim.scripts.animate import command
from sparqsim.simulator.animation import film, write_animation, write_frame
from sparqsim.simulator.animation.film import BLOCKED, BUSY, DONE, STARVED, WAITING
from sparqsim.simulator.deadlock import Deadlock
from sparqsim.simulator.engines import simulate
from sparqsim.simulator.netlist import Actor, Channel, Netlist, Pattern, Resource
from sparqsim.simulator.queues import held
from sparqsim.simulator.trace import Window


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(netlist=netlists())
def test_frames_sum_to_the_lane_times(netlist: Netlist) -> None:
    """On any netlist: a state stands from its moment to the next, and so long sums each lane's
    busy, starved, blocked, waiting and finished cycles (a firing without time is seen where it
    happens, and takes that cycle from what came after it); queues hold what they held."""
    try:
        timeline = simulate(netlist)
    except Deadlock as stuck:
        timeline = stuck.timeline
    cycles = film.moments(timeline)
    shown = list(film.frames(timeline, cycles))
    lengths = np.diff(cycles, append=max(timeline.cycles, cycles[-1]))
    for i, actor in enumerate(netlist.actors):
        times = timeline.lane_times(actor.name)
        starts, busy = timeline.starts_of(actor.name), timeline.busy(actor.name)
        for lane in range(actor.lanes):
            if (busy[starts[:, lane] >= 0, lane] == 0).any():
                continue
            sums = np.zeros(5, int)
            for frame, length in zip(shown, lengths, strict=True):
                sums[frame.states[i][lane]] += length
            assert sums[BUSY] == times.busy[lane]
            assert sums[DONE] == times.finished[lane]
            waits = times.starved[lane] + times.blocked[lane] + times.waiting[lane]
            assert sums[STARVED] + sums[BLOCKED] + sums[WAITING] == waits
    for c, channel in enumerate(netlist.channels):
        exact = held(timeline, channel.name, 10**6).tokens
        for frame in shown:
            if frame.cycle < len(exact) and exact.shape[1]:
                queue = frame.queues[c]
                assert queue.tokens == exact[frame.cycle].sum()
                assert queue.fullest == exact[frame.cycle].max() <= channel.capacity
                assert all(0 < share < 1 for _, share in queue.moving)


def small() -> Netlist:
    """Two makers share a bus; the taker is slow, so that its queue fills."""
    return Netlist(
        [
            Actor(name="feed <b>", firings=6, resource="bus"),
            Actor(name="other", firings=6, busy=3, resource="bus"),
            Actor(name="work", lanes=2, firings=6, busy=9),
        ],
        [
            Channel(name="queue", source="feed <b>", target="work", capacity=2,
                    pattern=Pattern.BROADCAST),
        ],
        [Resource(name="bus")],
    )  # fmt: skip


def test_waits_are_told_in_words() -> None:
    """A full queue, an empty one and a held resource are named, with who is to blame."""
    timeline = simulate(small())
    told = " ".join(
        text for frame in film.frames(timeline, film.moments(timeline)) for text in frame.words
    )
    assert "waits for free slots in queue: work has not taken enough" in told
    assert "2 of 2 wait for tokens of queue, from feed <b>" in told
    assert "waits for bus, held by other" in told
    assert "busy with firing 6 of 6" in told


def data_of(page: str) -> dict:
    found = re.search(r'<script type="application/json" id="film">(.*?)</script>', page, re.DOTALL)
    assert found
    return json.loads(found[1])


def test_the_page_is_whole(tmp_path: Path) -> None:
    """One file without outside request, names as text, and every id that the script changes; each
    moment of the run is in it, the first ones as a table."""
    timeline = simulate(small())
    path = write_animation(timeline, tmp_path / "a.html", 'a <i>"title"</i>')
    page = path.read_text(encoding="utf-8")
    assert "<b>" not in page and "<i>" not in page and "default-src 'none'" in page
    assert not re.search(r'(src|href)="|url\(|@import|https?://(?!www\.w3\.org)', page)
    data = data_of(page)
    assert [frame[0] for frame in data["frames"]] == film.moments(timeline).tolist()
    for i, lanes in enumerate(data["frames"][0][1]):
        assert f'id="w{i}"' in page
        assert all(f'id="l{i}-{lane}"' in page for lane in range(len(lanes)))
    assert all(f'id="{kind}0' in page for kind in "ftd")
    assert all(f'id="{name}"' in page for name in ("first", "back", "on", "last", "play", "place"))
    rows = re.findall(r'<tr><th scope="row">(\d+)</th>', page)
    assert [int(row) for row in rows] == film.moments(timeline).tolist()[: len(rows)]
    part = write_animation(timeline, tmp_path / "b.html", "part", Window(5, 9))
    cycles = [frame[0] for frame in data_of(part.read_text(encoding="utf-8"))["frames"]]
    assert cycles[0] == 5 and cycles[-1] == 9


def test_a_frame_is_an_svg(tmp_path: Path) -> None:
    """It can be read as XML, has one cell per lane in the state of the cycle, and the words."""
    timeline = simulate(small())
    path = write_frame(timeline, 3, tmp_path / "f.svg", "small")
    root = ElementTree.fromstring(path.read_text(encoding="utf-8"))
    (frame,) = film.frames(timeline, np.array([3]))
    cells = {each.get("id"): each.get("class") for each in root.iter() if each.get("id")}
    for i, states in enumerate(frame.states):
        for lane, state in enumerate(states):
            assert cells[f"l{i}-{lane}"] == f"s{state}"
    told = [each.text for each in root.iter("{http://www.w3.org/2000/svg}text")]
    assert f"work: {frame.words[2]}" in told and "small, cycle 3" in told


def test_what_cannot_be_shown_is_refused(tmp_path: Path) -> None:
    """Too many actors, lanes, firings or moments, and cycles that are not there, by number."""
    bank = Netlist([Actor(name="a", lanes=600, firings=1)])
    with pytest.raises(InputError, match="at most 512 lanes, and this run has 600"):
        write_animation(simulate(bank), tmp_path / "a.html", "a")
    many = Netlist([Actor(name=f"a{i}", firings=1) for i in range(41)])
    with pytest.raises(InputError, match="at most 40 actors, and this run has 41"):
        write_frame(simulate(many), 0, tmp_path / "a.svg", "a")
    long = simulate(Netlist([Actor(name="a", firings=2000, busy=2)]))
    with pytest.raises(InputError, match=r"1,500 moments.*2,001; name fewer"):
        write_animation(long, tmp_path / "a.html", "a")
    write_animation(long, tmp_path / "a.html", "a", Window(0, 100))
    with pytest.raises(InputError, match="cycles 0 to 4,000, got 5,000"):
        write_frame(long, 5000, tmp_path / "a.svg", "a")


@pytest.mark.parametrize(
    "machine",
    [
        "eie",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("snap", "bitfusion", "sparse-tensor-core")
        ),
    ],
)
def test_machines_are_animated(tmp_path: Path, machine: str) -> None:
    """``sparqsim animate MACHINE gemm:1x16x16`` writes the page and single frames."""
    page, frame = tmp_path / "a.html", tmp_path / "f.svg"
    arguments = [machine, "gemm:1x16x16", "-o", str(page), "--frame", "8", str(frame)]
    result = CliRunner().invoke(command, arguments)
    assert result.exit_code == 0, result.output
    assert len(data_of(page.read_text(encoding="utf-8"))["frames"]) > 5
    assert f"{machine}, gemm:1x16x16, cycle 8" in frame.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "given, message",
    [
        (["gemm:1x16x16"], "say what to write"),
        (["gemm:1x16x16", "-o", "a.svg"], "must be named .html, got a.svg"),
        (["gemm:1x16x16", "--frame", "3", "a.html"], "must be named .svg, got a.html"),
        (["gemm:1x16x16", "--frame", "3", "a.svg", "--window", "1:2"], "name that file with -o"),
        (["digits-cnn", "-o", "a.html"], "digits-cnn is a network; name one of its layers"),
        (["gemm:1x128x64", "-o", "a.html"], "at most 20,000 firings"),
        (["gemm:1x16x16", "-o", "a.html", "--frame", "99999", "a.svg"], "cycles 0 to"),
    ],
)
def test_error_messages(tmp_path: Path, monkeypatch, given: list[str], message: str) -> None:
    """What is asked wrongly is refused before anything is written."""
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(command, ["eie", *given])
    assert isinstance(result.exception, InputError) and message in str(result.exception)
    assert not list(tmp_path.iterdir())


def test_the_tensors_are_those_that_were_asked_for(tmp_path: Path) -> None:
    """``--correlation`` draws other zeros, so the page is another one."""
    given = ["snap", "conv:16x4x4,8x1x1", "--weight-density", ".5", "--activation-density", ".5"]
    pages = []
    for number, more in enumerate(([], ["--correlation", ".9"])):
        pages.append(tmp_path / f"{number}.html")
        result = CliRunner().invoke(command, [*given, *more, "-o", str(pages[-1])])
        assert result.exit_code == 0, result.output
    assert pages[0].read_text() != pages[1].read_text()
